"""A classifier of someone else's as ours: takes its network and a front end, gives logits for (noised, sigma) like any other.

The network itself is never touched: it is a copy that is run as it is. Around it stand a stem (the noised mel at the amplitude of a
clean one, in squares: the decoder's finest tap), the bridge of `front_end` to what the network takes, the picking of the logits
out of what it returns, and, in a copy fine-tuned on noise, a scale and shift by noise level at each tapped layer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from duovox.classifiers.front_end import FrontEnd
from duovox.config import ExternalConfig, MelConfig, MelScale, NoiseConfig, TapConfig
from duovox.contracts import ClassifierError, DuovoxError, check_mel, expand_to
from duovox.diffusion.noise import precondition
from duovox.diffusion.taps import first_tensor, recording
from duovox.networks.base import TappedClassifier
from duovox.networks.blocks import NoiseEmbedding
from duovox.networks.layout import keep_default_layout
from duovox.sound.mel import unscale_mel

STEM = TapConfig("stem", "BCMT")
"""The tap that every classifier of someone else's has: its input itself."""

STEM_ALONE = 4
"""How many times the stem is read where no layer is: once for each stage of a usual decoder."""


class Squares(nn.Module):
    """mel (B, 1, M, T) -> (B, patch^2, M / patch, T / patch): the same numbers, in squares."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, mel: Tensor) -> Tensor:
        return nn.functional.pixel_unshuffle(mel, self.patch)


class NoiseModulation(nn.Module):
    """A scale and a shift per channel and noise level for each tapped layer; at the start they change nothing."""

    def __init__(self, channels: Mapping[str, int], width: int = 128) -> None:
        super().__init__()
        self.names = list(channels)
        self.embedding = NoiseEmbedding(width)
        self.layers = nn.ModuleList(nn.Linear(width, 2 * count) for count in channels.values())
        for layer in self.layers:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    @contextmanager
    def applied(self, network: nn.Module, axes: Mapping[str, str], c_noise: Tensor) -> Iterator[None]:
        """Within the context the named layers of `network` give their outputs modulated for c_noise (B,), to taps as well."""
        embedding = self.embedding(c_noise)

        def hook_of(layer: nn.Module, its: str):  # type: ignore[no-untyped-def]
            def hook(_module: nn.Module, _inputs: object, output: object) -> object:
                return _replace_first(output, lambda tensor: _modulate(tensor, layer(embedding), its))

            return hook

        handles = [
            network.get_submodule(name).register_forward_hook(hook_of(layer, axes[name]), prepend=True)
            for name, layer in zip(self.names, self.layers, strict=True)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _modulate(tensor: Tensor, modulation: Tensor, axes: str) -> Tensor:
    """tensor * (1 + scale) + shift, with modulation (B, 2 * C) laid along the axes B and C."""
    scale, shift = modulation.to(tensor.dtype).chunk(2, dim=1)
    shape = [tensor.shape[i] if letter in "BC" else 1 for i, letter in enumerate(axes)]
    if axes.index("C") < axes.index("B"):
        scale, shift = scale.T, shift.T
    return tensor * (1 + scale.reshape(shape)) + shift.reshape(shape)


def _replace_first(output: Any, change: Any) -> Any:
    """A layer's output with its first tensor (see `taps.first_tensor`) changed."""
    if isinstance(output, Tensor):
        return change(output)
    if isinstance(output, tuple | list):
        first = next(number for number, item in enumerate(output) if first_tensor(item) is not None)
        items = [_replace_first(item, change) if number == first else item for number, item in enumerate(output)]
        return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
    replaced = copy.copy(output)
    name = next(name for name, item in output.items() if first_tensor(item) is not None)
    replaced[name] = _replace_first(output[name], change)
    return replaced


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
        self.stem = Squares(config.patch)
        self.front_end, self.network = front_end, network
        keep_default_layout(network)
        self.modulation = NoiseModulation(self._tap_channels()) if config.conditioned and config.taps else None
        self.code: bytes | None = None
        self._recurrent = any(isinstance(layer, nn.RNNBase) for layer in network.modules())

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

    def _run(self, inputs: Tensor, c_noise: Tensor) -> Tensor:
        with ExitStack() as stack:
            if self._recurrent:  # cuDNN gives gradients of recurrent layers in train mode alone
                stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            if self.modulation is not None:
                axes = {tap.name: tap.axes for tap in self.config.taps}
                stack.enter_context(self.modulation.applied(self.network, axes, c_noise))
            return self.logits_of(call_network(self.network, inputs))

    def logits_of(self, output: object) -> Tensor:
        """The logits (B, K) in what the network returned, in float32."""
        logits = pick_logits(output, self.config.output)
        labels = len(self.config.labels)
        if logits.ndim != 2 or logits.shape[1] != labels:
            its = f"name its {logits.shape[1]} labels in the order of its outputs" if logits.ndim == 2 else "name their entry: output=..."
            raise ClassifierError(
                f"the classifier gives logits of shape {tuple(logits.shape)}, but {labels} labels need (B, {labels}): {its}"
            )
        return logits.float()

    def _tap_channels(self) -> dict[str, int]:
        """Channels of each tapped layer of the network, found by running it once on silence."""
        names = [tap.name for tap in self.config.taps]
        silence = torch.full((1, 1, self.mel.n_mels, self.mel.frames), self.scale.shift)
        with torch.no_grad(), at_rest(self.network), recording(self.network, names) as outputs:
            call_network(self.network, self.front_end(silence))
        return {tap.name: outputs[tap.name].shape[tap.axes.index("C")] for tap in self.config.taps}


def call_network(network: nn.Module, inputs: Tensor) -> object:
    """What the network returns. Whatever it raises becomes a `ClassifierError`: it is someone else's and may raise anything."""
    try:
        return network(inputs)
    except (DuovoxError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise ClassifierError(
            f"the classifier cannot run on an input of shape {tuple(inputs.shape)} ({type(error).__name__}: {first}); "
            "check what it takes: layout, sizes, sample rate"
        ) from error


def pick_logits(output: object, entry: str = "") -> Tensor:
    """The logits in a network's output: the tensor itself, the entry `logits` or `entry`, or the only tensor of two axes in it.

    Raises `ClassifierError` that names the entries there are.
    """
    if isinstance(output, Tensor) and not entry:
        return output
    entries = _entries(output)
    if entry:
        if entry not in entries:
            raise ClassifierError(f"the classifier's output has no entry {entry!r}; it has {', '.join(entries) or 'none'}")
        return entries[entry]
    if "logits" in entries:
        return entries["logits"]
    matrices = [tensor for tensor in entries.values() if tensor.ndim == 2]
    if len(matrices) != 1:
        there = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in entries.items()) or "(none)"
        raise ClassifierError(
            f"the classifier returns {type(output).__name__} with the tensors {there}; say which holds the logits: output=..."
        )
    return matrices[0]


def _entries(output: object) -> dict[str, Tensor]:
    """The tensors of an output by name: keys of a mapping, positions of a tuple or list, attributes of another object."""
    if isinstance(output, Tensor):
        return {"0": output}
    if isinstance(output, Mapping):
        named = {str(name): value for name, value in output.items()}
    elif isinstance(output, tuple | list):
        named = {str(number): value for number, value in enumerate(output)}
    else:
        named = dict(vars(output)) if hasattr(output, "__dict__") else {}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}
