"""What is to be scored: takes the name of a model or a folder of clips, makes a model's clips, gives a `Report`.

A folder of clips that was made here says in `settings.json` what it holds, so that it can be gone on with, and never mixed.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from duovox.assemble import assemble
from duovox.classifiers.frozen import fingerprint
from duovox.config import SampleConfig, read_recipe, to_dict
from duovox.contracts import BundleError, ConfigError, DataError, OutputError
from duovox.data import open_features
from duovox.evaluation.clips import Clips, read_files
from duovox.evaluation.judge import Judge
from duovox.evaluation.reference import reference_scores
from duovox.evaluation.report import Report, Scoring, evaluate, require_enough
from duovox.files import claimed, differences, write_whole
from duovox.sound.audio import write_audio
from duovox.voice import Duovox, locate

CLIPS_FORMAT = "duovox-clips-1"
SETTINGS = "settings.json"
_DECIDING = ("mel", "noise", "classifier", "external", "score_model", "unet", "subnet")
"""The parts of a recipe that decide what a model's clips are, beside its weights and the sampling."""


@dataclass(frozen=True)
class Generation:
    """Which clips of a model to make: `n` a label, seeds from `first` on, or as many in all without labels; None is the model's own."""

    n: int = 50
    gamma: float | None = None
    steps: int | None = None
    sampler: Literal["heun", "dpmpp_2m", "euler_maruyama"] | None = None
    unconditional: bool = False
    batch: int = 8
    first: int = 0

    def __post_init__(self) -> None:
        if self.n < 1 or self.batch < 1:
            raise ConfigError(f"the number of clips and the batch must be at least 1, not {min(self.n, self.batch)}")
        if self.unconditional and self.gamma is not None:
            raise ConfigError("gamma is the strength of guidance towards a label; unconditional clips have none")

    def sample(self, voice: Duovox) -> SampleConfig:
        """The settings in full."""
        return voice.config.recipe.sample.changed({"gamma": self.gamma, "steps": self.steps, "sampler": self.sampler})

    def places(self, voice: Duovox) -> dict[str | None, list[Path]]:
        """Where each label's clips lie in a folder; a clip's seed is its place in the list, counted from `first`."""
        if self.unconditional:
            return {None: [Path(f"{self.first + number}.wav") for number in range(self.n * len(voice.labels))]}
        return {label: [Path(label) / f"{self.first + number}.wav" for number in range(self.n)] for label in voice.labels}


def open_system(what: str, recipe: str | None = None, trust_code: bool = False) -> Duovox | Path:
    """A model, or a folder of clips as it is: `what` names a bundle (name, folder, hub id), a folder of runs, or a folder of clips.

    A name in the package comes first (`./name` is the folder). A folder of runs is one that holds a trained subnet; `recipe`
    (`compact` if left out) is the one it was trained with. Raises `BundleError`, `ConfigError`, `TrainingError`.
    """
    try:
        place = locate(what)
    except BundleError as error:
        raise BundleError(f"{error}; nor is it a folder of clips or of runs") from None
    if (place / "subnet" / "weights.safetensors").is_file():
        return Duovox(assemble(place, read_recipe(recipe or "compact")))
    if recipe is not None:
        raise ConfigError(f"--recipe is for a folder of runs, and {what} holds no trained subnet")
    return Duovox.from_pretrained(place, trust_code=trust_code) if (place / "config.json").is_file() else place


def evaluate_model(
    voice: Duovox,
    judge_path: str | Path,
    features_folder: str | Path,
    wanted: Generation | None = None,
    clips: Path | None = None,
    scoring: Scoring | None = None,
    name: str = "model",
    device: str = "cpu",
) -> Report:
    """Make a model's clips in the folder `clips` (a temporary one if left out), or go on with those there, and judge them.

    Everything that can be refused is refused before the first clip is made: beside what `evaluate` raises, a judge that is the
    guiding classifier (`ConfigError`), and a folder that holds anything else (`OutputError`).
    """
    wanted, scoring, cache = wanted or Generation(), scoring or Scoring(), Path(features_folder) / "reference"
    judge, features = Judge.load(judge_path).to(device), open_features(features_folder)
    judge.refuse_guide(voice.bundle.model.classifier)
    judge.require([*features.labels, *voice.labels])
    train, _ = (reference_scores(judge, features, split, cache) for split in ("train", "test"))
    count = wanted.n * len(voice.labels)
    require_enough(count if scoring.limit is None else min(scoring.limit, count), train.features.shape[1], scoring.fid)
    with tempfile.TemporaryDirectory(prefix="duovox-") if clips is None else nullcontext(clips) as folder:
        found = make_clips(voice.to(device), Path(folder), wanted)
    return evaluate(judge, found, features, scoring, name, cache)


def make_clips(voice: Duovox, folder: Path, wanted: Generation) -> Clips:
    """Make the clips that are wanted and not yet in `folder`, and read them all. Other clips of the same settings may lie there too.

    Raises `OutputError` for a folder with other things in it, clips of other settings, or one that another run is writing to.
    """
    sample, places = wanted.sample(voice), wanted.places(voice)
    with claimed(folder):
        _settle(folder, _story(voice, sample, wanted.unconditional))
        chunks = [(label, start) for label, names in places.items() for start in range(0, len(names), wanted.batch)]
        for label, start in tqdm(chunks, desc="clips", unit="batch"):
            _speak(voice, label, sample, wanted.first + start, [folder / name for name in places[label][start : start + wanted.batch]])
        labels = [label for label, names in places.items() for _ in names]
        found = read_files([folder / name for names in places.values() for name in names], labels)
    return replace(found, notes=(_note(voice, sample, places, wanted.first), *found.notes))


def _speak(voice: Duovox, label: str | None, sample: SampleConfig, start: int, paths: list[Path]) -> None:
    """Write those of a batch's clips that are missing; `start` is the seed of the first.

    The whole batch is made again: alone, a clip may round otherwise in its last bits, and who was interrupted should not see it.
    """
    if all(path.is_file() for path in paths):
        return
    made = voice.generate(label, len(paths), gamma=sample.gamma, steps=sample.steps, sampler=sample.sampler, seed=start, batch=len(paths))
    for path, clip in zip(paths, made, strict=True):
        if not path.is_file():
            write_audio(path, clip.wave, clip.rate, parents=True)


def _story(voice: Duovox, sample: SampleConfig, unconditional: bool) -> dict[str, Any]:
    """All that decides a clip but its label and seed, as plain JSON values."""
    config, vocoder = voice.config, voice.bundle.vocoder
    parts = [fingerprint(voice.bundle.model), fingerprint(vocoder) if vocoder is not None else "", config.digests]
    recipe = to_dict(config.recipe)
    parts += [{name: value for name, value in recipe.items() if name in _DECIDING}, to_dict(config.mel_scale), to_dict(config.calibration)]
    autocast = voice.bundle.model.autocast
    return {
        "format": CLIPS_FORMAT,
        "model": hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest(),
        "unconditional": unconditional,
        "sample": to_dict(sample),
        **({"arithmetic": str(autocast)} if autocast else {}),
    }


def _settle(folder: Path, story: dict[str, Any]) -> None:
    """Write the settings into a new or empty folder, or make sure that those there are the same."""
    path = folder / SETTINGS
    if not path.exists():
        if any(folder.iterdir()):
            raise OutputError(f"{folder} holds other things than clips made by this command; choose a new folder")
        write_whole(path, (json.dumps(story, indent=2) + "\n").encode())
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); choose a new folder for the clips") from None
    for name, old, new in differences(before, story):
        raise OutputError(f"the clips in {folder} were made with {name} = {old!r}, now it is {new!r}; choose a new folder")


def _note(voice: Duovox, sample: SampleConfig, places: dict[str | None, list[Path]], first: int) -> str:
    """How the clips were made, in words."""
    count, each = len(next(iter(places.values()))), "unconditional" if None in places else f"of each label, gamma {sample.gamma:g}"
    vocoder = "neural vocoder" if voice.bundle.vocoder is not None else "Griffin-Lim"
    return f"the clips are seeds {first} to {first + count - 1} {each}, {sample.sampler} with {sample.steps} steps, {vocoder}"
