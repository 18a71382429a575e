"""The page of the experiment augment: takes graded spotters, writes <results>/augment.md, .json and a plot."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from duovox.experiments.figures import open_pyplot, save_svg
from duovox.experiments.spotting.mixtures import NAMES, Mixture
from duovox.experiments.spotting.spotters import CLEAN, MISSES
from duovox.experiments.spotting.story import Story
from duovox.experiments.spotting.verdicts import ALARMS, RULE, Grades, compare, in_words, measures, spread_of
from duovox.experiments.tables import cells, heads, spread_text
from duovox.files import write_whole

_COLOURS = {"none": "#888888", "all": "#d62728", "own": "#1f77b4", "espeak": "#2ca02c"}


def write_page(grades: Grades, story: Story, folder: Path) -> Path:
    """Write page, JSON and plot of all that is known so far; gives the page's path. Raises `OutputError`."""
    plot = grades and _plot(grades, folder / "augment.svg")
    write_whole(folder / "augment.json", _as_json(grades, story).encode(), force=True, parents=True)
    sections = [
        ["# Does generated speech help a keyword spotter?", "", f"Command: `{shlex.join(story.words)}`", "", story.done],
        [f"**Not finished.** Left to do: {'; '.join(story.left)}."] if story.left else [],
        ["## Results", "", *_table(grades), "", _notes(story)] if grades else [],
        ["## Where it helps, and where it does not", "", *in_words(compare(grades)), "", f"Rule: {RULE}"] if compare(grades) else [],
        ["![Accuracy against the number of real clips](augment.svg)", "", "Dotted: those clips alone, without real ones."] if plot else [],
        ["## Sources", "", *story.sources],
    ]
    text = "\n".join("\n".join([*section, ""]) for section in sections if section)
    write_whole(folder / "augment.md", text.encode(), force=True, parents=True)
    return folder / "augment.md"


def _table(grades: Grades) -> list[str]:
    names = measures(grades)
    titles = [name if name == ALARMS else f"accuracy, {name}" for name in names]
    lines = heads("clips of each word", *titles, "other words told apart")
    for mixture, heard in grades.items():
        known = [one.known for one in heard if one.known is not None]
        apart = f"{sum(known) / len(known):.3f}" if known else "-"
        lines.append(cells([str(mixture), *(spread_text(spread_of(heard, name), 3) for name in names), apart]))
    return lines


def _notes(story: Story) -> str:
    return (
        "Mean, and in brackets the range, over the seeds (initial weights, order, shifts of the spotter; the clips are the same). "
        f"Real train clips of the rarest word: {story.available}; a larger number takes all there are. In mixtures a batch has about "
        "as many real clips as generated ones. Noise: mean powers over the whole clip. "
        f"False alarms: the share of real clips of other words that is taken for a command, at the threshold that misses {MISSES:.0%} "
        "of the clean commands. Told apart: area under the ROC curve of the largest probability of a command, commands against other words."
    )


def _plot(grades: Grades, path: Path) -> bool:
    """Accuracy against real clips, a column for each kind of test clips, a line for each voice; what is learnt from generated clips alone
    is dotted. False, and no file, where matplotlib is missing."""
    plt = open_pyplot()
    if plt is None:
        return False
    kinds = [name for name in measures(grades) if name != ALARMS]
    picture, axes = plt.subplots(1, len(kinds), figsize=(4 * len(kinds), 3.4), squeeze=False)
    for axis, kind in zip(axes[0], kinds, strict=True):
        for voice, group in _curves(grades).items():
            _draw(axis, voice, {mixture: spread_of(grades[mixture], kind) for mixture in group})
        axis.set(xlabel="real clips of each word", title=kind if kind == CLEAN else f"noise at {kind}", xscale="log")
        axis.set_xticks(ticks := sorted({mixture.real for mixture in grades if mixture.real}), ticks)
    axes[0][0].set_ylabel("accuracy")
    handles, labels = axes[0][0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False, fontsize="small")
    save_svg(picture, path)
    return True


def _curves(grades: Grades) -> dict[str, list[Mixture]]:
    """The mixtures of each voice with the most generated clips, without hard negatives."""
    curves: dict[str, list[Mixture]] = {}
    for voice in dict.fromkeys(mixture.voice for mixture in grades):
        group = [mixture for mixture in grades if mixture.voice == voice and not mixture.between]
        most = max((mixture.generated for mixture in group), default=0)
        curves[voice] = [mixture for mixture in group if mixture.generated == most]
    return curves


def _draw(axis: Any, voice: str, points: dict[Mixture, Any]) -> None:
    name = f"with {NAMES[voice]}" if voice != "none" else "real clips alone"  # type: ignore[index]
    known = [(mixture.real, spread) for mixture, spread in points.items() if spread and mixture.real]
    means = [spread.mean for _, spread in known]
    ends = [[spread.mean - min(spread.values) for _, spread in known], [max(spread.values) - spread.mean for _, spread in known]]
    if known:
        axis.errorbar([real for real, _ in known], means, ends, fmt="o-", color=_COLOURS[voice], label=name, capsize=2)
    for mixture, spread in points.items():
        if spread and not mixture.real and voice != "own":
            axis.axhline(spread.mean, color=_COLOURS[voice], linestyle=":", linewidth=1)


def _as_json(grades: Grades, story: Story) -> str:
    """Everything, unrounded."""
    rows = [
        {"mixture": asdict(mixture), "words": str(mixture), "heard": [asdict(one) for one in heard]} for mixture, heard in grades.items()
    ]
    found = [
        {
            "mixture": one.mixture.name,
            "measure": one.measure,
            "before": one.before.values,
            "after": one.after.values,
            "verdict": one.verdict,
        }
        for one in compare(grades)
    ]
    return json.dumps({"command": shlex.join(story.words), "left": list(story.left), "rows": rows, "comparisons": found}, indent=1) + "\n"
