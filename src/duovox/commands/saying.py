"""The command `say`. Takes a sentence of words that a voice knows; gives one sound file, and how it was made beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from duovox import __version__
from duovox.commands.options import Sampling, SamplingOptions, open_voice, refuse_existing
from duovox.config import to_dict
from duovox.files import write_whole
from duovox.shipped import DEFAULT_BUNDLE
from duovox.text import printable

if TYPE_CHECKING:
    from duovox.saying import Sentence


def say(
    text: Positional[tuple[str, ...]],
    /,
    out: Path = Path("said.wav"),
    seed: int = 0,
    pause: float = 0.15,
    speaker: str | None = None,
    guide: tuple[str, ...] = (),
    sampling: SamplingOptions = Sampling(),  # noqa: B008 (frozen)
    vocoder: Literal["neural", "griffin_lim"] | None = None,
    bundle: str = DEFAULT_BUNDLE,
    trust_code: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "cpu",
    force: bool = False,
) -> None:
    """Speak several words, one after the other, into one sound file; a JSON file beside it says how it was made.

    Args:
        text: The words, as three 1 4, each one of the bundle's labels or its figure.
        out: The sound file; its suffix chooses the format.
        seed: Seed of all words, which begin with the same noise; one that comes again has seed + 1, ...
        pause: Seconds between two words.
        speaker: A guide that embeds speakers, `speaker` or a folder made by `duovox guide --background ...`, also as speaker:GAMMA: the
            other words are to be by the speaker of the first.
        guide: Guides that steer every word, as in `duovox generate`.
        sampling: Settings of sampling, the bundle's own where left out.
        vocoder: How the mel becomes sound.
        bundle: Name of a bundle in the package, a bundle folder, or a hub id.
        trust_code: Run the code that a bundle or a guide of someone else's classifier names or holds.
        device: Where to compute.
        force: Overwrite files that exist.
    """
    refuse_existing([out, out.with_suffix(".json")], force)
    from duovox.asking import read_guides, split_strength
    from duovox.contracts import GuideError
    from duovox.guide_folder import is_guide, locate_guide, read_guide
    from duovox.saying import say as speak
    from duovox.sound.audio import write_audio

    voice: Any = open_voice(bundle, None, trust_code, device)
    folder, strength = split_strength(speaker) if speaker else ("", {})
    if folder and not is_guide(locate_guide(folder)):
        raise GuideError(
            f"--speaker {speaker!r} is no guide of speakers; take speaker, or --guide speaker-FILE.wav for a voice of your own"
        )
    who = read_guide(folder, trust_code) if folder else None
    steer, settings = read_guides(voice, guide, trust_code), voice.settings(**sampling.given())
    words = " ".join(text)
    said = speak(
        voice, words, seed=seed, pause=pause, speaker=who, speaker_strength=strength, guides=steer, settings=settings, vocoder=vocoder
    )  # fmt: skip
    write_audio(out, said.wave, said.rate, force=force, parents=True)
    story = {"text": words, "pause": pause, **_story(said), "bundle": voice.digest, "duovox": __version__}
    write_whole(out.with_suffix(".json"), (json.dumps(story, indent=2) + "\n").encode(), force=force)
    print(f"{printable(str(out))}: {len(said.clips)} words, {len(said.wave) / said.rate:.2f} s")


def _story(said: Sentence) -> dict[str, Any]:
    """Words, seeds, places and guides of a sentence; the settings they share."""
    words = [
        {
            "label": clip.label,
            "seed": clip.seed,
            "start": round(start, 4),
            "end": round(end, 4),
            "guides": [to_dict(guide) for guide in clip.guides],
            "probabilities": {name: round(p, 6) for name, p in clip.probabilities.items()},
        }
        for clip, (start, end) in zip(said.clips, said.places, strict=True)
    ]
    return {"words": words, "settings": to_dict(said.clips[0].settings), "vocoder": said.clips[0].vocoder}
