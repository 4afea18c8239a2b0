"""Keithley 2450: the dialogue, and how good its readings are; not tried on an instrument.

- A buffer of our own holds 100,000 readings and stops when it is full. The trigger model "DurationLoop" measures into
  it; while it runs other commands are answered, so when it began is known from the answer to :TRIG:STAT?.
- Each reading has the source's readback, the current, and the time since the first reading (2450 reference manual,
  2450-901-01: :TRACe:DATA?, buffer elements; :TRIGger:LOAD "DurationLoop" as remembered).
- Readings are sent as 64-bit numbers in one block.
- Accuracy: SPEC-2450 Rev. A, one year, 23 +- 5 C, 1 power-line cycle, which is what it integrates over here. Readback
  is a measurement, and is taken to be as good as the voltage measurements of that table.
"""

from __future__ import annotations

import time

import numpy as np

from glauber_drivers.meters.scpi_profile import Readings, Wiring, numbers
from glauber_drivers.meters.source_measure_unit import SourceMeasureUnit
from glauber_drivers.visa_link import VisaLink

POINTS = 100_000
BUFFER = '"glauber"'
LONGEST_SECONDS = 100_000


class Keithley2450(SourceMeasureUnit):
    """See SourceMeasureUnit, and glauber_drivers.meters.scpi_profile.Profile."""

    identity = r"KEITHLEY.*MODEL 2450"
    model = "Keithley 2450"
    source = "Keithley SPEC-2450 Rev. A, 1 year, 1 PLC"
    current_limit = ":SOUR:VOLT:ILIM"
    currents = {  # noqa: RUF012  # a table, as the specification prints it
        1e-8: (0.001, 50e-12), 1e-7: (0.0006, 100e-12), 1e-6: (0.00025, 300e-12), 1e-5: (0.00025, 700e-12),
        1e-4: (0.0002, 6e-9), 1e-3: (0.0002, 60e-9), 1e-2: (0.0002, 600e-9),
        0.1: (0.00025, 6e-6), 1.0: (0.0003, 500e-6),
    }  # fmt: skip
    voltages = {  # noqa: RUF012
        0.02: (0.001, 150e-6), 0.2: (0.00012, 200e-6), 2.0: (0.00012, 300e-6), 20.0: (0.00015, 1e-3),
        200.0: (0.00015, 10e-3),
    }  # fmt: skip
    counts = 1e6
    capacity = POINTS

    def configure(self, link: VisaLink) -> Wiring:
        """See Profile.configure."""
        for command in (":ABOR", "*CLS", f":TRAC:DEL {BUFFER}"):
            link.write(command)
        link.errors()  # the buffer may not have been there
        for command in (
            f":TRAC:MAKE {BUFFER}, {POINTS}",
            f":TRAC:FILL:MODE ONCE, {BUFFER}",
            ':SENS:FUNC "CURR"',
            ":SENS:CURR:NPLC 1",
            ":SOUR:VOLT:READ:BACK ON",
            ":FORM:DATA REAL",
            ":FORM:BORD SWAP",
        ):
            link.write(command)
        return self._feed(link)

    def trigger(self, link: VisaLink) -> tuple[float, float]:
        """See Profile.trigger."""
        link.write(f":TRAC:CLE {BUFFER}")
        link.write(f':TRIG:LOAD "DurationLoop", {LONGEST_SECONDS}, 0, {BUFFER}')
        link.query("*OPC?")
        before = time.monotonic()
        link.write(":INIT")
        link.query(":TRIG:STAT?")
        return before, time.monotonic()

    def drain(self, link: VisaLink) -> None:
        """See Profile.drain: the buffer is large enough."""

    def finish(self, link: VisaLink) -> Readings:
        """See Profile.finish."""
        link.write(":ABOR")
        (count,) = link.whole_numbers(f":TRAC:ACT? {BUFFER}")
        if count == 0:
            return Readings(np.zeros(0), np.zeros((1, 0)), np.zeros((1, 0)))
        data = link.query_block(f":TRAC:DATA? 1, {count}, {BUFFER}, SOUR, READ, REL", 24 * count, indefinite=True)
        volts, amps, times = numbers(np.frombuffer(data, "<f8"), self.model).reshape(count, 3).T
        return Readings(times - times[0], volts[None], amps[None])
