"""The order in which a device's jobs start: priority, then the owner who has had least, then the order of arrival.

With one owner that is a queue by priority. With several, time on the device is shared between those who wait for it:
each owner's account grows by the seconds that his jobs run, and the smallest account goes next. Who comes new, or back
after a pause, starts level with the job that was served last, and after all have been away level with whoever had most:
nobody saves up time by being away (start-time fair queueing, Goyal, Vin and Cheng 1996).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from glauber.job import Job
from glauber.prepare import Prepared

Entry = tuple[int, Job, Prepared | None]
"""(number, job, what was compiled for it; None for one that was taken over)"""


class FairQueue:
    """Jobs that wait for one device. Not locked: the device holds its own lock."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, str], list[Entry]] = {}  # by (-priority, owner): a heap by number
        self._had: dict[str, float] = {}
        self._size = 0
        self._level = 0.0  # of the job that was served last
        self._serving = 0

    def __len__(self) -> int:
        return self._size

    def push(self, entry: Entry) -> None:
        """Add a job; one that comes back with its old number goes before its owner's later ones."""
        owner = entry[1].owner
        if not any(key[1] == owner for key in self._waiting):
            if not self._size and not self._serving:  # nobody has been made to wait by what was before
                self._level = max([self._level, *self._had.values()])
            self._had[owner] = max(self._had.get(owner, 0.0), self._level)
        heapq.heappush(self._waiting.setdefault((-entry[1].request.priority, owner), []), entry)
        self._size += 1

    def _next_key(self, only: str | None) -> tuple[int, str] | None:
        keys = [key for key in self._waiting if only is None or key[1] == only]
        if not keys:
            return None
        return min(keys, key=lambda key: (key[0], self._had.get(key[1], 0.0), self._waiting[key][0][0]))

    def pop(self, only: str | None = None) -> Entry | None:
        """Take the next job, of one owner only if he is named; None if there is none."""
        key = self._next_key(only)
        if key is None:
            return None
        entry = heapq.heappop(self._waiting[key])
        if not self._waiting[key]:
            del self._waiting[key]
        self._size -= 1
        self._serving += 1
        self._level = max(self._level, self._had.get(key[1], 0.0))
        return entry

    def charge(self, owner: str, seconds: float) -> None:
        """The job that was taken has been served for so long."""
        self._serving -= 1
        self._had[owner] = self._had.get(owner, 0.0) + seconds

    def remove(self, job: Job) -> bool:
        """Take a job out, wherever it stands; whether it was there."""
        key = (-job.request.priority, job.owner)
        left = [entry for entry in self._waiting.get(key, ()) if entry[1] is not job]
        if len(left) == len(self._waiting.get(key, ())):
            return False
        heapq.heapify(left)
        self._waiting[key] = left
        if not left:
            del self._waiting[key]
        self._size -= 1
        return True

    def clear(self) -> list[Job]:
        """Take all of them out."""
        jobs = list(self)
        self._waiting.clear()
        self._size = 0
        return jobs

    def __iter__(self) -> Iterator[Job]:
        """The jobs about in the order in which they will start: as if each took as long as any other."""
        waiting = {key: sorted(entries) for key, entries in self._waiting.items()}
        had = dict(self._had)
        while waiting:
            key = min(waiting, key=lambda key: (key[0], had.get(key[1], 0.0), waiting[key][0][0]))
            yield waiting[key].pop(0)[1]
            had[key[1]] = had.get(key[1], 0.0) + 1.0
            if not waiting[key]:
                del waiting[key]
