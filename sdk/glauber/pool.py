"""The command `glauber pool`: a Dask cluster on this computer, for devices dask://HOST:PORT?device=..."""

from __future__ import annotations

import signal
import threading
from typing import Annotated, Any

import typer

from glauber.console import AsJson, errors, print_json


def pool(
    workers: Annotated[int, typer.Option(help="Processes; each computes a share of a job's chains.")] = 2,
    threads: Annotated[int, typer.Option(help="Threads that each of them computes with.")] = 1,
    port: Annotated[int, typer.Option(help="Of the scheduler, on 127.0.0.1 only; 0 takes any.")] = 8786,
    dashboard: Annotated[bool, typer.Option("--dashboard", help="Serve Dask's web page, on 127.0.0.1 too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a pool of workers on this computer; it runs until Ctrl-C, which ends all of its processes."""
    from glauber.registry import factory

    with errors(as_json):
        start: Any = getattr(factory("dask"), "local_pool")  # noqa: B009  # the core knows the pool by name only
        asked = threading.Event()
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with start(workers, threads, port, dashboard=dashboard) as running:
            if as_json:
                print_json({"address": running.address, "workers": workers, "dashboard": running.dashboard})
            else:
                typer.echo(f"{workers} workers: {running.address}")
                if running.dashboard:
                    typer.echo(f"dashboard: {running.dashboard}")
                typer.echo("Ctrl-C ends them")
            while not asked.wait(3600):
                pass
