"""Keithley 2400: the dialogue, and how good its readings are; not tried on an instrument.

- The buffer ("data store") holds 2,500 readings; each gets the time since the first one. `INITiate` runs until it is
  full or `ABORt` comes, and meanwhile the unit answers no query (Series 2400 user's manual, 2400S-900-01, section 9;
  the latter as remembered), so when it began is known from the round trips just before; should INITiate
  take longer than a query, that is within the period that the first reading is uncertain by.
- Its clock runs at 8,192 Hz and counts as if at 8,000: 1.024 s for each second (Keithley: Using the Model 2400 Internal
  Timestamp Feature). Times are multiplied by 8000 / 8192.
- Readings are sent as text, which every one of its interfaces can.
- Accuracy: SPEC-2400 Rev. H, one year, 23 +- 5 C, 1 power-line cycle, which is what it integrates over here. Voltage
  and current are converted one after the other, so a reading takes some 40 ms.
"""

from __future__ import annotations

import time

import numpy as np
from glauber.errors import ProtocolError

from glauber_drivers.meters.scpi_profile import Readings, Wiring, numbers
from glauber_drivers.meters.source_measure_unit import SourceMeasureUnit
from glauber_drivers.visa_link import VisaLink

CLOCK = 8000 / 8192
ROUND_TRIPS = 5
POINTS = 2500
FETCH_SECONDS = 60.0
"""How long a buffer may take on its way; 2,500 readings in text take 20 s at 57,600 baud."""


class Keithley2400(SourceMeasureUnit):
    """See SourceMeasureUnit, and glauber_drivers.meters.scpi_profile.Profile."""

    identity = r"KEITHLEY.*MODEL 2400"
    model = "Keithley 2400"
    source = "Keithley SPEC-2400 Rev. H, 1 year, 1 PLC"
    current_limit = ":SENS:CURR:PROT"
    currents = {  # noqa: RUF012  # a table, as the specification prints it
        1e-6: (0.00029, 300e-12), 1e-5: (0.00027, 700e-12), 1e-4: (0.00025, 6e-9), 1e-3: (0.00027, 60e-9),
        1e-2: (0.00035, 600e-9), 0.1: (0.00055, 6e-6), 1.0: (0.0022, 570e-6),
    }  # fmt: skip
    voltages = {0.2: (0.00012, 300e-6), 2.0: (0.00012, 300e-6), 20.0: (0.00015, 1.5e-3), 200.0: (0.00015, 10e-3)}  # noqa: RUF012
    counts = 1e5
    capacity = POINTS
    clock_step = 1e-3

    def configure(self, link: VisaLink) -> Wiring:
        """See Profile.configure."""
        link.write(":ABOR")
        link.write("*CLS")
        for command in (":SENS:FUNC:CONC ON", ":SENS:FUNC 'VOLT','CURR'", ":SENS:CURR:NPLC 1"):
            link.write(command)
        wiring = self._feed(link)
        for command in (
            ":FORM:DATA ASC",
            ":FORM:ELEM VOLT,CURR,TIME",
            ":TRAC:TST:FORM ABS",
            ":ARM:SOUR IMM",
            ":ARM:COUN 1",
            ":TRIG:SOUR IMM",
            ":TRIG:DEL 0",
            f":TRIG:COUN {POINTS}",
        ):
            link.write(command)
        return wiring

    def trigger(self, link: VisaLink) -> tuple[float, float]:
        """See Profile.trigger. It cannot be asked whether it has begun: the longest of five round trips limits it."""
        for command in (":TRAC:FEED:CONT NEV", ":TRAC:CLE", f":TRAC:POIN {POINTS}", ":TRAC:FEED SENS"):
            link.write(command)
        link.write(":TRAC:FEED:CONT NEXT")
        longest = 0.0
        for number in range(ROUND_TRIPS + 1):
            before = time.monotonic()
            link.query("*OPC?")
            if number:  # the first one waits for what was written before
                longest = max(longest, time.monotonic() - before)
        sent = time.monotonic()
        link.send(":INIT")
        return sent, sent + longest

    def drain(self, link: VisaLink) -> None:
        """See Profile.drain: the unit answers nothing meanwhile."""

    def finish(self, link: VisaLink) -> Readings:
        """See Profile.finish."""
        link.write(":ABOR")
        link.write(":TRAC:FEED:CONT NEV")
        (count,) = link.whole_numbers(":TRAC:POIN:ACT?")
        if count == 0:
            return Readings(np.zeros(0), np.zeros((1, 0)), np.zeros((1, 0)))
        answer = link.query(":TRAC:DATA?", FETCH_SECONDS)
        try:
            words = np.array(answer.split(","), dtype=np.float64)
        except ValueError as error:
            raise ProtocolError(
                f"the {self.model} answered :TRAC:DATA? with something else than numbers ({error})"
            ) from error
        if len(words) != 3 * count:
            raise ProtocolError(f"the {self.model} gave {len(words)} numbers for {count} readings of 3 numbers each")
        volts, amps, times = numbers(words, self.model).reshape(count, 3).T
        return Readings(CLOCK * (times - times[0]), volts[None], amps[None])
