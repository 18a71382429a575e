"""Does a clip have the pitch it was told? By Praat's autocorrelation (`pip install praat-parselmouth`), which never guides; and is the word
still heard, by the packaged judge.

    python benchmarks/pitch.py --wanted 110Hz 165Hz 262Hz --gamma 50        # gamma 0: no guide
    python benchmarks/pitch.py --guide FOLDER --trust-code                  # another guide of pitch, from its folder

Words in turn, seeds 1000, 1001, ...; a clip's pitch is the median over its voiced frames. Prints rows of Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import parselmouth
import torch
from numpy.typing import NDArray

from duovox import Duovox
from duovox.evaluation.judge import Judge, packaged_judge
from duovox.quantities import value_of
from duovox.voice import Clip

FLOOR, CEILING, STEP = 65.0, 500.0, 0.01
FEWEST_FRAMES = 5
BATCH = 8


def pitch_of(wave: NDArray[np.float32], rate: int) -> float:
    """The median pitch of the voiced frames in Hz; not a number where hardly any is voiced."""
    track = parselmouth.Sound(wave.astype(np.float64), rate).to_pitch_ac(time_step=STEP, pitch_floor=FLOOR, pitch_ceiling=CEILING)
    voiced = track.selected_array["frequency"]
    voiced = voiced[voiced > 0]
    return float(np.median(voiced)) if len(voiced) >= FEWEST_FRAMES else float("nan")


def clips_at(voice: Duovox, guide: str, wanted: str, strength: dict[str, Any], n: int) -> list[Clip]:
    guides = [voice.guide(guide, wanted, **strength)] if strength["gamma"] else []
    asked = [(voice.labels[(5 * number + 1) % len(voice.labels)], 1000 + number) for number in range(n)]
    batches = [asked[start : start + BATCH] for start in range(0, n, BATCH)]
    return [clip for part in batches for clip in voice.generate_batch(part, guides=guides)]


def word_accuracy(clips: Sequence[Clip], judge: Judge) -> float:
    heard = judge.score(torch.from_numpy(np.stack([clip.wave for clip in clips]))).probabilities.argmax(1)
    return float(np.mean([judge.labels[int(number)] == clip.label for number, clip in zip(heard, clips, strict=True)]))


def main(given: argparse.Namespace) -> None:
    voice = Duovox.from_pretrained()
    voice.sample_in(given.precision)
    guide = voice.add_guide(given.guide, trust_code=given.trust_code).name
    judge = Judge.load(packaged_judge(voice.labels))
    print("| wanted | gamma | within a semitone | within half | median | word |\n|---|---|---|---|---|---|")
    for one in given.wanted:
        for gamma in given.gamma:
            clips = clips_at(voice, guide, one, {"gamma": gamma, "cap": given.cap, "candidates": given.candidates}, given.n)
            found = np.array([pitch_of(clip.wave, clip.rate) for clip in clips])
            away = np.nan_to_num(np.abs(12 * np.log2(found / value_of(one))), nan=np.inf)
            shares = " | ".join(f"{np.mean(away <= limit):.2f}" for limit in (1, 0.5))
            print(f"| {one} | {gamma:g} | {shares} | {np.nanmedian(found):.0f} Hz | {word_accuracy(clips, judge):.3f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guide", default="pitch")
    parser.add_argument("--trust-code", action="store_true")
    parser.add_argument("--wanted", nargs="+", default=["110Hz", "165Hz", "262Hz"])
    parser.add_argument("--gamma", nargs="+", type=float, default=[50.0])
    parser.add_argument("--n", type=int, default=40)
    parser.add_argument("--cap", type=float, help="the guide's own if left out")
    parser.add_argument("--candidates", type=int, help="the guide's own if left out")
    parser.add_argument("--precision", default="fp32")
    main(parser.parse_args())
