"""Thermodynamic attention beside softmax: `python -m benchmarks.attention [--output benchmarks/results]`.

A causal self-attention of 8 heads over 512 tokens, width 512. Three questions:

- How does the error of the mean over n draws fall? Root mean square over all outputs before the last projection, for n
  from 1 to 1024, with the slope of log error over log n and its error.
- Is it unbiased? The mean score of the drawn keys of each of the 4,096 rows, less that of softmax, over its stated
  standard error, by chi-square at alpha 1e-6, at 256 draws and in double precision; the mean score feels a wrong
  beta most, and with beta wrong by 5 % the test must fail. Beside it the proven bound of one draw's total variation.
- What does it cost? In turns, round by round, on one thread of torch and one of the device: the softmax of the scores
  alone, the whole layer with softmax, and the whole layer with 32 draws; the medians of the rounds' ratios. Beside them
  the time of one device call for a single query, head and draw, times the 131,072 of them that a layer took which asks
  its backend for each.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import glauber as gl
import numpy as np
import torch
from glauber.torch import Sampler, ThermodynamicAttention, attention_weights, deterministic
from scipy.stats import chi2

from benchmarks.machine import provenance, write

HEADS, LENGTH, WIDTH, DRAWS = 8, 512, 512, 32
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
ROUNDS = 21
CALLS = HEADS * LENGTH * DRAWS
ALPHA = 1e-6


def tensors(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values of unit variance, (1, HEADS, LENGTH, 64), and the causal mask."""
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(1, HEADS, LENGTH, WIDTH // HEADS, generator=generator, dtype=dtype) for _ in range(3)]
    return made[0], made[1], made[2], torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()


def error_slope(sampler: Sampler) -> dict[str, Any]:
    """Root mean square error by number of draws, and the slope of its logarithm."""
    query, key, value, causal = tensors(torch.float64)
    with deterministic():
        exact = attention_weights(query, key, sampler=sampler, allowed=causal) @ value
    errors, looked_ahead = [], 0
    for n in COUNTS:
        weights = attention_weights(query, key, sampler=sampler, n_samples=n, allowed=causal)
        looked_ahead += int((weights.masked_select(~causal) != 0).sum())
        errors.append(float((weights @ value - exact).square().mean().sqrt()))
    (slope, _), covariance = np.polyfit(np.log(COUNTS), np.log(errors), 1, cov=True)
    return {
        "draws": COUNTS,
        "rms_error": errors,
        "slope": float(slope),
        "slope_standard_error": float(np.sqrt(covariance[0, 0])),
        "draws_of_masked_keys": looked_ahead,
    }


def bias(sampler: Sampler) -> dict[str, Any]:
    """Chi-square of the rows' deviations over their stated errors, for the right and a wrong temperature."""
    query, key, _, causal = tensors(torch.float64)
    n = 256
    scale = 1 / math.sqrt(WIDTH // HEADS)
    score = scale * query @ key.transpose(-2, -1)
    with deterministic():
        exact = (attention_weights(query, key, sampler=sampler, allowed=causal) * score).sum(-1)
    found = {}
    for name, beta in (("beta as asked", scale), ("beta 5 % too large", 1.05 * scale)):
        weights = attention_weights(query, key, sampler=sampler, n_samples=n, beta=beta, allowed=causal)
        mean = (weights * score).sum(-1)
        error = (((weights * score**2).sum(-1) - mean**2).clamp(min=0) / (n - 1)).sqrt()
        several = error > 0  # the first query has one key only
        z = ((mean - exact) / error)[several]
        found[name] = {"chi_square": float((z**2).sum()), "rows": z.numel(),
                       "p": float(chi2.sf(float((z**2).sum()), z.numel()))}  # fmt: skip
    return {"draws": n, "alpha": ALPHA, "total_variation_bound": sampler.total_variation_bound(), **found}


def cost(device: gl.Device) -> dict[str, Any]:
    """Seconds of softmax and of drawn attention, in turns."""
    torch.manual_seed(0)
    layer = ThermodynamicAttention(WIDTH, HEADS, device, n_samples=DRAWS)
    x = torch.randn(1, LENGTH, WIDTH)
    query, key, _, causal = tensors(torch.float32)
    scores = (query @ key.transpose(-2, -1) / 8).masked_fill(~causal, -math.inf)

    def softmax_layer() -> object:
        with deterministic():
            return layer(x, causal=True)

    contenders: dict[str, Callable[[], object]] = {
        "softmax of the scores": lambda: torch.softmax(scores, -1),
        "layer with softmax": softmax_layer,
        "layer with 32 draws": lambda: layer(x, causal=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with torch.no_grad():
        for call in contenders.values():
            call()
        before = layer.sampler.usage.jobs
        for _ in range(ROUNDS):
            for name, call in contenders.items():
                began = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - began)
        jobs = (layer.sampler.usage.jobs - before) / ROUNDS
        single = []
        for row in range(300):
            began = time.perf_counter()
            layer.sampler.categorical(scores[0, 0, row + 1, : row + 2])
            single.append(time.perf_counter() - began)
    drawn = seconds["layer with 32 draws"]

    def ratio(name: str) -> float:
        return statistics.median(a / b for a, b in zip(drawn, seconds[name], strict=True))

    return {
        "rounds": ROUNDS,
        "threads": 1,
        "median_seconds": {name: statistics.median(each) for name, each in seconds.items()},
        "device_jobs_per_layer": jobs,
        "ratio_to_softmax_of_the_scores": ratio("softmax of the scores"),
        "ratio_to_layer_with_softmax": ratio("layer with softmax"),
        "one_call_for_each_draw": {
            "calls": CALLS,
            "median_seconds_of_one": statistics.median(single),
            "seconds_of_all": CALLS * statistics.median(single),
        },
    }


def lines(result: dict[str, Any]) -> str:
    """The result as a page."""
    slope, unbiased, paid = result["error"], result["bias"], result["cost"]
    seconds = paid["median_seconds"]
    many = paid["one_call_for_each_draw"]
    right, wrong = unbiased["beta as asked"], unbiased["beta 5 % too large"]
    return "\n".join([
        "# Thermodynamic attention",
        "",
        f"{result['provenance']['cpu']}, {result['provenance']['date']},"
        f" `{result['provenance']['command']}`. 8 heads, 512 tokens, width 512, causal, one thread.",
        "",
        "| draws | root mean square error of the output |",
        "|---|---|",
        *(f"| {n} | {error:.4f} |" for n, error in zip(slope["draws"], slope["rms_error"], strict=True)),
        "",
        f"Slope {slope['slope']:.4f} ± {slope['slope_standard_error']:.4f} (one standard error); masked keys drawn:"
        f" {slope['draws_of_masked_keys']}.",
        "",
        f"Bias at {unbiased['draws']} draws, chi-square over {right['rows']} rows: p = {right['p']:.3g}"
        f" (alpha {unbiased['alpha']:g}); with beta 5 % too large p = {wrong['p']:.3g}. One draw's law is within"
        f" {unbiased['total_variation_bound']:.2g} of the asked one in total variation, proven.",
        "",
        "| what | ms |",
        "|---|---|",
        *(f"| {name} | {1000 * value:.2f} |" for name, value in seconds.items()),
        f"| one device call for each draw: {many['calls']:,} calls of {1e6 * many['median_seconds_of_one']:.0f} us |"
        f" {1000 * many['seconds_of_all']:,.0f} |",
        "",
        f"The layer with 32 draws is {paid['device_jobs_per_layer']:g} device job and takes"
        f" {paid['ratio_to_layer_with_softmax']:.2f} times the layer with softmax, and"
        f" {paid['ratio_to_softmax_of_the_scores']:.1f} times the softmax of the scores alone (medians of"
        f" {paid['rounds']} rounds in turns).",
        "",
    ])  # fmt: skip


def main() -> None:
    """Measure, and write JSON and a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="folder for attention.json and attention.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with gl.open_device("sim://ideal?seed=1") as device:
        sampler = Sampler(device)
        result: dict[str, Any] = {"error": error_slope(sampler), "bias": bias(sampler), "cost": cost(device)}
    result["provenance"] = provenance(("glauber", "torch", "numpy"))
    text = lines(result)
    print(text)
    if arguments.output is not None:
        write(arguments.output / "attention.json", result)
        (arguments.output / "attention.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
