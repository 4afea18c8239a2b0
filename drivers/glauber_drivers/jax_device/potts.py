"""A Potts run in progress on JAX (docs/machine.md, section 9)."""
# pyright: reportMissingImports=false

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from glauber.compile import PottsProgram, Run
from glauber.samples import Moments
from numpy.typing import NDArray

from glauber_drivers.jax_device import machine
from glauber_drivers.jax_device.ising import padded_betas
from glauber_drivers.jax_device.machine import CATEGORICAL, START
from glauber_drivers.jax_device.rows import Colours, Rows, colours_of, padded, rows_of, width_of


@dataclass(frozen=True)
class Form:
    """What a compiled function is compiled for, beside the shapes of its arrays."""

    n_sites: int
    n_states: int
    n_chains: int
    first_chain: int
    stream: int
    width: int
    moments: bool
    kept: int


class Job(NamedTuple):
    """What stays the same in a run; arrays by position, padded by `width`.

    Attributes:
        seed: uint64.
        b: uint64, one for each sweep, the last repeated.
        colours: see Colours.
        rows: see Rows.
        weight: int32 (n_sites + width, degree), what an equal neighbour adds; None with tables.
        table: all tables, flat, int32; None without.
        table_start: int64 (n_sites + width, degree).
        field: int32 (n_sites + width, 1 or n_chains, n_states).
        allowed: Boolean (n_sites + width, 1, n_states).
        clamp: int32 (n_sites + width, 1 or n_chains); -1 where a spin is free.
        site_of: position of each site.
    """

    seed: Any
    b: Any
    colours: Colours
    rows: Rows
    weight: Any
    table: Any
    table_start: Any
    field: Any
    allowed: Any
    clamp: Any
    site_of: Any


class State(NamedTuple):
    """States by position, int32 (n_sites + width, n_chains), and how often each was counted."""

    spins: Any
    counts: Any


def potts_dtype(n_states: int) -> type[np.unsignedinteger]:
    """The smallest unsigned type that holds a state."""
    return np.uint8 if n_states <= 2**8 else np.uint16 if n_states <= 2**16 else np.uint32


def _words(job: Job, form: Form, purpose: int, sweep: Any) -> Any:
    """The random word of each position and chain, uint32 (n_sites, n_chains)."""
    key = machine.key_of(job.seed, purpose, 0, form.stream, sweep)
    groups, chains = jnp.arange(-(-form.n_sites // 4))[:, None], (form.first_chain + jnp.arange(form.n_chains))[None]
    words = machine.threefry4x32(key, (groups, machine.halves(sweep)[0], chains, 0))
    return jnp.stack(words, axis=1).reshape(-1, form.n_chains)[: form.n_sites]


def _field(job: Job, form: Form, spins: Any, begin: Any) -> Any:
    """Fields of all states of the positions from `begin` on, int32 (width, n_chains, n_states)."""
    slab = partial(jax.lax.dynamic_slice_in_dim, start_index=begin, slice_size=form.width)
    field = jnp.broadcast_to(slab(job.field), (form.width, form.n_chains, form.n_states))
    neighbour, entry, states = slab(job.rows.neighbour), slab(job.rows.entry), jnp.arange(form.n_states)

    def one(k: Any, field: Any) -> Any:
        theirs = spins[neighbour[:, k]][..., None]
        if job.weight is not None:
            return field + jnp.where(states == theirs, slab(job.weight)[:, k, None, None], 0)
        at = slab(job.table_start)[:, k, None, None] + theirs.astype(jnp.int64) * form.n_states + states
        return field + jnp.where(entry[:, k, None, None] >= 0, job.table[at], 0)

    return jax.lax.fori_loop(0, neighbour.shape[1], one, field)


def _drawn(field: Any, allowed: Any, b: Any, u: Any) -> Any:
    """States from fields (..., n_states) and random words (...)."""
    q = field.shape[-1]
    bits = (q - 1).bit_length()
    best = jnp.where(allowed, field, jnp.iinfo(jnp.int32).min).max(axis=-1, keepdims=True)
    e = machine.exp2(machine.scale(machine.u64(jnp.where(allowed, best - field, 0)), b))
    weights = jnp.where(allowed, e >> (31 + bits if q <= 64 else bits), jnp.uint64(0))
    sums = jnp.cumsum(weights, axis=-1)
    return (sums <= machine.share_of(u, sums[..., -1])[..., None]).sum(axis=-1).astype(jnp.int32)


def _sweep(job: Job, form: Form, spins: Any, sweep: Any) -> Any:
    u = jnp.pad(_words(job, form, CATEGORICAL, sweep), ((0, form.width), (0, 0)))
    b = job.b[jnp.minimum(sweep, len(job.b)).astype(jnp.int32) - 1]

    def colour(c: Any, spins: Any) -> Any:
        begin, end = job.colours.begin[c], job.colours.end[c]
        slab = partial(jax.lax.dynamic_slice_in_dim, start_index=begin, slice_size=form.width)
        old = slab(spins)
        new = _drawn(_field(job, form, spins, begin), slab(job.allowed), b, slab(u))
        mine = (begin + jnp.arange(form.width) < end)[:, None] & (slab(job.clamp) < 0)
        return jax.lax.dynamic_update_slice_in_dim(spins, jnp.where(mine, new, old), begin, 0)

    return jax.lax.fori_loop(0, len(job.colours.begin), colour, spins)


@partial(jax.jit, static_argnames="form")
def _advance(job: Job, state: State, first: Any, n: Any, every: Any, keep: Any, *, form: Form) -> tuple[State, Any]:
    """Do n times `every` sweeps; the states after each are returned, and counted if `keep` is 1."""

    def one_sweep(i: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        spins, sweep = carry
        return _sweep(job, form, spins, sweep), sweep + 1

    def one_sample(i: Any, carry: tuple[State, Any, Any]) -> tuple[State, Any, Any]:
        (spins, counts), sweep, kept = carry
        spins, sweep = jax.lax.fori_loop(0, every, one_sweep, (spins, sweep))
        if form.moments:
            counts = counts + keep * (spins[job.site_of].T[..., None] == jnp.arange(form.n_states))
        if form.kept:
            kept = jax.lax.dynamic_update_index_in_dim(kept, spins[job.site_of].T.astype(kept.dtype), i, 1)
        return State(spins, counts), sweep, kept

    room = jnp.zeros((form.n_chains, form.kept, form.n_sites), potts_dtype(form.n_states))
    state, _, kept = jax.lax.fori_loop(0, n, one_sample, (state, first, room))
    return state, kept


class PottsSession:
    """A run in progress; call all methods under `machine.x64`. Arguments as of IsingSession."""

    def __init__(self, program: PottsProgram, run: Run, kept: int) -> None:
        order, n, q, width = program.order, program.n_sites, program.n_states, width_of(program)
        self._run, self._dtype = run, potts_dtype(q)
        self._form = Form(
            n_sites=n,
            n_states=q,
            n_chains=run.n_chains,
            first_chain=run.first_chain,
            stream=run.stream,
            width=width,
            moments="moments" in run.observe,
            kept=kept if "samples" in run.observe else 0,
        )
        rows = rows_of(program)
        entry = np.asarray(rows.entry)
        fields = program.field[None] if run.fields is None else run.fields
        allowed = np.ones((n, q), dtype=bool) if program.allowed is None else program.allowed
        clamp = np.full((1, n), -1, np.int32) if run.clamp is None else run.clamp.astype(np.int32)
        by_rows = {"weight": program.weight, "table_start": program.table_start}
        self._job = Job(
            seed=jnp.uint64(run.seed),
            b=jnp.asarray(padded_betas(run)),
            colours=colours_of(program),
            rows=rows,
            table=None if program.table is None else jnp.asarray(program.table),
            field=padded(np.ascontiguousarray(fields[:, order.site].swapaxes(0, 1)), width),
            allowed=padded(allowed[order.site][:, None], width),
            clamp=padded(np.ascontiguousarray(clamp[:, order.site].T), width),
            site_of=jnp.asarray(order.position),
            **{
                name: None if of is None else jnp.asarray(np.where(entry >= 0, of[entry], 0) if of.size else entry * 0)
                for name, of in by_rows.items()
            },
        )
        spins = self._start(program, clamp[:, order.site].T, allowed[order.site])
        self._count, counts = 0, np.zeros((run.n_chains, n, q) if self._form.moments else (0, 0, 0), np.int64)
        if self._form.moments and run.initial_moments is not None:
            self._count, counts = run.initial_moments[0], run.initial_moments[1].astype(np.int64)
        self._state = State(padded(spins, width), jnp.asarray(counts))
        self.advance(run.first_sweep, 0, 1)  # compiles

    def _start(self, program: PottsProgram, clamp: NDArray[Any], allowed: NDArray[np.bool_]) -> NDArray[np.int32]:
        """States (n_sites, n_chains) before the first sweep: those given or random ones, under the clamps."""
        if self._run.initial is not None:
            spins = self._run.initial[:, program.order.site].T.astype(np.int32)
        else:
            u = np.asarray(_words(self._job, self._form, START, 0)).astype(np.uint64)
            spins = np.empty(u.shape, np.int32)
            for position, mask in enumerate(allowed):
                states = np.flatnonzero(mask)
                spins[position] = states[(u[position] * np.uint64(len(states)) >> np.uint64(32)).astype(np.int64)]
        return np.where(clamp >= 0, clamp, spins).astype(np.int32)

    @property
    def kernel(self) -> str:
        """How fields are computed."""
        return "potts, rows"

    def advance(self, first_sweep: int, n_sweeps: int, every: int) -> NDArray[np.unsignedinteger]:
        """See IsingSession.advance."""
        n, step = (n_sweeps // every, every) if every else (1, n_sweeps)
        keep, first = jnp.int64(1 if every else 0), jnp.uint64(first_sweep)
        self._state, kept = _advance(self._job, self._state, first, n, step, keep, form=self._form)
        if every:
            self._count += n
        return np.asarray(kept)[:, : n if every else 0]

    def state(self) -> NDArray[np.unsignedinteger]:
        """The present states by site."""
        return np.asarray(self._state.spins[self._job.site_of]).T.astype(self._dtype)

    def moments(self) -> Moments | None:
        """Counts so far, if they are asked for."""
        return Moments(self._count, np.array(self._state.counts), None) if self._form.moments else None

    def exchanges(self) -> None:
        """Potts models are not tempered."""
