"""The model: a classifier and a score network = a denoiser. It denoises; it knows nothing of guiding.

Takes settings and a classifier, ours or someone else's; gives `ScoreModel` to training and sampling.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from duovox.classifiers.external import ExternalClassifier
from duovox.classifiers.front_end import build_front_end
from duovox.classifiers.frozen import FrozenClassifier
from duovox.config import MelConfig, MelScale, NoiseConfig, Recipe
from duovox.contracts import ConfigError, Evaluation, Guide
from duovox.diffusion.guidance import gradients_of
from duovox.diffusion.noise import precondition
from duovox.diffusion.taps import Graph, Taps, read_taps
from duovox.networks.base import ScoreNetwork, TappedClassifier
from duovox.networks.encoder import EncoderClassifier
from duovox.networks.layout import to_channels_last
from duovox.networks.scoresubnet import ScoreSubnet, TapShape
from duovox.networks.speaker import SideBySide, TimeDelayNetwork
from duovox.networks.unet import UNet
from duovox.sound.vocoder.istft_net import ISTFTNet


class ScoreModel(nn.Module):
    """A frozen classifier and a score network that denoises, from the classifier's taps or without them. Only the score network has
    trainable parameters.

    `autocast` is a lower precision to run the networks in; sigma arithmetic and sampling stay in float32.
    """

    autocast: torch.dtype | None = None

    def __init__(self, classifier: TappedClassifier, score_network: ScoreNetwork, mel: MelConfig, noise: NoiseConfig) -> None:
        super().__init__()
        self.classifier = FrozenClassifier(classifier)
        self.mel, self.noise = mel, noise
        self.score_network = score_network
        self.tap_names, self.tap_axes = (classifier.tap_names, classifier.tap_axes) if score_network.reads_taps else ((), None)

    def to_channels_last(self) -> ScoreModel:
        """Lay out the networks of ours channels last, in place, where processors convolve faster (and round otherwise); returns itself."""
        for network in (self.score_network, *[self.classifier.network] * self.classifier.network.channels_last):
            to_channels_last(network)
        return self

    def taps(self, noised: Tensor, sigma: Tensor, label: Tensor | None = None, graph: Graph = "none") -> Taps | None:
        """The taps that the score network reads, None where it reads none. The label (B,) decides the gradient taps only if the score
        network was trained on such; `graph` as in `read_taps`."""
        if not self.score_network.reads_taps:
            return None
        kind = self.score_network.gradient_taps
        with self.arithmetic(noised):
            return read_taps(
                self.classifier.network,
                self.tap_names,
                noised,
                sigma,
                gradients=kind != "none",
                label=label if kind == "label" else None,
                axes=self.tap_axes,
                graph=graph,
            )

    def arithmetic(self, like: Tensor) -> AbstractContextManager[Any]:
        """Where the networks run: in `autocast`, or, without it, as whoever calls has set."""
        return torch.autocast(like.device.type, self.autocast) if self.autocast else nullcontext()

    def denoise(self, taps: Taps | None, noised: Tensor, sigma: Tensor) -> Tensor:
        """denoised (B, 1, M, T) from taps read at (noised, sigma); the sigma arithmetic stays in float32 (EDM eq. 7)."""
        c = precondition(sigma, self.noise)
        with self.arithmetic(noised):
            output = self.score_network(noised, c, taps)
        return c.estimate(noised, output)

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """Unconditional denoiser: noised (B, 1, M, T), sigma (B,) -> denoised (B, 1, M, T)."""
        return self.denoise(self.taps(noised, sigma), noised, sigma)


@dataclass(frozen=True)
class Conditioned:
    """A `GuidableDenoiser`: the model with a label (B,) for its gradient taps, or with none.

    Guides share its forward: the classifier's logits at the noised mel are those that the taps were read with. The gradient taps are
    held fixed where a guide looks through the denoiser at the estimate; no graph of the denoiser is kept where none does.
    """

    model: ScoreModel
    label: Tensor | None = None

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        return self.model.denoise(self.model.taps(noised, sigma, self.label), noised, sigma)

    def with_gradients(self, noised: Tensor, sigma: Tensor, guides: Sequence[Guide]) -> tuple[Tensor, list[Tensor]]:
        model = self.model
        early, late = ([guide for guide in guides if (guide.at == "noised") == first] for first in (True, False))
        through = any(guide.at == "estimate" for guide in late)
        with torch.enable_grad():
            source = noised.detach().requires_grad_().view_as(noised)  # a view: torch's flop counter refuses leaves
            taps = model.taps(source, sigma, self.label, "activations" if through else "logits" if early else "none")
            logits = None if taps is None else taps.logits
            seen = Evaluation(source, sigma, None, model.classifier, logits)
            with model.arithmetic(noised):
                found = dict(zip(early, gradients_of(early, seen, retain_graph=through), strict=True))
        with torch.set_grad_enabled(through):
            denoised = model.denoise(taps, source if through else noised, sigma)
        with torch.enable_grad():
            found |= zip(late, gradients_of(late, replace(seen, denoised=denoised)), strict=True)
        return denoised.detach(), [found[guide] for guide in guides]


def tap_shapes(
    classifier: nn.Module, names: tuple[str, ...], mel: MelConfig, stages: int, axes: tuple[str, ...] | None = None
) -> tuple[tuple[TapShape, ...], int]:
    """The shape of every tap, found by running the classifier once on silence, and how many mel rows a row of the first covers."""
    device = next(itertools.chain(classifier.parameters(), classifier.buffers())).device  # a frozen program has no parameters
    silence = torch.zeros(1, 1, mel.n_mels, mel.frames, device=device)
    taps = read_taps(classifier, names, silence, torch.ones(1, device=device), gradients=False, axes=axes)
    sizes = [(a.shape[2], a.shape[3]) for a in taps.activations]
    shapes = zip(taps.activations, place_taps(sizes, stages), strict=True)
    return tuple(TapShape(a.shape[1], a.shape[2], a.shape[3], stage) for a, stage in shapes), mel.n_mels // sizes[0][0]


def place_taps(sizes: Sequence[tuple[int, int]], stages: int) -> list[int]:
    """The decoder stage of each tap (rows, columns), in the order the classifier runs them: the one nearest in size.

    Stage 0 has the size of the first tap, every further one half its rows and columns. A sequence (rows 1) goes by its columns
    alone. If none reaches the deepest stage, the taps of the deepest stage reached are spread from there down to it, for a
    decoder needs something to begin with.
    """
    placed = [nearest_stage(size, sizes[0], stages) for size in sizes]
    deepest = max(placed)
    last = [index for index, stage in enumerate(placed) if stage == deepest and (index or len(sizes) == 1)] or [len(sizes) - 1]
    for number, index in enumerate(last):
        placed[index] = deepest + round((stages - 1 - deepest) * (number + 1) / len(last))
    return placed


def nearest_stage(size: tuple[int, int], finest: tuple[int, int], stages: int) -> int:
    """The decoder stage whose size is nearest to `size` (rows, columns), where stage 0 has the size `finest`."""
    (rows, columns), sequence = finest, size[0] == 1 < finest[0]
    octaves = math.log2(columns / size[1]) if sequence else math.log2(rows * columns / (size[0] * size[1])) / 2
    return min(max(round(octaves), 0), stages - 1)


def build_classifier(recipe: Recipe, labels: int) -> EncoderClassifier:
    """Our classifier as the recipe describes it, with fresh weights."""
    return EncoderClassifier(recipe.classifier, recipe.mel, recipe.noise, labels)


def build_speaker(recipe: Recipe, dimensions: int) -> nn.Module:
    """A network that embeds speakers, (B, `dimensions`), as the recipe describes it, with fresh weights."""
    config = recipe.speaker
    each, rest = divmod(dimensions, config.networks)
    if rest:
        raise ConfigError(f"embeddings of {dimensions} numbers cannot be by {config.networks} networks")
    networks: list[nn.Module] = [build_classifier(recipe, each) for _ in range(config.encoders)]
    networks += [TimeDelayNetwork(config, recipe.mel, recipe.noise, each) for _ in range(config.time_delays)]
    return networks[0] if len(networks) == 1 else SideBySide(networks)


def build_external(recipe: Recipe, network: nn.Module, scale: MelScale) -> ExternalClassifier:
    """Someone else's `network` as the recipe's classifier. A bridge to waves is a vocoder, here with fresh weights; one refinement is
    enough for a classifier and spares a fifth of its time."""
    assert recipe.external is not None
    settings = replace(recipe.vocoder, refinements=min(1, recipe.vocoder.refinements))
    vocoder = ISTFTNet(settings, recipe.mel) if recipe.external.wave_input else None
    front_end = build_front_end(recipe.mel, recipe.external.mel_input, recipe.external.wave_input, vocoder)
    return ExternalClassifier(recipe.external, network, front_end, recipe.mel, scale, recipe.noise)


def build_model(recipe: Recipe, classifier: TappedClassifier) -> ScoreModel:
    """The model on top of `classifier`, which is frozen from here on; its score network has fresh weights."""
    if recipe.score_model == "unet":
        return ScoreModel(classifier, UNet(recipe.unet), recipe.mel, recipe.noise)
    classifier.eval()
    shapes, patch = tap_shapes(classifier, classifier.tap_names, recipe.mel, len(recipe.subnet.widths), classifier.tap_axes)
    return ScoreModel(classifier, ScoreSubnet(recipe.subnet, shapes, patch), recipe.mel, recipe.noise)
