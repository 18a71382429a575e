"""mixtures.py and options.py: what is tried, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from duovox.cli import main
from duovox.contracts import ConfigError
from duovox.experiments.options import Options
from duovox.experiments.spotting.mixtures import Mixture, make_mixtures
from duovox.experiments.spotting.options import Spotting, require_shared

SMALL = Spotting(real=(10, 30), generated=(100, 500), own=(10,))


def test_every_voice_is_tried_alone_and_beside_real_clips() -> None:
    names = [mixture.name for mixture in make_mixtures(SMALL)]
    assert names[:2] == ["real10", "real30"]
    assert names[2:8] == ["all100", "real10_all100", "real30_all100", "all500", "real10_all500", "real30_all500"]
    assert names[8:12] == ["espeak100", "espeak500", "real10_espeak500", "real30_espeak500"]
    assert names[12:15] == ["all500_between", "real10_all500_between", "real30_all500_between"]
    assert names[15:] == ["own100_heard10", "real10_own100_heard10"], "a fair voice stands beside the clips it heard alone"
    assert len(set(names)) == len(names)


def test_what_is_not_to_be_had_is_left_out() -> None:
    plain = make_mixtures(replace(SMALL, between=0, own=(0,)), espeak=False)
    assert {mixture.voice for mixture in plain} == {"none", "all"} and not any(mixture.between for mixture in plain)


def test_mixtures_say_what_they_are() -> None:
    assert str(Mixture(10)) == "10 real"
    assert str(Mixture(10, "all", 100, between=True)) == "10 real + 100 generated, voice trained on all data, hard negatives"
    assert str(Mixture(0, "own", 100, 30)) == "100 generated, voice trained on 30 a word"
    assert str(Mixture(0, "espeak", 100)) == "100 of espeak-ng"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"commands": ("yes",)}, "--commands needs two words at least, to tell them apart, not yes"),
        ({"commands": ()}, "--commands needs two words at least, to tell them apart, not none"),
        ({"real": (10, 0)}, "--real must be numbers of at least 1, not 10 0"),
        ({"real": ()}, "--real must be numbers of at least 1, not none"),
        ({"generated": (-1,)}, "--generated must be numbers of at least 1, not -1"),
        ({"between": -1}, "--between must be at least 0, not -1"),
        ({"spotter_updates": 0}, "--spotter-updates must be at least 1, not 0"),
        ({"own_budget": 0.0}, "--own-budget must be a time to train in, not 0"),
        ({"own": (11,)}, r"--own 11 is none of --real \(10 30 100 480\); name numbers of those, or 0 for none"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Spotting(**given)


def test_options_of_other_experiments_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="--n is for other experiments; leave it out for augment"):
        require_shared(Options(Path("data"), Path("out"), n=3))
    require_shared(Options(Path("data"), Path("out"), noise=Path("noise"), seeds=1, time_budget=3.0))
    assert main(["experiment", "gamma", "--data", "d", "--out", "o", "--real", "10", "--own", "0"]) == 1
    assert capsys.readouterr().err == "duovox: --real is for the experiment augment; leave it out for gamma\n"
