"""jax://cpu and jax://gpu: the integer machine in JAX, the same samples as sim://ideal bit for bit.

JAX is imported when such a device is opened, not before.

    machine.py   generator, uniforms, thresholds
    rows.py      a program's rows and colours as rectangles
    ising.py     an Ising run: heat bath, Metropolis, tempering
    potts.py     a Potts run: heat bath
    spec.py      what it can
    driver.py    the driver
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from glauber.driver import Address, Driver
from glauber.errors import DeviceNotFoundError, missing_extra
from glauber.spec import AnySpec

from glauber_drivers.jax_device.spec import jax_spec

PLATFORMS = ("cpu", "gpu")


def has_jax() -> bool:
    """Whether JAX is installed; does not import it."""
    return importlib.util.find_spec("jax") is not None


class JaxFactory:
    """Opens `jax://cpu`, or `jax://gpu` where JAX has one."""

    def open(self, address: Address) -> Driver:
        """See DriverFactory.open."""
        if address.parameters:
            raise DeviceNotFoundError(f"{address.text}: a JAX device takes seed=..., nothing else")
        if address.name not in PLATFORMS:
            raise DeviceNotFoundError(f"there is no JAX device {address.text}; there are jax://cpu and jax://gpu")
        if not has_jax():
            raise DeviceNotFoundError(str(missing_extra("jax", "jax", address.text)))
        from glauber_drivers.jax_device.driver import JaxDriver

        return JaxDriver(address.name)

    def devices(self) -> Iterable[tuple[str, AnySpec]]:
        """See DriverFactory.devices. jax://gpu is not listed: to ask for it would start its runtime."""
        if has_jax():
            yield "jax://cpu", jax_spec("cpu")
