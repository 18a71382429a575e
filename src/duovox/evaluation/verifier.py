"""The independent speaker verifier: takes waves from anyone, gives embeddings whose cosine similarity says whether one person speaks.

It never guides: its front end (10 ms frames, 40 mels, each with its mean taken off), its network (a time-delay network with attentive
statistics pooling) and its training on real recordings of the train split are its own. Speakers of the test split are unknown to it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import tqdm

from duovox.contracts import BundleError, DataError
from duovox.data import Features
from duovox.evaluation.judge import as_floats
from duovox.files import write_whole
from duovox.sound.mel import mel_filterbank

SAMPLE_RATE = 16000
FORMAT = "duovox-verifier-1"
EMBEDDING = 128

_N_FFT, _WINDOW, _HOP, _MELS, _WIDTH, _AMIN = 512, 400, 160, 40, 128, 1e-8
_CHUNK = 128


class VerifierMel(nn.Module):
    """wave (B, S) at 16 kHz -> (B, 40, T): log-mels of 25 ms windows every 10 ms, the mean of each band taken off, so that neither
    loudness nor a microphone's colour counts."""

    window: Tensor
    filterbank: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(_WINDOW), persistent=False)
        self.register_buffer("filterbank", mel_filterbank(SAMPLE_RATE, _N_FFT, _MELS, 50.0, 7600.0), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        level = wave.abs().amax(dim=1, keepdim=True).clamp(min=1e-6)
        spectrum = torch.stft(wave / level, _N_FFT, _HOP, _WINDOW, self.window, center=True, pad_mode="reflect", return_complex=True)
        log_mel = (self.filterbank @ spectrum.abs().square()).clamp(min=_AMIN).log()
        return log_mel - log_mel.mean(dim=2, keepdim=True)


class VerifierNetwork(nn.Module):
    """Normalised mels (B, 40, T) -> embeddings (B, 128) of length 1. Frames are weighed by what they tell (Okabe et al. 2018, arXiv
    1803.10963), over a time-delay network as of x-vectors (Snyder et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        first = _time_delay(_MELS, _WIDTH, 5, stride=2)
        context = (*_time_delay(_WIDTH, _WIDTH, 3, dilation=2), *_time_delay(_WIDTH, _WIDTH, 3, dilation=3))
        self.frames = nn.Sequential(*first, *context, *_time_delay(_WIDTH, 2 * _WIDTH, 1))
        self.attention = nn.Sequential(nn.Conv1d(2 * _WIDTH, 64, 1), nn.Tanh(), nn.Conv1d(64, 2 * _WIDTH, 1))
        self.norm = nn.BatchNorm1d(4 * _WIDTH)
        self.embedding = nn.Linear(4 * _WIDTH, EMBEDDING)

    def forward(self, mel: Tensor) -> Tensor:
        frames = self.frames(mel)
        weight = self.attention(frames).softmax(dim=2)
        mean = (weight * frames).sum(dim=2)
        spread = ((weight * frames.square()).sum(dim=2) - mean.square()).clamp(min=1e-6).sqrt()
        return F.normalize(self.embedding(self.norm(torch.cat([mean, spread], dim=1))), dim=1)


def _time_delay(inputs: int, outputs: int, size: int, dilation: int = 1, stride: int = 1) -> tuple[nn.Module, ...]:
    return nn.Conv1d(inputs, outputs, size, stride, dilation * (size // 2), dilation), nn.ReLU(), nn.BatchNorm1d(outputs)


@dataclass(frozen=True)
class VerifierConfig:
    """How it is trained: batches of different speakers, each by one clip; cosine similarities to a direction for each speaker, times
    `scale`, the right one less `margin` (Wang et al. 2018, arXiv 1801.05599); `crop` is the share of a clip's frames that is seen."""

    updates: int = 1600
    batch: int = 64
    rate: float = 3e-3
    weight_decay: float = 0.05
    scale: float = 20.0
    margin: float = 0.1
    crop: float = 0.85
    least_clips: int = 3
    seed: int = 0


class Verifier:
    """A trained verifier; its digest (SHA-256 of its file) is quoted with every figure."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.network = VerifierNetwork()
        self.network.load_state_dict(dict(weights), strict=True)
        self.network.eval().requires_grad_(False)
        self.front = VerifierMel()
        self.digest = hashlib.sha256(self._file()).hexdigest()

    def _file(self) -> bytes:
        state = {name: value.cpu().contiguous() for name, value in self.network.state_dict().items()}
        return write_tensors(state, {"duovox": json.dumps({"format": FORMAT})})

    def save(self, path: Path, force: bool = False) -> None:
        """Write the verifier's file, whole or not at all. Raises `OutputError`."""
        write_whole(path, self._file(), force, parents=True)

    @classmethod
    def load(cls, path: Path) -> Verifier:
        """Read a verifier that `save` wrote. Raises `BundleError` for anything else."""
        try:
            return cls(read_tensors(path.read_bytes()))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise BundleError(f"{path} is no speaker verifier ({str(error).splitlines()[0]}); remove it, and it is trained anew") from None

    @torch.inference_mode()
    def embed(self, waves: Tensor | NDArray[np.generic]) -> NDArray[np.float32]:
        """waves (N, S) at 16 kHz, floats in [-1, 1] or int16 -> embeddings (N, 128) of length 1."""
        chunks = (as_floats(waves[start : start + _CHUNK]) for start in range(0, len(waves), _CHUNK))
        found: NDArray[np.float32] = torch.cat([self.network(self.front(chunk)) for chunk in chunks]).numpy()
        return found


def train_verifier(features: Features, config: VerifierConfig | None = None) -> Verifier:
    """A new verifier, trained on the train split's speakers; the same for the same features and settings. Raises `DataError` for
    another sample rate, and for fewer than two speakers of enough clips."""
    config = config or VerifierConfig()
    if features.mel.sample_rate != SAMPLE_RATE:
        raise DataError(f"the speaker verifier hears {SAMPLE_RATE} Hz, these features are of {features.mel.sample_rate} Hz")
    clips = [found for found in clips_by_speaker(features, "train").values() if len(found) >= config.least_clips]
    if len(clips) < 2:
        raise DataError(f"a speaker verifier needs two speakers of {config.least_clips} train clips each; prepare data that names speakers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network, directions = VerifierNetwork(), nn.Parameter(torch.randn(len(clips), EMBEDDING))
    parameters = [*network.parameters(), directions]
    adamw = AdamW(parameters, config.rate, weight_decay=config.weight_decay)
    schedule = OneCycleLR(adamw, config.rate, total_steps=config.updates + 1)
    for mel, speaker in tqdm(_batches(features, clips, config), desc="verifier", total=config.updates):
        adamw.zero_grad()
        margin_loss(network(mel) @ F.normalize(directions, dim=1).T, speaker, config).backward()
        adamw.step()
        schedule.step()
    return Verifier(network.state_dict())


def margin_loss(cosines: Tensor, speaker: Tensor, config: VerifierConfig) -> Tensor:
    """Cross-entropy of cosines (B, K) against speaker (B,), which has to win by the margin."""
    handicap = config.margin * F.one_hot(speaker, cosines.shape[1])
    return F.cross_entropy(config.scale * (cosines - handicap), speaker)


@torch.no_grad()
def _batch_mels(features: Features, chosen: NDArray[np.int64], front: VerifierMel, crop: float, random: np.random.Generator) -> Tensor:
    """Mels (B, 40, T') of clips, each from a place of its own on."""
    mels = front(as_floats(features.waves[chosen]))
    frames = round(crop * mels.shape[2])
    starts = random.integers(0, mels.shape[2] - frames + 1, len(mels))
    return torch.stack([mel[:, start : start + frames] for mel, start in zip(mels, starts, strict=True)])


def _batches(features: Features, clips: list[NDArray[np.int64]], config: VerifierConfig) -> Iterator[tuple[Tensor, Tensor]]:
    """Mels and speakers' numbers (B,), drawn from the seed alone."""
    random, front = np.random.default_rng(config.seed), VerifierMel()
    size = min(config.batch, len(clips))
    for _ in range(config.updates):
        speakers = random.choice(len(clips), size, replace=False)
        chosen = np.array([random.choice(clips[speaker]) for speaker in speakers])
        yield _batch_mels(features, chosen, front, config.crop, random), torch.from_numpy(speakers)


def clips_by_speaker(features: Features, split: str) -> dict[str, NDArray[np.int64]]:
    """The clips of each speaker of a split, in order."""
    found: dict[str, list[int]] = {}
    for index in features.indices(split):
        found.setdefault(features.speakers[index], []).append(int(index))
    return {speaker: np.array(indices) for speaker, indices in found.items()}


def equal_error(same: NDArray[np.floating], different: NDArray[np.floating]) -> tuple[float, float]:
    """The rate at which similarities of one person are too low as often as those of two are too high, and the similarity where that
    is. Either may hold ties."""
    levels = np.unique(np.concatenate([same, different]))
    missed = np.searchsorted(np.sort(same), levels, side="left") / len(same)
    accepted = 1 - np.searchsorted(np.sort(different), levels, side="left") / len(different)
    best = int(np.argmin(np.abs(missed - accepted)))
    return float((missed[best] + accepted[best]) / 2), float(levels[best])


def rank_of(similarities: NDArray[np.floating], wanted: int) -> int:
    """The place of the wanted one of similarities (K,), 1 the best; equal ones count as better."""
    others = np.delete(similarities, wanted)
    return 1 + int((others >= similarities[wanted]).sum())
