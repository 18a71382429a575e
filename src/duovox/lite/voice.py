"""A voice without PyTorch: takes the folder that `duovox export` wrote; classifies sounds and generates clips as `Duovox` does.

Nothing on its path imports torch: onnxruntime runs the networks, numpy does the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from duovox.clip import MAX_LOG_MEL, Clip, Heard, VocoderName, check_request, fault_of, refuse_faulty
from duovox.config import Repertoire, SampleConfig
from duovox.contracts import BundleError, ConfigError, GenerationError
from duovox.labels import resolve
from duovox.lite.manifest import Manifest, check_files, read_manifest
from duovox.lite.mel import log_mel, scale_mel, unscale_mel
from duovox.lite.random import TorchNormal
from duovox.lite.sampling import Array, guidance_scale, sample, sample_jumps
from duovox.lite.sessions import Run, open_graph
from duovox.sound.audio import as_sound, is_file, read_excerpt
from duovox.sound.hearing import hear

NO_LABEL = -1
"""The number that says that no label is wanted, as in PyTorch's model."""


class Voice:
    """A classifier with two jobs, exported. Not safe to share between threads."""

    def __init__(self, folder: str | Path, threads: int | None = None) -> None:
        """Open an exported voice; `threads` to compute with, all processors if left out.

        Raises `BundleError` for a folder with missing, altered or foreign files, and where onnxruntime is too old; `DuovoxError` where it
        is not installed.
        """
        self.folder, self.threads = Path(folder), threads
        self.manifest = read_manifest(self.folder)
        check_files(self.folder, self.manifest.files)
        self._open: Mapping[str, Run] = {}

    @classmethod
    def of(cls, manifest: Manifest, graphs: Mapping[str, Run]) -> Voice:
        """A voice of graphs that are open already, by their names (`classifier`, `step`, `student`, `vocoder`)."""
        voice = cls.__new__(cls)
        voice.folder, voice.threads, voice.manifest, voice._open = Path(), None, manifest, graphs
        return voice

    @property
    def labels(self) -> tuple[str, ...]:
        """The words it knows."""
        return self.manifest.labels

    @property
    def digest(self) -> str:
        """The identity of the bundle it was made of."""
        return self.manifest.bundle

    @property
    def precision(self) -> str:
        """How its weights are stored; it computes in float32."""
        return self.manifest.precision

    def generate(
        self,
        label: str | None = None,
        n: int = 1,
        *,
        seed: int = 0,
        batch: int = 8,
        settings: SampleConfig | None = None,
        keep_faulty: bool = False,
        **changes: Any,
    ) -> list[Clip]:
        """Generate `n` clips of `label`, with seeds seed, seed + 1, ...: the clips that `Duovox.generate` gives for them, but for rounding.

        Takes and raises what that does.
        """
        if batch < 1:
            raise GenerationError(f"the batch must be at least 1, not {batch}")
        label, chosen = self.check_request(label, seed, n), self.settings(settings, **changes)
        wanted = [(label, number) for number in range(seed, seed + n)]
        clips = [clip for start in range(0, n, batch) for clip in self.generate_batch(wanted[start : start + batch], chosen)]
        if not keep_faulty:
            refuse_faulty(clips)
        return clips

    def generate_batch(
        self, wanted: Sequence[tuple[str | None, int]], settings: SampleConfig | None = None, vocoder: VocoderName | None = None
    ) -> list[Clip]:
        """One clip for each (label, seed), computed at once. A clip that ran off to noise says so in its `fault`. Raises `ConfigError` for
        settings that the exported step was not made for."""
        settings = self.settings(settings)
        if vocoder == "griffin_lim":
            raise ConfigError("an exported voice has the neural vocoder alone; leave the vocoder out")
        labels, seeds = [self.check_request(label, seed) for label, seed in wanted], [seed for _, seed in wanted]
        mels = self.sample_mels(labels, seeds, settings)
        finite = [bool(np.isfinite(mel).all()) for mel in mels]
        log_mels = self.log_mels(np.nan_to_num(mels))
        waves = self.vocode(log_mels)
        clips, rate = [], self.manifest.mel.sample_rate
        for place, (wave, made) in enumerate(zip(waves, log_mels[:, 0], strict=True)):
            fault = fault_of(wave, made) if finite[place] else "it holds values that are not finite"
            clips.append(Clip(wave, rate, made, labels[place], seeds[place], settings, "neural", self._hear(wave), fault))
        return clips

    def sample_mels(self, labels: Sequence[str | None], seeds: Sequence[int], settings: SampleConfig) -> Array:
        """Scaled mels (B, 1, M, T), as the sampler leaves them."""
        mel = self.manifest.mel
        shape = (1, mel.n_mels, mel.frames)
        numbers = np.array([NO_LABEL if label is None else self.labels.index(label) for label in labels], np.int64)
        if settings.sampler == "student":
            levels = self._repertoire(settings).levels_of(settings.steps)
            return sample_jumps(partial(self._jump, numbers, settings), seeds, shape, levels)
        return sample(partial(self._denoise, numbers, settings), seeds, shape, settings, self.manifest.noise)

    def _denoise(self, numbers: NDArray[np.int64], settings: SampleConfig, noised: Array, sigma: float) -> Array:
        gamma = guidance_scale(settings, sigma, self.manifest.noise.sigma_data)
        return self._ask("step", numbers, noised, sigma=sigma, gamma=np.where(numbers == NO_LABEL, 0.0, gamma))

    def _jump(self, numbers: NDArray[np.int64], settings: SampleConfig, noised: Array, sigma: float, to: float) -> Array:
        return self._ask("student", numbers, noised, sigma=sigma, to=to, gamma=settings.gamma)

    def _ask(self, graph: str, numbers: NDArray[np.int64], noised: Array, **values: float | NDArray[np.float64]) -> Array:
        """What a graph says of noised mels (B, 1, M, T) and labels (B,); `values` are numbers for all, or (B,)."""
        inputs = {"noised": noised.astype(np.float32, copy=False), "label": numbers}
        inputs |= {name: np.full(len(numbers), value, np.float32) for name, value in values.items()}
        return self._graph(graph)(*(inputs[name] for name in self.manifest.graphs[graph].inputs))

    def log_mels(self, mels: Array) -> Array:
        """Scaled mels, as samplers make them, as log-mels within the range of sound; both (B, 1, M, T)."""
        made = unscale_mel(mels, self.manifest.mel_scale)
        return np.clip(made, math.log(self.manifest.mel.floor), MAX_LOG_MEL).astype(np.float32)

    def vocode(self, log_mels: Array) -> Array:
        """log-mel (B, 1, M, T), natural logarithm -> wave (B, S) in [-1, 1]."""
        return self._graph("vocoder")(log_mels, self._noise)

    @cached_property
    def _noise(self) -> Array:
        """The vocoder's noise, always the same."""
        mel = self.manifest.mel
        return TorchNormal(0)(((mel.frames - 1) * mel.hop_length,))

    def classify(self, sound: str | Path | BinaryIO | NDArray[Any] | Sequence[float], rate: int | None = None) -> dict[str, float]:
        """Probability of each label for a sound file, or for an array of samples at `rate` Hz; see `Duovox.classify`."""
        return self.listen(sound, rate).probabilities

    def listen(self, sound: str | Path | BinaryIO | NDArray[Any] | Sequence[float], rate: int | None = None) -> Heard:
        """As `classify`, with the log-mel of the part that counts, and what was cut."""
        mel = self.manifest.mel
        if is_file(sound):
            excerpt = read_excerpt(sound, mel.sample_rate, mel.clip_samples)
        else:
            excerpt = hear(as_sound(sound, rate if rate is not None else mel.sample_rate), mel.sample_rate, mel.clip_samples)
        return Heard(self._hear(excerpt.wave), log_mel(excerpt.wave[None], mel)[0, 0], excerpt.treatment.notes())

    def _hear(self, wave: Array) -> dict[str, float]:
        """Probabilities for a wave (S,), as clean sound."""
        takes_mel = self.manifest.classifier.inputs == ("mel",)
        given = scale_mel(log_mel(wave[None], self.manifest.mel), self.manifest.mel_scale) if takes_mel else wave[None]
        logits = self._graph("classifier")(given.astype(np.float32))[0].astype(np.float64)
        shares = np.exp(logits - logits.max())
        return dict(zip(self.labels, (shares / shares.sum()).tolist(), strict=True))

    def settings(self, settings: SampleConfig | None = None, **changes: Any) -> SampleConfig:
        """`settings` (the voice's own if left out) with `changes`. Raises `ConfigError`, also where guidance was not exported that way,
        and where the student is asked as `Duovox.check_preset` does."""
        chosen = (settings or self.manifest.sample).changed(changes)
        if chosen.preset == "turbo" and self.manifest.repertoire is None:
            raise BundleError("preset turbo needs a distilled student, and this voice was exported without one; use preset balanced")
        if chosen.sampler == "student":
            self._repertoire(chosen)
        elif self.manifest.step is None:
            raise BundleError(f"sampler {chosen.sampler}: this voice was exported with its student alone; use preset turbo")
        if chosen.guide_at != self.manifest.sample.guide_at:
            raise ConfigError(
                f"sample.guide_at: this voice was exported to be guided at {self.manifest.sample.guide_at!r}, not at {chosen.guide_at!r}"
            )
        return chosen

    def _repertoire(self, settings: SampleConfig) -> Repertoire:
        """That of the student, which must know the settings. Raises `BundleError` where there is none, `GenerationError`."""
        if self.manifest.repertoire is None:
            raise BundleError("this voice was exported without a student; export a bundle that has one, or take another sampler")
        self.manifest.repertoire.check(settings, self.manifest.sample.guide_at)
        return self.manifest.repertoire

    def resolve_label(self, asked: str) -> str:
        """The label that is meant; see `labels.resolve`. Raises `LabelError` with the nearest words."""
        return resolve(asked, self.labels, self.manifest.languages)

    def check_request(self, label: str | None, seed: int, n: int = 1) -> str | None:
        """The label that is meant, None for none. Raises as `Duovox.check_request` does."""
        return check_request(label, seed, n, self.resolve_label)

    def _graph(self, name: str) -> Run:
        if name not in self._open:
            facts = self.manifest.graphs[name]
            opened = open_graph(self.folder / facts.file, facts.inputs, self.manifest.onnxruntime, self.threads)
            self._open = {**self._open, name: opened}
        return self._open[name]
