"""What can be scored by name, and the clips that are made for it: once, of one kind, by one run at a time."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TONES

from duovox import Duovox
from duovox.bundle import Bundle
from duovox.cli import main
from duovox.config import Recipe, write_recipe
from duovox.contracts import BundleError, ConfigError, DataError, LabelError, OutputError
from duovox.evaluation import systems
from duovox.evaluation.judge import Judge, build_network
from duovox.evaluation.report import Scoring
from duovox.evaluation.systems import SETTINGS, Generation, evaluate_model, make_clips, open_system
from duovox.sound.audio import write_audio

LABELS = tuple(TONES)


@pytest.fixture(scope="module")
def judge_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("judges") / "judge.safetensors"
    Judge("compact", LABELS, build_network("compact", 3).state_dict()).save(path)
    return path


@pytest.fixture
def voice(tiny_bundle: Bundle) -> Duovox:
    return Duovox(tiny_bundle)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# what a name means


def test_bundles_and_folders_of_clips_are_told_apart(bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_system(str(bundle_folder))
    assert isinstance(opened, Duovox) and opened.labels == LABELS
    assert open_system(str(tmp_path)) == tmp_path
    (tmp_path / "sc06").mkdir()
    monkeypatch.chdir(tmp_path)
    assert open_system("./sc06") == Path("sc06")
    assert isinstance(open_system("sc06"), Duovox), "a name in the package comes first"


def test_a_folder_of_runs_is_assembled(tiny_runs: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(write_recipe(tiny_recipe))
    opened = open_system(str(tiny_runs), str(tmp_path / "tiny.toml"))
    assert isinstance(opened, Duovox) and opened.labels == LABELS and opened.config.recipe == tiny_recipe
    with pytest.raises(BundleError, match="name the recipe it was trained with"):
        open_system(str(tiny_runs))


def test_what_is_nothing_of_all_this_is_refused(bundle_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no bundle at nowhere;.*nor is it a folder of clips or of runs"):
        open_system("nowhere")
    for place in (bundle_folder, tmp_path):
        with pytest.raises(ConfigError, match="--recipe is for a folder of runs"):
            open_system(str(place), "compact")


def test_foreign_code_is_run_only_where_it_is_trusted(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(Duovox, "from_pretrained", lambda source, trust_code: asked.append(trust_code))
    open_system(str(bundle_folder))
    open_system(str(bundle_folder), trust_code=True)
    assert asked == [False, True]


# clips


def test_clips_are_those_of_generate(voice: Duovox, tmp_path: Path) -> None:
    found = make_clips(voice, tmp_path / "clips", Generation(n=2, gamma=0.5, steps=2, batch=2))
    assert found.labels == ("high", "high", "low", "low", "mid", "mid") and found.waves.shape == (6, 16000)
    assert found.notes[0] == "the clips are seeds 0 to 1 of each label, gamma 0.5, heun with 2 steps, neural vocoder"
    wave = voice.generate("low", 2, gamma=0.5, steps=2)[1].wave
    assert found.waves[3, : len(wave)] == pytest.approx(np.clip(wave, -1, 1), abs=1e-4)
    names = {f"{label}/{seed}.wav" for label in LABELS for seed in range(2)}
    assert contents(tmp_path / "clips").keys() == names | {SETTINGS}


def test_clips_that_are_there_are_kept_and_missing_ones_made(voice: Duovox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, folder, wanted = tmp_path / "whole", tmp_path / "clips", Generation(n=3, steps=1, batch=2)
    make_clips(voice, whole, wanted)
    shutil.copytree(whole, folder)
    for name in ("low/1.wav", "mid/0.wav", "mid/2.wav"):
        (folder / name).unlink()
    made: list[tuple[str, int, int]] = []
    generate = voice.generate

    def noted(label: str, n: int, **settings: Any) -> Any:
        made.append((label, settings["seed"], n))
        return generate(label, n, **settings)

    monkeypatch.setattr(voice, "generate", noted)
    make_clips(voice, folder, wanted)
    assert made == [("low", 0, 2), ("mid", 0, 2), ("mid", 2, 1)]
    assert contents(folder) == contents(whole), "to the bit, as if never interrupted"
    assert make_clips(voice, folder, Generation(n=1, steps=1)).labels == LABELS, "fewer of them need no new ones"
    assert len(made) == 3


def test_seeds_may_start_anywhere(voice: Duovox, tmp_path: Path) -> None:
    made = make_clips(voice, tmp_path / "clips", Generation(n=2, steps=1, first=5))
    assert contents(tmp_path / "clips").keys() == {f"{label}/{seed}.wav" for label in LABELS for seed in (5, 6)} | {SETTINGS}
    assert made.notes[0].startswith("the clips are seeds 5 to 6 of each label")
    again = make_clips(voice, tmp_path / "other", Generation(n=7, steps=1, batch=7))
    assert np.abs(made.waves[0] - again.waves[5]).max() < 1e-3


def test_unconditional_clips_are_as_many_in_all(voice: Duovox, tmp_path: Path) -> None:
    found = make_clips(voice, tmp_path / "clips", Generation(n=1, steps=1, unconditional=True))
    assert found.labels == (None, None, None)
    assert contents(tmp_path / "clips").keys() == {"0.wav", "1.wav", "2.wav", SETTINGS}
    assert found.notes[0].startswith("the clips are seeds 0 to 2 unconditional, heun")


def test_clips_of_other_settings_or_another_model_are_never_mixed(voice: Duovox, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    make_clips(voice, folder, Generation(n=1, steps=1))
    before = contents(folder)
    for other, message in [
        (Generation(n=1, steps=2), r"sample\.steps = 1, now it is 2"),
        (Generation(n=1, steps=1, gamma=2.0), r"sample\.gamma = 0\.3, now it is 2\.0"),
        (Generation(n=1, steps=1, unconditional=True), "unconditional = False, now it is True"),
    ]:
        with pytest.raises(OutputError, match=f"{message}; choose a new folder"):
            make_clips(voice, folder, other)
    mute = Duovox(Bundle(voice.config, voice.bundle.model, None))
    with pytest.raises(OutputError, match="made with model = "):
        make_clips(mute, folder, Generation(n=1, steps=1))
    assert contents(folder) == before
    (folder / SETTINGS).write_text("{")
    with pytest.raises(DataError, match=r"settings\.json cannot be read"):
        make_clips(voice, folder, Generation(n=1, steps=1))


def test_clips_of_another_arithmetic_are_never_mixed(voice: Duovox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders that were made before there was a choice say nothing of it: float32."""
    wanted = Generation(n=1, steps=1)
    made = make_clips(voice, tmp_path / "float32", wanted)
    assert "arithmetic" not in json.loads((tmp_path / "float32" / SETTINGS).read_text())
    monkeypatch.setattr(voice.bundle.model, "autocast", torch.bfloat16)
    with pytest.raises(OutputError, match=r"made with arithmetic = None, now it is 'torch\.bfloat16'; choose a new folder"):
        make_clips(voice, tmp_path / "float32", wanted)
    rounded = make_clips(voice, tmp_path / "bf16", wanted)
    assert json.loads((tmp_path / "bf16" / SETTINGS).read_text())["arithmetic"] == "torch.bfloat16"
    assert 0 < np.abs(rounded.waves - made.waves).max() < 0.2
    monkeypatch.setattr(voice.bundle.model, "autocast", None)
    with pytest.raises(OutputError, match=r"made with arithmetic = 'torch\.bfloat16', now it is None"):
        make_clips(voice, tmp_path / "bf16", wanted)


def test_a_folder_of_other_things_or_of_another_run_is_left_alone(voice: Duovox, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds other things than clips made by this command"):
        make_clips(voice, tmp_path, Generation(n=1))
    with pytest.raises(OutputError, match="cannot write clips to"):
        make_clips(voice, tmp_path / "notes.txt" / "clips", Generation(n=1))
    (tmp_path / "clips").mkdir()
    handle = os.open(tmp_path / "clips", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another run is writing clips to"):
            make_clips(voice, tmp_path / "clips", Generation(n=1))
    finally:
        os.close(handle)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1, not 0"):
        Generation(n=0)
    with pytest.raises(ConfigError, match="unconditional clips have none"):
        Generation(gamma=1.0, unconditional=True)


# scores


def test_a_model_is_scored_beside_real_clips(voice: Duovox, judge_file: Path, tiny_features: Path, tmp_path: Path) -> None:
    wanted, judge, scoring = Generation(n=1, steps=1), judge_file, Scoring(fid=False, resamples=2)
    kept = evaluate_model(voice, judge, tiny_features, wanted, tmp_path / "clips", scoring, "tiny")
    assert [(row.system, row.n) for row in kept.rows] == [("tiny", 3), ("real train", 3), ("real test", 3)]
    assert kept.rows[0].accuracy is not None and "heun with 1 steps" in kept.to_markdown()
    passing = evaluate_model(voice, judge, tiny_features, wanted, None, scoring, "tiny")
    assert passing.rows == kept.rows, "a temporary folder gives the same"


def test_everything_is_refused_before_the_first_clip(
    voice: Duovox, judge_file: Path, tiny_features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systems, "make_clips", lambda *_: pytest.fail("made clips"))
    with pytest.raises(DataError, match="FID with this judge needs at least 129 clips, got 6"):
        evaluate_model(voice, judge_file, tiny_features, Generation(n=2))
    with pytest.raises(DataError, match="at least 2 clips are needed, got 1"):
        evaluate_model(voice, judge_file, tiny_features, Generation(n=2), scoring=Scoring(limit=1, fid=False))
    with pytest.raises(DataError, match=r"nowhere"):
        evaluate_model(voice, judge_file, tmp_path / "nowhere", scoring=Scoring(fid=False))
    other = tmp_path / "other.safetensors"
    Judge("compact", (*LABELS[:2], "seven"), build_network("compact", 3).state_dict()).save(other)
    with pytest.raises(LabelError, match="not trained on mid"):
        evaluate_model(voice, other, tiny_features, scoring=Scoring(fid=False))


def test_a_judge_does_not_judge_itself(judge_file: Path, tiny_features: Path) -> None:
    guide = SimpleNamespace(bundle=SimpleNamespace(model=SimpleNamespace(classifier=Judge.load(judge_file).network)))
    with pytest.raises(ConfigError, match="this judge is the classifier that guides"):
        evaluate_model(guide, judge_file, tiny_features, scoring=Scoring(fid=False))  # type: ignore[arg-type]


# the command


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(word) for word in words])
    return code, *capsys.readouterr()


def test_the_command_scores_bundles_and_their_clips(
    bundle_folder: Path, judge_file: Path, tiny_features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("--data", tiny_features, "--judge", judge_file, "--no-fid", "--resamples", "2")
    clips, out = tmp_path / "clips", tmp_path / "report"
    code, page, _ = run(capsys, "evaluate", bundle_folder, *common, "--n", "1", "--steps", "1", "--clips", clips, "--out", out)
    assert code == 0 and page.startswith("| clips | n |") and "| tiny | 3 |" in page
    found = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert [row["system"] for row in found] == ["tiny", "real train", "real test"]
    code, page, _ = run(capsys, "evaluate", clips, *common)
    assert code == 0 and "| clips | 3 |" in page
    other = (tmp_path / "report.md").read_text()
    assert cells(page, "clips") == cells(other, "tiny") and cells(page, "real test") == cells(other, "real test")


def cells(page: str, row: str) -> list[str]:
    """The figures of a row of the main table."""
    return next(line for line in page.splitlines() if line.startswith(f"| {row} | 3")).split("|")[2:]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{clips}", "--gamma", "3", "--n", "5"], "is a folder of clips; --n, --gamma would be for a model"),
        (["{clips}", "--unconditional"], "is a folder of clips; --unconditional would be"),
        (["{clips}", "--recipe", "compact"], "--recipe is for a folder of runs"),
        (["{clips}", "--quality", "pesq"], "no quality measure 'pesq'"),
        (["{clips}", "--quality", "dnsmos"], "pip install 'duovox[quality]'"),
        (["nowhere"], "nor is it a folder of clips or of runs"),
        (["{clips}", "--data", "nowhere"], "nowhere"),
        (["{bundle}", "--data", "nowhere"], "nowhere"),
        (["{bundle}", "--n", "0"], "at least 1, not 0"),
        (["{bundle}", "--gamma", "-1"], "gamma"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_line(
    words: list[str],
    message: str,
    bundle_folder: Path,
    judge_file: Path,
    tiny_features: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "speechmos", None)
    monkeypatch.chdir(tmp_path)
    write_audio(tmp_path / "clips" / "low" / "a.wav", np.ones(100, np.float32), 16000, parents=True)
    places = {"clips": str(tmp_path / "clips"), "bundle": str(bundle_folder)}
    data = [] if "--data" in words else ["--data", tiny_features]
    code, _, err = run(capsys, "evaluate", *[word.format(**places) for word in words], *data, "--judge", judge_file, "--no-fid")
    assert code == 1 and err.startswith("duovox: ") and err.count("\n") == 1 and message in err
