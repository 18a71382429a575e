"""The public object: a bundle that listens and speaks. The command line, the page and the evaluation all call this.

Takes a `Bundle`; `classify` turns sound into probabilities, `generate` turns a label and seeds into clips, `generate_batch` several
labels at once, both steered by further guides where some are given; `calibrate` fits how far the classifier is believed at each
noise level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from duovox.bundle import Bundle, BundleConfig, locate, read_bundle, write_bundle
from duovox.calibration import Level, calibrate
from duovox.clip import MAX_LOG_MEL, Clip, Heard, VocoderName, check_request, fault_of, refuse_faulty
from duovox.config import PRESETS, PresetName, SampleConfig
from duovox.contracts import NO_LABEL, BundleError, ConfigError, GenerationError, GuideError
from duovox.devices import Precision, choose_autocast
from duovox.diffusion.sampling import Callback
from duovox.guide_folder import GuideNetwork
from duovox.labels import resolve
from duovox.mels import best_starts, choose_student, sample_mels
from duovox.model import ScoreModel
from duovox.networks.encoder import log_probabilities
from duovox.runs import features_for
from duovox.shipped import DEFAULT_BUNDLE
from duovox.sound.audio import as_sound, is_file, read_excerpt
from duovox.sound.hearing import hear
from duovox.sound.mel import LogMel, unscale_mel
from duovox.sound.vocoder.griffin_lim import GriffinLim
from duovox.steering import OF_VOICE, JoinedGuide, ScheduledGuide, aim, aim_function, check_guides, opened, steering

__all__ = ["MAX_LOG_MEL", "Clip", "Duovox", "Heard", "VocoderName", "fault_of", "refuse_faulty"]


class Duovox:
    """A classifier with two jobs. Make one with `from_pretrained`; it is not safe to share between threads."""

    def __init__(self, bundle: Bundle) -> None:
        self.config: BundleConfig = bundle.config
        self.bundle = bundle
        for model in self._models():
            model.to_channels_last()
        mel = bundle.config.recipe.mel
        self._log_mel = LogMel(mel)
        self._griffin_lim = GriffinLim(mel)
        self.device = torch.device("cpu")
        self.guides: dict[str, JoinedGuide] = {}

    @classmethod
    def from_pretrained(
        cls, source: str | Path = DEFAULT_BUNDLE, *, classifier: nn.Module | None = None, trust_code: bool = False
    ) -> Duovox:
        """Open a bundle: the name of one inside the package, a folder, or a hub id `owner/name` (needs `duovox[hub]`).

        A bundle of someone else's classifier may need code to rebuild it: `trust_code` runs what it names, `classifier` gives the
        module itself (a copy of it is used). Raises `BundleError` where there is no bundle, it is damaged or needs something.
        """
        return cls(read_bundle(locate(source), network=classifier, trust_code=trust_code))

    def save_pretrained(self, folder: str | Path, force: bool = False) -> BundleConfig:
        """Write the bundle to a folder; returns its config. Raises `OutputError`."""
        return write_bundle(self.bundle, folder, force)

    def to(self, device: str | torch.device, precision: Precision = "fp32") -> Duovox:
        """Move every network to a device. `precision` is what classifier and score network sample in: `auto` takes bf16 where the device
        is fast at it, which gives other clips of the same seeds."""
        self.device = torch.device(device)
        self.sample_in(precision)
        guides = [guide.classifier for guide in self.guides.values()]
        for module in (self.bundle.model, self.bundle.vocoder, self.bundle.student, self._log_mel, self._griffin_lim, *guides):
            if isinstance(module, nn.Module):
                module.to(self.device)
        return self

    def sample_in(self, precision: Precision) -> None:
        """Sample in this arithmetic from now on (see `to`)."""
        for model in self._models():
            model.autocast = choose_autocast(precision, self.device)

    def _models(self) -> list[ScoreModel]:
        """The model, and the student's where there is one; they share the classifier."""
        return [self.bundle.model, *([] if self.bundle.student is None else [self.bundle.student.model])]

    @property
    def labels(self) -> tuple[str, ...]:
        """The words it knows."""
        return self.config.labels

    @property
    def digest(self) -> str:
        """The identity of its weights."""
        return self.config.digest

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
        """Probabilities for waves (B, S), as clean sound."""
        logits = self.bundle.model.classifier.network.hear(wave, self._log_mel(wave), self.config.mel_scale)
        rows = log_probabilities(logits).exp().tolist()
        return [dict(zip(self.labels, row, strict=True)) for row in rows]

    def generate(
        self,
        label: str | None = None,
        n: int = 1,
        *,
        seed: int = 0,
        vocoder: VocoderName | None = None,
        batch: int = 8,
        settings: SampleConfig | None = None,
        keep_faulty: bool = False,
        guides: Sequence[ScheduledGuide] = (),
        **changes: Any,
    ) -> list[Clip]:
        """Generate `n` clips of `label` (see `resolve_label`; None: whatever comes), with seeds seed, seed + 1, ...

        A clip depends on its seed and settings alone, not on `n` or `batch`. `settings` are the bundle's own if left out; `changes` are
        fields of `SampleConfig` by name in the place of theirs (preset="quality", gamma=2, steps=20, ...), or interval=(low, high).
        `guides`, made by `guide` and `function_guide`, steer the clips further, and are a part of what a clip depends on.
        Raises `LabelError`, `ConfigError`, `GuideError`, and `GenerationError`, also for clips that ran off to noise, unless `keep_faulty`.
        """
        if batch < 1:
            raise GenerationError(f"the batch must be at least 1, not {batch}")
        label = self.check_request(label, seed, n)
        chosen = self.settings(settings, **changes)
        wanted = [(label, number) for number in range(seed, seed + n)]
        batches = [wanted[start : start + batch] for start in range(0, n, batch)]
        clips = [clip for part in batches for clip in self.generate_batch(part, chosen, vocoder, None, guides)]
        if not keep_faulty:
            refuse_faulty(clips)
        return clips

    def add_guide(self, source: str | Path | GuideNetwork, *, trust_code: bool = False) -> JoinedGuide:
        """Keep a guide, from its folder or as `make_guide` gave it, under its name, for `guide` to find. Raises `GuideError`."""
        joined = self._joined(source, trust_code)
        if joined.name in self.guides or (joined.name in OF_VOICE and source not in OF_VOICE):
            raise GuideError(f"there is a guide {joined.name} already; rename the folder of one of them")
        self.guides[joined.name] = joined
        return joined

    def guide(
        self,
        source: str | Path | GuideNetwork,
        target: str | Mapping[str, float] | None = None,
        *,
        like: str | Path | NDArray[np.float32] | None = None,
        trust_code: bool = False,
        **changes: Any,
    ) -> ScheduledGuide:
        """A guide for `generate`, computing where the voice is now: `source` is the folder of one that `duovox guide` or `make_guide` made,
        the name of one that was added or is in the package, or of one that every voice has: "own", its classifier, "pitch", "loudness".

        `target` is a label of the guide, a value between two labels ("200Hz"), or weights by label: {"three": 0.5, "five": 0.5} wants both
        in equal parts, {"four": -1} keeps away from four. For a guide that embeds sounds, `like` is the sound to be near to in its
        place: a file, a folder of files, or a wave at the voice's rate. `changes` are fields of `GuideStrength`
        in the place of the guide's own (gamma=10, cap=0.3, ...), or interval=(low, high).
        Raises `GuideError`, `LabelError`, `ConfigError`; a guide of someone else's program is opened only with `trust_code`.
        """
        if like is not None and target is not None:
            raise GuideError("like= takes the place of a target; leave one of them out")
        kept = self.guides.get(source) if isinstance(source, str) and like is None else None
        return aim(kept or self._joined(source, trust_code, like), self.bundle, target, changes)

    def function_guide(self, function: Callable[[Tensor], Tensor], name: str = "", **changes: Any) -> ScheduledGuide:
        """A plain function of the estimated log-mel (B, 1, M, T), natural logarithm, as a guide: what it gives, (B,), is raised. Records
        name it and say nothing else of it. `changes` as in `guide`. Raises `GuideError`, `ConfigError`."""
        return aim_function(function, self.bundle, name or getattr(function, "__qualname__", type(function).__name__), changes)

    def _joined(
        self, source: str | Path | GuideNetwork, trust_code: bool, like: str | Path | NDArray[np.float32] | None = None
    ) -> JoinedGuide:
        joined = opened(source, self.bundle, trust_code, like)
        if isinstance(joined.classifier, nn.Module):
            joined.classifier.to(self.device)
        return joined

    @property
    def precision(self) -> Precision:
        """What it samples in."""
        return "bf16" if self.bundle.model.autocast == torch.bfloat16 else "fp32"

    def settings(self, settings: SampleConfig | None = None, **changes: Any) -> SampleConfig:
        """`settings` (the bundle's own if left out) with `changes`, as `generate` takes them. Raises `ConfigError`."""
        chosen = (settings or self.config.recipe.sample).changed(changes)
        self.check_preset(chosen)
        return chosen

    def presets(self) -> dict[PresetName, SampleConfig]:
        """The presets that this bundle has the parts for, as settings in full."""
        found: dict[PresetName, SampleConfig] = {}
        for name in PRESETS:
            with suppress(BundleError, GenerationError):
                found[name] = self.settings(preset=name)
        return found

    def check_preset(self, settings: SampleConfig) -> None:
        """Raise `BundleError` for settings that need a student where the bundle has none, `GenerationError` for those that it was not
        taught."""
        if settings.preset == "turbo" and self.bundle.student is None:
            raise BundleError("preset turbo needs a distilled student, and this bundle holds none; use preset balanced")
        if settings.sampler == "student":
            choose_student(self.bundle, settings)

    def generate_batch(
        self,
        wanted: Sequence[tuple[str | None, int]],
        settings: SampleConfig | None = None,
        vocoder: VocoderName | None = None,
        callback: Callback | None = None,
        guides: Sequence[ScheduledGuide] = (),
        starts: Sequence[int] | None = None,
    ) -> list[Clip]:
        """One clip for each (label, seed), all computed at once; the labels may differ, but either all are given or none.

        A clip that ran off to noise says so in its `fault`. `callback` is told of every evaluation of the denoiser (sigma, denoised
        mels), `guides` steer all clips alike. Each begins with noise number `starts[i]` of its seed, where none are given with the one that
        the guides choose. Raises as `generate` does, but for faults.
        """
        labels, seeds = [self.check_request(label, seed) for label, seed in wanted], [seed for _, seed in wanted]
        named = [label for label in labels if label is not None]
        if named and len(named) < len(labels):
            raise GenerationError("a batch cannot mix clips with a label and clips without one")
        if starts is not None and (len(starts) != len(seeds) or min(starts, default=0) < 0):
            raise GenerationError(f"starts must be the number of a noise, 0 or more, for each of {len(seeds)} clips, not {list(starts)}")
        chosen, settings = self.choose_vocoder(vocoder), self.settings(settings)
        mels = self.sample_mels(named or None, seeds, settings, callback, guides, starts)
        return _steered(self._render(mels, labels, seeds, settings, chosen), guides)

    def generate_between(
        self,
        wanted: Sequence[tuple[Mapping[str, float], int]],
        settings: SampleConfig | None = None,
        vocoder: VocoderName | None = None,
        guides: Sequence[ScheduledGuide] = (),
    ) -> list[Clip]:
        """One clip for each (shares of labels, seed), guided to where the classifier gives each label its share: {"three": 0.5,
        "five": 0.5} lies between two words. Their own label is None; `guides` steer all alike. Raises as `generate_batch` does, and
        `GenerationError` for shares that do not add up to 1 and for the student, which knows single labels alone.
        """
        chosen, settings, seeds = self.choose_vocoder(vocoder), self.settings(settings), [seed for _, seed in wanted]
        if settings.sampler == "student":
            raise GenerationError("a student says single words; take another sampler for what lies between them")
        shares = torch.stack([self._shares(given) for given, _ in wanted])
        for seed in seeds:
            self.check_request(None, seed)
        mels = self.sample_mels(shares, seeds, settings, guides=guides)
        return _steered(self._render(mels, [None] * len(seeds), seeds, settings, chosen), guides)

    def _shares(self, given: Mapping[str, float]) -> Tensor:
        """Shares (K,) of the labels, by names."""
        row = torch.zeros(len(self.labels), device=self.device)
        for name, share in given.items():
            row[self.labels.index(self.resolve_label(name))] += share
        if bool((row < 0).any()) or abs(float(row.sum()) - 1) > 1e-6:
            raise GenerationError(f"shares of labels must be positive and add up to 1, not {dict(given)}")
        return row

    def sample_mels(
        self,
        label: str | Sequence[str] | Tensor | None,
        seeds: Sequence[int],
        settings: SampleConfig,
        callback: Callback | None = None,
        guides: Sequence[ScheduledGuide] = (),
        starts: Sequence[int] | None = None,
    ) -> Tensor:
        """Scaled mels (B, 1, M, T), one per seed, of one label for all or one for each, or of shares (B, K) of the labels; unchecked, as
        the sampler leaves them."""
        check_guides(guides, settings)
        numbers = None if label is None else self._numbers(label, len(seeds))
        return sample_mels(self.bundle, numbers, seeds, settings, callback, steering(guides), self.device, starts)

    def shared_starts(
        self, wanted: Sequence[tuple[str, int]], settings: SampleConfig, guides: Sequence[ScheduledGuide] = ()
    ) -> list[int] | None:
        """The noises that guides choose for (label, seed), for `generate_batch`: the same one wherever the seed is the same. None where
        they leave the choice."""
        check_guides(guides, settings)
        seeds = [seed for _, seed in wanted]
        numbers = self._numbers([label for label, _ in wanted], len(seeds))
        return best_starts(self.bundle, numbers, seeds, settings, steering(guides), self.device, shared=True) or None

    def _numbers(self, label: str | Sequence[str] | Tensor | None, count: int) -> Tensor:
        """The numbers (B,) of the labels, `NO_LABEL` for none; shares (B, K) as they are."""
        if isinstance(label, Tensor):
            return label
        names = [label] * count if label is None or isinstance(label, str) else label
        return torch.tensor([NO_LABEL if name is None else self.labels.index(name) for name in names], device=self.device)

    @torch.no_grad()
    def _render(
        self, mels: Tensor, labels: Sequence[str | None], seeds: Sequence[int], settings: SampleConfig, vocoder: VocoderName
    ) -> list[Clip]:
        finite = mels.isfinite().flatten(1).all(dim=1).tolist()
        log_mels = self.log_mels(mels.nan_to_num())
        waves = self.vocode(log_mels, vocoder)
        rate, heard = self.config.recipe.mel.sample_rate, self._hear(waves)
        clips = []
        for place, (wave, log_mel) in enumerate(zip(waves.cpu().numpy(), log_mels[:, 0].cpu().numpy(), strict=True)):
            fault = fault_of(wave, log_mel) if finite[place] else "it holds values that are not finite"
            clips.append(Clip(wave, rate, log_mel, labels[place], seeds[place], settings, vocoder, heard[place], fault))
        return clips

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

    def resolve_label(self, asked: str) -> str:
        """The label that is meant by a word in other capitals or another Unicode form, or by a figure (see `labels.resolve`). Raises
        `LabelError` with the nearest words."""
        return resolve(asked, self.labels, self.config.languages)

    def check_request(self, label: str | None, seed: int, n: int = 1) -> str | None:
        """The label that is meant, None for none. Raises `LabelError` for one it does not know, and `GenerationError` for an impossible
        seed or number of clips."""
        return check_request(label, seed, n, self.resolve_label)


def _steered(clips: Sequence[Clip], guides: Sequence[ScheduledGuide]) -> list[Clip]:
    """Clips that say by which guides they were steered."""
    return [replace(clip, guides=tuple(guide.record for guide in steering(guides))) for clip in clips]
