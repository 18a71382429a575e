"""Which axis of a tensor is the batch, which time, which frequency: takes what a network gives for a few disturbed mels.

The batch is the axis that grows with it; time and frequency are where a disturbance of the first or last frames, or of the lowest or
highest mel rows, comes out. `discovery` reads layers with it, `output_kinds` the output.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from duovox.config import MelConfig

ITEMS = 3
"""Clips in a probe; it is also run with one fewer, to find the batch axis."""

USUAL = 0.3
"""Handicap in favour of the order BCMT: along an axis of two or three positions a disturbance can hardly be seen to move."""

LONE = 0.1
"""What an axis of one position counts as having moved: more than channels do by chance, less than time and frequency do."""


NO_EXTENT = "its output has no extent in time or frequency"


def probe_mels(mel: MelConfig) -> Tensor:
    """Smooth noise in the place of scaled mels, (ITEMS, 1, M, T)."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(ITEMS, 1, math.ceil(mel.n_mels / 4), math.ceil(mel.frames / 4), generator=generator)
    return 0.5 * nn.functional.interpolate(coarse, size=(mel.n_mels, mel.frames), mode="bilinear")


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


def why_no_axes(output: Tensor, fewer: Tensor) -> str:
    """Why an output, beside that for one clip fewer, has no axes of batch and time; nothing where it may have them."""
    folded = folded_into_batch(output, fewer)
    if folded > 1:
        return f"it folds {folded} positions of each clip into the batch: {tuple(output.shape)} for {ITEMS} clips"
    if folded == 0:
        return f"no axis of its output {tuple(output.shape)} is the batch"
    if output.ndim > 4:
        return f"its output {tuple(output.shape)} has {output.ndim} axes; a tap has batch, channels, time and perhaps frequency"
    return "" if output.ndim > 2 else NO_EXTENT


def folded_into_batch(output: Tensor, fewer: Tensor) -> int:
    """How many entries along its batch axis an output has for each clip: 1 as it should be; 0 where no one axis grows with the batch."""
    grown = [(a, b) for a, b in zip(output.shape, fewer.shape, strict=False) if a != b]
    if output.ndim != fewer.ndim or len(grown) != 1:
        return 0
    ((many, few),) = grown
    count = many // ITEMS
    return count if (many, few) == (count * ITEMS, count * (ITEMS - 1)) else 0


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


def nudged(base: Tensor, axis: int, end: int) -> Tensor:
    """base with a little noise on its first (end 0) or last (end 1) quarter along an axis: so little that nothing global changes."""
    part = max(1, base.shape[axis] // 4)
    noise = torch.randn(base.shape, generator=torch.Generator().manual_seed(1))
    nudged = base.clone()
    start = base.shape[axis] - part if end else 0
    nudged.narrow(axis, start, part).add_(noise.narrow(axis, start, part), alpha=0.02)
    return nudged
