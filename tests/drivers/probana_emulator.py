"""A Probana that only speaks: the protocol of its firmware, with the noise of NumPy in place of its p-bits.

Written from the facts of the protocol (see glauber_drivers.probana_link). `ProbanaEmulator.feed` takes bytes and hands
the answers to `send`; `MemoryTransport` connects that to a driver without a port, `ProbanaOnPty` by a real tty.
"""

from __future__ import annotations

import os
import pty
import select
import threading
import time
import tty
from collections.abc import Callable

import numpy as np
from glauber.errors import DeviceIOError

MAX_VIRTUAL, MAX_BANKS, MAX_EDGES, MAX_TABLE, CHUNK, LONGEST = 128, 128, 4096, 8192, 8, 191
STEPS = 51


class UnpluggedError(Exception):
    """Raised by `send` when the cable was pulled."""


def whole(text: str) -> int:
    if not text.isdigit():
        raise ValueError(text)
    return int(text)


class ProbanaEmulator:
    """The board.

    Args:
        send: takes what the board says.
        seed: of its noise.
        physical: p-bits.
        curves: for each p-bit (centre c, width w) of its probability over the bias, 1 / (1 + exp((c - V) / w)); each
            update then goes the way of the firmware, through the calibrated inverse. None: ideal p-bits.
        refuse: command -> reason, to refuse it with.
        corrupt: number of the sample -> the line to say in its place; None to say nothing more at all.
        unplug_at: the sample before which the cable is pulled.
        time_scale: seconds of a second of the board; 0 runs as fast as it can.
    """

    def __init__(
        self,
        send: Callable[[bytes], None],
        *,
        seed: int = 1,
        physical: int = 8,
        version: int = 2,
        curves: list[tuple[float, float]] | None = None,
        refuse: dict[str, str] | None = None,
        corrupt: dict[int, str | None] | None = None,
        unplug_at: int | None = None,
        time_scale: float = 0.0,
    ) -> None:
        self.send, self.physical, self.version = send, physical, version
        self.rng = np.random.default_rng(seed)
        self.curves = curves
        self.refuse, self.corrupt, self.unplug_at, self.time_scale = refuse or {}, corrupt or {}, unplug_at, time_scale
        self.commands: list[str] = []
        self.samples_said = 0
        self.mute = False
        self._line = b""
        self._voltages = np.linspace(0, 3.3, STEPS)
        if curves is not None:  # 2,000 samples each, as the firmware takes
            true = np.array([[self._curve(lane, v) for v in self._voltages] for lane in range(physical)])
            self._measured = self.rng.binomial(2000, true) / 2000
        self._reset()

    def _reset(self) -> None:
        self.n = self.n_banks = self.n_edges = 0
        self.banks: list[list[int]] = []
        self.edges: list[tuple[int, int, float]] = []
        self.h = np.zeros(MAX_VIRTUAL)
        self.state = np.zeros(0, dtype=np.int64)
        self.sequential = self.committed = False
        self.scale: Callable[[int, int], float] = lambda sweep, sample: 1.0
        self.table: list[float] = []
        self.table_size = 0
        self.loading = False

    def _say(self, line: str) -> None:
        if not self.mute:
            self.send(line.encode() + b"\r\n")

    def boot(self, seconds: float) -> None:
        """What it says when it starts."""
        self._say("CALIBRATION")
        time.sleep(seconds)
        self._say(f"READY PROBANA {self.version} {self.physical} WORKING")

    def feed(self, data: bytes) -> None:
        self._line += data
        while b"\n" in self._line:
            line, self._line = self._line.split(b"\n", 1)
            text = line.replace(b"\r", b"").decode("latin-1")
            if len(text) > LONGEST:
                self._say("ERR LINE_TOO_LONG")
            elif text.split():
                self.commands.append(text)
                self._obey(text.split(" "))

    def _obey(self, words: list[str]) -> None:
        name, rest = words[0], words[1:]
        if name in self.refuse:
            self._say(f"ERR {self.refuse[name]}")
            return
        reasons = {"J": "J_ORDER_OR_COUNT"}
        handlers = {
            "PING": self._ping, "VCLEAR": self._vclear, "VBANK": self._vbank, "H": self._h, "J": self._j,
            "VCOMMIT": self._vcommit, "ANNEAL": self._anneal, "RUN": self._run,
        }  # fmt: skip
        if name not in handlers:
            self._say("ERR UNKNOWN_COMMAND")
            return
        try:
            reason = handlers[name](*rest)
        except (ValueError, TypeError, IndexError):
            reason = reasons.get(name, name)
        if reason is not None:
            self._say(f"ERR {reason}" if reason else "OK")

    def _ping(self, *_: str) -> None:
        self._say(f"OK PROBANA {self.version} {self.physical} WORKING")

    def _vclear(self, virtual: str, physical: str, banks: str, edges: str, mode: str) -> str:
        v, p, b, e = map(whole, (virtual, physical, banks, edges))
        if p != self.physical or v > MAX_VIRTUAL or b > MAX_BANKS or e > MAX_EDGES:
            return "VCLEAR"
        if mode not in ("SNAPSHOT", "SEQUENTIAL"):
            return "UPDATE_MODE"
        if not v or not b or b > v:
            return "CAPACITY"
        scale = self.scale
        self._reset()
        self.n, self.n_banks, self.n_edges, self.sequential, self.scale = v, b, e, mode == "SEQUENTIAL", scale
        return ""

    def _vbank(self, bank: str, count: str, *nodes: str) -> str:
        found = [whole(node) for node in nodes[: whole(count)]]
        taken = {node for each in self.banks for node in each}
        fits = whole(bank) == len(self.banks) < self.n_banks and 0 < whole(count) == len(found) <= self.physical
        if not fits or len(set(found)) < len(found) or taken & set(found) or max(found) >= self.n:
            return "VBANK"
        self.banks.append(found)
        self.committed = False
        return ""

    def _h(self, node: str, value: str) -> str:
        if whole(node) >= self.n:
            return "H"
        self.h[whole(node)] = np.float32(value)
        self.committed = False
        return ""

    def _j(self, source: str, destination: str, value: str) -> str:
        a, b = whole(source), whole(destination)
        position = {node: k for k, node in enumerate(node for bank in self.banks for node in bank)}
        if a >= self.n or len(self.edges) >= self.n_edges or len(self.banks) != self.n_banks:
            return "J_ORDER_OR_COUNT"
        if b not in position or (self.edges and position[self.edges[-1][1]] > position[b]):
            return "J_ORDER_OR_COUNT"
        self.edges.append((a, b, float(np.float32(value))))
        self.committed = False
        return ""

    def _vcommit(self) -> str:
        bank_of = {node: k for k, bank in enumerate(self.banks) for node in bank}
        whole_plan = self.n and len(bank_of) == self.n and len(self.edges) == self.n_edges
        clash = any(a != b and bank_of.get(a) == bank_of.get(b) for a, b, _ in self.edges)
        if not whole_plan or (self.sequential and clash):
            return "BANK_CONFLICT" if self.sequential else "VCOMMIT"
        self.weights = np.zeros((self.n, self.n))
        for a, b, value in self.edges:
            self.weights[b, a] += value
        self.state = np.where(self.rng.random(self.n) < 0.5, 1, -1)
        self.committed = True
        return ""

    def _anneal(self, kind: str, *rest: str) -> str:
        if kind == "CONSTANT":
            value = float(np.float32(rest[0]))
            self.scale, self.loading = (lambda sweep, sample: value), False
        elif kind == "LINEAR":
            start, end, steps = float(np.float32(rest[0])), float(np.float32(rest[1])), whole(rest[2])
            span = max(1, steps - 1)
            self.scale = lambda sweep, sample: start + min(1.0, sweep / span) * (end - start)
            self.loading = False
        elif kind == "TABLE":
            if not 0 < whole(rest[0]) <= MAX_TABLE:
                return "ANNEAL_TABLE_SIZE"
            self.table, self.table_size, self.loading = [], whole(rest[0]), True
        elif kind == "VALUES":
            offset, count = whole(rest[0]), whole(rest[1])
            values = [float(np.float32(text)) for text in rest[2:]]
            full = offset + count > self.table_size
            if not self.loading or not 0 < count == len(values) <= CHUNK or offset != len(self.table) or full:
                return "ANNEAL_VALUES"
            self.table += values
        elif kind == "COMMIT":
            if not self.loading or len(self.table) != self.table_size:
                return "ANNEAL_COMMIT"
            table = self.table
            self.scale, self.loading = (lambda sweep, sample: table[sample]), False
        else:
            return "ANNEAL"
        return ""

    def _curve(self, lane: int, voltage: float) -> float:
        assert self.curves is not None
        centre, width = self.curves[lane]
        return float(1 / (1 + np.exp((centre - voltage) / width)))

    def _through_the_dac(self, lane: int, p: float) -> float:
        """The probability that a p-bit really has when the firmware wants p."""
        measured = self._measured[lane]
        below = np.flatnonzero((p - measured[:-1]) * (p - measured[1:]) <= 0)
        below = below[np.abs(measured[below + 1] - measured[below]) > 1e-6]
        if not len(below):
            return self._curve(lane, self._voltages[int(np.argmin(np.abs(measured - p)))])
        k = int(below[0])
        share = (p - measured[k]) / (measured[k + 1] - measured[k])
        return self._curve(lane, self._voltages[k] + share * (self._voltages[k + 1] - self._voltages[k]))

    def sweep(self, scale: float) -> None:
        old = self.state.copy() if not self.sequential else self.state
        new = self.state if self.sequential else self.state.copy()
        for bank in self.banks:
            field = (self.h[bank] + self.weights[bank] @ old) * scale
            p = np.where(field >= 10, 1.0, np.where(field <= -10, 0.0, 1 / (1 + np.exp(-2 * np.clip(field, -10, 10)))))
            if self.curves is not None:
                p = np.array([self._through_the_dac(lane, each) for lane, each in enumerate(p)])
            new[bank] = np.where(self.rng.random(len(bank)) < p, 1, -1)
        self.state = new
        if self.time_scale:
            time.sleep(self.time_scale * 1e-4 * len(self.banks))

    def _run(self, samples: str, burn: str, thin: str) -> str | None:
        k, b, t = whole(samples), whole(burn), whole(thin)
        if not self.committed or self.loading or not k or not 0 < t <= 0xFFFF:
            return "RUN"
        self._say("OK")
        sweep = 0
        for _ in range(b):
            self.sweep(self.scale(sweep, 0))
            sweep += 1
        for sample in range(k):
            for _ in range(t):
                self.sweep(self.scale(sweep, sample))
                sweep += 1
            self._say_sample()
        self._say("DONE")
        return None

    def _say_sample(self) -> None:
        number = self.samples_said
        self.samples_said += 1
        if number == self.unplug_at:
            raise UnpluggedError
        line = self.corrupt.get(number, "S " + "".join("1" if m > 0 else "0" for m in self.state))
        if line is None:
            self.mute = True
        else:
            self._say(line)


class MemoryTransport:
    """A driver's end of an emulator in the same thread."""

    def __init__(self, **options: object) -> None:
        self.said = bytearray()
        self.gone = self.closed = False
        self.board = ProbanaEmulator(self.said.extend, **options)  # type: ignore[arg-type]

    def read(self, timeout: float) -> bytes:
        if self.said:
            data = bytes(self.said)
            self.said.clear()
            return data
        if self.gone or self.closed:
            raise DeviceIOError("the link broke: no such device")
        time.sleep(min(timeout, 0.001))
        return b""

    def write(self, data: bytes, timeout: float) -> None:
        if self.gone or self.closed:
            raise DeviceIOError("the link broke: no such device")
        try:
            self.board.feed(data)
        except UnpluggedError:
            self.gone = True

    def close(self) -> None:
        self.closed = True


class ProbanaOnPty:
    """An emulator behind a tty, in a thread of its own.

    Attributes:
        path: of the tty.
    """

    def __init__(self, *, boot_seconds: float | None = None, **options: object) -> None:
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        self._slave = slave  # kept open, so that a driver may close the tty and open it again
        self._stop_read, self._stop_write = os.pipe()
        self.board = ProbanaEmulator(lambda data: self._send(data), **options)  # type: ignore[arg-type]
        self._boot_seconds = boot_seconds
        self._thread = threading.Thread(target=self._serve, name="probana")
        self._thread.start()

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._stop_read in select.select([self._stop_read], [self._master], [])[0]:
                raise UnpluggedError
            view = view[os.write(self._master, view) :]

    def _serve(self) -> None:
        try:
            if self._boot_seconds is not None:
                self.board.boot(self._boot_seconds)
            while True:
                ready, _, _ = select.select([self._master, self._stop_read], [], [])
                if self._stop_read in ready:
                    return
                self.board.feed(os.read(self._master, 4096))
        except (UnpluggedError, OSError):
            pass
        finally:
            if self._slave >= 0:
                os.close(self._slave)
            os.close(self._master)

    def close(self) -> None:
        """End the thread; it closes the descriptors itself, so no one else's bytes are ever read from them."""
        if self._thread.is_alive():
            os.write(self._stop_write, b"x")
        self._thread.join()
        for end in (self._stop_read, self._stop_write):
            if end >= 0:
                os.close(end)
        self._stop_read = self._stop_write = -1
