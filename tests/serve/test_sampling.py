"""serve/sampling.py: every field of `SampleConfig` is told, taken, done, told again, and written into command and Python."""

from __future__ import annotations

import ast
import dataclasses
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from serving import generate, serving
from starlette.testclient import TestClient

import duovox
from duovox import Duovox
from duovox.bundle import Bundle
from duovox.config import PRESETS, SampleConfig
from duovox.contracts import ConfigError
from duovox.serve.sampling import SETTINGS, changed, describe, differing, plain
from duovox.serve.schemas import GenerateRequest
from duovox.serve.settings import FEWEST_STEPS, MOST

SHIPPED = Path(duovox.__file__).parent / "bundles" / "sc06"
FIELDS = [field.name for field in dataclasses.fields(SampleConfig)]


@pytest.fixture(scope="module")
def voice(tiny_bundle: Bundle) -> Duovox:
    return Duovox(tiny_bundle)


@pytest.fixture(scope="module")
def client(voice: Duovox) -> Iterator[TestClient]:
    with serving(voice) as client:
        yield client


@pytest.fixture(scope="module")
def shipped() -> Duovox:
    return Duovox.from_pretrained("sc06")


def other(name: str, default: Any) -> Any:
    """A value of a setting that is not its default, and that every other setting can stand beside."""
    setting = next(setting for setting in SETTINGS if setting.name == name)
    if setting.choices:
        return next(choice for choice in setting.choices if choice != default)
    if setting.kind == "switch":
        return not default
    return {"integer": 4, "number": 0.5, "text": "other"}[setting.kind]


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_goes_all_the_way(client: TestClient, voice: Duovox, name: str) -> None:
    """Described, accepted, used for the clip, echoed, and in command and Python under the names they have there."""
    own = getattr(voice.config.recipe.sample, name)
    (described,) = (one for one in client.get("/v1/model").json()["settings"] if one["name"] == name)
    assert described["default"] == plain(voice.config.recipe.sample)[name]
    value = other(name, own)
    reply = generate(client, label="low", **{name: value})
    assert reply["settings"][name] == value
    settings = voice.settings(**{name: value})
    (made,) = voice.generate_batch([("low", 0)], settings)
    assert reply["clips"][0]["probabilities"] == pytest.approx(made.probabilities, abs=1e-4)
    call = ast.parse(reply["python"]).body[-1].value  # type: ignore[attr-defined]
    named = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    words = shlex.split(reply["command"])
    if name.startswith("guidance_"):
        assert words[words.index("--interval") + 1 :][:2] == [str(settings.guidance_low), str(settings.guidance_high)]
        assert named["interval"] == f"({settings.guidance_low!r}, {settings.guidance_high!r})".replace("inf", "float('inf')")
    else:
        assert words[words.index("--" + name.replace("_", "-")) + 1] == str(value) and named[name] == repr(value)


def test_a_preset_comes_before_what_is_given_beside_it(client: TestClient) -> None:
    """Also what is given back to the value that is the bundle's own."""
    own = client.get("/v1/model").json()["defaults"]
    reply = generate(client, label="low", preset="balanced", steps=own["steps"])
    assert reply["settings"]["preset"] == "balanced" and reply["settings"]["steps"] == own["steps"]
    assert reply["settings"]["sampler"] == PRESETS["balanced"]["sampler"] != own["sampler"]
    assert f" --preset balanced --steps {own['steps']} " in reply["command"]
    assert reply["python"].endswith(f".generate('low', n=1, seed=0, preset='balanced', steps={own['steps']})\n")


def test_the_model_tells_its_presets_and_refuses_others(client: TestClient) -> None:
    model = client.get("/v1/model").json()
    assert list(model["presets"]) == ["own", "quality", "balanced", "paper"], "turbo needs a student"
    assert model["presets"]["own"].items() <= model["defaults"].items()
    assert model["presets"]["paper"]["steps"] == 100 and model["presets"]["paper"]["gamma"] == model["defaults"]["gamma"]
    reply = client.post("/v1/generate", json={"label": "low", "preset": "turbo"})
    assert reply.status_code == 422 and "needs a distilled student" in reply.json()["error"]["message"]


def test_what_equals_the_bundles_own_is_not_written(client: TestClient, voice: Duovox) -> None:
    reply = generate(client, label="low", **plain(voice.config.recipe.sample))
    assert reply["command"] == "duovox generate low --seed 0 --bundle tiny"
    assert reply["python"].endswith(".generate('low', n=1, seed=0)\n")


def test_what_is_echoed_can_be_sent_again(client: TestClient) -> None:
    first = generate(client, label="low", gamma=0.5, interval=[0.2, None], schedule="early")
    again = {name: value for name, value in first["settings"].items() if name != "interval"}
    second = generate(client, label="low", **again)
    assert second["settings"] == first["settings"] and second["clips"] == first["clips"]


def test_the_description_of_the_settings_of_today() -> None:
    found = {setting.name: setting for setting in describe(SampleConfig())}
    assert list(found) == FIELDS
    steps, gamma, high = found["steps"], found["gamma"], found["guidance_high"]
    assert (steps.kind, steps.minimum, steps.maximum, steps.default) == ("integer", 1, MOST["steps"], 14)
    assert (gamma.kind, gamma.minimum, gamma.maximum, gamma.infinite) == ("number", 0, MOST["gamma"], False)
    assert (high.kind, high.minimum, high.maximum, high.default, high.infinite) == ("number", 0, None, "inf", True)
    assert found["schedule"].choices == ["constant", "early", "late"] and found["schedule"].kind == "choice"


def test_settings_to_come_are_described_by_their_types() -> None:
    @dataclass(frozen=True)
    class Later(SampleConfig):
        restart: bool = False
        shift: float = -1.0
        rounds: int = 0
        order: str = "first"

    found = {setting.name: (setting.kind, setting.default, setting.minimum) for setting in describe(Later())}
    assert {name: found[name] for name in ("restart", "shift", "rounds", "order")} == {
        "restart": ("switch", False, None),
        "shift": ("number", -1.0, None),
        "rounds": ("integer", 0, None),
        "order": ("text", "first", None),
    }


def test_a_setting_of_no_known_type_is_an_error_at_once() -> None:
    @dataclass(frozen=True)
    class Odd(SampleConfig):
        places: tuple[int, ...] = ()

    with pytest.raises(TypeError, match=r"Odd.places is a tuple\[int, ...\]"):
        describe(Odd())


def test_bounds_of_the_description_are_those_of_a_request() -> None:
    for setting in SETTINGS:
        for bound, step in ((setting.minimum, -1), (setting.maximum, 1)):
            if bound is not None:
                kind = int if setting.kind == "integer" else float
                assert getattr(GenerateRequest(**{setting.name: kind(bound)}), setting.name) == bound
                with pytest.raises(ValueError, match=setting.name):
                    GenerateRequest(**{setting.name: kind(bound + step)})


def test_the_interval_is_short_for_two_settings() -> None:
    own = SampleConfig()
    assert changed(own, {}, (0.5, None)) == dataclasses.replace(own, guidance_low=0.5)
    assert changed(own, {"guidance_high": "inf", "guidance_low": None}) == own
    assert changed(own, {"guidance_low": 1.0}) == changed(own, {}, (1.0, None))
    assert differing(changed(own, {"gamma": 1.0}, (0.0, 2.0)), own) == {"gamma": 1.0, "interval": (0.0, 2.0)}
    with pytest.raises(ConfigError, match="give either interval or guidance_low and guidance_high, not both"):
        changed(own, {"guidance_low": 1.0, "guidance_high": 2.0}, (0.0, 2.0))


def test_every_sampler_has_a_number_of_steps_to_start_from() -> None:
    (sampler,) = (setting for setting in SETTINGS if setting.name == "sampler")
    assert [*FEWEST_STEPS, "student"] == sampler.choices, "a student says itself what it was taught"


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="no bundle sc06 in the package")
@pytest.mark.parametrize("sampler", FEWEST_STEPS)
def test_the_shipped_bundle_speaks_with_the_fewest_steps(shipped: Duovox, sampler: str) -> None:
    """And not with half of them."""
    wanted = [(label, seed) for seed, label in enumerate(shipped.labels[:3])]
    few = FEWEST_STEPS[sampler]
    assert [clip.fault for clip in shipped.generate_batch(wanted, shipped.settings(sampler=sampler, steps=few))] == [""] * 3
    assert all(clip.fault for clip in shipped.generate_batch(wanted, shipped.settings(sampler=sampler, steps=few // 2)))
