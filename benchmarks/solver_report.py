"""What `benchmarks.solvers` found, as a Markdown table and a plot of the times to the target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from benchmarks.report import COLOURS, MARKERS, machine_line


def report_solvers(found: dict[str, Any], folder: Path) -> list[Path]:
    """Write solvers.md and solvers.png."""
    table, plot = folder / "solvers.md", folder / "solvers.png"
    table.write_text(solvers_table(found))
    solvers_plot(found, plot)
    return [folder / "solvers.json", table, plot]


def escaped(name: str) -> str:
    """For a cell of a table."""
    return name.replace("|", "\\|")


def solvers_table(found: dict[str, Any]) -> str:
    """One line a problem, a column a solver. Cuts are shown as cuts."""
    names = list(dict.fromkeys(name for problem in found["problems"] for name in problem["solvers"]))
    lines = [
        "# Solvers at equal time",
        "",
        f"One core of {machine_line(found)}",
        f"`{found['command']}`: {found['seconds']:g} s for each of {found['seeds']} seeds,"
        f" {found['peer_seeds']} for peers, stopping at the target."
        " Each cell: hits of the target, median seconds of the hits, mean value (best value).",
        "",
        f"| problem | n | edges | target | {' | '.join(names)} |",
        f"|---|---|---|---|{'---|' * len(names)}",
    ]
    for problem in found["problems"]:
        sign = -1.0 if "cut" in problem["source"] else 1.0
        cells = []
        for name in names:
            row = problem["solvers"].get(name)
            if row is None:
                cells.append("missing")
                continue
            when = row["median_seconds_to_target"]
            time = "" if when is None else f", {when:.2g} s"
            values = f"{sign * row['mean']:.7g} ({sign * row['best']:.7g})"
            cells.append(f"{row['hits']}/{len(row['attempts'])}{time}, {values}")
        lines.append(
            f"| {escaped(problem['name'])} | {problem['n']:,} | {problem['edges']:,} | {sign * problem['target']:.7g},"
            f" {problem['source']} | {' | '.join(cells)} |"
        )
    lines += [""] + [f"**Missing: {name.removesuffix('_peer')}** ({why})" for name, why in found["missing"].items()]
    return "\n".join(lines).rstrip() + "\n"


def solvers_plot(found: dict[str, Any], path: Path) -> None:
    """Seconds to the target, a mark a seed; misses at the right edge, hollow. Only problems with a known target."""
    problems = [p for p in found["problems"] if p["source"] != "best of this run"]
    names = list(dict.fromkeys(name for problem in problems for name in problem["solvers"]))
    figure, axes = plt.subplots(figsize=(9, 1.6 + 0.45 * len(problems)), layout="constrained")
    miss = 2 * found["seconds"]
    for k, name in enumerate(names):
        colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
        hits: list[tuple[float, float]] = []
        misses: list[tuple[float, float]] = []
        for place, problem in enumerate(problems):
            for attempt in problem["solvers"].get(name, {"attempts": []})["attempts"]:
                when, y = attempt["seconds_to_target"], place + 0.22 * (k - (len(names) - 1) / 2)
                if when is None:
                    misses.append((miss, y))
                else:
                    hits.append((when, y))
        axes.scatter([x for x, _ in hits], [y for _, y in hits], color=colour, marker=marker, s=22, label=name)
        x, y_missed = [x for x, _ in misses], [y for _, y in misses]
        axes.scatter(x, y_missed, edgecolors=[colour], facecolors="none", marker=marker, s=22)
    axes.axvline(found["seconds"], color="0.3", lw=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(problems)), [problem["name"] for problem in problems])
    axes.invert_yaxis()
    axes.set_xlabel(f"seconds to the target, one core; hollow: not within {found['seconds']:g} s")
    axes.grid(axis="x", which="major", color="0.9")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
    axes.set_title(f"{found['cpu']}, {found['date'][:10]}", fontsize=10)
    figure.savefig(path, dpi=150)
    plt.close(figure)
