"""Random small models on patches of a chip, and how far what the chip draws is from their exact laws."""

from __future__ import annotations

from dataclasses import dataclass

import glauber as gl
import numpy as np
from glauber.calibration import CalibrationRecord, distribution
from glauber.testing.exact import ExactLaw
from glauber.topology import TopologyBase
from numpy.typing import NDArray

PATCH = 8
N_PATCHES = 5
LARGEST = 0.6
"""Of a coupling: what a p-bit of gain 0.7 needs for it is still in the chip's range, which ends at 1."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Patch:
    """A model of eight p-bits of a chip.

    Attributes:
        sites: on the chip, ascending.
        model: on sites 0 .. 7 of its own.
    """

    sites: list[int]
    model: gl.IsingModel

    @property
    def law(self) -> Floats:
        """The exact probabilities of all states, (256,), as `glauber.calibration.distribution` numbers them."""
        exact = ExactLaw(self.model, beta=1.0)
        number = (exact.states > 0) @ (1 << np.arange(len(self.sites)))
        law = np.zeros(len(number))
        law[number] = exact.probabilities
        return law


def patches(record: CalibrationRecord, topology: TopologyBase, seed: int, count: int = N_PATCHES) -> list[Patch]:
    """Disjoint connected patches of p-bits that work, with random couplings and fields; nothing joins two patches.

    Raises:
        ValueError: the chip has no room for so many.
    """
    rng = np.random.default_rng(seed)
    edges = topology.edges()
    neighbours: list[set[int]] = [set() for _ in range(topology.n_sites)]
    for a, b in edges.tolist():
        neighbours[a].add(b)
        neighbours[b].add(a)
    for _ in range(200):  # grown at random; what leaves no room for the last one is begun again
        free = set(range(topology.n_sites)) - set(record.bad_sites)
        found: list[list[int]] = []
        while free and len(found) < count:
            patch = {int(rng.choice(sorted(free)))}
            while len(patch) < PATCH:
                front = sorted({j for i in patch for j in neighbours[i]} & free - patch)
                if not front:
                    break
                patch.add(int(rng.choice(front)))
            if len(patch) < PATCH:
                free -= patch
                continue
            found.append(sorted(patch))
            free -= patch
        if len(found) == count:
            return [Patch(sites, _random_model(sites, edges, rng)) for sites in found]
    raise ValueError(f"no room for {count} patches of {PATCH} p-bits on this chip")


def _random_model(sites: list[int], edges: NDArray[np.int32], rng: np.random.Generator) -> gl.IsingModel:
    place = {site: k for k, site in enumerate(sites)}
    inside = [(place[a], place[b]) for a, b in edges.tolist() if a in place and b in place]
    couplings = rng.choice([-1.0, 1.0], len(inside)) * rng.uniform(0.2, LARGEST, len(inside))
    return gl.IsingModel(rng.uniform(-0.4, 0.4, len(sites)), np.array(inside), couplings)


def together(chosen: list[Patch], n_sites: int) -> gl.IsingModel:
    """All patches in one program; nothing couples one to another."""
    fields = np.zeros(n_sites)
    edges, couplings = [], []
    for patch in chosen:
        fields[patch.sites] = patch.model.fields
        edges.append(np.array(patch.sites)[patch.model.edges])
        couplings.append(patch.model.couplings)
    return gl.IsingModel(fields, np.concatenate(edges), np.concatenate(couplings))


@dataclass(frozen=True)
class Comparison:
    """Total variation from the exact law, half the sum of |p - q| over all states, patch by patch.

    Attributes:
        raw: the chip as it is.
        corrected: weights and fields corrected, wrong readings taken out.
        floor: of as many independent right readings of the exact law itself, on average.
        u: standard deviation of each of them by chance, at most.
        laws: of all states as drawn, (2, n_patches, 256): raw and corrected.
    """

    raw: list[float]
    corrected: list[float]
    floor: list[float]
    u: list[float]
    laws: Floats

    @property
    def improvement(self) -> list[float]:
        """Raw over corrected."""
        return [a / b for a, b in zip(self.raw, self.corrected, strict=True)]


def compare(device: gl.Device, record: CalibrationRecord, chosen: list[Patch], n_samples: int, seed: int) -> Comparison:
    """Draw from all patches without and with the calibration; the device is left without."""
    model = together(chosen, record.n_sites)
    schedule = gl.SamplingSchedule(n_samples=n_samples // 64, n_chains=64, n_warmup=100, sweeps_per_sample=4)
    laws = []
    for use in (None, record):
        device.use_calibration(use)
        samples = device.submit(model, schedule, seed=seed).result()
        laws.append([distribution(samples, use, patch.sites) for patch in chosen])
    device.use_calibration(None)
    exact = np.array([patch.law for patch in chosen])
    raw, corrected = (np.abs(np.array(found) - exact).sum(axis=1) / 2 for found in laws)
    floor = np.sqrt(2 * exact * (1 - exact) / (np.pi * n_samples)).sum(axis=1) / 2
    u = np.sqrt((exact * (1 - exact)).sum(axis=1) / n_samples) / 2  # |d| varies no more than d
    return Comparison(raw.tolist(), corrected.tolist(), floor.tolist(), u.tolist(), np.array(laws))
