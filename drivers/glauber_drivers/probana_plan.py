"""How a program becomes a Probana circuit: copies for chains, banks of p-bits, and the lines that load it.

A bank is what the board updates at once, on its physical p-bits; then the next bank sees the new states. Each bank is
a part of one colour of the program's order, so coupled p-bits never share one, and a pass over the banks is a Gibbs
sweep. The board's other mode, SNAPSHOT, updates all p-bits from the old states; coupled p-bits then follow another law
than Boltzmann's, so it is not used.

Chains that fit beside each other are copies of the graph without edges between them: independent, and they fill banks
that one chain alone would leave half empty.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from glauber.compile import Program, Run
from glauber.errors import ModelNotSupportedError
from numpy.typing import NDArray

from glauber_drivers.probana_link import CHUNK, number

MAX_P_BITS = 128
MAX_EDGES = 4096
MAX_TABLE = 8192
EXACT = 2**24
"""Integers up to here are exact in float32."""
SCALE_PER_B = 1 / (1.4426950408889634 * 2.0**33)
"""From the contract's b = 2 beta step log2(e) 2^32 to beta step."""


def copies_of(program: Program, n_chains: int) -> int:
    """How many chains run beside each other.

    Raises:
        ModelNotSupportedError: not even one does.
    """
    n, edges = program.n_sites, 2 * program.n_edges
    reasons = []
    if n > MAX_P_BITS:
        reasons.append(f"size: the model has {n} p-bits, the board holds {MAX_P_BITS}")
    if edges > MAX_EDGES:
        reasons.append(f"couplings: the model has {edges} directed ones (each counts twice), the board {MAX_EDGES}")
    if reasons:
        raise ModelNotSupportedError("the model does not fit a Probana (sim://ideal takes any graph):", tuple(reasons))
    return min(n_chains, MAX_P_BITS // n, MAX_EDGES // edges if edges else n_chains)


def check_run(program: Program, run: Run) -> None:
    """Refuse what the board cannot run.

    Raises:
        ModelNotSupportedError: with what to do instead.
    """
    if run.exchange is not None or run.resample is not None or run.clock is not None or run.dynamics != "heat bath":
        raise ModelNotSupportedError(
            "a Probana samples and anneals by the heat bath; tempering, populations, Metropolis and asynchronous p-bits"
            " run on sim://ideal"
        )
    if run.initial is not None or run.first_sweep != 1:
        raise ModelNotSupportedError(
            "a Probana draws its start itself and cannot be given one; leave initial out, and warm up for longer"
        )
    if run.clamp is not None or (run.fields is not None and len(run.fields) > 1):
        raise ModelNotSupportedError(
            "a Probana cannot hold spins and has one set of fields for all chains; leave clamped sites out of the"
            " model, and submit one job for each set of fields"
        )
    field = program.field if run.fields is None else run.fields[0]
    most = int((program.weight_sum + np.abs(field.astype(np.int64))[program.order.site]).max())
    if most > EXACT:
        raise ModelNotSupportedError(
            f"the couplings and the field of one site add up to {most} steps of {program.quantisation.step:g}; a"
            f" Probana adds in float32, which is exact up to {EXACT}. Bring fields and couplings to a comparable scale"
        )


def bank_list(colour_start: NDArray[np.int32], site: NDArray[np.int32], copies: int, physical: int) -> list[list[int]]:
    """Virtual p-bits by bank, in the order of their updates; p-bit `site + copy n_sites` is a copy's site."""
    n = len(site)
    banks = []
    for begin, end in pairwise(colour_start.tolist()):
        colour = [site_ + copy * n for copy in range(copies) for site_ in site[begin:end].tolist()]
        banks += [colour[k : k + physical] for k in range(0, len(colour), physical)]
    return banks


@dataclass(frozen=True, slots=True)
class Circuit:
    """A program, some chains of it at once, as the board holds it.

    Attributes:
        program: couplings and fields go to the board as integers in steps, and the step into its `scale`: so what it
            adds up is exact, and the law is that of the programmed model.
        copies: chains at once.
        banks: virtual p-bits, each in one bank.
    """

    program: Program
    copies: int
    banks: list[list[int]]

    @classmethod
    def of(cls, program: Program, copies: int, physical: int) -> Circuit:
        """The circuit of a program on a board with so many physical p-bits."""
        order = program.order
        return cls(program, copies, bank_list(order.colour_start, order.site, copies, physical))

    @property
    def n(self) -> int:
        """Virtual p-bits."""
        return self.copies * self.program.n_sites

    def lines(self, physical: int) -> Iterator[str]:
        """The commands that load banks and couplings; fields are 0 after them."""
        order, n = self.program.order, self.program.n_sites
        edges = self.copies * len(order.neighbour)
        yield f"VCLEAR {self.n} {physical} {len(self.banks)} {edges} SEQUENTIAL"
        for k, bank in enumerate(self.banks):
            yield f"VBANK {k} {len(bank)} {' '.join(map(str, bank))}"
        for node in (node for bank in self.banks for node in bank):
            copy, site = divmod(node, n)
            position = order.position[site]
            for entry in range(int(order.row_start[position]), int(order.row_start[position + 1])):
                source = int(order.site[order.neighbour[entry]]) + copy * n
                yield f"J {source} {node} {number(self.program.weight[entry])}"

    def field_lines(self, field: NDArray[np.int32]) -> Iterator[str]:
        """The commands that set all fields, given by site."""
        for node in range(self.n):
            yield f"H {node} {number(field[node % self.program.n_sites])}"

    def sweep_seconds(self) -> float:
        """Very roughly, and rather too long: 100 us a bank, and the microcontroller's arithmetic."""
        return 1e-4 * len(self.banks) + 4e-6 * self.copies * len(self.program.order.neighbour) + 1e-4 * self.n


def anneal_lines(b: NDArray[np.uint64]) -> tuple[list[str], bool]:
    """The commands that set the temperatures of the next sweeps, at most 8,192 where they are not on a line.

    Returns:
        The commands, and whether they are a table. The board steps through a table by samples and not by sweeps, so
        then each sweep must give a sample.
    """
    scales = (b.astype(np.float64) * SCALE_PER_B).astype(np.float32).astype(np.float64)
    first, last = scales[0], scales[-1]
    if (scales == first).all():
        return [f"ANNEAL CONSTANT {number(first)}"], False
    straight = np.linspace(first, last, len(scales))
    if np.abs(straight - scales).max() <= 1e-6 * np.abs(scales).max():
        return [f"ANNEAL LINEAR {number(first)} {number(last)} {len(scales)}"], False
    lines = [f"ANNEAL TABLE {len(scales)}"]
    for k in range(0, len(scales), CHUNK):
        part = scales[k : k + CHUNK]
        lines.append(f"ANNEAL VALUES {k} {len(part)} {' '.join(map(number, part))}")
    return [*lines, "ANNEAL COMMIT"], True
