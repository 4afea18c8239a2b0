"""What two jobs have not in common, and whether two results are the same bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np

from glauber.job import JobStatus
from glauber.samples import SampleSet
from glauber.store.jobs import JobStore


def difference(store: JobStore, one: str, other: str) -> dict[str, Any]:
    """What two jobs have not in common: facts by name as pairs, and how their results differ.

    The key "results" says "identical", or "differ" with the first place, or why they cannot be compared.
    """
    records = store.get(one), store.get(other)
    facts: dict[str, Any] = {}
    for name in ("device", "spec_hash", "topology", "calibration", "seed", "schedule", "observe", "model_digest",
                 "program_key", "request_key", "versions", "status", "n_sites", "n_chains", "n_samples"):  # fmt: skip
        a, b = (getattr(record, name) for record in records)
        if a != b:
            facts[name] = [getattr(x, "value", x) for x in (a, b)]
    without = [record for record in records if record.status is not JobStatus.DONE]
    if without:
        facts["results"] = f"job {without[0].id} is {without[0].status.value}, so there is nothing to compare"
    else:
        facts["results"] = compare_results(store.result(one), store.result(other))
    return facts


def compare_results(one: SampleSet, other: SampleSet) -> str:
    """Whether two results are the same bit for bit: "identical", or the first thing that differs."""
    if one.model.key != other.model.key:
        return "differ: they are of different models"
    pairs: dict[str, tuple[Any, Any]] = {
        "samples": (one.packed, other.packed),
        "last": (one.last_packed, other.last_packed),
    }
    for name in ("sites", "edges"):
        pairs[f"moments of {name}"] = tuple(  # type: ignore[assignment]
            None if each.moments is None else getattr(each.moments, name) for each in (one, other)
        )
    pairs["energies"] = (one.stored_energies, other.stored_energies)
    pairs["updates"] = (one.updates, other.updates)
    for what in ("tried", "made"):
        pairs[f"exchanges {what}"] = tuple(  # type: ignore[assignment]
            None if each.exchanges is None else getattr(each.exchanges, what) for each in (one, other)
        )
    pairs["free energies"] = tuple(  # type: ignore[assignment]
        None if each.population is None else each.population.log_ratios for each in (one, other)
    )
    for name, (a, b) in pairs.items():
        if name == "energies" and (a is None or b is None):
            continue  # they follow from the states
        if (a is None) != (b is None):
            return f"differ: only one has {name}"
        if a is None:
            continue
        if a.shape != b.shape:
            return f"differ: {name} have shapes {a.shape} and {b.shape}"
        if not np.array_equal(a, b):
            at = tuple(int(k) for k in np.argwhere(a != b)[0])
            place = f"chain {at[0]}, sample {at[1]}" if name == "samples" else f"index {at}"
            return f"differ: {name}, first at {place}"
    return "identical"
