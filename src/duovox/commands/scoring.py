"""The commands that score: `evaluate`, `experiment`, `judge`, `inspect`. Take clips, models or recipes; give reports and pages."""

from __future__ import annotations

import json
import math
import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from duovox.commands.options import parse_seconds, refuse_existing
from duovox.config import read_recipe
from duovox.contracts import ConfigError


def evaluate(
    what: Positional[str],
    /,
    data: Path,
    judge: Path | None = None,
    n: int | None = None,
    gamma: float | None = None,
    steps: int | None = None,
    sampler: Literal["heun", "dpmpp_2m", "euler_maruyama"] | None = None,
    unconditional: bool = False,
    clips: Path | None = None,
    recipe: str | None = None,
    trust_code: bool = False,
    quality: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    fid: bool = True,
    resamples: int = 200,
    batch: int = 8,
    device: Literal["auto", "cpu", "cuda"] = "cpu",
    out: Path | None = None,
    force: bool = False,
) -> None:
    """Score a folder of clips, anyone's, or a model, beside as many real train and test clips, by an independent judge.

    A clip's label is the key "label" of a JSON file beside it, or the name of its sub-folder. A model's clips are made first.

    Args:
        what: A folder of clips, at any depth; or a bundle (name, folder, hub id); or a folder of runs, the --out of trainings.
        data: Feature folder of the real recordings, made by `duovox data prepare`.
        judge: Weights of a judge trained on the same labels; the one in the package (zero..five) if left out.
        n: How many clips of each label a model makes, seeds 0, 1, ...; 50 if left out.
        gamma: Strength of the guidance, the model's own if left out.
        steps: Steps of the sampler, the model's own if left out.
        sampler: Which sampler, the model's own if left out.
        unconditional: Make as many clips in all, without labels.
        clips: Keep a model's clips in this folder, and go on with those there.
        recipe: The recipe of a folder of runs; `compact` if left out.
        trust_code: Run the code that a bundle of someone else's classifier names or holds.
        quality: Also measure quality without a reference: dnsmos, or an ONNX file such as SCOREQ's (extra `quality`).
        limit: Score this many clips, taken at random.
        seed: Seed of every random choice in scoring.
        fid: Compute FID, which needs more clips than the judge has features.
        resamples: Resamples of each bootstrap interval; 0 leaves them out.
        batch: Clips made at once; changes speed and memory, not the clips.
        device: Where to compute.
        out: Also write the report as <out>.json and <out>.md.
        force: Overwrite reports that exist.
    """
    places = [out.with_name(out.name + suffix) for suffix in (".json", ".md")] if out else []
    refuse_existing(places, force)
    from duovox.devices import choose_device
    from duovox.evaluation.judge import PACKAGED_JUDGE
    from duovox.evaluation.quality import load_quality
    from duovox.evaluation.report import Scoring, evaluate_folder
    from duovox.evaluation.systems import Generation, evaluate_model, open_system
    from duovox.files import write_whole

    wanted = Generation(50 if n is None else n, gamma, steps, sampler, unconditional, batch)
    options = {"n": n, "gamma": gamma, "steps": steps, "sampler": sampler, "unconditional": unconditional or None, "clips": clips}
    given = [f"--{name}" for name, value in options.items() if value is not None]
    system, measure, chosen = open_system(what, recipe, trust_code), load_quality(quality) if quality else None, str(choose_device(device))
    if isinstance(system, Path) and given:
        raise ConfigError(f"{what} is a folder of clips; {', '.join(given)} would be for a model that makes them")
    scoring = Scoring(limit, seed, fid, measure, resamples, command="duovox " + shlex.join(sys.argv[1:]))
    if isinstance(system, Path):
        report = evaluate_folder(system, judge or PACKAGED_JUDGE, data, scoring, chosen)
    else:
        report = evaluate_model(system, judge or PACKAGED_JUDGE, data, wanted, clips, scoring, Path(what).resolve().name, chosen)
    for place, text in zip(places, (report.to_json(), report.to_markdown()), strict=False):
        write_whole(place, text.encode(), force=force, parents=True)
    print(report.to_markdown())


def experiment(
    which: Positional[Literal["table1", "regimes", "gamma", "shift"]],
    /,
    data: Path,
    out: Path,
    results: Path | None = None,
    recipe: str = "compact",
    judge: Path | None = None,
    classifier: Path | None = None,
    vocoder: str | None = None,
    n: int = 50,
    seeds: int | None = None,
    updates: int | None = None,
    sampler: Literal["heun", "dpmpp_2m", "euler_maruyama"] | None = None,
    steps: int | None = None,
    words: Path | None = None,
    noise: Path | None = None,
    only: str | None = None,
    time_budget: str | None = None,
    quality: str | None = None,
    quality_clips: int = 40,
    fid: bool = True,
    batch: int = 8,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
) -> None:
    """Train the score models of an experiment with equal budget, sample and score them, and write a page.

    table1 compares the U-Net, the Score Subnet and its gradient taps; regimes trains on little data, or on some labels alone; gamma
    varies the guidance of the recipe's own system; shift trains on noisy recordings and on words the classifier does not know.
    Does what is missing: call it again after an interruption, or to go on.

    Args:
        which: The experiment.
        data: Feature folder made by `duovox data prepare`.
        out: Folder for trainings and clips; experiments may share it.
        results: Folder for the page, its plots, pictures and sounds; <out>/results if left out.
        recipe: Name of a shipped recipe, or a TOML file.
        judge: Weights of a judge trained on the same labels; the one in the package (zero..five) if left out.
        classifier: Run folder of a classifier trained with the same recipe and data; one is trained if left out.
        vocoder: A bundle (name, folder, hub id) whose vocoder makes the sound; Griffin-Lim if left out.
        n: How many clips of each label in a trial.
        seeds: How many sets of sampling seeds; 3 (gamma: 1) if left out.
        updates: Updates of every score model, instead of the recipe's.
        sampler: Which sampler, instead of the recipe's.
        steps: Its steps, instead of the recipe's.
        words: For shift: feature folder of words that the classifier does not know.
        noise: For shift: folder of noise recordings.
        only: The name of one system: do nothing for the others.
        time_budget: Stop after this long, as 90s, 20m or 1.5h.
        quality: Also measure quality without a reference: dnsmos, or an ONNX file such as SCOREQ's (extra `quality`).
        quality_clips: On how many clips of each set quality is measured, at most.
        fid: Compute FID, where there are more clips than the judge has features.
        batch: Clips made at once; changes speed and memory, not the clips.
        device: Where to compute; auto takes CUDA where there is one.
        precision: Arithmetic of trainings and sampling; auto takes bf16 where the hardware is fast at it.
    """
    budget, settings = parse_seconds(time_budget) if time_budget else math.inf, read_recipe(recipe)
    from duovox.experiments.suite import Options, run_experiment

    options = Options(
        settings,
        data,
        out,
        judge,
        classifier,
        vocoder,
        n,
        seeds,
        updates,
        only,
        budget,
        quality,
        fid,
        device,
        precision,
        batch,
        sampler,
        steps,
        words,
        noise,
        quality_clips,
        results,
    )
    finished = run_experiment(which, options)
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
    what: Positional[str] = "sc06",
    /,
    data: Path | None = None,
    trust_code: bool = False,
    as_json: Annotated[bool, arg(name="json")] = False,
) -> None:
    """Say what a bundle or a recipe is: parameters, multiply-accumulates a step, settings, origin, scores.

    Args:
        what: A bundle (name, folder, hub id), or a recipe (name or TOML file).
        data: Feature folder; adds the classifier's accuracy at each noise level on its test split (bundles only).
        trust_code: Run the code that a bundle of someone else's classifier names or holds.
        as_json: Print JSON.
    """
    from duovox.inspection import describe, describe_text

    facts = describe(what, data, trust_code)
    print(json.dumps(facts, indent=2) if as_json else describe_text(facts))
