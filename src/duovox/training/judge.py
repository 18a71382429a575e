"""Training the independent judge: cross-entropy on clean recordings, mildly augmented.

Takes features and a recipe; gives a `Trainee` to the loop, and the `Judge` that comes of it. No noise levels here: the
judge must know nothing of the diffusion it is to judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from duovox.config import Recipe
from duovox.contracts import DataError
from duovox.data import Batches, Features, in_order
from duovox.evaluation.judge import HOP, SAMPLE_RATE, Judge, JudgeMel, Kind, build_network
from duovox.networks.layout import to_channels_last
from duovox.training.ema import averaged
from duovox.training.optim import Losses, Updater, adamw
from duovox.training.shares import Part, share_batch_norms

MASKED = 6
"""Most mel bins and most frames (of 32 each) that are masked in a training clip."""


def shift_samples(wave: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Shift each clip of wave (B, S) by its own -most..most samples; zeros fill the gap."""
    offsets = torch.randint(-most, most + 1, (wave.shape[0], 1), generator=generator, device=wave.device)
    index = torch.arange(wave.shape[1], device=wave.device)[None] + offsets
    inside = (index >= 0) & (index < wave.shape[1])
    return wave.gather(1, index.clamp(0, wave.shape[1] - 1)) * inside


def mask_band(mel: Tensor, dim: int, most: int, generator: torch.Generator) -> Tensor:
    """Replace 0..most neighbouring rows (dim 2) or columns (dim 3) of each item of mel (B, 1, M, T) by the item's mean.

    SpecAugment's masking (Park et al. 2019, arXiv 1904.08779, section 2).
    """
    size, count = mel.shape[dim], (mel.shape[0], 1)
    width = torch.randint(0, most + 1, count, generator=generator, device=mel.device)
    start = (torch.rand(count, generator=generator, device=mel.device) * (size - width + 1)).long()
    place = torch.arange(size, device=mel.device)[None]
    masked = ((place >= start) & (place < start + width)).reshape(-1, 1, *((size, 1) if dim == 2 else (1, size)))
    return torch.where(masked, mel.mean(dim=(2, 3), keepdim=True), mel)


class JudgeTraining:
    """A `Trainee`: cross-entropy of p(label | clean clip), with moving average. Settings: `recipe.judge` and `recipe.train_judge`.

    `shift_frames` counts the judge's own frames of 512 samples. Raises `DataError` for features of another sample rate than the judge's.
    """

    part = "judge"
    whole_batches = "it normalises over whole batches"

    def __init__(self, recipe: Recipe, features: Features, device: torch.device, autocast: torch.dtype | None) -> None:
        if features.mel.sample_rate != SAMPLE_RATE:
            raise DataError(f"the judge hears {SAMPLE_RATE} Hz, these features are of {features.mel.sample_rate} Hz")
        self.train, self.features, self.device, self.autocast = recipe.train_judge, features, device, autocast
        self.kind: Kind = recipe.judge
        self.most_shift = self.train.shift_frames * HOP
        torch.manual_seed(self.train.seed)
        self.network = to_channels_last(build_network(self.kind, len(features.labels)).to(device))
        self.front = JudgeMel().to(device)
        self.average = averaged(self.network, self.train.ema_decay)
        self.batches = Batches(features, "train", self.train.batch, self.train.seed, self.train.balance)
        self.modules: dict[str, nn.Module] = {"network": self.network, "average": self.average}
        self.updater = Updater(self.network, adamw(self.network, self.train), self.train.clip_norm, self.average)
        self.optimizers: dict[str, Optimizer] = {"adamw": self.updater.optimizer}

    def _augmented(self, wave: Tensor, generator: torch.Generator) -> Tensor:
        """wave (B, S) -> judge mel (B, 1, 32, 32), shifted in time and masked; loudness needs no change, the front end ignores it."""
        mel = self.front(shift_samples(wave, self.most_shift, generator) if self.most_shift else wave)
        return mask_band(mask_band(mel, 2, MASKED, generator), 3, MASKED, generator)

    def draw(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Batch `step`, augmented."""
        batch = self.batches.at(step)
        return {"mel": self._augmented(batch.wave.to(self.device), generator), "label": batch.label.to(self.device)}

    def loss(self, step: int, drawn: Mapping[str, Tensor], part: Part) -> Losses:
        """Cross-entropy, and the share that the network gets right."""
        mel, label = drawn["mel"], drawn["label"]
        if part.shares.together:
            share_batch_norms(self.network.modules())
        self.network.train()
        with torch.autocast(self.device.type, self.autocast or torch.bfloat16, enabled=self.autocast is not None):
            logits, _ = self.network(mel.contiguous(memory_format=torch.channels_last))
        loss = nn.functional.cross_entropy(logits.float(), label, label_smoothing=self.train.label_smoothing)
        return Losses(loss, {"loss": loss, "accuracy": (logits.argmax(1) == label).float().mean()})

    def validate(self) -> dict[str, float]:
        return {"accuracy": self.accuracy("validation")}

    @torch.no_grad()
    def accuracy(self, split: str) -> float:
        """Accuracy of the averaged network on a split, in fp32."""
        network, right = self.average.module.eval(), 0
        for batch in in_order(self.features, split, 64):
            logits, _ = network(self.front(batch.wave.to(self.device)).contiguous(memory_format=torch.channels_last))
            right += int((logits.argmax(1).cpu() == batch.label).sum())
        return right / len(self.features.indices(split))

    def weights(self) -> dict[str, Tensor]:
        return dict(self.average.module.state_dict())

    def judge(self) -> Judge:
        """The judge as trained so far, on the CPU: `judge().save(path)` writes the file that evaluation takes."""
        return Judge(self.kind, self.features.labels, self.weights())


def judge_of_run(labels: Sequence[str], weights: Mapping[str, Tensor]) -> Judge:
    """The judge of a finished run, from its labels and `weights.safetensors`. Raises `BundleError` for another network's weights."""
    kind: Kind = "resnext29" if "conv_1_3x3.weight" in weights else "compact"
    return Judge(kind, tuple(labels), weights)
