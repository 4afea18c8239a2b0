"""One loop for every model: minibatches, Adam, clipping, checkpoints, early stop, TensorBoard."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import glauber as gl
import torch
from glauber.catalogue import load_spec
from glauber.torch import Sampler, load_checkpoint, save_checkpoint
from torch import Tensor

from examples.mnist_ebm.chain import ChainModel
from examples.mnist_ebm.config import ChainConfig, DeepConfig, GridConfig, RbmConfig, RunConfig, VaeConfig
from examples.mnist_ebm.data import Dataset, Part
from examples.mnist_ebm.files import write_whole
from examples.mnist_ebm.grid import GridModel
from examples.mnist_ebm.machines import DeepModel, RbmModel
from examples.mnist_ebm.models import ImageModel
from examples.mnist_ebm.vae import Vae, parameters_near

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

Report = Callable[[float, str], None]
N_SHOWN = 64
KEPT_FREE = ("fields",)
"""Ends of the names of parameters that no penalty pulls to zero."""


@dataclass
class Course:
    """How a training went.

    Attributes:
        updates: done.
        seconds: of training, looks at the validation images not counted.
        losses: of each update: no measure of progress for contrastive objectives, but the same for the same seed.
        gradients: norms before clipping.
        looks: one dict for each look: update, nats, standard_error, reconstruction_error.
        best: the update whose parameters are kept.
        stopped_early: whether patience ran out.
    """

    updates: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    gradients: list[float] = field(default_factory=list)
    looks: list[dict[str, Any]] = field(default_factory=list)
    best: int = 0
    stopped_early: bool = False

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse."""
        for name, value in state.items():
            setattr(self, name, value)


def make_model(config: RunConfig, dataset: Dataset, device: gl.Device, seed: int) -> ImageModel:
    """The model of a configuration, untrained; the same for the same seed."""
    torch.manual_seed(seed)
    model, part, sampler = config.model, dataset.train, Sampler(device, seed)
    match model:
        case GridConfig():
            grid = GridModel(sampler, dataset.side, dataset.n_levels, **model.model_dump(exclude={"kind"}))
            grid.start_from(torch.from_numpy(part.images))
            return grid
        case VaeConfig():
            hidden = parameters_near(model.n_parameters, dataset.side, model.n_latent)
            return Vae(dataset.side, dataset.n_levels, hidden, seed, model.n_latent)
        case _:
            pass
    means = 2 * torch.from_numpy(part.images).float().mean(0).reshape(-1) - 1
    how = model.model_dump(exclude={"kind", "chip", "label_copies"})
    match model:
        case RbmConfig():
            return RbmModel(side=dataset.side, means=means, device=sampler, **how)
        case DeepConfig():
            graph = load_spec(model.chip).topology
            return DeepModel(model.label_copies, graph, seed, dataset.side, means, sampler, **how)
        case ChainConfig():
            shares = (torch.bincount(torch.from_numpy(part.labels).long(), minlength=10) + 0.5) / (len(part) + 5)
            return ChainModel(side=dataset.side, means=means, class_shares=shares, device=sampler, **how)


def tensors(part: Part) -> tuple[Tensor, Tensor]:
    """Images and labels for a model."""
    return torch.from_numpy(part.images), torch.from_numpy(part.labels).long()


def train(
    model: ImageModel, dataset: Dataset, config: RunConfig, seed: int, folder: Path, report: Report | None = None
) -> Course:
    """Fit a model, or go on where the last checkpoint in `folder` is; the best parameters are in the model at the end.

    Best by likelihood of validation images. A run that was interrupted and goes on has the same losses and the same
    parameters, bit for bit, as one that was not.

    Args:
        model: untrained, from make_model.
        dataset: its data.
        config: how.
        seed: of the order of the images.
        folder: for `run.txt`, `checkpoint.pt`, `best.pt`, `course.json`, and `tensorboard` where that is installed.
            Checkpoints of another configuration or seed in it are removed.
        report: told the fraction done and what it is at.
    """
    how, course = config.training, Course()
    images, labels = tensors(dataset.train)
    n_updates = max(1, round(how.epochs * len(images) / how.batch))
    adam = torch.optim.Adam(model.parameter_groups(how.learning_rate), betas=(0.9, 0.99), fused=True)
    rate = torch.optim.lr_scheduler.LambdaLR(adam, lambda k: min(1.0, 2 * (1 - k / n_updates)))
    penalised = [value for name, value in model.named_parameters() if not name.endswith(KEPT_FREE)]
    parts: dict[str, Any] = {"model": model, "adam": adam, "rate": rate, "course": course}
    _claim(folder, config, seed)
    last, best = folder / "checkpoint.pt", folder / "best.pt"
    begin = load_checkpoint(last, **parts) if last.exists() else 0
    if course.stopped_early or begin == n_updates:
        return _finished(model, course, folder)
    writer = _writer(folder / "tensorboard", config, begin)
    try:
        for step in range(begin, n_updates):
            if course.stopped_early:
                break
            began = time.perf_counter()
            rows = _rows(len(images), how.batch, seed, step)
            adam.zero_grad()
            loss = model.loss(images[rows], labels[rows])
            torch.autograd.backward(loss)
            for value in penalised:
                if value.grad is not None:
                    value.grad.add_(value.detach(), alpha=2 * how.penalty)
            norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), how.clip))
            if not math.isfinite(norm):
                raise FloatingPointError(f"the gradient is {norm} at update {step}: try a smaller learning_rate")
            adam.step()
            rate.step()
            course.seconds += time.perf_counter() - began
            course.losses.append(loss.item())
            course.gradients.append(norm)
            course.updates = step + 1
            if course.updates % how.check_every == 0 or course.updates == n_updates:
                _look(model, dataset.validation, config, course, best, writer)
            if writer is not None and course.updates % 20 == 0:
                writer.add_scalar("training/loss", course.losses[-1], course.updates)
                writer.add_scalar("training/gradient_norm", norm, course.updates)
                writer.add_scalar("training/learning_rate", rate.get_last_lr()[0], course.updates)
            if course.updates % how.checkpoint_every == 0 or course.updates == n_updates or course.stopped_early:
                save_checkpoint(last, course.updates, **parts)
            if report is not None:
                nats = f", {course.looks[-1]['nats']:.1f} nats" if course.looks else ""
                report(course.updates / n_updates, f"{config.title}, seed {seed}{nats}")
    finally:
        if writer is not None:
            writer.close()
    return _finished(model, course, folder)


def _finished(model: ImageModel, course: Course, folder: Path) -> Course:
    load_checkpoint(folder / "best.pt", model=model)
    write_whole(folder / "course.json", json.dumps(asdict(course), allow_nan=False))
    return course


def _claim(folder: Path, config: RunConfig, seed: int) -> None:
    """Note whose folder it is. A training never goes on from another's checkpoints, which would pass as its own."""
    run = config.model_dump_json(include={"device", "data", "model", "training"}, indent=1) + f"\nseed {seed}\n"
    note = folder / "run.txt"
    held = note.read_text(encoding="utf-8") if note.exists() else None
    if held == run:
        return
    if held is not None:
        for name in ("checkpoint.pt", "best.pt"):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    write_whole(note, run)


def _rows(n: int, batch: int, seed: int, step: int) -> Tensor:
    """The rows of an update: those of an order that is new in each epoch, from seed and number alone."""
    per_epoch = max(1, n // batch)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(hash((seed, step // per_epoch)) % 2**63))
    place = step % per_epoch * batch
    return order[place : place + batch]


def _look(
    model: ImageModel, part: Part, config: RunConfig, course: Course, best: Path, writer: SummaryWriter | None
) -> None:
    """The likelihood of some validation images; the parameters are kept if it is the best so far."""
    n = min(config.training.n_check, len(part))
    images, labels = torch.from_numpy(part.images[:n]), torch.from_numpy(part.labels[:n]).long()
    found = model.log_likelihood(images, labels, quick=True)
    drawn = model.sample(N_SHOWN)  # also without TensorBoard: the draws after it are then the same
    course.looks.append(
        {
            "update": course.updates,
            "nats": found.nats,
            "standard_error": found.standard_error,
            "reconstruction_error": model.reconstruction_error(images),
        }
    )
    top = max(course.looks, key=lambda one: one["nats"])
    if top is course.looks[-1] or not best.exists():
        course.best = course.updates
        save_checkpoint(best, course.updates, model=model)
    recent = [one for one in course.looks if one["update"] > top["update"]]
    course.stopped_early = len(recent) >= config.training.patience and all(
        one["nats"] < top["nats"] - 2 * one["standard_error"] for one in recent
    )
    if writer is not None:
        _write_look(writer, model, course, {"data": images, "samples": drawn})


def _writer(folder: Path, config: RunConfig, begin: int) -> SummaryWriter | None:
    """A TensorBoard log, where TensorBoard is installed."""
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        return None
    writer = SummaryWriter(str(folder), purge_step=begin + 1 if begin else None)
    if not begin:
        writer.add_text("configuration", f"```json\n{config.model_dump_json(indent=2)}\n```")
    return writer


def _write_look(writer: SummaryWriter, model: ImageModel, course: Course, shown: dict[str, Tensor]) -> None:
    look = course.looks[-1]
    writer.add_scalar("validation/nats", look["nats"], course.updates)
    if look["reconstruction_error"] is not None:
        writer.add_scalar("validation/reconstruction_error", look["reconstruction_error"], course.updates)
    for name, value in model.named_parameters():
        if value.numel():
            writer.add_histogram(name, value.detach(), course.updates)
    for name, images in shown.items():
        energies = model.free_energy(images)
        if energies is not None:
            writer.add_scalar(f"energy/{name}", float(energies.mean()), course.updates)
    rows = shown["samples"].float().reshape(-1, 8, model.side, model.side).permute(0, 2, 1, 3)
    writer.add_image("samples", rows.reshape(1, -1, 8 * model.side) / (model.n_levels - 1), course.updates)
