"""Results as the replies of the API, with the command and the Python that give the same. Takes them from `tasks`; gives `schemas`."""

from __future__ import annotations

import math
import shlex
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, get_args

from duovox import __version__
from duovox.config import MAX_GUIDES, GuideRecord, SampleConfig
from duovox.contracts import GuideWay
from duovox.labels import counting
from duovox.serve.pictures import picture
from duovox.serve.sampling import Change, Setting, describe, differing, ends, plain
from duovox.serve.schemas import (
    ClassifyReply,
    ClipReply,
    Format,
    FrameReply,
    GenerateReply,
    GenerateRequest,
    GuideOffer,
    GuideReply,
    GuideRequest,
    Limits,
    MelShape,
    ModelReply,
    Parameters,
    SettingsReply,
)
from duovox.serve.settings import FEWEST_STEPS, MAX_CLIPS, MOST, MOST_GUIDED, ServeConfig
from duovox.serve.tasks import Speak, Spoken
from duovox.shipped import DEFAULT_BUNDLE
from duovox.sound.audio import encode_audio

if TYPE_CHECKING:
    from duovox.sound.hearing import Treatment
    from duovox.steering import JoinedGuide
    from duovox.voice import Clip, Duovox, Heard, VocoderName


def model_reply(voice: Duovox, config: ServeConfig) -> ModelReply:
    """Facts of the bundle."""
    from duovox.costs import parameters

    bundle, mel = voice.bundle, voice.config.recipe.mel
    own = voice.config.recipe.sample
    settings = _offered(describe(own), voice)
    parts = (bundle.model.classifier.network, bundle.model.score_network, bundle.vocoder, bundle.student and bundle.student.network)
    classifier, subnet, vocoder, student = (0 if part is None else parameters(part) for part in parts)
    return ModelReply(
        name=config.name,
        labels=counting(voice.labels),
        languages=voice.config.languages,
        digest=voice.config.digest,
        parameters=Parameters(classifier=classifier, subnet=subnet, vocoder=vocoder, student=student),
        rate=mel.sample_rate,
        seconds=mel.clip_samples / mel.sample_rate,
        mel=MelShape(rows=mel.n_mels, columns=mel.frames, low_hz=mel.fmin, high_hz=mel.fmax),
        defaults=settings_reply(own, voice.choose_vocoder(None)),
        settings=settings,
        presets={name: plain(begun) for name, begun in voice.presets().items()},
        fewest_steps=_fewest_steps(voice),
        vocoders=["griffin_lim"] if bundle.vocoder is None else ["neural", "griffin_lim"],
        guides=[_guide_offer(guide) for guide in voice.guides.values()],
        samplers=next(setting.choices or [] for setting in settings if setting.name == "sampler"),
        limits=Limits(
            n=MAX_CLIPS,
            steps=int(MOST["steps"]),
            gamma=MOST["gamma"],
            guides=MAX_GUIDES,
            guide_gamma=MOST_GUIDED,
            upload_bytes=config.upload_bytes,
            upload_seconds=config.upload_seconds,
        ),
        version=__version__,
    )


def _guide_offer(guide: JoinedGuide) -> GuideOffer:
    strength = guide.strength
    others = [way for way in get_args(GuideWay) if way != strength.way and strength.at == "estimate"]
    return GuideOffer(name=guide.name, labels=list(guide.labels), gamma=strength.gamma, ways=[strength.way, *others], digest=guide.digest)


def _guide_reply(guide: GuideRecord) -> GuideReply:
    gamma, way, candidates = guide.strength.gamma, guide.strength.way, guide.strength.candidates
    return GuideReply(name=guide.name, target=guide.target, gamma=gamma, way=way, candidates=candidates, digest=guide.digest)


def _offered(settings: list[Setting], voice: Duovox) -> list[Setting]:
    """The settings with those choices alone that the voice has: no student, where its bundle holds none."""
    without = set() if voice.bundle.student is not None else {"student", "turbo"}
    kept = {setting.name: [choice for choice in setting.choices or () if choice not in without] for setting in settings}
    return [setting.model_copy(update={"choices": kept[setting.name] or None}) for setting in settings]


def _fewest_steps(voice: Duovox) -> dict[str, int]:
    """The fewest steps of each sampler with which it speaks: those of the bundle's own settings do, and those a student was taught."""
    own, student = voice.config.recipe.sample, voice.bundle.student
    fewest = FEWEST_STEPS | ({} if student is None else {"student": student.evaluations[0]})
    return fewest | {own.sampler: min(own.steps, fewest.get(own.sampler, own.steps))}


def generate_reply(spoken: list[Spoken], wanted: GenerateRequest, task: Speak, voice: Duovox, bundle: str) -> GenerateReply:
    """The answer to `wanted`, which was done as `task` by the voice of the bundle of that name."""
    changes, guides = differing(task.settings, voice.config.recipe.sample), [guide.record for guide in task.guides]
    return GenerateReply(
        clips=[clip_reply(one, wanted) for one in spoken],
        settings=settings_reply(task.settings, task.vocoder),
        guides=[_guide_reply(guide) for guide in guides],
        digest=voice.config.digest,
        command=command_line(wanted, changes, bundle, guides),
        python=python_code(wanted, changes, bundle, guides),
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
        fault=clip.fault,
        mel=picture(clip.log_mel) if wanted.mel else None,
        frames=frames or None,
    )


def sound_file(clip: Clip, kind: Format) -> bytes:
    """The bytes of the file that `duovox generate` writes."""
    return encode_audio(clip.wave, clip.rate, f".{kind}")


def classify_reply(heard: Heard, done: Treatment) -> ClassifyReply:
    """What was heard in a sound to which that was done."""
    probabilities = heard.probabilities
    best = max(probabilities, key=probabilities.__getitem__)
    return ClassifyReply(
        probabilities=probabilities, label=best, seconds=done.length / done.rate, mel=picture(heard.log_mel), notes=list(done.notes())
    )


def settings_reply(settings: SampleConfig, vocoder: VocoderName) -> SettingsReply:
    low, high = ends(settings)
    return SettingsReply(**plain(settings), interval=(low, None if math.isinf(high) else high), vocoder=vocoder)


def command_line(wanted: GenerateRequest, changes: Mapping[str, Change], bundle: str, guides: Sequence[GuideRecord] = ()) -> str:
    """The command that gives the same clips; `changes` are the settings that are not the bundle's own. Guides are named as here: their
    folders are to be where the command is run."""
    words = ["duovox", "generate", "any" if wanted.label is None else wanted.label]
    words += ["--n", str(wanted.n)] if wanted.n > 1 else []
    words += ["--seed", str(wanted.seed)]
    for name, value in changes.items():
        words += _flag(name, value)
    words += ["--guide", *(_guide_word(*pair) for pair in zip(wanted.guides, guides, strict=True))] if guides else []
    words += ["--vocoder", wanted.vocoder] if wanted.vocoder else []
    words += ["--keep-faulty"] if wanted.keep_faulty else []
    words += ["--bundle", bundle] if bundle != DEFAULT_BUNDLE else []
    words += ["--format", wanted.format] if wanted.format != "wav" else []
    return shlex.join(words)


def _guide_word(asked: GuideRequest, guide: GuideRecord) -> str:
    """A guide as the command line has it; its way and candidates where the request says them."""
    way = f":{asked.way}" if asked.way else ""
    candidates = f":best-of-{asked.candidates}" if asked.candidates else ""
    return f"{guide.called}:{guide.strength.gamma:g}{way}{candidates}"


def _flag(name: str, value: Change) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", *map(str, value if isinstance(value, tuple) else (value,))]


def python_code(wanted: GenerateRequest, changes: Mapping[str, Change], bundle: str, guides: Sequence[GuideRecord] = ()) -> str:
    """The Python that gives the same clips."""
    given = [repr(wanted.label), f"n={wanted.n}", f"seed={wanted.seed}"]
    given += [f"{name}={_literal(value)}" for name, value in changes.items()]
    given += [f"vocoder={wanted.vocoder!r}"] if wanted.vocoder else []
    given += ["keep_faulty=True"] if wanted.keep_faulty else []
    source = repr(bundle) if bundle != DEFAULT_BUNDLE else ""
    if guides:
        made = ", ".join(_guide_call(*pair) for pair in zip(wanted.guides, guides, strict=True))
        said = f"clips = voice.generate({', '.join(given)}, guides=[{made}])"
        return f"from duovox import Duovox\n\nvoice = Duovox.from_pretrained({source})\n{said}\n"
    return f"from duovox import Duovox\n\nclips = Duovox.from_pretrained({source}).generate({', '.join(given)})\n"


def _guide_call(asked: GuideRequest, guide: GuideRecord) -> str:
    given = {name: getattr(asked, name) for name in ("way", "candidates")}
    more = "".join(f", {name}={value!r}" for name, value in given.items() if value is not None)
    return f"voice.guide({guide.name!r}, {_target(guide)}, gamma={guide.strength.gamma!r}{more})"


def _target(guide: GuideRecord) -> str:
    """A target as Python has it: a label alone, or labels with weights."""
    return repr(next(iter(guide.target)) if list(guide.target.values()) == [1.0] else guide.target)


def _literal(value: Change) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))})"
    return "float('inf')" if value == math.inf else repr(value)
