"""thrml://cpu: our jobs on THRML's own block Gibbs sampler, an oracle that shares no arithmetic with sim://ideal.

THRML and JAX are imported when the device is opened, not before.

    program.py   a program as THRML factors and blocks
    driver.py    the driver
    spec.py      what it can
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from glauber.driver import Address, Driver
from glauber.errors import DeviceNotFoundError, missing_extra
from glauber.spec import AnySpec

from glauber_drivers.thrml_device.spec import thrml_spec


def has_thrml() -> bool:
    """Whether THRML is installed; does not import it."""
    return importlib.util.find_spec("thrml") is not None


class ThrmlFactory:
    """Opens `thrml://cpu`."""

    def open(self, address: Address) -> Driver:
        """See DriverFactory.open."""
        if address.parameters:
            raise DeviceNotFoundError(f"{address.text}: a THRML device takes seed=..., nothing else")
        if address.name != "cpu":
            raise DeviceNotFoundError(f"there is no THRML device {address.text}; there is thrml://cpu")
        if not has_thrml():
            raise DeviceNotFoundError(str(missing_extra("thrml", "thrml", address.text)))
        from glauber_drivers.thrml_device.driver import ThrmlDriver

        return ThrmlDriver()

    def devices(self) -> Iterable[tuple[str, AnySpec]]:
        """See DriverFactory.devices."""
        if has_thrml():
            yield "thrml://cpu", thrml_spec()
