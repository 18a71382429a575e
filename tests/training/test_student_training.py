"""training/student.py: what a student learns is what its teacher's path says; it begins as its teacher and comes nearer to its end."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import pytest
import torch

from duovox.bundle import Bundle, read_bundle
from duovox.classifiers.frozen import fingerprint
from duovox.config import NoiseConfig, Recipe, SolutionConfig, StudentConfig, TrainConfig
from duovox.contracts import NO_LABEL, ConfigError, TrainingError
from duovox.diffusion.noise import precondition
from duovox.runs import read_weights
from duovox.training.optim import update
from duovox.training.schedule import step_generator
from duovox.training.solutions import Batch, Solutions, make_solutions, open_solutions
from duovox.training.start import start_training
from duovox.training.student import StudentTraining, draw_jumps, jump_loss
from duovox.voice import Duovox

CPU = torch.device("cpu")
GRIDS = ((0,), (0, 2), (0, 2, 3))


@pytest.fixture(scope="module")
def solved(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("solutions") / "s"
    make_solutions(Duovox.from_pretrained(bundle_folder), folder, 64, SolutionConfig(0.2, 4, (0.3,), 10**6))
    return folder


@pytest.fixture
def teacher(bundle_folder: Path) -> Bundle:
    return read_bundle(bundle_folder)


def taught(recipe: Recipe, taps: Literal["label", "none"] = "label") -> Recipe:
    """A recipe with a student of three grids."""
    train = TrainConfig(updates=4, batch=16, rate=3e-3, warmup=1, ema_decay=0.5, validate_every=2, checkpoint_every=2)
    return dataclasses.replace(recipe, student=StudentConfig(taps, GRIDS), train_student=train)


def trainee(solved: Path, teacher: Bundle, taps: Literal["label", "none"] = "label") -> StudentTraining:
    return StudentTraining(taught(teacher.config.recipe, taps), open_solutions(solved), teacher, CPU, None)


def test_the_loss_is_nothing_where_the_estimate_is_right_and_grows_with_the_error() -> None:
    sigma, noise = torch.tensor([0.5, 20.0]), NoiseConfig()
    wanted = torch.randn(2, 1, 4, 4)
    assert torch.equal(jump_loss(wanted, wanted, sigma, noise, 0.05), torch.zeros(2))
    off = wanted + 2.0 * precondition(sigma, noise).c_out[:, None, None, None]
    assert torch.allclose(jump_loss(off, wanted, sigma, noise, 0.05), torch.full((2,), 1.9506), atol=1e-4)


def test_jumps_go_forward_and_a_share_are_the_grids_own() -> None:
    config = StudentConfig(grids=GRIDS, grid_share=0.5)
    first, last = draw_jumps(config, 4, 40000, torch.Generator().manual_seed(0))
    assert bool((first < last).all()) and first.min() == 0 and last.max() == 4 and last.min() == 1
    grids = {(0, 4), (0, 2), (2, 4), (2, 3), (3, 4)}  # (0, 2) is in two grids
    pairs = list(zip(first.tolist(), last.tolist(), strict=True))
    share = sum(pair in grids for pair in pairs) / len(pairs)
    assert abs(share - (0.5 + 0.5 * (1 / 16 + 1 / 16 + 1 / 8 + 1 / 8 + 1 / 4))) < 0.01
    assert {(0, 1), (0, 3), (1, 2), (1, 3), (1, 4)} <= set(pairs)
    only = draw_jumps(dataclasses.replace(config, grid_share=1.0), 4, 1000, torch.Generator().manual_seed(1))
    assert set(zip(*(side.tolist() for side in only), strict=True)) == grids


def test_a_fresh_student_says_what_its_teacher_says_without_guidance(solved: Path, teacher: Bundle) -> None:
    student = trainee(solved, teacher).student
    noised, sigma, label = torch.randn(2, 1, 16, 16), torch.tensor([3.0, 0.4]), torch.tensor([1, NO_LABEL])
    ours = student(noised, sigma, sigma * 0.3, label, torch.tensor([0.3, 0.0]))
    theirs = teacher.model.denoise(teacher.model.taps(noised, sigma, label), noised, sigma)
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("taps", ["label", "none"])
def test_it_learns_to_jump(solved: Path, teacher: Bundle, taps: Literal["label", "none"]) -> None:
    """Within some updates it comes nearer to its teacher's ends, of seeds it is not trained on; the classifier stays as it was."""
    training = trainee(solved, teacher, taps)
    frozen, before = fingerprint(teacher.model.classifier.network), training.validate()
    for step in range(60):
        update(training, step, step_generator(0, step, CPU))
    after = training.validate()
    assert list(before) == ["distance_in_3", "distance_in_2", "distance_in_1"]
    assert all(after[name] < 0.8 * before[name] for name in before), (before, after)
    assert fingerprint(teacher.model.classifier.network) == frozen


def test_without_gradient_taps_the_label_comes_by_its_embedding(solved: Path, teacher: Bundle) -> None:
    training = trainee(solved, teacher, "none")
    for step in range(4):
        update(training, step, step_generator(0, step, CPU))
    student, noised, sigma = training.student.eval(), torch.randn(2, 1, 16, 16), torch.tensor([3.0, 0.4])
    one, two = (student(noised, sigma, sigma * 0, torch.tensor(labels), torch.zeros(2)) for labels in ((0, 1), (2, NO_LABEL)))
    assert ((one - two).abs().amax(dim=(1, 2, 3)) > 1e-7).all()


def test_unfit_solutions(solved: Path, teacher: Bundle) -> None:
    solutions, recipe = open_solutions(solved), taught(teacher.config.recipe)
    foreign = Solutions(solved, solutions.facts | {"teacher": "0" * 64}, solutions.config, 1)
    with pytest.raises(TrainingError, match="solutions of another teacher"):
        StudentTraining(recipe, foreign, teacher, CPU, None)
    far = dataclasses.replace(recipe, student=StudentConfig(grids=((0, 4),)))
    with pytest.raises(ConfigError, match=r"student\.grids names node 4, its schooling has 4 before the clean one"):
        StudentTraining(far, solutions, teacher, CPU, None)


def test_a_run_says_what_it_is_and_goes_on_with_the_solutions_it_began_with(
    solved: Path, bundle_folder: Path, teacher: Bundle, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    recipe = taught(tiny_recipe)
    with pytest.raises(TrainingError, match="a student needs its teacher; name the bundle that made the solutions with --teacher"):
        start_training("student", recipe, solved, tmp_path, device="cpu")
    whole = start_training("student", recipe, solved, tmp_path / "a", device="cpu", precision="fp32", teacher=bundle_folder)
    facts, tensors = read_weights(tmp_path / "a" / "student")
    assert whole.complete and facts["teacher"] == teacher.config.digest and facts["clips"] == 62 and facts["shards"] == 1
    assert facts["classifier"] == fingerprint(teacher.model.classifier.network)
    assert facts["recipe"]["subnet"]["widths"] == list(teacher.config.recipe.subnet.widths)
    start_training(
        "student", recipe, solved, tmp_path / "b", device="cpu", precision="fp32", teacher=bundle_folder, time_budget=0, fit=False
    )
    start_training("student", recipe, solved, tmp_path / "b", device="cpu", precision="fp32", teacher=bundle_folder, resume=True)
    again = read_weights(tmp_path / "b" / "student")[1]
    assert all(torch.equal(value, again[name]) for name, value in tensors.items()), "a run in two pieces is the run in one"


def test_a_batch_of_one_solution_twice_is_the_same_twice(solved: Path) -> None:
    batch: Batch = open_solutions(solved).batch([5, 5])
    assert torch.equal(batch.nodes[0], batch.nodes[1]) and batch.label[0] == batch.label[1]
