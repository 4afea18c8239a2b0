"""Calibrate a chip with hidden flaws, draw before and after: python -m examples.calibrate_a_chip."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import glauber as gl
import numpy as np
from rich.console import Console
from rich.progress import Progress

from examples.calibrate_a_chip.models import compare, patches
from examples.calibrate_a_chip.report import draw

CHIP = "sim://pbit-king-64?chip=7&gain_spread=0.1&offset_spread=0.2&readout_error=0.02&n_dead=1"

SHOTS = 40_000


def main() -> int:
    """Run the example; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.calibrate_a_chip", description=__doc__)
    parser.add_argument("--device", default=CHIP, help="address of a device with a graph of its own")
    parser.add_argument("--samples", type=int, default=500_000, help="of each model, raw and corrected")
    parser.add_argument("--seed", type=int, default=1, help="of the models and all jobs")
    parser.add_argument("--out", type=Path, default=Path("out/calibrate"), help="folder of the record and the picture")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        run(arguments, console)
    except KeyboardInterrupt:
        console.print("stopped; nothing more is written")
        return 130
    except (gl.errors.GlauberError, OSError, ValueError) as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return 1
    return 0


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Calibrate, compare, write."""
    with gl.open_device(arguments.device, seed=arguments.seed) as device:
        topology = device.spec.topology
        if topology is None:
            raise ValueError(f"{device.spec.name} has no graph of its own, so there are no patches of it")
        with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
            task = bar.add_task("calibrating", total=1.0)
            record = device.calibrate(
                ("pbits", "couplings"), shots=SHOTS, report=lambda done, _: bar.update(task, completed=done)
            )
        print(record)
        chosen = patches(record, topology, arguments.seed)
        compared = compare(device, record, chosen, arguments.samples, arguments.seed)
    record.save(arguments.out / "record.json")
    least = min(compared.improvement)
    summary = (
        f"{record.device}: {arguments.samples:,} samples each; total variation {np.mean(compared.raw):.3f} as it is,"
        f" {np.mean(compared.corrected):.3f} calibrated"
    )
    draw(arguments.out / "report.png", compared, chosen[0].law, compared.laws[0, 0], compared.laws[1, 0], summary)
    print("\nmodel  as it is  calibrated  chance alone")
    for k, row in enumerate(zip(compared.raw, compared.corrected, compared.floor, strict=True)):
        print(f"{k + 1:5}", *(f"{value:10.4f}" for value in row))
    print(f"at least {least:.1f} times nearer to the exact law; picture: {arguments.out / 'report.png'}")


if __name__ == "__main__":
    sys.exit(main())
