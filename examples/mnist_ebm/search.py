"""Hyperparameter search: short trainings drawn from a space; it goes on where it was stopped."""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import glauber as gl
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from examples.mnist_ebm.config import RunConfig
from examples.mnist_ebm.data import Dataset
from examples.mnist_ebm.train import make_model, train

Report = Callable[[float, str], None]


class SearchConfig(BaseModel):
    """A search as a file.

    Attributes:
        base: the run that the others differ from.
        space: choices by dotted name, such as "training.learning_rate" or "model.n_sweeps".
        n_runs: how many of all combinations are drawn, without repetition.
        seed: of the draw and of every training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: RunConfig
    space: dict[str, list[Any]] = Field(min_length=1)
    n_runs: int = Field(ge=1)
    seed: int = 0


def read_search(path: Path) -> SearchConfig:
    """A search file.

    Raises:
        ValueError: it is no TOML, or a choice is no valid run; the message says which.
    """
    try:
        found = SearchConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        for choice in combinations(found):
            with_choice(found.base, choice)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    return found


def combinations(search: SearchConfig) -> list[dict[str, Any]]:
    """The choices of each run, drawn by the search's seed from all combinations."""
    names = sorted(search.space)
    every = [
        dict(zip(names, values, strict=True)) for values in itertools.product(*(search.space[name] for name in names))
    ]
    order = np.random.default_rng(search.seed).permutation(len(every))
    return [every[k] for k in order[: search.n_runs]]


def with_choice(base: RunConfig, choice: dict[str, Any]) -> RunConfig:
    """The base with some fields replaced, checked anew."""
    held = base.model_dump()
    for name, value in choice.items():
        *path, last = name.split(".")
        place = held
        for part in path:
            place = place[part]
        if last not in place:
            raise KeyError(f"a run has no {name!r}")
        place[last] = value
    return RunConfig.model_validate(held)


def search(config: SearchConfig, dataset: Dataset, folder: Path, report: Report | None = None) -> list[dict[str, Any]]:
    """The table, best first: each run's choice, likelihood of validation images and seconds.

    Each run has a folder with its checkpoints: one that was finished is not done again, and one that was interrupted
    goes on. One that diverges is last, with log p of minus infinity and why.
    """
    choices, rows = combinations(config), []
    for number, choice in enumerate(choices):
        run = with_choice(config.base, choice)

        def tell(fraction: float, what: str, number: int = number) -> None:
            if report is not None:
                report((number + fraction) / len(choices), f"search {number + 1} of {len(choices)}: {what}")

        with gl.open_device(run.device, seed=config.seed) as device:
            model = make_model(run, dataset, device, config.seed)
            try:
                course = train(model, dataset, run, config.seed, folder / run.digest, tell)
            except FloatingPointError as error:  # too large a rate: that is a result
                rows.append({"choice": choice, "nats": -math.inf, "why": str(error)})
                continue
        best = max(course.looks, key=lambda look: look["nats"])
        rows.append(
            {
                "choice": choice,
                "nats": best["nats"],
                "standard_error": best["standard_error"],
                "reconstruction_error": best["reconstruction_error"],
                "updates": course.updates,
                "seconds": course.seconds,
            }
        )
    return sorted(rows, key=lambda row: -row["nats"])
