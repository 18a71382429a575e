"""Where figures come from: digests of files, versions of what computed, the machines that parts were trained on.

Takes paths and devices; `evaluation` and `experiments` put what it gives beside their figures.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import torch

import duovox
from duovox.files import write_whole


def versions() -> dict[str, str]:
    """Of everything whose version can change a figure."""
    return {"duovox": duovox.__version__, "python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}


def digest_of(path: Path) -> str:
    """SHA-256 of a file, computed once for each time of its last change."""
    return _digest(path, path.stat().st_mtime_ns)


@cache
def _digest(path: Path, _modified: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def processor() -> str:
    """What the processor calls itself."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def machine(device: torch.device) -> str:
    """The class of machine this is: processor, cores, torch, and the accelerator if it computes; no names of hosts."""
    accelerator = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads{accelerator}, torch {torch.__version__}"


def note_machine(path: Path, device: torch.device) -> None:
    """Add this machine to those that a part was trained on."""
    known = machines(path)
    if machine(device) not in known:
        write_whole(path, json.dumps([*known, machine(device)]).encode(), force=True, parents=True)


def machines(path: Path) -> list[str]:
    """The machines noted in a file."""
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else []


def git_revision() -> str:
    """The revision of the source tree duovox runs from, with `+` if it has uncommitted changes, or `unknown`."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
