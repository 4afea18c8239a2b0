"""A device as a dimod sampler, so that dimod's composites and every tool built on them run on it."""

from __future__ import annotations

from typing import Any

import numpy as np

from glauber.checks import whole_number
from glauber.device import Device
from glauber.errors import missing_extra
from glauber.model import IsingModel
from glauber.restarts import anneal_table
from glauber.schedule import AnnealingSchedule, SamplingSchedule

try:
    import dimod
except ImportError as _error:
    raise missing_extra("dimod", "interop", "glauber.adapters.DimodSampler") from _error


class DimodSampler(dimod.Sampler):  # type: ignore[misc, unused-ignore]  # dimod's classes carry no types
    """A dimod.Sampler that runs each problem as one job.

    Without `beta` each read is the end of an anneal, as samplers in this ecosystem do; with `beta` the reads are
    samples of the Boltzmann law at that inverse temperature. dimod minimises sum h s + sum J s s: signs are converted.

    Args:
        device: an open device; it stays the caller's.
    """

    def __init__(self, device: Device) -> None:
        self.device = device

    @property
    def parameters(self) -> dict[str, list[str]]:
        """What `sample` takes."""
        return {"num_reads": [], "num_sweeps": [], "beta": [], "seed": []}

    @property
    def properties(self) -> dict[str, Any]:
        """The device's description as plain data."""
        return self.device.spec.model_dump(mode="json")

    def sample(  # type: ignore[override, unused-ignore]
        self,
        bqm: dimod.BinaryQuadraticModel,
        *,
        num_reads: int = 1,
        num_sweeps: int = 1000,
        beta: float | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> dimod.SampleSet:
        """Run a binary quadratic model.

        Args:
            bqm: of either vartype, with any labels.
            num_reads: states to return, each from a chain of its own.
            num_sweeps: sweeps per read.
            beta: sample at this inverse temperature instead of annealing.
            seed: 0 .. 2^64 - 1.
            kwargs: unknown options, which are named in a warning as dimod asks.

        Raises:
            InvalidModelError: a number of reads or sweeps below 1, or a bad seed.
        """
        self.remove_unknown_kwargs(**kwargs)
        if bqm.num_variables == 0:
            return dimod.SampleSet.from_samples_bqm(np.zeros((0, 0), dtype=np.int8), bqm)
        num_sweeps = whole_number("num_sweeps", num_sweeps, 1)
        model = IsingModel.from_bqm(bqm)
        schedule: SamplingSchedule | AnnealingSchedule
        if beta is None:
            schedule = AnnealingSchedule(table=anneal_table(model, self.device.spec, num_sweeps), n_chains=num_reads)
        else:
            schedule = SamplingSchedule(n_samples=1, n_chains=num_reads, n_warmup=num_sweeps - 1, beta=beta)
        job = self.device.submit(model, schedule, observe={"last"}, seed=seed, on_overflow="scale")
        result = job.result()
        labels = model.labels if model.labels is not None else range(model.n_sites)
        info = {"timing": dict(result.timing), "seed": job.seed, "device": self.device.address}
        spins = dimod.SampleSet.from_samples((result.last, list(labels)), "SPIN", energy=model.energies(result.last))
        found = dimod.SampleSet.from_samples_bqm(spins.change_vartype(bqm.vartype, inplace=False), bqm)
        found.info.update(info)
        return found
