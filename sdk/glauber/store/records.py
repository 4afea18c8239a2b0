"""What the store says of a job, and what jobs have cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from glauber.job import JobStatus


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A stored job.

    Attributes:
        number: in the order of submission to this store.
        id: of the job.
        status: where it is.
        device: its address, without a seed.
        spec_hash: digest of the device's description.
        topology: digest of the device's graph as it was then; None where any graph fits.
        calibration: id of the calibration in force; None without one.
        owner: whose it is.
        priority: larger runs first.
        seed: that it uses.
        idempotency_key: of the request.
        request_key: digest of everything that decides the result.
        program_key: digest of the integer program.
        model_digest: of the stored model; jobs of the same model share it.
        schedule: its parameters.
        observe: what is kept.
        n_sites: of the model.
        n_chains: chains.
        n_samples: per chain.
        sweeps_total: of the schedule.
        sweeps_done: as far as is stored.
        samples_done: per chain, as far as is stored.
        versions: of the software that submitted it.
        created: Unix seconds; times in a store never go back, even where the computer's clock does.
        started: when it last began to run.
        ended: when it ended.
        seconds: that it has run.
        joules: of a job that is done; None where unknown.
        joules_uncertainty: standard uncertainty of the joules.
        basis: "measured" or "modelled" joules.
        stopped_by: why it ended before its schedule, if it did.
        error: name of the error of a job that failed.
        message: its text, or what is to say beside the status.
    """

    number: int
    id: str
    status: JobStatus
    device: str
    spec_hash: str
    topology: str | None
    calibration: str | None
    owner: str
    priority: int
    seed: int
    idempotency_key: str | None
    request_key: str
    program_key: str
    model_digest: str
    schedule: dict[str, Any]
    observe: tuple[str, ...]
    n_sites: int
    n_chains: int
    n_samples: int
    sweeps_total: int
    sweeps_done: int
    samples_done: int
    versions: dict[str, str]
    created: float
    started: float | None
    ended: float | None
    seconds: float
    joules: float | None
    joules_uncertainty: float | None
    basis: str | None
    stopped_by: str | None
    error: str | None
    message: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; times as ISO 8601 in UTC beside the seconds."""
        found = asdict(self) | {"status": self.status.value, "observe": list(self.observe)}
        for name in ("created", "started", "ended"):
            found[f"{name}_at"] = None if found[name] is None else iso(found[name])
        return found


@dataclass(frozen=True, slots=True)
class Usage:
    """What one owner's jobs on one device took on one day.

    Attributes:
        owner: whose.
        device: address, without a seed.
        day: on which they ended, UTC, as 2026-11-26.
        jobs: that ended.
        seconds: that they ran.
        joules: sum of what is known; None where nothing is.
        joules_uncertainty: root sum of squares of theirs.
        measured: share of the joules that was measured and not modelled, 0 to 1.
        without_joules: jobs whose joules are not known, so that the true sum is larger.
    """

    owner: str
    device: str
    day: str
    jobs: int
    seconds: float
    joules: float | None
    joules_uncertainty: float | None
    measured: float
    without_joules: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def iso(seconds: float) -> str:
    """Unix seconds as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
