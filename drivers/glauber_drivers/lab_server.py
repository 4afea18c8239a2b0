"""http://HOST:PORT/devices/NAME and https://..., a device behind a lab server (docs/lab-server.md).

What can be asked again is asked again: submissions carry an idempotency key, so one whose answer was lost is not run
twice, and streams of events go on after the last event that arrived. So a job outlives a server that is restarted, as
long as it comes back within PATIENCE seconds.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glauber.driver import Address, Estimate, RemoteJobs, ServiceEvent
from glauber.energy import EnergyReport
from glauber.errors import (
    AccessError,
    DeviceIOError,
    DeviceNotFoundError,
    FileFormatError,
    GlauberError,
    ModelNotSupportedError,
    ProtocolError,
    error_named,
)
from glauber.request import JobRequest
from glauber.samples import SampleSet
from glauber.spec import AnySpec, Quantity, device_spec_adapter
from pydantic import ValidationError

if TYPE_CHECKING:
    import httpx

PATIENCE = 60.0
"""Seconds without a server after which a job or a request is given up."""
SHORT_PATIENCE = 5.0
"""The same for opening and for cancelling, where somebody waits."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
SILENCE = 45.0
"""Seconds without even a heartbeat (there is one every 15) after which a stream counts as broken."""
ANSWER_SECONDS = 180.0
"""For one answer; a large model takes its time to be compiled."""
TRANSIENT = (429, 502, 503, 504)
DEFAULT_TOKEN = "GLAUBER_TOKEN"
FINAL = ("done", "failed", "cancelled")


def read_token(source: str | None, address: str) -> str | None:
    """A token from where an address says it is.

    Args:
        source: env:NAME or file:PATH; None for the variable GLAUBER_TOKEN, if there is one.
        address: for messages.

    Raises:
        DeviceNotFoundError: it is neither, or there is nothing.
    """
    if source is None:
        return os.environ.get(DEFAULT_TOKEN)
    kind, _, where = source.partition(":")
    if kind == "env" and where:
        if where not in os.environ:
            raise DeviceNotFoundError(f"{address}: the environment has no variable {where}; export {where}=glb_...")
        return os.environ[where].strip()
    if kind == "file" and where:
        try:
            return Path(where).expanduser().read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DeviceNotFoundError(f"{address}: the token cannot be read from {where}: {error}") from error
    raise DeviceNotFoundError(  # and not the address, which may hold the token
        "the token in a device's address must be env:NAME or file:PATH, never the token itself: addresses are logged"
        " and stored with every result. Put it into the environment, export GLAUBER_TOKEN=..., and leave token= out"
    )


class LabService:
    """A glauber.driver.JobService over HTTP.

    Args:
        base: scheme, host and port of the server.
        token: to be shown to it.
    """

    def __init__(self, base: str, token: str | None) -> None:
        import httpx

        self._http = httpx
        self._base = base
        self._device = ""
        self._spec: AnySpec | None = None
        self._closed = threading.Event()
        self._streams: set[socket.socket] = set()
        self._lock = threading.Lock()
        headers = {"User-Agent": "glauber"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._client = httpx.Client(
            base_url=base,
            headers=headers,
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=5.0, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
            trust_env=False,  # a proxy would see the token
            verify=ssl.create_default_context() if base.startswith("https:") else False,  # honours SSL_CERT_FILE
        )

    def use(self, device: str) -> None:
        """Choose the device, and read its description."""
        about = self._json(self._ask("GET", f"/devices/{device}", patience=SHORT_PATIENCE))
        try:
            self._spec = device_spec_adapter.validate_python(about["spec"], strict=False)
        except (KeyError, TypeError, ValidationError) as error:
            raise ProtocolError(
                f"{self._base} describes {device} in a way this glauber does not read: {error}"
            ) from error
        self._device = device

    @property
    def spec(self) -> AnySpec:
        """See JobService.spec."""
        assert self._spec is not None
        return self._spec

    # Jobs

    def submit(self, request: JobRequest) -> str:
        """See JobService.submit. The id is the job's address."""
        headers = {"Idempotency-Key": request.idempotency_key or secrets.token_urlsafe(24)}
        answer = self._json(self._ask("POST", f"/devices/{self._device}/jobs", request.to_bytes(), headers))
        try:
            return f"{self._base}/jobs/{answer['id']}"
        except (KeyError, TypeError) as error:
            raise ProtocolError(f"{self._base} accepted a job and gave it no id: {answer!r}") from error

    def estimate(self, request: JobRequest) -> Estimate:
        """See Estimating.estimate."""
        answer = self._json(self._ask("POST", f"/devices/{self._device}/estimate", request.to_bytes()))
        try:
            seconds = answer["seconds"]
            return Estimate(
                seconds=None if seconds is None else Quantity(**seconds),
                energy=EnergyReport.from_fields(answer["energy"]),
                sweeps=answer["sweeps"],
                updates=answer["updates"],
                host_bytes=answer["host_bytes"],
                run_seconds=answer["run_seconds"],
                starts_in_seconds=answer["starts_in_seconds"],
                jobs_ahead=answer["jobs_ahead"],
            )
        except (KeyError, TypeError, ValidationError) as error:
            raise ProtocolError(f"{self._base} sent an estimate that makes no sense: {error!r}") from error

    def result(self, job_id: str) -> SampleSet:
        """See JobService.result."""
        return self._samples(job_id, "result")

    def request(self, job_id: str) -> JobRequest:
        """See RemoteJobs.request."""
        content = self._ask("GET", f"{self._path(job_id)}/request", patience=SHORT_PATIENCE).content
        return JobRequest.from_bytes(content, name=f"the request of {job_id}")

    def partial_result(self, job_id: str) -> SampleSet:
        """See PartialResults.partial_result."""
        return self._samples(job_id, "partial")

    def _samples(self, job_id: str, what: str) -> SampleSet:
        content = self._ask("GET", f"{self._path(job_id)}/{what}").content
        try:
            return SampleSet.from_bytes(content, name=f"the result of {job_id}")
        except FileFormatError as error:
            raise ProtocolError(f"the server sent a result that cannot be read: {error}") from error

    def cancel(self, job_id: str) -> None:
        """See JobService.cancel."""
        self._ask("POST", f"{self._path(job_id)}/cancel", patience=SHORT_PATIENCE)

    def events(self, job_id: str, after: int) -> Iterable[ServiceEvent]:
        """See JobService.events. A stream that breaks is taken up again where it broke."""
        path, last, contact, pause = self._path(job_id), after, time.monotonic(), FIRST_PAUSE
        while True:
            try:
                for kind, event in self._stream(f"{path}/events", last):
                    contact, pause = time.monotonic(), FIRST_PAUSE
                    last = event.number if kind == "state" else last
                    yield event
                    if event.status in FINAL:
                        return
            except (self._http.TransportError, self._http.StreamError, _Transient, RuntimeError) as error:
                self._check_open()  # RuntimeError: the client was closed by another thread
                trouble: object = error
                if isinstance(error, _Transient):  # it answers, and asks for patience
                    contact, pause = time.monotonic(), max(pause, error.seconds)
            else:
                trouble, contact = "it ended the stream of events", time.monotonic()
            self._check_open()
            if time.monotonic() - contact > PATIENCE:
                raise DeviceIOError(
                    f"{self._base} could not be reached for {PATIENCE:g} s while job {job_id} ran ({trouble}); the job"
                    " itself may go on there"
                )
            pause = self._rest(pause)

    def _stream(self, path: str, last: int) -> Iterator[tuple[str, ServiceEvent]]:
        """One connection's events, each with its kind."""
        from httpx_sse import EventSource

        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(last)}
        timeout = self._http.Timeout(SILENCE, connect=5.0, pool=None)
        with self._client.stream("GET", path, headers=headers, timeout=timeout) as response, self._watched(response):
            if response.status_code != 200:
                response.read()
                error = self._error(response)
                if response.status_code in TRANSIENT:
                    raise _Transient(str(error), _retry_after(response))
                raise error
            for sent in EventSource(response).iter_sse():
                if not sent.data:  # a comment, which httpx-sse reports once it has seen an id
                    continue
                number = int(sent.id) if sent.event == "state" else -1
                try:
                    data = json.loads(sent.data)
                    facts = {name: data[name] for name in ("status", "sweeps_done", "samples_done", "message")}
                    rest = {name: data[name] for name in ("error", "previous") if data.get(name)}
                    if rest.get("previous"):
                        rest["previous"] = f"{self._base}/jobs/{rest['previous']}"
                    event = ServiceEvent(number, **facts, **rest)
                except (KeyError, TypeError, ValueError) as error:
                    raise ProtocolError(f"{self._base} sent an event that makes no sense: {sent.data!r}") from error
                yield sent.event, event

    @contextmanager
    def _watched(self, response: httpx.Response) -> Iterator[None]:
        """While a stream is open its socket is known, so that `close` can wake who reads from it."""
        connection = response.extensions["network_stream"].get_extra_info("socket")
        with self._lock:
            self._streams.add(connection)
        try:
            self._check_open()
            yield
        finally:
            with self._lock:
                self._streams.discard(connection)

    def close(self) -> None:
        """See JobService.close: whatever waits for the server stops waiting."""
        self._closed.set()
        with self._lock:
            for connection in self._streams:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._client.close()

    # Requests

    def _path(self, job_id: str) -> str:
        head = f"{self._base}/jobs/"
        if not job_id.startswith(head):
            raise DeviceIOError(f"{job_id} is not a job of {self._base}")
        return job_id[len(self._base) :]

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise DeviceIOError(f"the connection to {self._base} was closed here")

    def _rest(self, pause: float, at_least: float = 0.0) -> float:
        """Wait a random part of a pause, so that clients do not come back all at once; the next pause."""
        self._closed.wait(max(at_least, pause * random.uniform(0.5, 1.0)))
        self._check_open()
        return min(2 * pause, LONGEST_PAUSE)

    def _ask(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        patience: float | None = None,
    ) -> httpx.Response:
        """An answer of status 2xx; everything that is asked here may be asked twice."""
        deadline, pause = time.monotonic() + (PATIENCE if patience is None else patience), FIRST_PAUSE
        kind = {} if content is None else {"Content-Type": "application/octet-stream"}
        while True:
            self._check_open()
            at_least = 0.0
            failure: GlauberError
            try:
                response = self._client.request(method, path, content=content, headers={**kind, **(headers or {})})
            except (self._http.TransportError, RuntimeError) as error:  # RuntimeError: closed by another thread
                self._check_open()
                failure = DeviceIOError(f"{self._base} cannot be reached: {error or type(error).__name__}")
            else:
                if response.is_success:
                    return response
                failure = self._error(response)
                if response.status_code not in TRANSIENT:
                    raise failure
                at_least = _retry_after(response)
            if time.monotonic() + at_least > deadline:
                raise failure
            pause = self._rest(pause, at_least)

    def _json(self, response: httpx.Response) -> Any:
        try:
            return response.json()
        except ValueError as error:
            raise ProtocolError(f"{response.url} answered what is not JSON; is it a lab server?") from error

    def _error(self, response: httpx.Response) -> GlauberError:
        """The error that the server had, by its name."""
        try:
            told = response.json()
            name, message = str(told["error"]), str(told["message"])
        except (ValueError, KeyError, TypeError):
            return ProtocolError(f"{response.url} answered {response.status_code}, and not as a lab server does")
        if name == "RequestTooLargeError":
            return ModelNotSupportedError(message)
        reasons = tuple(map(str, told.get("reasons") or ()))
        fallback = DeviceIOError(f"{message} (request {told.get('request_id')} at {self._base})")
        return error_named(name, message, reasons) or fallback


class _Transient(Exception):  # noqa: N818
    """The server is there and asks to be asked later: in so many seconds."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


def _retry_after(response: httpx.Response) -> float:
    told = response.headers.get("Retry-After", "")
    return float(told) if told.isascii() and told.isdigit() else 0.0


class LabFactory:
    """Opens http(s)://HOST:PORT/devices/NAME?token=env:NAME|file:PATH."""

    def open(self, address: Address) -> LabService:
        """See DriverFactory.open."""
        base, what, name, token = _parts(address)
        if what != "devices":
            raise DeviceNotFoundError(
                f"{base}/{what}/{name} is a job; open a device, or ask for it by glauber.get_job()"
            )
        return _opened(base, token, name, f"{base}/devices/{name}")

    def devices(self) -> Iterable[tuple[str, AnySpec]]:
        """See DriverFactory.devices: which servers there are nobody says."""
        return ()

    def open_job(self, address: Address) -> tuple[RemoteJobs, str]:
        """See RemoteJobFactory.open_job."""
        base, what, name, token = _parts(address)
        if what != "jobs":
            raise DeviceNotFoundError(f"{base}/{what}/{name} is a device, not a job; open it by glauber.open_device()")
        return _opened(base, token, None, f"{base}/jobs/{name}"), f"{base}/jobs/{name}"


def _opened(base: str, token: str | None, device: str | None, address: str) -> LabService:
    try:
        service = LabService(base, token)
    except ImportError as error:
        raise DeviceNotFoundError(
            f"{address} needs the package {error.name}; install it with: pip install 'glauber[remote]'"
        ) from error
    try:
        if device is None:
            job = service._json(service._ask("GET", address[len(base) :], patience=SHORT_PATIENCE))
            device = str(job["device"])
        service.use(device)
    except AccessError:
        service.close()
        raise
    except DeviceIOError as error:
        service.close()
        raise DeviceNotFoundError(f"no lab server answers at {address}: {error}") from error
    except BaseException:
        service.close()
        raise
    return service


def _parts(address: Address) -> tuple[str, str, str, str | None]:
    """Base URL, "devices" or "jobs", the name, and the token."""
    host, _, path = address.name.partition("/")
    parts = path.split("/")
    if not host or "@" in host or len(parts) != 2 or parts[0] not in ("devices", "jobs") or not parts[1]:
        raise DeviceNotFoundError(
            f"{address.scheme}:// addresses look like {address.scheme}://HOST:8765/devices/NAME, with the token in the"
            " environment's GLAUBER_TOKEN"
        )
    where = f"{address.scheme}://{host}/{path}"
    unknown = set(address.parameters) - {"token"}
    if unknown:
        raise DeviceNotFoundError(f"{where} takes token=env:NAME or token=file:PATH and seed, not {', '.join(unknown)}")
    return f"{address.scheme}://{host}", parts[0], parts[1], read_token(address.parameters.get("token"), where)
