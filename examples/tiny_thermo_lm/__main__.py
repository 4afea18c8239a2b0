"""Train both twins for each seed, measure, generate: python -m examples.tiny_thermo_lm --out out/tiny_thermo_lm."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import glauber as gl
import numpy as np
import torch
from glauber.torch import Usage
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from examples.tiny_thermo_lm.data import Corpus, bigram_nats, load
from examples.tiny_thermo_lm.model import LENGTH
from examples.tiny_thermo_lm.report import draw, markdown
from examples.tiny_thermo_lm.train import Trained, held_out, nats, train

DRAWS = (8, 32, 128)
"""Draws of each query at which the trained models are measured."""


def main() -> int:
    """Run the example; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.tiny_thermo_lm", description=__doc__)
    parser.add_argument("--device", default="sim://ideal", help="address of a device")
    parser.add_argument("--text", type=Path, help="a .txt, .txt.gz or .jsonl.gz file to learn from")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=3000, help="of training, a minibatch each")
    parser.add_argument("--samples", type=int, default=32, help="draws of each query while training")
    parser.add_argument("--windows", type=int, default=1024, help="of the test text that are measured, at most")
    parser.add_argument("--out", type=Path, default=Path("out/tiny_thermo_lm"))
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    if min(arguments.steps, arguments.samples, arguments.threads) < 1 or arguments.windows < 2:
        parser.error("--steps, --samples and --threads must be at least 1, --windows 2")
    if min(arguments.seeds) < 0 or len(set(arguments.seeds)) < len(arguments.seeds):
        parser.error("--seeds must be 0 or more, each once")
    torch.set_num_threads(arguments.threads)
    try:
        corpus = load(arguments.text)
        arguments.out.mkdir(parents=True, exist_ok=True)
        figures = run(arguments, corpus, console)
    except KeyboardInterrupt:
        console.print(f"stopped; run the same command again to go on from the checkpoints in {arguments.out}")
        return 130
    except (gl.errors.GlauberError, OSError, ValueError) as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        return 1
    text = markdown(figures)
    for name, content in (("results.json", json.dumps(figures, indent=2)), ("RESULTS.md", text)):
        temporary = arguments.out / f"{name}.tmp"
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(arguments.out / name)
    draw(arguments.out / "curves.png", figures)
    print(text)
    return 0


def run(arguments: argparse.Namespace, corpus: Corpus, console: Console) -> dict[str, Any]:
    """Everything that RESULTS.md says."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    rows: list[dict[str, Any]] = []
    curves: dict[str, dict[str, Any]] = {}
    usage, text, n_parameters, n_drawn = Usage(), "", 0, 0
    seconds: dict[str, list[float]] = {"thermodynamic": [], "softmax": []}
    test = held_out(corpus, LENGTH, arguments.windows)
    with (
        gl.open_device(arguments.device, seed=0) as device,
        Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("training", total=2 * len(arguments.seeds) * arguments.steps)
        for seed in arguments.seeds:
            twins: dict[str, Trained] = {}
            for kind in ("thermodynamic", "softmax"):
                done = bar.tasks[task].completed

                def advance(step: int, done: float = done) -> None:
                    bar.update(task, completed=done + step)

                stem = f"{kind}-{seed}-{arguments.steps}-{arguments.samples}-{mark(arguments.device, corpus)}"
                twins[kind] = train(
                    corpus,
                    device,
                    seed=seed,
                    softmax=kind == "softmax",
                    n_steps=arguments.steps,
                    n_samples=arguments.samples,
                    checkpoint=arguments.out / f"{stem}.pt",
                    on_step=advance,
                )
                if twins[kind].losses:  # none where the checkpoint was that of the end
                    seconds[kind].append(twins[kind].seconds / len(twins[kind].losses))
                curves.setdefault(kind, {"begin": twins[kind].begin, "losses": smooth(twins[kind].losses)})
            usage.include(twins["thermodynamic"].usage)
            n_drawn += len(twins["thermodynamic"].losses)
            n_parameters = sum(p.numel() for p in twins["softmax"].model.parameters())
            rows.append(measure(twins, test, seed))
            if not text:
                prompt = test[0, :32].tolist()
                twins["thermodynamic"].model.set_samples(arguments.samples)
                text = corpus.decode(twins["thermodynamic"].model.generate(prompt, 400))
        address = device.address
    bigram, unigram = bigram_nats(corpus, test)
    return {
        "command": "python -m examples.tiny_thermo_lm " + " ".join(sys.argv[1:]),
        "device": address,
        "corpus": corpus.name,
        "characters": {"train": len(corpus.train), "test": len(corpus.test), "measured": test[:, 1:].numel()},
        "n_symbols": corpus.n_symbols,
        "parameters": n_parameters,
        "steps": arguments.steps,
        "samples": arguments.samples,
        "seeds": arguments.seeds,
        "bigram_nats": bigram,
        "unigram_nats": unigram,
        "rows": rows,
        "seconds_per_step": {kind: float(np.mean(each)) if each else None for kind, each in seconds.items()},
        "device_usage": {"jobs": usage.jobs, "updates": usage.updates, "joules": usage.joules, "text": str(usage)},
        "steps_with_draws": n_drawn,
        "curves": curves,
        "text": text,
    }


def mark(address: str, corpus: Corpus) -> str:
    """Of a device and a text, for the names of checkpoints: another's is no start."""
    made = hashlib.sha256(address.encode() + b"\0" + corpus.alphabet.encode() + b"\0" + corpus.train.tobytes())
    return made.hexdigest()[:8]


def smooth(losses: list[float]) -> list[float]:
    """Means over 50 steps, of whole fifties."""
    whole = len(losses) // 50 * 50
    return [float(value) for value in np.array(losses[:whole]).reshape(-1, 50).mean(axis=1)]


def measure(twins: dict[str, Trained], test: torch.Tensor, seed: int) -> dict[str, Any]:
    """Nats per character of both twins under softmax and under drawn attention, with errors over windows."""
    row: dict[str, Any] = {"seed": seed}
    found: dict[tuple[str, int | None], np.ndarray[Any, Any]] = {}
    for kind, trained in twins.items():
        for draws in (None, *DRAWS):
            found[kind, draws] = each = nats(trained.model, test, n_samples=draws)
            name = f"{kind}, {'softmax' if draws is None else f'{draws} draws'}"
            row[name] = {"nats": float(each.mean()), "standard_error": float(each.std(ddof=1) / np.sqrt(len(each)))}
    for draws in DRAWS:
        difference = found["thermodynamic", draws] - found["softmax", None]
        row[f"difference, {draws} draws"] = {
            "nats": float(difference.mean()),
            "standard_error": float(difference.std(ddof=1) / np.sqrt(len(difference))),
        }
    return row


if __name__ == "__main__":
    sys.exit(main())
