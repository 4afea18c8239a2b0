"""An append-only file of JSON lines in which every line's hash covers the line before it.

A line that is changed, removed from the middle, inserted or put elsewhere breaks the chain; `verify_audit` names it.
Two things a chain of hashes cannot show by itself: that its tail was cut off (every prefix is a valid chain), and that
somebody who may write the file made all of it anew. Both are seen with a head hash that was noted elsewhere, and the
second also with signatures by a key that this person does not have.

Each line is forced to the disk before `append` returns. A process or machine that dies meanwhile leaves at most one
line without its end, the last. Nothing is appended after such a line until `repair` has cut it off, which writes a line
that says so.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from glauber.errors import InvalidModelError, MissingExtraError, StoreCorruptError, StoreError

NO_ROW = "0" * 64
"""In place of the hash before the first row."""
MAX_LINE = 2**20
"""Bytes; far beyond it only a mistake lies, and so the last line is found in bounded memory."""
_OWN = ("number", "time", "previous", "hash", "signature")


def canonical(row: Mapping[str, Any]) -> str:
    """A row as JSON: sorted keys, no spaces, no NaN."""
    return json.dumps(row, sort_keys=True, separators=(",", ":"), allow_nan=False)


def chain_hash(previous: str, row: Mapping[str, Any]) -> str:
    """The hash of a row: sha256 of the hash before it and the row as canonical JSON."""
    return hashlib.sha256(previous.encode() + canonical(row).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class VerifiedAudit:
    """A file without a broken line.

    Attributes:
        lines: how many.
        head: hash of the last one; note it elsewhere.
        signed: whether every line had a signature, and the key that was given made all of them.
    """

    lines: int
    head: str
    signed: bool


class AuditFile:
    """Appends lines; any number of processes may, on one computer: each waits for the file's lock (flock).

    flock does not exclude another computer on every network file system: keep the file on a local disk.

    Args:
        path: the file, made with its first line, readable by its owner only.
        signing_key: 32 bytes of an Ed25519 private key with which every line's hash is signed (RFC 8032); None for no
            signatures. Needs the package cryptography.

    Raises:
        InvalidModelError: the key is not 32 bytes.
        MissingExtraError: there is a key, and cryptography is not installed.
    """

    def __init__(self, path: str | Path, signing_key: bytes | None = None) -> None:
        self.path = Path(path)
        self._key: Any = None
        if signing_key is not None:
            if len(signing_key) != 32:
                raise InvalidModelError(f"an Ed25519 private key has 32 bytes, not {len(signing_key)}")
            self._key = _ed25519("Signed audit lines").Ed25519PrivateKey.from_private_bytes(signing_key)

    def append(self, facts: Mapping[str, Any]) -> str:
        """Add a line, on the disk when this returns.

        Args:
            facts: what JSON can hold; the names number, time, previous, hash and signature are the file's own.

        Returns:
            The line's hash.

        Raises:
            InvalidModelError: facts that are not JSON, too long, or with a name of the file's own.
            StoreCorruptError: the last line is torn or was changed; nothing is written.
            StoreError: the file cannot be written; it is as it was before.
        """
        if taken := sorted(set(facts) & set(_OWN)):
            raise InvalidModelError(f"an audit file names {', '.join(taken)} itself; take other names")
        with _locked(self.path) as handle:
            last = _last_line(handle, self.path)
            number, previous = (0, NO_ROW) if last is None else (last["number"], last["hash"])
            return self._write(handle, number, previous, facts)

    def repair(self) -> int:
        """Cut off a last line without its end, and add a line that says how many bytes and which (by their hash).

        Returns:
            Bytes that were cut off; 0 for a file that needs no repair, which then gets no line.

        Raises:
            StoreCorruptError: what is left does not end with a line of a chain; see verify_audit.
            StoreError: as for append.
        """
        with _locked(self.path) as handle:
            tail = _tail(handle)
            torn = tail[tail.rfind(b"\n") + 1 :]
            if not torn:
                return 0
            if len(torn) > MAX_LINE:
                raise StoreCorruptError(f"{self.path} ends with more than {MAX_LINE} bytes without a line's end")
            os.ftruncate(handle, os.fstat(handle).st_size - len(torn))
            last = _last_line(handle, self.path)
            number, previous = (0, NO_ROW) if last is None else (last["number"], last["hash"])
            facts = {"kind": "repaired", "bytes": len(torn), "cut": hashlib.sha256(torn).hexdigest()}
            self._write(handle, number, previous, facts)
            return len(torn)

    def _write(self, handle: int, number: int, previous: str, facts: Mapping[str, Any]) -> str:
        row = {**facts, "number": number + 1, "time": time.time(), "previous": previous}
        try:
            digest = chain_hash(previous, row)
            line = {**row, "hash": digest}
            if self._key is not None:
                line["signature"] = self._key.sign(bytes.fromhex(digest)).hex()
            text = canonical(line).encode() + b"\n"
        except (TypeError, ValueError) as error:
            raise InvalidModelError(f"an audit line holds what JSON can: {error}") from error
        if len(text) > MAX_LINE:
            raise InvalidModelError(f"an audit line has at most {MAX_LINE} bytes, not {len(text)}; log a hash instead")
        size = os.fstat(handle).st_size
        try:
            written = os.write(handle, text)
            if written != len(text):
                raise OSError(f"{written} of {len(text)} bytes were written; is the disk full?")
            os.fsync(handle)
        except OSError as error:
            os.ftruncate(handle, size)
            raise StoreError(f"{self.path} cannot be written: {error}; free space, or log elsewhere") from error
        return digest


def verify_audit(path: str | Path, head: str | None = None, public_key: bytes | None = None) -> VerifiedAudit:
    """Recompute every hash.

    Args:
        path: an AuditFile's.
        head: a head hash that was noted before; a line must have it.
        public_key: 32 bytes; every line must be signed by its private key. Needs the package cryptography.

    Raises:
        InvalidModelError: the key is not 32 bytes.
        StoreCorruptError: naming the first line that is not what was written, a torn last one, or that lines are
            missing at the end.
        StoreError: the file cannot be read.
        MissingExtraError: there is a key, and cryptography is not installed.
    """
    key: Any = None
    if public_key is not None:
        keys = _ed25519("Signatures of audit lines")
        if len(public_key) != 32:
            raise InvalidModelError(f"an Ed25519 public key has 32 bytes, not {len(public_key)}")
        key = keys.Ed25519PublicKey.from_public_bytes(public_key)
    previous, count, seen = NO_ROW, 0, head in (None, NO_ROW)
    try:
        with Path(path).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # so that a line that is being written is not called torn
            while line := file.readline(MAX_LINE + 1):
                row = _checked(line, f"{path}: line {count + 1}")
                if row["number"] != count + 1 or row["previous"] != previous:
                    raise StoreCorruptError(
                        f"{path}: line {count + 1} does not follow the one before it: lines are missing here, were"
                        " inserted or put elsewhere"
                    )
                if key is not None and not _signed_by(key, row):
                    raise StoreCorruptError(f"{path}: line {count + 1} is not signed by the private key of this one")
                previous, count = str(row["hash"]), count + 1
                seen = seen or previous == head
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    if not seen:
        raise StoreCorruptError(
            f"{path}: none of the {count} lines has the hash {head}: lines were cut off at the end, or the file was"
            " written anew"
        )
    return VerifiedAudit(count, previous, key is not None and count > 0)


def _checked(line: bytes, where: str) -> dict[str, Any]:
    """A line whose own hash is right."""
    if not line.endswith(b"\n"):
        raise StoreCorruptError(
            f"{where} has no end: a process died while it wrote, or the file was cut; the lines before it are whole."
            " AuditFile.repair (glauber audit repair) cuts it off and notes that"
        )
    row: dict[str, Any] = {}
    try:
        row = json.loads(line)
        own = {name: value for name, value in row.items() if name not in ("hash", "signature")}
        # the bytes are compared too: JSON has several texts for one row, and names may occur twice
        right = chain_hash(own["previous"], own) == row["hash"] and canonical(row).encode() + b"\n" == line
        right = right and type(row["number"]) is int
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        right = False
    if not right:
        raise StoreCorruptError(f"{where} is not what was written")
    return dict(row)


def _tail(handle: int) -> bytes:
    """The end of the file, with the whole of the last line, whether it has its end or not."""
    size, tail = os.fstat(handle).st_size, b""
    for reach in (2**14, 2 * MAX_LINE):
        start = max(0, size - reach)
        tail = os.pread(handle, size - start, start)
        if start == 0 or b"\n" in tail[:-1]:
            break
    return tail


def _last_line(handle: int, path: Path) -> dict[str, Any] | None:
    tail = _tail(handle)
    if not tail:
        return None
    end = len(tail) - 1 if tail.endswith(b"\n") else len(tail)
    return _checked(tail[tail.rfind(b"\n", 0, end) + 1 :], f"{path}: the last line")


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The file, open for appending and locked; the kernel lets go of the lock if the process dies.

    It is opened anew each time, so the lock excludes other threads as well, and nothing is shared after a fork.
    """
    try:
        is_new = not path.exists()
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"the audit file {path} cannot be opened: {error}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
        if is_new:  # its name has to be on the disk as well
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        os.close(handle)


def _signed_by(key: Any, row: Mapping[str, Any]) -> bool:
    refused = import_module("cryptography.exceptions").InvalidSignature
    try:
        key.verify(bytes.fromhex(row["signature"]), bytes.fromhex(row["hash"]))
    except (refused, KeyError, TypeError, ValueError):
        return False
    return True


def _ed25519(what: str) -> Any:
    try:
        return import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
    except ImportError as error:
        raise MissingExtraError(f"{what} need the package cryptography; try: pip install cryptography") from error
