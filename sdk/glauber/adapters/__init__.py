"""Devices as other libraries expect them. Each adapter loads its library on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glauber.adapters.dimod_sampler import DimodSampler

__all__ = ["DimodSampler"]


def __getattr__(name: str) -> Any:
    if name == "DimodSampler":
        from glauber.adapters.dimod_sampler import DimodSampler

        return DimodSampler
    raise AttributeError(f"module 'glauber.adapters' has no attribute {name!r}")
