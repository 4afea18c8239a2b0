"""What a sample costs: operations by formula, joules by published figures, and by a meter where there is one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from glauber.catalogue import load_spec
from glauber.energy import EnergyReport, Operations, landauer, modelled_energy, stated_energy
from glauber.errors import GlauberError, InvalidModelError
from glauber.meter import measured_energy
from glauber.registry import open_meter

matplotlib.use("Agg")
import matplotlib.pyplot as plt

CHIPS = ("dtm-l70", "z1", "kv260")
"""A machine on paper, a chip known by circuit simulation, and an FPGA board that somebody has metered."""
GPU = "rtx-4060-laptop"
"""The only GPU of the catalogue with bandwidth, cores and clock; its joules here are a roofline, not a measurement."""
FLOAT_BYTES = 4
RANDOM_BITS = 32
"""Of a random number in software."""


@dataclass(frozen=True)
class Work:
    """Operations in software, of one chain.

    Attributes:
        updates: sites drawn anew.
        multiply_adds: of 32-bit floats; an addition of a table's entry counts as one.
        exponentials: one for each probability that is not the rest of the others.
        comparisons: of a random number with probabilities.
        random_bits: RANDOM_BITS for each random number.
        bytes_moved: states and parameters between processor and memory, if nothing stays in a cache; random numbers
            are made where they are used and are not in it.
    """

    updates: int
    multiply_adds: int
    exponentials: int
    comparisons: int
    random_bits: int
    bytes_moved: float

    def __add__(self, other: Work) -> Work:
        return Work(
            self.updates + other.updates,
            self.multiply_adds + other.multiply_adds,
            self.exponentials + other.exponentials,
            self.comparisons + other.comparisons,
            self.random_bits + other.random_bits,
            self.bytes_moved + other.bytes_moved,
        )

    def times(self, n: int) -> Work:
        """So many of them."""
        return Work(
            n * self.updates,
            n * self.multiply_adds,
            n * self.exponentials,
            n * self.comparisons,
            n * self.random_bits,
            n * self.bytes_moved,
        )


def grid_edges(side: int, degree: int) -> int:
    """Edges of an open square grid: 2 s (s - 1) of degree 4, with both diagonals 2 (s - 1)^2 more.

    Raises:
        InvalidModelError: another degree than 4 and 8.
    """
    if degree not in (4, 8):
        raise InvalidModelError(f"a grid has 4 or 8 neighbours inside, not {degree}")
    return 2 * side * (side - 1) + (2 * (side - 1) ** 2 if degree == 8 else 0)


def grid_sweep(side: int, n_levels: int, degree: int, *, tied: bool, chains: int = 1) -> Work:
    """One Gibbs sweep of a Potts grid of s^2 sites with q levels and E edges.

    Each site adds, for each level, its bias and an entry of each neighbour's table: q (s^2 + 2 E) additions. q - 1
    exponentials (one level is the reference) and comparisons, one random number. Bytes: a byte for each state read
    (2 E) and written (s^2); biases 4 q s^2 shared by all chains; of tables the row that the neighbour's level picks,
    8 E q, or all of them, 8 E q^2, once for all chains where that is less. Tied tables stay in registers.
    """
    n, edges, q = side**2, grid_edges(side, degree), n_levels
    tables = 0.0 if tied else 2 * edges * q * FLOAT_BYTES * min(1.0, q / chains)
    return Work(
        updates=n,
        multiply_adds=q * (n + 2 * edges),
        exponentials=(q - 1) * n,
        comparisons=(q - 1) * n,
        random_bits=RANDOM_BITS * n,
        bytes_moved=2 * edges + n + FLOAT_BYTES * q * n / chains + tables,
    )


def rbm_sweep(visible: int, hidden: int, chains: int = 1) -> Work:
    """One sweep of both layers of v + h binary units: 2 v h + v + h multiply-adds, one exponential each unit.

    Bytes: the weights once for each layer, 8 v h, and the biases, shared by all chains; a byte for each state read and
    written.
    """
    units = visible + hidden
    return Work(
        updates=units,
        multiply_adds=2 * visible * hidden + units,
        exponentials=units,
        comparisons=units,
        random_bits=RANDOM_BITS * units,
        bytes_moved=FLOAT_BYTES * (2 * visible * hidden + units) / chains + 2 * units,
    )


def chain_fields(visible: int, hidden: int, chains: int = 1, n_classes: int = 10) -> Work:
    """The fields that the noisier state makes at one step of a denoising chain, before the sweeps of its machine.

    A product with dense matrices, v (v + h) multiply-adds and 4 v (v + h) bytes shared by all chains, and a row for the
    digit. On a chip machine this part is the host's: the chip's figures do not hold it.
    """
    width = visible + hidden
    return Work(
        updates=0,
        multiply_adds=visible * width + width,
        exponentials=0,
        comparisons=0,
        random_bits=0,
        bytes_moved=FLOAT_BYTES * (visible + n_classes) * width / chains + visible,
    )


def vae_sample(side: int, hidden: int, latent: int, chains: int = 1, n_classes: int = 10) -> Work:
    """One image of the autoencoder: a pass through the decoder, l h + h^2 + h s^2 multiply-adds, and s^2 bits drawn.

    `chains` are images made at once, which share the reading of the weights.
    """
    pixels = side**2
    weights = (latent + n_classes) * hidden + hidden**2 + hidden * pixels
    biases = 2 * hidden + pixels
    return Work(
        updates=pixels,
        multiply_adds=weights + biases,
        exponentials=pixels,
        comparisons=pixels,
        random_bits=RANDOM_BITS * (latent + pixels),
        bytes_moved=FLOAT_BYTES * (weights + biases) / chains + FLOAT_BYTES * (latent + 2 * hidden) + pixels,
    )


# By published figures


@dataclass(frozen=True)
class ChipJob:
    """Samples of a model on a machine of p-bits.

    A model of one step keeps its weights loaded. A chain's machines take turns on the chip, all samples at one step
    before the next is loaded; the noisier state is written for each sample as fields of all units, and each step's
    state is read. The host computes those fields (see chain_fields); its joules are not the chip's.

    Attributes:
        name: of the model.
        units: p-bits; of a site with q levels ceil(log2 q), the least there can be.
        visible: p-bits that are read.
        coefficients: weights and biases of one step.
        degree: couplings of the unit that has most.
        sweeps: of a step.
        steps: machines one after another.
        samples: made with one loading.
        together: p-bits that one coupling takes: two sites of two p-bits each that are equal or not take four.
    """

    name: str
    units: int
    visible: int
    coefficients: int
    degree: int
    sweeps: int
    steps: int = 1
    samples: int = 1000
    together: int = 2

    @property
    def operations(self) -> Operations:
        """Counted as the SDK counts a job: 4 bytes a coefficient written, a bit a p-bit read, whole bytes a state."""
        runs = self.steps * self.samples
        fields = self.units * runs if self.steps > 1 else 0
        return Operations(
            updates=self.units * self.sweeps * runs,
            sweeps=self.sweeps * runs,
            nodes_written=self.units * self.steps + fields,
            nodes_read=self.visible * runs,
            reads=runs,
            samples=self.samples,
            loads=self.steps,
            bytes_moved=4 * (self.coefficients * self.steps + fields) + -(-self.visible // 8) * runs,
        )


@dataclass(frozen=True)
class DeviceEnergy:
    """Joules of a sample on a device, by its published figures.

    Attributes:
        model: what is sampled.
        device: the catalogue's name.
        title: its title there.
        status: product, prototype, model, ...
        joules: of a sample, all parts with a figure; None where there is none.
        standard_uncertainty: of it, from the figures' own; 0 where none is stated.
        sweep_joules: the updates of one sweep alone; None where that is not published.
        parts: joules a sample, by part; None: not published.
        missing: parts without a figure: the true sum is larger.
        provenance: the weakest among the figures: measured, derived, model, vendor or assumed.
        boundaries: what the figures include: chip, board, wall, or "not stated".
        sources: of the figures.
        lacks: what the model needs and the device has not, p-bits or couplings, as far as is published: then the figure
            is none of that model on that device. Nothing for a processor.
        landauer_joules: of a sample's updates, k T ln 2 each at 300 K.
        reflash_seconds: a sample's share of the time that loading weights takes at the device's highest rate of
            rewrites; None where it states no such rate. Fields written for each sample are not in it.
    """

    model: str
    device: str
    title: str
    status: str
    joules: float | None
    standard_uncertainty: float
    sweep_joules: float | None
    parts: dict[str, float | None]
    missing: tuple[str, ...]
    provenance: str
    boundaries: tuple[str, ...]
    sources: tuple[str, ...]
    lacks: tuple[str, ...]
    landauer_joules: float
    reflash_seconds: float | None


def on_chip(job: ChipJob, device: str) -> DeviceEnergy:
    """Joules by counts times the catalogue's figures, as the SDK's modelled reports have them.

    As if the model were on the device as it is: a dense layer on a sparse lattice needs copies of its units, which cost
    updates too. So where the device lacks something, the true cost is larger.

    Raises:
        DeviceNotFoundError: the catalogue has no such device.
    """
    spec = load_spec(device)
    counted = job.operations
    report = modelled_energy(spec, counted)
    updates = report.parts["sample"].joules
    sweep = None if updates is None else updates / counted.sweeps
    lacks = []
    if spec.units is not None and job.units > (most := spec.units.high or spec.units.best):
        lacks.append(f"{job.units:,} p-bits (it has {most:,.0f})")
    if job.together > 2:
        lacks.append(f"couplings of {job.together} p-bits (it has those of 2)")
    if spec.topology is not None and job.degree > spec.topology.max_degree:
        lacks.append(f"{job.degree} couplings of a p-bit (it has {spec.topology.max_degree})")
    if spec.topology is None and not spec.any_graph:
        lacks.append(f"{job.degree} couplings of a p-bit (its graph is not in the catalogue)")
    return _described(job.name, device, report, job.samples, sweep, tuple(lacks))


def on_gpu(name: str, work: Work, sweeps: int, device: str = GPU) -> DeviceEnergy:
    """Joules of a sample by a roofline: the longer of its multiply-adds and its bytes at peak rates, times the power.

    One multiply-add a core and clock, the published bandwidth, and all power levels up to the limit alike: a program
    that reaches neither peak takes more, so this is an order of magnitude.

    Args:
        name: of the model.
        work: of one sample.
        sweeps: in it.
        device: with power, memory_bandwidth, fp32_cores and boost_clock in the catalogue.

    Raises:
        InvalidModelError: the catalogue lacks one of those.
    """
    spec = load_spec(device)
    needed = ("memory_bandwidth", "fp32_cores", "boost_clock")
    absent = [fact for fact in needed if fact not in spec.facts]
    if spec.costs.power_watts is None or absent:
        raise InvalidModelError(
            f"a roofline needs power_watts, {', '.join(needed)}; the catalogue has not all of them for {device}"
        )
    bandwidth, cores, clock = (spec.facts[fact].best for fact in needed)
    seconds = max(work.bytes_moved / bandwidth, work.multiply_adds / (cores * clock))
    power = spec.costs.power_watts
    report = stated_energy(power, seconds, "roofline", power.boundary or "board", updates=work.updates, samples=1)
    sweep = None if report.joules is None else report.joules / max(1, sweeps)
    return _described(name, device, report, 1, sweep, ())


def _described(
    name: str, device: str, report: EnergyReport, samples: int, sweep: float | None, lacks: tuple[str, ...]
) -> DeviceEnergy:
    spec = load_spec(device)
    used = [part for part in report.parts.values() if part.joules]
    boundaries = report.boundaries or (None,)
    return DeviceEnergy(
        model=name,
        device=device,
        title=spec.title,
        status=spec.status,
        joules=None if report.joules is None else report.joules / samples,
        standard_uncertainty=(report.standard_uncertainty or 0.0) / samples,
        sweep_joules=sweep,
        parts={key: None if part.joules is None else part.joules / samples for key, part in report.parts.items()},
        missing=report.missing,
        provenance=str(report.weakest_provenance),
        boundaries=tuple("not stated" if one is None else str(one) for one in boundaries),
        sources=tuple(dict.fromkeys(part.source for part in used)),
        lacks=lacks,
        landauer_joules=landauer(report.updates) / samples,
        reflash_seconds=None if report.reflash_seconds is None else report.reflash_seconds / samples,
    )


# By a meter


@dataclass(frozen=True)
class MeteredEnergy:
    """Joules of a sample by this computer's counters.

    Attributes:
        joules: of a sample, all that the meter saw, idling included; None where nothing was measured.
        standard_uncertainty: of it.
        seconds: that the samples took, each.
        meter: what was read.
        why_not: why there is no figure, and what would enable one; else empty.
    """

    joules: float | None
    standard_uncertainty: float | None
    seconds: float
    meter: str
    why_not: str


def metered(sample: Callable[[], object], samples: int, address: str = "rapl://") -> MeteredEnergy:
    """Run and read the meter; where there is none, run and say so.

    Args:
        sample: makes all samples; it should take seconds.
        samples: how many it makes.
        address: of the meter, see glauber.registry.open_meter.
    """
    try:
        meter = open_meter(address)
    except GlauberError as error:
        return _unmetered(sample, samples, str(error))
    with closing(meter):
        window = meter.start()
        started = time.perf_counter()
        sample()
        seconds = (time.perf_counter() - started) / samples
        trace = window.stop()
        try:
            report = measured_energy(meter.spec, trace, idle=meter.idle, samples=samples)
        except GlauberError as error:
            return MeteredEnergy(None, None, seconds, meter.spec.name, str(error))
    uncertainty = report.standard_uncertainty
    return MeteredEnergy(
        joules=report.joules_per_sample,
        standard_uncertainty=None if uncertainty is None else uncertainty / samples,
        seconds=seconds,
        meter=meter.spec.name,
        why_not="",
    )


def _unmetered(sample: Callable[[], object], samples: int, why: str) -> MeteredEnergy:
    started = time.perf_counter()
    sample()
    return MeteredEnergy(None, None, (time.perf_counter() - started) / samples, "", why)


# Picture


def draw(path: Path, found: Sequence[DeviceEnergy]) -> None:
    """Joules of a sample by model and device, on a logarithmic axis; the mark is the share of the updates alone."""
    known = [one for one in found if one.joules is not None]
    figure, ax = plt.subplots(figsize=(9, 0.9 + 0.32 * len(known)), layout="constrained")
    kinds = list(dict.fromkeys(one.provenance for one in known))
    at = np.arange(len(known))[::-1]
    for place, kind in enumerate(kinds):
        rows = [k for k, one in enumerate(known) if one.provenance == kind]
        ax.barh(at[rows], [known[k].joules or 0.0 for k in rows], color=f"C{place}", label=f"weakest figure: {kind}")
    sampling = [one.parts.get("sample") or np.nan for one in known]
    ax.plot(sampling, at, "k|", markersize=10, label="updates alone")
    ax.plot([one.landauer_joules or np.nan for one in known], at, "k.", markersize=4, label="Landauer bound of them")
    ax.set_xscale("log")
    ax.set_yticks(at, [f"{one.model}, {one.device}" for one in known], fontsize=8)
    ax.set_xlabel("joules a sample, parts with a published figure only")
    figure.legend(fontsize=7, loc="outside upper center", ncols=3)
    figure.savefig(path, dpi=110)
    plt.close(figure)
