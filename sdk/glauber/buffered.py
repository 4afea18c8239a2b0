"""Joules of a window from readings of power that an instrument took by its own clock and buffered.

The buffer begins before the window and ends after it. Where it lies on the host's clock is known up to the round trip
of the trigger, so the window's integral is computed for every place where it may lie. Between readings power is taken
to lie between them, on a straight line where its neighbours do; an instrument that integrates from one reading to the
next misses nothing in between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glauber.energy import UncertaintyPart

PLACES = 17
"""Where the window is tried within the trigger's limits."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """Readings on the host's clock.

    Attributes:
        times: seconds, ascending, float64 (n,).
        watts: float64 (rails, n).
        window: begin and end, seconds.
        integrates: each reading is the mean since the one before; False: it was taken at its time.
    """

    times: NDArray[np.float64]
    watts: NDArray[np.float64]
    window: tuple[float, float]
    integrates: bool

    def _within(self) -> NDArray[np.bool_]:
        """Readings that the window's integral uses: those inside and the next one on each side."""
        first, last = np.searchsorted(self.times, self.window)
        at = np.arange(len(self.times))
        return np.asarray((at >= first - 1) & (at <= last))

    @property
    def count(self) -> int:
        """Readings inside the window."""
        begin, end = self.window
        return int(((self.times >= begin) & (self.times <= end)).sum())

    def _first(self) -> float:
        """When the first reading begins."""
        return float(self.times[0]) - (float(np.median(np.diff(self.times))) if self.integrates else 0.0)

    def _integral(self, watts: NDArray[np.float64], shifts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Joules of the window, moved by each shift; beyond the buffer's ends power stays what it was there."""
        if self.integrates:
            knots = np.concatenate([[self._first()], self.times])
            joules = np.concatenate([[0.0], np.cumsum(watts * np.diff(knots))])
        else:
            knots = self.times
            joules = np.concatenate([[0.0], np.cumsum(np.diff(knots) * (watts[1:] + watts[:-1]) / 2)])
        far = 1 + abs(self.window[0] - knots[0]) + abs(self.window[1] - knots[-1]) + float(np.abs(shifts).max())
        knots = np.concatenate([[knots[0] - far], knots, [knots[-1] + far]])
        joules = np.concatenate([[-far * watts[0]], joules, [joules[-1] + far * watts[-1]]])
        begin, end = self.window
        return np.asarray(np.interp(end + shifts, knots, joules) - np.interp(begin + shifts, knots, joules))

    def rails(self) -> NDArray[np.float64]:
        """Joules of each rail, float64 (rails,)."""
        return np.array([float(self._integral(rail, np.zeros(1))[0]) for rail in self.watts])

    def lines(self, skews: Sequence[float], resolution: float) -> list[UncertaintyPart]:
        """The lines of the budget that come from where and when readings were taken, not from how good each is.

        Args:
            skews: independent limits, +- seconds, of how far the whole buffer may lie off.
            resolution: W, of a reading of all rails together.
        """
        total, (begin, end) = self.watts.sum(axis=0), self.window
        within = self._within()
        times, watts = self.times[within], total[within]
        steps, rises = np.diff(times), np.abs(np.diff(watts))
        peak = float(np.abs(watts).max())
        head, tail = max(0.0, self._first() - begin), max(0.0, end - float(self.times[-1]))
        parts = [rectangular("resolution", resolution * (end - begin) / 2, "all readings cut alike, rectangular")]
        # of the step d that an edge cuts, a straight rise r puts r d / 8 J to the wrong side, a sudden one r d / 4
        cut = [float(rises[at] * steps[at]) / 4 for at in (0, -1)]
        parts += [
            rectangular(
                "window start", peak * head + cut[0], f"{head:.2g} s before the first reading, and the cut step"
            ),
            rectangular("window end", peak * tail + cut[1], f"{tail:.2g} s after the last reading, and the cut step"),
        ]
        if not self.integrates:
            source = f"{len(times)} readings, largest gap {steps.max():.2g} s; half of each trapezoid's sudden rise"
            parts.append(gaps_line(_unsteady(watts) * steps / 2, source))
        if len(watts) > 2:
            bends = np.diff(watts, 2)
            sigma = math.sqrt(float((bends**2).mean()) / 6)  # a straight rise leaves none; noise leaves 6 variances
            noise = sigma * math.sqrt(float((steps**2).sum()))
            source = f"{sigma:.2g} W by second differences of {len(watts)} readings"
            parts.append(UncertaintyPart("noise", noise, noise, "normal", "A", source))
        for limit in skews:
            shifted = self._integral(total, np.linspace(-limit, limit, PLACES))
            skew = float(np.abs(shifted - self._integral(total, np.zeros(1))).max())
            source = f"the buffer lies within +-{limit:.2g} s of where it is taken to lie"
            parts.append(rectangular("trigger skew", skew, source))
        return parts


def _unsteady(watts: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much of each rise from reading to reading may have come at once: all of it, unless its neighbours go on so.

    Where power is straight over three readings a trapezoid is right; a jump shows as a bend on both of its sides.
    """
    rises = np.abs(np.diff(watts))
    if len(watts) < 3:
        return rises
    bends = np.abs(np.diff(watts, 2))
    beside = np.maximum(np.concatenate([bends[:1], bends]), np.concatenate([bends, bends[-1:]]))
    return np.asarray(np.minimum(rises, beside))


def rectangular(name: str, limit: float, source: str) -> UncertaintyPart:
    """A line whose error lies within +-limit, J: u = limit / sqrt(3)."""
    joules = limit / math.sqrt(3)
    return UncertaintyPart(name, joules, joules, "rectangular", "B", source)


def gaps_line(limits: NDArray[np.float64], source: str) -> UncertaintyPart:
    """The line of the gaps between readings: independent errors, each within +-its limit, J (n,).

    Their sum has u^2 = sum of limit^2 / 3 and is taken as normal, as sums of many are (GUM G.2.1); where one gap
    exceeds all others it is nearer to rectangular, and 95 % are then covered by more than is needed.
    """
    joules = math.sqrt(float((limits**2).sum()) / 3)
    return UncertaintyPart("sampling gaps", joules, joules, "normal", "B", source)
