"""The commands for classifiers made elsewhere: `taps`, `repurpose`. Take a network; give a list of its layers, and a run to train on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from duovox.config import read_input
from duovox.contracts import ConfigError


def taps(
    source: Positional[str],
    /,
    weights: Path | None = None,
    arguments: str = "{}",
    takes: str | None = None,
    output: str = "",
    recipe: str = "compact",
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
        recipe: The recipe whose decoder the layers are to feed.
        all_layers: List the layers that cannot be tapped as well, and why.
    """
    from duovox.classifiers.loading import load_network
    from duovox.repurposing import guess_labels, repurpose

    loaded = load_network(source, weights, _json_object(arguments))
    features = read_input(takes) if takes else None
    labels = loaded.labels or guess_labels(loaded, features, output, recipe)
    made = repurpose(loaded, labels, features, output=output, recipe=recipe)
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
    conditioned: bool = False,
    recipe: str = "compact",
) -> None:
    """Make someone else's classifier ready to be trained to speak: writes it and its recipe to <out>.

    Then `duovox train subnet --recipe <out>/recipe.toml` and so on; the commands to go on with are printed.

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
        conditioned: Have a copy of it fine-tuned on noise first (`duovox train classifier`).
        recipe: The recipe that gives mel, noise, decoder and training.
    """
    from duovox.classifiers.loading import load_network
    from duovox.repurposing import repurpose

    loaded = load_network(source, weights, _json_object(arguments))
    names = [name.strip() for name in labels.split(",")] if labels else None
    features = read_input(takes) if takes else None
    made = repurpose(loaded, names, features, taps or None, output=output, conditioned=conditioned, recipe=recipe)
    place = made.write(data, out)
    print(f"taps: {', '.join(made.taps) or 'its input alone'}\nnext:")
    for part in ("classifier", "subnet") if conditioned else ("subnet",):
        print(f"  duovox train {part} --data {data} --out {out} --recipe {place}")
    print(f"  duovox bundle {out} --out {out / 'bundle'} --recipe {place}" + (" --vocoder sc06" if made.vocoder else ""))
    print(f"  duovox calibrate {out / 'bundle'} --data {data}" + " --trust-code" * (loaded.source != "huggingface"))


def _json_object(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--arguments {text!r} is no JSON object: {error}") from None
