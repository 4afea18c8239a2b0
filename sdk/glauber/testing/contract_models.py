"""Models that fit whatever device is tested: a small patch of its graph, and pairs that cover all of its edges."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glauber.compile import compile_program, step_of
from glauber.model import IsingModel
from glauber.samples import SampleSet
from glauber.spec import AnySpec

PATCH_SITES = 8
FREE_SITES = 16
"""Sites of the complete graph that stands for a device without a graph of its own."""
COVERED_SITES = 4096
"""Of a larger device, only edges among its first sites are covered."""


@dataclass(frozen=True)
class Scale:
    """Coefficients and temperatures that a device can be programmed with.

    Attributes:
        unit: the largest |J| and |h| that clauses use, in the model's units.
        beta: at which beta times unit is near 0.7.
        strong_beta: at which it is near 2, as far as the device goes.
    """

    unit: float
    beta: float
    strong_beta: float

    @classmethod
    def of(cls, spec: AnySpec) -> Scale:
        """What suits this device."""
        coefficients, able = spec.coefficients, spec.capabilities
        ranges = [r for r in (coefficients.weight_range, coefficients.field_range) if r is not None]
        unit = min(1.0, *ranges) if ranges else 1.0
        low, high = 0.0, np.inf
        if able.beta == "folded" and ranges:
            high = min(ranges) / unit
        elif able.beta_range is not None:
            low, high = able.beta_range
        return cls(unit, *(float(np.clip(wanted / unit, low, high)) for wanted in (0.7, 2.0)))


@dataclass(frozen=True)
class Patch:
    """A few coupled sites of a device.

    Attributes:
        sites: device sites, ascending, (n,).
        model: as the device gets it: all sites up to the last of the patch, those outside it free of fields.
    """

    sites: NDArray[np.int64]
    model: IsingModel

    def small(self, programmed: IsingModel) -> IsingModel:
        """A programmed model cut down to the patch; what is outside it is independent of it."""
        edges = np.searchsorted(self.sites, programmed.edges)
        return IsingModel(programmed.fields[self.sites], edges, programmed.couplings, programmed.offset)

    def states(self, states: NDArray[np.int8]) -> NDArray[np.int8]:
        """The patch's spins of states (..., n_sites), flat: (n, n_patch)."""
        return states[..., self.sites].reshape(-1, len(self.sites))


def device_edges(spec: AnySpec) -> NDArray[np.int64]:
    """The edges that clauses may use: those of the device's graph, or of a complete one, among its first sites."""
    if spec.topology is not None:
        edges = spec.topology.edges().astype(np.int64)
        return edges[edges[:, 1] < COVERED_SITES]
    n = min(FREE_SITES, spec.n_sites or FREE_SITES)
    return np.array(list(itertools.combinations(range(n), 2)), dtype=np.int64).reshape(-1, 2)


def _patch_sites(edges: NDArray[np.int64], size: int) -> list[int]:
    """Sites near the beginning with many edges among them: grown from each of the first ones, the densest wins."""
    neighbours: dict[int, set[int]] = {}
    for a, b in edges.tolist():
        neighbours.setdefault(a, set()).add(b)
        neighbours.setdefault(b, set()).add(a)
    best: tuple[int, int, list[int]] = (0, 0, [])
    for start in sorted(neighbours)[:4]:
        chosen = {start}
        while len(chosen) < size:
            border = set().union(*(neighbours[site] for site in chosen)) - chosen
            if not border:
                break
            chosen.add(min(border, key=lambda site: (-len(neighbours[site] & chosen), site)))
        inside = sum(len(neighbours[site] & chosen) for site in chosen)
        best = max(best, (inside, -max(chosen), sorted(chosen)))
    return best[2]


def patch(spec: AnySpec, scale: Scale, seed: int = 3) -> Patch:
    """Up to eight coupled sites with fields and couplings of both signs and unlike sizes."""
    rng = np.random.default_rng(seed)
    edges = device_edges(spec)
    sites = np.array(_patch_sites(edges, PATCH_SITES) or [0])
    inside = edges[np.isin(edges, sites).all(axis=1)]
    if spec.topology is None and len(inside) > 14:  # a complete graph is needlessly frustrated; keep a ring and some
        ring = (inside[:, 1] - inside[:, 0] == 1) | (inside[:, 1] - inside[:, 0] == len(sites) - 1)
        chords = rng.permutation(np.flatnonzero(~ring))[: 14 - int(ring.sum())]
        inside = inside[np.sort(np.concatenate([np.flatnonzero(ring), chords]))]
    couplings = rng.choice([-1.0, 1.0], len(inside)) * rng.uniform(0.45, 1.0, len(inside)) * scale.unit
    if len(inside):
        couplings[0] = np.sign(couplings[0]) * scale.unit  # the range is used to its end
    fields = np.zeros(int(sites.max()) + 1)
    fields[sites] = rng.uniform(-0.5, 0.5, len(sites)) * scale.unit
    return Patch(sites, IsingModel(fields, inside, couplings, offset=0.25))


def matchings(spec: AnySpec, limit: int) -> list[NDArray[np.int64]]:
    """The device's edges as sets of disjoint pairs, at most `limit` of them, the largest first."""
    colours: list[list[tuple[int, int]]] = []
    used: list[set[int]] = []
    for a, b in device_edges(spec).tolist():
        for pairs, sites in zip(colours, used, strict=True):
            if a not in sites and b not in sites:
                pairs.append((a, b))
                sites |= {a, b}
                break
        else:
            colours.append([(a, b)])
            used.append({a, b})
    colours.sort(key=len, reverse=True)
    return [np.array(pairs, dtype=np.int64) for pairs in colours[:limit]]


def pairs_model(pairs: NDArray[np.int64], couplings: NDArray[np.float64], fields: NDArray[np.float64]) -> IsingModel:
    """Disjoint pairs, each with its coupling and two fields (n, 2)."""
    h = np.zeros(int(pairs.max()) + 1)
    h[pairs] = fields
    return IsingModel(h, pairs, couplings)


def programmed_model(result: SampleSet, spec: AnySpec) -> IsingModel:
    """The model that a device holds after quantisation, of a result that it gave."""
    program = result.program
    if program is None:  # a service returns none; the description says what it must be
        fold = result.provenance.beta if spec.capabilities.beta == "folded" else None
        program = compile_program(result.model, step_of(result.model, spec, fold=fold))
    model = program.as_model()
    assert isinstance(model, IsingModel)
    return model
