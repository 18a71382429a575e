"""What must not change by accident: clips of given seeds, names of the tensors in bundles and runs, help texts, the OpenAPI.

What was recorded lies in tests/pinned. `python tests/test_pinned.py` records it anew: look at the difference before you commit it.
"""

from __future__ import annotations

import contextlib
import io
import json
import platform
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from duovox import Duovox

FOLDER = Path(__file__).parent / "pinned"
COMMANDS = (
    "generate",
    "classify",
    "data prepare",
    "data fetch",
    "data respeak",
    "dataset",
    "train",
    "bundle",
    "calibrate",
    "taps",
    "repurpose",
    "guide",
    "say",
    "evaluate",
)
COMMANDS += ("experiment", "judge", "inspect", "export", "serve", "solve", "bench", "")
CASES: dict[str, tuple[str | None, dict[str, object]]] = {
    "three, the first settings": ("three", {"steps": 4}),
    "zero, no guidance": ("zero", {"steps": 4, "gamma": 0.0}),
    "one, DPM-Solver++": ("one", {"steps": 5, "sampler": "dpmpp_2m"}),
    "two, Euler-Maruyama": ("two", {"steps": 6, "sampler": "euler_maruyama"}),
    "four, an interval": ("four", {"steps": 4, "interval": (0.2, 10.0)}),
    "five, early": ("five", {"steps": 4, "schedule": "early"}),
    "three, late, another gamma": ("three", {"steps": 4, "schedule": "late", "gamma": 1.5}),
    "one, at the estimate": ("one", {"steps": 4, "guide_at": "estimate"}),
    "no label": (None, {"steps": 4}),
}
"""What is asked of the shipped bundle: label and settings, seeds 7 and 8 each."""


ROUNDING, ROUNDING_AT_THE_ESTIMATE = 1e-4, 1e-3
"""How far a log-mel may lie from the recorded one on the same processor, where only the order of sums changed (the layout of memory, say):
in float64 the same clips lie 1e-4 from either, and 9e-4 where the gradient goes through the denoiser."""


def processor() -> str:
    """What decides the last bits of a clip: the processor and torch's version."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"


def small_voices() -> Iterator[tuple[str, Duovox]]:
    """Voices with random weights: the two-model baseline, and a classifier made elsewhere that takes another mel."""
    from conftest import awaken
    from torch import nn

    from duovox import MelInput, repurpose
    from duovox.bundle import FORMAT, Bundle, BundleConfig
    from duovox.config import EncoderConfig, MelScale, Recipe, SubnetConfig, UNetConfig
    from duovox.model import build_classifier, build_model

    small = {"widths": (8, 12), "blocks": 1, "embedding": 16, "group_size": 4}
    recipe = Recipe(
        "small",
        classifier=EncoderConfig(bottleneck_blocks=1, **small),  # type: ignore[arg-type]
        subnet=SubnetConfig(fusion="concat", gradient_taps="label", **small),  # type: ignore[arg-type]
        unet=UNetConfig(up_widths=(8, 12), bottleneck_blocks=1, **small),  # type: ignore[arg-type]
    )
    labels, scale = ("yes", "no", "stop"), MelScale("standard", -5.0, 4.0)

    def voice(recipe: Recipe, classifier: nn.Module) -> Duovox:
        torch.manual_seed(3)
        model = build_model(recipe, classifier)  # type: ignore[arg-type]
        awaken(model.score_network, 5)
        return Duovox(Bundle(BundleConfig(FORMAT, labels, recipe, scale), model.eval().requires_grad_(False), None))

    torch.manual_seed(2)
    ours = build_classifier(recipe, 3)
    awaken(ours, 4)
    yield "the U-Net", voice(replace(recipe, score_model="unet"), ours)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 3),
    ).eval()
    made = repurpose(network, labels, MelInput(n_mels=64, filters="htk"), recipe=recipe)
    made.classifier.scale = scale
    yield "a foreign classifier", voice(made.recipe, made.classifier)


def sampled(voice: Duovox, label: str | None, settings: dict[str, object]) -> NDArray[np.float32]:
    """Log-mels (2, M, T) of seeds 7 and 8, whether or not so few steps make speech of them."""
    mels = voice.sample_mels(label, [7, 8], voice.settings(**{"sampler": "heun", "last_sigma": 0.0, **settings}))
    return voice.log_mels(mels)[:, 0].numpy()


def log_mels() -> dict[str, NDArray[np.float32]]:
    """The log-mels (2, M, T) of every case."""

    torch.set_num_threads(1)
    voice, found = Duovox.from_pretrained("sc06"), {}
    for name, (label, settings) in CASES.items():
        found[name] = sampled(voice, label, settings)
    for name, other in small_voices():
        for label in ("no", None):
            found[f"{name}, {label}"] = sampled(other, label, {"steps": 4, "gamma": 1.0})
    return found


def tensor_names() -> dict[str, list[str]]:
    """The tensors of the shipped files, by file: name, type and shape."""
    from safetensors import safe_open

    import duovox

    root, found = Path(duovox.__file__).parent, {}
    for path in sorted(root.rglob("*.safetensors")):
        with safe_open(path, "pt") as file:
            names = sorted(file.keys())
            found[str(path.relative_to(root))] = [
                f"{name} {file.get_slice(name).get_dtype()} {file.get_slice(name).get_shape()}" for name in names
            ]
    return found


def help_text(command: str) -> str:
    """What `duovox COMMAND --help` prints, in 100 columns without colours."""
    from duovox.cli import main

    text = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        patch.setenv("COLUMNS", "100")
        patch.setenv("NO_COLOR", "1")
        main([*command.split(), "--help"])
    return re.sub(r"\x1b\[[0-9;]*m", "", text.getvalue())


def openapi() -> dict[str, object]:
    """The description that the server gives of itself."""
    from duovox.serve.app import create_app
    from duovox.serve.settings import ServeConfig

    def nobody() -> Duovox:
        raise AssertionError("the description needs no voice")

    return dict(create_app(nobody, ServeConfig()).openapi())


def recorded(name: str) -> object:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def test_the_same_seeds_give_the_same_clips() -> None:
    now = log_mels()
    with np.load(FOLDER / "log_mels.npz") as before:
        same_machine = str(before["processor"]) == processor()
        wanted = {name: before[name] for name in before.files if name != "processor"}
    assert now.keys() == wanted.keys()
    for name, values in now.items():
        rounding = ROUNDING_AT_THE_ESTIMATE if "estimate" in name else ROUNDING
        assert np.abs(values - wanted[name]).max() <= (rounding if same_machine else 0.05), name


def test_the_shipped_files_hold_the_same_tensors() -> None:
    assert tensor_names() == recorded("tensors.json")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_says_the_same(command: str) -> None:
    assert help_text(command) == recorded("help.json")[command]  # type: ignore[index]


def test_the_server_describes_itself_as_before() -> None:
    assert openapi() == recorded("openapi.json")


if __name__ == "__main__":
    np.savez_compressed(FOLDER / "log_mels.npz", processor=np.array(processor()), **log_mels())
    for file, value in (
        ("tensors.json", tensor_names()),
        ("help.json", {command: help_text(command) for command in COMMANDS}),
        ("openapi.json", openapi()),
    ):
        (FOLDER / file).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
