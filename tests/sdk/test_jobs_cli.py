"""glauber jobs and glauber usage: text for people, JSON for machines, exit codes for scripts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import glauber as gl
import pytest
from glauber.cli import app
from glauber.store import JobStore
from typer.testing import CliRunner

RUNNER = CliRunner()


def invoke(*arguments, code=0):
    result = RUNNER.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def path(tmp_path):
    return tmp_path / "jobs.sqlite"


@pytest.fixture
def model(tmp_path):
    file = tmp_path / "model.json"
    gl.write_model(gl.IsingModel.from_edges([(0, 1, 1.0), (1, 2, -0.5)], {0: 0.3}), file)
    return file


@pytest.fixture
def job_id(path, model):
    told = invoke("run", model, "-d", "sim://ideal", "--seed", 3, "--samples", 20, "--store", path, "--json")
    return json.loads(told.stdout)["job"]


def test_run_stores_its_job_unless_told_otherwise(path, model, monkeypatch, tmp_path):
    monkeypatch.setenv("GLAUBER_STORE", str(path))
    text = invoke("run", model, "-d", "sim://ideal", "--samples", 20).stdout
    listed = json.loads(invoke("jobs", "list", "--json").stdout)
    assert len(listed) == 1
    assert f"job {listed[0]['id']}" in text
    told = json.loads(invoke("run", model, "-d", "sim://ideal", "--samples", 20, "--store", "none", "--json").stdout)
    assert told["job"] is None
    assert len(json.loads(invoke("jobs", "list", "--json").stdout)) == 1


def test_reuse(path, model, job_id):
    arguments = ("run", model, "-d", "sim://ideal", "--seed", 3, "--samples", 20, "--store", path, "--json", "--reuse")
    assert json.loads(invoke(*arguments).stdout)["job"] == job_id
    assert "reuse needs a seed" in invoke("run", model, "-d", "sim://ideal", "--reuse", "--store", path, code=2).stderr
    invoke("run", model, "-d", "sim://ideal", "--seed", 3, "--reuse", "--store", "none", code=2)


def test_list_and_show(path, job_id):
    listed = json.loads(invoke("jobs", "list", "--store", path, "--json").stdout)
    assert [(job["id"], job["status"], job["seed"]) for job in listed] == [(job_id, "done", 3)]
    assert job_id in invoke("jobs", "list", "--store", path).stdout
    assert json.loads(invoke("jobs", "list", "--status", "failed", "--store", path, "--json").stdout) == []
    assert "queued, running, done" in invoke("jobs", "list", "--status", "over", "--store", path, code=2).stderr
    shown = json.loads(invoke("jobs", "show", job_id, "--store", path, "--json").stdout)
    assert [event["status"] for event in shown["events"]] == ["queued", "running", "done"]
    assert shown["n_chains"] == 8
    text = invoke("jobs", "show", job_id[:10], "--store", path).stdout  # the beginning is enough
    assert "queued; running; done" in text


def test_ids_that_are_wrong_or_not_enough(path, model, job_id):
    invoke("run", model, "-d", "sim://ideal", "--samples", 20, "--store", path)
    assert "several jobs begin with" in invoke("jobs", "show", job_id[0], "--store", path, code=2).stderr
    for command in (("show",), ("watch",), ("cancel",), ("rerun",)):
        assert "no job nothing" in invoke("jobs", *command, "nothing", "--store", path, code=1).stderr
    error = json.loads(invoke("jobs", "show", "nothing", "--store", path, "--json", code=1).stderr)
    assert error["error"] == "JobNotFoundError"


def test_a_store_that_is_not_there_is_not_made(tmp_path):
    missing = tmp_path / "no.sqlite"
    for command in (("jobs", "list"), ("jobs", "gc"), ("jobs", "check"), ("usage",)):
        assert "there is no job store at" in invoke(*command, "--store", missing, code=2).stderr
    assert not missing.exists()


def test_rerun_proves_identity(path, job_id):
    assert "identical" in invoke("jobs", "rerun", job_id, "--store", path).stdout
    told = json.loads(
        invoke("jobs", "rerun", job_id, "-d", "sim://ideal?body=reference", "--store", path, "--json").stdout
    )
    assert told["identical"] is True
    listed = json.loads(invoke("jobs", "list", "--store", path, "--json").stdout)
    assert listed[0]["id"] == told["again"]
    assert listed[0]["device"] == "sim://ideal?body=reference"


def test_rerun_says_what_differs(path, model):
    told = invoke("run", model, "-d", "sim://pbit-king-64", "--seed", 3, "--samples", 20, "--store", path, "--json")
    job_id = json.loads(told.stdout)["job"]
    told = invoke("jobs", "rerun", job_id, "-d", "sim://pbit-king-64?weight_bits=2", "--store", path, code=1)
    assert "differ: " in told.stdout
    assert "description is another one now" in told.stdout


def test_diff(path, model, job_id):
    told = invoke("run", model, "-d", "sim://ideal", "--seed", 4, "--samples", 20, "--store", path, "--json")
    other = json.loads(told.stdout)["job"]
    found = json.loads(invoke("jobs", "diff", job_id, other, "--store", path, "--json").stdout)
    assert found["seed"] == [3, 4]
    assert "results: differ: samples" in invoke("jobs", "diff", job_id, other, "--store", path).stdout


def test_export_and_import(path, job_id, tmp_path):
    file, other = tmp_path / "job.npz", tmp_path / "other.sqlite"
    assert "written" in invoke("jobs", "export", job_id, file, "--store", path).stdout
    assert invoke("jobs", "import", file, "--store", other).stdout.strip() == job_id
    assert json.loads(invoke("jobs", "import", file, "--store", other, "--json").stdout) == [job_id]
    invoke("jobs", "rerun", job_id, "--store", other)
    file.write_bytes(b"nothing")
    assert "not a complete" in invoke("jobs", "import", file, "--store", other, code=2).stderr
    invoke("jobs", "export", job_id, tmp_path / "no" / "job.npz", "--store", path, code=2)


def test_gc_check_and_usage(path, job_id):
    assert "1 jobs" in invoke("jobs", "check", "--store", path).stdout
    used = json.loads(invoke("usage", "--store", path, "--json").stdout)
    assert [(each["device"], each["jobs"]) for each in used] == [("sim://ideal", 1)]
    assert "sim://ideal" in invoke("usage", "--store", path, "--days", 1).stdout
    kept = json.loads(invoke("jobs", "gc", "--store", path, "--json").stdout)
    assert kept["jobs"] == []
    assert "would be removed" in invoke("jobs", "gc", "--older-than", 0, "--dry-run", "--store", path).stdout
    invoke("jobs", "show", job_id, "--store", path)
    assert "removed" in invoke("jobs", "gc", "--older-than", 0, "--store", path).stdout
    invoke("jobs", "show", job_id, "--store", path, code=1)


def test_check_finds_damage(path, job_id):
    with JobStore(path) as store, store.database.write() as connection:
        connection.execute("UPDATE object SET data = zeroblob(10) WHERE digest = (SELECT result FROM state)")
    told = invoke("jobs", "check", "--store", path, "--json", code=1)
    assert any(job_id in line for line in json.loads(told.stdout)["damage"])


RUNNING = """
import sys, glauber as gl
from glauber import keeping
keeping.PART_SECONDS = 0.02
model = gl.IsingModel.from_edges([(i, (i + 1) % 64, 1.0) for i in range(64)])
with gl.open_device("sim://ideal", store=sys.argv[1]) as device:
    job = device.submit(model, gl.SamplingSchedule(n_samples=400, n_chains=64, sweeps_per_sample=int(sys.argv[2])))
    print(job.id, flush=True)
    job.wait()
"""


def start(path, thin):
    child = subprocess.Popen([sys.executable, "-c", RUNNING, str(path), str(thin)], stdout=subprocess.PIPE, text=True)
    return child, child.stdout.readline().strip()


def holds_open(pid, path):
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            if os.path.samefile(f"/proc/{pid}/fd/{name}", path):
                return True
    return False


def test_watch_and_cancel_a_job_of_another_process(path):
    child, job_id = start(path, 1_000_000)  # minutes: it is cancelled below
    with child:
        watching = subprocess.Popen(
            [sys.executable, "-m", "glauber.cli", "jobs", "watch", job_id, "--store", str(path)]
        )
        with watching:
            deadline = time.monotonic() + 30
            while not holds_open(watching.pid, path):  # before that it imports, and a Ctrl-C is the interpreter's
                assert watching.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            time.sleep(0.5)
            watching.send_signal(signal.SIGINT)
            assert watching.wait(10) == 130
        assert child.poll() is None  # who watches stops nothing
        asked = json.loads(invoke("jobs", "cancel", job_id, "--store", path, "--json").stdout)
        assert asked["asked"]
        assert "cancelled" in invoke("jobs", "watch", job_id, "--store", path, code=1).stdout
        assert child.wait(10) == 0
    invoke("jobs", "cancel", job_id, "--store", path, code=1)


def test_watch_to_the_end(path):
    child, job_id = start(path, 300)
    with child:
        told = json.loads(invoke("jobs", "watch", job_id, "--store", path, "--json").stdout)
        assert told["status"] == "done"
        assert child.wait(10) == 0


def test_run_takes_over_what_a_killed_process_left(path, model):
    child, job_id = start(path, 4000)
    with child:
        child.kill()  # at once: the job is in the store before its id is printed
    told = invoke("run", model, "-d", "sim://ideal", "--samples", 20, "--store", path)
    assert "jobs of a process that ended go first" in told.stderr
    assert json.loads(invoke("jobs", "show", job_id, "--store", path, "--json").stdout)["status"] == "done"
