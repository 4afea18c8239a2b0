"""The commands `glauber serve`, `glauber token ...` and `glauber audit ...`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glauber.console import AsJson, errors, print_json, print_table
from glauber.errors import StoreError, missing_extra

if TYPE_CHECKING:
    from glauber.server.labfile import LabFile
    from glauber.server.tokens import Token

token_app = typer.Typer(name="token", help="Tokens of a lab server: who may use it.", no_args_is_help=True)
audit_app = typer.Typer(
    name="audit", help="The audit log of a lab server, or an audit file: who did what.", no_args_is_help=True
)

ConfigOption = Annotated[Path, typer.Option("--config", help="The lab's configuration.")]
DEFAULT_CONFIG = Path("devices.toml")


def serve(
    config: Annotated[Path, typer.Argument(help="The lab's configuration.")] = DEFAULT_CONFIG,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="In place of the configuration's.")] = None,
) -> None:
    """Share this computer's devices with the lab, over HTTP; docs/lab-server.md shows how.

    Ctrl-C lets running jobs stop at their next batch, and they go on at the next start; a second one ends at once.
    """
    with errors(False):
        from glauber.server.config import read_config

        read = read_config(config)
        if port is not None:
            read = read.model_copy(update={"port": port})
        try:
            from glauber.server.serve import serve as run
        except ModuleNotFoundError as error:
            raise missing_extra(str(error.name), "server", "glauber serve") from error
        run(read)


@contextmanager
def _lab_file(config: Path) -> Iterator[LabFile]:
    from glauber.server.config import read_config
    from glauber.server.lab import labfile_path
    from glauber.server.labfile import LabFile

    file = LabFile(labfile_path(read_config(config)))
    try:
        yield file
    finally:
        file.close()


def _day(at: float | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")


def _as_dict(token: Token) -> dict[str, object]:
    names = ("id", "owner", "scope", "created", "expires", "revoked")
    return {name: getattr(token, name) for name in names}


@token_app.command("create")
def token_create(
    owner: Annotated[str, typer.Option(help="Whose jobs the token submits.")],
    scope: Annotated[str, typer.Option(help="read, submit (and read), or admin (everything).")] = "submit",
    days: Annotated[float, typer.Option(help="How long it is valid.")] = 30.0,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it: this once, for only its hash is kept."""
    from glauber.server.tokens import create_token

    with errors(as_json), _lab_file(config) as file:
        token, text = create_token(file, owner, scope, days)
        if as_json:
            print_json({**_as_dict(token), "token": text})
        else:
            typer.echo(text)
            typer.echo(f"{owner} may {scope} until {_day(token.expires)} UTC; it is not shown again", err=True)


@token_app.command("list")
def token_list(config: ConfigOption = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """List tokens by their ids."""
    from glauber.server.tokens import all_tokens

    with errors(as_json), _lab_file(config) as file:
        tokens, now = all_tokens(file), file.now()
        if as_json:
            print_json([_as_dict(token) for token in tokens])
            return
        rows = []
        for token in tokens:
            state = "revoked" if token.revoked is not None else "expired" if now >= token.expires else "valid"
            rows.append((token.id, token.owner, token.scope, _day(token.created), _day(token.expires), state))
        print_table(f"{len(rows)} tokens", ("id", "owner", "scope", "created (UTC)", "expires", ""), rows)


@token_app.command("revoke")
def token_revoke(
    token_id: Annotated[str, typer.Argument(help="As `glauber token list` shows it.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Make a token invalid: a running server refuses it from now on."""
    from glauber.server.tokens import revoke_token

    with errors(as_json), _lab_file(config) as file:
        token = revoke_token(file, token_id)
        if as_json:
            print_json(_as_dict(token))
        else:
            typer.echo(f"token {token.id} of {token.owner} is revoked")


@audit_app.command("verify")
def audit_verify(
    head: Annotated[str | None, typer.Option(help="A head hash noted earlier: no row up to it may be gone.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="An audit file, such as a SafeModel's, instead of the lab's log.", show_default=False),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Check that no row of the log was changed; exit code 1 names the first that was. Note the head hash elsewhere."""
    from glauber.audit_file import verify_audit
    from glauber.server.audit import verify

    with errors(as_json):
        if file is not None:
            checked = verify_audit(file, head)
            count, last = checked.lines, checked.head
        else:
            with _lab_file(config) as lab:
                found = verify(lab, head)
            count, last = found.entries, found.head
        if as_json:
            print_json({"entries": count, "head": last})
        else:
            typer.echo(f"{count} entries, none changed; head {last}")


@audit_app.command("repair")
def audit_repair(
    file: Annotated[Path, typer.Argument(help="An audit file whose last line has no end.")],
    as_json: AsJson = False,
) -> None:
    """Cut off a last line that a dying process left without its end, and note that in the file."""
    from glauber.audit_file import AuditFile

    with errors(as_json):
        if not file.exists():
            raise StoreError(f"there is no file {file}")
        cut = AuditFile(file).repair()
        if as_json:
            print_json({"cut": cut})
        else:
            typer.echo(f"{cut} bytes cut off, and a line that says so" if cut else "nothing to repair")


@audit_app.command("list")
def audit_list(config: ConfigOption = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Print the log, the oldest entry first."""
    from glauber.server.audit import entries

    with errors(as_json), _lab_file(config) as file:
        listed = list(entries(file))
        if as_json:
            print_json([entry.as_dict() for entry in listed])
            return
        rows = [
            (str(one.number), _day(one.time), one.who, one.action, one.subject, _details(one.details)) for one in listed
        ]
        print_table(f"{len(rows)} entries", ("", "time (UTC)", "who", "what", "", ""), rows)


def _details(details: dict[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in details.items())
