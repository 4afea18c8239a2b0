"""Train, generate, complete, classify, and write the report: python -m examples.digits --out out/digits."""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import glauber as gl
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from threadpoolctl import threadpool_limits

from examples.digits import data as digits
from examples.digits.data import N_CLASSES, N_PIXELS, N_VISIBLE, Digits, Floats
from examples.digits.rbm import Rbm
from examples.digits.report import COLUMNS, draw, lines
from examples.digits.train import DeviceChains, NumpyChains, Trained, start_states, train

GIBBS_SWEEPS = 300
RESTARTS = 16
"""Chains per half-hidden digit; the picture shows their mean."""


def anneal() -> tuple[float, ...]:
    """Beta from 0.5 to 1 in the first half, then 1: chains that start at random find the digits faster so."""
    return tuple(np.minimum(1.0, 0.5 + np.arange(1, GIBBS_SWEEPS + 1) / GIBBS_SWEEPS).tolist())


def conditional(chains: DeviceChains, rbm: Rbm, held: Floats) -> Floats:
    """Pixels drawn from p(free units | held ones): one clamped job, a chain per row of `held` (0 where free)."""
    model = chains.model(rbm)
    clamp = np.zeros((len(held), model.n_sites), dtype=np.int8)
    clamp[:, :N_VISIBLE] = held
    schedule = gl.AnnealingSchedule(table=anneal(), n_chains=len(held))
    samples = chains.count(chains.device.submit(model, schedule, clamp=clamp, observe="last").result())
    return samples.last[:, :N_PIXELS].astype(np.float32)


def generate(chains: DeviceChains, rbm: Rbm) -> Floats:
    """COLUMNS digits of each class, with the label units clamped."""
    held = np.zeros((N_CLASSES * COLUMNS, N_VISIBLE), dtype=np.float32)
    held[:, N_PIXELS:] = digits.label_spins(np.repeat(np.arange(N_CLASSES), COLUMNS))
    return conditional(chains, rbm, held)


def complete(chains: DeviceChains, rbm: Rbm, data: Digits) -> dict[str, Floats]:
    """One held-out digit of each class with its lower half and label free."""
    pixels = digits.to_spins(data.test_grey)
    whole = np.stack([pixels[data.test_labels == digit][0] for digit in range(N_CLASSES)])
    half = whole.copy()
    half[:, N_PIXELS // 2 :] = 0
    held = np.zeros((N_CLASSES * RESTARTS, N_VISIBLE), dtype=np.float32)
    held[:, :N_PIXELS] = np.repeat(half, RESTARTS, axis=0)
    drawn = conditional(chains, rbm, held).reshape(N_CLASSES, RESTARTS, N_PIXELS)
    return {"real": whole, "held": half, "one draw": drawn[:, 0], f"mean of {RESTARTS}": drawn.mean(axis=1)}


def log_likelihood(rbm: Rbm, data: Digits, seed: int) -> dict[str, float]:
    """Mean log p(pixels, label) with the error of log Z and of the finite test set."""
    train_v = digits.visible(data.train_grey, data.train_labels)
    test_v = digits.visible(data.test_grey, data.test_labels)
    base = np.arctanh(np.clip(train_v.mean(axis=0), -0.98, 0.98)).astype(np.float32)
    log_z, error = rbm.log_partition(base, seed)
    each = rbm.log_weight(test_v).astype(np.float64) - log_z
    return {
        "train": float(rbm.log_weight(train_v).astype(np.float64).mean() - log_z),
        "test": float(each.mean()),
        "standard_error": float(np.hypot(error, each.std(ddof=1) / np.sqrt(len(each)))),
        "log_partition": log_z,
        "log_partition_standard_error": error,
    }


def main() -> int:
    """Run the example; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.digits", description=__doc__)
    parser.add_argument("--device", default="sim://pbit-rbm-512", help="address of a device with a bipartite graph")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of split and training")
    parser.add_argument("--updates", type=int, default=3000, help="minibatches per seed, a job each")
    parser.add_argument("--no-numpy", action="store_true", help="leave the float NumPy twin out")
    parser.add_argument("--out", type=Path, default=Path("out/digits"), help="folder of report.png and report.json")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    if arguments.updates < 1:
        parser.error("--updates must be at least 1")
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        figures = run(arguments, console)
    except KeyboardInterrupt:
        console.print("stopped; nothing was written")
        return 130
    except (gl.errors.GlauberError, OSError) as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return 1
    print(lines(figures))
    print(f"\npicture: {arguments.out / 'report.png'}\nfigures: {arguments.out / 'report.json'}")
    return 0


def run(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Train every seed on the device and in NumPy, two at a time, then write the report of the first one."""
    began = time.perf_counter()
    splits = {seed: digits.load(seed) for seed in arguments.seeds}
    kinds = ["device"] if arguments.no_numpy else ["device", "numpy"]
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=len(kinds) * len(splits) * arguments.updates)
        stopping = False

        def tick(_: int) -> None:
            if stopping:
                raise KeyboardInterrupt
            bar.advance(task)

        def one(kind: str, seed: int) -> tuple[Trained, DeviceChains | None]:
            data, start = splits[seed], start_states(splits[seed], seed)
            if kind == "numpy":
                return train(data, NumpyChains(start, seed), seed, arguments.updates, tick), None
            with gl.open_device(arguments.device, seed=seed) as device:
                chains = DeviceChains(device, start, first_hidden(device))
                return train(data, chains, seed, arguments.updates, tick), chains

        with threadpool_limits(1), ThreadPoolExecutor(2) as pool:  # two cores: one training each, not threads inside
            futures = {(kind, seed): pool.submit(one, kind, seed) for kind in kinds for seed in splits}
            try:
                results = {key: future.result() for key, future in futures.items()}
            except BaseException:
                stopping = True
                pool.shutdown(cancel_futures=True)
                raise
    trained_seconds = time.perf_counter() - began
    return report(arguments, splits, results, trained_seconds)


def first_hidden(device: gl.Device) -> int:
    """The first site of the graph's right side; any graph will do, so without one the hidden units follow at once."""
    topology = device.spec.topology
    return int(getattr(topology, "left", N_VISIBLE)) if topology is not None else N_VISIBLE


def report(
    arguments: argparse.Namespace,
    splits: dict[int, Digits],
    results: dict[tuple[str, int], tuple[Trained, DeviceChains | None]],
    trained_seconds: float,
) -> dict[str, Any]:
    """Generate and complete with the first seed's machine, classify with all, write picture and figures."""
    began = time.perf_counter()
    first = arguments.seeds[0]
    trained, books = results["device", first]
    with gl.open_device(arguments.device, seed=first) as device:
        chains = DeviceChains(device, start_states(splits[first], first), first_hidden(device))
        quantised = {seed: quantise(chains, results["device", seed][0].rbm) for seed in splits}
        samples = generate(chains, trained.rbm)
        completions = complete(chains, trained.rbm, splits[first])
        spec = device.spec
        address = device.address
    accuracies: dict[str, list[float]] = {"device": [], "numpy": []}
    for (kind, seed), (result, _) in results.items():
        rbm = quantised[seed] if kind == "device" else result.rbm
        found = rbm.classify(digits.to_spins(splits[seed].test_grey))
        accuracies[kind].append(float((found == splits[seed].test_labels).mean()))
    all_books = [book for _, book in results.values() if book is not None] + [chains]
    has_figures = spec.costs.joules_per_update is not None
    figures: dict[str, Any] = {
        "device": address,
        "seeds": arguments.seeds,
        "updates": arguments.updates,
        "accuracy": accuracies,
        "accuracy_mean": {kind: float(np.mean(values)) if values else None for kind, values in accuracies.items()},
        "log_likelihood": log_likelihood(quantised[first], splits[first], first),
        "pseudo_log_likelihood": {"train": trained.curve[-1].train_pseudo, "test": trained.curve[-1].test_pseudo},
        "device_jobs": {
            "jobs": sum(book.jobs for book in all_books),
            "samples": sum(book.samples for book in all_books),
        },
        "joules": sum(book.joules for book in all_books) if has_figures else None,
        "joules_basis": "modelled, a design's assumed figures" if spec.status == "design" else "modelled",
        "seconds": {"training": trained_seconds, "report": time.perf_counter() - began},
        "curves": {kind: [asdict(point) for point in results[kind, first][0].curve] for kind in ("device", "numpy")
                   if (kind, first) in results},
    }  # fmt: skip
    assert books is not None
    curves = {kind: results[kind, first][0].curve for kind in ("device", "numpy") if (kind, first) in results}
    draw(arguments.out / "report.png", splits[first], samples, completions, curves, lines(figures))
    temporary = arguments.out / "report.json.tmp"
    temporary.write_text(json.dumps(figures, indent=2))
    temporary.replace(arguments.out / "report.json")
    return figures


def quantise(chains: DeviceChains, rbm: Rbm) -> Rbm:
    """The parameters as the device rounds them, by programming them once."""
    schedule = gl.SamplingSchedule(n_samples=1)
    return chains.held(chains.count(chains.device.submit(chains.model(rbm), schedule, observe="last").result()))


if __name__ == "__main__":
    sys.exit(main())
