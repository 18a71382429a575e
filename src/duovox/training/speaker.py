"""Training a network that embeds who speaks, whatever is said and however noised: clips of one speaker near each other, others apart.

Takes features whose speakers are known; gives a `Trainee` to the loop. Its labels are nobody's: it learns to compare, and knows speakers it
never met (L. Wan et al. 2018, arXiv 1710.10467, the softmax loss of its section 2.1).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from duovox.config import MelScale, Recipe
from duovox.contracts import DataError, TrainingError
from duovox.data import Features
from duovox.diffusion.noise import add_noise, training_sigma
from duovox.model import build_speaker
from duovox.networks.layout import to_channels_last
from duovox.runs import SPEAKER_DIMENSIONS
from duovox.sound.mel import scale_mel
from duovox.training.augment import altered, shift_frames
from duovox.training.ema import averaged
from duovox.training.optim import Losses, Updater, adamw
from duovox.training.shares import Part

CLIPS = 4
"""Clips of each speaker in a batch."""

TEMPERATURE = 0.1
"""What cosine similarities are divided by."""

REPORT_SIGMAS = (0.0, 0.5, 2.0)


class SpeakerTraining:
    """A `Trainee`: networks whose outputs are an embedding, with moving average, as `speaker` of the recipe describes them; `train_speaker`
    is their training, whose batch is cut into groups of `CLIPS` clips of a speaker. Each network learns by itself, from the same batches.

    Raises `DataError` where fewer than two speakers have that many clips, in the train split or in a validation split that is not empty.
    """

    part = "speaker"
    whole_batches = "it compares the clips of a batch with each other"

    def __init__(self, recipe: Recipe, features: Features, scale: MelScale, device: torch.device, autocast: torch.dtype | None) -> None:
        self.train, self.noise = recipe.train_speaker, recipe.noise
        self.features, self.scale, self.device, self.autocast = features, scale, device, autocast
        self.speakers = demanded(features, "train")
        self.others = demanded(features, "validation") if len(features.indices("validation")) else []
        torch.manual_seed(self.train.seed)
        self.network = to_channels_last(build_speaker(recipe, recipe.speaker.networks * SPEAKER_DIMENSIONS).to(device))
        self.average = averaged(self.network, self.train.ema_decay)
        self.modules: dict[str, nn.Module] = {"network": self.network, "average": self.average}
        self.updater = Updater(self.network, adamw(self.network, self.train), self.train.clip_norm, self.average)
        self.optimizers: dict[str, Optimizer] = {"adamw": self.updater.optimizer}

    def draw(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Batch `step`: `CLIPS` clips of each of some speakers, one speaker after the other, augmented and noised."""
        drawn = draw_speakers(self.speakers, self.train.batch // CLIPS, np.random.default_rng([self.train.seed, step]))
        clean = scale_mel(altered(log_mels_of(self.features, drawn).to(self.device), self.train, generator), self.scale)
        if self.train.shift_frames:
            clean = shift_frames(clean, self.train.shift_frames, generator)
        sigma = training_sigma(len(clean), self.noise, generator)
        return {"noised": add_noise(clean, sigma, generator), "sigma": sigma}

    def loss(self, step: int, drawn: Mapping[str, Tensor], part: Part) -> Losses:
        """Cross-entropy of whose clip each is, and the share that is right."""
        if part.weight != 1.0:
            raise TrainingError(f"the speaker network is trained by one process: {self.whole_batches}")
        self.network.train()
        with torch.autocast(self.device.type, self.autocast or torch.bfloat16, enabled=self.autocast is not None):
            embeddings = self.network(drawn["noised"], drawn["sigma"])
        each = [likeness(one.unflatten(0, (-1, CLIPS))) / TEMPERATURE for one in embeddings.float().split(SPEAKER_DIMENSIONS, dim=1)]
        own = torch.arange(len(embeddings) // CLIPS, device=embeddings.device).repeat_interleave(CLIPS)
        loss = torch.stack([nn.functional.cross_entropy(logits, own) for logits in each]).mean()
        accuracy = (torch.stack(each).mean(dim=0).argmax(1) == own).float().mean()
        return Losses(loss, {"loss": loss, "accuracy": accuracy})

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The share of validation clips that are nearest to the other clips of their own speaker, by noise level; nobody there was heard
        in training."""
        clips = np.concatenate([own[:CLIPS] for own in self.others])
        figures = {f"accuracy_at_{level:g}": self._share_right(clips, level) for level in REPORT_SIGMAS}
        return figures | {"speakers": float(len(self.others))}

    def _share_right(self, clips: NDArray[np.int64], level: float) -> float:
        network, found = self.average.module.eval(), []
        for number, start in enumerate(range(0, len(clips), 128)):
            clean = scale_mel(log_mels_of(self.features, clips[start : start + 128]), self.scale).to(self.device)
            generator = torch.Generator(self.device).manual_seed(number)
            sigma = torch.full((len(clean),), level, device=self.device)
            found.append(network(add_noise(clean, sigma, generator), sigma.clamp(min=self.noise.sigma_min)))
        logits = likeness(torch.cat(found).unflatten(0, (-1, CLIPS)))
        own = torch.arange(len(logits) // CLIPS, device=logits.device).repeat_interleave(CLIPS)
        return float((logits.argmax(1) == own).float().mean())

    def weights(self) -> dict[str, Tensor]:
        return dict(self.average.module.state_dict())


def demanded(features: Features, split: str) -> list[NDArray[np.int64]]:
    """The speakers of a split who can be compared. Raises `DataError` for fewer than two."""
    found = clips_by_speaker(features, split)
    if len(found) < 2:
        raise DataError(
            f"the {split} split has {len(found)} speakers with {CLIPS} clips or more, at least 2 are needed to compare; add clips, "
            "or say who speaks (`duovox data prepare --speaker`)"
        )
    return found


def clips_by_speaker(features: Features, split: str) -> list[NDArray[np.int64]]:
    """The clips of each speaker of a split who has at least `CLIPS`, in the order of their names."""
    found: dict[str, list[int]] = {}
    for clip in features.indices(split):
        found.setdefault(features.speakers[clip], []).append(int(clip))
    return [np.array(found[name]) for name in sorted(found) if len(found[name]) >= CLIPS]


def draw_speakers(speakers: list[NDArray[np.int64]], count: int, drawn: np.random.Generator) -> NDArray[np.int64]:
    """`CLIPS` clips of each of `count` speakers (or as many as there are), nobody and no clip twice."""
    chosen = drawn.permutation(len(speakers))[: max(2, count)]
    return np.concatenate([drawn.permutation(speakers[number])[:CLIPS] for number in chosen])


def log_mels_of(features: Features, clips: NDArray[np.int64]) -> Tensor:
    """Log-mels (B, 1, M, T) of clips, float32."""
    return torch.from_numpy(features.log_mels[clips].astype(np.float32)).unsqueeze(1)


def likeness(embeddings: Tensor) -> Tensor:
    """Cosine similarity of every clip to every speaker, (N C, N), for embeddings (N, C, D) of C clips each of N speakers: to the mean
    direction of the speaker's clips, without the clip itself where it is its own."""
    unit = nn.functional.normalize(embeddings, dim=2)
    total = unit.sum(dim=1)
    centres, others = nn.functional.normalize(total, dim=1), nn.functional.normalize(total[:, None] - unit, dim=2)
    across = torch.einsum("ncd,kd->nck", unit, centres)
    own = torch.eye(len(unit), dtype=torch.bool, device=unit.device)[:, None, :]
    return torch.where(own, (unit * others).sum(dim=2, keepdim=True), across).flatten(0, 1)
