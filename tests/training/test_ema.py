"""training/ema.py: the average is the recursion in its docstring."""

from __future__ import annotations

import torch
from torch import nn

from duovox.training.ema import averaged


def test_the_average_is_the_recursion_written_out() -> None:
    module = nn.Linear(2, 2)
    average = averaged(module, decay=0.3)
    torch.manual_seed(0)
    expected = None
    for count in range(6):
        with torch.no_grad():
            module.weight.copy_(torch.randn(2, 2))
        average.update_parameters(module)
        decay = min(0.3, (1 + count) / (10 + count))
        assert count != 5 or decay == 0.3  # the test sees both sides of the minimum
        expected = module.weight.clone() if expected is None else decay * expected + (1 - decay) * module.weight
        torch.testing.assert_close(average.module.weight, expected)


def test_the_average_shares_nothing_with_the_network() -> None:
    module = nn.Linear(2, 2)
    average = averaged(module, decay=0.9)
    average.update_parameters(module)
    before = average.module.weight.clone()
    with torch.no_grad():
        module.weight.add_(1)
    assert torch.equal(average.module.weight, before)


def test_buffers_are_copied_not_averaged() -> None:
    module = nn.BatchNorm1d(2)
    average = averaged(module, decay=0.9)
    for value in (1.0, 2.0):
        module.running_mean.fill_(value)
        average.update_parameters(module)
    assert average.module.running_mean.tolist() == [2.0, 2.0]
