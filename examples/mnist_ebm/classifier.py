"""The judge: a small convolutional network that recognises black-and-white digits; FID and KID use its features."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from glauber.errors import FileFormatError, InvalidModelError
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from examples.intervals import Proportion, proportion
from examples.mnist_ebm.data import Dataset, Images, Labels, black_and_white
from examples.mnist_ebm.files import write_whole

Floats = NDArray[np.float64]
Report = Callable[[float, str], None]

SETTINGS: dict[str, float] = {
    "channels_1": 16,
    "channels_2": 32,
    "features": 96,
    "dropout": 0.3,
    "epochs": 8,
    "batch": 128,
    "peak_rate": 3e-3,
    "weight_decay": 1e-4,
}
"""Layers and training. Part of the checksum: a saved network of others is trained anew."""
N_CLASSES = 10
FORMAT = "glauber.mnist-classifier", 1
BATCH = 1000
"""Images at once where nothing is learned."""


class Network(nn.Module):
    """Two convolutions of stride 2, a layer of features, ten logits."""

    def __init__(self, side: int) -> None:
        super().__init__()
        first, second, features = (int(SETTINGS[name]) for name in ("channels_1", "channels_2", "features"))
        small = (side + 3) // 4
        self.body = nn.Sequential(
            nn.Conv2d(1, first, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(first, second, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(second * small**2, features),
            nn.ReLU(),
        )
        self.drop = nn.Dropout(SETTINGS["dropout"])
        self.head = nn.Linear(features, N_CLASSES)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (n, 10) of pixels (n, 1, side, side)."""
        logits: Tensor = self.head(self.drop(self.body(pixels)))
        return logits


@dataclass(frozen=True)
class Classifier:
    """A trained network and how good it is.

    It takes black-and-white images, 0 and 1, and no others: all models are judged there, however many grey levels they
    have.

    Attributes:
        network: the network.
        side: pixels along a side of its images.
        accuracy: share of the test images that it recognises, with an interval.
        training_seconds: what its training took.
        key: SHA-256 of the images it was trained and tested on, its settings and its seed.
    """

    network: Network
    side: int
    accuracy: Proportion
    training_seconds: float
    key: str

    @property
    def n_parameters(self) -> int:
        """How many numbers were learned."""
        return sum(value.numel() for value in self.network.parameters())

    def probabilities(self, images: Images) -> Floats:
        """Of the ten digits (n, 10), of black-and-white images (n, side, side).

        Raises:
            InvalidModelError: images of another size, or with pixels other than 0 and 1.
        """
        check_black_and_white(images, self.side)
        return _through(self.network, images, lambda pixels: self.network(pixels).softmax(1), N_CLASSES)

    def confidence(self, images: Images) -> Floats:
        """Probability of the likeliest digit (n,); raises as `probabilities` does."""
        return np.asarray(self.probabilities(images).max(1))

    def features(self, images: Images) -> Floats:
        """Activities of the layer before the logits (n, 96), of black-and-white images (n, side, side).

        Raises:
            InvalidModelError: images of another size, or with pixels other than 0 and 1.
        """
        check_black_and_white(images, self.side)
        return _through(self.network, images, self.network.body, int(SETTINGS["features"]))

    def save(self, path: Path) -> None:
        """Write a file that load reads: whole or not at all."""
        content = {
            "format": list(FORMAT),
            "side": self.side,
            "accuracy": asdict(self.accuracy),
            "training_seconds": self.training_seconds,
            "key": self.key,
            "state": self.network.state_dict(),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_whole(path, buffer.getvalue())


def check_black_and_white(images: Images, side: int) -> None:
    """Refuse what is no stack of black-and-white images.

    Raises:
        InvalidModelError: images of another size, or with pixels other than 0 and 1.
    """
    if images.ndim != 3 or images.shape[1:] != (side, side):
        raise InvalidModelError(f"images must have the shape (n, {side}, {side}), not {images.shape}")
    if images.size and (images.min() < 0 or images.max() > 1):
        raise InvalidModelError(
            f"judged are black-and-white images, pixels 0 and 1; these have {images.min()} to {images.max()}:"
            " take data.black_and_white(images, n_levels) first"
        )


def load_classifier(path: Path) -> Classifier:
    """The classifier in a file, read without pickle's code execution.

    Raises:
        FileFormatError: the file holds none, or is damaged.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        try:
            content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            if content["format"] != list(FORMAT):
                raise ValueError(f"format {content['format']}, not {list(FORMAT)}")
            network = Network(content["side"])
            network.load_state_dict(content["state"])
            accuracy = Proportion(**content["accuracy"])
            return Classifier(network, content["side"], accuracy, content["training_seconds"], content["key"])
        except Exception as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise FileFormatError(f"{path} holds no classifier, or is damaged: {first}") from error


def train_classifier(dataset: Dataset, seed: int, report: Report | None = None, path: Path | None = None) -> Classifier:
    """A classifier of the dataset's digits in black and white.

    The test images are for its accuracy alone: nothing is decided by them.

    Args:
        dataset: images of any number of levels; the classifier is the same for 2, 4 and 16.
        seed: of the first weights, the order of images and the dropout; other random numbers are left alone.
        report: told the share done and what is done.
        path: where it is kept: one of the same images, settings and seed is read, not trained; else it is written.
    """
    key = _key(dataset, seed)
    if path is not None and path.is_file():
        try:
            kept = load_classifier(path)
        except FileFormatError:
            pass  # a damaged one is replaced
        else:
            if kept.key == key:
                return kept
    started = time.perf_counter()
    images = black_and_white(dataset.train.images, dataset.n_levels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(dataset.side)
        _fit(network, images, dataset.train.labels, report)
    seconds = time.perf_counter() - started
    test = _through(network, black_and_white(dataset.test.images, dataset.n_levels), network, N_CLASSES).argmax(1)
    accuracy = proportion(int((test == dataset.test.labels).sum()), len(dataset.test))
    trained = Classifier(network, dataset.side, accuracy, seconds, key)
    if path is not None:
        trained.save(path)
    return trained


def _fit(network: Network, images: Images, labels: Labels, report: Report | None) -> None:
    """Cross-entropy by Adam, whose rate rises and falls once."""
    batch, epochs = int(SETTINGS["batch"]), int(SETTINGS["epochs"])
    n_updates = epochs * -(-len(labels) // batch)
    adam = torch.optim.AdamW(network.parameters(), lr=SETTINGS["peak_rate"], weight_decay=SETTINGS["weight_decay"])
    course = torch.optim.lr_scheduler.LambdaLR(adam, lambda k: min(1.0, 10 * (k + 1) / n_updates) * (1 - k / n_updates))
    targets = torch.from_numpy(labels.astype(np.int64))
    done = 0
    network.train()
    for epoch in range(epochs):
        order = torch.randperm(len(labels))
        for start in range(0, len(labels), batch):
            rows = order[start : start + batch]
            adam.zero_grad()
            torch.autograd.backward(functional.cross_entropy(network(_pixels(images[rows.numpy()])), targets[rows]))
            adam.step()
            course.step()
            done += 1
            if report is not None and done % 50 == 0:
                report(done / n_updates, f"classifier, epoch {epoch + 1} of {epochs}")
    if report is not None:
        report(1.0, "classifier")


@torch.no_grad()
def _through(network: Network, images: Images, function: Callable[[Tensor], Tensor], width: int) -> Floats:
    """What a function of the network makes of all images, in batches and without dropout."""
    network.eval()
    found = np.empty((len(images), width))
    for start in range(0, len(images), BATCH):
        found[start : start + BATCH] = function(_pixels(images[start : start + BATCH])).double().numpy()
    return found


def _pixels(images: Images) -> Tensor:
    return torch.from_numpy(images.astype(np.float32)).unsqueeze(1)


def _key(dataset: Dataset, seed: int) -> str:
    """SHA-256 of all that the classifier and its accuracy depend on."""
    digest = hashlib.sha256(json.dumps([FORMAT, SETTINGS, seed, dataset.side]).encode())
    for part in (dataset.train, dataset.test):
        digest.update(np.packbits(black_and_white(part.images, dataset.n_levels)).tobytes())
        digest.update(part.labels.tobytes())
    return digest.hexdigest()
