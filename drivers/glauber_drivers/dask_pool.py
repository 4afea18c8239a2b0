"""dask://HOST:PORT?device=ADDRESS: one job on many machines, its chains spread over the workers of a Dask cluster.

A batch is a stretch of sweeps that every worker does with its share of the chains. Between batches this process holds
the state, so the part of a worker that dies simply runs again elsewhere. docs/scale-out.md has set-up and costs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
from glauber.compile import AnyProgram, PottsProgram, Run, derive_seed
from glauber.driver import Address, Batch
from glauber.errors import DeviceNotFoundError, ModelNotSupportedError
from glauber.registry import parse_address
from glauber.samples import Moments
from glauber.spec import AnySpec

from glauber_drivers import pool_cluster, pool_worker
from glauber_drivers.chains import part_of, resumed, shares, side_by_side, stretch
from glauber_drivers.pool_cluster import Cluster
from glauber_drivers.pool_local import LocalPool, local_pool
from glauber_drivers.pool_worker import Part

BATCH_SECONDS = 0.5, 2.0
"""How long the sweeps of a batch take: at least, and at most where the pool itself is slow."""
BATCH_OVERHEADS = 20
"""Between the two, so many times what a batch takes beside its sweeps."""
FIRST_UPDATES = 20_000
"""Of a worker in the first batch of all; a simulator in NumPy does so many in a second."""
GROWTH = 16
"""Batches grow at most so much from one to the next: short ones tell little of the rate."""
BATCH_BYTES = 64 * 2**20
"""Of the samples of a batch, about."""
PULSE_SECONDS = 2.0
"""How often a job says that it is still there while workers are waited for, so that it can be cancelled."""
EXAMPLE = "dask://127.0.0.1:8786?device=sim://ideal"

VERSION = version("glauber")

_EMPTY = np.zeros(0, dtype=np.uint64)


class _Job:
    """A run in progress: what is left of it, its moments so far, and how long batches take."""

    def __init__(self, driver: DaskDriver, program: AnyProgram, run: Run) -> None:
        self._driver, self._program, self._run = driver, program, run
        self.rest = replace(run, initial_moments=None)
        self._sums = None if run.initial_moments is None else Moments(*run.initial_moments)
        self._held = driver.cluster.keep(replace(run, initial=None, initial_moments=None, clock=None, resample=None))
        self._batches, self._sampled = 0, False
        state_bytes = program.n_sites if isinstance(program, PottsProgram) else -(-program.n_sites // 8)
        room = max(1, BATCH_BYTES // (run.n_chains * state_bytes)) if "samples" in run.observe else 2**62
        self._most = room * run.sweeps_per_sample
        self._limit = 0

    async def batch(self) -> Batch:
        """The next batch."""
        cluster, run, began = self._driver.cluster, self._run, time.perf_counter()
        workers = await cluster.workers(pool_cluster.WORKER_SECONDS)
        cuts = shares(self.rest, self._program, len(workers))
        if self._limit == 0:
            updates = max(count for _, count in cuts) * self._program.n_sites
            self._limit = max(1, self._driver.usual_limit // (2 * run.n_chains), FIRST_UPDATES // updates)
        done, limit = self.rest.first_sweep - 1, min(self._limit, self._most)
        if done >= run.n_warmup and not self._sampled:  # a sample may take far longer than a sweep: try one
            limit = min(limit, run.sweeps_per_sample)
        sweeps, every = run.next_batch(done, limit)
        self._sampled = self._sampled or every > 0
        tasks = []
        for (first, count), (worker, threads) in zip(cuts, workers.items(), strict=False):
            part = stretch(part_of(self.rest, first, count), sweeps, every)
            part = replace(part, b=_EMPTY, fields=None, clamp=None, seed=self._seed(first))
            tasks.append((worker, (*self._driver.asked, self._driver.held, self._held, part, threads)))
        parts: list[Part] = await cluster.compute(pool_worker.advance, tasks)
        batch = self._taken(side_by_side([part.batch for part in parts]), sweeps, every)
        self._adapt(sweeps, max(part.seconds for part in parts), time.perf_counter() - began)
        return replace(batch, facts={**batch.facts, "workers": str(len(parts))})

    def _seed(self, first: int) -> int:
        """Machines that do not follow docs/machine.md know no chains or sweeps: each part has draws of its own."""
        return (
            self._run.seed
            if self._driver.contract_version
            else derive_seed(self._run.seed, self._batches << 32 | first)
        )

    def _taken(self, found: Batch, sweeps: int, every: int) -> Batch:
        """Account for a batch."""
        run, done = self._run, self.rest.first_sweep - 1
        if every and found.moments is not None:
            sums, before = found.moments, self._sums
            edges = None if sums.edges is None else sums.edges.astype(np.int64)
            if before is not None:
                edges = edges if edges is None or before.edges is None else edges + before.edges
            n, sites = sums.n_samples, sums.sites.astype(np.int64)
            self._sums = (
                Moments(n, sites, edges)
                if before is None
                else Moments(n + before.n_samples, sites + before.sites, edges)
            )
        batch = replace(
            found,
            next_sweep=done + sweeps + 1,
            first_sample=max(0, done - run.n_warmup) // run.sweeps_per_sample,
            n_samples=sweeps // every if every else 0,
            samples=found.samples if every else None,
            moments=self._sums if "moments" in run.observe else None,
        )
        self.rest = resumed(self.rest, batch)
        self._batches += 1
        return batch

    def _adapt(self, sweeps: int, computed: float, elapsed: float) -> None:
        """Choose the next batch's length by this one's."""
        shortest, longest = BATCH_SECONDS
        wanted = min(longest, max(shortest, BATCH_OVERHEADS * (elapsed - computed)))
        planned = min(sweeps * wanted / max(1e-6, computed), sweeps * (longest + wanted) / elapsed)
        self._limit = max(1, min(GROWTH * sweeps, int(planned)))
        self._driver.usual_limit = self._limit * self._run.n_chains


def _pulse(batch: Batch) -> Batch:
    """Nothing new since a batch."""
    events, moves = batch.events, batch.resamplings
    return replace(
        batch,
        first_sample=batch.first_sample + batch.n_samples,
        n_samples=0,
        samples=None,
        exchanges=None,
        resamplings=None if moves is None else replace(moves, lowest=moves.lowest[:0], weights=moves.weights[:0]),
        events=None if events is None else replace(events, updates=np.zeros_like(events.updates)),
    )


class DaskDriver:
    """A driver that spreads runs over a pool.

    Args:
        cluster: the connection; closed with the driver.
        device: address of the device that each worker opens.

    Attributes:
        spec: the inner device's.
        contract_version: the inner device's.
        cluster: the connection.
        asked: the device's address and this process's version of glauber, as workers want them.
        held: a future of the program that is loaded.
        usual_limit: sweeps times chains of a batch, once the loaded program has run; 0 before.

    Raises:
        DeviceNotFoundError: a worker's glauber is another one, or the device cannot be opened there or not be divided.
        DeviceIOError: there is no worker, or it says nothing.
    """

    def __init__(self, cluster: Cluster, device: str) -> None:
        self.cluster = cluster
        self.asked = (device, VERSION)
        for worker, found in cluster.ask_all(version, "glauber").items():
            if found != VERSION:
                theirs = found if isinstance(found, str) else f"none that can be loaded ({found!r})"
                raise DeviceNotFoundError(
                    f"the worker {worker} of the pool at {cluster.name} has glauber {theirs}, and this process has"
                    f" {VERSION}; install the same on both"
                )
        spec, self.contract_version = cluster.task(pool_worker.describe, device)
        able = spec.capabilities
        if self.contract_version == 0:  # its samples depend on where the pool cuts, which goes by the clock
            able = able.model_copy(update={"deterministic": False})
        self.spec: AnySpec = spec.model_copy(update={"capabilities": able})
        self.usual_limit = 0
        self._program: AnyProgram | None = None
        self.held: Any = None

    def program(self, program: AnyProgram) -> None:
        """See Driver.program. Workers load it with the first run."""
        self._program, self.held, self.usual_limit = program, self.cluster.keep(program), 0

    def admit(self, run: Run, program: AnyProgram) -> int:
        """See Driver.admit. A worker is asked: its installation and its hardware count."""
        count = max(count for _, count in shares(run, program, 1))
        part = part_of(replace(run, initial=None, initial_moments=None), 0, count)
        self.cluster.ask(pool_worker.admit, self.asked[0], part, program)
        cells = run.n_chains * program.n_sites
        if isinstance(program, PottsProgram):
            state, sums = 4 * cells, 8 * cells * program.n_states
        else:
            state, sums = cells // 8, 8 * (cells + run.n_chains * program.n_edges)
        return 4 * state + (3 * sums if "moments" in run.observe else 0) + 2 * BATCH_BYTES

    def run(self, run: Run) -> Iterator[Batch]:
        """See Driver.run. While a batch is looked at, the workers compute the next one."""
        program = self._program
        if program is None:
            raise ModelNotSupportedError("nothing is programmed; call program() before run()")
        job, batch = _Job(self, program, run), None
        work = self.cluster.start(job.batch)
        try:
            while True:
                deadline = time.monotonic() + pool_cluster.ANSWER_SECONDS
                while not self.cluster.has(work, PULSE_SECONDS, deadline):
                    if batch is not None:
                        yield _pulse(batch)
                batch = self.cluster.result(work, 0)
                if batch.next_sweep > run.n_sweeps:
                    break
                work = self.cluster.start(job.batch)
                yield batch
        finally:
            work.cancel()
        yield batch

    def close(self) -> None:
        """See Driver.close."""
        self._program = self.held = None
        self.cluster.close()


class DaskFactory:
    """Opens `dask://HOST:PORT?device=ADDRESS`, the address of the device that every worker opens for itself."""

    def open(self, address: Address) -> DaskDriver:
        """See DriverFactory.open."""
        host, _, port = address.name.rpartition(":")
        if not (host and port.isascii() and port.isdigit()) or "/" in address.name:
            raise DeviceNotFoundError(f"{address.text} names no scheduler; a pool's address looks like {EXAMPLE}")
        unknown = sorted(set(address.parameters) - {"device"})
        if unknown or not address.parameters.get("device"):
            wrong = f"does not know {', '.join(unknown)}" if unknown else "must say which device the workers open"
            raise DeviceNotFoundError(
                f"{address.text}: a pool {wrong}; its address looks like {EXAMPLE}. A device's own parameters are"
                " percent-encoded: ?device=sim://z1%3Fwidth%3D24%26height%3D24"
            )
        device = parse_address(address.parameters["device"])
        if device.scheme == address.scheme:
            raise DeviceNotFoundError(
                f"{address.text}: a pool's workers open devices, not pools; name {device.text} itself"
            )
        cluster = Cluster(address.name)
        try:
            return DaskDriver(cluster, device.text)
        except BaseException:
            cluster.close()
            raise

    def devices(self) -> Iterable[tuple[str, AnySpec]]:
        """None: a scheduler is anywhere. See DriverFactory.devices."""
        return ()

    def local_pool(
        self, workers: int, threads: int, port: int, *, dashboard: bool
    ) -> AbstractContextManager[LocalPool]:
        """A pool on this computer, for `glauber pool`; see local_pool."""
        return local_pool(workers, threads, port, dashboard=dashboard)
