"""The driver of jax://: the integer machine of docs/machine.md as XLA compiles it, bit-identical with the C core."""
# pyright: reportMissingImports=false

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from glauber.compile import AnyProgram, PottsProgram, Program, Run
from glauber.driver import Batch
from glauber.errors import DeviceIOError, DeviceNotFoundError, ModelNotSupportedError
from glauber.spec import AnySpec

from glauber_drivers.jax_device import machine
from glauber_drivers.jax_device.ising import IsingSession
from glauber_drivers.jax_device.potts import PottsSession, potts_dtype
from glauber_drivers.jax_device.rows import is_dense, width_of
from glauber_drivers.jax_device.spec import jax_spec

BATCH_SECONDS = 0.1
FIRST_UPDATES = 1e6
"""Of the first batch; later ones go by the measured rate."""
KEPT_BYTES, MOST_KEPT = 1 << 25, 256
"""Samples of a batch: at most so many bytes and so many, one at least."""


def _device(platform: str) -> Any:
    """JAX's first device of a platform."""
    try:
        return jax.devices(platform)[0]
    except RuntimeError as error:
        advice = (
            "unset JAX_PLATFORMS, which leaves it out"
            if platform == "cpu"
            else "jax://cpu works everywhere, and pip install 'jax[cuda13]' brings what NVIDIA GPUs need"
        )
        raise DeviceNotFoundError(
            f"JAX {jax.__version__} finds no {platform} on this computer ({error}); {advice}"
        ) from error


class JaxDriver:
    """A driver that computes with JAX.

    Args:
        platform: "cpu" or "gpu"; DeviceNotFoundError where JAX has none.

    Attributes:
        spec: what it can.
        contract_version: of docs/machine.md.
    """

    def __init__(self, platform: str) -> None:
        self._device = _device(platform)
        on = "this computer" if platform == "cpu" else self._device.device_kind
        self.spec: AnySpec = jax_spec(platform, f"JAX on {on}")
        self.contract_version = 1
        self._program: AnyProgram | None = None

    def program(self, program: AnyProgram) -> None:
        """See Driver.program."""
        self._program = program

    def admit(self, run: Run, program: AnyProgram) -> int:
        """See Driver.admit."""
        if run.resample is not None or run.clock is not None:
            raise ModelNotSupportedError(
                f"{self.spec.name} samples, anneals and tempers; populations and asynchronous p-bits run on sim://ideal"
            )
        n, chains = program.n_sites + width_of(program), run.n_chains
        lengths = program.order.row_start[1:] - program.order.row_start[:-1]
        rows = 16 * n * int(lengths.max(initial=0))
        if isinstance(program, PottsProgram):
            at_once = width_of(program) * chains * program.n_states
            counted = 16 * chains * n * program.n_states if "moments" in run.observe else 0
            return rows + 8 * n * chains + 8 * n * program.n_states + 48 * at_once + counted + 2 * KEPT_BYTES
        matrix = 16 * n * program.n_sites if is_dense(program) else 0
        counted = 32 * chains * (n + program.n_edges) if "moments" in run.observe else 0
        return rows + matrix + 48 * n * max(32, chains) + counted + 2 * KEPT_BYTES

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        with machine.x64(), jax.default_device(self._device):
            try:
                yield
            except jax.errors.JaxRuntimeError as error:  # out of memory, or the GPU is gone
                raise DeviceIOError(f"JAX failed on {self.spec.name}: {error}") from error

    def run(self, run: Run) -> Iterator[Batch]:
        """See Driver.run."""
        program = self._program
        if program is None:
            raise ModelNotSupportedError("nothing is programmed; call program() before run()")
        potts, thin = isinstance(program, PottsProgram), run.sweeps_per_sample
        each = potts_dtype(program.n_states)(0).itemsize * program.n_sites if potts else -(-program.n_sites // 8)
        # not by the number of samples, so that a job of another length finds its function compiled
        kept = int(min(MOST_KEPT, max(1, KEPT_BYTES // (each * run.n_chains))))
        most = kept * thin if "samples" in run.observe else 2**62
        with self._in_use():
            session = _session(program, run, kept)
        facts = {"kernel": session.kernel, "body": f"JAX {jax.__version__}, {self._device.device_kind}"}
        done, limit = run.first_sweep - 1, max(1, int(FIRST_UPDATES / (program.n_sites * run.n_chains)))
        while done < run.n_sweeps:
            sweeps, every = run.next_batch(done, min(limit, most))
            first_sample = max(0, done - run.n_warmup) // thin
            began = time.perf_counter()
            with self._in_use():
                samples, state = session.advance(done + 1, sweeps, every), session.state()
                moments, exchanges = session.moments(), session.exchanges()
            done += sweeps
            seconds = max(1e-6, time.perf_counter() - began)
            limit = max(1, min(4 * limit, int(sweeps * BATCH_SECONDS / seconds)))
            yield Batch(
                next_sweep=done + 1,
                first_sample=first_sample,
                n_samples=sweeps // every if every else 0,
                samples=samples if every and "samples" in run.observe else None,
                state=state,
                moments=moments,
                facts=facts,
                exchanges=exchanges,
            )

    def close(self) -> None:
        """See Driver.close."""
        self._program = None


def _session(program: AnyProgram, run: Run, kept: int) -> Any:
    if isinstance(program, Program):
        return IsingSession(program, run, kept)
    return PottsSession(program, run, kept)
