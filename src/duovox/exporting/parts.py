"""What of a bundle becomes a graph: the classifier as it listens, one step of denoising, one jump of the student, the vocoder.

Takes a `Bundle`, gives `Part`s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from duovox.bundle import Bundle
from duovox.contracts import BundleError, expand_to
from duovox.exporting.vocoder import PlainVocoder, noise_samples
from duovox.guides import LabelGuide
from duovox.model import Conditioned
from duovox.sound.mel import scale_mel
from duovox.sound.vocoder.istft_net import fixed_noise
from duovox.student import Student

SIGMAS = (0.02, 0.3, 1.3, 9.0, 60.0)
"""Noise levels at which a step is compared with PyTorch."""

SHARES = (0.0, 0.02, 0.3, 0.8)
"""To which share of its noise level a jump is compared with PyTorch."""


@dataclass(frozen=True)
class Part:
    """One graph to be: a function of tensors by name. `plain` is what PyTorch computes, where the function is another way to it.

    `draw(seed, batch)` gives fresh arguments, all (batch, ...) but for those in `whole`.
    """

    name: str
    function: Callable[..., Tensor]
    inputs: tuple[str, ...]
    output: str
    draw: Callable[[int, int], tuple[Tensor, ...]]
    plain: Callable[..., Tensor]
    whole: tuple[str, ...] = ()

    @property
    def batched(self) -> Sequence[bool]:
        return [name not in self.whole for name in self.inputs]


def parts_of(bundle: Bundle) -> tuple[Part, ...]:
    """Classifier, step, student (where there is one) and vocoder of a bundle. Raises `BundleError` where it has no neural vocoder."""
    jumps = () if bundle.student is None else (student_part(bundle, bundle.student),)
    return classifier_part(bundle), guided_step_part(bundle), *jumps, vocoder_part(bundle)


def classifier_part(bundle: Bundle) -> Part:
    """Our classifier takes a scaled mel; someone else's the wave, which its own front end makes into what it takes."""
    recipe, network, scale = bundle.config.recipe, bundle.model.classifier.network, bundle.config.mel_scale

    def hear_mel(mel: Tensor) -> Tensor:
        return network(mel, torch.full_like(mel[:, 0, 0, 0], recipe.noise.sigma_min))

    def hear_wave(wave: Tensor) -> Tensor:
        return network.hear(wave, wave, scale)

    def draw_wave(seed: int, batch: int) -> tuple[Tensor, ...]:
        return (0.1 * torch.randn(batch, recipe.mel.clip_samples, generator=_generator(seed)),)

    def draw_mel(seed: int, batch: int) -> tuple[Tensor, ...]:
        return (scale_mel(_sound_like(bundle, seed, batch), scale),)

    if network.bridge is None:
        return Part("classifier", hear_mel, ("mel",), "logits", draw_mel, hear_mel)
    return Part("classifier", hear_wave, ("wave",), "logits", draw_wave, hear_wave)


def guided_step_part(bundle: Bundle) -> Part:
    """(noised (B, 1, M, T), sigma (B,), label (B,), gamma (B,)) -> denoised, guided by gamma towards the label; label -1 with gamma 0
    is the model alone. Gamma is the strength at this sigma: intervals and schedules are the sampler's."""
    model, config = bundle.model, bundle.config
    recipe = config.recipe

    def step(noised: Tensor, sigma: Tensor, label: Tensor, gamma: Tensor) -> Tensor:
        guide = LabelGuide(model.classifier, label.clamp(min=0), recipe.sample.guide_at, recipe.noise.sigma_min, config.calibration)
        denoised, (gradient,) = Conditioned(model, label).with_gradients(noised, sigma, [guide])
        return denoised + expand_to(gamma * sigma.square(), noised) * gradient

    def draw(seed: int, batch: int) -> tuple[Tensor, ...]:
        noised, sigma, label = _noised(bundle, seed, batch)
        return noised, sigma, label, torch.where(label < 0, 0.0, recipe.sample.gamma)

    return Part("step", step, ("noised", "sigma", "label", "gamma"), "denoised", draw, step)


def student_part(bundle: Bundle, student: Student) -> Part:
    """(noised (B, 1, M, T), sigma (B,), to (B,), label (B,), gamma (B,)) -> the estimate of the jump from sigma to `to`; label -1 is none.
    A student that was taught one strength of guidance takes no gamma."""
    low, high = student.repertoire.gammas[0], student.repertoire.gammas[-1]
    inputs = ("noised", "sigma", "to", "label", "gamma")[: 5 if high > low else 4]

    def jump(noised: Tensor, sigma: Tensor, to: Tensor, label: Tensor, gamma: Tensor) -> Tensor:
        estimate: Tensor = student(noised, sigma, to, label, gamma)
        return estimate

    def jump_at_its_gamma(noised: Tensor, sigma: Tensor, to: Tensor, label: Tensor) -> Tensor:
        return jump(noised, sigma, to, label, torch.full_like(sigma, low))

    def draw(seed: int, batch: int) -> tuple[Tensor, ...]:
        noised, sigma, label = _noised(bundle, seed, batch)
        share = torch.tensor([SHARES[(seed + item) % len(SHARES)] for item in range(batch)])
        gamma = torch.linspace(low, high, batch + 1)[1:]
        return (noised, sigma, share * sigma, label, gamma)[: len(inputs)]

    function = jump if high > low else jump_at_its_gamma
    return Part("student", function, inputs, "estimate", draw, function)


def vocoder_part(bundle: Bundle) -> Part:
    """(log_mel (B, 1, M, T), noise (S,)) -> wave (B, clip_samples)."""
    vocoder = bundle.vocoder
    if vocoder is None:
        raise BundleError("this bundle has no neural vocoder, and Griffin-Lim cannot be exported; train one (`duovox train vocoder`)")
    noise = fixed_noise(noise_samples(vocoder))

    def draw(seed: int, batch: int) -> tuple[Tensor, ...]:
        return _sound_like(bundle, seed, batch), noise

    def plain(log_mel: Tensor, _noise: Tensor) -> Tensor:
        return vocoder(log_mel)

    return Part("vocoder", PlainVocoder(vocoder).eval(), ("log_mel", "noise"), "wave", draw, plain, ("noise",))


def _noised(bundle: Bundle, seed: int, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mels (B, 1, M, T) noised at levels (B,) in turn, and labels (B,), none among them."""
    config, generator = bundle.config, _generator(seed)
    sigma = torch.tensor([SIGMAS[(seed + item) % len(SIGMAS)] for item in range(batch)])
    clean = scale_mel(_sound_like(bundle, seed, batch), config.mel_scale)
    noised = clean + expand_to(sigma, clean) * torch.randn(clean.shape, generator=generator)
    return noised, sigma, (torch.arange(batch) + seed) % (len(config.labels) + 1) - 1


def _sound_like(bundle: Bundle, seed: int, batch: int) -> Tensor:
    """Log-mels (B, 1, M, T) of the level and spread of speech, smooth over time: a random walk around the scale's mean."""
    mel, scale = bundle.config.recipe.mel, bundle.config.mel_scale
    noise = torch.randn(batch, 1, mel.n_mels, mel.frames, generator=_generator(seed))
    smooth = torch.nn.functional.avg_pool2d(noise, 5, 1, 2, count_include_pad=False) * 5
    return scale.shift + smooth * scale.scale / (2 if scale.kind == "standard" else 4)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
