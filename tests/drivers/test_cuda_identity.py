"""The GPU's kernels, run on the host, return the bits of every other body; see tests/simulator/test_identity.py.

They run through cupy://'s own driver, with a stand-in for CuPy that watches every access. What a GPU adds to this, its
own compiler and its memory, tests/hardware/test_gpu.py looks at.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bodies import Outcome, assert_is_slice, assert_same, compiled, ising_program, joined, run_whole, shard
from fake_cupy import FORWARD, RANDOM, REVERSE, FakeCupy, Shim
from glauber.compile import PottsProgram, make_run
from glauber.errors import ModelNotSupportedError
from glauber.model import IsingModel
from glauber.schedule import AnnealingSchedule, SamplingSchedule
from glauber_drivers import cuda_session
from glauber_drivers.cuda_job import choose_form
from glauber_drivers.cupy_gpu import CupyDriver
from test_identity import ISING_MODELS, ising_cases, ising_product, ising_reference, ising_run
from test_identity_potts import POTTS_FACTORS, lattice_cases, potts_cases, potts_run

pytestmark = pytest.mark.cuda


def on_gpu(shim: Shim, program: Any, run: Any) -> Outcome:
    machine = CupyDriver(FakeCupy(shim), 0)
    machine.program(program)
    machine.admit(run, program)
    return joined(list(machine.run(run)))


def set_up(shim: Shim, turn: int, fused: bool, updates: int, monkeypatch: Any) -> None:
    """Threads in one of three orders, in blocks of three sizes; batches of one sweep or of several; short graphs."""
    shim.order, shim.seed = (FORWARD, REVERSE, RANDOM)[turn % 3], turn
    monkeypatch.setattr(cuda_session, "FUSED_POSITIONS", 10**6 if fused else 0)
    monkeypatch.setattr(cuda_session, "BLOCKS_EACH", 1)
    monkeypatch.setattr(cuda_session, "BLOCK", (32, 64, 256)[turn // 3 % 3])
    monkeypatch.setattr(cuda_session, "GRAPH_SWEEPS", 2)
    monkeypatch.setattr(cuda_session, "MOST_SWEEPS", 2)
    monkeypatch.setattr(cuda_session, "FIRST_UPDATES", (1 if turn % 2 else 5) * updates)


def ways(program: Any, run: Any) -> list[tuple[str | None, bool]]:
    """(kernel, whether fused) of all that fit."""
    potts, fitting = isinstance(program, PottsProgram), []
    for kernel in ["bits", "fields", "dense"] if run.layout == 0 and not potts else [None]:
        try:
            choose_form(program, replace(run, kernel=kernel))
        except ModelNotSupportedError:
            continue
        fitting += [(kernel, False), (kernel, True)]
    return fitting


def check(shim: Shim, program: Any, run: Any, wanted: Outcome, turn: int, monkeypatch: Any, context: Any) -> None:
    """All kernels that fit, colour by colour and fused."""
    for kernel, fused in ways(program, run):
        here = replace(run, kernel=kernel)
        turn += 1
        set_up(shim, turn, fused, program.n_sites * run.n_chains, monkeypatch)
        got = on_gpu(shim, program, here)
        assert_same(got, wanted, (context, kernel, fused, shim.order))


@pytest.mark.parametrize("model", ISING_MODELS)
def test_ising_pairs(shim, model, monkeypatch):
    for turn, case in enumerate(case for case in ising_cases() if case["model"] == model):
        wanted = ising_reference(tuple(sorted(case.items())))
        check(shim, ising_program(model), ising_run(case), wanted, turn, monkeypatch, case)


def test_the_pairs_reach_every_kernel():
    """Without being forced; lattices below have sums of two bytes."""
    forms = {choose_form(ising_program(case["model"]), ising_run(case)).kernel for case in ising_cases()}
    assert forms == {"bits3", "bits4", "bits5", "fields1", "fields4", "dense", "sites"}


@pytest.mark.slow
@pytest.mark.parametrize("model", ISING_MODELS)
def test_ising_product(shim, model, monkeypatch):
    """Every combination; the kernels and their two forms take turns."""
    program = ising_program(model)
    for turn, case in enumerate(ising_product(model)):
        run = ising_run(case)
        fitting = ways(program, run)
        kernel, fused = fitting[turn % len(fitting)]
        set_up(shim, turn, fused, program.n_sites * run.n_chains, monkeypatch)
        got = on_gpu(shim, program, replace(run, kernel=kernel))
        assert_same(got, ising_reference(tuple(sorted(case.items()))), (case, kernel, fused, shim.order))


@pytest.mark.parametrize("couplings", [*POTTS_FACTORS["couplings"], "lattices"])
def test_potts_pairs(shim, couplings, monkeypatch):
    cases = lattice_cases()[::4] if couplings == "lattices" else potts_cases()  # lattices are nothing special here
    for turn, case in enumerate(cases):
        if couplings in ("lattices", case["couplings"]):
            program, run = potts_run(case)
            check(shim, program, run, run_whole("core", program, run), turn, monkeypatch, case)


def cubic(side: int, rng: np.random.Generator, weights: Any) -> IsingModel:
    at = np.arange(side**3).reshape(side, side, side)
    edges = np.concatenate([np.stack([at.ravel(), np.roll(at, 1, axis).ravel()], axis=1) for axis in range(3)])
    return IsingModel(np.zeros(side**3), edges, weights(len(edges)))


@pytest.mark.parametrize("chains", [4, 40])
@pytest.mark.parametrize(("weights", "kernel"), [("signs", "bits3"), ("steps", "fields2"), ("normal", "fields4")])
def test_lattices_of_many_blocks(shim, weights, kernel, chains, monkeypatch):
    rng = np.random.default_rng(3)
    draw = {
        "signs": lambda n: rng.choice([-1.0, 1.0], n),
        "steps": lambda n: rng.integers(-300, 300, n).astype(float),
        "normal": lambda n: rng.normal(size=n),
    }
    program = compiled(cubic(4, rng, draw[weights]))
    for turn, schedule in enumerate(
        (
            SamplingSchedule(n_samples=2, n_chains=chains, n_warmup=3, beta=0.6),
            AnnealingSchedule(table=(0.1, 0.5, 0.5, 1.0), n_chains=chains),
        )
    ):
        run = make_run(program, schedule, seed=7, observe={"samples", "moments"})
        assert choose_form(program, run).kernel == ("sites" if chains == 4 else kernel)
        check(shim, program, run, run_whole("core", program, run), turn, monkeypatch, (weights, chains, turn))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("chains", "first", "count"), [(70, 33, 20), (70, 64, 6), (3, 1, 2)])
def test_a_shard_is_a_slice_of_the_whole(shim, chains, first, count, fused, monkeypatch):
    program = ising_program("frustrated")
    rng = np.random.default_rng(5)
    schedule = SamplingSchedule(n_samples=3, n_chains=chains, n_warmup=1)
    clamp = rng.choice(np.array([-1, 0, 0, 1], np.int8), (chains, program.n_sites))
    fields = rng.normal(size=(chains, program.n_sites))
    for own, held in ((None, None), (fields, clamp)):
        run = make_run(program, schedule, seed=9, fields=own, clamp=held, observe={"samples", "moments"})
        whole = run_whole("reference", program, run)
        set_up(shim, first, fused, 10, monkeypatch)
        assert_is_slice(on_gpu(shim, program, shard(run, first, count)), whole, first, count, (first, count))


@pytest.mark.parametrize("kernel", ["bits", "fields", "dense"])
def test_a_run_that_is_resumed_batch_by_batch_is_the_whole_run(shim, kernel, monkeypatch):
    program = ising_program("frustrated")
    schedule = SamplingSchedule(n_samples=3, n_chains=40, n_warmup=2, sweeps_per_sample=2)
    run = replace(make_run(program, schedule, seed=2, observe={"samples", "moments"}), kernel=kernel)
    whole = run_whole("reference", program, replace(run, kernel=None))
    set_up(shim, 1, True, program.n_sites * run.n_chains, monkeypatch)
    batches = []
    while run.first_sweep <= run.n_sweeps:
        machine = CupyDriver(FakeCupy(shim), 0)
        machine.program(program)
        running = machine.run(run)
        batch = next(running)
        running.close()
        batches.append(batch)
        sums = batch.moments
        run = replace(
            run,
            first_sweep=batch.next_sweep,
            initial=batch.state,
            initial_moments=(sums.n_samples, sums.sites, sums.edges),
        )
    assert len(batches) > 3
    assert_same(joined(batches), whole, kernel)
