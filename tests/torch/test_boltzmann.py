"""Boltzmann machines: energies, free energies and likelihoods against enumeration; states against the exact law."""

from __future__ import annotations

import itertools
import math

import glauber as gl
import numpy as np
import pytest
from glauber.diagnostics import beta_by_pseudolikelihood
from glauber.errors import InvalidModelError, ModelNotSupportedError
from scipy.stats import chi2

torch = pytest.importorskip("torch", reason="needs the extra torch: pip install -e '.[torch]'")


def machines(device):
    torch.manual_seed(7)
    made = {
        "dense": gl.torch.BoltzmannMachine(3, 2, device),
        "visible only": gl.torch.BoltzmannMachine(4, 0, device),
        "restricted": gl.torch.RestrictedBoltzmannMachine(3, 2, device),
        "graph": gl.torch.GraphRestrictedBoltzmannMachine([(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)], [4, 1, 0], device),
    }
    for machine in made.values():
        machine.fields.data = 0.5 * torch.randn_like(machine.fields)
        machine.couplings.data = 0.7 * torch.randn_like(machine.couplings)
    return made


def every_state(n):
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=n)))


@pytest.mark.parametrize("name", ["dense", "visible only", "restricted", "graph"])
def test_against_enumeration(device, name):
    machine = machines(device)[name]
    states = every_state(machine.n_units)
    energy = machine.energy(states).detach()
    model = machine.ising_model()
    by_site = np.ones((len(states), model.n_sites))
    by_site[:, machine.sites] = states.numpy()
    assert energy.numpy() == pytest.approx(model.energies(by_site), abs=1e-5)
    assert float(machine.log_partition().detach()) == pytest.approx(float(torch.logsumexp(-energy, 0)), abs=1e-5)
    visible = every_state(machine.n_visible)
    law = torch.exp(machine.log_likelihood(visible))
    assert float(law.sum().detach()) == pytest.approx(1.0, abs=1e-5)
    for v in visible[:3]:
        rows = (states[:, : machine.n_visible] == v).all(1)
        exact = -torch.logsumexp(-energy[rows], 0)
        assert float(machine.free_energy(v).detach()) == pytest.approx(float(exact), abs=1e-5)


@pytest.mark.parametrize("name", ["dense", "restricted", "graph"])
def test_states_have_the_exact_law(device, name):
    machine = machines(device)[name]
    drawn = machine.sample(4000, n_sweeps=60)
    law = torch.softmax(-machine.energy(every_state(machine.n_units)).detach().double(), 0)
    codes = (drawn > 0).long() @ (2 ** torch.arange(machine.n_units - 1, -1, -1))
    counts = torch.bincount(codes, minlength=len(law)).double()
    expected = 4000 * law
    common = expected > 5
    statistic = float(((counts - expected) ** 2 / expected)[common].sum())
    rest = float(expected[~common].sum())
    if rest > 5:
        statistic += (float(counts[~common].sum()) - rest) ** 2 / rest
    assert chi2.sf(statistic, int(common.sum()) - (rest <= 5)) > 1e-6


def test_clamped_units_stay_and_several_samples_have_an_axis(device):
    machine = machines(device)["restricted"]
    data = 2.0 * torch.randint(0, 2, (6, 3)) - 1
    states = machine.sample(6, n_sweeps=5, clamp=data, n_samples=3)
    assert states.shape == (6, 3, 5)
    assert torch.equal(states[..., :3], data[:, None].expand(-1, 3, -1))
    means = machine.hidden_means(data)
    many = machine.sample(6, n_sweeps=3, clamp=data, n_samples=2000)[..., 3:].mean(1)
    assert ((many - means).abs() < 5.5 * ((1 - means**2) / 2000).sqrt() + 1e-6).all()


def test_a_machine_lies_on_the_chips_own_graph():
    with gl.open_device("sim://pbit-rbm-512?seed=3") as chip:
        machine = gl.torch.RestrictedBoltzmannMachine(10, 5, chip)
        assert machine.sites.tolist() == [*range(10), *range(128, 133)]
        assert machine.sample(4, n_sweeps=3).shape == (4, 15)
        assert machine.sampler.last.provenance.embedding is None
    with gl.open_device("sim://pbit-king-64?seed=3") as chip:
        own = gl.torch.GraphRestrictedBoltzmannMachine(chip.spec.topology, range(16), chip)
        assert (own.n_visible, own.n_hidden, len(own.edges)) == (16, 48, 210)
        assert not own.hidden_are_independent
        assert own.sample(2).shape == (2, 64)
        placed = gl.torch.RestrictedBoltzmannMachine(4, 3, chip)
        assert placed.sample(3).shape == (3, 7)
        assert placed.sampler.last.provenance.embedding is not None


def test_annealed_importance_sampling_brackets_log_z(device):
    """Forwards and backwards within four stated errors of the exact value, for all three kinds of machine."""
    for machine in machines(device).values():
        machine.couplings.data *= 1.5
        exact = float(machine.log_partition().detach())
        forwards = gl.torch.annealed_importance(machine, n_chains=200, n_temperatures=60)
        start = machine.sample(200, n_sweeps=200)
        backwards = gl.torch.annealed_importance(machine, start=start, n_temperatures=60)
        for found in (forwards, backwards):
            assert abs(found.value - exact) < 4 * found.standard_error
            assert found.standard_error < 0.2
            assert found.effective_chains > 20
        assert backwards.backwards
        assert not forwards.backwards


def test_a_base_near_the_data_lowers_the_error(device):
    torch.manual_seed(1)
    machine = gl.torch.RestrictedBoltzmannMachine(8, 4, device)
    machine.fields.data[:8] = torch.linspace(-2, 2, 8)
    machine.couplings.data = 0.3 * torch.randn(32)
    good = gl.torch.annealed_importance(machine, n_temperatures=10)
    bad = gl.torch.annealed_importance(machine, n_temperatures=10, base=-machine.fields.detach())
    assert good.effective_chains > 2 * bad.effective_chains


def test_the_devices_temperature_is_learned_and_allowed_for():
    """A chip 100 K too warm samples at 300/400 of the beta asked for (docs/machine.md): the factor is found."""
    with gl.open_device("sim://pbit-king-64?temperature_c=125&seed=4") as chip:
        torch.manual_seed(2)
        machine = gl.torch.GraphRestrictedBoltzmannMachine(chip.spec.topology, range(64), chip)
        machine.couplings.data = 0.3 * torch.randn_like(machine.couplings)
        machine.temperature = temperature = gl.torch.DeviceTemperature()
        assert temperature.standard_error == math.inf
        for _ in range(5):
            machine.sample(256, n_sweeps=30)
        first = temperature.factor
        assert abs(first - 1) > 5 * temperature.standard_error
        machine.sample(256, n_sweeps=30)
        states = machine.sampler.last  # the samples themselves now speak of beta 1
        found = beta_by_pseudolikelihood(
            states.model, states.states.reshape(1, 256, -1), states.model.fields[None], np.ones((1, 64), bool)
        )
        assert abs(found.value - 1) < 5 * found.standard_error
        other = gl.torch.DeviceTemperature()
        other.load_state_dict(temperature.state_dict())
        assert other.factor == temperature.factor


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: gl.torch.BoltzmannMachine(0, 2, d), "n_visible"),
        (lambda d: gl.torch.BoltzmannMachine(2, 0, d, edges=[(0, 2)]), "edge 0"),
        (lambda d: gl.torch.BoltzmannMachine(2, 0, d, sites=[1, 1]), "different numbers"),
        (lambda d: gl.torch.GraphRestrictedBoltzmannMachine([(0, 1)], [2], d), "no site 2"),
        (lambda d: gl.torch.GraphRestrictedBoltzmannMachine([(0, 1)], [1, 1], d), "twice"),
        (lambda d: gl.torch.BoltzmannMachine(4, 2, d).hidden_means(torch.ones(1, 4)), "coupled to each other"),
        (lambda d: gl.torch.BoltzmannMachine(40, 0, d).log_partition(), "annealed_importance"),
        (lambda d: gl.torch.BoltzmannMachine(2, 20, d).free_energy(torch.ones(2)), "too many"),
        (lambda d: gl.torch.BoltzmannMachine(3, 1, d).free_energy(torch.ones(2, 4)), "last axis of 3"),
        (lambda d: gl.torch.BoltzmannMachine(3, 1, d).energy(torch.ones(2, 3)), "last axis of 4"),
        (lambda d: gl.torch.BoltzmannMachine(3, 1, d).sample(2, clamp=torch.ones(2, 4)), "clamp must have"),
        (lambda d: gl.torch.BoltzmannMachine(3, 1, d).sample(2, clamp=torch.full((2, 3), 0.5)), "clamp must hold"),
        (lambda d: gl.torch.BoltzmannMachine(3, 1, d).sample(2, initial=torch.ones(2, 3)), "initial must have"),
        (lambda d: gl.torch.BoltzmannMachine(3, 1, d).sample(2, initial=torch.full((2, 4), 0.5)), "initial must hold"),
        (lambda d: gl.torch.BoltzmannMachine(3, 1, d).sample(2, extra_fields=torch.ones(2, 3)), "extra_fields must"),
        (lambda d: gl.torch.DeviceTemperature(2.0), "memory"),
        (lambda d: gl.torch.annealed_importance(gl.torch.BoltzmannMachine(2, 0, d), start=torch.ones(3, 5)), "start"),
        (lambda d: gl.torch.annealed_importance(gl.torch.BoltzmannMachine(2, 0, d), base=torch.ones(3)), "base"),
    ],
)
def test_bad_requests_are_refused(device, make, message):
    with pytest.raises(InvalidModelError, match=message):
        make(device)


def test_annealed_weights_are_unbiased_at_few_temperatures(device):
    """Mean of exp(w) / Z, both ways, is 1 within five standard errors; the starts backwards are exact draws."""
    torch.manual_seed(0)
    machine = gl.torch.RestrictedBoltzmannMachine(4, 3, device)
    machine.fields.data = 0.5 * torch.randn(7)
    machine.couplings.data = torch.randn(12)
    exact = float(machine.log_partition().detach())
    states = every_state(7)
    law = torch.softmax(-machine.energy(states).detach().double(), 0)
    n = 100_000  # so many that the standard error is small for nearly every machine of this kind
    start = states[torch.multinomial(law, n, replacement=True)]
    for how in ({"n_chains": n}, {"start": start}):
        found = gl.torch.annealed_importance(machine, n_temperatures=4, **how)
        sign = -1 if found.backwards else 1
        ratio = torch.exp(sign * (found.log_weights - exact))
        error = float(ratio.std()) / math.sqrt(n)
        assert abs(float(ratio.mean()) - 1) < 5 * error
        assert error < 0.01


def test_the_stated_error_of_log_z_is_that_of_repetitions(device):
    """Squared deviations over squared stated errors of 60 runs: their mean is 1 within five errors of a variance."""
    torch.manual_seed(0)
    machine = gl.torch.RestrictedBoltzmannMachine(4, 3, device)
    machine.couplings.data = 0.8 * torch.randn(12)
    exact = float(machine.log_partition().detach())
    runs = [gl.torch.annealed_importance(machine, n_chains=300, n_temperatures=8) for _ in range(60)]
    z = torch.tensor([(run.value - exact) / run.standard_error for run in runs])
    assert abs(float((z**2).mean()) - 1) < 5 * math.sqrt(2 / 60)
    assert abs(float(z.mean())) < 5 / math.sqrt(60)


def test_an_embedded_machine_gives_no_log_z_and_no_temperature():
    with gl.open_device("sim://pbit-king-64?seed=3") as chip:
        machine = gl.torch.RestrictedBoltzmannMachine(4, 3, chip)
        with pytest.raises(ModelNotSupportedError, match="embedded"):
            gl.torch.annealed_importance(machine, n_temperatures=3)
        machine.temperature = gl.torch.DeviceTemperature()
        machine.couplings.data = torch.ones(12)
        machine.sample(50)
        assert machine.temperature.standard_error == math.inf


def test_the_temperatures_stated_error_is_that_of_repetitions(device):
    """Of a memory that fades, too: 60 repetitions' variance over the stated one within five errors of a variance."""
    torch.manual_seed(1)
    machine = gl.torch.BoltzmannMachine(6, 0, device)
    machine.couplings.data = 0.3 * torch.randn(15)
    found = []
    for _ in range(60):
        learned = gl.torch.DeviceTemperature(memory=0.7)
        for _ in range(10):
            machine.sample(100, n_sweeps=20)
            learned.observe(machine.sampler.last)
        found.append((learned.factor, learned.standard_error))
    factors, errors = np.array(found).T
    # 1 with a standard error of sqrt(2 / 59); the variance stated as 1 / sum of weights would be 1.7 times too large
    assert abs(factors.var(ddof=1) / (errors**2).mean() - 1) < 2.2 * math.sqrt(2 / 59)
    assert abs(factors.mean() - 1) < 5 * factors.std() / math.sqrt(60)


def test_what_was_learned_of_the_temperature_is_in_the_state_dict(device):
    machine, other = gl.torch.BoltzmannMachine(4, 0, device), gl.torch.BoltzmannMachine(4, 0, device)
    machine.couplings.data = torch.full((6,), 0.3)
    machine.temperature = gl.torch.DeviceTemperature()
    machine.sample(200)
    other.load_state_dict(machine.state_dict())  # which learns none
    other.temperature = gl.torch.DeviceTemperature()
    other.load_state_dict(machine.state_dict())
    assert (other.temperature.factor, other.temperature.standard_error) == (
        machine.temperature.factor,
        machine.temperature.standard_error,
    )


def test_log_z_sums_over_the_smaller_side_in_little_memory(device):
    """2^2 states of the hidden units, not 2^20 of the visible ones; of a machine of 16 visible units no sums are
    kept for the gradient, which is exact."""
    torch.manual_seed(2)
    wide = gl.torch.RestrictedBoltzmannMachine(40, 2, device)
    fields = wide.fields.detach().double()
    wide.couplings.data.zero_()
    assert float(wide.log_partition().detach()) == pytest.approx(float(torch.log(2 * torch.cosh(fields)).sum()))
    machine = gl.torch.BoltzmannMachine(16, 0, device)
    machine.fields.data = 0.3 * torch.randn(16)
    machine.couplings.data.zero_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        log_z = machine.log_partition()
    before_gradient = sum(kept)
    (gradient,) = torch.autograd.grad(log_z, machine.fields)
    assert torch.allclose(gradient, torch.tanh(machine.fields), atol=1e-4)
    assert before_gradient < 2**16 * 16 * 2  # the states themselves, not 120 products of each


def test_no_rows_have_no_free_energies(device):
    for machine in machines(device).values():
        assert machine.free_energy(torch.ones(0, machine.n_visible)).shape == (0,)
