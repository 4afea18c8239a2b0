"""From a `sim://` address to a simulated device: a catalogue entry, its parameters, its flaws."""

from __future__ import annotations

import typing
from collections.abc import Iterable
from typing import Any

from glauber.calibration import TwinSpec
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
from glauber_simulator.twin import flaws_of

PARAMETERS = ("weight_bits", "width", "height", "n_sites", "body")
TWIN = ("twin", "draw", "expired", "body")
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


def _able(spec: AnySpec) -> AnySpec:
    """A description with what every simulated device can."""
    methods = typing.get_args(Method) if spec.capabilities.beta == "programmable" else ()
    can = {"deterministic": True, "chain_fields": True, "clamp": True, "methods": methods}
    return spec.model_copy(update={"capabilities": spec.capabilities.model_copy(update=can)})


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
        body = address.parameters.get("body", "core")
        if body not in ("core", "reference"):
            raise DeviceNotFoundError(f"body={body} is not known; there are core and reference")
        if "twin" in address.parameters:
            return self._twin(address, body)
        spec = with_parameters(load_spec(address.name), dict(address.parameters))
        described = _able(spec)
        facts = {"assumed graph": spec.topology_note} if "width" in address.parameters else {}
        settings = {name: text for name, text in address.parameters.items() if name in FLAWS}
        if settings:
            how = Nonidealities.parse(settings)
            if not how.is_ideal:
                return ChipDriver(described, fabricate(described, how), body, {**facts, "flaws": f"chip {how.chip}"})
        kind = IdealDriver if spec.any_graph and body == "core" else SimulatorDriver
        return kind(described, body, facts)

    def _twin(self, address: Address, body: str) -> ChipDriver:
        """A chip as a calibration found it: `sim://NAME?twin=FILE`, with `draw=K` one of those it might be as well."""
        parameters = dict(address.parameters)
        unknown = set(parameters) - set(TWIN)
        if unknown:
            raise DeviceNotFoundError(f"a twin does not know {', '.join(sorted(unknown))}; there are {', '.join(TWIN)}")
        if parameters.get("expired", "no") not in ("yes", "no"):
            raise DeviceNotFoundError("expired=yes opens a twin whose calibration has expired; nothing else is known")
        try:
            twin = TwinSpec.load(parameters["twin"])
        except OSError as error:
            raise DeviceNotFoundError(f"no twin at {parameters['twin']}: {error}; `glauber twin` writes one") from error
        if parameters.get("expired") != "yes":
            twin.check_fresh()
        spec = twin.device_spec
        if spec.name != address.name:
            raise DeviceNotFoundError(f"{parameters['twin']} is the twin of {spec.name}: sim://{spec.name}?twin=...")
        draw = None if "draw" not in parameters else _whole(spec.name, "draw", parameters["draw"])
        return ChipDriver(_able(spec), flaws_of(twin, draw), body, {"twin": f"of calibration {twin.record.id}"})

    def devices(self) -> Iterable[tuple[str, AnySpec]]:
        """See DriverFactory.devices."""
        for name in catalogue_names():
            yield f"sim://{name}", load_spec(name)

    def about(self) -> dict[str, Any]:
        """What this computer's core is, for `glauber version`."""
        return {"machine contract": core.CONTRACT_VERSION, "instruction set": core.BEST_ISA}
