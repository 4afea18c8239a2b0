"""The bridge from tensors to a device: independent bits, p-dits and Ising models, one job a call.

Every call takes the next of the seeds that follow from the sampler's own, so the same calls after the same start give
the same samples, on every deterministic device of the same size, and a sampler whose state was saved goes on exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

import glauber
from glauber.checks import whole_number
from glauber.compile import derive_seed
from glauber.errors import GlauberError, InvalidModelError, ModelNotSupportedError
from glauber.model import IsingModel, Model, PottsModel
from glauber.request import check_seed
from glauber.samples import SampleSet
from glauber.schedule import SamplingSchedule, Schedule
from glauber.torch.usage import Usage

CERTAIN_LOGIT = 32.0
"""Logits and differences of scores are cut here, so that huge ones do not coarsen the integer step of the others, which
all share: a probability moves by at most exp(-32) = 1.3e-14."""
NEGLIGIBLE_LOGIT = 15.0
"""Logits are cut from here on where a device reaches no further: a probability moves by at most sigma(-15) = 3.1e-7."""
EDGELESS = np.zeros((0, 2), dtype=np.int32)


class Sampler:
    """Draws for tensors on a device.

    Args:
        device: an open device, which the caller closes.
        seed: 0 .. 2^64 - 1; None takes the next of the device's.

    Raises:
        ModelNotSupportedError: the device samples at no stated temperature, so that no probability can be asked of it.

    Attributes:
        device: the device.
        usage: jobs, samples and joules so far.
        last: the last job's result, for its provenance, quantisation report and diagnostics.
    """

    def __init__(self, device: glauber.Device, seed: int | None = None) -> None:
        able = device.spec.capabilities
        if not able.sampler or able.beta == "none":
            raise ModelNotSupportedError(
                f"{device.spec.name} does not sample at a stated temperature, so it cannot draw with given"
                " probabilities; take a p-bit device, or a simulator such as sim://ideal"
            )
        checked = check_seed(seed)
        self.device = device
        self.seed = device.derive_seed() if checked is None else checked
        self.usage = Usage()
        self.last: SampleSet | None = None
        self._calls = 0
        self._edgeless: dict[tuple[Any, ...], Model] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Sampler:
        return self  # a device is not copied: copies of a module draw on the same one, each draw from a new seed

    def __reduce__(self) -> str:
        raise InvalidModelError(
            "a sampler holds an open device, which goes into no file; save the state_dict of the module or the sampler"
            " (glauber.torch.save_checkpoint) and load it into a new one"
        )

    def state_dict(self) -> dict[str, int]:
        """What a run that goes on needs: the seed, and how many seeds were taken."""
        return {"seed": self.seed, "calls": self._calls}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where another sampler was.

        Raises:
            InvalidModelError: it is not the state of a sampler.
        """
        try:
            seed, calls = check_seed(state["seed"]), whole_number("calls", state["calls"], 0)
        except (KeyError, TypeError) as error:
            raise InvalidModelError(f"a sampler's state has a seed and a number of calls; missing: {error}") from error
        if seed is None:
            raise InvalidModelError("a sampler's state needs its seed")
        self.seed, self._calls = seed, calls

    def next_seed(self) -> int:
        """The seed of the next job, which is then taken."""
        seed = derive_seed(self.seed, self._calls)
        self._calls += 1
        return seed

    def run(self, model: Model, schedule: Schedule, **arguments: Any) -> SampleSet:
        """A job with the next seed, waited for and counted; arguments as for Device.submit."""
        job = self.device.submit(model, schedule, seed=self.next_seed(), **arguments)
        try:
            result = job.result()
        except BaseException:  # such as Ctrl-C: the device is free again for whoever goes on
            with suppress(GlauberError):  # what went wrong first is what is told
                job.ask_to_cancel()
            raise
        self.usage.add(result)
        self.last = result
        return result

    def bits(self, logits: Tensor, n_samples: int = 1) -> Tensor:
        """Independent bits, 1 with probability sigma(logit), from one job.

        A device with fewer p-bits than logits runs several chains with fields of their own; one whose chains share
        their fields takes a job for each filling. A device rounds the logits to its own step; how far that takes the
        law, total_variation_bound says.

        Args:
            logits: any shape.
            n_samples: draws of each.

        Returns:
            Zeros and ones of the dtype of `logits`, shape (n_samples, *logits.shape). No gradient flows.

        Raises:
            InvalidModelError: a logit is NaN or infinite.
        """
        n_samples = whole_number("n_samples", n_samples, 1)
        fields = _numbers(logits, "logits").ravel() / 2
        if fields.size == 0:
            return logits.new_zeros((n_samples, *logits.shape))
        fields = self._within_reach(fields.clip(-CERTAIN_LOGIT / 2, CERTAIN_LOGIT / 2))
        sites = self._sites(len(fields))
        rows = -(-len(fields) // len(sites))
        loaded = np.zeros((rows, len(sites)))
        loaded.ravel()[: len(fields)] = fields
        wide = loaded
        if int(sites[-1]) + 1 != len(sites):  # some p-bits are not to be used
            wide = np.zeros((rows, int(sites[-1]) + 1))
            wide[:, sites] = loaded
        together = rows == 1 or self.device.spec.capabilities.chain_fields
        beta = self._beta(wide)
        wide = wide / beta
        model = self._edgeless_ising(wide.shape[1], int(sites[0]), self._scale(wide))
        parts = [
            _unpacked(
                self.run(
                    model,
                    SamplingSchedule(n_samples=n_samples, n_chains=len(part), beta=beta),
                    fields=part,
                    on_overflow="scale",
                )
            )
            for part in ([wide] if together else np.split(wide, rows))
        ]
        drawn = parts[0] if len(parts) == 1 else torch.cat(parts)  # (rows, n_samples, sites)
        if wide.shape != loaded.shape:
            drawn = drawn[:, :, torch.from_numpy(sites).to(drawn.device)]
        flat = drawn.transpose(0, 1).reshape(n_samples, -1)[:, : len(fields)]
        return flat.reshape(n_samples, *logits.shape).to(device=logits.device, dtype=logits.dtype)

    def categorical(self, scores: Tensor, n_samples: int = 1, allowed: Tensor | None = None) -> Tensor:
        """Independent p-dits, state k with probability softmax(scores)_k, from one job.

        A device without p-dits of so many states draws each as a path through a binary tree of bits, the same law in
        ceil(log2 n_states) jobs.

        Args:
            scores: shape (..., n_states).
            n_samples: draws of each.
            allowed: which states may be taken, Boolean, broadcastable to `scores`; a state that is not never is.

        Returns:
            States, int64 of shape (n_samples, ...). No gradient flows.

        Raises:
            InvalidModelError: a score that is allowed is NaN or infinite, or a row allows no state.
        """
        n_samples = whole_number("n_samples", n_samples, 1)
        if scores.dim() < 1 or scores.shape[-1] < 1:
            raise InvalidModelError(f"scores need a last axis of states, not shape {tuple(scores.shape)}")
        mask, scores = None, scores.detach()
        allowed = None if allowed is None else checked_mask(allowed, scores.shape)
        _check_finite(scores, "scores", allowed)
        shape = (n_samples, *scores.shape[:-1])
        if scores.numel() == 0 or scores.shape[-1] == 1:
            return torch.zeros(shape, dtype=torch.int64, device=scores.device)
        if allowed is not None:
            mask = np.ascontiguousarray(allowed.reshape(-1, scores.shape[-1]).cpu())
            scores = scores.masked_fill(~allowed, -math.inf)
        # the law is that of differences, and so is the step
        below = (scores - scores.amax(-1, keepdim=True)).clamp_(-CERTAIN_LOGIT, 0)
        values = _doubles(below).reshape(-1, scores.shape[-1])
        sites = self._sites(len(values))
        if values.shape[1] <= self.device.spec.capabilities.potts_states and len(values) == len(sites):
            drawn = self._dits(values, mask, sites, n_samples)
        else:
            drawn = torch.from_numpy(self._tree(values, mask, n_samples))
        return drawn.reshape(shape).to(scores.device)

    def total_variation_bound(self) -> float:
        """How far the law of one draw of the last job may be from the asked one, in total variation.

        The proven distance of the integer machine's draw (docs/decisions/0012), and that of the rounding of the
        fields to the device's step: with an error of at most d = `largest_error` each weight moves by a factor of at
        most exp(beta d), each probability by exp(2 beta d), and so the law by (exp(2 beta d) - 1) / 2 at most. For
        digital devices; what analogue ones do beside that, tests and calibration say. A p-dit that was drawn as a path
        of bits may be as far as the sum over its jobs.

        Raises:
            InvalidModelError: nothing was drawn yet, or the last job was that of a model with couplings.
        """
        if self.last is None:
            raise InvalidModelError("nothing was drawn yet; the bound is that of the last job")
        if self.last.model.edges.size:
            raise InvalidModelError("the last job had couplings; the bound is that of independent draws alone")
        report = self.last.provenance.quantisation
        beta = self.last.provenance.beta
        if beta is None:
            raise InvalidModelError("the last job changed its temperature; the bound is that of a job at one")
        return min(1.0, report.draw_error + math.expm1(2 * beta * report.largest_error) / 2)

    @property
    def _n_sites(self) -> int | None:
        """How many sites the device has; None for as many as asked."""
        spec = self.device.spec
        if spec.topology is not None:
            return spec.topology.n_sites
        return None if spec.units is None else int(spec.units.low or spec.units.best)

    def _sites(self, wanted: int) -> NDArray[np.intp]:
        """At most `wanted` sites that may be used, ascending."""
        spare = self.device.masked
        broken = () if self.device.calibration is None else self.device.calibration.faults
        avoid = {*spare, *broken}
        total = wanted + len(avoid) if self._n_sites is None else min(self._n_sites, wanted + len(avoid))
        usable = np.setdiff1d(np.arange(total), np.array(sorted(avoid), dtype=np.intp), assume_unique=True)[:wanted]
        if usable.size == 0:
            raise ModelNotSupportedError(f"every p-bit of {self.device.address} is masked; there is none to draw with")
        return usable

    def _within_reach(self, fields: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fields that are larger than the device's range and beta make them, cut where that changes no probability."""
        reach = self._largest_field * self._largest_beta
        return fields if reach < NEGLIGIBLE_LOGIT / 2 else np.clip(fields, -reach, reach)

    @property
    def _largest_field(self) -> float:
        able = self.device.spec.coefficients
        if able.field_range is not None or able.weight_range is None:
            return able.field_range or math.inf
        if able.weight_bits is None or able.weight_bits < 2 or able.field_bits is None:
            return able.weight_range
        return able.weight_range * (2 ** (able.field_bits - 1) - 1) / (2 ** (able.weight_bits - 1) - 1)

    @property
    def _largest_beta(self) -> float:
        able = self.device.spec.capabilities
        if able.beta == "folded":
            return 1.0
        return math.inf if able.beta_range is None else able.beta_range[1]

    def _beta(self, fields: NDArray[np.float64]) -> float:
        """The power of two with which fields / beta fill the device's range, whose step is fixed: the finest there is.

        1 for a device that takes any scale or folds beta into its coefficients.
        """
        largest, limit = float(np.abs(fields).max()), self._largest_field
        if math.isinf(limit) or largest == 0 or self.device.spec.capabilities.beta == "folded":
            return 1.0
        low = 0.0 if self.device.spec.capabilities.beta_range is None else self.device.spec.capabilities.beta_range[0]
        return min(max(math.ldexp(1.0, math.frexp(largest / limit)[1]), low), self._largest_beta)

    def _scale(self, fields: NDArray[np.float64]) -> float:
        """The power of two above all fields, where the device takes any scale; else 0.

        A model without couplings that holds it has the same integer step from job to job, though the jobs' own fields,
        which take its place, differ: so it is compiled once.
        """
        if not math.isinf(self._largest_field):
            return 0.0
        largest = float(np.abs(fields).max())
        return math.ldexp(1.0, math.frexp(largest)[1]) if largest else 1.0

    def _edgeless_ising(self, n_sites: int, first: int, scale: float) -> IsingModel:
        """`scale` on the first site that may be used: one that is masked must have no field."""
        key = (n_sites, first, scale)
        known = self._edgeless.get(key)
        if isinstance(known, IsingModel):
            return known
        fields = np.zeros(n_sites)
        fields[first] = scale
        model = IsingModel(fields, EDGELESS, np.zeros(0))
        self._remember(key, model)
        return model

    def _dits(
        self, values: NDArray[np.float64], mask: NDArray[np.bool_] | None, sites: NDArray[np.intp], n_samples: int
    ) -> Tensor:
        """A p-dit for each row of values, on the sites given: int64 (n_samples, n_rows)."""
        n_sites = int(sites[-1]) + 1
        wide, permitted = values, mask
        if n_sites != len(sites):
            wide = np.zeros((n_sites, values.shape[1]))
            wide[sites] = values
            if mask is not None:
                permitted = np.ones(wide.shape, dtype=bool)
                permitted[sites] = mask
        schedule = SamplingSchedule(n_samples=n_samples, n_chains=1, beta=1.0)
        result = self.run(self._edgeless_potts(wide.shape, permitted, self._scale(wide)), schedule, fields=wide)
        drawn = from_dlpack(result.to_dlpack())[0].to(torch.int64)
        return drawn if n_sites == len(sites) else drawn[:, torch.from_numpy(sites).to(drawn.device)]

    def _edgeless_potts(self, shape: tuple[int, ...], mask: NDArray[np.bool_] | None, scale: float) -> PottsModel:
        key = (*shape, scale, None if mask is None else hash(mask.tobytes()))
        known = self._edgeless.get(key)
        if isinstance(known, PottsModel) and _same_mask(known.allowed, mask):
            return known
        fields = np.zeros(shape)
        fields[0, 0] = scale
        model = PottsModel(fields, EDGELESS, np.zeros(0), allowed=mask)
        self._remember(key, model)
        return model

    def _remember(self, key: tuple[Any, ...], model: Model) -> None:
        if len(self._edgeless) >= 8:
            self._edgeless.pop(next(iter(self._edgeless)))
        self._edgeless[key] = model

    def _tree(self, scores: NDArray[np.float64], mask: NDArray[np.bool_] | None, n_samples: int) -> NDArray[np.int64]:
        """States drawn bit by bit, most significant first: shape (n_samples, n_rows).

        At each node the bit is 1 with the share of its upper half in the weight of both.
        """
        rows, q = scores.shape
        depth = (q - 1).bit_length()
        log_weight = np.full((rows, 2**depth), -np.inf)
        log_weight[:, :q] = scores if mask is None else np.where(mask, scores, -np.inf)
        levels = [log_weight]
        for _ in range(depth):
            pairs = levels[-1].reshape(rows, -1, 2)
            levels.append(np.logaddexp(pairs[:, :, 0], pairs[:, :, 1]))
        node = np.zeros((n_samples, rows), dtype=np.int64)
        row = np.arange(rows)
        for level in reversed(levels[:-1]):
            low, high = level[row, 2 * node], level[row, 2 * node + 1]
            certain = np.isinf(low) | np.isinf(high)  # a half without weight is never drawn
            with np.errstate(invalid="ignore"):
                logits = np.where(certain, 0.0, high - low)
            drawn = self.bits(torch.from_numpy(logits))[0].numpy() > 0.5
            node = 2 * node + np.where(certain, np.isinf(low), drawn)
        return node


def as_sampler(device: glauber.Device | Sampler) -> Sampler:
    """The sampler itself, or a new one on the device."""
    return device if isinstance(device, Sampler) else Sampler(device)


def _unpacked(result: SampleSet) -> Tensor:
    """A job's p-bits as zeros and ones, uint8 (n_chains, n_samples, n_sites), on the GPU or in host memory.

    The packed states are taken by DLPack, without a copy.
    """
    packed = from_dlpack(result.to_dlpack())
    bits = packed[..., None] >> torch.arange(8, dtype=torch.uint8, device=packed.device) & 1
    return bits.flatten(-2)[..., : result.model.n_sites]


def checked_mask(allowed: Tensor, shape: torch.Size) -> Tensor:
    """A mask of scores of a shape, at that shape.

    Raises:
        InvalidModelError: it is not Boolean, of another shape, or allows a row no state.
    """
    if allowed.dtype != torch.bool:
        raise InvalidModelError(f"allowed must be Boolean, not {allowed.dtype}")
    try:
        wide = torch.broadcast_to(allowed, shape)
    except RuntimeError as error:
        raise InvalidModelError(
            f"allowed has shape {tuple(allowed.shape)}, which does not broadcast to that of the scores, {tuple(shape)}"
        ) from error
    some = wide.any(-1).ravel()
    if not bool(some.all()):
        raise InvalidModelError(
            f"row {int((~some).nonzero()[0])} of the scores is allowed no state at all; leave it out"
        )
    return wide


def _same_mask(a: NDArray[np.bool_] | None, b: NDArray[np.bool_] | None) -> bool:
    return b is None if a is None else b is not None and np.array_equal(a, b)


def _check_finite(values: Tensor, name: str, allowed: Tensor | None = None) -> None:
    """Refuse NaN and infinity, but where they are not allowed to matter."""
    finite = torch.isfinite(values)
    if not bool((finite if allowed is None else finite | ~allowed).all()):
        raise InvalidModelError(f"{name} hold NaN or infinity; look for a diverging loss, or mask them with `allowed`")


def _doubles(values: Tensor) -> NDArray[np.float64]:
    """A tensor in host memory."""
    return np.asarray(values.to(device="cpu", dtype=torch.float64))


def _numbers(values: Tensor, name: str) -> NDArray[np.float64]:
    """A tensor of finite numbers as doubles in host memory."""
    _check_finite(values.detach(), name)
    return _doubles(values.detach())
