"""examples/mnist_ebm: what models hold, log Z from both sides, and grids as p-bits on other devices."""

import itertools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch: pip install -e '.[torch]'")

import glauber as gl  # noqa: E402
from glauber.errors import InvalidModelError  # noqa: E402

from examples.mnist_ebm import substrates  # noqa: E402
from examples.mnist_ebm.grid import GridModel  # noqa: E402
from examples.mnist_ebm.lattice import exact_log_partition, in_p_bits, make_lattice  # noqa: E402
from examples.mnist_ebm.laws import draw_warmup, log_partition_of  # noqa: E402
from examples.mnist_ebm.machines import RbmModel  # noqa: E402


def potts(side, q, neighbours, seed=0):
    draw = np.random.default_rng(seed)
    lattice = make_lattice(side, neighbours)
    n_edges = len(lattice.edges)
    shape = (n_edges, q, q) if neighbours == 8 else (n_edges,)
    return gl.PottsModel(draw.normal(size=(side**2, q)), lattice.edges, 0.5 * draw.normal(size=shape))


@pytest.mark.parametrize("neighbours", [4, 8])
def test_two_levels_as_p_bits_have_the_same_energies(neighbours):
    model = potts(3, 2, neighbours)
    spins = in_p_bits(model)
    every = np.array(list(itertools.product(range(2), repeat=9)), dtype=np.int8)
    np.testing.assert_allclose(spins.energies(2 * every - 1), model.energies(every), rtol=0, atol=1e-12)
    with pytest.raises(InvalidModelError, match="two states, a site of this model 4"):
        in_p_bits(potts(3, 4, 4))


def test_log_z_lies_between_the_two_directions():
    """Few temperatures, so that both directions are wrong in their own way: the bracket must hold the exact value."""
    with gl.open_device("sim://ideal", seed=0) as device:
        grid = GridModel(device, 4, 2, neighbours=8, tied=False)
        draw = torch.Generator().manual_seed(1)
        with torch.no_grad():
            grid.fields.normal_(generator=draw)
            grid.couplings.normal_(std=0.7, generator=draw)
        states, _ = grid.advance(None, 2000, 500)
        exact = exact_log_partition(grid.potts_model(), 4)
        images = grid.images(states)
        _between(
            exact, [log_partition_of(grid, images, 500, steps, start) for steps in (4, 50) for start in (None, states)]
        )
        torch.manual_seed(1)  # of the couplings
        rbm = RbmModel(
            n_hidden=5, deviation=0.6, side=4, means=torch.zeros(16), device=device, objective="cd",
            n_sweeps=1, n_chains=1, sample_sweeps=1, n_temperatures=20,
        )  # fmt: skip
        states, _ = rbm.advance(None, 2000, 500)
        exact = rbm.machine.log_partition().item()
        images = rbm.images(states)
        _between(
            exact, [log_partition_of(rbm, images, 500, steps, start) for steps in (4, 50) for start in (None, states)]
        )


def _between(exact, found):
    for forwards, backwards in (found[:2], found[2:]):
        assert forwards.value < exact + 3 * forwards.standard_error
        assert backwards.value > exact - 3 * backwards.standard_error
    few, many = (abs(two[1].value - two[0].value) for two in (found[:2], found[2:]))
    assert many < 0.1
    assert many < few < 2


def test_states_of_images_are_images_again():
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (6, 4, 4)).astype(np.uint8))
    labels = torch.arange(6)
    with gl.open_device("sim://ideal", seed=0) as device:
        grid = GridModel(device, 4, 2)
        rbm = RbmModel(
            n_hidden=5, deviation=0.6, side=4, means=torch.zeros(16), device=device, objective="cd",
            n_sweeps=1, n_chains=1, sample_sweeps=1, n_temperatures=20,
        )  # fmt: skip
        for model in (grid, rbm):
            assert torch.equal(model.images(model.states_of(images, labels)), images)
        label = rbm.states_of(images, labels)[:, 16:26]
        assert (label.argmax(1) == labels.numpy()).all()
        assert (label.sum(1) == -8).all()


def test_a_grid_is_the_same_job_on_every_device():
    """As p-bits the firmware takes it too; what is not installed says so; another sampler has the same law."""
    found = substrates.compare(in_p_bits(potts(4, 2, 8)), 50, n_chains=64)
    assert set(found) == set(substrates.DEVICES)
    for address in ("sim://ideal", "sim://ideal?body=reference", "firmware://host"):
        assert "energy" in found[address], address
    for address, one in found.items():
        assert ("why_not" in one) != ("energy" in one)
        if "energy" in one and address != "thrml://cpu":
            assert one["same"], address
            assert one["z"] is None
    if "energy" in (other := found["thrml://cpu"]):
        assert abs(other["z"]) < 4.5
        assert not other["same"]
    four = substrates.compare(potts(4, 4, 4), 50, n_chains=64)
    assert "p-bits" in four["firmware://host"]["why_not"]
    assert four["sim://ideal?body=reference"]["same"]


def test_another_law_is_seen(monkeypatch):
    """A device that is half as cold as it says, and one with other random numbers."""
    real = gl.open_device

    class Hot:
        def __init__(self, device):
            self.device = device

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.device.close()

        def submit(self, model, schedule, **how):
            return self.device.submit(model, schedule.model_copy(update={"beta": 0.5}), **how)

    def opened(address, seed):
        device = real("sim://ideal", seed=seed if address == "first" else seed + 1)
        return Hot(device) if address == "hot" else device

    monkeypatch.setattr(substrates, "DEVICES", {"first": "", "hot": "", "other": ""})
    monkeypatch.setattr(substrates.gl, "open_device", opened)
    found = substrates.compare(in_p_bits(potts(4, 2, 8)), 50)
    assert found["hot"]["z"] > 6
    assert not found["other"]["same"]
    assert abs(found["other"]["z"]) < 4.5


def test_the_picture_of_warm_up(tmp_path):
    rows = [{"sweeps": k, "right": 0.1 * math.log10(k), "fid": 1000 / k, "seconds": 0.1} for k in (1, 10, 100)]
    draw_warmup(tmp_path / "w.png", {"rbm": {"n": 100, "rows": rows}})
    assert (tmp_path / "w.png").stat().st_size > 10_000
