"""Every body of the machine returns the same bits: the reference, each instruction set, any threads, any batches.

A case is one point of model x chains x layout x schedule x clamp x fields x start. It runs once on the NumPy reference;
then the C core must return the same packed samples, last states and moments on each instruction set, with 1, 2 and 3
threads, whole and cut into batches that are resumed from nothing but what a driver reports. The default suite takes the
cases that hold every *pair* of values; `-m slow` takes the full product. All comparisons are exact: there is no alpha.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Iterator
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
    assert_every_pair,
    assert_is_slice,
    assert_same,
    every_isa,
    has_kernel,
    ising_program,
    joined,
    levels,
    pairwise,
    run_whole,
    shard,
)
from glauber.catalogue import load_spec
from glauber.compile import Run, make_run, pack_spins, unpack_spins
from glauber.errors import InvalidModelError, ModelNotSupportedError
from glauber.schedule import AnnealingSchedule, SamplingSchedule
from glauber_simulator import core
from glauber_simulator.driver import SimulatorDriver

CHAINS = (1, 3, 4, 5, 33, 64)


@lru_cache(maxsize=1)
def ising_cases() -> list[dict[str, Any]]:
    return pairwise(ISING_FACTORS, seed=1)


def test_the_pairwise_selection_holds_every_pair():
    assert_every_pair(ISING_FACTORS, ising_cases())


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


def ising_product(model: str, chains: Iterable[Any] = ISING_FACTORS["chains"]) -> Iterator[dict[str, Any]]:
    """Every combination of one model."""
    factors = {**ISING_FACTORS, "model": (model,), "chains": tuple(chains)}
    for values in itertools.product(*factors.values()):
        yield dict(zip(factors, values, strict=True))


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
    for turn, case in enumerate(ising_product(model, [chains])):
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
        ("dense", "dense", "dense"),
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
    assert found == f"ising, {kernel if has_kernel(isa, kernel) else otherwise}"


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
