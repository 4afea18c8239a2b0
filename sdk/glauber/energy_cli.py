"""`glauber energy`: what a result cost, part by part and line by line, and two results side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glauber.console import AsJson, errors, print_json, print_table
from glauber.jobs_cli import StoreOption, full_id, open_existing

if TYPE_CHECKING:
    from glauber.accounting import EnergyAccount
    from glauber.samples import SampleSet

ResultArgument = Annotated[
    str, typer.Argument(help="A result's file (.npz), or a job: its id in the store, or its address on a lab server.")
]


def energy(
    result: ResultArgument,
    against: Annotated[
        str | None, typer.Argument(help="A second result, to compare the first with.", show_default=False)
    ] = None,
    store: StoreOption = None,
    as_json: AsJson = False,
) -> None:
    """Show the joules of a result: parts, uncertainty, effective samples; of two results the ratio, and its traps."""
    from glauber.accounting import EnergyAccount, compare_energy

    with errors(as_json):
        if against is None:
            account = EnergyAccount.of(_result(result, store))
            print_json(account.as_dict()) if as_json else _print_account(account)
            return
        comparison = compare_energy(_result(result, store), _result(against, store))
        if as_json:
            print_json(comparison.as_dict())
            return
        first, second = comparison.first, comparison.second
        rows = [(name, a, b, "") for name, a, b in zip(_ABOUT, _about(first), _about(second), strict=True)]
        for ratio in comparison.ratios:
            shown = "-" if ratio.ratio is None else f"{ratio.ratio:.4g} +- {ratio.standard_uncertainty:.2g}"
            rows.append((f"{ratio.name}, {ratio.unit}", _figure(ratio.first), _figure(ratio.second), shown))
        print_table("", ("", "first", "second", "first / second"), rows)
        typer.echo("")
        for line in (*(f"! {warning}" for warning in comparison.warnings), comparison.remedy):
            if line:
                typer.echo(line)


def _result(name: str, store: Path | None) -> SampleSet:
    """A result by file, address or id."""
    from glauber.samples import SampleSet
    from glauber.stored_job import get_job

    if "://" in name:
        return get_job(name).result()
    if Path(name).exists() or Path(name).suffix == ".npz":
        return SampleSet.load(name)
    with open_existing(store) as opened:
        return opened.result(full_id(opened, name))


_ABOUT = ("what it is", "provenances", "boundaries", "left out")


def _about(account: EnergyAccount) -> tuple[str, str, str, str]:
    boundaries = ", ".join(boundary or "not stated" for boundary in account.report.boundaries)
    provenances = ", ".join(account.provenances)
    return account.nature, provenances or "-", boundaries or "-", ", ".join(account.report.missing) or "-"


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _print_account(account: EnergyAccount) -> None:
    report, efficiency = account.report, account.efficiency
    rows = [
        (
            name,
            "unknown" if part.joules is None else f"{part.joules:.4g}",
            "-"
            if not part.joules
            else f"{part.standard_uncertainty:.2g}"
            if part.standard_uncertainty
            else "not stated",
            f"{part.count:.6g} {part.unit}",
            part.provenance or "-",
            part.boundary or "-",
            part.source,
        )
        for name, part in report.parts.items()
    ]
    columns = ("part", "joules", "+-", "count", "provenance", "boundary", "source")
    print_table(account.nature, columns, rows)
    _print_budget(account)
    u = report.standard_uncertainty
    totals = [
        ("joules", "unknown" if report.joules is None else f"{report.joules:.4g} +- {u:.2g} J"),
        ("above idle", "unknown" if report.net_joules is None else f"{report.net_joules:.4g} J"),
        ("per flip (update)", _per(report.joules_per_update)),
        ("per sample", _per(report.joules_per_sample)),
        ("per effective sample", "unknown"),
        ("Landauer bound", f"{report.landauer_joules:.4g} J"),
        ("left out", ", ".join(report.missing) or "nothing"),
    ]
    if efficiency is not None and efficiency.joules_per_effective_sample is not None:
        per, relative = efficiency.joules_per_effective_sample, efficiency.relative_uncertainty or 0.0
        totals[4] = ("per effective sample", f"{per:.4g} +- {per * relative:.2g} J")
    if report.without_uncertainty:
        totals.append(("no uncertainty stated", ", ".join(report.without_uncertainty)))
    if efficiency is not None:
        totals.append(("effective samples", str(efficiency)))
        if efficiency.ess_per_device_second is not None:
            totals.append(("of the described device", f"{efficiency.ess_per_device_second:.4g} ESS a second"))
    if report.reflash_seconds:
        totals.append(("rewriting weights", f"{report.reflash_seconds:.4g} s at the device's stated limit"))
    if report.not_measured:
        totals.append(("not measured", report.not_measured))
    typer.echo("")
    print_table("", ("", ""), totals)


def _per(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g} J"


def _print_budget(account: EnergyAccount) -> None:
    """The uncertainty's lines with their share of the variance; of a modelled report its parts are the lines."""
    report = account.report
    if report.budget:
        lines = [(line.name, line.joules, f"{line.evaluation}, {line.distribution}", line.source)
                 for line in report.budget]  # fmt: skip
    else:
        lines = [(name, part.standard_uncertainty, "of its figure", part.source)
                 for name, part in report.parts.items() if part.standard_uncertainty]  # fmt: skip
    variance = sum(joules**2 for _, joules, _, _ in lines)
    if not variance:
        return
    rows = [(name, f"{joules:.3g}", f"{joules**2 / variance:.1%}", how, source) for name, joules, how, source in lines]
    typer.echo("")
    print_table("uncertainty, line by line", ("line", "+- J", "share of variance", "evaluation", "source"), rows)
