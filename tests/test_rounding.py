"""Eight bits a weight: how far off, what is left alone, that a second rounding changes nothing; and a student in a bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from duovox.bundle import Bundle, read_bundle, write_bundle
from duovox.bundle.rounding import MOST, STEP, restored, rounded
from duovox.contracts import BundleError
from duovox.voice import Duovox


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(6, 4, 3, 3, generator=generator) * torch.logspace(-6, 1, 6).view(-1, 1, 1, 1)
    kernel[2] = 0
    return {"kernel": kernel, "bias": torch.randn(6, generator=generator), "count": torch.tensor([[1, 2]])}


def test_a_weight_is_off_by_a_step_at_most(tensors: dict[str, torch.Tensor]) -> None:
    packed = rounded(tensors)
    steps = packed["kernel" + STEP].float()
    off = (restored(packed)["kernel"] - tensors["kernel"]).abs().flatten(1).amax(1)
    assert packed["kernel"].dtype == torch.int8 and packed["kernel"].abs().amax() == MOST
    assert (off <= 0.76 * steps).all()  # half a step, and the largest weight may be over 127 by the rounding of its step
    assert (steps[[0, 1, 3, 4, 5]] > 0).all() and not restored(packed)["kernel"][2].any()


def test_known_numbers() -> None:
    packed = rounded({"w": torch.tensor([[127.0, -3.4, 0.6], [0.0, -254.0, 2.9]])})
    assert packed["w"].tolist() == [[127, -3, 1], [0, -127, 1]] and packed["w" + STEP].tolist() == [1.0, 2.0]
    assert restored(packed)["w"].tolist() == [[127.0, -3.0, 1.0], [0.0, -254.0, 2.0]]


def test_what_is_no_matrix_of_numbers_stays(tensors: dict[str, torch.Tensor]) -> None:
    packed = rounded(tensors)
    assert packed["bias"] is tensors["bias"] and packed["count"] is tensors["count"] and len(packed) == 4
    assert restored(tensors) == tensors


def test_rounding_what_was_rounded_changes_nothing(tensors: dict[str, torch.Tensor]) -> None:
    once = rounded(tensors)
    twice = rounded(restored(once))
    assert all(torch.equal(value, twice[name]) for name, value in once.items())


def test_a_bundle_keeps_its_student_in_eight_bits(student_bundle: Bundle, tmp_path: Path) -> None:
    first = write_bundle(student_bundle, tmp_path / "first")
    again = write_bundle(read_bundle(tmp_path / "first"), tmp_path / "again")
    assert again.digests == first.digests
    stored = load_file(tmp_path / "first" / "student.safetensors")
    assert {value.dtype for name, value in stored.items() if value.ndim > 1} == {torch.int8}
    settings = {"sampler": "student", "steps": 2, "keep_faulty": True}
    whole, eighth = (Duovox(bundle).generate("low", **settings)[0].log_mel for bundle in (student_bundle, read_bundle(tmp_path / "first")))
    assert 0 < abs(whole - eighth).mean() < 0.1


@pytest.mark.parametrize(
    ("change", "error"),
    [("lost", "holds torch.int8"), ("too few", "has an unknown tensor"), ("infinite", "not finite")],
)
def test_damaged_steps_are_refused(student_bundle: Bundle, tmp_path: Path, change: str, error: str) -> None:
    write_bundle(student_bundle, tmp_path / "bundle")
    file = tmp_path / "bundle" / "student.safetensors"
    stored = load_file(file)
    name = next(name for name in stored if name.endswith(STEP))
    if change == "lost":
        del stored[name]
    else:
        stored[name] = stored[name][1:] if change == "too few" else stored[name] * torch.inf
    save_file(stored, file)
    _claim(tmp_path / "bundle")
    with pytest.raises(BundleError, match=error):
        read_bundle(tmp_path / "bundle")


def _claim(folder: Path) -> None:
    """Make config.json name the files that are there."""
    import hashlib
    import json

    settings = json.loads((folder / "config.json").read_text())
    settings["digests"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in settings["digests"]}
    (folder / "config.json").write_text(json.dumps(settings))
