"""Does a clip sound like the person it was told? By a speaker verifier trained for this alone (`duovox experiment guides` trains one beside
its results), which never guides; and is the word still heard, by the packaged judge.

    python benchmarks/speaker.py FEATURES verifier.safetensors --gamma 0 10         # gamma 0: no guide
    python benchmarks/speaker.py FEATURES verifier.safetensors --guide FOLDER --trust-code

The first test speakers of the feature folder, a reference clip each, words in turn, seeds 1000, 1001, ...; where among 40 the wanted
speaker stands by similarity. Prints rows of Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pitch import word_accuracy

from duovox import Duovox
from duovox.data import open_features
from duovox.evaluation.judge import Judge, packaged_judge
from duovox.evaluation.verifier import Verifier
from duovox.experiments.instruments import Panel, gather_panel
from duovox.voice import Clip

RANKED = 40


def clips_like(voice: Duovox, guide: str, panel: Panel, speaker: int, gamma: float, n: int, trust_code: bool) -> list[Clip]:
    like = panel.references[speaker]
    guides = [voice.guide(guide, like=like, gamma=gamma, trust_code=trust_code)] if gamma else []
    numbers = range(speaker * n, (speaker + 1) * n)
    return voice.generate_batch([(voice.labels[(5 * number + 1) % len(voice.labels)], 1000 + number) for number in numbers], guides=guides)


def main(data: Path, verifier: Path, guide: str, gammas: Sequence[float], speakers: int, n: int, trust_code: bool) -> None:
    voice, instrument = Duovox.from_pretrained(), Verifier.load(verifier)
    judge = Judge.load(packaged_judge(voice.labels))
    panel = gather_panel(open_features(data), instrument, speakers, RANKED)
    print(f"{panel.wanted} of {len(panel.names)} speakers wanted; real clips of theirs stand at {panel.real_rank:.1f}\n")
    print("| gamma | rank, mean | median | word |\n|---|---|---|---|")
    for gamma in gammas:
        clips = [clips_like(voice, guide, panel, speaker, gamma, n, trust_code) for speaker in range(panel.wanted)]
        flat = [clip for some in clips for clip in some]
        embedded = instrument.embed(np.stack([clip.wave for clip in flat]))
        ranks = [panel.rank(each, number // n) for number, each in enumerate(embedded)]
        print(f"| {gamma:g} | {np.mean(ranks):.1f} | {np.median(ranks):g} | {word_accuracy(flat, judge):.3f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("verifier", type=Path)
    parser.add_argument("--guide", default="speaker")
    parser.add_argument("--trust-code", action="store_true")
    parser.add_argument("--gamma", nargs="+", type=float, default=[0.0, 10.0])
    parser.add_argument("--speakers", type=int, default=8)
    parser.add_argument("--n", type=int, default=2)
    given = parser.parse_args()
    main(given.data, given.verifier, given.guide, given.gamma, given.speakers, given.n, given.trust_code)
