"""Results: packed on disk, aggregates, diagnostics with stated error rates, and the way to other libraries."""

from __future__ import annotations

import copy
import json
import math
import pickle
from dataclasses import asdict, replace

import dimod
import glauber as gl
import numpy as np
import pytest
from glauber.compile import pack_spins, unpack_spins
from glauber.diagnostics import mixing_of
from glauber.errors import FileFormatError, InvalidModelError
from glauber.testing import ExactLaw
from scipy.stats import binom

RING = gl.IsingModel.from_edges([(i, (i + 1) % 10, 0.5 if i % 3 else -0.7) for i in range(10)], {0: 0.4, 5: -0.2})
POTTS = gl.PottsModel(np.eye(4, 3), [(0, 1), (1, 2), (2, 3)], [0.8, -0.5, 0.3])


@pytest.fixture(scope="module")
def device():
    with gl.open_device("sim://ideal?seed=11") as opened:
        yield opened


def draw(device, model=RING, **kwargs):
    beta = kwargs.pop("beta", 1.0)
    schedule = gl.SamplingSchedule(n_samples=400, n_chains=8, n_warmup=50, sweeps_per_sample=2, beta=beta)
    return device.submit(model, schedule, **kwargs).result(60)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 33])
def test_packing_is_undone_by_unpacking(n):
    spins = np.random.default_rng(n).choice(np.array([-1, 1], dtype=np.int8), (3, 4, n))
    packed = pack_spins(spins)
    assert packed.shape == (3, 4, -(-n // 8))
    np.testing.assert_array_equal(unpack_spins(packed, n), spins)


@pytest.mark.parametrize("model", [RING, POTTS], ids=["ising", "potts"])
def test_file_keeps_everything(device, tmp_path, model):
    samples = draw(device, model, observe={"samples", "moments", "energies"}, seed=1)
    path = tmp_path / "s.npz"
    samples.save(path)
    back = gl.SampleSet.load(path)
    np.testing.assert_array_equal(back.states, samples.states)
    np.testing.assert_array_equal(back.energies, samples.energies)
    np.testing.assert_array_equal(back.last, samples.last)
    np.testing.assert_array_equal(back.moments.sites, samples.moments.sites)
    assert back.provenance == samples.provenance
    assert back.energy_report == samples.energy_report
    assert back.model == samples.model
    with pytest.raises(InvalidModelError, match="run the job again"):
        back.programmed_energies  # noqa: B018
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FileFormatError, match="not a complete"):
        gl.SampleSet.load(path)


def test_spins_are_packed_on_disk(device, tmp_path):
    samples = draw(device, seed=1)
    assert samples.packed.nbytes == 8 * 400 * 2  # 10 spins in 2 bytes
    samples.save(tmp_path / "s.npz")
    with np.load(tmp_path / "s.npz") as archive:
        assert archive["packed"].nbytes == 8 * 400 * 2


def test_a_request_survives_its_file_and_gives_the_same_samples(device, tmp_path):
    request = gl.JobRequest(
        RING, gl.AnnealingSchedule(n_sweeps=20, n_chains=3), clamp={1: -1}, fields=np.ones(10), seed=2,
        observe={"last"}, budget=gl.Budget(sweeps=100),
    )  # fmt: skip
    request.save(tmp_path / "r.npz")
    back = gl.JobRequest.load(tmp_path / "r.npz")
    assert back.key == request.key
    first, second = (device.submit_request(each).result(30).last for each in (request, back))
    np.testing.assert_array_equal(first, second)


def test_the_request_key_follows_what_decides_the_result_and_nothing_else():
    base = gl.JobRequest(RING, seed=1)
    assert base.key == gl.JobRequest(RING, seed=1, priority=5, threads=2, isa="sse2").key
    others = [
        {"seed": 2},
        {"seed": 1, "clamp": {0: 1}},
        {"seed": 1, "observe": "last"},
        {"seed": 1, "fields": np.ones(10)},
    ]
    assert len({base.key, *(gl.JobRequest(RING, **other).key for other in others)}) == 5


def test_a_result_finds_the_key_of_its_request_when_asked(device):
    """Hashing waits; the request must not change meanwhile, and copies and pickles have the key too."""
    request = gl.JobRequest(RING, fields=np.ones(10), clamp={1: -1}, initial=-np.ones(10, np.int8), seed=2)
    provenances = [device.submit_request(request).result(30).provenance for _ in range(4)]
    for array in (request.fields, request.clamp, request.initial):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1
    assert pickle.loads(pickle.dumps(provenances[0])).request_key == request.key
    assert copy.deepcopy(provenances[1]).request_key == request.key
    assert asdict(provenances[2])["request_key"] == request.key
    assert replace(provenances[3], seed=3).request_key == provenances[3].request_key == request.key


def test_aggregate_and_lowest(device):
    samples = draw(device)
    found = samples.aggregate()
    assert found.counts.sum() == 3200
    assert (np.diff(found.energies) >= 0).all()
    assert len(np.unique(found.states, axis=0)) == len(found)
    np.testing.assert_allclose(RING.energies(found.states), found.energies)
    best = samples.lowest(2)
    assert len(best) == 2
    assert best.energies[0] == samples.energies.min() == pytest.approx(ExactLaw(RING, 1.0).energies.min())
    with pytest.raises(InvalidModelError, match="integer from 1"):
        samples.lowest(0)


def test_programmed_energies_are_those_of_the_chip(device):
    with gl.open_device("sim://ideal?weight_bits=3") as coarse:
        samples = draw(coarse)
    report = samples.provenance.quantisation
    assert not report.exact
    assert report.largest_error > 0.01
    programmed = samples.program.as_model()
    np.testing.assert_allclose(samples.programmed_energies, programmed.energies(samples.states))
    assert np.abs(samples.programmed_energies - samples.energies).max() > 0.01
    assert report.largest_error == pytest.approx(
        max(np.abs(programmed.couplings - RING.couplings).max(), np.abs(programmed.fields - RING.fields).max())
    )


def test_to_dimod_keeps_states_energies_and_labels(device):
    bqm = dimod.BinaryQuadraticModel({"a": 0.5}, {("a", "b"): -1.0}, 0.25, "SPIN")
    samples = draw(device, gl.IsingModel.from_bqm(bqm))
    converted = samples.to_dimod()
    assert set(converted.variables) == {"a", "b"}
    np.testing.assert_allclose(bqm.energies(converted), converted.record.energy)
    assert len(converted) == 3200


def test_to_arviz(device):
    tree = draw(device).to_arviz()
    assert tree["posterior"]["states"].shape == (8, 400, 10)
    assert tree["sample_stats"]["energy"].shape == (8, 400)


def test_beta_interval_has_its_stated_coverage(device):
    """Nominal 95 % intervals over 200 runs: the number that hold beta lies in the binomial 99.9 % band around 95 %."""
    runs, hits = 200, 0
    schedule = gl.SamplingSchedule(n_samples=100, n_chains=4, n_warmup=30, sweeps_per_sample=1, beta=0.8)
    for job in [device.submit(RING, schedule, seed=seed) for seed in range(runs)]:
        beta = job.result(60).diagnostics().beta
        hits += beta.low <= 0.8 <= beta.high
    low, high = binom.interval(0.999, runs, 0.95)
    assert low <= hits <= high


def test_beta_that_is_five_percent_off_is_noticed(device):
    schedule = gl.SamplingSchedule(n_samples=4000, n_chains=8, n_warmup=50, sweeps_per_sample=2, beta=1.05)
    beta = device.submit(RING, schedule, seed=3).result(60).diagnostics(level=0.999).beta
    assert not beta.low <= 1.0 <= beta.high
    assert beta.low <= 1.05 <= beta.high


def test_beta_of_a_potts_model_with_clamps_and_fields(device):
    schedule = gl.SamplingSchedule(n_samples=4000, n_chains=8, n_warmup=50, beta=1.3)
    samples = device.submit(POTTS, schedule, seed=3, clamp={0: 2}, fields=0.5 * POTTS.fields + 0.2).result(60)
    beta = samples.diagnostics(level=0.999).beta
    assert beta.low <= 1.3 <= beta.high
    assert beta.standard_error < 0.05


def test_diagnostics_of_good_and_of_bad_chains(device):
    good = draw(device).diagnostics()
    assert good.rhat < 1.01
    assert good.ess > 500
    assert good.tau_int < 20
    assert "R-hat" in str(good)
    cold = gl.IsingModel.from_edges([(0, 1, 10.0)])  # two chains that never leave their start
    schedule = gl.SamplingSchedule(n_samples=100, n_chains=4, beta=10.0)
    frozen = device.submit(cold, schedule, seed=1, initial=np.array([[1, 1], [1, 1], [-1, -1], [-1, -1]])).result(30)
    bad = frozen.diagnostics()
    assert bad.magnetisation.rhat == math.inf
    assert any("disagree" in warning for warning in bad.warnings)
    assert bad.as_dict()["warnings"] == list(bad.warnings)


def test_one_chain_has_diagnostics_too(device):
    schedule = gl.SamplingSchedule(n_samples=2000, n_chains=1, n_warmup=50, sweeps_per_sample=2)
    found = device.submit(RING, schedule, seed=1).result(30).diagnostics()
    assert found.n_chains == 1
    assert found.rhat < 1.02  # of the chain's halves
    assert found.ess > 200


@pytest.mark.parametrize("n_chains", [1, 3])
def test_energies_follow_the_fields_of_the_job(device, n_chains):
    fields = np.random.default_rng(1).normal(size=(n_chains, 10))
    schedule = gl.SamplingSchedule(n_samples=7, n_chains=3)
    samples = device.submit(RING, schedule, fields=fields, seed=1, observe={"samples"}).result(30)
    summed = device.submit(RING, schedule, fields=fields, seed=1, observe={"energies"}).result(30)
    rows = np.broadcast_to(fields, (3, 10))
    expected = [RING.replace(fields=h).energies(states) for h, states in zip(rows, samples.states, strict=True)]
    np.testing.assert_allclose(samples.energies, expected, atol=1e-12)
    np.testing.assert_allclose(summed.energies, expected, atol=1e-12)
    np.testing.assert_allclose(samples.programmed_energies, expected, atol=1e-3)  # 16 bits


def test_an_archive_of_something_else_is_refused(tmp_path):
    gl.write_model(RING, tmp_path / "m.npz")
    gl.JobRequest(RING, seed=1).save(tmp_path / "r.npz")
    with pytest.raises(FileFormatError, match=r"glauber\.model"):
        gl.SampleSet.load(tmp_path / "m.npz")
    with pytest.raises(FileFormatError, match=r"glauber\.job-request"):
        gl.SampleSet.load(tmp_path / "r.npz")
    np.savez(tmp_path / "n.npz", a=np.ones(3))
    with pytest.raises(FileFormatError, match="not a complete"):
        gl.SampleSet.load(tmp_path / "n.npz")


def _with_header(path, change):
    """The archive again with its JSON header changed."""
    with np.load(path) as archive:
        arrays = dict(archive)
    header = json.loads(arrays.pop("header").tobytes())
    change(header, arrays)
    np.savez(path, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)


DAMAGE = {
    "version": lambda header, arrays: header.update(version=99),
    "no schedule": lambda header, arrays: header.pop("schedule"),
    "other schedule": lambda header, arrays: header["schedule"].update(kind="guess"),
    "negative samples": lambda header, arrays: header["schedule"].update(n_samples=-1),
    "seed a list": lambda header, arrays: header.update(seed=[1]),
    "no edges": lambda header, arrays: arrays.pop("edges"),
    "edges elsewhere": lambda header, arrays: arrays.update(edges=np.array([[0, 99]])),
    "fields of text": lambda header, arrays: arrays.update(fields=np.array(["x"] * 10)),
    "clamp of the wrong shape": lambda header, arrays: arrays.update(clamp=np.ones((2, 2), int)),
    "observe a number": lambda header, arrays: header.update(observe=3),
    "offset a word": lambda header, arrays: header.update(offset="high"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_request_is_a_format_error(tmp_path, damage):
    path = tmp_path / "r.npz"
    gl.JobRequest(RING, seed=1).save(path)
    _with_header(path, DAMAGE[damage])
    with pytest.raises(FileFormatError, match=r"r\.npz"):
        gl.JobRequest.load(path)


SAMPLE_DAMAGE = {
    "no timing": lambda header, arrays: header.pop("timing"),
    "provenance a list": lambda header, arrays: header.update(provenance=[]),
    "no last state": lambda header, arrays: arrays.pop("last"),
    "samples of another size": lambda header, arrays: arrays.update(packed=np.zeros((1, 1, 1), np.uint8)),
    "count a word": lambda header, arrays: header.update(n_samples="many"),
}


@pytest.mark.parametrize("damage", SAMPLE_DAMAGE)
def test_a_damaged_result_is_a_format_error(device, tmp_path, damage):
    path = tmp_path / "s.npz"
    draw(device, seed=1).save(path)
    _with_header(path, SAMPLE_DAMAGE[damage])
    with pytest.raises(FileFormatError, match=r"s\.npz"):
        gl.SampleSet.load(path).states  # noqa: B018


def test_mixing_of_known_autocorrelation():
    """AR(1) with coefficient a has tau_int = (1 + a) / (1 - a); ESS is accurate to about 10 % at this length."""
    rng = np.random.default_rng(5)
    a, x = 0.8, np.zeros((4, 50_000))
    noise = rng.normal(size=x.shape)
    for t in range(1, x.shape[1]):
        x[:, t] = a * x[:, t - 1] + noise[:, t]
    assert mixing_of(x, 3).tau_int == pytest.approx(3 * (1 + a) / (1 - a), rel=0.1)


def test_too_few_or_constant_samples_say_nothing(device):
    assert mixing_of(np.ones((3, 50)), 1).ess is None
    assert mixing_of(np.arange(6.0).reshape(2, 3), 1).rhat is None
    with pytest.raises(InvalidModelError, match="between 0 and 1"):
        draw(device).diagnostics(level=1.0)


def test_quantisation_effect_on_the_law_is_reported():
    from glauber.compile import compile_program, distribution_change, step_of
    from glauber.device import open_device

    with open_device("sim://ideal?weight_bits=3") as coarse, open_device("sim://ideal") as fine:
        far = distribution_change(RING, compile_program(RING, step_of(RING, coarse.spec)), 1.0)
        near = distribution_change(RING, compile_program(RING, step_of(RING, fine.spec)), 1.0)
    assert near < 1e-4 < 0.01 < far
