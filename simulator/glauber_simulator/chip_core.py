"""Runs on a chip with flaws, and its readout, on the C core."""

from __future__ import annotations

from typing import Any

import numpy as np
from glauber.compile import Run
from numpy.typing import NDArray

from glauber_simulator._core import ffi, lib
from glauber_simulator.chip import Chip
from glauber_simulator.chip_reference import cuts
from glauber_simulator.core import Arrays, IsingNet, IsingSession, ensure
from glauber_simulator.flaws import Readout
from glauber_simulator.noise import NORMAL

NORMAL_TABLE = ffi.from_buffer("int32_t[]", NORMAL)


def normal(u: int) -> int:
    """The core's normal number, for tests."""
    return int(lib.glb_test_normal(NORMAL_TABLE, u))


class ChipSession(IsingSession):
    """A run in progress on a chip; see Session."""

    def __init__(self, chip: Chip, net: IsingNet, run: Run, n_threads: int) -> None:
        self._chip = chip
        super().__init__(net, run, n_threads)
        ensure(lib.glb_chip_start(self._c, self._c_run, self._plan, run.first_sweep - 1))

    def _fit_out(self, lanes: int) -> None:
        """See IsingSession."""
        chip, n = self._chip, self._n_sites
        self._lanes = lanes
        made = self._c_chip = ffi.new("glb_chip *")
        made.gain = self.pointer("uint32_t", chip.gain)
        made.offset = self.pointer("int64_t", chip.offset)
        made.fine = chip.fine
        made.n_modes = len(chip.modes)
        made.mode_size = self.pointer("int32_t", chip.mode_size)
        made.n_noises = len(chip.noises)
        self._noises = ffi.new("glb_noise[]", max(1, len(chip.noises)))
        for k, noise in enumerate(chip.noises):
            parts = self._noises[k]
            parts.slot, parts.keep, parts.fresh, parts.size = noise.slot, noise.keep, noise.fresh, noise.size
        made.noise = self._noises
        made.memory = self.pointer("int32_t", np.zeros((len(chip.noises), n, lanes), dtype=np.int32))
        made.normal = NORMAL_TABLE
        self._c_run.chip = made

    def advance(self, first_sweep: int, n_sweeps: int, every: int) -> NDArray[np.uint8]:
        """See Session.advance."""
        run, chip = self._run, self._chip
        chains = 32 * (run.first_chain // 32) + np.arange(self._lanes)
        slope = chip.slope(first_sweep, n_sweeps)
        mode = np.ascontiguousarray(chip.mode(run, first_sweep, n_sweeps, chains))
        made = self._c_chip
        made.first_sweep, made.n_sweeps = first_sweep, n_sweeps
        made.slope = ffi.from_buffer("uint32_t[]", slope)
        made.mode = ffi.from_buffer("int32_t[]", mode)
        return super().advance(first_sweep, n_sweeps, every)


class ReadoutCore(Arrays):
    """The readout of a chip, on states that lie packed."""

    def __init__(self, readout: Readout, n_sites: int, run: Run) -> None:
        super().__init__()
        self._n_sites = n_sites
        self._c = ffi.new("glb_readout *")
        late, low, high, wrong_up, wrong_down = (self.pointer("uint32_t", row[:n_sites]) for row in cuts(readout))
        self._c.late, self._c.low, self._c.high = late, low, high
        self._c.wrong_up, self._c.wrong_down = wrong_up, wrong_down
        self._run: Any = ffi.new("glb_run *")
        self._run.seed, self._run.stream = run.seed, run.stream
        self._run.n_chains, self._run.first_chain = run.n_chains, run.first_chain

    def read(self, states: NDArray[np.uint8], first_sweep: int, every: int, before: NDArray[np.uint8] | None) -> None:
        """Read states (n_chains, n_samples, bytes) in place; `before` has them a sweep earlier."""
        ensure(
            lib.glb_read_out(
                self._c,
                self._run,
                self._n_sites,
                first_sweep,
                max(1, every),
                states.shape[1],
                ffi.from_buffer("uint8_t[]", states),
                ffi.NULL if before is None else ffi.from_buffer("uint8_t[]", before),
            )
        )
