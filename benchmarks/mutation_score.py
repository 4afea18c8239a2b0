"""How many wrong samplers the battery of statistical checks finds out, and which check finds which.

    python -m benchmarks.mutation_score [--json benchmarks/results/mutation_score.json]

The faulty samplers and the battery are those of tests/simulator/faulty.py, which states the alphas; the powers are
computed in tests/simulator/test_negative_controls.py. Here every check runs on every fault, while the tests stop at the
first one that fails. Exits with 1 if a fault survives or a right sampler fails.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import provenance, write

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "simulator"))
faulty: Any = importlib.import_module("faulty")


def main() -> int:
    """Run, print the table, and say by the exit code whether every fault was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutation_score", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()

    right = {name: faulty.examine(make()) for name, make in faulty.RIGHT.items()}
    for name, checks in right.items():
        failed = [check.name for check in checks if not check.passed]
        print(f"{name:34} passes {len(checks) - len(failed)} of {len(checks)} checks {', '.join(failed)}".rstrip())
    print()
    print(f"{'fault':34} killed by")
    verdicts = faulty.mutation_score()
    for verdict in verdicts:
        names = "; ".join(check.name for check in verdict.killed_by)
        print(f"{verdict.fault:34} {names or 'SURVIVED'}")
    killed = sum(bool(verdict.killed_by) for verdict in verdicts)
    print(f"\nmutation score {killed}/{len(verdicts)} (alpha {faulty.ALPHA:g} a check)")

    if arguments.json is not None:
        result = {
            "provenance": provenance(("glauber", "numpy", "scipy")),
            "alpha": faulty.ALPHA,
            "killed": killed,
            "total": len(verdicts),
            "faults": {
                verdict.fault: {check.name: check.p_value for check in verdict.killed_by} for verdict in verdicts
            },
            "right": {name: {check.name: check.p_value for check in checks} for name, checks in right.items()},
        }
        write(arguments.json, result)
    sound = all(check.passed for checks in right.values() for check in checks)
    return 0 if sound and killed == len(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
