"""Planted instances: the claimed energy is the state's own, and no state has less."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from glauber.errors import InvalidModelError
from glauber.testing import ExactLaw, frustrated_loops, tile_planted_2d, tile_planted_3d, wishart
from glauber.topology import King

KING = King(rows=4, cols=4).edges()
SMALL = {
    "tiles": lambda seed: tile_planted_2d(4, seed=seed),
    "tiles C1": lambda seed: tile_planted_2d(4, shares=(1, 0, 0, 0), seed=seed),
    "tiles C4": lambda seed: tile_planted_2d(4, shares=(0, 0, 0, 1), seed=seed),
    "wishart": lambda seed: wishart(14, 0.5, seed=seed),
    "wishart, one column": lambda seed: wishart(13, 0.01, seed=seed),
    "wishart, integer": lambda seed: wishart(14, 0.4, integer=True, seed=seed),
    "loops": lambda seed: frustrated_loops(16, KING, 0.7, seed=seed),
    "loops, limited": lambda seed: frustrated_loops(16, KING, 0.5, min_length=5, max_coupling=2, seed=seed),
}
LARGE = {
    **SMALL,
    "tiles 12^2": lambda seed: tile_planted_2d(12, shares=(0, 1, 2, 0), seed=seed),
    "tiles 6^3": lambda seed: tile_planted_3d(6, shares=(1, 2, 3), seed=seed),
    "wishart 90": lambda seed: wishart(90, 0.75, seed=seed),
    "wishart 90, integer": lambda seed: wishart(90, 0.75, integer=True, seed=seed),
    "loops 100": lambda seed: frustrated_loops(100, King(rows=10, cols=10).edges(), 0.4, min_length=6, seed=seed),
}


@pytest.mark.parametrize("name", LARGE)
def test_the_energy_is_the_states_own_and_the_seed_decides_everything(name):
    for seed in range(5):
        made, again = LARGE[name](seed), LARGE[name](seed)
        assert made.model == again.model
        np.testing.assert_array_equal(made.state, again.state)
        recount = made.model.energies(made.state)
        if (made.model.couplings == np.rint(made.model.couplings)).all():
            assert recount == made.energy == again.energy
        else:
            np.testing.assert_allclose(recount, made.energy, rtol=1e-12)
    assert LARGE[name](1).model != LARGE[name](2).model


@pytest.mark.parametrize("name", SMALL)
def test_no_state_has_less_energy(name):
    seeds = range(6)
    states = None
    for seed in seeds:
        made = SMALL[name](seed)
        if states is None:
            states = ExactLaw(made.model, 1.0).states
        assert made.model.energies(states).min() >= made.energy - 1e-9


def test_cubes_of_a_3d_instance_cannot_do_better_one_by_one():
    """64 spins are too many to enumerate; but the least energies of its cubes, which share no edge, bound the sum."""
    side, states = 4, np.array(list(itertools.product((-1, 1), repeat=8)))
    offsets = np.array(list(itertools.product((0, 1), repeat=3)))
    for seed, shares in enumerate([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)]):
        made = tile_planted_3d(side, shares=shares, seed=seed)
        coupling = {tuple(edge): J for edge, J in zip(made.model.edges.tolist(), made.model.couplings, strict=True)}
        assert len(coupling) == 3 * side**3
        bound, faces = 0.0, []
        for corner in itertools.product(range(side), repeat=3):
            if len({c % 2 for c in corner}) > 1:
                continue
            sites = [int(np.ravel_multi_index(tuple((corner + o) % side), (side,) * 3)) for o in offsets]
            J = np.zeros((8, 8))
            for a, b in itertools.combinations(range(8), 2):
                if np.abs(offsets[a] - offsets[b]).sum() == 1:
                    J[a, b] = coupling.pop((min(sites[a], sites[b]), max(sites[a], sites[b])))
            bound -= np.einsum("si,ij,sj->s", states, J, states).max()
            faces.append(_frustrated_faces(J + J.T))
        assert not coupling  # every edge in exactly one cube
        assert bound == made.energy
        classes = {count for count, share in zip((2, 4, 6), shares, strict=True) if share}
        assert set(faces) == classes


def _frustrated_faces(J):
    """Faces of a cube, corners counted in binary, whose product of couplings is negative."""
    count = 0
    for bit, other in itertools.combinations((1, 2, 4), 2):
        third = 7 ^ bit ^ other
        for base in (0, third):
            ring = [base, base | bit, base | bit | other, base | other, base]
            count += np.prod([J[a, b] for a, b in itertools.pairwise(ring)]) < 0
    return count


@pytest.mark.parametrize("name", ["tiles 12^2", "tiles 6^3", "wishart 90", "wishart 90, integer", "loops"])
def test_the_gauge_hides_the_state(name):
    """Neither state nor couplings lean to one sign; over many seeds every site is up about half of the time."""
    count = 60
    made = [LARGE[name](seed) for seed in range(count)]
    up = np.mean([instance.state == 1 for instance in made], axis=0)
    n = len(up)
    assert abs(up.mean() - 0.5) < 5 * 0.5 / np.sqrt(count * n)
    assert (np.abs(up - 0.5) < 6 * 0.5 / np.sqrt(count)).all()
    signs = np.array([np.sign(instance.model.couplings).mean() for instance in made])
    assert abs(signs.mean()) < 5 * signs.std() / np.sqrt(count)


def test_integer_forms_are_small_integers():
    made = wishart(40, 0.5, integer=True, seed=1)
    assert np.abs(made.model.couplings).max() <= 20
    assert (made.model.couplings == np.rint(made.model.couplings)).all()
    assert set(np.abs(tile_planted_2d(8, seed=1).model.couplings)) == {1.0, 2.0}
    assert set(np.abs(tile_planted_3d(4, seed=1).model.couplings)) == {1.0}
    loops = frustrated_loops(64, King(rows=8, cols=8).edges(), 0.4, max_coupling=1, seed=1)
    assert set(np.abs(loops.model.couplings)) == {1.0}


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: tile_planted_2d(5, seed=1), "even"),
        (lambda: tile_planted_2d(2, seed=1), "side"),
        (lambda: tile_planted_3d(4.0, seed=1), "side"),
        (lambda: tile_planted_2d(4, seed=None), "seed"),
        (lambda: tile_planted_2d(4, seed=-1), "seed"),
        (lambda: tile_planted_2d(4, shares=(0, 0, 0, 0), seed=1), "shares"),
        (lambda: tile_planted_3d(4, shares=(1, -1, 1), seed=1), "shares"),
        (lambda: tile_planted_3d(4, shares=(1, 1), seed=1), "shares"),
        (lambda: wishart(1, 0.5, seed=1), "n must"),
        (lambda: wishart(10, 0.0, seed=1), "alpha"),
        (lambda: wishart(10, float("nan"), seed=1), "alpha"),
        (lambda: wishart(11, 0.5, integer=True, seed=1), "odd"),
        (lambda: frustrated_loops(16, KING, 0.0, seed=1), "loops_per_spin"),
        (lambda: frustrated_loops(16, KING, 0.5, min_length=2, seed=1), "min_length"),
        (lambda: frustrated_loops(16, KING, 5.0, max_coupling=1, seed=1), "do not fit"),
        (lambda: frustrated_loops(4, [(0, 1), (1, 2), (2, 3)], 0.5, seed=1), "do not fit"),
        (lambda: frustrated_loops(4, [(0, 0)], 0.5, seed=1), "itself"),
        (lambda: frustrated_loops(4, [], 0.5, seed=1), "do not fit"),
    ],
)
def test_what_is_refused(make, match):
    with pytest.raises(InvalidModelError, match=match):
        make()
