"""training/checkpoint.py: state back bit for bit, whole files or none."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from duovox import files
from duovox.contracts import OutputError, TrainingError
from duovox.files import write_tensors
from duovox.training.checkpoint import Progress, load_checkpoint, read_header, save_checkpoint


def trained(seed: int, steps: int) -> tuple[dict[str, nn.Module], dict[str, torch.optim.Optimizer]]:
    """A convolution with its optimiser after a few steps, laid out channels-last as the real ones are."""
    torch.manual_seed(seed)
    network = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        network(torch.randn(2, 3, 5, 5)).square().sum().backward()
        optimizer.step()
    return {"network": network}, {"adamw": optimizer}


def test_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    modules, optimizers = trained(0, 3)
    save_checkpoint(tmp_path / "c", modules, optimizers, Progress(3, 1.5), {"labels": ["a", "b"]})
    other_modules, other_optimizers = trained(1, 1)
    assert load_checkpoint(tmp_path / "c", other_modules, other_optimizers) == Progress(3, 1.5)
    assert read_header(tmp_path / "c")["facts"] == {"labels": ["a", "b"]}
    for name, value in modules["network"].state_dict().items():
        assert torch.equal(other_modules["network"].state_dict()[name], value)
    ours, theirs = optimizers["adamw"].state_dict(), other_optimizers["adamw"].state_dict()
    assert ours["state"].keys() == theirs["state"].keys()
    for index, state in ours["state"].items():
        assert state.keys() == theirs["state"][index].keys() == {"step", "exp_avg", "exp_avg_sq"}
        for name, value in state.items():
            assert torch.equal(value, theirs["state"][index][name])
            assert value.stride() == theirs["state"][index][name].stride()


def test_a_failure_in_the_middle_of_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    write_tensors(path, {"a": torch.ones(3)}, {})
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(OutputError, match=r"cannot write .*w\.safetensors: No space left on device"):
            write_tensors(path, {"a": torch.zeros(3)}, {})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_no_temporary_file_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    def interrupt(*_: object) -> None:
        raise error

    monkeypatch.setattr(files.os, "replace", interrupt)
    with pytest.raises(error):
        write_tensors(tmp_path / "w.safetensors", {"a": torch.ones(3)}, {})
    assert list(tmp_path.iterdir()) == []


def test_weights_are_as_readable_as_any_other_file(tmp_path: Path) -> None:
    write_tensors(tmp_path / "w.safetensors", {"a": torch.ones(3)}, {})
    (tmp_path / "other").write_bytes(b"")
    assert stat.S_IMODE((tmp_path / "w.safetensors").stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_one_clear_error(tmp_path: Path, part: float) -> None:
    modules, optimizers = trained(0, 1)
    save_checkpoint(tmp_path / "c", modules, optimizers, Progress(1, 1.0), {})
    content = (tmp_path / "c").read_bytes()
    (tmp_path / "c").write_bytes(content[: int(len(content) * part)])
    before = {name: value.clone() for name, value in modules["network"].state_dict().items()}
    with pytest.raises(TrainingError, match=r"c is no readable checkpoint") as caught:
        load_checkpoint(tmp_path / "c", modules, optimizers)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in modules["network"].state_dict().items())


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    modules, optimizers = trained(0, 1)
    save_file({"a": torch.ones(2)}, tmp_path / "foreign")
    torch.save({"a": torch.ones(2)}, tmp_path / "pickled")
    write_tensors(tmp_path / "later", {"a": torch.ones(2)}, {"duovox": '{"format": "duovox-checkpoint-9"}'})
    write_tensors(tmp_path / "odd", {"a": torch.ones(2)}, {"duovox": "[1]"})
    for name, words in [("foreign", "format None"), ("pickled", "no readable"), ("later", "'duovox-checkpoint-9'"), ("odd", "format")]:
        with pytest.raises(TrainingError, match=words):
            load_checkpoint(tmp_path / name, modules, optimizers)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    modules, optimizers = trained(0, 1)
    save_checkpoint(tmp_path / "c", modules, optimizers, Progress(1, 1.0), {})
    for other in (nn.Conv2d(3, 5, 3), nn.Sequential(nn.Conv2d(3, 4, 3))):
        with pytest.raises(TrainingError, match=r"does not fit the network of this recipe") as caught:
            load_checkpoint(tmp_path / "c", {"network": other}, {})
        assert "\n" not in str(caught.value)
