"""front_end.py: our own mel passes unchanged, others as librosa and soxr make them; the bridge is right on average; gradients."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from other_mels import FINE, HTK, SOURCE, STUDIO, TARGETS, WHISPER, noise, sine, voice
from torch import Tensor, nn

from duovox.classifiers.bridge import (
    target_filterbank,
)
from duovox.classifiers.front_end import MelFrontEnd, WaveFrontEnd, build_front_end
from duovox.config import MelConfig, MelInput, VocoderConfig, WaveInput
from duovox.contracts import ConfigError, ShapeError
from duovox.sound.audio import read_audio
from duovox.sound.hearing import fit_length
from duovox.sound.mel import LogMel
from duovox.sound.vocoder.istft_net import ISTFTNet


class Steps(nn.Module):
    """A vocoder that only holds each frame's mean for a hop: its wave is known."""

    def __init__(self, mel: MelConfig) -> None:
        super().__init__()
        self.mel, self.gain = mel, nn.Parameter(torch.ones(()))
        self.drop = nn.Dropout(0.5)

    def forward(self, log_mel: Tensor) -> Tensor:
        steps = self.drop(self.gain * log_mel).mean((1, 2)).repeat_interleave(self.mel.hop_length, dim=1)
        return steps[:, : self.mel.clip_samples]


def test_our_own_mel_passes_unchanged() -> None:
    log_mel = LogMel(SOURCE)(noise(2))
    front = MelFrontEnd(SOURCE, MelInput())
    assert torch.equal(front(log_mel), log_mel)
    torch.testing.assert_close(front.from_wave(noise(2)), log_mel, atol=1e-5, rtol=0)


def test_our_own_mel_in_another_scale_and_layout() -> None:
    log_mel = LogMel(SOURCE)(noise(2))
    front = MelFrontEnd(SOURCE, MelInput(log="db", shift=-20.0, scale=4.0, layout="BTM"))
    expected = ((log_mel * 10 / math.log(10) + 20) / 4)[:, 0].transpose(1, 2)
    torch.testing.assert_close(front(log_mel), expected)
    torch.testing.assert_close(front.from_wave(noise(2)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("power", [1, 2])
def test_a_linear_mel_is_the_exponential_of_ours(power: int) -> None:
    """No logarithm, then shift and scale; what no sound reaches is held, so that an estimate that is none yet gives finite numbers."""
    target = MelInput(log="none", power=power, shift=0.5, scale=2.0)
    front, log_front = MelFrontEnd(SOURCE, target), MelFrontEnd(SOURCE, MelInput(power=power))
    log_mel = LogMel(SOURCE)(noise(2))
    torch.testing.assert_close(front(log_mel), (log_front(log_mel).exp() - 0.5) / 2)
    torch.testing.assert_close(front.from_wave(noise(2)), (log_front.from_wave(noise(2)).exp() - 0.5) / 2)
    assert front(torch.full((1, 1, 80, 64), 1000.0)).isfinite().all()
    source = log_mel.requires_grad_()
    (gradient,) = torch.autograd.grad(front(source).sum(), source)
    assert gradient.isfinite().all() and gradient.any()


def test_a_higher_floor_than_ours_is_kept() -> None:
    quiet = torch.full((1, 1, 80, 64), math.log(SOURCE.floor))
    assert MelFrontEnd(SOURCE, MelInput(floor=1e-2))(quiet).min() >= math.log(1e-2)


@pytest.mark.parametrize(
    ("layout", "shape"), [("B1MT", (2, 1, 64, 101)), ("BMT", (2, 64, 101)), ("B1TM", (2, 1, 101, 64)), ("BTM", (2, 101, 64))]
)
def test_layouts(layout: str, shape: tuple[int, ...]) -> None:
    front = MelFrontEnd(SOURCE, replace(HTK, layout=layout))
    plain = MelFrontEnd(SOURCE, HTK)
    for got, x in (
        (front(LogMel(SOURCE)(noise(2))), plain(LogMel(SOURCE)(noise(2)))),
        (front.from_wave(noise(2)), plain.from_wave(noise(2))),
    ):
        assert got.shape == shape
        assert torch.equal(got.reshape(x.shape) if layout in ("B1MT", "BMT") else got.reshape(2, 101, 64).transpose(1, 2), x)


@pytest.mark.parametrize("target", [HTK, replace(WHISPER, normalise="none"), FINE], ids=["htk", "whisper", "fine"])
def test_from_wave_equals_librosa(target: MelInput) -> None:
    librosa = pytest.importorskip("librosa", reason="librosa (extra test) is absent")
    wave = voice()
    spectrum = librosa.stft(
        wave[0].numpy(), n_fft=target.n_fft, hop_length=target.hop_length, win_length=target.win_length, pad_mode="reflect"
    )
    mel = target_filterbank(target).numpy() @ np.abs(spectrum) ** target.power
    log = {"ln": np.log, "log10": np.log10}[target.log](np.maximum(mel, target.floor))
    np.testing.assert_allclose(MelFrontEnd(SOURCE, target).from_wave(wave)[0].numpy(), log[:, : target.frames], atol=3e-3)


def test_whisper_and_item_normalisation() -> None:
    wave = torch.cat([voice(), torch.zeros(1, 16000)])
    plain = MelFrontEnd(SOURCE, replace(WHISPER, normalise="none")).from_wave(wave)
    expected = torch.stack([(x.clamp(min=x.max().item() - 8) + 4) / 4 for x in plain])
    torch.testing.assert_close(MelFrontEnd(SOURCE, WHISPER).from_wave(wave), expected)
    item = MelFrontEnd(SOURCE, replace(WHISPER, normalise="item")).from_wave(wave)
    expected = torch.stack([(x - x.mean()) / x.std(correction=0) for x in plain[:2]])
    torch.testing.assert_close(item[:2], expected, atol=1e-4, rtol=1e-4)
    assert not item[2].any()


def test_waves_of_any_length_give_the_frames() -> None:
    front = MelFrontEnd(SOURCE, HTK)
    long = noise(1, 24000)
    assert front.from_wave(long[:, :50]).shape == (1, 64, 101)
    assert torch.equal(front.from_wave(long), front.from_wave(long[:, :16300]))
    padded = front.from_wave(long[:, :8000])
    assert padded[..., 55:].amax() == pytest.approx(math.log(HTK.floor))


@pytest.mark.parametrize("name", TARGETS)
def test_white_noise_has_the_right_mean_in_every_channel(name: str) -> None:
    front, wave = MelFrontEnd(SOURCE, TARGETS[name]), noise(48)
    difference = (front(LogMel(SOURCE)(wave)) - front.from_wave(wave))[..., 4:-6].mean((0, 2))
    assert difference.abs().max() < 0.2
    assert abs(difference.mean().item()) < 0.1


@pytest.mark.parametrize("name", TARGETS)
def test_a_voice_comes_out_as_from_its_wave(name: str) -> None:
    front, wave = MelFrontEnd(SOURCE, TARGETS[name]), voice()
    bridged, exact = front(LogMel(SOURCE)(wave)), front.from_wave(wave)
    loud = exact > exact.amax() - 8
    assert torch.corrcoef(torch.stack([bridged[loud], exact[loud]]))[0, 1] > 0.9
    assert abs((bridged - exact)[loud].mean().item()) < 0.4  # pure harmonics, where the bridge expects noise


@pytest.mark.parametrize(("name", "closest"), [("htk", 0.98), ("whisper", 0.98), ("fine", 0.99), ("telephone", 0.98), ("studio", 0.99)])
def test_real_recordings_agree_and_no_channel_is_far_off(recordings: Path, name: str, closest: float) -> None:
    folders = sorted(folder for folder in (recordings / "speech_commands").iterdir() if folder.is_dir())
    paths = [path for folder in folders for path in sorted(folder.glob("*.ogg"))[:6]][:48]
    wave = torch.from_numpy(np.stack([fit_length(read_audio(path, 16000), 16000) for path in paths]))
    front = MelFrontEnd(SOURCE, TARGETS[name])
    bridged, exact = front(LogMel(SOURCE)(wave)), front.from_wave(wave)
    assert torch.corrcoef(torch.stack([bridged.flatten(), exact.flatten()]))[0, 1] > closest
    assert (bridged - exact).mean((0, 2)).abs().max() < 0.3


@pytest.mark.parametrize("target", [HTK, WHISPER, replace(FINE, normalise="item"), replace(STUDIO, log="db"), MelInput(normalise="item")])
def test_gradients_are_finite_everywhere(target: MelInput) -> None:
    generator = torch.Generator().manual_seed(0)
    values = [torch.full((1, 1, 80, 64), x) for x in (math.log(1e-5), -80.0, -20.0, 20.0, 0.0)]
    values += [20 * torch.randn(1, 1, 80, 64, generator=generator), 20 * torch.randn(1, 1, 80, 64, generator=generator).sign()]
    log_mel = torch.cat(values).requires_grad_()
    out = MelFrontEnd(SOURCE, target)(log_mel)
    weights = torch.randn(out.shape, generator=generator)
    (gradient,) = torch.autograd.grad((out * weights).sum() + out.square().sum(), log_mel)
    assert out.isfinite().all()
    assert gradient.isfinite().all()


def test_quiet_mels_still_have_gradients() -> None:
    log_mel = torch.full((1, 1, 80, 64), -11.0, requires_grad=True)
    out = MelFrontEnd(SOURCE, HTK)(log_mel)
    assert out.max() < math.log(HTK.floor) + 1
    gradient = torch.autograd.grad(out.sum(), log_mel)[0]
    assert gradient.mean() > 0.05
    assert gradient.all()


def test_a_clip_does_not_depend_on_its_neighbours() -> None:
    front, log_mel = MelFrontEnd(SOURCE, WHISPER), LogMel(SOURCE)(torch.cat([voice(), noise(2)]))
    alone = torch.cat([front(one) for one in log_mel.split(1)])
    torch.testing.assert_close(front(log_mel), alone, atol=1e-5, rtol=0)


def test_nothing_is_stored() -> None:
    assert not MelFrontEnd(SOURCE, STUDIO).state_dict()
    assert set(WaveFrontEnd(SOURCE, WaveInput(8000), Steps(SOURCE)).state_dict()) == {"vocoder.gain"}


def test_a_wave_is_fitted_normalised_and_laid_out() -> None:
    log_mel = LogMel(SOURCE)(voice())
    vocoder = Steps(SOURCE).eval()
    wave = vocoder(log_mel).detach()
    long = WaveFrontEnd(SOURCE, WaveInput(16000, 20000, layout="B1S"), vocoder)(log_mel)
    assert torch.equal(long, nn.functional.pad(wave, (0, 4000))[:, None])
    short = WaveFrontEnd(SOURCE, WaveInput(16000, 9000, normalise="item"), vocoder)
    cut = wave[:, :9000]
    expected = (cut - cut.mean(1, keepdim=True)) / cut.std(1, correction=0, keepdim=True)
    torch.testing.assert_close(short(log_mel), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(short.from_wave(wave), short(log_mel))


def test_a_wave_of_another_rate() -> None:
    front = WaveFrontEnd(SOURCE, WaveInput(8000, 8000), Steps(SOURCE))
    torch.testing.assert_close(front.from_wave(sine(440, 16000, 16000))[:, 400:-400], sine(440, 8000, 8000)[:, 400:-400], atol=1e-3, rtol=0)


def test_the_vocoder_is_frozen_and_stays_so() -> None:
    front = WaveFrontEnd(SOURCE, WaveInput(), Steps(SOURCE).train()).train()
    assert front.training and not any(module.training for module in front.vocoder.modules())
    assert not any(parameter.requires_grad for parameter in front.parameters())
    log_mel = torch.randn(1, 1, 80, 64, requires_grad=True)
    assert torch.autograd.grad(front(log_mel).square().sum(), log_mel)[0].abs().sum() > 0


def test_gradients_through_the_neural_vocoder_are_finite() -> None:
    source = MelConfig(clip_samples=3840, frames=16)
    vocoder = ISTFTNet(VocoderConfig(width=16, hidden=32, blocks=1, pitch_width=8), source)
    front = WaveFrontEnd(source, WaveInput(22050, 6000, normalise="item"), vocoder)
    values = [torch.full((1, 1, 80, 16), x) for x in (math.log(1e-5), -20.0, 20.0, 90.0, -3.0)]
    log_mel = torch.cat([*values, 20 * torch.randn(1, 1, 80, 16, generator=torch.Generator().manual_seed(0))]).requires_grad_()
    out = front(log_mel)
    gradient = torch.autograd.grad((out * torch.linspace(-1, 1, 6000)).sum(), log_mel)[0]
    assert gradient.isfinite().all()
    assert gradient[-2].abs().sum() > 0


def test_build_front_end() -> None:
    assert isinstance(build_front_end(SOURCE, HTK, None, None), MelFrontEnd)
    assert isinstance(build_front_end(SOURCE, None, WaveInput(), Steps(SOURCE)), WaveFrontEnd)
    with pytest.raises(ConfigError, match="needs a vocoder"):
        build_front_end(SOURCE, None, WaveInput(), None)
    for mel, wave in ((None, None), (HTK, WaveInput())):
        with pytest.raises(ConfigError, match="either mel_input or wave_input"):
            build_front_end(SOURCE, mel, wave, Steps(SOURCE))
    with pytest.raises(ConfigError, match=r"mel\.hop_length"):
        build_front_end(SOURCE, None, WaveInput(), Steps(replace(SOURCE, hop_length=300)))


def test_wrong_shapes_are_refused() -> None:
    for front in (MelFrontEnd(SOURCE, HTK), WaveFrontEnd(SOURCE, WaveInput(), Steps(SOURCE))):
        with pytest.raises(ShapeError, match="80, 64"):
            front(torch.zeros(1, 1, 80, 63))
        with pytest.raises(ShapeError, match=r"\(B, S\)"):
            front.from_wave(torch.zeros(16000))
