"""PyTorch on one thread, for the Boltzmann machine with two layers: a matrix product and a Bernoulli draw a layer."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.contender import Contender, UnsuitedError
from benchmarks.workloads import HIDDEN, VISIBLE, Workload


def contenders(workload: Workload) -> list[Contender]:
    """One, for W6."""
    if workload.key != "W6":
        raise UnsuitedError("it is measured on the Boltzmann machine, where all work is a matrix product")
    torch.set_num_threads(1)
    weights = torch.tensor(workload.model.couplings.reshape(VISIBLE, HIDDEN), dtype=torch.float32)
    fields = torch.tensor(workload.model.fields, dtype=torch.float32)
    transposed, own_visible, own_hidden = weights.T.contiguous(), fields[:VISIBLE], fields[VISIBLE:]
    factor = 2 * workload.beta

    def run(start: NDArray[Any], sweeps: int, seed: int) -> tuple[float, NDArray[Any]]:
        generator = torch.Generator().manual_seed(seed % 2**63)
        visible = torch.tensor(start[:, :VISIBLE], dtype=torch.float32)
        hidden = torch.empty(0)
        began = time.perf_counter()
        with torch.inference_mode():
            for _ in range(sweeps):
                p = torch.sigmoid(factor * torch.addmm(own_hidden, visible, weights))
                hidden = torch.bernoulli(p, generator=generator) * 2 - 1
                p = torch.sigmoid(factor * torch.addmm(own_visible, hidden, transposed))
                visible = torch.bernoulli(p, generator=generator) * 2 - 1
        seconds = time.perf_counter() - began
        return seconds, np.concatenate([visible.numpy(), hidden.numpy()], axis=1).astype(np.int8)

    return [Contender("torch matmul", "torch", "Gibbs", "float32", "Mersenne Twister", run)]
