"""training/display.py: what cannot be shown stops nothing."""

from __future__ import annotations

import errno
import io
import sys

import pytest

from duovox.training.display import display, say


class Gone(io.StringIO):
    """A terminal or pipe that went away after `good` writes."""

    def __init__(self, code: int, good: int = 0) -> None:
        super().__init__()
        self.code, self.good = code, good

    def write(self, text: str) -> int:
        self.good -= 1
        if self.good < 0:
            raise OSError(self.code, "gone")
        return len(text)


@pytest.mark.parametrize("code", [errno.EIO, errno.EPIPE, errno.ENOSPC])
@pytest.mark.parametrize("good", [0, 1, 3])
def test_a_reader_that_went_away(code: int, good: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Gone(code, good))
    monkeypatch.setattr(sys, "stdout", Gone(code, good))
    with display("line", 5, 0) as shown:
        for _ in range(5):
            shown.advance({"loss": 1.0})
            say("line step 1: loss 1.0")


def test_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with display("line", 5, 2) as shown:
        shown.advance({"loss": 1.0})
        say("said")
    out, err = capsys.readouterr()
    assert out == "said\n" and "line:  60%" in err and "3/5" in err and "loss=1.0000" in err
