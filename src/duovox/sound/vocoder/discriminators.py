"""Judges of sound for training the vocoder: take waves from `training.vocoder`, give scores and features. Never shipped.

Two families: periods of the wave (HiFi-GAN, arXiv 2010.05646) and complex spectra at several resolutions (arXiv 2210.13438).
Where those stride, these fold neighbours into channels: in channels-last memory that is free, and the dense convolutions that
follow are several times faster on a processor than strided ones.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

PERIODS = (2, 3, 5, 7, 11)
FFT_SIZES = (256, 512, 1024)
SLOPE = 0.1


def fold(x: Tensor, count: int) -> Tensor:
    """`count` neighbours along the last axis become channels: (B, C, H, W) -> (B, C * count, H, W // count), channels last."""
    grown = nn.functional.pad(x, (0, -x.shape[3] % count))
    folded = grown.permute(0, 2, 3, 1).unflatten(2, (-1, count)).flatten(3)
    return folded.permute(0, 3, 1, 2)


class FoldingLayers(nn.Module):
    """Fold, convolve, bend, layer by layer: (B, C, H, W) -> the output of each layer, the last one the scores.

    `folds` gives each layer's count of neighbours, `widths` its channels, `kernel` the extent in (H, W), `dilations` in H.
    """

    def __init__(
        self, channels: int, widths: tuple[int, ...], folds: tuple[int, ...], kernel: tuple[int, int], dilations: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.folds = folds
        inputs = [count * width for count, width in zip(folds, (channels, *widths), strict=False)]
        settings = zip(inputs, widths, dilations, strict=True)
        self.layers = nn.ModuleList(
            [nn.Conv2d(i, o, kernel, padding=(kernel[0] // 2 * d, kernel[1] // 2), dilation=(d, 1)) for i, o, d in settings]
        )
        self.score = nn.Conv2d(widths[-1], 1, kernel, padding=(kernel[0] // 2, kernel[1] // 2))

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for layer, count in zip(self.layers, self.folds, strict=True):
            x = nn.functional.leaky_relu(layer(fold(x, count)), SLOPE)
            features.append(x)
        return [*features, self.score(x)]


class PeriodDiscriminator(nn.Module):
    """wave (B, S) cut into rows of samples `period` apart -> the features of each layer, the last of them the scores."""

    def __init__(self, period: int, width: int) -> None:
        super().__init__()
        self.period = period
        self.layers = FoldingLayers(1, (width, 2 * width, 2 * width, 2 * width), (8, 4, 4, 1), (1, 5), (1, 1, 1, 1))

    def forward(self, wave: Tensor) -> list[Tensor]:
        padded = nn.functional.pad(wave, (0, -wave.shape[1] % self.period))
        features: list[Tensor] = self.layers(padded.unflatten(1, (-1, self.period)).transpose(1, 2).unsqueeze(1))
        return features


class SpectrumDiscriminator(nn.Module):
    """wave (B, S) as a complex spectrum, magnitudes square-rooted -> the features of each layer, the last of them the scores."""

    window: Tensor

    def __init__(self, n_fft: int, width: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.layers = FoldingLayers(2, (width, width, width, width), (8, 2, 2, 1), (3, 3), (1, 1, 2, 4))

    def forward(self, wave: Tensor) -> list[Tensor]:
        with torch.autocast(wave.device.type, enabled=False):
            spectrum = torch.stft(wave.float(), self.n_fft, self.n_fft // 4, window=self.window, return_complex=True)[:, 1:]
            parts = torch.view_as_real(spectrum).permute(0, 3, 2, 1)
            parts = parts * (parts.square().sum(dim=1, keepdim=True) + 1e-4).pow(-0.25)
        features: list[Tensor] = self.layers(parts)
        return features


class Discriminators(nn.Module):
    """wave (B, S) -> for each discriminator its features, the last entry the scores (positive: real)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        periods = [PeriodDiscriminator(period, width) for period in PERIODS]
        spectra = [SpectrumDiscriminator(n_fft, width) for n_fft in FFT_SIZES]
        self.judges = nn.ModuleList([*periods, *spectra])

    def forward(self, wave: Tensor) -> list[list[Tensor]]:
        return [judge(wave) for judge in self.judges]


def discriminator_loss(real: list[list[Tensor]], fake: list[list[Tensor]]) -> Tensor:
    """Hinge loss of the scores, mean over the discriminators."""
    losses = [torch.relu(1 - r[-1].float()).mean() + torch.relu(1 + f[-1].float()).mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(losses).mean()


def adversarial_loss(fake: list[list[Tensor]]) -> Tensor:
    """What the generator minimises so that its scores rise, mean over the discriminators."""
    return torch.stack([-f[-1].float().mean() for f in fake]).mean()


def feature_loss(real: list[list[Tensor]], fake: list[list[Tensor]], of_all: Callable[[Tensor], Tensor] = lambda mean: mean) -> Tensor:
    """L1 distance of the features but the first, relative to the real ones' mean size; mean over layers and discriminators. `of_all`
    makes means over these items those over a larger batch that they are part of."""
    pairs = [(r.detach(), f) for rs, fs in zip(real, fake, strict=True) for r, f in zip(rs[1:-1], fs[1:-1], strict=True)]
    sizes = of_all(torch.stack([mean_size(r) for r, _ in pairs])).clamp(min=1e-4)
    return (torch.stack([mean_size(r - f) for r, f in pairs]) / sizes).mean()


def mean_size(x: Tensor) -> Tensor:
    return x.abs().mean(dtype=torch.float32)
