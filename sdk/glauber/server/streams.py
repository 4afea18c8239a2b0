"""Events of jobs as server-sent events: one coroutine a client, woken by the jobs themselves.

Events that are in the store have its number as their id, so a client that was cut off, or whose server was restarted,
asks with Last-Event-ID for what it has missed. Progress in between has no id: it is for showing, and nothing is lost
with it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from glauber.driver import ServiceEvent
from glauber.job import Job, JobStatus, Progress
from glauber.server.bodies import Pools
from glauber.server.lab import Lab
from glauber.store import JobRecord

HEARTBEAT_SECONDS = 15.0
PROGRESS_SECONDS = 0.05
"""Progress is sent no more often."""
NOTED_SECONDS = 2.0
"""How long a job's last event waits for the order of ends to be noted."""
STORED_SECONDS = 1.0
"""How often the store is asked about a job that no device here runs."""


class Wakes:
    """Wakes the streams of a job whenever it changes: one call into the event loop, however many watch."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._streams: dict[str, set[asyncio.Event]] = {}
        self._unsubscribe: dict[str, Callable[[], None]] = {}

    @contextmanager
    def watching(self, job_id: str, job: Job | None) -> Iterator[asyncio.Event]:
        """An event that is set at each change of the job, and when the server stops."""
        loop = self._loop = asyncio.get_running_loop()
        mine = asyncio.Event()
        streams = self._streams.setdefault(job_id, set())
        streams.add(mine)
        if job is not None and job_id not in self._unsubscribe:
            self._unsubscribe[job_id] = job.on_change(partial(_call, loop, partial(self._wake, job_id)))
        try:
            yield mine
        finally:
            streams.discard(mine)
            if not streams:
                self._streams.pop(job_id, None)
                self._unsubscribe.pop(job_id, lambda: None)()

    def _wake(self, job_id: str) -> None:
        for event in self._streams.get(job_id, ()):
            event.set()

    def wake_all(self) -> None:
        """Wake every stream; from any thread, and from a signal's handler."""

        def all_of_them() -> None:
            for job_id in list(self._streams):
                self._wake(job_id)

        if self._loop is not None:
            _call(self._loop, all_of_them)


def _call(loop: asyncio.AbstractEventLoop, act: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(act)


async def event_stream(
    lab: Lab, pools: Pools, wakes: Wakes, record: JobRecord, after: int, allowed: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """The events of a job after a number, until its last one, or until the server stops or `allowed` says no.

    The store is asked only when the status has changed, so that many clients may watch one job.
    """
    job, shown = lab.live_job(record), None
    asked: JobStatus | None = None
    with wakes.watching(record.id, job) as changed:
        while True:
            changed.clear()
            ended = job is not None and job.done()  # asked first: then the store has its last event, if it can have it
            events: list[ServiceEvent] = []
            if job is None or job.status is not asked:  # what a handle says, the store has been told before
                asked = None if job is None else job.status
                events = await pools.light(partial(lab.store.events, record.id, after))
            for event in events:
                after = event.number
                yield await _frame(lab, pools, record.id, event, live=job is not None)
                if JobStatus(event.status).final:
                    return
            if job is None and not events and (await pools.light(partial(lab.store.get, record.id))).status.final:
                return  # the client has the last one
            if lab.stopping:
                yield b": the server is stopping; come back with Last-Event-ID\n\n"
                return
            if ended and job is not None:  # and the store could not be told: the disk is full, for example
                yield _text(_of(job.progress, message=str(job.exception() or "")), "", None)
                return
            if job is not None and not events:
                progress = job.progress
                now = (progress.sweeps_done, progress.samples_done)
                if progress.status is JobStatus.RUNNING and now != shown:
                    shown = now
                    yield _text(_of(progress), "", None)
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS if job is not None else STORED_SECONDS):
                    await changed.wait()
            except TimeoutError:
                yield b": waiting\n\n"
            if job is not None:
                await _rest(job, changed)
            if not allowed():
                yield b": the token is no longer valid\n\n"
                return


async def _rest(job: Job, changed: asyncio.Event) -> None:
    """Let progress gather for a moment, unless the job ends meanwhile."""
    with suppress(TimeoutError):
        async with asyncio.timeout(PROGRESS_SECONDS):
            while not job.done():
                changed.clear()
                await changed.wait()


def _of(progress: Progress, message: str = "") -> ServiceEvent:
    return ServiceEvent(-1, progress.status.value, progress.sweeps_done, progress.samples_done, message)


async def _frame(lab: Lab, pools: Pools, job_id: str, event: ServiceEvent, *, live: bool) -> bytes:
    """A stored event; a last one with the name of its error, and the job that ended before."""
    if not JobStatus(event.status).final:
        return _text(event, "", None, number=event.number)
    record = await pools.light(partial(lab.store.get, job_id))
    deadline = asyncio.get_running_loop().time() + NOTED_SECONDS
    while (previous := lab.previous_end(job_id)) is None and live and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.002)  # the store knows of the end a moment before the device's thread has noted it
    return _text(event, previous or "", record.error, number=event.number)


def _text(event: ServiceEvent, previous: str, error: str | None, number: int | None = None) -> bytes:
    data = {
        "status": event.status,
        "sweeps_done": event.sweeps_done,
        "samples_done": event.samples_done,
        "message": event.message,
    }
    if JobStatus(event.status).final:
        data |= {"previous": previous, "error": error or ""}
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {'progress' if number is None else 'state'}\ndata: {json.dumps(data)}\n\n".encode()
