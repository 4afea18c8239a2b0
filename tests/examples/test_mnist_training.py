"""examples/mnist_ebm: configurations, the training loop, the search, and every model's likelihood."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch: pip install -e '.[torch]'")

import glauber as gl  # noqa: E402
from glauber.errors import InvalidModelError  # noqa: E402

from examples.mnist_ebm.config import RunConfig, read_config  # noqa: E402
from examples.mnist_ebm.data import Dataset, Part  # noqa: E402
from examples.mnist_ebm.evaluate import trained  # noqa: E402
from examples.mnist_ebm.machines import label_spins, pixel_spins  # noqa: E402
from examples.mnist_ebm.search import SearchConfig, combinations, read_search, search  # noqa: E402
from examples.mnist_ebm.train import make_model, train  # noqa: E402

CONFIGS = Path(__file__).resolve().parents[2] / "examples" / "mnist_ebm" / "configs"

MODELS = {
    "rbm, cd": {"kind": "rbm", "n_hidden": 6, "objective": "cd", "n_temperatures": 300, "sample_sweeps": 20},
    "rbm, pcd": {"kind": "rbm", "n_hidden": 6, "n_chains": 32, "n_temperatures": 300, "sample_sweeps": 20},
    "rbm, tempered": {"kind": "rbm", "n_hidden": 6, "objective": "tempered", "n_chains": 8, "n_temperatures": 300}
    | {"sample_sweeps": 20, "n_sweeps": 2},
    "deep": {
        "kind": "deep",
        "chip": "pbit-king-64",
        "label_copies": 1,
        "n_chains": 16,
        "sample_sweeps": 20,
        "n_temperatures": 60,
    },
    "chain": {"kind": "chain", "n_hidden": 6, "n_steps": 2, "n_paths": 2, "n_temperatures": 20},
    "grid": {"kind": "grid", "n_chains": 32, "sample_sweeps": 20},
    "vae": {"kind": "vae", "n_parameters": 3000, "n_latent": 4},
}


def bars(n, seed):
    """Images 4 x 4 of one bright column, whose number is the label."""
    labels = np.random.default_rng(seed).integers(0, 4, n).astype(np.uint8)
    images = np.zeros((n, 4, 4), dtype=np.uint8)
    images[np.arange(n), :, labels] = 1
    return Part(images, labels)


@pytest.fixture(scope="module")
def dataset():
    return Dataset("bars", 2, bars(600, 0), bars(100, 1), bars(100, 2))


def config(model, **training):
    training = {"epochs": 2, "batch": 50, "learning_rate": 0.01, "check_every": 10, "n_check": 50, **training}
    return RunConfig(title="test", data={"side": 4}, model=model, training=training)


@pytest.mark.parametrize("name", MODELS)
def test_an_interrupted_training_goes_on_bit_for_bit(name, dataset, tmp_path):
    run = config(MODELS[name], checkpoint_every=7)

    class StoppedError(Exception):
        pass

    def stop(fraction, what):
        if fraction > 0.45:
            raise StoppedError

    found = {}
    for way in ("whole", "interrupted"):
        with gl.open_device("sim://ideal", seed=0) as device:
            if way == "interrupted":
                with pytest.raises(StoppedError):
                    train(make_model(run, dataset, device, 5), dataset, run, 5, tmp_path / way, stop)
            model = make_model(run, dataset, device, 5)
            course = train(model, dataset, run, 5, tmp_path / way)
            found[way] = (course.losses, course.looks, model.sample(20))
    assert found["whole"][:2] == found["interrupted"][:2]
    assert torch.equal(found["whole"][2], found["interrupted"][2])
    assert len(found["whole"][0]) == 24


@pytest.mark.parametrize("name", MODELS)
def test_training_raises_the_likelihood(name, dataset, tmp_path):
    run = config(MODELS[name], epochs=5, learning_rate=0.02, check_every=30)
    images, labels = torch.from_numpy(dataset.test.images), torch.from_numpy(dataset.test.labels).long()
    with gl.open_device("sim://ideal", seed=0) as device:
        model = make_model(run, dataset, device, 1)
        before = model.log_likelihood(images, labels)
        course = train(model, dataset, run, 1, tmp_path)
        after = model.log_likelihood(images, labels)
    assert after.nats > before.nats + 3 * (before.standard_error + after.standard_error), (before, after)
    assert after.nats < 0
    assert course.looks[-1]["update"] == course.updates == 60
    assert json.loads((tmp_path / "course.json").read_text())["losses"] == course.losses


@pytest.mark.parametrize(("seed", "training"), [(1, {"learning_rate": 0.02}), (2, {})])
def test_a_training_never_goes_on_from_anothers_checkpoints(dataset, tmp_path, seed, training):
    def course_of(run, seed, folder):
        with gl.open_device("sim://ideal", seed=0) as device:
            return train(make_model(run, dataset, device, seed), dataset, run, seed, folder)

    first, other = config(MODELS["grid"]), config(MODELS["grid"], **training)
    before = course_of(first, 1, tmp_path / "one")
    after, fresh = (course_of(other, seed, tmp_path / folder) for folder in ("one", "two"))
    assert after.losses == fresh.losses != before.losses
    retitled = other.model_copy(update={"title": "another", "n_samples": 50})
    checkpoint = tmp_path / "two" / "checkpoint.pt"
    made = checkpoint.stat().st_mtime_ns
    assert course_of(retitled, seed, tmp_path / "two") == fresh
    assert checkpoint.stat().st_mtime_ns == made  # what it is called and judged by decides no parameter


def test_early_stop_when_the_likelihood_falls(dataset, tmp_path):
    run = config(MODELS["rbm, cd"] | {"n_temperatures": 2000}, epochs=40, learning_rate=1.0, check_every=5, patience=3)
    with gl.open_device("sim://ideal", seed=0) as device:
        course = train(make_model(run, dataset, device, 0), dataset, run, 0, tmp_path)
        assert course.stopped_early
        assert course.updates < 480
        assert course.best == max(course.looks, key=lambda look: look["nats"])["update"]
        again = train(make_model(run, dataset, device, 0), dataset, run, 0, tmp_path)
    assert again.losses == course.losses


def test_the_rbms_likelihood_is_the_sum_over_all_states(dataset):
    images, labels = torch.from_numpy(dataset.test.images[:20]), torch.from_numpy(dataset.test.labels[:20]).long()
    with gl.open_device("sim://ideal", seed=0) as device:
        model = make_model(config(MODELS["rbm, pcd"] | {"n_temperatures": 1000}), dataset, device, 3)
        torch.nn.init.normal_(model.machine.couplings, std=0.3, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            exact_log_z = float(model.machine.log_partition())
            each = torch.stack(
                [-model.machine.free_energy(model.visible(images, torch.full((20,), digit))) for digit in range(10)]
            )
        exact = float(torch.logsumexp(each, 0).mean()) - exact_log_z
        found = model.log_likelihood(images, labels)
        assert torch.equal(model.free_energy(images), -torch.logsumexp(each.double(), 0))
    assert found.how.startswith("AIS, 256 chains (")
    spread = float(torch.logsumexp(each, 0).std()) / 20**0.5
    of_log_z = (found.standard_error**2 - spread**2) ** 0.5
    assert abs(found.nats - exact) < 4 * of_log_z + 1e-4


def test_the_deep_machines_likelihood_is_the_sum_over_all_states(dataset):
    """16 pixels, 10 labels, and 10 hidden sites of a square grid, coupled among themselves."""
    from glauber.topology import Square

    from examples.mnist_ebm.machines import DeepModel

    images, labels = torch.from_numpy(dataset.test.images[:10]), torch.from_numpy(dataset.test.labels[:10]).long()
    how = {"objective": "pcd", "n_sweeps": 1, "n_chains": 4, "sample_sweeps": 5, "n_temperatures": 2000}
    with gl.open_device("sim://ideal", seed=0) as device:
        model = DeepModel(1, Square(rows=6, cols=6), 0, 4, torch.zeros(16), device, **how)
        machine = model.machine
        torch.nn.init.normal_(machine.couplings, std=0.4, generator=torch.Generator().manual_seed(1))
        assert not machine.hidden_are_independent
        with torch.no_grad():
            exact = machine.log_likelihood(model.visible(images, labels), exact_by_rows(model))
        found = model.log_likelihood(images, labels)
    assert abs(found.nats - float(exact.mean())) < 4 * found.standard_error / 10**0.5 + 0.05, found


def test_a_chip_without_a_graph_or_with_too_few_sites_is_refused(dataset):
    deep = MODELS["deep"]
    with gl.open_device("sim://ideal", seed=0) as device:
        with pytest.raises(InvalidModelError, match="no graph"):
            make_model(config(deep | {"chip": "x0"}), dataset, device, 0)
        with pytest.raises(InvalidModelError, match="no hidden site on a graph of 64"):
            make_model(config(deep | {"label_copies": 5}), dataset, device, 0)


def exact_by_rows(model):
    """Log Z of a machine on a 6 x 6 square grid by transfer matrices over rows of 64 states."""
    ising = model.machine.ising_model()
    width, states = 6, 1 - 2 * ((np.arange(64)[:, None] >> np.arange(6)) & 1)
    couplings = {tuple(pair): value for pair, value in zip(ising.edges.tolist(), ising.couplings, strict=True)}
    log_z = np.zeros(64)
    for row in range(6):
        sites = row * width + np.arange(width)
        inner = states @ ising.fields[sites]
        for k in range(width - 1):
            inner = inner + couplings.get((sites[k], sites[k + 1]), 0.0) * states[:, k] * states[:, k + 1]
        if row:
            down = np.array([couplings.get((site - width, site), 0.0) for site in sites])
            table = (states * down) @ states.T + log_z[None, :]
            log_z = np.logaddexp.reduce(table, axis=1)
        log_z = log_z + inner
    return float(np.logaddexp.reduce(log_z))


@pytest.mark.parametrize("name", ["rbm, pcd", "deep", "chain"])
def test_energies_of_torch_numpy_and_the_device_agree(name, dataset):
    with gl.open_device("sim://ideal", seed=0) as device:
        model = make_model(config(MODELS[name]), dataset, device, 3)
        machine = model.chain.machines[1] if name == "chain" else model.machine
        torch.nn.init.normal_(machine.couplings, std=0.5, generator=torch.Generator().manual_seed(1))
        result = machine.run(gl.SamplingSchedule(n_samples=3, n_chains=20, n_warmup=5))
        of_torch = machine.energy(machine.units(result.states)).detach().numpy()
    fields, couplings = machine.fields.detach().numpy(), machine.couplings.detach().numpy()
    of_numpy = np.zeros_like(of_torch)
    for place in np.ndindex(of_numpy.shape):
        units = result.states[place][machine.sites]
        pairs = sum(j * units[a] * units[b] for (a, b), j in zip(machine.edges.tolist(), couplings, strict=True))
        of_numpy[place] = -float(fields @ units) - pairs
    assert of_torch == pytest.approx(of_numpy, rel=1e-5, abs=1e-5)
    assert result.energies == pytest.approx(of_numpy, rel=1e-5, abs=1e-5)


def test_labels_and_pixels_are_spins():
    assert label_spins(torch.tensor([3]), 2).tolist()[0] == [1.0 if k % 10 == 3 else -1.0 for k in range(20)]
    assert pixel_spins(torch.tensor([[[0, 1], [1, 0]]], dtype=torch.uint8)).tolist() == [[-1, 1, 1, -1]]


def test_every_configuration_is_valid():
    files = sorted(CONFIGS.rglob("*.toml"))
    assert len(files) > 8
    for path in files:
        read_search(path) if path.stem == "search" else read_config(path)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("title = ", "is not TOML"),
        ('title = "a"', "model"),
        ('title = "a"\n[model]\nkind = "gan"', "kind"),
        ('title = "a"\n[model]\nkind = "rbm"\nn_hiden = 3', "n_hiden"),
        ('title = "a"\n[model]\nkind = "rbm"\n[training]\nlearning_rate = -1', "learning_rate"),
    ],
)
def test_a_wrong_configuration_names_file_and_field(tmp_path, text, word):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"wrong.toml.*{word}"):
        read_config(path)


def test_a_search_resumes_and_sorts(dataset, tmp_path):
    base = config(MODELS["rbm, cd"], epochs=1)
    space = {"training.learning_rate": [0.001, 0.03], "model.n_sweeps": [1, 2]}
    held = SearchConfig(base=base, space=space, n_runs=3, seed=1)
    assert len({json.dumps(choice) for choice in combinations(held)}) == 3
    rows = search(held, dataset, tmp_path / "s")
    assert [row["nats"] for row in rows] == sorted((row["nats"] for row in rows), reverse=True)
    told = []
    assert search(held, dataset, tmp_path / "s", lambda fraction, what: told.append(what)) == rows
    assert told == []  # nothing was trained again
    every = held.model_copy(update={"n_runs": 4})
    other = {json.dumps(row["choice"]): row["nats"] for row in search(every, dataset, tmp_path / "s")}
    again = search(every.model_copy(update={"seed": 2}), dataset, tmp_path / "s")
    assert all(row["nats"] != other[json.dumps(row["choice"])] for row in again)  # another seed is another search


def test_a_run_that_diverges_is_last_in_the_search(dataset, tmp_path, monkeypatch):
    from examples.mnist_ebm import search as module

    real = module.train

    def train_or_diverge(model, data, run, *arguments):
        if run.training.learning_rate == 5.0:
            raise FloatingPointError("the gradient is nan at update 3: try a smaller learning_rate")
        return real(model, data, run, *arguments)

    monkeypatch.setattr(module, "train", train_or_diverge)
    base = json.loads(config(MODELS["rbm, cd"], epochs=1).model_dump_json())
    held = module.SearchConfig(base=base, space={"training.learning_rate": [5.0, 0.01]}, n_runs=2)
    rows = search(held, dataset, tmp_path)
    assert [row["choice"]["training.learning_rate"] for row in rows] == [0.01, 5.0]
    assert "nan at update 3" in rows[1]["why"]


def test_a_search_with_an_unknown_name_is_refused(tmp_path):
    path = tmp_path / "search.toml"
    path.write_text(
        'n_runs = 1\n[base]\ntitle = "a"\n[base.model]\nkind = "rbm"\n[space]\n"training.momentum" = [0.9]\n'
    )
    with pytest.raises(ValueError, match=r"training\.momentum"):
        read_search(path)


def test_a_log_for_tensorboard_has_what_the_plan_names(dataset, tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard: pip install -e '.[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = config(MODELS["rbm, pcd"], epochs=4, check_every=20)
    with gl.open_device("sim://ideal", seed=0) as device:
        course = train(make_model(run, dataset, device, 1), dataset, run, 1, tmp_path)
    log = EventAccumulator(str(tmp_path / "tensorboard"))
    log.Reload()
    tags = log.Tags()
    training = {"training/loss", "training/gradient_norm", "training/learning_rate"}
    looks = {"validation/nats", "validation/reconstruction_error", "energy/data", "energy/samples"}
    assert training | looks <= set(tags["scalars"])
    assert {"machine.fields", "machine.couplings"} <= set(tags["histograms"])
    assert tags["images"] == ["samples"]
    assert "configuration/text_summary" in tags["tensors"]
    assert [one.step for one in log.Scalars("validation/nats")] == [look["update"] for look in course.looks]
    assert [one.value for one in log.Scalars("validation/nats")] == pytest.approx(
        [look["nats"] for look in course.looks], rel=1e-6
    )


def test_a_model_is_never_that_of_another_configuration(dataset, tmp_path):
    """What a stage looks at is trained as far as it is not, and anew after a change of its configuration."""
    first, other = (config(MODELS["grid"], learning_rate=rate) for rate in (0.01, 0.05))

    def couplings(run):
        with gl.open_device("sim://ideal", seed=0) as device:
            return trained(run, dataset, device, 1, tmp_path).couplings.detach().clone()

    fresh = couplings(first)
    made = (tmp_path / "checkpoint.pt").stat().st_mtime_ns
    assert torch.equal(couplings(first), fresh)
    assert (tmp_path / "checkpoint.pt").stat().st_mtime_ns == made
    changed = couplings(other)
    assert not torch.equal(changed, fresh)
    assert torch.equal(couplings(first), fresh)
