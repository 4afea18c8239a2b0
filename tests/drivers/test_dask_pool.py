"""dask://: one job on many workers is bit for bit the job on one device, whoever dies meanwhile.

The clusters are real: a scheduler in this process and workers in processes of their own, on 127.0.0.1.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import glauber as gl
import numpy as np
import pytest
from bodies import ISING_MODELS
from glauber.catalogue import load_spec
from glauber.compile import compile_program, make_run, step_of
from glauber.errors import (
    BudgetExceededError,
    DeviceIOError,
    DeviceNotFoundError,
    JobCancelledError,
    ModelNotSupportedError,
)
from glauber.registry import factory, parse_address
from glauber_drivers import dask_pool, pool_cluster, pool_local, pool_worker
from glauber_drivers.chains import shares

distributed = pytest.importorskip("distributed", reason="needs pip install 'glauber[pool]'")
SEED = 0x9E3779B97F4A7C15
ALL = frozenset({"samples", "moments", "energies", "last"})


@contextmanager
def running(workers: int):
    """A cluster whose workers nobody else shares."""
    here = "127.0.0.1"
    cluster = distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host=here,
        scheduler_port=0,
        dashboard_address=f"{here}:0",
        worker_dashboard_address=f"{here}:0",
    )
    try:
        yield cluster
    finally:
        cluster.close(timeout=20)


def address_of(cluster: Any, device: str = "sim://ideal") -> str:
    return f"dask://{cluster.scheduler_address.partition('://')[2]}?device={device}"


@pytest.fixture(scope="module")
def clusters():
    with running(1) as one, running(2) as two, running(3) as three:
        yield {1: one, 2: two, 3: three}


@pytest.fixture(scope="module")
def devices(clusters):
    opened = {n: gl.open_device(address_of(cluster), seed=1) for n, cluster in clusters.items()}
    yield opened
    for device in opened.values():
        device.close()


@pytest.fixture
def short_batches(monkeypatch):
    """One sweep, then four at a time, so that small jobs are cut: in the warm-up, inside thinning, at samples."""
    monkeypatch.setattr(dask_pool, "FIRST_UPDATES", 1)
    monkeypatch.setattr(dask_pool._Job, "_adapt", lambda job, *measured: setattr(job, "_limit", 4))


# The same bits


def ring(n: int = 64) -> gl.IsingModel:
    edges = np.stack([np.arange(n), np.roll(np.arange(n), -1)], axis=1)
    return gl.IsingModel(np.zeros(n), edges, np.where(np.arange(n) % 3, 1.0, -1.0))


def potts() -> gl.PottsModel:
    rng = np.random.default_rng(5)
    edges = np.stack([np.arange(11), np.arange(1, 12)], axis=1)
    return gl.PottsModel(rng.normal(size=(12, 3)), edges, rng.normal(size=11))


def sampling(chains: int, **more: Any) -> gl.SamplingSchedule:
    return gl.SamplingSchedule(
        **{"n_samples": 4, "n_warmup": 5, "sweeps_per_sample": 3, "beta": 0.7, **more}, n_chains=chains
    )


def signs(*shape: int) -> Any:
    return np.random.default_rng(3).choice(np.array([-1, 1], np.int8), shape)


def anneal(chains: int, **more: Any) -> gl.AnnealingSchedule:
    return gl.AnnealingSchedule(table=(0.2, 0.2, 0.9, 0.0, 2.5, 1.0, 1.5), n_chains=chains, **more)


JOBS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "bits, 100 chains": (ISING_MODELS["torus"], sampling(100), {}),
    "bits, 33 chains, no thinning": (ISING_MODELS["torus"], sampling(33, sweeps_per_sample=1, n_samples=20), {}),
    "3 chains in site planes": (ISING_MODELS["torus"], sampling(3), {}),
    "1 chain": (ISING_MODELS["glass"], sampling(1), {}),
    "dense": (ISING_MODELS["dense"], sampling(70), {}),
    "no edges": (ISING_MODELS["no edges"], sampling(40), {}),
    "clamps": (ISING_MODELS["steps"], sampling(97), {"clamp": {0: 1, 7: -1}}),
    "clamps by chain": (ISING_MODELS["steps"], sampling(65), {"clamp": np.where(signs(65, 40) > 0, signs(65, 40), 0)}),
    "fields by chain": (ISING_MODELS["bipartite"], sampling(70), {"fields": signs(70, 70) * 0.5}),
    "given start": (ISING_MODELS["frustrated"], sampling(66, n_warmup=0), {"initial": signs(66, 21)}),
    "annealing": (ISING_MODELS["bipartite"], anneal(80), {}),
    "annealing, metropolis": (ISING_MODELS["bipartite"], anneal(80, dynamics="metropolis"), {}),
    "annealing, 2 chains": (ISING_MODELS["frustrated"], anneal(2), {}),
    "potts": (potts, sampling(9), {"clamp": {2: 1}}),
    "potts annealing": (potts, anneal(5), {}),
    "tempering": (
        ISING_MODELS["glass"],
        gl.TemperingSchedule(betas=(0.2, 0.5, 1.0), n_ladders=4, n_samples=8, n_warmup=3),
        {},
    ),
    "population": (
        ISING_MODELS["glass"],
        gl.PopulationSchedule(betas=(0.0, 0.3, 0.6, 1.0), n_chains=50, sweeps_per_step=3),
        {},
    ),
    "asynchronous": (
        ISING_MODELS["glass"],
        gl.AsynchronousSchedule(n_samples=6, n_chains=7, n_warmup=2, beta=0.6, delay=0.4),
        {},
    ),
}


@lru_cache(maxsize=64)
def wanted(name: str) -> gl.SampleSet:
    model, schedule, arguments = JOBS[name]
    with gl.open_device("sim://ideal") as device:
        return device.submit(model(), schedule, seed=SEED, observe=ALL, threads=1, **arguments).result()


def assert_same(got: gl.SampleSet, right: gl.SampleSet) -> None:
    for array in ("packed", "last_packed", "updates", *(["energies"] if right.packed is not None else [])):
        np.testing.assert_array_equal(getattr(got, array), getattr(right, array), err_msg=array)
    assert got.packed is None or got.packed.dtype == right.packed.dtype
    assert (got.moments is None) == (right.moments is None)
    if got.moments is not None:
        assert got.moments.n_samples == right.moments.n_samples
        assert got.moments.sites.dtype == np.int64
        np.testing.assert_array_equal(got.moments.sites, right.moments.sites)
        np.testing.assert_array_equal(got.moments.edges, right.moments.edges)
    for name in ("tried", "made") if right.exchanges is not None else ():
        np.testing.assert_array_equal(getattr(got.exchanges, name), getattr(right.exchanges, name))
    for name in ("log_ratios", "families") if right.population is not None else ():
        np.testing.assert_array_equal(getattr(got.population, name), getattr(right.population, name))
    assert got.provenance.n_sweeps == right.provenance.n_sweeps
    assert got.provenance.contract_version == right.provenance.contract_version


def test_a_job_stops_at_the_same_effective_samples_on_any_number_of_workers(devices, short_batches):
    schedule, budget = sampling(100, n_samples=2000), gl.Budget(ess=1500)
    with gl.open_device("sim://ideal") as device:
        right = device.submit(ring(), schedule, seed=SEED, budget=budget).result()
    assert right.provenance.stopped_by == "ess"
    for workers in (1, 3):
        got = devices[workers].submit(ring(), schedule, seed=SEED, budget=budget).result(60)
        assert got.provenance.stopped_by == "ess"
        assert_same(got, right)


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("name", JOBS)
def test_same_bits_for_any_number_of_workers_and_any_cut(name, workers, devices, short_batches):
    model, schedule, arguments = JOBS[name]
    job = devices[workers].submit(model(), schedule, seed=SEED, observe=ALL, **arguments)
    got = job.result(timeout=60)
    assert_same(got, wanted(name))
    assert got.provenance.kernel["workers"] == str(min(workers, len(expected_shares(name, workers))))


def expected_shares(name: str, workers: int) -> list[tuple[int, int]]:
    model, schedule, _ = JOBS[name]
    program = compile_program(model(), step_of(model(), load_spec("ideal")))
    return shares(make_run(program, schedule, seed=1), program, workers)


def test_the_jobs_reach_both_layouts_and_one_share():
    parts = {name: expected_shares(name, 3) for name in JOBS}
    assert len(parts["3 chains in site planes"]) == 3
    assert parts["bits, 100 chains"] == [(0, 32), (32, 32), (64, 36)]
    assert parts["bits, 33 chains, no thinning"] == [(0, 32), (32, 1)]
    assert parts["tempering"] == [(0, 12)]
    assert parts["population"] == [(0, 50)]
    assert len(parts["asynchronous"]) == 3
    assert len(parts["potts"]) == 3


def test_shares_are_cut_at_lanes_of_the_whole_job():
    model = ring()
    program = compile_program(model, step_of(model, load_spec("ideal")))
    run = replace(make_run(program, sampling(100), seed=1), first_chain=20)
    assert shares(run, program, 2) == [(0, 44), (44, 56)]
    assert shares(run, program, 9) == [(0, 12), (12, 32), (44, 32), (76, 24)]


def test_nothing_is_returned_that_was_not_asked_for(devices):
    last = devices[2].submit(ring(), sampling(64), seed=SEED, observe="last").result(timeout=60)
    assert last.packed is None
    assert last.moments is None


def test_spec_is_the_inner_devices(devices, clusters):
    assert devices[2].spec.model_dump() == gl.open_device("sim://ideal").spec.model_dump()
    with gl.open_device(address_of(clusters[2], "sim://z1%3Fwidth%3D24%26height%3D24")) as device:
        assert device.spec.n_sites == 24 * 24


# Dying workers


def pids(cluster: Any) -> list[int]:
    with distributed.Client(cluster, set_as_default=False) as client:
        return list(client.run(os.getpid).values())


ENDLESS = 40_000
"""Samples of a long job that a test stops: minutes on one worker."""


def long_job(device: gl.Device, n_samples: int = 400, **more: Any) -> gl.Job:
    """Seconds on one worker."""
    return device.submit(ring(256), long_schedule(n_samples), seed=SEED, observe={"moments", "last"}, **more)


def long_schedule(n_samples: int = 400) -> gl.SamplingSchedule:
    return gl.SamplingSchedule(n_samples=n_samples, n_warmup=1000, sweeps_per_sample=1000, n_chains=128, beta=0.8)


def wait_for_progress(job: gl.Job, seconds: float = 30.0, beyond: int = 0) -> None:
    deadline = time.monotonic() + seconds
    while job.progress.sweeps_done <= beyond and time.monotonic() < deadline:
        time.sleep(0.01)
    assert beyond < job.progress.sweeps_done < job.request.schedule.n_sweeps


def assert_same_moments(got: gl.SampleSet) -> None:
    """What was kept of a long job that was stopped is what one device draws, to that length."""
    assert 0 < got.n_samples < ENDLESS
    with gl.open_device("sim://ideal") as ideal:
        right = long_job(ideal, got.n_samples).result()
    np.testing.assert_array_equal(got.moments.sites, right.moments.sites)
    assert got.moments.n_samples == got.n_samples


@lru_cache(maxsize=1)
def long_result() -> gl.SampleSet:
    with gl.open_device("sim://ideal") as device:
        return long_job(device, threads=1).result()


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_changes_nothing():
    with running(2) as cluster, gl.open_device(address_of(cluster)) as device:
        job = long_job(device)
        wait_for_progress(job)
        os.kill(pids(cluster)[0], signal.SIGKILL)
        assert_same(job.result(timeout=90), long_result())


@contextmanager
def worker_of(cluster: Any):
    """A worker that nothing starts again, as `dask worker` begins one."""
    command = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address, "--no-nanny"]
    here = ["--nthreads", "1", "--host", "127.0.0.1", "--no-dashboard"]
    with subprocess.Popen([*command, *here], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_all_workers_killed_and_another_one_comes():
    """The program is lost with them: the newcomer gets it again."""
    with running(0) as cluster, worker_of(cluster) as first:
        cluster.wait_for_workers(1, timeout=60)
        with gl.open_device(address_of(cluster)) as device:
            job = long_job(device)
            wait_for_progress(job)
            first.kill()
            first.wait()
            with worker_of(cluster):
                assert_same(job.result(timeout=90), long_result())


@pytest.mark.slow
def test_workers_that_join_take_a_share():
    """The job goes on until one has joined, however long a new process takes to start, and is then stopped."""
    with running(1) as cluster, gl.open_device(address_of(cluster)) as device:
        job = long_job(device, ENDLESS, partial=True)
        wait_for_progress(job)
        cluster.scale(2)
        cluster.wait_for_workers(2, timeout=60)
        for _ in range(3):  # the batch under way and the one told next may both have been cut for one worker
            wait_for_progress(job, beyond=job.progress.sweeps_done)
        job.cancel()
        got = job.result(timeout=60)
    assert got.provenance.kernel["workers"] == "2"
    assert_same_moments(got)


def test_a_scheduler_that_goes_is_a_typed_error(monkeypatch):
    with running(1) as cluster:
        device = gl.open_device(address_of(cluster))
        job = long_job(device, ENDLESS)
        wait_for_progress(job)
    with pytest.raises(DeviceIOError, match="pool"):
        job.result(timeout=90)
    device.close()
    device.close()


@pytest.mark.slow
def test_workers_that_stay_away_are_a_typed_error_and_the_job_can_be_cancelled_meanwhile(monkeypatch):
    monkeypatch.setattr(pool_cluster, "WORKER_SECONDS", 3.0)
    with running(1) as cluster, gl.open_device(address_of(cluster)) as device:
        cancelled, failing = long_job(device, ENDLESS), long_job(device, ENDLESS)
        wait_for_progress(cancelled)
        cluster.scale(0)
        began = time.monotonic()
        cancelled.cancel()
        with pytest.raises(JobCancelledError):
            cancelled.result(timeout=20)
        assert time.monotonic() - began < 20
        with pytest.raises(DeviceIOError, match="has no workers"):
            failing.result(timeout=30)


# Progress, cancelling


def test_progress_goes_up_and_a_cancelled_job_stops_soon(devices):
    job = long_job(devices[2], ENDLESS)
    seen = []
    for progress in job.watch():
        seen.append(progress.sweeps_done)
        if len([sweeps for sweeps in seen if sweeps]) == 3:
            break
    assert seen == sorted(seen)
    began = time.monotonic()
    job.cancel()
    with pytest.raises(JobCancelledError):
        job.result(timeout=20)
    assert time.monotonic() - began < 20
    again = devices[2].submit(ring(), sampling(64), seed=SEED).result(timeout=20)
    assert time.monotonic() - began < 20, "the workers went on"
    assert again.n_samples == 4


def test_partial_keeps_whole_samples(devices):
    job = long_job(devices[2], ENDLESS, partial=True)
    deadline = time.monotonic() + 30
    while job.progress.samples_done == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    job.cancel()
    got = job.result(timeout=20)
    assert_same_moments(got)


def test_a_budget_of_seconds_stops_the_job(devices):
    got = long_job(devices[1], budget=gl.Budget(seconds=1.0)).result(timeout=20)
    assert got.provenance.stopped_by == "seconds"
    with pytest.raises(BudgetExceededError):
        long_job(devices[1], budget=gl.Budget(seconds=1e-6)).result(timeout=20)


# Errors


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("dask://127.0.0.1:8786", "must say which device"),
        ("dask://127.0.0.1:8786?device=", "must say which device"),
        ("dask://127.0.0.1:8786?device=sim://ideal&workers=3", "does not know workers"),
        ("dask://127.0.0.1?device=sim://ideal", "names no scheduler"),
        ("dask://?device=sim://ideal", "names no scheduler"),
        ("dask://127.0.0.1:x?device=sim://ideal", "names no scheduler"),
        ("dask://127.0.0.1:8786?device=ideal", "not a device address"),
        ("dask://127.0.0.1:8786?device=dask://127.0.0.1:8787%3Fdevice%3Dsim://ideal", "open devices, not pools"),
    ],
)
def test_wrong_addresses(address, message):
    with pytest.raises(DeviceNotFoundError, match=message):
        gl.open_device(address)


def test_a_scheduler_that_is_not_there(monkeypatch):
    monkeypatch.setattr(pool_cluster, "OPEN_SECONDS", 1.0)
    with pytest.raises(DeviceNotFoundError, match="glauber pool"):
        gl.open_device("dask://127.0.0.1:9?device=sim://ideal")


def test_a_pool_without_workers(monkeypatch):
    monkeypatch.setattr(pool_cluster, "OPEN_SECONDS", 1.0)
    with running(0) as cluster, pytest.raises(DeviceIOError, match="has no workers"):
        gl.open_device(address_of(cluster))


def test_an_inner_device_that_workers_do_not_have(clusters):
    with pytest.raises(DeviceNotFoundError, match="idael"):
        gl.open_device(address_of(clusters[2], "sim://idael"))


def test_another_version_on_the_workers(clusters, monkeypatch):
    monkeypatch.setattr(dask_pool, "VERSION", "9.9")
    with pytest.raises(DeviceNotFoundError, match=r"has glauber .* and this process has 9\.9"):
        gl.open_device(address_of(clusters[2]))
    with pytest.raises(DeviceNotFoundError, match=r"has 9\.9"):  # and one that joins later
        pool_worker.advance("sim://ideal", "9.9", *[None] * 4)  # type: ignore[arg-type]


def test_the_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(DeviceNotFoundError, match=r"glauber\[pool\]"):
        factory("dask").open(parse_address(dask_pool.EXAMPLE))
    assert list(factory("dask").devices()) == []


def test_what_the_inner_device_refuses_is_refused_when_submitted(devices, clusters):
    with pytest.raises(ModelNotSupportedError, match="isa"):
        devices[2].submit(ring(), sampling(4), isa="neon" if sys.platform == "linux" else "sse2")
    king = gl.open_device(address_of(clusters[2], "sim://pbit-king-64"))
    with king, pytest.raises(ModelNotSupportedError, match="fit"):
        king.submit(ring(3), sampling(4))


def test_an_error_in_a_worker_keeps_its_type(devices, monkeypatch):
    monkeypatch.setattr(pool_cluster.Cluster, "ask", lambda *arguments: None)  # admit does not refuse it
    job = devices[2].submit(ring(), sampling(4), isa="neon")
    with pytest.raises(ModelNotSupportedError, match="isa"):
        job.result(timeout=30)
    assert devices[2].submit(ring(), sampling(4)).result(timeout=30).n_samples == 4


class _Described:
    meter: Any = None

    def __init__(self, **able: Any) -> None:
        spec = load_spec("ideal")
        self.spec = spec.model_copy(update={"capabilities": spec.capabilities.model_copy(update=able)})


class _Service:
    spec = load_spec("ideal")

    def submit(self, request): ...
    def events(self, job_id, after): ...
    def result(self, job_id): ...
    def cancel(self, job_id): ...
    def close(self): ...


def test_devices_that_a_pool_cannot_divide():
    metered = _Described()
    metered.meter = object()
    for driver, message in (
        (_Service(), "queue of its own"),
        (_Described(initial=False), "draws its start itself"),
        (metered, "meters its joules"),
    ):
        with pytest.raises(DeviceNotFoundError, match=message):
            pool_worker._checked(driver, "there://it")  # type: ignore[arg-type]


# The contract


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_driver_contract(clusters):
    from glauber.testing import run_contract

    report = run_contract(lambda: gl.open_device(address_of(clusters[2])), effort="quick")
    assert report.passed, str(report)


# glauber pool


def test_the_command_starts_a_pool_and_leaves_no_process():
    command = [sys.executable, "-m", "glauber.cli", "pool", "--workers", "1", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            address = line.split()[-1]
            with gl.open_device(address) as device:
                assert device.submit(ring(), sampling(4)).result(timeout=30).n_samples == 4
            client = distributed.Client(address[7:].partition("?")[0], set_as_default=False)
            workers = list(client.run(os.getpid).values())
            client.close()
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == 130
            assert process.stderr.read().splitlines()[-1] == "stopped"  # a busy nanny may have said something before
        finally:
            process.kill()
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("arguments", [("--workers", "0"), ("--threads", "0"), ("--port", "70000")])
def test_the_command_refuses_what_makes_no_sense(arguments):
    from glauber.cli import app
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, ["pool", *arguments])
    assert result.exit_code == 2, result.output


def test_a_port_that_is_taken(clusters):
    port = int(clusters[1].scheduler_address.rpartition(":")[2])
    with pytest.raises(DeviceIOError, match="--port"), pool_local.local_pool(1, 1, port, dashboard=False):
        pass


@pytest.mark.parametrize("flaws", ["flaws=typical", "readout_late=0.2%26memory_sweeps=3"])
def test_a_chip_with_flaws_is_the_same_chip_on_many_workers(clusters, flaws, short_batches):
    """Noise with memory, common noise and late readings are counted by chain and sweep: no cut changes them."""
    chip = f"sim://pbit-king-64?chip=3&{flaws.replace('%26', '&')}"
    edges = load_spec("pbit-king-64").topology.edges()
    model = gl.IsingModel(np.full(64, 0.1), edges, np.random.default_rng(1).uniform(-1, 1, len(edges)))
    schedule = gl.SamplingSchedule(n_samples=4, n_chains=70, n_warmup=2, sweeps_per_sample=3, beta=0.7)
    found = []
    for address in (chip, address_of(clusters[3], chip.replace("&", "%26"))):
        with gl.open_device(address) as device:
            result = device.submit(model, schedule, seed=SEED, observe={"samples", "last"}).result(60)
            found.append((result.spins, result.last))
    assert np.array_equal(found[0][0], found[1][0])
    assert np.array_equal(found[0][1], found[1][1])
