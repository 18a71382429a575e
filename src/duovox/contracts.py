"""The contracts between the parts, their shape checks, and the errors a user may meet. Imports nothing of duovox.

Shapes, everywhere: wave (B, S) · log-mel and mel (B, 1, M, T) · sigma (B,) · logits (B, K) · label (B,).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

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


class OutputError(DuovoxError):
    """A result cannot be written where it was asked for."""


class ShapeError(DuovoxError):
    """A tensor has another shape than its contract says."""


class Denoiser(Protocol):
    """The one contract of the diffusion: the expected clean mel, given a noised one (Karras et al. 2022, eq. 1-3)."""

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """noised (B, 1, M, T) = clean + sigma * eps, sigma (B,) > 0 -> denoised (B, 1, M, T)."""
        ...


class GuidableDenoiser(Denoiser, Protocol):
    """A denoiser whose classifier can also say in which direction a label becomes more probable."""

    def with_label_gradient(self, noised: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(denoised, d log p(label | noised) / d noised), both (B, 1, M, T), from one shared classifier forward.

        The label (B,) was bound when the denoiser was made.
        """
        ...


class Classifier(Protocol):
    """p(label | noised mel, sigma), as logits."""

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """noised (B, 1, M, T), sigma (B,) -> logits (B, K)."""
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
