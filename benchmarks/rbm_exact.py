"""An RBM on digits by the device beside the same RBM trained exactly.

`python -m benchmarks.rbm_exact [--output benchmarks/results]`

The 8x8 digits of scikit-learn as 64 spins, and 8 hidden units: few enough to sum over all their 256 states, so that the
log-likelihood and its gradient are exact. The trainings of a seed start from the same parameters and see the same
batches under the same optimiser and course of the learning rate. They differ in the gradient alone:

- "exact": by enumeration.
- "exact, other batches": the control. The likelihood has many maxima, and noise of any kind decides to which of them a
  training goes: so do even two exact ones differ that see the images in another order.
- "persistent": PersistentChains on the device, a job a step, with few sweeps and with many: chains lag behind the
  parameters, and the less so the more they move.
- "two-phase": maximum_likelihood on the device, fresh chains each step, a job a step.

What is compared is the exact log-likelihood of the final parameters, seed by seed (a seed is a split of the data, a
start, an order and the device's noise): the mean of the paired differences with its 95 % interval by Student's t. To
show that the trainings are long enough, the exact one is run with half the steps too.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import glauber as gl
import numpy as np
import torch
from glauber.torch import PersistentChains, RestrictedBoltzmannMachine, Sampler, maximum_likelihood
from rich.progress import track
from scipy.stats import t as student
from torch import Tensor

from benchmarks.machine import provenance, write
from examples.digits import data as digits

ADDRESS = "sim://ideal"
N_HIDDEN = 8
BATCH = 128
LEARNING_RATE = 0.01
DECAY = 0.002
"""Each training minimises DECAY / 2 |J|^2 beside the loss: without it the couplings would never come to rest."""
KINDS = ("exact", "exact, other batches", "persistent", "persistent, many sweeps", "two-phase")
N_CHAINS = 512
N_SWEEPS = {"persistent": 5, "persistent, many sweeps": 25}
"""Of the persistent chains, a step."""
TWO_PHASE = {"n_chains": 256, "n_samples": 4, "n_warmup": 50}
ALPHA = 0.05


def spins(seed: int) -> tuple[Tensor, Tensor]:
    """Pixels of the training and the test images of a split, -1 and +1, (n, 64)."""
    split = digits.load(seed)
    train, test = digits.to_spins(split.train_grey), digits.to_spins(split.test_grey)
    return torch.from_numpy(train.astype(np.float32)), torch.from_numpy(test.astype(np.float32))


def begin(train: Tensor, device: gl.Device, seed: int) -> RestrictedBoltzmannMachine:
    """The machine that all trainings of a seed start from: fields of the pixels' means, small random couplings."""
    torch.manual_seed(seed)
    machine = RestrictedBoltzmannMachine(train.shape[1], N_HIDDEN, Sampler(device, seed))
    with torch.no_grad():
        machine.fields[: machine.n_visible] = torch.atanh(train.mean(0).clamp(-0.95, 0.95))
        machine.couplings.mul_(10)  # from 0.01 to 0.1: hidden units part in tens of steps instead of hundreds
    return machine


def loss_of(kind: str, machine: RestrictedBoltzmannMachine) -> Callable[[Tensor], Tensor]:
    """What a step minimises on a batch."""
    if kind.startswith("exact"):
        return lambda batch: -machine.log_likelihood(batch).mean()
    if kind in N_SWEEPS:
        return PersistentChains(machine, N_CHAINS, n_sweeps=N_SWEEPS[kind]).loss
    return lambda batch: maximum_likelihood(machine, batch, **TWO_PHASE)


def train(kind: str, seed: int, n_steps: int) -> dict[str, Any]:
    """One training: mean exact log-likelihoods of train and test images at the end, in nats, and what it took."""
    torch.set_num_threads(1)
    images, held_out = spins(seed)
    with gl.open_device(ADDRESS, seed=seed) as device:
        machine = begin(images, device, seed)
        loss = loss_of(kind, machine)
        optimiser = torch.optim.Adam(machine.parameters(), lr=LEARNING_RATE)
        course = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: (1 + math.cos(math.pi * k / n_steps)) / 2)
        stream = 1 if kind == "exact, other batches" else 0
        order = np.random.default_rng([seed, stream]).integers(0, len(images), (n_steps, BATCH))
        began = time.perf_counter()
        for rows in order:
            optimiser.zero_grad()
            torch.autograd.backward(loss(images[rows]) + DECAY / 2 * machine.couplings.square().sum())
            optimiser.step()
            course.step()
        seconds = time.perf_counter() - began
        usage = machine.sampler.usage
        with torch.no_grad():
            found = {
                name: float(machine.log_likelihood(rows).double().mean())
                for name, rows in (("train", images), ("test", held_out))
            }
    return {
        **found,
        "largest_coupling": float(machine.couplings.detach().abs().max()),
        "seconds": round(seconds, 1),
        "jobs": usage.jobs,
        "updates": usage.updates,
    }


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean and half width of its 95 % interval by Student's t, two seeds or more."""
    half = student.ppf(1 - ALPHA / 2, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return {"mean": float(np.mean(values)), "half_width": float(half)}


def differences(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, dict[str, float]]]:
    """The others minus exact, paired by seed: {kind: {"train": interval, "test": interval}}."""
    return {
        kind: {
            which: interval([one[which] - other[which] for one, other in zip(runs[kind], runs["exact"], strict=True)])
            for which in ("train", "test")
        }
        for kind in KINDS[1:]
    }


def markdown(result: dict[str, Any]) -> str:
    """The results as a page."""
    machine = f"{result['cpu']}, {result['cores']} cores, Python {result['python']}"
    runs: dict[str, list[dict[str, Any]]] = result["runs"]
    lines = [
        "# An RBM on digits: trained on the device and exactly",
        "",
        f"`{result['command']}`, {result['date'][:10]}, {machine}, torch {result['versions']['torch']}. 64 pixels and"
        f" {N_HIDDEN} hidden units; {result['steps']} steps of Adam from {LEARNING_RATE} to 0 on batches of {BATCH};"
        f" seeds {', '.join(map(str, result['seeds']))}. Device `{ADDRESS}`: {N_CHAINS} persistent chains,"
        f" {' or '.join(map(str, N_SWEEPS.values()))} sweeps a step; two-phase with"
        f" {TWO_PHASE['n_chains']} fresh chains, {TWO_PHASE['n_warmup']} sweeps and"
        f" {TWO_PHASE['n_samples']} samples a step.",
        "",
        "Exact log-likelihood of the final parameters, nats an image (larger is better), mean and 95 % interval over"
        " the seeds. Differences are paired by seed: same split and start, and, but for the control, the same batches.",
        "",
        "| gradient | training images | test images | minus exact, training | minus exact, test | seconds a seed |",
        "|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        cells = [shown(interval([run[which] for run in runs[kind]]), 2) for which in ("train", "test")]
        beside = ["", ""]
        if kind != "exact":
            beside = [shown(result["differences"][kind][which], 3, sign=True) for which in ("train", "test")]
        seconds = np.mean([run["seconds"] for run in runs[kind]])
        lines.append(f"| {kind} | {' | '.join([*cells, *beside])} | {seconds:.0f} |")
    apart = {
        kind: [which for which, value in each.items() if abs(value["mean"]) > value["half_width"]]
        for kind, each in result["differences"].items()
    }
    within = [f'"{kind}"' for kind, each in apart.items() if not each]
    without = [f'"{kind}" ({" and ".join(each)})' for kind, each in apart.items() if each]
    gain = result["gain_of_the_second_half"]
    lines += [
        "",
        f"Within their error of the exact training: {', '.join(within) or 'none'}. Not within it:"
        f" {', '.join(without) or 'none'}.",
        "",
        f"Twice the steps gain the exact training {shown(gain['train'], 3, sign=True)} nats on training and"
        f" {shown(gain['test'], 3, sign=True)} on test images over half of them.",
        "",
    ]
    return "\n".join(lines)


def shown(value: dict[str, float], digits_: int, *, sign: bool = False) -> str:
    """Mean +- half width."""
    mean = f"{value['mean']:{'+' if sign else ''}.{digits_}f}"
    return f"{mean} ± {value['half_width']:.{digits_}f}"


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=10, help="how many, 2 or more")
    parser.add_argument("--output", type=Path, help="folder for rbm_exact.json and .md; nothing is written without")
    given = parser.parse_args()
    if given.seeds < 2 or given.steps < 2:
        parser.error("--seeds and --steps must be 2 or more")
    tasks = [(kind, seed, given.steps) for seed in range(given.seeds) for kind in KINDS]
    tasks += [("exact", seed, given.steps // 2) for seed in range(given.seeds)]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(train, *task) for task in tasks]
        found = [future.result() for future in track(futures, description="trainings")]
    runs = {kind: [run for task, run in zip(tasks, found, strict=True) if task[0] == kind and task[2] == given.steps]
            for kind in KINDS}  # fmt: skip
    halves = found[-given.seeds :]
    gain = {
        which: interval([one[which] - half[which] for one, half in zip(runs["exact"], halves, strict=True)])
        for which in ("train", "test")
    }
    result = {
        **provenance(("glauber", "numpy", "torch", "scikit-learn")),
        "device": ADDRESS,
        "steps": given.steps,
        "seeds": list(range(given.seeds)),
        "runs": runs,
        "exact_with_half_the_steps": halves,
        "differences": differences(runs),
        "gain_of_the_second_half": gain,
    }
    page = markdown(result)
    print(page)
    if given.output is not None:
        write(given.output / "rbm_exact.json", result)
        (given.output / "rbm_exact.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
