"""Programs, runs and states as a board's memory has them: by position, in words of 32 lanes, little-endian."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from glauber.compile import Program, Run, pack_spins, unpack_spins
from glauber.errors import ProtocolError
from glauber.samples import Moments
from numpy.typing import NDArray

from glauber_drivers.wire import Segment

REPLICA_PLANES = 0


def program_segments(program: Program) -> dict[Segment, bytes]:
    """What PROGRAM is followed by, in the order of COMMIT's checksum."""
    order = program.order
    return {
        Segment.ROW_START: order.row_start.astype("<u4").tobytes(),
        Segment.NEIGHBOUR: order.neighbour.astype("<u2").tobytes(),
        Segment.WEIGHT: program.weight.astype("<i2").tobytes(),
        Segment.FIELD: program.field[order.site].astype("<i4").tobytes(),
        Segment.COLOURS: np.asarray(order.colour_start).astype("<u4").tobytes(),
        Segment.SITE: order.site.astype("<u2").tobytes(),
    }


def run_segments(program: Program, run: Run, last: int) -> dict[Segment, bytes]:
    """What belongs to a run from run.first_sweep to `last`, in the order of RUN's checksum."""
    board_run, order = BoardRun(program, run), program.order
    table = run.b if len(run.b) == 1 else run.b[run.first_sweep - 1 : last]
    segments = {Segment.BETA: table.astype("<u8").tobytes()}
    if run.fields is not None:
        segments[Segment.OWN_FIELD] = run.fields[0][order.site].astype("<i4").tobytes()
    start = None if run.initial is None else unpack_spins(run.initial.astype(np.uint8, copy=False), program.n_sites)
    if run.clamp is not None:
        clamp = np.broadcast_to(run.clamp, (run.n_chains, program.n_sites))
        segments[Segment.HELD] = board_run.words_of(clamp != 0)
        start = np.where(clamp != 0, clamp, -1 if start is None else start)
    if start is not None:
        wide = np.broadcast_to(start, (run.n_chains, program.n_sites))
        segments[Segment.STATE_WORDS] = board_run.words_of(wide > 0)
    if run.initial_moments is not None and "moments" in run.observe:
        segments[Segment.SUMS] = board_run.write_moments(*run.initial_moments[1:])
    return segments


class BoardRun:
    """How a run lies in a board's memory.

    Attributes:
        n_cells: words of the state.
        n_sums: sums of the moments.
    """

    def __init__(self, program: Program, run: Run) -> None:
        self._program, self._run = program, run
        self._replicas = run.layout == REPLICA_PLANES
        self._lane = run.first_chain % 32
        self._words = -(-(self._lane + run.n_chains if self._replicas else program.n_sites) // 32)
        self.n_cells = self._words * (program.n_sites if self._replicas else run.n_chains)
        self.n_sums = run.n_chains * (program.n_sites + program.n_edges)

    def words_of(self, bits: NDArray[np.bool_]) -> bytes:
        """Bits (n_chains, n_sites) as words of the state."""
        by_position = bits[:, self._program.order.site]
        rows = by_position.T if self._replicas else by_position
        wide = np.zeros((len(rows), 32 * self._words), dtype=np.uint8)
        first = self._lane if self._replicas else 0
        wide[:, first : first + rows.shape[1]] = rows
        return np.packbits(wide, axis=1, bitorder="little").tobytes()

    def read_states(self, states: Sequence[bytes]) -> NDArray[np.uint8]:
        """States as `Batch.samples` has them, uint8 (n_chains, n_states, bytes)."""
        program, run = self._program, self._run
        flat = np.frombuffer(b"".join(states), dtype=np.uint8)
        rows = program.n_sites if self._replicas else run.n_chains
        bits = np.unpackbits(flat.reshape(len(states), rows, 4 * self._words), axis=2, bitorder="little")
        if self._replicas:
            by_position = bits[:, :, self._lane : self._lane + run.n_chains].transpose(2, 0, 1)
        else:
            by_position = bits[:, :, : program.n_sites].transpose(1, 0, 2)
        return pack_spins(by_position[..., program.order.position].view(np.int8))

    @cached_property
    def _edge_of_sum(self) -> NDArray[np.int32]:
        """The model's edge of each product: row entries whose neighbour has the higher position, row by row."""
        order = self._program.order
        row = np.repeat(np.arange(self._program.n_sites), np.diff(order.row_start))
        return np.asarray(order.row_edge[order.neighbour > row])

    def read_moments(self, data: bytes) -> Moments:
        """A record's sums.

        Raises:
            ProtocolError: it has the wrong length.
        """
        program, chains = self._program, self._run.n_chains
        if len(data) != 4 * (1 + self.n_sums):
            raise ProtocolError(f"moments of {len(data)} bytes came, {4 * (1 + self.n_sums)} were due")
        numbers = np.frombuffer(data, dtype="<i4").astype(np.int64)
        sums = numbers[1:].reshape(chains, program.n_sites + program.n_edges)
        edges = np.zeros((chains, program.n_edges), dtype=np.int64)
        edges[:, self._edge_of_sum] = sums[:, program.n_sites :]
        return Moments(int(numbers[0]), sums[:, : program.n_sites][:, program.order.position], edges)

    def write_moments(self, sites: NDArray[np.int64], edges: NDArray[np.int64] | None) -> bytes:
        """Sums as a board has them."""
        order = self._program.order
        products = np.zeros((len(sites), 0), dtype=np.int64) if edges is None else edges[:, self._edge_of_sum]
        return np.concatenate([sites[:, order.site], products], axis=1).astype("<i4").tobytes()
