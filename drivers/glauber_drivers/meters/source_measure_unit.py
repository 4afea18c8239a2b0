"""What the Keithley source-measure units have in common: they feed the chip a voltage, and measure what it draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from glauber.errors import DeviceNotFoundError, InvalidModelError

from glauber_drivers.meters.scpi_profile import Wiring, accuracy, rail_limits
from glauber_drivers.visa_link import VisaLink


class SourceMeasureUnit:
    """A voltage source with a current limit that measures both.

    Without `volts` it must feed the chip already, and only its measuring is set. The output stays on when the meter is
    closed, since the chip lives from it.

    Args:
        amps: largest current that will flow, A: chooses the range, and with `volts` the limit; None: as it is set.
        volts: switch the output on at this voltage, V; None: it is on.

    Raises:
        InvalidModelError: volts without amps, or one that is not positive.
    """

    PARAMETERS: ClassVar[Mapping[str, Callable[[str], Any]]] = {"amps": float, "volts": float}
    drain_seconds: float | None = None
    # of a model:
    model: str
    source: str
    """Of the accuracy."""
    current_limit: str
    """Command that sets it."""
    currents: Mapping[float, tuple[float, float]]
    """Range, A: largest relative error of a reading and offset, A."""
    voltages: Mapping[float, tuple[float, float]]
    """Range, V: the same in V."""
    counts: float
    """Steps in a range."""
    capacity: int
    clock_step: float = 0.0
    """Resolution of its times, s."""

    def __init__(self, *, amps: float | None = None, volts: float | None = None) -> None:
        if volts is not None and amps is None:
            raise InvalidModelError("volts=... switches the output on, so amps=..., its limit, is needed too")
        if not all(value is None or 0 < value < 1000 for value in (amps, volts)):
            raise InvalidModelError(f"amps and volts must be positive numbers, not {amps} and {volts}")
        self._amps, self._volts = amps, volts

    def _feed(self, link: VisaLink) -> Wiring:
        """Set source and current range, or see what they are, and say how good the readings will be."""
        if self._volts is not None:
            for command in (
                ":SOUR:FUNC VOLT",
                f":SOUR:VOLT:RANG {self._volts:g}",
                f":SOUR:VOLT {self._volts:g}",
                f"{self.current_limit} {self._amps:g}",
                ":OUTP ON",
            ):
                link.write(command)
        if self._amps is not None:
            link.write(f":SENS:CURR:RANG {self._amps:g}")
        if link.query(":SOUR:FUNC?").strip('"').upper()[:4] != "VOLT" or link.whole_numbers(":OUTP?") != [1]:
            raise DeviceNotFoundError(
                f"the {self.model} does not feed a voltage now; switch its output on, or give volts=... and amps=..."
            )
        (volts,), (volts_range,) = link.reals(":SOUR:VOLT?"), link.reals(":SOUR:VOLT:RANG?")
        (amps_range,) = link.reals(":SENS:CURR:RANG?")
        if not volts > 0:
            raise DeviceNotFoundError(f"the {self.model} feeds {volts:g} V, which no chip lives from; set its voltage")
        limits = rail_limits(
            volts,
            accuracy(self.currents, amps_range, f"a current of {amps_range:g} A"),
            accuracy(self.voltages, volts_range, f"a voltage of {volts_range:g} V"),
            self.source,
        )
        return Wiring(
            name=f"{self.model} at {volts:g} V, the one rail that it feeds (no other is counted)",
            limits=limits,
            resolution=amps_range / self.counts * volts,
            integrates=False,
            first_share=1.0,
            clock_step=self.clock_step,
            capacity=self.capacity,
        )
