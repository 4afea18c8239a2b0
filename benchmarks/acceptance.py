"""How surely faulty devices are rejected and right ones accepted: `python -m benchmarks.acceptance [--runs 400]`.

Simulated chips of pbit-king-64 with one fault each, of the size that `glauber.testing.acceptance.faults` states. Every
run has another chip (other gains, another dead p-bit, another dropped coupling) and another seed. How many are rejected
at alpha 1e-5, with Clopper and Pearson's 99.9 % interval, and which test had the least p-value?

Then the ideal chip: how many of `--ideal` runs are rejected at alpha 1e-5, which must be none, and how many of as many
at alpha 0.01, where a test that can reject at all must do so, and not much more often: the number has to lie below the
upper end of the binomial 99.9 % band, and not at 0. P-values of the first looks there are compared with uniform ones.

Writes acceptance.json, and beside the code that quotes it the table of powers, by the key of the jobs they hold for.
Exits with 1 if a power is below 0.99 or an ideal chip is treated otherwise than stated.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import glauber.testing.acceptance as package
from glauber.catalogue import load_spec
from glauber.device import open_device
from glauber.testing.acceptance import AcceptanceReport, accept
from glauber.testing.acceptance.accept import ALPHA
from glauber.testing.acceptance.faults import FAULTS, Fault, simulated
from glauber.testing.acceptance.power import LEVEL, interval
from glauber.testing.acceptance.probes import make_probes
from scipy.stats import binom, kstest

from benchmarks.machine import provenance, write

DEVICE = "pbit-king-64"
MUST = 0.99
"""The least power that is taken, against each fault."""
OFTEN = 0.01
"""An alpha at which right devices are rejected often enough to be counted."""
TABLE = Path(package.__file__).parent / "measured.json"


def with_fault(fault: Fault, runs: int) -> tuple[str, dict[str, Any]]:
    """The key of the jobs, and what was found of so many devices with a fault."""
    spec = load_spec(DEVICE)
    found, key = 0, ""
    looks: Counter[int] = Counter()
    named: Counter[str] = Counter()
    began = time.perf_counter()
    for number in range(runs):
        with simulated(spec, make_probes(spec), fault, number) as device:
            report = accept(device, seed=number)
        key = report.key
        looks[len(report.looks)] += 1
        if not report.accepted:
            found += 1
            named[report.looks[-1].statistics[0].name] += 1
    low, high = interval(found, runs)
    return key, {
        "runs": runs,
        "rejected": found,
        "power": found / runs,
        "interval": [low, high],
        "looks": {str(count): looks[count] for count in sorted(looks)},
        "least p-value": dict(named.most_common()),
        "seconds per run": (time.perf_counter() - began) / runs,
    }


def of_ideal(runs: int, alpha: float, first_seed: int) -> tuple[list[AcceptanceReport], dict[str, Any]]:
    """What was found of the ideal device in so many runs."""
    began = time.perf_counter()
    with open_device(f"sim://{DEVICE}") as device:
        reports = [accept(device, alpha=alpha, seed=first_seed + number) for number in range(runs)]
    rejected = sum(not report.accepted for report in reports)
    looks = Counter(len(report.looks) for report in reports)
    return reports, {
        "runs": runs,
        "alpha": alpha,
        "rejected": rejected,
        "upper end of the binomial band": int(binom.ppf(1 - (1 - LEVEL) / 2, runs, alpha)),
        "looks": {str(count): looks[count] for count in sorted(looks)},
        "seconds per run": (time.perf_counter() - began) / runs,
    }


def first_looks(reports: list[AcceptanceReport]) -> dict[str, dict[str, float]]:
    """Of each test's p-values at first looks: Kolmogorov and Smirnov's p against uniform, and the share below 0.01."""
    values: dict[str, list[float]] = {}
    for report in reports:
        for test in report.looks[0].statistics:
            values.setdefault(test.name, []).append(test.p_value)
    return {
        name: {
            "uniform, p": float(kstest(found, "uniform").pvalue),
            "below 0.01": sum(p < 0.01 for p in found) / len(found),
        }
        for name, found in sorted(values.items())
    }


def run(runs: int, ideal: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The result, and the table of powers by the key of their jobs."""
    powers: dict[str, Any] = {}
    table: dict[str, dict[str, list[int]]] = {}
    for fault in FAULTS:
        key, powers[fault.name] = with_fault(fault, runs)
        found, seconds = powers[fault.name]["rejected"], powers[fault.name]["seconds per run"]
        table.setdefault(key, {})[fault.name] = [found, runs]
        print(f"{fault.name:28} {found}/{runs} rejected, {seconds:.3f} s each", flush=True)
    _, strict = of_ideal(ideal, ALPHA, 10**6)
    reports, often = of_ideal(ideal, OFTEN, 2 * 10**6)
    for one in (strict, often):
        print(f"ideal, alpha {one['alpha']:g}: {one['rejected']} of {ideal} rejected", flush=True)
    result = {
        "device": DEVICE,
        "alpha": ALPHA,
        "level": LEVEL,
        "faults": powers,
        "ideal": {"at alpha": strict, "at 0.01": often, "first looks": first_looks(reports)},
    }
    return result, table


def is_as_stated(result: dict[str, Any]) -> bool:
    """Whether powers and false alarms are what docs/acceptance.md says."""
    often = result["ideal"]["at 0.01"]
    return (
        all(found["power"] >= MUST for found in result["faults"].values())
        and result["ideal"]["at alpha"]["rejected"] == 0
        and 0 < often["rejected"] <= often["upper end of the binomial band"]
    )


def for_people(result: dict[str, Any]) -> str:
    """What docs/acceptance.md says of a result."""
    lines = [
        f"Chips of {result['device']} with one fault each, every one another chip, at alpha {result['alpha']:g}",
        f"({result['cpu']}, {result['date'][:10]}, `{result['command']}`):",
        "",
        "| fault | rejected | power, 99.9 % interval | least p-value most often by |",
        "|---|---|---|---|",
    ]
    for fault, found in result["faults"].items():
        low, high = found["interval"]
        test = next(iter(found["least p-value"]))
        lines.append(f"| {fault} | {found['rejected']} of {found['runs']} | {low:.3f} to {high:.3f} | {test} |")
    strict, often = result["ideal"]["at alpha"], result["ideal"]["at 0.01"]
    most = often["upper end of the binomial band"]
    lines += [
        "",
        f"The ideal chip was rejected in {strict['rejected']} of {strict['runs']} runs at alpha {strict['alpha']:g},",
        f"and in {often['rejected']} of {often['runs']} at alpha {often['alpha']:g}, where at most {most} are inside",
        "the binomial 99.9 % band: the test keeps its alpha, and it can reject.",
    ]
    return "\n".join(lines)


def main() -> int:
    """Run, write, and say by the exit code whether all is as stated."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.acceptance", description=__doc__)
    parser.add_argument("--runs", type=int, default=400, help="devices with each fault")
    parser.add_argument("--ideal", type=int, default=1000, help="runs of the ideal device, at each alpha")
    parser.add_argument("--output", type=Path, help="folder for acceptance.json; the table goes beside the code then")
    arguments = parser.parse_args()
    result, table = run(arguments.runs, arguments.ideal)
    if arguments.output is not None:
        write(arguments.output / "acceptance.json", {**provenance(("glauber", "numpy", "scipy")), **result})
        TABLE.write_text(json.dumps(table, indent=1) + "\n")
    return 0 if is_as_stated(result) else 1


if __name__ == "__main__":
    sys.exit(main())
