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
    """

    joules: float | None
    standard_uncertainty: float
    count: float
    unit: str
    provenance: Provenance | None
    source: str


@dataclass(frozen=True, slots=True)
class UncertaintyPart:
    """One line of a measurement's uncertainty budget (GUM, JCGM 100:2008, clause 5); lines are independent.

    Attributes:
        name: gain, offset and their like, resolution, window edges, trigger skew, sampling gaps, noise, unsampled time,
            idle baseline.
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
        parts: by name. Modelled: sample, program, read, idle; or "running" alone, a stated power. Measured: "net" (over
            idle) and "idle" where the meter knows its idle baseline, else "gross" alone. Either way they add up to
            `joules`.
        updates: p-bit updates done.
        samples: states kept, over all chains.
        landauer_joules: k T ln 2 per update at 300 K, the thermodynamic yardstick; not a cost of this device.
        boundary: what is inside the meter; None for modelled ones, whose figures have one each, unless the power is
            stated as a whole.
        budget: of a measurement's uncertainty; empty for modelled ones.
        not_measured: why a meter that was there gave no figure, so that this report is a modelled one; else empty.
    """

    basis: Literal["modelled", "measured"]
    parts: dict[str, EnergyPart]
    updates: int
    samples: int
    landauer_joules: float
    boundary: Boundary | None = None
    budget: tuple[UncertaintyPart, ...] = ()
    not_measured: str = ""

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """The report whose `dataclasses.asdict` this is, lists in place of tuples allowed."""
        parts = {name: EnergyPart(**part) for name, part in fields["parts"].items()}
        budget = tuple(UncertaintyPart(**line) for line in fields.get("budget", ()))
        return cls(**{**fields, "parts": parts, "budget": budget})

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
        nodes_written: p-bits programmed.
        nodes_read: p-bit values read.
        reads: states read.
        samples: states kept.
    """

    updates: int
    sweeps: int
    nodes_written: int
    nodes_read: int
    reads: int
    samples: int


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
        (costs.program_seconds, min(1, operations.nodes_written)),
        (costs.read_seconds, operations.reads),
    ):
        if quantity is not None:
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
    counts: dict[str, tuple[Quantity | None, float, str]] = {
        "sample": (costs.joules_per_update, operations.updates, "updates"),
        "program": (costs.joules_per_write, operations.nodes_written, "nodes written"),
        "read": (costs.joules_per_read, operations.nodes_read, "values read"),
        "idle": (costs.idle_watts if seconds is not None else None, 0.0 if seconds is None else seconds.best, "s"),
    }
    parts = {}
    for name, (quantity, count, unit) in counts.items():
        if quantity is None:
            parts[name] = EnergyPart(None, 0.0, count, unit, None, "not published")
            continue
        joules, uncertainty = count * quantity.best, count * quantity.uncertainty
        parts[name] = EnergyPart(joules, uncertainty, count, unit, quantity.provenance, quantity.source)
    return EnergyReport("modelled", parts, operations.updates, operations.samples, landauer(operations.updates))


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
