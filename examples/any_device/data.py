"""Bars and stripes, 3x3: images whose rows or whose columns are of one colour (MacKay 2003, exercise 42.10)."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

SIDE = 3
N_PIXELS = SIDE * SIDE


def bars_and_stripes() -> Tensor:
    """The 2^(SIDE + 1) - 2 = 14 different images as spins, float32 (14, 9), in the order of `codes`."""
    lines = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=SIDE)))
    bars = lines[:, None, :].expand(-1, SIDE, -1).reshape(len(lines), N_PIXELS)
    stripes = lines[:, :, None].expand(-1, -1, SIDE).reshape(len(lines), N_PIXELS)
    both = torch.cat([bars, stripes])
    found, first = torch.unique(codes(both), return_inverse=True)
    return torch.stack([both[first == k][0] for k in range(len(found))])


def codes(images: Tensor) -> Tensor:
    """The number 0 .. 511 of each image (..., 9): pixel 0 is the highest bit, +1 is a one."""
    weights = 2 ** torch.arange(N_PIXELS - 1, -1, -1, device=images.device)
    return (images > 0).long() @ weights
