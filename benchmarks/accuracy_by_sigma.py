"""The classifier's accuracy at each noise level, on the official test split: a table and docs/images/accuracy_by_sigma.svg.

python benchmarks/accuracy_by_sigma.py FEATURES OUT.svg      # needs matplotlib: pip install -e '.[plots]'
"""

from pathlib import Path

import matplotlib as mpl
import torch
import tyro
from tyro.conf import Positional

from duovox import Duovox
from duovox.data import open_features
from duovox.training.classifier import REPORT_SIGMAS, accuracy_by_sigma

mpl.use("svg")
from matplotlib import pyplot as plt


def main(features: Positional[Path], out: Positional[Path], bundle: str = "sc06") -> None:
    """Measure, print a Markdown table, draw."""
    voice, data = Duovox.from_pretrained(bundle), open_features(features)
    config = voice.config
    table = accuracy_by_sigma(voice.bundle.model.classifier, data, "test", config.mel_scale, config.recipe.noise, torch.device("cpu"))
    print("| sigma | " + " | ".join(f"{sigma:g}" for sigma in REPORT_SIGMAS) + " |")
    print("|---" * (1 + len(REPORT_SIGMAS)) + "|")
    print("| accuracy | " + " | ".join(f"{value:.3f}" for value in table) + " |")
    draw(table, 1 / len(config.labels), len(data.indices("test")), out)


def draw(table: list[float], chance: float, count: int, out: Path) -> None:
    """Accuracy against sigma on a logarithmic axis, clean at the left end."""
    mpl.rcParams["svg.hashsalt"] = "duovox"
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    places = [REPORT_SIGMAS[1] / 2, *REPORT_SIGMAS[1:]]
    axes.plot(places, table, "o-", color="#9f2a63")
    axes.axhline(chance, color="#888888", linestyle=":", label="chance")
    axes.set_xscale("log")
    axes.set_xticks(places, ["clean", *(f"{sigma:g}" for sigma in REPORT_SIGMAS[1:])])
    axes.minorticks_off()
    axes.set(
        xlabel="noise level sigma (mel has standard deviation 0.5)", ylabel="accuracy", ylim=(0, 1.02), title=f"test split, n = {count}"
    )
    axes.legend(frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    tyro.cli(main)
