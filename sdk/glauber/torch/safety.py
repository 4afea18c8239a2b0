"""A wrapper of classifiers that checks what goes in and out, logs every call, and says when a person should look.

Research software, not a medical device. Nothing here makes a model fit for clinical use or complies with a regulation;
advice for review is a rule of thumb that its user states, and no advice does not mean that an answer is right.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from glauber.audit_file import AuditFile, canonical
from glauber.calibration.history import plain_address
from glauber.checks import whole_number
from glauber.errors import InputRefusedError, InvalidModelError, OutputRefusedError, SafetyError
from glauber.torch.deterministic import deterministic, is_deterministic
from glauber.torch.sampler import Sampler
from glauber.torch.uncertainty import Output, Prediction, prediction_of, repeated

CRITICAL_TASKS = ("diagnostic", "dosage", "monitoring", "treatment", "triage")
"""Classes of tasks in which nothing may be drawn: the same batch gets the same answer."""
OTHER_TASKS = ("development", "education", "research")
"""Classes of tasks in which layers may draw."""


@dataclass(frozen=True)
class InputRule:
    """What a model may be given; NaN and infinity never.

    Attributes:
        shape: of the input, with None for an axis of any length, such as the batch, which comes first.
        dtype: of the input.
        low: least value.
        high: largest value.

    Raises:
        InvalidModelError: low is above high, or one of them is NaN.
    """

    shape: tuple[int | None, ...]
    dtype: torch.dtype = torch.float32
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise InvalidModelError(f"low must not be above high: {self.low!r}, {self.high!r}")
        if not self.shape:
            raise InvalidModelError("shape needs an axis for the batch")

    def check(self, inputs: Tensor) -> None:
        """Pass, or raise InputRefusedError with the reason; it names no value of the input."""
        if not _is_dense(inputs):
            raise InputRefusedError(f"the input is a {type(inputs).__name__}; a dense tensor is asked for")
        fits = inputs.dim() == len(self.shape) and all(
            want in (None, have) for want, have in zip(self.shape, inputs.shape, strict=True)
        )
        if not fits:
            raise InputRefusedError(f"the input has shape {tuple(inputs.shape)}; {self.shape} is asked for")
        if inputs.dtype != self.dtype:
            raise InputRefusedError(f"the input is {inputs.dtype}; {self.dtype} is asked for")
        if inputs.numel() == 0:
            raise InputRefusedError("the input is empty")
        if not bool(torch.isfinite(inputs).all()):
            raise InputRefusedError(f"{int((~torch.isfinite(inputs)).sum())} values of the input are NaN or infinite")
        if outside := int(((inputs < self.low) | (inputs > self.high)).sum()):
            raise InputRefusedError(f"{outside} values of the input lie outside {self.low:g} .. {self.high:g}")


@dataclass(frozen=True)
class SeenRange:
    """The least and the largest value of every feature in a calibration set.

    A new case of the same law lies outside in a given feature with probability 2 / (n + 1) at most, n the cases of the
    set; with d features, up to 2 d / (n + 1). So take far more cases than features. A case inside may be new all the
    same: each feature is looked at alone.

    Attributes:
        low: shape of one case.
        high: shape of one case.
        n_cases: cases of the set.
    """

    low: Tensor
    high: Tensor
    n_cases: int

    @classmethod
    def of(cls, inputs: Tensor) -> SeenRange:
        """Of a calibration set, the cases on the first axis."""
        if inputs.dim() < 1 or len(inputs) < 2 or not bool(torch.isfinite(inputs).all()):
            raise InvalidModelError(
                f"a calibration set holds two cases or more and no NaN or infinity; this one is {tuple(inputs.shape)}"
            )
        return cls(inputs.detach().amin(0), inputs.detach().amax(0), len(inputs))

    def n_outside(self, inputs: Tensor) -> Tensor:
        """How many features of each case lie outside, int64 (batch,)."""
        if inputs.shape[1:] != self.low.shape:
            raise InvalidModelError(
                f"cases of shape {tuple(inputs.shape[1:])} cannot be compared with seen ones of {tuple(self.low.shape)}"
            )
        low, high = self.low.to(inputs.device), self.high.to(inputs.device)
        return ((inputs < low) | (inputs > high)).reshape(len(inputs), -1).sum(-1)


@dataclass(frozen=True)
class ReviewRule:
    """When a person should look at an answer. Choose thresholds on held-out cases; none of them has a general value.

    Attributes:
        min_confidence: review below this probability of the likeliest class.
        max_entropy: review above this predictive entropy, nats.
        max_mutual_information: review above this share of the draws in it, nats; needs two draws or more.
        seen: review a case with a feature outside it.

    Raises:
        InvalidModelError: no threshold at all, or one that is NaN.
    """

    min_confidence: float | None = None
    max_entropy: float | None = None
    max_mutual_information: float | None = None
    seen: SeenRange | None = None

    def __post_init__(self) -> None:
        given = [x for x in (self.min_confidence, self.max_entropy, self.max_mutual_information) if x is not None]
        if not given and self.seen is None:
            raise InvalidModelError("a review rule needs a threshold: min_confidence, max_entropy, ... or seen")
        if any(math.isnan(x) for x in given):
            raise InvalidModelError("a threshold is NaN, which no answer would pass or fail")

    def advice(self, inputs: Tensor, prediction: Prediction) -> tuple[Advice, ...]:
        """For each case of the batch."""
        reasons: list[list[str]] = [[] for _ in range(len(prediction.probabilities))]
        # "not within" rather than "beyond", so that a NaN would be a reason
        if self.min_confidence is not None:
            for found, c in zip(reasons, prediction.confidence.tolist(), strict=True):
                if not c >= self.min_confidence:
                    found.append(f"confidence {c:.4g} is below {self.min_confidence:g}")
        if self.max_entropy is not None:
            for found, h in zip(reasons, prediction.entropy.tolist(), strict=True):
                if not h <= self.max_entropy:
                    found.append(f"entropy {h:.4g} nats is above {self.max_entropy:g}")
        if self.max_mutual_information is not None:
            for found, i in zip(reasons, prediction.mutual_information.tolist(), strict=True):
                if not i <= self.max_mutual_information:
                    found.append(f"mutual information {i:.4g} nats is above {self.max_mutual_information:g}")
        if self.seen is not None:
            for found, n in zip(reasons, self.seen.n_outside(inputs).tolist(), strict=True):
                if n:
                    found.append(f"{n} features lie outside the range of the {self.seen.n_cases} cases seen")
        return tuple(Advice(tuple(found)) for found in reasons)


@dataclass(frozen=True)
class Advice:
    """Whether a person should look at an answer.

    Attributes:
        reasons: which thresholds it passed; none for no review.
    """

    reasons: tuple[str, ...]

    @property
    def review(self) -> bool:
        """Whether there is a reason."""
        return bool(self.reasons)

    def __str__(self) -> str:
        return f"review by a person: {'; '.join(self.reasons)}" if self.reasons else "no threshold was passed"


@dataclass(frozen=True)
class Answer:
    """What a SafeModel returns.

    Attributes:
        prediction: probabilities and their uncertainty.
        advice: for each case of the batch.
        deterministic: whether nothing was drawn by design; then mutual information is 0 by construction.
        line: hash of the call's line in the audit file.
    """

    prediction: Prediction
    advice: tuple[Advice, ...]
    deterministic: bool
    line: str


class SafeModel:
    """A classifier behind checks, a log and a rule for review. Research software, not a medical device.

    In the CRITICAL_TASKS the model runs once, in eval mode, within `deterministic()` and with torch's deterministic
    algorithms (of which some on GPUs want CUBLAS_WORKSPACE_CONFIG, as torch then says). If a sampler of its modules or
    a generator of torch moved all the same, there is no answer. What draws from neither, such as NumPy in a module of
    your own, is not seen, and another thread that draws meanwhile looks like the model. The mean-field value that a
    network of p-bits then returns is not the mean over its draws: calibrate and test it in that same way. In
    OTHER_TASKS the model draws n_draws times, see glauber.torch.predict.

    No answer is returned whose line is not on the disk. A call that is refused is logged, too. A line has the time, the
    task, hashes of the model's state, the input and the output, the devices with the seeds of their draws, and how many
    cases are to be reviewed: no content. But whoever can guess an input can confirm the guess by its hash, so keep the
    file as confidential as the inputs.

    Args:
        model: returns logits or probabilities, shape (batch, n_classes).
        task: one of CRITICAL_TASKS or OTHER_TASKS.
        inputs: what it may be given.
        review: when a person should look.
        log: the file that every call adds a line to.
        n_draws: draws of each case in a task that is not critical; 1 else.
        output: what the model returns.

    Raises:
        InvalidModelError: an unknown task; draws asked for in a critical one; a threshold of mutual information with
            fewer than two draws.
    """

    def __init__(
        self,
        model: nn.Module,
        task: str,
        inputs: InputRule,
        review: ReviewRule,
        log: AuditFile,
        *,
        n_draws: int = 1,
        output: Output = "logits",
    ) -> None:
        if task not in CRITICAL_TASKS + OTHER_TASKS:
            raise InvalidModelError(
                f"no task {task!r}; critical are {', '.join(CRITICAL_TASKS)}, others {', '.join(OTHER_TASKS)}"
            )
        if output not in ("logits", "probabilities"):
            raise InvalidModelError(f'output is "logits" or "probabilities", not {output!r}')
        self.model = model
        self.task = task
        self.inputs = inputs
        self.review = review
        self.log = log
        self.n_draws = whole_number("n_draws", n_draws, 1)
        self.output: Output = output
        if self.is_critical and self.n_draws > 1:
            raise InvalidModelError(f"a {task} task is critical: nothing is drawn in it, so n_draws must be 1")
        if review.max_mutual_information is not None and self.n_draws < 2:
            raise InvalidModelError("without two draws there is no mutual information to compare with a threshold")

    @property
    def is_critical(self) -> bool:
        """Whether the task is one in which nothing may be drawn."""
        return self.task in CRITICAL_TASKS

    def __call__(self, inputs: Tensor) -> Answer:
        """Answer for a batch.

        Raises:
            InputRefusedError: the input is not what the rule allows.
            OutputRefusedError: the model returned NaN, or no probabilities.
            SafetyError: something was drawn in a critical task.
            StoreError: the line could not be written; see AuditFile.append.
        """
        drawing = _samplers(self.model)
        facts: dict[str, Any] = {
            "kind": "call",
            "task": self.task,
            "model": fingerprint(_state(self.model)),
            "input": fingerprint(inputs) if _is_dense(inputs) else None,
            "deterministic": self.is_critical or is_deterministic(),
            "n_draws": self.n_draws,
            "devices": [{"address": plain_address(s.device.address), **s.state_dict()} for s in drawing],
        }
        try:
            prediction = self._predict(inputs, drawing)
            advice = self.review.advice(inputs, prediction)
        except Exception as error:  # whatever the model raises: the call is logged, and the error goes on
            self.log.append({**facts, "refused": type(error).__name__})
            raise
        output = fingerprint(prediction.probabilities)
        reviewed = sum(one.review for one in advice)
        line = self.log.append({**facts, "output": output, "cases": len(advice), "to_review": reviewed})
        return Answer(prediction, advice, bool(facts["deterministic"]), line)

    def _predict(self, inputs: Tensor, drawing: list[Sampler]) -> Prediction:
        self.inputs.check(inputs)
        if not self.is_critical:
            with torch.no_grad():
                return self._pass(inputs)
        before = _generators(drawing)
        with torch.no_grad(), deterministic(), _still(self.model):
            prediction = self._pass(inputs)
        if _generators(drawing) != before:
            raise SafetyError(
                f"something was drawn in a {self.task} task, which is critical: a module of the model draws within"
                " deterministic() and in eval mode; take it out, or ask for a task that may draw"
            )
        return prediction

    def _pass(self, inputs: Tensor) -> Prediction:
        values = self.model(repeated(inputs, self.n_draws))
        try:
            prediction = prediction_of(values, self.n_draws, self.output)
        except InvalidModelError as error:
            raise OutputRefusedError(str(error)) from error
        if len(prediction.probabilities) != len(inputs):
            raise OutputRefusedError(f"the model answered {len(prediction.probabilities)} cases, not {len(inputs)}")
        return prediction


def _is_dense(value: Any) -> bool:
    return isinstance(value, Tensor) and bool(value.layout == torch.strided)


def fingerprint(value: Any) -> str:
    """Sha256 of tensors, plain values and containers of them: dtype, shape and bytes, not where a tensor lies.

    Raises:
        InvalidModelError: another kind of object.
    """
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    """Every part is preceded by what and how long it is, so that no two values give the same bytes."""
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(canonical({"dtype": str(value.dtype), "shape": list(value.shape)}).encode() + b"\n")
        if flat.numel():
            digest.update(flat.view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        digest.update(f"mapping {len(value)}\n".encode())
        for name in sorted(value):
            _feed(digest, name)
            _feed(digest, value[name])
    elif isinstance(value, list | tuple):
        digest.update(f"list {len(value)}\n".encode())
        for item in value:
            _feed(digest, item)
    elif value is None or isinstance(value, bool | int | float | str):
        text = f"{type(value).__name__} {value!r}".encode()
        digest.update(f"plain {len(text)}\n".encode() + text)
    else:
        raise InvalidModelError(
            f"a {type(value).__name__} cannot be hashed; use tensors, plain values and lists and dicts of them"
        )


def _state(model: nn.Module) -> dict[str, Any]:
    """Parameters, all buffers and extra state; not how many seeds the samplers took, which the line has by itself.

    What is in no state_dict, such as a module's code or a number among its arguments, is not covered.
    """
    state: dict[str, Any] = {**dict(model.named_buffers(remove_duplicate=False)), **model.state_dict()}
    for name, value in state.items():
        if name.endswith("_extra_state") and isinstance(value, Mapping):
            state[name] = {key: item for key, item in value.items() if key not in ("seed", "calls")}
    return state


def _samplers(model: nn.Module) -> list[Sampler]:
    """Those that modules hold, each once."""
    found = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Sampler)]
    return list({id(one): one for one in found}.values())


def _generators(drawing: list[Sampler]) -> list[Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    states = [bytes(state.numpy()) for state in (torch.get_rng_state(), *cuda)]
    return [*states, *(one.state_dict() for one in drawing)]


@contextlib.contextmanager
def _still(model: nn.Module) -> Iterator[None]:
    """Eval mode and torch's deterministic algorithms; afterwards each module's own mode and torch's again."""
    modes = [(module, module.training) for module in model.modules()]
    algorithms = torch.get_deterministic_debug_mode()
    torch.use_deterministic_algorithms(True)
    model.eval()
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(algorithms)
        for module, mode in modes:
            module.training = mode
