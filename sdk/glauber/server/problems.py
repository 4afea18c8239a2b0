"""Errors as answers: every one is JSON with the error's name, its message and the request's id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from glauber.errors import (
    AccessError,
    BudgetExceededError,
    DeviceClosedError,
    DeviceIOError,
    DeviceNotFoundError,
    FileFormatError,
    GlauberError,
    InvalidModelError,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    ModelNotSupportedError,
    StoreError,
)


class ErrorAnswer(BaseModel):
    """What every error looks like."""

    error: str
    """Name of a class of glauber.errors, or of what HTTP itself refuses."""
    message: str
    request_id: str
    reasons: list[str] = []
    """Of a ModelNotSupportedError, one sentence for each thing that does not fit."""


class Problem(Exception):  # noqa: N818 - it is an answer
    """An error with its status.

    Args:
        status: of HTTP.
        error: name of the error.
        message: what was asked, what is possible, what to try.
        headers: further ones.
        reasons: see ErrorAnswer.
    """

    def __init__(
        self,
        status: int,
        error: str,
        message: str,
        headers: Mapping[str, str] | None = None,
        reasons: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.status, self.error, self.message = status, error, message
        self.headers, self.reasons = dict(headers or {}), reasons

    def body(self, request_id: str) -> bytes:
        """The answer's body."""
        answer = ErrorAnswer(error=self.error, message=self.message, request_id=request_id, reasons=list(self.reasons))
        return answer.model_dump_json().encode()


_STATUS: tuple[tuple[type[GlauberError], int], ...] = (
    (ModelNotSupportedError, 422),
    (InvalidModelError, 422),
    (FileFormatError, 400),
    (BudgetExceededError, 403),
    (AccessError, 403),
    (JobNotFoundError, 404),
    (DeviceNotFoundError, 404),
    (JobCancelledError, 409),
    (JobFailedError, 409),
    (DeviceClosedError, 503),
    (DeviceIOError, 502),
    (StoreError, 503),
)


def problem_of(error: GlauberError) -> Problem:
    """An error of glauber as an answer."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    reasons = error.reasons if isinstance(error, ModelNotSupportedError) else ()
    headers = {"Retry-After": "1"} if status == 503 else None
    return Problem(status, type(error).__name__, str(error), headers, reasons)


_MEANING = {
    400: "not what it claims to be: broken, or for another host",
    401: "no token, or one that is wrong, expired or revoked",
    403: "the token's scope or the owner's budget does not allow it",
    404: "there is no such device, job or reservation",
    408: "the body took too long",
    409: "it contradicts what was asked before, or the job has no such thing",
    413: "the body is too large",
    415: "the body is of another type",
    422: "invalid, or not possible on this device",
    429: "too many requests; Retry-After says when",
    503: "the server is stopping",
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: these errors, and those that every route with a token has."""
    return {
        status: {"model": ErrorAnswer, "description": _MEANING[status]}
        for status in sorted({400, 401, 403, 422, 429, 503, *statuses})
    }
