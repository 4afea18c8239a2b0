"""Ways to sweep one Potts model: a device, THRML, and a loop in plain Python, all from given states."""

from __future__ import annotations

import math
import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import glauber as gl
import numpy as np
from numpy.typing import NDArray

UPDATES_PER_CALL = 3_000_000
"""Of THRML, whose number of sweeps is compiled in: longer runs are several calls."""


@dataclass(frozen=True)
class Run:
    """What some sweeps took.

    Attributes:
        seconds: by the wall clock.
        cpu_seconds: of all threads of this process: on a busy machine the steadier figure.
        sweeps: that were made, of each chain.
        states: after them, (n_chains, n_sites).
    """

    seconds: float
    cpu_seconds: float
    sweeps: int
    states: NDArray[Any]


@dataclass(frozen=True)
class Contender:
    """A sampler ready for one model and number of chains.

    Attributes:
        name: of the sampler.
        preparation: seconds from the model to the first sweep: compiling, or programming.
        run: (start states, number of sweeps at least, seed) -> Run.
    """

    name: str
    preparation: float
    run: Callable[[NDArray[Any], int, int], Run]


def timed(work: Callable[[], tuple[int, NDArray[Any]]]) -> Run:
    """Run something that returns sweeps and states."""
    wall, cpu = time.perf_counter(), time.process_time()
    sweeps, states = work()
    return Run(time.perf_counter() - wall, time.process_time() - cpu, sweeps, states)


def on_device(device: gl.Device, model: gl.PottsModel, n_chains: int) -> Contender:
    """A device through the public interface, one job a run, on one thread where it is a simulator."""
    simulated = device.address.startswith("sim://")

    def run(start: NDArray[Any], n_sweeps: int, seed: int) -> Run:
        schedule = gl.SamplingSchedule(n_samples=1, n_chains=n_chains, sweeps_per_sample=n_sweeps)
        extra: dict[str, Any] = {"threads": 1} if simulated else {}

        def work() -> tuple[int, NDArray[Any]]:
            job = device.submit(model, schedule, initial=start, observe="last", seed=seed, **extra)
            return n_sweeps, job.result().last

        return timed(work)

    first = run(np.zeros((n_chains, model.n_sites), dtype=np.uint8), 1, 1)
    kept = [part for part in re.split("[?&]", device.address) if not part.startswith("seed=")]
    return Contender(f"glauber, {' '.join(kept)}", first.seconds, run)


def on_thrml(model: gl.PottsModel, n_chains: int) -> Contender:
    """THRML's categorical block Gibbs in the device's own colours, compiled for these chains; JAX on one CPU thread.

    Raises:
        MissingExtraError: THRML is not installed.
    """
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    from glauber.adapters import schedule_to_thrml, to_thrml

    began = time.perf_counter()
    made = to_thrml(model)  # it says what to install where THRML is not
    import jax
    import jax.numpy as jnp
    import thrml

    per_call = max(1, min(1000, UPDATES_PER_CALL // (model.n_sites * n_chains)))
    # one sample, taken after all of the call's sweeps
    schedule = schedule_to_thrml(gl.SamplingSchedule(n_samples=1, n_warmup=per_call - 1))
    number = {node: site for site, node in enumerate(made.nodes)}
    sites = [np.array([number[node] for node in block.nodes]) for block in made.free_blocks]

    def call(key: Any, state: Any) -> Any:
        return thrml.sample_states(key, made.program, schedule, state, [], made.free_blocks)

    def placed(states: NDArray[Any]) -> list[Any]:
        return [jnp.asarray(states[:, block].astype(np.uint8)) for block in sites]

    def keys(seed: int) -> Any:
        return jax.random.split(jax.random.key(seed), n_chains)

    start = np.zeros((n_chains, model.n_sites), dtype=np.uint8)
    compiled = jax.jit(jax.vmap(call)).lower(keys(1), placed(start)).compile()
    jax.block_until_ready(compiled(keys(1), placed(start)))
    preparation = time.perf_counter() - began

    def run(states: NDArray[Any], n_sweeps: int, seed: int) -> Run:
        calls = max(1, math.ceil(n_sweeps / per_call))
        ready, many = placed(states), [keys(seed % 2**31 + k) for k in range(calls)]
        jax.block_until_ready((ready, many))

        def work() -> tuple[int, NDArray[Any]]:
            now: Any = ready
            for each in many:
                now = [block[:, 0] for block in compiled(each, now)]
            jax.block_until_ready(now)
            final = np.empty(states.shape, dtype=np.uint8)
            for block, values in zip(sites, now, strict=True):
                final[:, block] = np.asarray(values)
            return calls * per_call, final

        return timed(work)

    return Contender("THRML, JAX on the CPU", preparation, run)


def in_plain_python(model: gl.PottsModel) -> Contender:
    """Site after site, chain after chain, in plain Python: what one writes first."""
    q = model.n_states
    tables = model.edge_tables()
    neighbours: list[list[tuple[int, list[list[float]]]]] = [[] for _ in range(model.n_sites)]
    for edge, (i, j) in enumerate(model.edges.tolist()):  # tables indexed [state of the neighbour][own state]
        neighbours[i].append((j, tables[edge].T.tolist()))
        neighbours[j].append((i, tables[edge].tolist()))
    fields = model.fields.tolist()

    def sweep(state: list[int], draw: random.Random) -> None:
        for site, around in enumerate(neighbours):
            field = list(fields[site])
            for other, table in around:
                row = table[state[other]]
                for k in range(q):
                    field[k] += row[k]
            top = max(field)
            state[site] = draw.choices(range(q), [math.exp(value - top) for value in field])[0]

    def run(start: NDArray[Any], n_sweeps: int, seed: int) -> Run:
        draw = random.Random(seed)
        chains = start.tolist()

        def work() -> tuple[int, NDArray[Any]]:
            for _ in range(n_sweeps):
                for state in chains:
                    sweep(state, draw)
            return n_sweeps, np.array(chains, dtype=np.uint8)

        return timed(work)

    return Contender("plain Python, one site at a time", 0.0, run)
