"""The lab: the devices of a configuration, opened on one job store, with reservations, budgets and limits."""

from __future__ import annotations

import fcntl
import os
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from glauber.calibration.history import find_calibration
from glauber.calibration.record import CalibrationRecord
from glauber.device import Device, open_device
from glauber.errors import (
    AccessError,
    BudgetExceededError,
    CalibrationError,
    DeviceNotFoundError,
    FileFormatError,
    GlauberError,
    ModelNotSupportedError,
    StoreError,
)
from glauber.job import Job, JobStatus
from glauber.keeping import without_seed
from glauber.request import JobRequest
from glauber.server import audit
from glauber.server.budgets import check_budget
from glauber.server.config import DeviceConfig, LabConfig
from glauber.server.labfile import LabFile
from glauber.server.logs import server_log
from glauber.server.reservations import Reservation, reservations
from glauber.server.tokens import Token
from glauber.store import JobRecord, JobStore, default_path

WATCH_SECONDS = 1.0
"""How often reservations are looked at if none begins or ends before, and the time is written down."""
REMEMBERED_ENDS = 4096


def labfile_path(config: LabConfig) -> Path:
    """Where tokens, reservations and the audit log of a configuration are: beside its job store."""
    return (config.store or default_path()).with_name("lab.sqlite")


@dataclass(frozen=True, slots=True)
class LabDevice:
    """One device of the lab.

    Attributes:
        name: in the configuration, and in addresses.
        config: what the configuration says of it.
        device: open.
    """

    name: str
    config: DeviceConfig
    device: Device

    @property
    def jobs(self) -> list[Job]:
        """The running job and those that wait, in the order in which they would start."""
        return self.device.waiting


class Lab:
    """Opens everything; a context manager that leaves unfinished jobs in the store for the next start.

    Args:
        config: what `read_config` read.

    Attributes:
        store: all jobs.
        file: tokens, reservations, audit log.
        devices: by name.
        stopping: whether the lab takes no more requests.

    Raises:
        StoreError: another server serves this store, or a file cannot be opened.
        DeviceNotFoundError: a device cannot be opened; it is named.
        CalibrationError: a device's calibration is not there, or of another device.
    """

    def __init__(self, config: LabConfig) -> None:
        self.config = config
        self.stopping = False
        self.devices: dict[str, LabDevice] = {}
        self._log = server_log()
        self._closed = threading.Event()
        self._held: dict[str, str | None] = {}
        self._held_lock = threading.Lock()
        self._ends_lock = threading.Lock()
        self._last_end: dict[tuple[str, str], str] = {}
        self._previous: OrderedDict[str, str] = OrderedDict()
        self._budget_lock = threading.Lock()
        self._lock_file = _lock((config.store or default_path()).with_name("lab.lock"))
        try:
            self.store = JobStore(config.store)
            self.file = LabFile(labfile_path(config))
            for name, entry in config.devices.items():
                self.devices[name] = LabDevice(name, entry, self._open(name, entry))
            for found in self.devices.values():
                for job in found.jobs:  # taken over from before
                    self._follow(found, job)
            self._name_orphans()
            audit.append(self.file, "server", "start", config.url, devices=sorted(self.devices))
        except BaseException:
            self._close_files()
            raise
        self._watch()
        self._watcher = threading.Thread(target=self._keep_watching, name="glauber reservations", daemon=True)
        self._watcher.start()

    def _open(self, name: str, entry: DeviceConfig) -> Device:
        try:
            record = None if entry.calibration is None else _calibration(entry.calibration, entry.address)
            device = open_device(entry.full_address, store=self.store, meter=entry.meter_address, calibration=record)
        except (CalibrationError, DeviceNotFoundError, FileFormatError) as error:
            raise type(error)(f"devices.{name}: {error}") from error
        if record is not None and record.expired(datetime.now(UTC)):
            self._log.warning("the calibration has expired", device=name, calibration=record.id, expired=record.expires)
        if device.store is None:
            device.close(requeue=True)
            raise DeviceNotFoundError(
                f"devices.{name}: {entry.full_address} keeps its jobs itself, so this server can neither store nor hold"
                " them; let users open it where it is"
            )
        return device

    def _name_orphans(self) -> None:
        """Jobs of an address that is not in the configuration any more wait for ever, so say so."""
        served = {without_seed(one.config.full_address) for one in self.devices.values()}
        for record in self.store.jobs(status=[JobStatus.QUEUED, JobStatus.RUNNING], limit=1000):
            if record.device not in served:
                self._log.warning("a job waits for a device that is not served", job=record.id, device=record.device)

    # What is there

    def device(self, name: str) -> LabDevice:
        """A device by its name.

        Raises:
            DeviceNotFoundError: listing those that there are.
        """
        if name not in self.devices:
            raise DeviceNotFoundError(f"this lab has no device {name!r}; there are {', '.join(self.devices)}")
        return self.devices[name]

    def name_of(self, address: str) -> str:
        """The name of a device by the address under which the store knows it; the address if it is no longer served."""
        return next((one.name for one in self.devices.values() if one.config.full_address == address), address)

    def live_job(self, record: JobRecord) -> Job | None:
        """The handle of a job that is queued or runs here."""
        found = self.devices.get(self.name_of(record.device))
        return None if found is None else found.device.job(record.id)

    def previous_end(self, job_id: str) -> str | None:
        """The job of the same owner that ended on that device just before this one, "" if none did since the start.

        None where it is not known: the job ended before the start, or its end is just being noted.
        """
        with self._ends_lock:
            return self._previous.get(job_id)

    # Submitting

    def submit(self, found: LabDevice, request: JobRequest, who: str) -> str:
        """Check limits and budget, and queue a job; its id. Durable when it returns.

        Raises:
            ModelNotSupportedError: the device cannot run it, or the lab limits the device to less.
            BudgetExceededError: the owner's day, or his share of the queue, has no room for it.
            GlauberError: what `Device.submit_request` raises.
        """
        owner = request.owner or ""
        known = self._known(found, request, who)
        if known is not None:
            return known
        self.check_size(found, request)
        self._check_queue(found, request)
        budget = self.config.owners.get(owner)
        if budget is None:
            job = found.device.submit_request(request)
        else:
            with self._budget_lock:  # two at once must not both take what is left
                known = self._known(found, request, who)  # its first copy may have been ahead of it here
                if known is not None:
                    return known
                pending = ((one.device, job) for one in self.devices.values() for job in one.jobs if job.owner == owner)
                now = self.file.now()
                check_budget(owner, budget, request, found.device, pending, store=self.store, now=now)
                job = found.device.submit_request(request)
        self._follow(found, job)
        audit.append(self.file, who, "submit", job.id, device=found.name, owner=owner, priority=request.priority)
        return job.id

    def _known(self, found: LabDevice, request: JobRequest, who: str) -> str | None:
        """The job that a request already is: its answer was lost. Neither limits nor budgets count it twice."""
        known = self.store.asked_before(request.owner or "", without_seed(found.config.full_address), request)
        if known is not None:
            audit.append(self.file, who, "submit again", known, device=found.name, owner=request.owner)
        return known

    def check_size(self, found: LabDevice, request: JobRequest) -> None:
        """Refuse what the configuration does not allow on a device."""
        asked = {
            "max_sites": request.model.n_sites,
            "max_chains": request.schedule.n_chains,
            "max_sweeps": request.schedule.n_sweeps,
        }
        reasons = tuple(
            f"{value} {name[4:]}, and the lab allows {limit}"
            for name, value in asked.items()
            if (limit := getattr(found.config, name)) is not None and value > limit
        )
        if reasons:
            raise ModelNotSupportedError(f"{found.name} in this lab takes smaller jobs:", reasons)

    def _check_queue(self, found: LabDevice, request: JobRequest) -> None:
        most = found.config.max_queue_per_owner
        if sum(job.owner == request.owner for job in found.jobs) >= most:
            raise BudgetExceededError(
                f"{request.owner} has {most} jobs on {found.name} already, the most that the lab allows; wait for one"
            )

    def _follow(self, found: LabDevice, job: Job) -> None:
        """Note in which order the jobs of an owner end, for clients that report ends in order."""
        key = (found.name, job.owner)

        def ended(job: Job) -> None:
            with self._ends_lock:
                if self._last_end.get(key) == job.id:  # submitted twice at once, with one key
                    return
                self._previous[job.id] = self._last_end.get(key, "")
                self._last_end[key] = job.id
                while len(self._previous) > REMEMBERED_ENDS:
                    self._previous.popitem(last=False)

        job.add_done_callback(ended)

    def cancel(self, record: JobRecord, who: str) -> bool:
        """Ask for a job to be stopped; False if it has ended, or was asked before."""
        job = self.live_job(record)
        asked = self.store.ask_to_cancel(record.id) if job is None else job.ask_to_cancel()
        if asked:
            audit.append(self.file, who, "cancel", record.id, owner=record.owner)
        return asked

    # Reservations

    def reservation_now(self, name: str) -> Reservation | None:
        """Whose a device is now."""
        now = self.file.now()
        return next((one for one in reservations(self.file, name) if one.starts <= now < one.ends), None)

    def look_at_reservations(self) -> None:
        """Hold the devices for whom they are reserved now, and let go of the others."""
        with self._held_lock:  # the watcher and requests come here
            for name, found in self.devices.items():
                reserved = self.reservation_now(name)
                owner = None if reserved is None else reserved.owner
                if self._held.get(name) != owner:
                    found.device.hold(owner)
                    self._held[name] = owner
                    self._log.info("reservation", device=name, owner=owner)

    def _watch(self) -> None:
        try:
            self.file.record_time()
            self.look_at_reservations()
        except GlauberError as error:  # a full disk now must not end reservations for good
            self._log.error("reservations cannot be looked at", error=repr(error))

    def _keep_watching(self) -> None:
        while not self._closed.wait(self._until_something_begins_or_ends()):
            self._watch()

    def _until_something_begins_or_ends(self) -> float:
        try:
            now = self.file.now()
            times = [
                at for name in self.devices for one in reservations(self.file, name) for at in (one.starts, one.ends)
            ]
        except GlauberError:  # said by the next look
            return WATCH_SECONDS
        return min([WATCH_SECONDS, *(at - now for at in times if at > now)])

    # Closing

    def stop_accepting(self) -> None:
        """Answer 503 from now on; may be called from a signal's handler."""
        self.stopping = True

    def close(self) -> None:
        """Stop running jobs at their next batch and leave them, and the queued ones, in the store."""
        self.stop_accepting()
        if self._closed.is_set():
            return
        self._closed.set()
        self._watcher.join()
        threads = [threading.Thread(target=self._close_device, args=(one,)) for one in self.devices.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with suppress(GlauberError):
            audit.append(self.file, "server", "stop", self.config.url)
        self._close_files()

    def _close_device(self, found: LabDevice) -> None:
        try:
            found.device.close(requeue=True)
        except GlauberError as error:
            self._log.error("device did not close", device=found.name, error=repr(error))

    def _close_files(self) -> None:
        """Also of a lab that could not be opened as a whole."""
        for found in self.devices.values():
            with suppress(GlauberError):
                found.device.close(requeue=True)
        for name in ("file", "store"):
            if hasattr(self, name):
                getattr(self, name).close()
        self._lock_file.close()  # lets go of the lock

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _calibration(name: str, address: str) -> CalibrationRecord:
    """The record that a configuration names; that there is none in force is an error here."""
    found = find_calibration(name, address)
    if found is None:
        raise CalibrationError(
            f'calibration = "latest", and none of {address} is in force; glauber calibrate {address!r} makes one, or'
            " leave the line out"
        )
    return found


def _lock(path: Path) -> IO[str]:
    """Held as long as the file is open, and let go by the kernel if the process dies."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+")
    except OSError as error:
        raise StoreError(f"the lock {path} cannot be made: {error}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = file.read().strip() or "?"
        file.close()
        raise StoreError(
            f"another lab server (process {holder}) serves the jobs in {path.parent}; stop it first, or give this one a"
            ' store of its own: store = "..." in its configuration'
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def own_job(lab: Lab, job_id: str, token: Token) -> JobRecord:
    """A job whose data a token may see: its owner's, or anybody's for an admin.

    Raises:
        JobNotFoundError: there is no such job.
        AccessError: it is somebody else's.
    """
    record = lab.store.get(job_id)
    if record.owner != token.owner and not token.allows("admin"):
        audit.append(lab.file, token.who, "refused", job_id, owner=record.owner)
        raise AccessError(
            f"job {job_id} is {record.owner}'s; its events, request and result are for its owner and for admins"
        )
    return record
