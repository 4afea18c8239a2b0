"""What the study looks at beside trainings: one function a stage, from trained models to figures and pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import glauber as gl
import numpy as np
import torch
from glauber.torch import Sampler
from numpy.typing import NDArray

from examples.intervals import Proportion, proportion
from examples.mnist_ebm import blocks, convergence, explore, joules, laws, pictures, speed, substrates
from examples.mnist_ebm.chain import ChainModel
from examples.mnist_ebm.config import DataConfig, GridConfig, RbmConfig, RunConfig, TrainingConfig
from examples.mnist_ebm.data import black_and_white, some
from examples.mnist_ebm.distances import nearest
from examples.mnist_ebm.evaluate import drawn, kept_samples
from examples.mnist_ebm.grid import GridModel
from examples.mnist_ebm.lattice import exact_log_partition
from examples.mnist_ebm.machines import RbmModel
from examples.mnist_ebm.quality import draw_confusion, draw_coverage, draw_neighbours, energy_histogram
from examples.mnist_ebm.train import make_model, tensors, train
from examples.mnist_ebm.vae import parameters_near

if TYPE_CHECKING:
    from examples.mnist_ebm.pipeline import Study

N_CLASSES = 10
LOOKED_AT = {"grid4-tied": "grid", "grid8-edges": "grid", "rbm-pcd": "rbm", "chain": "chain"}
"""Runs that stages take models from, and their kinds."""


@dataclass(frozen=True)
class Sizes:
    """How large the stages are.

    Attributes:
        n_classifier: images that the judge learns from; None for all.
        n_test: images that stages report on; None for all.
        n_small: images that the small models learn from, which are compared with exact sums.
        small_epochs: over them.
        n_digit: images of each digit that its grid learns from.
        digit_epochs: over them.
        n_chains: chains of the stages on mixing.
        n_sweeps: from noise, and samples of each chain in equilibrium.
        rounds: of the comparison of speed.
        seconds: of each run in it.
        n_epoch: images of the epoch that is timed.
    """

    n_classifier: int | None = None
    n_test: int | None = None
    n_small: int = 10_000
    small_epochs: float = 10
    n_digit: int = 4000
    digit_epochs: float = 10
    n_chains: int = 64
    n_sweeps: int = 2000
    rounds: int = 5
    seconds: float = 0.3
    n_epoch: int = 10_000


SMOKE = Sizes(1500, 300, 300, 1, 100, 1, 16, 60, 2, 0.005, 500)


def explored(study: Study) -> Any:
    """The data at 2, 4 and 16 levels."""
    datasets = [study.dataset(DataConfig(n_levels=levels, n_test=study.sizes.n_test)) for levels in (2, 4, 16)]
    found = explore.explore(datasets)
    explore.draw(study.pictures / "explore.png", datasets, found)
    return found


def exact(study: Study) -> Any:
    """Small models whose likelihood is known exactly, beside what annealed importance sampling says of them."""
    rows, sizes = [], study.sizes
    for side in (4, 5):
        models: dict[str, GridConfig | RbmConfig] = {
            "grid, 4 neighbours, tied": GridConfig(kind="grid", neighbours=4, tied=True),
            "grid, 8 neighbours": GridConfig(kind="grid", neighbours=8, tied=False),
            "RBM, 8 hidden": RbmConfig(kind="rbm", n_hidden=8),
        }
        for name, model in models.items():
            levels: Literal[2, 4] = 2 if model.kind == "rbm" else 4
            data = DataConfig(n_levels=levels, side=side, n_train=sizes.n_small, n_test=sizes.n_test)
            how = TrainingConfig(epochs=sizes.small_epochs, learning_rate=0.01, penalty=0.0, check_every=10**6)
            config = RunConfig(title=f"{name}, {side} x {side}", data=data, model=model, training=how)
            dataset, folder = study.dataset(data), study.out / "exact" / f"{name}-{side}".replace(" ", "-")
            with gl.open_device(config.device, seed=0) as device:
                made = make_model(config, dataset, device, 0)
                train(made, dataset, config, 0, folder, study.report)
                images, labels = tensors(dataset.test)
                assert isinstance(made, GridModel | RbmModel)
                annealed = laws.log_partition_of(made, images, 256, sizes.n_sweeps)
                if isinstance(made, GridModel):
                    truth, found = exact_log_partition(made.potts_model(), side), made.log_likelihood(images, labels)
                    nats, spread = found.nats, found.standard_error
                else:
                    with torch.no_grad():
                        truth = float(made.machine.log_partition())
                    each = -made.free_energy(images) - truth
                    nats, spread = float(each.mean()), float(each.std()) / len(each) ** 0.5
            rows.append(
                {
                    "model": name,
                    "side": side,
                    "n_levels": dataset.n_levels,
                    "nats": nats,
                    "standard_error": spread,
                    "log_z_exact": truth,
                    "log_z_annealed": annealed.value,
                    "log_z_error": annealed.standard_error,
                }
            )
    return rows


def digits(study: Study) -> Any:
    """A grid for each digit: the only way in which a model without labels makes the digit that is asked for."""
    rows = []
    for digit in range(N_CLASSES):
        available = int((study.dataset(DataConfig(n_levels=4)).train.labels == digit).sum())
        n_train, sweeps = min(study.sizes.n_digit, available), study.sizes.n_sweeps
        data = DataConfig(n_levels=4, digits=(digit,), n_train=n_train)
        model = GridConfig(
            kind="grid", neighbours=8, n_sweeps=5, sample_sweeps=sweeps // 2, n_temperatures=max(20, sweeps // 8)
        )
        how = TrainingConfig(epochs=study.sizes.digit_epochs, learning_rate=0.01, check_every=10**6)
        config = RunConfig(title=f"grid of digit {digit}", data=data, model=model, training=how)
        dataset, folder = study.dataset(data), study.out / "digits" / str(digit)
        with gl.open_device(config.device, seed=digit) as device:
            made = make_model(config, dataset, device, digit)
            train(made, dataset, config, digit, folder, study.report)
            likelihood = made.log_likelihood(*tensors(dataset.test))
            samples = drawn(made, 4 * study.sizes.n_chains)
        right = proportion(int((study.classifier.probabilities(samples).argmax(1) == digit).sum()), len(samples))
        rows.append({"digit": digit, "right": right, "likelihood": likelihood})
    return rows


def epoch(study: Study) -> Any:
    """Seconds that an epoch of CD-1 takes on the 4-level grid, all of it: data, sampling, gradient, Adam."""
    rows = []
    kinds: tuple[tuple[Literal[4, 8], bool], ...] = ((4, True), (8, False))
    for neighbours, tied in kinds:
        data = DataConfig(n_levels=4, n_train=study.sizes.n_epoch)
        model = GridConfig(kind="grid", neighbours=neighbours, tied=tied, objective="cd", n_sweeps=1)
        dataset = study.dataset(data)
        config = RunConfig(title="epoch", data=data, model=model)
        with gl.open_device(config.device, seed=0) as device:
            made = make_model(config, dataset, device, 0)
            images, labels = tensors(dataset.train)
            adam = torch.optim.Adam(made.parameter_groups(0.01), fused=True)
            times = []
            for _ in range(3):
                began = time.perf_counter()
                for rows_of in torch.split(torch.randperm(len(images)), 100):
                    adam.zero_grad()
                    torch.autograd.backward(made.loss(images[rows_of], labels[rows_of]))
                    adam.step()
                times.append(time.perf_counter() - began)
        rows.append({"neighbours": neighbours, "tied": tied, "images": len(images), "seconds": times})
    return rows


def colourings(study: Study) -> Any:
    """Two against four blocks on the trained grid of four neighbours."""
    name = "grid4-tied"
    with gl.open_device(study.runs[name].device, seed=0) as device:
        model = study.model(name, device)
        assert isinstance(model, GridModel)
        effect = blocks.colouring_effect(
            model.potts_model(),
            model.lattice,
            Sampler(device, 1),
            n_chains=study.sizes.n_chains,
            n_samples=study.sizes.n_sweeps,
            n_warmup=study.sizes.n_sweeps,
            report=study.report,
        )
        chain = blocks.block_updates(model.potts_model(), blocks.colouring(model.side, 2), Sampler(device, 2), 3)
    blocks.draw_updates(study.pictures / "block_updates.png", chain, 2, model.n_levels)
    two, four = (blocks.colouring(model.side, k) for k in (2, 4))
    blocks.check_colouring(model.lattice, two)
    blocks.check_colouring(model.lattice, four)
    blocks.draw_colourings(study.pictures / "blocks.png", {"2 colours": two, "4 colours": four})
    blocks.draw_effect(study.pictures / "blocks_effect.png", effect)
    return {"effect": effect, "z": {name: effect.z(name) for name in effect.times["2"]}}


def mixing(study: Study) -> Any:
    """Energies from noise, how long states are remembered, and sweeps until the judge recognises a digit."""
    found: dict[str, Any] = {}
    trajectories, memories, targets, histograms = {}, {}, {}, {}
    sweeps = convergence.checkpoints(study.sizes.n_sweeps)
    for name in ("grid4-tied", "grid8-edges", "rbm-pcd"):
        config = study.runs[name]
        dataset = study.dataset(config.data)
        with gl.open_device(config.device, seed=1) as device:
            model = study.model(name, device)
            assert isinstance(model, GridModel | RbmModel)
            advance = partial(model.advance, n_chains=study.sizes.n_chains)
            states, energies = convergence.states_from_noise(advance, sweeps, study.report)
            recognised = convergence.recognition(sweeps, states, partial(_confidence, study, model))
            last, series = states[-1], []
            every = 1 if isinstance(model, GridModel) else 10  # its memory is longer; times below are not seen
            for _ in range(study.sizes.n_sweeps):
                last, energy = advance(last, every)
                series.append(energy)
            of_data = data_energies(model, *tensors(some(dataset.test, 1000)))
        trajectories[name] = convergence.trajectory(sweeps, energies)
        memories[name] = convergence.memory(np.stack(series, 1), every)
        targets[name] = float(of_data.mean())
        histograms[name] = {"data": of_data, "samples": series[-1], "a sweep from noise": energies[0]}
        found[name] = {
            "trajectory": trajectories[name],
            "memory": memories[name],
            "data": targets[name],
            "recognition": recognised,
        }
    convergence.draw_convergence(study.pictures / "mixing.png", trajectories, memories, targets)
    for name, held in histograms.items():
        energy_histogram(study.pictures / f"energies-{name}.png", held)
    name = "chain"
    with gl.open_device(study.runs[name].device, seed=2) as device:
        chain = study.model(name, device)
        assert isinstance(chain, ChainModel)
        labels = torch.arange(10 * study.sizes.n_chains) % N_CLASSES
        path = chain.path(labels).numpy()
    found[name] = convergence.recognition(
        [step * chain.sample_sweeps for step in range(len(path))], path, study.classifier.confidence
    )
    return found


def _confidence(study: Study, model: GridModel | RbmModel, states: NDArray[Any]) -> NDArray[np.floating[Any]]:
    return study.classifier.confidence(black_and_white(model.images(states).numpy(), model.n_levels))


def data_energies(model: GridModel | RbmModel, images: torch.Tensor, labels: torch.Tensor) -> NDArray[np.float64]:
    """Of images; an RBM's hidden units are drawn given them."""
    with torch.no_grad():
        if isinstance(model, GridModel):
            return model.energy(images).double().numpy()
        states = torch.from_numpy(model.states_of(images, labels)).float()
        return model.machine.energy(states).double().numpy()


def speeds(study: Study) -> Any:
    """Sweeps of the device beside THRML and a plain loop."""
    how: dict[str, Any] = {"rounds": study.sizes.rounds, "seconds": study.sizes.seconds}
    if study.sizes == SMOKE:
        how |= {"others": (), "cases": [("tied", 14, 1), ("per edge", 14, 4), ("tables", 14, 4)]}
    with gl.open_device("sim://ideal", seed=0) as device:
        found = speed.measure_speed(device, report=study.report, **how)
    speed.draw_speed(study.pictures / "speed.png", found)
    return {**vars(found), "table": speed.table(found), "thrml_faster": found.overtakes("THRML")}


def energy(study: Study) -> Any:
    """Work and modelled joules of a sample, and joules by a meter where this computer has one."""
    grid, rbm, chain = (study.runs[name].model for name in ("grid4-tied", "rbm-pcd", "chain"))
    assert grid.kind == "grid"
    assert rbm.kind == "rbm"
    assert chain.kind == "chain"
    data = study.runs["grid4-tied"].data
    side, levels, batch = data.side, data.n_levels, 1000
    pixels, bits = side * side, (levels - 1).bit_length()
    n_grid = joules.grid_edges(side, 4) + levels * pixels
    visible = pixels + N_CLASSES  # the RBM's label has p-bits of its own; the chain is told it through fields
    n_rbm = visible * rbm.n_hidden + visible + rbm.n_hidden
    n_chain = pixels * chain.n_hidden + pixels + chain.n_hidden
    jobs = [
        joules.ChipJob(
            f"grid, {levels} levels",
            bits * pixels,
            bits * pixels,
            n_grid,
            bits - 1 + 4 * bits,
            grid.sample_sweeps,
            together=2 * bits,
        ),
        joules.ChipJob("RBM", visible + rbm.n_hidden, pixels, n_rbm, max(visible, rbm.n_hidden), rbm.sample_sweeps),
        joules.ChipJob(
            "chain",
            pixels + chain.n_hidden,
            pixels,
            n_chain,
            max(pixels, chain.n_hidden),
            chain.sample_sweeps,
            chain.n_steps,
        ),
    ]
    rbm_sweep = joules.rbm_sweep(visible, rbm.n_hidden, batch)
    fields = joules.chain_fields(pixels, chain.n_hidden, batch)
    one_step = fields + joules.rbm_sweep(pixels, chain.n_hidden, batch).times(chain.sample_sweeps)
    grid_sweep = joules.grid_sweep(side, levels, 4, tied=True, chains=batch)
    work = {
        f"grid, {levels} levels, 4 neighbours: a sweep": grid_sweep,
        f"grid, {levels} levels, 8 neighbours: a sweep": joules.grid_sweep(side, levels, 8, tied=False, chains=batch),
        "RBM: a sweep": rbm_sweep,
        "chain: one machine's fields": fields,
        f"chain: one machine's fields and its {chain.sample_sweeps} sweeps": one_step,
    }
    found = [joules.on_chip(job, chip) for job in jobs for chip in joules.CHIPS]
    found.append(joules.on_gpu(f"grid, {levels} levels", grid_sweep.times(grid.sample_sweeps), grid.sample_sweeps))
    found.append(joules.on_gpu("RBM", rbm_sweep.times(rbm.sample_sweeps), rbm.sample_sweeps))
    found.append(joules.on_gpu("chain", one_step.times(chain.n_steps), chain.n_steps * chain.sample_sweeps))
    found.append(joules.on_gpu("chain, its fields alone", fields.times(chain.n_steps), 1))
    for name, held in ((name, one.model) for name, one in study.runs.items()):
        if held.kind == "vae":
            hidden = parameters_near(held.n_parameters, side, held.n_latent)
            image = work[f"{name}: an image"] = joules.vae_sample(side, hidden, held.n_latent, batch)
            found.append(joules.on_gpu(name, image, 1))
    joules.draw(study.pictures / "joules.png", found)
    n = 20 * study.sizes.n_chains
    with gl.open_device(study.runs["chain"].device, seed=3) as device:
        model = study.model("chain", device)
        metered = joules.metered(lambda: model.sample(n), n)
    return {"work": work, "devices": found, "metered": metered}


def drawings(study: Study) -> Any:
    """Sample grids, what the judge made of them, nearest training images, the landscape, and the animation."""
    coverage: dict[str, list[Proportion]] = {}
    real_shares: list[float] = []
    for name, config in study.runs.items():
        if config.data.side != 28:
            continue
        figures = study.trained(name, config.seeds[0]).figures
        real_shares = figures["unconditional"]["coverage_real"]
        if name in LOOKED_AT or config.model.kind == "vae":
            coverage[name] = [Proportion(**one) for one in figures["unconditional"]["coverage"]]
        shown, labels = kept_samples(study.folder(name, config.seeds[0]))
        columns = len(shown) // N_CLASSES
        if labels.max() == 255:  # none was asked for; rows without names
            rows = {" " * k: shown[k * columns : (k + 1) * columns] for k in range(N_CLASSES)}
        else:
            rows = pictures.by_digit(shown, labels, columns)
        pictures.draw_samples(study.pictures / f"samples-{name}.png", rows, 2, config.title)
    draw_coverage(study.pictures / "coverage.png", coverage, real_shares)
    _draw_chain(study)
    dataset = study.dataset(study.runs["rbm-pcd"].data)
    with gl.open_device(study.runs["rbm-pcd"].device, seed=4) as device:
        model = study.model("rbm-pcd", device)
        assert isinstance(model, RbmModel)
        sweeps = convergence.checkpoints(study.sizes.n_sweeps, 60)
        asked = torch.arange(N_CLASSES)
        advance = partial(model.advance, n_chains=N_CLASSES, labels=asked)
        states, energies = convergence.states_from_noise(advance, sweeps)
        frames = model.images(states).numpy()
        shown_test = some(dataset.test, 2000)
        real = data_energies(model, *tensors(shown_test))
    pictures.draw_landscape(study.pictures / "landscape.png", shown_test.images, real, frames, energies)
    pictures.animate(study.pictures / "animation.gif", frames, energies, sweeps, 2)
    return {"frames": len(frames), "sweeps": sweeps}


def _draw_chain(study: Study) -> None:
    """What the judge recognised in the chain's images of each digit, and the training images nearest to them."""
    config, seed = study.runs["chain"], study.runs["chain"].seeds[0]
    asked = study.trained("chain", seed).figures["conditional"]["conditional"]
    right = f"{config.title}:\n{Proportion(**asked['right'])} as asked"
    draw_confusion(study.pictures / "confusion.png", asked["confusion"], right)
    dataset = study.dataset(config.data)
    samples, labels = kept_samples(study.folder("chain", seed))
    every = [np.flatnonzero(labels == digit)[:2] for digit in range(N_CLASSES)]
    few = samples[np.concatenate(every)]
    train_images = black_and_white(dataset.train.images, dataset.n_levels)
    distances, which = nearest(few, train_images)
    draw_neighbours(study.pictures / "neighbours.png", few, train_images[which], distances)


STAGES: dict[str, tuple[Callable[[Study], Any], tuple[str, ...] | None]] = {
    "exact": (exact, ()),
    "digits": (digits, ()),
    "epoch": (epoch, ()),
    "blocks": (colourings, ("grid4-tied",)),
    "mixing": (mixing, tuple(LOOKED_AT)),
    "learned": (laws.learned, None),
    "warmup": (laws.warmup, None),
    "substrates": (substrates.substrates, None),
    "speed": (speeds, ()),
    "joules": (energy, None),
    "pictures": (drawings, None),
}
"""The stage, and the runs that it looks at, after a change of which it is made again; None for all."""
