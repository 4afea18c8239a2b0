"""A program as THRML has it: nodes, one block for each colour, factors, and a sweep that THRML's sampler does.

THRML's law is P(s) ~ exp(+ sum of weights), so its weights are ours times beta, signs as they are. Nodes and blocks are
made once for each graph and set of held sites; coefficients and beta come in as traced arrays.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from glauber.compile import AnyProgram, PottsProgram
from numpy.typing import NDArray
from thrml import Block, BlockGibbsSpec, CategoricalNode, SpinNode, sample_blocks
from thrml.factor import FactorSamplingProgram
from thrml.models.discrete_ebm import (
    CategoricalEBMFactor,
    CategoricalGibbsConditional,
    SpinEBMFactor,
    SpinGibbsConditional,
)
from thrml.pgm import DEFAULT_NODE_SHAPE_DTYPES

FORBIDDEN = -1e30
"""Weight of a state that is not allowed: exp of it is 0 in floats, and no product with it is NaN."""


class BlockGibbs:
    """THRML's sampler for one graph, compiled when first used.

    Args:
        program: whose graph counts; its coefficients do not.
        held: Boolean (n_sites,), sites that are clamped.
    """

    def __init__(self, program: AnyProgram, held: NDArray[np.bool_]) -> None:
        potts, order = isinstance(program, PottsProgram), program.order
        self._n_states = program.n_states if potts else 0
        nodes = [CategoricalNode() if potts else SpinNode() for _ in range(program.n_sites)]
        colours = [order.site[a:b] for a, b in zip(order.colour_start[:-1], order.colour_start[1:], strict=True)]
        self._free = [sites for colour in colours if len(sites := colour[~held[colour]])]
        self._held = np.flatnonzero(held)
        self._free_blocks = [Block([nodes[i] for i in sites]) for sites in self._free]
        self._held_blocks = [Block([nodes[i] for i in self._held])] if len(self._held) else []
        self._nodes = Block(nodes)
        self._ends = [Block([nodes[i] for i in ends]) for ends in program.edges.T.tolist()] if program.n_edges else []
        self.advance = jax.jit(self._advance, static_argnames=("kept", "first_chain"))

    def _program(self, fields: Any, couplings: Any) -> Any:
        """THRML's program of weights: beta times fields (n_sites,) or (n_sites, q), and couplings."""
        spec = BlockGibbsSpec(self._free_blocks, self._held_blocks, DEFAULT_NODE_SHAPE_DTYPES)
        if self._n_states:
            factors = [CategoricalEBMFactor([self._nodes], fields)]
            factors += [CategoricalEBMFactor(self._ends, couplings)] if self._ends else []
            conditional = CategoricalGibbsConditional(self._n_states)
        else:
            factors = [SpinEBMFactor([self._nodes], fields)]
            factors += [SpinEBMFactor(self._ends, couplings)] if self._ends else []
            conditional = SpinGibbsConditional()
        return FactorSamplingProgram(spec, [conditional for _ in self._free_blocks], factors, [])

    def _sweep(self, key: Any, states: Any, fields: Any, couplings: Any) -> Any:
        """One chain's states (n_sites,) after THRML has visited every free block."""
        free, held = [states[sites] for sites in self._free], [states[self._held]] if len(self._held) else []
        drawn, _ = sample_blocks(key, free, held, self._program(fields, couplings), [None] * len(free))
        for sites, values in zip(self._free, drawn, strict=True):
            states = states.at[sites].set(values)
        return states

    def _advance(
        self,
        words: Any,
        states: Any,
        fields: Any,
        forbidden: Any,
        couplings: Any,
        betas: Any,
        n: Any,
        every: Any,
        *,
        kept: int,
        first_chain: int,
    ) -> tuple[Any, Any]:
        """Do n times `every` sweeps of all chains.

        Args:
            words: uint32 (4,): seed low and high, first sweep low and high.
            states: (n_chains, n_sites), Boolean or uint8.
            fields: float32 (1 or n_chains, n_sites[, q]).
            forbidden: float32 (n_sites[, q]), 0 or FORBIDDEN, whatever beta is.
            couplings: float32 (n_edges[, q, q]).
            betas: of each sweep from this one on, the last one for all that follow, float32.
            n: how many states are kept.
            every: sweeps from one to the next.
            kept: room for states.
            first_chain: number of the first chain.

        Returns:
            The states after the last sweep, and those kept, (n_chains, kept, n_sites).
        """
        seed = jax.random.fold_in(jax.random.key(words[0]), words[1])
        chains = first_chain + jnp.arange(len(states), dtype=jnp.uint32)
        per_chain = fields.shape[0] == len(states)

        def one_sweep(_: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            states, done = carry
            low = words[2] + done.astype(jnp.uint32)
            high = words[3] + (low < words[2]).astype(jnp.uint32)
            key = jax.random.fold_in(jax.random.fold_in(seed, high), low)
            keys = jax.vmap(lambda chain: jax.random.fold_in(key, chain))(chains)
            beta = betas[jnp.minimum(done, len(betas) - 1)]
            own = beta * (fields if per_chain else fields[0]) + forbidden
            sweep = jax.vmap(self._sweep, in_axes=(0, 0, 0 if per_chain else None, None))
            return sweep(keys, states, own, beta * couplings), done + 1

        def one_sample(i: Any, carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
            states, done, room = carry
            states, done = jax.lax.fori_loop(0, every, one_sweep, (states, done))
            return states, done, jax.lax.dynamic_update_index_in_dim(room, states, i, 1)

        room = jnp.zeros((len(states), kept, states.shape[1]), states.dtype)
        states, _, room = jax.lax.fori_loop(0, n, one_sample, (states, jnp.int32(0), room))
        return states, room
