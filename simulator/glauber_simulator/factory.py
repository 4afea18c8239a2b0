"""From a `sim://` address to a simulated device: a catalogue entry, its parameters, its flaws."""

from __future__ import annotations

import typing
from collections.abc import Iterable
from typing import Any

from glauber.catalogue import catalogue_names, load_spec
from glauber.driver import Address
from glauber.errors import DeviceNotFoundError
from glauber.nonidealities import Nonidealities
from glauber.spec import AnySpec, Method, Quantity
from glauber.topology import OffsetGrid
from pydantic import ValidationError

from glauber_simulator import core
from glauber_simulator.chip_driver import ChipDriver
from glauber_simulator.driver import IdealDriver, SimulatorDriver
from glauber_simulator.flaws import fabricate

PARAMETERS = ("weight_bits", "width", "height", "n_sites", "body")
FLAWS = ("flaws", *Nonidealities.model_fields)


def with_parameters(spec: AnySpec, parameters: dict[str, str]) -> AnySpec:
    """A spec changed by an address's parameters: weight_bits, and width and height of a grid.

    Raises:
        DeviceNotFoundError: a parameter that is unknown or does not parse.
    """
    unknown = set(parameters) - set(PARAMETERS) - set(FLAWS)
    if unknown:
        raise DeviceNotFoundError(
            f"sim://{spec.name} does not know {', '.join(sorted(unknown))}; there are seed, {', '.join(PARAMETERS)},"
            f" and for a chip with flaws {', '.join(FLAWS)}"
        )
    changes: dict[str, Any] = {}
    numbers = {name: _whole(spec.name, name, parameters[name]) for name in PARAMETERS[:4] if name in parameters}
    try:
        if "n_sites" in numbers:
            if not spec.any_graph:
                raise DeviceNotFoundError(
                    f"sim://{spec.name} has a fixed number of p-bits: n_sites means nothing there"
                )
            source = "the device's address"
            changes["units"] = Quantity(value=numbers["n_sites"], unit="p-bit", provenance="assumed", source=source)
        if "weight_bits" in numbers:
            asked = {"weight_bits": numbers["weight_bits"], "provenance": "assumed", "source": "the device's address"}
            changes["coefficients"] = type(spec.coefficients)(**{**spec.coefficients.model_dump(), **asked})
        if "width" in numbers or "height" in numbers:
            rules = spec.topology.rules if isinstance(spec.topology, OffsetGrid) else spec.grid_rules
            if rules is None:
                raise DeviceNotFoundError(f"sim://{spec.name} is no offset grid: width and height mean nothing there")
            if len(numbers.keys() & {"width", "height"}) < 2:
                raise DeviceNotFoundError(
                    f"a grid for {spec.name} needs both, as in sim://{spec.name}?width=24&height=24"
                )
            changes["topology"] = OffsetGrid(width=numbers["width"], height=numbers["height"], rules=rules)
            changes["topology_note"] = "width and height assumed, from the device's address"
    except ValidationError as error:
        raise DeviceNotFoundError(f"sim://{spec.name}: {error.errors()[0]['msg']}") from error
    return spec.model_copy(update=changes)


def _whole(device: str, name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise DeviceNotFoundError(f"sim://{device}?{name}={text}: {name} must be a whole number")
    return int(text)


class SimulatorFactory:
    """Opens `sim://NAME?weight_bits=...&width=...&height=...&n_sites=...&body=core|reference`, and chips with flaws.

    `flaws=typical`, `flaws=FILE.json`, and single flaws as `Nonidealities` has them: `sim://pbit-king-64?chip=3&n_dead=1`.
    """

    def open(self, address: Address) -> SimulatorDriver:
        """See DriverFactory.open."""
        if not address.name:
            raise DeviceNotFoundError(
                "sim:// needs a device's name: sim://ideal takes any model, sim://pbit-king-64 is a small chip;"
                f" there are {', '.join(catalogue_names())}"
            )
        spec = with_parameters(load_spec(address.name), dict(address.parameters))
        body = address.parameters.get("body", "core")
        if body not in ("core", "reference"):
            raise DeviceNotFoundError(f"body={body} is not known; there are core and reference")
        methods = typing.get_args(Method) if spec.capabilities.beta == "programmable" else ()
        able = spec.capabilities.model_copy(
            update={"deterministic": True, "chain_fields": True, "clamp": True, "methods": methods}
        )
        facts = {"assumed graph": spec.topology_note} if "width" in address.parameters else {}
        described = spec.model_copy(update={"capabilities": able})
        settings = {name: text for name, text in address.parameters.items() if name in FLAWS}
        if settings:
            how = Nonidealities.parse(settings)
            if not how.is_ideal:
                return ChipDriver(described, fabricate(described, how), body, {**facts, "flaws": f"chip {how.chip}"})
        kind = IdealDriver if spec.any_graph and body == "core" else SimulatorDriver
        return kind(described, body, facts)

    def devices(self) -> Iterable[tuple[str, AnySpec]]:
        """See DriverFactory.devices."""
        for name in catalogue_names():
            yield f"sim://{name}", load_spec(name)

    def about(self) -> dict[str, Any]:
        """What this computer's core is, for `glauber version`."""
        return {"machine contract": core.CONTRACT_VERSION, "instruction set": core.BEST_ISA}
