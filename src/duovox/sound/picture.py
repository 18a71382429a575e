"""Log-mels as pictures: takes arrays (M, T), gives PNG bytes. Low frequencies at the bottom, time to the right."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

QUIET, LOUD = -11.5, 1.5
"""Range of log-mel (natural logarithm) that the colours span."""

_ANCHORS = np.array(
    [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]], float
)


def colours(log_mel: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(M, T) -> RGB picture (M, T, 3), dark where quiet."""
    level = np.clip((log_mel[::-1] - QUIET) / (LOUD - QUIET), 0, 1) * (len(_ANCHORS) - 1)
    below = np.minimum(level.astype(int), len(_ANCHORS) - 2)
    part = (level - below)[..., None]
    return (_ANCHORS[below] * (1 - part) + _ANCHORS[below + 1] * part).round().astype(np.uint8)


def sheet(rows: Sequence[Sequence[NDArray[np.float32]]], zoom: int = 3, gap: int = 4) -> bytes:
    """Rows of log-mels (M, T), all of one shape, as one PNG; each mel pixel becomes zoom x zoom."""
    pictures = [[np.kron(colours(mel), np.ones((zoom, zoom, 1), np.uint8)) for mel in row] for row in rows]
    height, width = pictures[0][0].shape[:2]
    canvas = np.full((len(rows) * (height + gap) - gap, max(map(len, rows)) * (width + gap) - gap, 3), 255, np.uint8)
    for i, row in enumerate(pictures):
        for j, picture in enumerate(row):
            canvas[i * (height + gap) : i * (height + gap) + height, j * (width + gap) : j * (width + gap) + width] = picture
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
