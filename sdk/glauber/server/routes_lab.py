"""The lab as a whole: usage, health, metrics, and the page."""

from __future__ import annotations

from datetime import date
from functools import partial
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse

from glauber.server.answers import Health, UsageAnswer, UsageLine
from glauber.server.bodies import TheLab, ThePools
from glauber.server.budgets import midnight
from glauber.server.config import OWNER_PATTERN
from glauber.server.gate import Reader, needs
from glauber.server.metrics import Metrics
from glauber.server.problems import Problem, documented

DEFAULT_DAYS = 30
DAY = 86400.0


def make_router(metrics: Metrics) -> APIRouter:
    """The routes."""
    router = APIRouter()
    pages = {path: _page_file(name) for path, name in PAGE_FILES.items()}

    @router.get("/usage", responses=documented(), openapi_extra=needs("read"))
    async def usage(
        token: Reader,
        lab: TheLab,
        pools: ThePools,
        since: Annotated[date | None, Query(description="the first day, UTC; 30 days back if left out")] = None,
        owner: Annotated[str | None, Query(pattern=OWNER_PATTERN)] = None,
    ) -> UsageAnswer:
        """What jobs took, by owner, device and day: one's own; everybody's for an admin."""
        if not token.allows("admin"):
            if owner not in (None, token.owner):
                raise Problem(403, "AccessError", f"the usage of {owner} is for {owner} and for admins")
            owner = token.owner
        begin = midnight(lab.file.now()) - (DEFAULT_DAYS - 1) * DAY
        if since is not None:
            begin = (since - date(1970, 1, 1)).days * DAY
        lines = await pools.light(partial(lab.store.usage, since=begin, owner=owner))
        return UsageAnswer(usage=[UsageLine.of(lab, line) for line in lines])

    @router.get("/health", responses={503: {"model": Health, "description": "it takes no jobs"}})
    async def health(lab: TheLab) -> JSONResponse:
        """Whether the server takes jobs; needs no token, so it says no more than that."""
        states = {name: "ok" if found.device.trouble is None else "failing" for name, found in lab.devices.items()}
        status = "ok" if "failing" not in states.values() else "failing"
        answer = Health(status="stopping" if lab.stopping else status, devices=states)  # type: ignore[arg-type]
        return JSONResponse(answer.model_dump(), 200 if answer.status == "ok" else 503)

    @router.get(
        "/metrics",
        response_class=Response,
        responses={**documented(), 200: {"content": {"text/plain": {}}, "description": "for Prometheus"}},
        openapi_extra=needs("read"),
    )
    async def figures(token: Reader, pools: ThePools) -> Response:
        """Figures for Prometheus, which sends the token as its bearer_token."""
        text = await pools.light(metrics.text)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    for path, (content, kind) in pages.items():
        router.add_api_route(path, partial(_send, content, kind), include_in_schema=False, response_class=Response)
    return router


PAGE_FILES = {"/": "index.html"} | {f"/page/{name}": name for name in ("app.js", "charts.js", "style.css", "icon.svg")}
"""What a browser may load without a token: the page itself, which then asks for one."""
_KINDS = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}


def _page_file(name: str) -> tuple[bytes, str]:
    kind = _KINDS[name.rpartition(".")[2]]
    return files("glauber.server").joinpath("page", name).read_bytes(), f"{kind}; charset=utf-8"


async def _send(content: bytes, kind: str) -> Response:
    return Response(content, media_type=kind)
