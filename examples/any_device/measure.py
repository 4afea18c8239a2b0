"""What a trained device draws, measured on the device itself."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from glauber.torch import RestrictedBoltzmannMachine
from torch import Tensor

from examples.any_device.data import N_PIXELS, bars_and_stripes, codes

N_CHAINS = 512
N_SAMPLES = 128
"""Of each chain."""
N_SWEEPS = 50
"""Between two samples of a chain; the first N_FORGOTTEN samples are not counted."""
N_FORGOTTEN = 16


@dataclass(frozen=True)
class Measured:
    """One trained device.

    Attributes:
        seed: of the training.
        valid: share of drawn images that are bars or stripes.
        divergence: KL divergence from the data to the drawn images, nats an image, see `divergence`.
        log_likelihood: of the parameters by enumeration, mean over the data, nats an image: what a device without
            flaws would have.
        largest_coupling: largest |J|.
        parameters: SHA-256 of the parameters' bytes.
        samples: SHA-256 of the drawn images.
    """

    seed: int
    valid: float
    divergence: float
    log_likelihood: float
    largest_coupling: float
    parameters: str
    samples: str


def divergence(counts: Tensor) -> float:
    """KL divergence from the uniform law over k images to that of samples, in nats, without its first-order bias.

    With n_i of N samples at image i, sum_i (1 / k) log((1 / k) / (n_i / N)) is too large by about (1 - q_i) / (2 N q_i)
    in each term, as log is curved; that is taken off. An image that was never drawn makes it infinite.

    Args:
        counts: samples at each of the k images of the data, and all others in the last place, shape (k + 1,).
    """
    total, drawn = float(counts.sum()), counts[:-1].double()
    share = drawn / total
    terms = -torch.log(len(drawn) * share) - (1 - share) / (2 * drawn)
    return float(terms.mean()) if bool((drawn > 0).all()) else math.inf


def tally(images: Tensor) -> Tensor:
    """How often each of the 14 images was drawn, in the order of `bars_and_stripes`, and any other, (15,)."""
    found = torch.bincount(codes(images).flatten(), minlength=2**N_PIXELS)
    of_data = found[codes(bars_and_stripes())]
    return torch.cat([of_data, (found.sum() - of_data.sum())[None]])


@torch.no_grad()
def measure(machine: RestrictedBoltzmannMachine, seed: int) -> Measured:
    """Draw images from fresh chains, which know nothing about the training's, and count."""
    drawn = machine.sample(N_CHAINS, n_samples=N_FORGOTTEN + N_SAMPLES, n_sweeps=N_SWEEPS)
    images = drawn[:, N_FORGOTTEN:, :N_PIXELS]
    counts = tally(images)
    values = torch.cat([machine.fields, machine.couplings]).numpy()
    return Measured(
        seed=seed,
        valid=1 - float(counts[-1] / counts.sum()),
        divergence=divergence(counts),
        log_likelihood=float(machine.log_likelihood(bars_and_stripes()).mean()),
        largest_coupling=float(machine.couplings.abs().max()),
        parameters=hashlib.sha256(values.tobytes()).hexdigest(),
        samples=hashlib.sha256((images > 0).numpy().tobytes()).hexdigest(),
    )
