"""The contracts between the parts, their shape checks, and the errors a user may meet. Imports nothing of duovox and no torch.

Shapes, everywhere: wave (B, S) · log-mel and mel (B, 1, M, T) · sigma (B,) · logits (B, K) · label (B,).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

GuideAt = Literal["noised", "estimate"]
"""Where a guide looks: at the noised data, or at the estimate of the clean one."""

GuidePlace = Literal["noised", "estimate", "detached"]
"""As `GuideAt`, in a denoiser's eyes: a guide at the `detached` estimate wants no gradient through the denoiser."""

GuideWay = Literal["through", "straight"]
"""How the gradient of a guide at the estimate comes to the noised data: through the denoiser, or straight (see `guides.StraightGuide`)."""

NO_LABEL = -1
"""In an array of labels: no label for this item; its gradient taps are those of logsumexp(logits)."""


class DuovoxError(Exception):
    """Base of every error that is the caller's to mend; its message is one line that says what, where and what to do."""


class ConfigError(DuovoxError):
    """A setting has an impossible value, an unknown name or the wrong type."""


class AudioError(DuovoxError):
    """A sound file or an array of samples cannot be used."""


class DataError(DuovoxError):
    """A data set, a split list or a feature cache is missing, broken or unfit."""


class LabelError(DuovoxError):
    """A label was asked for that the model does not know."""


class ClassifierError(DuovoxError):
    """A classifier of someone else's cannot be loaded, run or tapped as it is."""


class BundleError(DuovoxError):
    """A bundle is missing, truncated, foreign, of another version, or its parts do not belong together."""


class TrainingError(DuovoxError):
    """A training cannot start, resume or go on."""


class GenerationError(DuovoxError):
    """Sampling left the range of finite numbers, or its settings cannot be met."""


class GuideError(DuovoxError):
    """A guide cannot be made, read, joined to a voice or asked for as it is."""


class OutputError(DuovoxError):
    """A result cannot be written where it was asked for."""


class ShapeError(DuovoxError):
    """A tensor has another shape than its contract says."""


class Denoiser(Protocol):
    """The one contract of the diffusion: the expected clean data, given noised data (Karras et al. 2022, eq. 1-3)."""

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """noised (B, ...) = clean + sigma * eps, sigma (B,) > 0 -> denoised (B, ...); for us (B, 1, M, T)."""
        ...


class FlowMap(Protocol):
    """Where the probability flow leads: the estimate G of a jump from one noise level to a lower one (see `diffusion.flow_map`)."""

    def __call__(self, noised: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
        """noised (B, ...) at sigma (B,), to (B,) < sigma -> G (B, ...), with x_to = (to / sigma) noised + (1 - to / sigma) G."""
        ...


class Classifier(Protocol):
    """p(label | noised data, sigma), as logits."""

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """noised (B, 1, M, T), sigma (B,) -> logits (B, K)."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """What is known where a denoiser is evaluated, for guides to look at; each tensor in the graph of `noised`.

    `denoised` is the estimate of the clean data (only for guides that look at it); `logits` (B, K) are those of `classifier` at
    (noised, sigma), where the denoiser has run one.
    """

    noised: Tensor
    sigma: Tensor
    denoised: Tensor | None = None
    classifier: Classifier | None = None
    logits: Tensor | None = None

    def logits_of(self, classifier: Classifier) -> Tensor:
        """Logits (B, K) of a classifier at (noised, sigma): those at hand where they are its own, else it is run."""
        if self.logits is not None and classifier is self.classifier:
            return self.logits
        return classifier(self.noised, self.sigma)


class Guide(Protocol):
    """Knows how probable something wanted is. `at` says whether it looks at the noised data or at the estimate of the clean one, and
    whether a gradient has to lead from there through the denoiser."""

    @property
    def at(self) -> GuidePlace: ...

    def log_probability(self, seen: Evaluation) -> Tensor:
        """log p(wanted | what it looks at), one value per item (B,), differentiable with respect to `seen.noised`."""
        ...


class GuidableDenoiser(Denoiser, Protocol):
    """A denoiser that several guides may ask at once, sharing its forward."""

    def with_gradients(self, noised: Tensor, sigma: Tensor, guides: Sequence[Guide]) -> tuple[Tensor, list[Tensor]]:
        """denoised, and d log_probability / d noised of each guide; all of the shape of `noised`, detached."""
        ...


class Vocoder(Protocol):
    """Turns a log-mel (natural logarithm, unscaled) into sound."""

    def __call__(self, log_mel: Tensor) -> Tensor:
        """log_mel (B, 1, M, T) -> wave (B, S), in [-1, 1]."""
        ...


def expand_to(values: Tensor, like: Tensor) -> Tensor:
    """Append axes of length 1 to `values` (B,) so that it broadcasts against `like` (B, ...). Raises `ShapeError`."""
    if values.ndim != 1 or values.shape[0] != like.shape[0]:
        raise ShapeError(f"expected one value per item of a batch of {like.shape[0]}, got a tensor of shape {tuple(values.shape)}")
    return values.reshape(-1, *[1] * (like.ndim - 1))


def check_mel(mel: Tensor, n_mels: int, frames: int | None = None) -> None:
    """Raise `ShapeError` unless `mel` is (B, 1, n_mels, frames); `frames` None accepts any length."""
    good = mel.ndim == 4 and mel.shape[1] == 1 and mel.shape[2] == n_mels and frames in (None, mel.shape[3])
    if not good:
        wanted = f"(B, 1, {n_mels}, {'T' if frames is None else frames})"
        raise ShapeError(f"expected a mel of shape {wanted}, got {tuple(mel.shape)}")
