"""Effective samples per second and joule, and jobs that stop when they have enough of them."""

from __future__ import annotations

import math

import glauber as gl
import numpy as np
import pytest
from glauber.compile.program import MAX_ENUMERATED_STATES
from glauber.device import Device
from glauber.diagnostics import mixing_of
from glauber.efficiency import ess_uncertainty
from glauber.errors import InvalidModelError
from glauber.request import JobRequest
from glauber.stopping import EssWatch
from glauber.store.compare import compare_results
from glauber_simulator import driver as simulator
from glauber_simulator.driver import SimulatorDriver
from scipy.stats import chi2
from store_bench import begun

RING = gl.IsingModel.from_edges([(i, (i + 1) % 8, 1.0) for i in range(8)], {0: 0.3})
CAP = gl.SamplingSchedule(n_samples=20_000, n_chains=4, n_warmup=50, beta=0.6)
ENOUGH = gl.Budget(ess=300)


def run(model=RING, schedule=CAP, address="sim://ideal", **arguments):
    with gl.open_device(address) as device:
        return device.submit(model, schedule, **arguments).result(60)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_the_stated_uncertainty_of_an_ess_is_its_scatter(rho):
    """200 sets of AR(1) chains, whose ESS is N (1 - rho) / (1 + rho): the variance of the errors over the stated one
    lies in the 99.9 % interval of a chi-square of 200, widened by 0.8 and 1.3 for the formula's window."""
    rng, n, chains, sets = np.random.default_rng(1), 500, 4, 200
    noise = rng.standard_normal((sets, chains, n))
    series = np.empty_like(noise)
    series[..., 0] = noise[..., 0] / math.sqrt(1 - rho**2)
    for t in range(1, n):
        series[..., t] = rho * series[..., t - 1] + noise[..., t]
    found = np.array([mixing_of(each, 1).ess for each in series])
    true = chains * n * (1 - rho) / (1 + rho)
    assert found.mean() == pytest.approx(true, rel=0.06)
    stated = ess_uncertainty(true, chains * n)
    ratio = ((found - found.mean()) ** 2).sum() / stated**2
    low, high = chi2.ppf([0.0005, 0.9995], sets - 1)
    assert 0.8**2 * low < ratio < 1.3**2 * high
    assert not 0.8**2 * low < ratio / 4 < 1.3**2 * high  # a stated uncertainty of twice the scatter would be seen


def test_efficiency_is_ess_over_what_was_spent():
    with gl.open_device("sim://pbit-king-64") as device:
        chip_model = gl.IsingModel.from_edges([(0, 1, 0.5), (1, 2, -0.5)], {0: 0.3})
        samples = device.submit(chip_model, gl.SamplingSchedule(n_samples=2000, n_chains=2), seed=1).result(30)
    found, report = samples.efficiency(), samples.energy_report
    assert found.ess == samples.diagnostics().ess
    assert found.ess_per_joule == found.ess / report.joules
    assert found.joules_per_effective_sample == report.joules / found.ess
    assert found.ess_per_second == found.ess / (samples.timing["total"] - samples.timing["queue"])
    assert found.device_seconds == pytest.approx(1e-4 + 4000e-6 + 4000e-6)  # programming, sweeps, reads
    relative = math.hypot(math.sqrt(8 / found.ess + 2 / 4000), report.standard_uncertainty / report.joules)
    assert found.ess_per_joule_uncertainty == pytest.approx(relative * found.ess_per_joule, rel=1e-12)
    assert found.basis == "modelled"
    assert found.missing == ("control", "transfer")
    assert found.as_dict()["ess_per_joule"] == found.ess_per_joule
    assert "modelled" in str(found)


def test_efficiency_says_what_it_cannot_say():
    unpublished = run(schedule=gl.SamplingSchedule(n_samples=200))
    assert unpublished.efficiency().ess_per_joule is None
    assert "not published" in str(unpublished.efficiency())
    held = run(schedule=gl.SamplingSchedule(n_samples=20), clamp=np.ones(8, np.int8)).efficiency()
    assert held.ess is None
    assert "unknown" in str(held)
    with pytest.raises(InvalidModelError, match="not kept"):
        run(observe="moments", schedule=gl.SamplingSchedule(n_samples=20)).efficiency()
    tempered = run(schedule=gl.TemperingSchedule(n_samples=50, betas=(0.5, 1.0)))
    with pytest.raises(InvalidModelError, match="no common law"):
        tempered.efficiency()
    assert tempered.temperature(0).efficiency().ess > 0


def test_a_job_stops_when_it_has_enough_and_its_samples_are_the_first_of_the_whole_job():
    samples = run(budget=ENOUGH, seed=3, observe={"samples", "moments", "last", "energies"})
    assert samples.provenance.stopped_by == "ess"
    assert samples.efficiency().ess >= 300
    assert samples.n_samples < 2000
    assert samples.provenance.n_sweeps == 50 + samples.n_samples
    whole = run(seed=3)
    np.testing.assert_array_equal(samples.states, whole.states[:, : samples.n_samples])
    np.testing.assert_array_equal(samples.moments.sites, samples.states.sum(axis=1))
    np.testing.assert_array_equal(samples.last, samples.states[:, -1])
    np.testing.assert_allclose(samples.energies, RING.energies(samples.states), atol=1e-12)
    assert samples.energy_report.operations.samples == 4 * samples.n_samples


@pytest.mark.parametrize("seconds", [1e-5, 1e-3, 1.0])
def test_where_it_stops_does_not_depend_on_how_batches_are_cut(seconds, monkeypatch):
    monkeypatch.setattr(simulator, "BATCH_SECONDS", seconds)
    monkeypatch.setattr(simulator, "BATCH_READINGS", 0)
    schedule = CAP.model_copy(update={"sweeps_per_sample": 3})
    assert run(schedule=schedule, budget=ENOUGH, seed=4).n_samples == stop_of_seed_4(schedule)


def stop_of_seed_4(schedule):
    """From the whole job's samples alone."""
    whole = run(schedule=schedule.model_copy(update={"n_samples": 3000}), seed=4)
    watch = EssWatch(300, RING, 4)
    while not watch.reached:
        stop = watch.next_look
        again = EssWatch(300, RING, 4)
        again.take(whole.states[:, :stop], whole.energies[:, :stop])
        watch = again
    return stop


def test_what_is_kept_does_not_matter_for_where_it_stops():
    counts = {run(budget=ENOUGH, seed=5, observe=what).n_samples for what in ("samples", "moments", "energies", "last")}
    assert len(counts) == 1
    assert run(budget=ENOUGH, seed=5, observe="moments").packed is None


def test_independent_draws_need_as_many_samples_as_are_asked_for():
    """Without couplings every draw is independent. 4 chains of at least 100: the first look is at 100 each, and the
    ESS of the 8-spin mean has a relative error of some sqrt(10 / 400) = 0.16, so two or three looks suffice."""
    loose = gl.IsingModel(np.full(8, 0.2), [], [])
    for seed in range(5):
        assert 100 <= run(loose, CAP, budget=gl.Budget(ess=400), seed=seed).n_samples <= 200


def test_means_are_as_good_as_the_effective_samples_promise():
    """Over 60 seeds the squared error of the mean magnetisation, times its ESS, over the law's variance, is a
    chi-square of 60, if stopping at an estimate does no harm; a tenth more variance each way is allowed for the ESS's
    own bias. As a control the same with the number of samples in place of the ESS must fail."""
    states = np.array(np.meshgrid(*[[-1, 1]] * 8)).reshape(8, -1).T
    assert len(states) < MAX_ENUMERATED_STATES
    weights = np.exp(-CAP.beta * RING.energies(states))
    weights /= weights.sum()
    mean = weights @ states.mean(axis=1)
    variance = weights @ (states.mean(axis=1) - mean) ** 2
    by_ess, by_count = [], []
    with gl.open_device("sim://ideal") as device:
        jobs = [device.submit(RING, CAP, seed=seed, budget=gl.Budget(ess=200)) for seed in range(60)]
        for job in jobs:
            samples = job.result(60)
            off = (samples.states.mean() - mean) ** 2 / variance
            by_ess.append(off * samples.diagnostics().magnetisation.ess)
            by_count.append(off * samples.states[..., 0].size)
    low, high = chi2.ppf([0.0005, 0.9995], len(by_ess))
    assert 0.9 * low < sum(by_ess) < 1.1 * high
    assert sum(by_count) > 1.1 * high


def test_the_schedule_is_the_most_and_then_nothing_is_claimed():
    short = CAP.model_copy(update={"n_samples": 100})
    samples = run(schedule=short, budget=ENOUGH, seed=3)
    assert samples.n_samples == 100
    assert samples.provenance.stopped_by is None
    assert samples.efficiency().ess < 300


def test_the_first_budget_that_is_spent_counts():
    chip = gl.IsingModel.from_edges([(0, 1, 0.5), (1, 2, -0.5)])
    with gl.open_device("sim://pbit-king-64") as device:
        cost = device.estimate(chip, CAP).energy.joules
        poor = device.submit(chip, CAP, seed=1, budget=gl.Budget(ess=2000, joules=cost / 100)).result(30)
        rich = device.submit(chip, CAP, seed=1, budget=gl.Budget(ess=200, joules=cost)).result(30)
    assert poor.provenance.stopped_by == "joules"
    assert poor.energy_report.joules <= cost / 100
    assert rich.provenance.stopped_by == "ess"
    assert run(budget=gl.Budget(ess=300, sweeps=150), seed=3).provenance.stopped_by == "sweeps"
    slow = CAP.model_copy(update={"sweeps_per_sample": 5000})
    assert run(schedule=slow, budget=gl.Budget(ess=70_000, seconds=0.05), seed=3).provenance.stopped_by == "seconds"


@pytest.mark.parametrize(
    ("schedule", "arguments"),
    [
        (CAP, {"clamp": {2: -1}, "fields": np.linspace(-1, 1, 8)}),
        (gl.AsynchronousSchedule(n_samples=5000, n_chains=4, delay=0.3, beta=0.6), {}),
        (CAP.model_copy(update={"n_chains": 40}), {"initial": np.ones(8, np.int8)}),
    ],
    ids=["clamp and fields", "asynchronous", "start in planes"],
)
def test_other_jobs_stop_at_a_beginning_of_their_own(schedule, arguments):
    samples = run(schedule=schedule, budget=ENOUGH, seed=6, **arguments)
    whole = run(schedule=schedule.model_copy(update={"n_samples": samples.n_samples}), seed=6, **arguments)
    assert samples.provenance.stopped_by == "ess"
    assert compare_results(samples, whole) == "identical"


def test_p_dits_too():
    potts = gl.PottsModel(np.zeros((6, 3)), [[i, i + 1] for i in range(5)], np.full(5, 0.5))
    samples = run(potts, CAP, budget=ENOUGH, seed=1)
    whole = run(potts, CAP.model_copy(update={"n_samples": samples.n_samples}), seed=1)
    assert samples.provenance.stopped_by == "ess"
    assert compare_results(samples, whole) == "identical"
    assert samples.efficiency().ess >= 300


def test_a_machine_that_cannot_go_on_from_a_state_runs_once_and_stops_at_a_batch(monkeypatch):
    monkeypatch.setattr(simulator, "BATCH_SECONDS", 1e-4)
    spec = gl.load_spec("ideal")
    able = spec.capabilities.model_copy(update={"initial": False})
    runs = []

    class Forward(SimulatorDriver):
        def run(self, run):
            runs.append(run.first_sweep)
            yield from super().run(run)

    with Device(Forward(spec.model_copy(update={"capabilities": able}))) as device:
        samples = device.submit(RING, CAP, seed=3, budget=ENOUGH).result(30)
    assert runs == [1]
    assert samples.provenance.stopped_by == "ess"
    assert run(budget=ENOUGH, seed=3).n_samples <= samples.n_samples < CAP.n_samples
    np.testing.assert_array_equal(samples.states, run(seed=3).states[:, : samples.n_samples])


def test_it_goes_on_after_a_stop_and_ends_at_the_same_sample(store, often):
    schedule = gl.SamplingSchedule(n_samples=20_000, n_chains=64, n_warmup=50, sweeps_per_sample=6000)
    budget = gl.Budget(ess=6000)
    whole = run(schedule=schedule, seed=7, budget=budget)
    device = gl.open_device("sim://ideal", store=store)
    job = device.submit(RING, schedule, seed=7, budget=budget)
    begun(job, samples=20)
    device.close(requeue=True)
    assert job.status is gl.JobStatus.FAILED  # this handle: the job is in the store
    with gl.open_device("sim://ideal", store=store):
        again = gl.get_job(job.id, store=store).result(60)
    assert again.provenance.stopped_by == whole.provenance.stopped_by == "ess"
    assert compare_results(whole, again) == "identical"
    assert store.get(job.id).stopped_by == "ess"
    assert store.request(job.id).budget == budget


def test_a_watch_learns_nothing_from_how_draws_come():
    rng = np.random.default_rng(2)
    states = rng.choice(np.array([-1, 1], np.int8), (4, 400, 8))
    energies = RING.energies(states)
    looks = set()
    for cuts in ([400], [1] * 400, [7] * 57 + [1], [399, 1]):
        watch, start = EssWatch(700, RING, 4), 0
        for length in cuts:
            watch.take(states[:, start : start + length], energies[:, start : start + length])
            start += length
        looks.add((watch.reached, watch.next_look))
    assert len(looks) == 1


@pytest.mark.parametrize(
    ("arguments", "schedule", "message"),
    [
        ({"budget": ENOUGH}, gl.AnnealingSchedule(n_sweeps=10), "one temperature"),
        ({"budget": ENOUGH}, gl.TemperingSchedule(n_samples=500, betas=(0.5, 1.0)), "one temperature"),
        ({"budget": ENOUGH, "fields": np.zeros((4, 8))}, CAP, "fields differs between chains"),
        ({"budget": ENOUGH, "clamp": np.zeros((4, 8), np.int8)}, CAP, "clamp differs between chains"),
        ({"budget": gl.Budget(ess=401)}, CAP.model_copy(update={"n_samples": 100}), "cannot be reached"),
    ],
)
def test_wrong_requests_are_refused_at_once(arguments, schedule, message):
    with pytest.raises(InvalidModelError, match=message):
        JobRequest(RING, schedule, **arguments)


@pytest.mark.parametrize("ess", [0, -5, math.inf, math.nan, "many"])
def test_wrong_budgets(ess):
    with pytest.raises(InvalidModelError, match="ess"):
        gl.Budget(ess=ess)
    with pytest.raises(InvalidModelError, match="seconds or sweeps"):
        gl.solve(RING, device="sim://ideal", budget=gl.Budget(ess=5, sweeps=5))


def test_requests_keep_their_form_and_keys():
    """The key of a request without an ESS is the one it had before there was any, so that stored results are found."""
    request = JobRequest(RING, CAP, seed=1, budget=ENOUGH)
    again = JobRequest.from_bytes(request.to_bytes())
    assert again.budget == ENOUGH
    assert again.key == request.key
    plain = JobRequest(RING, CAP, seed=1, budget=gl.Budget(seconds=5))
    assert plain.to_arrays()[0]["budget"] == {"seconds": 5.0}
    assert plain.key == "4845c88f94431828a180202aa1841780"  # as version 0.1.0 computed it before budgets had an ESS
    assert plain.key != request.key
