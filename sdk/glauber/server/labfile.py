"""lab.sqlite, the lab's own file beside the job store, and its clock.

The clock never goes back: it is the system's, or the newest time that was written into the file if that is later. So
a system clock that is set back, by hand or by a battery, does not make an expired token valid again. A clock that was
once far ahead leaves tokens expired; make new ones, whose days count from the same clock.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glauber.errors import StoreError

VERSION = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS clock (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), newest REAL NOT NULL);
INSERT OR IGNORE INTO clock VALUES (1, 0);
CREATE TABLE IF NOT EXISTS tokens (
    id TEXT PRIMARY KEY, digest BLOB NOT NULL, owner TEXT NOT NULL, scope TEXT NOT NULL,
    created REAL NOT NULL, expires REAL NOT NULL, revoked REAL
) STRICT;
CREATE TABLE IF NOT EXISTS reservations (
    id INTEGER PRIMARY KEY AUTOINCREMENT, device TEXT NOT NULL, owner TEXT NOT NULL,
    starts REAL NOT NULL, ends REAL NOT NULL, made_by TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS audit (
    number INTEGER PRIMARY KEY, time REAL NOT NULL, who TEXT NOT NULL, action TEXT NOT NULL, subject TEXT NOT NULL,
    details TEXT NOT NULL, hash TEXT NOT NULL
) STRICT;
CREATE TRIGGER IF NOT EXISTS audit_keeps_rows BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS audit_keeps_values BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
"""


class LabFile:
    """The file, open; safe from any thread, and several processes may have it open.

    Args:
        path: of the file; it is made, readable by its user only, where it is missing.

    Raises:
        StoreError: it cannot be opened, or is of a newer version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock, self._read_lock = threading.RLock(), threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
            found = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
            if found not in (0, VERSION):
                self._connection.close()
                raise StoreError(f"{path} is version {found}, this glauber reads version {VERSION}; upgrade glauber")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")  # a revocation must survive a power cut
            self._connection.executescript(_TABLES)
            self._connection.execute(f"PRAGMA user_version = {VERSION}")
            # reads wait for no writer: tokens are checked in the server's event loop
            self._reader = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"the lab's file {path} cannot be opened: {error}") from error

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self._read_lock, self._errors():
            return self._reader.execute(query, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing; no other process writes meanwhile."""
        with self._lock, self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"the lab's file {self.path} cannot be used: {error}") from error

    def now(self) -> float:
        """Unix seconds, never less than the newest that was recorded."""
        return max(time.time(), float(self.rows("SELECT newest FROM clock")[0][0]))

    def record_time(self) -> float:
        """Write down what time it is, so that the clock cannot go back behind it; returns it."""
        with self.transaction() as connection:
            connection.execute("UPDATE clock SET newest = max(newest, ?)", (time.time(),))
            return float(connection.execute("SELECT newest FROM clock").fetchone()[0])

    def close(self) -> None:
        """Close the file; may be called twice."""
        with self._lock, self._read_lock:
            self._connection.close()
            self._reader.close()
