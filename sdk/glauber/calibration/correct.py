"""A program as it must be loaded so that a calibrated device does what was asked: weights and fields corrected.

A p-bit with gain g and offset o whose couplings arrive as (c J + x) s does what an ideal one would if it is given

    J'_ij = (J_ij / g_i - x_ij) / c_ij,    h'_i = (h_i - o_i / beta) / g_i

for each direction of each coupling; c and x as far as they are to be believed (belief.py). What the device cannot be
given, because its codes end, are too coarse, or are the same for both directions, stays wrong, and the report says how
much. The offset's share depends on beta: where beta changes during a run, the last one counts.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from glauber.calibration.belief import believed
from glauber.calibration.record import CalibrationRecord
from glauber.compile import Program
from glauber.compile.order import Order, order_of
from glauber.compile.program import check_sums
from glauber.compile.quantise import ASSUMED_WEIGHT_BITS, Step, to_steps
from glauber.errors import ModelNotSupportedError
from glauber.model import IsingModel
from glauber.spec import AnySpec

SIGNIFICANT = 3.0
"""Crosstalk between p-bits that the model does not couple is corrected from so many standard uncertainties on."""
MAX_REFINEMENT = 12
SHRINKINGS = 8

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CorrectionReport:
    """What a correction did, and what it could not do.

    Attributes:
        calibration: id of the record.
        beta: for which the offsets are corrected.
        largest_change: of a coefficient, in the model's units.
        largest_residual: largest |wanted - loaded| of a coefficient, in the model's units: rounding, range, direction.
        rms_residual: root mean square of the same.
        out_of_range: coefficients whose corrected value the device cannot hold, as "J 3<-4" or "h 5".
        notes: sentences on what is left wrong on purpose.
    """

    calibration: str
    beta: float
    largest_change: float
    largest_residual: float
    rms_residual: float
    out_of_range: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        text = (
            f"corrected by calibration {self.calibration} at beta {self.beta:g}: coefficients changed by up to"
            f" {self.largest_change:.3g}, left wrong by up to {self.largest_residual:.3g} (rms {self.rms_residual:.2g})"
        )
        if self.out_of_range:
            text += f"; out of range: {', '.join(self.out_of_range[:8])}" + (
                " .." if len(self.out_of_range) > 8 else ""
            )
        return "; ".join([text, *self.notes])


@dataclass(frozen=True, eq=False)
class Correction:
    """A record on its way into a job.

    Attributes:
        program: what is to be loaded: directed rows, fields.
        step: of its integers, in the model's units.
        report: of it.
        gain: by site.
        shift: offset / beta by site, in the model's units.
        field_multiple: see Program.
        field_limit: see Program.
    """

    program: Program
    report: CorrectionReport
    gain: Floats
    shift: Floats

    def fields(self, fields: Floats) -> Floats:
        """A job's own fields, (..., n_sites), corrected; in the model's units, not rounded."""
        return np.asarray((fields - self.shift) / self.gain)


def check_sites(model: IsingModel, bad: Mapping[int, str], *, used: NDArray[np.bool_] | None = None) -> None:
    """Refuse a model that needs a p-bit which does not work.

    Args:
        model: on the device's own sites.
        bad: why, by site.
        used: further sites that the job needs, such as clamped ones.

    Raises:
        ModelNotSupportedError: naming them.
    """
    needed = model.fields != 0
    needed[model.edges.ravel()] = True
    if used is not None:
        needed |= used
    hit = [site for site in sorted(bad) if site < model.n_sites and needed[site]]
    if hit:
        listed = ", ".join(f"{site} ({bad[site]})" for site in hit[:8]) + (" and more" if len(hit) > 8 else "")
        raise ModelNotSupportedError(
            f"the model uses p-bits that do not work: {listed}. embed=True places a model around them; or leave these"
            " sites out"
        )


def correct(
    model: IsingModel,
    intended: Program,
    step: Step,
    record: CalibrationRecord,
    spec: AnySpec,
    beta: float,
    *,
    fields: Floats | None = None,
    may_scale: bool = False,
    one_beta: bool = True,
) -> Correction:
    """The program to load in place of the intended one.

    Args:
        model: on the device's own sites.
        intended: its program without corrections.
        step: of that.
        record: what is known of the device.
        spec: of the device.
        beta: of the run, the last one where it changes.
        fields: the job's own, any shape that ends in n_sites; they decide about a free scale with the rest.
        may_scale: shrink all coefficients and raise beta where corrected ones are out of range.
        one_beta: beta is the same for all sweeps and chains.
    """
    made = _correct(model, intended, step, record, spec, beta, fields, one_beta=one_beta)
    for _ in range(SHRINKINGS if may_scale and spec.capabilities.beta == "programmable" else 0):
        over = made[1]
        if over <= 1.0:
            break
        # what the device adds of itself grows in the model's units when coefficients shrink, so this is asked again
        step = replace(step, step=step.step * over, scale=step.scale / over)
        made = _correct(model, intended, step, record, spec, beta, fields, one_beta=one_beta)
    return made[0]


def _correct(
    model: IsingModel,
    intended: Program,
    step: Step,
    record: CalibrationRecord,
    spec: AnySpec,
    beta: float,
    fields: Floats | None,
    *,
    one_beta: bool,
) -> tuple[Correction, float]:
    """The correction on a step, and by what factor it is out of range, 1 if it is not."""
    n, order = intended.n_sites, intended.order
    pbits, couplings = record.pbits, record.couplings
    gain, offset = np.ones(n), np.zeros(n)
    if pbits is not None:
        known = np.flatnonzero(pbits.good[:n])  # those that nobody looked at, or that do not work, count as ideal
        gain[known], offset[known] = pbits.gain.array[known], pbits.offset.array[known]
    shift = offset / beta if beta > 0 else np.zeros(n)
    first = np.repeat(order.site, np.diff(order.row_start)).astype(np.int64)
    second = order.site[order.neighbour].astype(np.int64)
    asked = model.couplings[order.row_edge]
    extra = np.zeros((0, 2), dtype=np.int64)
    factor, crosstalk = np.ones(len(asked)), np.zeros(len(asked))
    if couplings is not None and couplings.pairs:
        pairs = np.array(couplings.pairs, dtype=np.int64)
        here = (pairs < n).all(axis=1)
        measured, place = pairs[here, 0] * n + pairs[here, 1], np.flatnonzero(here)
        in_order = np.argsort(measured)
        measured, place = measured[in_order], place[in_order]
        code = step.step * step.weight_multiple
        units = record.device_scale(spec) / step.scale  # crosstalk in the units of this model at this scale
        u = couplings.crosstalk.u * units
        x, c = believed(couplings.crosstalk, 0.0), believed(couplings.factor, 1.0)
        x, c = np.zeros(len(pairs)) if x is None else x * units, np.ones(len(pairs)) if c is None else c
        strong = np.abs(x[place]) > np.maximum(SIGNIFICANT * u[place], code / 2)
        there = np.isin(measured, first * n + second)
        found = measured[strong & ~there]
        extra = np.stack([found // n, found % n], axis=1)
        if len(extra):
            order, first, second, asked = _with_pairs(model, intended, extra)
        factor, crosstalk = np.ones(len(asked)), np.zeros(len(asked))
        at = np.minimum(np.searchsorted(measured, first * n + second), max(0, len(measured) - 1))
        hit = measured[at] == first * n + second if len(measured) else np.zeros(len(asked), dtype=bool)
        factor[hit] = c[place[at[hit]]]
        crosstalk[hit] = x[place[at[hit]]]
    wanted = (asked / gain[first] - crosstalk) / factor
    wanted_fields = (model.fields - shift) / gain
    notes = []
    if offset.any() and beta == 0:
        notes.append("at beta 0 nothing that is programmed reaches a p-bit, so offsets stay")
    elif offset.any() and not one_beta:
        notes.append(f"offsets are right at beta {beta:g} only, the last one")
    loaded_values = wanted
    if not spec.capabilities.directed:
        loaded_values = _symmetric(first, second, wanted, n)
        if not np.allclose(loaded_values, wanted):
            notes.append("the device has one coupling for both directions: their mean was taken")
    own = wanted_fields if fields is None else np.concatenate([wanted_fields, ((fields - shift) / gain).ravel()])
    refined = _refined(step, spec, loaded_values, own)
    weight = to_steps(
        loaded_values, refined.step, refined.weight_multiple, refined.weight_limit, sign_only=refined.sign_only
    )
    field = to_steps(wanted_fields, refined.step, refined.field_multiple, refined.field_limit)
    left = np.concatenate([weight * refined.step - wanted, field * refined.step - wanted_fields])
    report = CorrectionReport(
        calibration=record.id,
        beta=beta,
        largest_change=float(np.abs(np.concatenate([wanted - asked, wanted_fields - model.fields])).max(initial=0.0)),
        largest_residual=float(np.abs(left).max(initial=0.0)),
        rms_residual=math.sqrt(float((left**2).mean())) if left.size else 0.0,
        out_of_range=_beyond(refined, loaded_values, np.abs(own.reshape(-1, n)).max(axis=0), first, second),
        notes=tuple(notes),
    )
    sums = np.bincount(order.position[first], np.abs(weight), minlength=n).astype(np.int64)
    check_sums(sums, field[order.site].astype(np.int64))
    key = hashlib.blake2b(repr((intended.key, record.id, beta, refined)).encode(), digest_size=16).hexdigest()
    edge_weight = intended.edge_weight
    if not spec.capabilities.directed and len(edge_weight):  # drivers of such devices may read edges in place of rows
        by_pair = dict(zip(zip(first.tolist(), second.tolist(), strict=True), weight.tolist(), strict=True))
        edge_weight = np.array([by_pair[i, j] for i, j in model.edges.tolist()], dtype=np.int32)
    program = replace(
        intended,
        order=order,
        weight=weight,
        edge_weight=edge_weight,
        field=field,
        weight_sum=sums,
        quantisation=replace(intended.quantisation, step=refined.step, scale=refined.scale),
        field_multiple=refined.field_multiple,
        field_limit=refined.field_limit,
        key=key,
    )
    return Correction(program, report, gain, shift), _excess(refined, loaded_values, own)


def _with_pairs(
    model: IsingModel, intended: Program, extra: NDArray[np.int64]
) -> tuple[Order, NDArray[np.int64], NDArray[np.int64], Floats]:
    """The order of the model's graph and further pairs, and its rows: (order, first, second, asked coupling)."""
    n = intended.n_sites
    edges = np.concatenate([model.edges.astype(np.int64), extra])
    edges = np.unique(np.sort(edges, axis=1), axis=0).astype(np.int32)
    order = order_of(f"corrected {n} {hashlib.blake2b(edges.tobytes(), digest_size=16).hexdigest()}", n, edges)
    first = np.repeat(order.site, np.diff(order.row_start)).astype(np.int64)
    second = order.site[order.neighbour].astype(np.int64)
    low, high = np.sort(model.edges.astype(np.int64), axis=1).T
    known = low * n + high
    in_order = np.argsort(known)
    wanted = np.minimum(first, second) * n + np.maximum(first, second)
    if not len(known):
        return order, first, second, np.zeros(len(first))
    at = np.minimum(np.searchsorted(known[in_order], wanted), len(known) - 1)
    asked = np.where(known[in_order][at] == wanted, model.couplings[in_order][at], 0.0)
    return order, first, second, asked


def _symmetric(first: NDArray[np.int64], second: NDArray[np.int64], wanted: Floats, n: int) -> Floats:
    """The mean of both directions of each pair."""
    pair = np.minimum(first, second) * n + np.maximum(first, second)
    _, place = np.unique(pair, return_inverse=True)
    count = np.bincount(place)
    return np.asarray((np.bincount(place, wanted) / count)[place])


def _refined(step: Step, spec: AnySpec, weights: Floats, fields: Floats) -> Step:
    """A finer step where the device takes any scale and the asked coefficients needed few bits."""
    if spec.coefficients.weight_range is not None or step.sign_only:
        return step
    bits = spec.coefficients.weight_bits or ASSUMED_WEIGHT_BITS
    top = 2.0 ** (bits - 1) - 1
    field_top = 2.0 ** ((spec.coefficients.field_bits or bits) - 1) - 1
    room = min(
        top * step.step / max(1e-300, float(np.abs(weights).max(initial=0.0))),
        field_top * step.step / max(1e-300, float(np.abs(fields).max(initial=0.0))),
    )
    finer = int(np.clip(math.floor(math.log2(max(1.0, min(room, 2.0**MAX_REFINEMENT)))), 0, MAX_REFINEMENT))
    return replace(step, step=step.step / 2**finer)


def _excess(step: Step, weights: Floats, fields: Floats) -> float:
    """The largest coefficient over the largest that can be programmed, 1 at least."""
    over = 1.0
    for values, multiple, limit in (
        (weights, step.weight_multiple, step.weight_limit),
        (fields, step.field_multiple, step.field_limit),
    ):
        if limit is not None and values.size:
            over = max(over, float(np.abs(values).max()) / (limit * multiple * step.step))
    return over


def _beyond(
    step: Step, weights: Floats, fields: Floats, first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[str, ...]:
    found: list[str] = []
    if step.weight_limit is not None and not step.sign_only:
        over = np.abs(weights) > (step.weight_limit + 0.5) * step.weight_multiple * step.step
        found += [f"J {i}<-{j}" for i, j in zip(first[over].tolist(), second[over].tolist(), strict=True)]
    if step.field_limit is not None:
        over = np.abs(fields) > (step.field_limit + 0.5) * step.field_multiple * step.step
        found += [f"h {i}" for i in np.flatnonzero(over).tolist()]
    return tuple(found)
