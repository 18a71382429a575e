"""bench/cold.py: a fresh process opens a bundle and speaks, in seconds and MiB of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from duovox.bench.cold import cold_start
from duovox.contracts import BundleError


def test_a_fresh_process_has_times_and_memory_of_its_own(bundle_folder: Path) -> None:
    found = cold_start("tiny", str(bundle_folder), "low", batch=2, threads=1)
    assert (found.system, found.batch) == ("tiny", 2)
    assert min(found.import_seconds, found.load_seconds, found.first_clip_seconds) > 0
    assert 50 < found.import_mib <= found.load_mib <= found.first_clip_mib <= found.batch_mib


def test_what_went_wrong_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"could not be opened in a process of its own: .*no bundle at") as error:
        cold_start("gone", str(tmp_path / "gone"), "low", batch=1, threads=1)
    assert "\n" not in str(error.value)
