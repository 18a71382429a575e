"""What a results page shows beside its tables: takes a bench with finished trials, gives plots (SVG), a sheet of log-mels (PNG) and
sounds (OGG). Plots need the extra `plots`.
"""

from __future__ import annotations

import importlib
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from duovox.data.features import FULL_SCALE
from duovox.experiments.plan import GUIDED, Condition, Trial
from duovox.experiments.results import Result, group_name
from duovox.experiments.runner import Bench
from duovox.files import safe_name, write_whole
from duovox.generation import Request
from duovox.sound.audio import read_audio, write_audio
from duovox.sound.hearing import fit_length
from duovox.sound.mel import LogMel
from duovox.sound.picture import sheet

COLUMNS = 8
"""Clips in a row of the sheet, at most."""

SPOKEN = {"table1": 2, "regimes": 1, "gamma": 1, "shift": 2}
"""Words that each trial shown says aloud, at most."""

CURVES = {"fid": "FID", "accuracy": "accuracy", "attribute_error": "attribute error", "nearest_own": "nearest own clip (diversity)"}
_COLOURS = {"unet": "#888888", "subnet_logsumexp": "#1f77b4", "subnet_label": "#d62728", "subnet_none": "#2ca02c"}


def plot_curves(results: Sequence[Result], metrics: Sequence[str], path: Path) -> bool:
    """Metrics against gamma: a row for each set of labels, a column for each metric, a line for each kind of system; conditions of
    a strength that depends on sigma are crosses. False, and no file, where matplotlib is missing.
    """
    plt = open_pyplot()
    if plt is None:
        return False
    groups = list(dict.fromkeys(group_name(r.regime, r.group) for r in results))
    picture, axes = plt.subplots(len(groups), len(metrics), figsize=(4 * len(metrics), 3 * len(groups)), squeeze=False)
    for row, group in zip(axes, groups, strict=True):
        for axis, metric in zip(row, metrics, strict=True):
            _draw(axis, [r for r in results if group_name(r.regime, r.group) == group], metric)
            axis.set(xlabel="gamma", ylabel=CURVES[metric], title=group)
    lines = {name: line for axis in axes.flat for line, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    if lines:
        picture.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=3, frameon=False)
    save_svg(picture, path)
    return True


def open_pyplot() -> Any | None:
    """matplotlib's pyplot, drawing the same bytes each time; None where matplotlib is missing."""
    try:
        mpl = importlib.import_module("matplotlib")
    except ImportError:
        return None
    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "duovox"
    return importlib.import_module("matplotlib.pyplot")


def save_svg(picture: Any, path: Path) -> None:
    """Write a picture and close it. Raises `OutputError`."""
    picture.set_layout_engine("constrained")
    buffer = io.BytesIO()
    picture.savefig(buffer, format="svg", metadata={"Date": None})
    importlib.import_module("matplotlib.pyplot").close(picture)
    write_whole(path, buffer.getvalue(), force=True, parents=True)


def _draw(axis: Any, results: Sequence[Result], metric: str) -> None:
    """One metric of all kinds of systems, with the range over the sampling seeds."""
    if not any(result.metric(metric) for result in results):
        axis.text(0.5, 0.5, "too few clips", transform=axis.transAxes, ha="center", va="center", color="grey")
        axis.set(xticks=[], yticks=[])
    for kind in dict.fromkeys(result.kind for result in results):
        points = [(r.condition, spread) for r in results if r.kind == kind and (spread := r.metric(metric))]
        for varied, style in ((False, "o-"), (True, "x")):
            chosen = [(c.gamma, s) for c, s in points if c.gamma is not None and c.varied == varied]
            if chosen:
                means = np.array([s.mean for _, s in chosen])
                ends = np.abs(np.array([[min(s.values) for _, s in chosen], [max(s.values) for _, s in chosen]]) - means)
                label = kind + ", interval or schedule" * varied
                axis.errorbar([gamma for gamma, _ in chosen], means, ends, fmt=style, color=_COLOURS.get(kind), label=label, capsize=2)


def shown(bench: Bench) -> list[Trial]:
    """The trials that stand for their systems: the first seeds, at the paper's gamma (the gamma experiment shows all conditions), or
    unconditional where there is nothing else."""
    trials = [t for t in bench.plan.trials if t.draw == 0 and "groups" in (bench.record(t) or {})]
    if bench.plan.experiment == "gamma":
        return trials
    guided = [t for t in trials if t.condition == Condition(GUIDED)]
    return guided + [t for t in trials if t.system not in {g.system for g in guided}]


def clips_of(bench: Bench, trial: Trial) -> dict[str, Path]:
    """The first clip of each label, or the first ones of an unconditional trial under their numbers."""
    folder, labels, seed = bench.clips_folder(trial), bench.plan.labels[:COLUMNS], trial.first_seed
    if trial.condition.gamma is None:
        count = min(COLUMNS, bench.plan.n * len(bench.plan.labels))
        return {str(number): folder / Request(None, seed + number).file for number in range(count)}
    return {label: folder / Request(label, seed).file for label in labels}


def write_sheet(bench: Bench, path: Path) -> list[str]:
    """Log-mels as one PNG: real clips, then a row for each trial shown; what the rows are, from the top."""
    trials = shown(bench)
    if not trials:
        return []
    rows = [_log_mels(bench, _real_waves(bench))]
    rows += [_log_mels(bench, [read_audio(clip, bench.features.mel.sample_rate) for clip in clips_of(bench, t).values()]) for t in trials]
    write_whole(path, sheet(rows), force=True, parents=True)
    return ["real recordings (train split)", *(f"{trial.system}, {trial.condition}" for trial in trials)]


def write_sounds(bench: Bench, folder: Path) -> list[str]:
    """The first words of each trial shown, unseen ones if there are such, as OGG files; their names."""
    names, rate, experiment = [], bench.features.mel.sample_rate, bench.plan.experiment
    for trial in shown(bench):
        _, wanted = bench.plan.system(trial.system).groups[-1]
        spoken = [(word, clip) for word, clip in clips_of(bench, trial).items() if not wanted or word in wanted]
        for word, clip in spoken[: SPOKEN[experiment]]:
            names.append(f"{experiment}_{trial.system}_{trial.condition.name}_{safe_name(word)}.ogg")
            write_audio(folder / names[-1], read_audio(clip, rate), rate, force=True, parents=True)
    return names


def _real_waves(bench: Bench) -> list[NDArray[np.float32]]:
    """The first train clip of each label."""
    train = bench.features.indices("train")
    label = bench.features.label[train]
    chosen = [int(train[np.argmax(label == number)]) for number in range(min(COLUMNS, len(bench.plan.labels)))]
    return [bench.features.waves[place].astype(np.float32) / FULL_SCALE for place in chosen]


@torch.no_grad()
def _log_mels(bench: Bench, waves: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    mel = bench.features.mel
    fitted = np.stack([fit_length(wave, mel.clip_samples) for wave in waves])
    found = LogMel(mel)(torch.from_numpy(fitted))[:, 0].clamp(min=math.log(mel.floor)).numpy()
    return list(found)
