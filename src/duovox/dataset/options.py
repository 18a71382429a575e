"""What data set is wanted and who makes it: the options of `duovox dataset`, for the command line and for `run`. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from duovox.contracts import ConfigError
from duovox.shipped import DEFAULT_BUNDLE

Layout = Literal["speech_commands", "webdataset"]
ManifestForm = Literal["auto", "parquet", "jsonl"]
EngineName = Literal["local", "torchrun", "ray"]


@dataclass(frozen=True)
class Options:
    """The options of `duovox dataset`; what stands below a field is its help. Raises `ConfigError` for impossible values."""

    out: Path
    """Folder for the data set; the same command goes on with what is there."""
    per_word: int
    """How many clips of each word."""
    words: tuple[str, ...] = ()
    """The words, separated by spaces or commas; all of the bundle's if left out."""
    seed: int = 0
    """Seed of the first clip of each word; the others follow it."""
    layout: Layout = "speech_commands"
    """Form of the sounds: a folder a word with lists of the splits, or tar shards of WebDataset."""
    manifest: ManifestForm = "auto"
    """Form of the one table of all clips; auto takes Parquet where pyarrow is installed (extra `dataset`), else JSON lines."""
    bundle: str = DEFAULT_BUNDLE
    """Name of a bundle in the package, a bundle folder, or a hub id."""
    trust_code: bool = False
    """Run the code that a bundle of someone else's classifier names or holds."""
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
        if self.address is not None and self.engine != "ray":
            raise ConfigError(f"--address is that of a Ray cluster; give --engine ray with it, not {self.engine}")
        if self.workers is not None and self.engine == "torchrun":
            raise ConfigError("--workers is not for --engine torchrun; say how many to torchrun (--nproc-per-node)")
