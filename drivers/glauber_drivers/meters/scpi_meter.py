"""Joules by a bench instrument that speaks SCPI: a source-measure unit or a supply that feeds the chip.

The instrument takes readings by its own clock into its own buffer: that begins before the job's window and ends after
it. When the buffer began is known within the round trip of its trigger, which is measured for each window and is a
line of the budget. What a maker specifies is taken as limits of rectangular errors, independent of each other: current
gain, current offset times volts, and voltage.

A profile has the dialogue of one model: `keithley_2400`, `keithley_2450`, `keysight_n6705`. They were written from
what the manuals say, in part as remembered (docs/meters.md has the list), and have run against
`glauber.testing.LoopbackInstrument` only: **no real instrument has been asked yet**.
"""

from __future__ import annotations

import difflib
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import numpy as np
from glauber.driver import Address
from glauber.errors import (
    DeviceClosedError,
    DeviceIOError,
    DeviceNotFoundError,
    GlauberError,
    InvalidModelError,
    MeteringError,
)
from glauber.meter import MeterSpec, Trace
from glauber.registry import only_parameters

from glauber_drivers.meters.draining import Drain
from glauber_drivers.meters.instrument import Instrument
from glauber_drivers.meters.keithley_2400 import Keithley2400
from glauber_drivers.meters.keithley_2450 import Keithley2450
from glauber_drivers.meters.keysight_n6705 import KeysightN6705
from glauber_drivers.meters.scpi_profile import Profile, Wiring
from glauber_drivers.visa_link import VisaLink

PROFILES: Mapping[str, type[Keithley2400] | type[Keithley2450] | type[KeysightN6705]] = {
    "keithley-2400": Keithley2400,
    "keithley-2450": Keithley2450,
    "keysight-n6705": KeysightN6705,
}

ANSWER_SECONDS = 5.0
"""An instrument that has not answered for so long is gone."""
TRIAL_SECONDS = (0.05, 0.5, 5.0)
"""Trials when the meter is opened, until one holds enough readings to tell their period."""
TRIAL_READINGS = 6


class ScpiMeter(Instrument):
    """A bench instrument as a meter. Opening takes a short trial of its readings. The output is left as it is.

    Args:
        resource: VISA's name of it, such as TCPIP0::192.168.1.5::5025::SOCKET or ASRL/dev/ttyUSB0::INSTR.
        profile: of its model.

    Raises:
        DeviceNotFoundError: it cannot be opened, PyVISA is missing, it is another instrument, or it feeds nothing.
        DeviceIOError: it does not answer, or refuses.
        MeteringError: its buffer stays empty.
    """

    def __init__(self, resource: str, profile: Profile) -> None:
        super().__init__()
        self._link, self._profile = VisaLink(resource, ANSWER_SECONDS), profile
        self._lock = threading.Lock()
        self._window: _Window | None = None
        self._closed = False
        try:
            answer = self._link.query("*IDN?")
            if not re.search(profile.identity, answer, re.IGNORECASE):
                raise DeviceNotFoundError(
                    f"{resource} is {answer[:80]!r} and no {profile.model}; choose the profile of that instrument"
                    f" ({', '.join(sorted(PROFILES))})"
                )
            self._wiring = profile.configure(self._link)
            self._check("its configuration")
            self._period = 0.0
            self._period = self._trial()
        except BaseException:
            self._link.close()
            raise
        self._spec = MeterSpec(
            name=self._wiring.name,
            boundary="chip",
            reads="watts",
            period_seconds=self._period,
            averaging_seconds=self._period if self._wiring.integrates else 0.0,
            seen_share=1.0,
            seen_source="",
            relative_limit=0.0,
            resolution=self._wiring.resolution,
            accuracy_source="see the limits",
            limits=self._wiring.limits,
            identity=f"{answer.strip()} at {resource}",
        )

    @classmethod
    def from_address(cls, address: Address) -> ScpiMeter:
        """visa://RESOURCE?profile=MODEL; see docs/meters.md for the profiles' parameters."""
        name = address.parameters.get("profile", "")
        if name not in PROFILES:
            close = difflib.get_close_matches(name, PROFILES, n=1)
            meant = f"did you mean {close[0]}? " if close else ""
            raise DeviceNotFoundError(
                f"{address.text}: {f'no profile {name}' if name else 'a profile is missing'}; {meant}There are"
                f" {', '.join(sorted(PROFILES))}: &profile=NAME"
            )
        kind = PROFILES[name]
        only_parameters(address, ("profile", *kind.PARAMETERS))
        given = {key: value for key, value in address.parameters.items() if key != "profile"}
        try:
            profile = kind(**{key: kind.PARAMETERS[key](value) for key, value in given.items()})
        except (ValueError, InvalidModelError) as error:
            raise DeviceNotFoundError(f"{address.text}: {error}") from error
        return cls(address.name, profile)

    @property
    def spec(self) -> MeterSpec:
        """See EnergyMeter.spec."""
        return self._spec

    def _check(self, what: str) -> None:
        """The error queue must be empty."""
        errors = self._link.errors()
        if errors:
            said = "; ".join(f'{number}, "{text}"' for number, text in errors[:3])
            raise DeviceIOError(
                f"{self._profile.model} refused {what}: {said}. Look at its front panel, set it back and try again"
            )

    def _trial(self) -> float:
        """Seconds between two readings, as they come."""
        count = 0
        for seconds in TRIAL_SECONDS:
            self._profile.trigger(self._link)
            time.sleep(seconds)
            times = self._profile.finish(self._link).times
            self._check("a trial")
            count = len(times)
            if count >= TRIAL_READINGS:
                return float(np.median(np.diff(times)))
        raise MeteringError(
            f"{self._profile.model} took {count} readings in {TRIAL_SECONDS[-1]:g} s: is it waiting for a trigger, or"
            " integrating for long? Set it back to its defaults"
        )

    def start(self) -> _Window:
        """See EnergyMeter.start; one window at a time."""
        with self._lock:
            if self._closed:
                raise DeviceClosedError(f"{self._profile.model} was closed; open it again")
            if self._window is not None and not self._window.ended:
                raise MeteringError(f"{self._profile.model} has one buffer, and a window is open; stop that first")
            self._window = _Window(self._link, self._profile, self._wiring, self._period, self._check)
            return self._window

    def close(self) -> None:
        """See EnergyMeter.close. A window that is open ends without a figure."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._window is not None:
                self._window.abandon(DeviceClosedError("the meter was closed while its window was open"))
        self._link.close()


class _Window:
    """A window of a buffering instrument; see glauber.meter.Recording."""

    def __init__(
        self, link: VisaLink, profile: Profile, wiring: Wiring, period: float, check: Callable[[str], None]
    ) -> None:
        self._link, self._profile, self._wiring, self._period, self._check = link, profile, wiring, period, check
        self._trace: Trace | None = None
        self._error: GlauberError | None = None
        self._drain: Drain | None = None
        try:
            self._earliest, self._latest = profile.trigger(link)
            time.sleep((2 + wiring.first_share) * period)  # the buffer holds a reading before the window begins
            if profile.drain_seconds is not None:
                self._drain = Drain(lambda: profile.drain(link), profile.drain_seconds, wiring.name)
            self._begin = time.monotonic()
        except BaseException:  # Ctrl-C too: it would go on acquiring
            self._give_up()
            raise

    @property
    def ended(self) -> bool:
        """Whether it is no longer open."""
        return self._trace is not None or self._error is not None

    def abandon(self, error: GlauberError) -> None:
        """End it; a `stop` that comes later raises this error."""
        if not self.ended:
            self._error = error
            self._give_up()

    def _give_up(self) -> None:
        """End drain and acquisition, whatever fails; another error has said enough."""
        with suppress(GlauberError):
            if self._drain is not None:
                self._drain.end()
        with suppress(GlauberError):
            self._profile.finish(self._link)

    def stop(self) -> Trace:
        """See Recording.stop."""
        if not self.ended:
            end = time.monotonic()
            try:
                self._trace = self._read(end)
            except GlauberError as error:
                self._error = error
        if self._error is not None:
            raise self._error
        assert self._trace is not None
        return self._trace

    def _read(self, end: float) -> Trace:
        wiring, half = self._wiring, (self._latest - self._earliest) / 2
        first = wiring.first_share * self._period / 2
        time.sleep(2 * self._period + half)  # the buffer holds a reading after the window's end
        if self._drain is not None:
            self._drain.end()
        read = self._profile.finish(self._link)
        self._check("the acquisition")
        seconds = end - self._begin
        if wiring.capacity and len(read.times) >= wiring.capacity:
            raise MeteringError(
                f"the buffer of {wiring.name} holds {wiring.capacity} readings and was full {read.times[-1]:.3g} s"
                f" after it began, in a window of {seconds:.3g} s: put fewer samples or chains into one job"
            )
        if len(read.times) < 2:
            raise MeteringError(f"{wiring.name} took {len(read.times)} readings in {seconds:.3g} s: no figure at all")
        times = read.times + self._earliest + half + first
        skews = tuple(limit for limit in (half, first, wiring.clock_step / 2) if limit > 0)
        if not wiring.capacity and times[-1] < end - 2 * self._period - half:
            raise MeteringError(
                f"{wiring.name} gave {len(read.times)} readings, which end {end - times[-1]:.3g} s before the window:"
                " its buffer overran, because this computer was too busy to empty it. Measure again, on fewer threads"
            )
        return Trace(times, read.volts * read.amps, (self._begin, end), skews)
