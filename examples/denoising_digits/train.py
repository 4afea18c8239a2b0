"""One loop for both models: minibatches, Adam, a falling rate, and a penalty on the couplings."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from glauber.torch import DenoisingChain, PersistentChains, RestrictedBoltzmannMachine, Sampler
from torch import Tensor, nn

BATCH = 128
LEARNING_RATE = 0.01
PENALTY = 1e-4
"""Times the sum of squares of all that is no field: the same for all models."""
CHAINS = 128
SWEEPS_SINGLE = 5
"""Of the persistent chains an update."""
SWEEPS_CHAIN = 10
"""From noisier to cleaner, in training and generation."""
KEPT = 0.1
"""Correlation of the noisiest state with the data."""


def log_odds(mean: Tensor) -> Tensor:
    """Fields of independent spins of these means, finite for pixels that never change."""
    return torch.atanh(mean.clamp(-0.98, 0.98))


def single_machine(data: Tensor, n_hidden: int, sampler: Sampler) -> RestrictedBoltzmannMachine:
    """A machine that starts from the pixels' own means."""
    machine = RestrictedBoltzmannMachine(data.shape[1], n_hidden, sampler)
    machine.fields.data[: data.shape[1]] = log_odds(data.mean(0))
    return machine


def chain_of(data: Tensor, n_hidden: int, n_steps: int, sampler: Sampler) -> DenoisingChain:
    """A chain each of whose machines starts from the means of its noised pixels."""
    return DenoisingChain(
        lambda: RestrictedBoltzmannMachine(data.shape[1], n_hidden, sampler), n_steps, KEPT, means=data.mean(0)
    )


def train(
    data: Tensor,
    model: nn.Module,
    loss: Callable[[Tensor], Tensor],
    n_updates: int,
    seed: int,
    on_update: Callable[[], None] | None = None,
) -> None:
    """Fit a model by a loss of minibatches."""
    adam = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, betas=(0.5, 0.99))
    penalised = [value for name, value in model.named_parameters() if not name.endswith("fields")]
    course = torch.optim.lr_scheduler.LambdaLR(adam, lambda k: max(0.0, 1 - k / n_updates))
    for rows in batches(len(data), n_updates, seed):
        adam.zero_grad()
        penalty = torch.stack([(value**2).sum() for value in penalised]).sum()
        torch.autograd.backward(loss(data[rows]) + PENALTY * penalty)
        adam.step()
        course.step()
        if on_update is not None:
            on_update()


def batches(n: int, n_updates: int, seed: int) -> Iterable[Tensor]:
    """Rows of each minibatch: the same for both models."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n_updates):
        yield torch.randint(0, n, (BATCH,), generator=generator)


def train_single(
    data: Tensor, n_hidden: int, sampler: Sampler, n_updates: int, seed: int, on_update: Callable[[], None] | None
) -> RestrictedBoltzmannMachine:
    """One machine by persistent contrastive divergence."""
    torch.manual_seed(seed)
    machine = single_machine(data, n_hidden, sampler)
    chains = PersistentChains(machine, CHAINS, n_sweeps=SWEEPS_SINGLE)
    train(data, machine, chains.loss, n_updates, seed, on_update)
    return machine


def train_chain(
    data: Tensor,
    n_hidden: int,
    n_steps: int,
    sampler: Sampler,
    n_updates: int,
    seed: int,
    on_update: Callable[[], None] | None,
) -> DenoisingChain:
    """A chain, every machine of which has as many hidden units."""
    torch.manual_seed(seed)
    chain = chain_of(data, n_hidden, n_steps, sampler)
    train(data, chain, lambda rows: chain.loss(rows, SWEEPS_CHAIN), n_updates, seed, on_update)
    return chain
