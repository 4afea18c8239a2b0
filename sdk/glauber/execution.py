"""One job on one driver: fit, compile, run batch by batch, and put the result together.

No thread, no queue: `Device` has those. Everything that can be refused is refused in `prepare`, before a job exists.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from glauber.compile import (
    AnyProgram,
    Run,
    check_fit,
    compile_program,
    make_run,
    misfits,
    pack_spins,
    unpack_spins,
)
from glauber.driver import Batch, Driver
from glauber.embed import Embedding, embed_model, find_embedding
from glauber.energy import Operations, modelled_energy
from glauber.errors import BudgetExceededError, InvalidModelError, ModelNotSupportedError
from glauber.model import IsingModel, Model, PottsModel
from glauber.request import JobRequest
from glauber.samples import Moments, Provenance, SampleSet, field_change
from glauber.schedule import SamplingSchedule
from glauber.spec import AnySpec

StopReason = Literal["cancel", "seconds", "joules", "sweeps"]

CHECKED_BYTES = 64 * 2**20
"""Below this no job is asked whether it fits into memory."""
MEMORY_SHARE = 0.9


class ProgramCache:
    """Programs by what they were compiled from, the last 32 of them, and which graphs fit the device."""

    def __init__(self) -> None:
        self._fitting: set[tuple[str, int]] = set()
        self._programs: OrderedDict[tuple[Any, ...], AnyProgram] = OrderedDict()
        self._lock = threading.Lock()

    def check_fit(self, model: Model, spec: AnySpec) -> None:
        """See compile.check_fit; a graph that was found to fit is not looked at again."""
        states = model.n_states if isinstance(model, PottsModel) else 2
        if (model.graph_key, states) not in self._fitting:
            check_fit(model, spec)
            self._fitting.add((model.graph_key, states))

    def get(
        self, model: Model, spec: AnySpec, fold: float | None, on_overflow: str, fields: NDArray[np.float64] | None
    ) -> AnyProgram:
        """See compile_program."""
        largest = 0.0 if fields is None or model.n_edges else float(np.abs(fields).max(initial=0.0))
        key = (model.key, fold, on_overflow, largest)
        with self._lock:
            if key in self._programs:
                self._programs.move_to_end(key)
                return self._programs[key]
        program = compile_program(model, spec, fold=fold, on_overflow=on_overflow, job_fields=fields)
        with self._lock:
            self._programs[key] = program
            while len(self._programs) > 32:
                self._programs.popitem(last=False)
        return program


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that has passed every check, ready for a driver.

    Attributes:
        request: what was asked.
        program: what the driver is loaded with.
        run: what it runs.
        embedding: how the model lies on the device, or None where it fits as it is.
        stopped_by: why the run is shorter than the schedule, if it is.
    """

    request: JobRequest
    program: AnyProgram
    run: Run
    embedding: Embedding | None
    stopped_by: StopReason | None


def prepare(request: JobRequest, driver: Driver, seed: int, cache: ProgramCache) -> Prepared:
    """Check a request against a device and compile it.

    Raises:
        ModelNotSupportedError: with every reason why the device cannot run it.
        InvalidModelError: it needs more memory than there is, or joules are budgeted that nobody published.
    """
    spec, schedule, model = driver.spec, request.schedule, request.model
    _check_capabilities(request, spec)
    fold = _check_temperature(request, spec)
    samples, stopped_by = _affordable(request, spec)
    embedding = None
    if request.embed and isinstance(model, IsingModel) and spec.topology is not None and misfits(model, spec):
        embedding = find_embedding(model, spec.topology, seed=seed)
        model = embed_model(model, embedding, spec.topology)
    else:
        cache.check_fit(model, spec)
    fields, clamp, initial = request.fields, request.clamp, request.initial
    if embedding is not None:
        fields = None if fields is None else embedding.spread(fields, 0, divide=True)
        clamp = None if clamp is None else embedding.spread(clamp, 0)
        initial = None if initial is None else embedding.spread(initial, 1)
    program = cache.get(model, spec, fold, request.on_overflow, fields)
    _check_beta_range(request, spec, program)
    packed = None
    if initial is not None:
        wide = np.broadcast_to(initial, (schedule.n_chains, model.n_sites))
        packed = pack_spins(wide.astype(np.int8)) if isinstance(model, IsingModel) else wide.astype(np.uint32)
    observe = set(request.observe) - {"energies"}
    counts_moments = "moments" in observe and (embedding is not None or "moments" not in spec.capabilities.observables)
    if "energies" in request.observe or counts_moments:
        observe.add("samples")
    if counts_moments:
        observe.remove("moments")
    run = make_run(
        program,
        schedule,
        seed=seed,
        fields=fields,
        clamp=clamp.astype(np.int8) if clamp is not None and isinstance(model, IsingModel) else clamp,
        initial=packed,
        observe=observe,
        threads=request.threads,
        isa=request.isa,
    )
    _check_memory(request, driver, run, program)
    if samples != run.n_samples:
        run = replace(run, n_samples=samples)
    return Prepared(request, program, run, embedding, stopped_by)


def _check_capabilities(request: JobRequest, spec: AnySpec) -> None:
    """Refuse what the device can neither do nor be made to do without changing the law."""
    able = spec.capabilities
    if request.clamp is not None and not able.clamp:
        raise ModelNotSupportedError(
            f"{spec.name} cannot hold spins; leave the clamped sites out of the model and add their couplings to the"
            " fields of their neighbours"
        )
    if request.fields is not None and len(request.fields) > 1 and not able.chain_fields:
        raise ModelNotSupportedError(
            f"{spec.name} has one set of fields for all chains; submit one job for each set of fields"
        )
    if "samples" not in able.observables and request.observe != {"last"}:
        raise ModelNotSupportedError(f'{spec.name} returns the last state only; submit with observe={{"last"}}')


def _check_temperature(request: JobRequest, spec: AnySpec) -> float | None:
    """Beta to fold into the coefficients, or None; refuses schedules that the device has no way to follow."""
    schedule = request.schedule
    if isinstance(schedule, SamplingSchedule) and not spec.capabilities.sampler:
        raise ModelNotSupportedError(
            f"{spec.name} is an optimiser and states no temperature, so it cannot sample at beta = {schedule.beta:g};"
            " use an AnnealingSchedule for low energies, or another device"
        )
    if spec.capabilities.beta != "folded":
        return None
    if not isinstance(schedule, SamplingSchedule):
        raise ModelNotSupportedError(
            f"{spec.name} takes beta by scaling its coefficients, so beta cannot change during a run; use a"
            " SamplingSchedule, one job per temperature"
        )
    if schedule.beta == 0:
        raise ModelNotSupportedError(f"{spec.name} takes beta by scaling its coefficients; beta must be above 0")
    return schedule.beta


def _check_beta_range(request: JobRequest, spec: AnySpec, program: AnyProgram) -> None:
    if spec.capabilities.beta != "programmable" or spec.capabilities.beta_range is None:
        return
    low, high = spec.capabilities.beta_range
    betas = request.schedule.betas() / program.quantisation.scale
    outside = betas[(betas < low) | (betas > high * (1 + 1e-12))]
    if outside.size:
        scaled = "" if program.quantisation.scale == 1 else f" (after scaling by {program.quantisation.scale:.4g})"
        raise ModelNotSupportedError(
            f"beta = {outside[0]:g}{scaled} is out of the range of {spec.name}, {low:g} to {high:g}; scale the model"
        )


def available_bytes() -> int:
    """Memory that can be had without swapping, in bytes."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def needed_bytes(request: JobRequest, driver: Driver, run: Run, program: AnyProgram) -> int:
    """Host memory of a job: what the driver works with, and what is kept."""
    per_state = (program.n_sites + 7) // 8 if isinstance(request.model, IsingModel) else 4 * program.n_sites
    states = request.schedule.n_chains * (request.schedule.n_samples + 2)
    kept = states * per_state if "samples" in request.observe else 2 * request.schedule.n_chains * per_state
    energies = 8 * states if "energies" in request.observe else 0
    return driver.admit(run, program) + 2 * kept + energies


def _check_memory(request: JobRequest, driver: Driver, run: Run, program: AnyProgram) -> None:
    needed = needed_bytes(request, driver, run, program)
    if needed < CHECKED_BYTES:
        return
    available = available_bytes()
    if needed > MEMORY_SHARE * available:
        raise InvalidModelError(
            f"{request.schedule.n_chains} chains x {request.schedule.n_samples} samples x {program.n_sites} sites need"
            f" about {needed / 2**30:.1f} GiB, and {available / 2**30:.1f} GiB are free; take fewer chains or samples,"
            ' or observe={"moments"} or {"last"}'
        )


def _operations(request: JobRequest, sweeps: int, samples: int) -> Operations:
    """What the described device would do: chains one after another, one load of the weights, reads as asked."""
    n, chains = request.model.n_sites, request.schedule.n_chains
    free = n if request.clamp is None else float((request.clamp == request.free_value).sum(axis=1).mean())
    per_chain_writes = request.fields is not None and len(request.fields) > 1
    reads = chains * (samples if request.observe & {"samples", "energies", "moments"} else 1)
    return Operations(
        updates=round(free * sweeps * chains),
        sweeps=sweeps * chains,
        nodes_written=n * (1 + chains * per_chain_writes),
        nodes_read=n * reads,
        reads=reads,
        samples=samples * chains,
    )


def operations_of(request: JobRequest) -> Operations:
    """What a request makes the described device do if it runs to its end."""
    return _operations(request, request.schedule.n_sweeps, request.schedule.n_samples)


class _Collector:
    """Takes batches as they come and keeps what was asked for."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self._request = prepared.request
        self._samples: list[NDArray[np.unsignedinteger]] = []
        self._energies: list[NDArray[np.float64]] = []
        self._broken: list[tuple[float, int]] = []
        self._counted: Moments | None = None
        self.last: NDArray[np.unsignedinteger] | None = None
        self.moments: Moments | None = None
        self.n_samples = 0
        self.facts: dict[str, str] = {}

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
        self.last = batch.state
        if batch.samples is None or not batch.n_samples:
            return
        packed = self._read(batch.samples)
        if "samples" in request.observe:
            self._samples.append(packed)
        count_moments = "moments" in request.observe and "moments" not in self._prepared.run.observe
        if not count_moments and not ("energies" in request.observe and "samples" not in request.observe):
            return
        ising = isinstance(model, IsingModel)
        states = unpack_spins(packed.astype(np.uint8, copy=False), model.n_sites) if ising else packed
        if "energies" in request.observe:
            energies = model.energies(states)
            self._energies.append(
                energies if request.fields is None else energies + field_change(model, request.fields, states)
            )
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
def _versions() -> dict[str, str]:
    return {"glauber": version("glauber"), "numpy": np.__version__, "python": platform.python_version()}


def execute(
    prepared: Prepared,
    driver: Driver,
    *,
    load: bool,
    job_id: str,
    address: str,
    spec_hash: str,
    queue_seconds: float,
    report: Callable[[int, int], None],
    stop_asked: Callable[[], bool],
) -> SampleSet:
    """Run a prepared job to its end, its budget's, or until stop_asked() says so.

    Args:
        prepared: the job.
        driver: the machine.
        load: whether the program must be loaded; False where it still is from the job before.
        job_id: for the provenance.
        address: for the provenance.
        spec_hash: for the provenance; serialising a spec takes longer than a small job, so it is not done here.
        queue_seconds: how long the job waited.
        report: called with (sweeps done, samples done) after each batch.
        stop_asked: asked after each batch.

    Raises:
        BudgetExceededError: the budget, or the cancellation, left no sample.
    """
    request, run, spec = prepared.request, prepared.run, driver.spec
    began = time.perf_counter()
    if load:
        driver.program(prepared.program)
    programmed = time.perf_counter()
    collector = _Collector(prepared)
    reading, sweeps = 0.0, run.first_sweep - 1
    stopped_by = prepared.stopped_by
    seconds = None if request.budget is None else request.budget.seconds
    batches = driver.run(run)
    try:
        for batch in batches:
            arrived = time.perf_counter()
            collector.take(batch)
            sweeps = batch.next_sweep - 1
            report(sweeps, collector.n_samples)
            reading += time.perf_counter() - arrived
            if sweeps >= run.n_sweeps:
                break
            if stop_asked():
                stopped_by = "cancel"
                break
            if seconds is not None and time.perf_counter() - programmed >= seconds:
                stopped_by = "seconds"
                break
    finally:
        close = getattr(batches, "close", None)
        if close is not None:
            close()
    if collector.n_samples == 0:
        reason = {"cancel": "cancelled", None: "ended by the device"}.get(
            stopped_by, f"stopped by its {stopped_by} budget"
        )
        raise BudgetExceededError(
            f"job {job_id} was {reason} after {sweeps} of {run.n_sweeps} sweeps, before its first sample; allow more"
            " or warm up less"
        )
    finishing = time.perf_counter()
    packed, energies, last = collector.packed(), collector.energies(), collector.last_state()
    ended = time.perf_counter()
    reading += ended - finishing
    operations = _operations(request, sweeps, collector.n_samples)
    clamped = None if request.clamp is None else request.clamp != request.free_value
    beta = request.schedule.beta if isinstance(request.schedule, SamplingSchedule) else None
    return SampleSet(
        model=request.model,
        n_chains=request.schedule.n_chains,
        n_samples=collector.n_samples,
        packed=packed,
        last_packed=last,
        moments=collector.moments if "moments" in request.observe else None,
        fields=request.fields,
        clamped=clamped,
        timing={
            "queue": queue_seconds,
            "program": programmed - began,
            "sample": ended - programmed - reading,
            "read": reading,
            "total": queue_seconds + ended - began,
        },
        energy_report=modelled_energy(spec, operations),
        provenance=Provenance(
            address=address,
            device=spec.name,
            spec_hash=spec_hash,
            job_id=job_id,
            seed=run.seed,
            request_key=request.key,
            program_key=prepared.program.key,
            contract_version=int(getattr(driver, "contract_version", 0)),
            beta=beta,
            sweeps_per_sample=request.schedule.sweeps_per_sample,
            n_sweeps=sweeps,
            quantisation=prepared.program.quantisation,
            stopped_by=stopped_by,
            kernel=collector.facts,
            versions=_versions(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            embedding=collector.embedding_facts(),
        ),
        program=None if prepared.embedding is not None else prepared.program,
        stored_energies=energies,
    )


def _affordable(request: JobRequest, spec: AnySpec) -> tuple[int, StopReason | None]:
    """How many samples the budget's sweeps and joules allow, and which of the two ends the job early.

    Raises:
        BudgetExceededError: not even one.
        InvalidModelError: joules are budgeted, and nobody published any for this device.
    """
    schedule, budget = request.schedule, request.budget
    samples = schedule.n_samples
    reason: StopReason | None = None
    if budget is not None and budget.sweeps is not None:
        allowed = (budget.sweeps - schedule.n_warmup) // schedule.sweeps_per_sample
        if allowed < samples:
            samples, reason = allowed, "sweeps"
    if budget is None or budget.joules is None:
        return samples, reason

    def joules(count: int) -> float:
        sweeps = schedule.n_warmup + count * schedule.sweeps_per_sample
        modelled = modelled_energy(spec, _operations(request, sweeps, count)).joules
        if modelled is None:
            raise InvalidModelError(f"a budget in joules needs energy figures, and none is published for {spec.name}")
        return modelled

    if joules(samples) <= budget.joules:
        return samples, reason
    if joules(1) > budget.joules:
        raise BudgetExceededError(f"the first sample takes {joules(1):.3g} J, the budget is {budget.joules:g} J")
    enough, too_many = 1, samples
    while too_many - enough > 1:
        middle = (enough + too_many) // 2
        enough, too_many = (middle, too_many) if joules(middle) <= budget.joules else (enough, middle)
    return enough, "joules"
