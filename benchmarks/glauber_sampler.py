"""glauber on one thread: the C core's sweeps, without what happens once a job. Seeds come at run time."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import glauber as gl
import numpy as np
from glauber.catalogue import load_spec
from glauber.compile import PottsProgram, compile_program, make_run, pack_spins, step_of, unpack_spins
from glauber_simulator import core
from glauber_simulator.factory import with_parameters
from numpy.typing import NDArray

from benchmarks.contender import Contender
from benchmarks.workloads import Workload


def program_of(model: Any, bits: int) -> Any:
    """The integer program of a model on the ideal device with weights of so many bits."""
    return compile_program(model, step_of(model, with_parameters(load_spec("ideal"), {"weight_bits": str(bits)})))


def session(program: Any, net: Any, run: Any, threads: int = 1) -> Any:
    """A run in progress on the C core."""
    kind: Any = core.PottsSession if isinstance(program, PottsProgram) else core.IsingSession
    return kind(net, run, threads)


def net_of(program: Any) -> Any:
    """The program in the C core's form."""
    return core.PottsNet(program) if isinstance(program, PottsProgram) else core.IsingNet(program)


def contenders(workload: Workload) -> list[Contender]:
    """One for each width of weights."""
    return [_contender(workload, bits) for bits in workload.weight_bits]


def _contender(workload: Workload, bits: int) -> Contender:
    program = program_of(workload.model, bits)
    net, ising = net_of(program), not isinstance(program, PottsProgram)

    def run(start: NDArray[Any], sweeps: int, seed: int) -> tuple[float, NDArray[Any]]:
        schedule = gl.SamplingSchedule(n_samples=1, n_chains=len(start), beta=workload.beta)
        initial = pack_spins(start) if ising else start.astype(np.uint8)
        prepared = make_run(program, schedule, seed=seed, initial=initial, observe={"last"})
        running = session(program, net, replace(prepared, threads=1))
        began = time.perf_counter()
        running.advance(1, sweeps, 0)
        seconds = time.perf_counter() - began
        return seconds, unpack_spins(running.state(), program.n_sites) if ising else running.state()

    exact = np.isin(np.abs(workload.model.couplings), (0.0, 1.0)).all() and not workload.model.fields.any()
    weights = "exact weights" if exact else f"{bits}-bit weights"
    return Contender(
        name="glauber" if len(workload.weight_bits) == 1 else f"glauber, {bits}-bit",
        package="glauber",
        dynamics="Gibbs",
        precision=f"{weights}, 32-bit thresholds",
        generator="Threefry4x32-20",
        run=run,
    )
