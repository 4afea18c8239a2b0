"""A handle of a job that another process runs, or that ended long ago: `get_job`."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path

from glauber.errors import GlauberError, JobFailedError, error_named
from glauber.following import Following
from glauber.job import Job, JobStatus
from glauber.registry import open_job, parse_address
from glauber.store import JobRecord, JobStore, open_store

POLL_SECONDS = (0.05, 0.5)
"""How often the store is asked for progress: at first, and after a while."""


def named_error(name: str | None, message: str) -> GlauberError:
    """An error of this SDK from its name and text, as they come from a store or over a network."""
    found = None if name is None else error_named(name, message)
    return found or JobFailedError(message if name is None else f"{name}: {message}")


def stored_job(store: JobStore, job_id: str) -> Job:
    """A handle that follows a stored job until it ends; a cancel reaches whoever runs it.

    Raises:
        JobNotFoundError: the store has no such job.
    """
    record = store.get(job_id)
    job = Job(job_id, store.request(job_id), record.seed, lambda job: _cancel(store, job))
    if not _mirror(store, job, record):
        threading.Thread(target=_follow, args=(store, job), name=f"glauber job {job_id}", daemon=True).start()
    return job


def _cancel(store: JobStore, job: Job) -> None:
    store.ask_to_cancel(job.id)


def _follow(store: JobStore, job: Job) -> None:
    pause = POLL_SECONDS[0]
    try:
        while not _mirror(store, job, store.get(job.id)):
            time.sleep(pause)
            pause = min(POLL_SECONDS[1], pause * 1.2)
    except GlauberError as error:
        job.finish(JobStatus.FAILED, error=error)


def _mirror(store: JobStore, job: Job, record: JobRecord) -> bool:
    """Bring a handle to where the record is; whether it has ended."""
    status = record.status
    if status is JobStatus.RUNNING and job.status is JobStatus.QUEUED:
        job.start()
    elif status is JobStatus.QUEUED and job.status is JobStatus.RUNNING:
        job.wait_again()
    if (record.sweeps_done, record.samples_done) != (job.progress.sweeps_done, job.progress.samples_done):
        job.advance(record.sweeps_done, record.samples_done)
    if status is JobStatus.FAILED:
        job.finish(JobStatus.FAILED, error=named_error(record.error, record.message))
    elif status is JobStatus.DONE:
        job.finish(JobStatus.DONE, store.result(job.id))
    elif status is JobStatus.CANCELLED:
        kept = record.stopped_by is not None  # a result was stored
        job.finish(JobStatus.CANCELLED, store.result(job.id) if kept else None)
    return job.done()


def get_job(job_id: str, *, store: JobStore | str | Path | None = None) -> Job:
    """Come back to a job by nothing but its id: its state, its result, a cancel.

    Args:
        job_id: of a stored job, or of a job behind a lab server, whose id is an address.
        store: where it is stored; None takes the default store.

    Raises:
        JobNotFoundError: no such job.
        StoreError: the store cannot be read.
        DeviceNotFoundError: no server answers at the address.
        AccessError: the server does not show this job to the environment's token.
    """
    if "://" in job_id:
        return _remote_job(job_id)
    return stored_job(open_store(True if store is None else store), job_id)


def _remote_job(address: str) -> Job:
    """A handle of a job behind a server; the connection is closed when the job has ended."""
    service, job_id = open_job(parse_address(address))
    try:
        request = service.request(job_id)
        following = Following(service, address, 0, itertools.count())
        job = following.follow(Job(job_id, request, request.seed or 0, following.cancel))
    except BaseException:
        service.close()
        raise
    job.add_done_callback(lambda _: service.close())
    return job
