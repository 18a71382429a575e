"""guide_making.py: every door by which a network comes in gives a guide; a guide made here steers; what cannot guide is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TONES, tone
from speaking import MEL, WORDS, OnWaves, Plain, fresh, program, tiny_vocoder, write_factory, write_whisper
from torch import Tensor, nn

from duovox.bundle import Bundle
from duovox.classifiers.loading import load_network
from duovox.config import Calibration, GuideStrength, MelInput, Recipe, WaveInput
from duovox.contracts import AudioError, BundleError, ClassifierError, ConfigError, DataError, Evaluation, GuideError, TrainingError
from duovox.guide_folder import read_guide
from duovox.repurposing import calibrate_guide, make_embedding_guide, make_guide, make_own_guide
from duovox.repurposing.guide_making import is_bundle, is_run
from duovox.sound.audio import write_audio
from duovox.sound.folders import sounds_of
from duovox.steering import join
from duovox.voice import Duovox

pytestmark = [
    pytest.mark.usefixtures("anything_is_speech"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*treespec:FutureWarning"),
]


def noise(count: int) -> Tensor:
    """Mels of 16 x 16, the same every time."""
    return 4 * torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def voice(tiny_bundle: Bundle) -> Duovox:
    return Duovox(tiny_bundle)


def given(door: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    """A network as it comes in by a door, and what must be said of it."""
    said: dict[str, Any] = {"labels": WORDS, "features": MEL}
    if door == "module":
        return fresh(Plain), said
    if door == "waves":
        return fresh(OnWaves), {"labels": WORDS, "features": WaveInput(sample_rate=8000, samples=1920, layout="B1S")}
    if door == "export":
        return load_network(program(fresh(Plain), folder / "plain.pt2")), said
    if door == "script":
        torch.jit.trace(fresh(Plain), noise(2)).save(str(folder / "plain.pt"))
        return load_network(folder / "plain.pt"), said
    if door == "function":
        return write_factory(folder), said
    return write_whisper(folder), {}


@pytest.mark.parametrize("door", ["module", "waves", "export", "script", "function", "huggingface"])
def test_every_door_gives_a_guide_that_is_the_same_from_its_folder(door: str, voice: Duovox, tiny_recipe: Recipe, tmp_path: Path) -> None:
    network, said = given(door, tmp_path)
    made = make_guide(network, **said, name="theirs", recipe=tiny_recipe, vocoder=tiny_vocoder(tiny_recipe))
    assert made.labels == WORDS
    again = read_guide(made.write(tmp_path / "theirs"), trust_code=True)
    assert again.digest == made.digest
    plain, one, other = (
        voice.generate("low", guides=[voice.guide(guide, "high", gamma=1e4)] if guide else [])[0] for guide in (None, made, again)
    )
    np.testing.assert_allclose(other.log_mel, one.log_mel, rtol=0, atol=1e-4)
    assert np.abs(one.log_mel - plain.log_mel).max() > 1e-3


def test_the_network_that_was_given_is_untouched(tiny_recipe: Recipe) -> None:
    network = fresh(Plain)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    guide = make_guide(network, WORDS, MEL, recipe=tiny_recipe)
    assert guide.network is not network and all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_temperature_and_strength_are_kept(tiny_recipe: Recipe) -> None:
    guide = make_guide(fresh(Plain), WORDS, MEL, temperature=3.0, strength=GuideStrength(gamma=2.0), recipe=tiny_recipe)
    assert guide.config.calibration == Calibration("estimate", (1.0,), (3.0,)) and guide.config.strength.gamma == 2.0


def refused(call: Callable[[], Any], kind: type[Exception], *parts: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    said = str(caught.value)
    assert "\n" not in said and all(part in said for part in parts), said


def test_networks_and_settings_that_cannot_guide(tiny_recipe: Recipe) -> None:
    class Beside(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x - x.mean())

    def make(network: nn.Module, labels: Any = WORDS, **options: Any) -> Callable[[], Any]:
        return lambda: make_guide(network, labels, MEL, recipe=tiny_recipe, **options)

    refused(make(fresh(Beside)), ClassifierError, "depends on the others in its batch")
    refused(make(fresh(Plain), ("a", "b")), ClassifierError, "3")
    refused(make(fresh(Plain), None), ClassifierError, "say the labels")
    refused(make(fresh(Plain), strength=GuideStrength(at="noised")), GuideError, "never met noise", "at='estimate'")
    for temperature in (0.0, -1.0, float("nan"), float("inf")):
        refused(make(fresh(Plain), temperature=temperature), ConfigError, "temperature of a guide must be positive and finite")


# Embeddings


class Spectrum(nn.Module):
    """An embedding of mels: the mean over time, above its own mean."""

    def forward(self, x: Tensor) -> Tensor:
        bands = x[:, 0].mean(dim=2)
        return bands - bands.mean(dim=1, keepdim=True)


@pytest.fixture(scope="module")
def likeness(tiny_recipe: Recipe) -> Any:
    """ "As low as these two tones, not as mid or high as those"."""
    background = [tone(label, number) for label in ("mid", "high") for number in range(3)]
    references = {"deep": [tone("low", 1), tone("low", 2)], "shrill": [tone("high", 9)]}
    return make_embedding_guide(fresh(Spectrum), references, background, MEL, name="likeness", recipe=tiny_recipe)


def test_references_are_the_labels_of_an_embedding_guide(likeness: Any, voice: Duovox, tmp_path: Path) -> None:
    assert likeness.labels == ("deep", "shrill") and likeness.anchors.shape == (8, 16)
    again = read_guide(likeness.write(tmp_path / "likeness"), trust_code=True)
    assert again.digest == likeness.digest and torch.equal(again.anchors, likeness.anchors)  # type: ignore[arg-type]
    heard = {}
    for name in ("low", "high"):
        wave = torch.from_numpy(tone(name, 20))[None]
        mel = (voice._log_mel(wave) - voice.config.mel_scale.shift) / voice.config.mel_scale.scale
        heard[name] = join(again, voice.bundle).classifier(mel, torch.tensor([0.01]))[0]
    assert int(heard["low"].argmax()) == 0 and heard["low"][0] > 0.9 and heard["high"][0] < heard["high"][1]


def test_an_embedding_guide_brings_clips_nearer_to_its_reference(likeness: Any, voice: Duovox) -> None:
    def nearness(clips: Any) -> float:
        bands = torch.stack([torch.from_numpy(clip.log_mel).mean(dim=1) for clip in clips])
        centred = nn.functional.normalize(bands - bands.mean(dim=1, keepdim=True), dim=1)
        return float((centred @ nn.functional.normalize(likeness.anchors[0], dim=0)).mean())

    plain, near = (nearness(voice.generate("low", 4, guides=some)) for some in ([], [voice.guide(likeness, "deep", gamma=30, cap=3)]))
    assert near > plain + 0.05


def test_files_and_folders_of_sounds(tmp_path: Path, tiny_recipe: Recipe) -> None:
    write_audio(tmp_path / "ann" / "a.wav", tone("low", 1), 16000, parents=True)
    write_audio(tmp_path / "ann" / "b.wav", tone("low", 2), 16000)
    assert [path.name for path in sounds_of(tmp_path / "ann")] == ["a.wav", "b.wav"]
    (tmp_path / "empty").mkdir()
    refused(lambda: sounds_of(tmp_path / "empty"), AudioError, "no sound files in")
    guide = make_embedding_guide(fresh(Spectrum), {"ann": sounds_of(tmp_path / "ann")}, [tone("high", 1)], MEL, recipe=tiny_recipe)
    both = make_embedding_guide(fresh(Spectrum), {"ann": [tone("low", 1), tone("low", 2)]}, [tone("high", 1)], MEL, recipe=tiny_recipe)
    torch.testing.assert_close(guide.anchors, both.anchors, rtol=0, atol=1e-3)


def test_references_that_cannot_be_heard(tmp_path: Path, tiny_recipe: Recipe) -> None:
    noise = [tone("high", 1)]

    def make(references: Any, background: Any = noise) -> Callable[[], Any]:
        return lambda: make_embedding_guide(fresh(Spectrum), references, background, MEL, recipe=tiny_recipe)

    write_audio(tmp_path / "silent.wav", np.zeros(16000, np.float32), 16000)
    refused(make({"ann": [tmp_path / "silent.wav"]}), AudioError, "silent.wav", "silent")
    refused(make({"ann": [np.zeros(16000, np.float32)]}), AudioError, "silent")
    refused(make({"ann": [tmp_path / "absent.wav"]}), AudioError, "absent.wav")
    refused(make({"ann": []}), GuideError, "needs at least one sound of each reference")
    refused(make({"ann": [tone("low", 1)]}, ()), GuideError, "needs background clips", "--background")


# Our own


def test_a_run_and_a_bundle_give_guides_that_know_noise(
    tiny_runs: Path, bundle_folder: Path, tiny_bundle: Bundle, voice: Duovox, tmp_path: Path
) -> None:
    run, file = make_own_guide(tiny_runs / "classifier"), make_own_guide(tiny_runs / "classifier" / "weights.safetensors")
    assert run.digest == file.digest and run.labels == tuple(sorted(TONES)) and run.config.strength.at == "noised"
    bundle = make_own_guide(bundle_folder)
    assert bundle.labels == tiny_bundle.config.labels
    again = read_guide(bundle.write(tmp_path / "words"))
    guide = voice.guide(again, "low")
    mels, sigma = noise(2), torch.tensor([0.5, 2.0])
    found = guide.guide.log_probability(Evaluation(mels, sigma))
    expected = tiny_bundle.model.classifier(mels, sigma).log_softmax(1)[:, voice.labels.index("low")]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)  # bundles may round


def test_sources_that_are_not_ours(tmp_path: Path, bundle_folder: Path, tiny_runs: Path) -> None:
    assert is_bundle("sc06") and is_bundle(bundle_folder) and not is_bundle(tmp_path) and not is_bundle("hello")
    assert not any(map(is_bundle, (str(tmp_path), ".", "..", "")))
    assert is_run(tiny_runs / "classifier") and not is_run(tmp_path) and not is_run(bundle_folder)
    refused(lambda: make_own_guide(tmp_path), TrainingError, "holds no trained classifier")
    with pytest.raises(BundleError):
        (tmp_path / "config.json").write_text('{"mel_scale": {}}')
        make_own_guide(tmp_path)


# Temperatures


def test_temperatures_are_fitted_where_the_guide_is_asked(voice: Duovox, tiny_features: Path, tiny_recipe: Recipe) -> None:
    guide = make_guide(fresh(Plain), WORDS, MEL, recipe=tiny_recipe)
    fitted, levels = calibrate_guide(guide, tiny_features, voice)
    assert fitted.config.calibration.guide_at == "estimate" and len(fitted.config.calibration.temperatures) == len(levels)
    assert fitted.digest != guide.digest
    assert all(level.loss_after < 50 for level in levels)
    other = make_guide(fresh(Plain), ("low", "high", "loud"), MelInput(n_mels=16, frames=16), recipe=tiny_recipe)
    refused(lambda: calibrate_guide(other, tiny_features, voice), DataError, "the word 'mid'", "does not know")
