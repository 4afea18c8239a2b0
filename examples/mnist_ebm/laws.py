"""What trained models have learned, apart from what a sampler reaches from noise in a given time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import glauber as gl
import matplotlib
import numpy as np
import torch
from glauber.diagnostics import mixing_of
from glauber.torch import annealed_importance
from glauber.torch.likelihood import LogPartition as MachineLogPartition
from numpy.typing import NDArray

from examples.mnist_ebm.annealing import LogPartition, log_partition
from examples.mnist_ebm.chain import ChainModel
from examples.mnist_ebm.data import Dataset, black_and_white, some
from examples.mnist_ebm.distances import frechet
from examples.mnist_ebm.evaluate import drawn
from examples.mnist_ebm.grid import GridModel
from examples.mnist_ebm.machines import MachineModel, RbmModel
from examples.mnist_ebm.quality import SURE
from examples.mnist_ebm.train import tensors

matplotlib.use("Agg")
import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from examples.mnist_ebm.pipeline import Study

N_CHAINS = 128
"""From each start."""
POINTS = 50
"""States of each chain that are looked at."""
N_IMAGES = 1000
"""Test images that they are compared with."""


def log_partition_of(
    model: GridModel | RbmModel,
    images: torch.Tensor,
    n_chains: int,
    n_temperatures: int,
    start: NDArray[Any] | None = None,
) -> LogPartition | MachineLogPartition:
    """Log Z by annealed importance sampling; backwards from states of the model's law, where `start` is given.

    Forwards it is too low on average, backwards too high, if the states are of that law: the truth lies between. An
    RBM's base has the means of the images.
    """
    if isinstance(model, GridModel):
        base = model.base.double().numpy()
        how: dict[str, Any] = {"n_chains": n_chains, "n_temperatures": n_temperatures, "start": start}
        return log_partition(model.potts_model(), base, model.sampler, **how)
    states = None if start is None else torch.from_numpy(start).float()
    return annealed_importance(
        model.machine, n_chains=n_chains, n_temperatures=n_temperatures, base=model.base_of(images), start=states
    )


def learned(study: Study) -> Any:
    """Of each grid and each RBM: chains from noise beside chains from test images, and log Z from both sides.

    Where the two kinds of chains agree, with R-hat near 1, what they draw is the model's own law, and where they differ
    from data it is the model that is wrong and not the sampler.
    """
    found = {}
    for name, config in study.runs.items():
        if config.model.kind in ("grid", "rbm") and config.data.side == 28:
            with gl.open_device(config.device, seed=5) as device:
                model = study.model(name, device)
                assert isinstance(model, GridModel | RbmModel)
                found[name] = _law(study, model, study.dataset(config.data))
    return found


def _law(study: Study, model: GridModel | RbmModel, dataset: Dataset) -> dict[str, Any]:
    n_chains = min(N_CHAINS, 2 * study.sizes.n_chains)
    every = max(1, study.sizes.n_sweeps // POINTS)
    images, labels = tensors(some(dataset.test, N_IMAGES))
    real = _free(model, images)
    found: dict[str, Any] = {"of_data": {"free_energy": float(real.mean()), "sure": _sure(study, model, images)}}
    series, pixels = {}, []
    last: NDArray[Any] | None = None
    for start in ("noise", "images"):
        first = None if start == "noise" else model.states_of(images[:n_chains], labels[:n_chains])
        n_here = n_chains if first is None else len(first)
        last, _ = model.advance(first, study.sizes.n_sweeps, n_here)
        energies = []
        for point in range(POINTS):
            last, _ = model.advance(last, every)
            shown = model.images(last)
            energies.append(_free(model, shown))
            pixels.append(shown.double().mean(0).numpy() / (model.n_levels - 1))
            if study.report is not None:
                study.report((point + 1) / POINTS, f"chains from {start}")
        series[start] = np.stack(energies, 1)
        mixing = mixing_of(series[start], every)
        found[start] = {
            "free_energy": mixing.mean,
            "standard_error": mixing.mcse,
            "sure": _sure(study, model, model.images(last)),
        }
    found["rhat"] = mixing_of(np.concatenate(list(series.values())), every).rhat
    means = {part: _means(getattr(dataset, part).images, model.n_levels) for part in ("train", "test")}
    found["pixels"] = _rms(np.mean(pixels, axis=0) - means["test"])
    found["pixels_floor"] = _rms(means["train"] - means["test"])
    for way, begin in (("forwards", None), ("backwards", last)):  # from the chains that began at images
        one = log_partition_of(model, images, n_chains, model.n_temperatures, begin)
        if study.report is not None:
            study.report(1.0, f"log Z {way}")
        found[way] = {
            "log_z": one.value,
            "standard_error": one.standard_error,
            "effective_chains": one.effective_chains,
        }
    return found


def _free(model: GridModel | RbmModel, images: torch.Tensor) -> NDArray[np.float64]:
    return np.asarray(model.free_energy(images).numpy())


def _sure(study: Study, model: GridModel | RbmModel, images: torch.Tensor) -> float:
    confidence = study.classifier.confidence(black_and_white(images.numpy(), model.n_levels))
    return float((confidence >= SURE).mean())


def _means(images: NDArray[np.uint8], n_levels: int) -> NDArray[np.float64]:
    return np.asarray(images.mean(0) / (n_levels - 1))


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt((values**2).mean()))


def warmup(study: Study) -> Any:
    """What longer sampling from noise brings, for each model that can be asked for a digit and has sweeps to spend."""
    found = {}
    n = 20 * study.sizes.n_chains
    lengths = sorted({round(k) for k in np.geomspace(3, study.sizes.n_sweeps / 2, 6)})
    for name, config in study.runs.items():
        if config.model.kind not in ("rbm", "deep", "chain") or config.data.side != 28:
            continue
        dataset = study.dataset(config.data)
        test = some(dataset.test, n)
        real = study.classifier.features(black_and_white(test.images, dataset.n_levels))
        asked = torch.from_numpy(test.labels).long()
        with gl.open_device(config.device, seed=6) as device:
            model = study.model(name, device)
            assert isinstance(model, MachineModel | ChainModel)
            rows = []
            for k, sweeps in enumerate(lengths):
                model.sample_sweeps = sweeps
                began = time.perf_counter()
                images, seconds = drawn(model, len(asked), asked), time.perf_counter() - began
                recognised = study.classifier.probabilities(images).argmax(1)
                rows.append(
                    {
                        "sweeps": sweeps * (len(model.chain.machines) if isinstance(model, ChainModel) else 1),
                        "right": float((recognised == test.labels).mean()),
                        "fid": frechet(study.classifier.features(images), real),
                        "seconds": seconds / len(images),
                    }
                )
                if study.report is not None:
                    study.report((k + 1) / len(lengths), f"warm-up of {name}")
        found[name] = {"n": len(test), "rows": rows}
    draw_warmup(study.pictures / "warmup.png", found)
    return found


def draw_warmup(path: Any, found: dict[str, Any]) -> None:
    """Share recognised as asked and FID against sweeps from noise."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for name, one in found.items():
        sweeps = [row["sweeps"] for row in one["rows"]]
        left.plot(sweeps, [row["right"] for row in one["rows"]], "o-", label=name)
        right.plot(sweeps, [row["fid"] for row in one["rows"]], "o-", label=name)
    left.set_ylabel("recognised as asked")
    left.set_ylim(0, 1)
    right.set_ylabel("FID")
    right.set_yscale("log")
    for ax in (left, right):
        ax.set_xscale("log")
        ax.set_xlabel("sweeps from noise, of all machines together")
    right.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
