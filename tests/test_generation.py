"""Bulk generation: plans and their batches, folders that are filled once, by one run at a time, with clips of one kind."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TONES

from duovox import Duovox
from duovox.bundle import Bundle
from duovox.config import SampleConfig, to_dict
from duovox.contracts import ConfigError, DataError, GenerationError, LabelError, OutputError
from duovox.evaluation.clips import read_clips
from duovox.files import safe_name
from duovox.generation import (
    SETTINGS,
    Request,
    completed,
    cut,
    deciding_facts,
    describe_faults,
    fill_folder,
    generate_each,
    make_plan,
    missing,
    read_faults,
)
from duovox.sound.audio import read_audio

LABELS = tuple(TONES)
QUICK = SampleConfig(steps=1, gamma=0.3)


@pytest.fixture
def voice(tiny_bundle: Bundle) -> Duovox:
    return Duovox(tiny_bundle)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def noted(voice: Duovox, monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[str | None, int]]]:
    """The batches that the voice is asked for from now on."""
    asked: list[list[tuple[str | None, int]]] = []
    generate = voice.generate_batch

    def note(wanted: Sequence[tuple[str | None, int]], *settings: Any) -> Any:
        asked.append(list(wanted))
        return generate(wanted, *settings)

    monkeypatch.setattr(voice, "generate_batch", note)
    return asked


# plans


def test_a_plan_goes_seed_by_seed_and_a_smaller_one_is_its_start() -> None:
    assert make_plan(("a", "b"), 2, 5) == (("a", 5), ("b", 5), ("a", 6), ("b", 6))
    assert make_plan([None], 3) == ((None, 0), (None, 1), (None, 2))
    assert make_plan(LABELS, 7)[:9] == make_plan(LABELS, 3)
    with pytest.raises(ConfigError, match="at least 1, not 0"):
        make_plan(LABELS, 0)


def test_batches_are_cut_at_fixed_places() -> None:
    plan = make_plan(LABELS, 3)
    assert cut(plan, 4) == [plan[:4], plan[4:8], plan[8:]] and cut(plan, 100) == [plan]
    assert cut(make_plan(LABELS, 7), 4)[:2] == cut(plan, 4)[:2], "whatever comes behind"
    with pytest.raises(ConfigError, match="at least 1, not 0"):
        cut(plan, 0)


def test_what_is_missing_is_missing_by_batches(tmp_path: Path) -> None:
    batches = cut(make_plan(("a", None), 3), 2)
    for name in ("a/0.wav", "0.wav", "a/1.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert missing(batches, tmp_path) == batches[1:]
    assert missing(batches, tmp_path / "nowhere") == batches


@pytest.mark.parametrize("label", ["low", "../up", ".hidden", "a/b", "50%"])
def test_a_label_names_one_folder_and_never_leaves_it(label: str, tmp_path: Path) -> None:
    assert (tmp_path / Request(label, 3).file).resolve() == tmp_path.resolve() / safe_name(label) / "3.wav"


# the loop


def test_every_request_gets_its_clip(voice: Duovox) -> None:
    plan = make_plan(LABELS, 2, 4)
    made = list(generate_each(voice, cut(plan, 4), QUICK, "griffin_lim"))
    assert tuple(request for request, _ in made) == plan
    assert [(clip.label, clip.seed, clip.settings, clip.vocoder) for _, clip in made] == [(*r, QUICK, "griffin_lim") for r in plan]


def test_a_batch_is_made_when_it_is_asked_for(voice: Duovox, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, plan = noted(voice, monkeypatch), make_plan(LABELS, 2)
    each = generate_each(voice, cut(plan, 2), QUICK)
    assert asked == []
    for _ in range(3):
        next(each)
    assert asked == [list(plan[:2]), list(plan[2:4])]


# folders


def test_a_folder_holds_the_clips_of_generate(voice: Duovox, tmp_path: Path) -> None:
    assert fill_folder(voice, tmp_path / "clips", make_plan(LABELS, 2), QUICK, batch=4)
    assert contents(tmp_path / "clips").keys() == {f"{label}/{seed}.wav" for label in LABELS for seed in range(2)} | {SETTINGS}
    alone = voice.generate("low", 2, gamma=QUICK.gamma, steps=1)[1].wave
    assert read_audio(tmp_path / "clips" / "low" / "1.wav", 16000) == pytest.approx(np.clip(alone, -1, 1), abs=1e-4)


def test_settings_left_out_are_the_voice_s_own(voice: Duovox, tmp_path: Path) -> None:
    fill_folder(voice, tmp_path / "clips", make_plan(LABELS[:1], 1))
    facts = json.loads((tmp_path / "clips" / SETTINGS).read_text())
    assert facts["sample"] == to_dict(voice.config.recipe.sample) and facts["unconditional"] is False


def test_clips_that_are_there_are_kept_and_missing_ones_made(voice: Duovox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, folder, plan = tmp_path / "whole", tmp_path / "clips", make_plan(LABELS, 3)
    fill_folder(voice, whole, plan, QUICK, batch=2)
    shutil.copytree(whole, folder)
    for name in ("low/1.wav", "mid/0.wav", "mid/2.wav"):
        (folder / name).unlink()
    kept = (folder / "high" / "1.wav").stat().st_mtime_ns
    asked = noted(voice, monkeypatch)
    assert fill_folder(voice, folder, plan, QUICK, batch=2)
    assert asked == [list(plan[2:4]), list(plan[4:6]), list(plan[8:])], "whole batches, those alone"
    assert contents(folder) == contents(whole), "to the bit, as if never interrupted"
    assert (folder / "high" / "1.wav").stat().st_mtime_ns == kept
    assert fill_folder(voice, folder, make_plan(LABELS, 1), QUICK) and len(asked) == 3, "fewer of them need no new ones"


def test_more_clips_of_the_same_settings_come_beside_those_there(voice: Duovox, tmp_path: Path) -> None:
    fill_folder(voice, tmp_path / "grown", make_plan(LABELS, 1), QUICK, batch=3)
    fill_folder(voice, tmp_path / "grown", make_plan(LABELS, 3), QUICK, batch=3)
    fill_folder(voice, tmp_path / "whole", make_plan(LABELS, 3), QUICK, batch=3)
    assert contents(tmp_path / "grown") == contents(tmp_path / "whole")


def test_a_run_that_is_stopped_between_two_batches_goes_on(voice: Duovox, tmp_path: Path) -> None:
    plan, asked = make_plan(LABELS, 2), count()
    assert not fill_folder(voice, tmp_path / "clips", plan, QUICK, batch=2, go_on=lambda: next(asked) < 2)
    assert len(list((tmp_path / "clips").rglob("*.wav"))) == 4
    assert fill_folder(voice, tmp_path / "clips", plan, QUICK, batch=2)
    fill_folder(voice, tmp_path / "whole", plan, QUICK, batch=2)
    assert contents(tmp_path / "clips") == contents(tmp_path / "whole")
    assert fill_folder(voice, tmp_path / "clips", plan, QUICK, batch=2, go_on=lambda: False), "nothing was left to do"


def test_clips_that_ran_off_are_kept_and_marked(voice: Duovox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, generate = make_plan(LABELS, 2), voice.generate_batch
    faults = {("low", 1): "it is silent", ("mid", 0): "50% of its samples are at full scale"}

    def runs_off(wanted: Sequence[tuple[str | None, int]], *settings: Any) -> Any:
        return [replace(clip, fault=faults.get((clip.label, clip.seed), "")) for clip in generate(wanted, *settings)]

    monkeypatch.setattr(voice, "generate_batch", runs_off)
    folder = tmp_path / "clips"
    assert fill_folder(voice, folder, plan, QUICK) and len(list(folder.rglob("*.wav"))) == 6
    assert read_faults(folder, plan) == faults and read_faults(folder, plan[:2]) == {}
    assert describe_faults(faults, 6) == "2 of 6 clips ran off to no speech, the first low, seed 1: it is silent"
    before = contents(folder)
    (folder / "low" / "1.wav").unlink()
    assert fill_folder(voice, folder, plan, QUICK) and contents(folder) == before
    assert read_clips(folder, LABELS).labels == ("high", "high", "low", "low", "mid", "mid"), "as anyone reads them"
    (folder / "mid" / "0.json").write_text("[]")
    with pytest.raises(DataError, match=r"mid/0\.json cannot be read \(it holds no table\)"):
        read_faults(folder, plan)


def test_what_killed_runs_left_is_removed(voice: Duovox, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    (folder / "low").mkdir(parents=True)
    for name in (f".{SETTINGS}.17.partial", "low/.0.wav.17.partial"):
        (folder / name).write_bytes(b"half")
    (folder / "low" / ".0.wav.17.partial").rename(folder / ".0.wav.17.partial")
    (folder / "low").rmdir()
    fill_folder(voice, folder, make_plan(["low"], 1), QUICK)
    (folder / "low" / ".1.wav.18.partial").write_bytes(b"half")
    fill_folder(voice, folder, make_plan(["low"], 1), QUICK)
    assert contents(folder).keys() == {SETTINGS, "low/0.wav"}


def test_clips_of_other_settings_or_another_model_are_never_mixed(voice: Duovox, tmp_path: Path) -> None:
    folder, plan = tmp_path / "clips", make_plan(LABELS, 1)
    fill_folder(voice, folder, plan, QUICK)
    before = contents(folder)
    for settings, message in [
        (SampleConfig(steps=2, gamma=0.3), r"sample\.steps = 1, now it is 2"),
        (SampleConfig(steps=1, gamma=2.0), r"sample\.gamma = 0\.3, now it is 2\.0"),
        (SampleConfig(steps=1, gamma=0.3, schedule="early"), r"sample\.schedule = 'constant', now it is 'early'"),
    ]:
        with pytest.raises(OutputError, match=f"{message}; choose a new folder"):
            fill_folder(voice, folder, plan, settings)
    with pytest.raises(OutputError, match="unconditional = False, now it is True"):
        fill_folder(voice, folder, make_plan([None], 1), QUICK)
    with pytest.raises(OutputError, match="vocoder = None, now it is 'griffin_lim'"):
        fill_folder(voice, folder, plan, QUICK, "griffin_lim")
    mute = Duovox(Bundle(voice.config, voice.bundle.model, None))
    with pytest.raises(OutputError, match="made with model = "):
        fill_folder(mute, folder, plan, QUICK)
    assert contents(folder) == before
    assert fill_folder(voice, folder, plan, replace(QUICK, preset="quality")), "where equal settings began decides no clip"
    assert fill_folder(voice, folder, plan, QUICK, "neural"), "which is what it is anyway"
    for damaged in ("{", "[]", "3"):
        (folder / SETTINGS).write_text(damaged)
        with pytest.raises(DataError, match=r"settings\.json cannot be read"):
            fill_folder(voice, folder, plan, QUICK)


def test_folders_made_by_the_first_version_go_on() -> None:
    """What it wrote of clips of the shipped bundle; the names that code gives to parts of a model do not matter."""
    voice = Duovox.from_pretrained("sc06")
    assert deciding_facts(voice, SampleConfig()) == completed(
        {
            "format": "duovox-clips-1",
            "model": "7d7bb046581090933482dd57a823990c369193c51cd19c90ae37344be5e7c8e2",
            "unconditional": False,
            "sample": {
                "preset": "own",
                "sampler": "heun",
                "steps": 14,
                "gamma": 3.0,
                "guidance_low": 0.0,
                "guidance_high": "inf",
                "schedule": "constant",
                "guide_at": "noised",
            },
        }
    )


@pytest.mark.parametrize("name", [field.name for field in fields(SampleConfig)])
def test_a_folder_from_before_a_setting_existed_goes_on_with_its_default(name: str, voice: Duovox) -> None:
    facts = deciding_facts(voice, SampleConfig())
    without = facts | {"sample": {key: value for key, value in facts["sample"].items() if key != name}}
    assert without != facts and completed(without) == facts


def test_clips_of_another_arithmetic_are_never_mixed(voice: Duovox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders that were made before there was a choice say nothing of it: float32."""
    plan = make_plan(LABELS, 1)
    fill_folder(voice, tmp_path / "float32", plan, QUICK)
    assert "arithmetic" not in json.loads((tmp_path / "float32" / SETTINGS).read_text())
    monkeypatch.setattr(voice.bundle.model, "autocast", torch.bfloat16)
    with pytest.raises(OutputError, match=r"made with arithmetic = None, now it is 'torch\.bfloat16'; choose a new folder"):
        fill_folder(voice, tmp_path / "float32", plan, QUICK)
    fill_folder(voice, tmp_path / "bf16", plan, QUICK)
    assert json.loads((tmp_path / "bf16" / SETTINGS).read_text())["arithmetic"] == "torch.bfloat16"
    one, other = (read_audio(tmp_path / name / "low" / "0.wav", 16000) for name in ("float32", "bf16"))
    assert 0 < np.abs(one - other).max() < 0.2
    monkeypatch.setattr(voice.bundle.model, "autocast", None)
    with pytest.raises(OutputError, match=r"made with arithmetic = 'torch\.bfloat16', now it is None"):
        fill_folder(voice, tmp_path / "bf16", plan, QUICK)


def test_a_folder_of_other_things_or_of_another_run_is_left_alone(voice: Duovox, tmp_path: Path) -> None:
    plan = make_plan(LABELS, 1)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".mine.1.partial").write_text("mine")
    with pytest.raises(OutputError, match="holds other things than clips made by this command"):
        fill_folder(voice, tmp_path, plan, QUICK)
    with pytest.raises(OutputError, match="cannot write clips to"):
        fill_folder(voice, tmp_path / "notes.txt" / "clips", plan, QUICK)
    (tmp_path / "clips").mkdir()
    handle = os.open(tmp_path / "clips", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another run is writing clips to"):
            fill_folder(voice, tmp_path / "clips", plan, QUICK)
    finally:
        os.close(handle)
    assert contents(tmp_path) == {"notes.txt": b"mine", ".mine.1.partial": b"mine"}


@pytest.mark.parametrize(
    ("plan", "error", "message"),
    [
        ((), GenerationError, "the plan has no clips"),
        ((Request("low", 0), Request(None, 1)), GenerationError, "cannot mix clips with a label and clips without one"),
        ((Request("low", 0), Request("eleven", 1)), LabelError, "eleven"),
        ((Request("low", -1),), GenerationError, "seed"),
    ],
    ids=["nothing", "mixed", "unknown word", "negative seed"],
)
def test_plans_that_cannot_be_are_refused_before_anything_is_made(
    plan: tuple[Request, ...], error: type[Exception], message: str, voice: Duovox, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        fill_folder(voice, tmp_path / "clips", plan, QUICK)
    assert not (tmp_path / "clips").exists()
