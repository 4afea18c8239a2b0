"""Acceptance: the alpha that is spent, moments that are exact, tests that are calibrated, faults found and named."""

from __future__ import annotations

import json
import math

import glauber as gl
import numpy as np
import pytest
from glauber.catalogue import load_spec
from glauber.cli import app
from glauber.errors import InvalidModelError, ModelNotSupportedError
from glauber.registry import open_driver, parse_address
from glauber.testing import accept, run_contract
from glauber.testing.acceptance.faults import FAULTS, simulated
from glauber.testing.acceptance.power import interval
from glauber.testing.acceptance.probes import Probe, Probes, make_probes, radius
from glauber.testing.acceptance.scores import score
from glauber.testing.acceptance.spending import Spending
from glauber.testing.acceptance.statistics import direction, many, many_power, worst
from glauber.testing.contract_html import as_html
from glauber.testing.exact import ExactLaw
from scipy.stats import binom, kstest
from typer.testing import CliRunner

KING = load_spec("pbit-king-64")


def inside(count, runs, probability):
    """Whether a count lies in the binomial 99.9 % band."""
    return binom.ppf(0.0005, runs, probability) <= count <= binom.ppf(0.9995, runs, probability)


# Spending alpha


@pytest.mark.parametrize("n_looks", [1, 2, 3, 7])
@pytest.mark.parametrize("alpha", [1e-6, 1e-5, 0.01, 0.2])
def test_uniform_q_spends_alpha_to_the_last_bit(alpha, n_looks):
    spending = Spending(alpha, n_looks)
    assert spending.power(lambda _, x: x) == pytest.approx(alpha, rel=1e-12)
    assert spending.power(lambda _, x: x / 3) < alpha  # q of Bonferroni are larger than uniform ones
    assert spending.power(lambda _, x: 1.0) == 1.0
    assert spending.reject_at(n_looks - 1) == pytest.approx(spending.gamma)


def test_looks_by_hand_reject_as_often_as_they_spend():
    spending, rng, runs = Spending(0.1, 3), np.random.default_rng(1), 20_000
    verdicts = []
    for _ in range(runs):
        for look in range(3):
            verdict = spending.verdict(look, rng.uniform())
            if verdict != "go on":
                break
        verdicts.append(verdict)
    assert set(verdicts) == {"accepted", "rejected"}
    assert inside(verdicts.count("rejected"), runs, 0.1)


@pytest.mark.parametrize(("alpha", "n_looks"), [(0.0, 3), (1.0, 3), (math.nan, 3), (1e-5, 0)])
def test_spending_refuses_what_is_no_probability(alpha, n_looks):
    with pytest.raises(InvalidModelError):
        Spending(alpha, n_looks)


# Moments


def small_problem():
    """Eight sites of a ring with chords; the jobs of a test that couples half of the pairs."""
    rng = np.random.default_rng(5)
    pairs = np.array([(i, (i + 1) % 8) for i in range(8)] + [(0, 4), (1, 5), (2, 6)])
    pairs = np.sort(pairs, axis=1)[np.lexsort(np.sort(pairs, axis=1).T[::-1])]
    model = gl.IsingModel(rng.uniform(-0.5, 0.5, 8), pairs[::2], rng.uniform(0.3, 1, 6) * rng.choice([-1, 1], 6))
    job = Probe("small", model, 0.8, 1, 2, 6)
    return Probes((job,), np.arange(8), pairs, len(pairs)), job, model


def means(probes, job, model, law):
    """Exact expectations of all scores for samples of a law, by enumeration."""
    found = score(probes, job, model, law.states.astype(np.int8)[:, None], in_order=True)
    return {name: law.probabilities @ getattr(found, name) for name in ("gain", "offset", "driven", "bare")}


def information(probes, job, model, name):
    """The exact expectation of an information under the programmed law."""
    law = ExactLaw(model, job.beta)
    states = law.states.astype(np.int8)
    of_each = [
        getattr(score(probes, job, model, states[[k]][:, None], in_order=True), f"{name}_information")
        for k in range(len(states))
    ]
    return law.probabilities @ np.array(of_each)


def test_scores_have_mean_zero_under_the_programmed_law_and_only_there():
    probes, job, model = small_problem()
    for name, mean in means(probes, job, model, ExactLaw(model, job.beta)).items():
        assert np.abs(mean).max() < 1e-14, name
    assert means(probes, job, model, ExactLaw(model, 1.05 * job.beta))["gain"].sum() > 0.01


def with_crosstalk(probes, model, x):
    J = np.full(len(probes.neighbours), x)
    for edge, value in zip(model.edges.tolist(), model.couplings.tolist(), strict=True):
        J[(probes.neighbours == edge).all(axis=1)] += value
    return gl.IsingModel(model.fields, probes.neighbours, J)


def test_information_is_what_a_fault_moves():
    """Derivatives of exact expectations by an offset, a coupling, beta and crosstalk, against the information."""
    probes, job, model = small_problem()
    h, J = model.fields, model.couplings
    at = int(np.flatnonzero((probes.neighbours == model.edges[2]).all(axis=1))[0])
    faults = {
        "offset": lambda x: model.replace(fields=h + x / job.beta * (np.arange(8) == 3)),
        "driven": lambda x: model.replace(couplings=J + x * (np.arange(6) == 2)),
        "gain": lambda x: model.replace(fields=h * (1 + x), couplings=J * (1 + x)),
        "shift": lambda x: with_crosstalk(probes, model, x),
    }
    eps, slope = 1e-5, {}
    for name, change in faults.items():
        up, down = (means(probes, job, model, ExactLaw(change(x), job.beta)) for x in (eps, -eps))
        slope[name] = {score: (up[score] - down[score]) / (2 * eps) for score in up}
    stated = {name: information(probes, job, model, name) for name in faults}
    assert slope["offset"]["offset"][3] == pytest.approx(stated["offset"][3], rel=1e-6)
    assert slope["driven"]["driven"][at] == pytest.approx(stated["driven"][at], rel=1e-6)
    assert slope["gain"]["gain"].sum() == pytest.approx(stated["gain"].sum(), rel=1e-6)
    moved = slope["shift"]["bare"].sum() + slope["shift"]["driven"].sum()
    assert moved == pytest.approx(stated["shift"], rel=1e-6)


def test_scores_of_blocks_are_those_of_the_whole(monkeypatch):
    probes, job, model = small_problem()
    job = Probe("free", model.replace(couplings=np.zeros(6)), 0.8, 1, 1, 0)
    states = np.random.default_rng(2).choice(np.array([-1, 1], dtype=np.int8), (70, 9, 8))
    whole = score(probes, job, job.model, states, in_order=True)
    monkeypatch.setattr("glauber.testing.acceptance.scores.BLOCK_VALUES", 300)
    parts = score(probes, job, job.model, states, in_order=True)
    for name, value in vars(whole).items():
        np.testing.assert_allclose(getattr(parts, name), value, atol=1e-12)
    assert whole.lags.shape == (70, 4)
    r = states - np.tanh(0.8 * job.model.fields)
    by_hand = sum(float(r[3, t] @ r[3, t + 2]) for t in range(7))
    assert whole.lags[3, 1] == pytest.approx(by_hand)
    assert whole.alike[1] == pytest.approx(float((r[2] * r[3]).sum()))
    assert whole.together[5] == pytest.approx(float((r[5].sum(axis=1) ** 2 - (r[5] ** 2).sum(axis=1)).sum()))


# Tests


def test_p_values_are_uniform_and_powers_are_those_stated():
    """Skewed coins, as sums over groups have them; the faults move the mean of one direction or of all."""
    rng, runs, g, d = np.random.default_rng(3), 1000, 64, 12
    up = 1 / (1 + np.exp(-2 * np.linspace(-0.8, 0.8, d)))
    coins = rng.binomial(16, up, (runs, g, d)) - 16 * up
    singles = [direction(x[:, 0]) for x in coins]
    together = [many(x) for x in coins]
    assert kstest(singles, "uniform").pvalue > 1e-3
    assert kstest(together, "uniform").pvalue > 1e-3
    assert inside(sum(worst(x)[1] < 0.05 for x in coins), runs, 1 - (1 - 0.05 / d) ** d)
    sigma = np.sqrt(16 * up * (1 - up))
    shift = 0.5 * sigma / np.sqrt(g) * rng.choice([-1, 1], d) * np.linspace(1, 3, d)
    distance = float((g * (shift / sigma) ** 2).sum())
    found = sum(many(x + shift) < 0.01 for x in coins)
    assert inside(found, runs, many_power(distance, d, g, 0.01))
    assert 0.1 < found / runs < 0.9
    alone = sum(direction(x[:, 0] + 2.5 * sigma[0] / np.sqrt(g)) < 0.01 for x in coins)
    assert inside(alone, runs, many_power(2.5**2, 1, g, 0.01))


def test_sums_that_never_vary_are_found_by_the_worst():
    stuck = np.random.default_rng(1).normal(size=(64, 3))
    stuck[:, 1] = 2.0
    assert worst(stuck) == (1, 0.0)
    assert 1e-3 < many(stuck) <= 1
    assert many(np.zeros((64, 3))) == 1.0
    assert direction(np.zeros(64)) == 1.0


# Jobs


def test_jobs_couple_every_edge_once_and_mix():
    probes = make_probes(KING)
    first, second, fields = probes.jobs
    assert not fields.model.n_edges
    both = np.concatenate([first.model.edges, second.model.edges])
    assert len(np.unique(both, axis=0)) == len(both) == 210
    for job in (first, second):
        t = np.zeros((64, 64))
        t[tuple(job.model.edges.T)] = np.abs(np.tanh(job.beta * job.model.couplings))
        largest = np.linalg.eigvalsh(t + t.T).max()
        assert largest <= radius(job.model, job.beta) <= 1.05 * largest
        assert largest < 0.75
        assert largest**job.n_warmup < 2e-6
    assert make_probes(KING).key == probes.key != make_probes(KING, avoid=[5]).key


def test_masked_p_bits_are_left_out():
    with gl.open_device("sim://pbit-king-64?n_dead=1&chip=4") as device:
        report = accept(device, seed=1)
        assert not report.accepted
        broken = int(report.suspicion.split()[1])
        device.mask([broken])
        rest = accept(device, seed=1)
    assert rest.accepted, rest.suspicion
    assert "63 of 64 p-bits were used" in rest.notes


@pytest.mark.parametrize(
    ("name", "why"), [("cn101", "optimiser"), ("z1", "not published"), ("aia-16nm", "not published")]
)
def test_devices_without_a_law_or_a_graph_are_refused(name, why):
    with pytest.raises(ModelNotSupportedError, match=why):
        make_probes(load_spec(name))


# Devices


def test_the_ideal_chip_is_accepted():
    with gl.open_device("sim://pbit-king-64") as device:
        report = accept(device, seed=1)
    assert report.accepted
    assert report.suspicion == ""
    assert report.p_value > report.alpha == 1e-5
    powers = {each.fault: each.power for each in report.power}
    assert set(powers) == {fault.name for fault in FAULTS}
    assert min(powers.values()) > 0.99
    assert "accepted at alpha 1e-05" in str(report)
    assert json.loads(json.dumps(report.as_dict(), allow_nan=False))["accepted"] is True


WORDS = (
    "beta is off by about +",
    "gains",
    "coupled by about +0.0",
    "remembers",
    "dead",
    "dropped",
    "couplings",
    "readings",
)


@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_every_fault_is_found_and_named(number):
    with simulated(KING, make_probes(KING), FAULTS[number], 3) as device:
        report = accept(device, seed=3)
    assert not report.accepted
    assert report.p_value <= report.alpha
    assert WORDS[number] in report.suspicion
    assert "rejected" in str(report)


class Limited:
    """A device that returns last states only, of 16 chains at most."""

    def __init__(self, flaws):
        self._driver = open_driver(parse_address(f"sim://pbit-king-64{flaws}"))
        able = self._driver.spec.capabilities.model_copy(update={"observables": frozenset({"last"})})
        self.spec = self._driver.spec.model_copy(update={"capabilities": able})
        self.program, self.close = self._driver.program, self._driver.close

    def run(self, run):
        return self._driver.run(run)

    def admit(self, run, program):
        if run.n_chains > 16:
            raise ModelNotSupportedError("16 chains at most")
        return self._driver.admit(run, program)


@pytest.mark.parametrize(("flaws", "accepted"), [("", True), ("?n_dead=1", False)])
def test_devices_with_few_chains_and_without_samples(flaws, accepted):
    with gl.Device(Limited(flaws), address="limited://", seed=1) as device:
        report = accept(device, samples=1024, seed=2)
    assert report.accepted == accepted
    assert "memory" not in {test.name for test in report.looks[0].statistics}
    assert any("last states only" in note for note in report.notes)
    assert "noise correlation 3 sweeps" not in {each.fault for each in report.power}


def test_one_p_bit_and_one_pair():
    for n in (1, 2):
        with gl.open_device(f"sim://ideal?n_sites={n}") as device:
            report = accept(device, samples=1024, seed=1)
        assert report.accepted
        names = {each.fault for each in report.power}
        assert ("one dropped coupling" in names) == (n == 2)
        assert {each.fault: each.power for each in report.power}["beta + 5 %"] < 0.01  # it says that it sees nothing


def test_arguments_are_checked_before_the_work():
    wrong = [{"alpha": 0.0}, {"alpha": math.nan}, {"samples": 100}, {"samples": True}, {"samples": "many"}]
    with gl.open_device("sim://pbit-king-64") as device:
        for arguments in [*wrong, {"power_runs": -1}, {"seed": -1}, {"seed": 0.5}]:
            with pytest.raises(InvalidModelError):
                accept(device, **arguments)


def test_power_is_simulated_for_devices_of_the_catalogue_only():
    spec = KING.model_copy(update={"name": "my-board"})
    with pytest.raises(ModelNotSupportedError, match="no my-board"):
        simulated(spec, make_probes(spec), FAULTS[0], 0)
    low, high = interval(30, 30)
    assert high == 1.0
    assert low == pytest.approx(0.0005 ** (1 / 30))
    assert interval(0, 30) == pytest.approx((0.0, 1 - 0.0005 ** (1 / 30)))


# The contract and the command


def test_the_clause_reports_power_and_names_the_fault():
    right, wrong = (
        run_contract(lambda flaws=flaws: gl.open_device(f"sim://pbit-king-64{flaws}", seed=1), only=["acceptance"])
        for flaws in ("", "?n_dead=1")
    )
    assert right.passed
    assert right.alpha == 1e-5
    assert right.results[0].power["one dead p-bit"] > 0.99
    assert not wrong.passed
    assert "dead or stuck" in wrong.results[0].reason
    for report, verdict in ((right, "accepted"), (wrong, "rejected")):
        page = as_html(report)
        assert verdict in page
        assert "one dropped coupling" in page
        assert report.as_dict()["acceptance"]["accepted"] == (verdict == "accepted")


@pytest.mark.parametrize(
    ("address", "limit", "why"),
    [("sim://pbit-king-64?body=reference", 0.01, "longer time_limit"), ("sim://cn101", 60.0, "not published")],
)
def test_the_clause_is_skipped_where_it_can_say_nothing(address, limit, why):
    report = run_contract(lambda: gl.open_device(address, seed=1), only=["acceptance"], time_limit=limit)
    assert report.results[0].outcome == "skipped"
    assert why in report.results[0].reason
    assert report.acceptance is None


@pytest.mark.slow
def test_power_is_measured_on_demand(monkeypatch):
    monkeypatch.setattr("glauber.testing.contract.clauses", lambda _: ["test_acceptance"])
    result = CliRunner().invoke(app, ["conformance", "sim://pbit-king-64", "--power-runs", "2", "--json"])
    assert result.exit_code == 0, result.output
    table = json.loads(result.stdout)["acceptance"]["power"]
    assert {each["source"] for each in table} == {"simulated"}
    assert {each["runs"] for each in table} == {2}
    assert min(each["power"] for each in table) == 1.0
    assert table[0]["low"] == pytest.approx(0.0005**0.5)
