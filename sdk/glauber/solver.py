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
from glauber.errors import InvalidModelError, ModelNotSupportedError
from glauber.formats import Graph, is_gset, read_gset, read_model
from glauber.model import IsingModel
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
        objective: the cut of a MaxCut file, else the energy.
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
        objective: "cut" for a MaxCut (Gset) file, "energy" otherwise.
        value: of the objective: the cut, recounted edge by edge, or the energy.
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
        return result


@dataclass
class _Search:
    """The state of one solve."""

    model: IsingModel
    graph: Graph | None
    target: float | None
    on_progress: Callable[[SolveProgress], None] | None
    began: float = field(default_factory=time.perf_counter)
    best: NDArray[np.int8] | None = None
    energy: float = math.inf
    reached: float | None = None
    trace: list[SolveProgress] = field(default_factory=list)
    last: Incumbent | None = None

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began

    def take(self, incumbent: Incumbent, temperatures: Callable[[], tuple[Temperature, ...]]) -> None:
        """Recount a new best state, report."""
        self.last = incumbent
        improved = False
        if incumbent.state is not None:
            energy = float(self.model.energies(incumbent.state))
            improved = energy < self.energy
            if improved:
                self.best, self.energy = incumbent.state, energy
        objective = -self.energy if self.graph is not None else self.energy
        now = SolveProgress(self.seconds, self.energy, objective, incumbent.sweeps, temperatures)
        if improved:
            self.trace.append(now)
        if self.target is not None and self.reached is None:
            hit = objective >= self.target if self.graph is not None else objective <= self.target
            self.reached = now.seconds if hit else None
        if self.on_progress is not None:
            self.on_progress(now)

    def solutions(self, most: int) -> Aggregate:
        """Distinct states, best first."""
        assert self.best is not None
        assert self.last is not None
        states = np.concatenate([self.best[None], self.last.others()])
        signs = np.ones(len(states), dtype=np.int8) if self.model.fields.any() else states[:, 0] * self.best[0]
        states = np.unique(states * signs[:, None], axis=0)
        energies = self.model.energies(states)
        first = np.lexsort((~(states == self.best).all(axis=1), energies))[:most]
        return Aggregate(states[first], energies[first], np.ones(len(first), dtype=np.int64))


def solve(
    problem: IsingModel | dimod.BinaryQuadraticModel | str | Path,
    *,
    device: Device | str,
    budget: Budget | None = None,
    target: float | None = None,
    seed: int | None = None,
    n_solutions: int = 10,
    on_progress: Callable[[SolveProgress], None] | None = None,
) -> Solution:
    """Search for a state of low energy.

    Devices with an optimiser of their own, such as `sim://ideal`, use it; on others, anneals are sampled and the best
    is kept. `Solution.method` says which.

    Args:
        problem: a model, a dimod BQM, or a file that `read_model` reads; a Gset file is a MaxCut problem, its objective
            the cut. IsingModel.from_qubo takes QUBOs.
        device: an open device or an address.
        budget: seconds (20 by default) or sweeps over all chains; a budget in sweeps makes the result reproducible.
        target: stop when the objective is as good as this: a cut at least, or an energy at most.
        seed: 0 .. 2^64 - 1; None derives one from the device's.
        n_solutions: distinct states to return.
        on_progress: called with the best so far, every few hundredths of a second or after each round of anneals.

    Raises:
        ModelNotSupportedError: the device cannot run the model, or cannot anneal.
        InvalidModelError: an argument is wrong, or the budget allows nothing.
        FileFormatError: the file is malformed.
    """
    budget = Budget(seconds=20.0) if budget is None else budget
    if not isinstance(budget, Budget):
        raise InvalidModelError(f"budget must be a glauber.Budget, not {type(budget).__name__}")
    if not isinstance(device, Device | str):
        raise InvalidModelError(f"device must be a Device or an address, not {type(device).__name__}")
    seed = check_seed(seed)
    if budget.joules is not None or (budget.seconds is None and budget.sweeps is None):
        raise InvalidModelError("solve takes a budget in seconds or sweeps")
    n_solutions = whole_number("n_solutions", n_solutions, 1)
    if target is not None and (not isinstance(target, int | float) or not math.isfinite(target)):
        raise InvalidModelError(f"target must be a finite number, not {target!r}")
    model, graph = _read(problem)
    search = _Search(model, graph, target, on_progress)
    if isinstance(device, str):
        with open_device(device) as opened:
            return _solve(search, opened, budget, seed, n_solutions)
    return _solve(search, device, budget, seed, n_solutions)


def _read(problem: Any) -> tuple[IsingModel, Graph | None]:
    """The model, and the graph of a MaxCut file."""
    if isinstance(problem, IsingModel):
        return problem, None
    if isinstance(problem, str | Path):
        graph = read_gset(problem) if is_gset(problem) else None
        read = read_model(problem)
        if not isinstance(read, IsingModel):
            raise ModelNotSupportedError(f"{problem} holds a Potts model; solve takes Ising models")
        return read, graph
    if hasattr(problem, "vartype") and hasattr(problem, "quadratic"):
        return IsingModel.from_bqm(problem), None
    raise InvalidModelError(f"solve takes an IsingModel, a dimod BQM or a file, not {type(problem).__name__}")


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
    model = search.model
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
            budget.seconds,
            None,
        )
        incumbents, method = device.optimise(request), "presolve, tempering and crossover"
    else:
        incumbents, method = anneal_again(device, model, budget, seed), "annealing with restarts"
    with closing(incumbents):  # type: ignore[type-var]  # both are generators
        for incumbent in incumbents:
            search.take(incumbent, lambda of=incumbent.temperatures: _in_units(of(), unit))  # type: ignore[misc]
            if search.reached is not None or (budget.seconds is not None and search.seconds >= budget.seconds):
                break
        last = search.last
        assert last is not None
        solutions = search.solutions(n_solutions)
    best, energy = solutions.states[0], float(solutions.energies[0])
    return Solution(
        spins=best,
        energy=energy,
        objective="cut" if search.graph is not None else "energy",
        value=search.graph.cut(best) if search.graph is not None else energy,
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
