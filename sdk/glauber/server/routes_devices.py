"""Devices: what there is, how it stands, jobs for it, and who has reserved it."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Request

from glauber.errors import InvalidModelError
from glauber.request import JobRequest
from glauber.server.answers import (
    DeviceAnswer,
    DeviceList,
    DeviceSummary,
    EstimateAnswer,
    NewReservation,
    ReservationAnswer,
    ReservationList,
    Submitted,
)
from glauber.server.bodies import NPZ, TheLab, ThePools, read_json, read_request
from glauber.server.config import DEVICE_PATTERN
from glauber.server.gate import Admin, Reader, Submitter, needs
from glauber.server.lab import Lab, LabDevice
from glauber.server.problems import Problem, documented
from glauber.server.reservations import reservation, reservations, reserve, unreserve
from glauber.server.tokens import Token

router = APIRouter()

Name = Annotated[str, Path(pattern=DEVICE_PATTERN, description="Name of the device in this lab.")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[!-~]{1,128}$",
        description="A second request of the same owner with the same key is the first one.",
    ),
]
_NPZ_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "What JobRequest.to_bytes() makes: npz without pickle.",
        "content": {NPZ: {"schema": {"type": "string", "format": "binary"}}},
    }
}


def _json_body(model: str) -> dict[str, Any]:
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{model}"}}},
        }
    }


@router.get("/devices", responses=documented(), openapi_extra=needs("read"))
async def devices(token: Reader, lab: TheLab, pools: ThePools) -> DeviceList:
    """Every device of the lab, and how it stands."""
    return await pools.light(
        lambda: DeviceList(devices=[DeviceSummary.of(lab, found) for found in lab.devices.values()])
    )


@router.get("/devices/{name}", responses=documented(404), openapi_extra=needs("read"))
async def device(name: Name, token: Reader, lab: TheLab, pools: ThePools) -> DeviceAnswer:
    """One device: its description, limits, queue and reservation."""
    found = lab.device(name)
    return await pools.light(partial(DeviceAnswer.of, lab, found))


@router.post(
    "/devices/{name}/jobs",
    status_code=202,
    responses=documented(404, 408, 409, 413, 415),
    openapi_extra={**needs("submit"), **_NPZ_BODY},
)
async def submit(
    name: Name, request: Request, token: Submitter, lab: TheLab, pools: ThePools, idempotency_key: Key = None
) -> Submitted:
    """Queue a job; it is on the disk when this answers. Its owner is the token's."""
    found = lab.device(name)
    job = await read_request(request, lab, pools, token)
    job_id = await pools.heavy(partial(_submit, lab, found, job, token))
    record = await pools.light(partial(lab.store.get, job_id))
    return Submitted(id=job_id, status=record.status.value, job=f"/jobs/{job_id}")


def _submit(lab: Lab, found: LabDevice, job: JobRequest, token: Token) -> str:
    try:
        return lab.submit(found, job, token.who)
    except InvalidModelError as error:
        if "idempotency key" in str(error):
            raise Problem(409, "InvalidModelError", str(error)) from None
        raise


@router.post(
    "/devices/{name}/estimate",
    responses=documented(404, 408, 413, 415),
    openapi_extra={**needs("read"), **_NPZ_BODY},
)
async def estimate(name: Name, request: Request, token: Reader, lab: TheLab, pools: ThePools) -> EstimateAnswer:
    """What a job would take and when it would run; refuses what a submission would refuse."""
    found = lab.device(name)
    job = await read_request(request, lab, pools, token)
    return await pools.heavy(partial(_estimate, lab, found, job))


def _estimate(lab: Lab, found: LabDevice, job: JobRequest) -> EstimateAnswer:
    lab.check_size(found, job)
    return EstimateAnswer.of(found.device.estimate_request(job))


@router.get("/devices/{name}/reservations", responses=documented(404), openapi_extra=needs("read"))
async def list_reservations(name: Name, token: Reader, lab: TheLab, pools: ThePools) -> ReservationList:
    """Reservations that are not over."""
    found = lab.device(name)
    listed = await pools.light(partial(reservations, lab.file, found.name))
    return ReservationList(reservations=[ReservationAnswer.of(one) for one in listed])


@router.post(
    "/devices/{name}/reservations",
    status_code=201,
    responses=documented(404, 408, 413, 415),
    openapi_extra={**needs("admin"), **_json_body("NewReservation")},
)
async def make_reservation(
    name: Name, request: Request, token: Admin, lab: TheLab, pools: ThePools
) -> ReservationAnswer:
    """Give a device to one owner for some time; the others' jobs wait until it is over."""
    found = lab.device(name)
    asked = await read_json(request, NewReservation)
    starts, ends = asked.starts.timestamp(), asked.ends.timestamp()

    def make() -> ReservationAnswer:
        made = reserve(lab.file, found.name, asked.owner, starts, ends, who=token.who)
        lab.look_at_reservations()
        return ReservationAnswer.of(made)

    return await pools.light(make)


@router.delete("/reservations/{number}", status_code=204, responses=documented(404), openapi_extra=needs("submit"))
async def delete_reservation(
    number: Annotated[int, Path(ge=1, le=2**63 - 1)], token: Submitter, lab: TheLab, pools: ThePools
) -> None:
    """Give a device back: an admin, or whoever it is reserved for."""

    def delete() -> None:
        found = reservation(lab.file, number)
        if found is None:
            raise Problem(404, "ReservationNotFoundError", f"there is no reservation {number}")
        if found.owner != token.owner and not token.allows("admin"):
            raise Problem(403, "AccessError", f"reservation {number} is {found.owner}'s; he or an admin deletes it")
        unreserve(lab.file, number, who=token.who)
        lab.look_at_reservations()

    await pools.light(delete)
