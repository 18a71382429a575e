"""Real test clips through the vocoder and back, as a folder that `duovox evaluate` and the other benchmarks read.

python benchmarks/copy_synthesis.py FEATURES OUT --n 600 --vocoder neural      # also: griffin_lim, or none for the clips themselves
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from tqdm import tqdm
from tyro.conf import Positional

from duovox import Duovox
from duovox.data import open_features
from duovox.sound.audio import write_audio
from duovox.sound.mel import LogMel


def main(
    features: Positional[Path],
    out: Positional[Path],
    n: int = 600,
    vocoder: Literal["neural", "griffin_lim", "none"] = "neural",
    bundle: str = "sc06",
    seed: int = 0,
) -> None:
    """Write n test clips, drawn with `seed`, to <out>/<label>/<number>.wav."""
    voice, data = Duovox.from_pretrained(bundle), open_features(features)
    log_mel = LogMel(data.mel)
    for index in tqdm(np.sort(np.random.default_rng(seed).permutation(data.indices("test"))[:n])):
        wave = torch.from_numpy(data.waves[index].astype(np.float32) / 32768)[None]
        with torch.no_grad():
            spoken = wave if vocoder == "none" else voice.vocode(log_mel(wave), vocoder)
        path = out / data.labels[data.label[index]] / f"{index}.wav"
        write_audio(path, spoken[0].numpy(), data.mel.sample_rate, force=True, parents=True)


if __name__ == "__main__":
    tyro.cli(main)
