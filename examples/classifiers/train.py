"""Train one of three ordinary classifiers on a feature folder of duovox: cross-entropy on clean recordings, nothing more.

python examples/classifiers/train.py m5|resnet18|whisper_tiny --data FEATURES --out FOLDER      # the last two need transformers

FOLDER gets `weights.safetensors` (whisper_tiny: a Hugging Face folder) and `facts.json`.
"""

from __future__ import annotations

import importlib
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from features import RATE, half_rate, log_mel, whisper_mel
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tyro.conf import Positional

from duovox.data import Features, open_features
from duovox.data.batches import Batches, in_order

log = logging.getLogger("train")


@dataclass(frozen=True)
class Setting:
    """How one is trained: `features` turns waves into its input, `masked` asks for SpecAugment, `scaled` for (x - mean) / std."""

    features: Callable[[Tensor], Tensor]
    updates: int
    batch: int
    rate: float
    masked: bool = False
    scaled: bool = False


SETTINGS = {
    "m5": Setting(half_rate, updates=3000, batch=64, rate=3e-3),
    "resnet18": Setting(log_mel, updates=1300, batch=64, rate=2e-3, masked=True, scaled=True),
    "whisper_tiny": Setting(whisper_mel, updates=2800, batch=32, rate=1e-3, masked=True),
}


def main(
    kind: Positional[Literal["m5", "resnet18", "whisper_tiny"]],
    data: Path,
    out: Path,
    updates: int | None = None,
    seed: int = 0,
    export: bool = False,
) -> None:
    """Train, test and save. `export` adds m5.pt2 (torch.export) and m5.ts.pt (TorchScript) of m5."""
    features, setting, started = open_features(data), SETTINGS[kind], time.monotonic()
    if (features.mel.sample_rate, features.mel.clip_samples) != (RATE, RATE):
        raise SystemExit(f"{data}: these classifiers hear one second at {RATE} Hz; prepare the features so")
    if export and kind != "m5":
        raise SystemExit("--export is for m5")
    torch.manual_seed(seed)
    model = build(kind, features.labels)
    mean, std = moments(features, setting) if setting.scaled else (0.0, 1.0)
    updates = updates or setting.updates
    train(model, features, setting, (mean, std), updates, seed)
    facts = {
        "kind": kind,
        "labels": features.labels,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "input": [1, *hear(torch.zeros(1, RATE), setting, (mean, std)).shape[1:]],
        "mean": mean,
        "std": std,
        "updates": updates,
        "batch": setting.batch,
        "seed": seed,
        "validation_accuracy": accuracy(model, features, "validation", setting, (mean, std)),
        "test_accuracy": accuracy(model, features, "test", setting, (mean, std)),
        "seconds": round(time.monotonic() - started, 1),
    }
    log.info("test accuracy %.4f", facts["test_accuracy"])
    save(model, kind, out)
    (out / "facts.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    if export:
        export_both(model, hear(torch.zeros(2, RATE), setting, (mean, std)), out / kind)


def build(kind: str, words: tuple[str, ...]) -> nn.Module:
    """The untrained classifier; only its own module is imported, so m5 needs no transformers."""
    module = importlib.import_module(kind)
    return module.build(len(words), words) if kind == "whisper_tiny" else module.build(len(words))


def train(model: nn.Module, features: Features, setting: Setting, scale: tuple[float, float], updates: int, seed: int) -> None:
    """AdamW with a short warm-up and a cosine to zero; logs the validation accuracy ten times."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=setting.rate, weight_decay=0.05)
    warmup = max(1, updates // 20)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * step / updates))
    )
    batches, generator = Batches(features, "train", setting.batch, seed), torch.Generator().manual_seed(seed)
    for step in range(updates):
        model.train()
        batch = batches.at(step)
        heard = hear(disturb(batch.wave, generator), setting, scale)
        loss = F.cross_entropy(logits_of(model(masked(heard, generator) if setting.masked else heard)), batch.label)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        rate.step()
        if (step + 1) % max(1, updates // 10) == 0:
            log.info("%5d  loss %.3f  validation %.4f", step + 1, loss.item(), accuracy(model, features, "validation", setting, scale))


def hear(wave: Tensor, setting: Setting, scale: tuple[float, float]) -> Tensor:
    """The classifier's input for waves (B, S)."""
    return (setting.features(wave) - scale[0]) / scale[1]


def logits_of(output: object) -> Tensor:
    """The logits (B, K), plain or inside one of transformers' outputs."""
    return output if isinstance(output, Tensor) else output.logits  # type: ignore[attr-defined]


def disturb(wave: Tensor, generator: torch.Generator, shift: int = RATE // 10, decibels: float = 6.0) -> Tensor:
    """Each clip (B, S) earlier or later by up to `shift` samples, zeros moving in, and louder or softer by up to `decibels`."""
    count, samples = wave.shape
    start = torch.randint(2 * shift + 1, (count, 1), generator=generator)
    moved = F.pad(wave, (shift, shift)).gather(1, start + torch.arange(samples))
    return moved * 10 ** (decibels / 20 * (2 * torch.rand(count, 1, generator=generator) - 1))


def masked(heard: Tensor, generator: torch.Generator, bands: int = 12, frames: int = 20) -> Tensor:
    """SpecAugment (arXiv 1904.08779): in each picture (..., M, T) a strip of up to `bands` and one of up to `frames` take its mean."""
    lead = (heard.shape[0], *[1] * (heard.dim() - 1))
    hidden = torch.zeros(lead, dtype=torch.bool)
    for axis, widest in ((-2, bands), (-1, frames)):
        size = heard.shape[axis]
        width = (torch.rand(lead, generator=generator) * (widest + 1)).floor()
        start = (torch.rand(lead, generator=generator) * (size - width + 1)).floor()
        place = torch.arange(size).view((-1, 1) if axis == -2 else (1, -1))
        hidden = hidden | ((place >= start) & (place < start + width))
    return torch.where(hidden, heard.mean(dim=tuple(range(1, heard.dim())), keepdim=True), heard)


@torch.no_grad()
def accuracy(model: nn.Module, features: Features, split: str, setting: Setting, scale: tuple[float, float]) -> float:
    """The share of a split's clips that the classifier, left in eval mode, gets right."""
    model.eval()
    right = sum(
        int((logits_of(model(hear(batch.wave, setting, scale))).argmax(dim=1) == batch.label).sum())
        for batch in in_order(features, split, 128)
    )
    return right / len(features.indices(split))


@torch.no_grad()
def moments(features: Features, setting: Setting) -> tuple[float, float]:
    """Mean and standard deviation of the classifier's features over the train split, all values alike."""
    count, total, squares = 0, 0.0, 0.0
    for batch in in_order(features, "train", 256):
        values = setting.features(batch.wave).double()
        count, total, squares = count + values.numel(), total + float(values.sum()), squares + float(values.square().sum())
    return total / count, math.sqrt(squares / count - (total / count) ** 2)


def save(model: nn.Module, kind: str, out: Path) -> None:
    """`weights.safetensors`, or for whisper_tiny a Hugging Face folder with the feature extractor's settings."""
    out.mkdir(parents=True, exist_ok=True)
    if kind == "whisper_tiny":
        from transformers import WhisperFeatureExtractor, WhisperForAudioClassification

        assert isinstance(model, WhisperForAudioClassification)
        model.save_pretrained(out)
        WhisperFeatureExtractor(chunk_length=1).save_pretrained(out)  # type: ignore[no-untyped-call]
    else:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, out / "weights.safetensors")


def export_both(model: nn.Module, example: Tensor, path: Path) -> None:
    """The classifier without its code, for any batch size: <path>.pt2 by torch.export and <path>.ts.pt as TorchScript."""
    shapes = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(model.eval(), (example,), dynamic_shapes=shapes), path.with_suffix(".pt2"))
    torch.jit.save(torch.jit.trace(model, example), path.with_suffix(".ts.pt"))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    log.setLevel(logging.INFO)
    tyro.cli(main)
