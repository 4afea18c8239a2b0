"""Joules by a power that the user states, where there is no instrument: a model, and never called a measurement."""

from __future__ import annotations

import math
import time

import numpy as np
from glauber.driver import Address
from glauber.errors import DeviceNotFoundError, InvalidModelError
from glauber.meter import IdlePower, MeterSpec, Trace
from glauber.registry import only_parameters
from glauber.spec import Boundary, Quantity


class _Timed:
    """A window of which only the length is known; see glauber.meter.Recording."""

    def __init__(self, watts: float) -> None:
        self._watts, self._begin = watts, time.monotonic()
        self._trace: Trace | None = None

    def stop(self) -> Trace:
        """See Recording.stop."""
        if self._trace is None:
            times = np.array([self._begin, max(time.monotonic(), np.nextafter(self._begin, np.inf))])
            self._trace = Trace(times, np.full(2, self._watts))
        return self._trace


class ModelMeter:
    """Stands where an EnergyMeter would: a job's joules are this power times its seconds, in a modelled report.

    Args:
        power: while a job runs, W, with a standard uncertainty or an interval, and whose word it is: any provenance but
            "measured".

    Raises:
        InvalidModelError: no power, no uncertainty, or one that claims to be measured.
    """

    def __init__(self, power: Quantity) -> None:
        if power.provenance == "measured":
            raise InvalidModelError(
                "a stated power is no measurement of this job: give it provenance 'derived', 'model', 'vendor' or"
                " 'assumed', and in its source what was measured when"
            )
        if power.unit != "W" or not power.best > 0:
            raise InvalidModelError(f"the power must be positive and in W, not {power.best} {power.unit}")
        if power.standard_uncertainty is None and power.low is None:
            raise InvalidModelError(
                "a power without an uncertainty says nothing: give standard_uncertainty, or low and high"
            )
        boundary: Boundary = "chip" if power.boundary is None else power.boundary
        self.idle: IdlePower | None = None
        self.spec = MeterSpec(
            name=f"stated power, {power.best:.4g} W",
            boundary=boundary,
            reads="watts",
            period_seconds=0.0,
            averaging_seconds=0.0,
            seen_share=1.0,
            seen_source="",
            relative_limit=0.0,
            resolution=0.0,
            accuracy_source=power.source,
            model=power,
        )

    @classmethod
    def from_address(cls, address: Address) -> ModelMeter:
        """model://?watts=3.2&uncertainty=0.4&source=TEXT: a standard uncertainty, in W; the provenance is "assumed"."""
        only_parameters(address, ("watts", "uncertainty", "source"))
        given = address.parameters
        missing = [name for name in ("watts", "uncertainty", "source") if not given.get(name)]
        if missing:
            raise DeviceNotFoundError(f"{address.text}: {', '.join(missing)} must be given, as in {EXAMPLE}")
        try:
            watts, uncertainty = float(given["watts"]), float(given["uncertainty"])
            power = Quantity(
                value=watts, standard_uncertainty=uncertainty, unit="W", provenance="assumed", source=given["source"]
            )
        except ValueError as error:
            raise DeviceNotFoundError(
                f"{address.text}: watts and uncertainty must be numbers, as in {EXAMPLE}"
            ) from error
        if not 0 < uncertainty < math.inf:
            raise DeviceNotFoundError(
                f"{address.text}: an uncertainty of {uncertainty:g} W says nothing; give what it is, as in {EXAMPLE}"
            )
        return cls(power)

    def start(self) -> _Timed:
        """See EnergyMeter.start."""
        assert self.spec.model is not None
        return _Timed(self.spec.model.best)

    def close(self) -> None:
        """See EnergyMeter.close: nothing is held."""


EXAMPLE = "model://?watts=3.2&uncertainty=0.4&source=bench"
