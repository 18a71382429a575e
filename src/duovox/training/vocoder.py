"""Training of the neural vocoder: takes waves from `data`, gives `training.loop` the losses of a step and the weights that ship.

Losses: L1 of the log-mel, multi-resolution spectra (arXiv 1910.11480), pitch, and after a while adversarial with feature matching.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from duovox.config import MelConfig, Recipe
from duovox.data import Batch, Batches, Features
from duovox.networks.layout import refuse_overrun
from duovox.sound.mel import LogMel
from duovox.sound.vocoder.discriminators import Discriminators, adversarial_loss, discriminator_loss, feature_loss
from duovox.sound.vocoder.istft_net import ISTFTNet
from duovox.sound.vocoder.source import measure_pitch, pitch_loss
from duovox.training.optim import Losses, Updater
from duovox.training.shares import WHOLE, Part

RESOLUTIONS = (128, 512, 2048)
VALIDATION_CLIPS = 96
PITCH_BATCH = 4  # batches of the pitch-only updates are this much larger
JUDGE_RATE = 2  # the discriminators' learning rate is this much higher than the generator's
PITCH_RATE = 4  # and the pitch head's learning rate is always this much higher
GAIN_DECIBELS = (-12.0, 6.0)
FIXED_WEIGHTS = {"pitch": 1.0, "adversarial": 1.0, "features": 4.0}
LEVEL = 0.1  # root mean square the discriminators hear every crop at


class SpectralLoss(nn.Module):
    """Distance of two waves (B, S) over several window lengths: L1 of log magnitudes plus relative error of magnitudes."""

    def __init__(self, sizes: tuple[int, ...] = RESOLUTIONS) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        return torch.stack([self.at(size, fake, real) for size in self.sizes]).mean()

    def at(self, size: int, fake: Tensor, real: Tensor) -> Tensor:
        window = torch.hann_window(size, device=fake.device)
        spectrum = torch.view_as_real(torch.stft(torch.cat([fake, real]), size, size // 4, window=window, return_complex=True))
        fake_size, real_size = (spectrum.square().sum(-1) + 1e-8).sqrt().chunk(2)
        relative = (fake_size - real_size).norm(dim=(1, 2)) / real_size.norm(dim=(1, 2)).clamp(min=1e-2)
        return (fake_size.log() - real_size.log()).abs().mean() + relative.mean()


def crop(waves: Tensor, mels: Tensor, mel: MelConfig, frames: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random stretch of each clip: waves (B, padded), mels (B, 1, M, T) -> (B, frames * hop), (B, 1, M, frames + 1).

    Of two random places the louder one is taken, since much of a clip is silence.
    """
    starts = torch.randint(0, mel.frames - frames, (waves.shape[0], 2), generator=generator, device=generator.device).to(waves.device)
    loudness = mels[:, 0].mean(dim=1).unfold(1, frames + 1, 1).mean(dim=2).gather(1, starts)
    first = starts.gather(1, loudness.argmax(dim=1, keepdim=True))
    in_mel = first + torch.arange(frames + 1, device=waves.device)
    in_wave = first * mel.hop_length + torch.arange(frames * mel.hop_length, device=waves.device)
    cut = mels[:, 0].gather(2, in_mel[:, None].expand(-1, mel.n_mels, -1))
    return waves.gather(1, in_wave), cut[:, None]


class VocoderTraining:
    """One vocoder in training, driven by `training.loop`; all randomness of an update comes from the generator it is given."""

    part = "vocoder"
    whole_batches = "its networks are updated in turn on the same batch"

    def __init__(self, recipe: Recipe, features: Features, device: torch.device, autocast: torch.dtype | None) -> None:
        self.settings, self.train, self.mel = recipe.vocoder, recipe.train_vocoder, recipe.mel
        self.device, self.autocast = device, autocast
        torch.manual_seed(self.train.seed)
        self.generator = ISTFTNet(self.settings, self.mel).to(device)
        self.discriminators = Discriminators(self.settings.discriminator_width).to(device)
        refuse_overrun(self.discriminators)
        self.ema = AveragedModel(self.generator, multi_avg_fn=get_ema_multi_avg_fn(self.train.ema_decay))
        self.modules: dict[str, nn.Module] = {"generator": self.generator, "discriminators": self.discriminators, "ema": self.ema}
        self.optimizers = {
            "generator": self.optimizer(self.generator_groups()),
            "discriminators": self.optimizer([{"params": list(self.discriminators.parameters()), "lr": JUDGE_RATE * self.train.rate}]),
        }
        clip = self.train.clip_norm
        self.updater = Updater(self.generator, self.optimizers["generator"], clip, self.ema)
        self.against = Updater(self.discriminators, self.optimizers["discriminators"], clip)
        self.log_mel, self.spectral_loss = LogMel(self.mel).to(device), SpectralLoss()
        self.batches = Batches(features, "train", self.train.batch, self.train.seed, self.train.balance)
        self.pitch_batches = Batches(features, "train", PITCH_BATCH * self.train.batch, self.train.seed, self.train.balance)
        self.respoken = features.respoken
        self.validation_waves = validation_waves(features).to(device)

    def optimizer(self, parameters: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=self.train.rate, betas=(0.8, 0.95), weight_decay=self.train.weight_decay)

    def generator_groups(self) -> list[dict[str, Any]]:
        """The pitch head learns faster than the rest: it has a plain cross-entropy to follow."""
        pitch = list(self.generator.pitch.parameters())
        rest = [parameter for name, parameter in self.generator.named_parameters() if not name.startswith("pitch.")]
        return [{"params": rest}, {"params": pitch, "lr": PITCH_RATE * self.train.rate}]

    def precision(self) -> AbstractContextManager[object]:
        return nullcontext() if self.autocast is None else torch.autocast(self.device.type, self.autocast)

    def draw(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Batch `step`: of the first updates, whole clips and their measured pitch; then crops, and the vocoder's noise and first phase.

        The first updates teach the pitch alone, on larger batches: nothing sounds right at a wrong pitch. `frames` is how many voiced
        frames there are to an item, of the whole batch.
        """
        if step < self.settings.pitch_updates:
            batch = self.pitch_batches.at(step)
            wave = self.pad(batch.wave)
            return {"log_mel": self.mels_of(batch, wave), **self.pitch_of(wave)}
        real, mel = self.crops(step, generator)
        start, noise = self.generator.draw_excitation(len(real), real.shape[1], generator)
        return {"real": real, "mel": mel, "start": start, "noise": noise, **self.pitch_of(real)}

    def pitch_of(self, wave: Tensor) -> dict[str, Tensor]:
        hertz, voiced = measure_pitch(wave, self.mel)
        return {"hertz": hertz, "voiced": voiced, "frames": (voiced.sum() / len(wave)).clamp(min=1 / len(wave)).expand(len(wave))}

    def loss(self, step: int, drawn: Mapping[str, Tensor], part: Part) -> Losses:
        """The generator's losses; once the adversarial part has begun, the discriminators are updated on the same rows first."""
        if "log_mel" in drawn:
            return self.pitch_alone(drawn)
        real = drawn["real"]
        with self.precision():
            fake, pitch_logits = self.generator.synthesise(drawn["mel"], drawn["start"], drawn["noise"])
        losses = self.reconstruction(fake, real) | {"pitch": self.pitch_error(pitch_logits, drawn)}
        weights = {"mel": self.settings.mel_weight, "spectrum": self.settings.stft_weight, **FIXED_WEIGHTS}
        if step >= self.settings.adversarial_after:
            heard = LEVEL / (real.square().mean(dim=1, keepdim=True).sqrt() + 1e-4)
            losses["discriminators"] = self.teach_discriminators(real * heard, fake.detach() * heard, part)
            losses |= self.adversarial(real * heard, fake * heard, part)
        return Losses(torch.stack([weights[name] * losses[name] for name in weights if name in losses]).sum(), losses)

    def pitch_alone(self, drawn: Mapping[str, Tensor]) -> Losses:
        with self.precision():
            logits = self.generator.pitch(drawn["log_mel"][:, 0])
        loss = self.pitch_error(logits, drawn)
        return Losses(loss, {"pitch": loss})

    def pitch_error(self, logits: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
        """The mean over the voiced frames of the whole batch, as a mean over items."""
        return pitch_loss(logits, drawn["hertz"], drawn["voiced"], drawn["frames"][0] * len(logits))

    def pad(self, wave: Tensor) -> Tensor:
        return nn.functional.pad(wave, (0, self.mel.padded_samples - wave.shape[1])).to(self.device)

    def crops(self, step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Crops of batch `step` at a random loudness: wave (B, frames * hop), log-mel (B, 1, M, frames + 1)."""
        batch = self.batches.at(step)
        wave = self.pad(batch.wave)
        low, high = GAIN_DECIBELS
        drawn = torch.rand(wave.shape[0], 1, generator=generator, device=generator.device).to(self.device)
        loudest = 0.98 / wave.abs().amax(dim=1, keepdim=True).clamp(min=1e-3)
        gain = torch.minimum(10 ** ((low + (high - low) * drawn) / 20), loudest)
        return crop(wave * gain, self.mels_of(batch, wave * gain, gain), self.mel, self.settings.crop_frames, generator)

    def mels_of(self, batch: Batch, wave: Tensor, gain: Tensor | None = None) -> Tensor:
        """The log-mels (B, 1, M, T) that the vocoder is given for waves (B, padded): theirs, or, of respoken features, those of a voice,
        louder by `gain` (B, 1)."""
        if not self.respoken:
            return self.log_mel(wave)
        louder = batch.log_mel.to(self.device) + (0.0 if gain is None else gain.log()[:, :, None, None])
        return louder.clamp(min=math.log(self.mel.floor))

    def reconstruction(self, fake: Tensor, real: Tensor) -> dict[str, Tensor]:
        fake_mel, real_mel = self.log_mel(torch.cat([fake, real])).chunk(2)
        frames = self.settings.crop_frames
        return {"mel": (fake_mel - real_mel)[..., : frames + 1].abs().mean(), "spectrum": self.spectral_loss(fake, real)}

    def teach_discriminators(self, real: Tensor, fake: Tensor, part: Part = WHOLE) -> Tensor:
        with self.precision():
            loss = discriminator_loss(self.discriminators(real), self.discriminators(fake))
        self.against.step(loss, part)
        return loss.detach()

    def adversarial(self, real: Tensor, fake: Tensor, part: Part = WHOLE) -> dict[str, Tensor]:
        self.discriminators.requires_grad_(False)
        with self.precision():
            with torch.no_grad():
                real_features = self.discriminators(real)
            fake_features = self.discriminators(fake)
            losses = {"adversarial": adversarial_loss(fake_features), "features": feature_loss(real_features, fake_features, part.mean)}
        self.discriminators.requires_grad_(True)
        return losses

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Copy-synthesis of validation clips by the averaged generator: L1 of the log-mel, log-spectral distance in decibels."""
        waves = self.validation_waves
        mels = self.log_mel(waves)
        fakes = torch.cat([self.ema.module(part) for part in mels.split(32)])
        log_spectrum = [(spectrum(wave, self.mel) + 1e-5).log() for wave in (fakes, waves)]
        distance = (log_spectrum[0] - log_spectrum[1]).square().mean(dim=1).sqrt().mean() * 8.6859
        return {"mel": (self.log_mel(fakes) - mels).abs().mean().item(), "log_spectral_distance": distance.item()}

    def weights(self) -> dict[str, Tensor]:
        """The averaged generator's state: what ships."""
        return {name: value.detach().clone() for name, value in self.ema.module.state_dict().items()}


def spectrum(wave: Tensor, mel: MelConfig) -> Tensor:
    """Magnitudes (B, bins, frames) of wave (B, S) with the mel's window."""
    window = torch.hann_window(mel.win_length, device=wave.device)
    return torch.stft(wave, mel.n_fft, mel.hop_length, mel.win_length, window, return_complex=True).abs()


def validation_waves(features: Features) -> Tensor:
    """Evenly spread validation clips, (N, S), in [-1, 1]."""
    indices = features.indices("validation")
    chosen = indices[:: max(len(indices) // VALIDATION_CLIPS, 1)][:VALIDATION_CLIPS]
    return torch.from_numpy(features.waves[chosen]).float() / 32768
