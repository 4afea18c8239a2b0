"""The whole study: python -m examples.mnist_ebm --out out/mnist_ebm."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from glauber.errors import GlauberError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from threadpoolctl import threadpool_limits

from examples.mnist_ebm.pipeline import Study
from examples.mnist_ebm.report import write_report
from examples.mnist_ebm.stages import SMOKE, Sizes

CONFIGS = Path(__file__).parent / "configs"


def main(given: Sequence[str] | None = None) -> int:
    """Run the example; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.mnist_ebm", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/mnist_ebm"), help="folder of everything that is made")
    parser.add_argument("--data", type=Path, help="folder with MNIST's four files; else see data.find_raw")
    parser.add_argument("--smoke", action="store_true", help="everything in a tiny size, in a minute or two")
    parser.add_argument("--only", default="", help="only stages whose name begins so, such as 'train rbm' or 'mixing'")
    parser.add_argument("--list", action="store_true", help="name the stages and stop")
    arguments = parser.parse_args(given)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    try:
        # more threads wait for each other, and for the device's, on a machine of few cores
        with (
            threadpool_limits(1),
            Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal) as bar,
        ):
            torch.set_num_threads(1)
            task = bar.add_task("", total=1.0)

            def report(fraction: float, what: str) -> None:
                bar.update(task, completed=fraction, description=what.ljust(50))

            sizes = SMOKE if arguments.smoke else Sizes()
            configs = CONFIGS / "smoke" if arguments.smoke else CONFIGS
            study = Study(configs, arguments.out, sizes, arguments.data, report)
            if arguments.list:
                print("\n".join(study.stages()))
                return 0
            if not any(name.startswith(arguments.only) for name in study.stages()):
                parser.error(f"no stage begins with {arguments.only!r}; --list names them")
            results = study.run(arguments.only)
            if not arguments.only:
                write_report(study, results)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from the last checkpoint")
        return 130
    except (GlauberError, OSError, ValueError, FloatingPointError) as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return 1
    if not arguments.only:
        print(f"written: {arguments.out / 'RESULTS.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
