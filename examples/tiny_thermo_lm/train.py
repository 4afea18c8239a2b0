"""Train, evaluate: the same steps for the drawn attention and for its softmax twin."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import glauber as gl
import numpy as np
import torch
from glauber.torch import Usage, deterministic, load_checkpoint, save_checkpoint
from numpy.typing import NDArray
from torch.nn import functional

from examples.tiny_thermo_lm.data import Corpus, windows
from examples.tiny_thermo_lm.model import TinyThermoLM

BATCH = 32
LEARNING_RATE = 2e-3
CHECKPOINT_EVERY = 250


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
        model: the model.
        begin: steps that the checkpoint brought.
        losses: of each step after those, nats per character.
        seconds: of those steps.
        usage: of the device in those steps.
    """

    model: TinyThermoLM
    begin: int
    losses: list[float]
    seconds: float
    usage: Usage


def train(
    corpus: Corpus,
    device: gl.Device,
    *,
    seed: int,
    softmax: bool,
    n_steps: int,
    n_samples: int,
    checkpoint: Path | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Trained:
    """Adam with warm-up and a cosine course; resumes from the checkpoint if it is there, bit for bit.

    The twins start from the same weights and see the same windows.
    """
    torch.manual_seed(seed)
    model = TinyThermoLM(corpus.n_symbols, device, n_samples=n_samples)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    course = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda k: min(1.0, (k + 1) / 100) * (0.55 + 0.45 * math.cos(math.pi * min(1.0, k / n_steps)))
    )
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, len(corpus.train) - model.length - 1, (n_steps, BATCH))
    begin = 0
    if checkpoint is not None and checkpoint.exists():
        begin = load_checkpoint(checkpoint, model=model, optimiser=optimiser, course=course)
    losses, began = [], time.perf_counter()
    for step in range(begin, n_steps):
        text = windows(corpus.train, starts[step], model.length)
        with deterministic() if softmax else nullcontext():
            logits = model(text[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        course.step()
        losses.append(float(loss.detach()))
        if checkpoint is not None and ((step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == n_steps):
            save_checkpoint(checkpoint, step + 1, model=model, optimiser=optimiser, course=course)
        if on_step is not None:
            on_step(step + 1)
    return Trained(model, begin, losses, time.perf_counter() - began, model.sampler.usage)


def held_out(corpus: Corpus, length: int, n_windows: int) -> torch.Tensor:
    """Windows evenly spread over the test text, int64 (n_windows, length + 1): the same for every model.

    Fewer where the text is too short for so many: they do not overlap, so that errors over windows are honest.
    """
    n = min(n_windows, (len(corpus.test) - 1) // (length + 1))
    starts = np.linspace(0, len(corpus.test) - length - 2, n).astype(np.int64)
    return windows(corpus.test, starts, length)


@torch.no_grad()
def nats(model: TinyThermoLM, test: torch.Tensor, *, n_samples: int | None) -> NDArray[np.float64]:
    """Mean -log p of each test window, by drawn attention, or by softmax where n_samples is None."""
    found = []
    if n_samples is not None:
        model.set_samples(n_samples)
    for batch in torch.split(test, 128):
        with deterministic() if n_samples is None else nullcontext():
            logits = model(batch[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none")
        found.append(loss.reshape(len(batch), -1).mean(1).double().numpy())
    return np.concatenate(found)
