"""How long a job will take on a device of the lab, and when it would start.

By what recent jobs on that device took, seconds per sweep, site and chain; where there are none yet, by the figures in
the device's description; where nobody published any, unknown. Unknown is an answer: a guess would be believed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from glauber.device import Device
from glauber.energy import device_seconds, modelled_energy
from glauber.job import Job, JobStatus
from glauber.prepare import operations
from glauber.request import JobRequest
from glauber.store import JobStore

RECENT_JOBS = 20
REMEMBER_SECONDS = 5.0


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


def work(request: JobRequest) -> int:
    """Sweeps x sites x chains of a request."""
    return request.schedule.n_sweeps * request.model.n_sites * request.schedule.n_chains


class Estimates:
    """Estimates for the devices on one store; measured rates are looked up every few seconds at most."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._rates: dict[str, tuple[float, float | None]] = {}

    def rate(self, device: Device) -> float | None:
        """Measured seconds per sweep, site and chain: of recent jobs together, so that long ones count for more."""
        now = time.monotonic()
        with self._lock:
            kept = self._rates.get(device.address)
        if kept is not None and now - kept[0] < REMEMBER_SECONDS:
            return kept[1]
        recent = self._store.jobs(device=device.address, status=JobStatus.DONE, limit=RECENT_JOBS)
        seconds = sum(record.seconds or 0.0 for record in recent)
        done = sum((record.sweeps_done or 0) * record.n_sites * record.n_chains for record in recent)
        found = seconds / done if done and seconds else None
        with self._lock:
            self._rates[device.address] = (now, found)
        return found

    def seconds(self, device: Device, request: JobRequest) -> float | None:
        """How long a request would run."""
        rate = self.rate(device)
        if rate is not None:
            estimate = rate * work(request)
        else:
            schedule = request.schedule
            figure = device_seconds(device.spec, operations(request, schedule.n_sweeps, schedule.n_samples))
            if figure is None:
                return None
            estimate = figure.best
        limit = None if request.budget is None else request.budget.seconds
        return estimate if limit is None else min(estimate, limit)

    def joules(self, device: Device, request: JobRequest) -> float | None:
        """What a request would take, by the device's figures."""
        schedule = request.schedule
        return modelled_energy(device.spec, operations(request, schedule.n_sweeps, schedule.n_samples)).joules

    def left(self, device: Device, job: Job) -> float | None:
        """Seconds that a queued or running job still takes."""
        seconds = self.seconds(device, job.request)
        return None if seconds is None else seconds * max(0.0, 1.0 - job.progress.fraction)

    def outlook(self, device: Device, request: JobRequest) -> Outlook:
        """What a request would take if it were submitted now; owners who have had more may wait longer."""
        running, ahead = device.running, [job for job in device.queued if job.request.priority >= request.priority]
        jobs = [*([] if running is None else [running]), *ahead]
        starts_in = total(self.left(device, job) for job in jobs)
        return Outlook(self.seconds(device, request), self.joules(device, request), starts_in, len(jobs))


def total(parts: Iterable[float | None]) -> float | None:
    """The sum, None if a part is unknown."""
    known = list(parts)
    return None if any(part is None for part in known) else sum(part for part in known if part is not None)
