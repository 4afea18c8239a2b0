"""RESULTS.md from the figures alone: each device's mean and interval, and the test that they agree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.stats import ttest_ind

from examples.intervals import interval

ALPHA = 0.01
"""False-alarm rate of all comparisons of a page together."""
COMPARED = {"valid": "share of bars and stripes", "divergence": "KL divergence"}

Rows = Sequence[Mapping[str, Any]]


def identical(rows: Rows, others: Rows) -> bool:
    """Whether two devices ended with the same parameters and drew the same images, bit for bit, from every seed."""
    return all(
        one["parameters"] == other["parameters"] and one["samples"] == other["samples"]
        for one, other in zip(rows, others, strict=True)
    )


def p_values(devices: Mapping[str, Rows]) -> dict[str, dict[str, float]]:
    """Of equal means (Welch's t test) of each device that is not bit-identical to the first one, and the first one."""
    (_, first), *rest = devices.items()
    return {
        address: {name: _welch([row[name] for row in first], [row[name] for row in rows]) for name in COMPARED}
        for address, rows in rest
        if not identical(first, rows) and len(rows) > 1
    }


def _welch(values: Sequence[float], others: Sequence[float]) -> float:
    if not all(map(math.isfinite, [*values, *others])):
        return math.nan  # an image was never drawn: no mean to compare
    found: Any = ttest_ind(values, others, equal_var=False)
    return float(found.pvalue)


def agree(devices: Mapping[str, Rows], alpha: float = ALPHA) -> bool:
    """Whether no test rejects at alpha over the number of tests (Bonferroni)."""
    found = [p for each in p_values(devices).values() for p in each.values()]
    return all(p >= alpha / len(found) for p in found)


def markdown(figures: Mapping[str, Any]) -> str:
    """The results as a page."""
    devices: dict[str, Rows] = figures["devices"]
    first, *rest = devices
    lines = [
        "# Results",
        "",
        f"`{figures['command']}`, {figures['date'][:10]}, {figures['cpu']}, {figures['cores']} cores, Python"
        f" {figures['python']}, torch {figures['versions']['torch']}. {figures['steps']} steps, seeds"
        f" {', '.join(str(row['seed']) for row in devices[first])}.",
        "",
        f"Mean and 95 % interval over the seeds. {figures['images']:,} images for each seed were drawn on the device"
        " itself from fresh chains. The share of bars and stripes would be 14/512 = 0.0273 by chance. KL divergence is"
        " from the data to the drawn images, in nats. The log-likelihood is of the parameters by enumeration, in nats"
        f" an image, -log 14 = {-math.log(14):.4f} at best; it is that of the device's images only where the device"
        " has no flaws.",
        "",
        "| device | bars and stripes | KL divergence | log-likelihood of the parameters |",
        "|---|---|---|---|",
    ]
    for address, rows in devices.items():
        cells = [interval([row[name] for row in rows], 4) for name in ("valid", "divergence", "log_likelihood")]
        lines.append(f"| `{address}` | {' | '.join(cells)} |")
    lines.append("")
    tests = p_values(devices)
    level = ALPHA / max(1, len(COMPARED) * len(tests))
    for address in rest:
        if identical(devices[first], devices[address]):
            lines.append(
                f"- `{address}` and `{first}`: from every seed the same final parameters and the same images, bit for"
                " bit."
            )
        elif address in tests:
            each = ", ".join(f"p = {tests[address][name]:.2g} for the {text}" for name, text in COMPARED.items())
            agreed = all(p >= level for p in tests[address].values())  # NaN, of an infinite divergence, is no agreement
            verdict = "agree" if agreed else "differ"
            lines.append(
                f"- `{address}` and `{first}` {verdict}: {each} (Welch's t test over the seeds; below {level:.2g} they"
                f" differ, {ALPHA:g} over all tests of this page). The parameters are others, as they undo the"
                " device's flaws: it is the law of its images that is alike."
            )
        else:
            lines.append(
                f"- `{address}` and `{first}`: not bit-identical; two seeds or more are needed to compare them."
            )
    return "\n".join([*lines, ""])
