"""The 1,797 real 8x8 digits that ship in scikit-learn, as spins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

Floats = NDArray[np.floating[Any]]

N_PIXELS = 64
N_CLASSES = 10
LABEL_COPIES = 2
"""Each label is written twice, so that it weighs more against 64 pixels."""
N_VISIBLE = N_PIXELS + LABEL_COPIES * N_CLASSES


@dataclass(frozen=True)
class Digits:
    """A stratified split: four fifths to train, one to test.

    Attributes:
        train_grey: grey levels 0 .. 16, shape (n_train, 64).
        train_labels: shape (n_train,).
        test_grey: likewise.
        test_labels: likewise.
    """

    train_grey: Floats
    train_labels: NDArray[np.int64]
    test_grey: Floats
    test_labels: NDArray[np.int64]


def load(seed: int) -> Digits:
    """The split of a seed."""
    grey, labels = load_digits(return_X_y=True)
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=seed)
    grey, labels = np.asarray(grey, dtype=np.float32), np.asarray(labels, dtype=np.int64)
    return Digits(grey[train], labels[train], grey[test], labels[test])


def to_spins(grey: Floats, shift: Floats | float = 0.0) -> Floats:
    """+1 where a pixel is brighter than its image's mean grey (plus `shift`), else -1."""
    return np.where(grey > grey.mean(axis=1, keepdims=True) + shift, np.float32(1), np.float32(-1))


def label_spins(labels: NDArray[np.int64]) -> Floats:
    """One-hot labels as spins, each written LABEL_COPIES times: shape (n, 20)."""
    one_hot = np.where(np.eye(N_CLASSES, dtype=bool)[labels], np.float32(1), np.float32(-1))
    return np.tile(one_hot, (1, LABEL_COPIES))


def visible(grey: Floats, labels: NDArray[np.int64]) -> Floats:
    """Pixels and labels side by side, shape (n, 84)."""
    return np.hstack([to_spins(grey), label_spins(labels)])
