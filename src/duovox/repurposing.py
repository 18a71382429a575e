"""Any classifier: takes a module that someone else trained, gives one of ours, ready for the same training, sampling and bundling.

What is given is copied first and never touched: mode, flags, buffers and hooks stay as they are, whatever happens afterwards.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from duovox.assemble import assemble
from duovox.bundle import CODE_FILES, locate, read_bundle
from duovox.classifiers.discovery import Candidate, candidates, choose, resolve
from duovox.classifiers.external import ExternalClassifier, call_network, pick_logits
from duovox.classifiers.front_end import WaveFrontEnd, build_front_end
from duovox.classifiers.frozen import fingerprint
from duovox.classifiers.loading import Loaded, export_bytes
from duovox.config import ExternalConfig, MelInput, MelScale, Recipe, TapConfig, WaveInput, read_recipe, write_recipe
from duovox.contracts import ClassifierError, ConfigError, TrainingError
from duovox.devices import DeviceName, Precision
from duovox.files import differences, write_tensors, write_whole
from duovox.model import build_external, nearest_stage
from duovox.runs import features_for, read_weights, recipe_of_part, scale_of_data
from duovox.sound.mel import unscale_mel
from duovox.sound.vocoder.istft_net import ISTFTNet
from duovox.training.start import start_training
from duovox.voice import Duovox

AS_IT_CAME: dict[str, Any] = {"guide_at": "estimate", "gamma": 10.0, "guidance_low": 0.2, "guidance_high": 10.0}
"""Default guidance by a classifier that never met noise: harder than usual, and only where the estimate is a word but not yet done.

Chosen on a ResNet-18, seeds from 5000 on: docs/repurposed.md has the figures.
"""


@dataclass(frozen=True)
class Repurposed:
    """Someone else's classifier, ready to be trained to speak: the recipe it stands in, our copy of it, and all its layers."""

    recipe: Recipe
    classifier: ExternalClassifier
    layers: tuple[Candidate, ...]
    vocoder: ISTFTNet | None

    @property
    def taps(self) -> tuple[str, ...]:
        """The names of the layers that are tapped."""
        assert self.recipe.external is not None
        return tuple(tap.name for tap in self.recipe.external.taps)

    def train(
        self,
        data: str | Path,
        out: str | Path,
        *,
        updates: int | None = None,
        resume: bool = False,
        time_budget: float = math.inf,
        device: DeviceName = "auto",
        precision: Precision = "auto",
    ) -> Duovox:
        """Train on a feature folder into run folders below `out`: for a noise-conditioned copy its fine-tuning, then the subnet.

        Gives the speaking model, its temperatures fitted where the data has clips to fit and to measure them on. `time_budget` is in
        seconds, for each of the trainings. Raises what `start_training` and `assemble` raise, and `TrainingError` after a stop signal
        and where the budget ends before the fine-tuning does, for a subnet can only be trained on a finished classifier.
        """
        data, out = Path(data), Path(out)
        recipe = self.recipe
        if updates is not None:
            recipe = replace(recipe, train_subnet=replace(recipe.train_subnet, updates=updates))
        self.write(data, out, recipe)
        network = self._only_its_owner_has()
        for part in ("classifier", "subnet") if self.classifier.config.conditioned else ("subnet",):
            go_on = resume or (part == "classifier" and (out / part).exists())
            options = {"time_budget": time_budget, "device": device, "precision": precision, "network": network}
            started = time.monotonic()
            outcome = start_training(part, recipe, data, out, resume=go_on, **options)  # type: ignore[arg-type]
            if not outcome.complete and (part == "classifier" or time.monotonic() - started < time_budget):
                total = getattr(recipe, f"train_{part}").updates
                raise TrainingError(f"the training of the {part} was stopped at step {outcome.step} of {total}; go on with resume=True")
        voice = Duovox(assemble(out, recipe, network=network, vocoder=self.vocoder))
        features = features_for(recipe, data)
        if all(len(features.indices(split)) for split in ("validation", "test")):
            voice.calibrate(data)
        return voice

    def write(self, data: str | Path, out: str | Path, recipe: Recipe | None = None) -> Path:
        """Write the classifier as it came, and the recipe (whose path is returned), to `out`, for `duovox train` to go on with.

        Raises `TrainingError` where `out` holds another classifier, `DataError` for data whose words it does not know.
        """
        recipe, out = recipe or self.recipe, Path(out)
        features = features_for(recipe, Path(data))
        self.classifier.scale = scale_of_data(recipe, features)
        folder = out / "original"
        facts = {
            "part": "original",
            "recipe": recipe_of_part(recipe, "original"),
            "labels": list(features.labels),
            "mel_scale": {"kind": recipe.mel_scale, "shift": self.classifier.scale.shift, "scale": self.classifier.scale.scale},
            "data": features.digest,
            "fingerprint": fingerprint(self.classifier),
        }
        if (folder / "weights.safetensors").exists():
            before = read_weights(folder)[0]
            for path, old, new in differences({key: before.get(key) for key in facts}, facts):
                raise TrainingError(f"{folder} holds another classifier or data ({path} is {old!r}, now {new!r}); choose another folder")
        else:
            if self.classifier.code is not None:
                write_whole(folder / CODE_FILES[self.classifier.config.source], self.classifier.code, parents=True, force=True)
            tensors = {name: value.clone() for name, value in self.classifier.state_dict().items()}
            clips = len(features.indices("train"))
            write_tensors(
                folder / "weights.safetensors", tensors, {"duovox": json.dumps({**facts, "clips": clips, "step": 0, "seconds": 0})}
            )
        write_whole(out / "recipe.toml", write_recipe(recipe).encode(), force=True)
        return out / "recipe.toml"

    def layers_table(self, faulty: bool = False) -> str:
        """The layers as a Markdown table, those in use marked; `faulty` lists those that cannot be tapped as well, with the reason."""
        lines = ["| layer | kind | shape | axes | rows, frames a position | values | cost (MMACs) |", "|" + "---|" * 7]
        for layer in self.layers:
            mark = "*" if layer.name in self.taps else " "
            if not layer.fault:
                stride = f"{'-' if layer.rows == 1 else f'{layer.stride[0]:.3g}'}, {layer.stride[1]:.3g}"
                shape = " x ".join(map(str, layer.shape))
                cost = f"{self.cost(layer):.2f}"
                lines.append(f"| {mark} {layer.name} | {layer.kind} | {shape} | {layer.axes} | {stride} | {layer.values:,} | {cost} |")
            elif faulty:
                lines.append(f"| - {layer.name} | {layer.kind} | {layer.fault} | | | | |")
        return "\n".join(lines)

    def cost(self, layer: Candidate) -> float:
        """Millions of multiply-accumulates that fusing a layer and its gradient adds to a denoising step, at its nearest stage."""
        subnet, patch = self.recipe.subnet, self.classifier.config.patch
        finest = self.recipe.mel.n_mels // patch, self.recipe.mel.frames // patch
        stage = nearest_stage((layer.rows, layer.columns), finest, len(subnet.widths))
        return layer.values * (1 + (subnet.gradient_taps != "none")) * subnet.widths[stage] / 1e6

    def _only_its_owner_has(self) -> nn.Module | None:
        return self.classifier.network if self.classifier.config.source == "object" else None


@torch.random.fork_rng(devices=[])
def repurpose(
    classifier: nn.Module | Loaded,
    labels: Sequence[str] | None = None,
    features: MelInput | WaveInput | None = None,
    taps: Sequence[str | TapConfig] | None = None,
    *,
    output: str = "",
    conditioned: bool = False,
    recipe: str | Path | Recipe = "compact",
    vocoder: ISTFTNet | None = None,
) -> Repurposed:
    """Make a classifier that was trained without us ready to speak.

    `labels` are its words in the order of its outputs; `features` says what it takes (a waveform, or a mel of any settings); both
    may be left out where `load_network` found them. `taps` names layers, or layers with their axes; if left out a sensible set is
    chosen among those that `duovox taps` lists. `output` names the logits where it returns several things. `conditioned` has a
    copy fine-tuned on noise before the subnet is trained. `vocoder` replaces the package's, for another mel than its own.
    Raises `ClassifierError` and `ConfigError`, naming the layer where there is one.
    """
    torch.default_generator.manual_seed(0)  # what is drawn here is the same in every process, or no run could go on in another
    loaded = classifier if isinstance(classifier, Loaded) else None
    network, external = _copy(classifier), _described(loaded, labels, features, output)
    base, vocoder, scale = _with_vocoder(recipe if isinstance(recipe, Recipe) else read_recipe(recipe), external, vocoder)
    plain = _built(replace(base, external=external), network, scale, vocoder)
    found = tuple(candidates(plain))
    chosen = choose(found) if taps is None else resolve(found, taps)
    code = loaded.code if loaded else export_bytes(network, _example(plain), [tap.name for tap in chosen])
    source = external.source if loaded else "export" if code else "object"
    finished = _with_classifier(base, replace(external, taps=chosen, conditioned=conditioned, source=source))
    made = _built(finished, network, scale, vocoder)
    made.code = code
    return Repurposed(finished, made, found, vocoder)


def _described(
    loaded: Loaded | None, labels: Sequence[str] | None, features: MelInput | WaveInput | None, output: str = ""
) -> ExternalConfig:
    """What is said of the classifier, by the caller or else by what it was loaded from."""
    labels = labels or (loaded.labels if loaded else None) or ()
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


def guess_labels(
    loaded: Loaded, features: MelInput | WaveInput | None, output: str = "", recipe: str | Path = "compact"
) -> tuple[str, ...]:
    """Numbers in place of labels, as many as the network has outputs; only to look at its layers."""
    external = _described(loaded, ["unknown"], features, output)
    base, vocoder, scale = _with_vocoder(read_recipe(recipe), external, None)
    front_end = build_front_end(base.mel, external.mel_input, external.wave_input, copy.deepcopy(vocoder))
    silence = torch.full((1, 1, base.mel.n_mels, base.mel.frames), scale.shift)
    with torch.no_grad():
        logits = pick_logits(call_network(_copy(loaded), front_end(silence)), output)
    return tuple(str(number) for number in range(logits.shape[-1]))


def _copy(given: object) -> nn.Module:
    """A copy of the network in eval mode, on the CPU; that of a module must be in this mode already, where it matters.

    Raises `ClassifierError` for what cannot be frozen.
    """
    network = given.network if isinstance(given, Loaded) else given
    if not isinstance(network, nn.Module):
        raise ClassifierError(f"expected a torch.nn.Module, got {type(network).__name__}; duovox.load_network opens files and functions")
    if isinstance(network, torch.jit.ScriptModule):
        raise ClassifierError("a TorchScript program must be given as its file: repurpose(duovox.load_network(file), ...)")
    for name, layer in network.named_modules():
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm):
            continue
        training = layer.training and not isinstance(given, Loaded)
        if training or layer.running_mean is None:
            why = "is in train mode; call eval() on the classifier first" if training else "keeps no running statistics"
            raise ClassifierError(
                f"layer {name!r} ({type(layer).__name__}) {why}: one clip's logits would depend on the others in its batch"
            )
    devices = {str(value.device): name for name, value in [*network.named_parameters(), *network.named_buffers()]}
    if len(devices) > 1 or "meta" in devices:
        places = ", ".join(f"{name!r} on {device}" for device, name in devices.items())
        raise ClassifierError(f"the classifier's tensors must lie on one device ({places}); move it with .to('cpu')")
    strange = [name for name, value in network.state_dict().items() if not isinstance(value, Tensor)]
    if strange:
        raise ClassifierError(f"the classifier's state {strange[0]!r} is no tensor, and no file of tensors can hold it")
    try:
        with torch.no_grad():  # else the tensors of a copied TorchScript program are no leaves
            return copy.deepcopy(network).cpu().eval()
    except Exception as error:  # a module may hold anything
        first = next(iter(str(error).splitlines()), "")
        raise ClassifierError(
            f"the classifier cannot be copied ({type(error).__name__}: {first}); give it without what cannot be"
        ) from None


def _with_vocoder(base: Recipe, external: ExternalConfig, vocoder: ISTFTNet | None) -> tuple[Recipe, ISTFTNet | None, MelScale]:
    """The recipe with the settings of the vocoder in use, that vocoder, and a mel scale to try the classifier with.

    It is the one in the package if that fits the recipe's mel; a classifier of waveforms hears its mels through it.
    """
    packaged = read_bundle(locate("sc06"))
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
        return classifier.front_end(unscale_mel(noise / 2, classifier.scale))


def _with_classifier(base: Recipe, external: ExternalConfig) -> Recipe:
    """The recipe around someone else's classifier: it is asked for labels where it can be believed, and tuned, if at all, gently."""
    training = base.train_classifier
    return replace(
        base,
        name=f"{base.name}-{'tuned' if external.conditioned else 'as-is'}",
        about=f"A classifier made elsewhere ({external.entry or external.source}), after the recipe {base.name}.",
        external=external,
        sample=base.sample if external.conditioned else replace(base.sample, **AS_IT_CAME),
        train_classifier=replace(training, rate=training.rate / 4, updates=(training.updates + 1) // 2),
    )
