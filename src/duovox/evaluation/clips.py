"""A folder of clips as arrays: takes anyone's sound files, gives `Clips` to `report`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from duovox.contracts import AudioError, DataError, LabelError
from duovox.evaluation.judge import CLIP_SAMPLES, SAMPLE_RATE
from duovox.files import safe_name
from duovox.sound.audio import READABLE
from duovox.sound.folders import find_sounds
from duovox.sound.hearing import Excerpt, SilentError, summary
from duovox.sound.many import read_excerpts
from duovox.text import printable, read_text, same_spelling


@dataclass(frozen=True, eq=False)
class Clips:
    """Clips to judge: waves (N, S) at 16 kHz; the label each was meant to say, None where there was none; what was done to them."""

    waves: NDArray[np.float32]
    labels: tuple[str | None, ...]
    notes: tuple[str, ...] = ()


def read_clips(folder: str | Path, known: Sequence[str]) -> Clips:
    """Every sound file below a folder, hidden ones apart. Its label: key "label" of a JSON file of the same stem, else the name of the
    nearest folder above it that is a label (or `safe_name` of one), else none.

    Other rates are resampled, short clips padded, of long ones the loudest part is taken (see `hearing`), all said in the notes. Raises
    `DataError` for a missing or empty folder, `LabelError` for a label that is not among `known`, `AudioError` for clips that are
    unreadable or silent.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of clips")
    found = find_sounds(folder)
    if not found.sounds:
        raise DataError(f"{folder}: no clips to judge; readable are {', '.join(READABLE)}")
    names = {same_spelling(name): label for label in known for name in (safe_name(label), label)}
    clips = read_files(found.sounds, [_label_of(path, folder, names) for path in found.sounds], silence="refused")
    passed = [f"{printable(str(path.relative_to(folder)))} was passed over: {reason}" for path, reason in found.unusable.items()]
    return replace(clips, notes=(*clips.notes, *passed))


def read_files(paths: Sequence[Path], labels: Sequence[str | None], silence: Literal["refused", "kept"] = "kept") -> Clips:
    """These sound files, heard as `read_clips` does. Silence is kept where it is what a model makes, and counts against it. Raises
    `AudioError`."""
    results = list(read_excerpts(paths, SAMPLE_RATE, CLIP_SAMPLES))
    usable = (Excerpt, SilentError) if silence == "kept" else Excerpt
    faults = [result for result in results if not isinstance(result, usable)]
    if faults:
        raise AudioError(f"{len(faults)} of {len(paths)} clips cannot be judged, the first: {faults[0]}; mend or remove them")
    heard = [result for result in results if isinstance(result, Excerpt)]
    nothing = np.zeros(CLIP_SAMPLES, np.float32)
    waves = np.stack([result.wave if isinstance(result, Excerpt) else nothing for result in results])
    silent = len(results) - len(heard)
    notes = summary([excerpt.treatment for excerpt in heard])
    return Clips(waves, tuple(labels), (*notes, *[f"{silent} clips are silent, and judged as they are"] * bool(silent)))


def narrowed_clips(clips: Clips, labels: Iterable[str]) -> Clips:
    """The clips that were meant to say one of these labels (none named: all)."""
    wanted = set(labels)
    if not wanted:
        return clips
    chosen = [place for place, label in enumerate(clips.labels) if label in wanted]
    return replace(clips, waves=clips.waves[chosen], labels=tuple(clips.labels[place] for place in chosen))


def _label_of(path: Path, folder: Path, names: Mapping[str, str]) -> str | None:
    """What a clip was meant to say; `names` are those that stand for labels. Raises `LabelError`, `DataError` (a broken side file)."""
    side = path.with_suffix(".json")
    try:
        story = json.loads(read_text(side)) if side.is_file() else {}
    except (OSError, ValueError) as error:
        raise DataError(f"{side} cannot be read as JSON ({error}); mend or remove it") from None
    above = path.relative_to(folder).parts[-2::-1]
    by_folder = next((name for name in above if same_spelling(name) in names), above[0] if above else None)
    given = story.get("label", by_folder) if isinstance(story, dict) else by_folder
    if given is None:
        return None
    label = names.get(same_spelling(given)) if isinstance(given, str) else None
    if label is None:
        hint = "put clips without a label directly in the folder"
        known = ", ".join(dict.fromkeys(names.values()))
        raise LabelError(f"{path}: the judge does not know the label {given!r}; it knows {known}; {hint}")
    return label
