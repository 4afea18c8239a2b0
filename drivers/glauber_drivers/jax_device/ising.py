"""An Ising run in progress on JAX: colours as slices, sweeps as loops inside one compiled function."""
# pyright: reportMissingImports=false

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from glauber.compile import Program, Run, unpack_spins
from glauber.samples import Moments
from numpy.typing import NDArray

from glauber_drivers.jax_device import machine
from glauber_drivers.jax_device.machine import DECISION, EXCHANGE, METROPOLIS, START
from glauber_drivers.jax_device.rows import Colours, Rows, colours_of, is_dense, padded, rows_of, width_of


@dataclass(frozen=True)
class Form:
    """What a compiled function is compiled for, beside the shapes of its arrays."""

    n_sites: int
    n_chains: int
    first_chain: int
    layout: int
    stream: int
    width: int
    metropolis: bool
    ladders: int
    moments: bool
    kept: int


class Job(NamedTuple):
    """What stays the same in a run.

    Attributes:
        seed: uint64.
        b: uint64: one for each sweep, the last repeated; for tempering one for each temperature.
        interval: sweeps between exchanges.
        colours: see Colours.
        rows: see Rows; None where there is a matrix.
        weight: int32 (n_sites + width, degree), of the rows' entries; or float64 (n_sites + width, n_sites).
        field: int32 (n_sites + width, 1 or n_chains), by position like all that follows.
        clamp: int8, the same shape; 0 where a spin is free.
        site_of: position of each site, int32 (n_sites,).
        edges: positions of each edge's ends, int32 (n_edges, 2).
    """

    seed: Any
    b: Any
    interval: Any
    colours: Colours
    rows: Rows | None
    weight: Any
    field: Any
    clamp: Any
    site_of: Any
    edges: Any


class State(NamedTuple):
    """What changes: spins by position, int32 (n_sites + width, n_chains), sums of moments, and counts of exchanges."""

    spins: Any
    sites: Any
    pairs: Any
    exchanges: Any


def _field(job: Job, form: Form, spins: Any, begin: Any) -> Any:
    """Fields of the positions from `begin` on, int32 (width, n_chains)."""
    slab = partial(jax.lax.dynamic_slice_in_dim, start_index=begin, slice_size=form.width)
    field = jnp.broadcast_to(slab(job.field), (form.width, form.n_chains))
    if job.rows is None:
        return field + (slab(job.weight) @ spins[: form.n_sites].astype(jnp.float64)).astype(jnp.int32)
    neighbour, weight = slab(job.rows.neighbour), slab(job.weight)

    def one(k: Any, field: Any) -> Any:
        return field + weight[:, k, None] * spins[neighbour[:, k]]

    return jax.lax.fori_loop(0, weight.shape[1], one, field)


def _b(job: Job, form: Form, sweep: Any) -> Any:
    """B of each chain in a sweep, or one for all of them."""
    if form.ladders:
        return jnp.repeat(job.b, form.ladders)[None]
    return job.b[jnp.minimum(sweep, len(job.b)).astype(jnp.int32) - 1]


def _sweep(job: Job, form: Form, spins: Any, sweep: Any) -> Any:
    purpose = METROPOLIS if form.metropolis else DECISION
    key = machine.key_of(job.seed, purpose, form.layout, form.stream, sweep)
    u = machine.uniforms(key, sweep, form.layout, form.n_sites, form.first_chain, form.n_chains)
    u = jnp.concatenate([u, jnp.zeros((form.width, form.n_chains), jnp.uint32)])
    b = _b(job, form, sweep)

    def colour(c: Any, spins: Any) -> Any:
        begin, end = job.colours.begin[c], job.colours.end[c]
        slab = partial(jax.lax.dynamic_slice_in_dim, start_index=begin, slice_size=form.width)
        field, old, number = _field(job, form, spins, begin), slab(spins), machine.u64(slab(u))
        if form.metropolis:
            new = jnp.where(number < machine.flip_thresholds(field * old, b), -old, old)
        else:
            new = jnp.where(number < machine.thresholds(field, b), jnp.int32(1), jnp.int32(-1))
        mine = (begin + jnp.arange(form.width) < end)[:, None] & (slab(job.clamp) == 0)
        return jax.lax.dynamic_update_slice_in_dim(spins, jnp.where(mine, new, old), begin, 0)

    return jax.lax.fori_loop(0, len(job.colours.begin), colour, spins)


def _energies(job: Job, form: Form, spins: Any) -> Any:
    """In steps, int64 (n_chains,)."""
    own = spins[: form.n_sites].astype(jnp.int64)
    fields = job.field[: form.n_sites].astype(jnp.int64)

    def colour(c: Any, sums: Any) -> Any:
        begin, end = job.colours.begin[c], job.colours.end[c]
        slab = partial(jax.lax.dynamic_slice_in_dim, start_index=begin, slice_size=form.width)
        inner = _field(job, form, spins, begin) - slab(job.field)
        mine = (begin + jnp.arange(form.width) < end)[:, None]
        return sums + jnp.where(mine, inner.astype(jnp.int64) * slab(spins), 0).sum(axis=0)

    twice = jax.lax.fori_loop(0, len(job.colours.begin), colour, jnp.zeros(form.n_chains, jnp.int64))
    return -(fields * own).sum(axis=0) - twice // 2


def _exchange(job: Job, form: Form, state: State, sweep: Any) -> State:
    """The exchanges of tempering after a sweep, if they are due (machine.md, section 8)."""
    ladders, temperatures = form.ladders, form.n_chains // form.ladders

    def exchanged(state: State) -> State:
        energies = _energies(job, form, state.spins).reshape(temperatures, ladders)
        gain = (energies[1:] - energies[:-1]) // 2
        pair, ladder = jnp.arange(temperatures - 1)[:, None], jnp.arange(ladders)[None]
        key = machine.key_of(job.seed, EXCHANGE, 0, form.stream, sweep)
        u = machine.threefry4x32(key, (pair, machine.halves(sweep)[0], ladder, 0))[0]
        x = machine.scale(machine.u64(jnp.abs(gain)), (job.b[1:] - job.b[:-1])[:, None])
        due = pair % 2 == ((sweep // job.interval - 1) % 2).astype(pair.dtype)
        made = due & ((gain >= 0) | (machine.u64(u) < machine.exp2(x) >> 30))
        up = jnp.concatenate([made, jnp.zeros((1, ladders), bool)])
        down = jnp.concatenate([jnp.zeros((1, ladders), bool), made])
        at = jnp.arange(form.n_chains).reshape(temperatures, ladders)
        source = jnp.where(up, at + ladders, jnp.where(down, at - ladders, at)).ravel()
        counts = jnp.stack([jnp.where(due[:, 0], ladders, 0), made.sum(axis=1)], axis=1)
        return state._replace(spins=state.spins[:, source], exchanges=state.exchanges + counts.astype(jnp.int64))

    return jax.lax.cond(sweep % job.interval == 0, exchanged, lambda state: state, state)


def _packed(job: Job, form: Form, spins: Any) -> Any:
    """By site and chain, one bit a spin: uint8 (n_chains, ceil(n_sites / 8))."""
    return jnp.packbits((spins[job.site_of] > 0).T, axis=-1, bitorder="little")


@partial(jax.jit, static_argnames="form")
def _advance(job: Job, state: State, first: Any, n: Any, every: Any, keep: Any, *, form: Form) -> tuple[State, Any]:
    """Do n times `every` sweeps; the states after each are returned, and counted if `keep` is 1."""

    def one_sweep(i: Any, carry: tuple[State, Any]) -> tuple[State, Any]:
        state, sweep = carry
        state = state._replace(spins=_sweep(job, form, state.spins, sweep))
        if form.ladders:
            state = _exchange(job, form, state, sweep)
        return state, sweep + 1

    def one_sample(i: Any, carry: tuple[State, Any, Any]) -> tuple[State, Any, Any]:
        state, sweep, kept = carry
        state, sweep = jax.lax.fori_loop(0, every, one_sweep, (state, sweep))
        if form.moments:
            own = state.spins[: form.n_sites].astype(jnp.int64)
            products = own[job.edges[:, 0]] * own[job.edges[:, 1]]
            state = state._replace(sites=state.sites + keep * own, pairs=state.pairs + keep * products)
        if form.kept:
            kept = jax.lax.dynamic_update_index_in_dim(kept, _packed(job, form, state.spins), i, 1)
        return state, sweep, kept

    room = jnp.zeros((form.n_chains, form.kept, -(-form.n_sites // 8)), jnp.uint8)
    state, _, kept = jax.lax.fori_loop(0, n, one_sample, (state, first, room))
    return state, kept


@partial(jax.jit, static_argnames="form")
def _start(job: Job, given: Any, *, form: Form) -> Any:
    """Spins (n_sites, n_chains) before the first sweep: those given or random ones, under the clamps."""
    clamp = job.clamp[: form.n_sites].astype(jnp.int32)
    if given is None:
        key = machine.key_of(job.seed, START, form.layout, form.stream, 0)
        u = machine.uniforms(key, 0, form.layout, form.n_sites, form.first_chain, form.n_chains)
        given = jnp.where(u < jnp.uint32(1 << 31), jnp.int32(1), jnp.int32(-1))
    return jnp.where(clamp != 0, clamp, given)


_pack = jax.jit(_packed, static_argnames="form")


def padded_betas(run: Run) -> NDArray[np.uint64]:
    """One b for each sweep; the last is repeated up to a power of two, so that few lengths are ever compiled."""
    if run.exchange is not None:
        return run.b
    return np.pad(run.b, (0, (1 << (len(run.b) - 1).bit_length()) - len(run.b)), mode="edge")


class IsingSession:
    """A run in progress; call all methods under `machine.x64`.

    Args:
        program: what is loaded.
        run: what is run.
        kept: samples that one `advance` returns at most.
    """

    def __init__(self, program: Program, run: Run, kept: int) -> None:
        order, n, width = program.order, program.n_sites, width_of(program)
        self._run, self._program = run, program
        self._form = Form(
            n_sites=n,
            n_chains=run.n_chains,
            first_chain=run.first_chain,
            layout=run.layout,
            stream=run.stream,
            width=width,
            metropolis=run.dynamics == "metropolis",
            ladders=0 if run.exchange is None else run.exchange.n_ladders,
            moments="moments" in run.observe,
            kept=kept if "samples" in run.observe else 0,
        )
        rows = None if is_dense(program) else rows_of(program)
        fields = program.field[None] if run.fields is None else run.fields
        clamp = np.zeros((1, n), np.int8) if run.clamp is None else run.clamp.astype(np.int8)
        self._job = Job(
            seed=jnp.uint64(run.seed),
            b=jnp.asarray(padded_betas(run)),
            interval=jnp.uint64(1 if run.exchange is None else run.exchange.every),
            colours=colours_of(program),
            rows=rows,
            weight=_matrix(program, width) if rows is None else _weights(program, rows),
            field=padded(np.ascontiguousarray(fields[:, order.site].T), width),
            clamp=padded(np.ascontiguousarray(clamp[:, order.site].T), width),
            site_of=jnp.asarray(order.position),
            edges=jnp.asarray(order.position[program.edges].reshape(-1, 2)),
        )
        given = None
        if run.initial is not None:
            spins = unpack_spins(run.initial.astype(np.uint8), n)[:, order.site].T
            given = jnp.asarray(spins.astype(np.int32))
        spins = jnp.pad(_start(self._job, given, form=self._form), ((0, width), (0, 0)))
        counts = jnp.zeros((len(run.b) - 1, 2) if run.exchange is not None else (0, 2), jnp.int64)
        self._count = 0
        sites, pairs = self._sums() if self._form.moments else (jnp.zeros((0, 0)), jnp.zeros((0, 0)))
        self._state = State(spins, sites, pairs, counts)
        self.advance(run.first_sweep, 0, 1)  # compiles

    def _sums(self) -> tuple[Any, Any]:
        """Sums of moments so far, by position: (n_sites, n_chains) and (n_edges, n_chains)."""
        run, order, before = self._run, self._program.order, self._run.initial_moments
        if before is None:
            n, m = self._program.n_sites, self._program.n_edges
            return jnp.zeros((n, run.n_chains), jnp.int64), jnp.zeros((m, run.n_chains), jnp.int64)
        self._count = before[0]
        pairs = np.zeros((run.n_chains, self._program.n_edges)) if before[2] is None else before[2]
        return jnp.asarray(before[1][:, order.site].T.astype(np.int64)), jnp.asarray(pairs.T.astype(np.int64))

    @property
    def kernel(self) -> str:
        """How fields are computed."""
        return "ising, matrix" if self._job.rows is None else "ising, rows"

    def advance(self, first_sweep: int, n_sweeps: int, every: int) -> NDArray[np.uint8]:
        """Sweeps from `first_sweep` on; every `every`-th state is kept and returned, none with 0."""
        n, step = (n_sweeps // every, every) if every else (1, n_sweeps)
        keep = jnp.int64(1 if every else 0)
        first = jnp.uint64(first_sweep)
        self._state = self._state._replace(exchanges=jnp.zeros_like(self._state.exchanges))
        self._state, kept = _advance(self._job, self._state, first, n, step, keep, form=self._form)
        if every:
            self._count += n
        return np.asarray(kept)[:, : n if every else 0]

    def state(self) -> NDArray[np.uint8]:
        """The present state, packed by site."""
        return np.asarray(_pack(self._job, spins=self._state.spins, form=self._form))

    def moments(self) -> Moments | None:
        """Sums so far, if they are asked for."""
        if not self._form.moments:
            return None
        sites = np.asarray(self._state.sites)[self._program.order.position].T
        return Moments(self._count, np.ascontiguousarray(sites), np.ascontiguousarray(np.asarray(self._state.pairs).T))

    def exchanges(self) -> NDArray[np.int64] | None:
        """Of the last `advance`."""
        return None if self._run.exchange is None else np.asarray(self._state.exchanges)


def _weights(program: Program, rows: Rows) -> Any:
    """Weights of padded rows, int32 (n_sites + width, degree), 0 where a row has ended."""
    entry = np.asarray(rows.entry)
    return jnp.asarray(np.where(entry >= 0, program.weight[entry], 0) if program.weight.size else entry * 0)


def _matrix(program: Program, width: int) -> Any:
    """Weights as a matrix by position, (n_sites + width, n_sites).

    In doubles, for which XLA has fast products: sums of integers below 2^53 are exact in any order.
    """
    order, n = program.order, program.n_sites
    matrix = np.zeros((n, n), dtype=np.float64)
    matrix[np.repeat(np.arange(n), np.diff(order.row_start)), order.neighbour] = program.weight
    return padded(matrix, width)
