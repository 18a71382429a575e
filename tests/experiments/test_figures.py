"""experiments/figures.py: curves against gamma, and marks of their own where the strength depends on sigma."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from duovox.experiments import figures
from duovox.experiments.figures import plot_curves
from duovox.experiments.plan import Condition
from duovox.experiments.results import Result

pytest.importorskip("matplotlib")

CONDITIONS = (Condition(None), Condition(0.0), Condition(3.0), Condition(3.0, 0.2, 10.0), Condition(3.0, schedule="early"))


def results(kind: str, fid: float | None, group: str = "all") -> list[Result]:
    """Of every condition two sets of seeds."""
    return [
        Result(kind, kind, "", condition, group, tuple({"fid": fid, "accuracy": 0.5 + 0.1 * n + i / 100, "n": 9} for n in range(2)))
        for i, condition in enumerate(CONDITIONS)
    ]


def texts(path: Path) -> list[str]:
    """What is written on an SVG of matplotlib, where text becomes outlines under a comment."""
    return re.findall(r"<!-- (.*?) -->", path.read_text())


def test_intervals_and_schedules_are_marks_of_their_own(tmp_path: Path) -> None:
    assert plot_curves([*results("unet", 2.0), *results("subnet_label", 1.0)], ("fid", "accuracy"), tmp_path / "a" / "curves.svg")
    written = texts(tmp_path / "a" / "curves.svg")
    names = ["unet", "subnet_label", "unet, interval or schedule", "subnet_label, interval or schedule"]
    assert sorted(text for text in written if text in names) == sorted(names)
    assert {"FID", "accuracy", "gamma", "all"} <= set(written)


def test_a_legend_stands_where_the_first_figure_is_missing(tmp_path: Path) -> None:
    """As with too few clips for FID."""
    assert plot_curves(results("unet", None), ("fid", "accuracy"), tmp_path / "curves.svg")
    assert {"unet", "unet, interval or schedule"} <= set(texts(tmp_path / "curves.svg"))
    assert plot_curves([result for result in results("unet", None) if result.condition.gamma is None], ("fid",), tmp_path / "none.svg")
    assert "unet" not in texts(tmp_path / "none.svg")


def test_curves_are_drawn_group_by_group_and_the_same_every_time(tmp_path: Path) -> None:
    both = [*results("unet", 2.0, "seen"), *results("unet", 3.0, "unseen")]
    for name in ("one.svg", "two.svg"):
        assert plot_curves(both, ("fid",), tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert {"seen", "unseen"} <= set(texts(tmp_path / "one.svg"))


def test_without_matplotlib_there_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(figures.importlib, "import_module", missing)
    assert not plot_curves(results("unet", 2.0), ("fid",), tmp_path / "curves.svg") and list(tmp_path.iterdir()) == []
