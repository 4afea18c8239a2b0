"""A device's side of the job store: what it writes while its jobs run, and what it finds there when it opens."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import replace

from glauber.checkpoint import merge_batches
from glauber.compile import AnyProgram
from glauber.driver import Batch
from glauber.errors import GlauberError, JobNotFoundError, StoreCorruptError, StoreError
from glauber.execution import software_versions
from glauber.job import Job, JobStatus, local_user
from glauber.request import JobRequest
from glauber.samples import SampleSet
from glauber.spec import AnySpec
from glauber.store import JobRecord, JobStore
from glauber.store.jobs import Final, NewJob

PART_SECONDS = 1.0
"""How often what a job has drawn is stored: a crash costs at most about as much."""
PART_BYTES = 64 * 2**20
"""A part is stored earlier where it has become so large."""
POLL_SECONDS = 0.2
"""How often a device looks whether another process wants one of its jobs stopped."""

_log = logging.getLogger("glauber")


def without_seed(address: str) -> str:
    """A device's address without the seed from which its jobs' seeds are derived: what is stored as the device."""
    base, mark, query = address.partition("?")
    kept = [pair for pair in query.split("&") if pair and not pair.startswith("seed=")]
    return base + mark + "&".join(kept) if kept else base


class Keeper:
    """One device's jobs in a store. Methods may be called from any thread.

    Args:
        store: where.
        owned: whether to close it with the device.
        address: of the device.
        spec: of the device.
    """

    def __init__(self, store: JobStore, *, owned: bool, address: str, spec: AnySpec) -> None:
        self.store = store
        self._owned = owned
        self.device = without_seed(address)
        self._spec = spec
        self._spec_hash = spec.spec_hash
        graph = spec.topology
        self._topology = None if graph is None else hashlib.sha256(graph.model_dump_json().encode()).hexdigest()[:16]
        self._polled = time.monotonic()
        self._lock = threading.Lock()
        self._mine: set[str] = set()  # jobs that have not ended, as far as is stored

    def add(self, job: Job, program: AnyProgram, calibration: str | None) -> str:
        """Make a job durable; its id, which is an earlier one's where the idempotency key says so.

        `calibration` is the id of the one that corrects it, or None.
        """
        request = job.request
        new = NewJob(
            id=job.id,
            request=request if request.seed is not None else replace(request, seed=job.seed),
            asked=request,
            owner=job.owner,
            device=self.device,
            spec_hash=self._spec_hash,
            spec=self._spec.model_dump_json,
            topology=self._topology,
            calibration=calibration,
            program_key=program.key,
            versions=software_versions(),
        )
        with self._lock:
            self._mine.add(job.id)
        try:
            kept_id = self.store.add(new)
        except BaseException:
            self._forget(job.id)
            raise
        if kept_id != job.id:  # an earlier one
            self._forget(job.id)
        return kept_id

    def _forget(self, job_id: str) -> None:
        with self._lock:
            self._mine.discard(job_id)

    def find(self, request: JobRequest, calibration: str | None) -> str | None:
        """An earlier job whose result answers a request that may be answered so."""
        if not request.reuse:
            return None
        owner = request.owner or local_user()
        return self.store.find_result(request.key, self.device, self._spec_hash, owner, calibration)

    def orphans(self) -> Iterator[tuple[JobRecord, JobRequest] | tuple[str, GlauberError]]:
        """Jobs of this device whose process has ended, with what was asked; or their ids, with why that is lost."""
        yield from self.again(self.store.adopt(self.device))

    def again(self, job_ids: Collection[str]) -> Iterator[tuple[JobRecord, JobRequest] | tuple[str, GlauberError]]:
        """The same for jobs that this process has already."""
        with self._lock:
            self._mine |= set(job_ids)
        for job_id in job_ids:
            try:
                record = self.store.get(job_id)
                if record.status.final:
                    self._forget(job_id)
                    continue
                if record.spec_hash != self._spec_hash:
                    self.store.drop_parts(job_id)  # the device is another one now: from the start
                yield record, self.store.request(job_id)
            except GlauberError as error:
                yield job_id, error

    def begin(self, job: Job, *, resumable: bool) -> tuple[list[Batch], float]:
        """Note that a job runs; what it has drawn before, and in how many seconds.

        Nothing where it must run from its start: on a device that cannot start from given states, or where what was
        stored of it is damaged.

        Raises:
            StoreError: it could not be noted; the job stays in the store as it was.
        """
        try:
            self.store.start(job.id)
            try:
                batches, seconds = self.store.parts(job.id)
            except StoreCorruptError as error:
                _log.warning("job %s runs from its start: %s", job.id, error)
                batches, seconds = [], 0.0
                self.store.drop_parts(job.id)
            if batches and not resumable:
                batches, seconds = [], 0.0
                self.store.drop_parts(job.id)
        except StoreError as failure:
            raise StoreError(
                f"job {job.id} could not begin: {failure}. It stays in the store, and runs when the store works"
            ) from failure
        return batches, seconds

    def ended(
        self,
        job: Job,
        status: Final,
        result: SampleSet | None = None,
        error: BaseException | None = None,
        spent: SampleSet | None = None,
    ) -> GlauberError | None:
        """Store how a job ended; what went wrong with that, if anything did."""
        try:
            self.store.finish(job.id, status, result, error, spent=spent)
        except JobNotFoundError as failure:
            self._forget(job.id)
            return failure
        except Exception as failure:  # memory for the archive, too: the job is not lost with it
            what = StoreError(
                f"job {job.id} ended ({status.value}), but that could not be stored: {failure}. It stays in the store"
                " as it was, and runs again when the store works"
            )
            what.__cause__ = failure
            return what
        self._forget(job.id)
        return None

    def fail(self, job_id: str, error: GlauberError) -> None:
        """End a job that cannot run any more."""
        try:
            self.store.finish(job_id, JobStatus.FAILED, error=error)
        except GlauberError as failure:
            _log.warning("job %s cannot run (%s), and that cannot be stored: %s", job_id, error, failure)
            return
        self._forget(job_id)

    def make_way(self, job: Job, writer: PartWriter, *, leaving: bool) -> None:
        """A running job stops: all that it has drawn is stored; with `leaving` for whoever opens the device next."""
        why = "the device was closed" if leaving else "the device was reserved"
        try:
            writer.flush()
            self.store.requeue(job.id, f"{why}; it goes on where it was", release=leaving)
            if leaving:
                self._forget(job.id)
        except GlauberError as error:
            _log.warning("job %s made way, and goes on from an earlier part: %s", job.id, error)

    def cancels(self) -> list[str]:
        """Jobs that another process wants stopped; asks the store a few times a second at most."""
        now = time.monotonic()
        if now - self._polled < POLL_SECONDS:
            return []
        self._polled = now
        try:
            return self.store.cancels()
        except StoreError as error:
            _log.warning("cannot ask the store for cancellations: %s", error)
            return []

    def close(self) -> None:
        """Let go of the store, and of the jobs that have not ended."""
        with self._lock:
            left = tuple(self._mine)
            self._mine.clear()
        try:
            self.store.release(left)
        except GlauberError as error:  # then the lock's end lets go of them
            _log.warning("jobs stay with this process until it closes the store: %s", error)
        if self._owned:
            self.store.close()


class PartWriter:
    """Merges a job's batches into parts and stores them, every second or so.

    What cannot be stored is not lost as long as the process lives, so a full disk does not stop the job here; it is
    said once, and tried again with the next part.
    """

    def __init__(self, store: JobStore, job_id: str, earlier_seconds: float) -> None:
        self._store, self._job_id = store, job_id
        self._began = time.monotonic() - earlier_seconds
        self._last = time.monotonic()
        self._pending: list[Batch] = []
        self._bytes = 0
        self._warned = False
        self._lock = threading.Lock()

    def take(self, batch: Batch) -> None:
        """One more batch."""
        with self._lock:
            self._pending.append(batch)
            self._bytes += 0 if batch.samples is None else batch.samples.nbytes
            if time.monotonic() - self._last >= PART_SECONDS or self._bytes >= PART_BYTES:
                self._flush()

    def flush(self) -> None:
        """Store what is pending."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        self._last = time.monotonic()
        merged = merge_batches(self._pending)
        self._pending, self._bytes = [merged], 0
        try:
            self._store.add_part(self._job_id, merged, self._last - self._began)
        except StoreError as error:
            if not self._warned:
                _log.warning("what job %s draws cannot be stored for now: %s", self._job_id, error)
            self._warned = True
            return
        self._pending = []
