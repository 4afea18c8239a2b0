"""Chips with flaws: bit-identical on the reference and the C core, and each flaw is what it says it is."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import glauber as gl
import numpy as np
import pytest
from glauber.catalogue import load_spec
from glauber.checkpoint import resumed
from glauber.errors import DeviceNotFoundError, FileFormatError, InvalidModelError, ModelNotSupportedError
from glauber.nonidealities import TYPICAL, Nonidealities
from glauber_simulator.chip_core import normal as core_normal
from glauber_simulator.core import AVAILABLE_ISA
from glauber_simulator.flaws import fabricate
from glauber_simulator.noise import NORMAL, UNIT, fabricated, normal
from scipy.special import ndtri
from scipy.stats import chi2

KING = load_spec("pbit-king-64")
EDGES = KING.topology.edges()
FULL = gl.IsingModel(
    np.random.default_rng(1).normal(size=64) * 0.3, EDGES, np.random.default_rng(2).uniform(-1, 1, len(EDGES))
)
FLAWS = (
    "gain_spread=0.1&offset_spread=0.3",
    "coupling_error=0.05&asymmetry=0.05",
    "n_dead=3&n_stuck=3",
    "dac_bits=1",
    "dac_bits=3&dac_inl_lsb=2&dac_dnl_lsb=1",
    "crosstalk=0.05",
    "readout_error=0.05&readout_bias=0.5&readout_late=0.1&readout_undecided=0.05",
    "memory_sweeps=3",
    "ou_noise=0.5&ou_sweeps=10",
    "flicker_noise=0.5",
    "supply_noise=0.5",
    "temperature_c=90&offset_per_kelvin=0.01&self_heating_k=20&heating_seconds=0.00001",
    "drift_per_hour=0.01&age_hours=10",
    "flaws=typical",
)


def draw(flaws, model, schedule, *, device="pbit-king-64", **arguments):
    with gl.open_device(f"sim://{device}?{flaws}", seed=1) as opened:
        return opened.submit(model, schedule, seed=9, **arguments).result()


def free(field, n=64):
    """p-bits without couplings, all in one field."""
    return gl.IsingModel.from_edges([], dict.fromkeys(range(n), field), n_sites=n)


# Identity


@pytest.mark.parametrize("flaws", FLAWS)
def test_reference_and_core_agree_bit_for_bit(flaws):
    schedule = gl.SamplingSchedule(n_samples=2, n_chains=34, beta=0.8, n_warmup=1, sweeps_per_sample=2)
    fields = -FULL.fields[None]
    arguments = {"clamp": {3: 1, 10: -1}, "observe": {"samples", "moments", "last"}, "fields": fields}
    slow = draw(f"chip=5&{flaws}&body=reference", FULL, schedule, **arguments)
    assert slow.provenance.kernel["body"] == "reference"
    for isa, threads in [*((isa, 1) for isa in AVAILABLE_ISA), (None, 2)]:
        fast = draw(f"chip=5&{flaws}", FULL, schedule, isa=isa, threads=threads, **arguments)
        assert "chip" in fast.provenance.kernel["kernel"]
        assert np.array_equal(slow.spins, fast.spins), (isa, threads)
        assert np.array_equal(slow.last, fast.last)
        assert np.array_equal(slow.moments.edges, fast.moments.edges)
    assert not np.array_equal(slow.spins, draw("", FULL, schedule, **arguments).spins)


def test_reference_and_core_agree_where_only_crosstalk_couples():
    model, schedule = free(0.4), gl.SamplingSchedule(n_samples=3, n_chains=5)
    flaws = "chip=5&crosstalk=0.2&gain_spread=0.3"
    core, reference = (draw(f"{flaws}&body={body}", model, schedule) for body in ("core", "reference"))
    assert np.array_equal(core.spins, reference.spins)


def test_no_flaws_is_the_ideal_device():
    schedule = gl.SamplingSchedule(n_samples=3, n_chains=40)
    assert np.array_equal(draw("", FULL, schedule).spins, draw("chip=7&flaws=none", FULL, schedule).spins)
    assert Nonidealities(chip=3, age_hours=7.0).is_ideal
    assert not Nonidealities(crosstalk=-0.01).is_ideal


def test_a_slight_flaw_changes_few_samples():
    """The random numbers are the ideal device's own, so only decisions near a threshold change."""
    schedule = gl.SamplingSchedule(n_samples=1, n_chains=512)
    ideal, slight = (draw(flaws, FULL, schedule).spins for flaws in ("", "offset_spread=0.001"))
    assert 0 < (ideal != slight).mean() < 0.003


@pytest.mark.parametrize("flaws", ["flaws=typical", "memory_sweeps=2&readout_late=0.2"])
@pytest.mark.parametrize("body", ["core", "reference"])
def test_a_resumed_run_goes_on_as_if_nothing_had_been(flaws, body):
    with gl.open_device(f"sim://pbit-king-64?{flaws}&body={body}") as device:
        driver = device._machine
        chains = 40 if body == "core" else 2
        schedule = gl.SamplingSchedule(n_samples=4, n_chains=chains, n_warmup=3, sweeps_per_sample=3)
        whole = device.submit(FULL, schedule, seed=9).result()
        from glauber.prepare import ProgramCache, prepare

        prepared = prepare(gl.JobRequest(FULL, schedule, seed=9), driver, 9, ProgramCache())
        driver.program(prepared.program)
        run, got = prepared.run, []
        while run.first_sweep <= run.n_sweeps:
            batch = next(iter(driver.run(replace(run, n_samples=run.n_samples))))
            got += [] if batch.samples is None else [batch.samples]
            run = resumed(run, batch)
        assert np.array_equal(np.concatenate(got, axis=1), whole.packed)
        shard = next(iter(driver.run(replace(prepared.run, first_chain=1, n_chains=1, n_warmup=0, n_samples=1))))
        again = next(iter(driver.run(replace(prepared.run, n_chains=2, n_warmup=0, n_samples=1))))
        assert np.array_equal(shard.state[0], again.state[1])


def test_integer_normal_numbers():
    rng = np.random.default_rng(3)
    u = np.concatenate([rng.integers(0, 2**32, 4000), [0, 1, 2**31 - 1, 2**31, 2**32 - 1], 2 ** np.arange(32)])
    u = u.astype(np.uint64)
    assert [core_normal(int(each)) for each in u] == normal(u).tolist()
    assert np.abs(normal(u) / UNIT - ndtri((u + 0.5) / 2**32)).max() < 2e-4
    assert (np.diff(NORMAL) >= 0).all()
    assert np.array_equal(normal(u), -normal(2**32 - 1 - u))


# Each flaw is what it says


def z_score(ups, p, n):
    return (ups - n * p) / np.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("temperature", [25.0, 125.0])
def test_law_of_gain_and_offset(temperature):
    how = Nonidealities(chip=2, gain_spread=0.2, offset_spread=0.4, temperature_c=temperature)
    chip, n = fabricate(KING, how), 40_000
    for field in (-1.0, 0.5):
        flaws = f"chip=2&gain_spread=0.2&offset_spread=0.4&temperature_c={temperature}"
        ups = (draw(flaws, free(field), gl.SamplingSchedule(n_samples=50, n_chains=n // 50, beta=0.7)).spins > 0).sum(
            axis=(0, 1)
        )
        held = round(field * 127) / 127
        slope = chip.gain * 298.15 / (273.15 + temperature)
        z = z_score(ups, (1 + np.tanh(slope * 0.7 * held + chip.offset)) / 2, n)
        assert 1e-5 < chi2.sf((z**2).sum(), 64) < 1 - 1e-5


def test_spreads_and_their_correlation_in_space():
    gains, offsets, pairs = [], [], []
    for chip in range(300):
        made = fabricate(KING, Nonidealities(chip=chip, gain_spread=0.1, offset_spread=0.2, spatial_correlation=0.6))
        gains.append(made.gain)
        offsets.append(made.offset)
        z = made.offset / 0.2
        pairs.append((z[EDGES[:, 0]] * z[EDGES[:, 1]]).mean())
    n = 300 * 64
    assert abs(np.std(gains) / 0.1 - 1) < 5 * 2 / math.sqrt(2 * n)  # neighbours are worth half or so
    assert abs(np.std(offsets) / 0.2 - 1) < 5 * 2 / math.sqrt(2 * n)
    assert abs(np.mean(gains) - 1) < 5 * 0.1 * 3 / math.sqrt(n)
    # of the shared part, neighbours share the p-bits that are neighbours of both, themselves included
    matrix = np.eye(64)
    matrix[EDGES[:, 0], EDGES[:, 1]] = matrix[EDGES[:, 1], EDGES[:, 0]] = 1.0
    both = matrix @ matrix / np.sqrt(np.outer(matrix.sum(axis=0), matrix.sum(axis=0)))
    expected = 0.6 * both[EDGES[:, 0], EDGES[:, 1]].mean()
    assert abs(np.mean(pairs) - expected) < 5 * np.std(pairs) / math.sqrt(300)
    apart = [z[0] * z[63] for z in np.array(offsets) / 0.2]
    assert abs(np.mean(apart)) < 5 / math.sqrt(300)


def test_coupling_errors_both_ways():
    how = Nonidealities(coupling_error=0.02, asymmetry=0.03)
    rng = np.random.default_rng(1)
    i, j = rng.integers(0, 10_000, (2, 4000))
    value, ideal = rng.normal(size=4000), load_spec("ideal")
    made = fabricate(ideal.model_copy(update={"units": KING.units}), how)
    there, back = made.coupling(i, j, value, 2.0) - value, made.coupling(j, i, value, 2.0) - value
    assert np.std((there + back) / 2) == pytest.approx(2 * 0.02, rel=5 / math.sqrt(8000))
    assert np.std(there - back) == pytest.approx(2 * 0.03, rel=5 / math.sqrt(8000))
    chip = fabricate(KING, how)  # couplers of a chip err whether they are programmed or not
    assert (len(chip.pairs), chip.coupling_error) == (len(EDGES), 0.0)
    assert np.std(chip.crosstalk.mean(axis=1)) == pytest.approx(0.02, rel=5 / math.sqrt(2 * len(EDGES)))
    assert np.std(np.diff(chip.crosstalk, axis=1)) == pytest.approx(0.03, rel=5 / math.sqrt(2 * len(EDGES)))


def test_dead_and_stuck_p_bits():
    how = Nonidealities(chip=4, n_dead=5, n_stuck=4)
    made = fabricate(KING, how)
    dead, stuck = made.gain == 0, made.stuck != 0
    assert (dead.sum(), stuck.sum(), (dead & stuck).sum()) == (5, 4, 0)
    schedule = gl.SamplingSchedule(n_samples=10, n_chains=1000, beta=8.0)
    spins = draw("chip=4&n_dead=5&n_stuck=4", free(1.0), schedule).spins.reshape(-1, 64)
    assert (spins[:, ~dead & ~stuck] == -1).mean() < 1e-5  # exp(-16) expected
    assert (spins[:, stuck] == made.stuck[stuck]).all()
    assert np.abs(z_score((spins[:, dead] > 0).sum(axis=0), 0.5, len(spins))).max() < 5
    held = draw("chip=4&n_dead=5&n_stuck=4", free(1.0), schedule, clamp=dict.fromkeys(range(64), -1)).spins
    assert (held[..., stuck] == made.stuck[stuck]).all()
    assert (held[..., dead] == -1).all()


def test_dac_levels():
    sites, codes = np.repeat(np.arange(400), 3), np.tile([-60.0, 0.0, 127.0], 400)
    coarse = fabricate(KING, Nonidealities(dac_bits=3)).level(np.linspace(-127, 127, 255), sites[:255], 127.0, 0)
    assert np.allclose(np.unique(coarse), 127 * np.arange(-3, 4) / 3)
    assert set(fabricate(KING, Nonidealities(dac_bits=1)).level(np.array([-3.0, 0.0, 8.0]), sites[:3], 9.0, 0)) == {
        -9.0, 0.0, 9.0,
    }  # fmt: skip
    bowed = fabricate(KING, Nonidealities(dac_inl_lsb=1.5)).level(codes, sites, 127.0, 0) - codes
    middle = bowed[codes == 0]
    assert np.std(middle) == pytest.approx(1.5, rel=5 / math.sqrt(800))
    assert np.allclose(bowed[codes == -60], middle * (1 - (60 / 127) ** 2))
    assert np.allclose(bowed[codes == 127], 0)
    rough = fabricate(KING, Nonidealities(dac_dnl_lsb=0.5)).level(codes, sites, 127.0, 0) - codes
    assert np.std(rough) == pytest.approx(0.5, rel=5 / math.sqrt(2400))
    assert abs(np.corrcoef(rough[codes == 0], rough[codes == 127])[0, 1]) < 5 / math.sqrt(400)


def test_crosstalk_couples_neighbours_that_nobody_coupled():
    made, n = fabricate(KING, Nonidealities(chip=3, crosstalk=0.2)), 60_000
    apart = [k for k, (i, j) in enumerate(EDGES.tolist()) if {i, j} in ({0, 1}, {62, 63})]
    model = free(0.0)
    clamp = dict.fromkeys(set(range(64)) - {0, 1, 62, 63}, 1) | {8: -1, 9: -1, 54: -1, 55: -1}
    spins = draw("chip=3&crosstalk=0.2", model, gl.SamplingSchedule(n_samples=60, n_chains=n // 60), clamp=clamp).spins
    assert len(apart) == 2
    # the exact law of each pair: its own coupling, and fields from the clamped neighbours
    x = np.zeros((64, 64))
    x[EDGES[:, 0], EDGES[:, 1]] = x[EDGES[:, 1], EDGES[:, 0]] = made.crosstalk[:, 0]
    held = np.array([clamp.get(i, 0) for i in range(64)])
    for i, j in ((0, 1), (62, 63)):
        h = x[[i, j]] @ held
        states = itertools.product((-1, 1), repeat=2)
        weight = {(a, b): math.exp(h[0] * a + h[1] * b + x[i, j] * a * b) for a, b in states}
        p = sum(w for (a, b), w in weight.items() if a == b) / sum(weight.values())
        same = (spins[..., i] == spins[..., j]).sum()
        assert abs(z_score(same, p, n)) < 6  # of samples whose correlation is about tanh(0.2)^2
    assert made.crosstalk.mean() == pytest.approx(0.2, abs=5 * 0.06 / math.sqrt(len(EDGES)))


def test_readings_that_err():
    made = fabricate(KING, Nonidealities(readout_error=0.05, readout_bias=0.4))
    assert np.allclose(made.readout.down_as_up / made.readout.up_as_down, 1.4 / 0.6)
    n, model = 40_000, free(8.0)
    for sign, wrong in ((1, made.readout.up_as_down), (-1, made.readout.down_as_up)):
        fields = np.full((1, 64), 8.0 * sign)
        schedule = gl.SamplingSchedule(n_samples=40, n_chains=n // 40, beta=4.0)
        spins = draw("readout_error=0.05&readout_bias=0.4", model, schedule, fields=fields).spins
        z = z_score((spins != sign).sum(axis=(0, 1)), wrong, n)
        assert 1e-5 < chi2.sf((z**2).sum(), 64) < 1 - 1e-5
    undecided = draw("readout_undecided=0.3", model, schedule, fields=fields).spins
    assert abs(z_score((undecided > 0).sum(), 0.15, undecided.size)) < 5
    late = draw("readout_late=0.25", free(0.0), schedule).spins.astype(float)
    products = late[:, 1:] * late[:, :-1]
    # E[r_k r_(k+1)]: only a late reading of a spin that was read in time is its equal
    assert abs(products.mean() - 0.25 * 0.75) < 5 / math.sqrt(products.size)


def pair_of_tanh(size, correlation):
    """E[tanh(size g) tanh(size g')] of normal numbers with a correlation."""
    x, w = np.polynomial.hermite_e.hermegauss(40)
    w = w / w.sum()
    second = correlation * x[:, None] + math.sqrt(1 - correlation**2) * x[None, :]
    return float((w[:, None] * w[None, :] * np.tanh(size * x)[:, None] * np.tanh(size * second)).sum())


def lagged(spins, lag):
    """(mean product at a lag, its standard error by chains)."""
    products = (spins[:, lag:].astype(float) * spins[:, :-lag]).mean(axis=(1, 2))
    return products.mean(), products.std(ddof=1) / math.sqrt(len(products))


def test_decisions_with_memory():
    schedule = gl.SamplingSchedule(n_samples=60, n_chains=600)
    spins = draw("memory_sweeps=3", free(0.0), schedule).spins
    for lag in (1, 3, 9):
        mean, error = lagged(spins, lag)
        assert abs(mean - 2 / math.pi * math.asin(math.exp(-lag / 3))) < 5 * error
    biased = draw("memory_sweeps=3", free(0.5), gl.SamplingSchedule(n_samples=2, n_chains=1000)).spins
    p = 1 / (1 + math.exp(-2 * 64 / 127))
    assert abs((biased[:, 0] > 0).mean() - p) < 5 * math.sqrt(p * (1 - p) / 64_000)


@pytest.mark.parametrize(
    ("flaws", "correlations"),
    [
        ("ou_noise=0.6&ou_sweeps=5", {1: math.exp(-1 / 5), 8: math.exp(-8 / 5)}),
        (
            "flicker_noise=0.6",
            {lag: np.mean([math.exp(-lag / (2 * 4**k)) for k in range(8)]) for lag in (1, 10, 40)},
        ),
    ],
)
def test_slow_noise(flaws, correlations):
    spins = draw(flaws, free(0.0), gl.SamplingSchedule(n_samples=60, n_chains=600)).spins
    for lag, correlation in correlations.items():
        mean, error = lagged(spins, lag)
        assert abs(mean - pair_of_tanh(0.6, correlation)) < 5 * error, lag


def test_supply_noise_is_common_to_all_p_bits_and_new_each_sweep():
    spins = draw("supply_noise=0.5", free(0.0), gl.SamplingSchedule(n_samples=30, n_chains=1000)).spins.astype(float)
    together = (spins[..., :32] * spins[..., 32:]).mean(axis=(1, 2))
    assert abs(together.mean() - pair_of_tanh(0.5, 1.0)) < 5 * together.std() / math.sqrt(1000)
    mean, error = lagged(spins, 1)
    assert abs(mean) < 5 * error


def test_heat_and_age():
    made = fabricate(KING, Nonidealities(chip=6, offset_per_kelvin=0.01, self_heating_k=30.0, heating_seconds=1e-5))
    # a sweep takes 1 us here, so sweep 11 is one time constant after the start
    schedule = gl.SamplingSchedule(n_samples=11, n_chains=40_000)
    spins = draw("chip=6&offset_per_kelvin=0.01&self_heating_k=30&heating_seconds=0.00001", free(0.0), schedule).spins
    for sweep in (1, 11):
        warmth = 30 * (1 - math.exp(-(sweep - 1) / 10))
        p = (1 + np.tanh(made.offset_per_kelvin * warmth)) / 2
        z = z_score((spins[:, sweep - 1] > 0).sum(axis=0), p, 40_000)
        assert 1e-5 < chi2.sf((z**2).sum(), 64) < 1 - 1e-5
    fresh, aged = (fabricate(KING, Nonidealities(drift_per_hour=0.01, age_hours=hours)) for hours in (0.0, 100.0))
    assert np.array_equal(fresh.offset, np.zeros(64))
    assert np.allclose(aged.offset, 100 * aged.drift_per_hour)
    assert np.std(aged.drift_per_hour) == pytest.approx(0.01, rel=5 / math.sqrt(128))


def test_typical_sizes_have_sources():
    typical = Nonidealities.typical(chip=3)
    assert typical.chip == 3
    for name, quantity in TYPICAL.items():
        assert getattr(typical, name) == quantity.value
        assert quantity.source
    zero = Nonidealities()
    unnamed = {name for name in Nonidealities.model_fields if getattr(zero, name) == 0} - set(TYPICAL)
    # faults, and what has a place in another size
    assert unnamed == {"chip", "n_dead", "n_stuck", "readout_bias", "age_hours"}


def test_fabrication_depends_on_all_its_numbers():
    a = fabricated(1, 2, np.arange(5), np.zeros(1, dtype=int))
    assert not np.array_equal(a, fabricated(2, 2, np.arange(5), np.zeros(1, dtype=int)))
    assert not np.array_equal(a, fabricated(1, 3, np.arange(5), np.zeros(1, dtype=int)))
    assert not np.array_equal(a, fabricated(1, 2, np.arange(5), np.ones(1, dtype=int)))


# What is refused


@pytest.mark.parametrize(
    ("address", "error", "words"),
    [
        ("sim://pbit-king-64?gain_spread=-1", InvalidModelError, "gain_spread"),
        ("sim://pbit-king-64?gain_spread=much", InvalidModelError, "gain_spread"),
        ("sim://pbit-king-64?flaws=nowhere.json", InvalidModelError, "no such file"),
        ("sim://pbit-king-64?n_dead=65", ModelNotSupportedError, "has 64"),
        ("sim://pbit-king-64?gain=2", DeviceNotFoundError, "gain_spread"),
        ("sim://ideal?gain_spread=0.1", ModelNotSupportedError, "n_sites"),
        ("sim://pbit-king-64?n_sites=5", DeviceNotFoundError, "fixed number"),
    ],
)
def test_wrong_flaws_are_refused(address, error, words):
    with pytest.raises(error, match=words):
        gl.open_device(address)


def test_a_file_of_flaws(tmp_path):
    path = tmp_path / "flaws.json"
    path.write_text(Nonidealities(chip=3, gain_spread=0.2).model_dump_json())
    schedule = gl.SamplingSchedule(n_samples=2, n_chains=33)
    same = [draw(flaws, FULL, schedule).spins for flaws in (f"flaws={path}", "chip=3&gain_spread=0.2")]
    assert np.array_equal(*same)
    path.write_text('{"gain_spread": "NaN"}')
    with pytest.raises(FileFormatError, match="gain_spread"):
        gl.open_device(f"sim://pbit-king-64?flaws={path}")


def test_what_a_flawed_chip_cannot_do():
    with gl.open_device("sim://ideal?n_sites=8&gain_spread=0.1") as device:
        ring = gl.IsingModel.from_edges([(i, (i + 1) % 8, 1.0) for i in range(8)])
        assert device.submit(ring, gl.SamplingSchedule(n_samples=3)).result().n_samples == 3
        with pytest.raises(ModelNotSupportedError, match="9 sites"):
            device.submit(free(0.0, 9))
        with pytest.raises(ModelNotSupportedError, match="tempering"):
            device.submit(ring, gl.TemperingSchedule(betas=(0.5, 1.0), n_samples=3))
        with pytest.raises(ModelNotSupportedError, match="p-bits"):
            device.submit(gl.PottsModel.from_edges(2, 3, [(0, 1, 1.0)]))
        with pytest.raises(ModelNotSupportedError, match="too large"):
            device.submit(ring, gl.SamplingSchedule(n_samples=3, beta=200.0))
