"""Sections of the report on what is looked at beside the trainings."""

from __future__ import annotations

import math
from typing import Any

from examples.mnist_ebm.claim import reading
from examples.mnist_ebm.texts import after, number, percent, plus_minus


def exact(rows: list[Any]) -> list[str]:
    """Small models beside their exact sums."""
    lines = [
        "## Where log Z is known exactly",
        "",
        "An RBM's log p is that of the image with any one of the ten labels.",
        "",
        "| model | pixels | levels | log p of test images, exact | log Z exact | annealed | difference in errors |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        z = (one["log_z_annealed"] - one["log_z_exact"]) / one["log_z_error"] if one["log_z_error"] else float("nan")
        lines.append(
            f"| {one['model']} | {one['side']} x {one['side']} | {one['n_levels']} |"
            f" {plus_minus(one['nats'], one['standard_error'], 3)} | {one['log_z_exact']:.4f} |"
            f" {plus_minus(one['log_z_annealed'], one['log_z_error'], 4)} | {z:+.1f} |"
        )
    return [*lines, ""]


def search(rows: list[Any]) -> list[str]:
    """The table of short trainings."""
    names = sorted(rows[0]["choice"])
    lines = [
        "## Search",
        "",
        f"{len(rows)} short trainings drawn from the space in `configs/search.toml`, best first; nats of validation"
        " images, one look each by a short annealed run, so that those of the first are flattered by having been"
        " chosen.",
        "",
        f"| {' | '.join(name.split('.')[-1] for name in names)} | log p | one sweep changes | seconds |",
        f"|{'---|' * (len(names) + 3)}",
    ]
    for one in rows:
        if "why" in one:
            lines.append(f"| {' | '.join(str(one['choice'][name]) for name in names)} | diverged: {one['why']} | | |")
            continue
        lines.append(
            f"| {' | '.join(str(one['choice'][name]) for name in names)} |"
            f" {plus_minus(one['nats'], one['standard_error'])} |"
            f" {percent(one['reconstruction_error'])} | {one['seconds']:.0f} |"
        )
    return [*lines, ""]


def blocks(found: dict[str, Any]) -> list[str]:
    """Two and four blocks."""
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
            f"| {name} | {plus_minus(two['sweeps'], two['standard_error'])} |"
            f" {plus_minus(four['sweeps'], four['standard_error'])} |"
            f" {number(found['z'][name], '+.1f')} |"
        )
    return [*lines, "", "![their effect](pictures/blocks_effect.png)", ""]


def learned(found: dict[str, Any]) -> list[str]:
    """Chains from noise beside chains from data."""
    lines = [
        "## What was learned, and what is reached from noise",
        "",
        "Chains from noise beside chains from test images, after as many sweeps. Where both have the same free energy,"
        " within three or four errors, and R-hat is near 1, they draw the model's own law: what is wrong with it then"
        " is what was learned, not the sampler. An R-hat well above 1.01 says that single chains have not yet seen all"
        " of it. Maximum likelihood asks for the data's pixels, and where nothing is hidden for their energy: the rest"
        " is the moments' residual, with the distance of training from test images as its floor, beside the error of"
        " the chains' own means. Log Z forwards is too low on average, backwards too high, if the chains that it begins"
        " from are of the model's law; with less than ten effective chains its error is too small.",
        "",
        "| model | free energy of test images | chains from noise | from images | difference in errors | R-hat |"
        " recognised: test images | from noise | from images | rms difference of pixels (floor) | log Z forwards |"
        " backwards |",
        f"|{'---|' * 12}",
    ]
    for name, one in found.items():
        noise, images = one["noise"], one["images"]
        z = None
        if noise["standard_error"] is not None and images["standard_error"] is not None:
            z = (noise["free_energy"] - images["free_energy"]) / math.hypot(
                noise["standard_error"], images["standard_error"]
            )
        sides = (
            f"{plus_minus(one[way]['log_z'], one[way]['standard_error'])}"
            f" ({one[way]['effective_chains']:.0f} effective)"
            for way in ("forwards", "backwards")
        )
        lines.append(
            f"| `{name}` | {one['of_data']['free_energy']:.1f} |"
            f" {plus_minus(noise['free_energy'], noise['standard_error'])} |"
            f" {plus_minus(images['free_energy'], images['standard_error'])} | {number(z, '+.1f')} |"
            f" {number(one['rhat'], '.3f')} | {100 * one['of_data']['sure']:.0f} % | {100 * noise['sure']:.0f} % |"
            f" {100 * images['sure']:.0f} % | {one['pixels']:.3f} ({one['pixels_floor']:.3f}) | {' | '.join(sides)} |"
        )
    return [*lines, ""]


def mixing(found: dict[str, Any]) -> list[str]:
    """Energies and recognition from noise."""
    lines = [
        "## From noise",
        "",
        "Sweeps after which the mean energy stays within three errors of its last value; memory of the energy, which is"
        " longer than it reads where R-hat is well above 1.01; and sweeps from which on half of the chains or more are"
        " recognised at each look, with 90 % confidence: the CNN takes some noise for digits too, as the share after"
        " the first look shows. The chain's sweeps are those of all its machines together, and it is looked at after"
        " each machine only. Energies are looked at each sweep, and the RBM's at every tenth, so that its time reads"
        " 10 where it is"
        " shorter.",
        "",
        "| model | settled | tau_int of the energy [sweeps] | R-hat | recognised at the first look | from which on half"
        " are | at the end |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in found.items():
        seen = one.get("recognition", one)
        settled, time, rhat = "", "", ""
        if "trajectory" in one:
            settled = after(one["trajectory"]["settled"], one["trajectory"]["sweeps"][-1])
            time = plus_minus(one["memory"]["time"]["sweeps"], one["memory"]["time"]["standard_error"])
            rhat = number(one["memory"]["time"]["rhat"], ".3f")
        lines.append(
            f"| `{name}` | {settled} | {time} | {rhat} | {100 * seen['share'][0]:.0f} % after {seen['sweeps'][0]} |"
            f" {after(seen['median'], seen['sweeps'][-1])} | {100 * seen['share'][-1]:.0f} % |"
        )
    lines += ["", "![energies and memory](pictures/mixing.png)"]
    lines += [
        f"![energies of {name}](pictures/energies-{name}.png)" for name, one in found.items() if "trajectory" in one
    ]
    return [*lines, "", "![noise to digits](pictures/animation.gif)", "", "![landscape](pictures/landscape.png)", ""]


def warmup(found: dict[str, Any]) -> list[str]:
    """Quality against sweeps."""
    lines = [
        "## How long from noise",
        "",
        "Share recognised as the digit asked for, and FID, after so many sweeps of all machines together;"
        f" {', '.join(sorted({format(one['n'], ',') for one in found.values()}))} images each, so that these FIDs"
        " compare among themselves only.",
        "",
    ]
    for name, one in found.items():
        rows = one["rows"]
        lines += [
            f"| `{name}`, sweeps | {' | '.join(format(row['sweeps'], ',') for row in rows)} |",
            f"|---|{'---|' * len(rows)}",
            f"| as asked | {' | '.join(format(100 * row['right'], '.1f') + ' %' for row in rows)} |",
            f"| FID | {' | '.join(format(row['fid'], '.0f') for row in rows)} |",
            "",
        ]
    return [*lines, "![how long from noise](pictures/warmup.png)", ""]


def substrates(found: dict[str, Any]) -> list[str]:
    """Devices beside each other."""
    lines = [
        "## The same job everywhere",
        "",
        "Each trained grid, one job with one seed on every device there is, 100 sweeps from random states, which is"
        " before equilibrium; two levels as p-bits, more as p-dits.",
        "",
        "| model | device | states | mean energy | difference in errors |",
        "|---|---|---|---|---|",
    ]
    for name, devices in found.items():
        for address, one in devices.items():
            if "why_not" in one:
                lines.append(f"| `{name}` | `{address}`, {one['what']} | did not run: {one['why_not']} | | |")
                continue
            same = "the same, bit for bit" if one["same"] else "others"
            z = "" if one["z"] is None else format(one["z"], "+.1f")
            energy = plus_minus(one["energy"], one["standard_error"])
            lines.append(f"| `{name}` | `{address}`, {one['what']} | {same} | {energy} | {z} |")
    return [*lines, ""]


def speed(found: dict[str, Any], epochs: list[Any]) -> list[str]:
    """Sweeps and epochs."""
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


def joules(found: dict[str, Any]) -> list[str]:
    """Work and joules."""
    lines = [
        "## Energy",
        "",
        "| for each of 1,000 chains at once | updates | multiply-adds | exponentials | random bits | bytes moved |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in found["work"].items():
        lines.append(
            f"| {name} | {one['updates']:,} | {one['multiply_adds']:,} | {one['exponentials']:,} |"
            f" {one['random_bits']:,} | {one['bytes_moved']:,.0f} |"
        )
    lines += [
        "",
        "Joules of a sample by published figures; nothing of it was measured here. Where the device lacks what the"
        " model needs, the row is counts times figures of a device that could not run it as it is. The chain's fields"
        " are computed by a host, whose joules are not in the chips' rows: those of the row `chain, its fields alone`"
        " come on top.",
        "",
        "| model | device | status | joules a sample | of updates | provenance | without a figure | needs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found["devices"]:
        total = number(one["joules"], ".2g")
        spread = f" ± {one['standard_uncertainty']:.1g}" if one["standard_uncertainty"] else ""
        lines.append(
            f"| {one['model']} | {one['device']} | {one['status']} | {total}{spread} |"
            f" {number(one['parts'].get('sample'), '.2g')} | {one['provenance']} | {', '.join(one['missing'])} |"
            f" {'; '.join(one['lacks'])} |"
        )
    metered = found["metered"]
    lines += ["", "![joules](pictures/joules.png)", ""]
    if metered["joules"] is None:
        lines.append(f"By a meter of this computer: none. {metered['why_not']}")
    else:
        u = metered["standard_uncertainty"]
        lines.append(
            f"By {metered['meter']}: {metered['joules']:.3g} ± {number(u, '.1g')} J an image of the chain on this"
            " computer."
        )
    return [*lines, "", "### The published factor", "", reading(), ""]
