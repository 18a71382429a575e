"""Training the noise-conditioned classifier, ours from scratch or a copy of someone else's: cross-entropy on noised mels.

Takes features and a recipe; gives a `Trainee` to the loop, and `accuracy_by_sigma`, the table every guided model needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from duovox.config import MelScale, NoiseConfig, Recipe
from duovox.contracts import Classifier
from duovox.data import Batches, Features, in_order
from duovox.diffusion.noise import add_noise, training_sigma
from duovox.model import build_classifier
from duovox.networks.layout import to_channels_last
from duovox.sound.mel import scale_mel
from duovox.training.augment import altered, shift_frames
from duovox.training.ema import averaged
from duovox.training.optim import Losses, Updater, adamw
from duovox.training.shares import Part

REPORT_SIGMAS = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Noise levels of the accuracy table; 0 means clean (the smallest sigma the model knows)."""


class ClassifierTraining:
    """A `Trainee`: cross-entropy of p(label | noised, sigma), with moving average; of a fresh classifier, or of `network`."""

    part = "classifier"
    whole_batches = ""

    def __init__(
        self,
        recipe: Recipe,
        features: Features,
        scale: MelScale,
        device: torch.device,
        autocast: torch.dtype | None,
        network: nn.Module | None = None,
    ) -> None:
        self.train, self.noise = recipe.train_classifier, recipe.noise
        self.features, self.scale = features, scale
        self.device, self.autocast = device, autocast
        torch.manual_seed(self.train.seed)
        self.network = (network or build_classifier(recipe, len(features.labels))).to(device)
        if network is None:
            to_channels_last(self.network)
        self.average = averaged(self.network, self.train.ema_decay)
        self.batches = Batches(features, "train", self.train.batch, self.train.seed, self.train.balance)
        self.modules: dict[str, nn.Module] = {"network": self.network, "average": self.average}
        self.updater = Updater(self.network, adamw(self.network, self.train), self.train.clip_norm, self.average)
        self.optimizers: dict[str, Optimizer] = {"adamw": self.updater.optimizer}

    def draw(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Batch `step`, augmented and noised."""
        batch = self.batches.at(step)
        clean = scale_mel(altered(batch.log_mel.to(self.device), self.train, generator), self.scale)
        if self.train.shift_frames:
            clean = shift_frames(clean, self.train.shift_frames, generator)
        sigma = training_sigma(clean.shape[0], self.noise, generator)
        return {"noised": add_noise(clean, sigma, generator), "sigma": sigma, "label": batch.label.to(self.device)}

    def loss(self, step: int, drawn: Mapping[str, Tensor], part: Part) -> Losses:
        """Cross-entropy, and the share that the network gets right."""
        label = drawn["label"]
        self.network.train()
        with torch.autocast(self.device.type, self.autocast or torch.bfloat16, enabled=self.autocast is not None):
            logits = self.network(drawn["noised"], drawn["sigma"])
        loss = nn.functional.cross_entropy(logits, label, label_smoothing=self.train.label_smoothing)
        return Losses(loss, {"loss": loss, "accuracy": (logits.argmax(1) == label).float().mean()})

    def validate(self) -> dict[str, float]:
        """Accuracy of the averaged classifier at three noise levels."""
        sigmas = (0.0, 0.5, 2.0)
        table = accuracy_by_sigma(self.average.module.eval(), self.features, "validation", self.scale, self.noise, self.device, sigmas)
        return {f"accuracy_at_{sigma:g}": value for sigma, value in zip(sigmas, table, strict=True)}

    def weights(self) -> dict[str, Tensor]:
        return dict(self.average.module.state_dict())


@torch.no_grad()
def accuracy_by_sigma(
    classifier: Classifier,
    features: Features,
    split: str,
    scale: MelScale,
    noise: NoiseConfig,
    device: torch.device,
    sigmas: Sequence[float] = REPORT_SIGMAS,
    seed: int = 0,
) -> list[float]:
    """Accuracy of a classifier on a split at each noise level, the same noise for the same seed; sigma 0 adds no noise."""
    right = torch.zeros(len(sigmas))
    for number, batch in enumerate(in_order(features, split, 128)):
        clean, label = scale_mel(batch.log_mel.to(device), scale), batch.label.to(device)
        for index, level in enumerate(sigmas):
            generator = torch.Generator(device).manual_seed(seed * 1_000_003 + number * 1009 + index)
            sigma = torch.full((clean.shape[0],), level, device=device)
            noised = add_noise(clean, sigma, generator)
            right[index] += (classifier(noised, sigma.clamp(min=noise.sigma_min)).argmax(1) == label).sum().cpu()
    return (right / len(features.indices(split))).tolist()
