"""Who may do what: bearer tokens, their scopes, and how often.

read      devices, queues, states of all jobs, estimates, usage; of his own jobs also requests and results
submit    the same, and submits, and cancels his own jobs
admin     the same for everybody's jobs, priorities above 0, reservations, everybody's usage
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from glauber.errors import AccessError
from glauber.server import audit
from glauber.server.bodies import Pools
from glauber.server.lab import Lab
from glauber.server.problems import Problem
from glauber.server.tokens import Scope, Token, check_token

_bearer = HTTPBearer(auto_error=False, description="A token of `glauber token create`.")
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


class Gate:
    """Checks tokens and counts requests.

    A valid token is never refused for what others at the same network address do: failures are counted apart. Beyond
    their limit they are answered 429 and no longer written to the audit log, which they could otherwise fill.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._requests: RateLimitItem = RateLimitItemPerMinute(lab.config.requests_per_minute)
        self._failures: RateLimitItem = RateLimitItemPerMinute(lab.config.failed_logins_per_minute)

    async def admit(self, request: Request, credentials: HTTPAuthorizationCredentials | None, scope: Scope) -> Token:
        """The token of a request, if it may come in."""
        try:
            token = self._token(credentials)
        except AccessError as error:
            raise await self._failed(request, error) from None
        structlog.contextvars.bind_contextvars(owner=token.owner, token=token.id)
        if not self._limiter.hit(self._requests, token.id):
            raise self._too_many(f"token {token.id} made more than {self._requests.amount} requests a minute", token.id)
        if not token.allows(scope):
            await self._note(request, token.who, needs=scope, has=token.scope)
            raise Problem(
                403,
                "AccessError",
                f"{request.method} {request.url.path} needs the scope {scope}, and token {token.id} has {token.scope};"
                f" ask for another token (glauber token create --scope {scope})",
            )
        return token

    def _token(self, credentials: HTTPAuthorizationCredentials | None) -> Token:
        if credentials is None:
            raise AccessError("there is no token; send the header Authorization: Bearer glb_...")
        return check_token(self._lab.file, credentials.credentials)

    async def _note(self, request: Request, who: str, **details: str) -> None:
        """Into the audit log, which is on a disk."""
        pools: Pools = request.app.state.pools
        await pools.light(partial(audit.append, self._lab.file, who, "refused", request.url.path, **details))

    async def _failed(self, request: Request, error: AccessError) -> Problem:
        peer = request.client.host if request.client is not None else "?"
        key = f"peer {peer}"
        if not self._limiter.hit(self._failures, key):
            return self._too_many(f"too many requests from {peer} without a valid token", key, self._failures)
        await self._note(request, peer, reason=str(error))
        return Problem(401, "AccessError", str(error), {"WWW-Authenticate": "Bearer"})

    def _too_many(self, what: str, key: str, item: RateLimitItem | None = None) -> Problem:
        stats = self._limiter.get_window_stats(item or self._requests, key)
        wait = max(1, math.ceil(stats.reset_time - time.time()))
        return Problem(429, "TooManyRequestsError", f"{what}; wait {wait} s", {"Retry-After": str(wait)})


def _admit(scope: Scope) -> Callable[..., Awaitable[Token]]:
    async def admit(request: Request, credentials: _Credentials) -> Token:
        gate: Gate = request.app.state.gate
        return await gate.admit(request, credentials, scope)

    return admit


Reader = Annotated[Token, Depends(_admit("read"))]
Submitter = Annotated[Token, Depends(_admit("submit"))]
Admin = Annotated[Token, Depends(_admit("admin"))]


def needs(scope: Scope) -> dict[str, Any]:
    """What a route says of its scope in the OpenAPI description; a test holds every route to it."""
    return {"x-scope": scope}
