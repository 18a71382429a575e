"""The command line: every command by its name; every error of ours is one line and a non-zero exit.

Nothing heavy is imported at the top, so that `--help` answers at once; the same holds for `commands`.
"""

from __future__ import annotations

import difflib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import tyro

from duovox import __version__
from duovox.commands.bench import bench as measure
from duovox.commands.data import fetch, prepare, respeak
from duovox.commands.dataset import dataset
from duovox.commands.exporting import export
from duovox.commands.foreign import repurpose_classifier, taps
from duovox.commands.guiding import guide
from duovox.commands.saying import say
from duovox.commands.scoring import evaluate, experiment, inspect, judge
from duovox.commands.serving import serve
from duovox.commands.speaking import classify, generate
from duovox.commands.training import bundle, calibrate, solve, train
from duovox.contracts import DuovoxError
from duovox.processes import ranks
from duovox.text import printable

DATA_COMMANDS: dict[str, Any] = {"fetch": fetch, "prepare": prepare, "respeak": respeak}
data_app = tyro.extras.SubcommandApp()
for name, command in DATA_COMMANDS.items():
    data_app.command(command, name=name)

COMMANDS: dict[str, Any] = {
    "generate": generate,
    "say": say,
    "classify": classify,
    "data": data_app,
    "dataset": dataset,
    "train": train,
    "solve": solve,
    "evaluate": evaluate,
    "experiment": experiment,
    "judge": judge,
    "inspect": inspect,
    "bundle": bundle,
    "taps": taps,
    "repurpose": repurpose_classifier,
    "guide": guide,
    "calibrate": calibrate,
    "export": export,
    "serve": serve,
    "bench": measure,
}
app = tyro.extras.SubcommandApp()
for name, command in COMMANDS.items():
    about: dict[str, Any] = {"help": "Get recordings, and decode them into features."} if command is data_app else {}
    app.command(command, name=name, **about)

PACKAGES = {"PIL": "pillow"}
"""What packages are called that have another name than their module."""


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Within it SIGTERM and a terminal that closes end the command as Ctrl-C does: what is unfinished is removed on the way out. A signal
    that is ignored, as `nohup` has it, or heeded in another way stays so."""

    def end(number: int, _frame: FrameType | None) -> None:
        if ranks() == 1:  # of several processes the one speaks that knows why they end
            os.write(2, f"duovox: stopped by {signal.Signals(number).name}\n".encode())  # as something may just be printed
        raise SystemExit(128 + number)

    names = ("SIGTERM", "SIGHUP") if threading.current_thread() is threading.main_thread() else ()
    ours = [getattr(signal, name) for name in names if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


SPIN_COUNT = "5000"
"""How often a thread of OpenMP looks for work before it sleeps. Those that look for longer take the core of those they wait for, where
other work runs beside; those that sleep at once are woken too late, at half the speed (docs/speed.md)."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 an error of ours, 2 wrong usage, 130 interrupted.

    SIGTERM and SIGHUP leave by `SystemExit` with 128 and their number, as shells count them.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold what the terminal cannot show
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["--version"]:
        print(f"duovox {__version__}")
        return 0
    if fault := _unknown(arguments):
        print(f"duovox: {fault}", file=sys.stderr)
        return 2
    try:
        try:
            with _ended_by_signals():
                app.cli(prog="duovox", description="One speech classifier, two jobs: it recognises words and speaks them.", args=arguments)
        finally:
            sys.stdout.flush()
    except DuovoxError as error:
        _say_once(f"duovox: {printable(str(error))}")
        return 1
    except KeyboardInterrupt:
        print("duovox: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as error:
        print(f"duovox: {_missing(error)}", file=sys.stderr)
        return 1
    except OSError as error:  # what the file system says to a path of the user's, where no part of ours says it better
        where = f": {error.filename}" if error.filename else ""
        print(f"duovox: {printable(f'{error.strerror or error}{where}')}", file=sys.stderr)
        return 1
    return 0


def _say_once(line: str) -> None:
    """Print an error, once where several processes that torchrun started meet the same."""
    if ranks() > 1:
        from duovox.training.shares import says_first

        if not says_first(line):
            return
    print(line, file=sys.stderr)


def _unknown(arguments: list[str]) -> str:
    """What is said where the first words name no command; empty where they do, or where an option comes first."""
    known, words = COMMANDS, arguments
    if words and words[0] == "data":
        known, words = DATA_COMMANDS, words[1:]
    if not words or words[0].startswith("-") or words[0] in known:
        return ""
    near = difflib.get_close_matches(words[0], known, 1)
    hint = f"; the nearest: {near[0]}" if near else ""
    return f"no command {printable(repr(words[0]))}{hint}; there are {', '.join(known)}"


def _missing(error: ModuleNotFoundError) -> str:
    """What to install, where a package is missing that a full installation has. Raises the error for a module of ours."""
    name = (error.name or "").split(".")[0]
    if name in ("", "duovox"):
        raise error
    if name == "torch":
        return "PyTorch is not installed: pip install torch; generate and classify do without it, with --model"
    return f"{name} is not installed: pip install {PACKAGES.get(name, name)}"
