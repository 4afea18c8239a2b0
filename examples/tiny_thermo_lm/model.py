"""A decoder of the usual kind, whose attention is thermodynamic."""

from __future__ import annotations

import glauber as gl
import torch
from glauber.torch import Sampler, ThermodynamicAttention
from torch import Tensor, nn

LENGTH = 64
"""Characters of context."""


class Block(nn.Module):
    """Attention and a two-layer network, each after a layer norm and added to what came in."""

    def __init__(self, d_model: int, n_heads: int, device: gl.Device | Sampler, n_samples: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = ThermodynamicAttention(d_model, n_heads, device, n_samples=n_samples)
        self.network = nn.Sequential(nn.Linear(d_model, 4 * d_model), nn.GELU(), nn.Linear(4 * d_model, d_model))

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, length, d_model)."""
        x = x + self.attention(self.norm_1(x), causal=True)
        out: Tensor = x + self.network(self.norm_2(x))
        return out


class TinyThermoLM(nn.Module):
    """A character language model; within `glauber.torch.deterministic()` it is its own softmax twin.

    Args:
        n_symbols: of the alphabet.
        device: an open device, or a sampler.
        length: longest context.
        d_model: width.
        n_heads: heads of each attention.
        n_layers: blocks.
        n_samples: draws of each query.
    """

    def __init__(
        self,
        n_symbols: int,
        device: gl.Device | Sampler,
        *,
        length: int = LENGTH,
        d_model: int = 128,
        n_heads: int = 4,
        n_layers: int = 2,
        n_samples: int = 32,
    ) -> None:
        super().__init__()
        self.length = length
        self.sampler = device if isinstance(device, Sampler) else Sampler(device)
        self.symbols = nn.Embedding(n_symbols, d_model)
        self.places = nn.Embedding(length, d_model)
        self.blocks = nn.ModuleList(Block(d_model, n_heads, self.sampler, n_samples) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_symbols)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (batch, length, n_symbols) of the next symbol."""
        x = self.symbols(inputs) + self.places.weight[: inputs.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def set_samples(self, n_samples: int) -> None:
        """How many draws each query makes from now on."""
        for block in self.blocks:
            assert isinstance(block, Block)
            block.attention.n_samples = n_samples

    @torch.no_grad()
    def generate(self, prompt: list[int], n_symbols: int, temperature: float = 0.8) -> list[int]:
        """Continue a prompt: attention and each next symbol are drawn by the device."""
        text = list(prompt)
        for _ in range(n_symbols):
            logits = self(torch.tensor([text[-self.length :]]))[0, -1] / temperature
            text.append(int(self.sampler.categorical(logits[None])[0, 0]))
        return text
