"""What anyone with recordings and the paper's recipe would type, from a folder of words to the page of table 1, at a tiny scale."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rules import assert_claims_follow

from duovox import cli
from duovox.config import read_recipe
from duovox.data import open_features
from duovox.evaluation.judge import CompactJudge, Judge
from duovox.experiments import runner

RECIPE = """
about = "recipes/paper.toml with every size made small: the same noise, scale, sampler, fusion and gradient taps."
mel_scale = "range"

[mel]
n_mels = 16
frames = 16
clip_samples = 3840

[noise]
kind = "vp"
sigma_max = 150.0
beta_min = 0.1
beta_max = 20.0

[classifier]
patch = 1
widths = [8, 12]
blocks = 1
bottleneck_blocks = 1
embedding = 16
group_size = 4

[subnet]
widths = [4, 8]
blocks = 1
embedding = 16
group_size = 4
heads = 2
fusion = "attention"
gradient_taps = "logsumexp"

[unet]
patch = 1
widths = [8, 12]
up_widths = [8, 12]
blocks = 1
bottleneck_blocks = 1
embedding = 16
group_size = 4

[sample]
sampler = "euler_maruyama"
steps = 2
gamma = 3.0

[train_classifier]
updates = 3
batch = 4
warmup = 1
shift_frames = 2
ema_decay = 0.5

[train_subnet]
updates = 2
batch = 4
warmup = 1
ema_decay = 0.5

[train_judge]
updates = 3
batch = 6
ema_decay = 0.5
"""


@pytest.fixture(scope="module", autouse=True)
def small_judge() -> Iterator[None]:
    """Judges of four features, so that six clips are enough for FID."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CompactJudge, "widths", (2, 3, 4))
        yield


@pytest.fixture(scope="module")
def here(tiny_words: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the recipe and the words."""
    place = tmp_path_factory.mktemp("scratch")
    (place / "small.toml").write_text(RECIPE)
    (place / "words").symlink_to(tiny_words)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        yield place


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


TABLE1 = (
    "experiment table1 --recipe small.toml --data features --out out --judge judge/judge/judge.safetensors --n 2 --seeds 1 --device cpu"
)


@pytest.fixture(scope="module")
def page(here: Path) -> Path:
    assert run("data", "prepare", "words", "--out", "features", "--recipe", "small.toml") == 0
    assert run("train", "judge", "--recipe", "small.toml", "--data", "features", "--out", "judge", "--device", "cpu") == 0
    assert run(*TABLE1.split()) == 0
    return here / "out" / "results" / "table1.md"


def test_the_small_recipe_is_the_paper_s_form(here: Path) -> None:
    """All but sizes and budgets."""
    small, paper = read_recipe(here / "small.toml"), read_recipe("paper")
    assert small.noise == paper.noise and small.mel_scale == paper.mel_scale and small.score_model == paper.score_model
    assert small.sample == replace(paper.sample, steps=small.sample.steps)
    assert small.classifier.patch == paper.classifier.patch and small.unet.patch == paper.unet.patch
    sizes = {"widths": (), "blocks": 1, "embedding": 1, "group_size": 1, "heads": 1}
    assert replace(small.subnet, **sizes) == replace(paper.subnet, **sizes)


def test_table1_of_the_paper_s_form_from_words_alone(page: Path) -> None:
    text, found = page.read_text(), json.loads(page.with_suffix(".json").read_text())
    assert found["left"] == [] and found["failures"], "two steps make no speech, and the page says so"
    assert all("6 of 6 clips ran off to no speech" in what for what in found["failures"])
    assert "Command: `duovox experiment table1 --recipe small --data FEATURES --out OUT --judge JUDGE --n 2 --seeds 1`" in text
    assert "Sampler: euler_maruyama with 2 steps" in text and "Vocoder: Griffin-Lim." in text
    assert "Classifier: 3 updates" in text and "Random classifier: 0 updates" in text
    names = ["unet", "subnet_logsumexp", "subnet_none", "subnet_label", "subnet_random"]
    assert [(system["system"], system["updates"], system["samples"]) for system in found["systems"]] == [(name, 2, 8) for name in names]
    assert len({system["classifier"] for system in found["systems"]}) == 2, "one for all, and the random one"
    figures = [row[name] for result in found["results"] for row in result["rows"] for name in ("fid", "inception", "am", "nearest_own")]
    assert len(figures) == 10 * 4 and all(isinstance(figure, float) and figure >= 0 for figure in figures)
    assert {result["rows"][0]["n"] for result in found["results"]} == {6}
    assert_claims_follow(found)
    assert all(claim["verdict"] in ("undecided", "does not hold") for claim in found["claims"]), "one set of seeds decides nothing"
    assert not any("no figure yet" in part["text"] for claim in found["claims"] for part in claim["comparisons"])


def test_parts_are_trained_as_the_recipe_says(page: Path, here: Path) -> None:
    recipe, features = read_recipe("small.toml"), open_features("features")
    assert (recipe.noise.kind, recipe.mel_scale, recipe.subnet.fusion) == ("vp", "range", "attention")
    facts: dict[str, Any] = json.loads((here / "out" / "classifier" / "run.json").read_text())
    assert facts["mel_scale"]["kind"] == "range" and facts["data"] == features.digest
    assert Judge.load("judge/judge/judge.safetensors").labels == features.labels
    settings = json.loads((here / "out" / "trials" / "subnet_logsumexp" / "gamma3_s0" / "settings.json").read_text())
    assert (settings["sample"]["sampler"], settings["sample"]["steps"], settings["sample"]["gamma"]) == ("euler_maruyama", 2, 3.0)


def test_the_same_command_again_makes_nothing(page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    before = page.with_suffix(".json").read_bytes()
    for name in ("start_training", "make_clips", "evaluate"):
        monkeypatch.setattr(runner, name, None)
    assert run(*TABLE1.split()) == 0 and capsys.readouterr().out == "out/results/table1.md: complete\n"
    assert page.with_suffix(".json").read_bytes() == before
