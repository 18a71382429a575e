"""Repurposed classifiers side by side: what they cost, how far they can be believed, how well they speak.

    python benchmarks/repurposed.py RUN/bundle OTHER/bundle --data FEATURES --out FOLDER --n 50

Prints two Markdown tables and writes, below --out, the clips (<name>/<label>/<seed>.wav), each bundle's figures (<name>.json), the
judge's page (<name>.md), the tables (tables.md) and a spectrogram sheet (sheet.png: a row a bundle, a column a label). Clips and
figures that are there already are not made again. The bundles' own code is run: name only bundles that you trust.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch
import tyro
from torch import Tensor
from tyro.conf import Positional

import duovox
from duovox import Duovox
from duovox.calibration import calibrate
from duovox.config import to_dict
from duovox.contracts import GuideAt
from duovox.costs import count_costs
from duovox.data import Features, in_order
from duovox.evaluation.report import evaluate_folder
from duovox.evaluation.rows import Row, Scoring
from duovox.files import write_whole
from duovox.generation import fill_folder, make_plan
from duovox.runs import features_for
from duovox.sound.audio import read_audio
from duovox.sound.mel import LogMel, scale_mel
from duovox.sound.picture import sheet

JUDGE = Path(duovox.__file__).parent / "judges" / "sc06.safetensors"
SHOWN = (0.5, 1.0, 2.0)
"""Noise levels in the first table."""


@dataclass(frozen=True)
class Entry:
    """One bundle: its figures as plain data, and the judge's row of its clips."""

    name: str
    facts: dict[str, Any]
    row: Row


def main(
    bundles: Positional[tuple[Path, ...]],
    data: Path,
    out: Path,
    n: int = 50,
    limit: int = 256,
    judge: Path = JUDGE,
    fid: bool = True,
    zoom: int = 2,
) -> None:
    """Compare bundle folders (or run folders that hold `bundle`) by n guided clips a word, default settings, seeds 0 to n - 1.

    `limit` is about how many clips of a split are used at each noise level. FID needs more clips than the judge has features.
    """
    folders = named(bundles)
    entries, pictures = [], []
    for name, folder in folders.items():
        voice = Duovox.from_pretrained(folder, trust_code=True)
        facts = figures(voice, data, out / f"{name}.json", limit)
        fill_folder(voice, out / name, make_plan(voice.labels, n))
        report = evaluate_folder(out / name, judge, data, Scoring(fid=fid))
        write_whole(out / f"{name}.md", report.to_markdown().encode(), force=True)
        entries.append(Entry(name, facts, report.rows[0]))
        keep(out / f"{name}.json", facts | {"judged": asdict(report.rows[0]), "judge": report.judge_digest})
        pictures.append(first_clips(voice, out / name))
    write_whole(out / "sheet.png", sheet(pictures, zoom), force=True)
    text = "\n\n".join([main_table(entries), levels_table(entries), taps_list(entries)])
    write_whole(out / "tables.md", (text + "\n").encode(), force=True)
    print(text)


def named(folders: Sequence[Path]) -> dict[str, Path]:
    """Bundle folders by name: a folder's own, or for one that is called `bundle` that of the folder it lies in."""
    found: dict[str, Path] = {}
    for folder in folders:
        place = (folder if (folder / "config.json").is_file() else folder / "bundle").resolve()
        name = place.parent.name if place.name == "bundle" else place.name
        if name in found:
            raise SystemExit(f"two bundles are called {name}; rename one of the folders")
        found[name] = place
    return found


def figures(voice: Duovox, data: Path, path: Path, limit: int) -> dict[str, Any]:
    """What needs no clip of ours; from `path` if that was measured of the same bundle, settings and data."""
    config = voice.config
    features = features_for(config.recipe, data)
    if features.labels != voice.labels:
        raise SystemExit(f"{data} has the labels {', '.join(features.labels)}, the bundle {', '.join(voice.labels)}")
    settings = {"sample": to_dict(config.recipe.sample), "calibration": to_dict(config.calibration)}
    of = {"bundle": config.digest, "data": features.digest, "limit": limit, **settings}
    if path.is_file():
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if known["of"] != of:
            raise SystemExit(f"{path} was measured of another bundle, data or limit; choose another folder")
        return known
    facts = {"of": of, **size(voice), **clean_accuracy(voice, features), **believed(voice, features, limit)}
    keep(path, facts)
    return facts


def keep(path: Path, facts: dict[str, Any]) -> None:
    """Write figures as JSON."""
    write_whole(path, (json.dumps(facts, indent=2) + "\n").encode(), force=True, parents=True)


def size(voice: Duovox) -> dict[str, Any]:
    """Parameters of the classifier alone, without a bridge, and of the subnet; GMACs a step; updates; taps."""
    model, origin = voice.bundle.model, voice.config.origin
    guide_at = voice.config.recipe.sample.guide_at
    costs = count_costs(model, guide_at)
    return {
        "guide_at": guide_at,
        "classifier_parameters": costs.classifier_parameters,
        "subnet_parameters": costs.subnet_parameters,
        "updates": {part: origin.get(part, {}).get("step", 0) for part in ("classifier", "subnet")},
        "unconditional_gmacs": costs.unconditional_gmacs,
        "guided_gmacs": costs.guided_gmacs,
        "taps": list(dict.fromkeys(name.removeprefix("network.") for name in model.tap_names)),
    }


def clean_accuracy(voice: Duovox, features: Features) -> dict[str, float]:
    """The classifier's accuracy on the test split: through its own front end, and through the bridge from our mel."""
    model, config = voice.bundle.model, voice.config

    def bridged(log_mel: Tensor) -> Tensor:
        sigma = torch.full((len(log_mel),), config.recipe.noise.sigma_min)
        return model.classifier(scale_mel(log_mel, config.mel_scale), sigma)

    right = torch.zeros(2)
    with torch.no_grad():
        for batch in in_order(features, "test", 64):
            own = model.classifier.network.hear(batch.wave, batch.log_mel, config.mel_scale)
            right += torch.stack([(logits.argmax(1) == batch.label).sum() for logits in (own, bridged(batch.log_mel))])
    shares = (right / len(features.indices("test"))).tolist()
    return dict(zip(("accuracy_own_front_end", "accuracy_bridge"), shares, strict=True))


def believed(voice: Duovox, features: Features, limit: int) -> dict[str, Any]:
    """Accuracy and calibration error at each noise level, at the noised mel and at the estimate of the clean one."""
    model, scale = voice.bundle.model, voice.config.mel_scale
    levels = {where: calibrate(model, features, scale, where, limit=limit)[1] for where in get_args(GuideAt)}
    return {"levels": {where: [asdict(level) for level in found] for where, found in levels.items()}}


@torch.no_grad()
def first_clips(voice: Duovox, folder: Path) -> list[Any]:
    """The log-mel (M, T) of each label's first clip, from its sound."""
    mel = voice.config.recipe.mel
    waves = [torch.from_numpy(read_audio(folder / label / "0.wav", mel.sample_rate))[None] for label in voice.labels]
    return [LogMel(mel)(wave)[0, 0].numpy() for wave in waves]


def main_table(entries: Sequence[Entry]) -> str:
    """One row a bundle."""
    shown = "/".join(f"{sigma:g}" for sigma in SHOWN)
    head = ["classifier", "its params", "subnet params", "updates", "GMACs a step, guided", "clean accuracy, own front end / bridge"]
    head += [f"at sigma {shown}: noised mel", "at the estimate", "judge accuracy (95 %)", "FID", "IS", "n"]
    return markdown(head, map(main_cells, entries))


def main_cells(entry: Entry) -> list[str]:
    facts, row, updates = entry.facts, entry.row, entry.facts["updates"]
    interval = " ({:.3f} - {:.3f})".format(*row.accuracy_interval) if row.accuracy_interval else ""
    return [
        entry.name,
        f"{facts['classifier_parameters'] / 1e6:.3g} M",
        f"{facts['subnet_parameters'] / 1e6:.3g} M",
        f"{updates['classifier']} + {updates['subnet']}" if updates["classifier"] else f"{updates['subnet']}",
        f"{facts['unconditional_gmacs']:.2f}, {facts['guided_gmacs']:.2f}",
        f"{facts['accuracy_own_front_end']:.3f} / {facts['accuracy_bridge']:.3f}",
        *(accuracies(facts["levels"][where]) for where in get_args(GuideAt)),
        ("-" if row.accuracy is None else f"{row.accuracy:.3f}") + interval,
        "-" if row.fid is None else f"{row.fid:.2f}",
        f"{row.inception:.2f}",
        f"{row.n}",
    ]


def accuracies(levels: Sequence[dict[str, float]]) -> str:
    by_sigma = {level["sigma"]: level["accuracy"] for level in levels}
    return "/".join(f"{by_sigma[sigma]:.3f}" for sigma in SHOWN)


def levels_table(entries: Sequence[Entry]) -> str:
    """Accuracy, and calibration error without -> with temperatures, at each noise level; a * marks where the bundle guides."""
    sigmas = [level["sigma"] for level in entries[0].facts["levels"]["noised"]]
    rows = (
        [f"{entry.name}, {where}" + " *" * (where == entry.facts["guide_at"]), *map(level_cell, levels)]
        for entry in entries
        for where, levels in entry.facts["levels"].items()
    )
    return markdown(["accuracy, calibration error at sigma", *(f"{sigma:g}" for sigma in sigmas)], rows)


def level_cell(level: dict[str, float]) -> str:
    return f"{level['accuracy']:.3f}, {level['error_before']:.3f} -> {level['error_after']:.3f}"


def taps_list(entries: Sequence[Entry]) -> str:
    """Which layers are tapped."""
    return "\n".join(f"Taps of {entry.name}: {', '.join(entry.facts['taps'])}." for entry in entries)


def markdown(head: Sequence[str], rows: Iterator[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    tyro.cli(main)
