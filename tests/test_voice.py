"""duovox.py: listening and speaking through the public object, on a tiny bundle in which every parameter matters."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TONES, tone

from duovox import Clip, Duovox
from duovox.assemble import assemble
from duovox.bundle import Bundle
from duovox.config import MelConfig, Recipe, SampleConfig, TrainConfig
from duovox.contracts import AudioError, BundleError, ConfigError, GenerationError, LabelError, OutputError
from duovox.diffusion.guidance import ClassifierGuidance, GuidanceSchedule
from duovox.diffusion.sampling import SeededNoise
from duovox.guides import LabelGuide
from duovox.mels import denoiser_of
from duovox.model import ScoreModel
from duovox.sound.audio import write_audio
from duovox.sound.mel import LogMel
from duovox.training.start import start_training
from duovox.voice import MAX_LOG_MEL, fault_of, refuse_faulty

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def voice(tiny_bundle: Bundle) -> Duovox:
    return Duovox(tiny_bundle)


@pytest.fixture(scope="module")
def taught(tiny_recipe: Recipe, tiny_features: Path, tmp_path_factory: pytest.TempPathFactory) -> Duovox:
    """One whose classifier knows its three words, and whose subnet knows nothing."""
    out = tmp_path_factory.mktemp("taught")
    recipe = dataclasses.replace(tiny_recipe, train_classifier=TrainConfig(updates=40, batch=8, rate=5e-3, ema_decay=0.5))
    start_training("classifier", recipe, tiny_features, out, device="cpu", precision="fp32")
    start_training("subnet", recipe, tiny_features, out, device="cpu", precision="fp32", time_budget=0)
    return Duovox(assemble(out, recipe))


def same(one: list[Clip], other: list[Clip], tolerance: float = 0.0) -> bool:
    assert len(one) == len(other)
    return all(
        np.abs(a.wave - b.wave).max() <= tolerance and np.abs(a.log_mel - b.log_mel).max() <= tolerance
        for a, b in zip(one, other, strict=True)
    )


# opening


def test_a_folder_opens(bundle_folder: Path, voice: Duovox) -> None:
    for source in (bundle_folder, str(bundle_folder)):
        opened = Duovox.from_pretrained(source)
        assert opened.labels == tuple(TONES) == voice.labels
        assert opened.config.recipe == voice.config.recipe


def test_saving_and_opening_again_changes_nothing(voice: Duovox, bundle_folder: Path, tmp_path: Path) -> None:
    opened = Duovox.from_pretrained(bundle_folder)
    assert opened.save_pretrained(tmp_path / "b").digest == opened.config.digest
    assert same(Duovox.from_pretrained(tmp_path / "b").generate("low", 1), opened.generate("low", 1))
    with pytest.raises(OutputError, match="--force"):
        opened.save_pretrained(tmp_path / "b")


# listening


def test_a_file_and_its_samples_are_heard_alike(voice: Duovox, tmp_path: Path) -> None:
    wave = tone("low", 1)
    path = write_audio(tmp_path / "low.wav", wave, 16000)
    heard = voice.classify(path)
    assert tuple(heard) == voice.labels
    assert sum(heard.values()) == pytest.approx(1, abs=1e-6) and all(0 <= p <= 1 for p in heard.values())
    assert voice.classify(str(path)) == heard
    for same_sound in (wave, wave.tolist(), np.stack([wave, wave]), np.stack([wave, wave], 1), np.round(wave * 2**15).astype(np.int16)):
        assert voice.classify(same_sound, 16000) == pytest.approx(heard, abs=1e-3)
    assert voice.classify(wave) == pytest.approx(heard, abs=1e-3)  # the bundle's own rate if none is given


def test_another_rate_is_resampled(taught: Duovox) -> None:
    """2700 Hz at 48 kHz: a high word, and a middle one for whoever takes it for 16 kHz."""
    pitch = 0.3 * np.sin(2 * np.pi * 2700 * np.arange(11520) / 48000)
    heard = taught.classify(pitch, 48000)
    assert heard["high"] > 0.5
    assert heard == pytest.approx(taught.classify(pitch[::3], 16000), abs=0.05)
    assert taught.classify(pitch, 16000)["mid"] > 0.5


def test_of_a_longer_sound_the_loudest_part_is_heard(taught: Duovox) -> None:
    word, other = tone("mid", 2), 0.5 * tone("high", 3)
    heard = taught.classify(np.concatenate([other, np.zeros(1001, np.float32), word, np.zeros(900, np.float32), other]))
    assert heard == pytest.approx(taught.classify(word), abs=0.05)
    assert heard["mid"] > 0.5 and taught.classify(other)["high"] > 0.5


def test_what_was_cut_is_said(voice: Duovox, tmp_path: Path) -> None:
    word = np.concatenate([np.zeros(8000, np.float32), tone("mid", 2), np.zeros(20000, np.float32)])
    (note,) = voice.listen(word).notes
    assert note == "lasts 1.99 s, the loudest 0.24 s from 0.5 s on counts"
    assert voice.listen(tone("mid", 2)).notes == ()
    cancelling = np.stack([tone("mid", 2), -tone("mid", 2)], 1)
    assert voice.listen(cancelling).notes == ("its 2 channels cancel, channel 1 counts alone",)
    assert voice.classify(cancelling) == pytest.approx(voice.classify(tone("mid", 2)), abs=1e-6)


def test_an_open_file_is_heard_as_one_with_a_name(voice: Duovox, tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.flac", tone("mid", 2), 16000)
    with path.open("rb") as file:
        assert voice.classify(file) == voice.classify(path)


def test_the_mel_of_what_was_heard(voice: Duovox) -> None:
    word = tone("mid", 2)
    heard = voice.listen(np.concatenate([np.zeros(2000, np.float32), word, np.zeros(5000, np.float32)]))
    assert heard.log_mel.shape == (16, 16) and heard.log_mel.dtype == np.float32
    assert np.abs(heard.log_mel - voice.listen(word).log_mel).mean() < 0.3
    assert heard.probabilities == voice.classify(np.concatenate([np.zeros(2000, np.float32), word, np.zeros(5000, np.float32)]))


def test_a_shorter_sound_is_followed_by_silence(voice: Duovox) -> None:
    word = tone("mid", 2)[:1000]
    assert voice.classify(word) == voice.classify(np.concatenate([word, np.zeros(500, np.float32)]))
    assert set(voice.classify([0.5, -0.5])) == set(TONES)


@pytest.mark.parametrize(
    ("sound", "rate", "words"),
    [
        ("nowhere.wav", None, "no such file"),
        (".", None, "folder"),
        ([], 16000, "no samples"),
        ([0.0, math.nan], 16000, "not finite"),
        (np.zeros(9000), 16000, "is silent"),
        (np.full(9000, 0.3), 16000, "is silent"),
        (tone("mid", 2) * 2**15, 16000, "another scale .*full scale is 1"),
        ([0.1] * 16000, 0, "sample rate"),
        ([0.1] * 16000, math.nan, "sample rate"),
        (np.zeros((2, 2, 2)), 16000, "shape"),
        (np.array(["a"]), 16000, "type"),
        (np.zeros(61 * 16000), 16000, "61 s"),
    ],
)
def test_what_cannot_be_heard_is_said(voice: Duovox, sound: Any, rate: float, words: str, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=words) as caught:
        voice.classify(sound, rate)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_trained_classifier_hears_what_it_was_taught(taught: Duovox) -> None:
    """The mel, its scale, the noise level and the order of the labels all have to agree with the training's."""
    for label in TONES:
        heard = taught.classify(tone(label, 50))
        assert max(heard, key=heard.__getitem__) == label and heard[label] > 0.5


# speaking


def test_clips_say_what_they_are(voice: Duovox) -> None:
    clips = voice.generate("mid", 3, seed=5, steps=2, gamma=1.5, keep_faulty=True)
    assert [clip.seed for clip in clips] == [5, 6, 7]
    for clip in clips:
        assert clip.wave.shape == (3840,) and clip.wave.dtype == np.float32 and clip.rate == 16000
        assert np.abs(clip.wave).max() <= 1 and np.isfinite(clip.wave).all() and clip.wave.any()
        assert clip.log_mel.shape == (16, 16) and clip.log_mel.dtype == np.float32
        assert clip.label == "mid" and clip.vocoder == "neural"
        assert clip.settings == SampleConfig(steps=2, gamma=1.5)
        assert tuple(clip.probabilities) == voice.labels
        assert sum(clip.probabilities.values()) == pytest.approx(1, abs=1e-6)
        assert voice.classify(clip.wave) == pytest.approx(clip.probabilities, abs=1e-5)


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "euler_maruyama"])
@pytest.mark.parametrize("label", ["low", None])
def test_a_clip_depends_on_its_seed_alone(voice: Duovox, sampler: Any, label: str | None) -> None:
    alone = voice.generate(label, 3, sampler=sampler, seed=2, batch=1)
    together = voice.generate(label, 3, sampler=sampler, seed=2, batch=3)
    last = voice.generate(label, 1, sampler=sampler, seed=4)
    assert same(alone, together, 1e-4)
    assert same(together[2:], last, 1e-4)
    assert same(together, voice.generate(label, 3, sampler=sampler, seed=2, batch=3))
    for other in together[1:]:
        assert np.abs(other.log_mel - together[0].log_mel).max() > 0.1
        assert np.abs(other.wave - together[0].wave).max() > 1e-3


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "euler_maruyama"])
def test_a_batch_may_mix_labels(voice: Duovox, sampler: Any) -> None:
    wanted = [("mid", 7), ("low", 3), ("mid", 3), ("high", 2**63 - 1)]
    settings = voice.settings(sampler=sampler, gamma=0.7)
    clips = voice.generate_batch(wanted, settings)
    assert [(clip.label, clip.seed) for clip in clips] == wanted
    for (label, seed), clip in zip(wanted, clips, strict=True):
        assert same([clip], voice.generate(label, seed=seed, sampler=sampler, gamma=0.7), 1e-4)
    assert same(voice.generate_batch([(None, 1), (None, 5)])[1:], voice.generate(None, seed=5), 1e-4)


def test_a_batch_mixes_no_labels_with_none_and_refuses_as_one_clip_does(voice: Duovox) -> None:
    with pytest.raises(GenerationError, match="cannot mix"):
        voice.generate_batch([("low", 0), (None, 1)])
    with pytest.raises(LabelError):
        voice.generate_batch([("low", 0), ("seven", 1)])
    with pytest.raises(GenerationError, match="seed"):
        voice.generate_batch([("low", 0), ("low", -1)])


def test_settings_left_out_are_the_bundles_own(voice: Duovox) -> None:
    own = voice.config.recipe.sample
    assert voice.settings() == own
    assert voice.settings(steps=9, interval=(0.5, math.inf)) == dataclasses.replace(own, steps=9, guidance_low=0.5)


@pytest.mark.parametrize(("sampler", "evaluations"), [("heun", 7), ("dpmpp_2m", 4), ("euler_maruyama", 4)])
def test_sampling_can_be_watched(voice: Duovox, sampler: Any, evaluations: int) -> None:
    seen: list[tuple[float, torch.Tensor]] = []
    settings = voice.settings(sampler=sampler, steps=4)
    clips = voice.generate_batch([("low", 1), ("mid", 2)], settings, callback=lambda sigma, denoised: seen.append((sigma, denoised)))
    assert same(clips, voice.generate_batch([("low", 1), ("mid", 2)], settings))
    sigmas = [sigma for sigma, _ in seen]
    assert len(seen) == evaluations and sigmas == sorted(sigmas, reverse=True) and min(sigmas) > 0
    assert {denoised.shape for _, denoised in seen} == {(2, 1, 16, 16)}
    if sampler != "euler_maruyama":  # whose last step is no mere denoising
        assert np.abs(voice.log_mels(seen[-1][1])[1, 0].numpy() - clips[1].log_mel).max() < 1e-4


def test_what_the_callback_raises_ends_the_sampling(voice: Duovox) -> None:
    seen: list[float] = []

    def callback(sigma: float, _: torch.Tensor) -> None:
        seen.append(sigma)
        if len(seen) == 2:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        voice.generate_batch([("low", 1)], callback=callback)
    assert len(seen) == 2


def test_labels_and_settings_change_the_clip(voice: Duovox) -> None:
    base = voice.generate("low", 1)
    for label, settings in [
        ("mid", {}),
        (None, {}),
        ("low", {"gamma": 0.5}),
        ("low", {"steps": 4}),
        ("low", {"sampler": "dpmpp_2m"}),
        ("low", {"interval": (0.5, 2.0)}),
        ("low", {"vocoder": "griffin_lim"}),
    ]:
        assert not same(base, voice.generate(label, 1, **settings)), (label, settings)  # type: ignore[arg-type]


def test_the_global_random_state_is_neither_used_nor_changed(voice: Duovox) -> None:
    torch.manual_seed(0)
    first = voice.generate("low", 1, sampler="euler_maruyama")
    state = torch.random.get_rng_state()
    torch.manual_seed(1)
    voice.generate("low", 1)
    assert same(first, voice.generate("low", 1, sampler="euler_maruyama"))
    torch.manual_seed(0)
    assert torch.equal(state, torch.random.get_rng_state())


def test_gamma_0_asks_for_no_gradient_of_the_label(voice: Duovox, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    taps = ScoreModel.taps

    def spy(self: ScoreModel, noised: Any, sigma: Any, label: Any = None, graph: Any = "none") -> Any:
        asked.append(graph != "none")
        return taps(self, noised, sigma, label, graph)

    monkeypatch.setattr(ScoreModel, "taps", spy)
    voice.generate("low", 1, gamma=0, steps=3)
    assert asked == [False] * 5  # Heun: 2 n - 1 evaluations
    asked.clear()
    voice.generate("low", 1, gamma=1, steps=3)
    assert asked == [True] * 5
    asked.clear()
    voice.generate(None, 1, gamma=1, steps=3)
    assert asked == [False] * 5


def test_guidance_is_given_the_settings(voice: Duovox) -> None:
    denoiser = denoiser_of(
        voice.bundle, torch.tensor([2, 2]), SampleConfig(gamma=2.5, guidance_low=0.1, guidance_high=7.0, schedule="early")
    )
    assert isinstance(denoiser, ClassifierGuidance)
    ((guide, schedule),) = denoiser.guides
    assert schedule == GuidanceSchedule(2.5, 0.1, 7.0, "early", voice.config.recipe.noise.sigma_data)
    assert isinstance(guide, LabelGuide) and guide.label.tolist() == denoiser.denoiser.label.tolist() == [2, 2]  # type: ignore[attr-defined]
    assert guide.classifier is voice.bundle.model.classifier and guide.calibration == voice.config.calibration
    assert denoiser_of(voice.bundle, None, SampleConfig()) is voice.bundle.model


def test_turbo_is_refused_where_there_is_no_student(voice: Duovox) -> None:
    begun = voice.config.recipe.sample.changed({"preset": "turbo"})
    for speak in (
        lambda: voice.generate("low", preset="turbo"),
        lambda: voice.generate("low", settings=begun),
        lambda: voice.generate_batch([("low", 0)], begun),
        lambda: voice.settings(preset="turbo", steps=2),
    ):
        with pytest.raises(BundleError, match=r"^preset turbo needs a distilled student, and this bundle holds none; use preset balanced$"):
            speak()
    assert list(voice.presets()) == ["own", "quality", "balanced", "paper"]
    assert voice.generate("low", preset="balanced", keep_faulty=True)[0].settings == voice.presets()["balanced"]


def test_both_vocoders_and_a_bundle_without_one(tiny_bundle: Bundle, voice: Duovox) -> None:
    mute = Duovox(dataclasses.replace(tiny_bundle, vocoder=None))
    (clip,) = mute.generate("low")
    assert clip.vocoder == "griffin_lim"
    assert same([clip], voice.generate("low", vocoder="griffin_lim"), 1e-6)
    with pytest.raises(BundleError, match="no neural vocoder"):
        mute.generate("low", vocoder="neural")
    with pytest.raises(ConfigError, match="'wavenet'; there are neural, griffin_lim"):
        voice.generate("low", vocoder="wavenet")  # type: ignore[arg-type]


def test_an_unknown_label_lists_the_labels(voice: Duovox) -> None:
    for label in ("seven", "", "any"):
        with pytest.raises(LabelError, match=f"unknown label '{label}'; this model speaks: high, low, mid"):
            voice.generate(label)


def test_words_are_understood_in_capitals_and_figures_and_near_ones_are_offered(tiny_bundle: Bundle, voice: Duovox) -> None:
    assert voice.resolve_label("Low") == "low" and voice.check_request(None, 0) is None and voice.check_request("MID", 0) == "mid"
    (clip,) = voice.generate("HIGH", seed=3)
    assert clip.label == "high" and same([clip], voice.generate("high", seed=3))
    assert [clip.label for clip in voice.generate_batch([("Low", 0), ("mid", 0)])] == ["low", "mid"]
    config = dataclasses.replace(tiny_bundle.config, labels=("seven", "sieben", "null"), languages={"seven": "en", "null": "de"})
    german = Duovox(dataclasses.replace(tiny_bundle, config=config))
    assert german.resolve_label("7") == "seven" and german.resolve_label("0") == "null"
    with pytest.raises(LabelError, match=r"the nearest: seven \(en\), sieben; this model speaks: seven \(en\), sieben, null \(de\)"):
        german.generate("sevn")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"n": 0}, "at least 1, not 0"),
        ({"n": -3}, "at least 1, not -3"),
        ({"batch": 0}, "at least 1, not 0"),
        ({"seed": -1}, "seed must lie between 0 and"),
        ({"seed": 2**63}, "seed must lie between 0 and"),
        ({"seed": 2**63 - 1, "n": 2}, "seed must lie between 0 and"),
        ({"steps": 0}, "steps must be positive, not 0"),
        ({"steps": -5}, "steps must be positive, not -5"),
        ({"gamma": -1.0}, "gamma must not be negative"),
        ({"gamma": math.nan}, "gamma must be finite"),
        ({"gamma": math.inf}, "gamma must be finite"),
        ({"interval": (2.0, 1.0)}, "guidance_low 2.0 must lie below guidance_high 1.0"),
        ({"interval": (math.nan, 1.0)}, "guidance_low must be finite"),
        ({"sampler": "ddim"}, "'ddim' is none of 'heun'"),
    ],
)
def test_impossible_requests_are_refused(voice: Duovox, settings: dict[str, Any], words: str) -> None:
    with pytest.raises((GenerationError, ConfigError)) as caught:
        voice.generate("low", **settings)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "euler_maruyama"])
@pytest.mark.parametrize("gamma", [1e8, 1e30, 1e300])
def test_a_gamma_that_runs_off_is_one_error(voice: Duovox, gamma: float, sampler: Any) -> None:
    with pytest.raises(GenerationError, match="lower gamma"):
        voice.generate("low", gamma=gamma, sampler=sampler)


def test_what_a_listener_would_call_noise_has_a_fault() -> None:
    """Louder than a full-scale tone, at full scale for more than a twentieth, or silent; a full-scale tone itself is none of these."""
    time = np.arange(16000) / 16000
    sine, quiet = np.sin(2 * np.pi * 440 * time).astype(np.float32), np.full((80, 64), -5.0, dtype=np.float32)
    tone = LogMel(MelConfig())(torch.from_numpy(sine)[None])[0, 0].numpy()
    assert fault_of(sine, tone) == "" == fault_of(0.01 * sine, quiet)
    assert 2 < tone.max() < 3 and fault_of(sine, tone + 1) == f"its log-mel reaches {tone.max() + 1:.1f}, louder than a full-scale tone"
    assert fault_of(np.clip(1.1 * sine, -1, 1), quiet) == "28% of its samples are at full scale"
    assert fault_of(1e-5 * sine, quiet) == "it is silent"


def test_clips_that_ran_off_are_counted_and_the_others_stand(voice: Duovox) -> None:
    clips = voice.generate_batch([("low", 0), ("low", 1)], voice.settings(gamma=0.0))
    assert [clip.fault for clip in clips] == ["", ""]
    faulty = dataclasses.replace(clips[1], fault="it is silent")
    with pytest.raises(
        GenerationError, match=r"1 of 2 clips ran off to no speech \(seed 1: it is silent\) with heun, 3 steps and gamma 0;"
    ):
        refuse_faulty([clips[0], faulty])
    refuse_faulty(clips)


def test_a_mel_beyond_all_sound_is_cut_before_the_vocoder(tiny_bundle: Bundle) -> None:
    """A scale that turns the model's mels into impossible loudness and impossible quiet."""
    config = dataclasses.replace(tiny_bundle.config, mel_scale=dataclasses.replace(tiny_bundle.config.mel_scale, scale=50.0))
    (clip,) = Duovox(dataclasses.replace(tiny_bundle, config=config)).generate(None, keep_faulty=True)
    assert clip.log_mel.min() == pytest.approx(math.log(1e-5)) and clip.log_mel.max() == MAX_LOG_MEL
    assert np.isfinite(clip.wave).all() and np.abs(clip.wave).max() <= 1


def test_the_largest_seed_works(voice: Duovox) -> None:
    assert voice.generate("low", seed=2**63 - 1)[0].seed == 2**63 - 1


# noise


def test_noise_has_one_stream_per_seed() -> None:
    draw = SeededNoise([3, 4, 3], (1, 40, 50), CPU)
    first, second = draw(), draw()
    assert first.shape == (3, 1, 40, 50)
    assert torch.equal(first[0], first[2]) and not torch.equal(first[0], first[1]) and not torch.equal(first, second)
    alone = SeededNoise([4], (1, 40, 50), CPU)
    assert torch.equal(alone()[0], first[1]) and torch.equal(alone()[0], second[1])
    assert first[:2].mean().item() == pytest.approx(0, abs=0.06) and first[:2].std().item() == pytest.approx(1, abs=0.06)


def test_a_voice_computes_channels_last(voice: Duovox) -> None:
    weights = [p for p in voice.bundle.model.parameters() if p.ndim == 4]
    assert weights and all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)


def test_moving_to_a_device_moves_everything(bundle_folder: Path) -> None:
    voice = Duovox.from_pretrained(bundle_folder)
    assert voice.to("cpu") is voice and voice.device == CPU
    if torch.cuda.is_available():
        assert same(voice.generate("low", 2), voice.to("cuda").generate("low", 2), 0.05)


def test_clips_between_words_lie_between_them_and_a_whole_share_is_the_word(tiny_bundle: Bundle) -> None:
    voice = Duovox(tiny_bundle)
    (word,) = voice.generate("low", seed=4, keep_faulty=True)
    whole, between, other = voice.generate_between([({"low": 1.0}, 4), ({"low": 0.5, "MID": 0.5}, 4), ({"mid": 1.0}, 4)])
    assert whole.label is None and whole.seed == 4 and np.abs(whole.log_mel - word.log_mel).max() < 1e-4
    assert min(np.abs(between.log_mel - one.log_mel).max() for one in (whole, other)) > 1e-3
    for shares in ({"low": 0.5}, {"low": 1.5, "mid": -0.5}, {}):
        with pytest.raises(GenerationError, match="shares of labels must be positive and add up to 1"):
            voice.generate_between([(shares, 0)])
    with pytest.raises(LabelError, match="eleven"):
        voice.generate_between([({"eleven": 1.0}, 0)])
    with pytest.raises(GenerationError, match="seed"):
        voice.generate_between([({"low": 1.0}, -1)])


def test_a_student_says_nothing_between_words(student_bundle: Bundle) -> None:
    voice = Duovox(student_bundle)
    with pytest.raises(GenerationError, match="a student says single words"):
        voice.generate_between([({"low": 0.5, "mid": 0.5}, 0)], voice.settings(sampler="student", steps=2, gamma=0.4))
