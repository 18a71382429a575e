"""deploy/ and docs/serve.md: what they tell people to type exists, and what must hold together does."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
from pathlib import Path

import pytest

from duovox.cli import main
from duovox.serve.schemas import GenerateRequest

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PAGES = {path.name: path.read_text() for path in (ROOT / "docs" / "serve.md", *DEPLOY.iterdir())}


def test_options_named_anywhere_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    named = set(re.findall(r"`(--[a-z-]+)", PAGES["serve.md"]))
    for text in PAGES.values():
        for line in re.findall(r'duovox"?,? "?serve"?(.*)', text):
            named |= set(re.findall(r"--[a-z-]+", line))
    assert len(named) > 8 and named <= options, named - options


def test_the_service_gives_its_process_more_time_than_a_request_has() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(PAGES["duovox.service"])
    service = unit["Service"]
    assert int(service["TimeoutStopSec"]) > 60 + 10  # --timeout, and the worker's own end
    for setting in ("DynamicUser", "NoNewPrivileges", "PrivateTmp", "ProtectHome"):
        assert service[setting] == "yes"
    assert service["ProtectSystem"] == "strict" and service["CapabilityBoundingSet"] == "" and service["MemoryMax"]
    assert "--token-file %d/token" in service["ExecStart"] and "token:" in service["LoadCredential"]


def test_container_and_service_install_alike() -> None:
    assert "deploy/install.sh /opt/duovox" in PAGES["Containerfile"] and "deploy/install.sh /opt/duovox" in PAGES["duovox.service"]
    assert PAGES["duovox.service"].count("ExecStart=/opt/duovox/bin/duovox") == 1
    assert re.search(r"^USER 10001$", PAGES["Containerfile"], re.MULTILINE) and "/healthz" in PAGES["Containerfile"]
    versions = set(re.findall(r"torch==[\d.]+", PAGES["Containerfile"] + PAGES["install.sh"]))
    assert len(versions) == 1


def test_the_scripts_can_be_run() -> None:
    for name in ("install.sh", "check.sh"):
        assert os.access(DEPLOY / name, os.X_OK)
        assert subprocess.run(["bash", "-n", DEPLOY / name], check=False).returncode == 0


def test_the_fields_of_a_request_are_those_of_the_document() -> None:
    table = PAGES["serve.md"].split("| field |")[1].split("\n\n")[0]
    fields = "\n".join(line.split("|")[1] for line in table.splitlines()[2:])
    assert set(re.findall(r"`(\w+)`", fields)) == set(GenerateRequest.model_fields)
