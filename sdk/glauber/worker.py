"""A machine's queue and the thread that runs it, one job at a time; the counterpart of `following` for services."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import structlog

from glauber.calibration.history import CalibrationHistory
from glauber.calibration.record import CalibrationRecord
from glauber.compile import derive_seed
from glauber.driver import Driver, Metered
from glauber.errors import (
    DeviceClosedError,
    GlauberError,
    InvalidModelError,
    JobFailedError,
    StoreCorruptError,
    StoreError,
)
from glauber.execution import Requeued, Stop, execute
from glauber.job import Job, JobStatus
from glauber.keeping import POLL_SECONDS, Keeper, PartWriter
from glauber.meter import EnergyMeter
from glauber.prepare import Prepared, ProgramCache, prepare
from glauber.queueing import Entry, FairQueue
from glauber.request import JobRequest
from glauber.residency import Residency
from glauber.samples import SampleSet
from glauber.store import JobRecord
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

Closing = Literal["no", "drain", "cancel", "requeue"]
RETRY_SECONDS = (1.0, 60.0)
"""How soon jobs are taken up again after the store failed; the pause doubles."""


class Worker:
    """Runs a machine's jobs. Methods may be called from any thread.

    Args:
        machine: that runs them.
        address: of the device, for provenance and messages.
        seed: from which the seeds of jobs without one are derived.
        numbers: of the device's jobs and searches.
        prefix: of the jobs' ids.
        cache: of programs.
        keeper: the device's side of a store, or None.
        note: called with (seconds, sweeps x sites x chains) of each job that is done.
        meter: of the jobs' joules, in place of the machine's own.
        calibration: see Device.use_calibration.
    """

    def __init__(
        self,
        machine: Driver,
        address: str,
        seed: int,
        numbers: itertools.count[int],
        prefix: str,
        cache: ProgramCache,
        keeper: Keeper | None,
        note: Callable[[float, int], None],
        meter: EnergyMeter | None = None,
        calibration: CalibrationRecord | None = None,
    ) -> None:
        self.calibration = calibration
        self.masked: dict[int, str] = {}
        self._under: dict[str, str | None] = {}  # calibrations of jobs that were taken over, by their ids
        self.inspect: Callable[[SampleSet], None] | None = None  # called with each result, before its job is done
        self._machine, self._address, self._seed, self._numbers = machine, address, seed, numbers
        self._prefix, self._cache, self._keeper, self._note = prefix, cache, keeper, note
        own = machine.meter if isinstance(machine, Metered) else None
        self._meter = own if meter is None else meter
        self._meter_note = "" if meter is None or own is None else f"in place of the device's own {own.spec.name}"
        self._spec_hash = machine.spec.spec_hash
        self._resumable = machine.spec.capabilities.initial
        self._machine_lock = threading.Lock()  # held while a job or a search runs
        self._log = _log.bind(device=address)
        self._residency = Residency(machine.spec, lambda text: self._log.warning("reflash limit", detail=text))
        self._lock = threading.Condition()
        self._queue = FairQueue()
        self._jobs: dict[str, Job] = {}  # that are queued or running
        self._held_for: str | None = None
        self._closing: Closing = "no"
        self._running: Job | None = None
        self._stranded: set[str] = set()  # of whose end or beginning the store could not be told
        self._next_try, self._pause = 0.0, RETRY_SECONDS[0]
        self.death: BaseException | None = None
        if keeper is not None:
            self._take_over(list(keeper.orphans()))
        self._thread = threading.Thread(target=self._work, name=f"glauber {address}", daemon=True)

    def start(self) -> None:
        """Begin to run jobs."""
        self._thread.start()

    # The queue

    def submit(self, request: JobRequest, *, raw: bool = False) -> Job:
        """Check, store and queue a request; raises what `Device.submit` raises. Raw: without corrections."""
        calibration = None if raw else self.calibration
        masked = None if raw else self.masked
        prepared = prepare(request, self._machine, request.seed or 0, self._cache, calibration, masked)
        number = next(self._numbers)  # only now: a job that is refused takes no number, so it shifts no derived seed
        seed = request.seed
        if seed is None:
            seed = derive_seed(self._seed, number)
            prepared = prepared.with_run(seed=seed)
        job = Job(f"{self._prefix}-{number:06d}", request, seed, self.cancel)
        if self._keeper is not None:
            name = None if calibration is None else calibration.id
            kept_id = self._keeper.find(request, name) or self._keeper.add(job, prepared.loaded, name)
            if kept_id != job.id:
                return self.job(kept_id) or stored_job(self._keeper.store, kept_id)
        with self._lock:
            is_open = self._closing == "no" and self.death is None
            if is_open:
                self._jobs[job.id] = job
                self._queue.push((number, job, prepared))
                self._lock.notify()
        if not is_open:
            if self._keeper is not None:  # stored in the moment in which the device closed: nobody was promised it
                self._keeper.ended(job, JobStatus.CANCELLED)
            raise DeviceClosedError(
                f"{self._address} was closed meanwhile; open it again with glauber.open_device(...)"
            )
        if _standard_log.isEnabledFor(logging.DEBUG):  # structlog takes microseconds to find out that nobody listens
            self._log.debug("job queued", job=job.id, sites=request.model.n_sites, sweeps=request.schedule.n_sweeps)
        return job

    def _take_over(self, found: Sequence[tuple[JobRecord, JobRequest] | tuple[str, GlauberError]]) -> None:
        """Queue jobs that are in the store; they go before whatever comes now. Compiled when it is their turn."""
        assert self._keeper is not None
        for place, (job_or_id, request) in enumerate(found):
            if isinstance(job_or_id, str) or isinstance(request, GlauberError):
                self._log.warning("a stored job cannot run any more", job=job_or_id, error=repr(request))
                if isinstance(request, StoreCorruptError) and isinstance(job_or_id, str):
                    self._keeper.fail(job_or_id, request)
                elif isinstance(job_or_id, str):  # the store does not answer now
                    self._stranded.add(job_or_id)
                continue
            job = Job(job_or_id.id, replace(request, owner=job_or_id.owner), job_or_id.seed, self.cancel)
            job.advance(job_or_id.sweeps_done, job_or_id.samples_done)
            self._under[job.id] = job_or_id.calibration
            with self._lock:
                self._jobs[job.id] = job
                self._queue.push((place - len(found), job, None))
        if found:
            self._log.info("jobs taken over from the store", jobs=len(found))

    @property
    def queued(self) -> list[Job]:
        """The jobs that wait, about in the order in which they will start."""
        with self._lock:
            return list(self._queue)

    @property
    def running(self) -> Job | None:
        """The job that runs now."""
        return self._running

    def job(self, job_id: str) -> Job | None:
        """The job of this id if it is queued or running here."""
        return self._jobs.get(job_id)

    def cancel(self, job: Job) -> None:
        """A queued job ends at once; a running one at its next batch."""
        with self._lock:
            was_queued = self._queue.remove(job)
        if was_queued:
            self._end(job, JobStatus.CANCELLED)

    def hold(self, owner: str | None) -> None:
        """See Device.hold."""
        with self._lock:
            self._held_for = owner
            self._lock.notify_all()

    @contextmanager
    def machine_for_a_search(self) -> Iterator[None]:
        """Jobs wait meanwhile."""
        with self._machine_lock:
            self._residency.forget()  # a search may program the machine as it likes
            yield

    # The thread

    def _work(self) -> None:
        job: Job | None = None
        try:
            while True:
                entry = self._next()
                if entry is None:
                    return
                job = entry[1]
                began = time.perf_counter()
                again = self._run(job, entry[2])
                with self._lock:
                    self._running = None
                    self._queue.charge(job.owner, time.perf_counter() - began)
                    waits = again and self._closing in ("no", "drain") and not job.cancel_asked
                    if waits:
                        self._queue.push(entry)
                if again and not waits:  # it was cancelled, or the device closed, while it made way
                    self._drop(job)
                job = None
        except BaseException as error:
            self._bury(error, job)

    def _next(self) -> Entry | None:
        """Wait for the next job; None when the device closes."""
        while True:
            with self._lock:
                if self._closing in ("cancel", "requeue"):
                    return None
                only = None if self._closing == "drain" else self._held_for
                entry = self._queue.pop(only, weights=self._residency.weights)
                if entry is not None:
                    self._running = entry[1]
                    return entry
                if self._closing == "drain":
                    return None
                # jobs that wait for a reservation's end may be cancelled from another process meanwhile
                self._lock.wait(POLL_SECONDS if self._queue or self._stranded else None)
            self._hear_cancels()
            self._try_stranded()

    def _hear_cancels(self) -> None:
        for job_id in [] if self._keeper is None else self._keeper.cancels():
            job = self._jobs.get(job_id)
            if job is not None:
                job.ask_to_cancel()

    def _try_stranded(self) -> None:
        """Take up again what the store could not be told of, now that it may work."""
        if not self._stranded or self._keeper is None or time.monotonic() < self._next_try:
            return
        with self._lock:
            job_ids = tuple(self._stranded)
            self._stranded.clear()
        self._take_over(list(self._keeper.again(job_ids)))
        self._next_try = time.monotonic() + self._pause
        self._pause = min(RETRY_SECONDS[1], 2 * self._pause)

    def _strand(self, job: Job) -> None:
        with self._lock:
            self._stranded.add(job.id)
            self._next_try = time.monotonic() + self._pause
            self._lock.notify_all()  # the thread may sleep without an end

    def _stop_asked(self, job: Job) -> Stop | None:
        self._hear_cancels()
        if job.cancel_asked:
            return "cancel"
        held = self._held_for
        if self._closing == "requeue" or (self._closing == "no" and held is not None and job.owner != held):
            return "requeue"
        return None

    def _run(self, job: Job, prepared: Prepared | None) -> bool:
        """Run one job; what goes wrong in it ends the job, not the thread. Whether it is to run again later."""
        if job.cancel_asked:
            self._end(job, JobStatus.CANCELLED)
            return False
        queue_seconds = time.perf_counter() - job.submitted
        writer: PartWriter | None = None
        kept: dict[str, Any] = {}
        if self._keeper is not None:
            try:
                batches, seconds = self._keeper.begin(job, resumable=self._resumable)
            except GlauberError as error:  # as it was accepted, it stays: it runs when the store works again
                self._log.error("a job could not begin", job=job.id, error=repr(error))
                self._strand(job)
                self._finish(job, JobStatus.FAILED, error=error)
                return False
            writer = PartWriter(self._keeper.store, job.id, seconds)
            kept = {"earlier": batches, "earlier_seconds": seconds, "keep": writer.take}
        try:
            if prepared is None:  # taken over
                prepared = self._prepare_again(job)
            already = float(kept.get("earlier_seconds", 0.0))
            job.start(already)
            result = self._execute(job, prepared, max(0.0, queue_seconds - already), kept)
        except Requeued:
            assert self._keeper is not None
            assert writer is not None
            leaving = self._closing == "requeue"
            self._keeper.make_way(job, writer, leaving=leaving)
            if leaving:
                self._leave(job)
            else:
                job.wait_again()
            return not leaving
        except Exception as error:
            if job.cancel_asked and isinstance(error, GlauberError):
                self._end(job, JobStatus.CANCELLED)
            else:
                self._end(job, JobStatus.FAILED, error=error)
                self._log.warning("job failed", job=job.id, error=repr(error))
            return False
        if result.provenance.stopped_by == "cancel":
            self._end(job, JobStatus.CANCELLED, result if job.request.partial else None, spent=result)
        else:
            done = result.provenance.n_sweeps * job.request.model.n_sites * result.n_chains
            self._inspect(result)
            self._note(result.timing["total"] - result.timing["queue"], done)
            self._end(job, JobStatus.DONE, result)
        if _standard_log.isEnabledFor(logging.DEBUG):
            self._log.debug("job ended", job=job.id, status=job.status.value, seconds=result.timing["total"])
        return False

    def _execute(self, job: Job, prepared: Prepared, queue_seconds: float, kept: dict[str, Any]) -> SampleSet:
        with self._machine_lock:
            loading = self._residency.plan(prepared)
            try:
                result = execute(
                    prepared,
                    self._machine,
                    loading=loading,
                    job_id=job.id,
                    address=self._address,
                    spec_hash=self._spec_hash,
                    queue_seconds=queue_seconds,
                    report=job.advance,
                    stop_asked=lambda: self._stop_asked(job),
                    meter=self._meter,
                    meter_note=self._meter_note,
                    **kept,
                )
            except BaseException:
                self._residency.forget()  # a driver that fails while loading holds nothing for sure
                raise
            self._residency.ran(prepared, loading)
        return result

    def _prepare_again(self, job: Job) -> Prepared:
        """A job that was taken over, under the calibration it was submitted under: its first half may be drawn.

        Raises:
            CalibrationError: that calibration is neither in use nor in the history.
        """
        name = self._under.pop(job.id, None)
        if name is None:
            return prepare(job.request, self._machine, job.seed, self._cache)
        record = self.calibration
        if record is None or record.id != name:
            record = CalibrationHistory().get(name)
        return prepare(job.request, self._machine, job.seed, self._cache, record)

    def mask(self, sites: dict[int, str]) -> None:
        """Add p-bits that jobs must not use, with the reason."""
        with self._lock:
            self.masked = {**self.masked, **sites}

    def _inspect(self, result: SampleSet) -> None:
        """What looks at results may fail; the result stays good, and the thread goes on."""
        if self.inspect is not None:
            try:
                self.inspect(result)
            except Exception as error:
                self._log.error(
                    "the health of a job could not be told", job=result.provenance.job_id, error=repr(error)
                )

    # Ends

    def _finish(
        self, job: Job, status: Final, result: SampleSet | None = None, error: BaseException | None = None
    ) -> None:
        """The handle's end; nobody finds the job here any more."""
        self._jobs.pop(job.id, None)
        job.finish(status, result, error)

    def _end(
        self,
        job: Job,
        status: Final,
        result: SampleSet | None = None,
        error: BaseException | None = None,
        spent: SampleSet | None = None,
    ) -> None:
        """The job has ended: in the store first, so that who sees the end can rely on it."""
        if self._keeper is not None:
            failure = self._keeper.ended(job, status, result, error, spent)
            if failure is not None:
                self._log.error("the end of a job was not stored", job=job.id, error=repr(failure))
                if isinstance(failure, StoreError):
                    self._strand(job)
                status, result, error = JobStatus.FAILED, None, error or failure
            else:
                self._pause = RETRY_SECONDS[0]
        self._finish(job, status, result, error)

    def _leave(self, job: Job) -> None:
        """End the handle of a job that stays in the store."""
        why = DeviceClosedError(
            f"{self._address} was closed; job {job.id} stays in the store and goes on when the device is opened again:"
            " glauber.get_job(id) comes back to it"
        )
        self._finish(job, JobStatus.FAILED, error=why)

    def _drop(self, job: Job) -> None:
        """A job that waits and will not run here any more."""
        if self._closing == "requeue" and not job.cancel_asked:
            self._leave(job)
        else:
            self._end(job, JobStatus.CANCELLED)

    def _bury(self, error: BaseException, job: Job | None) -> None:
        """The thread is dying: fail its job and all that wait, and take no more."""
        with self._lock:
            self.death = error
            self._running = None
            waiting = self._queue.clear()  # a stored one stays in the store only if its end cannot be written
        self._log.error("worker died", error=repr(error))
        for each in ([] if job is None else [job]) + waiting:
            failure = JobFailedError(
                f"the worker of {self._address} died of {error!r}; open the device again and resubmit"
            )
            failure.__cause__ = error
            self._end(each, JobStatus.FAILED, error=failure)

    # Closing

    def check_caller(self) -> None:
        """Refuse to wait for oneself."""
        if threading.current_thread() is self._thread:
            raise InvalidModelError("close() was called in the device's own thread, which would wait for itself")

    def close(self, how: Literal["drain", "cancel", "requeue"], left: Callable[[], float | None]) -> bool:
        """See Device.close; whether the thread has ended within the time that `left` gives."""
        with self._lock:
            if self._closing in ("no", "drain"):
                self._closing = how
            dropped = [] if self._closing == "drain" else self._queue.clear()
            running = self._running
            self._lock.notify_all()
        for job in dropped:
            self._drop(job)
        if running is not None and self._closing == "cancel":
            running.ask_to_cancel()
        if self._thread.ident is not None:
            self._thread.join(left())
        return not self._thread.is_alive()
