"""A copy that is fine-tuned on noise: trained, asked at the noised mel, of every kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from speaking import (
    CPU,
    MEL,
    SAMPLE,
    WORDS,
    Plain,
    Spoken,
    fresh,
    no_export_fixture,
    round_as_bundles_do,
    snapshot,
    speak,
    tellers_fixture,
)

from duovox.classifiers.loading import Loaded
from duovox.config import Recipe
from duovox.repurposing import repurpose
from duovox.voice import Duovox

tellers = tellers_fixture
no_export = no_export_fixture
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*treespec:FutureWarning")


@pytest.fixture(scope="module")
def tuned(tiny_features: Path, tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Spoken:
    recipe = dataclasses.replace(tiny_recipe, train_classifier=dataclasses.replace(tiny_recipe.train_classifier, updates=8, rate=0.02))
    network = fresh(Plain)
    network.requires_grad_(False)  # as its owner may keep it
    root = tmp_path_factory.mktemp("tuned")
    return speak(network, tiny_features, root, recipe, labels=WORDS, features=MEL, conditioned=True)


def test_a_conditioned_copy_is_fine_tuned(tuned: Spoken) -> None:
    out, state = tuned.folder.parent / "out", tuned.network.state_dict()
    original, copy = (load_file(out / part / "weights.safetensors") for part in ("original", "classifier"))
    assert original.keys() == copy.keys()
    for name, value in state.items():
        assert original[f"network.{name}"].equal(value) and original[f"network.{name}"].dtype == value.dtype
        trained = name.endswith(("weight", "bias"))
        assert copy[f"network.{name}"].equal(value) != trained, name  # statistics and counts stay
    assert any(not copy[name].equal(original[name]) for name in original if name.startswith("modulation"))
    stored = load_file(tuned.folder / "model.safetensors")
    assert all(stored[f"classifier.{name}"].equal(value) for name, value in copy.items())
    assert snapshot(tuned.network) == tuned.before


def test_a_conditioned_copy_is_asked_at_the_noised_mel(tuned: Spoken) -> None:
    assert tuned.made.recipe.sample.guide_at == "noised" and tuned.voice.config.calibration.guide_at == "noised"
    assert tuned.clip.settings.guide_at == "noised"
    settings = tuned.made.recipe.train_classifier
    assert settings.updates == 4 and settings.rate == 0.005
    again = Duovox.from_pretrained(tuned.folder, trust_code=True)
    round_as_bundles_do(tuned.voice)
    for label in ("low", None):
        one, other = (voice.generate(label, seed=3, steps=2, keep_faulty=True)[0] for voice in (tuned.voice, again))
        assert np.array_equal(one.log_mel, other.log_mel) and one.probabilities == other.probabilities


def test_a_conditioned_copy_knows_the_noise_level(tuned: Spoken) -> None:
    network = tuned.voice.bundle.model.classifier.network
    mel = torch.zeros(1, 1, 16, 16)
    with torch.no_grad():
        quiet, loud = (network(mel, torch.tensor([sigma])) for sigma in (0.01, 1.0))
        plain = [tuned.made.classifier(mel, torch.tensor([sigma])) for sigma in (0.01, 1.0)]
    assert not torch.allclose(quiet, loud) and torch.allclose(*plain)  # before it was tuned: it knew nothing of noise


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("kind", ["factory", "script", "whisper", "gru", "waves"])
def test_every_kind_can_be_conditioned(
    tellers: Callable[[str], Spoken], kind: str, tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path
) -> None:
    before = tellers(kind)
    made, external = before.made, before.made.recipe.external
    assert external is not None
    given = Loaded(before.network, external.source, external.entry, external.arguments, code=made.classifier.code)  # type: ignore[arg-type]
    features = external.mel_input or external.wave_input
    loads = kind not in ("gru", "waves")
    taps = [tap.name for tap in external.taps]
    new = repurpose(
        given if loads else before.network, WORDS, features, taps, output=external.output, conditioned=True, recipe=tiny_recipe,
        vocoder=made.vocoder,
    )  # fmt: skip
    voice = new.train(tiny_features, tmp_path / "out", updates=1, **CPU)
    voice.save_pretrained(tmp_path / "bundle")
    again = Duovox.from_pretrained(tmp_path / "bundle", **(before.how if loads else {"classifier": before.network}))
    round_as_bundles_do(voice)
    mels = [v.sample_mels("low", [3], dataclasses.replace(SAMPLE, guide_at="noised")) for v in (voice, again)]
    assert mels[0].equal(mels[1])
    assert snapshot(before.network) == before.before
    bridge = {name: value for name, value in load_file(tmp_path / "out/classifier/weights.safetensors").items() if "front_end" in name}
    original = load_file(tmp_path / "out/original/weights.safetensors")
    assert all(value.equal(original[name]) for name, value in bridge.items()) and bool(bridge) == (kind == "waves")
