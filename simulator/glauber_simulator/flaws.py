"""One chip with its flaws, as numbers: fabricated from a `Nonidealities`, or measured, as a twin has them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from glauber.errors import ModelNotSupportedError
from glauber.nonidealities import Nonidealities
from glauber.spec import AnySpec
from glauber.topology import TopologyBase
from numpy.typing import NDArray

from glauber_simulator.noise import fabricated, shuffled

GAIN, OFFSET, SHARED, COUPLING, ASYMMETRY, BOW, LEVEL, CROSSTALK, READOUT, WARMTH, DRIFT, FAULT = range(12)
"""Kinds of numbers that a chip is fabricated with."""
PAIR_SCATTER = 0.3
"""Of crosstalk and of readout errors, in parts of their mean."""

Floats = NDArray[np.float64]


def _zeros() -> Floats:
    return np.zeros(0)


@dataclass(frozen=True, eq=False)
class Readout:
    """Probabilities of a wrong reading, by site; see Nonidealities."""

    up_as_down: Floats
    down_as_up: Floats
    late: float = 0.0
    undecided: float = 0.0

    @property
    def is_ideal(self) -> bool:
        """Whether every reading is right."""
        return not (self.up_as_down.any() or self.down_as_up.any() or self.late or self.undecided)


@dataclass(frozen=True, eq=False)
class Flaws:
    """What one chip of n p-bits does differently.

    Attributes:
        gain: of each p-bit, (n,); 0 for a dead one.
        offset: in the argument of tanh, (n,), its age included.
        stuck: int8 (n,): the value that a p-bit always has, or 0.
        readout: of its readings.
        pairs: int64 (m, 2), pairs of p-bits with a coupling that nobody programmed.
        crosstalk: of each pair, of the range: what the second adds to the first's field, and the other way, (m, 2). On
        a
            chip with a graph the errors of its couplings are in it: a coupler is there whether it is programmed or not.
        coupling_gain: factors of couplings that were measured: by pair (first, second), what the second's spin adds to
            the first's field.
        coupling_error: spread of programmed couplings, the same both ways, of the range, on a device without a graph.
        asymmetry: spread of the difference between both ways, the same.
        dac_bits: that the DACs really have, or None.
        dac_inl_lsb: see Nonidealities.
        dac_dnl_lsb: see Nonidealities.
        chip: number from which coupling errors and DAC levels follow.
        memory_sweeps: see Nonidealities; as all that follow.
        offset_per_kelvin: (n,).
        drift_per_hour: (n,).
    """

    gain: Floats
    offset: Floats
    stuck: NDArray[np.int8]
    readout: Readout
    pairs: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    crosstalk: Floats = field(default_factory=lambda: np.zeros((0, 2)))
    coupling_gain: dict[tuple[int, int], float] = field(default_factory=dict)
    coupling_error: float = 0.0
    asymmetry: float = 0.0
    dac_bits: int | None = None
    dac_inl_lsb: float = 0.0
    dac_dnl_lsb: float = 0.0
    chip: int = 0
    memory_sweeps: float = 0.0
    ou_noise: float = 0.0
    ou_sweeps: float = 1.0
    flicker_noise: float = 0.0
    supply_noise: float = 0.0
    temperature_c: float = 25.0
    self_heating_k: float = 0.0
    heating_seconds: float = 1.0
    offset_per_kelvin: Floats = field(default_factory=_zeros)
    drift_per_hour: Floats = field(default_factory=_zeros)

    @property
    def n_sites(self) -> int:
        """p-bits."""
        return len(self.gain)

    def level(self, code: Floats, sites: NDArray[np.integer], top: float, kind: int) -> Floats:
        """What the DAC of a site makes of a code, in steps; `top` is the code of its full scale.

        Its characteristic is a bow, 0 at both ends, and single levels scatter around it.
        """
        level = code.astype(np.float64)
        if self.dac_bits is not None and kind == 0:  # couplings
            levels = 2 ** (self.dac_bits - 1) - 1
            level = np.sign(level) * top if levels == 0 else np.rint(level / top * levels) / levels * top
        if self.dac_inl_lsb:
            bow = self.dac_inl_lsb * fabricated(self.chip, BOW, sites, np.full(1, kind))
            level = level + bow * np.maximum(0.0, 1 - (level / top) ** 2)
        if self.dac_dnl_lsb:
            number = np.rint(code).astype(np.int64) + 2**30 * (1 + kind)
            level = level + self.dac_dnl_lsb * fabricated(self.chip, LEVEL, sites, number)
        return np.asarray(level)

    def coupling(self, first: NDArray[np.integer], second: NDArray[np.integer], value: Floats, span: float) -> Floats:
        """What couplings from `second` to `first` really are, of programmed values, `span` being the range."""
        error = _coupling_errors(self.chip, self.coupling_error, self.asymmetry, first, second)
        if self.coupling_gain:
            pairs = zip(first.tolist(), second.tolist(), strict=True)
            value = value * np.array([self.coupling_gain.get(pair, 1.0) for pair in pairs])
        return np.asarray(value + span * error)


def _coupling_errors(
    chip: int, size: float, asymmetry: float, first: NDArray[np.integer], second: NDArray[np.integer]
) -> Floats:
    """What couplings from `second` to `first` are beyond what was programmed, of the range."""
    low, high = np.minimum(first, second), np.maximum(first, second)
    error = np.zeros(len(first))
    if size:
        error += size * fabricated(chip, COUPLING, low, high)
    if asymmetry:
        half = asymmetry / 2 * fabricated(chip, ASYMMETRY, low, high)
        error += np.where(first < second, half, -half)
    return error


def fabricate(spec: AnySpec, how: Nonidealities) -> Flaws:
    """One chip, always the same for the same description.

    Raises:
        ModelNotSupportedError: the device has no stated number of p-bits, or fewer than are to be broken.
    """
    n = spec.n_sites
    if n is None:
        raise ModelNotSupportedError(
            f"{spec.name} has no stated number of p-bits, so none of them can have flaws; say how many with n_sites="
        )
    if how.n_dead + how.n_stuck > n:
        raise ModelNotSupportedError(f"{how.n_dead + how.n_stuck} p-bits cannot be broken, {spec.name} has {n}")
    sites, none = np.arange(n), np.zeros(1, dtype=np.int64)
    gain = 1 + how.gain_spread * _scattered(how, GAIN, spec.topology, n)
    offset = how.offset_spread * _scattered(how, OFFSET, spec.topology, n)
    drift = how.drift_per_hour * fabricated(how.chip, DRIFT, sites, none)
    warmth = how.offset_per_kelvin * fabricated(how.chip, WARMTH, sites, none)
    offset = offset + drift * how.age_hours + warmth * (how.temperature_c - 25.0)
    broken = shuffled(how.chip, FAULT, n)[: how.n_dead + how.n_stuck]
    dead, stuck_at = broken[: how.n_dead], broken[how.n_dead :]
    gain = np.maximum(gain, 0.0)
    gain[dead], offset[dead], warmth[dead], drift[dead] = 0.0, 0.0, 0.0, 0.0
    stuck = np.zeros(n, dtype=np.int8)
    stuck[stuck_at] = np.where(fabricated(how.chip, FAULT, stuck_at, none + 1) > 0, 1, -1)
    pairs = np.zeros((0, 2), dtype=np.int64)
    couplers = spec.topology is not None and bool(how.crosstalk or how.coupling_error or how.asymmetry)
    if couplers and spec.topology is not None:
        pairs = spec.topology.edges().astype(np.int64)
    crosstalk = how.crosstalk * (1 + PAIR_SCATTER * fabricated(how.chip, CROSSTALK, pairs[:, 0], pairs[:, 1]))
    wrong = how.readout_error * np.abs(1 + PAIR_SCATTER * fabricated(how.chip, READOUT, sites, none))
    wrong = np.minimum(wrong, 0.5)
    return Flaws(
        gain=gain,
        offset=offset,
        stuck=stuck,
        readout=Readout(
            up_as_down=wrong * (1 - how.readout_bias),
            down_as_up=wrong * (1 + how.readout_bias),
            late=how.readout_late,
            undecided=how.readout_undecided,
        ),
        pairs=pairs,
        crosstalk=np.stack(
            [
                crosstalk + _coupling_errors(how.chip, how.coupling_error, how.asymmetry, pairs[:, a], pairs[:, b])
                for a, b in ((0, 1), (1, 0))
            ],
            axis=1,
        ),
        coupling_error=0.0 if couplers else how.coupling_error,
        asymmetry=0.0 if couplers else how.asymmetry,
        offset_per_kelvin=warmth,
        drift_per_hour=drift,
        **{name: getattr(how, name) for name in _SAME},
    )


_SAME = (
    *("dac_bits", "dac_inl_lsb", "dac_dnl_lsb", "chip", "memory_sweeps", "ou_noise"),
    *("ou_sweeps", "flicker_noise", "supply_noise", "temperature_c", "self_heating_k", "heating_seconds"),
)


def _scattered(how: Nonidealities, kind: int, topology: TopologyBase | None, n: int) -> Floats:
    """Standard normal numbers by site, of whose variance a part is shared with neighbours.

    That part is the mean of white noise over a site and its neighbours, scaled to variance 1.
    """
    sites, none = np.arange(n), np.zeros(1, dtype=np.int64)
    own = fabricated(how.chip, kind, sites, none)
    if not how.spatial_correlation or topology is None:
        return own
    white = fabricated(how.chip, SHARED, sites, np.full(1, kind))
    edges = topology.edges()
    shared = white.copy()
    np.add.at(shared, edges[:, 0], white[edges[:, 1]])
    np.add.at(shared, edges[:, 1], white[edges[:, 0]])
    shared /= np.sqrt(1.0 + topology.degrees())
    part = how.spatial_correlation
    return math.sqrt(1 - part) * own + math.sqrt(part) * shared
