"""networks/speaker.py: what a time-delay network must not hear and what it must, its moments by hand."""

from __future__ import annotations

import pytest
import torch

from duovox.config import MelConfig, NoiseConfig, SpeakerConfig
from duovox.contracts import ShapeError
from duovox.networks.speaker import SideBySide, TimeDelayNetwork, weighted_moments

CONFIG = SpeakerConfig(0, 1, width=8, dilations=(1, 2), embedding=8, group_size=4)


@pytest.fixture
def network() -> TimeDelayNetwork:
    torch.manual_seed(0)
    return TimeDelayNetwork(CONFIG, MelConfig(n_mels=16), NoiseConfig(), 5).eval()


def mels(count: int = 3, frames: int = 20) -> torch.Tensor:
    return torch.randn(count, 1, 16, frames, generator=torch.Generator().manual_seed(1))


def test_a_colour_that_is_the_same_at_all_times_is_not_heard(network: TimeDelayNetwork) -> None:
    clean, sigma = mels(), torch.full((3,), 0.1)
    colour = torch.linspace(-2, 2, 16)[None, None, :, None]
    torch.testing.assert_close(network(clean + colour, sigma), network(clean, sigma), atol=1e-4, rtol=1e-4)
    change = torch.linspace(-2, 2, 20)[None, None, None]
    assert not torch.allclose(network(clean + change, sigma), network(clean, sigma), atol=1e-2), "what changes is heard"


def test_it_takes_any_length_and_no_other_bands(network: TimeDelayNetwork) -> None:
    assert network(mels(2, 33), torch.ones(2)).shape == (2, 5)
    with pytest.raises(ShapeError, match=r"expected a mel of shape \(B, 1, 16, T\)"):
        network(torch.zeros(2, 1, 15, 20), torch.ones(2))


def test_it_is_told_the_noise_level(network: TimeDelayNetwork) -> None:
    with torch.no_grad():
        for block in network.blocks:
            block.modulation.weight.normal_(generator=torch.Generator().manual_seed(2))
    low, high = (network(mels() * (level**2 + 0.25) ** 0.5, torch.full((3,), level)) for level in (0.1, 5.0))
    assert not torch.allclose(low, high, atol=1e-2), "else only the scale of the input, which is brought to 1, would differ"


def test_moments_are_weighed_by_the_softmax() -> None:
    frames = torch.tensor([[[1.0, 5.0, 2.0]]])
    even = weighted_moments(frames, torch.zeros(1, 1, 3))
    torch.testing.assert_close(even, (torch.tensor([[8 / 3]]), torch.tensor([[(78 / 27) ** 0.5]])))
    mean, spread = weighted_moments(frames, torch.tensor([[[0.0, 0.0, -1e9]]]))
    torch.testing.assert_close((mean, spread), (torch.tensor([[3.0]]), torch.tensor([[2.0]])))
    still = torch.ones(1, 1, 3, requires_grad=True)
    weighted_moments(still, torch.zeros(1, 1, 3))[1].sum().backward()
    assert still.grad is not None and bool(still.grad.isfinite().all()), "frames that are all the same have a gradient"


def test_side_by_side_believes_all_alike(network: TimeDelayNetwork) -> None:
    other = TimeDelayNetwork(CONFIG, MelConfig(n_mels=16), NoiseConfig(), 5).eval()
    both = SideBySide([network, other])(mels(), torch.ones(3))
    torch.testing.assert_close(both.norm(dim=1), torch.full((3,), 2**0.5))
    similar = torch.nn.functional.cosine_similarity(both[:1], both[1:2])
    each = [torch.nn.functional.cosine_similarity(*one(mels(), torch.ones(3))[:2, None]) for one in (network, other)]
    torch.testing.assert_close(similar, (each[0] + each[1]) / 2)
