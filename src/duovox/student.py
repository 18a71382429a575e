"""The student: the frozen classifier and a network of its own = a flow map. It jumps where the teacher is guided step by step.

Takes settings, a classifier and what the student was taught; gives `Student` to its training, to bundles and to `mels`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from duovox.config import MelConfig, NoiseConfig, Recipe, Repertoire, Schooling, StudentConfig
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
        self.repertoire = Repertoire.of(config, schooling)
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
        return self.repertoire.evaluations

    def levels(self, evaluations: int) -> Tensor:
        """The noise levels (n + 1,) of its jumps, from the noisiest down to 0, float64. Raises `GenerationError` for a number of
        evaluations that it was not taught."""
        return torch.tensor(self.repertoire.levels_of(evaluations), dtype=torch.float64)


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
