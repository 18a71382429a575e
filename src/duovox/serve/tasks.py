"""The two things the voice is asked to do: speak and listen. Run in the worker's thread; give clips, frames and probabilities to `app`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from duovox.config import SampleConfig

if TYPE_CHECKING:
    from torch import Tensor

    from duovox.steering import ScheduledGuide
    from duovox.voice import Clip, Duovox, Heard, VocoderName

MAX_FRAMES = 24

LogMel = NDArray[np.float32]


@dataclass(frozen=True)
class Frame:
    """The clean mel as it was guessed at noise level `sigma`: a log-mel (M, T)."""

    sigma: float
    log_mel: LogMel


@dataclass(frozen=True)
class Spoken:
    """A clip and how it came out of the noise (no frames unless they were asked for)."""

    clip: Clip
    frames: tuple[Frame, ...] = ()


@dataclass(frozen=True)
class Speak:
    """Generate clips; items are (label, seed). `labelled` keeps clips with a label and clips without one in different batches, `guides`
    clips that are steered otherwise."""

    settings: SampleConfig
    vocoder: VocoderName
    labelled: bool
    frames: bool
    guides: tuple[ScheduledGuide, ...] = ()

    def run(self, voice: Duovox, items: Sequence[tuple[str | None, int]], check: Callable[[], None]) -> list[Spoken]:
        film = Film(self.settings) if self.frames else None

        def callback(sigma: float, denoised: Tensor) -> None:
            check()
            if film is not None:
                film.see(sigma, lambda: voice.log_mels(denoised)[:, 0].cpu().numpy())

        clips = voice.generate_batch(items, self.settings, self.vocoder, callback, self.guides)
        return [Spoken(clip, () if film is None else film.frames(index, clip.log_mel)) for index, clip in enumerate(clips)]


@dataclass(frozen=True)
class Listen:
    """Say what the classifier hears; items are waves (S,) at the voice's own rate."""

    def run(self, voice: Duovox, items: Sequence[NDArray[np.float32]], check: Callable[[], None]) -> list[Heard]:
        heard = []
        for wave in items:
            check()
            heard.append(voice.listen(wave))
        return heard


class Film:
    """Keeps evenly chosen evaluations of a sampling, at most MAX_FRAMES with the first and the last."""

    def __init__(self, settings: SampleConfig) -> None:
        count = evaluations(settings)
        self.chosen = {round(number) for number in np.linspace(count - 1, 0, min(count, MAX_FRAMES))}
        self.seen = 0
        self.kept: list[tuple[float, LogMel]] = []

    def see(self, sigma: float, log_mels: Callable[[], LogMel]) -> None:
        """The next evaluation: log-mels (B, M, T), made only if they are kept."""
        if self.seen in self.chosen:
            self.kept.append((sigma, log_mels()))
        self.seen += 1

    def frames(self, index: int, finished: LogMel) -> tuple[Frame, ...]:
        """The frames of clip `index`; the last evaluation shows what it led to, the finished log-mel (M, T)."""
        *before, (last_sigma, _) = self.kept
        return (*(Frame(sigma, log_mels[index]) for sigma, log_mels in before), Frame(last_sigma, finished))


def evaluations(settings: SampleConfig) -> int:
    """How often a sampler asks the denoiser: Heun corrects every step but the last (see `sampler`)."""
    return 2 * settings.steps - 1 if settings.sampler == "heun" else settings.steps
