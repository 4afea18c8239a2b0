"""Everything that is checked and compiled before a job exists: what is refused, is refused here."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from glauber.calibration.correct import Correction, check_sites, correct
from glauber.calibration.record import CalibrationRecord
from glauber.compile import (
    AnyProgram,
    Program,
    QuantisationReport,
    Run,
    check_fit,
    compile_program,
    make_run,
    misfits,
    pack_spins,
    step_of,
    weights_key,
)
from glauber.compile.quantise import with_fields
from glauber.driver import Driver
from glauber.embed import Embedding, default_strength, embed_model, find_embedding
from glauber.energy import Operations, modelled_energy
from glauber.errors import BudgetExceededError, InvalidModelError, ModelNotSupportedError
from glauber.flash import states_write_cost
from glauber.model import IsingModel, Model, PottsModel
from glauber.request import JobRequest
from glauber.schedule import (
    AnnealingSchedule,
    AsynchronousSchedule,
    PopulationSchedule,
    SamplingSchedule,
    TemperingSchedule,
)
from glauber.spec import AnySpec, Method
from glauber.topology import TopologyBase

StopReason = Literal["cancel", "seconds", "joules", "sweeps", "ess"]

REMEMBERED_GRAPHS = 1024
CHECKED_BYTES = 64 * 2**20
"""Below this no job is asked whether it fits into memory."""
MEMORY_SHARE = 0.9


class ProgramCache:
    """Programs by what they were compiled from, the last 32 of them, and which graphs fit the device."""

    def __init__(self) -> None:
        self._fitting: set[tuple[str, int]] = set()
        self._embeddings: dict[str, Embedding] = {}
        self._programs: OrderedDict[tuple[Any, ...], AnyProgram] = OrderedDict()
        self._weights: OrderedDict[str, str] = OrderedDict()  # by program key
        self._corrections: OrderedDict[tuple[Any, ...], Correction] = OrderedDict()
        self._lock = threading.Lock()

    def check_fit(self, model: Model, spec: AnySpec) -> None:
        """See compile.check_fit; a graph that was found to fit is not looked at again."""
        states = model.n_states if isinstance(model, PottsModel) else 2
        if (model.graph_key, states) not in self._fitting:
            check_fit(model, spec)
            if len(self._fitting) >= REMEMBERED_GRAPHS:
                self._fitting.clear()
            self._fitting.add((model.graph_key, states))

    def embed(self, model: IsingModel, topology: TopologyBase, avoid: tuple[int, ...] = ()) -> Embedding:
        """See find_embedding; a graph is placed once, always in the same way, with the strength of this model."""
        key = f"{model.graph_key} without {avoid}" if avoid else model.graph_key
        if key not in self._embeddings:
            found = find_embedding(model, topology, seed=int(model.graph_key[:7], 16), avoid=avoid)
            if len(self._embeddings) >= REMEMBERED_GRAPHS:
                self._embeddings.clear()
            self._embeddings[key] = found
        return replace(self._embeddings[key], strength=default_strength(model))

    def get(
        self, model: Model, spec: AnySpec, fold: float | None, on_overflow: str, fields: NDArray[np.float64] | None
    ) -> AnyProgram:
        """See step_of and compile_program."""
        step = None  # the job's fields can decide about the step; without any, model and device do
        if fields is not None:
            step = step_of(model, spec, fold=fold, on_overflow=on_overflow, job_fields=fields)
        key = (model.key, fold, on_overflow, step)
        with self._lock:
            if key in self._programs:
                self._programs.move_to_end(key)
                return self._programs[key]
        program = compile_program(model, step or step_of(model, spec, fold=fold, on_overflow=on_overflow))
        with self._lock:
            self._programs[key] = program
            while len(self._programs) > 32:
                self._programs.popitem(last=False)
        return program

    def correct(
        self,
        model: IsingModel,
        program: Program,
        record: CalibrationRecord,
        spec: AnySpec,
        fold: float | None,
        request: JobRequest,
        fields: NDArray[np.float64] | None,
    ) -> Correction:
        """See calibration.correct; that of a model without fields of the job's own is kept."""
        beta = float(request.schedule.beta_table()[-1])
        key = (program.key, record.id, request.schedule.beta_table().tobytes(), request.on_overflow)
        with self._lock:
            if fields is None and key in self._corrections:
                return self._corrections[key]
        step = step_of(model, spec, fold=fold, on_overflow=request.on_overflow, job_fields=fields)
        may_scale = request.on_overflow == "scale"
        table = request.schedule.beta_table()
        one_beta = bool((table == table[0]).all())
        made = correct(model, program, step, record, spec, beta, fields=fields, may_scale=may_scale, one_beta=one_beta)
        if fields is None:
            with self._lock:
                self._corrections[key] = made
                while len(self._corrections) > 32:
                    self._corrections.popitem(last=False)
        return made

    def weights(self, program: AnyProgram) -> str:
        """See weights_key; kept for the last 1024 programs."""
        with self._lock:
            known = self._weights.get(program.key)
        if known is None:
            known = weights_key(program)
            with self._lock:
                self._weights[program.key] = known
                while len(self._weights) > REMEMBERED_GRAPHS:
                    self._weights.popitem(last=False)
        return known


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that has passed every check, ready for a driver.

    Attributes:
        request: what was asked.
        program: what the driver is loaded with.
        run: what it runs.
        quantisation: what the integer step costs, the job's own fields included.
        embedding: how the model lies on the device, or None where it fits as it is.
        stopped_by: why the run is shorter than the schedule, if it is.
        weights: digest of what is loaded but for its fields, where the device states what writing weights costs; else
        "". corrected: what the device is given in place of program and run, so that with its flaws it does what they
        say;
            None without a calibration.
        facts: what the result's provenance should say of that.
    """

    request: JobRequest
    program: AnyProgram
    run: Run
    quantisation: QuantisationReport
    embedding: Embedding | None
    stopped_by: StopReason | None
    weights: str = ""
    corrected: tuple[AnyProgram, Run] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def loaded(self) -> AnyProgram:
        """The program that the driver gets."""
        return self.program if self.corrected is None else self.corrected[0]

    @property
    def driven(self) -> Run:
        """The run that the driver gets."""
        return self.run if self.corrected is None else self.corrected[1]

    def with_run(self, **changes: Any) -> Prepared:
        """The same job with another seed or length."""
        corrected = None
        if self.corrected is not None:
            corrected = self.corrected[0], replace(self.corrected[1], **changes)
        return replace(self, run=replace(self.run, **changes), corrected=corrected)


def prepare(
    request: JobRequest,
    driver: Driver,
    seed: int,
    cache: ProgramCache,
    calibration: CalibrationRecord | None = None,
    masked: Mapping[int, str] | None = None,
) -> Prepared:
    """Check a request against a device and compile it, corrected by what is known of the device.

    `masked` says why p-bits must not be used, by site; those that the calibration found broken come on top.

    Raises:
        ModelNotSupportedError: with every reason why the device cannot run it.
        InvalidModelError: it needs more memory than there is, or joules are budgeted that nobody published.
    """
    spec, schedule, model = driver.spec, request.schedule, request.model
    _check_capabilities(request, spec)
    fold = _check_temperature(request, spec)
    bad = {**(masked or {}), **({} if calibration is None else calibration.faults)}
    embedding = None
    places = request.embed and isinstance(model, IsingModel) and spec.topology is not None
    if places and (misfits(model, spec) or (bad and _uses(model, bad))):
        assert isinstance(model, IsingModel)
        assert spec.topology is not None
        if isinstance(schedule, PopulationSchedule):
            raise ModelNotSupportedError(
                "an embedded model's free energy is not the model's own; population annealing needs a device that takes"
                " the graph as it is, such as sim://ideal"
            )
        if isinstance(schedule, AsynchronousSchedule):
            raise ModelNotSupportedError(
                "an embedded model's spins are groups of p-bits, for which rates and delay mean something else;"
                " asynchronous p-bits need a device that takes the graph as it is, such as sim://ideal"
            )
        embedding = cache.embed(model, spec.topology, tuple(sorted(bad)))
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
    counts_samples = request.budget is not None and request.budget.ess is not None
    if "energies" in request.observe or counts_moments or counts_samples:
        observe.add("samples")
    if counts_moments:
        observe.remove("moments")
    arguments: dict[str, Any] = {
        "seed": seed,
        "clamp": clamp.astype(np.int8) if clamp is not None and isinstance(model, IsingModel) else clamp,
        "initial": packed,
        "observe": observe,
        "threads": request.threads,
        "isa": request.isa,
    }
    run = make_run(program, schedule, fields=fields, **arguments)
    if bad and isinstance(model, IsingModel):
        used = np.zeros(model.n_sites, dtype=bool)
        for own in (clamp, fields):
            used |= False if own is None else (own != 0).any(axis=0)
        check_sites(model, bad, used=used)
    corrected, facts = None, {}
    if calibration is not None and isinstance(program, Program) and isinstance(model, IsingModel):
        made = cache.correct(model, program, calibration, spec, fold, request, fields)
        _check_beta_range(request, spec, made.program)
        own = None if fields is None else made.fields(fields)
        corrected = made.program, make_run(made.program, schedule, fields=own, **arguments)
        facts = {"calibration": calibration.id, "correction": str(made.report)}
    elif calibration is not None:
        facts = {"calibration": f"{calibration.id}, which corrects p-bits only"}
    loaded, driven = (program, run) if corrected is None else corrected
    _check_memory(request, driver, driven, loaded)
    quantisation = program.quantisation
    if fields is not None and run.fields is not None:
        quantisation = with_fields(quantisation, fields, run.fields)
    weights = cache.weights(loaded) if states_write_cost(spec) else ""
    prepared = Prepared(request, program, run, quantisation, embedding, None, weights, corrected, facts)
    samples, stopped_by = _affordable(prepared, spec)
    if stopped_by is None:
        return prepared
    return replace(prepared.with_run(n_samples=samples), stopped_by=stopped_by)


def _uses(model: Model, sites: Mapping[int, str]) -> bool:
    """Whether a model has couplings or a field at one of some sites."""
    used = (model.fields != 0).reshape(model.n_sites, -1).any(axis=1)
    used[model.edges.ravel()] = True
    return any(used[site] for site in sites if site < model.n_sites)


def _check_capabilities(request: JobRequest, spec: AnySpec) -> None:
    """Refuse what the device can neither do nor be made to do without changing the law."""
    able = spec.capabilities
    if request.clamp is not None and not able.clamp:
        raise ModelNotSupportedError(
            f"{spec.name} cannot hold spins; leave the clamped sites out of the model and add their couplings to the"
            " fields of their neighbours"
        )
    if request.initial is not None and not able.initial:
        raise ModelNotSupportedError(
            f"{spec.name} draws its start itself and cannot be given one; leave initial out, and warm up for longer"
        )
    if request.fields is not None and len(request.fields) > 1 and not able.chain_fields:
        raise ModelNotSupportedError(
            f"{spec.name} has one set of fields for all chains; submit one job for each set of fields"
        )
    if isinstance(request.schedule, TemperingSchedule | PopulationSchedule | AsynchronousSchedule):
        _check_method(request, spec, request.schedule.kind)
    if isinstance(request.schedule, AnnealingSchedule) and request.schedule.dynamics == "metropolis":
        _check_method(request, spec, "metropolis")
    judged = request.budget is not None and request.budget.ess is not None
    if "samples" not in able.observables and (judged or request.observe != {"last"}):
        raise ModelNotSupportedError(
            f'{spec.name} returns the last state only; submit with observe={{"last"}}, and no ess budget'
        )


def _check_method(request: JobRequest, spec: AnySpec, method: Method) -> None:
    """Refuse a way of sampling that the device does not have."""
    if spec.capabilities.beta == "programmable" and method in spec.capabilities.methods:
        if isinstance(request.model, PottsModel):
            raise ModelNotSupportedError(
                f"{method} is for Ising models so far; a PottsModel runs by heat bath, under a SamplingSchedule or"
                " an AnnealingSchedule"
            )
        return
    have = ", ".join(spec.capabilities.methods) or "none beside sampling and annealing"
    beta = (
        f" (it has {have})" if spec.capabilities.beta == "programmable" else f": its beta is {spec.capabilities.beta}"
    )
    raise ModelNotSupportedError(
        f"{spec.name} cannot do {method}{beta}. Run a SamplingSchedule for each beta, or use another device;"
        " sim://ideal can"
    )


def _check_temperature(request: JobRequest, spec: AnySpec) -> float | None:
    """Beta to fold into the coefficients, or None; refuses schedules that the device has no way to follow."""
    schedule = request.schedule
    if not isinstance(schedule, AnnealingSchedule) and not spec.capabilities.sampler:
        raise ModelNotSupportedError(
            f"{spec.name} is an optimiser and states no temperature, so it cannot sample at"
            f" beta = {schedule.beta_table()[-1]:g}; use an AnnealingSchedule for low energies, or another device"
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
    betas = request.schedule.beta_table() / program.quantisation.scale
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


def operations(
    request: JobRequest, sweeps: int, samples: int, *, placed: Prepared | None = None, loads: int = 1, nodes: int = 0
) -> Operations:
    """What the described device would do: chains one after another, reads as asked.

    Sets of fields for each chain are written one after another, after the weights; one set for all is written with
    the weights, or counted in `nodes`.

    Args:
        request: the job.
        sweeps: sweeps per chain.
        samples: samples per chain.
        placed: the prepared job, where the model was embedded; its sites, couplings and clamps count then.
        loads: how often the weights are written.
        nodes: whose fields were rewritten though the weights were not.
    """
    n, chains, model = request.model.n_sites, request.schedule.n_chains, request.model
    clamp: NDArray[Any] | None = request.clamp
    fields, couplings = model.fields.size, model.couplings.size
    if placed is not None and placed.embedding is not None:
        n = sum(len(group) for group in placed.embedding.groups)
        clamp = placed.run.clamp
        fields, couplings = n, placed.program.n_edges
    held = 0 if clamp is None else int((clamp != request.free_value).sum())
    a_sweep: float = n if clamp is None else n - held / len(clamp)
    if isinstance(request.schedule, AsynchronousSchedule) and request.schedule.rates is not None:
        free = np.ones(n) if clamp is None else (clamp == request.free_value).mean(axis=0)
        a_sweep = float((free * request.schedule.rates).sum())
    sets = len(request.fields) if request.fields is not None and len(request.fields) > 1 else 0
    reads = chains * (samples if request.observe & {"samples", "energies", "moments"} else 1)
    bits = (model.n_states - 1).bit_length() if isinstance(model, PottsModel) else 1
    coefficients = loads * (fields + couplings) + sets * fields + nodes * (fields // n)
    return Operations(
        updates=round(a_sweep * sweeps * chains),
        sweeps=sweeps * chains,
        nodes_written=n * (loads + sets) + nodes,
        nodes_read=n * reads,
        reads=reads,
        samples=samples * chains,
        loads=loads,
        nodes_held=held,
        bytes_moved=4 * coefficients + reads * ((n * bits + 7) // 8),
    )


def prepared_operations(prepared: Prepared, sweeps: int, samples: int, *, loads: int = 1, nodes: int = 0) -> Operations:
    """What a prepared job makes the described device do, embedded or not."""
    return operations(prepared.request, sweeps, samples, placed=prepared, loads=loads, nodes=nodes)


def _affordable(prepared: Prepared, spec: AnySpec) -> tuple[int, StopReason | None]:
    """How many samples the budget's sweeps and joules allow, and which of the two ends the job early.

    Raises:
        BudgetExceededError: not even one.
        InvalidModelError: joules are budgeted, and nobody published any for this device.
    """
    schedule, budget = prepared.request.schedule, prepared.request.budget
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
        modelled = modelled_energy(spec, prepared_operations(prepared, sweeps, count)).joules
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
