"""What is simulated: lattices, a device's own graph, or a model from a file; and how its states look."""

from __future__ import annotations

import io
import math
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Literal

import glauber as gl
import numpy as np
from glauber.errors import FileFormatError, GlauberError, InvalidModelError, ModelNotSupportedError
from glauber.model import IsingModel
from glauber.topology import Square
from numpy.typing import NDArray

Kind = Literal["square lattice, periodic", "square lattice, open", "the device's own graph", "a model file"]
KINDS: tuple[Kind, ...] = (
    "square lattice, periodic",
    "square lattice, open",
    "the device's own graph",
    "a model file",
)
MAX_SIDE = 1024
MAX_SITES = MAX_SIDE**2
MAX_FILE_BYTES = 20_000_000
MAX_UNPACKED_BYTES = 200_000_000  # of an npz: a million spins on a square lattice have 40 MB
PIXELS = 512
DOWN, UP = np.array([24, 42, 82]), np.array([245, 196, 66])


def lattice(side: int, coupling: float, *, periodic: bool) -> IsingModel:
    """A square lattice of side x side spins with the same coupling on every edge; without a field.

    Raises:
        InvalidModelError: a side that is not from 3 to 1024.
    """
    if not 3 <= side <= MAX_SIDE:
        raise InvalidModelError(f"the side must lie between 3 and {MAX_SIDE}, not {side}")
    edges = Square(rows=side, cols=side, periodic=periodic).edges()
    return IsingModel(np.zeros(side * side), edges, np.full(len(edges), coupling))


def own_graph(device: gl.Device, coupling: float) -> IsingModel:
    """All sites of a device's graph with the same coupling on every edge.

    Raises:
        ModelNotSupportedError: the device has no graph of its own, such as a simulator of any graph.
    """
    topology = device.spec.topology
    if topology is None:
        raise ModelNotSupportedError(f"{device.address} has no published graph of its own; choose a lattice or a file")
    if topology.n_sites > MAX_SITES:
        raise ModelNotSupportedError(f"{device.address} has {topology.n_sites} sites; this page shows {MAX_SITES}")
    edges = topology.edges()
    return IsingModel(np.zeros(topology.n_sites), edges, np.full(len(edges), coupling))


def model_from_upload(name: str, content: bytes) -> IsingModel:
    """An Ising model from an uploaded file in any format that `glauber.read_model` knows by its suffix.

    Raises:
        FileFormatError: too large, malformed, or not of spins.
    """
    if len(content) > MAX_FILE_BYTES:
        raise FileFormatError(f"{name} has {len(content) / 1e6:.0f} MB; this page takes {MAX_FILE_BYTES / 1e6:.0f} MB")
    unpacked = _unpacked_bytes(content)
    if unpacked > MAX_UNPACKED_BYTES:
        raise FileFormatError(
            f"{name} unpacks to {unpacked / 1e6:.0f} MB; this page takes {MAX_UNPACKED_BYTES / 1e6:.0f} MB"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"upload{Path(name).suffix}"
        path.write_bytes(content)
        try:
            model = gl.read_model(path)
        except (GlauberError, OSError, ValueError) as error:
            raise FileFormatError(str(error).replace(str(path), name)) from error
    if not isinstance(model, IsingModel):
        raise FileFormatError(f"{name} holds a Potts model; this page shows spins")
    if not 1 <= model.n_sites <= MAX_SITES:
        raise FileFormatError(f"{name} has {model.n_sites} spins; this page shows 1 to {MAX_SITES}")
    return model


def _unpacked_bytes(content: bytes) -> int:
    """Of an archive, as it says itself and as no reader goes beyond; 0 of other files."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return 0


def width_of(n_sites: int) -> int:
    """Spins in a row of the picture: the side of a square lattice, about the root of others."""
    return math.isqrt(n_sites - 1) + 1 if n_sites > 1 else 1


def picture(spins: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """States (n_sites,) as an RGB image of about 512 pixels a side: row by row, in the order of site numbers.

    Large systems are averaged over blocks of spins; what is left of the last row is white.
    """
    width = width_of(len(spins))
    height = -(-len(spins) // width)
    filled = np.full(width * height, np.nan)
    filled[: len(spins)] = (spins + 1) / 2
    shares = filled.reshape(height, width)
    block = -(-width // PIXELS)
    if block > 1:
        rows, columns = -(-height // block), -(-width // block)
        padded = np.full((rows * block, columns * block), np.nan)
        padded[:height, :width] = shares
        cells = padded.reshape(rows, block, columns, block).swapaxes(1, 2).reshape(rows, columns, block * block)
        known = np.isfinite(cells)
        with np.errstate(invalid="ignore"):
            shares = np.where(known, cells, 0.0).sum(axis=2) / known.sum(axis=2)
    colours = DOWN + np.where(np.isfinite(shares), shares, 0.0)[:, :, None] * (UP - DOWN)
    colours[~np.isfinite(shares)] = 255
    scale = max(1, PIXELS // colours.shape[1])
    return np.asarray(np.round(colours).astype(np.uint8).repeat(scale, axis=0).repeat(scale, axis=1))
