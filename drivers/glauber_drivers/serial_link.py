"""A conversation with a board by docs/wire-protocol.md: sessions, requests, answers and retries."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from glauber.driver import Transport
from glauber.errors import DeviceIOError, GlauberError, ModelNotSupportedError, ProtocolError

from glauber_drivers import wire
from glauber_drivers.wire import Operation, Segment, Status

HANDSHAKE_SECONDS = 5.0
"""A board that has just been reset may take so long to answer its first HELLO."""
PATIENCE_SECONDS = 5.0
"""Without a sign of life for so long the link is taken for broken."""
WIDEST_FRAME = 4096
"""Bytes of a frame before COBS, where the board can take as many."""
NOISY_FRAME = 256
"""After an error: a short frame is more likely to come whole."""
CLEAN_FRAMES = 2000
"""After so many without an error frames grow again."""
FIRST_TIMEOUT, LEAST_TIMEOUT, MOST_TIMEOUT = 0.25, 0.03, 1.0
"""Seconds until a request is repeated; between the last two it follows what answers take, as TCP's does (RFC 6298)."""
SLOWEST_BYTES_PER_SECOND = 4_000.0
"""Assumed of a link of which nothing is known yet."""
STALL_SECONDS = 30.0
"""A board that answers, but whose run does not go on for so long, is broken."""


class BoardResetError(DeviceIOError):
    """A new session is needed: the board was reset, somebody else talks to it, or an old run goes on."""


_HINTS = {
    Status.UNKNOWN: "its firmware is older than this driver",
    Status.LENGTH: "its firmware is of another version than this driver",
    Status.VERSIONS: "it speaks another version of the protocol; update the firmware or glauber",
    Status.SELFTEST: "its power-on self-test failed: it does not compute what it should; flash it again or replace it",
    Status.ARGUMENT: "a value is out of range",
    Status.TOO_LARGE: "it is more than the board has room for",
    Status.STATE: "not in its present state",
    Status.BUSY: "it is running something else",
    Status.ROWS: "the program's rows are malformed",
    Status.CHECKSUM: "what it holds is not what was sent",
}


def error_of(operation: int, answer: wire.Answer) -> GlauberError:
    """The typed error of an answer that is not OK."""
    name = Operation(operation).name
    if answer.status is Status.SESSION:
        return BoardResetError(f"the board does not know the session any more ({name}): it was reset in between")
    if answer.status is Status.BUSY and operation in (Operation.PROGRAM, Operation.WRITE, Operation.RUN):
        return BoardResetError(f"the board is busy with a run that nobody waits for ({name}): a new session ends it")
    if answer.status is Status.EDGE:
        return ModelNotSupportedError(f"the chip lacks a coupling that the program has, at position {answer.detail}")
    text = f"the board refused {name}: {_HINTS.get(answer.status, answer.status.name)} (detail {answer.detail})"
    return ModelNotSupportedError(text) if answer.status is Status.TOO_LARGE else ProtocolError(text)


class Link:
    """A session with one board. Thread-safe: each method takes the link for as long as it needs it.

    Args:
        connect: opens the transport; called again after a break.
        name: for messages.
        reproducible: sessions are numbered and not random, so that a recording can be played again.

    Attributes:
        now: the clock.
        reproducible: as given.
        hello: what the board says of itself.
        retries: requests and pieces that had to be asked for again.
        connections: how often the transport was opened.
    """

    def __init__(self, connect: Callable[[], Transport], name: str, *, reproducible: bool = False) -> None:
        self.name = name
        self.now: Callable[[], float] = time.monotonic
        self.reproducible = reproducible
        self.retries = 0
        self.connections = 0
        self.hello: wire.Hello
        self._connect = connect
        self._transport: Transport | None = None
        self._lock = threading.RLock()
        self._session = 0
        self._sequence = 0 if reproducible else secrets.randbelow(0x10000)
        self._shut = False
        self._reader = wire.FrameReader()
        self._answers: dict[tuple[int, int], wire.Answer] = {}
        self._data: deque[tuple[int, int, bytes]] = deque()
        self._heard = 0.0
        self._frame = WIDEST_FRAME
        self._clean = 0
        self._damaged = 0
        self._smooth: float | None = None
        self._spread = 0.0
        self._rate = SLOWEST_BYTES_PER_SECOND

    # Opening and closing

    def open(self, seconds: float = HANDSHAKE_SECONDS) -> wire.Hello:
        """Open the transport, and begin a session; nothing is assumed of what the board printed before.

        Raises:
            DeviceIOError: nobody answers, or not as a glauber board does.
            DeviceNotFoundError: there is no such port.
        """
        with self._lock:
            self.close()
            self._check_shut()
            self._transport = self._connect()
            self.now = getattr(self._transport, "clock", time.monotonic)
            self.connections += 1
            self._reader = wire.FrameReader()
            try:
                self._check_shut()
                return self._greet(seconds)
            except BaseException:
                self.close()
                raise

    def renew(self, seconds: float) -> wire.Hello:
        """Begin a new session on the transport as it is; raises as `open` does."""
        with self._lock:
            return self._greet(seconds)

    def _greet(self, seconds: float) -> wire.Hello:
        if not self.reproducible:
            return self._begin(secrets.randbelow(0xFFFF) + 1, seconds)
        self._begin(0xFFFF - self.connections % 0x7FFF, seconds)  # whatever session the board was in, it ends
        return self._begin(self.connections % 0x7FFF + 1, seconds)

    def _begin(self, session: int, seconds: float) -> wire.Hello:
        self._session = session
        self._answers.clear()
        self._data.clear()
        began, wait = self.now(), FIRST_TIMEOUT
        sequence = self._next(Operation.HELLO)
        payload = wire.hello_request(self._session, WIDEST_FRAME)
        request = b"\0" + wire.encode(wire.Frame(Operation.HELLO, self._session, sequence, payload))
        heard = 0
        while self.now() - began < seconds:
            self._send(request)
            until = self.now() + wait
            while (Operation.HELLO, sequence) not in self._answers and (left := until - self.now()) > 0:
                heard += self._take(left)
            answer = self._answers.pop((Operation.HELLO, sequence), None)
            if answer is not None:
                if answer.status is not Status.OK:
                    raise error_of(Operation.HELLO, answer)
                self.hello = wire.read_hello(answer.rest)
                self._frame = min(self._frame, self.hello.max_frame)
                return self.hello
            wait = min(2 * wait, MOST_TIMEOUT)
        if heard:
            raise ProtocolError(
                f"{self.name} sent {heard} bytes in {seconds:g} s, but no answer to HELLO: the baud rate is wrong, or"
                " it does not run glauber's firmware"
            )
        raise DeviceIOError(
            f"{self.name} did not answer within {seconds:g} s: check power and cable, the baud rate, and that it runs"
            " glauber's firmware; `glauber devices --scan` lists the boards that answer"
        )

    @property
    def is_open(self) -> bool:
        """Whether there is a transport."""
        return self._transport is not None

    def close(self) -> None:
        """Let go of the transport; `open` begins anew."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def shut(self) -> None:
        """Let go of the transport for good; may be called while another thread is at it."""
        self._shut = True
        self.close()

    def _check_shut(self) -> None:
        if self._shut:
            raise DeviceIOError(f"the link to {self.name} was closed")

    # Bytes

    def _next(self, operation: Operation) -> int:
        """The number of a new request; an answer that was left over from 65,536 requests ago is none to this one."""
        self._sequence = (self._sequence + 1) & 0xFFFF
        self._answers.pop((operation, self._sequence), None)
        return self._sequence

    def _open_transport(self) -> Transport:
        if self._transport is None:
            raise DeviceIOError(f"the link to {self.name} is closed")
        return self._transport

    def _send(self, data: bytes) -> None:
        self._open_transport().write(data, PATIENCE_SECONDS + len(data) / SLOWEST_BYTES_PER_SECOND)

    def _take(self, timeout: float) -> int:
        """Read what is there, and sort its frames; returns how many bytes came."""
        data = self._open_transport().read(timeout)
        for frame in self._reader.feed(data):
            self._heard = self.now()
            self._clean += 1
            if frame.session != self._session:
                continue  # of an earlier session
            if frame.operation == wire.DATA:
                if len(frame.payload) > 4:
                    offset = int.from_bytes(frame.payload[:4], "little")
                    self._data.append((frame.sequence, offset, frame.payload[4:]))
            elif frame.operation & wire.REPLY:
                self._answers[frame.operation & ~wire.REPLY, frame.sequence] = wire.read_answer(frame.payload)
        if self._reader.damaged != self._damaged:
            self._damaged = self._reader.damaged
            self._noise()
        elif self._clean >= CLEAN_FRAMES and self._frame < min(WIDEST_FRAME, self.hello.max_frame):
            self._clean, self._frame = 0, min(2 * self._frame, self.hello.max_frame)
        return len(data)

    def _noise(self) -> None:
        """Something was lost: shorter frames from now on."""
        self._frame, self._clean = min(self._frame, NOISY_FRAME), 0

    @property
    def noisy(self) -> bool:
        """Whether frames are short because of errors."""
        return self._frame < min(WIDEST_FRAME, self.hello.max_frame)

    @property
    def piece(self) -> int:
        """Bytes of a stream in one frame."""
        return self._frame - wire.OVERHEAD - 4

    def _timeout(self, n_bytes: int) -> float:
        """Until a request is repeated, when so many bytes are on their way."""
        base = FIRST_TIMEOUT if self._smooth is None else self._smooth + 4 * self._spread
        return min(MOST_TIMEOUT, max(LEAST_TIMEOUT, base)) + 2 * n_bytes / self._rate

    def _measured(self, seconds: float, n_bytes: int) -> None:
        """An answer to a request that was sent once."""
        if n_bytes > 64:
            self._rate = max(SLOWEST_BYTES_PER_SECOND / 4, 0.7 * self._rate + 0.3 * n_bytes / max(seconds, 1e-6))
        if self._smooth is None:
            self._smooth, self._spread = seconds, seconds / 2
            return
        self._spread += 0.25 * (abs(seconds - self._smooth) - self._spread)
        self._smooth += 0.125 * (seconds - self._smooth)

    # Requests

    def request(self, operation: Operation, payload: bytes = b"", *, patience: float = PATIENCE_SECONDS) -> bytes:
        """Ask once, as often as it takes; returns what follows the status.

        Raises:
            DeviceIOError: the link broke, or nothing came for `patience` seconds.
            BoardResetError: the board was reset meanwhile.
            ProtocolError, ModelNotSupportedError: the board refuses.
        """
        with self._lock:
            sequence = self._next(operation)
            encoded = wire.encode(wire.Frame(operation, self._session, sequence, payload))
            began = self.now()
            self._send(encoded)
            wait, tries = self._timeout(len(encoded)), 1
            until = began + wait
            while (operation, sequence) not in self._answers:
                now = self.now()
                if now >= until:
                    if now - max(began, self._heard) >= patience or now - began >= STALL_SECONDS:
                        raise DeviceIOError(
                            f"{self.name} did not answer {operation.name} for {patience:g} s ({tries} tries): it is"
                            " frozen, unplugged or without power. Check it; the next job connects anew"
                        )
                    self.retries += 1
                    tries += 1
                    self._noise()
                    self._send(b"\0" + encoded)
                    wait = min(2 * wait, MOST_TIMEOUT + 2 * len(encoded) / self._rate)
                    until = now + wait
                self._take(max(0.0, until - now))
            if tries == 1:
                self._measured(self.now() - began, len(encoded))
            answer = self._answers.pop((operation, sequence))
            if len(self._answers) > 64:  # late answers to what was asked again
                self._answers.clear()
            if answer.status is not Status.OK:
                raise error_of(operation, answer)
            return answer.rest

    def begin(self, payload: bytes) -> int:
        """RUN; returns the run's number, which is the request's sequence."""
        with self._lock:
            number = (self._sequence + 1) & 0xFFFF
            self.request(Operation.RUN, payload)
            self._data.clear()
            return number

    def post(self, operation: Operation, payload: bytes) -> int:
        """Send a request whose answer is looked for later, by `answer`; returns its sequence number."""
        with self._lock:
            sequence = self._next(operation)
            self._send(wire.encode(wire.Frame(operation, self._session, sequence, payload)))
            return sequence

    def answer(self, operation: Operation, sequence: int) -> wire.Answer | None:
        """The answer to a posted request, if it is there."""
        return self._answers.pop((operation, sequence), None)

    def write(self, segment: Segment, data: bytes) -> None:
        """Write a segment from its beginning, several pieces on their way at a time; raises as `request` does."""
        with self._lock:
            waiting = deque([(0, len(data))] if data else [])
            out: dict[int, tuple[int, int, float]] = {}  # sequence -> (offset, end, when)
            last = self.now()
            while waiting or out:
                while waiting and self._room(len(out)):
                    offset, end = waiting.popleft()
                    cut = min(end, offset + self._frame - wire.OVERHEAD - 8)
                    if cut < end:
                        waiting.appendleft((cut, end))
                    sequence = self.post(Operation.WRITE, wire.write_request(segment, offset, data[offset:cut]))
                    out[sequence] = (offset, cut, self.now())
                bytes_out = sum(end - offset + 32 for offset, end, _ in out.values())
                limit = self._timeout(bytes_out)
                oldest = min(when for _, _, when in out.values())
                self._take(max(0.0, oldest + limit - self.now()))
                now = self.now()
                for sequence in [number for number in out if (Operation.WRITE, number) in self._answers]:
                    answer = self._answers.pop((Operation.WRITE, sequence))
                    offset, end, when = out.pop(sequence)
                    if answer.status is not Status.OK:
                        raise error_of(Operation.WRITE, answer)
                    self._measured(now - when, bytes_out)
                    last = now
                for sequence in [number for number, (_, _, when) in out.items() if now - when > limit]:
                    offset, end, _ = out.pop(sequence)
                    waiting.appendleft((offset, end))
                    self.retries += 1
                    self._noise()
                    self._send(b"\0")
                if now - last > PATIENCE_SECONDS + limit:
                    raise DeviceIOError(
                        f"{self.name} acknowledged nothing for {PATIENCE_SECONDS:g} s while it was written to: it is"
                        " frozen, unplugged or without power. Check it; the next job connects anew"
                    )

    def _room(self, n_out: int) -> bool:
        """Whether one more piece may be on its way: the board's buffer has to take all of them."""
        return n_out == 0 or (n_out + 1) * (self._frame + self._frame // 128 + 8) <= self.hello.window

    # Streams

    def pieces(self, timeout: float) -> Iterator[tuple[int, int, bytes]]:
        """Pieces of streams that have come: (run, offset modulo 2^32, bytes)."""
        with self._lock:
            if not self._data:
                self._take(timeout)
            while self._data:
                yield self._data.popleft()

    def silence(self) -> float:
        """Seconds since the last frame."""
        return self.now() - self._heard

    def noticed_loss(self) -> None:
        """A gap in a stream."""
        self.retries += 1
        self._noise()

    @property
    def retry_seconds(self) -> float:
        """Until a pull is repeated."""
        return self._timeout(self.piece)

    def abort(self) -> None:
        """End a run; never raises, for it comes last. A board that does not answer is greeted anew by the next job."""
        try:
            self.request(Operation.ABORT, patience=1.0)
        except GlauberError:
            self.close()
