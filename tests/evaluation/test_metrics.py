"""The metrics against closed forms, scipy and torchmetrics."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
from scipy.stats import binomtest, entropy

from duovox.contracts import DataError, ShapeError
from duovox.evaluation.metrics import (
    Gaussian,
    am_score,
    auroc,
    bootstrap_interval,
    confusion,
    fit_gaussian,
    frechet_distance,
    halves_deviation,
    histogram,
    inception_score,
    label_accuracy,
    mean_confidence,
    mean_divergence,
    modified_inception_score,
    nearest_distances,
    nearest_within_label,
    wilson_interval,
)

RNG = np.random.default_rng(7)


def some_probabilities(n: int = 400, k: int = 6) -> np.ndarray:
    return RNG.dirichlet(np.full(k, 0.3), size=n)


def test_frechet_of_known_gaussians() -> None:
    a = Gaussian(np.zeros(3), np.diag([1.0, 4.0, 9.0]))
    b = Gaussian(np.array([1.0, 2.0, 2.0]), np.diag([4.0, 4.0, 1.0]))
    assert frechet_distance(a, b) == pytest.approx(9 + 1 + 0 + 4)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_equals_scipys_matrix_root() -> None:
    a, b = fit_gaussian(RNG.normal(size=(300, 16)) @ RNG.normal(size=(16, 16))), fit_gaussian(RNG.normal(size=(300, 16)) + 0.3)
    root = np.trace(sqrtm(a.covariance @ b.covariance).real)
    expected = np.square(a.mean - b.mean).sum() + np.trace(a.covariance + b.covariance) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


def test_frechet_equals_torchmetrics() -> None:
    from torchmetrics.image.fid import _compute_fid

    a, b = fit_gaussian(RNG.normal(size=(200, 8))), fit_gaussian(2 * RNG.normal(size=(200, 8)) + 1)
    theirs = _compute_fid(*(torch.from_numpy(x) for x in (a.mean, a.covariance, b.mean, b.covariance)))
    assert frechet_distance(a, b) == pytest.approx(float(theirs), rel=1e-6)


def test_frechet_is_finite_for_singular_covariances() -> None:
    few, many = RNG.normal(size=(10, 64)), RNG.normal(size=(500, 64))
    few[:, 5] = many[:, 5] = 0
    distance = frechet_distance(fit_gaussian(few), fit_gaussian(many))
    assert np.isfinite(distance) and distance > 0


def test_frechet_refuses_other_dimensions() -> None:
    with pytest.raises(ShapeError, match="3 and 4"):
        frechet_distance(Gaussian(np.zeros(3), np.eye(3)), Gaussian(np.zeros(4), np.eye(4)))


def test_inception_score_of_constant_predictions_is_1() -> None:
    assert inception_score(np.tile([0.7, 0.2, 0.1], (100, 1))) == pytest.approx(1)


def test_inception_score_of_certain_balanced_labels_is_k() -> None:
    assert inception_score(np.eye(6)[np.arange(60_000) % 6]) == pytest.approx(6, rel=1e-3)


@pytest.mark.filterwarnings("ignore::UserWarning:torchmetrics")
def test_divergence_from_the_mean_equals_torchmetrics_inception_score() -> None:
    from torchmetrics.image.inception import InceptionScore

    p = some_probabilities()
    metric = InceptionScore(feature=torch.nn.Identity(), splits=1)
    metric.update(torch.log(torch.from_numpy(p)))
    assert np.exp(mean_divergence(p, p.mean(axis=0))) == pytest.approx(float(metric.compute()[0]), rel=1e-5)
    assert inception_score(p) == pytest.approx(float(metric.compute()[0]), rel=0.05)


def test_modified_inception_score_of_two_kinds_of_clips() -> None:
    """Half the pairs of two kinds differ, by KL((a, 1-a) || (1-a, a)) = (2a - 1) ln(a / (1 - a))."""
    a = 0.9
    p = np.tile([[a, 1 - a], [1 - a, a]], (5000, 1))
    expected = np.exp(0.5 * (2 * a - 1) * np.log(a / (1 - a)))
    assert modified_inception_score(p, pairs=100_000) == pytest.approx(expected, rel=0.02)
    assert modified_inception_score(np.tile([0.5, 0.5], (10, 1))) == pytest.approx(1)


def test_inception_scores_repeat_by_seed_and_need_two_clips() -> None:
    p = some_probabilities()
    assert inception_score(p, seed=3) == inception_score(p, seed=3) != inception_score(p, seed=4)
    for score in (inception_score, modified_inception_score):
        with pytest.raises(DataError, match="at least 2"):
            score(p[:1])


def test_am_score() -> None:
    train = np.tile(np.eye(4), (25, 1))
    assert am_score(train, train) == pytest.approx(0, abs=1e-12)
    assert am_score(np.full((10, 4), 0.25), train) == pytest.approx(np.log(4))
    p, t = some_probabilities(), some_probabilities()
    assert am_score(p, t) == pytest.approx(entropy(t.mean(0), p.mean(0)) + entropy(p, axis=1).mean())


def test_accuracy_confusion_and_histogram() -> None:
    p = np.array([[0.8, 0.2, 0.0], [0.1, 0.9, 0.0], [0.6, 0.4, 0.0], [0.0, 0.3, 0.7]])
    label = [0, 1, 1, 2]
    assert label_accuracy(p, label) == 0.75
    assert confusion(p, label).tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert histogram(p).tolist() == [2, 1, 1]
    assert mean_confidence(p) == pytest.approx(0.75)
    with pytest.raises(ShapeError, match="labels between 0 and 2"):
        label_accuracy(p, [0, 1, 3, 2])


def test_nearest_distances_equal_scipys() -> None:
    queries, references = RNG.normal(size=(40, 9)), RNG.normal(size=(70, 9))
    assert nearest_distances(queries, references) == pytest.approx(cdist(queries, references).min(axis=1))


def test_a_copy_is_at_distance_0_and_leaves_itself_out() -> None:
    references = RNG.normal(size=(30, 5)) + 1000
    assert nearest_distances(references[4:6], references).tolist() == [0, 0]
    alone = nearest_distances(references, references, np.arange(30))
    assert alone == pytest.approx((cdist(references, references) + np.diag(np.full(30, np.inf))).min(axis=1))


def test_nearest_within_label_looks_at_its_own_label_only() -> None:
    features = np.array([[0.0], [1.0], [0.1], [5.0], [9.0]])
    assert nearest_within_label(features, [0, 0, 1, 1, 2]).tolist() == pytest.approx([1, 1, 4.9, 4.9])
    assert nearest_within_label(features[:1], [0]).size == 0


def test_bootstrap_interval_of_a_mean() -> None:
    values = RNG.normal(3, 2, size=2000)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    with pytest.raises(DataError, match="level"):
        bootstrap_interval(values, level=1.0)


@pytest.mark.parametrize(("hits", "trials"), [(295, 300), (300, 300), (0, 7), (3, 4)])
def test_wilson_interval_equals_scipys(hits: int, trials: int) -> None:
    theirs = binomtest(hits, trials).proportion_ci(0.95, "wilson")
    assert wilson_interval(hits, trials) == pytest.approx((theirs.low, theirs.high))
    assert np.ptp(wilson_interval(hits, trials)) > 0.01, "also where all or none hit"
    with pytest.raises(DataError, match="8 of 7"):
        wilson_interval(8, 7)


def test_area_under_the_curve_by_hand() -> None:
    """Six pairs: four won, one tied, one lost."""
    assert auroc([1, 2, 3], [0, 2]) == pytest.approx((4 + 0.5) / 6)
    assert auroc([2, 3], [0, 1]) == 1 and auroc([0, 1], [2, 3]) == 0 and auroc([5, 5, 5], [5, 5]) == 0.5


@pytest.mark.parametrize("digits", [1, 8], ids=["many ties", "no ties"])
def test_area_under_the_curve_equals_torchmetrics(digits: int) -> None:
    from torchmetrics.classification import BinaryAUROC

    positives, negatives = RNG.beta(3, 2, size=70).round(digits), RNG.beta(2, 3, size=130).round(digits)
    assert bool(np.isin(positives, negatives).any()) == (digits == 1)
    metric = BinaryAUROC()
    metric.update(torch.from_numpy(np.concatenate([positives, negatives])), torch.arange(200) < 70)
    assert auroc(positives, negatives) == pytest.approx(float(metric.compute()), abs=1e-6)
    assert auroc(positives, negatives) + auroc(negatives, positives) == pytest.approx(1)
    assert auroc(np.exp(positives), np.exp(negatives)) == pytest.approx(auroc(positives, negatives)), "the order alone counts"


def test_deviation_from_halves_of_a_mean_is_its_standard_error() -> None:
    values = RNG.normal(3, 2, size=400)
    expected = values.std(ddof=1) / np.sqrt(400)
    assert halves_deviation(values, lambda v: float(v.mean()), repeats=4000) == pytest.approx(expected, rel=0.04)
    biased = halves_deviation(values, lambda v: float(v.mean() + 100 / len(v)), repeats=4000)
    assert biased == pytest.approx(expected, rel=0.04), "what n alone changes is no deviation"


def test_deviation_from_halves_is_how_frechet_distances_scatter() -> None:
    real = fit_gaussian(RNG.normal(size=(4000, 3)))
    samples = RNG.normal(0.3, 1, size=(60, 200, 3))
    scatter = np.std([frechet_distance(fit_gaussian(sample), real) for sample in samples])
    deviations = [halves_deviation(sample, lambda v: frechet_distance(fit_gaussian(v), real)) for sample in samples]
    assert np.mean(deviations) == pytest.approx(scatter, rel=0.35)
