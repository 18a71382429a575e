"""Decode a data set once: takes the clips of `sources`, gives a feature folder (see `features`).

Of each recording the part that `hearing` says counts is kept. The folder is built beside its place and renamed when complete.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from duovox.config import MelConfig, to_dict, to_json
from duovox.contracts import DataError, OutputError
from duovox.data.duplicates import duplicate_note, near_duplicates
from duovox.data.features import FORMAT, FULL_SCALE, Manifest, Statistics, features_of, whole_manifest
from duovox.data.lists import Split
from duovox.data.sources import Scan, Source, SpeakerOptions, check_counts, scan
from duovox.data.speakers import count_rules
from duovox.data.splits import SPLITS
from duovox.data.storage import ArrayWriter, built_beside
from duovox.progress import progress as shown
from duovox.sound.hearing import Excerpt, Treatment, Wave, summary
from duovox.sound.many import Decoded, read_excerpts
from duovox.sound.mel import LogMel
from duovox.sound.placing import place
from duovox.text import printable

RULE = 2
"""Which part of a recording is kept, and what is left out; 1 took the first second, and silence too."""

_CHUNK = 256  # clips


def prepare(
    root: str | Path | Sequence[str | Path],
    out: str | Path,
    mel: MelConfig | None = None,
    labels: str | Sequence[str] | None = None,
    force: bool = False,
    progress: bool = True,
    workers: int | None = None,
    speakers: SpeakerOptions = SpeakerOptions(),  # noqa: B008 (frozen)
    placed: bool = False,
) -> Manifest:
    """Decode the data set `root`, or several as one (see `sources.scan`, also for `labels` and `speakers`), into the feature folder `out`,
    unless that is up to date.

    Of a long recording the loudest part counts; clips that cannot be used, silent ones too, are left out, with their reasons in the
    manifest. With `placed` a shorter one is put at a drawn place (see `placing`), else silence follows it. An older feature folder at
    `out` is replaced when the new one is complete; `force` rebuilds one that is up to date. `workers` processes decode, one for each
    usable core if left out. Raises `DataError` for a data set that cannot be used and `OutputError` where `out` is something else than a
    feature folder or cannot be written.
    """
    roots, out, mel = [Path(root)] if isinstance(root, str | Path) else [Path(one) for one in root], Path(out), mel or MelConfig()
    if workers is not None and workers < 1:
        raise DataError(f"the number of workers must be at least 1, not {workers}")
    for one in roots:
        check_place(one, out)
    place_of_data = ", ".join(map(str, roots))
    try:
        found = scan(roots, labels, speakers)
        inputs = _digest_inputs(found, mel, placed)
    except OSError as error:
        raise DataError(f"cannot read the data set {place_of_data}: {error}") from None
    old = whole_manifest(out)
    if old and old.inputs == inputs and not force:
        if progress:
            tqdm.write(f"{out} is up to date", file=sys.stderr)
        return old
    if old and not force and progress:
        tqdm.write(f"{out} was made of other recordings or with other settings; it is made anew", file=sys.stderr)
    try:
        with built_beside(out) as folder:
            return _build(place_of_data, folder, found, _Settings(inputs, mel, placed, workers), progress)
    except OSError as error:
        raise OutputError(f"cannot write the feature folder {out}: {error.strerror or error}") from None


def check_place(root: Path, out: Path) -> None:
    """Refuse a place that holds something else, or that lies inside the data set."""
    if out.resolve().is_relative_to(root.resolve()):
        raise OutputError(f"the feature folder {out} must not lie inside the data set {root}; choose another place")
    if out.exists() and not (out.is_dir() and ((out / "manifest.json").is_file() or not any(out.iterdir()))):
        raise OutputError(f"{out} exists and is no feature folder; choose another place, nothing there was changed")


class Moments:
    """Minimum, maximum, mean and standard deviation of everything added."""

    def __init__(self) -> None:
        self._count, self._sum, self._squares = 0, 0.0, 0.0
        self._low, self._high = np.inf, -np.inf

    def add(self, values: NDArray[Any]) -> None:
        if values.size:
            exact = values.astype(np.float64)
            self._count += exact.size
            self._sum += float(exact.sum())
            self._squares += float(np.square(exact).sum())
            self._low, self._high = min(self._low, float(exact.min())), max(self._high, float(exact.max()))

    def statistics(self) -> Statistics:
        mean = self._sum / self._count
        return Statistics(self._low, self._high, mean, max(0.0, self._squares / self._count - mean**2) ** 0.5)


@dataclass(frozen=True)
class _Settings:
    """How clips are decoded; `inputs` is the digest of this and of the files."""

    inputs: str
    mel: MelConfig
    placed: bool
    workers: int | None


@dataclass
class _Decoded:
    """What has come of the clips so far."""

    skipped: dict[str, str]
    content: Any
    kept: list[Source] = field(default_factory=list)
    treatments: list[Treatment] = field(default_factory=list)
    moments: Moments = field(default_factory=Moments)

    def seen(self) -> int:
        """Files that were taken or left out."""
        return len(self.kept) + len(self.skipped)


def _build(place_of_data: str, folder: Path, found: Scan, settings: _Settings, progress: bool) -> Manifest:
    """Decode every clip into `folder` and write its manifest, last."""
    mel = settings.mel
    decoded = _Decoded(dict(found.skipped), hashlib.sha256(json.dumps([to_dict(mel), found.labels]).encode()))
    log_mel = LogMel(mel)
    results = read_excerpts([source.path for source in found.sources], mel.sample_rate, mel.clip_samples, settings.workers)
    with (
        ArrayWriter(folder / "waves.npy", (mel.clip_samples,), np.int16) as waves,
        ArrayWriter(folder / "log_mels.npy", (mel.n_mels, mel.frames), np.float16) as log_mels,
        shown(len(found.sources), "decoding", "clips", progress) as done,
    ):
        told = decoded.seen()
        for sources, clips in _kept_chunks(found.sources, results, decoded, settings.placed):
            if sources:
                features = features_of(clips, log_mel)
                waves.append(clips)
                log_mels.append(features)
                decoded.content.update(clips.tobytes())
                decoded.moments.add(features[[source.split == "train" for source in sources]])
            done(decoded.seen() - told)
            told = decoded.seen()
    _check_usable(place_of_data, found, decoded)
    manifest = _manifest(found, decoded, settings, _duplicates(folder, decoded.kept))
    (folder / "manifest.json").write_text(to_json(manifest), encoding="utf-8")
    return manifest


def _kept_chunks(
    sources: Sequence[Source], results: Iterator[Decoded], decoded: _Decoded, placed: bool
) -> Iterator[tuple[list[Source], NDArray[np.int16]]]:
    """Chunks of clips that can be used, (n, S) int16; what cannot goes to `decoded.skipped`."""
    pairs = zip(sources, results, strict=True)
    while chunk := list(islice(pairs, _CHUNK)):
        heard = [(source, result) for source, result in chunk if isinstance(result, Excerpt)]
        kept = [(source, _placed(source, excerpt) if placed else excerpt) for source, excerpt in heard]
        decoded.kept += [source for source, _ in kept]
        decoded.treatments += [excerpt.treatment for _, excerpt in kept]
        for source, result in chunk:
            if not isinstance(result, Excerpt):
                decoded.skipped[source.name] = str(result).removeprefix(f"{printable(str(source.path))}: ")
        yield [source for source, _ in kept], np.array([_as_int16(excerpt.wave) for _, excerpt in kept])


def _placed(source: Source, excerpt: Excerpt) -> Excerpt:
    """A clip shorter than the others put at the place that its label and name draw; any other as it is."""
    done = excerpt.treatment
    if done.length >= done.fitted:
        return excerpt
    wave = place(excerpt.wave[: done.length], done.fitted, f"{source.label}/{source.path.stem}")
    return Excerpt(wave, replace(done, placed=True))


def _duplicates(folder: Path, kept: Sequence[Source]) -> tuple[str, ...]:
    """Which of the clips in `folder` are nearly the same as one of another split, in words."""
    log_mels, waves = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("log_mels", "waves"))
    splits = [source.split for source in kept]
    return duplicate_note(near_duplicates(log_mels, waves, splits), [source.name for source in kept], splits)


def _as_int16(wave: Wave) -> NDArray[np.int16]:
    return np.clip(np.round(wave * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def _manifest(found: Scan, decoded: _Decoded, settings: _Settings, duplicates: Sequence[str]) -> Manifest:
    labels, kept = found.labels, decoded.kept
    counted = Counter((source.label, source.split) for source in kept)
    clips = [(stem, labels.index(source.label), source.split) for stem, source in zip(_stems(found.roots, kept), kept, strict=True)]
    return Manifest(
        format=FORMAT,
        inputs=settings.inputs,
        digest=hashlib.sha256(json.dumps([decoded.content.hexdigest(), clips]).encode()).hexdigest(),
        mel=settings.mel,
        labels=labels,
        statistics=decoded.moments.statistics(),
        counts={label: {split: counted[label, split] for split in SPLITS} for label in labels},
        skipped=decoded.skipped,
        stems=tuple(stem for stem, _, _ in clips),
        clip_labels=tuple(label for _, label, _ in clips),
        splits=tuple(split for _, _, split in clips),
        speakers=tuple(source.speaker for source in kept),
        notes=(*found.notes, *_thin_splits(labels, counted), *duplicates, *summary(decoded.treatments)),
        roots=found.roots,
        clip_roots=tuple(source.root for source in kept),
        speaker_rules=count_rules((source.speaker, source.rule) for source in kept),
        languages=found.languages,
        placed=sum(treatment.placed for treatment in decoded.treatments),
    )


def _stems(roots: Sequence[str], kept: Sequence[Source]) -> list[str]:
    """The name of each clip; where one of the same label in another root has the same, after that of its root."""
    first: dict[tuple[str, str], int] = {}
    shared = {(s.label, s.path.stem) for s in kept if first.setdefault((s.label, s.path.stem), s.root) != s.root}
    return [f"{roots[s.root]}/{s.path.stem}" if (s.label, s.path.stem) in shared else s.path.stem for s in kept]


def _thin_splits(labels: Sequence[str], counted: Mapping[tuple[str, Split], int]) -> Iterator[str]:
    """Which splits have no clips at all, or none of some label."""
    for split in SPLITS[1:]:
        missing = [label for label in labels if not counted[label, split]]
        if len(missing) == len(labels):
            yield f"the {split} split is empty: add clips of more speakers, or name some (--{split}-speakers, split lists)"
        elif missing:
            yield f"the {split} split has no clip of {', '.join(missing)}"


def _check_usable(place_of_data: str, found: Scan, decoded: _Decoded) -> None:
    """Raise `DataError` unless what could be decoded is enough to train on."""
    kept, skipped = decoded.kept, decoded.skipped
    if not kept:
        name, reason = next(iter(skipped.items()))
        raise DataError(f"{place_of_data}: no usable audio: all {len(skipped)} files failed, the first, {printable(name)}: {reason}")
    check_counts(place_of_data, found.labels, (source.label for source in kept), skipped, len(found.roots) > 1)
    trained = {source.label for source in kept if source.split == "train"}
    for label in found.labels:
        if label not in trained:
            raise DataError(f"{place_of_data}: no clip of label {label!r} falls into the train split; add clips of other speakers")


def _digest_inputs(found: Scan, mel: MelConfig, placed: bool) -> str:
    """Changes whenever the rule, settings, labels, splits, speakers, languages or any file's name, size or time change."""
    files = []
    for source in found.sources:
        stat = source.path.stat()
        files.append([source.name, source.split, source.speaker, stat.st_size, stat.st_mtime_ns])
    facts = [FORMAT, RULE, to_dict(mel), found.labels, files, sorted(found.skipped), found.notes, found.languages, placed]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
