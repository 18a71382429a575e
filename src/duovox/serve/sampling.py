"""The settings of sampling as the API tells and takes them: one walk over the fields of `SampleConfig`, from which requests, replies
and the page's controls are made. A new field there needs nothing here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel, Field, create_model

from duovox.config import SampleConfig
from duovox.contracts import ConfigError
from duovox.serve.settings import MOST

Scalar = bool | int | float | str
Change = Scalar | tuple[float, float]
Kind = Literal["choice", "switch", "integer", "number", "text"]
KINDS: dict[Any, Kind] = {bool: "switch", int: "integer", float: "number", str: "text"}


class Setting(BaseModel):
    """A setting of sampling: a field of /v1/generate. `default` is the bundle's own; a number without a maximum may be "inf"."""

    name: str
    kind: Kind
    about: str
    default: Scalar
    choices: list[str] | None = None
    minimum: float | None = None
    maximum: float | None = None
    infinite: bool = False


def plain(settings: SampleConfig) -> dict[str, Scalar]:
    """Every setting by its name, as JSON has it: infinity is "inf"."""
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return {name: "inf" if value == math.inf else value for name, value in values.items()}


def describe(defaults: SampleConfig) -> list[Setting]:
    """Every field of the settings in its order, with the defaults of a bundle. Raises `TypeError` for a type that has no `Kind`."""
    hints, values = get_type_hints(type(defaults)), plain(defaults)
    return [_describe(field, hints[field.name], values[field.name], type(defaults)) for field in fields(defaults)]


def _describe(field: Any, hint: Any, default: Scalar, settings: type[SampleConfig]) -> Setting:
    about = field.metadata.get("about", "")
    if get_origin(hint) is Literal:
        return Setting(name=field.name, kind="choice", about=about, default=default, choices=list(get_args(hint)))
    if hint not in KINDS:
        raise TypeError(f"{settings.__name__}.{field.name} is a {hint}, which the API cannot describe")
    least = _least(settings, field.name, hint) if hint in (int, float) else None
    infinite = field.default == math.inf
    return Setting(
        name=field.name, kind=KINDS[hint], about=about, default=default, minimum=least, maximum=MOST.get(field.name), infinite=infinite
    )


def _least(settings: type[SampleConfig], name: str, kind: type) -> float | None:
    """The least value of a number, found by asking the settings: 0 where they take none below it, for whole numbers perhaps 1."""
    if _accepted(settings, name, kind(-1)):
        return None
    return 1 if kind is int and not _accepted(settings, name, 0) else 0


def _accepted(settings: type[SampleConfig], name: str, value: Scalar) -> bool:
    try:
        settings(**{name: value})  # type: ignore[arg-type]
    except ConfigError:
        return False
    return True


def _type(setting: Setting, strict: bool) -> Any:
    """The type of a setting in a request (strict, within its range), or in a reply."""
    if setting.choices is not None:
        return Literal[tuple(setting.choices)]
    plain_type: Any = next(kind for kind, name in KINDS.items() if name == setting.kind)
    bounds: dict[str, Any] = {"strict": True, "ge": setting.minimum, "le": setting.maximum} if strict else {}
    if plain_type is float:
        bounds["allow_inf_nan"] = False
    number = Annotated[plain_type, Field(**{key: value for key, value in bounds.items() if value is not None})]
    return number | Literal["inf"] if setting.infinite else number


INTERVAL = ("guidance_low", "guidance_high")
"""The two settings that are one to command line and Python: the interval."""

SETTINGS = describe(SampleConfig())

_REQUEST: dict[str, Any] = {s.name: (_type(s, strict=True) | None, Field(None, description=s.about)) for s in SETTINGS}
SampleRequest: Any = create_model("SampleRequest", **_REQUEST)
"""The part of a request that says how to sample: every setting, None where it is left to the bundle."""

_REPLY: dict[str, Any] = {s.name: (_type(s, strict=False), ...) for s in SETTINGS}
SampleReply: Any = create_model("SampleReply", **_REPLY)
"""The part of a reply that says how it was sampled: a value for every setting."""


def changed(defaults: SampleConfig, given: Mapping[str, Any], interval: tuple[float, float | None] | None = None) -> SampleConfig:
    """The defaults with those settings of a request that are given, beginning with its preset; `interval` is short for the two ends of
    the guidance, None the upper one if it has none. Raises `ConfigError`, also for both spellings at once."""
    values = {s.name: given[s.name] for s in SETTINGS if given.get(s.name) is not None}
    values = {name: math.inf if value == "inf" else value for name, value in values.items()}
    if interval is None:
        return defaults.changed(values)
    if both := [name for name in INTERVAL if name in values]:
        raise ConfigError(f"give either interval or {' and '.join(both)}, not both")
    low, high = interval
    return defaults.changed(values | {"guidance_low": low, "guidance_high": math.inf if high is None else high})


def differing(settings: SampleConfig, defaults: SampleConfig) -> dict[str, Change]:
    """The settings that are not the defaults' or the preset's, by the names they have in command line and Python, where `interval` is
    one."""
    preset = {"preset": settings.preset} if settings.preset != defaults.preset else {}
    begun = defaults.changed(preset)
    changes: dict[str, Any] = {s.name: getattr(settings, s.name) for s in SETTINGS}
    changes = preset | {name: value for name, value in changes.items() if value != getattr(begun, name)}
    if not changes.keys() & set(INTERVAL):
        return changes
    return {name: value for name, value in changes.items() if name not in INTERVAL} | {"interval": ends(settings)}


def ends(settings: SampleConfig) -> tuple[float, float]:
    """The noise levels between which the classifier guides."""
    return settings.guidance_low, settings.guidance_high
