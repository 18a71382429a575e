"""A folder of clips as arrays: takes anyone's sound files, gives `Clips` to `report`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from duovox.contracts import DataError, LabelError
from duovox.evaluation.judge import CLIP_SAMPLES, SAMPLE_RATE
from duovox.sound.audio import READABLE, fit_length, native_rate, read_audio


@dataclass(frozen=True, eq=False)
class Clips:
    """Clips to judge: waves (N, S) at 16 kHz; the label each was meant to say, None where there was none; what was done to them."""

    waves: NDArray[np.float32]
    labels: tuple[str | None, ...]
    notes: tuple[str, ...] = ()


def read_clips(folder: str | Path, known: Sequence[str]) -> Clips:
    """Every sound file below a folder. Its label: key "label" of a JSON file of the same stem, else the sub-folder's name, else none.

    Other rates are resampled, other lengths padded or cut at their end, and both are said in the notes. Raises `DataError`
    for a missing or empty folder, `LabelError` for a label that is not among `known`, `AudioError` for an unreadable clip.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of clips")
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in READABLE and not path.name.startswith(".")]
    if not paths:
        raise DataError(f"{folder}: no clips to judge; readable are {', '.join(READABLE)}")
    return read_files(paths, [_label_of(path, folder, known) for path in paths])


def read_files(paths: Sequence[Path], labels: Sequence[str | None]) -> Clips:
    """These sound files, resampled and fitted as `read_clips` does. Raises `AudioError`."""
    waves = [read_audio(path, SAMPLE_RATE) for path in paths]
    notes = _changes(Counter(native_rate(path) for path in paths), [len(wave) for wave in waves])
    return Clips(np.stack([fit_length(wave, CLIP_SAMPLES) for wave in waves]), tuple(labels), notes)


def narrowed_clips(clips: Clips, labels: Iterable[str]) -> Clips:
    """The clips that were meant to say one of these labels (none named: all)."""
    wanted = set(labels)
    if not wanted:
        return clips
    chosen = [place for place, label in enumerate(clips.labels) if label in wanted]
    return replace(clips, waves=clips.waves[chosen], labels=tuple(clips.labels[place] for place in chosen))


def _label_of(path: Path, folder: Path, known: Sequence[str]) -> str | None:
    """What a clip was meant to say. Raises `LabelError`, `DataError` (a broken side file)."""
    side = path.with_suffix(".json")
    try:
        found = json.loads(side.read_text(encoding="utf-8")) if side.is_file() else {}
    except (OSError, ValueError) as error:
        raise DataError(f"{side} cannot be read as JSON ({error}); mend or remove it") from None
    by_folder = path.parent.name if path.parent != folder else None
    label = found.get("label", by_folder) if isinstance(found, dict) else by_folder
    if label is not None and label not in known:
        hint = "put clips without a label directly in the folder"
        raise LabelError(f"{path}: the judge does not know the label {label!r}; it knows {', '.join(known)}; {hint}")
    return label


def _changes(rates: Counter[int], lengths: Sequence[int]) -> tuple[str, ...]:
    """What was done to clips of another rate or length, in words."""
    others = sorted((rate, count) for rate, count in rates.items() if rate != SAMPLE_RATE)
    notes = [f"{count} clips were resampled from {rate} to {SAMPLE_RATE} Hz" for rate, count in others]
    shorter, longer = sum(n < CLIP_SAMPLES for n in lengths), sum(n > CLIP_SAMPLES for n in lengths)
    notes += [f"{shorter} clips shorter than {CLIP_SAMPLES} samples were padded with silence at their end"] if shorter else []
    notes += [f"{longer} clips longer than {CLIP_SAMPLES} samples were cut at their end"] if longer else []
    return tuple(notes)
