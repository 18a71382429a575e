"""What the tests share: one torch thread, a tiny recipe, a tiny model with no zeros in it, tiny data, runs and bundle, the real
recordings."""

from __future__ import annotations

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PYTHONFAULTHANDLER", "1")  # commands that tests start say where they died, as pytest itself does

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

from duovox import voice as voice_module
from duovox.bundle import FORMAT, Bundle, BundleConfig, write_bundle
from duovox.config import (
    Calibration,
    EncoderConfig,
    MelConfig,
    MelScale,
    NoiseConfig,
    Recipe,
    SampleConfig,
    Schooling,
    StudentConfig,
    SubnetConfig,
    TrainConfig,
    VocoderConfig,
)
from duovox.contracts import GuideAt
from duovox.data import prepare, which_split
from duovox.guides import LabelGuide
from duovox.model import Conditioned, ScoreModel, build_classifier, build_model
from duovox.sound.audio import write_audio
from duovox.sound.vocoder.istft_net import ISTFTNet
from duovox.student import begin_as, build_student
from duovox.training.start import start_training
from duovox.voice import Duovox

if TYPE_CHECKING:
    from duovox.exporting.folder import Exported

torch.set_num_threads(1)

for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:  # as nohup and background jobs start with; processes that tests start would inherit it
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

settings.register_profile("duovox", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("duovox")

COMPUTES_NOTHING = (
    "data",
    "serve",
    "test_architecture.py",
    "test_config.py",
    "test_native_crash.py",
    "test_provenance.py",
    "test_readme.py",
)
"""Folders and files whose tests train nothing and sample nothing that depends on the processor; all others are marked `compute`."""


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """The whole suite runs in two worker processes: if a test kills its process, that test fails by name and the
    others go on in a new one."""
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not hasattr(config, "workerinput")  # not in the worker itself
    if whole and getattr(config.option, "numprocesses", 0) is None and not config.option.usepdb and config.option.capture != "no":
        config.option.numprocesses = 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `.ci/run` runs once more with the kernels of other processors."""
    for item in items:
        if item.path.relative_to(Path(__file__).parent).parts[0] not in COMPUTES_NOTHING:
            item.add_marker(pytest.mark.compute)


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


def awake_model(recipe: Recipe, labels: int = LABELS) -> ScoreModel:
    """A model with fresh, seeded weights in which every parameter matters, in eval mode."""
    torch.manual_seed(0)
    classifier = build_classifier(recipe, labels)
    awaken(classifier)
    model = build_model(recipe, classifier)
    awaken(model.score_network)
    return model.eval()


def label_gradient(
    model: ScoreModel, label: Tensor, noised: Tensor, sigma: Tensor, at: GuideAt = "noised", calibration: Calibration | None = None
) -> tuple[Tensor, Tensor]:
    """denoised, and the gradient of a label guide of the model's own classifier."""
    guide = LabelGuide(model.classifier, label, at, model.noise.sigma_min, calibration or Calibration())
    denoised, (gradient,) = Conditioned(model, label).with_gradients(noised, sigma, [guide])
    return denoised, gradient


@pytest.fixture
def anything_is_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of a few updates make noise: within the test no clip has a fault."""
    monkeypatch.setattr(voice_module, "fault_of", lambda *_: "")


@pytest.fixture(scope="session")
def make_model() -> Callable[[Recipe], ScoreModel]:
    """`awake_model`, for tests that need other recipes than the tiny one."""
    return awake_model


@pytest.fixture
def tiny_model(tiny_recipe: Recipe) -> ScoreModel:
    return awake_model(tiny_recipe)


TONES = {"high": (2400.0, 3200.0), "low": (250.0, 300.0), "mid": (800.0, 1100.0)}
"""The words of the tiny data set: label -> pitch in Hz at the start and the end of the tone. As many as `LABELS`."""


def tone(label: str, voice: int, samples: int = 3840, rate: int = 16000) -> np.ndarray:
    """A gliding tone of a label, with noise and loudness of its own for each voice; float32 (samples,)."""
    rng = np.random.default_rng([voice, list(TONES).index(label)])
    pitch = np.linspace(*TONES[label], samples) * rng.uniform(0.9, 1.1)
    wave = rng.uniform(0.2, 0.5) * np.sin(2 * np.pi * np.cumsum(pitch) / rate) + rng.normal(0, 0.01, samples)
    return wave.astype(np.float32)


@pytest.fixture(scope="session")
def tiny_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of words: of each label a clip by 6 train speakers, 2 validation and 2 test speakers."""
    root = tmp_path_factory.mktemp("words")
    names = [f"{number:08x}" for number in range(1000)]
    for split, count in (("train", 6), ("validation", 2), ("test", 2)):
        for voice, name in enumerate([name for name in names if which_split(name) == split][:count]):
            for label in TONES:
                write_audio(root / label / f"{name}_nohash_0.wav", tone(label, 10 * len(split) + voice), 16000, parents=True)
    return root


@pytest.fixture(scope="session")
def tiny_features(tiny_words: Path, tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The feature folder of `tiny_words`."""
    out = tmp_path_factory.mktemp("features") / "tiny"
    prepare(tiny_words, out, tiny_recipe.mel, progress=False)
    return out


@pytest.fixture(scope="session")
def tiny_runs(tiny_features: Path, tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a classifier and a subnet trained for a few steps. Copy it before changing it."""
    out = tmp_path_factory.mktemp("runs")
    start_training("classifier", tiny_recipe, tiny_features, out, device="cpu", precision="fp32")
    start_training("subnet", tiny_recipe, tiny_features, out, device="cpu", precision="fp32")
    return out


@pytest.fixture(scope="session")
def tiny_bundle(tiny_recipe: Recipe) -> Bundle:
    """A bundle in memory with a neural vocoder; every parameter matters, none so much that it amplifies rounding errors. Change
    nothing in it."""
    torch.manual_seed(1)
    vocoder = ISTFTNet(tiny_recipe.vocoder, tiny_recipe.mel)
    awaken(vocoder)
    model = awake_model(tiny_recipe).requires_grad_(False)
    model.score_network.head[-1].weight.mul_(0.1)
    model.classifier.network.head[-1].weight.mul_(0.3)
    model.classifier.freeze()
    recipe = replace(tiny_recipe, sample=SampleConfig(steps=3, gamma=0.3))
    config = BundleConfig(FORMAT, tuple(TONES), recipe, MelScale("standard", -5.0, 0.25), origin={"classifier": {"step": 4}})
    return Bundle(config, model, vocoder.eval().requires_grad_(False), "# Tiny\n")


@pytest.fixture(scope="session")
def bundle_folder(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_bundle` on the disk. Copy it before changing it."""
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    write_bundle(tiny_bundle, folder)
    return folder


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of real recordings; the test is skipped where they are absent."""
    if not RECORDINGS.is_dir():
        pytest.skip("real recordings (../shared/data) are absent")
    return RECORDINGS


@pytest.fixture(scope="session")
def student_bundle(tiny_bundle: Bundle) -> Bundle:
    """`tiny_bundle` with a student of one, two or three evaluations at gamma 0.3 to 0.5, in which every parameter matters."""
    recipe = replace(tiny_bundle.config.recipe, student=StudentConfig(grids=((0,), (0, 2), (0, 2, 3))))
    schooling = Schooling((80.0, 20.0, 2.0, 0.2, 0.0), (0.3, 0.5))
    torch.manual_seed(2)
    student = build_student(recipe, tiny_bundle.model.classifier.network, LABELS, schooling)
    begin_as(student, tiny_bundle.model.score_network.state_dict())
    awaken(student.network)
    config = replace(tiny_bundle.config, recipe=recipe, schooling=schooling)
    return replace(tiny_bundle, config=config, student=student.eval().requires_grad_(False))


@pytest.fixture(scope="session")
def small_voice() -> Duovox:
    """A voice of one stage, so that its graphs are few nodes: every kind of part, a student among them, and clips that count as speech."""
    recipe = Recipe(
        "small",
        mel=MelConfig(n_mels=16, frames=16, clip_samples=3840),
        classifier=EncoderConfig(patch=4, widths=(8,), blocks=1, bottleneck_blocks=1, embedding=16, group_size=4),
        subnet=SubnetConfig(widths=(8,), blocks=1, embedding=16, group_size=4, fusion="concat", gradient_taps="label"),
        vocoder=VocoderConfig(width=16, hidden=32, blocks=1, pitch_width=8, refinements=1),
        sample=SampleConfig(steps=3, gamma=0.3),
        student=StudentConfig(grids=((0,), (0, 2), (0, 1, 2, 3))),
    )
    torch.manual_seed(1)
    vocoder = ISTFTNet(recipe.vocoder, recipe.mel)
    awaken(vocoder)
    model = awake_model(recipe).requires_grad_(False)
    model.score_network.head[-1].weight.mul_(0.1)
    model.classifier.network.head[-1].weight.mul_(0.3)
    model.classifier.freeze()
    schooling = Schooling((80.0, 20.0, 2.0, 0.2, 0.0), (0.3, 0.5))
    student = build_student(recipe, model.classifier.network, LABELS, schooling)
    begin_as(student, model.score_network.state_dict())
    awaken(student.network)
    with torch.no_grad():
        student.network.subnet.head[-1].weight.mul_(0.9)  # other weights than its teacher's
    config = BundleConfig(
        FORMAT,
        ("null", "one", "seven"),
        recipe,
        MelScale("standard", -5.0, 0.25),
        languages={"null": "de", "one": "en"},
        schooling=schooling,
    )
    return Duovox(Bundle(config, model, vocoder.eval().requires_grad_(False), student=student.eval().requires_grad_(False)))


@pytest.fixture(scope="session")
def exported(small_voice: Duovox) -> Exported:
    """`small_voice` exported (half a minute)."""
    from duovox.exporting.folder import export

    return export(small_voice)


@pytest.fixture(scope="session")
def exported_folder(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `exported`. Copy it before changing it."""
    from duovox.exporting.folder import write_exported

    folder = tmp_path_factory.mktemp("exported") / "small"
    write_exported(exported, folder)
    return folder
