"""The slow reference of a chip with flaws: the definition of docs/machine.md, section 10, in NumPy integers."""

from __future__ import annotations

import numpy as np
from glauber.compile import Run
from numpy.typing import NDArray

from glauber_simulator.arithmetic import U64, X_MAX, key_of, thresholds_at, uniforms
from glauber_simulator.chip import ONE, Chip
from glauber_simulator.flaws import Readout
from glauber_simulator.noise import NOISE, READOUT, normal, words_at
from glauber_simulator.reference import DECISION, IsingReference


class ChipReference(IsingReference):
    """A run in progress on a chip; see Session."""

    def __init__(self, chip: Chip, run: Run) -> None:
        super().__init__(chip.program, run)
        self._chip = chip
        shape = (len(chip.noises), chip.program.n_sites, run.n_chains)
        self._memory = np.zeros(shape, dtype=np.int64)
        for sweep in range(run.first_sweep):
            self._step_noises(sweep, np.arange(chip.program.n_sites))

    @property
    def facts(self) -> dict[str, str]:
        """The body that computed."""
        return {"kernel": "ising, chip", "isa": "numpy", "body": "reference"}

    def _step_noises(self, sweep: int, positions: NDArray[np.int64]) -> None:
        key = key_of(self._run.seed, NOISE, 0, self._run.stream, sweep)
        for k, noise in enumerate(self._chip.noises):
            word = words_at(key, positions[:, None], sweep, self._chains[None, :], noise.slot >> 2)[noise.slot & 3]
            z, g = normal(word), self._memory[k, positions]
            stepped = (noise.keep * g + noise.fresh * z + 2**29) >> 30
            self._memory[k, positions] = z if sweep == 0 else stepped

    def _sweep(self, sweep: int) -> None:
        run, order, chip = self._run, self._program.order, self._chip
        key = key_of(run.seed, DECISION, 0, run.stream, sweep)
        b = int(run.b[min(sweep, len(run.b)) - 1]) * int(chip.slope(sweep, 1)[0]) >> 20
        mode = chip.mode(run, sweep, 1, self._chains)[0].astype(np.int64)
        for begin, end in zip(order.colour_start[:-1], order.colour_start[1:], strict=True):
            positions = np.arange(begin, end, dtype=np.int64)
            field = self._fields[begin:end] + self._dense[begin:end] @ self._spins
            x = np.stack([self._scaled(field[i], b * int(chip.gain[begin + i]) // ONE) for i in range(len(positions))])
            x += chip.offset[begin:end, None]
            for k in range(len(chip.modes)):
                x += chip.mode_size[k, begin:end, None].astype(np.int64) * mode[k] >> 16
            self._step_noises(sweep, positions)
            for k, noise in enumerate(chip.noises):
                if noise.slot > 0:
                    x += noise.size * self._memory[k, begin:end] >> 16
            t = thresholds_at(np.minimum(np.abs(x), X_MAX).astype(U64), x < 0)
            if chip.noises and chip.noises[0].slot == 0:
                up = self._memory[0, begin:end] < normal(t)
            else:
                up = uniforms(key, sweep, 0, positions, self._chains) < t
            drawn = np.where(up, 1, -1)
            self._spins[begin:end] = np.where(self._clamp[begin:end] == 0, drawn, self._spins[begin:end])

    def _scaled(self, field: NDArray[np.int64], slope: int) -> NDArray[np.int64]:
        fine = self._chip.fine
        most = (X_MAX << fine) // slope if slope else 2**62
        size = np.where(np.abs(field) > most, 0, np.abs(field)).astype(U64) * U64(slope) >> U64(fine)
        return np.asarray(np.sign(field) * np.where(np.abs(field) > most, X_MAX, size.astype(np.int64)))


def read_out(
    readout: Readout,
    run: Run,
    states: NDArray[np.int8],
    first_sweep: int,
    every: int,
    before: NDArray[np.int8],
) -> NDArray[np.int8]:
    """States (n_chains, n_samples, n_sites) of the sweeps first_sweep, + every, .. as they are read.

    `before` has the same states a sweep earlier.
    """
    late, low, high, wrong_up, wrong_down = cuts(readout)
    n = states.shape[2]
    sites, chains = np.arange(n), run.first_chain + np.arange(run.n_chains)
    read = states.copy()
    for k in range(states.shape[1]):
        sweep = first_sweep + every * k
        key = key_of(run.seed, READOUT, 0, run.stream, sweep)
        words = np.stack(words_at(key, (sites >> 2)[None, :], sweep, chains[:, None], 0), axis=2)
        u = np.take_along_axis(words, np.broadcast_to((sites & 3)[None, :, None], (*words.shape[:2], 1)), 2)[:, :, 0]
        true = states[:, k]
        wrong = u < np.where(true > 0, wrong_up[:n], wrong_down[:n])
        settled = np.where(wrong, -true, true)
        undecided = np.where(u >= low[:n], 1, -1)
        seen = np.where(u < high[:n], undecided, settled)
        read[:, k] = np.where(u < late[:n], before[:, k], seen)
    return read


def cuts(readout: Readout) -> tuple[NDArray[np.uint32], ...]:
    """The cuts of a 32-bit random number by site: below the first it is late, and so on as in glb_readout."""
    n = len(readout.up_as_down)
    late = np.full(n, readout.late)
    low = late + readout.undecided / 2
    high = low + readout.undecided / 2
    # errors happen to readings that are neither late nor undecided
    rest = np.maximum(0.0, 1 - high)
    edges = (late, low, high, high + rest * readout.up_as_down, high + rest * readout.down_as_up)
    return tuple(np.minimum(np.rint(2.0**32 * edge), 2**32 - 1).astype(np.uint32) for edge in edges)
