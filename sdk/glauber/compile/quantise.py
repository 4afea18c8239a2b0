"""Coefficients on one integer step: which step, and what rounding to it costs.

docs/machine.md, section 1. Nothing is clipped silently: what is out of a device's range is refused, or the whole model
is scaled down and beta up when the caller asks for that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glauber.errors import ModelNotSupportedError
from glauber.spec import Coefficients

ASSUMED_WEIGHT_BITS = 16
SUM_LIMIT = 2**30
EDGELESS_STEPS = 2**24
BLOCK = 2**13  # below what BLAS hands to its threads: on a busy machine their waiting costs more than the sums
"""Numbers that are worked on at a time, so that what is in between stays in the cache."""


@dataclass(frozen=True, slots=True)
class QuantisationReport:
    """What programming a model cost in precision.

    Attributes:
        step: value of one integer step, in the model's own units.
        largest_error: largest |programmed - asked| over couplings and fields, in the model's units.
        rms_error: root mean square of the same.
        beta_factor: least-squares factor between programmed and asked coefficients; the model that is sampled is
            closest to the asked one at beta times this.
        scale: what the coefficients were multiplied by to fit the device (beta is divided by it); 1 if nothing was.
        exact: every coefficient is represented without error.
        assumptions: what had to be assumed because the device's maker does not publish it.
        draw_error: total variation, at most, between one draw of the integer machine (docs/machine.md) and the exact
            law of the programmed coefficients given the neighbours; proven in docs/decisions/0012.
    """

    step: float
    largest_error: float
    rms_error: float
    beta_factor: float
    scale: float
    exact: bool
    assumptions: tuple[str, ...]
    draw_error: float


@dataclass(frozen=True, slots=True)
class Step:
    """One integer step and how couplings and fields sit on it.

    Attributes:
        step: in the model's units.
        weight_multiple: programmed couplings are multiples of this many steps.
        field_multiple: programmed fields are multiples of this many steps.
        weight_limit: largest multiple of a coupling, or None.
        field_limit: largest multiple of a field, or None.
        scale: what coefficients are multiplied by on the device.
        sign_only: couplings have one bit: -J or +J, and 0 where there is none.
        assumptions: see QuantisationReport.
    """

    step: float
    weight_multiple: int
    field_multiple: int
    weight_limit: int | None
    field_limit: int | None
    scale: float
    sign_only: bool
    assumptions: tuple[str, ...]


FEW = 256
"""Values that are looked at first where there are many."""


def largest(values: NDArray[Any]) -> float:
    """The largest magnitude, 0 for none; NaN where there is one."""
    return float(np.maximum(values.max(), -values.min())) if values.size else 0.0


def exact_step(values: NDArray[np.float64], limit: int) -> float | None:
    """The largest step of which every value is an integer multiple, none above `limit`; None if there is none.

    Multiples up to the rounding of doubles (`same`), so that 0.1, 0.2 and 0.3 have the step 0.1. Euclid's algorithm,
    given up as soon as the multiples grow too large; rests too small to be a step are the rounding of the values.
    """
    given = np.abs(values[values != 0])
    if given.size == 0:
        return 1.0
    if given.size > 4 * FEW:  # learned weights have none, which a few of them show
        few = np.append(given[:: given.size // FEW], given.max())
        if exact_step(few, limit) is None:
            return None
    magnitudes, largest, step = given, float(given.max()), float(given.min())
    smallest = largest / limit / 16
    while largest / step <= limit * (1 + 1e-9):
        rest = np.fmod(magnitudes, step)
        rest = np.minimum(rest, step - rest)
        rest = rest[rest > smallest]
        if rest.size == 0:
            step = largest / round(largest / step)
            return step if same(np.rint(given / step) * step, given) else None
        magnitudes = np.append(rest, step)
        step = float(rest.min())
    return None


def same(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Whether each number of a equals its partner in b up to four roundings of a double."""
    if a.size and abs(float(a.flat[0] - b.flat[0])) > 4 * np.finfo(np.float64).eps * abs(float(b.flat[0])):
        return False  # as good as always, if anywhere
    return bool((np.abs(a - b) <= 4 * np.finfo(np.float64).eps * np.abs(b)).all())


def choose_step(
    coefficients: Coefficients,
    couplings: NDArray[np.float64],
    fields: NDArray[np.float64],
    job_fields: NDArray[np.float64],
    *,
    fold: float | None,
    on_overflow: str,
) -> Step:
    """The step of one job.

    Args:
        coefficients: precision and range of the device.
        couplings: all J (or table entries) of the model, flat.
        fields: all h of the model, flat.
        job_fields: all fields of the job, flat; empty if it brings none. On a free scale they want to be exact too.
        fold: beta, for devices that take it by scaling the coefficients; else None.
        on_overflow: "error" or "scale".

    Raises:
        ModelNotSupportedError: a coefficient is out of the device's range.
    """
    assumptions: list[str] = []
    bits = coefficients.weight_bits
    if bits is None:
        bits = ASSUMED_WEIGHT_BITS
        assumptions.append(f"the precision of couplings is not published; {bits} bits assumed")
    top = max(1, 2 ** (bits - 1) - 1)
    field_top = max(1, 2 ** ((coefficients.field_bits or bits) - 1) - 1)
    if coefficients.weight_range is None:
        free = _free_step(couplings, fields, job_fields, top, field_top)
        return Step(free, 1, 1, top if bits == 1 else None, None, 1.0, bits == 1, tuple(assumptions))
    if coefficients.field_range is None and coefficients.field_bits is None:
        assumptions.append("the range of fields is not published; that of couplings assumed")

    weight_step = coefficients.weight_range / top
    field_step = weight_step if coefficients.field_range is None else coefficients.field_range / field_top
    ratio = Fraction(weight_step / field_step).limit_denominator(2**15)
    step = weight_step / ratio.numerator
    largest_j, largest_h = largest(couplings), largest(fields)
    scale = 1.0 if fold is None else fold
    reasons = []
    # half a step of room: what rounds to the largest code is in range
    if largest_j * scale > weight_step * (top + 0.5):
        reasons.append(
            f"largest |J| is {largest_j * scale:g}, the device's range ends at {coefficients.weight_range:g}"
        )
    if largest_h * scale > field_step * (field_top + 0.5):
        reasons.append(f"largest |h| is {largest_h * scale:g}, the device's range ends at {field_step * field_top:g}")
    if reasons and fold is not None:
        folded = f"beta = {fold:g} is folded into the coefficients here, so a smaller beta or a smaller model fits"
        raise ModelNotSupportedError(f"coefficients are out of range ({folded}):", tuple(reasons))
    if reasons and on_overflow != "scale":
        raise ModelNotSupportedError(
            'coefficients are out of range (rescale the model, or say on_overflow="scale" to have the coefficients'
            " divided and beta multiplied by one factor):",
            tuple(reasons),
        )
    if reasons:
        room = [(coefficients.weight_range, largest_j), (field_step * field_top, largest_h)]
        scale = min(limit / largest for limit, largest in room if largest > 0)
    multiples = (ratio.numerator, ratio.denominator)
    return Step(step / scale, *multiples, top, field_top, scale, bits == 1, tuple(assumptions))


def _free_step(
    couplings: NDArray[np.float64],
    fields: NDArray[np.float64],
    job_fields: NDArray[np.float64],
    top: int,
    field_top: int,
) -> float:
    """The step where the device takes any scale: exact if possible, else the finest that the model's bits allow."""
    largest_j, largest_h, largest_job = largest(couplings), largest(fields), largest(job_fields)
    if couplings.size == 0:
        return max(largest_h, largest_job) / EDGELESS_STEPS or 1.0
    finest = max(largest_j / top, largest_h / field_top) or largest_job / field_top or 1.0
    exact = exact_step(np.concatenate([couplings, fields, job_fields]), SUM_LIMIT)
    return exact if exact is not None and exact >= finest else finest


def to_steps(
    values: NDArray[np.float64], step: float, multiple: int, limit: int | None, *, sign_only: bool = False
) -> NDArray[np.int32]:
    """Values as integers in steps: multiples of `multiple`, none above `limit` multiples, ties to even.

    Raises:
        ModelNotSupportedError: a value beyond 2^30 steps, where sums could overflow.
    """
    steps = np.empty(values.shape, dtype=np.int32)
    given, target = values.reshape(-1), steps.reshape(-1)
    for start in range(0, given.size, BLOCK):
        scaled = given[start : start + BLOCK] / (step * multiple)
        most = largest(scaled) * multiple
        if most + multiple / 2 >= SUM_LIMIT:  # rounded, it might reach it
            raise ModelNotSupportedError(
                f"a coefficient of {largest(given):g} is {largest(given) / step:.3g} steps of {step:g}; the limit is"
                " 2^30. Bring couplings and fields to a comparable scale"
            )
        np.sign(scaled, out=scaled) if sign_only else np.rint(scaled, out=scaled)
        if limit is not None:
            np.clip(scaled, -limit, limit, out=scaled)  # at most half a step: choose_step has refused the rest
        if multiple != 1:
            scaled *= multiple
        target[start : start + BLOCK] = scaled
    return steps


def with_fields(
    report: QuantisationReport, fields: NDArray[np.float64], steps: NDArray[np.int32]
) -> QuantisationReport:
    """The report with the rounding of a job's own fields in it."""
    most, exact = report.largest_error, report.exact
    given, held_steps = fields.reshape(-1), steps.reshape(-1)
    for start in range(0, given.size, BLOCK):
        asked = given[start : start + BLOCK]
        held = held_steps[start : start + BLOCK] * np.float64(report.step)
        exact = exact and same(held, asked)
        held -= asked
        most = max(most, largest(held))
    return replace(report, largest_error=most, exact=exact)


def draw_error(n_states: int | None) -> float:
    """The bound of docs/decisions/0012: of a threshold for p-bits (None), of sums of weights for p-dits."""
    if n_states is None:
        return 2.5 / 2**32
    bits = (n_states - 1).bit_length()
    weights = n_states / 2.0 ** (31 - bits if n_states <= 64 else 62 - bits) + 2.02 / 2**31
    return weights / (1 - weights) + n_states / 2.0**33


def make_report(
    parts: Iterable[tuple[NDArray[np.float64], NDArray[np.int32]]], step: Step, n_states: int | None = None
) -> QuantisationReport:
    """Errors of the programmed coefficients, in steps, against the asked ones, in the model's units."""
    flat = [(asked.reshape(-1), steps.reshape(-1)) for asked, steps in parts]
    unit = max(largest(asked) for asked, _ in flat) or 1.0  # so that squares neither overflow nor vanish
    most, squares, power, product, count, exact = 0.0, 0.0, 0.0, 0.0, 0, True
    for asked, steps in flat:
        count += asked.size
        for start in range(0, asked.size, BLOCK):
            given = asked[start : start + BLOCK]
            held = steps[start : start + BLOCK] * np.float64(step.step)
            exact = exact and same(held, given)
            error, scaled = held - given, given / unit
            most = max(most, largest(error))
            error /= unit
            held /= unit
            squares += float(error @ error)
            power += float(scaled @ scaled)
            product += float(scaled @ held)
    return QuantisationReport(
        step=step.step,
        largest_error=most,
        rms_error=unit * math.sqrt(squares / max(1, count)),
        beta_factor=product / power if power > 0 else 1.0,
        scale=step.scale,
        exact=exact,
        assumptions=step.assumptions,
        draw_error=draw_error(n_states),
    )
