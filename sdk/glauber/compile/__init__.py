"""From a model and a device's description to the integer program that every digital device runs.

    order.py      colours, positions and directed rows of a graph
    quantise.py   coefficients on one integer step, and what that costs
    program.py    Program and PottsProgram: what is loaded into a device
    clock.py      the integers of asynchronous p-bits
    run.py        Run: what is run on a loaded program

docs/machine.md specifies all of it. A program is cached by graph and coefficients, so a loop that resubmits pays
nothing.
"""

from glauber.compile.clock import TICKS, Clock
from glauber.compile.program import (
    AnyProgram,
    PottsProgram,
    Program,
    check_fit,
    compile_program,
    distribution_change,
    misfits,
    step_of,
    weights_key,
)
from glauber.compile.quantise import QuantisationReport
from glauber.compile.run import Exchange, Resample, Run, derive_seed, make_run, pack_spins, unpack_spins

__all__ = [
    "TICKS",
    "AnyProgram",
    "Clock",
    "Exchange",
    "PottsProgram",
    "Program",
    "QuantisationReport",
    "Resample",
    "Run",
    "check_fit",
    "compile_program",
    "derive_seed",
    "distribution_change",
    "make_run",
    "misfits",
    "pack_spins",
    "step_of",
    "unpack_spins",
    "weights_key",
]
