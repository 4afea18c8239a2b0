"""RESULTS.md and results.json, from what the stages have kept."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from examples.intervals import interval
from examples.mnist_ebm.claim import reading
from examples.mnist_ebm.files import write_whole

if TYPE_CHECKING:
    from examples.mnist_ebm.pipeline import Result, Study


def write_report(study: Study, results: dict[str, Result]) -> None:
    """Write RESULTS.md, and all figures as results.json, into the study's folder."""
    every = {name: asdict(one) for name, one in results.items()}
    write_whole(study.out / "results.json", json.dumps(every, indent=1, allow_nan=False) + "\n")
    write_whole(study.out / "RESULTS.md", markdown(study, results))


def markdown(study: Study, results: dict[str, Result]) -> str:
    """The page."""
    found = {name: one.figures for name, one in results.items()}
    runs = {name: [found[f"train {name}, seed {seed}"] for seed in config.seeds] for name, config in study.runs.items()}
    made = [one.made for one in results.values()]
    machines = sorted({f"{one['cpu']}, {one['cores']} cores" for one in made})
    days = sorted({one["date"][:10] for one in made})
    versions = [f"{name} {', '.join(sorted({one['versions'][name] for one in made}))}" for name in ("glauber", "torch")]
    parts = [
        ["# Results", ""],
        [
            f"`python -m examples.mnist_ebm`, {' to '.join(dict.fromkeys((days[0], days[-1])))}, {'; '.join(machines)},"
            f" one thread of PyTorch, {', '.join(versions)}. Data: {found['explore']['source']}."
            " Each row of a table is a file in `configs/`. The machine had other work beside: ratios of times count.",
            "",
        ],
        _data(found["explore"]),
        _models(runs, found["explore"]),
        _quality(runs),
        _conditional(runs, found["digits"]),
        _exact(found["exact"]),
        _search(found["search"]),
        _blocks(found["blocks"]),
        _mixing(found["mixing"]),
        _speed(found["speed"], found["epoch"]),
        _joules(found["joules"]),
        _failed(runs, found),
    ]
    return "\n".join(line for part in parts for line in part)


def _data(found: dict[str, Any]) -> list[str]:
    lines = ["## Data", "", "![the data](pictures/explore.png)", ""]
    lines += [
        "| grey levels | share of pixels that never change | independent pixels, nats of a test image"
        " | given the digit |",
        "|---|---|---|---|",
    ]
    for one in found["levels"]:
        alone, given = one["independent"], one["independent_given_digit"]
        lines.append(
            f"| {one['n_levels']} | {100 * one['never_change']:.1f} % | {_pm(alone['nats'], alone['standard_error'])} |"
            f" {_pm(given['nats'], given['standard_error'])} |"
        )
    return [*lines, ""]


def _models(runs: dict[str, list[Any]], explored: dict[str, Any]) -> list[str]:
    lines = [
        "## Log-likelihood of test images",
        "",
        "In nats, with standard errors (images, and the estimate of log Z); over seeds with Student's 95 % interval."
        " Where few chains are effective, ten or less, log Z is likely found too low and log p too high, by more than"
        " the error says. Models of different numbers of levels have different data and compare with their own"
        " independent pixels.",
        "",
        "| model | levels | parameters | log p | each seed | how | epochs' seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in explored["levels"]:
        alone = one["independent"]
        lines.append(
            f"| independent pixels | {one['n_levels']} | {784 * (one['n_levels'] - 1):,} | {alone['nats']:.1f} |"
            f" {_pm(alone['nats'], alone['standard_error'])} | exact | |"
        )
    for name, seeds in runs.items():
        nats = [one["likelihood"] for one in seeds]
        seconds = ", ".join(format(one["training_seconds"], ".0f") for one in seeds)
        lines.append(
            f"| {seeds[0]['title']} (`{name}`) | {seeds[0]['n_levels']} | {seeds[0]['parameters']:,} |"
            f" {interval([one['nats'] for one in nats], 1)} |"
            f" {', '.join(_pm(one['nats'], one['standard_error']) for one in nats)} |"
            f" {'; '.join(dict.fromkeys(one['how'] for one in nats))} |"
            f" {seconds} |"
        )
    stopped = [f"`{name}`, seed {one['seed']}" for name, seeds in runs.items() for one in seeds if one["stopped_early"]]
    lines += ["", "Stopped early: " + (", ".join(stopped) if stopped else "none") + ".", ""]
    return lines


def _quality(runs: dict[str, list[Any]]) -> list[str]:
    lines = [
        "## Samples, judged by a small CNN",
        "",
        "All in black and white. FID and KID on the features of this example's own CNN: they compare with one another"
        " only. The floor is what other real images have: validation images, and where there are more samples than"
        " those, training images too, which the CNN has seen.",
        "",
        "| model | smallest share of a digit | recognised with 90 % confidence | FID (95 %) | KID |"
        " share of pixels in which two samples differ | nearest training image, pixels | samples/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    real: dict[str, Any] | None = None
    for name, seeds in runs.items():
        for one in seeds:
            judged = one.get("unconditional")
            if judged is None:
                continue
            real = judged
            least = min(judged["coverage"], key=lambda part: part["share"])
            fid, kid, near = judged["fid"], judged["kid"], judged["neighbours"]
            lines.append(
                f"| `{name}`, seed {one['seed']} | {_share(least)} | {_share(judged['confident'])} |"
                f" {fid['value']:.1f} ({fid['low']:.1f} to {fid['high']:.1f}) |"
                f" {_pm(kid['value'], kid['standard_error'])} |"
                f" {100 * judged['diversity']['pixels']['mean']:.1f} % | {near['median']:.0f} |"
                f" {one['n_samples'] / one['sampling_seconds']:,.0f} |"
            )
            if "modes" in one:
                fid = one["modes"]["fid"]
                lines.append(
                    f"| `{name}`, seed {one['seed']}, likelier colour of each pixel | | |"
                    f" {fid['value']:.1f} ({fid['low']:.1f} to {fid['high']:.1f}) | | | | |"
                )
    if real is not None:
        fid, kid = real["fid"], real["kid"]
        lines.append(
            f"| real images | {100 * min(real['coverage_real']):.1f} % | {_share(real['confident_real'])} |"
            f" floor {fid['floor']:.1f} | {_pm(kid['floor'], kid['floor_error'])} |"
            f" {100 * real['diversity']['pixels_real']['mean']:.1f} % | {real['neighbours']['median_real']:.0f} | |"
        )
    lines += ["", "![digits that the CNN recognises](pictures/coverage.png)", ""]
    for name, seeds in runs.items():
        if "unconditional" in seeds[0]:
            lines += [f"![{seeds[0]['title']}](pictures/samples-{name}.png)"]
    return [*lines, ""]


def _conditional(runs: dict[str, list[Any]], digits: list[Any]) -> list[str]:
    lines = [
        "## The digit that was asked for",
        "",
        "| model | recognised as asked (95 %) | worst digit | FID of them |",
        "|---|---|---|---|",
    ]
    for name, seeds in runs.items():
        for one in seeds:
            if "conditional" not in one:
                continue
            asked = one["conditional"]["conditional"]
            by_digit = asked["right_by_digit"]
            worst = min(range(10), key=lambda digit: by_digit[digit]["share"])
            lines.append(
                f"| `{name}`, seed {one['seed']} | {_share(asked['right'])} | {worst}: {_share(by_digit[worst])} |"
                f" {one['conditional']['fid']['value']:.1f} |"
            )
    hits = [one["right"]["share"] for one in digits]
    worst = min(range(10), key=lambda digit: hits[digit])
    lines += [
        f"| ten grids of 8 neighbours, one for each digit | {100 * sum(hits) / 10:.1f} %, mean of digits | {worst}:"
        f" {_share(digits[worst]['right'])} | |",
        "",
        "![asked for and recognised](pictures/confusion.png)",
        "![samples and their nearest training images](pictures/neighbours.png)",
        "",
    ]
    return lines


def _exact(rows: list[Any]) -> list[str]:
    lines = [
        "## Where log Z is known exactly",
        "",
        "| model | pixels | levels | log p of test images, exact | log Z exact | annealed | difference in errors |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        z = (one["log_z_annealed"] - one["log_z_exact"]) / one["log_z_error"] if one["log_z_error"] else float("nan")
        lines.append(
            f"| {one['model']} | {one['side']} x {one['side']} | {one['n_levels']} |"
            f" {_pm(one['nats'], one['standard_error'], 3)} | {one['log_z_exact']:.3f} |"
            f" {_pm(one['log_z_annealed'], one['log_z_error'], 3)} | {z:+.1f} |"
        )
    return [*lines, ""]


def _search(rows: list[Any]) -> list[str]:
    names = sorted(rows[0]["choice"])
    lines = [
        "## Search",
        "",
        f"{len(rows)} short trainings drawn from the space in `configs/search.toml`, best first; nats of validation"
        " images, one look each, so that those of the first are flattered by having been chosen.",
        "",
        f"| {' | '.join(name.split('.')[-1] for name in names)} | log p | one sweep changes | seconds |",
        f"|{'---|' * (len(names) + 3)}",
    ]
    for one in rows:
        if "why" in one:
            lines.append(f"| {' | '.join(str(one['choice'][name]) for name in names)} | diverged: {one['why']} | | |")
            continue
        lines.append(
            f"| {' | '.join(str(one['choice'][name]) for name in names)} | {_pm(one['nats'], one['standard_error'])} |"
            f" {_percent(one['reconstruction_error'])} | {one['seconds']:.0f} |"
        )
    return [*lines, ""]


def _blocks(found: dict[str, Any]) -> list[str]:
    effect = found["effect"]
    lines = [
        "## Blocks",
        "",
        "![blocks](pictures/blocks.png)",
        "![a chain after each block](pictures/block_updates.png)",
        "",
        f"The trained grid of four neighbours in two and in four blocks, {effect['n_chains']} chains of"
        f" {effect['n_samples']:,} states.",
        "",
        "| observable | tau_int, 2 blocks [sweeps] | 4 blocks | difference of the means in errors |",
        "|---|---|---|---|",
    ]
    for name, two in effect["times"]["2"].items():
        four = effect["times"]["4"][name]
        lines.append(
            f"| {name} | {_pm(two['sweeps'], two['standard_error'])} | {_pm(four['sweeps'], four['standard_error'])} |"
            f" {_number(found['z'][name], '+.1f')} |"
        )
    return [*lines, "", "![their effect](pictures/blocks_effect.png)", ""]


def _mixing(found: dict[str, Any]) -> list[str]:
    lines = [
        "## From noise",
        "",
        "Sweeps after which the mean energy stays within three errors of its last value, memory of the energy, and"
        " sweeps by which half of the chains have shown a digit that the CNN recognises with 90 % confidence. The"
        " chain's sweeps are those of all its machines together. Energies are looked at each sweep, and the RBM's at"
        " every tenth, so that its time reads 10 where it is shorter.",
        "",
        "| model | settled | tau_int of the energy [sweeps] | half recognised by | recognised at the end |",
        "|---|---|---|---|---|",
    ]
    for name, one in found.items():
        seen = one.get("recognition", one)
        settled, time = "", ""
        if "trajectory" in one:
            settled = _after(one["trajectory"]["settled"], one["trajectory"]["sweeps"][-1])
            time = _pm(one["memory"]["time"]["sweeps"], one["memory"]["time"]["standard_error"])
        lines.append(
            f"| `{name}` | {settled} | {time} | {_after(seen['median'], seen['sweeps'][-1])} |"
            f" {100 * seen['share'][-1]:.0f} % |"
        )
    lines += ["", "![energies and memory](pictures/mixing.png)"]
    lines += [
        f"![energies of {name}](pictures/energies-{name}.png)" for name, one in found.items() if "trajectory" in one
    ]
    return [*lines, "", "![noise to digits](pictures/animation.gif)", "", "![landscape](pictures/landscape.png)", ""]


def _speed(found: dict[str, Any], epochs: list[Any]) -> list[str]:
    lines = ["## Speed", "", found["table"], ""]
    faster = found["thrml_faster"]
    lines += [
        "THRML takes less time in: " + (", ".join(faster) if faster else "none of these cases") + ".",
        *(f"Left out: {name}: {why}" for name, why in found["left_out"].items()),
        "",
        "![speed](pictures/speed.png)",
        "",
    ]
    for one in epochs:
        kind = f"{one['neighbours']} neighbours, {'tied' if one['tied'] else 'tables for each pair'}"
        seconds = ", ".join(f"{value:.1f}" for value in one["seconds"])
        lines.append(f"An epoch of CD-1 on {one['images']:,} images, {kind}: {seconds} s.")
    return [*lines, ""]


def _joules(found: dict[str, Any]) -> list[str]:
    lines = [
        "## Energy",
        "",
        "| for one image, 1,000 at once | updates | multiply-adds | exponentials | random bits | bytes moved |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in found["work"].items():
        lines.append(
            f"| {name} | {one['updates']:,} | {one['multiply_adds']:,} | {one['exponentials']:,} |"
            f" {one['random_bits']:,} | {one['bytes_moved']:,.0f} |"
        )
    lines += [
        "",
        "Joules of a sample by published figures; nothing of it was measured here. The chain's fields are computed by"
        " the host, whose joules are not in the chips' rows.",
        "",
        "| model | device | status | joules a sample | of updates | provenance | without a figure | has the p-bits |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found["devices"]:
        fits = "" if one["fits"] is None else "yes" if one["fits"] else "no"
        total = _number(one["joules"], ".2g")
        spread = f" ± {one['standard_uncertainty']:.1g}" if one["standard_uncertainty"] else ""
        lines.append(
            f"| {one['model']} | {one['device']} | {one['status']} | {total}{spread} |"
            f" {_number(one['parts'].get('sample'), '.2g')} | {one['provenance']} | {', '.join(one['missing'])} |"
            f" {fits} |"
        )
    metered = found["metered"]
    lines += ["", "![joules](pictures/joules.png)", ""]
    if metered["joules"] is None:
        lines.append(f"By a meter of this computer: none. {metered['why_not']}")
    else:
        u = metered["standard_uncertainty"]
        lines.append(
            f"By {metered['meter']}: {metered['joules']:.3g} ± {_number(u, '.1g')} J an image of the chain on this"
            " computer."
        )
    return [*lines, "", "### The published factor", "", reading(), ""]


def _failed(runs: dict[str, list[Any]], found: dict[str, Any]) -> list[str]:
    """By rules that are the same for all models."""
    alone = {one["n_levels"]: one["independent"]["nats"] for one in found["explore"]["levels"]}
    every = [(f"`{name}`, seed {one['seed']}", one) for name, seeds in runs.items() for one in seeds]
    judged = [(name, one, one["unconditional"]) for name, one in every if "unconditional" in one]
    asked = [(name, one["conditional"]["conditional"]["right"]) for name, one in every if "conditional" in one]
    lists = {
        "A test image is no likelier than by independent pixels": [
            f"{name} ({one['likelihood']['nats']:.1f} nats)"
            for name, one in every
            if one["likelihood"]["nats"] < alone[one["n_levels"]]
        ],
        "A digit is less than 1 % of the free samples": [
            f"{name} ({100 * min(part['share'] for part in free['coverage']):.1f} %)"
            for name, _, free in judged
            if min(part["share"] for part in free["coverage"]) < 0.01
        ],
        "Less than half of the free samples are recognised with 90 % confidence": [
            f"{name} ({100 * free['confident']['share']:.0f} %)"
            for name, _, free in judged
            if free["confident"]["share"] < 0.5
        ],
        "Less than 90 % are recognised as asked": [
            f"{name} ({100 * right['share']:.0f} %)" for name, right in asked if right["share"] < 0.9
        ],
        "Training was stopped early": [name for name, one in every if one["stopped_early"]],
        "Diverged in the search": [
            ", ".join(f"{key.split('.')[-1]} {value}" for key, value in one["choice"].items())
            for one in found["search"]
            if "why" in one
        ],
    }
    lines = ["## What failed", ""]
    lines += [f"- {what}: {'; '.join(who) if who else 'none'}." for what, who in lists.items()]
    return [*lines, ""]


def _pm(value: float | None, error: float | None, digits: int = 1) -> str:
    if value is None:
        return "unknown"
    return f"{value:.{digits}f}" if error is None else f"{value:.{digits}f} ± {error:.{digits}f}"


def _share(part: dict[str, Any]) -> str:
    return f"{100 * part['share']:.1f} % ({100 * part['low']:.1f} to {100 * part['high']:.1f})"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} % of pixels"


def _number(value: float | None, how: str) -> str:
    return "unknown" if value is None else format(value, how)


def _after(value: int | None, last: int) -> str:
    return f"not within {last:,}" if value is None else f"{value:,}"
