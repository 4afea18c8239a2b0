"""Jobs over HTTP: submitted, followed, had, cancelled; by whom and how often."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time

import glauber as gl
import numpy as np
import pytest
from glauber.server import audit, routes_jobs
from glauber.server.tokens import create_token, revoke_token
from lab_bench import LONG, MODEL, NPZ, SHORT

# Tens of minutes in about as many batches as there are samples, some 25 a second: for a test that stops it.
STEADY = gl.SamplingSchedule(n_samples=60_000, n_chains=1, sweeps_per_sample=400_000)


def frames(text):
    """(id, kind, data) of each event in a stream."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "data" in lines:
            found.append((lines.get("id"), lines["event"], json.loads(lines["data"])))
    return found


def test_a_job_from_submission_to_result(bench):
    answer = bench.submit(seed=5)
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["id"]
    assert answer.json()["job"] == f"/jobs/{job_id}"
    job = bench.wait(job_id)
    assert (job["status"], job["owner"], job["device"], job["seed"]) == ("done", "submiter", "ideal", 5)
    there = gl.SampleSet.from_bytes(bench.get(f"/jobs/{job_id}/result").content)
    with gl.open_device("sim://ideal") as device:
        here = device.submit(MODEL, SHORT, seed=5).result(30)
    np.testing.assert_array_equal(there.states, here.states)
    asked = gl.JobRequest.from_bytes(bench.get(f"/jobs/{job_id}/request").content)
    assert asked.seed == 5
    partial = gl.SampleSet.from_bytes(bench.get(f"/jobs/{job_id}/partial").content)
    np.testing.assert_array_equal(partial.states, here.states)


def test_events_are_numbered_and_resume_where_they_broke(bench):
    job_id = bench.submit().json()["id"]
    bench.wait(job_id)
    every = frames(bench.get(f"/jobs/{job_id}/events").text)
    states = [(number, data["status"]) for number, kind, data in every if kind == "state"]
    assert states == [("0", "queued"), ("1", "running"), ("2", "done")]
    assert every[-1][2]["sweeps_done"] == SHORT.n_sweeps
    rest = frames(bench.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": "1"}).text)
    assert [number for number, _, _ in rest] == ["2"]
    assert frames(bench.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": "2"}).text) == []
    assert bench.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": "x"}).status_code == 422


def test_an_idempotent_submission_is_one_job(bench):
    first = bench.submit(key="k1", seed=1)
    again = bench.submit(key="k1", seed=1)
    assert first.json()["id"] == again.json()["id"]
    other = bench.submit(key="k1", seed=2)
    assert (other.status_code, other.json()["error"]) == (409, "InvalidModelError")
    assert "idempotency key" in other.json()["message"]
    assert bench.submit(key="k1", seed=2, who="admin").status_code == 202  # keys belong to owners
    assert bench.submit(key="k2").json()["id"] == bench.submit(key="k2").json()["id"]  # without a seed too
    results = []

    def send():
        results.append(bench.submit(key="many", seed=3).json()["id"])

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 1


def test_cancel_a_running_and_a_queued_job(bench):
    running, queued = (bench.submit(LONG).json()["id"] for _ in range(2))
    bench.wait(running, until=("running",))
    assert bench.post(f"/jobs/{queued}/cancel").json() == {"asked": True}
    assert bench.post(f"/jobs/{queued}/cancel").json() == {"asked": False}
    assert bench.wait(queued)["status"] == "cancelled"
    assert bench.post(f"/jobs/{running}/cancel").json() == {"asked": True}
    assert bench.wait(running)["status"] == "cancelled"
    answer = bench.get(f"/jobs/{running}/result")
    assert (answer.status_code, answer.json()["error"]) == (409, "JobCancelledError")


def test_what_was_drawn_so_far(bench):
    schedule = gl.SamplingSchedule(n_samples=600, n_chains=1, sweeps_per_sample=1_000_000)
    job_id = bench.submit(schedule, partial=True, seed=3).json()["id"]
    answer = bench.get(f"/jobs/{job_id}/result")
    assert (answer.status_code, answer.json()["error"]) == (409, "JobTimeoutError")
    deadline = time.monotonic() + 30
    while (answer := bench.get(f"/jobs/{job_id}/partial")).status_code != 200:
        assert answer.json()["error"] == "BudgetExceededError"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    so_far = gl.SampleSet.from_bytes(answer.content)
    assert 1 <= so_far.n_samples < 600
    bench.post(f"/jobs/{job_id}/cancel")
    assert bench.wait(job_id)["status"] == "cancelled"
    kept = gl.SampleSet.from_bytes(bench.get(f"/jobs/{job_id}/result").content)
    assert kept.n_samples >= so_far.n_samples
    np.testing.assert_array_equal(kept.states[:, : so_far.n_samples], so_far.states)


def test_a_failed_job_says_why(bench):
    schedule = gl.SamplingSchedule(n_warmup=2**40)
    job_id = bench.submit(schedule, budget=gl.Budget(seconds=0.05)).json()["id"]
    job = bench.wait(job_id)
    assert (job["status"], job["error"]) == ("failed", "BudgetExceededError")
    last = frames(bench.get(f"/jobs/{job_id}/events").text)[-1][2]
    assert (last["status"], last["error"]) == ("failed", "BudgetExceededError")
    answer = bench.get(f"/jobs/{job_id}/result")
    assert (answer.status_code, answer.json()["error"]) == (409, "BudgetExceededError")


def test_others_see_where_a_job_is_and_no_more(bench):
    stranger = create_token(bench.lab.file, "stranger", "submit", 1)[1]
    job_id = bench.submit(seed=77, key="private").json()["id"]
    bench.wait(job_id)
    seen = bench.get(f"/jobs/{job_id}", stranger).json()
    assert (seen["status"], seen["owner"]) == ("done", "submiter")
    assert (seen["seed"], seen["idempotency_key"], seen["message"], seen["error"]) == (None, None, "", None)
    listed = bench.get("/jobs", stranger).json()["jobs"]
    assert [job["seed"] for job in listed] == [None]
    for path in ("events", "result", "partial", "request"):
        answer = bench.get(f"/jobs/{job_id}/{path}", stranger)
        assert (answer.status_code, answer.json()["error"]) == (403, "AccessError"), path
        assert bench.get(f"/jobs/{job_id}/{path}", "admin").status_code == 200
    assert bench.post(f"/jobs/{job_id}/cancel", stranger).status_code == 403
    refused = [entry for entry in audit.entries(bench.lab.file) if entry.action == "refused"]
    assert len(refused) == 5
    assert all(entry.who.startswith("stranger") for entry in refused)


def test_jobs_are_listed_newest_first_page_by_page(bench):
    ids = [bench.submit(device=device).json()["id"] for device in ("ideal", "king", "ideal", "ideal")]
    for job_id in ids:
        bench.wait(job_id)
    listed = bench.get("/jobs").json()["jobs"]
    assert [job["id"] for job in listed] == ids[::-1]
    page = bench.get("/jobs", params={"limit": 2}).json()["jobs"]
    rest = bench.get("/jobs", params={"limit": 2, "before": page[-1]["number"]}).json()["jobs"]
    assert [job["id"] for job in page + rest] == ids[::-1]
    assert [job["id"] for job in bench.get("/jobs", params={"device": "king"}).json()["jobs"]] == [ids[1]]
    assert bench.get("/jobs", params={"status": "failed"}).json()["jobs"] == []
    assert bench.get("/jobs", params={"owner": "nobody"}).json()["jobs"] == []
    assert bench.get("/jobs", params={"status": "lost"}).status_code == 422
    assert bench.get("/jobs", params={"device": "other"}).status_code == 404


def test_devices_and_what_stands_in_their_queue(bench):
    listed = bench.get("/devices").json()["devices"]
    assert [(one["name"], one["title"], one["health"]) for one in listed] == [
        ("ideal", "The ideal simulator", "ok"),
        ("king", gl.load_spec("pbit-king-64").title, "ok"),
    ]
    running, queued = (bench.submit(LONG, device="ideal").json()["id"] for _ in range(2))
    bench.wait(running, until=("running",))
    found = bench.get("/devices/ideal").json()
    assert found["running"] == running
    assert [job["id"] for job in found["queue"]] == [running, queued]
    assert found["spec"]["name"] == "ideal"
    assert found["limits"]["max_queue_per_owner"] == 1000
    for job_id in (queued, running):
        bench.post(f"/jobs/{job_id}/cancel")
        bench.wait(job_id)
    missing = bench.get("/devices/nothing")
    assert (missing.status_code, missing.json()["error"]) == (404, "DeviceNotFoundError")
    assert "ideal, king" in missing.json()["message"]


def test_a_priority_above_zero_needs_an_admin(bench):
    answer = bench.submit(priority=1)
    assert (answer.status_code, answer.json()["error"]) == (403, "AccessError")
    assert bench.submit(priority=-1).status_code == 202
    assert bench.submit(priority=1, who="admin").status_code == 202


def test_what_the_device_cannot_do_is_refused_with_every_reason(bench):
    model = gl.IsingModel.from_edges([(0, 1, 1.0), (0, 63, 1.0), (0, 5, 1.0)])
    content = gl.JobRequest(model, SHORT).to_bytes()
    answer = bench.post("/devices/king/jobs", content=content, headers=NPZ)
    assert (answer.status_code, answer.json()["error"]) == (422, "ModelNotSupportedError")
    assert answer.json()["reasons"]
    assert bench.post("/devices/king/estimate", content=content, headers=NPZ).status_code == 422


@pytest.mark.slow
def test_hundreds_of_streams_and_no_thread_for_each(bench, monkeypatch):
    """The job runs until every stream has told of two steps, however long 300 of them take to begin."""
    streaming, told = routes_jobs.event_stream, {}

    async def counted(*arguments):
        mine = object()
        told[mine] = 0
        async for frame in streaming(*arguments):
            told[mine] += b"event: progress" in frame
            yield frame

    monkeypatch.setattr(routes_jobs, "event_stream", counted)
    monkeypatch.setattr("glauber.server.streams.HEARTBEAT_SECONDS", 1000.0)  # the job itself must wake each of them
    job_id = bench.submit(STEADY).json()["id"]
    before = threading.active_count()
    most = 0

    async def watch():
        answer = await bench.client._client.get(f"/jobs/{job_id}/events", headers=bench.headers("submit"))
        return frames(answer.text)

    async def all_of_them():
        nonlocal most
        tasks = [asyncio.create_task(watch()) for _ in range(300)]
        deadline = time.monotonic() + 60
        while len(told) < 300 or min(told.values()) < 2:
            assert time.monotonic() < deadline, f"{len(told)} streams, {min(told.values(), default=0)} steps"
            most = max(most, threading.active_count())
            await asyncio.sleep(0.05)
        assert bench.app.state.streams.total() == 300  # all at once
        await bench.client._client.post(f"/jobs/{job_id}/cancel", headers=bench.headers("submit"))
        return await asyncio.gather(*tasks)

    streams = bench.client.run(all_of_them())
    assert len(streams) == 300
    for stream in streams:
        states = [data["status"] for _, kind, data in stream if kind == "state"]
        assert states == ["queued", "running", "cancelled"]
        done = [data["sweeps_done"] for _, kind, data in stream if kind == "progress"]
        assert done == sorted(done)
        assert len(done) >= 2
    assert most - before < 30
    assert "glauber_event_streams 0.0" in bench.get("/metrics").text


def test_streams_end_when_the_server_stops_and_when_the_token_does(bench):
    job_id = bench.submit(LONG).json()["id"]
    bench.wait(job_id, until=("running",))
    token, text = create_token(bench.lab.file, "submiter", "read", 1)

    async def watch(who):
        began = time.monotonic()
        answer = await bench.client._client.get(f"/jobs/{job_id}/events", headers=bench.headers(who))
        return answer.text, time.monotonic() - began

    async def both():
        with_token, other = asyncio.create_task(watch(text)), asyncio.create_task(watch("submit"))
        await asyncio.sleep(0.5)
        revoke_token(bench.lab.file, token.id)
        ended = await with_token
        assert not other.done()
        bench.lab.stop_accepting()
        bench.app.state.wakes.wake_all()
        return ended, await other

    (revoked, _), (stopped, _) = bench.client.run(asyncio.wait_for(both(), 30))
    assert "no longer valid" in revoked
    assert "is stopping" in stopped
    assert frames(stopped)[-1][2]["status"] == "running"
    answer = bench.get("/devices")
    assert (answer.status_code, answer.json()["error"]) == (503, "DeviceClosedError")
    assert answer.headers["Retry-After"] == "2"
    health = bench.get("/health", None)
    assert (health.status_code, health.json()["status"]) == (503, "stopping")


def test_a_quiet_job_has_a_heartbeat(bench, monkeypatch):
    monkeypatch.setattr("glauber.server.streams.HEARTBEAT_SECONDS", 0.02)
    first, second = (bench.submit(LONG).json()["id"] for _ in range(2))

    async def watch():
        watching = asyncio.create_task(
            bench.client._client.get(f"/jobs/{second}/events", headers=bench.headers("submit"))
        )
        await asyncio.sleep(0.6)
        return watching

    watching = bench.client.run(watch())
    for job_id in (second, first):
        bench.post(f"/jobs/{job_id}/cancel")
    text = bench.client.run(_text_of(watching))
    assert text.count(": waiting") >= 3
    assert [data["status"] for _, _, data in frames(text)] == ["queued", "cancelled"]


async def _text_of(task):
    return (await asyncio.wait_for(task, 20)).text


def test_health_metrics_and_usage(bench):
    job_id = bench.submit(device="king").json()["id"]
    bench.wait(job_id)
    assert bench.get("/health", None).json() == {"status": "ok", "devices": {"ideal": "ok", "king": "ok"}}
    metrics = bench.get("/metrics").text
    assert 'glauber_requests_total{method="POST",route="/devices/{name}/jobs",status="202"} 1.0' in metrics
    assert 'glauber_device_up{device="king"} 1.0' in metrics
    (line,) = bench.get("/usage").json()["usage"]
    assert (line["owner"], line["device"], line["jobs"]) == ("submiter", "king", 1)
    assert line["joules"] > 0
    assert bench.get("/usage", "read").json()["usage"] == []
    assert bench.get("/usage", "read", params={"owner": "submiter"}).status_code == 403
    assert len(bench.get("/usage", "admin").json()["usage"]) == 1
    assert bench.get("/usage", "admin", params={"since": "2999-01-01"}).json()["usage"] == []
    assert bench.get("/usage", params={"since": "yesterday"}).status_code == 422


def test_a_device_whose_worker_died_is_reported(bench):
    bench.lab.devices["king"].device._jobs._bury(RuntimeError("it broke"), None)
    health = bench.get("/health", None)
    assert (health.status_code, health.json()["devices"]["king"]) == (503, "failing")
    assert "it broke" in bench.get("/devices/king").json()["health"]
    assert bench.submit(device="king").status_code == 503


def test_the_log_has_ids_and_no_token(bench, caplog):
    with caplog.at_level(logging.INFO, logger="glauber"):
        answer = bench.submit()
    requests = [record for record in caplog.records if record.message == "request"]
    assert 202 in [record.status for record in requests]  # another test's last request may still be told
    assert answer.headers["X-Request-ID"]
    text = " ".join(str(vars(record)) for record in caplog.records)
    assert bench.tokens["submit"].split("_", 2)[2] not in text  # the secret may hold a _ itself


def test_the_audit_log_says_who_did_what(bench):
    job_id = bench.submit(LONG).json()["id"]
    bench.post(f"/jobs/{job_id}/cancel")
    bench.wait(job_id)
    done = [(entry.action, entry.subject, entry.who.split()[0]) for entry in audit.entries(bench.lab.file)]
    assert ("start", "http://127.0.0.1:8765", "server") in done
    assert ("submit", job_id, "submiter") in done
    assert ("cancel", job_id, "submiter") in done
    assert audit.verify(bench.lab.file).entries == len(done)


@pytest.mark.parametrize("path", ["/jobs/nothing", "/jobs/nothing/events", "/jobs/nothing/result"])
def test_jobs_that_are_not_there(bench, path):
    answer = bench.get(path)
    assert (answer.status_code, answer.json()["error"]) == (404, "JobNotFoundError")


def test_one_token_does_not_take_all_streams(bench, monkeypatch):
    monkeypatch.setattr(routes_jobs, "STREAMS_OF_A_TOKEN", 0)
    job_id = bench.submit().json()["id"]
    answer = bench.get(f"/jobs/{job_id}/events")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
    monkeypatch.undo()
    assert bench.get(f"/jobs/{job_id}/events").status_code == 200
    assert bench.app.state.streams.total() == 0  # given back
