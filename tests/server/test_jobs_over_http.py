"""Jobs over HTTP: submitted, followed, had, cancelled; by whom and how often."""

from __future__ import annotations

import json

import glauber as gl
import numpy as np
from lab_bench import MODEL, SHORT


def frames(text):
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
    job = bench.wait(job_id)
    assert (job["status"], job["owner"], job["device"], job["seed"]) == ("done", "submiter", "ideal", 5)
    there = gl.SampleSet.from_bytes(bench.get(f"/jobs/{job_id}/result").content)
    with gl.open_device("sim://ideal") as device:
        here = device.submit(MODEL, SHORT, seed=5).result(30)
    np.testing.assert_array_equal(there.states, here.states)
    asked = gl.JobRequest.from_bytes(bench.get(f"/jobs/{job_id}/request").content)
    assert asked.seed == 5


def test_events_are_numbered_and_resume_where_they_broke(bench):
    job_id = bench.submit().json()["id"]
    bench.wait(job_id)
    every = frames(bench.get(f"/jobs/{job_id}/events").text)
    states = [(number, data["status"]) for number, kind, data in every if kind == "state"]
    assert states == [("0", "queued"), ("1", "running"), ("2", "done")]
    rest = frames(bench.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": "1"}).text)
    assert [number for number, _, _ in rest] == ["2"]
