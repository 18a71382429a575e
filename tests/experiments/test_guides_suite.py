"""guides_suite.py: the experiment `guides` from a voice, two guides and recordings to a page, gone on with, refused in one line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TONES, tone
from torch import Tensor, nn

from duovox import voice as voice_module
from duovox.cli import main
from duovox.config import MelInput
from duovox.contracts import ConfigError, DuovoxError, GuideError
from duovox.data import open_features
from duovox.evaluation.judge import Judge, build_network
from duovox.evaluation.verifier import VerifierConfig, train_verifier
from duovox.experiments import guides_plan, guides_suite
from duovox.experiments.guides_page import write_guides_page
from duovox.experiments.guides_plan import PLAIN, Dose, Steered
from duovox.experiments.guides_suite import open_guides_bench, run_guides
from duovox.experiments.instruments import PitchMeter, semitones
from duovox.experiments.options import Options
from duovox.experiments.runner import Clock
from duovox.experiments.suite import Finished, run_experiment
from duovox.repurposing import make_embedding_guide, make_guide, make_own_guide
from duovox.sound.audio import read_audio

TAKES = MelInput(n_mels=16, frames=16)


class Thirds(nn.Module):
    """log-mel (B, 1, 16, 16) -> three values: how much of it lies in each third of the bands."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, x: Tensor) -> Tensor:
        bands = x[:, 0].mean(dim=2)
        return self.gain * torch.stack([bands[:, :5].mean(1), bands[:, 5:11].mean(1), bands[:, 11:].mean(1)], dim=1)


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Two pitches, a curve of one gamma, and no clip has a fault."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guides_suite, "PITCHES", (120, 240))
        patch.setattr(guides_plan, "SHARES", (1.0,))
        patch.setattr(voice_module, "fault_of", lambda *_: "")
        yield


@pytest.fixture(scope="module")
def options(tiny_features: Path, bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Options:
    place = tmp_path_factory.mktemp("guides")
    torch.manual_seed(1)
    Judge("compact", tuple(TONES), build_network("compact", len(TONES)).state_dict()).save(place / "judge.safetensors")
    train_verifier(open_features(tiny_features), VerifierConfig(updates=2, batch=4)).save(place / "verifier.safetensors")
    make_guide(Thirds(0.7), ["100Hz", "200Hz", "400Hz"], TAKES, name="tones").write(place / "tones")
    waves = [tone(label, number) for number, label in enumerate(TONES)]
    make_embedding_guide(Thirds(0.9), {"ann": waves[:1]}, waves[1:], TAKES, name="like").write(place / "like")
    make_own_guide(bundle_folder).write(place / "words")
    return Options(
        tiny_features,
        place / "out",
        bundle=str(bundle_folder),
        pitch=str(place / "tones"),
        speaker=str(place / "like"),
        judge=place / "judge.safetensors",
        verifier=place / "verifier.safetensors",
        n=2,
        sentences=2,
        trust_code=True,
        device="cpu",
        batch=4,
    )


@pytest.fixture(scope="module")
def finished(options: Options) -> Finished:
    return run_guides(options)


def story(finished: Finished) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(finished.page.with_suffix(".json").read_text())
    return found


def test_from_guides_to_a_page(options: Options, finished: Finished) -> None:
    assert finished.left == ()
    page, found = finished.page.read_text(), story(finished)
    assert "Not finished" not in page and len(found["conditions"]) == 5 + 3 + 3
    assert [claim["text"].split(":")[0].split(" ")[0] for claim in found["claims"]] == ["Pitch", "Speaker", "Word,", "Sentences"]
    for name, n in (("word_alone", 4), ("pitch_10_through", 4), ("speaker_10_through", 2), ("pitch_10_through_speaker_10_through", 2)):
        assert {len(column) for column in found["conditions"][name]["clips"].values()} == {n}, name
    assert len(found["sentences"]) == 2 and "| without the guide | 2 |" in page
    assert {"pitch: gamma 10, straight, no cap", "speaker: gamma 10, straight"} <= {
        row.split("|")[1].strip() for row in page.splitlines() if "|" in row
    }
    assert (finished.page.parent / "guides.svg").is_file()
    assert "--pitch tones --speaker like" in page and str(options.out.parent) not in page


def test_straight_costs_less_than_through_and_both_most(finished: Finished) -> None:
    gmacs = {cost["guides"]: cost["gmacs"] for cost in story(finished)["costs"]}
    assert gmacs["the label alone"] == gmacs["pitch, straight"], "this guide itself multiplies no matrices"
    assert gmacs["pitch, straight"] < gmacs["pitch, through"] < gmacs["pitch, through, and speaker, through"]


def test_clips_are_the_librarys_and_their_figures_those_of_the_instruments(options: Options, finished: Finished) -> None:
    bench = open_guides_bench(options)
    condition = Steered(pitch=Dose(10.0))
    rows = bench.rows(condition)
    assert rows is not None and [(row.target, row.label, row.seed) for row in rows] == [
        (0, "high", 0),
        (0, "low", 1),
        (1, "mid", 2),
        (1, "high", 3),
    ]
    wave = read_audio(bench.folder(condition) / "1" / "mid" / "2.wav", 16000)
    wanted = bench.voice.guide("tones", guides_plan.pitch_target(240, bench.pitch.labels), gamma=10)  # type: ignore[union-attr]
    expected = bench.voice.generate_batch([("mid", 2), ("high", 3)], guides=[wanted])[0].wave
    np.testing.assert_allclose(wave, expected.clip(-1, 1), atol=1e-3)
    assert rows[2].hertz == bench.meter(wave, 16000)
    plain = bench.rows(PLAIN)
    assert plain is not None and [row.rank is None for row in plain] == [False, False, True, True], "one speaker is wanted"


def test_both_guides_may_want_the_pitch_of_the_recording(options: Options, finished: Finished) -> None:
    bench = open_guides_bench(options)
    condition = Steered(Dose(10.0), Dose(10.0), recorded_pitch=True)
    planned = bench.plan.pitch(0)
    assert bench.wanted_pitch(Steered(Dose(10.0), Dose(10.0)), 0) == planned
    recorded = bench.wanted_pitch(condition, 0)
    assert recorded == (bench.meter(bench.panel.references[0], 16000) or planned)
    hears = {found: replace(bench, meter=PitchMeter("fixed", lambda *_, found=found: np.array(found))) for found in ((), (150.0,))}
    assert [one.wanted_pitch(condition, 0) for one in hears.values()] == [planned, 150.0], "that of the plan where nothing is voiced"
    assert hears[150.0,].guides(condition, 0)[0].record.target == guides_plan.pitch_target(150, bench.pitch.labels)  # type: ignore[union-attr]
    rows = bench.rows(condition)
    assert rows and all(row.semitones == pytest.approx(semitones(row.hertz, recorded)) for row in rows if row.hertz is not None)


def test_a_guide_that_fails_is_a_finding_and_the_others_go_on(options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = replace(open_guides_bench(options), out=tmp_path)
    strong = next(one for one in bench.plan.conditions if one.pitch and not one.pitch.capped)
    make = type(bench)._make

    def fails(self: Any, condition: Steered, *rest: Any) -> bool:
        if condition == strong:
            raise GuideError("the guide tones answers NaN")
        return make(self, condition, *rest)

    monkeypatch.setattr(type(bench), "_make", fails)
    bench.run(Clock(math.inf))
    assert bench.left() == [] and bench.rows(strong) is None
    page = write_guides_page(bench, ["duovox"], tmp_path / "results")
    assert f"Note: {strong}: the guide tones answers NaN." in page.read_text()
    assert json.loads(page.with_suffix(".json").read_text())["conditions"][strong.name] == {"failed": "the guide tones answers NaN"}


def test_what_is_done_is_not_done_again(options: Options, finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice_module.Duovox, "generate_batch", lambda *_: pytest.fail("made clips"))
    assert run_guides(options).left == ()


def test_figures_of_other_numbers_do_not_count_and_time_may_be_out(options: Options, finished: Finished, tmp_path: Path) -> None:
    stopped = run_guides(replace(options, n=1, time_budget=0.0, results=tmp_path))
    assert len(stopped.left) == 5 + 3 + 3
    assert "**Not finished.** Left to do: condition word_alone;" in stopped.page.read_text()


def test_only_one_condition_and_one_guide(options: Options, tmp_path: Path) -> None:
    alone = replace(options, out=tmp_path / "out", speaker=None, only="word_alone", sentences=0)
    finished = run_guides(alone)
    assert list(story(finished)["conditions"]) == ["word_alone"]
    assert "## Sentences" not in finished.page.read_text() and all("pitch" in one for one in finished.left)


def test_a_verifier_is_trained_where_none_is_given(options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guides_suite, "train_verifier", lambda features: train_verifier(features, VerifierConfig(updates=1, batch=4)))
    own = replace(options, out=tmp_path / "out", verifier=None, only="word_alone", n=1)
    run_guides(own)
    assert (tmp_path / "out" / "verifier.safetensors").is_file()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pitch": None, "speaker": None}, "needs a guide: --pitch, --speaker, or both"),
        ({"pitch": "{place}/words"}, "the pitch guide has no label that is a frequency, as 196Hz; it knows high, low, mid"),
        ({"speaker": "{place}/words"}, "the guide words embeds no sounds"),
        ({"speaker": "{place}/absent"}, "is no guide"),
        ({"trust_code": False}, "trust"),
        ({"n": 0}, "n must be at least 1"),
        ({"sentences": -1}, "sentences at least 0"),
        ({"only": "loud"}, "guides has no condition 'loud'"),
        ({"updates": 3, "steps": 2}, "--updates, --steps: options of experiments that train score models"),
    ],
    ids=str,
)
def test_mistakes_are_one_line_and_nothing_is_made(
    options: Options, changes: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice_module.Duovox, "generate_batch", lambda *_: pytest.fail("made clips"))
    place = options.out.parent
    filled = {name: value.format(place=place) if isinstance(value, str) else value for name, value in changes.items()}
    with pytest.raises(DuovoxError) as caught:
        run_guides(replace(options, out=tmp_path / "out", **filled))
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("bundle", "sc06"), ("pitch", "pitch"), ("speaker", "speaker"), ("verifier", Path("v")), ("sentences", 3), ("trust_code", True)],
)
def test_other_experiments_refuse_its_options(options: Options, name: str, value: Any) -> None:
    given = replace(Options(options.data, options.out), **{name: value})
    with pytest.raises(ConfigError, match=f"^--{name.replace('_', '-')}: options of the experiment guides"):
        run_experiment("gamma", given)


def test_the_command(options: Options, finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["experiment", "guides", "--data", str(options.data), "--out", str(options.out), "--bundle", options.bundle, "--trust-code"]
    words += [
        "--pitch",
        str(options.pitch),
        "--speaker",
        str(options.speaker),
        "--judge",
        str(options.judge),
        "--verifier",
        str(options.verifier),
    ]
    assert main([*words, "--n", "2", "--sentences", "2", "--batch", "4", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.endswith("guides.md: complete\n")
