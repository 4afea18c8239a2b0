"""Where a result came from, and how it can be had again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from glauber.compile import QuantisationReport


class Keyed(Protocol):
    """What has a digest."""

    @property
    def key(self) -> str:
        """The digest."""
        ...


class _Key:
    """A digest, or what it is of until someone asks: hashing the fields of a job can take longer than the job."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, instance: object, owner: type) -> str:
        if instance is None:
            raise AttributeError(self._name)  # so that the dataclass sees no default
        held: str | Keyed = vars(instance)[self._name]
        if not isinstance(held, str):
            held = vars(instance)[self._name] = held.key
        return held

    def __set__(self, instance: object, value: str | Keyed) -> None:
        vars(instance)[self._name] = value


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How a result can be had again.

    Attributes:
        address: of the device.
        device: its name in the catalogue.
        spec_hash: digest of its description.
        job_id: of the job.
        seed: that was used; with the same program, schedule and contract it gives the same samples.
        request_key: digest of the request.
        program_key: digest of the integer program.
        contract_version: of docs/machine.md, for devices that follow it; 0 for others.
        beta: of the schedule, None where it is not the same for all sweeps and chains.
        sweeps_per_sample: of the schedule.
        n_sweeps: sweeps that were run, warm-up included.
        quantisation: the integer step and what it cost.
        stopped_by: why the job ended before its schedule: "cancel", "seconds", "joules", "sweeps", or "ess" (it has as
            many effective samples as were asked for); None if it did not.
        kernel: what computed: kernel, instruction set, body, as the driver reports them.
        versions: of the software.
        created: ISO 8601, UTC.
        embedding: chain breaks and strength, where the model was embedded.
    """

    address: str
    device: str
    spec_hash: str
    job_id: str
    seed: int
    request_key: _Key = _Key()
    program_key: str
    contract_version: int
    beta: float | None
    sweeps_per_sample: int
    n_sweeps: int
    quantisation: QuantisationReport
    stopped_by: Literal["cancel", "seconds", "joules", "sweeps", "ess"] | None
    kernel: Mapping[str, str]
    versions: Mapping[str, str]
    created: str
    embedding: Mapping[str, float] | None = None
