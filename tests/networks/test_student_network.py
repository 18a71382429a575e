"""networks/student.py: a fresh student says what its teacher says, whatever it is told; a taught one listens to all of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_scoresubnet import C_NOISE, CONFIG, MEL, SHAPES, run, seeded, subnet_of, taps_of
from torch import Tensor

from duovox.config import SubnetConfig
from duovox.contracts import NO_LABEL
from duovox.diffusion.noise import Preconditioning
from duovox.networks.student import Jump, StudentNetwork, taught_by

COEFFICIENTS = Preconditioning(C_NOISE, C_NOISE, C_NOISE, C_NOISE)
JUMP = Jump(torch.tensor([0.0, 0.4]), torch.tensor([2, NO_LABEL]), torch.tensor([3.0, 0.0]))
EMBEDDED = replace(CONFIG, gradient_taps="none")


def student_of(config: SubnetConfig, strengths: bool = True) -> StudentNetwork:
    torch.manual_seed(1)
    return StudentNetwork(config, SHAPES, 2, 3, strengths)


def say(student: StudentNetwork, jump: Jump = JUMP) -> Tensor:
    return student(MEL, COEFFICIENTS, taps_of(student.gradient_taps != "none"), jump)


@pytest.mark.parametrize("fusion", ["concat", "attention"])
def test_a_fresh_student_says_what_its_teacher_says(fusion: str) -> None:
    config = replace(CONFIG, gradient_taps="label", fusion=fusion)  # type: ignore[arg-type]
    teacher, student = subnet_of(config), student_of(config)
    student.load_state_dict(taught_by(teacher.state_dict(), student))
    assert torch.equal(say(student), run(teacher, taps_of()))


@pytest.mark.parametrize("fusion", ["concat", "attention"])
def test_without_gradient_taps_it_begins_as_its_teacher_does_with_none(fusion: str) -> None:
    config = replace(CONFIG, gradient_taps="label", fusion=fusion)  # type: ignore[arg-type]
    teacher, student = subnet_of(config), student_of(replace(config, gradient_taps="none"))
    student.load_state_dict(taught_by(teacher.state_dict(), student))
    if fusion == "concat":  # a gradient of nothing adds nothing
        nothing = taps_of()
        silent = replace(nothing, gradients=tuple(torch.zeros_like(g) for g in nothing.gradients or ()))
        assert torch.allclose(say(student), run(teacher, silent), atol=1e-6)
    else:
        assert torch.equal(student.subnet.fusions[0].activation.weight, teacher.fusions[0].activation.weight)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("config", "changed"),
    [
        (CONFIG, Jump(torch.tensor([0.1, 0.5]), JUMP.label, JUMP.gamma)),
        (CONFIG, Jump(JUMP.ratio, JUMP.label, torch.tensor([2.0, 1.0]))),
        (EMBEDDED, Jump(JUMP.ratio, torch.tensor([1, 0]), JUMP.gamma)),
    ],
)
def test_all_that_it_is_told_matters_once_it_has_learned(config: SubnetConfig, changed: Jump) -> None:
    student = student_of(config)
    with torch.no_grad():
        for parameter in student.parameters():
            if not parameter.any():
                parameter.copy_(0.3 * seeded(*parameter.shape))
    assert ((say(student) - say(student, changed)).abs().amax(dim=(1, 2, 3)) > 1e-4).all()


def test_it_has_no_more_than_it_needs() -> None:
    names = set(student_of(CONFIG, strengths=False).state_dict())
    assert not any(name.startswith(("gamma.", "label.")) for name in names) and any(name.startswith("ratio.") for name in names)
    assert student_of(EMBEDDED).state_dict()["label.weight"].shape == (4, 16)
