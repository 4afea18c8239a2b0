"""Entropy health: healthy p-bits raise no alarm at the stated rate, broken ones do, and can be masked."""

from __future__ import annotations

import math

import glauber as gl
import numpy as np
import pytest
from glauber.errors import InvalidModelError, ModelNotSupportedError
from glauber.health import LAG_ALPHA, entropy_health, proportion_limit, repetition_limit
from scipy.stats import binom

N = 32
FREE = gl.IsingModel(np.zeros(N), np.zeros((0, 2), dtype=np.int32), np.zeros(0))
ALL = np.ones((1, N), dtype=bool)


def coins(rng, p=0.5, shape=(4, 2048, N)):
    return np.where(rng.random(shape) < p, 1, -1).astype(np.int8)


def test_limits_are_those_of_the_standard():
    assert repetition_limit(1.0) == 21  # 1 + 20 / 1
    assert repetition_limit(0.5) == 41
    limit = proportion_limit(1.0)
    assert limit == 589  # SP 800-90B's own example: critbinom(1024, 0.5, 1 - 2^-20) + 1
    assert binom.sf(limit - 1, 1024, 0.5) <= 2.0**-20 < binom.sf(limit - 2, 1024, 0.5)


def test_healthy_p_bits_raise_no_alarm():
    rng = np.random.default_rng(1)
    arguments = np.tile(rng.uniform(-0.8, 0.8, N), (4, 1))
    for seed in range(20):
        spins = coins(np.random.default_rng(seed), 1 / (1 + np.exp(-2 * arguments[0])))
        found = entropy_health(FREE, spins, arguments, np.broadcast_to(ALL, (4, N)))
        assert (found.n_tested, found.n_values, found.alarms) == (N, 8192, ())
    assert found.largest_correlation is not None
    assert abs(found.largest_correlation[2]) * math.sqrt(4 * 2040) < 5


def test_the_rate_of_false_alarms_of_lags_is_what_it_says(monkeypatch):
    monkeypatch.setattr("glauber.health.LAG_ALPHA", 0.2)
    spins = [coins(np.random.default_rng(seed), shape=(2, 400, 8)) for seed in range(400)]
    free = gl.IsingModel(np.zeros(8), np.zeros((0, 2), dtype=np.int32), np.zeros(0))
    results = [entropy_health(free, s, np.zeros((2, 8)), np.ones((2, 8), dtype=bool)) for s in spins]
    alarmed = sum(any(alarm.test == "lag correlation" for alarm in found.alarms) for found in results)
    low, high = binom.ppf([0.0005, 0.9995], 400, 0.2)
    assert low - 20 <= alarmed <= high  # Bonferroni stays a little below
    assert LAG_ALPHA < 1e-5


@pytest.mark.parametrize(("argument", "values"), [(1.8, 110), (1.8, 5000), (1.0, 1000)])
def test_rare_values_raise_no_alarm(argument, values):
    """Coincidences of rare values are Poisson's and not normal: 1 % of healthy p-bits would fail by normal limits."""
    n, p = 1000, 1 / (1 + math.exp(-2 * argument))
    free = gl.IsingModel(np.zeros(1), np.zeros((0, 2), dtype=np.int32), np.zeros(1)[:0])
    rng = np.random.default_rng(7)
    alarmed = 0
    for _ in range(n if values < 2000 else 100):
        spins = coins(rng, p, (1, values, 1))
        found = entropy_health(free, spins, np.full((1, 1), argument), np.ones((1, 1), dtype=bool), margin=0.3)
        alarmed += bool(found.alarms)
    assert alarmed == 0


@pytest.mark.parametrize(
    ("fault", "tests"),
    [
        ("stuck", {"repetition count", "adaptive proportion"}),
        ("biased", {"adaptive proportion"}),
        ("lazy", {"lag correlation"}),
        ("alternating", {"lag correlation"}),
    ],
)
def test_broken_p_bits_raise_alarms(fault, tests):
    rng = np.random.default_rng(3)
    spins = coins(rng)
    if fault == "stuck":
        spins[..., 5] = 1
    elif fault == "biased":
        spins[..., 5] = coins(rng, 0.85, spins.shape[:2])
    elif fault == "alternating":
        spins[..., 5] = np.where(np.arange(spins.shape[1]) % 2, 1, -1) * coins(rng, 0.9, spins.shape[:2])
    else:
        for k in range(1, spins.shape[1]):
            again = rng.random(4) < 0.3
            spins[again, k, 5] = spins[again, k - 1, 5]
    found = entropy_health(FREE, spins, np.zeros((4, N)), np.broadcast_to(ALL, (4, N)))
    assert found.failed_sites == (5,)
    assert tests <= {alarm.test for alarm in found.alarms}
    assert "p-bit 5" in str(found)
    assert found.as_dict()["failed_sites"] == [5]


def test_a_callback_that_fails_costs_no_result():
    def bad(found):
        raise ValueError("mine")

    with gl.open_device("sim://pbit-king-64?chip=2&n_stuck=1") as device:
        device.watch_health(bad)
        free = gl.IsingModel(np.full(64, 0.2), np.zeros((0, 2), dtype=np.int32), np.zeros(0))
        for _ in range(2):
            result = device.submit(free, gl.SamplingSchedule(n_samples=1100, n_chains=2), seed=1).result()
            assert result.n_samples == 1100


def test_what_cannot_be_tested_is_said():
    model = gl.IsingModel.from_edges([(0, 1, 1.0), (2, 3, 1.0)], {4: 9.0}, n_sites=6)
    with gl.open_device("sim://ideal") as device:
        schedule = gl.SamplingSchedule(n_samples=600, n_chains=2)
        found = device.submit(model, schedule, clamp={3: 1}, seed=1).result().health()
        # 2 has only a held neighbour, 5 none; 0 and 1 move together, 3 is held, 4 never changes
        assert found.n_tested == 2
        assert found.skipped == {"held": 1, "coupled to spins that move": 2, "almost sure of its value": 1}
        assert not found.alarms
        own = np.zeros((2, 6))
        own[1] = 1.0
        found = device.submit(gl.IsingModel(np.zeros(6), model.edges[:0], model.couplings[:0]), schedule, fields=own)
        assert found.result().health().skipped == {"another field in each chain": 6}
        potts = device.submit(gl.PottsModel.from_edges(2, 3, [(0, 1, 1.0)]), schedule).result()
        with pytest.raises(InvalidModelError, match="p-bits"):
            potts.health()
        with pytest.raises(InvalidModelError, match="margin"):
            device.submit(model, schedule).result().health(margin=-1)


def test_a_device_watches_and_masks():
    heard = []
    flaws = "chip=2&n_stuck=1&n_dead=1&memory_sweeps=0"
    with gl.open_device(f"sim://pbit-king-64?{flaws}") as device:
        fields = np.full(64, 0.2)
        free = gl.IsingModel(fields, np.zeros((0, 2), dtype=np.int32), np.zeros(0))
        device.watch_health(heard.append, mask=True)
        device.submit(free, gl.SamplingSchedule(n_samples=1100, n_chains=2), seed=1).result()
        assert len(heard) == 1
        (stuck,) = heard[0].failed_sites  # a dead one is a fair coin: no fault of entropy, and left to calibration
        assert set(device.masked) == {stuck}
        right = stuck + 1 if stuck % 8 < 7 else stuck - 1
        coupled = gl.IsingModel.from_edges([(stuck, right, 1.0)], n_sites=64)
        with pytest.raises(ModelNotSupportedError, match="failed its health test"):
            device.submit(coupled)
        device.submit(gl.IsingModel.from_edges([(0, 1, 0.5), (1, 2, 0.5), (0, 2, 0.5)]), embed=True).result()
        device.mask([7])
        assert device.masked[7] == "masked by hand"
        with pytest.raises(InvalidModelError, match="0 to 63"):
            device.mask([64])
