"""Does a clip sound like the person it was told? By a speaker verifier trained for this alone (`duovox experiment guides` trains one beside
its results), which never guides; and is the word still heard, by the packaged judge.

    python benchmarks/speaker.py FEATURES verifier.safetensors --gamma 0 30         # gamma 0: no guide
    python benchmarks/speaker.py FEATURES verifier.safetensors --gamma 20 --cap 0.1 --candidates 1
    python benchmarks/speaker.py FEATURES verifier.safetensors --guide FOLDER --trust-code
    python benchmarks/speaker.py FEATURES verifier.safetensors --real 16 1024       # nothing is generated
    python benchmarks/speaker.py FEATURES verifier.safetensors --by ge2e --trust-code   # a network that does not guide measures

The first test speakers of the feature folder, a reference clip each, words in turn, seeds 1000, 1001, ...; where among 40 the wanted
speaker stands by similarity. With `--real`, of so many real clips of other people the one that the guide finds most alike to the reference
takes the place of a generated one: what the guide hears, whatever the voice can say. Prints rows of Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pitch import word_accuracy

from duovox import Duovox
from duovox.data import open_features
from duovox.data.features import FULL_SCALE
from duovox.evaluation.judge import Judge, as_floats, packaged_judge
from duovox.evaluation.verifier import Verifier, clips_by_speaker
from duovox.experiments.instruments import Panel, gather_panel
from duovox.voice import Clip

RANKED = 40


class OtherVerifier(Verifier):
    """The network of a guide that embeds sounds in the place of a verifier."""

    def __init__(self, voice: Duovox, guide: str, trust_code: bool) -> None:
        sound = np.random.default_rng(0).uniform(-0.1, 0.1, 16000).astype(np.float32)
        self.of_waves: Any = voice.guide(guide, like=sound, trust_code=trust_code).network.embed.of_waves  # type: ignore[union-attr]

    @torch.inference_mode()
    def embed(self, waves: torch.Tensor | NDArray[np.generic]) -> NDArray[np.float32]:
        parts = [self.of_waves(part) for part in as_floats(waves).split(64)]
        found: NDArray[np.float32] = torch.nn.functional.normalize(torch.cat(parts), dim=1).numpy()
        return found


def clips_like(voice: Duovox, guide: str, panel: Panel, speaker: int, strength: dict[str, Any], n: int) -> list[Clip]:
    guides = [voice.guide(guide, like=panel.references[speaker], **strength)] if strength["gamma"] else []
    numbers = range(speaker * n, (speaker + 1) * n)
    return voice.generate_batch([(voice.labels[(5 * number + 1) % len(voice.labels)], 1000 + number) for number in numbers], guides=guides)


def chosen(
    network: Any, references: Sequence[NDArray[np.float32]], waves: NDArray[np.float32], count: int, draws: int = 16
) -> list[list[int]]:
    """For each reference, which of `count` of the waves (N, S) an embedding network finds most alike, in so many draws of them."""
    with torch.no_grad():
        embedded, wanted = (_units(network, np.stack(list(some))) for some in (waves, references))
    rng, likeness = np.random.default_rng(1), (wanted @ embedded.T).numpy()
    drawn = [[rng.choice(len(waves), count, replace=False) for _ in range(draws)] for _ in references]
    return [[int(some[likeness[number, some].argmax()]) for some in each] for number, each in enumerate(drawn)]


def _units(network: Any, waves: NDArray[np.float32]) -> torch.Tensor:
    found = [network.embed.of_waves(part) for part in torch.from_numpy(waves).split(64)]
    return torch.nn.functional.normalize(torch.cat(found), dim=1)


def ranks_of_real(voice: Duovox, given: argparse.Namespace, panel: Panel, instrument: Verifier) -> None:
    features = open_features(given.data)
    clips = [clip for name, own in clips_by_speaker(features, given.split).items() if name not in panel.names for clip in own]
    pool = np.random.default_rng(0).choice(clips, min(max(given.real), len(clips)), replace=False)
    waves, embedded = features.waves[pool].astype(np.float32) / FULL_SCALE, instrument.embed(features.waves[pool])
    network = voice.guide(given.guide, like=panel.references[0], trust_code=given.trust_code).network
    print("| chosen among | rank, mean | median |\n|---|---|---|")
    for count in given.real:
        picked = chosen(network, panel.references, waves, min(count, len(pool)))
        ranks = [panel.rank(embedded[clip], speaker) for speaker, own in enumerate(picked) for clip in own]
        print(f"| {count} | {np.mean(ranks):.1f} | {np.median(ranks):g} |", flush=True)


def main(given: argparse.Namespace) -> None:
    voice = Duovox.from_pretrained()
    voice.sample_in(given.precision)
    instrument = OtherVerifier(voice, given.by, given.trust_code) if given.by else Verifier.load(given.verifier)
    judge, n = Judge.load(packaged_judge(voice.labels)), given.n
    panel = gather_panel(open_features(given.data), instrument, given.speakers, RANKED, given.split)
    print(f"{panel.wanted} of {len(panel.names)} speakers wanted; real clips of theirs stand at {panel.real_rank:.1f}\n")
    if given.real:
        return ranks_of_real(voice, given, panel, instrument)
    print("| gamma | rank, mean | median | word |\n|---|---|---|---|")
    for gamma in given.gamma:
        strength = {"gamma": gamma, "cap": given.cap, "candidates": given.candidates, "at": given.at, "trust_code": given.trust_code}
        clips = [clips_like(voice, given.guide, panel, speaker, strength, n) for speaker in range(panel.wanted)]
        flat = [clip for some in clips for clip in some]
        embedded = instrument.embed(np.stack([clip.wave for clip in flat]))
        ranks = [panel.rank(each, number // n) for number, each in enumerate(embedded)]
        print(f"| {gamma:g} | {np.mean(ranks):.1f} | {np.median(ranks):g} | {word_accuracy(flat, judge):.3f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("verifier", type=Path)
    parser.add_argument("--guide", default="speaker")
    parser.add_argument("--by", help="a guide folder whose network measures in the verifier's place")
    parser.add_argument("--trust-code", action="store_true")
    parser.add_argument("--gamma", nargs="+", type=float, default=[0.0, 30.0])
    parser.add_argument("--speakers", type=int, default=8)
    parser.add_argument("--split", default="test", help="validation: to tune a guide")
    parser.add_argument("--at", help="estimate or noised; the guide's own if left out")
    parser.add_argument("--n", type=int, default=2)
    parser.add_argument("--cap", type=float, help="the guide's own if left out")
    parser.add_argument("--candidates", type=int, help="the guide's own if left out")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--real", nargs="+", type=int, help="choose among so many real clips of other people")
    main(parser.parse_args())
