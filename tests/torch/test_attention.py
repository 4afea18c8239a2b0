"""Thermodynamic attention tends to softmax attention as draws grow, in one job, and never looks where it must not."""

from __future__ import annotations

import math

import glauber as gl
import numpy as np
import pytest
from glauber.errors import InvalidModelError
from scipy.stats import chi2

torch = pytest.importorskip("torch", reason="needs the extra torch: pip install -e '.[torch]'")


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    return torch.randn(2, 4, 10, 8), torch.randn(2, 4, 10, 8), torch.randn(2, 4, 10, 8)


def test_the_mean_is_softmax_attention_and_the_error_is_as_stated(device, tensors):
    """Chi-square at alpha 1e-6 of 80 independent rows' deviations over their stated errors; a beta wrong by 5 % fails.

    A wrong beta adds to chi-square in proportion to the draws: with 20,000 it lies far beyond, whatever the rows are.
    """
    query, key, value = tensors
    sampler = gl.torch.Sampler(device)
    n = 20_000

    def p_value(beta):
        weights = gl.torch.attention_weights(query, key, sampler=sampler, n_samples=n, beta=beta)
        exact = torch.softmax(query @ key.transpose(-2, -1) / math.sqrt(8), -1)
        first = value[..., :1]  # one number of each row: rows are independent
        error = gl.torch.standard_error(weights, first, n)
        z = (weights @ first - exact @ first) / error
        return float(chi2.sf(float((z**2).sum()), z.numel()))

    assert p_value(None) > 1e-6
    assert p_value(1.05 / math.sqrt(8)) < 1e-6
    assert sampler.total_variation_bound() < 1e-6


def test_the_error_falls_as_the_root_of_the_draws(device, tensors):
    """Slope of log error over log n, -1/2 within three standard errors of the fit."""
    query, key, value = tensors
    sampler = gl.torch.Sampler(device)
    exact = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    counts = np.array([1, 4, 16, 64, 256, 1024])
    errors = []
    for n in counts:
        weights = gl.torch.attention_weights(query, key, sampler=sampler, n_samples=int(n))
        errors.append(float((weights @ value - exact).square().mean().sqrt()))
    (slope, _), covariance = np.polyfit(np.log(counts), np.log(errors), 1, cov=True)
    assert abs(slope + 0.5) < max(3 * math.sqrt(covariance[0, 0]), 0.02)


def test_one_job_for_all_heads_and_rows_and_causal_masks_are_never_broken(device):
    torch.manual_seed(1)
    layer = gl.torch.ThermodynamicAttention(32, 4, device, n_samples=64)
    x = torch.randn(3, 20, 32)
    layer.eval()
    changed = x.clone()
    changed[:, 12:] = torch.randn(3, 8, 32)
    state = layer.sampler.state_dict()
    with torch.no_grad():
        a = layer(x, causal=True)
        layer.sampler.load_state_dict(state)
        b = layer(changed, causal=True)
        weights, _ = layer._attend(x, None, None, True, None, None)
    assert torch.equal(a[:, :12], b[:, :12])
    assert not torch.equal(a[:, 12:], b[:, 12:])
    assert layer.sampler.usage.jobs == 3
    assert float(weights.triu(1).abs().max()) == 0.0
    assert torch.allclose(weights.sum(-1), torch.ones(3, 4, 20))


def test_padding_and_cross_attention(device):
    torch.manual_seed(2)
    layer = gl.torch.ThermodynamicAttention(16, 2, device, n_samples=16)
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[0, 4:] = True
    memory = torch.randn(2, 7, 16)
    weights, _ = layer._attend(torch.randn(2, 5, 16), memory, None, False, padding, None)
    assert weights.shape == (2, 2, 5, 7)
    assert (weights[0, :, :, 4:] == 0).all()
    assert (weights[1, :, :, 4:] > 0).any()


def test_deterministic_is_torchs_own_attention(device):
    torch.manual_seed(3)
    layer = gl.torch.ThermodynamicAttention(16, 2, device)
    peer = torch.nn.MultiheadAttention(16, 2, batch_first=True)
    peer.in_proj_weight.data = torch.cat([layer.query.weight, layer.key.weight, layer.value.weight])
    peer.in_proj_bias.data = torch.cat([layer.query.bias, layer.key.bias, layer.value.bias])
    peer.out_proj.load_state_dict(layer.output.state_dict())
    x = torch.randn(2, 9, 16)
    mask = torch.ones(9, 9, dtype=torch.bool).triu(1)
    with gl.torch.deterministic():
        output, error = layer.with_error(x, causal=True)
    assert torch.allclose(output, peer(x, x, x, attn_mask=mask, need_weights=False)[0], atol=1e-6)
    assert float(error.abs().max()) == 0.0
    assert layer.sampler.usage.jobs == 0


def test_the_stated_error_of_the_layer_is_that_of_its_output(device):
    """Spread of 200 repetitions over the stated error, pooled: 1 within five standard errors of a variance."""
    torch.manual_seed(4)
    layer = gl.torch.ThermodynamicAttention(8, 2, device, n_samples=64)
    x = torch.randn(1, 6, 8)
    with torch.no_grad():
        runs = [layer.with_error(x) for _ in range(200)]
        with gl.torch.deterministic():
            exact = layer(x)
    outputs = torch.stack([run.output for run in runs])
    stated = torch.stack([run.standard_error.square() for run in runs]).mean(0)
    ratio = float((outputs.var(0) / stated).mean())
    assert abs(ratio - 1) < 5 * math.sqrt(2 / 199 / 6)
    z = (outputs.mean(0) - exact) / (outputs.var(0) / 200).sqrt()
    assert float(z.abs().max()) < 5.5  # 48 numbers, alpha about 2e-6


def test_gradients_are_those_of_softmax_attention_for_a_linear_loss(device):
    torch.manual_seed(5)
    layer = gl.torch.ThermodynamicAttention(8, 2, device, n_samples=4)
    x = torch.randn(1, 5, 8)
    probe = torch.randn(1, 5, 8)
    (layer(x) * probe).sum().backward()
    drawn = layer.query.weight.grad.clone()
    layer.zero_grad()
    with gl.torch.deterministic():
        (layer(x) * probe).sum().backward()
    assert torch.allclose(drawn, layer.query.weight.grad, atol=1e-5)


def test_bad_requests_are_refused(device):
    with pytest.raises(InvalidModelError, match="does not divide"):
        gl.torch.ThermodynamicAttention(10, 4, device)
    with pytest.raises(InvalidModelError, match="beta"):
        gl.torch.ThermodynamicAttention(8, 4, device, beta=-1.0)
    layer = gl.torch.ThermodynamicAttention(8, 2, device)
    with pytest.raises(InvalidModelError, match="as many queries"):
        layer(torch.zeros(1, 3, 8), torch.zeros(1, 4, 8), causal=True)
    with pytest.raises(InvalidModelError, match="padding"):
        layer(torch.zeros(1, 3, 8), padding=torch.zeros(3, dtype=torch.bool))
    with pytest.raises(InvalidModelError, match="no state at all"):
        layer(torch.zeros(1, 3, 8), padding=torch.ones(1, 3, dtype=torch.bool))
    with pytest.raises(InvalidModelError, match="NaN"):
        layer(torch.full((1, 3, 8), math.nan))


def test_a_mask_is_checked_before_anything_is_made_of_it(device):
    sampler = gl.torch.Sampler(device)
    x = torch.zeros(3, 4, requires_grad=True)
    cases = [
        (torch.ones(3, 3), "Boolean"),
        (torch.ones(5, 3, dtype=torch.bool), "does not broadcast"),
        (torch.zeros(3, 3, dtype=torch.bool), "no state at all"),
    ]
    for allowed, message in cases:
        with pytest.raises(InvalidModelError, match=message):
            gl.torch.attention_weights(x, x, sampler=sampler, allowed=allowed)
        with gl.torch.deterministic(), pytest.raises(InvalidModelError, match=message):
            gl.torch.attention_weights(x, x, sampler=sampler, allowed=allowed)
    with pytest.raises(InvalidModelError, match="one d above 0"):
        gl.torch.attention_weights(torch.zeros(3, 0), torch.zeros(3, 0), sampler=sampler)
    with pytest.raises(InvalidModelError, match="one d above 0"):
        gl.torch.attention_weights(torch.zeros(3, 2), torch.zeros(3, 4), sampler=sampler)
    assert sampler.usage.jobs == 0


def test_the_stated_error_does_not_feel_what_all_values_share():
    weights = torch.tensor([[0.25, 0.75]])
    value = torch.tensor([[0.0], [1.0]])
    expected = math.sqrt(0.25 * 0.75 / 31)
    for offset in (0.0, 1e4):
        assert float(gl.torch.standard_error(weights, value + offset, 32)) == pytest.approx(expected, rel=1e-3)
