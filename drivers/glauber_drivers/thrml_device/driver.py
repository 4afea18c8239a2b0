"""The driver of thrml://: programs go to THRML's block Gibbs sampler in floats, and its samples come back."""
# pyright: reportMissingImports=false

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
from glauber.compile import AnyProgram, PottsProgram, Run, pack_spins, unpack_spins
from glauber.compile.run import LOG2_E
from glauber.driver import Batch
from glauber.errors import DeviceIOError, DeviceNotFoundError, ModelNotSupportedError
from glauber.spec import AnySpec
from numpy.typing import NDArray

from glauber_drivers.thrml_device.program import FORBIDDEN, BlockGibbs
from glauber_drivers.thrml_device.spec import MOST_COLOURS, thrml_spec

SAMPLERS = 8
"""Graphs whose compiled samplers are kept."""
BATCH_SECONDS = 0.1
FIRST_SWEEPS, MOST_SWEEPS = 16, 2**30
KEPT_CELLS, MOST_KEPT = 1 << 24, 256
"""States of a batch: at most so many spins and so many states, one at least."""


class ThrmlDriver:
    """A driver that lets THRML compute.

    Attributes:
        spec: what it can.

    Raises:
        DeviceNotFoundError: JAX was told to leave the CPU out.
    """

    def __init__(self) -> None:
        self.spec: AnySpec = thrml_spec()
        try:
            self._device = jax.devices("cpu")[0]
        except RuntimeError as error:
            raise DeviceNotFoundError(
                f"JAX {jax.__version__} finds no CPU ({error}); unset JAX_PLATFORMS, which leaves it out"
            ) from error
        self._program: AnyProgram | None = None
        self._samplers: OrderedDict[tuple[Any, ...], BlockGibbs] = OrderedDict()

    def program(self, program: AnyProgram) -> None:
        """See Driver.program."""
        self._program = program

    def admit(self, run: Run, program: AnyProgram) -> int:
        """See Driver.admit."""
        if run.exchange is not None or run.resample is not None or run.clock is not None or run.dynamics != "heat bath":
            raise ModelNotSupportedError(
                f"{self.spec.name} samples and anneals by the heat bath; other methods run on sim://ideal"
            )
        colours = len(program.order.colour_start) - 1
        if colours > MOST_COLOURS:
            raise ModelNotSupportedError(
                f"the model's graph has {colours} colours, and each is a block of its own that {self.spec.name} must"
                f" compile; it takes {MOST_COLOURS}. Dense models run on sim://ideal and jax://cpu"
            )
        held = _held(run, program)
        if (held != held[:1]).any():
            raise ModelNotSupportedError(
                f"{self.spec.name} holds the same sites in all chains, at values of their own: THRML's clamped blocks"
                " belong to the program. Submit one job for each set of held sites, or use sim://ideal"
            )
        q = program.n_states if isinstance(program, PottsProgram) else 1
        degree = int(np.diff(program.order.row_start).max(initial=0))
        couplings = 16 * program.n_edges * q * q + 8 * program.n_sites * degree * q * q
        return couplings + run.n_chains * program.n_sites * q * (16 + 4 * degree) + 4 * KEPT_CELLS

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        with jax.enable_x64(False), jax.default_device(self._device):
            try:
                yield
            except jax.errors.JaxRuntimeError as error:
                raise DeviceIOError(f"JAX failed on {self.spec.name}: {error}") from error

    def _sampler(self, program: AnyProgram, held: NDArray[np.bool_]) -> BlockGibbs:
        key = (type(program), program.n_sites, program.n_states, program.edges.tobytes(), held.tobytes())
        if key not in self._samplers:
            self._samplers[key] = BlockGibbs(program, held)
            if len(self._samplers) > SAMPLERS:
                self._samplers.popitem(last=False)
        self._samplers.move_to_end(key)
        return self._samplers[key]

    def run(self, run: Run) -> Iterator[Batch]:
        """See Driver.run."""
        program = self._program
        if program is None:
            raise ModelNotSupportedError("nothing is programmed; call program() before run()")
        potts, thin = isinstance(program, PottsProgram), run.sweeps_per_sample
        with self._in_use():
            sampler = self._sampler(program, _held(run, program)[0])
            states = _start(run, program)
        coefficients = _coefficients(run, program)
        betas = run.b / ((1 if potts else 2) * program.quantisation.step * LOG2_E * 2.0**32)
        # not by the number of samples, so that a job of another length finds its sampler compiled
        kept = int(min(MOST_KEPT, max(1, KEPT_CELLS // (run.n_chains * program.n_sites))))
        facts = {
            "kernel": "THRML block Gibbs",
            "body": f"THRML {version('thrml')}, JAX {jax.__version__}, {self._device.device_kind}",
        }
        done, limit = run.first_sweep - 1, FIRST_SWEEPS
        while done < run.n_sweeps:
            sweeps, every = run.next_batch(done, min(limit, kept * thin, MOST_SWEEPS))
            n, step = (sweeps // every, every) if every else (1, sweeps)
            words = np.array([run.seed & 0xFFFFFFFF, run.seed >> 32, done + 1 & 0xFFFFFFFF, done + 1 >> 32], np.uint32)
            began = time.perf_counter()
            with self._in_use():
                states, room = sampler.advance(
                    words,
                    states,
                    *coefficients,
                    _betas_from(betas, done),
                    n,
                    step,
                    kept=kept,
                    first_chain=run.first_chain,
                )
                samples = _ours(np.asarray(room)[:, : n if every else 0], potts=potts)
                state = _ours(np.asarray(states), potts=potts)
            first_sample, done = max(0, done - run.n_warmup) // thin, done + sweeps
            seconds = max(1e-6, time.perf_counter() - began)
            limit = max(1, min(16 * limit, int(sweeps * BATCH_SECONDS / seconds)))
            yield Batch(
                next_sweep=done + 1,
                first_sample=first_sample,
                n_samples=n if every else 0,
                samples=samples if every and "samples" in run.observe else None,
                state=state,
                moments=None,
                facts=facts,
            )

    def close(self) -> None:
        """See Driver.close."""
        self._program = None
        self._samplers.clear()


def _held(run: Run, program: AnyProgram) -> NDArray[np.bool_]:
    """Which sites are clamped, (1 or n_chains, n_sites)."""
    if run.clamp is None:
        return np.zeros((1, program.n_sites), dtype=bool)
    return np.asarray(run.clamp >= 0 if isinstance(program, PottsProgram) else run.clamp != 0)


def _start(run: Run, program: AnyProgram) -> NDArray[Any]:
    """States before the first sweep, (n_chains, n_sites), as THRML has them: Boolean or uint8."""
    shape = (run.n_chains, program.n_sites)
    # sweep 0 of a generator of its own: the sweeps' keys are folded from the seed in another way
    rng = np.random.default_rng([run.seed & 0xFFFFFFFF, run.seed >> 32, run.first_chain])
    if isinstance(program, PottsProgram):
        allowed = np.ones((program.n_sites, program.n_states), bool) if program.allowed is None else program.allowed
        number = rng.integers(allowed.sum(axis=1), size=shape)
        at = np.argsort(~allowed, axis=1, kind="stable")  # allowed states first, ascending
        states = at[np.arange(program.n_sites), number] if run.initial is None else run.initial.astype(np.int64)
        states = states if run.clamp is None else np.where(run.clamp >= 0, run.clamp, states)
        return np.ascontiguousarray(states, dtype=np.uint8)
    up = rng.random(shape) < 0.5
    if run.initial is not None:
        up = unpack_spins(run.initial.astype(np.uint8), program.n_sites) > 0
    return np.ascontiguousarray(up if run.clamp is None else np.where(run.clamp != 0, run.clamp > 0, up))


def _coefficients(run: Run, program: AnyProgram) -> tuple[NDArray[np.float32], ...]:
    """Programmed fields, what is forbidden, and couplings, as `BlockGibbs.advance` takes them, in the model's units."""
    fields = (program.field[None] if run.fields is None else run.fields) * program.quantisation.step
    forbidden = np.zeros(fields.shape[1:])
    if not isinstance(program, PottsProgram):
        couplings = program.edge_weight * program.quantisation.step
    else:
        couplings = program.as_model().edge_tables()
        if program.allowed is not None:
            forbidden[~program.allowed] = FORBIDDEN
    return fields.astype(np.float32), forbidden.astype(np.float32), couplings.astype(np.float32)


def _betas_from(betas: NDArray[np.float64], done: int) -> NDArray[np.float32]:
    """Of each sweep after `done`; as many as there were, so that nothing is compiled again."""
    rest = betas[min(done, len(betas) - 1) :]
    return np.pad(rest, (0, len(betas) - len(rest)), mode="edge").astype(np.float32)


def _ours(states: NDArray[Any], *, potts: bool) -> NDArray[np.unsignedinteger]:
    """As a Batch has them."""
    return states if potts else pack_spins(states.astype(np.int8))
