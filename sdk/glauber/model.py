"""What to sample: Ising and Potts models as arrays, and their conversions.

Sign convention of the whole SDK (docs/decisions/0002): minus signs in front, every coupling once, beta never inside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glauber.checks import finite_array, real_numbers, whole_number
from glauber.errors import InvalidModelError, missing_extra
from glauber.sums import sum_by_row, weighted_rows

if TYPE_CHECKING:
    import dimod
    import networkx

MAX_POTTS_STATES = 65_536


def _edges(edges: ArrayLike, n_sites: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Edges as a read-only (m, 2) int32 array with i < j, and which of them were turned round to get there."""
    try:
        raw = np.asarray(edges)
    except ValueError as error:
        raise InvalidModelError(f"edges must have shape (n_edges, 2): {error}") from error
    if raw.size == 0:
        raw = np.zeros((0, 2), dtype=np.int64)
    if raw.ndim != 2 or raw.shape[1] != 2:
        raise InvalidModelError(f"edges must have shape (n_edges, 2), not {raw.shape}")
    if not np.issubdtype(raw.dtype, np.integer):
        raise InvalidModelError(f"edges must be pairs of site numbers (integers), not of dtype {raw.dtype}")
    out_of_range = ((raw < 0) | (raw >= n_sites)).any(axis=1)
    if out_of_range.any():
        k = int(out_of_range.argmax())
        raise InvalidModelError(f"edge {k} is {tuple(raw[k].tolist())}, but sites go from 0 to {n_sites - 1}")
    loops = raw[:, 0] == raw[:, 1]
    if loops.any():
        k = int(loops.argmax())
        raise InvalidModelError(f"edge {k} joins site {int(raw[k, 0])} to itself; put such a term into the fields")
    turned = raw[:, 0] > raw[:, 1]
    pairs = np.sort(raw, axis=1).astype(np.int32)
    codes = pairs[:, 0].astype(np.int64) * n_sites + pairs[:, 1]
    order = np.argsort(codes, kind="stable")
    repeats = np.flatnonzero(codes[order][1:] == codes[order][:-1])
    if repeats.size:
        k = int(order[repeats[0] + 1])
        pair = (int(pairs[k, 0]), int(pairs[k, 1]))
        raise InvalidModelError(f"edge {k} joins sites {pair} a second time; add the two couplings and give one edge")
    pairs.setflags(write=False)
    return pairs, turned


def _triples(edges: Iterable[tuple[int, int, float]]) -> tuple[NDArray[np.integer[Any]], NDArray[np.float64]]:
    """(pairs, couplings) of (i, j, J) triples."""
    try:
        triples = list(edges)
        pairs = np.array([(i, j) for i, j, _ in triples]) if triples else np.zeros((0, 2), np.int32)
        couplings = [J for _, _, J in triples]
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidModelError(f"edges must be triples (i, j, J): {error}") from error
    if not np.issubdtype(pairs.dtype, np.integer):
        raise InvalidModelError(f"edges must join site numbers (integers), not {pairs.dtype}")
    return pairs, real_numbers("couplings", couplings)


def _digest(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _set(instance: object, **values: Any) -> None:
    """Set the fields of a frozen instance that is being made."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)


def _labels(labels: Sequence[Hashable] | None, n_sites: int) -> tuple[Hashable, ...] | None:
    if labels is None:
        return None
    try:
        result = tuple(labels)
        different = len(set(result))
    except TypeError as error:
        raise InvalidModelError(f"labels must be {n_sites} hashable names: {error}") from error
    if len(result) != n_sites or different != n_sites:
        raise InvalidModelError(f"labels must be {n_sites} different names, one a site; got {len(result)}")
    return None if result == tuple(range(n_sites)) else result


ENERGY_STATES, ENERGY_TERMS = 256, 1024
"""States and terms of energies that are added up at a time: few enough to stay in a core's cache as floats."""


@dataclass(frozen=True, slots=True, eq=False, init=False)
class IsingModel:
    """An Ising model: E(s) = offset - sum_i h_i s_i - sum_(i<j) J_ij s_i s_j, with s_i = -1 or +1.

    The law is P(s) ~ exp(-beta E(s)); beta belongs to the schedule. A positive J aligns two spins.

    Attributes:
        fields: h, shape (n_sites,).
        edges: pairs i < j, shape (n_edges, 2), in the order given.
        couplings: J, shape (n_edges,).
        offset: a constant added to every energy.
        labels: the user's names of the sites, or None for 0 .. n_sites - 1.
        graph_key: a digest of n_sites and the edges; equal for models that differ in coefficients only.

    Raises:
        InvalidModelError: for NaN or infinity, wrong shapes, self-loops, duplicate edges, indices out of range.
    """

    fields: NDArray[np.float64]
    edges: NDArray[np.int32]
    couplings: NDArray[np.float64]
    offset: float
    labels: tuple[Hashable, ...] | None
    graph_key: str = field(repr=False)
    _key: list[str] = field(repr=False)

    def __init__(
        self,
        fields: ArrayLike,
        edges: ArrayLike,
        couplings: ArrayLike,
        offset: float = 0.0,
        labels: Sequence[Hashable] | None = None,
    ) -> None:
        shape = np.shape(fields)
        if len(shape) != 1:
            raise InvalidModelError(f"fields must have shape (n_sites,), not {shape}")
        n = whole_number("the number of sites", shape[0], 1)
        pairs, _ = _edges(edges, n)
        _set(
            self,
            fields=finite_array("fields", fields, (n,)),
            edges=pairs,
            couplings=finite_array("couplings", couplings, (len(pairs),)),
            offset=float(finite_array("offset", offset, ())),
            labels=_labels(labels, n),
            graph_key=_digest(n.to_bytes(8, "little"), pairs.tobytes()),
            _key=[],
        )

    @property
    def n_sites(self) -> int:
        """How many spins the model has."""
        return len(self.fields)

    @property
    def n_edges(self) -> int:
        """How many couplings the model has."""
        return len(self.couplings)

    @property
    def key(self) -> str:
        """A digest of the whole model but its labels: equal keys mean equal energies for every state."""
        if not self._key:
            offset = np.float64(self.offset).tobytes()
            self._key.append(
                _digest(b"ising", self.graph_key.encode(), self.fields.tobytes(), self.couplings.tobytes(), offset)
            )
        return self._key[0]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IsingModel) and self.key == other.key and self.labels == other.labels

    def __hash__(self) -> int:
        return hash(self.key)

    def replace(self, *, fields: ArrayLike | None = None, couplings: ArrayLike | None = None) -> Self:
        """The same graph with other coefficients, without checking the edges again: for training loops."""
        model = object.__new__(type(self))
        _set(
            model,
            fields=self.fields if fields is None else finite_array("fields", fields, (self.n_sites,)),
            edges=self.edges,
            couplings=self.couplings if couplings is None else finite_array("couplings", couplings, (self.n_edges,)),
            offset=self.offset,
            labels=self.labels,
            graph_key=self.graph_key,
            _key=[],
        )
        return model

    def energies(self, spins: ArrayLike) -> NDArray[np.float64]:
        """Energies of spin states, shape (..., n_sites) of -1 and +1; returns shape (...)."""
        states = np.asarray(spins)
        if states.ndim < 1 or states.shape[-1] != self.n_sites:
            raise InvalidModelError(f"spins have shape {states.shape}; the last axis must be {self.n_sites} long")
        flat = states.reshape(-1, self.n_sites).astype(np.int8)
        if not (np.abs(flat) == 1).all() or not np.array_equal(flat, states.reshape(-1, self.n_sites)):
            raise InvalidModelError("spins must be -1 or +1")
        result = np.full(len(flat), self.offset)
        for start in range(0, len(flat), ENERGY_STATES):
            part = flat[start : start + ENERGY_STATES]
            columns = np.ascontiguousarray((part if len(part) > 1 else np.repeat(part, 2, axis=0)).T)
            energies = np.zeros(columns.shape[1])
            for first in range(0, self.n_sites, ENERGY_TERMS):
                energies += weighted_rows(
                    self.fields[first : first + ENERGY_TERMS], columns[first : first + ENERGY_TERMS]
                )
            for first in range(0, self.n_edges, ENERGY_TERMS):
                edges = slice(first, first + ENERGY_TERMS)
                spins = columns[self.edges[edges, 0]]
                spins *= columns[self.edges[edges, 1]]
                energies += weighted_rows(self.couplings[edges], spins)
            result[start : start + ENERGY_STATES] -= energies[: len(part)]
        return result.reshape(states.shape[:-1])

    # Constructors and conversions

    @classmethod
    def from_edges(
        cls,
        edges: Iterable[tuple[int, int, float]],
        biases: Mapping[int, float] | None = None,
        *,
        n_sites: int | None = None,
        offset: float = 0.0,
    ) -> Self:
        """A model from (i, j, J) triples and fields by site; n_sites is one more than the largest index by default."""
        pairs, couplings = _triples(edges)
        try:
            named = dict(biases or {})
        except (TypeError, ValueError) as error:
            raise InvalidModelError(f"biases must map sites to fields: {error}") from error
        wrong = [k for k in named if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 0]
        if wrong:
            raise InvalidModelError(f"biases has site {wrong[0]!r}; sites are numbers from 0")
        largest = max([-1 if not len(pairs) else int(pairs.max()), *(int(k) for k in named)])
        n = whole_number("n_sites", largest + 1 if n_sites is None else n_sites, 1)
        if max(named, default=0) >= n:
            raise InvalidModelError(f"biases has site {max(named)}, but sites go from 0 to {n - 1}")
        fields = np.zeros(n)
        fields[list(named)] = real_numbers("biases", list(named.values()))
        return cls(fields, pairs, couplings, offset)

    @classmethod
    def from_dense(cls, couplings: ArrayLike, fields: ArrayLike | None = None, *, offset: float = 0.0) -> Self:
        """A model from a symmetric matrix with zero diagonal: J[i, j] is the coupling of the pair, counted once."""
        matrix = real_numbers("couplings", couplings)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise InvalidModelError(f"a dense coupling matrix must be square, not of shape {matrix.shape}")
        if not np.array_equal(matrix, matrix.T, equal_nan=True):
            raise InvalidModelError("the coupling matrix is not symmetric; give (J + J.T) / 2, or use from_edges")
        if np.any(np.diagonal(matrix) != 0):
            raise InvalidModelError("the coupling matrix has a diagonal; s_i s_i = 1, so move it into the offset")
        i, j = np.nonzero(np.triu(matrix, 1))
        h = np.zeros(len(matrix)) if fields is None else fields
        return cls(np.asarray(h), np.stack([i, j], axis=1), matrix[i, j], offset)

    @classmethod
    def from_networkx(cls, graph: networkx.Graph, *, coupling: str = "weight", bias: str = "bias") -> Self:
        """A model from a graph: J from the edge attribute (1 where missing), h from the node's (0 where missing)."""
        names = list(graph.nodes)
        index = {name: k for k, name in enumerate(names)}
        triples = [(index[a], index[b], data.get(coupling, 1.0)) for a, b, data in graph.edges(data=True)]
        fields = {index[name]: data[bias] for name, data in graph.nodes(data=True) if bias in data}
        model = cls.from_edges(triples, fields, n_sites=len(names))
        return cls(model.fields, model.edges, model.couplings, labels=tuple(names))

    @classmethod
    def from_qubo(cls, qubo: Mapping[Any, float] | ArrayLike, *, offset: float = 0.0) -> Self:
        """A model whose energies are sum_ij Q_ij x_i x_j + offset with x = (1 + s) / 2.

        Args:
            qubo: a square matrix, or a mapping from pairs of labels; (i, j) and (j, i) add up, (i, i) is linear.
            offset: a constant added to every energy.
        """
        if isinstance(qubo, Mapping):
            try:
                names: list[Hashable] = list(dict.fromkeys(name for a, b in qubo for name in (a, b)))
            except (TypeError, ValueError) as error:
                raise InvalidModelError(f"a QUBO's keys must be pairs of labels: {error}") from error
            if set(names) == set(range(len(names))):
                names = list(range(len(names)))  # plain indices keep their meaning in whatever order they come
            index = {name: k for k, name in enumerate(names)}
            values = real_numbers("QUBO entries", list(qubo.values())).tolist()
            entries = [(index[a], index[b], value) for (a, b), value in zip(qubo, values, strict=True)]
        else:
            matrix = real_numbers("the QUBO matrix", qubo)
            if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
                raise InvalidModelError(f"a QUBO matrix must be square, not of shape {matrix.shape}")
            names = list(range(len(matrix)))
            rows, columns = np.nonzero(matrix)
            entries = [(int(a), int(b), float(matrix[a, b])) for a, b in zip(rows, columns, strict=True)]
        fields = np.zeros(len(names))
        couplings: dict[tuple[int, int], float] = {}
        for a, b, value in entries:
            if a == b:  # Q x = Q / 2 + Q s / 2
                fields[a] -= value / 2
                offset += value / 2
            else:  # Q x y = Q / 4 (1 + s + t + s t)
                pair = (min(a, b), max(a, b))
                couplings[pair] = couplings.get(pair, 0.0) - value / 4
                fields[a] -= value / 4
                fields[b] -= value / 4
                offset += value / 4
        pairs = np.array(list(couplings), dtype=np.int64).reshape(-1, 2)
        return cls(fields, pairs.astype(np.int32), np.array(list(couplings.values())), offset, tuple(names))

    def to_qubo(self) -> tuple[dict[tuple[Hashable, Hashable], float], float]:
        """(Q, offset) with E(s) = sum Q_ij x_i x_j + offset for x = (1 + s) / 2; keys are labels, upper triangle."""
        names = self.labels if self.labels is not None else tuple(range(self.n_sites))
        linear = -2.0 * self.fields
        offset = self.offset + float(self.fields.sum())
        quadratic: dict[tuple[Hashable, Hashable], float] = {}
        for (i, j), J in zip(self.edges.tolist(), self.couplings.tolist(), strict=True):
            # -J s t with s = 2 x - 1: -4 J x y + 2 J x + 2 J y - J
            quadratic[names[i], names[j]] = -4.0 * J
            linear[i] += 2.0 * J
            linear[j] += 2.0 * J
            offset -= J
        return {**{(names[i], names[i]): float(linear[i]) for i in range(self.n_sites)}, **quadratic}, offset

    @classmethod
    def from_bqm(cls, bqm: dimod.BinaryQuadraticModel) -> Self:
        """A model from a dimod BQM of either vartype; dimod's spin energies have plus signs, ours minus."""
        if not hasattr(bqm, "change_vartype"):
            raise InvalidModelError(f"from_bqm takes a dimod BinaryQuadraticModel, not {type(bqm).__name__}")
        spin = bqm.change_vartype("SPIN", inplace=False)  # type: ignore[arg-type, unused-ignore]
        names = tuple(spin.variables)
        if set(names) == set(range(len(names))):
            names = tuple(range(len(names)))  # plain indices keep their meaning whatever order dimod met them in
        index = {name: k for k, name in enumerate(names)}
        fields = np.array([-float(spin.linear[name]) for name in names])
        pairs = np.array([(index[a], index[b]) for a, b in spin.quadratic], dtype=np.int32).reshape(-1, 2)
        couplings = np.array([-float(value) for value in spin.quadratic.values()])
        return cls(fields, pairs, couplings, float(spin.offset), names)

    def to_bqm(self) -> dimod.BinaryQuadraticModel:
        """The same energies as a dimod BQM of vartype SPIN."""
        try:
            import dimod
        except ImportError as error:
            raise missing_extra("dimod", "interop", "to_bqm()") from error
        names = self.labels if self.labels is not None else tuple(range(self.n_sites))
        bqm = dimod.BinaryQuadraticModel("SPIN")
        bqm.add_linear_from((name, -h) for name, h in zip(names, self.fields.tolist(), strict=True))
        edges = zip(self.edges.tolist(), self.couplings.tolist(), strict=True)
        bqm.add_quadratic_from((names[i], names[j], -J) for (i, j), J in edges)
        bqm.offset = self.offset
        return bqm


@dataclass(frozen=True, slots=True, eq=False, init=False)
class PottsModel:
    """A Potts model of q states: E(s) = offset - sum_i h_i[s_i] - sum_edges J_ij[s_i, s_j], with s_i = 0 .. q - 1.

    Attributes:
        fields: h, shape (n_sites, q).
        edges: pairs i < j, shape (n_edges, 2).
        couplings: shape (n_edges,) for J_ij times delta(s_i, s_j), (q, q) for one table shared by all edges, or
            (n_edges, q, q) for a table per edge; tables are indexed [state of the edge's first site, of its second].
        allowed: which states each site may take, Boolean of shape (n_sites, q), or None for all.
        offset: a constant added to every energy.
        graph_key: a digest of n_sites and the edges.

    Raises:
        InvalidModelError: for q < 2, NaN, wrong shapes, self-loops, duplicate edges, or a site that may take no state.
    """

    fields: NDArray[np.float64]
    edges: NDArray[np.int32]
    couplings: NDArray[np.float64]
    allowed: NDArray[np.bool_] | None
    offset: float
    graph_key: str = field(repr=False)
    _key: list[str] = field(repr=False)

    def __init__(
        self,
        fields: ArrayLike,
        edges: ArrayLike,
        couplings: ArrayLike,
        allowed: ArrayLike | None = None,
        offset: float = 0.0,
    ) -> None:
        shape = np.shape(fields)
        if len(shape) != 2:
            raise InvalidModelError(f"Potts fields must have shape (n_sites, n_states), not {shape}")
        n = whole_number("the number of sites", shape[0], 1)
        q = whole_number("the number of states", shape[1], 2, MAX_POTTS_STATES)
        pairs, turned = _edges(edges, n)
        m = len(pairs)
        shapes = {1: (m,), 2: (q, q), 3: (m, q, q)}
        ndim = np.ndim(couplings)
        if ndim not in shapes:
            raise InvalidModelError(f"couplings must have shape {(m,)}, {(q, q)} or {(m, q, q)}, not {ndim} axes")
        tables = finite_array("couplings", couplings, shapes[ndim])
        if turned.any() and ndim == 2 and not np.array_equal(tables, tables.T):
            tables = np.broadcast_to(tables, (m, q, q)).copy()
        if turned.any() and tables.ndim == 3:
            tables = np.where(turned[:, None, None], tables.swapaxes(1, 2), tables)
        tables.setflags(write=False)
        mask = None
        if allowed is not None:
            try:
                mask = np.array(allowed)
            except ValueError as error:
                raise InvalidModelError(f"allowed must be Boolean of shape {(n, q)}: {error}") from error
            if mask.dtype != np.bool_:
                raise InvalidModelError(f"allowed must be Boolean, not {mask.dtype}")
            if mask.shape != (n, q):
                raise InvalidModelError(f"allowed has shape {mask.shape}, but shape {(n, q)} is needed")
            if not mask.any(axis=1).all():
                raise InvalidModelError(f"site {int(mask.any(axis=1).argmin())} is allowed no state at all")
            mask.setflags(write=False)
        _set(
            self,
            fields=finite_array("fields", fields, (n, q)),
            edges=pairs,
            couplings=tables,
            allowed=mask,
            offset=float(finite_array("offset", offset, ())),
            graph_key=_digest(n.to_bytes(8, "little"), pairs.tobytes()),
            _key=[],
        )

    @classmethod
    def from_edges(cls, n_sites: int, n_states: int, edges: Iterable[tuple[int, int, float]]) -> Self:
        """A standard Potts model without fields from (i, j, J) triples: J favours equal states."""
        pairs, couplings = _triples(edges)
        n, q = whole_number("n_sites", n_sites, 1), whole_number("n_states", n_states, 2, MAX_POTTS_STATES)
        return cls(np.zeros((n, q)), pairs, couplings)

    @property
    def n_sites(self) -> int:
        """How many Potts spins the model has."""
        return int(self.fields.shape[0])

    @property
    def n_states(self) -> int:
        """How many states each spin has."""
        return int(self.fields.shape[1])

    @property
    def n_edges(self) -> int:
        """How many pairs interact."""
        return len(self.edges)

    @property
    def key(self) -> str:
        """A digest of the whole model: equal keys mean equal energies for every state."""
        if not self._key:
            allowed = b"" if self.allowed is None else np.packbits(self.allowed).tobytes()
            shape = repr((self.fields.shape, self.couplings.shape)).encode()
            arrays = (self.fields.tobytes(), self.couplings.tobytes(), np.float64(self.offset).tobytes(), allowed)
            self._key.append(_digest(b"potts", self.graph_key.encode(), shape, *arrays))
        return self._key[0]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PottsModel) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def edge_tables(self) -> NDArray[np.float64]:
        """Couplings as a table per edge, shape (n_edges, q, q), whatever form they were given in."""
        if self.couplings.ndim == 1:
            return self.couplings[:, None, None] * np.eye(self.n_states)
        return np.broadcast_to(self.couplings, (self.n_edges, self.n_states, self.n_states))

    def energies(self, states: ArrayLike) -> NDArray[np.float64]:
        """Energies of states, shape (..., n_sites) of integers 0 .. q - 1; +inf where a state is not allowed."""
        given = np.asarray(states)
        if given.ndim < 1 or given.shape[-1] != self.n_sites or not np.issubdtype(given.dtype, np.integer):
            raise InvalidModelError(f"states must be integers of shape (..., {self.n_sites}), not {given.shape}")
        flat = given.reshape(-1, self.n_sites).astype(np.int64)
        if flat.size and (flat.min() < 0 or flat.max() >= self.n_states):
            raise InvalidModelError(f"states must lie from 0 to {self.n_states - 1}")
        sites = np.arange(self.n_sites)
        result = self.offset - sum_by_row(self.fields[sites, flat])
        if self.n_edges:
            a, b = flat[:, self.edges[:, 0]], flat[:, self.edges[:, 1]]
            if self.couplings.ndim == 1:
                result -= sum_by_row((a == b) * self.couplings)
            elif self.couplings.ndim == 2:
                result -= sum_by_row(self.couplings[a, b])
            else:
                result -= sum_by_row(self.couplings[np.arange(self.n_edges), a, b])
        if self.allowed is not None:
            result = np.where(self.allowed[sites, flat].all(axis=1), result, np.inf)
        return np.asarray(result.reshape(given.shape[:-1]), dtype=np.float64)


Model = IsingModel | PottsModel
