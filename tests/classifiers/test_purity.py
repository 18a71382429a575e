"""purity.py: what is no function of one clip is refused with the reason, honest networks that round or draw in vain are not."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toys import Base, external

from duovox.classifiers.axes import probe_mels
from duovox.classifiers.external import ExternalClassifier
from duovox.classifiers.purity import demand_alone, demand_steady
from duovox.contracts import ClassifierError


def judged(network: nn.Module, axes: str = "BK") -> None:
    """Both demands on the network, for three clips and a loud one."""
    classifier = external(network)
    with torch.no_grad():
        mels = probe_mels(classifier.mel)
        clips = classifier.inputs(torch.cat([mels, 8 * mels[-1:]]))
    demand_steady(classifier, clips)
    demand_alone(classifier, clips, axes)


class DropsAlways(Base):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, 0.3))


class AddsNoise(Base):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.1 * torch.randn_like(x))


class DrawsFromPython(Base):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if random.random() < 0.9 else 1.5 * x)


class DrawsFromNumpy(Base):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * float(np.random.uniform(0.9, 1.1)))


class OwnGenerator(Base):
    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + torch.rand(1, generator=self.generator))


class RunningMean(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("level", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.level.mul_(0.9).add_(0.1 * x.detach().mean())  # type: ignore[union-attr,operator]
        return super().forward(x - self.level)


class KeptOutsideTheState(Base):
    """A running mean that no state dictionary shows."""

    level: Any = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.level = 0.9 * self.level + 0.1 * x.detach().mean()
        return super().forward(x - self.level)


class Counts(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1  # type: ignore[operator]
        return super().forward(x)


class KeepsItsHidden(nn.Module):
    """A recurrent network that goes on where it stopped; a batch of another size makes it fail."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head, self.hidden = nn.GRU(16, 8, batch_first=True), nn.Linear(8, 3), None

    def forward(self, x: Tensor) -> Tensor:
        output, hidden = self.rnn(x[:, 0], self.hidden)
        self.hidden = hidden.detach()
        return self.head(output.mean(1))


class ByTheBatch(Base):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - x.mean()) / x.std())


class ByTheLoudest(Base):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x / x.abs().max())


class ByItsPlace(Base):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.arange(len(x))[:, None]


class Attends(Base):
    """Attention over the wrong axis: the clips look at each other."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(x).mean((2, 3))
        return self.head((hidden @ hidden.T).softmax(1) @ hidden)


class Squeezes(Base):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).squeeze()


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (DropsAlways, "depends on chance"),
        (AddsNoise, "depends on chance"),
        (DrawsFromPython, "depends on chance"),
        (DrawsFromNumpy, "depends on chance"),
        (OwnGenerator, "depends on earlier calls"),
        (RunningMean, r"depends on earlier calls \(its state 'level' changes with every forward\)"),
        (KeptOutsideTheState, "depends on earlier calls: the same clip gives outputs up to"),
        (Counts, "state 'calls' changes with every forward, so it cannot be frozen"),
        (KeepsItsHidden, "depends on earlier calls"),
        (ByTheBatch, "depends on the others in its batch"),
        (ByTheLoudest, "depends on the others in its batch"),
        (ByItsPlace, "depends on the others in its batch"),
        (Attends, "depends on the others in its batch"),
        (Squeezes, r"shape \(3,\) for one clip, but \(4, 3\) for 4: .*squeeze\(1\)"),
    ],
)
def test_what_is_no_function_of_one_clip_is_refused(kind: type[nn.Module], says: str) -> None:
    with pytest.raises(ClassifierError, match=says) as caught:
        judged(kind())
    assert "\n" not in str(caught.value)


class Normalised(Base):
    """All that averages rightly: running statistics, each clip's own mean, dropout that sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(1), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        own = (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True)
        return super().forward(self.drop(self.norm(own)))


class DrawsInVain(Base):
    """As layerdrop does in transformers: the number is drawn, and used in train mode alone."""

    def forward(self, x: Tensor) -> Tensor:
        skip = torch.rand(()) < 0.5
        return super().forward(2 * x if skip and self.training else x)


class CountsInTraining(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        if self.training:
            self.calls += 1  # type: ignore[operator]
        return super().forward(x)


class RoundsDifferently(Base):
    """Adds up in another order in every size of batch, as kernels may, a hundred times worse than float32 does."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 + 1e-5 * len(x))


class WithNaN(Base):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * float("nan")


@pytest.mark.parametrize("kind", [Base, Normalised, DrawsInVain, CountsInTraining, RoundsDifferently, WithNaN])
def test_honest_networks_are_not(kind: type[nn.Module]) -> None:
    """Nor what is no number: that is for `discovery` to say, which names the layer."""
    judged(kind())


def test_a_large_offset_hides_nothing() -> None:
    """Logits around 1000, of which dropout moves a little: still more than clips differ by rounding."""

    class Offset(DropsAlways):
        def forward(self, x: Tensor) -> Tensor:
            return 1000 + 10 * super().forward(x)

    with pytest.raises(ClassifierError, match="chance"):
        judged(Offset())


def test_the_frames_of_an_output_are_compared_by_clip() -> None:
    class Frames(Base):
        def forward(self, x: Tensor) -> Tensor:
            return self.frames(x).transpose(0, 1)

    class FramesOfAll(Base):
        def forward(self, x: Tensor) -> Tensor:
            return self.frames(x).transpose(0, 1) * x.std()

    judged(Frames(), "TBK")
    with pytest.raises(ClassifierError, match="others in its batch"):
        judged(FramesOfAll(), "TBK")


def test_randomness_and_modes_are_left_as_they_were() -> None:
    network = DrawsInVain()
    network.head.train()
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    wanted = torch.rand(()).item(), random.random(), np.random.uniform()
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    judged_network = external(network)
    network.head.train()
    demand_steady(judged_network, torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)))
    assert (torch.rand(()).item(), random.random(), np.random.uniform()) == wanted
    assert isinstance(judged_network, ExternalClassifier) and network.head.training and not network.body.training
