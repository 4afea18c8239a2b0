"""The user's device: it checks, queues and runs jobs, one at a time, in a thread of its own."""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import structlog
from numpy.typing import ArrayLike

from glauber.compile import derive_seed
from glauber.driver import (
    Driver,
    EnergyCounter,
    Estimate,
    Estimating,
    Incumbent,
    JobService,
    Metered,
    Optimiser,
    OptimiseRequest,
    PartialResults,
    Wrap,
)
from glauber.energy import device_seconds, modelled_energy
from glauber.errors import (
    DeviceClosedError,
    GlauberError,
    InvalidModelError,
    JobFailedError,
    ModelNotSupportedError,
)
from glauber.execution import Requeued, Stop, execute, partial_result
from glauber.following import Following
from glauber.job import Job, JobStatus, checked_timeout
from glauber.keeping import POLL_SECONDS, Keeper, PartWriter, without_seed
from glauber.model import Model
from glauber.outlook import Outlooks
from glauber.prepare import Prepared, ProgramCache, needed_bytes, operations, prepare, prepared_operations
from glauber.queueing import Entry, FairQueue
from glauber.registry import open_driver, parse_address
from glauber.request import Budget, Clamp, JobRequest, Observable, check_seed
from glauber.samples import SampleSet
from glauber.schedule import SamplingSchedule, Schedule
from glauber.spec import AnySpec
from glauber.store import JobStore, open_store
from glauber.store.jobs import Final
from glauber.stored_job import stored_job

_standard_log = logging.getLogger("glauber")
_standard_log.addHandler(logging.NullHandler())
_log = structlog.wrap_logger(  # events go to the standard logger "glauber": silent until an application listens
    _standard_log,
    processors=[
        structlog.stdlib.filter_by_level,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.render_to_log_kwargs,
    ],
    wrapper_class=structlog.stdlib.BoundLogger,
)


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
    ) -> None:
        # asked once: checking a protocol takes longer than preparing a small job
        self._driver: Driver | JobService = driver
        self._machine = None if isinstance(driver, JobService) else driver
        self._estimator = driver if isinstance(driver, Estimating) else None
        self._partial_results = driver if isinstance(driver, PartialResults) else None
        self._optimiser = driver if isinstance(driver, Optimiser) else None
        self._meter = driver.meter if isinstance(driver, Metered) else None
        self.energy_counter = driver if isinstance(driver, EnergyCounter) else None
        self._machine_lock = threading.Lock()  # held while a job or a search runs
        self.address = address or f"{driver.spec.name} (opened by hand)"
        checked = check_seed(seed)
        self.seed: int = secrets.randbits(64) if checked is None else checked
        self._spec_hash = driver.spec.spec_hash
        self._cache = ProgramCache()
        self._numbers = itertools.count()
        self._prefix = f"{int(time.time()):x}-{secrets.token_hex(3)}"
        self._lock = threading.Condition()
        self._queue = FairQueue()
        self._jobs: dict[str, Job] = {}  # that are queued or running
        self._held_for: str | None = None
        self._loaded: str | None = None
        self._closing: Literal["no", "drain", "cancel", "requeue"] = "no"
        self._death: BaseException | None = None
        self._running: Job | None = None
        self._following: Following | None = None
        if isinstance(driver, JobService):
            self._following = Following(driver, self.address, self.seed, self._numbers)
        self._log = _log.bind(device=self.address)
        self._process = os.getpid()  # a fork inherits the object but not its thread
        self._worker: threading.Thread | None = None
        self._keeper: Keeper | None = None
        if self._machine is not None and store is not None:
            owned = not isinstance(store, JobStore)
            self._keeper = Keeper(open_store(store), owned=owned, address=self.address, spec=driver.spec)
            self._take_over(self._machine)
        self.outlooks = Outlooks(self.spec, lambda: self.waiting, self.store, without_seed(self.address))
        if self._machine is not None:
            self._worker = threading.Thread(target=self._work, name=f"glauber {self.address}", daemon=True)
            self._worker.start()

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
    ) -> Job:
        """Queue a job; returns at once. Arguments are those of JobRequest, which describes each.

        Raises:
            InvalidModelError: the request is wrong whatever the device.
            ModelNotSupportedError: this device cannot run it; every reason is listed.
            DeviceClosedError: the device takes no more jobs.
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
        }
        schedule = SamplingSchedule() if schedule is None else schedule
        return self.submit_request(JobRequest(model, schedule, **arguments))

    def submit_request(self, request: JobRequest) -> Job:
        """Queue a request that was made, saved or received before; raises as `submit` does."""
        self._check_open()
        if self._following is not None:
            return self._following.submit(request)
        assert self._machine is not None
        prepared = prepare(request, self._machine, request.seed or 0, self._cache)
        number = next(self._numbers)  # only now: a job that is refused takes no number, so it shifts no derived seed
        seed = request.seed
        if seed is None:
            seed = derive_seed(self.seed, number)
            prepared = replace(prepared, run=replace(prepared.run, seed=seed))
        job_id = f"{self._prefix}-{number:06d}"
        job = Job(job_id, request, seed, self._cancel)
        if self._keeper is not None:
            kept_id = self._keeper.find(request) or self._keeper.add(job, prepared.program)
            if kept_id != job_id:
                return self.job(kept_id) or stored_job(self._keeper.store, kept_id)
        with self._lock:
            self._check_open()
            self._jobs[job_id] = job
            self._queue.push((number, job, prepared))
            self._lock.notify()
        if _standard_log.isEnabledFor(logging.DEBUG):  # structlog takes microseconds to find out that nobody listens
            self._log.debug("job queued", job=job_id, sites=request.model.n_sites, sweeps=request.schedule.n_sweeps)
        return job

    def _take_over(self, machine: Driver) -> None:
        """Queue what an earlier process left in the store; it goes before whatever comes now."""
        assert self._keeper is not None
        found = list(self._keeper.orphans())
        for place, (record, request) in enumerate(found):
            try:
                if isinstance(request, GlauberError):
                    raise request
                prepared = prepare(request, machine, record.seed, self._cache)
            except GlauberError as error:
                self._log.warning("a stored job cannot run any more", job=record.id, error=repr(error))
                self._keeper.store.finish(record.id, JobStatus.FAILED, error=error)
                continue
            request = replace(request, owner=record.owner)
            job = Job(record.id, request, record.seed, self._cancel)
            self._jobs[job.id] = job
            self._queue.push((place - len(found), job, prepared))
        if found:
            self._log.info("jobs taken over from the store", jobs=len(found))

    # Looking at the queue

    @property
    def store(self) -> JobStore | None:
        """Where jobs are kept, or None."""
        return None if self._keeper is None else self._keeper.store

    @property
    def queued(self) -> list[Job]:
        """The jobs that wait, about in the order in which they will start."""
        with self._lock:
            return list(self._queue)

    @property
    def waiting(self) -> list[Job]:
        """The running job and those that wait, about in the order in which they will start."""
        if self._following is not None:
            return self._following.jobs
        running = self._running
        return [*([] if running is None else [running]), *self.queued]

    @property
    def running(self) -> Job | None:
        """The job that runs now."""
        return self._running

    def job(self, job_id: str) -> Job | None:
        """The job of this id if it is queued or running here; `glauber.get_job` finds stored ones too."""
        return self._jobs.get(job_id) if self._following is None else self._following.job(job_id)

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
            prepare(request, self._machine, record.seed, self._cache),
            self._machine,
            batches,
            job_id=job_id,
            address=self.address,
            spec_hash=self._spec_hash,
            seconds=seconds,
        )

    def hold(self, owner: str | None) -> None:
        """Reserve the device: only this owner's jobs start; None lets go.

        A job of another owner that runs goes back to the queue at its next batch, and later goes on where it was.

        Raises:
            InvalidModelError: without a store, what a job has drawn could not be kept.
        """
        if self._keeper is None:
            raise InvalidModelError(f"{self.address} stores no jobs, so none can make way; open it with store=True")
        with self._lock:
            self._held_for = owner
            self._lock.notify_all()

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
            prepared = prepare(request, self._machine, 0, self._cache)
            host_bytes = needed_bytes(request, self._machine, prepared.run, prepared.program)
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
        if self._optimiser is None:
            raise ModelNotSupportedError(f"{self.address} has no optimiser of its own; glauber.solve anneals on it")
        return self._search(self._optimiser, request)

    def _search(self, optimiser: Optimiser, request: OptimiseRequest) -> Iterator[Incumbent]:
        with self._machine_lock:
            self._loaded = None  # it may program the machine as it likes
            for incumbent in optimiser.optimise(request):
                yield incumbent
                self._check_open()

    def _check_open(self) -> None:
        if os.getpid() != self._process:
            raise DeviceClosedError(f"{self.address} was opened in another process; open it in this one")
        if self._death is not None:
            raise DeviceClosedError(
                f"the worker of {self.address} died of {self._death!r}; open the device again"
            ) from self._death
        if self._closing != "no":
            raise DeviceClosedError(f"{self.address} is closed; open it again with glauber.open_device(...)")

    # The worker

    def _work(self) -> None:
        job: Job | None = None
        try:
            while True:
                entry = self._next()
                if entry is None:
                    return
                number, job, prepared = entry
                began = time.perf_counter()
                again = self._run(job, prepared)
                self._running = None
                with self._lock:
                    self._queue.charge(job.owner, time.perf_counter() - began)
                    if again:
                        self._queue.push((number, job, prepared))
                    else:
                        self._jobs.pop(job.id, None)
                job = None
        except BaseException as error:
            self._bury(error, job)

    def _next(self) -> Entry | None:
        """Wait for the next job; None when the device closes."""
        while True:
            with self._lock:
                if self._closing in ("cancel", "requeue"):
                    return None
                entry = self._queue.pop(None if self._closing == "drain" else self._held_for)
                if entry is not None:
                    self._running = entry[1]
                    return entry
                if self._closing == "drain":
                    return None
                # jobs that wait for a reservation's end may be cancelled from another process meanwhile
                self._lock.wait(POLL_SECONDS if self._queue else None)
            self._hear_cancels()

    def _hear_cancels(self) -> None:
        for job_id in [] if self._keeper is None else self._keeper.cancels():
            job = self._jobs.get(job_id)
            if job is not None:
                job.ask_to_cancel()

    def _stop_asked(self, job: Job) -> Stop | None:
        self._hear_cancels()
        if job.cancel_asked:
            return "cancel"
        held = self._held_for
        if self._closing == "requeue" or (held is not None and job.owner != held):
            return "requeue"
        return None

    def _run(self, job: Job, prepared: Prepared) -> bool:
        """Run one job; what goes wrong in it ends the job, not the worker. Whether it is to run again later."""
        assert self._machine is not None
        if job.cancel_asked:
            self._end(job, JobStatus.CANCELLED)
            return False
        queue_seconds = time.perf_counter() - job.submitted
        writer: PartWriter | None = None
        kept: dict[str, Any] = {}
        if self._keeper is not None:
            try:
                batches, seconds = self._keeper.begin(job, resumable=self.spec.capabilities.initial)
            except GlauberError as error:  # as it was accepted, it stays: it runs when the store works again
                self._log.error("a job could not begin", job=job.id, error=repr(error))
                job.finish(JobStatus.FAILED, error=error)
                return False
            writer = PartWriter(self._keeper.store, job.id, seconds)
            kept = {"earlier": batches, "earlier_seconds": seconds, "keep": writer.take}
        try:
            job.start()
            with self._machine_lock:
                key = prepared.program.key
                load, self._loaded = (
                    key != self._loaded,
                    None,
                )  # a driver that fails while loading holds nothing for sure
                result = execute(
                    prepared,
                    self._machine,
                    load=load,
                    job_id=job.id,
                    address=self.address,
                    spec_hash=self._spec_hash,
                    queue_seconds=queue_seconds,
                    report=job.advance,
                    stop_asked=lambda: self._stop_asked(job),
                    meter=self._meter,
                    **kept,
                )
                self._loaded = key
        except Requeued:
            return self._requeue(job, writer)
        except Exception as error:
            if job.cancel_asked and isinstance(error, GlauberError):
                self._end(job, JobStatus.CANCELLED)
            else:
                self._end(job, JobStatus.FAILED, error=error)
                self._log.warning("job failed", job=job.id, error=repr(error))
            return False
        if result.provenance.stopped_by == "cancel":
            self._end(job, JobStatus.CANCELLED, result if job.request.partial else None)
        else:
            done = result.provenance.n_sweeps * job.request.model.n_sites * result.n_chains
            self.outlooks.note(result.timing["total"] - result.timing["queue"], done)
            self._end(job, JobStatus.DONE, result)
        if _standard_log.isEnabledFor(logging.DEBUG):
            self._log.debug("job ended", job=job.id, status=job.status.value, seconds=result.timing["total"])
        return False

    def _end(
        self, job: Job, status: Final, result: SampleSet | None = None, error: BaseException | None = None
    ) -> None:
        """The job has ended: in the store first, so that who sees the end can rely on it."""
        if self._keeper is not None:
            failure = self._keeper.ended(job, status, result, error)
            if failure is not None:
                self._log.error("the end of a job was not stored", job=job.id, error=repr(failure))
                job.finish(JobStatus.FAILED, error=error or failure)
                return
        job.finish(status, result, error)

    def _requeue(self, job: Job, writer: PartWriter | None) -> bool:
        """The running job makes way; whether it waits here for its turn."""
        assert self._keeper is not None
        assert writer is not None
        leaving = self._closing == "requeue"
        try:
            writer.flush()
            why = "the device was closed" if leaving else "the device was reserved"
            self._keeper.store.requeue(job.id, f"{why}; it goes on where it was", release=leaving)
        except GlauberError as error:
            self._log.warning("a job that made way goes on from an earlier part", job=job.id, error=repr(error))
        if leaving:
            self._leave(job)
            return False
        job.wait_again()
        return True

    def _leave(self, job: Job) -> None:
        """End the handle of a job that stays in the store."""
        job.finish(
            JobStatus.FAILED,
            error=DeviceClosedError(
                f"{self.address} was closed; job {job.id} stays in the store and goes on when the device is opened"
                " again: glauber.get_job(id) comes back to it"
            ),
        )

    def _bury(self, error: BaseException, job: Job | None) -> None:
        """The worker is dying: fail its job and all that wait, and take no more."""
        with self._lock:
            self._death = error
            waiting = self._queue.clear()
        self._log.error("worker died", error=repr(error))
        for each in ([] if job is None else [job]) + waiting:
            failure = JobFailedError(
                f"the worker of {self.address} died of {error!r}; open the device again and resubmit"
            )
            failure.__cause__ = error
            self._end(each, JobStatus.FAILED, error=failure)

    def _cancel(self, job: Job) -> None:
        """A queued job ends at once; a running one at its next batch."""
        with self._lock:
            was_queued = self._queue.remove(job)
            if was_queued:
                self._jobs.pop(job.id, None)
        if was_queued:
            self._end(job, JobStatus.CANCELLED)

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
        if requeue and (drain or (self._keeper is None and self._following is None)):
            raise InvalidModelError("requeue=True needs a store, and means the opposite of drain=True")
        if threading.current_thread() is self._worker:
            raise InvalidModelError("close() was called in the device's own thread, which would wait for itself")
        limit = checked_timeout(timeout)
        deadline = None if limit is None else time.monotonic() + limit

        def left() -> float | None:
            return None if deadline is None else max(0.0, min(deadline - time.monotonic(), threading.TIMEOUT_MAX))

        with self._lock:
            if self._closing in ("no", "drain"):
                self._closing = "drain" if drain else "requeue" if requeue else "cancel"
            dropped = [] if drain else self._queue.clear()
            running = self._running
            self._lock.notify_all()
        for job in dropped:
            self._jobs.pop(job.id, None)
            if self._closing == "requeue":
                self._leave(job)
            else:
                self._end(job, JobStatus.CANCELLED)
        if running is not None and not drain and not requeue:
            running.ask_to_cancel()
        if self._worker is not None:
            self._worker.join(left())
        if self._following is not None and not requeue:
            self._following.close(cancel=not drain, left=left)
        self._driver.close()
        if self._keeper is not None and (self._worker is None or not self._worker.is_alive()):
            self._keeper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(drain=error is None)


def open_device(
    address: str,
    *,
    seed: int | None = None,
    wrap: Wrap | None = None,
    store: JobStore | str | Path | Literal[True] | None = None,
) -> Device:
    """Open a device by its address, such as `sim://pbit-king-64?seed=7`.

    Close it, or use it in a `with` block: its thread keeps it alive until then.

    Args:
        address: scheme://name?parameters; `seed` is understood by every scheme.
        seed: the device's seed; the same as in the address.
        wrap: middleware around the board's transport, such as a recorder or a fault injector of `glauber.testing`.
        store: keep the jobs on disk, so that they survive this process: an open `JobStore`, the path of one, or True
            for the default one.

    Raises:
        StoreError: the store cannot be opened.
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
        return Device(driver, address=address, seed=seed, store=store)
    except BaseException:
        driver.close()
        raise
