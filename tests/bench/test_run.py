"""bench/run.py, tasks.py and page.py: every row is there with its work counted, in JSON and back, as a table and as a page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from duovox import Duovox
from duovox.bench.options import Options
from duovox.bench.page import markdown, table
from duovox.bench.rows import FORMAT, Bench, Setup, read_bench
from duovox.bench.run import System, measure
from duovox.bench.tasks import Costs, generation_gmacs, noise_levels
from duovox.bundle import Bundle
from duovox.config import NoiseConfig, SampleConfig
from duovox.contracts import BundleError, ConfigError, DataError
from duovox.costs import count_costs, student_gmacs

COSTS = Costs(classify=1.0, plain=3.0, tapped=3.0, guided=4.0, vocoder=0.5)


@pytest.fixture(scope="module")
def voice(tiny_bundle: Bundle) -> Duovox:
    return Duovox(tiny_bundle)


@pytest.fixture(scope="module")
def found(voice: Duovox) -> Bench:
    """Two presets in two batches, without quality and fresh processes."""
    threads = torch.get_num_threads()
    made = measure([System("tiny", voice)], Options(("balanced", "quality"), batch=(1, 2), repeats=2, n=0, cold=False), "duovox bench")
    assert torch.get_num_threads() == threads
    return made


def test_every_task_in_every_setup_is_a_row(found: Bench) -> None:
    tasks = ["classify", "evaluation plain", "evaluation tapped", "evaluation guided", "vocoder", "generate balanced", "generate quality"]
    assert [row.name for row in found.rows] == [f"{task} {setup}" for setup in ("t1 b1 fp32", "t1 b2 fp32") for task in tasks]
    assert all(0 < row.fastest <= row.seconds for row in found.rows)
    assert found.baseline == "generate quality t1 b2 fp32" and found.rows[-1].times_faster == 1.0
    assert {row.kind for row in found.rows if row.times_faster is not None} == {"generate"}


def test_work_is_counted(found: Bench, voice: Duovox) -> None:
    rows, costs = {row.name.removesuffix(" t1 b1 fp32"): row for row in found.rows}, count_costs(voice.bundle.model)
    assert rows["classify"].gmacs == costs.classifier_gmacs and rows["evaluation guided"].gmacs == costs.guided_gmacs
    assert (rows["generate balanced"].evaluations, rows["generate quality"].evaluations) == (12, 50)
    vocoder = rows["vocoder"].gmacs
    assert rows["generate quality"].gmacs == pytest.approx(50 * costs.guided_gmacs + vocoder) and vocoder > 0


@pytest.mark.parametrize(
    ("settings", "evaluations"),
    [(SampleConfig("own", "heun", 5), 9), (SampleConfig("own", "dpmpp_2m", 5), 5), (SampleConfig("own", "euler_maruyama", 5), 5)],
)
def test_evaluations_are_counted_where_they_are_guided(settings: SampleConfig, evaluations: int) -> None:
    noise = NoiseConfig()
    levels = noise_levels(settings, noise)
    assert len(levels) == evaluations
    assert generation_gmacs(settings, noise, COSTS) == pytest.approx(4 * evaluations + 0.5)
    assert generation_gmacs(replace(settings, gamma=0.0), noise, COSTS) == pytest.approx(3 * evaluations + 0.5)
    low = sorted(levels)[len(levels) // 2]
    guided = sum(level >= low for level in levels)
    assert generation_gmacs(replace(settings, guidance_low=low), noise, COSTS) == pytest.approx(3 * evaluations + guided + 0.5)


def test_json_is_read_back_whole(found: Bench, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text(found.to_json())
    again = read_bench(path)
    assert again == found and again.rows[0].setup == Setup(1, 1, "fp32")
    assert json.loads(path.read_text())["format"] == FORMAT
    assert {"processor", "cores", "instructions", "amx"} <= again.machine.keys() and "torch" in again.versions


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "has the format None, this duovox reads duovox-bench-1"),
        ('{"format": "duovox-bench-9"}', "has the format 'duovox-bench-9'"),
        ('{"format": "duovox-bench-1"}', "is no whole benchmark"),
        ('{"format": "duovox-bench-1", "rows": [{"name": "x"}], "cold": []}', "is no whole benchmark"),
    ],
)
def test_what_is_no_benchmark_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bench.json"
    path.write_text(text)
    with pytest.raises(DataError, match=said) as error:
        read_bench(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_table_and_page_hold_every_row_and_say_what_is_missing(found: Bench) -> None:
    standing = {"n": 6, "accuracy": 0.5, "accuracy_interval": (0.2, 0.8), "understood": None, "understood_interval": None, "fid": None}
    standing |= {"fid_deviation": None, "nearest_own": 0.25, "missing": {"fid": "it needs real recordings: give --data FEATURES"}}
    judged = replace(found, rows=(*found.rows[:-1], replace(found.rows[-1], standing=standing)))
    for text in (table(judged), markdown(judged)):
        assert all(row.name in text for row in judged.rows)
        assert "0.500 (0.200 - 0.800)" in text and "0.25" in text
        assert "No fid: it needs real recordings: give --data FEATURES." in text
        assert "quality was not measured: --n 0" in text and "Machine: processor" in text
    lines = [line for line in markdown(judged).splitlines() if line.startswith("| ")]
    assert {line.count(" | ") for line in lines} == {9, 5}, "cells as many as columns"


def test_what_cannot_be_measured_is_refused_before_anything_is_timed(voice: Duovox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duovox.bench.run.interleaved", lambda *_: pytest.fail("nothing may be timed"))
    quick = Options(("balanced",), batch=(1,), n=0, cold=False)
    with pytest.raises(ConfigError, match="--baseline 'mine' is no row of this benchmark; its rows are classify t1 b1 fp32, "):
        measure([System("tiny", voice)], replace(quick, baseline="mine"))
    with pytest.raises(BundleError, match="preset turbo needs a distilled student"):
        measure([System("tiny", voice)], replace(quick, presets=("turbo",)))


def test_a_preset_that_one_system_lacks_is_left_out_of_it_and_said(small_voice: Duovox) -> None:
    bare = Duovox(replace(small_voice.bundle, student=None))
    options = Options(("balanced", "turbo"), batch=(1,), n=0, cold=False, repeats=1)
    measured = measure([System("taught", small_voice), System("bare", bare)], options)
    names = [row.name for row in measured.rows if "generate" in row.name]
    assert names == ["taught generate balanced t1 b1 fp32", "taught generate turbo t1 b1 fp32", "bare generate balanced t1 b1 fp32"]
    assert measured.notes[0] == "bare has no turbo"
    student = small_voice.bundle.student
    assert student is not None
    rows = {row.name: row for row in measured.rows}
    turbo, vocoder = rows["taught generate turbo t1 b1 fp32"], rows["taught vocoder t1 b1 fp32"]
    assert turbo.evaluations == 4 and turbo.gmacs == pytest.approx(4 * student_gmacs(student) + vocoder.gmacs)


def test_bf16_is_the_students_too(small_voice: Duovox) -> None:
    student = small_voice.bundle.student
    assert student is not None
    seen: list[object] = []
    handle = student.register_forward_pre_hook(lambda *_: seen.append(student.model.autocast))
    try:
        measure([System("taught", small_voice)], Options(("turbo",), batch=(1,), n=0, cold=False, repeats=1, precision=("fp32", "bf16")))
    finally:
        handle.remove()
        small_voice.to("cpu")
    assert set(seen) == {None, torch.bfloat16}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"threads": (0,)}, "--threads must be at least 1, not 0"),
        ({"batch": ()}, "--batch must be at least 1, not nothing"),
        ({"repeats": 0}, "--repeats must be at least 1, not 0"),
        ({"n": -1}, "--n must not be negative, not -1"),
        ({"precision": ("fp8",)}, "--precision 'fp8' is none of fp32, bf16"),
        ({"precision": ()}, "--precision needs at least one value, fp32 or bf16"),
        ({"presets": ("fast",)}, "--presets 'fast' is none of own, quality, balanced, turbo, paper"),
    ],
)
def test_impossible_options(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{said}$"):
        Options(**wrong)  # type: ignore[arg-type]


def test_two_systems_stand_in_one_table(voice: Duovox) -> None:
    made = measure([System("one", voice), System("two", voice)], Options(("balanced",), batch=(1,), repeats=1, n=0, cold=False))
    assert [row.name for row in made.rows if row.kind == "generate"] == [
        "one generate balanced t1 b1 fp32",
        "two generate balanced t1 b1 fp32",
    ]
    assert np.isfinite([row.times_faster or 1.0 for row in made.rows]).all() and set(made.systems) == {"one", "two"}
