"""What data set is wanted and who makes it: the options of `duovox dataset`, for the command line and for `run`. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from duovox.contracts import ConfigError
from duovox.shipped import DEFAULT_BUNDLE

Layout = Literal["speech_commands", "webdataset", "openwakeword"]
ManifestForm = Literal["auto", "parquet", "jsonl"]
EngineName = Literal["local", "torchrun", "ray"]

SNR = (5.0, 15.0)
"""The range of the ratio of speech to noise where nothing else was asked for, dB."""

THRESHOLD = 0.5
"""The probability from which on a judge hears a word, where nothing else was asked for."""

LOUDEST, LONGEST_SHIFT = 100, 1000
"""Most dB of a gain or a ratio, and milliseconds of a shift: beyond them a clip holds nothing of the word."""


@dataclass(frozen=True)
class Augmentation:
    """How clips are changed as rooms and microphones do. Raises `ConfigError` for impossible values."""

    noise: Path | None = None
    """Folder of noise recordings to put behind the clips."""
    snr: tuple[float, float] = SNR
    """Range of the ratio of speech to noise, dB."""
    noise_share: float = 1.0
    """Share of the clips that have a background, where there is --noise."""
    rooms: float = 0.0
    """Share of the clips that sound as in a small room."""
    gain: float = 0.0
    """Make clips louder or softer by up to so many dB."""
    shift: float = 0.0
    """Move clips in time by up to so many milliseconds; openwakeword has a jitter of its own."""

    def __post_init__(self) -> None:
        for name in ("noise_share", "rooms"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"--{name.replace('_', '-')} is a share, from 0 to 1, not {getattr(self, name):g}")
        if not 0 <= self.gain <= LOUDEST:
            raise ConfigError(f"--gain must lie between 0 and {LOUDEST} dB, not {self.gain:g}")
        if not 0 <= self.shift < LONGEST_SHIFT:
            raise ConfigError(f"--shift must lie between 0 and {LONGEST_SHIFT} ms, not {self.shift:g}")
        if not -LOUDEST <= self.snr[0] <= self.snr[1] <= LOUDEST:
            raise ConfigError(
                f"--snr must be two levels, the lower first, between -{LOUDEST} and {LOUDEST} dB, not {self.snr[0]:g} {self.snr[1]:g}"
            )
        if self.noise is None and (self.snr, self.noise_share) != (SNR, 1.0):
            raise ConfigError("--snr and --noise-share are for noise; give a folder of it with --noise, or leave them out")


@dataclass(frozen=True)
class Options:
    """The options of `duovox dataset`; what stands below a field is its help. Raises `ConfigError` for impossible values."""

    out: Path
    """Folder for the data set; the same command goes on with what is there."""
    per_word: int
    """How many clips of each word."""
    words: tuple[str, ...] = ()
    """The words, separated by spaces or commas; all of the bundle's if left out."""
    between: int = 0
    """How many clips between each word and the others of the bundle in turn: hard negatives, guided to where both are as probable."""
    outside: int = 0
    """How many clips of each word of the bundle that was not asked for: more negatives."""
    seed: int = 0
    """Seed of the first clip of each word; the others follow it."""
    layout: Layout = "speech_commands"
    """Form of the sounds: a folder a word with lists of the splits; tar shards of WebDataset; or positive_train, positive_test,
    negative_train, negative_test with windows of 2 s, for wake words."""
    manifest: ManifestForm = "auto"
    """Form of the one table of all clips; auto takes Parquet where pyarrow is installed (extra `dataset`), else JSON lines."""
    bundle: str = DEFAULT_BUNDLE
    """Name of a bundle in the package, a bundle folder, or a hub id."""
    guide: tuple[str, ...] = ()
    """Guides that steer every clip, as in `duovox generate`: pitch-280Hz, speaker-FILE.wav, GUIDE-TARGET:GAMMA."""
    trust_code: bool = False
    """Run the code that a bundle or a guide of someone else's classifier names or holds."""
    vocoder: Literal["neural", "griffin_lim"] | None = None
    """How the mel becomes sound; the bundle's best if left out."""
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    """Where to compute; workers share the CUDA devices of a machine."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """What the networks sample in; auto takes bf16 where it is fast."""
    keep_faulty: bool = False
    """Keep clips that ran off to noise or silence as well."""
    judge: Path | None = None
    """Weights of an independent judge, whose probabilities stand in the manifest; one in the package that knows the words if left out."""
    judged: bool = False
    """Keep only clips that the judge hears right; between words, those in which it hears none of the words asked for."""
    threshold: float = THRESHOLD
    """The probability from which on it hears a word, with --judged."""
    tries: int = 4
    """At most so many clips are made for each that is kept; others take the place of those thrown away."""
    batch: int = 8
    """Clips computed at once."""
    shard: int | None = None
    """Clips of a shard, which is made whole or not at all; up to 256, fewer for a small set, if left out."""
    engine: EngineName = "local"
    """Who computes: processes of this machine, the ranks that torchrun started, or Ray (extra `ray`)."""
    workers: int | None = None
    """Worker processes; one for each usable core, or CPU of the Ray cluster, if left out."""
    threads: int = 1
    """Threads of each worker."""
    address: str | None = None
    """Address of a Ray cluster, such as 10.0.0.1:6379, or auto; one is started on this machine if left out."""
    dry_run: bool = False
    """Only say how many clips, how much sound and how many bytes it would be."""

    def __post_init__(self) -> None:
        for name in ("per_word", "tries", "batch", "shard", "workers", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
        for name in ("between", "outside"):
            if getattr(self, name) < 0:
                raise ConfigError(f"--{name} must not be negative, not {getattr(self, name)}")
        if not 0 < self.threshold < 1:
            raise ConfigError(f"--threshold must lie between 0 and 1, not {self.threshold:g}")
        if self.threshold != THRESHOLD and not self.judged:
            raise ConfigError("--threshold is for --judged; give that too, or leave it out")
        if self.address is not None and self.engine != "ray":
            raise ConfigError(f"--address is that of a Ray cluster; give --engine ray with it, not {self.engine}")
        if self.workers is not None and self.engine == "torchrun":
            raise ConfigError("--workers is not for --engine torchrun; say how many to torchrun (--nproc-per-node)")
