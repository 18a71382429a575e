"""What the tests share: one torch thread, a tiny recipe, a tiny model with no zeros in it, the real recordings."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import nn

from duovox.config import (
    EncoderConfig,
    MelConfig,
    NoiseConfig,
    Recipe,
    SampleConfig,
    SubnetConfig,
    TrainConfig,
    VocoderConfig,
)
from duovox.model import GenerativeClassifier, build_classifier, build_model

torch.set_num_threads(1)

settings.register_profile("duovox", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("duovox")

RECORDINGS = Path(__file__).resolve().parents[2] / "shared" / "data"

LABELS = 3
"""Number of labels of `tiny_classifier` and `tiny_model`."""


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    """Two stages on mels of 16 x 16 (0.24 s of sound): every part of the real recipes, a thousandth of the cost."""
    train = TrainConfig(updates=4, batch=4, warmup=1, ema_decay=0.5, validate_every=2, checkpoint_every=2)
    return Recipe(
        "tiny",
        mel=MelConfig(n_mels=16, frames=16, clip_samples=3840),
        noise=NoiseConfig(),
        classifier=EncoderConfig(patch=2, widths=(8, 16), blocks=1, bottleneck_blocks=1, embedding=16, group_size=4),
        subnet=SubnetConfig(widths=(8, 12), blocks=1, embedding=16, group_size=4, fusion="attention", heads=2, gradient_taps="label"),
        vocoder=VocoderConfig(width=16, hidden=32, blocks=1, pitch_width=8, discriminator_width=4, crop_frames=8),
        sample=SampleConfig(steps=3),
        train_classifier=train,
        train_subnet=train,
        train_vocoder=train,
        train_judge=train,
    )


def awaken(module: nn.Module, seed: int = 0) -> None:
    """Give every all-zero parameter (heads, modulations, biases) small random values, so that nothing is silent."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def awake_model(recipe: Recipe, labels: int = LABELS) -> GenerativeClassifier:
    """A model with fresh, seeded weights in which every parameter matters, in eval mode."""
    torch.manual_seed(0)
    classifier = build_classifier(recipe, labels)
    awaken(classifier)
    model = build_model(recipe, classifier)
    awaken(model.subnet)
    return model.eval()


@pytest.fixture(scope="session")
def make_model() -> Callable[[Recipe], GenerativeClassifier]:
    """`awake_model`, for tests that need other recipes than the tiny one."""
    return awake_model


@pytest.fixture
def tiny_model(tiny_recipe: Recipe) -> GenerativeClassifier:
    return awake_model(tiny_recipe)


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of real recordings; the test is skipped where they are absent."""
    if not RECORDINGS.is_dir():
        pytest.skip("real recordings (../shared/data) are absent")
    return RECORDINGS
