"""Models of THRML's own examples, there and back: the same energies to 1e-6, and the same moments when sampled.

The models are those of its README (an Ising chain), of examples/02_spin_models (a Pegasus graph with normal weights)
and of examples/00_probabilistic_computing (a Potts lattice of equal-state weights); examples/01_all_of_thrml has
continuous nodes, which must be refused. Statistical tests have alpha 1e-6 each, shared by their moments, and fixed
seeds; chains are independent, and of each only the last state counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("thrml", reason="needs the extra thrml: pip install -e '.[thrml]'")

import glauber as gl
import jax
import jax.numpy as jnp
import networkx as nx
import thrml
from glauber.adapters import from_thrml, schedule_from_thrml, schedule_to_thrml, to_thrml
from glauber.errors import InvalidModelError, ModelNotSupportedError
from glauber.testing import ExactLaw
from scipy.stats import norm
from thrml.models import (
    CategoricalEBMFactor,
    CategoricalGibbsConditional,
    DiscreteEBMFactor,
    FactorizedEBM,
    IsingEBM,
    IsingSamplingProgram,
    SpinEBMFactor,
)

ALPHA = 1e-6


def chain() -> IsingEBM:
    """Of the README."""
    nodes = [thrml.SpinNode() for _ in range(5)]
    edges = [(nodes[i], nodes[i + 1]) for i in range(4)]
    return IsingEBM(nodes, edges, jnp.zeros(5), jnp.ones(4) * 0.5, jnp.array(1.0))


def pegasus(m: int, beta: float = 1.0) -> IsingEBM:
    """Of examples/02_spin_models, which takes m = 14 and beta = 1."""
    graphs = pytest.importorskip("dwave.graphs", reason="needs dwave-graphs, of the extra dev")
    graph = graphs.pegasus_graph(m)
    node = {name: thrml.SpinNode() for name in graph.nodes}
    nodes, edges = list(node.values()), [(node[a], node[b]) for a, b in graph.edges]
    _, one, two = jax.random.split(jax.random.key(4242), 3)
    biases, weights = jax.random.normal(one, (len(nodes),)), jax.random.normal(two, (len(edges),))
    return IsingEBM(nodes, edges, biases, weights, jnp.array(beta))


def lattice(side: int) -> FactorizedEBM:
    """Of examples/00_probabilistic_computing: five states, open sides, a weight for equal neighbours, no biases."""
    graph = nx.grid_graph(dim=(side, side))
    node = {name: thrml.CategoricalNode() for name in graph.nodes}
    ends = [thrml.Block([node[edge[k]] for edge in graph.edges]) for k in (0, 1)]
    weights = jnp.broadcast_to(jnp.eye(5), (graph.number_of_edges(), 5, 5))
    return FactorizedEBM([CategoricalEBMFactor(ends, 1.0 * weights)])


def random_states(found: Any, n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if isinstance(found.model, gl.IsingModel):
        return rng.choice(np.array([-1, 1], np.int8), (n, found.model.n_sites))
    return rng.integers(found.model.n_states, size=(n, found.model.n_sites)).astype(np.uint8)


def thrml_energies(ebm: Any, nodes: Any, states: np.ndarray) -> np.ndarray:
    block = thrml.Block(list(nodes))
    values = states > 0 if isinstance(block.nodes[0], thrml.SpinNode) else states
    return np.asarray(jax.jit(jax.vmap(lambda state: ebm.energy([state], [block])))(jnp.asarray(values)))


EXAMPLES = {"README": chain, "02, P2": lambda: pegasus(2), "00, 20 x 20": lambda: lattice(20)}
BIG = {"02, P14": lambda: pegasus(14)}


@pytest.mark.parametrize("name", [*EXAMPLES, pytest.param("02, P14", marks=pytest.mark.slow)])
def test_energies_there_and_back(name):
    """To 1e-6 absolutely where THRML adds up in doubles, whatever the size; in floats, to their rounding."""
    make = {**EXAMPLES, **BIG}[name]
    ebm = make()
    found = from_thrml(ebm)
    states = random_states(found, 20)
    wanted = found.beta * found.model.energies(states)
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(thrml_energies(ebm, found.nodes, states), wanted, rtol=0, atol=2e-6 * max(1, scale))
    with jax.enable_x64(True):
        ebm = make()
        found = from_thrml(ebm)
        states = random_states(found, 20)
        wanted = thrml_energies(ebm, found.nodes, states)
        np.testing.assert_allclose(found.beta * found.model.energies(states), wanted, rtol=0, atol=1e-6)
        program = to_thrml(found.model, beta=found.beta)
        np.testing.assert_allclose(thrml_energies(program.ebm, program.nodes, states), wanted, rtol=0, atol=1e-6)
        again = from_thrml(program.ebm)
        np.testing.assert_allclose(again.beta * again.model.energies(states), wanted, rtol=0, atol=1e-6)
    if isinstance(found.model, gl.IsingModel):
        assert again.beta == found.beta
        np.testing.assert_array_equal(again.model.edges, found.model.edges)


def last_states(program: Any, blocks: list[Any], found: Any, sweeps: int, chains: int, seed: int) -> np.ndarray:
    """THRML's own states after so many sweeps from random starts."""
    start = [jnp.asarray(block) for block in found.blocks(blocks, random_states(found, chains, seed))]
    schedule = thrml.SamplingSchedule(n_warmup=sweeps, n_samples=1, steps_per_sample=1)

    def one(key: Any, state: Any) -> Any:
        return thrml.sample_states(key, program, schedule, state, [], blocks)

    drawn = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(seed), chains), start)
    return found.states(blocks, [np.asarray(block)[:, 0] for block in drawn])


def moments(model: Any, states: np.ndarray) -> np.ndarray:
    """Of each chain: spins and products; for Potts models, whether a site has state 0 and whether neighbours agree."""
    pairs = states[:, model.edges[:, 0]], states[:, model.edges[:, 1]]
    if isinstance(model, gl.IsingModel):
        return np.concatenate([states, pairs[0] * pairs[1]], axis=1).astype(float)
    return np.concatenate([states == 0, pairs[0] == pairs[1]], axis=1).astype(float)


def assert_agree(one: np.ndarray, two: np.ndarray) -> None:
    """Each moment within so many standard errors of the difference as all of them may be with probability ALPHA."""
    error = np.sqrt(one.var(axis=0) / len(one) + two.var(axis=0) / len(two))
    z = np.abs(one.mean(axis=0) - two.mean(axis=0)) / error
    assert z.max() < norm.isf(ALPHA / (2 * one.shape[1])), f"a moment is off by {z.max():.1f} standard errors"


def test_moments_of_the_readme_chain():
    ebm = chain()
    found = from_thrml(ebm)
    blocks = [thrml.Block(ebm.nodes[::2]), thrml.Block(ebm.nodes[1::2])]
    program = IsingSamplingProgram(ebm, blocks, [])
    theirs = moments(found.model, last_states(program, blocks, found, 100, 4000, 1))
    with gl.open_device("sim://ideal?seed=3") as device:
        schedule = gl.SamplingSchedule(n_samples=1, n_chains=4000, n_warmup=100, beta=found.beta)
        ours = moments(found.model, device.submit(found.model, schedule).result().last)
    law = ExactLaw(found.model, found.beta)
    exact = law.probabilities @ moments(found.model, law.states)
    np.testing.assert_allclose(exact[5:], np.tanh(0.5))
    for drawn in (theirs, ours):
        z = np.abs(drawn.mean(axis=0) - exact) / np.sqrt((1 - exact**2) / len(drawn))
        assert z.max() < norm.isf(ALPHA / (2 * len(z)))


def test_moments_of_the_potts_lattice():
    """A weight of 0.9 in place of 1 must be noticed in the part of equal neighbours."""
    found = from_thrml(lattice(20))
    program = to_thrml(found.model, beta=found.beta)
    theirs = from_thrml(program.ebm)
    states = last_states(program.program, program.free_blocks, theirs, 300, 300, 2)
    with gl.open_device("sim://ideal?seed=4") as device:
        schedule = gl.SamplingSchedule(n_samples=1, n_chains=300, n_warmup=300, beta=found.beta)
        ours = device.submit(found.model, schedule).result().last
        weak = device.submit(found.model, schedule.model_copy(update={"beta": 0.9})).result().last
    parts = [moments(found.model, drawn) for drawn in (states, ours, weak)]
    assert_agree(parts[0], parts[1])
    whole = [part[:, 400:].mean(axis=1, keepdims=True) for part in parts]
    assert_agree(whole[0], whole[1])
    with pytest.raises(AssertionError, match="off by"):
        assert_agree(whole[0], whole[2])


def test_moments_of_the_pegasus_graph():
    """At beta = 0.2: at the example's own 1 its normal weights are a glass, whose law no chain reaches from afar."""
    found = from_thrml(pegasus(2, beta=0.2))
    program = to_thrml(found.model, beta=found.beta)
    theirs = from_thrml(program.ebm)
    states = last_states(program.program, program.free_blocks, theirs, 200, 2000, 5)
    with gl.open_device("sim://ideal?seed=6") as device:
        schedule = gl.SamplingSchedule(n_samples=1, n_chains=2000, n_warmup=200, beta=found.beta)
        ours = device.submit(found.model, schedule).result().last
    assert_agree(moments(found.model, states), moments(found.model, ours))


def test_block_specs_become_clamps_and_back():
    ebm = chain()
    found = from_thrml(ebm)
    clamped = [thrml.Block([ebm.nodes[3], ebm.nodes[0]])]
    clamp = found.clamp(clamped, [np.array([[True, False], [False, True]])])
    np.testing.assert_array_equal(clamp, [[-1, 0, 0, 1, 0], [1, 0, 0, -1, 0]])
    program = to_thrml(found.model, clamp=clamp[0])
    free = [node for block in program.free_blocks for node in block]
    assert {program.nodes.index(node) for node in free} == {1, 2, 4}
    assert [program.nodes.index(node) for node in program.clamped_blocks[0]] == [0, 3]
    np.testing.assert_array_equal(program.clamped_states[0], [False, True])
    edges = {(program.nodes.index(a), program.nodes.index(b)) for a, b in program.ebm.edges}
    for block in program.free_blocks:  # a block's nodes are drawn at once, so none may be another's neighbour
        sites = {program.nodes.index(node) for node in block}
        assert not any(a in sites and b in sites for a, b in edges)
    states = np.array([[1, -1, 1, 1, -1]])
    blocks = [thrml.Block(ebm.nodes[::2]), thrml.Block(ebm.nodes[1::2])]
    np.testing.assert_array_equal(found.states(blocks, found.blocks(blocks, states)), states)
    with pytest.raises(InvalidModelError, match="2 of 5 nodes"):
        found.states(blocks[:1], found.blocks(blocks[:1], states))
    with pytest.raises(InvalidModelError, match="not the model's"):
        found.clamp([thrml.Block([thrml.SpinNode()])], [np.array([True])])


def test_schedules_keep_the_same_sweeps():
    theirs = thrml.SamplingSchedule(n_warmup=100, n_samples=1000, steps_per_sample=2)
    ours = schedule_from_thrml(theirs, n_chains=3, beta=0.5)
    assert (ours.n_warmup, ours.n_samples, ours.sweeps_per_sample, ours.n_chains, ours.beta) == (98, 1000, 2, 3, 0.5)
    assert ours.n_sweeps == 100 + 999 * 2
    assert schedule_to_thrml(ours) == theirs
    assert schedule_from_thrml(thrml.SamplingSchedule(3, 1, 7)).n_sweeps == 3
    with pytest.raises(InvalidModelError, match="after 1 sweeps"):
        schedule_from_thrml(thrml.SamplingSchedule(1, 10, 5))


def test_thrml_takes_its_first_state_right_after_the_warm_up():
    """What the conversion of schedules rests on: without warm-up the first state is the start itself."""
    program = to_thrml(gl.IsingModel([5.0], [], []), beta=100.0)  # any sweep turns the spin up
    start = [jnp.array([False])]
    schedule = thrml.SamplingSchedule(n_warmup=0, n_samples=3, steps_per_sample=1)
    drawn = thrml.sample_states(jax.random.key(0), program.program, schedule, start, [], program.free_blocks)
    assert np.asarray(drawn[0]).ravel().tolist() == [False, True, True]


def test_factors_add_up_and_tables_keep_their_orientation():
    a, b = thrml.CategoricalNode(), thrml.CategoricalNode()
    first, second = np.arange(6.0).reshape(2, 3), np.array([[1.0, 0.5], [0.0, 2.0], [0.25, 0.0]])
    bias = jnp.array([[0.5, -0.5]])
    factors = [
        CategoricalEBMFactor([thrml.Block([a])], bias),
        CategoricalEBMFactor([thrml.Block([a]), thrml.Block([b])], jnp.asarray(first)[None]),
        CategoricalEBMFactor([thrml.Block([b]), thrml.Block([a])], jnp.asarray(second)[None]),
    ]
    found = from_thrml(factors)
    assert found.model.allowed is not None
    np.testing.assert_array_equal(found.model.allowed, [[True, True, False], [True, True, True]])
    for i in range(2):
        for j in range(3):
            wanted = -(bias[0, i] + first[i, j] + second[j, i])
            assert found.model.energies(np.array([[i, j]]))[0] == pytest.approx(float(wanted))
    with pytest.raises(ModelNotSupportedError, match="not allowed"):
        to_thrml(found.model)


class ContinuousNode(thrml.pgm.AbstractNode):
    """Of examples/01_all_of_thrml."""


def test_what_glauber_has_no_models_for_is_refused():
    spins = [thrml.Block([thrml.SpinNode()]) for _ in range(3)]
    category = thrml.Block([thrml.CategoricalNode()])
    with pytest.raises(ModelNotSupportedError, match="3 spins"):
        from_thrml([SpinEBMFactor(spins, jnp.ones(1))])
    with pytest.raises(ModelNotSupportedError, match="1 spins and 1 categorical"):
        from_thrml([DiscreteEBMFactor(spins[:1], [category], jnp.ones((1, 4)))])
    with pytest.raises(InvalidModelError, match="to itself"):
        from_thrml([SpinEBMFactor([spins[0], spins[0]], jnp.ones(1))])
    with pytest.raises(InvalidModelError, match="not of both"):
        from_thrml([SpinEBMFactor(spins[:1], jnp.ones(1)), CategoricalEBMFactor([category], jnp.ones((1, 3)))])
    with pytest.raises(InvalidModelError, match="needs factors"):
        from_thrml([])

    class Quadratic(thrml.factor.AbstractFactor):
        def to_interaction_groups(self):
            return []

    with pytest.raises(ModelNotSupportedError, match="Quadratic"):
        from_thrml([Quadratic([thrml.Block([ContinuousNode()])])])
    with pytest.raises(ModelNotSupportedError, match="300 states"):
        to_thrml(gl.PottsModel(np.zeros((1, 300)), [], []))
    with pytest.raises(InvalidModelError, match="clamp must have shape"):
        to_thrml(gl.IsingModel([0.0], [], []), clamp=[1, 1])
    with pytest.raises(ModelNotSupportedError, match="not a float"):
        from_thrml(1.0)


@pytest.mark.parametrize("clamp", [[5, 0], [0.5, 0.0], [True, False], [np.nan, 0.0]])
def test_states_that_are_none_are_refused_and_not_cut(clamp):
    with pytest.raises(InvalidModelError, match=r"-1, \+1, or 0"):
        to_thrml(gl.IsingModel(np.zeros(2), [], []), clamp=clamp)
    with pytest.raises(InvalidModelError, match="0 to 2, or -1"):
        to_thrml(gl.PottsModel(np.zeros((2, 3)), [], []), clamp=[259, -1])  # 259 is 3 in a byte
    with pytest.raises(InvalidModelError, match="beta"):
        to_thrml(gl.IsingModel(np.zeros(2), [], []), beta=float("nan"))


def test_spins_of_thrml_are_boolean():
    nodes = [thrml.SpinNode() for _ in range(2)]
    found = from_thrml([SpinEBMFactor([thrml.Block(nodes)], jnp.ones(2))])
    for read in (found.states, found.clamp):
        with pytest.raises(InvalidModelError, match="False and True, not -1 to 1"):
            read([thrml.Block(nodes)], [np.array([-1, 1])])


def test_potts_programs_sample_on_thrml():
    """A program of ours with tables and fields, sampled by THRML itself: exact law, and its number of states."""
    rng = np.random.default_rng(8)
    model = gl.PottsModel(rng.normal(size=(3, 3)), [(1, 0), (1, 2)], rng.normal(size=(2, 3, 3)))
    program = to_thrml(model, beta=0.8)
    assert isinstance(program.program.samplers[0], CategoricalGibbsConditional)
    found = from_thrml(program.ebm)
    states = last_states(program.program, program.free_blocks, found, 40, 3000, 9)
    law = ExactLaw(model, 0.8)
    exact = law.probabilities @ moments(model, law.states)
    drawn = moments(model, states)
    z = np.abs(drawn.mean(axis=0) - exact) / np.sqrt(exact * (1 - exact) / len(drawn))
    assert z.max() < norm.isf(ALPHA / (2 * len(z)))
