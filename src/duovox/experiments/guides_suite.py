"""The door to the experiment `guides`: takes the options of `duovox experiment`, opens voice, guides and instruments, carries the plan out
in a locked folder, writes the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from duovox.contracts import ConfigError
from duovox.data import Features, narrowed, open_features, relabelled
from duovox.devices import choose_device
from duovox.evaluation.judge import Judge, packaged_judge
from duovox.evaluation.quality import load_quality, sampled
from duovox.evaluation.reference import require_comparable
from duovox.evaluation.verifier import Verifier, train_verifier
from duovox.experiments.guides_page import write_guides_page
from duovox.experiments.guides_plan import PITCHES, RANKED, SPEAKERS, make_guides_plan, pitch_target
from duovox.experiments.guides_run import GuidesBench
from duovox.experiments.instruments import gather_panel, load_pitch_meter
from duovox.experiments.options import Options
from duovox.experiments.runner import Clock
from duovox.experiments.suite import Finished
from duovox.files import claimed
from duovox.guide_folder import GuideNetwork, read_guide
from duovox.steering import JoinedGuide
from duovox.voice import Duovox


def run_guides(options: Options) -> Finished:
    """Do what is missing of the experiment in `options.out`, as far as the time budget goes, and write its page. Nothing is trained but the
    verifier, where none is given. Raises as `run_experiment` does, and `GuideError` for guides that do not fit the voice."""
    clock = Clock(options.time_budget)
    _refuse_trainings(options)
    with claimed(options.out, "an experiment"):
        bench = open_guides_bench(options)
        if options.only is not None:
            bench.plan.condition(options.only)
        bench.run(clock, options.only)
        page = write_guides_page(bench, guides_words(options), options.results or options.out / "results")
        return Finished(page, tuple(bench.left()))


def open_guides_bench(options: Options) -> GuidesBench:
    """The plan, the voice with its guides, and the instruments; a verifier is trained where there is none. Raises `DataError` for too few
    real clips or speakers."""
    voice = Duovox.from_pretrained(options.bundle, trust_code=options.trust_code)
    voice.to(choose_device(options.device), options.precision)
    features = _features(options.data, voice)
    judge = Judge.load(options.judge or packaged_judge(voice.labels)).to(voice.device)
    judge.require(voice.labels)
    judge.refuse_guide(voice.bundle.model.classifier)
    pitch, speaker = _pitch(options, voice), _speaker(options, voice)
    strengths = pitch.strength if pitch else None, speaker.config.strength if speaker else None
    make_guides_plan(*strengths, options.n, curve_n=options.curve_n)  # whatever is wrong with the numbers, before a verifier is trained
    meter, quality = load_pitch_meter(), load_quality(options.quality) if options.quality else None
    verifier = _verifier(options)
    panel = gather_panel(open_features(options.data), verifier, SPEAKERS, RANKED)
    if speaker:
        voice.guide(speaker, like=panel.references[0])
    plan = make_guides_plan(*strengths, options.n, panel.wanted, options.sentences, PITCHES, options.curve_n)
    return GuidesBench(
        plan,
        options.out,
        voice,
        pitch,
        speaker,
        options.data,
        features,
        judge,
        verifier,
        meter,
        panel,
        quality=sampled(quality, options.quality_clips) if quality else None,
        fid=options.fid,
        batch=options.batch,
    )


def _refuse_trainings(options: Options) -> None:
    """Raise `ConfigError` for options of experiments that train score models."""
    names = ("classifier", "vocoder", "seeds", "updates", "sampler", "steps", "words", "noise")
    given = [f"--{name}" for name in names if getattr(options, name) is not None]
    if given:
        raise ConfigError(f"{', '.join(given)}: options of experiments that train score models; guides steers the voice --bundle as it is")


def _features(data: Path, voice: Duovox) -> Features:
    """The recordings of the voice's words. Raises `DataError` for other words or mels, and for too few clips."""
    features = open_features(data, voice.config.recipe.mel)
    known = [label for label in features.labels if label in voice.labels]
    kept = relabelled(narrowed(features, known), voice.labels, "unlabelled")
    require_comparable(kept, "train")
    return kept


def _pitch(options: Options, voice: Duovox) -> JoinedGuide | None:
    """The pitch guide, kept by the voice under its name. Raises `ConfigError` for one without frequencies."""
    if options.pitch is None:
        return None
    joined = voice.add_guide(options.pitch, trust_code=options.trust_code)
    pitch_target(PITCHES[0], joined.labels)
    return joined


def _speaker(options: Options, voice: Duovox) -> GuideNetwork | None:
    return None if options.speaker is None else read_guide(options.speaker, options.trust_code)


def _verifier(options: Options) -> Verifier:
    """The one given, or that of the folder, or a new one, which is kept there."""
    path = options.verifier or options.out / "verifier.safetensors"
    if not options.verifier and not path.is_file():
        train_verifier(open_features(options.data)).save(path)
    return Verifier.load(path)


def guides_words(options: Options) -> list[str]:
    """The command that does the same, with names in the place of paths."""
    named: dict[str, Any] = {
        "--data": "FEATURES",
        "--out": "OUT",
        "--bundle": Path(options.bundle).name,
        "--pitch": Path(options.pitch).name if options.pitch else None,
        "--speaker": Path(options.speaker).name if options.speaker else None,
        "--judge": "JUDGE" if options.judge else None,
        "--verifier": "VERIFIER" if options.verifier else None,
        "--n": options.n,
        "--curve-n": options.curve_n,
        "--sentences": options.sentences,
        "--quality": Path(options.quality).name if options.quality else None,
        "--quality-clips": options.quality_clips if options.quality else None,
        "--precision": options.precision if options.precision != "auto" else None,
        "--results": "RESULTS" if options.results else None,
        "--only": options.only,
    }
    given = [word for name, value in named.items() if value is not None for word in (name, str(value))]
    return ["duovox", "experiment", "guides", *given, *["--trust-code"] * options.trust_code, *["--no-fid"] * (not options.fid)]
