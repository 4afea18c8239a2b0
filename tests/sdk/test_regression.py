"""What operations cost, regressed from measured runs: coverage on synthetic runs, and designs that say nothing."""

from __future__ import annotations

import itertools
import json
import math

import glauber as gl
import numpy as np
import pytest
from glauber.device import Device
from glauber.energy import EnergyPart, EnergyReport, Operations, UncertaintyPart, modelled_energy
from glauber.errors import InvalidModelError, MeteringError
from glauber.meter import MeterSpec, Trace
from glauber_simulator.driver import SimulatorDriver
from scipy.stats import binom, kstest

TRUE = {"updates": 2e-9, "nodes_written": 4e-5, "nodes_read": 6e-8, "seconds": 30.0}
"""J, J, J and W of the synthetic machine."""
MIX = list(itertools.product((1e9, 2e10), (0, 400_000), (1e7, 3e8), (0.4, 3.0)))
"""(updates, nodes written, values read, seconds) of 16 runs."""


def measured(counts, joules, u, gain=0.02, meter="a meter", boundary="board", offset=0.0, identity="", **more):
    updates, written, read, seconds = counts
    operations = Operations(int(updates), 0, int(written), int(read), 0, 1)
    budget = (
        UncertaintyPart("gain", gain * joules, gain * joules, "normal", "B", "this test"),
        UncertaintyPart("window edges", 0.6 * u, 0.6 * u, "normal", "B", "this test"),
        UncertaintyPart("resolution", 0.8 * u, 0.8 * u, "normal", "B", "this test"),
        UncertaintyPart("offset", offset * seconds, offset * seconds, "normal", "B", "this test"),
    )
    parts = {"gross": EnergyPart(joules, math.hypot(u, gain * joules), seconds, "s", "measured", meter)}
    return EnergyReport(
        "measured",
        parts,
        int(updates),
        1,
        0.0,
        boundary,
        budget,
        operations=operations,
        meter_identity=identity or meter,
        **more,
    )


def runs(rng, gain=0.02, noise=0.5, true_noise=None, true_gain=None, meters=("a meter",), offset=0.0):
    """One set of runs: every meter has a gain error and an offset in watts of its own, every run a noise of its own."""
    errors = {meter: 1 + (gain if true_gain is None else true_gain) * rng.standard_normal() for meter in meters}
    offsets = {meter: offset * rng.standard_normal() for meter in meters}
    found = []
    for k, counts in enumerate(MIX):
        meter = meters[k % len(meters)]
        own = (noise if true_noise is None else true_noise) * rng.standard_normal()
        true = sum(c * x for c, x in zip(TRUE.values(), counts, strict=True))
        joules = errors[meter] * true + offsets[meter] * counts[3] + own
        found.append(measured(counts, joules, noise, gain, meter, offset=offset))
    return found


def covered(**more):
    """In how many of 300 sets each coefficient's 95 % interval holds the truth, and the p-values."""
    rng, inside, p_values = np.random.default_rng(1), dict.fromkeys(TRUE, 0), []
    for _ in range(300):
        fit = gl.regress_energy(runs(rng, **more))
        for name, value in fit.values.items():
            inside[name] += abs(value.value - TRUE[name]) <= 1.959964 * value.standard_uncertainty
        p_values.append(fit.p_value)
    return inside, p_values


LOW, HIGH = binom.ppf([0.0005, 0.9995], 300, 0.95)


@pytest.mark.parametrize(("meters", "offset"), [(("a meter",), 0.0), (("a meter",), 0.5), (("one", "other"), 0.5)])
def test_stated_uncertainties_cover_the_truth(meters, offset):
    inside, p_values = covered(meters=meters, offset=offset)
    assert all(LOW <= count <= HIGH for count in inside.values()), inside
    assert kstest(p_values, "uniform").pvalue > 0.001


def test_coverage_fails_where_the_gain_is_not_counted_and_where_the_noise_is_understated():
    inside, _ = covered(gain=1e-6, true_gain=0.02)
    assert any(count < LOW for count in inside.values())
    inside, p_values = covered(true_noise=1.5)
    assert any(count < LOW for count in inside.values())
    assert np.median(p_values) < 0.001  # and the chi-square says so


def test_without_errors_the_truth_comes_back():
    exact = [
        measured(counts, sum(c * x for c, x in zip(TRUE.values(), counts, strict=True)), 0.1, gain=0.05)
        for counts in MIX
    ]
    fit = gl.regress_energy(exact)
    for name, value in fit.values.items():
        assert value.value == pytest.approx(TRUE[name], rel=1e-9)
        assert value.unit == ("W" if name == "seconds" else "J")
        assert value.boundary == "board"
        assert value.standard_uncertainty >= 0.05 * TRUE[name] * (1 - 1e-9)  # the gain is no run's to improve
    assert fit.chi_square == pytest.approx(0, abs=1e-9)
    assert fit.degrees_of_freedom == len(MIX) - 4
    assert np.linalg.eigvalsh(fit.covariance).min() > 0
    json.dumps(fit.as_dict(), allow_nan=False)
    assert "chi-square" in str(fit)


def test_a_gain_is_shared_by_runs_of_one_instrument_and_not_by_those_of_one_name():
    """Sixteen instruments of one name: their gains average out, and those of one do not."""
    fits = []
    for identities in (["no. 1"] * 16, [f"no. {k}" for k in range(16)]):
        exact = [
            measured(
                counts,
                sum(c * x for c, x in zip(TRUE.values(), counts, strict=True)),
                0.01,
                gain=0.05,
                identity=identity,
            )
            for counts, identity in zip(MIX, identities, strict=True)
        ]
        fits.append(gl.regress_energy(exact))
    one, many = (fit.covariance for fit in fits)
    of_one = math.sqrt(one[0, 0]) / TRUE["updates"]
    assert of_one == pytest.approx(0.05, rel=0.01)
    assert abs(fits[0].correlation[0, 3]) > 0.9
    assert abs(fits[1].correlation[0, 3]) < 0.9
    assert math.sqrt(many[0, 0]) / TRUE["updates"] != pytest.approx(0.05, rel=0.1)


def test_an_offset_in_watts_is_an_error_of_the_idle_power_alone():
    fit = gl.regress_energy(runs(np.random.default_rng(2), gain=1e-9, noise=0.01, offset=0.5))
    assert fit.values["seconds"].standard_uncertainty == pytest.approx(0.5, rel=1e-3)
    assert fit.values["updates"].standard_uncertainty < 1e-3 * TRUE["updates"]


def test_the_gain_is_common_so_that_ratios_of_coefficients_are_better_than_the_coefficients():
    fit = gl.regress_energy(runs(np.random.default_rng(2), gain=0.1, noise=0.05))
    a, b = fit.values["updates"], fit.values["nodes_written"]
    relative = math.sqrt(fit.covariance[0, 0]) / a.value
    c = fit.covariance
    of_ratio = math.sqrt(c[0, 0] / a.value**2 + c[1, 1] / b.value**2 - 2 * c[0, 1] / (a.value * b.value))
    assert relative > 0.09
    assert of_ratio < 0.01
    assert fit.correlation[0, 1] > 0.99


def test_one_meters_gain_changes_no_coefficient():
    """Weighted least squares on the runs' own noise gives the same values: a common factor tells nothing."""
    found = runs(np.random.default_rng(3))
    fit = gl.regress_energy(found)
    design, joules = np.array(MIX), np.array([report.joules for report in found])
    plain = np.linalg.lstsq(design / np.linalg.norm(design, axis=0), joules, rcond=None)[0]
    np.testing.assert_allclose(
        [value.value for value in fit.values.values()], plain / np.linalg.norm(design, axis=0), rtol=1e-6
    )


def synthetic(counts):
    return measured(counts, sum(c * x for c, x in zip(TRUE.values(), counts, strict=True)), 0.5)


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ([(1e9 * k, 0, 1e7 * k * k, 1.0) for k in range(1, 9)], "no run has any nodes_written"),
        ([(1e9 * k, 1e5 * (k % 3), 1e7 * (k % 2 + 1), 0.1 * k) for k in range(1, 9)], "updates and seconds apart"),
        ([(1e9 * k, 1e5 * (k % 3), 1e7 * k, 1 + k % 4) for k in range(1, 9)], "updates and nodes_read apart"),
        (MIX[:4], "4 runs cannot give 4 coefficients"),
    ],
)
def test_designs_that_say_nothing_are_refused_with_what_to_add(mix, message):
    with pytest.raises(MeteringError, match=f"{message}.*Add "):
        gl.regress_energy([synthetic(counts) for counts in mix])


def test_terms_that_no_run_does_can_be_left_out():
    mix = [(1e9 * k, 0, 1e7 * (k % 3), 1.0 + k % 4) for k in range(1, 9)]
    fit = gl.regress_energy([synthetic(counts) for counts in mix], terms=("updates", "nodes_read", "seconds"))
    assert fit.values["nodes_read"].value == pytest.approx(TRUE["nodes_read"], rel=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: [*found, modelled_energy(gl.load_spec("z1"), Operations(1, 1, 1, 1, 1, 1))], "not measured"),
        (lambda found: [*found, measured(MIX[0], 50.0, 0.5, boundary="wall")], "different boundaries"),
        (lambda found: [*found, "joules"], "is a str"),
        (lambda found: [*found, measured(MIX[0], 50.0, 0.0)], "infinite weight"),
    ],
)
def test_what_cannot_be_regressed_on_is_refused(change, message):
    with pytest.raises(InvalidModelError, match=message):
        gl.regress_energy(change(runs(np.random.default_rng(4))))


def test_wrong_terms():
    with pytest.raises(InvalidModelError, match="choose among"):
        gl.regress_energy([], terms=("flips",))
    with pytest.raises(InvalidModelError, match="choose among"):
        gl.regress_energy([], terms=())


class Meter:
    """Reads what the driver's operations cost, at once: its windows are as long as the driver says."""

    def __init__(self):
        self.spec = MeterSpec("a bench supply", "board", "joules", 0.1, 0.0, 1.0, "", 0.01, 1e-9, "this test")
        self.idle, self.joules, self.seconds = None, 0.0, 1.0

    def start(self):
        self.joules, self.seconds = 0.0, 1.0
        return self

    def stop(self):
        n = max(20, round(self.seconds / 0.1))
        return Trace(np.linspace(0, self.seconds, n), np.linspace(0, self.joules + 30.0 * self.seconds, n))

    def close(self):
        pass


class Spending(SimulatorDriver):
    """A simulator on a meter that knows its true costs: 1e-3 J an update, 0.2 J a write, 0.5 J a read, 30 W idle."""

    def __init__(self):
        super().__init__(gl.load_spec("ideal"))
        self.meter = Meter()

    def program(self, program):
        super().program(program)
        self.meter.joules += 0.2 * program.n_sites

    def run(self, run):
        n = self._program.n_sites
        self.meter.seconds += 0.01 * run.n_sweeps
        self.meter.joules += 1e-3 * n * run.n_sweeps * run.n_chains + 0.5 * n * run.n_samples * run.n_chains
        yield from super().run(run)


def test_jobs_on_a_metered_device_bring_all_that_is_needed():
    """The counts of real jobs, with a meter whose truth is known: no noise beyond its resolution and edges."""
    results = []
    with Device(Spending()) as device:
        for k, (samples, thin, chains) in enumerate(itertools.product((5, 40), (1, 20), (2, 8))):
            model = gl.IsingModel.from_edges([(0, 1, 1.0 + (k // 2) / 8), (1, 2, -0.5)])  # new weights every other job
            schedule = gl.SamplingSchedule(n_samples=samples, n_chains=chains, n_warmup=3, sweeps_per_sample=thin)
            results.append(device.submit(model, schedule).result(30))
    assert {result.energy_report.operations.loads for result in results} == {0, 1}
    fit = gl.regress_energy(results)
    for name, true in {"updates": 1e-3, "nodes_written": 0.2, "nodes_read": 0.5, "seconds": 30.0}.items():
        value = fit.values[name]
        assert abs(value.value - true) <= 2 * value.standard_uncertainty, name
    assert fit.values["nodes_read"].standard_uncertainty < 0.1
    assert fit.meters == ("a bench supply",)
