"""Around every request: its id, the Host it is for, headers against use from other sites, its line in the log.

A page of another site can make a browser send requests here, and by rebinding its own name to this address it could
even read the answers. So a Host header that is not one of the server's names is refused, no CORS header is ever sent,
and the page may load nothing from elsewhere and be framed by nobody.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog

from glauber.server.lab import Lab
from glauber.server.logs import server_log
from glauber.server.metrics import Metrics
from glauber.server.problems import Problem

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


def request_id(scope: Scope) -> str:
    """The id of a request that came through the door."""
    return str(scope["state"]["request_id"])


class Door:
    """ASGI middleware.

    Args:
        app: what is behind it.
        lab: whose names count.
        metrics: that count requests.
    """

    def __init__(self, app: App, lab: Lab, metrics: Metrics) -> None:
        self._app, self._lab, self._metrics = app, lab, metrics
        self._names = lab.config.host_names
        self._log = server_log()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = name
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=name)
        began, status = time.perf_counter(), 0

        async def tell(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                given = {key.lower() for key, _ in message["headers"]}
                added = {**_HEADERS, "x-request-id": name}
                more = [(k.encode(), v.encode()) for k, v in added.items() if k.encode() not in given]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is None:
                await self._app(scope, receive, tell)
            else:
                await answer(refusal, name, tell)
        except Exception:
            self._log.exception("request broke", path=scope["path"])
            if status:  # half of an answer is out
                raise
            await answer(_BROKEN, name, tell)
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", "(none)")
            self._metrics.request(scope["method"], route, status, seconds)
            facts = {"method": scope["method"], "path": scope["path"], "status": status, "seconds": round(seconds, 4)}
            self._log.info("request", **facts)

    def _refusal(self, scope: Scope) -> Problem | None:
        host = next((value.decode("latin-1") for key, value in scope["headers"] if key == b"host"), "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name.lower() not in self._names:
            return Problem(
                400,
                "InvalidHostError",
                f"this server does not answer for the host {name!r}; its names are {', '.join(sorted(self._names))}"
                " (names = [...] in its configuration adds others)",
            )
        if self._lab.stopping and scope["path"] != "/health":
            return Problem(503, "DeviceClosedError", "the server is stopping; try again later", {"Retry-After": "2"})
        return None


_BROKEN = Problem(500, "InternalError", "the server made a mistake; its log has the details under this request's id")


async def answer(problem: Problem, name: str, send: Send) -> None:
    """Send an error."""
    body = problem.body(name)
    headers = {"content-type": "application/json", "content-length": str(len(body)), **problem.headers}
    raw = [(key.lower().encode(), value.encode("latin-1", "replace")) for key, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
