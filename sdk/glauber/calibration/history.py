"""Calibrations on disk: one file for each record, an index in SQLite, and which record of a device is in force.

A device is known by its address without seed and token. Records are never changed or deleted by this module; a rollback
puts an older one in force and says so in the log.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from platformdirs import user_data_path

from glauber.calibration.record import CalibrationRecord
from glauber.errors import CalibrationError, FileFormatError

VARIABLE = "GLAUBER_CALIBRATIONS"
"""Environment variable that names the folder."""
WAIT_SECONDS = 10.0
SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    id TEXT PRIMARY KEY, address TEXT NOT NULL, device TEXT NOT NULL, created TEXT NOT NULL, file TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS log (
    number INTEGER PRIMARY KEY, time TEXT NOT NULL, address TEXT NOT NULL, action TEXT NOT NULL, id TEXT);
PRAGMA user_version = 1;
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of the history.

    Attributes:
        id: of the record.
        address: of the device.
        device: its name.
        created: when the calibration ended.
        in_force: whether it is the device's present one.
    """

    id: str
    address: str
    device: str
    created: str
    in_force: bool


class CalibrationHistory:
    """The calibrations of all devices of a user, or of a lab.

    Args:
        folder: where they lie; None for GLAUBER_CALIBRATIONS, else the user's data folder.

    Raises:
        CalibrationError: the folder cannot be made, or its index is damaged.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        chosen = folder if folder is not None else os.environ.get(VARIABLE)
        self.folder = Path(chosen) if chosen else user_data_path("glauber") / "calibrations"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CalibrationError(f"no folder for calibrations at {self.folder}: {error}") from error
        with self._index() as index:
            version = index.execute("PRAGMA user_version").fetchone()[0]
            if version > 1:
                raise CalibrationError(
                    f"{self.folder} was written by a newer glauber (version {version}); update this one"
                )
            if version == 0:  # else reading would write
                index.executescript(SCHEMA)

    @contextmanager
    def _index(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = sqlite3.connect(self.folder / "index.sqlite", timeout=WAIT_SECONDS)
            try:
                with connection:
                    yield connection
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise CalibrationError(f"the index of {self.folder} cannot be used: {error}") from error

    def add(self, record: CalibrationRecord, *, in_force: bool = True) -> Path:
        """Keep a record, and put it in force unless that is not wanted; returns its file.

        Raises:
            CalibrationError: it cannot be written; then nothing has changed.
        """
        path = self.folder / f"{record.id}.json"
        try:
            record.save(path)
        except OSError as error:
            raise CalibrationError(f"calibration {record.id} cannot be kept at {path}: {error}") from error
        with self._index() as index:
            index.execute(
                "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?)",
                (record.id, record.address, record.device, record.created, path.name),
            )
            self._note(index, record.address, "add", record.id)
            if in_force:
                self._note(index, record.address, "use", record.id)
        return path

    def _note(self, index: sqlite3.Connection, address: str, action: str, record_id: str | None) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        index.execute(
            "INSERT INTO log (time, address, action, id) VALUES (?, ?, ?, ?)", (now, address, action, record_id)
        )

    def _in_force(self, index: sqlite3.Connection, address: str) -> str | None:
        row = index.execute(
            "SELECT id FROM log WHERE address = ? AND action IN ('use', 'rollback') ORDER BY number DESC LIMIT 1",
            (address,),
        ).fetchone()
        return None if row is None else row[0]

    def entries(self, address: str | None = None) -> list[Entry]:
        """All records, or those of one device, the newest last."""
        with self._index() as index:
            rows = index.execute(
                "SELECT id, address, device, created FROM records WHERE ? IS NULL OR address = ? ORDER BY created,"
                " rowid",
                (address, address),
            ).fetchall()
            present = {row[1]: self._in_force(index, row[1]) for row in rows}
        return [Entry(row[0], row[1], row[2], row[3], in_force=present[row[1]] == row[0]) for row in rows]

    def get(self, record_id: str) -> CalibrationRecord:
        """A record by its id, or by the beginning of it if that is enough.

        Raises:
            CalibrationError: no such record, or several, or its file is gone or damaged.
        """
        with self._index() as index:
            rows = index.execute(
                "SELECT id, file FROM records WHERE substr(id, 1, ?) = ?", (len(record_id), record_id)
            ).fetchall()
        exact = [row for row in rows if row[0] == record_id]
        found = exact or rows
        if len(found) != 1 or not record_id:
            many = f"{len(found)} begin so" if found else "there is none of that id"
            raise CalibrationError(f"calibration {record_id!r}: {many}; `glauber history` lists them")
        path = self.folder / found[0][1]
        try:
            record = CalibrationRecord.load(path)
        except (OSError, FileFormatError) as error:
            raise CalibrationError(f"calibration {record_id} cannot be read: {error}") from error
        if record.id != found[0][0]:
            raise CalibrationError(
                f"{path} holds calibration {record.id}, not {found[0][0]}: somebody changed the folder"
            )
        return record

    def in_force(self, address: str) -> CalibrationRecord | None:
        """The present calibration of a device, or None."""
        with self._index() as index:
            record_id = self._in_force(index, address)
        return None if record_id is None else self.get(record_id)

    def rollback(self, address: str, record_id: str | None = None) -> CalibrationRecord:
        """Put an older calibration in force: the one of that id, else the last one made before the present one.

        Raises:
            CalibrationError: there is none.
        """
        with self._index() as index:
            present = self._in_force(index, address)
        if record_id is None:
            used = {name for _, action, name in self.log(address) if action in ("use", "rollback")}
            order = [entry.id for entry in self.entries(address) if entry.id in used]
            at = order.index(present) if present in order else len(order)
            if at == 0:
                raise CalibrationError(f"{address} has no calibration before {present or 'the present one'}")
            record_id = order[at - 1]
        record = self.get(record_id)
        if record.address != address:
            raise CalibrationError(f"calibration {record.id} is of {record.address}, not of {address}")
        with self._index() as index:
            self._note(index, address, "rollback", record.id)
        return record

    def log(self, address: str) -> list[tuple[str, str, str | None]]:
        """(time, action, id) of all that was done for a device, oldest first."""
        with self._index() as index:
            query = "SELECT time, action, id FROM log WHERE address = ? ORDER BY number"
            return [tuple(row) for row in index.execute(query, (address,))]


def plain_address(address: str) -> str:
    """An address as a device is known by: no seed, no token, and no calibration."""
    head, mark, query = address.partition("?")
    rest = [part for part in query.split("&") if part and not part.startswith(("seed=", "token="))]
    return head + (mark + "&".join(rest) if rest else "")


def find_calibration(name: str | Path, address: str) -> CalibrationRecord | None:
    """A record by the path of its file, by its id in the history, or with "latest" the one in force for an address.

    Raises:
        CalibrationError: there is none of that name. That none is in force is no error.
    """
    if name == "latest":
        return CalibrationHistory().in_force(plain_address(address))
    path = Path(name)
    if path.suffix == ".json" or path.exists():
        try:
            return CalibrationRecord.load(path)
        except OSError as error:
            raise CalibrationError(f"no calibration at {path}: {error.strerror}") from error
    return CalibrationHistory().get(str(name))
