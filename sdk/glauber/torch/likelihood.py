"""Log-likelihoods with error bars: annealed importance sampling on a device, forwards and backwards."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glauber.checks import whole_number
from glauber.errors import InvalidModelError, ModelNotSupportedError
from glauber.schedule import SamplingSchedule
from glauber.torch.boltzmann import BoltzmannMachine, log_2cosh


@dataclass(frozen=True)
class LogPartition:
    """log Z with an error bar.

    Attributes:
        value: the estimate.
        standard_error: by the spread of the chains' weights; meaningful with `effective_chains` of ten or more.
        effective_chains: (sum w)^2 / sum w^2 of the weights; near 1 the run is too short for its temperatures.
        log_weights: of each chain, float64 (n_chains,); forwards the logs of estimates of Z, backwards minus those of
            estimates of 1 / Z.
        backwards: whether chains went from the machine's law to the base: then `value` is stochastically an upper
            bound, else a lower one (Burda, Grosse and Salakhutdinov 2015; Grosse, Ancha and Roy 2016), as far as the
            device samples exactly what it is asked, and backwards as far as the starts were of the machine's law.
    """

    value: float
    standard_error: float
    effective_chains: float
    log_weights: Tensor
    backwards: bool


def annealed_importance(
    machine: BoltzmannMachine,
    *,
    n_chains: int = 128,
    n_temperatures: int = 500,
    base: Tensor | None = None,
    start: Tensor | None = None,
) -> LogPartition:
    """Log Z by annealed importance sampling (Neal 2001): one sweep on the device for each temperature.

    From independent units with fields `base`, whose Z is known, to the machine: E_k = (1 - k) E_base + k E. With
    `start` it goes the other way, from states of the machine's own law.

    Hidden units that are not coupled to each other are summed out of the weights, and drawn anew before each sweep, in
    a job of their own: those that the sweep before has left are of the last temperature's law given the visible ones,
    not of the next one's.

    Args:
        machine: the model; `machine.temperature` is not used, so the device must sample at what it is asked. What a
            device rounds the coefficients by is in the result and not in the error.
        n_chains: chains, each of which is a weight.
        n_temperatures: steps from base to machine.
        base: fields of the base, (n_units,); None for the machine's own fields. Data means, atanh(mean) on the visible
            units, are a good one.
        start: states of the machine's law, (n_chains, n_units), such as from long chains; with them the run goes
            backwards.

    Raises:
        InvalidModelError: fewer than 2 chains or a start of the wrong shape.
        ModelNotSupportedError: the machine lies embedded on the device, whose broken groups of p-bits have another law.
    """
    if start is not None and (start.dim() != 2 or start.shape[1] != machine.n_units):
        raise InvalidModelError(f"start must have shape (n_chains, {machine.n_units}), not {tuple(start.shape)}")
    n_chains = whole_number("n_chains", n_chains if start is None else len(start), 2)
    if base is not None and base.shape != machine.fields.shape:
        raise InvalidModelError(f"base must have shape ({machine.n_units},), not {tuple(base.shape)}")
    log_weights = annealed_log_weights(
        machine, n_chains=n_chains, n_temperatures=n_temperatures, base=base, start=start
    )
    # forwards the mean of exp(w) is Z, backwards that of exp(-w) is 1 / Z
    sign = 1 if start is None else -1
    top = float((sign * log_weights).max())
    weights = torch.exp(sign * log_weights - top)
    mean = float(weights.mean())
    return LogPartition(
        value=sign * (top + math.log(mean)),
        standard_error=float(weights.std()) / mean / math.sqrt(n_chains),
        effective_chains=float(weights.sum() ** 2 / (weights**2).sum()),
        log_weights=log_weights,
        backwards=start is not None,
    )


@torch.no_grad()
def annealed_log_weights(
    machine: BoltzmannMachine,
    *,
    n_chains: int,
    n_temperatures: int,
    base: Tensor | None = None,
    start: Tensor | None = None,
    extra_fields: Tensor | None = None,
) -> Tensor:
    """The chains' log weights, each the log of an estimate of Z: what annealed_importance averages.

    Args:
        machine: see annealed_importance.
        n_chains: see there.
        n_temperatures: see there.
        base: see there.
        start: see there.
        extra_fields: added to the fields of all units, a row for each chain, (n_chains, n_units): then every chain has
            a Z of its own, and single weights speak of it.

    Returns:
        Doubles, shape (n_chains,).
    """
    n_temperatures = whole_number("n_temperatures", n_temperatures, 1)
    fields = machine.fields.detach().clone() if base is None else base.to(machine.fields)
    extra = fields.new_zeros(1, machine.n_units) if extra_fields is None else extra_fields.to(fields)
    log_z_base = log_2cosh((fields + extra).double()).sum(1)
    shares = np.linspace(0.0, 1.0, n_temperatures + 1)
    if start is None:
        asked = (fields + extra).expand(n_chains, -1)
        states = 2 * machine.sampler.bits(2 * asked)[0] - 1
    else:
        states, shares = start.to(machine.fields), shares[::-1]
    log_weights = log_z_base.new_zeros(n_chains)
    schedule = SamplingSchedule(n_samples=1, n_chains=n_chains, beta=1.0)
    for number, (before, after) in enumerate(itertools.pairwise(shares.tolist())):
        log_weights += _log_ratio(machine, states, fields, extra, before, after)
        if number + 1 < n_temperatures:
            if machine.n_hidden and machine.hidden_are_independent:
                states = _with_new_hidden(machine, states[:, : machine.n_visible], fields, extra, after)
            model = machine.ising_model(after, fields)
            result = machine.run(schedule, initial=states, model=model, extra_fields=extra_fields, observe="last")
            if result.provenance.embedding is not None:
                raise ModelNotSupportedError(
                    "the machine lies embedded on the device, whose law is not the machine's where a group of p-bits"
                    " breaks, so that weights say nothing of log Z; take a device that holds it as it is, such as"
                    " sim://ideal, or a machine on the device's own graph"
                )
            states = machine.units(result.last)
    return log_z_base + log_weights if start is None else log_z_base - log_weights


def _log_ratio(
    machine: BoltzmannMachine, states: Tensor, base: Tensor, extra: Tensor, before: float, after: float
) -> Tensor:
    """Log of the unnormalised law at `after` over that at `before`, doubles (n_chains,)."""
    if not machine.hidden_are_independent:  # what is extra is in both
        return (after - before) * (-machine.energy(states).double() - states.double() @ base.double())
    # hidden units are summed out; in doubles, as a weight is a sum of small differences
    visible, n = states[:, : machine.n_visible].double(), machine.n_visible
    rise = machine.fields.double() - base.double()
    ratio = visible @ rise[:n]
    pairs = machine.edges[machine.visible_pairs]
    if len(pairs):
        products = visible[:, pairs[:, 0]] * visible[:, pairs[:, 1]]
        ratio = ratio + products @ machine.couplings[machine.visible_pairs].double()
    ratio = (after - before) * ratio
    if machine.n_hidden:
        own, learned = base[n:].double() + extra[:, n:].double(), rise[n:] + visible @ machine.weights().double()
        ratio = ratio + (log_2cosh(own + after * learned) - log_2cosh(own + before * learned)).sum(1)
    return ratio


def _with_new_hidden(machine: BoltzmannMachine, visible: Tensor, base: Tensor, extra: Tensor, share: float) -> Tensor:
    """States of all units, the hidden ones drawn given the visible ones at a share between base and machine."""
    n = machine.n_visible
    field = share * (machine.fields[n:] + visible @ machine.weights()) + (1 - share) * base[n:] + extra[:, n:]
    return torch.cat([visible, 2 * machine.sampler.bits(2 * field)[0] - 1], 1)
