"""Potts grids: a pixel is a p-dit of as many states as there are grey levels, coupled to its neighbours alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import glauber
import numpy as np
import torch
from glauber.checks import whole_number
from glauber.errors import InvalidModelError
from glauber.model import PottsModel
from glauber.samples import SampleSet
from glauber.schedule import SamplingSchedule, Schedule
from glauber.torch import Sampler
from numpy.typing import NDArray
from torch import Tensor, nn

from examples.mnist_ebm.annealing import log_partition, with_enough_temperatures
from examples.mnist_ebm.lattice import Neighbours, can_be_summed, exact_log_partition, in_copies, make_lattice
from examples.mnist_ebm.models import ImageModel, Likelihood

Objective = Literal["cd", "pcd", "tempered"]
OBJECTIVES: tuple[Objective, ...] = ("cd", "pcd", "tempered")
TEMPERED_BETAS = (0.72, 0.76, 0.8, 0.84, 0.88, 0.92, 0.96, 1.0)
"""Inverse temperatures of a tempered ladder. Energies of trained 28 x 28 grids have standard deviations of 31 to 39, so
that neighbours 0.04 apart exchange states in about a third of the trials; 0.1 apart it was a fiftieth."""
SMOOTHING = 0.5
"""Added to each level's count at each pixel, so that levels never seen have finite fields."""


class GridModel(ImageModel):
    """E(s) = - sum_i h_i[s_i] - sum_edges J_ij delta(s_i, s_j) over pixels s_i = 0 .. n_levels - 1, P(s) ~ exp(-E(s)).

    With 8 neighbours and couplings of each edge's own, a table J_ij[s_i, s_j] takes the place of J_ij delta(s_i, s_j):
    grey levels are neither equal nor strangers. Edges are numbered as in Lattice.

    Parameters are in host memory.

    Args:
        device: an open device with p-dits of so many states, or a sampler.
        side: pixels along a side.
        n_levels: grey levels.
        neighbours: 4, or 8 with the diagonals.
        tied: one coupling for all edges of a direction (2, or 4 with diagonals), else each edge has its own.
        objective: where the negatives of the gradient come from: "cd", `n_sweeps` sweeps from the data (Hinton 2002);
            "pcd", chains that go on from minibatch to minibatch (Tieleman 2008); "tempered", ladders of chains at
            TEMPERED_BETAS that exchange states and go on (Desjardins et al. 2010).
        n_sweeps: Gibbs sweeps a minibatch.
        n_chains: persistent chains or ladders.
        sample_sweeps: sweeps from random states to a sample.
        n_temperatures: of annealed importance sampling; a fifth of it for a quick look.

    Raises:
        InvalidModelError: a number out of range, or an objective that there is not.

    Attributes:
        lattice: pixels and edges.
        fields: h, a parameter of shape (n_sites, n_levels).
        couplings: J, a parameter: (n_directions,), (n_edges,) or (n_edges, n_levels, n_levels).
        base: fields of independent pixels, from which log Z is annealed: those of `start_from`.
    """

    kind: ClassVar[str] = "grid"
    base: Tensor

    def __init__(
        self,
        device: glauber.Device | Sampler,
        side: int,
        n_levels: int,
        *,
        neighbours: Neighbours = 4,
        tied: bool = True,
        objective: Objective = "cd",
        n_sweeps: int = 1,
        n_chains: int = 100,
        sample_sweeps: int = 1000,
        n_temperatures: int = 1000,
    ) -> None:
        super().__init__(side, whole_number("n_levels", n_levels, 2))
        if objective not in OBJECTIVES:
            raise InvalidModelError(f"objective must be one of {', '.join(OBJECTIVES)}, not {objective!r}")
        self.lattice = make_lattice(side, neighbours)
        self.sampler = device if isinstance(device, Sampler) else Sampler(device)
        self.tied, self.objective = tied, objective
        self.n_sweeps = whole_number("n_sweeps", n_sweeps, 1)
        self.n_chains = whole_number("n_chains", n_chains, 1)
        self.sample_sweeps = whole_number("sample_sweeps", sample_sweeps, 1)
        self.n_temperatures = whole_number("n_temperatures", n_temperatures, 5)
        n_edges = len(self.lattice.edges)
        shape: tuple[int, ...] = (self.lattice.n_directions,) if tied else (n_edges,)
        if neighbours == 8 and not tied:
            shape = (n_edges, n_levels, n_levels)
        self.fields = nn.Parameter(torch.zeros(self.lattice.n_sites, n_levels))
        self.couplings = nn.Parameter(torch.zeros(shape))
        self.register_buffer("base", torch.zeros(self.lattice.n_sites, n_levels))
        edges = torch.from_numpy(self.lattice.edges.astype(np.int64))
        self._first, self._second = edges[:, 0].contiguous(), edges[:, 1].contiguous()
        self._direction = torch.from_numpy(self.lattice.direction)
        self._site_rows = torch.arange(self.lattice.n_sites) * n_levels
        self._edge_rows = torch.arange(n_edges) * n_levels**2
        self._chains: Tensor | None = None
        self._rounds = 0

    @torch.no_grad()
    def start_from(self, images: Tensor) -> None:
        """Set the fields to the log of the levels' frequencies at each pixel, and the couplings to 0."""
        levels, _ = self._means(self._states(images))
        counts = levels * len(images) + SMOOTHING
        self.base.copy_((counts / counts.sum(1, keepdim=True)).log())
        self.fields.copy_(self.base)
        self.couplings.zero_()

    def get_extra_state(self) -> dict[str, Any]:
        """The sampler's state and the persistent chains; for torch."""
        return {"sampler": self.sampler.state_dict(), "chains": self._chains, "rounds": self._rounds}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """The inverse; for torch.

        Raises:
            InvalidModelError: the chains are those of another objective, number or size.
        """
        chains = state["chains"]
        copies = len(TEMPERED_BETAS) if self.objective == "tempered" else 1
        own = (self.n_chains, copies * self.lattice.n_sites)
        if chains is not None and chains.shape != own:
            raise InvalidModelError(
                f"the chains saved have shape {tuple(chains.shape)}, this model's {own}; load into a model of the same"
                " objective and n_chains"
            )
        self.sampler.load_state_dict(state["sampler"])
        self._chains, self._rounds = None if chains is None else chains.clone(), int(state["rounds"])

    # Energies

    def energy(self, images: Tensor) -> Tensor:
        """E of images of levels, (..., side, side), differentiable; shape (...)."""
        states = self._states(images)
        first, second = states[:, self._first], states[:, self._second]
        own = self.fields.flatten()[states + self._site_rows].sum(1)
        if self.couplings.dim() == 3:
            pairs = self.couplings.flatten()[first * self.n_levels + second + self._edge_rows].sum(1)
        else:
            pairs = (first == second).to(self.fields) @ self._edge_couplings()
        return -(own + pairs).reshape(images.shape[:-2])

    def potts_model(self) -> PottsModel:
        """The model as the SDK has it, beta = 1."""
        fields = self.fields.detach().double().numpy()
        couplings = self.couplings if self.couplings.dim() == 3 else self._edge_couplings()
        return PottsModel(fields, self.lattice.edges, couplings.detach().double().numpy())

    def _edge_couplings(self) -> Tensor:
        return self.couplings[self._direction] if self.tied else self.couplings

    def _mean_energy(self, states: Tensor) -> Tensor:
        """The mean of `energy` over states, from their sufficient statistics: faster, and with the same gradient."""
        levels, pairs = self._means(states)
        couplings = self.couplings if self.couplings.dim() == 3 else self._edge_couplings()
        return -(levels * self.fields).sum() - (pairs * couplings).sum()

    def _means(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Share of each level at each site, and of each pair of levels, or of equal ones, at each edge."""
        q, n = self.n_levels, len(states)
        codes = (states + self._site_rows).flatten()
        levels = torch.bincount(codes, minlength=self.fields.numel()).reshape(self.fields.shape)
        first, second = states[:, self._first], states[:, self._second]
        if self.couplings.dim() == 3:
            codes = (first * q + second + self._edge_rows).flatten()
            pairs = torch.bincount(codes, minlength=self.couplings.numel()).reshape(self.couplings.shape)
        else:
            pairs = (first == second).sum(0)
        return levels.to(self.fields) / n, pairs.to(self.fields) / n

    def _states(self, images: Tensor) -> Tensor:
        """Images as int64 states (n, n_sites)."""
        if images.shape[-2:] != (self.side, self.side):
            raise InvalidModelError(
                f"images must have {self.side} x {self.side} pixels, shape (..., {self.side}, {self.side}), not"
                f" {tuple(images.shape)}"
            )
        states = images.reshape(-1, self.lattice.n_sites).to(torch.int64)
        if states.numel() and (int(states.min()) < 0 or int(states.max()) >= self.n_levels):
            raise InvalidModelError(f"levels must lie from 0 to {self.n_levels - 1}; see data.discretise")
        return states

    # States

    def run(
        self, schedule: Schedule, *, initial: NDArray[np.integer[Any]] | None = None, **arguments: Any
    ) -> SampleSet:
        """One job of the device, from states (n_chains, n_sites) or random ones; arguments as for Device.submit."""
        return self.sampler.run(self.potts_model(), schedule, initial=initial, on_overflow="scale", **arguments)

    def advance(
        self, states: NDArray[Any] | None, n_sweeps: int, n_chains: int = 64
    ) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Chains (n_chains, n_sites) so many sweeps on, from random states for None, and their energies."""
        n_chains = n_chains if states is None else len(states)
        schedule = SamplingSchedule(n_samples=1, n_chains=n_chains, sweeps_per_sample=n_sweeps)
        result = self.run(schedule, initial=states)
        return result.last, result.energies[:, 0]

    def images(self, states: Any) -> Tensor:
        """States of a result, (..., n_sites), as images, uint8 (..., side, side)."""
        given = np.asarray(states, dtype=np.uint8)
        return torch.from_numpy(given.reshape(*given.shape[:-1], self.side, self.side))

    def states_of(self, images: Tensor, labels: Tensor) -> NDArray[np.uint8]:
        """Images as states (n, n_sites); labels are no part of them."""
        return images.reshape(len(images), -1).numpy()

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Mean energy of data less that of the negatives; its gradient counts, its value is no measure of progress."""
        data = self._states(images)
        with torch.no_grad():
            negatives = self._negatives(data)
        return self._mean_energy(data) - self._mean_energy(negatives)

    def _negatives(self, data: Tensor) -> Tensor:
        """States of the model."""
        if self.objective == "tempered":
            return self._ladders()
        start = data if self.objective == "cd" else self._chains
        n_chains = len(data) if self.objective == "cd" else self.n_chains
        schedule = SamplingSchedule(n_samples=1, n_chains=n_chains, sweeps_per_sample=self.n_sweeps)
        initial = None if start is None else start.numpy()
        last = torch.from_numpy(self.run(schedule, initial=initial, observe="last").last.astype(np.uint8))
        if self.objective == "pcd":
            self._chains = last
        return last.to(torch.int64)

    def _ladders(self) -> Tensor:
        """Move the ladders, exchange states between neighbouring temperatures, and return those at beta = 1.

        A ladder is one model: copies of the grid without couplings between them, each times its beta. A job sweeps all
        ladders; another draws which exchanges are made.
        """
        betas, n_sites = np.array(TEMPERED_BETAS), self.lattice.n_sites
        schedule = SamplingSchedule(n_samples=1, n_chains=self.n_chains, sweeps_per_sample=self.n_sweeps)
        initial = None if self._chains is None else self._chains.numpy()
        model = in_copies(self.potts_model(), betas)
        result = self.sampler.run(model, schedule, initial=initial, on_overflow="scale", observe="last")
        states = torch.from_numpy(result.last.astype(np.uint8)).reshape(self.n_chains, len(betas), n_sites)
        energies = self.energy(self.images(states)).double()
        low = torch.arange(self._rounds % 2, len(betas) - 1, 2)  # even pairs and odd pairs in turn
        self._rounds += 1
        gain = torch.from_numpy(np.diff(betas))[low] * (energies[:, low + 1] - energies[:, low])
        # accepted with probability min(1, exp(gain)), the logit of which is gain - log(1 - exp(gain))
        logit = torch.where(gain < 0, gain - torch.log(-torch.expm1(gain.clamp(max=-1e-12))), torch.inf).clamp(max=40.0)
        ladder, pair = torch.nonzero(self.sampler.bits(logit)[0] > 0.5, as_tuple=True)
        cold, hot = states[ladder, low[pair] + 1], states[ladder, low[pair]]
        states[ladder, low[pair] + 1], states[ladder, low[pair]] = hot, cold
        self._chains = states.reshape(self.n_chains, -1)
        return states[:, -1].to(torch.int64)

    @torch.no_grad()
    def sample(self, n: int, labels: Tensor | None = None) -> Tensor:
        """Images after `sample_sweeps` sweeps from random states."""
        if labels is not None:
            raise InvalidModelError("a grid is not conditional: train one on the images of each digit")
        schedule = SamplingSchedule(n_samples=1, n_chains=n, sweeps_per_sample=self.sample_sweeps)
        return self.images(self.run(schedule, observe="last").last)

    @torch.no_grad()
    def free_energy(self, images: Tensor) -> Tensor:
        """The energy itself: nothing is hidden."""
        return self.energy(images).double()

    @torch.no_grad()
    def reconstruction_error(self, images: Tensor) -> float | None:
        """Share of pixels that one sweep from the images changes."""
        schedule = SamplingSchedule(n_samples=1, n_chains=len(images))
        states = self._states(images).numpy()
        return float((self.run(schedule, initial=states, observe="last").last != states).mean())

    @torch.no_grad()
    def log_likelihood(self, images: Tensor, labels: Tensor, *, quick: bool = False) -> Likelihood:
        """Exact where a transfer matrix takes the images' rows, else with log Z by annealed importance sampling."""
        energies = self.energy(images).double()
        spread = float(energies.std()) / len(images) ** 0.5 if len(images) > 1 else 0.0
        if can_be_summed(self.side, self.n_levels):
            log_z, error, how = exact_log_partition(self.potts_model(), self.side), 0.0, "exact"
        else:
            n_chains, n_temperatures = (100, self.n_temperatures // 5) if quick else (256, self.n_temperatures)
            base = self.base.double().numpy()
            anneal = partial(log_partition, self.potts_model(), base, self.sampler, n_chains=n_chains)
            found, n_temperatures = with_enough_temperatures(
                lambda steps: anneal(n_temperatures=steps), n_chains, n_temperatures, quick=quick
            )
            log_z, error = found.value, found.standard_error
            how = f"AIS, {n_chains} chains ({found.effective_chains:.0f} effective), {n_temperatures} temperatures"
        return Likelihood(-float(energies.mean()) - log_z, float(np.hypot(spread, error)), how, len(images))
