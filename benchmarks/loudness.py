"""Is a clip as loud as it was told? By the root mean square of its samples; and is the word still heard, by the packaged judge.

    python benchmarks/loudness.py --wanted -14dB -20dB -26dB -32dB --gamma 0 1 3       # gamma 0: no guide

Words in turn, seeds 1000, 1001, ...; prints rows of Markdown.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from pitch import clips_at, word_accuracy

from duovox import Duovox
from duovox.evaluation.judge import Judge, packaged_judge
from duovox.quantities import value_of


def level_of(wave: NDArray[np.float32]) -> float:
    """The root mean square in dB of full scale."""
    return 20 * float(np.log10(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))))


def main(given: argparse.Namespace) -> None:
    voice = Duovox.from_pretrained()
    voice.sample_in(given.precision)
    judge = Judge.load(packaged_judge(voice.labels))
    print("| wanted | gamma | off, mean | median | word |\n|---|---|---|---|---|")
    for one in given.wanted:
        for gamma in given.gamma:
            clips = clips_at(voice, "loudness", one, {"gamma": gamma}, given.n)
            found = np.array([level_of(clip.wave) for clip in clips])
            off = np.abs(found - value_of(one)).mean()
            print(f"| {one} | {gamma:g} | {off:.1f} dB | {np.median(found):.1f} dB | {word_accuracy(clips, judge):.3f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wanted", nargs="+", default=["-14dB", "-20dB", "-26dB", "-32dB"])
    parser.add_argument("--gamma", nargs="+", type=float, default=[1.0])
    parser.add_argument("--n", type=int, default=40)
    parser.add_argument("--precision", default="fp32")
    main(parser.parse_args())
