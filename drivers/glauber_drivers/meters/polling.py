"""Reading an instrument again and again: a window's trace by a thread, and how often a reading is updated."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable

import numpy as np
from glauber.errors import DeviceIOError, GlauberError
from glauber.meter import Trace

STUCK_SECONDS = 10.0
"""An instrument that has not answered for so long is given up."""
PERIOD_UPDATES = 6
"""Updates to wait for when a period is measured: the time between six is known to a few per cent."""


class Polled:
    """A window that a thread of its own reads; see glauber.meter.Recording. The first reading is taken at once.

    Args:
        read: one reading, J or W; called from the thread, and from the caller's at both ends.
        interval: seconds from one reading to the next.
        name: of the instrument, for the thread and for messages.
        whole: keep all readings; False keeps the first and the last of a run of equal ones, which says the same of a
            counter and takes little memory in a window of days.
    """

    def __init__(self, read: Callable[[], float], interval: float, name: str, *, whole: bool) -> None:
        self._read, self._interval, self._name, self._whole = read, interval, name, whole
        self._times, self._readings = array("d"), array("d")
        self._error: GlauberError | None = None
        self._trace: Trace | None = None
        self._ended = threading.Event()
        self._take()
        # a daemon, so that a program which is killed or forgets to stop still ends
        self._thread = threading.Thread(target=self._poll, name=f"glauber meter {name}", daemon=True)
        self._thread.start()

    def _take(self) -> None:
        before = time.monotonic()
        reading = self._read()
        at = (before + time.monotonic()) / 2
        times, readings = self._times, self._readings
        if not self._whole and len(times) > 1 and readings[-1] == readings[-2] == reading:
            times[-1] = at
        elif not times or at > times[-1]:
            times.append(at)
            readings.append(reading)

    def _poll(self) -> None:
        while not self._ended.wait(self._interval):
            try:
                self._take()
            except GlauberError as error:
                self._error = error
                return

    @property
    def ended(self) -> bool:
        """Whether it is no longer open."""
        return self._ended.is_set()

    def stop(self) -> Trace:
        """See Recording.stop."""
        if self._trace is not None:
            return self._trace
        self._ended.set()
        self._thread.join(STUCK_SECONDS)
        if self._thread.is_alive():
            raise DeviceIOError(f"{self._name} has not answered for {STUCK_SECONDS:g} s; its window has no figure")
        if self._error is None:
            try:
                self._take()
            except GlauberError as error:
                self._error = error
        if self._error is not None:
            raise self._error
        self._trace = Trace(np.array(self._times), np.array(self._readings))
        return self._trace

    def abandon(self, error: GlauberError) -> None:
        """End the thread; a `stop` that comes later raises this error."""
        self._ended.set()
        self._thread.join(STUCK_SECONDS)
        self._error = self._error or error


def update_period(read: Callable[[], float], limit: float) -> float | None:
    """Mean seconds between updates of a reading, measured by watching it; None if it moved less than twice in `limit`.

    The mean, since a look that comes late moves one update and not the mean.
    """
    began = now = time.monotonic()
    last, updates = read(), array("d")
    while len(updates) < PERIOD_UPDATES and now - began < limit:
        time.sleep(0.0005)
        reading, now = read(), time.monotonic()
        if reading != last:
            last = reading
            updates.append(now)
    return (updates[-1] - updates[0]) / (len(updates) - 1) if len(updates) > 1 else None
