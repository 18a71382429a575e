"""The commands that get and decode recordings: `data fetch`, `data prepare`. Take a name or a folder; give feature folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from duovox.config import read_recipe
from duovox.shipped import DEFAULT_BUNDLE
from duovox.text import printable

SHOWN = 10
"""Files left out that are named one by one."""


def fetch(name: Positional[Literal["sc09", "speech_commands_v0.01", "speech_commands_v0.02"]], /, out: Path = Path("data")) -> None:
    """Download an official data set, check its digest and unpack it; an interrupted download goes on where it stopped.

    Args:
        name: Which data set; sc09 is the ten digits of Speech Commands v0.01.
        out: Folder to unpack into.
    """
    from duovox.data.fetch import fetch as fetch_data

    print(fetch_data(name, out))


def prepare(
    roots: Positional[tuple[Path, ...]],
    /,
    out: Path,
    labels: str | None = None,
    speaker: str | None = None,
    test_speakers: str = "",
    validation_speakers: str = "",
    languages: str | None = None,
    labels_are_speakers: bool = False,
    place: bool = False,
    recipe: str = "compact",
    workers: int | None = None,
    force: bool = False,
) -> None:
    """Decode folders of words (<root>/<label>/*.wav ...) or Speech Commands once into a feature folder.

    Several folders become one data set: labels of one name are merged, each keeps its split lists and its table. No speaker is in two
    splits; who speaks a clip is told by the first of: speakers.csv in its folder (columns path, speaker, and if you like split and
    language), --speaker, a name with _nohash_, a folder <label>/<speaker>.

    Args:
        roots: The data sets.
        out: The feature folder to write; left as it is where it is up to date.
        labels: Which words: `sc09`, or names separated by commas. All sub-folders if left out.
        speaker: A regular expression with one group, the speaker, searched in the path below the root, as 'speaker-(\\d+)'.
        test_speakers: Speakers to hold out for the test, separated by commas. The others of the same folders are for training.
        validation_speakers: Speakers to hold out for validation.
        languages: The language of the words as a code, such as en: one for all folders, or one for each, separated by commas.
        labels_are_speakers: The folders are speakers, not words: each is in every split, which is by clip, and the manifest says so.
        place: Put a clip shorter than a second at a drawn place, among noise like its own floor, in the place of silence at its end.
        recipe: Name or file of the recipe whose mel settings to use.
        workers: Decoding processes; one for each usable core if left out.
        force: Build again even if up to date.
    """
    from duovox.data import Held, SpeakerOptions
    from duovox.data import prepare as prepare_data
    from duovox.labels import shown

    codes = () if languages is None else tuple(code.strip() for code in languages.split(","))
    options = SpeakerOptions(speaker, Held.of(test_speakers, validation_speakers), codes, labels_are_speakers)
    manifest = prepare_data(roots, out, read_recipe(recipe).mel, labels, force, workers=workers, speakers=options, placed=place)
    print(f"{'label':12}" + "".join(f"{split:>12}" for split in ("train", "validation", "test")))
    for label, counts in manifest.counts.items():
        print(
            f"{shown(label, manifest.languages):12}" + "".join(f"{counts.get(split, 0):>12}" for split in ("train", "validation", "test"))
        )
    for note in manifest.notes:
        print(f"note: {note}")
    for name, reason in list(manifest.skipped.items())[:SHOWN]:
        print(f"skipped {printable(name)}: {reason}")
    if len(manifest.skipped) > SHOWN:
        print(f"... and {len(manifest.skipped) - SHOWN} more, all in {out / 'manifest.json'}; by reason:")
        for reason, count in _by_reason(manifest.skipped.values()):
            print(f"{count:>12} {reason}")


def respeak(
    source: Positional[Path],
    /,
    out: Path,
    bundle: str = DEFAULT_BUNDLE,
    sigma: float = 0.5,
    clips: int | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
) -> None:
    """Make a feature folder of the same recordings with log-mels as a voice would say them: noised, and sampled back.

    A vocoder trained on it (`duovox train vocoder --data OUT --init BUNDLE`) learns to make clean sound of what the voice makes.

    Args:
        source: Feature folder made by `duovox data prepare`.
        out: The feature folder to write; left as it is where it is up to date.
        bundle: The voice: name of a bundle in the package, a bundle folder, or a hub id.
        sigma: Noise level to go back from: what is finer is the voice's own.
        clips: Only so many train clips, evenly spread, and as large a share of the others.
        device: Where to compute; auto takes CUDA where there is one.
        precision: Arithmetic; auto takes bf16 where the hardware is fast at it.
    """
    from duovox.devices import choose_device
    from duovox.respeaking import respeak as say_again
    from duovox.voice import Duovox

    chosen = choose_device(device)
    voice = Duovox.from_pretrained(bundle).to(chosen, precision)
    made = say_again(voice, source, out, sigma, clips)
    print(f"{out}: {len(made.stems)} clips, {made.notes[-1]}")


def _by_reason(reasons: Iterable[str]) -> list[tuple[str, int]]:
    """How often each reason, the details in its brackets apart, the most frequent first."""
    return Counter(reason.split(" (")[0] for reason in reasons).most_common()
