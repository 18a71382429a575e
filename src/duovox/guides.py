"""Guides: what sampling can be steered by. Each gives log p(wanted | what it looks at), and is differentiated by `guidance`.

Takes classifiers, embeddings, functions and calibration; gives `Guide`s to `steering` and `mels`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from duovox.config import Calibration, MelScale
from duovox.contracts import Classifier, Evaluation, Guide, GuideAt, GuideError, GuidePlace, expand_to
from duovox.sound.mel import unscale_mel


def tempered_logits(classifier: Classifier, seen: Evaluation, at: GuideAt, clean_sigma: float, calibration: Calibration) -> Tensor:
    """Logits (B, K) of a classifier where it looks: at the noised data, or at the estimate, as at `clean_sigma`, the smallest noise level
    it knows. They are divided by the temperatures of `calibration` where these were fitted for the same place."""
    if at == "noised":
        logits = seen.logits_of(classifier)
    else:
        assert seen.denoised is not None
        logits = classifier(seen.denoised, torch.full_like(seen.sigma, clean_sigma))
    temperature = temperature_at(calibration, seen.sigma, at)
    return logits if temperature is None else logits / temperature[:, None]


@dataclass(frozen=True, eq=False)
class LabelGuide:
    """log p(label | noised), or log p(label | estimate of the clean mel) by Tweedie's formula, in the eyes of a classifier; a label an
    item (B,). See `tempered_logits`."""

    classifier: Classifier
    label: Tensor
    at: GuideAt = "noised"
    clean_sigma: float = 0.01
    calibration: Calibration = field(default_factory=Calibration)

    def log_probability(self, seen: Evaluation) -> Tensor:
        tempered = tempered_logits(self.classifier, seen, self.at, self.clean_sigma, self.calibration)
        return torch.log_softmax(tempered, dim=1).gather(1, self.label[:, None])[:, 0]


@dataclass(frozen=True, eq=False)
class TargetGuide:
    """As `LabelGuide`, with a weight for each label: `weights` (K,), the same for all items, or (B, K); see `log_target`."""

    classifier: Classifier
    weights: Tensor
    at: GuideAt = "estimate"
    clean_sigma: float = 0.01
    calibration: Calibration = field(default_factory=Calibration)

    def log_probability(self, seen: Evaluation) -> Tensor:
        tempered = tempered_logits(self.classifier, seen, self.at, self.clean_sigma, self.calibration)
        return log_target(tempered, self.weights.to(tempered))


def log_target(logits: Tensor, weights: Tensor) -> Tensor:
    """What is wanted by weights (K,) or (B, K), in the eyes of logits (B, K), as one value an item (B,):

    the sum of w_k log p_k where w_k > 0, which is greatest where the p_k are in proportion to the w_k (a soft target), and of
    |w_k| log(1 - p_k) where w_k < 0 (away from the label k).
    """
    log_p = torch.log_softmax(logits, dim=1)
    weights = weights.expand_as(log_p)
    nothing = torch.zeros_like(log_p)
    towards = torch.where(weights > 0, weights * log_p, nothing)
    away = torch.where(weights < 0, -weights * log_others(log_p), nothing) if bool((weights < 0).any()) else nothing
    return (towards + away).sum(dim=1)


def log_others(log_p: Tensor) -> Tensor:
    """log(1 - p_k) of every label, (B, K): the logsumexp of the others, which is exact where p_k is near 1."""
    own = torch.eye(log_p.shape[1], dtype=torch.bool, device=log_p.device)
    return log_p[:, None, :].masked_fill(own, -torch.inf).logsumexp(dim=2)


def weights_of(target: Mapping[str, float], labels: Sequence[str], count: int) -> Tensor:
    """The weights (count,) of a target whose labels are the first ones of `count` outputs."""
    return torch.tensor([target.get(label, 0.0) for label in labels] + [0.0] * (count - len(labels)))


class CosineClassifier(nn.Module):
    """An embedding network as a classifier whose labels are sounds: logits are the cosine similarities of a clip's embedding to anchors.

    `embed` gives embeddings (B, D) for mels (B, 1, M, T) and sigma (B,); `anchors` (K, D) are those of references, then of background
    clips. Divided by a temperature (see `Calibration`), their softmax says of which sound the clip reminds most.
    """

    anchors: Tensor

    def __init__(self, embed: Callable[[Tensor, Tensor], Tensor], anchors: Tensor) -> None:
        super().__init__()
        self.embed = embed
        self.register_buffer("anchors", nn.functional.normalize(anchors, dim=1))

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """noised (B, 1, M, T), sigma (B,) -> logits (B, K)."""
        return nn.functional.normalize(self.embed(noised, sigma), dim=1) @ self.anchors.T


class Rescaled(nn.Module):
    """A classifier of ours that was trained on mels of another scale: the same sound, at the noise level that it has there."""

    def __init__(self, classifier: nn.Module, own: MelScale, given: MelScale) -> None:
        super().__init__()
        self.classifier = classifier
        self.stretch, self.offset = given.scale / own.scale, (given.shift - own.shift) / own.scale

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        logits: Tensor = self.classifier(noised * self.stretch + self.offset, sigma * self.stretch)
        return logits


@dataclass(frozen=True, eq=False)
class FunctionGuide:
    """A plain function of the estimated log-mel (B, 1, M, T), natural logarithm, as a guide: what it gives, (B,), is raised, as if it were
    log p. Raises `GuideError` for another shape."""

    function: Callable[[Tensor], Tensor]
    scale: MelScale
    at: GuideAt = "estimate"

    def log_probability(self, seen: Evaluation) -> Tensor:
        assert seen.denoised is not None
        value = self.function(unscale_mel(seen.denoised, self.scale))
        if not isinstance(value, Tensor) or value.shape != seen.sigma.shape:
            given = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"the type {type(value).__name__}"
            raise GuideError(f"a function that guides must give one value a clip, a tensor of shape {tuple(seen.sigma.shape)}, not {given}")
        return value


@dataclass(frozen=True, eq=False)
class NamedGuide:
    """A guide with a name to be told by. Raises `GuideError` where log p of an item is not a number though what it looks at is finite, and
    where no gradient leads back from it."""

    name: str
    guide: Guide

    @property
    def at(self) -> GuidePlace:
        return self.guide.at

    def __str__(self) -> str:
        return f"the guide {self.name}"

    def log_probability(self, seen: Evaluation) -> Tensor:
        value = self.guide.log_probability(seen)
        looked_at = seen.noised if seen.denoised is None else seen.denoised
        if torch.is_grad_enabled() and looked_at.requires_grad and not value.requires_grad:
            raise GuideError(f"{self} gives values from which no gradient leads back; compute them by differentiable operations of torch")
        lost = value.isnan() & looked_at.flatten(1).isfinite().all(dim=1)
        if bool(lost.any()):
            level = seen.sigma[lost][0].item()
            raise GuideError(f"{self} answers NaN at noise level {level:.3g}; let it guide at lower noise alone: interval, --interval")
        return value


@dataclass(frozen=True, eq=False)
class StraightGuide:
    """A guide at the estimate without a backward through the denoiser.

    The derivative of the estimate is the posterior's covariance, d denoised / d noised = Cov[clean | noised] / sigma^2. That is taken to
    be what it is for normal data of variance sigma_data^2, a number: sigma_data^2 / (sigma_data^2 + sigma^2), as in Song et al. 2023
    (pseudoinverse-guided diffusion). For such data nothing is lost; for others the shift does not know what the denoiser knows of them.
    """

    guide: Guide
    sigma_data: float

    @property
    def at(self) -> GuidePlace:
        return "detached"

    def __str__(self) -> str:
        return str(self.guide)

    def log_probability(self, seen: Evaluation) -> Tensor:
        assert seen.denoised is not None
        share = self.sigma_data**2 / (self.sigma_data**2 + seen.sigma.square())
        moved = expand_to(share, seen.noised) * (seen.noised - seen.noised.detach())
        return self.guide.log_probability(replace(seen, denoised=seen.denoised.detach() + moved))


def temperature_at(calibration: Calibration, sigma: Tensor, at: GuideAt) -> Tensor | None:
    """The fitted temperature (B,) at sigma (B,), log-linear between noise levels and held beyond the outermost; None where none was
    fitted for this place."""
    if not calibration.sigmas or calibration.guide_at != at:
        return None
    levels = torch.tensor(calibration.sigmas, dtype=sigma.dtype, device=sigma.device).log()
    values = torch.tensor(calibration.temperatures, dtype=sigma.dtype, device=sigma.device).log()
    if len(levels) == 1:
        return values.exp().expand_as(sigma)
    place = sigma.log().clamp(levels[0], levels[-1])
    right = torch.searchsorted(levels, place).clamp(1, len(levels) - 1)
    share = (place - levels[right - 1]) / (levels[right] - levels[right - 1])
    return torch.lerp(values[right - 1], values[right], share).exp()
