"""The jobs with which a device is accepted: couplings on one half of its edges, on the other half, and none.

What lies between neighbours in a job that does not couple them is crosstalk. Couplings are so weak that any right
device mixes within a few sweeps, which is proved and not tried. A neighbour's spin moves the mean of s_i by
tanh(beta |J_ij|) at most, so two copies that differ agree again like x -> T x, T = |tanh(beta J)| (Dobrushin's
comparison). With a positive x for which T x <= rho x, a sweep in any fixed order leaves at most rho of the largest
disagreement, measured in units of x; in practice it is nearer to rho^2.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glauber.compile import compile_program, step_of
from glauber.errors import ModelNotSupportedError
from glauber.model import IsingModel
from glauber.spec import AnySpec
from glauber.testing.contract_models import COVERED_SITES, FREE_SITES, Scale, device_edges

RADIUS = 0.7
"""Wanted spectral radius of |tanh(beta J)|."""
LARGEST_RADIUS = 0.9
"""What is still taken, where the device's precision or temperatures give no better."""
START_LEFT, SAMPLE_LEFT = 1e-6, 1e-2
"""What is left of the start when sampling begins, and of a sample in the next one."""
FIELD = 0.8
"""Largest beta h of the job without couplings; three quarters of it in the others."""
MEAN_DEGREE = 4
"""Couplings of a p-bit in one job, at most, in the mean: on denser graphs single couplings would be too weak to see."""


@dataclass(frozen=True)
class Probe:
    """One of the jobs.

    Attributes:
        name: for people.
        model: what is programmed.
        beta: inverse temperature.
        n_warmup: sweeps before the first sample.
        thin: sweeps between samples.
        n_coupled: couplings that the device does not round to 0.
    """

    name: str
    model: IsingModel
    beta: float
    n_warmup: int
    thin: int
    n_coupled: int


@dataclass(frozen=True)
class Probes:
    """All jobs for one device.

    Attributes:
        jobs: with couplings first, the one without last.
        sites: p-bits that are looked at, (n,).
        neighbours: all pairs on the chip that are looked at, (m, 2).
        n_edges: pairs that the device could couple.
    """

    jobs: tuple[Probe, ...]
    sites: NDArray[np.int64]
    neighbours: NDArray[np.int64]
    n_edges: int

    @property
    def key(self) -> str:
        """Digest of all that the device is asked: right devices with one key obey the same laws."""
        digest = hashlib.blake2b(digest_size=8)
        for job in self.jobs:
            digest.update(f"{job.model.key} {job.beta!r} {job.n_warmup} {job.thin}".encode())
        digest.update(self.sites.tobytes() + self.neighbours.tobytes())
        return digest.hexdigest()


def make_probes(spec: AnySpec, avoid: Collection[int] = ()) -> Probes:
    """The jobs for a device, always the same ones for one description.

    Args:
        spec: of the device.
        avoid: p-bits that must not be used.

    Raises:
        ModelNotSupportedError: the device promises no law that could be tested, takes no model, or cannot be programmed
            so that it mixes.
    """
    _check_able(spec)
    n = min(spec.n_sites or FREE_SITES, COVERED_SITES if spec.topology is not None else FREE_SITES)
    bad = np.array(sorted(avoid), dtype=np.int64)
    sites = np.setdiff1d(np.arange(n), bad)
    if not len(sites):
        raise ModelNotSupportedError(f"{spec.name} has no p-bit that may be used, so there is nothing to accept")
    edges = device_edges(spec)
    edges = edges[~np.isin(edges, bad).any(axis=1)]
    rng = np.random.default_rng(29)
    order = rng.permutation(len(edges))
    size = min((len(edges) + 1) // 2, MEAN_DEGREE * len(sites) // 2)
    jobs = []
    for name, chosen in (("couplings", order[:size]), ("other couplings", order[size : 2 * size])):
        if len(chosen):
            jobs.append(_coupled(name, spec, n, sites, edges[np.sort(chosen)], rng))
    scale = Scale.of(spec)
    fields = _fields(scale, scale.strong_beta, FIELD, n, sites, rng)
    jobs.append(Probe("fields", IsingModel(fields, np.zeros((0, 2), dtype=np.int64), []), scale.strong_beta, 1, 1, 0))
    seen = edges if len(edges) <= 2 * size else edges[np.sort(order[: 2 * size])]
    total = len(edges) if spec.topology is None else spec.topology.n_edges
    return Probes(tuple(jobs), sites, seen, total)


def _check_able(spec: AnySpec) -> None:
    able = spec.capabilities
    if not able.sampler:
        raise ModelNotSupportedError(f"{spec.name} is an optimiser and promises no law; a sampler can be accepted")
    if able.beta == "none":
        raise ModelNotSupportedError(f"{spec.name} cannot be told its temperature, so no law is promised")
    if spec.topology is None and not spec.any_graph:
        raise ModelNotSupportedError(f"the graph of {spec.name} is not published, so it can be given no model")


def _fields(
    scale: Scale, beta: float, largest: float, n: int, sites: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Fields of both signs with beta |h| from half of `largest` to all of it, as far as the device goes."""
    top = min(largest, beta * scale.unit)
    fields = np.zeros(n)
    fields[sites] = rng.choice([-1.0, 1.0], len(sites)) * rng.uniform(0.5, 1.0, len(sites)) * top / max(beta, 1e-9)
    return fields


def _coupled(
    name: str,
    spec: AnySpec,
    n: int,
    sites: NDArray[np.int64],
    edges: NDArray[np.int64],
    rng: np.random.Generator,
) -> Probe:
    """Couplings of both signs and unlike sizes on these edges, and fields, at a temperature at which they mix."""
    scale = Scale.of(spec)
    couplings = rng.choice([-1.0, 1.0], len(edges)) * rng.uniform(0.6, 1.0, len(edges)) * scale.unit
    couplings[0] = math.copysign(scale.unit, couplings[0])  # the range is used to its end
    wanted = 0.7 / scale.unit
    bare = IsingModel(np.zeros(n), edges, couplings)
    for _ in range(5):
        wanted *= RADIUS / max(radius(bare, wanted), 1e-9)
        wanted = min(wanted, 0.7 / scale.unit)
    low, high = (0.0, np.inf) if spec.capabilities.beta_range is None else spec.capabilities.beta_range
    folded, left = spec.capabilities.beta == "folded", np.inf
    for _ in range(3):  # again where rounding has made couplings much larger
        beta = float(np.clip(wanted, low, high))
        fields = _fields(scale, beta, 0.75 * FIELD, n, sites, rng)
        model = IsingModel(fields, edges, couplings * min(1.0, wanted / max(beta, 1e-9)))
        held = compile_program(model, step_of(model, spec, fold=beta if folded else None)).as_model()
        assert isinstance(held, IsingModel)
        left = radius(held, beta)
        if left <= LARGEST_RADIUS:
            slowest = math.log(max(left, 1e-3))
            n_warmup, thin = math.ceil(math.log(START_LEFT) / slowest), math.ceil(math.log(SAMPLE_LEFT) / (2 * slowest))
            return Probe(name, model, beta, n_warmup, max(1, thin), int((held.couplings != 0).sum()))
        wanted *= RADIUS / left
    raise ModelNotSupportedError(
        f"{spec.name} rounds the couplings of this test so coarsely that they mix in no known time (a sweep may leave"
        f" {left:.2g} of a disturbance); its conformance clauses on small models say more"
    )


def radius(model: IsingModel, beta: float) -> float:
    """The least rho that is easily had with T x <= rho x, T = |tanh(beta J)|: near T's spectral radius, never below.

    By power iteration; the bound is Collatz's and Wielandt's, and holds for whatever positive x that ends with.
    """
    from scipy.sparse import csr_array

    if not model.n_edges:
        return 0.0
    a, b = model.edges[:, 0], model.edges[:, 1]
    t = np.abs(np.tanh(beta * model.couplings))
    matrix = csr_array(
        (np.concatenate([t, t]), (np.concatenate([a, b]), np.concatenate([b, a]))), shape=(model.n_sites, model.n_sites)
    )
    x = np.ones(model.n_sites)
    for _ in range(25):
        x = x + matrix @ x
        x /= x.max()
    return float(((matrix @ x) / x).max())


def most_chains(fits: Callable[[int], bool]) -> int:
    """The largest usual number of chains that fits."""
    return next((n for n in (256, 128, 64, 32, 16, 8, 4, 2) if fits(n)), 1)
