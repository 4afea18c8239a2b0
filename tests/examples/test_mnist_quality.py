"""The judge's figures: distances of known distributions, planted copies and planted labels."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra torch: pip install -e '.[torch]'")

from glauber.errors import InvalidModelError

from examples.mnist_ebm import distances, quality
from examples.mnist_ebm.data import Dataset, Part

SIDE = 12


class StripeReader:
    """A judge without errors: digit k is k white rows; features are the rows' sums."""

    side = SIDE

    def probabilities(self, images):
        digits = images.all(2).sum(1)
        return np.eye(10)[digits.clip(0, 9)] * 0.95 + 0.005

    def features(self, images):
        return images.sum(2).astype(np.float64)


def stripes(n, seed):
    """Digit k as k white rows somewhere, and grey noise elsewhere."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, n).astype(np.uint8)
    images = rng.integers(0, 2, (n, SIDE, SIDE)).astype(np.uint8)
    images[:, :, 0] = 0
    order = rng.permuted(np.tile(np.arange(SIDE), (n, 1)), axis=1)
    images[order < labels[:, None]] = 1
    return Part(images, labels)


@pytest.fixture(scope="module")
def dataset():
    return Dataset("stripes", 2, stripes(2000, 1), stripes(300, 2), stripes(600, 3))


def test_frechet_of_gaussians_is_the_closed_form():
    # commuting covariances: sum over axes of (difference of means)^2 + (difference of standard deviations)^2
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    first, second = np.array([1.0, 2, 0.5, 3, 0]), np.array([2.0, 2, 1.5, 0.1, 0.2])
    mean = np.arange(5.0)
    expected = np.sum(mean**2) + np.sum((first - second) ** 2)
    covariances = [basis * spread**2 @ basis.T for spread in (first, second)]
    found = distances.frechet_of_moments(np.zeros(5), covariances[0], mean, covariances[1])
    assert found == pytest.approx(expected, rel=1e-9)
    # covariances that do not commute: [[2, 1], [1, 2]] and diag(4, 1) have tr (C1 C2)^(1/2) = sqrt(tr + 2 sqrt(det))
    left, right = np.array([[2.0, 1], [1, 2]]), np.diag([4.0, 1.0])
    expected = 4 + 5 - 2 * np.sqrt(np.trace(left @ right) + 2 * np.sqrt(np.linalg.det(left @ right)))
    assert distances.frechet_of_moments(np.zeros(2), left, np.zeros(2), right) == pytest.approx(expected, rel=1e-9)


def test_frechet_of_a_set_with_itself_is_zero_and_the_floor_is_the_bias():
    rng = np.random.default_rng(1)
    one, two, three = (rng.normal(size=(500, 8)) for _ in range(3))
    assert distances.frechet(one, one) == pytest.approx(0, abs=1e-6)
    found = distances.frechet_with_interval(one + 1, two, three, rng)
    assert found.low < found.value < found.high
    # E |m1 - m2|^2 = d (1 / n + 1 / m); the covariances' part is near d (d + 1) / 4 (1 / n + 1 / m) at this n
    bias = (8 + 8 * 9 / 4) * 2 / 500
    assert found.floor == pytest.approx(bias, rel=0.5)
    # mean difference 1 in 8 axes; its standard error is 2 sqrt(8 * 2 / 500) = 0.36, and the interval says so
    assert found.value == pytest.approx(8 + bias, abs=4 * 0.36)
    assert (found.high - found.low) / 2 / 1.96 == pytest.approx(0.36, rel=0.35)


def test_kernel_distance_is_unbiased_and_grows_with_a_shift():
    rng = np.random.default_rng(2)
    one, two, three = (rng.normal(size=(2000, 6)) for _ in range(3))
    same = distances.kernel_distance(one, two, three, rng)
    assert same.subsets == 10
    assert same.size == 200
    assert abs(same.value) < 4 * same.standard_error
    assert abs(same.floor) < 4 * same.floor_error
    shifted = [distances.kernel_distance(one + shift, two, three, rng) for shift in (0.3, 0.6)]
    assert shifted[0].value > 4 * shifted[0].standard_error
    assert shifted[1].value > shifted[0].value + 4 * shifted[0].standard_error


def test_mmd_is_the_sum_over_pairs():
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(4, 2)), rng.normal(size=(3, 2))

    def k(x, y):
        return (x @ y / 2 + 1) ** 3

    expected = np.mean([k(first[i], first[j]) for i in range(4) for j in range(4) if i != j])
    expected += np.mean([k(second[i], second[j]) for i in range(3) for j in range(3) if i != j])
    expected -= 2 * np.mean([k(x, y) for x in first for y in second])
    assert distances.mmd(first, second) == pytest.approx(expected)


def test_diversity_of_coins_and_of_one_image():
    rng = np.random.default_rng(4)
    coins = rng.integers(0, 2, (400, 6, 6)).astype(np.uint8)
    one = np.repeat(coins[:1], 400, axis=0)
    digits = np.zeros(400, dtype=np.int64)
    flat = [images.reshape(400, -1).astype(np.float64) for images in (one, coins)]
    found = distances.diversity((one, flat[0], digits), (coins, flat[1], digits), rng)
    assert found.pixels.mean == 0
    assert found.distinct == 1
    assert abs(found.pixels_real.mean - 0.5) < 4 * found.pixels_real.standard_error + 1e-3
    assert found.within_real == found.features_real  # all are of one class
    # for binary pixels the mean is sum 2 p (1 - p) n / (n - 1)
    p = flat[1].mean(0)
    assert found.pixels_real.mean == pytest.approx(np.mean(2 * p * (1 - p)) * 400 / 399)


def test_the_error_of_a_spread_is_that_of_repetitions():
    rng = np.random.default_rng(5)
    points = rng.normal(size=(300, 60, 2))
    found = []
    for one in points:
        apart = np.sqrt(distances._squared(one, one))
        found.append(distances._spread(apart, np.ones((60, 60), dtype=bool)))
    spread = np.std([one.mean for one in found])
    # the standard deviation of 300 repetitions is known to 4 %
    assert np.mean([one.standard_error for one in found]) == pytest.approx(spread, rel=0.2)


def test_copies_are_detected(dataset):
    copies = distances.neighbours(dataset.train.images[:200], dataset.test.images, dataset.train.images)
    assert copies.identical == 200
    assert copies.median == copies.smallest == 0
    assert copies.nearer == 1
    fresh = distances.neighbours(stripes(500, 9).images, dataset.test.images, dataset.train.images)
    assert fresh.identical == 0
    assert abs(fresh.nearer - 0.5) < 3 * fresh.nearer_error


def test_nearest_is_the_nearest():
    rng = np.random.default_rng(6)
    some, others = (rng.integers(0, 2, (n, 5, 5)).astype(np.uint8) for n in (7, 40))
    apart = (some[:, None] != others).sum((2, 3))
    found, which = distances.nearest(some, others)
    assert np.array_equal(found, apart.min(1))
    assert np.array_equal(apart[np.arange(7), which], found)


def test_planted_labels_are_covered_and_confused_as_planted(dataset, tmp_path):
    planted = stripes(400, 7)
    asked = planted.labels.copy()
    asked[:100] = (asked[:100] + 1) % 10  # a quarter is asked for another digit than is shown
    seen = []
    found = quality.judge(planted.images, asked, dataset, StripeReader(), 0, lambda share, what: seen.append(share))
    assert [one.share for one in found.coverage] == pytest.approx(np.bincount(planted.labels, minlength=10) / 400)
    assert found.confident.share == 1
    assert found.conditional is not None
    assert found.conditional.right.share == 0.75
    table = np.array(found.conditional.confusion)
    assert np.array_equal(table.sum(1), np.bincount(asked, minlength=10))
    assert np.trace(table) == 300
    assert found.conditional.right_real.share == 1
    assert found.fid.value < 3 * found.fid.floor  # drawn as the real ones are
    assert abs(found.kid.value) < 4 * found.kid.standard_error
    assert found.diversity.distinct == 400
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert json.loads(json.dumps(asdict(found)))["conditional"]["right"]["share"] == 0.75
    quality.draw_coverage(tmp_path / "coverage.png", {"planted": found.coverage}, found.coverage_real)
    quality.draw_confusion(tmp_path / "confusion.png", found.conditional.confusion, "planted")
    apart, which = distances.nearest(planted.images[:8], dataset.train.images)
    quality.draw_neighbours(tmp_path / "near.png", planted.images[:8], dataset.train.images[which], apart)
    quality.energy_histogram(tmp_path / "energy.png", {"data": np.arange(9.0), "noise": np.arange(5.0, 20)})
    for name in ("coverage", "confusion", "near", "energy"):
        assert (tmp_path / f"{name}.png").stat().st_size > 4000


def test_what_cannot_be_judged_is_refused(dataset):
    images = stripes(40, 8).images
    with pytest.raises(InvalidModelError, match="20 samples"):
        quality.judge(images[:19], None, dataset, StripeReader(), 0)
    with pytest.raises(InvalidModelError, match="black_and_white"):
        quality.judge(images * 3, None, dataset, StripeReader(), 0)
    with pytest.raises(InvalidModelError, match="40 digits"):
        quality.judge(images, np.zeros(39, dtype=np.int64), dataset, StripeReader(), 0)
