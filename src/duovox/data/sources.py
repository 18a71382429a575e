"""Which clips a data set has: takes folders of words, gives every clip's path, label, split and speaker to `decoding`.

Several roots are one data set: labels of one name are merged, each root keeps its own table and lists. Knows the official layout of
Google Speech Commands v0.01 and v0.02 (P. Warden, arXiv 1804.03209).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from duovox.contracts import DataError
from duovox.data.labels import choose_labels, choose_languages
from duovox.data.lists import LISTS, Lists, Split, read_lists
from duovox.data.speakers import Rule, Speakers, compile_pattern, count_rules, speaker_notes
from duovox.data.splits import Held, Voice, assign
from duovox.data.tables import NAME, Table, read_table
from duovox.sound.audio import READABLE
from duovox.sound.folders import find_sounds
from duovox.text import named, printable, same_spelling

MIN_CLIPS = 2


@dataclass(frozen=True)
class Source:
    """One sound file of a data set: `name` is its path below the root (with the root's name before it where there are several), `root`
    the root's number."""

    path: Path
    label: str
    split: Split
    speaker: str
    rule: Rule
    name: str
    root: int = 0


@dataclass(frozen=True)
class Scan:
    """What a data set holds: labels in order, clips in order, the files left out with their reasons, and what else to know of it.
    `roots` are the names of the folders it was read from, `languages` those of the labels that have one."""

    labels: tuple[str, ...]
    sources: tuple[Source, ...]
    skipped: dict[str, str]
    notes: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    languages: dict[str, str] = field(default_factory=dict)

    @property
    def speaker_rules(self) -> dict[str, int]:
        """How many clips each rule gave a speaker to."""
        return count_rules((source.speaker, source.rule) for source in self.sources)


@dataclass(frozen=True)
class SpeakerOptions:
    """What a caller says of the speakers: the `pattern` with one group that finds them in a clip's path below its root, those held out by
    name, and the language of each root (one for all, or none); or that the labels are speakers, each of whom is in every split."""

    pattern: str | None = None
    held: Held = field(default_factory=Held)
    languages: tuple[str, ...] = ()
    labels_are_speakers: bool = False

    def __post_init__(self) -> None:
        if self.labels_are_speakers and (self.pattern is not None or self.held != Held()):
            raise DataError("where the labels are speakers each must be in every split; leave --speaker and --test-speakers out")


@dataclass(frozen=True)
class _Root:
    """One folder of words, and what it says of its clips itself."""

    path: Path
    name: str
    prefix: str
    folders: Mapping[str, list[Path]]
    speakers: Speakers
    table: Table | None
    lists: Lists | None

    def given(self, clip: str) -> Split | None:
        """The split that the table or the lists give a clip."""
        row = self.table.row(clip) if self.table else None
        return (row.split if row else None) or (self.lists.split_of(clip) if self.lists else None)

    def check(self, clips: Sequence[str], others: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
        """What of its table and lists does not fit its clips and the `others` that were left out, in words."""
        notes = self.lists.check(clips, labels) if self.lists else ()
        if self.table:
            notes += self.table.check([*clips, *others], [label for label in self.folders if label not in labels])
        return tuple(f"{self.name}: {note}" if self.prefix else note for note in notes)


def scan(
    roots: str | Path | Sequence[str | Path],
    labels: str | Sequence[str] | None = None,
    options: SpeakerOptions = SpeakerOptions(),
) -> Scan:
    """List the clips below `<root>/<label>`, at any depth, of one root or several, with their speakers (see `speakers`) and splits (see
    `splits`).

    `labels` is a named set (`sc09`), a comma list or a sequence; None takes every sub-folder whose name does not start with
    `_` or `.`. Names are compared in one Unicode form. Raises `DataError` for a missing folder, a root given twice, fewer than two labels,
    names that cannot be labels or differ in case alone, a label with fewer than two clips, a speaker in two splits, and tables, lists or
    options that do not fit.
    """
    pattern = compile_pattern(options.pattern) if options.pattern is not None else None
    places = _check_roots([roots] if isinstance(roots, str | Path) else roots)
    several = len(places) > 1
    skipped: dict[str, str] = {}
    speakers = Speakers(pattern=pattern, labels=options.labels_are_speakers)
    found = [_read_root(path, name, several, speakers, skipped) for path, name in places]
    chosen = choose_labels(where(places), [(root.path, root.folders) for root in found], labels)
    sources, notes = _list_clips(found, chosen, skipped)
    check_counts(where(places), chosen, (source.label for source in sources), skipped, several)
    if pattern and not any(source.rule == "pattern" for source in sources):
        raise DataError(f"the speaker pattern {pattern.pattern!r} matches no file (the first is {printable(sources[0].name)}); mend it")
    sources, decided = _with_splits(found, sources, options.held)
    check_speakers(sources)
    languages = choose_languages(options.languages, [root.name for root in found], _languages(found, sources))
    notes = (*speaker_notes((source.speaker, source.rule) for source in sources), *notes, *decided)
    return Scan(chosen, tuple(sources), skipped, notes, tuple(name for _, name in places), languages)


def where(places: Sequence[tuple[Path, str]]) -> str:
    """How messages call the roots."""
    return ", ".join(str(path) for path, _ in places)


def _check_roots(roots: Sequence[str | Path]) -> list[tuple[Path, str]]:
    """Each root with a name of its own. Raises `DataError` for none, and for one given twice or lying in another."""
    paths = [Path(root) for root in roots]
    if not paths:
        raise DataError("no folder of words was given")
    real = [Path(os.path.realpath(path)) for path in paths]
    for number, path in enumerate(real):
        for other, earlier in enumerate(real[:number]):
            if path == earlier:
                raise DataError(f"{paths[number]} is given twice (as {paths[other]}); name each folder once")
            if path.is_relative_to(earlier) or earlier.is_relative_to(path):
                raise DataError(f"of {paths[other]} and {paths[number]} one lies inside the other; give one of them")
    taken: Counter[str] = Counter()
    names = []
    for path in real:
        taken[path.name] += 1
        names.append(path.name if taken[path.name] == 1 else f"{path.name}-{taken[path.name]}")
    return list(zip(paths, names, strict=True))


def _read_root(path: Path, name: str, several: bool, speakers: Speakers, skipped: dict[str, str]) -> _Root:
    prefix = f"{name}/" if several else ""
    folders, beside = _label_folders(path)
    skipped |= {f"{prefix}{entry}": reason for entry, reason in beside.items()}
    table = read_table(path)
    return _Root(path, name, prefix, folders, replace(speakers, table=table, prefix=prefix), table, read_lists(path))


def _list_clips(roots: Sequence[_Root], labels: Sequence[str], skipped: dict[str, str]) -> tuple[list[Source], tuple[str, ...]]:
    """The clips by label and root, their splits those that tables and lists give or else train; and what of these does not fit."""
    found: list[list[Source]] = [[] for _ in labels]
    notes: tuple[str, ...] = ()
    for number, root in enumerate(roots):
        left_out: list[str] = []
        clips: list[str] = []
        for label, path in _clips(root, labels, skipped, left_out):
            clip = relative_name(path, root.path)
            clips.append(clip)
            speaker, rule = root.speakers.of(clip)
            found[labels.index(label)].append(Source(path, label, "train", speaker, rule, f"{root.prefix}{clip}", number))
        notes += root.check(clips, left_out, labels)
    return [source for sources in found for source in sources], notes


def _with_splits(roots: Sequence[_Root], sources: Sequence[Source], held: Held) -> tuple[list[Source], tuple[str, ...]]:
    """The clips with their splits, and which roots' own splits the speakers held out by name put aside."""
    given = [roots[source.root].given(source.name.removeprefix(roots[source.root].prefix)) for source in sources]
    apart = [source.name if source.rule == "label" else source.speaker for source in sources]
    voices = [Voice(source.root, name, split) for source, name, split in zip(sources, apart, given, strict=True)]
    splits, decided = assign(voices, held)
    aside = sorted({roots[voice.root].name for voice in voices if voice.root in decided and voice.given})
    ways = " and ".join([*LISTS.values(), f"the splits of {NAME}"])
    notes = (f"the speakers named decide the splits of {named(aside)}: {ways} are not used there",) if aside else ()
    return [replace(source, split=split) for source, split in zip(sources, splits, strict=True)], notes


def _languages(roots: Sequence[_Root], sources: Iterable[Source]) -> Iterator[tuple[str, int, str]]:
    """Label, root and the language that the table gives, of each clip."""
    for source in sources:
        root = roots[source.root]
        row = root.table.row(source.name.removeprefix(root.prefix)) if root.table else None
        yield source.label, source.root, row.language if row else ""


def relative_name(path: Path, root: Path) -> str:
    """How a clip is called: its path below the root, with the parts separated by /."""
    return path.relative_to(root).as_posix()


def check_counts(
    place: str, labels: Sequence[str], label_of_clips: Iterable[str], skipped: Mapping[str, str] | None = None, several: bool = False
) -> None:
    """Raise `DataError` unless every label has enough clips to train on and to hold out; the message says why one that was `skipped`
    was (names that begin with the root's where there are `several`)."""
    counts = Counter(label_of_clips)
    for label in labels:
        if counts[label] < MIN_CLIPS:
            lost = [f"{name}: {reason}" for name, reason in (skipped or {}).items() if _label_of(name, several) == label]
            why = f" ({len(lost)} were left out, the first, {printable(lost[0])})" if lost else ""
            raise DataError(
                f"{place}: label {label!r} has {counts[label]} usable clips{why}; add some (at least {MIN_CLIPS}) or leave the label out"
            )


def _label_of(name: str, several: bool) -> str:
    return same_spelling("".join(name.split("/")[int(several) :][:1]))


def check_speakers(sources: Iterable[Source]) -> None:
    """Raise `DataError` where speakers who are no labels stand in two splits, naming the first with two clips, and others."""
    first: dict[str, Source] = {}
    torn: dict[str, tuple[Source, Source]] = {}
    for source in sources:
        other = first.setdefault(source.speaker, source)
        if source.rule != "label" and other.split != source.split:
            torn.setdefault(source.speaker, (other, source))
    if torn:
        (speaker, (one, two)), *others = torn.items()
        more = f" (and {len(others)} other speakers: {named([name for name, _ in others])})" if others else ""
        raise DataError(
            f"speaker {speaker!r} is in two splits: {printable(one.name)} in {one.split}, {printable(two.name)} in {two.split}{more}; "
            f"mend the split lists or {NAME}, or remove them to use the official rule"
        )


def _label_folders(root: Path) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """Label -> its folders (several where their names differ in Unicode form alone), and sounds and links beside them with the reason why
    they are left out."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; it should hold one folder of sound files per word")
    folders: dict[str, list[Path]] = {}
    skipped: dict[str, str] = {}
    for entry in sorted(entry for entry in root.iterdir() if not entry.name.startswith(("_", "."))):
        if entry.is_dir():
            folders.setdefault(same_spelling(entry.name), []).append(entry)
        elif not entry.exists():
            skipped[entry.name] = "is a broken link"
        elif entry.suffix.lower() in READABLE:
            skipped[entry.name] = "lies in no folder of a label"
    return folders, skipped


def _clips(root: _Root, labels: Sequence[str], skipped: dict[str, str], left_out: list[str]) -> Iterator[tuple[str, Path]]:
    """Label and path of each clip of a root, in order; what cannot be one goes to `skipped`, and its path below the root to `left_out`."""
    for label in labels:
        for folder in root.folders.get(label, ()):
            found = find_sounds(folder)
            others = {relative_name(path, root.path): reason for path, reason in sorted({**found.unusable, **found.others}.items())}
            skipped |= {f"{root.prefix}{name}": reason for name, reason in others.items()}
            left_out += others
            yield from ((label, path) for path in found.sounds)
