"""Recordings with a background: takes a feature folder and a folder of noise recordings, gives a feature folder of noisy clips.

The ratio of speech to noise is that of the clips' mean powers over their whole length, silence included.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from duovox.contracts import AudioError, DataError
from duovox.data.changing import Changed, write_changed
from duovox.data.decoding import check_place
from duovox.data.features import FORMAT, FULL_SCALE, Features, Manifest, features_of, open_features, read_manifest
from duovox.sound.audio import READABLE, read_audio
from duovox.sound.folders import find_sounds
from duovox.sound.mel import LogMel

LONGEST = 600.0
"""Seconds that a noise recording may last: many are longer than any sound file of a word."""

_CHUNK = 256


@dataclass(frozen=True, eq=False)
class Backgrounds:
    """Noise recordings, each (S,) float32 of at least a clip's length, and the digest of their samples."""

    waves: tuple[NDArray[np.float32], ...]
    digest: str

    def halves(self, samples: int) -> tuple[Backgrounds, Backgrounds]:
        """The first half of every recording, to train in, and the second, to be tested in. Raises `DataError` where one is shorter than two
        stretches of so many samples."""
        if short := [len(noise) for noise in self.waves if len(noise) < 2 * samples]:
            raise DataError(
                f"a noise recording has {short[0]} samples, two clips {2 * samples}: half of it is for training; give longer ones"
            )
        parts = zip(*((noise[: len(noise) // 2], noise[len(noise) // 2 :]) for noise in self.waves), strict=True)
        first, second = (Backgrounds(tuple(waves), f"{self.digest} half {number}") for number, waves in enumerate(parts, 1))
        return first, second

    def add_to(self, wave: NDArray[np.float32], snr: float, seed: Sequence[int]) -> NDArray[np.float32]:
        """wave (S,) with a stretch of noise chosen by `seed` at `snr` dB; both are made quieter where the sum would clip."""
        which, start = self.draw(len(wave), np.random.default_rng(list(seed)))
        return mix(wave, self.waves[which][start : start + len(wave)], snr)

    def draw(self, samples: int, rng: np.random.Generator) -> tuple[int, int]:
        """Which recording, a long one more often, and where in it a stretch of so many samples begins."""
        lengths = np.array([len(noise) for noise in self.waves], dtype=np.float64)
        which = int(rng.choice(len(self.waves), p=lengths / lengths.sum()))
        return which, int(rng.integers(len(self.waves[which]) - samples + 1))


def mix(wave: NDArray[np.float32], noise: NDArray[np.float32], snr: float) -> NDArray[np.float32]:
    """wave + noise (S,), the noise scaled so that their mean powers differ by `snr` dB; scaled down where the sum leaves [-1, 1].
    Silence on either side leaves the wave as it is."""
    speech, background = float(np.mean(np.square(wave, dtype=np.float64))), float(np.mean(np.square(noise, dtype=np.float64)))
    if speech == 0 or background == 0:
        return wave
    mixed = wave + np.float32(np.sqrt(speech / background / 10 ** (snr / 10))) * noise
    mixed /= max(1.0, float(np.abs(mixed).max()))
    return mixed


def read_backgrounds(folder: str | Path, rate: int, samples: int, clips: int = 1) -> Backgrounds:
    """The sound files below a folder at `rate` Hz. Raises `DataError` for a folder without any, and for a recording that cannot be read, is
    silent, shorter than so many `clips` of `samples` samples or longer than `LONGEST`."""
    folder = Path(folder)
    paths = find_sounds(folder).sounds if folder.is_dir() else []
    if not paths:
        raise DataError(f"{folder} holds no sound files; give a folder of noise recordings ({', '.join(READABLE)})")
    try:
        waves = tuple(read_audio(path, rate, LONGEST) for path in paths)
    except AudioError as error:
        raise DataError(f"noise: {error}") from None
    for path, wave in zip(paths, waves, strict=True):
        if len(wave) < clips * samples:
            needed = f"a clip {samples}" if clips == 1 else f"{clips} clips of {samples} must fit into it"
            raise DataError(f"{path} has {len(wave)} samples, {needed}; give longer noise recordings")
        if not wave.any():
            raise DataError(f"{path} is silent, and no noise; take it out of the folder")
    return Backgrounds(waves, hashlib.sha256(b"".join(hashlib.sha256(wave.tobytes()).digest() for wave in waves)).hexdigest())


def add_background(source: str | Path, noise: str | Path, out: str | Path, snr: float, seed: int = 0) -> Manifest:
    """Write the feature folder `out`: the clips of the folder `source` with backgrounds at `snr` dB, unless it is there already.

    Clip i has the stretch of noise that (seed, i) draws. An older feature folder at `out`, or a damaged one, is replaced. Raises
    `DataError`, and `OutputError` where `out` is something else or cannot be written.
    """
    source, out = Path(source), Path(out)
    check_place(source, out)
    features = open_features(source)
    backgrounds = read_backgrounds(noise, features.mel.sample_rate, features.mel.clip_samples)
    inputs = hashlib.sha256(json.dumps([features.digest, backgrounds.digest, snr, seed]).encode()).hexdigest()
    manifest = replace(read_manifest(source), format=FORMAT, inputs=inputs)
    return write_changed(out, manifest, _changed(features, noisy_waves(features, backgrounds, snr, seed)))


def noisy_waves(
    features: Features, backgrounds: Backgrounds, snr: float, seed: int = 0, indices: NDArray[np.int64] | None = None
) -> Iterator[NDArray[np.int16]]:
    """Chunks (n, S) of the clips `indices` (all if left out), in order, with backgrounds at `snr` dB."""
    chosen = np.arange(len(features.label)) if indices is None else indices
    for start in range(0, len(chosen), _CHUNK):
        places = chosen[start : start + _CHUNK]
        clean = features.waves[places].astype(np.float32) / FULL_SCALE
        mixed = np.stack([backgrounds.add_to(wave, snr, (seed, int(place))) for wave, place in zip(clean, places, strict=True)])
        yield np.clip(np.round(mixed * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def _changed(features: Features, chunks: Iterator[NDArray[np.int16]]) -> Iterator[Changed]:
    """Chunks of waves, of the clips of `features` in order, with their log-mels."""
    log_mel, done = LogMel(features.mel), 0
    for waves in chunks:
        yield Changed(waves, features_of(waves, log_mel), features.split[done : done + len(waves)] == "train", waves)
        done += len(waves)
