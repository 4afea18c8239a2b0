"""RESULTS.md and the picture of the training curves, from the figures alone."""

from __future__ import annotations

import math
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from examples.intervals import interval


def markdown(figures: dict[str, Any]) -> str:
    """The results as a page."""
    rows = figures["rows"]
    names = [name for name in rows[0] if "," in name and not name.startswith("difference")]
    perplexities = {name: [math.exp(row[name]["nats"]) for row in rows] for name in names}
    draws = figures["samples"]
    key = f"difference, {draws} draws"
    lines = [
        "# Results",
        "",
        f"Command: `{figures['command']}`, {datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, device"
        f" `{figures['device']}`. Text: {figures['corpus']}, {figures['characters']['train']:,} characters to learn"
        f" from, {figures['characters']['measured']:,} of other documents to measure on. {figures['parameters']:,}"
        f" parameters, {figures['steps']} steps, seeds {', '.join(map(str, figures['seeds']))}.",
        "",
        "Perplexity per character (smaller is better): mean and 95 % interval over the seeds.",
        "",
        "| trained with | measured with | perplexity | each seed |",
        "|---|---|---|---|",
    ]
    for name, values in perplexities.items():
        trained, measured = name.split(", ")
        shown = f"{draws} draws" if trained == "thermodynamic" else "softmax"
        lines.append(
            f"| {shown} | {measured} | {interval(values, 3)} | {', '.join(f'{value:.3f}' for value in values)} |"
        )
    lines += [
        f"| bigrams, counted | | {math.exp(figures['bigram_nats']):.3f} | |",
        f"| single characters, counted | | {math.exp(figures['unigram_nats']):.3f} | |",
        "",
    ]
    if key in rows[0]:
        ratios = [math.exp(row[key]["nats"]) for row in rows]
        low = [math.exp(row[key]["nats"] - 1.96 * row[key]["standard_error"]) for row in rows]
        high = [math.exp(row[key]["nats"] + 1.96 * row[key]["standard_error"]) for row in rows]
        each = ", ".join(f"{r:.4f} ({a:.4f} to {b:.4f})" for r, a, b in zip(ratios, low, high, strict=True))
        lines += [
            f"Drawn attention over its softmax twin, window by window: the ratio of perplexities is"
            f" {interval(ratios, 3)} over seeds; each seed with the 95 % interval over windows: {each}.",
            "",
        ]
    each, usage = figures["seconds_per_step"], figures["device_usage"]
    took = [
        f"{1000 * value:.0f} ms a step {how}"
        for how, value in (("with draws", each["thermodynamic"]), ("with softmax", each["softmax"]))
        if value is not None
    ]
    lines += [
        f"Training took {' and '.join(took) or 'no time: all was there already'}, one after the other. Device:"
        f" {usage['text']}; {usage['updates']:,} p-dits drawn in the {figures['steps_with_draws']:,} steps with draws"
        " that this run did. Joules are stated only where the device publishes figures or a meter is attached.",
        "",
        "A text that the first seed's model wrote, all of it drawn by the device, after a prompt of 32 characters:",
        "",
        *("    " + line for line in figures["text"].splitlines()),
        "",
    ]
    return "\n".join(lines)


def draw(path: Path, figures: dict[str, Any]) -> None:
    """Curves of the first seed's steps in this run, means over 50 of them, with the bigram model's level."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for kind, curve in figures["curves"].items():
        axes.plot(curve["begin"] + 50 * np.arange(1, len(curve["losses"]) + 1), curve["losses"], label=kind)
    axes.axhline(figures["bigram_nats"], color="grey", linestyle="--", label="bigrams")
    axes.set_xlabel("step")
    axes.set_ylabel("training loss (nats per character)")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
