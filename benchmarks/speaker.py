"""Does a clip sound like the person it was told? By a speaker verifier trained for this alone (`duovox experiment guides` trains one beside
its results), which never guides; and is the word still heard, by the packaged judge.

    python benchmarks/speaker.py FEATURES verifier.safetensors --gamma 0 10         # gamma 0: no guide
    python benchmarks/speaker.py FEATURES verifier.safetensors --gamma 20 --cap 0.1 --candidates 1
    python benchmarks/speaker.py FEATURES verifier.safetensors --guide FOLDER --trust-code

The first test speakers of the feature folder, a reference clip each, words in turn, seeds 1000, 1001, ...; where among 40 the wanted
speaker stands by similarity. Prints rows of Markdown.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from pitch import word_accuracy

from duovox import Duovox
from duovox.data import open_features
from duovox.evaluation.judge import Judge, packaged_judge
from duovox.evaluation.verifier import Verifier
from duovox.experiments.instruments import Panel, gather_panel
from duovox.voice import Clip

RANKED = 40


def clips_like(voice: Duovox, guide: str, panel: Panel, speaker: int, strength: dict[str, Any], n: int) -> list[Clip]:
    guides = [voice.guide(guide, like=panel.references[speaker], **strength)] if strength["gamma"] else []
    numbers = range(speaker * n, (speaker + 1) * n)
    return voice.generate_batch([(voice.labels[(5 * number + 1) % len(voice.labels)], 1000 + number) for number in numbers], guides=guides)


def main(given: argparse.Namespace) -> None:
    voice, instrument = Duovox.from_pretrained(), Verifier.load(given.verifier)
    voice.sample_in(given.precision)
    judge, n = Judge.load(packaged_judge(voice.labels)), given.n
    panel = gather_panel(open_features(given.data), instrument, given.speakers, RANKED)
    print(f"{panel.wanted} of {len(panel.names)} speakers wanted; real clips of theirs stand at {panel.real_rank:.1f}\n")
    print("| gamma | rank, mean | median | word |\n|---|---|---|---|")
    for gamma in given.gamma:
        strength = {"gamma": gamma, "cap": given.cap, "candidates": given.candidates, "trust_code": given.trust_code}
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
    parser.add_argument("--trust-code", action="store_true")
    parser.add_argument("--gamma", nargs="+", type=float, default=[0.0, 10.0])
    parser.add_argument("--speakers", type=int, default=8)
    parser.add_argument("--n", type=int, default=2)
    parser.add_argument("--cap", type=float, help="the guide's own if left out")
    parser.add_argument("--candidates", type=int, help="the guide's own if left out")
    parser.add_argument("--precision", default="fp32")
    main(parser.parse_args())
