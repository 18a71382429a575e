"""A ResNet-18 of half the usual widths on log-mels, as the transformers library has it."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import ResNetConfig, ResNetForImageClassification
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention


class ResNet18(nn.Module):
    """log-mel (B, 1, 64, 101), normalised -> the library's output object; its `.logits` are (B, K)."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        config = ResNetConfig(
            num_channels=1,
            layer_type="basic",
            depths=[2, 2, 2, 2],
            embedding_size=32,
            hidden_sizes=[32, 64, 128, 256],
            id2label={number: f"LABEL_{number}" for number in range(labels)},
        )
        self.resnet = ResNetForImageClassification(config)

    def forward(self, log_mel: Tensor) -> ImageClassifierOutputWithNoAttention:
        return self.resnet(pixel_values=log_mel)


def build(labels: int = 6) -> nn.Module:
    """An untrained ResNet-18."""
    return ResNet18(labels)
