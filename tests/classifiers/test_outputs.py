"""outputs.py: the logits are found in what a network returns, and made of what it means."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import pytest
import torch
from tapped import seeded
from torch import Tensor, nn

from duovox.classifiers.outputs import as_logits, by_position, call_network, pick_logits
from duovox.contracts import ClassifierError

MATRIX, OTHER, CUBE = seeded(2, 3), seeded(2, 3, seed=1), seeded(2, 5, 3, seed=2)

Named = namedtuple("Named", ["first", "second"])


@pytest.mark.parametrize(
    ("output", "entry"),
    [
        (MATRIX, ""),
        (MATRIX, "0"),
        ({"logits": MATRIX, "hidden": OTHER}, ""),
        (OrderedDict(hidden=OTHER, logits=MATRIX), ""),
        ({"head": MATRIX, "logits": OTHER}, "head"),
        ({"hidden": CUBE, "scores": MATRIX, "loss": None}, ""),
        ((MATRIX,), ""),
        ((CUBE, MATRIX), ""),
        ([MATRIX, None, "text"], ""),
        ((OTHER, MATRIX), "1"),
        (Named(OTHER, MATRIX), "1"),
        (SimpleNamespace(logits=MATRIX, hidden=OTHER), ""),
        (SimpleNamespace(pooled=OTHER, scores=MATRIX, loss=None), "scores"),
        (SimpleNamespace(scores=MATRIX, hidden_states=(CUBE, CUBE)), ""),
    ],
)
def test_the_logits_are_found(output: object, entry: str) -> None:
    assert pick_logits(output, entry) is MATRIX


@pytest.mark.parametrize(
    ("output", "entry", "message"),
    [
        ((MATRIX, OTHER), "", r"tuple with the tensors 0 \(2, 3\), 1 \(2, 3\); say which holds the logits: output="),
        ({"x": CUBE, "y": CUBE}, "", r"dict with the tensors x \(2, 5, 3\), y \(2, 5, 3\)"),
        (SimpleNamespace(a=MATRIX, b=OTHER), "", r"SimpleNamespace with the tensors a \(2, 3\), b \(2, 3\)"),
        ("text", "", r"str with the tensors \(none\)"),
        (None, "", r"NoneType with the tensors \(none\)"),
        ({"a": MATRIX, "b": OTHER}, "head", "has no entry 'head'; it has a, b"),
        ((MATRIX, None), "1", "has no entry '1'; it has 0"),
        (MATRIX, "logits", "has no entry 'logits'; it has 0"),
        (None, "logits", "has no entry 'logits'; it has none"),
    ],
)
def test_logits_that_are_not_plain_are_named(output: object, entry: str, message: str) -> None:
    with pytest.raises(ClassifierError, match=message):
        pick_logits(output, entry)


def test_the_only_tensor_is_taken_whatever_its_axes() -> None:
    assert pick_logits({"x": CUBE, "loss": None}) is CUBE


@pytest.mark.parametrize("axes", ["BTK", "BKT", "TBK", "TKB", "KBT", "KTB"])
def test_positions_lie_in_the_middle(axes: str) -> None:
    scores = CUBE.permute(*("BTK".index(letter) for letter in axes))
    assert by_position(scores, axes).equal(CUBE)


def test_one_row_a_clip_and_maps_too() -> None:
    assert by_position(MATRIX, "BK").equal(MATRIX[:, None]) and by_position(MATRIX.T, "KB").equal(MATRIX[:, None])
    maps = seeded(2, 3, 4, 5)
    assert by_position(maps, "BKMT").equal(maps.flatten(2).transpose(1, 2))


def test_logits_are_left_alone() -> None:
    assert as_logits(MATRIX, "logits", "BK").equal(MATRIX)
    assert as_logits(MATRIX[:, :, None, None], "logits", "BKMT").equal(MATRIX)
    assert as_logits(MATRIX.double(), "logits", "BK").dtype == torch.float32


def test_probabilities_come_back_from_the_softmax() -> None:
    """And so do log-probabilities; a sure answer of 0.97 stays 0.97, not 0.352 as the softmax of probabilities would have it."""
    p = torch.tensor([[0.97, 0.02, 0.01], [0.2, 0.3, 0.5]])
    torch.testing.assert_close(as_logits(p, "probabilities", "BK").softmax(1), p)
    torch.testing.assert_close(as_logits(p.log(), "log_probabilities", "BK").softmax(1), p)
    assert p.softmax(1)[0, 0] > 0.5 and as_logits(p, "probabilities", "BK").softmax(1)[0, 0] == pytest.approx(0.97)


def test_sigmoids_come_back_in_proportion() -> None:
    p = torch.tensor([[0.9, 0.6, 0.0]])
    torch.testing.assert_close(as_logits(p, "probabilities", "BK").softmax(1), torch.tensor([[0.6, 0.4, 0.0]]))


def test_their_joint_energy_is_no_constant_and_gradients_stay_finite() -> None:
    """Of log p itself the logsumexp is 0 for every input, and its gradient nothing but rounding."""
    source = MATRIX.clone().requires_grad_()
    energy = as_logits(source.softmax(1), "probabilities", "BK").logsumexp(1)
    (gradient,) = torch.autograd.grad(energy.sum(), source)
    expected = source.detach().softmax(1) - 1 / 3  # d (logsumexp(x) - mean(x)) / d x
    torch.testing.assert_close(gradient, expected)
    sure = torch.tensor([[200.0, 0.0, -200.0]], requires_grad=True)
    chosen = as_logits(sure.softmax(1), "probabilities", "BK").log_softmax(1)[0, 2]
    assert chosen.isfinite() and torch.autograd.grad(chosen, sure)[0].isfinite().all()


@pytest.mark.parametrize("kind", ["logits", "probabilities", "log_probabilities"])
def test_frames_are_pooled_by_the_mean_of_their_log_probabilities(kind: str) -> None:
    given = {"logits": CUBE, "probabilities": CUBE.softmax(2), "log_probabilities": CUBE.log_softmax(2)}[kind]
    torch.testing.assert_close(as_logits(given, kind, "BTK"), CUBE.log_softmax(2).mean(1))


class Raising(nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, _: Tensor) -> Tensor:
        raise self.error


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ValueError("first\nsecond"), r"\(ValueError: first\); check what it takes"),
        (RuntimeError("The following operation failed in the TorchScript interpreter.\ncode\nthe reason\n"), r"RuntimeError: the reason\)"),
        (RuntimeError("mat1 and mat2 must have the same dtype, but got Half and Float"), r"export it from network\.float\(\)"),
    ],
)
def test_what_a_network_raises_becomes_one_line(error: Exception, says: str) -> None:
    with pytest.raises(ClassifierError, match=rf"cannot run on an input of shape \(2, 3\).*{says}") as caught:
        call_network(Raising(error), MATRIX)
    assert "\n" not in str(caught.value)
