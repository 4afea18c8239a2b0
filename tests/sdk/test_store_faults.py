"""What goes wrong with a store is a typed error, costs no job, and is found by the check; and its care."""

from __future__ import annotations

import sqlite3
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import glauber as gl
import numpy as np
import pytest
from glauber import keeping, worker
from glauber.errors import (
    FileFormatError,
    InvalidModelError,
    JobNotFoundError,
    StoreCorruptError,
    StoreError,
)
from glauber.store import JobStore
from glauber.store.compare import compare_results, difference
from glauber.store.database import Database
from glauber.store.transfer import export_job, import_job
from glauber.store.upkeep import check_store, collect_garbage
from store_bench import SHORT, begun, eventually, full, long, ring, run_alone

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


def test_a_result_that_cannot_be_stored_is_said_and_drawn_again(store, monkeypatch):
    finish = JobStore.finish

    def finish_on_a_full_disk(store, *arguments, **named):
        store.database.limit_pages(store.database.read("PRAGMA page_count")[0][0])
        return finish(store, *arguments, **named)

    device = gl.open_device("sim://ideal", store=store)
    wide = gl.SamplingSchedule(n_samples=4000, n_chains=64)
    monkeypatch.setattr(JobStore, "finish", finish_on_a_full_disk)  # full then, and not before: the job must begin
    job = device.submit(ring(), wide, seed=1)
    with pytest.raises(StoreError, match=r"could not be stored: the disk of .* is full"):
        job.result(10)
    monkeypatch.undo()
    store.database.limit_pages(2**30)
    device.close()
    with gl.open_device("sim://ideal", store=store) as device:
        assert compare_results(device.job(job.id).result(10), run_alone(ring(), wide, seed=1)) == "identical"


def test_a_job_that_had_drawn_everything_leaves_no_other_program_behind(store, monkeypatch):
    """It needs no run any more, but the next job of the same program does, on whatever the machine holds then."""
    monkeypatch.setattr(keeping, "PART_SECONDS", 0.0)
    device = gl.open_device("sim://ideal", store=store)
    whole = gl.SamplingSchedule(n_samples=2000, n_chains=64)
    monkeypatch.setattr(JobStore, "finish", full)
    first = device.submit(ring(), whole, seed=1)
    with pytest.raises(StoreError, match="could not be stored"):
        first.result(10)
    monkeypatch.undo()
    assert store.get(first.id).sweeps_done == 2000  # all of it is in parts
    device.close()
    with gl.open_device("sim://ideal", store=store) as device:
        second = device.submit(ring(), whole, seed=2)
        assert compare_results(second.result(10), run_alone(ring(), whole, seed=2)) == "identical"
        assert compare_results(store.result(first.id), run_alone(ring(), whole, seed=1)) == "identical"


def test_a_job_that_cannot_begin_stays_in_the_store(store, monkeypatch):
    device = gl.open_device("sim://ideal", store=store)
    monkeypatch.setattr(JobStore, "start", full)
    job = device.submit(ring(), SHORT, seed=1)
    with pytest.raises(StoreError, match="stays in the store"):
        job.result(10)
    monkeypatch.undo()
    assert store.get(job.id).status is gl.JobStatus.QUEUED
    device.close()
    with gl.open_device("sim://ideal", store=store) as device:
        assert compare_results(device.job(job.id).result(10), run_alone(ring(), SHORT, seed=1)) == "identical"


@pytest.mark.parametrize("what", ["start", "finish"])
def test_a_store_that_fails_for_a_moment_costs_no_job(what, store, monkeypatch):
    monkeypatch.setattr(worker, "RETRY_SECONDS", (0.05, 0.2))
    with gl.open_device("sim://ideal", store=store) as device:
        with monkeypatch.context() as broken:
            broken.setattr(JobStore, what, full)
            job = device.submit(ring(), SHORT, seed=1)
            with pytest.raises(StoreError, match=r"runs (again )?when the store works"):
                job.result(10)
        eventually(lambda: store.get(job.id).status is gl.JobStatus.DONE)  # and nobody had to open anything again
        with monkeypatch.context() as broken:
            broken.setattr(JobStore, what, full)
            second = device.submit(ring(), long(5), seed=2)
            if what == "finish":
                second.cancel()
            second.wait(10)
        store.ask_to_cancel(second.id)
        eventually(lambda: store.get(second.id).status is gl.JobStatus.CANCELLED)
    assert compare_results(store.result(job.id), run_alone(ring(), SHORT, seed=1)) == "identical"


def test_a_log_that_goes_while_it_is_looked_at(path, monkeypatch):
    """Another process that closes the file last removes it, between any two looks."""
    log = path.with_name(path.name + "-wal")
    path.touch()
    log.write_bytes(b"x")
    stat = Path.stat

    def last_look(self, **more):
        found = stat(self, **more)
        if self == log:
            self.unlink()
        return found

    monkeypatch.setattr(Path, "stat", last_look)
    refused = sqlite3.OperationalError("attempt to write a readonly database")
    refused.sqlite_errorname = "SQLITE_READONLY"
    may_be_read_only = partial(Database._may_be_read_only, SimpleNamespace(path=path), refused)
    assert not may_be_read_only()  # with a log, the file alone is not all there is
    assert may_be_read_only()


def test_a_folder_that_may_not_be_searched_is_no_matter_of_its_log(path, monkeypatch):
    """Then the log cannot be looked at either, and what is said is that the store cannot be opened."""

    def forbidden(self, **more):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", forbidden)
    refused = sqlite3.OperationalError("unable to open database file")
    refused.sqlite_errorname = "SQLITE_CANTOPEN"
    assert not Database._may_be_read_only(SimpleNamespace(path=path), refused)


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
        running = device.submit(ring(), long(5), partial=True)
        begun(running, samples=1)
        found = collect_garbage(store, older_than_seconds=0, dry_run=True)
        assert {*old, other} <= set(found.jobs)
        assert len(store.jobs()) == 6
        assert collect_garbage(store, older_than_seconds=3600).jobs == ()
        found = collect_garbage(store, older_than_seconds=0)
        assert found.objects >= 5  # results, and the other model
        assert [record.id for record in store.jobs()] == [running.id]
        assert running.status is gl.JobStatus.RUNNING
        running.cancel()
        assert 1 <= running.result(30).n_samples < 60
    assert 1 <= store.result(running.id).n_samples < 60
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
