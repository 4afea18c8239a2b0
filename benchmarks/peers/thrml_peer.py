"""thrml's block Gibbs, jitted and mapped over chains; compiling is not timed. beta is part of its weights.

A call runs a fixed number of sweeps, which is compiled in; longer runs are several calls.
"""

from __future__ import annotations

import time
from typing import Any

import glauber as gl
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from thrml import Block, BlockGibbsSpec, CategoricalNode, SamplingSchedule, SpinNode, sample_states
from thrml.factor import FactorSamplingProgram
from thrml.models import IsingEBM, IsingSamplingProgram
from thrml.models.discrete_ebm import CategoricalEBMFactor, CategoricalGibbsConditional
from thrml.pgm import DEFAULT_NODE_SHAPE_DTYPES

from benchmarks.contender import Contender, UnsuitedError
from benchmarks.workloads import Workload, colour_blocks

UPDATES_PER_CALL = 3_000_000
MOST_COLOURS = 100
"""Each colour is a block of its own in the compiled program; 1,000 of them take longer to compile than is of use."""


def contenders(workload: Workload) -> list[Contender]:
    """One; JAX's default generator."""
    model = workload.model
    sites = colour_blocks(model)
    if len(sites) > MOST_COLOURS:
        raise UnsuitedError(f"compiling {len(sites)} blocks, one a colour, takes minutes")
    ising = isinstance(model, gl.IsingModel)
    program, blocks = (_ising if ising else _potts)(model, workload.beta, sites)
    sweeps_per_call = max(1, min(1000, UPDATES_PER_CALL // (model.n_sites * workload.chains)))
    # the one sample is the state after the warm-up, so that is all the sweeps there are
    schedule = SamplingSchedule(n_warmup=sweeps_per_call, n_samples=1, steps_per_sample=1)

    def call(key: Any, state: Any) -> Any:
        return sample_states(key, program, schedule, state, [], blocks)

    compiled = jax.jit(jax.vmap(call))

    def run(start: NDArray[Any], sweeps: int, seed: int) -> tuple[float, NDArray[Any]]:
        values = start > 0 if ising else start.astype(np.uint8)
        state = [jnp.asarray(values[:, block]) for block in sites]
        calls = max(1, round(sweeps / sweeps_per_call))
        keys = [jax.random.split(jax.random.key(seed % 2**63 + k), len(start)) for k in range(calls)]
        jax.block_until_ready((state, keys))
        began = time.perf_counter()
        for key in keys:
            state = [block[:, 0] for block in compiled(key, state)]
        jax.block_until_ready(state)
        seconds = (time.perf_counter() - began) * sweeps / (calls * sweeps_per_call)
        final = np.empty(start.shape, dtype=np.int8)
        for block, spins in zip(sites, state, strict=True):
            final[:, block] = np.asarray(spins)
        return seconds, 2 * final - 1 if ising else final

    return [Contender("thrml", "thrml", "Gibbs", "float32", "Threefry2x32-20 (JAX)", run)]


def _ising(model: gl.IsingModel, beta: float, sites: list[NDArray[np.int64]]) -> tuple[Any, list[Any]]:
    nodes: list[Any] = [SpinNode() for _ in range(model.n_sites)]
    edges = [(nodes[i], nodes[j]) for i, j in model.edges.tolist()]
    fields, couplings = jnp.asarray(model.fields, jnp.float32), jnp.asarray(model.couplings, jnp.float32)
    blocks: list[Any] = [Block([nodes[i] for i in block.tolist()]) for block in sites]
    return IsingSamplingProgram(IsingEBM(nodes, edges, fields, couplings, jnp.array(beta)), blocks, []), blocks


def _potts(model: gl.PottsModel, beta: float, sites: list[NDArray[np.int64]]) -> tuple[Any, list[Any]]:
    nodes = [CategoricalNode() for _ in range(model.n_sites)]
    i, j = model.edges.T.tolist()
    factors = [
        CategoricalEBMFactor([Block(nodes)], jnp.asarray(beta * model.fields, jnp.float32)),
        CategoricalEBMFactor(
            [Block([nodes[k] for k in i]), Block([nodes[k] for k in j])],
            jnp.asarray(beta * model.edge_tables(), jnp.float32),
        ),
    ]
    blocks = [Block([nodes[i] for i in block.tolist()]) for block in sites]
    spec = BlockGibbsSpec(blocks, [], DEFAULT_NODE_SHAPE_DTYPES)
    conditionals: list[Any] = [CategoricalGibbsConditional(model.n_states) for _ in blocks]
    return FactorSamplingProgram(spec, conditionals, factors, []), blocks
