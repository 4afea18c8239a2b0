"""Instructions for each update, and how far they are from the least that could do: `make bench-instructions`.

    python -m benchmarks.instructions [--only W1 W2] [--isa avx2] [--output benchmarks/results]

Counts by `perf stat` where the processor's counters can be read, else by valgrind, which knows nothing of AVX-512, so
that the instruction set is then AVX2 at most. Only the core's sweeps count. The floor is what cannot be avoided:

    generator   one call of Threefry4x32-20 gives 4 bits for each of V decisions. It has 20 rounds of 2 additions, 2
                rotations and 2 exclusive ors, and 6 key additions of 4 words and a counter; a rotation is 1 instruction
                with AVX-512 and NEON-like sets, else 3. Bits are drawn until all V decisions are made, on average in
                sum_k 1 - (1 - 2^-4k)^V calls, or in 2 with a list for the undecided rest.
    field       one addition for each neighbour, on vectors of elements as wide as the kernel's.

V is the vector's width in bits; one decision is one bit of it. Loads, stores, thresholds and ties are all above it.
Writes instructions.json and instructions.md.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import glauber as gl
from glauber.compile import make_run
from glauber_simulator import core

from benchmarks.glauber_sampler import net_of, program_of, session
from benchmarks.machine import provenance, write
from benchmarks.report import machine_line
from benchmarks.workloads import LOOSE, SPARSE_MAXCUT, WORKLOADS, Workload

ALL = {workload.key: workload for workload in (*WORKLOADS, SPARSE_MAXCUT, LOOSE)}
UPDATES = 4_000_000
"""About so many in the counted run."""
VECTOR_BITS = {"portable": 32, "sse2": 128, "avx2": 256, "avx512": 512, "avx512icl": 512, "neon": 128}
FIELD_BITS = {
    "bits": 1,
    "diagonals": 1,
    "sites": 32,
    "bytes": 8,
    "filter": 16,
    "dense": 8,
    "exact": 32,
    "independent": 0,
}
UNTIL_DECIDED = {"bits", "diagonals"}
"""Kernels that draw for a whole vector until its last decision; the others list what two calls leave undecided."""
FUNCTIONS = ("glb_ising_sweep", "glb_potts_sweep")


def generator_instructions(isa: str) -> int:
    """Of one vector call of Threefry4x32-20."""
    rotation = 1 if isa in ("avx512", "avx512icl") else 3
    return 20 * 2 * (1 + rotation + 1) + 6 * 4 + 5


def calls_until_decided(decisions: int) -> float:
    """Mean number of calls of 4 bits until all decisions are made; each bit decides half of those that are left."""
    return sum(1 - (1 - 2.0 ** (-4 * k)) ** decisions for k in range(9))


def floor(kernel: str, isa: str, degree: float) -> dict[str, float]:
    """Generator and field, instructions an update."""
    v = VECTOR_BITS[isa]
    calls = calls_until_decided(v) if kernel in UNTIL_DECIDED else 2.0
    return {"generator": calls * generator_instructions(isa) / v, "field": degree * FIELD_BITS[kernel] / v}


def sweep(key: str, bits: int, isa: str, sweeps: int) -> None:
    """Prepare a workload and run its sweeps: the program whose instructions are counted."""
    workload: Workload = ALL[key]
    program = program_of(workload.model, bits)
    every = 1 if workload is LOOSE else 0  # without edges only what is kept is drawn
    schedule = gl.SamplingSchedule(n_samples=max(1, sweeps), n_chains=workload.chains, beta=workload.beta)
    run = make_run(program, schedule, seed=1)
    running = session(program, net_of(program), replace(run, isa=isa, threads=1))
    if sweeps:
        running.advance(1, sweeps, every)
    print(running.facts["kernel"])


def count(key: str, bits: int, isa: str, sweeps: int, tool: str) -> tuple[float, str]:
    """(instructions of so many sweeps, kernel)."""
    command = [sys.executable, "-m", "benchmarks.instructions", "--sweep", key, str(bits), isa]
    if tool == "perf":
        (with_sweeps, kernel), (without, _) = (_perf([*command, str(n)]) for n in (sweeps, 0))
        return with_sweeps - without, kernel
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        toggles = [f"--toggle-collect={name}" for name in FUNCTIONS]
        valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *toggles]
        done = subprocess.run([*valgrind, *command, str(sweeps)], capture_output=True, text=True, check=True)
        found = re.search(r"^(?:summary|totals): (\d+)", out.read_text(), re.MULTILINE)
    counted = 0 if found is None else int(found[1])
    if not counted:
        raise SystemExit("valgrind counted nothing: the extension was built without its symbols (install.strip=false)")
    return counted, done.stdout.strip().splitlines()[-1]


def _perf(command: list[str]) -> tuple[float, str]:
    done = subprocess.run(
        ["perf", "stat", "-x", ",", "-e", "instructions:u", *command], capture_output=True, text=True, check=True
    )
    counted = [line.split(",")[0] for line in done.stderr.splitlines() if "instructions" in line]
    return float(counted[0]), done.stdout.strip().splitlines()[-1]


def counting_tool() -> str:
    """The tool "perf" if it can count here, else "valgrind"."""
    if shutil.which("perf") is not None:
        probe = ["perf", "stat", "-x", ",", "-e", "instructions:u", "true"]
        done = subprocess.run(probe, capture_output=True, text=True, check=False)
        if done.returncode == 0 and re.search(r"^\d+,.*instructions", done.stderr, re.MULTILINE):
            return "perf"
    if shutil.which("valgrind") is None:
        raise SystemExit("neither perf's counters nor valgrind are here; install valgrind")
    return "valgrind"


def table(found: dict[str, Any]) -> str:
    """A line a workload."""
    lines = [
        "# Instructions for each update",
        "",
        machine_line(found),
        f"`{found['command']}`: counted by {found['tool']}, instruction set {found['isa']}. The floor is the"
        " generator's own instructions and one addition a neighbour; `benchmarks/instructions.py` says how.",
        "",
        "| workload | chains | bits | kernel | instructions an update | floor: generator | field | times the floor |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        bound = row["floor"]
        cells = ("", "", "")
        if bound is not None:
            cells = (f"{bound['generator']:.2f}", f"{bound['field']:.2f}", f"{row['times_floor']:.2f}")
        lines.append(
            f"| {row['key']} {row['title']} | {row['chains']} | {row['weight_bits']} | {row['kernel']} |"
            f" {row['instructions']:.2f} | {' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Count and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--only", nargs="*", help="keys of workloads, such as W1")
    parser.add_argument("--isa", help="instruction set (default: the best that can be counted)")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--sweep", nargs=4, metavar=("KEY", "BITS", "ISA", "SWEEPS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sweep:
        key, bits, isa, sweeps = options.sweep
        return sweep(key, int(bits), isa, int(sweeps))
    tool = counting_tool()
    isa = options.isa or (core.BEST_ISA if tool == "perf" or not core.BEST_ISA.startswith("avx512") else "avx2")
    os.environ["GLAUBER_ISA"] = isa
    rows = []
    for key, workload in ALL.items():
        if options.only and key not in options.only:
            continue
        per_sweep = workload.model.n_sites * workload.chains
        sweeps = max(1, UPDATES // per_sweep)
        for bits in workload.weight_bits:
            counted, kernel = count(key, bits, isa, sweeps, tool)
            name = kernel.removeprefix("ising, ")
            bound = floor(name, isa, workload.degree) if name in FIELD_BITS else None
            each = counted / (per_sweep * sweeps)
            row = {
                "key": key,
                "title": workload.title,
                "chains": workload.chains,
                "weight_bits": bits,
                "kernel": kernel,
                "instructions": each,
                "floor": bound,
                "times_floor": None if bound is None else each / sum(bound.values()),
            }
            rows.append(row)
            print(f"{key:16}{bits:3} bits  {each:8.2f} instructions an update  ({kernel}), floor {bound}", flush=True)
    found = {**provenance(("glauber", "numpy")), "tool": tool, "isa": isa, "rows": rows}
    write(options.output / "instructions.json", found)
    (options.output / "instructions.md").write_text(table(found))
    print(f"\nwritten: instructions.json and instructions.md in {options.output}")
    return None


if __name__ == "__main__":
    main()
