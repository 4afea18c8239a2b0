"""The lab as a whole: usage, health, metrics, and the page."""

from __future__ import annotations

from datetime import date
from functools import partial
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse, JSONResponse

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
    page = files("glauber.server").joinpath("page", "index.html").read_text(encoding="utf-8")

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

    @router.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page)

    return router
