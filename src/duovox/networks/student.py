"""The student's network: a Score Subnet that is also told how far to jump, and, if need be, the label and the strength of the guidance.

Takes what a Score Subnet takes, and a `Jump`; gives F of `estimate = c_skip * noised + c_out * F`. What it is told beside the noise
level is added to its embedding and begins at nothing, so that a fresh student of a teacher's weights says what the teacher says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from duovox.config import SubnetConfig
from duovox.contracts import NO_LABEL
from duovox.diffusion.noise import Preconditioning
from duovox.diffusion.taps import Taps
from duovox.networks.base import ScoreNetwork
from duovox.networks.blocks import NoiseEmbedding
from duovox.networks.scoresubnet import ScoreSubnet, TapShape


@dataclass(frozen=True)
class Jump:
    """How far, `ratio` = s / sigma (B,) in [0, 1); of which label (B,), `NO_LABEL` for none; with which strength of guidance gamma (B,)."""

    ratio: Tensor
    label: Tensor
    gamma: Tensor


class StudentNetwork(ScoreNetwork):
    """Taps, coefficients and a jump -> F (B, 1, M, T). Without gradient taps it embeds the label; with `strengths` gamma too."""

    reads_taps = True

    def __init__(self, config: SubnetConfig, shapes: Sequence[TapShape], patch: int, labels: int, strengths: bool) -> None:
        super().__init__()
        self.gradient_taps = config.gradient_taps
        self.subnet = ScoreSubnet(config, shapes, patch)
        self.ratio = _from_nothing(NoiseEmbedding(config.embedding))
        self.gamma = _from_nothing(NoiseEmbedding(config.embedding)) if strengths else None
        self.label = nn.Embedding(labels + 1, config.embedding) if config.gradient_taps == "none" else None
        if self.label is not None:
            nn.init.zeros_(self.label.weight)

    def forward(self, noised: Tensor, c: Preconditioning, taps: Taps | None, jump: Jump | None = None) -> Tensor:
        """F (B, 1, M, T), float32."""
        assert jump is not None
        told: Tensor = self.ratio(jump.ratio)
        if self.gamma is not None:
            told = told + self.gamma(jump.gamma)
        if self.label is not None:
            told = told + self.label(jump.label - NO_LABEL)
        return self.subnet(noised, c, taps, told)


def _from_nothing(embedding: NoiseEmbedding) -> NoiseEmbedding:
    """An embedding that is 0 for everything until it has learned; SiLU(0) = 0, and its slope there is not."""
    last = embedding.layers[2]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return embedding


def taught_by(subnet: Mapping[str, Tensor], student: StudentNetwork) -> dict[str, Tensor]:
    """The state of a student that begins as its teacher's subnet. A student without gradient taps leaves out what read them."""
    state = student.state_dict()
    for name, value in student.subnet.state_dict().items():
        theirs = subnet[name]
        if theirs.shape != value.shape:  # a projection of both taps, one behind the other
            theirs = theirs[:, : value.shape[1]]
        state[f"subnet.{name}"] = theirs
    return state
