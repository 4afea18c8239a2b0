"""The job store: what `Device` writes while it runs jobs, and what anybody may read."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Literal, Self

import platformdirs

from glauber.checkpoint import batch_to_bytes
from glauber.driver import Batch
from glauber.errors import (
    InvalidModelError,
    JobNotFoundError,
    StoreError,
)
from glauber.job import JobStatus
from glauber.request import JobRequest
from glauber.samples import SampleSet
from glauber.store.database import checksum_of
from glauber.store.reading import JobReader
from glauber.store.requests import split_request
from glauber.store.runners import Runner, is_alive

OPEN = ("queued", "running")
Final = Literal[JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED]


def default_path() -> Path:
    """Where jobs are stored if nothing else is said: GLAUBER_STORE, or the user's data folder."""
    told = os.environ.get("GLAUBER_STORE")
    return Path(told) if told else platformdirs.user_data_path("glauber", appauthor=False) / "jobs.sqlite"


def open_store(store: JobStore | str | Path | Literal[True]) -> JobStore:
    """The store that is meant: one that is open, a file, or True for the default."""
    if isinstance(store, JobStore):
        return store
    return JobStore(None if store is True else store)


@dataclass(frozen=True, slots=True)
class NewJob:
    """What is known of a job when it is submitted.

    Attributes:
        id: of the job.
        request: with the seed that it uses.
        asked: the request as it came, perhaps without a seed.
        owner: whose it is.
        device: address, without a seed.
        spec_hash: of the device.
        spec: gives its description as JSON, kept once.
        topology: digest of its graph, or None.
        calibration: id of the one that corrects it, or None.
        program_key: of the integer program.
        versions: of the software.
    """

    id: str
    request: JobRequest
    asked: JobRequest
    owner: str
    device: str
    spec_hash: str
    spec: Callable[[], str]
    topology: str | None
    calibration: str | None
    program_key: str
    versions: dict[str, str]


class JobStore(JobReader):
    """Jobs on disk. Methods may be called from any thread; several processes may read and write one store.

    Every state that a job was ever in stays (events are append-only); a job has one final state, and the database
    itself refuses a second one. Order comes from numbers, never from the clock: times are for people, and never go
    back.

    Args:
        path: the SQLite file; None takes `default_path()`. It must lie on a local disk.
        clock: seconds since 1970, for tests.

    Raises:
        StoreError: it cannot be opened, or was written by a newer glauber.
    """

    def __init__(self, path: str | Path | None = None, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(default_path() if path is None else Path(path))
        self._clock = clock
        self._runner: Runner | None = None
        self._runner_lock = threading.Lock()
        self._known: dict[str, str] = {}  # digests by what they are of, stored from here

    # What a device writes

    @property
    def runner(self) -> str:
        """The name under which this store runs jobs; a lock is held from the first time it is asked for."""
        with self._runner_lock:
            if self._runner is None:
                self._runner = Runner(self._runners)
            return self._runner.id

    @property
    def _runners(self) -> Path:
        return self.path.with_name(self.path.name + ".runners")

    def now(self, connection: Connection) -> float:
        """The time, in a transaction: never before what any process has written here."""
        (latest,) = connection.execute("SELECT latest FROM clock").fetchone()
        at = max(self._clock(), float(latest))
        connection.execute("UPDATE clock SET latest = ?", (at,))
        return at

    def tell(self, connection: Connection, job: int, status: str, **facts: Any) -> float:
        """Append a state to a job's history, in a transaction; the time it carries."""
        at, text = self.now(connection), json.dumps(facts)
        (number,) = connection.execute(
            "SELECT coalesce(max(number), -1) + 1 FROM event WHERE job = ?", (job,)
        ).fetchone()
        connection.execute(
            "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?)",
            (job, number, at, status, text, checksum_of(job, number, at, status, text)),
        )
        return at

    def add(self, new: NewJob) -> str:
        """Make a job durable, QUEUED for this process to run; its id.

        A request with the idempotency key of an earlier one of the same owner is that one: its id is returned.

        Raises:
            InvalidModelError: the key was used for another request.
            StoreError: it could not be written; then nothing was.
        """
        runner = self.runner
        request, key = new.request, new.request.key
        header, model, arrays = split_request(request)
        learnt: dict[str, str] = {}
        with self.database.write() as connection:
            if request.idempotency_key is not None:
                known = connection.execute(
                    "SELECT id, device, facts FROM job WHERE owner = ? AND idempotency_key = ?",
                    (new.owner, request.idempotency_key),
                ).fetchone()
                if known is not None:
                    return self.same(known, new.device, new.asked)
            facts = {
                "header": header,
                "asked_key": new.asked.key,
                "model_digest": self._put_once(connection, f"model {request.model.key}", model, learnt),
                "arrays_digest": None if arrays is None else self.database.put(connection, arrays),
                "spec_digest": self._put_once(connection, f"spec {new.spec_hash}", lambda: new.spec().encode(), learnt),
                "topology": new.topology,
                "calibration": new.calibration,
                "program_key": new.program_key,
                "n_sites": request.model.n_sites,
                "n_chains": request.schedule.n_chains,
                "n_samples": request.schedule.n_samples,
                "sweeps_total": request.schedule.n_sweeps,
                "versions": new.versions,
                "created": self.now(connection),
            }
            text = json.dumps(facts)
            values = (new.id, new.owner, request.idempotency_key, new.device, key, new.spec_hash, text)
            job = connection.execute(
                "INSERT INTO job (id, owner, idempotency_key, device, request_key, spec_hash, facts, checksum)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, checksum_of(*values)),
            ).lastrowid
            assert job is not None
            connection.execute("INSERT INTO state (job, status, runner) VALUES (?, 'queued', ?)", (job, runner))
            self.tell(connection, job, "queued")
        if len(self._known) >= 256:
            self._known.clear()
        self._known |= learnt  # only now that it is written
        return new.id

    def _put_once(self, connection: Connection, key: str, make: Callable[[], bytes], learnt: dict[str, str]) -> str:
        """The digest of what `make` gives, which is asked only if this store does not have it."""
        digest = self._known.get(key)
        if digest is None or not self.database.has(connection, digest):
            digest = learnt[key] = self.database.put(connection, make())
        return digest

    def same(self, known: tuple[str, str, str], device: str, request: JobRequest) -> str:
        """The id of the job of a row (id, device, facts), if it is what is asked for again.

        Raises:
            InvalidModelError: its key was used for another request.
        """
        if (known[1], json.loads(known[2])["asked_key"]) != (device, request.key):
            raise InvalidModelError(
                f"the idempotency key {request.idempotency_key!r} was used for another request, job {known[0]};"
                " take a new key for a new request"
            )
        return known[0]

    def asked_before(self, owner: str, device: str, request: JobRequest) -> str | None:
        """The job that this request already is, by its owner and idempotency key; raises as `same` does."""
        if request.idempotency_key is None:
            return None
        rows = self.database.read(
            "SELECT id, device, facts FROM job WHERE owner = ? AND idempotency_key = ?",
            (owner, request.idempotency_key),
        )
        return self.same(rows[0], device, request) if rows else None

    def adopt(self, device: str) -> list[str]:
        """Take over the jobs of a device that have not ended and that no living process runs; ids, the oldest first."""
        runner = self.runner
        rows = self.database.read(
            "SELECT DISTINCT runner FROM state JOIN job ON job = number WHERE device = ? AND status IN ('queued',"
            " 'running')",
            (device,),
        )
        gone = [name for (name,) in rows if name is None or (name != runner and not is_alive(self._runners, name))]
        taken = []
        if gone:
            with self.database.write() as connection:
                for job, job_id, status, was, sweeps, samples in connection.execute(
                    "SELECT number, id, status, runner, sweeps_done, samples_done FROM state JOIN job ON job = number"
                    " WHERE device = ? AND status IN ('queued', 'running') ORDER BY number",
                    (device,),
                ).fetchall():
                    if was not in gone:
                        continue
                    connection.execute("UPDATE state SET status = 'queued', runner = ? WHERE job = ?", (runner, job))
                    if status == "running":
                        why = "its process ended; it goes on where it was"
                        self.tell(connection, job, "queued", message=why, sweeps_done=sweeps, samples_done=samples)
                    taken.append(job_id)
        return taken

    def _own(self, connection: Connection, job_id: str) -> tuple[int, int]:
        """The job's number and whether it is to be cancelled; refused unless it is this process that runs it."""
        row = connection.execute(
            "SELECT number, runner, status, cancel FROM state JOIN job ON job = number WHERE id = ?", (job_id,)
        ).fetchone()
        if row is None:
            raise JobNotFoundError(f"job {job_id} was removed from {self.path}")
        if row[1] != self.runner or row[2] not in OPEN:
            raise StoreError(f"job {job_id} is {row[2]} and another process has it; what this one found is not stored")
        return row[0], row[3]

    def start(self, job_id: str) -> None:
        """The job begins to run."""
        with self.database.write() as connection:
            job, _ = self._own(connection, job_id)
            at = self.tell(connection, job, "running")
            connection.execute("UPDATE state SET status = 'running', started = ? WHERE job = ?", (at, job))

    def requeue(self, job_id: str, message: str, *, release: bool) -> None:
        """A job that ran waits again; with `release` for whoever opens the device next."""
        with self.database.write() as connection:
            job, _ = self._own(connection, job_id)
            (status,) = connection.execute("SELECT status FROM state WHERE job = ?", (job,)).fetchone()
            if status == "running":
                self.tell(connection, job, "queued", message=message)
            runner = None if release else self.runner
            connection.execute("UPDATE state SET status = 'queued', runner = ? WHERE job = ?", (runner, job))

    def add_part(self, job_id: str, batch: Batch, seconds: float) -> None:
        """A part of the result as it comes, and how long the job has run by then."""
        content = batch_to_bytes(batch)
        with self.database.write() as connection:
            job, _ = self._own(connection, job_id)
            digest = self.database.put(connection, content)
            (number,) = connection.execute("SELECT count(*) FROM part WHERE job = ?", (job,)).fetchone()
            connection.execute("INSERT INTO part VALUES (?, ?, ?)", (job, number, digest))
            connection.execute(
                "UPDATE state SET sweeps_done = ?, samples_done = samples_done + ?, seconds = ? WHERE job = ?",
                (batch.next_sweep - 1, batch.n_samples, seconds, job),
            )

    def drop_parts(self, job_id: str) -> None:
        """Forget what was drawn: the job will run from its start."""
        with self.database.write() as connection:
            job, _ = self._own(connection, job_id)
            _drop_parts(connection, job)
            connection.execute("UPDATE state SET sweeps_done = 0, samples_done = 0, seconds = 0 WHERE job = ?", (job,))

    def finish(
        self,
        job_id: str,
        status: Final,
        result: SampleSet | None = None,
        error: BaseException | None = None,
        *,
        spent: SampleSet | None = None,
    ) -> None:
        """The job has ended: its one final state, with its result.

        Args:
            job_id: of the job.
            status: final.
            result: if it has one.
            error: if it failed.
            spent: what it had drawn, where that is not kept but was paid for.
        """
        content = None if result is None else result.to_bytes(fast=True)
        facts: dict[str, Any] = {} if error is None else {"error": type(error).__name__, "message": str(error)}
        known = result or spent
        with self.database.write() as connection:
            job, _ = self._own(connection, job_id)
            changes: dict[str, Any] = {"status": status.value, "runner": None}
            if known is not None:
                report, about = known.energy_report, known.provenance
                changes |= {
                    "sweeps_done": int(about.n_sweeps),
                    "samples_done": known.n_samples,
                    "seconds": known.timing["total"] - known.timing["queue"],
                    "joules": report.joules,
                    "joules_uncertainty": report.standard_uncertainty,
                    "basis": None if report.joules is None else report.basis,
                }
                facts |= {"sweeps_done": int(about.n_sweeps), "samples_done": known.n_samples}
            if result is not None and content is not None:
                stopped_by = result.provenance.stopped_by
                changes |= {"result": self.database.put(connection, content), "stopped_by": stopped_by}
            changes["ended"] = self.tell(connection, job, status.value, **facts)
            names = ", ".join(f"{name} = ?" for name in changes)
            connection.execute(f"UPDATE state SET {names} WHERE job = ?", (*changes.values(), job))
            _drop_parts(connection, job)

    def cancels(self) -> list[str]:
        """Jobs of this process that somebody wants stopped."""
        if self._runner is None:
            return []
        rows = self.database.read(
            "SELECT id FROM state JOIN job ON job = number WHERE runner = ? AND cancel AND status IN ('queued',"
            " 'running')",
            (self.runner,),
        )
        return [job_id for (job_id,) in rows]

    def ask_to_cancel(self, job_id: str) -> bool:
        """Ask whoever runs a job to stop it, which takes him a moment; False where it has ended or was asked before.

        A job that nobody runs any more ends at once.
        """
        with self.database.write() as connection:
            row = connection.execute(
                "SELECT number, runner, status, cancel FROM state JOIN job ON job = number WHERE id = ?", (job_id,)
            ).fetchone()
            if row is None:
                raise JobNotFoundError(f"no job {job_id} in {self.path}")
            job, runner, status, asked = row
            if status not in OPEN or asked:
                return False
            connection.execute("UPDATE state SET cancel = 1 WHERE job = ?", (job,))
            if runner is None or not is_alive(self._runners, runner):
                at = self.tell(connection, job, "cancelled", message="cancelled while no process ran it")
                connection.execute(
                    "UPDATE state SET status = 'cancelled', runner = NULL, ended = ? WHERE job = ?", (at, job)
                )
                _drop_parts(connection, job)
        return True

    def release(self, job_ids: Collection[str]) -> None:
        """Let go of jobs of this process: whoever opens their device next takes them over."""
        if self._runner is None or not job_ids:
            return
        with self.database.write() as connection:
            connection.executemany(
                "UPDATE state SET runner = NULL WHERE runner = ? AND status IN ('queued', 'running')"
                " AND job = (SELECT number FROM job WHERE id = ?)",
                [(self._runner.id, job_id) for job_id in job_ids],
            )

    def close(self) -> None:
        """Let go of the store; may be called twice."""
        with self._runner_lock:
            if self._runner is not None:
                self._runner.close()
                self._runner = None
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _drop_parts(connection: Connection, job: int) -> None:
    """Remove a job's parts, and their contents where no other job has the same."""
    digests = connection.execute("SELECT digest FROM part WHERE job = ?", (job,)).fetchall()
    connection.execute("DELETE FROM part WHERE job = ?", (job,))
    for (digest,) in digests:
        if connection.execute("SELECT 1 FROM part WHERE digest = ? LIMIT 1", (digest,)).fetchone() is None:
            connection.execute("DELETE FROM object WHERE digest = ?", (digest,))
