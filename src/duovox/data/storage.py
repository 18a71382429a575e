"""How a feature folder lies on the disk: built beside its place, arrays written row by row and opened as memory maps."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duovox.contracts import DataError
from duovox.files import remove_leftovers


@contextmanager
def built_beside(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that takes its place when the block ends well, and vanishes when it does not."""
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers([out])
    temporary = out.with_name(f".{out.name}.{os.getpid()}.partial")
    temporary.mkdir()
    try:
        yield temporary
        aside = out.with_name(f".{out.name}.{os.getpid()}.old")
        if out.exists():
            out.rename(aside)
        temporary.rename(out)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def open_array(path: Path, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is missing or damaged ({error}); run `duovox data prepare` again") from None
    if array.shape != shape or array.dtype != dtype:
        raise DataError(
            f"{path} holds {array.dtype} {array.shape}, its manifest says {np.dtype(dtype)} {shape}; run `duovox data prepare` again"
        )
    return array


class ArrayWriter:
    """A .npy file written row by row; its header gets the number of rows at the end (numpy leaves room for it)."""

    def __init__(self, path: Path, row: tuple[int, ...], dtype: Any) -> None:
        self._file = path.open("wb")
        self._row, self._dtype, self._count = row, np.dtype(dtype), 0
        self._write_header()

    def append(self, rows: NDArray[Any]) -> None:
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).tobytes())
        self._count += len(rows)

    def _write_header(self) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self._count, *self._row)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            self._file.seek(0)
            self._write_header()
