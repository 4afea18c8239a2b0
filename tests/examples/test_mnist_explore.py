"""The look at the data: counts, entropies and likelihoods against ones by hand, and its picture."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from glauber.errors import InvalidModelError

from examples.mnist_ebm.data import Dataset, Part
from examples.mnist_ebm.explore import draw, explore


def dataset(n_levels, seed=0, n=4000):
    """Pixel (0, 0) is always 0; all others have even levels; the label is the level of pixel (1, 1) at two levels."""
    rng = np.random.default_rng(seed)
    brightness = rng.integers(0, 256, (n, 6, 6))
    brightness[:, 0, 0] = 0
    labels = (brightness[:, 1, 1] >= 128).astype(np.uint8)
    images = (brightness * n_levels // 256).astype(np.uint8)
    cuts = slice(0, n // 2), slice(n // 2, n // 2 + 200), slice(n // 2 + 200, n)
    return Dataset("noise", n_levels, *(Part(images[cut], labels[cut]) for cut in cuts))


def test_figures_are_those_of_even_noise():
    found = explore([dataset(2), dataset(4)])
    assert found.counts["train"][0] + found.counts["train"][1] == 2000
    for one in found.levels:
        q = one.n_levels
        assert one.never_change == 1 / 36
        assert sum(one.histogram) == pytest.approx(1)
        assert one.entropy_nats == pytest.approx(35 * math.log(q), rel=2e-3)
        # independent pixels are the truth here, but for frequencies of 2,000 images: they lose (q - 1) / 2n a pixel
        assert one.independent.nats == pytest.approx(-35 * math.log(q), abs=4 * one.independent.standard_error + 0.1)
        # the digit says which half pixel (1, 1) is in
        gain = one.independent_given_digit.nats - one.independent.nats
        assert gain == pytest.approx(math.log(2), abs=0.1)
    assert json.loads(json.dumps(asdict(found)))["levels"][1]["n_levels"] == 4


def test_the_likelihood_of_skewed_pixels_is_minus_the_entropy():
    rng = np.random.default_rng(1)
    images = (rng.random((6000, 4, 4)) < 0.1).astype(np.uint8)
    labels = np.zeros(6000, dtype=np.uint8)
    parts = [Part(images[cut], labels[cut]) for cut in (slice(0, 3000), slice(3000, 3100), slice(3100, 6000))]
    one = explore([Dataset("rare", 2, *parts)]).levels[0]
    entropy = -16 * (0.1 * math.log(0.1) + 0.9 * math.log(0.9))
    assert one.histogram[1] == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / 48_000))
    assert one.entropy_nats == pytest.approx(entropy, abs=4 * 16 * 0.3 * math.log(9) / math.sqrt(48_000))
    assert one.independent.nats == pytest.approx(-entropy, abs=4 * one.independent.standard_error + 0.1)
    # one image: 16 pixels with variance 0.09 log(9)^2 each
    assert one.independent.standard_error == pytest.approx(4 * 0.3 * math.log(9) / math.sqrt(2900), rel=0.1)


def test_the_picture_and_what_is_refused(tmp_path):
    datasets = [dataset(2), dataset(4)]
    draw(tmp_path / "data.png", datasets, explore(datasets))
    assert (tmp_path / "data.png").stat().st_size > 10_000
    with pytest.raises(InvalidModelError, match="same images"):
        explore([dataset(2), dataset(4, seed=1)])
    with pytest.raises(InvalidModelError, match="nothing to explore"):
        explore([])
