"""Log-mels (M, T) as bytes for the page: eight bits a pixel and the range they span."""

from __future__ import annotations

from base64 import b64encode

import numpy as np
from numpy.typing import NDArray

from duovox.serve.schemas import Picture


def picture(log_mel: NDArray[np.float32], like: NDArray[np.float32] | None = None) -> Picture:
    """A log-mel in the range of its own, or of `like`, beyond which it is cut. Row 0 is the lowest band."""
    low, high = _range(log_mel if like is None else like)
    levels = np.clip((log_mel.astype(np.float64) - low) / ((high - low) or 1.0), 0, 1) * 255
    rows, columns = log_mel.shape
    return Picture(rows=rows, columns=columns, low=low, high=high, data=b64encode(levels.round().astype(np.uint8).tobytes()).decode())


def _range(log_mel: NDArray[np.float32]) -> tuple[float, float]:
    return float(log_mel.min()), float(log_mel.max())
