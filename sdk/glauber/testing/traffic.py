"""Serial traffic recorded on the bench and replayed in CI.

recorder = Recorder("king.jsonl", "serial:///dev/ttyACM0")
with gl.open_device(recorder.address, wrap=recorder) as device: ...       # with the board
with gl.open_device("serial:///dev/ttyACM0", wrap=Replay("king.jsonl")) as device: ...     # without it

A recording is text, one JSON object a line: a header, then what passed, in the order in which it did:

    {"format": "glauber.traffic", "version": 1, "address": "serial:///dev/ttyACM0", "created": "2026-05-04T12:00:00Z"}
    {"t": 0.0, "event": "open"}
    {"t": 0.0123, "direction": "to device", "hex": "0605..."}
    {"t": 0.0141, "direction": "from device", "hex": "0606..."}
"""

from __future__ import annotations

import bisect
import json
import math
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from glauber.driver import Transport
from glauber.errors import DeviceIOError, FileFormatError, ProtocolError

FORMAT, VERSION = "glauber.traffic", 1
TO_DEVICE, FROM_DEVICE = "to device", "from device"
SHOWN = 8
"""Bytes that a message shows on either side of a difference."""


class Recorder:
    """Middleware that writes down what passes; every line is on disk when the call that caused it returns.

    Drivers are asked to say the same bytes each time, so that the recording can be played.

    Args:
        path: of the file, which is overwritten.
        address: of the device, for the header.
    """

    reproducible = True

    def __init__(self, path: str | Path, address: str = "") -> None:
        self.path, self.address = Path(path), address
        self._file: IO[str] = self.path.open("w", encoding="ascii", newline="\n")
        self._lock = threading.Lock()
        self._began = time.monotonic()
        created = datetime.now(UTC).isoformat(timespec="seconds")
        self._line({"format": FORMAT, "version": VERSION, "address": address, "created": created})

    def _line(self, content: dict[str, Any]) -> None:
        with self._lock:
            if not self._file.closed:
                self._file.write(json.dumps(content) + "\n")
                self._file.flush()

    def note(self, content: dict[str, Any]) -> None:
        """Write a line with the time, in seconds since the recorder was made."""
        self._line({"t": round(time.monotonic() - self._began, 6), **content})

    def __call__(self, transport: Transport) -> Transport:
        """Record this transport; a new session of the same file."""
        self.note({"event": "open"})
        return _Recorded(transport, self)

    def close(self) -> None:
        """End the file; what passes later is not recorded."""
        with self._lock:
            self._file.close()


class _Recorded:
    def __init__(self, transport: Transport, recorder: Recorder) -> None:
        self._inner, self._recorder = transport, recorder

    def read(self, timeout: float) -> bytes:
        """See Transport.read."""
        data = self._inner.read(timeout)
        if data:
            self._recorder.note({"direction": FROM_DEVICE, "hex": data.hex()})
        return data

    def write(self, data: bytes, timeout: float) -> None:
        """See Transport.write."""
        self._recorder.note({"direction": TO_DEVICE, "hex": data.hex()})  # before the answer can come
        self._inner.write(data, timeout)

    def close(self) -> None:
        """See Transport.close."""
        self._inner.close()


@dataclass
class Session:
    """One opened link of a recording.

    Attributes:
        sent: all bytes to the device.
        writes: (bytes sent with it and before, seconds), in order.
        answers: (bytes sent before it came, bytes that came, seconds), in order.
        began: seconds.
    """

    sent: bytearray = field(default_factory=bytearray)
    writes: list[tuple[int, float]] = field(default_factory=list)
    answers: list[tuple[int, bytes, float]] = field(default_factory=list)
    began: float = 0.0


@dataclass(frozen=True)
class Traffic:
    """A recording.

    Attributes:
        address: of the device that was recorded.
        created: when, ISO 8601.
        sessions: one for each time that a link was opened.
    """

    address: str
    created: str
    sessions: tuple[Session, ...]


def read_traffic(path: str | Path) -> Traffic:
    """Read a recording.

    Raises:
        FileFormatError: it is truncated or malformed; the message has the line's number.
    """
    try:
        text = Path(path).read_bytes().decode("ascii")
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path} is no recording of traffic: byte {error.start} is not ASCII") from error
    if not text.endswith("\n"):
        raise FileFormatError(
            f"{path}, line {text.count(chr(10)) + 1}: the recording is truncated, its last line has no end"
        )
    lines = [(number, _parsed(path, number, line)) for number, line in enumerate(text[:-1].split("\n"), 1)]
    header = lines[0][1]
    if header.get("format") != FORMAT:
        raise FileFormatError(f'{path}, line 1: a recording begins with {{"format": "{FORMAT}", ...}}')
    if header.get("version") != VERSION:
        raise FileFormatError(
            f"{path}, line 1: version {header.get('version')!r} of {FORMAT} is not understood; {VERSION} is"
        )
    return Traffic(str(header.get("address", "")), str(header.get("created", "")), _sessions(path, lines[1:]))


def _parsed(path: str | Path, number: int, line: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}, line {number}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise FileFormatError(f"{path}, line {number}: a line must be a JSON object, not {line[:40]!r}")
    return content


def _sessions(path: str | Path, lines: Iterable[tuple[int, dict[str, Any]]]) -> tuple[Session, ...]:
    sessions: list[Session] = []
    for number, line in lines:
        where = f"{path}, line {number}"
        t = line.get("t")
        if isinstance(t, bool) or not isinstance(t, int | float) or not 0 <= t < math.inf:
            raise FileFormatError(f"{where}: t must be seconds from the beginning, not {t!r}")
        if line.get("event") == "open":
            sessions.append(Session(began=float(t)))
            continue
        if line.get("direction") not in (TO_DEVICE, FROM_DEVICE):
            raise FileFormatError(
                f'{where}: there must be an event "open", or a direction "to device" or "from device"'
            )
        if not sessions:
            raise FileFormatError(f"{where}: bytes passed before any link was opened")
        try:
            data = bytes.fromhex(line["hex"])
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(f"{where}: hex must hold pairs of hexadecimal digits: {error}") from error
        if line["direction"] == TO_DEVICE:
            sessions[-1].sent += data
            sessions[-1].writes.append((len(sessions[-1].sent), float(t)))
        else:
            sessions[-1].answers.append((len(sessions[-1].sent), data, float(t)))
    return tuple(sessions)


class Replay:
    """A board played by a recording: the recorded answers to the recorded bytes, as fast as they are asked for.

    An answer comes as soon as all that was sent before it in the recording has been sent again; how writes are cut does
    not matter. It is middleware for `open_device(..., wrap=...)` and a Transport by itself. Its clock is that of the
    recording, so that a driver that asks again after a while does so at the same place, without waiting.

    Args:
        path: of a file that a `Recorder` wrote.

    Attributes:
        traffic: what was recorded.

    Raises:
        FileFormatError: see read_traffic.
    """

    reproducible = True

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._now = 0.0
        self.traffic = read_traffic(path)
        self._opened = 0
        self._session = Session()
        self._written = self._answered = 0
        self._failure: DeviceIOError | None = None

    def connect(self) -> Transport:
        """The next recorded link.

        Raises:
            ProtocolError: it was not opened that often.
        """
        if self._opened == len(self.traffic.sessions):
            raise ProtocolError(
                f"the link was opened {self._opened} times when {self.path} was recorded, and is opened once more now"
            )
        self._session = self.traffic.sessions[self._opened]
        self._opened += 1
        self._written = self._answered = 0
        self._now = max(self._now, self._session.began)
        self._failure = None
        return self

    def clock(self) -> float:
        """Seconds, as they passed when it was recorded."""
        return self._now

    def __call__(self, transport: Transport) -> Transport:
        """The recorded link in place of this one."""
        transport.close()
        return self.connect()

    def read(self, timeout: float) -> bytes:
        """See Transport.read; an answer that is not due yet will never come by waiting, so only the clock goes on."""
        self._check()
        answers = self._session.answers
        if self._answered < len(answers) and answers[self._answered][0] <= self._written:
            _, data, when = answers[self._answered]
            self._answered += 1
            self._now = max(self._now, when)
            return data
        due = self._next_write()
        self._now = due if self._now < due < self._now + timeout else self._now + timeout
        return b""

    def _next_write(self) -> float:
        """When the bytes after those that were sent went out."""
        writes = self._session.writes
        after = bisect.bisect_right(writes, (self._written, math.inf))
        return writes[after][1] if after < len(writes) else -math.inf

    def write(self, data: bytes, timeout: float) -> None:
        """See Transport.write.

        Raises:
            ProtocolError: the bytes are not those of the recording; the message shows where they begin to differ.
        """
        self._check()
        expected = bytes(self._session.sent[self._written : self._written + len(data)])
        if data != expected:
            self._failure = self._difference(data, expected)
            raise self._failure
        self._written += len(data)
        after = bisect.bisect_left(self._session.writes, (self._written, -math.inf))
        if after < len(self._session.writes):
            self._now = max(self._now, self._session.writes[after][1])

    def close(self) -> None:
        """See Transport.close."""
        self._failure = self._failure or DeviceIOError("the link is closed")

    @property
    def finished(self) -> bool:
        """Whether everything in the recording was sent and read again."""
        last = not self.traffic.sessions or self._opened == len(self.traffic.sessions)
        session = self._session
        return last and self._written == len(session.sent) and self._answered == len(session.answers)

    def _check(self) -> None:
        if not self._opened:
            self.connect()
        if self._failure is not None:
            raise self._failure

    def _difference(self, data: bytes, expected: bytes) -> ProtocolError:
        same = next((k for k, (a, b) in enumerate(zip(data, expected, strict=False)) if a != b), len(expected))
        begin, at = max(0, same - SHOWN), self._written + same
        link = f" of link {self._opened}" if len(self.traffic.sessions) > 1 else ""
        was = expected[begin : same + SHOWN].hex(" ") or "nothing more"
        return ProtocolError(
            f"the traffic differs from {self.path} at byte {at}{link} to the device: from byte {self._written + begin}"
            f" on, {was} was recorded and {data[begin : same + SHOWN].hex(' ')} is sent. Record again if the change is"
            " meant"
        )
