"""training/solutions.py: what is solved depends on its number alone; a folder is gone on with, grows, and refuses what is not its own."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from duovox.bundle import Bundle
from duovox.config import SampleConfig, SolutionConfig
from duovox.contracts import NO_LABEL, ConfigError, DataError, GenerationError, OutputError
from duovox.diffusion.sampling import sample
from duovox.files import claimed
from duovox.mels import denoiser_of
from duovox.training import solutions as module
from duovox.training.solutions import make_solutions, open_solutions, shard_file, solution_gamma, solution_label
from duovox.voice import Duovox

CONFIG = SolutionConfig(unlabelled=0.25, steps=5, gammas=(0.1, 0.5), first_seed=700)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD", 8)
    monkeypatch.setattr(module, "HELD_OUT", 4)


@pytest.fixture
def voice(tiny_bundle: Bundle) -> Duovox:
    return Duovox(tiny_bundle)


def test_labels_come_in_turn_and_a_share_has_none() -> None:
    counts = Counter(solution_label(CONFIG, number, 3) for number in range(1200))
    assert counts == {NO_LABEL: 300, 0: 300, 1: 300, 2: 300}
    assert Counter(solution_label(SolutionConfig(unlabelled=0.0), number, 3) for number in range(9)) == {0: 3, 1: 3, 2: 3}


def test_strengths_fill_the_range() -> None:
    found = sorted(solution_gamma(CONFIG, number) for number in range(100))
    assert 0.1 <= found[0] < 0.11 and 0.49 < found[-1] <= 0.5
    assert max(b - a for a, b in pairwise(found)) < 0.02
    assert {solution_gamma(SolutionConfig(), number) for number in range(10)} == {3.0}


def test_the_paths_end_where_the_sampler_ends(voice: Duovox, tmp_path: Path) -> None:
    """Solution i is the voice's own clip of the same seed, label and gamma; the last node is its mel, the first its noise."""
    assert make_solutions(voice, tmp_path / "s", 9, CONFIG, batch=4) == (16, 16)
    solutions = open_solutions(tmp_path / "s")
    batch = solutions.batch(list(range(16)))
    assert batch.nodes.shape == (16, 6, 1, 16, 16)
    mel, noise = voice.config.recipe.mel, voice.config.recipe.noise
    for number in (0, 1, 3, 14):
        settings = SampleConfig(sampler="dpmpp_2m", steps=5, gamma=batch.gamma[number].item())
        label = batch.label[number : number + 1]
        denoiser = denoiser_of(voice.bundle, None if label.item() == NO_LABEL else label, settings)
        ours = sample(denoiser, [700 + number], (1, mel.n_mels, mel.frames), settings, noise)
        assert torch.allclose(batch.nodes[number, -1], ours[0], atol=2e-3), number
    assert {int(label) for label in batch.label} == {NO_LABEL, 0, 1, 2}


def test_a_solution_is_the_same_in_any_batch_and_any_number(voice: Duovox, tmp_path: Path) -> None:
    make_solutions(voice, tmp_path / "a", 8, CONFIG, batch=2)
    make_solutions(voice, tmp_path / "b", 16, CONFIG, batch=8)
    one, other = open_solutions(tmp_path / "a"), open_solutions(tmp_path / "b")
    assert (len(one), len(other)) == (8, 16) and one.digest == other.digest
    assert torch.allclose(one.batch([3, 6]).nodes, other.batch([3, 6]).nodes, atol=1e-4)
    assert other.numbers("validation") == [3, 7, 11, 15] and len(other.numbers("train")) == 12


def test_it_goes_on_with_what_is_there(voice: Duovox, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    assert make_solutions(voice, folder, 16, CONFIG, batch=8, time_budget=0) == (0, 16)
    with pytest.raises(DataError, match="holds 0 solutions, 8 are needed; run `duovox solve` again"):
        open_solutions(folder)
    make_solutions(voice, folder, 16, CONFIG, batch=8)
    before = shard_file(folder, 0).stat().st_mtime_ns
    shard_file(folder, 1).unlink()
    (folder / ".00001.safetensors.999999.tmp").write_bytes(b"half")
    make_solutions(voice, folder, 16, CONFIG, batch=8)
    assert shard_file(folder, 0).stat().st_mtime_ns == before
    assert sorted(path.name for path in folder.iterdir()) == ["00000.safetensors", "00001.safetensors", "solutions.json"]
    assert len(open_solutions(folder, shards=1)) == 8, "a run that was begun with fewer stays with them"


def test_another_teacher_or_other_settings_are_refused(voice: Duovox, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    make_solutions(voice, folder, 8, CONFIG, batch=8)
    with pytest.raises(DataError, match=r"config\.steps = 5, now it is 6; choose another folder"):
        make_solutions(voice, folder, 8, replace(CONFIG, steps=6), batch=8)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty and holds no solutions"):
        make_solutions(voice, tmp_path / "full", 8, CONFIG, batch=8)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["letter.txt"]
    with claimed(folder), pytest.raises(OutputError, match="another run is writing solutions"):
        make_solutions(voice, folder, 16, CONFIG, batch=8)


@pytest.mark.parametrize(("count", "batch"), [(0, 8), (8, 3), (8, 0), (8, 16)])
def test_impossible_numbers(voice: Duovox, tmp_path: Path, count: int, batch: int) -> None:
    with pytest.raises(ConfigError, match="divisor of 8"):
        make_solutions(voice, tmp_path / "s", count, CONFIG, batch)
    assert not (tmp_path / "s").exists()


def test_damaged_folders(voice: Duovox, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no solutions of a teacher; make them with `duovox solve"):
        open_solutions(tmp_path / "none")
    folder = tmp_path / "s"
    make_solutions(voice, folder, 8, CONFIG, batch=8)
    shard_file(folder, 0).write_bytes(b"junk")
    with pytest.raises(DataError, match=r"00000\.safetensors cannot be read .*remove it and run `duovox solve` again"):
        open_solutions(folder).batch([0])
    facts = json.loads((folder / "solutions.json").read_text())
    for content in ("junk", json.dumps(facts | {"format": "other"}), "[]"):
        (folder / "solutions.json").write_text(content)
        with pytest.raises(DataError, match="make the solutions again with `duovox solve`"):
            open_solutions(folder)


def test_a_solution_that_runs_off_is_named(voice: Duovox, tmp_path: Path) -> None:
    with pytest.raises(GenerationError, match=r"the solution of seed 70\d left the range of finite numbers"):
        make_solutions(voice, tmp_path / "s", 8, replace(CONFIG, gammas=(1e30,)), batch=8)
    assert not shard_file(tmp_path / "s", 0).exists()
