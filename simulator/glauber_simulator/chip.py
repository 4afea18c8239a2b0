"""A program as a chip with flaws really holds it, in the integers of docs/machine.md, section 10."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

import numpy as np
from glauber.compile import Program, Run
from glauber.compile.order import Order, order_of
from glauber.compile.quantise import ASSUMED_WEIGHT_BITS
from glauber.errors import ModelNotSupportedError
from glauber.spec import AnySpec
from numpy.typing import NDArray

from glauber_simulator.arithmetic import key_of
from glauber_simulator.flaws import Flaws
from glauber_simulator.noise import NOISE, UNIT, normal, words_at

ONE = 2**20
"""Gains and slopes of 1."""
ARGUMENT = 2.0**33 * math.log2(math.e)
"""What 1 in the argument of tanh is in x."""
MAX_FINE, SUM_BITS = 12, 29
"""Couplings have up to so many bits below a step, as far as their sums leave room."""
FLICKER_SWEEPS = tuple(2.0 * 4.0**k for k in range(8))
"""Correlation times of the processes whose sum is 1/f noise: evenly spaced in the logarithm, all of one size."""
EVERYBODY = 0xFFFFFFFF
"""In place of a position: noise that all p-bits of a chain share."""
ASSUMED_SWEEP_RATE_HZ = 1e6
KELVIN = 273.15
LARGEST_OFFSET = 80.0
"""Of the argument: 2^40 in x is 88."""
MAX_STEP_B = 2**40

WEIGHTS, FIELDS = 0, 1
"""Which DAC."""


@dataclass(frozen=True, eq=False)
class Noise:
    """A noise with memory that every p-bit has for itself: g' = (keep g + fresh z + 2^29) >> 30.

    Attributes:
        slot: which word z is made of; 0 is compared with the threshold.
        keep: in 2^-30.
        fresh: in 2^-30, so that g stays a standard normal number.
        size: what it adds to x, in 2^8.
    """

    slot: int
    keep: int
    fresh: int
    size: int

    @classmethod
    def of(cls, slot: int, sweeps: float, size: float) -> Noise:
        """With a correlation time in sweeps and a size in the argument of tanh."""
        keep = math.exp(-1.0 / sweeps)
        return cls(slot, round(2**30 * keep), round(2**30 * math.sqrt(1 - keep * keep)), round(size * ARGUMENT / 2**8))


@dataclass(frozen=True, eq=False)
class Chip:
    """A program on one chip: what the C core and the reference compute with. Arrays by position unless they say "site".

    Attributes:
        program: its couplings and fields as they really are, in steps of 2^-fine; its edges are the model's own, for
            moments.
        fine: bits below a step.
        gain: uint32, 2^20 is 1.
        offset: int64, in x.
        noises: ascending by slot.
        mode_size: int32 (n_modes, n), in 2^8 of x for a mode of 1.
        sweep_seconds: of the chip's own time.
        flaws: what it was made of.
        field_top: code of the full scale of a field's DAC; None on a free scale.
        field_lsb: steps in one of its codes.
    """

    program: Program
    fine: int
    gain: NDArray[np.uint32]
    offset: NDArray[np.int64]
    noises: tuple[Noise, ...]
    modes: tuple[str, ...]
    mode_size: NDArray[np.int32]
    sweep_seconds: float
    flaws: Flaws
    field_top: float | None
    field_lsb: float

    def run(self, run: Run) -> Run:
        """A run as it happens on the chip: its fields pass the DACs, stuck p-bits are held, chains lie in lanes."""
        n = self.program.n_sites
        fields, clamp = run.fields, run.clamp
        if fields is not None:
            sites = np.broadcast_to(np.arange(n), fields.shape)
            held = self._held_fields(fields.astype(np.float64).ravel(), sites.ravel())
            fields = held.reshape(fields.shape)
        if self.flaws.stuck.any():
            stuck = self.flaws.stuck[:n]
            given = np.zeros((1, n), dtype=np.int8) if clamp is None else clamp
            clamp = np.where(stuck != 0, stuck, given).astype(np.int8)
        return replace(run, layout=0, fields=fields, clamp=clamp)

    def _held_fields(self, steps: NDArray[np.float64], sites: NDArray[np.integer]) -> NDArray[np.int32]:
        level = steps
        if self.field_top is not None:  # else a free scale, on which there are no codes
            level = self.flaws.level(steps / self.field_lsb, sites, self.field_top, FIELDS) * self.field_lsb
        held = np.rint(level * 2**self.fine)
        if float(np.abs(held).max(initial=0.0)) >= 2**30:
            raise ModelNotSupportedError(
                "the job's fields are too large beside the couplings for a chip with flaws; bring them to one scale"
            )
        return np.asarray(held.astype(np.int32))

    def slope(self, first_sweep: int, n_sweeps: int) -> NDArray[np.uint32]:
        """Factor of b in each sweep: noise grows with temperature, so gains fall."""
        kelvin = KELVIN + self.flaws.temperature_c + self._warmth(first_sweep, n_sweeps)
        return np.rint(ONE * (KELVIN + 25.0) / kelvin).astype(np.uint32)

    def _warmth(self, first_sweep: int, n_sweeps: int) -> NDArray[np.float64]:
        seconds = self.sweep_seconds * (first_sweep - 1 + np.arange(n_sweeps))
        return np.asarray(self.flaws.self_heating_k * -np.expm1(-seconds / self.flaws.heating_seconds))

    def mode(self, run: Run, first_sweep: int, n_sweeps: int, chains: NDArray[np.integer]) -> NDArray[np.int32]:
        """What all p-bits of a chain share, in 2^-24: (n_sweeps, n_modes, n_chains)."""
        values = np.zeros((n_sweeps, len(self.modes), len(chains)), dtype=np.int64)
        for k, name in enumerate(self.modes):
            if name == "warmth":
                values[:, k] = np.rint(UNIT * self._warmth(first_sweep, n_sweeps) / 100.0)[:, None]
            elif name == "hours":
                hours = self.sweep_seconds / 3600 * (first_sweep - 1 + np.arange(n_sweeps))
                values[:, k] = np.rint(UNIT * np.minimum(hours, 100.0))[:, None]
            else:
                for s in range(n_sweeps):
                    key = key_of(run.seed, NOISE, 0, run.stream, first_sweep + s)
                    here = np.full(1, EVERYBODY, dtype=np.int64)
                    values[s, k] = normal(words_at(key, here, first_sweep + s, chains, 0)[0])
        return values.astype(np.int32)


def on_chip(program: Program, flaws: Flaws, spec: AnySpec) -> Chip:
    """What a chip makes of a program.

    Raises:
        ModelNotSupportedError: the program has more sites than the chip.
    """
    n = program.n_sites
    if n > flaws.n_sites:
        raise ModelNotSupportedError(f"the model has {n} sites, the chip {flaws.n_sites}")
    order = program.order
    there = (flaws.pairs < n).all(axis=1)
    pairs, crosstalk = flaws.pairs[there], flaws.crosstalk[there]
    sites = np.repeat(order.site, np.diff(order.row_start)).astype(np.int64)
    others = order.site[order.neighbour].astype(np.int64)
    report, coefficients = program.quantisation, spec.coefficients
    weight = program.weight.astype(np.float64)
    largest = float(np.abs(weight).max(initial=0.0)) or 1.0
    lsb, top = 1.0, largest
    if coefficients.weight_range is not None:
        top = max(1.0, 2.0 ** ((coefficients.weight_bits or ASSUMED_WEIGHT_BITS) - 1) - 1)
        lsb = coefficients.weight_range / top / (report.step * report.scale)  # in steps
    span = lsb * top
    dac_top = top if flaws.dac_bits is None or flaws.dac_bits > 1 else largest / lsb
    weight = lsb * flaws.level(weight / lsb, sites, dac_top, WEIGHTS)
    weight = flaws.coupling(sites, others, weight, span)
    if len(pairs):
        order = _order_with(program, pairs)
        entries = np.concatenate([sites * n + others, pairs[:, 0] * n + pairs[:, 1], pairs[:, 1] * n + pairs[:, 0]])
        values = np.concatenate([weight, span * crosstalk[:, 0], span * crosstalk[:, 1]])
        sites = np.repeat(order.site, np.diff(order.row_start)).astype(np.int64)
        others = order.site[order.neighbour].astype(np.int64)
        known, place = np.unique(entries, return_inverse=True)
        sums: NDArray[np.float64] = np.bincount(place, values, minlength=len(known)).astype(np.float64)
        weight = sums[np.searchsorted(known, sites * n + others)]  # every pair of the order is among the entries
    field_lsb = float(program.field_multiple)
    field_top = None if program.field_limit is None else float(program.field_limit)
    most = field_lsb * (field_top or 0.0) + float(np.abs(program.field).max(initial=0))
    room = np.bincount(order.position[sites], np.abs(weight), minlength=n).max(initial=0.0) + most
    fine = int(np.clip(SUM_BITS - math.ceil(math.log2(max(1.0, room))), 0, MAX_FINE))
    modes = [
        ("warmth", 100.0 * flaws.offset_per_kelvin if flaws.self_heating_k else np.zeros(0)),
        ("hours", flaws.drift_per_hour),
        ("supply", np.full(n, flaws.supply_noise) * (flaws.gain[:n] > 0)),
    ]
    present = [(name, size[:n][order.site]) for name, size in modes if size.any()]
    flicker = flaws.flicker_noise / math.sqrt(len(FLICKER_SWEEPS))
    noises = [
        *([Noise.of(0, flaws.memory_sweeps, 0.0)] if flaws.memory_sweeps else []),
        *([Noise.of(1, flaws.ou_sweeps, flaws.ou_noise)] if flaws.ou_noise else []),
        *([Noise.of(2 + k, t, flicker) for k, t in enumerate(FLICKER_SWEEPS)] if flicker else []),
    ]
    if float(np.abs(flaws.offset).max(initial=0.0)) >= LARGEST_OFFSET:
        raise ModelNotSupportedError(
            f"an offset of {np.abs(flaws.offset).max():.3g} is beyond the arithmetic, which ends at"
            f" {LARGEST_OFFSET:g}; a chip"
            " so old or so bad is no sampler"
        )
    rate = spec.costs.sweep_rate_hz
    chip = Chip(
        program=replace(
            program,
            order=order,
            weight=np.rint(weight * 2**fine).astype(np.int32),
            edge_weight=program.edge_weight,
            weight_sum=np.zeros(n, dtype=np.int64),
        ),
        fine=fine,
        gain=np.rint(ONE * flaws.gain[:n][order.site]).astype(np.uint32),
        offset=np.rint(ARGUMENT * flaws.offset[:n][order.site]).astype(np.int64),
        noises=tuple(noises),
        modes=tuple(name for name, _ in present),
        mode_size=np.rint(np.array([size for _, size in present]).reshape(-1, n) * ARGUMENT / 2**8).astype(np.int32),
        sweep_seconds=1.0 / (ASSUMED_SWEEP_RATE_HZ if rate is None else rate.best),
        flaws=flaws,
        field_top=field_top,
        field_lsb=field_lsb,
    )
    field = chip._held_fields(program.field.astype(np.float64), np.arange(n))
    return replace(chip, program=replace(chip.program, field=field))


def _order_with(program: Program, pairs: NDArray[np.int64]) -> Order:
    """The update order of a chip whose p-bits disturb each other: that of all couplings, programmed or not."""
    both = np.concatenate([np.sort(program.edges.astype(np.int64), axis=1), np.sort(pairs, axis=1)])
    edges = np.unique(both, axis=0).astype(np.int32)
    key = f"crosstalk {program.n_sites} {hashlib.blake2b(edges.tobytes(), digest_size=16).hexdigest()}"
    return order_of(key, program.n_sites, edges)


def check_run(run: Run) -> None:
    """Refuse what a chip with flaws cannot do.

    Raises:
        ModelNotSupportedError: exchanges, resampling, Metropolis, asynchronous updates, or too cold a run.
    """
    if run.exchange is not None or run.resample is not None or run.clock is not None or run.dynamics != "heat bath":
        raise ModelNotSupportedError("a chip with flaws samples and anneals by heat bath; sim://ideal does the rest")
    if int(run.b.max()) >= MAX_STEP_B:
        raise ModelNotSupportedError("beta times one step is too large for a chip with flaws; lower beta")
