"""How many clips a general speech recogniser understands that nobody trained on these clips.

    python benchmarks/recogniser.py FOLDER          clips by label: FOLDER/<label>/*.wav (or flac, ogg, opus, mp3)
    python benchmarks/recogniser.py --real 600      real test clips of ../shared/data instead, or of --data

pocketsphinx with the US English model inside its wheel and a grammar of the label words alone: it always chooses one of
them, so chance is 1 in the number of labels. With --words, clips of other labels are left out. Needs `pip install pocketsphinx`.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from duovox.contracts import DataError, DuovoxError
from duovox.data import scan
from duovox.evaluation.recogniser import RATE, Recogniser
from duovox.sound.audio import read_audio
from duovox.sound.folders import find_sounds

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "speech_commands"


def clips_of(folder: Path) -> list[tuple[str, Path]]:
    """(label, path) of every clip in the sub-folders of a folder. Raises `DataError` if there is none."""
    clips = [(path.parent.name, path) for path in find_sounds(folder).sounds if path.parent.parent == folder]
    if not clips:
        raise DataError(f"{folder}: no clips; expected {folder}/<label>/*.wav")
    return clips


def real_clips(data: Path, count: int, seed: int = 0) -> list[tuple[str, Path]]:
    """`count` random clips of the official test split. Raises `DataError`."""
    test = [(source.label, source.path) for source in scan(data).sources if source.split == "test"]
    return [test[i] for i in np.random.default_rng(seed).permutation(len(test))[:count]]


def asked(clips: Sequence[tuple[str, Path]], words: Sequence[str]) -> list[tuple[str, Path]]:
    """The clips that say one of the words; how many do not is told. Raises `DataError` where none does."""
    chosen = [(label, path) for label, path in clips if label in words]
    if not chosen:
        raise DataError(f"no clip says one of {', '.join(words)}")
    if left := len(clips) - len(chosen):
        print(f"{left} clips of other words were left out", file=sys.stderr)
    return chosen


def listen(clips: Sequence[tuple[str, Path]], words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(label, word heard) of each clip."""
    recogniser = Recogniser(words)
    for label, path in clips:
        yield label, recogniser(read_audio(path, RATE))


def table(pairs: Sequence[tuple[str, str]]) -> str:
    """The share understood, per label and in all, as Markdown."""
    said, right = Counter(label for label, _ in pairs), Counter(label for label, heard in pairs if heard == label)
    rows = [f"| {label} | {said[label]} | {right[label] / said[label]:.3f} |" for label in sorted(said)]
    total = f"| all | {len(pairs)} | {sum(right.values()) / len(pairs):.3f} |"
    return "\n".join(["| label | clips | understood |", "|---|---|---|", *rows, total])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="clips by label, one sub-folder each")
    parser.add_argument("--real", type=int, metavar="N", help="hear N real test clips instead of a folder")
    parser.add_argument("--data", type=Path, default=DATA, help="a folder of words, for --real (default: %(default)s)")
    parser.add_argument("--words", help="the words of the grammar, comma-separated (default: the labels of the clips)")
    options = parser.parse_args()
    if (options.folder is None) == (options.real is None):
        parser.error("give either a folder or --real N")
    try:
        clips = real_clips(options.data, options.real) if options.real else clips_of(options.folder)
        words = options.words.split(",") if options.words else sorted({label for label, _ in clips})
        print(table(list(listen(asked(clips, words), words))))
    except DuovoxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
