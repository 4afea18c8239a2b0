"""README's tables of rates and of solutions, from the committed results: `python -m benchmarks.readme` writes them.

They stand between markers; a test compares README with what this makes, so no figure there can be typed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.solver_report import escaped

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"


def sampler_rows(found: dict[str, Any]) -> list[str]:
    """One line a workload: glauber, the usual NumPy or numba way, and the best of all peers."""
    lines = [
        "| one core, updates/ns | n | degree | couplings | chains | glauber | precision |"
        " best library or textbook peer | ratio | our own tuned NumPy, ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for work in found["workloads"]:
        ours = [row for row in work["contenders"] if row["name"].startswith("glauber")]
        peers = [row for row in work["contenders"] if not row["name"].startswith("glauber")]
        tuned = [row for row in peers if row["name"].endswith("tuned")]
        best = max((row for row in peers if row not in tuned), key=lambda row: float(row["updates_per_ns"]))
        for row in ours:
            name = f"{work['key'].split(',')[0]} {work['title']}"
            beside = f"{median_ratio(row, tuned[0]):.3g}x" if tuned else ""
            lines.append(
                f"| {name} | {work['n']:,} | {work['degree']:.3g} | {work['couplings']} | {work['chains']} |"
                f" {row['updates_per_ns']:.3g} | {row['precision'].split(',')[0]} |"
                f" {best['name']} ({best['generator']}) {best['updates_per_ns']:.3g} |"
                f" **{median_ratio(row, best):.3g}x** | {beside} |"
            )
    return lines


def median_ratio(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """The median over rounds of how many times as fast."""
    pairs = zip(ours["seconds"], theirs["seconds"], strict=True)
    ratios = sorted((ours["sweeps"] / a) / (theirs["sweeps"] / b) for a, b in pairs)
    return float(ratios[len(ratios) // 2])


def solver_rows(found: dict[str, Any]) -> list[str]:
    """One line a problem: hits, median seconds of the hits and mean value of glauber, and the best mean of a peer."""
    names = [name for name in found["problems"][0]["solvers"] if name != "glauber"]
    head = " | ".join(f"{name}: hits, mean" for name in names)
    lines = [
        f"| {found['seconds']:g} s on one core | n | target | glauber: hits, median seconds, mean | {head} |",
        f"|---|---|---|---|{'---|' * len(names)}",
    ]
    for problem in found["problems"]:
        sign = -1.0 if "cut" in problem["source"] else 1.0
        cells = []
        for name in ["glauber", *names]:
            row = problem["solvers"][name]
            when = row["median_seconds_to_target"]
            seconds = f", {when:.2g} s" if name == "glauber" and when is not None else ""
            cells.append(f"{row['hits']}/{len(row['attempts'])}{seconds}, {sign * row['mean']:.6g}")
        target = f"{sign * problem['target']:.6g}{'' if 'best of' not in problem['source'] else ' (best seen)'}"
        lines.append(f"| {escaped(problem['name'])} | {problem['n']:,} | {target} | {' | '.join(cells)} |")
    return lines


def gpu_rows(found: dict[str, Any]) -> list[str]:
    """One line a workload and number of chains: the GPU's rate, one core's beside it, joules where NVML saw them."""
    lines = [
        f"| updates/ns | chains | {found['gpu']} | one core | nJ for an update, whole board |",
        "|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        energy = row["energy"]
        joules = "not above its noise"
        if energy["basis"] == "measured":
            each = 1e9 / energy["updates"]
            joules = f"{energy['joules'] * each:.3g} +- {energy['standard_uncertainty'] * each:.1g}"
        lines.append(
            f"| {row['key']} {row['title']} | {row['chains']:,} | {row['gpu']:.3g} | {row['one core']:.2g} | {joules} |"
        )
    return lines


def machine(found: dict[str, Any]) -> str:
    """Where, when, how."""
    return f"{found['cpu']}, {found['cores']} cores (shared), {found['date'][:10]}, `{found['command']}`."


def section() -> str:
    """What stands between README's markers."""
    samplers = json.loads((RESULTS / "samplers.json").read_text())
    solvers = json.loads((RESULTS / "solvers.json").read_text())
    gpu = json.loads((RESULTS / "gpu.json").read_text())
    lines = [
        f"Sampling: {machine(samplers)} Ratios are medians of {samplers['rounds']} interleaved rounds in one run;"
        " glauber draws with Threefry4x32-20 and 32-bit thresholds.",
        "",
        *sampler_rows(samplers),
        "",
        f"Solving: {machine(solvers)} The best known cuts of Gset, planted ground states, or the best of this run;"
        " peers restart until time is up.",
        "",
        *solver_rows(solvers),
        "",
        f"A GPU beside one core of its host: {machine(gpu)} The states are the simulator's, bit for bit; joules are"
        " NVML's, with a standard uncertainty. More on it: docs/gpu.md.",
        "",
        *gpu_rows(gpu),
    ]
    return "\n".join(lines)


BEGIN, END = "<!-- benchmarks: python -m benchmarks.readme -->\n", "\n<!-- end of benchmarks -->"


def main() -> None:
    """Write the section anew."""
    text = README.read_text()
    before, rest = text.split(BEGIN)
    README.write_text(before + BEGIN + section() + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
