"""The order in which a device's jobs start: priority, then the owner who has had least, then the order of arrival.

With one owner that is a queue by priority. With several, time on the device is shared between those who wait for it:
each owner's account grows by the seconds that his jobs run, and the smallest account goes next. Who comes new, or back
after a pause, starts level with the job that was served last, and after all have been away level with whoever had most:
nobody saves up time by being away (start-time fair queueing, Goyal, Vin and Cheng 1996).

Where writing weights is dear, a job of the same owner and priority whose weights are loaded already goes before those
that would have them rewritten, but no job is overtaken more than a fixed number of times.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from glauber.job import Job
from glauber.prepare import Prepared

Entry = tuple[int, Job, Prepared | None]
"""(number, job, what was compiled for it; None for one that was taken over)"""


MAX_OVERTAKEN = 16
"""So many later jobs may go before a job because their weights are loaded; then it is its turn."""


class FairQueue:
    """Jobs that wait for one device. Not locked: the device holds its own lock."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, str], list[Entry]] = {}  # by (-priority, owner): a heap by number
        self._had: dict[str, float] = {}
        self._size = 0
        self._level = 0.0  # of the job that was served last
        self._serving = 0
        self._overtaken: dict[int, int] = {}  # by id() of jobs that wait here

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

    def pop(self, only: str | None = None, *, weights: str = "") -> Entry | None:
        """Take the next job, of one owner only if he is named; None if there is none.

        Args:
            only: the owner.
            weights: `Prepared.weights` of what is loaded; a job with the same may go before earlier ones. Empty where
                writing weights is not dear.
        """
        key = self._next_key(only)
        if key is None:
            return None
        entry = self._with_weights(self._waiting[key], weights)
        if entry is None:
            entry = heapq.heappop(self._waiting[key])
        self._overtaken.pop(id(entry[1]), None)
        if not self._waiting[key]:
            del self._waiting[key]
        self._size -= 1
        self._serving += 1
        self._level = max(self._level, self._had.get(key[1], 0.0))
        return entry

    def _with_weights(self, entries: list[Entry], weights: str) -> Entry | None:
        """Take the first of one owner's jobs with these weights, unless one that it overtakes has waited enough."""
        fitting = [entry for entry in entries if weights and entry[2] is not None and entry[2].weights == weights]
        if not fitting:
            return None
        chosen = min(fitting, key=lambda entry: entry[0])
        ahead = [id(entry[1]) for entry in entries if entry[0] < chosen[0]]
        if any(self._overtaken.get(each, 0) >= MAX_OVERTAKEN for each in ahead):
            return None
        for each in ahead:
            self._overtaken[each] = self._overtaken.get(each, 0) + 1
        entries.remove(chosen)
        heapq.heapify(entries)
        return chosen

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
        self._overtaken.pop(id(job), None)
        if not left:
            del self._waiting[key]
        self._size -= 1
        return True

    def clear(self) -> list[Job]:
        """Take all of them out."""
        jobs = list(self)
        self._waiting.clear()
        self._overtaken.clear()
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
