"""The student: the frozen classifier and a network of its own = a flow map. It jumps where the teacher is guided step by step.

Takes settings, a classifier and what the student was taught; gives `Student` to its training, to bundles and to `voice`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from duovox.config import MelConfig, NoiseConfig, Recipe, SampleConfig, Schooling, StudentConfig
from duovox.config.fields import require
from duovox.contracts import GenerationError
from duovox.diffusion.noise import precondition
from duovox.model import ScoreModel, tap_shapes
from duovox.networks.base import TappedClassifier
from duovox.networks.student import Jump, StudentNetwork, taught_by


class Student(nn.Module):
    """(noised, sigma, to, label, gamma) -> the estimate G of the jump. Only `network` has trainable parameters.

    Raises `ConfigError` for a grid with a node that its schooling lacks.
    """

    def __init__(
        self,
        classifier: TappedClassifier,
        network: StudentNetwork,
        mel: MelConfig,
        noise: NoiseConfig,
        config: StudentConfig,
        schooling: Schooling,
    ) -> None:
        super().__init__()
        last, nodes = max(node for grid in config.grids for node in grid), len(schooling.sigmas) - 1
        require(last < nodes, f"student.grids names node {last}, its schooling has {nodes} before the clean one")
        self.model = ScoreModel(classifier, network, mel, noise)
        self.config, self.schooling = config, schooling

    @property
    def network(self) -> StudentNetwork:
        network = self.model.score_network
        assert isinstance(network, StudentNetwork)
        return network

    def forward(self, noised: Tensor, sigma: Tensor, to: Tensor, label: Tensor, gamma: Tensor) -> Tensor:
        """noised (B, 1, M, T) at sigma (B,), to (B,) < sigma, label (B,) or `NO_LABEL`, gamma (B,) -> G (B, 1, M, T)."""
        c = precondition(sigma, self.model.noise)
        taps = self.model.taps(noised, sigma, label)
        with self.model.arithmetic(noised):
            output = self.network(noised, c, taps, Jump(to / sigma, label, gamma))
        return c.estimate(noised, output)

    @property
    def evaluations(self) -> tuple[int, ...]:
        """The numbers of evaluations it was taught, rising."""
        return tuple(sorted(len(grid) for grid in self.config.grids))

    def levels(self, evaluations: int) -> Tensor:
        """The noise levels (n + 1,) of its jumps, from the noisiest down to 0, float64. Raises `GenerationError` for a number of
        evaluations that it was not taught."""
        for grid in self.config.grids:
            if len(grid) == evaluations:
                return torch.tensor([*(self.schooling.sigmas[node] for node in grid), 0.0], dtype=torch.float64)
        taught = ", ".join(map(str, self.evaluations))
        raise GenerationError(f"the student was not taught {evaluations} steps; set steps to one of {taught}")

    def check(self, settings: SampleConfig) -> None:
        """Raise `GenerationError` for settings of sampling that it was not taught."""
        self.levels(settings.steps)
        low, high = self.schooling.gammas[0], self.schooling.gammas[-1]
        if not low <= settings.gamma <= high:
            taught = f"gamma {low:g}" if low == high else f"a gamma between {low:g} and {high:g}"
            raise GenerationError(f"the student was taught {taught}, not {settings.gamma:g}; set gamma to that, or take another sampler")
        fixed = replace(SampleConfig(), preset=settings.preset, sampler=settings.sampler, steps=settings.steps, gamma=settings.gamma)
        if settings != fixed:
            raise GenerationError(
                "a student has its guidance within it: leave out the interval, schedule and guide_at, or take another sampler"
            )


@dataclass(frozen=True)
class Taught:
    """A `FlowMap`: a student with a label (B,) and a strength of guidance for all it is asked."""

    student: Student
    label: Tensor
    gamma: float

    def __call__(self, noised: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
        return self.student(noised, sigma, to, self.label, torch.full_like(sigma, self.gamma))


def build_student(recipe: Recipe, classifier: TappedClassifier, labels: int, schooling: Schooling) -> Student:
    """The student of a recipe on a classifier, with fresh weights."""
    classifier.eval()
    config = replace(recipe.subnet, gradient_taps=recipe.student.gradient_taps)
    shapes, patch = tap_shapes(classifier, classifier.tap_names, recipe.mel, len(config.widths), classifier.tap_axes)
    network = StudentNetwork(config, shapes, patch, labels, len(schooling.gammas) > 1)
    return Student(classifier, network, recipe.mel, recipe.noise, recipe.student, schooling)


def begin_as(student: Student, subnet: Mapping[str, Tensor]) -> None:
    """Give a fresh student the weights of its teacher's subnet."""
    student.network.load_state_dict(taught_by(subnet, student.network))
