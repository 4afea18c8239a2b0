"""Models, block specs and schedules of THRML (Extropic's JAX library) as glauber's, and back.

THRML's law is P(s) ~ exp(-E(s)) with beta inside of E, minus signs in front, spins Boolean with True for +1. So weights
keep their signs; an IsingEBM's beta goes to the schedule, and factors, which have none, come with beta = 1.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glauber.errors import InvalidModelError, ModelNotSupportedError, missing_extra
from glauber.model import IsingModel, Model, PottsModel
from glauber.schedule import SamplingSchedule

try:
    import thrml
except ImportError as error:
    raise missing_extra("thrml", "thrml", "the adapter of THRML") from error

import jax.numpy as jnp
from thrml.factor import FactorSamplingProgram
from thrml.models.discrete_ebm import (
    CategoricalEBMFactor,
    CategoricalGibbsConditional,
    DiscreteEBMFactor,
    SpinEBMFactor,
    SpinGibbsConditional,
)
from thrml.models.ebm import FactorizedEBM
from thrml.models.ising import IsingEBM
from thrml.pgm import DEFAULT_NODE_SHAPE_DTYPES

THRML_STATES = 256
"""THRML's categorical nodes are bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class ThrmlModel:
    """A model that came from THRML. E of THRML is beta times E of the model.

    Attributes:
        model: an IsingModel or PottsModel.
        beta: for the schedule.
        nodes: of THRML; site i is nodes[i].
    """

    model: Model
    beta: float
    nodes: tuple[Any, ...]

    def states(self, blocks: Sequence[Any], values: Sequence[ArrayLike]) -> NDArray[np.int32]:
        """States of blocks, arrays (..., block size), as states (..., n_sites); every node must be in a block.

        Raises:
            InvalidModelError: a node is missing or unknown, or a state is none of THRML's.
        """
        states, given = self._filled(blocks, values)
        if not given.all():
            raise InvalidModelError(f"{int((~given).sum())} of {len(given)} nodes are in none of the blocks")
        return states

    def clamp(self, blocks: Sequence[Any], values: Sequence[ArrayLike]) -> NDArray[np.int32]:
        """Clamped blocks and their states as the `clamp` of a job, (..., n_sites); all other sites are free.

        Raises:
            InvalidModelError: an unknown node, or a state that is none of THRML's.
        """
        states, given = self._filled(blocks, values)
        return np.where(given, states, 0 if isinstance(self.model, IsingModel) else -1)

    def blocks(self, blocks: Sequence[Any], states: ArrayLike) -> list[NDArray[Any]]:
        """States (..., n_sites) as THRML has them, an array for each block: Boolean or uint8."""
        values = np.asarray(states)
        values = values > 0 if isinstance(self.model, IsingModel) else values.astype(np.uint8)
        return [values[..., self._sites(block)] for block in blocks]

    def _sites(self, block: Any) -> NDArray[np.int64]:
        site = {node: i for i, node in enumerate(self.nodes)}
        unknown = [node for node in block if node not in site]
        if unknown:
            raise InvalidModelError(f"a block has {len(unknown)} nodes that are not the model's")
        return np.array([site[node] for node in block], dtype=np.int64)

    def _filled(
        self, blocks: Sequence[Any], values: Sequence[ArrayLike]
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        arrays = [np.asarray(value) for value in values]
        if len(blocks) != len(arrays):
            raise InvalidModelError(f"{len(blocks)} blocks need as many arrays of states, not {len(arrays)}")
        states = np.zeros((*(arrays[0].shape[:-1] if arrays else ()), self.model.n_sites), dtype=np.int32)
        given = np.zeros(self.model.n_sites, dtype=bool)
        for block, array in zip(blocks, arrays, strict=True):
            if array.shape != (*states.shape[:-1], len(block)):
                raise InvalidModelError(f"states of a block of {len(block)} nodes have shape {array.shape}")
            most = 1 if isinstance(self.model, IsingModel) else self.model.n_states - 1
            if array.size and not ((array >= 0) & (array <= most) & (array == np.floor(array))).all():
                raise InvalidModelError(
                    f"states of THRML's {'spins are False and True' if most == 1 else f'nodes here are 0 to {most}'},"
                    f" not {array.min()} to {array.max()}"
                )
            sites = self._sites(block)
            states[..., sites] = 2 * array.astype(np.int32) - 1 if isinstance(self.model, IsingModel) else array
            given[sites] = True
        return states, given


@dataclass(frozen=True, slots=True, eq=False)
class ThrmlProgram:
    """A model as a THRML program; hand its parts to THRML's functions.

    Attributes:
        nodes: one a site.
        ebm: the energy: an IsingEBM, or a FactorizedEBM for Potts models and for models without edges.
        free_blocks: one for each colour of the graph.
        clamped_blocks: one with all held sites, or none.
        clamped_states: their states.
        program: THRML's sampling program of all that.
    """

    nodes: tuple[Any, ...]
    ebm: Any
    free_blocks: list[Any]
    clamped_blocks: list[Any]
    clamped_states: list[Any]
    program: Any


# From THRML


def from_thrml(source: Any) -> ThrmlModel:
    """A model from THRML's.

    Args:
        source: an IsingEBM, another EBM with factors, or a list of factors of one or two spins, or one or two
            categorical nodes. Factors on the same nodes add up. Sites are nodes in the order in which they come.

    Raises:
        ModelNotSupportedError: a factor of three nodes or more, of spins and categorical nodes together, or of another
            kind.
        InvalidModelError: no factors, a factor of a node with itself, or a node of two numbers of states.
    """
    if isinstance(source, IsingEBM):
        terms = _Terms(source.nodes)
        terms.add([source.nodes], _floats(source.biases))
        if source.edges:
            terms.add([[a for a, _ in source.edges], [b for _, b in source.edges]], _floats(source.weights))
        return ThrmlModel(terms.ising(), float(source.beta), tuple(terms.site))
    try:
        factors = list(getattr(source, "factors", source))
    except TypeError:
        raise ModelNotSupportedError(
            f"from_thrml reads an IsingEBM, another EBM with factors, or a list of factors, not a"
            f" {type(source).__name__}"
        ) from None
    kinds = {_kind(factor) for factor in factors}
    if kinds == {"spin", "categorical"} or not factors:
        raise InvalidModelError("a model needs factors of spins, or of categorical nodes, and not of both")
    terms = _Terms([])
    for factor in factors:
        terms.add([group.nodes for group in factor.node_groups], _floats(factor.weights))
    return ThrmlModel(terms.ising() if kinds == {"spin"} else terms.potts(), 1.0, tuple(terms.site))


def schedule_from_thrml(schedule: Any, *, n_chains: int = 1, beta: float = 1.0) -> SamplingSchedule:
    """A thrml.SamplingSchedule as ours: the same states of a chain are kept.

    THRML keeps its first state right after the warm-up, and glauber one thinning later.

    Raises:
        InvalidModelError: THRML's warm-up is shorter than its thinning, which glauber cannot say.
    """
    warmup, thin = schedule.n_warmup, schedule.steps_per_sample
    if schedule.n_samples == 1:
        warmup, thin = warmup - 1, 1
    else:
        warmup -= thin
    if warmup < 0:
        raise InvalidModelError(
            f"THRML's first state would come after {schedule.n_warmup} sweeps, and glauber's after one thinning"
            f" ({schedule.steps_per_sample}) at least; warm up for as long as that"
        )
    return SamplingSchedule(
        n_samples=schedule.n_samples, n_chains=n_chains, n_warmup=warmup, sweeps_per_sample=thin, beta=beta
    )


# To THRML


def to_thrml(model: Model, *, beta: float = 1.0, clamp: ArrayLike | None = None) -> ThrmlProgram:
    """A model as a THRML program. Weights are in JAX's default float type, 32 bits unless x64 is enabled.

    Args:
        model: its offset is left out: THRML's energies have none.
        beta: inverse temperature, which is part of THRML's energies.
        clamp: (n_sites,): spins -1 and +1, 0 where a spin is free; Potts states, -1 where one is free.

    Raises:
        ModelNotSupportedError: more than 256 states, or states that are not allowed, which THRML does not know.
        InvalidModelError: a clamp of another shape or with values that are no states, or a beta that is negative or not
            finite.
    """
    ising = isinstance(model, IsingModel)
    if not (math.isfinite(beta) and beta >= 0):
        raise InvalidModelError(f"beta must be a finite number from 0 up, not {beta!r}")
    held = np.full(model.n_sites, 0 if ising else -1) if clamp is None else np.asarray(clamp)
    if held.shape != (model.n_sites,):
        raise InvalidModelError(f"clamp must have shape {(model.n_sites,)}, not {held.shape}")
    legal = (-1, 0, 1) if isinstance(model, IsingModel) else range(-1, model.n_states)
    if held.dtype == bool or not np.isin(held, legal).all():
        raise InvalidModelError(
            "clamp must be -1, +1, or 0 for a free spin" if ising else f"clamp must be {legal[1]} to {legal[-1]}, or -1"
        )
    if isinstance(model, PottsModel):
        if model.n_states > THRML_STATES:
            raise ModelNotSupportedError(f"{model.n_states} states are more than THRML's {THRML_STATES}")
        if model.allowed is not None:
            raise ModelNotSupportedError("THRML knows no states that are not allowed; give them a low field instead")
    nodes = [thrml.SpinNode() if ising else thrml.CategoricalNode() for _ in range(model.n_sites)]
    ebm = _ising_ebm(model, nodes, beta) if isinstance(model, IsingModel) else _potts_ebm(model, nodes, beta)
    is_free = held == 0 if ising else held < 0
    free: list[Any] = [
        thrml.Block([nodes[i] for i in sites]) for colour in _colours(model) if len(sites := colour[is_free[colour]])
    ]
    held_sites = np.flatnonzero(~is_free)
    clamped: list[Any] = [thrml.Block([nodes[i] for i in held_sites])] if len(held_sites) else []
    values = held[held_sites] > 0 if ising else held[held_sites].astype(np.uint8)
    potts_states = model.n_states if isinstance(model, PottsModel) else 0
    conditional: Any = CategoricalGibbsConditional(potts_states) if potts_states else SpinGibbsConditional()
    spec = thrml.BlockGibbsSpec(free, clamped, DEFAULT_NODE_SHAPE_DTYPES)
    program = FactorSamplingProgram(spec, [conditional for _ in free], ebm.factors, [])
    return ThrmlProgram(tuple(nodes), ebm, free, clamped, [jnp.asarray(values)] if clamped else [], program)


def schedule_to_thrml(schedule: SamplingSchedule) -> Any:
    """A schedule as THRML's; chains are what THRML's callers map over, and beta is in its energies."""
    thin = schedule.sweeps_per_sample
    return thrml.SamplingSchedule(
        n_warmup=schedule.n_warmup + thin, n_samples=schedule.n_samples, steps_per_sample=thin
    )


def _ising_ebm(model: IsingModel, nodes: list[Any], beta: float) -> Any:
    fields, couplings = jnp.asarray(model.fields), jnp.asarray(model.couplings)
    if model.n_edges == 0:  # an IsingEBM makes an empty block of them, which THRML refuses
        return FactorizedEBM([SpinEBMFactor([thrml.Block(nodes)], beta * fields)], DEFAULT_NODE_SHAPE_DTYPES)
    edges = [(nodes[i], nodes[j]) for i, j in model.edges.tolist()]
    return IsingEBM(nodes, edges, fields, couplings, jnp.asarray(float(beta)))


def _potts_ebm(model: PottsModel, nodes: list[Any], beta: float) -> Any:
    factors: list[Any] = [CategoricalEBMFactor([thrml.Block(nodes)], beta * jnp.asarray(model.fields))]
    if model.n_edges:
        ends = [thrml.Block([nodes[i] for i in end]) for end in model.edges.T.tolist()]
        factors.append(CategoricalEBMFactor(ends, beta * jnp.asarray(model.edge_tables())))
    return FactorizedEBM(factors, DEFAULT_NODE_SHAPE_DTYPES)


def _colours(model: Model) -> list[NDArray[np.int64]]:
    """Sites without edges among them, in the order in which glauber updates them."""
    from glauber.compile.order import order_of

    order = order_of(model.graph_key, model.n_sites, model.edges)
    return [
        order.site[a:b].astype(np.int64) for a, b in zip(order.colour_start[:-1], order.colour_start[1:], strict=True)
    ]


# Factors


def _floats(weights: Any) -> NDArray[np.float64]:
    return np.asarray(weights, dtype=np.float64)


def _kind(factor: Any) -> str:
    """Which nodes a factor has: "spin" or "categorical"."""
    if not isinstance(factor, DiscreteEBMFactor):
        raise ModelNotSupportedError(
            f"a {type(factor).__name__} has no counterpart; from_thrml reads factors of spins, and of"
            " categorical nodes, such as SpinEBMFactor and CategoricalEBMFactor"
        )
    spins, categories = len(factor.spin_node_groups), len(factor.categorical_node_groups)
    if (spins and categories) or spins + categories > 2:
        raise ModelNotSupportedError(
            f"a factor joins {spins} spins and {categories} categorical nodes; glauber's models have fields and"
            " pairs of one kind"
        )
    return "spin" if spins else "categorical"


class _Terms:
    """Fields and couplings of nodes as they are collected from factors."""

    def __init__(self, nodes: Iterable[Any]) -> None:
        self.site: dict[Any, int] = {}
        self._fields: list[tuple[int, NDArray[np.float64]]] = []
        self._pairs: dict[tuple[int, int], NDArray[np.float64]] = {}
        for node in nodes:
            self._at(node)

    def _at(self, node: Any) -> int:
        return self.site.setdefault(node, len(self.site))

    def add(self, groups: Sequence[Sequence[Any]], weights: NDArray[np.float64]) -> None:
        """The terms of one factor: parallel groups of nodes and weights (n_terms, ...)."""
        if len(groups) == 1:
            self._fields += [(self._at(node), weight) for node, weight in zip(groups[0], weights, strict=True)]
            return
        for a, b, weight in zip(*groups, weights, strict=True):
            i, j = self._at(a), self._at(b)
            if i == j:
                raise InvalidModelError(f"a factor joins node {i} to itself; such a term is a field or a constant")
            pair, term = ((i, j), weight) if i < j else ((j, i), weight.T)
            before = self._pairs.get(pair)
            if before is not None and before.shape != term.shape:
                raise InvalidModelError(f"factors of nodes {pair} have tables {before.shape} and {term.shape}")
            self._pairs[pair] = term if before is None else before + term

    def ising(self) -> IsingModel:
        """The terms as an Ising model."""
        fields = np.zeros(len(self.site))
        for i, weight in self._fields:
            fields[i] += weight
        edges = np.array(list(self._pairs), dtype=np.int32).reshape(-1, 2)
        return IsingModel(fields, edges, np.array([float(weight) for weight in self._pairs.values()]))

    def potts(self) -> PottsModel:
        """The terms as a Potts model; nodes with fewer states than others are not allowed the rest."""
        sizes: dict[int, set[int]] = {i: set() for i in self.site.values()}
        for i, weight in self._fields:
            sizes[i].add(len(weight))
        for (i, j), table in self._pairs.items():
            sizes[i].add(table.shape[0])
            sizes[j].add(table.shape[1])
        for i, found in sizes.items():
            if len(found) != 1:
                raise InvalidModelError(f"node {i} has {sorted(found)} states in its factors")
        states = np.array([min(found) for found in sizes.values()])
        n, q = len(states), int(states.max())
        fields, tables = np.zeros((n, q)), np.zeros((len(self._pairs), q, q))
        for i, weight in self._fields:
            fields[i, : len(weight)] += weight
        for table, weights in zip(tables, self._pairs.values(), strict=True):
            table[: weights.shape[0], : weights.shape[1]] = weights
        allowed = None if (states == q).all() else np.arange(q) < states[:, None]
        return PottsModel(fields, np.array(list(self._pairs), dtype=np.int32).reshape(-1, 2), tables, allowed)
