"""From what a meter read during a window to joules with an uncertainty budget, or to a refusal.

A meter is an `EnergyMeter`: it records readings over time and says how good they are. The arithmetic is here, the same
for every meter, and works on arrays alone: a recording can be evaluated again years later.

Three kinds of reading are understood: a counter of joules, a power in watts, and a buffer of powers that an instrument
took by its own clock (`glauber.buffered`). None is a continuous function of time: a counter stands still between
updates, a power is the mean over some time that has passed. So the first and the last piece of a window, up to one
update each, are not seen, and a window that is not much longer than that has no figure at all. It is refused with a
`MeteringError`; nothing is ever filled in from a data sheet.

Uncertainties are standard uncertainties as in the GUM (JCGM 100:2008). A limit +-a with nothing known inside counts as
rectangular, a / sqrt(3) (GUM 4.3.7). Not in any budget, because the readings do not show it: a load that repeats in
step with a sensor which looks only part of the time, and an idle power that has drifted since it was measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from glauber.buffered import Buffer, gaps_line, rectangular
from glauber.energy import EnergyPart, EnergyReport, UncertaintyPart, landauer, stated_energy
from glauber.errors import GlauberError, MeteringError, ProtocolError
from glauber.spec import Boundary, Quantity

MIN_UPDATES = 2
"""A counter must move so often in a window: the time between two updates is the least whose joules are known."""
MIN_READINGS = 5
"""Fewer readings of power than this are no integral."""
IDLE_BLOCKS = 8
"""Blocks of an idle measurement whose scatter gives its standard error; blocks, since neighbouring readings agree."""


@dataclass(frozen=True, slots=True)
class ErrorLimit:
    """One way in which all readings of a rail are wrong alike, independent of the others: +-(relative x P + watts).

    Attributes:
        name: of the budget's line, such as "offset" or "voltage".
        source: where the figures come from.
        relative: largest relative error, +-.
        watts: largest error, +-, whatever is read. It cancels in joules above an idle power of the same meter.
        rail: row of `Trace.readings` that it belongs to.
    """

    name: str
    source: str
    relative: float = 0.0
    watts: float = 0.0
    rail: int = 0


@dataclass(frozen=True, slots=True)
class MeterSpec:
    """What a meter is and how good its readings are.

    Attributes:
        name: for people and provenance.
        boundary: what is inside the meter.
        reads: a counter of joules that only grows, or watts.
        period_seconds: between two updates of the reading, as measured.
        averaging_seconds: each reading of power is the mean over so long before it; 0 for counters, and where the time
            is short beside the period.
        seen_share: share of the time in which the sensor looks, 0 to 1.
        seen_source: where that comes from; empty if it is 1.
        relative_limit: largest relative error of a reading, +-, the same for all readings (a gain error).
        resolution: step of a reading, J or W.
        accuracy_source: where the relative limit comes from.
        limits: further limits, each with a line of its own in the budget.
        model: the user's own statement of the power while a job runs, in place of an instrument: then nothing is read.
        identity: which instrument it is, and no other has: a serial number or the like; empty if that is not known.
            Reports of equal identity share the instrument's own errors; those without one are taken as independent.
    """

    name: str
    boundary: Boundary
    reads: Literal["joules", "watts"]
    period_seconds: float
    averaging_seconds: float
    seen_share: float
    seen_source: str
    relative_limit: float
    resolution: float
    accuracy_source: str
    limits: tuple[ErrorLimit, ...] = ()
    model: Quantity | None = None
    identity: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Readings of one window; the first and the last were taken at its ends, unless `window` says where those are.

    Attributes:
        times: seconds of a monotonic clock, ascending, float64 (n,).
        readings: J or W, float64 (n,), or (rails, n) of a buffer. Of a run of equal counter readings the first and the
            last suffice.
        window: of a buffer that an instrument took by its own clock: begin and end, seconds of `times`.
        skews: independent limits, +- seconds, of how far all of such a buffer's times may lie off together.
    """

    times: NDArray[np.float64]
    readings: NDArray[np.float64]
    window: tuple[float, float] | None = None
    skews: tuple[float, ...] = ()

    @property
    def seconds(self) -> float:
        """Length of the window."""
        begin, end = self.window or (float(self.times[0]), float(self.times[-1]))
        return end - begin


@dataclass(frozen=True, slots=True)
class IdlePower:
    """What the metered thing draws when it does nothing.

    Attributes:
        watts: mean.
        standard_error: of the mean, without the meter's gain error, which it shares with what it is subtracted from.
        seconds: measured for so long.
    """

    watts: float
    standard_error: float
    seconds: float


class Recording(Protocol):
    """A window that is open."""

    def stop(self) -> Trace:
        """End the window, and every thread it has; again gives the same. DeviceIOError: the meter failed meanwhile."""
        ...


class EnergyMeter(Protocol):
    """An instrument. Used by one thread at a time."""

    @property
    def spec(self) -> MeterSpec:
        """What it is."""
        ...

    @property
    def idle(self) -> IdlePower | None:
        """The baseline to subtract; None if it was not measured."""
        ...

    def start(self) -> Recording:
        """Open a window; DeviceIOError if the instrument does not answer."""
        ...

    def close(self) -> None:
        """Let go of the instrument and end its threads. Never raises; may be called twice."""
        ...


@runtime_checkable
class RestingMeter(Protocol):
    """What a meter can be beside an EnergyMeter: one that measures its own idle baseline."""

    def measure_idle(self, seconds: float = 5.0) -> IdlePower:
        """Measure what later windows subtract; blocks for so long. What is metered must have nothing to do."""
        ...


@dataclass(frozen=True, slots=True)
class _Gross:
    """All joules of a window, and the lines of the budget that belong to the reading and not to its gain."""

    joules: float
    lines: tuple[UncertaintyPart, ...]
    rails: tuple[float, ...]


def measured_energy(
    spec: MeterSpec, trace: Trace, *, idle: IdlePower | None = None, updates: int = 0, samples: int = 0
) -> EnergyReport:
    """The energy of a window.

    Args:
        spec: of the meter.
        trace: what it read.
        idle: baseline to subtract, measured by the same meter.
        updates: p-bit updates done in the window.
        samples: states kept.

    Raises:
        MeteringError: the window is too short for this meter, or the uncertainty is as large as the signal: the joules
            above idle where a baseline is given, else all joules.
        ProtocolError: the readings cannot be: a counter went backwards, a power is negative, a clock stood still.
    """
    _check(spec, trace)
    if spec.reads == "joules":
        gross = _from_counter(spec, trace)
    else:
        gross = _from_power(spec, trace) if trace.window is None else _from_buffer(spec, trace)
    seconds = trace.seconds
    idle_joules = 0.0 if idle is None else idle.watts * seconds
    net = gross.joules - idle_joules
    gain = spec.relative_limit / math.sqrt(3)
    source = f"+-{100 * spec.relative_limit:g} % of the reading, rectangular: {spec.accuracy_source}"
    budget = [UncertaintyPart("gain", gain * gross.joules, gain * abs(net), "rectangular", "B", source)]
    if spec.limits and not spec.relative_limit:
        budget.clear()
    further = [_limit_line(limit, gross, seconds, net if idle is not None else None) for limit in spec.limits]
    budget += [*further, *gross.lines]
    if idle is not None:
        error = idle.standard_error * seconds
        source = f"scatter of {IDLE_BLOCKS} parts of {idle.seconds:.3g} s at rest, times the window's length"
        budget.append(UncertaintyPart("idle baseline", 0.0, error, "t", "A", source, IDLE_BLOCKS - 1))
    u_gross = math.sqrt(sum(line.joules**2 for line in budget))
    u_net = math.sqrt(sum(line.net_joules**2 for line in budget))
    signal, uncertainty = (gross.joules, u_gross) if idle is None else (net, u_net)
    if not uncertainty < signal:
        above = "" if idle is None else f", {net:.3g} J above idle"
        raise MeteringError(
            f"{spec.name} saw {gross.joules:.3g} J in {seconds:.3g} s{above}, with a standard uncertainty of"
            f" {uncertainty:.2g} J: no figure at all. Measure for longer (more samples or chains in one job)"
        )
    if idle is None:
        parts = {"gross": EnergyPart(gross.joules, u_gross, seconds, "s", "measured", spec.name)}
    else:
        share = idle_joules / gross.joules
        u_idle = math.hypot(
            idle.standard_error * seconds,
            gain * idle_joules,
            *(line.joules * (1.0 if limit.watts else share) for limit, line in zip(spec.limits, further, strict=True)),
        )
        parts = {
            "net": EnergyPart(net, u_net, seconds, "s", "measured", f"{spec.name}, idle subtracted"),
            "idle": EnergyPart(idle_joules, u_idle, seconds, "s", "measured", f"{spec.name}, {idle.watts:.4g} W"),
        }
    return EnergyReport(
        "measured",
        parts,
        updates,
        samples,
        landauer(updates),
        spec.boundary,
        tuple(budget),
        meter_identity=spec.identity,
    )


def _limit_line(limit: ErrorLimit, gross: _Gross, seconds: float, net: float | None) -> UncertaintyPart:
    """The line of one limit; `net` are the joules above idle, None where no idle power is known.

    Of several rails each is taken to have the share of net that it has of all.
    """
    relative = limit.relative * abs(gross.rails[limit.rail]) / math.sqrt(3)
    fixed = limit.watts * seconds / math.sqrt(3)
    joules = relative + fixed
    net_joules = joules if net is None else relative * abs(net) / max(abs(gross.joules), abs(net))
    said = [f"+-{100 * limit.relative:.3g} %"] if limit.relative else []
    said += [f"+-{limit.watts:.3g} W"] if limit.watts else []
    source = f"{' and '.join(said)}, rectangular: {limit.source}"
    return UncertaintyPart(limit.name, joules, net_joules, "rectangular", "B", source)


def _check(spec: MeterSpec, trace: Trace) -> None:
    if len(trace.times) < 2 or not (np.diff(trace.times) > 0).all() or not np.isfinite(trace.readings).all():
        raise ProtocolError(f"{spec.name}: a window needs two finite readings at least, at times that ascend")
    if trace.readings.shape[-1:] != trace.times.shape or (trace.window is None and trace.readings.ndim != 1):
        raise ProtocolError(f"{spec.name}: readings of shape {trace.readings.shape} at {len(trace.times)} times")
    if spec.reads == "joules" and (np.diff(trace.readings) < 0).any():
        raise ProtocolError(
            f"{spec.name}: the counter went backwards, as it does when its driver is loaded again; measure again"
        )
    below_zero = any(limit.watts for limit in spec.limits)  # an offset may well put small powers there
    if spec.reads == "watts" and not below_zero and (trace.readings < 0).any():
        raise ProtocolError(f"{spec.name}: a power of {trace.readings.min():g} W was read, which cannot be")


def _too_short(spec: MeterSpec, trace: Trace, held: str, needed: float) -> MeteringError:
    return MeteringError(
        f"a window of {trace.seconds:.3g} s cannot be measured by {spec.name}: {held}, and it is updated every"
        f" {spec.period_seconds:.3g} s. {needed:.3g} s are enough: put more samples or chains into one job"
    )


@dataclass(frozen=True, slots=True)
class _Steps:
    """The updates of a counter: when each was seen, how uncertain (+-) that time is, and the value after it."""

    times: NDArray[np.float64]
    blur: NDArray[np.float64]
    values: NDArray[np.float64]

    @classmethod
    def of(cls, trace: Trace) -> _Steps:
        """An update lies between the last reading of the old value and the first one of the new."""
        new = np.flatnonzero(np.diff(trace.readings)) + 1
        after, before = trace.times[new], trace.times[new - 1]
        return cls((after + before) / 2, (after - before) / 2, trace.readings[new])


def _from_counter(spec: MeterSpec, trace: Trace) -> _Gross:
    """Joules between the first and the last update, and the mean power for the pieces before and after.

    A piece of x seconds, at most one period, has joules from 0 to x times the largest power between two updates.
    """
    steps = _Steps.of(trace)
    if trace.seconds < spec.period_seconds or len(steps.values) < MIN_UPDATES:
        count = f"its counter moved {len(steps.values)} times of at least {MIN_UPDATES}"
        raise _too_short(spec, trace, count, (MIN_UPDATES + 1) * spec.period_seconds)
    # a reader that came late sees two updates close together, but none is shorter than a period
    lengths = np.maximum(np.diff(steps.times), spec.period_seconds)
    powers = np.diff(steps.values) / lengths
    inside = float(steps.values[-1] - steps.values[0])
    mean, peak = inside / float(steps.times[-1] - steps.times[0]), float(powers.max())
    head, tail = float(steps.times[0] - trace.times[0]), float(trace.times[-1] - steps.times[-1])
    # what the counter gained at the first update contains all of the head
    joules = inside + min(mean * head, float(steps.values[0] - trace.readings[0])) + mean * tail
    scatter = float(powers.std(ddof=1)) if len(powers) > 1 else peak
    lines = [
        *(
            rectangular(f"resolution, {end}", spec.resolution / 2, "a reading that is cut to a step, rectangular")
            for end in ("start", "end")
        ),
        rectangular(
            "window start",
            peak * (head + float(steps.blur[0])),
            f"+-{peak:.3g} W for {head:.2g} s before the first update, rectangular",
        ),
        rectangular(
            "window end",
            peak * (tail + float(steps.blur[-1])),
            f"+-{peak:.3g} W for {tail:.2g} s after the last update, rectangular",
        ),
        *_unseen(spec, scatter * math.sqrt(float((lengths**2).sum()))),
    ]
    return _Gross(joules, tuple(lines), (joules,))


def _from_power(spec: MeterSpec, trace: Trace) -> _Gross:
    """Trapezoids. Between two readings power is taken to lie between them, and after a gap anywhere up to the peak."""
    seconds, power, steps = trace.seconds, trace.readings, np.diff(trace.times)
    needed = max(MIN_READINGS * spec.period_seconds, spec.averaging_seconds)
    if seconds < needed or len(power) < MIN_READINGS:
        count = f"it holds {len(power)} readings of at least {MIN_READINGS}"
        if spec.averaging_seconds:
            count += f", each a mean over {spec.averaging_seconds:g} s"
        raise _too_short(spec, trace, count, 2 * needed)
    peak = float(power.max())
    half = np.where(steps > 2 * spec.period_seconds, peak, np.abs(np.diff(power))) * steps / 2
    late = spec.period_seconds + spec.averaging_seconds / 2
    independent = seconds / max(spec.period_seconds, spec.averaging_seconds)
    edge = f"+-{peak:.3g} W for the {late:.2g} s that a reading is late, rectangular"
    source = f"{len(power)} readings, largest gap {steps.max():.2g} s; half of each trapezoid's rise"
    lines = [
        rectangular("resolution", spec.resolution * seconds / 2, "all readings cut alike, rectangular"),
        rectangular("window start", peak * late, edge),
        rectangular("window end", peak * late, edge),
        gaps_line(half, source),
        *_unseen(spec, float(power.std(ddof=1)) * seconds / math.sqrt(independent)),
    ]
    joules = float(_areas(trace).sum())
    return _Gross(joules, tuple(lines), (joules,))


def _from_buffer(spec: MeterSpec, trace: Trace) -> _Gross:
    """See glauber.buffered."""
    assert trace.window is not None
    integrates = spec.averaging_seconds > 0.99 * spec.period_seconds
    buffer = Buffer(trace.times, np.atleast_2d(trace.readings), trace.window, integrates)
    if buffer.count < MIN_READINGS or trace.seconds < spec.period_seconds:
        raise _too_short(
            spec,
            trace,
            f"it holds {buffer.count} readings of at least {MIN_READINGS}",
            2 * MIN_READINGS * spec.period_seconds,
        )
    rails = buffer.rails()
    return _Gross(float(rails.sum()), tuple(buffer.lines(trace.skews, spec.resolution)), tuple(rails.tolist()))


def _areas(trace: Trace) -> NDArray[np.float64]:
    """Trapezoids between neighbouring readings of power, all rails together, J."""
    watts = np.atleast_2d(trace.readings).sum(axis=0)
    return np.asarray(np.diff(trace.times) * (watts[1:] + watts[:-1]) / 2)


def _unseen(spec: MeterSpec, scatter_joules: float) -> list[UncertaintyPart]:
    """A sensor that looks a share f of the time errs by sqrt(1 - f) of the scatter between readings.

    For load that changes at random: with f = 1/4, x_1 stands for the mean of x_1 .. x_4, and their difference has 3/4
    of the variance of x.
    """
    if spec.seen_share >= 1:
        return []
    joules = math.sqrt(1 - spec.seen_share) * scatter_joules
    source = (
        f"the sensor looks {100 * spec.seen_share:g} % of the time: {spec.accuracy_source}; by the readings' scatter"
    )
    return [UncertaintyPart("unsampled time", joules, joules, "normal", "A", source)]


def idle_power(spec: MeterSpec, trace: Trace) -> IdlePower:
    """Mean power of a window in which nothing ran.

    The standard error is that of 8 blocks' means, widened by sqrt((n - 1) / (n - 3)) for so few (JCGM 101:2008, 6.4.9),
    with the counter's resolution and the times of its first and last update.

    Raises:
        MeteringError: the window is too short for 8 blocks.
        ProtocolError: the readings cannot be.
    """
    _check(spec, trace)
    if spec.reads == "joules":
        steps = _Steps.of(trace)
        if len(steps.values) <= IDLE_BLOCKS:
            held = f"its counter moved {len(steps.values)} times of at least {IDLE_BLOCKS + 1}"
            raise _too_short(spec, trace, held, (IDLE_BLOCKS + 3) * spec.period_seconds)
        cuts = np.linspace(0, len(steps.values) - 1, IDLE_BLOCKS + 1).astype(int)
        times, joules = steps.times[cuts], steps.values[cuts]
        mean = float((joules[-1] - joules[0]) / (times[-1] - times[0]))
        ends = math.hypot(mean * steps.blur[0], mean * steps.blur[-1]) / math.sqrt(3)
        ends = math.hypot(ends, spec.resolution / math.sqrt(6))
    else:
        needed = IDLE_BLOCKS * max(spec.period_seconds, spec.averaging_seconds)
        length = float(trace.times[-1] - trace.times[0])
        if length < needed or len(trace.times) <= IDLE_BLOCKS:
            raise _too_short(spec, trace, f"{IDLE_BLOCKS} separate readings are needed", 2 * needed)
        times = np.linspace(trace.times[0], trace.times[-1], IDLE_BLOCKS + 1)
        joules = np.interp(times, trace.times, np.concatenate([[0.0], np.cumsum(_areas(trace))]))
        mean = float(joules[-1] / length)
        ends = spec.resolution * length / math.sqrt(12)
    scatter = float((np.diff(joules) / np.diff(times)).std(ddof=1)) / math.sqrt(IDLE_BLOCKS)
    scatter *= math.sqrt((IDLE_BLOCKS - 1) / (IDLE_BLOCKS - 3))
    return IdlePower(mean, math.hypot(scatter, ends / float(times[-1] - times[0])), trace.seconds)


class JobWindow:
    """A meter's window around a job, which goes on whatever happens to the meter.

    Args:
        meter: opened now.
        note: said in the report beside what was measured.
    """

    def __init__(self, meter: EnergyMeter, note: str = "") -> None:
        self._meter, self._note = meter, note
        self._recording: Recording | None = None
        self._trace: Trace | None = None
        self._reason = ""
        try:
            self._recording = meter.start()
        except GlauberError as error:
            self._reason = str(error)

    def stop(self) -> None:
        """End the window. Never raises what a meter raises."""
        if self._recording is None:
            return
        try:
            self._trace = self._recording.stop()
        except GlauberError as error:
            self._reason = str(error)

    def report(self, modelled: EnergyReport) -> EnergyReport:
        """What was measured; where the meter refuses, the modelled report with the reason."""
        reason = self._reason
        if self._trace is not None:
            try:
                return self._noted(self._evaluated(self._trace, modelled.updates, modelled.samples))
            except GlauberError as error:
                reason = str(error)
        return replace(modelled, not_measured=reason)

    def _evaluated(self, trace: Trace, updates: int, samples: int) -> EnergyReport:
        meter = self._meter
        if meter.spec.model is not None:
            return stated_energy(
                meter.spec.model, trace.seconds, meter.spec.name, meter.spec.boundary, updates=updates, samples=samples
            )
        return measured_energy(meter.spec, trace, idle=meter.idle, updates=updates, samples=samples)

    def _noted(self, report: EnergyReport) -> EnergyReport:
        if not self._note:
            return report
        parts = {name: replace(part, source=f"{part.source}; {self._note}") for name, part in report.parts.items()}
        return replace(report, parts=parts)
