"""The power of an acceptance: by formula, by simulation, or as it was measured for the same jobs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from importlib.resources import files

import numpy as np
from scipy.stats import beta as beta_law

from glauber.device import Device
from glauber.spec import AnySpec
from glauber.testing.acceptance.faults import FAULTS, simulated
from glauber.testing.acceptance.probes import Probes
from glauber.testing.acceptance.report import Power
from glauber.testing.acceptance.scores import Scores, standard_error
from glauber.testing.acceptance.spending import Spending
from glauber.testing.acceptance.statistics import many_power

LEVEL = 0.999
"""Of intervals of measured powers."""


def interval(found: int, runs: int) -> tuple[float, float]:
    """Clopper and Pearson's interval of a probability, of `found` in `runs`, at LEVEL."""
    tail = (1 - LEVEL) / 2
    low = 0.0 if found == 0 else float(beta_law.ppf(tail, found, runs - found + 1))
    high = 1.0 if found == runs else float(beta_law.ppf(1 - tail, found + 1, runs - found))
    return low, high


def power_by_formula(
    spec: AnySpec, probes: Probes, scores: Scores, spending: Spending, growth: float, n_tests: int
) -> list[Power]:
    """To first order in the fault, by the one test that is made for it; other tests only add to it.

    A fault of size x moves a sum's mean by x times its information, to be compared with the sum's standard error. Sums
    grow with the samples, so their squared distance from 0 grows from look to look.
    """

    def stated(fault: str, distance: float, d: int = 1, among: int = 1) -> Power:
        def below(look: int, q: float) -> float:
            return many_power(distance * growth**look, d, scores.n_groups, q / n_tests / among)

        return Power(fault, spending.power(below), None, None, 0, "formula")

    found = []
    gain, gain_error = scores.gain_information, standard_error(scores.gain)
    beta_error = float(standard_error(scores.gain.sum(axis=1)))
    found.append(stated("beta + 5 %", (0.05 * float(gain.sum()) / beta_error) ** 2))
    found.append(stated("gain spread 10 %", float(((0.1 * gain / gain_error) ** 2).sum()), len(gain)))
    found.append(stated("one dead p-bit", float(((gain / gain_error) ** 2).min()), among=len(gain)))
    if scores.lags.shape[1]:
        k = np.arange(1, scores.lags.shape[1] + 1)
        kept = 2 / math.pi * np.arcsin(np.exp(-k / 3))  # of a decision, by noise that keeps exp(-1/3) a sweep
        error = standard_error(scores.lags)
        distance = float(((kept * scores.lag_information / error) ** 2).sum())
        found.append(stated("noise correlation 3 sweeps", distance, len(k)))
    at = np.flatnonzero(scores.driven_information > 0)
    J, information = scores.driven_coupling[at], scores.driven_information[at]
    largest = float(np.abs(J).max(initial=0.0))
    if len(probes.neighbours):
        span = spec.coefficients.weight_range or largest
        both = float(standard_error((scores.bare + scores.driven).sum(axis=1)))
        found.append(stated("crosstalk 1 %", (0.01 * span * scores.shift_information / both) ** 2))
    if len(at):
        errors = standard_error(scores.driven[:, at])
        least = float(((J * information / errors) ** 2).min())
        found.append(stated("one dropped coupling", least, among=len(at)))
        change = (np.sign(J) * largest - J) * information / errors
        found.append(stated("1-bit DAC", float((change**2).sum()), len(at)))
    found.append(stated("1 % of wrong readings", (0.01 * scores.misread_information / beta_error) ** 2))
    return found


def power_measured(key: str, formula: Sequence[Power]) -> list[Power]:
    """The formula's table, with what was measured for the same jobs in its place."""
    text = (files("glauber.testing.acceptance") / "measured.json").read_text(encoding="utf-8")
    known = json.loads(text).get(key, {})
    return [_measured(each.fault, *known[each.fault]) if each.fault in known else each for each in formula]


def _measured(fault: str, found: int, runs: int) -> Power:
    return Power(fault, found / runs, *interval(found, runs), runs, "measured")


def power_simulated(
    spec: AnySpec, probes: Probes, stated: Sequence[Power], runs: int, rejects: Callable[[Device, int], bool]
) -> list[Power]:
    """The table anew, by so many simulated devices with each of its faults; each is another chip.

    Args:
        spec: of the device.
        probes: its jobs.
        stated: the table so far, whose faults are simulated.
        runs: devices for each fault.
        rejects: whether an acceptance of a device, with a seed, rejects it.

    Raises:
        ModelNotSupportedError: the device is not one of the catalogue's.
    """
    faults = {fault.name: fault for fault in FAULTS}
    table = []
    for each in stated:
        found = 0
        for number in range(runs):
            with simulated(spec, probes, faults[each.fault], number) as device:
                found += rejects(device, number)
        table.append(Power(each.fault, found / runs, *interval(found, runs), runs, "simulated"))
    return table
