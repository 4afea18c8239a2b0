"""The user's device: it checks, queues and runs jobs, one at a time, in a thread of its own."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import secrets
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal, Self

import structlog
from numpy.typing import ArrayLike

from glauber.compile import derive_seed
from glauber.driver import Driver, EnergyCounter, Incumbent, JobService, Metered, Optimiser, OptimiseRequest, Wrap
from glauber.energy import EnergyReport, device_seconds, modelled_energy
from glauber.errors import (
    DeviceClosedError,
    DeviceIOError,
    GlauberError,
    InvalidModelError,
    JobFailedError,
    ModelNotSupportedError,
)
from glauber.execution import execute
from glauber.job import Job, JobStatus, checked_timeout
from glauber.model import Model
from glauber.prepare import Prepared, ProgramCache, needed_bytes, operations, prepare, prepared_operations
from glauber.registry import open_driver, parse_address
from glauber.request import Budget, Clamp, JobRequest, Observable, check_seed
from glauber.schedule import SamplingSchedule, Schedule
from glauber.spec import AnySpec, Quantity

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


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a job would take, before it runs.

    Attributes:
        seconds: on the described device itself (for a simulator: on the machine it simulates); None where no rate is
            published.
        energy: joules by the device's figures.
        sweeps: sweeps, over all chains.
        updates: p-bit updates.
        host_bytes: memory of this computer.
    """

    seconds: Quantity | None
    energy: EnergyReport
    sweeps: int
    updates: int
    host_bytes: int


class Device:
    """A device that takes jobs; a context manager that drains its queue on a normal exit and cancels on an error.

    Jobs run one at a time, by priority and then in the order they came. The same seed and program give the same
    samples on every device that is deterministic.

    Args:
        driver: the machine, or a service with a queue of its own. `open_device` finds it by address.
        address: for provenance and messages.
        seed: from which the seeds of jobs without one are derived; None takes the system's entropy.

    Attributes:
        energy_counter: the machine's own counter of joules, or None.
    """

    def __init__(self, driver: Driver | JobService, *, address: str = "", seed: int | None = None) -> None:
        # asked once: checking a protocol takes longer than preparing a small job
        self._driver: Driver | JobService = driver
        self._service = driver if isinstance(driver, JobService) else None
        self._machine = None if isinstance(driver, JobService) else driver
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
        self._queue: list[tuple[int, int, Job, Prepared]] = []
        self._loaded: str | None = None
        self._closing: Literal["no", "drain", "cancel"] = "no"
        self._death: BaseException | None = None
        self._running: Job | None = None
        self._followers: dict[str, tuple[Job, str]] = {}
        self._log = _log.bind(device=self.address)
        self._process = os.getpid()  # a fork inherits the object but not its thread
        self._worker: threading.Thread | None = None
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
        if self._machine is None:
            return self._hand_over(f"{self._prefix}-{next(self._numbers):06d}", request)
        prepared = prepare(request, self._machine, request.seed or 0, self._cache)
        number = next(self._numbers)  # only now: a job that is refused takes no number, so it shifts no derived seed
        seed = request.seed
        if seed is None:
            seed = derive_seed(self.seed, number)
            prepared = replace(prepared, run=replace(prepared.run, seed=seed))
        job_id = f"{self._prefix}-{number:06d}"
        job = Job(job_id, request, seed, self._cancel)
        with self._lock:
            self._check_open()
            heapq.heappush(self._queue, (-request.priority, number, job, prepared))
            self._lock.notify()
        if _standard_log.isEnabledFor(logging.DEBUG):  # structlog takes microseconds to find out that nobody listens
            self._log.debug("job queued", job=job_id, sites=request.model.n_sites, sweeps=request.schedule.n_sweeps)
        return job

    def estimate(self, model: Model, schedule: Schedule | None = None, **arguments: Any) -> Estimate:
        """What a job would take; raises what `submit` would raise. Arguments as for `submit`."""
        self._check_open()
        request = JobRequest(model, SamplingSchedule() if schedule is None else schedule, **arguments)
        host_bytes, n_sweeps, n_samples = 0, request.schedule.n_sweeps, request.schedule.n_samples
        counted = operations(request, n_sweeps, n_samples)
        if self._machine is not None:
            prepared = prepare(request, self._machine, 0, self._cache)
            host_bytes = needed_bytes(request, self._machine, prepared.run, prepared.program)
            counted = prepared_operations(prepared, n_sweeps, n_samples)
        return Estimate(
            seconds=device_seconds(self.spec, counted),
            energy=modelled_energy(self.spec, counted),
            sweeps=counted.sweeps,
            updates=counted.updates,
            host_bytes=host_bytes,
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
                with self._lock:
                    self._lock.wait_for(lambda: self._queue or self._closing != "no")
                    if not self._queue:
                        return
                    _, _, job, prepared = heapq.heappop(self._queue)
                    self._running = job
                self._run(job, prepared)
                self._running = job = None
        except BaseException as error:
            self._bury(error, job)

    def _run(self, job: Job, prepared: Prepared) -> None:
        """Run one job; what goes wrong in it ends the job, not the worker."""
        assert self._machine is not None
        if job.cancel_asked:
            job.finish(JobStatus.CANCELLED)
            return
        queue_seconds = time.perf_counter() - job.submitted
        job.start()
        try:
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
                    stop_asked=lambda: job.cancel_asked,
                    meter=self._meter,
                )
                self._loaded = key
        except Exception as error:
            if job.cancel_asked and isinstance(error, GlauberError):
                job.finish(JobStatus.CANCELLED)
            else:
                job.finish(JobStatus.FAILED, error=error)
                self._log.warning("job failed", job=job.id, error=repr(error))
            return
        if result.provenance.stopped_by == "cancel":
            job.finish(JobStatus.CANCELLED, result if job.request.partial else None)
        else:
            job.finish(JobStatus.DONE, result)
        if _standard_log.isEnabledFor(logging.DEBUG):
            self._log.debug("job ended", job=job.id, status=job.status.value, seconds=result.timing["total"])

    def _bury(self, error: BaseException, job: Job | None) -> None:
        """The worker is dying: fail its job and all that wait, and take no more."""
        with self._lock:
            self._death = error
            waiting = [entry[2] for entry in self._queue]
            self._queue.clear()
        self._log.error("worker died", error=repr(error))
        for each in ([] if job is None else [job]) + waiting:
            failure = JobFailedError(
                f"the worker of {self.address} died of {error!r}; open the device again and resubmit"
            )
            failure.__cause__ = error
            each.finish(JobStatus.FAILED, error=failure)

    def _cancel(self, job: Job) -> None:
        """A queued job ends at once; a running one at its next batch."""
        if self._service is not None:
            followed = self._followers.get(job.id)
            if followed is not None:
                self._service.cancel(followed[1])
            return
        with self._lock:
            left = [entry for entry in self._queue if entry[2] is not job]
            was_queued = len(left) < len(self._queue)
            if was_queued:
                self._queue = left
                heapq.heapify(self._queue)
        if was_queued:
            job.finish(JobStatus.CANCELLED)

    # Services with a queue of their own

    def _hand_over(self, job_id: str, request: JobRequest) -> Job:
        service = self._service
        assert service is not None
        remote_id = service.submit(request)
        job = Job(job_id, request, -1 if request.seed is None else request.seed, self._cancel)
        self._followers[job_id] = (job, remote_id)
        threading.Thread(target=self._follow, args=(service, job, remote_id), daemon=True).start()
        return job

    def _follow(self, service: JobService, job: Job, remote_id: str) -> None:
        """Mirror what the service reports of a job until it ends."""
        try:
            status = JobStatus.QUEUED
            for event in service.events(remote_id, after=-1):
                status = JobStatus(event.status)
                if status is JobStatus.RUNNING and job.status is JobStatus.QUEUED:
                    job.start()
                job.advance(event.sweeps_done, event.samples_done)
                if status is JobStatus.FAILED:
                    raise JobFailedError(f"job {remote_id} failed at {self.address}: {event.message}")
            if not status.final:
                raise DeviceIOError(f"{self.address} stopped reporting on job {remote_id} while it was {status.value}")
            keep = status is JobStatus.DONE or (status is JobStatus.CANCELLED and job.request.partial)
            result = service.result(remote_id) if keep else None
            job.finish(JobStatus.DONE if status is JobStatus.DONE else JobStatus.CANCELLED, result)
        except BaseException as error:
            job.finish(JobStatus.FAILED, error=error)
        finally:
            self._followers.pop(job.id, None)

    # Closing

    def close(self, *, drain: bool = False, timeout: float | None = None) -> None:
        """Take no more jobs, and let go of the machine; may be called twice.

        Args:
            drain: run what is queued first; otherwise queued jobs are cancelled and the running one stops at its next
                batch.
            timeout: seconds to wait at most for what still runs.

        Raises:
            InvalidModelError: called from a job's own callback, which would wait for itself, or timeout is no number.
        """
        if threading.current_thread() is self._worker:
            raise InvalidModelError("close() was called in the device's own thread, which would wait for itself")
        limit = checked_timeout(timeout)
        deadline = None if limit is None else time.monotonic() + limit

        def left() -> float | None:
            return None if deadline is None else max(0.0, min(deadline - time.monotonic(), threading.TIMEOUT_MAX))

        with self._lock:
            self._closing = "drain" if drain and self._closing != "cancel" else "cancel"
            dropped = [] if drain else [entry[2] for entry in self._queue]
            if not drain:
                self._queue.clear()
            running = self._running
            self._lock.notify_all()
        for job in dropped:
            job.finish(JobStatus.CANCELLED)
        followed = [job for job, _ in list(self._followers.values())]
        if not drain:
            for job in ([running] if running is not None else []) + followed:
                try:
                    job.ask_to_cancel()
                except GlauberError as error:  # a service that cannot be reached must not keep the rest open
                    self._log.warning("cancel failed", job=job.id, error=repr(error))
        if self._worker is not None:
            self._worker.join(left())
        for job in followed:
            job.wait(left())
        self._driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(drain=error is None)


def open_device(address: str, *, seed: int | None = None, wrap: Wrap | None = None) -> Device:
    """Open a device by its address, such as `sim://pbit-king-64?seed=7`.

    Close it, or use it in a `with` block: its thread keeps it alive until then.

    Args:
        address: scheme://name?parameters; `seed` is understood by every scheme.
        seed: the device's seed; the same as in the address.
        wrap: middleware around the board's transport, such as a recorder or a fault injector of `glauber.testing`.

    Raises:
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
    return Device(driver, address=address, seed=seed)
