"""Results as the replies of the API, with the command and the Python that give the same. Takes them from `tasks`; gives `schemas`."""

from __future__ import annotations

import math
import shlex
from base64 import b64encode
from typing import TYPE_CHECKING, get_args

from duovox import __version__
from duovox.config import SampleConfig
from duovox.serve.pictures import picture
from duovox.serve.schemas import (
    ClassifyReply,
    ClipReply,
    Format,
    FrameReply,
    GenerateReply,
    GenerateRequest,
    Limits,
    MelShape,
    ModelReply,
    Parameters,
    Sampler,
    SettingsReply,
)
from duovox.serve.settings import MAX_CLIPS, MAX_GAMMA, MAX_STEPS, ServeConfig
from duovox.serve.tasks import Speak, Spoken
from duovox.sound.audio import encode_audio

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from duovox.voice import Clip, Duovox, Heard, VocoderName


def model_reply(voice: Duovox, config: ServeConfig) -> ModelReply:
    """Facts of the bundle."""
    from duovox.costs import parameters

    bundle, mel = voice.bundle, voice.config.recipe.mel
    parts = (bundle.model.classifier.network, bundle.model.score_network, bundle.vocoder)
    classifier, subnet, vocoder = (0 if part is None else parameters(part) for part in parts)
    return ModelReply(
        name=config.name,
        labels=list(voice.labels),
        digest=voice.config.digest,
        parameters=Parameters(classifier=classifier, subnet=subnet, vocoder=vocoder),
        rate=mel.sample_rate,
        seconds=mel.clip_samples / mel.sample_rate,
        mel=MelShape(rows=mel.n_mels, columns=mel.frames, low_hz=mel.fmin, high_hz=mel.fmax),
        defaults=settings_reply(voice.config.recipe.sample, voice.choose_vocoder(None)),
        vocoders=["griffin_lim"] if bundle.vocoder is None else ["neural", "griffin_lim"],
        samplers=list(get_args(Sampler)),
        limits=Limits(
            n=MAX_CLIPS, steps=MAX_STEPS, gamma=MAX_GAMMA, upload_bytes=config.upload_bytes, upload_seconds=config.upload_seconds
        ),
        version=__version__,
    )


def generate_reply(spoken: list[Spoken], wanted: GenerateRequest, task: Speak, digest: str, bundle: str) -> GenerateReply:
    """The answer to `wanted`, which was done as `task` with the bundle of that name and digest."""
    return GenerateReply(
        clips=[clip_reply(one, wanted) for one in spoken],
        settings=settings_reply(task.settings, task.vocoder),
        digest=digest,
        command=command_line(wanted, bundle),
        python=python_code(wanted, bundle),
    )


def clip_reply(spoken: Spoken, wanted: GenerateRequest) -> ClipReply:
    clip = spoken.clip
    frames = [FrameReply(sigma=frame.sigma, mel=picture(frame.log_mel, like=clip.log_mel)) for frame in spoken.frames]
    return ClipReply(
        label=clip.label,
        seed=clip.seed,
        rate=clip.rate,
        seconds=len(clip.wave) / clip.rate,
        media_type=f"audio/{wanted.format}",  # type: ignore[arg-type]
        audio=b64encode(sound_file(clip, wanted.format)).decode(),
        probabilities=clip.probabilities,
        mel=picture(clip.log_mel) if wanted.mel else None,
        frames=frames or None,
    )


def sound_file(clip: Clip, kind: Format) -> bytes:
    """The bytes of the file that `duovox generate` writes."""
    return encode_audio(clip.wave, clip.rate, f".{kind}")


def classify_reply(heard: Heard, wave: NDArray[np.float32], rate: int) -> ClassifyReply:
    probabilities = heard.probabilities
    best = max(probabilities, key=probabilities.__getitem__)
    return ClassifyReply(probabilities=probabilities, label=best, seconds=len(wave) / rate, mel=picture(heard.log_mel))


def settings_reply(settings: SampleConfig, vocoder: VocoderName) -> SettingsReply:
    low, high = settings.guidance_low, settings.guidance_high
    interval = (low, None if math.isinf(high) else high)
    return SettingsReply(sampler=settings.sampler, steps=settings.steps, gamma=settings.gamma, interval=interval, vocoder=vocoder)


def interval_of(wanted: GenerateRequest) -> tuple[float, float] | None:
    """The interval of a request, in which null means no upper end."""
    if wanted.interval is None:
        return None
    low, high = wanted.interval
    return low, math.inf if high is None else high


def command_line(wanted: GenerateRequest, bundle: str) -> str:
    """The command that gives the same clips; settings left out of the request are left out here."""
    words = ["duovox", "generate", "any" if wanted.label is None else wanted.label]
    words += ["--n", str(wanted.n)] if wanted.n > 1 else []
    words += ["--seed", str(wanted.seed)]
    for name in ("gamma", "steps", "sampler", "vocoder"):
        value = getattr(wanted, name)
        words += [] if value is None else [f"--{name}", f"{value}"]
    words += ["--interval", *(f"{end}" for end in interval_of(wanted) or ())] if wanted.interval else []
    words += ["--bundle", bundle] if bundle != "sc06" else []
    words += ["--format", wanted.format] if wanted.format != "wav" else []
    return shlex.join(words)


def python_code(wanted: GenerateRequest, bundle: str) -> str:
    """The Python that gives the same clips."""
    given = [repr(wanted.label), f"n={wanted.n}", f"seed={wanted.seed}"]
    given += [f"{name}={value!r}" for name in ("gamma", "steps", "sampler", "vocoder") if (value := getattr(wanted, name)) is not None]
    if interval := interval_of(wanted):
        high = repr(interval[1]) if math.isfinite(interval[1]) else "float('inf')"
        given.append(f"interval=({interval[0]!r}, {high})")
    source = repr(bundle) if bundle != "sc06" else ""
    return f"from duovox import Duovox\n\nclips = Duovox.from_pretrained({source}).generate({', '.join(given)})\n"
