"""Carries the experiment `guides` out: takes its plan, a voice, guides and instruments, gives clips and figures in a folder; does only what
is missing there.

<out>/verifier.safetensors, <out>/guides/<condition>/<target>/ (clips), <condition>.json (a row for each clip) and sentences.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from duovox.config import GuideStrength, to_dict
from duovox.contracts import GenerationError, GuideError
from duovox.data import Features
from duovox.data.features import FULL_SCALE
from duovox.evaluation.judge import Judge
from duovox.evaluation.metrics import fit_gaussian, frechet_distance
from duovox.evaluation.quality import Quality
from duovox.evaluation.reference import reference_scores
from duovox.evaluation.verifier import Verifier
from duovox.experiments.guides_plan import SENTENCE, Dose, GuidesPlan, Steered, pitch_target
from duovox.experiments.instruments import Panel, PitchMeter, least_similarity, semitones
from duovox.experiments.runner import Clock
from duovox.files import write_whole
from duovox.generation import Request, describe_faults, fill_folder, read_faults
from duovox.guide_folder import GuideNetwork
from duovox.saying import firmly, say
from duovox.sound.audio import read_audio
from duovox.sound.hearing import fit_length
from duovox.steering import JoinedGuide, ScheduledGuide
from duovox.voice import Duovox


@dataclass(frozen=True)
class SteeredClip:
    """What the instruments say of a clip: whether the judge hears its word; its pitch, None where nothing is voiced, and how far that is
    from the target's (semitones); the place of the target's speaker among all. What has no target is None."""

    target: int
    label: str
    seed: int
    right: bool
    hertz: float | None
    semitones: float | None
    rank: int | None


@dataclass(frozen=True)
class SpokenSentence:
    """The smallest similarity of any two of its words, and how many of them the judge hears, with a speaker guide and without."""

    seed: int
    plain: float
    guided: float
    plain_right: int
    guided_right: int


@dataclass(frozen=True, eq=False)
class GuidesBench:
    """A plan, the folder it is carried out in, the voice with its guides, and the instruments."""

    plan: GuidesPlan
    out: Path
    voice: Duovox
    pitch: JoinedGuide | None
    speaker: GuideNetwork | None
    data: Path
    features: Features
    judge: Judge
    verifier: Verifier
    meter: PitchMeter
    panel: Panel
    quality: Quality | None = None
    fid: bool = True
    batch: int = 8

    def run(self, clock: Clock, only: str | None = None) -> None:
        """Make and measure what is missing, until the clock is out; the sentences after the first conditions, before the curves."""
        for number, condition in enumerate(self.plan.conditions if only is None else [self.plan.condition(only)]):
            if number == self.plan.main:
                self._say(clock)
            if self.record(condition) is None and not self._try(condition, clock):
                return
        if only is None:
            self._say(clock)

    def left(self) -> list[str]:
        """What is still missing, in words."""
        missing = [f"condition {condition.name}" for condition in self.plan.conditions if self.record(condition) is None]
        sentences = self.plan.sentences - len(self.sentences())
        return missing + ([f"{sentences} sentences"] if sentences else [])

    # conditions

    def folder(self, condition: Steered) -> Path:
        return self.out / "guides" / condition.name

    def rows(self, condition: Steered) -> list[SteeredClip] | None:
        """What was measured of a condition, if with the same voice, guides, instruments and numbers; None also where a guide failed."""
        found = self.record(condition)
        return None if found is None or "failed" in found else [SteeredClip(**row) for row in found["clips"]]

    def record(self, condition: Steered) -> dict[str, Any] | None:
        """The record of a condition, None where there is none of now."""
        return _read(self._file(condition), self.key(condition))

    def _file(self, condition: Steered) -> Path:
        return self.out / "guides" / f"{condition.name}.json"

    def key(self, condition: Steered) -> dict[str, Any]:
        """All that decides the figures of a condition, as JSON values."""
        doses = [asdict(dose) if dose else None for dose in (condition.pitch, condition.speaker)]
        clips = self.plan.clips(condition, 0, self.voice.labels)
        sizes = [self.plan.n, len(clips), self.plan.targets(condition), list(self.plan.pitches)]
        recorded = {"recorded_pitch": True} if condition.recorded_pitch else {}
        return self._decided | {"doses": doses, "sizes": sizes, "fid": self.fid} | recorded

    @cached_property
    def _decided(self) -> dict[str, Any]:
        guides = [self.pitch.digest if self.pitch else "", self.speaker.digest if self.speaker else ""]
        sample = to_dict(replace(self.voice.config.recipe.sample, preset="own"))
        parts = {
            "voice": self.voice.digest,
            "precision": self.voice.precision,
            "guides": guides,
            "sample": sample,
            "judge": self.judge.digest,
        }
        parts |= {"verifier": self.verifier.digest, "meter": self.meter.name, "data": self.features.digest, "panel": list(self.panel.names)}
        strengths = [to_dict(one) for one in self.strengths if one]
        return parts | {"strengths": strengths, "quality": [self.quality.name, self.quality.about] if self.quality else []}

    @property
    def strengths(self) -> tuple[GuideStrength | None, GuideStrength | None]:
        """The own strengths of the pitch and the speaker guide."""
        return self.pitch.strength if self.pitch else None, self.speaker.config.strength if self.speaker else None

    def wanted_pitch(self, condition: Steered, target: int) -> float:
        """The pitch (Hz) of a target; where the recording's is wanted and nothing in it is voiced, that of the plan."""
        recorded = self.meter(self.panel.references[target], self.features.mel.sample_rate) if condition.recorded_pitch else None
        return recorded or float(self.plan.pitch(target))

    def guides(self, condition: Steered, target: int) -> list[ScheduledGuide]:
        """The guides of one target."""
        found = []
        if condition.pitch and self.pitch:
            wanted = pitch_target(self.wanted_pitch(condition, target), self.pitch.labels)
            found.append(self.voice.guide(self.pitch.name, wanted, **condition.pitch.changes))
        if condition.speaker:
            found.append(self._towards(self.panel.references[target], condition.speaker))
        return found

    def _towards(self, wave: NDArray[np.float32], dose: Dose) -> ScheduledGuide:
        """The speaker guide towards one wave."""
        assert self.speaker is not None
        return self.voice.guide(self.speaker, like=wave, **dose.changes)

    def _try(self, condition: Steered, clock: Clock) -> bool:
        """Make and measure the clips of one condition; whether time was enough. Where a guide fails, as one without a cap may, that is what
        was found."""
        tqdm.write(str(condition))
        try:
            for target in range(self.plan.targets(condition)):
                if clock.left <= 0 or not self._make(condition, target, lambda: clock.left > 0):
                    return False
            found = {"key": self.key(condition)} | self._measure(condition)
        except GuideError as error:
            found = {"key": self.key(condition), "failed": str(error)}
        write_whole(self._file(condition), (json.dumps(found, indent=1) + "\n").encode(), force=True, parents=True)
        return True

    def _place(self, condition: Steered, target: int) -> Path:
        return self.folder(condition) / str(target)

    def _requests(self, condition: Steered, target: int) -> list[Request]:
        return [Request(label, seed) for label, seed in self.plan.clips(condition, target, self.voice.labels)]

    def _make(self, condition: Steered, target: int, go_on: Callable[[], bool]) -> bool:
        plan, guides = self._requests(condition, target), self.guides(condition, target)
        place = self._place(condition, target)
        place.mkdir(parents=True, exist_ok=True)
        return fill_folder(self.voice, place, plan, batch=self.batch, go_on=go_on, guides=guides)

    def _measure(self, condition: Steered) -> dict[str, Any]:
        """The figures of a condition's clips."""
        wanted = [(target, request) for target in range(self.plan.targets(condition)) for request in self._requests(condition, target)]
        rate, length = self.features.mel.sample_rate, self.features.mel.clip_samples
        files = [self._place(condition, target) / request.file for target, request in wanted]
        waves = np.stack([fit_length(read_audio(path, rate), length) for path in files])
        scores, embeddings = self.judge.score(waves), self.verifier.embed(waves)
        heard = [self.judge.labels[number] for number in scores.probabilities.argmax(axis=1)]
        pitches = [self.wanted_pitch(condition, target) for target in range(self.plan.targets(condition))]
        said = zip(waves, heard, embeddings, strict=True)
        clips = [self._clip(target, request, pitches[target], *each) for (target, request), each in zip(wanted, said, strict=True)]
        faults = dict(item for target in range(self.plan.targets(condition)) for item in self._faults(condition, target))
        quality = float(np.mean(self.quality.score(waves))) if self.quality else None
        figures = {"fid": self._fid(scores.features), "quality": quality, "faults": describe_faults(faults, len(waves))}
        return figures | {"clips": [asdict(clip) for clip in clips]}

    def _clip(
        self, target: int, request: Request, pitch: float, wave: NDArray[np.float32], heard: str, embedding: NDArray[np.float32]
    ) -> SteeredClip:
        hertz = self.meter(wave, self.features.mel.sample_rate)
        distance = None if hertz is None or self.pitch is None else semitones(hertz, pitch)
        rank = self.panel.rank(embedding, target) if target < self.plan.speakers else None
        return SteeredClip(target, str(request.label), request.seed, heard == request.label, hertz, distance, rank)

    def _faults(self, condition: Steered, target: int) -> list[tuple[Request, str]]:
        return list(read_faults(self._place(condition, target), self._requests(condition, target)).items())

    def _fid(self, features: NDArray[np.float32]) -> float | None:
        """Against the train split; None for too few clips."""
        if not self.fid or len(features) <= features.shape[1]:
            return None
        train = reference_scores(self.judge, self.features, "train", self.data / "reference")
        return frechet_distance(fit_gaussian(features), fit_gaussian(train.features))

    # sentences

    @property
    def _said(self) -> Path:
        return self.out / "guides" / "sentences.json"

    @property
    def _said_key(self) -> dict[str, Any]:
        """All that decides the figures of a sentence, as JSON values."""
        return self._decided | {"led": firmly(self.speaker.config.strength) if self.speaker else {}}

    def sentences(self) -> list[SpokenSentence]:
        """Those that were measured, if with the same voice, guide and instruments."""
        found = _read(self._said, self._said_key)
        return [SpokenSentence(**row) for row in found["sentences"]][: self.plan.sentences] if found else []

    def _say(self, clock: Clock) -> None:
        """Say and measure what is missing, sentence by sentence."""
        known = self.sentences()
        for number in range(len(known), self.plan.sentences):
            if clock.left <= 0:
                return
            known.append(self._sentence(number))
            found = {"key": self._said_key, "sentences": [asdict(one) for one in known]}
            write_whole(self._said, (json.dumps(found, indent=1) + "\n").encode(), force=True, parents=True)

    def _sentence(self, number: int) -> SpokenSentence:
        labels, seed = self.voice.labels, number * SENTENCE
        words = [labels[(seed + place) % len(labels)] for place in range(SENTENCE)]
        length, found = self.features.mel.clip_samples, list[tuple[float, int]]()
        for speaker in (None, self.speaker):
            try:
                clips = say(self.voice, " ".join(words), seed=seed, speaker=speaker, batch=self.batch).clips
            except GenerationError:  # a word ran off to noise: nobody speaks it
                found.append((-1.0, 0))
                continue
            waves = np.stack([fit_length(clip.wave, length) for clip in clips])
            found.append((least_similarity(self.verifier.embed(waves)), self._right(waves, words)))
        (plain, plain_right), (guided, guided_right) = found
        return SpokenSentence(seed, plain, guided, plain_right, guided_right)

    def _right(self, waves: NDArray[np.float32], words: Sequence[str]) -> int:
        heard = self.judge.score(waves).probabilities.argmax(axis=1)
        return sum(self.judge.labels[number] == word for number, word in zip(heard, words, strict=True))

    def real_sentences(self) -> float:
        """How often `SENTENCE` real clips of one speaker of the panel pass for one speaker, by the same rule."""
        clips = [np.flatnonzero((self.features.split == "test") & (np.array(self.features.speakers) == name)) for name in self.panel.names]
        waves = [self.features.waves[found[:SENTENCE]].astype(np.float32) / FULL_SCALE for found in clips if len(found) >= SENTENCE]
        least = [least_similarity(self.verifier.embed(each)) for each in waves]
        return float(np.mean([one >= self.panel.threshold for one in least])) if least else float("nan")


def _read(path: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """A record of ours with this key."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if found.get("key") == json.loads(json.dumps(key)) else None
