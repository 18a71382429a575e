"""Feature folders of changed clips: takes chunks of clips that were recordings of another feature folder, writes a folder of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from duovox.config import to_json
from duovox.contracts import OutputError
from duovox.data.decoding import Moments
from duovox.data.features import Manifest, whole_manifest
from duovox.data.storage import ArrayWriter, built_beside


@dataclass(frozen=True, eq=False)
class Changed:
    """Changed clips: waves (n, S) int16, log-mels (n, M, T) float16, and which of them are to be trained on, (n,); `content` is the one of
    the two arrays that was changed."""

    waves: NDArray[np.int16]
    log_mels: NDArray[np.float16]
    trained_on: NDArray[np.bool_]
    content: NDArray[np.int16] | NDArray[np.float16]


def write_changed(out: Path, manifest: Manifest, chunks: Iterable[Changed]) -> Manifest:
    """Write the feature folder `out` of clips that `manifest` tells of, in its order, unless one of the same inputs is there already; the
    chunks are taken only then. An older feature folder at `out`, or a damaged one, is replaced. Raises `OutputError`."""
    old = whole_manifest(out)
    if old and old.inputs == manifest.inputs:
        return old
    try:
        with built_beside(out) as folder:
            return _build(folder, manifest, chunks)
    except OSError as error:
        raise OutputError(f"cannot write the feature folder {out}: {error.strerror or error}") from None


def _build(folder: Path, manifest: Manifest, chunks: Iterable[Changed]) -> Manifest:
    mel, moments, content = manifest.mel, Moments(), hashlib.sha256(manifest.inputs.encode())
    with (
        ArrayWriter(folder / "waves.npy", (mel.clip_samples,), np.int16) as waves,
        ArrayWriter(folder / "log_mels.npy", (mel.n_mels, mel.frames), np.float16) as log_mels,
    ):
        for chunk in chunks:
            waves.append(chunk.waves)
            log_mels.append(chunk.log_mels)
            content.update(chunk.content.tobytes())
            moments.add(chunk.log_mels[chunk.trained_on])
    made = replace(manifest, digest=content.hexdigest(), statistics=moments.statistics())
    (folder / "manifest.json").write_text(to_json(made), encoding="utf-8")
    return made
