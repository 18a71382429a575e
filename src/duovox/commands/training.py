"""The commands that make models: `train`, `bundle`, `calibrate`. Take features and runs; give runs and bundles."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from duovox.commands.options import parse_seconds
from duovox.config import SolutionConfig, read_recipe
from duovox.contracts import DuovoxError
from duovox.processes import follows
from duovox.shipped import DEFAULT_BUNDLE
from duovox.text import read_text

if TYPE_CHECKING:
    from duovox.bundle import BundleConfig


def train(
    part: Positional[Literal["classifier", "subnet", "student", "vocoder", "judge", "speaker"]],
    /,
    data: Path,
    out: Path,
    recipe: str = "compact",
    resume: bool = False,
    time_budget: str | None = None,
    fit: bool = True,
    updates: int | None = None,
    init: str | None = None,
    start: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    tensorboard: bool = False,
    on: str | None = None,
    teacher: str | None = None,
    trust_code: bool = False,
    accumulate: int = 1,
) -> None:
    """Train one part into <out>/<part>/. The subnet needs the classifier in the same <out>, the student its teacher and that one's
    solutions.

    Stops cleanly, with a checkpoint, on Ctrl-C, SIGTERM, when its terminal closes and at the end of the time budget; --resume goes on,
    with the schedule and the first weights that the run was started with. Several processes share every update and give the same run:
    `torchrun --nproc-per-node 8 -m duovox train ...`.

    Args:
        part: What to train.
        data: Feature folder made by `duovox data prepare`; for a student, the folder of solutions made by `duovox solve`.
        out: Folder for the runs of all parts.
        recipe: Name of a shipped recipe, or a TOML file.
        resume: Go on with the run in <out>/<part>/.
        time_budget: Stop after this long, as 90s, 20m or 1.5h. A new run gets a schedule that fits into it: warm-up, updates, cooldown.
        fit: Fit the schedule of a new run to the time budget; --no-fit leaves it as it is, to go on with in a later session.
        updates: Train for this many updates, instead of the recipe's.
        init: Start from these weights, as far as they fit: a run folder, a weights.safetensors, or a bundle (name, folder, hub id).
        start: With --init: leave out the first updates of the schedule, this many, with their batches and noise.
        device: Where to compute; auto takes CUDA where there is one.
        precision: Arithmetic; auto takes bf16 where the hardware is fast at it.
        tensorboard: Also log for TensorBoard (extra `tensorboard`).
        on: What the subnet is trained on: the run folder of a classifier (<out>/classifier if left out), or a bundle (name, folder,
            hub id). All but the subnet's own settings are then the bundle's, and words that it does not know have no label.
        teacher: The bundle (name, folder, hub id) that the student learns from; all but the student's own settings are its recipe's.
        trust_code: Run the code that a bundle of someone else's classifier (--on, --teacher) names or holds.
        accumulate: Cut every update into this many passes, to use less memory; classifier, subnet and student can.
    """
    budget = parse_seconds(time_budget) if time_budget else math.inf
    settings = read_recipe(recipe)
    from duovox.training.shares import LostProcessError
    from duovox.training.start import start_training

    try:
        outcome = start_training(
            part,
            settings,
            data,
            out,
            resume=resume,
            time_budget=budget,
            fit=fit,
            updates=updates,
            init=init,
            start=start,
            device=device,
            precision=precision,
            tensorboard=tensorboard,
            on=on,
            teacher=teacher,
            trust_code=trust_code,
            accumulate=accumulate,
        )
    except LostProcessError as error:
        if follows() and not error.unsaid:  # the first process says it
            sys.exit(1)
        raise
    if follows():
        return
    state = "finished" if outcome.complete else "stopped (go on with --resume)"
    print(f"{part}: {state} at step {outcome.step} of {outcome.updates}; weights in {out / part / 'weights.safetensors'}")


def solve(
    teacher: Positional[str] = DEFAULT_BUNDLE,
    /,
    *,
    out: Path,
    n: int = 8000,
    steps: int = 16,
    gammas: tuple[float, ...] = (3.0,),
    unlabelled: float = 0.1,
    batch: int = 32,
    time_budget: str | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    trust_code: bool = False,
) -> None:
    """Solve a bundle's guided sampling for many seeds, for a student to learn from: `duovox train student --teacher ... --data OUT`.

    Goes on with what is there: what a killed run has finished is kept, and a larger --n adds to it.

    Args:
        teacher: A bundle: name, folder or hub id.
        out: Folder for the solutions; about 10 KB a solution and step.
        n: How many solutions, rounded up to whole files of 64; all labels in turn.
        steps: Steps of DPM-Solver++(2M); their noise levels are the nodes between which a student can jump.
        gammas: Strength of the guidance; two values: a range, so that the student can be guided more and less.
        unlabelled: Share of the solutions that are of no label, and not guided.
        batch: Solutions computed at once; it must divide 64.
        time_budget: Stop after this long, as 90s, 20m or 1.5h.
        device: Where to compute; auto takes CUDA where there is one.
        precision: Arithmetic; auto takes bf16 where the hardware is fast at it.
        trust_code: Run the code that a bundle of someone else's classifier names or holds.
    """
    budget, config = parse_seconds(time_budget) if time_budget else math.inf, SolutionConfig(unlabelled, steps, gammas)
    from duovox.devices import choose_device
    from duovox.training.solutions import make_solutions
    from duovox.voice import Duovox

    chosen = choose_device(device)
    voice = Duovox.from_pretrained(teacher, trust_code=trust_code).to(chosen, precision)
    there, wanted = make_solutions(voice, out, n, config, batch, budget)
    print(f"{out}: {there} of {wanted} solutions" + ("" if there == wanted else "; the same command goes on"))


def bundle(
    runs: Positional[Path],
    /,
    out: Path,
    recipe: str = "compact",
    card: Path | None = None,
    scores: Path | None = None,
    vocoder: str | None = None,
    base: str | None = None,
    trust_code: bool = False,
    force: bool = False,
) -> None:
    """Make a bundle of the runs in a folder: classifier, subnet and, if there are such, student and vocoder.

    Args:
        runs: The --out of the trainings.
        out: The bundle folder to write.
        recipe: The recipe the parts were trained with; its default sampling settings become the bundle's.
        card: A Markdown file that becomes the model card.
        scores: A JSON file of scores to keep in the bundle.
        vocoder: A bundle (name, folder, hub id) whose vocoder to use where the runs hold none.
        base: A bundle (name, folder, hub id) that the subnet, student or vocoder in the folder was trained for: all else is taken from it.
        trust_code: Run the code that a base of someone else's classifier names or holds.
        force: Replace a bundle that is there.
    """
    from duovox.assemble import assemble, completed
    from duovox.bundle import write_bundle
    from duovox.voice import Duovox

    if vocoder and base:
        raise DuovoxError("--base brings its own vocoder; leave --vocoder out")
    figures, text = _read_json(scores) if scores else {}, _read_text(card) if card else ""
    if base:
        made = completed(Duovox.from_pretrained(base, trust_code=trust_code).bundle, runs, read_recipe(recipe), figures, text)
    else:
        borrowed = Duovox.from_pretrained(vocoder).bundle.vocoder if vocoder else None
        made = assemble(runs, read_recipe(recipe), figures, text, vocoder=borrowed)
    for warning in _unfinished(made.config):
        print(warning, file=sys.stderr)
    config = write_bundle(made, out, force)
    print(f"{out}: {', '.join(config.labels)}; digest {config.digest[:12]}")


def _unfinished(config: BundleConfig) -> Iterator[str]:
    """One line for each part whose training stopped before its last update. What was not trained by us has none."""
    from duovox.runs import updates_of

    external = config.recipe.external
    for part, run in config.origin.items():
        updates = updates_of(run, config.recipe, part)  # type: ignore[arg-type]  # an origin names parts
        if run["step"] < updates and not (part == "classifier" and external and not external.conditioned):
            yield f"duovox: warning: the {part} was trained for {run['step']} of {updates} updates; `duovox train {part} --resume` goes on"


def calibrate(
    bundle: Positional[Path], /, data: Path, out: Path | None = None, limit: int = 256, trust_code: bool = False, force: bool = False
) -> None:
    """Fit one temperature a noise level to a bundle's classifier, on the validation split; print what that changes on the test split.

    Args:
        bundle: A bundle folder, changed in place unless --out is given; or one by its name.
        data: Feature folder made by `duovox data prepare`.
        out: Write the calibrated bundle here instead.
        limit: About how many clips of each split to use.
        trust_code: Run the code that a bundle of someone else's classifier names or holds.
        force: Replace a bundle that is at --out.
    """
    from duovox.bundle.locating import packaged
    from duovox.calibration import levels_table
    from duovox.voice import Duovox

    if out is None and str(bundle) in packaged():
        raise DuovoxError(f"{bundle} is in the package and stays as it is; give --out for the calibrated bundle")
    voice = Duovox.from_pretrained(str(bundle), trust_code=trust_code)
    print(levels_table(voice.calibrate(data, limit)))
    voice.save_pretrained(out or bundle, force=force or out is None)


def _read_text(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise DuovoxError(f"cannot read {path}: {error}") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(_read_text(path)))
    except (TypeError, ValueError) as error:
        raise DuovoxError(f"{path} is not a JSON object: {error}") from None
