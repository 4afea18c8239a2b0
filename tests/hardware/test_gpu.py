"""What a GPU must show: identity with the C core, throughput beside it, and joules by NVML.

Last run on an NVIDIA H200 (docs/gpu.md). To enable it: a machine with an NVIDIA GPU, its driver, and
pip install '.[cupy,nvml]'; then python -m pytest tests/hardware -m hardware.
"""

from __future__ import annotations

import time

import glauber as gl
import numpy as np
import pytest
from glauber_drivers import cuda_session

pytestmark = [pytest.mark.hardware, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def gpu():
    try:
        with gl.open_device("cupy://0") as device:
            yield device
    except gl.errors.DeviceNotFoundError as error:
        pytest.skip(f"needs an NVIDIA GPU: {error}")


def torus(side: int, draw) -> gl.IsingModel:
    at = np.arange(side * side).reshape(side, side)
    edges = np.concatenate([np.stack([at.ravel(), np.roll(at, 1, axis).ravel()], axis=1) for axis in (0, 1)])
    return gl.IsingModel(np.zeros(at.size), edges, draw(len(edges)))


def models() -> dict[str, gl.IsingModel | gl.PottsModel]:
    rng = np.random.default_rng(1)
    i, j = np.triu_indices(100, 1)
    small = torus(12, np.ones)
    return {
        "ferromagnet": torus(64, np.ones),
        "signs": torus(64, lambda n: rng.choice([-1.0, 1.0], n)),
        "steps": torus(32, lambda n: rng.integers(-300, 300, n).astype(float)),
        "normal": torus(32, lambda n: rng.normal(size=n)),
        "dense": gl.IsingModel(rng.normal(size=100), np.stack([i, j], axis=1), rng.normal(size=len(i)) / 10),
        "edge-free": gl.IsingModel(rng.normal(size=5000), np.zeros((0, 2), np.int32), np.zeros(0)),
        "potts": gl.PottsModel(rng.normal(size=(small.n_sites, 4)), small.edges, np.ones(small.n_edges)),
        "p-dits": gl.PottsModel(rng.normal(size=(300, 512)), np.zeros((0, 2), np.int32), np.zeros(0)),
    }


def assert_as_the_simulator(gpu, model, schedule, **arguments) -> None:
    """The same samples, last states and moments."""
    with gl.open_device("sim://ideal") as simulator:
        ours, wanted = (
            device.submit(model, schedule, seed=11, observe={"samples", "moments"}, **arguments).result(300)
            for device in (gpu, simulator)
        )
    np.testing.assert_array_equal(ours.packed, wanted.packed)
    np.testing.assert_array_equal(ours.last, wanted.last)
    np.testing.assert_array_equal(ours.moments.sites, wanted.moments.sites)


@pytest.mark.parametrize("chains", [1, 4, 33, 256])
@pytest.mark.parametrize("name", models())
def test_samples_and_moments_are_those_of_the_simulator(gpu, name, chains):
    schedule = gl.SamplingSchedule(n_samples=20, n_chains=chains, n_warmup=45, sweeps_per_sample=3, beta=0.6)
    assert_as_the_simulator(gpu, models()[name], schedule)


@pytest.mark.parametrize("name", ["signs", "potts"])
def test_many_batches_through_both_buffers(gpu, name, monkeypatch):
    """Buffers are used again and again while earlier samples still travel."""
    monkeypatch.setattr(cuda_session, "SAMPLE_BYTES", 1 << 19)
    assert_as_the_simulator(gpu, models()[name], gl.SamplingSchedule(n_samples=400, n_chains=40, beta=0.6))


def test_graphs_that_are_launched_again(gpu):
    """A lattice whose colours are launched one by one, through many recorded sweeps."""
    schedule = gl.SamplingSchedule(n_samples=2, n_chains=64, n_warmup=1000, sweeps_per_sample=70, beta=0.4)
    assert_as_the_simulator(gpu, torus(64, np.ones), schedule)


def test_clamps_and_own_fields(gpu):
    rng = np.random.default_rng(3)
    model = models()["dense"]
    clamp = rng.choice(np.array([-1, 0, 0, 1], np.int8), (40, model.n_sites))
    fields = rng.normal(size=(40, model.n_sites))
    schedule = gl.SamplingSchedule(n_samples=20, n_chains=40)
    assert_as_the_simulator(gpu, model, schedule, clamp=clamp, fields=fields)


def test_anneals_are_those_of_the_simulator(gpu):
    schedule = gl.AnnealingSchedule(table=tuple(np.linspace(0.1, 2.0, 100)), n_chains=64)
    assert_as_the_simulator(gpu, models()["normal"], schedule)


def test_a_job_is_cancelled_within_a_second(gpu):
    job = gpu.submit(
        torus(64, np.ones), gl.SamplingSchedule(n_samples=10**9, n_chains=64), partial=True, observe="moments"
    )
    for progress in job.watch():
        if progress.sweeps_done > 1000:
            break
    began = time.perf_counter()
    job.cancel()
    assert job.result(30).n_samples > 0
    assert time.perf_counter() - began < 1


def test_samples_stay_on_the_gpu(gpu):
    model, schedule = models()["signs"], gl.SamplingSchedule(n_samples=50, n_chains=40)
    with gl.open_device("cupy://0?results=gpu") as device:
        first = device.submit(model, schedule, seed=1).result(300)
        device.submit(model, schedule, seed=2).result(300)  # must not touch the first one's memory
        np.testing.assert_array_equal(first.to_dlpack().get(), first.packed)


def test_a_large_lattice_is_faster_than_one_core(gpu):
    """Not a figure: `python -m benchmarks.gpu` gives those. Slower than a core would mean that something is broken."""
    model, seconds = torus(1024, np.ones), []
    schedule = gl.SamplingSchedule(n_samples=1, n_chains=64, n_warmup=200)
    with gl.open_device("sim://ideal") as simulator:
        for device in (gpu, simulator):
            device.submit(model, gl.SamplingSchedule(n_samples=1), observe="last").result(600)  # colours the graph
            began = time.perf_counter()
            device.submit(model, schedule, seed=1, observe="last", threads=1).result(600)
            seconds.append(time.perf_counter() - began)
    assert seconds[0] < seconds[1]


def test_joules_are_measured(gpu):
    with gl.open_device("cupy://0?meter=nvml") as device:
        schedule = gl.SamplingSchedule(n_samples=1, n_chains=512, n_warmup=100_000)
        report = device.submit(torus(256, np.ones), schedule, observe="last").result(600).energy_report
    assert report.basis == "measured"
    assert 0 < report.standard_uncertainty < report.joules
