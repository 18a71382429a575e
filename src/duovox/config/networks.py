"""Settings of the networks of ours: the classifier, the Score Subnet, the U-Net of the comparison, those that embed who speaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from duovox.config.fields import check, require


@dataclass(frozen=True)
class EncoderConfig:
    """The noise-conditioned classifier: a U-Net's encoder without the way up (target: paper section 3).

    `patch` folds patch x patch squares of the mel into channels before the first convolution (1 is the paper's form).
    """

    patch: int = 2
    widths: tuple[int, ...] = (64, 96, 128, 160)
    blocks: int = 2
    bottleneck_blocks: int = 2
    embedding: int = 256
    group_size: int = 16
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check("classifier", self, positive="patch widths blocks bottleneck_blocks embedding group_size")
        require(len(self.widths) >= 1, "classifier.widths must not be empty")
        require(0 <= self.dropout < 1, f"classifier.dropout must lie in [0, 1), not {self.dropout}")


@dataclass(frozen=True)
class SubnetConfig:
    """The Score Subnet: fusion of the taps and the decoder.

    `gradient_taps` says which scalar's gradient is tapped: `none`; `logsumexp` (the paper's, reading the classifier as
    a joint energy model); `label` (the wanted label's logit for `label_share` of the batch, logsumexp for the rest).
    """

    widths: tuple[int, ...] = (64, 96, 128, 160)
    blocks: int = 1
    embedding: int = 256
    group_size: int = 16
    fusion: Literal["attention", "concat"] = "attention"
    heads: int = 4
    gradient_taps: Literal["none", "logsumexp", "label"] = "logsumexp"
    label_share: float = 0.85
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check("subnet", self, positive="widths blocks embedding group_size heads")
        require(all(w % self.heads == 0 for w in self.widths), f"subnet.widths {self.widths} must be divisible by heads {self.heads}")
        require(0 <= self.label_share <= 1, f"subnet.label_share must lie in [0, 1], not {self.label_share}")
        require(0 <= self.dropout < 1, f"subnet.dropout must lie in [0, 1), not {self.dropout}")


@dataclass(frozen=True)
class UNetConfig:
    """The baseline score model: a way down like the classifier's (`EncoderConfig`) and a way up of widths `up_widths`."""

    patch: int = 2
    widths: tuple[int, ...] = (64, 96, 128, 160)
    up_widths: tuple[int, ...] = (64, 96, 128, 160)
    blocks: int = 2
    bottleneck_blocks: int = 2
    embedding: int = 256
    group_size: int = 16
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check("unet", self, positive="patch widths up_widths blocks bottleneck_blocks embedding group_size")
        require(
            0 < len(self.widths) == len(self.up_widths),
            f"unet.widths {self.widths} and up_widths {self.up_widths} must have as many entries, at least one",
        )
        require(0 <= self.dropout < 1, f"unet.dropout must lie in [0, 1), not {self.dropout}")


@dataclass(frozen=True)
class SpeakerConfig:
    """A network that embeds who speaks: so many `encoders`, each of the classifier's form, and so many `time_delays` of `width` channels
    beside them, which hear frames ever wider apart (`dilations`)."""

    encoders: int = 1
    time_delays: int = 0
    width: int = 256
    dilations: tuple[int, ...] = (1, 2, 3)
    embedding: int = 64
    group_size: int = 32

    def __post_init__(self) -> None:
        check("speaker", self, positive="width dilations embedding group_size", not_negative="encoders time_delays")
        require(self.encoders + self.time_delays > 0, "speaker.encoders and speaker.time_delays must not both be 0")
        require(len(self.dilations) >= 1, "speaker.dilations must not be empty")

    @property
    def networks(self) -> int:
        """How many stand side by side."""
        return self.encoders + self.time_delays
