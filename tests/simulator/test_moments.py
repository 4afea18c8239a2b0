"""Moments are counted 64 kept states at a time: every sum equals the one over the samples themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bodies import compiled, every_isa, run_whole
from glauber.compile import make_run, unpack_spins
from glauber.model import IsingModel
from glauber.schedule import SamplingSchedule
from glauber_simulator import core


def spread(n: int, degree: int, weights: Any) -> IsingModel:
    """A random graph of n sites, each with `degree` later ones, and couplings drawn from `weights`."""
    rng = np.random.default_rng(n + degree)
    pairs = {(i, int(j)) for i in range(n - 1) for j in rng.integers(i + 1, n, degree)}
    return IsingModel(rng.choice(weights, n), np.array(sorted(pairs)), rng.choice(weights, len(pairs)))


# More than a line of the cache of words in both layouts, and not a whole number of them
MODELS = {
    "signs": spread(700, 2, [-1.0, 1.0]),
    "reals": spread(700, 2, [-0.3, 0.11, 0.7]),
    "dense": spread(40, 40, [-0.9, 0.2, 1.0]),
    "no edges": IsingModel(np.linspace(-1, 1, 777), np.zeros((0, 2), np.int32), []),
}
SWEEPS = {63: 1, 64: 1, 65: 1, 130: 1, 66: 3}  # kept states: sweeps between them


@every_isa
@pytest.mark.parametrize("chains", [1, 3, 5, 33, 64, 70])
@pytest.mark.parametrize("name", MODELS)
def test_moments_are_those_of_the_samples(isa, name, chains):
    program = compiled(MODELS[name])
    rng = np.random.default_rng(chains)
    a, b = program.edges.T
    for turn, (kept, thin) in enumerate(SWEEPS.items()):
        schedule = SamplingSchedule(n_samples=kept, n_chains=chains, n_warmup=1, sweeps_per_sample=thin, beta=0.6)
        clamp = rng.choice(np.array([-1, 0, 0, 1], np.int8), (chains, program.n_sites)) if turn % 2 else None
        run = make_run(program, schedule, seed=kept, clamp=clamp, observe={"samples", "moments"})
        first = (0, 0, 0, 29, 64)[turn]  # shards may begin inside a word
        run = replace(run, isa=isa, threads=1 + turn % 3, first_chain=first, layout=(run.layout + turn // 2) % 2)
        got = run_whole("core", program, run)
        spins = unpack_spins(got.samples, program.n_sites).astype(np.int64)
        assert spins.shape[1] == kept
        assert got.moments is not None
        assert got.moments.n_samples == kept
        np.testing.assert_array_equal(got.moments.sites, spins.sum(axis=1), err_msg=f"{kept} {got.kernel}")
        edges = np.stack([(chain[:, a] * chain[:, b]).sum(axis=0) for chain in spins])
        np.testing.assert_array_equal(got.moments.edges, edges, err_msg=f"{kept} {got.kernel}")
        alone = run_whole_without_samples(program, run)
        np.testing.assert_array_equal(alone.sites, got.moments.sites)
        np.testing.assert_array_equal(alone.edges, edges)


def run_whole_without_samples(program: Any, run: Any) -> Any:
    """The moments of a run that keeps no samples, in calls of 1, 2, 3, ... sweeps."""
    session = core.IsingSession(core.IsingNet(program), replace(run, observe=frozenset({"moments"})), run.threads)
    session.advance(1, run.n_warmup, 0)
    done, length = run.n_warmup, run.sweeps_per_sample
    while done < run.n_sweeps:
        sweeps = min(length, run.n_sweeps - done)
        session.advance(done + 1, sweeps, run.sweeps_per_sample)
        done, length = done + sweeps, length + run.sweeps_per_sample
    return session.moments()


def test_a_sum_without_working_memory_is_refused():
    program = compiled(MODELS["dense"])
    run = make_run(program, SamplingSchedule(n_samples=1, n_chains=2), seed=1, observe={"moments"})
    session = core.IsingSession(core.IsingNet(program), run, 1)
    session._output.history = core.ffi.NULL
    with pytest.raises(Exception, match="size"):
        session.advance(1, 1, 1)
