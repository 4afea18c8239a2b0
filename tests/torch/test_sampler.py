"""Bits and p-dits have the law that was asked for, on devices of every shape; seeds and books are kept."""

from __future__ import annotations

import copy
import pickle
import signal
import time

import glauber as gl
import numpy as np
import pytest
from glauber.catalogue import load_spec
from glauber.device import Device
from glauber.errors import DeviceClosedError, DeviceIOError, InvalidModelError, ModelNotSupportedError
from glauber.testing import DriverFaults, FaultyDriver
from glauber_simulator.driver import SimulatorDriver
from scipy.stats import chi2

torch = pytest.importorskip("torch", reason="needs the extra torch: pip install -e '.[torch]'")

ALPHA = 1e-6
ADDRESSES = ["sim://ideal", "sim://pbit-king-64", "sim://pbit-rbm-512", "firmware://host"]


def p_of_bits(drawn, probability) -> float:
    """Chi-square of counts of ones, one degree of freedom for each bit."""
    n = len(drawn)
    ones = drawn.sum(0).double().numpy().ravel()
    p = probability.double().numpy().ravel()
    return float(chi2.sf(((ones - n * p) ** 2 / (n * p * (1 - p))).sum(), len(p)))


@pytest.mark.parametrize("address", ADDRESSES)
def test_bits_have_their_probabilities(address):
    logits = torch.linspace(-3, 3, 150).reshape(3, 50)  # more than the 64 p-bits of one of the chips
    with gl.open_device(address, seed=5) as device:
        sampler = gl.torch.Sampler(device)
        drawn = sampler.bits(logits, 400)
        assert drawn.shape == (400, 3, 50)
        assert drawn.dtype == logits.dtype
        assert set(drawn.unique().tolist()) == {0.0, 1.0}
        assert p_of_bits(drawn, torch.sigmoid(logits)) > ALPHA
        assert p_of_bits(drawn, torch.sigmoid(1.1 * logits)) < ALPHA  # and the test can fail
        able = device.spec.capabilities
        assert sampler.usage.jobs == (1 if able.chain_fields or device.spec.topology is None else 3)


def test_masked_p_bits_are_not_used():
    with gl.open_device("sim://pbit-king-64?seed=1") as device:
        device.mask([0, 5, 63], "in a test")
        sampler = gl.torch.Sampler(device)
        logits = torch.linspace(-2, 2, 70)
        drawn = sampler.bits(logits, 500)
        assert p_of_bits(drawn, torch.sigmoid(logits)) > ALPHA
        assert (sampler.last.fields[:, [0, 5]] == 0).all()
        device.mask(range(64))
        with pytest.raises(ModelNotSupportedError, match="masked"):
            sampler.bits(logits)


def test_logits_beyond_a_chips_reach_are_certain():
    with gl.open_device("sim://pbit-king-64?seed=2") as device:
        drawn = gl.torch.Sampler(device).bits(torch.tensor([-1000.0, 1000.0, 0.0]), 200)
    assert drawn[:, 0].sum() == 0
    assert drawn[:, 1].sum() == 200
    assert 60 < drawn[:, 2].sum() < 140


@pytest.mark.parametrize("address", ["sim://ideal", "sim://pbit-king-64", "firmware://host"])
def test_p_dits_have_the_softmax_law_and_keep_off_what_is_not_allowed(address):
    torch.manual_seed(3)
    scores = torch.randn(4, 5, 7)
    allowed = torch.rand(4, 5, 7) < 0.7
    allowed[..., 2] = True
    scores[~allowed] = torch.nan  # what is not allowed may be anything
    n = 600
    with gl.open_device(address, seed=6) as device:
        sampler = gl.torch.Sampler(device)
        drawn = sampler.categorical(scores, n, allowed)
        has_dits = device.spec.capabilities.potts_states >= 7
        assert sampler.usage.jobs == (1 if has_dits else sampler.usage.jobs)
    assert drawn.shape == (n, 4, 5)
    counts = torch.nn.functional.one_hot(drawn, 7).sum(0)
    assert counts[~allowed].sum() == 0
    law = torch.softmax(scores.masked_fill(~allowed, -torch.inf), -1)
    cells = (counts - n * law)[allowed] ** 2 / (n * law)[allowed]
    assert chi2.sf(float(cells.sum()), int(allowed.sum()) - 20) > ALPHA


def test_p_dits_of_one_state_and_of_no_row(device):
    sampler = gl.torch.Sampler(device)
    assert sampler.categorical(torch.zeros(3, 1), 2).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert sampler.categorical(torch.zeros(0, 4), 2).shape == (2, 0)
    assert sampler.bits(torch.zeros(0, 4), 2).shape == (2, 0, 4)
    assert sampler.usage.jobs == 0


def test_the_same_seed_gives_the_same_draws_and_a_state_goes_on(device):
    logits = torch.linspace(-1, 1, 40)
    first, second = gl.torch.Sampler(device, seed=9), gl.torch.Sampler(device, seed=9)
    a = [first.bits(logits) for _ in range(3)]
    assert torch.equal(a[0], second.bits(logits))
    third = gl.torch.Sampler(device, seed=1)
    third.load_state_dict(second.state_dict())
    assert torch.equal(a[1], third.bits(logits))
    assert not torch.equal(a[0], a[1])
    assert copy.deepcopy(third) is third
    assert gl.torch.Sampler(device).seed != gl.torch.Sampler(device).seed


def test_books(device):
    sampler = gl.torch.Sampler(device)
    sampler.bits(torch.zeros(10), 4)
    assert (sampler.usage.jobs, sampler.usage.samples, sampler.usage.updates) == (1, 4, 40)
    assert sampler.usage.joules is None
    assert "not published" in str(sampler.usage)
    assert sampler.total_variation_bound() < 1e-6
    with gl.open_device("sim://pbit-king-64?seed=2") as chip:
        other = gl.torch.Sampler(chip)
        other.bits(torch.zeros(10), 4)
        one = other.usage.joules
        other.bits(torch.zeros(10), 4)
        assert one < other.usage.joules < 2 * one  # programmed once
        assert other.usage.standard_uncertainty > 0
        assert "modelled" in str(other.usage)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.bits(torch.tensor([0.0, torch.nan])), "NaN"),
        (lambda s: s.bits(torch.zeros(2), 0), "n_samples"),
        (lambda s: s.categorical(torch.tensor([[0.0, torch.inf]])), "NaN or infinity"),
        (lambda s: s.categorical(torch.zeros(2, 3), 1, torch.zeros(2, 3, dtype=torch.bool)), "no state at all"),
        (lambda s: s.categorical(torch.zeros(2, 3), 1, torch.ones(2, 3)), "Boolean"),
        (lambda s: s.categorical(torch.tensor(0.0)), "last axis"),
        (lambda s: s.categorical(torch.zeros(3, 4), 1, torch.ones(5, 4, dtype=torch.bool)), "does not broadcast"),
        (lambda s: pickle.dumps(s), "state_dict"),
        (lambda s: copy.copy(s), "state_dict"),  # would draw what the first one draws
        (lambda s: s.total_variation_bound(), "nothing was drawn"),
        (lambda s: s.load_state_dict({"seed": 1}), "missing"),
        (lambda s: s.load_state_dict({"seed": None, "calls": 0}), "seed"),
    ],
)
def test_bad_input_is_refused(device, call, message):
    sampler = gl.torch.Sampler(device)
    with pytest.raises(InvalidModelError, match=message):
        call(sampler)
    assert sampler.usage.jobs == 0


def test_an_optimiser_cannot_draw():
    with (
        gl.open_device("sim://fujitsu-da2") as device,
        pytest.raises(ModelNotSupportedError, match="stated temperature"),
    ):
        gl.torch.Sampler(device)


def test_the_proven_bound_holds_for_exact_laws(device):
    """The programmed weights' exact law is no further from softmax than the stated bound."""
    scores = torch.from_numpy(np.random.default_rng(1).normal(size=(50, 9)) * 4)
    sampler = gl.torch.Sampler(device)
    sampler.categorical(scores)
    held = torch.from_numpy(sampler.last.held_fields[0])
    distance = (torch.softmax(held, -1) - torch.softmax(scores, -1)).abs().sum(-1) / 2
    assert 0 < float(distance.max()) <= sampler.total_variation_bound()


def test_huge_logits_and_scores_do_not_coarsen_the_others(device):
    """All share one integer step: beside 1e8, 0.5 would be 0. Differences of scores are what counts."""
    sampler = gl.torch.Sampler(device)
    logits = torch.tensor([1e8, 0.5, -0.7, -1e8], dtype=torch.float64)
    drawn = sampler.bits(logits, 4000)
    assert drawn[:, 0].all()
    assert not drawn[:, 3].any()
    assert p_of_bits(drawn[:, 1:3], torch.sigmoid(logits[1:3])) > ALPHA
    assert sampler.total_variation_bound() < 1e-6
    scores = torch.tensor([0.0, 1.0, 2.0, -1e8], dtype=torch.float64)
    drawn = sampler.categorical((scores + 1e8).expand(20, 4), 1000)
    counts = torch.nn.functional.one_hot(drawn, 4).sum((0, 1))[:3].double()
    expected = 20_000 * torch.softmax(scores, 0)[:3]
    assert chi2.sf(float(((counts - expected) ** 2 / expected).sum()), 2) > ALPHA
    assert sampler.total_variation_bound() < 1e-6


@pytest.mark.parametrize("address", ["sim://ideal", "firmware://host"])
def test_the_first_p_bit_may_be_masked_on_devices_of_any_scale(address):
    with gl.open_device(address, seed=3) as device:
        device.mask([0, 2], "in a test")
        sampler = gl.torch.Sampler(device)
        logits = torch.linspace(-2, 2, 9)
        assert p_of_bits(sampler.bits(logits, 500), torch.sigmoid(logits)) > ALPHA
        assert (sampler.last.fields[:, [0, 2]] == 0).all()
        scores = torch.tensor([0.5, -1.0, 0.0]).expand(6, 3)
        allowed = torch.tensor([True, True, False]).expand(6, 3)
        drawn = sampler.categorical(scores, 500, allowed)
        assert drawn.shape == (500, 6)
        expected = 3000 * torch.sigmoid(torch.tensor(1.5))
        assert abs(float((drawn == 0).sum()) - expected) < 5 * (expected * (1 - expected / 3000)) ** 0.5
        assert (drawn < 2).all()
        if device.spec.capabilities.potts_states:
            assert (sampler.last.fields[0][[0, 2]] == 0).all()


def test_large_logits_on_a_device_that_folds_beta_and_on_one_with_a_short_range():
    """kv260 holds fields up to 8, which are logits up to 16; the ASIC up to 7, with any beta."""
    for address in ("sim://kv260", "sim://hitachi-asic"):
        with gl.open_device(address, seed=1) as device:
            drawn = gl.torch.Sampler(device).bits(torch.tensor([-30.0, 30.0]), 200)
        assert drawn[:, 0].sum() == 0
        assert drawn[:, 1].sum() == 200


@pytest.mark.parametrize("address", ["sim://pbit-king-64", "sim://pbit-rbm-512", "sim://kv260", "sim://hitachi-asic"])
def test_devices_of_a_fixed_step_draw_within_the_stated_bound(address):
    """The exact law of the programmed fields is as near as stated; where beta is free, they fill the range."""
    logits = torch.linspace(-1.5, 1.4, 40, dtype=torch.float64)
    with gl.open_device(address, seed=1) as device:
        sampler = gl.torch.Sampler(device)
        sampler.bits(logits)
        held = torch.from_numpy(sampler.last.held_fields.ravel()[:40])
        law = torch.sigmoid(2 * sampler.last.provenance.beta * held)
        bound = sampler.total_variation_bound()
        assert 0 < float((law - torch.sigmoid(logits)).abs().max()) <= bound < 1
        coefficients = device.spec.coefficients
        if device.spec.capabilities.beta == "programmable" and coefficients.field_bits == 12:
            assert bound < 1e-3  # with beta = 1 it would be 4e-3
        assert bound < (0.2 if coefficients.weight_bits == 4 else 0.01)


def test_no_bound_is_stated_for_a_job_with_couplings(device):
    machine = gl.torch.BoltzmannMachine(3, 0, device)
    machine.sample(2)
    with pytest.raises(InvalidModelError, match="had couplings"):
        machine.sampler.total_variation_bound()


def test_an_interrupt_stops_the_job_and_frees_the_device(device):
    """Ctrl-C in a job of minutes: it is cancelled, not counted, and the next one runs at once."""
    machine = gl.torch.BoltzmannMachine(60, 0, device)

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1.5)  # submitting takes a small part of it
        with pytest.raises(KeyboardInterrupt):
            machine.sample(500, n_sweeps=3_000_000)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert machine.sampler.usage.jobs == 0
    started = time.monotonic()
    machine.sample(2)
    assert time.monotonic() - started < 20
    assert machine.sampler.usage.jobs == 1


def test_an_interrupt_as_the_job_ends_stays_an_interrupt(device, monkeypatch):
    """There is nothing to cancel any more, which is not what Ctrl-C is to be answered with."""
    machine = gl.torch.BoltzmannMachine(3, 0, device)

    def interrupted(job):
        assert job.wait(60)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(gl.Job, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            machine.sample(2)
    machine.sample(2)


def test_a_failed_job_is_told_as_what_it_failed_of():
    """Not as a job that has ended and cannot be cancelled."""
    with Device(FaultyDriver(SimulatorDriver(load_spec("ideal")), DriverFaults(gone_after=0))) as broken:
        machine = gl.torch.BoltzmannMachine(3, 0, broken)
        with pytest.raises(DeviceIOError):
            machine.sample(2)


def test_a_closed_device_says_so(device):
    sampler = gl.torch.Sampler(device)
    device.close()
    with pytest.raises(DeviceClosedError, match="closed"):
        sampler.bits(torch.zeros(3))
