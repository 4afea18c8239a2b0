"""Reading what clients send: only after their token was checked, counted while it comes, never more than allowed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, TypeVar

import anyio
import anyio.to_thread
from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from glauber.errors import InvalidModelError
from glauber.request import JobRequest
from glauber.server.lab import Lab
from glauber.server.problems import Problem
from glauber.server.tokens import Token

BODY_SECONDS = 120.0
"""For one body."""
UPLOADS_AT_A_TIME = 16
UPLOADS_OF_A_TOKEN = 4
"""So that memory is bounded by this many bodies, packed and unpacked."""
HEAVY_THREADS = 4
LIGHT_THREADS = 8
JSON_BYTES = 16 * 1024
NPZ = "application/octet-stream"

Result = TypeVar("Result")


class Pools:
    """Threads for what would hold up the event loop: unpacking, compiling and fsync here, look-ups there."""

    def __init__(self) -> None:
        self._heavy = anyio.CapacityLimiter(HEAVY_THREADS)
        self._light = anyio.CapacityLimiter(LIGHT_THREADS)
        self.uploads = asyncio.Semaphore(UPLOADS_AT_A_TIME)
        self._uploads_of: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(UPLOADS_OF_A_TOKEN)
        )

    def uploads_of(self, token: Token) -> asyncio.Semaphore:
        """One token, with slow bodies perhaps, must not take all places."""
        return self._uploads_of[token.id]

    async def heavy(self, work: Callable[[], Result]) -> Result:
        """Run it in one of a few threads."""
        return await anyio.to_thread.run_sync(work, limiter=self._heavy)

    async def light(self, work: Callable[[], Result]) -> Result:
        """Run it in a thread that uploads cannot occupy."""
        return await anyio.to_thread.run_sync(work, limiter=self._light)


async def _lab(request: Request) -> Lab:
    lab: Lab = request.app.state.lab
    return lab


async def _pools(request: Request) -> Pools:
    pools: Pools = request.app.state.pools
    return pools


TheLab = Annotated[Lab, Depends(_lab)]
ThePools = Annotated[Pools, Depends(_pools)]


async def read_body(request: Request, kind: str, limit: int) -> bytes:
    """The body of a request.

    Raises:
        Problem: it is of another type, larger than the limit (as declared, or as it comes), or too slow.
    """
    declared_kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared_kind != kind or "content-encoding" in request.headers:
        raise Problem(
            415,
            "UnsupportedMediaTypeError",
            f"the body must be {kind} without a content encoding, not {declared_kind!r}",
        )
    too_large = Problem(
        413, "RequestTooLargeError", f"the body is larger than the {limit} bytes that this server takes"
    )
    declared = request.headers.get("content-length", "0")
    if declared.isascii() and declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > limit:
                    raise too_large
    except TimeoutError:
        raise Problem(
            408, "RequestTimeoutError", f"the body did not come within {BODY_SECONDS:g} s", {"Connection": "close"}
        ) from None
    return bytes(body)


async def read_request(request: Request, lab: Lab, pools: Pools, token: Token) -> JobRequest:
    """The job in a body; its owner is the token's, whatever it says."""
    key = request.headers.get("idempotency-key")
    async with pools.uploads_of(token), pools.uploads:
        content = await read_body(request, NPZ, lab.config.max_request_bytes)
        unpack = partial(JobRequest.from_bytes, content, name="the request", limit_bytes=lab.config.max_unpacked_bytes)
        job = await pools.heavy(unpack)
    if job.priority > 0 and not token.allows("admin"):
        raise Problem(
            403, "AccessError", f"a priority of {job.priority} needs the scope admin; others submit with 0 or less"
        )
    return replace(job, owner=token.owner, idempotency_key=key)


Model = TypeVar("Model", bound=BaseModel)


async def read_json(request: Request, kind: type[Model]) -> Model:
    """A small JSON body."""
    content = await read_body(request, "application/json", JSON_BYTES)
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidModelError(f"the body is not valid: {field + ': ' if field else ''}{first['msg']}") from None
