"""Should corpora be levelled before they are joined, and should a word of two corpora be one label? By small classifiers.

    python benchmarks/corpora.py FEATURES            # of several roots, made by `duovox data prepare A B ...`; 20 minutes on a core

Trains the small classifier of `evaluate --cas` on all real train clips, twice each way, and tests it on the real test clips of each
root: "together", one label a word; "apart", a label for each pair of word and root, of which only the word counts; "levelled",
together, every clip brought to one root mean square first. Prints a table in Markdown.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from duovox.data import Features, open_features
from duovox.data.features import read_manifest
from duovox.evaluation.cas import CasConfig, train

CONFIG = CasConfig(updates=1000, batch=64, seeds=(0, 1))
LEVEL = 0.05
CHUNK = 512


def mels(features: Features, clips: NDArray[np.int64], levelled: bool) -> Tensor:
    """Log-mels (N, 1, M / 2, T / 2) from -1, the floor, upwards: absolute ones, so that level can matter."""
    floor, found = math.log(features.mel.floor), []
    for start in range(0, len(clips), CHUNK):
        chosen = clips[start : start + CHUNK]
        log_mel = torch.from_numpy(features.log_mels[chosen].astype(np.float32))[:, None]
        if levelled:
            wave = torch.from_numpy(features.waves[chosen].astype(np.float32) / 32768)
            gain = LEVEL / wave.square().mean(1).sqrt().clamp(min=1e-4)
            log_mel = (log_mel + gain.log()[:, None, None, None]).clamp(min=floor)
        found.append(avg_pool2d(1 - 2 * log_mel / floor, 2))
    return torch.cat(found)


def main(folder: Path) -> None:
    features, manifest = open_features(folder), read_manifest(folder)
    root = np.array(manifest.clip_roots)
    clips = {split: features.indices(split) for split in ("train", "test")}
    pairs, pair = np.unique(np.stack([features.label, root]), axis=1, return_inverse=True)
    words, each = torch.from_numpy(features.label), torch.arange(len(features.labels))
    plain = {split: mels(features, found, False) for split, found in clips.items()}
    level = {split: mels(features, found, True) for split, found in clips.items()}
    ways = {
        "together": (plain, words, each),
        "apart": (plain, torch.from_numpy(pair), torch.from_numpy(pairs[0])),
        "levelled": (level, words, each),
    }
    print("| way | all | " + " | ".join(Path(name).name for name in manifest.roots) + " |\n" + "|---" * (2 + len(manifest.roots)) + "|")
    for name, (mel, label, word_of) in ways.items():
        rights = []
        for seed in CONFIG.seeds:
            network = train(mel["train"], label[clips["train"]], len(word_of), CONFIG, seed)
            with torch.no_grad():
                heard = torch.cat([network(part).argmax(1) for part in mel["test"].split(CHUNK)])
            rights.append((word_of[heard] == words[clips["test"]]).numpy())
        print(line(name, rights, root[clips["test"]], len(manifest.roots)), flush=True)


def line(name: str, rights: Sequence[NDArray[np.bool_]], root: NDArray[np.int64], roots: int) -> str:
    """Mean accuracy over the seeds and its range, in all and of each root."""

    def cell(where: NDArray[np.bool_]) -> str:
        values = [float(right[where].mean()) for right in rights]
        return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"

    return f"| {name} | " + " | ".join(cell(where) for where in (root >= 0, *(root == one for one in range(roots)))) + " |"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
