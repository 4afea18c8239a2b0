"""The same training on each device, measured there, and compared: python -m examples.any_device."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import glauber as gl
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.machine import provenance
from examples.any_device.measure import N_CHAINS, N_SAMPLES, measure
from examples.any_device.report import agree, markdown
from examples.any_device.train import CHECKPOINT_EVERY, train

DEVICES = ("sim://ideal", "sim://ideal?flaws=typical&n_sites=17&chip=3", "firmware://host", "jax://cpu")


def main() -> int:
    """Run the example; returns the exit code: 1 for an error, 2 for bad arguments, 3 where devices differ."""
    parser = argparse.ArgumentParser(prog="python -m examples.any_device", description=__doc__)
    parser.add_argument("--device", nargs="+", default=DEVICES, help="addresses; the first is what others are held to")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=1000, help="of training, one device job each")
    parser.add_argument("--checkpoint-every", type=int, default=CHECKPOINT_EVERY, help="steps")
    parser.add_argument("--out", type=Path, default=Path("out/any_device"), help="for RESULTS.md and checkpoints")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    if arguments.steps < 1 or arguments.checkpoint_every < 1:
        parser.error("--steps and --checkpoint-every must be at least 1")
    for name, given in (("--seeds", arguments.seeds), ("--device", arguments.device)):
        if len(set(given)) < len(given):
            parser.error(f"{name} has one twice; each is trained once")
    if min(arguments.seeds) < 0:
        parser.error("--seeds must be 0 or more")
    torch.set_num_threads(1)  # sums of floats depend on their order, and so on the number of threads
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        figures = run(arguments, console)
    except KeyboardInterrupt:
        console.print(f"stopped; run the same command again to go on from the checkpoints in {arguments.out}")
        return 130
    except (gl.errors.GlauberError, OSError) as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return 1
    text = markdown(figures)
    for name, content in (("results.json", json.dumps(figures, indent=2) + "\n"), ("RESULTS.md", text)):
        temporary = arguments.out / f"{name}.tmp"
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(arguments.out / name)
    print(text)
    return 0 if agree(figures["devices"]) else 3


def run(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Train and measure every device with every seed."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    devices: dict[str, list[dict[str, Any]]] = {}
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        for address in arguments.device:
            task = bar.add_task(address, total=len(arguments.seeds) * arguments.steps)
            devices[address] = []
            for done, seed in enumerate(arguments.seeds):

                def advance(step: int, before: int = done * arguments.steps) -> None:
                    bar.update(task, completed=before + step)  # noqa: B023  (called within this turn only)

                with gl.open_device(address, seed=seed) as device:
                    machine = train(
                        device,
                        seed=seed,
                        n_steps=arguments.steps,
                        checkpoint=arguments.out / f"{stem(address)}-{seed}-{arguments.steps}.pt",
                        checkpoint_every=arguments.checkpoint_every,
                        on_step=advance,
                    )
                    devices[address].append(asdict(measure(machine, seed)))
    where = provenance(("glauber", "numpy", "torch", "jax"))
    return {
        **where,
        "command": where["command"].replace(".__main__", ""),
        "steps": arguments.steps,
        "images": N_CHAINS * N_SAMPLES,
        "devices": devices,
    }


def stem(address: str) -> str:
    """A file name of its own for each address."""
    plain = "".join(letter if letter.isalnum() else "-" for letter in address.split("?")[0])
    return f"{plain}-{hashlib.sha256(address.encode()).hexdigest()[:8]}"


if __name__ == "__main__":
    sys.exit(main())
