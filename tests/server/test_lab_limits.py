"""What a lab allows: sizes, queues, budgets by the day, reservations; and when a job would run."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta

import glauber as gl
import numpy as np
import pytest
from glauber import worker
from glauber.errors import DeviceNotFoundError, InvalidModelError
from glauber.server import lab as lab_module
from glauber.server.budgets import midnight
from lab_bench import CONFIG, LONG, MODEL, NPZ, SHORT, Bench, Process

STEADY = gl.SamplingSchedule(n_samples=40, n_chains=1, sweeps_per_sample=600_000)
"""Several seconds, many batches."""


def opened(folder, more):
    return Bench(folder, CONFIG + more)


def test_a_device_takes_what_the_lab_allows(tmp_path):
    limits = "max_sites = 3\nmax_sweeps = 1000\n"
    with opened(tmp_path, limits) as bench:  # the last table is the king
        assert bench.submit(device="king").status_code == 202
        model = gl.IsingModel.from_edges([(0, 1, 1.0), (1, 2, 1.0), (2, 3, 1.0)])
        schedule = gl.SamplingSchedule(n_samples=2000, n_chains=65)
        content = gl.JobRequest(model, schedule).to_bytes()
        for route in ("jobs", "estimate"):
            answer = bench.post(f"/devices/king/{route}", content=content, headers=NPZ)
            assert (answer.status_code, answer.json()["error"]) == (422, "ModelNotSupportedError")
            assert len(answer.json()["reasons"]) == 3


def test_the_queue_of_an_owner_is_limited(bench):
    ids = [bench.submit(LONG, device="king").json()["id"] for _ in range(5)]
    answer = bench.submit(LONG, device="king")
    assert (answer.status_code, answer.json()["error"]) == (403, "BudgetExceededError")
    assert bench.submit(LONG, device="king", who="admin").status_code == 202  # another owner
    for job_id in ids:
        bench.post(f"/jobs/{job_id}/cancel")
    bench.wait(ids[0])
    assert bench.submit(device="king").status_code == 202


def test_a_budget_of_seconds_counts_what_is_used_queued_and_asked(tmp_path):
    with opened(tmp_path, "[owners.submiter]\nseconds_per_day = 1000\n") as bench:
        first = bench.submit(gl.SamplingSchedule(n_samples=10, n_chains=1, sweeps_per_sample=30_000), seed=1)
        used = bench.wait(first.json()["id"])["seconds"]
        more = int(10 * 550 / used)
        schedule = gl.SamplingSchedule(n_samples=more, n_chains=1, sweeps_per_sample=30_000)  # about 550 s
        second = bench.submit(schedule, seed=2, key="second")
        assert second.status_code == 202
        answer = bench.submit(schedule, seed=3)  # both would be too much
        assert (answer.status_code, answer.json()["error"]) == (403, "BudgetExceededError")
        assert "submiter may use 1000 s a day" in answer.json()["message"]
        again = bench.submit(schedule, seed=2, key="second")  # a repeated answer is no new job
        assert again.json()["id"] == second.json()["id"]
        assert bench.submit(schedule, seed=3, who="admin").status_code == 202  # who has no budget has no limit
        bench.post(f"/jobs/{second.json()['id']}/cancel")
        bench.wait(second.json()["id"])
        assert bench.submit(schedule, seed=3).status_code == 202


def test_a_budget_of_joules_counts_estimates(tmp_path):
    with opened(tmp_path, "[owners.submiter]\njoules_per_day = 1e-9\n") as bench:
        answer = bench.submit(device="king")
        assert answer.status_code == 403, answer.text
        assert "J a day" in answer.json()["message"]
        assert bench.submit(device="ideal").status_code == 202  # nobody published its joules


def test_yesterdays_seconds_do_not_count_today(tmp_path, monkeypatch):
    with opened(tmp_path, "[owners.submiter]\nseconds_per_day = 0.4\n") as bench:
        schedule = gl.SamplingSchedule(n_samples=10, n_chains=1, sweeps_per_sample=300_000)
        bench.wait(bench.submit(schedule).json()["id"])  # no rate is known of this device yet, so it was let in
        assert bench.submit().status_code == 403
        tomorrow = midnight(time.time()) + 86_400 + 60
        monkeypatch.setattr(bench.lab.file, "now", lambda: tomorrow)
        assert bench.submit().status_code == 202


def test_estimates_come_from_what_jobs_took(bench):
    content = gl.JobRequest(MODEL, STEADY).to_bytes()
    before = bench.post("/devices/ideal/estimate", content=content, headers=NPZ).json()
    assert before["run_seconds"] is None  # nobody published its speed, and nothing has run
    assert before["jobs_ahead"] == 0
    job = bench.wait(bench.submit(STEADY).json()["id"])
    after = bench.post("/devices/ideal/estimate", content=content, headers=NPZ).json()
    assert after["run_seconds"] == pytest.approx(job["seconds"], rel=0.01)
    running = bench.submit(LONG).json()["id"]
    bench.wait(running, until=("running",))
    waiting = bench.post("/devices/ideal/estimate", content=content, headers=NPZ).json()
    assert waiting["jobs_ahead"] == 1
    assert waiting["starts_in_seconds"] > after["run_seconds"]
    bench.post(f"/jobs/{running}/cancel")
    king = bench.post("/devices/king/estimate", content=gl.JobRequest(MODEL, SHORT).to_bytes(), headers=NPZ).json()
    assert king["run_seconds"] > 0  # by its published figures


def at(seconds):
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def reserve(bench, owner, starts, ends, device="ideal", who="admin"):
    body = {"owner": owner, "starts": at(starts), "ends": at(ends)}
    return bench.post(f"/devices/{device}/reservations", who, json=body)


@pytest.mark.slow
def test_a_reserved_device_runs_its_owners_jobs_and_the_others_go_on_later(bench, monkeypatch):
    monkeypatch.setattr(lab_module, "WATCH_SECONDS", 0.1)
    other = bench.submit(STEADY, seed=9).json()["id"]
    bench.wait(other, until=("running",))
    deadline = time.monotonic() + 30
    while bench.get(f"/jobs/{other}").json()["samples_done"] < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    made = reserve(bench, "adminer", -1, 3600)
    assert made.status_code == 201, made.text
    bench.wait(other, until=("queued",))
    assert bench.get("/devices/ideal").json()["reserved_for"] == "adminer"
    assert bench.wait(bench.submit(who="admin").json()["id"])["status"] == "done"
    assert bench.get(f"/jobs/{other}").json()["status"] == "queued"
    assert bench.ask("DELETE", f"/reservations/{made.json()['id']}", "admin").status_code == 204
    assert bench.wait(other)["status"] == "done"
    there = gl.SampleSet.from_bytes(bench.get(f"/jobs/{other}/result").content)
    with gl.open_device("sim://ideal") as device:
        here = device.submit(MODEL, STEADY, seed=9).result(60)
    np.testing.assert_array_equal(there.states, here.states)


def test_a_reservation_begins_and_ends_by_itself(bench):
    began = time.monotonic()
    assert reserve(bench, "adminer", 2.0, 5.0).status_code == 201
    assert bench.get("/devices/ideal").json()["reserved_for"] is None
    while bench.lab._held.get("ideal") is None:
        assert time.monotonic() < began + 30
        time.sleep(0.01)
    assert time.monotonic() - began > 1.9
    assert bench.get("/devices/ideal").json()["reserved_for"] == "adminer"
    job_id = bench.submit().json()["id"]
    assert bench.wait(job_id)["status"] == "done"
    assert time.monotonic() - began > 4.9
    assert bench.get("/devices/ideal").json()["reserved_for"] is None
    assert bench.get("/devices/ideal/reservations").json()["reservations"] == []


def test_reservations_do_not_overlap_and_belong_to_somebody(bench):
    first = reserve(bench, "submiter", 100, 200)
    assert reserve(bench, "adminer", 150, 250).status_code == 422
    assert "reserved for submiter" in reserve(bench, "adminer", 50, 101).json()["message"]
    assert reserve(bench, "adminer", 200.5, 300).status_code == 201
    assert reserve(bench, "adminer", 150, 250, device="king").status_code == 201
    assert reserve(bench, "submiter", 1000, 1100, who="submit").status_code == 403
    listed = bench.get("/devices/ideal/reservations", "read").json()["reservations"]
    assert [one["owner"] for one in listed] == ["submiter", "adminer"]
    number = first.json()["id"]
    assert bench.ask("DELETE", f"/reservations/{listed[1]['id']}", "submit").status_code == 403
    assert bench.ask("DELETE", f"/reservations/{number}", "submit").status_code == 204
    assert bench.ask("DELETE", f"/reservations/{number}", "submit").status_code == 404
    assert bench.ask("DELETE", "/reservations/99999999999999999999", "submit").status_code == 422


def test_a_device_that_keeps_its_jobs_itself_is_refused(tmp_path):
    (tmp_path / "other").mkdir()
    with Process(tmp_path / "other") as other:
        os.environ["GLAUBER_TOKEN"] = other.token("lab")
        try:
            config = f'store = "jobs.sqlite"\n[devices.far]\naddress = "{other.url}/devices/ideal"\n'
            with pytest.raises(DeviceNotFoundError, match=r"devices\.far: .* keeps its jobs itself"):
                Bench(tmp_path, config)
        finally:
            del os.environ["GLAUBER_TOKEN"]


def test_a_retry_is_answered_from_the_store(bench, monkeypatch):
    first = bench.submit(LONG, key="k")
    assert first.status_code == 202

    def no_memory(*arguments, **named):
        raise InvalidModelError("there is no memory for this now")

    monkeypatch.setattr(worker, "prepare", no_memory)
    again = bench.submit(LONG, key="k")  # what was accepted is not refused
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert bench.submit(SHORT, key="k").status_code == 409
    assert bench.submit(LONG, key="other").status_code in (400, 422)
    bench.post(f"/jobs/{first.json()['id']}/cancel")


def test_a_reservation_beyond_all_calendars_is_refused(bench):
    far = {"owner": "ann", "starts": "9999-12-31T22:00:00-14:00", "ends": "9999-12-31T23:59:59-14:00"}
    answer = bench.post("/devices/ideal/reservations", "admin", json=far)
    assert answer.status_code in (400, 422)
    assert bench.get("/devices/ideal/reservations").json() == {"reservations": []}


def test_reuse_finds_ones_own_jobs_only(bench):
    job = bench.submit(SHORT, seed=1).json()["id"]
    bench.wait(job)
    assert bench.submit(SHORT, seed=1, reuse=True).json()["id"] == job
    assert bench.submit(SHORT, who="admin", seed=1, reuse=True).json()["id"] != job
