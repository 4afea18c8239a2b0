"""Who did what, when: an append-only log in which every row's hash covers the row before it.

A row that is changed, removed from the middle, inserted or put elsewhere breaks the chain, and `verify` names it. What
a chain cannot show by itself is that its tail was cut off: every prefix of it is a valid chain. That is seen only with
a head hash that was noted elsewhere (on paper, in another computer's log): `glauber audit verify --head HASH`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from glauber.audit_file import NO_ROW, chain_hash
from glauber.errors import StoreCorruptError
from glauber.server.labfile import LabFile

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One row.

    Attributes:
        number: from 1, without gaps.
        time: Unix seconds.
        who: owner and token id, or the user of the command line.
        action: submit, cancel, token-create, token-revoke, reserve, unreserve, refused, start, stop.
        subject: what was acted on: a job's, token's or reservation's id, a path.
        details: further facts.
        hash: of this row and the hash before it.
    """

    number: int
    time: float
    who: str
    action: str
    subject: str
    details: dict[str, Any]
    hash: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def row_hash(previous: str, number: int, time: float, who: str, action: str, subject: str, details: str) -> str:
    """The hash of a row, see glauber.audit_file.chain_hash."""
    row = {"number": number, "time": time, "who": who, "action": action, "subject": subject, "details": details}
    return chain_hash(previous, row)


def append(file: LabFile, who: str, action: str, subject: str = "", **details: Any) -> None:
    """Add a row, in a transaction of its own."""
    with file.transaction() as connection:
        append_within(connection, file.now(), who, action, subject, **details)


def append_within(
    connection: sqlite3.Connection, now: float, who: str, action: str, subject: str = "", **details: Any
) -> None:
    """Add a row within a transaction, so that what was done and the row are written together or not at all."""
    last = connection.execute("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1").fetchone()
    number, previous = (1, NO_ROW) if last is None else (int(last[0]) + 1, str(last[1]))
    text = json.dumps(details, sort_keys=True, separators=(",", ":"), allow_nan=False)
    digest = row_hash(previous, number, now, who, action, subject, text)
    connection.execute(
        "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?)", (number, now, who, action, subject, text, digest)
    )
    connection.execute("UPDATE clock SET newest = max(newest, ?)", (now,))


def _rows(file: LabFile) -> Iterator[tuple[Any, ...]]:
    last = -(2**63)
    while page := file.rows("SELECT * FROM audit WHERE number > ? ORDER BY number LIMIT ?", last, _PAGE):
        yield from page
        last = page[-1][0]


def entries(file: LabFile) -> Iterator[AuditEntry]:
    """All rows, oldest first, as they stand."""
    for number, time, who, action, subject, details, digest in _rows(file):
        yield AuditEntry(number, time, who, action, subject, json.loads(details), digest)


@dataclass(frozen=True, slots=True)
class Verified:
    """A log without a broken row.

    Attributes:
        entries: how many.
        head: hash of the last one; note it elsewhere.
    """

    entries: int
    head: str


def verify(file: LabFile, head: str | None = None) -> Verified:
    """Recompute every hash.

    Args:
        file: the lab's file.
        head: a head hash that was noted before; a row of the log must have it.

    Raises:
        StoreCorruptError: naming the first row that is not what was written, or that rows are missing at the end.
    """
    previous, count, seen = NO_ROW, 0, head in (None, NO_ROW)
    for number, time, who, action, subject, details, digest in _rows(file):
        if number != count + 1:
            raise StoreCorruptError(f"audit row {count + 1} is missing: after row {count} comes row {number}")
        if row_hash(previous, number, time, who, action, subject, details) != digest:
            raise StoreCorruptError(f"audit row {number} is not what was written, or the row before it is not")
        previous, count, seen = digest, number, seen or digest == head
    if not seen:
        raise StoreCorruptError(
            f"no row of the {count} has the hash {head}: rows were cut off at the end, or the log was written anew"
        )
    return Verified(count, previous)
