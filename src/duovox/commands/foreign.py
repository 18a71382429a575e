"""The commands for classifiers made elsewhere: `taps`, `repurpose`. Take a network; give a list of its layers, and a run to train on."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from duovox.config import read_input
from duovox.contracts import ConfigError, DuovoxError
from duovox.shipped import DEFAULT_BUNDLE

if TYPE_CHECKING:
    from duovox.repurposing import Repurposed

IN_THE_SHELL = {"labels": "--labels", "features": "--takes", "output": "--output", "taps": "--taps", "vocoder": "--vocoder"}
"""What arguments of `duovox.repurpose` are called on the command line."""


def taps(
    source: Positional[str],
    /,
    weights: Path | None = None,
    arguments: str = "{}",
    takes: str | None = None,
    output: str = "",
    output_kind: Literal["auto", "logits", "probabilities", "log_probabilities"] = "auto",
    recipe: str = "compact",
    vocoder: str | None = None,
    all_layers: Annotated[bool, arg(name="all")] = False,
) -> None:
    """List the layers of someone else's classifier that can be tapped, in order of running; * marks those taken if none are named.

    Cost is what reading a layer with its gradient adds to a denoising step, in millions of multiply-accumulates.

    Args:
        source: The classifier: package.module:function, a Hugging Face folder, or a file of torch.export (.pt2) or TorchScript.
        weights: A safetensors file that fills the function's network.
        arguments: The function's keyword arguments, as a JSON object.
        takes: What it takes: `mel` (ours), `wave` or `wave:B1S:8000` (layout, one second), or a TOML file with [mel_input] or [wave_input].
        output: Which entry of its output holds the logits, if it returns several things.
        output_kind: What it returns; found by running it if left out.
        recipe: The recipe whose decoder the layers are to feed.
        vocoder: A bundle (name, folder, hub id) whose vocoder to use, for a recipe of another mel than the package's.
        all_layers: List the layers that cannot be tapped as well, and why.
    """
    from duovox.classifiers.loading import load_network
    from duovox.repurposing import layers_of

    loaded = load_network(source, weights, json_object(arguments))
    features, kind = read_input(takes) if takes else None, None if output_kind == "auto" else output_kind
    with in_the_shells_words():
        made = layers_of(loaded, features, output=output, output_kind=kind, recipe=recipe, vocoder=_vocoder_of(vocoder))
    print(made.layers_table(all_layers))


def repurpose_classifier(
    source: Positional[str],
    /,
    data: Path,
    out: Path,
    weights: Path | None = None,
    arguments: str = "{}",
    takes: str | None = None,
    labels: str | None = None,
    taps: tuple[str, ...] = (),
    output: str = "",
    output_kind: Literal["auto", "logits", "probabilities", "log_probabilities"] = "auto",
    conditioned: bool = False,
    recipe: str = "compact",
    vocoder: str | None = None,
) -> None:
    """Make someone else's classifier ready to be trained to speak: writes it and its recipe to <out>.

    The commands to go on with are printed, down to `duovox generate`, and how long the trainings will take here.

    Args:
        source: The classifier: package.module:function, a Hugging Face folder, or a file of torch.export (.pt2) or TorchScript.
        data: Feature folder made by `duovox data prepare`, of words that it knows.
        out: Folder for the classifier and the trainings.
        weights: A safetensors file that fills the function's network.
        arguments: The function's keyword arguments, as a JSON object.
        takes: What it takes: `mel` (ours), `wave` or `wave:B1S:8000` (layout, one second), or a TOML file with [mel_input] or [wave_input].
        labels: Its labels in the order of its outputs, separated by commas.
        taps: The layers to tap; a sensible set if left out (see `duovox taps`).
        output: Which entry of its output holds the logits, if it returns several things.
        output_kind: What it returns; found by running it if left out.
        conditioned: Have a copy of it fine-tuned on noise first (`duovox train classifier`).
        recipe: The recipe that gives mel, noise, decoder and training.
        vocoder: A bundle (name, folder, hub id) whose vocoder to use, for a recipe of another mel than the package's.
    """
    from duovox.classifiers.loading import load_network
    from duovox.repurposing import repurpose
    from duovox.repurposing.table import nothing_to_tap

    loaded = load_network(source, weights, json_object(arguments))
    names = [name.strip() for name in labels.split(",")] if labels else None
    features, kind = read_input(takes) if takes else None, None if output_kind == "auto" else output_kind
    with in_the_shells_words():
        made = repurpose(
            loaded, names, features, taps or None, output=output, output_kind=kind, conditioned=conditioned, recipe=recipe,
            vocoder=_vocoder_of(vocoder),
        )  # fmt: skip
    place = made.write(data, out)
    print(f"taps: {', '.join(made.taps)}" if made.taps else nothing_to_tap(made.layers))
    for note in made.notes:
        print(f"note: {note}")
    print("next:")
    for words in _next_commands(made, data, out, place, vocoder or DEFAULT_BUNDLE):
        print(f"  {shlex.join(words)}")
    for line in made.estimate(data):
        print(line)


def _next_commands(made: Repurposed, data: Path, out: Path, recipe: Path, vocoder: str) -> Iterator[list[str]]:
    """The commands from here to the first word spoken, in order."""
    from duovox.repurposing.training import can_be_calibrated
    from duovox.runs import features_for

    features, bundle = features_for(made.recipe, data), str(out / "bundle")
    trust = ["--trust-code"] * (made.classifier.config.source != "huggingface")
    for part in made.parts:
        yield ["duovox", "train", part, "--data", str(data), "--out", str(out), "--recipe", str(recipe)]
    yield ["duovox", "bundle", str(out), "--out", bundle, "--recipe", str(recipe), *(["--vocoder", vocoder] if made.vocoder else [])]
    if can_be_calibrated(features):
        yield ["duovox", "calibrate", bundle, "--data", str(data), *trust]
    heard = sorted(set(features.label.tolist()))
    label = features.labels[heard[0]] if heard else features.labels[0]
    yield ["duovox", "generate", label, "--bundle", bundle, *trust, "--out", str(out / "spoken.wav")]


@contextmanager
def in_the_shells_words() -> Iterator[None]:
    """Errors raised within name the arguments of `repurpose`, as labels=...; here they name the options instead, as --labels."""
    try:
        yield
    except DuovoxError as error:
        raise type(error)(re.sub(r"\b(\w+)=\.\.\.", lambda said: IN_THE_SHELL.get(said[1], said[0]), str(error))) from error


def _vocoder_of(bundle: str | None) -> Any:
    """The neural vocoder of a bundle, if one is named. Raises `ConfigError` where it has none."""
    if bundle is None:
        return None
    from duovox.voice import Duovox

    vocoder = Duovox.from_pretrained(bundle).bundle.vocoder
    if vocoder is None:
        raise ConfigError(f"the bundle {bundle} has no neural vocoder; name another, or leave --vocoder out")
    return vocoder


def json_object(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--arguments {text!r} is no JSON object: {error}") from None
