"""Cutting a run by chains or by sweeps, and putting its parts together: chains do not meet, and runs resume exactly."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from glauber.compile import AnyProgram, PottsProgram, Run
from glauber.driver import Batch, Events, Resamplings
from glauber.samples import Moments
from numpy.typing import NDArray

LANES = 32
"""Chains that a kernel in replica planes computes at once: fewer take as long."""


def part_of(run: Run, first: int, count: int) -> Run:
    """The part of a run that has `count` of its chains from the `first` on."""

    def rows(array: Any) -> Any:
        return array if array is None or len(array) == 1 < run.n_chains else array[first : first + count]

    before, clock = run.initial_moments, run.clock
    if clock is not None and clock.in_flight is not None:
        chain = clock.in_flight[:, 0]
        mine = clock.in_flight[(first <= chain) & (chain < first + count)]
        clock = replace(clock, in_flight=mine - np.array([first, 0, 0]))
    return replace(
        run,
        first_chain=run.first_chain + first,
        n_chains=count,
        fields=rows(run.fields),
        clamp=rows(run.clamp),
        initial=rows(run.initial),
        initial_moments=None if before is None else (before[0], rows(before[1]), rows(before[2])),
        clock=clock,
    )


def shares(run: Run, program: AnyProgram, workers: int) -> list[tuple[int, int]]:
    """(first, count) of the chains of each worker: neighbours, and about as many for each.

    In replica planes a share begins at a multiple of LANES chains of the whole job, so there may be fewer shares than
    workers. Chains that meet, by exchanges or resamplings, are one share.
    """
    if run.exchange is not None or run.resample is not None:
        return [(0, run.n_chains)]
    grain = LANES if run.layout == 0 and not isinstance(program, PottsProgram) else 1
    before, end = run.first_chain // grain, -(-(run.first_chain + run.n_chains) // grain)
    n = max(1, min(workers, end - before))
    cuts = [grain * (before + (end - before) * k // n) - run.first_chain for k in range(n + 1)]
    cuts = [min(max(0, cut), run.n_chains) for cut in cuts]
    return [(first, last - first) for first, last in itertools.pairwise(cuts)]


def stretch(run: Run, sweeps: int, every: int) -> Run:
    """The next sweeps of a run as a run of their own, `sweeps` and `every` as `Run.next_batch` gives them.

    Where no sample is taken a run of one sample at the last sweep stands for them, which nobody keeps.
    """
    last = run.first_sweep - 1 + sweeps
    if every == 0:
        kept = run.observe - {"samples", "moments"}
        return replace(run, n_warmup=last - 1, n_samples=1, sweeps_per_sample=1, observe=kept, initial_moments=None)
    return replace(run, n_samples=(last - run.n_warmup) // run.sweeps_per_sample)


def resumed(run: Run, batch: Batch) -> Run:
    """The rest of a run after a batch, without sums of moments: those stay where they are added up."""
    clock, resample = run.clock, run.resample
    if batch.events is not None and clock is not None:
        clock = replace(clock, in_flight=batch.events.in_flight)
    if batch.resamplings is not None and resample is not None:
        resample = replace(resample, families=batch.resamplings.families)
    return replace(
        run, first_sweep=batch.next_sweep, initial=batch.state, initial_moments=None, clock=clock, resample=resample
    )


def side_by_side(batches: Sequence[Batch]) -> Batch:
    """Batches of neighbouring chains, of the same sweeps, as one; always in memory of its own."""
    first, moments = batches[0], None
    if first.moments is not None:
        sums = [batch.moments for batch in batches if batch.moments is not None]
        edges = [one.edges for one in sums if one.edges is not None]
        sites = np.concatenate([one.sites for one in sums])
        moments = Moments(first.moments.n_samples, sites, np.concatenate(edges) if edges else None)
    samples = [batch.samples for batch in batches if batch.samples is not None]
    read = [batch.read_state for batch in batches if batch.read_state is not None]
    return replace(
        first,
        samples=np.concatenate(samples) if samples else None,
        state=np.concatenate([batch.state for batch in batches]),
        read_state=np.concatenate(read) if read else None,
        moments=moments,
        facts={name: _named(batches, name) for name in first.facts},
        events=_events_side_by_side(batches),
    )


def _named(batches: Sequence[Batch], name: str) -> str:
    """What the batches say of themselves: one value, or each of several."""
    return ", ".join(dict.fromkeys(batch.facts[name] for batch in batches if name in batch.facts))


def _events_side_by_side(batches: Sequence[Batch]) -> Events | None:
    events = [batch.events for batch in batches if batch.events is not None]
    if not events:
        return None
    firsts = np.cumsum([0, *(len(batch.state) for batch in batches[:-1])])
    flying = [one.in_flight + np.array([first, 0, 0]) for one, first in zip(events, firsts, strict=True)]
    return Events(_total([one.updates for one in events]), np.concatenate(flying))


def one_after_another(batches: Sequence[Batch]) -> Batch:
    """Batches of the same chains that follow one another, as one; nothing of it is left on a device."""
    first, last = batches[0], batches[-1]
    samples = [batch.samples for batch in batches if batch.samples is not None and batch.n_samples]
    exchanges = [batch.exchanges for batch in batches if batch.exchanges is not None]
    moves = [batch.resamplings for batch in batches if batch.resamplings is not None]
    resamplings, events = last.resamplings, last.events
    if resamplings is not None:
        lowest, weights = (np.concatenate([getattr(one, name) for one in moves]) for name in ("lowest", "weights"))
        resamplings = Resamplings(lowest, weights, resamplings.families)
    if events is not None:
        updates = _total([batch.events.updates for batch in batches if batch.events is not None])
        events = Events(updates, events.in_flight)
    return replace(
        last,
        first_sample=first.first_sample,
        n_samples=sum(batch.n_samples for batch in batches),
        samples=np.concatenate(samples, axis=1) if samples else None,
        exchanges=_total(exchanges) if exchanges else None,
        resamplings=resamplings,
        events=events,
        resident=None,
    )


def _total(arrays: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.asarray(np.sum(arrays, axis=0, dtype=np.int64))
