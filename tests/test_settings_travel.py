"""A setting of sampling is one field of `SampleConfig`: here every field is walked through every door, and must arrive."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
from fastapi.testclient import TestClient

from duovox import Duovox
from duovox.bundle import Bundle
from duovox.cli import main
from duovox.config import SampleConfig, to_dict
from duovox.evaluation.systems import Generation
from duovox.generation import Request, fill_folder
from duovox.serve.app import create_app
from duovox.serve.settings import ServeConfig

OTHER: dict[str, Any] = {
    "preset": "quality",
    "sampler": "dpmpp_2m",
    "steps": 4,
    "last_sigma": 0.05,
    "gamma": 0.7,
    "guidance_low": 0.02,
    "guidance_high": 60.0,
    "schedule": "early",
    "guide_at": "estimate",
}
"""A value of each field that is not the tiny bundle's own."""


@pytest.fixture(scope="module")
def voice(tiny_bundle: Bundle) -> Duovox:
    return Duovox(tiny_bundle)


def test_every_field_has_an_explanation_and_another_value_here() -> None:
    assert {f.name for f in fields(SampleConfig)} == OTHER.keys()
    assert all(len(f.metadata["about"]) > 10 for f in fields(SampleConfig))


@pytest.mark.parametrize("name", OTHER)
def test_python_takes_it(voice: Duovox, name: str) -> None:
    (clip,) = voice.generate("low", keep_faulty=True, **{name: OTHER[name]})
    assert clip.settings == voice.config.recipe.sample.changed({name: OTHER[name]}) != voice.config.recipe.sample


@pytest.mark.parametrize("name", OTHER)
def test_the_command_line_takes_it_and_writes_it_down(
    name: str, bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    option = f"--{name.replace('_', '-')}"
    words = ["generate", "low", "--bundle", str(bundle_folder), "--out", str(tmp_path / "low.wav"), "--keep-faulty", option]
    assert main([*words, str(OTHER[name])]) == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "low.json").read_text())["settings"][name] == OTHER[name]


@pytest.mark.parametrize("name", OTHER)
def test_the_server_takes_it_and_says_it(name: str, voice: Duovox) -> None:
    with TestClient(create_app(voice, ServeConfig())) as client:
        described = client.get("/v1/model").json()
        assert described["defaults"][name] == to_dict(voice.config.recipe.sample)[name]
        reply = client.post("/v1/generate", json={"label": "low", "gamma": 0.0, name: OTHER[name]})
        assert reply.status_code == 200, reply.text
        assert reply.json()["settings"][name] == OTHER[name]


@pytest.mark.parametrize("name", OTHER)
def test_evaluation_takes_it_and_its_record_says_it(name: str, voice: Duovox, tmp_path: Path) -> None:
    settings = Generation(1, {name: OTHER[name]}).settings(voice)
    assert getattr(settings, name) == OTHER[name]
    fill_folder(voice, tmp_path / "clips", [Request("low", 0)], settings)
    assert json.loads((tmp_path / "clips" / "settings.json").read_text())["sample"][name] == OTHER[name]


def test_a_choice_is_offered_whole(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    text = capsys.readouterr().out
    assert all(choice in text for f in fields(SampleConfig) for choice in get_args(SampleConfig.__annotations__[f.name]))
