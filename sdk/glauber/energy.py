"""Joules, always with an uncertainty and a provenance.

`EnergyReport` is what a job cost, whoever says so. Computed here: the cost by the device's own figures
(`basis="modelled"`), counts of operations times joules each. A part whose figure nobody published is missing from the
sum, and the report says so instead of guessing. What a meter read (`basis="measured"`) is computed in `glauber.meter`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from glauber.coverage import ErrorTerm, effective_degrees_of_freedom, half_width
from glauber.errors import MeteringError
from glauber.spec import Boundary, Provenance, Quantity, SpecBase

BOLTZMANN_J_PER_K = 1.380649e-23  # exact since 2019 (SI brochure, 9th edition)
ROOM_TEMPERATURE_K = 300.0

RUN_LINES = frozenset(
    {
        "resolution", "resolution, start", "resolution, end", "window start", "window end", "window edges",
        "trigger skew", "sampling gaps", "noise", "unsampled time",
    }
)  # fmt: skip
"""Lines of a budget whose error is another one in each run; all others (gain, offset and their like) are the meter's
own, the same in all of its runs. An idle baseline is measured once, and the runs that subtract it share its error.
"window edges" is in reports that were stored before the two edges had lines of their own."""


@dataclass(frozen=True, slots=True)
class EnergyPart:
    """One part of a job's energy: count x joules each.

    Attributes:
        joules: best estimate; None where the device's figure is not published.
        standard_uncertainty: of the joules, from the figure's own.
        count: operations (updates, nodes written, p-bits read) or seconds (idle).
        unit: what is counted.
        provenance: of the figure used.
        source: of the figure used.
        boundary: what the figure includes; None where its source does not say, and for a measurement, which has one.
    """

    joules: float | None
    standard_uncertainty: float
    count: float
    unit: str
    provenance: Provenance | None
    source: str
    boundary: Boundary | None = None


@dataclass(frozen=True, slots=True)
class UncertaintyPart:
    """One line of a measurement's uncertainty budget (GUM, JCGM 100:2008, clause 5); lines are independent.

    Attributes:
        name: gain, offset and their like, resolution (of a counter: at start and end), window start and end, trigger
            skew, sampling gaps, noise, unsampled time, idle baseline.
        joules: standard uncertainty that it adds to the joules of the whole window.
        net_joules: that it adds to the joules above idle. A gain error enlarges window and baseline alike, so it counts
            on their difference only; the baseline's own error counts here and not on the whole.
        distribution: of the error, as assumed.
        evaluation: "A" by statistics of this measurement, "B" by other knowledge (GUM 2.3.2, 2.3.3).
        source: formula, and where its figures come from.
        degrees_of_freedom: of a t-distributed error (GUM G.3); None: infinitely many.
    """

    name: str
    joules: float
    net_joules: float
    distribution: Literal["rectangular", "normal", "t"]
    evaluation: Literal["A", "B"]
    source: str
    degrees_of_freedom: float | None = None


@dataclass(frozen=True, slots=True)
class EnergyReport:
    """What a job cost.

    Attributes:
        basis: "modelled": counts times the spec's figures; "measured": a meter was read.
        parts: by name. Modelled: sample, program, read, idle, control, transfer, and clamp where spins are held; or
            "running" alone, a stated power. Measured: "net" (above idle) and "idle" where the meter knows its idle
            baseline, else "gross" alone. Either way they add up to `joules`.
        updates: p-bit updates done.
        samples: states kept, over all chains.
        landauer_joules: k T ln 2 per update at 300 K, the thermodynamic yardstick; not a cost of this device.
        boundary: what is inside the meter; None for modelled ones, whose figures have one each, unless the power is
            stated as a whole.
        budget: of a measurement's uncertainty; empty for modelled ones.
        not_measured: why a meter that was there gave no figure, so that this report is a modelled one; else empty.
        operations: what was counted; None in reports stored before it was kept.
        reflash_seconds: how long the job's rewrites of weights take at the device's `max_reflash_hz`, whether or not
            what ran it is so slow (a simulator is not); None where the device states no such rate.
        meter_identity: see MeterSpec.identity; empty for modelled ones, and in reports stored before it was kept.
    """

    basis: Literal["modelled", "measured"]
    parts: dict[str, EnergyPart]
    updates: int
    samples: int
    landauer_joules: float
    boundary: Boundary | None = None
    budget: tuple[UncertaintyPart, ...] = ()
    not_measured: str = ""
    operations: Operations | None = None
    reflash_seconds: float | None = None
    meter_identity: str = ""

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """The report whose `dataclasses.asdict` this is, lists in place of tuples allowed."""
        parts = {name: EnergyPart(**part) for name, part in fields["parts"].items()}
        budget = tuple(UncertaintyPart(**line) for line in fields.get("budget", ()))
        counted = fields.get("operations")
        operations = None if counted is None else Operations(**counted)
        return cls(**{**fields, "parts": parts, "budget": budget, "operations": operations})

    @property
    def joules(self) -> float | None:
        """Sum of the parts that are known, None if none is; of a measurement all that the meter saw, idle included."""
        known = [part.joules for part in self.parts.values() if part.joules is not None]
        return sum(known) if known else None

    @property
    def standard_uncertainty(self) -> float | None:
        """Of `joules`: root sum of squares over the budget's lines, or over the parts, which rest on different figures.

        The parts of a measurement share a meter and so their errors; the budget tells them apart.
        """
        if self.joules is None:
            return None
        if self.budget:
            return math.sqrt(sum(line.joules**2 for line in self.budget))
        return math.sqrt(sum(part.standard_uncertainty**2 for part in self.parts.values()))

    def _terms(self, net: bool) -> list[ErrorTerm]:
        """The errors of `joules`, or of `net_joules`."""
        if not self.budget:
            return [ErrorTerm(part.standard_uncertainty, "normal") for part in self.parts.values()]
        return [
            ErrorTerm(line.net_joules if net else line.joules, line.distribution, line.degrees_of_freedom)
            for line in self.budget
        ]

    def expanded_uncertainty(self, level: float = 0.95, *, net: bool = False) -> float | None:
        """U: the truth lies within +-U of `joules` with this probability, by the budget's lines and distributions.

        The lines are convolved, those known from few observations as t-distributions: see glauber.coverage. U over
        `standard_uncertainty` is the coverage factor k; it is not always 2.

        Args:
            level: probability, between 0 and 1.
            net: of `net_joules` instead; None where those are not measured.

        Raises:
            InvalidModelError: level is not between 0 and 1.
        """
        if self.joules is None or (net and (not self.budget or self.net_joules is None)):
            return None
        return half_width(self._terms(net), level)

    def effective_degrees_of_freedom(self, *, net: bool = False) -> float:
        """Welch-Satterthwaite over the budget (GUM G.4.1); infinite where no line is known from few observations."""
        return effective_degrees_of_freedom(self._terms(net))

    @property
    def net_joules(self) -> float | None:
        """Above idle; None where no idle power is known."""
        if self.basis == "measured":
            return self.parts["net"].joules if "net" in self.parts else None
        idle = self.parts.get("idle")
        return None if self.joules is None or idle is None or idle.joules is None else self.joules - idle.joules

    @property
    def missing(self) -> tuple[str, ...]:
        """Parts whose figure is not published: the true sum is larger."""
        return tuple(name for name, part in self.parts.items() if part.joules is None)

    @property
    def seconds(self) -> float | None:
        """Of the meter's window; modelled: that the described device takes, None where its rate is not published."""
        if self.basis == "measured":
            return next(iter(self.parts.values())).count
        lasting = [part.count for part in self.parts.values() if part.unit == "s"]
        return (lasting[0] or None) if lasting else None

    @property
    def meter(self) -> str | None:
        """Name of the meter of a measurement; None for a modelled report."""
        if self.basis == "modelled":
            return None
        return next(iter(self.parts.values())).source.split("; ")[0].removesuffix(", idle subtracted")

    @property
    def boundaries(self) -> tuple[Boundary | None, ...]:
        """What the joules include: the meter's boundary, or those of the figures used; None for "not stated"."""
        if self.basis == "measured" or self.boundary is not None:
            return (self.boundary,)
        return tuple(dict.fromkeys(part.boundary for part in self.parts.values() if part.joules))

    @property
    def without_uncertainty(self) -> tuple[str, ...]:
        """Parts whose figure comes without an uncertainty: `standard_uncertainty` says nothing of their errors."""
        if self.basis == "measured":
            return ()
        return tuple(name for name, part in self.parts.items() if part.joules and not part.standard_uncertainty)

    @property
    def joules_per_update(self) -> float | None:
        """All joules over all p-bit updates."""
        return None if self.joules is None or not self.updates else self.joules / self.updates

    @property
    def joules_per_sample(self) -> float | None:
        """All joules over all kept states."""
        return None if self.joules is None or not self.samples else self.joules / self.samples

    @property
    def weakest_provenance(self) -> Provenance | None:
        """The least trustworthy provenance among the parts used."""
        strength: tuple[Provenance, ...] = ("assumed", "vendor", "model", "derived", "measured")
        used = [part.provenance for part in self.parts.values() if part.provenance is not None]
        return strength[min(strength.index(provenance) for provenance in used)] if used else None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, the derived figures included."""
        parts = {name: asdict(part) for name, part in self.parts.items()}
        return {
            "basis": self.basis,
            "joules": self.joules,
            "standard_uncertainty": self.standard_uncertainty,
            "expanded_uncertainty": self.expanded_uncertainty(),
            "joules_per_update": self.joules_per_update,
            "joules_per_sample": self.joules_per_sample,
            "landauer_joules": self.landauer_joules,
            "updates": self.updates,
            "samples": self.samples,
            "missing": list(self.missing),
            "weakest_provenance": self.weakest_provenance,
            "boundary": self.boundary,
            "net_joules": self.net_joules,
            "not_measured": self.not_measured or None,
            "parts": parts,
            "budget": [asdict(line) for line in self.budget],
            "operations": None if self.operations is None else asdict(self.operations),
            "reflash_seconds": self.reflash_seconds,
            "meter_identity": self.meter_identity or None,
        }

    def __str__(self) -> str:
        bound = f"Landauer bound {self.landauer_joules:.3g} J"
        why = f"; not measured: {self.not_measured}" if self.not_measured else ""
        if self.joules is None:
            return f"energy: not published for this device; {bound}{why}"
        text = f"{self.joules:.4g} J +- {self.standard_uncertainty:.2g} J"
        if self.basis == "measured":
            net, largest = self.parts.get("net"), max(self.budget, key=lambda line: line.joules)
            above = "" if net is None else f", {net.joules:.4g} J +- {net.standard_uncertainty:.2g} J above idle"
            return f"{text} (measured, {self.boundary}{above}; largest uncertainty: {largest.name}); {bound}"
        missing = f"; without {', '.join(self.missing)}: not published" if self.missing else ""
        return f"{text} (modelled, weakest figure: {self.weakest_provenance}{missing}); {bound}{why}"


@dataclass(frozen=True, slots=True)
class Operations:
    """What a job does on the device it is described for.

    Attributes:
        updates: p-bit updates.
        sweeps: sweeps, over all chains one after another.
        nodes_written: p-bits programmed, with their couplings or their fields alone.
        nodes_read: p-bit values read.
        reads: states read.
        samples: states kept.
        loads: how often the weights are written.
        nodes_held: clamps set, over all sets of them.
        bytes_moved: to the device 4 for each coefficient written, from it one bit for each p-bit read (a p-dit of q
            states: ceil(log2 q) bits), whole bytes a state.
    """

    updates: int
    sweeps: int
    nodes_written: int
    nodes_read: int
    reads: int
    samples: int
    loads: int = 1
    nodes_held: int = 0
    bytes_moved: int = 0


def load_seconds(spec: SpecBase) -> Quantity | None:
    """How long one rewrite of the weights takes: program_seconds, but no less than 1 / max_reflash_hz; None: not known.

    A rate limit is no duration. But weights that are rewritten again and again cannot come faster, and a single rewrite
    may have to wait for the one before.
    """
    programming, limit = spec.costs.program_seconds, spec.costs.max_reflash_hz
    if limit is None:
        return programming
    interval = 1.0 / limit.best
    if programming is not None and programming.best >= interval:
        return programming
    return Quantity(
        value=interval,
        unit="s",
        standard_uncertainty=interval * limit.uncertainty / limit.best,
        provenance="derived" if limit.provenance == "measured" else limit.provenance,
        source=f"1 / max_reflash_hz: {limit.source}",
    )


def device_seconds(spec: SpecBase, operations: Operations) -> Quantity | None:
    """How long the described device itself would take: programming, sweeps, reads; None if no rate is published.

    Chains run one after another, as on a chip with one set of p-bits.
    """
    costs = spec.costs
    if costs.sweep_rate_hz is not None:
        rate, sampling = costs.sweep_rate_hz, operations.sweeps / costs.sweep_rate_hz.best
    elif costs.update_rate_hz is not None:
        rate, sampling = costs.update_rate_hz, operations.updates / costs.update_rate_hz.best
    else:
        return None
    seconds = sampling
    variance = (sampling * rate.uncertainty / rate.best) ** 2
    provenance, source = rate.provenance, [f"rate: {rate.source}"]
    for quantity, count in (
        (load_seconds(spec), operations.loads),
        (costs.read_seconds, operations.reads),
    ):
        if quantity is not None and count:
            seconds += count * quantity.best
            variance += (count * quantity.uncertainty) ** 2
            source.append(quantity.source)
    return Quantity(
        value=seconds,
        unit="s",
        standard_uncertainty=math.sqrt(variance),
        provenance="derived" if provenance == "measured" else provenance,
        source="; ".join(source),
    )


def landauer(updates: int) -> float:
    """Joules of the Landauer bound, k T ln 2 per update at 300 K."""
    return updates * BOLTZMANN_J_PER_K * ROOM_TEMPERATURE_K * math.log(2)


def modelled_energy(spec: SpecBase, operations: Operations) -> EnergyReport:
    """The energy of a job by the device's published figures."""
    costs = spec.costs
    seconds = device_seconds(spec, operations)
    lasting = 0.0 if seconds is None else seconds.best
    counts: dict[str, tuple[Quantity | None, float, str]] = {
        "sample": (costs.joules_per_update, operations.updates, "updates"),
        "program": (costs.joules_per_write, operations.nodes_written, "nodes written"),
        "read": (costs.joules_per_read, operations.nodes_read, "values read"),
        "idle": (costs.idle_watts if seconds is not None else None, lasting, "s"),
        "control": (costs.control_watts if seconds is not None else None, lasting, "s"),
        "transfer": (costs.joules_per_byte_moved, operations.bytes_moved, "bytes"),
    }
    if operations.nodes_held:
        counts["clamp"] = (costs.joules_per_clamp, operations.nodes_held, "clamps set")
    parts = {}
    for name, (quantity, count, unit) in counts.items():
        if quantity is None:
            parts[name] = EnergyPart(None, 0.0, count, unit, None, "not published")
            continue
        joules, uncertainty = count * quantity.best, count * quantity.uncertainty
        if unit == "s" and seconds is not None:  # how long it takes is not known exactly either
            uncertainty = math.hypot(uncertainty, quantity.best * seconds.uncertainty)
        where = (quantity.provenance, quantity.source, quantity.boundary)
        parts[name] = EnergyPart(joules, uncertainty, count, unit, *where)
    limit = costs.max_reflash_hz
    return EnergyReport(
        "modelled",
        parts,
        operations.updates,
        operations.samples,
        landauer(operations.updates),
        operations=operations,
        reflash_seconds=None if limit is None else operations.loads / limit.best,
    )


def stated_energy(
    power: Quantity, seconds: float, name: str, boundary: Boundary, *, updates: int = 0, samples: int = 0
) -> EnergyReport:
    """The energy of a job by the power that a user states: a modelled report, of one part.

    Args:
        power: while the job runs, W.
        seconds: that it ran.
        name: of who states it, for the part's source.
        boundary: what draws that power.
        updates: p-bit updates done.
        samples: states kept.

    Raises:
        MeteringError: the stated uncertainty is as large as the power.
    """
    if not power.uncertainty < power.best:
        raise MeteringError(
            f"{name} has a standard uncertainty of {power.uncertainty:.3g} W: no figure at all. Measure it, or state it"
            " better"
        )
    joules, uncertainty = power.best * seconds, power.uncertainty * seconds
    part = EnergyPart(joules, uncertainty, seconds, "s", power.provenance, f"{name}: {power.source}")
    return EnergyReport("modelled", {"running": part}, updates, samples, landauer(updates), boundary)
