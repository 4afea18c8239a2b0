"""Boltzmann machines as modules: parameters in torch, states from a device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import glauber
from glauber.checks import whole_number
from glauber.errors import InvalidModelError
from glauber.model import IsingModel
from glauber.samples import SampleSet
from glauber.schedule import SamplingSchedule, Schedule
from glauber.topology import TopologyBase
from glauber.torch.layers import DrawingModule
from glauber.torch.sampler import Sampler
from glauber.torch.temperature import DeviceTemperature

MAX_ENUMERATED = 22
"""Units that are summed over one by one: 4 million states."""
CHUNK_BITS = 14
START_DEVIATION = 0.01
"""Standard deviation of the couplings at the start, as Hinton 2010 advises."""


def log_2cosh(x: Tensor) -> Tensor:
    """log(2 cosh x) without overflow."""
    magnitude = x.abs()
    return magnitude + functional.softplus(-2 * magnitude)


class BoltzmannMachine(DrawingModule):
    """E(s) = - sum_i h_i s_i - sum_edges J_ij s_i s_j over spins -1 and +1, P(s) ~ exp(-E(s)); visible units first.

    Parameters beyond a device's range are divided, and beta multiplied, by one factor; all are rounded to its step.
    What is drawn is the rounded machine, which `sampler.last.provenance.quantisation` describes; energies and
    likelihoods here are those of the parameters themselves.

    Args:
        n_visible: visible units, numbers 0 .. n_visible - 1.
        n_hidden: hidden units, the numbers after them.
        device: an open device, or a sampler.
        edges: pairs of units, shape (n_edges, 2); None couples every pair.
        sites: the device's site of each unit; None for the unit's own number. Where the model does not fit the device's
            graph so, it is placed by minor embedding.

    Raises:
        InvalidModelError: no visible unit, wrong edges, or sites that repeat.

    Attributes:
        fields: h, a parameter of shape (n_units,).
        couplings: J, a parameter of shape (n_edges,).
        edges: int64 (n_edges, 2).
        temperature: see DeviceTemperature; None takes the device's temperature for what was asked. What it has learned
            is in the machine's state_dict.
    """

    edges: Tensor

    def __init__(
        self,
        n_visible: int,
        n_hidden: int,
        device: glauber.Device | Sampler,
        *,
        edges: NDArray[np.integer[Any]] | Iterable[tuple[int, int]] | None = None,
        sites: Iterable[int] | None = None,
    ) -> None:
        super().__init__(device)
        self.n_visible = whole_number("n_visible", n_visible, 1)
        self.n_hidden = whole_number("n_hidden", n_hidden, 0)
        self.n_units = n_units = self.n_visible + self.n_hidden
        pairs = np.argwhere(np.triu(np.ones((n_units, n_units), dtype=bool), 1)) if edges is None else list(edges)
        units = IsingModel(np.zeros(n_units), np.asarray(pairs).reshape(-1, 2), np.zeros(len(pairs)))  # it checks them
        self.register_buffer("edges", torch.from_numpy(units.edges.astype(np.int64)), persistent=False)
        self.fields = nn.Parameter(torch.zeros(n_units))
        self.couplings = nn.Parameter(START_DEVIATION * torch.randn(units.n_edges))
        places = np.arange(n_units) if sites is None else np.asarray(list(sites), dtype=np.int64)
        if places.shape != (n_units,) or len(set(places.tolist())) != n_units or places.min() < 0:
            raise InvalidModelError(f"sites must be {n_units} different numbers from 0, one for each unit")
        self.sites = places
        self._placed = IsingModel(np.zeros(int(places.max()) + 1), places[units.edges], np.zeros(units.n_edges))
        self.temperature: DeviceTemperature | None = None
        hidden = units.edges >= self.n_visible
        self.hidden_are_independent = not hidden.all(axis=1).any()
        self.visible_are_independent = not (~hidden).all(axis=1).any()
        self._between = torch.from_numpy(np.flatnonzero(hidden[:, 1] & ~hidden[:, 0]))
        self.visible_pairs = torch.from_numpy(np.flatnonzero(~hidden.any(axis=1)))

    def get_extra_state(self) -> dict[str, Any]:
        """The sampler's state, and what is known of the device's temperature; for torch."""
        known = None if self.temperature is None else self.temperature.state_dict()
        return {**super().get_extra_state(), "temperature": known}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """The inverse; for torch. A temperature that this machine does not learn is left out."""
        super().set_extra_state(state)
        if self.temperature is not None and state["temperature"] is not None:
            self.temperature.load_state_dict(state["temperature"])

    # Energies

    def energy(self, states: Tensor) -> Tensor:
        """E of states (..., n_units), shape (...)."""
        self._check_width("states", states, self.n_units)
        products = states[..., self.edges[:, 0]] * states[..., self.edges[:, 1]]
        return -(states @ self.fields) - products @ self.couplings

    def weights(self) -> Tensor:
        """The couplings between visible and hidden units as a matrix (n_visible, n_hidden), 0 where there is none."""
        pairs = self.edges[self._between]
        matrix = self.couplings.new_zeros(self.n_visible, self.n_hidden)
        return matrix.index_put((pairs[:, 0], pairs[:, 1] - self.n_visible), self.couplings[self._between])

    def free_energy(self, visible: Tensor, extra_fields: Tensor | None = None) -> Tensor:
        """F(v) = - log sum_h exp(-E(v, h)) of visible states (..., n_visible), exact and differentiable, shape (...).

        Args:
            visible: the states.
            extra_fields: added to the fields of all units, (..., n_units), such as a condition of each state's own.

        Raises:
            InvalidModelError: another number of visible units, or too many hidden ones that are coupled to each other
                to sum over.
        """
        self._check_width("visible", visible, self.n_visible)
        fields: Tensor = self.fields
        if extra_fields is not None:
            self._check_width("extra_fields", extra_fields, self.n_units)
            fields = fields + extra_fields
        if not self.hidden_are_independent:
            return self._enumerated_free_energy(visible, fields)
        total = (visible * fields[..., : self.n_visible]).sum(-1)
        if len(self.visible_pairs):
            pairs = self.edges[self.visible_pairs]
            total = total + (visible[..., pairs[:, 0]] * visible[..., pairs[:, 1]]) @ self.couplings[self.visible_pairs]
        if self.n_hidden:
            total = total + log_2cosh(fields[..., self.n_visible :] + visible @ self.weights()).sum(-1)
        return -total

    def hidden_means(self, visible: Tensor) -> Tensor:
        """E[h | v] = tanh(h + v J), shape (..., n_hidden).

        Raises:
            InvalidModelError: hidden units are coupled to each other; draw them with `sample(clamp=v)`.
        """
        if not self.hidden_are_independent:
            raise InvalidModelError("hidden units are coupled to each other; draw them: machine.sample(clamp=visible)")
        return torch.tanh(self.fields[self.n_visible :] + visible @ self.weights())

    def log_partition(self) -> Tensor:
        """Log Z, exactly, where visible or hidden units (or all of them) are few enough to sum over.

        Raises:
            InvalidModelError: there are too many; use glauber.torch.annealed_importance.
        """
        ways: list[tuple[int, Callable[[Tensor], Tensor]]] = [(self.n_units, lambda states: -self.energy(states))]
        if self.hidden_are_independent:
            ways.append((self.n_visible, lambda visible: -self.free_energy(visible)))
        if self.visible_are_independent:
            ways.append((self.n_hidden, self._log_weight_of_hidden))
        n_summed, log_weight = min(ways, key=lambda way: way[0])
        if n_summed > MAX_ENUMERATED:
            raise InvalidModelError(
                f"log Z of {self.n_visible} visible and {self.n_hidden} hidden units is out of reach of a sum over"
                f" 2^{MAX_ENUMERATED} states; estimate it with glauber.torch.annealed_importance"
            )

        def part(chunk: Tensor) -> Tensor:
            return torch.logsumexp(log_weight(chunk), 0)

        chunks = self.states_of(n_summed)
        if torch.is_grad_enabled():  # a chunk's sums are made again for the gradient: all of them would fill the memory
            parts = [checkpoint(part, chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks]
        else:
            parts = [part(chunk) for chunk in chunks]
        return torch.logsumexp(torch.stack(parts), 0)

    def log_likelihood(self, visible: Tensor, log_partition: Tensor | float | None = None) -> Tensor:
        """Log p(v) of visible states (..., n_visible), in nats; log Z by enumeration unless it is given."""
        return -self.free_energy(visible) - (self.log_partition() if log_partition is None else log_partition)

    def _log_weight_of_hidden(self, hidden: Tensor) -> Tensor:
        field = self.fields[: self.n_visible] + hidden @ self.weights().T
        return hidden @ self.fields[self.n_visible :] + log_2cosh(field).sum(-1)

    def _enumerated_free_energy(self, visible: Tensor, fields: Tensor) -> Tensor:
        if self.n_hidden > MAX_ENUMERATED - 8:
            raise InvalidModelError(
                f"{self.n_hidden} hidden units that are coupled to each other are too many to sum over; train such a"
                " machine by contrastive divergence, which draws them"
            )
        hidden = next(iter(self.states_of(self.n_hidden)))
        flat = visible.reshape(-1, self.n_visible)
        wide = fields.expand(*visible.shape[:-1], -1).reshape(-1, self.n_units)
        if len(flat) == 0:
            return flat.sum(-1).reshape(visible.shape[:-1])
        rows = []
        for v, field in zip(flat, wide, strict=True):
            states = torch.cat([v.expand(len(hidden), -1), hidden], 1)
            products = states[:, self.edges[:, 0]] * states[:, self.edges[:, 1]]
            rows.append(-torch.logsumexp(states @ field + products @ self.couplings, 0))
        return torch.stack(rows).reshape(visible.shape[:-1])

    def states_of(self, n: int) -> Iterable[Tensor]:
        """All states of n spins, in chunks of at most 2^CHUNK_BITS."""
        size = min(2**n, 2**CHUNK_BITS)
        shifts = torch.arange(n, device=self.fields.device)
        for start in range(0, 2**n, size):
            codes = torch.arange(start, start + size, device=self.fields.device)
            yield (2 * (codes[:, None] >> shifts & 1) - 1).to(self.fields.dtype)

    # States

    def ising_model(self, share: float = 1.0, base: Tensor | None = None) -> IsingModel:
        """The machine on the device's sites, beta = 1; with a share, its energy mixed with that of fields `base`."""
        fields = np.zeros(self._placed.n_sites)
        own = self.fields.detach().cpu().double()
        mixed = own if base is None else share * own + (1 - share) * base.detach().cpu().double()
        fields[self.sites] = mixed.numpy()
        return self._placed.replace(fields=fields, couplings=share * self.couplings.detach().cpu().double().numpy())

    def run(
        self,
        schedule: Schedule,
        *,
        clamp: Tensor | None = None,
        initial: Tensor | None = None,
        extra_fields: Tensor | None = None,
        model: IsingModel | None = None,
        **arguments: Any,
    ) -> SampleSet:
        """One job of the machine; states in the result are by device site, `units` takes them out.

        Args:
            schedule: how to sample.
            clamp: values of the visible units that are held, (n_visible,) or (n_chains, n_visible); 0 leaves one free.
            initial: states to start from, (n_chains, n_units).
            extra_fields: added to the fields of all units, (n_chains, n_units), such as a condition of each chain's.
            model: in place of `ising_model()`.
            arguments: further ones of Device.submit.

        Raises:
            InvalidModelError: a clamp, states or fields of another shape, or that are no spins.
        """
        model = self.ising_model() if model is None else model
        if clamp is not None:
            values = self._host("clamp", clamp, self.n_visible)
            held = np.zeros((*values.shape[:-1], model.n_sites))
            held[..., self.sites[: self.n_visible]] = values
            arguments["clamp"] = held
        if initial is not None:
            values = self._host("initial", initial, self.n_units)
            start = np.ones((*values.shape[:-1], model.n_sites))
            start[..., self.sites] = values
            arguments["initial"] = start
        if extra_fields is not None:
            values = self._host("extra_fields", extra_fields, self.n_units)
            fields = np.tile(model.fields, (*values.shape[:-1], 1))
            fields[..., self.sites] += values
            arguments["fields"] = fields
        embeds = self.sampler.device.spec.topology is not None
        return self.sampler.run(model, schedule, on_overflow="scale", embed=embeds, **arguments)

    def _check_width(self, name: str, values: Tensor, width: int) -> None:
        if values.shape[-1:] != (width,):
            raise InvalidModelError(f"{name} must have a last axis of {width} units, not shape {tuple(values.shape)}")

    def _host(self, name: str, values: Tensor, width: int) -> NDArray[np.float64]:
        self._check_width(name, values, width)
        return np.asarray(values.detach().to(device="cpu", dtype=torch.float64))

    def units(self, states: NDArray[Any]) -> Tensor:
        """States by device site, (..., n_sites), as a tensor of the machine's units, (..., n_units)."""
        return torch.from_numpy(states[..., self.sites].astype(np.float32)).to(self.fields)

    def sample(
        self,
        n_chains: int,
        *,
        n_sweeps: int = 100,
        n_samples: int = 1,
        clamp: Tensor | None = None,
        initial: Tensor | None = None,
        extra_fields: Tensor | None = None,
    ) -> Tensor:
        """States of all units: shape (n_chains, n_units), or (n_chains, n_samples, n_units) for more than one sample.

        Args:
            n_chains: chains, from random states or `initial`.
            n_sweeps: sweeps before the first sample, and from one to the next.
            n_samples: states kept of each chain.
            clamp: see run.
            initial: see run.
            extra_fields: see run.
        """
        beta = 1.0 if self.temperature is None else self.temperature.asked(1.0)
        schedule = SamplingSchedule(n_samples=n_samples, n_chains=n_chains, sweeps_per_sample=n_sweeps, beta=beta)
        result = self.run(schedule, clamp=clamp, initial=initial, extra_fields=extra_fields)
        if self.temperature is not None:
            self.temperature.observe(result)
        states = self.units(result.states)
        return states[:, 0] if n_samples == 1 else states


class RestrictedBoltzmannMachine(BoltzmannMachine):
    """Visible and hidden units, every visible one coupled to every hidden one, and no other couplings.

    On a device with a bipartite graph the visible units lie on its left side and the hidden ones on its right.

    Args:
        n_visible: visible units.
        n_hidden: hidden units.
        device: an open device, or a sampler.
    """

    def __init__(self, n_visible: int, n_hidden: int, device: glauber.Device | Sampler) -> None:
        n_visible = whole_number("n_visible", n_visible, 1)
        n_hidden = whole_number("n_hidden", n_hidden, 1)
        pairs = np.stack(np.meshgrid(np.arange(n_visible), n_visible + np.arange(n_hidden), indexing="ij"), axis=-1)
        topology = (device.device if isinstance(device, Sampler) else device).spec.topology
        left = int(getattr(topology, "left", n_visible))
        sites = None
        if n_visible <= left and n_hidden <= int(getattr(topology, "right", n_hidden)):
            sites = [*range(n_visible), *range(left, left + n_hidden)]
        super().__init__(n_visible, n_hidden, device, edges=pairs.reshape(-1, 2), sites=sites)

    def weights(self) -> Tensor:
        """The couplings as a matrix (n_visible, n_hidden)."""
        return self.couplings.view(self.n_visible, self.n_hidden)  # edges go by visible unit, then by hidden one


class GraphRestrictedBoltzmannMachine(BoltzmannMachine):
    """A machine on a device's own graph, whose nodes are visible or hidden: no coupling needs an embedding.

    Args:
        graph: a topology, such as `device.spec.topology`, or pairs of sites.
        visible: sites that carry data, in the data's order.
        device: an open device, or a sampler.
        hidden: further sites; None for all others of the graph.

    Raises:
        InvalidModelError: a site that the graph does not have.
    """

    def __init__(
        self,
        graph: TopologyBase | NDArray[np.integer[Any]] | Iterable[tuple[int, int]],
        visible: Iterable[int],
        device: glauber.Device | Sampler,
        hidden: Iterable[int] | None = None,
    ) -> None:
        pairs = np.asarray(graph.edges() if isinstance(graph, TopologyBase) else list(graph), dtype=np.int64)
        known = set(range(graph.n_sites)) if isinstance(graph, TopologyBase) else set(pairs.ravel().tolist())
        shown = [int(site) for site in visible]
        latent = sorted(known - set(shown)) if hidden is None else [int(site) for site in hidden]
        sites = [*shown, *latent]
        if unknown := sorted(set(sites) - known):
            raise InvalidModelError(f"the graph has no site {unknown[0]}; its sites are {min(known)} to {max(known)}")
        if len(set(sites)) != len(sites):
            raise InvalidModelError("a site is named twice among the visible and the hidden ones")
        number = np.full(max(known) + 1, -1)
        number[sites] = np.arange(len(sites))
        units = number[pairs]
        units = units[(units >= 0).all(axis=1)]
        super().__init__(len(shown), len(latent), device, edges=units, sites=sites)
