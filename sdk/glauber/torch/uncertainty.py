"""How sure a classifier is: what its draws add to its uncertainty, and whether its confidence is calibrated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from glauber.checks import whole_number
from glauber.errors import InvalidModelError

Output = Literal["logits", "probabilities"]
SUM_TOLERANCE = 1e-4
"""How far from 1 probabilities may add up. A softmax in float32 is off by less than 1e-5 for a thousand classes, one in
half precision or none at all by more."""
N_RESAMPLES = 200
"""The bias of the calibration errors is a mean over so many resamples: known to 7 % of their standard deviation."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Mean probabilities over draws, and what their entropy is made of.

    Entropy = expected entropy + mutual information, all in nats, at most log(n_classes).

    Attributes:
        probabilities: mean over the draws, shape (batch, n_classes).
        entropy: of those, shape (batch,).
        expected_entropy: mean of the entropies of single draws, shape (batch,): what stays whatever is drawn
            (aleatoric).
        mutual_information: between the class and the draw, shape (batch,): what the draws add. Where the weights are
            fixed, as in a network of p-bits, it is the uncertainty by the device's sampling, and says nothing of what
            the training data left open about the weights. With one draw it is 0 by construction. Of n draws it is too
            low: by a factor of 1 - 1/n to second order in the draws' spread, which is not corrected.
        n_draws: draws of each case.
    """

    probabilities: Tensor
    entropy: Tensor
    expected_entropy: Tensor
    mutual_information: Tensor
    n_draws: int

    @property
    def confidence(self) -> Tensor:
        """Probability of the likeliest class, shape (batch,)."""
        return self.probabilities.amax(-1)

    @property
    def classes(self) -> Tensor:
        """The likeliest class, shape (batch,)."""
        return self.probabilities.argmax(-1)


def predict(model: nn.Module, inputs: Tensor, n_draws: int, *, output: Output = "logits") -> Prediction:
    """Run a classifier on n_draws copies of the same inputs, each with draws of its own; no gradient.

    The copies are rows of one batch, so each layer asks its device for one job, whatever n_draws is. The model stays in
    the mode it is in: dropout by a device's noise draws in training mode only, and so batch norm would mix the copies.
    Within `deterministic()`, and for a model without draws, all copies are the same, so ask for one.

    Args:
        model: returns logits or probabilities, shape (batch, n_classes).
        inputs: what the model takes, the batch on the first axis.
        n_draws: copies.
        output: what the model returns.

    Raises:
        InvalidModelError: the model's output is not that, see class_probabilities.
    """
    with torch.no_grad():
        return prediction_of(model(repeated(inputs, n_draws)), n_draws, output)


def repeated(inputs: Tensor, n_draws: int) -> Tensor:
    """The batch n_draws times, one after the other; a copy for one as well, as models may overwrite their input."""
    return inputs.repeat(whole_number("n_draws", n_draws, 1), *[1] * (inputs.dim() - 1))


def prediction_of(values: Tensor, n_draws: int, output: Output) -> Prediction:
    """What a model returned of `repeated` inputs, see predict."""
    p = class_probabilities(values, output)
    if len(p) == 0 or len(p) % n_draws:
        raise InvalidModelError(f"the model returned {len(p)} rows, which are not {n_draws} for each case")
    return decompose(p.reshape(n_draws, -1, p.shape[1]))


def class_probabilities(values: Tensor, output: Output = "logits") -> Tensor:
    """A classifier's output as float64 probabilities, shape (batch, n_classes).

    Raises:
        InvalidModelError: another shape, fewer than two classes, NaN or infinity, or probabilities that are negative or
            do not add up to 1 within SUM_TOLERANCE. Those that do are divided by their sum.
    """
    if output not in ("logits", "probabilities"):
        raise InvalidModelError(f'output is "logits" or "probabilities", not {output!r}')
    if not isinstance(values, Tensor) or not values.is_floating_point() or values.dim() != 2 or values.shape[1] < 2:
        found = (
            f"{values.dtype} of shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        )
        raise InvalidModelError(
            f"a classifier returns real numbers of shape (batch, n_classes), not {found}; two classes by one logit a"
            " are the two logits 0 and a"
        )
    wide = values.to(torch.float64)
    if not bool(torch.isfinite(wide).all()):
        raise InvalidModelError("the model's output holds NaN or infinity")
    if output == "logits":
        return torch.softmax(wide, -1)
    total = wide.sum(-1, keepdim=True)
    if bool((wide < 0).any()) or bool(((total - 1).abs() > SUM_TOLERANCE).any()):
        raise InvalidModelError(
            f"the model's output is not probabilities: the least is {float(wide.min()):g}, and rows add up to"
            f" {float(total.min()):g} .. {float(total.max()):g}; say output='logits' if it returns those"
        )
    return wide / total


def decompose(draws: Tensor) -> Prediction:
    """The decomposition of probabilities that were drawn, shape (n_draws, batch, n_classes); see Prediction."""
    if draws.dim() != 3 or len(draws) < 1:
        raise InvalidModelError(f"draws have the shape (n_draws, batch, n_classes), not {tuple(draws.shape)}")
    mean = draws.mean(0)
    entropy, expected = _entropy(mean), _entropy(draws).mean(0)
    # not negative by Jensen's inequality; rounding may say otherwise
    return Prediction(mean, entropy, expected, (entropy - expected).clamp(min=0), len(draws))


def _entropy(probabilities: Tensor) -> Tensor:
    return torch.special.entr(probabilities).sum(-1)


@dataclass(frozen=True, slots=True)
class CalibrationErrors:
    """How far the confidence is from the share that is right, over bins of the confidence.

    Both are too high at few samples: in a bin of n, a perfectly calibrated classifier that is right with probability a
    is off by about sqrt(2 a (1 - a) / (pi n)). How much of an error that explains is stated beside it. A wrong model
    may have none all the same: errors within a bin cancel, and the other classes' probabilities are not looked at.

    Attributes:
        ece: expected calibration error, sum over bins of their share of samples times |share right - mean confidence|.
        mce: the largest such difference of a bin with samples.
        ece_if_calibrated: mean ECE of a classifier with these confidences that is right as often as it says, by
            resampling what is right (Broecker and Smith 2007), 200 times with a fixed seed.
        mce_if_calibrated: the same of the MCE.
        counts: samples of each bin, shape (n_bins,).
    """

    ece: float
    mce: float
    ece_if_calibrated: float
    mce_if_calibrated: float
    counts: tuple[int, ...]


def calibration_errors(probabilities: Tensor, labels: Tensor, n_bins: int = 15) -> CalibrationErrors:
    """ECE and MCE of the likeliest class, over bins of equal width (Guo et al. 2017, eqs. 3 and 5).

    Bin m of M holds the confidences above (m - 1) / M, up to and with m / M.

    Args:
        probabilities: shape (n, n_classes), rows that add up to 1.
        labels: classes, integers of shape (n,).
        n_bins: M.

    Raises:
        InvalidModelError: input that is not that.
    """
    n_bins = whole_number("n_bins", n_bins, 1)
    p, y = _checked(probabilities, labels)
    confidence = p.amax(-1).numpy().clip(max=1.0)
    right = (p.argmax(-1) == y).numpy()
    bins = np.clip(np.ceil(confidence * n_bins).astype(np.intp) - 1, 0, n_bins - 1)
    counts = np.bincount(bins, minlength=n_bins)
    sums = np.bincount(bins, confidence, n_bins)

    def errors(correct: NDArray[np.bool_]) -> tuple[float, float]:
        gaps = np.abs(np.bincount(bins, correct, n_bins) - sums)  # of sums: counts times the difference of means
        return float(gaps.sum() / len(bins)), float((gaps / np.maximum(counts, 1)).max())

    ece, mce = errors(right)
    random = np.random.default_rng(0)
    resampled = np.array([errors(random.random(len(bins)) < confidence) for _ in range(N_RESAMPLES)]).mean(0)
    return CalibrationErrors(ece, mce, float(resampled[0]), float(resampled[1]), tuple(int(n) for n in counts))


def brier(probabilities: Tensor, labels: Tensor) -> float:
    """Mean of sum_k (p_k - [label = k])^2, from 0 to 2 (Brier 1950).

    For two classes that is twice the mean of (p_1 - label)^2, which is also called so.

    Args:
        probabilities: shape (n, n_classes), rows that add up to 1.
        labels: classes, integers of shape (n,).
    """
    p, y = _checked(probabilities, labels)
    return float(((p - nn.functional.one_hot(y, p.shape[1])) ** 2).sum(-1).mean())


class TemperatureScaling(nn.Module):
    """Divides logits by a temperature T that was fitted on held-out data (Guo et al. 2017); the likeliest class stays.

    As the last module of a classifier (`nn.Sequential(model, scaling)`) it goes into its state_dict.

    Args:
        log_temperature: log T.
        standard_error: of log T; NaN where it is not known.

    Attributes:
        log_temperature: log T, a buffer.
        standard_error: of log T, a buffer.
    """

    log_temperature: Tensor
    standard_error: Tensor

    def __init__(self, log_temperature: float = 0.0, standard_error: float = math.nan) -> None:
        super().__init__()
        if not math.isfinite(log_temperature):
            raise InvalidModelError(f"log_temperature must be finite, not {log_temperature!r}")
        self.register_buffer("log_temperature", torch.tensor(log_temperature, dtype=torch.float64))
        self.register_buffer("standard_error", torch.tensor(standard_error, dtype=torch.float64))

    @classmethod
    def fit(cls, logits: Tensor, labels: Tensor) -> TemperatureScaling:
        """The temperature of the largest likelihood, by LBFGS in log T.

        The standard error is that of an M-estimator (White 1982): it holds as well where no temperature makes the model
        right, if the samples are independent.

        Args:
            logits: held-out ones, not those of the training data, shape (n, n_classes).
            labels: classes, integers of shape (n,).

        Raises:
            InvalidModelError: there is no such temperature: every label is the likeliest class, so that the likelihood
                grows as T falls to 0, or the logits tell nothing of the labels, so that it grows with T.
        """
        if logits.dim() != 2 or not bool(torch.isfinite(logits).all()):
            raise InvalidModelError(f"logits must be finite and of shape (n, n_classes), not {tuple(logits.shape)}")
        z = logits.detach().to(device="cpu", dtype=torch.float64)
        y = _labels(labels, *z.shape)
        own = z.gather(1, y[:, None])[:, 0]
        # the mean loss is convex in a = 1 / T; its slopes at a = 0 and towards infinity tell where the least one is
        if float((z.mean(-1) - own).sum()) >= 0:
            raise InvalidModelError("the logits tell nothing of the labels: no temperature fits; is a label shifted?")
        if float((z.amax(-1) - own).sum()) <= 0:
            raise InvalidModelError(
                f"all {len(y)} labels are the likeliest class: no temperature is low enough; hold out more data"
            )
        scale = float((z - z.mean(-1, keepdim=True)).std())  # so that logits of any size start where the loss bends
        log_t = torch.tensor(math.log(scale), dtype=torch.float64, requires_grad=True)
        search = torch.optim.LBFGS(
            [log_t], max_iter=200, tolerance_grad=1e-8, tolerance_change=1e-12, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            search.zero_grad()
            value = nn.functional.cross_entropy(z * torch.exp(-log_t), y)
            value.backward()  # type: ignore[no-untyped-call]
            return value

        search.step(loss)  # type: ignore[no-untyped-call]
        loss()
        assert log_t.grad is not None
        if not abs(float(log_t.grad)) < 1e-6:
            raise InvalidModelError(f"the fit of the temperature did not converge (slope {float(log_t.grad):g})")
        a = math.exp(-float(log_t.detach()))
        p = torch.softmax(a * z, -1)
        mean = (p * z).sum(-1)
        slopes = a * (own - mean)
        curvature = a * a * float(((p * z**2).sum(-1) - mean**2).sum())
        return cls(float(log_t.detach()), math.sqrt(float((slopes**2).sum())) / curvature)

    @property
    def temperature(self) -> float:
        """T."""
        return math.exp(float(self.log_temperature))

    def forward(self, logits: Tensor) -> Tensor:
        """Logits / T."""
        return logits * torch.exp(-self.log_temperature).to(logits.dtype)

    def extra_repr(self) -> str:
        """For printing a model."""
        return f"log_temperature={float(self.log_temperature):.4g} +- {float(self.standard_error):.2g}"


def _labels(labels: Tensor, n: int, n_classes: int) -> Tensor:
    if labels.is_floating_point() or labels.is_complex() or tuple(labels.shape) != (n,) or n == 0:
        raise InvalidModelError(
            f"labels are integers of shape ({n},), at least one, not {labels.dtype} of shape {tuple(labels.shape)}"
        )
    y = labels.detach().to(device="cpu", dtype=torch.int64)
    if int(y.min()) < 0 or int(y.max()) >= n_classes:
        raise InvalidModelError(f"labels lie between 0 and {n_classes - 1}, not {int(y.min())} .. {int(y.max())}")
    return y


def _checked(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    p = class_probabilities(probabilities.detach().cpu(), "probabilities")
    return p, _labels(labels, *p.shape)
