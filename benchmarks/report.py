"""Results as a Markdown table and a plot of ratios."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

COLOURS = plt.get_cmap("tab10").colors  # type: ignore[attr-defined]
MARKERS = "osD^v<>PX*"


def machine_line(found: dict[str, Any]) -> str:
    """Where and when, and with what."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return f"{found['cpu']}, {found['cores']} cores, {found['date'][:10]}, Python {found['python']}; {versions}."


def report_samplers(found: dict[str, Any], folder: Path) -> list[Path]:
    """Write samplers.md and samplers.png."""
    table, plot = folder / "samplers.md", folder / "samplers.png"
    table.write_text(samplers_table(found))
    samplers_plot(found, plot)
    return [folder / "samplers.json", table, plot]


def samplers_table(found: dict[str, Any]) -> str:
    """One line a workload and form of glauber, then every contender, then the sites without edges."""
    lines = [
        "# Samplers side by side",
        "",
        f"One core of {machine_line(found)}",
        f"`{found['command']}`: {found['rounds']} interleaved rounds of about {found['seconds_per_run']:g} s, medians;"
        " ratios are medians of the rounds' ratios. Updates are attempted spin updates.",
        "Compiling and the conversion of problems are not timed. Energies were compared with glauber's (alpha 1e-4).",
        "",
        "| workload | n | degree | couplings | chains | glauber | updates/ns | best peer | updates/ns | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for work in found["workloads"]:
        rows = {row["name"]: row for row in work["contenders"]}
        best = rows.get(work["best_peer"])
        for row in work["contenders"]:
            if not row["name"].startswith("glauber"):
                continue
            peer = "none" if best is None else f"{best['name']}, {best['dynamics']}"
            rate, ratio = ("", "") if best is None else (_short(best["updates_per_ns"]), _ratio(row, best, work))
            lines.append(
                f"| {work['key']} {work['title']} | {work['n']:,} | {work['degree']:g} | {work['couplings']} |"
                f" {work['chains']} | {row['precision']}, {row['generator']} | {_short(row['updates_per_ns'])} |"
                f" {peer} | {rate} | {ratio} |"
            )
    lines += ["", "## Every contender", ""]
    for work in found["workloads"]:
        lines += [
            f"**{work['key']}**, {work['title']}, {work['chains']} chains, beta = {work['beta']:g}."
            f" Start: {work['start']}.",
            "",
            "| | dynamics | precision | generator | updates/ns | ms a sweep | glauber is faster | energies |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in work["contenders"]:
            check = {None: "not compared", True: "agree", False: "**disagree**"}[row["energies_agree"]]
            if row["name"] == work["contenders"][0]["name"]:
                check = ""
            ms = work["n"] * work["chains"] / row["updates_per_ns"] / 1e6
            lines.append(
                f"| {row['name']} {row['version']} | {row['dynamics']} | {row['precision']} | {row['generator']} |"
                f" {_short(row['updates_per_ns'])} | {_short(ms)} | {_short(row['glauber_is_faster'])} | {check} |"
            )
        lines += (
            [""] + [f"Without {name.removesuffix('_peer')}: {why}." for name, why in work["left_out"].items()] + [""]
        )
    if found["edge_free"]:
        lines += ["## Sites without edges", "", "| | way | ms a call | updates/ns |", "|---|---|---|---|"]
        for case in found["edge_free"]:
            for way in case["ways"]:
                lines.append(
                    f"| {case['title']} | {way['name']} | {_short(way['ms'])} | {_short(way['updates_per_ns'])} |"
                )
    lines += [""] + [f"**Missing: {name.removesuffix('_peer')}** ({why})" for name, why in found["missing"].items()]
    return "\n".join(lines).rstrip() + "\n"


def _ratio(row: dict[str, Any], best: dict[str, Any], work: dict[str, Any]) -> str:
    """Of any form of glauber to the best peer, round by round."""
    per_round = sorted(
        (row["sweeps"] / ours) / (best["sweeps"] / theirs)
        for ours, theirs in zip(row["seconds"], best["seconds"], strict=True)
    )
    middle = per_round[len(per_round) // 2]
    return f"{middle:.3g} ({per_round[0]:.3g} to {per_round[-1]:.3g})"


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def samplers_plot(found: dict[str, Any], path: Path) -> None:
    """How many times as fast glauber is, by workload, a mark for each peer."""
    works = found["workloads"]
    names = list(dict.fromkeys(_family(row["name"]) for work in works for row in work["contenders"]))
    names.remove("glauber")
    figure, axes = plt.subplots(figsize=(9, 1.6 + 0.5 * len(works)), layout="constrained")
    for k, name in enumerate(names):
        points = [
            (row["glauber_is_faster"], place)
            for place, work in enumerate(works)
            for row in work["contenders"]
            if _family(row["name"]) == name
        ]
        x, y = zip(*points, strict=True)
        axes.scatter(
            x, y, marker=MARKERS[k % len(MARKERS)], color=COLOURS[k % len(COLOURS)], s=45, label=name, zorder=3
        )
    for place, work in enumerate(works):
        best = next((row for row in work["contenders"] if row["name"] == work["best_peer"]), None)
        if best is not None:
            axes.plot(
                [1, best["glauber_is_faster"]], [place, place], color="0.6", lw=5, alpha=0.5, solid_capstyle="butt"
            )
    axes.axvline(1, color="0.3", lw=1)
    axes.set_xscale("log")
    axes.set_yticks(
        range(len(works)), [f"{w['key'].split(',')[0]}  {w['title']}, {_chains(w['chains'])}" for w in works]
    )
    axes.invert_yaxis()
    axes.set_xlabel("times as fast as the peer, one core; the bar ends at the best peer")
    axes.grid(axis="x", which="both", color="0.9")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
    axes.set_title(f"glauber against its peers, {found['cpu']}, {found['date'][:10]}", fontsize=10)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _family(name: str) -> str:
    """The peer without the form that fits a workload: one mark in the plot."""
    if name.startswith("glauber"):
        return "glauber"
    if name.startswith("numpy"):
        return "numpy, tuned" if name.endswith("tuned") else "numpy"
    return name.split(",")[0]


def _chains(count: int) -> str:
    return "1 chain" if count == 1 else f"{count} chains"
