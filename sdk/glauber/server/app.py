"""The lab as a web application."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from glauber.errors import GlauberError
from glauber.server import routes_devices, routes_jobs
from glauber.server.answers import NewReservation
from glauber.server.bodies import Pools
from glauber.server.door import Door, request_id
from glauber.server.gate import Gate
from glauber.server.lab import Lab
from glauber.server.metrics import Metrics
from glauber.server.problems import Problem, problem_of
from glauber.server.routes_lab import make_router
from glauber.server.streams import Wakes

_NAMES = {404: "NotFoundError", 405: "MethodNotAllowedError"}


def create_app(lab: Lab) -> FastAPI:
    """The application over a lab, which the caller closes."""
    app = FastAPI(
        title="glauber lab server",
        version=version("glauber"),
        summary="Probabilistic computers of one lab, shared",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
    )
    metrics = Metrics(lab)
    app.state.lab, app.state.gate, app.state.metrics = lab, Gate(lab), metrics
    app.state.pools, app.state.wakes = Pools(), Wakes()
    app.state.streams = Counter()
    for router in (routes_devices.router, routes_jobs.router, make_router(metrics)):
        app.include_router(router)
    app.add_middleware(Door, lab=lab, metrics=metrics)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(GlauberError, _glauber_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    _describe_bodies(app)
    return app


def _describe_bodies(app: FastAPI) -> None:
    """Bodies that are read by hand, so that nothing is read before the token was checked, are described by hand."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        described = made()
        schema = NewReservation.model_json_schema()
        described["components"]["schemas"].setdefault("NewReservation", schema)
        return described

    app.openapi = openapi  # type: ignore[method-assign]


def _answer(request: Request, problem: Problem) -> Response:
    body = problem.body(request_id(request.scope))
    return Response(body, problem.status, problem.headers, "application/json")


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return _answer(request, error)


async def _glauber_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GlauberError)
    return _answer(request, problem_of(error))


async def _http_error(request: Request, error: Exception) -> Response:
    """What the framework refuses: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    name = _NAMES.get(error.status_code, "HTTPError")
    message = f"{request.method} {request.url.path}: {error.detail}; GET /openapi.json lists what there is"
    return _answer(request, Problem(error.status_code, name, message, error.headers))


async def _invalid(request: Request, error: Exception) -> Response:
    """Parameters and headers that are not what the description says."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = " ".join(str(part) for part in first["loc"])
    return _answer(request, Problem(422, "InvalidModelError", f"{where}: {first['msg']}"))
