"""A judge of another design, for this check alone: what it hears in folders of clips, beside the judge in the package.

    python benchmarks/second_judge.py FEATURES WEIGHTS FOLDER...       # trains WEIGHTS (10 minutes on a core), or reads them

It hears the wave itself, by convolutions over time (after Dai et al. 2016, arXiv 1610.00087), where the judge in the package hears a mel
of its own. It is trained on the real train clips of FEATURES, shifted and noised, rare labels as often as common ones, and tested on the
real test clips: the first row. FOLDER holds clips by label. Prints a row of Markdown for each, in all and by language.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import trange

from duovox.contracts import DuovoxError
from duovox.data import Batches, Features, open_features
from duovox.evaluation.clips import read_clips

UPDATES, BATCH, RATE, SEED = 1500, 64, 4e-3, 0
SHIFT = 1600
DECIBELS = 12.0


class WaveNetwork(nn.Sequential):
    """wave (B, S) at 16 kHz -> logits (B, K)."""

    def __init__(self, labels: int) -> None:
        layers = [*_layer(1, 64, 80, 8), *_layer(64, 64, 3, 1), *_layer(64, 128, 3, 1), *_layer(128, 256, 3, 1)]
        super().__init__(nn.Unflatten(1, (1, -1)), *layers, nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Dropout(0.3), nn.Linear(1024, labels))


def _layer(inputs: int, outputs: int, size: int, stride: int) -> tuple[nn.Module, ...]:
    return nn.Conv1d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(), nn.MaxPool1d(4)


def level(wave: Tensor) -> Tensor:
    """Waves (B, S) at one root mean square: loudness says nothing of the word."""
    return 0.1 * wave / (wave.square().mean(1, keepdim=True).sqrt() + 1e-4)


def changed(wave: Tensor, generator: torch.Generator) -> Tensor:
    """Each wave (B, S) shifted in a circle by up to `SHIFT` samples, and with white noise up to `DECIBELS` above -40 dB."""
    offset = torch.randint(-SHIFT, SHIFT + 1, (len(wave), 1), generator=generator)
    place = (torch.arange(wave.shape[1]) + offset) % wave.shape[1]
    noise = 10 ** ((DECIBELS * torch.rand(len(wave), 1, generator=generator) - 40) / 20) * 0.1
    return level(wave).gather(1, place) + noise * torch.randn(wave.shape, generator=generator)


def train(features: Features) -> WaveNetwork:
    torch.manual_seed(SEED)
    network = WaveNetwork(len(features.labels))
    adamw = AdamW(network.parameters(), RATE, weight_decay=0.05)
    schedule = OneCycleLR(adamw, RATE, total_steps=UPDATES + 1)
    batches, generator = Batches(features, "train", BATCH, SEED, balance=1.0), torch.Generator().manual_seed(SEED)
    for step in trange(UPDATES, desc="second judge", mininterval=20):
        batch = batches.at(step)
        loss = cross_entropy(network(changed(batch.wave, generator)), batch.label, label_smoothing=0.05)
        adamw.zero_grad()
        loss.backward()
        adamw.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def hear(network: nn.Module, waves: NDArray[np.generic]) -> NDArray[np.int64]:
    """The label (N,) heard in waves (N, S)."""
    parts = np.array_split(waves, max(1, len(waves) // 128))
    return np.concatenate([network(level(torch.from_numpy(part.astype(np.float32)))).argmax(1).numpy() for part in parts])


def row(name: str, right: NDArray[np.bool_], label: NDArray[np.int64], languages: Sequence[str]) -> str:
    """The share of clips heard right: in all, and of the labels of each language."""
    spoken = np.array(languages)[label]
    shares = [right, *(right[spoken == language] for language in sorted(set(languages)))]
    return f"| {name} | {len(right)} | " + " | ".join(f"{share.mean():.3f}" if len(share) else "-" for share in shares) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("folders", type=Path, nargs="*")
    options = parser.parse_args()
    try:
        features = open_features(options.features)
        network = WaveNetwork(len(features.labels)).eval()
        if options.weights.is_file():
            network.load_state_dict(load_file(options.weights))
        else:
            network = train(features)
            save_file(network.state_dict(), options.weights)
        languages = [features.languages.get(label, "") for label in features.labels]
        kinds = sorted(set(languages))
        print("| clips | n | all | " + " | ".join(kinds) + " |\n" + "|---" * (3 + len(kinds)) + "|")
        test = features.indices("test")
        print(row("real test", hear(network, features.waves[test]) == features.label[test], features.label[test], languages), flush=True)
        for folder in options.folders:
            clips = read_clips(folder, features.labels)
            label = np.array([features.labels.index(str(name)) for name in clips.labels])
            print(row(str(folder), hear(network, clips.waves) == label, label, languages), flush=True)
    except DuovoxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
