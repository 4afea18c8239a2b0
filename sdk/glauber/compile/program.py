"""What is loaded into a device: integer couplings and fields in update order."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glauber.compile.order import Order, order_of
from glauber.compile.quantise import SUM_LIMIT, QuantisationReport, Step, choose_step, make_report, to_steps
from glauber.errors import InvalidModelError, ModelNotSupportedError
from glauber.model import IsingModel, Model, PottsModel
from glauber.spec import AnySpec

MAX_LISTED_REASONS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """An Ising program. Integers are in steps; "position" is a place in the update order.

    Attributes:
        order: positions, colours and row structure.
        edges: the model's edges, sites, int32 (n_edges, 2).
        weight: int32 per row entry of the order.
        edge_weight: int32 per edge.
        field: int32 by site.
        weight_sum: largest sum of |weight| over a row.
        quantisation: the step and what it costs; `quantisation.step` turns steps into the model's units.
        field_multiple: fields of a run are multiples of this many steps.
        field_limit: largest multiple, or None.
        offset: the model's, added to programmed energies.
        key: digest of all that a device is loaded with.
    """

    order: Order
    edges: NDArray[np.int32]
    weight: NDArray[np.int32]
    edge_weight: NDArray[np.int32]
    field: NDArray[np.int32]
    weight_sum: NDArray[np.int64]
    quantisation: QuantisationReport
    field_multiple: int
    field_limit: int | None
    offset: float
    key: str

    @property
    def n_sites(self) -> int:
        """Number of spins."""
        return len(self.field)

    @property
    def n_edges(self) -> int:
        """Number of couplings."""
        return len(self.edge_weight)

    @property
    def n_states(self) -> int:
        """2, as for every Ising program."""
        return 2

    def as_model(self) -> IsingModel:
        """The model that the device really holds, in the user's units."""
        step = self.quantisation.step
        return IsingModel(self.field * step, self.edges, self.edge_weight * step, self.offset)


@dataclass(frozen=True, slots=True, eq=False)
class PottsProgram:
    """A Potts program.

    Attributes:
        order: positions, colours and row structure.
        edges: the model's edges, sites.
        weight: int32 per row entry: what an equal neighbour adds; None when there are tables.
        table_start: int64 per row entry: where its table begins in `table`; None without tables.
        table: tables flat, each indexed [state of the neighbour][own state]; None without tables.
        field: int32 (n_sites, n_states) by site.
        allowed: Boolean (n_sites, n_states) by site, or None.
        weight_sum: bound on the couplings' share of a site's field, int64 by position.
        quantisation: see Program.
        field_multiple: see Program.
        field_limit: see Program.
        offset: see Program.
        edge_couplings: programmed couplings in steps, in the shape the model gave them in.
        key: digest.
    """

    order: Order
    edges: NDArray[np.int32]
    weight: NDArray[np.int32] | None
    table_start: NDArray[np.int64] | None
    table: NDArray[np.int32] | None
    field: NDArray[np.int32]
    allowed: NDArray[np.bool_] | None
    weight_sum: NDArray[np.int64]
    quantisation: QuantisationReport
    field_multiple: int
    field_limit: int | None
    offset: float
    edge_couplings: NDArray[np.int32]
    key: str

    @property
    def n_sites(self) -> int:
        """Number of Potts spins."""
        return int(self.field.shape[0])

    @property
    def n_edges(self) -> int:
        """Number of interacting pairs."""
        return len(self.edges)

    @property
    def n_states(self) -> int:
        """States per spin."""
        return int(self.field.shape[1])

    def as_model(self) -> PottsModel:
        """The model that the device really holds, in the user's units."""
        step = self.quantisation.step
        return PottsModel(self.field * step, self.edges, self.edge_couplings * step, self.allowed, self.offset)


AnyProgram = Program | PottsProgram


def misfits(model: Model, spec: AnySpec) -> list[str]:
    """Why a model's graph does not fit a device as it stands; empty if it does."""
    reasons: list[str] = []
    if isinstance(model, PottsModel) and model.n_states > spec.capabilities.potts_states:
        has = f"p-dits of up to {spec.capabilities.potts_states} states" if spec.capabilities.potts_states else "p-bits"
        reasons.append(f"the model has {model.n_states} states a site; the device has {has}")
    if spec.n_sites is not None and model.n_sites > spec.n_sites:
        reasons.append(f"size: the model has {model.n_sites} sites, the device {spec.n_sites}")
        return reasons
    if spec.topology is None:
        if not spec.any_graph:
            reasons.append(f"the device's graph is not known{': ' if spec.topology_note else ''}{spec.topology_note}")
        return reasons
    degree = int(np.bincount(model.edges.ravel(), minlength=1).max()) if model.n_edges else 0
    if degree > spec.topology.max_degree:
        reasons.append(
            f"degree: a site of the model has {degree} couplings, the device's have {spec.topology.max_degree}"
        )
    missing = model.edges[~spec.topology.has_edges(model.edges)] if model.n_edges else model.edges
    if len(missing):
        listed = ", ".join(f"{i}-{j}" for i, j in missing[:MAX_LISTED_REASONS].tolist())
        more = "" if len(missing) <= MAX_LISTED_REASONS else f" and {len(missing) - MAX_LISTED_REASONS} more"
        reasons.append(f"missing edges: {len(missing)} of {model.n_edges} ({listed}{more})")
    return reasons


def check_fit(model: Model, spec: AnySpec) -> None:
    """Refuse a model whose graph does not fit, with every reason.

    Raises:
        ModelNotSupportedError: naming what does not fit and what to do.
    """
    reasons = misfits(model, spec)
    if reasons:
        remedy = "sim://ideal takes any graph"
        if spec.topology is not None:
            remedy = f"embed=True places it on the device's graph with several p-bits a spin; {remedy}"
        raise ModelNotSupportedError(f"the model does not fit {spec.name} ({remedy}):", tuple(reasons))


def _key(model: Model, step: Step) -> str:
    """A digest of a model and its step, from which all integers follow: they need not be hashed as well."""
    return hashlib.blake2b(repr((model.key, step)).encode(), digest_size=16).hexdigest()


def weights_key(program: AnyProgram) -> str:
    """A digest of a program but for its fields: two of the same key differ in what a run's `fields` can replace.

    The step is part of it, since fields are integers in steps, and so is what a p-dit may be.
    """
    quantisation = program.quantisation
    scalars = (program.n_sites, program.n_states, quantisation.step, quantisation.scale)
    digest = hashlib.blake2b(repr((*scalars, program.field_multiple, program.field_limit)).encode(), digest_size=16)
    parts: tuple[NDArray[Any] | None, ...] = (program.edges,)
    if isinstance(program, Program):  # a corrected program has directed rows, which its edges do not show
        parts += (program.order.neighbour, program.order.row_start, program.weight)
    else:
        parts += (program.edge_couplings, program.allowed)
    for array in parts:
        digest.update(b"" if array is None else repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _row_sums(order: Order, magnitudes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum over each row of the magnitudes of its entries, by position."""
    if magnitudes.size == 0:
        return np.zeros(len(order.site), dtype=np.int64)
    if (np.diff(order.row_start) > 0).all():
        return np.add.reduceat(magnitudes, order.row_start[:-1], dtype=np.int64)
    running = np.concatenate([[0], np.cumsum(magnitudes, dtype=np.int64)])
    return np.diff(running[order.row_start])


def check_sums(weight_sum: NDArray[np.int64], field_by_position: NDArray[np.int64]) -> int:
    """The largest |field| + sum |weight|, refused from 2^30 on (machine.md, section 1.5)."""
    largest = int((weight_sum + np.abs(field_by_position)).max())
    if largest >= SUM_LIMIT:
        raise ModelNotSupportedError(
            f"the couplings and field of one site add up to {largest} steps; the limit is 2^30. Use fewer weight bits"
            " or bring couplings and fields to a comparable scale"
        )
    return largest


def step_of(
    model: Model,
    spec: AnySpec,
    *,
    fold: float | None = None,
    on_overflow: str = "error",
    job_fields: NDArray[np.float64] | None = None,
) -> Step:
    """The integer step of a job.

    Args:
        model: what to sample.
        spec: whose precision and ranges count.
        fold: beta, where the device takes it by scaled coefficients.
        on_overflow: "error" refuses coefficients out of range, "scale" shrinks them all and raises beta.
        job_fields: fields that the job brings in place of the model's.

    Raises:
        ModelNotSupportedError: a coefficient is out of range.
    """
    return choose_step(
        spec.coefficients,
        model.couplings.ravel(),
        model.fields.ravel(),
        np.zeros(0) if job_fields is None else job_fields.ravel(),
        fold=fold,
        on_overflow=on_overflow,
    )


def compile_program(model: Model, step: Step) -> AnyProgram:
    """The integer program of a model on a device whose graph it fits (`check_fit`), on the step that `step_of` chose.

    Raises:
        ModelNotSupportedError: a coefficient or a sum of them is out of range.
    """
    order = order_of(model.graph_key, model.n_sites, model.edges)
    field = to_steps(model.fields, step.step, step.field_multiple, step.field_limit)
    couplings = to_steps(model.couplings, step.step, step.weight_multiple, step.weight_limit, sign_only=step.sign_only)
    n_states = model.n_states if isinstance(model, PottsModel) else None
    report = make_report([(model.couplings, couplings), (model.fields, field)], step, n_states)
    if isinstance(model, PottsModel):
        return _potts(model, order, couplings, field, step, report)
    weight = couplings[order.row_edge]
    weight_sum = _row_sums(order, np.abs(weight, dtype=np.int64))
    if model.n_edges > 0:  # else to_steps has refused all that is too large
        check_sums(weight_sum, field[order.site].astype(np.int64))
    return Program(
        order=order,
        edges=model.edges,
        weight=weight,
        edge_weight=couplings,
        field=field,
        weight_sum=weight_sum,
        quantisation=report,
        field_multiple=step.field_multiple,
        field_limit=step.field_limit,
        offset=model.offset,
        key=_key(model, step),
    )


def _potts(
    model: PottsModel,
    order: Order,
    couplings: NDArray[np.int32],
    field: NDArray[np.int32],
    step: Step,
    report: QuantisationReport,
) -> PottsProgram:
    weight = table = table_start = None
    q = model.n_states
    if couplings.ndim == 1:
        weight = couplings[order.row_edge]
        bound = np.abs(weight.astype(np.int64))
    else:
        # Both orientations of each table lie in one pool; a row whose site is the edge's first reads its neighbour's
        # state as the table's second index, so it takes the transpose.
        per_edge = couplings if couplings.ndim == 3 else couplings[None]
        table = np.concatenate([per_edge, per_edge.swapaxes(1, 2)]).ravel()
        index = order.row_edge.astype(np.int64) if couplings.ndim == 3 else np.zeros(len(order.row_edge), np.int64)
        table_start = (index + np.where(order.row_forward, len(per_edge), 0)) * q * q
        largest = np.abs(per_edge.astype(np.int64)).max(axis=(1, 2), initial=0)
        bound = largest[index]
    weight_sum = _row_sums(order, bound)
    if model.n_edges > 0:
        check_sums(weight_sum, np.abs(field[order.site].astype(np.int64)).max(axis=1))
    return PottsProgram(
        order=order,
        edges=model.edges,
        weight=weight,
        table_start=table_start,
        table=table,
        field=field,
        allowed=model.allowed,
        weight_sum=weight_sum,
        quantisation=report,
        field_multiple=step.field_multiple,
        field_limit=step.field_limit,
        offset=model.offset,
        edge_couplings=couplings,
        key=_key(model, step),
    )


MAX_ENUMERATED_STATES = 2**16


def distribution_change(model: Model, program: AnyProgram, beta: float) -> float:
    """Total variation distance between the asked and the programmed Boltzmann law, by enumerating all states.

    Raises:
        InvalidModelError: the model has more than 65,536 states.
    """
    q = 2 if isinstance(model, IsingModel) else model.n_states
    if q**model.n_sites > MAX_ENUMERATED_STATES:
        raise InvalidModelError(
            f"{q}^{model.n_sites} states are too many to enumerate; at most {MAX_ENUMERATED_STATES}"
        )
    states = np.array(list(itertools.product(range(q), repeat=model.n_sites)))
    if isinstance(model, IsingModel):
        states = 2 * states - 1
    laws = []
    for each in (model, program.as_model()):
        log_weight = -beta * each.energies(states)
        weight = np.exp(log_weight - log_weight.max())
        laws.append(weight / weight.sum())
    return float(np.abs(laws[0] - laws[1]).sum() / 2)
