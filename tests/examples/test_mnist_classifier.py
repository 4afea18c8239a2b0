"""The judge of the MNIST example: it recognises, is kept with a checksum, and refuses what it was not made for."""

from __future__ import annotations

import os

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra torch: pip install -e '.[torch]'")

import torch
from glauber.errors import FileFormatError, InvalidModelError

from examples.intervals import proportion
from examples.mnist_ebm import classifier
from examples.mnist_ebm.data import Dataset, Part

SIDE = 12


def bars(n, seed, n_levels=4):
    """Two kinds of images: a horizontal bar (0) and a vertical one (1), with noise below half brightness."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n).astype(np.uint8)
    images = rng.integers(0, n_levels // 2, (n, SIDE, SIDE)).astype(np.uint8)
    for image, label, at in zip(images, labels, rng.integers(2, SIDE - 2, n), strict=True):
        image[at, 2:-2] = n_levels - 1
        if label:
            image[:] = image.T.copy()
    return Part(images, labels)


def dataset(n_levels=4, seed=1):
    return Dataset("bars", n_levels, bars(600, seed, n_levels), bars(10, 2, n_levels), bars(200, 3, n_levels))


@pytest.fixture(scope="module")
def trained():
    return classifier.train_classifier(dataset(), 0)


def test_it_recognises_what_it_has_not_seen(trained):
    test = dataset().test
    images = classifier.black_and_white(test.images, 4)
    found = trained.probabilities(images)
    assert found.sum(1) == pytest.approx(np.ones(200))
    assert np.mean(found.argmax(1) == test.labels) == trained.accuracy.share
    assert trained.accuracy.share > 0.8  # chance: 0.5 +- 0.035
    assert trained.accuracy.low < trained.accuracy.share <= trained.accuracy.high
    features = trained.features(images)
    assert features.shape == (200, 96)
    assert features.min() == 0  # after rectifiers
    assert trained.probabilities(images[:7]) == pytest.approx(found[:7], abs=1e-6)  # alone as in company


def test_a_kept_one_is_read_and_one_of_other_images_is_not(trained, tmp_path, monkeypatch):
    path = tmp_path / "kept" / "classifier.pt"
    trained.save(path)
    seen = []
    again = classifier.train_classifier(dataset(), 0, lambda share, what: seen.append(share), path)
    assert not seen
    assert again.accuracy == trained.accuracy
    images = classifier.black_and_white(dataset().test.images, 4)
    assert np.array_equal(again.probabilities(images), trained.probabilities(images))
    monkeypatch.setitem(classifier.SETTINGS, "epochs", 1)
    other = classifier.train_classifier(dataset(seed=5), 0, lambda share, what: seen.append(share), path)
    assert seen[-1] == 1.0
    assert other.key != trained.key
    assert classifier.load_classifier(path).key == other.key


def test_the_same_seed_gives_the_same_network_and_leaves_other_random_numbers_alone(monkeypatch):
    monkeypatch.setitem(classifier.SETTINGS, "epochs", 1)
    torch.manual_seed(5)
    first = classifier.train_classifier(dataset(), 3)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.rand(1) == drawn
    torch.manual_seed(6)
    second = classifier.train_classifier(dataset(), 3)
    for left, right in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(left, right)


def test_levels_other_than_two_are_refused(trained):
    with pytest.raises(InvalidModelError, match="black_and_white"):
        trained.probabilities(dataset().test.images)
    with pytest.raises(InvalidModelError, match=r"\(n, 12, 12\)"):
        trained.features(np.zeros((3, 28, 28), dtype=np.uint8))


def test_a_damaged_file_is_named_and_replaced(tmp_path, monkeypatch):
    path = tmp_path / "classifier.pt"
    path.write_bytes(b"no network")
    with pytest.raises(FileFormatError, match=r"classifier\.pt"):
        classifier.load_classifier(path)
    monkeypatch.setitem(classifier.SETTINGS, "epochs", 1)
    made = classifier.train_classifier(dataset(), 0, path=path)
    assert classifier.load_classifier(path).key == made.key


def test_a_full_disk_is_said_and_leaves_what_was_there(trained, tmp_path):
    path = tmp_path / "classifier.pt"
    trained.save(path)
    (tmp_path / f".classifier.pt.{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        trained.save(path)
    assert classifier.load_classifier(path).key == trained.key


def test_intervals_of_proportions_are_wilsons():
    # by hand, 8 of 10: centre 0.717, half width 0.227
    assert proportion(8, 10).low == pytest.approx(0.4902, abs=1e-4)
    assert proportion(8, 10).high == pytest.approx(0.9433, abs=1e-4)
    assert proportion(0, 50).low == 0
    assert proportion(0, 50).high == pytest.approx(1.95996**2 / (50 + 1.95996**2), abs=1e-5)
    with pytest.raises(ValueError, match="5 of 4"):
        proportion(5, 4)
