"""From any classifier to one of ours: takes a module that someone else trained, inspects it, gives a `Repurposed`.

What is given is copied first and never touched: mode, flags, buffers and hooks stay as they are, whatever happens afterwards.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from duovox.bundle import locate, read_bundle
from duovox.classifiers.axes import probe_mels
from duovox.classifiers.choice import choose, resolve
from duovox.classifiers.copies import copy_network, in_float32, precision_note
from duovox.classifiers.discovery import candidates
from duovox.classifiers.external import ExternalClassifier
from duovox.classifiers.front_end import WaveFrontEnd
from duovox.classifiers.loading import Loaded, export_bytes
from duovox.classifiers.output_kinds import OutputKind, Outputs, look_at_outputs
from duovox.classifiers.purity import demand_alone, demand_steady, randomness_restored
from duovox.config import ExternalConfig, MelInput, MelScale, Recipe, TapConfig, WaveInput, read_recipe
from duovox.contracts import ClassifierError, ConfigError
from duovox.model import build_external
from duovox.repurposing.training import Repurposed
from duovox.shipped import DEFAULT_BUNDLE
from duovox.sound.vocoder.istft_net import ISTFTNet

UNCONDITIONED: dict[str, Any] = {
    "sampler": "heun",
    "steps": 14,
    "last_sigma": 0.0,
    "guide_at": "estimate",
    "gamma": 10.0,
    "guidance_low": 0.2,
    "guidance_high": 10.0,
}
"""Default sampling with a classifier that never met noise: guided harder than usual, only where the estimate is a word but not yet done.

Chosen on a ResNet-18, seeds from 5000 on: docs/repurposed.md has the figures.
"""

LOUD = 8.0
"""How much louder one of the clips is that the network is tried with: it must not change the answer to the others."""


@torch.random.fork_rng(devices=[])
def repurpose(
    classifier: nn.Module | Loaded,
    labels: Sequence[str] | None = None,
    features: MelInput | WaveInput | None = None,
    taps: Sequence[str | TapConfig] | None = None,
    *,
    output: str = "",
    output_kind: OutputKind | None = None,
    conditioned: bool = False,
    recipe: str | Path | Recipe = "compact",
    vocoder: ISTFTNet | None = None,
) -> Repurposed:
    """Make a classifier that was trained without us ready to speak.

    `labels` are its words in the order of its outputs; `features` says what it takes (a waveform, or a mel of any settings); both
    may be left out where `load_network` found them. `taps` names layers, or layers with their axes; if left out a sensible set is
    chosen among those that `duovox taps` lists. `output` names the logits where it returns several things; `output_kind` says what
    they are, "logits", "probabilities" or "log_probabilities", where running it would not tell rightly. `conditioned` has a copy
    fine-tuned on noise before the subnet is trained. `vocoder` replaces the package's, for another mel than its own.

    What was done to weights and outputs stands in `Repurposed.notes`. Raises `ClassifierError` and `ConfigError`, naming the layer
    where there is one; among others for a network that is no function of one clip, see `purity`.
    """
    loaded = classifier if isinstance(classifier, Loaded) else None
    external = _described(loaded, labels or (loaded.labels if loaded else None) or (), features, output)
    return _repurposed(classifier, external, taps, len(external.labels), output_kind, conditioned, recipe, vocoder)


@torch.random.fork_rng(devices=[])
def layers_of(
    classifier: nn.Module | Loaded,
    features: MelInput | WaveInput | None = None,
    *,
    output: str = "",
    output_kind: OutputKind | None = None,
    recipe: str | Path | Recipe = "compact",
    vocoder: ISTFTNet | None = None,
) -> Repurposed:
    """As `repurpose`, only to look at a classifier's layers: numbers stand in the place of labels that nobody said."""
    loaded = classifier if isinstance(classifier, Loaded) else None
    labels = loaded.labels if loaded else None
    external = _described(loaded, labels or ("0",), features, output)
    return _repurposed(classifier, external, None, len(labels) if labels else None, output_kind, False, recipe, vocoder)


def _repurposed(
    given: nn.Module | Loaded,
    external: ExternalConfig,
    taps: Sequence[str | TapConfig] | None,
    labels: int | None,
    kind: OutputKind | None,
    conditioned: bool,
    recipe: str | Path | Recipe,
    vocoder: ISTFTNet | None,
) -> Repurposed:
    torch.default_generator.manual_seed(0)  # what is drawn here is the same in every process, or no run could go on in another
    loaded = given if isinstance(given, Loaded) else None
    network = _our_copy(given)
    notes = (*(loaded.notes if loaded else ()), *precision_note(network))
    network = in_float32(network)
    base, vocoder, scale = _with_vocoder(recipe if isinstance(recipe, Recipe) else read_recipe(recipe), external, vocoder)
    plain = _built(replace(base, external=external), network, scale, vocoder)
    outputs = _inspected(plain, labels, kind)
    numbers = tuple(str(number) for number in range(outputs.labels))
    names = external.labels if labels else numbers
    external = plain.config = replace(external, labels=names, output_kind=outputs.kind, output_axes=outputs.axes)
    found = tuple(candidates(plain))
    chosen = choose(found) if taps is None else resolve(found, taps)
    known = loaded is not None and loaded.source != "object"
    code = loaded.code if loaded and known else export_bytes(network, _example(plain), [tap.name for tap in chosen])
    source = external.source if known else "export" if code else "object"
    finished = _with_classifier(base, replace(external, taps=chosen, conditioned=conditioned, source=source))
    made = _built(finished, network, scale, vocoder)
    made.code = code
    return Repurposed(finished, made, found, vocoder, (*notes, *outputs.notes()))


def _inspected(classifier: ExternalClassifier, labels: int | None, kind: OutputKind | None) -> Outputs:
    """What the network returns. Raises `ClassifierError` where that is no function of one clip, or no answer for each label."""
    mels = probe_mels(classifier.mel)
    with torch.no_grad(), randomness_restored():
        clips = classifier.inputs(torch.cat([mels, LOUD * mels[-1:]]))
        demand_steady(classifier, clips)
        outputs = look_at_outputs(classifier, labels, kind)
        demand_alone(classifier, clips, outputs.axes)
    return outputs


def _described(loaded: Loaded | None, labels: Sequence[str], features: MelInput | WaveInput | None, output: str) -> ExternalConfig:
    """What is said of the classifier, by the caller or else by what it was loaded from."""
    features = features or (loaded and (loaded.mel_input or loaded.wave_input)) or None
    if not labels:
        raise ClassifierError("say the labels, in the order of the outputs: labels=...")
    if features is None:
        raise ClassifierError("say what the classifier takes: features=...")
    if not isinstance(features, MelInput | WaveInput):
        raise ClassifierError(f"features must be a duovox.MelInput or a duovox.WaveInput, not a {type(features).__name__}")
    if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
        raise ConfigError(f"labels must be a list of texts, not {labels!r}")
    mel_input, wave_input = (features, None) if isinstance(features, MelInput) else (None, features)
    return ExternalConfig(
        labels=tuple(labels),
        source=loaded.source if loaded else "object",
        entry=loaded.entry if loaded else "",
        arguments=loaded.arguments if loaded else "{}",
        mel_input=mel_input,
        wave_input=wave_input,
        output=output,
    )


def _our_copy(given: object) -> nn.Module:
    """A copy of the network in eval mode, on the CPU; that of a module must be in this mode already, where it matters.

    Raises `ClassifierError` for what cannot be frozen.
    """
    network = given.network if isinstance(given, Loaded) else given
    if not isinstance(network, nn.Module):
        raise ClassifierError(f"expected a torch.nn.Module, got {type(network).__name__}; duovox.load_network opens files and functions")
    if isinstance(network, torch.jit.ScriptModule):
        raise ClassifierError("a TorchScript program must be given as its file: repurpose(duovox.load_network(file), ...)")
    _demand_statistics(network, told_to_rest=isinstance(given, Loaded))
    _demand_one_device(network)
    strange = [name for name, value in network.state_dict().items() if not isinstance(value, Tensor)]
    if strange:
        raise ClassifierError(f"the classifier's state {strange[0]!r} is no tensor, and no file of tensors can hold it")
    return copy_network(network).eval()


def _demand_statistics(network: nn.Module, told_to_rest: bool) -> None:
    """Raise `ClassifierError` for a BatchNorm that would normalise by the batch."""
    for name, layer in network.named_modules():
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm):
            continue
        training = layer.training and not told_to_rest
        if training or layer.running_mean is None:
            why = "is in train mode; call eval() on the classifier first" if training else "keeps no running statistics"
            raise ClassifierError(
                f"layer {name!r} ({type(layer).__name__}) {why}: one clip's logits would depend on the others in its batch"
            )


def _demand_one_device(network: nn.Module) -> None:
    devices = {str(value.device): name for name, value in [*network.named_parameters(), *network.named_buffers()]}
    if len(devices) > 1 or "meta" in devices:
        places = ", ".join(f"{name!r} on {device}" for device, name in devices.items())
        raise ClassifierError(f"the classifier's tensors must lie on one device ({places}); move it with .to('cpu')")


def _with_vocoder(base: Recipe, external: ExternalConfig, vocoder: ISTFTNet | None) -> tuple[Recipe, ISTFTNet | None, MelScale]:
    """The recipe with the settings of the vocoder in use, that vocoder, and a mel scale to try the classifier with.

    It is the one in the package if that fits the recipe's mel; a classifier of waveforms hears its mels through it.
    """
    packaged = read_bundle(locate(DEFAULT_BUNDLE))
    if vocoder is None and packaged.config.recipe.mel == base.mel:
        vocoder = packaged.vocoder
    if vocoder is None and external.wave_input is not None:
        raise ClassifierError(f"the package's vocoder is for another mel than that of recipe {base.name}; give one with vocoder=...")
    if vocoder is not None:
        vocoder.check(base.mel, f"recipe {base.name}")
        vocoder = copy.deepcopy(vocoder).cpu().eval().requires_grad_(False)
    return (base if vocoder is None else replace(base, vocoder=vocoder.config)), vocoder, packaged.config.mel_scale


def _built(recipe: Recipe, network: nn.Module, scale: MelScale, vocoder: ISTFTNet | None) -> ExternalClassifier:
    """The classifier of the recipe, its bridge to waveforms, if it has one, with the vocoder's weights."""
    classifier = build_external(recipe, network, scale)
    if isinstance(classifier.front_end, WaveFrontEnd):
        assert vocoder is not None
        classifier.front_end.vocoder.load_state_dict(vocoder.state_dict(), strict=True)
    return classifier


def _example(classifier: ExternalClassifier) -> Tensor:
    """One input of the network, made of noise."""
    mel = classifier.mel
    noise = torch.randn(1, 1, mel.n_mels, mel.frames, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return classifier.inputs(noise / 2)


def _with_classifier(base: Recipe, external: ExternalConfig) -> Recipe:
    """The recipe around someone else's classifier: it is asked for labels where it can be believed, and tuned, if at all, gently."""
    training = base.train_classifier
    return replace(
        base,
        name=f"{base.name}-{'tuned' if external.conditioned else 'as-is'}",
        about=f"A classifier made elsewhere ({external.entry or external.source}), after the recipe {base.name}.",
        external=external,
        sample=base.sample if external.conditioned else replace(base.sample, **UNCONDITIONED),
        train_classifier=replace(training, rate=training.rate / 4, updates=(training.updates + 1) // 2),
    )
