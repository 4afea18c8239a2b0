"""Keysight (Agilent) N6705 DC power analyzer, with N6781A modules: the dialogue; not tried on an instrument.

- The external data logger (ELOG) takes the mean of current and voltage over each period, without gaps, into a FIFO that
  holds some 20 s: it is emptied all along, and overwritten if nobody does (N6700 user's guide, External Data Logging).
  `TRIGger:ELOG` begins it, and other commands are answered meanwhile.
- A record has the current before the voltage; records are sent as 32-bit numbers in a definite-length block.
- Outputs of several rails run at the same time and are summed; each has errors of its own. The meter's name says which
  outputs are summed and which are not.
- Only modules with two converters log both: the N6781A is known here. **Its accuracy is given from memory of the N6700
  specifications guide and was not compared with it**: 0.03 % + 250 uA (3 A range), 0.025 % + 10 uA (100 mA), 0.025 % +
  100 nA (1 mA); 0.025 % + 1.2 mV (20 V), 75 uV (1 V), 50 uV (0.1 V), all for 1 power-line cycle. Shorter periods add
  the converter's noise, which shows in the readings.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from glauber.errors import DeviceNotFoundError, InvalidModelError, ProtocolError
from glauber.meter import ErrorLimit

from glauber_drivers.meters.scpi_profile import Readings, Wiring, accuracy, numbers, rail_limits
from glauber_drivers.visa_link import VisaLink

SOURCE = "N6781A in Keysight's N6700 specifications guide, 1 year, as remembered and not compared"
MODULES = ("N6781A",)
CURRENTS = {1e-3: (0.00025, 100e-9), 0.1: (0.00025, 10e-6), 3.0: (0.0003, 250e-6)}
VOLTAGES = {0.1: (0.00025, 50e-6), 1.0: (0.00025, 75e-6), 20.0: (0.00025, 1.2e-3)}
COUNTS = 2**18
"""Steps in a range; about 18 bits at 1 power-line cycle."""
RECORDS = 10_000
"""Fetched at a time."""


def _channels(text: str) -> tuple[int, ...]:
    """Outputs of an address, such as 1 or 1,3."""
    return tuple(int(word) for word in text.split(","))


class KeysightN6705:
    """See glauber_drivers.meters.scpi_profile.Profile.

    Args:
        channels: outputs that are summed.
        period: of a reading, s; 20 ms is one power-line cycle at 50 Hz.
        amps: largest current of an output, A; None: the ranges that are set.

    Raises:
        InvalidModelError: no or repeated channels, or a period that the logger does not have.
    """

    PARAMETERS: ClassVar[Mapping[str, Callable[[str], Any]]] = {"channels": _channels, "period": float, "amps": float}
    identity = r"(AGILENT|KEYSIGHT).*N6705"
    model = "Keysight N6705"
    drain_seconds: float | None = 0.5

    def __init__(self, *, channels: Sequence[int] = (1,), period: float = 0.02, amps: float | None = None) -> None:
        if not channels or len(set(channels)) != len(channels) or not all(1 <= channel <= 4 for channel in channels):
            raise InvalidModelError(f"channels must be different outputs from 1 to 4, such as 1,2, not {channels}")
        if not 2 * 102.4e-6 <= period <= 60:
            raise InvalidModelError(f"period must be from 0.0002048 to 60 s, not {period}")
        self._channels, self._period, self._amps = tuple(channels), period, amps
        self._list = f"(@{','.join(str(channel) for channel in channels)})"
        self._held: list[list[bytes]] = []

    def configure(self, link: VisaLink) -> Wiring:
        """See Profile.configure."""
        link.write(f"ABOR:ELOG {self._list}")
        link.write("*CLS")
        (count,) = link.whole_numbers("SYST:CHAN:COUN?")
        missing = [channel for channel in self._channels if channel > count]
        if missing:
            raise DeviceNotFoundError(f"the {self.model} has {count} outputs, so there is no output {missing[0]}")
        if self._amps is not None:
            link.write(f"SENS:CURR:RANG {self._amps:g}, {self._list}")
        limits: list[ErrorLimit] = []
        resolution = 0.0
        for rail, channel in enumerate(self._channels):
            found, step = self._rail(link, rail, channel)
            limits += found
            resolution += step
        for command in (
            f"SENS:ELOG:FUNC:CURR ON, {self._list}",
            f"SENS:ELOG:FUNC:VOLT ON, {self._list}",
            f"SENS:ELOG:PER {self._period:g}, {self._list}",
            f"TRIG:ELOG:SOUR BUS, {self._list}",
            "FORM REAL",
            "FORM:BORD NORM",
        ):
            link.write(command)
        periods = link.reals(f"SENS:ELOG:PER? {self._list}", len(self._channels))
        self._period = periods[0]  # rounded to the converter's steps
        others = [str(channel) for channel in range(1, count + 1) if channel not in self._channels]
        unseen = f" (not summed: {', '.join(others)})" if others else ""
        summed = ", ".join(str(channel) for channel in self._channels)
        return Wiring(
            name=f"{self.model}, outputs summed: {summed}{unseen}",
            limits=tuple(limits),
            resolution=resolution,
            integrates=True,
            first_share=0.0,
            clock_step=0.0,
            capacity=0,
        )

    def _rail(self, link: VisaLink, rail: int, channel: int) -> tuple[tuple[ErrorLimit, ...], float]:
        """The limits of an output's errors, and its resolution in W."""
        module = link.query(f"SYST:CHAN:MOD? (@{channel})").strip('"')
        if module not in MODULES:
            raise DeviceNotFoundError(
                f"output {channel} of the {self.model} is a module {module}, whose accuracy is not known here; known:"
                f" {', '.join(MODULES)}"
            )
        if link.whole_numbers(f"OUTP? (@{channel})") != [1]:
            raise DeviceNotFoundError(f"output {channel} of the {self.model} is off; switch it on, or leave it out")
        (volts,) = link.reals(f"VOLT? (@{channel})")
        (volts_range,) = link.reals(f"SENS:VOLT:RANG? (@{channel})")
        (amps_range,) = link.reals(f"SENS:CURR:RANG? (@{channel})")
        if not volts > 0:
            raise DeviceNotFoundError(
                f"output {channel} of the {self.model} is set to {volts:g} V; set it, or leave it out"
            )
        current = accuracy(CURRENTS, amps_range, f"a current of {amps_range:g} A")
        voltage = accuracy(VOLTAGES, volts_range, f"a voltage of {volts_range:g} V")
        # named by output, since another one has errors of its own
        return rail_limits(volts, current, voltage, SOURCE, rail, f", output {channel}"), amps_range / COUNTS * volts

    def trigger(self, link: VisaLink) -> tuple[float, float]:
        """See Profile.trigger."""
        self._held = [[] for _ in self._channels]
        link.write(f"INIT:ELOG {self._list}")
        link.query("*OPC?")
        before = time.monotonic()
        link.write(f"TRIG:ELOG {self._list}")
        link.query("*IDN?")
        return before, time.monotonic()

    def drain(self, link: VisaLink) -> None:
        """See Profile.drain."""
        for held, channel in zip(self._held, self._channels, strict=True):
            while True:
                data = link.query_block(f"FETC:ELOG? {RECORDS}, (@{channel})")
                if len(data) % 8:
                    raise ProtocolError(f"the {self.model} gave {len(data)} bytes of records of 8 bytes")
                held.append(data)
                if len(data) < 8 * RECORDS:
                    break

    def finish(self, link: VisaLink) -> Readings:
        """See Profile.finish: what the FIFO holds is fetched before the logger is stopped."""
        self.drain(link)
        link.write(f"ABOR:ELOG {self._list}")
        rails = [np.frombuffer(b"".join(held), ">f4").astype(np.float64) for held in self._held]
        count = min(len(words) // 2 for words in rails)
        records = np.stack([numbers(words[: 2 * count], self.model).reshape(count, 2) for words in rails])
        times = np.asarray(self._period * (np.arange(count) + 1), dtype=np.float64)
        return Readings(times, records[:, :, 1], records[:, :, 0])
