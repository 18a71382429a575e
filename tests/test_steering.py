"""steering.py and `Duovox.guide`: guides joined to a voice, their targets and strengths; what a clip then depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from duovox import Clip, Duovox, MelInput, WaveInput
from duovox.bundle import Bundle
from duovox.config import Calibration, EncoderConfig, ExternalConfig, GuideConfig, GuideStrength, MelConfig, MelScale, Recipe
from duovox.contracts import ConfigError, DuovoxError, Evaluation, GuideError, LabelError
from duovox.embedders import Embedder
from duovox.guide_folder import FORMAT, GuideNetwork, with_digests
from duovox.model import build_classifier
from duovox.sound.mel import unscale_mel
from duovox.steering import check_guides, join

pytestmark = pytest.mark.usefixtures("anything_is_speech")
LABELS = ("low", "mid", "high")


def noise(count: int) -> Tensor:
    """Mels of 16 x 16, the same every time."""
    return 4 * torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(0))


class Tilt(nn.Module):
    """log-mel (B, 1, 16, 16) -> three logits: how much of it lies in each third of the bands."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        bands = x[:, 0].mean(dim=2)
        return self.gain * torch.stack([bands[:, :5].mean(1), bands[:, 5:11].mean(1), bands[:, 11:].mean(1)], dim=1)


def foreign(network: nn.Module | None = None, features: MelInput | WaveInput | None = None, **changes: Any) -> GuideNetwork:
    """A network of someone else's as a guide, put together by hand."""
    takes = features or MelInput(n_mels=16, frames=16)
    inputs: dict[str, Any] = {"mel_input": takes} if isinstance(takes, MelInput) else {"wave_input": takes}
    recipe = Recipe("guide", external=ExternalConfig(labels=LABELS, **inputs))
    config = GuideConfig(FORMAT, "classifier", LABELS, recipe)
    return with_digests(GuideNetwork("tilt", replace(config, **changes), (network or Tilt()).eval()))


@pytest.fixture(scope="module")
def voice(tiny_bundle: Bundle) -> Duovox:
    return Duovox(tiny_bundle)


def same(one: list[Clip], other: list[Clip], atol: float = 0.0) -> bool:
    return all(np.allclose(a.log_mel, b.log_mel, rtol=0, atol=atol) for a, b in zip(one, other, strict=True))


def tilt_of(clips: list[Clip]) -> np.ndarray:
    """How much louder the high bands are than the low ones, of each clip."""
    return np.array([clip.log_mel[11:].mean() - clip.log_mel[:5].mean() for clip in clips])


# What it does


def test_a_guide_moves_clips_towards_its_target_and_away_from_it(voice: Duovox) -> None:
    plain = tilt_of(voice.generate("low", 4))
    up = tilt_of(voice.generate("low", 4, guides=[voice.guide(foreign(), "high", gamma=30, cap=3)]))
    away = tilt_of(voice.generate("low", 4, guides=[voice.guide(foreign(), {"high": -1}, gamma=30, cap=3)]))
    assert (up > plain + 0.02).all() and (away < plain - 0.002).all()


def test_without_guides_and_at_gamma_zero_clips_are_unchanged_and_nothing_is_asked(voice: Duovox) -> None:
    class NeverAsked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("asked at gamma 0")

    idle = voice.guide(foreign(NeverAsked()), "high", gamma=0)
    for label in ("low", None):
        plain = voice.generate(label, 2)
        assert same(voice.generate(label, 2, guides=[]), plain)
        (first, _) = steered = voice.generate(label, 2, guides=[idle])
        assert same(steered, plain) and first.guides == ()


def test_a_clip_is_a_function_of_its_seed_whatever_the_batch(voice: Duovox) -> None:
    guides = [voice.guide(foreign(), "high"), voice.guide("own", {"mid": -1}, gamma=0.5)]
    whole = voice.generate("low", 5, batch=5, guides=guides)
    assert same(voice.generate("low", 5, batch=2, guides=guides), whole, atol=2e-4)
    assert same(voice.generate("low", 1, seed=3, guides=guides), whole[3:4], atol=2e-4)
    assert not same(voice.generate("low", 1, seed=3), whole[3:4], atol=1e-2)


def test_a_guide_works_without_a_label_and_with_every_sampler_but_the_student(voice: Duovox) -> None:
    guide = voice.guide(foreign(), "high", gamma=30, cap=3)
    for sampler in ("heun", "dpmpp_2m", "euler_maruyama"):
        plain, steered = (tilt_of(voice.generate(None, 3, sampler=sampler, steps=5, guides=some)) for some in ([], [guide]))
        assert (steered > plain).all(), sampler


def test_the_clip_says_what_steered_it(voice: Duovox) -> None:
    guide = voice.guide(foreign(), {"HIGH": 0.5, "mid": 0.5}, gamma=2, interval=(0.1, 5), cap=0.2)
    (clip,) = voice.generate("low", guides=[guide])
    (record,) = clip.guides
    assert record.target == {"high": 0.5, "mid": 0.5} and record.name == "tilt" and record.digest == foreign().digest
    assert record.strength == GuideStrength(2.0, 0.1, 5.0, 0.2)
    assert record.called == "tilt-high=0.5,mid=0.5"


def test_the_voices_own_classifier_guides_as_its_label_guidance_does(voice: Duovox) -> None:
    """Unconditional sampling with the guide "own-low" differs from sampling "low" by the gradient taps' label alone: with a target in
    the place of the label the guidance is the same at every point."""
    mels, sigma = noise(2), torch.tensor([0.5, 2.0])
    model = voice.bundle.model
    own, seen = voice.guide("own", "low"), Evaluation(mels, sigma, None, model.classifier, model.classifier(mels, sigma))
    expected = model.classifier(mels, sigma).log_softmax(1)[:, voice.labels.index("low")]
    torch.testing.assert_close(own.guide.log_probability(seen), expected)
    sample = voice.config.recipe.sample
    assert own.record.strength == GuideStrength(sample.gamma, sample.guidance_low, sample.guidance_high, float("inf"), "constant", "noised")


def test_a_function_of_the_log_mel_guides(voice: Duovox) -> None:
    louder = voice.function_guide(lambda log_mel: log_mel.mean(dim=(1, 2, 3)), "loud", gamma=1e4, cap=1)
    plain, loud = (np.mean([clip.log_mel.mean() for clip in voice.generate("low", 3, guides=some)]) for some in ([], [louder]))
    assert loud > plain + 0.05
    assert louder.record.called == "loud" and louder.record.digest == ""


# Joining


def test_a_foreign_network_is_asked_at_the_estimate_through_its_front_end(voice: Duovox) -> None:
    guide, mels, sigma = voice.guide(foreign(), "high"), noise(2), torch.tensor([0.5, 2.0])
    found = guide.guide.log_probability(Evaluation(mels, sigma, mels))
    expected = Tilt()(unscale_mel(mels, voice.config.mel_scale)).log_softmax(1)[:, 2]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)  # the stem brings back the amplitude of sigma_min


def test_temperatures_of_the_guide_are_used(voice: Duovox) -> None:
    calibration = Calibration("estimate", (1.0,), (50.0,))
    mels, sigma = noise(2), torch.tensor([0.5, 2.0])
    found = voice.guide(foreign(calibration=calibration), "high").guide.log_probability(Evaluation(mels, sigma, mels))
    logits = Tilt()(unscale_mel(mels, voice.config.mel_scale))
    torch.testing.assert_close(found, (logits / 50).log_softmax(1)[:, 2], rtol=0, atol=1e-4)
    assert (found - logits.log_softmax(1)[:, 2]).abs().max() > 1e-2


def test_a_network_of_waves_hears_the_voices_vocoder(voice: Duovox) -> None:
    class Power(nn.Module):
        def forward(self, wave: Tensor) -> Tensor:
            power = wave.square().mean(dim=1)
            return torch.stack([-power, power, 2 * power], dim=1)

    guide = voice.guide(foreign(Power(), WaveInput(sample_rate=8000, samples=1920)), "high", gamma=1e9, cap=1)
    plain, loud = (np.mean([np.square(clip.wave).mean() for clip in voice.generate("low", 3, guides=some)]) for some in ([], [guide]))
    assert loud > 1.02 * plain


def test_a_classifier_of_ours_guides_at_the_noised_mel(voice: Duovox, tiny_recipe: Recipe) -> None:
    torch.manual_seed(3)
    network = build_classifier(tiny_recipe, 3).eval()
    config = GuideConfig(FORMAT, "classifier", ("a", "b", "c"), tiny_recipe, MelScale("standard", -4.0, 0.5))
    guide = voice.guide(with_digests(GuideNetwork("ours", config, network)), "b", at="noised")
    mels, sigma = noise(2), torch.tensor([0.5, 2.0])
    found = guide.guide.log_probability(Evaluation(mels, sigma, None))
    expected = network((mels * 0.25 - 5 + 4) / 0.5, sigma / 2).log_softmax(1)[:, 1]
    torch.testing.assert_close(found, expected)


def test_embeddings_of_waves_and_of_their_mels_are_alike_where_the_front_end_is_ours(voice: Duovox) -> None:
    class Bands(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, 0].transpose(1, 2)  # an embedding for each frame

    guide = foreign(Bands())
    external = replace(guide.config.recipe.external, output_axes="BTK")  # type: ignore[type-var]
    anchors = torch.eye(16)[:5]
    whole = replace(
        guide, config=replace(guide.config, kind="embedding", recipe=replace(guide.config.recipe, external=external)), anchors=anchors
    )
    joined = join(whole, voice.bundle)
    assert joined.outputs == 5 and joined.labels == LABELS
    embedder = joined.classifier.embed  # type: ignore[attr-defined]
    assert isinstance(embedder, Embedder)
    wave = 0.3 * torch.sin(torch.arange(3840) * 0.4)[None]
    log_mel = voice._log_mel(wave)
    scaled = (log_mel - voice.config.mel_scale.shift) / voice.config.mel_scale.scale
    torch.testing.assert_close(embedder.of_waves(wave), embedder(scaled, torch.ones(1)), rtol=0, atol=1e-3)
    torch.testing.assert_close(embedder(scaled, torch.ones(1)), log_mel[:, 0].mean(2), rtol=0, atol=1e-3)


# What is refused


def refused(call: Callable[[], Any], kind: type[DuovoxError], *parts: str) -> None:
    """One line of this kind with these parts."""
    with pytest.raises(kind) as caught:
        call()
    said = str(caught.value)
    assert "\n" not in said and all(part in said for part in parts), said


def test_a_target_that_the_guide_lacks(voice: Duovox) -> None:
    refused(
        lambda: voice.guide(foreign(), "hihg"),
        LabelError,
        "guide tilt: unknown label 'hihg'",
        "the nearest: high",
        "it knows: low, mid, high",
    )
    refused(lambda: voice.guide(foreign()), LabelError, "say what is wanted of the guide tilt, one of low, mid, high")
    refused(lambda: voice.guide("own", "hello"), LabelError, "guide own: unknown label 'hello'")


def test_targets_that_want_nothing(voice: Duovox) -> None:
    for target in ({}, {"low": 0.0}):
        refused(lambda target=target: voice.guide(foreign(), target), ConfigError, "must have a weight that is not 0")  # type: ignore[misc]
    refused(lambda: voice.guide(foreign(), {"low": float("nan")}), ConfigError, "the weight of 'low'", "finite number, not nan")
    refused(lambda: voice.guide(foreign(), {"low": "much"}), ConfigError, "finite number, not 'much'")  # type: ignore[dict-item]
    refused(lambda: voice.guide(foreign(), {"low": 1, "LOW": 1}), ConfigError, "names a label twice")


def test_strengths_that_cannot_be(voice: Duovox) -> None:
    refused(lambda: voice.guide(foreign(), "low", at="noised"), GuideError, "the guide tilt never met noise", "at the estimate alone")
    refused(lambda: voice.guide(foreign(), "low", cap=0), ConfigError, "guide.cap must be positive, not 0", "set its gamma to 0")
    refused(lambda: voice.guide(foreign(), "low", cap=-1), ConfigError, "guide.cap must be positive")
    refused(lambda: voice.guide(foreign(), "low", gamma=-1), ConfigError, "guide.gamma must not be negative")
    refused(lambda: voice.guide(foreign(), "low", gamma=float("nan")), ConfigError, "guide.gamma must be finite")
    refused(lambda: voice.guide(foreign(), "low", interval=(5, 1)), ConfigError, "guide.low 5.0 must lie below high 1.0")
    refused(lambda: voice.guide(foreign(), "low", gama=5), ConfigError, "unknown setting 'gama'; did you mean 'gamma'?")


def test_guides_that_cannot_steer_together(voice: Duovox) -> None:
    guide = voice.guide(foreign(), "low")
    refused(lambda: voice.generate("low", guides=[guide, voice.guide(foreign(), "low", gamma=3)]), GuideError, "tilt-low is given twice")
    many = [voice.guide(foreign(), {"low": 1.0, "high": float(number)}) for number in range(1, 18)]
    refused(lambda: voice.generate("low", guides=many), GuideError, "17 guides are too many, at most 16")
    check_guides(many[:16], voice.settings())
    refused(lambda: check_guides([guide], replace(voice.settings(), sampler="student")), GuideError, "the sampler student asks no guide")


def test_a_guide_that_answers_nan_at_high_noise(voice: Duovox) -> None:
    class Breaks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            bands = Tilt()(x)
            return bands / (x.amax((1, 2, 3)) < -3.5)[:, None]

    guide = voice.guide(foreign(Breaks()), "low", interval=(0.01, 80))
    refused(lambda: voice.generate("low", 4, guides=[guide]), GuideError, "the guide tilt-low", "at noise level", "lower noise")


def test_takes_that_disagree_with_the_voice(voice: Duovox, tiny_recipe: Recipe) -> None:
    uneven = foreign(Tilt(), WaveInput(sample_rate=15999, samples=15999))
    refused(lambda: voice.guide(uneven, "low"), GuideError, "the guide tilt does not fit this voice, which speaks at 16000 Hz", "15999")
    deaf = Duovox(replace(voice.bundle, vocoder=None))
    refused(lambda: deaf.guide(foreign(Tilt(), WaveInput()), "low"), GuideError, "no neural vocoder")
    recipe = replace(tiny_recipe, mel=MelConfig(sample_rate=8000, fmax=4000.0, n_mels=16, frames=16, clip_samples=3840))
    ours = GuideNetwork("ours", GuideConfig(FORMAT, "classifier", ("a", "b"), recipe), build_classifier(recipe, 2))
    refused(lambda: voice.guide(ours, "a"), GuideError, "the guide ours does not fit this voice", "fmax = 4000.0, the voice's has 8000.0")


def test_functions_that_are_none_of_one_clip(voice: Duovox) -> None:
    beside = lambda x: x.mean((1, 2, 3)) - x.mean()  # noqa: E731
    refused(lambda: voice.function_guide(beside, "beside"), GuideError, "the guide beside is no function of one clip")
    refused(
        lambda: voice.function_guide(lambda x: x.detach().mean((1, 2, 3)), "deaf"), GuideError, "the guide deaf", "no gradient leads back"
    )
    refused(lambda: voice.function_guide(lambda x: x.mean(), "all"), GuideError, "must give one value a clip")
    refused(lambda: voice.function_guide(lambda x: x.mean((1, 2, 3)), "x", at="noised"), GuideError, "at the estimate alone")


def test_guides_that_are_added_have_different_names(tiny_bundle: Bundle) -> None:
    voice = Duovox(tiny_bundle)
    assert voice.add_guide(foreign()).name == "tilt"
    assert voice.guide("tilt", "low").record.digest == foreign().digest
    refused(lambda: voice.add_guide(foreign()), GuideError, "there is a guide tilt already")
    refused(lambda: voice.add_guide(replace(foreign(), name="own")), GuideError, "own")


def test_the_recipe_of_our_own_guides_is_checked_by_its_own_rules() -> None:
    with pytest.raises(ConfigError, match="labels"):
        GuideConfig(FORMAT, "classifier", (), Recipe("x", classifier=EncoderConfig()))
