"""The joules of an instrument that counts them itself: MEASure:ENERgy? of docs/scpi-annealer.md."""

from __future__ import annotations

from collections.abc import Callable

from glauber.errors import ProtocolError
from glauber.meter import IdlePower, MeterSpec, Recording

from glauber_drivers.meters.polling import Polled
from glauber_drivers.scpi import NOT_A_NUMBER
from glauber_drivers.visa_link import VisaLink

READINGS_PER_PERIOD = 4


def has_counter(link: VisaLink) -> bool:
    """Whether a machine counts joules; one that does not answers NaN."""
    try:
        return float(link.query("MEAS:ENER?")) < NOT_A_NUMBER
    except ValueError as error:
        raise ProtocolError(f"the instrument answered MEAS:ENER? with no number ({error})") from error


class CounterMeter:
    """The counter of one instrument; see glauber.meter.EnergyMeter.

    Args:
        ask: for so many finite numbers by a query; from any thread.
        name: of the instrument.
        identity: see MeterSpec.identity.

    Raises:
        ProtocolError: the instrument does not say how good its counter is.
    """

    def __init__(self, ask: Callable[[str, int], list[float]], name: str, identity: str) -> None:
        self._ask = ask
        resolution, limit, period = ask("MEAS:ENER:FACT?", 3)
        if min(resolution, limit, period) < 0:
            raise ProtocolError(f"the instrument answered MEAS:ENER:FACT? with {resolution}, {limit}, {period}")
        self.spec = MeterSpec(
            name=f"counter of {name}",
            boundary="board",
            reads="joules",
            period_seconds=max(period, 1e-3),
            averaging_seconds=0.0,
            seen_share=1.0,
            seen_source="",
            relative_limit=limit,
            resolution=resolution,
            accuracy_source="what the instrument says of itself",
            identity=identity,
        )
        self.idle: IdlePower | None = None

    def _read(self) -> float:
        return self._ask("MEAS:ENER?", 1)[0]

    def start(self) -> Recording:
        """See EnergyMeter.start."""
        interval = self.spec.period_seconds / READINGS_PER_PERIOD
        return Polled(self._read, interval, self.spec.name, whole=False)

    def close(self) -> None:
        """See EnergyMeter.close: the driver has the link."""
