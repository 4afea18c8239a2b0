"""A bad machine, on purpose: a driver around a driver, with the faults that boards have.

driver = FaultyDriver(inner, DriverFaults(stuck=1), seed=7)
with gl.Device(driver) as device: ...              # a test that claims to find a dead p-bit must fail on this one

Faults of the link are in `glauber.testing.link_faults`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glauber.compile import AnyProgram, Program, Run, pack_spins, unpack_spins
from glauber.driver import Batch, Driver
from glauber.errors import DeviceIOError, InvalidModelError
from glauber.samples import Moments
from glauber.spec import AnySpec


@dataclass(frozen=True)
class DriverFaults:
    """What is wrong with a machine; nothing by default.

    Attributes:
        stuck: how many p-bits never move; which, and at which value, is drawn from the seed.
        swapped: how many pairs of sites come out exchanged, as from a board with wires crossed; drawn from the seed.
        brown_outs: how many jobs break down half-way, before the machine works again.
        freeze_seconds: how much longer every batch takes.
        gone_after: batches after which the machine is gone for good; None for never.
    """

    stuck: int = 0
    swapped: int = 0
    brown_outs: int = 0
    freeze_seconds: float = 0.0
    gone_after: int | None = None


class FaultyDriver:
    """A driver with faults, for Ising programs.

    Args:
        driver: the machine that is disturbed.
        faults: what is wrong with it.
        seed: decides about what the faults leave open.

    Attributes:
        stuck: the p-bits that are stuck, site -> value; known once a program was loaded.
        swapped: the pairs of sites that are exchanged; known once a program was loaded.

    Raises:
        InvalidModelError: at the first program, more p-bits are to be stuck or exchanged than there are.
    """

    def __init__(self, driver: Driver, faults: DriverFaults, seed: int = 0) -> None:
        self._inner, self._faults = driver, faults
        self._random = random.Random(seed)
        self._brown_outs, self._batches = faults.brown_outs, 0
        self._program: Program | None = None
        self.stuck: dict[int, int] = {}
        self.swapped: list[tuple[int, int]] = []
        self.contract_version = int(getattr(driver, "contract_version", 0))

    @property
    def spec(self) -> AnySpec:
        """See Driver.spec: the machine does not know of its faults."""
        return self._inner.spec

    def program(self, program: AnyProgram) -> None:
        """See Driver.program."""
        self._check_link()
        self._program = program if isinstance(program, Program) else None
        if not self.stuck and not self.swapped:
            self._draw(self.spec.n_sites if self.spec.topology is not None else program.n_sites)
        self._inner.program(program)

    def _draw(self, n_sites: int | None) -> None:
        wanted = self._faults.stuck + 2 * self._faults.swapped
        n = n_sites or 0
        if wanted > n:
            raise InvalidModelError(f"{wanted} p-bits are to be stuck or exchanged, and there are {n}")
        sites = self._random.sample(range(n), wanted)
        self.stuck = {site: self._random.choice((-1, 1)) for site in sites[: self._faults.stuck]}
        pairs = sites[self._faults.stuck :]
        self.swapped = list(zip(pairs[::2], pairs[1::2], strict=True))

    def admit(self, run: Run, program: AnyProgram) -> int:
        """See Driver.admit."""
        return self._inner.admit(run, program)

    def close(self) -> None:
        """See Driver.close."""
        self._inner.close()

    def run(self, run: Run) -> Iterator[Batch]:
        """See Driver.run."""
        program = self._program
        disturbed = run
        if program is not None and self.stuck and self.spec.capabilities.clamp:
            disturbed = replace(run, clamp=self._held(run, program.n_sites))
        count = program is not None and bool(self.swapped or self.stuck) and "moments" in run.observe
        if count:
            disturbed = replace(disturbed, observe=run.observe - {"moments"} | {"samples"})
        doomed = self._brown_outs > 0
        self._brown_outs -= doomed
        moments = None
        for batch in self._inner.run(disturbed):
            self._check_link()
            self._batches += 1
            time.sleep(self._faults.freeze_seconds)
            if doomed and 2 * (batch.next_sweep - 1) >= run.n_sweeps:
                raise DeviceIOError("the board's supply broke down (on purpose); submit the job again")
            if program is not None and (self.stuck or self.swapped):
                batch = self._seen(batch, program)
                if count and batch.samples is not None:
                    moments = _counted(batch, program, moments)
                    batch = replace(batch, moments=moments, samples=batch.samples if "samples" in run.observe else None)
            yield batch

    def _check_link(self) -> None:
        limit = self._faults.gone_after
        if limit is not None and self._batches >= limit:
            raise DeviceIOError("the board is gone (on purpose); plug it in and open the device again")

    def _held(self, run: Run, n_sites: int) -> NDArray[np.int8]:
        clamp = np.zeros((1, n_sites), np.int8) if run.clamp is None else run.clamp.astype(np.int8)
        for site, value in self.stuck.items():
            if site < n_sites:
                clamp[:, site] = value
        return clamp

    def _seen(self, batch: Batch, program: Program) -> Batch:
        samples = None if batch.samples is None else self._read(batch.samples, program.n_sites)
        return replace(batch, samples=samples, state=self._read(batch.state, program.n_sites), resident=None)

    def _read(self, packed: NDArray[Any], n_sites: int) -> NDArray[np.uint8]:
        """States as the board shows them."""
        spins = unpack_spins(packed.astype(np.uint8, copy=False), n_sites)
        for site, value in self.stuck.items():
            if site < n_sites:
                spins[..., site] = value
        for a, b in self.swapped:
            if max(a, b) < n_sites:
                spins[..., [a, b]] = spins[..., [b, a]]
        return pack_spins(spins)


def _counted(batch: Batch, program: Program, before: Moments | None) -> Moments:
    """Moments so far, from the samples that are shown."""
    assert batch.samples is not None
    spins = unpack_spins(batch.samples.astype(np.uint8, copy=False), program.n_sites).astype(np.int64)
    a, b = program.edges[:, 0], program.edges[:, 1]
    sites, edges = spins.sum(axis=1), (spins[..., a] * spins[..., b]).sum(axis=1)
    if before is None or before.edges is None:
        return Moments(batch.n_samples, sites, edges)
    return Moments(before.n_samples + batch.n_samples, before.sites + sites, before.edges + edges)
