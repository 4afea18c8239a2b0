"""Persistent contrastive divergence (Tieleman 2008), centred (Montavon and Mueller 2012), negative phase on a device.

The host computes the positive phase exactly; the negative phase is one job an update, whose chains go on where the
last one left them. The device holds the parameters in its own precision, the host keeps them in float.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import glauber as gl
import numpy as np
from numpy.typing import NDArray

from examples.digits.data import N_VISIBLE, Digits, Floats, label_spins, to_spins, visible
from examples.digits.rbm import Rbm

N_HIDDEN = 256
N_CHAINS = 128
BATCH = 128
SWEEPS = 2
LEARNING_RATE = 0.05
MOMENTUM = 0.5
WEIGHT_DECAY = 1e-3
AVERAGED_SHARE = 0.25
"""The result is the mean of the parameters over this last share of the updates."""
JITTER = 1.0
"""Training images are binarised at their mean grey plus up to this much, so that one image gives several."""
CURVE_EVERY = 100


class Chains(Protocol):
    """Where the negative phase comes from."""

    def advance(self, rbm: Rbm) -> tuple[Floats, Rbm]:
        """Move the chains a few sweeps under `rbm`; their visible states, and the parameters really in force."""
        ...


class DeviceChains:
    """Persistent chains on a device with a bipartite graph: visible units on its left side, hidden on its right."""

    def __init__(self, device: gl.Device, start: Floats, first_hidden: int) -> None:
        self.device = device
        self.hidden = first_hidden
        self.jobs = 0
        self.samples = 0
        self.joules = 0.0
        n_sites = first_hidden + N_HIDDEN
        edges = np.stack(np.meshgrid(np.arange(N_VISIBLE), first_hidden + np.arange(N_HIDDEN), indexing="ij"), axis=-1)
        self._graph = gl.IsingModel(np.zeros(n_sites), edges.reshape(-1, 2), np.zeros(N_VISIBLE * N_HIDDEN))
        self._states = np.ones((len(start), n_sites), dtype=np.int8)
        self._states[:, :N_VISIBLE] = start
        # the first sweep updates the visible units from the hidden ones, so those start at random
        signs = np.random.default_rng(0).integers(0, 2, (len(start), N_HIDDEN))
        self._states[:, first_hidden:] = 2 * signs - 1

    def model(self, rbm: Rbm) -> gl.IsingModel:
        """The machine as the device's model; only coefficients change, so the graph is compiled once."""
        fields = np.zeros(self._graph.n_sites)
        fields[:N_VISIBLE], fields[self.hidden :] = rbm.b, rbm.c
        return self._graph.replace(fields=fields, couplings=rbm.J.ravel())

    def count(self, samples: gl.SampleSet) -> gl.SampleSet:
        """Keep the books: jobs, states, joules by the device's own figures."""
        self.jobs += 1
        self.samples += samples.n_chains * samples.n_samples
        self.joules += samples.energy_report.joules or 0.0
        return samples

    def advance(self, rbm: Rbm) -> tuple[Floats, Rbm]:
        """See Chains."""
        schedule = gl.SamplingSchedule(n_samples=1, n_chains=len(self._states), n_warmup=SWEEPS - 1, beta=1.0)
        job = self.device.submit(self.model(rbm), schedule, initial=self._states, observe="last")
        samples = self.count(job.result())
        self._states = samples.last
        return self._states[:, :N_VISIBLE].astype(np.float32), self.held(samples)

    def held(self, samples: gl.SampleSet) -> Rbm:
        """The parameters as the device rounded them."""
        held = samples.programmed_coefficients()
        fields = held.fields.astype(np.float32)
        J = held.couplings.reshape(N_VISIBLE, N_HIDDEN).astype(np.float32)
        return Rbm(fields[:N_VISIBLE], fields[self.hidden :], J)


class NumpyChains:
    """The same chains in float NumPy: what the device is compared with."""

    def __init__(self, start: Floats, seed: int) -> None:
        self._v = start
        self._rng = np.random.default_rng(seed)

    def _spins(self, field: Floats) -> Floats:
        up = self._rng.random(field.shape, dtype=np.float32) < 0.5 + 0.5 * np.tanh(field)
        return np.where(up, np.float32(1), np.float32(-1))

    def advance(self, rbm: Rbm) -> tuple[Floats, Rbm]:
        """See Chains."""
        for _ in range(SWEEPS):
            h = self._spins(rbm.c + self._v @ rbm.J)
            self._v = self._spins(rbm.b + h @ rbm.J.T)
        return self._v, rbm


@dataclass(frozen=True)
class Point:
    """A point of the training curves, from the parameters as the device holds them.

    Attributes:
        update: number of updates done.
        train_pseudo: pseudo-log-likelihood of 128 training images, nats.
        test_pseudo: likewise of 128 test images.
        accuracy: of classification by free energy on the test images.
    """

    update: int
    train_pseudo: float
    test_pseudo: float
    accuracy: float


@dataclass(frozen=True)
class Trained:
    """The result of training: averaged parameters and curves."""

    rbm: Rbm
    curve: tuple[Point, ...]


def start_states(data: Digits, seed: int) -> Floats:
    """Where the persistent chains begin: at random training images."""
    rng = np.random.default_rng([seed, 1])
    return visible(data.train_grey, data.train_labels)[rng.integers(0, len(data.train_labels), N_CHAINS)]


def train(
    data: Digits, chains: Chains, seed: int, n_updates: int, on_update: Callable[[int], None] | None = None
) -> Trained:
    """Train for n_updates minibatches; on_update is called with the number done."""
    rng = np.random.default_rng(seed)
    all_visible = visible(data.train_grey, data.train_labels)
    labels = label_spins(data.train_labels)
    test_visible = visible(data.test_grey, data.test_labels)
    test_pixels = to_spins(data.test_grey)
    centre = all_visible.mean(axis=0)
    b = np.arctanh(np.clip(centre, -0.98, 0.98))
    c = np.zeros(N_HIDDEN, dtype=np.float32)
    J = np.float32(0.01) * rng.standard_normal((N_VISIBLE, N_HIDDEN), dtype=np.float32)
    hidden_centre = np.zeros(N_HIDDEN, dtype=np.float32)
    velocity_b, velocity_c, velocity_J = np.zeros_like(b), np.zeros_like(c), np.zeros_like(J)
    sums, n_averaged = (np.zeros_like(b), np.zeros_like(c), np.zeros_like(J)), 0
    order: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
    curve: list[Point] = []
    for update in range(n_updates):
        if len(order) < BATCH:
            order = rng.permutation(len(all_visible))
        batch, order = order[:BATCH], order[BATCH:]
        shift = (JITTER * (2 * rng.random((BATCH, 1)) - 1)).astype(np.float32)
        v_data = np.hstack([to_spins(data.train_grey[batch], shift), labels[batch]])
        h_data = np.tanh(c + v_data @ J)

        v_model, held = chains.advance(Rbm(b, c, J))
        h_model = np.tanh(held.c + v_model @ held.J)

        hidden_centre = np.float32(0.95) * hidden_centre + np.float32(0.05) * h_data.mean(axis=0)
        positive = (v_data - centre).T @ (h_data - hidden_centre) / len(v_data)
        gradient_J = positive - (v_model - centre).T @ (h_model - hidden_centre) / len(v_model)
        gradient_b = v_data.mean(axis=0) - v_model.mean(axis=0) - gradient_J @ hidden_centre
        gradient_c = h_data.mean(axis=0) - h_model.mean(axis=0) - centre @ gradient_J
        rate = np.float32(LEARNING_RATE * (1 - update / n_updates))
        velocity_J = MOMENTUM * velocity_J + gradient_J - np.float32(WEIGHT_DECAY) * J
        velocity_b = MOMENTUM * velocity_b + gradient_b
        velocity_c = MOMENTUM * velocity_c + gradient_c
        J = np.clip(J + rate * velocity_J, -1, 1)  # the device's range
        b, c = b + rate * velocity_b, c + rate * velocity_c
        if update >= (1 - AVERAGED_SHARE) * n_updates:
            for total, value in zip(sums, (b, c, J), strict=True):
                total += value
            n_averaged += 1
        if (update + 1) % CURVE_EVERY == 0 or update + 1 == n_updates:
            accuracy = float((held.classify(test_pixels) == data.test_labels).mean())
            train_pseudo = held.pseudo_log_likelihood(all_visible[:128])
            curve.append(Point(update + 1, train_pseudo, held.pseudo_log_likelihood(test_visible[:128]), accuracy))
        if on_update is not None:
            on_update(update + 1)
    mean_b, mean_c, mean_J = (np.asarray(total / max(1, n_averaged), dtype=np.float32) for total in sums)
    return Trained(Rbm(mean_b, mean_c, mean_J), tuple(curve))
