"""What is to be scored: takes the name of a model or a folder of clips, has `generation` make a model's clips, gives a `Report`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from duovox.assemble import assemble
from duovox.bundle import locate
from duovox.config import SampleConfig, read_recipe, to_dict
from duovox.contracts import BundleError, ConfigError
from duovox.data import open_features
from duovox.evaluation.clips import Clips, read_files
from duovox.evaluation.judge import Judge
from duovox.evaluation.reference import reference_scores
from duovox.evaluation.report import Report, evaluate
from duovox.evaluation.rows import Scoring, require_enough, require_labels
from duovox.generation import Request, describe_faults, fill_folder, make_plan, read_faults
from duovox.steering import ScheduledGuide, check_guides, steering
from duovox.voice import Duovox

_OF_GUIDANCE = ("gamma", "interval", "guidance_low", "guidance_high", "schedule", "guide_at")
"""The sampling settings that mean nothing to clips without a label."""


@dataclass(frozen=True)
class Generation:
    """Which clips of a model to make: `n` a label, or as many in all without labels, seeds from `first` on.

    `changed` are sampling settings in the place of the model's own, by the names of `SampleConfig.changed`; None is the model's own.
    `guides` steer all clips alike.
    """

    n: int = 50
    changed: Mapping[str, Any] = field(default_factory=dict)
    unconditional: bool = False
    batch: int = 8
    first: int = 0
    guides: tuple[ScheduledGuide, ...] = ()

    def __post_init__(self) -> None:
        if self.n < 1 or self.batch < 1:
            raise ConfigError(f"the number of clips and the batch must be at least 1, not {min(self.n, self.batch)}")
        useless = [name for name in _OF_GUIDANCE if self.unconditional and self.changed.get(name) is not None]
        if useless:
            raise ConfigError(f"{useless[0]} is a setting of guidance towards a label; unconditional clips have none")

    def settings(self, voice: Duovox) -> SampleConfig:
        """The settings in full. Raises `ConfigError`, or `BundleError` for a preset that the bundle has no part for."""
        return voice.settings(**self.changed)

    def plan(self, labels: Sequence[str]) -> tuple[Request, ...]:
        """The clips, for a model of these labels."""
        return make_plan([None], self.n * len(labels), self.first) if self.unconditional else make_plan(labels, self.n, self.first)


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
) -> Report:
    """Make a model's clips in the folder `clips` (a temporary one if left out), or go on with those there, and judge them.

    The model computes where it is, and the judge with it. Everything that can be refused is refused before the first clip is made:
    beside what `evaluate` raises, a judge that is a classifier that guides (`ConfigError`), and a folder that holds anything else
    (`OutputError`).
    """
    wanted, scoring, cache = wanted or Generation(), scoring or Scoring(), Path(features_folder) / "reference"
    wanted.settings(voice)
    judge, features = Judge.load(judge_path).to(voice.device), open_features(features_folder)
    for classifier in (voice.bundle.model.classifier, *(guide.network for guide in steering(wanted.guides) if guide.network)):
        judge.refuse_guide(classifier)
    check_guides(wanted.guides, wanted.settings(voice))
    judge.require([*features.labels, *voice.labels])
    train, _ = (reference_scores(judge, features, split, cache) for split in ("train", "test"))
    count = wanted.n * len(voice.labels)
    require_labels(scoring, count if wanted.unconditional else 0, count)
    require_enough(count if scoring.limit is None else min(scoring.limit, count), train.features.shape[1], scoring.fid)
    with tempfile.TemporaryDirectory(prefix="duovox-") if clips is None else nullcontext(clips) as folder:
        make_clips(voice, Path(folder), wanted)
        found = read_made(voice, Path(folder), wanted)
    return evaluate(judge, found, features, scoring, name, cache)


def make_clips(voice: Duovox, folder: Path, wanted: Generation, go_on: Callable[[], bool] = lambda: True) -> bool:
    """Make what `folder` lacks of the clips that are wanted, until `go_on` ends it; whether all are there. Raises as `fill_folder`."""
    plan, settings = wanted.plan(voice.labels), wanted.settings(voice)
    return fill_folder(voice, folder, plan, settings, batch=wanted.batch, go_on=go_on, guides=wanted.guides)


def read_made(voice: Duovox, folder: Path, wanted: Generation) -> Clips:
    """The clips that `make_clips` made in a folder, label by label, with notes of how they were made and of those that ran off."""
    plan = wanted.plan(voice.labels)
    ordered = sorted(plan, key=lambda request: voice.labels.index(request.label) if request.label is not None else 0)
    found = read_files([folder / request.file for request in ordered], [request.label for request in ordered])
    faults = describe_faults(read_faults(folder, plan), len(plan))
    return replace(found, notes=(_note(voice, wanted.settings(voice), plan) + _guide_note(wanted), *[faults] * bool(faults), *found.notes))


def _guide_note(wanted: Generation) -> str:
    """By which guides the clips were steered, in words."""
    records = [guide.record for guide in steering(wanted.guides)]
    named = [
        f"{record.called} at gamma {record.strength.gamma:g}" + " straight" * (record.strength.way == "straight") for record in records
    ]
    return f", guided by {' and '.join(named)}" if named else ""


def _note(voice: Duovox, settings: SampleConfig, plan: Sequence[Request]) -> str:
    """How the clips were made, in words; settings that are nobody's default by their names."""
    free = plan[0].label is None
    usual, given = to_dict(SampleConfig()), to_dict(settings)
    shown = ("sampler", "steps", "gamma")
    others = [f", {name} {value}" for name, value in given.items() if name not in shown and value != usual[name]]
    each = "unconditional" if free else f"of each label, gamma {settings.gamma:g}"
    vocoder = "neural vocoder" if voice.bundle.vocoder is not None else "Griffin-Lim"
    made = f"{settings.sampler} with {settings.steps} steps{''.join(others)}, {vocoder}"
    return f"the clips are seeds {plan[0].seed} to {plan[-1].seed} {each}, {made}"
