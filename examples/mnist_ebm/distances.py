"""How far apart two sets of images are, and the images of one set: FID, KID, diversity, nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from glauber.errors import InvalidModelError
from numpy.typing import NDArray

from examples.mnist_ebm.data import Images

Floats = NDArray[np.float64]
Report = Callable[[float, str], None]

RESAMPLES = 100
"""Of the bootstrap."""
SUBSETS = 10
"""Of KID, at least."""
SUBSET = 1000
"""Images in each of them, at most."""
PAIRED = 2000
"""Images whose pairs are looked at, at most."""
ROWS = 500
"""Images compared with all others at once."""


@dataclass(frozen=True)
class Frechet:
    """Frechet distance (Dowson and Landau 1982; Heusel et al. 2017) between Gaussians of the features' moments.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^(1/2) C2 C1^(1/2))^(1/2)). The estimate is too large, by about a constant over the
    number of images: `floor` says how much, since the truth there is 0. Features are those of this example's
    classifier, so figures compare with one another and not with those of other networks.

    Attributes:
        value: samples against real test images.
        low: lower end of a 95 % interval: quantiles of a bootstrap of both sets about its mean, moved to `value`. It
            is the spread at these sizes and leaves the bias in.
        high: upper end.
        floor: other real images, as many as samples where there are so many, against the same test images.
        n: samples.
        n_real: test images.
    """

    value: float
    low: float
    high: float
    floor: float
    n: int
    n_real: int


@dataclass(frozen=True)
class Kernel:
    """Kernel distance (Binkowski et al. 2018): unbiased MMD^2 with k(x, y) = (x . y / d + 1)^3 of d features.

    The mean over disjoint subsets, which are independent, so that the standard error is one. Unbiased, so that it is
    below 0 at times.

    Attributes:
        value: samples against real test images.
        standard_error: of it.
        floor: of real images, as in `Frechet`; 0 within its error.
        floor_error: standard error of `floor`.
        subsets: how many.
        size: images of either set in each.
    """

    value: float
    standard_error: float
    floor: float
    floor_error: float
    subsets: int
    size: int


@dataclass(frozen=True)
class Spread:
    """Mean distance of two different images.

    Attributes:
        mean: over all pairs.
        standard_error: of it, as of a U-statistic.
    """

    mean: float
    standard_error: float


@dataclass(frozen=True)
class Diversity:
    """How different samples are from one another; `_real` is the same of as many test images.

    Distances between all pairs of images say whether the classes are there; those between images of one class, whether
    one class has many shapes.

    Attributes:
        pixels: share of pixels in which two samples differ.
        pixels_real: of test images.
        features: Euclidean distance of the classifier's features.
        features_real: of test images.
        within: the same between samples that are recognised as the same digit.
        within_real: of test images.
        distinct: samples that are different from all before them.
        n: samples.
    """

    pixels: Spread
    pixels_real: Spread
    features: Spread
    features_real: Spread
    within: Spread
    within_real: Spread
    distinct: int
    n: int


@dataclass(frozen=True)
class Neighbours:
    """Whether samples are copies of training images: distances to the nearest, in pixels that differ.

    Attributes:
        median: of samples.
        median_real: of test images, which cannot be copies.
        smallest: of samples.
        identical: samples that are a training image.
        identical_real: test images that are.
        nearer: probability that a sample is nearer than a test image, ties by half (Mann and Whitney 1947): a half
            where samples are like new images, near 1 where they are copies (or mere strokes, which are near to all).
        nearer_error: standard error of it, over samples and test images (DeLong, DeLong and Clarke-Pearson 1988).
        n: samples compared.
        n_real: test images compared.
        n_train: training images.
    """

    median: float
    median_real: float
    smallest: int
    identical: int
    identical_real: int
    nearer: float
    nearer_error: float
    n: int
    n_real: int
    n_train: int


# Frechet


def frechet(first: Floats, second: Floats) -> float:
    """Frechet distance of two sets of features (n, d) by their means and unbiased covariances."""
    return frechet_of_moments(first.mean(0), np.cov(first.T), second.mean(0), np.cov(second.T))


def frechet_of_moments(mean_1: Floats, covariance_1: Floats, mean_2: Floats, covariance_2: Floats) -> float:
    """Squared 2-Wasserstein distance of two Gaussians.

    The root of C1^(1/2) C2 C1^(1/2), which is symmetric, is had by its eigenvalues: no complex numbers, and singular
    covariances are welcome.
    """
    values, vectors = np.linalg.eigh(np.atleast_2d(covariance_1))
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    common = np.linalg.eigvalsh(root @ np.atleast_2d(covariance_2) @ root).clip(0)
    spread = np.trace(np.atleast_2d(covariance_1)) + np.trace(np.atleast_2d(covariance_2)) - 2 * np.sqrt(common).sum()
    return float(np.sum((mean_1 - mean_2) ** 2) + spread)


def frechet_with_interval(
    samples: Floats, real: Floats, others: Floats, rng: np.random.Generator, report: Report | None = None
) -> Frechet:
    """See Frechet.

    Args:
        samples: their features (n, d).
        real: of test images.
        others: of n other real images.
        rng: of the bootstrap.
        report: told the share done.
    """
    value, drawn = frechet(samples, real), np.empty(RESAMPLES)
    for k in range(RESAMPLES):
        drawn[k] = frechet(samples[_again(len(samples), rng)], real[_again(len(real), rng)])
        if report is not None:
            report((k + 1) / RESAMPLES, "bootstrap of FID")
    low, high = np.quantile(drawn - drawn.mean(), [0.025, 0.975]) + value
    return Frechet(value, float(low), float(high), frechet(others, real), len(samples), len(real))


def _again(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.integers(0, n, n)


# Kernel


def mmd(first: Floats, second: Floats) -> float:
    """Unbiased MMD^2 of two sets of features, polynomial kernel of degree 3: 0 expected for one distribution."""
    d, n, m = first.shape[1], len(first), len(second)
    within = _kernel(first, first, d), _kernel(second, second, d)
    means = [(k.sum() - np.trace(k)) / (size * (size - 1)) for k, size in zip(within, (n, m), strict=True)]
    return float(means[0] + means[1] - 2 * _kernel(first, second, d).mean())


def _kernel(first: Floats, second: Floats, d: int) -> Floats:
    kernel: Floats = (first @ second.T / d + 1) ** 3
    return kernel


def kernel_distance(samples: Floats, real: Floats, others: Floats, rng: np.random.Generator) -> Kernel:
    """See Kernel; arguments as of frechet_with_interval."""
    fewest = min(len(samples), len(real), len(others))
    size = min(SUBSET, fewest // SUBSETS)
    if size < 2:
        raise InvalidModelError(f"KID needs {2 * SUBSETS} images of each kind at least, not {fewest}")
    subsets = fewest // size
    found = [_over_subsets(one, real, subsets, size, rng) for one in (samples, others)]
    (value, error), (floor, floor_error) = found
    return Kernel(value, error, floor, floor_error, subsets, size)


def _over_subsets(
    first: Floats, second: Floats, subsets: int, size: int, rng: np.random.Generator
) -> tuple[float, float]:
    rows = [rng.permutation(len(one))[: subsets * size].reshape(subsets, size) for one in (first, second)]
    each = [mmd(first[a], second[b]) for a, b in zip(*rows, strict=True)]
    return float(np.mean(each)), float(np.std(each, ddof=1) / np.sqrt(subsets))


# Diversity


def diversity(
    samples: tuple[Images, Floats, NDArray[np.int64]],
    real: tuple[Images, Floats, NDArray[np.int64]],
    rng: np.random.Generator,
) -> Diversity:
    """See Diversity.

    Args:
        samples: black-and-white images (n, side, side), features (n, d), recognised digits (n,).
        real: the same of test images.
        rng: which images are looked at where there are more than PAIRED.
    """
    n = min(PAIRED, len(samples[0]), len(real[0]))
    found = []
    for images, features, digits in (samples, real):
        rows = rng.permutation(len(images))[:n]
        flat = images[rows].reshape(n, -1).astype(np.float64)
        apart = np.sqrt(_squared(features[rows], features[rows]))
        same = digits[rows][:, None] == digits[rows]
        pixels = _spread(_squared(flat, flat) / flat.shape[1], np.ones((n, n), dtype=bool))
        found.append((pixels, _spread(apart, np.ones((n, n), dtype=bool)), _spread(apart, same)))
    mine, theirs = found
    packed = np.packbits(samples[0].reshape(len(samples[0]), -1), axis=1)
    distinct = len(np.unique(packed, axis=0))
    return Diversity(
        mine[0], theirs[0], mine[1], theirs[1], mine[2], theirs[2], distinct=distinct, n=len(samples[0])
    )  # fmt: skip


def _squared(first: Floats, second: Floats) -> Floats:
    """Squared Euclidean distances of all rows."""
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1) - 2 * first @ second.T
    return squares.clip(0)


def _spread(distances: Floats, counted: NDArray[np.bool_]) -> Spread:
    """Mean of the counted pairs; its error by the influence of each image (Hoeffding 1948), a ratio of two sums."""
    pairs = counted & ~np.eye(len(distances), dtype=bool)
    total = int(pairs.sum())
    if not total:
        return Spread(float("nan"), float("nan"))
    mean = float(distances[pairs].sum() / total)
    influence = 2 * len(distances) * np.where(pairs, distances - mean, 0).sum(1) / total
    return Spread(mean, float(np.sqrt(np.mean(influence**2) / len(distances))))


# Neighbours


def nearest(
    images: Images, others: Images, report: Report | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels that differ from the nearest of the other black-and-white images (n,), and which that is (n,)."""
    flat = others.reshape(len(others), -1).astype(np.float32)
    black = flat.sum(1)
    distances = np.empty(len(images), dtype=np.int64)
    which = np.empty(len(images), dtype=np.int64)
    for start in range(0, len(images), ROWS):
        mine = images[start : start + ROWS].reshape(-1, flat.shape[1]).astype(np.float32)
        apart = mine.sum(1)[:, None] + black - 2 * mine @ flat.T  # whole numbers below 2^24: exact
        rows = slice(start, start + len(mine))
        which[rows] = apart.argmin(1)
        distances[rows] = apart.min(1)
        if report is not None:
            report((start + len(mine)) / len(images), "nearest training images")
    return distances, which


def neighbours(samples: Images, real: Images, train: Images, report: Report | None = None) -> Neighbours:
    """See Neighbours: black-and-white samples, test images and training images."""
    mine, _ = nearest(samples, train, part(report, 0.0, 0.5))
    theirs, _ = nearest(real, train, part(report, 0.5, 1.0))
    of_mine, of_theirs = _share_above(mine, theirs), 1 - _share_above(theirs, mine)
    error = np.sqrt(np.var(of_mine) / len(mine) + np.var(of_theirs) / len(theirs))
    return Neighbours(
        median=float(np.median(mine)),
        median_real=float(np.median(theirs)),
        smallest=int(mine.min()),
        identical=int((mine == 0).sum()),
        identical_real=int((theirs == 0).sum()),
        nearer=float(of_mine.mean()),
        nearer_error=float(error),
        n=len(mine),
        n_real=len(theirs),
        n_train=len(train),
    )


def _share_above(values: NDArray[np.int64], others: NDArray[np.int64]) -> Floats:
    """Share of the others above each value, ties by half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    shares: Floats = 1 - below / (2 * len(others))
    return shares


def part(report: Report | None, start: float, end: float) -> Report | None:
    """For a part of the work: its share done, as a share of the whole."""
    if report is None:
        return None
    return lambda share, what: report(start + share * (end - start), what)
