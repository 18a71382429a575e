"""The model: frozen classifier + taps + Score Subnet = a denoiser, built in one place.

Takes settings and a classifier, ours or someone else's; gives `GenerativeClassifier` (or the U-Net baseline in its place) to training
and sampling.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from duovox.classifiers.external import ExternalClassifier
from duovox.classifiers.front_end import build_front_end
from duovox.classifiers.frozen import FrozenClassifier
from duovox.config import Calibration, MelConfig, MelScale, NoiseConfig, Recipe, SubnetConfig, UNetConfig
from duovox.contracts import expand_to
from duovox.diffusion.noise import Preconditioning, precondition
from duovox.diffusion.taps import Taps, label_log_probability_gradient, read_taps
from duovox.networks.encoder import EncoderClassifier
from duovox.networks.scoresubnet import ScoreSubnet, TapShape
from duovox.networks.unet import UNet
from duovox.sound.vocoder.istft_net import ISTFTNet

AnyClassifier = EncoderClassifier | ExternalClassifier
GuideAt = Literal["noised", "estimate"]


class GenerativeClassifier(nn.Module):
    """A frozen classifier that can also denoise. Only `subnet` has trainable parameters.

    `tap_axes` says what the axes of each tap are (see `taps.as_map`); without it they are (B, C, M', T').
    `autocast` is a lower precision to run the networks in; sigma arithmetic and sampling stay in float32.
    """

    autocast: torch.dtype | None = None

    def __init__(
        self,
        classifier: nn.Module,
        tap_names: tuple[str, ...],
        subnet: SubnetConfig,
        mel: MelConfig,
        noise: NoiseConfig,
        tap_axes: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__()
        self.classifier = FrozenClassifier(classifier)
        self.tap_names, self.tap_axes, self.mel, self.noise = tap_names, tap_axes, mel, noise
        self.calibration = Calibration()
        shapes, patch = tap_shapes(classifier, tap_names, mel, len(subnet.widths), tap_axes)
        self.gradient_taps = subnet.gradient_taps
        self.subnet: ScoreSubnet | UNet = ScoreSubnet(subnet, shapes, patch)

    def taps(
        self,
        noised: Tensor,
        sigma: Tensor,
        tap_label: Tensor | None = None,
        guide_label: Tensor | None = None,
        attached: bool = False,
    ) -> Taps:
        """Read the classifier's taps; labels are used by the gradient taps only if the subnet was trained on such."""
        kind = self.gradient_taps
        with self.arithmetic(noised):
            return read_taps(
                self.classifier.network,
                self.tap_names,
                noised,
                sigma,
                gradients=kind != "none",
                tap_label=tap_label if kind == "label" else None,
                guide_label=guide_label,
                temperature=None if guide_label is None else self.temperature(sigma, "noised"),
                axes=self.tap_axes,
                attached=attached,
            )

    def arithmetic(self, like: Tensor) -> AbstractContextManager[Any]:
        """Where the networks run: in `autocast`, or, without it, as whoever calls has set."""
        return torch.autocast(like.device.type, self.autocast) if self.autocast else nullcontext()

    def temperature(self, sigma: Tensor, guide_at: GuideAt) -> Tensor | None:
        """The fitted temperature (B,) at sigma (B,), held beyond the outermost; None where none was fitted for this place."""
        fitted = self.calibration
        if not fitted.sigmas or fitted.guide_at != guide_at:
            return None
        levels = torch.tensor(fitted.sigmas, dtype=sigma.dtype, device=sigma.device).log()
        values = torch.tensor(fitted.temperatures, dtype=sigma.dtype, device=sigma.device).log()
        place = sigma.log().clamp(levels[0], levels[-1])
        right = torch.searchsorted(levels, place).clamp(1, max(1, len(levels) - 1))
        if len(levels) == 1:
            return values.exp().expand_as(sigma)
        share = (place - levels[right - 1]) / (levels[right] - levels[right - 1])
        return torch.lerp(values[right - 1], values[right], share).exp()

    def denoise(self, taps: Taps, noised: Tensor, sigma: Tensor) -> Tensor:
        """denoised (B, 1, M, T) from taps read at (noised, sigma); the sigma arithmetic stays in float32 (EDM eq. 7)."""
        c = precondition(sigma, self.noise)
        with self.arithmetic(noised):
            output = self.output(taps, noised, c)
        return expand_to(c.c_skip, noised) * noised + expand_to(c.c_out, noised) * output

    def output(self, taps: Taps, noised: Tensor, c: Preconditioning) -> Tensor:
        """F (B, 1, M, T), the trained network's part of the denoised mel."""
        return self.subnet(taps, c.c_noise)

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """Unconditional denoiser: noised (B, 1, M, T), sigma (B,) -> denoised (B, 1, M, T)."""
        return self.denoise(self.taps(noised, sigma), noised, sigma)


class UNetModel(GenerativeClassifier):
    """The baseline of two models: a U-Net denoises, knowing nothing of the classifier, which is run only to guide."""

    def __init__(self, classifier: nn.Module, unet: UNetConfig, mel: MelConfig, noise: NoiseConfig) -> None:
        nn.Module.__init__(self)
        self.classifier = FrozenClassifier(classifier)
        self.mel, self.noise, self.calibration = mel, noise, Calibration()
        self.subnet = UNet(unet)  # the part that is trained, as in the other model

    def taps(
        self,
        noised: Tensor,
        sigma: Tensor,
        tap_label: Tensor | None = None,
        guide_label: Tensor | None = None,
        attached: bool = False,
    ) -> Taps:
        """No taps; the label's gradient if it is asked for."""
        if guide_label is None:
            return Taps((), None, noised.new_zeros(noised.shape[0], 0), None)
        temperature = self.temperature(sigma, "noised")
        with self.arithmetic(noised):
            return read_taps(self.classifier.network, (), noised, sigma, gradients=False, guide_label=guide_label, temperature=temperature)

    def output(self, taps: Taps, noised: Tensor, c: Preconditioning) -> Tensor:
        return self.subnet(expand_to(c.c_in, noised) * noised, c.c_noise)


@dataclass(frozen=True)
class LabelledDenoiser:
    """A `GuidableDenoiser`: the model with a label (B,) bound to it.

    `guide_at` "noised" asks the classifier for the label at the noised mel, in the forward that the taps come from; "estimate" asks
    it once more, at the denoised mel, and takes the gradient through the denoiser (its gradient taps held fixed).
    """

    model: GenerativeClassifier
    label: Tensor
    guide_at: GuideAt = "noised"

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        return self.model.denoise(self.model.taps(noised, sigma, tap_label=self.label), noised, sigma)

    def with_label_gradient(self, noised: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        if self.guide_at == "estimate":
            return self._through_the_estimate(noised, sigma)
        taps = self.model.taps(noised, sigma, tap_label=self.label, guide_label=self.label)
        assert taps.label_gradient is not None
        return self.model.denoise(taps, noised, sigma), taps.label_gradient

    def _through_the_estimate(self, noised: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """denoised, and d log p(label | denoised(noised)) / d noised: by Tweedie's formula denoised is the expected clean mel."""
        model, source = self.model, noised.detach().requires_grad_()
        with torch.enable_grad():
            taps = model.taps(source, sigma, tap_label=self.label, attached=True)
            denoised = model.denoise(taps, source, sigma)
            logits = model.classifier(denoised, torch.full_like(sigma, model.noise.sigma_min))
            gradient = label_log_probability_gradient(logits, self.label, source, model.temperature(sigma, "estimate"))
        return denoised.detach(), gradient


def tap_shapes(
    classifier: nn.Module, names: tuple[str, ...], mel: MelConfig, stages: int, axes: tuple[str, ...] | None = None
) -> tuple[tuple[TapShape, ...], int]:
    """The shape of every tap, found by running the classifier once on silence, and how many mel rows a row of the first covers."""
    device = next(itertools.chain(classifier.parameters(), classifier.buffers())).device  # a frozen program has no parameters
    silence = torch.zeros(1, 1, mel.n_mels, mel.frames, device=device)
    taps = read_taps(classifier, names, silence, torch.ones(1, device=device), gradients=False, axes=axes)
    sizes = [(a.shape[2], a.shape[3]) for a in taps.activations]
    shapes = zip(taps.activations, place_taps(sizes, stages), strict=True)
    return tuple(TapShape(a.shape[1], a.shape[2], a.shape[3], stage) for a, stage in shapes), mel.n_mels // sizes[0][0]


def place_taps(sizes: Sequence[tuple[int, int]], stages: int) -> list[int]:
    """The decoder stage of each tap (rows, columns), in the order the classifier runs them: the one nearest in size.

    Stage 0 has the size of the first tap, every further one half its rows and columns. A sequence (rows 1) goes by its columns
    alone. If none reaches the deepest stage, the taps of the deepest stage reached are spread from there down to it, for a
    decoder needs something to begin with.
    """
    placed = [nearest_stage(size, sizes[0], stages) for size in sizes]
    deepest = max(placed)
    last = [index for index, stage in enumerate(placed) if stage == deepest and (index or len(sizes) == 1)] or [len(sizes) - 1]
    for number, index in enumerate(last):
        placed[index] = deepest + round((stages - 1 - deepest) * (number + 1) / len(last))
    return placed


def nearest_stage(size: tuple[int, int], finest: tuple[int, int], stages: int) -> int:
    """The decoder stage whose size is nearest to `size` (rows, columns), where stage 0 has the size `finest`."""
    (rows, columns), sequence = finest, size[0] == 1 < finest[0]
    octaves = math.log2(columns / size[1]) if sequence else math.log2(rows * columns / (size[0] * size[1])) / 2
    return min(max(round(octaves), 0), stages - 1)


def build_classifier(recipe: Recipe, labels: int) -> EncoderClassifier:
    """Our classifier as the recipe describes it, with fresh weights."""
    return EncoderClassifier(recipe.classifier, recipe.mel, recipe.noise, labels)


def build_external(recipe: Recipe, network: nn.Module, scale: MelScale) -> ExternalClassifier:
    """Someone else's `network` as the recipe's classifier. A bridge to waves is a vocoder, here with fresh weights; one refinement is
    enough for a classifier and spares a fifth of its time."""
    assert recipe.external is not None
    settings = replace(recipe.vocoder, refinements=min(1, recipe.vocoder.refinements))
    vocoder = ISTFTNet(settings, recipe.mel) if recipe.external.wave_input else None
    front_end = build_front_end(recipe.mel, recipe.external.mel_input, recipe.external.wave_input, vocoder)
    return ExternalClassifier(recipe.external, network, front_end, recipe.mel, scale, recipe.noise)


def build_model(recipe: Recipe, classifier: AnyClassifier) -> GenerativeClassifier:
    """The generative model on top of `classifier`, which is frozen from here on."""
    if recipe.score_model == "unet":
        return UNetModel(classifier, recipe.unet, recipe.mel, recipe.noise)
    axes = classifier.tap_axes if isinstance(classifier, ExternalClassifier) else None
    return GenerativeClassifier(classifier, classifier.tap_names, recipe.subnet, recipe.mel, recipe.noise, axes)
