"""How protocols draw from a device: through jobs as anybody's, with progress, and within a budget."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from glauber.compile import Program, compile_program, step_of
from glauber.errors import BudgetExceededError, CalibrationError
from glauber.model import IsingModel
from glauber.samples import SampleSet
from glauber.schedule import SamplingSchedule
from glauber.spec import AnySpec

CHAINS = 64
"""Of a job, where the device has no own opinion."""
SATURATED = 6.0
"""An argument at which a p-bit is right but for exp(-12)."""
BITS_A_JOB = 2**26
"""Values that one job returns at most."""


class Submits(Protocol):
    """The part of a `Device` that calibration needs."""

    address: str

    @property
    def spec(self) -> AnySpec:
        """What it is."""
        ...

    @property
    def submit(self) -> Callable[..., Any]:
        """Queues a job: (model, schedule, **arguments) -> Job."""
        ...


def free(fields: NDArray[np.float64]) -> IsingModel:
    """p-bits without couplings."""
    return IsingModel(fields, np.zeros((0, 2), dtype=np.int32), np.zeros(0))


@dataclass
class Bench:
    """A device under calibration.

    Attributes:
        device: it.
        n_sites: p-bits to look at, 0 .. n_sites - 1.
        beta: of all jobs.
        shots: wanted of each setting.
        seconds: to spend, or None.
        report: called with (done, name of what is done), 0 <= done <= 1.
        thin: sweeps between samples, so that noise is forgotten.
        provenance: of the last job.
    """

    device: Submits
    n_sites: int
    beta: float
    shots: int
    seconds: float | None
    report: Callable[[float, str], None]
    thin: int = 1
    provenance: Any = None

    def __post_init__(self) -> None:
        self._deadline = None if self.seconds is None else time.monotonic() + self.seconds
        self._longest = 0.0

    def largest_field(self) -> float:
        """The largest |h| that can be programmed, in the model's units; infinite on a free scale."""
        coefficients, fold = self.device.spec.coefficients, self._fold()
        if coefficients.weight_range is None:
            return float("inf")
        bits = coefficients.weight_bits or 16
        step = coefficients.weight_range / max(1, 2 ** (bits - 1) - 1)
        if coefficients.field_range is not None:
            return float(coefficients.field_range) / fold
        top = max(1, 2 ** ((coefficients.field_bits or bits) - 1) - 1)
        return float(step * top) / fold

    def largest_coupling(self) -> float:
        """The largest |J|, in the model's units; 1 on a free scale."""
        span = self.device.spec.coefficients.weight_range
        return 1.0 if span is None else span / self._fold()

    def _fold(self) -> float:
        """What the device multiplies coefficients by."""
        return self.beta if self.device.spec.capabilities.beta == "folded" else 1.0

    def held(self, model: IsingModel) -> IsingModel:
        """A model as the device rounds it."""
        spec = self.device.spec
        fold = self.beta if spec.capabilities.beta == "folded" else None
        program = compile_program(model, step_of(model, spec, fold=fold))
        assert isinstance(program, Program)
        return program.as_model()

    def run(self, model: IsingModel, *, chains: int = CHAINS, shots: int | None = None, **arguments: Any) -> SampleSet:
        """Samples of a model: at least so many shots in all, `thin` sweeps apart.

        Raises:
            BudgetExceededError: the next job would go beyond the seconds that there are.
        """
        began = time.monotonic()
        if self._deadline is not None and began + self._longest > self._deadline:
            raise BudgetExceededError(
                f"calibration has spent its {self.seconds:g} s; allow more, or ask for fewer protocols or shots"
            )
        per_chain = max(1, -(-(self.shots if shots is None else shots) // chains))
        if per_chain * chains * self.n_sites > 64 * BITS_A_JOB:
            raise CalibrationError(f"{per_chain * chains} shots of {self.n_sites} p-bits are too many for one job")
        schedule = SamplingSchedule(
            n_samples=per_chain, n_chains=chains, beta=self.beta, n_warmup=4 * self.thin, sweeps_per_sample=self.thin
        )
        result: SampleSet = self.device.submit(model, schedule, **arguments).result()
        self.provenance = result.provenance
        self._longest = max(self._longest, time.monotonic() - began)
        return result

    def ups(self, fields: NDArray[np.float64]) -> tuple[NDArray[np.int64], int]:
        """How often each p-bit is read +1 in fields of its own (n_sites,), and out of how many."""
        result = self.run(free(fields))
        return (result.spins > 0).sum(axis=(0, 1), dtype=np.int64), result.n_chains * result.n_samples
