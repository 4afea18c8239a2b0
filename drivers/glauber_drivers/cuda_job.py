"""A program and a run as the kernels of csrc/cuda take them: csrc/cuda/job.h, member by member.

Host arrays only: the driver brings them into a GPU's memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from glauber.compile import AnyProgram, PottsProgram, Program, Run, unpack_spins
from glauber.errors import ModelNotSupportedError
from numpy.typing import NDArray

NUMBERS = (
    "seed",
    "stream",
    "layout",
    "n_sites",
    "n_states",
    "n_chains",
    "first_chain",
    "offset",
    "row_words",
    "n_colours",
    "n_b",
    "sum",
    "level_step",
    "passes",
    "groups",
    "n_edges",
    "n_samples",
)
ARRAYS = (
    "b",
    "clock",
    "colour_start",
    "row_start",
    "neighbour",
    "weight",
    "table_start",
    "table",
    "base",
    "field",
    "own_field",
    "open",
    "up",
    "allowed",
    "potts_clamp",
    "site",
    "position",
    "edge",
    "state",
    "bytes",
    "matrix",
    "samples",
    "site_sum",
    "edge_sum",
)
MEMBERS = (*NUMBERS, *ARRAYS, "sample_bytes")
JOB = np.dtype([(name, "<u8") for name in MEMBERS])
"""glb_gpu_job: every member has eight bytes."""

MOST_LEVELS = 32
MOST_TABLE = 1 << 16
"""Thresholds are looked up where there are at most so many of them, and fewer than decisions in a sweep."""
KERNELS = ("bits", "fields", "dense", "sites", "potts")
MOST_ENTRIES = 2**31

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Form:
    """How a run is computed.

    Attributes:
        kernel: "bits3" .. "bits5", "fields1", "fields2", "fields4", "dense", "sites" or "potts".
        sum: largest |field| + sum |weight| of a site, in steps; 0 for Potts.
        level_step: bit-sliced: steps from one level to the next.
        passes: dense: bytes of a weight.
        tabulated: thresholds are looked up.
    """

    kernel: str
    sum: int
    level_step: int = 1
    passes: int = 1
    tabulated: bool = False


def choose_form(program: AnyProgram, run: Run) -> Form:
    """The kernel for a run; run.kernel, one of KERNELS, forces it.

    Raises:
        ModelNotSupportedError: what is forced does not fit; there are 2^31 row entries or more.
    """
    if run.kernel is not None and run.kernel not in KERNELS:
        raise ModelNotSupportedError(f"no kernel {run.kernel!r} on a GPU; there are {', '.join(KERNELS)}")
    if len(program.order.neighbour) >= MOST_ENTRIES:
        raise ModelNotSupportedError(f"{program.n_edges} couplings are too many for a GPU's kernels; the limit is 2^30")
    fitting: list[Form] = []
    if isinstance(program, PottsProgram):
        fitting = [Form("potts", 0)]
    elif run.layout == 1:
        fitting = [_tabulated(program, run, Form("sites", _sum(program, run)))]
    else:
        fitting = _replica_forms(program, run)
    for form in fitting:
        if run.kernel is None or form.kernel.startswith(run.kernel):
            return form
    possible = ", ".join(form.kernel.rstrip("0123456789") for form in fitting)
    raise ModelNotSupportedError(f"the kernel {run.kernel!r} does not fit this run; there are {possible}")


def _replica_forms(program: Program, run: Run) -> list[Form]:
    """Fastest first."""
    total = _sum(program, run)
    forms = []
    figures = _figures(program)
    if run.fields is None:
        levels = 2 * total // figures.step + 1
        if levels <= MOST_LEVELS:
            forms.append(Form(f"bits{max(3, (levels - 1).bit_length())}", total, level_step=figures.step))
    if figures.largest_weight < 2**15:
        passes = 1 if figures.largest_weight < 2**7 else 2
        dense = Form("dense", total, passes=passes)
        if run.kernel == "dense" or 0 < passes * program.n_sites**2 <= 4 * len(program.weight):
            forms.append(dense)
    forms.append(_tabulated(program, run, Form(f"fields{_width(total)}", total)))
    return forms


def _width(total: int) -> int:
    return 1 if 2 * total < 2**8 else 2 if 2 * total < 2**16 else 4


def _tabulated(program: Program, run: Run, form: Form) -> Form:
    entries = 2 * form.sum + 1
    return Form(form.kernel, form.sum, tabulated=entries <= min(MOST_TABLE, program.n_sites * run.n_chains))


@dataclass(frozen=True, slots=True)
class _Figures:
    """What the choice of a kernel asks of a program; of a million sites it takes a tenth of a second.

    Attributes:
        weight_sums: sum of |weight| over each row.
        largest_sum: largest |field| + weight sum of a site.
        step: between the values that fields of all sites can have: 2 where they all have largest_sum's parity.
        largest_weight: by magnitude.
    """

    weight_sums: NDArray[np.int64]
    largest_sum: int
    step: int
    largest_weight: int


@lru_cache(maxsize=1)
def _figures(program: Program) -> _Figures:
    weight, field = np.abs(program.weight.astype(np.int64)), program.field.astype(np.int64)[program.order.site]
    sums = np.asarray(np.diff(np.concatenate([[0], np.cumsum(weight)])[program.order.row_start]))
    total = int((sums + np.abs(field)).max())
    step = 2 if ((sums + field - total) % 2 == 0).all() else 1
    return _Figures(sums, total, step, int(weight.max(initial=0)))


def _sum(program: Program, run: Run) -> int:
    if run.fields is None:
        return _figures(program).largest_sum
    largest = np.abs(run.fields.astype(np.int64)).max(axis=0)[program.order.site]
    return int((_figures(program).weight_sums + largest).max())


def row_words(program: AnyProgram, run: Run) -> int:
    """Words of 32 lanes in a row of the state."""
    return -(-(run.first_chain % 32 + run.n_chains if run.layout == 0 else program.n_sites) // 32)


def job_numbers(program: AnyProgram, run: Run, form: Form) -> dict[str, int]:
    """The members that are numbers, but for n_samples."""
    potts = isinstance(program, PottsProgram)
    return {
        "seed": run.seed,
        "stream": run.stream,
        "layout": 0 if potts else run.layout,
        "n_sites": program.n_sites,
        "n_states": program.n_states,
        "n_chains": run.n_chains,
        "first_chain": run.first_chain,
        "offset": run.first_chain % 32,
        "row_words": row_words(program, run),
        "n_colours": len(program.order.colour_start) - 1,
        "n_b": len(run.b),
        "sum": form.sum,
        "level_step": form.level_step,
        "passes": form.passes,
        "groups": -(-program.n_sites // 4),
        "n_edges": program.n_edges,
        "sample_bytes": state_dtype(program.n_states).itemsize if potts else -(-program.n_sites // 8),
    }


def state_dtype(n_states: int) -> np.dtype[Any]:
    """The smallest unsigned type that holds a Potts state."""
    return np.dtype(np.uint8 if n_states <= 2**8 else np.uint16 if n_states <= 2**16 else np.uint32)


def program_arrays(program: AnyProgram) -> Arrays:
    """What stays from run to run, by position."""
    order = program.order
    position = np.empty(program.n_sites, dtype=np.int32)
    position[order.site] = np.arange(program.n_sites, dtype=np.int32)
    arrays: Arrays = {
        "colour_start": np.asarray(order.colour_start, dtype=np.int32),
        "row_start": order.row_start.astype(np.int32),
        "neighbour": order.neighbour.astype(np.int32),
        "site": order.site.astype(np.int32),
        "position": position,
        "field": program.field[order.site],
    }
    if isinstance(program, Program):
        return {**arrays, "weight": program.weight, "edge": position[program.edges].astype(np.int32)}
    if program.weight is not None:
        arrays["weight"] = program.weight
    elif program.table is not None and program.table_start is not None:
        arrays |= {"table": program.table, "table_start": program.table_start}
    else:
        arrays["weight"] = np.zeros(0, dtype=np.int32)
    if program.allowed is not None:
        arrays["allowed"] = program.allowed[order.site].astype(np.uint8)
    return arrays


def run_arrays(program: AnyProgram, run: Run, form: Form) -> Arrays:
    """What a run brings along: temperatures, fields, clamps, and what its kernel needs of the program."""
    arrays: Arrays = {"b": run.b, "clock": np.array([run.first_sweep], dtype=np.uint64)}
    site = program.order.site
    if isinstance(program, PottsProgram):
        if run.fields is not None:
            shape = (run.n_chains, program.n_sites, program.n_states)
            arrays["own_field"] = np.broadcast_to(run.fields, shape)[:, site]
        if run.clamp is not None:
            clamp = np.broadcast_to(run.clamp, (run.n_chains, program.n_sites))[:, site]
            arrays["potts_clamp"] = clamp.astype(np.int32)
        if run.initial is not None:
            given = run.initial[:, site].astype(np.int64)
            if run.clamp is not None:
                given = np.where(arrays["potts_clamp"] >= 0, arrays["potts_clamp"], given)
            arrays["state"] = given.T.astype(np.uint32)
        return arrays
    if run.fields is not None:
        fields = np.broadcast_to(run.fields, (run.n_chains, program.n_sites))[:, site]
        arrays["own_field"] = _by_lane(fields, run) if run.layout == 0 else fields
    if run.clamp is not None:
        clamp = np.broadcast_to(run.clamp.astype(np.int8), (run.n_chains, program.n_sites))[:, site]
        arrays["open"], arrays["up"] = _words(clamp == 0, run), _words(clamp > 0, run)
    if run.initial is not None:
        arrays["state"] = _words(unpack_spins(run.initial.astype(np.uint8), program.n_sites)[:, site] > 0, run)
        if run.clamp is not None:
            arrays["state"] = (arrays["state"] & arrays["open"]) | arrays["up"]
    arrays |= _base(program, run, form)
    if form.kernel == "dense":
        arrays["matrix"] = _matrix(program, form.passes)
    return arrays


def _base(program: Program, run: Run, form: Form) -> Arrays:
    own = program.field[program.order.site].astype(np.int64) if run.fields is None else 0
    if form.kernel == "dense":
        running = np.concatenate([[0], np.cumsum(program.weight.astype(np.int64))])
        base = own - np.diff(running[program.order.row_start])
    else:
        base = own + form.sum - _figures(program).weight_sums
    return {"base": np.asarray(base // form.level_step, dtype=np.int32)}


def _matrix(program: Program, passes: int) -> NDArray[np.uint32]:
    """Bytes of the weights, upper ones first, of four neighbours in a word: [position][pass][group]."""
    n, groups = program.n_sites, -(-program.n_sites // 4)
    weights = np.zeros((n, 4 * groups), dtype=np.int16)
    rows = np.repeat(np.arange(n), np.diff(program.order.row_start))
    weights[rows, program.order.neighbour] = program.weight
    parts = [weights] if passes == 1 else [weights >> 8, weights & 0xFF]
    return np.stack([part.astype(np.uint8).reshape(n, groups, 4) for part in parts], axis=1).view(np.uint32)[..., 0]


def _by_lane(values: NDArray[Any], run: Run) -> NDArray[Any]:
    """(n_chains, n_sites) -> (n_sites, lanes), zeros in the lanes that are nobody's."""
    offset = run.first_chain % 32
    lanes = np.zeros((values.shape[1], -(-(offset + run.n_chains) // 32) * 32), dtype=values.dtype)
    lanes[:, offset : offset + run.n_chains] = values.T
    return lanes


def _words(bits: NDArray[np.bool_], run: Run) -> NDArray[np.uint32]:
    """Booleans (n_chains, n_sites) by position -> words of 32 lanes as the state has them."""
    if run.layout == 0:
        rows = _by_lane(bits, run)
    else:
        rows = np.zeros((run.n_chains, -(-bits.shape[1] // 32) * 32), dtype=bool)
        rows[:, : bits.shape[1]] = bits
    return np.packbits(rows, axis=1, bitorder="little").view(np.uint32)
