"""What the THRML device is; does not import THRML."""

from __future__ import annotations

from glauber.catalogue import load_spec
from glauber.spec import AnySpec, Capabilities, CpuSpec

MOST_COLOURS = 256
"""Every colour is a block of its own in what XLA compiles: a thousand take minutes."""
POTTS_STATES = 256
"""THRML's categorical nodes are bytes."""


def thrml_spec() -> AnySpec:
    """The description of `thrml://cpu`."""
    return CpuSpec(
        name="thrml-cpu",
        title="THRML on this computer",
        vendor="Extropic",
        status="model",
        description="THRML's block Gibbs sampler in 32-bit floats under JAX: any graph of few colours",
        any_graph=True,
        topology_note=f"up to {MOST_COLOURS} colours and memory: software decides",
        coefficients=load_spec("ideal").coefficients,
        capabilities=Capabilities(
            deterministic=True,
            chain_fields=True,
            potts_states=POTTS_STATES,
            observables=frozenset({"samples", "last", "energies"}),
        ),
        notes=(
            "its samples are not those of sim://ideal: another generator, and floats",
            "the same seed gives the same samples with the same versions of THRML and JAX on the same processor",
        ),
    )
