"""dataset/run.py: what a data set holds, how it goes on, and what is refused before anything is made."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import itertools
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from duovox.bundle import Bundle, write_bundle
from duovox.cli import main
from duovox.contracts import ConfigError, DataError, DuovoxError, GenerationError, LabelError, OutputError
from duovox.data.lists import read_lists
from duovox.data.sources import scan
from duovox.dataset import manifest as manifest_module
from duovox.dataset.engines.base import Run
from duovox.dataset.estimate import estimate
from duovox.dataset.options import Augmentation, Options
from duovox.dataset.plan import Shard
from duovox.dataset.run import Outcome, make_dataset, plan_dataset
from duovox.dataset.shards import Advance, Job, Maker
from duovox.evaluation.judge import CompactJudge, Judge, Scores
from duovox.sound.audio import read_audio, write_audio
from duovox.voice import Duovox


def options(bundle: Path, out: Path, /, **others: Any) -> Options:
    given: dict[str, Any] = {"per_word": 4, "batch": 2, "shard": 4, "keep_faulty": True, "bundle": str(bundle)}
    return Options(out, **given | others)


@contextmanager
def here(stop_before: int | None = None) -> Iterator[Run]:
    """An engine without other processes, which may be interrupted before a shard."""

    def run(job: Job, shards: Sequence[Shard], advance: Advance) -> None:
        maker = Maker(job)
        for shard in shards:
            if shard.number == stop_before:
                raise KeyboardInterrupt
            maker.make(shard, advance)

    yield run


def make(bundle: Path, out: Path, /, **others: Any) -> Outcome:
    return make_dataset(plan_dataset(options(bundle, out, **others)), here())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def made(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "set"
    make(bundle_folder, out, manifest="jsonl")
    return out


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_a_manifest_says_of_every_clip_what_it_is(made: Path, bundle_folder: Path) -> None:
    table = rows(made)
    assert [(row["id"], row["label"], row["seed"]) for row in table] == [
        (3 * seed + place, label, seed) for seed in range(4) for place, label in enumerate(("high", "low", "mid"))
    ]
    voice = Duovox.from_pretrained(bundle_folder)
    for row in table:
        content = (made / row["file"]).read_bytes()
        assert row["sha256"] == hashlib.sha256(content).hexdigest() and row["bundle"] == voice.digest and row["judged_by"] == ""
        assert row["classifier"].keys() == {"high", "low", "mid"} and sum(row["classifier"].values()) == pytest.approx(1, abs=1e-4)
        assert row["settings"]["steps"] == 3 and row["judge"] is None and row["kept"]
    assert read_audio(made / table[0]["file"], 16000).shape == (3840,)


def test_its_clips_are_those_of_the_voice(made: Path, bundle_folder: Path) -> None:
    voice = Duovox.from_pretrained(bundle_folder)
    clip = voice.generate("low", seed=2, keep_faulty=True)[0]
    assert read_audio(made / "low" / "00000002_nohash_1.wav", 16000) == pytest.approx(clip.wave.clip(-1, 1), abs=1e-3)


def test_speech_commands_readers_read_it_with_its_lists(bundle_folder: Path, tmp_path: Path) -> None:
    make(bundle_folder, tmp_path / "set", per_word=20, manifest="jsonl")
    lists, scanned, table = read_lists(tmp_path / "set"), scan(tmp_path / "set"), rows(tmp_path / "set")
    assert lists is not None and scanned.labels == ("high", "low", "mid") and len(scanned.sources) == 60 and not scanned.skipped
    assert {source.split for source in scanned.sources} == {"train", "validation", "test"}
    assert {source.name: source.split for source in scanned.sources} == {row["file"]: row["split"] for row in table}


def test_parquet_says_the_same_as_json_lines(made: Path, bundle_folder: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    shutil.copytree(made, tmp_path / "set")
    again = make(bundle_folder, tmp_path / "set", manifest="parquet")
    table = parquet.read_table(again.manifest).to_pylist()
    for row, line in zip(table, rows(made), strict=True):
        assert json.loads(row.pop("settings")) == line.pop("settings")
        assert json.loads(row.pop("augmentation")) == line.pop("augmentation")
        assert row.pop("classifier") == pytest.approx(line.pop("classifier"), abs=1e-6)
        assert row == line
    first = again.manifest.read_bytes()
    again.manifest.unlink()
    assert make(bundle_folder, tmp_path / "set", manifest="parquet").manifest.read_bytes() == first


def test_tars_hold_the_same_sounds(made: Path, bundle_folder: Path, tmp_path: Path) -> None:
    make(bundle_folder, tmp_path / "set", layout="webdataset", manifest="jsonl")
    assert contents(tmp_path / "set").keys() == {"settings.json", "manifest.jsonl"} | {
        name for number in range(3) for name in (f"{number:06d}.tar", f"_records/{number:06d}.jsonl")
    }
    for row, other in zip(rows(tmp_path / "set"), rows(made), strict=True):
        tar, member = row["file"].split("/")
        with tarfile.open(fileobj=io.BytesIO((tmp_path / "set" / tar).read_bytes())) as opened:
            assert opened.extractfile(member).read() == (made / other["file"]).read_bytes()  # type: ignore[union-attr]
            assert json.load(opened.extractfile(member.replace("wav", "json"))) == row  # type: ignore[arg-type]


# for keyword spotters


@pytest.fixture(scope="module")
def judge_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge of the tiny bundle's words, with random weights."""
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("judge") / "judge.safetensors"
    Judge("compact", ("high", "low", "mid"), CompactJudge(3).state_dict()).save(place)
    return place


def heard(monkeypatch: pytest.MonkeyPatch, answers: list[list[float]]) -> None:
    """Let judges answer with these probabilities of high, low and mid, in turn."""
    turn = itertools.cycle(answers)

    def score(self: Judge, waves: Any, batch: int = 64) -> Scores:
        return Scores(np.array([next(turn) for _ in waves], np.float32), np.zeros((len(waves), 1), np.float32))

    monkeypatch.setattr(Judge, "score", score)


def test_only_clips_that_are_heard_right_are_kept_and_the_others_counted(
    bundle_folder: Path, judge_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard(monkeypatch, [[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]])  # low, then high
    given = {"judge": judge_file, "judged": True, "words": ("low",), "manifest": "jsonl"}
    outcome = make(bundle_folder, tmp_path / "set", **given)
    assert [(tally.tried, tally.kept) for tally in outcome.tallies] == [(7, 4)]
    table = rows(tmp_path / "set")
    assert [(row["seed"], row["kept"], row["dropped"]) for row in table] == [(n, n % 2 == 0, "judge" * (n % 2)) for n in range(7)]
    assert table[1]["judge"] == {"high": 0.5, "low": 0.3, "mid": 0.2} and table[1]["judged_by"] == Judge.load(judge_file).digest
    heard(monkeypatch, [[0.1, 0.7, 0.2]])
    stricter = make(bundle_folder, tmp_path / "stricter", threshold=0.9, **given)
    assert [(tally.tried, tally.kept) for tally in stricter.tallies] == [(16, 0)], "up to the limit"


def test_between_words_nothing_is_kept_in_which_a_word_asked_for_is_heard(
    bundle_folder: Path, judge_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard(monkeypatch, [[0.1, 0.7, 0.2]])  # low, whatever was meant
    given = {"judge": judge_file, "judged": True, "per_word": 2, "between": 3, "outside": 1, "tries": 2, "manifest": "jsonl"}
    outcome = make(bundle_folder, tmp_path / "set", words=("low",), **given)
    named = {target.name: (tally.tried, tally.kept) for target, tally in zip(outcome.targets, outcome.tallies, strict=True)}
    assert named == {"low": (2, 2), "high+low": (4, 0), "low+mid": (2, 0), "high": (2, 0), "mid": (2, 0)}
    other = make(bundle_folder, tmp_path / "other", words=("mid",), **given)
    named = {target.name: tally.kept for target, tally in zip(other.targets, other.tallies, strict=True)}
    assert named == {"mid": 0, "high+mid": 2, "low+mid": 1, "high": 0, "low": 1}
    table = {(row["label"], row["kind"], row["file"].split("/")[0]) for row in rows(tmp_path / "other") if row["kept"]}
    assert table == {("high+mid", "between", "_unknown_"), ("low+mid", "between", "_unknown_"), ("low", "outside", "_unknown_")}


def test_a_judge_that_is_to_decide_must_know_the_words(bundle_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="this judge was not trained on high, low, mid"):
        make(bundle_folder, tmp_path / "set", judged=True)
    assert not (tmp_path / "set").exists()


def test_wake_words_in_windows_of_two_seconds_by_side_and_split(bundle_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    planned = plan_dataset(
        options(bundle_folder, out, words=("low",), per_word=20, between=6, outside=2, layout="openwakeword", manifest="jsonl")
    )
    assert planned.clips == 30 and "30 clips of 1 words, 10 of them negatives" in estimate(planned)
    make_dataset(planned, here())
    table = rows(out)
    sides = {(row["kind"], row["split"] == "train", row["file"].split("/")[0]) for row in table}
    assert sides == {
        ("word", True, "positive_train"),
        ("word", False, "positive_test"),
        *{(kind, split, f"negative_{'train' if split else 'test'}") for kind, split, _ in sides if kind != "word"},
    }
    assert len({row["file"] for row in table}) == 30
    for row in table:
        info = soundfile.info(out / row["file"])
        assert (info.samplerate, info.frames, info.channels, info.subtype) == (16000, 32000, 1, "PCM_16")
        assert 0 <= row["augmentation"]["jitter_ms"] <= 200


def test_augmented_clips_are_the_same_from_any_shards_and_other_noise_is_refused(bundle_folder: Path, tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        write_audio(noise / f"{name}.wav", rng.normal(0, 0.1, 32000), 16000, parents=True)
    augmentation = Augmentation(noise=noise, rooms=0.5, gain=3.0, shift=50.0)

    def made(out: Path, **others: Any) -> dict[str, str]:
        planned = plan_dataset(options(bundle_folder, out, manifest="jsonl", **others), None, augmentation)
        make_dataset(planned, here())
        return {row["file"]: row["sha256"] for row in rows(out)}

    assert made(tmp_path / "a") == made(tmp_path / "b", shard=6)
    assert made(tmp_path / "a").keys() == {row["file"] for row in rows(tmp_path / "a")}
    told = [row["augmentation"] for row in rows(tmp_path / "a")]
    always = {"shift_ms", "noise", "gain_db"}
    assert {frozenset(one) for one in told} == {frozenset(always), frozenset(always | {"room"})}
    write_audio(noise / "three.wav", rng.normal(0, 0.1, 32000), 16000)
    with pytest.raises(OutputError, match=r"made with augmentation\.noise = '"):
        made(tmp_path / "a")


# going on


def test_an_interrupted_run_goes_on_and_ends_in_the_same_bytes(made: Path, bundle_folder: Path, tmp_path: Path) -> None:
    planned = plan_dataset(options(bundle_folder, tmp_path / "set", manifest="jsonl"))
    with pytest.raises(KeyboardInterrupt):
        make_dataset(planned, here(stop_before=1))
    there = tmp_path / "set" / "_records" / "000000.jsonl"
    before = there.stat().st_mtime_ns
    (tmp_path / "set" / "low" / ".00000003_nohash_0.wav.17.partial").write_bytes(b"half")
    assert "4 clips are there, 8 to make" in estimate(planned)
    make_dataset(planned, here())
    assert contents(tmp_path / "set") == contents(made) and there.stat().st_mtime_ns == before


@pytest.mark.parametrize("layout", ["speech_commands", "webdataset"])
def test_files_that_are_gone_are_made_again_with_their_shard(layout: Any, bundle_folder: Path, tmp_path: Path) -> None:
    given = {"layout": layout, "manifest": "jsonl"}
    make(bundle_folder, tmp_path / "set", **given)
    whole = contents(tmp_path / "set")
    gone = tmp_path / "set" / ("low/00000002_nohash_1.wav" if layout == "speech_commands" else "000001.tar")
    gone.unlink()
    assert "8 clips are there, 4 to make" in estimate(plan_dataset(options(bundle_folder, tmp_path / "set", **given)))
    make(bundle_folder, tmp_path / "set", **given)
    assert contents(tmp_path / "set") == whole


def test_damaged_records_are_named_and_made_again_once_they_are_removed(made: Path, bundle_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    shutil.copytree(made, out)
    damaged = out / "_records" / "000001.jsonl"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(DataError, match=r"000001\.jsonl cannot be read .*; remove it, and the same command makes its clips again"):
        make(bundle_folder, out, manifest="jsonl")
    damaged.unlink()
    make(bundle_folder, out, manifest="jsonl")
    assert contents(out) == contents(made)


def test_clips_that_ran_off_are_thrown_away_and_others_made(bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = Duovox.generate_batch

    def runs_off(self: Duovox, wanted: Sequence[tuple[str | None, int]], *settings: Any) -> Any:
        return [replace(clip, fault="it is silent" * (clip.label == "mid" or clip.seed % 2)) for clip in generate(self, wanted, *settings)]

    monkeypatch.setattr(Duovox, "generate_batch", runs_off)
    outcome = make(bundle_folder, tmp_path / "set", keep_faulty=False, tries=3, manifest="jsonl")
    table = rows(tmp_path / "set")
    assert [(tally.tried, tally.kept) for tally in outcome.tallies] == [(7, 4), (7, 4), (12, 0)]
    assert [row["id"] for row in table] == list(range(26)), "those thrown away stand there too"
    assert [row["seed"] for row in table if row["kept"] and row["label"] == "low"] == [0, 2, 4, 6]
    assert {(row["file"], row["dropped"], row["fault"]) for row in table if not row["kept"]} == {("", "fault", "it is silent")}
    assert len(list((tmp_path / "set").rglob("*.wav"))) == 8
    assert make(bundle_folder, tmp_path / "set", keep_faulty=False, tries=3, manifest="jsonl") == outcome, "found again, nothing made"


# refusals


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
    for words, meant in [((), ["high", "low", "mid"]), (("LOW, high", "low"), ["low", "high"]), (("mid", "low"), ["mid", "low"])]:
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
    with pytest.raises(DuovoxError, match="are not what the job was planned with; give all workers the same files"):
        Maker(job)


# the command


def test_from_the_command_line(bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["dataset", "--words", "low", "--per-word", "2", "--out", str(tmp_path / "set"), "--bundle", str(bundle_folder)]
    assert main([*words, "--dry-run"]) == 0 and not (tmp_path / "set").exists()
    said = capsys.readouterr().out
    assert "2 clips of 1 words, seeds 0 to 1; 0.000133 h of sound, about" in said and "0 clips are there, 2 to make" in said
    assert main([*words, "--keep-faulty", "--steps", "2", "--workers", "1"]) == 0
    assert "2 clips of 1 words, all of them in manifest." in capsys.readouterr().out
    assert main([*words, "--keep-faulty", "--steps", "3"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_processes_of_torchrun_that_nobody_asked_for_are_refused(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["dataset", "--per-word", "2", "--out", str(tmp_path / "set"), "--bundle", str(bundle_folder)]) == 1
    assert "torchrun started 2 processes; give --engine torchrun" in capsys.readouterr().err


def test_the_help_loads_neither_torch_nor_ray() -> None:
    import subprocess

    code = "import sys, duovox.commands.dataset; print(*{'torch', 'ray', 'pyarrow'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
