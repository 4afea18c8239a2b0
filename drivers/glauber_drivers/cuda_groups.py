"""Runs that are too large for a GPU's memory: groups of chains take turns on it.

Each group does a batch's sweeps and goes back to the host, from where it is resumed: chains do not meet, so the samples
are those of all chains at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from glauber.compile import AnyProgram, PottsProgram, Run
from glauber.driver import Batch

from glauber_drivers.chains import LANES, part_of, side_by_side
from glauber_drivers.cuda_job import choose_form
from glauber_drivers.cuda_session import FIRST_SWEEPS, Gpu, Session, device_bytes, room_for

TURN_SECONDS = 1.0
"""How long the batches of all groups together should take: each one brings its state along."""


def group_of(program: AnyProgram, run: Run, memory: float) -> int | None:
    """How many chains fit in so many bytes at a time; None where not even the fewest do."""
    grain = LANES if run.layout == 0 and not isinstance(program, PottsProgram) else 1
    count = run.n_chains
    while True:
        part = replace(run, n_chains=count)
        if device_bytes(program, part, choose_form(program, part), resident=False) <= memory:
            return count
        if count <= grain:
            return None
        count = -(-count // (2 * grain)) * grain


def in_turn(
    gpu: Gpu, program: AnyProgram, fixed: Mapping[str, Any], run: Run, count: int, facts: Mapping[str, str]
) -> Iterator[Batch]:
    """The batches of a run, `count` chains at a time."""
    parts = [part_of(run, k, min(count, run.n_chains - k)) for k in range(0, run.n_chains, count)]
    most = room_for(program, parts[0]) * run.sweeps_per_sample
    done, limit = run.first_sweep - 1, FIRST_SWEEPS
    while done < run.n_sweeps:
        sweeps, every = run.next_batch(done, min(limit, most))
        batches, began = [], time.perf_counter()
        for k, part in enumerate(parts):
            form = choose_form(program, part)
            batch = Session(gpu, program, fixed, part, form, resident=False).only(done, sweeps, every, facts)
            sums = batch.moments
            parts[k] = replace(
                part,
                first_sweep=batch.next_sweep,
                initial=batch.state,
                initial_moments=None if sums is None else (sums.n_samples, sums.sites, sums.edges),
            )
            batches.append(batch)
        limit = max(1, min(4 * limit, int(sweeps * TURN_SECONDS / max(1e-6, time.perf_counter() - began))))
        done += sweeps
        yield side_by_side(batches)
