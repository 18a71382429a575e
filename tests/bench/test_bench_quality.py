"""bench/quality.py: figures of clips with a known answer, and a reason for each that cannot be had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from duovox import Duovox
from duovox.bench import quality
from duovox.bench.quality import Listeners
from duovox.bundle import Bundle
from duovox.contracts import ConfigError, LabelError
from duovox.evaluation.clips import Clips
from duovox.evaluation.judge import Scores, packaged_judge
from duovox.evaluation.metrics import fit_gaussian, frechet_distance, wilson_interval

LABELS = ("high", "low", "mid")


@pytest.fixture(scope="module")
def voice(tiny_bundle: Bundle) -> Duovox:
    return Duovox(tiny_bundle)


class FakeJudge:
    """Hears what the first sample of a wave says; its two features are the first two samples."""

    labels = LABELS

    def require(self, labels: object) -> None: ...

    def refuse_guide(self, classifier: object) -> None: ...

    def score(self, waves: np.ndarray) -> Scores:
        heard = np.eye(3, dtype=np.float32)[waves[:, 0].astype(int)]
        return Scores(heard, waves[:, :2].astype(np.float32))


def clips(heard: list[int], meant: list[int]) -> Clips:
    waves = np.zeros((len(heard), 16000), np.float32)
    waves[:, 0], waves[:, 1] = heard, np.arange(len(heard)) ** 2
    return Clips(waves, tuple(LABELS[i] for i in meant))


def test_figures_have_the_values_they_should(voice: Duovox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality.Judge, "load", lambda _: FakeJudge())
    listeners = Listeners(voice)
    assert listeners.missing["fid"] == "it needs real recordings: give --data FEATURES"
    reference = np.random.default_rng(0).normal(size=(50, 2))
    listeners.gaussian, listeners.recogniser = fit_gaussian(reference), None
    found = listeners.hear(clips([0, 0, 1, 1, 2, 0], [0, 0, 1, 1, 2, 2]))
    assert found.n == 6 and found.accuracy == pytest.approx(5 / 6) and found.accuracy_interval == wilson_interval(5, 6)
    features = FakeJudge().score(clips([0, 0, 1, 1, 2, 0], [0] * 6).waves).features
    assert found.fid == pytest.approx(frechet_distance(fit_gaussian(features), fit_gaussian(reference)))
    assert found.nearest_own == pytest.approx(float(np.median([1, 1, 5, 5, np.hypot(2, 9), np.hypot(2, 9)])))
    few = listeners.hear(clips([0, 1], [0, 1]))
    assert few.fid is None and few.missing["fid"] == "it needs more than 2 clips, there are 2: raise --n"


def test_a_judge_of_other_words_is_said_and_one_that_was_asked_for_refused(voice: Duovox) -> None:
    listeners = Listeners(voice)
    assert listeners.judge is None
    assert listeners.missing["accuracy"] == listeners.missing["fid"] and "not trained on high, low, mid" in listeners.missing["fid"]
    with pytest.raises(LabelError, match="not trained on high, low, mid"):
        Listeners(voice, judge=packaged_judge(["zero"]))


def test_a_recogniser_that_is_not_installed_is_said(voice: Duovox, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: object) -> None:
        raise ConfigError("the general recogniser needs pocketsphinx; pip install 'duovox[recogniser]'")

    monkeypatch.setattr(quality, "Recogniser", absent)
    found = Listeners(voice).hear(clips([0, 1], [0, 1]))
    assert found.understood is None and "pip install 'duovox[recogniser]'" in found.missing["understood"]


def test_the_recogniser_counts_what_it_understands(voice: Duovox, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hears:
        def understood(self, waves: np.ndarray, labels: tuple[str, ...]) -> int:
            return sum(LABELS[int(wave[0])] == label for wave, label in zip(waves, labels, strict=True))

    listeners = Listeners(voice, Path("nowhere"))
    listeners.recogniser = Hears()  # type: ignore[assignment]
    found = listeners.hear(clips([0, 1, 1, 2], [0, 1, 0, 0]))
    assert found.understood == 0.5 and found.understood_interval == wilson_interval(2, 4)
