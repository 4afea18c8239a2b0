"""The bytes of a board's run as they come: credit, gaps, checkpoints, and whether the board still lives."""

from __future__ import annotations

from glauber.errors import DeviceIOError

from glauber_drivers import serial_link, wire
from glauber_drivers.serial_link import BoardResetError, Link, error_of
from glauber_drivers.wire import Operation, Status

CREDIT = 65_536
"""Bytes of a stream that may be on their way."""
NOISY_CREDIT, LEAST_CREDIT = 2_048, 8_192
POLL_SECONDS = 0.1
"""How often a board is asked how far it is while it sends nothing."""


class RunStream:
    """The bytes of a run as they come, in order.

    An iterator that gives empty ones in between, so that the caller keeps control, and that the caller ends, who knows
    where the stream ends.

    Attributes:
        checkpoint_wanted: the caller sets it; the next pull asks for a checkpoint.
        progress: how far the board was when it last said so.
    """

    def __init__(self, link: Link, run: int) -> None:
        self._link, self._run = link, run
        self._next = self._granted = 0
        self._early: dict[int, bytes] = {}
        self._asked = 0.0
        self._came = self._link.now()
        self._pull: int | None = None
        self._gap_asked = -1
        self._called = self._moved = self._came
        self._flagged = False
        self._due = False
        self._counted = (self._came, 0)
        self._window = LEAST_CREDIT
        self.checkpoint_wanted = False
        self.progress: wire.Pulled | None = None

    def __iter__(self) -> RunStream:
        return self

    def _ask(self, *, again: bool) -> None:
        link = self._link
        self._due |= self.checkpoint_wanted
        self.checkpoint_wanted = False
        self._granted = self._next + self._credit
        self._flagged = self._due
        self._pull = link.post(
            Operation.PULL,
            wire.pull_request(self._run, link.piece, self._next, self._granted, again=again, checkpoint=self._due),
        )
        self._asked = link.now()

    def __next__(self) -> bytes:
        link = self._link
        now = link.now()
        if now - self._called > 1:  # the caller was away, and so was the board, whose buffer is full
            self._came = self._moved = now
        self._called = now
        if self._granted == 0 or self.checkpoint_wanted or 2 * (self._granted - self._next) < self._credit:
            self._ask(again=False)
        else:
            idle = self._link.now() - max(self._came, self._asked)
            if idle > max(link.retry_seconds, POLL_SECONDS):
                self._ask(again=True)
        fresh = bytearray()
        gap = False
        for run, offset, data in link.pieces(min(POLL_SECONDS, link.retry_seconds)):
            if run != self._run:
                continue
            ahead = (offset - self._next) & 0xFFFFFFFF
            if ahead == 0:
                fresh += data
                self._next += len(data)
                while self._early and (more := self._early.pop(self._next, None)) is not None:
                    fresh += more
                    self._next += len(more)
            elif ahead < 0x80000000:
                self._early[self._next + ahead] = data
                gap = True
            elif (behind := (1 << 32) - ahead) < len(data):  # partly known: frames are cut anew after an error
                fresh += data[behind:]
                self._next += len(data) - behind
        self._called = link.now()
        self._measure()
        if fresh:
            self._came = self._link.now()
            self._early = {at: data for at, data in self._early.items() if at >= self._next}
        if gap and self._early and self._gap_asked != self._next:
            self._gap_asked = self._next
            link.noticed_loss()
            self._ask(again=True)
        self._hear()
        return bytes(fresh)

    @property
    def _credit(self) -> int:
        """Bytes that may be on their way: what the link carries in a second, so that no answer waits longer."""
        most = min(self._link.hello.stream, NOISY_CREDIT if self._link.noisy else CREDIT)
        if self._link.reproducible:  # a measured rate is never the same again
            return min(most, LEAST_CREDIT)
        return min(most, self._window)

    def _measure(self) -> None:
        """More credit while it is used up within half a second, less where it lasts for longer than one."""
        since, count = self._counted
        if self._next - count >= self._window:
            span = self._link.now() - since
            if span < 0.5:
                self._window = min(2 * self._window, CREDIT)
            elif span > 1:
                self._window = max(self._window // 2, LEAST_CREDIT)
            self._counted = (self._link.now(), self._next)

    def _hear(self) -> None:
        """What the board says about the last pull, and whether it lives."""
        answer = None if self._pull is None else self._link.answer(Operation.PULL, self._pull)
        if answer is not None:
            self._pull = None
            if self._flagged and answer.status is Status.OK:
                self._due = self._flagged = False
            old_pull = answer.status is Status.STATE and answer.detail == 3
            if answer.status is Status.STATE and not old_pull:
                raise BoardResetError("the board does not know the run any more: it was reset in between")
            if answer.status is not Status.OK and not old_pull:
                raise error_of(Operation.PULL, answer)
            before = self.progress
            self.progress = before if old_pull else wire.read_pulled(answer.rest)
            if self.progress != before:
                self._moved = self._link.now()
            elif self._link.now() - max(self._moved, self._came) > serial_link.STALL_SECONDS:
                sweep = "its start" if before is None else f"sweep {before.sweep}"
                raise DeviceIOError(
                    f"{self._link.name} answers, but its run has stood still at {sweep} for"
                    f" {serial_link.STALL_SECONDS:g} s: reset the board; the next job connects anew"
                )
        elif min(self._link.silence(), self._link.now() - self._came) > serial_link.PATIENCE_SECONDS:
            raise DeviceIOError(
                f"{self._link.name} sent nothing for {serial_link.PATIENCE_SECONDS:g} s in the middle of a run:"
                " it is frozen, unplugged or without power. Check it; the next job connects anew"
            )
