"""Bits and p-dits have the law that was asked for, on devices of every shape; seeds and books are kept."""

from __future__ import annotations

import copy

import glauber as gl
import numpy as np
import pytest
from glauber.errors import InvalidModelError, ModelNotSupportedError
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
