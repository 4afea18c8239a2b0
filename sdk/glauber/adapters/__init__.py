"""Devices, models and programs as other libraries have them. Each adapter loads its library on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "DimodSampler": "dimod_sampler",
    "ThrmlModel": "thrml_models",
    "ThrmlProgram": "thrml_models",
    "from_thrml": "thrml_models",
    "schedule_from_thrml": "thrml_models",
    "schedule_to_thrml": "thrml_models",
    "to_thrml": "thrml_models",
}

if TYPE_CHECKING:
    from glauber.adapters.dimod_sampler import DimodSampler
    from glauber.adapters.thrml_models import (
        ThrmlModel,
        ThrmlProgram,
        from_thrml,
        schedule_from_thrml,
        schedule_to_thrml,
        to_thrml,
    )

__all__ = [
    "DimodSampler",
    "ThrmlModel",
    "ThrmlProgram",
    "from_thrml",
    "schedule_from_thrml",
    "schedule_to_thrml",
    "to_thrml",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"glauber.adapters.{_HOME[name]}"), name)
    raise AttributeError(f"module 'glauber.adapters' has no attribute {name!r}")
