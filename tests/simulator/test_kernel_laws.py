"""Each kernel, forced, draws from the exact law: chi-square at alpha 1e-6, with power 0.99 against every named fault.

Bit identity with the reference (test_identity.py) says the same with certainty, for the cases that it compares. This
is the other way: no reference, no arithmetic in common, only states and the Boltzmann law.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import glauber as gl
import numpy as np
import pytest
from bodies import best_isa_others_slowly, compiled, has_kernel, run_whole
from glauber.compile import make_run, unpack_spins
from glauber.testing import ExactLaw
from laws import POWER, assert_draws, invisible, ising_model, named_faults, order_of, power_against, swept

CHAINS = 100_000
WARMUP = 60
BETA = 0.45


def signs() -> gl.IsingModel:
    """Eight spins of couplings +-1 and no fields: the few levels that bit-sliced kernels take."""
    return gl.IsingModel(
        np.zeros(8), ising_model(8, 14, seed=8).edges, np.random.default_rng(1).choice([-1.0, 1.0], 14)
    )


MODELS = {"signs": signs(), "reals": ising_model(8, 14, seed=8)}
KERNELS = [
    *((name, "reals", 0) for name in ("exact", "filter", "dense")),
    *((name, "signs", 0) for name in ("bits", "bytes")),
    *((name, "reals", 1) for name in ("sites", "incremental", "diagonals")),
    ("lattice", "signs", 1),
]
BY_LAYOUT = {0: "replica planes", 1: "site planes"}


@pytest.mark.parametrize(("kernel", "model", "layout"), KERNELS, ids=[f"{k} in {BY_LAYOUT[w]}" for k, _, w in KERNELS])
@best_isa_others_slowly
def test_a_kernel_draws_from_the_law(isa: str, kernel: str, model: str, layout: int) -> None:
    if not has_kernel(isa, kernel):
        pytest.skip(f"{isa} has no kernel of this name")
    program: Any = compiled(MODELS[model])
    schedule = gl.SamplingSchedule(n_samples=1, n_chains=CHAINS, n_warmup=WARMUP, beta=BETA)
    run = make_run(program, schedule, seed=7, observe={"last"})
    found = run_whole(
        "core", program, replace(run, isa=isa, layout=layout, kernel=kernel, observe=frozenset({"samples"}))
    )
    assert found.kernel == f"ising, {kernel}"
    law = ExactLaw(program.as_model(), BETA)
    assert invisible(swept(law, np.full(WARMUP, BETA), order_of(MODELS[model])), law.probabilities, CHAINS)
    for name, wrong in named_faults(program.as_model(), BETA):
        assert power_against(wrong, law.probabilities, CHAINS) > POWER, name
    assert_draws(unpack_spins(found.last, program.n_sites), law)


def test_independent_p_bits_are_independent_and_have_their_means() -> None:
    """One chain of 200,000 blocks of eight p-bits with the same eight fields: a block is a sample."""
    fields = np.linspace(-1.2, 0.9, 8)
    model = gl.IsingModel(np.tile(fields, 2 * CHAINS), np.zeros((0, 2), np.int32), [])
    program: Any = compiled(model)
    run = make_run(program, gl.SamplingSchedule(n_samples=1, beta=BETA), seed=3)
    found = run_whole("core", program, run)
    assert found.kernel == "ising, independent"
    law = ExactLaw(gl.IsingModel(fields, np.zeros((0, 2), np.int32), []), BETA)
    for factor in (1.05, 0.95):
        wrong = ExactLaw(law.model, factor * BETA).probabilities
        assert power_against(wrong, law.probabilities, 2 * CHAINS) > POWER
    assert_draws(unpack_spins(found.last, program.n_sites).reshape(-1, 8), law)


@pytest.mark.parametrize(("chains", "exact"), [(CHAINS, False), (CHAINS, True), (3, False)])
def test_potts_kernels_draw_from_the_law(chains: int, exact: bool) -> None:
    """By chains, by sites (many copies of a small graph side by side), and the plain one."""
    beta = 0.9
    edges, copies = np.array([(0, 1), (1, 2), (2, 0), (2, 3)]), CHAINS // chains
    h = np.random.default_rng(2).choice([-1.0, 0.0, 1.0], (4, 3))
    small = gl.PottsModel(h, edges, np.array([1.0, -1.0, 1.0, 1.0]))
    everywhere = np.concatenate([edges + 4 * k for k in range(copies)])
    model = gl.PottsModel(np.tile(h, (copies, 1)), everywhere, np.tile(small.couplings, copies))
    program: Any = compiled(model)
    run = make_run(program, gl.SamplingSchedule(n_samples=1, n_chains=chains, n_warmup=40, beta=beta), seed=5)
    run = replace(run, kernel="exact") if exact else run
    states = run_whole("core", program, run).last.reshape(-1, 4)
    law = ExactLaw(compiled(small).as_model(), beta)
    wrong = ExactLaw(law.model, 1.05 * beta).probabilities
    assert power_against(wrong, law.probabilities, len(states)) > POWER
    assert_draws(states, law)
