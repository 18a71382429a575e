"""front_end.py: our own mel passes unchanged, others as librosa and soxr make them; the bridge is right on average; gradients."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from duovox.classifiers.front_end import (
    MelFrontEnd,
    Resampler,
    SpectrumBridge,
    WaveFrontEnd,
    build_front_end,
    hann_autocorrelation,
    noise_bias,
    resample,
    target_filterbank,
    window_change,
)
from duovox.config import MelConfig, MelInput, VocoderConfig, WaveInput
from duovox.contracts import ConfigError, ShapeError
from duovox.sound.audio import read_audio
from duovox.sound.hearing import fit_length
from duovox.sound.mel import LogMel
from duovox.sound.vocoder.istft_net import ISTFTNet

SOURCE = MelConfig()
HTK = MelInput(
    n_fft=512,
    win_length=400,
    hop_length=160,
    n_mels=64,
    fmin=20,
    fmax=7600,
    frames=101,
    filters="htk",
    filter_norm="none",
    power=2,
    floor=1e-6,
    layout="BMT",
)
WHISPER = MelInput(
    n_fft=400, win_length=400, hop_length=160, frames=100, power=2, log="log10", floor=1e-10, normalise="whisper", layout="BMT"
)
FINE = MelInput(n_fft=2048, win_length=800, hop_length=200, n_mels=64, frames=81, layout="BMT")
TELEPHONE = MelInput(sample_rate=8000, n_fft=256, win_length=256, hop_length=80, n_mels=40, fmax=3400, frames=101, power=2, layout="BMT")
STUDIO = MelInput(sample_rate=24000, n_fft=1024, win_length=1024, hop_length=256, n_mels=80, fmax=7500, frames=94, layout="BMT")
TARGETS = {"htk": HTK, "whisper": replace(WHISPER, normalise="none", log="ln"), "fine": FINE, "telephone": TELEPHONE, "studio": STUDIO}


def noise(clips: int, samples: int = 16000, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(clips, samples, generator=torch.Generator().manual_seed(seed))


def sine(hertz: float, rate: int, samples: int) -> Tensor:
    """Amplitude 1, (1, samples)."""
    return torch.sin(2 * math.pi * hertz * torch.arange(samples, dtype=torch.float64) / rate).float()[None]


def voice(samples: int = 16000) -> Tensor:
    """Gliding harmonics with a formant, loud in the middle, over faint noise, (2, samples)."""
    time = torch.arange(samples) / SOURCE.sample_rate
    waves = []
    for pitch in (110.0, 210.0):
        phase = 2 * math.pi * torch.cumsum(pitch * (1 + 0.2 * time), 0) / SOURCE.sample_rate
        waves.append(sum(torch.sin(k * phase) / (1 + ((k * pitch - 700) / 300) ** 2) for k in range(1, 20)) * 0.2)
    return torch.stack(waves) * torch.sin(math.pi * time / time[-1]) ** 2 + 0.01 * noise(2, samples)


class Steps(nn.Module):
    """A vocoder that only holds each frame's mean for a hop: its wave is known."""

    def __init__(self, mel: MelConfig) -> None:
        super().__init__()
        self.mel, self.gain = mel, nn.Parameter(torch.ones(()))
        self.drop = nn.Dropout(0.5)

    def forward(self, log_mel: Tensor) -> Tensor:
        steps = self.drop(self.gain * log_mel).mean((1, 2)).repeat_interleave(self.mel.hop_length, dim=1)
        return steps[:, : self.mel.clip_samples]


# Our own mel


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


# The exact way, from waves


@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize("norm", ["slaney", "none"])
def test_filters_equal_librosas(scale: str, norm: str) -> None:
    librosa = pytest.importorskip("librosa", reason="librosa (extra test) is absent")
    target = replace(HTK, filters=scale, filter_norm=norm, n_mels=40)
    expected = librosa.filters.mel(
        sr=16000, n_fft=512, n_mels=40, fmin=20, fmax=7600, htk=scale == "htk", norm=None if norm == "none" else norm
    )
    np.testing.assert_allclose(target_filterbank(target).numpy(), expected, atol=2e-6)


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


# The bridge


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


def test_the_spread_spectrum_has_our_mel() -> None:
    bridge, log_mel = SpectrumBridge(SOURCE, HTK), LogMel(SOURCE)(voice())[:, 0]
    size = bridge.magnitudes(log_mel)
    assert (size > 0).all()
    assert (torch.log(bridge.bank @ size) - log_mel).abs().mean() < 0.1


def test_window_change_of_equal_transforms_is_the_identity() -> None:
    torch.testing.assert_close(window_change(SOURCE, MelInput()), torch.eye(513))


@pytest.mark.parametrize("name", TARGETS)
def test_window_change_keeps_a_white_spectrum_white(name: str) -> None:
    target = TARGETS[name]
    change = window_change(SOURCE, target)
    energy = (target.win_length * target.sample_rate) / (SOURCE.win_length * SOURCE.sample_rate)  # sum of squares of a Hann window: 3/8 N
    heard = torch.arange(change.shape[0]) * target.sample_rate / target.n_fft <= SOURCE.sample_rate / 2
    torch.testing.assert_close(change.sum(1)[heard], torch.full((int(heard.sum()),), energy), rtol=1e-4, atol=0)
    assert (change >= 0).all()
    assert not change[~heard][1:].any()


@pytest.mark.parametrize("n_fft", [1024, 400])
def test_window_change_widens_a_tone_as_the_shorter_window_does(n_fft: int) -> None:
    tone = sine(1000, 16000, 16384)
    ours, theirs = (
        torch.stft(tone, n, 256, size, torch.hann_window(size), return_complex=True).abs().square()[0, :, 10:-10].mean(1)
        for n, size in ((1024, 1024), (n_fft, 400))
    )
    peak = n_fft // 16
    near = slice(peak - n_fft // 400, peak + n_fft // 400 + 1)
    changed = window_change(SOURCE, replace(HTK, n_fft=n_fft)) @ ours
    torch.testing.assert_close(changed[near], theirs[near], rtol=0.05, atol=0)


def test_hann_autocorrelation() -> None:
    window = np.hanning(1001)
    expected = np.correlate(window, window, "full")[1000:] / np.sum(window**2)
    lags = torch.arange(1001, dtype=torch.float64)
    np.testing.assert_allclose(hann_autocorrelation(lags / 1000).numpy(), expected, atol=1e-3)
    assert hann_autocorrelation(torch.tensor([1.5])) == pytest.approx(0, abs=1e-6)


def test_noise_bias_of_a_single_bin_is_that_of_the_exponential_distribution() -> None:
    bank = torch.zeros(1, 201)
    bank[0, 50] = 2.0
    assert noise_bias(bank, 400, 400, 2).item() == pytest.approx(-0.577216, abs=1e-4)  # E[ln X], X exponential of mean 1
    broad = torch.ones(1, 201)
    assert noise_bias(broad, 400, 400, 1).item() == pytest.approx(math.log(math.pi / 4) / 2, abs=5e-3)


def test_frames_are_interpolated_where_they_lie_in_time() -> None:
    target = MelInput(hop_length=160, frames=101)
    ramp = (torch.arange(64.0) * 256 / 16000 - 5).expand(1, 1, 80, 64)
    expected = torch.arange(101.0) * 160 / 16000 - 5
    torch.testing.assert_close(MelFrontEnd(SOURCE, target)(ramp), expected.expand(1, 1, 80, 101), atol=1e-5, rtol=0)


def test_after_the_end_the_last_frame_is_held_and_then_there_is_silence() -> None:
    front = MelFrontEnd(SOURCE, MelInput(frames=80))
    out = front(torch.full((1, 1, 80, 64), -2.0))[0, 0, 0]
    assert (out[:65] == -2).all()
    assert out[65:].numpy() == pytest.approx(math.log(1e-5))
    wave = nn.functional.pad(noise(1, 16128), (0, 6000))
    assert (front.from_wave(wave)[0, 0, :, 65:] < -10).all()
    assert (front.from_wave(wave)[0, 0, :, 64] > -10).any()


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


# Resampling


@pytest.mark.parametrize("new", [8000, 22050, 24000, 44100, 48000])
def test_resampling_equals_soxrs(new: int) -> None:
    import soxr

    low = noise(1, 2000)  # white below 2 kHz
    wave = torch.from_numpy(soxr.resample(low[0].double().numpy(), 4000, 16000, "VHQ"))[None].float() * 0.5
    expected = torch.from_numpy(soxr.resample(wave[0].double().numpy(), 16000, new, "VHQ")).float()
    got = resample(wave, 16000, new)[0]
    assert got.shape[0] == math.ceil(wave.shape[1] * new / 16000)
    middle = slice(new // 20, -new // 20)
    error = got[: len(expected)][middle] - expected[: len(got)][middle]
    assert 10 * torch.log10(expected[middle].square().mean() / error.square().mean()) > 50


@pytest.mark.parametrize(("old", "new"), [(16000, 22050), (16000, 8000), (44100, 16000), (8000, 16000)])
def test_a_resampled_sine_is_the_sine_of_the_new_rate(old: int, new: int) -> None:
    got = resample(sine(1000, old, old // 2), old, new)
    middle = slice(new // 20, -new // 20)
    torch.testing.assert_close(got[:, middle], sine(1000, new, got.shape[1])[:, middle], atol=1e-3, rtol=0)


def test_what_the_new_rate_cannot_hold_is_removed() -> None:
    assert resample(sine(5000, 16000, 8000), 16000, 8000)[:, 200:-200].abs().max() < 1e-3


def test_equal_rates_change_nothing_and_wild_ones_are_refused() -> None:
    wave = noise(2, 100)
    assert torch.equal(resample(wave, 22050, 22050), wave)
    with pytest.raises(ConfigError, match="choose a sample rate"):
        Resampler(16000, 15999)


# Waveforms


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


# Which, and refusals


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
