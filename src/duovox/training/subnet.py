"""Training the Score Subnet by denoising score matching on a frozen classifier's taps; the U-Net baseline goes the same way.

Takes features, a recipe and a trained classifier; gives a `Trainee` to the loop. Only the subnet's parameters train.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from duovox.config import MelScale, NoiseConfig, Recipe
from duovox.contracts import NO_LABEL, expand_to
from duovox.data import Batches, Features, in_order
from duovox.diffusion.noise import add_noise, precondition, training_sigma
from duovox.model import ScoreModel, build_model
from duovox.networks.base import TappedClassifier
from duovox.sound.mel import scale_mel
from duovox.training.augment import shift_frames
from duovox.training.ema import averaged
from duovox.training.optim import Losses, Updater, adamw
from duovox.training.shares import Part


def denoising_loss(denoised: Tensor, clean: Tensor, sigma: Tensor, noise: NoiseConfig) -> Tensor:
    """Weighted denoising score matching, per item (B,): mean square of (denoised - clean) / c_out (EDM eq. 8).

    With the vp preconditioning this is the mean square error of the predicted eps.
    """
    weight = expand_to(precondition(sigma, noise).c_out.reciprocal().square(), clean)
    return (weight * (denoised - clean).square()).mean(dim=(1, 2, 3))


class SubnetTraining:
    """A `Trainee`: denoising score matching of the Score Subnet, with moving average."""

    part = "subnet"
    whole_batches = ""

    def __init__(
        self,
        recipe: Recipe,
        features: Features,
        scale: MelScale,
        classifier: TappedClassifier,
        device: torch.device,
        autocast: torch.dtype | None,
    ) -> None:
        self.train, self.noise, self.label_share = recipe.train_subnet, recipe.noise, recipe.subnet.label_share
        self.features, self.scale = features, scale
        self.device, self.autocast = device, autocast
        torch.manual_seed(self.train.seed)
        self.model: ScoreModel = build_model(recipe, classifier).to(device).to_channels_last()
        self.average = averaged(self.model.score_network, self.train.ema_decay)
        self.batches = Batches(features, "train", self.train.batch, self.train.seed, self.train.balance)
        self.modules: dict[str, nn.Module] = {"subnet": self.model.score_network, "average": self.average}
        optimizer = adamw(self.model.score_network, self.train, second=0.99)
        self.updater = Updater(self.model.score_network, optimizer, self.train.clip_norm, self.average)
        self.optimizers: dict[str, Optimizer] = {"adamw": optimizer}

    def draw(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Batch `step` at random noise levels, with labels for its taps."""
        batch = self.batches.at(step)
        clean = scale_mel(batch.log_mel.to(self.device), self.scale)
        if self.train.shift_frames:
            clean = shift_frames(clean, self.train.shift_frames, generator)
        return self.noised(clean, batch.label.to(self.device), generator)

    def noised(self, clean: Tensor, label: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Clean mels with noise of random levels; drops `1 - label_share` of the labels."""
        sigma = training_sigma(clean.shape[0], self.noise, generator)
        noised = add_noise(clean, sigma, generator)
        kept = torch.rand(label.shape, generator=generator, device=label.device) < self.label_share
        return {"clean": clean, "sigma": sigma, "noised": noised, "label": torch.where(kept, label, NO_LABEL)}

    def loss(self, step: int, drawn: Mapping[str, Tensor], part: Part) -> Losses:
        """The mean denoising loss."""
        self.model.score_network.train()
        loss = self.losses(drawn).mean()
        return Losses(loss, {"loss": loss})

    def losses(self, drawn: Mapping[str, Tensor]) -> Tensor:
        """Denoising losses (B,) of what `noised` gave."""
        noised, sigma = drawn["noised"], drawn["sigma"]
        with torch.autocast(self.device.type, self.autocast or torch.bfloat16, enabled=self.autocast is not None):
            taps = self.model.taps(noised, sigma, drawn["label"])
            denoised = self.model.denoise(taps, noised, sigma)
        return denoising_loss(denoised, drawn["clean"], sigma, self.noise)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss of the averaged subnet on up to 512 validation clips, the same noise every time."""
        trained, self.model.score_network = self.model.score_network, self.average.module.eval()  # type: ignore[assignment]
        generator = torch.Generator(self.device).manual_seed(self.train.seed)
        try:
            values = [
                self.losses(self.noised(scale_mel(batch.log_mel.to(self.device), self.scale), batch.label.to(self.device), generator))
                for batch in islice(in_order(self.features, "validation", 128), 4)
            ]
        finally:
            self.model.score_network = trained
        return {"loss": torch.cat(values).mean().item()}

    def weights(self) -> dict[str, Tensor]:
        return dict(self.average.module.state_dict())
