"""Settings of guides: how strongly one guides, what is wanted of it, what a clip's record says of it, what a guide folder holds."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from duovox.config.diffusion import Calibration, ScheduleName
from duovox.config.fields import check, check_labels, require, to_dict
from duovox.config.recipe import Recipe
from duovox.config.sound import MelScale
from duovox.contracts import ConfigError, GuideAt, GuideWay

MAX_CANDIDATES = 64
"""The most noises that a guide may choose among: each costs a sketch of the clip."""

MAX_GUIDES = 16
"""The most guides that may steer a clip beside the label: each costs a backward through the denoiser."""


@dataclass(frozen=True)
class GuideStrength:
    """How strongly and where a guide guides: `gamma`, at noise levels from `low` to `high`, its shift at one evaluation limited to a
    root mean square of `cap`; `schedule` and `at` as `schedule` and `guide_at` of `SampleConfig`. `way` is how the gradient at the
    estimate comes to the noised mel: `through` the denoiser, or `straight`, cheaper (see `guides.StraightGuide`). Before it guides, it
    chooses the noise to begin with among so many `candidates` of the clip's seed, see `mels.best_starts`.

    The defaults were found with networks that never met noise, asked at the estimate (docs/guides.md).
    """

    gamma: float = 10.0
    low: float = 0.05
    high: float = 10.0
    cap: float = 0.3
    schedule: ScheduleName = "constant"
    at: GuideAt = "estimate"
    way: GuideWay = "through"
    candidates: int = 1

    def __post_init__(self) -> None:
        require(self.cap != 0, "guide.cap must be positive, not 0: no guidance would be left; to switch a guide off, set its gamma to 0")
        check("guide", self, positive="cap", not_negative="gamma low", may_be_infinite="high cap")
        require(self.low < self.high, f"guide.low {self.low} must lie below high {self.high}")
        straight = (
            "guide.way straight is for guides at the estimate; at the noised mel no gradient leads through the denoiser: leave it out, "
            "or ask the guide at the estimate"
        )
        require(self.way == "through" or self.at == "estimate", straight)
        within = 1 <= self.candidates <= MAX_CANDIDATES
        require(within, f"guide.candidates must lie between 1 (no choice) and {MAX_CANDIDATES}, not {self.candidates}")


@dataclass(frozen=True)
class GuideRecord:
    """What is told of a guide that steered a clip. `target` has a weight for each label: above 0 the share in which it is wanted, below 0
    how strongly the clip is to keep away from it. `digest` identifies network, labels and temperatures; a function has none."""

    name: str
    digest: str
    target: dict[str, float]
    strength: GuideStrength

    @property
    def called(self) -> str:
        """Name and target as the command line has them."""
        return f"{self.name}-{write_target(self.target)}" if self.target else self.name


@dataclass(frozen=True)
class GuideConfig:
    """What `guide.json` of a guide folder holds.

    A `classifier` has a logit for each label. An `embedding` has references for labels, none where they are given with the target, and
    background clips beside them: its logits are cosine similarities. The network is someone else's where `recipe` has an external part,
    else one of ours, on the mel of the recipe in `mel_scale`. `digests` are those of the parts: network, program, anchors. `notes` say what
    was done to the network.
    """

    format: int
    kind: Literal["classifier", "embedding"]
    labels: tuple[str, ...]
    recipe: Recipe
    mel_scale: MelScale = field(default_factory=MelScale)
    calibration: Calibration = field(default_factory=Calibration)
    strength: GuideStrength = field(default_factory=GuideStrength)
    digests: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check("guide", self)
        if self.labels or self.kind == "classifier":
            check_labels("guide.labels", self.labels)
        require(isinstance(self.digests, dict), f"guide.digests: expected a table, got {self.digests!r}")

    @property
    def digest(self) -> str:
        """One identity of all that decides what it answers."""
        parts = {name: value for name, value in to_dict(self).items() if name not in ("strength", "notes")}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def check_target(target: Mapping[str, float]) -> dict[str, float]:
    """The target as it is, with weights as floats. Raises `ConfigError` for one that wants nothing or has weights that are no numbers."""
    for label, weight in target.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool) and math.isfinite(weight)
        require(number, f"the weight of {label!r} in a guide's target must be a finite number, not {weight!r}")
    require(any(target.values()), "a guide's target must have a weight that is not 0, as three or three=0.5,five=0.5")
    return {label: float(weight) for label, weight in target.items()}


def read_target(text: str) -> dict[str, float]:
    """A target as the command line writes it: a label, or labels with weights (three=0.5,five=0.5; four=-1 keeps away from it). Raises
    `ConfigError`."""
    if "=" not in text:
        return {text: 1.0}
    parts = [part.rpartition("=") for part in text.split(",")]
    try:
        target = {label.strip(): float(weight) for label, _, weight in parts}
    except ValueError:
        raise ConfigError(f"{text!r} is no target of a guide; write three, or three=0.5,five=0.5 (four=-1 keeps away from it)") from None
    require(len(target) == len(parts), f"the target {text!r} names a label twice")
    return check_target(target)


def between(asked: str, labels: Sequence[str]) -> dict[str, float] | None:
    """A value such as 200Hz or -21dB as shares of the two labels it lies between, where all labels are values of its unit; else None."""
    found, places = _value(asked), _places(labels)
    if found is None or places is None or found[1] != places[0][1]:
        return None
    for (low, _, lower), (high, _, upper) in pairwise(places):
        if low <= found[0] <= high:
            share = (found[0] - low) / (high - low)
            return {label: weight for label, weight in ((lower, 1 - share), (upper, share)) if weight}
    return None


def listed(labels: Sequence[str]) -> str:
    """Labels as a text: from where to where if they are values, "73Hz to 440Hz", else all of them."""
    places = _places(labels)
    return ", ".join(labels) if places is None else f"{places[0][2]} to {places[-1][2]}"


def _places(labels: Sequence[str]) -> list[tuple[float, str, str]] | None:
    """Number, unit and label of each, in rising order, where all are values of one unit; else None."""
    found = [(*value, label) for label in labels if (value := _value(label)) is not None]
    return sorted(found) if len(found) == len(labels) > 1 and len({unit for _, unit, _ in found}) == 1 else None


def _value(text: str) -> tuple[float, str] | None:
    """Number and unit of a value such as 196Hz."""
    found = re.fullmatch(r"([+-]?\d+(?:\.\d+)?) ?([^\W\d_]+)", text)
    return (float(found[1]), found[2].casefold()) if found else None


def write_target(target: Mapping[str, float]) -> str:
    """The inverse of `read_target`."""
    if list(target.values()) == [1.0]:
        return next(iter(target))
    return ",".join(f"{label}={weight:g}" for label, weight in target.items())
