"""student.py, and the student in bundles and in `Duovox`: what it was taught it does, the same for a seed; what it was not is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from duovox.assemble import assemble, completed
from duovox.bundle import Bundle, read_bundle, write_bundle
from duovox.classifiers.frozen import fingerprint
from duovox.cli import main
from duovox.config import Recipe, Schooling, SolutionConfig, StudentConfig, TrainConfig, write_recipe
from duovox.contracts import BundleError, ConfigError, GenerationError
from duovox.costs import count_costs, student_gmacs
from duovox.diffusion.flow_map import jump
from duovox.diffusion.sampling import SeededNoise
from duovox.generation import deciding_facts
from duovox.sound.audio import read_audio
from duovox.student import Student, build_student
from duovox.training.solutions import make_solutions
from duovox.training.start import start_training
from duovox.voice import Duovox


@pytest.fixture
def voice(student_bundle: Bundle) -> Duovox:
    return Duovox(student_bundle)


@pytest.fixture
def student(student_bundle: Bundle) -> Student:
    assert student_bundle.student is not None
    return student_bundle.student


def test_it_knows_its_levels(student: Student) -> None:
    assert student.evaluations == (1, 2, 3)
    assert student.levels(1).tolist() == [80.0, 0.0] and student.levels(3).tolist() == [80.0, 2.0, 0.2, 0.0]
    with pytest.raises(GenerationError, match="the student was not taught 4 steps; set steps to one of 1, 2, 3"):
        student.levels(4)


def test_two_steps_are_two_jumps(voice: Duovox, student: Student) -> None:
    settings = voice.settings(sampler="student", steps=2, gamma=0.4)
    noised, levels, label = SeededNoise([7], (1, 16, 16), torch.device("cpu"))() * 80, student.levels(2).float(), torch.tensor([1])
    for sigma, to in ((levels[:1], levels[1:2]), (levels[1:2], levels[2:])):
        noised = jump(noised, student(noised, sigma, to, label, torch.tensor([0.4])), sigma, to)
    assert torch.allclose(voice.sample_mels("low", [7], settings), noised, atol=1e-5)


@pytest.mark.parametrize("label", ["mid", None])
def test_a_clip_depends_on_its_seed_alone(voice: Duovox, label: str | None) -> None:
    settings = {"sampler": "student", "steps": 3, "keep_faulty": True}
    alone, among = voice.generate(label, seed=5, **settings), voice.generate(label, n=4, seed=3, batch=3, **settings)
    assert np.allclose(alone[0].log_mel, among[2].log_mel, atol=1e-4) and not np.allclose(among[1].log_mel, among[2].log_mel, atol=0.1)


def test_label_gamma_and_steps_change_the_clip(voice: Duovox) -> None:
    def mel(label: str = "low", **changes: Any) -> Any:
        return voice.generate(label, keep_faulty=True, **{"sampler": "student", "steps": 2, **changes})[0].log_mel

    for other in (mel("high"), mel(gamma=0.5), mel(steps=1)):
        assert np.abs(mel() - other).max() > 1e-3


def test_it_asks_the_classifier_as_often_as_it_has_steps(voice: Duovox) -> None:
    seen: list[float] = []
    voice.generate_batch([("low", 0)], voice.settings(sampler="student", steps=3), callback=lambda sigma, _: seen.append(sigma))
    assert seen == pytest.approx([80.0, 2.0, 0.2])


def test_it_costs_less_than_its_guided_teacher(student_bundle: Bundle, student: Student) -> None:
    costs = count_costs(student_bundle.model)
    assert costs.classifier_gmacs < student_gmacs(student) < costs.guided_gmacs


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 14}, "set steps to one of 1, 2, 3"),
        ({"gamma": 3.0}, r"taught a gamma between 0\.3 and 0\.5, not 3; set gamma to that"),
        ({"interval": (0.1, 2.0)}, "has its guidance within it: leave out the interval, schedule and guide_at"),
        ({"schedule": "early"}, "has its guidance within it"),
        ({"guide_at": "estimate"}, "has its guidance within it"),
    ],
)
def test_what_it_was_not_taught_is_refused(voice: Duovox, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(GenerationError, match=words):
        voice.generate("low", **{"sampler": "student", "steps": 2, **changes})


def test_where_its_teacher_is_guided_is_its_own(student_bundle: Bundle) -> None:
    """A teacher that is guided at the estimate, as those of classifiers that never met noise, has students too."""
    config = student_bundle.config
    sample = dataclasses.replace(config.recipe.sample, guide_at="estimate")
    recipe = dataclasses.replace(config.recipe, sample=sample)
    voice = Duovox(dataclasses.replace(student_bundle, config=dataclasses.replace(config, recipe=recipe)))
    assert voice.settings(preset="turbo", steps=3).guide_at == "estimate"
    with pytest.raises(GenerationError, match="has its guidance within it"):
        voice.settings(preset="turbo", steps=3, guide_at="noised")


def test_a_bundle_without_a_student_says_so(tiny_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no student; train one \(`duovox solve`, `duovox train student`\), or take another sampler"):
        Duovox(tiny_bundle).generate("low", sampler="student", steps=2)


def test_it_is_written_and_read_back(student_bundle: Bundle, voice: Duovox, tmp_path: Path) -> None:
    write_bundle(student_bundle, tmp_path / "b")
    again = Duovox.from_pretrained(tmp_path / "b")
    assert again.config.schooling == student_bundle.config.schooling and again.config.recipe == student_bundle.config.recipe
    theirs, ours = (v.generate("mid", sampler="student", steps=3, keep_faulty=True)[0].log_mel for v in (again, voice))
    assert np.allclose(theirs, ours, atol=0.05), "float16 weights"
    assert again.bundle.student is not None
    assert again.bundle.student.model.classifier.network is again.bundle.model.classifier.network, "one classifier for both"


def test_a_bundle_without_one_is_as_it_was_before_there_were_any(bundle_folder: Path) -> None:
    config = json.loads((bundle_folder / "config.json").read_text())
    assert "schooling" not in config and not {"student", "train_student"} & config["recipe"].keys()


def test_damaged_bundles(student_bundle: Bundle, tmp_path: Path) -> None:
    write_bundle(student_bundle, tmp_path / "b")
    good = (tmp_path / "b" / "config.json").read_text()
    (tmp_path / "b" / "config.json").write_text(good.replace('"sigmas": [\n      80.0,\n      20.0,', '"sigmas": [\n      80.0,'))
    with pytest.raises(BundleError, match=r"config\.json cannot be read: student\.grids names node 3, its schooling has 3"):
        read_bundle(tmp_path / "b")
    (tmp_path / "b" / "config.json").write_text(good)
    (tmp_path / "b" / "student.safetensors").unlink()
    with pytest.raises(BundleError, match=r"incomplete: student\.safetensors is missing"):
        read_bundle(tmp_path / "b")


def test_clips_of_another_student_are_other_clips(voice: Duovox, student_bundle: Bundle) -> None:
    settings = voice.settings(sampler="student", steps=2)
    torch.manual_seed(5)
    assert student_bundle.student is not None
    other = build_student(student_bundle.config.recipe, student_bundle.model.classifier.network, 3, student_bundle.student.schooling)
    changed = Duovox(dataclasses.replace(student_bundle, student=other.eval()))
    assert deciding_facts(voice, settings)["model"] != deciding_facts(changed, settings)["model"]
    heun = voice.settings(sampler="heun")
    assert deciding_facts(voice, heun)["model"] == deciding_facts(changed, heun)["model"]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: StudentConfig(grids=((1, 2),)),
        lambda: StudentConfig(grids=((0, 2, 2),)),
        lambda: StudentConfig(grids=((0, 1), (0, 2))),
        lambda: StudentConfig(grids=()),
        lambda: StudentConfig(grid_share=1.5),
        lambda: SolutionConfig(steps=1),
        lambda: SolutionConfig(gammas=(3.0, 1.0)),
        lambda: SolutionConfig(gammas=()),
        lambda: SolutionConfig(unlabelled=1.0),
        lambda: Schooling((1.0, 2.0, 0.0), (3.0,)),
        lambda: Schooling((2.0, 1.0), (3.0,)),
    ],
)
def test_impossible_settings(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        wrong()


TAUGHT = {"student": StudentConfig(grids=((0,), (0, 2))), "train_student": TrainConfig(updates=2, batch=4, warmup=1, ema_decay=0.5)}


@pytest.fixture(scope="module")
def lesson(bundle_folder: Path, tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with a student of the tiny bundle."""
    folder = tmp_path_factory.mktemp("lesson")
    make_solutions(Duovox.from_pretrained(bundle_folder), folder / "solutions", 64, SolutionConfig(0.2, 4, (0.3,)))
    recipe = dataclasses.replace(tiny_recipe, **TAUGHT)  # type: ignore[arg-type]
    start_training("student", recipe, folder / "solutions", folder / "runs", device="cpu", precision="fp32", teacher=bundle_folder)
    return folder / "runs"


def test_a_base_is_completed_with_its_student(lesson: Path, bundle_folder: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    base, recipe = read_bundle(bundle_folder), dataclasses.replace(tiny_recipe, **TAUGHT)  # type: ignore[arg-type]
    made = completed(base, lesson, recipe)
    assert made.student is not None and made.vocoder is base.vocoder and made.config.labels == base.config.labels
    assert made.config.origin["student"]["teacher"] == base.config.digest and made.config.origin["student"]["step"] == 2
    write_bundle(made, tmp_path / "b")
    again = Duovox.from_pretrained(tmp_path / "b")
    assert len(again.generate("low", n=2, sampler="student", steps=2, keep_faulty=True)) == 2
    assert fingerprint(again.bundle.model.classifier.network) == fingerprint(base.model.classifier.network)


def test_what_a_base_cannot_be_completed_with(
    lesson: Path, tiny_runs: Path, bundle_folder: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    base, recipe = read_bundle(bundle_folder), dataclasses.replace(tiny_recipe, **TAUGHT)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="holds a classifier of its own; leave --base out"):
        completed(base, tiny_runs, recipe)
    with pytest.raises(BundleError, match="holds no subnet, student or vocoder"):
        completed(base, tmp_path, recipe)
    mixed = Path(shutil.copytree(tiny_runs, tmp_path / "runs"))
    shutil.copytree(lesson / "student", mixed / "student")
    with pytest.raises(BundleError, match="student was trained on another classifier; train the student again"):
        assemble(mixed, recipe)


def test_from_a_bundle_to_its_student_by_commands(
    bundle_folder: Path, tiny_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.toml").write_bytes(write_recipe(dataclasses.replace(tiny_recipe, **TAUGHT)).encode())  # type: ignore[arg-type]
    solutions, runs, recipe = str(tmp_path / "s"), str(tmp_path / "runs"), str(tmp_path / "recipe.toml")
    solve = ["solve", str(bundle_folder), "--out", solutions, "--n", "64", "--steps", "4", "--gammas", "0.3", "--precision", "fp32"]
    assert main([*solve, "--time-budget", "0"]) == 0
    assert "0 of 64 solutions; the same command goes on" in capsys.readouterr().out
    assert main(solve) == 0
    train = ["train", "student", "--data", solutions, "--out", runs, "--recipe", recipe, "--precision", "fp32"]
    assert main(train) == 1
    assert "name the bundle that made the solutions with --teacher" in capsys.readouterr().err
    assert main([*train, "--teacher", str(bundle_folder)]) == 0
    made = ["bundle", runs, "--base", str(bundle_folder), "--recipe", recipe, "--out", str(tmp_path / "b")]
    assert main([*made, "--vocoder", "sc06"]) == 1
    assert main(made) == 0
    options = ["--sampler", "student", "--steps", "2", "--gamma", "0.3", "--keep-faulty"]
    assert main(["generate", "low", "--bundle", str(tmp_path / "b"), "--out", str(tmp_path / "low.wav"), *options]) == 0
    assert len(read_audio(tmp_path / "low.wav", 16000)) == 3840
    assert json.loads((tmp_path / "low.json").read_text())["settings"]["sampler"] == "student"
