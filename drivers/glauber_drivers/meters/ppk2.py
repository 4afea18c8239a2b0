"""Joules by Nordic's Power Profiler Kit II: 100,000 readings of current a second, times the supply's voltage.

It works as a source, and feeds the chip itself, or as an ampere meter in a line that something else feeds. It measures
no voltage, so that has an error of its own. Readings are averaged over a millisecond as they come; their numbers tell
whether any was lost. The package ppk2-api talks to it and turns its words into amperes, by the constants that the kit
reports of itself; one core is busy with that for about a seventh of the time.

**No kit has been asked yet**: it runs against `glauber.testing.Ppk2Emulator`. The limits below are assumed: +-10 % of a
reading and 1 uA is what such kits are commonly said to keep, and the voltage is taken to be within +-3 %. Who has
compared a kit with a better meter says so: `relative_limit`, `volts_limit`.
"""

from __future__ import annotations

import importlib
import math
import threading
import time
from contextlib import suppress
from typing import Any, Literal

import numpy as np
from glauber.driver import Address
from glauber.errors import (
    DeviceClosedError,
    DeviceIOError,
    DeviceNotFoundError,
    GlauberError,
    InvalidModelError,
    MeteringError,
    ProtocolError,
    missing_extra,
)
from glauber.meter import ErrorLimit, MeterSpec, Trace
from glauber.registry import only_parameters
from numpy.typing import NDArray

from glauber_drivers.meters.draining import Drain
from glauber_drivers.meters.instrument import Instrument, this_host

RATE_HZ = 100_000
MEAN_OVER = 100
"""Readings averaged into one of the trace."""
PERIOD_SECONDS = MEAN_OVER / RATE_HZ
DRAIN_SECONDS = 0.005
QUIET_LOOKS = 3
WAIT_SECONDS = 2.0
"""For the first readings, and for the last."""
RELATIVE_LIMIT, OFFSET_AMPS, VOLTS_SHARE = 0.1, 1e-6, 0.03
ASSUMED = "assumed; no kit was compared"
VOLTS = (0.8, 5.0)
"""What it can source."""
COUNTER_SHIFT, COUNTER_MASK = 18, 0x3F
"""Where each word has the number of the reading, modulo 64 (Nordic's pc-nrfconnect-ppk)."""


class Ppk2Meter(Instrument):
    """A kit on a serial port. As a source its output is switched on, and stays on when the meter is closed.

    Args:
        port: such as /dev/ttyACM0.
        volts: of the supply, V: what the kit is to source, or what feeds the line that it measures.
        mode: "source" or "ampere".
        volts_limit: largest relative error of that voltage.
        relative_limit: largest relative error of a current.
        accuracy_source: where these two come from.

    Raises:
        MissingExtraError: the package ppk2-api is not installed.
        DeviceNotFoundError: the port cannot be opened, or no kit answers.
        InvalidModelError: an argument that cannot be.
    """

    def __init__(
        self,
        port: str,
        volts: float,
        *,
        mode: Literal["source", "ampere"] = "source",
        volts_limit: float = VOLTS_SHARE,
        relative_limit: float = RELATIVE_LIMIT,
        accuracy_source: str = ASSUMED,
    ) -> None:
        super().__init__()
        if mode not in ("source", "ampere"):
            raise InvalidModelError(f'mode must be "source" or "ampere", not {mode!r}')
        if not VOLTS[0] <= volts <= VOLTS[1]:
            raise InvalidModelError(f"the kit works from {VOLTS[0]} to {VOLTS[1]} V, not at {volts} V")
        if not (0 <= volts_limit < 1 and 0 <= relative_limit < 1):
            raise InvalidModelError(f"limits are relative, from 0 to below 1, not {volts_limit} and {relative_limit}")
        try:
            package: Any = importlib.import_module("ppk2_api.ppk2_api")
        except ImportError as error:
            raise missing_extra("ppk2-api", "meters", "Ppk2Meter") from error
        self._lock = threading.Lock()
        self._window: _Window | None = None
        self._closed = False
        self._volts = volts
        self._kit = _opened(package, port)
        try:
            if mode == "source":
                self._kit.use_source_meter()
            else:
                self._kit.use_ampere_meter()
            self._kit.set_source_voltage(round(1000 * volts))
            if mode == "source":
                self._kit.toggle_DUT_power("ON")
        except BaseException:
            self._kit.ser.close()
            raise
        self._spec = MeterSpec(
            name=f"PPK2 at {port}, {mode} mode, {volts:g} V, the one rail that it measures (no other is counted)",
            boundary="chip",
            reads="watts",
            period_seconds=PERIOD_SECONDS,
            averaging_seconds=PERIOD_SECONDS,
            seen_share=1.0,
            seen_source="",
            relative_limit=relative_limit,
            resolution=0.0,  # readings of a few ranges, each dithered by its noise: it shows in the noise
            accuracy_source=accuracy_source,
            limits=(
                ErrorLimit("offset", f"{OFFSET_AMPS:g} A at {volts:g} V, {ASSUMED}", watts=OFFSET_AMPS * volts),
                ErrorLimit("voltage", accuracy_source, relative=volts_limit),
            ),
            identity=f"PPK2 at {port} of {this_host()}",
        )

    @classmethod
    def from_address(cls, address: Address) -> Ppk2Meter:
        """ppk2:///dev/ttyACM0?volts=1.8, and mode=ampere, volts_limit=0.01."""
        only_parameters(address, ("volts", "mode", "volts_limit"))
        given = address.parameters
        if not address.name or "volts" not in given:
            raise DeviceNotFoundError(f"{address.text}: give port and voltage, such as ppk2:///dev/ttyACM0?volts=1.8")
        try:
            volts, share = float(given["volts"]), float(given.get("volts_limit", VOLTS_SHARE))
            return cls(address.name, volts, mode=given.get("mode", "source"), volts_limit=share)  # type: ignore[arg-type]
        except ValueError as error:
            raise DeviceNotFoundError(f"{address.text}: {error}") from error

    @property
    def spec(self) -> MeterSpec:
        """See EnergyMeter.spec."""
        return self._spec

    def start(self) -> _Window:
        """See EnergyMeter.start; one window at a time."""
        with self._lock:
            if self._closed:
                raise DeviceClosedError(f"{self._spec.name} was closed; open it again")
            if self._window is not None and not self._window.ended:
                raise MeteringError(f"{self._spec.name} measures one window at a time; stop the one that is open")
            self._window = _Window(self._kit, self._volts, self._spec.name)
            return self._window

    def close(self) -> None:
        """See EnergyMeter.close. A window that is open ends without a figure."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._window is not None:
                self._window.abandon(DeviceClosedError("the meter was closed while its window was open"))
            with suppress(Exception):
                self._kit.stop_measuring()
                self._kit.ser.close()


def _opened(package: Any, port: str) -> Any:
    """The kit, and its constants."""
    try:
        kit = package.PPK2_API(port, timeout=1, write_timeout=1, exclusive=True)
    except (OSError, ValueError) as error:  # SerialException is an OSError
        raise DeviceNotFoundError(
            f"{port} cannot be opened: {error}. Is the kit plugged in, may this user read the port (group dialout), and"
            " is no other program using it?"
        ) from error
    try:
        kit.stop_measuring()
        time.sleep(0.01)
        kit.ser.reset_input_buffer()
        known = kit.get_modifiers()
    except (OSError, ValueError) as error:
        known = None
        with suppress(Exception):
            kit.ser.close()
        raise DeviceNotFoundError(f"{port} answers, but as no Power Profiler Kit II ({error})") from error
    if not known:
        kit.ser.close()
        raise DeviceNotFoundError(
            f"no Power Profiler Kit II answers at {port}; it has two ports, try the other one, or plug it in again"
        )
    return kit


class _Window:
    """A window of the kit; see glauber.meter.Recording."""

    def __init__(self, kit: Any, volts: float, name: str) -> None:
        self._kit, self._volts, self._name = kit, volts, name
        self._rest = b""
        self._means: list[NDArray[np.float64]] = []  # A
        self._odd = np.zeros(0)  # readings, A, that do not fill a mean yet
        self._count, self._number = 0, -1
        self._trace: Trace | None = None
        self._error: GlauberError | None = None
        self._quiet()
        kit.remainder = {"sequence": b"", "len": 0}
        kit.rolling_avg = kit.rolling_avg4 = kit.prev_range = None
        self._earliest, self._latest = time.monotonic(), math.inf
        try:
            self._begun()
            self._drain = Drain(self._take, DRAIN_SECONDS, name)
            self._begin = time.monotonic()
        except BaseException:  # Ctrl-C too: the kit would go on sending
            with suppress(GlauberError):
                self._do(kit.stop_measuring)
            raise

    def _begun(self) -> None:
        """Start, and wait for the first readings, which say that it did and when."""
        self._do(self._kit.start_measuring)
        while self._count < 2 * MEAN_OVER:
            self._take()
            now = time.monotonic()
            if self._count:
                self._latest = min(self._latest, now - (self._count - 1) / RATE_HZ)
            if now - self._earliest > WAIT_SECONDS:
                raise DeviceIOError(f"{self._name} sent {self._count} readings in {WAIT_SECONDS:g} s; plug it in again")
            time.sleep(0.0005)

    def _quiet(self) -> None:
        """What is still on its way from the window before is thrown away."""
        self._do(self._kit.stop_measuring)
        silent, deadline = 0, time.monotonic() + WAIT_SECONDS
        while silent < QUIET_LOOKS:
            silent = 0 if self._do(self._kit.get_data) else silent + 1
            if time.monotonic() > deadline:
                raise DeviceIOError(f"{self._name} goes on sending, though it was told to stop; plug it in again")
            time.sleep(0.004)

    def _do(self, act: Any) -> Any:
        try:
            return act()
        except (OSError, TypeError) as error:  # TypeError: the port was closed meanwhile
            raise DeviceIOError(f"{self._name} is gone ({error}); check its cable") from error

    def _take(self) -> None:
        """Read what has come, check that nothing is missing, and convert it."""
        data = self._rest + bytes(self._do(self._kit.get_data))
        whole = len(data) // 4 * 4
        self._rest = data[whole:]
        if not whole:
            return
        words = np.frombuffer(data[:whole], "<u4")
        numbers = (words >> COUNTER_SHIFT) & COUNTER_MASK
        before = int(numbers[0]) - 1 if self._number < 0 else self._number
        expected = (before + 1 + np.arange(len(words))) & COUNTER_MASK
        if (numbers != expected).any():
            raise DeviceIOError(
                f"readings of {self._name} were lost near number {self._count}: this computer was too busy, or the"
                " cable is bad. Measure again, on fewer threads"
            )
        self._number = int(numbers[-1])
        micro, _ = self._kit.get_samples(data[:whole])
        if len(micro) != len(words):
            raise ProtocolError(f"{self._name}: {len(words)} words gave {len(micro)} readings")
        amps = np.concatenate([self._odd, 1e-6 * np.array(micro)])
        rows = len(amps) // MEAN_OVER
        self._means.append(amps[: rows * MEAN_OVER].reshape(rows, MEAN_OVER).mean(axis=1))
        self._odd = amps[rows * MEAN_OVER :]
        self._count += len(words)

    @property
    def ended(self) -> bool:
        """Whether it is no longer open."""
        return self._trace is not None or self._error is not None

    def abandon(self, error: GlauberError) -> None:
        """End it; a `stop` that comes later raises this error."""
        if not self.ended:
            self._error = error
            with suppress(GlauberError):  # `error` says enough
                self._drain.end()
            with suppress(GlauberError):
                self._do(self._kit.stop_measuring)

    def stop(self) -> Trace:
        """See Recording.stop."""
        if not self.ended:
            end = time.monotonic()
            try:
                self._trace = self._read(end)
            except GlauberError as error:
                self._error = error
                with suppress(GlauberError):
                    self._do(self._kit.stop_measuring)
        if self._error is not None:
            raise self._error
        assert self._trace is not None
        return self._trace

    def _read(self, end: float) -> Trace:
        self._drain.end()
        half = (self._latest - self._earliest) / 2
        middle = self._earliest + half
        deadline = time.monotonic() + WAIT_SECONDS
        while middle + (self._count // MEAN_OVER) * PERIOD_SECONDS < end + half + PERIOD_SECONDS:
            if time.monotonic() > deadline:
                raise DeviceIOError(f"{self._name} stopped sending {time.monotonic() - end:.2g} s ago or more")
            time.sleep(0.001)
            self._take()
        self._do(self._kit.stop_measuring)
        means = np.concatenate(self._means)
        times = np.asarray(middle + PERIOD_SECONDS * (np.arange(len(means)) + 1), dtype=np.float64)
        if not math.isfinite(float(means.sum())):
            raise ProtocolError(f"{self._name} sent readings that are no numbers")
        return Trace(times, self._volts * means, (self._begin, end), (half,))
