"""Speech quality without a reference: the mean DNSMOS of a folder of clips, or of real test clips.

    python benchmarks/dnsmos.py FOLDER              every sound file below FOLDER
    python benchmarks/dnsmos.py --real 200          real test clips of ../shared/data instead, or of --data

OVRL, SIG and BAK (1 to 5) of Reddy et al. 2022 (arXiv 2110.01763), by the models inside the package speechmos; needs
`pip install 'duovox[quality]'`. The model hears 9 s, so shorter clips are repeated, as speechmos does, and score low:
compare with the real clips, don't quote alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from duovox.contracts import DataError, DuovoxError
from duovox.data import scan
from duovox.evaluation.quality import repeated
from duovox.sound.audio import read_audio
from duovox.sound.folders import find_sounds

RATE = 16000
DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "speech_commands"
SCALES = ("ovrl_mos", "sig_mos", "bak_mos")


def scores(paths: Iterable[Path]) -> NDArray[np.float64]:
    """OVRL, SIG and BAK of each clip, (N, 3)."""
    from speechmos import dnsmos

    results = [dnsmos.run(repeated(np.clip(read_audio(path, RATE), -1, 1)), sr=RATE) for path in paths]
    return np.array([[result[scale] for scale in SCALES] for result in results])


def clips_of(folder: Path) -> list[Path]:
    """Every sound file below a folder, hidden ones apart. Raises `DataError` if there is none."""
    clips = list(find_sounds(folder).sounds)
    if not clips:
        raise DataError(f"{folder}: no sound files")
    return clips


def real_clips(data: Path, count: int, seed: int = 0) -> list[Path]:
    """`count` random clips of the official test split. Raises `DataError`."""
    test = [source.path for source in scan(data).sources if source.split == "test"]
    return [test[i] for i in np.random.default_rng(seed).permutation(len(test))[:count]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="a folder of clips")
    parser.add_argument("--real", type=int, metavar="N", help="score N real test clips instead of a folder")
    parser.add_argument("--data", type=Path, default=DATA, help="a folder of words, for --real (default: %(default)s)")
    options = parser.parse_args()
    if (options.folder is None) == (options.real is None):
        parser.error("give either a folder or --real N")
    try:
        values = scores(real_clips(options.data, options.real) if options.real else clips_of(options.folder))
    except DuovoxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    margins = 1.96 * values.std(axis=0) / np.sqrt(len(values))
    print("| scale | clips | mean | 95 % |\n|---|---|---|---|")
    for name, mean, margin in zip(("OVRL", "SIG", "BAK"), values.mean(axis=0), margins, strict=True):
        print(f"| {name} | {len(values)} | {mean:.3f} | ± {margin:.3f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
