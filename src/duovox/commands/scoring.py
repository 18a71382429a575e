"""The commands that score: `evaluate`, `experiment`, `judge`, `inspect`. Take clips, models or recipes; give reports and pages."""

from __future__ import annotations

import json
import math
import shlex
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg
from tyro.constructors import PrimitiveConstructorSpec

from duovox.commands.options import Sampling, SamplingOptions, parse_seconds, refuse_existing
from duovox.config import Recipe, read_recipe
from duovox.contracts import ConfigError
from duovox.experiments.options import Options
from duovox.experiments.spotting.options import Spotting
from duovox.shipped import DEFAULT_BUNDLE

RECIPE = PrimitiveConstructorSpec[Recipe](
    nargs=1,
    metavar="STR",
    instance_from_str=lambda words: read_recipe(words[0]),
    is_instance=lambda value: isinstance(value, Recipe),
    str_from_instance=lambda recipe: [recipe.name],
)
"""A recipe by its name or file."""

SECONDS = PrimitiveConstructorSpec[float](
    nargs=1,
    metavar="TIME",
    instance_from_str=lambda words: parse_seconds(words[0]),
    is_instance=lambda value: isinstance(value, float),
    str_from_instance=lambda seconds: ["none" if seconds == math.inf else f"{seconds:g}s"],
)
"""A duration such as 90s, 20m or 1.5h."""


@dataclass(frozen=True)
class ExperimentOptions(Options):
    """`Options`, as words of a shell give them."""

    recipe: Annotated[Recipe, RECIPE] = field(default_factory=partial(read_recipe, "compact"))
    time_budget: Annotated[float, SECONDS] = math.inf


@dataclass(frozen=True)
class SpottingOptions(Spotting):
    """`Spotting`, as words of a shell give it."""

    own_budget: Annotated[float, SECONDS] = 3600.0


def evaluate(
    what: Positional[str],
    /,
    data: Path,
    judge: Path | None = None,
    n: int | None = None,
    sampling: SamplingOptions = Sampling(),  # noqa: B008 (frozen)
    guide: tuple[str, ...] = (),
    unconditional: bool = False,
    clips: Path | None = None,
    recipe: str | None = None,
    trust_code: bool = False,
    quality: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    fid: bool = True,
    resamples: int = 200,
    cas: bool = False,
    batch: int = 8,
    device: Literal["auto", "cpu", "cuda"] = "cpu",
    precision: Literal["auto", "fp32", "bf16"] = "fp32",
    out: Path | None = None,
    force: bool = False,
) -> None:
    """Score a folder of clips, anyone's, or a model, beside as many real train and test clips, by an independent judge.

    A clip's label is the key "label" of a JSON file beside it, or the name of its sub-folder. A model's clips are made first.

    Args:
        what: A folder of clips, at any depth; or a bundle (name, folder, hub id); or a folder of runs, the --out of trainings.
        data: Feature folder of the real recordings, made by `duovox data prepare`.
        judge: Weights of a judge trained on the same labels; the one in the package that knows the data's labels if left out.
        n: How many clips of each label a model makes, seeds 0, 1, ...; 50 if left out.
        sampling: Settings of sampling, the model's own where left out.
        guide: Guides that steer a model's clips, as in `duovox generate`: FOLDER-TARGET:GAMMA.
        unconditional: Make as many clips in all, without labels.
        clips: Keep a model's clips in this folder, and go on with those there.
        recipe: The recipe of a folder of runs; `compact` if left out.
        trust_code: Run the code that a bundle or a guide of someone else's classifier names or holds.
        quality: Also measure quality without a reference: dnsmos, or an ONNX file such as SCOREQ's (extra `quality`).
        limit: Score this many clips, taken at random.
        seed: Seed of every random choice in scoring.
        fid: Compute FID, which needs more clips than the judge has features.
        resamples: Resamples of each bootstrap interval; 0 leaves them out.
        cas: Also the classification accuracy score: small classifiers trained on the clips alone (three times, some minutes), and on as
            many real ones, tested on the real test clips.
        batch: Clips made at once; changes speed and memory, not the clips.
        device: Where to compute.
        precision: What a model samples in; auto takes bf16 where it is fast.
        out: Also write the report as <out>.json and <out>.md.
        force: Overwrite reports that exist.
    """
    places = [out.with_name(out.name + suffix) for suffix in (".json", ".md")] if out else []
    refuse_existing(places, force)
    from duovox.asking import read_guides
    from duovox.data import read_manifest
    from duovox.devices import choose_device
    from duovox.evaluation.cas import CasConfig
    from duovox.evaluation.judge import packaged_judge
    from duovox.evaluation.quality import load_quality
    from duovox.evaluation.report import evaluate_folder
    from duovox.evaluation.rows import Scoring
    from duovox.evaluation.systems import Generation, evaluate_model, open_system
    from duovox.files import write_whole

    system, place = open_system(what, recipe, trust_code), choose_device(device)
    measure = load_quality(quality) if quality else None
    exam = CasConfig(device=str(place)) if cas else None
    scoring = Scoring(limit, seed, fid, measure, resamples, exam, "duovox " + shlex.join(sys.argv[1:]))
    chosen = judge or packaged_judge(read_manifest(data).labels)
    if isinstance(system, Path):
        lower = None if precision == "fp32" else precision
        others = {"n": n, "unconditional": unconditional or None, "clips": clips, "precision": lower, "guide": guide or None}
        _refuse_generation(what, sampling, others)
        report = evaluate_folder(system, chosen, data, scoring, str(place))
    else:
        name, voice = Path(what).resolve().name, system.to(place, precision)
        steer = tuple(read_guides(voice, guide, trust_code))
        wanted = Generation(50 if n is None else n, sampling.given(), unconditional, batch, guides=steer)
        report = evaluate_model(voice, chosen, data, wanted, clips, scoring, name)
    for path, text in zip(places, (report.to_json(), report.to_markdown()), strict=False):
        write_whole(path, text.encode(), force=force, parents=True)
    print(report.to_markdown())


def _refuse_generation(what: str, sampling: Sampling, others: dict[str, Any]) -> None:
    """Raise `ConfigError` for options of making clips, where the clips are there already."""
    given = [f"--{name.replace('_', '-')}" for name, value in (others | sampling.given()).items() if value is not None]
    if given:
        raise ConfigError(f"{what} is a folder of clips; {', '.join(given)} would be for a model that makes them")


def experiment(
    which: Positional[Literal["table1", "regimes", "gamma", "shift", "augment", "guides"]],
    /,
    options: Annotated[ExperimentOptions, arg(name="")],
    spotting: Annotated[SpottingOptions, arg(name="")] = SpottingOptions(),
) -> None:
    """Train the score models of an experiment with equal budget, sample and score them, and write a page.

    table1 compares the U-Net, the Score Subnet and its gradient taps; regimes trains on little data, or on some labels alone; gamma
    varies the guidance of the recipe's own system; shift trains on noisy recordings and on words the classifier does not know; augment
    trains keyword spotters on real and on generated clips, and tests them on real ones; guides trains none of these: it steers a voice
    by pitch and speaker guides, and measures both by instruments that never guide.
    Does what is missing: call it again after an interruption, or to go on.

    Args:
        which: The experiment.
        options: How to carry it out.
        spotting: What augment tries.
    """
    if which == "augment":
        from duovox.experiments.spotting.run import run_augment

        finished = run_augment(options, spotting)
    else:
        spotting.refuse_for(which)
        from duovox.experiments.guides_suite import run_guides
        from duovox.experiments.suite import run_experiment

        finished = run_guides(options) if which == "guides" else run_experiment(which, options)
    print(f"{finished.page}: " + (f"left to do: {'; '.join(finished.left)}; the same command goes on" if finished.left else "complete"))


def judge(weights: Positional[Path], /, labels: str, out: Path, force: bool = False) -> None:
    """Make a judge of public ResNeXt-29 8x64 weights, for `--judge` of the other commands.

    Every tensor's name and shape must be right. To train one instead: `duovox train judge`, with judge = "resnext29" in the recipe
    (`paper` has it).

    Args:
        weights: A safetensors file of the weights alone; pickled files are refused.
        labels: The words it was trained on, in the order of its outputs, separated by commas.
        out: The judge file to write.
        force: Overwrite a file that exists.
    """
    from duovox.evaluation.judge import Judge

    made = Judge.import_resnext(weights, [name.strip() for name in labels.split(",")])
    made.save(out, force=force)
    print(f"{out}: {made.kind}, {len(made.labels)} labels, digest {made.digest}")


def inspect(
    what: Positional[str] = DEFAULT_BUNDLE,
    /,
    data: Path | None = None,
    trust_code: bool = False,
    as_json: Annotated[bool, arg(name="json")] = False,
) -> None:
    """Say what a bundle or a recipe is: parameters, multiply-accumulates a step, settings, origin, scores.

    Args:
        what: A bundle (name, folder, hub id), or a recipe (name or TOML file); of one name, the bundle.
        data: Feature folder; adds the classifier's accuracy at each noise level on its test split (bundles only).
        trust_code: Run the code that a bundle of someone else's classifier names or holds.
        as_json: Print JSON.
    """
    from duovox.inspection import describe, describe_text

    facts = describe(what, data, trust_code)
    print(json.dumps(facts, indent=2) if as_json else describe_text(facts))
