"""Nordic's Power Profiler Kit II behind a pseudo-terminal, metering a known power: for tests of `Ppk2Meter`.

It answers the few commands that the ppk2-api package sends, and while it measures it sends 100,000 words a second, each
with the number of the reading. Not on Windows.
"""

from __future__ import annotations

import os
import select
import threading
import time
from typing import Self

import numpy as np

from glauber.testing.loopback import Rail

RATE_HZ = 100_000
AMPS_PER_STEP = 4 * 1.8 / 163_840 / 10.15
"""In the range that it always uses, of 10.15 ohm: up to 71 mA."""
RANGE = 2
LONGEST = {0x03: 3, 0x0C: 2, 0x0D: 3, 0x11: 2}
"""Bytes of commands that have more than one."""
CONSTANTS = (
    "Calibrated: 0\nR0: 1031.64\nR1: 101.65\nR2: 10.15\nR3: 0.94\nR4: 0.043\n"
    + "".join(f"{name}{k}: {value}\n" for name, value in (("GS", 0), ("GI", 1), ("O", 0)) for k in range(5))
    + "HW: 9173\nEND\n"
)


class Ppk2Emulator:
    """A kit on a tty.

    Args:
        rail: what it meters; its voltage must be the meter's, `voltage_gain` is what the supply is really off by.
        seed: of the readings' noise.

    Attributes:
        path: of the tty.
        delay_seconds: from the command to the first reading.
        lose_at: this reading is never sent.
        dead: it reads commands and sends nothing.
    """

    def __init__(self, rail: Rail, *, seed: int = 0) -> None:
        import pty
        import tty

        self.rail, self.delay_seconds, self.dead = rail, 0.0, False
        self.lose_at: int | None = None
        self._rng = np.random.default_rng(seed)
        self._start: float | None = None
        self._sent = 0
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.path = os.ttyname(self._slave)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="ppk2 emulator", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """For open_device(..., meter=)."""
        return f"ppk2://{self.path}?volts={self.rail.volts:g}"

    def _serve(self) -> None:
        pending = b""
        while not self._stopped.is_set():
            if select.select([self._master], [], [], 0.001)[0]:
                try:
                    pending += os.read(self._master, 4096)
                except OSError:
                    return
                while pending and len(pending) >= LONGEST.get(pending[0], 1):
                    size = LONGEST.get(pending[0], 1)
                    self._obey(pending[0])
                    pending = pending[size:]
            if self._start is not None and not self.dead:
                self._send_readings()

    def _obey(self, command: int) -> None:
        if command == 0x19 and not self.dead:
            self._write(CONSTANTS.encode())
        elif command == 0x06:
            self._start, self._sent = time.monotonic() + self.delay_seconds, 0
        elif command == 0x07:
            self._start = None

    def _send_readings(self) -> None:
        assert self._start is not None
        due = int((time.monotonic() - self._start) * RATE_HZ)
        if due <= self._sent:
            return
        at = np.arange(self._sent, due)
        self._sent = due
        rail = self.rail
        watts = rail.power.watts(self._start + (at + 0.5) / RATE_HZ)
        # a supply that is off by voltage_gain draws its power at another current; the meter believes in `volts`
        amps = rail.amps_read(watts / (1 + rail.voltage_gain), self._rng)
        steps = np.clip(np.round(amps / AMPS_PER_STEP), 0, 2**14 - 1).astype(np.uint32)
        words = steps | np.uint32(RANGE << 14) | ((at & 0x3F) << 18).astype(np.uint32)
        if self.lose_at is not None:
            words = words[at != self.lose_at]
        self._write(words.astype("<u4").tobytes())

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view and not self._stopped.is_set():
            if select.select([], [self._master], [], 0.05)[1]:
                try:
                    view = view[os.write(self._master, view[:4096]) :]
                except BlockingIOError:
                    continue
                except OSError:
                    return

    def unplug(self) -> None:
        """The tty goes away, as when the cable is pulled."""
        self._stopped.set()
        self._thread.join()
        for descriptor in (self._master, self._slave):
            if descriptor >= 0:
                os.close(descriptor)
        self._master = self._slave = -1

    def close(self) -> None:
        """Stop. May be called twice."""
        if self._master >= 0:
            self.unplug()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
