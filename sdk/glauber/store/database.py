"""One SQLite file in WAL mode: transactions, content-addressed objects, schema versions, and errors with names.

Everything of a job lies in this one file, so that one transaction makes it durable (synchronous=FULL: the log is on
the disk before `commit` returns). SQLite has no checksums of its own, so objects are named by their SHA-256 and rows
carry one.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glauber.errors import StoreCorruptError, StoreError

PIECE_BYTES = 32 * 2**20
"""Objects are kept in pieces of this size: SQLite takes no value above a gigabyte."""
BUSY_SECONDS = 30.0
"""How long to wait for another process that writes."""

Migration = Callable[[sqlite3.Connection], None]

_FIRST = """
CREATE TABLE object (digest TEXT NOT NULL, piece INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (digest, piece));
CREATE TABLE job (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    idempotency_key TEXT,
    device TEXT NOT NULL,
    request_key TEXT NOT NULL,
    spec_hash TEXT NOT NULL,
    facts TEXT NOT NULL,
    checksum TEXT NOT NULL,
    UNIQUE (owner, idempotency_key)
);
CREATE INDEX job_reuse ON job (request_key, device, spec_hash);
CREATE TABLE event (
    job INTEGER NOT NULL REFERENCES job (number) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    at REAL NOT NULL,
    status TEXT NOT NULL,
    facts TEXT NOT NULL,
    checksum TEXT NOT NULL,
    PRIMARY KEY (job, number)
);
CREATE UNIQUE INDEX one_end ON event (job) WHERE status IN ('done', 'failed', 'cancelled');
CREATE TRIGGER events_are_appended BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER jobs_do_not_change BEFORE UPDATE ON job BEGIN SELECT RAISE(ABORT, 'a job does not change'); END;
CREATE TABLE state (
    job INTEGER PRIMARY KEY REFERENCES job (number) ON DELETE CASCADE,
    status TEXT NOT NULL,
    runner TEXT,
    cancel INTEGER NOT NULL DEFAULT 0,
    sweeps_done INTEGER NOT NULL DEFAULT 0,
    samples_done INTEGER NOT NULL DEFAULT 0,
    started REAL,
    ended REAL,
    seconds REAL NOT NULL DEFAULT 0,
    joules REAL,
    joules_uncertainty REAL,
    basis TEXT,
    stopped_by TEXT,
    result TEXT
);
CREATE INDEX state_open ON state (runner) WHERE status IN ('queued', 'running');
CREATE INDEX state_ended ON state (ended);
CREATE TABLE part (
    job INTEGER NOT NULL REFERENCES job (number) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (job, number)
);
CREATE TABLE clock (id INTEGER PRIMARY KEY CHECK (id = 1), latest REAL NOT NULL);
INSERT INTO clock VALUES (1, 0);
"""


def _create(connection: sqlite3.Connection) -> None:
    for statement in _statements(_FIRST):
        connection.execute(statement)


def _statements(script: str) -> Iterator[str]:
    """One by one: sqlite3's executescript would commit the transaction it is in."""
    text = ""
    for line in script.splitlines(keepends=True):
        text += line
        if sqlite3.complete_statement(text):
            yield text
            text = ""


MIGRATIONS: tuple[Migration, ...] = (_create,)
"""Migration k leads from version k to version k + 1; version 0 is an empty file."""


def digest_of(content: bytes) -> str:
    """SHA-256, 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def checksum_of(*values: object) -> str:
    """Of a row: the first 16 digits of the SHA-256 of its values."""
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


def typed(error: sqlite3.Error, path: Path) -> StoreError:
    """What SQLite says, as an error that says what to do."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_FULL"):
        return StoreError(f"the disk of {path} is full; nothing was changed. Free space, or: glauber jobs gc")
    if name.startswith("SQLITE_READONLY"):
        return StoreError(f"{path} cannot be written ({error}); check its permissions, or choose another store")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreError(f"{path} was locked by another process for {BUSY_SECONDS:g} s; try again")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or "Could not decode" in str(error):
        return StoreCorruptError(
            f"{path} is damaged ({error}); glauber jobs check says where; glauber jobs export saves the rest"
        )
    if name.startswith("SQLITE_IOERR"):
        return StoreError(f"reading or writing {path} failed ({error}, {name}); nothing was changed")
    if name.startswith("SQLITE_CANTOPEN"):
        return StoreError(f"{path} cannot be opened: does its folder exist, and may you write there?")
    return StoreError(f"the job store {path} failed: {error}")


class Database:
    """The file. All methods may be called from any thread; who reads does not wait for who writes.

    Args:
        path: of the file; made, with its folder, where it is missing.
        migrations: for tests of them.

    Raises:
        StoreError: it cannot be opened, or was written by a newer glauber.
    """

    def __init__(self, path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        self.path = path
        self._lock = threading.RLock()  # of the connection that writes
        self._reading = threading.RLock()  # of the other one
        self._process = os.getpid()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreError(f"the folder of the job store cannot be made: {error}") from error
        try:
            self._open(str(path), migrations)
        except sqlite3.Error as error:
            if not self._may_be_read_only(error):
                raise typed(error, path) from error
            try:  # nobody can be writing, so what is in the file is all there is
                self._open(f"{path.resolve().as_uri()}?mode=ro&immutable=1", migrations)
            except sqlite3.Error:
                raise typed(error, path) from error

    def _may_be_read_only(self, error: sqlite3.Error) -> bool:
        """Whether this user may read the file and not write it, and no log lies beside it that belongs to it."""
        name = getattr(error, "sqlite_errorname", "") or ""
        if not (name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")) and os.access(self.path, os.R_OK)):
            return False
        try:
            return self.path.with_name(self.path.name + "-wal").stat().st_size == 0
        except FileNotFoundError:  # there is none, or no longer: whoever closes the file last removes it
            return True

    def _open(self, name: str, migrations: Sequence[Migration]) -> None:
        def connect() -> sqlite3.Connection:
            uri = name.startswith("file:")
            return sqlite3.connect(name, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=uri)

        self._connection = connect()
        try:
            self._prepare(migrations)
            self._reader = connect()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, migrations: Sequence[Migration]) -> None:
        run = self._connection.execute
        run("PRAGMA foreign_keys = ON")
        run("PRAGMA cell_size_check = ON")
        version = int(run("PRAGMA user_version").fetchone()[0])
        if version > len(migrations):
            raise StoreError(
                f"{self.path} is a job store of version {version}; this glauber knows versions up to {len(migrations)}:"
                " upgrade glauber, or choose another store"
            )
        if version < len(migrations):
            run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        if version < len(migrations):
            with self._transaction():
                for number in range(int(run("PRAGMA user_version").fetchone()[0]), len(migrations)):
                    migrations[number](self._connection)
                run(f"PRAGMA user_version = {len(migrations)}")

    def limit_pages(self, pages: int) -> None:
        """For tests of a full disk."""
        with self._lock:
            self._connection.execute(f"PRAGMA max_page_count = {pages}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise StoreError(f"{self.path} was opened in another process; open it in this one")

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it or nothing, on the disk when the block ends."""
        self._check_process()
        with self._lock:
            try:
                with self._transaction():
                    yield self._connection
            except sqlite3.Error as error:
                raise typed(error, self.path) from error

    def read(self, sql: str, arguments: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query; what is committed, or within `snapshot` what was when it began."""
        self._check_process()
        with self._reading:
            try:
                return self._reader.execute(sql, arguments).fetchall()
            except sqlite3.Error as error:
                raise typed(error, self.path) from error

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All `read`s of this thread within the block see one moment; other readers wait, so keep it short."""
        self._check_process()
        with self._reading:
            if self._reader.in_transaction:  # within another one
                yield
                return
            try:
                self._reader.execute("BEGIN")
            except sqlite3.Error as error:
                raise typed(error, self.path) from error
            try:
                yield
            finally:
                self._reader.execute("ROLLBACK")

    # Objects

    def has(self, connection: sqlite3.Connection, digest: str) -> bool:
        """Whether an object is here, in the caller's transaction."""
        return (
            connection.execute("SELECT 1 FROM object WHERE digest = ? AND piece = 0", (digest,)).fetchone() is not None
        )

    def put(self, connection: sqlite3.Connection, content: bytes) -> str:
        """Keep an object, in the caller's transaction; its digest. The same content is kept once."""
        digest = digest_of(content)
        for piece in range(max(1, -(-len(content) // PIECE_BYTES))):
            data = content[piece * PIECE_BYTES : (piece + 1) * PIECE_BYTES]
            connection.execute("INSERT OR IGNORE INTO object VALUES (?, ?, ?)", (digest, piece, data))
        return digest

    def object(self, digest: str, what: str) -> bytes:
        """An object's content; `what` it is, for messages.

        Raises:
            StoreCorruptError: it is missing, or not what was written.
        """
        pieces = self.read("SELECT CAST(data AS BLOB) FROM object WHERE digest = ? ORDER BY piece", (digest,))
        content = b"".join(data or b"" for (data,) in pieces)
        if not pieces or digest_of(content) != digest:
            found = "is missing" if not pieces else "is not what was written: its checksum differs"
            raise StoreCorruptError(f"{what} in {self.path} {found}; glauber jobs check lists all that is damaged")
        return content

    def compact(self) -> None:
        """Give space that is not used any more back to the disk; needs as much again for a moment."""
        self._check_process()
        with self._lock:
            try:
                self._connection.execute("VACUUM")
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.Error as error:
                raise typed(error, self.path) from error

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        with self._lock:
            if os.getpid() == self._process:
                with self._reading:
                    self._reader.close()
                self._connection.close()
