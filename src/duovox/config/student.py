"""Settings of a student of the guided sampler: what its teacher solves for it, and which jumps it learns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from duovox.config.diffusion import SampleConfig
from duovox.config.fields import check, require
from duovox.contracts import GenerationError, GuideAt


@dataclass(frozen=True)
class SolutionConfig:
    """A teacher's solutions of the guided probability-flow ODE, of all labels in turn; a share `unlabelled` without label and guidance.

    Each is solved by DPM-Solver++(2M) in `steps` steps from a seed of its own, `first_seed` and those that follow; the noise levels of the
    steps are its nodes, number 0 the noisiest, number `steps` clean. `gammas` is the strength of the guidance, or a range of which every
    solution draws its own.
    """

    unlabelled: float = 0.1
    steps: int = 16
    gammas: tuple[float, ...] = (3.0,)
    first_seed: int = 2**40

    def __post_init__(self) -> None:
        check("solutions", self, not_negative="unlabelled first_seed")
        require(self.unlabelled < 1, f"solutions.unlabelled must lie in [0, 1), not {self.unlabelled}")
        require(self.steps >= 2, f"solutions.steps must be at least 2, not {self.steps}")
        require(len(self.gammas) in (1, 2), f"solutions.gammas must be one strength, or the ends of a range, not {list(self.gammas)}")
        require(min(self.gammas) >= 0, f"solutions.gammas must not be negative, not {list(self.gammas)}")
        require(list(self.gammas) == sorted(set(self.gammas)), f"solutions.gammas must rise, not {list(self.gammas)}")
        require(self.first_seed < 2**62, f"solutions.first_seed must lie below 2^62, not {self.first_seed}")


@dataclass(frozen=True)
class StudentConfig:
    """A student: a Score Subnet that jumps from node to node of its teacher's solutions, without guidance.

    `gradient_taps` says how the label reaches it: by the classifier's own backward (`label`), or by an embedding (`none`), which needs
    no backward at all. `grids` are the nodes at which it can be asked, one grid for each number of evaluations, from node 0; the last jump
    leads to the clean end. A share `grid_share` of its training are jumps of these grids, the others go from any node to any later one.
    `huber` is where its loss turns from the square of an error to its size, in units of the network's output.
    """

    gradient_taps: Literal["label", "none"] = "label"
    grids: tuple[tuple[int, ...], ...] = ((0,), (0, 9), (0, 8, 10, 12))
    grid_share: float = 0.5
    huber: float = 0.05

    def __post_init__(self) -> None:
        check("student", self, positive="huber")
        require(0 <= self.grid_share <= 1, f"student.grid_share must lie in [0, 1], not {self.grid_share}")
        require(len(self.grids) > 0, "student.grids must not be empty")
        for grid in self.grids:
            rising = list(grid) == sorted(set(grid)) and grid[:1] == (0,)
            require(rising, f"student.grids: a grid begins with node 0 and rises, not {list(grid)}")
        evaluations = [len(grid) for grid in self.grids]
        require(len(set(evaluations)) == len(evaluations), f"student.grids: two have as many evaluations {evaluations}")


@dataclass(frozen=True)
class Schooling:
    """What a student was taught: the noise levels of its teacher's nodes, falling to 0; and the strength of the guidance, or its range."""

    sigmas: tuple[float, ...]
    gammas: tuple[float, ...]

    def __post_init__(self) -> None:
        falling = list(self.sigmas) == sorted(set(self.sigmas), reverse=True) and self.sigmas[-1:] == (0.0,)
        require(falling, f"schooling.sigmas must fall to 0, not {list(self.sigmas)}")
        require(len(self.gammas) in (1, 2), f"schooling.gammas must be one strength, or the ends of a range, not {list(self.gammas)}")


@dataclass(frozen=True)
class Repertoire:
    """What a student can be asked: the noise levels of its jumps, falling to 0, for each number of evaluations that it was taught; and
    the strength of the guidance, or its range."""

    levels: tuple[tuple[float, ...], ...]
    gammas: tuple[float, ...]

    def __post_init__(self) -> None:
        require(len(self.levels) > 0, "repertoire.levels must not be empty")
        for levels in self.levels:
            Schooling(levels, self.gammas)
            require(len(levels) > 1, f"repertoire.levels: from one level at least to 0, not {list(levels)}")

    @classmethod
    def of(cls, config: StudentConfig, schooling: Schooling) -> Repertoire:
        """That of a student with these settings. Raises `ConfigError` for a grid with a node that its schooling lacks."""
        last, nodes = max(node for grid in config.grids for node in grid), len(schooling.sigmas) - 1
        require(last < nodes, f"student.grids names node {last}, its schooling has {nodes} before the clean one")
        return cls(tuple((*(schooling.sigmas[node] for node in grid), 0.0) for grid in config.grids), schooling.gammas)

    @property
    def evaluations(self) -> tuple[int, ...]:
        """The numbers of evaluations it was taught, rising."""
        return tuple(sorted(len(levels) - 1 for levels in self.levels))

    def levels_of(self, evaluations: int) -> tuple[float, ...]:
        """The noise levels (n + 1) of that many jumps. Raises `GenerationError` for a number of evaluations that it was not taught."""
        for levels in self.levels:
            if len(levels) == evaluations + 1:
                return levels
        taught = ", ".join(map(str, self.evaluations))
        raise GenerationError(f"the student was not taught {evaluations} steps; set steps to one of {taught}")

    def check(self, settings: SampleConfig, guide_at: GuideAt) -> None:
        """Raise `GenerationError` for settings of sampling that it was not taught; its teacher is guided at `guide_at`."""
        self.levels_of(settings.steps)
        low, high = self.gammas[0], self.gammas[-1]
        if not low <= settings.gamma <= high:
            taught = f"gamma {low:g}" if low == high else f"a gamma between {low:g} and {high:g}"
            raise GenerationError(f"the student was taught {taught}, not {settings.gamma:g}; set gamma to that, or take another sampler")
        asked = {name: getattr(settings, name) for name in ("preset", "sampler", "steps", "last_sigma", "gamma")}
        if settings != replace(SampleConfig(), guide_at=guide_at, **asked):
            raise GenerationError(
                "a student has its guidance within it: leave out the interval, schedule and guide_at, or take another sampler"
            )

    def nearest(self, settings: SampleConfig) -> SampleConfig:
        """The settings that it was taught that are nearest to these: as many steps or fewer, where it knows fewer."""
        steps = max((n for n in self.evaluations if n <= settings.steps), default=self.evaluations[0])
        gamma = min(max(settings.gamma, self.gammas[0]), self.gammas[-1])
        return replace(SampleConfig(), sampler="student", steps=steps, gamma=gamma, guide_at=settings.guide_at)
