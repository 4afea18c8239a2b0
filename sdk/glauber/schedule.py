"""How to sample: how many sweeps, at which inverse temperature, and what is kept.

A sweep updates every free spin once. n_chains independent chains run side by side; n_samples are kept of each.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from glauber.errors import InvalidModelError

MAX_SWEEPS = 2**48

MAX_ANNEAL_SWEEPS = 10**7  # each has a temperature of its own: 80 MB of them


def _plain(value: object) -> object:
    """NumPy's scalars as Python's, so that strictness means "no text, no truth values" and not "no NumPy"."""
    return value.item() if isinstance(value, np.integer | np.floating) else value


def _sequence(value: object) -> object:
    """An array as a tuple."""
    return tuple(value.ravel().tolist()) if isinstance(value, np.ndarray) else value


def _ascending(betas: tuple[float, ...]) -> tuple[float, ...]:
    if any(a >= b for a, b in itertools.pairwise(betas)):
        raise ValueError("betas must ascend: each above the one before it")
    return betas


MAX_CHAINS = 2**31 - 1
MAX_TEMPERATURES = 4096
MAX_RATE = 64.0  # the integer table of a Poisson law of this mean has 115 entries
MAX_DELAY = 64.0

Dynamics = Literal["heat bath", "metropolis"]
Beta = Annotated[float, BeforeValidator(_plain), Field(strict=True, ge=0.0, allow_inf_nan=False)]
AscendingBetas = Annotated[
    tuple[Beta, ...], BeforeValidator(_sequence), Field(min_length=2), AfterValidator(_ascending)
]
Rate = Annotated[float, BeforeValidator(_plain), Field(strict=True, gt=0.0, le=MAX_RATE, allow_inf_nan=False)]
Delay = Annotated[float, BeforeValidator(_plain), Field(strict=True, ge=0.0, le=MAX_DELAY, allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_plain), Field(strict=True, ge=1, le=MAX_SWEEPS)]
CountOrNone = Annotated[int, BeforeValidator(_plain), Field(strict=True, ge=0, le=MAX_SWEEPS)]
Chains = Annotated[int, BeforeValidator(_plain), Field(strict=True, ge=1, le=MAX_CHAINS)]


def readable(name: str, error: ValidationError) -> str:
    """A pydantic error as one line: which field, what is wrong, what was given."""
    problems = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        given = "" if not where else f" (given: {item['input']!r})"
        problems.append(f"{where}: {item['msg']}{given}" if where else item["msg"])
    return f"{name}: " + "; ".join(problems)


class _Schedule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    if not TYPE_CHECKING:  # the checker shall see the fields as arguments

        def __init__(self, **data: Any) -> None:
            try:
                super().__init__(**data)
            except ValidationError as error:
                raise InvalidModelError(readable(type(self).__name__, error)) from None


class SamplingSchedule(_Schedule):
    """Draw from the law at one inverse temperature: warm up, then keep a state every few sweeps."""

    kind: Literal["sampling"] = "sampling"
    n_samples: Count = 1000
    """States kept per chain."""
    n_chains: Chains = 1
    """Independent chains."""
    n_warmup: CountOrNone = 0
    """Sweeps before the first kept one."""
    sweeps_per_sample: Count = 1
    """Sweeps from one kept state to the next (thinning)."""
    beta: Beta = 1.0
    """Inverse temperature, dimensionless: P(s) ~ exp(-beta E(s))."""

    @model_validator(mode="after")
    def _countable(self) -> Self:
        if self.n_sweeps > MAX_SWEEPS:
            raise ValueError(f"{self.n_sweeps} sweeps in all are more than {MAX_SWEEPS}")
        return self

    @property
    def n_sweeps(self) -> int:
        """Sweeps in all."""
        return self.n_warmup + self.n_samples * self.sweeps_per_sample

    def beta_table(self) -> NDArray[np.float64]:
        """The inverse temperature of every sweep: one value, for all of them."""
        return np.array([self.beta])


class AnnealingSchedule(_Schedule):
    """Cool (or heat) from beta_start to beta_end, one beta per sweep, and keep the last state of each chain."""

    kind: Literal["annealing"] = "annealing"
    n_sweeps: Annotated[Count, Field(le=MAX_ANNEAL_SWEEPS)] = 1000
    """Sweeps of the anneal; with `table`, its length."""
    n_chains: Chains = 1
    """Independent anneals."""
    beta_start: Beta = 0.1
    """Inverse temperature of the first sweep."""
    beta_end: Beta = 5.0
    """Inverse temperature of the last sweep."""
    shape: Literal["linear", "geometric", "table"] = "geometric"
    """How beta goes from start to end; a geometric one needs both above zero."""
    table: tuple[Beta, ...] | None = None
    """For shape "table": the inverse temperature of each sweep."""
    dynamics: Dynamics = "heat bath"
    """How a spin is updated. "heat bath": drawn anew, as a p-bit does. "metropolis": flipped with probability
    min(1, exp(-beta dE)), dE the energy of the flip. Both keep the law. Metropolis moves more at low temperature; at
    high temperature it does not mix: where no field acts, every spin flips in every sweep."""

    @model_validator(mode="before")
    @classmethod
    def _from_table(cls, data: object) -> object:
        """A table says by itself how long it is and where it begins and ends."""
        if isinstance(data, dict) and isinstance(data.get("table"), list | tuple | np.ndarray) and len(data["table"]):
            table = tuple(data["table"])
            ends = {"n_sweeps": len(table), "beta_start": table[0], "beta_end": table[-1], "shape": "table"}
            return {**ends, **data, "table": table}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.shape == "table") != (self.table is not None and len(self.table) > 0):
            raise ValueError('shape "table" and a non-empty table belong together; leave the table out for the others')
        if self.table is not None and len(self.table) != self.n_sweeps:
            raise ValueError(f"the table has {len(self.table)} values for {self.n_sweeps} sweeps; leave n_sweeps out")
        if self.shape == "geometric" and min(self.beta_start, self.beta_end) <= 0:
            raise ValueError('a geometric schedule needs beta above 0 at both ends; use shape="linear" to start at 0')
        return self

    @property
    def n_samples(self) -> int:
        """States kept per chain: the last one."""
        return 1

    def beta_table(self) -> NDArray[np.float64]:
        """The inverse temperature of every sweep, shape (n_sweeps,)."""
        if self.table is not None:
            return np.array(self.table)
        if self.n_sweeps == 1:
            return np.array([self.beta_end])
        if self.shape == "linear":
            return np.linspace(self.beta_start, self.beta_end, self.n_sweeps)
        return np.geomspace(self.beta_start, self.beta_end, self.n_sweeps)

    @property
    def n_warmup(self) -> int:
        """Sweeps before the kept one."""
        return self.n_sweeps - 1

    @property
    def sweeps_per_sample(self) -> int:
        """Sweeps from one kept state to the next; there is only one."""
        return 1


class TemperingSchedule(_Schedule):
    """Parallel tempering: ladders of chains at ascending betas that exchange states, so that cold chains keep moving.

    Chain number k * n_ladders + ladder samples at betas[k]; `SampleSet.temperature(k)` takes out those of one. With
    n_ladders a multiple of 32 the simulator's fastest kernels can take part. `glauber.tempering_ladder` finds betas.
    """

    kind: Literal["tempering"] = "tempering"
    betas: Annotated[AscendingBetas, Field(max_length=MAX_TEMPERATURES)]
    """Inverse temperatures, ascending."""
    n_ladders: Chains = 1
    """Independent ladders: chains at each temperature."""
    n_samples: Count = 1000
    """States kept per chain."""
    n_warmup: CountOrNone = 0
    """Sweeps before the first kept one."""
    sweeps_per_sample: Count = 1
    """Sweeps from one kept state to the next (thinning)."""
    swap_interval: Count = 1
    """Sweeps from one round of exchanges to the next; rounds try the even pairs and the odd pairs in turn."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.n_chains > MAX_CHAINS:
            raise ValueError(f"{len(self.betas)} betas x {self.n_ladders} ladders are more than {MAX_CHAINS} chains")
        if self.n_sweeps > MAX_SWEEPS:
            raise ValueError(f"{self.n_sweeps} sweeps in all are more than {MAX_SWEEPS}")
        return self

    @property
    def n_chains(self) -> int:
        """Chains of all temperatures together."""
        return len(self.betas) * self.n_ladders

    @property
    def n_sweeps(self) -> int:
        """Sweeps in all."""
        return self.n_warmup + self.n_samples * self.sweeps_per_sample

    def beta_table(self) -> NDArray[np.float64]:
        """The inverse temperatures, shape (n_temperatures,)."""
        return np.array(self.betas)


class PopulationSchedule(_Schedule):
    """Population annealing: many chains are cooled together, and at each step resampled by their Boltzmann weights.

    The population is at betas[0] first, for sweeps_per_step sweeps; then for each further beta it is resampled and
    swept again. The last state of each chain is kept; `SampleSet.population` has the free energy. It is absolute if
    betas[0] = 0, where ln Z is the number of free spins times ln 2.
    """

    kind: Literal["population"] = "population"
    betas: AscendingBetas
    """Inverse temperatures, ascending, such as numpy.linspace(0, 3, 101)."""
    sweeps_per_step: Count = 10
    """Sweeps at each of them."""
    n_chains: Chains = 1024
    """Size of the population; it stays the same."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.n_sweeps > MAX_ANNEAL_SWEEPS:
            raise ValueError(f"{self.n_sweeps} sweeps in all are more than {MAX_ANNEAL_SWEEPS}")
        return self

    @property
    def n_sweeps(self) -> int:
        """Sweeps in all."""
        return len(self.betas) * self.sweeps_per_step

    @property
    def n_samples(self) -> int:
        """States kept per chain: the last one."""
        return 1

    @property
    def n_warmup(self) -> int:
        """Sweeps before the kept one."""
        return self.n_sweeps - 1

    @property
    def sweeps_per_sample(self) -> int:
        """Sweeps from one kept state to the next; there is only one."""
        return 1

    def beta_table(self) -> NDArray[np.float64]:
        """The inverse temperature of every sweep, shape (n_sweeps,)."""
        return np.repeat(np.array(self.betas), self.sweeps_per_step)


class AsynchronousSchedule(_Schedule):
    """Autonomous p-bits: no clock, each is updated at random times of its own, and others see its flips after a delay.

    The updates of a p-bit are a Poisson process; at each, it draws its state from what it sees of its neighbours.
    With delay 0 this samples the Boltzmann law, whatever the rates. A delay that is not small beside the time between
    two updates of neighbours bends it: that is a property of such machines, and this is how to study it.

    Time is counted in sweeps: in one, a p-bit of rate 1 is updated once on average.
    """

    kind: Literal["asynchronous"] = "asynchronous"
    n_samples: Count = 1000
    """States kept per chain."""
    n_chains: Chains = 1
    """Independent chains."""
    n_warmup: CountOrNone = 0
    """Sweeps before the first kept one."""
    sweeps_per_sample: Count = 1
    """Sweeps from one kept state to the next (thinning)."""
    beta: Beta = 1.0
    """Inverse temperature, dimensionless."""
    rates: Annotated[tuple[Rate, ...], BeforeValidator(_sequence)] | None = None
    """Updates of each p-bit in a sweep, on average, (n_sites,), above 0 and up to 64; None: 1 for all."""
    delay: Delay = 0.0
    """Sweeps from a flip until neighbours see it, 0 to 64; rounded to 2^-32."""

    @model_validator(mode="after")
    def _countable(self) -> Self:
        if self.n_sweeps > MAX_SWEEPS:
            raise ValueError(f"{self.n_sweeps} sweeps in all are more than {MAX_SWEEPS}")
        return self

    @property
    def n_sweeps(self) -> int:
        """Sweeps in all."""
        return self.n_warmup + self.n_samples * self.sweeps_per_sample

    def beta_table(self) -> NDArray[np.float64]:
        """The inverse temperature of every sweep: one value, for all of them."""
        return np.array([self.beta])


Schedule = SamplingSchedule | AnnealingSchedule | TemperingSchedule | PopulationSchedule | AsynchronousSchedule
SCHEDULES: dict[str, type[Schedule]] = {
    "sampling": SamplingSchedule,
    "annealing": AnnealingSchedule,
    "tempering": TemperingSchedule,
    "population": PopulationSchedule,
    "asynchronous": AsynchronousSchedule,
}
"""By their `kind`."""
