"""What the routes answer, as models: the OpenAPI description is made of them."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from glauber.driver import Estimate
from glauber.server.config import OWNER_PATTERN
from glauber.server.lab import Lab, LabDevice
from glauber.server.reservations import Reservation
from glauber.server.tokens import Token
from glauber.spec import summary_rows
from glauber.store import JobRecord, Usage


class JobAnswer(BaseModel):
    """A job. Who may not see its data gets no key, seed, message or error."""

    id: str
    number: int
    """Grows with each job; `before` of GET /jobs."""
    device: str
    owner: str
    status: Literal["queued", "running", "done", "failed", "cancelled"]
    priority: int
    n_sites: int
    n_chains: int
    n_samples: int
    sweeps_total: int
    sweeps_done: int
    samples_done: int
    created: float
    """Unix seconds, as all times of jobs."""
    started: float | None
    ended: float | None
    seconds: float | None
    joules: float | None
    seed: int | None = None
    idempotency_key: str | None = None
    message: str = ""
    error: str | None = None

    @classmethod
    def of(cls, lab: Lab, record: JobRecord, token: Token) -> JobAnswer:
        """A record as a token may see it."""
        known = record.as_dict()
        known["device"] = lab.name_of(record.device)
        job = lab.live_job(record)
        if job is not None:  # newer than what was stored last
            progress = job.progress
            known |= {"sweeps_done": progress.sweeps_done, "samples_done": progress.samples_done}
        if record.owner != token.owner and not token.allows("admin"):
            known |= {"seed": None, "idempotency_key": None, "message": "", "error": None}
        return cls(**{name: known[name] for name in cls.model_fields})


class JobList(BaseModel):
    """Newest first."""

    jobs: list[JobAnswer]


class Submitted(BaseModel):
    """A job that was accepted and is on the disk."""

    id: str
    status: str
    job: str
    """Path of the job."""


class CancelAnswer(BaseModel):
    """Whether there was something to cancel."""

    asked: bool


class ReservationAnswer(BaseModel):
    """A device for one owner; other owners' jobs wait, and a running one of theirs goes on afterwards."""

    id: int
    device: str
    owner: str
    starts: datetime
    ends: datetime
    made_by: str

    @classmethod
    def of(cls, one: Reservation) -> ReservationAnswer:
        """As JSON."""
        starts, ends = (datetime.fromtimestamp(at, UTC) for at in (one.starts, one.ends))
        return cls(id=one.id, device=one.device, owner=one.owner, starts=starts, ends=ends, made_by=one.made_by)


class ReservationList(BaseModel):
    """In order of time."""

    reservations: list[ReservationAnswer]


class NewReservation(BaseModel):
    """What is asked for; times with their offset from UTC."""

    model_config = ConfigDict(extra="forbid")

    owner: str = Field(pattern=OWNER_PATTERN)
    starts: AwareDatetime
    ends: AwareDatetime


class QueuedJob(BaseModel):
    """A job that runs or waits."""

    id: str
    owner: str
    status: str
    priority: int
    fraction: float
    seconds_left: float | None


class DeviceSummary(BaseModel):
    """A device in a list."""

    name: str
    title: str
    kind: str
    spec_hash: str
    n_sites: int | None
    health: str
    """"ok", or what is wrong."""
    running: str | None
    queued: int
    reserved_for: str | None

    @classmethod
    def of(cls, lab: Lab, found: LabDevice) -> DeviceSummary:
        """How a device stands now."""
        reserved, running, spec = lab.reservation_now(found.name), found.device.running, found.device.spec
        return cls(
            name=found.name,
            title=found.config.title or spec.title,
            kind=spec.kind,
            spec_hash=spec.spec_hash,
            n_sites=spec.n_sites,
            health=found.device.trouble or "ok",
            running=None if running is None else running.id,
            queued=len(found.device.queued),
            reserved_for=None if reserved is None else reserved.owner,
        )


class DeviceList(BaseModel):
    """In the configuration's order."""

    devices: list[DeviceSummary]


class DeviceAnswer(DeviceSummary):
    """A device with everything about it."""

    address: str
    """On the server."""
    calibration: str | None
    """Id of the record that corrects its jobs."""
    meter: str | None
    limits: dict[str, int | None]
    spec: dict[str, Any]
    about: list[tuple[str, str]]
    """The description for people: labels and texts."""
    queue: list[QueuedJob]

    @classmethod
    def of(cls, lab: Lab, found: LabDevice) -> DeviceAnswer:
        """How a device stands now."""
        config, device = found.config, found.device
        queue = [
            QueuedJob(
                id=job.id,
                owner=job.owner,
                status=job.status.value,
                priority=job.request.priority,
                fraction=job.progress.fraction,
                seconds_left=device.outlooks.left(job),
            )
            for job in found.jobs
        ]
        limits = ("max_sites", "max_chains", "max_sweeps", "max_queue_per_owner")
        return cls(
            **DeviceSummary.of(lab, found).model_dump(),
            address=config.full_address,
            calibration=None if device.calibration is None else device.calibration.id,
            meter=config.meter,
            limits={name: getattr(config, name) for name in limits},
            spec=device.spec.model_dump(mode="json"),
            about=summary_rows(device.spec),
            queue=queue,
        )


class EstimateAnswer(BaseModel):
    """What a job would take, and when it would run."""

    seconds: dict[str, Any] | None
    """By the device's figures, as a quantity with uncertainty and provenance."""
    energy: dict[str, Any]
    sweeps: int
    updates: int
    host_bytes: int
    run_seconds: float | None
    """By what recent jobs took, else by the figures."""
    starts_in_seconds: float | None
    jobs_ahead: int

    @classmethod
    def of(cls, estimate: Estimate) -> EstimateAnswer:
        """As JSON."""
        figure = None if estimate.seconds is None else estimate.seconds.model_dump(mode="json")
        plain = ("sweeps", "updates", "host_bytes", "run_seconds", "starts_in_seconds", "jobs_ahead")
        known = {name: getattr(estimate, name) for name in plain}
        return cls(seconds=figure, energy=asdict(estimate.energy), **known)


class UsageLine(BaseModel):
    """What an owner's jobs took on a device on one day (UTC)."""

    owner: str
    device: str
    day: str
    jobs: int
    seconds: float
    joules: float | None
    joules_uncertainty: float | None
    without_joules: int
    """Jobs whose joules are unknown."""

    @classmethod
    def of(cls, lab: Lab, usage: Usage) -> UsageLine:
        """As JSON."""
        known = {name: getattr(usage, name) for name in cls.model_fields}
        return cls(**{**known, "device": lab.name_of(usage.device)})


class UsageAnswer(BaseModel):
    """By owner, device and day."""

    usage: list[UsageLine]


class Health(BaseModel):
    """Whether the server takes jobs."""

    status: Literal["ok", "stopping", "failing"]
    devices: dict[str, str]
