"""From the records of a board's stream to batches, and to what is left of a run after each."""

from __future__ import annotations

from dataclasses import replace

from glauber.compile import Program, Run
from glauber.driver import Batch
from glauber.errors import ProtocolError
from glauber.samples import Moments

from glauber_drivers import wire
from glauber_drivers.board_arrays import BoardRun
from glauber_drivers.wire import Kind


class BatchCollector:
    """Records on their way to batches.

    Attributes:
        rest: what is left of the run after the last batch.
        done: the last sweep of which something came.
        n_bytes: since the last batch.
        checkpoints: that have come.
    """

    def __init__(self, program: Program, run: Run) -> None:
        self._board_run = BoardRun(program, run)
        self.rest = run
        self._samples: list[bytes] = []
        self._state: bytes | None = None
        self._checkpoint: wire.Record | None = None
        self.checkpoints = 0
        self._sums: Moments | None = None
        self._at = self.done = run.first_sweep - 1
        self.n_bytes = 0

    @property
    def whole(self) -> bool:
        """Whether there is a state that a run can be resumed from, after the last batch."""
        return self._at > self.rest.first_sweep - 1

    def take(self, record: wire.Record) -> None:
        """Keep what a record brings.

        Raises:
            ProtocolError: it does not fit the run.
        """
        moments = "moments" in self.rest.observe
        self.n_bytes += len(record.data)
        if record.kind in (Kind.SAMPLE, Kind.CHECKPOINT):
            if len(record.data) != 4 * self._board_run.n_cells or record.sweep < self.done:
                raise ProtocolError(f"a state of {len(record.data)} bytes after sweep {record.sweep} fits no run")
            self.done = record.sweep
            if record.kind is Kind.SAMPLE:
                self._take_sample(record)
            else:
                self.checkpoints += 1
                self._checkpoint = record
            if not moments:
                self._at, self._state = record.sweep, record.data
        elif record.kind is Kind.MOMENTS:
            state = self._checkpoint
            if state is None or state.sweep != record.sweep:
                raise ProtocolError(f"moments after sweep {record.sweep} without the state that belongs to them")
            self._sums = self._board_run.read_moments(record.data)
            self._at, self._state = state.sweep, state.data  # what a run is resumed from belongs together
            expected = self._kept(self._at)
            if self._sums.n_samples != expected:
                raise ProtocolError(f"moments of {self._sums.n_samples} samples after {expected} were taken")

    def _take_sample(self, record: wire.Record) -> None:
        thin, into = self.rest.sweeps_per_sample, record.sweep - self.rest.n_warmup
        expected = self._kept(self.rest.first_sweep - 1) + len(self._samples)
        if into <= 0 or into % thin or into // thin != expected + 1:
            raise ProtocolError(f"a sample after sweep {record.sweep}, where none was to be taken")
        self._samples.append(record.data)

    def _kept(self, sweeps: int) -> int:
        return max(0, sweeps - self.rest.n_warmup) // self.rest.sweeps_per_sample

    def batch(self, facts: dict[str, str]) -> Batch:
        """What came since the last one."""
        run, board_run = self.rest, self._board_run
        before, now = self._kept(run.first_sweep - 1), self._kept(self._at)
        assert self._state is not None
        state = board_run.read_states([self._state])[:, 0]
        wants = "samples" in run.observe and now > before
        taken, self._samples = self._samples[: now - before], self._samples[now - before :]
        samples = board_run.read_states(taken) if wants else None
        sums = self._sums
        self.rest = replace(
            run,
            first_sweep=self._at + 1,
            initial=state,
            initial_moments=None if sums is None else (sums.n_samples, sums.sites, sums.edges),
        )
        self.n_bytes = 0
        return Batch(
            next_sweep=self._at + 1,
            first_sample=before,
            n_samples=now - before,
            samples=samples,
            state=state,
            moments=sums,
            facts=facts,
        )
