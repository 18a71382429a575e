"""training/init.py: weights to start from, what is taken over of them, and a schedule that begins later."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from duovox.assemble import assemble
from duovox.bundle import read_bundle, write_bundle
from duovox.config import Recipe
from duovox.contracts import BundleError, TrainingError
from duovox.data import prepare
from duovox.evaluation.judge import build_network
from duovox.model import build_classifier
from duovox.runs import Part, read_weights
from duovox.training.classifier import ClassifierTraining
from duovox.training.init import HEADS, read_init
from duovox.training.loop import Outcome
from duovox.training.optim import Losses
from duovox.training.start import start_training


@pytest.fixture(scope="module")
def two_words(tiny_words: Path, tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of two of the three words."""
    out = tmp_path_factory.mktemp("two") / "features"
    prepare(tiny_words, out, tiny_recipe.mel, labels=("high", "low"), progress=False)
    return out


def go(part: Part, recipe: Recipe, data: Path, out: Path, **options: Any) -> Outcome:
    return start_training(part, recipe, data, out, device="cpu", precision="fp32", **options)


def started(part: Part, recipe: Recipe, data: Path, out: Path, **options: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Facts and weights of a run that was stopped before its first update."""
    assert go(part, recipe, data, out, time_budget=0, **options).step == options.get("start", 0)
    return read_weights(out / part)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], names: set[str] | None = None) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items() if names is None or name in names)


@pytest.mark.parametrize("source", ["classifier", ".", "classifier/weights.safetensors"])
def test_a_run_is_started_from_by_its_folder_the_one_above_or_its_weights(
    source: str, tiny_recipe: Recipe, tiny_features: Path, tiny_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, before = read_weights(tiny_runs / "classifier")
    facts, after = started("classifier", tiny_recipe, tiny_features, tmp_path, init=tiny_runs / source)
    assert before.keys() == after.keys() and same(before, after)
    assert facts["init"]["taken"] == len(before) and facts["init"]["new"] == [] and facts["step"] == 0
    said = f"classifier: {len(before)} tensors taken over from {tiny_runs / source} ({facts['init']['digest'][:12]}); new: none"
    assert said in capsys.readouterr().out
    assert read_init(tiny_runs / "classifier", "classifier").digest == facts["init"]["digest"]


def test_the_first_update_goes_on_from_them(tiny_recipe: Recipe, tiny_features: Path, tiny_runs: Path, tmp_path: Path) -> None:
    """Network and average alike: a rate of next to nothing leaves them where they are."""
    still = dataclasses.replace(tiny_recipe, train_classifier=dataclasses.replace(tiny_recipe.train_classifier, rate=1e-9))
    _, before = read_weights(tiny_runs / "classifier")
    go("classifier", still, tiny_features, tmp_path, init=tiny_runs)
    _, after = read_weights(tmp_path / "classifier")
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-6)


def test_other_labels_get_a_new_head(tiny_recipe: Recipe, two_words: Path, tiny_features: Path, tiny_runs: Path, tmp_path: Path) -> None:
    _, before = read_weights(tiny_runs / "classifier")
    facts, after = started("classifier", tiny_recipe, two_words, tmp_path / "two", init=tiny_runs)
    assert facts["init"]["new"] == ["head.3.bias", "head.3.weight"]
    assert same(before, after, before.keys() - set(facts["init"]["new"])) and after["head.3.weight"].shape[0] == 2
    renamed = tmp_path / "renamed"
    shutil.copytree(tiny_runs / "classifier", renamed)
    rewrite(renamed / "weights.safetensors", lambda header: header.update(labels=["ah", "oh", "uh"]))
    facts, after = started("classifier", tiny_recipe, tiny_features, tmp_path / "as_many", init=renamed)
    assert facts["init"]["new"] == ["head.3.bias", "head.3.weight"], "as many labels, but others"
    assert not torch.equal(after["head.3.weight"], before["head.3.weight"])


def rewrite(file: Path, change: Any) -> None:
    with safe_open(file, "pt") as opened:
        header, tensors = json.loads(opened.metadata()["duovox"]), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    change(header)
    save_file(tensors, file, {"duovox": json.dumps(header)})


def test_the_heads_are_all_that_depends_on_the_number_of_labels(tiny_recipe: Recipe) -> None:
    def label_rows(one: nn.Module, other: nn.Module) -> set[str]:
        return {name for name, value in one.state_dict().items() if value.shape != other.state_dict()[name].shape}

    found = label_rows(build_classifier(tiny_recipe, 3), build_classifier(tiny_recipe, 4))
    assert found == {"head.3.weight", "head.3.bias"} and all(name.startswith(HEADS["classifier"]) for name in found)
    for kind in ("compact", "resnext29"):
        found = label_rows(build_network(kind, 3), build_network(kind, 4))  # type: ignore[arg-type]
        assert found == {"classifier.weight", "classifier.bias"} and all(name.startswith(HEADS["judge"]) for name in found)


@pytest.mark.parametrize("part", ["classifier", "subnet", "vocoder"])
def test_a_bundle_is_started_from_by_its_folder(
    part: Part, tiny_recipe: Recipe, tiny_features: Path, tiny_runs: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_runs, tmp_path / "runs")
    go("vocoder", tiny_recipe, tiny_features, tmp_path / "runs")
    write_bundle(assemble(tmp_path / "runs", tiny_recipe), tmp_path / "voice")
    made = read_bundle(tmp_path / "voice")
    networks: dict[str, Any] = {"classifier": made.model.classifier.network, "subnet": made.model.score_network, "vocoder": made.vocoder}
    if part == "subnet":
        shutil.copytree(tiny_runs / "classifier", tmp_path / "new" / "classifier")
    facts, after = started(part, tiny_recipe, tiny_features, tmp_path / "new", init=str(tmp_path / "voice"))
    assert facts["init"]["new"] == [] and same(networks[part].state_dict(), after)


def test_a_folder_of_recordings_does_not_stand_before_a_bundle_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "words" / "hello").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert len(read_init("words", "classifier").labels) == 28
    with pytest.raises(TrainingError, match=r"--init \./words holds no weights of a classifier"):
        read_init("./words", "classifier")


def test_a_judge_is_started_from_by_its_file(tiny_recipe: Recipe, tiny_features: Path, two_words: Path, tmp_path: Path) -> None:
    go("judge", tiny_recipe, tiny_features, tmp_path / "one")
    _, before = read_weights(tmp_path / "one" / "judge")
    file = tmp_path / "one" / "judge" / "judge.safetensors"
    facts, after = started("judge", tiny_recipe, two_words, tmp_path / "two", init=file)
    assert facts["init"]["new"] == ["classifier.bias", "classifier.weight"]
    assert same(before, after, before.keys() - set(facts["init"]["new"]))
    facts, after = started("judge", tiny_recipe, tiny_features, tmp_path / "three", init=file)
    assert facts["init"]["new"] == [] and same(before, after)


def test_weights_that_cannot_be_started_from(tiny_recipe: Recipe, tiny_features: Path, tiny_runs: Path, tmp_path: Path) -> None:
    def refused(source: object, said: str, kind: type[Exception] = TrainingError) -> None:
        with pytest.raises(kind, match=said):
            go("classifier", tiny_recipe, tiny_features, tmp_path / "new", init=str(source))
        assert not (tmp_path / "new" / "classifier").exists()

    refused(tiny_runs / "subnet", r"holds weights of a subnet, not of a classifier; name the weights\.safetensors")
    refused(tiny_runs / "classifier" / "checkpoint.safetensors", "no weights that `duovox train` wrote")
    refused(tiny_features, "holds no weights of a classifier: name a run folder")
    refused("nobody/../nowhere", "no bundle at", BundleError)  # no folder, no name of a bundle
    (tmp_path / "weights.safetensors").write_bytes(b"\0" * 100)
    refused(tmp_path, "cannot be read")
    shutil.copytree(tiny_runs / "classifier", tmp_path / "louder")
    rewrite(tmp_path / "louder" / "weights.safetensors", lambda header: header["recipe"]["mel"].update(hop_length=128))
    refused(tmp_path / "louder", r"was trained with mel\.hop_length = 128, this recipe has 256; use its recipe")


def test_what_no_longer_fits_is_new_and_what_fits_nowhere_is_refused(
    tiny_recipe: Recipe, tiny_features: Path, tiny_runs: Path, tmp_path: Path
) -> None:
    wider = dataclasses.replace(tiny_recipe, classifier=dataclasses.replace(tiny_recipe.classifier, widths=(8, 20)))
    facts, after = started("classifier", wider, tiny_features, tmp_path / "wider", init=tiny_runs)
    _, before = read_weights(tiny_runs / "classifier")
    fits = {name for name, value in before.items() if after[name].shape == value.shape}
    assert set(facts["init"]["new"]) == before.keys() - fits and len(fits) == facts["init"]["taken"] > 4 and same(before, after, fits)
    save_file({"other.weight": torch.ones(3)}, tmp_path / "other.safetensors", {"duovox": '{"part": "classifier"}'})
    with pytest.raises(TrainingError, match="holds no tensor of this classifier; use the recipe it was trained with"):
        go("classifier", tiny_recipe, tiny_features, tmp_path / "other", init=tmp_path / "other.safetensors")


def test_a_bundle_without_a_vocoder_says_so(tiny_recipe: Recipe, tiny_features: Path, tiny_runs: Path, tmp_path: Path) -> None:
    write_bundle(assemble(tiny_runs, tiny_recipe), tmp_path / "voice")
    with pytest.raises(TrainingError, match="the bundle holds no vocoder; name a run folder"):
        go("vocoder", tiny_recipe, tiny_features, tmp_path / "new", init=tmp_path / "voice")
    (tmp_path / "voice" / "model.safetensors").write_bytes(b"")
    with pytest.raises(BundleError, match="is not the file"):
        go("classifier", tiny_recipe, tiny_features, tmp_path / "new", init=tmp_path / "voice")


def test_a_schedule_that_begins_later_takes_its_own_steps_and_resumes(
    tiny_recipe: Recipe, tiny_features: Path, tiny_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(tiny_recipe.train_classifier, updates=9, warmup=2)
    recipe, steps = dataclasses.replace(tiny_recipe, train_classifier=settings), list[tuple[int, float]]()
    loss = ClassifierTraining.loss

    def seen(self: ClassifierTraining, step: int, *given: Any) -> Losses:
        steps.append((step, self.optimizers["adamw"].param_groups[0]["lr"] / settings.rate))
        return loss(self, step, *given)

    monkeypatch.setattr(ClassifierTraining, "loss", seen)
    facts, _ = started("classifier", recipe, tiny_features, tmp_path, init=tiny_runs, start=4)
    assert facts["start"] == 4 and facts["init"]["new"] == []
    assert go("classifier", recipe, tiny_features, tmp_path, resume=True).complete
    assert [step for step, _ in steps] == [4, 5, 6, 7, 8]
    assert steps[0][1] == pytest.approx(0.5) and steps[1][1] == 1.0, "it warms up from where it begins"


def test_the_average_of_a_later_start_is_a_long_one(tiny_recipe: Recipe, tiny_features: Path, tiny_runs: Path, tmp_path: Path) -> None:
    """After one update at a decay of 0.9 it is a tenth of the way from what it was to the network."""
    settings = dataclasses.replace(tiny_recipe.train_classifier, updates=1001, ema_decay=0.9, cooldown=0.0, warmup=0)
    recipe = dataclasses.replace(tiny_recipe, train_classifier=settings)
    go("classifier", recipe, tiny_features, tmp_path, init=tiny_runs, start=1000)
    _, before = read_weights(tiny_runs / "classifier")
    _, after = read_weights(tmp_path / "classifier")
    network = load_file(tmp_path / "classifier" / "checkpoint.safetensors")
    for name, value in before.items():
        torch.testing.assert_close(after[name], torch.lerp(value, network[f"module/network/{name}"], 0.1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("start", "init"), [(2, False), (-1, True), (4, True), (9, True)])
def test_a_start_needs_weights_and_a_step_of_the_schedule(
    start: int, init: bool, tiny_recipe: Recipe, tiny_features: Path, tiny_runs: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=rf"--start {start} needs --init, and must lie between 0 and 4, the updates of the schedule"):
        go("classifier", tiny_recipe, tiny_features, tmp_path, init=tiny_runs if init else None, start=start)
    assert not (tmp_path / "classifier").exists()
