"""The speed comparison of the MNIST example: samplers of one law, and a table that says who is faster."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import glauber as gl
import numpy as np
import pytest
from glauber.errors import GlauberError

from examples.mnist_ebm.samplers import in_plain_python, on_device, on_thrml
from examples.mnist_ebm.speed import Row, Speed, draw_speed, make_grid, measure_speed, table


@pytest.fixture(scope="module")
def device():
    with gl.open_device("sim://ideal?seed=7") as opened:
        yield opened


@pytest.mark.parametrize("weights", ["tied", "per edge", "tables"])
def test_the_plain_loop_has_the_exact_law(weights):
    """Probabilities of 4 pixels of 4 levels and the mean energy, by 3,000 chains, within 4.5 standard errors."""
    model = make_grid(weights, 2)
    every = np.array(list(itertools.product(range(4), repeat=4)))
    energies = model.energies(every)
    law = np.exp(-energies) / np.exp(-energies).sum()
    n = 3000
    states = in_plain_python(model).run(np.zeros((n, 4), dtype=np.uint8), 12, 1).states
    for site, level in itertools.product(range(4), range(4)):
        p = law @ (every[:, site] == level)
        assert abs((states[:, site] == level).mean() - p) < 4.5 * math.sqrt(p * (1 - p) / n)
    mean = law @ energies
    assert abs(model.energies(states).mean() - mean) < 4.5 * math.sqrt(law @ (energies - mean) ** 2 / n)


def test_a_run_counts_its_sweeps_and_takes_its_start(device):
    model = make_grid("tied", 5)
    start = np.full((3, 25), 2, dtype=np.uint8)
    for one in (on_device(device, model, 3), in_plain_python(model)):
        found = one.run(start, 4, 1)
        assert found.sweeps == 4
        assert found.states.shape == start.shape
        assert found.seconds > 0
    frozen = gl.PottsModel(np.eye(4)[[2] * 25] * 200, model.edges, model.couplings)
    assert (in_plain_python(frozen).run(start, 2, 1).states == 2).all()


def test_a_short_measurement_has_rows_that_agree_and_a_picture(device, tmp_path):
    speed = measure_speed(
        device, others=["sim://nosuch"], cases=[("tied", 5, 8), ("tables", 4, 1)], rounds=3, seconds=0.02
    )
    assert not speed.disagreeing
    names = [row.sampler for row in speed.rows]
    assert names.count("glauber, sim://ideal") == names.count("plain Python, one site at a time") == 2
    assert "nosuch" in speed.left_out["sim://nosuch"]
    assert ("THRML" in speed.left_out) != any(name.startswith("THRML") for name in names)
    for row in speed.rows:
        assert 0 < row.low <= row.milliseconds <= row.high
    json.dumps(dataclasses.asdict(speed))
    assert table(speed).count("\n") == 1 + len(speed.rows)
    draw_speed(tmp_path / "speed.png", speed)
    assert (tmp_path / "speed.png").stat().st_size > 10_000


def test_a_sampler_of_another_law_and_one_that_is_faster_are_named():
    def row(sampler, chains, milliseconds, p_value):
        return Row("tied", 28, chains, sampler, milliseconds, milliseconds, 1.0, 1.0, 0.0, 10, p_value)

    wrong = row("plain", 1, 9.0, 1e-9)
    speed = Speed([row("device", 1, 1.0, None), wrong, row("device", 64, 1.0, None), row("THRML", 64, 0.5, 0.3)], {}, 5)
    assert speed.disagreeing == [wrong]
    assert "NO" in table(speed)
    assert speed.overtakes("THRML") == ["tied, 28 x 28, 64 chains"]


def test_thrml_has_the_exact_mean_energy():
    """2 x 2 pixels by 4,000 chains, within 4.5 standard errors."""
    model = make_grid("tables", 2)
    try:
        thrml = on_thrml(model, 4000)
    except GlauberError as error:
        pytest.skip(f"needs the extra thrml: pip install -e '.[thrml]' ({error})")
    states = thrml.run(np.zeros((4000, 4), dtype=np.uint8), 20, 1).states
    energies = model.energies(np.array(list(itertools.product(range(4), repeat=4))))
    law = np.exp(-energies) / np.exp(-energies).sum()
    mean = law @ energies
    assert abs(model.energies(states).mean() - mean) < 4.5 * math.sqrt(law @ (energies - mean) ** 2 / 4000)
