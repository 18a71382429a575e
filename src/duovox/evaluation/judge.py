"""The independent judge: takes waves from anyone, gives label probabilities and features to `metrics` and `report`.

It never guides: its front end (32 x 32 decibels), its networks (batch normalisation, no noise level) and its training on
clean recordings are its own, and a judge file cannot be loaded as a classifier nor a classifier as a judge.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor, nn
from torch.nn import functional as F

from duovox.contracts import AudioError, BundleError, ConfigError, LabelError, ShapeError
from duovox.files import write_whole
from duovox.networks.layout import StridedPointwise, to_channels_last
from duovox.shipped import JUDGES
from duovox.sound.mel import mel_filterbank

SAMPLE_RATE = 16000
CLIP_SAMPLES = 16000
HOP = 512
FORMAT = "duovox-judge-1"
Kind = Literal["compact", "resnext29"]

_N_FFT, _MELS, _TOP_DB, _AMIN = 2048, 32, 80.0, 1e-10


class JudgeMel(nn.Module):
    """wave (B, S) at 16 kHz -> (B, 1, 32, 32), decibels in [-80, 0] relative to the clip's own peak.

    Clips are zero-padded or cut at their end to 16000 samples; power spectrum, FFT 2048, hop 512, centred with reflection,
    32 slaney mels from 0 to 8 kHz. A silent clip is 0 everywhere, as with librosa's `power_to_db(ref=np.max)`.
    """

    window: Tensor
    filterbank: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(_N_FFT), persistent=False)
        self.register_buffer("filterbank", mel_filterbank(SAMPLE_RATE, _N_FFT, _MELS, 0.0, SAMPLE_RATE / 2), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        if wave.ndim != 2 or wave.shape[1] == 0:
            raise ShapeError(f"expected a wave of shape (B, S > 0), got {tuple(wave.shape)}")
        fitted = F.pad(wave.float(), (0, max(0, CLIP_SAMPLES - wave.shape[1])))[:, :CLIP_SAMPLES]
        spectrum = torch.stft(fitted, _N_FFT, HOP, window=self.window, center=True, pad_mode="reflect", return_complex=True)
        power = self.filterbank @ (spectrum.real.square() + spectrum.imag.square())
        decibels = 10 * torch.log10(power.clamp(min=_AMIN))
        return (decibels - decibels.amax(dim=(1, 2), keepdim=True)).clamp(min=-_TOP_DB).unsqueeze(1)


def judge_mel(wave: Tensor) -> Tensor:
    """wave (B, S) at 16 kHz -> (B, 1, 32, 32) decibels; see `JudgeMel`."""
    return cast(Tensor, JudgeMel().to(wave.device)(wave))


class _Bottleneck(nn.Module):
    """1x1 -> grouped 3x3 -> 1x1 with a shortcut (Xie et al. 2017, arXiv 1611.05431, figure 3c)."""

    def __init__(self, inputs: int, outputs: int, inner: int, cardinality: int, stride: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn_reduce = nn.BatchNorm2d(inner)
        self.conv_conv = nn.Conv2d(inner, inner, 3, stride, 1, groups=cardinality, bias=False)
        self.bn = nn.BatchNorm2d(inner)
        self.conv_expand = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn_expand = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if inputs != outputs:
            self.shortcut.add_module("shortcut_conv", StridedPointwise(inputs, outputs, stride))
            self.shortcut.add_module("shortcut_bn", nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn_reduce(self.conv_reduce(x)))
        h = F.relu(self.bn(self.conv_conv(h)))
        return F.relu(self.bn_expand(self.conv_expand(h)) + self.shortcut(x))


def _stage(name: str, inputs: int, outputs: int, inner: int, cardinality: int, stride: int) -> nn.Sequential:
    """Three bottlenecks, the first of which changes width and resolution."""
    blocks = nn.Sequential()
    for block, (width, step) in enumerate([(inputs, stride), (outputs, 1), (outputs, 1)]):
        blocks.add_module(f"{name}_bottleneck_{block}", _Bottleneck(width, outputs, inner, cardinality, step))
    return blocks


class ResNeXt29(nn.Module):
    """ResNeXt-29 in its CIFAR form (arXiv 1611.05431 section 5.3), cardinality 8, width 64, for one 32 x 32 channel.

    judge mel (B, 1, 32, 32), decibels -> logits (B, K), features (B, 1024). The parameter names are those of the usual
    CIFAR implementation, which the public Speech Commands weights were trained with.
    """

    def __init__(self, labels: int, cardinality: int = 8, width: int = 64) -> None:
        super().__init__()
        self.conv_1_3x3 = nn.Conv2d(1, 64, 3, 1, 1, bias=False)
        self.bn_1 = nn.BatchNorm2d(64)
        self.stage_1 = _stage("stage_1", 64, 256, cardinality * width, cardinality, 1)
        self.stage_2 = _stage("stage_2", 256, 512, 2 * cardinality * width, cardinality, 2)
        self.stage_3 = _stage("stage_3", 512, 1024, 4 * cardinality * width, cardinality, 2)
        self.classifier = nn.Linear(1024, labels)

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        h = F.relu(self.bn_1(self.conv_1_3x3(mel)))
        h = self.stage_3(self.stage_2(self.stage_1(h)))
        features = h.mean(dim=(2, 3))
        return self.classifier(features), features


class _Residual(nn.Module):
    """Two 3x3 convolutions with a shortcut, normalised before each (He et al. 2016, arXiv 1603.05027)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Identity() if inputs == outputs else StridedPointwise(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(x))
        kept = x if isinstance(self.shortcut, nn.Identity) else self.shortcut(h)
        return cast(Tensor, kept + self.conv2(F.relu(self.norm2(self.conv1(h)))))


class CompactJudge(nn.Module):
    """A small residual network of our own: judge mel (B, 1, 32, 32), decibels -> logits (B, K), features (B, 128)."""

    widths = (32, 64, 128)

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, self.widths[0], 3, 1, 1, bias=False)
        blocks: list[nn.Module] = []
        inputs = self.widths[0]
        for outputs in self.widths:
            blocks += [_Residual(inputs, outputs, 1 if outputs == inputs else 2), _Residual(outputs, outputs, 1)]
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(inputs)
        self.classifier = nn.Linear(inputs, labels)

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        h = self.blocks(self.stem(mel / 40 + 1))
        features = F.relu(self.norm(h)).mean(dim=(2, 3))
        return self.classifier(features), features


def build_network(kind: Kind, labels: int) -> nn.Module:
    """A judge network with random weights, for `labels` labels."""
    return CompactJudge(labels) if kind == "compact" else ResNeXt29(labels)


@dataclass(frozen=True)
class Scores:
    """What a judge says of N clips: probabilities (N, K) in the order of its labels, features (N, D); float32."""

    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]


class Judge:
    """A trained judge: network, labels, and the digest (SHA-256 of its file) that every figure is quoted with."""

    def __init__(self, kind: Kind, labels: tuple[str, ...], weights: Mapping[str, Tensor]) -> None:
        """`weights` must be exactly the state of that kind's network; `BundleError` otherwise."""
        self.kind, self.labels = kind, tuple(labels)
        self.network = build_network(kind, len(self.labels))
        _load_strictly(self.network, weights)
        to_channels_last(self.network.eval().requires_grad_(False))
        self.front = JudgeMel()
        self.digest = hashlib.sha256(self._file()).hexdigest()

    def _file(self) -> bytes:
        """The judge as the bytes of a safetensors file; one metadata entry, so equal judges have equal bytes."""
        header = json.dumps({"format": FORMAT, "kind": self.kind, "labels": list(self.labels)})
        state = {name: tensor.cpu().contiguous() for name, tensor in self.network.state_dict().items()}
        return write_tensors(state, {"duovox": header})

    def save(self, path: Path | str, force: bool = False) -> None:
        """Write the judge's file, whole or not at all. Raises `OutputError`, also for an existing file without `force`."""
        write_whole(Path(path), self._file(), force, parents=True)

    @classmethod
    def load(cls, path: Path | str) -> Judge:
        """Read a judge that `save` wrote. Raises `BundleError` for anything else."""
        data = _read(path)
        kind, labels = _header(data, path)
        return cls(kind, labels, _tensors(data, path))

    @classmethod
    def import_resnext(cls, path: Path | str, labels: Iterable[str]) -> Judge:
        """A judge from public ResNeXt-29 8x64 weights as a safetensors file; `labels` in the order of its outputs.

        A leading `module.` in the tensor names is dropped, and the counters `num_batches_tracked`, which old files lack and
        nothing reads, are set to 0. Raises `BundleError` if names or shapes differ in anything else.
        """
        names = tuple(labels)
        weights = {name.removeprefix("module."): tensor for name, tensor in _tensors(_read(path), path).items()}
        tracked = [name for name in build_network("resnext29", len(names)).state_dict() if name.endswith("num_batches_tracked")]
        counters = {name: torch.tensor(0) for name in tracked}
        return cls("resnext29", names, {**weights, **counters})

    def to(self, device: torch.device | str) -> Judge:
        """Move the judge to a device; returns itself."""
        self.network.to(device)
        self.front.to(device)
        return self

    def require(self, labels: Iterable[str]) -> None:
        """Raise `LabelError` unless this judge was trained on every one of `labels`."""
        unknown = sorted(set(labels) - set(self.labels))
        if unknown:
            raise LabelError(f"this judge was not trained on {', '.join(unknown)}; it knows {', '.join(self.labels)}")

    def refuse_guide(self, classifier: nn.Module) -> None:
        """Raise `ConfigError` if this judge is inside the classifier that guides: every one of its tensors occurs in it, by value.

        Compared in float16, as bundles store weights. A fine-tuned copy of the judge, or one hidden in a program that keeps its
        weights elsewhere, is not found: nothing but the word of who made it can rule that out.
        """
        if _contents(self.network) <= _contents(classifier):
            raise ConfigError("this judge is the classifier that guides the clips, so it would praise itself; give another with --judge")

    @torch.inference_mode()
    def score(self, waves: Tensor | NDArray[np.generic], batch: int = 64) -> Scores:
        """waves (N, S) at 16 kHz, floats in [-1, 1] or int16 -> `Scores`. Raises `ShapeError`, `AudioError` (not finite)."""
        if waves.ndim != 2 or len(waves) == 0:
            raise ShapeError(f"expected waves of shape (N > 0, S), got {tuple(waves.shape)}")
        device = self.front.window.device
        parts: list[tuple[Tensor, Tensor]] = []
        for start in range(0, len(waves), batch):
            wave = as_floats(waves[start : start + batch]).to(device)
            if not bool(torch.isfinite(wave).all()):
                raise AudioError("cannot judge clips that contain NaN or infinite samples")
            logits, features = self.network(self.front(wave).contiguous(memory_format=torch.channels_last))
            parts.append((torch.softmax(logits.float(), dim=1).cpu(), features.float().cpu()))
        return Scores(torch.cat([p for p, _ in parts]).numpy(), torch.cat([f for _, f in parts]).numpy())


def packaged_judge(labels: Sequence[str]) -> Path:
    """The judge in the package that knows these labels and the fewest others; the smallest of all where none does."""
    known = {path: set(_header(_read(path), path)[1]) for path in sorted(JUDGES.glob("*.safetensors"))}
    fewest_first = sorted(known, key=lambda path: len(known[path]))
    return next((path for path in fewest_first if known[path] >= set(labels)), fewest_first[0])


def as_floats(waves: Tensor | NDArray[np.generic]) -> Tensor:
    """Samples as a float32 tensor in [-1, 1]; int16 is divided by 32768."""
    tensor = waves if isinstance(waves, Tensor) else torch.from_numpy(np.array(waves))
    return tensor.float() / 32768 if tensor.dtype == torch.int16 else tensor.float()


def _contents(module: nn.Module) -> set[tuple[tuple[int, ...], bytes]]:
    """Shape and digest of every tensor of real numbers in a module's state, rounded to float16."""
    tensors = [value.detach().cpu().half().contiguous() for value in module.state_dict().values() if value.is_floating_point()]
    return {(tuple(tensor.shape), hashlib.sha256(tensor.numpy().tobytes()).digest()) for tensor in tensors}


def _load_strictly(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load every tensor by name, or say in one line which do not fit."""
    state = network.state_dict()
    wrong = [name for name in state if name in weights and state[name].shape != weights[name].shape]
    lacking, foreign = sorted(state.keys() - weights.keys()), sorted(weights.keys() - state.keys())
    for problem, names in (("lacks", lacking), ("has the foreign", foreign), ("has another shape for", wrong)):
        if names:
            raise BundleError(f"not the weights of this judge: the file {problem} tensor {names[0]} ({len(names)} such)")
    network.load_state_dict(dict(weights), strict=True)


def _read(path: Path | str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read judge {path}: {error.strerror}") from None


def _tensors(data: bytes, path: Path | str) -> dict[str, Tensor]:
    try:
        return read_tensors(data)
    except SafetensorError as error:
        raise BundleError(f"{path} is not a safetensors file ({error}); pickled weights are refused, convert them first") from None


def _header(data: bytes, path: Path | str) -> tuple[Kind, tuple[str, ...]]:
    """Kind and labels from the file's metadata: 8 bytes of length, then JSON (https://github.com/huggingface/safetensors)."""
    _tensors(data, path)
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    try:
        header = json.loads(metadata["duovox"])
        labels = tuple(header["labels"])
        known = header["format"] == FORMAT and header["kind"] in get_args(Kind) and all(isinstance(name, str) for name in labels)
    except (KeyError, TypeError, ValueError):
        known = False
    if not known:
        raise BundleError(f"{path} is not a judge of format {FORMAT}; make one of public ResNeXt-29 weights by `duovox judge`")
    return header["kind"], labels
