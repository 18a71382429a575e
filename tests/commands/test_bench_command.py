"""commands/bench.py: figures to a table, a JSON file and a page; every mistake is one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from duovox.bench.rows import read_bench
from duovox.cli import main


def test_from_a_bundle_to_a_page(bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Measured once, read again: the page is that of the file."""
    quick = ["--presets", "balanced", "--batch", "2", "--repeats", "1", "--n", "1", "--no-cold"]
    places = ["--json", str(tmp_path / "b.json"), "--page", str(tmp_path / "b.md")]
    assert main(["bench", str(bundle_folder), *quick, *places]) == 0
    out = capsys.readouterr().out
    assert "generate balanced t1 b2 fp32 (baseline)" in out and "No accuracy: this judge was not trained on high, low, mid" in out
    found = read_bench(tmp_path / "b.json")
    assert [row.standing is not None for row in found.rows] == [row.kind == "generate" for row in found.rows]
    assert found.rows[-1].standing is not None and found.rows[-1].standing["n"] == 3
    assert main(["bench", "--read", str(tmp_path / "b.json"), "--page", str(tmp_path / "again.md")]) == 0
    assert capsys.readouterr().out == out
    assert (tmp_path / "again.md").read_text() == (tmp_path / "b.md").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--batch", "0"], "--batch must be at least 1, not 0"),
        (["--repeats", "0"], "--repeats must be at least 1, not 0"),
        (["--presets", "turbo", "--n", "0"], "preset turbo needs a distilled student"),
        (["--presets", "balanced", "--batch", "1", "--n", "0", "--baseline", "x"], "--baseline 'x' is no row of this benchmark"),
        (["--json", "{taken}"], "exists; add --force to overwrite it"),
        (["--read", "{taken}"], "has the format None"),
        (["--read", "{taken}", "--json", "{new}"], "give one of them"),
        (["--read", "{new}"], "cannot be read"),
        (["--also", "{bundle}"], "names a system twice"),
        (["--also", "{new}"], "no bundle at"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], said: str, bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken.json").write_text(json.dumps({}))
    places = {"{taken}": str(tmp_path / "taken.json"), "{new}": str(tmp_path / "new.json"), "{bundle}": str(bundle_folder)}
    assert main(["bench", str(bundle_folder), *[places.get(word, word) for word in words]]) == 1
    error = capsys.readouterr().err
    assert error.startswith("duovox: ") and error.count("\n") == 1 and said in error
