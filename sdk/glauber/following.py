"""A device's side of a service with a queue of its own: jobs are handed over, and handles follow what it reports."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from glauber.compile import derive_seed
from glauber.driver import JobService
from glauber.errors import DeviceIOError, GlauberError, JobFailedError, error_named
from glauber.job import Job, JobStatus
from glauber.request import JobRequest
from glauber.samples import SampleSet

ORDER_SECONDS = 10.0
"""How long the end of a job waits for the end of the one before it, which is on its way."""

_log = logging.getLogger("glauber")


@dataclass(frozen=True, slots=True)
class _Followed:
    job: Job
    over: threading.Event = field(default_factory=threading.Event)


class Following:
    """Jobs that a service runs. Methods may be called from any thread.

    Args:
        service: that runs them.
        address: of the device, for provenance and messages.
        seed: from which the seeds of jobs without one are derived.
        numbers: of the device's jobs and searches.
    """

    def __init__(self, service: JobService, address: str, seed: int, numbers: itertools.count[int]) -> None:
        self._service, self._address, self._seed, self._numbers = service, address, seed, numbers
        self._lock = threading.Lock()
        self._given_back: list[int] = []  # numbers of jobs that were refused: they shift no derived seed
        self._followed: dict[str, _Followed] = {}

    def submit(self, request: JobRequest) -> Job:
        """Hand a job over and follow it; raises what the service raises."""
        with self._lock:
            number = heapq.heappop(self._given_back) if self._given_back else next(self._numbers)
        seed = derive_seed(self._seed, number) if request.seed is None else request.seed
        try:
            job_id = self._service.submit(replace(request, seed=seed))
        except BaseException:
            with self._lock:
                heapq.heappush(self._given_back, number)
            raise
        return self.follow(Job(job_id, request, seed, self.cancel))

    def follow(self, job: Job) -> Job:
        """Mirror what the service reports of a job until it ends."""
        with self._lock:
            if job.id in self._followed:  # an idempotent submission: it is the same job
                return self._followed[job.id].job
            self._followed[job.id] = _Followed(job)
        threading.Thread(target=self._follow, args=(job,), name=f"glauber job {job.id}", daemon=True).start()
        return job

    @property
    def jobs(self) -> list[Job]:
        """Those that have not ended."""
        with self._lock:
            return [each.job for each in self._followed.values()]

    def job(self, job_id: str) -> Job | None:
        """One of those."""
        with self._lock:
            each = self._followed.get(job_id)
        return None if each is None else each.job

    def cancel(self, job: Job) -> None:
        """Ask the service to stop a job."""
        self._service.cancel(job.id)

    @property
    def queued(self) -> list[Job]:
        """Those of ours that wait."""
        return [job for job in self.jobs if job.status is JobStatus.QUEUED]

    @property
    def running(self) -> Job | None:
        """That of ours which runs, if the service says so of one."""
        return next((job for job in self.jobs if job.status is JobStatus.RUNNING), None)

    def close(self, how: Literal["drain", "cancel", "requeue"], left: Callable[[], float | None]) -> bool:
        """Wait until the jobs have ended, for as long as `left` says, cancelled first or not; "requeue" leaves them."""
        reached = [] if how == "requeue" else self.jobs
        if how == "cancel":  # all of them first: waiting takes as long as the slowest, not as all together
            for job in list(reached):
                try:
                    job.ask_to_cancel()
                except GlauberError as error:  # a service that cannot be reached must not keep the rest open
                    _log.warning("job %s cannot be cancelled: %s", job.id, error)
                    reached.remove(job)
        for job in reached:
            job.wait(left())
        return True

    def _follow(self, job: Job) -> None:
        result: SampleSet | None = None
        failure: BaseException | None = None
        status, previous = JobStatus.QUEUED, ""
        try:
            for event in self._service.events(job.id, after=-1):
                status, previous = JobStatus(event.status), event.previous
                if status is JobStatus.RUNNING and job.status is JobStatus.QUEUED:
                    job.start()
                elif status is JobStatus.QUEUED and job.status is JobStatus.RUNNING:
                    job.wait_again()
                seen = job.progress  # a service that resumes a job begins behind what it had reported
                job.advance(max(seen.sweeps_done, event.sweeps_done), max(seen.samples_done, event.samples_done))
                if status is JobStatus.FAILED:
                    failure = error_named(event.error, event.message) or JobFailedError(
                        f"job {job.id} failed at {self._address}: {event.message}"
                    )
            if not status.final:
                raise DeviceIOError(f"{self._address} stopped reporting on job {job.id} while it was {status.value}")
            if status is JobStatus.DONE or (status is JobStatus.CANCELLED and job.request.partial):
                result = self._named(self._service.result(job.id), job)
        except BaseException as error:
            failure = error
        try:
            self._wait_for(previous)
            if failure is not None:
                job.finish(JobStatus.FAILED, error=failure)
            elif status is JobStatus.DONE:
                job.finish(JobStatus.DONE, result)
            else:
                job.finish(JobStatus.CANCELLED, result)
        finally:
            with self._lock:
                followed = self._followed.pop(job.id)
            followed.over.set()

    def _named(self, result: SampleSet, job: Job) -> SampleSet:
        """A result under the address and the id by which it can be had again from here."""
        about = result.provenance
        kernel = {**about.kernel, "behind the service": about.address}
        return replace(result, provenance=replace(about, address=self._address, job_id=job.id, kernel=kernel))

    def _wait_for(self, previous: str) -> None:
        """Let the job that ended before this one call back first: results may arrive in another order than ends."""
        with self._lock:
            before = self._followed.get(previous)
        if before is not None:
            before.over.wait(ORDER_SECONDS)
