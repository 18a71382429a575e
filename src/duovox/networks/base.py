"""What a model is put together of: the base classes of classifiers that can be tapped and of score networks.

Takes nothing; `encoder` and `classifiers.external` are of the one kind, `scoresubnet` and `unet` of the other, and `model` needs no more
of them than stands here.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from duovox.config import MelScale
from duovox.diffusion.noise import Preconditioning
from duovox.diffusion.taps import Taps


class TappedClassifier(nn.Module):
    """A classifier whose inner activations can be read: ours, or someone else's in its adapter."""

    channels_last: bool = False
    """Whether it may lie channels last in memory; a network of someone else's may hold a layer that must not (see `layout`)."""

    @property
    def tap_names(self) -> tuple[str, ...]:
        """The layers to tap, by their names within this module, in the order in which they run."""
        raise NotImplementedError

    @property
    def tap_axes(self) -> tuple[str, ...] | None:
        """Which axis of each tap is what (letters B, C, M, T); None where each is (B, C, M, T)."""
        return None

    @property
    def bridge(self) -> nn.Module | None:
        """What leads from our mel to what the network takes; None where the network takes our mel."""
        return None

    @property
    def program(self) -> bytes | None:
        """The file that a bundle must carry to rebuild the network; None where settings are enough."""
        return None

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """noised (B, 1, M, T), sigma (B,) -> logits (B, K)."""
        raise NotImplementedError

    def hear(self, wave: Tensor, log_mel: Tensor, scale: MelScale) -> Tensor:
        """Logits (B, K) for clean sound, given as waves (B, S) and as their log-mels (B, 1, M, T): it takes what it was made for."""
        raise NotImplementedError


class ScoreNetwork(nn.Module):
    """The network that is trained on denoising: F of denoised = c_skip * noised + c_out * F (EDM eq. 7).

    `reads_taps` says whether it needs a reading of the classifier, `gradient_taps` which scalar's gradient is tapped.
    """

    reads_taps: bool = False
    gradient_taps: Literal["none", "logsumexp", "label"] = "none"

    def forward(self, noised: Tensor, c: Preconditioning, taps: Taps | None) -> Tensor:
        """noised (B, 1, M, T), coefficients (B,) each, the taps read at the same place -> F (B, 1, M, T), float32."""
        raise NotImplementedError
