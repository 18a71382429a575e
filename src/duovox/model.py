"""The model: frozen classifier + taps + Score Subnet = a denoiser, built in one place.

Takes settings and (optionally) a trained classifier; gives `GenerativeClassifier` to training and sampling.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from duovox.classifiers.encoder import EncoderClassifier
from duovox.classifiers.frozen import FrozenClassifier
from duovox.config import MelConfig, NoiseConfig, Recipe, SubnetConfig
from duovox.contracts import expand_to
from duovox.noise import precondition
from duovox.scoresubnet import ScoreSubnet, TapShape
from duovox.taps import Taps, read_taps


class GenerativeClassifier(nn.Module):
    """A frozen classifier that can also denoise. Only `subnet` has trainable parameters."""

    def __init__(self, classifier: nn.Module, tap_names: tuple[str, ...], subnet: SubnetConfig, mel: MelConfig, noise: NoiseConfig) -> None:
        super().__init__()
        self.classifier = FrozenClassifier(classifier)
        self.tap_names, self.mel, self.noise = tap_names, mel, noise
        shapes, patch = tap_shapes(classifier, tap_names, mel)
        self.subnet = ScoreSubnet(subnet, shapes, patch)

    def taps(self, noised: Tensor, sigma: Tensor, tap_label: Tensor | None = None, guide_label: Tensor | None = None) -> Taps:
        """Read the classifier's taps; labels are used by the gradient taps only if the subnet was trained on such."""
        kind = self.subnet.config.gradient_taps
        return read_taps(
            self.classifier.network,
            self.tap_names,
            noised,
            sigma,
            gradients=kind != "none",
            tap_label=tap_label if kind == "label" else None,
            guide_label=guide_label,
        )

    def denoise(self, taps: Taps, noised: Tensor, sigma: Tensor) -> Tensor:
        """denoised (B, 1, M, T) from taps read at (noised, sigma); the sigma arithmetic stays in float32 (EDM eq. 7)."""
        c = precondition(sigma, self.noise)
        return expand_to(c.c_skip, noised) * noised + expand_to(c.c_out, noised) * self.subnet(taps, c.c_noise)

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """Unconditional denoiser: noised (B, 1, M, T), sigma (B,) -> denoised (B, 1, M, T)."""
        return self.denoise(self.taps(noised, sigma), noised, sigma)


@dataclass(frozen=True)
class LabelledDenoiser:
    """A `GuidableDenoiser`: the model with a label (B,) bound to it."""

    model: GenerativeClassifier
    label: Tensor

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        return self.model.denoise(self.model.taps(noised, sigma, tap_label=self.label), noised, sigma)

    def with_label_gradient(self, noised: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        taps = self.model.taps(noised, sigma, tap_label=self.label, guide_label=self.label)
        assert taps.label_gradient is not None
        return self.model.denoise(taps, noised, sigma), taps.label_gradient


def tap_shapes(classifier: nn.Module, names: tuple[str, ...], mel: MelConfig) -> tuple[tuple[TapShape, ...], int]:
    """The shape of every tap, found by running the classifier once on silence, and the stride of the finest one."""
    parameter = next(classifier.parameters())
    silence = torch.zeros(1, 1, mel.n_mels, mel.frames, device=parameter.device)
    taps = read_taps(classifier, names, silence, torch.ones(1, device=parameter.device), gradients=False)
    rows = sorted({activation.shape[2] for activation in taps.activations}, reverse=True)
    shapes = tuple(TapShape(a.shape[1], a.shape[2], a.shape[3], rows.index(a.shape[2])) for a in taps.activations)
    return shapes, mel.n_mels // rows[0]


def build_classifier(recipe: Recipe, labels: int) -> EncoderClassifier:
    """Our classifier as the recipe describes it, with fresh weights."""
    return EncoderClassifier(recipe.classifier, recipe.mel, recipe.noise, labels)


def build_model(recipe: Recipe, classifier: EncoderClassifier) -> GenerativeClassifier:
    """The generative model on top of `classifier`, which is frozen from here on."""
    return GenerativeClassifier(classifier, classifier.tap_names, recipe.subnet, recipe.mel, recipe.noise)
