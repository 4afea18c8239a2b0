"""An instrument on this computer that meters a known power, for tests of meters and of benches.

    power = KnownPower(base=0.09, swing=0.02, hertz=3.0)
    with LoopbackInstrument("keithley-2450", [Rail(power, volts=1.8)]) as instrument:
        with glauber.open_device("sim://ideal", meter=instrument.address) as device: ...

It takes readings of P(t), t of the monotonic clock, with errors that a test sets, so measured joules can be compared
with the integral of P. The dialogues are in `glauber.testing.loopback_dialects`; no more of the instruments is there
than a meter needs.
"""

from __future__ import annotations

import math
import os
import select
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Model = Literal["keithley-2400", "keithley-2450", "keysight-n6705"]


@dataclass(frozen=True, slots=True)
class KnownPower:
    """P(t) = base + swing sin(2 pi hertz t + phase), in W, and its integral.

    Attributes:
        base: W.
        swing: W, amplitude.
        hertz: 1/s.
        phase: radians.
    """

    base: float
    swing: float = 0.0
    hertz: float = 1.0
    phase: float = 0.0

    def watts(self, times: ArrayLike) -> NDArray[np.float64]:
        """P at these times of the monotonic clock, seconds."""
        turns = 2 * math.pi * self.hertz * np.asarray(times, dtype=np.float64)
        return np.asarray(self.base + self.swing * np.sin(turns + self.phase))

    def joules(self, begin: ArrayLike, end: ArrayLike) -> NDArray[np.float64]:
        """The integral of P from begin to end."""
        omega = 2 * math.pi * self.hertz
        first, last = np.asarray(begin, dtype=np.float64), np.asarray(end, dtype=np.float64)
        wave = np.cos(omega * first + self.phase) - np.cos(omega * last + self.phase)
        return np.asarray(self.base * (last - first) + self.swing / omega * wave)


@dataclass(slots=True)
class Rail:
    """One output, with the errors of its readings.

    Attributes:
        power: that is drawn.
        volts: V.
        current_gain: relative error of currents.
        current_offset: error of currents, A.
        voltage_gain: relative error of voltages.
        noise_amps: standard deviation of each reading of current, A.
    """

    power: KnownPower
    volts: float = 1.8
    current_gain: float = 0.0
    current_offset: float = 0.0
    voltage_gain: float = 0.0
    noise_amps: float = 0.0

    def amps_read(self, watts: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
        """Readings of the currents at these powers."""
        noise = self.noise_amps * rng.standard_normal(watts.shape)
        return np.asarray(watts / self.volts * (1 + self.current_gain) + self.current_offset + noise)

    @property
    def volts_read(self) -> float:
        """Reading of the voltage."""
        return self.volts * (1 + self.voltage_gain)


@dataclass(slots=True)
class Bench:
    """What a test sets, at any time between two windows.

    Attributes:
        rails: outputs, the first is output 1.
        period: seconds between readings; the N6705 is told another by its controller.
        delays: seconds from the trigger's arrival to the start, and from there until the next command is read; *OPC? is
            answered after both.
        first_share: the first reading comes this share of a period late (source-measure units).
        capacity: of the buffer; None: as the instrument has it.
        nan_at: this reading is SCPI's NaN.
        lose_after: readings kept of a FIFO that nobody emptied fast enough: all later ones of a window are lost.
        dead_after: commands that are obeyed before the link drops.
        identity: answer to *IDN?; None: the instrument's own.
        module: of the N6705's outputs.
        output_on: whether it feeds.
        amps_range: range of current that is set, A.
        refuse: a command that begins so is answered by error -222.
    """

    rails: list[Rail]
    period: float = 0.002
    delays: tuple[float, float] = (0.0, 0.0)
    first_share: float = 0.0
    capacity: int | None = None
    nan_at: int | None = None
    lose_after: int | None = None
    dead_after: int | None = None
    identity: str | None = None
    module: str = "N6781A"
    output_on: bool = True
    amps_range: float = 0.1
    refuse: str | None = None
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))


class LoopbackInstrument:
    """A bench instrument on a TCP port of 127.0.0.1, which serves one controller at a time.

    Args:
        model: whose dialogue it speaks.
        rails: its outputs; the Keithleys have one.

    Attributes:
        bench: what a test sets.
        port: where it listens.
    """

    def __init__(self, model: Model, rails: Sequence[Rail]) -> None:
        from glauber.testing.loopback_dialects import DIALECTS

        self.model, self.bench = model, Bench(list(rails))
        self._dialect = DIALECTS[model](self.bench)
        self._stopped, self._stop = os.pipe()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, name=f"loopback {model}", daemon=True)
        self._thread.start()

    @property
    def resource(self) -> str:
        """VISA's name of it."""
        return f"TCPIP0::127.0.0.1::{self.port}::SOCKET"

    @property
    def address(self) -> str:
        """For open_device(..., meter=)."""
        return f"visa://{self.resource}?profile={self.model}"

    def _readable(self, descriptor: int) -> bool:
        return self._stopped not in select.select([descriptor, self._stopped], [], [])[0]

    def _serve(self) -> None:
        while self._readable(self._listener.fileno()):
            connection, _ = self._listener.accept()
            with connection, suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        pending, obeyed = b"", 0
        while self._readable(connection.fileno()):
            data = connection.recv(65_536)
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                if self.bench.dead_after is not None and obeyed >= self.bench.dead_after:
                    return
                answer = self._dialect.obey(line.decode("ascii").strip())
                obeyed += 1
                if answer is not None:
                    connection.sendall(answer + b"\n")

    def close(self) -> None:
        """Stop serving. May be called twice."""
        if self._stop < 0:
            return
        os.write(self._stop, b"x")
        self._thread.join()
        self._listener.close()
        os.close(self._stop)
        os.close(self._stopped)
        self._stop = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
