"""Audit files: the first broken line is named, torn ones stop the file until repaired, and processes take turns."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys

import pytest
from glauber.audit_file import MAX_LINE, NO_ROW, AuditFile, chain_hash, verify_audit
from glauber.cli import app
from glauber.errors import InvalidModelError, MissingExtraError, StoreCorruptError, StoreError
from typer.testing import CliRunner


@pytest.fixture
def file(tmp_path):
    """Of nine lines."""
    made = AuditFile(tmp_path / "audit.jsonl")
    for k in range(9):
        made.append({"kind": "call", "k": k})
    return made


def test_an_honest_file(file):
    found = verify_audit(file.path)
    assert (found.lines, found.signed) == (9, False)
    head = file.append({"kind": "call", "k": 9})
    assert verify_audit(file.path, found.head).head == head
    rows = [json.loads(line) for line in file.path.read_text().splitlines()]
    assert [row["number"] for row in rows] == list(range(1, 11))
    assert rows[0]["previous"] == NO_ROW
    own = {name: value for name, value in rows[1].items() if name != "hash"}
    assert rows[1]["hash"] == chain_hash(rows[0]["hash"], own)
    # spelt out, so that the format cannot change by itself
    text = json.dumps(own, sort_keys=True, separators=(",", ":"))
    assert rows[1]["hash"] == hashlib.sha256((rows[0]["hash"] + text).encode()).hexdigest()
    assert file.path.stat().st_mode & 0o777 == 0o600


def edited(line, **values):
    return json.dumps({**json.loads(line), **values}, sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize(
    ("forge", "broken"),
    [
        (lambda x: [*x[:3], edited(x[3], k=7), *x[4:]], 4),
        (lambda x: [edited(x[0], time=1.0), *x[1:]], 1),
        (lambda x: [*x[:8], edited(x[8], hash="0" * 64)], 9),
        (lambda x: [*x[:2], *x[3:]], 3),
        (lambda x: x[1:], 1),
        (lambda x: [*x[:4], x[5], x[4], *x[6:]], 5),
        (lambda x: [*x, x[8]], 10),
        (lambda x: [*x[:6], x[6].replace(",", ", ", 1), *x[7:]], 7),
        (lambda x: [*x[:6], x[6].replace("{", '{"k":5,', 1), *x[7:]], 7),
        (lambda x: [*x[:5], "", *x[5:]], 6),
        (lambda x: [*x[:5], "[" * 5000, *x[5:]], 6),
        (lambda x: [*x[:5], "[1]", *x[5:]], 6),
    ],
)
def test_the_first_broken_line_is_named(file, forge, broken):
    file.path.write_text("".join(f"{line}\n" for line in forge(file.path.read_text().splitlines())))
    with pytest.raises(StoreCorruptError, match=f"line {broken} "):
        verify_audit(file.path)


def test_a_tail_that_was_cut_off_is_seen_with_a_noted_head(file):
    head = verify_audit(file.path).head
    lines = file.path.read_text().splitlines(keepends=True)
    file.path.write_text("".join(lines[:-1]))
    assert verify_audit(file.path).lines == 8
    with pytest.raises(StoreCorruptError, match="cut off at the end"):
        verify_audit(file.path, head)


def test_every_torn_tail_is_named_and_only_a_repair_lets_the_file_go_on(file):
    whole = file.path.read_bytes()
    before_last = whole.rfind(b"\n", 0, -1) + 1
    for end in range(before_last + 1, len(whole)):
        file.path.write_bytes(whole[:end])
        with pytest.raises(StoreCorruptError, match="line 9 has no end"):
            verify_audit(file.path)
    with pytest.raises(StoreCorruptError, match="no end"):
        file.append({"kind": "call"})
    assert file.path.read_bytes() == whole[:end]
    torn = whole[before_last:end]
    assert file.repair() == len(torn)
    assert verify_audit(file.path).lines == 9
    note = json.loads(file.path.read_text().splitlines()[-1])
    assert (note["kind"], note["bytes"], note["cut"]) == ("repaired", len(torn), hashlib.sha256(torn).hexdigest())
    assert file.repair() == 0
    file.append({"kind": "call"})
    assert verify_audit(file.path).lines == 10


def test_long_lines_are_found_again(tmp_path):
    file = AuditFile(tmp_path / "a")
    for length in (MAX_LINE - 300, 10, 2**14, 2**15, MAX_LINE - 300, MAX_LINE - 300):
        file.append({"x": "y" * length})
    assert verify_audit(file.path).lines == 6
    whole = file.path.read_bytes()
    file.path.write_bytes(whole[:-1])
    cut = file.repair()
    assert MAX_LINE - 300 < cut < MAX_LINE
    assert verify_audit(file.path).lines == 6
    file.path.write_bytes(whole + b"x" * (MAX_LINE + 1))
    with pytest.raises(StoreCorruptError, match="without a line's end"):
        file.repair()


def test_a_file_whose_only_line_is_torn(tmp_path):
    file = AuditFile(tmp_path / "a")
    file.path.write_bytes(b"\0" * 700)  # what some file systems leave after a power cut
    with pytest.raises(StoreCorruptError, match="line 1 has no end"):
        verify_audit(file.path)
    assert file.repair() == 700
    assert verify_audit(file.path).lines == 1


def test_nothing_is_appended_after_a_changed_line(file):
    forged = file.path.read_text().replace('"k":8', '"k":9')
    file.path.write_text(forged)
    with pytest.raises(StoreCorruptError, match="the last line is not what was written"):
        file.append({"kind": "call"})
    assert file.path.read_text() == forged


def test_bad_facts_and_paths_are_refused(file, tmp_path):
    before = file.path.read_bytes()
    for facts, words in (
        ({"number": 3}, "names number itself"),
        ({"x": float("nan")}, "what JSON can"),
        ({"x": b""}, "what JSON can"),
        ({"x": "y" * MAX_LINE}, "log a hash instead"),
    ):
        with pytest.raises(InvalidModelError, match=words):
            file.append(facts)
    assert file.path.read_bytes() == before
    with pytest.raises(StoreError, match="cannot be opened"):
        AuditFile(tmp_path / "no" / "folder").append({})
    with pytest.raises(StoreError, match="cannot be read"):
        verify_audit(tmp_path / "none")
    with pytest.raises(InvalidModelError, match="32 bytes"):
        AuditFile(tmp_path / "x", signing_key=b"short")


def test_a_full_disk_leaves_the_file_as_it_was(file):
    before = file.path.read_bytes()
    room = len(before) + 10
    script = (
        "import resource, signal, sys\n"
        "from glauber.audit_file import AuditFile\n"
        "from glauber.errors import StoreError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))\n"
        "try:\n    AuditFile(sys.argv[1]).append({'kind': 'call'})\n"
        "except StoreError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(file.path)], capture_output=True, text=True, check=True)
    assert "10 of" in done.stdout
    assert file.path.read_bytes() == before


WRITER = """
import sys
from glauber.audit_file import AuditFile
file = AuditFile(sys.argv[1])
print("ready", flush=True)
for k in range(int(sys.argv[2])):
    file.append({"kind": "call", "who": sys.argv[3], "k": k})
"""


def writer(path, count, who):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(count), who], stdout=subprocess.PIPE, text=True
    )


def test_processes_take_turns(tmp_path):
    path = tmp_path / "audit.jsonl"
    both = [writer(path, 100, who) for who in "ab"]
    assert [one.wait(60) for one in both] == [0, 0]
    for one in both:
        one.stdout.close()
    assert verify_audit(path).lines == 200
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for who in "ab":
        assert [row["k"] for row in rows if row["who"] == who] == list(range(100))


def test_a_killed_writer_leaves_a_file_that_verifies_or_can_be_repaired(tmp_path):
    path = tmp_path / "audit.jsonl"
    for _ in range(3):
        one = writer(path, 10**6, "a")
        one.stdout.readline()
        size = path.stat().st_size if path.exists() else 0
        while not (path.exists() and path.stat().st_size > size + 2000):
            pass
        os.kill(one.pid, signal.SIGKILL)
        one.wait(60)
        one.stdout.close()
        AuditFile(path).repair()
        lines = verify_audit(path).lines
        AuditFile(path).append({"kind": "call"})  # the dead process's lock is gone
        assert verify_audit(path).lines == lines + 1


def test_the_commands(file):
    run = CliRunner().invoke
    found = run(app, ["audit", "verify", "--file", str(file.path)])
    assert found.exit_code == 0
    assert found.stdout.startswith("9 entries, none changed; head ")
    with file.path.open("ab") as torn:
        torn.write(b'{"k":')
    found = run(app, ["audit", "verify", "--json", "--file", str(file.path)])
    assert found.exit_code == 1
    assert "line 10 has no end" in found.output
    assert "5 bytes cut off" in run(app, ["audit", "repair", str(file.path)]).stdout
    assert json.loads(run(app, ["audit", "repair", "--json", str(file.path)]).stdout) == {"cut": 0}
    assert run(app, ["audit", "repair", str(file.path) + "x"]).exit_code == 1
    assert run(app, ["audit", "verify", "--file", str(file.path)]).stdout.startswith("10 entries")


def test_signatures(tmp_path):
    keys = pytest.importorskip(
        "cryptography.hazmat.primitives.asymmetric.ed25519",
        reason="signatures need the package cryptography: pip install cryptography",
    )
    private = bytes(range(32))

    def public_of(key):
        return keys.Ed25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()

    public = public_of(private)
    file = AuditFile(tmp_path / "audit.jsonl", private)
    for k in range(3):
        file.append({"k": k})
    assert verify_audit(file.path, public_key=public).signed
    assert not verify_audit(file.path).signed
    with pytest.raises(StoreCorruptError, match="line 1 is not signed"):
        verify_audit(file.path, public_key=public_of(b"x" * 32))
    with pytest.raises(InvalidModelError, match="public key"):
        verify_audit(file.path, public_key=b"short")
    AuditFile(file.path).append({"k": 3})  # by somebody without the key: a valid chain, and not signed
    assert verify_audit(file.path).lines == 4
    with pytest.raises(StoreCorruptError, match="line 4 is not signed"):
        verify_audit(file.path, public_key=public)


def test_without_cryptography_a_key_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    with pytest.raises(MissingExtraError, match="pip install cryptography"):
        AuditFile(tmp_path / "a", bytes(32))
    with pytest.raises(MissingExtraError, match="pip install cryptography"):
        verify_audit(tmp_path / "a", public_key=bytes(32))
