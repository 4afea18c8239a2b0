"""What is uploaded to an Ising machine before a run: arrays in blocks, and the settings of docs/scpi-annealer.md."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from glauber.compile import Program, Run
from glauber.compile.program import check_sums
from numpy.typing import NDArray

from glauber_drivers.scpi import ScpiError

MANY = 2**48
_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")
ELEMENTS: dict[str, str] = {"TABLE": ">u8", "FIELDS": ">i4", "CLAMP": "i1", "INITIAL": "u1"}
"""Arrays of a run and their elements."""


def whole_numbers(words: tuple[str, ...], *ranges: tuple[int, int]) -> tuple[int, ...]:
    """Whole-number parameters, one for each range."""
    if len(words) != len(ranges):
        raise ScpiError(-109 if len(words) < len(ranges) else -108, f"{len(words)} parameters of {len(ranges)}")
    found = []
    for word, (low, high) in zip(words, ranges, strict=True):
        if not _WHOLE.fullmatch(word):
            raise ScpiError(-104, f"'{word}' is no whole number")
        if not low <= int(word) <= high:
            raise ScpiError(-222, f"{word} is not from {low} to {high}")
        found.append(int(word))
    return tuple(found)


class UploadedArray:
    """An array that comes in blocks, one after the other."""

    def __init__(self, kind: str, size: int) -> None:
        self.values: NDArray[Any] = np.zeros(size, dtype=np.dtype(kind))
        self.filled = 0

    def put(self, offset: int, data: bytes) -> None:
        """Take a block: the next one, or the first one again."""
        width = self.values.dtype.itemsize
        if len(data) % width:
            raise ScpiError(-161, f"{len(data)} bytes are not whole elements of {width} bytes")
        if offset not in (0, self.filled):
            raise ScpiError(-222, f"offset {offset}; the next one is {self.filled}")
        count = len(data) // width
        if offset + count > len(self.values):
            raise ScpiError(-223, f"{offset + count} elements of {len(self.values)}")
        self.values[offset : offset + count] = np.frombuffer(data, self.values.dtype)
        self.filled = offset + count

    @property
    def whole(self) -> bool:
        """Whether all of it has come."""
        return self.filled == len(self.values)


@dataclass
class Settings:
    """Of the next run; see the RUN commands."""

    seed: int = 0
    layout: int = 1
    chains: tuple[int, int] = (1, 0)
    sweeps: tuple[int, int, int, int] = (1, 0, 1, 1)
    keep: int = 1
    arrays: dict[str, UploadedArray] = field(default_factory=dict)

    def run(self, program: Program) -> Run:
        """The run that they make; ScpiError says what is missing."""
        n = program.n_sites
        (chains, first_chain), (first, warmup, samples, thin) = self.chains, self.sweeps
        incomplete = [name for name, array in self.arrays.items() if not array.whole]
        table = self.arrays.get("TABLE")
        if table is None or incomplete:
            raise ScpiError(-221, f"not all of the run has come: {', '.join(incomplete) or 'TABLE'}")
        n_sweeps = warmup + samples * thin
        if len(table.values) not in (1, n_sweeps) or first > n_sweeps:
            raise ScpiError(-221, f"{len(table.values)} temperatures and first sweep {first} for {n_sweeps} sweeps")
        if int(table.values.max()) >= 2**63:
            raise ScpiError(-222, "a temperature of 2^63 or more")

        def rows(name: str, kind: type[Any], width: int) -> NDArray[Any] | None:
            if name not in self.arrays:
                return None
            array = self.arrays[name].values.astype(kind).reshape(-1, width)
            if len(array) not in (1, chains) or (name == "INITIAL" and len(array) != chains):
                raise ScpiError(-221, f"{name} has {len(array)} rows for {chains} chains")
            return array

        fields, clamp = rows("FIELDS", np.int32, n), rows("CLAMP", np.int8, n)
        if fields is not None:
            check_sums(program.weight_sum, np.abs(fields.astype(np.int64)).max(axis=0)[program.order.site])
        if clamp is not None and np.abs(clamp.astype(int)).max() > 1:
            raise ScpiError(-222, "a clamp that is not -1, 0 or 1")
        return Run(
            b=table.values.astype(np.uint64),
            layout=self.layout,
            seed=self.seed,
            stream=0,
            n_chains=chains,
            first_chain=first_chain,
            first_sweep=first,
            n_warmup=warmup,
            n_samples=samples,
            sweeps_per_sample=thin,
            fields=fields,
            clamp=clamp,
            initial=rows("INITIAL", np.uint8, (n + 7) // 8),
            initial_moments=None,
            observe=frozenset({"samples"} if self.keep else {"last"}),
            threads=None,
            isa=None,
        )
