"""Names of weights that a wrapper changed: takes the names of a file and those of the network, gives the file's tensors under the latter.

`nn.DataParallel` puts `module.` before what it wraps and torch.compile `_orig_mod.`, the whole network or parts of it, in any order;
other trainers keep the network as an attribute of theirs, such as `model.`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from torch import Tensor

WRAPPERS = ("module", "_orig_mod")
"""Components of names that wrappers of torch insert."""


def fitting_names(tensors: Mapping[str, Tensor], wanted: Collection[str]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors under the network's names as far as they can be told, and one sentence on what was dropped from theirs.

    Names that fit are left alone, and so are all where two of them would become one.
    """
    own = Counter(map(_plain, wanted))
    network = {_plain(name): name for name in wanted if own[_plain(name)] == 1}
    best = {name: name for name in tensors}
    for plain in (_plain, _without_first):
        renamed = {name: network.get(plain(name), name) for name in tensors}
        if len(set(renamed.values())) == len(renamed) and _fits(renamed, wanted) > _fits(best, wanted):
            best = renamed
    dropped = sorted({part for old, new in best.items() for part in _parts_lost(old, new)})
    return {best[name]: tensor for name, tensor in tensors.items()}, _note(dropped)


def without_wrappers(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors without the wrappers that all their names begin with, for whoever does not know the network's names yet."""
    kept, dropped = dict(tensors), []
    while kept and (first := {name.partition(".")[0] for name in kept}) <= set(WRAPPERS) and len(first) == 1:
        kept = {name.partition(".")[2]: tensor for name, tensor in kept.items()}
        dropped.append(first.pop())
    return kept, _note(dropped)


def _note(dropped: Collection[str]) -> tuple[str, ...]:
    prefixes = " and ".join(f"{part!r}" for part in sorted({f"{part}." for part in dropped}))
    return (f"the names of its weights are read without {prefixes}",) if dropped else ()


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _without_first(name: str) -> str:
    return _plain(name).partition(".")[2]


def _fits(renamed: Mapping[str, str], wanted: Collection[str]) -> int:
    return sum(name in wanted for name in renamed.values())


def _parts_lost(old: str, new: str) -> list[str]:
    """The components that `old` has and `new` has less often."""
    return list(Counter(old.split(".")) - Counter(new.split(".")))
