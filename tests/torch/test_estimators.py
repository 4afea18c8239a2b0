"""The menu of gradient estimators against exact enumeration, on four small models."""

from __future__ import annotations

import glauber as gl
import pytest
from glauber.errors import InvalidModelError

torch = pytest.importorskip("torch", reason="needs the extra torch: pip install -e '.[torch]'")
from glauber.torch import ESTIMATORS, gradient_probe  # noqa: E402

ALPHA = 1e-6
UNBIASED = ("reinforce", "arm", "rao-blackwell")


def linear(bits):
    return bits @ torch.tensor([1.0, -2.0, 0.5, 0.3]).to(bits) + 1


def quadratic(bits):
    return (bits.sum(-1) - 1.3) ** 2


def network(spins):
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(spins.shape[-1], 8, generator=generator).to(spins)
    return torch.tanh(spins @ first).square().sum(-1)


@pytest.fixture
def logits():
    return torch.tensor([[0.3, -1.2, 2.0, 0.0], [-0.5, 0.7, 0.0, -3.0]])


def test_linear_costs_have_no_bias_under_any_estimator(device, logits):
    report = gradient_probe(gl.torch.BinaryLayer(device), logits, linear, n_repeats=150)
    assert [row.estimator for row in report.rows] == list(ESTIMATORS)
    assert all(row.p_value > ALPHA for row in report.rows)
    assert report["straight-through"].variance < 1e-10
    assert report["rao-blackwell"].variance < 1e-10  # a sum of functions of single bits
    assert report["reinforce"].variance > report["arm"].variance > 1e-3
    assert "rao-blackwell" in str(report)


def test_a_curved_cost_shows_the_bias_of_straight_through_alone(device, logits):
    report = gradient_probe(gl.torch.BinaryLayer(device), logits, quadratic, n_repeats=150)
    assert all(report[name].p_value > ALPHA for name in UNBIASED)
    assert report["straight-through"].p_value < ALPHA
    chance = 4 * report["rao-blackwell"].noise_floor  # an unbiased estimator's bias is chance alone
    assert report["rao-blackwell"].bias < chance < report["straight-through"].bias
    assert report["straight-through"].bias > 0.1
    assert report["rao-blackwell"].evaluations == 8 * (1 + 4)
    assert report["arm"].evaluations == 16
    assert report.as_dict()["rows"][0]["draws"] == 8


def test_a_network_on_p_bits(device):
    torch.manual_seed(2)
    layer = gl.torch.PbitLinear(3, 5, device)
    report = gradient_probe(layer, torch.randn(4, 3), network, n_repeats=150)
    assert all(report[name].p_value > ALPHA for name in UNBIASED)
    assert report["straight-through"].p_value < ALPHA


def test_the_two_phase_gradient_of_a_boltzmann_machine(device):
    torch.manual_seed(3)
    machine = gl.torch.RestrictedBoltzmannMachine(4, 3, device)
    machine.couplings.data = 0.8 * torch.randn(12)
    data = 2.0 * torch.randint(0, 2, (20, 4)) - 1
    report = gradient_probe(machine, data, n_samples=16, n_repeats=120)
    assert report["two-phase"].p_value > ALPHA
    assert report["cd-1"].p_value < ALPHA
    assert report["cd-10"].bias < report["cd-1"].bias


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_what_comes_after_the_bits_gets_its_ordinary_gradient(device, estimator):
    weight = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
    logits = torch.tensor([0.2, -0.4, 1.0])
    sampler = gl.torch.Sampler(device)
    value = gl.torch.expected_cost(
        logits, lambda bits: bits @ weight, sampler=sampler, estimator=estimator, n_samples=4000
    )
    value.backward()
    p = torch.sigmoid(logits)
    assert torch.allclose(weight.grad, p, atol=5 * 0.5 / 4000**0.5)
    assert sampler.usage.jobs == 1


def test_deterministic_costs_are_those_of_the_means(device):
    sampler = gl.torch.Sampler(device)
    logits = torch.tensor([0.2, -0.4, 1.0])
    with gl.torch.deterministic():
        value = gl.torch.expected_cost(logits, quadratic, sampler=sampler)
    assert value == quadratic(torch.sigmoid(logits))
    assert sampler.usage.jobs == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"estimator": "gumbel"}, "must be one of"),
        ({"estimator": "reinforce", "n_samples": 1}, "2 or more"),
        ({"n_samples": 0}, "n_samples"),
        ({"cost": lambda bits: bits.sum()}, "the cost of bits of shape"),
    ],
)
def test_bad_requests_are_refused(device, arguments, message):
    arguments = {"cost": linear, **arguments}
    with pytest.raises(InvalidModelError, match=message):
        gl.torch.expected_cost(torch.zeros(4), arguments.pop("cost"), sampler=gl.torch.Sampler(device), **arguments)


def test_what_the_probe_refuses(device):
    layer = gl.torch.BinaryLayer(device)
    with pytest.raises(InvalidModelError, match="cost"):
        gradient_probe(layer, torch.zeros(1, 4))
    with pytest.raises(InvalidModelError, match="at most 16"):
        gradient_probe(layer, torch.zeros(1, 17), linear)
    with pytest.raises(InvalidModelError, match="repeats"):
        gradient_probe(layer, torch.zeros(5, 4), linear, n_repeats=10)
    with pytest.raises(InvalidModelError, match="zero everywhere"):
        gradient_probe(layer, torch.zeros(1, 4), lambda bits: 0 * bits.sum(-1), n_repeats=10)


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 300.0), (torch.float16, 20.0), (torch.float64, 1000.0)])
def test_certain_bits_and_short_dtypes(device, dtype, size):
    """Where sigma is 0 or 1 in the dtype the bit is certain and has no gradient; the others keep theirs."""
    logits = torch.tensor([size, -size, 0.0], dtype=dtype, requires_grad=True)
    for estimator in ESTIMATORS:
        value = gl.torch.expected_cost(
            logits, quadratic, sampler=gl.torch.Sampler(device, seed=1), estimator=estimator, n_samples=400
        )
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.dtype == gradient.dtype == dtype
        assert gradient[:2].abs().max() < 1e-3
        if estimator != "straight-through":
            assert abs(float(gradient[2]) - 0.25 * ((2 - 1.3) ** 2 - (1 - 1.3) ** 2)) < 0.05
