"""training/augment.py: known answers."""

from __future__ import annotations

import math

import pytest
import torch

from duovox.training.augment import random_gain, stretch_mel


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_gain_is_one_constant_an_item_within_its_bounds() -> None:
    log_mel = torch.randn(200, 1, 4, 5, generator=generator())
    added = random_gain(log_mel, 6.0, generator()) - log_mel
    constant = added[:, 0, 0, 0]
    assert torch.allclose(added, constant[:, None, None, None].expand_as(added), atol=1e-6)
    six_db = math.log(10 ** (6 / 20))
    assert constant.abs().max() <= six_db + 1e-6
    assert constant.max() > 0.95 * six_db
    assert constant.min() < -0.95 * six_db
    assert constant.mean().abs() < 0.1 * six_db


def test_a_stretched_slope_has_another_slope_up_to_its_end() -> None:
    rows = torch.arange(80.0)
    log_mel = rows[None, None, :, None].expand(200, 1, 80, 3)
    stretched = stretch_mel(log_mel, 0.1, generator())
    factor = stretched[:, 0, 10, 0] / 10
    known = (rows * factor[:, None]).clamp(max=79)  # linear interpolation of a line is the line
    assert torch.allclose(stretched, known[:, None, :, None].expand(200, 1, 80, 3), atol=1e-4)
    assert factor.min() == pytest.approx(0.9, abs=0.01)
    assert factor.max() == pytest.approx(1.1, abs=0.01)


def test_between_two_rows_it_is_interpolated() -> None:
    log_mel = torch.zeros(50, 1, 8, 2)
    log_mel[:, :, 4] = 1.0
    stretched = stretch_mel(log_mel, 0.2, generator())
    factor = 1 + 0.2 * (2 * torch.rand((50, 1), generator=generator()) - 1)
    known = (1 - (torch.arange(8) * factor - 4).abs()).clamp(min=0)  # a triangle around row 4
    assert torch.allclose(stretched[:, 0, :, 0], known, atol=1e-5)


def test_nothing_asked_nothing_changed() -> None:
    log_mel = torch.randn(3, 1, 6, 5, generator=generator())
    assert torch.equal(random_gain(log_mel, 0.0, generator()), log_mel)
    assert torch.equal(stretch_mel(log_mel, 0.0, generator()), log_mel)


def test_the_same_generator_gives_the_same_change() -> None:
    log_mel = torch.randn(3, 1, 6, 5, generator=generator())
    for change in (random_gain, stretch_mel):
        assert torch.equal(change(log_mel, 0.2, generator()), change(log_mel, 0.2, generator()))
        assert not torch.equal(change(log_mel, 0.2, generator()), change(log_mel, 0.2, torch.Generator().manual_seed(1)))
