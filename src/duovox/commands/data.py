"""The commands that get and decode recordings: `data fetch`, `data prepare`. Take a name or a folder; give feature folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from duovox.config import read_recipe
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
    root: Positional[Path],
    /,
    out: Path,
    labels: str | None = None,
    recipe: str = "compact",
    workers: int | None = None,
    force: bool = False,
) -> None:
    """Decode a folder of words (<root>/<label>/*.wav ...) or Speech Commands once into a feature folder.

    Args:
        root: The data set.
        out: The feature folder to write; left as it is where it is up to date.
        labels: Which words: `sc09`, or names separated by commas. All sub-folders if left out.
        recipe: Name or file of the recipe whose mel settings to use.
        workers: Decoding processes; one for each usable core if left out.
        force: Build again even if up to date.
    """
    from duovox.data import prepare as prepare_data

    manifest = prepare_data(root, out, read_recipe(recipe).mel, labels, force, workers=workers)
    print(f"{'label':12}" + "".join(f"{split:>12}" for split in ("train", "validation", "test")))
    for label, counts in manifest.counts.items():
        print(f"{label:12}" + "".join(f"{counts.get(split, 0):>12}" for split in ("train", "validation", "test")))
    for note in manifest.notes:
        print(f"note: {note}")
    for name, reason in list(manifest.skipped.items())[:SHOWN]:
        print(f"skipped {printable(name)}: {reason}")
    if len(manifest.skipped) > SHOWN:
        print(f"... and {len(manifest.skipped) - SHOWN} more, all in {out / 'manifest.json'}; by reason:")
        for reason, count in _by_reason(manifest.skipped.values()):
            print(f"{count:>12} {reason}")


def _by_reason(reasons: Iterable[str]) -> list[tuple[str, int]]:
    """How often each reason, the details in its brackets apart, the most frequent first."""
    return Counter(reason.split(" (")[0] for reason in reasons).most_common()
