"""What a vendor implements: a `Driver` for a machine, or a `JobService` for something with a queue of its own.

A driver holds device code only. Checking input, queueing, cancelling, timing, energies and results belong to
`glauber.Device`, which wraps either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from glauber.compile import AnyProgram, Run
from glauber.energy import EnergyReport
from glauber.meter import EnergyMeter
from glauber.request import JobRequest
from glauber.samples import Moments, SampleSet
from glauber.spec import AnySpec, Provenance, Quantity


@dataclass(frozen=True, slots=True)
class Resamplings:
    """The resamplings of one batch.

    Attributes:
        lowest: lowest energy of the population before each, in steps, int64 (n,).
        weights: sum of the chains' weights, in units of 2^-(62 - ceil(log2 n_chains)), uint64 (n,).
        families: the chain of the start that each chain descends from, after the batch, int32 (n_chains,).
    """

    lowest: NDArray[np.int64]
    weights: NDArray[np.uint64]
    families: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Events:
    """What asynchronous p-bits did in one batch.

    Attributes:
        updates: of each site, over all chains, int64 (n_sites,).
        in_flight: flips that neighbours do not see yet, int64 (n, 3): chain, site, and ticks of 2^-32 of a sweep from
            the batch's end until they do; by chain, and in order of time. A `Run` that resumes takes them along.
    """

    updates: NDArray[np.int64]
    in_flight: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Batch:
    """A part of a run, as a driver yields it.

    Attributes:
        next_sweep: number of the first sweep that has not been done; a run resumed there gives the same samples.
        first_sample: number of the batch's first sample.
        n_samples: samples in this batch.
        samples: None if not asked for, else the batch's states: Ising packed by `pack_spins`, uint8 of shape
            (n_chains, n_samples, ceil(n_sites / 8)); Potts the smallest unsigned type, (n_chains, n_samples, n_sites).
        state: the state after the batch, in the same form, shape (n_chains, ...): a `Run` resumes from it.
        moments: sums over the run so far, if asked for.
        facts: what the driver wants in the result's provenance, such as the kernel it chose.
        exchanges: tempering: exchanges tried and made in this batch by pair of neighbouring temperatures, int64 of
            shape (n_temperatures - 1, 2).
        resamplings: of population annealing.
        events: of asynchronous p-bits.
        resident: all samples so far, in the same form as `samples`, where they also stay on the device: an array of
            whatever package, with DLPack.
        read_state: `state` as the device reads it, where its readout errs and it knows better; results show this one,
            and a run goes on from the other.
    """

    next_sweep: int
    first_sample: int
    n_samples: int
    samples: NDArray[np.unsignedinteger] | None
    state: NDArray[np.unsignedinteger]
    moments: Moments | None
    facts: Mapping[str, str]
    exchanges: NDArray[np.int64] | None = None
    resamplings: Resamplings | None = None
    events: Events | None = None
    resident: Any = None
    read_state: NDArray[np.unsignedinteger] | None = None


class Driver(Protocol):
    """A machine that runs one program at a time. `program` and `run` are called from one thread, the device's worker.

    `admit` comes from the caller's thread, at any time; `close` from the caller's too: after the
    last run has ended, or to break off one that the caller would not wait for.
    """

    @property
    def spec(self) -> AnySpec:
        """What the machine is and can."""
        ...

    def program(self, program: AnyProgram) -> None:
        """Load a program; the next `run` uses it. Called only when the program has changed."""
        ...

    def run(self, run: Run) -> Iterator[Batch]:
        """Run it, yielding a batch whenever there is something to report, at least every second or so.

        Closing the iterator stops the machine: that is how jobs are cancelled. Every failure of the link is a
        `DeviceIOError`.
        """
        ...

    def admit(self, run: Run, program: AnyProgram) -> int:
        """Refuse now, in the caller's thread, what `run` would refuse later, by a ModelNotSupportedError.

        Returns the host memory in bytes that the run needs beside its results, so that too much can be refused instead
        of exhausted. Must not touch the machine, which may be running another job.
        """
        ...

    def close(self) -> None:
        """Let go of the machine. Never raises; may be called twice."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class OptimiseRequest:
    """A search for low energies of E(s) = - sum of weight s s' over edges - sum of field s, all integers.

    Attributes:
        n_sites: spins.
        edges: int32 (n_edges, 2), each once.
        weights: int32 (n_edges,).
        fields: int32 (n_sites,), or None. |field| + sum |weight| of every site is below 2^28.
        hot: inverse temperature per integer step at which spins move freely.
        cold: at which the smallest uphill step is rare.
        seed: 0 .. 2^64 - 1.
        sweeps: over all chains, or None for as long as the caller listens.
        seconds: how long the caller means to listen, or None.
        isa: see JobRequest.
    """

    n_sites: int
    edges: NDArray[np.int32]
    weights: NDArray[np.int32]
    fields: NDArray[np.int32] | None
    hot: float
    cold: float
    seed: int
    sweeps: int | None
    seconds: float | None
    isa: str | None


@dataclass(frozen=True, slots=True)
class Temperature:
    """What a tempering search does at one temperature.

    Attributes:
        beta: per integer step.
        energy: mean above the best found, in steps.
        acceptance: part of the exchanges with the next colder temperature that were made; NaN at the coldest.
    """

    beta: float
    energy: float
    acceptance: float


@dataclass(frozen=True, slots=True)
class Incumbent:
    """How far a search is.

    Attributes:
        state: the best state, int8 (n_sites,), if it is a new one, else None.
        others: gives further states of low energy, int8 (k, n_sites), best first.
        sweeps: so far, over all chains.
        n_searched: spins that are left to search after exact reductions.
        temperatures: gives the picture of a tempering search, empty where there is none.
        proven: the state is known to be a best one.
    """

    state: NDArray[np.int8] | None
    others: Callable[[], NDArray[np.int8]]
    sweeps: int
    n_searched: int
    temperatures: Callable[[], tuple[Temperature, ...]]
    proven: bool


@runtime_checkable
class Optimiser(Protocol):
    """What a driver can be beside a sampler: a search of its own for low energies."""

    def optimise(self, request: OptimiseRequest) -> Iterator[Incumbent]:
        """Search, yielding every few hundredths of a second; ends at the request's sweeps or when proven."""
        ...


@runtime_checkable
class Metered(Protocol):
    """What a driver can be beside a sampler: a machine whose joules are measured.

    `Device` asks once, when it is made, and opens a window of the meter around each job, from before `program` until
    the run's iterator is closed. So all of a job's work must be done by then: nothing may be left in flight on the
    machine. The driver owns the meter and closes it in its own `close`.
    """

    @property
    def meter(self) -> EnergyMeter | None:
        """The meter; None where this machine happens to have none."""
        ...


@runtime_checkable
class EnergyCounter(Protocol):
    """What a driver can be beside a sampler: a machine that counts its own joules.

    The counter only ever grows while the device is open, whatever runs or does not; joules of a job are a difference of
    two readings. It may be read from any thread.
    """

    @property
    def energy_counter_provenance(self) -> Provenance:
        """Where the joules come from: "measured" on the board, "vendor" or "model" where firmware multiplies."""
        ...

    def energy_counter_joules(self) -> float:
        """The counter now, in joules; a failure of the link is a `DeviceIOError`."""
        ...


@dataclass(frozen=True, slots=True)
class ServiceEvent:
    """One thing that a job service reports of a job: its status, and how far it is.

    Attributes:
        number: grows; -1 for progress that is not kept.
        status: a JobStatus's value.
        sweeps_done: so far.
        samples_done: so far, per chain.
        message: of a job that failed.
        error: name of the class of glauber.errors that it failed with, if known.
        previous: of a job that ended, the one that ended there just before: a client reports ends in that order.
    """

    number: int
    status: str
    sweeps_done: int = 0
    samples_done: int = 0
    message: str = ""
    error: str = ""
    previous: str = ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a job would take, before it runs.

    Attributes:
        seconds: on the described device itself (for a simulator: on the machine it simulates); None where no rate is
            published.
        energy: joules by the device's figures.
        sweeps: sweeps, over all chains.
        updates: p-bit updates.
        host_bytes: memory of the computer that would run it.
        run_seconds: how long it would take there, by what recent jobs on the device took, else by its figures; None
            where nothing is known.
        starts_in_seconds: until it would start, by the same; None where that of a job ahead is unknown.
        jobs_ahead: that wait or run.
    """

    seconds: Quantity | None
    energy: EnergyReport
    sweeps: int
    updates: int
    host_bytes: int
    run_seconds: float | None
    starts_in_seconds: float | None
    jobs_ahead: int


@runtime_checkable
class JobService(Protocol):
    """Something with its own queue: a lab server, a cloud. All methods may be called from any thread."""

    @property
    def spec(self) -> AnySpec:
        """What the machine behind the service is and can."""
        ...

    def submit(self, request: JobRequest) -> str:
        """Hand a job over; returns the service's id of it."""
        ...

    def events(self, job_id: str, after: int) -> Iterable[ServiceEvent]:
        """Events with a number above `after`, as they come; ends after a final status."""
        ...

    def result(self, job_id: str) -> SampleSet:
        """The result of a job that is done, or its partial result."""
        ...

    def cancel(self, job_id: str) -> None:
        """Ask for a job to be stopped."""
        ...

    def close(self) -> None:
        """Let go of the service."""
        ...


@runtime_checkable
class Estimating(Protocol):
    """What a job service can be beside: one that says what a job would take, and refuses what it would refuse."""

    def estimate(self, request: JobRequest) -> Estimate:
        """What a job would take; queues nothing."""
        ...


@runtime_checkable
class PartialResults(Protocol):
    """What a job service can be beside: one that shows what a job has drawn so far."""

    def partial_result(self, job_id: str) -> SampleSet:
        """What is there now; of a job that has ended, its result."""
        ...


@runtime_checkable
class RemoteJobs(JobService, Protocol):
    """What a job service can be beside: one whose jobs' ids are addresses, so that a job is found by its id alone."""

    def request(self, job_id: str) -> JobRequest:
        """What was asked."""
        ...


@runtime_checkable
class RemoteJobFactory(Protocol):
    """What a factory can be beside: one that opens the service of a job by the job's address."""

    def open_job(self, address: Address) -> tuple[RemoteJobs, str]:
        """The service and the job's id.

        Raises:
            JobNotFoundError: the service has no such job.
            AccessError: it may not be seen from here.
            DeviceNotFoundError: nobody answers there.
        """
        ...


@dataclass(frozen=True, slots=True)
class Address:
    """A device address, as `registry.parse_address` reads it: scheme://name?parameter=value.

    Attributes:
        scheme: which driver.
        name: what the driver calls the device.
        parameters: the query, each key once.
        text: the address as given.
    """

    scheme: str
    name: str
    parameters: Mapping[str, str]
    text: str


class DriverFactory(Protocol):
    """The entry point of a driver (group `glauber.drivers`, its name is the scheme): opens, and says what is there."""

    def open(self, address: Address) -> Driver | JobService:
        """Open the device; DeviceNotFoundError says what is missing or which names and parameters exist."""
        ...

    def devices(self) -> Iterable[tuple[str, AnySpec]]:
        """(address, spec) of each device that can be opened now without guessing."""
        ...


class Transport(Protocol):
    """Bytes to and from a board. Every failure is a `DeviceIOError`; silence is not a failure."""

    def read(self, timeout: float) -> bytes:
        """What has arrived, as soon as there is a byte; empty after `timeout` seconds without any.

        Raises:
            DeviceIOError: the link is gone.
        """
        ...

    def write(self, data: bytes, timeout: float) -> None:
        """Send all of it.

        Raises:
            DeviceIOError: the link is gone, or took longer than `timeout` seconds.
        """
        ...

    def close(self) -> None:
        """Let go of the link. Never raises; may be called twice."""
        ...


Wrap = Callable[[Transport], Transport]
"""Middleware: a fault injector or a recorder around a transport. With a true attribute `reproducible` it asks drivers
to say the same bytes each time, where they would draw a random number."""


@runtime_checkable
class ScanningFactory(Protocol):
    """What a factory can be beside: one that finds boards by asking on every port."""

    def scan(self) -> Iterable[tuple[str, AnySpec]]:
        """(address, spec) of each board that answers; disturbs what else hangs on the ports, so only on demand."""
        ...


@runtime_checkable
class StandIn(Protocol):
    """Middleware that needs no board: it brings the transport itself, such as the replay of a recording."""

    def __call__(self, transport: Transport) -> Transport:
        """As any Wrap; the transport is closed."""
        ...

    def connect(self) -> Transport:
        """A transport in place of one to the board. If it has a method `clock`, that is the driver's time.monotonic."""
        ...


def link(connect: Callable[[], Transport], wrap: Wrap) -> Transport:
    """Open a transport and put the middleware around it; drivers call this whenever they connect, or reconnect.

    Args:
        connect: opens the link to the board. Not called where the middleware stands in for the board.
        wrap: the middleware.
    """
    return wrap.connect() if isinstance(wrap, StandIn) else wrap(connect())


@runtime_checkable
class WiredFactory(Protocol):
    """What a factory can be beside: one whose devices hang on a `Transport`, into which middleware can be put."""

    def open_wired(self, address: Address, wrap: Wrap) -> Driver:
        """As DriverFactory.open; every transport comes from `link(connect, wrap)`, again after a reconnect."""
        ...
