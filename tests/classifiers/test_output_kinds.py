"""output_kinds.py: logits, probabilities and their logarithms, one row a clip or many, are told apart; what is no answer is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import LABELS
from torch import Tensor, nn
from toys import Base, external

from duovox.classifiers.output_kinds import look_at_outputs
from duovox.contracts import ClassifierError


class Giving(Base):
    """`Base`, its output changed."""

    def __init__(self, change: Callable[[Base, Tensor], Tensor], labels: int = 3) -> None:
        super().__init__(labels)
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self, x)


def logits(self: Base, x: Tensor) -> Tensor:
    return Base.forward(self, x)  # type: ignore[no-any-return]


KINDS: dict[str, tuple[Callable[[Base, Tensor], Tensor], str, str]] = {
    "logits": (logits, "logits", "BK"),
    "softmax": (lambda n, x: logits(n, x).softmax(1), "probabilities", "BK"),
    "softmax by hand": (lambda n, x: logits(n, x).exp() / logits(n, x).exp().sum(1, keepdim=True), "probabilities", "BK"),
    "sigmoid": (lambda n, x: logits(n, x).sigmoid(), "probabilities", "BK"),
    "log-softmax": (lambda n, x: logits(n, x).log_softmax(1), "log_probabilities", "BK"),
    "logits that are positive": (lambda n, x: logits(n, x).square(), "logits", "BK"),
    "small logits": (lambda n, x: 0.01 * logits(n, x), "logits", "BK"),
    "no logits yet": (lambda n, x: 0 * logits(n, x), "logits", "BK"),
    "frames": (lambda n, x: n.frames(x), "logits", "BTK"),
    "frames last": (lambda n, x: n.frames(x).transpose(1, 2), "logits", "BKT"),
    "frames first": (lambda n, x: n.frames(x).transpose(0, 1), "logits", "TBK"),
    "probabilities of frames": (lambda n, x: n.frames(x).softmax(2), "probabilities", "BTK"),
    "an axis of one": (lambda n, x: logits(n, x)[:, None], "logits", "BTK"),
    "a map of one": (lambda n, x: logits(n, x)[:, :, None, None], "logits", "BKMT"),
    "a map": (lambda n, x: n.head(n.body(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2), "logits", "BKMT"),
    "labels before clips": (lambda n, x: logits(n, x).T, "logits", "KB"),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("labels", [3, None])
def test_kinds_and_axes_are_found(name: str, labels: int | None) -> None:
    """With the number of labels known, and without it."""
    change, kind, axes = KINDS[name]
    outputs = look_at_outputs(external(Giving(change)), labels)
    assert (outputs.kind, outputs.axes, outputs.labels) == (kind, axes, 3)


def test_as_many_frames_as_labels_are_told_apart_by_what_moves() -> None:
    for change, axes in ((lambda n, x: n.frames(x), "BTK"), (lambda n, x: n.frames(x).transpose(1, 2), "BKT")):
        outputs = look_at_outputs(external(Giving(change, labels=4), labels=4), 4)
        assert (outputs.axes, outputs.positions) == (axes, 4)


def test_small_logits_all_between_0_and_1_are_no_probabilities() -> None:
    """Of an untrained head with positive biases every logit may lie there; stronger weights bring them out."""
    network = Base()
    with torch.no_grad():
        network.head.weight.mul_(0.01)
        network.head.bias.fill_(0.1)
    outputs = look_at_outputs(external(network), 3)
    with torch.no_grad():
        assert network(torch.randn(9, 1, 16, 16)).min() > 0 and outputs.kind == "logits"


def test_a_program_of_constants_is_judged_by_other_inputs() -> None:
    for change, kind in ((logits, "logits"), (lambda n, x: logits(n, x).sigmoid(), "probabilities")):
        network = nn.Sequential(Giving(change)).eval().requires_grad_(False)
        program = torch.jit.freeze(torch.jit.trace(network, torch.zeros(2, 1, 16, 16)))
        assert look_at_outputs(external(nn.Sequential(program)), 3).kind == kind


def test_what_its_owner_says_is_believed() -> None:
    outputs = look_at_outputs(external(Giving(KINDS["sigmoid"][0])), 3, "logits")
    assert outputs.kind == "logits" and outputs.notes() == ()


def test_what_is_done_is_said() -> None:
    def notes(name: str) -> str:
        return "; ".join(look_at_outputs(external(Giving(KINDS[name][0])), 3).notes())

    assert notes("logits") == notes("a map of one") == ""
    assert notes("softmax") == "its outputs are probabilities (add up to 1); they are read as log p"
    assert "each by itself" in notes("sigmoid") and "log-probabilities; they are read as log p" in notes("log-softmax")
    assert notes("frames first") == "it answers at 4 positions of a clip (axes TBK); the mean of their log-probabilities is taken"
    assert "log p; it answers at 4 positions" in notes("probabilities of frames")


REFUSED: dict[str, tuple[Callable[[Base, Tensor], Tensor], str]] = {
    "numbers of labels": (lambda n, x: logits(n, x).argmax(1), r"whole numbers \(torch.int64\).*argmax"),
    "one clip's logits": (lambda n, x: logits(n, x)[0], r"shape \(3,\) for 3 clips and \(3,\) for 2: no axis of them is the batch"),
    "one number for all": (lambda n, x: logits(n, x).sum(), r"shape \(\) for 3 clips.*\(B, K\)"),
    "frames in the batch": (lambda n, x: n.frames(x).flatten(0, 1), r"folds 4 frames .*\(12, 3\) for 3 clips.*reshape\(-1, 4, 3\)"),
    "too many axes": (lambda n, x: logits(n, x)[..., None, None, None], r"shape \(3, 3, 1, 1, 1\)"),
    "one logit": (lambda n, x: logits(n, x)[:, :1], r"one output a clip \(shape \(3, 1\)\).*zeros_like\(x\), x\]"),
    "one number a clip": (lambda n, x: logits(n, x)[:, 0], r"\(shape \(3,\)\).*zeros_like\(x\[:, None\]\), x\[:, None\]\]"),
    "one probability": (lambda n, x: logits(n, x)[:, :1].sigmoid(), r"torch.cat\(\[1 - x, x\], 1\)"),
    "one logit a frame": (lambda n, x: n.frames(x)[..., :1], r"one output a clip \(shape \(3, 4, 1\)\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_answer_is_refused_with_what_to_do(name: str) -> None:
    change, says = REFUSED[name]
    with pytest.raises(ClassifierError, match=says) as caught:
        look_at_outputs(external(Giving(change)), 1 if "one" in name else 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["one logit", "one number a clip", "one probability"])
def test_two_outputs_made_as_the_refusal_says_are_right(name: str) -> None:
    """The second label's probability is the sigmoid of the one logit, or the one probability itself."""
    change, _ = REFUSED[name]
    with pytest.raises(ClassifierError) as caught:
        look_at_outputs(external(Giving(change)), 1)
    code = str(caught.value).split(", as ")[1].split(" for its output x")[0]
    classifier = external(Giving(lambda n, x: eval(code, {"torch": torch}, {"x": change(n, x)})), labels=2)
    outputs = look_at_outputs(classifier, 2)
    x = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one = change(classifier.network, x).flatten()  # type: ignore[arg-type]
        two = external(classifier.network, 2, output_kind=outputs.kind, output_axes=outputs.axes).network(x)
        probability = (two if outputs.kind == "probabilities" else two.softmax(1))[:, 1]
    torch.testing.assert_close(probability, one if name == "one probability" else one.sigmoid())


def test_frames_unfolded_as_the_refusal_says_are_pooled() -> None:
    folded = REFUSED["frames in the batch"][0]
    outputs = look_at_outputs(external(Giving(lambda n, x: folded(n, x).reshape(-1, 4, LABELS))), 3)
    assert (outputs.axes, outputs.positions) == ("BTK", 4)
