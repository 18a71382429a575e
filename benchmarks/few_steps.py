"""How few steps each sampler can do with: how many of some clips run off to noise, and how many are heard as the word they should be.

    python benchmarks/few_steps.py --clips 24

Prints a table in Markdown. `serve/settings.py` (FEWEST_STEPS) and docs/serve.md go by it.
"""

from __future__ import annotations

import argparse

from duovox import Duovox

STEPS = {"heun": (5, 6, 7, 8, 9), "dpmpp_2m": (4, 5, 6, 7), "euler_maruyama": (6, 8, 10, 12)}


def row(voice: Duovox, sampler: str, steps: int, clips: int) -> str:
    """One line of the table: clips of all words in turn, with the seeds 0, 1, ... and the bundle's other settings."""
    wanted = [(voice.labels[seed % len(voice.labels)], seed) for seed in range(clips)]
    made = voice.generate_batch(wanted, voice.settings(sampler=sampler, steps=steps))
    faulty = sum(bool(clip.fault) for clip in made)
    right = sum(max(clip.probabilities, key=clip.probabilities.__getitem__) == clip.label for clip in made)
    return f"| {sampler} | {steps} | {faulty} of {clips} | {right} of {clips} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="sc06")
    parser.add_argument("--clips", type=int, default=24)
    options = parser.parse_args()
    voice = Duovox.from_pretrained(options.bundle)
    print("| sampler | steps | ran off | heard as the word |\n|---|---|---|---|")
    for sampler, numbers in STEPS.items():
        for steps in numbers:
            print(row(voice, sampler, steps, options.clips), flush=True)


if __name__ == "__main__":
    main()
