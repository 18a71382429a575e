"""What the page of the experiment augment says beside its figures: takes options and what was opened, gives sentences to `page`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from duovox.data.choosing import first_train_clips
from duovox.experiments.options import Options
from duovox.experiments.spotting.espeak import version
from duovox.experiments.spotting.options import Spotting
from duovox.experiments.spotting.own import updates_of_bundle
from duovox.experiments.spotting.sounds import Sounds
from duovox.experiments.spotting.spotters import LEARNT_SNRS, Spotters
from duovox.provenance import machine, versions
from duovox.shipped import DEFAULT_BUNDLE
from duovox.voice import Duovox


@dataclass(frozen=True)
class Story:
    """The command, what was done, what is left, where the figures come from; `available` are the real train clips of the rarest command."""

    words: Sequence[str]
    done: str
    left: Sequence[str]
    sources: Sequence[str]
    available: int


def tell(options: Options, sounds: Sounds, spotters: Spotters, seeds: int, left: Sequence[str], missing: str) -> Story:
    """`missing` says why there are no rule-based clips, if there are none."""
    sources = [_data(sounds), *_own_voices(sounds), _rules(missing), *(f"Note: {note}." for note in sounds.notes), _machine(spotters)]
    return Story(command_words(options, sounds.spotting), _done(sounds.spotting, spotters, seeds), left, sources, _available(sounds))


def _available(sounds: Sounds) -> int:
    features, commands = sounds.features, sounds.spotting.commands
    return min(len(first_train_clips(features, [command], len(features.label))) for command in commands)


def _done(spotting: Spotting, spotters: Spotters, seeds: int) -> str:
    exam, config = spotters.exam, spotters.config
    other = 0 if exam.other is None else len(exam.other)
    negatives = (
        f" Hard negatives are {spotting.between} generated clips a word between it and the other words of the bundle, for an output of "
        "their own."
    )
    noise = (
        f" Spotters learn every clip twice, once in noise at {LEARNT_SNRS[0]:g} to {LEARNT_SNRS[1]:g} dB, of the first half of every noise "
        "recording; they are asked in the second halves."
    )
    return (
        f"A small classifier of {', '.join(spotting.commands)} (the one of `evaluate --cas`), trained on real clips, on generated ones and "
        f"on both, {config.updates} updates of batch {config.batch} whatever the clips, {seeds} seeds, then tested on all "
        f"{len(exam.label)} real test clips of these words and on {other} of other words. The real clips of a row with fewer are among "
        "those of a row with more." + negatives * bool(spotting.between) + noise * (spotters.backgrounds is not None)
    )


def _data(sounds: Sounds) -> str:
    voice = Duovox.from_pretrained(sounds.bundle)
    settings = voice.settings()
    return (
        f"Data: `{sounds.features.digest[:16]}`. Voice trained on all data: {Path(sounds.bundle).name}, digest "
        f"`{voice.digest[:16]}`, {settings.sampler}, {settings.steps} steps, gamma {settings.gamma:g}; seeds 0, 1, ... of each word."
    )


def _own_voices(sounds: Sounds) -> Iterator[str]:
    training = sounds.training
    begun = f"from the weights of {Path(training.init).name}, which knows other words" if training.init else "from nothing"
    vocoder = "a vocoder that was lent" if training.vocoder else "Griffin-Lim"
    for heard in sounds.spotting.own_numbers:
        bundle = sounds.out / "own" / str(heard) / "bundle"
        if bundle.is_dir():
            updates = updates_of_bundle(bundle)
            yield (
                f"Voice trained on {heard} clips a word alone: recipe {training.recipe.name}, {begun}, {updates['classifier']} updates of "
                f"the classifier and {updates['subnet']} of the subnet, {vocoder}."
            )


def _rules(missing: str) -> str:
    if missing:
        return f"Note: {missing}."
    return f"Rules: {version()}; accent, timbre, speed and pitch drawn for each clip, the word at a drawn place in faint noise."


def _machine(spotters: Spotters) -> str:
    known = ", ".join(f"{name} {value}" for name, value in versions().items())
    return f"Machine of the spotters: {machine(torch.device(spotters.config.device))}. Versions: {known}."


def command_words(options: Options, spotting: Spotting) -> list[str]:
    """The command that does the same, with names in the place of paths."""
    plain, given = asdict(Spotting()), asdict(spotting)
    named = {"--data": "FEATURES", "--out": "OUT", "--recipe": options.recipe.name, "--seeds": options.seeds}
    named |= {"--noise": "NOISE" if options.noise else None, "--vocoder": Path(options.vocoder).name if options.vocoder else None}
    named |= {"--bundle": Path(options.bundle).name if options.bundle != DEFAULT_BUNDLE else None}
    named |= {"--precision": options.precision if options.precision != "auto" else None}
    words = [word for name, value in named.items() if value is not None for word in (name, str(value))]
    for name, value in given.items():
        if value != plain[name] and name != "workers":
            words += _option(name.replace("_", "-"), value)
    return ["duovox", "experiment", "augment", *words]


def _option(name: str, value: object) -> list[str]:
    if isinstance(value, bool):
        return [f"--{'' if value else 'no-'}{name}"]
    if name == "own-budget":
        return ["--own-budget", f"{value:g}s"]
    if isinstance(value, tuple):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}", Path(str(value)).name]
