"""Two energy reports side by side: ratios with an uncertainty, and in words what the ratio cannot say.

Errors that both reports share cancel in a ratio: the gain of one meter, or one figure of a data sheet. What cancels is
told by name: lines of the two budgets with the same meter, parts with the same source.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from glauber.catalogue import load_spec
from glauber.efficiency import Efficiency
from glauber.energy import RUN_LINES, EnergyReport
from glauber.errors import DeviceNotFoundError, InvalidModelError
from glauber.samples import SampleSet

UNBUILT = ("announced", "model", "design")
"""States of a catalogue entry of which there is no chip to measure."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A quantity of both reports, and the first over the second.

    Attributes:
        name: what is compared.
        unit: of both.
        first: of the first report, None where unknown.
        second: of the second.
        ratio: None where either is unknown.
        standard_uncertainty: of the ratio, errors that both share left out.
    """

    name: str
    unit: str
    first: float | None
    second: float | None
    ratio: float | None
    standard_uncertainty: float | None

    def __str__(self) -> str:
        values = " against ".join("unknown" if x is None else f"{x:.4g} {self.unit}" for x in (self.first, self.second))
        if self.ratio is None:
            return f"{self.name}: {values}"
        return f"{self.name}: {values}, ratio {self.ratio:.4g} +- {self.standard_uncertainty:.2g}"


@dataclass(frozen=True, slots=True)
class EnergyAccount:
    """A result's joules with what is needed to judge them.

    Attributes:
        device: its name.
        status: of the device in the catalogue; None where it is not there.
        report: the joules.
        efficiency: effective samples; None where the states were not kept or have no common law.
        model_key: digest of what was sampled, None if not known.
    """

    device: str
    status: str | None
    report: EnergyReport
    efficiency: Efficiency | None
    model_key: str | None

    @classmethod
    def of(cls, result: SampleSet | EnergyReport) -> EnergyAccount:
        """The account of a result, or of a report alone.

        Raises:
            InvalidModelError: it is neither.
        """
        if isinstance(result, EnergyReport):
            return cls("a report", None, result, None, None)
        if not isinstance(result, SampleSet):
            raise InvalidModelError(f"a SampleSet or an EnergyReport has joules, a {type(result).__name__} has not")
        try:
            efficiency = result.efficiency()
        except InvalidModelError:
            efficiency = None
        device = result.provenance.device
        try:
            status: str | None = load_spec(device).status
        except DeviceNotFoundError:
            status = None
        return cls(device, status, result.energy_report, efficiency, result.model.key)

    @property
    def nature(self) -> str:
        """What kind of figure the joules are, in words."""
        report = self.report
        if report.joules is None:
            return f"{self.device}: no joules at all, its figures are not published"
        if report.basis == "measured":
            return f"{self.device}: a measurement by {report.meter} ({report.boundary} boundary)"
        chip = "of an unbuilt chip" if self.status in UNBUILT else "of a device"
        kinds: dict[str, str] = {
            "model": f"a circuit model {chip}, figures from circuit simulation (SPICE)",
            "vendor": f"a model {chip} by its maker's own claims",
            "assumed": f"a model {chip} by figures that were assumed",
            "derived": f"a model {chip} by figures derived from others",
            "measured": f"a model {chip} by figures that were measured, counts times joules each",
        }
        return f"{self.device}: {kinds[report.weakest_provenance or 'assumed']}"

    @property
    def provenances(self) -> tuple[str, ...]:
        """Of the figures that count, each once."""
        parts = (part.provenance for part in self.report.parts.values() if part.joules)
        return tuple(dict.fromkeys(provenance for provenance in parts if provenance is not None))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "device": self.device,
            "status": self.status,
            "nature": self.nature,
            "provenances": list(self.provenances),
            "boundaries": [boundary or "not stated" for boundary in self.report.boundaries],
            "report": self.report.as_dict(),
            "efficiency": None if self.efficiency is None else self.efficiency.as_dict(),
        }


@dataclass(frozen=True, slots=True)
class EnergyComparison:
    """Two accounts side by side.

    Attributes:
        first: one.
        second: the other.
        ratios: first over second.
        warnings: what the ratios mix up, in words; empty where they compare like with like.
        remedy: what would make the two comparable; empty where they are.
    """

    first: EnergyAccount
    second: EnergyAccount
    ratios: tuple[Ratio, ...]
    warnings: tuple[str, ...]
    remedy: str

    @property
    def comparable(self) -> bool:
        """Whether there is no warning."""
        return not self.warnings

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "first": self.first.as_dict(),
            "second": self.second.as_dict(),
            "ratios": [asdict(ratio) for ratio in self.ratios],
            "comparable": self.comparable,
            "warnings": list(self.warnings),
            "remedy": self.remedy,
        }

    def __str__(self) -> str:
        lines = [self.first.nature, self.second.nature, *(str(ratio) for ratio in self.ratios)]
        lines += [f"! {warning}" for warning in self.warnings]
        return "\n".join(lines + ([self.remedy] if self.remedy else []))


def compare_energy(a: SampleSet | EnergyReport, b: SampleSet | EnergyReport) -> EnergyComparison:
    """Compare the joules of two results.

    Raises:
        InvalidModelError: one of them is neither a SampleSet nor an EnergyReport.
    """
    first, second = EnergyAccount.of(a), EnergyAccount.of(b)
    warnings = tuple(_warnings(first, second))
    return EnergyComparison(first, second, tuple(_ratios(first, second)), warnings, _remedy(first, second, warnings))


def _lines(account: EnergyAccount, side: str) -> dict[tuple[object, ...], float]:
    """Standard uncertainties of independent errors, J, by a key that two reports have in common if the error is.

    Of a measurement: an instrument's own errors, where it is known to be the same one. Of a model: those of a figure,
    which is the same if part, source and value (J for each count) are.
    """
    report, found = account.report, dict[tuple[object, ...], float]()
    if report.basis == "measured":
        for line in report.budget:
            own = line.name in RUN_LINES or not report.meter_identity
            key = (line.name, "run", side) if own else (line.name, "meter", report.meter_identity)
            found[key] = math.hypot(found.get(key, 0.0), line.joules)  # a buffer has several lines of trigger skew
        return found
    for name, part in report.parts.items():
        if part.joules:
            each = float(f"{part.joules / part.count:.9g}") if part.count else 0.0  # without what rounding left
            found[name, part.source, each] = part.standard_uncertainty
    return found


def _relative(first: EnergyAccount, second: EnergyAccount) -> float:
    """Relative standard uncertainty of the ratio of the joules."""
    a, b = first.report.joules, second.report.joules
    assert a
    assert b
    of_a, of_b = _lines(first, "first"), _lines(second, "second")
    return math.hypot(*(of_a.get(name, 0.0) / a - of_b.get(name, 0.0) / b for name in of_a.keys() | of_b.keys()))


def _ratios(first: EnergyAccount, second: EnergyAccount) -> list[Ratio]:
    a, b = first.report, second.report
    both = bool(a.joules) and bool(b.joules)
    relative = _relative(first, second) if both else 0.0
    rows: list[tuple[str, str, float | None, float | None, float]] = [
        ("joules", "J", a.joules, b.joules, relative),
        ("joules per update", "J", a.joules_per_update, b.joules_per_update, relative),
        ("joules per sample", "J", a.joules_per_sample, b.joules_per_sample, relative),
    ]
    if first.efficiency is not None and second.efficiency is not None:
        e, f = first.efficiency, second.efficiency
        of_ess = [x.ess_uncertainty / x.ess for x in (e, f) if x.ess and x.ess_uncertainty is not None]
        rows += [
            ("joules per effective sample", "J", e.joules_per_effective_sample, f.joules_per_effective_sample,
             math.hypot(relative, *of_ess)),
            ("effective samples per second", "1/s", e.ess_per_second, f.ess_per_second, math.hypot(*of_ess)),
        ]  # fmt: skip
    found = []
    for name, unit, x, y, u in rows:
        ratio = None if x is None or not y else x / y
        found.append(Ratio(name, unit, x, y, ratio, None if ratio is None else abs(ratio) * u))
    return found


def _warnings(first: EnergyAccount, second: EnergyAccount) -> list[str]:
    a, b, found = first.report, second.report, []
    if a.joules is None or b.joules is None:
        return [f"{each.nature}: nothing can be compared" for each in (first, second) if each.report.joules is None]
    if a.basis != b.basis or set(first.provenances) != set(second.provenances):
        found.append(
            f"provenances are mixed: {first.nature}; {second.nature}. The ratio is as good as the weaker of the two"
        )
    if set(a.boundaries) != set(b.boundaries) or None in a.boundaries:
        found.append(f"boundaries differ or are not stated: {_inside(first)}; {_inside(second)}")
    for each in (first, second):
        if each.report.missing:
            found.append(
                f"{each.device} is without {', '.join(each.report.missing)} (not published): its true joules are more"
            )
        silent = each.report.without_uncertainty
        if silent:
            found.append(
                f"{each.device}: no uncertainty is stated for {', '.join(silent)}, so the ratio's lacks theirs"
            )
    if first.model_key != second.model_key and None not in (first.model_key, second.model_key):
        found.append("the two sampled different models: joules per effective sample are of different problems")
    return found


def _inside(account: EnergyAccount) -> str:
    boundaries = account.report.boundaries
    known = [boundary for boundary in boundaries if boundary is not None]
    text = " and ".join(known) if known else "not stated"
    return f"{account.device} {text}" + (", for some figures not stated" if known and None in boundaries else "")


def _remedy(first: EnergyAccount, second: EnergyAccount, warnings: tuple[str, ...]) -> str:
    if not warnings:
        return ""
    modelled = [each for each in (first, second) if each.report.basis == "modelled"]
    if len(modelled) == 2:
        how = (
            "take figures of one provenance and one boundary (kernel, chip, board or wall) with the same parts for both"
        )
    elif modelled:
        one, status = modelled[0].device, modelled[0].status
        built = "once it exists, " if status in UNBUILT else ""
        how = (
            f"{built}measure {one} with a meter at the boundary of the other (kernel, chip, board or wall), running the"
            " same model to the same effective sample size"
        )
    else:
        how = "measure both at one boundary (kernel, chip, board or wall), running the same model"
    return f"to make them comparable: {how}; until then read the ratio as an order of magnitude"
