"""Potts models and sites without edges: every body returns the same bits. See test_identity.py."""

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
    SEED,
    THREADS,
    assert_bodies_agree,
    assert_every_pair,
    assert_is_slice,
    assert_same,
    compiled,
    every_isa,
    ising_program,
    joined,
    pairwise,
    run_whole,
    shard,
)
from glauber.catalogue import load_spec
from glauber.compile import PottsProgram, Run, make_run
from glauber.model import IsingModel, PottsModel
from glauber.schedule import AnnealingSchedule, SamplingSchedule
from glauber_simulator import core
from glauber_simulator.driver import SimulatorDriver
from numpy.typing import NDArray

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


@lru_cache(maxsize=1)
def potts_cases() -> list[dict[str, Any]]:
    return pairwise(POTTS_FACTORS, seed=1)


@lru_cache(maxsize=1)
def lattice_cases() -> list[dict[str, Any]]:
    return pairwise(LATTICE_FACTORS, seed=1)


def test_the_pairwise_selection_holds_every_pair():
    assert_every_pair(POTTS_FACTORS, potts_cases())
    assert_every_pair(LATTICE_FACTORS, lattice_cases())


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
    """Planes for each chain, in several vectors of words, from hot to where thresholds saturate; for few sweeps, as two
    are, brackets in place of planes where there are any."""
    rng = np.random.default_rng(n)
    program = compiled(IsingModel(rng.normal(size=n), np.zeros((0, 2), np.int32), np.zeros(0)))
    temperatures = ((1, 1, 1.0), (3, 3, 0.7), (3, 1, 30.0), (40, 40, 1e-6), (2, 2, 0.0), (4, 4, 1e5))
    for (chains, rows, beta), n_samples in itertools.product(temperatures, (1, 3)):
        schedule = SamplingSchedule(n_samples=n_samples, n_chains=chains, sweeps_per_sample=2, beta=beta)
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
