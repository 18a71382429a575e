"""What every group of settings shares: checks of their values, and plain dictionaries, JSON in and out.

Takes settings dataclasses, or plain dictionaries from recipes, bundles and checkpoints; gives checked settings.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from duovox.contracts import ConfigError
from duovox.text import label_fault, language_fault

T = TypeVar("T")


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def check(where: str, settings: Any, positive: str = "", not_negative: str = "", may_be_infinite: str = "") -> None:
    """What holds for every group of settings: choices are among their literals, numbers finite, the named ones in range."""
    for name, kind in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if get_origin(kind) is Literal:
            require(value in get_args(kind), f"{where}.{name}: {value!r} is none of {', '.join(map(repr, get_args(kind)))}")
        if kind is float and not (name in may_be_infinite.split() and value == math.inf):
            require(math.isfinite(value), f"{where}.{name} must be finite, not {value}")
    for name in positive.split():
        value = getattr(settings, name)
        require(all(v > 0 for v in (value if isinstance(value, tuple) else (value,))), f"{where}.{name} must be positive, not {value}")
    for name in not_negative.split():
        require(getattr(settings, name) >= 0, f"{where}.{name} must not be negative, not {getattr(settings, name)}")


def check_labels(where: str, labels: tuple[str, ...]) -> None:
    """Raise `ConfigError` unless these are labels: different names, at least one."""
    require(len(labels) > 0 and len(set(labels)) == len(labels), f"{where} must be different names, at least one, not {list(labels)}")
    for label in labels:
        fault = label_fault(label)
        require(not fault, f"{where}: {label!r} cannot be a label, it {fault}")


def check_languages(where: str, languages: Mapping[str, str], labels: tuple[str, ...]) -> None:
    """Raise `ConfigError` unless these are codes of languages for some of the labels."""
    require(isinstance(languages, Mapping), f"{where}: expected a table of label and language, got {languages!r}")
    for label, code in languages.items():
        require(label in labels, f"{where}: {label!r} is none of the labels ({', '.join(labels)})")
        fault = language_fault(code) if isinstance(code, str) else "is no text"
        require(not fault, f"{where}: the language {code!r} of {label!r} {fault}")


def to_dict(settings: Any) -> dict[str, Any]:
    """A settings dataclass as plain dictionaries, lists and scalars (infinity as "inf": JSON has none; no None: TOML has none)."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items() if item is not None}
        if isinstance(value, tuple | list):
            return [plain(item) for item in value]
        return "inf" if value == float("inf") else value

    result = plain(asdict(settings))
    assert isinstance(result, dict)
    return result


def from_dict(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """Build the settings dataclass `cls` from plain dictionaries; unknown names and wrong types raise `ConfigError`."""
    require(isinstance(data, Mapping), f"{where or cls.__name__}: expected a table of settings, got {data!r}")
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    for name in data:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known))}"
            raise ConfigError(f"{where or cls.__name__}: unknown setting {name!r}{hint}")
    hints = get_type_hints(cls)
    values = {name: _convert(hints[name], value, f"{where}.{name}" if where else name) for name, value in data.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(f"{where or cls.__name__}: {error}") from None
    except ConfigError as error:
        raise ConfigError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None


def _convert(kind: Any, value: Any, where: str) -> Any:
    """Turn one plain value into the type a field is annotated with, or say what was expected."""
    if is_dataclass(kind):
        return from_dict(kind, value, where)  # type: ignore[arg-type]
    origin = get_origin(kind)
    if origin is Literal:
        require(value in get_args(kind), f"{where}: {value!r} is none of {', '.join(map(repr, get_args(kind)))}")
        return value
    if origin is tuple:
        require(isinstance(value, list | tuple), f"{where}: expected a list, got {value!r}")
        return tuple(_convert(get_args(kind)[0], item, where) for item in value)
    if origin in (UnionType, Union):
        choices = [c for c in get_args(kind) if c is not type(None)]
        return None if value is None else _convert(choices[0], value, where)
    if origin is not None or kind is Any:
        return value
    if kind is float and value == "inf":
        return float("inf")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    require(isinstance(value, kind) and (kind is bool or not isinstance(value, bool)), f"{where}: expected {kind.__name__}, got {value!r}")
    return value


def to_json(settings: Any) -> str:
    """A settings dataclass as JSON, keys in the order of their definition."""
    return json.dumps(to_dict(settings), indent=2)
