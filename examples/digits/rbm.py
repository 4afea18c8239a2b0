"""What can be computed about a restricted Boltzmann machine on the host: free energies, likelihoods, labels.

E(v, h) = - b v - c h - v J h with v, h = -1 or +1, so that p(v) ~ exp(b v + sum_j log 2 cosh(c_j + (v J)_j)).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.digits.data import N_CLASSES, N_PIXELS, Floats, label_spins

AIS_CHAINS = 100
AIS_STEPS = 1500


def log_2cosh(x: Floats) -> Floats:
    """log(2 cosh x) without overflow."""
    magnitude = np.abs(x)
    return np.asarray(magnitude + np.log1p(np.exp(-2 * magnitude)), dtype=x.dtype)


@dataclass(frozen=True)
class Rbm:
    """Parameters.

    Attributes:
        b: fields of the visible units, shape (84,).
        c: fields of the hidden units, shape (n_hidden,).
        J: couplings, shape (84, n_hidden).
    """

    b: Floats
    c: Floats
    J: Floats

    def log_weight(self, v: Floats) -> Floats:
        """Log of the unnormalised probability of visible states, hidden units summed out; minus the free energy."""
        return np.asarray(v @ self.b + log_2cosh(self.c + v @ self.J).sum(axis=1), dtype=np.float32)

    def classify(self, pixels: Floats) -> NDArray[np.int64]:
        """The label of lowest free energy for each image, exactly: all ten are tried."""
        shared = self.c + pixels @ self.J[:N_PIXELS]
        labels = label_spins(np.arange(N_CLASSES))
        scores = [
            label @ self.b[N_PIXELS:] + log_2cosh(shared + label @ self.J[N_PIXELS:]).sum(axis=1) for label in labels
        ]
        return np.asarray(np.argmax(np.stack(scores, axis=1), axis=1), dtype=np.int64)

    def pseudo_log_likelihood(self, v: Floats) -> float:
        """Mean over states of sum_i log p(v_i | all other visible units), in nats."""
        total = np.zeros(len(v))
        field = self.c + v @ self.J
        here = log_2cosh(field).sum(axis=1)
        for i in range(v.shape[1]):
            there = log_2cosh(field - 2 * v[:, i : i + 1] * self.J[i]).sum(axis=1)
            total -= np.logaddexp(0.0, there - here - 2 * v[:, i] * self.b[i])
        return float(total.mean())

    def log_partition(self, base: Floats, seed: int) -> tuple[float, float]:
        """Log Z by annealed importance sampling (Neal 2001) from independent spins of fields `base`.

        Returns:
            The estimate and its standard error.
        """
        rng = np.random.default_rng(seed)

        def spins(field: Floats) -> Floats:
            up = rng.random(field.shape, dtype=np.float32) < 0.5 + 0.5 * np.tanh(field)
            return np.where(up, np.float32(1), np.float32(-1))

        def log_p(v: Floats, share: np.float32) -> Floats:
            field = v @ ((1 - share) * base + share * self.b)
            return np.asarray(field + log_2cosh(share * (self.c + v @ self.J)).sum(axis=1), dtype=np.float32)

        v = spins(np.tile(base, (AIS_CHAINS, 1)))
        log_w = np.zeros(AIS_CHAINS)
        shares = np.linspace(0, 1, AIS_STEPS + 1, dtype=np.float32)
        for before, share in itertools.pairwise(shares):
            log_w += log_p(v, share) - log_p(v, before)
            h = spins(share * (self.c + v @ self.J))
            v = spins((1 - share) * base + share * (self.b + h @ self.J.T))
        log_z_base = float(log_2cosh(base).sum()) + len(self.c) * np.log(2)
        weights = np.exp(log_w - log_w.max())
        error = float(weights.std(ddof=1) / weights.mean() / np.sqrt(AIS_CHAINS))
        return log_z_base + float(log_w.max()) + float(np.log(weights.mean())), error
