"""Care of a store: is all of it intact, and what is not needed any more."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import Any

from glauber.errors import GlauberError, InvalidModelError, JobNotFoundError, StoreError
from glauber.job import JobStatus
from glauber.store.jobs import JobStore


@dataclass(frozen=True, slots=True)
class Check:
    """What `check_store` found.

    Attributes:
        jobs: that were looked at.
        objects: that were looked at.
        damage: one sentence for each thing that is not what was written; empty for a store that is intact.
    """

    jobs: int
    objects: int
    damage: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"damage": list(self.damage)}


def check_store(store: JobStore, on_progress: Callable[[int, int], None] = lambda done, total: None) -> Check:
    """Read everything: SQLite's own check of its pages, every checksum, every object.

    Args:
        store: to look at.
        on_progress: called with (jobs looked at, jobs in all).
    """
    damage: list[str] = []
    try:
        for (line,) in store.database.read("PRAGMA integrity_check(20)"):
            if line != "ok":
                damage.append(f"SQLite: {line}")
    except StoreError as error:
        damage.append(str(error))
    n_objects, ids = 0, list[str]()
    try:
        digests = [digest for (digest,) in store.database.read("SELECT DISTINCT digest FROM object")]
        ids = [job_id for (job_id,) in store.database.read("SELECT id FROM job ORDER BY number")]
        n_objects = len(digests)
        for digest in digests:
            try:
                store.database.object(digest, f"object {digest[:12]}")
            except StoreError as error:
                damage.append(str(error))
    except StoreError as error:
        damage.append(str(error))
    for done, job_id in enumerate(ids):
        on_progress(done, len(ids))
        damage += [f"job {job_id}: {found}" for found in _job_damage(store, job_id)]
    return Check(len(ids), n_objects, tuple(dict.fromkeys(damage)))


def _job_damage(store: JobStore, job_id: str) -> list[str]:
    try:
        with store.database.snapshot():
            return _job_damage_now(store, job_id)
    except JobNotFoundError:  # removed meanwhile
        return []


def _job_damage_now(store: JobStore, job_id: str) -> list[str]:
    found = []
    try:
        record = store.get(job_id)
        store.request(job_id)
        events = store.events(job_id)
        if [event.number for event in events] != list(range(len(events))) or not events:
            found.append("a state in its history is missing")
        elif events[-1].status != record.status.value:
            found.append(f"it is {record.status.value}, but its history ends with {events[-1].status}")
        if record.status is JobStatus.DONE:
            store.result(job_id)
        elif not record.status.final:
            store.parts(job_id)
    except JobNotFoundError:
        raise
    except GlauberError as error:
        found.append(str(error))
    return found


@dataclass(frozen=True, slots=True)
class Garbage:
    """What `collect_garbage` removed, or would remove.

    Attributes:
        jobs: ids.
        objects: that no job needs any more.
        bytes: that these objects held.
    """

    jobs: tuple[str, ...]
    objects: int
    bytes: int


def collect_garbage(
    store: JobStore,
    *,
    older_than_seconds: float,
    status: Collection[JobStatus] = (JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED),
    dry_run: bool = False,
) -> Garbage:
    """Remove jobs that ended some time ago, and what no job needs any more; then give the space back to the disk.

    Args:
        store: to clean.
        older_than_seconds: since their end.
        status: only jobs that ended so.
        dry_run: only say what would be removed.
    """
    if not older_than_seconds >= 0 or not all(each.final for each in status):
        raise InvalidModelError("only jobs that have ended are removed, and older_than_seconds must be 0 or more")
    database, found = store.database, Garbage((), 0, 0)
    try:
        with database.write() as connection:
            before = store.now(connection) - older_than_seconds
            rows = connection.execute(
                "SELECT id, number FROM job JOIN state ON job = number WHERE ended IS NOT NULL AND ended <= ?"
                f" AND status IN ({', '.join('?' * len(status))}) ORDER BY number",
                (before, *(each.value for each in status)),
            ).fetchall()
            connection.executemany("DELETE FROM job WHERE number = ?", [(number,) for _, number in rows])
            unused = connection.execute(
                "SELECT count(DISTINCT digest), coalesce(sum(length(data)), 0) FROM object WHERE digest NOT IN"
                f" ({_USED})"
            ).fetchone()
            connection.execute(f"DELETE FROM object WHERE digest NOT IN ({_USED})")
            found = Garbage(tuple(job_id for job_id, _ in rows), unused[0], unused[1])
            if dry_run:
                raise _DryRun
    except _DryRun:
        return found
    database.compact()
    return found


class _DryRun(Exception):  # noqa: N818  # rolls the transaction back
    pass


_USED = (
    "SELECT result FROM state WHERE result IS NOT NULL UNION SELECT digest FROM part"
    " UNION SELECT json_extract(facts, '$.model_digest') FROM job"
    " UNION SELECT json_extract(facts, '$.spec_digest') FROM job"
    " UNION SELECT json_extract(facts, '$.arrays_digest') AS arrays FROM job WHERE arrays IS NOT NULL"
)
