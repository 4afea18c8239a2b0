"""Jobs: queue, priority, progress, cancel, partial results, budgets, closing, and a worker that dies."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import warnings

import glauber as gl
import numpy as np
import pytest
from glauber.device import Device
from glauber.driver import ServiceEvent
from glauber.errors import (
    BudgetExceededError,
    DeviceClosedError,
    DeviceIOError,
    GlauberError,
    InvalidModelError,
    JobCancelledError,
    JobFailedError,
    JobTimeoutError,
)
from glauber_simulator.driver import SimulatorDriver

MODEL = gl.IsingModel.from_edges([(0, 1, 1.0), (1, 2, -0.5)], {0: 0.3})
SHORT = gl.SamplingSchedule(n_samples=20, n_chains=2, n_warmup=5)
LONG = gl.SamplingSchedule(n_samples=10**8, n_chains=1, sweeps_per_sample=1000)


class GatedDriver(SimulatorDriver):
    """A simulator whose runs wait for `gate`, so that tests decide when a job is running."""

    def __init__(self) -> None:
        super().__init__(gl.load_spec("ideal"))
        self.gate = threading.Event()
        self.order: list[int] = []
        self.loads = 0

    def program(self, program):
        self.loads += 1
        super().program(program)

    def run(self, run):
        self.order.append(run.seed)
        assert self.gate.wait(30)
        yield from super().run(run)


@pytest.fixture
def gated():
    driver = GatedDriver()
    with Device(driver) as device:
        yield driver, device
        driver.gate.set()


@pytest.fixture
def device():
    with gl.open_device("sim://ideal?seed=5") as opened:
        yield opened


def test_status_goes_from_queued_through_running_to_done(gated):
    driver, device = gated
    first, second = device.submit(MODEL, SHORT), device.submit(MODEL, SHORT)
    assert second.status is gl.JobStatus.QUEUED
    driver.gate.set()
    statuses = [progress.status for progress in second.watch()]
    assert statuses[-1] is gl.JobStatus.DONE
    assert first.done()
    assert second.progress.fraction == 1.0
    assert second.progress.samples_done == 20


def test_fifo_within_a_priority_and_priorities_before(gated):
    driver, device = gated
    blocker = device.submit(MODEL, SHORT, seed=0)
    while not driver.order:
        time.sleep(0.001)
    jobs = [
        device.submit(MODEL, SHORT, seed=seed, priority=priority)
        for seed, priority in ((1, 0), (2, 0), (3, 7), (4, -1))
    ]
    driver.gate.set()
    gl.wait([blocker, *jobs], timeout=30)
    assert driver.order == [0, 3, 1, 2, 4]


def test_a_resubmitted_program_is_loaded_once(gated):
    driver, device = gated
    driver.gate.set()
    for beta in (0.5, 1.0):
        device.submit(MODEL, gl.SamplingSchedule(n_samples=2, beta=beta), fields=[0.1, 0.2, 0.3]).result(30)
    assert driver.loads == 1  # neither a new beta nor new fields reprogram a chip
    device.submit(MODEL.replace(couplings=[0.25, 0.5]), SHORT).result(30)
    assert driver.loads == 2


def test_cancel_of_a_queued_and_of_a_running_job(gated):
    driver, device = gated
    running, queued = device.submit(MODEL, LONG), device.submit(MODEL, SHORT)
    queued.cancel()
    assert queued.status is gl.JobStatus.CANCELLED
    driver.gate.set()
    while running.progress.sweeps_done == 0:
        time.sleep(0.001)
    running.cancel()
    with pytest.raises(JobCancelledError):
        running.result(10)
    assert running.status is gl.JobStatus.CANCELLED
    assert device.submit(MODEL, SHORT).result(30).n_samples == 20  # the device goes on


def test_partial_result_of_a_cancelled_job_is_a_prefix(device):
    job = device.submit(MODEL, LONG, seed=9, partial=True)
    while job.progress.samples_done < 3:
        time.sleep(0.001)
    job.cancel()
    samples = job.result(10)
    assert job.status is gl.JobStatus.CANCELLED
    assert samples.provenance.stopped_by == "cancel"
    k = samples.n_samples
    whole = device.submit(MODEL, LONG.model_copy(update={"n_samples": k}), seed=9).result(60)
    np.testing.assert_array_equal(samples.states, whole.states)


def test_progress_arrives_while_the_job_runs(device):
    job = device.submit(MODEL, LONG)
    seen = []
    for progress in job.watch():
        seen.append(progress.sweeps_done)
        if len(seen) == 4:
            job.cancel()
    assert seen == sorted(seen)
    assert seen[2] > 0


def test_as_completed_and_wait(gated):
    driver, device = gated
    jobs = [device.submit(MODEL, SHORT) for _ in range(3)]
    late = gl.wait(jobs, timeout=0.05)
    assert late.done == []
    assert len(late.not_done) == 3
    with pytest.raises(JobTimeoutError, match="3 of 3"):
        list(gl.as_completed(jobs, timeout=0.05))
    driver.gate.set()
    assert list(gl.as_completed(jobs, timeout=30)) == jobs  # one worker: they end in order
    endless = device.submit(MODEL, LONG)
    assert gl.wait([*jobs, endless], return_when="first", timeout=30).done[:1] == jobs[:1]
    endless.cancel()


def test_await_in_an_event_loop(device):
    async def main():
        jobs = [device.submit(MODEL, SHORT, seed=seed) for seed in range(3)]
        results = await asyncio.gather(*jobs)
        assert (await jobs[0]).provenance.seed == 0  # a job that is done can be awaited again
        failing = device.submit(MODEL, LONG)
        failing.cancel()
        with pytest.raises(JobCancelledError):
            await failing
        return results

    assert [samples.provenance.seed for samples in asyncio.run(main())] == [0, 1, 2]


def test_done_callback_runs_once_whenever_it_is_added(device):
    seen = []
    job = device.submit(MODEL, SHORT)
    job.add_done_callback(seen.append)
    job.result(30)
    job.add_done_callback(seen.append)
    assert gl.wait([job], timeout=5).done
    deadline = time.monotonic() + 5
    while len(seen) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert seen == [job, job]


def test_timing_has_the_same_phases_everywhere(device):
    samples = device.submit(MODEL, SHORT).result(30)
    assert set(samples.timing) == {"queue", "program", "sample", "read", "total"}
    phases = sum(samples.timing[name] for name in ("queue", "program", "sample", "read"))
    assert samples.timing["total"] == pytest.approx(phases, rel=0.2, abs=2e-3)


def test_same_seed_same_samples_and_derived_seeds_differ(device):
    a, b = (device.submit(MODEL, SHORT, seed=3).result(30) for _ in range(2))
    np.testing.assert_array_equal(a.states, b.states)
    derived = [device.submit(MODEL, SHORT).seed for _ in range(3)]
    assert len(set(derived)) == 3
    with gl.open_device("sim://ideal?seed=5") as again:
        again_seeds = [again.submit(MODEL, SHORT).seed for _ in range(5)]
    assert again_seeds[2:] == derived  # derived from the device's seed and the job's number


def test_budget_in_seconds_stops_cleanly(device):
    began = time.perf_counter()
    samples = device.submit(MODEL, LONG, budget=gl.Budget(seconds=0.3)).result(30)
    assert samples.provenance.stopped_by == "seconds"
    assert 0 < samples.n_samples < LONG.n_samples
    assert time.perf_counter() - began < 10


def test_budget_in_sweeps_is_exact(device):
    schedule = gl.SamplingSchedule(n_samples=100, n_warmup=10, sweeps_per_sample=3)
    samples = device.submit(MODEL, schedule, budget=gl.Budget(sweeps=50)).result(30)
    assert samples.n_samples == 13
    assert samples.provenance.n_sweeps == 49
    assert samples.provenance.stopped_by == "sweeps"


def test_budget_in_joules_is_kept(device):
    with gl.open_device("sim://pbit-king-64") as chip:
        schedule = gl.SamplingSchedule(
            n_samples=20_000, n_chains=2, n_warmup=5
        )  # so that sampling outweighs programming
        free = chip.submit(MODEL, schedule).result(30)
        budget = 0.5 * free.energy_report.joules
        cost = chip.estimate(MODEL, gl.SamplingSchedule(n_samples=1, n_chains=2, n_warmup=5)).energy.joules
        assert cost < budget
        samples = chip.submit(MODEL, schedule, budget=gl.Budget(joules=budget)).result(30)
    assert samples.provenance.stopped_by == "joules"
    assert samples.energy_report.joules <= budget
    assert 0 < samples.n_samples < free.n_samples


def test_budget_spent_before_the_first_sample(device):
    schedule = gl.SamplingSchedule(n_samples=1, n_warmup=2**40)
    job = device.submit(MODEL, schedule, budget=gl.Budget(seconds=0.05))
    with pytest.raises(BudgetExceededError, match="before its first sample"):
        job.result(30)
    assert job.status is gl.JobStatus.FAILED


def test_observables(device):
    everything = device.submit(MODEL, SHORT, seed=1, observe={"samples", "last", "moments", "energies"}).result(30)
    np.testing.assert_array_equal(everything.last, everything.states[:, -1])
    np.testing.assert_array_equal(everything.moments.sites, everything.states.sum(axis=1))
    a, b = MODEL.edges[:, 0], MODEL.edges[:, 1]
    pairs = (everything.states[..., a] * everything.states[..., b]).sum(axis=1)
    np.testing.assert_array_equal(everything.moments.edges, pairs)
    np.testing.assert_allclose(everything.energies, MODEL.energies(everything.states), rtol=0, atol=1e-12)
    for observe in ("last", "moments", "energies"):
        only = device.submit(MODEL, SHORT, seed=1, observe=observe).result(30)
        with pytest.raises(InvalidModelError, match="not kept"):
            only.states  # noqa: B018
        np.testing.assert_array_equal(only.last, everything.last)
        if observe == "energies":
            np.testing.assert_array_equal(only.energies, everything.energies)
        if observe == "moments":
            np.testing.assert_array_equal(only.moments.sites, everything.moments.sites)


def test_fields_and_clamps_per_chain(device):
    fields = np.array([[50.0, 0, 0], [-50.0, 0, 0]])
    clamp = np.array([[0, 0, 1], [0, 0, -1]])
    samples = device.submit(MODEL, SHORT, fields=fields, clamp=clamp).result(30)
    assert (samples.states[0, :, 0] == 1).all()  # a field of 50 leaves no doubt: e^-100
    assert (samples.states[1, :, 0] == -1).all()
    assert (samples.states[0, :, 2] == 1).all()
    assert (samples.states[1, :, 2] == -1).all()
    by_hand = MODEL.energies(samples.states) - ((fields - MODEL.fields)[:, None] * samples.states).sum(axis=2)
    np.testing.assert_allclose(samples.energies, by_hand)


class BreakingDriver(SimulatorDriver):
    """Yields one batch, then raises what it was told to."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(gl.load_spec("ideal"))
        self.error: BaseException | None = error

    def run(self, run):
        batches = super().run(run)
        yield next(batches)
        if self.error is not None:
            raise self.error
        yield from batches


def test_an_error_of_the_driver_fails_the_job_and_not_the_device():
    driver = BreakingDriver(DeviceIOError("the cable was pulled; plug it in and submit again"))
    with Device(driver) as device:
        job = device.submit(MODEL, LONG)
        with pytest.raises(DeviceIOError, match="plug it in"):
            job.result(10)
        assert job.status is gl.JobStatus.FAILED
        driver.error = None
        assert device.submit(MODEL, SHORT).result(30).n_samples == 20


def test_a_bug_in_the_driver_comes_with_its_cause():
    with Device(BreakingDriver(ZeroDivisionError("bug"))) as device:
        job = device.submit(MODEL, LONG)
        with pytest.raises(JobFailedError, match="ZeroDivisionError") as caught:
            job.result(10)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert isinstance(job.exception(), ZeroDivisionError)


def test_a_worker_that_dies_fails_everything_and_nothing_hangs():
    device = Device(BreakingDriver(SystemExit(3)))
    jobs = [device.submit(MODEL, LONG) for _ in range(3)]
    for job in jobs:
        with pytest.raises(JobFailedError, match="open the device again") as caught:
            job.result(10)
        assert isinstance(caught.value.__cause__, SystemExit)
    with pytest.raises(DeviceClosedError, match="died"):
        device.submit(MODEL, SHORT)
    device.close()


def test_close_drains_or_cancels():
    device = gl.open_device("sim://ideal")
    jobs = [device.submit(MODEL, SHORT) for _ in range(5)]
    device.close(drain=True)
    assert [job.status for job in jobs] == [gl.JobStatus.DONE] * 5
    device = gl.open_device("sim://ideal")
    jobs = [device.submit(MODEL, LONG) for _ in range(3)]
    device.close()
    assert [job.status for job in jobs] == [gl.JobStatus.CANCELLED] * 3


def test_context_manager_drains_unless_there_was_an_error():
    with gl.open_device("sim://ideal") as device:
        job = device.submit(MODEL, SHORT)
    assert job.status is gl.JobStatus.DONE
    with pytest.raises(KeyError), gl.open_device("sim://ideal") as device:
        job = device.submit(MODEL, LONG)
        raise KeyError
    assert job.status is gl.JobStatus.CANCELLED


def test_close_in_a_callback_is_refused_instead_of_hanging():
    device = gl.open_device("sim://ideal")
    seen = []

    def on_done(_):
        try:
            device.close()
        except InvalidModelError as error:
            seen.append(error)

    job = device.submit(MODEL, LONG, budget=gl.Budget(seconds=0.2))
    job.add_done_callback(on_done)
    job.result(30)
    device.close(drain=True)
    assert len(seen) == 1


def test_a_callback_that_raises_harms_nobody(device, caplog):
    after = []
    with caplog.at_level(logging.ERROR):
        job = device.submit(MODEL, LONG, budget=gl.Budget(seconds=0.1))
        job.add_done_callback(lambda _: 1 / 0)
        job.add_done_callback(after.append)
        assert job.result(30).n_samples
        assert device.submit(MODEL, SHORT).result(30).n_samples == 20  # the worker lives
    assert after == [job]
    assert any("done-callback" in record.getMessage() for record in caplog.records)


def test_an_infinite_timeout_waits(device):
    assert device.submit(MODEL, SHORT).result(float("inf")).n_samples == 20


def test_close_with_a_timeout_returns_and_the_job_ends_later():
    driver = GatedDriver()
    device = Device(driver)
    running, waiting = device.submit(MODEL, SHORT), device.submit(MODEL, SHORT)
    with pytest.raises(InvalidModelError, match="timeout"):
        device.close(timeout="soon")
    began = time.monotonic()
    device.close(timeout=0.2)
    assert time.monotonic() - began < 10
    assert waiting.status is gl.JobStatus.CANCELLED
    driver.gate.set()
    assert running.wait(30)


def test_what_the_caller_does_to_his_arrays_after_submit_changes_nothing(gated):
    driver, device = gated
    fields, start = np.array([1.0, 0.0, -1.0]), np.array([1, -1, 1])
    kept = fields.copy()
    job = device.submit(MODEL, SHORT, fields=fields, initial=start, seed=3)
    fields[:], start[:] = np.nan, 0
    driver.gate.set()
    again = device.submit(MODEL, SHORT, fields=kept, initial=[1, -1, 1], seed=3)
    np.testing.assert_array_equal(job.result(30).states, again.result(30).states)


def test_a_refused_job_shifts_no_seed():
    seen = []
    for refused in (False, True):
        with gl.open_device("sim://ideal?seed=8") as device:
            if refused:
                with pytest.raises(InvalidModelError):
                    device.submit(MODEL, SHORT, fields=[1.0])
                with pytest.raises(GlauberError):
                    device.submit(MODEL, SHORT, isa="mmx")
            seen.append(device.submit(MODEL, SHORT).result(30).states)
    np.testing.assert_array_equal(*seen)


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # of JAX, where other tests have loaded it
def test_a_forked_child_is_told_to_open_its_own(device):
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that is what this test is about
        child = os.fork()
    if not child:  # nothing of pytest may run here
        try:
            device.submit(MODEL, SHORT)
        except DeviceClosedError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    message = os.read(read, 10_000).decode()
    os.close(read)
    assert "opened in another process; open it in this one" in message
    assert device.submit(MODEL, SHORT).result(30).n_samples == 20


def test_a_device_that_is_forgotten_in_a_budget_reports_how_far_it_came(device):
    job = device.submit(MODEL, LONG, budget=gl.Budget(sweeps=5000))
    job.result(30)
    assert job.progress.status is gl.JobStatus.DONE
    assert job.progress.sweeps_done == 5000


def test_many_threads_submit_at_once(device):
    results = []

    def work(k):
        results.append((k, device.submit(MODEL, SHORT, seed=k).result(60).states))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 16
    for k, states in results:
        np.testing.assert_array_equal(states, device.submit(MODEL, SHORT, seed=k).result(60).states)


def test_events_go_to_the_standard_logger(device, caplog):
    with caplog.at_level(logging.DEBUG, logger="glauber"):
        job = device.submit(MODEL, SHORT)
        job.result(30)
        device.close(drain=True)
    ended = [record for record in caplog.records if record.getMessage() == "job ended"]
    assert ended
    assert ended[0].job == job.id
    assert ended[0].device == device.address


def test_estimate_counts_what_the_job_then_does():
    with gl.open_device("sim://pbit-king-64") as chip:
        schedule = gl.SamplingSchedule(n_samples=10, n_chains=4, n_warmup=6, sweeps_per_sample=2)
        estimate = chip.estimate(MODEL, schedule)
        samples = chip.submit(MODEL, schedule).result(30)
    assert estimate.updates == 3 * 26 * 4 == samples.energy_report.updates
    assert estimate.energy.joules == samples.energy_report.joules
    rate = chip.spec.costs.sweep_rate_hz.value
    fixed = chip.spec.costs.program_seconds.value + 40 * chip.spec.costs.read_seconds.value
    assert estimate.seconds.value == pytest.approx(26 * 4 / rate + fixed)


def test_a_program_that_stays_loaded_is_written_once_in_the_energy_too():
    with gl.open_device("sim://pbit-king-64?seed=1") as chip:
        first, second = (chip.submit(MODEL, SHORT, seed=1).result(30).energy_report for _ in range(2))
    assert first.parts["program"].joules > second.parts["program"].joules == 0
    assert first.parts["sample"].joules == second.parts["sample"].joules > 0


class LocalService:
    """A JobService on top of a local device: what a lab server looks like from the client's side."""

    def __init__(self) -> None:
        self._device = gl.open_device("sim://ideal?seed=5")
        self._jobs: dict[str, gl.Job] = {}

    @property
    def spec(self):
        return self._device.spec

    def submit(self, request):
        job = self._device.submit_request(request)
        self._jobs[f"remote-{job.id}"] = job
        return f"remote-{job.id}"

    def events(self, job_id, after):
        for number, progress in enumerate(self._jobs[job_id].watch()):
            if number > after:
                yield ServiceEvent(
                    number,
                    progress.status.value,
                    progress.sweeps_done,
                    progress.samples_done,
                    str(self._jobs[job_id].exception()),
                )

    def result(self, job_id):
        return self._jobs[job_id].result(30)

    def cancel(self, job_id):
        self._jobs[job_id].cancel()

    def close(self):
        self._device.close()


class LosingService(LocalService):
    """The connection breaks while the job runs."""

    def events(self, job_id, after):
        yield next(super().events(job_id, after))


class SilentService(LocalService):
    """Nothing is ever reported."""

    def events(self, job_id, after):
        threading.Event().wait(60)
        yield from ()


def test_a_service_that_is_lost_fails_its_jobs():
    with Device(LosingService()) as remote, pytest.raises(DeviceIOError, match="stopped reporting"):
        remote.submit(MODEL, LONG).result(30)


def test_closing_a_silent_service_takes_no_longer_than_asked():
    remote = Device(SilentService())
    job = remote.submit(MODEL, LONG)
    began = time.monotonic()
    remote.close(timeout=0.3)
    assert time.monotonic() - began < 10
    assert not job.wait(0) or job.status is not gl.JobStatus.DONE


def test_a_device_wraps_a_job_service_just_as_well(device):
    with Device(LocalService()) as remote:
        there = remote.submit(MODEL, SHORT, seed=4).result(30)
        here = device.submit(MODEL, SHORT, seed=4).result(30)
        np.testing.assert_array_equal(there.states, here.states)
        job = remote.submit(MODEL, LONG, partial=True)
        while job.progress.samples_done < 2:
            time.sleep(0.001)
        job.cancel()
        assert job.result(30).n_samples >= 2
        assert job.status is gl.JobStatus.CANCELLED
        failing = remote.submit(MODEL, gl.SamplingSchedule(n_warmup=2**40), budget=gl.Budget(seconds=0.05))
        with pytest.raises(JobFailedError, match="before its first sample"):
            failing.result(30)
