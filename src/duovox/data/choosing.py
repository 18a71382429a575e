"""Some clips of a feature folder as a folder of their own: takes a folder, labels and indices, writes what trainings can be given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from duovox.contracts import DataError
from duovox.data.changing import Changed, write_changed
from duovox.data.features import FORMAT, Features, Manifest, open_features, read_manifest
from duovox.data.splits import SPLITS

_CHUNK = 256


def first_train_clips(features: Features, labels: Sequence[str], count: int) -> NDArray[np.int64]:
    """`count` train clips of each label, or as many as there are, drawn at random and always the same: fewer are the first of more.
    Raises `DataError` for a label without train clips, and for one that the features do not have."""
    found = []
    for label in labels:
        if label not in features.labels:
            raise DataError(f"the data has no label {label!r}; it has {', '.join(features.labels)}")
        number = features.labels.index(label)
        clips = np.flatnonzero((features.split == "train") & (features.label == number))
        if not len(clips):
            raise DataError(f"the data has no train clips of {label!r}; add clips of more speakers and prepare again")
        found.append(np.random.default_rng([0, number]).permutation(clips)[:count])
    return np.concatenate(found)


def write_chosen(source: Path, out: Path, labels: Sequence[str], indices: NDArray[np.int64]) -> Manifest:
    """Write the feature folder `out` of the clips `indices` of the folder `source`, all of them of `labels`, unless it is there already.

    What the manifest says of roots, of how speakers were found and of placing stays that of the whole folder. An older feature folder at
    `out`, or a damaged one, is replaced. Raises `DataError`, `OutputError`.
    """
    features, whole = open_features(source), read_manifest(source)
    names = [features.labels[features.label[place]] for place in indices]
    splits = [str(features.split[place]) for place in indices]
    counts: dict[str, dict[str, int]] = {
        label: {str(split): list(zip(names, splits, strict=True)).count((label, split)) for split in SPLITS} for label in labels
    }
    manifest = replace(
        whole,
        format=FORMAT,
        inputs=hashlib.sha256(json.dumps([features.digest, list(labels), indices.tolist()]).encode()).hexdigest(),
        labels=tuple(labels),
        counts=counts,
        skipped={},
        notes=(f"{len(indices)} clips chosen from a larger folder", *whole.notes),
        stems=tuple(whole.stems[place] for place in indices),
        clip_labels=tuple(list(labels).index(name) for name in names),
        splits=tuple(splits),
        speakers=tuple(whole.speakers[place] for place in indices),
        clip_roots=tuple(whole.clip_roots[place] for place in indices) if whole.clip_roots else (),
        languages={label: code for label, code in whole.languages.items() if label in labels},
    )
    return write_changed(out, manifest, _chunks(features, indices))


def _chunks(features: Features, indices: NDArray[np.int64]) -> Iterator[Changed]:
    for start in range(0, len(indices), _CHUNK):
        chosen = indices[start : start + _CHUNK]
        waves = np.asarray(features.waves[chosen])
        yield Changed(waves, np.asarray(features.log_mels[chosen]), features.split[chosen] == "train", waves)
