"""A device behind a server in another process: what a local one does, over a network and through restarts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace

import glauber as gl
import httpx
import numpy as np
import pytest
from glauber.errors import (
    AccessError,
    BudgetExceededError,
    DeviceClosedError,
    DeviceIOError,
    DeviceNotFoundError,
    JobCancelledError,
    JobNotFoundError,
    ModelNotSupportedError,
)
from glauber.testing import run_contract
from glauber_drivers import lab_server
from glauber_drivers.lab_server import LabService
from lab_bench import CONFIG, LONG, MODEL, SHORT, Process, free_port

STEADY = gl.SamplingSchedule(n_samples=60, n_chains=2, sweeps_per_sample=100_000)
"""Several seconds, many batches."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Process(tmp_path_factory.mktemp("lab")) as started:
        started.admin, started.user = started.token("ada", "admin"), started.token("bob")
        yield started


@pytest.fixture
def remote(server, monkeypatch):
    monkeypatch.setenv("GLAUBER_TOKEN", server.user)
    with gl.open_device(f"{server.url}/devices/ideal?seed=5") as device:
        yield device


def local(model, schedule, **arguments):
    with gl.open_device("sim://ideal?seed=5") as device:
        return device.submit(model, schedule, **arguments).result(60)


def test_a_remote_device_gives_what_a_local_one_gives(remote):
    there, here = (run(MODEL, SHORT, seed=4) for run in (lambda *a, **k: remote.submit(*a, **k).result(60), local))
    np.testing.assert_array_equal(there.states, here.states)
    assert there.provenance.address == remote.address
    assert there.provenance.kernel["behind the service"] == "sim://ideal"
    assert remote.spec.spec_hash == gl.open_device("sim://ideal").spec.spec_hash


def test_a_job_that_stops_at_enough_effective_samples_does_so_there_as_here(remote):
    schedule, budget = gl.SamplingSchedule(n_samples=5000, n_chains=2), gl.Budget(ess=200)
    there = remote.submit(MODEL, schedule, seed=4, budget=budget).result(60)
    here = local(MODEL, schedule, seed=4, budget=budget)
    assert there.provenance.stopped_by == here.provenance.stopped_by == "ess"
    np.testing.assert_array_equal(there.states, here.states)
    assert there.energy_report.operations.updates == here.energy_report.operations.updates
    assert there.efficiency().ess == here.efficiency().ess


def test_jobs_without_a_seed_get_the_seeds_of_a_local_device(server, monkeypatch):
    monkeypatch.setenv("GLAUBER_TOKEN", server.user)
    too_large = gl.IsingModel(np.zeros(65), [], [])
    seeds = []
    for address in (f"{server.url}/devices/king?seed=9", "sim://pbit-king-64?seed=9"):
        with gl.open_device(address) as device:
            first = device.submit(MODEL, SHORT)
            with pytest.raises(ModelNotSupportedError):
                device.submit(too_large, SHORT)
            seeds.append([first.result(60).provenance.seed, device.submit(MODEL, SHORT).result(60).provenance.seed])
    assert seeds[0] == seeds[1]


def test_the_same_errors_as_on_a_local_device(server, remote):
    with gl.open_device("sim://pbit-king-64") as here, gl.open_device(f"{server.url}/devices/king") as there:
        model = gl.IsingModel.from_edges([(0, 63, 1.0), (0, 5, 100.0)])
        raised = []
        for device in (here, there):
            with pytest.raises(ModelNotSupportedError) as error:
                device.submit(model, SHORT)
            raised.append((str(error.value), error.value.reasons))
            with pytest.raises(ModelNotSupportedError):
                device.estimate(model, SHORT)
        assert raised[0] == raised[1]
        assert raised[0][1]
    failing = remote.submit(MODEL, gl.SamplingSchedule(n_warmup=2**40), budget=gl.Budget(seconds=0.05))
    with pytest.raises(BudgetExceededError, match="before its first sample"):
        failing.result(60)
    with pytest.raises(AccessError, match="admin"):
        remote.submit(MODEL, SHORT, priority=1)


def test_an_estimate_is_that_of_the_device(server, remote):
    with gl.open_device("sim://pbit-king-64") as here, gl.open_device(f"{server.url}/devices/king") as there:
        mine, theirs = here.estimate(MODEL, SHORT), there.estimate(MODEL, SHORT)
    assert replace(mine, run_seconds=None) == replace(theirs, run_seconds=None)  # which is by what each has run


def test_cancel_and_partial_results(remote):
    job = remote.submit(MODEL, STEADY, partial=True, seed=1)
    deadline = time.monotonic() + 60
    while job.progress.samples_done < 2:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    job.cancel()
    kept = job.result(60)
    assert job.status is gl.JobStatus.CANCELLED
    assert 2 <= kept.n_samples < STEADY.n_samples
    gone = remote.submit(MODEL, LONG)
    gone.cancel()
    with pytest.raises(JobCancelledError):
        gone.result(60)


def test_awaiting_and_many_threads(remote):
    async def two():
        return await asyncio.gather(*(remote.submit(MODEL, SHORT, seed=k) for k in range(2)))

    assert len(asyncio.run(two())) == 2
    results = {}

    def run(k):
        results[k] = remote.submit(MODEL, SHORT, seed=k).result(60).states

    threads = [threading.Thread(target=run, args=(k,)) for k in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, states in results.items():
        np.testing.assert_array_equal(states, local(MODEL, SHORT, seed=k).states)


def test_ends_are_called_back_in_their_order(remote):
    ended = []
    jobs = [remote.submit(MODEL, SHORT) for _ in range(20)]
    for job in jobs:
        job.add_done_callback(lambda job: ended.append(job.id))
    for job in jobs:
        job.result(60)
    deadline = time.monotonic() + 10
    while len(ended) < len(jobs):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert ended == [job.id for job in jobs]


def test_a_job_is_found_again_by_its_address_alone(server, remote):
    job = remote.submit(MODEL, SHORT, seed=8)
    assert job.id.startswith(f"{server.url}/jobs/")
    script = f"import glauber as gl; print(int(gl.get_job({job.id!r}).result(60).states.sum()))"
    environment = {**os.environ, "GLAUBER_TOKEN": server.user}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) == int(local(MODEL, SHORT, seed=8).states.sum())
    with pytest.raises(JobNotFoundError):
        gl.get_job(f"{server.url}/jobs/nothing")
    running = remote.submit(MODEL, LONG)
    again = gl.get_job(running.id)
    again.cancel()
    assert running.wait(60)
    assert running.status is gl.JobStatus.CANCELLED
    assert again.wait(60)


def test_closing_cancels_or_leaves_the_jobs(server, remote):
    cancelled = gl.open_device(remote.address)
    job = cancelled.submit(MODEL, LONG)
    cancelled.close()
    assert job.status is gl.JobStatus.CANCELLED
    with pytest.raises(DeviceClosedError):
        cancelled.submit(MODEL, SHORT)
    left = gl.open_device(remote.address)
    job = left.submit(MODEL, SHORT, seed=3)
    left.close(requeue=True)
    np.testing.assert_array_equal(gl.get_job(job.id).result(60).states, local(MODEL, SHORT, seed=3).states)


def test_tokens_come_from_the_environment_or_a_file_and_never_from_the_address(server, tmp_path, monkeypatch):
    monkeypatch.setenv("LAB", server.user)
    (tmp_path / "token").write_text(server.user + "\n")
    for source in ("env:LAB", f"file:{tmp_path / 'token'}"):
        gl.open_device(f"{server.url}/devices/ideal?token={source}").close()
    with pytest.raises(DeviceNotFoundError, match="addresses are logged") as raised:
        gl.open_device(f"{server.url}/devices/ideal?token={server.user}")
    assert server.user not in str(raised.value)
    with pytest.raises(DeviceNotFoundError, match="NOTHING"):
        gl.open_device(f"{server.url}/devices/ideal?token=env:NOTHING")
    with pytest.raises(DeviceNotFoundError, match="cannot be read"):
        gl.open_device(f"{server.url}/devices/ideal?token=file:/nothing")
    with pytest.raises(AccessError, match="no token"):
        gl.open_device(f"{server.url}/devices/ideal")
    monkeypatch.setenv("GLAUBER_TOKEN", "glb_12345678_" + "a" * 43)
    with pytest.raises(AccessError, match="not one of this lab"):
        gl.open_device(f"{server.url}/devices/ideal")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("{url}", "look like"),
        ("{url}/king", "look like"),
        ("{url}/devices/", "look like"),
        ("{url}/devices/ideal/jobs", "look like"),
        ("http://me:word@127.0.0.1/devices/ideal", "look like"),
        ("{url}/jobs/some-job", "is a job"),
        ("{url}/devices/nothing", "there are ideal, king"),
        ("{url}/devices/ideal?body=core", "not body"),
        ("http://127.0.0.1:1/devices/ideal", "no lab server answers"),
    ],
)
def test_addresses_that_lead_nowhere(server, monkeypatch, address, says):
    monkeypatch.setenv("GLAUBER_TOKEN", server.user)
    monkeypatch.setattr(lab_server, "SHORT_PATIENCE", 0.3)
    with pytest.raises(DeviceNotFoundError, match=says):
        gl.open_device(address.format(url=server.url))


def test_something_that_is_no_lab_server(monkeypatch):
    listening = socket.create_server(("127.0.0.1", 0))

    def answer():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with pytest.raises(DeviceNotFoundError, match="not JSON; is it a lab server"):
            gl.open_device(f"http://127.0.0.1:{listening.getsockname()[1]}/devices/ideal")
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def test_a_lost_answer_is_asked_for_again_and_makes_no_second_job(server, monkeypatch):
    """A proxy that breaks the first connections after the request went through."""
    breaks, seen = 2, []
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]

    def pump(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, target):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def relay(client):
        nonlocal breaks
        head = client.recv(65536)
        seen.append(head.split(b"\r\n", 1)[0])
        upstream = socket.create_connection(("127.0.0.1", server.port))
        upstream.sendall(head)
        if head.startswith(b"POST") and breaks:
            breaks -= 1
            time.sleep(0.5)  # the server has it by now
            client.close()
            upstream.close()
            return
        threads = [threading.Thread(target=pump, args=ends) for ends in ((client, upstream), (upstream, client))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        client.close()
        upstream.close()

    def accept():
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=relay, args=(client,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    monkeypatch.setenv("GLAUBER_TOKEN", server.token("carla"))
    service = LabService(f"http://127.0.0.1:{port}", os.environ["GLAUBER_TOKEN"])
    service._client.headers["Connection"] = "close"  # one request a connection
    service.use("ideal")
    job_id = service.submit(gl.JobRequest(MODEL, SHORT, seed=1))
    assert breaks == 0
    listed = httpx.get(
        f"{server.url}/jobs", params={"owner": "carla"}, headers={"Authorization": f"Bearer {server.user}"},
        trust_env=False,
    ).json()["jobs"]  # fmt: skip
    assert [job["id"] for job in listed] == [job_id.rpartition("/")[2]]
    service.close()
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()


def test_a_rate_limit_slows_a_client_down_and_no_more(tmp_path, monkeypatch):
    config = CONFIG.replace("requests_per_minute = 1000000", "requests_per_minute = 6")
    monkeypatch.setattr(lab_server, "PATIENCE", 1.0)
    with Process(tmp_path, config) as limited:
        monkeypatch.setenv("GLAUBER_TOKEN", limited.token("ada"))
        device = gl.open_device(f"{limited.url}/devices/ideal")
        with pytest.raises(DeviceIOError, match="more than 6 requests a minute"):
            for _ in range(6):
                device.submit(MODEL, SHORT).result(30)
        device.close(timeout=1)


@pytest.mark.slow
def test_a_job_outlives_its_server(tmp_path, monkeypatch):
    """Killed in the middle, then stopped politely in the middle: the client sees one job, and the samples are right."""
    server = Process(tmp_path)
    with server:
        monkeypatch.setenv("GLAUBER_TOKEN", server.token("ada"))
        device = gl.open_device(f"{server.url}/devices/ideal")
        job, waiting = device.submit(MODEL, STEADY, seed=11), device.submit(MODEL, SHORT, seed=12)

        def until(samples):
            deadline = time.monotonic() + 60
            while job.progress.samples_done < samples:
                assert time.monotonic() < deadline, job.progress
                assert not job.done(), job.exception()
                time.sleep(0.005)

        until(5)
        server.stop(signal.SIGKILL, code=-signal.SIGKILL)
        server.start()
        until(25)
        server.stop(signal.SIGTERM)
        server.start()
        np.testing.assert_array_equal(job.result(100).states, local(MODEL, STEADY, seed=11).states)
        np.testing.assert_array_equal(waiting.result(60).states, local(MODEL, SHORT, seed=12).states)
        device.close()
        states = [event["event"] for event in server.events() if event["event"] in ("serving", "stopped")]
        assert states == ["serving", "serving", "stopped", "serving"]
        assert server.command("audit", "verify").stdout


@pytest.mark.slow
def test_a_server_that_does_not_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(lab_server, "PATIENCE", 1.0)
    monkeypatch.setattr(lab_server, "SHORT_PATIENCE", 0.5)
    with Process(tmp_path) as server:
        monkeypatch.setenv("GLAUBER_TOKEN", server.token("ada"))
        device = gl.open_device(f"{server.url}/devices/ideal")
        job = device.submit(MODEL, LONG)
        server.stop(signal.SIGKILL, code=-signal.SIGKILL)
        with pytest.raises(DeviceIOError, match="could not be reached"):
            job.result(30)
        with pytest.raises(DeviceIOError, match="cannot be reached"):
            device.submit(MODEL, SHORT)
        began = time.monotonic()
        device.close()
        assert time.monotonic() - began < 5


def test_signals(tmp_path, monkeypatch):
    server = Process(tmp_path)
    with server:
        monkeypatch.setenv("GLAUBER_TOKEN", server.token("ada"))
        device = gl.open_device(f"{server.url}/devices/ideal")
        device.submit(MODEL, LONG)
        began = time.monotonic()
        server.stop(signal.SIGINT)
        assert time.monotonic() - began < 30  # the job would take minutes
        other = subprocess.run(
            [sys.executable, "-m", "glauber.cli", "jobs", "list", "--json", "--store", str(tmp_path / "jobs.sqlite")],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert [job["status"] for job in json.loads(other.stdout)] == ["queued"]
        device.close(requeue=True)
        server.start()
        os.kill(server.process.pid, signal.SIGINT)
        os.kill(server.process.pid, signal.SIGINT)
        assert server.process.wait(20) in (0, 130)


def test_a_second_server_on_the_same_store_is_refused(server):
    command = [sys.executable, "-m", "glauber.cli", "serve", str(server.config), "--port", str(free_port())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "another lab server" in done.stderr


def test_a_port_that_is_taken_is_named(tmp_path, server):
    path = tmp_path / "devices.toml"
    path.write_text(CONFIG)
    command = [sys.executable, "-m", "glauber.cli", "serve", str(path), "--port", str(server.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "cannot listen" in done.stderr


def test_the_log_is_json_and_has_no_token(server, remote):
    remote.submit(MODEL, SHORT).result(60)
    events = server.events()
    assert events[0]["event"] == "serving"
    request = [event for event in events if event["event"] == "request" and event["status"] == 202][-1]
    assert request["owner"] == "bob"
    assert len(request["request_id"]) == 16
    assert server.user not in server.logged()
    assert server.user.split("_", 2)[2] not in server.logged()  # the secret may hold a _ itself


def test_over_tls(tmp_path, monkeypatch):
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
               "-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"]  # fmt: skip
    try:
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl command to make a certificate with")
    tls = f'tls_certificate = "{tmp_path}/cert.pem"\ntls_key = "{tmp_path}/key.pem"\n'
    server = Process(tmp_path, tls + CONFIG)
    context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    server.url = f"https://localhost:{server.port}"
    with monkeypatch.context() as patched:
        plain = httpx.get
        patched.setattr(httpx, "get", lambda url, **more: plain(url, verify=context, **more))
        server.start()
    try:
        monkeypatch.setenv("GLAUBER_TOKEN", server.token("ada"))
        monkeypatch.setattr(lab_server, "SHORT_PATIENCE", 0.3)
        with pytest.raises(DeviceNotFoundError, match=r"(?i)certificate"):
            gl.open_device(f"{server.url}/devices/ideal")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        with gl.open_device(f"{server.url}/devices/ideal") as device:
            assert device.submit(MODEL, SHORT).result(60).n_samples == 20
    finally:
        server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ideal", "king"])
def test_a_remote_device_passes_the_contract(server, name, monkeypatch):
    monkeypatch.setenv("GLAUBER_TOKEN", server.admin)
    address = f"{server.url}/devices/{name}"
    report = run_contract(lambda: gl.open_device(address), effort="quick")
    failed = {result.name: result.reason for result in report.results if result.outcome == "failed"}
    assert not failed
    outcomes = {result.name: result.outcome for result in report.results}
    assert list(outcomes.values()).count("skipped") <= 3
    assert outcomes["order_of_jobs"] == outcomes["cancel"] == outcomes["provenance"] == "passed"
