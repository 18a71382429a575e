"""Sentences: takes a voice and words, gives one wave in which they follow each other, by one speaker where a speaker guide is given.

Each word is a clip of its own, and all begin with the same noise, which decides much of who speaks. What is quiet at the ends of a clip is
cut, and the ends are faded, so that nothing clicks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duovox.clip import refuse_faulty
from duovox.config import GuideStrength, SampleConfig
from duovox.contracts import ConfigError, GenerationError, LabelError
from duovox.guide_folder import GuideNetwork
from duovox.sound.placing import speech_bounds
from duovox.steering import ScheduledGuide, likened
from duovox.voice import Clip, Duovox, VocoderName

WORD_DB = 30.0
"""A word is what lies within so many dB of its clip's loudest frame: generated clips have a floor, as the recordings they learned from."""

FADE_SECONDS = 0.005

LONGEST_PAUSE = 10.0

FIRMER, WIDER = 4.0, 1.5
"""How many times a speaker guide's own gamma and cap it is given here: what begins alike can be pushed harder than a clip towards a
stranger without losing its word (docs/results/guides.md)."""

FIRST_CLIP = "the first word"
"""The label of a speaker guide that wants what the sentence began with."""


@dataclass(frozen=True)
class Sentence:
    """Words that follow each other: the wave (S,) in [-1, 1] at `rate` Hz, the clips they were cut from, where each stands (seconds)."""

    wave: NDArray[np.float32] = field(repr=False)
    rate: int
    clips: tuple[Clip, ...]
    places: tuple[tuple[float, float], ...]


def say(
    voice: Duovox,
    text: str,
    *,
    seed: int = 0,
    pause: float = 0.15,
    speaker: GuideNetwork | None = None,
    speaker_strength: Mapping[str, Any] | None = None,
    guides: Sequence[ScheduledGuide] = (),
    settings: SampleConfig | None = None,
    vocoder: VocoderName | None = None,
    batch: int = 8,
) -> Sentence:
    """The words of `text` (see `read_words`), with `pause` seconds between them. All have the seed `seed`, so that they begin with the same
    noise, where `guides` choose, with the one of the seed that suits all words best; a word that comes again has seed + 1, and so on.

    `speaker` is an embedding guide (`duovox.make_embedding_guide`): all words but the first are guided towards the first, and away from its
    background, as `firmly` says but for `speaker_strength` (as in `Duovox.guide`). Raises `LabelError` with the place of a word the voice
    does not know, `ConfigError`, `GuideError`, and `GenerationError`, also for clips that ran off.
    """
    if not 0 <= pause <= LONGEST_PAUSE:
        raise ConfigError(f"the pause must lie between 0 and {LONGEST_PAUSE:g} seconds, not {pause:g}")
    words = read_words(text, voice)
    wanted = [(word, seed + words[:place].count(word)) for place, word in enumerate(words)]
    chosen = voice.settings(settings)
    make = partial(_clips, voice, settings=chosen, vocoder=vocoder, batch=batch)
    starts = voice.shared_starts(wanted, chosen, guides) or [0] * len(wanted)
    (first, *others), rest = wanted, starts[1:]
    clips = make([first], starts[:1], guides=guides)
    if speaker is not None and others:
        reference = likened(speaker, {FIRST_CLIP: [clips[0].wave]}, voice.bundle)
        like_first = voice.guide(reference, FIRST_CLIP, **firmly(speaker.config.strength) | dict(speaker_strength or {}))
        guides = [*guides, like_first]
        if like_first.record.strength.candidates > 1:  # asked for: it leaves the noise of the first word
            rest = voice.shared_starts(others, chosen, guides) or rest
    return joined(clips + make(others, rest, guides=guides), pause)


def firmly(own: GuideStrength) -> dict[str, Any]:
    """How a guide of this strength leads the words of a sentence: harder (`FIRMER`, `WIDER`), and from the noise that they share."""
    return {"gamma": FIRMER * own.gamma, "cap": WIDER * own.cap, "candidates": 1}


def read_words(text: str, voice: Duovox) -> list[str]:
    """The labels that a sentence names: words and figures, apart by spaces or punctuation; 31 is two figures unless it is a label. Raises
    `LabelError` with the place of one that the voice does not know, `GenerationError` where there is none."""
    parts = [part for part in re.split(r"[\s,;.!?]+", text) if part]
    words = [one for part in parts for one in (part if part.isdecimal() and part not in voice.labels else [part])]
    if not words:
        raise GenerationError("there is nothing to say; give words that the voice knows, as 'three 1 4'")
    return [_known(word, place, voice) for place, word in enumerate(words, 1)]


def _known(word: str, place: int, voice: Duovox) -> str:
    try:
        return voice.resolve_label(word)
    except LabelError as error:
        raise LabelError(f"word {place} of the sentence: {error}") from None


def _clips(
    voice: Duovox,
    wanted: Sequence[tuple[str, int]],
    starts: Sequence[int],
    settings: SampleConfig,
    vocoder: VocoderName | None,
    guides: Sequence[ScheduledGuide],
    batch: int,
) -> list[Clip]:
    parts = [slice(begin, begin + batch) for begin in range(0, len(wanted), batch)]
    clips = [clip for part in parts for clip in voice.generate_batch(wanted[part], settings, vocoder, None, guides, starts[part])]
    refuse_faulty(clips)
    return clips


def joined(clips: Sequence[Clip], pause: float) -> Sentence:
    """The clips without their quiet ends, one after the other."""
    rate = clips[0].rate
    words = [trimmed(clip.wave, rate) for clip in clips]
    gap = round(pause * rate)
    starts = np.cumsum([0, *(len(word) + gap for word in words)])
    silence = np.zeros(gap, np.float32)
    parts = [part for word in words for part in (word, silence)][:-1]
    places = tuple((float(start) / rate, float(end - gap) / rate) for start, end in pairwise(starts))
    return Sentence(np.concatenate(parts), rate, tuple(clips), places)


def trimmed(wave: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """The word of a clip (S,), both ends faded to nothing."""
    first, last = speech_bounds(wave.astype(np.float64), WORD_DB)
    word = wave[first:last].copy()
    fade = min(round(FADE_SECONDS * rate), len(word) // 2)
    slope = (0.5 - 0.5 * np.cos(np.pi * np.arange(fade) / fade)).astype(np.float32) if fade else np.zeros(0, np.float32)
    word[:fade] *= slope
    word[len(word) - fade :] *= slope[::-1]
    return word
