"""What spotters are trained on: takes the options, gives mixtures of real and generated clips in order. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from duovox.experiments.spotting.options import Spotting

Voice = Literal["none", "all", "own", "espeak"]
"""Who speaks the generated clips: nobody; a bundle that may have heard all of the data; one that heard the same real clips alone; rules."""

NAMES: dict[Voice, str] = {
    "none": "",
    "all": "generated, voice trained on all data",
    "own": "generated, voice trained on the same clips",
    "espeak": "espeak-ng",
}


@dataclass(frozen=True)
class Mixture:
    """Numbers of clips of each word; `heard` are the real clips that an own voice was trained on; `between`: hard negatives too."""

    real: int = 0
    voice: Voice = "none"
    generated: int = 0
    heard: int = 0
    between: bool = False

    @property
    def name(self) -> str:
        """What its files are called."""
        parts = [f"real{self.real}"] * bool(self.real) + [f"{self.voice}{self.generated}"] * bool(self.generated)
        return "_".join([*parts, *[f"heard{self.heard}"] * bool(self.heard), *["between"] * self.between])

    @property
    def baseline(self) -> Mixture | None:
        """What it is held against: the same without hard negatives, or the same real clips alone; None where neither is in it."""
        if self.between:
            return replace(self, between=False)
        return Mixture(self.real) if self.real and self.generated else None

    def __str__(self) -> str:
        parts = [f"{self.real} real"] * bool(self.real)
        if self.generated:
            heard = f"voice trained on {self.heard} a word" if self.voice == "own" else NAMES[self.voice].removeprefix("generated, ")
            parts.append(f"{self.generated} {'of' if self.voice == 'espeak' else 'generated,'} {heard}")
        return " + ".join(parts) + ", hard negatives" * self.between


def make_mixtures(spotting: Spotting, espeak: bool = True) -> tuple[Mixture, ...]:
    """Real clips alone; with generated ones; with those of rules, where espeak-ng is to be had; with hard negatives; last, as it takes
    longest, with those of own voices."""
    most = max(spotting.generated)
    found = [Mixture(real) for real in spotting.real]
    for generated in spotting.generated:
        found += _with_real(Mixture(0, "all", generated), spotting.real)
    for generated in spotting.generated if espeak else ():
        found += _with_real(Mixture(0, "espeak", generated), spotting.real if generated == most else ())
    if spotting.between:
        found += _with_real(Mixture(0, "all", most, between=True), spotting.real)
    for heard in spotting.own_numbers:
        found += _with_real(Mixture(0, "own", min(spotting.generated), heard), (heard,))
    return tuple(found)


def _with_real(mixture: Mixture, numbers: tuple[int, ...]) -> Iterator[Mixture]:
    """A mixture without real clips, then with each number of them."""
    return (replace(mixture, real=real) for real in (0, *numbers))
