"""One prepared job on one driver: run it batch by batch, and put the result together. No thread, no queue.

A job that ran before goes on from the batches that were kept of it; its samples are what they would have been.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from glauber.checkpoint import resumed
from glauber.compile import pack_spins, unpack_spins
from glauber.driver import Batch, Driver, Resamplings
from glauber.energy import EnergyReport, modelled_energy
from glauber.errors import BudgetExceededError
from glauber.findings import Exchanges, Population
from glauber.meter import EnergyMeter, JobWindow
from glauber.model import IsingModel, PottsModel
from glauber.prepare import Prepared, StopReason, prepared_operations
from glauber.provenance import Provenance
from glauber.residency import Loading
from glauber.samples import Moments, SampleSet, field_change
from glauber.schedule import AsynchronousSchedule, PopulationSchedule, SamplingSchedule
from glauber.stopping import EssWatch, run_in_stretches


class _Collector:
    """Takes batches as they come and keeps what was asked for."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        budget, schedule = prepared.request.budget, prepared.request.schedule
        target = None if budget is None else budget.ess
        self.watch = None if target is None else EssWatch(target, prepared.request.model, schedule.n_chains)
        self._request = prepared.request
        self._samples: list[NDArray[np.unsignedinteger]] = []
        self._energies: list[NDArray[np.float64]] = []
        self._broken: list[tuple[float, int]] = []
        self._counted: Moments | None = None
        self._exchanges: NDArray[np.int64] | None = None
        self._resamplings: list[Resamplings] = []
        self.updates: NDArray[np.int64] | None = None
        self.last: NDArray[np.unsignedinteger] | None = None
        self.moments: Moments | None = None
        self.n_samples = 0
        self.facts: dict[str, str] = {}
        self.resident: Any = None

    def _read(self, packed: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
        """States of the device as states of the model."""
        embedding = self._prepared.embedding
        if embedding is None:
            return packed
        spins, broken = embedding.read(unpack_spins(packed.astype(np.uint8, copy=False), embedding.n_device_sites))
        self._broken.append((broken, spins.size))
        return pack_spins(spins)

    def take(self, batch: Batch) -> None:
        """Keep what the request wants of a batch."""
        request, model = self._request, self._request.model
        self.facts = dict(batch.facts)
        self.moments = batch.moments if batch.moments is not None else self._counted
        self.n_samples += batch.n_samples
        self.last = batch.state if batch.read_state is None else batch.read_state
        self.resident = batch.resident if self._prepared.embedding is None else None
        if batch.exchanges is not None:
            self._exchanges = batch.exchanges + (0 if self._exchanges is None else self._exchanges)
        if batch.resamplings is not None:
            self._resamplings.append(batch.resamplings)
        if batch.events is not None:
            self.updates = batch.events.updates + (0 if self.updates is None else self.updates)
        if batch.samples is None or not batch.n_samples:
            return
        packed = self._read(batch.samples)
        if "samples" in request.observe:
            self._samples.append(packed)
        count_moments = "moments" in request.observe and "moments" not in self._prepared.run.observe
        keep_energies = "energies" in request.observe and "samples" not in request.observe
        if not count_moments and not keep_energies and self.watch is None:
            return
        ising = isinstance(model, IsingModel)
        states = unpack_spins(packed.astype(np.uint8, copy=False), model.n_sites) if ising else packed
        if "energies" in request.observe or self.watch is not None:
            energies = model.energies(states)
            if request.fields is not None:
                energies = energies + field_change(model, request.fields, states)
            if "energies" in request.observe:
                self._energies.append(energies)
            if self.watch is not None:
                self.watch.take(states, energies)
        if count_moments:
            self.moments = self._counted = self._count(states)

    def _count(self, states: NDArray[Any]) -> Moments:
        """Moments so far, from samples: for devices that do not sum themselves, and for embedded models."""
        model, before = self._request.model, self._counted
        edges = None
        if isinstance(model, PottsModel):
            sites = (states[..., None] == np.arange(model.n_states)).sum(axis=1, dtype=np.int64)
        else:
            a, b = model.edges[:, 0], model.edges[:, 1]
            sites = states.sum(axis=1, dtype=np.int64)
            edges = np.stack([(chain[:, a] * chain[:, b]).sum(axis=0, dtype=np.int64) for chain in states])
            edges = edges if before is None or before.edges is None else edges + before.edges
        return Moments(self.n_samples, sites if before is None else sites + before.sites, edges)

    def packed(self) -> NDArray[np.unsignedinteger] | None:
        """All samples."""
        if "samples" not in self._request.observe:
            return None
        return self._samples[0] if len(self._samples) == 1 else np.concatenate(self._samples, axis=1)

    def energies(self) -> NDArray[np.float64] | None:
        """All energies, where they were computed on the way."""
        return np.concatenate(self._energies, axis=1) if self._energies else None

    def last_state(self) -> NDArray[np.unsignedinteger]:
        """The last state of each chain."""
        if self.last is None:
            raise BudgetExceededError("no batch was run")
        return self._read(self.last)

    def exchanges(self) -> Exchanges | None:
        """Of a tempered job."""
        if self._exchanges is None:
            return None
        return Exchanges(self._request.schedule.beta_table(), self._exchanges[:, 0], self._exchanges[:, 1])

    def population(self) -> Population | None:
        """Of population annealing: ln Z from the integers of each resampling."""
        schedule, run, program = self._request.schedule, self._prepared.run, self._prepared.program
        if run.resample is None or not isinstance(schedule, PopulationSchedule):
            return None
        n, log_ratios = run.n_chains, [0.0]
        unit = 62 - (n - 1).bit_length()
        lowest = np.concatenate([each.lowest for each in self._resamplings]).tolist()
        weights = np.concatenate([each.weights for each in self._resamplings]).tolist()
        for k, (energy, weight) in enumerate(zip(lowest, weights, strict=True)):
            at = (k + 1) * run.resample.every
            rise = int(run.b[at]) - int(run.b[at - 1])  # 2 dbeta step log2(e) 2^32
            log2_ratio = math.log2(weight) - math.log2(n) - unit - rise * energy / 2**33
            offset = (schedule.betas[k + 1] - schedule.betas[k]) * program.offset
            log_ratios.append(log_ratios[-1] + log2_ratio * math.log(2) - offset)
        held = 0 if run.clamp is None else int((run.clamp != self._request.free_value).sum())
        return Population(
            betas=np.array(schedule.betas[: len(log_ratios)]),
            log_ratios=np.array(log_ratios),
            log_states=(program.n_sites - held) * math.log(2),
            families=self._resamplings[-1].families,
        )

    def embedding_facts(self) -> dict[str, float] | None:
        """Chain breaks and strength, if embedded."""
        embedding = self._prepared.embedding
        if embedding is None:
            return None
        total = sum(size for _, size in self._broken)
        broken = sum(share * size for share, size in self._broken) / max(1, total)
        return {
            "broken_groups": broken,
            "strength": embedding.strength,
            "largest_group": float(max(len(group) for group in embedding.groups)),
            "device_sites_used": float(sum(len(group) for group in embedding.groups)),
        }


@lru_cache(maxsize=1)
def software_versions() -> dict[str, str]:
    """Of what computes here."""
    return {"glauber": version("glauber"), "numpy": np.__version__, "python": platform.python_version()}


Stop = Literal["cancel", "requeue"]


class Requeued(Exception):  # noqa: N818  # no error: the job goes on another time
    """The job stopped because it was asked to make way."""


def execute(
    prepared: Prepared,
    driver: Driver,
    *,
    loading: Loading,
    job_id: str,
    address: str,
    spec_hash: str,
    queue_seconds: float,
    report: Callable[[int, int], None],
    stop_asked: Callable[[], Stop | None],
    meter: EnergyMeter | None = None,
    meter_note: str = "",
    earlier: Sequence[Batch] = (),
    earlier_seconds: float = 0.0,
    keep: Callable[[Batch], None] | None = None,
) -> SampleSet:
    """Run a prepared job to its end, its budget's, or until stop_asked() says so.

    Args:
        prepared: the job.
        driver: the machine.
        loading: whether the program must be loaded, or what is there from the job before can be used.
        job_id: for the provenance.
        address: for the provenance.
        spec_hash: for the provenance; serialising a spec takes longer than a small job, so it is not done here.
        queue_seconds: how long the job waited.
        report: called with (sweeps done, samples done) after each batch.
        stop_asked: asked after each batch.
        meter: its window is open from before the program is loaded until the run has ended.
        meter_note: said in the report beside what it measured.
        earlier: what the job had drawn when it was stopped before.
        earlier_seconds: that it had run by then.
        keep: called with each batch, to store it.

    Raises:
        BudgetExceededError: the budget, or the cancellation, left no sample.
        Requeued: stop_asked() said so.
    """
    request, run = prepared.request, prepared.driven
    collector = _Collector(prepared)
    for batch in earlier:
        collector.take(batch)
    if loading.fields is not None:
        run = replace(run, fields=loading.fields)
    if earlier:
        run, meter = resumed(run, earlier[-1]), None
    enough = collector.watch is not None and collector.watch.reached
    reading, sweeps = 0.0, run.first_sweep - 1
    stopped_by = prepared.stopped_by
    seconds = None if request.budget is None else request.budget.seconds
    batches: Iterator[Batch] | None = None
    window = None if meter is None else JobWindow(meter, meter_note)
    began = time.perf_counter()
    programmed = began
    try:
        if loading.load:
            driver.program(prepared.loaded)
        programmed = time.perf_counter()
        if sweeps >= run.n_sweeps or enough:
            batches = iter(())
        elif collector.watch is None:
            batches = driver.run(run)
        else:
            resumable = driver.spec.capabilities.initial
            batches = run_in_stretches(driver, run, collector.watch, resumable=resumable)
        for batch in batches:
            arrived = time.perf_counter()
            collector.take(batch)
            sweeps = batch.next_sweep - 1
            if keep is not None:
                keep(batch)
            report(sweeps, collector.n_samples)
            reading += time.perf_counter() - arrived
            enough = collector.watch is not None and collector.watch.reached
            if sweeps >= run.n_sweeps or enough:
                break
            stop = stop_asked()
            if stop == "requeue":
                raise Requeued
            if stop == "cancel":
                stopped_by = "cancel"
                break
            if seconds is not None and time.perf_counter() - programmed + earlier_seconds >= seconds:
                stopped_by = "seconds"
                break
    finally:
        close = getattr(batches, "close", None)
        try:
            if close is not None:
                close()
        finally:
            if window is not None:
                window.stop()
    if enough:
        stopped_by = "ess"
    if collector.n_samples == 0:
        reason = {"cancel": "cancelled", None: "ended by the device"}.get(
            stopped_by, f"stopped by its {stopped_by} budget"
        )
        raise BudgetExceededError(
            f"job {job_id} was {reason} after {sweeps} of {run.n_sweeps} sweeps, before its first sample; allow more"
            " or warm up less"
        )
    finishing = time.perf_counter()
    collector.facts |= {**loading.facts, **prepared.facts}
    parts = collector.packed(), collector.energies(), collector.last_state()
    ended = time.perf_counter()
    reading += ended - finishing
    loads, nodes = int(loading.load), loading.nodes
    counted = prepared_operations(prepared, sweeps, collector.n_samples, loads=loads, nodes=nodes)
    energy = modelled_energy(driver.spec, counted)
    if window is not None:
        modelled = energy
        energy = replace(window.report(modelled), operations=counted, reflash_seconds=modelled.reflash_seconds)
    elif earlier:
        energy = replace(energy, not_measured="the job was stopped and went on later, so no one window holds it")
    return _result(
        prepared,
        collector,
        parts,
        sweeps=sweeps,
        stopped_by=stopped_by,
        energy=energy,
        timing={
            "queue": queue_seconds,
            "program": programmed - began,
            "sample": ended - programmed - reading + earlier_seconds,
            "read": reading,
            "total": queue_seconds + ended - began + earlier_seconds,
        },
        driver=driver,
        job_id=job_id,
        address=address,
        spec_hash=spec_hash,
    )


def partial_result(
    prepared: Prepared,
    driver: Driver,
    batches: Sequence[Batch],
    *,
    job_id: str,
    address: str,
    spec_hash: str,
    seconds: float,
) -> SampleSet:
    """What a job that has not ended has drawn so far, from the batches that were kept; stopped_by says "cancel".

    Raises:
        BudgetExceededError: nothing yet.
    """
    collector = _Collector(prepared)
    for batch in batches:
        collector.take(batch)
    if collector.n_samples == 0:
        raise BudgetExceededError(f"nothing that job {job_id} has drawn is stored yet; ask again in a moment")
    sweeps = batches[-1].next_sweep - 1
    return _result(
        prepared,
        collector,
        (collector.packed(), collector.energies(), collector.last_state()),
        sweeps=sweeps,
        stopped_by="cancel",
        energy=modelled_energy(driver.spec, prepared_operations(prepared, sweeps, collector.n_samples)),
        timing={"queue": 0.0, "program": 0.0, "sample": seconds, "read": 0.0, "total": seconds},
        driver=driver,
        job_id=job_id,
        address=address,
        spec_hash=spec_hash,
    )


def _result(
    prepared: Prepared,
    collector: _Collector,
    parts: tuple[NDArray[np.unsignedinteger] | None, NDArray[np.float64] | None, NDArray[np.unsignedinteger]],
    *,
    sweeps: int,
    stopped_by: StopReason | None,
    energy: EnergyReport,
    timing: dict[str, float],
    driver: Driver,
    job_id: str,
    address: str,
    spec_hash: str,
) -> SampleSet:
    """The result of what a collector took."""
    request, run = prepared.request, prepared.run
    packed, energies, last = parts
    at_one = isinstance(request.schedule, SamplingSchedule | AsynchronousSchedule)
    return SampleSet(
        model=request.model,
        n_chains=request.schedule.n_chains,
        n_samples=collector.n_samples,
        packed=packed,
        last_packed=last,
        moments=collector.moments if "moments" in request.observe else None,
        fields=request.fields,
        clamped=None if request.clamp is None else request.clamp != request.free_value,
        timing=timing,
        energy_report=energy,
        resident=collector.resident,
        provenance=Provenance(
            address=address,
            device=driver.spec.name,
            spec_hash=spec_hash,
            job_id=job_id,
            seed=run.seed,
            request_key=request,
            program_key=prepared.program.key,
            contract_version=int(getattr(driver, "contract_version", 0)),
            beta=float(request.schedule.beta_table()[0]) if at_one else None,
            sweeps_per_sample=request.schedule.sweeps_per_sample,
            n_sweeps=sweeps,
            quantisation=prepared.quantisation,
            stopped_by=stopped_by,
            kernel=collector.facts,
            versions=software_versions(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            embedding=collector.embedding_facts(),
        ),
        program=None if prepared.embedding is not None else prepared.program,
        held_steps=run.fields,
        stored_energies=energies,
        exchanges=collector.exchanges(),
        population=collector.population(),
        updates=collector.updates,
    )
