"""Networks that embed sounds, by mels or by waves.

Takes classifiers that are joined to a voice; gives embeddings to `steering` and `guide_making`.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from duovox.classifiers.external import ExternalClassifier
from duovox.classifiers.outputs import by_position
from duovox.config import MelConfig, MelScale
from duovox.contracts import Classifier
from duovox.sound.mel import LogMel, scale_mel


class SoundEmbedder(Protocol):
    """Embeddings (B, D) of a voice's mels, and of waves as the network's own front end hears them."""

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """noised (B, 1, M, T), sigma (B,) -> (B, D)."""
        ...

    def of_waves(self, waves: Tensor) -> Tensor:
        """waves (B, S), at the voice's rate -> (B, D)."""
        ...


class Embedder(nn.Module):
    """Those of someone else's network, which knows no noise and does not look at sigma; their mean where each frame has one."""

    def __init__(self, classifier: ExternalClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        return self._pooled(self.classifier.scores(self.classifier.inputs(noised)))

    def of_waves(self, waves: Tensor) -> Tensor:
        return self._pooled(self.classifier.scores(self.classifier.front_end.from_wave(waves)))

    def _pooled(self, scores: Tensor) -> Tensor:
        return by_position(scores, self.classifier.config.output_axes).float().mean(dim=1)


class OwnEmbedder(nn.Module):
    """Those of a network of ours, which knows noise; it hears waves at `clean_sigma`, the smallest noise level it knows."""

    def __init__(self, network: Classifier, mel: MelConfig, scale: MelScale, clean_sigma: float) -> None:
        super().__init__()
        self.network, self.log_mel = network, LogMel(mel)
        self.scale, self.clean_sigma = scale, clean_sigma

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        return self.network(noised, sigma)

    def of_waves(self, waves: Tensor) -> Tensor:
        mels = scale_mel(self.log_mel(waves), self.scale)
        return self.network(mels, torch.full((len(mels),), self.clean_sigma, device=mels.device))
