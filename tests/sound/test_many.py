"""many.py: processes give what one process gives, in order, from any program, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from duovox.contracts import AudioError
from duovox.sound import many
from duovox.sound.audio import write_audio
from duovox.sound.hearing import Excerpt
from duovox.sound.many import read_excerpts, usable_cores

RATE, SAMPLES = 8000, 2000


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Clips of different tones; every seventh is no sound, every eleventh silent."""
    folder = tmp_path_factory.mktemp("clips")
    found = []
    for number in range(240):
        path = folder / f"{number:03}.wav"
        if number % 7 == 3:
            path.write_bytes(b"no sound")
        else:
            level = 0 if number % 11 == 5 else 0.5
            write_audio(path, level * np.sin((number + 1) / 100 * np.arange(SAMPLES + number)), RATE)
        found.append(path)
    return found


def as_plain(results: list[Excerpt | AudioError]) -> list[object]:
    return [(r.wave.tobytes(), r.treatment) if isinstance(r, Excerpt) else (type(r), str(r)) for r in results]


def test_processes_give_the_same_in_the_same_order(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    alone = as_plain(list(read_excerpts(paths, RATE, SAMPLES, workers=1)))
    monkeypatch.setattr(many, "_read", lambda *_: pytest.fail("decoded in this process"))
    assert as_plain(list(read_excerpts(paths, RATE, SAMPLES, workers=2))) == alone
    assert sum(kind is not AudioError for kind, _ in alone) > 150  # type: ignore[misc]


def test_few_files_start_no_process(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "_start", lambda *_: pytest.fail("started a process"))
    assert len(list(read_excerpts(paths[:199], RATE, SAMPLES, workers=64))) == 199
    assert list(read_excerpts([], RATE, SAMPLES)) == []


def test_cores_are_those_that_may_be_used() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from duovox.sound.many import read_excerpts
paths = sorted(Path(sys.argv[1]).iterdir())
results = read_excerpts(paths * int(sys.argv[2]), 8000, 2000, workers=2)
next(results)
print("started", flush=True)
print(sum(1 for _ in results) + 1, "torch" in sys.modules, flush=True)
"""


def test_a_script_without_a_guard_may_call_it_and_torch_is_not_loaded(paths: list[Path], tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    for program in ([str(tmp_path / "script.py")], ["-c", SCRIPT], ["-"]):
        given = SCRIPT if program == ["-"] else None
        done = subprocess.run(
            [sys.executable, *program, paths[0].parent, "1"], input=given, capture_output=True, text=True, timeout=120, check=True
        )
        assert done.stdout == "started\n240 False\n" and done.stderr == ""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_however_the_program_ends_its_processes_end(paths: list[Path], how: signal.Signals) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, paths[0].parent, "400"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout is not None and program.stdout.readline() == "started\n"
    workers = [pid for pid in Path("/proc").iterdir() if pid.name.isdigit() and parent_of(pid) == program.pid]
    assert len(workers) >= 2
    program.send_signal(how)
    program.communicate(timeout=60)
    for _ in range(200):
        if not any(worker.exists() and parent_of(worker) is not None for worker in workers):
            return
        time.sleep(0.05)
    pytest.fail(f"still running: {workers}")


def parent_of(process: Path) -> int | None:
    """The parent of a process by its folder in /proc; None for one that has ended."""
    try:
        state, parent = (process / "stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return None if state == "Z" else int(parent)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("moment", [0.0, 0.1, 0.5])
def test_a_killed_process_is_one_line_and_nobody_waits_for_it(paths: list[Path], moment: float) -> None:
    """Killed in the midst of sending, too: most of the time they wait there to be taken."""
    results = read_excerpts(paths * 40, RATE, SAMPLES, workers=2)
    next(results)
    time.sleep(moment)
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and parent_of(process) == os.getpid() and b"spawn_main" in (process / "cmdline").read_bytes():
            os.kill(int(process.name), signal.SIGKILL)
    with pytest.raises(AudioError, match=r"was killed; .*--workers 1") as caught:
        list(results)
    assert "\n" not in str(caught.value)
