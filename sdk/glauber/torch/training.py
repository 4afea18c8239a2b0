"""Around a training loop: how many p-bits draw, what it costs, and files to go on from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from glauber.checks import whole_number
from glauber.errors import InvalidModelError
from glauber.torch.layers import BinaryLayer
from glauber.torch.sampler import Sampler
from glauber.torch.usage import Usage

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Shape = Literal["linear", "cosine", "exponential", "step", "sigmoid"]
STEEPNESS = 10.0
"""Of the sigmoid: from sigma(-5) to sigma(5) over the course, stretched to reach both ends."""


@dataclass(frozen=True)
class PbitSchedule:
    """The share of units that draw, from `low` to `high` over `n_steps`; the others pass on their expectation.

    Attributes:
        n_steps: steps from low to high, warm-up included.
        low: share at the start.
        high: share at the end.
        shape: of the way between; "step" is a staircase of `n_stairs`.
        n_warmup: steps at `low` before it begins to rise.
        n_stairs: for "step".

    Raises:
        InvalidModelError: shares outside 0 to 1 or falling, or a warm-up longer than the course.
    """

    n_steps: int
    low: float = 0.1
    high: float = 0.9
    shape: Shape = "linear"
    n_warmup: int = 0
    n_stairs: int = 5

    def __post_init__(self) -> None:
        whole_number("n_steps", self.n_steps, 1)
        whole_number("n_stairs", self.n_stairs, 1)
        whole_number("n_warmup", self.n_warmup, 0, self.n_steps - 1)
        if not 0 <= self.low <= self.high <= 1:
            raise InvalidModelError(f"shares must be 0 <= low <= high <= 1, not {self.low!r} and {self.high!r}")
        if self.shape not in ("linear", "cosine", "exponential", "step", "sigmoid"):
            raise InvalidModelError(f"no shape {self.shape!r}; there are linear, cosine, exponential, step, sigmoid")
        if self.shape == "exponential" and self.low == 0:
            raise InvalidModelError("an exponential course cannot start at 0; take a small low, such as 0.01")

    def share(self, step: int) -> float:
        """The share at a step, counted from 0; `high` from step n_steps on."""
        part = min(1.0, max(0.0, (step - self.n_warmup) / (self.n_steps - self.n_warmup)))
        if self.shape == "exponential":
            return self.low * (self.high / self.low) ** part
        if self.shape == "cosine":
            part = (1 - math.cos(math.pi * part)) / 2
        elif self.shape == "step":
            part = math.floor(part * self.n_stairs) / self.n_stairs
        elif self.shape == "sigmoid":
            end = math.tanh(STEEPNESS / 4)
            part = (math.tanh(STEEPNESS / 2 * (part - 0.5)) / end + 1) / 2
        return self.low + (self.high - self.low) * part

    def apply(self, module: nn.Module, step: int) -> float:
        """Set the share of every BinaryLayer within a module; returns it."""
        share = self.share(step)
        for layer in _binary_layers(module):
            layer.share = share
        return share

    def layer_wise(self, module: nn.Module, step: int) -> list[float]:
        """The same course for one layer after the other, first to last, each in its own n-th part of the steps."""
        layers = _binary_layers(module)
        if self.n_steps < len(layers):
            raise InvalidModelError(f"{self.n_steps} steps are too few for {len(layers)} layers one after the other")
        length = self.n_steps / max(1, len(layers))
        own = replace(self, n_steps=max(1, round(length)), n_warmup=min(self.n_warmup, max(0, round(length) - 1)))
        for k, layer in enumerate(layers):
            layer.share = own.share(round(step - k * length))
        return [layer.share for layer in layers]


class AdaptiveShare:
    """The share rises while the measured gradient stands out of its noise, and falls while it does not.

    Signal to noise of the gradient is |mean|^2 / trace of the covariance over the last `window` steps, the mean's own
    noise taken off. Call `update` once a step after `backward()`.

    Args:
        module: whose BinaryLayers are set, and whose parameters' gradients are measured.
        target: signal to noise at which the share stays.
        low: smallest share, and the first.
        high: largest share.
        rate: how much the share moves at a time.
        window: steps from one decision to the next.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        target: float = 0.1,
        low: float = 0.1,
        high: float = 0.9,
        rate: float = 0.05,
        window: int = 20,
    ) -> None:
        if not 0 <= low <= high <= 1 or target <= 0 or not 0 < rate <= 1:
            raise InvalidModelError("needs 0 <= low <= high <= 1, target above 0 and a rate above 0 and at most 1")
        self.module = module
        self.target, self.low, self.high, self.rate = target, low, high, rate
        self.window = whole_number("window", window, 2)
        self.share = low
        self.signal_to_noise: float | None = None
        self._sums: list[Tensor] = []
        self._square = 0.0
        self._seen = 0
        self._set()

    def _set(self) -> None:
        for layer in _binary_layers(self.module):
            layer.share = self.share

    def update(self) -> float:
        """Take this step's gradients into account; returns the share for the next step."""
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        if all(p.grad is None for p in parameters):
            raise InvalidModelError("no parameter has a gradient; call update() after loss.backward()")
        # single precision at least: squares of half-precision gradients leave its range
        gradients = [
            (torch.zeros_like(p) if p.grad is None else p.grad.detach()).to(torch.promote_types(p.dtype, torch.float32))
            for p in parameters
        ]
        square = sum(float((gradient**2).sum()) for gradient in gradients)
        if not math.isfinite(square):
            raise InvalidModelError(
                "a gradient is NaN or infinite; look for a diverging loss, or leave such a step out"
            )
        if self._seen == 0:
            self._sums, self._square = [torch.zeros_like(gradient) for gradient in gradients], 0.0
        self._sums = [total.to(gradient) + gradient for total, gradient in zip(self._sums, gradients, strict=True)]
        self._square += square
        self._seen += 1
        if self._seen == self.window:
            n = self.window
            mean_square = sum(float((total / n).square().sum()) for total in self._sums)
            noise = (self._square / n - mean_square) * n / (n - 1)
            self.signal_to_noise = max(0.0, mean_square - noise / n) / noise if noise > 0 else math.inf
            move = self.rate if self.signal_to_noise >= self.target else -self.rate
            self.share = min(self.high, max(self.low, self.share + move))
            self._seen = 0
            self._set()
        return self.share

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints; the window that is half full goes along."""
        sums = list(self._sums) if self._seen else []
        return {
            "share": self.share,
            "signal_to_noise": self.signal_to_noise,
            "sums": sums,
            "square": self._square,
            "seen": self._seen,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of state_dict."""
        self.share, self._square = float(state["share"]), float(state["square"])
        self.signal_to_noise = state["signal_to_noise"]
        self._sums, self._seen = list(state["sums"]), int(state["seen"])
        self._set()


def _binary_layers(module: nn.Module) -> list[BinaryLayer]:
    """In the order in which the module holds them."""
    layers = [layer for layer in module.modules() if isinstance(layer, BinaryLayer)]
    if not layers:
        raise InvalidModelError("the module has no BinaryLayer or PbitLinear whose share could be set")
    return layers


class EnergyTracker:
    """Joules, jobs and effective samples of a training loop, step by step.

    Args:
        samplers: whose use is counted; layers that share one count once.

    Attributes:
        steps: one Usage for each call of `step` by this tracker, what was used since the one before.
        n_steps: calls of `step`, those before the checkpoint that it goes on from included.
    """

    def __init__(self, *samplers: Sampler) -> None:
        if not samplers:
            raise InvalidModelError("there is nothing to track; give the samplers of the modules")
        self.samplers = list({id(sampler): sampler for sampler in samplers}.values())
        self.steps: list[Usage] = []
        self.n_steps = 0
        self._earlier, self._not_counted = Usage(), Usage()
        self._before = self.total()

    def total(self) -> Usage:
        """Everything that the samplers have used so far; of a run that goes on, also what it had used before."""
        total = self._used().since(self._not_counted)
        total.include(self._earlier)
        return total

    def _used(self) -> Usage:
        used = Usage()
        for sampler in self.samplers:
            used.include(sampler.usage)
        return used

    def step(self, writer: SummaryWriter | None = None) -> Usage:
        """Close a training step; with a TensorBoard writer, log its joules, jobs, and the last job's ESS.

        Scalars: device/joules, device/joules_uncertainty, device/joules_total, device/jobs, device/seconds, device/ess
        (of the last job, where it kept four samples or more at one temperature). A step whose joules are unknown logs
        none.
        """
        total = self.total()
        used = total.since(self._before)
        self._before = total
        self.steps.append(used)
        self.n_steps += 1
        if writer is not None:
            number = self.n_steps
            if used.joules is not None:
                writer.add_scalar("device/joules", used.joules, number)
                writer.add_scalar("device/joules_uncertainty", used.standard_uncertainty, number)
            if total.joules is not None:
                writer.add_scalar("device/joules_total", total.joules, number)
            writer.add_scalar("device/jobs", used.jobs, number)
            writer.add_scalar("device/seconds", used.seconds, number)
            ess = self._ess()
            if ess is not None:
                writer.add_scalar("device/ess", ess, number)
        return used

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints: the number of steps and the total up to the last one, not the list of the steps."""
        total = {name: sorted(value) if isinstance(value, set) else value for name, value in vars(self._before).items()}
        return {"n_steps": self.n_steps, "total": total}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from there: the total is that of the checkpoint and what the samplers use from now on."""
        total: dict[str, Any] = {
            name: set(value) if isinstance(value, list) else value for name, value in state["total"].items()
        }
        self.n_steps = whole_number("n_steps", state["n_steps"], 0)
        self._earlier, self._not_counted = Usage(**total), self._used()
        self._before = self.total()

    def _ess(self) -> float | None:
        """Of the last job with couplings; independent draws need no such figure."""
        for sampler in self.samplers:
            last = sampler.last
            if last is not None and last.packed is not None and last.n_samples >= 4 and last.model.edges.size:
                one_law = all(rows is None or len(rows) == 1 for rows in (last.fields, last.clamped))
                if one_law and last.provenance.beta is not None:
                    return last.diagnostics().ess
        return None
