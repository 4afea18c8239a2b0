"""A stored job as one file, and back: to keep it, or to send it to a colleague."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from glauber.errors import FileFormatError, InvalidModelError
from glauber.formats import pack_archive, unpack_archive, write_bytes
from glauber.job import JobStatus
from glauber.request import JobRequest
from glauber.samples import SampleSet
from glauber.store.database import checksum_of
from glauber.store.jobs import JobStore
from glauber.store.requests import split_request

JOB_FORMAT = "glauber.job"
JOB_VERSION = 1


def export_job(store: JobStore, job_id: str, path: str | Path) -> None:
    """Write a job that has ended to one npz file: what was asked, what it ran on, what came of it.

    Raises:
        JobNotFoundError: no such job.
        InvalidModelError: it has not ended.
    """
    record = store.get(job_id)
    if not record.status.final:
        raise InvalidModelError(f"job {job_id} is {record.status.value}; export it when it has ended, or cancel it")
    arrays = {"request": _bytes(store.request(job_id).to_bytes()), "spec": _bytes(store.spec_json(job_id).encode())}
    if record.status is JobStatus.DONE or record.stopped_by is not None:
        arrays["result"] = _bytes(store.result_bytes(job_id))
    header = {"record": record.as_dict(), "events": [asdict(event) for event in store.events(job_id)]}
    write_bytes(path, pack_archive(JOB_FORMAT, JOB_VERSION, header, arrays))


def _bytes(content: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(content, dtype=np.uint8)


def import_job(store: JobStore, path: str | Path) -> str:
    """Add a job that `export_job` wrote, by another store perhaps; its id. One that is here already stays as it is.

    Raises:
        FileFormatError: not such a file, or its parts do not belong together.
    """
    header, arrays = unpack_archive(Path(path).read_bytes(), JOB_FORMAT, JOB_VERSION, path)
    try:
        record = header["record"]
        request = JobRequest.from_bytes(arrays["request"].tobytes(), name=f"the request in {path}")
        result = arrays["result"].tobytes() if "result" in arrays else None
        spec = arrays["spec"].tobytes()
        events = [
            (event["status"], event["sweeps_done"], event["samples_done"], event["message"])
            for event in header["events"]
        ]
        row = {name: record[name] for name in ("id", "owner", "device", "spec_hash", "status", "seconds", "joules",
               "joules_uncertainty", "basis", "stopped_by", "sweeps_done", "samples_done", "started", "ended",
               "created", "topology", "calibration", "program_key", "versions", "error")}  # fmt: skip
        found = None if result is None else SampleSet.from_bytes(result, name=f"the result in {path}")
        if request.key != record["request_key"] or (found and found.provenance.seed != request.seed):
            raise FileFormatError(f"{path}: request, result and record are not of the same job")
        if not JobStatus(row["status"]).final or events[-1][0] != row["status"]:
            raise FileFormatError(f"{path}: the job in it has not ended")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{path} does not hold a job: {error!r}") from error
    _insert(store, row, request, spec, result, events)
    return str(row["id"])


def _insert(
    store: JobStore, row: dict[str, Any], request: JobRequest, spec: bytes, result: bytes | None, events: list[Any]
) -> None:
    header, model, arrays = split_request(request)
    database = store.database
    with database.write() as connection:
        if connection.execute("SELECT 1 FROM job WHERE id = ?", (row["id"],)).fetchone() is not None:
            return
        facts = {
            "header": header | {"idempotency_key": None},  # it was of the store it comes from
            "asked_key": request.key,
            "model_digest": database.put(connection, model()),
            "arrays_digest": None if arrays is None else database.put(connection, arrays),
            "spec_digest": database.put(connection, spec),
            "n_sites": request.model.n_sites,
            "n_chains": request.schedule.n_chains,
            "n_samples": request.schedule.n_samples,
            "sweeps_total": request.schedule.n_sweeps,
            **{name: row[name] for name in ("topology", "calibration", "program_key", "versions", "created")},
        }
        text = json.dumps(facts)
        values = (row["id"], row["owner"], None, row["device"], request.key, row["spec_hash"], text)
        job = connection.execute(
            "INSERT INTO job (id, owner, idempotency_key, device, request_key, spec_hash, facts, checksum)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*values, checksum_of(*values)),
        ).lastrowid
        assert job is not None
        names = ("status", "seconds", "joules", "joules_uncertainty", "basis", "stopped_by", "sweeps_done",
                 "samples_done", "started", "ended")  # fmt: skip
        digest = None if result is None else database.put(connection, result)
        connection.execute(
            f"INSERT INTO state (job, result, {', '.join(names)}) VALUES (?, ?{', ?' * len(names)})",
            (job, digest, *(row[name] for name in names)),
        )
        for place, (status, sweeps, samples, message) in enumerate(events):
            about = {"sweeps_done": sweeps, "samples_done": samples, "message": message}
            if place == len(events) - 1 and row["error"] is not None:
                about["error"] = row["error"]
            store.tell(connection, job, status, **about)
