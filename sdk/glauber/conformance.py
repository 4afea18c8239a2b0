"""The command `glauber conformance`: the driver contract on any device, with a table, JSON and an HTML report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glauber.console import EXIT_FAILED, AsJson, errors, print_json, print_table, progress_bar
from glauber.errors import InvalidModelError

if TYPE_CHECKING:
    from glauber.testing.acceptance import AcceptanceReport
    from glauber.testing.contract_report import ClauseResult, ContractReport


def conformance(
    address: Annotated[str, typer.Argument(help="Address of the device, such as sim://pbit-king-64.")],
    html: Annotated[Path | None, typer.Option(help="Write a report for people here.", show_default=False)] = None,
    json_file: Annotated[Path | None, typer.Option(help="Write the report as JSON here.", show_default=False)] = None,
    effort: Annotated[str, typer.Option(help="full, or quick with a fifth of the samples and less power.")] = "full",
    power_runs: Annotated[
        int,
        typer.Option(min=0, help="Measure the power of the acceptance by so many simulated devices for each fault."),
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Hold a device to the driver contract: meaning, laws, seeds, stopping, errors. Exit code 1 if a clause fails."""
    with errors(as_json):
        for path in (html, json_file):
            _check_writable(path)
        if effort not in ("quick", "full"):
            raise InvalidModelError(f'--effort must be "quick" or "full", not {effort!r}')
        report = _run(address, quick=effort == "quick", power_runs=power_runs, show=not as_json)
        if html is not None:
            from glauber.testing.contract_html import as_html

            html.write_text(as_html(report), encoding="utf-8")
        if json_file is not None:
            json_file.write_text(json.dumps(report.as_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        if as_json:
            print_json(report.as_dict())
        else:
            _show(report)
            for path in (html, json_file):
                if path is not None:
                    typer.echo(f"written: {path}")
    if not report.passed:
        raise typer.Exit(EXIT_FAILED)


def _run(address: str, *, quick: bool, power_runs: int, show: bool) -> ContractReport:
    from glauber.device import open_device
    from glauber.testing.contract import run_contract

    with progress_bar(show) as bar:
        task = bar.add_task("opening", total=None)
        return run_contract(
            lambda: open_device(address),
            effort="quick" if quick else "full",
            power_runs=power_runs,
            open_wrapped=lambda wrap: open_device(address, wrap=wrap),
            on_clause=lambda k, n, name: bar.update(
                task, completed=k, total=n, description=name.replace("_", " ").ljust(36)
            ),
        )


def _check_writable(path: Path | None) -> None:
    """A path that cannot be written is refused before the work, not after it."""
    if path is None:
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder")


def _show(report: ContractReport) -> None:
    rows = [
        (result.name.replace("_", " "), result.outcome, *_figures(result), result.reason) for result in report.results
    ]
    print_table(f"{report.address} ({report.device})", ("clause", "", "p", "least power", "about"), rows)
    if report.acceptance is not None:
        _show_power(report.acceptance)
    typer.echo(f"\n{report}")
    typer.echo(f"A right device fails with probability {report.alpha:.1g} at most; powers by fault are in the report.")


def _show_power(report: AcceptanceReport) -> None:
    rows = [
        (
            each.fault,
            f"{each.power:.3f}",
            "" if each.low is None else f"{each.low:.3f} to {each.high:.3f}",
            f"{each.source}, {each.runs} devices" if each.runs else each.source,
        )
        for each in report.power
    ]
    print_table(f"power of the acceptance at alpha {report.alpha:g}", ("fault", "power", "99.9 % interval", "by"), rows)


def _figures(result: ClauseResult) -> tuple[str, str]:
    p_value = "" if result.p_value is None else f"{result.p_value:.2g}"
    if not result.power:
        return p_value, ""
    fault = min(result.power, key=lambda name: result.power[name])
    return p_value, f"{result.power[fault]:.3f} ({fault})"
