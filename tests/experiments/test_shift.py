"""The shift experiment end to end on tiny data: noisy recordings, and words that the classifier does not know."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TONES

from duovox import Duovox, cli
from duovox.assemble import assemble
from duovox.config import Recipe, UNetConfig, write_recipe
from duovox.contracts import ConfigError, DataError
from duovox.data import open_features, prepare, which_split
from duovox.evaluation.clips import read_clips
from duovox.evaluation.judge import CompactJudge, Judge, build_network
from duovox.evaluation.metrics import fit_gaussian, frechet_distance
from duovox.experiments import robustness, runner
from duovox.experiments.options import Options
from duovox.experiments.plan import Experiment
from duovox.experiments.robustness import measure_robustness
from duovox.experiments.suite import Finished, open_bench, run_experiment
from duovox.runs import read_weights
from duovox.sound.audio import write_audio

OTHERS = {"chirp": (500.0, 3000.0), "hum": (120.0, 120.0)}
"""Words that the classifier does not know: label -> pitch in Hz at the start and the end of the tone."""


@pytest.fixture(scope="module", autouse=True)
def small_judge() -> Iterator[None]:
    """Judges of four features, so that six clips are enough for FID."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CompactJudge, "widths", (2, 3, 4))
        yield


@pytest.fixture(scope="module")
def words(tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of other words: of each 8 train clips, 2 validation and 2 test clips."""
    root, rng, names = tmp_path_factory.mktemp("others"), np.random.default_rng(0), [f"{number:08x}" for number in range(1000)]
    for split, count in (("train", 8), ("validation", 2), ("test", 2)):
        for name in [name for name in names if which_split(name) == split][:count]:
            for word, ends in OTHERS.items():
                phase = np.cumsum(np.linspace(*ends, 3840) * rng.uniform(0.9, 1.1)) / 16000
                wave = 0.3 * np.sin(2 * np.pi * phase) + rng.normal(0, 0.01, 3840)
                write_audio(root / "words" / word / f"{name}_nohash_0.wav", wave, 16000, parents=True)
    prepare(root / "words", root / "features", tiny_recipe.mel, progress=False)
    return root / "features"


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noise")
    write_audio(folder / "hiss.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 20000), 16000)
    return folder


@pytest.fixture(scope="module")
def options(
    tiny_recipe: Recipe,
    tiny_features: Path,
    tiny_runs: Path,
    bundle_folder: Path,
    words: Path,
    noise: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Options:
    torch.manual_seed(1)
    place = tmp_path_factory.mktemp("shift")
    Judge("compact", tuple(TONES), build_network("compact", len(TONES)).state_dict()).save(place / "judge.safetensors")
    small = UNetConfig(patch=2, widths=(8, 12), up_widths=(8, 12), blocks=1, bottleneck_blocks=1, embedding=16, group_size=4)
    return Options(
        tiny_features,
        place / "out",
        recipe=replace(tiny_recipe, unet=small),
        judge=place / "judge.safetensors",
        classifier=tiny_runs / "classifier",
        vocoder=str(bundle_folder),
        device="cpu",
        n=2,
        seeds=1,
        updates=2,
        precision="fp32",
        sampler="dpmpp_2m",
        steps=1,
        words=words,
        noise=noise,
    )


@pytest.fixture(scope="module")
def shift(options: Options) -> Finished:
    return run_experiment("shift", options)


def story(finished: Finished) -> dict[str, Any]:
    """The page's JSON."""
    found: dict[str, Any] = json.loads(finished.page.with_suffix(".json").read_text())
    return found


def work(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Name, time and content of all files but the results, which are written anew by every call."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.parent != folder / "results"]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_from_nothing_to_a_page(options: Options, shift: Finished) -> None:
    assert shift.left == () and shift.page == options.out / "results" / "shift.md"
    text, found = shift.page.read_text(), story(shift)
    names = ["subnet_logsumexp_noise", "subnet_logsumexp_words"]
    assert [system["system"] for system in found["systems"]] == names and found["left"] == [] and found["claims"] == []
    sees = {system["system"]: system["sees"] for system in found["systems"]}
    assert sees["subnet_logsumexp_noise"] == "100% of the train clips, with noise at 10 dB"
    assert sees["subnet_logsumexp_words"] == "100% of the train clips of other words, without labels"
    assert [len(result["rows"]) for result in found["results"]] == [1] * 4
    head = next(line for line in text.splitlines() if line.startswith("| clips | params"))
    assert head.split(" | ")[-2:] == ["FID to the data it saw", "seeds |"]
    assert "The last FID is against the train clips that the score model saw." in text
    rows = [line for line in text.splitlines() if line.startswith("| ") and line.count("|") == head.count("|")]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows[1:]] == [
        *(f"{name}, {condition}" for name in names for condition in ("unconditional", "gamma 3")),
        *(f"real {split}" for split in ("train", "test")),
    ]
    assert not any(row.split(" | ")[-2] == "-" for row in rows[1:5]) and all(row.split(" | ")[-2] == "-" for row in rows[5:])
    assert "## The classifier on other data" in text and (options.out / "results" / "shift.png").is_file()
    assert (options.out / "results" / "shift_subnet_logsumexp_words_gamma3_high.ogg").is_file()


def test_sampler_and_steps_are_used_and_stand_in_the_command(options: Options, shift: Finished) -> None:
    text = shift.page.read_text()
    command = "duovox experiment shift --recipe tiny --data FEATURES --out OUT --judge JUDGE --classifier CLASSIFIER --vocoder tiny"
    command += " --n 2 --seeds 1 --updates 2 --sampler dpmpp_2m --steps 1 --words WORDS --noise NOISE --precision fp32"
    assert f"Command: `{command}`" in text and f"`{command} --only subnet_logsumexp_noise`" in text
    assert "Sampler: dpmpp_2m with 1 steps, networks in float32." in text
    assert options.recipe.sample.sampler == "heun" and options.recipe.sample.steps == 3
    settings = json.loads((options.out / "trials" / "subnet_logsumexp_words" / "gamma3_s0" / "settings.json").read_text())
    assert (settings["sample"]["sampler"], settings["sample"]["steps"]) == ("dpmpp_2m", 1)
    plans = {name: open_bench(name, replace(options, words=None, noise=None)).plan for name in ("table1", "gamma")}
    assert {(s.recipe.sample.sampler, s.recipe.sample.steps) for plan in plans.values() for s in plan.systems} == {("dpmpp_2m", 1)}
    bare = open_bench("table1", replace(options, words=None, noise=None, sampler=None, steps=None)).plan
    assert {s.recipe.sample for s in bare.systems} == {options.recipe.sample}


def test_score_models_see_the_other_data_and_the_classifier_s_labels(options: Options, shift: Finished, words: Path) -> None:
    own, _ = read_weights(options.classifier or Path())
    noisy = open_features(options.out / "data" / "noise_10dB")
    for name, data, clips in (("noise", noisy, 18), ("words", open_features(words), 16)):
        facts, _ = read_weights(options.out / "systems" / f"subnet_logsumexp_{name}" / "subnet")
        assert facts["data"] == data.digest and facts["clips"] == clips
        assert facts["labels"] == own["labels"] and facts["mel_scale"] == own["mel_scale"]


def test_the_last_fid_is_to_the_clips_that_were_seen(options: Options, shift: Finished, words: Path) -> None:
    judge = Judge.load(options.judge or Path())
    for system, folder in (("subnet_logsumexp_words", words), ("subnet_logsumexp_noise", options.out / "data" / "noise_10dB")):
        seen = open_features(folder)
        made = read_clips(options.out / "trials" / system / "gamma3_s0", judge.labels)
        gaussians = [fit_gaussian(judge.score(w).features) for w in (made.waves, seen.waves[seen.indices("train")])]
        (result,) = [r for r in story(shift)["results"] if (r["system"], r["condition"]) == (system, "gamma 3")]
        assert result["rows"][0]["shifted_fid"] == pytest.approx(frechet_distance(*gaussians), rel=1e-4)
        assert result["rows"][0]["fid"] != pytest.approx(result["rows"][0]["shifted_fid"], rel=0.01)


def test_the_classifier_on_clean_noisy_and_other_clips(options: Options, shift: Finished) -> None:
    """Clean clips as `classify` hears them; noise and other words in their rows."""
    heard = story(shift)["robustness"]
    assert [row["clips"] for row in heard] == ["clean", *(f"noise at {snr} dB" for snr in (20, 10, 5, 0)), "other words (chirp, hum)"]
    assert [row["n"] for row in heard] == [6, 6, 6, 6, 6, 4]
    recipe = open_bench("shift", options).plan.system("subnet_logsumexp_words").recipe
    voice = Duovox(assemble(options.out / "systems" / "subnet_logsumexp_words", recipe, on=options.classifier))
    features, judge = open_features(options.data), Judge.load(options.judge or Path())
    test = features.indices("test")
    said = [voice.classify(wave.astype(np.float32) / 2**15, 16000) for wave in features.waves[test]]
    meant = [features.labels[number] for number in features.label[test]]
    right = [max(p, key=p.__getitem__) == label for p, label in zip(said, meant, strict=True)]
    assert heard[0]["accuracy"] == np.mean(right) and heard[0]["confidence"] == pytest.approx(
        np.mean([max(p.values()) for p in said]), abs=0.01
    )
    judged = judge.score(features.waves[test]).probabilities.argmax(axis=1)
    assert heard[0]["judge_accuracy"] == np.mean([judge.labels[number] == label for number, label in zip(judged, meant, strict=True)])
    assert heard[0]["known_by_confidence"] is None and heard[0]["known_by_energy"] is None
    assert all(0 <= row[name] <= 1 for row in heard[1:] for name in ("known_by_confidence", "known_by_energy"))
    assert heard[5]["accuracy"] is None and heard[5]["interval"] is None and heard[5]["judge_accuracy"] is None
    table = [line for line in shift.page.read_text().splitlines() if line.startswith(("| clean | 6 |", "| noise at ", "| other words "))]
    assert len(table) == 6 and table[5].startswith("| other words (chirp, hum) | 4 | - | - | ")


def test_a_second_call_does_nothing(options: Options, shift: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    before, page = work(options.out), story(shift)
    for module, name in ((runner, "start_training"), (runner, "make_clips"), (runner, "evaluate"), (robustness, "_measure")):
        monkeypatch.setattr(module, name, None)
    for budget in (math.inf, 0.0):
        assert run_experiment("shift", replace(options, time_budget=budget)) == shift
        assert work(options.out) == before and story(shift) == page


def test_robustness_is_measured_once_for_each_noise(
    options: Options, shift: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(options.out, tmp_path / "out")
    bench = open_bench("shift", replace(options, out=tmp_path / "out"))
    known = measure_robustness(bench, options.noise or Path())
    assert known is not None and [dataclasses.asdict(row) for row in known] == [
        row | {"interval": interval(row)} for row in story(shift)["robustness"]
    ]
    asked: list[str] = []
    monkeypatch.setattr(robustness, "_measure", lambda _, backgrounds: asked.append(backgrounds.digest) or known[:1])
    write_audio(tmp_path / "louder" / "hiss.wav", np.random.default_rng(1).uniform(-0.2, 0.2, 9000), 16000, parents=True)
    for _ in range(2):
        assert measure_robustness(bench, tmp_path / "louder") == known[:1] and len(asked) == 1
    (tmp_path / "out" / "hearing.json").write_text("{")
    assert measure_robustness(bench, tmp_path / "louder", measure=False) is None and len(asked) == 1
    assert measure_robustness(bench, tmp_path / "louder") == known[:1] and len(asked) == 2
    assert measure_robustness(open_bench("shift", replace(options, out=tmp_path / "new", classifier=None)), options.noise or Path()) is None


def interval(row: dict[str, Any]) -> tuple[float, ...] | None:
    """As `Robustness` holds it; JSON has lists."""
    return tuple(row["interval"]) if row["interval"] else None


# what is refused, before anything is made


@pytest.mark.parametrize("missing", ["words", "noise"])
def test_shift_needs_both(options: Options, tmp_path: Path, missing: str) -> None:
    with pytest.raises(ConfigError, match=r"shift needs --words, .*, and --noise, a folder of noise recordings$"):
        run_experiment("shift", replace(options, out=tmp_path / "out", **{missing: None}))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("experiment", ["table1", "regimes", "gamma"])
@pytest.mark.parametrize("given", ["words", "noise"])
def test_other_experiments_take_neither(options: Options, tmp_path: Path, experiment: Experiment, given: str) -> None:
    other = "noise" if given == "words" else "words"
    with pytest.raises(ConfigError, match="--words and --noise are the other data of the experiment shift; leave them out here"):
        run_experiment(experiment, replace(options, out=tmp_path / "out", **{other: None}))
    assert not (tmp_path / "out").exists()


def test_words_without_test_clips_are_refused(options: Options, words: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(words, tmp_path / "words"))
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(text.replace('"test"', '"validation"'))
    with pytest.raises(DataError, match="the test split of the other words has no clips"):
        run_experiment("shift", replace(options, out=tmp_path / "out", words=copy))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--words": None}, "shift needs --words"),
        ({"--words": "nowhere"}, "nowhere is no feature folder"),
        ({"--noise": "nowhere"}, "nowhere holds no sound files"),
        ({"--noise": "short"}, "has 100 samples, a clip 3840"),
        ({"--recipe": "compact"}, "other mel settings"),
    ],
    ids=lambda value: " ".join(map(str, value.items())) if isinstance(value, dict) else "",
)
def test_mistakes_are_one_line(
    options: Options,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str | None],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_audio(tmp_path / "short" / "a.wav", np.ones(100), 16000, parents=True)
    (tmp_path / "tiny.toml").write_text(write_recipe(options.recipe))
    given = {"--recipe": "tiny.toml", "--data": options.data, "--out": "out", "--judge": options.judge, "--words": options.words}
    given |= {"--noise": options.noise, **change}
    code = cli.main(["experiment", "shift", *(str(word) for item in given.items() if item[1] is not None for word in item)])
    err = capsys.readouterr().err
    assert code == 1 and err.startswith("duovox: ") and err.count("\n") == 1 and said in err
    assert not (tmp_path / "out").exists()
