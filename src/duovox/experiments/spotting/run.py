"""The door to the experiment augment: takes the options of `duovox experiment augment`, trains what is missing, writes the page."""

from __future__ import annotations

from duovox.contracts import DataError
from duovox.data import Features
from duovox.data.choosing import first_train_clips
from duovox.data.noisy import Backgrounds, read_backgrounds
from duovox.devices import choose_device
from duovox.evaluation.cas import CasConfig
from duovox.evaluation.judge import CLIP_SAMPLES
from duovox.evaluation.reference import require_comparable
from duovox.experiments.options import Options
from duovox.experiments.runner import Clock
from duovox.experiments.spotting.espeak import missing_program
from duovox.experiments.spotting.mixtures import Mixture, make_mixtures
from duovox.experiments.spotting.options import Spotting, require_shared
from duovox.experiments.spotting.own import OwnTraining
from duovox.experiments.spotting.page import write_page
from duovox.experiments.spotting.sounds import Sounds
from duovox.experiments.spotting.spotters import Exam, Heard, Spotters
from duovox.experiments.spotting.story import tell
from duovox.experiments.suite import Finished
from duovox.files import claimed
from duovox.progress import say
from duovox.runs import features_for
from duovox.training.init import read_init
from duovox.voice import Duovox

SEEDS = 3


def run_augment(options: Options, spotting: Spotting) -> Finished:
    """Do what is missing in `options.out`, as far as the time budget goes, and write the page.

    Raises `ConfigError`, `DataError` and `LabelError` for what cannot be (before anything is made), `OutputError` for a folder that
    another run writes to, and what trainings and generation raise.
    """
    clock, sounds, spotters = Clock(options.time_budget), *_opened(options, spotting)
    missing = missing_program() if spotting.espeak else "espeak-ng was left out (--no-espeak)"
    mixtures, seeds = make_mixtures(spotting, espeak=not missing), range(options.seeds or SEEDS)
    if missing:
        say(missing)
    grades: dict[Mixture, list[Heard]] = {}
    with claimed(options.out, "an experiment"):
        for mixture in mixtures:
            heard = _graded(mixture, sounds, spotters, seeds, clock)
            if len(heard) == len(seeds):
                grades[mixture] = heard
        left = [f"spotters of {mixture}" for mixture in mixtures if mixture not in grades]
        story = tell(options, sounds, spotters, len(seeds), left, missing)
        return Finished(write_page(grades, story, options.results or options.out / "results"), tuple(left))


def _opened(options: Options, spotting: Spotting) -> tuple[Sounds, Spotters]:
    """All that can be refused is refused here; nothing is written."""
    require_shared(options)
    features, device = features_for(options.recipe, options.data), choose_device(options.device)
    require_comparable(features, "test")
    first_train_clips(features, spotting.commands, 1)
    voice = Duovox.from_pretrained(options.bundle)
    for command in spotting.commands:
        voice.resolve_label(command)
        _require_test_clips(features, command)
    vocoder = Duovox.from_pretrained(options.vocoder).bundle.vocoder if options.vocoder else None
    if vocoder is not None:
        vocoder.check(options.recipe.mel)
    if spotting.own_init and spotting.own_numbers:
        read_init(spotting.own_init, "subnet")
    training = OwnTraining(options.recipe, spotting.own_budget, spotting.own_init, vocoder, options.device, options.precision)
    sounds = Sounds(
        spotting, options.bundle, options.out, options.data, features, training, options.device, options.precision, options.batch
    )
    learnt, asked = _backgrounds(options, features)
    exam = Exam(features, spotting.commands, asked, device)
    config = CasConfig(updates=spotting.spotter_updates, device=str(device))
    return sounds, Spotters(options.out / "spotters", exam, config, learnt)


def _require_test_clips(features: Features, command: str) -> None:
    if not bool(((features.split == "test") & (features.label == features.labels.index(command))).any()):
        raise DataError(f"the test split has no clips of {command!r}; add clips of more speakers and prepare again")


def _backgrounds(options: Options, features: Features) -> tuple[Backgrounds, Backgrounds] | tuple[None, None]:
    """The noise that spotters learn in, and that of their exam, long enough for real clips and made ones; none where no folder is named."""
    if options.noise is None:
        return None, None
    rate, samples = features.mel.sample_rate, max(features.mel.clip_samples, CLIP_SAMPLES)
    return read_backgrounds(options.noise, rate, samples, clips=2).halves(samples)


def _graded(mixture: Mixture, sounds: Sounds, spotters: Spotters, seeds: range, clock: Clock) -> list[Heard]:
    """How the spotters of a mixture hear, as many as there was time for."""
    sets = sounds.of(mixture, clock)
    if sets is None:
        return []
    lesson, heard = spotters.lesson(sets), []
    for seed in seeds:
        if clock.left <= 0 and not spotters.known(mixture.name, lesson, seed):
            break
        heard.append(spotters.graded(mixture.name, lesson, seed))
    return heard
