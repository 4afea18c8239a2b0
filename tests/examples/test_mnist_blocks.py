"""Colourings of the pixel grid, what they do to mixing, and how convergence is measured."""

from __future__ import annotations

import itertools
import math

import glauber as gl
import numpy as np
import pytest
from glauber.errors import InvalidModelError

pytest.importorskip("torch", reason="needs the extra torch: pip install -e '.[torch]'")

from examples.mnist_ebm.blocks import (
    block_updates,
    check_colouring,
    colouring,
    colouring_effect,
    device_colouring,
    draw_colourings,
    draw_effect,
    draw_updates,
    in_four_blocks,
)
from examples.mnist_ebm.convergence import (
    autocorrelation,
    autocorrelation_time,
    checkpoints,
    draw_convergence,
    memory,
    recognition,
    states_from_noise,
    trajectory,
)
from examples.mnist_ebm.grid import GridModel
from examples.mnist_ebm.lattice import make_lattice


def potts(side, n_levels, neighbours=4, *, tables=False, scale=0.8):
    draw = np.random.default_rng(5)
    lattice = make_lattice(side, neighbours)
    shape = (len(lattice.edges), n_levels, n_levels) if tables else (len(lattice.edges),)
    return lattice, gl.PottsModel(draw.normal(size=(side**2, n_levels)), lattice.edges, scale * draw.normal(size=shape))


@pytest.fixture(scope="module")
def sampler():
    with gl.open_device("sim://ideal?seed=7") as device:
        yield gl.torch.Sampler(device)


def ar1(phi, n_chains, n_samples, seed=1):
    draw = np.random.default_rng(seed)
    series = np.empty((n_chains, n_samples))
    series[:, 0] = draw.normal(size=n_chains)
    for k in range(1, n_samples):
        series[:, k] = phi * series[:, k - 1] + math.sqrt(1 - phi**2) * draw.normal(size=n_chains)
    return series


def test_the_colourings_have_the_blocks_they_should():
    assert np.bincount(colouring(28, 2)).tolist() == [392, 392]
    assert np.bincount(colouring(28, 4)).tolist() == [196] * 4
    for neighbours, n_colours in [(4, 2), (4, 4), (8, 4)]:
        check_colouring(make_lattice(28, neighbours), colouring(28, n_colours))


def test_an_edge_within_a_block_is_named():
    with pytest.raises(InvalidModelError, match=r"pixel \(0, 0\) and pixel \(1, 1\), both of colour 0"):
        check_colouring(make_lattice(28, 8), colouring(28, 2))
    colours = colouring(28, 2)
    colours[28 * 3 + 4] = 1 - colours[28 * 3 + 4]
    with pytest.raises(InvalidModelError, match=r"4 edges .*pixel \(3, 3\) and pixel \(3, 4\)"):
        check_colouring(make_lattice(28, 4), colours)
    with pytest.raises(InvalidModelError, match="one colour a pixel"):
        check_colouring(make_lattice(28, 4), colouring(27, 2))
    with pytest.raises(InvalidModelError, match="not of 3"):
        colouring(28, 3)


@pytest.mark.parametrize("side", [5, 28])
def test_the_device_updates_in_these_blocks(side):
    def blocks(colour):
        return {tuple(np.flatnonzero(colour == k)) for k in range(int(colour.max()) + 1)}

    lattice, model = potts(side, 4)
    assert blocks(device_colouring(model)) == blocks(colouring(side, 2))
    assert blocks(device_colouring(in_four_blocks(model, lattice))) == blocks(colouring(side, 4))
    assert blocks(device_colouring(potts(side, 4, 8)[1])) == blocks(colouring(side, 4))


def block_gibbs(model, colour, states, n_sweeps, seed):
    """A second body for the device's law to be checked against: sweeps block by block, in any colouring."""
    rng = np.random.default_rng(seed)
    tables = model.edge_tables()
    states = np.array(states, dtype=np.int64)
    both = np.concatenate([model.edges, model.edges[:, ::-1]])
    turned = np.concatenate([tables.swapaxes(1, 2), tables])  # indexed [state of the neighbour, own state]
    rows = [np.flatnonzero(colour[both[:, 0]] == k) for k in range(int(colour.max()) + 1)]
    for _ in range(n_sweeps):
        for k, entries in enumerate(rows):
            block = np.flatnonzero(colour == k)
            place = np.searchsorted(block, both[entries, 0])
            field = np.repeat(model.fields[None, block], len(states), axis=0)
            felt = turned[entries[None, :], states[:, both[entries, 1]]]
            np.add.at(field.swapaxes(0, 1), place, felt.swapaxes(0, 1))
            weight = np.exp(field - field.max(axis=2, keepdims=True)).cumsum(axis=2)
            u = rng.random((*weight.shape[:2], 1)) * weight[:, :, -1:]
            states[:, block] = (weight <= u).sum(axis=2)
    return states


@pytest.mark.parametrize("tables", [False, True])
def test_both_orders_on_the_device_and_in_numpy_keep_the_exact_law(sampler, tables):
    """Site probabilities and the mean energy, by 8,000 chains each: 10 numbers x 4 samplers within 4.5 errors."""
    lattice, model = potts(3, 2, tables=tables)
    every = np.array(list(itertools.product(range(2), repeat=9)), dtype=np.uint8)
    energies = model.energies(every)
    law = np.exp(-energies) / np.exp(-energies).sum()
    n = 8000
    schedule = gl.SamplingSchedule(n_samples=1, n_chains=n, n_warmup=40)
    found = [sampler.run(form, schedule).last for form in (model, in_four_blocks(model, lattice))]
    start = np.random.default_rng(1).integers(0, 2, (n, 9))
    found += [block_gibbs(model, colouring(3, colours), start, 40, seed=2) for colours in (2, 4)]
    for states in found:
        ones = law @ every
        assert (np.abs(states.mean(axis=0) - ones) < 4.5 * np.sqrt(ones * (1 - ones) / n)).all()
        mean = law @ energies
        assert abs(model.energies(states).mean() - mean) < 4.5 * math.sqrt(law @ (energies - mean) ** 2 / n)


def test_four_blocks_have_the_energies_of_two():
    for tables in (False, True):
        lattice, model = potts(6, 4, tables=tables)
        states = np.random.default_rng(1).integers(0, 4, (5, 36))
        np.testing.assert_allclose(in_four_blocks(model, lattice).energies(states), model.energies(states), rtol=1e-12)


def test_the_effect_is_measured_with_errors(sampler, tmp_path):
    lattice, model = potts(8, 4)
    told = []
    effect = colouring_effect(
        model, lattice, sampler, n_chains=32, n_samples=400, n_warmup=100, report=lambda *what: told.append(what)
    )
    assert effect.blocks == {"2": [32, 32], "4": [16] * 4}
    assert told[-1][0] == 1.0
    for name, two in effect.times["2"].items():
        assert two.sweeps >= 1
        assert 0 < two.standard_error < two.sweeps
        assert abs(effect.z(name)) < 4.5
    draw_effect(tmp_path / "effect.png", effect)
    draw_colourings(tmp_path / "blocks.png", {"2": colouring(8, 2), "4": colouring(8, 4)})
    assert min((tmp_path / name).stat().st_size for name in ("effect.png", "blocks.png")) > 5000
    with pytest.raises(InvalidModelError, match="nothing to compare"):
        colouring_effect(potts(4, 4, 8)[1], make_lattice(4, 8), sampler)


def test_autocorrelation_of_a_series_that_is_known():
    """AR(1): rho = phi^t and tau_int = (1 + phi) / (1 - phi)."""
    for phi in (0.0, 0.7, 0.9):
        series = ar1(phi, 32, 4000)
        found = autocorrelation_time(series, 3)
        exact = 3 * (1 + phi) / (1 - phi)
        assert found.standard_error < 0.05 * exact
        assert abs(found.sweeps - exact) < 5 * max(found.standard_error, 0.02 * exact)
        assert abs(found.mean) < 4.5 * found.mean_error
        np.testing.assert_allclose(autocorrelation(series, 10), phi ** np.arange(10), atol=0.03)
    kept = memory(ar1(0.7, 16, 400), 2, n_lags=5)
    assert kept.lags == [0, 2, 4, 6, 8]
    constant = autocorrelation_time(np.ones((8, 50)))
    assert math.isnan(constant.sweeps)
    with pytest.raises(InvalidModelError, match="8 chains"):
        autocorrelation_time(np.zeros((4, 100)))
    with pytest.raises(InvalidModelError, match="constant"):
        autocorrelation(np.ones((8, 50)), 3)


def test_chains_fall_from_noise_to_equilibrium(sampler, tmp_path):
    model = GridModel(sampler, 8, 4)
    model.couplings.data.fill_(1.3)
    sweeps = checkpoints(200, 12)
    assert (sweeps[0], sweeps[-1]) == (1, 200)
    states, energies = states_from_noise(model.advance, sweeps)
    assert states.shape == (len(sweeps), 64, 64)
    np.testing.assert_allclose(model.potts_model().energies(states[-1]), energies[-1])
    found = trajectory(sweeps, energies)
    assert found.mean[0] > found.mean[-1] + 10
    assert found.settled is not None
    assert all(low <= high for low, high in zip(found.low, found.high, strict=True))
    draw_convergence(tmp_path / "c.png", {"grid": found}, {"grid": memory(ar1(0.7, 16, 400))}, {"grid": -50.0})
    assert (tmp_path / "c.png").stat().st_size > 10_000
    with pytest.raises(InvalidModelError, match="ascend"):
        states_from_noise(model.advance, [3, 3])


def test_steps_until_half_of_the_chains_are_recognised():
    states = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 1, 1, 0], [1, 1, 1, 0]])  # noise passes now and then
    found = recognition([1, 10, 20, 40], states, lambda part: 0.5 + 0.5 * part)
    assert found.share == [0.75, 0.25, 0.5, 0.75]
    assert found.median == 20
    assert recognition([1], states[:1], lambda part: 0.5 * part).median is None


def test_an_update_of_a_block_leaves_the_others(sampler, tmp_path):
    _, model = potts(8, 4)
    for n_colours in (2, 4):
        colour = colouring(8, n_colours)
        states = block_updates(model, colour, sampler, 5)
        assert states.shape == (5 * n_colours + 1, 64)
        for number, (before, after) in enumerate(itertools.pairwise(states)):
            changed = before != after
            assert not changed[colour != number % n_colours].any()
            assert changed.any()
        draw_updates(tmp_path / f"{n_colours}.png", states[: n_colours + 1], n_colours, 4)
        assert (tmp_path / f"{n_colours}.png").stat().st_size > 4000
