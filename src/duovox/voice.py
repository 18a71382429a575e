"""The public object: a bundle that listens and speaks. The command line, the page and the evaluation all call this.

Takes a `Bundle`; `classify` turns sound into probabilities, `generate` turns a label and seeds into clips, `generate_batch` several
labels at once; `calibrate` fits how far the classifier is believed at each noise level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from duovox.bundle import FILES, Bundle, BundleConfig, read_bundle, write_bundle
from duovox.calibration import Level, calibrate
from duovox.classifiers.external import ExternalClassifier
from duovox.config import SampleConfig
from duovox.contracts import BundleError, ConfigError, Denoiser, GenerationError, LabelError
from duovox.diffusion.guidance import Guided, Strength
from duovox.diffusion.noise import sigma_grid, vp_sigma, vp_times
from duovox.diffusion.sampler import dpmpp_2m, euler_maruyama, heun
from duovox.model import LabelledDenoiser
from duovox.networks.encoder import log_probabilities
from duovox.runs import features_for
from duovox.sound.audio import as_sound, is_file, read_excerpt
from duovox.sound.hearing import hear
from duovox.sound.mel import LogMel, scale_mel, unscale_mel
from duovox.sound.vocoder.griffin_lim import GriffinLim

VocoderName = Literal["neural", "griffin_lim"]
Watch = Callable[[float, Tensor], None]
"""Called with sigma and the denoised mels (B, 1, M, T) after every evaluation; what it raises ends the sampling."""


@dataclass(frozen=True)
class Clip:
    """One generated clip: wave (S,) float32 in [-1, 1] at `rate` Hz, log-mel (M, T), and how it came about.

    `probabilities` are what the same classifier hears in the finished wave.
    """

    wave: NDArray[np.float32] = field(repr=False)
    rate: int
    log_mel: NDArray[np.float32] = field(repr=False)
    label: str | None
    seed: int
    settings: SampleConfig
    vocoder: VocoderName
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Heard:
    """What the classifier hears in a sound: `probabilities` of each label, the log-mel (M, T) of the part they are of, and `notes` of
    what was done to hear it (see `Treatment.notes`)."""

    probabilities: dict[str, float]
    log_mel: NDArray[np.float32] = field(repr=False)
    notes: tuple[str, ...] = ()


class Duovox:
    """A classifier with two jobs. Make one with `from_pretrained`; it is not safe to share between threads."""

    def __init__(self, bundle: Bundle) -> None:
        self.config: BundleConfig = bundle.config
        self.bundle = bundle
        mel = bundle.config.recipe.mel
        self._log_mel = LogMel(mel)
        self._griffin_lim = GriffinLim(mel)
        self.device = torch.device("cpu")

    @classmethod
    def from_pretrained(cls, source: str | Path = "sc06", *, classifier: nn.Module | None = None, trust_code: bool = False) -> Duovox:
        """Open a bundle: the name of one inside the package, a folder, or a hub id `owner/name` (needs `duovox[hub]`).

        A bundle of someone else's classifier may need code to rebuild it: `trust_code` runs what it names, `classifier` gives the
        module itself (a copy of it is used). Raises `BundleError` where there is no bundle, it is damaged or needs something.
        """
        return cls(read_bundle(locate(source), network=classifier, trust_code=trust_code))

    def save_pretrained(self, folder: str | Path, force: bool = False) -> BundleConfig:
        """Write the bundle to a folder; returns its config. Raises `OutputError`."""
        return write_bundle(self.bundle, folder, force)

    def to(self, device: str | torch.device) -> Duovox:
        """Move every network to a device."""
        self.device = torch.device(device)
        for module in (self.bundle.model, self.bundle.vocoder, self._log_mel, self._griffin_lim):
            if module is not None:
                module.to(self.device)
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """The words it knows."""
        return self.config.labels

    def classify(self, sound: str | Path | BinaryIO | NDArray[Any] | Sequence[float], rate: int | None = None) -> dict[str, float]:
        """Probability of each label for a sound file (its path, or open), or for an array of samples at `rate` Hz.

        Shorter sounds are padded with silence; of longer ones the loudest second counts. Raises `AudioError`, for silence too.
        """
        return self.listen(sound, rate).probabilities

    def listen(self, sound: str | Path | BinaryIO | NDArray[Any] | Sequence[float], rate: int | None = None) -> Heard:
        """As `classify`, with the log-mel of the part that counts, and what was cut."""
        mel = self.config.recipe.mel
        if is_file(sound):
            excerpt = read_excerpt(sound, mel.sample_rate, mel.clip_samples)
        else:
            excerpt = hear(as_sound(sound, rate if rate is not None else mel.sample_rate), mel.sample_rate, mel.clip_samples)
        part = torch.from_numpy(excerpt.wave)[None].to(self.device)
        return Heard(self._hear(part)[0], self._log_mel(part)[0, 0].cpu().numpy(), excerpt.treatment.notes())

    @torch.no_grad()
    def _hear(self, wave: Tensor) -> list[dict[str, float]]:
        """Probabilities for waves (B, S) at the clean end of the noise range."""
        rows = log_probabilities(self._logits(wave)).exp().tolist()
        return [dict(zip(self.labels, row, strict=True)) for row in rows]

    def _logits(self, wave: Tensor) -> Tensor:
        """Logits for waves (B, S); someone else's classifier hears them through its own front end."""
        network = self.bundle.model.classifier.network
        if isinstance(network, ExternalClassifier):
            return network.hear(wave)
        mel = scale_mel(self._log_mel(wave), self.config.mel_scale)
        sigma = torch.full((wave.shape[0],), self.config.recipe.noise.sigma_min, device=wave.device)
        logits: Tensor = network(mel, sigma)
        return logits

    def generate(
        self,
        label: str | None = None,
        n: int = 1,
        *,
        gamma: float | None = None,
        steps: int | None = None,
        sampler: Literal["heun", "dpmpp_2m", "euler_maruyama"] | None = None,
        interval: tuple[float, float] | None = None,
        schedule: Literal["constant", "early", "late"] | None = None,
        guide_at: Literal["noised", "estimate"] | None = None,
        seed: int = 0,
        vocoder: VocoderName | None = None,
        batch: int = 8,
    ) -> list[Clip]:
        """Generate `n` clips of `label` (None: whatever comes), with seeds seed, seed + 1, ...

        A clip depends on its seed and settings alone, not on `n` or `batch`. Settings left out are the bundle's own.
        `interval` limits guidance to low <= sigma <= high, `schedule` says how its strength runs over sigma; `guide_at` says where
        the classifier is asked for the label, at the noised mel or at the estimate of the clean one. Raises `LabelError`,
        `ConfigError` and `GenerationError`.
        """
        if batch < 1:
            raise GenerationError(f"the batch must be at least 1, not {batch}")
        self.check_request(label, seed, n)
        settings = self.settings(gamma=gamma, steps=steps, sampler=sampler, interval=interval, schedule=schedule, guide_at=guide_at)
        wanted = [(label, number) for number in range(seed, seed + n)]
        return [clip for start in range(0, n, batch) for clip in self.generate_batch(wanted[start : start + batch], settings, vocoder)]

    def settings(
        self,
        *,
        gamma: float | None = None,
        steps: int | None = None,
        sampler: Literal["heun", "dpmpp_2m", "euler_maruyama"] | None = None,
        interval: tuple[float, float] | None = None,
        schedule: Literal["constant", "early", "late"] | None = None,
        guide_at: Literal["noised", "estimate"] | None = None,
    ) -> SampleConfig:
        """The bundle's settings of generation with those given in the place of its own. Raises `ConfigError`."""
        given = {"gamma": gamma, "steps": steps, "sampler": sampler, "schedule": schedule, "guide_at": guide_at}
        if interval is not None:
            given |= {"guidance_low": interval[0], "guidance_high": interval[1]}
        return self.config.recipe.sample.changed(given)

    def generate_batch(
        self,
        wanted: Sequence[tuple[str | None, int]],
        settings: SampleConfig | None = None,
        vocoder: VocoderName | None = None,
        watch: Watch | None = None,
    ) -> list[Clip]:
        """One clip for each (label, seed), all computed at once; the labels may differ, but either all are given or none.

        `watch` is told of every evaluation of the denoiser. Raises as `generate` does.
        """
        for label, seed in wanted:
            self.check_request(label, seed)
        labels, seeds = [label for label, _ in wanted], [seed for _, seed in wanted]
        named = [label for label in labels if label is not None]
        if named and len(named) < len(labels):
            raise GenerationError("a batch cannot mix clips with a label and clips without one")
        chosen, settings = self.choose_vocoder(vocoder), settings or self.config.recipe.sample
        return self._render(self.sample_mels(named or None, seeds, settings, watch), labels, seeds, settings, chosen)

    def sample_mels(
        self, label: str | Sequence[str] | None, seeds: Sequence[int], settings: SampleConfig, watch: Watch | None = None
    ) -> Tensor:
        """Scaled mels (B, 1, M, T), one per seed, of one label for all or one for each. Raises `GenerationError` if sampling runs off."""
        model, noise = self.bundle.model, self.config.recipe.noise
        draw = SeededNoise(seeds, (1, model.mel.n_mels, model.mel.frames), self.device)
        denoiser = self._denoiser(label, len(seeds), settings)
        if watch is not None:
            denoiser = Watched(denoiser, watch)
        with torch.no_grad():
            if settings.sampler == "euler_maruyama":
                times = vp_times(settings.steps)
                mels = euler_maruyama(denoiser, draw() * vp_sigma(times[0], noise).item(), times, noise, draw)
            else:
                sigmas = sigma_grid(settings.steps, noise)
                solve = heun if settings.sampler == "heun" else dpmpp_2m
                mels = solve(denoiser, draw() * sigmas[0].item(), sigmas)
        if not mels.abs().amax() <= MAX_MEL:  # false for NaN as well
            raise GenerationError(
                f"sampling with gamma {settings.gamma:g} and {settings.steps} steps ran off to no sound at all; lower gamma"
            )
        return mels

    def _denoiser(self, label: str | Sequence[str] | None, count: int, settings: SampleConfig) -> Denoiser:
        if label is None:
            return self.bundle.model
        names = [label] * count if isinstance(label, str) else label
        numbers = torch.tensor([self.labels.index(name) for name in names], device=self.device)
        labelled = LabelledDenoiser(self.bundle.model, numbers, settings.guide_at)
        low, high, sigma_data = settings.guidance_low, settings.guidance_high, self.config.recipe.noise.sigma_data
        strength = Strength(settings.gamma, low, high, settings.schedule, sigma_data)
        return Guided(labelled, strength)

    @torch.no_grad()
    def _render(
        self, mels: Tensor, labels: Sequence[str | None], seeds: Sequence[int], settings: SampleConfig, vocoder: VocoderName
    ) -> list[Clip]:
        log_mels = self.log_mels(mels)
        waves = self.vocode(log_mels, vocoder)
        rate = self.config.recipe.mel.sample_rate
        parts = zip(waves.cpu().numpy(), log_mels[:, 0].cpu().numpy(), labels, seeds, self._hear(waves), strict=True)
        return [Clip(wave, rate, log_mel, label, seed, settings, vocoder, heard) for wave, log_mel, label, seed, heard in parts]

    def log_mels(self, mels: Tensor) -> Tensor:
        """Scaled mels, as samplers make them, as log-mels within the range of sound; both (B, 1, M, T)."""
        return unscale_mel(mels, self.config.mel_scale).clamp(min=float(np.log(self.config.recipe.mel.floor)), max=MAX_LOG_MEL)

    def calibrate(self, data: str | Path, limit: int = 256) -> tuple[Level, ...]:
        """Fit one temperature a noise level on the validation split of a feature folder, for logits taken where the bundle's settings
        guide; guidance uses them from now on, and `save_pretrained` keeps them. Gives accuracy and calibration error on the test
        split before and after. Raises `DataError`.
        """
        recipe = self.config.recipe
        features = features_for(recipe, Path(data))
        fitted, levels = calibrate(self.bundle.model, features, self.config.mel_scale, recipe.sample.guide_at, limit=limit)
        self.config = replace(self.config, calibration=fitted)
        self.bundle = replace(self.bundle, config=self.config)
        return levels

    def vocode(self, log_mel: Tensor, vocoder: VocoderName | None = None) -> Tensor:
        """log-mel (B, 1, M, T), natural logarithm -> wave (B, S) in [-1, 1]. Raises `BundleError` if there is no such vocoder."""
        if self.choose_vocoder(vocoder) == "griffin_lim":
            waves: Tensor = self._griffin_lim(log_mel)
        else:
            assert self.bundle.vocoder is not None
            waves = self.bundle.vocoder(log_mel)
        return waves.clamp(-1, 1)

    def choose_vocoder(self, name: VocoderName | None) -> VocoderName:
        """The vocoder of that name, or the bundle's best for None. Raises `ConfigError`, or `BundleError` where it has no such."""
        if name is not None and name not in get_args(VocoderName):
            raise ConfigError(f"no vocoder named {name!r}; there are {', '.join(get_args(VocoderName))}")
        if name == "neural" and self.bundle.vocoder is None:
            raise BundleError("this bundle has no neural vocoder; use vocoder griffin_lim")
        return name or ("neural" if self.bundle.vocoder is not None else "griffin_lim")

    def check_request(self, label: str | None, seed: int, n: int = 1) -> None:
        """Raise `LabelError` for a label it does not know, and `GenerationError` for an impossible seed or number of clips."""
        if label is not None and label not in self.labels:
            raise LabelError(f"unknown label {label!r}; this model speaks: {', '.join(self.labels)}")
        if n < 1:
            raise GenerationError(f"the number of clips must be at least 1, not {n}")
        if seed < 0 or seed + n > 2**63:
            raise GenerationError(f"a seed must lie between 0 and 2^63, not {seed}")


MAX_MEL = 1000.0
"""Largest scaled mel that can still be sound: a real one lies within about -1..2 (a numerical guard, not a setting)."""

MAX_LOG_MEL = 6.0
"""Highest log-mel handed to a vocoder; a full-scale sine reaches about 2.6 (a numerical guard, not a setting)."""


@dataclass(frozen=True)
class Watched:
    """A denoiser that tells `watch` of every evaluation."""

    denoiser: Denoiser
    watch: Watch

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        denoised = self.denoiser(noised, sigma)
        self.watch(sigma[0].item(), denoised)
        return denoised


class SeededNoise:
    """Standard normal noise with one generator per clip: `draw()` -> (B, *shape). Clip i depends on its own seed alone."""

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...], device: torch.device) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.shape, self.device = shape, device

    def __call__(self) -> Tensor:
        return torch.stack([torch.randn(self.shape, generator=generator) for generator in self.generators]).to(self.device)


def locate(source: str | Path) -> Path:
    """The folder of a bundle given by name, folder or hub id, tried in this order. Raises `BundleError`.

    A name in the package comes first, so that the default bundle does not depend on where one stands; `./name` is the folder.
    """
    packaged = Path(__file__).parent / "bundles"
    names = sorted(p.name for p in packaged.iterdir() if p.is_dir()) if packaged.is_dir() else []
    if source in names:
        return packaged / source
    if Path(source).is_dir():
        return Path(source)
    if isinstance(source, str) and source.count("/") == 1 and not source.startswith((".", "/")):
        return _fetch_from_hub(source)
    raise BundleError(
        f"no bundle at {source}; give a bundle folder, a hub id owner/name, or one of those in the package: {', '.join(names) or 'none'}"
    )


def _fetch_from_hub(source: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise BundleError(f"no folder {source}; to fetch it from the hub: pip install 'duovox[hub]'") from None
    try:
        return Path(snapshot_download(source, allow_patterns=list(FILES)))
    except Exception as error:  # the hub client raises many kinds; each means that there is no bundle to open
        raise BundleError(f"no folder {source}, and the hub did not give it: {str(error).splitlines()[0]}") from None
