"""Jobs on disk: durable, asked for twice, queued fairly, seen and stopped from other processes."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from dataclasses import replace

import glauber as gl
import numpy as np
import pytest
from glauber.errors import (
    InvalidModelError,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    ModelNotSupportedError,
    StoreError,
)
from glauber.keeping import without_seed
from glauber.store import JobStore
from glauber.store.compare import compare_results
from store_bench import SHORT, begun, long, ring, run_alone

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
        block = device.submit_request(gl.JobRequest(ring(), long(30), owner="ann"))
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
        block.cancel()
        gl.wait(jobs, 60)
    # ann has had the device before; who is next after bob's first job depends on how long it took, see test_queueing.py
    assert order[:2] == ["cid", "bob"]
    assert sorted(order) == ["ann"] * 4 + ["bob"] * 2 + ["cid"]


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
    job = device.submit(ring(), long(5), seed=5)
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
        job = device.submit(ring(), long(5))
        begun(job)
        assert two.adopt("sim://ideal") == []
        with pytest.raises(StoreError, match="another process has it"):
            two.start(job.id)
        assert job.status is gl.JobStatus.RUNNING
        job.cancel()


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # of JAX, where other tests have loaded it
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
