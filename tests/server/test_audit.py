"""The audit log: a changed, removed or inserted row is named; a tail that was cut off is seen with a noted head."""

from __future__ import annotations

import json
import sqlite3

import pytest
from glauber.cli import app
from glauber.errors import StoreCorruptError
from glauber.server import audit
from glauber.server.labfile import LabFile
from lab_bench import write_config
from typer.testing import CliRunner


@pytest.fixture
def log(tmp_path):
    """A log of nine rows, and a way to forge it."""
    file = LabFile(tmp_path / "lab.sqlite")
    for k in range(9):
        audit.append(file, f"user {k}", "submit", f"job-{k}", device="king", priority=k)
    yield file
    file.close()


def forge(file, statement, *values):
    """Change the file as somebody with the right to write it could."""
    with sqlite3.connect(file.path, isolation_level=None) as other:
        other.execute("DROP TRIGGER audit_keeps_rows")
        other.execute("DROP TRIGGER audit_keeps_values")
        other.execute(statement, values)
    other.close()


def test_an_honest_log(log):
    found = audit.verify(log)
    assert found.entries == 9
    audit.append(log, "x", "cancel", "job-1")
    assert audit.verify(log, found.head).entries == 10
    assert [entry.number for entry in audit.entries(log)] == list(range(1, 11))
    assert next(audit.entries(log)).details == {"device": "king", "priority": 0}


@pytest.mark.parametrize(
    ("statement", "row"),
    [
        ("UPDATE audit SET who = 'somebody else' WHERE number = 4", 4),
        ("UPDATE audit SET time = time + 1 WHERE number = 1", 1),
        ("UPDATE audit SET details = '{}' WHERE number = 9", 9),
        ("UPDATE audit SET hash = replace(hash, 'a', 'b') WHERE number = 5", 5),
        ("DELETE FROM audit WHERE number = 3", 3),
        ("DELETE FROM audit WHERE number = 1", 1),
        ("UPDATE audit SET number = 20 WHERE number = 9", 9),
        ("INSERT INTO audit SELECT 10, time, who, action, subject, details, hash FROM audit WHERE number = 9", 10),
    ],
)
def test_the_first_broken_row_is_named(log, statement, row):
    forge(log, statement)
    with pytest.raises(StoreCorruptError, match=f"row {row} "):
        audit.verify(log)


def test_a_tail_that_is_cut_off_is_seen_only_with_a_noted_head(log):
    head = audit.verify(log).head
    forge(log, "DELETE FROM audit WHERE number > 6")
    assert audit.verify(log).entries == 6
    with pytest.raises(StoreCorruptError, match="cut off"):
        audit.verify(log, head)


def test_rows_cannot_be_changed_by_mistake(log):
    with sqlite3.connect(log.path) as other:
        for statement in ("UPDATE audit SET who = 'x'", "DELETE FROM audit"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                other.execute(statement)
    other.close()


def test_the_commands(tmp_path, log):
    config = ["--config", str(write_config(tmp_path))]
    run = CliRunner().invoke
    head = json.loads(run(app, ["audit", "verify", "--json", *config]).stdout)["head"]
    assert len(json.loads(run(app, ["audit", "list", "--json", *config]).stdout)) == 9
    assert run(app, ["audit", "verify", "--head", head, *config]).exit_code == 0
    forge(log, "UPDATE audit SET subject = 'job-8' WHERE number = 2")
    broken = run(app, ["audit", "verify", *config])
    assert broken.exit_code == 1
    assert "row 2 " in broken.stderr
