"""What the JAX devices are; does not import JAX."""

from __future__ import annotations

from glauber.catalogue import load_spec
from glauber.spec import AnySpec, Capabilities, CpuSpec, GpuSpec


def jax_spec(platform: str, title: str = "JAX on this computer") -> AnySpec:
    """The description of `jax://cpu` or `jax://gpu`."""
    ideal = load_spec("ideal")
    kinds = {"cpu": CpuSpec, "gpu": GpuSpec}
    return kinds[platform](
        name=f"jax-{platform}",
        title=title,
        vendor="glauber",
        status="model",
        description="The arithmetic of sim://ideal compiled by XLA: any graph up to memory, p-bits and p-dits",
        any_graph=True,
        topology_note="up to memory: software decides",
        coefficients=ideal.coefficients,
        capabilities=Capabilities(
            deterministic=True,
            chain_fields=True,
            methods=("tempering", "metropolis"),
            potts_states=ideal.capabilities.potts_states,
        ),
        notes=("it has no energy figures of its own",),
    )
