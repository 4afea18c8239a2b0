"""Jobs on disk: durable, resumed bit for bit, one end each, and errors with names.

`python tests/sdk/test_store.py` wrote tests/recordings/jobs-v1.sqlite, a store as version 1 of the schema had it; once
there is a version 2 it is never written again.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import glauber as gl
import numpy as np
import pytest
from glauber import keeping, worker
from glauber.errors import (
    DeviceClosedError,
    FileFormatError,
    InvalidModelError,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    ModelNotSupportedError,
    StoreCorruptError,
    StoreError,
)
from glauber.keeping import without_seed
from glauber.store import JobStore
from glauber.store.compare import compare_results, difference
from glauber.store.database import MIGRATIONS, Database
from glauber.store.transfer import export_job, import_job
from glauber.store.upkeep import check_store, collect_garbage

VERSION_1 = Path(__file__).parent.parent / "recordings" / "jobs-v1.sqlite"


def ring(n=64):
    return gl.IsingModel.from_edges([(i, (i + 1) % n, 1.0 if i % 3 else -1.0) for i in range(n)], {0: 0.5})


SHORT = gl.SamplingSchedule(n_samples=5, n_chains=2)


def long(seconds=1.0):
    """About so many seconds on this computer; many batches."""
    return gl.SamplingSchedule(n_samples=60, n_chains=64, n_warmup=100, sweeps_per_sample=int(12_000 * seconds))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "jobs.sqlite"


@pytest.fixture
def store(path):
    with JobStore(path) as opened:
        yield opened


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(keeping, "PART_SECONDS", 0.01)


def run_alone(model, schedule, address="sim://ideal", **arguments):
    with gl.open_device(address) as device:
        return device.submit(model, schedule, **arguments).result(60)


def begun(job, samples=0):
    end = time.monotonic() + 30
    while not (job.progress.sweeps_done and job.progress.samples_done >= samples):
        assert not job.done(), job
        assert time.monotonic() < end
        time.sleep(0.002)


# Durable


def test_a_job_is_on_the_disk_before_submit_returns(path):
    with gl.open_device("sim://ideal", store=path) as device, sqlite3.connect(path) as other:
        job = device.submit(ring(), SHORT, seed=3, priority=2)
        assert other.execute("SELECT count(*) FROM job WHERE id = ?", (job.id,)).fetchone() == (1,)
        result = job.result(10)
        stored = device.store.result(job.id)  # in the store before the handle says done
        assert compare_results(result, stored) == "identical"
        assert np.array_equal(result.energies, stored.energies)
        record = device.store.get(job.id)
    other.close()
    assert (record.status, record.seed, record.priority, record.device) == (gl.JobStatus.DONE, 3, 2, "sim://ideal")
    assert (record.n_sites, record.n_chains, record.sweeps_done, record.samples_done) == (64, 2, 5, 5)
    assert record.spec_hash == result.provenance.spec_hash
    assert record.versions["glauber"] == gl.__version__


def test_the_stored_request_is_the_one_that_was_run(store):
    model = gl.PottsModel(np.zeros((3, 4)), np.array([[0, 1], [1, 2]]), np.ones(2))
    asked = {"clamp": {0: 2}, "fields": np.ones((3, 4)), "initial": [2, 1, 0], "budget": gl.Budget(sweeps=4)}
    with gl.open_device("sim://ideal?seed=9", store=store) as device:
        job = device.submit(model, SHORT, observe={"last", "samples"}, **asked)
        job.result(10)
    request = store.request(job.id)
    assert request.seed == job.seed
    assert request.key == replace(job.request, seed=job.seed).key
    assert store.get(job.id).stopped_by == "sweeps"
    with gl.open_device("sim://ideal", store=store) as device:
        again = device.submit_request(request).result(10)
    assert compare_results(store.result(job.id), again) == "identical"


def test_jobs_share_their_model(store):
    with gl.open_device("sim://ideal", store=store) as device:
        for seed in range(5):
            device.submit(ring(), SHORT, seed=seed).result(10)
    digests = {record.model_digest for record in store.jobs()}
    assert len(digests) == 1
    assert len(store.jobs(limit=3)) == 3
    assert [record.seed for record in store.jobs(before=store.jobs(limit=3)[-1].number)] == [1, 0]


def test_the_address_of_a_stored_device_has_no_seed():
    assert without_seed("sim://ideal?seed=7") == "sim://ideal"
    assert without_seed("sim://z1?width=24&seed=7&height=24") == "sim://z1?width=24&height=24"
    assert without_seed("serial:///dev/ttyACM0?seed=1") == "serial:///dev/ttyACM0"
    assert without_seed("opened by hand") == "opened by hand"


def test_a_refused_job_is_not_stored(store):
    with gl.open_device("sim://pbit-king-64", store=store) as device:
        with pytest.raises(ModelNotSupportedError):
            device.submit(ring(5000), SHORT)
        with pytest.raises(InvalidModelError):
            device.submit(ring(), SHORT, seed=-1)
    assert store.jobs() == []


def test_the_history_cannot_be_rewritten_and_has_one_end(store):
    with gl.open_device("sim://ideal", store=store) as device:
        job_id = device.submit(ring(), SHORT).id
        device.close(drain=True)
    assert [event.status for event in store.events(job_id)] == ["queued", "running", "done"]
    assert [event.status for event in store.events(job_id, after=1)] == ["done"]
    with sqlite3.connect(store.path) as other:
        for statement in ("UPDATE event SET status = 'failed'", "UPDATE job SET owner = 'x'"):
            with pytest.raises(sqlite3.IntegrityError):
                other.execute(statement)
        with pytest.raises(sqlite3.IntegrityError):
            other.execute("INSERT INTO event SELECT job, 99, at, 'failed', facts, checksum FROM event")
    other.close()


def test_a_job_that_fails_is_stored_with_its_error(store, monkeypatch):
    from glauber_simulator.driver import SimulatorDriver

    def broken(self, run):
        raise RuntimeError("smoke")

    monkeypatch.setattr(SimulatorDriver, "run", broken)
    with gl.open_device("sim://ideal", store=store) as device:
        job = device.submit(ring(), SHORT)
        assert job.wait(10)
    record = store.get(job.id)
    assert (record.status, record.error, record.message) == (gl.JobStatus.FAILED, "RuntimeError", "smoke")
    with pytest.raises(JobFailedError, match="RuntimeError: smoke"):
        gl.get_job(job.id, store=store).result(5)
    with pytest.raises(JobNotFoundError, match="failed and has no result"):
        store.result(job.id)


# Going on

KINDS = {
    "samples": (ring(), long(), {"observe": {"samples"}}),
    "moments and energies": (ring(), long(), {"observe": {"moments", "energies"}}),
    "tempering": (ring(), gl.TemperingSchedule(n_samples=6000, betas=(0.2, 0.5, 1.0), n_ladders=8), {}),
    "population": (
        ring(),
        gl.PopulationSchedule(betas=tuple(np.linspace(0, 1, 40)), sweeps_per_step=400, n_chains=256),
        {"observe": {"last"}},
    ),
    "annealing": (ring(), gl.AnnealingSchedule(n_sweeps=300_000, n_chains=64), {"observe": {"last"}}),
    "asynchronous": (ring(), gl.AsynchronousSchedule(n_samples=20_000, n_chains=4, delay=0.2), {}),
    "p-dits": (
        gl.PottsModel(np.zeros((30, 3)), np.array([(i, i + 1) for i in range(29)]), np.full(29, 0.7)),
        gl.SamplingSchedule(n_samples=400, n_chains=16, sweeps_per_sample=100),
        {"observe": {"samples", "moments"}, "fields": np.linspace(0, 1, 90).reshape(30, 3)},
    ),
    "clamped, own fields": (
        ring(),
        gl.SamplingSchedule(n_samples=60, n_chains=64, sweeps_per_sample=4000),
        {"clamp": {3: -1}, "fields": np.linspace(-1, 1, 64 * 64).reshape(64, 64), "observe": {"samples", "moments"}},
    ),
}


LONGER = ("moments and energies", "annealing", "clamped, own fields", "asynchronous")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONGER else name for name in KINDS]
)
def test_a_job_that_stopped_goes_on_bit_for_bit(name, store, often):
    model, schedule, arguments = KINDS[name]
    whole = run_alone(model, schedule, seed=5, **arguments)
    stops = 0
    device = gl.open_device("sim://ideal", store=store)
    job = device.submit(model, schedule, seed=5, **arguments)
    for _ in range(3):
        handle = device.job(job.id)
        if handle is None:
            break
        begun(handle)
        device.close(requeue=True)
        if handle.status is gl.JobStatus.FAILED:
            stops += 1
            with pytest.raises(DeviceClosedError, match=r"get_job\(id\)"):
                handle.result(0)
        device = gl.open_device("sim://ideal", store=store)
    device.close(drain=True)
    assert stops, "the job was too short to be stopped"
    again = store.result(job.id)
    assert compare_results(whole, again) == "identical"
    assert whole.n_samples == again.n_samples
    assert again.provenance.n_sweeps == schedule.n_sweeps
    assert "went on later" in again.energy_report.not_measured
    if again.population is not None:
        assert np.array_equal(again.population.families, whole.population.families)
    assert store.database.read("SELECT count(*) FROM part") == [(0,)]
    assert check_store(store).damage == ()


def test_an_embedded_job_goes_on(store, often):
    model = gl.IsingModel.from_edges([(i, j, 0.3) for i in range(6) for j in range(i)])
    schedule = gl.SamplingSchedule(n_samples=40, n_chains=40, sweeps_per_sample=4000)
    arguments = {"seed": 1, "embed": True, "observe": {"samples", "moments"}}
    whole = run_alone(model, schedule, "sim://pbit-king-64", **arguments)
    device = gl.open_device("sim://pbit-king-64", store=store)
    job = device.submit(model, schedule, **arguments)
    begun(job, samples=1)
    device.close(requeue=True)
    with gl.open_device("sim://pbit-king-64", store=store) as device:
        again = device.job(job.id).result(60)
    assert compare_results(whole, again) == "identical"
    assert again.provenance.embedding == whole.provenance.embedding


CRASHING = """
import sys, glauber as gl, numpy as np
from glauber import keeping, worker
keeping.PART_SECONDS = 0.01
model = gl.IsingModel.from_edges([(i, (i + 1) % 64, 1.0 if i % 3 else -1.0) for i in range(64)], {0: 0.5})
long = gl.SamplingSchedule(n_samples=60, n_chains=64, n_warmup=100, sweeps_per_sample=24_000)
device = gl.open_device("sim://ideal", store=sys.argv[1])
jobs = [device.submit(model, long, seed=5), device.submit(model, gl.SamplingSchedule(n_samples=5, n_chains=2), seed=6)]
while not device.store.get(jobs[0].id).samples_done:
    pass
print(*(job.id for job in jobs), flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_left_is_run_by_the_next(path):
    child = subprocess.Popen(
        [sys.executable, "-c", CRASHING, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        running, queued = child.stdout.readline().split()
        with JobStore(path) as store, gl.open_device("sim://ideal", store=store) as device:
            assert device.queued == []  # its process lives: nothing is taken from it
        child.kill()
    with JobStore(path) as store, gl.open_device("sim://ideal", store=store) as device:
        assert {job.id for job in [*device.queued, device.running] if job} <= {running, queued}
        handle = device.job(running)
        result, second = handle.result(60), gl.get_job(queued, store=store).result(60)
        assert [event.status for event in store.events(running)] == ["queued", "running", "queued", "running", "done"]
        assert store.events(running)[2].sweeps_done > 0
    schedule = gl.SamplingSchedule(n_samples=60, n_chains=64, n_warmup=100, sweeps_per_sample=24_000)
    assert compare_results(result, run_alone(ring(), schedule, seed=5)) == "identical"
    assert compare_results(second, run_alone(ring(), SHORT, seed=6)) == "identical"


def test_a_job_whose_device_is_another_one_now_runs_from_its_start(store, often):
    device = gl.open_device("sim://ideal", store=store)
    job = device.submit(ring(), long(), seed=5)
    begun(job, samples=2)
    device.close(requeue=True)
    assert store.get(job.id).samples_done >= 1
    with sqlite3.connect(store.path) as other:
        other.execute("DROP TRIGGER jobs_do_not_change")
        other.execute("UPDATE job SET spec_hash = 'another'")
    other.close()
    from glauber.store.database import checksum_of

    with store.database.write() as connection:
        row = connection.execute(
            "SELECT id, owner, idempotency_key, device, request_key, spec_hash, facts FROM job"
        ).fetchone()
        connection.execute("UPDATE job SET checksum = ?", (checksum_of(*row),))
    with gl.open_device("sim://ideal", store=store) as device:
        result = device.job(job.id).result(60)
    assert result.energy_report.not_measured == ""  # it did not go on, it began anew
    assert compare_results(result, run_alone(ring(), long(), seed=5)) == "identical"


def test_an_orphan_that_the_device_cannot_run_any_more_fails_with_the_reason(store, often):
    device = gl.open_device("sim://ideal", store=store)
    first = device.submit(ring(), long(), seed=5)
    second = device.submit(ring(100), SHORT, seed=6)
    begun(first)
    device.close(requeue=True)
    with store.database.write() as connection:
        connection.execute("DELETE FROM object WHERE digest = ?", (store.get(second.id).model_digest,))
    with gl.open_device("sim://ideal", store=store) as device:
        assert device.job(second.id) is None
        assert device.job(first.id).result(60).n_samples == 60
    record = store.get(second.id)
    assert (record.status, record.error) == (gl.JobStatus.FAILED, "StoreCorruptError")
    assert "the model of job" in record.message


def test_a_damaged_part_is_not_used(store, often):
    device = gl.open_device("sim://ideal", store=store)
    job = device.submit(ring(), long(), seed=5)
    begun(job, samples=3)
    device.close(requeue=True)
    with store.database.write() as connection:
        connection.execute("UPDATE object SET data = data || x'00' WHERE digest = (SELECT digest FROM part LIMIT 1)")
    assert any("part" in line for line in check_store(store).damage)
    with gl.open_device("sim://ideal", store=store) as device:
        result = device.job(job.id).result(60)
    assert compare_results(result, run_alone(ring(), long(), seed=5)) == "identical"


def test_a_budget_of_seconds_counts_what_was_spent_before(store, often):
    schedule = gl.SamplingSchedule(n_samples=10**6, n_chains=64, sweeps_per_sample=1000)
    device = gl.open_device("sim://ideal", store=store)
    job = device.submit(ring(), schedule, budget=gl.Budget(seconds=1.0))
    time.sleep(0.6)
    device.close(requeue=True)
    began = time.monotonic()
    with gl.open_device("sim://ideal", store=store) as device:
        result = device.job(job.id).result(30)
    assert time.monotonic() - began < 0.9
    assert result.provenance.stopped_by == "seconds"


# Asking twice


def test_an_idempotency_key_names_one_job(store):
    def asked(schedule=SHORT, key="k", owner="ann", **arguments):
        return gl.JobRequest(ring(), schedule, idempotency_key=key, owner=owner, **arguments)

    with gl.open_device("sim://ideal", store=store) as device:
        first = device.submit_request(asked())  # no seed: the second request has another derived one, and is the same
        assert device.submit_request(asked()).id == first.id
        first.result(10)
        after = device.submit_request(asked())
        assert after.id == first.id
        assert compare_results(after.result(5), first.result()) == "identical"
        with pytest.raises(InvalidModelError, match="used for another request"):
            device.submit_request(asked(long()))
        assert device.submit_request(asked(owner="bob")).id != first.id
        device.close(drain=True)
    with gl.open_device("sim://ideal?body=reference", store=store) as device, pytest.raises(InvalidModelError):
        device.submit_request(asked())  # on another device it is another job
    assert len(store.jobs()) == 2


def test_reuse_answers_from_the_store(store):
    with gl.open_device("sim://ideal", store=store) as device:
        first = device.submit(ring(), SHORT, seed=4)
        first.result(10)
        request = gl.JobRequest(ring(), SHORT, seed=4, reuse=True, threads=1)
        again = device.submit_request(request)
        assert again.id == first.id
        assert device.submit(ring(), SHORT, seed=4, reuse=True).id == first.id
        keyed = device.submit(ring(), SHORT, idempotency_key="once", owner="ann")
        assert device.submit(ring(), SHORT, idempotency_key="once", owner="ann").id == keyed.id
        assert compare_results(again.result(5), first.result()) == "identical"
        other = device.submit_request(replace(request, seed=5))
        assert other.id != first.id
        other.result(10)
        short = gl.JobRequest(ring(), long(10), seed=8, budget=gl.Budget(seconds=0.5), reuse=True)
        stopped = device.submit_request(short)
        assert stopped.result(20).provenance.stopped_by == "seconds"
        assert device.submit_request(short).id != stopped.id  # how far it came was chance
    with pytest.raises(InvalidModelError, match="reuse needs a seed"):
        gl.JobRequest(ring(), SHORT, reuse=True)


# The queue


def test_the_queue_is_fair_between_owners(store):
    order = []
    with gl.open_device("sim://ideal", store=store) as device:
        block = device.submit_request(gl.JobRequest(ring(), long(0.3), owner="ann"))
        begun(block)
        jobs = []
        for k in range(4):
            jobs.append(device.submit_request(gl.JobRequest(ring(), long(0.1), owner="ann", seed=k)))
        for owner, priority in (("bob", 0), ("bob", 0), ("cid", 1)):
            jobs.append(device.submit_request(gl.JobRequest(ring(), long(0.1), owner=owner, priority=priority)))
        for job in jobs:
            job.add_done_callback(lambda job: order.append(job.owner))
        assert len(device.queued) == 7
        assert device.queued[0].owner == "cid"
        gl.wait(jobs)
    assert order[0] == "cid"
    assert order[1:5] in (["bob", "ann", "bob", "ann"], ["bob", "bob", "ann", "ann"], ["ann", "bob", "ann", "bob"])


def test_hold_lets_one_owner_only_and_others_make_way(store, often):
    schedule = long(1.5)
    with gl.open_device("sim://ideal", store=store) as device:
        job = device.submit_request(gl.JobRequest(ring(), schedule, owner="ann", seed=2))
        begun(job, samples=1)
        device.hold("lab")
        end = time.monotonic() + 10
        while device.running is not None and time.monotonic() < end:
            time.sleep(0.01)
        assert (job.status, device.running) == (gl.JobStatus.QUEUED, None)
        assert device.submit_request(gl.JobRequest(ring(), SHORT, owner="lab")).result(10).n_samples == 5
        assert job.status is gl.JobStatus.QUEUED
        device.hold(None)
        assert compare_results(job.result(60), run_alone(ring(), schedule, seed=2)) == "identical"
        assert "reserved" in store.events(job.id)[2].message
    with gl.open_device("sim://ideal") as device, pytest.raises(InvalidModelError, match="store=True"):
        device.hold("lab")


def test_close_with_requeue_needs_a_store():
    with gl.open_device("sim://ideal") as device:
        with pytest.raises(InvalidModelError, match="needs a store"):
            device.close(requeue=True)
        assert device.submit(ring(), SHORT).result(10).n_samples == 5


def test_partial_results(store, often):
    with gl.open_device("sim://ideal", store=store) as device:
        job = device.submit(ring(), long(2), seed=1, observe={"samples", "moments"})
        begun(job, samples=3)
        time.sleep(0.1)
        part = device.partial_result(job.id)
        assert 1 <= part.n_samples < 60
        assert np.array_equal(part.moments.sites, part.spins.sum(axis=1))
        whole = job.result(60)
        assert np.array_equal(whole.spins[:, : part.n_samples], part.spins)
        assert device.partial_result(job.id).n_samples == 60
        with pytest.raises(JobNotFoundError):
            device.partial_result("nothing")
    with gl.open_device("sim://ideal") as device, pytest.raises(InvalidModelError):
        device.partial_result(job.id)


# From another process


def test_a_cancel_reaches_the_process_that_runs(path, often):
    with JobStore(path) as ours, JobStore(path) as theirs, gl.open_device("sim://ideal", store=ours) as device:
        running = device.submit(ring(), long(20), partial=True)
        queued = device.submit(ring(), SHORT)
        begun(running, samples=1)
        followed = gl.get_job(running.id, store=theirs)
        assert followed.status is gl.JobStatus.RUNNING
        gl.get_job(queued.id, store=theirs).cancel()
        assert queued.wait(5)
        assert queued.status is gl.JobStatus.CANCELLED
        assert theirs.ask_to_cancel(queued.id) is False
        followed.cancel()
        assert running.wait(5)
        assert followed.wait(5)
        assert followed.result().n_samples == running.result().n_samples >= 1
        with pytest.raises(JobCancelledError):
            gl.get_job(queued.id, store=theirs).result(1)


def test_watching_from_another_process(path, often):
    with JobStore(path) as ours, JobStore(path) as theirs, gl.open_device("sim://ideal", store=ours) as device:
        job = device.submit(ring(), long(1))
        seen = [progress.sweeps_done for progress in gl.get_job(job.id, store=theirs).watch()]
    assert seen == sorted(seen)
    assert seen[-1] == long(1).n_sweeps
    assert len(set(seen)) > 2


def test_cancelling_what_nobody_runs(store, often):
    device = gl.open_device("sim://ideal", store=store)
    job = device.submit(ring(), long(), seed=5)
    begun(job)
    device.close(requeue=True)
    assert store.ask_to_cancel(job.id)
    assert store.get(job.id).status is gl.JobStatus.CANCELLED
    with gl.open_device("sim://ideal", store=store) as device:
        assert device.job(job.id) is None


def test_unknown_ids(store):
    for ask in (store.get, store.request, store.result, store.ask_to_cancel, store.spec_json):
        with pytest.raises(JobNotFoundError, match="no job nothing"):
            ask("nothing")
    assert store.events("nothing") == []
    with pytest.raises(JobNotFoundError):
        gl.get_job("nothing", store=store)


def test_two_processes_never_run_one_job(path, often):
    with JobStore(path) as one, JobStore(path) as two, gl.open_device("sim://ideal", store=one) as device:
        job = device.submit(ring(), long(0.5))
        begun(job)
        assert two.adopt("sim://ideal") == []
        with pytest.raises(StoreError, match="another process has it"):
            two.start(job.id)
        job.result(30)


def test_a_fork_may_not_use_the_store_and_leaves_the_lock_alone(path):
    with JobStore(path) as store:
        runner = store.runner
        child = os.fork()
        if child == 0:
            code = 1
            try:
                store.jobs()
            except StoreError:
                code = 0
            os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        from glauber.store.runners import is_alive

        assert is_alive(path.with_name(path.name + ".runners"), runner)
    assert not is_alive(path.with_name(path.name + ".runners"), runner)


def test_many_threads_submit(store):
    with gl.open_device("sim://ideal", store=store) as device:
        jobs = []

        def some(first):
            jobs.extend(device.submit(ring(), SHORT, seed=first + k) for k in range(20))

        threads = [threading.Thread(target=some, args=(100 * k,)) for k in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        gl.wait(jobs, 60)
    assert len({record.id for record in store.jobs(status=gl.JobStatus.DONE, limit=1000)}) == 120


# Things that go wrong


def test_a_full_disk_is_a_typed_error_and_costs_nothing_that_was_accepted(store):
    with gl.open_device("sim://ideal", store=store) as device:
        first = device.submit(ring(), SHORT, seed=1)
        first.result(10)
        pages = store.database.read("PRAGMA page_count")[0][0]
        store.database.limit_pages(pages + 1)
        big = gl.IsingModel(np.random.default_rng(0).normal(size=20_000), np.zeros((0, 2), int), np.zeros(0))
        with pytest.raises(StoreError, match=r"is full; nothing was changed"):
            device.submit(big, SHORT)
        store.database.limit_pages(2**30)
        assert device.submit(big, SHORT).result(10).n_samples == 5
    assert check_store(store).damage == ()


def test_a_result_that_cannot_be_stored_is_said_and_drawn_again(store):
    device = gl.open_device("sim://ideal", store=store)
    wide = gl.SamplingSchedule(n_samples=4000, n_chains=64)
    job = device.submit(ring(), wide, seed=1)
    store.database.limit_pages(store.database.read("PRAGMA page_count")[0][0])
    with pytest.raises(StoreError, match="could not be stored"):
        job.result(10)
    store.database.limit_pages(2**30)
    device.close()
    with gl.open_device("sim://ideal", store=store) as device:
        assert compare_results(device.job(job.id).result(10), run_alone(ring(), wide, seed=1)) == "identical"


def test_a_job_that_had_drawn_everything_leaves_no_other_program_behind(store, monkeypatch):
    """It needs no run any more, but the next job of the same program does, on whatever the machine holds then."""
    monkeypatch.setattr(keeping, "PART_SECONDS", 0.0)
    device = gl.open_device("sim://ideal", store=store)
    whole = gl.SamplingSchedule(n_samples=2000, n_chains=64)
    first = device.submit(ring(), whole, seed=1)
    monkeypatch.setattr(JobStore, "finish", _full)
    with pytest.raises(StoreError, match="could not be stored"):
        first.result(10)
    monkeypatch.undo()
    assert store.get(first.id).sweeps_done == 2000  # all of it is in parts
    device.close()
    with gl.open_device("sim://ideal", store=store) as device:
        second = device.submit(ring(), whole, seed=2)
        assert compare_results(second.result(10), run_alone(ring(), whole, seed=2)) == "identical"
        assert compare_results(store.result(first.id), run_alone(ring(), whole, seed=1)) == "identical"


def _full(*arguments, **named):
    raise StoreError("the disk is full")


def test_a_job_that_cannot_begin_stays_in_the_store(store, monkeypatch):
    device = gl.open_device("sim://ideal", store=store)
    monkeypatch.setattr(JobStore, "start", _full)
    job = device.submit(ring(), SHORT, seed=1)
    with pytest.raises(StoreError, match="stays in the store"):
        job.result(10)
    monkeypatch.undo()
    assert store.get(job.id).status is gl.JobStatus.QUEUED
    device.close()
    with gl.open_device("sim://ideal", store=store) as device:
        assert compare_results(device.job(job.id).result(10), run_alone(ring(), SHORT, seed=1)) == "identical"


def eventually(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("what", ["start", "finish"])
def test_a_store_that_fails_for_a_moment_costs_no_job(what, store, monkeypatch):
    monkeypatch.setattr(worker, "RETRY_SECONDS", (0.05, 0.2))
    with gl.open_device("sim://ideal", store=store) as device:
        with monkeypatch.context() as broken:
            broken.setattr(JobStore, what, _full)
            job = device.submit(ring(), SHORT, seed=1)
            with pytest.raises(StoreError, match=r"runs (again )?when the store works"):
                job.result(10)
        eventually(lambda: store.get(job.id).status is gl.JobStatus.DONE)  # and nobody had to open anything again
        with monkeypatch.context() as broken:
            broken.setattr(JobStore, what, _full)
            second = device.submit(ring(), long(5), seed=2)
            if what == "finish":
                second.cancel()
            second.wait(10)
        store.ask_to_cancel(second.id)
        eventually(lambda: store.get(second.id).status is gl.JobStatus.CANCELLED)
    assert compare_results(store.result(job.id), run_alone(ring(), SHORT, seed=1)) == "identical"


def test_two_devices_of_one_store_leave_each_others_jobs_alone(store, often):
    with gl.open_device("sim://ideal?seed=1", store=store) as one:
        job = one.submit(ring(), long(1), seed=5)
        queued = one.submit(ring(), SHORT, seed=6)
        begun(job)
        for _ in range(2):
            gl.open_device("sim://ideal?seed=2", store=store).close()
        with JobStore(store.path) as another:
            assert another.adopt("sim://ideal") == []
        assert job.result(30).n_samples == 60
        assert queued.result(30).n_samples == 5


def test_one_damaged_row_hides_nothing_else(store):
    with gl.open_device("sim://ideal", store=store) as device:
        ids = [device.submit(ring(), SHORT, seed=seed).id for seed in range(3)]
        device.close(drain=True)
    with store.database.write() as connection:
        connection.execute("DROP TRIGGER jobs_do_not_change")
        connection.execute("UPDATE job SET owner = 'mallory' WHERE id = ?", ids[1:2])
    assert [record.id for record in store.jobs()] == [ids[2], ids[0]]
    with gl.open_device("sim://ideal", store=store) as device:
        assert device.submit(ring(), SHORT).result(10).n_samples == 5


def test_who_cannot_be_asked_is_not_declared_dead(store, monkeypatch):
    from glauber.store import runners

    folder, runner = store.path.with_name(store.path.name + ".runners"), store.runner

    def none_left(*arguments):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as poor:
        poor.setattr(runners.os, "open", none_left)
        assert runners.is_alive(folder, runner)
    assert runners.is_alive(folder, runner)
    assert not runners.is_alive(folder, "nobody")


def test_a_job_that_is_waiting_again_has_a_clock_that_stands_still(store, often):
    with gl.open_device("sim://ideal", store=store) as device:
        job = device.submit_request(gl.JobRequest(ring(), long(3), owner="ann", seed=2))
        begun(job, samples=1)
        device.hold("lab")
        eventually(lambda: device.running is None and job.status is gl.JobStatus.QUEUED)
        before = job.progress.seconds
        time.sleep(0.3)
        assert job.progress.seconds == before
        device.hold(None)
        eventually(lambda: job.progress.seconds > before)
        assert job.progress.seconds < before + 1.0
        job.cancel()
        assert job.wait(10)
    assert store.get(job.id).joules_uncertainty is None  # sim://ideal has no figures of joules


def test_a_cancelled_job_has_cost_what_it_drew(store, often):
    with gl.open_device("sim://pbit-king-64", store=store) as device:
        pair = gl.IsingModel.from_edges([(0, 1, 0.5)])
        job = device.submit(pair, gl.SamplingSchedule(n_samples=10**6, n_chains=64, sweeps_per_sample=10))
        begun(job, samples=1)
        job.cancel()
        job.wait(10)
    record = store.get(job.id)
    assert record.sweeps_done > 0
    assert record.seconds > 0
    with pytest.raises(JobNotFoundError):
        store.result(job.id)


def test_a_cancel_that_reached_nobody_may_be_repeated():
    asked = []

    def refuse(job):
        asked.append(job)
        if len(asked) == 1:
            raise StoreError("locked")

    job = gl.Job("x", gl.JobRequest(ring()), 0, refuse)
    with pytest.raises(StoreError):
        job.cancel()
    job.cancel()
    assert len(asked) == 2


def test_reuse_is_for_ones_own_jobs(store):
    with gl.open_device("sim://ideal", store=store) as device:
        mine = device.submit_request(gl.JobRequest(ring(), SHORT, seed=4, owner="ann"))
        mine.result(10)
        theirs = device.submit_request(gl.JobRequest(ring(), SHORT, seed=4, owner="bob", reuse=True))
        assert theirs.id != mine.id
        assert device.submit_request(gl.JobRequest(ring(), SHORT, seed=4, owner="ann", reuse=True)).id == mine.id


def test_rubbish_and_newer_files_are_refused(tmp_path):
    rubbish = tmp_path / "rubbish.sqlite"
    rubbish.write_bytes(b"not a database at all" * 400)
    with pytest.raises(StoreCorruptError, match="damaged"):
        JobStore(rubbish)
    newer = tmp_path / "newer.sqlite"
    JobStore(newer).close()
    with sqlite3.connect(newer) as other:
        other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(StoreError, match="version 99"):
        JobStore(newer)
    with pytest.raises(StoreError, match="folder"):
        JobStore(rubbish / "below" / "jobs.sqlite")
    with pytest.raises(StoreError, match="cannot be opened"):
        JobStore(tmp_path)
    with pytest.raises(StoreError):
        gl.open_device("sim://ideal", store=rubbish)


def test_a_changed_record_or_object_is_noticed(store):
    with gl.open_device("sim://ideal", store=store) as device:
        ids = [device.submit(ring(), SHORT, seed=seed).id for seed in range(3)]
        device.close(drain=True)
    assert check_store(store).damage == ()
    with store.database.write() as connection:
        connection.execute("DROP TRIGGER jobs_do_not_change")
        connection.execute(
            "UPDATE job SET facts = replace(facts, '\"n_chains\": 2', '\"n_chains\": 3') WHERE id = ?", ids[:1]
        )
        connection.execute(
            "UPDATE object SET data = zeroblob(length(data)) WHERE digest = (SELECT result FROM state JOIN job ON"
            " job = number WHERE id = ?)",
            ids[1:2],
        )
    with pytest.raises(StoreCorruptError, match=ids[0]):
        store.get(ids[0])
    with pytest.raises(StoreCorruptError, match=ids[1]):
        store.result(ids[1])
    assert store.result(ids[2]).n_samples == 5
    damage = check_store(store).damage
    assert any(ids[0] in line for line in damage)
    assert any(ids[1] in line for line in damage)


def test_times_never_go_back(path):
    now = [1000.0]
    with JobStore(path, clock=lambda: now[0]) as store, gl.open_device("sim://ideal", store=store) as device:
        for at in (1000.0, 500.0, 1500.0, 20.0):
            now[0] = at
            device.submit(ring(), SHORT, seed=int(at)).result(10)
        records = store.jobs()[::-1]
        assert [record.created for record in records] == [1000.0, 1000.0, 1500.0, 1500.0]
        assert [record.seed for record in records] == [1000, 500, 1500, 20]


def test_usage_by_owner_device_and_day(path):
    now = [86400.0 * 20000]
    with JobStore(path, clock=lambda: now[0]) as store:
        with gl.open_device("sim://pbit-king-64?seed=1", store=store) as device:
            pair = gl.IsingModel.from_edges([(0, 1, 0.5)])
            for owner, days in (("ann", 0), ("ann", 0), ("bob", 0), ("ann", 1)):
                now[0] = 86400.0 * (20000 + days) + 5
                device.submit_request(gl.JobRequest(pair, SHORT, owner=owner)).result(10)
        found = store.usage()
        assert [(each.owner, each.day, each.jobs) for each in found] == [
            ("ann", "2024-10-04", 2),
            ("bob", "2024-10-04", 1),
            ("ann", "2024-10-05", 1),
        ]
        assert {each.device for each in found} == {"sim://pbit-king-64"}
        assert [each.owner for each in store.usage(since=86400.0 * 20001)] == ["ann"]
        assert len(store.usage(owner="bob")) == 1
        assert store.usage(device="sim://ideal") == []
        records = store.jobs(owner="ann")
        total = sum(record.seconds for record in records if record.created < 86400.0 * 20001)
        assert found[0].seconds == pytest.approx(total)
        known = [record.joules for record in records[1:]]
        assert found[0].joules == (None if None in known else pytest.approx(sum(known)))


# Care


def test_a_job_travels_as_a_file(path, tmp_path):
    file, other = tmp_path / "job.npz", tmp_path / "other.sqlite"
    with JobStore(path) as store, gl.open_device("sim://ideal", store=store) as device:
        job = device.submit(ring(), SHORT, seed=3)
        whole = job.result(10)
        export_job(store, job.id, file)
        waiting = device.submit(ring(), long(5))
        with pytest.raises(InvalidModelError, match="export it when it has ended"):
            export_job(store, waiting.id, file)
        waiting.cancel()
        record = store.get(job.id)
    with JobStore(other) as store:
        assert import_job(store, file) == job.id
        assert import_job(store, file) == job.id
        assert len(store.jobs()) == 1
        assert compare_results(store.result(job.id), whole) == "identical"
        got = store.get(job.id)
        assert (got.seed, got.owner, got.status, got.ended) == (record.seed, record.owner, record.status, record.ended)
        assert got.request_key == record.request_key
        assert [event.status for event in store.events(job.id)] == ["queued", "running", "done"]
        assert check_store(store).damage == ()
        content = file.read_bytes()
        for wrong in (b"", b"PK", content[:-30], ring_file(tmp_path)):
            file.write_bytes(wrong)
            with pytest.raises(FileFormatError):
                import_job(store, file)


def ring_file(folder):
    gl.write_model(ring(), folder / "ring.npz")
    return (folder / "ring.npz").read_bytes()


def test_garbage(store, often):
    with gl.open_device("sim://ideal", store=store) as device:
        old = [device.submit(ring(), SHORT, seed=seed).id for seed in range(3)]
        other = device.submit(ring(30), SHORT, seed=9).id
        device.submit(ring(), SHORT).result(10)
        running = device.submit(ring(), long(1))
        begun(running)
        found = collect_garbage(store, older_than_seconds=0, dry_run=True)
        assert {*old, other} <= set(found.jobs)
        assert len(store.jobs()) == 6
        assert collect_garbage(store, older_than_seconds=3600).jobs == ()
        found = collect_garbage(store, older_than_seconds=0)
        assert found.objects >= 5  # results, and the other model
        assert [record.id for record in store.jobs()] == [running.id]
        assert running.result(30).n_samples == 60
    assert store.request(running.id).model.key == ring().key
    assert check_store(store).damage == ()
    with pytest.raises(InvalidModelError):
        collect_garbage(store, older_than_seconds=-1)
    with pytest.raises(InvalidModelError):
        collect_garbage(store, older_than_seconds=0, status=[gl.JobStatus.RUNNING])


def test_differences(store):
    with gl.open_device("sim://ideal", store=store) as device:
        one, same, other = (device.submit(ring(), SHORT, seed=seed) for seed in (1, 1, 2))
        potts = device.submit(gl.PottsModel(np.zeros((3, 2)), np.array([[0, 1]]), np.ones(1)), SHORT, seed=1)
        moments = device.submit(ring(), SHORT, seed=1, observe={"moments"})
        gl.wait([one, same, other, potts, moments])
        stopped = device.submit(ring(), long(5))
        stopped.cancel()
        stopped.wait(5)
    assert difference(store, one.id, same.id) == {"results": "identical"}
    found = difference(store, one.id, other.id)
    assert found["seed"] == [1, 2]
    assert found["results"].startswith("differ: samples, first at chain 0")
    assert "different models" in difference(store, one.id, potts.id)["results"]
    assert "only one has samples" in difference(store, one.id, moments.id)["results"]
    assert "nothing to compare" in difference(store, one.id, stopped.id)["results"]


# Versions of the schema


def test_a_store_of_version_1_opens_and_goes_on(tmp_path):
    path = tmp_path / "jobs.sqlite"
    shutil.copy(VERSION_1, path)
    with JobStore(path) as store:
        records = {record.seed: record for record in store.jobs()}
        assert [records[seed].status.value for seed in (1, 2, 3, 4)] == ["done", "cancelled", "running", "queued"]
        assert compare_results(store.result(records[1].id), run_alone(ring(), SHORT, seed=1)) == "identical"
        assert records[3].samples_done > 0
        assert check_store(store).damage == ()
        with gl.open_device("sim://ideal", store=store) as device:
            device.close(drain=True)
        for seed, schedule in ((3, OLD_LONG), (4, SHORT)):
            assert (
                compare_results(store.result(records[seed].id), run_alone(ring(), schedule, seed=seed)) == "identical"
            )


def test_migrations_are_applied_whole_or_not_at_all(tmp_path):
    path = tmp_path / "jobs.sqlite"
    shutil.copy(VERSION_1, path)

    def second(connection):
        connection.execute("ALTER TABLE state ADD COLUMN note TEXT NOT NULL DEFAULT 'new'")

    def broken(connection):
        connection.execute("ALTER TABLE state ADD COLUMN more TEXT")
        connection.execute("ALTER TABLE nothing ADD COLUMN more TEXT")

    with pytest.raises(StoreError, match="nothing"):
        Database(path, (*MIGRATIONS, second, broken))
    assert Database(path).read("PRAGMA user_version") == [(1,)]  # and no column of the half that worked
    assert "note" not in [row[1] for row in Database(path).read("PRAGMA table_info(state)")]
    database = Database(path, (*MIGRATIONS, second))
    assert database.read("PRAGMA user_version") == [(2,)]
    assert database.read("SELECT DISTINCT note FROM state") == [("new",)]
    database.close()
    with pytest.raises(StoreError, match="upgrade glauber"):
        JobStore(path)


OLD_LONG = gl.SamplingSchedule(n_samples=12, n_chains=4, sweeps_per_sample=20_000)


def write_version_1(path):
    """A job of each state; run once, when version 1 was the newest."""
    keeping.PART_SECONDS = 0.01
    path.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        store = JobStore(path)
        device = gl.open_device("sim://ideal", store=store)
        device.submit(ring(), SHORT, seed=1).result()
        job = device.submit(ring(), OLD_LONG, seed=2)
        job.cancel()
        job.wait()
        device.submit(ring(), OLD_LONG, seed=3)
        device.submit(ring(), SHORT, seed=4)
        while (
            not store.jobs(status=gl.JobStatus.RUNNING) or not store.jobs(status=gl.JobStatus.RUNNING)[0].samples_done
        ):
            pass
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    with JobStore(path) as store:
        store.database.compact()
    shutil.rmtree(path.with_name(path.name + ".runners"))


if __name__ == "__main__":
    write_version_1(VERSION_1)
