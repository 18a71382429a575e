"""Real test clips through the vocoder and back, as a folder that `duovox evaluate` and the other benchmarks read.

python benchmarks/copy_synthesis.py FEATURES OUT --per-label 50 --vocoder neural      # also: griffin_lim, or none for the clips themselves
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from tqdm import tqdm
from tyro.conf import Positional

from duovox import Duovox
from duovox.data import Features, open_features
from duovox.files import safe_name
from duovox.sound.audio import write_audio
from duovox.sound.mel import LogMel


def main(
    features: Positional[Path],
    out: Positional[Path],
    n: int = 600,
    per_label: int | None = None,
    vocoder: Literal["neural", "griffin_lim", "none"] = "neural",
    bundle: str = "sc06",
    seed: int = 0,
) -> None:
    """Write n test clips, or so many of each label, drawn with `seed`, to <out>/<label>/<number>.wav."""
    voice, data = Duovox.from_pretrained(bundle), open_features(features)
    log_mel = LogMel(data.mel)
    for index in tqdm(np.sort(drawn(data, n, per_label, seed))):
        wave = torch.from_numpy(data.waves[index].astype(np.float32) / 32768)[None]
        with torch.no_grad():
            spoken = wave if vocoder == "none" else voice.vocode(log_mel(wave), vocoder)
        path = out / safe_name(data.labels[data.label[index]]) / f"{index}.wav"
        write_audio(path, spoken[0].numpy(), data.mel.sample_rate, force=True, parents=True)


def drawn(data: Features, n: int, per_label: int | None, seed: int) -> NDArray[np.int64]:
    """n test clips, or `per_label` of each label (all, of a label that has fewer)."""
    clips = np.random.default_rng(seed).permutation(data.indices("test"))
    if per_label is None:
        return clips[:n]
    return np.concatenate([clips[data.label[clips] == label][:per_label] for label in range(len(data.labels))])


if __name__ == "__main__":
    tyro.cli(main)
