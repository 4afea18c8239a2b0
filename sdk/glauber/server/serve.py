"""The running server: uvicorn, signals, and the order in which things stop.

The first SIGTERM or SIGINT: requests get 503, streams of events end (their clients come back with Last-Event-ID), then
running jobs stop at their next batch and stay in the store, where the next start finds them. A second SIGINT ends the
process at once; the store is made for that too.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
from collections.abc import Generator
from types import FrameType

import uvicorn

from glauber.server.app import create_app
from glauber.server.config import LabConfig
from glauber.server.lab import Lab
from glauber.server.logs import log_to_stderr, server_log

STREAM_SECONDS = 10
"""For requests that are still being answered when the server stops."""
CONNECTIONS = 2000
INTERRUPTED = 130


class _Server(uvicorn.Server):
    """Uvicorn that tells the lab first, and leaves signals to us."""

    def __init__(self, config: uvicorn.Config, lab: Lab) -> None:
        super().__init__(config)
        self._lab = lab

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Ours stay installed until the devices are closed; uvicorn's would be raised anew after it has stopped."""
        yield

    def stop(self, number: int, frame: FrameType | None) -> None:
        """A signal came."""
        if self.should_exit:
            if number == signal.SIGINT:
                os._exit(INTERRUPTED)
            return
        self.should_exit = True
        self._lab.stop_accepting()
        self.config.app.state.wakes.wake_all()  # type: ignore[union-attr]


def serve(config: LabConfig) -> None:
    """Serve a lab until a signal comes; the main thread only.

    Raises:
        StoreError: another server serves this store, or it cannot be opened.
        DeviceNotFoundError: a device cannot be opened.
        OSError: the port is taken, or the certificate cannot be read.
    """
    log_to_stderr()
    log = server_log()
    _allow_many_connections()
    with Lab(config) as lab:
        settings = uvicorn.Config(
            create_app(lab),
            host=config.host,
            port=config.port,
            ssl_certfile=config.tls_certificate,
            ssl_keyfile=config.tls_key,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=STREAM_SECONDS,
        )
        settings.load()
        server = _Server(settings, lab)
        listening = _listen(settings)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, server.stop)
        log.info("serving", url=config.url, devices=sorted(lab.devices), store=str(lab.store.path))
        server.run(sockets=[listening])
        log.info("stopping")
    log.info("stopped")


def _allow_many_connections() -> None:
    """Each client that waits holds a connection, and shells allow a process 1,024 files by default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * CONNECTIONS
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _listen(settings: uvicorn.Config) -> socket.socket:
    """The port, taken before anything else may go wrong; uvicorn itself would exit with a message of its own."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio sends at once (TCP_NODELAY) only on sockets that say their protocol; else each answer takes 40 ms more
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise OSError(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror or error}); is another server running"
            " there? --port takes another port"
        ) from error
    return listening
