"""How guides are asked for in a word: takes texts such as pitch-196Hz:10, gives guides aimed by a voice.

Every command that speaks has them as `--guide`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from duovox.contracts import GuideAt, GuideError, GuideWay, LabelError
from duovox.guide_folder import is_guide, locate_guide
from duovox.sound.audio import READABLE
from duovox.steering import OF_VOICE, ScheduledGuide
from duovox.voice import Duovox

KNOWN = "pitch-196Hz:10, loudness--20dB:1, speaker-FILE.wav:10, own-LABEL:3"
"""How the guides are asked for that need no folder."""

BEST_OF = "best-of-"
"""Begins what says among how many noises a guide chooses."""


@dataclass(frozen=True)
class AskedGuide:
    """A guide as it was asked for, in plain values: its name or folder, and what is wanted of it, a target or the sound `like`. `strength`
    are changes of its own."""

    source: str
    target: str | None = None
    like: str | None = None
    strength: dict[str, Any] = field(default_factory=dict)

    def aimed(self, voice: Duovox, trust_code: bool = False) -> ScheduledGuide:
        """The guide, computing where the voice is. Raises `GuideError`, `LabelError`, `ConfigError`, `AudioError`."""
        return voice.guide(self.source, self.target, like=self.like, trust_code=trust_code, **self.strength)


def read_guides(voice: Duovox, texts: Sequence[str], trust_code: bool) -> list[ScheduledGuide]:
    """The guides that `--guide` names, each as GUIDE-TARGET:GAMMA, where :estimate, :straight and :best-of-16 may follow. Raises
    `GuideError`, `LabelError`, `ConfigError`, `AudioError`."""
    return [guide for _, guide in asked_guides(voice, texts, trust_code)]


def asked_guides(voice: Duovox, texts: Sequence[str], trust_code: bool) -> list[tuple[AskedGuide, ScheduledGuide]]:
    """As `read_guides`, each with what was asked for, its files by their whole paths, so that other processes find the same."""
    found = [_understood(voice, split_guide(text), trust_code) for text in texts]
    return [(_portable(asked), guide) for asked, guide in found]


def _understood(voice: Duovox, asked: AskedGuide, trust_code: bool) -> tuple[AskedGuide, ScheduledGuide]:
    """A target is a label or, where it is none, the path of a sound."""
    try:
        return asked, asked.aimed(voice, trust_code)
    except LabelError:
        if asked.target is None or not Path(asked.target).exists():
            if asked.target is not None and Path(asked.target).suffix.lower() in READABLE:
                raise GuideError(f"the guide {asked.source} cannot be near to {asked.target}: there is no such file") from None
            raise
    near = replace(asked, target=None, like=asked.target)
    return near, near.aimed(voice, trust_code)


def _portable(asked: AskedGuide) -> AskedGuide:
    folder = locate_guide(asked.source)
    named = asked.source in OF_VOICE or folder != Path(asked.source)
    like = asked.like and str(Path(asked.like).absolute())
    return replace(asked, source=asked.source if named else str(folder.absolute()), like=like)


def split_guide(text: str) -> AskedGuide:
    """Guide, target and strength of a text; the guide is the longest start of it that names one. Raises `GuideError`."""
    whole, strength = split_strength(text)
    ends = [len(whole), *(place for place in reversed(range(len(whole))) if whole[place] == "-")]
    for end in ends:
        source, target = whole[:end], whole[end + 1 :]
        if source in OF_VOICE or (source and is_guide(locate_guide(source))):
            return AskedGuide(source, target or None, strength=strength)
    raise GuideError(f"--guide {text!r} names no guide; write GUIDE-TARGET:GAMMA, as {KNOWN}, or a folder made by `duovox guide`")


def split_strength(text: str) -> tuple[str, dict[str, Any]]:
    """A guide without what follows it after colons, gamma, place, way and candidates, and those as changes of its strength. Raises
    `GuideError`."""
    start, colon, end = text.rpartition(":")
    if not colon:
        return text, {}
    change = _one_change(end)
    if change:
        whole, before = split_strength(start)
        return whole, before | change
    try:
        return start, {"gamma": float(end)}
    except ValueError:
        known = ", ".join([*get_args(GuideAt), *get_args(GuideWay), f"{BEST_OF}16"])
        raise GuideError(
            f"--guide {text!r}: {end!r} is no strength; write GUIDE-TARGET:GAMMA, as pitch-196Hz:10, and behind it {known}"
        ) from None


def _one_change(word: str) -> dict[str, Any]:
    """What a word after a colon changes of a guide's strength; nothing where it is a gamma or no such word."""
    number = word.removeprefix(BEST_OF)
    if number != word and number.isdecimal():
        return {"candidates": int(number)}
    return {name: word for name, words in (("at", get_args(GuideAt)), ("way", get_args(GuideWay))) if word in words}
