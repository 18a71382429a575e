"""The clips of a mixture: takes a feature folder and options, gives real recordings, and generated clips, which are made if need be.

<out>/generated/<voice>_<part> are data sets of `dataset`, <out>/espeak the clips of espeak-ng, <out>/own/<k> a generator of k clips a word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from duovox.contracts import DataError
from duovox.data import Features
from duovox.data.choosing import first_train_clips, write_chosen
from duovox.data.features import FULL_SCALE
from duovox.dataset.engines.local import local_engine
from duovox.dataset.options import Options as DatasetOptions
from duovox.dataset.records import FOLDER, read_records
from duovox.dataset.run import make_dataset, plan_dataset
from duovox.devices import DeviceName, Precision
from duovox.evaluation.clips import Clips, read_files
from duovox.experiments.plan import DRAW
from duovox.experiments.runner import Clock
from duovox.experiments.spotting.espeak import make_clips
from duovox.experiments.spotting.mixtures import Mixture
from duovox.experiments.spotting.options import Spotting
from duovox.experiments.spotting.own import OwnTraining, own_bundle


@dataclass(frozen=True, eq=False)
class Sounds:
    """Where all clips come from: `bundle` is the voice that heard all of the data. What was read once is kept; `notes` say of which
    words there are fewer clips than were wanted."""

    spotting: Spotting
    bundle: str
    out: Path
    data: Path
    features: Features
    training: OwnTraining
    device: DeviceName
    precision: Precision
    batch: int
    kept: dict[str, Clips] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def of(self, mixture: Mixture, clock: Clock) -> list[Clips] | None:
        """The sets of a mixture, each to be drawn from as often as another: real, generated. None when the time is over before all are
        made; what is begun is made whole. Raises `DataError`, and what generating and training raise."""
        sets = [self.real(mixture.real)] * bool(mixture.real)
        if mixture.generated:
            generated = self.generated(mixture, clock)
            if generated is None:
                return None
            sets.append(generated)
        return sets

    def real(self, count: int) -> Clips:
        """Train clips, so many of each command."""
        chosen = first_train_clips(self.features, self.spotting.commands, count)
        waves = self.features.waves[chosen].astype(np.float32) / np.float32(FULL_SCALE)
        return Clips(waves, tuple(self.features.labels[self.features.label[place]] for place in chosen))

    def generated(self, mixture: Mixture, clock: Clock) -> Clips | None:
        """The first clips of each command that its voice made, and what lies between where it asks for that."""
        if mixture.voice == "espeak":
            return first_clips(self._by_rules(max(self.spotting.generated)), mixture.generated)
        if mixture.voice == "own":
            return self._own(mixture.heard, mixture.generated, clock)
        parts = []
        for place, (low, high) in enumerate(steps(self.spotting.generated)):
            if low < mixture.generated:
                between = self.spotting.between if place == 0 else 0
                parts.append(self._spoken(f"all_{place}", self.bundle, high - low, place * DRAW, clock, between))
        if any(part is None for part in parts):
            return None
        found = joined([part for part in parts if part is not None])
        return found if mixture.between else labelled(found)

    def _own(self, heard: int, count: int, clock: Clock) -> Clips | None:
        folder = self.out / "own" / str(heard)
        if not (folder / "bundle" / "config.json").is_file() and clock.left <= 0:
            return None
        commands = self.spotting.commands
        write_chosen(self.data, folder / "features", commands, first_train_clips(self.features, commands, heard))
        bundle = own_bundle(folder, self.training)
        clock.stopped = clock.stopped or bundle is None
        return self._spoken(f"own{heard}_0", str(bundle), count, 0, clock) if bundle else None

    def _spoken(self, name: str, bundle: str, count: int, seed: int, clock: Clock, between: int = 0) -> Clips | None:
        """A data set of `count` clips of each command, from a seed on."""
        folder = self.out / "generated" / name
        if name not in self.kept:
            if not any(folder.glob("manifest.*")) and clock.left <= 0:
                return None
            options = DatasetOptions(
                folder,
                count,
                words=self.spotting.commands,
                between=between,
                seed=seed,
                bundle=bundle,
                device=self.device,
                precision=self.precision,
                batch=self.batch,
                workers=self.spotting.workers,
            )
            make_dataset(plan_dataset(options), local_engine(options.workers))
            self.kept[name] = read_dataset(folder)
            self.notes.extend(shortfalls(name, self.kept[name], self.spotting.commands, count))
        return self.kept[name]

    def _by_rules(self, count: int) -> Clips:
        if "espeak" not in self.kept:
            words = self.spotting.commands
            paths = list(make_clips(self.out / "espeak", words, self.features.languages, range(count)))
            self.kept["espeak"] = read_files(paths, [word for word in words for _ in range(count)])
        return self.kept["espeak"]


def steps(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """From none to the smallest number, from that to the next, and so on."""
    rising = sorted(set(numbers))
    return zip([0, *rising], rising, strict=False)


def read_dataset(folder: Path) -> Clips:
    """The clips of a data set in the layout of Speech Commands, in their order; hard negatives have no label. Raises `DataError`."""
    numbers = sorted(int(path.stem) for path in (folder / FOLDER).glob("*.jsonl"))
    kept = [record for record in read_records(folder, numbers) if record["kept"]]
    if not kept:
        raise DataError(f"{folder}: no clip was kept; this voice speaks too badly to teach anybody, train it longer")
    return read_files([folder / r["file"] for r in kept], [r["label"] if r["kind"] == "word" else None for r in kept])


def shortfalls(name: str, clips: Clips, words: Sequence[str], count: int) -> Iterator[str]:
    """One line for the words of which a voice gave fewer clips than so many."""
    given = Counter(clips.labels)
    few = [f"{given[word]} of {word}" for word in words if given[word] < count]
    if few:
        yield f"{name}: {', '.join(few)} instead of {count}; the others ran off to noise or silence"


def first_clips(clips: Clips, count: int) -> Clips:
    """The first so many of each label."""
    seen, kept = Counter[str | None](), []
    for place, label in enumerate(clips.labels):
        seen[label] += 1
        if seen[label] <= count:
            kept.append(place)
    return chosen(clips, kept)


def labelled(clips: Clips) -> Clips:
    """Those that have a label."""
    return chosen(clips, [place for place, label in enumerate(clips.labels) if label is not None])


def joined(parts: Sequence[Clips]) -> Clips:
    """The clips of several sets, one after the other."""
    return Clips(np.concatenate([part.waves for part in parts]), tuple(label for part in parts for label in part.labels))


def chosen(clips: Clips, places: Sequence[int]) -> Clips:
    return replace(clips, waves=clips.waves[list(places)], labels=tuple(clips.labels[place] for place in places))
