"""Carries a plan out: takes its systems and trials, gives trained runs, clips and figures in a folder; does only what is missing there.

<out>/classifier, <out>/systems/<system>/subnet, <out>/trials/<system>/<trial>/ (clips) and <trial>.json beside it (figures).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from duovox.assemble import assemble
from duovox.classifiers.frozen import fingerprint
from duovox.config import Recipe, SampleConfig, to_dict
from duovox.contracts import TrainingError
from duovox.data import Features, narrowed, open_features
from duovox.devices import DeviceName, Precision, choose_autocast, choose_device
from duovox.evaluation.clips import Clips, narrowed_clips
from duovox.evaluation.judge import Judge
from duovox.evaluation.metrics import fit_gaussian, frechet_distance
from duovox.evaluation.quality import Quality
from duovox.evaluation.reference import reference_scores
from duovox.evaluation.report import evaluate
from duovox.evaluation.rows import Scoring
from duovox.evaluation.systems import Generation, make_clips, read_made
from duovox.experiments.plan import Plan, System, Trial
from duovox.files import differences, write_whole
from duovox.generation import completed, describe_faults, read_faults
from duovox.provenance import digest_of, note_machine
from duovox.runs import Part, read_weights, recipe_of_part, updates_of
from duovox.sound.vocoder.istft_net import ISTFTNet
from duovox.training.start import start_training
from duovox.voice import Duovox


@dataclass
class Clock:
    """What is left of a time budget, in seconds."""

    budget: float = math.inf
    started: float = field(default_factory=time.monotonic)
    stopped: bool = False

    @property
    def left(self) -> float:
        return 0.0 if self.stopped else max(0.0, self.budget - (time.monotonic() - self.started))


@dataclass(frozen=True, eq=False)
class Bench:
    """A plan, the folder it is carried out in, and what all its trials share. `classifier` is the run folder of a classifier that is
    trained already; `out`'s own otherwise. `others` are the feature folders of the shift experiment, by their names in the plan.
    """

    plan: Plan
    out: Path
    data: Path
    features: Features
    judge: Judge
    vocoder: ISTFTNet | None = None
    quality: Quality | None = None
    fid: bool = True
    classifier: Path | None = None
    device: DeviceName = "cpu"
    precision: Precision = "auto"
    batch: int = 8
    others: Mapping[str, Path] = field(default_factory=dict)
    complete: set[Path] = field(default_factory=set)

    def run(self, clock: Clock, only: str | None = None) -> None:
        """Train and sample what is missing, one system after the other, until the clock is out. Raises `TrainingError` for a run in
        the folder that was made with another recipe or other data, and what trainings and evaluations raise.
        """
        for system in self.plan.systems if only is None else [self.plan.system(only)]:
            if not self._train(system, clock):
                return
            for trial in self.trials(system):
                if self.record(trial) is None and not self._try(system, trial, clock):
                    return

    def left(self) -> list[str]:
        """What is still missing, in words."""
        missing = []
        for system in self.plan.systems:
            done = self.trained(system)
            missing += [] if done else [f"training of {system.name}"]
            trials = sum(self.record(trial) is None for trial in self.trials(system))
            missing += [f"{trials} trials of {system.name}"] if trials else []
        return missing

    def trials(self, system: System) -> list[Trial]:
        """Those of one system."""
        return [trial for trial in self.plan.trials if trial.system == system.name]

    # trainings

    def subnet_folder(self, system: System) -> Path:
        """The run folder of a score model."""
        return self.out / "systems" / system.name / "subnet"

    def classifier_folder(self, system: System) -> Path:
        """The run folder of the classifier it stands on."""
        if system.random_classifier:
            return self.out / "systems" / system.name / "classifier"
        return self.classifier or self.out / "classifier"

    def seen_by(self, system: System) -> Features:
        """The recordings that its score model sees."""
        return self.other_features[system.shift] if system.shift else self.features

    @cached_property
    def other_features(self) -> dict[str, Features]:
        """Those of the shift experiment, by their names in the plan."""
        return {name: open_features(folder, self.plan.systems[0].recipe.mel) for name, folder in self.others.items()}

    def trained(self, system: System) -> bool:
        """Whether its score model is complete. Raises `TrainingError` as `finished` does."""
        return self.finished(self.subnet_folder(system), "subnet", system.recipe, self.seen_by(system))

    def finished(self, folder: Path, part: Part, recipe: Recipe, features: Features) -> bool:
        """Whether a run is complete. Raises `TrainingError` if it is one of another recipe or data."""
        if folder in self.complete:
            return True
        if not (folder / "weights.safetensors").is_file():
            return False
        facts, _ = read_weights(folder)
        wanted = {"recipe": recipe_of_part(recipe, part), "data": features.digest}
        for path, old, new in differences({name: facts[name] for name in wanted}, wanted):
            raise TrainingError(f"{folder} was trained with {path} = {old!r}, now it is {new!r}; use the old one or another --out")
        if facts["step"] >= updates_of(facts, recipe, part):
            self.complete.add(folder)
        return folder in self.complete

    def _train(self, system: System, clock: Clock) -> bool:
        """Whether the system is trained now, its classifier first."""
        folder = self.classifier_folder(system)
        ready = self.finished(folder, "classifier", system.recipe, self.features)
        if folder == self.classifier and not ready:
            raise TrainingError(f"{folder} holds no finished classifier; train it first, or leave --classifier out")
        ready = ready or self._go_on("classifier", folder, system.recipe, self.data, clock)
        data, place = self.others.get(system.shift, self.data), self.subnet_folder(system)
        return ready and (self.trained(system) or self._go_on("subnet", place, system.recipe, data, clock, folder))

    def _go_on(self, part: Part, folder: Path, recipe: Recipe, data: Path, clock: Clock, on: Path | None = None) -> bool:
        """Train a part, or go on with it; whether it is complete."""
        if clock.left <= 0:
            return False
        note_machine(folder.parent / f"{part}_machines.json", choose_device(self.device))
        resume = (folder / "checkpoint.safetensors").is_file()
        outcome = start_training(
            part,
            recipe,
            data,
            folder.parent,
            resume=resume,
            time_budget=clock.left,
            device=self.device,
            precision=self.precision,
            on=on,
        )
        clock.stopped = not outcome.complete  # the time is over, or a signal came
        return outcome.complete

    # trials

    def clips_folder(self, trial: Trial) -> Path:
        """Where its clips lie."""
        return self.out / "trials" / trial.system / trial.name

    def record(self, trial: Trial) -> dict[str, Any] | None:
        """What was found, if it was found with the same weights, settings, judge and data."""
        try:
            found: dict[str, Any] = json.loads(record_file(self.clips_folder(trial)).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if completed(found.get("key") or {}) == self.key(trial) else None

    def key(self, trial: Trial) -> dict[str, Any] | None:
        """All that decides the figures of a trial, as JSON values; None while its system is not trained."""
        system = self.plan.system(trial.system)
        weights = [folder / "weights.safetensors" for folder in (self.classifier_folder(system), self.subnet_folder(system))]
        if not (all(path.is_file() for path in weights) and self.trained(system)):
            return None
        shifted = {"shifted": self.seen_by(system).digest} if system.shift else {}
        return shifted | {
            "weights": [digest_of(path) for path in weights],
            "vocoder": self.vocoder_digest,
            "sample": to_dict(replace(sample_of(system.recipe, trial), preset="own")),  # where settings began decides nothing
            "unconditional": trial.condition.gamma is None,
            "n": self.plan.n,
            "first": trial.first_seed,
            "judge": self.judge.digest,
            "data": self.features.digest,
            "arithmetic": str(self.autocast),
            "quality": [self.quality.name, self.quality.about] if self.quality else [],
            "fid": self.fid,
            "groups": [[name, list(labels)] for name, labels in system.groups],
        }

    @cached_property
    def autocast(self) -> torch.dtype | None:
        """The arithmetic of the networks when they speak, as when they are trained."""
        return choose_autocast(self.precision, choose_device(self.device))

    @cached_property
    def vocoder_digest(self) -> str:
        """Empty for Griffin-Lim."""
        return fingerprint(self.vocoder) if self.vocoder is not None else ""

    def _try(self, system: System, trial: Trial, clock: Clock) -> bool:
        """Make and judge the clips of one trial; whether time was enough."""
        tqdm.write(f"{system.name}: {trial.condition}, seeds from {trial.first_seed}")
        clips = self._speak(system, trial, clock)
        if clips is None:
            return False
        faults = self._faults(trial)
        found = {
            "key": self.key(trial),
            "notes": [note for note in clips.notes if note != faults],
            "faults": faults,
            "groups": {name: self._score(trial, narrowed_clips(clips, labels), labels) for name, labels in system.groups},
            "shifted_fid": self._shifted_fid(system, clips),
        }
        write_whole(record_file(self.clips_folder(trial)), json.dumps(found, indent=1).encode(), force=True, parents=True)
        return True

    def _speak(self, system: System, trial: Trial, clock: Clock) -> Clips | None:
        """The clips of a trial; None when the time is over before all are made."""
        recipe = replace(system.recipe, sample=sample_of(system.recipe, trial))
        place, on = self.subnet_folder(system).parent, self.classifier_folder(system)
        voice = Duovox(assemble(place, recipe, vocoder=self.vocoder, on=on)).to(choose_device(self.device))
        self.judge.refuse_guide(voice.bundle.model.classifier)
        voice.bundle.model.autocast = self.autocast
        wanted, folder = self._wanted(trial), self.clips_folder(trial)
        complete = make_clips(voice, folder, wanted, lambda: clock.left > 0)
        return read_made(voice, folder, wanted) if complete else None

    def _faults(self, trial: Trial) -> str:
        """How many of its clips ran off to no speech, in words; empty where none did."""
        plan = self._wanted(trial).plan(self.plan.labels)
        return describe_faults(read_faults(self.clips_folder(trial), plan), len(plan))

    def _wanted(self, trial: Trial) -> Generation:
        return Generation(self.plan.n, unconditional=trial.condition.gamma is None, batch=self.batch, first=trial.first_seed)

    def _score(self, trial: Trial, clips: Clips, labels: tuple[str, ...]) -> list[dict[str, Any]]:
        """The row of some clips, and those of real ones of the same labels. FID needs more clips than the judge has features."""
        scoring = Scoring(fid=self.fid and len(clips.labels) > self.judge_features, quality=self.quality, resamples=0)
        report = evaluate(self.judge, clips, narrowed(self.features, labels), scoring, trial.system, self.data / "reference")
        return [asdict(row) for row in report.rows]

    def _shifted_fid(self, system: System, clips: Clips) -> float | None:
        """FID against the train clips that the score model saw, where they are other data than the judge's."""
        if not (system.shift and self.fid and len(clips.labels) > self.judge_features):
            return None
        seen = reference_scores(self.judge, self.seen_by(system), "train", self.others[system.shift] / "reference")
        return frechet_distance(fit_gaussian(self.judge.score(clips.waves).features), fit_gaussian(seen.features))

    @cached_property
    def judge_features(self) -> int:
        """How many features the judge has."""
        return int(self.judge.score(np.zeros((1, 16000), np.float32)).features.shape[1])


def sample_of(recipe: Recipe, trial: Trial) -> SampleConfig:
    """The recipe's sampling with a trial's guidance."""
    condition = trial.condition
    gamma = recipe.sample.gamma if condition.gamma is None else condition.gamma
    return replace(recipe.sample, gamma=gamma, guidance_low=condition.low, guidance_high=condition.high, schedule=condition.schedule)


def record_file(clips: Path) -> Path:
    """Where the figures of a folder of clips lie: beside it (its name may hold dots)."""
    return clips.with_name(clips.name + ".json")
