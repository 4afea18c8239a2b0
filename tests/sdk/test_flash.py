"""Weights that are dear to write: resident ones are used, jobs with them go first, impossible loops are refused."""

from __future__ import annotations

import collections
import itertools
import logging
import threading
from dataclasses import replace

import glauber as gl
import numpy as np
import pytest
from glauber.compile import weights_key
from glauber.device import Device
from glauber.energy import Operations
from glauber.errors import InvalidModelError, ModelNotSupportedError
from glauber.prepare import ProgramCache, prepare
from glauber.queueing import MAX_OVERTAKEN, FairQueue
from glauber.registry import open_driver, parse_address
from glauber.residency import Residency
from glauber.store.compare import compare_results
from glauber_simulator.driver import SimulatorDriver
from glauber_simulator.factory import SimulatorFactory
from hypothesis import given, settings
from hypothesis import strategies as st

SCHEDULE = gl.SamplingSchedule(n_samples=30, n_chains=40, n_warmup=7, sweeps_per_sample=2, beta=0.7)


def figure(value, unit):
    return gl.Quantity(value=value, unit=unit, provenance="vendor", source="this test")


def dear(address="sim://ideal", limit=1e9):
    """A simulated device that states what writing costs."""
    driver = SimulatorFactory().open(parse_address(address))
    costs = driver.spec.costs.model_copy(
        update={"joules_per_write": figure(1e-10, "J"), "max_reflash_hz": figure(limit, "Hz")}
    )
    return type(driver)(driver.spec.model_copy(update={"costs": costs}), driver.body, driver.facts)


class Counting:
    """Counts what is loaded into a driver, and lets a test hold its runs."""

    def __init__(self, driver):
        self.driver, self.keys, self.seeds, self.fields = driver, [], [], []
        self.gate = threading.Event()
        self.gate.set()

    def __getattr__(self, name):
        return getattr(self.driver, name)

    def program(self, program):
        self.keys.append(program.key)
        self.driver.program(program)

    def run(self, run):
        assert self.gate.wait(30)
        self.seeds.append(run.seed)
        self.fields.append(run.fields)
        yield from self.driver.run(run)


def chip_models(spec, n=3, seed=0):
    """Models with the same couplings on the device's steps, and fields of their own; and one with other couplings."""
    rng = np.random.default_rng(seed)
    if spec.topology is None:
        edges = np.array([[i, j] for i in range(24) for j in range(i) if (i * j + i) % 3 == 0])
        sites = 24
    else:
        edges, sites = spec.topology.edges(), spec.topology.n_sites
    # multiples of 1/128 up to 1: their exact step is the same, so that steps agree on a free scale too
    couplings = rng.integers(-64, 65, len(edges)) / 128
    couplings[0] = 1 / 128
    fields = [rng.integers(-128, 129, sites) / 128 for _ in range(n)]
    return [gl.IsingModel(field, edges, couplings) for field in fields] + [gl.IsingModel(fields[0], edges, -couplings)]


CHIPS = ["sim://ideal", "sim://pbit-king-64", "sim://z1?width=12&height=12", "sim://kv260"]
JOBS = {
    "planes": (SCHEDULE, {}),
    "one chain": (SCHEDULE.model_copy(update={"n_chains": 1}), {}),
    "moments": (SCHEDULE, {"observe": {"samples", "moments", "last", "energies"}}),
    "own fields": (SCHEDULE, {"fields": 0.25}),
    "clamped": (SCHEDULE, {"clamp": {0: 1, 3: -1}}),
    "annealing": (gl.AnnealingSchedule(n_sweeps=40, n_chains=5), {}),
    "asynchronous": (gl.AsynchronousSchedule(n_samples=20, n_chains=3, delay=0.2), {}),
    "tempering": (gl.TemperingSchedule(n_samples=20, betas=(0.3, 0.8), n_ladders=4), {}),
}


FOLDED = ("planes", "one chain", "moments", "own fields", "clamped")
"""What a chip runs that takes beta by its coefficients."""
CASES = [(chip, job) for chip in CHIPS for job in (JOBS if chip in CHIPS[:2] else FOLDED)]
CASES += [
    pytest.param("sim://ideal?body=reference", job, marks=pytest.mark.slow)
    for job in ("planes", "own fields", "annealing")
]


@pytest.mark.parametrize(("address", "job"), CASES)
def test_a_job_on_resident_weights_draws_what_it_draws_on_its_own(address, job):
    schedule, arguments = JOBS[job]
    driver = Counting(dear(address))
    models = chip_models(driver.spec)
    arguments = {**arguments}
    if "fields" in arguments:
        arguments["fields"] = np.full(models[0].n_sites, arguments["fields"])
    with Device(driver) as device:
        device.submit(models[0], schedule, seed=1).result(60)
        together = [device.submit(model, schedule, seed=9, **arguments).result(60) for model in models]
    assert len(driver.keys) == 2, "the first model and the one with other couplings"
    for model, result in zip(models, together, strict=True):
        with Device(dear(address)) as device:
            alone = device.submit(model, schedule, seed=9, **arguments).result(60)
        assert compare_results(alone, result) == "identical"
        np.testing.assert_array_equal(result.programmed_coefficients().fields, alone.programmed_coefficients().fields)
        assert result.provenance.program_key == alone.provenance.program_key
        if "own fields" not in job and result.packed is not None:
            np.testing.assert_array_equal(result.programmed_energies, alone.programmed_energies)
    assert "resident" in together[1].provenance.kernel["weights"]
    if "fields" in arguments:  # the last job but one left the same fields there
        assert together[2].energy_report.operations.nodes_written == 0
    else:
        changed = int((together[1].program.field != together[2].program.field).sum())
        assert together[2].energy_report.operations.nodes_written == changed > 0


def test_a_boards_firmware_takes_fields_on_resident_weights():
    """The controller's C, as a process on this computer, described as one whose writes cost."""
    board = Counting(open_driver(parse_address("firmware://host")))
    costs = board.spec.costs.model_copy(update={"joules_per_write": figure(1e-9, "J")})
    board.spec = board.spec.model_copy(update={"costs": costs})
    models = chip_models(gl.load_spec("ideal"))
    with Device(board) as device, gl.open_device("sim://ideal") as exact:
        for model in models[:3]:
            result = device.submit(model, SCHEDULE, seed=9, observe={"samples", "moments"}).result(60)
            right = exact.submit(model, SCHEDULE, seed=9, observe={"samples", "moments"}).result(60)
            assert compare_results(result, right) == "identical"
    assert len(board.keys) == 1


def test_the_fields_do_reach_the_machine():
    """A control: with the resident program's own fields the samples are others."""
    models = chip_models(gl.load_spec("ideal"))
    with gl.open_device("sim://ideal") as device:
        first, second = (device.submit(model, SCHEDULE, seed=9).result(30) for model in models[:2])
    assert compare_results(replace(first, model=second.model), second).startswith("differ: samples")


def test_fields_on_another_step_need_a_program_of_their_own():
    """On a free scale the step follows from couplings and fields; where it differs nothing is shared."""
    model = gl.IsingModel.from_edges([(0, 1, 1.0), (1, 2, 0.5)])
    finer = gl.IsingModel(np.full(3, 0.3), model.edges, model.couplings)
    driver = Counting(dear())
    with Device(driver) as device:
        for each in (model, finer):
            device.submit(each, SCHEDULE, seed=1).result(30)
    assert len(driver.keys) == 2


def test_p_dits_share_weights_unless_their_states_differ():
    edges, fields = [[0, 1], [1, 2]], np.array([[0.5, 0.25, 0.0]] * 3)
    allowed = np.array([[True, True, False]] * 3)
    models = [gl.PottsModel(k * fields, edges, [0.5, 0.25]) for k in (1, 2)]
    models.append(gl.PottsModel(np.where(allowed, fields, 0), edges, [0.5, 0.25], allowed))
    driver = Counting(dear())
    with Device(driver) as device:
        results = [device.submit(model, SCHEDULE, seed=4).result(30) for model in models]
    assert len(driver.keys) == 2
    with gl.open_device("sim://ideal") as device:
        for model, result in zip(models, results, strict=True):
            assert compare_results(device.submit(model, SCHEDULE, seed=4).result(30), result) == "identical"


def test_where_writing_is_not_said_to_cost_every_program_is_loaded():
    driver = Counting(SimulatorDriver(gl.load_spec("ideal")))
    models = chip_models(driver.spec)
    with Device(driver) as device:
        for model in (*models, models[-1]):
            device.submit(model, SCHEDULE, seed=1).result(30)
    assert len(driver.keys) == 4
    assert all(fields is None for fields in driver.fields)


def test_a_failed_run_leaves_nothing_resident():
    driver = Counting(dear())
    models = chip_models(driver.spec)
    with Device(driver) as device:
        device.submit(models[0], SCHEDULE, seed=1).result(30)
        with pytest.raises(gl.errors.BudgetExceededError):
            job = gl.SamplingSchedule(n_samples=1, n_warmup=2**40)
            device.submit(models[1], job, budget=gl.Budget(seconds=0.02)).result(30)
        device.submit(models[1], SCHEDULE, seed=1).result(30)
    assert len(driver.keys) == 2


def test_the_weights_key_is_of_everything_but_the_fields():
    driver, cache = dear(), ProgramCache()
    base = chip_models(driver.spec)

    def key(model):
        return weights_key(prepare(gl.JobRequest(model, SCHEDULE), driver, 0, cache).program)

    assert len({key(model) for model in base[:3]}) == 1
    assert key(base[3]) != key(base[0])
    fewer = gl.IsingModel(base[0].fields, base[0].edges[:-1], base[0].couplings[:-1])
    scaled = gl.IsingModel(base[0].fields * 2, base[0].edges, base[0].couplings * 2)
    assert len({key(model) for model in (base[0], fewer, scaled)}) == 3


# The queue

NUMBERS = itertools.count()
WEIGHTS = gl.IsingModel.from_edges([(0, 1, 1.0)])


class FakePrepared:
    def __init__(self, weights):
        self.weights = weights


def entry(weights, owner="ann", priority=0):
    request = gl.JobRequest(WEIGHTS, owner=owner, priority=priority)
    return next(NUMBERS), gl.Job("job", request, 0, lambda job: None), FakePrepared(weights)


def drained(queue, loaded=""):
    """Entries in the order in which they are taken, each leaving its weights loaded."""
    order = []
    while (taken := queue.pop(weights=loaded)) is not None:
        queue.charge(taken[1].owner, 1.0)
        order.append(taken)
        loaded = taken[2].weights
    return order


def test_jobs_with_the_loaded_weights_go_next():
    queue = FairQueue()
    for weights in "abababab":
        queue.push(entry(weights))
    assert "".join(each[2].weights for each in drained(queue)) == "aaaabbbb"


def test_priority_and_owners_come_first():
    queue = FairQueue()
    for weights, owner, priority in (("a", "ann", 0), ("b", "ann", 1), ("a", "bob", 0), ("a", "ann", 0)):
        queue.push(entry(weights, owner, priority))
    assert queue.pop(weights="a")[2].weights == "b"
    queue.charge("ann", 10.0)
    assert queue.pop(weights="a")[1].owner == "bob"


def test_without_a_cost_the_order_is_that_of_arrival():
    queue = FairQueue()
    entries = [entry("") for _ in range(20)]
    for each in entries:
        queue.push(each)
    assert drained(queue) == entries


def test_a_stream_of_fitting_jobs_does_not_starve_another():
    queue, other = FairQueue(), entry("b")
    queue.push(entry("a"))
    queue.push(other)
    before = 0
    for _ in range(1000):
        queue.push(entry("a"))
        taken = queue.pop(weights="a")
        queue.charge("ann", 1.0)
        if taken is other:
            break
        before += 1
    assert before == MAX_OVERTAKEN


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["push a", "push b", "push c", "pop", "remove"]), max_size=120))
def test_nobody_is_overtaken_more_often_than_stated(steps):
    queue, waiting, overtaken, loaded = FairQueue(), [], collections.Counter(), ""
    for step in steps:
        if step.startswith("push"):
            waiting.append(entry(step[-1]))
            queue.push(waiting[-1])
        elif step == "remove" and waiting:
            assert queue.remove(waiting.pop(len(waiting) // 2)[1])
        elif step == "pop" and waiting:
            taken = queue.pop(weights=loaded)
            queue.charge("ann", 1.0)
            overtaken.update(each[0] for each in waiting if each[0] < taken[0])
            waiting.remove(taken)
            loaded = taken[2].weights
        assert len(queue) == len(waiting)
    assert max(overtaken.values(), default=0) <= MAX_OVERTAKEN


def test_a_device_runs_jobs_of_its_weights_together():
    driver = Counting(dear())
    models = chip_models(driver.spec)
    one, other = models[0], models[-1]
    driver.gate.clear()
    with Device(driver) as device:
        jobs = [device.submit(model, SCHEDULE, seed=k) for k, model in enumerate([one, other] * 4)]
        driver.gate.set()
        for job in jobs:
            job.result(30)
    assert driver.seeds == [0, 2, 4, 6, 1, 3, 5, 7]
    assert len(driver.keys) == 2


# What a training loop asks


STEP = Operations(updates=10**6, sweeps=1000, nodes_written=1000, nodes_read=2000, reads=2, samples=2)


def test_a_thousand_gradients_a_second_are_refused_with_the_arithmetic():
    spec = gl.load_spec("z1")
    plan = gl.flash_plan(spec, STEP, steps=1000, seconds=1.0)
    assert plan.seconds_writing == 1000.0
    assert plan.seconds_running == pytest.approx(1000 * (1 + 1000 / 5e7 + 2 * 25e-6), rel=1e-12)
    assert plan.joules_writing == pytest.approx(1000 * 1000 * 153.6e-12, rel=1e-12)
    assert plan.joules_sampling == pytest.approx(1000 * 10**6 * 7.09e-15, rel=1e-12)
    with pytest.raises(ModelNotSupportedError) as caught:
        plan.require()
    text = str(caught.value)
    for words in ("1,000 weight settings in 1 s (1,000 a second) on z1", "rewriting alone takes 1,000 s",
                  "1 at most, vendor", "1,000 times what was asked", "a ratio of 21.66", "run fields"):  # fmt: skip
        assert words in text
    assert not plan.as_dict()["possible"]


def test_what_fits_is_not_refused():
    spec = gl.load_spec("z1")
    slow = gl.flash_plan(spec, STEP, steps=1000, seconds=1001.0)
    assert slow.possible
    slow.require()
    assert gl.flash_plan(spec, STEP, steps=10**9).possible
    unknown = gl.flash_plan(gl.load_spec("x0"), STEP, steps=10**9, seconds=1e-3)
    assert unknown.possible is None
    unknown.require()
    assert "not published" in str(unknown)


@pytest.mark.parametrize(("steps", "seconds"), [(0, 1.0), (1.5, 1.0), (10, 0.0), (10, -1), (10, "soon"), (10, True)])
def test_wrong_plans(steps, seconds):
    with pytest.raises(InvalidModelError):
        gl.flash_plan(gl.load_spec("z1"), STEP, steps=steps, seconds=seconds)


def test_a_device_checks_a_loop_of_its_jobs():
    with gl.open_device("sim://z1?width=12&height=12") as device:
        model = chip_models(device.spec)[0]
        schedule = gl.SamplingSchedule(n_samples=10, n_chains=2)
        with pytest.raises(ModelNotSupportedError, match="500 a second"):
            device.check_training(model, schedule, steps=500, seconds=1)
        plan = device.check_training(model, schedule, steps=500, seconds=600)
        assert plan.joules_writing == pytest.approx(500 * 144 * 153.6e-12, rel=1e-12)
        assert device.estimate(model, schedule).seconds.value == pytest.approx(plan.seconds_running / 500, rel=1e-12)
    with gl.open_device("sim://ideal") as device:
        assert device.check_training(model, schedule, steps=10**6, seconds=1e-3).possible is None


def test_a_simulator_that_rewrites_too_fast_says_so(caplog):
    driver = dear("sim://pbit-king-64", limit=0.05)
    base = chip_models(driver.spec)[0]
    models = [gl.IsingModel(base.fields, base.edges, base.couplings * (1 - k / 8)) for k in range(5)]
    with caplog.at_level(logging.WARNING, logger="glauber"), Device(driver) as device:
        results = [device.submit(model, gl.SamplingSchedule(n_samples=4)).result(30) for model in models]
        again = device.submit(models[-1], gl.SamplingSchedule(n_samples=4)).result(30)
    assert "reflash" not in results[0].provenance.kernel
    assert "rewritten 5 times" in results[4].provenance.kernel["reflash"]
    assert "there it would take 80 s" in results[4].provenance.kernel["reflash"]  # 4 waits of 20 s
    assert "reflash" not in again.provenance.kernel
    assert results[4].energy_report.reflash_seconds == 20.0
    assert again.energy_report.reflash_seconds == 0.0
    told = [record for record in caplog.records if record.message == "reflash limit"]
    assert len(told) == 2  # at the second and at the fourth rewrite


def test_a_pause_ends_the_series():
    """On a clock of the test's own: the series counts rewrites that came sooner than the limit allows."""
    driver, now, told = dear("sim://pbit-king-64", limit=0.5), [0.0], []
    residency, cache = Residency(driver.spec, told.append, lambda: now[0]), ProgramCache()
    base = chip_models(driver.spec)[0]
    facts = []
    for k, wait in enumerate((0.0, 1.9, 2.0, 0.1)):
        now[0] += wait
        model = gl.IsingModel(base.fields, base.edges, base.couplings * (1 - k / 8))
        prepared = prepare(gl.JobRequest(model, SCHEDULE), driver, 0, cache)
        loading = residency.plan(prepared)
        residency.ran(prepared, loading)
        facts.append("reflash" in loading.facts)
    assert facts == [False, True, False, True]
    assert len(told) == 2
