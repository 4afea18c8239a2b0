"""`glauber jobs`: stored jobs, listed, watched, stopped, run again, compared, carried and cleaned; `glauber usage`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glauber.console import EXIT_FAILED, AsJson, err, errors, print_json, print_table, progress_bar
from glauber.errors import InvalidModelError

if TYPE_CHECKING:
    from glauber.store import JobRecord, JobStore

jobs = typer.Typer(
    name="jobs",
    help="Stored jobs: of this computer's store, or of another one with --store.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

StoreOption = Annotated[
    Path | None,
    typer.Option("--store", help="The store's file, if not GLAUBER_STORE's or your data folder's.", show_default=False),
]
JobId = Annotated[str, typer.Argument(help="Id of a job; its first characters are enough where they are unique.")]


def open_existing(path: Path | None) -> JobStore:
    """A store that is there: who looks for jobs shall not make an empty one by a typing error."""
    from glauber.store import JobStore, default_path

    found = default_path() if path is None else path
    if not found.is_file():
        raise FileNotFoundError(f"there is no job store at {found}; `glauber run` makes one, and --store names another")
    return JobStore(found)


def full_id(store: JobStore, start: str) -> str:
    """The id that begins so, or the name itself."""
    rows = store.database.read(
        "SELECT id FROM job WHERE id = ? OR substr(id, 1, ?) = ? ORDER BY id = ? DESC LIMIT 3",
        (start, len(start), start, start),
    )
    if len(rows) > 1 and rows[0][0] != start:
        raise InvalidModelError(f"several jobs begin with {start}: {rows[0][0]}, {rows[1][0]}, ...; give more of it")
    return str(rows[0][0]) if rows else start


@jobs.command("list")
def list_jobs(
    device: Annotated[str | None, typer.Option(help="Only of this device.", show_default=False)] = None,
    owner: Annotated[str | None, typer.Option(help="Only of this owner.", show_default=False)] = None,
    status: Annotated[
        str | None, typer.Option(help="queued, running, done, failed or cancelled.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 30,
    store: StoreOption = None,
    as_json: AsJson = False,
) -> None:
    """Show the newest jobs."""
    from glauber.job import JobStatus

    with errors(as_json), open_existing(store) as opened:
        names = [each.value for each in JobStatus]
        if status is not None and status not in names:
            raise InvalidModelError(f"--status must be one of {', '.join(names)}, not {status!r}")
        wanted = None if status is None else JobStatus(status)
        found = opened.jobs(device=device, owner=owner, status=wanted, limit=limit)
        if as_json:
            print_json([record.as_dict() for record in found])
            return
        rows = [
            (
                record.id, record.status.value, record.device, record.owner, _when(record.created), _progress(record),
                f"{record.n_sites} x {record.n_chains} x {record.n_samples}", f"{record.seconds:.3g} s",
                "-" if record.joules is None else f"{record.joules:.3g} J",
            )
            for record in found
        ]  # fmt: skip
        columns = ("id", "status", "device", "owner", "submitted", "done", "sites x chains x samples", "ran", "energy")
        print_table(f"{len(rows)} jobs in {opened.path}", columns, rows)


def _when(seconds: float | None) -> str:
    from glauber.store.records import iso

    return "-" if seconds is None else iso(seconds)[:19].replace("T", " ")


def _progress(record: JobRecord) -> str:
    return f"{record.sweeps_done / max(1, record.sweeps_total):.0%}"


@jobs.command()
def show(job_id: JobId, store: StoreOption = None, as_json: AsJson = False) -> None:
    """Show all that is known of a job."""
    with errors(as_json), open_existing(store) as opened:
        record = opened.get(full_id(opened, job_id))
        events = opened.events(record.id)
        if as_json:
            history = [{"number": e.number, "status": e.status, "message": e.message} for e in events]
            print_json({**record.as_dict(), "events": history})
            return
        skip = ("created", "started", "ended", "schedule", "versions")
        rows = [
            (name, "-" if value is None else str(value)) for name, value in record.as_dict().items() if name not in skip
        ]
        rows.append(("schedule", ", ".join(f"{name} {value}" for name, value in record.schedule.items())))
        rows.append(("versions", ", ".join(f"{name} {value}" for name, value in record.versions.items())))
        rows.append(("history", "; ".join(e.status + (f" ({e.message})" if e.message else "") for e in events)))
        print_table("", ("", ""), rows)


@jobs.command()
def watch(job_id: JobId, store: StoreOption = None, as_json: AsJson = False) -> None:
    """Follow a job to its end. Exit code 1 if it fails or is cancelled. Ctrl-C stops watching, not the job."""
    from glauber.job import JobStatus
    from glauber.stored_job import stored_job

    with errors(as_json), open_existing(store) as opened:
        job = stored_job(opened, full_id(opened, job_id))
        with progress_bar(not as_json) as bar:
            task = bar.add_task(job.status.value, total=max(1, job.request.schedule.n_sweeps))
            for progress in job.watch():
                bar.update(task, completed=progress.sweeps_done, description=progress.status.value)
        record = opened.get(job.id)
        if as_json:
            print_json(record.as_dict())
        else:
            typer.echo(f"{record.id}: {record.status.value}" + (f", {record.message}" if record.message else ""))
        if record.status is not JobStatus.DONE:
            raise typer.Exit(EXIT_FAILED)


@jobs.command()
def cancel(job_id: JobId, store: StoreOption = None, as_json: AsJson = False) -> None:
    """Ask for a job to be stopped, in whatever process it runs."""
    with errors(as_json), open_existing(store) as opened:
        full = full_id(opened, job_id)
        asked = opened.ask_to_cancel(full)
        status = opened.get(full).status.value
        if as_json:
            print_json({"id": full, "asked": asked, "status": status})
        else:
            said = "will stop at its next batch" if asked and status == "running" else f"is {status}"
            typer.echo(f"{full}: {said}" if asked else f"{full}: nothing to cancel, it is {status} or was asked before")
        if not asked:
            raise typer.Exit(EXIT_FAILED)


@jobs.command()
def rerun(
    job_id: JobId,
    device: Annotated[
        str | None, typer.Option("--device", "-d", help="On another device than the first time.", show_default=False)
    ] = None,
    store: StoreOption = None,
    as_json: AsJson = False,
) -> None:
    """Run a job again and compare the results bit for bit. Exit code 1 if they differ."""
    from dataclasses import replace

    from glauber.device import open_device
    from glauber.store.compare import compare_results

    with errors(as_json), open_existing(store) as opened:
        record = opened.get(full_id(opened, job_id))
        first = opened.result(record.id)
        request = replace(opened.request(record.id), idempotency_key=None, reuse=False)
        with open_device(device or record.device, store=opened) as again:
            job = again.submit_request(request)
            with progress_bar(not as_json) as bar:
                task = bar.add_task("running again", total=request.schedule.n_sweeps)
                try:
                    for progress in job.watch():
                        bar.update(task, completed=progress.sweeps_done)
                except KeyboardInterrupt:
                    job.ask_to_cancel()
                    raise
            second = job.result()
        verdict = compare_results(first, second)
        if as_json:
            print_json({"id": record.id, "again": job.id, "identical": verdict == "identical", "results": verdict})
        else:
            on = "" if device is None else f" on {device}"
            typer.echo(f"{record.id} again{on}, as {job.id}: {verdict}")
            if verdict != "identical" and second.provenance.spec_hash != first.provenance.spec_hash:
                typer.echo("the device's description is another one now than when the job ran first")
        if verdict != "identical":
            raise typer.Exit(EXIT_FAILED)


@jobs.command()
def diff(one: JobId, other: JobId, store: StoreOption = None, as_json: AsJson = False) -> None:
    """Show what two jobs have not in common, and whether their results are the same bit for bit."""
    from glauber.store.compare import difference

    with errors(as_json), open_existing(store) as opened:
        found = difference(opened, full_id(opened, one), full_id(opened, other))
        if as_json:
            print_json(found)
            return
        results = found.pop("results")
        if found:
            print_table("", ("", one, other), [(name, str(a), str(b)) for name, (a, b) in found.items()])
        typer.echo(f"results: {results}")


@jobs.command("export")
def export_(
    job_id: JobId,
    output: Annotated[Path, typer.Argument(help="File to write (.npz).")],
    store: StoreOption = None,
    as_json: AsJson = False,
) -> None:
    """Write a job that has ended to a file: what was asked, what it ran on, what came of it."""
    from glauber.store.transfer import export_job

    with errors(as_json), open_existing(store) as opened:
        full = full_id(opened, job_id)
        export_job(opened, full, output)
        print_json({"id": full, "output": str(output)}) if as_json else typer.echo(f"written: {output}")


@jobs.command("import")
def import_(
    files: Annotated[list[Path], typer.Argument(help="Files that `glauber jobs export` wrote.")],
    store: StoreOption = None,
    as_json: AsJson = False,
) -> None:
    """Add exported jobs to the store; those that are there already stay as they are."""
    from glauber.store import JobStore
    from glauber.store.transfer import import_job

    with errors(as_json), JobStore(store) as opened:
        ids = [import_job(opened, file) for file in files]
        print_json(ids) if as_json else typer.echo("\n".join(ids))


@jobs.command()
def gc(
    older_than: Annotated[float, typer.Option("--older-than", min=0, help="Days since the job ended.")] = 30.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    store: StoreOption = None,
    as_json: AsJson = False,
) -> None:
    """Remove jobs that ended long ago, and what no job needs any more. Jobs that wait or run are never touched."""
    from glauber.store.upkeep import collect_garbage

    with errors(as_json), open_existing(store) as opened:
        found = collect_garbage(opened, older_than_seconds=older_than * 86400, dry_run=dry_run)
        if as_json:
            print_json({"jobs": list(found.jobs), "objects": found.objects, "bytes": found.bytes, "dry_run": dry_run})
        else:
            what = "would be removed" if dry_run else "removed"
            typer.echo(f"{len(found.jobs)} jobs and {found.objects} objects ({found.bytes / 1e6:.3g} MB) {what}")


@jobs.command()
def check(store: StoreOption = None, as_json: AsJson = False) -> None:
    """Read the whole store and compare every checksum. Exit code 1 if anything is not what was written."""
    from glauber.store.upkeep import check_store

    with errors(as_json), open_existing(store) as opened:
        with progress_bar(not as_json) as bar:
            task = bar.add_task("checking", total=None)
            found = check_store(opened, lambda done, total: bar.update(task, completed=done, total=total))
        if as_json:
            print_json(found.as_dict())
        else:
            for line in found.damage:
                err.print(line, markup=False, highlight=False, soft_wrap=True)
            state = "all intact" if not found.damage else f"{len(found.damage)} damaged"
            typer.echo(f"{found.jobs} jobs, {found.objects} objects: {state}")
        if found.damage:
            raise typer.Exit(EXIT_FAILED)


def usage(
    days: Annotated[float | None, typer.Option(min=0, help="Only the last so many days.", show_default=False)] = None,
    owner: Annotated[str | None, typer.Option(help="Only of this owner.", show_default=False)] = None,
    device: Annotated[str | None, typer.Option(help="Only of this device.", show_default=False)] = None,
    store: StoreOption = None,
    as_json: AsJson = False,
) -> None:
    """Show what jobs have taken, by owner, device and day: seconds, and joules with their uncertainty."""
    import time

    with errors(as_json):
        since = None if days is None else time.time() - days * 86400
        with open_existing(store) as opened:
            found = opened.usage(since=since, owner=owner, device=device)
        if as_json:
            print_json([each.as_dict() for each in found])
            return
        rows = [
            (each.day, each.owner, each.device, str(each.jobs), f"{each.seconds:.4g}", _joules(each)) for each in found
        ]
        print_table("usage by day (UTC)", ("day", "owner", "device", "jobs", "seconds", "joules"), rows)


def _joules(each: Any) -> str:
    if each.joules is None:
        return "not known"
    basis = f"{each.measured:.0%} measured"
    missing = f", without {each.without_joules} jobs" if each.without_joules else ""
    return f"{each.joules:.4g} +- {each.joules_uncertainty:.2g} ({basis}{missing})"
