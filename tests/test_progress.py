"""progress.py: a bar for a terminal, whole lines for a log."""

from __future__ import annotations

import sys

import pytest

from duovox import progress as module
from duovox.progress import progress


def test_a_log_gets_whole_lines_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 1.0, 12.0, 13.0, 20.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(times))
    with progress(40, "decoding", "clips") as done:
        for _ in range(4):
            done(10)
    assert capsys.readouterr() == ("", "decoding: 20 of 40 clips, 1.67 a second, 12 s left\ndecoding: 40 of 40 clips, 2 a second\n")


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress(40, "decoding", "clips") as done:
        done(40)
    bar = capsys.readouterr().err
    assert "\r" in bar and "decoding: 100%" in bar and "40/40" in bar


def test_nothing_is_shown_where_nothing_is_wanted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with progress(40, "decoding", "clips", show=False) as done:
        done(40)
    assert capsys.readouterr() == ("", "")
