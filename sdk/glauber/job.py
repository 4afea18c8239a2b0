"""The handle between submit and result, in the manner of concurrent.futures."""

from __future__ import annotations

import asyncio
import getpass
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from glauber.errors import GlauberError, InvalidModelError, JobCancelledError, JobFailedError, JobTimeoutError
from glauber.request import JobRequest
from glauber.samples import SampleSet

_log = logging.getLogger("glauber")


@lru_cache(maxsize=1)
def local_user() -> str:
    """Who runs this process: the owner of jobs that name none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in many containers
        return "nobody"


class JobStatus(Enum):
    """Where a job is; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Nothing more will happen to the job."""
        return self in (JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is.

    Attributes:
        status: of the job.
        sweeps_done: sweeps so far.
        sweeps_total: sweeps of the schedule.
        samples_done: samples per chain so far.
        samples_total: samples per chain of the schedule.
        seconds: that the job has run.
    """

    status: JobStatus
    sweeps_done: int
    sweeps_total: int
    samples_done: int
    samples_total: int
    seconds: float

    @property
    def fraction(self) -> float:
        """Share of the schedule's sweeps that are done, 0 to 1; below 1 at the end of a job that a budget stopped."""
        return self.sweeps_done / max(1, self.sweeps_total)


class Job:
    """A submitted job. All methods may be called from any thread; `await job` works in any event loop.

    Attributes:
        id: unique, sortable by time of submission on one device.
        request: everything the job is made of.
        seed: the seed it uses.
    """

    def __init__(self, job_id: str, request: JobRequest, seed: int, on_cancel: Callable[[Job], None]) -> None:
        self.id = job_id
        self.request = request
        self.seed = seed
        self.submitted = time.perf_counter()
        self._on_cancel = on_cancel
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        self._final = threading.Condition(lock)  # apart, so that progress does not wake who waits for the end
        self._status = JobStatus.QUEUED
        self._cancel_asked = False
        self._sweeps_done = 0
        self._samples_done = 0
        self._began: float | None = None
        self._ended: float | None = None
        self._paused: float | None = None
        self._result: SampleSet | None = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Job], None]] = []
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._version = 0

    # What the user sees

    @property
    def owner(self) -> str:
        """Whose job it is."""
        return self.request.owner or local_user()

    @property
    def status(self) -> JobStatus:
        """Where the job is now."""
        return self._status

    def done(self) -> bool:
        """Whether the status is final."""
        return self._status.final

    @property
    def progress(self) -> Progress:
        """How far the job is now."""
        with self._changed:
            return self._progress()

    def _progress(self) -> Progress:
        stopped = self._ended if self._ended is not None else self._paused
        end = time.perf_counter() if stopped is None else stopped
        schedule = self.request.schedule
        return Progress(
            self._status,
            self._sweeps_done,
            schedule.n_sweeps,
            self._samples_done,
            schedule.n_samples,
            0.0 if self._began is None else end - self._began,
        )

    def watch(self) -> Iterator[Progress]:
        """Progress as it changes; the last one has a final status. Reports that come faster than read are skipped."""
        seen = -1
        while True:
            with self._changed:
                while self._version <= seen:
                    self._changed.wait()
                seen = self._version
                progress = self._progress()
            yield progress
            if progress.status.final:
                return

    def result(self, timeout: float | None = None) -> SampleSet:
        """Wait for the result.

        Args:
            timeout: seconds to wait at most; None waits for ever.

        Raises:
            JobTimeoutError: it took longer; the job goes on.
            JobCancelledError: the job was cancelled and nothing was to be kept.
            GlauberError: the job failed with this error; JobFailedError if it was none of ours.
        """
        if not self.wait(timeout):
            sweeps = f"{self._sweeps_done} of {self.request.schedule.n_sweeps} sweeps"
            raise JobTimeoutError(
                f"job {self.id} is {self._status.value} after waiting {timeout:g} s ({sweeps}); it goes on:"
                " call result() again, or cancel()"
            )
        if self._result is not None:
            return self._result
        if self._status is JobStatus.CANCELLED:
            kept = (
                "nothing had been drawn yet"
                if self.request.partial
                else "submit with partial=True to keep what is drawn"
            )
            raise JobCancelledError(f"job {self.id} was cancelled; {kept}")
        if isinstance(self._error, GlauberError):
            raise self._error
        raise JobFailedError(f"job {self.id} failed: {self._error!r}") from self._error

    def exception(self) -> BaseException | None:
        """What made the job fail, None if it has not."""
        return self._error

    def cancel(self) -> None:
        """Stop the job: at once if it is queued, at the next batch if it runs.

        Raises:
            JobCancelledError: it was cancelled before, or has ended; `status` says which.
        """
        if not self.ask_to_cancel():
            if self._status.final:
                raise JobCancelledError(f"job {self.id} has ended ({self._status.value}); there is nothing to cancel")
            raise JobCancelledError(f"job {self.id} is being cancelled already; wait for it with result()")

    def ask_to_cancel(self) -> bool:
        """As `cancel`, but False instead of an error where there is nothing to cancel any more."""
        with self._changed:
            if self._status.final or self._cancel_asked:
                return False
            self._cancel_asked = True
        try:
            self._on_cancel(self)
        except BaseException:  # whoever runs it was not reached: it may be asked again
            self._cancel_asked = False
            raise
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job has ended; whether it has, after at most `timeout` seconds."""
        seconds = checked_timeout(timeout)
        with self._changed:
            return self._final.wait_for(lambda: self._status.final, seconds)

    def add_done_callback(self, callback: Callable[[Job], None]) -> None:
        """Call `callback(job)` when the job ends, in the device's thread; at once if it has ended."""
        with self._changed:
            if not self._status.final:
                self._callbacks.append(callback)
                return
        callback(self)

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback()` whenever status or progress change, until the function that this returns is called.

        It runs in the device's thread while the job is locked: it must return at once, raise nothing and not look at
        the job, only wake whoever does, as an event loop's call_soon_threadsafe.
        """
        with self._changed:
            self._listeners = (*self._listeners, callback)

        def stop() -> None:
            with self._changed:
                self._listeners = tuple(each for each in self._listeners if each is not callback)

        return stop

    def __await__(self) -> Generator[Any, None, SampleSet]:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not ended.done():
                ended.set_result(None)

        def on_done(_: Job) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(wake)

        self.add_done_callback(on_done)
        yield from ended
        return self.result(0)

    def __repr__(self) -> str:
        return f"Job({self.id}, {self._status.value})"

    # What the device calls

    @property
    def cancel_asked(self) -> bool:
        """Whether somebody wants it stopped."""
        return self._cancel_asked

    def start(self, already: float = 0.0) -> None:
        """The job begins to run, after so many seconds that it has run before."""
        with self._changed:
            self._status = JobStatus.RUNNING
            self._began = time.perf_counter() - already
            self._paused = None
            self._tell()

    def wait_again(self) -> None:
        """The job made way for others and waits."""
        with self._changed:
            self._status = JobStatus.QUEUED
            self._paused = time.perf_counter()
            self._tell()

    def advance(self, sweeps_done: int, samples_done: int) -> None:
        """The job has come this far."""
        with self._changed:
            self._sweeps_done, self._samples_done = sweeps_done, samples_done
            self._tell()

    def finish(
        self,
        status: Literal[JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED],
        result: SampleSet | None = None,
        error: BaseException | None = None,
    ) -> None:
        """The job has ended; the first call counts."""
        with self._changed:
            if self._status.final:
                return
            self._status, self._result, self._error = status, result, error
            self._ended = time.perf_counter()
            self._final.notify_all()
            callbacks, self._callbacks = self._callbacks, []
            self._tell()
        for callback in callbacks:
            try:
                callback(self)
            except Exception:  # as concurrent.futures does: a callback's mistake is its own
                _log.exception("a done-callback of job %s raised", self.id)

    def _tell(self) -> None:
        self._version += 1
        self._changed.notify_all()
        for listener in self._listeners:
            listener()


def checked_timeout(timeout: object) -> float | None:
    """A timeout that threading understands.

    Raises:
        InvalidModelError: neither None nor a number from 0 on.
    """
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0:
        raise InvalidModelError(f"timeout must be None or at least 0 seconds, not {timeout!r}")
    return min(float(timeout), threading.TIMEOUT_MAX)


class DoneAndNotDone(NamedTuple):
    """What `wait` returns: the jobs that have ended, and the others."""

    done: list[Job]
    not_done: list[Job]


def as_completed(jobs: Iterable[Job], timeout: float | None = None) -> Iterator[Job]:
    """Jobs in the order in which they end.

    Raises:
        JobTimeoutError: not all have ended after `timeout` seconds.
    """
    pending = list(dict.fromkeys(jobs))
    ended: list[Job] = []
    something = threading.Condition()

    def on_done(job: Job) -> None:
        with something:
            ended.append(job)
            something.notify_all()

    for job in pending:
        job.add_done_callback(on_done)
    seconds = checked_timeout(timeout)
    deadline = None if seconds is None else time.monotonic() + seconds
    done = 0
    while done < len(pending):
        with something:
            while len(ended) <= done and (deadline is None or time.monotonic() < deadline):
                something.wait(
                    None if deadline is None else min(threading.TIMEOUT_MAX, max(0.0, deadline - time.monotonic()))
                )
            if len(ended) <= done:
                raise JobTimeoutError(
                    f"{len(pending) - done} of {len(pending)} jobs have not ended after {timeout:g} s"
                )
            job = ended[done]
        done += 1
        yield job


def wait(
    jobs: Iterable[Job], timeout: float | None = None, *, return_when: Literal["all", "first"] = "all"
) -> DoneAndNotDone:
    """Wait until all jobs, or the first one, have ended, or the timeout is over; never raises for a late job."""
    if return_when not in ("all", "first"):
        raise InvalidModelError(f'return_when must be "all" or "first", not {return_when!r}')
    listed = list(dict.fromkeys(jobs))
    try:
        for _ in as_completed(listed, timeout):
            if return_when == "first":
                break
    except JobTimeoutError:
        pass
    return DoneAndNotDone([job for job in listed if job.done()], [job for job in listed if not job.done()])
