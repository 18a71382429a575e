"""The experiments end to end on tiny data: everything once, nothing twice, one run at a time."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TONES
from rules import assert_claims_follow

from duovox import cli, generation
from duovox.config import Recipe, UNetConfig, write_recipe
from duovox.contracts import ConfigError, DataError, LabelError, OutputError, TrainingError
from duovox.evaluation import systems
from duovox.evaluation.judge import Judge, build_network
from duovox.experiments import figures, runner
from duovox.experiments.options import Options
from duovox.experiments.plan import Experiment
from duovox.experiments.suite import Finished, open_bench, run_experiment
from duovox.files import claimed
from duovox.voice import Duovox


@pytest.fixture(scope="module")
def options(
    tiny_recipe: Recipe, tiny_features: Path, tiny_runs: Path, bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Options:
    torch.manual_seed(1)
    judge = tmp_path_factory.mktemp("judges") / "judge.safetensors"
    Judge("compact", tuple(TONES), build_network("compact", len(TONES)).state_dict()).save(judge)
    small = UNetConfig(patch=2, widths=(8, 12), up_widths=(8, 12), blocks=1, bottleneck_blocks=1, embedding=16, group_size=4)
    recipe = replace(tiny_recipe, unet=small, sample=replace(tiny_recipe.sample, steps=1))
    place = tmp_path_factory.mktemp("experiments")
    classifier = tiny_runs / "classifier"
    return Options(
        tiny_features,
        place,
        recipe=recipe,
        judge=judge,
        classifier=classifier,
        vocoder=str(bundle_folder),
        n=2,
        seeds=2,
        updates=2,
        device="cpu",
        precision="fp32",
        batch=4,
    )


class Countdown(runner.Clock):
    """A clock that shows what it is given."""

    def __init__(self, shown: Iterator[float]) -> None:
        self.shown = shown

    @property
    def left(self) -> float:
        return next(self.shown)


@pytest.fixture(scope="module")
def table1(options: Options) -> Finished:
    return run_experiment("table1", options)


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()}


def work(folder: Path) -> dict[str, tuple[int, bytes]]:
    """All but the results, which are written anew by every call."""
    return {name: content for name, content in contents(folder).items() if not name.startswith("results")}


def test_table1_from_nothing_to_a_page(options: Options, table1: Finished) -> None:
    assert table1.left == () and table1.page == options.out / "results" / "table1.md"
    text, found = table1.page.read_text(), json.loads(table1.page.with_suffix(".json").read_text())
    words = "duovox experiment table1 --recipe tiny --data FEATURES --out OUT --judge JUDGE --classifier CLASSIFIER --vocoder tiny"
    words += " --n 2 --seeds 2 --updates 2 --precision fp32"
    assert f"Command: `{words}`" in text and f"`{words} --only subnet_none`" in text
    for digest in [found["judge"], found["data"], *(system["weights"] for system in found["systems"])]:
        assert f"`{digest[:16]}`" in text
    assert "2 updates of batch 4, so 8 samples seen" in text and "0 - 1, 100000 - 100001" in text and "0 - 5, 100000 - 100005" in text
    assert str(options.out) not in text and str(options.data) not in text
    assert "| real train |" in text and "| real test |" in text and "unconditional only" in text
    assert_claims_follow(found)
    assert {system["updates"] for system in found["systems"]} == {2} and {system["samples"] for system in found["systems"]} == {8}
    assert len(found["results"]) == 10 and all(len(result["rows"]) == 2 for result in found["results"])
    names = {path.name for path in table1.page.parent.iterdir()}
    assert {"table1.png", "table1_unet_gamma3_high.ogg", "table1_subnet_random_unconditional_0.ogg"} <= names


def test_what_is_done_is_not_done_again(options: Options, table1: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    before = work(options.out)
    for name in ("start_training", "make_clips", "evaluate"):
        monkeypatch.setattr(runner, name, None)
    assert run_experiment("table1", options) == table1
    assert work(options.out) == before


def test_an_interrupted_run_goes_on_and_ends_as_a_whole_one(
    options: Options, table1: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(options.out, tmp_path / "out")
    here, trials = replace(options, out=tmp_path / "out"), tmp_path / "out" / "trials" / "unet"
    (trials / "gamma3_s1.json").unlink()
    lost = trials / "gamma3_s1" / "mid" / "100001.wav"
    sound = lost.read_bytes()
    lost.unlink()
    shutil.rmtree(tmp_path / "out" / "systems" / "subnet_none")
    stopped = run_experiment("table1", replace(here, time_budget=0.0))
    assert stopped.left == ("1 trials of unet", "training of subnet_none", "4 trials of subnet_none")
    assert "**Not finished.** Left to do: 1 trials of unet;" in stopped.page.read_text()
    trained: list[str] = []
    start = runner.start_training
    monkeypatch.setattr(runner, "start_training", lambda *given, **named: trained.append(str(given[3].name)) or start(*given, **named))
    assert run_experiment("table1", here).left == ()
    assert trained == ["subnet_none"] and lost.read_bytes() == sound
    whole, again = (json.loads((out / "results" / "table1.json").read_text()) for out in (options.out, here.out))
    assert [result["rows"] for result in again["results"]] == [result["rows"] for result in whole["results"]]


def test_only_one_system(options: Options, table1: Finished, tmp_path: Path) -> None:
    finished = run_experiment("table1", replace(options, out=tmp_path, only="subnet_random", seeds=1))
    assert {path.name for path in (tmp_path / "systems").iterdir()} == {"subnet_random"}
    assert "training of unet" in finished.left and not any("random" in entry for entry in finished.left)
    assert "--only subnet_random`" in finished.page.read_text()
    with pytest.raises(ConfigError, match="no system 'wavenet'"):
        run_experiment("table1", replace(options, only="wavenet"))


def test_gamma_shares_what_table1_made(options: Options, table1: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    speak = runner.make_clips
    monkeypatch.setattr(runner, "start_training", None)
    monkeypatch.setattr(runner, "make_clips", lambda voice, folder, *rest: made.append(folder.name) or speak(voice, folder, *rest))
    finished = run_experiment("gamma", replace(options, seeds=1))
    assert finished.left == () and len(made) == 12 and "gamma3_s0" not in made and "gamma3_0.2_to_10_s0" in made
    text = finished.page.read_text()
    assert "## Recommended default" in text and "Rule: the smallest FID" in text
    drawn = importlib.util.find_spec("matplotlib") is not None
    assert ("![Figures against gamma](gamma.svg)" in text) == (options.out / "results" / "gamma.svg").is_file() == drawn


def test_regimes_score_seen_and_unseen_labels(options: Options, table1: Finished) -> None:
    finished = run_experiment("regimes", replace(options, seeds=1))
    assert finished.left == ()
    found, text = json.loads(finished.page.with_suffix(".json").read_text()), finished.page.read_text()
    assert len(found["systems"]) == 6 and len(found["claims"]) == 3
    assert {system["clips"] for system in found["systems"]} == {3, 6}
    counts = {(result["regime"], result["group"]): result["rows"][0]["n"] for result in found["results"]}
    assert counts == {("share", "all"): 6, ("few", "seen"): 2, ("few", "unseen"): 4, ("one", "seen"): 2, ("one", "unseen"): 4}
    unseen = next(r for r in found["results"] if (r["regime"], r["group"]) == ("few", "unseen"))
    assert set(unseen["rows"][0]["accuracy_by_label"]) == {"low", "mid"}
    assert "| few, unseen, real test |" in text and "100% of the train clips of high" in text


def test_without_matplotlib_the_page_says_so(options: Options, table1: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(figures.importlib, "import_module", missing)
    text = run_experiment("gamma", replace(options, seeds=1, time_budget=0.0)).page.read_text()
    assert "No plots: they need matplotlib" in text and "gamma.svg" not in text


def test_two_runs_in_one_folder_are_refused(options: Options, table1: Finished) -> None:
    with claimed(options.out), pytest.raises(OutputError, match="another run is writing an experiment to"):
        run_experiment("table1", options)


def test_a_folder_of_another_recipe_is_refused_by_name(options: Options, table1: Finished) -> None:
    with pytest.raises(TrainingError, match=r"unet/subnet was trained with recipe.train_subnet\..*now it is"):
        run_experiment("table1", replace(options, updates=3))


def test_a_trial_hashes_its_model_once_and_reads_its_clips_once(
    options: Options, table1: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many batches it has: six clips in three."""
    shutil.copytree(options.out, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "trials" / "unet")
    bench = open_bench("table1", replace(options, out=tmp_path / "out", batch=2))
    counted: Counter[str] = Counter()

    def counting(module: Any, name: str) -> None:
        whole = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given: counted.update([name]) or whole(*given))

    counting(generation, "deciding_facts")
    counting(systems, "read_files")
    counting(Duovox, "generate_batch")
    (trial,) = [trial for trial in bench.trials(bench.plan.system("unet")) if trial.name == "gamma3_s1"]
    assert bench._try(bench.plan.system("unet"), trial, runner.Clock())
    assert counted == {"generate_batch": 3, "deciding_facts": 1, "read_files": 1}


def test_a_trial_stops_between_two_batches(options: Options, table1: Finished, tmp_path: Path) -> None:
    """And goes on with what it made."""
    shutil.copytree(options.out, tmp_path / "out")
    folder = tmp_path / "out" / "trials" / "unet" / "gamma3_s1"
    whole = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.wav")}
    shutil.rmtree(folder)
    folder.with_name("gamma3_s1.json").unlink()
    bench, left = open_bench("table1", replace(options, out=tmp_path / "out")), iter([1.0, 0.0])
    (trial,) = [trial for trial in bench.trials(bench.plan.system("unet")) if trial.name == "gamma3_s1"]
    assert not bench._try(bench.plan.system("unet"), trial, Countdown(left))
    assert len(list(folder.rglob("*.wav"))) == 4 and bench.record(trial) is None
    assert bench._try(bench.plan.system("unet"), trial, runner.Clock())
    assert {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.wav")} == whole and bench.record(trial) is not None


def test_a_judge_of_other_labels_is_refused_before_anything_is_made(options: Options, tmp_path: Path) -> None:
    with pytest.raises(LabelError):
        run_experiment("table1", replace(options, judge=None, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_data_with_nothing_to_compare_with_is_refused_before_anything_is_made(options: Options, tmp_path: Path) -> None:
    """For table 1 the test split is enough; regimes need test clips of the seen labels and of the unseen ones."""
    data = Path(shutil.copytree(options.data, tmp_path / "data"))
    facts = json.loads((data / "manifest.json").read_text())
    held = [split == "test" and label == 0 for label, split in zip(facts["clip_labels"], facts["splits"], strict=True)]
    facts["splits"] = ["validation" if here else split for here, split in zip(held, facts["splits"], strict=True)]
    (data / "manifest.json").write_text(json.dumps(facts))
    assert open_bench("table1", replace(options, data=data)).plan.experiment == "table1"
    with pytest.raises(DataError, match="the test split of these features has 0 clips"):
        run_experiment("regimes", replace(options, data=data, out=tmp_path / "out"))
    (data / "manifest.json").write_text(json.dumps(facts | {"splits": ["train"] * len(facts["splits"])}))
    with pytest.raises(DataError, match="the test split of these features has 0 clips"):
        run_experiment("table1", replace(options, data=data, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_clips_that_ran_off_are_scored_and_counted(
    options: Options, table1: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(options.out, tmp_path / "out")
    here = replace(options, out=tmp_path / "out", only="unet")
    shutil.rmtree(tmp_path / "out" / "trials" / "unet" / "gamma3_s1")
    (tmp_path / "out" / "trials" / "unet" / "gamma3_s1.json").unlink()
    generate = Duovox.generate_batch

    def runs_off(self: Duovox, *given: Any) -> Any:
        return [replace(clip, fault="it is silent" * (clip.label == "mid")) for clip in generate(self, *given)]

    monkeypatch.setattr(Duovox, "generate_batch", runs_off)
    finished, whole = run_experiment("table1", here), json.loads(table1.page.with_suffix(".json").read_text())
    found = json.loads(finished.page.with_suffix(".json").read_text())
    said = "unet, gamma 3: 2 of 6 clips ran off to no speech, the first mid, seed 100000: it is silent"
    assert set(found["failures"]) - set(whole["failures"]) == {said} and finished.page.read_text().count(said) == 1
    assert [result["rows"] for result in found["results"]] == [result["rows"] for result in whole["results"]], "scored as they are"


def test_the_command(options: Options, table1: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny.toml").write_text(write_recipe(options.recipe))
    words = ["experiment", "table1", "--recipe", tmp_path / "tiny.toml", "--data", options.data, "--out", options.out]
    words += [
        "--judge",
        options.judge,
        "--classifier",
        options.classifier,
        "--vocoder",
        options.vocoder,
        "--n",
        2,
        "--seeds",
        2,
        "--updates",
        2,
        "--precision",
        "fp32",
    ]
    assert cli.main([*map(str, words), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.endswith("table1.md: complete\n")
    assert cli.main([*map(str, words), "--device", "cpu", "--n", "3", "--time-budget", "0s"]) == 0
    assert capsys.readouterr().out.endswith("2 trials of subnet_random; the same command goes on\n")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["experiment", "tables", "--data", "d", "--out", "o"])
    assert stopped.value.code == 2


def test_a_bench_names_what_is_left_before_anything_is_done(options: Options, tmp_path: Path) -> None:
    which: Experiment = "gamma"
    assert open_bench(which, replace(options, out=tmp_path)).left() == ["training of subnet_label", "28 trials of subnet_label"]
