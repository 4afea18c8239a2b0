"""How a sequential test spends its false-alarm rate over looks at ever more data.

Algorithm 1 of Gandy and Scott, "Unit testing for MCMC and other Monte Carlo methods", arXiv:2001.06465. There are at
most k looks, each at fresh data. With beta = alpha / k and gamma = beta^(1/k), look i = 0, 1, ... sees one p-value q
and, with beta_i = beta / gamma^i,

    rejects    if q <= beta_i,
    accepts    if q > beta_i + gamma, or at the last look,
    goes on    otherwise.

A right device reaches look i with probability gamma^i at most, since each look before it went on with at most gamma,
and is rejected there with beta_i at most. That is beta for each look, so alpha for all of them, however long the test
lasts; and exactly alpha where q is uniform. A right device is accepted at the first look with probability
1 - gamma - beta or more, and the last look rejects at gamma: a fault need not be visible at alpha at once, as a look
that is merely suspicious buys more data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from glauber.errors import InvalidModelError

Verdict = Literal["accepted", "rejected", "go on"]


@dataclass(frozen=True)
class Spending:
    """The thresholds of all looks.

    Attributes:
        alpha: probability that a right device is rejected, 0 < alpha < 1.
        n_looks: at most.

    Raises:
        InvalidModelError: an alpha that is no probability; no looks.
    """

    alpha: float
    n_looks: int

    def __post_init__(self) -> None:
        if not (isinstance(self.alpha, int | float) and math.isfinite(self.alpha) and 0 < self.alpha < 1):
            raise InvalidModelError(f"alpha is a probability between 0 and 1, such as 1e-5, not {self.alpha!r}")
        if self.n_looks < 1:
            raise InvalidModelError(f"a test needs one look at least, not {self.n_looks!r}")

    @property
    def gamma(self) -> float:
        """The probability, at most, with which a right device is looked at again."""
        return float((self.alpha / self.n_looks) ** (1 / self.n_looks))

    def reject_at(self, look: int) -> float:
        """The largest q that rejects at this look, counted from 0."""
        return float(self.alpha / self.n_looks / self.gamma**look)

    def accept_above(self, look: int) -> float:
        """The q above which this look accepts."""
        last = look == self.n_looks - 1
        return self.reject_at(look) if last else self.reject_at(look) + self.gamma

    def verdict(self, look: int, q: float) -> Verdict:
        """What look number `look` says of a p-value."""
        if q <= self.reject_at(look):
            return "rejected"
        return "accepted" if q > self.accept_above(look) else "go on"

    def power(self, below: Callable[[int, float], float]) -> float:
        """The probability of a rejection, of the probability `below(look, x)` that a look's q is x or less."""
        reached, rejected = 1.0, 0.0
        for look in range(self.n_looks):
            wrong = below(look, self.reject_at(look))
            rejected += reached * wrong
            reached *= max(0.0, below(look, min(1.0, self.accept_above(look))) - wrong)
        return min(1.0, rejected)
