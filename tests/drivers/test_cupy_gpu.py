"""cupy:// as a device: what it says of itself, what it refuses and how it fails, with a stand-in for CuPy."""

from __future__ import annotations

import gc
import shutil
import sys

import glauber as gl
import numpy as np
import pytest
from fake_cupy import FORWARD, FakeCupy
from glauber.cli import app
from glauber_drivers import cuda_groups, cuda_session, cupy_gpu
from glauber_drivers.cuda_session import digest_of
from typer.testing import CliRunner

pytestmark = pytest.mark.cuda

RING = gl.IsingModel(np.zeros(8), [(k, (k + 1) % 8) for k in range(8)], np.ones(8))
POTTS = gl.PottsModel(np.zeros((5, 3)), [(k, k + 1) for k in range(4)], np.ones(4))


@pytest.fixture
def cupy(shim, monkeypatch):
    shim.order = FORWARD
    fake = FakeCupy(shim, n_gpus=2)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    return fake


@pytest.mark.parametrize("model", [RING, POTTS], ids=["ising", "potts"])
@pytest.mark.parametrize("chains", [2, 33])
def test_a_job_gives_what_the_simulator_gives(cupy, model, chains):
    schedule = gl.SamplingSchedule(n_samples=5, n_chains=chains, n_warmup=2, beta=0.7)
    results = []
    for address in ("cupy://1", "sim://ideal"):
        with gl.open_device(address) as device:
            observe = {"samples", "moments", "energies"}
            results.append(device.submit(model, schedule, seed=5, observe=observe).result(60))
    ours, wanted = results
    state = "spins" if model is RING else "states"
    np.testing.assert_array_equal(getattr(ours, state), getattr(wanted, state))
    np.testing.assert_array_equal(ours.energies, wanted.energies)
    np.testing.assert_array_equal(ours.moments.sites, wanted.moments.sites)
    assert ours.provenance.kernel["kernel"].startswith("cuda, ")
    assert ours.provenance.contract_version == wanted.provenance.contract_version


def test_a_gpu_describes_itself(cupy):
    with gl.open_device("cupy://0") as device:
        spec = device.spec
    assert (spec.kind, spec.title, spec.name) == ("gpu", "Stand-in", "cupy-0")
    assert spec.facts["multiprocessors"].best == 64
    assert spec.capabilities.deterministic
    assert "cupy://1" in [address for address, _ in gl.available_devices()]


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(gl.errors.DeviceNotFoundError, match=r"pip install 'glauber\[cupy\]'"):
        gl.open_device("cupy://0")
    assert not any(address.startswith("cupy") for address, _ in gl.available_devices())
    for arguments in (["describe", "cupy://0"], ["describe", "cupy://0", "--json"]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 3
        assert "pip install" in result.stderr.replace("\n", " ")
        assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("cupy://2", "there are cupy://0, cupy://1"),
        ("cupy://", "there are cupy://0"),
        ("cupy://-1", "there are cupy://0"),
        ("cupy://0?width=3", "meter=nvml"),
        ("cupy://0?meter=wall", "meter=nvml"),
    ],
)
def test_addresses_that_are_no_gpu(cupy, address, message):
    with pytest.raises(gl.errors.DeviceNotFoundError, match=message):
        gl.open_device(address)


def test_without_a_driver_it_says_so(cupy):
    cupy.no_driver = True
    with pytest.raises(gl.errors.DeviceNotFoundError, match="no NVIDIA driver"):
        gl.open_device("cupy://0")
    assert not any(address.startswith("cupy") for address, _ in gl.available_devices())
    cupy.no_driver, cupy.n_gpus = False, 0
    with pytest.raises(gl.errors.DeviceNotFoundError, match="sees no GPU"):
        gl.open_device("cupy://0")


def test_sources_that_are_missing_are_missed(cupy, monkeypatch):
    monkeypatch.setattr(cupy_gpu.glauber_drivers, "__path__", ["/nowhere"])
    with pytest.raises(gl.errors.DeviceNotFoundError, match="install it again"):
        gl.open_device("cupy://0")


@pytest.mark.parametrize(
    "schedule",
    [
        gl.TemperingSchedule(betas=(0.5, 1.0), n_samples=2),
        gl.AnnealingSchedule(table=(0.5, 1.0), dynamics="metropolis"),
    ],
)
def test_what_it_cannot_do_is_refused_at_once(cupy, schedule):
    with gl.open_device("cupy://0") as device, pytest.raises(gl.errors.ModelNotSupportedError):
        device.submit(RING, schedule)


def test_a_run_that_no_memory_holds_is_refused_with_the_figures(cupy):
    cupy.memory = 100_000
    large = gl.IsingModel(np.zeros(20_000), [(k, k + 1) for k in range(19_999)], np.ones(19_999))
    for address, model, chains in (("cupy://0", large, 4), ("cupy://0?results=gpu", RING, 100_000)):
        with gl.open_device(address) as device:
            with pytest.raises(gl.errors.ModelNotSupportedError, match=r"needs .* GB of GPU memory"):
                device.submit(model, gl.SamplingSchedule(n_samples=2, n_chains=chains))
            assert device.submit(RING, gl.SamplingSchedule(n_samples=2)).result(30).n_samples == 2


@pytest.mark.parametrize("model", [RING, POTTS], ids=["ising", "potts"])
def test_groups_of_chains_take_turns_where_memory_is_short(cupy, model, monkeypatch):
    rng = np.random.default_rng(1)
    shape = (200, model.n_sites) if model is RING else (200, model.n_sites, 3)
    own = {"fields": rng.normal(size=shape), "clamp": {0: 1}}
    schedule = gl.SamplingSchedule(n_samples=6, n_chains=200, n_warmup=3, sweeps_per_sample=2)
    monkeypatch.setattr(cuda_groups, "FIRST_SWEEPS", 4)
    monkeypatch.setattr(cuda_groups, "TURN_SECONDS", 1e-9)
    cupy.memory = 40_000
    found = []
    for address in ("cupy://0", "sim://ideal"):
        with gl.open_device(address) as device:
            found.append(device.submit(model, schedule, seed=5, observe={"samples", "moments"}, **own).result(60))
    assert int(found[0].provenance.kernel["chains at a time"]) < 200
    np.testing.assert_array_equal(found[0].packed, found[1].packed)
    np.testing.assert_array_equal(found[0].last, found[1].last)
    np.testing.assert_array_equal(found[0].moments.sites, found[1].moments.sites)
    if model is RING:
        np.testing.assert_array_equal(found[0].moments.edges, found[1].moments.edges)


def test_memory_that_others_hold_fails_the_job_and_says_so(cupy):
    with gl.open_device("cupy://0") as device:
        cupy.used = cupy.memory - 1000
        job = device.submit(RING, gl.SamplingSchedule(n_samples=2, n_chains=64))
        with pytest.raises(gl.errors.GlauberError, match="something else holds the rest"):
            job.result(30)
        cupy.used = 0
        assert device.submit(RING, gl.SamplingSchedule(n_samples=2)).result(30).n_samples == 2


@pytest.mark.parametrize("kernel", ["glb_start", "glb_bits3_sweeps", "glb_sample"])
def test_a_gpu_that_fails_fails_the_job_and_the_next_one_runs(cupy, kernel):
    with gl.open_device("cupy://0") as device:
        cupy.fail_at = kernel
        with pytest.raises(gl.errors.GlauberError, match="unspecified launch failure"):
            device.submit(RING, gl.SamplingSchedule(n_samples=2, n_chains=64)).result(30)
        cupy.fail_at = ""
        assert device.submit(RING, gl.SamplingSchedule(n_samples=2, n_chains=64)).result(30).n_samples == 2


def test_a_failure_that_is_for_good_says_so(cupy):
    """After a fault in a kernel CUDA refuses everything in this process."""
    with gl.open_device("cupy://0") as device:
        cupy.fail_at, cupy.sticky = "glb_sample", True
        for _ in range(2):
            with pytest.raises(gl.errors.GlauberError, match="start Python again"):
                device.submit(RING, gl.SamplingSchedule(n_samples=2, n_chains=64)).result(30)
            cupy.fail_at = ""


def test_a_failed_job_keeps_no_memory(cupy):
    with gl.open_device("cupy://0") as device:
        device.submit(RING, gl.SamplingSchedule(n_samples=2)).result(30)
        before = cupy.used
        cupy.fail_at = "glb_sample"
        job = device.submit(RING, gl.SamplingSchedule(n_samples=2, n_chains=64))
        with pytest.raises(gl.errors.GlauberError):
            job.result(30)
        gc.collect()
        assert cupy.used <= before


def test_new_sources_are_compiled_anew(tmp_path):
    """CuPy's cache goes by the text and the options: the options must tell one set of headers from another."""
    folder = shutil.copytree(cupy_gpu.source_folder(), tmp_path / "cuda")
    before = digest_of(folder)
    for name in ("bits.h", "glauber/contract.h", "glauber/exp2_table.inc"):
        path = folder / name
        path.write_text(path.read_text() + "\n")
        after = digest_of(folder)
        assert after != before
        before = after


def test_a_cancelled_job_stops_between_launches_and_keeps_what_was_drawn(cupy, monkeypatch):
    monkeypatch.setattr(cuda_session, "FIRST_UPDATES", 1)
    monkeypatch.setattr(cuda_session, "BATCH_SECONDS", 1e-9)  # one sweep a batch
    with gl.open_device("cupy://0") as device:
        job = device.submit(RING, gl.SamplingSchedule(n_samples=10**6, n_chains=64), partial=True)
        for progress in job.watch():
            if progress.sweeps_done > 3:
                job.cancel()
                break
        result = job.result(30)
        assert 3 < result.n_samples < 10**6
        launched = len(cupy.shim.launches)
        assert device.submit(RING, gl.SamplingSchedule(n_samples=1, n_chains=64)).result(30).n_samples == 1
        assert len(cupy.shim.launches) - launched < 20


def test_memory_goes_back_when_a_device_is_closed(cupy):
    with gl.open_device("cupy://0") as device:
        device.submit(RING, gl.SamplingSchedule(n_samples=3, n_chains=64), observe={"samples", "moments"}).result(30)
        assert cupy.used > 0
    gc.collect()
    assert cupy.used == 0


def test_large_colours_are_launched_as_graphs(cupy, monkeypatch):
    """A graph that was recorded once is launched again and again: its sweeps count from the device's own clock."""
    monkeypatch.setattr(cuda_session, "FUSED_POSITIONS", 0)
    schedule = gl.SamplingSchedule(n_samples=2, n_chains=33, n_warmup=70, sweeps_per_sample=40)
    found = []
    for address in ("cupy://0", "sim://ideal"):
        with gl.open_device(address) as device:
            found.append(device.submit(RING, schedule, seed=3).result(60).spins)
    np.testing.assert_array_equal(*found)
    assert cupy.graphs == 1


@pytest.mark.parametrize("model", [RING, POTTS], ids=["ising", "potts"])
def test_samples_can_stay_on_the_gpu_and_go_elsewhere_without_a_copy(cupy, model):
    schedule = gl.SamplingSchedule(n_samples=5, n_chains=3, n_warmup=2)
    with gl.open_device("cupy://0?results=gpu") as device:
        result = device.submit(model, schedule, seed=5).result(60)
        nothing = device.submit(model, schedule, observe="moments").result(60)
    shared = np.from_dlpack(result.to_dlpack())
    np.testing.assert_array_equal(shared, result.packed)
    assert np.shares_memory(shared, result.resident)
    with pytest.raises(gl.errors.InvalidModelError):
        nothing.to_dlpack()


def test_other_devices_give_host_memory_to_dlpack():
    with gl.open_device("sim://ideal") as device:
        result = device.submit(RING, gl.SamplingSchedule(n_samples=5), seed=5).result(60)
    assert result.resident is None
    assert np.shares_memory(np.from_dlpack(result.to_dlpack()), result.packed)
