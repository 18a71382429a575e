"""Decode a data set once: takes the clips of `sources`, gives memory-mapped waves and log-mels to `batches`.

A feature folder holds `waves.npy` (N, S) int16, `log_mels.npy` (N, M, T) float16 (unscaled) and `manifest.json`. It is
built beside its place and renamed when complete, so a folder that is there is whole.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from duovox.config import MelConfig, from_dict, to_dict, to_json
from duovox.contracts import NO_LABEL, AudioError, ConfigError, DataError, OutputError
from duovox.data.sources import SPLITS, Scan, Source, check_counts, scan
from duovox.data.storage import ArrayWriter, built_beside, open_array
from duovox.sound.audio import fit_length, read_audio
from duovox.sound.mel import LogMel

FORMAT = 1
FULL_SCALE = 2**15  # of the int16 waves
_CHUNK = 256


@dataclass(frozen=True)
class Statistics:
    """Of the train split's log-mels, over all clips, bins and frames; what `mel.fit_scale` takes."""

    low: float
    high: float
    mean: float
    std: float


@dataclass(frozen=True)
class Manifest:
    """What a feature folder holds. Clip i has `stems[i]`, `clip_labels[i]` (an index into `labels`), `splits[i]`, `speakers[i]`.

    `inputs` identifies settings and files (sizes, times), to see whether the folder is up to date; `digest` identifies the
    content itself and is the same on every machine that decodes the same. `counts[label][split]` are numbers of clips.
    """

    format: int
    inputs: str
    digest: str
    mel: MelConfig
    labels: tuple[str, ...]
    statistics: Statistics
    counts: dict[str, dict[str, int]]
    skipped: dict[str, str]
    stems: tuple[str, ...] = field(repr=False)
    clip_labels: tuple[int, ...] = field(repr=False)
    splits: tuple[str, ...] = field(repr=False)
    speakers: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Features:
    """An opened feature folder of N clips: log_mels (N, M, T) float16 and waves (N, S) int16 are memory maps."""

    labels: tuple[str, ...]
    mel: MelConfig
    log_mels: NDArray[np.float16] = field(repr=False)
    waves: NDArray[np.int16] = field(repr=False)
    label: NDArray[np.int64] = field(repr=False)
    split: NDArray[np.str_] = field(repr=False)
    speakers: tuple[str, ...] = field(repr=False)
    stems: tuple[str, ...] = field(repr=False)
    statistics: Statistics
    digest: str

    def indices(self, split: str) -> NDArray[np.int64]:
        """The clips of one split, in order. Raises `DataError` for an unknown split."""
        if split not in SPLITS:
            raise DataError(f"no split named {split!r}; there are {', '.join(SPLITS)}")
        return np.flatnonzero(self.split == split)


def relabelled(features: Features, labels: Sequence[str], unknown: Literal["refused", "unlabelled"] = "refused") -> Features:
    """The same clips, numbered by the labels of a classifier, which may know more words. Clips of a word it does not know have
    `NO_LABEL`, or are refused with a `DataError`."""
    foreign = [label for label in features.labels if label not in labels]
    if foreign and unknown == "refused":
        raise DataError(
            f"the data has the word {foreign[0]!r}, which the classifier does not know ({', '.join(labels)}); "
            "prepare the data with the labels it knows"
        )
    numbers = np.array([NO_LABEL if label in foreign else list(labels).index(label) for label in features.labels])
    return replace(features, labels=tuple(labels), label=np.where(features.label == NO_LABEL, NO_LABEL, numbers[features.label]))


def restricted(features: Features, share: float = 1.0, labels: Sequence[str] = ()) -> Features:
    """The same features with only some of the train clips: those of `labels` (none named: all), and of each label a `share`, at least one.

    The choice is always the same, and a smaller share is part of a larger one. Raises `DataError` for an unknown label.
    """
    unknown = [label for label in labels if label not in features.labels]
    if unknown:
        raise DataError(f"the data has no label {unknown[0]!r}; it has {', '.join(features.labels)}")
    split = features.split.copy()
    for number, label in [*enumerate(features.labels), (NO_LABEL, None)]:
        clips = np.flatnonzero((split == "train") & (features.label == number))
        kept = max(1, round(share * len(clips))) if not labels or label in labels else 0
        split[np.random.default_rng([0, number % (len(features.labels) + 1)]).permutation(clips)[kept:]] = "unseen"
    return replace(features, split=split)


def narrowed(features: Features, labels: Sequence[str]) -> Features:
    """The features without the clips of other labels (none named: as they are), under a digest of their own."""
    if not labels:
        return features
    kept = np.isin(features.label, [features.labels.index(label) for label in labels])
    digest = hashlib.sha256(json.dumps([features.digest, sorted(labels)]).encode()).hexdigest()
    return replace(features, split=np.where(kept, features.split, "left out"), digest=digest)


def prepare(
    root: str | Path,
    out: str | Path,
    mel: MelConfig | None = None,
    labels: str | Sequence[str] | None = None,
    force: bool = False,
    progress: bool = True,
    workers: int = 2,
) -> Manifest:
    """Decode the data set `root` (see `sources.scan` for `labels`) into the feature folder `out`, unless that is up to date.

    Clips that cannot be used are left out, with their reasons in the manifest. An older feature folder at `out` is replaced
    when the new one is complete; `force` rebuilds one that is up to date. Raises `DataError` for a data set that cannot be
    used and `OutputError` where `out` is something else than a feature folder or cannot be written.
    """
    root, out, mel = Path(root), Path(out), mel or MelConfig()
    check_place(root, out)
    try:
        found = scan(root, labels)
        inputs = _digest_inputs(root, found, mel)
    except OSError as error:
        raise DataError(f"cannot read the data set {root}: {error}") from None
    old = whole_manifest(out)
    if old and old.inputs == inputs and not force:
        if progress:
            tqdm.write(f"{out} is up to date", file=sys.stderr)
        return old
    try:
        with built_beside(out) as folder:
            manifest = _build(root, folder, found, inputs, mel, progress, workers)
    except OSError as error:
        raise OutputError(f"cannot write the feature folder {out}: {error.strerror or error}") from None
    return manifest


def open_features(folder: str | Path, mel: MelConfig | None = None) -> Features:
    """Open a feature folder. Raises `DataError` where it is missing, damaged, or made with other mel settings than `mel`."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    if mel is not None and mel != manifest.mel:
        want, have = to_dict(mel), to_dict(manifest.mel)
        differing = ", ".join(f"{name} {want[name]} wanted, {have[name]} stored" for name in want if want[name] != have[name])
        raise DataError(f"{folder} was made with other mel settings ({differing}); run `duovox data prepare` again")
    count = len(manifest.stems)
    log_mels = open_array(folder / "log_mels.npy", (count, manifest.mel.n_mels, manifest.mel.frames), np.float16)
    waves = open_array(folder / "waves.npy", (count, manifest.mel.clip_samples), np.int16)
    return Features(
        labels=manifest.labels,
        mel=manifest.mel,
        log_mels=log_mels,
        waves=waves,
        label=np.array(manifest.clip_labels, dtype=np.int64),
        split=np.array(manifest.splits),
        speakers=manifest.speakers,
        stems=manifest.stems,
        statistics=manifest.statistics,
        digest=manifest.digest,
    )


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a feature folder, checked. Raises `DataError`."""
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        raise DataError(f"{folder} is no feature folder (it has no {path.name}); make one with `duovox data prepare`")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version = data.get("format") if isinstance(data, dict) else None
        if version != FORMAT:
            raise DataError(f"{path} has format {version}, this duovox reads {FORMAT}; run `duovox data prepare` again")
        return from_dict(Manifest, data)
    except (OSError, ValueError, ConfigError) as error:
        raise DataError(f"{path} cannot be read ({error}); run `duovox data prepare` again") from None


def whole_manifest(folder: Path) -> Manifest | None:
    """The manifest of a whole feature folder, None where there is none or it is damaged."""
    try:
        open_features(folder)
        return read_manifest(folder)
    except DataError:
        return None


def check_place(root: Path, out: Path) -> None:
    """Refuse a place that holds something else, or that lies inside the data set."""
    if out.resolve().is_relative_to(root.resolve()):
        raise OutputError(f"the feature folder {out} must not lie inside the data set {root}; choose another place")
    if out.exists() and not (out.is_dir() and ((out / "manifest.json").is_file() or not any(out.iterdir()))):
        raise OutputError(f"{out} exists and is no feature folder; choose another place, nothing there was changed")


def _build(root: Path, folder: Path, found: Scan, inputs: str, mel: MelConfig, progress: bool, workers: int) -> Manifest:
    """Decode every clip into `folder` and write its manifest, last."""
    kept: list[Source] = []
    skipped = dict(found.skipped)
    moments = Moments()
    content = hashlib.sha256(json.dumps([to_dict(mel), found.labels]).encode())
    log_mel = LogMel(mel)
    with (
        ArrayWriter(folder / "waves.npy", (mel.clip_samples,), np.int16) as waves,
        ArrayWriter(folder / "log_mels.npy", (mel.n_mels, mel.frames), np.float16) as log_mels,
        tqdm(total=len(found.sources), desc="decoding", unit=" clips", disable=not progress) as bar,
    ):
        for sources, decoded in _decode_all(found.sources, mel, workers):
            good = [(s, wave) for s, wave in zip(sources, decoded, strict=True) if not isinstance(wave, str)]
            skipped |= {_relative(s, root): reason for s, reason in zip(sources, decoded, strict=True) if isinstance(reason, str)}
            if good:
                clips = np.stack([wave for _, wave in good])
                features = features_of(clips, log_mel)
                waves.append(clips)
                log_mels.append(features)
                content.update(clips.tobytes())
                moments.add(features[[source.split == "train" for source, _ in good]])
                kept += [source for source, _ in good]
            bar.update(len(sources))
    _check_usable(root, found.labels, kept, skipped)
    manifest = _manifest(found.labels, kept, skipped, inputs, content.hexdigest(), mel, moments.statistics())
    (folder / "manifest.json").write_text(to_json(manifest), encoding="utf-8")
    return manifest


def _manifest(
    labels: tuple[str, ...], kept: list[Source], skipped: dict[str, str], inputs: str, content: str, mel: MelConfig, statistics: Statistics
) -> Manifest:
    counted = Counter((source.label, source.split) for source in kept)
    clips = [(source.path.stem, labels.index(source.label), source.split) for source in kept]
    return Manifest(
        format=FORMAT,
        inputs=inputs,
        digest=hashlib.sha256(json.dumps([content, clips]).encode()).hexdigest(),
        mel=mel,
        labels=labels,
        statistics=statistics,
        counts={label: {split: counted[label, split] for split in SPLITS} for label in labels},
        skipped=skipped,
        stems=tuple(stem for stem, _, _ in clips),
        clip_labels=tuple(label for _, label, _ in clips),
        splits=tuple(split for _, _, split in clips),
        speakers=tuple(source.speaker for source in kept),
    )


def _decode_all(
    sources: Sequence[Source], mel: MelConfig, workers: int
) -> Iterator[tuple[Sequence[Source], list[NDArray[np.int16] | str]]]:
    """Chunks of sources with what each decodes to: a wave, or the reason why not. Decoding leaves Python's lock, so threads do."""
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for start in range(0, len(sources), _CHUNK):
            chunk = sources[start : start + _CHUNK]
            yield chunk, list(pool.map(lambda source: _decode(source, mel), chunk))


def _decode(source: Source, mel: MelConfig) -> NDArray[np.int16] | str:
    try:
        wave = read_audio(source.path, mel.sample_rate)
    except AudioError as error:
        return str(error).removeprefix(f"{source.path}: ")
    return np.clip(np.round(fit_length(wave, mel.clip_samples) * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


@torch.no_grad()
def features_of(clips: NDArray[np.int16], log_mel: LogMel) -> NDArray[np.float16]:
    """int16 waves (n, S) -> float16 log-mels (n, M, T)."""
    features: NDArray[np.float16] = log_mel(torch.from_numpy(clips).float() / FULL_SCALE)[:, 0].half().numpy()
    return features


def _check_usable(root: Path, labels: Sequence[str], kept: list[Source], skipped: dict[str, str]) -> None:
    """Raise `DataError` unless what could be decoded is enough to train on."""
    if not kept:
        name, reason = next(iter(skipped.items()))
        raise DataError(f"{root}: no usable audio: all {len(skipped)} files failed, the first, {name}: {reason}")
    check_counts(root, labels, (source.label for source in kept))
    trained = {source.label for source in kept if source.split == "train"}
    for label in labels:
        if label not in trained:
            raise DataError(f"{root}: no clip of label {label!r} falls into the train split; add clips of other speakers")


def _digest_inputs(root: Path, found: Scan, mel: MelConfig) -> str:
    """Changes whenever settings, labels, splits or any file's name, size or time change."""
    files = []
    for source in found.sources:
        stat = source.path.stat()
        files.append([_relative(source, root), source.split, stat.st_size, stat.st_mtime_ns])
    return hashlib.sha256(json.dumps([FORMAT, to_dict(mel), found.labels, files, sorted(found.skipped)]).encode()).hexdigest()


def _relative(source: Source, root: Path) -> str:
    return source.path.relative_to(root).as_posix()


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
