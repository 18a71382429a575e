"""dataset/run.py: what a data set holds, and how it goes on."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dataset_making import contents, here, make, options, rows

from duovox.contracts import BundleError, DataError, GuideError, LabelError, OutputError
from duovox.data.lists import read_lists
from duovox.data.sources import scan
from duovox.dataset.estimate import estimate
from duovox.dataset.run import make_dataset, plan_dataset
from duovox.dataset.shards import Maker
from duovox.repurposing import make_own_guide
from duovox.sound.audio import read_audio
from duovox.voice import Duovox


@pytest.fixture(scope="module")
def made(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "set"
    make(bundle_folder, out, manifest="jsonl")
    return out


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
        assert json.loads(row.pop("guides")) == line.pop("guides") == []
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


@pytest.mark.parametrize("harm", ["a record is gone", "no record is left", "another clip's records", "an empty sound", "a longer sound"])
def test_a_shard_that_is_not_as_planned_is_made_again(harm: str, made: Path, bundle_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    shutil.copytree(made, out)
    records, sound = out / "_records" / "000001.jsonl", out / "low" / "00000002_nohash_1.wav"
    lines = records.read_text().splitlines(keepends=True)
    if "record" in harm:
        records.write_text("".join({"a record is gone": lines[:2] + lines[3:], "no record is left": []}.get(harm, lines[::-1])))
    else:
        sound.write_bytes(b"" if harm == "an empty sound" else sound.read_bytes() + b"more")
    assert "8 clips are there, 4 to make" in estimate(plan_dataset(options(bundle_folder, out)))
    make(bundle_folder, out, manifest="jsonl")
    assert contents(out) == contents(made)


def test_the_order_of_words_decides_nothing(bundle_folder: Path, tmp_path: Path) -> None:
    for name, words in (("a", ("low", "high")), ("b", ("high", "low"))):
        make(bundle_folder, tmp_path / name, words=words, between=2, manifest="jsonl")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_dry_run_refuses_what_the_run_would(made: Path, bundle_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="made with seed = 0, now it is 1000"):
        estimate(plan_dataset(options(bundle_folder, made, seed=1000)))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file; choose a new folder"):
        estimate(plan_dataset(options(bundle_folder, tmp_path / "file")))


def test_a_manifest_of_the_other_form_goes(made: Path, bundle_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    shutil.copytree(made, tmp_path / "set")
    for form in ("parquet", "jsonl"):
        make(bundle_folder, tmp_path / "set", manifest=form)
        assert [path.name for path in (tmp_path / "set").glob("manifest.*")] == [f"manifest.{form}"]


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

    def runs_off(self: Duovox, wanted: Sequence[tuple[str | None, int]], *settings: Any, **others: Any) -> Any:
        clips = generate(self, wanted, *settings, **others)
        return [replace(clip, fault="it is silent" * (clip.label == "mid" or clip.seed % 2)) for clip in clips]

    monkeypatch.setattr(Duovox, "generate_batch", runs_off)
    outcome = make(bundle_folder, tmp_path / "set", keep_faulty=False, tries=3, manifest="jsonl")
    table = rows(tmp_path / "set")
    assert [(tally.tried, tally.kept) for tally in outcome.tallies] == [(7, 4), (7, 4), (12, 0)]
    assert [row["id"] for row in table] == list(range(26)), "those thrown away stand there too"
    assert [row["seed"] for row in table if row["kept"] and row["label"] == "low"] == [0, 2, 4, 6]
    assert {(row["file"], row["dropped"], row["fault"]) for row in table if not row["kept"]} == {("", "fault", "it is silent")}
    assert len(list((tmp_path / "set").rglob("*.wav"))) == 8
    assert make(bundle_folder, tmp_path / "set", keep_faulty=False, tries=3, manifest="jsonl") == outcome, "found again, nothing made"


def test_guides_steer_every_clip_and_stand_in_the_manifest(bundle_folder: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"words": ("low",), "between": 2, "manifest": "jsonl", "guide": ("own-high:2", "pitch-200Hz:0")}
    make(bundle_folder, tmp_path / "set", **given)
    voice, table = Duovox.from_pretrained(bundle_folder), rows(tmp_path / "set")
    own = voice.guide("own", "high", gamma=2)
    for row in table:
        assert [(guide["name"], guide["target"], guide["digest"]) for guide in row["guides"]] == [("own", {"high": 1.0}, own.record.digest)]
    alone = voice.generate("low", seed=2, guides=[own], keep_faulty=True)[0]
    between = voice.generate_between([({"high": 0.5, "low": 0.5}, 0)], guides=[own])[0]
    clips = {(row["label"], row["seed"]): read_audio(tmp_path / "set" / row["file"], 16000) for row in table}
    assert clips["low", 2] == pytest.approx(alone.wave.clip(-1, 1), abs=1e-3) and between.guides == alone.guides == (own.record,)
    assert clips["high+low", 0] == pytest.approx(between.wave.clip(-1, 1), abs=1e-3)
    with pytest.raises(OutputError, match="were made with guides"):
        make(bundle_folder, tmp_path / "set", **given | {"guide": ("own-high:3",)})


def test_workers_find_a_guide_wherever_they_stand(bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_own_guide(bundle_folder).write(tmp_path / "words")
    monkeypatch.chdir(tmp_path)
    planned = plan_dataset(options(bundle_folder, Path("set"), guide=("words-high:2",)))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert make_dataset(planned, here()).tallies[0].kept == 4
    other = replace(planned.job, guides=(replace(planned.job.guides[0], target="low"),))
    with pytest.raises(BundleError, match="guides or noise are not those of the plan"):
        Maker(other)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"guide": ("absent-high:2",)}, "names no guide"),
        ({"guide": ("own-high:2", "own-high:3")}, "the guide own-high is given twice"),
        ({"guide": ("own-hihg",)}, "unknown label 'hihg'"),
    ],
)
def test_guides_that_cannot_be_are_refused_before_anything_is_made(
    bundle_folder: Path, tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    with pytest.raises((GuideError, LabelError), match=said):
        make(bundle_folder, tmp_path / "set", **given)
    assert not (tmp_path / "set").exists()
