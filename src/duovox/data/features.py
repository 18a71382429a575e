"""What a feature folder holds: takes one that `decoding` made, gives memory-mapped waves and log-mels to `batches`.

It has `waves.npy` (N, S) int16, `log_mels.npy` (N, M, T) float16 (unscaled) and `manifest.json`, and is whole where it is there.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from duovox.config import MelConfig, from_dict, to_dict
from duovox.contracts import NO_LABEL, ConfigError, DataError
from duovox.data.speakers import unknown_note
from duovox.data.splits import SPLITS
from duovox.data.storage import open_array
from duovox.sound.mel import LogMel

FORMAT = 2
READABLE_FORMATS = (1, 2)
"""Format 1 knows one root, no languages, and only the speakers that names with `_nohash_` tell."""

FULL_SCALE = 2**15  # of the int16 waves


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
    content itself and is the same on every machine that decodes the same. `counts[label][split]` are numbers of clips. `skipped`
    has the files left out, with the reasons; `notes` say what was done to the clips, and what does not fit.

    Clip i comes from `roots[clip_roots[i]]`. `speaker_rules` counts the clips by how their speakers were found (see `speakers`);
    `languages[label]` is the code of a label's language, if it has one. `placed` clips were put at a drawn place (see `placing`).
    The log-mels of `respoken` features are not those of the waves, but what a voice made of them (see `respeaking`).
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
    notes: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    clip_roots: tuple[int, ...] = field(default=(), repr=False)
    speaker_rules: dict[str, int] = field(default_factory=dict)
    languages: dict[str, str] = field(default_factory=dict)
    placed: int = 0
    respoken: bool = False

    @property
    def speaker_note(self) -> str:
        """One sentence where the speakers of some clips are unknown; empty where all are known."""
        return unknown_note(self.speaker_rules)


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
    languages: Mapping[str, str] = field(default_factory=dict)
    speaker_note: str = ""
    respoken: bool = False

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
        languages=manifest.languages,
        speaker_note=manifest.speaker_note,
        respoken=manifest.respoken,
    )


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a feature folder, checked. Raises `DataError`."""
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        raise DataError(f"{folder} is no feature folder (it has no {path.name}); make one with `duovox data prepare`")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version = data.get("format") if isinstance(data, dict) else None
        if version not in READABLE_FORMATS:
            raise DataError(f"{path} has format {version}, this duovox reads up to {FORMAT}; run `duovox data prepare` again")
        manifest = from_dict(Manifest, data)
        return manifest if manifest.speaker_rules else replace(manifest, speaker_rules=_rules_of_names(manifest.stems))
    except (OSError, ValueError, ConfigError) as error:
        raise DataError(f"{path} cannot be read ({error}); run `duovox data prepare` again") from None


def _rules_of_names(stems: Sequence[str]) -> dict[str, int]:
    """What a manifest of format 1 says of speakers: those of names with `_nohash_` are known."""
    return dict(Counter("name" if "_nohash_" in stem else "unknown" for stem in stems))


def whole_manifest(folder: Path) -> Manifest | None:
    """The manifest of a whole feature folder, None where there is none or it is damaged."""
    try:
        open_features(folder)
        return read_manifest(folder)
    except DataError:
        return None


@torch.no_grad()
def features_of(clips: NDArray[np.int16], log_mel: LogMel) -> NDArray[np.float16]:
    """int16 waves (n, S) -> float16 log-mels (n, M, T)."""
    features: NDArray[np.float16] = log_mel(torch.from_numpy(clips).float() / FULL_SCALE)[:, 0].half().numpy()
    return features
