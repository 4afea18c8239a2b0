"""A bad cable, on purpose: middleware that disturbs the bytes between a driver and its board, reproducibly.

with gl.open_device("serial:///dev/ttyACM0", wrap=LinkFaults(flips=1e-4, drops=1e-4, seed=1)) as device:
    ...                                  # every job must be right, or fail by a DeviceIOError

Faults are drawn as distances from one to the next, so that a byte without a fault costs nothing.
"""

from __future__ import annotations

import math
import random
import threading
import time
from dataclasses import dataclass, fields

from glauber.driver import Transport
from glauber.errors import DeviceIOError, InvalidModelError


@dataclass
class LinkFaultCounts:
    """What was done so far, over both directions and all reconnects.

    Attributes:
        bytes: that came to be sent or received.
        flips: bits inverted.
        drops: bytes lost.
        duplicates: bytes doubled.
        delays: deliveries held back.
        splits: deliveries cut in two.
        disconnects: links broken.
        freezes: silences.
        transports: links opened.
    """

    bytes: int = 0
    flips: int = 0
    drops: int = 0
    duplicates: int = 0
    delays: int = 0
    splits: int = 0
    disconnects: int = 0
    freezes: int = 0
    transports: int = 0


KINDS = ("flips", "drops", "duplicates", "delays", "splits", "disconnects", "freezes")


class LinkFaults:
    """Middleware for `open_device(..., wrap=...)`: probabilities per byte, in both directions.

    One instance serves all transports that a driver opens one after the other, with one stream of random numbers, so a
    reconnect goes on where the broken link ended. Same seed and same traffic, same faults.

    Args:
        flips: that one bit of a byte is inverted.
        drops: that a byte is lost.
        duplicates: that a byte comes twice.
        delays: that what is read arrives `delay_seconds` late.
        splits: that a delivery is cut before this byte, and the rest comes later.
        disconnects: that the link breaks at this byte, for good: every call raises DeviceIOError until the driver
            opens a new one.
        freezes: that nothing passes in either direction for `freeze_seconds`; nothing is lost.
        disconnect_after: bytes, counted from the first one, after which the link breaks once.
        delay_seconds: length of a delay.
        freeze_seconds: length of a silence.
        seed: of the faults.

    Attributes:
        counts: what was done.
        active: while False, bytes pass untouched; may be set at any time, such as after a handshake.

    Raises:
        InvalidModelError: a probability that is none, or a negative time.
    """

    def __init__(
        self,
        *,
        flips: float = 0.0,
        drops: float = 0.0,
        duplicates: float = 0.0,
        delays: float = 0.0,
        splits: float = 0.0,
        disconnects: float = 0.0,
        freezes: float = 0.0,
        disconnect_after: int | None = None,
        delay_seconds: float = 0.01,
        freeze_seconds: float = 0.5,
        seed: int = 0,
    ) -> None:
        given = (flips, drops, duplicates, delays, splits, disconnects, freezes)
        self._rates: dict[str, float] = dict(zip(KINDS, given, strict=True))
        for name, rate in self._rates.items():
            if not 0 <= rate < 1:
                raise InvalidModelError(f"{name} is a probability per byte, at least 0 and below 1, not {rate!r}")
        for name, value in (("delay_seconds", delay_seconds), ("freeze_seconds", freeze_seconds)):
            if not 0 <= value < math.inf:
                raise InvalidModelError(f"{name} must be at least 0 seconds, not {value!r}")
        if disconnect_after is not None and disconnect_after < 0:
            raise InvalidModelError(f"disconnect_after must be at least 0 bytes, not {disconnect_after!r}")
        self.delay_seconds, self.freeze_seconds = delay_seconds, freeze_seconds
        self.counts = LinkFaultCounts()
        self.active = True
        self._break_at = disconnect_after
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._next = {name: self._skip(rate) for name, rate in self._rates.items() if rate}
        self._frozen_until = 0.0

    def __call__(self, transport: Transport) -> FaultyTransport:
        """Disturb this transport."""
        self.counts.transports += 1
        return FaultyTransport(transport, self)

    def break_after(self, n_bytes: int | None) -> None:
        """Break the link once, when so many further bytes have passed; None takes that back."""
        with self._lock:
            self._break_at = None if n_bytes is None else self.counts.bytes + n_bytes

    def __repr__(self) -> str:
        done = ", ".join(f"{f.name}={getattr(self.counts, f.name)}" for f in fields(self.counts))
        return f"LinkFaults({done})"

    def _skip(self, rate: float) -> int:
        """Bytes until the next fault: geometric."""
        return int(min(math.log1p(-self._random.random()) / math.log1p(-rate), 2.0**62))

    def disturb(self, data: bytes) -> Disturbed:
        """What becomes of bytes on their way."""
        if not self.active:
            return Disturbed([data])
        with self._lock:
            begin, self.counts.bytes = self.counts.bytes, self.counts.bytes + len(data)
            events: list[tuple[int, str]] = []
            for name, left in self._next.items():
                at = left
                while at < len(data):
                    events.append((at, name))
                    at += 1 + self._skip(self._rates[name])
                self._next[name] = at - len(data)
            if self._break_at is not None and self._break_at < begin + len(data):
                events.append((max(0, self._break_at - begin), "disconnects"))
                self._break_at = None
            return self._apply(data, sorted(events)) if events else Disturbed([data])

    def _apply(self, data: bytes, events: list[tuple[int, str]]) -> Disturbed:
        pieces: list[bytes] = []
        piece, done = bytearray(), 0
        outcome = Disturbed(pieces)
        for at, name in events:
            piece += data[done:at]
            if done > at and name in ("flips", "drops"):
                continue  # another fault has had this byte
            done = max(done, at)
            setattr(self.counts, name, getattr(self.counts, name) + 1)
            if name == "disconnects":
                outcome.broken = True
                break
            if name == "flips":
                piece.append(data[at] ^ 1 << self._random.randrange(8))
                done = at + 1
            elif name == "drops":
                done = at + 1
            elif name == "duplicates":
                piece += data[at : at + 1]
            elif name == "splits" and piece:
                pieces.append(bytes(piece))
                piece = bytearray()
            elif name == "delays":
                outcome.delay = self.delay_seconds
            elif name == "freezes":
                self._frozen_until = max(self._frozen_until, time.monotonic() + self.freeze_seconds)
        if not outcome.broken:
            piece += data[done:]
        if piece:
            pieces.append(bytes(piece))
        return outcome

    def frozen(self) -> float:
        """Seconds until something passes again."""
        return max(0.0, self._frozen_until - time.monotonic())


@dataclass
class Disturbed:
    """What became of some bytes.

    Attributes:
        pieces: in the order of their arrival.
        delay: seconds until the first.
        broken: the link breaks after the last.
    """

    pieces: list[bytes]
    delay: float = 0.0
    broken: bool = False


class FaultyTransport:
    """A transport whose bytes suffer; `LinkFaults` makes them."""

    def __init__(self, transport: Transport, faults: LinkFaults) -> None:
        self._inner = transport
        self._faults = faults
        self._dead = False
        self._breaks = False  # once what is pending has been read
        self._pending: list[bytes] = []
        self._ready = 0.0

    def read(self, timeout: float) -> bytes:
        """See Transport.read."""
        deadline = time.monotonic() + timeout
        while True:
            now = time.monotonic()
            wait = max(self._faults.frozen(), self._ready - now if self._pending else 0.0)
            if wait > 0:
                time.sleep(min(wait, max(0.0, deadline - now)))
                if now + wait > deadline:
                    return b""
                continue
            self._check()
            if self._pending:
                return self._pending.pop(0)
            if self._breaks:
                self._break()
            data = self._inner.read(max(0.0, deadline - now))
            if not data:
                return b""
            outcome = self._faults.disturb(data)
            self._pending, self._breaks = outcome.pieces, outcome.broken
            self._ready = time.monotonic() + outcome.delay

    def write(self, data: bytes, timeout: float) -> None:
        """See Transport.write."""
        self._check()
        deadline = time.monotonic() + timeout
        frozen = self._faults.frozen()
        if frozen > timeout:
            time.sleep(timeout)
            raise DeviceIOError(f"the link took none of {len(data)} bytes for {timeout:g} s (a freeze, on purpose)")
        time.sleep(frozen)
        outcome = self._faults.disturb(data)
        for piece in outcome.pieces:
            self._inner.write(piece, max(0.0, deadline - time.monotonic()))
        if outcome.broken:
            self._break()

    def close(self) -> None:
        """See Transport.close."""
        self._inner.close()

    def _check(self) -> None:
        if self._dead:
            raise DeviceIOError("the link is broken (on purpose); open a new one")

    def _break(self) -> None:
        self._dead = True
        self._inner.close()
        self._check()
