"""Which layers to tap: takes the candidates that `discovery` found, gives a sensible set of them, or those that were asked for."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from duovox.classifiers.discovery import Candidate
from duovox.config import TapConfig
from duovox.contracts import ClassifierError

FEW, MOST = 4, 6
"""How many layers are tapped, at least (if there are so many) and at most, when none are named."""


def choose(found: Sequence[Candidate]) -> tuple[TapConfig, ...]:
    """A sensible set: of each resolution the last layer; where there are few resolutions, more layers of the most common one.

    Resolutions within a factor of 1.5 (in positions) count as one. Layers that are numbered members of a list of layers go
    before others, for their outputs are a network's own way points. Of layers that give the very same tensor one is taken.
    """
    distinct: dict[str, Candidate] = {}
    for candidate in found:
        one = candidate.same_as or candidate.name
        if not candidate.fault and (one not in distinct or (_numbered(candidate) and not _numbered(distinct[one]))):
            distinct[one] = candidate
    usable = list(distinct.values())
    groups: list[list[Candidate]] = []
    for candidate in usable:
        if groups and _similar(groups[-1][-1], candidate):
            groups[-1].append(candidate)
        else:
            groups.append([candidate])
    chosen = {group[-1].name for group in groups[-MOST:]}
    if len(chosen) < FEW and groups:
        widest, wanted = max(groups, key=len), FEW + 1
        for layers in ([c for c in widest if _numbered(c)], widest, usable):
            pool = [c for c in layers if c.name not in chosen]
            count = max(0, min(wanted - len(chosen), len(pool)))
            chosen |= {pool[round(i * (len(pool) - 1) / max(1, count - 1))].name for i in range(count)}
            wanted = FEW
    return tuple(TapConfig(c.name, c.axes) for c in usable if c.name in chosen)


def _numbered(candidate: Candidate) -> bool:
    return candidate.name.rpartition(".")[2].isdigit()


def _similar(one: Candidate, other: Candidate) -> bool:
    ratio = (one.rows * one.columns) / (other.rows * other.columns)
    return 1 / 1.5 < ratio < 1.5


def resolve(found: Sequence[Candidate], taps: Sequence[str | TapConfig]) -> tuple[TapConfig, ...]:
    """The taps asked for, by name or with their axes. Raises `ClassifierError` for one that does not exist or cannot be tapped."""
    return tuple(_resolved(found, tap) for tap in taps)


def _resolved(found: Sequence[Candidate], tap: str | TapConfig) -> TapConfig:
    candidate = _named(found, tap.name if isinstance(tap, TapConfig) else tap)
    if not isinstance(tap, TapConfig):
        return TapConfig(candidate.name, candidate.axes)
    if len(tap.axes) != len(candidate.axes):
        raise ClassifierError(f"tap {tap.name!r}: its output has {len(candidate.axes)} axes ({candidate.axes}), not {tap.axes}")
    return tap


def _named(found: Sequence[Candidate], name: str) -> Candidate:
    by_name = {candidate.name: candidate for candidate in found}
    if name not in by_name:
        near = difflib.get_close_matches(name, by_name, 3, cutoff=0.4)
        hint = f"; near are {', '.join(near)}" if near else ""
        raise ClassifierError(f"the classifier has no layer {name!r} that runs{hint}; `duovox taps --all` lists all that do")
    if by_name[name].fault:
        raise ClassifierError(f"layer {name!r} cannot be tapped: {by_name[name].fault}; `duovox taps` lists those that can")
    return by_name[name]
