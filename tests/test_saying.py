"""saying.py and `duovox say`: words in order, cut to their sound, joined without clicks, by the speaker of the first where one is given."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TONES
from torch import Tensor, nn

from duovox import Duovox, MelInput
from duovox.bundle import Bundle
from duovox.cli import main
from duovox.clip import Clip
from duovox.config import ExternalConfig, GuideConfig, GuideStrength, Recipe, SampleConfig
from duovox.contracts import ConfigError, DuovoxError, GenerationError, GuideError, LabelError
from duovox.guide_folder import FORMAT, GuideNetwork, with_digests
from duovox.saying import FIRST_CLIP, joined, read_words, say, trimmed
from duovox.sound.audio import read_audio

RATE = 16000


class Spectrum(nn.Module):
    """An embedding of mels: the mean over time."""

    def forward(self, x: Tensor) -> Tensor:
        bands = x[:, 0].mean(dim=2)
        return bands - bands.mean(dim=1, keepdim=True)


@pytest.fixture(scope="module")
def voice(tiny_bundle: Bundle) -> Duovox:
    return Duovox(tiny_bundle)


@pytest.fixture
def speaker() -> GuideNetwork:
    """An embedding guide with one reference and five background clips."""
    names = tuple(str(number) for number in range(16))
    recipe = Recipe("guide", external=ExternalConfig(labels=names, mel_input=MelInput(n_mels=16, frames=16)))
    config = GuideConfig(FORMAT, "embedding", ("ann",), recipe)
    anchors = torch.randn(6, 16, generator=torch.Generator().manual_seed(0))
    return with_digests(GuideNetwork("likeness", config, Spectrum().eval(), anchors))


def clip(wave: np.ndarray) -> Clip:
    return Clip(wave.astype(np.float32), RATE, np.zeros((2, 2), np.float32), "low", 0, SampleConfig(), "neural", {"low": 1.0})


def word(start: int, length: int, total: int = 16000, floor: float = 1e-4) -> np.ndarray:
    """A tone of `length` samples and whole periods from `start` on, in faint noise."""
    wave = floor * np.random.default_rng(0).standard_normal(total)
    wave[start : start + length] += 0.5 * np.sin(2 * np.pi * round(0.3 * length / (2 * np.pi)) * np.arange(length) / length)
    return wave.astype(np.float32)


# Joining


def test_quiet_ends_are_cut_and_the_ends_faded() -> None:
    cut = trimmed(word(5000, 4000), RATE)
    assert 4000 <= len(cut) < 4000 + 2 * 512 + 128
    assert cut[0] == 0 and cut[-1] == 0 and np.abs(np.diff(cut)).max() < 0.5 * 0.31
    whole = trimmed(word(0, 16000)[100:15900], RATE)  # sound to both ends, which begin and end at once
    assert whole[0] == 0 and whole[-1] == 0 and np.abs(whole[:20]).max() < 0.1 < np.abs(whole[80:200]).max()


def test_words_follow_each_other_with_the_pause_between_them() -> None:
    said = joined([clip(word(5000, 4000)), clip(word(2000, 6000)), clip(word(8000, 2000))], pause=0.1)
    starts, ends = zip(*said.places, strict=True)
    assert starts[0] == 0 and ends[-1] == pytest.approx(len(said.wave) / RATE)
    for end, start in zip(ends, starts[1:], strict=False):
        assert start - end == pytest.approx(0.1)
        assert not said.wave[round(end * RATE) : round(start * RATE)].any()
    assert [round(RATE * (end - start)) for start, end in said.places] == [len(trimmed(one.wave, RATE)) for one in said.clips]
    steps = np.abs(np.diff(said.wave))
    assert steps.max() < 0.5 * 0.31  # no click: never more than the tone's own slope


def test_no_pause_leaves_nothing_between_words() -> None:
    said = joined([clip(word(5000, 4000))] * 2, pause=0.0)
    assert said.places[0][1] == said.places[1][0] and len(said.wave) == 2 * len(trimmed(word(5000, 4000), RATE))


# Words


def test_words_and_figures_may_be_mixed(small_voice: Duovox) -> None:
    assert read_words("one, 7 ONE. 17", small_voice) == ["one", "seven", "one", "one", "seven"]


@pytest.mark.parametrize(
    ("text", "kind", "parts"),
    [
        ("low mdi high", LabelError, ("word 2 of the sentence: unknown label 'mdi'", "the nearest: mid")),
        ("low high 9", LabelError, ("word 3 of the sentence: unknown label '9'",)),
        (" ,. ", GenerationError, ("there is nothing to say",)),
        ("", GenerationError, ("there is nothing to say",)),
    ],
)
def test_words_that_cannot_be_said(voice: Duovox, text: str, kind: type[DuovoxError], parts: tuple[str, ...]) -> None:
    with pytest.raises(kind) as caught:
        say(voice, text)
    assert "\n" not in str(caught.value) and all(part in str(caught.value) for part in parts)


@pytest.mark.parametrize("pause", [-0.1, 11.0, float("nan")])
def test_pauses_that_cannot_be(voice: Duovox, pause: float) -> None:
    with pytest.raises(ConfigError, match="the pause must lie between 0 and 10 seconds"):
        say(voice, "low", pause=pause)


# Saying


@pytest.mark.usefixtures("anything_is_speech")
def test_all_words_begin_with_the_same_noise_and_none_is_said_twice_alike(voice: Duovox) -> None:
    said = say(voice, "low high low", seed=5)
    for label, seed, made in zip(("low", "high", "low"), (5, 5, 6), said.clips, strict=True):
        (alone,) = voice.generate(label, seed=seed)
        np.testing.assert_allclose(made.wave, alone.wave, atol=1e-4)
    np.testing.assert_allclose(say(voice, "low high low", seed=5, batch=1).wave, said.wave, atol=1e-3)


@pytest.mark.usefixtures("anything_is_speech")
def test_the_other_words_are_guided_towards_the_first(voice: Duovox, speaker: GuideNetwork) -> None:
    plain = say(voice, "low high mid", seed=3)
    guided = say(voice, "low high mid", seed=3, speaker=speaker, speaker_strength={"gamma": 30})
    np.testing.assert_array_equal(guided.clips[0].wave, plain.clips[0].wave)
    assert guided.clips[0].guides == ()
    assert [[guide.target for guide in one.guides] for one in guided.clips[1:]] == [[{FIRST_CLIP: 1.0}]] * 2

    def likeness(said: Any) -> list[float]:
        rows = [torch.from_numpy(one.log_mel).mean(dim=1) for one in said.clips]
        first, *others = [nn.functional.normalize(row - row.mean(), dim=0) for row in rows]
        return [float(first @ other) for other in others]

    assert all(near > far for near, far in zip(likeness(guided), likeness(plain), strict=True))


@pytest.mark.usefixtures("anything_is_speech")
def test_a_sentence_is_led_firmly_and_from_the_noise_its_words_share(voice: Duovox, speaker: GuideNetwork) -> None:
    own = GuideStrength(gamma=3.0, cap=0.1, candidates=16)
    choosy = replace(speaker, config=replace(speaker.config, strength=own))
    (led,) = say(voice, "low high", seed=3, speaker=choosy).clips[1].guides
    assert (led.strength.gamma, led.strength.candidates) == (12.0, 1) and led.strength.cap == pytest.approx(0.15)
    (told,) = say(voice, "low high", seed=3, speaker=choosy, speaker_strength={"gamma": 7, "candidates": 2}).clips[1].guides
    assert (told.strength.gamma, told.strength.candidates) == (7.0, 2) and told.strength.cap == pytest.approx(0.15)
    free = replace(speaker, config=replace(speaker.config, strength=replace(own, cap=math.inf)))
    assert math.isinf(say(voice, "low high", seed=3, speaker=free).clips[1].guides[0].strength.cap)


@pytest.mark.usefixtures("anything_is_speech")
def test_guides_that_choose_choose_one_noise_for_the_sentence(voice: Duovox, speaker: GuideNetwork) -> None:
    def treble(log_mel: Tensor) -> Tensor:
        return log_mel[:, 0, 8:].mean(dim=(1, 2))

    chooser = voice.function_guide(treble, gamma=1e9, interval=(1e-9, 1e-8), candidates=16)  # guides nowhere, chooses only
    said = say(voice, "low high mid low", seed=3, guides=[chooser])
    starts = voice.shared_starts([("low", 3), ("high", 3), ("mid", 3), ("low", 4)], voice.settings(), [chooser])
    assert starts is not None and len(set(starts[:3])) == 1
    alone = voice.generate_batch([("high", 3)], starts=starts[1:2])[0]
    np.testing.assert_allclose(said.clips[1].wave, alone.wave, atol=1e-3)
    by_one = say(voice, "low high mid low", seed=3, guides=[chooser], speaker=speaker)
    np.testing.assert_allclose(by_one.clips[0].wave, said.clips[0].wave, atol=1e-3)
    led = voice.guide(speaker, "ann", gamma=30, candidates=2)
    moved = say(voice, "low high", seed=3, speaker=speaker, speaker_strength={"gamma": 30, "candidates": 2})
    assert moved.clips[1].guides[0].strength.candidates == led.record.strength.candidates == 2


def test_a_guide_that_embeds_nothing_is_no_speaker(voice: Duovox, speaker: GuideNetwork) -> None:
    with pytest.raises(GuideError, match=r"the guide likeness embeds no sounds; take speaker, or make one with `duovox guide --background"):
        say(voice, "low high", speaker=GuideNetwork("likeness", speaker.config, speaker.network))


@pytest.mark.usefixtures("anything_is_speech")
def test_the_command_writes_the_sound_and_how_it_was_made(bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["say", "low high", "--bundle", str(bundle_folder), "--out", str(tmp_path / "a.wav"), "--seed", "4", "--pause", "0.05"]
    assert main(words) == 0, capsys.readouterr().err
    story = json.loads((tmp_path / "a.json").read_text())
    assert [(one["label"], one["seed"]) for one in story["words"]] == [("low", 4), ("high", 4)]
    assert story["words"][1]["start"] - story["words"][0]["end"] == pytest.approx(0.05, abs=1e-3)
    assert len(read_audio(tmp_path / "a.wav", RATE)) / RATE == pytest.approx(story["words"][1]["end"], abs=1e-3)
    assert set(story["words"][0]["probabilities"]) == set(TONES)
    capsys.readouterr()
    for wrong, said in (
        (words, "exists; add --force"),
        ([*words, "--force", "--speaker", "absent"], "'absent' is no guide of speakers"),
        ([*words, "--force", "--speaker", "absent:loud"], "is no strength"),
        (["say", "low hgih", *words[2:], "--force"], "word 2 of the sentence"),
    ):
        assert main(wrong) == 1
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1, err
