"""What a pool's worker does: it holds one inner device for each address, and runs parts of jobs on it.

These functions are called by name on the workers, so a worker's own installation of glauber counts.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import numpy as np
from glauber.compile import AnyProgram, PottsProgram, Run
from glauber.driver import Batch, Driver, JobService
from glauber.errors import DeviceNotFoundError
from glauber.registry import open_driver, parse_address
from glauber.samples import Moments
from glauber.spec import AnySpec
from numpy.typing import NDArray

from glauber_drivers.chains import one_after_another, part_of


@dataclass(slots=True)
class _Machine:
    """An inner device of this process; one thread uses it at a time.

    Attributes:
        driver: the device.
        loaded: key of the program that it holds for sure.
        lock: held while it runs.
    """

    driver: Driver
    loaded: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


_machines: dict[str, _Machine] = {}
_opening = threading.Lock()


def _machine(address: str) -> _Machine:
    """The device of an address, opened on first use and kept: opening a board takes longer than a part of a job."""
    with _opening:
        if address not in _machines:
            driver = open_driver(parse_address(address))
            try:
                _machines[address] = _Machine(_checked(driver, address))
            except BaseException:
                driver.close()
                raise
        return _machines[address]


def _checked(driver: Driver | JobService, address: str) -> Driver:
    """A device whose runs can be cut and resumed."""
    if isinstance(driver, JobService):
        raise DeviceNotFoundError(f"{address} has a queue of its own, which a pool cannot divide; open it directly")
    if not driver.spec.capabilities.initial:
        raise DeviceNotFoundError(
            f"{address} draws its start itself, so no worker could go on where another one stopped; open it directly"
        )
    if getattr(driver, "meter", None) is not None:
        raise DeviceNotFoundError(f"{address} meters its joules, which a pool does not add up; leave meter out")
    return driver


def describe(address: str) -> tuple[AnySpec, int]:
    """What the device is, and which version of docs/machine.md it follows (0: none)."""
    driver = _machine(address).driver
    return driver.spec, int(getattr(driver, "contract_version", 0))


def keep(value: Any) -> Any:
    """The value itself, which the worker then has."""
    return value


def admit(address: str, run: Run, program: AnyProgram) -> None:
    """See Driver.admit."""
    _machine(address).driver.admit(run, program)


@dataclass(frozen=True, slots=True)
class Part:
    """What a worker has done.

    Attributes:
        batch: its chains; moments are sums over this part alone, in the smallest type that holds them.
        seconds: that its sweeps take beside start and end, by which longer parts are planned.
    """

    batch: Batch
    seconds: float


def advance(address: str, expected: str, program: AnyProgram, whole: Run, part: Run, threads: int) -> Part:
    """Run a part of a job.

    Args:
        address: of the inner device.
        expected: the coordinator's version of glauber.
        program: to load, unless it is.
        whole: the job; its table of b, fields and clamps are sent to each worker once.
        part: chains, sweeps and start of this part, without those three.
        threads: of this worker, for simulators where the job does not say.

    Raises:
        DeviceNotFoundError: this worker has another version of glauber.
        GlauberError: what the inner device raises; it is then opened anew for the next part.
    """
    here = version("glauber")
    if here != expected:
        raise DeviceNotFoundError(
            f"a worker of the pool has glauber {here}, and this process has {expected}; install the same on both"
        )
    run = _joined(program, whole, part)
    machine = _machine(address)
    with machine.lock:
        try:
            if machine.loaded != program.key:
                machine.loaded = None
                machine.driver.program(program)
                machine.loaded = program.key
            batches, seconds = _timed(machine.driver, replace(run, threads=run.threads or threads))
        except BaseException:
            _forget(address, machine)
            raise
    batch = one_after_another(batches)
    return Part(replace(batch, moments=_small(batch.moments, run)), seconds)


def _timed(driver: Driver, run: Run) -> tuple[list[Batch], float]:
    """All batches of a run, and what its sweeps take at the pace of the longest: the first ones are slow starts."""
    batches: list[Batch] = []
    done, longest, pace, before = run.first_sweep - 1, 0, 0.0, time.perf_counter()
    for batch in driver.run(run):
        now, sweeps = time.perf_counter(), batch.next_sweep - 1 - done
        if sweeps >= longest:
            longest, pace = sweeps, (now - before) / max(1, sweeps)
        batches.append(batch)
        done, before = batch.next_sweep - 1, now
    return batches, pace * (run.n_sweeps - run.first_sweep + 1)


def _forget(address: str, machine: _Machine) -> None:
    with _opening:
        if _machines.get(address) is machine:
            del _machines[address]
    with suppress(Exception):
        machine.driver.close()


def _joined(program: AnyProgram, whole: Run, part: Run) -> Run:
    """A part with what all parts share."""
    mine = part_of(
        replace(whole, initial=None, initial_moments=None), part.first_chain - whole.first_chain, part.n_chains
    )
    moves = part.exchange is not None or part.resample is not None  # their tables are not by sweep, or end the moves
    b = whole.b if moves or len(whole.b) == 1 else whole.b[: part.n_sweeps]
    before, zeros = _samples_before(part), None
    if before and "moments" in part.observe:
        sites = (part.n_chains, *program.field.shape)
        edges = None if isinstance(program, PottsProgram) else np.zeros((part.n_chains, program.n_edges), np.int64)
        zeros = (before, np.zeros(sites, np.int64), edges)
    return replace(part, b=b, fields=mine.fields, clamp=mine.clamp, initial_moments=zeros)


def _samples_before(run: Run) -> int:
    return max(0, run.first_sweep - 1 - run.n_warmup) // run.sweeps_per_sample


def _small(moments: Moments | None, run: Run) -> Moments | None:
    """Sums as few bytes: no sum of n samples leaves -n to n."""
    if moments is None:
        return None
    n = moments.n_samples - _samples_before(run)
    kind = np.min_scalar_type(-n - 1)

    def small(sums: NDArray[Any]) -> NDArray[Any]:
        return sums.astype(kind)

    return Moments(n, small(moments.sites), None if moments.edges is None else small(moments.edges))
