"""The training script, which knows nothing about the device it is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import glauber as gl
import torch
from glauber.torch import PersistentChains, RestrictedBoltzmannMachine, Sampler, load_checkpoint, save_checkpoint

from examples.any_device.data import N_PIXELS, bars_and_stripes

N_HIDDEN = 8
N_CHAINS = 128
N_SWEEPS = 10
"""Sweeps of the persistent chains in each step."""
LEARNING_RATE = 0.02
DECAY = 0.002
"""DECAY / 2 |J|^2 is minimised beside the loss: images with no weight at all would need infinite couplings."""
CHECKPOINT_EVERY = 50


def train(
    device: gl.Device,
    *,
    seed: int,
    n_steps: int,
    checkpoint: Path,
    checkpoint_every: int = CHECKPOINT_EVERY,
    on_step: Callable[[int], None] | None = None,
) -> RestrictedBoltzmannMachine:
    """Persistent contrastive divergence with the device in the loop; goes on from the checkpoint if it is there.

    The chip's samples are what the data are compared with, so parameters come to rest where the law of the chip's own
    visible units has the data's moments: gains, offsets and the temperature of the chip need not be known.

    Args:
        device: an open device with 17 p-bits or more, or one that takes any model.
        seed: of the start and of the device's jobs.
        n_steps: of Adam, whose rate falls to 0 along a cosine; one job each.
        checkpoint: the file; it is as good as new after kill -9 at any time.
        checkpoint_every: steps between two of them.
        on_step: called with the steps done.

    Raises:
        GlauberError: the device cannot run it, or the checkpoint is damaged.
    """
    data = bars_and_stripes()
    torch.manual_seed(seed)
    machine = RestrictedBoltzmannMachine(N_PIXELS, N_HIDDEN, Sampler(device, seed))
    with torch.no_grad():
        machine.couplings.mul_(10)  # from 0.01 to 0.1: hidden units part in tens of steps instead of hundreds
    chains = PersistentChains(machine, N_CHAINS, n_sweeps=N_SWEEPS)
    adam = torch.optim.Adam(machine.parameters(), lr=LEARNING_RATE)
    course = torch.optim.lr_scheduler.LambdaLR(adam, lambda k: (1 + math.cos(math.pi * k / n_steps)) / 2)
    parts: dict[str, Any] = {"machine": machine, "chains": chains, "adam": adam, "course": course}
    begin = load_checkpoint(checkpoint, **parts) if checkpoint.exists() else 0
    for step in range(begin, n_steps):
        adam.zero_grad()
        torch.autograd.backward(chains.loss(data) + DECAY / 2 * machine.couplings.square().sum())
        adam.step()
        course.step()
        if (step + 1) % checkpoint_every == 0 or step + 1 == n_steps:
            save_checkpoint(checkpoint, step + 1, **parts)
        if on_step is not None:
            on_step(step + 1)
    return machine
