"""A data set from its options: takes what is wanted, plans it, has an engine make what is missing, writes lists and manifest.

The plan is made in rounds: each begins when the shards of the one before are there, and holds what is still missing. So a run that was
interrupted, and any number of workers of any engine, come by the same clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from duovox.asking import AskedGuide, asked_guides
from duovox.bundle import locate
from duovox.config import SampleConfig, to_dict
from duovox.contracts import ConfigError, GenerationError, LabelError
from duovox.dataset.engines.base import Run
from duovox.dataset.layouts import WINDOW, WINDOW_RATE, folders
from duovox.dataset.manifest import choose_form, write_lists, write_manifest
from duovox.dataset.options import Augmentation, ManifestForm, Options
from duovox.dataset.plan import Shard, Tally, Target, all_targets, cut_shards, further, shard_size
from duovox.dataset.records import FOLDER, counted, missing, read_records
from duovox.dataset.shards import Job, judged_labels, open_noise, told
from duovox.devices import choose_device
from duovox.evaluation.judge import Judge, packaged_judge
from duovox.files import claimed
from duovox.generation import deciding_facts, remove_leftovers, settle
from duovox.progress import progress
from duovox.shipped import BUNDLES
from duovox.steering import ScheduledGuide, check_guides, steering
from duovox.voice import Duovox

FORMAT = "duovox-dataset-2"


@dataclass(frozen=True)
class Planned:
    """A job, and all else that decides its data set. `facts` are written beside it; `labels` are those of the voice and of the judge."""

    job: Job
    options: Options
    size: int
    facts: dict[str, Any]
    labels: tuple[tuple[str, ...], tuple[str, ...]]
    form: ManifestForm
    samples: int
    rate: int

    @property
    def clips(self) -> int:
        """How many clips are wanted."""
        return sum(target.want for target in self.job.targets)


@dataclass(frozen=True)
class Outcome:
    """What there is in the end: the tally of each target, and the manifest."""

    targets: tuple[Target, ...]
    tallies: tuple[Tally, ...]
    manifest: Path


def plan_dataset(options: Options, changes: dict[str, Any] | None = None, augmentation: Augmentation | None = None) -> Planned:
    """Everything that can be refused is refused here, before anything is made. `changes` are sampling settings in the place of the
    bundle's own.

    Raises `ConfigError`, `LabelError`, `GenerationError`, `BundleError`, `GuideError`, and `DataError` for a folder of noise.
    """
    form = choose_form(options.manifest)
    device = choose_device(options.device)
    voice = Duovox.from_pretrained(options.bundle, trust_code=options.trust_code).to(device, options.precision)
    settings = voice.settings(**(changes or {}))
    guides = _choose_guides(voice, options, settings)
    targets = all_targets(choose_words(voice, options.words), voice.labels, options.per_word, options.between, options.outside)
    if options.between and settings.sampler == "student":
        raise GenerationError("--between: a student says single words; take another --sampler")
    if augmentation and augmentation.shift and options.layout == "openwakeword":
        raise ConfigError("--shift: the layout openwakeword moves words by a jitter of its own; leave --shift out")
    voice.check_request(None, options.seed, max(target.first + target.want * options.tries for target in targets))
    augmentation = augmentation or Augmentation()
    if augmentation.noise is not None:
        augmentation = replace(augmentation, noise=augmentation.noise.absolute())
    steered = [guide for _, guide in guides]
    judge, noise = _choose_judge(options, voice, targets, steered), open_noise(augmentation, options.layout, voice)
    size = options.shard or shard_size(sum(target.want for target in targets), options.batch)
    job = _job(voice, options, targets, settings, judge, guides, augmentation, noise.digest if noise else "")
    labels = (voice.labels, judge.labels if judge else ())
    facts = deciding_facts(voice, settings, vocoder=options.vocoder, guides=steered) | _facts(job, options, size)
    return Planned(job, options, size, facts, labels, form, *_length(voice, options))


def _job(
    voice: Duovox,
    options: Options,
    targets: tuple[Target, ...],
    settings: SampleConfig,
    judge: Judge | None,
    guides: Sequence[tuple[AskedGuide, ScheduledGuide]],
    augmentation: Augmentation,
    noise: str,
) -> Job:
    """What workers are told."""
    own, digest, said = voice.choose_vocoder(options.vocoder), judge.digest if judge else "", told([guide for _, guide in guides])
    common = {"settings": to_dict(settings), "guides": said, "vocoder": own, "bundle": voice.digest, "judged_by": digest}
    return Job(
        out=options.out.absolute(),
        bundle=_portable(options.bundle),
        voice=voice.digest,
        judge=digest,
        targets=targets,
        settings=settings,
        vocoder=options.vocoder,
        layout=options.layout,
        batch=options.batch,
        keep_faulty=options.keep_faulty,
        common=common,
        threshold=options.threshold if options.judged else None,
        guides=tuple(asked for asked, _ in guides),
        augmentation=augmentation,
        noise=noise,
        judge_file=options.judge.absolute() if options.judge else None,
        trust_code=options.trust_code,
        device="cuda" if voice.device.type == "cuda" else "cpu",
        precision=voice.precision,
        threads=options.threads,
    )


def _length(voice: Duovox, options: Options) -> tuple[int, int]:
    """Samples, and Hz, of a clip."""
    mel = voice.config.recipe.mel
    return (round(WINDOW * WINDOW_RATE), WINDOW_RATE) if options.layout == "openwakeword" else (mel.clip_samples, mel.sample_rate)


def choose_words(voice: Duovox, asked: Sequence[str]) -> list[str]:
    """The labels that are meant by words, or by words separated by commas, in the voice's order; all of the voice's for none. Raises
    `LabelError`."""
    words = [word for given in asked for word in ([given] if given in voice.labels else given.split(","))]
    if asked and not any(word.strip() for word in words):
        raise LabelError(f"--words names no word; this model speaks: {', '.join(voice.labels)}")
    meant = {voice.resolve_label(word.strip()) for word in words}
    return [label for label in voice.labels if label in meant or not words]


def _choose_guides(voice: Duovox, options: Options, settings: SampleConfig) -> list[tuple[AskedGuide, ScheduledGuide]]:
    """The guides that steer at all. Raises `GuideError` for those that cannot steer together, or with these settings."""
    found = [(asked, guide) for asked, guide in asked_guides(voice, options.guide, options.trust_code) if steering([guide])]
    check_guides([guide for _, guide in found], settings)
    return found


def _choose_judge(options: Options, voice: Duovox, targets: Sequence[Target], guides: Sequence[ScheduledGuide]) -> Judge | None:
    """The judge that is asked for, or one in the package that knows the words; None where there is none and none is to decide."""
    labels = judged_labels(targets, options.judged)
    judge = Judge.load(options.judge or packaged_judge(labels))
    if options.judge is None and not options.judged and not set(labels) <= set(judge.labels):
        return None
    judge.require(labels)
    for classifier in (voice.bundle.model.classifier, *(guide.network for guide in guides if guide.network)):
        judge.refuse_guide(classifier)
    return judge


def _portable(bundle: str) -> str:
    """A bundle as other processes find it: a folder by its whole path, one of the package by its name."""
    place = locate(bundle)
    return bundle if place.parent == BUNDLES else str(place.absolute())


def _facts(job: Job, options: Options, size: int) -> dict[str, Any]:
    """What decides the bytes beside what decides a clip: never who makes it."""
    return {
        "format": FORMAT,
        "bundle": job.voice,
        "judge": job.judge,
        "clips": {f"{target.kind} {target.name}": target.want for target in job.targets},
        "threshold": job.threshold,
        "augmentation": {**to_dict(replace(job.augmentation, noise=None)), "noise": job.noise},
        "seed": options.seed,
        "tries": options.tries,
        "layout": job.layout,
        "keep_faulty": job.keep_faulty,
        "batch": job.batch,
        "shard": size,
        "threads": job.threads,
        "device": job.device,
    }


def make_dataset(planned: Planned, engine: AbstractContextManager[Run]) -> Outcome:
    """Make what is missing, and write lists and manifest when all is there.

    Raises `OutputError` for a folder of other things, of another data set, or that another run is filling, and what engines raise.
    """
    job = planned.job
    with engine as run, claimed(job.out, "a data set"):
        _begin(planned)
        tallies, shards = _all_rounds(planned, run)
        remove_leftovers(job.out)
        numbers = range(shards)
        if job.layout == "speech_commands":
            write_lists(job.out, read_records(job.out, numbers))
        path = write_manifest(job.out, planned.form, read_records(job.out, numbers), job.common, *planned.labels)
    return Outcome(job.targets, tuple(tallies), path)


def _begin(planned: Planned) -> None:
    """Say in a new folder what it will hold, or see that it is the same."""
    out = planned.job.out
    settle(out, planned.facts)
    for name in (FOLDER, *folders(planned.job.layout, planned.job.targets)):
        (out / name).mkdir(exist_ok=True)


def _all_rounds(planned: Planned, run: Run) -> tuple[list[Tally], int]:
    """Have every round made; the tallies in the end, and the number of shards."""
    out, clips, shards = planned.job.out, 0, 0
    tallies = [Tally()] * len(planned.job.targets)
    while wanted := further(planned.job.targets, tallies, planned.options.seed, planned.options.tries):
        part = cut_shards(wanted, planned.size, clips, shards)
        _make(planned.job, run, part)
        tallies = counted(read_records(out, [shard.number for shard in part]), tallies)
        clips, shards = clips + len(wanted), shards + len(part)
    return tallies, shards


def _make(job: Job, run: Run, shards: Sequence[Shard]) -> None:
    left = missing(shards, job.out)
    if left:
        with progress(sum(len(shard.items) for shard in left), "generating", "clips") as advance:
            run(job, left, advance)
