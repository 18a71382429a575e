"""The tables of a results page: takes a bench, its results and the classifier's robustness, gives Markdown lines to `page`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from duovox.experiments.results import Result, Results, Spread, SystemCosts, group_name
from duovox.experiments.robustness import Robustness
from duovox.experiments.runner import Bench

_HEADS = ("clips", "params M (trained)", "GMACs", "n", "FID", "IS", "mIS", "AM", "NDB", "label accuracy (95 %)", "nearest own")
_DIGITS = {"fid": 3, "inception": 2, "modified_inception": 1, "am": 3, "ndb": 2}


def results_table(bench: Bench, found: Results) -> list[str]:
    """One row for each result; the real clips of the same labels follow. Quality and the FID of shifted data have columns where they
    were measured."""
    further = {bench.quality.name: "quality"} if bench.quality else {}
    further |= {"FID to the data it saw": "shifted_fid"} if bench.others else {}
    lines = [*heads(*_HEADS, *further, "seeds")]
    for result in found.results:
        sizes = _sizes(result, found.costs[result.kind])
        lines.append(cells([_name(result), *sizes, *_metrics(result, further.values()), _seeds(bench, result)]))
    for place, rows in found.real.items():
        for row in rows:
            name = group_name(place if place != "all" else "", row["system"])
            known = Result(name, "", "", found.results[0].condition, "", ({**row, "shifted_fid": None},))
            lines.append(cells([name, "-", "-", *_metrics(known, further.values()), "-"]))
    return lines


def _name(result: Result) -> str:
    return f"{result.system}, {result.condition}" + (f", {result.group} labels" if result.group != "all" else "")


def _sizes(result: Result, costs: SystemCosts) -> list[str]:
    guided = bool(result.condition.gamma)
    total = costs.guided if guided else costs.unconditional
    return [f"{total:.2f} ({costs.trained:.2f})", f"{costs.guided_gmacs if guided else costs.unconditional_gmacs:.2f}"]


def _metrics(result: Result, further: Iterable[str]) -> list[str]:
    interval = result.accuracy_interval
    accuracy = f"{spread_text(result.accuracy, 3)} [{interval[0]:.3f} - {interval[1]:.3f}]" if interval else "-"
    found = [spread_text(result.metric(name), places) for name, places in _DIGITS.items()]
    diversity = spread_text(result.metric("nearest_own"), 2)
    return [str(result.n), *found, accuracy, diversity, *(spread_text(result.metric(name), 2) for name in further)]


def _seeds(bench: Bench, result: Result) -> str:
    """The sampling seeds of a row's sets."""
    count = bench.plan.n * (len(bench.plan.labels) if result.condition.gamma is None else 1)
    trials = [t for t in bench.trials(bench.plan.system(result.system)) if t.condition == result.condition and bench.record(t)]
    return ", ".join(f"{trial.first_seed} - {trial.first_seed + count - 1}" for trial in trials)


def results_notes(bench: Bench, found: Results) -> str:
    """What the columns mean, and the trials of which clips ran off."""
    failures = "".join(f" Note: {failure}." for failure in found.failures)
    shifted = " The last FID is against the train clips that the score model saw." if bench.others else ""
    return (
        "Mean, and in brackets the range, over the sets of sampling seeds; accuracy has Wilson's interval of all sets together. Params: "
        "all that run; GMACs: one network evaluation, backwards included. Guided rows have the same labels in equal numbers, unconditional "
        "ones their own mix. FID is against the train clips of the same labels, depends on n, and needs more clips than the judge has "
        f"features ({bench.judge_features}); NDB needs enough clips too: - where there are too few.{shifted}{failures}"
    )


def robustness_table(rows: Sequence[Robustness]) -> list[str]:
    """How the classifier takes other data."""
    lines = heads("test clips", "n", "accuracy (95 %)", "judge", "mean confidence", "mean energy", "AUROC confidence", "AUROC energy")
    for row in rows:
        accuracy = f"{row.accuracy:.3f} [{row.interval[0]:.3f} - {row.interval[1]:.3f}]" if row.interval else "-"
        numbers = (row.judge_accuracy, row.confidence, row.energy, row.known_by_confidence, row.known_by_energy)
        lines.append(cells([row.clips, str(row.n), accuracy, *("-" if number is None else f"{number:.3f}" for number in numbers)]))
    notes = (
        "The frozen classifier at the clean end of its noise range. Confidence: largest probability; energy: logsumexp of the logits. "
        "AUROC: how well either tells the clean known words from these clips (0.5 not at all, 1 always). The ratio of a noisy clip is "
        "that of mean powers over the whole clip, silence included; noise comes from the same recordings as in training, its stretches "
        "are drawn for each clip."
    )
    return [*lines, "", notes]


def heads(*names: str) -> list[str]:
    """The head of a table."""
    return [cells(names), "|" + "---|" * len(names)]


def cells(texts: Iterable[str]) -> str:
    """One row of a table."""
    return f"| {' | '.join(texts)} |"


def spread_text(spread: Spread | None, digits: int) -> str:
    """A metric over the sampling seeds."""
    return "-" if spread is None else spread.text(digits)
