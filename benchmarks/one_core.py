"""One core for everything: thread pools are sized when libraries load, so the process starts itself anew, pinned."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

MARK = "GLAUBER_BENCH_CORE"
SINGLE = ("OMP", "OPENBLAS", "MKL", "NUMBA", "BLIS", "VECLIB")


def pin(core: int | None = None) -> int:
    """Run this program on one core with thread pools of one; returns the core's number.

    Args:
        core: its number; None takes the last one, where less of the system runs.
    """
    if MARK not in os.environ:
        _start_anew(core)
    return int(os.environ[MARK])


def _start_anew(core: int | None) -> NoReturn:
    chosen = max(os.sched_getaffinity(0)) if core is None else core
    os.sched_setaffinity(0, {chosen})
    environment = {**os.environ, MARK: str(chosen), **{f"{name}_NUM_THREADS": "1" for name in SINGLE}}
    environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    environment["JAX_PLATFORMS"] = "cpu"
    module = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["-m", module.name] if module is not None else [sys.argv[0]]
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *program, *sys.argv[1:]], environment)
