"""run.py and what it puts together: the experiment augment end to end on tiny data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tone

from duovox import voice as voice_module
from duovox.bundle import read_bundle
from duovox.cli import main
from duovox.config import Recipe, write_recipe
from duovox.contracts import ConfigError, DataError, DuovoxError, LabelError, TrainingError
from duovox.data import open_features
from duovox.dataset.engines.base import Run
from duovox.dataset.plan import Shard
from duovox.dataset.shards import Advance, Job, Maker
from duovox.experiments.options import Options
from duovox.experiments.spotting import espeak, run, sounds, spotters
from duovox.experiments.spotting.options import Spotting
from duovox.experiments.spotting.run import run_augment
from duovox.experiments.spotting.sounds import read_dataset, shortfalls
from duovox.experiments.spotting.story import command_words
from duovox.sound.audio import write_audio

COMMANDS = ("low", "high")


@contextmanager
def here(_workers: int | None) -> Iterator[Run]:
    """An engine without other processes."""

    def make(job: Job, shards: Sequence[Shard], advance: Advance) -> None:
        maker = Maker(job)
        for shard in shards:
            maker.make(shard, advance)

    yield make


def say_tone(word: str, manner: espeak.Manner, name: str) -> np.ndarray:
    return tone(word, 100 + int(name.rpartition("/")[2]), samples=16000)


@pytest.fixture(scope="module", autouse=True)
def in_place() -> Iterator[None]:
    """No other processes, no program that speaks, and no clip has a fault."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sounds, "local_engine", here)
        patch.setattr(voice_module, "fault_of", lambda *_: "")
        patch.setattr(espeak, "speak", say_tone)
        patch.setattr(espeak, "_run", lambda arguments: "tones 1.0  of the test")
        patch.setattr(run, "missing_program", lambda: "")
        yield


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noise")
    write_audio(folder / "hiss.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 40000), 16000)
    return folder


@pytest.fixture(scope="module")
def options(
    tiny_recipe: Recipe, tiny_features: Path, bundle_folder: Path, noise: Path, tmp_path_factory: pytest.TempPathFactory
) -> Options:
    place = tmp_path_factory.mktemp("augment")
    shared: dict[str, Any] = {"noise": noise, "seeds": 2, "bundle": str(bundle_folder), "device": "cpu", "precision": "fp32"}
    return Options(tiny_features, place / "out", place / "page", tiny_recipe, **shared)


@pytest.fixture(scope="module")
def spotting() -> Spotting:
    return Spotting(COMMANDS, (2, 4), (2, 3), 1, own=(2,), own_budget=60.0, spotter_updates=4, workers=1)


@pytest.fixture(scope="module")
def page(options: Options, spotting: Spotting) -> str:
    finished = run_augment(options, spotting)
    assert finished.left == ()
    return finished.page.read_text()


def test_every_row_is_there_with_all_its_measures(page: str, options: Options) -> None:
    stored = json.loads((options.out.parent / "page" / "augment.json").read_text())
    names = [row["words"] for row in stored["rows"]]
    assert len(names) == 17 and len(set(names)) == 17
    for row in stored["rows"]:
        assert f"| {row['words']} |" in page
        assert len(row["heard"]) == 2 and all(one["accuracy"].keys() == {"clean", "10 dB", "0 dB"} for one in row["heard"])
        assert all(0 <= one["false_alarms"] <= 1 for one in row["heard"])
    assert {one["measure"] for one in stored["comparisons"]} == {"clean", "10 dB", "0 dB", "false alarms"}
    assert "tested on all 4 real test clips of these words and on 2 of other words" in page and "rarest word: 6;" in page
    assert "Rules: tones 1.0;" in page and "Voice trained on 2 clips a word alone: recipe tiny, from nothing, 4 updates" in page
    assert "Not finished" not in page and (options.out.parent / "page" / "augment.svg").is_file()


def test_a_fair_voice_heard_its_clips_and_no_others(page: str, options: Options) -> None:
    own = options.out / "own" / "2"
    features = open_features(own / "features")
    assert features.labels == COMMANDS and len(features.label) == 4
    origin = read_bundle(own / "bundle").config.origin
    assert {run["data"] for run in origin.values()} == {features.digest} and {run["clips"] for run in origin.values()} == {4}
    real = spotters_clips(options, "real2_own2_heard2_s0")
    assert real == [4, 4]


def spotters_clips(options: Options, name: str) -> list[int]:
    found: list[int] = json.loads((options.out / "spotters" / f"{name}.json").read_text())["clips"]
    return found


def test_mixtures_have_the_clips_that_they_say(page: str, options: Options) -> None:
    assert spotters_clips(options, "all2_s0") == [4] and spotters_clips(options, "all3_s0") == [6]
    assert spotters_clips(options, "real4_all3_s1") == [8, 6]
    assert spotters_clips(options, "all3_between_s0") == [8], "one between each word and another"
    assert spotters_clips(options, "real4_espeak3_s0") == [8, 6]
    first, more = (read_dataset(options.out / "generated" / f"all_{part}") for part in (0, 1))
    assert first.labels.count(None) == 2 and set(more.labels) == set(COMMANDS)
    assert len(np.unique(np.r_[first.waves, more.waves], axis=0)) == 8


def test_nothing_is_done_twice(page: str, options: Options, spotting: Spotting, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("done again")

    monkeypatch.setattr(spotters, "train", never)
    monkeypatch.setattr(Maker, "make", never)
    monkeypatch.setattr("duovox.experiments.spotting.own.start_training", never)
    again = run_augment(replace(options, time_budget=0.0), spotting)
    assert again.left == () and again.page.read_text() == page


def test_a_time_budget_leaves_the_rest_for_the_next_call(options: Options, spotting: Spotting, tmp_path: Path) -> None:
    none = run_augment(replace(options, out=tmp_path / "out", results=None, time_budget=0.0), spotting)
    assert len(none.left) == 17 and none.left[0] == "spotters of 2 real"
    text = none.page.read_text()
    assert "**Not finished.** Left to do: spotters of 2 real; spotters of 4 real" in text and "## Results" not in text
    assert not (tmp_path / "out" / "generated").exists()


def test_without_the_program_its_rows_are_left_out_and_this_is_said(
    page: str, options: Options, spotting: Spotting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "missing_program", lambda: "espeak-ng is not installed")
    text = run_augment(options, spotting).page.read_text()
    assert "Note: espeak-ng is not installed." in text and "of espeak-ng |" not in text
    assert capsys.readouterr().err.count("espeak-ng is not installed") == 1
    assert "left out (--no-espeak)" in run_augment(options, replace(spotting, espeak=False)).page.read_text()


def test_a_voice_of_other_clips_or_weights_is_not_taken_for_this_one(
    page: str, options: Options, spotting: Spotting, tmp_path: Path
) -> None:
    shutil.copytree(options.out, tmp_path / "out")
    with pytest.raises(TrainingError, match="own/2/bundle was trained on other clips, or from other weights; use the old options"):
        run_augment(replace(options, out=tmp_path / "out"), replace(spotting, own_init=options.bundle))
    started = replace(spotting, own_init=options.bundle, real=(2,), generated=(2,), between=0, espeak=False)
    text = run_augment(replace(options, out=tmp_path / "new", results=None), started).page.read_text()
    assert "from the weights of tiny, which knows other words" in text


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"commands": ("low", "eleven")}, DataError, "the data has no label 'eleven'"),
        ({"bundle": "sc06"}, LabelError, "unknown label 'low'"),
        ({"bundle": "nowhere"}, DuovoxError, "no bundle at nowhere"),
        ({"own_init": "nowhere"}, DuovoxError, "no bundle at nowhere"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    given: dict[str, Any], error: type[Exception], message: str, options: Options, spotting: Spotting, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        shared = {name: given.pop(name) for name in ("bundle",) if name in given}
        run_augment(replace(options, out=tmp_path / "out", **shared), replace(spotting, **given))
    with pytest.raises(DataError, match="holds no sound files"):
        run_augment(replace(options, out=tmp_path / "out", noise=tmp_path), spotting)
    write_audio(tmp_path / "hiss.wav", np.zeros(18000, np.float32) + 0.1, 16000)  # two real clips fit in, not two made ones
    with pytest.raises(DataError, match=r"hiss.wav has 18000 samples, 2 clips of 16000 must fit into it; give longer noise recordings"):
        run_augment(replace(options, out=tmp_path / "out", noise=tmp_path), spotting)
    with pytest.raises(ConfigError, match="--seeds must be at least 1, not 0"):
        run_augment(replace(options, out=tmp_path / "out", seeds=0), spotting)
    assert not (tmp_path / "out").exists()


def test_a_voice_that_says_nothing_cannot_teach(
    options: Options, spotting: Spotting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice_module, "fault_of", lambda *_: "silent")
    with pytest.raises(DataError, match="all_0: no clip was kept; this voice speaks too badly to teach anybody, train it longer"):
        run_augment(replace(options, out=tmp_path / "out"), spotting)


def test_words_with_fewer_clips_are_named(options: Options, page: str) -> None:
    clips = read_dataset(options.out / "generated" / "all_1")
    assert list(shortfalls("all_1", clips, COMMANDS, 1)) == []
    assert list(shortfalls("all_1", clips, (*COMMANDS, "mid"), 2)) == [
        "all_1: 1 of low, 1 of high, 0 of mid instead of 2; the others ran off to noise or silence"
    ]


def test_the_page_names_the_command_without_paths(options: Options, spotting: Spotting) -> None:
    words = command_words(options, replace(spotting, own_init="sc06", espeak=False))
    assert words[:9] == ["duovox", "experiment", "augment", "--data", "FEATURES", "--out", "OUT", "--recipe", "tiny"]
    assert not any("/" in word for word in words)
    for part in ("--noise NOISE", "--real 2 4", "--generated 2 3", "--own-init sc06", "--own-budget 60s", "--no-espeak", "--bundle tiny"):
        assert part in " ".join(words)


def test_from_the_command_line(
    page: str, options: Options, spotting: Spotting, tiny_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.toml").write_text(write_recipe(tiny_recipe))
    words = ["experiment", "augment", "--recipe", str(tmp_path / "tiny.toml"), "--device", "cpu", "--precision", "fp32", "--seeds", "2"]
    words += ["--data", str(options.data), "--out", str(options.out), "--noise", str(options.noise), "--commands", *COMMANDS]
    words += [
        "--real",
        "2",
        "4",
        "--generated",
        "2",
        "3",
        "--between",
        "1",
        "--bundle",
        options.bundle,
        "--own",
        "2",
        "--own-budget",
        "1m",
    ]
    assert main([*words, "--spotter-updates", "4", "--time-budget", "0s", "--workers", "1"]) == 0
    assert capsys.readouterr().out.endswith("augment.md: complete\n")
