"""Transition matrices of small models: what a schedule does to a law, exactly, and what its samples say about it.

A row is a state now, a column a state after it, both in the order of `ExactLaw.states`.

A sweep in colour order keeps the Boltzmann law but is not reversible: only each site's update is, and with it each
colour's, whose sites do not touch. Asynchronous p-bits without delay are reversible as a whole. So the samples of a
device that sweeps break detailed balance, lawfully, and are to be compared with the sweep's own matrix instead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glauber.compile.order import make_order
from glauber.errors import InvalidModelError
from glauber.model import IsingModel, Model
from glauber.schedule import AnnealingSchedule, AsynchronousSchedule, SamplingSchedule, Schedule
from glauber.testing.exact import ChiSquare, ExactLaw

MAX_MATRIX_STATES = 1024
SMALLEST_EXPECTED = 10.0
Matrix = NDArray[np.float64]
Conditional = Callable[[int, NDArray[np.int64]], NDArray[np.float64]]


def sweep_matrix(law: ExactLaw, sites: Sequence[int], conditional: Conditional) -> Matrix:
    """The matrix of updating `sites` one after another.

    Args:
        law: for its states.
        sites: in the order of their updates.
        conditional: P(site becomes its k-th value | state now), (n_states, q), by (site, states).

    Raises:
        InvalidModelError: a site that the law holds, or that is not there.
    """
    from scipy.sparse import csr_array

    values, n = _values(law.model), len(law.states)
    held = {site for site, _ in law.clamp}
    free = [site for site in range(law.model.n_sites) if site not in held]
    if not set(sites) <= set(free):
        raise InvalidModelError(f"sites {sorted(set(sites) - set(free))} are held or not there; only free ones move")
    steps = dict(zip(free, (len(values) ** np.arange(len(free) - 1, -1, -1)).tolist(), strict=True))
    matrix = np.eye(n)
    for site in sites:
        digits = np.searchsorted(values, law.states[:, [site]])
        target = np.arange(n)[:, None] + (np.arange(len(values)) - digits) * steps[site]  # the last site is fastest
        entries = (conditional(site, law.states).ravel(), target.ravel(), np.arange(0, target.size + 1, len(values)))
        matrix = np.asarray((csr_array(entries, shape=matrix.shape).T @ matrix.T).T)
    return matrix


def transition_matrix(model: Model, schedule: Schedule, *, clamp: tuple[tuple[int, int], ...] = ()) -> Matrix:
    """What a schedule does to a state of a small model, (n_states, n_states).

    Args:
        model: at most 1024 states that the clamp leaves, such as ten free spins.
        schedule: a SamplingSchedule or AsynchronousSchedule: from one kept state to the next; an AnnealingSchedule:
            from the start to the last state. Sweeps are in the order of docs/machine.md, section 2.
        clamp: site and value of those that are held.

    Returns:
        Heat bath: each update draws from P(s_i | the others). Metropolis: it flips with probability min(1, exp(-beta
        dE)). Asynchronous: exp(t sum_i r_i (K_i - 1)) with K_i the update of site i, r_i its rate, t the sweeps between
        two kept states: random updates in continuous time.

    Raises:
        InvalidModelError: too many states; a clamp of what is not there; tempering or population annealing, which move
            many chains at once; a delay, with which the next state depends on earlier ones; or Metropolis on a Potts
            model.
    """
    if not isinstance(schedule, SamplingSchedule | AsynchronousSchedule | AnnealingSchedule):
        raise InvalidModelError(
            f"a {schedule.kind} schedule moves many chains at once; no matrix of one chain does that"
        )
    held = {site for site, _ in clamp}
    law = ExactLaw(model, 1.0, clamp)
    if not held <= set(range(model.n_sites)):
        raise InvalidModelError(f"sites {sorted(held)} cannot all be held; the model has {model.n_sites} sites")
    if len(_values(model)) ** (model.n_sites - len(held)) > MAX_MATRIX_STATES:
        raise InvalidModelError(f"{model.n_sites - len(held)} free sites have more than {MAX_MATRIX_STATES} states")
    sites = [site for site in make_order(model.n_sites, model.edges).site.tolist() if site not in held]
    if isinstance(schedule, AsynchronousSchedule):
        if schedule.delay:
            raise InvalidModelError(
                "with a delay the next state depends on earlier ones; no matrix of states says that"
            )
        from scipy.linalg import expm

        rates = np.ones(model.n_sites) if schedule.rates is None else np.array(schedule.rates)
        one = heat_bath(model, schedule.beta)
        generator = np.zeros((len(law.states), len(law.states)))
        for site in sites:
            generator += rates[site] * (sweep_matrix(law, [site], one) - np.eye(len(law.states)))
        return np.asarray(expm(schedule.sweeps_per_sample * generator), dtype=np.float64)
    if isinstance(schedule, SamplingSchedule):
        sweep = sweep_matrix(law, sites, heat_bath(model, schedule.beta))
        return np.asarray(np.linalg.matrix_power(sweep, schedule.sweeps_per_sample), dtype=np.float64)
    update = heat_bath if schedule.dynamics == "heat bath" else metropolis
    return reduce(np.matmul, (sweep_matrix(law, sites, update(model, beta)) for beta in schedule.beta_table().tolist()))


def colour_matrices(model: Model, beta: float) -> list[Matrix]:
    """The blocks of a heat-bath sweep: the matrix of each colour, whose product the sweep is; each is reversible."""
    order, law = make_order(model.n_sites, model.edges), ExactLaw(model, beta)
    bounds = itertools.pairwise(order.colour_start.tolist())
    return [sweep_matrix(law, order.site[a:b].tolist(), heat_bath(model, beta)) for a, b in bounds]


def heat_bath(model: Model, beta: float) -> Conditional:
    """P(s_i = k | the others) ~ exp(-beta E)."""

    def conditional(site: int, states: NDArray[np.int64]) -> NDArray[np.float64]:
        energies = _energies_at(model, site, states)
        stuck = ~np.isfinite(energies).any(axis=1)  # a state that no mask allows, and no law reaches
        energies[stuck] = np.where(_values(model) == states[stuck][:, [site]], 0.0, np.inf)
        weight = np.exp(-beta * (energies - energies.min(axis=1, keepdims=True)))
        return np.asarray(weight / weight.sum(axis=1, keepdims=True))

    return conditional


def metropolis(model: Model, beta: float) -> Conditional:
    """A flip with probability min(1, exp(-beta dE))."""
    if not isinstance(model, IsingModel):
        raise InvalidModelError("Metropolis updates flip spins; a Potts model has none")

    def conditional(site: int, states: NDArray[np.int64]) -> NDArray[np.float64]:
        energies, up = _energies_at(model, site, states), states[:, site] > 0
        cost = np.where(up, energies[:, 0] - energies[:, 1], energies[:, 1] - energies[:, 0])
        flip = np.exp(-beta * np.maximum(cost, 0.0))
        return np.stack([np.where(up, flip, 1 - flip), np.where(up, 1 - flip, flip)], axis=1)

    return conditional


@dataclass(frozen=True, slots=True)
class Balance:
    """How far a matrix is from keeping a law p; errors are largest absolute values.

    Attributes:
        row_error: of the rows' sums from 1.
        stationarity_error: of p P from p. What every sampler must keep.
        balance_error: of the flows p_a P_ab from p_b P_ba (detailed balance). What reversible ones keep; a sweep in
            order does not, its colours do.
        ergodic: whether some power of P leads from every state of p to every other, so that p is the only law it keeps
            and every start tends to it.
    """

    row_error: float
    stationarity_error: float
    balance_error: float
    ergodic: bool


def check_detailed_balance(matrix: Matrix, law: NDArray[np.float64]) -> Balance:
    """Stationarity, detailed balance and ergodicity of a matrix under a law over its states.

    Raises:
        InvalidModelError: shapes that do not fit, or an entry that is negative or NaN.
    """
    if matrix.shape != (len(law), len(law)) or law.ndim != 1:
        raise InvalidModelError(f"a matrix of shape {matrix.shape} does not move a law of shape {law.shape}")
    if not (matrix.min(initial=0.0) >= 0.0 and law.min(initial=0.0) >= 0.0):
        raise InvalidModelError("a probability is negative or NaN")
    flow = law[:, None] * matrix
    seen = law > 0
    return Balance(
        row_error=float(np.abs(matrix.sum(axis=1) - 1).max()),
        stationarity_error=float(np.abs(flow.sum(axis=0) - law).max()),
        balance_error=float(np.abs(flow - flow.T).max()),
        ergodic=_primitive(matrix[np.ix_(seen, seen)] > 0),
    )


@dataclass(frozen=True, slots=True)
class Spectrum:
    """How fast a chain forgets its start.

    Attributes:
        second: largest modulus of an eigenvalue apart from the 1 that belongs to the law.
        gap: 1 - second, the absolute spectral gap.
        relaxation_time: 1 / gap, in steps of the matrix; infinite where there is no gap.
    """

    second: float
    gap: float
    relaxation_time: float


def spectral_gap(matrix: Matrix) -> Spectrum:
    """The absolute spectral gap and relaxation time (Levin, Peres, Wilmer, Markov Chains and Mixing Times, 12.2).

    Raises:
        InvalidModelError: the matrix is not square, or an entry is not finite.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.isfinite(matrix).all():
        raise InvalidModelError(f"a transition matrix is square and finite; this one has shape {matrix.shape}")
    moduli = np.sort(np.abs(np.linalg.eigvals(matrix)))
    second = float(moduli[-2]) if len(moduli) > 1 else 0.0
    gap = max(0.0, 1.0 - second)
    return Spectrum(second, gap, 1.0 / gap if gap > 1e-12 else math.inf)


def autocorrelation_time(matrix: Matrix, law: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """The exact tau_int = 1 + 2 sum over t > 0 of rho(t) of an observable, in steps; what `diagnostics()` estimates.

    With f the values about their mean, the sum of <f(0) f(t)> over t >= 0 is p f (1 - P + 1 p)^-1 f, (n_states,).

    Raises:
        InvalidModelError: the observable is constant, or the matrix keeps more laws than this one, so that it is never
            forgotten.
    """
    centred = values - law @ values
    variance = float(law @ centred**2)
    if variance <= 1e-26 * float(law @ np.square(values, dtype=np.float64)):
        raise InvalidModelError("a constant observable has no autocorrelation; take one that varies under the law")
    system = np.eye(len(law)) - matrix + law[None, :]
    if np.linalg.cond(system) > 1e12:
        raise InvalidModelError("the matrix keeps more than one law: where a chain starts is never forgotten")
    return float(2.0 * (law * centred) @ np.linalg.solve(system, centred) / variance - 1.0)


def transition_counts(law: ExactLaw, states: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """How often each state followed each, within chains: of samples (n_chains, n_samples, n_sites), by state.

    Raises:
        InvalidModelError: samples of another shape, or one that is not among the law's states.
    """
    if states.ndim != 3:
        raise InvalidModelError(f"samples have shape (n_chains, n_samples, n_sites), not {states.shape}")
    where, n = law.numbers(states), len(law.states)
    return np.bincount((where[:, :-1] * n + where[:, 1:]).ravel(), minlength=n * n).reshape(n, n)


def kernel_chi_square(counts: NDArray[np.int64], matrix: Matrix) -> ChiSquare:
    """Did these transitions come from this matrix? P. Billingsley, Ann. Math. Stat. 32, 12 (1961).

    Pearson's test of each row, whose cells with fewer than 10 expected are pooled into one. Rows are independent in the
    limit of many transitions, so that statistics and degrees of freedom add up. The total variation is the rows' mean,
    weighted by visits.

    Raises:
        InvalidModelError: shapes that do not fit, or too few transitions to test anything.
    """
    if counts.shape != matrix.shape:
        raise InvalidModelError(f"counts of shape {counts.shape} are not of a matrix of shape {matrix.shape}")
    expected = counts.sum(axis=1, keepdims=True) * matrix
    if ((expected == 0) & (counts > 0)).any():
        return ChiSquare(math.inf, 1, 0.0, 1.0)
    rare = expected < SMALLEST_EXPECTED
    observed = np.hstack([np.where(rare, 0, counts), (counts * rare).sum(axis=1, keepdims=True)])
    wanted = np.hstack([np.where(rare, 0.0, expected), (expected * rare).sum(axis=1, keepdims=True)])
    # a pool that is too small itself joins its row's smallest cell: without it, what is left of a row would have a
    # statistic whose mean is above its degrees of freedom by the pool's share
    cells = wanted >= SMALLEST_EXPECTED
    row, smallest = np.arange(len(wanted)), np.where(cells, wanted, np.inf)[:, :-1].argmin(axis=1)
    small = np.where(cells[:, -1], 0, 1)
    observed[row, smallest] += small * observed[:, -1]
    wanted[row, smallest] += small * wanted[:, -1]
    cells &= cells.sum(axis=1, keepdims=True) > 1
    freedom = int(np.maximum(cells.sum(axis=1) - 1, 0).sum())
    distance = np.abs(counts - expected).sum() / (2 * counts.sum()) if counts.any() else 0.0
    return _chi_square(observed[cells], wanted[cells], freedom, float(distance))


def balance_chi_square(counts: NDArray[np.int64]) -> ChiSquare:
    """Do these transitions keep detailed balance? A. H. Bowker, J. Am. Stat. Assoc. 43, 572 (1948).

    Of a stationary reversible chain a -> b is as frequent as b -> a: sum of (n_ab - n_ba)^2 / (n_ab + n_ba) over pairs,
    of which those seen fewer than 20 times are left out. Its mean is exact however few were seen, which that of a
    G-test is not. The degrees of freedom are the number of pairs; within one chain what flows in flows out, which takes
    some away, so that alpha is kept or undercut.

    Raises:
        InvalidModelError: too few transitions to test anything.
    """
    upper = np.triu(np.ones(counts.shape, dtype=bool), 1)
    there, back = counts[upper].astype(np.float64), counts.T[upper].astype(np.float64)
    enough = there + back >= 2 * SMALLEST_EXPECTED
    half = (there + back)[enough] / 2
    distance = np.abs(there - back).sum() / (2 * counts.sum()) if counts.any() else 0.0
    # both directions together: 2 (n_ab - half)^2 / half
    found = np.concatenate([there[enough], back[enough]])
    return _chi_square(found, np.concatenate([half, half]), len(half), float(distance))


def _chi_square(observed: NDArray[Any], wanted: NDArray[np.float64], freedom: int, distance: float) -> ChiSquare:
    from scipy.stats import chi2

    if freedom == 0:
        raise InvalidModelError(
            f"no transition was seen {SMALLEST_EXPECTED:.0f} times in each direction or cell; take more samples"
        )
    statistic = float(((observed - wanted) ** 2 / wanted).sum())
    return ChiSquare(statistic, freedom, float(chi2.sf(statistic, freedom)), distance)


def _values(model: Model) -> NDArray[np.int64]:
    return np.array([-1, 1]) if isinstance(model, IsingModel) else np.arange(model.n_states)


def _energies_at(model: Model, site: int, states: NDArray[np.int64]) -> NDArray[np.float64]:
    """The energy of each state with each value at the site, (n_states, q)."""
    values = _values(model)
    changed = np.repeat(states[:, None], len(values), axis=1)
    changed[:, :, site] = values
    return np.asarray(model.energies(changed), dtype=np.float64)


def _primitive(steps: NDArray[np.bool_]) -> bool:
    """Whether some power has no zero; if any has, then that of (n - 1)^2 + 1 (Wielandt), and every later one."""
    n, power, exponent = len(steps), steps.astype(np.float32), 1
    while not power.all() and exponent < (n - 1) ** 2 + 1:
        power = (power @ power > 0).astype(np.float32)
        exponent *= 2
    return bool(power.all())
