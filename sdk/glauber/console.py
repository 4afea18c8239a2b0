"""What all commands share: exit codes, errors as one line, JSON, tables, progress on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from glauber.errors import (
    DeviceNotFoundError,
    FileFormatError,
    GlauberError,
    InvalidModelError,
    ModelNotSupportedError,
)

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_NO_DEVICE, EXIT_NOT_SUPPORTED, EXIT_INTERRUPTED = 1, 2, 3, 4, 130

err = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of text for people.")]


def fail(error: BaseException, code: int, as_json: bool) -> NoReturn:
    """Say what went wrong, and exit."""
    if as_json:
        typer.echo(json.dumps({"error": type(error).__name__, "message": str(error)}), err=True)
    else:
        err.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def escape(text: str) -> str:
    """Text without a meaning for rich."""
    return text.replace("[", r"\[")


@contextmanager
def errors(as_json: bool) -> Iterator[None]:
    """Turn every expected error into one line and an exit code."""
    try:
        yield
    except DeviceNotFoundError as error:
        fail(error, EXIT_NO_DEVICE, as_json)
    except ModelNotSupportedError as error:
        fail(error, EXIT_NOT_SUPPORTED, as_json)
    except (InvalidModelError, FileFormatError, FileNotFoundError, IsADirectoryError) as error:
        fail(error, EXIT_BAD_INPUT, as_json)
    except BrokenPipeError:  # whoever read, such as `head`, has had enough: typer ends without a word
        raise
    except (GlauberError, OSError) as error:
        fail(error, EXIT_FAILED, as_json)
    except KeyboardInterrupt:
        err.print("stopped")
        raise typer.Exit(EXIT_INTERRUPTED) from None


def print_json(value: Any) -> None:
    """On standard output; NaN is an error."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def print_table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table for people, on standard output."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    width = None if sys.stdout.isatty() else 160  # a pipe has no width of its own
    Console(width=width).print(table)


def progress_bar(enabled: bool) -> Progress:
    """A bar on standard error, if that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, *times, console=err, transient=True, disable=not enabled or not err.is_terminal)
