"""Train, compare, generate: python -m examples.denoising_digits --out out/denoising_digits."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import glauber as gl
import torch
from glauber.torch import Sampler, annealed_importance
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from examples.denoising_digits.report import draw, markdown
from examples.denoising_digits.train import SWEEPS_CHAIN, log_odds, train_chain, train_single
from examples.digits import data as digits

N_GENERATED = 60


def main() -> int:
    """Run the example; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.denoising_digits", description=__doc__)
    parser.add_argument("--device", default="sim://ideal", help="address of a device with fields for each chain")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of split and training")
    parser.add_argument("--hidden", type=int, default=12, help="hidden units of each machine")
    parser.add_argument("--steps", type=int, default=6, help="machines of the chain")
    parser.add_argument("--updates", type=int, default=4000, help="minibatches for each model")
    parser.add_argument("--paths", type=int, default=8, help="noise paths for each test image's likelihood")
    parser.add_argument("--images", type=int, default=360, help="test images that are measured")
    parser.add_argument("--out", type=Path, default=Path("out/denoising_digits"))
    arguments = parser.parse_args()
    console = Console(stderr=True)
    if min(arguments.hidden, arguments.steps, arguments.updates, arguments.paths, arguments.images - 1) < 1:
        parser.error("numbers must be at least 1, --images 2")
    if min(arguments.seeds) < 0 or len(set(arguments.seeds)) < len(arguments.seeds):
        parser.error("--seeds must be 0 or more, each once")
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        figures, pictures = run(arguments, console)
    except KeyboardInterrupt:
        console.print("stopped; nothing was written")
        return 130
    except (gl.errors.GlauberError, OSError) as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return 1
    text = markdown(figures)
    draw(arguments.out / "report.png", pictures)
    for name, content in (("results.json", json.dumps(figures, indent=2)), ("RESULTS.md", text)):
        temporary = arguments.out / f"{name}.tmp"
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(arguments.out / name)
    print(text)
    return 0


def run(arguments: argparse.Namespace, console: Console) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures, and states to draw of the first seed."""
    torch.set_num_threads(1)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    rows: list[dict[str, Any]] = []
    pictures: dict[str, Any] = {}
    with (
        gl.open_device(arguments.device, seed=0) as device,
        Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("training", total=4 * len(arguments.seeds) * arguments.updates)

        def tick() -> None:
            bar.advance(task)

        for seed in arguments.seeds:
            split = digits.load(seed)
            train = torch.from_numpy(digits.to_spins(split.train_grey))
            test = torch.from_numpy(digits.to_spins(split.test_grey))[: arguments.images]
            row: dict[str, Any] = {"seed": seed}
            of_its_size = torch.zeros(len(test))
            sizes = [arguments.hidden, arguments.steps * arguments.hidden, parameters_of(arguments) // 65]
            for n_hidden in sizes:
                sampler, began = Sampler(device), time.perf_counter()
                machine = train_single(train, n_hidden, sampler, arguments.updates, seed, tick)
                seconds = time.perf_counter() - began
                base = torch.zeros(machine.n_units)
                base[:64] = log_odds(train.mean(0))
                with torch.no_grad():
                    found = annealed_importance(machine, n_chains=200, n_temperatures=1500, base=base)
                    each = machine.log_likelihood(test, found.value).double()
                row[f"one machine, {n_hidden} hidden"] = {
                    **summary(each, seconds, sampler, sum(p.numel() for p in machine.parameters())),
                    "log_z_standard_error": found.standard_error,
                    "effective_chains": found.effective_chains,
                }
                if n_hidden == sizes[0]:
                    of_its_size = each
                    pictures.setdefault("one machine", machine.sample(N_GENERATED, n_sweeps=1000)[:, :64].numpy())
            sampler, began = Sampler(device), time.perf_counter()
            chain = train_chain(train, arguments.hidden, arguments.steps, sampler, arguments.updates, seed, tick)
            seconds = time.perf_counter() - began
            numbers = sum(p.numel() for p in chain.parameters())
            path = chain.generate(N_GENERATED, SWEEPS_CHAIN, whole_path=True)
            pictures.setdefault("path", path.numpy())
            pictures.setdefault("data", train[:N_GENERATED].numpy())
            each = chain.log_likelihood(test, n_paths=arguments.paths)
            row["chain"] = summary(each, seconds, sampler, numbers)
            difference = each - of_its_size
            row["chain less one machine of its size"] = {
                "nats": float(difference.mean()),
                "standard_error": float(difference.std() / len(difference) ** 0.5),
            }
            rows.append(row)
        address = device.address
    return {
        "command": "python -m examples.denoising_digits " + " ".join(sys.argv[1:]),
        "device": address,
        "hidden": arguments.hidden,
        "steps": arguments.steps,
        "updates": arguments.updates,
        "paths": arguments.paths,
        "images": arguments.images,
        "rows": rows,
    }, pictures


def parameters_of(arguments: argparse.Namespace) -> int:
    """Of the chain: machines, and the fields that the noisier state puts on them."""
    n_pixels, n_hidden = digits.N_PIXELS, arguments.hidden
    machine = n_pixels + n_hidden + n_pixels * n_hidden
    return int(arguments.steps * (machine + n_pixels * (n_pixels + n_hidden)))


def summary(each: torch.Tensor, seconds: float, sampler: Sampler, n_parameters: int) -> dict[str, Any]:
    """Mean log-likelihood over test images, and what training took."""
    return {
        "nats": float(each.mean()),
        "standard_error": float(each.std() / len(each) ** 0.5),
        "parameters": n_parameters,
        "training_seconds": seconds,
        "device": str(sampler.usage),
        "updates": sampler.usage.updates,
    }


if __name__ == "__main__":
    sys.exit(main())
