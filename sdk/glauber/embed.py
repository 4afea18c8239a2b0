"""Placing a model on a chip's graph: each spin on a group of coupled p-bits, read back by majority.

Minor embedding calls such a group a chain; here a chain is a Markov chain, so it is a group. The search is minorminer's
(Cai, Macready, Roy 2014). An embedded model samples the law of the chip's model: groups can break, and the result says
how often they did.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glauber.errors import ModelNotSupportedError, missing_extra
from glauber.model import IsingModel
from glauber.topology import TopologyBase


@dataclass(frozen=True, slots=True)
class Embedding:
    """Which sites of the device stand for each spin of the model.

    Attributes:
        groups: for each spin, its device sites, ascending.
        n_device_sites: sites of the device.
        strength: ferromagnetic coupling that holds a group together, in the model's units.
    """

    groups: tuple[NDArray[np.int32], ...]
    n_device_sites: int
    strength: float

    @property
    def owner(self) -> NDArray[np.int32]:
        """The spin that each device site stands for, -1 for none; shape (n_device_sites,)."""
        owner = np.full(self.n_device_sites, -1, dtype=np.int32)
        for spin, group in enumerate(self.groups):
            owner[group] = spin
        return owner

    def spread(self, rows: NDArray[Any], empty: int, *, divide: bool = False) -> NDArray[Any]:
        """Values by spin, (..., n_spins), as values by device site; a field is divided among its group."""
        owner = self.owner
        values = np.full((*rows.shape[:-1], self.n_device_sites), empty, dtype=rows.dtype)
        used = owner >= 0
        values[..., used] = rows[..., owner[used]]
        if divide:
            sizes = np.array([len(group) for group in self.groups])
            values[..., used] /= sizes[owner[used]]
        return values

    def read(self, spins: NDArray[np.int8]) -> tuple[NDArray[np.int8], float]:
        """Spins of the device (..., n_device_sites) as spins of the model, and the share of broken groups.

        The majority of a group decides, its first site where there is none.
        """
        result = np.empty((*spins.shape[:-1], len(self.groups)), dtype=np.int8)
        broken = 0
        for spin, group in enumerate(self.groups):
            votes = spins[..., group].sum(axis=-1, dtype=np.int64)
            result[..., spin] = np.where(votes == 0, spins[..., group[0]], np.sign(votes))
            broken += int((np.abs(votes) != len(group)).sum())
        return result, broken / max(1, result.size)


def default_strength(model: IsingModel) -> float:
    """sqrt(2) times the root mean square coupling times the square root of the mean degree.

    That is the scale of the torque that neighbours exert on a group (Raymond et al. 2020, uniform torque compensation).
    """
    if not model.n_edges:
        return 1.0
    degree = 2 * model.n_edges / model.n_sites
    strength = math.sqrt(2 * float(np.mean(model.couplings**2)) * degree)
    return strength if strength > 0 else 1.0


def find_embedding(
    model: IsingModel,
    topology: TopologyBase,
    *,
    seed: int = 0,
    strength: float | None = None,
    avoid: Sequence[int] = (),
) -> Embedding:
    """Search for an embedding of the model's graph in the device's, without the sites to avoid.

    Raises:
        ModelNotSupportedError: none was found.
        MissingExtraError: minorminer is not installed.
    """
    try:
        import minorminer
    except ImportError as error:
        raise missing_extra("minorminer", "interop", "embedding") from error
    source = [*map(tuple, model.edges.tolist()), *((i, i) for i in range(model.n_sites))]
    target = topology.edges()
    target = target[~np.isin(target, avoid).any(axis=1)]
    found = minorminer.find_embedding(source, target.tolist(), random_seed=seed & 0x7FFFFFFF)
    if len(found) < model.n_sites:
        raise ModelNotSupportedError(
            f"no embedding of {model.n_sites} sites and {model.n_edges} couplings into the {topology.describe()} was"
            " found; try another seed, a sparser model or a larger device"
        )
    groups = tuple(np.array(sorted(found[i]), dtype=np.int32) for i in range(model.n_sites))
    return Embedding(groups, topology.n_sites, default_strength(model) if strength is None else strength)


def embed_model(model: IsingModel, embedding: Embedding, topology: TopologyBase) -> IsingModel:
    """The model on the device's sites: fields and couplings divided evenly, groups held by `strength`.

    Its energy at an unbroken state is the model's plus a constant, the energy of the groups.
    """
    owner = embedding.owner
    edges = topology.edges()
    a, b = owner[edges[:, 0]], owner[edges[:, 1]]
    used = (a >= 0) & (b >= 0)
    edges, low, high = edges[used], np.minimum(a, b)[used], np.maximum(a, b)[used]
    inside = low == high
    codes = low.astype(np.int64) * model.n_sites + high
    model_codes = model.edges[:, 0].astype(np.int64) * model.n_sites + model.edges[:, 1]
    by_code = np.argsort(model_codes)
    where = np.searchsorted(model_codes[by_code], codes).clip(0, max(0, model.n_edges - 1))
    couplings = np.zeros(len(edges))
    wanted = inside.copy()
    if model.n_edges:
        index = by_code[where]
        between = ~inside & (model_codes[index] == codes)
        shares = np.bincount(index[between], minlength=model.n_edges)
        couplings[between] = model.couplings[index[between]] / shares[index[between]]
        wanted |= between
    couplings[inside] = embedding.strength
    fields = embedding.spread(np.asarray(model.fields), 0, divide=True)
    return IsingModel(fields, edges[wanted], couplings[wanted])
