"""The user's device: it checks, queues and runs jobs, one at a time, in a thread of its own."""

from __future__ import annotations

import itertools
import os
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from numpy.typing import ArrayLike

from glauber.calibration.history import find_calibration
from glauber.calibration.record import CalibrationRecord
from glauber.compile import derive_seed
from glauber.driver import (
    Driver,
    EnergyCounter,
    Estimate,
    Estimating,
    Incumbent,
    JobService,
    Optimiser,
    OptimiseRequest,
    PartialResults,
    Wrap,
)
from glauber.energy import device_seconds, modelled_energy
from glauber.errors import (
    CalibrationError,
    DeviceClosedError,
    InvalidModelError,
    ModelNotSupportedError,
)
from glauber.execution import partial_result
from glauber.flash import FlashPlan, flash_plan
from glauber.following import Following
from glauber.job import Job, checked_timeout
from glauber.keeping import Keeper, without_seed
from glauber.model import Model
from glauber.outlook import Outlooks
from glauber.prepare import ProgramCache, needed_bytes, operations, prepare, prepared_operations
from glauber.registry import open_driver, parse_address
from glauber.request import Budget, Clamp, JobRequest, Observable, check_seed
from glauber.samples import SampleSet
from glauber.schedule import SamplingSchedule, Schedule
from glauber.spec import AnySpec
from glauber.store import JobStore, open_store
from glauber.worker import Worker

if TYPE_CHECKING:
    from glauber.calibration.run import Protocol


class Device:
    """A device that takes jobs; a context manager that drains its queue on a normal exit and cancels on an error.

    Jobs run one at a time, by priority and then in the order they came; with several owners, the one who has had least
    goes next. The same seed and program give the same samples on every device that is deterministic.

    Args:
        driver: the machine, or a service with a queue of its own. `open_device` finds it by address.
        address: for provenance and messages.
        seed: from which the seeds of jobs without one are derived; None takes the system's entropy.
        store: where jobs are kept: an open store, a file, or True for the default one. What a process that ended left
            there of this device's jobs is taken over at once. A service keeps its jobs itself, so it takes none.
        calibration: see use_calibration.

    Attributes:
        energy_counter: the machine's own counter of joules, or None.
        outlooks: how long jobs would take here, and when they would start.
    """

    def __init__(
        self,
        driver: Driver | JobService,
        *,
        address: str = "",
        seed: int | None = None,
        store: JobStore | str | Path | Literal[True] | None = None,
        calibration: CalibrationRecord | None = None,
    ) -> None:
        if calibration is not None:
            _check_calibration(driver, calibration)
        # asked once: checking a protocol takes longer than preparing a small job
        self._driver: Driver | JobService = driver
        self._estimator = driver if isinstance(driver, Estimating) else None
        self._partial_results = driver if isinstance(driver, PartialResults) else None
        self._optimiser = driver if isinstance(driver, Optimiser) else None
        self.energy_counter = driver if isinstance(driver, EnergyCounter) else None
        self.address = address or f"{driver.spec.name} (opened by hand)"
        checked = check_seed(seed)
        self.seed: int = secrets.randbits(64) if checked is None else checked
        self._cache = ProgramCache()
        self._numbers = itertools.count()
        self._is_closed = False
        self._process = os.getpid()  # a fork inherits the object but not its thread
        self._keeper: Keeper | None = None
        if store is not None and not isinstance(driver, JobService):
            owned = not isinstance(store, JobStore)
            self._keeper = Keeper(open_store(store), owned=owned, address=self.address, spec=driver.spec)
        self.outlooks = Outlooks(self.spec, lambda: self.waiting, self.store, without_seed(self.address))
        self._machine: Driver | None = None
        self._jobs: Worker | Following
        if isinstance(driver, JobService):
            self._jobs = Following(driver, self.address, self.seed, self._numbers)
        else:
            self._machine = driver
            prefix = f"{int(time.time()):x}-{secrets.token_hex(4)}"
            note = self.outlooks.note
            try:
                self._jobs = Worker(
                    driver, self.address, self.seed, self._numbers, prefix, self._cache, self._keeper, note, calibration
                )
            except BaseException:
                if self._keeper is not None:
                    self._keeper.close()
                raise
            self._jobs.start()

    @property
    def spec(self) -> AnySpec:
        """What the device is and can."""
        return self._driver.spec

    def __repr__(self) -> str:
        return f"Device({self.address})"

    # Submitting

    def submit(
        self,
        model: Model,
        schedule: Schedule | None = None,
        *,
        clamp: Clamp | None = None,
        fields: ArrayLike | None = None,
        initial: ArrayLike | None = None,
        observe: Collection[Observable] | Observable = "samples",
        seed: int | None = None,
        budget: Budget | None = None,
        priority: int = 0,
        on_overflow: Literal["error", "scale"] = "error",
        embed: bool = False,
        partial: bool = False,
        threads: int | None = None,
        isa: str | None = None,
        owner: str | None = None,
        idempotency_key: str | None = None,
        reuse: bool = False,
    ) -> Job:
        """Queue a job; returns at once. Arguments are those of JobRequest, which describes each.

        Raises:
            InvalidModelError: the request is wrong whatever the device.
            ModelNotSupportedError: this device cannot run it; every reason is listed.
            DeviceClosedError: the device takes no more jobs.
            StoreError: the job cannot be stored; then it is not queued.
        """
        arguments: dict[str, Any] = {
            "clamp": clamp,
            "fields": fields,
            "initial": initial,
            "observe": observe,
            "seed": seed,
            "budget": budget,
            "priority": priority,
            "on_overflow": on_overflow,
            "embed": embed,
            "partial": partial,
            "threads": threads,
            "isa": isa,
            "owner": owner,
            "idempotency_key": idempotency_key,
            "reuse": reuse,
        }
        schedule = SamplingSchedule() if schedule is None else schedule
        return self.submit_request(JobRequest(model, schedule, **arguments))

    def submit_request(self, request: JobRequest) -> Job:
        """Queue a request that was made, saved or received before; raises as `submit` does."""
        self._check_open()
        return self._jobs.submit(request)

    # Looking at the queue

    @property
    def store(self) -> JobStore | None:
        """Where jobs are kept, or None."""
        return None if self._keeper is None else self._keeper.store

    @property
    def queued(self) -> list[Job]:
        """The jobs that wait, about in the order in which they will start."""
        return self._jobs.queued

    @property
    def running(self) -> Job | None:
        """The job that runs now."""
        return self._jobs.running

    @property
    def waiting(self) -> list[Job]:
        """The running job and those that wait, about in the order in which they will start."""
        running = self.running
        return [*([] if running is None else [running]), *self.queued]

    def job(self, job_id: str) -> Job | None:
        """The job of this id if it is queued or running here; `glauber.get_job` finds stored ones too."""
        return self._jobs.job(job_id)

    @property
    def trouble(self) -> str | None:
        """Why the device takes no more jobs; None while it does."""
        try:
            self._check_open()
        except DeviceClosedError as error:
            return str(error)
        return None

    def partial_result(self, job_id: str) -> SampleSet:
        """What a job has drawn so far, as far as it is stored; of one that has ended, its result.

        Raises:
            InvalidModelError: the device has no store.
            JobNotFoundError: no such job, or it has ended without a result.
            BudgetExceededError: nothing is stored yet.
        """
        if self._partial_results is not None:
            return self._partial_results.partial_result(job_id)
        if self._keeper is None or self._machine is None:
            raise InvalidModelError(
                f"{self.address} stores no jobs; open it with store=True to look at partial results"
            )
        store = self._keeper.store
        record = store.get(job_id)
        if record.status.final:
            return store.result(job_id)
        request = store.request(job_id)
        batches, seconds = store.parts(job_id)
        return partial_result(
            prepare(request, self._machine, record.seed, self._cache, self.calibration),
            self._machine,
            batches,
            job_id=job_id,
            address=self.address,
            spec_hash=self.spec.spec_hash,
            seconds=seconds,
        )

    def hold(self, owner: str | None) -> None:
        """Reserve the device: only this owner's jobs start; None lets go.

        A job of another owner that runs goes back to the queue at its next batch, and later goes on where it was.

        Raises:
            InvalidModelError: without a store, what a job has drawn could not be kept.
        """
        if self._keeper is None or isinstance(self._jobs, Following):
            raise InvalidModelError(f"{self.address} stores no jobs, so none can make way; open it with store=True")
        self._jobs.hold(owner)

    def estimate(self, model: Model, schedule: Schedule | None = None, **arguments: Any) -> Estimate:
        """What a job would take; raises what `submit` would raise. Arguments as for `submit`."""
        return self.estimate_request(
            JobRequest(model, SamplingSchedule() if schedule is None else schedule, **arguments)
        )

    def estimate_request(self, request: JobRequest) -> Estimate:
        """What a request would take that was made, saved or received before."""
        self._check_open()
        if self._estimator is not None:
            return self._estimator.estimate(request)
        host_bytes, n_sweeps, n_samples = 0, request.schedule.n_sweeps, request.schedule.n_samples
        counted = operations(request, n_sweeps, n_samples)
        if self._machine is not None:
            prepared = prepare(request, self._machine, 0, self._cache, self.calibration)
            host_bytes = needed_bytes(request, self._machine, prepared.driven, prepared.loaded)
            counted = prepared_operations(prepared, n_sweeps, n_samples)
        outlook = self.outlooks.outlook(request)
        return Estimate(
            seconds=device_seconds(self.spec, counted),
            energy=modelled_energy(self.spec, counted),
            sweeps=counted.sweeps,
            updates=counted.updates,
            host_bytes=host_bytes,
            run_seconds=outlook.seconds,
            starts_in_seconds=outlook.starts_in,
            jobs_ahead=outlook.jobs_ahead,
        )

    def check_training(
        self,
        model: Model,
        schedule: Schedule | None = None,
        *,
        steps: int,
        seconds: float | None = None,
        **arguments: Any,
    ) -> FlashPlan:
        """What a training loop would take that sets new weights `steps` times and runs one such job on each.

        Args:
            model: of one step.
            schedule: of one step's job.
            steps: distinct weight settings.
            seconds: in which they are to be done; None for no limit.
            arguments: further ones of `submit`.

        Raises:
            ModelNotSupportedError: the described device cannot rewrite its weights, sample and read that fast; with the
                arithmetic. A simulator of it is not so slow, but then it is no simulator of that loop.
        """
        request = JobRequest(model, SamplingSchedule() if schedule is None else schedule, **arguments)
        self._check_open()
        counted = operations(request, request.schedule.n_sweeps, request.schedule.n_samples)
        if self._machine is not None:
            prepared = prepare(request, self._machine, 0, self._cache, self.calibration)
            counted = prepared_operations(prepared, request.schedule.n_sweeps, request.schedule.n_samples)
        plan = flash_plan(self.spec, counted, steps=steps, seconds=seconds)
        plan.require()
        return plan

    def derive_seed(self) -> int:
        """The seed of the next job or search that has none of its own; takes a number as a job does."""
        return derive_seed(self.seed, next(self._numbers))

    @property
    def optimises(self) -> bool:
        """Whether the device searches for low energies by itself; `glauber.solve` asks."""
        return self._optimiser is not None

    def optimise(self, request: OptimiseRequest) -> Iterator[Incumbent]:
        """The driver's own search, in the caller's thread; jobs wait until it has ended or its iterator is closed.

        Raises:
            ModelNotSupportedError: the device has none.
            DeviceClosedError: it was closed meanwhile.
        """
        self._check_open()
        if self._optimiser is None or isinstance(self._jobs, Following):
            raise ModelNotSupportedError(f"{self.address} has no optimiser of its own; glauber.solve anneals on it")
        return self._search(self._jobs, self._optimiser, request)

    def _search(self, worker: Worker, optimiser: Optimiser, request: OptimiseRequest) -> Iterator[Incumbent]:
        with worker.machine_for_a_search():
            for incumbent in optimiser.optimise(request):
                yield incumbent
                self._check_open()

    def _check_open(self) -> None:
        if os.getpid() != self._process:
            raise DeviceClosedError(f"{self.address} was opened in another process; open it in this one")
        death = self._jobs.death if isinstance(self._jobs, Worker) else None
        if death is not None:
            raise DeviceClosedError(f"the worker of {self.address} died of {death!r}; open the device again") from death
        if self._is_closed:
            raise DeviceClosedError(f"{self.address} is closed; open it again with glauber.open_device(...)")

    # Calibration

    @property
    def calibration(self) -> CalibrationRecord | None:
        """The record that corrects jobs, or None."""
        return self._jobs.calibration if isinstance(self._jobs, Worker) else None

    def use_calibration(self, record: CalibrationRecord | None) -> None:
        """Correct the weights and fields of all jobs submitted from now on; None takes jobs as they are again.

        What cannot be corrected is in each result's provenance: `result.provenance.kernel["correction"]`. Models that
        use p-bits which do not work are refused. Wrong readings stay in the samples: `glauber.calibration.distribution`
        takes them out of what is counted.

        Raises:
            CalibrationError: the record is of another device, or the device is a service, which has its own.
        """
        if record is not None:
            _check_calibration(self._driver, record)
        if isinstance(self._jobs, Worker):
            self._jobs.calibration = record

    def calibrate(
        self,
        protocols: Collection[Protocol] | None = None,
        *,
        shots: int = 20_000,
        budget: Budget | None = None,
        beta: float | None = None,
        n_sites: int | None = None,
        temperature_c: float | None = None,
        valid_hours: float | None = None,
        report: Callable[[float, str], None] | None = None,
    ) -> CalibrationRecord:
        """Measure what the device really does, through jobs of its own; corrections in use do not touch them.

        Args:
            protocols: of `glauber.calibration.PROTOCOLS`; None for all: memory, pbits, couplings, temperature, drift.
            shots: of each setting; uncertainties go with its inverse root.
            budget: its seconds end the calibration early, with what there is by then.
            beta: inverse temperature of the jobs; None for 1, or what the device can.
            n_sites: look at the first so many p-bits only.
            temperature_c: of the device, for the record.
            valid_hours: after which the record expires.
            report: called with (part done, name of the protocol) as it goes.

        Raises:
            CalibrationError: the device cannot be calibrated so; says why.
            InvalidModelError: a wrong argument.
            BudgetExceededError: nothing was done within the budget.
        """
        from glauber.calibration.run import run_protocols

        if budget is not None and (budget.sweeps, budget.joules, budget.ess) != (None, None, None):
            raise InvalidModelError("a calibration's budget is in seconds; shots= says how much is drawn")
        return run_protocols(
            _Uncorrected(self),
            protocols,
            shots=shots,
            beta=beta,
            seconds=None if budget is None else budget.seconds,
            n_sites=n_sites,
            temperature_c=temperature_c,
            valid_hours=valid_hours,
            report=report,
        )

    def _submit_raw(self, request: JobRequest) -> Job:
        self._check_open()
        return self._jobs.submit(request, raw=True) if isinstance(self._jobs, Worker) else self._jobs.submit(request)

    # Closing

    def close(self, *, drain: bool = False, requeue: bool = False, timeout: float | None = None) -> None:
        """Take no more jobs, and let go of the machine; may be called twice.

        Args:
            drain: run what is queued first; otherwise queued jobs are cancelled and the running one stops at its next
                batch.
            requeue: leave in the store what is queued, and what runs with all that it has drawn, for whoever opens the
                device next. A service keeps its jobs and goes on with them.
            timeout: seconds to wait at most for what still runs.

        Raises:
            InvalidModelError: called from a job's own callback, which would wait for itself; or timeout is no number;
                or requeue without a store, or with drain.
        """
        worker = self._jobs if isinstance(self._jobs, Worker) else None
        if requeue and (drain or (self._keeper is None and worker is not None)):
            raise InvalidModelError("requeue=True needs a store, and means the opposite of drain=True")
        if worker is not None:
            worker.check_caller()
        limit = checked_timeout(timeout)
        deadline = None if limit is None else time.monotonic() + limit

        def left() -> float | None:
            return None if deadline is None else max(0.0, min(deadline - time.monotonic(), threading.TIMEOUT_MAX))

        self._is_closed = True
        ended = self._jobs.close("drain" if drain else "requeue" if requeue else "cancel", left)
        self._driver.close()
        if self._keeper is not None and ended:
            self._keeper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(drain=error is None)


class _Uncorrected:
    """A device as calibration sees it: jobs reach it as they are."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.address = device.address

    @property
    def spec(self) -> AnySpec:
        """What it is."""
        return self._device.spec

    def submit(self, model: Model, schedule: Schedule, **arguments: Any) -> Job:
        """Queue a job."""
        return self._device._submit_raw(JobRequest(model, schedule, **arguments))


def _check_calibration(driver: Driver | JobService, record: CalibrationRecord) -> None:
    """Refuse a record that is of something else, or for a service."""
    if isinstance(driver, JobService):
        raise CalibrationError(
            f"{driver.spec.name} is behind a service, which applies its calibration itself; on a lab server it is"
            " `calibration` in devices.toml"
        )
    record.check_device(driver.spec)


def open_device(
    address: str,
    *,
    seed: int | None = None,
    wrap: Wrap | None = None,
    store: JobStore | str | Path | Literal[True] | None = None,
    calibration: CalibrationRecord | str | Path | None = None,
) -> Device:
    """Open a device by its address, such as `sim://pbit-king-64?seed=7`.

    Close it, or use it in a `with` block: its thread keeps it alive until then.

    Args:
        address: scheme://name?parameters; `seed` is understood by every scheme.
        seed: the device's seed; the same as in the address.
        wrap: middleware around the board's transport, such as a recorder or a fault injector of `glauber.testing`.
        store: keep the jobs on disk, so that they survive this process: an open `JobStore`, the path of one, or True
            for the default one.
        calibration: corrects the jobs, see Device.use_calibration: a record, the path of one, the id of one in the
            history, or "latest" for the one that is in force there for this address (none is no error).

    Raises:
        StoreError: the store cannot be opened.
        CalibrationError: no such calibration, or it is of another device.
        DeviceNotFoundError: no such scheme or name; close ones are suggested; or it has no transport to wrap.
    """
    parsed = parse_address(address)
    parameters = dict(parsed.parameters)
    text = parameters.pop("seed", None)
    if text is not None:
        if seed is not None:
            raise InvalidModelError(f"{address} has a seed, and seed={seed} was given beside it; keep one")
        if not (text.isascii() and text.isdigit()) or int(text) >= 2**64:
            raise InvalidModelError(f"seed={text} in {address} is not an integer from 0 to 2^64 - 1")
        seed = int(text)
    driver = open_driver(type(parsed)(parsed.scheme, parsed.name, parameters, address), wrap=wrap)
    try:
        record = calibration
        if isinstance(record, str | Path):
            record = find_calibration(record, address)
        return Device(driver, address=address, seed=seed, store=store, calibration=record)
    except BaseException:
        driver.close()
        raise
