"""The server's log: one JSON object a line on standard error, with request, job and owner. Never a token."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.ExtraAdder(),  # what devices say of jobs
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def server_log() -> Any:
    """The log of the server's own events."""
    return structlog.wrap_logger(
        logging.getLogger("glauber.server"),
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def log_to_stderr() -> None:
    """Send what glauber and uvicorn say to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    render: list[Any] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=render, foreign_pre_chain=_SHARED))
    for name, level in (("glauber", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
