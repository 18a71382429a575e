"""Our noise-conditioned classifier p(label | noised mel, sigma): a U-Net's encoder without the way up.

Takes noised mels from `noise`; gives logits, and its inner activations to `taps`. Source: arXiv 2606.20457 section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from duovox.config import EncoderConfig, MelConfig, MelScale, NoiseConfig
from duovox.contracts import check_mel, expand_to
from duovox.diffusion.noise import precondition
from duovox.networks.base import TappedClassifier
from duovox.networks.blocks import NoiseEmbedding, Stage, group_norm
from duovox.sound.mel import scale_mel


class EncoderClassifier(TappedClassifier):
    """noised (B, 1, M, T), sigma (B,) -> logits (B, K).

    Stem, then per stage ResBlocks and (but for the last) a stride-2 convolution, a bottleneck, and a linear head on
    the flattened bottleneck. Preconditions its own input, so it needs nothing but sigma beside the noised mel.
    """

    channels_last = True

    def __init__(self, config: EncoderConfig, mel: MelConfig, noise: NoiseConfig, labels: int) -> None:
        super().__init__()
        self.config, self.mel, self.noise = config, mel, noise
        widths, embedding = config.widths, config.embedding
        self.embedding = NoiseEmbedding(embedding)
        self.stem = nn.Conv2d(config.patch**2, widths[0], 3, padding=1)
        self.stages = nn.ModuleList()
        self.downs = nn.ModuleList()
        for index, width in enumerate(widths):
            width_in = widths[max(index - 1, 0)]
            self.stages.append(Stage(width_in, width, config.blocks, embedding, config.group_size, config.dropout))
            if index < len(widths) - 1:
                self.downs.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
        self.bottleneck = Stage(widths[-1], widths[-1], config.bottleneck_blocks, embedding, config.group_size, config.dropout)
        stride = config.patch * 2 ** (len(widths) - 1)
        self.head = nn.Sequential(
            group_norm(widths[-1], config.group_size),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(widths[-1] * (mel.n_mels // stride) * (mel.frames // stride), labels),
        )

    @property
    def tap_names(self) -> tuple[str, ...]:
        """The skip positions k = 0..K: the stem, each stage's end, the bottleneck."""
        return ("stem", *(f"stages.{i}" for i in range(len(self.stages))), "bottleneck")

    def hear(self, wave: Tensor, log_mel: Tensor, scale: MelScale) -> Tensor:
        """Logits (B, K) for clean log-mels (B, 1, M, T), at the clean end of the noise range; the waves are not needed."""
        clean = torch.full((log_mel.shape[0],), self.noise.sigma_min, device=log_mel.device)
        logits: Tensor = self(scale_mel(log_mel, scale), clean)
        return logits

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        check_mel(noised, self.mel.n_mels, self.mel.frames)
        coefficients = precondition(sigma, self.noise)
        embedding = self.embedding(coefficients.c_noise)
        hidden = nn.functional.pixel_unshuffle(noised * expand_to(coefficients.c_in, noised), self.config.patch)
        hidden = self.stem(hidden)
        for index, stage in enumerate(self.stages):
            hidden = stage(hidden, embedding)
            if index < len(self.downs):
                hidden = self.downs[index](hidden)
        logits: Tensor = self.head(self.bottleneck(hidden, embedding))
        return logits.float()


def log_probabilities(logits: Tensor) -> Tensor:
    """log p(label | noised) for every label, (B, K), in float32."""
    return torch.log_softmax(logits.float(), dim=1)
