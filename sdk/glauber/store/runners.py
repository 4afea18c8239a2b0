"""Who runs which jobs, and is it still alive: a file lock for as long as a store is open for running.

The kernel lets go of the lock when the process ends, however it ends. No heartbeat, no clock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import weakref
from pathlib import Path

from glauber.errors import StoreError


class Runner:
    """This process as one that runs jobs.

    Attributes:
        id: that is written beside the jobs it runs.
    """

    def __init__(self, folder: Path) -> None:
        self.id = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._path = folder / self.id
        try:
            folder.mkdir(exist_ok=True, mode=0o700)
            handle = os.open(folder / f".{self.id}", os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(folder / f".{self.id}", self._path)  # locked before anybody can look
        except OSError as error:
            raise StoreError(
                f"no lock can be made in {folder}: {error}; the store's folder must be writable"
            ) from error
        self._handle = handle
        _open_runners.add(self)

    def close(self) -> None:
        """Not running any more; may be called twice."""
        if self._handle >= 0:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = -1

    def forget(self) -> None:
        """In a forked child: the lock stays the parent's."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def is_alive(folder: Path, runner: str) -> bool:
    """Whether the process that called itself so still runs; what a dead one left is removed."""
    path = folder / runner
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:  # no file descriptor left, another user's file: who cannot be asked is not declared dead
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, so that two who ask do not hold up each other
    except OSError:
        return True
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return False
    finally:
        os.close(handle)


_open_runners: weakref.WeakSet[Runner] = weakref.WeakSet()


def _after_fork() -> None:
    for runner in list(_open_runners):
        runner.forget()


os.register_at_fork(after_in_child=_after_fork)
