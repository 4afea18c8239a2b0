"""Bias and variance of each gradient estimator: `python -m benchmarks.gradients [--output benchmarks/results]`.

Four small models whose exact gradient is known by enumeration (glauber.torch.gradient_probe): a cost that is linear in
its bits, a quadratic one, a network on p-bits, and a restricted Boltzmann machine. Thousands of estimates of each make
a bias of a few thousandths visible. An estimator "agrees" where Hotelling's T^2 does not tell its mean from the exact
gradient at a false-alarm rate of 1e-6.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import glauber as gl
import torch
from glauber.torch import BinaryLayer, GradientReport, PbitLinear, RestrictedBoltzmannMachine, Sampler, gradient_probe
from rich.progress import track
from torch import Tensor

from benchmarks.machine import provenance, write

ADDRESS = "sim://ideal"
SEED = 11
ALPHA = 1e-6
LOGITS = ((0.3, -1.2, 2.0, 0.0), (-0.5, 0.7, 0.0, -3.0))
STATED = {
    "linear cost": (),
    "quadratic cost": ("straight-through",),
    "network on p-bits": ("straight-through",),
    "restricted Boltzmann machine": ("cd-1", "cd-10"),
}
"""The cases, and the estimators whose documentation says that they are biased there."""


def linear(bits: Tensor) -> Tensor:
    """1 + b . (1, -2, 0.5, 0.3)."""
    return bits @ torch.tensor([1.0, -2.0, 0.5, 0.3]).to(bits) + 1


def quadratic(bits: Tensor) -> Tensor:
    """(sum b - 1.3)^2."""
    return (bits.sum(-1) - 1.3) ** 2


def network(spins: Tensor) -> Tensor:
    """|tanh(W s)|^2 with W a fixed Gaussian matrix of 8 columns."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(spins.shape[-1], 8, generator=generator).to(spins)
    return torch.tanh(spins @ first).square().sum(-1)


def probes(device: gl.Device, n_repeats: int) -> dict[str, Callable[[], GradientReport]]:
    """The four cases by name."""
    sampler = Sampler(device, SEED)
    logits = torch.tensor(LOGITS)
    torch.manual_seed(2)
    layer = PbitLinear(3, 5, sampler)
    inputs = torch.randn(4, 3)
    torch.manual_seed(3)
    machine = RestrictedBoltzmannMachine(4, 3, sampler)
    machine.couplings.data = 0.8 * torch.randn(12)
    data = 2.0 * torch.randint(0, 2, (20, 4)) - 1
    found = (
        lambda: gradient_probe(BinaryLayer(sampler), logits, linear, n_repeats=n_repeats),
        lambda: gradient_probe(BinaryLayer(sampler), logits, quadratic, n_repeats=n_repeats),
        lambda: gradient_probe(layer, inputs, network, n_repeats=n_repeats),
        lambda: gradient_probe(machine, data, n_samples=16, n_repeats=n_repeats),
    )
    return dict(zip(STATED, found, strict=True))


def surprises(case: str, report: GradientReport) -> list[str]:
    """Estimators that agree with the exact gradient though they are stated to be biased, or the other way round."""
    return [
        f"{case}: {row.estimator} {'agrees with' if row.p_value > ALPHA else 'differs from'} the exact gradient,"
        f" p {row.p_value:.2g}"
        for row in report.rows
        if (row.p_value > ALPHA) == (row.estimator in STATED[case])
    ]


def markdown(result: dict[str, Any]) -> str:
    """The results as a page."""
    lines = [
        "# Gradient estimators against the exact gradient",
        "",
        f"`{result['command']}`, {result['date'][:10]}, {result['cpu']}, Python {result['python']}, torch"
        f" {result['versions']['torch']}; device `{result['device']}`, seed {result['seed']};"
        f" {result['n_repeats']:,} estimates of each.",
        "",
        'Bias is |mean estimate - exact| over |exact|; "by chance" is what it comes to for an unbiased estimator of'
        ' that variance; p is of the hypothesis that there is no bias (Hotelling\'s T^2), and "agrees" where it is'
        f" above {result['alpha']:g}. Variance is of one estimate, summed over the gradient's numbers, over |exact|^2."
        " Draws are states of the layer in one estimate, evaluations those of the cost.",
    ]
    for case, report in result["cases"].items():
        lines += ["", f"## {case[0].upper()}{case[1:]}", ""]
        lines += [
            "| estimator | bias | by chance | p | | variance | draws | evaluations |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {row['estimator']} | {row['bias']:.2g} | {row['noise_floor']:.2g} | {row['p_value']:.2g} |"
            f" {'agrees' if row['p_value'] > result['alpha'] else 'biased'} | {row['variance']:.3g} | {row['draws']} |"
            f" {row['evaluations']} |"
            for row in report["rows"]
        ]
    return "\n".join([*lines, ""])


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5000, help="estimates by each estimator")
    parser.add_argument("--output", type=Path, help="folder for gradients.json and .md; nothing is written without")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with gl.open_device(ADDRESS, seed=SEED) as device:
        reports = {case: probe() for case, probe in track(probes(device, given.repeats).items(), description="models")}
    wrong = [text for case, report in reports.items() for text in surprises(case, report)]
    result = {
        **provenance(("glauber", "numpy", "torch")),
        "device": ADDRESS,
        "seed": SEED,
        "n_repeats": given.repeats,
        "alpha": ALPHA,
        "cases": {case: report.as_dict() for case, report in reports.items()},
        "wrong": wrong,
    }
    page = markdown(result)
    print(page)
    if given.output is not None:
        write(given.output / "gradients.json", result)
        (given.output / "gradients.md").write_text(page, encoding="utf-8")
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
