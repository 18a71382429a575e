"""FID against a train split in which every word is as common: where some words have many more recordings than others, the plain FID of a
set with as many of each says more of the mix than of the sound.

    python benchmarks/balanced_fid.py FEATURES FOLDER...       # FOLDER: clips by label, of the judge's words

The reference is as many train clips of each word as the rarest has, drawn with seed 0. Prints a row of Markdown for each folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from duovox.data import open_features
from duovox.evaluation import metrics
from duovox.evaluation.clips import read_clips
from duovox.evaluation.judge import Judge, packaged_judge

CHUNK = 512


def main(folder: Path, sets: list[Path]) -> None:
    features = open_features(folder)
    judge = Judge.load(packaged_judge(features.labels))
    train = np.random.default_rng(0).permutation(features.indices("train"))
    each = [train[features.label[train] == label] for label in range(len(features.labels))]
    chosen = np.sort(np.concatenate([clips[: min(map(len, each))] for clips in each]))
    seen = [judge.score(features.waves[chosen[start : start + CHUNK]]).features for start in range(0, len(chosen), CHUNK)]
    reference = metrics.fit_gaussian(np.concatenate(seen))
    print(f"| clips | n | FID against {len(chosen)} train clips |\n|---|---|---|")
    for one in sets:
        found = judge.score(read_clips(one, features.labels).waves).features
        print(f"| {one.name} | {len(found)} | {metrics.frechet_distance(metrics.fit_gaussian(found), reference):.3f} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
