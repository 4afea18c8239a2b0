"""What is known of a device's p-bits, and what follows from it for jobs: masks, health, calibration."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

import structlog

from glauber.calibration.record import CalibrationRecord
from glauber.driver import Driver, JobService
from glauber.errors import CalibrationError, InvalidModelError
from glauber.following import Following
from glauber.health import EntropyHealth
from glauber.job import Job
from glauber.model import IsingModel, Model
from glauber.request import Budget, JobRequest
from glauber.samples import SampleSet
from glauber.schedule import Schedule
from glauber.spec import AnySpec
from glauber.worker import Worker

if TYPE_CHECKING:
    from glauber.calibration.run import Protocol

_log = structlog.get_logger("glauber.device")


class Care:
    """The part of a Device that looks after its p-bits."""

    address: str
    _driver: Driver | JobService
    _jobs: Worker | Following

    @property
    def spec(self) -> AnySpec:
        """What the device is and can."""
        return self._driver.spec

    def _check_open(self) -> None:
        """Refuse work on a device that takes none any more."""
        raise NotImplementedError

    # Health

    @property
    def masked(self) -> dict[int, str]:
        """p-bits that jobs must not use, with the reason."""
        return dict(self._jobs.masked) if isinstance(self._jobs, Worker) else {}

    def mask(self, sites: Iterable[int], reason: str = "masked by hand") -> None:
        """Refuse models that use these p-bits from now on; embed=True places models around them.

        Raises:
            InvalidModelError: a site that the device does not have, or the device is a service.
        """
        if not isinstance(self._jobs, Worker):
            raise InvalidModelError(f"{self.address} is a service, which knows its own p-bits; none can be masked here")
        wanted = [int(site) for site in sites]
        n = self.spec.n_sites
        wrong = [site for site in wanted if site < 0 or (n is not None and site >= n)]
        if wrong:
            raise InvalidModelError(f"{self.spec.name} has no p-bit {wrong[0]}; there are 0 to {(n or 0) - 1}")
        self._jobs.mask(dict.fromkeys(wanted, reason))

    def watch_health(self, alarm: Callable[[EntropyHealth], None] | None = None, *, mask: bool = False) -> None:
        """Test the p-bits of every job from now on, where their law is known (`SampleSet.health`).

        Args:
            alarm: called in the device's thread with the health of a job in which a p-bit failed; it is logged anyhow.
            mask: failed p-bits are masked.

        Raises:
            InvalidModelError: the device is a service.
        """
        if not isinstance(self._jobs, Worker):
            raise InvalidModelError(f"{self.address} is a service; test its results by their health()")

        def inspect(result: SampleSet) -> None:
            if result.packed is None or result.provenance.beta is None or result.provenance.embedding is not None:
                return
            if not isinstance(result.model, IsingModel):
                return
            found = result.health()
            if not found.alarms:
                return
            _log.warning("entropy alarm", device=self.address, job=result.provenance.job_id, detail=str(found))
            if mask:
                self.mask(found.failed_sites, f"failed its health test in job {result.provenance.job_id}")
            if alarm is not None:
                alarm(found)

        self._jobs.inspect = inspect

    # Calibration

    @property
    def calibration(self) -> CalibrationRecord | None:
        """The record that corrects jobs, or None."""
        return self._jobs.calibration if isinstance(self._jobs, Worker) else None

    def use_calibration(self, record: CalibrationRecord | None) -> None:
        """Correct the weights and fields of all jobs submitted from now on; None takes jobs as they are again.

        What cannot be corrected is in each result's provenance: `result.provenance.kernel["correction"]`. Models that
        use p-bits which do not work are refused. Wrong readings stay in the samples: `glauber.calibration.distribution`
        takes them out of what is counted.

        Raises:
            CalibrationError: the record is of another device, or the device is a service, which has its own.
        """
        if record is not None:
            check_calibration(self._driver, record)
        if isinstance(self._jobs, Worker):
            self._jobs.calibration = record

    def calibrate(
        self,
        protocols: Collection[Protocol] | None = None,
        *,
        shots: int = 20_000,
        budget: Budget | None = None,
        beta: float | None = None,
        n_sites: int | None = None,
        temperature_c: float | None = None,
        valid_hours: float | None = None,
        report: Callable[[float, str], None] | None = None,
    ) -> CalibrationRecord:
        """Measure what the device really does, through jobs of its own; corrections in use do not touch them.

        Args:
            protocols: of `glauber.calibration.PROTOCOLS`; None for all: memory, pbits, couplings, temperature, drift.
            shots: of each setting; uncertainties go with its inverse root.
            budget: its seconds end the calibration early, with what there is by then.
            beta: inverse temperature of the jobs; None for 1, or what the device can.
            n_sites: look at the first so many p-bits only.
            temperature_c: of the device, for the record.
            valid_hours: after which the record expires.
            report: called with (part done, name of the protocol) as it goes.

        Raises:
            CalibrationError: the device cannot be calibrated so; says why.
            InvalidModelError: a wrong argument.
            BudgetExceededError: nothing was done within the budget.
        """
        if not isinstance(self._jobs, Worker):
            raise CalibrationError(
                f"{self.address} is a service, whose own calibration would be measured along; calibrate the device"
                " where"
                " where it is"
            )
        from glauber.calibration.run import run_protocols

        if budget is not None and (budget.sweeps, budget.joules, budget.ess) != (None, None, None):
            raise InvalidModelError("a calibration's budget is in seconds; shots= says how much is drawn")
        return run_protocols(
            _Uncorrected(self),
            protocols,
            shots=shots,
            beta=beta,
            seconds=None if budget is None else budget.seconds,
            n_sites=n_sites,
            temperature_c=temperature_c,
            valid_hours=valid_hours,
            report=report,
        )

    def _submit_raw(self, request: JobRequest) -> Job:
        self._check_open()
        assert isinstance(self._jobs, Worker)
        return self._jobs.submit(request, raw=True)


class _Uncorrected:
    """A device as calibration sees it: jobs reach it as they are."""

    def __init__(self, device: Care) -> None:
        self._device = device
        self.address = device.address

    @property
    def spec(self) -> AnySpec:
        """What it is."""
        return self._device.spec

    def submit(self, model: Model, schedule: Schedule, **arguments: Any) -> Job:
        """Queue a job."""
        return self._device._submit_raw(JobRequest(model, schedule, **arguments))


def check_calibration(driver: Driver | JobService, record: CalibrationRecord) -> None:
    """Refuse a record that is of something else, or for a service."""
    if isinstance(driver, JobService):
        raise CalibrationError(
            f"{driver.spec.name} is behind a service, which applies its calibration itself; on a lab server it is"
            " `calibration` in devices.toml"
        )
    record.check_device(driver.spec)
