"""Reading and writing models, and the archive that every file of the SDK is: npz without pickle, with a typed header.

    .npz            IsingModel or PottsModel, exact
    .json           the same as text, exact (floats are written with all their digits)
    Gset            "n m", then "i j w" from 1: MaxCut, read as the Ising model whose energy is minus the cut
    .qubo           "p qubo 0 n nDiagonals nElements", then "i j value" from 0; comment lines begin with c
    .coo            "# vartype=SPIN" or BINARY, then "i j value" from 0, as dimod writes it

Files are written whole or not at all: to a neighbour first, then renamed.
"""

from __future__ import annotations

import io
import json
import math
import os
import secrets
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glauber.checks import MAX_SITES
from glauber.errors import FileFormatError, InvalidModelError
from glauber.model import IsingModel, Model, PottsModel

MODEL_FORMAT = "glauber.model"
MODEL_VERSION = 1
_HEADER = "header"


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: the folder is missing, not writable or full; nothing is left behind.
    """
    target = Path(os.path.realpath(path)) if Path(path).is_symlink() else Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"cannot write {target}: it is a folder")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {target}: the folder {target.parent} does not exist")
    temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}"
    try:
        # the system takes the umask off itself; asking for it would change it for the other threads meanwhile
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:
        raise type(error)(error.errno, f"cannot write into {target.parent}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise type(error)(error.errno, f"cannot write {target}: {error.strerror}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_archive(
    path: str | Path, kind: str, version: int, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write arrays and a JSON header as one compressed npz."""
    write_bytes(path, pack_archive(kind, version, header, arrays))


def pack_archive(
    kind: str, version: int, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], *, compress: bool = True
) -> bytes:
    """Arrays and a JSON header as the bytes of one npz; the same content gives the same bytes."""
    text = json.dumps({"format": kind, "version": version, **header})
    buffer = io.BytesIO()
    packed = {_HEADER: np.frombuffer(text.encode(), dtype=np.uint8), **arrays}
    (np.savez_compressed if compress else np.savez)(buffer, allow_pickle=False, **packed)
    return buffer.getvalue()


def read_archive(path: str | Path, kind: str, version: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The header and arrays of an archive.

    Raises:
        FileFormatError: truncated, not an archive, of another kind or of another version.
    """
    return unpack_archive(Path(path).read_bytes(), kind, version, path)


def unpack_archive(
    content: bytes, kind: str, version: int, name: str | Path, *, limit_bytes: int | None = None
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The header and arrays of an archive's bytes.

    Args:
        content: what `pack_archive` made.
        kind: that is expected.
        version: that is expected.
        name: what to call it in messages.
        limit_bytes: refuse, before unpacking, what would unpack to more than this.

    Raises:
        FileFormatError: truncated, not an archive, of another kind or of another version, or too large.
    """
    try:
        if limit_bytes is not None:
            _check_size(content, limit_bytes, name)
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        header = json.loads(arrays.pop(_HEADER).tobytes())
    except FileFormatError:
        raise
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, AttributeError, NotImplementedError,
            TypeError, OSError, MemoryError, RecursionError, struct.error, RuntimeError) as error:  # fmt: skip
        raise FileFormatError(f"{name} is not a complete {kind} archive ({error}); write it again") from error
    check_header(header, kind, version, name)
    return header, arrays


MAX_MEMBERS = 64
"""Arrays in an archive of ours; there are about a dozen."""


def _check_size(content: bytes, limit_bytes: int, name: str | Path) -> None:
    """Refuse a decompression bomb by what the members really unpack to, and what their headers claim.

    The directory of a zip file can lie, so each member is unpacked in pieces and counted, and nothing is kept.
    """
    total = 0
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if len(archive.infolist()) > MAX_MEMBERS:
            raise FileFormatError(f"{name} has {len(archive.infolist())} members; at most {MAX_MEMBERS} are read")
        for member in archive.infolist():
            with archive.open(member) as file:
                promised = _promised_bytes(file)
                if promised + total > limit_bytes:
                    raise FileFormatError(f"{name} unpacks to more than the {limit_bytes} bytes that are allowed")
                while piece := file.read(1 << 20):
                    total += len(piece)
                    if total > limit_bytes:
                        raise FileFormatError(f"{name} unpacks to more than the {limit_bytes} bytes that are allowed")


def _promised_bytes(file: IO[bytes]) -> int:
    """What the header of an npy member says that its array takes."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"npy version {version} is not written by us")
    return math.prod(shape) * dtype.itemsize


def check_header(header: Any, kind: str, version: int, path: str | Path) -> None:
    """Refuse what is of another kind or version.

    Raises:
        FileFormatError: naming what was found and what is understood.
    """
    found = header.get("format") if isinstance(header, dict) else None
    if found != kind:
        raise FileFormatError(f"{path} holds {found or 'no header'}, not {kind}")
    if header.get("version") != version:
        raise FileFormatError(
            f"{path} is version {header.get('version')} of {kind}, this glauber reads version {version};"
            " upgrade glauber"
        )


def model_to_arrays(model: Model) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """A model as a JSON-ready header and arrays."""
    arrays: dict[str, NDArray[Any]] = {"fields": model.fields, "edges": model.edges, "couplings": model.couplings}
    if isinstance(model, PottsModel):
        if model.allowed is not None:
            arrays["allowed"] = model.allowed
        return {"model": "potts", "offset": model.offset}, arrays
    labels = None if model.labels is None else list(model.labels)
    if labels is not None and not all(isinstance(label, str | int) for label in labels):
        raise InvalidModelError("only labels that are strings or integers can be written; rename the sites")
    return {"model": "ising", "offset": model.offset, "labels": labels}, arrays


def model_from_arrays(header: Mapping[str, Any], arrays: Mapping[str, Any], path: str | Path) -> Model:
    """The inverse of model_to_arrays; checks as every constructor does."""
    try:
        edges = np.asarray(arrays["edges"])
        if header["model"] == "potts":
            allowed = np.asarray(arrays["allowed"]) if "allowed" in arrays else None
            return PottsModel(arrays["fields"], edges, arrays["couplings"], allowed, header["offset"])
        if header["model"] == "ising":
            labels = None if header["labels"] is None else tuple(header["labels"])
            return IsingModel(arrays["fields"], edges, arrays["couplings"], header["offset"], labels)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise FileFormatError(f"{path} does not hold a valid model: {error}") from error
    raise FileFormatError(f"{path} holds a model of kind {header['model']!r}; ising and potts are understood")


def write_model(model: Model, path: str | Path) -> None:
    """Write a model; the suffix chooses the form: .npz or .json.

    Raises:
        FileFormatError: another suffix.
        OSError: the path cannot be written.
    """
    header, arrays = model_to_arrays(model)
    suffix = Path(path).suffix
    if suffix == ".npz":
        write_archive(path, MODEL_FORMAT, MODEL_VERSION, header, arrays)
    elif suffix == ".json":
        lists = {name: array.tolist() for name, array in arrays.items()}
        text = json.dumps({"format": MODEL_FORMAT, "version": MODEL_VERSION, **header, "arrays": lists})
        write_bytes(path, text.encode())
    else:
        raise FileFormatError(f"models are written as .npz or .json, not {suffix or 'without a suffix'}: {path}")


def read_model(path: str | Path) -> Model:
    """Read a model in any of this module's forms; a Gset file is known by its first line.

    Raises:
        FileFormatError: malformed, with the line's number where there are lines.
        OSError: the file cannot be read.
    """
    suffix = Path(path).suffix
    if suffix == ".npz":
        return model_from_arrays(*read_archive(path, MODEL_FORMAT, MODEL_VERSION), path)
    text = _text(path)
    if suffix == ".json":
        try:
            header = json.loads(text)
        except json.JSONDecodeError as error:
            raise FileFormatError(f"{path}, line {error.lineno}: {error.msg}") from error
        except (ValueError, RecursionError) as error:
            raise FileFormatError(f"{path} is not a model: {error}") from error
        check_header(header, MODEL_FORMAT, MODEL_VERSION, path)
        return model_from_arrays(header, header.get("arrays") or {}, path)
    if suffix == ".qubo":
        return _parse_qubo(text, path)
    if suffix == ".coo":
        return _parse_coo(text, path)
    return _maxcut(_parse_gset(text, path), path)


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path} is not text; models are .npz, .json, .qubo, .coo or Gset files") from error


def _bad_line(path: str | Path, number: int, line: str, expected: str) -> FileFormatError:
    return FileFormatError(f"{path}, line {number}: expected {expected}, found {line.strip()!r}")


def _rows(text: str, comment: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith(comment):
            yield number, line


def _entry(path: str | Path, number: int, line: str, first: int, last: int) -> tuple[int, int, float]:
    """An "i j value" line with indices in first .. last."""
    expected = f'"i j value" with i and j from {first} to {last}'
    try:
        i, j, value = line.split()
        entry = int(i), int(j), float(value)
    except ValueError:
        raise _bad_line(path, number, line, expected) from None
    if not (first <= entry[0] <= last and first <= entry[1] <= last and np.isfinite(entry[2])):
        raise _bad_line(path, number, line, expected)
    return entry


def _ising(
    path: str | Path, n: int, fields: NDArray[np.float64], pairs: ArrayLike, J: ArrayLike, offset: float
) -> IsingModel:
    try:
        return IsingModel(fields, np.array(pairs, dtype=np.int32).reshape(-1, 2), np.array(J), offset)
    except InvalidModelError as error:
        raise FileFormatError(f"{path}: {error}") from error


@dataclass(frozen=True, slots=True)
class Graph:
    """A weighted graph as a Gset file has it.

    Attributes:
        n_nodes: nodes, numbered from 0 here and from 1 in the file.
        edges: shape (n_edges, 2).
        weights: shape (n_edges,).
    """

    n_nodes: int
    edges: NDArray[np.int32]
    weights: NDArray[np.float64]

    def cut(self, spins: NDArray[np.integer[Any]]) -> float:
        """Weight of the edges whose ends differ, counted edge by edge; spins of shape (n_nodes,)."""
        return float(self.weights[spins[self.edges[:, 0]] != spins[self.edges[:, 1]]].sum())


def read_gset(path: str | Path) -> Graph:
    """Read a Gset file: "n m", then m lines "i j w" from 1.

    Raises:
        FileFormatError: malformed, with the line's number.
    """
    return _parse_gset(_text(path), path)


def is_gset(path: str | Path) -> bool:
    """Whether `read_model` would read this path as a Gset file: by its suffix, which is none of the others."""
    return Path(path).suffix not in (".npz", ".json", ".qubo", ".coo")


def _parse_gset(text: str, path: str | Path) -> Graph:
    rows = _rows(text, "#")
    number, line = next(rows, (1, ""))
    try:
        n, m = (int(word) for word in line.split())
    except ValueError:
        raise _bad_line(path, number, line, 'a Gset header "n_nodes n_edges"') from None
    if not 1 <= n <= MAX_SITES or m < 0:
        raise _bad_line(path, number, line, "at least one node")
    pairs, weights = [], []
    for number, line in rows:
        i, j, weight = _entry(path, number, line, 1, n)
        if i == j:
            raise _bad_line(path, number, line, "an edge between two different nodes")
        pairs.append((i - 1, j - 1))
        weights.append(weight)
    if len(pairs) != m:
        raise FileFormatError(f"{path}: the header promises {m} edges, the file has {len(pairs)}; it may be truncated")
    return Graph(n, np.array(pairs, dtype=np.int32).reshape(-1, 2), np.array(weights))


def _maxcut(graph: Graph, path: str | Path) -> IsingModel:
    """The cut is sum w (1 - s_i s_j) / 2, so J = -w / 2 and offset = -sum w / 2 make energy = -cut."""
    offset = -float(graph.weights.sum()) / 2
    return _ising(path, graph.n_nodes, np.zeros(graph.n_nodes), graph.edges, -graph.weights / 2, offset)


def _parse_qubo(text: str, path: str | Path) -> IsingModel:
    rows = _rows(text, "c")
    number, line = next(rows, (1, ""))
    words = line.split()
    try:
        if words[:2] != ["p", "qubo"] or len(words) != 6:
            raise ValueError
        n, n_entries = int(words[3]), int(words[4]) + int(words[5])
    except ValueError:
        raise _bad_line(path, number, line, 'a header "p qubo 0 n nDiagonals nElements"') from None
    if not 1 <= n <= MAX_SITES:
        raise _bad_line(path, number, line, f"1 to {MAX_SITES} variables")
    qubo: dict[tuple[int, int], float] = {(i, i): 0.0 for i in range(n)}
    count = 0
    for number, line in rows:
        i, j, value = _entry(path, number, line, 0, n - 1)
        qubo[i, j] = qubo.get((i, j), 0.0) + value
        count += 1
    if count != n_entries:
        raise FileFormatError(f"{path}: the header promises {n_entries} entries, the file has {count}")
    return IsingModel.from_qubo(qubo)


def _parse_coo(text: str, path: str | Path) -> IsingModel:
    """Dimod's energies have plus signs: h = -linear, J = -quadratic."""
    heads = [line for line in text.splitlines() if line.startswith("#") and "vartype=" in line]
    words = heads[0].split("vartype=")[1].split() if heads else ["SPIN"]
    vartype = words[0].rstrip(",") if words else "(nothing)"
    if vartype not in ("SPIN", "BINARY"):
        raise FileFormatError(f"{path}: vartype={vartype} is not understood; SPIN and BINARY are")
    entries = [_entry(path, number, line, 0, MAX_SITES - 1) for number, line in _rows(text, "#")]
    if not entries:
        raise FileFormatError(f"{path} has no entries")
    n = max(max(i, j) for i, j, _ in entries) + 1
    totals: dict[tuple[int, int], float] = {}
    for i, j, value in entries:
        pair = (min(i, j), max(i, j))
        totals[pair] = totals.get(pair, 0.0) + value
    if vartype == "BINARY":
        return IsingModel.from_qubo({**{(i, i): 0.0 for i in range(n)}, **totals})
    fields = np.zeros(n)
    for (i, j), value in totals.items():
        if i == j:
            fields[i] -= value
    pairs = [pair for pair in totals if pair[0] != pair[1]]
    return _ising(path, n, fields, pairs, [-totals[pair] for pair in pairs], 0.0)
