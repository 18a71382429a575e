"""Which layers of someone else's classifier can be tapped: runs it a few times, gives the candidates to `choice`.

Nothing is assumed of the layers' kinds. Which axis of an output is the batch shows when the batch grows; which is time and which
is frequency shows where a disturbance of the first or last frames, or of the lowest or highest mel rows, comes out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from duovox.classifiers.axes import NO_EXTENT, find_axes, nudged, probe_mels, why_no_axes
from duovox.classifiers.external import ExternalClassifier, at_rest
from duovox.config import MelConfig
from duovox.contracts import ClassifierError
from duovox.diffusion.taps import first_tensor, tap_energy

CLEAR = {3: 0.25, 4: 0.8}
"""From which score on the axes of an output with so many axes are taken from itself, not from other layers of its shape."""


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
    base = probe_mels(mel)
    seen, faults = _run_with_gradients(classifier, base)
    fewer = _run(classifier, base[:-1])
    for name, layer in seen.items():
        why = why_no_axes(layer.output, fewer[name].output) if name in fewer else "it does not run for every batch"
        faults[name] = faults[name] or why
    axes = _axes_of(classifier, base, {name: layer for name, layer in seen.items() if not faults[name]}, fewer)
    described = [_describe(name, classifier, layer, axes.get(name, ""), faults[name]) for name, layer in seen.items()]
    return _with_twins(described, seen)


def _axes_of(classifier: ExternalClassifier, base: Tensor, layers: Mapping[str, _Seen], fewer: Mapping[str, _Seen]) -> dict[str, str]:
    """The axes of each layer, from where disturbances of the mel's rows and frames come out in it."""
    by_row, by_frame = (tuple(_run(classifier, nudged(base, axis, end)) for end in (0, 1)) for axis in (2, 3))
    readings: dict[str, tuple[float, str]] = {}
    for name, layer in layers.items():
        rows, frames = (tuple((run[name].output - layer.output.detach()).abs() for run in runs) for runs in (by_row, by_frame))
        readings[name] = find_axes(layer.output, fewer[name].output, rows, frames)
    return _settled(readings, {name: layer.output.shape for name, layer in layers.items()})


def _with_twins(described: Sequence[Candidate], seen: Mapping[str, _Seen]) -> list[Candidate]:
    """The candidates, those that give the tensor of an earlier one marked with its name."""
    first: dict[int, str] = {}
    for candidate in described:
        if not candidate.fault:
            first.setdefault(id(seen[candidate.name].output), candidate.name)
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
        axes, fault = "", NO_EXTENT
    without_batch = tuple(n for n, letter in zip(shape, axes, strict=False) if letter != "B") if axes else shape[1:]
    kind = type(classifier.network.get_submodule(name)).__name__
    stride = classifier.mel.n_mels / rows, classifier.mel.frames / columns
    return Candidate(name, kind, without_batch, axes, rows, columns, stride, math.prod(without_batch), fault)
