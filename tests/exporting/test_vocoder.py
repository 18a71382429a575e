"""The vocoder in plain operations says what the trained one says."""

from __future__ import annotations

import torch

from duovox.bundle import Bundle
from duovox.exporting.vocoder import PlainVocoder, noise_samples
from duovox.sound.vocoder.istft_net import fixed_noise
from duovox.voice import Duovox


def test_the_same_sound(tiny_bundle: Bundle) -> None:
    vocoder = tiny_bundle.vocoder
    assert vocoder is not None
    log_mel = -5 + torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    plain = PlainVocoder(vocoder)(log_mel, fixed_noise(noise_samples(vocoder)))
    torch.testing.assert_close(plain, vocoder(log_mel), rtol=0, atol=1e-4)


def test_the_pitch_of_the_shipped_vocoder() -> None:
    """In double precision on both sides: a word's pitch, to a millionth."""
    vocoder = Duovox.from_pretrained("sc06").bundle.vocoder
    assert vocoder is not None
    log_mel = -5 + 2 * torch.randn(1, 80, 64, generator=torch.Generator().manual_seed(0))
    expected = vocoder.pitch.hertz(vocoder.pitch(log_mel))
    torch.testing.assert_close(PlainVocoder(vocoder).pitch(log_mel), expected, rtol=1e-6, atol=0)


def test_other_noise_is_heard(tiny_bundle: Bundle) -> None:
    vocoder = tiny_bundle.vocoder
    assert vocoder is not None
    log_mel = -5 + torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    plain = PlainVocoder(vocoder)
    assert not torch.allclose(plain(log_mel, torch.zeros(noise_samples(vocoder))), vocoder(log_mel), atol=1e-3)
