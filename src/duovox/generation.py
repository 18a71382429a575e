"""Bulk generation: takes a voice and a plan of requests, gives a folder of clips, held by one run at a time and gone on with.

A plan is a sequence of requests, a request's id its place in it. Batches are cut from a plan at fixed places and made whole or not at
all, so that a clip is the same to the bit however often its run was interrupted. The file `settings.json` of a folder says what
decides its clips; clips of other settings, or of another model, are never put beside them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from torch import nn
from tqdm import tqdm

from duovox.classifiers.frozen import fingerprint
from duovox.config import GuideStrength, SampleConfig, to_dict
from duovox.contracts import ConfigError, DataError, GenerationError, OutputError
from duovox.files import claimed, differences, safe_name, write_whole
from duovox.mels import choose_student
from duovox.model import ScoreModel
from duovox.sound.audio import write_audio
from duovox.steering import ScheduledGuide, steering
from duovox.voice import Clip, Duovox, VocoderName

T = TypeVar("T")

FORMAT = "duovox-clips-1"
SETTINGS = "settings.json"

_DECIDING = ("mel", "noise", "classifier", "external", "score_model", "unet", "subnet")
"""The parts of a recipe that decide what a model's clips are, beside its weights and the sampling."""

_LEFTOVER = re.compile(r"\..+\.\d+\.partial")
"""The name under which `files.write_whole` writes; a killed run leaves one behind."""


class Request(NamedTuple):
    """One clip to make: the label it is to say (None: whatever comes), and its seed."""

    label: str | None
    seed: int

    @property
    def file(self) -> Path:
        """Where its clip lies below the folder: <label>/<seed>.wav (the label by `safe_name`), or <seed>.wav without one."""
        return Path(safe_name(self.label) if self.label is not None else "", f"{self.seed}.wav")


def make_plan(labels: Sequence[str | None], n: int, first: int = 0) -> tuple[Request, ...]:
    """`n` clips of each label, seeds `first`, `first` + 1, ...; seed by seed, so that a smaller n gives the start of the same plan.

    Raises `ConfigError` for less than one clip.
    """
    if n < 1:
        raise ConfigError(f"the number of clips must be at least 1, not {n}")
    return tuple(Request(label, seed) for seed in range(first, first + n) for label in labels)


def cut(plan: Sequence[T], size: int) -> list[Sequence[T]]:
    """The batches of a plan: ids 0 to size - 1, size to 2 size - 1, ...; the last may be short. Raises `ConfigError`."""
    if size < 1:
        raise ConfigError(f"the batch must be at least 1, not {size}")
    return [plan[start : start + size] for start in range(0, len(plan), size)]


def missing(batches: Iterable[Sequence[Request]], folder: Path) -> list[Sequence[Request]]:
    """The batches of which the folder lacks some clip."""
    return [batch for batch in batches if not all((folder / request.file).is_file() for request in batch)]


def generate_each(
    voice: Duovox,
    batches: Iterable[Sequence[Request]],
    settings: SampleConfig | None = None,
    vocoder: VocoderName | None = None,
    guides: Sequence[ScheduledGuide] = (),
) -> Iterator[tuple[Request, Clip]]:
    """The clip of every request, a batch computed at a time. Raises what `Duovox.generate_batch` raises."""
    for batch in batches:
        yield from zip(batch, voice.generate_batch(batch, settings, vocoder, None, guides), strict=True)


def write_clip(folder: Path, request: Request, clip: Clip) -> None:
    """Write a clip to its place, unless one is there. Of one that ran off to no speech a JSON file beside it says why."""
    place = folder / request.file
    if place.is_file():
        return
    if clip.fault:
        story = {"label": request.label, "seed": request.seed, "fault": clip.fault}
        write_whole(place.with_suffix(".json"), (json.dumps(story) + "\n").encode(), force=True, parents=True)
    write_audio(place, clip.wave, clip.rate, parents=True)


def read_faults(folder: Path, plan: Iterable[Request]) -> dict[Request, str]:
    """Which clips of a plan ran off to no speech, and why. Raises `DataError` for a damaged file."""
    faults = {}
    for request in plan:
        side = (folder / request.file).with_suffix(".json")
        if side.is_file():
            faults[request] = str(_read_json(side).get("fault", ""))
    return {request: fault for request, fault in faults.items() if fault}


def describe_faults(faults: Mapping[Request, str], total: int) -> str:
    """How many of so many clips ran off, and why the first of them did; empty where none did."""
    if not faults:
        return ""
    (label, seed), fault = next(iter(faults.items()))
    return f"{len(faults)} of {total} clips ran off to no speech, the first {label or 'without a label'}, seed {seed}: {fault}"


def fill_folder(
    voice: Duovox,
    folder: Path,
    plan: Sequence[Request],
    settings: SampleConfig | None = None,
    vocoder: VocoderName | None = None,
    batch: int = 8,
    go_on: Callable[[], bool] = lambda: True,
    guides: Sequence[ScheduledGuide] = (),
) -> bool:
    """Make what the folder (new, or filled by this function before) lacks of a plan; asked before each batch, `go_on` may end it.

    True when all clips of the plan are there; others of the same settings may lie beside them. Clips that ran off to no speech are kept
    and marked (see `read_faults`). The voice computes where it is.
    Raises `GenerationError` for a plan that mixes clips with a label and without, `OutputError` for a folder that holds other things
    or clips of other settings or that another run is filling, and what `Duovox.generate_batch` raises.
    """
    plan = check_plan(voice, plan)
    settings, batches = voice.settings(settings), cut(plan, batch)
    facts = deciding_facts(voice, settings, plan[0].label is None, vocoder, guides)
    with claimed(folder):
        settle(folder, facts)
        left = tqdm(missing(batches, folder), desc="clips", unit="batch")
        for request, clip in generate_each(voice, takewhile(lambda _: go_on(), left), settings, vocoder, guides):
            write_clip(folder, request, clip)
        return not missing(batches, folder)


def check_plan(voice: Duovox, plan: Sequence[Request]) -> tuple[Request, ...]:
    """The plan with the labels that are meant. Raises `GenerationError` or `LabelError` for one that the voice cannot carry out, before
    anything is made."""
    if not plan:
        raise GenerationError("the plan has no clips")
    if len({request.label is None for request in plan}) > 1:
        raise GenerationError("a folder cannot mix clips with a label and clips without one; make two plans")
    return tuple(Request(voice.check_request(label, seed), seed) for label, seed in plan)


def deciding_facts(
    voice: Duovox,
    settings: SampleConfig,
    unconditional: bool = False,
    vocoder: VocoderName | None = None,
    guides: Sequence[ScheduledGuide] = (),
) -> dict[str, Any]:
    """All that decides a clip but its label and seed, as plain JSON values. Hashes the model: a second for a large one. A function that
    guides is known by its name alone."""
    config, model, own = voice.config, voice.bundle.model, voice.bundle.vocoder
    recipe = {name: value for name, value in to_dict(config.recipe).items() if name in _DECIDING}
    parts: list[Any] = [_fingerprint(model), fingerprint(own) if own is not None else "", config.digests]
    parts += [recipe, to_dict(config.mel_scale), to_dict(config.calibration)]
    if settings.sampler == "student":
        student = choose_student(voice.bundle, settings)
        parts += [fingerprint(student.network), to_dict(student.config), to_dict(student.schooling)]
    return {
        "format": FORMAT,
        "model": hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest(),
        "unconditional": unconditional,
        "sample": to_dict(settings),
        **({"arithmetic": str(model.autocast)} if model.autocast else {}),
        **({"guides": [to_dict(guide.record) for guide in steered]} if (steered := steering(guides)) else {}),
        **({"vocoder": vocoder} if voice.choose_vocoder(vocoder) != voice.choose_vocoder(None) else {}),
    }


def _fingerprint(model: ScoreModel) -> str:
    """Of all weights, under the names they have in bundles: what code calls them may change."""
    return fingerprint(nn.ModuleDict({"classifier": model.classifier, "subnet": model.score_network}))


def completed(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts, with the defaults of settings of sampling and of guides that did not exist when they were written."""
    usual = to_dict(GuideStrength())
    guides = [guide | {"strength": usual | guide["strength"]} for guide in facts.get("guides", [])]
    return facts | {"sample": to_dict(SampleConfig()) | facts.get("sample", {})} | ({"guides": guides} if guides else {})


def settle(folder: Path, facts: dict[str, Any]) -> None:
    """Write the facts into a new or empty folder, or make sure that those there are the same; what killed runs left is removed.

    Raises `OutputError` for a folder of anything else, `DataError` for facts that cannot be read.
    """
    require_settled(folder, facts)
    remove_leftovers(folder)
    path = folder / SETTINGS
    if not path.exists():
        write_whole(path, (json.dumps(facts, indent=2) + "\n").encode())


def require_settled(folder: Path, facts: dict[str, Any]) -> None:
    """Raise as `settle` does, and for what is no folder; nothing is changed, and a folder may be missing."""
    path = folder / SETTINGS
    if path.exists():
        _require_same(path, facts)
    elif folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; choose a new folder")
    elif folder.exists() and any(not _LEFTOVER.fullmatch(entry.name) for entry in folder.iterdir()):
        raise OutputError(f"{folder} holds other things than clips made by this command; choose a new folder")


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left of their writing anywhere below a folder."""
    for leftover in [entry for entry in folder.rglob(".*.partial") if _LEFTOVER.fullmatch(entry.name)]:
        leftover.unlink()


def _require_same(path: Path, facts: dict[str, Any]) -> None:
    for name, old, new in differences(completed(_read_json(path)), facts):
        if name == "sample.preset":  # where the settings began decides no clip
            continue
        raise OutputError(f"the clips in {path.parent} were made with {name} = {old!r}, now it is {new!r}; choose a new folder")


def _read_json(path: Path) -> dict[str, Any]:
    """A table of ours. Raises `DataError`."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); choose a new folder for the clips") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} cannot be read (it holds no table); choose a new folder for the clips")
    return found
