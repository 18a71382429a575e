"""A classifier of someone else's as ours: takes its network and a front end, gives logits for (noised, sigma) like any other.

The network itself is never touched: it is a copy that is run as it is. Around it stand a stem (the noised mel at the amplitude of a
clean one, in squares: the decoder's finest tap), the bridge of `front_end` to what the network takes, the picking of the logits
out of what it returns, and, in a copy fine-tuned on noise, a scale and shift by noise level at each tapped layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from duovox.classifiers.copies import in_float32, let_go_of_graphs
from duovox.classifiers.exported import is_recurrent
from duovox.classifiers.front_end import FrontEnd
from duovox.classifiers.modulation import NoiseModulation
from duovox.classifiers.outputs import as_logits, call_network, pick_logits
from duovox.config import ExternalConfig, MelConfig, MelScale, NoiseConfig, TapConfig
from duovox.contracts import ClassifierError, check_mel, expand_to
from duovox.diffusion.noise import precondition
from duovox.diffusion.taps import recording
from duovox.networks.base import TappedClassifier
from duovox.networks.layout import keep_default_layout
from duovox.sound.mel import unscale_mel

STEM = TapConfig("stem", "BCMT")
"""The tap that every classifier of someone else's has: its input itself."""

STEM_ALONE = 4
"""How many times the stem is read where no layer is: once for each stage of a usual decoder."""


class PatchStem(nn.Module):
    """mel (B, 1, M, T) -> (B, patch^2, M / patch, T / patch): the same numbers, in squares."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, mel: Tensor) -> Tensor:
        return nn.functional.pixel_unshuffle(mel, self.patch)


@contextmanager
def at_rest(module: nn.Module) -> Iterator[None]:
    """Within the context the module is in eval mode and no parameter of it takes gradients; afterwards all is as it was."""
    modes = [(part, part.training) for part in module.modules() if hasattr(part, "training")]  # a frozen program has none
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        for part, _ in modes:
            part.training = False
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for part, training in modes:
            part.training = training
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


class ExternalClassifier(TappedClassifier):
    """noised (B, 1, M, T), sigma (B,) -> logits (B, K), by a network that was made for something else.

    `network` is used as it is given (`repurpose` gives a copy). `code` is the file that holds it, where it is an exported or a
    scripted program. Raises `ClassifierError` for outputs that are no logits.
    """

    def __init__(
        self, config: ExternalConfig, network: nn.Module, front_end: FrontEnd, mel: MelConfig, scale: MelScale, noise: NoiseConfig
    ) -> None:
        super().__init__()
        self.config, self.mel, self.scale, self.noise = config, mel, scale, noise
        self.stem = PatchStem(config.patch)
        self.front_end, self.network = front_end, let_go_of_graphs(in_float32(network))
        keep_default_layout(self.network)
        self.modulation = NoiseModulation(self._tap_channels()) if config.conditioned and config.taps else None
        self.code: bytes | None = None
        self._recurrent = is_recurrent(network)

    @property
    def tap_names(self) -> tuple[str, ...]:
        """Names within this module: the stem, then the network's own layers; without such, the stem for every other stage as well."""
        return (STEM.name, *(f"network.{tap.name}" for tap in self.config.taps)) if self.config.taps else (STEM.name,) * STEM_ALONE

    @property
    def tap_axes(self) -> tuple[str, ...]:
        """Which axis of each tap is what."""
        return (STEM.axes, *(tap.axes for tap in self.config.taps)) if self.config.taps else (STEM.axes,) * STEM_ALONE

    def train(self, mode: bool = True) -> ExternalClassifier:
        """The front end and every BatchNorm stay in eval mode: statistics of noised batches would not be those of clean ones."""
        super().train(mode)
        self.front_end.eval()
        for layer in self.network.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.eval()
        return self

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        check_mel(noised, self.mel.n_mels, self.mel.frames)
        amplitude = (1 + (sigma / self.noise.sigma_data).square()).rsqrt()  # brings noised mels back to a clean one's
        squares = self.stem(noised * expand_to(amplitude, noised))
        log_mel = unscale_mel(nn.functional.pixel_shuffle(squares, self.config.patch), self.scale)
        with torch.autocast(noised.device.type, enabled=False):  # exponentials and logarithms of powers need float32
            inputs = self.front_end(log_mel.float())
        return self._run(inputs, precondition(sigma, self.noise).c_noise)

    @property
    def program(self) -> bytes | None:
        """The file of an exported or a scripted program."""
        return self.code

    @property
    def bridge(self) -> nn.Module:
        """What leads from our mel to what the network takes."""
        return self.front_end

    def hear(self, wave: Tensor, log_mel: Tensor | None = None, scale: MelScale | None = None) -> Tensor:
        """Logits (B, K) for waves (B, S) at the mel's sample rate, through the network's own front end, not the bridge; the log-mels are
        not needed."""
        clean = wave.new_full((wave.shape[0],), self.noise.sigma_min)
        return self._run(self.front_end.from_wave(wave), precondition(clean, self.noise).c_noise)

    def inputs(self, mels: Tensor) -> Tensor:
        """What the network is given for scaled mels (B, 1, M, T) without noise."""
        return self.front_end(unscale_mel(mels, self.scale))

    def scores(self, inputs: Tensor) -> Tensor:
        """What the network itself returns for its inputs, of several things the one that holds the logits, unmodified."""
        with self._guarded():
            return pick_logits(call_network(self.network, inputs), self.config.output)

    def _run(self, inputs: Tensor, c_noise: Tensor) -> Tensor:
        if self.modulation is None:
            return self._logits_of(self.scores(inputs))
        axes = {tap.name: tap.axes for tap in self.config.taps}
        with self.modulation.applied(self.network, axes, c_noise):
            return self._logits_of(self.scores(inputs))

    def _guarded(self) -> AbstractContextManager[Any]:
        """cuDNN gives gradients of recurrent layers in train mode alone; without it torch's own kernels do, in every mode."""
        return torch.backends.cudnn.flags(enabled=False) if self._recurrent else nullcontext()

    def _logits_of(self, scores: Tensor) -> Tensor:
        """The logits (B, K), float32, in what the network returned."""
        axes, labels = self.config.output_axes, len(self.config.labels)
        if scores.ndim != len(axes):
            raise ClassifierError(
                f"the classifier gives outputs of shape {tuple(scores.shape)}, not of the axes {axes} that its recipe says; "
                "give the network that was repurposed, or repurpose this one"
            )
        logits = as_logits(scores, self.config.output_kind, axes)
        if logits.shape[1] != labels:
            raise ClassifierError(
                f"the classifier gives logits of shape {tuple(logits.shape)}, but {labels} labels need (B, {labels}): "
                f"name its {logits.shape[1]} labels in the order of its outputs: labels=..."
            )
        return logits

    def _tap_channels(self) -> dict[str, int]:
        """Channels of each tapped layer of the network, found by running it once on silence."""
        names = [tap.name for tap in self.config.taps]
        silence = torch.full((1, 1, self.mel.n_mels, self.mel.frames), self.scale.shift)
        with torch.no_grad(), at_rest(self.network), recording(self.network, names) as outputs:
            call_network(self.network, self.front_end(silence))
        return {tap.name: outputs[tap.name].shape[tap.axes.index("C")] for tap in self.config.taps}
