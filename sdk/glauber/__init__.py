"""glauber: a hardware-abstraction SDK for probabilistic computers.

    import glauber as gl

    with gl.open_device("sim://ideal?seed=7") as device:
        model = gl.IsingModel.from_edges([(0, 1, 1.0), (1, 2, -0.5)])
        samples = device.submit(model, gl.SamplingSchedule(n_samples=1000, beta=2.0)).result()

Names load on first use (PEP 562), so `import glauber` is quick and never loads an optional package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "AnnealingSchedule": "schedule",
    "AsynchronousSchedule": "schedule",
    "Budget": "request",
    "Device": "device",
    "Efficiency": "efficiency",
    "EnergyCoefficients": "regression",
    "EnergyComparison": "accounting",
    "Estimate": "driver",
    "FlashPlan": "flash",
    "IsingModel": "model",
    "Job": "job",
    "JobRequest": "request",
    "JobStatus": "job",
    "JobStore": "store",
    "PopulationSchedule": "schedule",
    "PottsModel": "model",
    "Quantity": "spec",
    "SampleSet": "samples",
    "SamplingSchedule": "schedule",
    "Solution": "solver",
    "SolveProgress": "solver",
    "TemperingSchedule": "schedule",
    "as_completed": "job",
    "available_devices": "registry",
    "compare_energy": "accounting",
    "flash_plan": "flash",
    "get_job": "stored_job",
    "load_spec": "catalogue",
    "open_device": "device",
    "read_model": "formats",
    "regress_energy": "regression",
    "solve": "solver",
    "tempering_ladder": "ladder",
    "wait": "job",
    "write_model": "formats",
}
_SUBMODULES = ("adapters", "errors", "jax", "testing", "torch")

if TYPE_CHECKING:
    from glauber.accounting import EnergyComparison, compare_energy
    from glauber.catalogue import load_spec
    from glauber.device import Device, open_device
    from glauber.driver import Estimate
    from glauber.efficiency import Efficiency
    from glauber.flash import FlashPlan, flash_plan
    from glauber.formats import read_model, write_model
    from glauber.job import Job, JobStatus, as_completed, wait
    from glauber.ladder import tempering_ladder
    from glauber.model import IsingModel, PottsModel
    from glauber.registry import available_devices
    from glauber.regression import EnergyCoefficients, regress_energy
    from glauber.request import Budget, JobRequest
    from glauber.samples import SampleSet
    from glauber.schedule import (
        AnnealingSchedule,
        AsynchronousSchedule,
        PopulationSchedule,
        SamplingSchedule,
        TemperingSchedule,
    )
    from glauber.solver import Solution, SolveProgress, solve
    from glauber.spec import Quantity
    from glauber.store import JobStore
    from glauber.stored_job import get_job

__all__ = [
    "AnnealingSchedule",
    "AsynchronousSchedule",
    "Budget",
    "Device",
    "Efficiency",
    "EnergyCoefficients",
    "EnergyComparison",
    "Estimate",
    "FlashPlan",
    "IsingModel",
    "Job",
    "JobRequest",
    "JobStatus",
    "JobStore",
    "PopulationSchedule",
    "PottsModel",
    "Quantity",
    "SampleSet",
    "SamplingSchedule",
    "Solution",
    "SolveProgress",
    "TemperingSchedule",
    "as_completed",
    "available_devices",
    "compare_energy",
    "flash_plan",
    "get_job",
    "load_spec",
    "open_device",
    "read_model",
    "regress_energy",
    "solve",
    "tempering_ladder",
    "wait",
    "write_model",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"glauber.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    if name in _SUBMODULES:
        return import_module(f"glauber.{name}")
    if name == "__version__":
        return import_module("importlib.metadata").version("glauber")
    raise AttributeError(f"module 'glauber' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME, *_SUBMODULES])
