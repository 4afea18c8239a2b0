"""Low energies instead of samples: `solve` searches within a budget, by the device's own optimiser where it has one.

Every energy that is reported is recounted from the problem as it was given, not taken from the device.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from glauber.checks import whole_number
from glauber.compile.quantise import exact_step
from glauber.device import Device, open_device
from glauber.driver import Incumbent, OptimiseRequest, Temperature
from glauber.errors import InvalidModelError
from glauber.model import IsingModel
from glauber.problem import Problem, read_problem
from glauber.request import Budget, check_seed
from glauber.restarts import anneal_again, beta_range
from glauber.samples import Aggregate

if TYPE_CHECKING:
    import dimod

SUM_LIMIT = 2**28
"""Bound on |field| + sum |weight| of every site in integer steps; see OptimiseRequest."""
FINE_SUM = 2**26
"""The largest of these sums where coefficients have no common step."""


@dataclass(frozen=True, slots=True)
class SolveProgress:
    """How far `solve` is.

    Attributes:
        seconds: since the start.
        energy: of the best state, in the user's problem.
        objective: what `Solution.value` is.
        sweeps: sweeps so far, over all chains.
        temperatures: gives what the search does at each temperature, betas and energies in the problem's units; empty
            where it does no tempering.
    """

    seconds: float
    energy: float
    objective: float
    sweeps: int
    temperatures: Callable[[], tuple[Temperature, ...]]


@dataclass(frozen=True, slots=True)
class Solution:
    """What `solve` found.

    Attributes:
        spins: the best state, int8 (n_sites,).
        energy: its energy, recounted from the problem as given.
        objective: "cut" for a MaxCut (Gset) file, "objective" for a problem with constraints, "energy" otherwise.
        value: of the objective: the cut, recounted edge by edge, the objective without penalties, or the energy.
        assignment: the best state in the variables of a problem with constraints; None for others.
        violations: constraints that the best state breaks, and by how much; empty where it keeps all, None where there
            are none.
        solutions: distinct states found, best first; of a model without fields one of each pair s, -s.
        proven: there is no better state: exact reductions and trying all states of what they left decided it.
        n_searched: spins that exact reductions left to the search.
        seconds: wall-clock time used.
        sweeps: sweeps used, over all chains.
        trace: each improvement as it came.
        seconds_to_target: when the target was reached; None if it was not, or none was given.
        seed: of the whole solve.
        device: address.
        method: how it was solved.
    """

    spins: NDArray[np.int8]
    energy: float
    objective: str
    value: float
    assignment: dict[Any, int] | None
    violations: dict[str, float] | None
    solutions: Aggregate
    proven: bool
    n_searched: int
    seconds: float
    sweeps: int
    trace: tuple[SolveProgress, ...]
    seconds_to_target: float | None
    seed: int
    device: str
    method: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        names = (
            "energy",
            "objective",
            "value",
            "violations",
            "proven",
            "n_searched",
            "seconds",
            "sweeps",
            "seed",
            "device",
            "method",
        )
        result = {name: getattr(self, name) for name in names}
        result["seconds_to_target"] = self.seconds_to_target
        result["distinct_solutions"] = len(self.solutions)
        result["spins"] = self.spins.tolist()
        if self.assignment is not None:
            result["assignment"] = {str(name): value for name, value in self.assignment.items()}
        return result


@dataclass
class _Search:
    """The state of one solve."""

    problem: Problem
    target: float | None
    on_progress: Callable[[SolveProgress], bool | None] | None
    began: float = field(default_factory=time.perf_counter)
    best: NDArray[np.int8] | None = None
    energy: float = math.inf
    value: float = math.inf
    reached: float | None = None
    trace: list[SolveProgress] = field(default_factory=list)
    last: Incumbent | None = None
    stopped: bool = False

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began

    def take(self, incumbent: Incumbent, temperatures: Callable[[], tuple[Temperature, ...]]) -> None:
        """Recount a new best state, report."""
        self.last = incumbent
        improved = False
        if incumbent.state is not None:
            energy = float(self.problem.model.energies(incumbent.state))
            improved = energy < self.energy
            if energy <= self.energy:
                self.best, self.energy, self.value = incumbent.state, energy, self.problem.value(incumbent.state)
        now = SolveProgress(self.seconds, self.energy, self.value, incumbent.sweeps, temperatures)
        if improved:
            self.trace.append(now)
            assert self.best is not None
            if self.target is not None and self.problem.reaches(self.best, self.target):
                self.reached = now.seconds
        if self.on_progress is not None and self.on_progress(now):
            self.stopped = True

    def solutions(self, most: int) -> Aggregate:
        """Distinct states, best first; those that keep all constraints before those that do not."""
        model, violations = self.problem.model, self.problem.violations
        assert self.best is not None
        assert self.last is not None
        states = np.concatenate([self.best[None], self.last.others()])
        signs = np.ones(len(states), dtype=np.int8) if model.fields.any() else states[:, 0] * self.best[0]
        states = np.unique(states * signs[:, None], axis=0)
        energies = model.energies(states)
        broken = np.zeros(len(states)) if violations is None else np.array([bool(violations(s)) for s in states])
        first = np.lexsort((~(states == self.best).all(axis=1), energies, broken))[:most]
        return Aggregate(states[first], energies[first], np.ones(len(first), dtype=np.int64))


def solve(
    problem: IsingModel | dimod.BinaryQuadraticModel | dimod.ConstrainedQuadraticModel | str | Path,
    *,
    device: Device | str,
    budget: Budget | None = None,
    target: float | None = None,
    seed: int | None = None,
    n_solutions: int = 10,
    penalty: float | None = None,
    on_progress: Callable[[SolveProgress], bool | None] | None = None,
) -> Solution:
    """Search for a state of low energy.

    Devices with an optimiser of their own, such as `sim://ideal`, use it; on others, anneals are sampled and the best
    is kept. `Solution.method` says which.

    Args:
        problem: a model, a dimod BQM or CQM, or a file that `read_model` reads; a Gset file is a MaxCut problem, its
            objective the cut; an .lp file may have constraints. IsingModel.from_qubo takes QUBOs.
        device: an open device or an address.
        budget: seconds (20 by default) or sweeps over all chains; a budget in sweeps makes the result reproducible.
            Seconds that are over before a large problem is set up still buy one short anneal.
        target: stop when the objective is as good as this: a cut at least, or an energy at most.
        seed: 0 .. 2^64 - 1; None derives one from the device's.
        n_solutions: distinct states to return.
        penalty: what a violation of 1 costs, of constraints, which become squared penalties; None takes ten times the
            objective's largest coefficient. `Solution.violations` says what was broken all the same.
        on_progress: called with the best so far, every few hundredths of a second or after each round of anneals;
            returns True to stop, with the best so far as the result.

    Raises:
        ModelNotSupportedError: the device cannot run the model, or cannot anneal; constraints are not linear.
        InvalidModelError: an argument is wrong, or the budget allows nothing.
        FileFormatError: the file is malformed.
    """
    budget = Budget(seconds=20.0) if budget is None else budget
    if not isinstance(budget, Budget):
        raise InvalidModelError(f"budget must be a glauber.Budget, not {type(budget).__name__}")
    if not isinstance(device, Device | str):
        raise InvalidModelError(f"device must be a Device or an address, not {type(device).__name__}")
    seed = check_seed(seed)
    other = budget.joules is not None or budget.ess is not None
    if other or (budget.seconds is None and budget.sweeps is None):
        raise InvalidModelError("solve takes a budget in seconds or sweeps")
    n_solutions = whole_number("n_solutions", n_solutions, 1)
    if target is not None and (not isinstance(target, int | float) or not math.isfinite(target)):
        raise InvalidModelError(f"target must be a finite number, not {target!r}")
    search = _Search(read_problem(problem, penalty), target, on_progress)
    if isinstance(device, str):
        with open_device(device) as opened:
            return _solve(search, opened, budget, seed, n_solutions)
    return _solve(search, device, budget, seed, n_solutions)


def _integers(model: IsingModel) -> tuple[NDArray[np.int32], NDArray[np.int32], float]:
    """(weights, fields, step): exactly where there is a step that allows it, else as finely as sums allow."""
    values = np.concatenate([model.couplings, model.fields])
    largest = float(np.abs(values).max(initial=0.0)) or 1.0
    relative = values / largest
    sums = np.bincount(model.edges.ravel(), np.repeat(np.abs(model.couplings / largest), 2), model.n_sites)
    most = float((sums + np.abs(model.fields / largest)).max(initial=1.0))
    step = exact_step(relative, limit=2**24)
    if step is None or most / step >= SUM_LIMIT:
        step = most / FINE_SUM
    whole = np.rint(relative / step).astype(np.int32)
    return whole[: model.n_edges], whole[model.n_edges :], step * largest


def _solve(search: _Search, device: Device, budget: Budget, seed: int | None, n_solutions: int) -> Solution:
    seed = device.derive_seed() if seed is None else seed
    problem = search.problem
    model = problem.model
    incumbents: Iterator[Incumbent]
    unit = 1.0
    if device.optimises:
        weights, fields, unit = _integers(model)
        hot, cold = beta_range(model)
        request = OptimiseRequest(
            model.n_sites,
            model.edges,
            weights,
            fields if fields.any() else None,
            hot * unit,
            cold * unit,
            seed,
            budget.sweeps,
            None if budget.seconds is None else max(0.0, budget.seconds - search.seconds),
            None,
        )
        incumbents, method = device.optimise(request), "presolve, tempering and crossover"
    else:
        incumbents, method = anneal_again(device, model, budget, seed), "annealing with restarts"
    with closing(incumbents):  # type: ignore[type-var]  # both are generators
        for incumbent in incumbents:
            search.take(incumbent, lambda of=incumbent.temperatures: _in_units(of(), unit))  # type: ignore[misc]
            late = budget.seconds is not None and search.seconds >= budget.seconds and incumbent.sweeps > 0
            if search.reached is not None or search.stopped or late:
                break
        last = search.last
        assert last is not None
        solutions = search.solutions(n_solutions)
    best, energy = solutions.states[0], float(solutions.energies[0])
    return Solution(
        spins=best,
        energy=energy,
        objective=problem.objective,
        value=problem.value(best),
        assignment=None if problem.assignment is None else problem.assignment(best),
        violations=None if problem.violations is None else problem.violations(best),
        solutions=solutions,
        proven=last.proven,
        n_searched=last.n_searched,
        seconds=search.seconds,
        sweeps=last.sweeps,
        trace=tuple(search.trace),
        seconds_to_target=search.reached,
        seed=seed,
        device=device.address,
        method=method,
    )


def _in_units(temperatures: tuple[Temperature, ...], unit: float) -> tuple[Temperature, ...]:
    return tuple(Temperature(t.beta / unit, t.energy * unit, t.acceptance) for t in temperatures)
