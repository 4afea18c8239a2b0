"""What a job had drawn when it stopped, and how to go on from there: batches as bytes, merged, and resumed.

Random numbers are counted by (seed, chain, sweep, site), so a run that goes on from a batch's state draws what it would
have drawn without the stop (docs/machine.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glauber.compile import Run
from glauber.driver import Batch, Events, Resamplings
from glauber.errors import FileFormatError
from glauber.formats import pack_archive, unpack_archive
from glauber.samples import Moments

BATCH_FORMAT = "glauber.batch"
BATCH_VERSION = 1


def merge_batches(batches: Sequence[Batch]) -> Batch:
    """Consecutive batches, at least one, as the one batch that would hold the same."""
    if len(batches) == 1:
        return replace(batches[0], resident=None)
    last, drawn = batches[-1], [batch.samples for batch in batches if batch.samples is not None]
    exchanges = [batch.exchanges for batch in batches if batch.exchanges is not None]
    resamplings = [batch.resamplings for batch in batches if batch.resamplings is not None]
    events = [batch.events for batch in batches if batch.events is not None]
    return Batch(
        next_sweep=last.next_sweep,
        first_sample=batches[0].first_sample,
        n_samples=sum(batch.n_samples for batch in batches),
        samples=np.concatenate(drawn, axis=1) if drawn else None,
        state=last.state,
        moments=last.moments,
        facts=last.facts,
        exchanges=np.sum(exchanges, axis=0) if exchanges else None,
        resamplings=_joined(resamplings) if resamplings else None,
        events=Events(np.sum([each.updates for each in events], axis=0), events[-1].in_flight) if events else None,
        read_state=last.read_state,
    )


def _joined(parts: Sequence[Resamplings]) -> Resamplings:
    lowest = np.concatenate([part.lowest for part in parts])
    weights = np.concatenate([part.weights for part in parts])
    return Resamplings(lowest, weights, parts[-1].families)


def resumed(run: Run, last: Batch) -> Run:
    """The rest of a run after a batch of it."""
    changes: dict[str, Any] = {"first_sweep": last.next_sweep, "initial": last.state}
    if last.moments is not None:
        changes["initial_moments"] = (last.moments.n_samples, last.moments.sites, last.moments.edges)
    if run.resample is not None and last.resamplings is not None:
        changes["resample"] = replace(run.resample, families=last.resamplings.families)
    if run.clock is not None and last.events is not None:
        changes["clock"] = replace(run.clock, in_flight=last.events.in_flight)
    return replace(run, **changes)


def batch_to_bytes(batch: Batch) -> bytes:
    """A batch as the bytes of one npz without pickle; uncompressed, for samples are random bits."""
    header: dict[str, Any] = {
        "next_sweep": batch.next_sweep,
        "first_sample": batch.first_sample,
        "n_samples": batch.n_samples,
        "facts": dict(batch.facts),
        "n_moments": None if batch.moments is None else batch.moments.n_samples,
    }
    parts: dict[str, NDArray[Any] | None] = {"state": batch.state, "samples": batch.samples}
    parts["read_state"] = batch.read_state
    parts["exchanges"] = batch.exchanges
    if batch.moments is not None:
        parts |= {"moments.sites": batch.moments.sites, "moments.edges": batch.moments.edges}
    if batch.resamplings is not None:
        each = batch.resamplings
        parts |= {"lowest": each.lowest, "weights": each.weights, "families": each.families}
    if batch.events is not None:
        parts |= {"updates": batch.events.updates, "in_flight": batch.events.in_flight}
    arrays = {name: array for name, array in parts.items() if array is not None}
    return pack_archive(BATCH_FORMAT, BATCH_VERSION, header, arrays, compress=False)


def batch_from_bytes(content: bytes, name: str) -> Batch:
    """The inverse of batch_to_bytes; `name` is for messages.

    Raises:
        FileFormatError: not such bytes.
    """
    header, arrays = unpack_archive(content, BATCH_FORMAT, BATCH_VERSION, name)
    try:
        moments = resamplings = events = None
        if header["n_moments"] is not None:
            moments = Moments(header["n_moments"], arrays["moments.sites"], arrays.get("moments.edges"))
        if "lowest" in arrays:
            resamplings = Resamplings(arrays["lowest"], arrays["weights"], arrays["families"])
        if "updates" in arrays:
            events = Events(arrays["updates"], arrays["in_flight"])
        return Batch(
            next_sweep=header["next_sweep"],
            first_sample=header["first_sample"],
            n_samples=header["n_samples"],
            samples=arrays.get("samples"),
            state=arrays["state"],
            moments=moments,
            facts=header["facts"],
            exchanges=arrays.get("exchanges"),
            resamplings=resamplings,
            events=events,
            read_state=arrays.get("read_state"),
        )
    except (KeyError, TypeError) as error:
        raise FileFormatError(f"{name} does not hold a valid batch: {error!r}") from error
