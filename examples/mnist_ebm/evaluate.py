"""What a trained model is worth: samples judged by the classifier, likelihood, time and joules."""

from __future__ import annotations

import io
import time
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import glauber as gl
import numpy as np
import torch
from glauber.errors import FileFormatError
from numpy.typing import NDArray
from torch import Tensor

from examples.mnist_ebm.classifier import Classifier
from examples.mnist_ebm.config import RunConfig
from examples.mnist_ebm.data import Dataset, Images, black_and_white
from examples.mnist_ebm.files import write_whole
from examples.mnist_ebm.models import ImageModel
from examples.mnist_ebm.quality import judge
from examples.mnist_ebm.train import Report, make_model, tensors, train
from examples.mnist_ebm.vae import Vae

N_CLASSES = 10
EXAMPLES = 100
"""Images of a run that are kept for pictures: ten of each class where it can be asked for them."""


def train_and_judge(
    config: RunConfig,
    dataset: Dataset,
    classifier: Classifier | None,
    seed: int,
    folder: Path,
    report: Report | None = None,
) -> dict[str, Any]:
    """Train (or go on), sample, judge; figures as plain numbers, images in `folder`/samples.npz.

    Without a classifier, for images that are too small for one, only likelihoods.
    """
    with gl.open_device(config.device, seed=seed) as device:
        model = make_model(config, dataset, device, seed)
        course = train(model, dataset, config, seed, folder, report)
        rows = np.random.default_rng(seed).permutation(len(dataset.test))[: config.n_likelihood]
        images, labels = tensors(dataset.test.take(rows))
        began = time.perf_counter()
        likelihood = model.log_likelihood(images, labels)
        figures: dict[str, Any] = {
            "title": config.title,
            "kind": model.kind,
            "seed": seed,
            "digest": config.digest,
            "n_levels": model.n_levels,
            "side": model.side,
            "parameters": model.n_parameters,
            "updates": course.updates,
            "best_update": course.best,
            "stopped_early": course.stopped_early,
            "training_seconds": course.seconds,
            "looks": course.looks,
            "likelihood": asdict(likelihood),
            "likelihood_seconds": time.perf_counter() - began,
        }
        if classifier is not None:
            figures |= _judged(model, config, dataset, classifier, seed, folder, report)
    return figures


def _judged(
    model: ImageModel,
    config: RunConfig,
    dataset: Dataset,
    classifier: Classifier,
    seed: int,
    folder: Path,
    report: Report | None,
) -> dict[str, Any]:
    began = time.perf_counter()
    free, seconds = drawn(model, config.n_samples), time.perf_counter() - began
    figures: dict[str, Any] = {
        "n_samples": len(free),
        "sampling_seconds": seconds,
        "unconditional": asdict(judge(free, None, dataset, classifier, seed, report)),
    }
    if isinstance(model, Vae):  # as autoencoders are mostly shown, though these are no samples of the model
        modes: Images = model.sample_modes(config.n_samples).numpy()
        figures["modes"] = asdict(judge(modes, None, dataset, classifier, seed, report))
    shown, asked = free[:EXAMPLES], None
    if model.conditional:
        digits = torch.tensor(config.data.digits or range(N_CLASSES))  # those that it has seen
        asked = digits[torch.arange(len(free)) % len(digits)]
        of_class = drawn(model, len(asked), asked)
        figures["conditional"] = asdict(
            judge(of_class, asked.numpy().astype(np.uint8), dataset, classifier, seed, report)
        )
        first = np.argsort(asked.numpy()[:EXAMPLES], kind="stable")
        shown, asked = of_class[:EXAMPLES][first], asked[:EXAMPLES][torch.from_numpy(first)]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, shown=shown, labels=np.full(len(shown), 255) if asked is None else asked.numpy())
    write_whole(folder / "samples.npz", buffer.getvalue())
    return figures


def kept_samples(folder: Path) -> tuple[Images, NDArray[np.int64]]:
    """The images of a run that were kept, and the digits asked for, 255 where none was.

    Raises:
        FileFormatError: the file is damaged.
        OSError: it cannot be read.
    """
    path = folder / "samples.npz"
    content = path.read_bytes()
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as held:
            return held["shown"], held["labels"]
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        advice = f"remove {folder / 'figures.json'}, and it is made again"
        raise FileFormatError(f"{path} is damaged ({error}): {advice}") from error


def drawn(model: ImageModel, n: int, labels: Tensor | None = None) -> Images:
    """Black-and-white samples."""
    levels: Images = model.sample(n, labels).cpu().numpy()
    return black_and_white(levels, model.n_levels)


def trained(
    config: RunConfig, dataset: Dataset, device: gl.Device, seed: int, folder: Path, report: Report | None = None
) -> ImageModel:
    """The model of a run, trained now as far as it was not; never one of another configuration."""
    model = make_model(config, dataset, device, seed)
    train(model, dataset, config, seed, folder, report)
    return model
