"""The simulated device with flaws: a chip of a `Nonidealities`, or the twin of a measured one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
from glauber.compile import AnyProgram, PottsProgram, Program, Run, pack_spins, unpack_spins
from glauber.driver import Batch
from glauber.errors import ModelNotSupportedError
from glauber.spec import AnySpec
from numpy.typing import NDArray

from glauber_simulator import core
from glauber_simulator.chip import Chip, check_run, on_chip
from glauber_simulator.chip_core import ChipSession, ReadoutCore
from glauber_simulator.chip_reference import ChipReference, read_out
from glauber_simulator.driver import SimulatorDriver
from glauber_simulator.flaws import Flaws
from glauber_simulator.session import Session

MODE_VALUES = 2**20
"""Numbers that all p-bits of a chain share, made at a time."""


Packed = NDArray[np.uint8]
Reader = Callable[[Packed, int, int, Packed | None], Packed]


class ReadSession:
    """A run in progress whose kept states are readings; see Session. Those may be late by a sweep."""

    def __init__(self, inner: Session, read: Reader, *, late: bool) -> None:
        self._inner, self._read, self._late = inner, read, late
        self.facts, self.state, self.moments = inner.facts, inner.state, inner.moments
        self.exchanges, self.resamplings, self.events = inner.exchanges, inner.resamplings, inner.events

    def advance(self, first_sweep: int, n_sweeps: int, every: int) -> NDArray[np.unsignedinteger]:
        """See Session.advance."""
        if not every or not self._late:
            samples = self._inner.advance(first_sweep, n_sweeps, every).astype(np.uint8, copy=False)
            return self._read(samples, first_sweep + every - 1, every, None) if samples.shape[1] else samples
        kept, before = [], []
        for sweep in range(first_sweep + every - 1, first_sweep + n_sweeps, every):
            if every > 1:
                self._inner.advance(sweep - every + 1, every - 1, 0)
            before.append(self._inner.state())
            kept.append(self._inner.advance(sweep, 1, 1))
        samples = np.concatenate(kept, axis=1).astype(np.uint8, copy=False)
        if not samples.shape[1]:
            return samples
        return self._read(
            samples, first_sweep + every - 1, every, np.stack(before, axis=1).astype(np.uint8, copy=False)
        )


class ChipDriver(SimulatorDriver):
    """A driver that computes what a flawed chip would do. The same seed gives the same samples on either body."""

    def __init__(self, spec: AnySpec, flaws: Flaws, body: str = "core", facts: Mapping[str, str] | None = None) -> None:
        able = {"methods": (), "potts_states": 0}
        if not flaws.readout.is_ideal:  # sums would be of what nobody can read
            able["observables"] = spec.capabilities.observables - {"moments"}
        capabilities = spec.capabilities.model_copy(update=able)
        super().__init__(spec.model_copy(update={"capabilities": capabilities}), body, facts)
        self.flaws = flaws
        self._chip: Chip | None = None

    def program(self, program: AnyProgram) -> None:
        """See Driver.program."""
        if isinstance(program, PottsProgram):
            raise ModelNotSupportedError(f"{self.spec.name} has p-bits with flaws, and no p-dits")
        self._chip = on_chip(program, self.flaws, self.spec)
        super().program(self._chip.program)

    def admit(self, run: Run, program: AnyProgram) -> int:
        """See Driver.admit."""
        check_run(run)
        shared = 8 * MODE_VALUES + 8 * run.n_chains * program.n_sites
        return shared + super().admit(replace(run, layout=0), program)

    def _session(self, run: Run, program: AnyProgram) -> Session:
        assert self._chip is not None
        session: Session
        if self._net is None:
            session = ChipReference(self._chip, run)
        else:
            assert isinstance(self._net, core.IsingNet)
            session = ChipSession(self._chip, self._net, run, self._threads(run, program))
        readout = self.flaws.readout
        return session if readout.is_ideal else ReadSession(session, self._reader(run), late=readout.late > 0)

    def _reader(self, run: Run) -> Reader:
        """What turns packed states (n_chains, n_samples, bytes) into readings of them."""
        assert isinstance(self._program, Program)
        n, readout = self._program.n_sites, self.flaws.readout
        if self._net is not None:
            on_core = ReadoutCore(readout, n, run)

            def read(states: Packed, first_sweep: int, every: int, before: Packed | None) -> Packed:
                read = states.copy()
                on_core.read(read, first_sweep, every, before)
                return read

            return read

        def read_slowly(states: Packed, first_sweep: int, every: int, before: Packed | None) -> Packed:
            spins, earlier = (unpack_spins(each, n) for each in (states, states if before is None else before))
            return pack_spins(read_out(readout, run, spins, first_sweep, every, earlier))

        return read_slowly

    def _at_once(self, run: Run, done: int, limit: int) -> int:
        assert self._chip is not None
        lanes = 32 + run.n_chains
        return min(limit, max(1, MODE_VALUES // (lanes * max(1, len(self._chip.modes)))))

    def run(self, run: Run) -> Iterator[Batch]:
        """See Driver.run."""
        if self._chip is None:
            raise ModelNotSupportedError("nothing is programmed; call program() before run()")
        reads = None if self.flaws.readout.is_ideal else self._reader(run)
        for batch in super().run(self._chip.run(run)):
            if reads is None:
                yield batch
            else:  # the last state is read when all is over, so never late
                state = batch.state.astype(np.uint8)[:, None]
                yield replace(batch, read_state=reads(state, batch.next_sweep - 1, 1, None)[:, 0])

    def close(self) -> None:
        """See Driver.close."""
        super().close()
        self._chip = None
