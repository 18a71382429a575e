"""data/storage.py: folders built beside their place, arrays written row by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from making import names

from duovox.contracts import DataError
from duovox.data.storage import ArrayWriter, built_beside, open_array


def test_remains_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    for name in (".features.999999999.partial", ".features.999999999.old", ".features.mine"):
        (tmp_path / name).mkdir()
    with built_beside(tmp_path / "features") as folder:
        (folder / "file").write_text("whole")
    assert names(tmp_path) == [".features.mine", "features"] and names(tmp_path / "features") == ["file"]


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "old").write_text("old")
    with pytest.raises(KeyboardInterrupt), built_beside(tmp_path / "features") as folder:
        (folder / "new").write_text("half")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["features"] and names(tmp_path / "features") == ["old"]


def test_rows_are_read_back_and_a_wrong_shape_is_refused(tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.int16).reshape(4, 3)
    with ArrayWriter(tmp_path / "a.npy", (3,), np.int16) as writer:
        writer.append(rows[:1])
        writer.append(rows[1:])
    np.testing.assert_array_equal(open_array(tmp_path / "a.npy", (4, 3), np.int16), rows)
    with pytest.raises(DataError, match=r"holds int16 \(4, 3\), its manifest says int16 \(5, 3\)"):
        open_array(tmp_path / "a.npy", (5, 3), np.int16)
    with pytest.raises(DataError, match="missing or damaged"):
        open_array(tmp_path / "b.npy", (4, 3), np.int16)
