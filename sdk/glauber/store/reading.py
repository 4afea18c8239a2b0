"""What anybody may ask of a store of jobs, in any process."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from glauber.checkpoint import batch_from_bytes
from glauber.driver import Batch, ServiceEvent
from glauber.errors import FileFormatError, JobNotFoundError, StoreCorruptError
from glauber.job import JobStatus
from glauber.request import JobRequest
from glauber.samples import SampleSet
from glauber.store.database import Database, checksum_of
from glauber.store.records import JobRecord, Usage
from glauber.store.requests import join_request

_log = logging.getLogger("glauber")


class JobReader:
    """The reading half of `JobStore`.

    Attributes:
        path: of the SQLite file.
        database: the open file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = Database(path)

    _COLUMNS = (
        "job.number, job.id, job.owner, job.idempotency_key, job.device, job.request_key, job.spec_hash, job.facts,"
        " job.checksum, state.status, state.sweeps_done, state.samples_done, state.started, state.ended, state.seconds,"
        " state.joules, state.joules_uncertainty, state.basis, state.stopped_by,"
        " (SELECT facts FROM event WHERE event.job = job.number ORDER BY event.number DESC LIMIT 1)"
    )

    def _record(self, row: Sequence[Any]) -> JobRecord:
        number, job_id, owner, key, device, request_key, spec_hash, text, checksum = row[:9]
        facts = self._facts(job_id, text, checksum, (job_id, owner, key, device, request_key, spec_hash, text))
        try:
            about = json.loads(row[19])
            return JobRecord(
                number=number,
                id=job_id,
                status=JobStatus(row[9]),
                device=device,
                spec_hash=spec_hash,
                owner=owner,
                idempotency_key=key,
                request_key=request_key,
                sweeps_done=row[10],
                samples_done=row[11],
                started=row[12],
                ended=row[13],
                seconds=row[14],
                joules=row[15],
                joules_uncertainty=row[16],
                basis=row[17],
                stopped_by=row[18],
                error=about.get("error"),
                message=about.get("message", ""),
                observe=tuple(facts["header"]["observe"]),
                priority=facts["header"]["priority"],
                seed=facts["header"]["seed"],
                schedule=facts["header"]["schedule"],
                **{
                    name: facts[name]
                    for name in (
                        "topology", "calibration", "program_key", "model_digest", "n_sites", "n_chains", "n_samples",
                        "sweeps_total", "versions", "created",
                    )
                },
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise StoreCorruptError(f"the record of job {job_id} in {self.path} is damaged: {error!r}") from error

    def _facts(self, job_id: str, text: str, checksum: str, values: tuple[Any, ...]) -> dict[str, Any]:
        if checksum_of(*values) != checksum:
            raise StoreCorruptError(
                f"the record of job {job_id} in {self.path} is not what was written; glauber jobs check lists all"
                " that is damaged"
            )
        found: dict[str, Any] = json.loads(text)
        return found

    def get(self, job_id: str) -> JobRecord:
        """A job's record; JobNotFoundError if there is none."""
        rows = self.database.read(
            f"SELECT {self._COLUMNS} FROM job JOIN state ON job = job.number WHERE id = ?", (job_id,)
        )
        if not rows:
            raise JobNotFoundError(f"no job {job_id} in {self.path}; glauber jobs list shows those that are there")
        return self._record(rows[0])

    def jobs(
        self,
        *,
        device: str | None = None,
        owner: str | None = None,
        status: JobStatus | Collection[JobStatus] | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> list[JobRecord]:
        """Records of jobs, the newest first.

        Args:
            device: only those of this address.
            owner: only his.
            status: only those that are there now.
            before: only those with a smaller number, to go on from the last one of an earlier answer.
            limit: at most so many.
        """
        wanted, arguments = ["1"], list[Any]()
        for column, value in (("job.device", device), ("job.owner", owner)):
            if value is not None:
                wanted.append(f"{column} = ?")
                arguments.append(value)
        if before is not None:
            wanted.append("job.number < ?")
            arguments.append(before)
        if status is not None:
            chosen = [status] if isinstance(status, JobStatus) else list(status)
            wanted.append(f"state.status IN ({', '.join('?' * len(chosen))})")
            arguments += [each.value for each in chosen]
        rows = self.database.read(
            f"SELECT {self._COLUMNS} FROM job JOIN state ON job = job.number WHERE {' AND '.join(wanted)}"
            " ORDER BY job.number DESC LIMIT ?",
            (*arguments, limit),
        )
        found = []
        for row in rows:
            try:
                found.append(self._record(row))
            except StoreCorruptError as error:  # one damaged row must not hide the others; `get` of it raises
                _log.warning("left out of a list of jobs: %s", error)
        return found

    def request(self, job_id: str) -> JobRequest:
        """What was asked, with the seed that was used."""
        rows = self.database.read(
            "SELECT owner, idempotency_key, device, request_key, spec_hash, facts, checksum FROM job WHERE id = ?",
            (job_id,),
        )
        if not rows:
            raise JobNotFoundError(f"no job {job_id} in {self.path}")
        *columns, text, checksum = rows[0]
        facts = self._facts(job_id, text, checksum, (job_id, *columns, text))
        model = self.database.object(facts["model_digest"], f"the model of job {job_id}")
        arrays = None
        if facts["arrays_digest"] is not None:
            arrays = self.database.object(facts["arrays_digest"], f"the arrays of job {job_id}")
        try:
            return join_request(facts["header"], model, arrays, f"job {job_id} in {self.path}")
        except FileFormatError as error:
            raise StoreCorruptError(str(error)) from error

    def spec_json(self, job_id: str) -> str:
        """The device's description as it was when the job was submitted."""
        rows = self.database.read("SELECT facts FROM job WHERE id = ?", (job_id,))
        if not rows:
            raise JobNotFoundError(f"no job {job_id} in {self.path}")
        return self.database.object(json.loads(rows[0][0])["spec_digest"], f"the device of job {job_id}").decode()

    def result_bytes(self, job_id: str) -> bytes:
        """The result as the bytes of `SampleSet.to_bytes`.

        Raises:
            JobNotFoundError: no such job, or it has no result.
        """
        rows = self.database.read(
            "SELECT result, status FROM state JOIN job ON job = job.number WHERE id = ?", (job_id,)
        )
        if not rows:
            raise JobNotFoundError(f"no job {job_id} in {self.path}")
        if rows[0][0] is None:
            raise JobNotFoundError(f"job {job_id} is {rows[0][1]} and has no result")
        return self.database.object(rows[0][0], f"the result of job {job_id}")

    def result(self, job_id: str) -> SampleSet:
        """The result; raises as `result_bytes` does."""
        return SampleSet.from_bytes(self.result_bytes(job_id), name=f"the result of job {job_id}")

    def events(self, job_id: str, after: int = -1) -> list[ServiceEvent]:
        """The states that a job has been in, with numbers above `after`, from 0 on."""
        rows = self.database.read(
            "SELECT event.number, status, event.facts, event.checksum, at, job FROM event JOIN job ON job.number = job"
            " WHERE id = ? AND event.number > ? ORDER BY event.number",
            (job_id, after),
        )
        found = []
        for number, status, text, checksum, at, job in rows:
            if checksum_of(job, number, at, status, text) != checksum:
                raise StoreCorruptError(f"event {number} of job {job_id} in {self.path} is not what was written")
            facts = json.loads(text)
            found.append(
                ServiceEvent(
                    number, status, facts.get("sweeps_done", 0), facts.get("samples_done", 0), facts.get("message", "")
                )
            )
        return found

    def parts(self, job_id: str) -> tuple[list[Batch], float]:
        """What a job has drawn as far as it is stored, and how many seconds that took.

        Raises:
            StoreCorruptError: a part is missing, or not what was written.
        """
        name = f"a part of job {job_id}"
        with self.database.snapshot():  # a job that ends meanwhile drops its parts
            rows = self.database.read(
                "SELECT digest, seconds FROM part JOIN job ON part.job = job.number JOIN state ON state.job ="
                " job.number WHERE id = ? ORDER BY part.number",
                (job_id,),
            )
            contents = [self.database.object(digest, name) for digest, _ in rows]
        try:
            return [batch_from_bytes(content, name) for content in contents], (rows[0][1] if rows else 0.0)
        except FileFormatError as error:
            raise StoreCorruptError(str(error)) from error

    def find_result(
        self, request_key: str, device: str, spec_hash: str, owner: str, calibration: str | None
    ) -> str | None:
        """The newest job of an owner of the same program, device, calibration and seed that ran to its end, if any."""
        rows = self.database.read(
            "SELECT id FROM job JOIN state ON job = job.number WHERE request_key = ? AND device = ? AND spec_hash = ?"
            " AND owner = ? AND status = 'done' AND stopped_by IS NULL AND result IS NOT NULL"
            " AND json_extract(facts, '$.calibration') IS ? ORDER BY number DESC LIMIT 1",
            (request_key, device, spec_hash, owner, calibration),
        )
        return rows[0][0] if rows else None

    def usage(self, *, since: float | None = None, owner: str | None = None, device: str | None = None) -> list[Usage]:
        """What ended jobs took, by owner, device and day.

        Args:
            since: only jobs that ended at this Unix time or later.
            owner: only his.
            device: only this address.
        """
        rows = self.database.read(
            "SELECT owner, device, date(ended, 'unixepoch'), count(*), sum(seconds), sum(joules),"
            " sum(joules_uncertainty * joules_uncertainty), sum(CASE basis WHEN 'measured' THEN joules END),"
            " sum(joules IS NULL) FROM job JOIN state ON job = job.number WHERE ended IS NOT NULL AND ended >= ?"
            " AND (? IS NULL OR owner = ?) AND (? IS NULL OR device = ?) GROUP BY 1, 2, 3 ORDER BY 3, 1, 2",
            (since or 0.0, owner, owner, device, device),
        )
        return [
            Usage(
                owner=row[0],
                device=row[1],
                day=row[2],
                jobs=row[3],
                seconds=row[4],
                joules=row[5],
                joules_uncertainty=None if row[5] is None else (row[6] or 0.0) ** 0.5,
                measured=(row[7] or 0.0) / row[5] if row[5] else 0.0,
                without_joules=row[8],
            )
            for row in rows
        ]
