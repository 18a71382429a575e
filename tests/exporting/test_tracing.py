"""Graphs of functions with backward passes in them: the same numbers as eager PyTorch, for any batch and any size of convolution."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from duovox.config import Calibration
from duovox.exporting.tracing import trace
from duovox.guides import LabelGuide, temperature_at
from duovox.model import Conditioned, ScoreModel


def input_gradient(layer: nn.Module):  # type: ignore[no-untyped-def]
    """x -> d sum(layer(x)^2) / dx."""

    def gradient(x: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            return torch.autograd.grad(layer(leaf).square().sum(), leaf)[0]

    return gradient


CONVOLUTIONS = {
    "odd sizes": (nn.Conv2d(3, 4, 3, stride=2, padding=1), (3, 9, 7)),
    "even sizes": (nn.Conv2d(3, 4, 3, stride=2, padding=1), (3, 8, 6)),
    "one odd, one even": (nn.Conv2d(2, 4, (5, 3), stride=(3, 2), padding=(0, 1)), (2, 12, 9)),
    "dilated": (nn.Conv2d(2, 4, 3, stride=2, dilation=2), (2, 11, 12)),
    "grouped": (nn.Conv2d(4, 8, 3, padding=1, groups=2), (4, 5, 6)),
    "one dimension": (nn.Conv1d(3, 5, 4, stride=3), (3, 17)),
    "transposed": (nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1), (3, 5, 4)),
    "transposed in one dimension": (nn.ConvTranspose1d(3, 2, 4, stride=3), (3, 7)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_gradient_of_a_convolution(name: str) -> None:
    layer, shape = CONVOLUTIONS[name]
    gradient = input_gradient(layer.requires_grad_(False))
    graph = trace(gradient, [torch.randn(2, *shape)])
    for batch in (1, 2, 5):
        x = torch.randn(batch, *shape)
        torch.testing.assert_close(graph(x), gradient(x), rtol=1e-5, atol=1e-5)


POOLS = {
    "the largest": nn.MaxPool2d(3, 2, 1),
    "the largest, overlapping": nn.MaxPool2d(3, 1),
    "adaptive, uneven": nn.AdaptiveAvgPool2d((3, 5)),
    "adaptive, larger": nn.AdaptiveAvgPool2d((12, 4)),
}


@pytest.mark.parametrize("name", POOLS)
def test_the_gradient_of_pooling(name: str) -> None:
    gradient = input_gradient(POOLS[name])
    graph = trace(gradient, [torch.randn(2, 3, 7, 9)])
    for batch in (1, 3):
        x = torch.randn(batch, 3, 7, 9)
        torch.testing.assert_close(graph(x), gradient(x), rtol=1e-5, atol=1e-5)


def test_a_gradient_by_weights_is_refused() -> None:
    layer = nn.Conv1d(1, 1, 3)

    def by_weights(x: Tensor) -> Tensor:
        with torch.enable_grad():
            return torch.autograd.grad(layer(x).sum(), layer.weight)[0]

    with pytest.raises(NotImplementedError, match="by its weights"):
        trace(by_weights, [torch.randn(2, 1, 8)])


def test_a_guided_step_for_any_batch(tiny_model: ScoreModel) -> None:
    """Both backward passes of the model: that of the taps, and that of the label."""

    def step(noised: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        guide = LabelGuide(tiny_model.classifier, label)
        denoised, (gradient,) = Conditioned(tiny_model, label).with_gradients(noised, sigma, [guide])
        return denoised + gradient

    tiny_model.requires_grad_(False)
    graph = trace(step, [torch.randn(3, 1, 16, 16), torch.ones(3), torch.tensor([0, 1, 2])])
    for batch in (1, 2, 4):
        inputs = torch.randn(batch, 1, 16, 16), torch.rand(batch) + 0.1, torch.arange(batch) % 3
        torch.testing.assert_close(graph(*inputs), step(*inputs), rtol=1e-4, atol=1e-5)


def test_a_temperature_between_noise_levels() -> None:
    calibration = Calibration("noised", (0.1, 1.0, 10.0), (1.0, 2.0, 8.0))

    def temperature(sigma: Tensor) -> Tensor:
        found = temperature_at(calibration, sigma, "noised")
        assert found is not None
        return found

    sigma = torch.tensor([0.01, 0.1, 0.3, 1.0, 5.0, 100.0])
    torch.testing.assert_close(trace(temperature, [sigma[:2]])(sigma), temperature(sigma))
