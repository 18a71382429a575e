"""Short-time Fourier transforms in real arithmetic, of operations that every ONNX runtime has.

Takes and gives real tensors: a spectrum is a pair (real, imaginary). onnxruntime has no inverse transform, and ONNX none at all. A
transform of N = P Q points is two small matrix products with a twiddle between them (Cooley and Tukey 1965).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

Spectrum = tuple[Tensor, Tensor]
"""Real and imaginary part, (B, T, bins) each."""


class Fourier(nn.Module):
    """The Fourier transform of N real points and its inverse, over the last axis; N / 2 + 1 bins."""

    first: Tensor
    twiddle: Tensor
    second: Tensor
    weights: Tensor

    def __init__(self, points: int) -> None:
        super().__init__()
        self.points = points
        self.rows = max(p for p in range(1, math.isqrt(points) + 1) if points % p == 0)
        rows, columns = self.rows, points // self.rows
        twice = torch.full((points // 2 + 1,), 2.0 / points)
        twice[0] = 1.0 / points
        twice[-1] = (1.0 if points % 2 == 0 else 2.0) / points
        self.register_buffer("first", _roots(rows, rows, rows), persistent=False)
        self.register_buffer("twiddle", _roots(rows, columns, points), persistent=False)
        self.register_buffer("second", _roots(columns, columns, columns), persistent=False)
        self.register_buffer("weights", twice, persistent=False)

    def forward(self, x: Tensor) -> Spectrum:
        """x (..., N) -> its spectrum, (..., N / 2 + 1) each."""
        real, imaginary = self._transform(x, torch.zeros_like(x), 1.0)
        bins = self.points // 2 + 1
        return real[..., :bins], imaginary[..., :bins]

    def inverse(self, spectrum: Spectrum) -> Tensor:
        """A spectrum, (..., N / 2 + 1) each -> the N real points (..., N) that have it."""
        missing = self.points - self.points // 2 - 1
        whole = [nn.functional.pad(part * self.weights, (0, missing)) for part in spectrum]
        return self._transform(whole[0], whole[1], -1.0)[0]

    def _transform(self, real: Tensor, imaginary: Tensor, direction: float) -> Spectrum:
        """All N points: point Q p + q becomes bin r + P s. `direction` is 1 forwards, -1 backwards (without the division by N)."""
        shape = (*real.shape[:-1], self.rows, self.points // self.rows)
        a, b = real.reshape(shape), imaginary.reshape(shape)
        cosine, sine = self.first[0], direction * self.first[1]
        a, b = cosine @ a + sine @ b, cosine @ b - sine @ a
        cosine, sine = self.twiddle[0], direction * self.twiddle[1]
        a, b = cosine * a + sine * b, cosine * b - sine * a
        cosine, sine = self.second[0], direction * self.second[1]
        a, b = a @ cosine + b @ sine, b @ cosine - a @ sine
        return a.transpose(-1, -2).reshape(real.shape), b.transpose(-1, -2).reshape(real.shape)


def _roots(rows: int, columns: int, points: int) -> Tensor:
    """Cosines and sines of 2 pi r c / points, (2, rows, columns)."""
    turns = torch.outer(torch.arange(rows), torch.arange(columns)) % points
    angles = turns.double() * (2 * math.pi / points)
    return torch.stack([angles.cos(), angles.sin()]).float()


class Framing(nn.Module):
    """wave (B, (T - 1) hop) <-> windowed spectra of T centred frames, as `torch.stft` and `torch.istft` make them (reflected ends)."""

    window: Tensor
    overlap: Tensor

    def __init__(self, n_fft: int, hop: int, window: Tensor, frames: int) -> None:
        super().__init__()
        self.n_fft, self.hop, self.frames = n_fft, hop, frames
        self.pieces = math.ceil(n_fft / hop)
        self.fourier = Fourier(n_fft)
        left = (n_fft - len(window)) // 2
        padded = nn.functional.pad(window, (left, n_fft - len(window) - left))
        self.register_buffer("window", padded, persistent=False)
        self.register_buffer("overlap", self._overlap_add(padded.square().expand(1, frames, n_fft)).clamp(min=1e-11), persistent=False)

    def stft(self, wave: Tensor) -> Spectrum:
        """wave (B, (T - 1) hop) -> spectrum (B, T, bins)."""
        half = self.n_fft // 2
        padded = nn.functional.pad(wave, (half, half), mode="reflect")
        padded = nn.functional.pad(padded, (0, (self.frames + self.pieces - 1) * self.hop - padded.shape[1]))
        chunks = padded.reshape(-1, self.frames + self.pieces - 1, self.hop)
        frames = torch.cat([chunks[:, piece : piece + self.frames] for piece in range(self.pieces)], dim=2)
        spectrum: Spectrum = self.fourier(frames[..., : self.n_fft] * self.window)
        return spectrum

    def istft(self, spectrum: Spectrum) -> Tensor:
        """spectrum (B, T, bins) -> wave (B, (T - 1) hop)."""
        return self._overlap_add(self.fourier.inverse(spectrum) * self.window) / self.overlap

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """frames (B, T, n_fft), each `hop` after the last, added up: (B, (T - 1) hop), without the half frame beyond either end."""
        padded = nn.functional.pad(frames, (0, self.pieces * self.hop - self.n_fft)).split(self.hop, dim=2)
        moved = [nn.functional.pad(part, (0, 0, piece, self.pieces - 1 - piece)) for piece, part in enumerate(padded)]
        whole = torch.stack(moved).sum(dim=0).flatten(1)
        start = self.n_fft // 2
        return whole[:, start : start + (self.frames - 1) * self.hop]
