"""What a voice gives: clips and what is heard in sounds; which clips are no speech, and which requests cannot be met. No torch.

Taken by every door; made by `voice`, and by `lite` where there is no PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from duovox.config import GuideRecord, SampleConfig
from duovox.contracts import GenerationError

VocoderName = Literal["neural", "griffin_lim"]


@dataclass(frozen=True)
class Clip:
    """One generated clip: wave (S,) float32 in [-1, 1] at `rate` Hz, log-mel (M, T), and how it came about.

    `probabilities` are what the same classifier hears in the finished wave; `fault` says why it is no speech, if it ran off; `guides` are
    those that steered it beside the label.
    """

    wave: NDArray[np.float32] = field(repr=False)
    rate: int
    log_mel: NDArray[np.float32] = field(repr=False)
    label: str | None
    seed: int
    settings: SampleConfig
    vocoder: VocoderName
    probabilities: dict[str, float]
    fault: str = ""
    guides: tuple[GuideRecord, ...] = ()


@dataclass(frozen=True)
class Heard:
    """What the classifier hears in a sound: `probabilities` of each label, the log-mel (M, T) of the part they are of, and `notes` of
    what was done to hear it (see `Treatment.notes`)."""

    probabilities: dict[str, float]
    log_mel: NDArray[np.float32] = field(repr=False)
    notes: tuple[str, ...] = ()


MAX_LOG_MEL = 6.0
"""Highest log-mel handed to a vocoder; a full-scale sine reaches about 2.6 (a numerical guard, not a setting)."""


LOUDEST, MOST_CLIPPED, QUIETEST = 3.0, 0.05, 1e-4
"""What sound can be, in log-mel, share of samples at full scale, and peak: a full-scale sine reaches 2.6; among 2,400 recordings of
Speech Commands and of studio speech the loudest log-mel was 2.3, the largest share of clipped samples 0.035."""


def fault_of(wave: NDArray[np.float32], log_mel: NDArray[np.float32]) -> str:
    """Why a listener would call a clip noise or nothing, in words; empty for one that may be speech."""
    peak, clipped, loudest = np.abs(wave).max(), np.mean(np.abs(wave) >= 0.999), log_mel.max()
    if loudest > LOUDEST:
        return f"its log-mel reaches {loudest:.1f}, louder than a full-scale tone"
    if clipped > MOST_CLIPPED:
        return f"{clipped:.0%} of its samples are at full scale"
    return "it is silent" if peak < QUIETEST else ""


def refuse_faulty(clips: Sequence[Clip], total: int | None = None) -> None:
    """Raise `GenerationError` where some of the clips ran off: how many (of `total`), which seeds, why, and what to do."""
    faulty = [clip for clip in clips if clip.fault]
    if faulty:
        settings, seeds = faulty[0].settings, ", ".join(str(clip.seed) for clip in faulty[:8]) + ", ..." * (len(faulty) > 8)
        raise GenerationError(
            f"{len(faulty)} of {total or len(clips)} clips ran off to no speech (seed {seeds}: {faulty[0].fault}) with {settings.sampler}, "
            f"{settings.steps} steps and gamma {settings.gamma:g}; take more steps or a lower gamma"
        )


def check_request(label: str | None, seed: int, n: int, resolve: Callable[[str], str]) -> str | None:
    """The label that is meant (by `resolve`, which raises `LabelError`), None for none. Raises `GenerationError` for an impossible seed or
    number of clips."""
    meant = None if label is None else resolve(label)
    if n < 1:
        raise GenerationError(f"the number of clips must be at least 1, not {n}")
    if seed < 0 or seed + n > 2**63:
        raise GenerationError(f"a seed must lie between 0 and 2^63, not {seed}")
    return meant
