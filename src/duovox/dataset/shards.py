"""One shard of a data set: takes a job and clips to make, writes their sounds and then their records. Every engine's workers run this."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from duovox.clip import Clip
from duovox.config import SampleConfig
from duovox.contracts import BundleError, OutputError
from duovox.dataset.layouts import Sound, files_of, place_of, split_of
from duovox.dataset.options import Layout
from duovox.dataset.plan import Item, Shard, Target
from duovox.dataset.records import Record, require_folder, rounded, write_records
from duovox.devices import Precision
from duovox.evaluation.judge import SAMPLE_RATE, Judge, packaged_judge
from duovox.files import write_whole
from duovox.generation import Request, cut, generate_each
from duovox.sound.audio import encode_audio
from duovox.sound.hearing import resample
from duovox.voice import Duovox, VocoderName

Advance = Callable[[int], object]
"""Told how many more clips are made."""


@dataclass(frozen=True)
class Job:
    """All that a worker needs, as plain values, on whatever machine it is. `voice` and `judge` (empty: none) are digests, so that nobody
    makes clips of other weights; `common` is what is said of every clip."""

    out: Path
    bundle: str
    voice: str
    judge: str
    targets: tuple[Target, ...]
    settings: SampleConfig
    vocoder: VocoderName | None
    layout: Layout
    batch: int
    keep_faulty: bool
    common: dict[str, Any]
    judge_file: Path | None = None
    trust_code: bool = False
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Precision = "fp32"
    threads: int = 1


class Maker:
    """A worker: opens voice and judge once, and makes shard after shard. `place` is its number on its machine."""

    def __init__(self, job: Job, place: int = 0) -> None:
        """Raises `BundleError` where the voice or the judge here are others than the job's."""
        torch.set_num_threads(job.threads)
        device = f"cuda:{place % torch.cuda.device_count()}" if job.device == "cuda" else "cpu"
        self.job = job
        self.voice = Duovox.from_pretrained(job.bundle, trust_code=job.trust_code).to(device, job.precision)
        self.judge = Judge.load(job.judge_file or packaged_judge(self._labels())).to(device) if job.judge else None
        if self.voice.digest != job.voice or (self.judge is not None and self.judge.digest != job.judge):
            raise BundleError(f"{job.bundle}, or the judge, is not what the job was planned with; give all workers the same files")

    def _labels(self) -> list[str]:
        return [target.label for target in self.job.targets]

    def make(self, shard: Shard, advance: Advance = lambda clips: None) -> None:
        """Make a shard, unless it is there. Raises `OutputError`, and what `Duovox.generate_batch` raises."""
        clips = list(self._clips(shard.items, advance))
        judged = self._judged(clips)
        records, sounds = [], []
        for item, clip, heard in zip(shard.items, clips, judged, strict=True):
            record, wav = self._finished(shard, item, clip, heard)
            records.append(record)
            if record["kept"]:
                sounds.append(Sound(wav, record))
        self._write(shard, sounds, records)

    def _clips(self, items: Sequence[Item], advance: Advance) -> Iterator[Clip]:
        requests = [Request(self.job.targets[item.target].label, item.seed) for item in items]
        for _, clip in generate_each(self.voice, cut(requests, self.job.batch), self.job.settings, self.job.vocoder):
            yield clip
            advance(1)

    def _judged(self, clips: Sequence[Clip]) -> list[dict[str, float] | None]:
        """The judge's probabilities for each clip, None without a judge."""
        if self.judge is None:
            return [None] * len(clips)
        waves = np.stack([resample(np.nan_to_num(clip.wave), clip.rate, SAMPLE_RATE) for clip in clips])
        rows = self.judge.score(waves).probabilities
        return [rounded(dict(zip(self.judge.labels, row, strict=True))) for row in rows]

    def _finished(self, shard: Shard, item: Item, clip: Clip, heard: dict[str, float] | None) -> tuple[Record, bytes]:
        job, target = self.job, self.job.targets[item.target]
        dropped = "fault" if clip.fault and not job.keep_faulty else ""
        wav = b"" if dropped else encode_audio(clip.wave, clip.rate, ".wav")
        record: Record = {
            "id": item.id,
            "label": target.label,
            "seed": item.seed,
            "file": "" if dropped else place_of(job.layout, target, item, shard.number),
            "split": split_of(item),
            "kept": not dropped,
            "dropped": dropped,
            "fault": clip.fault,
            "sha256": "" if dropped else hashlib.sha256(wav).hexdigest(),
            "classifier": rounded(clip.probabilities),
            "judge": heard,
        }
        return record, wav

    def _write(self, shard: Shard, sounds: Sequence[Sound], records: Sequence[Record]) -> None:
        """First the sounds, then the records, which say that the shard is finished."""
        out = self.job.out
        require_folder(out)
        try:
            for name, content in files_of(self.job.layout, shard.number, sounds, self.job.common).items():
                write_whole(out / name, content, force=True)
            write_records(out, shard.number, records)
        except OutputError as error:
            require_folder(out)
            raise OutputError(f"{error}; mend that, and the same command goes on") from None
