"""dataset/engines: the same bytes from any number of workers of any engine, also where one is killed in the middle."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dying
import pytest
from dataset_making import contents, here, options

from duovox.contracts import ConfigError, GenerationError, OutputError
from duovox.dataset.engines import local
from duovox.dataset.engines.base import Run
from duovox.dataset.engines.local import Pool, local_engine
from duovox.dataset.plan import Item, Shard
from duovox.dataset.run import Outcome, make_dataset, plan_dataset

NEEDS_RAY = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed (extra `ray`)")
WORDS = ["--per-word", "4", "--batch", "2", "--shard", "4", "--keep-faulty"]


@pytest.fixture(scope="module")
def alone(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Twelve clips in three shards, made in this process."""
    out = tmp_path_factory.mktemp("alone") / "set"
    make_dataset(plan_dataset(options(bundle_folder, out)), here())
    return contents(out)


def test_processes_make_the_same_bytes(alone: dict[str, bytes], bundle_folder: Path, tmp_path: Path) -> None:
    made = make_dataset(plan_dataset(options(bundle_folder, tmp_path / "set")), local_engine(2))
    assert contents(tmp_path / "set") == alone
    assert [(tally.tried, tally.kept) for tally in made.tallies] == [(4, 4)] * 3


def test_processes_are_steered_alike(bundle_folder: Path, tmp_path: Path) -> None:
    given = {"guide": ("own-high:2", "pitch-196Hz:20:best-of-2"), "words": ("low",)}
    make_dataset(plan_dataset(options(bundle_folder, tmp_path / "one", **given)), here())
    make_dataset(plan_dataset(options(bundle_folder, tmp_path / "two", **given)), local_engine(2))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_killed_process_is_replaced_and_its_shard_made_again(
    alone: dict[str, bytes], bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local, "work", dying.dying_work)
    told: list[int] = []
    planned = plan_dataset(options(bundle_folder, tmp_path / "set"))
    with local_engine(1) as run:

        def noted(job: Any, shards: Any, advance: Any) -> None:
            run(job, shards, lambda clips: (told.append(clips), advance(clips)))

        @contextmanager
        def engine() -> Iterator[Run]:
            yield noted

        make_dataset(planned, engine())
    assert contents(tmp_path / "set") == alone and (tmp_path / "killed").exists()
    assert sum(told) == 12, "clips of the dead worker are not counted twice"
    assert "a worker ended (killed by signal 9); shard 1 is made again" in capsys.readouterr().err


def test_a_shard_that_kills_three_workers_ends_the_run_and_the_same_command_goes_on(
    alone: dict[str, bytes], bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "always").touch()
    planned = plan_dataset(options(bundle_folder, tmp_path / "set"))
    with monkeypatch.context() as patch:
        patch.setattr(local, "work", dying.dying_work)
        with pytest.raises(
            GenerationError, match=r"^shard 1 ended its worker 3 times \(killed by signal 9\); .* the same command goes on$"
        ):
            make_dataset(planned, local_engine(1))
    there = contents(tmp_path / "set")
    assert "_records/000000.jsonl" in there and "_records/000001.jsonl" not in there and "manifest.parquet" not in there
    make_dataset(planned, local_engine(1))
    assert contents(tmp_path / "set") == alone


def test_what_a_process_raises_is_raised_here(bundle_folder: Path, tmp_path: Path) -> None:
    job, pool = plan_dataset(options(bundle_folder, tmp_path / "set")).job, Pool(1)
    try:
        with pytest.raises(OutputError, match="set has vanished while clips were made for it; put it back, or begin again"):
            pool.run(job, [Shard(0, [Item(0, 0, 0)])], lambda clips: None)
    finally:
        pool.close()


# torchrun


def torchrun(bundle: Path, out: Path, *words: str) -> subprocess.Popen[str]:
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "0"]
    words = ("-m", "duovox", "dataset", "--engine", "torchrun", "--bundle", str(bundle), "--out", str(out), *words)
    known = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return subprocess.Popen([*run, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=known)


def test_ranks_make_the_same_bytes(alone: dict[str, bytes], bundle_folder: Path, tmp_path: Path) -> None:
    process = torchrun(bundle_folder, tmp_path / "set", *WORDS)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert contents(tmp_path / "set") == alone
    assert out.count("12 clips of 3 words") == 1, "one process speaks"


def test_an_error_of_ranks_is_one_line(bundle_folder: Path, tmp_path: Path) -> None:
    process = torchrun(bundle_folder, tmp_path / "set", *WORDS, "--words", "eleven")
    _, err = process.communicate(timeout=300)
    assert process.returncode != 0 and not (tmp_path / "set").exists()
    assert [line for line in err.splitlines() if line.startswith("duovox:")] == [
        "duovox: unknown label 'eleven'; this model speaks: high, low, mid"
    ]


@pytest.mark.parametrize("words", [("--per-word", "-4"), ("--per-word", "4", "--threshold", "0.9")])
def test_an_error_that_all_ranks_meet_is_one_line(words: tuple[str, ...], bundle_folder: Path, tmp_path: Path) -> None:
    process = torchrun(bundle_folder, tmp_path / "set", *words)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert len([line for line in err.splitlines() if line.startswith("duovox:")]) == 1, err


def test_a_dry_run_of_ranks_ends_them_all(bundle_folder: Path, tmp_path: Path) -> None:
    process = torchrun(bundle_folder, tmp_path / "set", *WORDS, "--dry-run")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.count("12 clips of 3 words") == 1 and not (tmp_path / "set").exists()


@pytest.mark.parametrize("dies", [0, 1])
def test_a_rank_that_dies_ends_the_run_and_the_same_command_goes_on(dies: int, bundle_folder: Path, tmp_path: Path) -> None:
    out, words = tmp_path / "set", ["--per-word", "60", "--batch", "2", "--shard", "4", "--keep-faulty"]
    process = torchrun(bundle_folder, out, *words)
    while process.poll() is None and not (out / "_records" / "000003.jsonl").exists():
        time.sleep(0.05)
    ranks = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(ranks[dies]), signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    said = [line for line in err.splitlines() if line.startswith("duovox:")]
    assert process.returncode != 0 and said == ["duovox: another process of this job ended; the same command goes on with what is there"]
    done = len(list((out / "_records").glob("*.jsonl")))
    assert 3 <= done < 45 and not (out / "manifest.parquet").exists()
    kept = {name: (out / name).stat().st_mtime_ns for name in contents(out) if name.startswith("_records/0")}
    made: Outcome = make_dataset(plan_dataset(options(bundle_folder, out, per_word=60)), here())
    assert sum(tally.kept for tally in made.tallies) == 180
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept, "what was finished is not made again"


# Ray


@NEEDS_RAY
def test_ray_makes_the_same_bytes_also_where_a_worker_is_killed(
    alone: dict[str, bytes], bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from duovox.dataset.engines import ray as engine

    out, note, always = tmp_path / "set", tmp_path / "killed", tmp_path / "always"

    class Dying(engine.ShardActor):
        """Killed when it has made the deadly shard, before anyone is told; of a class in here, Ray sends the code."""

        def _make(self, shard: Shard) -> tuple[int, bytes]:
            if shard.number == 1 and (always.exists() or not note.exists()):
                note.touch()
                engine.note_beginning(self.job.out, shard.number)
                os.kill(os.getpid(), signal.SIGKILL)
            return super()._make(shard)

    monkeypatch.setattr(engine, "ShardActor", Dying)
    planned, heeded = plan_dataset(options(bundle_folder, out)), signal.getsignal(signal.SIGTERM)
    with engine.ray_engine(1, None) as run:
        assert signal.getsignal(signal.SIGTERM) is heeded, "Ray takes no signal from whoever calls it"

        @contextmanager
        def running() -> Iterator[Run]:
            yield run

        made = make_dataset(planned, running())
        assert contents(out) == alone and note.exists()
        assert [(tally.tried, tally.kept) for tally in made.tallies] == [(4, 4)] * 3
    assert signal.getsignal(signal.SIGTERM) is heeded


def test_an_actor_says_that_the_folder_has_vanished(bundle_folder: Path, tmp_path: Path) -> None:
    from duovox.dataset.engines.ray import ShardActor

    actor = ShardActor(plan_dataset(options(bundle_folder, tmp_path / "set")).job)
    made, error = actor._make(Shard(0, [Item(0, 0, 0)]))
    assert made == 0 and "has vanished while clips were made for it" in str(pickle.loads(error))


def test_no_more_workers_than_a_cluster_has() -> None:
    from duovox.dataset.engines.ray import choose_workers

    assert choose_workers(None, 4) == 4 and choose_workers(3, 4) == 3
    with pytest.raises(ConfigError, match="--workers 5: the Ray cluster has 4 CPUs; take fewer"):
        choose_workers(5, 4)


def test_a_shard_that_kills_three_workers_of_ray_is_told_apart(tmp_path: Path) -> None:
    from duovox.dataset.engines.ray import note_beginning

    (tmp_path / "_records").mkdir()
    notes = [note_beginning(tmp_path, 7) for _ in range(3)]
    assert len(set(notes)) == 3 and note_beginning(tmp_path, 8).exists()
    with pytest.raises(GenerationError, match=r"shard 7 ended its worker 3 times"):
        note_beginning(tmp_path, 7)


@NEEDS_RAY
@pytest.mark.parametrize(
    ("address", "reason"),
    [("127.0.0.1:1", "Connection refused"), ("auto", "Could not find any running Ray"), ("nonsense", "Invalid address format")],
)
def test_a_cluster_that_is_not_there_is_one_line_at_once(
    address: str, reason: str, bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from duovox.dataset.engines.ray import ray_engine

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    began = time.monotonic()
    with pytest.raises(GenerationError, match=f"a Ray cluster at {address} cannot be reached .*{reason}.*; see `ray status`"):
        make_dataset(plan_dataset(options(bundle_folder, tmp_path / "set")), ray_engine(1, address))
    assert not (tmp_path / "set").exists() and time.monotonic() - began < 200


def test_ray_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from duovox.dataset.engines.ray import ray_engine

    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(GenerationError, match=r"ray is not installed: pip install 'duovox\[ray\]', or take --engine local"),
        ray_engine(1, None),
    ):
        pass
