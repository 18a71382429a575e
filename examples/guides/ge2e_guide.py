"""GE2E (Wan et al. 2018, arXiv 1710.10467) as a guide towards a voice: its encoder, with the weights that the package Resemblyzer carries.

pip install --no-deps Resemblyzer                      # Apache licence 2.0; of the package the weights alone are used
python examples/guides/ge2e_guide.py --background others --out ge2e
duovox generate three --guide ge2e-ann.wav:10 --trust-code --out like_ann.wav
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tyro
from package_weights import read_weights, run
from torch import Tensor, nn
from torch.nn import functional as F

from duovox import MelInput, make_embedding_guide
from duovox.classifiers.network_files import fill
from duovox.data import open_features
from duovox.repurposing.guide_making import one_of_each
from duovox.sound.folders import sounds_of

MEL = MelInput(n_fft=400, win_length=400, hop_length=160, n_mels=40, frames=101, power=2, log="none", floor=1e-10, layout="BTM")
"""What the encoder hears: mels of the power, not of its logarithm."""

LEVEL = 0.0093
"""The mean of such a mel of a second of speech at -30 dB of full scale (400 clips), to which Resemblyzer brings what it hears."""


class GE2E(nn.Module):
    """GE2E's encoder: mels (B, T, 40) of any loudness -> embeddings (B, 256) of length 1; layers are called as in Resemblyzer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, num_layers=3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mels: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(levelled(mels))
        return F.normalize(F.relu(self.linear(hidden[-1])), dim=1, eps=1e-6)


def levelled(mels: Tensor) -> Tensor:
    """The mels (B, T, M) as of speech at the level that the encoder knows."""
    return mels * (LEVEL / mels.mean(dim=(1, 2), keepdim=True).clamp(min=1e-9))


def ge2e() -> nn.Module:
    """GE2E's encoder with its own weights. Raises `ConfigError` where Resemblyzer is not installed."""
    network = GE2E()
    state = read_weights("resemblyzer", "pretrained.pt").get("model_state", {})
    fill(network, {name: state[name] for name in network.state_dict() if name in state}, "Resemblyzer's file")  # the others are of its loss
    return network.eval()


def sounds_in(background: Path) -> list[Any]:
    """All sound files of a folder; of a feature folder a clip of each speaker."""
    return one_of_each(open_features(background)) if (background / "manifest.json").is_file() else list(sounds_of(background))


def main(background: Path, out: Path, force: bool = False) -> None:
    """Write the guide: a folder of that name, which needs Resemblyzer no more.

    Args:
        background: Folder of sounds of other speakers, whom the wanted voice is told from; or a feature folder of `duovox data prepare`.
        out: Folder for the guide; its name is what the guide is called.
        force: Overwrite a guide that exists.
    """
    make_embedding_guide(ge2e(), {}, sounds_in(background), MEL, name=out.name).write(out, force)
    print(f"{out}: duovox generate three --guide {out}-FILE.wav:10 --trust-code --out like.wav")


if __name__ == "__main__":
    run(lambda: tyro.cli(main))
