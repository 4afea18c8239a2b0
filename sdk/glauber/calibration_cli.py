"""`glauber calibrate`, `history`, `diff`, `rollback` and `twin`: what a device really does, kept and compared."""

from __future__ import annotations

from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast
from urllib.parse import quote

import typer

from glauber.console import EXIT_BAD_INPUT, EXIT_FAILED, AsJson, errors, fail, print_json, print_table, progress_bar
from glauber.errors import CalibrationError, InvalidModelError

if TYPE_CHECKING:
    from glauber.calibration import CalibrationRecord, Protocol, TwinCheck
    from glauber.device import Device

EXIT_DRIFTED = 1
"""As of diff: 0 is no difference, 1 a difference, 2 trouble."""

RecordArgument = Annotated[str, typer.Argument(help="A record's file (.json), or its id in the history.")]
AddressArgument = Annotated[str, typer.Argument(help="Address of the device, such as sim://pbit-king-64.")]


def calibrate(
    address: AddressArgument,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="memory, pbits, couplings, temperature or drift; may be given again. All if none is given.",
            show_default=False,
        ),
    ] = None,
    shots: Annotated[int, typer.Option(help="Of each setting.")] = 20_000,
    seconds: Annotated[
        float | None, typer.Option(help="Stop after this time with what there is.", show_default=False)
    ] = None,
    beta: Annotated[
        float | None, typer.Option(help="Inverse temperature of the jobs; 1, or what the device can.")
    ] = None,
    sites: Annotated[
        int | None, typer.Option(help="Look at the first so many p-bits only.", show_default=False)
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Of the device, in degrees C, for the record.", show_default=False)
    ] = None,
    valid_hours: Annotated[float | None, typer.Option(help="After which it expires.", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(help="Write the record here (.json).", show_default=False)] = None,
    html: Annotated[Path | None, typer.Option(help="Write a report with plots here.", show_default=False)] = None,
    no_history: Annotated[bool, typer.Option("--no-history", help="Do not keep it, nor put it in force.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure what a device really does, with uncertainties; keep the record and put it in force.

    Ctrl-C leaves everything as it was, with exit code 130.
    """
    from glauber.calibration import CalibrationHistory
    from glauber.calibration.history import plain_address
    from glauber.device import open_device
    from glauber.request import Budget

    with errors(as_json):
        for path, suffix in ((out, ".json"), (html, ".html")):
            _check_target(path, suffix)
        if html is not None:
            import_module("glauber.calibration.report")  # a missing matplotlib is said before the work
        # SciPy comes before the board is open. (A Ctrl-C in the middle of its import leaves an interpreter that
        # ends by SIGINT itself, code -2 to a parent process and 130 to a shell, or an ImportError of a C extension.)
        import_module("glauber.calibration.run")
        budget = None if seconds is None else Budget(seconds=seconds)
        history = None if no_history else CalibrationHistory()
        before = None if history is None else history.in_force(plain_address(address))
        with open_device(address) as device:
            record = _measure(
                device,
                show=not as_json,
                protocols=cast("list[Protocol] | None", protocol or None),
                shots=shots,
                budget=budget,
                beta=beta,
                n_sites=sites,
                temperature_c=temperature,
                valid_hours=valid_hours,
            )
            spec = device.spec
        kept = None if history is None else history.add(record)
        written = [path for path in (kept, out, html) if path is not None]
        if out is not None:
            record.save(out)
        if html is not None:
            from glauber.calibration.report import save_html

            comparable = before is not None and (before.device, before.n_sites) == (record.device, record.n_sites)
            save_html(html, record, spec, older=before if comparable else None)
        in_force = None if history is None else record.id
        if as_json:
            files = [str(path) for path in written]
            print_json({"record": record.model_dump(mode="json"), "in_force": in_force, "written": files})
            return
        _print_record(record)
        for path in written:
            typer.echo(f"written: {path}")
        if history is None:
            typer.echo("not kept in the history, and not in force")
        else:
            instead = "" if before is None else f", in place of {before.id}"
            typer.echo(
                f'in force for {record.address}: {record.id}{instead}; open_device(calibration="latest") uses it'
            )


def _measure(device: Device, *, show: bool, **arguments: Any) -> CalibrationRecord:
    with progress_bar(show) as bar:
        task = bar.add_task("calibrating", total=1.0)

        def report(done: float, what: str) -> None:
            bar.update(task, completed=done, description=what.ljust(12))

        return device.calibrate(report=report, **arguments)


def history(
    address: Annotated[str | None, typer.Argument(help="Of one device only.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """List the calibrations that were kept, the newest last, and which are in force."""
    from glauber.calibration import CalibrationHistory
    from glauber.calibration.history import plain_address

    with errors(as_json):
        kept = CalibrationHistory()
        entries = kept.entries(None if address is None else plain_address(address))
        if as_json:
            names = ("id", "address", "device", "created", "in_force")
            print_json([{name: getattr(entry, name) for name in names} for entry in entries])
            return
        rows = [(e.id, e.created, e.device, "in force" if e.in_force else "", e.address) for e in entries]
        print_table(f"{len(rows)} calibrations in {kept.folder}", ("id", "ended", "device", "", "address"), rows)
        if not rows:
            typer.echo(f"none yet; glauber calibrate {address or 'ADDRESS'} makes one")


def diff(older: RecordArgument, newer: RecordArgument, as_json: AsJson = False) -> None:
    """Show what changed between two calibrations of a device.

    Exit codes are diff's: 0 no change beyond chance, 1 the device drifted, 2 the two cannot be compared.
    """
    from glauber.calibration import compare_records

    with errors(as_json):
        try:
            found = compare_records(_record(older), _record(newer))
        except (CalibrationError, OSError) as error:
            fail(error, EXIT_BAD_INPUT, as_json)
        if as_json:
            print_json(found.as_dict())
        else:
            typer.echo(str(found))
            typer.echo("drifted" if found.drifted else "no drift beyond chance")
    if found.drifted:
        raise typer.Exit(EXIT_DRIFTED)


def rollback(
    address: AddressArgument,
    record: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="Of an older calibration; else the one before.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put an older calibration of a device in force again; nothing is deleted."""
    from glauber.calibration import CalibrationHistory
    from glauber.calibration.history import plain_address

    with errors(as_json):
        kept, at = CalibrationHistory(), plain_address(address)
        before = next((entry.id for entry in kept.entries(at) if entry.in_force), None)
        now = kept.rollback(at, record)
        if as_json:
            print_json({"address": at, "before": before, "in_force": now.id})
        else:
            typer.echo(f"in force for {at}: {now.id} of {now.created}, in place of {before or 'none'}")


def twin(
    record: RecordArgument,
    out: Annotated[
        Path | None, typer.Option(help="Write the twin here (.json); else ID.twin.json.", show_default=False)
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Compare it with this device on random models; exit code 1 if it is another's.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Make a simulated chip with the flaws that a calibration found, and print its address.

    The device, or with --check the one to compare with, is opened for its description.
    """
    from glauber.calibration import TwinSpec
    from glauber.device import open_device

    with errors(as_json):
        found = _record(record)
        path = Path(f"{found.id}.twin.json") if out is None else out
        _check_target(path, ".json")
        with open_device(check or found.address) as device:
            made = TwinSpec.of(found, device.spec)
            made.save(path)
            address = f"sim://{found.device}?twin={quote(str(path), safe='/')}"
            if not as_json:
                typer.echo(address)
            outcome = None if check is None else _check(device, found, address, show=not as_json)
        if as_json:
            told = None if outcome is None else outcome.as_dict()
            print_json({"address": address, "file": str(path), "calibration": found.id, "check": told})
        elif outcome is not None:
            typer.echo(str(outcome))
    if outcome is not None and not outcome.passed:
        raise typer.Exit(EXIT_FAILED)


def _check(device: Device, record: CalibrationRecord, address: str, *, show: bool) -> TwinCheck:
    from glauber.calibration import check_twin
    from glauber.device import open_device

    assert record.pbits is not None  # TwinSpec.of has looked

    def opened(draw: int | None) -> AbstractContextManager[Device]:
        return open_device(address if draw is None else f"{address}&draw={draw}")

    with progress_bar(show) as bar:
        task = bar.add_task("comparing", total=1.0)
        return check_twin(
            device,
            opened,
            record.pbits.good,
            beta=record.beta,
            report=lambda done, what: bar.update(task, completed=done, description=what),
        )


def _record(name: str) -> CalibrationRecord:
    """A record by its file or its id."""
    from glauber.calibration.history import find_calibration

    if name == "latest":
        raise InvalidModelError('"latest" is one device\'s; give the id that `glauber history ADDRESS` shows in force')
    found = find_calibration(name, "")
    assert found is not None  # only "latest" may find none
    return found


def _check_target(path: Path | None, suffix: str) -> None:
    """A path that cannot be written is refused before the work, not after it."""
    if path is None:
        return
    if path.suffix != suffix:
        raise InvalidModelError(f"{path.name!r} is written as {suffix}; name it so")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder")


def _print_record(record: CalibrationRecord) -> None:
    from glauber.calibration.summary import BETA_COLUMNS, beta_rows, number_rows

    title = f"calibration {record.id} of {record.device}, {record.created}, {record.seconds:.1f} s"
    print_table(title, ("", "mean", "spread", "u of one", "unit"), number_rows(record))
    if record.temperatures:
        print_table("", BETA_COLUMNS, beta_rows(record))
    if record.pbits is not None:
        for site in record.bad_sites:
            typer.echo(f"site {site}: {record.pbits.verdicts[site]}")
    for note in record.notes:
        typer.echo(f"! {note}")
    if record.expires is not None:
        typer.echo(f"expires {record.expires}")
