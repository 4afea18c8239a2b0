"""Jobs: where they are, what they report, what they gave."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from glauber.errors import GlauberError, JobNotFoundError
from glauber.job import JobStatus
from glauber.samples import SampleSet
from glauber.server.answers import CancelAnswer, JobAnswer, JobList
from glauber.server.bodies import NPZ, TheLab, ThePools
from glauber.server.config import DEVICE_PATTERN, OWNER_PATTERN
from glauber.server.gate import Reader, Submitter, needs
from glauber.server.lab import Lab, own_job
from glauber.server.problems import Problem, documented
from glauber.server.streams import event_stream
from glauber.server.summary import Summary
from glauber.server.tokens import Token, token_is_gone
from glauber.store import JobRecord

router = APIRouter()

JOB_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
LARGEST_NUMBER = 2**63 - 1
STREAMS_OF_A_TOKEN = 1000
"""Half of the server's connections: one token must not take them all."""

JobId = Annotated[str, Path(pattern=JOB_PATTERN)]
_NPZ_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"content": {NPZ: {"schema": {"type": "string", "format": "binary"}}}, "description": "SampleSet.to_bytes()"}
}


@router.get("/jobs", responses=documented(404), openapi_extra=needs("read"))
async def jobs(
    token: Reader,
    lab: TheLab,
    pools: ThePools,
    device: Annotated[str | None, Query(pattern=DEVICE_PATTERN)] = None,
    owner: Annotated[str | None, Query(pattern=OWNER_PATTERN)] = None,
    status: JobStatus | None = None,
    before: Annotated[int | None, Query(ge=0, le=LARGEST_NUMBER, description="only jobs with smaller numbers")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> JobList:
    """States of all jobs, the newest first; keys, seeds and messages of one's own only."""
    address = None if device is None else lab.device(device).config.full_address

    def look() -> JobList:
        found = lab.store.jobs(device=address, owner=owner, status=status, before=before, limit=limit)
        return JobList(jobs=[JobAnswer.of(lab, record, token) for record in found])

    return await pools.light(look)


@router.get("/jobs/{job_id}", responses=documented(404), openapi_extra=needs("read"))
async def job(job_id: JobId, token: Reader, lab: TheLab, pools: ThePools) -> JobAnswer:
    """Where a job is."""
    return await pools.light(lambda: JobAnswer.of(lab, lab.store.get(job_id), token))


@router.get(
    "/jobs/{job_id}/events",
    response_class=StreamingResponse,
    responses={
        **documented(404),
        200: {
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
            "description": "server-sent events: `state` with an id, `progress` without; ends with the last state",
        },
    },
    openapi_extra=needs("read"),
)
async def events(
    job_id: JobId,
    request: Request,
    token: Reader,
    lab: TheLab,
    pools: ThePools,
    last_event_id: Annotated[int, Header(alias="Last-Event-ID", ge=-1, le=LARGEST_NUMBER)] = -1,
) -> StreamingResponse:
    """What happens to a job, as it happens; Last-Event-ID goes on where a stream broke."""
    state = request.app.state
    record = await pools.light(partial(own_job, lab, job_id, token))

    def allowed() -> bool:
        return not token_is_gone(lab.file, token)

    if state.streams[token.id] >= STREAMS_OF_A_TOKEN:
        raise Problem(
            429,
            "TooManyRequestsError",
            f"this token follows {STREAMS_OF_A_TOKEN} jobs already; wait until one has ended",
            {"Retry-After": "5"},
        )

    async def counted() -> AsyncIterator[bytes]:
        state.metrics.stream(1)
        state.streams[token.id] += 1
        try:
            async for frame in event_stream(lab, pools, state.wakes, record, last_event_id, allowed):
                yield frame
        finally:
            state.metrics.stream(-1)
            state.streams[token.id] -= 1

    return StreamingResponse(counted(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


@router.get(
    "/jobs/{job_id}/request", response_class=Response, responses={**documented(404), **_NPZ_ANSWER},
    openapi_extra=needs("read"),
)  # fmt: skip
async def request(job_id: JobId, token: Reader, lab: TheLab, pools: ThePools) -> Response:
    """What was asked, as JobRequest.to_bytes() makes it."""

    def pack() -> bytes:
        own_job(lab, job_id, token)
        return lab.store.request(job_id).to_bytes()

    return Response(await pools.heavy(pack), media_type=NPZ)


@router.get(
    "/jobs/{job_id}/result", response_class=Response, responses={**documented(404, 409), **_NPZ_ANSWER},
    openapi_extra=needs("read"),
)  # fmt: skip
async def result(job_id: JobId, token: Reader, lab: TheLab, pools: ThePools) -> Response:
    """The result of a job that is done, or what a cancelled one kept."""

    def read() -> bytes:
        record = own_job(lab, job_id, token)
        try:
            return lab.store.result_bytes(job_id)
        except JobNotFoundError as error:
            raise _no_result(record, error) from None

    return Response(await pools.light(read), media_type=NPZ)


@router.get(
    "/jobs/{job_id}/partial", response_class=Response, responses={**documented(404, 409), **_NPZ_ANSWER},
    openapi_extra=needs("read"),
)  # fmt: skip
async def partial_result(job_id: JobId, token: Reader, lab: TheLab, pools: ThePools) -> Response:
    """What a job has drawn so far."""
    return Response(await pools.heavy(lambda: _so_far(lab, job_id, token).to_bytes()), media_type=NPZ)


@router.get("/jobs/{job_id}/summary", responses=documented(404, 409), openapi_extra=needs("read"))
async def summary(job_id: JobId, token: Reader, lab: TheLab, pools: ThePools) -> Summary:
    """What a job has drawn so far, or its result, as a page shows it."""
    return await pools.heavy(lambda: Summary.of(_so_far(lab, job_id, token)))


def _so_far(lab: Lab, job_id: str, token: Token) -> SampleSet:
    """What a job has drawn so far; of one that has ended, its result."""
    record = own_job(lab, job_id, token)
    found = lab.devices.get(lab.name_of(record.device))
    live = lab.live_job(record)
    if found is None or live is None:
        try:
            return lab.store.result(job_id)
        except JobNotFoundError as error:
            raise _no_result(record, error) from None
    try:
        return found.device.partial_result(job_id)
    except GlauberError as error:
        raise Problem(409, type(error).__name__, str(error)) from None


@router.post("/jobs/{job_id}/cancel", responses=documented(404), openapi_extra=needs("submit"))
async def cancel(job_id: JobId, token: Submitter, lab: TheLab, pools: ThePools) -> CancelAnswer:
    """Ask for a job to be stopped: at once if it is queued, at its next batch if it runs."""
    return await pools.light(lambda: CancelAnswer(asked=lab.cancel(own_job(lab, job_id, token), token.who)))


def _no_result(record: JobRecord, error: JobNotFoundError) -> Problem:
    """Why a job that exists has no result."""
    if record.status is JobStatus.FAILED:
        return Problem(409, record.error or "JobFailedError", record.message or f"job {record.id} failed")
    if record.status is JobStatus.CANCELLED:
        return Problem(409, "JobCancelledError", f"job {record.id} was cancelled, and nothing was to be kept")
    return Problem(409, "JobTimeoutError", f"{error}; GET /jobs/{record.id}/events tells when it has")
