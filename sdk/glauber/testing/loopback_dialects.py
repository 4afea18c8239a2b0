"""The dialogues of `LoopbackInstrument`: as much of three instruments as a meter of joules needs.

Written from the same manuals as the meters' profiles (glauber_drivers.meters), so a misreading of a manual would be in
both: they show that the metrology is right, and not that a real instrument understands the commands.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from glauber.testing.loopback import Bench

NOT_A_NUMBER = 9.91e37
CLOCK_2400 = 8192 / 8000
"""The 2400 counts so many seconds in each."""
SETTINGS = (
    "*CLS", ":SENS:FUNC", ":SENS:CURR:NPLC", ":FORM", ":TRAC:TST:FORM", ":ARM:SOUR", ":ARM:COUN", ":TRIG:SOUR",
    ":TRIG:DEL", ":TRIG:COUN", ":TRAC:FEED", ":TRAC:POIN ", ":TRAC:FILL:MODE", ":SOUR:VOLT:READ:BACK", ":TRIG:LOAD",
    ":SENS:CURR:PROT", ":SOUR:VOLT:ILIM", ":SOUR:FUNC VOLT", ":SOUR:VOLT:RANG ", ":SENS:ELOG:FUNC", ":TRIG:ELOG:SOUR",
)  # fmt: skip
"""Commands that are understood and change nothing here."""


class _Acquisition:
    """Readings since a trigger: their number follows the clock until it is halted."""

    def __init__(self, bench: Bench, capacity: int, first: float) -> None:
        self.bench, self.capacity = bench, capacity
        self.start = time.monotonic()
        self.first = self.start + first
        self.period = bench.period
        self.halted: float | None = None

    @property
    def count(self) -> int:
        now = self.halted if self.halted is not None else time.monotonic()
        return min(self.capacity, max(0, int((now - self.first) / self.period + 1)))


class Dialect:
    """What all of them understand.

    Args:
        bench: what the test sets.
    """

    identity = ""
    capacity = 10**9

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.errors: list[str] = []
        self.run: _Acquisition | None = None
        self.ranges = {"current": 0.0}

    def obey(self, line: str) -> bytes | None:
        """The answer to one command, without its end; None if it has none."""
        if not line.startswith((":", "*")):
            line = f":{line}"
        if self.bench.refuse is not None and line.startswith(self.bench.refuse):
            self.errors.append('-222,"Data out of range"')
            return None
        if line == "*IDN?":
            return (self.bench.identity or self.identity).encode()
        if line == "*OPC?":
            time.sleep(sum(self.bench.delays))
            return b"1"
        if line == ":SYST:ERR?":
            return (self.errors.pop(0) if self.errors else '0,"No error"').encode()
        answer = self.act(line)
        if answer is NotImplemented:
            if not line.startswith(SETTINGS):
                self.errors.append(f'-113,"Undefined header;{line[:40]}"')
            return None
        assert answer is None or isinstance(answer, bytes)
        return answer

    def act(self, line: str) -> object:
        """The instrument's own commands; NotImplemented for others."""
        raise NotImplementedError

    def begin(self) -> None:
        """A trigger has come: start after one delay, and listen again after another."""
        before, after = self.bench.delays
        time.sleep(before)
        late = self.bench.first_share * self.bench.period
        self.run = _Acquisition(self.bench, self.bench.capacity or self.capacity, late)
        time.sleep(after)

    def halt(self) -> None:
        """Stop acquiring."""
        if self.run is not None and self.run.halted is None:
            self.run.halted = time.monotonic()

    def spoil(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Put in the NaN that a test wants."""
        at = self.bench.nan_at
        if at is not None and at < len(values):
            values[at] = NOT_A_NUMBER
        return values

    def feeds(self, line: str) -> object:
        """The questions about the source that both Keithleys answer."""
        rail = self.bench.rails[0]
        answers = {
            ":OUTP?": str(int(self.bench.output_on)),
            ":SOUR:FUNC?": "VOLT",
            ":SOUR:VOLT?": f"{rail.volts:.6E}",
            ":SOUR:VOLT:RANG?": f"{next(r for r in (0.2, 2.0, 20.0, 200.0) if abs(rail.volts) <= r):.6E}",
            ":SENS:CURR:RANG?": f"{self.bench.amps_range:.6E}",
        }
        if line in answers:
            return answers[line].encode()
        value = line.rpartition(" ")[2]
        if line.startswith(":SENS:CURR:RANG "):
            self.bench.amps_range = next(r for r in (1e-3, 1e-2, 0.1, 1.0) if float(value) <= r)
            return None
        if line.startswith(":SOUR:VOLT ") or line == ":OUTP ON":
            if line == ":OUTP ON":
                self.bench.output_on = True
            else:
                rail.volts = float(value)
            return None
        return NotImplemented


class Dialect2400(Dialect):
    """Keithley 2400: text, a clock that runs fast, no answer while it acquires."""

    identity = "KEITHLEY INSTRUMENTS INC.,MODEL 2400,0000001,C30   Mar 17 2006"
    capacity = 2500

    def act(self, line: str) -> object:
        """See Dialect.act."""
        if line == ":INIT":
            self.begin()
        elif line == ":ABOR":
            self.halt()
        elif line == ":TRAC:CLE":
            self.run = None
        elif line == ":TRAC:POIN:ACT?":
            return str(0 if self.run is None else self.run.count).encode()
        elif line == ":TRAC:DATA?":
            return self._data()
        else:
            return self.feeds(line)
        return None

    def _data(self) -> bytes:
        run, rail = self.run, self.bench.rails[0]
        assert run is not None
        after = run.period * np.arange(run.count)
        amps = self.spoil(rail.amps_read(rail.power.watts(run.first + after), self.bench.rng))
        ticks = np.floor(1000 * CLOCK_2400 * (run.first + after))
        seconds = (ticks - ticks[0]) / 1000
        return ",".join(
            f"{rail.volts_read:+.6E},{a:+.6E},{t:+.6E}" for a, t in zip(amps, seconds, strict=True)
        ).encode()


class Dialect2450(Dialect):
    """Keithley 2450: a named buffer, 64-bit numbers in a block of indefinite length."""

    identity = "KEITHLEY INSTRUMENTS,MODEL 2450,04400001,1.7.12b"
    capacity = 100_000

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self._made = False

    def act(self, line: str) -> object:
        """See Dialect.act."""
        if line.startswith(":TRAC:MAKE"):
            self._made = True
        elif line.startswith(":TRAC:DEL"):
            if not self._made:
                self.errors.append('1115,"Parameter error: no such buffer"')
            self._made = False
        elif line.startswith(":TRAC:CLE"):
            self.run = None
        elif line == ":INIT":
            self.begin()
        elif line == ":TRIG:STAT?":
            return b"RUNNING;RUNNING;1"
        elif line == ":ABOR":
            self.halt()
        elif line.startswith(":TRAC:ACT?"):
            return str(0 if self.run is None else self.run.count).encode()
        elif line.startswith(":TRAC:DATA?"):
            return self._data(int(line.split(",")[1]))
        else:
            return self.feeds(line)
        return None

    def _data(self, count: int) -> bytes:
        run, rail = self.run, self.bench.rails[0]
        assert run is not None
        after = run.period * np.arange(count)
        amps = self.spoil(rail.amps_read(rail.power.watts(run.first + after), self.bench.rng))
        table = np.stack([np.full(count, rail.volts_read), amps, after], axis=1)
        return b"#0" + table.astype("<f8").tobytes()


class DialectN6705(Dialect):
    """Keysight N6705: four outputs, a logger without gaps, a FIFO, 32-bit numbers in blocks."""

    identity = "Keysight Technologies,N6705C,MY00000001,E.02.07.2842"

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self._fetched: dict[int, int] = {}

    def act(self, line: str) -> object:
        """See Dialect.act."""
        command, _, rest = line.partition(" ")
        channels = [int(word) for word in rest.partition("(@")[2].rstrip(")").split(",") if word]
        answers: dict[str, Callable[[int], str]] = {
            ":SYST:CHAN:MOD?": lambda _: f'"{self.bench.module}"',
            ":OUTP?": lambda _: str(int(self.bench.output_on)),
            ":VOLT?": lambda channel: f"{self.bench.rails[channel - 1].volts:.6E}",
            ":SENS:VOLT:RANG?": lambda _: "2.000000E+01",
            ":SENS:CURR:RANG?": lambda _: f"{self.bench.amps_range:.6E}",
            ":SENS:ELOG:PER?": lambda _: f"{self.bench.period:.6E}",
        }
        if command in answers:
            return ",".join(answers[command](channel) for channel in channels).encode()
        if command == ":SYST:CHAN:COUN?":
            return str(max(4, len(self.bench.rails))).encode()
        if command == ":SENS:ELOG:PER":
            self.bench.period = max(1, round(float(rest.split(",")[0]) / 20.48e-6)) * 20.48e-6
        elif command == ":SENS:CURR:RANG":
            self.bench.amps_range = next(r for r in (1e-3, 0.1, 3.0) if float(rest.split(",")[0]) <= r)
        elif command == ":TRIG:ELOG":
            self.begin()
            self._fetched = dict.fromkeys(channels, 0)
        elif command == ":ABOR:ELOG":
            self.halt()
        elif command == ":FETC:ELOG?":
            return self._records(int(rest.split(",")[0]), channels[0])
        elif command == ":INIT:ELOG":
            self.run = None
        else:
            return NotImplemented
        return None

    def _records(self, most: int, channel: int) -> bytes:
        run, rail, done = self.run, self.bench.rails[channel - 1], self._fetched.get(channel, 0)
        assert run is not None
        whole = max(0, run.count - 1) if self.bench.lose_after is None else min(self.bench.lose_after, run.count - 1)
        at = np.arange(done, max(done, min(whole, done + most)))
        self._fetched[channel] = done + len(at)
        begin = run.start + run.period * at
        watts = rail.power.joules(begin, begin + run.period) / run.period
        amps = self.spoil(rail.amps_read(watts, self.bench.rng))
        data = np.stack([amps, np.full(len(at), rail.volts_read)], axis=1).astype(">f4").tobytes()
        length = str(len(data))
        return f"#{len(length)}{length}".encode() + data


DIALECTS: dict[str, type[Dialect]] = {
    "keithley-2400": Dialect2400,
    "keithley-2450": Dialect2450,
    "keysight-n6705": DialectN6705,
}
