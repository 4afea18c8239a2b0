"""What is run on a loaded program: temperatures, seed, chains, fields, clamps and what to keep."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from glauber.compile.clock import Clock, make_clock
from glauber.compile.program import AnyProgram, PottsProgram, check_sums
from glauber.compile.quantise import largest, to_steps
from glauber.errors import ModelNotSupportedError
from glauber.schedule import (
    AnnealingSchedule,
    AsynchronousSchedule,
    Dynamics,
    PopulationSchedule,
    Schedule,
    TemperingSchedule,
)

LOG2_E = 1.4426950408889634
SITE_PLANE_CHAINS = 4
REPLICA_PLANES = 0
SITE_PLANES = 1
PURPOSE_JOB_SEED = 15

Observable = Literal["samples", "last", "moments", "energies"]


@dataclass(frozen=True, slots=True)
class Exchange:
    """Parallel tempering: chain k n_ladders + ladder is at the k-th b, and neighbouring temperatures exchange states.

    Attributes:
        n_ladders: chains at each temperature.
        every: exchanges follow the sweeps whose number this divides.
    """

    n_ladders: int
    every: int


@dataclass(frozen=True, slots=True, eq=False)
class Resample:
    """Population annealing: the chains are resampled by their weights when b changes.

    Attributes:
        every: resamplings follow the sweeps whose number this divides, but not the last of `Run.b`.
        families: int32 (n_chains,), the chain of the start that each descends from; None at the start.
    """

    every: int
    families: NDArray[np.int32] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A run of a program, or a shard or the rest of one; arrays are by site, drivers reorder as they need.

    Attributes:
        b: uint64, the contract's scaled inverse temperature: one value, or one for each sweep from sweep 1;
            with `exchange`, one for each temperature.
        layout: 0 replica planes, 1 site planes (machine.md, section 4); resolved from the whole job.
        seed: 0 .. 2^64 - 1.
        stream: 0 unless a kernel says otherwise.
        n_chains: chains of this shard.
        first_chain: global number of the shard's first chain.
        first_sweep: number of the first sweep to do, from 1; more when a run is resumed.
        n_warmup: sweeps before the first kept one, of the whole run.
        n_samples: samples of the whole run.
        sweeps_per_sample: sweeps from one sample to the next.
        fields: int32 in steps, (n_chains, n_sites) or (n_chains, n_sites, n_states), or (1, ...) for all chains;
            None for the program's.
        clamp: Ising int8: -1, +1, 0 free; Potts int32: state, -1 free; (n_chains, n_sites), or (1, ...); or None.
        initial: packed spins (n_chains, ceil(n_sites / 8)), or Potts states (n_chains, n_sites); None: random.
        initial_moments: sums to go on from when a run is resumed, else None; see samples.Moments.
        observe: what to return: "samples" (states as they come) and "moments"; the last state always is.
        threads: for simulators; None lets them choose. Never changes a sample.
        isa: for simulators: an instruction set by name, or None. Never changes a sample.
        kernel: for simulators: an algorithm by name, or None for the fastest that fits. Never changes a sample.
        exchange: for tempering.
        resample: for population annealing.
        dynamics: how a p-bit is updated; Potts programs know the heat bath only.
        clock: for asynchronous p-bits; None updates them in sweeps.
    """

    b: NDArray[np.uint64]
    layout: int
    seed: int
    stream: int
    n_chains: int
    first_chain: int
    first_sweep: int
    n_warmup: int
    n_samples: int
    sweeps_per_sample: int
    fields: NDArray[np.int32] | None
    clamp: NDArray[np.int8] | NDArray[np.int32] | None
    initial: NDArray[np.unsignedinteger] | None
    initial_moments: tuple[int, NDArray[np.int64], NDArray[np.int64] | None] | None
    observe: frozenset[Observable]
    threads: int | None
    isa: str | None
    kernel: str | None = None
    exchange: Exchange | None = None
    resample: Resample | None = None
    dynamics: Dynamics = "heat bath"
    clock: Clock | None = None

    @property
    def n_sweeps(self) -> int:
        """Sweeps of the whole run."""
        return self.n_warmup + self.n_samples * self.sweeps_per_sample

    def next_batch(self, done: int, limit: int) -> tuple[int, int]:
        """(sweeps, every) of the batch after `done` sweeps, at most about `limit` of them.

        A batch lies in the warm-up, or between two samples, or holds whole samples, so `every`, 0 or sweeps from one of
        them to the next, says all about it.
        """
        if done < self.n_warmup:
            return min(limit, self.n_warmup - done), 0
        thin = self.sweeps_per_sample
        into = (done - self.n_warmup) % thin
        if into or thin > limit:
            rest = thin - into
            return (rest, rest) if rest <= limit else (limit, 0)
        return thin * min(limit // thin, (self.n_sweeps - done) // thin), thin


def scaled_betas(betas: NDArray[np.float64], step: float, *, potts: bool) -> NDArray[np.uint64]:
    """B of each beta: round(2 beta step log2(e) 2^32), ties to even; without the factor 2 for Potts.

    Raises:
        ModelNotSupportedError: b reaches 2^63: one step is then so cold that no arithmetic is left.
    """
    factor = 1.0 if potts else 2.0
    if betas.size == 1:  # plain floats: NumPy's guards would take longer than the product
        one = factor * float(betas[0]) * step * LOG2_E * 2.0**32
        if one < 2.0**63:
            return np.array([round(one)], dtype=np.uint64)
    with np.errstate(over="ignore"):  # infinity is refused just below
        scaled = factor * betas * step * LOG2_E * 2.0**32
    if not (scaled < 2.0**63).all():
        raise ModelNotSupportedError(
            f"beta = {float(betas.max()):g} times the step {step:g} is too cold for 64-bit arithmetic; beta * step must"
            f" stay below {2.0**31 / LOG2_E / factor:.3g}. Scale the model down"
        )
    return np.asarray(np.rint(scaled), dtype=np.uint64)


def make_run(
    program: AnyProgram,
    schedule: Schedule,
    *,
    seed: int,
    fields: NDArray[np.float64] | None = None,
    clamp: NDArray[np.int8] | NDArray[np.int32] | None = None,
    initial: NDArray[np.unsignedinteger] | None = None,
    observe: Collection[Observable] = frozenset({"samples"}),
    threads: int | None = None,
    isa: str | None = None,
) -> Run:
    """The run of a schedule on a program; arguments as in Run, fields in the model's units.

    Raises:
        ModelNotSupportedError: a field or temperature is out of the arithmetic's or the device's range.
    """
    potts = isinstance(program, PottsProgram)
    step = program.quantisation.step
    fields_in_steps = None
    if fields is not None:
        unit = step * program.field_multiple
        limit = program.field_limit
        if limit is not None and largest(fields) > unit * (limit + 0.5):
            raise ModelNotSupportedError(
                f"largest |field| of the job is {largest(fields):g}, the device's range ends at {unit * limit:g};"
                " rescale the model and raise beta"
            )
        fields_in_steps = to_steps(fields, step, program.field_multiple, limit)
        if program.n_edges > 0:  # else to_steps has refused all that is too large
            bound = np.abs(fields_in_steps.astype(np.int64))
            bound = bound.max(axis=(0, 2)) if potts else bound.max(axis=0)
            check_sums(program.weight_sum, bound[program.order.site])
    few = schedule.n_chains <= SITE_PLANE_CHAINS or isinstance(schedule, AsynchronousSchedule)
    site_planes = not potts and (few or program.n_edges == 0)
    return Run(
        b=scaled_betas(schedule.beta_table(), step, potts=potts),
        layout=SITE_PLANES if site_planes else REPLICA_PLANES,
        seed=seed,
        stream=0,
        n_chains=schedule.n_chains,
        first_chain=0,
        first_sweep=1,
        n_warmup=schedule.n_warmup,
        n_samples=schedule.n_samples,
        sweeps_per_sample=schedule.sweeps_per_sample,
        fields=fields_in_steps,
        clamp=clamp,
        initial=initial,
        initial_moments=None,
        observe=frozenset(observe),
        threads=threads,
        isa=isa,
        exchange=_exchange(schedule),
        resample=_resample(schedule),
        dynamics=schedule.dynamics if isinstance(schedule, AnnealingSchedule) else "heat bath",
        clock=make_clock(schedule, program.n_sites) if isinstance(schedule, AsynchronousSchedule) else None,
    )


def _exchange(schedule: Schedule) -> Exchange | None:
    return Exchange(schedule.n_ladders, schedule.swap_interval) if isinstance(schedule, TemperingSchedule) else None


def _resample(schedule: Schedule) -> Resample | None:
    return Resample(schedule.sweeps_per_step) if isinstance(schedule, PopulationSchedule) else None


def pack_spins(spins: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Spins -1 and +1, shape (..., n), as bits: bit i % 8 of byte i / 8 is 1 for +1; shape (..., ceil(n / 8))."""
    return np.packbits(spins > 0, axis=-1, bitorder="little")


def unpack_spins(packed: NDArray[np.uint8], n_sites: int) -> NDArray[np.int8]:
    """The inverse of pack_spins, int8 of shape (..., n_sites)."""
    bits = np.unpackbits(packed, axis=-1, count=n_sites, bitorder="little").view(np.int8)
    bits += bits
    bits -= 1
    return bits


def derive_seed(device_seed: int, job_number: int) -> int:
    """A job's seed: words 0 and 1 of Threefry with purpose 15, keyed by the device's seed, at counter (job, 0, 0)."""
    mask = 0xFFFFFFFF
    key = [device_seed & mask, device_seed >> 32, PURPOSE_JOB_SEED, 0]
    words = threefry4x32(key, [job_number & mask, job_number >> 32, 0, 0])
    return words[0] | words[1] << 32


_ROTATIONS = ((10, 26), (11, 21), (13, 27), (23, 5), (6, 20), (17, 11), (25, 10), (18, 20))


def threefry4x32(key: list[int], counter: list[int]) -> list[int]:
    """Threefry4x32 with 20 rounds on plain integers (Salmon et al. 2011); for seeds, not for samples."""
    mask = 0xFFFFFFFF
    keys = [*key, 0x1BD11BDA ^ key[0] ^ key[1] ^ key[2] ^ key[3]]
    x = [(c + k) & mask for c, k in zip(counter, keys[:4], strict=True)]
    for r in range(20):
        first, second = _ROTATIONS[r % 8]
        a, b = (1, 3) if r % 2 == 0 else (3, 1)
        for source, target, rotation in ((0, a, first), (2, b, second)):
            x[source] = (x[source] + x[target]) & mask
            x[target] = ((x[target] << rotation | x[target] >> (32 - rotation)) & mask) ^ x[source]
        if r % 4 == 3:
            i = r // 4 + 1
            x = [(word + keys[(i + j) % 5]) & mask for j, word in enumerate(x)]
            x[3] = (x[3] + i) & mask
    return x
