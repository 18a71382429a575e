"""NDB: the z-test against scipy, k-means against scipy, and what it finds and does not find."""

import numpy as np
import pytest
from scipy.cluster.vq import kmeans2
from scipy.stats import chi2_contingency, norm

from duovox.contracts import DataError
from duovox.evaluation.bins import Bins, different_bins, enough_for_bins, fit_bins, nearest_bin, two_proportions

RNG = np.random.default_rng(11)


def modes(counts: list[int], spread: float = 0.1) -> np.ndarray:
    """So many clips around each of the corners of a wide simplex."""
    return np.concatenate([10 * np.eye(len(counts))[i] + RNG.normal(0, spread, (n, len(counts))) for i, n in enumerate(counts)])


def test_the_z_test_equals_a_chi_squared_test_of_the_table() -> None:
    one, other = np.array([30, 70, 1, 0, 899]), np.array([45, 55, 9, 0, 191])
    for a, b, z in zip(one, other, two_proportions(one, other), strict=True):
        if a + b == 0:
            assert z == 0
            continue
        expected = chi2_contingency([[a, one.sum() - a], [b, other.sum() - b]], correction=False)
        assert z**2 == pytest.approx(expected.statistic)
        assert 2 * norm.sf(abs(z)) == pytest.approx(expected.pvalue)


def test_the_z_test_by_hand() -> None:
    """30 of 100 against 45 of 100: pooled 0.375, error sqrt(0.375 * 0.625 * 0.02), so z = -2.19: different at 5 %, not at 1 %."""
    z = two_proportions([30, 70], [45, 55])
    assert z == pytest.approx([-2.19089, 2.19089], abs=1e-5)
    bins, clips = Bins(np.array([[0.0], [1.0]]), np.array([30, 70])), np.repeat([[0.0], [1.0]], [45, 55], axis=0)
    assert different_bins(bins, clips) == 1 and different_bins(bins, clips, level=0.01) == 0
    assert two_proportions([5, 0], [3, 0]).tolist() == [0, 0]


def test_of_the_same_distribution_one_bin_in_twenty_differs() -> None:
    bins = fit_bins(RNG.normal(size=(8000, 3)), seed=1)
    shares = [different_bins(bins, RNG.normal(size=(1000, 3))) for _ in range(40)]
    assert np.mean(shares) == pytest.approx(0.05, abs=0.012)


def test_a_missing_mode_is_found() -> None:
    bins = fit_bins(modes([200] * 10), bins=10)
    assert sorted(bins.counts) == [200] * 10
    assert different_bins(bins, modes([30] * 10)) == 0
    assert different_bins(bins, modes([30] * 9 + [0])) == 0.1
    assert different_bins(bins, modes([300] + [0] * 9)) == 1


def test_k_means_equals_scipys_from_the_same_seeds() -> None:
    x = RNG.normal(size=(600, 4))
    seeds = fit_bins(x, bins=7, seed=3, iterations=0).centres
    assert {tuple(seed) for seed in seeds} <= {tuple(row) for row in x} and len(np.unique(seeds, axis=0)) == 7
    found = fit_bins(x, bins=7, seed=3)
    centres, nearest = kmeans2(x, seeds, iter=100, minit="matrix")
    assert found.centres == pytest.approx(centres, abs=1e-9)
    assert found.counts.tolist() == np.bincount(nearest).tolist()


def test_bins_repeat_by_seed() -> None:
    x = RNG.normal(size=(300, 2))
    assert np.array_equal(fit_bins(x, 5, seed=2).centres, fit_bins(x, 5, seed=2).centres)
    assert not np.array_equal(fit_bins(x, 5, seed=2).centres, fit_bins(x, 5, seed=4).centres)


def test_clips_that_are_all_the_same_fill_one_bin() -> None:
    bins = fit_bins(np.ones((9, 2)), bins=3)
    assert sorted(bins.counts) == [0, 0, 9] and np.isfinite(bins.centres).all()
    assert nearest_bin(np.ones((2, 2)), bins.centres).shape == (2,)


def test_too_few_clips() -> None:
    assert enough_for_bins(250) and not enough_for_bins(249)
    with pytest.raises(DataError, match="50 bins need as many clips, got 49"):
        fit_bins(np.zeros((49, 2)))
