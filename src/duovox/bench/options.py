"""What to measure: the options of a benchmark, for the command line and for `run`. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from duovox.config import PRESETS, PresetName
from duovox.contracts import ConfigError


@dataclass(frozen=True)
class Options:
    """Which rows to measure, how often, and how their clips are judged. Raises `ConfigError` for impossible values."""

    presets: tuple[PresetName, ...] = ()
    """Whole generations to measure; all that the bundle has the parts for if left out."""
    threads: tuple[int, ...] = (1,)
    """Numbers of threads."""
    batch: tuple[int, ...] = (1, 16)
    """Numbers of clips computed at once."""
    precision: tuple[Literal["fp32", "bf16"], ...] = ("fp32",)
    """What the networks sample in."""
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    """Where to compute."""
    repeats: int = 5
    """Rounds; every row is timed once in each."""
    baseline: str | None = None
    """The row that others are compared with, by its name in the table; the last whole generation if left out."""
    n: int = 50
    """Clips of each word for the figures of quality; 0 leaves them out."""
    data: Path | None = None
    """Feature folder of real recordings, made by `duovox data prepare`, for FID."""
    judge: Path | None = None
    """Weights of a judge trained on the same labels; the one in the package (zero..five) if left out."""
    clips: Path | None = None
    """Keep the clips in this folder, and go on with those there."""
    cold: bool = True
    """Also start fresh processes."""

    def __post_init__(self) -> None:
        for name in ("threads", "batch"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise ConfigError(f"--{name} must be at least 1, not {' '.join(map(str, values)) or 'nothing'}")
        if self.repeats < 1:
            raise ConfigError(f"--repeats must be at least 1, not {self.repeats}")
        if self.n < 0:
            raise ConfigError(f"--n must not be negative, not {self.n}")
        for name, known in (("precision", ("fp32", "bf16")), ("presets", tuple(PRESETS))):
            if wrong := [value for value in getattr(self, name) if value not in known]:
                raise ConfigError(f"--{name} {wrong[0]!r} is none of {', '.join(known)}")
        if not self.precision:
            raise ConfigError("--precision needs at least one value, fp32 or bf16")
