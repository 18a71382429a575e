"""The results page of an experiment: takes a bench, writes <results>/<experiment>.md and .json, and the figures beside them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from duovox.experiments.claims import ENOUGH_ACCURACY, RULES, Claim, recommended, regimes_claims, table1_claims
from duovox.experiments.figures import plot_curves, write_sheet, write_sounds
from duovox.experiments.plan import TRAIN_SNR, System
from duovox.experiments.results import Result, Results, gather
from duovox.experiments.robustness import Robustness
from duovox.experiments.runner import Bench
from duovox.experiments.tables import cells, heads, results_notes, results_table, robustness_table, spread_text
from duovox.files import write_whole
from duovox.provenance import digest_of, machines, versions
from duovox.runs import read_weights

_TITLES = {
    "table1": "Table 1: score models of equal budget",
    "regimes": "Little data, and labels never heard (zero-shot)",
    "gamma": "Strength, interval and schedule of guidance",
    "shift": "Other data: noisy recordings, and words the classifier does not know",
}
_SHIFTS = {"": "", "noise": f", with noise at {TRAIN_SNR:g} dB", "words": " of other words, without labels"}
_PLOTTED = {"regimes": ("fid", "accuracy"), "gamma": ("fid", "accuracy", "nearest_own")}


@dataclass(frozen=True)
class Figures:
    """What lies beside the page; no plot means that there is none to draw or no matplotlib."""

    plot: str | None
    plot_missing: bool
    sheet: str | None
    sheet_rows: list[str]
    sounds: list[str]


def write_page(bench: Bench, words: Sequence[str], folder: Path, robustness: Sequence[Robustness] | None = None) -> Path:
    """Write page, JSON and figures of all that is known so far into `folder`; `words` are the command's, without paths; `robustness`
    are the classifier's rows on other data. Gives the page's path."""
    name = bench.plan.experiment
    found = gather(bench)
    figures = _draw_figures(bench, found.results, folder)
    claims = claims_of(bench, found)
    write_whole(folder / f"{name}.json", _as_json(bench, found, claims, words, robustness).encode(), force=True, parents=True)
    sections = [
        [f"# {_TITLES[name]}", "", f"Command: `{shlex.join(words)}`", "", *_budget(bench)],
        _left(bench),
        ["## Results", "", *results_table(bench, found), "", results_notes(bench, found)],
        ["## The classifier on other data", "", *robustness_table(robustness)] if robustness else [],
        _answers(claims) + _recommendation(bench, found.results),
        ["## Systems", "", *_systems(bench, words)],
        _shown(figures),
        ["## Sources", "", *_sources(bench)],
    ]
    text = "\n".join("\n".join([*section, ""]) for section in sections if section)
    write_whole(folder / f"{name}.md", text.encode(), force=True, parents=True)
    return folder / f"{name}.md"


def claims_of(bench: Bench, found: Results) -> tuple[Claim, ...]:
    """The claims that an experiment answers."""
    if bench.plan.experiment == "table1":
        return table1_claims(found.results, found.costs)
    return regimes_claims(found.results) if bench.plan.experiment == "regimes" else ()


def _draw_figures(bench: Bench, results: Sequence[Result], folder: Path) -> Figures:
    name = bench.plan.experiment
    wanted = name in _PLOTTED and bool(results)
    drawn = wanted and plot_curves(results, _PLOTTED[name], folder / f"{name}.svg")
    rows = write_sheet(bench, folder / f"{name}.png")
    sounds = write_sounds(bench, folder)
    return Figures(f"{name}.svg" if drawn else None, wanted and not drawn, f"{name}.png" if rows else None, rows, sounds)


def _budget(bench: Bench) -> list[str]:
    plan, train = bench.plan, bench.plan.training
    clips = len(bench.features.indices("train"))
    return [
        f"Recipe {plan.systems[0].recipe.name}, labels {', '.join(plan.labels)}. Equal budget: every score model has {train.updates} "
        f"updates of batch {train.batch}, so {train.updates * train.batch} samples seen (the train split has {clips} clips), the same seed "
        f"({train.seed}) and order of the data, and, but for a random one, the same frozen classifier. Each trial has {plan.n} clips a "
        f"label, unconditional ones as many in all; {plan.draws} set(s) of sampling seeds, set s from s * 100000 on.",
    ]


def _left(bench: Bench) -> list[str]:
    left = bench.left()
    return ["**Not finished.** Left to do: " + "; ".join(left) + "."] if left else []


# claims


def _answers(claims: Sequence[Claim]) -> list[str]:
    if not claims:
        return []
    lines = ["## The paper's claims", ""]
    for claim in claims:
        lines.append(f"- **{claim.text}: {claim.verdict}.** " + "; ".join(f"{one.text}: {one.verdict}" for one in claim.comparisons) + ".")
    return [*lines, "", f"Rules: {RULES}"]


def _recommendation(bench: Bench, results: Sequence[Result]) -> list[str]:
    if bench.plan.experiment != "gamma":
        return []
    rule = f"Rule: the smallest FID among conditions of accuracy of at least {ENOUGH_ACCURACY}; where there is none, the best accuracy."
    best = recommended(results)
    found = f"{best.condition} (FID {spread_text(best.metric('fid'), 3)}, accuracy {spread_text(best.accuracy, 3)})" if best else "none yet"
    return ["## Recommended default", "", f"{found}. {rule}"]


# systems and sources


def _systems(bench: Bench, words: Sequence[str]) -> list[str]:
    names = ["system", "what it is", "sees", "updates", "samples seen", "training seconds", "machine", "weights", "command"]
    lines = heads(*names)
    for facts in system_facts(bench, words):
        lines.append(cells([facts["system"], facts["about"], facts["sees"], *_trained(facts), f"`{facts['command']}`"]))
    return lines


def _trained(facts: dict[str, Any]) -> list[str]:
    if "updates" not in facts:
        return ["-"] * 5
    numbers = [str(facts[name]) for name in ("updates", "samples", "seconds")]
    return [*numbers, "; ".join(facts["machines"]), f"`{facts['weights'][:16]}`"]


def system_facts(bench: Bench, words: Sequence[str]) -> list[dict[str, Any]]:
    """What is known of each system's training."""
    return [_facts(bench, system, words) for system in bench.plan.systems]


def _facts(bench: Bench, system: System, words: Sequence[str]) -> dict[str, Any]:
    sees, folder = system.recipe.subnet_sees, bench.subnet_folder(system)
    facts: dict[str, Any] = {
        "system": system.name,
        "about": system.about,
        "sees": f"{sees.share:.0%} of the train clips" + (f" of {', '.join(sees.labels)}" if sees.labels else "") + _SHIFTS[system.shift],
        "command": shlex.join([*_without_only(words), "--only", system.name]),
    }
    path = folder / "weights.safetensors"
    if path.is_file():
        run, _ = read_weights(folder)
        facts |= {"updates": run["step"], "samples": run["step"] * system.recipe.train_subnet.batch, "seconds": run["seconds"]}
        facts |= {"clips": run["clips"], "classifier": run["classifier"], "weights": digest_of(path)}
        facts["machines"] = machines(folder.parent / "subnet_machines.json")
    return facts


def _without_only(words: Sequence[str]) -> list[str]:
    """The command for all systems."""
    kept = list(words)
    if "--only" in kept:
        del kept[kept.index("--only") : kept.index("--only") + 2]
    return kept


def _sources(bench: Bench) -> list[str]:
    sample = bench.plan.systems[0].recipe.sample
    notes = {note for t in bench.plan.trials for note in (bench.record(t) or {}).get("notes", [])[1:]}
    notes |= {f"real recordings: {bench.features.speaker_note}"} if bench.features.speaker_note else set()
    lines = [
        f"Judge: {bench.judge.kind}, digest `{bench.judge.digest[:16]}`; it never guides. Data: `{bench.features.digest[:16]}`. "
        f"Sampler: {sample.sampler} with {sample.steps} steps, networks in {'bf16' if bench.autocast else 'float32'}. "
        f"Vocoder: {f'neural, digest `{bench.vocoder_digest[:16]}`' if bench.vocoder_digest else 'Griffin-Lim'}.",
        *_classifiers(bench),
        *([f"{bench.quality.name}: {bench.quality.about}."] if bench.quality else []),
        *(f"Note: {note}." for note in sorted(notes)),
        "Versions: " + ", ".join(f"{name} {version}" for name, version in versions().items()) + ".",
    ]
    return lines


def _classifiers(bench: Bench) -> list[str]:
    """The frozen classifiers in use."""
    lines = {}
    for system in bench.plan.systems:
        path = bench.classifier_folder(system) / "weights.safetensors"
        if path.is_file() and path not in lines:
            run, _ = read_weights(path.parent)
            kind = "Random classifier" if system.random_classifier else "Classifier"
            digest = digest_of(path)
            lines[path] = f"{kind}: {run['step']} updates, {run['seconds']} s of training, digest `{digest[:16]}`."
    return list(lines.values())


def _shown(figures: Figures) -> list[str]:
    lines = [f"![Figures against gamma]({figures.plot})", ""] if figures.plot else []
    lines += ["No plots: they need matplotlib (`pip install 'duovox[plots]'`).", ""] if figures.plot_missing else []
    if figures.sheet:
        rows = "; ".join(figures.sheet_rows)
        lines += [f"![Log-mels]({figures.sheet})", "", f"Rows from the top: {rows}. The first clip of each label, not chosen.", ""]
    if figures.sounds:
        lines += ["Sounds (the first seed, not chosen): " + ", ".join(f"[{name}]({name})" for name in figures.sounds) + "."]
    return ["## To see and hear", "", *lines] if lines else []


def _as_json(bench: Bench, found: Results, claims: Sequence[Claim], words: Sequence[str], robustness: Sequence[Robustness] | None) -> str:
    """Everything, unrounded."""
    plan = bench.plan
    facts = {
        "experiment": plan.experiment,
        "command": shlex.join(words),
        "budget": {"updates": plan.training.updates, "batch": plan.training.batch, "samples": plan.training.updates * plan.training.batch},
        "labels": plan.labels,
        "left": bench.left(),
        "judge": bench.judge.digest,
        "data": bench.features.digest,
        "vocoder": bench.vocoder_digest,
        "systems": system_facts(bench, words),
        "costs": {kind: asdict(costs) for kind, costs in found.costs.items()},
        "results": [asdict(r) | {"condition": str(r.condition), "accuracy_interval": r.accuracy_interval} for r in found.results],
        "real": found.real,
        "failures": found.failures,
        "robustness": [asdict(row) for row in robustness or ()],
        "claims": [asdict(claim) | {"verdict": claim.verdict} for claim in claims],
    }
    return json.dumps(facts, indent=1) + "\n"
