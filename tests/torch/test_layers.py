"""Layers: laws of what they draw, gradients, shares, the deterministic switch, and their place in a state_dict."""

from __future__ import annotations

import math

import glauber as gl
import pytest
from glauber.errors import InvalidModelError

torch = pytest.importorskip("torch", reason="needs the extra torch: pip install -e '.[torch]'")
from glauber.torch.layers import drawing_units  # noqa: E402


def test_p_bits_follow_their_law(device):
    layer = gl.torch.PbitLinear(3, 4, device, beta=0.7, n_samples=20_000)
    x = torch.randn(2, 3)
    mean = torch.tanh(0.7 * layer.linear(x))
    z = (layer(x) - mean) / ((1 - mean**2) / 20_000).sqrt()
    assert z.abs().max() < 5.5  # 8 numbers, alpha 3e-7
    with gl.torch.deterministic():
        assert torch.allclose(layer(x), mean, atol=1e-6)
    one = gl.torch.PbitLinear(3, 4, device)(x)
    assert (one.abs() == 1).all()


def test_the_gradient_is_that_of_the_mean(device):
    layer = gl.torch.BinaryLayer(device)
    logits = torch.linspace(-2, 2, 9, requires_grad=True)
    layer(logits).sum().backward()
    p = torch.sigmoid(logits.detach())
    assert torch.allclose(logits.grad, p * (1 - p))
    with torch.no_grad():
        assert set(layer(logits).unique().tolist()) <= {0.0, 1.0}


def test_a_share_of_the_units_draws_and_shares_are_nested(device):
    before = torch.zeros(50, dtype=torch.bool)
    for share in (0.0, 0.1, 0.37, 0.9, 1.0):
        now = drawing_units(50, share)
        assert now.sum() == round(50 * share)
        assert (now | ~before).all()
        before = now
    layer = gl.torch.BinaryLayer(device)
    logits = torch.linspace(-2, 2, 50, requires_grad=True)
    layer.share = 0.3
    out = layer(logits)
    drawing = drawing_units(50, 0.3)
    assert ((out == 0) | (out == 1))[drawing].all()
    assert torch.equal(out[~drawing], torch.sigmoid(logits)[~drawing])
    out.sum().backward()
    p = torch.sigmoid(logits.detach())
    assert torch.allclose(logits.grad, p * (1 - p))
    layer.share = 0.0
    used = layer.sampler.usage.jobs
    layer(logits)
    assert layer.sampler.usage.jobs == used


def test_dropout_keeps_the_mean_and_only_while_training(device):
    layer = gl.torch.Dropout(0.25, device)
    x = torch.ones(40_000)
    kept = layer(x)
    assert {round(value, 5) for value in kept.unique().tolist()} == {0.0, round(1 / 0.75, 5)}
    assert abs(float((kept > 0).double().mean()) - 0.75) < 5 * math.sqrt(0.75 * 0.25 / 40_000)
    with gl.torch.deterministic():
        assert layer(x) is x
    assert layer.eval()(x) is x


def test_noise_has_the_stated_moments(device):
    layer = gl.torch.Noise(device, scale=2.0, n_bits=16)
    x = torch.zeros(40_000)
    z = layer.like(x).double()
    assert abs(float(z.mean())) < 5 / 200
    assert abs(float(z.var()) - 1) < 5 * math.sqrt(2 / 40_000)
    excess = float((z**4).mean()) - 3
    assert abs(excess + 2 / 16) < 5 * math.sqrt(96 / 40_000)
    assert float((layer(x) - x).std()) == pytest.approx(2.0, abs=0.05)
    with gl.torch.deterministic():
        assert torch.equal(layer(x), x)


def test_short_dtypes_round_the_noise_and_not_its_sums(device):
    for dtype in (torch.float16, torch.bfloat16):
        short, long = (gl.torch.Noise(gl.torch.Sampler(device, seed=4), n_bits=1001) for _ in range(2))
        expected = long.like(torch.zeros(300, dtype=torch.float64))
        assert torch.equal(short.like(torch.zeros(300, dtype=dtype)), expected.to(dtype))


def test_structured_noise_has_its_covariance(device):
    covariance = torch.tensor([[1.0, 0.8, 0.0], [0.8, 1.0, -0.3], [0.0, -0.3, 2.0]])
    z = gl.torch.Noise(device, covariance=covariance).like(torch.zeros(30_000, 3))
    found = z.T @ z / len(z)
    assert (found - covariance).abs().max() < 5 * 2 * math.sqrt(2 / 30_000)


def test_diffusion_keeps_the_variance(device):
    noise = gl.torch.Noise(device)
    x = torch.randn(20_000, 2)
    noisy, z = noise.diffuse(x, torch.full((20_000,), 0.3))
    assert torch.allclose(noisy, math.sqrt(0.3) * x + math.sqrt(0.7) * z, atol=1e-6)
    assert float(noisy.var()) == pytest.approx(1.0, abs=0.05)


def test_a_state_dict_holds_the_place_in_the_seeds(device):
    x = torch.randn(2, 3)
    layer = gl.torch.PbitLinear(3, 40, device)
    layer(x)
    saved = layer.state_dict()
    expected = layer(x)
    other = gl.torch.PbitLinear(3, 40, device)
    other.load_state_dict(saved)
    assert torch.equal(other(x), expected)
    layer.bits.share = 0.25
    other.load_state_dict(layer.state_dict())
    assert other.bits.share == 0.25
    assert "sim://ideal" in repr(other)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: gl.torch.Dropout(1.0, d), "below 1"),
        (lambda d: gl.torch.PbitLinear(2, 2, d, beta=0.0), "beta"),
        (lambda d: gl.torch.BinaryLayer(d, 0), "n_samples"),
        (lambda d: gl.torch.Noise(d, -1.0), "scale"),
        (lambda d: gl.torch.Noise(d, covariance=torch.ones(2, 3)), "symmetric"),
        (lambda d: gl.torch.Noise(d, covariance=-torch.eye(2)), "positive definite"),
        (lambda d: gl.torch.Noise(d, covariance=torch.eye(2)).like(torch.zeros(3)), "covariance is of 2"),
        (lambda d: gl.torch.Noise(d).diffuse(torch.zeros(3), 1.5), "between 0 and 1"),
    ],
)
def test_bad_requests_are_refused(device, make, message):
    with pytest.raises(InvalidModelError, match=message):
        make(device)
