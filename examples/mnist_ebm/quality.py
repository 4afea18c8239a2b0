"""How good samples are, by the same rules for all models: in black and white, against the test images.

A model of 4 or 16 levels is judged on data.black_and_white of its samples, as a model of 2 levels and the VAE are, so
that all figures are of one space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from glauber.errors import InvalidModelError
from numpy.typing import NDArray

from examples.intervals import Proportion, proportion
from examples.mnist_ebm.classifier import N_CLASSES, Classifier, Floats, Report, check_black_and_white
from examples.mnist_ebm.data import Dataset, Images, black_and_white
from examples.mnist_ebm.distances import (
    SUBSETS,
    Diversity,
    Frechet,
    Kernel,
    Neighbours,
    diversity,
    frechet_with_interval,
    kernel_distance,
    neighbours,
    part,
)

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SURE = 0.9
"""Probability from which a recognition counts as confident."""
COMPARED = 1000
"""Samples, and test images, whose nearest training image is sought, at most."""


@dataclass(frozen=True)
class Conditional:
    """Whether samples show the digit that was asked for.

    Attributes:
        confusion: samples by digit asked for (row) and recognised (column).
        right: share of samples recognised as asked.
        right_by_digit: of each digit; None for one that was not asked for.
        right_real: share of test images recognised as labelled: what a perfect model would have.
    """

    confusion: tuple[tuple[int, ...], ...]
    right: Proportion
    right_by_digit: tuple[Proportion | None, ...]
    right_real: Proportion


@dataclass(frozen=True)
class Quality:
    """What the judge says of black-and-white samples.

    Attributes:
        coverage: share of samples recognised as each digit.
        coverage_real: share of each digit among the test images.
        confident: share of samples recognised with a probability of SURE and more.
        confident_real: of test images.
        confident_coverage: share of samples recognised as each digit, and with confidence.
        conditional: None where no digit was asked for.
        fid: Frechet distance.
        kid: kernel distance.
        diversity: distances between samples.
        neighbours: distances to training images.
    """

    coverage: tuple[Proportion, ...]
    coverage_real: tuple[float, ...]
    confident: Proportion
    confident_real: Proportion
    confident_coverage: tuple[Proportion, ...]
    conditional: Conditional | None
    fid: Frechet
    kid: Kernel
    diversity: Diversity
    neighbours: Neighbours


def judge(
    samples: Images,
    asked: NDArray[np.integer] | None,
    dataset: Dataset,
    classifier: Classifier,
    seed: int,
    report: Report | None = None,
) -> Quality:
    """Compare samples with the test images, and with the training images for copies.

    The floors of FID and KID are of validation images, as many as there are samples, and of training images where
    those are too few.

    Args:
        samples: black and white, 0 and 1, uint8 (n, side, side): data.black_and_white of what a model draws.
        asked: digits asked for (n,); None for unconditional samples.
        dataset: real images, of any number of levels.
        classifier: trained on the same.
        seed: of the bootstrap, of subsets and of pairs.
        report: told the share done and what is done.

    Raises:
        InvalidModelError: too few samples, other pixels than 0 and 1, or labels of another number.
    """
    check_black_and_white(samples, dataset.side)
    if len(samples) < 2 * SUBSETS:
        raise InvalidModelError(f"to be judged, {2 * SUBSETS} samples are needed at least, not {len(samples)}")
    if asked is not None and (asked.shape != (len(samples),) or asked.min() < 0 or asked.max() >= N_CLASSES):
        raise InvalidModelError(
            f"asked must be {len(samples)} digits 0 to 9, one a sample, not {asked.shape} of others"
        )
    rng = np.random.default_rng(seed)
    if report is not None:
        report(0.0, "recognition")
    test, train, validation = (
        black_and_white(part.images, dataset.n_levels) for part in (dataset.test, dataset.train, dataset.validation)
    )
    probabilities, real_probabilities = classifier.probabilities(samples), classifier.probabilities(test)
    recognised, real_recognised = probabilities.argmax(1), real_probabilities.argmax(1)
    features, real_features = classifier.features(samples), classifier.features(test)
    other_features = classifier.features(np.concatenate([validation, train])[: len(samples)])
    sure, real_sure = (one.max(1) >= SURE for one in (probabilities, real_probabilities))
    conditional = None
    if asked is not None:
        right_real = proportion(int((real_recognised == dataset.test.labels).sum()), len(test))
        conditional = _conditional(asked.astype(np.int64), recognised, right_real)
    return Quality(
        coverage=_shares(recognised, len(samples)),
        coverage_real=tuple(float(np.mean(dataset.test.labels == digit)) for digit in range(N_CLASSES)),
        confident=proportion(int(sure.sum()), len(samples)),
        confident_real=proportion(int(real_sure.sum()), len(test)),
        confident_coverage=_shares(recognised[sure], len(samples)),
        conditional=conditional,
        fid=frechet_with_interval(features, real_features, other_features, rng, part(report, 0.2, 0.7)),
        kid=kernel_distance(features, real_features, other_features, rng),
        diversity=diversity((samples, features, recognised), (test, real_features, real_recognised), rng),
        neighbours=neighbours(_some(samples, rng), _some(test, rng), train, part(report, 0.7, 1.0)),
    )


def _shares(recognised: NDArray[np.int64], n: int) -> tuple[Proportion, ...]:
    return tuple(proportion(int(count), n) for count in np.bincount(recognised, minlength=N_CLASSES))


def _conditional(asked: NDArray[np.int64], recognised: NDArray[np.int64], right_real: Proportion) -> Conditional:
    table = np.bincount(N_CLASSES * asked + recognised, minlength=N_CLASSES**2).reshape(N_CLASSES, N_CLASSES)
    by_digit = [
        proportion(int(row[digit]), int(row.sum())) if row.sum() else None for digit, row in enumerate(table)
    ]  # fmt: skip
    return Conditional(
        confusion=tuple(tuple(int(count) for count in row) for row in table),
        right=proportion(int(np.trace(table)), len(asked)),
        right_by_digit=tuple(by_digit),
        right_real=right_real,
    )


def _some(images: Images, rng: np.random.Generator) -> Images:
    return images[rng.permutation(len(images))[:COMPARED]]


# Pictures


def draw_coverage(path: Path, coverage: Mapping[str, Sequence[Proportion]], real: Sequence[float]) -> None:
    """Share of samples recognised as each digit, with 95 % intervals, for several models; dashes: the test images."""
    figure, ax = plt.subplots(figsize=(9, 3.6), layout="constrained")
    width = 0.8 / len(coverage)
    for k, (name, parts) in enumerate(coverage.items()):
        at = np.arange(N_CLASSES) + (k - (len(coverage) - 1) / 2) * width
        shares = np.array([one.share for one in parts])
        ends = [[one.share - one.low for one in parts], [one.high - one.share for one in parts]]
        ax.bar(at, shares, width, yerr=np.clip(ends, 0, None), capsize=2, error_kw={"lw": 0.8}, label=name)
    digits = np.arange(N_CLASSES)
    ax.hlines(real, digits - 0.45, digits + 0.45, color="black", linestyle="dashed", lw=1, label="test images")
    ax.set_xticks(range(N_CLASSES))
    ax.set_xlabel("recognised digit")
    ax.set_ylabel("share of samples")
    ax.legend(fontsize=8, ncols=min(4, len(coverage) + 1), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_confusion(path: Path, confusion: Sequence[Sequence[int]], title: str) -> None:
    """Samples by digit asked for and recognised."""
    table = np.array(confusion)
    shares = table / table.sum(1, keepdims=True).clip(1)
    figure, ax = plt.subplots(figsize=(5.2, 5), layout="constrained")
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(table):
        if count:
            ax.text(
                column,
                row,
                str(count),
                ha="center",
                va="center",
                fontsize=7,
                color="k" if shares[row, column] < 0.5 else "w",
            )
    ax.set_xticks(range(N_CLASSES))
    ax.set_yticks(range(N_CLASSES))
    ax.set_xlabel("recognised as")
    ax.set_ylabel("asked for")
    ax.set_title(title, fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_neighbours(path: Path, samples: Images, neighbours: Images, distances: NDArray[np.integer]) -> None:
    """Samples, each above its nearest training image and the number of pixels that differ (see distances.nearest).

    Args:
        path: of the picture.
        samples: black and white (n, side, side); 20 are wide enough.
        neighbours: (n, side, side).
        distances: pixels that differ (n,).
    """
    figure, axes = plt.subplots(2, len(samples), figsize=(0.8 * len(samples), 2.1), squeeze=False, layout="constrained")
    for column, distance in enumerate(distances):
        for ax, images in zip(axes[:, column], (samples, neighbours), strict=True):
            ax.imshow(images[column], cmap="gray", vmin=0, vmax=1)
            ax.set_xticks([])
            ax.set_yticks([])
        axes[1, column].set_xlabel(f"{distance}", fontsize=8)
    axes[0, 0].set_ylabel("sample", fontsize=8)
    axes[1, 0].set_ylabel("nearest", fontsize=8)
    figure.suptitle("samples, their nearest training images, and pixels that differ", fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def energy_histogram(path: Path, energies: Mapping[str, Floats], unit: str = "nats") -> None:
    """Histograms of the energies of data, samples, noise, ..., on common bins.

    Args:
        path: of the picture.
        energies: by name, (n,) each.
        unit: of the energy.
    """
    every = np.concatenate([np.asarray(one, dtype=np.float64) for one in energies.values()])
    bins = np.linspace(every.min(), every.max(), 81)
    figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
    for name, values in energies.items():
        label = f"{name}: {np.mean(values):.1f} ± {np.std(values):.1f}"
        weights = np.full(len(values), 1 / len(values))
        ax.hist(values, bins=bins.tolist(), weights=weights, alpha=0.55, label=label)
    ax.set_xlabel(f"energy in {unit}")
    ax.set_ylabel("share of images")
    ax.legend(fontsize=8, title="mean ± standard deviation", title_fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
