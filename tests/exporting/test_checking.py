"""The comparison with PyTorch finds what is wrong, and says how wrong it is."""

from __future__ import annotations

import numpy as np
import pytest

from duovox.contracts import ClassifierError
from duovox.exporting.checking import Difference, compare, compare_clips, require_same
from duovox.exporting.folder import Exported
from duovox.exporting.parts import classifier_part
from duovox.lite.voice import Voice
from duovox.voice import Duovox


def test_a_known_difference(small_voice: Duovox) -> None:
    """A graph that adds 0.25 to one of three logits."""
    part = classifier_part(small_voice.bundle)

    def run(mel: np.ndarray) -> np.ndarray:
        import torch

        with torch.no_grad():
            return part.plain(torch.from_numpy(mel)).numpy() + np.float32([0, 0.25, 0])

    difference = compare(part, run)
    assert difference.largest == pytest.approx(0.25, abs=1e-6) and difference.mean == pytest.approx(0.25 / 3, abs=1e-6)
    with pytest.raises(ClassifierError, match=r"its graph differs from PyTorch by 0\.25 on fresh inputs"):
        require_same(part, difference)


@pytest.mark.parametrize("largest", [0.011, float("nan"), float("inf")])
def test_what_is_too_far_off(small_voice: Duovox, largest: float) -> None:
    with pytest.raises(ClassifierError):
        require_same(classifier_part(small_voice.bundle), Difference(largest, 0.0))


def test_whole_clips(small_voice: Duovox, exported: Exported) -> None:
    """The same graphs in PyTorch make the same clips; a vocoder that is off is heard, and changes no mel as sampled."""
    graphs = {name: _torch_graph(small_voice, name, 0.0) for name in exported.manifest.graphs}
    same = compare_clips(small_voice, Voice.of(exported.manifest, graphs))
    assert (same.clips, same.by) == (3, "the judge") and same.correct == same.correct_in_torch
    assert same.sampled.largest < 1e-3 and same.heard.largest < 1e-2
    graphs["vocoder"] = _torch_graph(small_voice, "vocoder", 0.1)
    off = compare_clips(small_voice, Voice.of(exported.manifest, graphs))
    assert off.sampled == same.sampled and off.heard.largest > 1
    graphs["step"] = _torch_graph(small_voice, "step", 0.1)
    assert compare_clips(small_voice, Voice.of(exported.manifest, graphs)).sampled.largest > 0.01


def _torch_graph(voice: Duovox, name: str, off: float):  # type: ignore[no-untyped-def]
    """A graph computed by PyTorch, with something added."""
    import torch

    from duovox.exporting.parts import parts_of

    part = next(part for part in parts_of(voice.bundle) if part.name == name)

    def run(*values: np.ndarray) -> np.ndarray:
        return part.function(*(torch.from_numpy(value) for value in values)).detach().numpy() + np.float32(off)

    return run
