"""The classification accuracy score: takes labelled clips and real test clips, gives how well what is learnt from the clips alone holds
for real ones, to `report`.

A small classifier is trained on a set of clips, generated or real, and tested on the real test split (Ravuri and Vinyals 2019, arXiv
1905.10887, section 3). It falls where labels are wrong, where clips are not like real ones, and where they are all alike, which the
accuracy of a judge does not see. The classifier has the judge's front end and a small network of its own, trained anew each time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import tqdm

from duovox.contracts import DataError
from duovox.evaluation.judge import JudgeMel, as_floats

_CHUNK = 256


class SmallClassifier(nn.Sequential):
    """Four convolutions: scaled judge mel (B, 1, 32, 32) -> logits (B, K)."""

    def __init__(self, labels: int) -> None:
        layers = [*_layer(1, 32, 5, 2), *_layer(32, 64, 3, 2), *_layer(64, 64, 3, 1), *_layer(64, 128, 3, 2)]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, labels))


def _layer(inputs: int, outputs: int, size: int, stride: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


@dataclass(frozen=True)
class CasConfig:
    """How the classifiers are trained: AdamW with a rate that rises and falls (one cycle), clips shifted by up to `shift` frames of 32 ms
    each time they are seen. One classifier for each of `seeds`.

    Settings were chosen by validation clips, of classifiers trained on 100 real train clips of each of six words (0.95 right).
    """

    updates: int = 600
    batch: int = 32
    rate: float = 4e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    shift: int = 4
    seeds: tuple[int, ...] = (0, 1, 2)
    device: str = "cpu"

    def __str__(self) -> str:
        return (
            f"{self.updates} updates of batch {self.batch} with AdamW (rate {self.rate:g}, one cycle), clips shifted by up to {self.shift} "
            f"frames, seeds {', '.join(map(str, self.seeds))}"
        )


class AccuracyScore:
    """Scores sets of clips against the same real test clips: waves (N, S) at 16 kHz, label (N,) of `labels` numbers."""

    def __init__(
        self,
        test_waves: NDArray[np.generic],
        test_label: NDArray[np.int64],
        labels: int,
        config: CasConfig | None = None,
    ) -> None:
        self.labels, self.config = labels, config or CasConfig()
        self.device = torch.device(self.config.device)
        self.test_mel, self.test_label = judge_mels(test_waves, self.device), torch.from_numpy(test_label).to(self.device)

    @property
    def about(self) -> str:
        """What the score is, in words."""
        return (
            f"mean and range of the accuracies, on all {len(self.test_label)} real test clips, of small classifiers trained on a row's "
            f"clips alone: {self.config}"
        )

    def __call__(self, waves: NDArray[np.generic], label: NDArray[np.int64]) -> tuple[float, ...]:
        """The accuracy on the test clips of a classifier trained on these clips alone, for each seed. Raises `DataError` without clips,
        and for clips without a label."""
        if len(label) == 0 or (label < 0).any():
            raise DataError(f"CAS needs clips that all have a label; {int((label < 0).sum())} of {len(label)} have none")
        mel, right = judge_mels(waves, self.device), torch.from_numpy(label).to(self.device)
        networks = (train(mel, right, self.labels, self.config, seed) for seed in tqdm(self.config.seeds, desc="CAS", leave=False))
        return tuple(accuracy(network, self.test_mel, self.test_label) for network in networks)


@torch.no_grad()
def judge_mels(waves: NDArray[np.generic], device: torch.device) -> Tensor:
    """Judge mels (N, 1, 32, 32) of waves (N, S) at 16 kHz, scaled from [-80, 0] dB to [-1, 1]."""
    front = JudgeMel().to(device)
    chunks = (as_floats(waves[start : start + _CHUNK]) for start in range(0, len(waves), _CHUNK))
    return torch.cat([front(chunk.to(device)) / 40 + 1 for chunk in chunks])


def train(mel: Tensor, label: Tensor, labels: int, config: CasConfig, seed: int) -> nn.Module:
    """A new classifier trained on scaled mels (N, 1, 32, 32) and label (N,); initial weights, order and shifts come from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SmallClassifier(labels).to(mel.device)
    adamw = AdamW(network.parameters(), config.rate, weight_decay=config.weight_decay)
    schedule = OneCycleLR(adamw, config.rate, total_steps=config.updates + 1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(config.updates):
        chosen = torch.randint(len(mel), (config.batch,), generator=generator).to(mel.device)
        logits = network(shifted(mel[chosen], config.shift, generator))
        adamw.zero_grad()
        cross_entropy(logits, label[chosen], label_smoothing=config.label_smoothing).backward()
        adamw.step()
        schedule.step()
    return network.eval()


def shifted(mel: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Each item of mel (B, 1, M, T) shifted in time by its own -most..most frames; silence fills the gap."""
    offset = torch.randint(0, 2 * most + 1, (len(mel), 1), generator=generator).to(mel.device)
    frame = offset + torch.arange(mel.shape[3], device=mel.device)
    return pad(mel, (most, most), value=-1.0).gather(3, frame[:, None, None].expand_as(mel))


@torch.no_grad()
def accuracy(network: nn.Module, mel: Tensor, label: Tensor) -> float:
    """The share of mels (N, 1, 32, 32) whose most probable label is the right one (N,)."""
    right = [network(part).argmax(1) == wanted for part, wanted in zip(mel.split(_CHUNK), label.split(_CHUNK), strict=True)]
    return float(torch.cat(right).double().mean())
