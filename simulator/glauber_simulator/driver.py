"""The simulated device: any catalogue entry by name, and `sim://ideal`, on the C core or on the reference.

The simulator follows the entry's graph, precision and ranges; what its maker does not publish is assumed, and every
result's provenance lists the assumptions.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping

from glauber.compile import AnyProgram, PottsProgram, Run
from glauber.driver import Batch, Incumbent, OptimiseRequest
from glauber.errors import ModelNotSupportedError
from glauber.spec import AnySpec

from glauber_simulator import core
from glauber_simulator.events import EventsReference
from glauber_simulator.optimise import optimise
from glauber_simulator.reference import IsingReference, PottsReference
from glauber_simulator.session import Session, potts_dtype

BATCH_SECONDS = 0.05
"""How long a batch should take: often enough for progress bars and Ctrl-C, rarely enough to cost nothing."""
BATCH_READINGS = 10
"""A batch takes at least this many times as long as reading its state and moments, which may be 100 MB."""
ASSUMED_UPDATES_PER_SECOND = 2e7
"""For the first batch only; every later one goes by the measured rate."""
REFERENCE_UPDATES_PER_SECOND = 2e4
"""The same for the reference in NumPy, which could else not be cancelled for a minute."""
THREADED_UPDATES = 2_000_000
"""Updates per sweep from which all cores pay for their barrier."""


class SimulatorDriver:
    """A driver that computes.

    Attributes:
        spec: the description it follows.
        body: "core" or "reference".
        facts: what every result's provenance should say beside the kernel, such as an assumed graph.
    """

    def __init__(self, spec: AnySpec, body: str = "core", facts: Mapping[str, str] | None = None) -> None:
        self.spec = spec
        self.facts = dict(facts or {})
        self.body = body
        self.contract_version = core.CONTRACT_VERSION
        self._program: AnyProgram | None = None
        self._net: core.IsingNet | core.PottsNet | None = None

    def program(self, program: AnyProgram) -> None:
        """See Driver.program."""
        self._program, self._net = program, None
        if self.body == "core":
            self._net = core.PottsNet(program) if isinstance(program, PottsProgram) else core.IsingNet(program)

    def admit(self, run: Run, program: AnyProgram) -> int:
        """See Driver.admit."""
        core.isa_number(run.isa)
        if isinstance(program, PottsProgram):
            moments = 8 * program.n_states if "moments" in run.observe else 0
            fields = 0 if run.fields is None else 4 * program.n_states
            clamp = 0 if run.clamp is None else 4
            cell = 4 + potts_dtype(program.n_states)(0).itemsize + 2 * moments + fields + clamp
            return run.n_chains * program.n_sites * cell + 16 * program.n_states * self._threads(run, program)
        lanes = -(-(run.n_chains if run.layout == 0 else program.n_sites) // 32) * 32
        cells = lanes * (program.n_sites if run.layout == 0 else run.n_chains)
        held = 1 + 1 / 8 + (0 if run.clamp is None else 1) + (0 if run.fields is None else 4)
        moments = 8 * run.n_chains * (program.n_sites + program.n_edges) if "moments" in run.observe else 0
        moments += 4 * cells if "moments" in run.observe else 0  # 64 states, and counted twice below
        dense = 8 * program.n_sites**2 if self.body == "reference" else 0
        moves = 0 if run.exchange is None else 12 * lanes + 1024 * len(run.b)
        moves += 0 if run.resample is None else 16 * lanes + cells // 8
        if run.clock is not None:
            updates, flips = core.room_for_events(run.clock)
            moves += run.n_chains * (lanes + 16 * flips) + self._threads(run, program) * (32 * updates + 8 * lanes)
        net = moves + 24 * program.n_edges + 16 * program.n_sites  # the program once more, in the kernel's form
        if run.layout == 1 and 16 * program.n_edges >= program.n_sites**2:
            net += 4 * program.n_sites**2  # as a matrix
        return int(cells * held) + 2 * moments + dense + net

    def _threads(self, run: Run, program: AnyProgram) -> int:
        if run.threads is not None:
            return min(run.threads, core.MAX_THREADS)
        return min(os.cpu_count() or 1, 64) if program.n_sites * run.n_chains >= THREADED_UPDATES else 1

    def _session(self, run: Run, program: AnyProgram) -> Session:
        if self._net is None:
            if isinstance(program, PottsProgram):
                return PottsReference(program, run)
            return IsingReference(program, run) if run.clock is None else EventsReference(program, run)
        threads = self._threads(run, program)
        if isinstance(self._net, core.PottsNet):
            return core.PottsSession(self._net, run, threads)
        return core.IsingSession(self._net, run, threads)

    def _at_once(self, run: Run, done: int, limit: int) -> int:
        """Sweeps of the batch after `done` sweeps, at most about so many; `limit` is what time asks for."""
        return limit

    def run(self, run: Run) -> Iterator[Batch]:
        """See Driver.run. Batches grow or shrink to BATCH_SECONDS; where they are cut changes no sample."""
        program = self._program
        if program is None:
            raise ModelNotSupportedError("nothing is programmed; call program() before run()")
        session = self._session(run, program)
        facts = {**session.facts, **self.facts}
        thin, done = run.sweeps_per_sample, run.first_sweep - 1
        assumed = REFERENCE_UPDATES_PER_SECOND if self._net is None else ASSUMED_UPDATES_PER_SECOND
        limit = max(1, int(assumed * BATCH_SECONDS / (program.n_sites * run.n_chains)))
        while done < run.n_sweeps:
            sweeps, every = run.next_batch(done, self._at_once(run, done, limit))
            first_sample = max(0, done - run.n_warmup) // thin
            began = time.perf_counter()
            samples = session.advance(done + 1, sweeps, every)
            seconds = max(1e-6, time.perf_counter() - began)
            done += sweeps
            began = time.perf_counter()
            state, moments = session.state(), session.moments()
            wanted = max(BATCH_SECONDS, BATCH_READINGS * (time.perf_counter() - began))
            limit = max(1, min(4 * limit, int(sweeps * wanted / seconds)))
            yield Batch(
                next_sweep=done + 1,
                first_sample=first_sample,
                n_samples=sweeps // every if every else 0,
                samples=samples if every and "samples" in run.observe else None,
                state=state,
                moments=moments,
                facts=facts,
                exchanges=session.exchanges(),
                resamplings=session.resamplings(),
                events=session.events(),
            )

    def close(self) -> None:
        """See Driver.close."""
        self._program = self._net = None


class IdealDriver(SimulatorDriver):
    """The simulator of no chip in particular, which solves as this computer does best."""

    def optimise(self, request: OptimiseRequest) -> Iterator[Incumbent]:
        """See Optimiser."""
        return optimise(request)
