"""A look at the data before any model: counts, histograms, means, and what independent pixels would say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from glauber.errors import InvalidModelError
from numpy.typing import NDArray

from examples.mnist_ebm.data import Dataset, Images, Part
from examples.mnist_ebm.pictures import by_digit, tiles

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Baseline:
    """Test images by independent pixels: what a model without couplings reaches, so that others must be above it.

    The frequencies of a pixel's levels are those in the training images, one added to each count.

    Attributes:
        nats: log-likelihood of a test image, mean.
        standard_error: of it, over images.
    """

    nats: float
    standard_error: float


@dataclass(frozen=True)
class AtLevels:
    """The images at some number of grey levels.

    Attributes:
        n_levels: how many.
        histogram: share of the training images' pixels at each level.
        never_change: share of the pixels that have one level in all training images.
        entropy_nats: of independent pixels: sum of the pixels' entropies in the training images.
        independent: log-likelihood by them.
        independent_given_digit: the same with other frequencies for each digit, which is known.
    """

    n_levels: int
    histogram: tuple[float, ...]
    never_change: float
    entropy_nats: float
    independent: Baseline
    independent_given_digit: Baseline


@dataclass(frozen=True)
class Exploration:
    """What is known of the data.

    Attributes:
        source: where it is from.
        side: pixels along a side.
        counts: images of each digit, by part.
        levels: figures at each number of grey levels.
    """

    source: str
    side: int
    counts: dict[str, tuple[int, ...]]
    levels: tuple[AtLevels, ...]


def explore(datasets: Sequence[Dataset]) -> Exploration:
    """Look at the same images at one or several numbers of grey levels.

    Args:
        datasets: of data.load with n_levels=2, 4, 16 and all else alike.

    Raises:
        InvalidModelError: no dataset, or of different images.
    """
    if not datasets:
        raise InvalidModelError("there is nothing to explore: give one dataset for each number of levels")
    first = datasets[0]
    for other in datasets[1:]:
        if other.side != first.side or not np.array_equal(other.train.labels, first.train.labels):
            raise InvalidModelError("the datasets must show the same images: load them alike but for n_levels")
    parts = {"train": first.train, "validation": first.validation, "test": first.test}
    counts = {
        name: tuple(int(count) for count in np.bincount(part.labels, minlength=10)) for name, part in parts.items()
    }
    return Exploration(first.source, first.side, counts, tuple(_at_levels(one) for one in datasets))


def _at_levels(dataset: Dataset) -> AtLevels:
    train, test, q = dataset.train, dataset.test, dataset.n_levels
    counts = _counts(train.images, q)
    shares = counts / len(train)
    entropies = -(shares * np.log(np.where(counts > 0, shares, 1))).sum(0)
    given = np.empty(len(test))
    for digit in np.unique(test.labels):
        rows = test.labels == digit
        given[rows] = _log_likelihood(test.images[rows], _counts(train.images[train.labels == digit], q))
    return AtLevels(
        n_levels=q,
        histogram=tuple(float(share) for share in shares.mean((1, 2))),
        never_change=float(np.mean(counts.max(0) == len(train))),
        entropy_nats=float(entropies.sum()),
        independent=_baseline(_log_likelihood(test.images, counts)),
        independent_given_digit=_baseline(given),
    )


def _counts(images: Images, n_levels: int) -> NDArray[np.int64]:
    """How often each pixel has each level (n_levels, side, side)."""
    return np.stack([(images == level).sum(0) for level in range(n_levels)])


def _log_likelihood(images: Images, counts: NDArray[np.int64]) -> Floats:
    """Of each image, by the frequencies with one added to each count."""
    log_shares = np.log((counts + 1) / (counts.sum(0) + len(counts)))
    rows, columns = np.indices(images.shape[1:])
    found: Floats = log_shares[images, rows, columns].sum((1, 2))
    return found


def _baseline(nats: Floats) -> Baseline:
    return Baseline(float(nats.mean()), float(nats.std(ddof=1) / np.sqrt(len(nats))))


def draw(path: Path, datasets: Sequence[Dataset], found: Exploration) -> None:
    """Samples, mean images, levels side by side, pixels that never change, histograms and counts, in one picture."""
    finest = max(datasets, key=lambda one: one.n_levels)
    train, top = finest.train, finest.n_levels
    figure, axes = plt.subplots(2, 3, figsize=(13, 8), layout="constrained")
    some = by_digit(train.images, train.labels, 10)
    _show(axes[0, 0], tiles(np.concatenate(list(some.values())), 10, top), "training images")
    present = np.unique(train.labels)
    means = np.stack([train.images[train.labels == digit].mean(0) for digit in present])
    _show(axes[0, 1], tiles(means, 5, top), "mean image of each digit")
    _show(axes[0, 2], _side_by_side(datasets), f"{', '.join(str(one.n_levels) for one in datasets)} grey levels")
    never = train.images.max(0) == train.images.min(0)
    share = next(one.never_change for one in found.levels if one.n_levels == top)
    _show(axes[1, 0], never.astype(np.float64), f"white: never change ({100 * share:.0f} % at {top} levels)")
    for one in found.levels:
        at = (np.arange(one.n_levels) + 0.5) / one.n_levels
        label = f"{one.n_levels} levels: {one.independent.nats:.1f} ± {one.independent.standard_error:.1f} nats"
        axes[1, 1].plot(at, one.histogram, "o-", label=label)
    axes[1, 1].set_yscale("log")
    axes[1, 1].set_ylim(top=20)  # room for the legend
    axes[1, 1].set_xlabel("brightness, middle of the level")
    axes[1, 1].set_ylabel("share of pixels")
    axes[1, 1].legend(title="log-likelihood by independent pixels", fontsize=8, title_fontsize=8)
    axes[1, 1].set_title("pixel histogram", fontsize=10)
    below = np.zeros(10)
    for name, counts in found.counts.items():
        axes[1, 2].bar(range(10), counts, bottom=below, label=f"{name}: {sum(counts):,}")
        below += counts
    axes[1, 2].set_xticks(range(10))
    axes[1, 2].set_title("images of each digit", fontsize=10)
    axes[1, 2].set_ylim(0, 1.3 * below.max())
    axes[1, 2].legend(fontsize=8)
    figure.suptitle(f"{found.source}, {found.side} x {found.side} pixels", fontsize=11)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _side_by_side(datasets: Sequence[Dataset]) -> Floats:
    """Six digits, a row for each number of levels."""
    return np.concatenate([tiles(_first(one.train), 6, one.n_levels) for one in datasets])


def _first(part: Part) -> Images:
    return part.images[:6]


def _show(ax: Axes, picture: Floats, title: str) -> None:
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
    ax.set_title(title, fontsize=10)
    ax.set_axis_off()
