"""Emptying an instrument's buffer again and again during a window, by a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

from glauber.errors import DeviceIOError, GlauberError

STUCK_SECONDS = 20.0
"""An instrument that has not answered for so long is given up."""


class Drain:
    """Calls `take` every `interval` seconds from a thread of its own, until it is ended or `take` fails.

    Args:
        take: moves what the instrument holds to the host; raises GlauberError.
        interval: seconds.
        name: of the instrument, for the thread and for messages.
    """

    def __init__(self, take: Callable[[], None], interval: float, name: str) -> None:
        self._take, self._interval, self._name = take, interval, name
        self._ended = threading.Event()
        self._error: GlauberError | None = None
        # a daemon, so that a program which is killed or forgets to stop still ends
        self._thread = threading.Thread(target=self._run, name=f"glauber meter {name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            try:
                self._take()
            except GlauberError as error:
                self._error = error
                return

    def end(self) -> None:
        """Stop the thread; afterwards `take` is the caller's again.

        Raises:
            DeviceIOError: `take` failed, or hangs.
        """
        self._ended.set()
        self._thread.join(STUCK_SECONDS)
        if self._thread.is_alive():
            raise DeviceIOError(f"{self._name} has not answered for {STUCK_SECONDS:g} s; its window has no figure")
        if self._error is not None:
            raise self._error
