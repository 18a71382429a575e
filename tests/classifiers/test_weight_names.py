"""weight_names.py: names that a wrapper changed are matched, and nothing else is guessed."""

from __future__ import annotations

import pytest
import torch

from duovox.classifiers.weight_names import fitting_names, without_wrappers

NAMES = ("body.0.weight", "body.0.bias", "head.weight")


def tensors(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(float(number)) for number, name in enumerate(names)}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (NAMES, ""),
        (["module." + name for name in NAMES], "'module.'"),
        (["_orig_mod." + name for name in NAMES], "'_orig_mod.'"),
        (["module._orig_mod." + name for name in NAMES], "'_orig_mod.' and 'module.'"),
        (["_orig_mod.module." + name for name in NAMES], "'_orig_mod.' and 'module.'"),
        (["body._orig_mod.0.weight", "body._orig_mod.0.bias", "head.weight"], "'_orig_mod.'"),
        (["module.body.0.weight", "module.body.0.bias", "head.weight"], "'module.'"),
        (["model." + name for name in NAMES], "'model.'"),
        (["model._orig_mod." + name for name in NAMES], "'_orig_mod.' and 'model.'"),
    ],
)
def test_wrappers_are_dropped_and_said(given: tuple[str, ...], said: str) -> None:
    fitted, notes = fitting_names(tensors(*given), NAMES)
    assert list(fitted) == list(NAMES) and [int(value) for value in fitted.values()] == [0, 1, 2]
    assert notes == ((f"the names of its weights are read without {said}",) if said else ())


def test_the_network_may_be_the_wrapped_one() -> None:
    wanted = [f"_orig_mod.{name}" for name in NAMES]
    fitted, notes = fitting_names(tensors(*NAMES), wanted)
    assert list(fitted) == wanted and notes == ()


def test_a_network_with_parts_of_these_names_keeps_them() -> None:
    wanted = ("module.weight", "module.module.weight", "weight")
    assert list(fitting_names(tensors(*wanted), wanted)[0]) == list(wanted)


@pytest.mark.parametrize("given", [("other.weight",), ("module.body.0.weight", "body.0.weight"), ("a.head.weight", "b.head.weight")])
def test_what_does_not_fit_or_not_once_is_left_alone(given: tuple[str, ...]) -> None:
    fitted, notes = fitting_names(tensors(*given), NAMES)
    assert tuple(fitted) == given and notes == ()


def test_wrappers_of_all_names_are_dropped_without_a_network() -> None:
    kept, notes = without_wrappers(tensors("module._orig_mod.a", "module._orig_mod.module.b"))
    assert list(kept) == ["a", "module.b"] and notes == ("the names of its weights are read without '_orig_mod.' and 'module.'",)
    assert without_wrappers(tensors("module.a", "b")) == (tensors("module.a", "b"), ())
    assert without_wrappers({}) == ({}, ())
