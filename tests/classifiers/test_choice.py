"""choice.py: a sensible set of layers of every family, and those that were asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import (
    AXES,
    WAVE,
    Attentive,
    Faulty,
    external,
    found_in,
)

from duovox.classifiers.choice import FEW, MOST, choose, resolve
from duovox.classifiers.discovery import Candidate, candidates
from duovox.config import TapConfig
from duovox.contracts import ClassifierError
from duovox.model import build_model


def candidate(name: str, size: tuple[int, int], fault: str = "", same_as: str = "") -> Candidate:
    rows, columns = size
    return Candidate(name, "Layer", (4, *size), "BCMT", rows, columns, (16 / rows, 16 / columns), 4 * rows * columns, fault, same_as)


def names(taps: tuple[TapConfig, ...]) -> list[str]:
    return [tap.name for tap in taps]


def test_the_last_layer_of_each_resolution_is_chosen() -> None:
    sizes = [(16, 16), (16, 16), (8, 8), (8, 8), (4, 4), (2, 2), (2, 2)]
    assert names(choose([candidate(f"l{i}", size) for i, size in enumerate(sizes)])) == ["l1", "l3", "l4", "l6"]


def test_resolutions_that_hardly_differ_count_as_one() -> None:
    found = [candidate(f"l{i}", (1, n)) for i, n in enumerate((100, 98, 40, 38, 20, 19, 9, 8))]
    assert names(choose(found)) == ["l1", "l3", "l5", "l7"]


def test_at_most_six_are_chosen_the_deepest() -> None:
    found = [candidate(f"l{i}", (1, 2 ** (12 - i))) for i in range(9)]
    assert names(choose(found)) == [f"l{i}" for i in range(9 - MOST, 9)]


@pytest.mark.parametrize("count", range(1, 12))
@pytest.mark.parametrize("numbered", range(3))
def test_at_least_four_are_chosen_if_there_are_so_many(count: int, numbered: int) -> None:
    """Few numbered layers are no reason to leave the others out."""
    found = [candidate(f"layers.{i}" if i < numbered else f"layer{i}", (8, 8)) for i in range(count)]
    chosen = names(choose(found))
    assert min(FEW, count) <= len(chosen) <= MOST
    assert chosen == sorted(set(chosen), key=[c.name for c in found].index)
    assert all(c.name in chosen for c in found[:numbered])


def test_other_resolutions_fill_up_a_short_one() -> None:
    found = [candidate(name, (8, 8)) for name in ("a", "b")] + [candidate(name, (2, 2)) for name in ("c", "d")]
    assert names(choose(found)) == ["a", "b", "c", "d"]


def test_of_one_resolution_the_choice_is_spread_evenly() -> None:
    found = [candidate(f"layers.{i}", (1, 50)) for i in range(12)] + [candidate("norm", (1, 50))]
    assert names(choose(found)) == ["layers.0", "layers.4", "layers.7", "layers.11", "norm"]


def test_faulty_layers_are_never_chosen() -> None:
    found = [candidate("a", (8, 8)), candidate("b", (8, 8), fault="bad"), candidate("c", (4, 4), fault="bad")]
    assert names(choose(found)) == ["a"]
    assert choose(found[1:]) == ()


def test_one_tensor_is_chosen_once_by_its_numbered_name() -> None:
    twins = [candidate("layers.0.norm", (8, 8)), candidate("layers.0", (8, 8), same_as="layers.0.norm")]
    twins.append(candidate("encoder", (8, 8), same_as="layers.0.norm"))
    assert names(choose(twins)) == ["layers.0"]


@pytest.mark.parametrize(("norm", "last"), [(False, []), (True, ["encoder.norm"])])
def test_of_a_transformer_whole_layers_are_chosen(norm: bool, last: list[str]) -> None:
    """The encoder's own output is that of its last layer or of its norm: that tensor is read once."""
    torch.manual_seed(0)
    found = found_in(Attentive(norm=norm), "BTM")
    assert names(choose(list(found.values()))) == [*(f"encoder.layers.{i}" for i in range(4)), *last]
    assert found["encoder.layers.0"].same_as == "encoder.layers.0.norm2"
    assert found["encoder"].same_as == ("encoder.norm" if norm else "encoder.layers.3.norm2")
    assert found["enter"].same_as == ""


def test_a_layer_after_one_that_works_in_place_is_no_twin() -> None:
    """The convolution's tensor is the very same, but it can be tapped only once it is finished."""
    found = found_in(Faulty())
    assert (found["relu"].same_as, found["relu"].fault) == ("", "")


@pytest.mark.parametrize("family", AXES)
def test_a_chosen_set_makes_a_model(family: str, tiny_recipe: Any) -> None:
    """Different resolutions where there are some; every tap is read, with its gradient, and the denoiser runs."""
    torch.manual_seed(0)
    make, takes, _ = AXES[family]
    network = make().eval()
    found = candidates(external(network, takes))
    chosen = choose(found)
    assert min(FEW, sum(not c.fault for c in found)) <= len(chosen) <= MOST
    sizes = {c.name: (c.rows, c.columns) for c in found}
    assert {sizes[tap.name] for tap in chosen} == {(c.rows, c.columns) for c in found if not c.fault} - (
        {(1, 59)} if takes is WAVE else set()  # 57 columns are as good
    )
    model = build_model(tiny_recipe, external(network, takes, chosen))
    taps = model.taps(0.5 * torch.randn(2, 1, 16, 16), torch.tensor([0.1, 2.0]))
    by_name = {c.name: c for c in found}
    assert taps.gradients is not None
    for tap, activation, gradient in zip(chosen, taps.activations[1:], taps.gradients[1:], strict=True):
        its = by_name[tap.name]
        assert activation.shape == gradient.shape == (2, its.values // (its.rows * its.columns), its.rows, its.columns)
        assert gradient.any()
    assert model(torch.ones(2, 1, 16, 16), torch.tensor([0.1, 2.0])).shape == (2, 1, 16, 16)


FOUND = [candidate("features.0", (8, 8)), candidate("features.1", (8, 8), fault="it runs 2 times in one forward")]


def test_taps_are_resolved_by_name_or_pass_with_their_axes() -> None:
    own = TapConfig("features.0", "BCTM")
    assert resolve(FOUND, ["features.0"]) == (TapConfig("features.0", "BCMT"),)
    assert resolve(FOUND, [own]) == (own,)
    assert resolve(FOUND, []) == ()


@pytest.mark.parametrize("name", ["feature.0", TapConfig("feature.0", "BCMT")])
def test_an_unknown_tap_offers_near_names(name: str | TapConfig) -> None:
    with pytest.raises(ClassifierError, match=r"no layer 'feature\.0' that runs; near are features\.0, features\.1"):
        resolve(FOUND, [name])
    with pytest.raises(ClassifierError, match=r"no layer 'xyzzy' that runs; `duovox taps --all` lists all that do"):
        resolve(FOUND, ["xyzzy"])


@pytest.mark.parametrize("name", ["features.1", TapConfig("features.1", "BCMT")])
def test_a_faulty_tap_says_why(name: str | TapConfig) -> None:
    with pytest.raises(ClassifierError, match=r"'features\.1' cannot be tapped: it runs 2 times in one forward"):
        resolve(FOUND, [name])


def test_axes_of_another_number_are_refused() -> None:
    with pytest.raises(ClassifierError, match=r"has 4 axes \(BCMT\), not BCT"):
        resolve(FOUND, [TapConfig("features.0", "BCT")])
