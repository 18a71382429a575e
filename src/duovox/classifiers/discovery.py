"""Which layers of someone else's classifier can be tapped: runs it a few times, gives the candidates and a choice of them.

Nothing is assumed of the layers' kinds. Which axis of an output is the batch shows when the batch grows; which is time and which
is frequency shows where a disturbance of the first or last frames, or of the lowest or highest mel rows, comes out.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from duovox.classifiers.external import ExternalClassifier, at_rest
from duovox.config import MelConfig, TapConfig
from duovox.contracts import ClassifierError
from duovox.diffusion.taps import first_tensor, tap_energy

ITEMS = 3
"""Clips in a probe; it is also run with one fewer, to find the batch axis."""

USUAL = 0.3
"""Handicap in favour of the order BCMT: along an axis of two or three positions a disturbance can hardly be seen to move."""

LONE = 0.1
"""What an axis of one position counts as having moved: more than channels do by chance, less than time and frequency do."""

CLEAR = {3: 0.25, 4: 0.8}
"""From which score on the axes of an output with so many axes are taken from itself, not from other layers of its shape."""

FEW, MOST = 4, 6
"""How many layers are tapped, at least (if there are so many) and at most, when none are named."""


@dataclass(frozen=True)
class Candidate:
    """A layer of the network: name, kind, shape of its output without the batch, and axes (see `TapConfig`).

    `rows` and `columns` are its spatial size (rows 1: a sequence), `stride` how many mel rows and frames of the diffusion's mel
    one position covers, `values` how many numbers a tap of it reads per clip. `fault` says why it cannot be tapped, `same_as`
    which earlier layer gives the very same tensor.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    axes: str
    rows: int
    columns: int
    stride: tuple[float, float]
    values: int
    fault: str = ""
    same_as: str = ""


@dataclass
class _Seen:
    """What the hooks saw of one layer in one run."""

    output: Tensor
    version: int
    calls: int


def candidates(classifier: ExternalClassifier) -> list[Candidate]:
    """Every layer of the classifier's network that gives a tensor, in order of finishing, with what keeps it from being a tap.

    Raises `ClassifierError` where the network cannot be run on its input, and for logits that are not finite, do not fit the
    labels, or do not depend on the input by a gradient.
    """
    with at_rest(classifier):
        return _candidates(classifier, classifier.mel)


def _candidates(classifier: ExternalClassifier, mel: MelConfig) -> list[Candidate]:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(ITEMS, 1, math.ceil(mel.n_mels / 4), math.ceil(mel.frames / 4), generator=generator)
    base = 0.5 * nn.functional.interpolate(coarse, size=(mel.n_mels, mel.frames), mode="bilinear")
    seen, faults = _run_with_gradients(classifier, base)
    fewer = _run(classifier, base[:-1])
    nudges = {axis: tuple(_run(classifier, _nudged(base, axis, end)) for end in (0, 1)) for axis in (2, 3)}
    readings: dict[str, tuple[float, str]] = {}
    for name, layer in seen.items():
        if not faults[name] and name in fewer:
            changes = {axis: tuple((run[name].output - layer.output.detach()).abs() for run in runs) for axis, runs in nudges.items()}
            readings[name] = find_axes(layer.output, fewer[name].output, changes[2], changes[3])
    axes = _settled(readings, {name: layer.output.shape for name, layer in seen.items()})
    described = [_describe(name, classifier, layer, axes.get(name, ""), faults[name]) for name, layer in seen.items()]
    first: dict[int, str] = {}
    for name, layer in seen.items():
        if not faults[name]:
            first.setdefault(id(layer.output), name)
    twins = [first.get(id(seen[c.name].output), c.name) for c in described]
    return [c if twin == c.name else replace(c, same_as=twin) for c, twin in zip(described, twins, strict=True)]


def _settled(readings: Mapping[str, tuple[float, str]], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """The axes of each layer, in order of running. Where attention has mixed everything, hardly anything moves: such a layer is
    read like the next clear one of its shape, or else the last clear one, or else the clearest of all."""
    settled: dict[str, str] = {}
    clearest: dict[tuple[int, ...], tuple[float, str]] = {}
    for names in (list(readings)[::-1], list(readings)):
        near: dict[tuple[int, ...], str] = {}
        for name in names:
            (score, axes), shape = readings[name], shapes[name]
            clearest[shape] = max(clearest.get(shape, (score, axes)), (score, axes))
            if axes and score >= CLEAR[len(axes)]:
                settled[name] = near[shape] = axes
            elif shape in near:
                settled.setdefault(name, near[shape])
    return {name: settled.get(name, clearest[shapes[name]][1]) for name in readings}


def find_axes(output: Tensor, fewer: Tensor, by_row: Sequence[Tensor], by_frame: Sequence[Tensor]) -> tuple[float, str]:
    """How clearly the axes of an output show, and the axes (letters B, C, M, T); no letters where there is no batch or no time.

    `fewer` is the output for one clip fewer; `by_row` and `by_frame` are changes of the output (absolute) when the lowest and the
    highest rows, or the first and the last frames, are disturbed.
    """
    if output.ndim != fewer.ndim or output.ndim not in (3, 4):
        return 0.0, ""
    grown = [i for i in range(output.ndim) if output.shape[i] != fewer.shape[i]]
    if len(grown) != 1 or output.shape[grown[0]] != ITEMS:
        return 0.0, ""
    free = [i for i in range(output.ndim) if i != grown[0]]
    best, axes = -math.inf, ""
    for order in itertools.permutations("CMT" if output.ndim == 4 else "CT"):
        letters = {grown[0]: "B", **dict(zip(free, order, strict=True))}
        named = "".join(letters[i] for i in range(output.ndim))
        score = sum(_drift(named.index(letter), *changes) for letter, changes in (("T", by_frame), ("M", by_row)) if letter in named)
        score += USUAL if named == "BCMT" else 0.0
        best, axes = max((best, axes), (score, named))
    return best, axes


def _drift(axis: int, first: Tensor, last: Tensor) -> float:
    """By how much the centre of a change moves along an axis from the first to the last disturbance; 1 is all the way."""
    length = first.shape[axis]
    if length == 1:
        return LONE
    centres = []
    for change in (first, last):
        profile = change.double().movedim(axis, 0).reshape(length, -1).sum(dim=1)
        places = torch.linspace(0, 1, length, dtype=torch.float64)
        centres.append(float((profile * places).sum() / profile.sum().clamp(min=1e-30)))
    return centres[1] - centres[0]


def _nudged(base: Tensor, axis: int, end: int) -> Tensor:
    """base with a little noise on its first (end 0) or last (end 1) quarter along an axis: so little that nothing global changes."""
    part = max(1, base.shape[axis] // 4)
    noise = torch.randn(base.shape, generator=torch.Generator().manual_seed(1))
    nudged = base.clone()
    start = base.shape[axis] - part if end else 0
    nudged.narrow(axis, start, part).add_(noise.narrow(axis, start, part), alpha=0.02)
    return nudged


@contextmanager
def _watching(network: nn.Module) -> Iterator[dict[str, _Seen]]:
    """Collect every layer's output during a forward, in order of finishing; the hooks are gone afterwards."""
    seen: dict[str, _Seen] = {}

    def keep(name: str):  # type: ignore[no-untyped-def]
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            tensor = first_tensor(output)
            if tensor is not None and tensor.is_floating_point():
                calls = seen.pop(name).calls + 1 if name in seen else 1
                seen[name] = _Seen(tensor, tensor._version, calls)

        return hook

    layers = [(name, m) for name, m in network.named_modules() if name and not isinstance(m, torch.jit.ScriptModule)]  # those call no hooks
    handles = [module.register_forward_hook(keep(name)) for name, module in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _run(classifier: ExternalClassifier, mels: Tensor) -> dict[str, _Seen]:
    """Every layer's output for mels (B, 1, M, T) without noise."""
    with torch.no_grad(), _watching(classifier.network) as seen:
        _logits(classifier, mels)
    return seen


def _run_with_gradients(classifier: ExternalClassifier, mels: Tensor) -> tuple[dict[str, _Seen], dict[str, str]]:
    """Every layer's output, and why it cannot be tapped (nothing where it can)."""
    source = mels.clone().requires_grad_()
    with torch.enable_grad(), _watching(classifier.network) as seen:
        logits = _logits(classifier, source)
    bad = [name for name, layer in seen.items() if not layer.output.isfinite().all()]
    if not logits.isfinite().all():
        where = f"; the first layer that gives such values is {bad[0]!r}" if bad else ""
        raise ClassifierError(f"the classifier's logits are not finite on plain noise{where}; check its weights and what it takes")
    if not logits.requires_grad or not _reaches(logits, [source])[0]:
        raise ClassifierError(
            "no gradient leads from the classifier's logits to its input; remove detach(), argmax or no_grad() in its forward"
        )
    open_ended = [layer.output for layer in seen.values() if layer.output.requires_grad]
    reached = iter(_reaches(logits, open_ended))
    return seen, {name: _fault(layer, layer.output.requires_grad and next(reached)) for name, layer in seen.items()}


def _reaches(logits: Tensor, outputs: Sequence[Tensor]) -> list[bool]:
    if not outputs:
        return []
    with torch.enable_grad():
        energy = tap_energy(logits, None).sum()
    gradients = torch.autograd.grad(energy, list(outputs), retain_graph=True, allow_unused=True)
    return [gradient is not None for gradient in gradients]


def _fault(layer: _Seen, reached: bool) -> str:
    if layer.calls > 1:
        return f"it runs {layer.calls} times in one forward"
    if layer.output._version != layer.version:
        return "its output is changed in place by a later operation (such as ReLU(inplace=True))"
    return "" if reached else "no gradient leads from the logits through it to the input"


def _logits(classifier: ExternalClassifier, mels: Tensor) -> Tensor:
    """The classifier's logits at the clean end of the noise."""
    logits: Tensor = classifier(mels, torch.full((mels.shape[0],), classifier.noise.sigma_min))
    return logits


def _describe(name: str, classifier: ExternalClassifier, layer: _Seen, axes: str, fault: str) -> Candidate:
    shape = tuple(layer.output.shape)
    size = dict(zip(axes, shape, strict=False))
    rows, columns = size.get("M", 1), size.get("T", 1)
    if not fault and rows * columns == 1:
        axes, fault = "", "its output has no extent in time or frequency"
    without_batch = tuple(n for n, letter in zip(shape, axes, strict=False) if letter != "B") if axes else shape[1:]
    kind = type(classifier.network.get_submodule(name)).__name__
    stride = classifier.mel.n_mels / rows, classifier.mel.frames / columns
    return Candidate(name, kind, without_batch, axes, rows, columns, stride, math.prod(without_batch), fault)


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
        raise ClassifierError(f"the classifier has no layer {name!r} that runs{hint}; `duovox taps` lists all")
    if by_name[name].fault:
        raise ClassifierError(f"layer {name!r} cannot be tapped: {by_name[name].fault}; `duovox taps` lists those that can")
    return by_name[name]
