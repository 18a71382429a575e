"""Whether a network is a function of one clip: takes a classifier and inputs, refuses what depends on anything else, with the reason.

A denoiser that is called a thousand times with other clips beside each one can only be built on such a function: one whose answer
depends on the batch, on chance or on earlier calls would give another clip for the same seed, or none at the end of the training.
Honest networks round differently in batches of different sizes, and may draw random numbers that they do not use.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from duovox.classifiers.external import ExternalClassifier, at_rest
from duovox.contracts import ClassifierError

SAME, SAME_FLOOR = 1e-3, 1e-5
"""How far two answers to one clip, run alone, may lie apart: a share of how far those to other clips do (the median), and of their size."""

BESIDE, BESIDE_FLOOR = 1e-2, 1e-4
"""The same for batches of different sizes, where other kernels add in another order."""

FEW_SEEDS, MANY_SEEDS = 1, 16
"""How many other seeds a clip is run with; many where a forward draws random numbers."""


def demand_steady(classifier: ExternalClassifier, clips: Tensor) -> None:
    """Raise `ClassifierError` where the answer to a clip depends on chance or on earlier calls, or a forward changes the network's state.

    `clips` (B, ...) are inputs of the network, different and at least two; each is run alone.
    """
    with at_rest(classifier), torch.no_grad(), randomness_restored():
        before = _state(classifier.network)
        first, others = _answer(classifier, clips[:1]), [_answer(classifier, clip[None]) for clip in clips[1:]]
        draws = _draws()
        again = _answer(classifier, clips[:1])
        allowed = _allowed(first, others, SAME, SAME_FLOOR)
        _demand_no_memory(_apart(first, again), allowed, _changed(before, _state(classifier.network)))
        seeds = range(1, 1 + (MANY_SEEDS if draws else FEW_SEEDS))
        apart = max(_apart(first, _answer(classifier, clips[:1], seed)) for seed in seeds)
        if apart > allowed:
            raise ClassifierError(
                f"the classifier's answer depends on chance: the same clip gives outputs up to {apart:.2g} apart; in eval mode it must "
                "draw no random numbers (F.dropout(x, p) never sleeps, F.dropout(x, p, self.training) does)"
            )


def demand_alone(classifier: ExternalClassifier, clips: Tensor, axes: str) -> None:
    """Raise `ClassifierError` where the answer to a clip depends on the clips beside it; `axes` are those of the network's output."""
    with at_rest(classifier), torch.no_grad(), randomness_restored():
        alone = _answer(classifier, clips[:1])
        batches = _answer(classifier, clips), _answer(classifier, clips.flip(0)[-2:])
        if alone.ndim != batches[0].ndim:
            raise ClassifierError(
                f"the classifier gives outputs of shape {tuple(alone.shape)} for one clip, but {tuple(batches[0].shape)} for {len(clips)}: "
                "name the axis that is squeezed, squeeze(1), for squeeze() takes that of the batch as well"
            )
        batch = axes.index("B")
        others = [batches[0].narrow(batch, number, 1) for number in range(1, len(clips))]
        beside = batches[0].narrow(batch, 0, 1), batches[1].narrow(batch, 1, 1)
        apart, allowed = max(_apart(alone, its) for its in beside), _allowed(alone, others, BESIDE, BESIDE_FLOOR)
        if apart > allowed:
            raise ClassifierError(
                f"the classifier's answer to a clip depends on the others in its batch: its outputs lie up to {apart:.2g} apart, alone and "
                "beside others; normalise over each clip's own axes, as x.mean((1, 2, 3), keepdim=True), or by fixed statistics"
            )


def _demand_no_memory(apart: float, allowed: float, changed: list[str]) -> None:
    if apart > allowed:
        what = f" (its state {changed[0]!r} changes with every forward)" if changed else ""
        raise ClassifierError(
            f"the classifier's answer depends on earlier calls{what}: the same clip gives outputs up to {apart:.2g} apart before and after "
            "others; in eval mode its forward must keep nothing for the next one"
        )
    if changed:
        raise ClassifierError(
            f"the classifier's state {changed[0]!r} changes with every forward, so it cannot be frozen; in eval mode its forward must "
            "change no buffer: write `if self.training:` before it"
        )


@contextmanager
def randomness_restored() -> Iterator[None]:
    """Within the context random numbers may be drawn and seeded; afterwards torch, numpy and Python go on as if nothing had been."""
    state, numbers = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numbers)


def _seed(number: int) -> None:
    torch.default_generator.manual_seed(number)
    random.seed(number)
    np.random.seed(number)


def _answer(classifier: ExternalClassifier, inputs: Tensor, seed: int = 0) -> Tensor:
    """What the network returns, in float64, all randomness seeded just before."""
    _seed(seed)
    return classifier.scores(inputs).double()


def _draws() -> bool:
    """Whether random numbers were drawn since `_seed(0)`."""
    now = _random_states()
    _seed(0)
    return now != _random_states()


def _random_states() -> tuple[object, ...]:
    """The states of the global generators of torch, Python and numpy, to compare."""
    return torch.get_rng_state().tolist(), random.getstate(), pickle.dumps(np.random.get_state())


def _apart(one: Tensor, other: Tensor) -> float:
    """The largest difference; infinite for other shapes or where one is no number and the other is."""
    if one.shape != other.shape or not one.isnan().equal(other.isnan()):
        return float("inf")
    same = (one == other) | one.isnan()
    return float(torch.where(same, 0.0, (one - other).abs()).max())


def _allowed(one: Tensor, others: list[Tensor], share: float, floor: float) -> float:
    """How far apart two answers to one clip may lie, beside those to other clips."""
    finite = [value[value.isfinite()].abs() for value in (one, *others)]
    size = max((float(value.max()) for value in finite if value.numel()), default=0.0)
    variation = sorted(apart for other in others if (apart := _apart(one, other)) < float("inf")) or [0.0]
    return share * variation[len(variation) // 2] + floor * size


def _state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items() if isinstance(value, Tensor)}


def _changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[str]:
    """The names of tensors that are not what they were."""
    return [name for name, value in after.items() if name not in before or (not value.equal(before[name]) and not value.isnan().any())]
