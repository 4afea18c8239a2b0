"""Potts grids of the MNIST example: three energies that agree, exact sums, annealing, gradients, chains that resume."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra torch: pip install -e '.[torch]'")

import glauber as gl
import torch
from glauber.errors import InvalidModelError
from glauber.torch import load_checkpoint, save_checkpoint

from examples.mnist_ebm.annealing import log_partition, with_enough_temperatures
from examples.mnist_ebm.grid import TEMPERED_BETAS, GridModel
from examples.mnist_ebm.lattice import exact_log_partition, fast_energies, in_copies, make_lattice, plain_energy

FORMS = [(4, True), (4, False), (8, True), (8, False)]
LABELS = torch.zeros(0)


@pytest.fixture(scope="module")
def device():
    with gl.open_device("sim://ideal?seed=7") as opened:
        yield opened


def grid(device, side, n_levels, neighbours=4, tied=False, *, scale=0.3, **arguments):
    """A grid with random weights."""
    model = GridModel(device, side, n_levels, neighbours=neighbours, tied=tied, **arguments)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        model.fields.copy_(torch.randn(model.fields.shape, generator=draw))
        model.base.copy_(model.fields + 0.3 * torch.randn(model.fields.shape, generator=draw))
        model.couplings.copy_(0.5 + scale * torch.randn(model.couplings.shape, generator=draw))
    return model


def noise(n, side, n_levels, seed=1):
    return torch.randint(0, n_levels, (n, side, side), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_edges_are_each_pair_of_neighbours_once():
    for side, neighbours in [(2, 4), (28, 4), (28, 8), (5, 8)]:
        lattice = make_lattice(side, neighbours)
        straight, diagonal = 2 * side * (side - 1), 2 * (side - 1) ** 2
        assert len(lattice.edges) == straight + (diagonal if neighbours == 8 else 0)
        assert len({tuple(edge) for edge in lattice.edges.tolist()}) == len(lattice.edges)
        away = np.abs(np.diff(np.array(np.divmod(lattice.edges, side)), axis=2))[:, :, 0]
        assert (away.max(axis=0) == 1).all()
        assert ((away.sum(axis=0) == 2) == (lattice.direction >= 2)).all()


@pytest.mark.parametrize(("neighbours", "tied"), FORMS)
@pytest.mark.parametrize("n_levels", [2, 4, 16])
def test_torch_the_sdk_the_device_and_the_plain_sum_have_one_energy(device, neighbours, tied, n_levels):
    model = grid(device, 9, n_levels, neighbours, tied)
    potts = model.potts_model()
    result = model.run(gl.SamplingSchedule(n_samples=1, n_chains=6), observe={"samples", "energies"})
    images = model.images(result.last)
    plain = [plain_energy(potts, state) for state in result.last]
    in_torch = model.energy(images).detach().numpy()
    np.testing.assert_allclose(in_torch, plain, rtol=1e-5)
    np.testing.assert_allclose(potts.energies(result.last), plain, rtol=1e-12)
    np.testing.assert_allclose(fast_energies(potts, result.last), plain, rtol=1e-12)
    np.testing.assert_allclose(result.energies[:, 0], plain, rtol=1e-12)
    np.testing.assert_allclose(result.programmed_energies[:, 0], plain, rtol=1e-3)  # rounded to 16 bits
    assert model._mean_energy(model._states(images)).item() == pytest.approx(np.mean(plain), rel=1e-5)


def test_the_gradient_of_the_mean_is_that_of_the_energies(device):
    for neighbours, tied in FORMS:
        model, images = grid(device, 6, 4, neighbours, tied), noise(20, 6, 4)
        by_energy = torch.autograd.grad(model.energy(images).mean(), list(model.parameters()))
        by_means = torch.autograd.grad(model._mean_energy(model._states(images)), list(model.parameters()))
        for one, other in zip(by_energy, by_means, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("neighbours", "tied"), FORMS)
@pytest.mark.parametrize(("side", "n_levels"), [(2, 4), (3, 2), (3, 4), (2, 16)])
def test_the_transfer_matrix_is_the_sum_over_all_images(device, neighbours, tied, side, n_levels):
    potts = grid(device, side, n_levels, neighbours, tied).potts_model()
    states = np.array(list(itertools.product(range(n_levels), repeat=side**2)), dtype=np.uint8)
    log_weights = -potts.energies(states)
    top = log_weights.max()
    assert exact_log_partition(potts, side) == pytest.approx(top + math.log(np.exp(log_weights - top).sum()), rel=1e-12)


@pytest.mark.parametrize(("neighbours", "tied"), FORMS)
@pytest.mark.parametrize("side", [4, 5])
def test_annealing_finds_the_exact_log_z_from_both_sides(device, neighbours, tied, side):
    model = grid(device, side, 4, neighbours, tied)
    potts, base = model.potts_model(), model.base.double().numpy()
    exact = exact_log_partition(potts, side)
    forwards = log_partition(potts, base, model.sampler, n_chains=300, n_temperatures=40)
    start = model.run(gl.SamplingSchedule(n_samples=1, n_chains=300, n_warmup=300), observe="last").last
    backwards = log_partition(potts, base, model.sampler, n_chains=300, n_temperatures=40, start=start)
    for found in (forwards, backwards):
        assert found.standard_error < 0.2
        assert abs(found.value - exact) < 4 * found.standard_error  # eight cases, both ways: one false alarm in 1,000


def test_likelihoods_of_all_images_sum_to_one(device):
    model = grid(device, 2, 4, 8, False)
    images = torch.tensor(list(itertools.product(range(4), repeat=4)), dtype=torch.uint8).reshape(-1, 2, 2)
    each = [model.log_likelihood(image[None], LABELS) for image in images]
    assert {one.how for one in each} == {"exact"}
    assert sum(math.exp(one.nats) for one in each) == pytest.approx(1, abs=1e-5)


def test_independent_pixels_start_from_their_frequencies(device):
    model, images = GridModel(device, 7, 4), noise(50, 7, 4)
    images[:, 0, 0] = 2  # a pixel that never changes
    model.start_from(images)
    counts = torch.nn.functional.one_hot(images.long(), 4).sum(0).reshape(49, 4)
    torch.testing.assert_close(model.fields.softmax(1), (counts + 0.5) / 52)
    found = model.log_likelihood(images, LABELS, quick=True)  # 4^7 states of a row: annealed, and here without error
    expected = ((counts + 0.5) / 52).log()[torch.arange(49), images.reshape(-1, 49).long()].sum(1).mean()
    assert found.how.startswith("AIS")
    assert found.nats == pytest.approx(float(expected), abs=1e-3)


@pytest.mark.parametrize("objective", ["cd", "pcd", "tempered"])
@pytest.mark.parametrize(("neighbours", "tied"), [(4, True), (8, False)])
def test_training_raises_the_exact_likelihood(device, objective, neighbours, tied):
    teacher = grid(device, 4, 4, neighbours, tied)
    teacher.sample_sweeps = 200
    images = teacher.sample(1000)
    torch.manual_seed(0)
    model = GridModel(device, 4, 4, neighbours=neighbours, tied=tied, objective=objective, n_sweeps=2, n_chains=100)
    model.start_from(images)
    before = model.log_likelihood(images, LABELS)
    adam = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(6):
        for rows in torch.randperm(1000).split(100):
            adam.zero_grad()
            model.loss(images[rows], LABELS).backward()
            adam.step()
    after, best = model.log_likelihood(images, LABELS), teacher.log_likelihood(images, LABELS)
    assert best.nats > before.nats + 0.3  # so there is something to learn
    assert after.nats - before.nats > 0.7 * (best.nats - before.nats)


def test_the_gradient_of_long_runs_is_the_likelihoods(device):
    """Data of the model's own law: the expected gradient is 0, within 5 standard errors of 2,000 pairs of states."""
    model = grid(device, 3, 4, 4, tied=True)
    model.sample_sweeps, model.n_sweeps = 100, 100
    images = model.sample(2000)
    model.loss(images, LABELS).backward()
    assert float(model.couplings.grad.abs().max()) < 5 * math.sqrt(2 * 6**2 / 4 / 2000)  # 6 edges, each 0 or 1
    assert float(model.fields.grad.abs().max()) < 5 * math.sqrt(2 / 4 / 2000)


def test_every_temperature_of_a_ladder_keeps_its_law(device):
    """Mean energies of 2,000 ladders that exchange states, against enumeration at each beta: 4.5 standard errors."""
    model = grid(device, 2, 4, 4, False, objective="tempered", n_chains=2000, n_sweeps=3)
    potts, images = model.potts_model(), noise(1, 2, 4)
    for _ in range(12):
        model.loss(images, LABELS)
    reached = model.state_dict()["_extra_state"]["chains"].reshape(2000, len(TEMPERED_BETAS), 4).numpy()
    energies = potts.energies(np.array(list(itertools.product(range(4), repeat=4)), dtype=np.uint8))
    for k, beta in enumerate(TEMPERED_BETAS):
        law = np.exp(-beta * energies)
        law /= law.sum()
        mean = law @ energies
        error = math.sqrt(law @ (energies - mean) ** 2 / 2000)
        assert abs(potts.energies(reached[:, k]).mean() - mean) < 4.5 * error


def test_copies_are_one_model_at_each_beta(device):
    for neighbours, tied in FORMS:
        potts = grid(device, 4, 4, neighbours, tied).potts_model()
        both = in_copies(potts, np.array([0.5, 2.0]))
        states = noise(6, 4, 4).reshape(3, 32).numpy()
        expected = 0.5 * potts.energies(states[:, :16]) + 2 * potts.energies(states[:, 16:])
        np.testing.assert_allclose(both.energies(states), expected, rtol=1e-12)


@pytest.mark.parametrize("objective", ["cd", "pcd", "tempered"])
def test_a_checkpoint_goes_on_bit_for_bit(tmp_path, objective):
    images = noise(60, 6, 4)

    def trained(model, adam, steps):
        for _ in range(steps):
            adam.zero_grad()
            model.loss(images, LABELS).backward()
            adam.step()
        return model

    def fresh(seed):
        device = gl.open_device(f"sim://ideal?seed={seed}")
        model = GridModel(device, 6, 4, tied=False, objective=objective, n_chains=10)
        model.start_from(images)
        return model, torch.optim.Adam(model.parameters(), lr=0.05)

    model, adam = fresh(1)
    trained(model, adam, 3)
    save_checkpoint(tmp_path / "run.pt", 3, model=model, adam=adam)
    trained(model, adam, 3)
    other, again = fresh(2)
    assert load_checkpoint(tmp_path / "run.pt", model=other, adam=again) == 3
    trained(other, again, 3)
    assert torch.equal(model.fields, other.fields)
    assert torch.equal(model.couplings, other.couplings)
    assert torch.equal(model.sample(3), other.sample(3))
    for each in (model, other):
        each.sampler.device.close()


def test_persistent_chains_of_another_size_are_refused(device):
    images = noise(20, 6, 4)
    model = GridModel(device, 6, 4, objective="tempered", n_chains=5)
    model.loss(images, LABELS)
    state = model.state_dict()
    assert state["_extra_state"]["chains"].shape == (5, 36 * len(TEMPERED_BETAS))
    with pytest.raises(InvalidModelError, match="same objective and n_chains"):
        GridModel(device, 6, 4, objective="pcd", n_chains=5).load_state_dict(state)


def test_bad_input_is_refused(device):
    model = GridModel(device, 6, 4)
    with pytest.raises(InvalidModelError, match="6 x 6 pixels"):
        model.energy(noise(2, 5, 4))
    with pytest.raises(InvalidModelError, match="levels must lie from 0 to 3"):
        model.loss(noise(2, 6, 4) + 1, LABELS)
    with pytest.raises(InvalidModelError, match="one of cd, pcd, tempered"):
        GridModel(device, 6, 4, objective="exact")
    with pytest.raises(InvalidModelError, match="4 neighbours, or 8"):
        GridModel(device, 6, 4, neighbours=6)
    with pytest.raises(InvalidModelError, match="not conditional"):
        model.sample(2, torch.zeros(2))
    with pytest.raises(InvalidModelError, match="transfer matrix takes"):
        exact_log_partition(model.potts_model(), 6)


def test_a_sweep_changes_the_share_of_pixels_it_says(device):
    model = grid(device, 6, 4, 4, False)
    model.couplings.data.zero_()
    model.fields.data.zero_()
    images = noise(400, 6, 4)
    assert model.reconstruction_error(images) == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / (400 * 36)))


@pytest.mark.slow
@pytest.mark.parametrize(("neighbours", "tied"), FORMS)
def test_an_epoch_of_ten_thousand_digits_takes_under_ten_seconds(device, neighbours, tied):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    images = noise(10_000, 28, 4)
    model = GridModel(device, 28, 4, neighbours=neighbours, tied=tied)
    model.start_from(images)
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    began = time.process_time()  # of all threads, whatever else the machine does
    for rows in torch.randperm(len(images)).split(100):
        adam.zero_grad()
        model.loss(images[rows], LABELS).backward()
        adam.step()
    taken = time.process_time() - began
    torch.set_num_threads(before)
    assert taken < 10


def test_annealing_takes_as_many_temperatures_as_its_chains_need():
    class Found:
        def __init__(self, n_temperatures, needed):
            self.effective_chains = 100 * min(1, n_temperatures / needed)

    for needed, quick, expected in ((100, False, 20), (500, False, 80), (10**9, False, 160), (10**9, True, 20)):
        asked = []

        def estimate(n, needed=needed, asked=asked):
            asked.append(n)
            return Found(n, needed)

        found, n_temperatures = with_enough_temperatures(estimate, 100, 20, quick=quick)
        assert n_temperatures == expected == asked[-1]
        assert found.effective_chains == 100 * min(1, expected / needed)
