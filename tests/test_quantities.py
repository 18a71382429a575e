"""Pitch and loudness as guides: known sounds, and clips that go where they are told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from duovox import Duovox
from duovox.bundle import Bundle
from duovox.config import MelConfig, MelScale, between, listed
from duovox.contracts import GuideError, LabelError
from duovox.quantities import LEVELS, PITCHES, LoudnessClassifier, PitchClassifier, value_of
from duovox.sound.mel import LogMel, scale_mel
from duovox.steering import join_of_voice

SCALE = MelScale("standard", -6.0, 4.5)


def test_pitches_are_semitones_and_levels_are_even() -> None:
    steps = np.diff(12 * np.log2([value_of(label) for label in PITCHES]))
    np.testing.assert_allclose(steps, 1, atol=0.15)  # names are rounded to whole Hz
    assert "196Hz" in PITCHES and "440Hz" in PITCHES
    assert set(np.diff([value_of(label) for label in LEVELS])) == {2.0}


@pytest.mark.parametrize("level", [-40.0, -20.0])
def test_the_level_of_noise_is_that_of_its_samples(level: float) -> None:
    mel = MelConfig()
    wave = 10 ** (level / 20) * torch.randn(4, mel.clip_samples, generator=torch.Generator().manual_seed(0))
    classifier = LoudnessClassifier(mel, SCALE)
    log_mel = LogMel(mel)(wave)
    torch.testing.assert_close(classifier.level(log_mel), torch.full((4,), level), rtol=0, atol=0.3)
    logits = classifier(scale_mel(log_mel, SCALE), torch.ones(4))
    assert [LEVELS[number] for number in logits.argmax(1)] == [f"{level:.0f}dB"] * 4


@pytest.fixture(scope="module")
def voice(tiny_bundle: Bundle) -> Duovox:
    return Duovox(tiny_bundle)


class Comb(torch.nn.Module):
    """A head that hears one pitch in every frame, or none where a mel is low."""

    def __init__(self, heard: float) -> None:
        super().__init__()
        self.register_buffer("grid", torch.exp(torch.linspace(np.log(60), np.log(520), 112)))
        self.heard = heard

    def forward(self, log_mel: Tensor) -> Tensor:
        away = 12 * (self.grid.log2() - np.log2(self.heard))  # type: ignore[operator]
        voiced = (log_mel[:, 0] > -5).double()[:, None]
        return -2 * away.square()[None, :, None].double() * voiced


def test_the_pitch_is_that_of_the_loud_frames() -> None:
    mel = MelConfig()
    classifier = PitchClassifier(Comb(196.0), mel, MelScale())  # type: ignore[arg-type]
    log_mel = torch.full((1, 1, mel.n_mels, mel.frames), -11.0)
    log_mel[..., 20:30] = 0.0
    found = classifier(log_mel, torch.ones(1)).log_softmax(1)[0]
    assert PITCHES[int(found.argmax())] == "196Hz" and found.max() > -0.6
    assert found[PITCHES.index("185Hz")] == pytest.approx(found[PITCHES.index("208Hz")].item(), abs=0.15)


def test_values_between_labels_are_shares_of_both() -> None:
    assert between("202Hz", PITCHES) == {"196Hz": 0.5, "208Hz": 0.5}
    assert between("196 hz", PITCHES) == {"196Hz": 1.0}
    assert between("-21dB", LEVELS) == {"-22dB": 0.5, "-20dB": 0.5}
    for asked in ("50Hz", "2000Hz", "196dB", "196", "high", "three"):
        assert between(asked, PITCHES) is None
    assert between("3Hz", ("low", "4Hz")) is None


def test_values_are_listed_by_their_ends() -> None:
    assert (listed(PITCHES), listed(LEVELS)) == ("73Hz to 440Hz", "-50dB to -8dB")
    assert (listed(("9Hz", "10Hz", "8.5Hz")), listed(("low", "4Hz")), listed(("4Hz", "5dB"))) == ("8.5Hz to 10Hz", "low, 4Hz", "4Hz, 5dB")
    assert (listed(("4Hz",)), listed(())) == ("4Hz", "")


@pytest.mark.parametrize("asked", ["1000Hz", "high", "1000Hz=0.5,196Hz=0.5", {"5 dB": 1.0}])
def test_what_a_guide_of_values_does_not_know(asked: str | dict[str, float], voice: Duovox) -> None:
    with pytest.raises(LabelError, match=r"^the guide pitch: unknown label '[^']*'; it knows 73Hz to 440Hz and what lies between$"):
        voice.guide("pitch", asked)
    with pytest.raises(LabelError, match=r"^say what is wanted of the guide pitch, one of 73Hz to 440Hz$"):
        voice.guide("pitch")


def test_clips_are_as_loud_as_they_are_told(voice: Duovox) -> None:
    def level(wanted: str) -> float:
        clips = voice.generate("low", 3, guides=[voice.guide("loudness", wanted, gamma=30, cap=3)], keep_faulty=True)
        mels = torch.from_numpy(np.stack([clip.log_mel for clip in clips]))[:, None]
        return float(LoudnessClassifier(voice.config.recipe.mel, SCALE).level(mels).mean())

    assert level("-16dB") > level("-44dB") + 3


def test_the_pitch_of_a_voice_is_what_its_vocoder_hears(voice: Duovox) -> None:
    def heard(wanted: str) -> float:
        clips = voice.generate("low", 3, guides=[voice.guide("pitch", wanted, gamma=300, cap=3)], keep_faulty=True)
        mels = torch.from_numpy(np.stack([clip.log_mel for clip in clips]))
        head = voice.bundle.vocoder.pitch  # type: ignore[union-attr]
        return float(head.hertz(head(mels)).log2().mean())

    assert heard("330Hz") > heard("98Hz")


def test_what_every_voice_can_be_told(voice: Duovox) -> None:
    record = voice.guide("pitch", "200Hz").record
    assert record.name == "pitch" and record.target == pytest.approx({"196Hz": 2 / 3, "208Hz": 1 / 3}) and len(record.digest) == 64
    assert voice.guide("loudness", "-20dB").record.digest != record.digest
    with pytest.raises(LabelError, match=r"the guide pitch: unknown label '5000Hz'"):
        voice.guide("pitch", "5000Hz")
    with pytest.raises(GuideError, match=r"the guide pitch never met noise"):
        voice.guide("pitch", "196Hz", at="noised")
    with pytest.raises(GuideError, match=r"the guide pitch embeds no sounds; take speaker"):
        voice.guide("pitch", like="a.wav")
    with pytest.raises(GuideError, match=r"like= takes the place of a target; leave one of them out"):
        voice.guide("own", "low", like="a.wav")


def test_a_voice_without_a_neural_vocoder_has_no_pitch_guide(voice: Duovox) -> None:
    with pytest.raises(GuideError, match=r"the guide pitch hears with the voice's neural vocoder, and this voice has none"):
        join_of_voice("pitch", replace(voice.bundle, vocoder=None))
