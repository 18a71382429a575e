"""The door to the experiments: takes the options of `duovox experiment`, carries the plan out in a locked folder, writes the page."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from duovox.contracts import ConfigError, DataError
from duovox.data import Features, add_background, narrowed, open_features
from duovox.data.noisy import read_backgrounds
from duovox.devices import choose_device
from duovox.evaluation.judge import Judge, packaged_judge
from duovox.evaluation.quality import load_quality, sampled
from duovox.evaluation.reference import require_comparable
from duovox.experiments.options import Options
from duovox.experiments.page import write_page
from duovox.experiments.plan import TRAIN_SNR, Experiment, Plan, make_plan
from duovox.experiments.robustness import measure_robustness
from duovox.experiments.runner import Bench, Clock
from duovox.files import claimed
from duovox.runs import features_for
from duovox.voice import Duovox


@dataclass(frozen=True)
class Finished:
    """How a call ended: the page, and what is left to do, in words."""

    page: Path
    left: tuple[str, ...]


def run_experiment(experiment: Experiment, options: Options) -> Finished:
    """Do what is missing of an experiment in `options.out`, as far as the time budget goes, and write its page.

    Raises `ConfigError`, `DataError` and `LabelError` for what cannot be (before anything is made), `OutputError` for a folder that
    another run writes to, and what trainings and evaluations raise.
    """
    clock = Clock(options.time_budget)
    _refuse_guides(options)
    bench = open_bench(experiment, options)
    if options.only is not None:
        bench.plan.system(options.only)
    with claimed(options.out, "an experiment"):
        if options.noise is not None and bench.others:
            add_background(options.data, options.noise, bench.others["noise"], TRAIN_SNR)
        bench.run(clock, options.only)
        robustness = measure_robustness(bench, options.noise, measure=clock.left > 0) if options.noise is not None else None
        page = write_page(bench, command_words(experiment, options), options.results or options.out / "results", robustness)
        return Finished(page, tuple(bench.left()))


def _refuse_guides(options: Options) -> None:
    """Raise `ConfigError` for options of the experiments that ask a voice that is there."""
    plain, names = Options(options.data, options.out), ("bundle", "pitch", "speaker", "verifier", "sentences", "trust_code")
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) != getattr(plain, name)]
    if given:
        raise ConfigError(f"{', '.join(given)}: options of the experiment guides (--bundle: and augment); leave them out here")


def open_bench(experiment: Experiment, options: Options) -> Bench:
    """The plan, and the judge, vocoder and quality measure it needs; nothing is written. Raises `DataError` for too few real clips."""
    sample = options.recipe.sample.changed({"sampler": options.sampler, "steps": options.steps})
    recipe, others = replace(options.recipe, sample=sample), _others(experiment, options)
    features = features_for(recipe, options.data)
    plan = make_plan(experiment, recipe, features.labels, options.n, options.seeds, options.updates)
    judge = Judge.load(options.judge or packaged_judge(features.labels)).to(choose_device(options.device))
    judge.require(features.labels)
    _require_clips(plan, features)
    vocoder = Duovox.from_pretrained(options.vocoder).bundle.vocoder if options.vocoder else None
    if vocoder is not None:
        vocoder.check(options.recipe.mel)
    return Bench(
        plan,
        options.out,
        options.data,
        features,
        judge,
        vocoder=vocoder,
        quality=sampled(load_quality(options.quality), options.quality_clips) if options.quality else None,
        fid=options.fid,
        classifier=options.classifier,
        device=options.device,
        precision=options.precision,
        batch=options.batch,
        others=others,
    )


def _require_clips(plan: Plan, features: Features) -> None:
    """Raise `DataError` unless each set of labels has real clips for its clips to be held against."""
    for _, labels in dict.fromkeys(group for system in plan.systems for group in system.groups):
        for split in ("train", "test"):
            require_comparable(narrowed(features, labels), split)


def _others(experiment: Experiment, options: Options) -> dict[str, Path]:
    """The feature folders of the shift experiment; that of the noisy recordings is made in `out`. Raises `ConfigError`, `DataError`."""
    if experiment != "shift":
        if options.words or options.noise:
            raise ConfigError("--words and --noise are the other data of the experiment shift; leave them out here")
        return {}
    if options.words is None or options.noise is None:
        raise ConfigError("shift needs --words, features of words the classifier does not know, and --noise, a folder of noise recordings")
    mel = options.recipe.mel
    if not len(open_features(options.words, mel).indices("test")):
        raise DataError("the test split of the other words has no clips; add clips of more speakers and prepare again")
    read_backgrounds(options.noise, mel.sample_rate, mel.clip_samples)
    return {"words": options.words, "noise": options.out / "data" / f"noise_{TRAIN_SNR:g}dB"}


def command_words(experiment: Experiment, options: Options) -> list[str]:
    """The command that does the same, with names in the place of paths."""
    named = {
        "--recipe": options.recipe.name,
        "--data": "FEATURES",
        "--out": "OUT",
        "--judge": "JUDGE" if options.judge else None,
        "--classifier": "CLASSIFIER" if options.classifier else None,
        "--vocoder": Path(options.vocoder).name if options.vocoder else None,
        "--n": options.n,
        "--seeds": options.seeds,
        "--updates": options.updates,
        "--sampler": options.sampler,
        "--steps": options.steps,
        "--words": "WORDS" if options.words else None,
        "--noise": "NOISE" if options.noise else None,
        "--results": "RESULTS" if options.results else None,
        "--quality": Path(options.quality).name if options.quality else None,
        "--quality-clips": options.quality_clips if options.quality else None,
        "--precision": options.precision if options.precision != "auto" else None,
        "--only": options.only,
    }
    given = [word for name, value in named.items() if value is not None for word in (name, str(value))]
    return ["duovox", "experiment", experiment, *given, *["--no-fid"] * (not options.fid)]
