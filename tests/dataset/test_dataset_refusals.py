"""dataset/run.py: what is refused before anything is made, and what goes wrong on the way, each in one line."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dataset_making import contents, make, options

from duovox.bundle import Bundle, write_bundle
from duovox.contracts import ConfigError, DuovoxError, GenerationError, LabelError, OutputError
from duovox.dataset import manifest as manifest_module
from duovox.dataset.engines.base import Run
from duovox.dataset.plan import Shard
from duovox.dataset.run import make_dataset, plan_dataset
from duovox.dataset.shards import Advance, Job, Maker


@pytest.fixture(scope="module")
def made(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "set"
    make(bundle_folder, out, manifest="jsonl")
    return out


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"per_word": -3}, ConfigError, "--per-word must be at least 1, not -3"),
        ({"per_word": 0}, ConfigError, "--per-word must be at least 1, not 0"),
        ({"batch": 0}, ConfigError, "--batch must be at least 1, not 0"),
        ({"shard": -1}, ConfigError, "--shard must be at least 1, not -1"),
        ({"workers": 0}, ConfigError, "--workers must be at least 1, not 0"),
        ({"between": -1}, ConfigError, "--between must not be negative, not -1"),
        ({"outside": -1}, ConfigError, "--outside must not be negative, not -1"),
        ({"outside": 2}, ConfigError, "none lies outside; name some with --words"),
        ({"threshold": 1.0}, ConfigError, "--threshold must lie between 0 and 1, not 1"),
        ({"threads": 0}, ConfigError, "--threads must be at least 1, not 0"),
        ({"tries": 0}, ConfigError, "--tries must be at least 1, not 0"),
        ({"address": "auto"}, ConfigError, "give --engine ray with it, not local"),
        ({"engine": "torchrun", "workers": 2}, ConfigError, "say how many to torchrun"),
        ({"words": ("low", "eleven")}, LabelError, "unknown label 'eleven'"),
        ({"words": ("low,eleven",)}, LabelError, "unknown label 'eleven'"),
        ({"words": ("",)}, LabelError, "--words names no word; this model speaks: high, low, mid"),
        ({"seed": -1}, GenerationError, "a seed must lie between 0 and 2^63, not -1"),
        ({"seed": 2**63 - 10}, GenerationError, "a seed must lie between 0 and 2"),
        ({"judge": Path("nowhere")}, DuovoxError, "cannot read judge nowhere"),
        ({"bundle": "nowhere"}, DuovoxError, "no bundle at nowhere"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    given: dict[str, Any], error: type[Exception], message: str, bundle_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message.replace("^", r"\^")):
        make(bundle_folder, tmp_path / "set", **given)
    assert not (tmp_path / "set").exists()


def test_parquet_without_pyarrow_is_refused_and_auto_does_without(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest_module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs pyarrow: pip install 'duovox\[dataset\]', or take --manifest jsonl"):
        make(bundle_folder, tmp_path / "set", manifest="parquet")
    assert not (tmp_path / "set").exists()
    assert make(bundle_folder, tmp_path / "set").manifest.name == "manifest.jsonl"


def test_words_are_those_that_are_meant(bundle_folder: Path, tmp_path: Path) -> None:
    for words, meant in [((), ["high", "low", "mid"]), (("LOW, high", "low"), ["high", "low"]), (("mid", "low"), ["low", "mid"])]:
        planned = plan_dataset(options(bundle_folder, tmp_path / "set", words=words))
        assert [target.name for target in planned.job.targets] == meant


def test_other_clips_never_come_beside_those_there(made: Path, bundle_folder: Path, tiny_bundle: Bundle, tmp_path: Path) -> None:
    out, before = tmp_path / "set", contents(made)
    shutil.copytree(made, out)
    other = tmp_path / "other"
    write_bundle(replace(tiny_bundle, vocoder=None), other)
    for given, message in [
        ({"bundle": str(other)}, "made with bundle = '"),
        ({"per_word": 5}, r"made with clips\.word high = 4, now it is 5"),
        ({"seed": 1}, "made with seed = 0, now it is 1"),
        ({"layout": "webdataset"}, "made with layout = 'speech_commands', now it is 'webdataset'"),
        ({"batch": 4}, "made with batch = 2, now it is 4"),
    ]:
        with pytest.raises(OutputError, match=f"{message}.*; choose a new folder"):
            make(bundle_folder, out, **given)
    assert contents(out) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds other things than clips made by this command"):
        make(bundle_folder, tmp_path / "mine")
    assert contents(tmp_path / "mine") == {"notes.txt": b"mine"}


def test_two_runs_in_one_folder_are_refused(bundle_folder: Path, tmp_path: Path) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match=r"another run is writing a data set to .*; wait for it or choose another folder"):
            make(bundle_folder, tmp_path)
    finally:
        os.close(handle)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("layout", ["speech_commands", "webdataset"])
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    layout: Any, bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = Path.write_bytes, 0

    def full(self: Path, content: bytes) -> int:
        nonlocal written
        written += 1
        if written > 3:
            write(self, content[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, content)

    given = {"layout": layout, "per_word": 8, "manifest": "jsonl"}
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match=r"cannot write .*: No space left on device; mend that, and the same command goes on"):
            make(bundle_folder, tmp_path / "set", **given)
    assert not list((tmp_path / "set").rglob(".*")), "nothing half-written"
    make(bundle_folder, tmp_path / "set", **given)
    make(bundle_folder, tmp_path / "whole", **given)
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


def test_a_folder_that_vanishes_is_not_made_again(bundle_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"

    @contextmanager
    def vanishing() -> Iterator[Run]:
        def run(job: Job, shards: Sequence[Shard], advance: Advance) -> None:
            maker = Maker(job)
            maker.make(shards[0])
            shutil.rmtree(out)
            maker.make(shards[1])

        yield run

    @contextmanager
    def vanishing_last() -> Iterator[Run]:
        yield lambda job, shards, advance: shutil.rmtree(out)

    for engine in (vanishing, vanishing_last):
        with pytest.raises(
            OutputError, match="set has vanished while clips were made for it; put it back, or begin again with another --out"
        ):
            make_dataset(plan_dataset(options(bundle_folder, out)), engine())
        assert not out.exists()


def test_a_worker_with_another_bundle_makes_nothing(bundle_folder: Path, tmp_path: Path) -> None:
    job = replace(plan_dataset(options(bundle_folder, tmp_path / "set")).job, voice="0" * 64)
    with pytest.raises(DuovoxError, match="are not those of the plan; give all workers the same files"):
        Maker(job)
