"""Files to resume a training from, bit for bit."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from glauber.errors import FileFormatError, InvalidModelError

FORMAT, VERSION = "glauber.torch-checkpoint", 1


class Stateful(Protocol):
    """What a checkpoint can hold: modules, optimisers, learning-rate schedules, samplers, PersistentChains, ..."""

    def state_dict(self) -> Any:
        """Everything that it needs to go on."""
        ...

    def load_state_dict(self, state: Any, /) -> Any:
        """The inverse."""
        ...


def save_checkpoint(path: str | Path, step: int, **parts: Stateful) -> None:
    """Write a checkpoint: whole or not at all, also when the process or the machine dies meanwhile.

    Holds the parts' states and the states of the random number generators of torch (CPU and GPUs), NumPy and Python.
    Modules of glauber.torch bring along their samplers, the share of units that draw, and what a machine has learned of
    its device's temperature. A sampler that only a function uses is a part of its own, and so are PersistentChains, an
    AdaptiveShare and an EnergyTracker. With those, a run that is resumed goes on bit for bit on a deterministic device.

    Args:
        path: the file; replaced.
        step: steps done.
        parts: by name.

    Raises:
        InvalidModelError: a part has no state_dict, or one of objects that cannot be read without running code from
            the file, such as arrays of NumPy; the file before stays.
        OSError: the file cannot be written; the one before stays.
    """
    for name, part in parts.items():
        if not hasattr(part, "state_dict") or not hasattr(part, "load_state_dict"):
            raise InvalidModelError(f"part {name!r} is a {type(part).__name__}, which has no state_dict to save")
    numpy_state: Any = np.random.get_state(legacy=True)
    random_version, words, gauss_next = random.getstate()
    content = {
        "format": FORMAT,
        "version": VERSION,
        "step": step,
        "parts": {name: part.state_dict() for name, part in parts.items()},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [numpy_state[0], torch.from_numpy(numpy_state[1].astype(np.int64)), *numpy_state[2:]],
        "python": [random_version, list(words), gauss_next],
    }
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        if unreadable := torch.serialization.get_unsafe_globals_in_checkpoint(temporary):
            raise InvalidModelError(
                f"the parts' states hold {', '.join(sorted(unreadable))}, which a checkpoint is never read back with;"
                " turn arrays into tensors and other objects into plain numbers, texts, lists and dicts in state_dict()"
            )
        os.replace(temporary, target)
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: str | Path, **parts: Stateful) -> int:
    """Put everything back as it was when the checkpoint was saved; returns the steps done.

    The file is read without pickle's code execution.

    Raises:
        FileFormatError: it is no checkpoint, damaged, or of other parts. Parts before one that does not fit are loaded.
        OSError: it cannot be read; FileNotFoundError, if there is none.
    """
    with Path(path).open("rb") as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise FileFormatError(f"{path} is no checkpoint, or damaged: {first}") from error
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        raise FileFormatError(f"{path} is a torch file, but no checkpoint of glauber.torch.save_checkpoint")
    if content.get("version") != VERSION:
        raise FileFormatError(f"{path} is of version {content.get('version')!r}; this software reads {VERSION}")
    if set(content["parts"]) != set(parts):
        raise FileFormatError(
            f"{path} holds {', '.join(sorted(content['parts']))}; asked for were {', '.join(sorted(parts)) or 'none'}"
        )
    for name, part in parts.items():
        try:
            part.load_state_dict(content["parts"][name])
        except Exception as error:
            raise FileFormatError(f"{path} does not fit part {name!r}: {error}") from error
    torch.set_rng_state(content["torch"])
    if content["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(content["cuda"])
    kind, keys, position, has_gauss, gauss = content["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    random_version, words, gauss_next = content["python"]
    random.setstate((random_version, tuple(words), gauss_next))
    return int(content["step"])
