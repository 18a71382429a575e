"""The page of the experiment `guides`: takes its bench, writes <results>/guides.md, .json and the curves beside it."""

from __future__ import annotations

import json
import math
import shlex
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from duovox.bench.timing import interleaved
from duovox.contracts import Guide
from duovox.costs import guided_gmacs
from duovox.experiments import guides_claims as claims
from duovox.experiments.claims import Claim
from duovox.experiments.figures import plot_curves
from duovox.experiments.guides_plan import PLAIN, Dose, Steered, own_doses, ways_of
from duovox.experiments.guides_run import GuidesBench
from duovox.experiments.plan import Condition
from duovox.experiments.results import Result
from duovox.experiments.tables import cells, heads
from duovox.files import write_whole
from duovox.guides import LabelGuide
from duovox.model import Conditioned
from duovox.provenance import versions

PLOTTED = ("attribute_error", "accuracy", "fid")
ROUNDS = 5
"""Rounds of the timing."""


@dataclass(frozen=True)
class Cost:
    """Of one evaluation of one clip: GMACs, and seconds (median), with guides beside the label's."""

    guides: str
    gmacs: float
    seconds: float


def write_guides_page(bench: GuidesBench, words: Sequence[str], folder: Path) -> Path:
    """Write page, JSON and plot of all that is known so far. Gives the page's path."""
    found, costs = answers(bench), costs_of(bench)
    drawn = plot_curves(curves(bench), PLOTTED, folder / "guides.svg") if curves(bench) else False
    write_whole(folder / "guides.json", _as_json(bench, found, costs, words).encode(), force=True, parents=True)
    sections = [
        ["# Guides: pitch, speaker, both, and sentences by one speaker", "", f"Command: `{shlex.join(words)}`", "", *_about(bench)],
        [f"**Not finished.** Left to do: {'; '.join(bench.left())}."] if bench.left() else [],
        _claims(found),
        ["## Conditions", "", *_table(bench)],
        ["![Attribute error, accuracy and FID against gamma](guides.svg)"] if drawn else [],
        ["## Pitch, target by target", "", *_by_target(bench)] if bench.pitch else [],
        ["## Sentences", "", *_sentences(bench)] if bench.speaker else [],
        ["## What a guide costs", "", *_costs(costs)],
        ["## Sources", "", *_sources(bench)],
    ]
    text = "\n".join("\n".join([*section, ""]) for section in sections if section)
    write_whole(folder / "guides.md", text.encode(), force=True, parents=True)
    return folder / "guides.md"


# figures


def own(bench: GuidesBench) -> Steered:
    """Every guide at once, at its own strength."""
    return own_doses(*bench.strengths)


def answers(bench: GuidesBench) -> tuple[Claim, ...]:
    """The claims that can be asked of the guides at hand."""
    all_at_once, found = own(bench), list[Claim]()
    pitch, speaker = (bench.rows(one) for one in (Steered(pitch=all_at_once.pitch), Steered(speaker=all_at_once.speaker)))
    if bench.pitch:
        found.append(claims.pitch_claim(pitch, bench.rows(PLAIN), bench.plan.pitches))
    if bench.speaker:
        found.append(claims.speaker_claim(speaker, len(bench.panel.names)))
    if bench.pitch and bench.speaker:
        found.append(claims.both_claim(bench.rows(all_at_once), pitch, speaker))
    return (*found, *([claims.say_claim(bench.sentences(), bench.panel.threshold)] if bench.speaker else []))


def curves(bench: GuidesBench) -> list[Result]:
    """A row for each condition of one guide: attribute error (the median in semitones, or the mean rank), accuracy, FID; the word alone is
    gamma 0 of each."""
    found = []
    for condition in bench.plan.conditions:
        record, rows = bench.record(condition), bench.rows(condition)
        if record is None or rows is None or (condition.pitch and condition.speaker):
            continue
        guided = [name for name in ("pitch", "speaker") if getattr(condition, name)]
        for name in guided or [one for one in ("pitch", "speaker") if getattr(bench, one)]:
            dose: Dose | None = getattr(condition, name)
            summary = claims.summarise(rows)
            error = summary.off if name == "pitch" else summary.rank.value
            row = {"n": len(rows), "accuracy": summary.words.value, "fid": record["fid"], "attribute_error": error}
            kind = dose.kind if dose else "word alone"
            found.append(Result("guides", kind, "", Condition(dose.gamma if dose else 0.0), _GROUPS[name], (row,)))
    return found


_GROUPS = {"pitch": "pitch (semitones off)", "speaker": "speaker (rank)"}


def costs_of(bench: GuidesBench) -> list[Cost]:
    """Evaluations with the label's guidance alone, and with each guide in all its ways, timed in turn."""
    both, variants = own(bench), dict[str, Steered]()
    pitch, speaker = bench.strengths
    variants |= {f"pitch, {way}": Steered(pitch=Dose(pitch.gamma, way)) for way in ways_of(pitch)} if pitch else {}
    variants |= {f"speaker, {way}": Steered(speaker=Dose(speaker.gamma, way)) for way in ways_of(speaker)} if speaker else {}
    if both.pitch and both.speaker:
        variants[f"pitch, {both.pitch.asked}, and speaker, {both.speaker.asked}"] = both
    asked: dict[str, list[Guide]] = {"the label alone": []}
    asked |= {name: [one.guide for one in bench.guides(variant, 0)] for name, variant in variants.items()}
    seconds = interleaved({name: _evaluation(bench, guides) for name, guides in asked.items()}, ROUNDS)
    model, at = bench.voice.bundle.model, bench.voice.config.recipe.sample.guide_at
    return [Cost(name, guided_gmacs(model, at, guides), statistics.median(seconds[name])) for name, guides in asked.items()]


def _evaluation(bench: GuidesBench, guides: Sequence[Guide]) -> Callable[[], object]:
    """One evaluation of one clip."""
    model, mel, device = bench.voice.bundle.model, bench.features.mel, bench.voice.device
    noised, sigma = torch.zeros(1, 1, mel.n_mels, mel.frames, device=device), torch.ones(1, device=device)
    label = torch.zeros(1, dtype=torch.long, device=device)
    towards = LabelGuide(model.classifier, label, bench.voice.config.recipe.sample.guide_at, model.noise.sigma_min)
    return torch.no_grad()(lambda: Conditioned(model, label).with_gradients(noised, sigma, [towards, *guides]))


# sections


def _about(bench: GuidesBench) -> list[str]:
    plan, panel = bench.plan, bench.panel
    parts = [f"Voice {printable_labels(bench)}. {plan.n} clips for each target; all conditions say the same words from the same seeds."]
    if bench.pitch:
        span = claims.natural_range(bench.rows(PLAIN) or [])
        natural = (
            f" {claims.NATURAL[0]:g} to {claims.NATURAL[1]:g} % of clips that nothing steers lie between {span[0]:.0f} and " if span else ""
        )
        natural += f"{span[1]:.0f} Hz, the voice's natural range." if span else ""
        parts.append(
            f"Pitch: {len(plan.pitches)} targets, {', '.join(map(str, plan.pitches))} Hz, measured by {bench.meter.name}.{natural}"
        )
    if bench.speaker:
        parts.append(
            f"Speakers: {plan.speakers} held-out ones are wanted, by one recording each, and ranked among {len(panel.names)} by a verifier "
            f"that never guides (chance {(len(panel.names) + 1) / 2:g}; a real recording gives its own speaker a mean rank of "
            f"{panel.real_rank:.1f}; equal error rate on real pairs {panel.error:.1%})."
        )
    return [" ".join(parts)]


def printable_labels(bench: GuidesBench) -> str:
    labels = bench.voice.labels
    return f"of {len(labels)} words ({', '.join(labels[:3])}, ...)" if len(labels) > 3 else f"of {', '.join(labels)}"


def _claims(found: Sequence[Claim]) -> list[str]:
    lines = [
        f"- **{one.text}: {one.verdict}.** " + "; ".join(f"{part.text}: {part.verdict}" for part in one.comparisons) + "." for one in found
    ]
    return ["## What it had to show", "", *lines, "", f"Rules: {claims.RULES}"]


def _table(bench: GuidesBench) -> list[str]:
    names = ["condition", "n", "words right", "within a semitone", "semitones off", "speaker's rank", "FID"]
    lines = heads(*names, *([bench.quality.name] if bench.quality else []))
    for condition in bench.plan.conditions:
        record, rows = bench.record(condition), bench.rows(condition)
        if record is not None and rows is not None:
            found = claims.summarise(rows)
            texts = [str(condition), str(len(rows)), *map(str, (found.words, found.within)), _number(found.off), str(found.rank)]
            lines.append(cells([*texts, _number(record["fid"]), *([_number(record["quality"])] if bench.quality else [])]))
    note = (
        "Every condition is measured against the targets it would have, so that what does not steer an attribute shows chance. Semitones "
        "off: the median. In brackets intervals of 95 %. The curves are without a choice of noise, so that guidance alone is seen. FID "
        "needs more clips than the judge has features, there is none otherwise, and is less the more clips there are."
    )
    return [*lines, "", note]


def _by_target(bench: GuidesBench) -> list[str]:
    conditions = [one for one in bench.plan.conditions if one.pitch and not one.speaker and bench.rows(one) is not None][:1]
    if not conditions:
        return ["Not measured yet."]
    rows = bench.rows(conditions[0]) or []
    lines = [f"{conditions[0]}.", "", *heads("wanted (Hz)", "n", "within a semitone", "median (Hz)", "words right")]
    for target, wanted in enumerate(bench.plan.pitches):
        own_rows = [row for row in rows if row.target == target]
        found, hertz = claims.summarise(own_rows, speaker=False), [row.hertz for row in own_rows if row.hertz is not None]
        middle = f"{statistics.median(hertz):.0f}" if hertz else "-"
        lines.append(cells([str(wanted), str(len(own_rows)), str(found.within), middle, str(found.words)]))
    return lines


def _sentences(bench: GuidesBench) -> list[str]:
    found, threshold = bench.sentences(), bench.panel.threshold
    if not found:
        return ["Not measured yet."]
    plain, guided = claims.one_speaker(found, threshold)
    words = [claims.Share(sum(rights), 5 * len(found)) for rights in ([s.plain_right for s in found], [s.guided_right for s in found])]
    lines = heads("sentences of five words", "n", "all by one speaker", "least similarity, mean", "words right")
    means = [statistics.mean(values) for values in ([s.plain for s in found], [s.guided for s in found])]
    for name, share, mean, right in zip(("without the guide", "with it"), (plain, guided), means, words, strict=True):
        lines.append(cells([name, str(len(found)), str(share), f"{mean:.2f}", str(right)]))
    note = (
        f"All by one speaker: any two of the five are at least as alike as the verifier's equal error rate asks ({threshold:.2f}). Five "
        f"real recordings of one speaker pass in {bench.real_sentences():.2f} of the speakers that have as many."
    )
    return [*lines, "", note]


def _costs(costs: Sequence[Cost]) -> list[str]:
    lines = heads("an evaluation guided by", "GMACs", "ms", "times the label alone")
    for cost in costs:
        ratio = cost.seconds / costs[0].seconds
        lines.append(cells([cost.guides, f"{cost.gmacs:.2f}", f"{1000 * cost.seconds:.0f}", f"{ratio:.2f}"]))
    threads = torch.get_num_threads()
    return [
        *lines,
        "",
        f"One clip, {threads} thread{'s' * (threads > 1)}, the median of {ROUNDS} rounds in turn; others may have used the machine.",
    ]


def _sources(bench: GuidesBench) -> list[str]:
    sample = bench.voice.config.recipe.sample
    guides = [f"{one.name} `{one.digest[:16]}`" for one in (bench.pitch, bench.speaker) if one]
    lines = [
        f"Voice `{bench.voice.digest[:16]}`, {sample.sampler} with {sample.steps} steps, label guidance gamma {sample.gamma:g}, "
        f"{bench.voice.precision}. Guides: "
        f"{', '.join(guides)}. Judge: {bench.judge.kind}, `{bench.judge.digest[:16]}`. Verifier `{bench.verifier.digest[:16]}`. "
        f"Data `{bench.features.digest[:16]}`.",
        *([f"{bench.quality.name}: {bench.quality.about}."] if bench.quality else []),
        *(f"Note: {fault}." for fault in _faults(bench)),
        "Versions: " + ", ".join(f"{name} {version}" for name, version in versions().items()) + ".",
    ]
    return lines


def _faults(bench: GuidesBench) -> list[str]:
    records = [(condition, bench.record(condition)) for condition in bench.plan.conditions]
    said = [(condition, record.get("failed") or record["faults"]) for condition, record in records if record]
    return [f"{condition}: {fault}" for condition, fault in said if fault]


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.2f}"


def _as_json(bench: GuidesBench, found: Sequence[Claim], costs: Sequence[Cost], words: Sequence[str]) -> str:
    """Everything that was measured."""
    records = {condition.name: bench.record(condition) for condition in bench.plan.conditions}
    facts: dict[str, Any] = {
        "experiment": "guides",
        "command": shlex.join(words),
        "left": bench.left(),
        "panel": {"speakers": bench.panel.names, "equal_error": bench.panel.error, "threshold": bench.panel.threshold},
        "conditions": {name: _facts_of(record) for name, record in records.items() if record},
        "sentences": [asdict(one) for one in bench.sentences()],
        "costs": [asdict(cost) for cost in costs],
        "claims": [asdict(claim) | {"verdict": claim.verdict} for claim in found],
    }
    return json.dumps(facts, separators=(",", ":")) + "\n"


def _facts_of(record: dict[str, Any]) -> dict[str, Any]:
    """A record with its clips as columns, figures to a thousandth: there are thousands of rows."""
    if "failed" in record:
        return {"failed": record["failed"]}
    columns = {name: [_rounded(row[name]) for row in record["clips"]] for name in record["clips"][0]} if record["clips"] else {}
    return {name: value for name, value in record.items() if name != "key"} | {"clips": columns}


def _rounded(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value
