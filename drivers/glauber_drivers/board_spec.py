"""A board's description, from what it says of itself in HELLO."""

from __future__ import annotations

import numpy as np
from glauber.spec import Capabilities, Coefficients, PbitSpec, Quantity
from glauber.topology import EdgeList
from numpy.typing import NDArray

from glauber_drivers import wire
from glauber_drivers.wire import Capability


def board_spec(hello: wire.Hello, edges: NDArray[np.int32] | None, name: str) -> PbitSpec:
    """A board's description, from what it says of itself."""

    def reported(value: float, unit: str) -> Quantity:
        return Quantity(value=value, unit=unit, provenance="vendor", source=f"reported by {name}")

    deterministic = Capability.DETERMINISTIC in hello.capabilities
    observables = {"samples", "last", "energies"} | ({"moments"} if Capability.MOMENTS in hello.capabilities else set())
    return PbitSpec(
        name=_plain(hello.name),
        title=f"Board {hello.name!r}, firmware {hello.firmware_version}",
        vendor="reported by the board",
        status="prototype",
        description="A board that speaks glauber's wire protocol, version 1",
        units=reported(hello.sites, "p-bit"),
        any_graph=edges is None,
        topology=None if edges is None else EdgeList(n=hello.sites, edge_list=tuple(map(_pair, edges))),
        coefficients=Coefficients(
            weight_bits=hello.weight_bits,
            field_bits=hello.field_bits,
            provenance="vendor",
            source=f"reported by {name}",
        ),
        capabilities=Capabilities.model_validate(
            {
                "deterministic": deterministic,
                "clamp": Capability.CLAMP in hello.capabilities,
                "observables": observables,
            }
        ),
        facts={
            "couplings": reported(hello.entries / 2, "1"),
            "words_of_state": reported(hello.cells, "1"),
            "boots": reported(hello.boots, "1"),
        },
        notes=("energy: the board's counter is " + _counter_note(hello),),
    )


def _pair(edge: NDArray[np.int32]) -> tuple[int, int]:
    return int(edge[0]), int(edge[1])


def _plain(name: str) -> str:
    text = "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower()).strip("-")
    return text or "board"


def _counter_note(hello: wire.Hello) -> str:
    if Capability.ENERGY not in hello.capabilities:
        return "missing"
    return "measured on the board" if Capability.ENERGY_MEASURED in hello.capabilities else "a model in its firmware"
