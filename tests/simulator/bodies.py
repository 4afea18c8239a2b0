"""What the tests of bit identity share: models, and runs on every body, whole or cut into resumed batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from glauber.catalogue import load_spec
from glauber.compile import AnyProgram, Run, compile_program, step_of
from glauber.driver import Batch, Events, Resamplings
from glauber.model import IsingModel, Model
from glauber.samples import Moments
from glauber_simulator import core, driver
from glauber_simulator.driver import SimulatorDriver
from numpy.typing import NDArray

THREADS = (1, 2, 3)
SEED = 0x9E3779B97F4A7C15  # both halves of the key's seed are in use


def _needs(isa: str) -> Any:
    missing = isa not in core.AVAILABLE_ISA
    needed = {
        "sse2": "an x86-64 processor",
        "avx2": "AVX2",
        "avx512": "AVX-512 F, BW, VL and DQ",
        "avx512icl": "AVX-512 with VBMI, VNNI, GFNI and BITALG",
        "neon": "an ARM64 processor",
    }.get(isa, "")
    return pytest.mark.skipif(missing, reason=f"needs {needed}; the best instruction set here is {core.BEST_ISA}")


every_isa = pytest.mark.parametrize("isa", [pytest.param(isa, marks=_needs(isa)) for isa in core.ISA_LEVELS])


# where identity tests have already shown that all instruction sets draw the same bits
best_isa_others_slowly = pytest.mark.parametrize(
    "isa",
    [
        pytest.param(isa, marks=[_needs(isa), *([] if isa == core.BEST_ISA else [pytest.mark.slow])])
        for isa in core.ISA_LEVELS
    ],
)


def has_kernel(isa: str, kernel: str) -> bool:
    """Whether an instruction set has a kernel."""
    if kernel in ("bytes", "filter"):
        return isa in ("avx2", "avx512", "avx512icl")
    return kernel != "diagonals" or isa == "avx512icl"


def compiled(model: Model) -> AnyProgram:
    return compile_program(model, step_of(model, load_spec("ideal")))


# Running


@dataclass(frozen=True)
class Outcome:
    """All that a run returned, joined over its batches."""

    samples: NDArray[Any]
    last: NDArray[Any]
    moments: Moments | None
    n_batches: int
    kernel: str = ""
    exchanges: NDArray[np.int64] | None = None
    resamplings: Resamplings | None = None
    events: Events | None = None


def joined(batches: list[Batch]) -> Outcome:
    samples = [batch.samples for batch in batches if batch.samples is not None and batch.n_samples]
    counts = [batch.first_sample for batch in batches if batch.n_samples]
    lengths = [batch.n_samples for batch in batches if batch.n_samples]
    assert counts == list(np.cumsum([0, *lengths[:-1]])), "first_sample does not count the samples before it"
    kernel = batches[-1].facts["kernel"]
    moved = [batch.exchanges for batch in batches if batch.exchanges is not None]
    return Outcome(
        samples=np.concatenate(samples, axis=1),
        last=batches[-1].state,
        moments=batches[-1].moments,
        n_batches=len(batches),
        kernel=kernel,
        exchanges=np.sum(moved, axis=0) if moved else None,
        resamplings=all_resamplings([batch.resamplings for batch in batches if batch.resamplings is not None]),
        events=all_events([batch.events for batch in batches if batch.events is not None]),
    )


def all_resamplings(parts: list[Resamplings]) -> Resamplings | None:
    if not parts:
        return None
    lowest, weights = (np.concatenate([getattr(part, name) for part in parts]) for name in ("lowest", "weights"))
    return Resamplings(lowest, weights, parts[-1].families)


def all_events(parts: list[Events]) -> Events | None:
    return Events(np.sum([part.updates for part in parts], axis=0), parts[-1].in_flight) if parts else None


def run_whole(body: str, program: AnyProgram, run: Run) -> Outcome:
    machine = SimulatorDriver(load_spec("ideal"), body)
    machine.program(program)
    return joined(list(machine.run(run)))


def run_in_parts(program: AnyProgram, run: Run, sweeps: int, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """Each batch of about `sweeps` sweeps on a fresh driver, resumed from next_sweep, state and moments alone."""
    monkeypatch.setattr(driver, "BATCH_SECONDS", 1.0)
    monkeypatch.setattr(driver, "ASSUMED_UPDATES_PER_SECOND", sweeps * run.n_chains * program.n_sites)
    batches: list[Batch] = []
    while run.first_sweep <= run.n_sweeps:
        machine = SimulatorDriver(load_spec("ideal"))
        machine.program(program)
        batch = next(machine.run(run))
        batches.append(batch)
        sums = batch.moments
        resumed = None if sums is None else (sums.n_samples, sums.sites, sums.edges)
        run = replace(run, first_sweep=batch.next_sweep, initial=batch.state, initial_moments=resumed)
        if batch.resamplings is not None and run.resample is not None:
            run = replace(run, resample=replace(run.resample, families=batch.resamplings.families))
        if batch.events is not None and run.clock is not None:
            run = replace(run, clock=replace(run.clock, in_flight=batch.events.in_flight))
    monkeypatch.undo()
    return joined(batches)


def assert_same(got: Outcome, wanted: Outcome, context: object) -> None:
    where = f"{context}"
    np.testing.assert_array_equal(got.samples, wanted.samples, err_msg=where)
    np.testing.assert_array_equal(got.last, wanted.last, err_msg=where)
    assert got.samples.dtype == wanted.samples.dtype, where
    assert got.moments is not None, where
    assert wanted.moments is not None, where
    assert got.moments.n_samples == wanted.moments.n_samples, where
    np.testing.assert_array_equal(got.moments.sites, wanted.moments.sites, err_msg=where)
    assert (got.moments.edges is None) == (wanted.moments.edges is None), where
    if wanted.moments.edges is not None:
        np.testing.assert_array_equal(got.moments.edges, wanted.moments.edges, err_msg=where)
    np.testing.assert_array_equal(got.exchanges, wanted.exchanges, err_msg=where)
    assert (got.events is None) == (wanted.events is None), where
    if got.events is not None:
        np.testing.assert_array_equal(got.events.updates, wanted.events.updates, err_msg=where)
        np.testing.assert_array_equal(got.events.in_flight, wanted.events.in_flight, err_msg=where)
    assert (got.resamplings is None) == (wanted.resamplings is None), where
    if got.resamplings is not None:
        for name in ("lowest", "weights", "families"):
            found, right = getattr(got.resamplings, name), getattr(wanted.resamplings, name)
            np.testing.assert_array_equal(found, right, err_msg=f"{where}: {name}")


def levels(program: AnyProgram) -> int:
    """How many values a field can have."""
    sums = program.weight_sum + np.abs(program.field[program.order.site])
    return (1 if len(set((sums % 2).tolist())) == 1 else 2) * int(sums.max()) + 1


def fits_lattice(program: AnyProgram, run: Run) -> bool:
    return run.fields is None and levels(program) <= 32


def fits_bytes(program: AnyProgram, run: Run) -> bool:
    fields = program.field[None] if run.fields is None else run.fields
    return int((program.weight_sum + np.abs(fields[:, program.order.site])).max()) < 64


def assert_bodies_agree(
    program: AnyProgram,
    run: Run,
    wanted: Outcome,
    bodies: Iterable[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    context: object,
    *,
    forced: bool = True,
) -> None:
    """The C core against the reference's outcome: (instruction set, threads) x (whole, parts of 1, 2 or 3 sweeps).

    The other kernels are forced too, unless they do not fit (`forced`).
    """
    for isa, threads in bodies:
        here = replace(run, isa=isa, threads=threads)
        whole = run_whole("core", program, here)
        assert_same(whole, wanted, (context, isa, threads, whole.kernel, "whole"))
        if forced and whole.kernel.startswith("ising"):
            bytewise = ("bytes",) if fits_bytes(program, run) else ()
            replica = [kernel for kernel in ("exact", "filter", "dense", *bytewise) if has_kernel(isa, kernel)]
            lattice = ("lattice",) if fits_lattice(program, run) else ()
            moves = run.exchange is not None or run.resample is not None
            sites = ("sites",) if moves else ("sites", "incremental", *lattice)
            for kernel in replica if run.layout == 0 else sites:
                other = run_whole("core", program, replace(here, kernel=kernel))
                assert other.kernel == f"ising, {kernel}"
                assert_same(other, wanted, (context, isa, threads, kernel, "whole"))
        # one sweep at a time takes longest and is the hardest cut, so each thread count has a cut of its own
        parts = run_in_parts(program, here, threads, monkeypatch)
        assert parts.n_batches > 1, "nothing was cut"
        assert_same(parts, wanted, (context, isa, threads, f"parts of {threads}"))


# Models


def _random_edges(rng: np.random.Generator, n: int, n_edges: int) -> NDArray[np.int32]:
    pairs = np.array(list(itertools.combinations(range(n), 2)), dtype=np.int32)
    return pairs[np.sort(rng.choice(len(pairs), n_edges, replace=False))]


def _frustrated() -> IsingModel:
    rng = np.random.default_rng(11)
    edges = _random_edges(rng, 21, 40)
    return IsingModel(rng.choice([-1.0, 0.0, 1.0], 21), edges, rng.choice([-1.0, 1.0], 40))


def _dense() -> IsingModel:
    rng = np.random.default_rng(12)
    edges = _random_edges(rng, 9, 36)
    return IsingModel(rng.integers(-3, 4, 9) / 4, edges, rng.integers(-5, 6, 36) / 4)


def _bipartite() -> IsingModel:
    """A 7 x 10 grid: colour classes of 35, so that both layouts' words are cut by a colour."""
    rng = np.random.default_rng(13)
    edges = [(10 * r + c, 10 * r + c + 1) for r in range(7) for c in range(9)]
    edges += [(10 * r + c, 10 * r + c + 10) for r in range(6) for c in range(10)]
    return IsingModel(rng.normal(size=70), np.array(edges), rng.normal(size=len(edges)))


def _odd_cycle() -> IsingModel:
    edges = [(i, (i + 1) % 7) for i in range(7)] + [(0, 7), (7, 8), (3, 9)]
    return IsingModel(np.linspace(-0.5, 0.5, 10), np.array(edges), -np.ones(len(edges)))


def _loose() -> IsingModel:
    return IsingModel(np.linspace(-2, 2, 40), np.zeros((0, 2), np.int32), np.zeros(0))


def _wide() -> IsingModel:
    """Full 16-bit couplings on a complete graph: sums beyond 32767 take the 32-bit fields."""
    rng = np.random.default_rng(14)
    return IsingModel(rng.normal(size=12), _random_edges(rng, 12, 66), rng.normal(size=66))


def _n33() -> IsingModel:
    rng = np.random.default_rng(15)
    edges = np.array([(i, i + 1) for i in range(32)] + [(0, 32)])
    return IsingModel(rng.normal(size=33), edges, rng.choice([-0.5, 1.5], 33))


def _torus() -> IsingModel:
    """A ferromagnet, one parity and five levels; neighbours lie side by side but at the seams."""
    edges = [(12 * r + c, 12 * r + (c + 1) % 12) for r in range(8) for c in range(12)]
    edges += [(12 * r + c, 12 * ((r + 1) % 8) + c) for r in range(8) for c in range(12)]
    return IsingModel(np.zeros(96), np.array(edges), np.ones(len(edges)))


def _glass() -> IsingModel:
    """+-J in three dimensions with open sides: both parities, thirteen levels of which the kernel takes sixteen."""
    rng = np.random.default_rng(16)
    at = np.arange(60).reshape(3, 4, 5)
    pairs = [np.stack([at[:-1].ravel(), at[1:].ravel()], axis=1), np.stack([at[:, :-1].ravel(), at[:, 1:].ravel()], 1)]
    edges = np.concatenate([*pairs, np.stack([at[:, :, :-1].ravel(), at[:, :, 1:].ravel()], axis=1)])
    return IsingModel(np.zeros(60), edges, rng.choice([-1.0, 1.0], len(edges)))


def _steps() -> IsingModel:
    """Couplings of 1, 2 and 3 steps and fields, up to the 32 levels of the widest sums."""
    rng = np.random.default_rng(17)
    edges = _random_edges(rng, 40, 110)
    couplings = rng.choice([-3.0, -2.0, -1.0, 1.0, 2.0], 110)
    size = np.bincount(edges.ravel(), np.repeat(np.abs(couplings), 2), 40)
    fields = np.where(size % 2 == 0, 1.0, 0.0) * rng.choice([-1.0, 1.0], 40)
    return IsingModel(fields, edges, couplings)


ISING_MODELS: dict[str, Callable[[], IsingModel]] = {
    "frustrated": _frustrated,
    "dense": _dense,
    "bipartite": _bipartite,
    "odd cycle": _odd_cycle,
    "no edges": _loose,
    "32-bit": _wide,
    "n=1": lambda: IsingModel(np.array([0.4]), np.zeros((0, 2), np.int32), np.zeros(0)),
    "n=2": lambda: IsingModel.from_edges([(0, 1, -0.7)], {1: 0.2}),
    "n=33": _n33,
    "torus": _torus,
    "glass": _glass,
    "steps": _steps,
}


@lru_cache(maxsize=4096)
def ising_program(name: str) -> Any:
    return compiled(ISING_MODELS[name]())


# Cases


def pairwise(factors: dict[str, tuple[Any, ...]], seed: int) -> list[dict[str, Any]]:
    """Few combinations in which every pair of values of two factors occurs: greedy, best of 30 random ones each time.

    Random offers alone may miss the last pairs for long, so each offer is built around a pair that is still missing.
    """
    rng = np.random.default_rng(seed)
    names = list(factors)
    missing = {
        ((a, i), (b, j))
        for a, b in itertools.combinations(range(len(names)), 2)
        for i in range(len(factors[names[a]]))
        for j in range(len(factors[names[b]]))
    }
    chosen = []
    while missing:
        best: tuple[int, list[int]] = (-1, [])
        wanted = sorted(missing)
        for _ in range(30):
            pick = [int(rng.integers(len(values))) for values in factors.values()]
            for factor, value in wanted[int(rng.integers(len(wanted)))]:
                pick[factor] = value
            new = sum(((a, pick[a]), (b, pick[b])) in missing for a, b in itertools.combinations(range(len(names)), 2))
            best = max(best, (new, pick))
        pick = best[1]
        missing -= {((a, pick[a]), (b, pick[b])) for a, b in itertools.combinations(range(len(names)), 2)}
        chosen.append({name: factors[name][value] for name, value in zip(names, pick, strict=True)})
    return chosen


def assert_every_pair(factors: dict[str, tuple[Any, ...]], chosen: list[dict[str, Any]]) -> None:
    assert len(chosen) < np.prod([len(values) for values in factors.values()]) / 4
    for a, b in itertools.combinations(factors, 2):
        assert {(case[a], case[b]) for case in chosen} == set(itertools.product(factors[a], factors[b]))


# Shards


def shard(run: Run, first: int, count: int) -> Run:
    """The part of a run that a worker with `count` chains from `first` gets; the layout stays the whole job's."""

    def rows(array: Any) -> Any:
        return array if array is None or len(array) == 1 < run.n_chains else array[first : first + count]

    return replace(
        run,
        first_chain=run.first_chain + first,
        n_chains=count,
        fields=rows(run.fields),
        clamp=rows(run.clamp),
        initial=rows(run.initial),
    )


def assert_is_slice(got: Outcome, whole: Outcome, first: int, count: int, context: object) -> None:
    here = slice(first, first + count)
    assert whole.moments is not None
    edges = None if whole.moments.edges is None else whole.moments.edges[here]
    sums = Moments(whole.moments.n_samples, whole.moments.sites[here], edges)
    assert_same(got, Outcome(whole.samples[here], whole.last[here], sums, whole.n_batches), context)
