"""How long a job will take where it would run, and when it would start.

By what recent jobs on that device took; where there are none yet, by the figures in its description; where nobody
published any, unknown. Unknown is an answer: a guess would be believed.
"""

from __future__ import annotations

import statistics
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from glauber.energy import device_seconds, modelled_energy
from glauber.errors import StoreError
from glauber.job import Job, JobStatus
from glauber.prepare import operations
from glauber.request import JobRequest
from glauber.spec import AnySpec
from glauber.store import JobStore

RECENT_JOBS = 20
TELLING_SECONDS = 0.5
"""A job that has run for so long says itself how long it will take."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a job means for who waits for it.

    Attributes:
        seconds: that it runs; None where nothing is known of the device.
        joules: by the device's figures; None where none are published.
        starts_in: seconds until it starts; None where that of a job ahead is unknown.
        jobs_ahead: queued and running.
    """

    seconds: float | None
    joules: float | None
    starts_in: float | None
    jobs_ahead: int


class Pace(NamedTuple):
    """seconds = overhead + rate x work."""

    overhead: float
    rate: float


def work(request: JobRequest) -> int:
    """Sweeps x sites x chains of a request."""
    return request.schedule.n_sweeps * request.model.n_sites * request.schedule.n_chains


def pace_of(jobs: Iterable[tuple[float, int]]) -> Pace | None:
    """From (seconds, work) of jobs: the rate of the largest one, and what the others took beyond it, in the median."""
    known = [(seconds, done) for seconds, done in jobs if seconds > 0 and done > 0]
    if not known:
        return None
    seconds, done = max(known, key=lambda job: job[1])
    rate = seconds / done
    return Pace(max(0.0, statistics.median(s - rate * d for s, d in known)), rate)


class Outlooks:
    """Outlooks for one device. Methods may be called from any thread.

    Args:
        spec: of the device.
        waiting: gives the running job and those that wait.
        store: whose recent jobs of the device count, if there is one.
        device: its address in the store.
    """

    def __init__(self, spec: AnySpec, waiting: Callable[[], list[Job]], store: JobStore | None, device: str) -> None:
        self._spec, self._waiting = spec, waiting
        self._lock = threading.Lock()
        self._recent: deque[tuple[float, int]] = deque(maxlen=RECENT_JOBS)
        if store is not None:
            with suppress(StoreError):  # an outlook is not worth a device that does not open
                for record in reversed(store.jobs(device=device, status=JobStatus.DONE, limit=RECENT_JOBS)):
                    self.note(record.seconds, record.sweeps_done * record.n_sites * record.n_chains)

    def note(self, seconds: float, done: int) -> None:
        """A job has taken so long for so many sweeps x sites x chains."""
        with self._lock:
            self._recent.append((seconds, done))

    def seconds(self, request: JobRequest) -> float | None:
        """How long a request would run."""
        with self._lock:
            pace = pace_of(self._recent)
        if pace is not None:
            estimate = pace.overhead + pace.rate * work(request)
        else:
            schedule = request.schedule
            figure = device_seconds(self._spec, operations(request, schedule.n_sweeps, schedule.n_samples))
            if figure is None:
                return None
            estimate = figure.best
        limit = None if request.budget is None else request.budget.seconds
        return estimate if limit is None else min(estimate, limit)

    def joules(self, request: JobRequest) -> float | None:
        """What a request would take, by the device's figures."""
        schedule = request.schedule
        return modelled_energy(self._spec, operations(request, schedule.n_sweeps, schedule.n_samples)).joules

    def left(self, job: Job) -> float | None:
        """Seconds that a queued or running job still takes."""
        progress = job.progress
        limit = None if job.request.budget is None else job.request.budget.seconds
        if progress.seconds > TELLING_SECONDS and progress.sweeps_done:
            whole = progress.seconds / progress.fraction
            return max(0.0, (whole if limit is None else min(whole, limit)) - progress.seconds)
        seconds = self.seconds(job.request)
        return None if seconds is None else seconds * max(0.0, 1.0 - progress.fraction)

    def outlook(self, request: JobRequest) -> Outlook:
        """What a request would take if it were submitted now; owners who have had more may wait longer."""
        jobs = [
            job
            for job in self._waiting()
            if job.status is JobStatus.RUNNING or job.request.priority >= request.priority
        ]
        parts = [self.left(job) for job in jobs]
        known = [part for part in parts if part is not None]
        starts_in = sum(known) if len(known) == len(parts) else None
        return Outlook(self.seconds(request), self.joules(request), starts_in, len(jobs))
