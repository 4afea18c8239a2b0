"""The faults that acceptance states its power against, and simulated devices that have them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from glauber.catalogue import catalogue_names, load_spec
from glauber.compile import AnyProgram, Program, Run
from glauber.device import Device
from glauber.driver import Batch, Driver, JobService
from glauber.errors import ModelNotSupportedError
from glauber.registry import open_driver, parse_address
from glauber.spec import AnySpec
from glauber.testing.acceptance.probes import Probes


@dataclass(frozen=True)
class Fault:
    """A fault of a stated size.

    Attributes:
        name: with the size.
        flaws: of the simulated device's address; empty where it is a wrong program.
    """

    name: str
    flaws: str = ""


ROOM_KELVIN = 298.15
"""At which the simulator's gains are 1; they go with 1 / T."""

FAULTS = (
    Fault("beta + 5 %", f"temperature_c={ROOM_KELVIN / 1.05 - 273.15:.6f}"),
    Fault("gain spread 10 %", "gain_spread=0.1"),
    Fault("crosstalk 1 %", "crosstalk=0.01"),
    Fault("noise correlation 3 sweeps", "memory_sweeps=3"),
    Fault("one dead p-bit", "n_dead=1"),
    Fault("one dropped coupling"),
    Fault("1-bit DAC", "dac_bits=1"),
    Fault("1 % of wrong readings", "readout_error=0.01"),
)


def simulated(spec: AnySpec, probes: Probes, fault: Fault | None, number: int) -> Device:
    """A simulation of a device, with a fault or without; the number picks which p-bits or coupling it hits.

    Raises:
        ModelNotSupportedError: nothing in the catalogue is this device.
    """
    base = load_spec(spec.name) if spec.name in catalogue_names() else None
    if base is None or (base.topology, base.coefficients, base.n_sites) != (
        spec.topology,
        spec.coefficients,
        spec.n_sites,
    ):
        raise ModelNotSupportedError(f"the catalogue has no {spec.name} with this graph and precision to simulate")
    flaws = "" if fault is None or not fault.flaws else f"?{fault.flaws}&chip={number}"
    address = f"sim://{spec.name}{flaws}"
    driver = open_driver(parse_address(address))
    if fault is not None and not fault.flaws:
        assert not isinstance(driver, JobService)
        driver = DroppedCoupling(driver, probes, number)
    return Device(driver, address=address, seed=number)


class DroppedCoupling:
    """A driver whose device leaves out one of the couplings that an acceptance programs."""

    def __init__(self, driver: Driver, probes: Probes, number: int) -> None:
        edges = np.concatenate([job.model.edges for job in probes.jobs])
        self.pair = tuple(edges[np.random.default_rng(number).integers(len(edges))].tolist())
        self.spec, self._driver = driver.spec, driver

    def program(self, program: AnyProgram) -> None:
        """See Driver.program."""
        assert isinstance(program, Program)
        dropped = (program.edges == np.array(self.pair)).all(axis=1)
        left = np.where(dropped, 0, program.edge_weight).astype(np.int32)
        self._driver.program(replace(program, edge_weight=left, weight=left[program.order.row_edge]))

    def run(self, run: Run) -> Iterator[Batch]:
        """See Driver.run."""
        return self._driver.run(run)

    def admit(self, run: Run, program: AnyProgram) -> int:
        """See Driver.admit."""
        return self._driver.admit(run, program)

    def close(self) -> None:
        """See Driver.close."""
        self._driver.close()
