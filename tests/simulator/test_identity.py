"""Every body of the machine returns the same bits: the reference, each instruction set, any threads, any batches.

A case is one point of model x chains x layout x schedule x clamp x fields x start. It runs once on the NumPy reference;
then the C core must return the same packed samples, last states and moments on each instruction set, with 1, 2 and 3
threads, whole and cut into batches that are resumed from nothing but what a driver reports. The default suite takes the
cases that hold every *pair* of values; `-m slow` takes the full product. All comparisons are exact: there is no alpha.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from bodies import (
    ISING_MODELS,
    SEED,
    THREADS,
    Outcome,
    assert_bodies_agree,
    assert_same,
    compiled,
    every_isa,
    ising_program,
    joined,
    levels,
    run_whole,
)
from glauber.catalogue import load_spec
from glauber.compile import PottsProgram, Run, make_run, pack_spins, unpack_spins
from glauber.errors import InvalidModelError, ModelNotSupportedError
from glauber.model import IsingModel, PottsModel
from glauber.samples import Moments
from glauber.schedule import AnnealingSchedule, SamplingSchedule
from glauber_simulator import core
from glauber_simulator.driver import SimulatorDriver
from numpy.typing import NDArray

CHAINS = (1, 3, 4, 5, 33, 64)


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


@lru_cache(maxsize=1)
def ising_cases() -> list[dict[str, Any]]:
    return pairwise(ISING_FACTORS, seed=1)


@lru_cache(maxsize=1)
def potts_cases() -> list[dict[str, Any]]:
    return pairwise(POTTS_FACTORS, seed=1)


@lru_cache(maxsize=1)
def lattice_cases() -> list[dict[str, Any]]:
    return pairwise(LATTICE_FACTORS, seed=1)


def test_the_pairwise_selection_holds_every_pair():
    for factors, chosen in (
        (ISING_FACTORS, ising_cases()),
        (POTTS_FACTORS, potts_cases()),
        (LATTICE_FACTORS, lattice_cases()),
    ):
        assert len(chosen) < np.prod([len(values) for values in factors.values()]) / 4
        for a, b in itertools.combinations(factors, 2):
            assert {(case[a], case[b]) for case in chosen} == set(itertools.product(factors[a], factors[b]))


# Ising cases

# Chains and layout are one factor, so that every model meets all twelve. "Other" is the layout that the job would not
# choose: a shard of a larger job may have few chains in replica planes.
ISING_FACTORS: dict[str, tuple[Any, ...]] = {
    "model": tuple(ISING_MODELS),
    "chains": tuple(itertools.product(CHAINS, ("resolved", "other"))),
    "schedule": ("thinned", "annealing"),
    "clamp": ("none", "shared", "per chain"),
    "fields": ("none", "shared", "per chain"),
    "initial": ("random", "given"),
}


def ising_run(case: dict[str, Any]) -> Run:
    model, program = ISING_MODELS[case["model"]](), ising_program(case["model"])
    n, (chains, layout) = model.n_sites, case["chains"]
    rng = np.random.default_rng(zlib.crc32(repr(sorted(case.items())).encode()))
    schedule: Any
    if case["schedule"] == "thinned":
        schedule = SamplingSchedule(n_samples=3, n_chains=chains, n_warmup=2, sweeps_per_sample=2, beta=0.7)
    else:
        # two equal sweeps in a row, then a change back: threshold tables are kept and made again
        schedule = AnnealingSchedule(table=(0.2, 0.2, 0.9, 0.0, 2.5), n_chains=chains)
    rows = {"none": 0, "shared": 1, "per chain": chains}
    clamp = fields = initial = None
    if rows[case["clamp"]]:
        clamp = rng.choice(np.array([-1, 0, 0, 1], np.int8), (rows[case["clamp"]], n))
    if rows[case["fields"]]:
        fields = rng.normal(size=(rows[case["fields"]], n))
    if case["initial"] == "given":
        initial = pack_spins(rng.choice(np.array([-1, 1], np.int8), (chains, n)))
    run = make_run(
        program,
        schedule,
        seed=SEED,
        fields=fields,
        clamp=clamp,
        initial=initial,
        observe={"samples", "moments"},
    )
    return run if layout == "resolved" else replace(run, layout=1 - run.layout)


@lru_cache(maxsize=4096)
def ising_reference(items: tuple[tuple[str, Any], ...]) -> Outcome:
    case = dict(items)
    return run_whole("reference", ising_program(case["model"]), ising_run(case))


def check_ising(case: dict[str, Any], bodies: Iterable[tuple[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ising_reference(tuple(sorted(case.items())))
    assert_bodies_agree(ising_program(case["model"]), ising_run(case), wanted, bodies, monkeypatch, case)


@every_isa
@pytest.mark.parametrize("model", ISING_MODELS)
def test_ising_pairs(isa, model, monkeypatch):
    cases = [case for case in ising_cases() if case["model"] == model]
    assert {case["chains"] for case in cases} == set(ISING_FACTORS["chains"])
    for case in cases:
        check_ising(case, itertools.product([isa], THREADS), monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("chains", ISING_FACTORS["chains"], ids=str)
@pytest.mark.parametrize("model", ISING_MODELS)
def test_ising_product(model, chains, monkeypatch):
    """Every combination, on all instruction sets that are here; the thread counts take turns."""
    isas = core.AVAILABLE_ISA
    rest = {name: values for name, values in ISING_FACTORS.items() if name not in ("model", "chains")}
    for turn, values in enumerate(itertools.product(*rest.values())):
        case = {"model": model, "chains": chains, **dict(zip(rest, values, strict=True))}
        check_ising(case, [(isa, 1 + (turn + k) % 3) for k, isa in enumerate(isas)], monkeypatch)


def test_the_cases_reach_both_field_widths_both_table_paths_and_both_layouts():
    """The kernel chooses by the size of the sums; a change of the models must not lose a path unnoticed."""
    widths, tables, layouts = set(), set(), set()
    for case in ising_cases():
        run, program = ising_run(case), ising_program(case["model"])
        fields = program.field[None] if run.fields is None else run.fields
        largest = int((program.weight_sum + np.abs(fields[:, program.order.site])).max())
        widths.add(largest <= 32767)
        tables.add(2 * largest + 1 <= program.n_sites * run.n_chains)
        layouts.add(run.layout)
    assert widths == tables == {True, False}
    assert layouts == {0, 1}


def test_clamped_spins_stay_and_nothing_else_is_clamped():
    """All bodies agreeing on a wrong thing would pass above; clamps and moments are checked against their meaning."""
    for case in ising_cases():
        run, program = ising_run(case), ising_program(case["model"])
        outcome = ising_reference(tuple(sorted(case.items())))
        spins = unpack_spins(outcome.samples, program.n_sites).astype(np.int64)
        np.testing.assert_array_equal(outcome.last, outcome.samples[:, -1])
        assert outcome.moments is not None
        assert outcome.moments.n_samples == spins.shape[1] == run.n_samples
        np.testing.assert_array_equal(outcome.moments.sites, spins.sum(axis=1))
        a, b = program.edges[:, 0], program.edges[:, 1]
        assert outcome.moments.edges is not None
        np.testing.assert_array_equal(outcome.moments.edges, (spins[:, :, a] * spins[:, :, b]).sum(axis=1))
        if run.clamp is not None:
            clamp = np.broadcast_to(run.clamp, (run.n_chains, program.n_sites))
            held = np.broadcast_to(clamp[:, None] != 0, spins.shape)
            np.testing.assert_array_equal(spins[held], np.broadcast_to(clamp[:, None], spins.shape)[held])


@every_isa
@pytest.mark.parametrize("layout", ["resolved", "other"])
def test_free_spins_move(isa, layout):
    """The counterpart: at b = 0 each free spin is a fair coin, so 192 draws show both sides but once in 2^191."""
    for name in ISING_MODELS:
        case = {**{k: v[0] for k, v in ISING_FACTORS.items()}, "model": name, "chains": (64, layout)}
        run = replace(ising_run(case), b=np.zeros(1, np.uint64), isa=isa)
        spins = unpack_spins(run_whole("core", ising_program(name), run).samples, ising_program(name).n_sites)
        assert (spins.min(axis=(0, 1)) < spins.max(axis=(0, 1))).all(), name


@every_isa
def test_moments_alone_and_samples_alone(isa):
    """What is observed changes no state, and nothing is returned that was not asked for."""
    case = {**{k: v[-1] for k, v in ISING_FACTORS.items()}, "chains": (33, "resolved"), "schedule": "thinned"}
    wanted, program = ising_reference(tuple(sorted(case.items()))), ising_program(case["model"])
    for observe in (frozenset({"samples"}), frozenset({"moments"}), frozenset({"last"})):
        machine = SimulatorDriver(load_spec("ideal"))
        machine.program(program)
        *_, batch = machine.run(replace(ising_run(case), isa=isa, observe=observe))
        np.testing.assert_array_equal(batch.state, wanted.last)
        assert (batch.samples is not None) == ("samples" in observe)
        assert (batch.moments is not None) == ("moments" in observe)
        if batch.moments is not None:
            np.testing.assert_array_equal(batch.moments.sites, wanted.moments.sites)


@every_isa
@pytest.mark.parametrize("layout", [0, 1])
def test_sweep_numbers_beyond_32_bits(isa, layout, monkeypatch):
    """A long run resumed just before sweep 2^32 crosses into the key's fourth word."""
    program = ising_program("odd cycle")
    begin = 2**32 - 3
    run = replace(
        ising_run({**{k: v[0] for k, v in ISING_FACTORS.items()}, "model": "odd cycle", "chains": (33, "resolved")}),
        layout=layout,
        first_sweep=begin,
        n_warmup=begin - 1,
        n_samples=6,
        sweeps_per_sample=1,
        stream=3,
        initial=np.zeros((33, 2), np.uint8),
    )
    wanted = run_whole("reference", program, run)
    assert wanted.samples.shape[1] == 6
    assert_bodies_agree(program, run, wanted, itertools.product([isa], THREADS), monkeypatch, (layout, "2^32"))
    # without the carry, sweep 2^32 would draw what sweep 0 of the same key draws; the runs must differ from the start
    early = replace(run, first_sweep=1, n_warmup=0)
    assert not np.array_equal(run_whole("core", program, early).samples, wanted.samples)


@every_isa
@pytest.mark.parametrize("layout", [0, 1])
def test_one_program_serves_runs_of_any_field_width(isa, layout):
    """The program's form in the core is kept from run to run, and fields of a run's own may need more bytes."""
    program = ising_program("frustrated")
    machine = SimulatorDriver(load_spec("ideal"))
    machine.program(program)
    base = {**{k: v[0] for k, v in ISING_FACTORS.items()}, "model": "frustrated", "chains": (4, "resolved")}
    for scale in (None, 1, 1000, 100_000, 1000, 1, None):
        fields = None if scale is None else np.full((4, program.n_sites), scale, np.int32)
        run = replace(ising_run(base), fields=fields, layout=layout, isa=isa)
        assert_same(joined(list(machine.run(run))), run_whole("reference", program, run), scale)


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


SHARDS = [(0, 64), (0, 1), (31, 1), (32, 5), (5, 30), (31, 33), (63, 1)]


@every_isa
@pytest.mark.parametrize("layout", ["resolved", "other"])
@pytest.mark.parametrize("model", ["frustrated", "32-bit", "no edges", "n=33"])
def test_a_shard_is_a_slice_of_the_whole(isa, layout, model):
    case = {
        "model": model,
        "chains": (64, layout),
        "schedule": "thinned",
        "clamp": "per chain",
        "fields": "per chain",
        "initial": "given" if model == "n=33" else "random",
    }
    whole, run = ising_reference(tuple(sorted(case.items()))), ising_run(case)
    for (first, count), threads in itertools.product(SHARDS, THREADS):
        part = replace(shard(run, first, count), isa=isa, threads=threads)
        got = run_whole("core", ising_program(model), part)
        assert_is_slice(got, whole, first, count, (case, first, count, threads))


def test_a_shard_on_the_reference_is_a_slice_too():
    for layout in ("resolved", "other"):
        case = {**{k: v[-1] for k, v in ISING_FACTORS.items()}, "chains": (64, layout)}
        whole, run = ising_reference(tuple(sorted(case.items()))), ising_run(case)
        for first, count in SHARDS[2:4]:
            got = run_whole("reference", ising_program(case["model"]), shard(run, first, count))
            assert_is_slice(got, whole, first, count, (case, first, count))


# Potts


POTTS_FACTORS: dict[str, tuple[Any, ...]] = {
    "couplings": ("weights", "shared table", "tables", "no edges"),
    "q": (2, 3, 4, 16, 70, 300),
    "chains": (1, 3, 9, 33),
    "allowed": (False, True),
    "schedule": ("thinned", "annealing"),
    "clamp": ("none", "shared", "per chain"),
    "fields": ("none", "shared", "per chain"),
    "initial": ("random", "given"),
}


# What is decided in bytes: equal-state weights with few gaps, of positions on a lattice or of many chains.
LATTICE_FACTORS: dict[str, tuple[Any, ...]] = {
    # colours that begin off multiples of four, of several vectors; three colours; more gaps than AVX2 takes; no lattice
    "couplings": ("open 8 x 8", "open 5 x 31", "torus 7 x 9", "torus 6 x 8, steps", "random"),
    "q": (2, 3, 4, 5, 16),
    "chains": (1, 3, 33, 64, 70),
    "allowed": (False,),
    "schedule": ("thinned", "annealing"),
    "clamp": ("none", "per chain"),
    "fields": ("none",),
    "initial": ("random", "given"),
}


def lattice_program(couplings: str, q: int) -> Any:
    rng = np.random.default_rng([q, len(couplings)])
    if couplings == "random":
        n = 50
        edges = np.stack([np.arange(n), np.roll(rng.permutation(n), 1)], axis=1)
        edges = np.unique(np.sort(edges[edges[:, 0] != edges[:, 1]], axis=1), axis=0)
    else:
        form, rows, _, columns = couplings.removesuffix(", steps").split()
        n = int(rows) * int(columns)
        at = np.arange(n).reshape(int(rows), int(columns))
        pairs = [(at, np.roll(at, -1, axis=axis)) for axis in (0, 1)]
        if form == "open":
            pairs = [(at[:-1], at[1:]), (at[:, :-1], at[:, 1:])]
        edges = np.concatenate([np.stack([a.ravel(), b.ravel()], axis=1) for a, b in pairs])
    weights = rng.choice([-1.0, 1.0, 2.0, 3.0] if couplings.endswith("steps") else [-1.0, 1.0], size=len(edges))
    return compiled(PottsModel(rng.integers(3, size=(n, q)).astype(float), edges, weights))


@lru_cache(maxsize=256)
def potts_program(couplings: str, q: int, allowed: bool) -> Any:
    if couplings in LATTICE_FACTORS["couplings"]:
        return lattice_program(couplings, q)
    rng = np.random.default_rng([q, len(couplings), allowed])
    n = 6  # positions 4 and 5 take words 0 and 1 of a second counter
    # an odd cycle, and edges turned round, so that tables are read in both directions
    edges = np.array([(0, 1), (2, 1), (2, 0), (3, 2), (3, 4), (5, 0)])
    m = len(edges)
    if couplings == "no edges":
        edges, m = edges[:0], 0
    values = {
        "weights": lambda: rng.normal(size=m),
        "shared table": lambda: rng.normal(size=(q, q)),
        "tables": lambda: rng.normal(size=(m, q, q)),
        "no edges": lambda: np.zeros(0),
    }[couplings]()
    mask = None
    if allowed:
        mask = rng.random((n, q)) < 0.6
        mask[np.arange(n), rng.integers(q, size=n)] = True
    return compiled(PottsModel(rng.normal(size=(n, q)), edges, values, mask))


def potts_run(case: dict[str, Any]) -> tuple[PottsProgram, Run]:
    program = potts_program(case["couplings"], case["q"], case["allowed"])
    n, q, chains = program.n_sites, program.n_states, case["chains"]
    rng = np.random.default_rng(zlib.crc32(repr(sorted(case.items())).encode()))
    mask = np.ones((n, q), dtype=bool) if program.allowed is None else program.allowed
    legal = [np.flatnonzero(row) for row in mask]
    schedule: Any
    if case["schedule"] == "thinned":
        schedule = SamplingSchedule(n_samples=3, n_chains=chains, n_warmup=1, sweeps_per_sample=2, beta=0.9)
    else:
        schedule = AnnealingSchedule(table=(0.3, 0.0, 2.0, 6.0), n_chains=chains)

    def states(rows: int) -> NDArray[np.int32]:
        return np.array([[rng.choice(choices) for choices in legal] for _ in range(rows)], dtype=np.int32)

    rows = {"none": 0, "shared": 1, "per chain": chains}
    clamp = fields = initial = None
    if rows[case["clamp"]]:
        held = states(rows[case["clamp"]])
        clamp = np.where(rng.random(held.shape) < 0.4, held, np.int32(-1))
    if rows[case["fields"]]:
        fields = rng.normal(size=(rows[case["fields"]], n, q))
    if case["initial"] == "given":
        initial = states(chains).astype(np.uint32)
    run = make_run(
        program, schedule, seed=SEED, fields=fields, clamp=clamp, initial=initial, observe={"samples", "moments"}
    )
    return program, run


def check_potts(case: dict[str, Any], threads: Iterable[int], monkeypatch: pytest.MonkeyPatch) -> None:
    program, run = potts_run(case)
    wanted = run_whole("reference", program, run)
    isas = core.AVAILABLE_ISA
    for n_threads in threads:  # whole on every instruction set, in parts on one of them
        for isa in isas:
            here = replace(run, isa=isa, threads=n_threads)
            assert_same(run_whole("core", program, here), wanted, (case, isa, n_threads))
        turn = zlib.crc32(repr(sorted(case.items())).encode())
        one = isas[(turn + n_threads) % len(isas)]
        assert_bodies_agree(program, replace(run, kernel="exact"), wanted, [("portable", n_threads)], monkeypatch, case)
        assert_bodies_agree(program, run, wanted, [(one, n_threads)], monkeypatch, case)
    # what all bodies return must also mean what it says
    states = wanted.samples.astype(np.int64)
    assert wanted.moments is not None
    np.testing.assert_array_equal(
        wanted.moments.sites, (states[..., None] == np.arange(program.n_states)).sum(axis=1), err_msg=f"{case}"
    )
    np.testing.assert_array_equal(wanted.last, wanted.samples[:, -1])
    if program.allowed is not None:
        assert program.allowed[np.arange(program.n_sites), states].all(), case
    if run.clamp is not None:
        clamp = np.broadcast_to(run.clamp[:, None], states.shape)
        np.testing.assert_array_equal(states[clamp >= 0], clamp[clamp >= 0], err_msg=f"{case}")


@pytest.mark.parametrize("couplings", POTTS_FACTORS["couplings"])
def test_potts_pairs(couplings, monkeypatch):
    cases = [case for case in potts_cases() if case["couplings"] == couplings]
    assert {case["q"] for case in cases} == set(POTTS_FACTORS["q"])
    for case in cases:
        check_potts(case, THREADS, monkeypatch)


@pytest.mark.parametrize("couplings", LATTICE_FACTORS["couplings"])
def test_potts_lattice_pairs(couplings, monkeypatch):
    cases = [case for case in lattice_cases() if case["couplings"] == couplings]
    assert {case["chains"] for case in cases} == set(LATTICE_FACTORS["chains"])
    for turn, case in enumerate(cases):
        check_potts(case, [1 + turn % 3], monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("q", POTTS_FACTORS["q"])
@pytest.mark.parametrize("couplings", POTTS_FACTORS["couplings"])
def test_potts_product(couplings, q, monkeypatch):
    rest = {name: values for name, values in POTTS_FACTORS.items() if name not in ("couplings", "q")}
    for turn, values in enumerate(itertools.product(*rest.values())):
        case = {"couplings": couplings, "q": q, **dict(zip(rest, values, strict=True))}
        check_potts(case, [1 + turn % 3], monkeypatch)


@pytest.mark.parametrize("couplings", ["weights", "tables"])
def test_a_potts_shard_is_a_slice_of_the_whole(couplings):
    case = {
        "couplings": couplings,
        "q": 5,
        "chains": 33,
        "allowed": True,
        "schedule": "thinned",
        "clamp": "per chain",
        "fields": "per chain",
        "initial": "random",
    }
    program, run = potts_run(case)
    whole = run_whole("reference", program, run)
    for (first, count), threads in itertools.product([(0, 33), (1, 1), (30, 3), (7, 20)], THREADS):
        got = run_whole("core", program, replace(shard(run, first, count), threads=threads))
        assert_is_slice(got, whole, first, count, (case, first, count, threads))


# Sites without edges


@pytest.mark.parametrize("clamp", ["none", "per chain"])
@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("q", [2, 10, 64, 65, 512])
def test_p_dits_with_fields_of_their_own(q, allowed, clamp, monkeypatch):
    """Shared and per chain, whole and resumed, and as shards; both ways to scale weights, and no whole vectors."""
    for chains, fields in itertools.product((1, 3, 20), ("shared", "per chain")):
        case = {
            "couplings": "no edges",
            "q": q,
            "chains": chains,
            "allowed": allowed,
            "schedule": "thinned",
            "clamp": clamp,
            "fields": fields,
            "initial": "random",
        }
        check_potts(case, [1 + chains % 2], monkeypatch)
        program, run = potts_run(case)
        whole = run_whole("reference", program, run)
        for first, count in {(0, 1), (chains - 1, 1), (chains // 3, chains - chains // 3)}:
            for isa in core.AVAILABLE_ISA:
                got = run_whole("core", program, replace(shard(run, first, count), isa=isa, threads=2))
                assert_is_slice(got, whole, first, count, (case, first, count, isa))


@pytest.mark.parametrize("beta", [0.0, 1e-6, 3.0, 60.0, 1e5])
def test_p_dits_from_hot_to_where_weights_saturate(beta):
    program = potts_program("no edges", 300, False)
    rng = np.random.default_rng(7)
    fields = rng.normal(size=(2, program.n_sites, 300)) * rng.choice([1e-7, 1e-3, 1.0], size=(2, program.n_sites, 1))
    schedule = SamplingSchedule(n_samples=5, n_chains=2, beta=beta)
    run = make_run(program, schedule, seed=SEED, fields=fields, observe={"samples", "moments"})
    wanted = run_whole("reference", program, run)
    for isa in core.AVAILABLE_ISA:
        assert_same(run_whole("core", program, replace(run, isa=isa)), wanted, (beta, isa))


@every_isa
@pytest.mark.parametrize("n", [1, 31, 512, 1100])
def test_independent_p_bits_with_fields_of_their_own(isa, n, monkeypatch):
    """Planes for each chain, in several vectors of words, from hot to where thresholds saturate."""
    rng = np.random.default_rng(n)
    program = compiled(IsingModel(rng.normal(size=n), np.zeros((0, 2), np.int32), np.zeros(0)))
    for chains, rows, beta in ((1, 1, 1.0), (3, 3, 0.7), (3, 1, 30.0), (40, 40, 1e-6), (2, 2, 0.0)):
        schedule = SamplingSchedule(n_samples=3, n_chains=chains, sweeps_per_sample=2, beta=beta)
        clamp = rng.choice(np.array([-1, 0, 0, 1], np.int8), size=(chains, n)) if chains == 3 else None
        fields = rng.normal(size=(rows, n)) * rng.choice([1e-6, 0.1, 3.0], size=n)
        run = make_run(
            program, schedule, seed=SEED, fields=fields, clamp=clamp, observe={"samples", "moments"}, threads=2, isa=isa
        )
        wanted = run_whole("reference", program, run)
        got = run_whole("core", program, run)
        assert got.kernel == "ising, independent"
        assert_same(got, wanted, (n, chains, rows, beta))
        assert_bodies_agree(program, run, wanted, [(isa, 1)], monkeypatch, (n, chains, rows, beta))
        part = run_whole("core", program, shard(run, chains - 1, 1))
        assert_is_slice(part, wanted, chains - 1, 1, (n, chains, rows, beta))


def test_planes_of_one_run_are_not_those_of_the_next():
    """Runs of one program share memory, where thresholds stay: fields of a run's own must not be taken for them."""
    program = ising_program("no edges")
    machine = SimulatorDriver(load_spec("ideal"))
    machine.program(program)
    rng = np.random.default_rng(0)
    for own in (False, True, True, False, True, False):
        fields = rng.normal(size=(1, program.n_sites)) if own else None
        schedule, observe = SamplingSchedule(n_samples=4), {"samples", "moments"}
        run = make_run(program, schedule, seed=SEED, fields=fields, observe=observe)
        assert_same(joined(list(machine.run(run))), run_whole("reference", program, run), own)


@pytest.mark.parametrize("couplings", ["open 5 x 31", "torus 7 x 9"])
def test_a_shard_of_potts_lattices_is_a_slice_of_the_whole(couplings):
    case = {**{name: values[0] for name, values in LATTICE_FACTORS.items()}, "clamp": "per chain"}
    program, run = potts_run({**case, "couplings": couplings, "q": 4, "chains": 70})
    whole = run_whole("reference", program, run)
    for turn, (first, count) in enumerate([(0, 70), (1, 1), (66, 4), (7, 33), (3, 64)]):
        got = run_whole("core", program, replace(shard(run, first, count), threads=1 + turn % 3))
        assert_is_slice(got, whole, first, count, (couplings, first, count))


# Kernels


@every_isa
@pytest.mark.parametrize(
    ("model", "kernel", "otherwise"),
    [
        ("torus", "bits", "bits"),
        ("glass", "bits", "bits"),
        ("steps", "bits", "bits"),
        ("odd cycle", "bytes", "exact"),
        ("bipartite", "filter", "exact"),
        ("dense", "dense", "exact"),
        ("n=1", "independent", "independent"),
        ("torus in one chain", "lattice", "lattice"),
        ("n=33 in one chain", "diagonals", "incremental"),
        ("n=33 in one chain on two threads", "diagonals", "sites"),
        ("steps in one chain", "incremental", "incremental"),
        ("dense in one chain", "incremental", "incremental"),
    ],
)
def test_the_kernel_follows_from_the_model(isa, model, kernel, otherwise):
    """What a kernel is tested on must go on to use it."""
    model, *rest = model.split(" in one chain")
    case = {**{k: v[0] for k, v in ISING_FACTORS.items()}, "model": model, "chains": (1 if rest else 64, "resolved")}
    run = replace(ising_run(case), isa=isa, threads=2 if rest and rest[0] else 1)
    found = run_whole("core", ising_program(model), run).kernel
    assert found == f"ising, {kernel if isa == 'avx512icl' else otherwise}"


@pytest.mark.parametrize(("model", "most"), [("torus", 5), ("glass", 13), ("steps", 32)])
def test_the_bit_sliced_models_take_eight_sixteen_and_thirty_two_levels(model, most):
    assert most // 2 < levels(ising_program(model)) <= most


def test_a_kernel_that_does_not_fit_is_refused():
    case = {**{k: v[0] for k, v in ISING_FACTORS.items()}, "model": "32-bit", "chains": (64, "resolved")}
    for kernel in ("bits", "sites"):
        with pytest.raises(InvalidModelError, match="kernel"):
            run_whole("core", ising_program("32-bit"), replace(ising_run(case), kernel=kernel))
    with pytest.raises(ModelNotSupportedError, match=r"magic.*filter"):
        run_whole("core", ising_program("32-bit"), replace(ising_run(case), kernel="magic"))


def test_the_environment_forces_an_instruction_set(monkeypatch):
    case = {**{k: v[0] for k, v in ISING_FACTORS.items()}, "model": "glass", "chains": (64, "resolved")}
    program, run = ising_program("glass"), ising_run(case)
    wanted = run_whole("core", program, run)
    for isa in core.AVAILABLE_ISA:
        monkeypatch.setenv("GLAUBER_ISA", isa)
        session = core.IsingSession(core.IsingNet(program), run, 1)
        assert session.facts["isa"] == isa
        assert_same(run_whole("core", program, run), wanted, isa)
    monkeypatch.setenv("GLAUBER_ISA", "altivec")
    with pytest.raises(ModelNotSupportedError, match=r"altivec.*portable"):
        run_whole("core", program, run)
