"""RESULTS.md and results.json, from what the stages have kept."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from examples.intervals import interval
from examples.mnist_ebm import sections
from examples.mnist_ebm.chain import TOLERANCE
from examples.mnist_ebm.files import write_whole
from examples.mnist_ebm.texts import number, plus_minus, share

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
            " Each trained model is a file in `configs/`; the small models of the exact sums, the grids of single"
            " digits and the epochs that are timed are in `stages.py`. Stages ran at different times beside different"
            " other work, so that times compare within the table of speed only, where the samplers take turns.",
            "",
        ],
        _data(found["explore"]),
        _models(runs, found["explore"]),
        _quality(runs),
        _conditional(runs, found["digits"]),
        sections.exact(found["exact"]),
        sections.search(found["search"]),
        sections.blocks(found["blocks"]),
        sections.learned(found["learned"]),
        sections.mixing(found["mixing"]),
        sections.warmup(found["warmup"]),
        sections.substrates(found["substrates"]),
        sections.speed(found["speed"], found["epoch"]),
        sections.joules(found["joules"]),
        _asked(runs, found),
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
            f"| {one['n_levels']} | {100 * one['never_change']:.1f} % |"
            f" {plus_minus(alone['nats'], alone['standard_error'])} |"
            f" {plus_minus(given['nats'], given['standard_error'])} |"
        )
    return [*lines, ""]


def _models(runs: dict[str, list[Any]], explored: dict[str, Any]) -> list[str]:
    lines = [
        "## Log-likelihood of test images",
        "",
        "In nats, with standard errors (images, and the estimate of log Z); over seeds with Student's 95 % interval, in"
        " which there is the spread of images too, as each seed takes test images of its own. Where few chains are"
        " effective, ten or less, log Z is likely found too low and log p too high, by more than the error says. The"
        " chain's error is that of its images alone; its annealed log Z acts upwards, by at most"
        f" {TOLERANCE:g} nats for each machine as far as repeats tell. Models of different numbers of levels have"
        " different data and compare with their own independent pixels. With the label, a model tells the digit as well"
        f" as the image: independent pixels and an independent label have {math.log(10):.1f} nats less than the pixels"
        " alone. With the label summed, it is the image with any one of the ten labels, but not with p-bits that name"
        " none.",
        "",
        "| model | levels | parameters | log p | each seed | how | epochs' seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in explored["levels"]:
        alone = one["independent"]
        lines.append(
            f"| independent pixels | {one['n_levels']} | {784 * (one['n_levels'] - 1):,} | {alone['nats']:.1f} |"
            f" {plus_minus(alone['nats'], alone['standard_error'])} | exact | |"
        )
    for name, seeds in runs.items():
        nats = [one["likelihood"] for one in seeds]
        seconds = ", ".join(format(one["training_seconds"], ".0f") for one in seeds)
        lines.append(
            f"| {seeds[0]['title']} (`{name}`) | {seeds[0]['n_levels']} | {seeds[0]['parameters']:,} |"
            f" {interval([one['nats'] for one in nats], 1)} |"
            f" {', '.join(plus_minus(one['nats'], one['standard_error']) for one in nats)} |"
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
        "All in black and white. Models that are told the digit (the chain, the autoencoder) draw it first, so that"
        " their shares of digits are as they were set; those of the others are learned."
        " FID and KID on the features of this example's own CNN: they compare with one another"
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
                f"| `{name}`, seed {one['seed']} | {share(least)} | {share(judged['confident'])} |"
                f" {fid['value']:.1f} ({fid['low']:.1f} to {fid['high']:.1f}) |"
                f" {plus_minus(kid['value'], kid['standard_error'])} |"
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
            f"| real images | {100 * min(real['coverage_real']):.1f} % | {share(real['confident_real'])} |"
            f" floor {fid['floor']:.1f} | {plus_minus(kid['floor'], kid['floor_error'])} |"
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
            given = [digit for digit in range(10) if by_digit[digit] is not None]
            worst = min(given, key=lambda digit: by_digit[digit]["share"])
            lines.append(
                f"| `{name}`, seed {one['seed']} | {share(asked['right'])} | {worst}: {share(by_digit[worst])} |"
                f" {one['conditional']['fid']['value']:.1f} |"
            )
    hits = [one["right"]["share"] for one in digits]
    worst = min(range(10), key=lambda digit: hits[digit])
    lines += [
        f"| ten grids of 8 neighbours, one for each digit | {100 * sum(hits) / 10:.1f} %, mean of digits | {worst}:"
        f" {share(digits[worst]['right'])} | |",
        "",
        "![asked for and recognised](pictures/confusion.png)",
        "![samples and their nearest training images](pictures/neighbours.png)",
        "",
    ]
    return lines


def _asked(runs: dict[str, list[Any]], found: dict[str, Any]) -> list[str]:
    """What the predecessor's plan set as its aims, beside what is."""
    rows = {
        (row["weights"], row["side"], row["n_chains"]): row
        for row in reversed(found["speed"]["rows"])  # the device's own are first
    }
    step = rows.get(("tied", 28, 1), {"milliseconds": None})
    batch = max((key[2] for key in rows if key[:2] == ("tied", 28)), default=0)
    jobs, same, apart, error = 0, 0, 0.0, 0.0
    for devices in found["substrates"].values():
        first = next(iter(devices.values()))
        for one in devices.values():
            if "energy" not in one:
                continue
            jobs, same = jobs + 1, same + one["same"]
            percent = 100 * abs(one["energy"] - first["energy"]) / abs(first["energy"])
            if percent > apart:
                u = math.hypot(one["standard_error"], first["standard_error"])
                apart, error = percent, 100 * u / abs(first["energy"])
    epoch = max(max(one["seconds"]) for one in found["epoch"])
    lines = [
        "## What the plan asked for",
        "",
        "| aim | found |",
        "|---|---|",
        f"| a Gibbs step of the 28 x 28 grid in less than 1 ms | {number(step['milliseconds'], '.4f')} ms |",
        f"| an epoch on 10,000 images in less than 60 s | {epoch:.1f} s on {found['epoch'][0]['images']:,} images |",
        f"| batches of 100 and more | {batch} chains in the table of speed |",
        f"| energies of all samplers within 1 % | {same} of {jobs} jobs of the table above have the same states, and so"
        f" the same energies; mean energies with other random numbers are {apart:.1f} ± {error:.1f} % away at most |",
    ]
    return [*lines, ""]


def _failed(runs: dict[str, list[Any]], found: dict[str, Any]) -> list[str]:
    """By rules that are the same for all models."""
    alone = {one["n_levels"]: one["independent"]["nats"] for one in found["explore"]["levels"]}
    every = [(f"`{name}`, seed {one['seed']}", one) for name, seeds in runs.items() for one in seeds]
    judged = [(name, one, one["unconditional"]) for name, one in every if "unconditional" in one]
    asked = [(name, one["conditional"]["conditional"]["right"]) for name, one in every if "conditional" in one]
    lists = {
        "A test image is no likelier than by independent pixels, by two errors; with the label, as one independent of"
        " them": [
            f"{name} ({plus_minus(one['likelihood']['nats'], one['likelihood']['standard_error'])} nats)"
            for name, one in every
            if one["likelihood"]["nats"] - 2 * one["likelihood"]["standard_error"]
            < alone[one["n_levels"]] - (math.log(10) if "with the label" in one["likelihood"]["how"] else 0)
        ],
        "A digit is less than 5 % of the free samples": [
            f"{name} ({100 * min(part['share'] for part in free['coverage']):.1f} %)"
            for name, _, free in judged
            if min(part["share"] for part in free["coverage"]) < 0.05
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
