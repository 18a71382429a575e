"""training/shares.py: any number of processes and passes gives the run of one process; one that dies ends all, with a whole checkpoint."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from duovox.config import Recipe, write_recipe
from duovox.contracts import TrainingError
from duovox.data import open_features
from duovox.model import build_classifier
from duovox.runs import Part, read_weights, scale_of_data
from duovox.training.checkpoint import read_header
from duovox.training.classifier import ClassifierTraining
from duovox.training.optim import update
from duovox.training.schedule import step_generator
from duovox.training.shares import SharedBatchNorm, Shares, share_batch_norms, shared_job
from duovox.training.start import start_training
from duovox.training.subnet import SubnetTraining

CPU = torch.device("cpu")
SCRIPT = Path(__file__).with_name("shared.py")
UPDATES: dict[Part, int] = {"classifier": 50, "subnet": 50, "vocoder": 10, "judge": 20}
"""Of each part in the runs that are compared: the last two are slow."""


@pytest.mark.parametrize(("rows", "processes", "passes"), [(7, 1, 1), (7, 2, 1), (8, 2, 3), (64, 8, 2), (5, 5, 1)])
def test_every_row_is_in_one_slice(rows: int, processes: int, passes: int) -> None:
    shares = [Shares(rank, processes, passes) for rank in range(processes)]
    slices = [part for share in shares for part in share.slices(rows)]
    assert [len(share.slices(rows)) for share in shares] == [passes] * processes
    assert [row for part in slices for row in range(rows)[part]] == list(range(rows))
    sizes = [part.stop - part.start for part in slices]
    assert max(sizes) - min(sizes) <= 1


def test_a_batch_too_small_to_share_is_refused() -> None:
    with pytest.raises(TrainingError, match="a batch of 4 cannot be shared by 3 processes in 2 passes"):
        Shares(0, 3, 2).slices(4)
    with pytest.raises(TrainingError, match="--accumulate must be at least 1, not 0"), shared_job(CPU, 0):
        pass


@pytest.mark.parametrize("part", ["classifier", "subnet"])
def test_passes_change_nothing(part: str, tiny_recipe: Recipe, tiny_features: Path) -> None:
    features = open_features(tiny_features)
    scale = scale_of_data(tiny_recipe, features)

    def weights(shares: Shares) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
        torch.manual_seed(0)
        if part == "classifier":
            trainee: Any = ClassifierTraining(tiny_recipe, features, scale, CPU, None)
        else:
            trainee = SubnetTraining(tiny_recipe, features, scale, build_classifier(tiny_recipe, 3), CPU, None)
        figures = [update(trainee, step, step_generator(0, step, CPU), shares) for step in range(6)]
        return trainee.weights(), figures

    (whole, figures), (cut, of_passes) = weights(Shares()), weights(Shares(passes=3))
    assert all(torch.allclose(value, cut[name], atol=2e-5) for name, value in whole.items())
    for one, other in zip(figures, of_passes, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_what_cannot_be_cut_into_passes_says_why(tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path) -> None:
    for part, words in (("judge", "it normalises over whole batches"), ("vocoder", "updated in turn on the same batch")):
        with pytest.raises(TrainingError, match=f"the {part} cannot be trained in passes: .*{words}; leave --accumulate out"):
            start_training(part, tiny_recipe, tiny_features, tmp_path, device="cpu", accumulate=2)  # type: ignore[arg-type]
        assert not (tmp_path / part / "checkpoint.safetensors").exists()


@pytest.fixture(scope="module")
def recipe_file(tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe with more updates, the vocoder's three phases among them."""
    longer = {
        f"train_{part}": dataclasses.replace(
            getattr(tiny_recipe, f"train_{part}"), updates=updates, batch=5, checkpoint_every=10, validate_every=50
        )
        for part, updates in UPDATES.items()
    }
    vocoder = dataclasses.replace(tiny_recipe.vocoder, pitch_updates=3, adversarial_after=6)
    path = tmp_path_factory.mktemp("recipe") / "fifty.toml"
    path.write_bytes(write_recipe(dataclasses.replace(tiny_recipe, name="fifty", vocoder=vocoder, **longer)).encode())
    return path


def launch(processes: int, recipe: Path, features: Path, runs: Path, parts: tuple[str, ...], **environment: str) -> subprocess.Popen[str]:
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "--max-restarts", "0"]
    words = [*run, str(SCRIPT), str(recipe), str(features), str(runs), ",".join(parts)]
    known = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=known | environment)


def losses(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def alone(recipe_file: Path, tiny_features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from duovox.config import read_recipe

    runs = tmp_path_factory.mktemp("alone")
    for part in UPDATES:
        start_training(part, read_recipe(recipe_file), tiny_features, runs, device="cpu", precision="fp32")
    return runs


def test_two_processes_give_the_run_of_one(recipe_file: Path, tiny_features: Path, alone: Path, tmp_path: Path) -> None:
    """Loss curves over fifty updates, of every part, and what ships of it; batches of five, shared as two and three."""
    process = launch(2, recipe_file, tiny_features, tmp_path, tuple(UPDATES))
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    for part in UPDATES:
        exact, (ours_lost, lost) = part in ("classifier", "subnet"), (losses(tmp_path / part), losses(alone / part))
        assert len(ours_lost) == len(lost)
        if exact:
            assert ours_lost == [pytest.approx(line, abs=1e-4) for line in lost], part
        else:  # a pitch that rounds otherwise moves later pulses; torch's own batch normalisation rounds otherwise than the shared one
            mine, theirs_lost = ({k: v for k, v in line[0].items() if k != "gradient_norm"} for line in (ours_lost, lost))
            assert mine == pytest.approx(theirs_lost, rel=0.5, abs=0.1), part
        (facts, ours), (_, theirs) = read_weights(tmp_path / part), read_weights(alone / part)
        assert facts["step"] == UPDATES[part]
        if exact:
            assert all(torch.allclose(value.float(), theirs[name].float(), atol=1e-3) for name, value in ours.items()), part
    assert out.count("classifier step 50") == 1, "one process speaks"
    assert float(out.split("batch norm apart ")[1].split()[0]) < 1e-5, "outputs and gradients of a shared batch norm are those of the whole"


def test_a_budget_is_fitted_by_one_of_two_processes(recipe_file: Path, tiny_features: Path, tmp_path: Path) -> None:
    """Of the judge, whose batch normalisation would wait for the others."""
    long = tmp_path / "long.toml"
    long.write_text(recipe_file.read_text().replace("updates = 20", "updates = 100000"))
    process = launch(2, long, tiny_features, tmp_path, ("judge",), FIT_IN="4")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "judge: 100000 updates would take" in out and 0 < read_header(tmp_path / "judge" / "checkpoint.safetensors")["step"] < 100000


def test_a_process_that_dies_ends_all_and_another_number_goes_on(
    recipe_file: Path, tiny_features: Path, alone: Path, tmp_path: Path
) -> None:
    slow = tmp_path / "slow.toml"
    slow.write_text(recipe_file.read_text().replace("updates = 50", "updates = 100000"))
    process = launch(2, slow, tiny_features, tmp_path / "killed", ("classifier",))
    checkpoint = tmp_path / "killed" / "classifier" / "checkpoint.safetensors"
    for _ in range(600):
        if checkpoint.exists():
            break
        time.sleep(0.1)
    workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(workers[1]), signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert read_header(checkpoint)["step"] % 10 == 0 or "another process of this job ended" in err
    assert not list(checkpoint.parent.glob(".*.tmp"))


def test_a_run_of_two_goes_on_alone(recipe_file: Path, tiny_features: Path, alone: Path, tmp_path: Path) -> None:
    from duovox.config import read_recipe

    process = launch(2, recipe_file, tiny_features, tmp_path, ("classifier",), STOP_AFTER="0")
    assert process.wait(timeout=120) == 0
    process.communicate()
    step = read_header(tmp_path / "classifier" / "checkpoint.safetensors")["step"]
    assert step == 0
    start_training("classifier", read_recipe(recipe_file), tiny_features, tmp_path, device="cpu", precision="fp32", resume=True)
    assert losses(tmp_path / "classifier") == [pytest.approx(line, abs=1e-4) for line in losses(alone / "classifier")]


def test_a_shared_batch_norm_alone_is_torchs_own() -> None:
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(3)
    shared = copy.deepcopy(plain)
    share_batch_norms(itertools.chain([shared]))
    assert type(shared) is SharedBatchNorm
    x = torch.randn(4, 3, 5, 5)
    assert torch.equal(plain(x), shared(x)) and torch.equal(plain.running_var, shared.running_var)  # type: ignore[arg-type]
