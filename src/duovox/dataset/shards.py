"""One shard of a data set: takes a job and clips to make, writes their sounds and then their records. Every engine's workers run this."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from duovox.asking import AskedGuide
from duovox.clip import Clip
from duovox.config import SampleConfig, to_dict
from duovox.contracts import BundleError, OutputError
from duovox.data.noisy import Backgrounds, read_backgrounds
from duovox.dataset.augmentation import augment
from duovox.dataset.layouts import WINDOW, WINDOW_RATE, Sound, files_of, place_of, split_of
from duovox.dataset.options import Augmentation, Layout
from duovox.dataset.plan import Item, Shard, Target
from duovox.dataset.records import Record, require_folder, rounded, write_records
from duovox.devices import Precision
from duovox.evaluation.judge import SAMPLE_RATE, Judge, packaged_judge
from duovox.files import write_whole
from duovox.generation import cut
from duovox.sound.audio import encode_audio
from duovox.sound.hearing import resample
from duovox.steering import ScheduledGuide
from duovox.voice import Duovox, VocoderName

Advance = Callable[[int], object]
"""Told how many more clips are made."""


@dataclass(frozen=True)
class Job:
    """All that a worker needs, as plain values, on whatever machine it is. `voice`, `judge` and `noise` (the last two empty for none) are
    digests, so that nobody makes clips of other weights; `common` is what is said of every clip."""

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
    threshold: float | None = None
    """The probability from which on the judge hears a word; None where it decides nothing."""
    guides: tuple[AskedGuide, ...] = ()
    augmentation: Augmentation = field(default_factory=Augmentation)
    noise: str = ""
    judge_file: Path | None = None
    trust_code: bool = False
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Precision = "fp32"
    threads: int = 1


def judged_labels(targets: Sequence[Target], judged: bool) -> list[str]:
    """The labels that a judge must know: the words asked for, and the others where it decides about their clips."""
    return list(dict.fromkeys(t.labels[0] for t in targets if t.positive or (judged and t.kind == "outside")))


def told(guides: Sequence[ScheduledGuide]) -> list[dict[str, Any]]:
    """What is said in the manifest of the guides that steer a clip."""
    return [to_dict(guide.record) for guide in guides]


def open_noise(settings: Augmentation, layout: Layout, voice: Duovox) -> Backgrounds | None:
    """The noise recordings for clips of a voice, None without any. Raises `DataError`."""
    if settings.noise is None:
        return None
    mel = voice.config.recipe.mel
    rate, samples = (WINDOW_RATE, round(WINDOW * WINDOW_RATE)) if layout == "openwakeword" else (mel.sample_rate, mel.clip_samples)
    return read_backgrounds(settings.noise, rate, samples)


class Maker:
    """A worker: opens voice and judge once, and makes shard after shard. `place` is its number on its machine."""

    def __init__(self, job: Job, place: int = 0) -> None:
        """Raises `BundleError` where the voice, the judge or the guides here are others than the job's."""
        torch.set_num_threads(job.threads)
        device = f"cuda:{place % torch.cuda.device_count()}" if job.device == "cuda" else "cpu"
        self.job = job
        self.voice = Duovox.from_pretrained(job.bundle, trust_code=job.trust_code).to(device, job.precision)
        self.guides = [guide.aimed(self.voice, job.trust_code) for guide in job.guides]
        self.judge = Judge.load(job.judge_file or packaged_judge(self._labels())).to(device) if job.judge else None
        self.backgrounds = open_noise(job.augmentation, job.layout, self.voice)
        found = (self.voice.digest, self.judge.digest if self.judge else "", self.backgrounds.digest if self.backgrounds else "")
        if found != (job.voice, job.judge, job.noise) or told(self.guides) != job.common["guides"]:
            raise BundleError(f"{job.bundle}, judge, guides or noise are not those of the plan; give all workers the same files")

    def _labels(self) -> list[str]:
        return judged_labels(self.job.targets, self.job.threshold is not None)

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
        for batch in cut(items, self.job.batch):
            targets = [self.job.targets[item.target] for item in batch]
            if any(target.kind == "between" for target in targets):
                wanted = [(target.shares, item.seed) for target, item in zip(targets, batch, strict=True)]
                yield from self.voice.generate_between(wanted, self.job.settings, self.job.vocoder, self.guides)
            else:
                requests = [(target.labels[0], item.seed) for target, item in zip(targets, batch, strict=True)]
                yield from self.voice.generate_batch(requests, self.job.settings, self.job.vocoder, guides=self.guides)
            advance(len(batch))

    def _judged(self, clips: Sequence[Clip]) -> list[dict[str, float] | None]:
        """The judge's probabilities for each clip, None without a judge."""
        if self.judge is None:
            return [None] * len(clips)
        waves = np.stack([resample(np.nan_to_num(clip.wave), clip.rate, SAMPLE_RATE) for clip in clips])
        rows = self.judge.score(waves).probabilities
        return [rounded(dict(zip(self.judge.labels, row, strict=True))) for row in rows]

    def _finished(self, shard: Shard, item: Item, clip: Clip, heard: dict[str, float] | None) -> tuple[Record, bytes]:
        job, target = self.job, self.job.targets[item.target]
        dropped = "fault" if clip.fault and not job.keep_faulty else "" if self._heard_right(target, heard) else "judge"
        wav, changes = (b"", {}) if dropped else self._sound(item, clip)
        record: Record = {
            "id": item.id,
            "target": item.target,
            "label": target.name,
            "kind": target.kind,
            "seed": item.seed,
            "file": "" if dropped else place_of(job.layout, target, item, shard.number),
            "split": split_of(item),
            "kept": not dropped,
            "dropped": dropped,
            "fault": clip.fault,
            "bytes": len(wav),
            "sha256": "" if dropped else hashlib.sha256(wav).hexdigest(),
            "classifier": rounded(clip.probabilities),
            "judge": heard,
            "augmentation": changes,
        }
        return record, wav

    def _heard_right(self, target: Target, heard: dict[str, float] | None) -> bool:
        """Whether the judge hears the word; between words, whether it hears none of those asked for."""
        threshold = self.job.threshold
        if threshold is None or heard is None:
            return True
        if target.kind == "between":
            return all(heard[asked.labels[0]] < threshold for asked in self.job.targets if asked.positive)
        return heard[target.labels[0]] >= threshold

    def _sound(self, item: Item, clip: Clip) -> tuple[bytes, dict[str, Any]]:
        """The WAV file of a clip, and what was done to it."""
        wave, rate, window = clip.wave, clip.rate, None
        if self.job.layout == "openwakeword":
            wave, rate, window = resample(wave, rate, WINDOW_RATE), WINDOW_RATE, WINDOW
        wave, changes = augment(wave, rate, item, self.job.augmentation, self.backgrounds, window)
        return encode_audio(wave, rate, ".wav"), changes

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
