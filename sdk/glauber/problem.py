"""What `solve` takes, as one thing: a model to search, and how the problem as it was given judges a state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glauber.errors import FileFormatError, InvalidModelError, ModelNotSupportedError, missing_extra
from glauber.formats import is_gset, read_gset, read_model
from glauber.model import IsingModel

Spins = NDArray[np.int8]
TOLERANCE = 1e-8
"""Of a violation, relative to the right-hand side where that is above 1: sums of floats are rounded."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A model and its judge.

    Attributes:
        model: what is searched.
        objective: "energy", "cut" of a MaxCut (Gset) file, or "objective" of a problem with constraints.
        value: recounts the objective of a state.
        assignment: a state in the problem's own variables; None where spins are these.
        violations: constraints that a state breaks, and by how much; None for a problem without constraints.
    """

    model: IsingModel
    objective: str
    value: Callable[[Spins], float]
    assignment: Callable[[Spins], dict[Any, int]] | None = None
    violations: Callable[[Spins], dict[str, float]] | None = None

    def reaches(self, spins: Spins, target: float) -> bool:
        """Whether a state is as good as the target, and allowed."""
        value = self.value(spins)
        good = value >= target if self.objective == "cut" else value <= target
        return good and not (self.violations is not None and self.violations(spins))


def read_problem(problem: Any, penalty: float | None = None) -> Problem:
    """An IsingModel, a dimod BQM or CQM, or a file: what `read_model` reads, Gset as MaxCut, or .lp with constraints.

    Raises:
        InvalidModelError: it is something else, or `penalty` is given where nothing is constrained.
        ModelNotSupportedError: a Potts model, or constraints that penalties cannot express.
        MissingExtraError: a problem with constraints, and no dimod.
        FileFormatError: the file is malformed.
    """
    if isinstance(problem, str | Path) and Path(problem).suffix == ".lp":
        return _constrained(_read_lp(Path(problem)), penalty)
    if hasattr(problem, "constraints") and hasattr(problem, "objective"):
        return _constrained(problem, penalty)
    if penalty is not None:
        raise InvalidModelError(
            "a penalty is for problems with constraints: a dimod ConstrainedQuadraticModel or .lp file"
        )
    if isinstance(problem, IsingModel):
        return _plain(problem)
    if isinstance(problem, str | Path):
        read = read_model(problem)
        if not isinstance(read, IsingModel):
            raise ModelNotSupportedError(f"{problem} holds a Potts model; solve takes Ising models")
        return Problem(read, "cut", read_gset(problem).cut) if is_gset(problem) else _plain(read)
    if hasattr(problem, "vartype") and hasattr(problem, "quadratic"):
        return _plain(IsingModel.from_bqm(problem))
    raise InvalidModelError(f"solve takes an IsingModel, a dimod BQM or CQM, or a file, not {type(problem).__name__}")


def _plain(model: IsingModel) -> Problem:
    return Problem(model, "energy", lambda spins: float(model.energies(spins)))


def _dimod() -> Any:
    try:
        import dimod
    except ImportError as error:
        raise missing_extra("dimod", "interop", "solving with constraints") from error
    return dimod


def _read_lp(path: Path) -> Any:
    """A file in the LP format that mixed-integer solvers share."""
    dimod = _dimod()
    try:
        return dimod.lp.loads(path.read_text())
    except OSError as error:
        raise FileFormatError(f"{path}: {error.strerror}") from error
    except (RuntimeError, ValueError) as error:  # UnicodeDecodeError is one of these
        raise FileFormatError(f"{path} is no LP file: {error}") from error


def _constrained(cqm: Any, penalty: float | None) -> Problem:
    """E = objective + penalty sum (lhs - rhs)^2, inequalities with slack spins, as dimod.cqm_to_bqm makes it.

    Without a penalty, dimod takes ten times the largest coefficient of the objective.
    """
    dimod = _dimod()
    if penalty is not None and not (np.isfinite(penalty) and penalty > 0):
        raise InvalidModelError(f"penalty must be a finite number above 0, not {penalty!r}")
    try:
        bqm, invert = dimod.cqm_to_bqm(cqm, penalty)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ModelNotSupportedError(f"these constraints cannot become penalties: {error}") from error
    if bqm.num_variables == 0:
        raise InvalidModelError("the problem has no variables")
    model = IsingModel.from_bqm(bqm)
    names = model.labels if model.labels is not None else tuple(range(model.n_sites))

    def assignment(spins: Spins) -> dict[Any, int]:
        binary = dict(zip(names, ((spins + 1) // 2).tolist(), strict=True))
        return {name: int(value) for name, value in invert(binary).items()}

    def violations(spins: Spins) -> dict[str, float]:
        broken = {}
        for label, amount in cqm.violations(assignment(spins)).items():
            if amount > TOLERANCE * max(1.0, abs(cqm.constraints[label].rhs)):
                broken[str(label)] = float(amount)
        return broken

    def value(spins: Spins) -> float:
        return float(cqm.objective.energy(assignment(spins)))

    return Problem(model, "objective", value, assignment, violations)
