"""The spectrogram sheet of the README. Rows: real test clips, the same through the vocoder, unconditional, guided, guided again.

    python benchmarks/sheet.py FEATURES docs/images/sheet.png

Every row is the log-mel of the finished sound, not of what went into the vocoder.
"""

from pathlib import Path

import numpy as np
import torch
import tyro
from tyro.conf import Positional

from duovox import Duovox
from duovox.data import open_features
from duovox.files import write_whole
from duovox.sound.mel import LogMel
from duovox.sound.picture import sheet


def main(features: Positional[Path], out: Positional[Path], bundle: str = "sc06", seed: int = 0, real: int = 10, zoom: int = 2) -> None:
    """Draw the sheet; `real` says which test clip of each label to show."""
    voice, data = Duovox.from_pretrained(bundle), open_features(features)
    log_mel = LogMel(data.mel)
    test = data.indices("test")
    chosen = [test[data.label[test] == label][real] for label in range(len(data.labels))]
    waves = torch.from_numpy(data.waves[chosen].astype(np.float32) / 32768)
    with torch.no_grad():
        rows = [waves, voice.vocode(log_mel(waves))]
        rows.append(torch.from_numpy(np.stack([clip.wave for clip in voice.generate(None, len(data.labels), seed=seed)])))
        for number in (seed, seed + 1):
            clips = [voice.generate(label, seed=number)[0].wave for label in data.labels]
            rows.append(torch.from_numpy(np.stack(clips)))
        pictures = [list(log_mel(row)[:, 0].numpy()) for row in rows]
    write_whole(out, sheet(pictures, zoom), force=True, parents=True)


if __name__ == "__main__":
    tyro.cli(main)
