"""What can be scored by name, and the clips that are made for it: once, of one kind, by one run at a time."""

from __future__ import annotations

import json
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TONES

from duovox import Duovox
from duovox.bundle import Bundle
from duovox.cli import main
from duovox.config import Recipe, SampleConfig, to_dict, write_recipe
from duovox.contracts import BundleError, ConfigError, DataError, LabelError
from duovox.evaluation import systems
from duovox.evaluation.judge import Judge, build_network
from duovox.evaluation.rows import Scoring
from duovox.evaluation.systems import Generation, evaluate_model, make_clips, open_system, read_made
from duovox.generation import SETTINGS
from duovox.sound.audio import read_audio, write_audio

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


def test_clips_are_read_label_by_label_with_a_note_of_how_they_were_made(voice: Duovox, tmp_path: Path) -> None:
    wanted = Generation(2, {"gamma": 0.5, "steps": 2}, batch=4)
    assert make_clips(voice, tmp_path / "clips", wanted)
    found = read_made(voice, tmp_path / "clips", wanted)
    assert found.labels == ("high", "high", "low", "low", "mid", "mid") and found.waves.shape == (6, 16000)
    assert found.notes[0] == "the clips are seeds 0 to 1 of each label, gamma 0.5, heun with 2 steps, neural vocoder"
    wave = voice.generate("low", 2, gamma=0.5, steps=2, keep_faulty=True)[1].wave
    assert found.waves[3, : len(wave)] == pytest.approx(np.clip(wave, -1, 1), abs=1e-4)
    assert read_made(voice, tmp_path / "clips", replace(wanted, n=1)).labels == LABELS, "fewer than are there"


def test_seeds_may_start_anywhere(voice: Duovox, tmp_path: Path) -> None:
    late, early = Generation(2, {"steps": 1}, first=5), Generation(7, {"steps": 1}, batch=7)
    for name, wanted in (("late", late), ("early", early)):
        make_clips(voice, tmp_path / name, wanted)
    found, others = read_made(voice, tmp_path / "late", late), read_made(voice, tmp_path / "early", early)
    assert found.notes[0].startswith("the clips are seeds 5 to 6 of each label")
    assert np.abs(found.waves[0] - others.waves[5]).max() < 1e-3


def test_unconditional_clips_are_as_many_in_all(voice: Duovox, tmp_path: Path) -> None:
    wanted = Generation(1, {"steps": 1}, unconditional=True)
    make_clips(voice, tmp_path / "clips", wanted)
    found = read_made(voice, tmp_path / "clips", wanted)
    assert found.labels == (None, None, None) and found.notes[0].startswith("the clips are seeds 0 to 2 unconditional, heun")
    assert contents(tmp_path / "clips").keys() == {"0.wav", "1.wav", "2.wav", SETTINGS}


CHANGED = {
    "preset": "quality",
    "sampler": "dpmpp_2m",
    "steps": 2,
    "last_sigma": 0.05,
    "gamma": 0.7,
    "guidance_low": 0.2,
    "guidance_high": 10.0,
    "schedule": "early",
    "guide_at": "estimate",
}
"""Every sampling setting with a value that is not its default."""


@pytest.mark.parametrize("name", [field.name for field in fields(SampleConfig)])
def test_every_setting_reaches_the_sampler_the_record_and_the_note(
    name: str, voice: Duovox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, used = Generation(1, {"steps": 1, name: CHANGED[name]}, batch=3), []
    generate = voice.generate_batch
    monkeypatch.setattr(voice, "generate_batch", lambda batch, settings, *rest: used.append(settings) or generate(batch, settings, *rest))
    make_clips(voice, tmp_path / "clips", wanted)
    (settings,) = used
    assert settings == voice.config.recipe.sample.changed({"steps": 1, name: CHANGED[name]})
    assert json.loads((tmp_path / "clips" / SETTINGS).read_text())["sample"] == to_dict(settings)
    shown = {"sampler": "dpmpp_2m with", "steps": "with 2 steps", "gamma": "gamma 0.7"}.get(name, f"{name} {CHANGED[name]}")
    assert shown in read_made(voice, tmp_path / "clips", wanted).notes[0]


def test_settings_left_out_are_the_model_s_own(voice: Duovox) -> None:
    assert Generation(changed={"gamma": None}).settings(voice) == Generation().settings(voice) == voice.config.recipe.sample


def test_impossible_requests_are_refused() -> None:
    for wrong in ({"n": 0}, {"batch": 0}):
        with pytest.raises(ConfigError, match="at least 1, not 0"):
            Generation(**wrong)
    for name in ("gamma", "guidance_low", "guidance_high", "schedule", "guide_at"):
        with pytest.raises(ConfigError, match=f"{name} is a setting of guidance towards a label; unconditional clips have none"):
            Generation(changed={name: CHANGED[name]}, unconditional=True)
    assert Generation(changed={"steps": 1, "sampler": "heun", "gamma": None}, unconditional=True).unconditional


# scores


def test_a_model_is_scored_beside_real_clips(voice: Duovox, judge_file: Path, tiny_features: Path, tmp_path: Path) -> None:
    wanted, judge, scoring = Generation(1, {"steps": 1}), judge_file, Scoring(fid=False, resamples=2)
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


def test_the_caller_s_model_stays_where_it_is(
    voice: Duovox, judge_file: Path, tiny_features: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluation computes where the model is, and takes its own judge there."""
    judged: list[str] = []
    monkeypatch.setattr(Duovox, "to", lambda *_: pytest.fail("moved the model"))
    monkeypatch.setattr(Judge, "to", lambda self, device: judged.append(str(device)) or self)
    before = {name: value.clone() for name, value in voice.bundle.model.state_dict().items()}
    evaluate_model(voice, judge_file, tiny_features, Generation(1, {"steps": 1}), scoring=Scoring(fid=False, resamples=2))
    assert judged == [str(voice.device)]
    assert all(torch.equal(value, before[name]) for name, value in voice.bundle.model.state_dict().items())


def test_a_judge_does_not_judge_itself(judge_file: Path, tiny_features: Path) -> None:
    classifier = Judge.load(judge_file).network
    config = SimpleNamespace(recipe=SimpleNamespace(sample=SampleConfig()))
    model = SimpleNamespace(classifier=classifier)
    guide = SimpleNamespace(bundle=SimpleNamespace(model=model), config=config, device="cpu", settings=lambda **_: SampleConfig())
    with pytest.raises(ConfigError, match="this judge is the classifier that guides"):
        evaluate_model(guide, judge_file, tiny_features, scoring=Scoring(fid=False))  # type: ignore[arg-type]


def test_no_judge_guides_beside_the_label_either(
    voice: Duovox, judge_file: Path, tiny_features: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systems, "make_clips", lambda *_: pytest.fail("made clips"))
    guide = replace(voice.guide("own", "low", gamma=1), network=Judge.load(judge_file).network)
    with pytest.raises(ConfigError, match="this judge is the classifier that guides"):
        evaluate_model(voice, judge_file, tiny_features, Generation(1, guides=(guide,)), scoring=Scoring(fid=False))


def test_a_guide_at_gamma_0_needs_no_check_and_leaves_no_note(voice: Duovox, tmp_path: Path) -> None:
    wanted = Generation(1, {"steps": 1}, guides=(voice.guide("own", "low", gamma=0),))
    assert make_clips(voice, tmp_path / "clips", wanted)
    plain = Generation(1, {"steps": 1})
    assert read_made(voice, tmp_path / "clips", wanted).notes == read_made(voice, tmp_path / "clips", plain).notes


# the command


def test_a_model_is_scored_under_a_guide(
    bundle_folder: Path, judge_file: Path, tiny_features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every clip, whatever its word, is steered; the report says by what, and the clips are the library's."""
    common = ("--data", tiny_features, "--judge", judge_file, "--no-fid", "--resamples", "2", "--n", "1", "--clips", tmp_path / "clips")
    code, page, err = run(capsys, "evaluate", bundle_folder, *common, "--guide", "own-high:2")
    assert code == 0, err
    assert "guided by own-high at gamma 2" in page
    voice = Duovox.from_pretrained(bundle_folder)
    wanted = [(label, 0) for label in voice.labels]
    expected, plain = (voice.generate_batch(wanted, guides=some) for some in ([voice.guide("own", "high", gamma=2)], []))
    for clip, without in zip(expected, plain, strict=True):
        made = read_audio(tmp_path / "clips" / str(clip.label) / "0.wav", 16000)
        np.testing.assert_allclose(made, clip.wave.clip(-1, 1), atol=1e-3)
        assert np.abs(made - without.wave).max() > 1e-3


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


def test_the_command_hands_every_sampling_setting_on(
    bundle_folder: Path, judge_file: Path, tiny_features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"--interval": ("0.2", "10"), "--gamma": ("0.7",), "--steps": ("2",), "--sampler": ("dpmpp_2m",)}
    words |= {"--schedule": ("early",), "--guide-at": ("estimate",), "--preset": ("quality",), "--last-sigma": ("0.05",)}
    common = ("--data", tiny_features, "--judge", judge_file, "--no-fid", "--resamples", "2", "--n", "1", "--clips", tmp_path / "clips")
    code, _, err = run(capsys, "evaluate", bundle_folder, *common, *(word for flag, values in words.items() for word in (flag, *values)))
    assert code == 0, err
    assert json.loads((tmp_path / "clips" / SETTINGS).read_text())["sample"] == CHANGED


def cells(page: str, row: str) -> list[str]:
    """The figures of a row of the main table."""
    return next(line for line in page.splitlines() if line.startswith(f"| {row} | 3")).split("|")[2:]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{clips}", "--gamma", "3", "--n", "5"], "is a folder of clips; --n, --gamma would be for a model"),
        (["{clips}", "--guide-at", "noised"], "is a folder of clips; --guide-at would be"),
        (["{clips}", "--guide", "own-low:1"], "is a folder of clips; --guide would be"),
        (["{bundle}", "--n", "1", "--guide", "absent-low:1"], "names no guide"),
        (["{bundle}", "--n", "1", "--guide", "own-low:1", "own-low:2"], "the guide own-low is given twice"),
        (["{clips}", "--unconditional"], "is a folder of clips; --unconditional would be"),
        (["{clips}", "--recipe", "compact"], "--recipe is for a folder of runs"),
        (["{clips}", "--quality", "pesq"], "no quality measure 'pesq'"),
        (["{clips}", "--quality", "dnsmos"], "pip install 'duovox[quality]'"),
        (["nowhere"], "nor is it a folder of clips or of runs"),
        (["{clips}", "--data", "nowhere"], "nowhere"),
        (["{bundle}", "--data", "nowhere"], "nowhere"),
        (["{bundle}", "--n", "0"], "at least 1, not 0"),
        (["{bundle}", "--gamma", "-1"], "gamma"),
        (["{bundle}", "--interval", "3", "1"], "guidance_low"),
        (["{bundle}", "--unconditional", "--schedule", "early"], "unconditional clips have none"),
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
