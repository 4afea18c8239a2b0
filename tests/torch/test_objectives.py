"""Objectives: their gradients and minima against what is known exactly."""

from __future__ import annotations

import copy
import math

import glauber as gl
import pytest
from glauber.errors import InvalidModelError

torch = pytest.importorskip("torch", reason="needs the extra torch: pip install -e '.[torch]'")


def teacher(device):
    torch.manual_seed(1)
    machine = gl.torch.BoltzmannMachine(5, 0, device)
    machine.fields.data = 0.4 * torch.randn(5)
    machine.couplings.data = 0.5 * torch.randn(10)
    return machine


@pytest.mark.parametrize("how", ["persistent", "tempered", "cd-20", "likelihood", "hidden coupled"])
def test_training_reaches_the_datas_law(device, how):
    """Within 0.02 nats of the data's own entropy, from 0.2 nats off at the start."""
    data = teacher(device).sample(2000, n_sweeps=100)
    torch.manual_seed(2)
    n_hidden = 2 if how == "hidden coupled" else 0
    machine = gl.torch.BoltzmannMachine(5, n_hidden, device)
    best = gl.torch.BoltzmannMachine(5, 0, device)
    fit = torch.optim.LBFGS(best.parameters(), max_iter=200)

    def exact():
        fit.zero_grad()
        loss = -best.log_likelihood(data).mean()
        loss.backward()
        return loss

    fit.step(exact)
    top = -float(exact().detach())
    chains = gl.torch.PersistentChains(machine, 64, n_sweeps=2, betas=[0.3, 0.7, 1.0] if how == "tempered" else None)
    rate = torch.optim.Adam(machine.parameters(), lr=0.05)
    start = float(machine.log_likelihood(data).mean().detach())
    for step in range(150):
        for group in rate.param_groups:
            group["lr"] = 0.05 * (1 - step / 150)
        rate.zero_grad()
        if how == "cd-20":
            loss = gl.torch.contrastive_divergence(machine, data[:500], 20)
        elif how == "likelihood":
            loss = gl.torch.maximum_likelihood(machine, data, n_warmup=20)
        else:
            loss = chains.loss(data)
        loss.backward()
        rate.step()
    reached = float(machine.log_likelihood(data).mean().detach())
    assert start < top - 0.2
    assert reached > top - 0.02


def gaussian(x, precision):
    return 0.5 * torch.einsum("...i,ij,...j->...", x, precision, x)


def test_score_matching_finds_a_gaussian(device):
    """The precision matrix, within five standard errors of 8,000 draws (about 0.08)."""
    torch.manual_seed(3)
    precision = torch.tensor([[2.0, 0.6], [0.6, 1.0]])
    data = torch.randn(8_000, 2) @ torch.linalg.cholesky(torch.linalg.inv(precision)).T
    noise = gl.torch.Noise(device)
    for loss_of, expected in (
        (lambda energy: gl.torch.sliced_score_matching(energy, data, noise), precision),
        (
            lambda energy: gl.torch.denoising_score_matching(energy, data, 0.5, noise),
            torch.linalg.inv(torch.linalg.inv(precision) + 0.25 * torch.eye(2)),
        ),
    ):
        root = torch.eye(2).requires_grad_()
        rate = torch.optim.Adam([root], lr=0.05)
        for step in range(100):
            for group in rate.param_groups:
                group["lr"] = 0.05 * (1 - step / 100)
            rate.zero_grad()
            loss_of(lambda x: gaussian(x, root @ root.T)).backward()  # noqa: B023
            rate.step()
        assert torch.allclose(root.detach() @ root.detach().T, expected, atol=0.12)


def test_info_nce_is_the_cross_entropy_of_the_partner():
    q, p = torch.eye(4), torch.eye(4)
    expected = -torch.log(torch.exp(torch.tensor(2.0)) / (torch.exp(torch.tensor(2.0)) + 3))
    assert torch.allclose(gl.torch.info_nce(q, p, temperature=0.5), expected)
    negatives = torch.eye(4)[[1]]
    value = gl.torch.info_nce(q[:1], p[:1], negatives, temperature=0.5)
    assert torch.allclose(value, torch.log1p(torch.exp(torch.tensor(-2.0))))


def test_noise_contrast_finds_law_and_normalisation(device):
    """A Bernoulli law with log Z as a parameter: both within five standard errors."""
    torch.manual_seed(4)
    sampler = gl.torch.Sampler(device)
    logit = torch.tensor([0.8, -0.5])
    data = sampler.bits(logit, 20_000)
    noise = sampler.bits(torch.zeros(2), 20_000)
    a = torch.zeros(2, requires_grad=True)
    log_z = torch.zeros((), requires_grad=True)
    fit = torch.optim.LBFGS([a, log_z], max_iter=100)

    def closure():
        fit.zero_grad()
        loss = gl.torch.noise_contrastive(
            lambda x: x @ a - log_z, lambda x: torch.full((len(x),), -2 * torch.log(torch.tensor(2.0))), data, noise
        )
        loss.backward()
        return loss

    fit.step(closure)
    assert torch.allclose(a.detach(), logit, atol=0.15)
    assert float(log_z.detach()) == pytest.approx(float(torch.nn.functional.softplus(logit).sum()), abs=0.1)


def test_chains_go_on_from_a_saved_state(device):
    machine = teacher(device)
    chains = gl.torch.PersistentChains(machine, 8)
    chains.advance()
    saved, place = chains.state_dict(), machine.sampler.state_dict()
    expected = chains.advance()
    other = gl.torch.PersistentChains(machine, 8)
    other.load_state_dict(saved)
    machine.sampler.load_state_dict(place)
    assert torch.equal(other.advance(), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: gl.torch.contrastive_divergence(m, torch.ones(3, 4)), "must have shape"),
        (lambda m: gl.torch.contrastive_divergence(m, torch.zeros(3, 5)), "2 b - 1"),
        (lambda m: gl.torch.maximum_likelihood(m, torch.ones(0, 5)), "must have shape"),
        (lambda m: gl.torch.PersistentChains(m, 2, betas=[0.5, 2.0]), "end at 1"),
        (lambda m: gl.torch.PersistentChains(m, 2, betas=[0.5, 0.7, 1.0]), "n_sweeps=2 or more"),
        (lambda m: gl.torch.PersistentChains(m, 2, n_sweeps=2, betas=[0.7, 0.5, 1.0]), "ascend"),
        (lambda m: gl.torch.PersistentChains(m, 0), "n_chains"),
        (lambda m: gl.torch.PersistentChains(m, 4).load_state_dict({"states": torch.ones(7, 5)}), "states saved"),
        (
            lambda m: gl.torch.noise_contrastive(m.energy, m.energy, torch.ones(0, 5), torch.ones(1, 5)),
            "data and noise",
        ),
        (lambda m: gl.torch.info_nce(torch.ones(1, 2), torch.ones(1, 2), temperature=float("nan")), "temperature"),
        (lambda m: gl.torch.info_nce(torch.ones(1, 2), torch.ones(1, 2), temperature=0), "temperature"),
        (
            lambda m: gl.torch.denoising_score_matching(m.energy, torch.ones(1, 5), 0, gl.torch.Noise(m.sampler)),
            "scale",
        ),
    ],
)
def test_bad_requests_are_refused(device, call, message):
    with pytest.raises(InvalidModelError, match=message):
        call(teacher(device))


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64, torch.float16, torch.bfloat16])
def test_data_and_machines_of_any_dtype(device, dtype):
    data = (2 * torch.randint(0, 2, (6, 5)) - 1).to(dtype)
    machine = gl.torch.RestrictedBoltzmannMachine(5, 2, device)
    machines = [machine, copy.deepcopy(machine).to(dtype)] if dtype.is_floating_point else [machine]
    for one in machines:
        chains = gl.torch.PersistentChains(one, 3)
        for loss in (
            gl.torch.contrastive_divergence(one, data),
            gl.torch.maximum_likelihood(one, data, n_chains=2, n_samples=2, n_warmup=1),
            chains.loss(data),
            chains.loss(data),
        ):
            loss.backward()
            assert loss.dtype == one.fields.dtype
        assert math.isfinite(gl.torch.annealed_importance(one, n_temperatures=2, n_chains=4).value)


def test_chains_loaded_do_not_share_memory_with_what_was_saved(device):
    chains = gl.torch.PersistentChains(teacher(device), 4)
    chains.advance()
    saved = chains.state_dict()
    other = gl.torch.PersistentChains(chains.machine, 4)
    other.load_state_dict(saved)
    assert torch.equal(other.states, saved["states"])
    assert other.states.data_ptr() != saved["states"].data_ptr()
