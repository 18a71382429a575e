"""What several commands do with their options: settings of sampling, times, and files that are not to be overwritten."""

from __future__ import annotations

import os
import re
from dataclasses import fields, make_dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from tyro.conf import arg

from duovox.config import SampleConfig
from duovox.contracts import ConfigError, DuovoxError, OutputError

if TYPE_CHECKING:
    from duovox.devices import DeviceName, Precision
    from duovox.lite.voice import Voice
    from duovox.voice import Duovox

    class Sampling:
        """The settings of sampling as options of a command: every field of `SampleConfig`, and the short form `interval`."""

        def given(self) -> dict[str, Any]:
            """What the user has set, for `SampleConfig.changed`."""
            raise NotImplementedError

else:

    def _option(name: str, kind: Any, about: str) -> tuple[str, Any, None]:
        return name, Annotated[kind | None, arg(help=about)], None

    def _given(options: Any) -> dict[str, Any]:
        return {f.name: getattr(options, f.name) for f in fields(options) if getattr(options, f.name) is not None}

    _kinds = get_type_hints(SampleConfig)
    _options = [_option(f.name, _kinds[f.name], f.metadata["about"]) for f in fields(SampleConfig)]
    _options.append(_option("interval", tuple[float, float], "Guide only at noise levels between these two sigmas."))
    Sampling = make_dataclass("Sampling", _options, namespace={"given": _given}, frozen=True)

SamplingOptions = Annotated[Sampling, arg(name="")]
"""The type of a command's parameter that takes them as --gamma, --steps, ..."""


def parse_seconds(text: str) -> float:
    """Seconds of a duration such as 90, 90s, 20m or 1.5h. Raises `ConfigError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match:
        raise ConfigError(f"time budget {text!r} is no duration; write it as 90s, 20m or 1.5h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def refuse_existing(paths: list[Path], force: bool) -> None:
    """Fail before any work is done rather than after it."""
    for path in paths:
        if path.is_dir() or (path.exists() and not force):
            raise OutputError(f"{path} exists{' and is a folder' if path.is_dir() else '; add --force to overwrite it'}")
        parent = next(p for p in path.absolute().parents if p.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise OutputError(f"cannot write {path}: {'no permission to write in' if parent.is_dir() else 'not a folder:'} {parent}")


def require_extra(extra: str, parts: tuple[str, ...]) -> None:
    """Raise `DuovoxError` that says how to install an extra, where a package of it is missing."""
    missing = [part for part in parts if find_spec(part) is None]
    if missing:
        raise DuovoxError(f"{', '.join(missing)} not installed: pip install 'duovox[{extra}]'")


def open_voice(bundle: str, model: Path | None, trust_code: bool, device: DeviceName, precision: Precision = "fp32") -> Duovox | Voice:
    """The exported voice in the folder `model`, where one is named, else the bundle. Raises `DuovoxError` where a bundle is to be opened
    without PyTorch, or an exported voice in another precision than it has."""
    if model is not None:
        if precision == "bf16":
            raise ConfigError("--precision bf16 is PyTorch's; an exported voice computes in float32")
        from duovox.lite.voice import Voice

        return Voice(model)
    if find_spec("torch") is None:
        raise DuovoxError("PyTorch is not installed: give --model a folder made by `duovox export`, or pip install torch")
    from duovox.devices import choose_device
    from duovox.voice import Duovox

    return Duovox.from_pretrained(bundle, trust_code=trust_code).to(choose_device(device), precision)
