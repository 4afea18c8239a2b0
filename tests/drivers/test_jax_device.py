"""jax://cpu draws what the reference draws, bit for bit, and is held to the driver contract.

Comparisons are exact. Each shape takes XLA a second to compile, so the cases that hold every pair of factors
(tests/simulator/test_identity.py) run with `-m slow`, and a few of them always.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax", reason="needs the extra jax: pip install -e '.[jax]'")

import glauber as gl
import jax
import jax.numpy as jnp
import test_identity
import test_identity_potts
import test_tempering
from bodies import SEED, Outcome, assert_is_slice, assert_same, ising_program, joined, run_whole, shard
from glauber.compile import AnyProgram, Run, make_run
from glauber.errors import DeviceNotFoundError, ModelNotSupportedError
from glauber.testing import DriverContract
from glauber_drivers.jax_device import driver, machine
from glauber_drivers.jax_device.driver import JaxDriver
from glauber_drivers.jax_device.rows import is_dense
from test_contract import KNOWN_ANSWERS, words


def drawn(program: AnyProgram, run: Run) -> Outcome:
    opened = JaxDriver("cpu")
    opened.program(program)
    return joined(list(opened.run(run)))


def check(program: AnyProgram, run: Run, context: Any) -> None:
    assert_same(drawn(program, run), run_whole("reference", program, run), context)


@pytest.mark.parametrize(("key", "counter", "out"), KNOWN_ANSWERS, ids=["zeros", "ones", "pi"])
def test_the_generator_gives_the_published_answers(key, counter, out):
    asked = [[jnp.uint32(word) for word in words(text)] for text in (key, counter)]
    assert [int(word) for word in machine.threefry4x32(tuple(asked[0]), tuple(asked[1]))] == words(out)


def ising_cases(n: int) -> list[dict[str, Any]]:
    return test_identity.ising_cases()[:n]


def check_ising(case: dict[str, Any]) -> None:
    wanted = test_identity.ising_reference(tuple(sorted(case.items())))
    assert_same(drawn(ising_program(case["model"]), test_identity.ising_run(case)), wanted, case)


def test_ising_runs():
    cases = ising_cases(10)
    programs = [ising_program(case["model"]) for case in cases]
    assert {is_dense(program) for program in programs} == {False, True}, "both ways to fields must be met"
    assert {test_identity.ising_run(case).layout for case in cases} == {0, 1}
    for case in cases:
        check_ising(case)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ising_pairs():
    for case in ising_cases(10**6)[10:]:
        check_ising(case)


def test_potts_runs():
    cases = test_identity_potts.potts_cases()[:8]
    assert len({case["couplings"] for case in cases}) >= 3
    for case in cases:
        check(*test_identity_potts.potts_run(case), case)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_potts_pairs():
    for case in test_identity_potts.potts_cases()[8:]:
        check(*test_identity_potts.potts_run(case), case)


@pytest.mark.parametrize("size", [(5, 7, 1), (4, 1, 3), pytest.param((40, 3, 1), marks=pytest.mark.slow)], ids=str)
def test_tempered_runs(size):
    made = 0
    for turn, name in enumerate(("torus", "dense", "no edges")):
        run = test_tempering.tempered_run(name, *size, np.random.default_rng([turn, *size]))
        wanted = run_whole("reference", ising_program(name), run)
        assert wanted.exchanges is not None
        made += wanted.exchanges[:, 1].sum()
        assert_same(drawn(ising_program(name), run), wanted, (name, size))
    assert made > 0


@pytest.mark.parametrize("chains", [3, 40])
def test_metropolis_runs(chains):
    schedule = gl.AnnealingSchedule(table=(0.2, 0.9, 0.0, 2.5), n_chains=chains, dynamics="metropolis")
    for name in ("torus", "32-bit"):
        program = ising_program(name)
        check(program, make_run(program, schedule, seed=SEED, observe={"samples", "moments"}), name)


@pytest.mark.parametrize("layout", [0, 1])
def test_sweep_numbers_beyond_32_bits(layout):
    program = ising_program("frustrated")
    schedule = gl.SamplingSchedule(n_samples=2, n_chains=5, n_warmup=2**32 - 1, beta=0.6)
    run = make_run(program, schedule, seed=SEED, observe={"samples", "moments"})
    start = run_whole("core", program, replace(run, n_warmup=0, n_samples=1)).last
    check(program, replace(run, layout=layout, first_sweep=2**32, initial=start), layout)


def test_batches_and_resumed_runs_change_nothing(monkeypatch):
    monkeypatch.setattr(driver, "FIRST_UPDATES", 1.0)  # one sweep
    monkeypatch.setattr(driver, "BATCH_SECONDS", 0.0)
    program = ising_program("bipartite")
    schedule = gl.SamplingSchedule(n_samples=4, n_chains=6, n_warmup=2, sweeps_per_sample=3, beta=0.6)
    run = make_run(program, schedule, seed=SEED, observe={"samples", "moments"})
    wanted = run_whole("core", program, run)
    opened = JaxDriver("cpu")
    opened.program(program)
    batches = list(opened.run(run))
    assert len(batches) == run.n_sweeps
    assert_same(joined(batches), wanted, "a sweep at a time")
    middle = batches[8]
    sums = middle.moments
    rest = replace(
        run,
        first_sweep=middle.next_sweep,
        initial=middle.state,
        initial_moments=(sums.n_samples, sums.sites, sums.edges),
    )
    resumed = list(opened.run(rest))
    np.testing.assert_array_equal(resumed[-1].state, wanted.last)
    np.testing.assert_array_equal(resumed[-1].moments.sites, wanted.moments.sites)
    np.testing.assert_array_equal(resumed[-1].moments.edges, wanted.moments.edges)


@pytest.mark.parametrize("layout", [0, 1])
def test_a_shard_is_a_slice_of_the_whole(layout):
    program = ising_program("n=33")
    schedule = gl.SamplingSchedule(n_samples=2, n_chains=70, beta=0.6)
    run = replace(make_run(program, schedule, seed=SEED, observe={"samples", "moments"}), layout=layout)
    whole = run_whole("core", program, run)
    assert_is_slice(drawn(program, shard(run, 37, 20)), whole, 37, 20, layout)


def test_jax_stays_as_it_was_for_everyone_else():
    with gl.open_device("jax://cpu") as device:
        device.submit(gl.IsingModel([0.1], np.zeros((0, 2), int), []), gl.SamplingSchedule(n_samples=2)).result(60)
    assert jnp.arange(3).dtype == jnp.int32


def test_what_is_not_there_is_refused():
    model, few = gl.IsingModel([0.1, 0.2], [(0, 1)], [1.0]), gl.PopulationSchedule(betas=(0.1, 0.2), n_chains=4)
    with gl.open_device("jax://cpu") as device, pytest.raises(ModelNotSupportedError, match="population"):
        device.submit(model, few)
    for address in ("jax://tpu", "jax://cpu?body=core"):
        with pytest.raises(DeviceNotFoundError, match="jax"):
            gl.open_device(address)
    if jax.default_backend() == "cpu":
        with pytest.raises(DeviceNotFoundError, match="finds no gpu"):
            gl.open_device("jax://gpu")


@pytest.mark.slow
class TestJax(DriverContract):
    address = "jax://cpu?seed=31"
    effort = "quick"
