"""Which split a clip is in, so that no speaker is in two: takes clips with their speakers, gives a split for each to `sources`.

The first of these that says something: the speakers named for test and validation (then all others of a root with such a speaker
are for training); the clip's row in `speakers.csv`; the split lists; what another clip of the speaker has; the official rule.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from duovox.contracts import DataError
from duovox.data.lists import Split
from duovox.data.speakers import speaker_of
from duovox.text import named, same_spelling

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_HASHES = 2**27  # MAX_NUM_WAVS_PER_CLASS + 1


@dataclass(frozen=True)
class Held:
    """The speakers that are held out by name."""

    test: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for kind in ("test", "validation"):
            if any(not name for name in getattr(self, kind)):
                raise DataError(f"the {kind} speakers hold an empty name; separate names by single commas")
        if both := sorted({*self.test} & {*self.validation}):
            raise DataError(f"speakers named for both test and validation: {named(both)}; name each once")

    @classmethod
    def of(cls, test: str | Iterable[str] = (), validation: str | Iterable[str] = ()) -> Held:
        """From names, or names separated by commas."""
        return cls(_names(test), _names(validation))

    def among(self, speakers: Collection[str]) -> dict[str, Split]:
        """The split of each speaker who is named, by the full name or by what stands behind the root's (`anna` for `words/anna`).
        Raises `DataError` for a name that nobody has."""
        found: dict[str, Split] = {}
        for split, names in (("test", self.test), ("validation", self.validation)):
            for name in names:
                meant = [speaker for speaker in speakers if name in (speaker, speaker.partition("/")[2])]
                if not meant:
                    near = difflib.get_close_matches(name, speakers, 3) or sorted(speakers)
                    raise DataError(f"no clip is of the {split} speaker {name!r}; there are {named(near, 12)}")
                found |= dict.fromkeys(meant, split)  # type: ignore[arg-type]
        return found


@dataclass(frozen=True)
class Voice:
    """What decides the split of a clip: the number of its root, its speaker, and the split that table or lists give it, if they do."""

    root: int
    speaker: str
    given: Split | None


def _names(given: str | Iterable[str]) -> tuple[str, ...]:
    names = given.split(",") if isinstance(given, str) and given.strip() else () if isinstance(given, str) else given
    return tuple(same_spelling(name.strip()) for name in names)


def which_split(stem: str) -> Split:
    """The official rule: SHA-1 of the speaker, 10 % validation, 10 % test (`which_set` in the data set's README)."""
    number = int(hashlib.sha1(speaker_of(stem).encode(errors="surrogateescape"), usedforsecurity=False).hexdigest(), 16)
    percent = number % _HASHES * (100 / (_HASHES - 1))
    return "validation" if percent < 10 else "test" if percent < 20 else "train"


def assign(clips: Sequence[Voice], held: Held) -> tuple[list[Split], set[int]]:
    """The split of every clip, and the roots whose speakers `held` decides. Raises `DataError` as `Held.among` does."""
    by_name = held.among({clip.speaker for clip in clips}) if held.test or held.validation else {}
    decided = {clip.root for clip in clips if clip.speaker in by_name}
    settled: dict[str, Split] = {clip.speaker: clip.given for clip in reversed(clips) if clip.given}
    beside: dict[str, Split] = dict.fromkeys((clip.speaker for clip in clips if clip.root in decided), "train")
    settled |= beside | by_name
    return [_split(clip, decided, settled) for clip in clips], decided


def _split(clip: Voice, decided: set[int], settled: dict[str, Split]) -> Split:
    given = None if clip.root in decided else clip.given
    return given or settled.get(clip.speaker) or which_split(clip.speaker)
