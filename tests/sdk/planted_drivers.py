"""Drivers that are wrong in one way each; the contract has to find every one of them out.

Each wraps the simulator of a chip of 64 p-bits, which passes. Wrong samplers with an update rule of their own come from
tests/simulator/faulty.py.
"""

from __future__ import annotations

import importlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from glauber.compile import AnyProgram, Program, Run, pack_spins, unpack_spins
from glauber.driver import Batch, Driver
from glauber.registry import open_driver, parse_address
from glauber.samples import Moments
from glauber.spec import AnySpec
from glauber.testing import DriverFaults, FaultyDriver

sys.path.insert(0, str(Path(__file__).parents[1] / "simulator"))  # pytest's importlib mode does not
samplers: Any = importlib.import_module("faulty")


def chip() -> Driver:
    return open_driver(parse_address("sim://pbit-king-64"))  # type: ignore[return-value]


class Passing:
    """The chip, passed on as it is. Faults override a method."""

    def __init__(self) -> None:
        self._inner = chip()
        self._program: Any = None
        self.contract_version = 1

    @property
    def spec(self) -> AnySpec:
        return self._inner.spec

    def program(self, program: AnyProgram) -> None:
        self._program = program
        self._inner.program(program)

    def run(self, run: Run) -> Iterator[Batch]:
        yield from self._inner.run(run)

    def admit(self, run: Run, program: AnyProgram) -> int:
        return self._inner.admit(run, program)

    def close(self) -> None:
        self._inner.close()


# What is programmed


class Reprogrammed(Passing):
    def weights(self, program: Program) -> Any:
        raise NotImplementedError

    def program(self, program: AnyProgram) -> None:
        assert isinstance(program, Program)
        weight = np.asarray(self.weights(program)).astype(np.int32)
        super().program(replace(program, edge_weight=weight, weight=weight[program.order.row_edge]))


class OneBitDac(Reprogrammed):
    """Eight bits are claimed; only the sign arrives."""

    def weights(self, program: Program) -> Any:
        size = np.round(np.abs(program.edge_weight).mean()) if program.n_edges else 0
        return np.sign(program.edge_weight) * size


class DroppedCoupling(Reprogrammed):
    """One coupler of the chip's 210 is broken."""

    def weights(self, program: Program) -> Any:
        return np.where((program.edges == (9, 18)).all(axis=1), 0, program.edge_weight)


class Clipped(Reprogrammed):
    """Couplings above three quarters of the range are clipped, and nobody is told."""

    def weights(self, program: Program) -> Any:
        return np.clip(program.edge_weight, -95, 95)


class SignOfCouplings(Reprogrammed):
    """The couplings' sign is that of the other convention."""

    def weights(self, program: Program) -> Any:
        return -program.edge_weight


class FirstProgramOnly(Passing):
    """A program of the same graph is taken for the one that is loaded."""

    def program(self, program: AnyProgram) -> None:
        if self._program is None or not np.array_equal(program.edges, self._program.edges):
            super().program(program)


# What is run


class Rerun(Passing):
    """Runs something else than it was asked to."""

    def changed(self, run: Run) -> Run:
        raise NotImplementedError

    def run(self, run: Run) -> Iterator[Batch]:
        yield from self._inner.run(self.changed(run))


class BetaOff(Rerun):
    """5 % too cold."""

    def changed(self, run: Run) -> Run:
        return replace(run, b=np.round(run.b * 1.05).astype(np.uint64))


class SeedIgnored(Rerun):
    def changed(self, run: Run) -> Run:
        return replace(run, seed=1)


class HalfSeed(Rerun):
    def changed(self, run: Run) -> Run:
        return replace(run, seed=run.seed & 0xFFFFFFFF)


class OwnSeeds(Passing):
    """Claims to be deterministic and adds a number of its own."""

    _runs = itertools.count(1)

    def run(self, run: Run) -> Iterator[Batch]:
        yield from self._inner.run(replace(run, seed=(run.seed + next(self._runs)) % 2**64))


class EarlyFirstSample(Rerun):
    """The first sample is taken one sweep before its time."""

    def changed(self, run: Run) -> Run:
        return replace(run, n_warmup=max(0, run.n_warmup - 1))


class ThinningIgnored(Rerun):
    def changed(self, run: Run) -> Run:
        return replace(run, sweeps_per_sample=1)


class StartIgnored(Rerun):
    def changed(self, run: Run) -> Run:
        return replace(run, initial=None)


class ClampForgotten(Rerun):
    """Held spins start at their value and then move."""

    def changed(self, run: Run) -> Run:
        if run.clamp is None:
            return run
        start = np.where(run.clamp == 0, 1, run.clamp).astype(np.int8)
        packed = pack_spins(np.broadcast_to(start, (run.n_chains, start.shape[1])))
        return replace(run, clamp=None, initial=packed)


class FieldsIgnored(Rerun):
    """A job's own fields are dropped."""

    def changed(self, run: Run) -> Run:
        return replace(run, fields=None)


class FieldsStay(Passing):
    """The fields of a job are still in force in the next."""

    _fields: Any = None

    def run(self, run: Run) -> Iterator[Batch]:
        kept = self._fields
        if run.fields is not None:
            self._fields = run.fields[:1]
        elif kept is not None and kept.shape[1] == self._program.n_sites:
            run = replace(run, fields=kept)
        yield from self._inner.run(run)


# What comes out


class BestForLast(Passing):
    """The lowest state of a batch in place of its last one."""

    def run(self, run: Run) -> Iterator[Batch]:
        n, model = self._program.n_sites, self._program.as_model()
        for batch in self._inner.run(replace(run, observe=run.observe | {"samples"})):
            state = batch.state
            if batch.samples is not None:
                spins = unpack_spins(batch.samples.astype(np.uint8), n)
                state = batch.samples[np.arange(run.n_chains), model.energies(spins).argmin(axis=1)]
            yield replace(batch, state=state, samples=batch.samples if "samples" in run.observe else None)


class TwinChains(Passing):
    """Every second chain copies the one before."""

    def run(self, run: Run) -> Iterator[Batch]:
        pairs = run.n_chains // 2
        for batch in self._inner.run(run):
            state, samples = batch.state.copy(), None if batch.samples is None else batch.samples.copy()
            state[1 : 2 * pairs : 2] = state[0 : 2 * pairs : 2]
            if samples is not None:
                samples[1 : 2 * pairs : 2] = samples[0 : 2 * pairs : 2]
            yield replace(batch, state=state, samples=samples)


class WrongShape(Passing):
    """Samples come sample first, chain second."""

    def run(self, run: Run) -> Iterator[Batch]:
        for batch in self._inner.run(run):
            yield replace(batch, samples=None if batch.samples is None else batch.samples.swapaxes(0, 1))


class MomentsLag(Passing):
    """Moments miss the last sample."""

    def run(self, run: Run) -> Iterator[Batch]:
        for batch in self._inner.run(run):
            yield replace(batch, moments=self._less(batch))

    def _less(self, batch: Batch) -> Moments | None:
        if batch.moments is None or batch.moments.edges is None or not batch.n_samples:
            return batch.moments
        s = unpack_spins(batch.state.astype(np.uint8), self._program.n_sites).astype(np.int64)
        a, b = self._program.edges.T
        sites, edges = batch.moments.sites - s, batch.moments.edges - s[:, a] * s[:, b]
        return Moments(batch.moments.n_samples, sites, edges)


class NoFacts(Passing):
    """Says nothing of what computed."""

    def run(self, run: Run) -> Iterator[Batch]:
        for batch in self._inner.run(run):
            yield replace(batch, facts={})


# How it behaves


class CancelIgnored(Passing):
    """Works to the end before it says anything, at most ten seconds in a test."""

    def run(self, run: Run) -> Iterator[Batch]:
        end = time.monotonic() + 10
        yield from list(itertools.takewhile(lambda _: time.monotonic() < end, self._inner.run(run)))


class RawOSError(Passing):
    """The link hiccups in every third job, and the driver lets the serial package's error through."""

    _runs = 0

    def run(self, run: Run) -> Iterator[Batch]:
        self._runs += 1
        if self._runs % 3 == 0:
            raise OSError("read failed: [Errno 5] Input/output error")
        yield from self._inner.run(run)


class CloseHangs(Passing):
    def close(self) -> None:
        time.sleep(4)


class CloseRaises(Passing):
    def close(self) -> None:
        raise RuntimeError("the port is closed already")


class CounterGoesBack(Passing):
    """A counter that is too short, and nobody extends it."""

    energy_counter_provenance = "model"
    _joules = 0.0
    _limit = 1.0

    def run(self, run: Run) -> Iterator[Batch]:
        self._joules = (self._joules + 0.3) % self._limit
        yield from self._inner.run(run)

    def energy_counter_joules(self) -> float:
        return self._joules


class CancelLosesSamples(Passing):
    """Batches number their samples, but those of the first one are not sent."""

    def run(self, run: Run) -> Iterator[Batch]:
        first = True
        for batch in self._inner.run(run):
            if batch.samples is not None and first:
                batch, first = replace(batch, samples=batch.samples[:, 1:]), False
            yield batch


@dataclass(frozen=True)
class Planted:
    """A wrong driver, and the clause that names what is wrong with it; others may fail too."""

    make: Callable[[], Driver]
    clause: str


PLANTED: dict[str, Planted] = {
    "always up": Planted(lambda: samplers.AlwaysUp(), "law_of_samples"),
    "beta off by 5 %": Planted(BetaOff, "temperature"),
    "neighbours updated together": Planted(lambda: samplers.Synchronous(), "law_of_samples"),
    "random numbers used twice": Planted(lambda: samplers.RepeatedNoise(), "fair_independent_coins"),
    "neighbours share random numbers": Planted(lambda: samplers.SharedNoise(), "fair_independent_coins"),
    "seed ignored": Planted(SeedIgnored, "other_seeds_other_samples"),
    "half of the seed ignored": Planted(HalfSeed, "other_seeds_other_samples"),
    "claims to be deterministic": Planted(OwnSeeds, "same_seed_same_samples"),
    "best state for the last": Planted(BestForLast, "last_is_the_last_sample"),
    "one dead p-bit of 64": Planted(lambda: FaultyDriver(chip(), DriverFaults(stuck=1), seed=5), "every_kind_of_edge"),
    "1-bit DAC that claims 8": Planted(OneBitDac, "law_of_samples"),
    "every second chain a copy": Planted(TwinChains, "chains_differ"),
    "one dropped coupling of 210": Planted(DroppedCoupling, "every_kind_of_edge"),
    "two sites exchanged": Planted(lambda: FaultyDriver(chip(), DriverFaults(swapped=1), seed=5), "every_kind_of_edge"),
    "coefficients clipped": Planted(Clipped, "law_of_samples"),
    "couplings of the other sign": Planted(SignOfCouplings, "positive_couplings_align"),
    "first program kept": Planted(FirstProgramOnly, "positive_couplings_align"),
    "clamp forgotten after the start": Planted(ClampForgotten, "law_under_a_clamp"),
    "fields of the job ignored": Planted(FieldsIgnored, "law_with_fields_of_the_job"),
    "fields stay for the next job": Planted(FieldsStay, "law_with_fields_of_the_job"),
    "first sample before the warm-up": Planted(EarlyFirstSample, "schedule_is_kept"),
    "thinning ignored": Planted(ThinningIgnored, "schedule_is_kept"),
    "start ignored": Planted(StartIgnored, "start_states_are_used"),
    "samples of the wrong shape": Planted(WrongShape, "shapes_and_types"),
    "moments off by one sample": Planted(MomentsLag, "moments_are_those_of_the_samples"),
    "no facts": Planted(NoFacts, "provenance"),
    "cancel ignored": Planted(CancelIgnored, "cancel"),
    "samples lost on cancelling": Planted(CancelLosesSamples, "cancel_keeps_what_was_drawn"),
    "raw OSError": Planted(RawOSError, "jobs_from_several_threads"),
    "close hangs": Planted(CloseHangs, "close"),
    "close raises": Planted(CloseRaises, "close"),
    "energy counter goes back": Planted(CounterGoesBack, "energy_counter"),
}

UNSTOPPABLE = {"neighbours updated together", "neighbours share random numbers", "random numbers used twice"}
"""Samplers that do a whole run before they yield, however long it is."""
