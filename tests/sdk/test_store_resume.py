"""Jobs that go on after a stop, bit for bit, and stores of older versions.

`python tests/sdk/test_store_resume.py` wrote tests/recordings/jobs-v1.sqlite, a store as version 1 of the schema had
it; once there is a version 2 it is never written again.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import glauber as gl
import numpy as np
import pytest
from glauber import keeping
from glauber.errors import (
    DeviceClosedError,
    StoreError,
)
from glauber.store import JobStore
from glauber.store.compare import compare_results
from glauber.store.database import MIGRATIONS, Database
from glauber.store.upkeep import check_store
from store_bench import SHORT, begun, long, ring, run_alone

VERSION_1 = Path(__file__).parent.parent / "recordings" / "jobs-v1.sqlite"


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
    "annealing": (ring(), gl.AnnealingSchedule(n_sweeps=900_000, n_chains=64), {"observe": {"last"}}),
    "asynchronous": (ring(), gl.AsynchronousSchedule(n_samples=100_000, n_chains=4, delay=0.2), {}),
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
    schedule = gl.SamplingSchedule(n_samples=10**5, n_chains=64, sweeps_per_sample=1000)
    device = gl.open_device("sim://ideal", store=store)
    job = device.submit(ring(), schedule, budget=gl.Budget(seconds=2.5))
    time.sleep(1.5)
    device.close(requeue=True)
    began = time.monotonic()
    with gl.open_device("sim://ideal", store=store) as device:
        result = device.job(job.id).result(30)
    assert time.monotonic() - began < 2.4  # a second, and what a busy machine adds
    assert result.provenance.stopped_by == "seconds"


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
