"""Real text as characters: documents in, one split by document, windows out."""

from __future__ import annotations

import gzip
import json
import os
import pydoc_data.topics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

N_CHARACTERS = 95
"""The most frequent characters of the training text; all others are one more symbol."""
CORPUS = Path("text") / "textcorpus.jsonl.gz"
HELD_OUT = 10
"""Every tenth document is for testing."""


@dataclass(frozen=True)
class Corpus:
    """Text as numbers of characters.

    Attributes:
        name: where it is from.
        alphabet: the characters, most frequent first; number len(alphabet) is any other.
        train: shape (n,), uint8.
        test: likewise, of other documents.
    """

    name: str
    alphabet: str
    train: NDArray[np.uint8]
    test: NDArray[np.uint8]

    @property
    def n_symbols(self) -> int:
        """Characters of the alphabet and the one for all others."""
        return len(self.alphabet) + 1

    def decode(self, symbols: list[int]) -> str:
        """Text of symbols; the one for all others is printed as a question mark in a box."""
        return "".join(self.alphabet[k] if k < len(self.alphabet) else "\N{REPLACEMENT CHARACTER}" for k in symbols)


def find_text(path: Path | None) -> Path | None:
    """The user's file, else the corpus in $GLAUBER_DATA or in shared/data beside the checkout; None: Python's own help.

    Raises:
        FileNotFoundError: the user's file is not there.
    """
    if path is not None:
        if not path.is_file():
            raise FileNotFoundError(f"there is no text file {path}; give a .txt, .txt.gz or .jsonl.gz file")
        return path
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    for folder in (os.environ.get("GLAUBER_DATA"), beside):
        if folder and (Path(folder) / CORPUS).is_file():
            return Path(folder) / CORPUS
    return None


def read_documents(path: Path | None) -> tuple[str, list[str]]:
    """Name and documents: rows of JSON with a "text", or paragraphs of plain text.

    Raises:
        ValueError: the file holds no such text.
    """
    if path is None:  # half a megabyte of technical English that comes with every Python
        return "Python's own help (pydoc topics)", list(pydoc_data.topics.topics.values())
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            text = file.read()
        if ".jsonl" in path.suffixes:
            return path.name, [str(json.loads(line)["text"]) for line in text.splitlines() if line.strip()]
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f'{path} is neither UTF-8 text nor lines of JSON with a "text": {error}') from error
    return path.name, text.split("\n\n")


def load(path: Path | None = None) -> Corpus:
    """Read, split by document, and number the characters.

    Raises:
        FileNotFoundError: see find_text.
        ValueError: too little text to train on, or none.
    """
    name, documents = read_documents(find_text(path))
    train = "\n".join(text for k, text in enumerate(documents) if k % HELD_OUT)
    test = "\n".join(text for k, text in enumerate(documents) if not k % HELD_OUT)
    if len(train) < 10_000 or len(test) < 1_000:
        raise ValueError(f"{name} has {len(train) + len(test)} characters; some 11,000 in ten paragraphs are the least")
    codes, counts = np.unique(np.frombuffer(train.encode("utf-32-le"), dtype="<u4"), return_counts=True)
    alphabet = "".join(chr(code) for code in codes[np.argsort(-counts, kind="stable")][:N_CHARACTERS])
    number = np.full(max(map(ord, alphabet)) + 1, len(alphabet), dtype=np.uint8)
    number[[ord(character) for character in alphabet]] = np.arange(len(alphabet))

    def encode(text: str) -> NDArray[np.uint8]:
        points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        known = points < len(number)
        return np.where(known, number[np.where(known, points, 0)], np.uint8(len(alphabet))).astype(np.uint8)

    return Corpus(name, alphabet, encode(train), encode(test))


def windows(text: NDArray[np.uint8], starts: NDArray[np.int64], length: int) -> Tensor:
    """Pieces of text, int64 (len(starts), length + 1): inputs without the last symbol, targets without the first."""
    return torch.from_numpy(text[starts[:, None] + np.arange(length + 1)].astype(np.int64))


def bigram_nats(corpus: Corpus, test: Tensor) -> tuple[float, float]:
    """Mean -log p of the targets in windows, by the training text's bigrams and by its single characters."""
    n = corpus.n_symbols
    pairs = np.bincount(corpus.train[:-1].astype(np.int64) * n + corpus.train[1:], minlength=n * n).reshape(n, n) + 1.0
    single = pairs.sum(axis=0)
    log_pairs = np.log(pairs / pairs.sum(axis=1, keepdims=True))
    log_single = np.log(single / single.sum())
    inputs, targets = test[:, :-1].numpy(), test[:, 1:].numpy()
    return -float(log_pairs[inputs, targets].mean()), -float(log_single[targets].mean())
