"""The simulated device with flaws: a chip of a `Nonidealities`, or the twin of a measured one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
        if self._net is None:
            return ChipReference(self._chip, run)
        assert isinstance(self._net, core.IsingNet)
        return ChipSession(self._chip, self._net, run, self._threads(run, program))

    def _at_once(self, run: Run, done: int, limit: int) -> int:
        assert self._chip is not None
        lanes = 32 + run.n_chains
        limit = min(limit, max(1, MODE_VALUES // (lanes * max(1, len(self._chip.modes)))))
        if self.flaws.readout.late and done >= run.n_warmup:  # a resumed run must know the reading before
            return max(limit, run.sweeps_per_sample)
        return limit

    def run(self, run: Run) -> Iterator[Batch]:
        """See Driver.run."""
        if self._chip is None:
            raise ModelNotSupportedError("nothing is programmed; call program() before run()")
        batches = super().run(self._chip.run(run))
        if self.flaws.readout.is_ideal:
            yield from batches
            return
        before: NDArray[np.uint8] | None = None
        if run.initial is not None and run.first_sweep > run.n_warmup + run.sweeps_per_sample:
            before = run.initial.astype(np.uint8).copy()
        for batch in batches:
            true = batch.state.astype(np.uint8)
            if batch.samples is None or not batch.n_samples:
                read = self._read(run, true[:, None].copy(), batch.next_sweep - 1, 1, true.copy())
                yield replace(batch, read_state=read[:, 0])
                continue
            thin = run.sweeps_per_sample
            samples = batch.samples.astype(np.uint8)
            if before is None:
                before = samples[:, 0].copy()  # the first reading has none to be late for
            latest = samples[:, -1].copy()
            samples = self._read(run, samples, run.n_warmup + (batch.first_sample + 1) * thin, thin, before)
            before = latest
            yield replace(batch, samples=samples, read_state=samples[:, -1].copy())

    def _read(
        self, run: Run, states: NDArray[np.uint8], first_sweep: int, every: int, before: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """Packed states (n_chains, n_samples, bytes) as the readout gives them."""
        assert isinstance(self._program, Program)
        n = self._program.n_sites
        if self._net is not None:
            ReadoutCore(self.flaws.readout, n, run).read(states, first_sweep, every, before)
            return states
        spins, held = unpack_spins(states, n), unpack_spins(before, n)
        return pack_spins(read_out(self.flaws.readout, run, spins, first_sweep, every, held))

    def close(self) -> None:
        """See Driver.close."""
        super().close()
        self._chip = None
