"""Weights that are dear to write: what rewriting them takes, and which training loops a device cannot hold.

On a chip whose weights lie in flash one rewrite of a node can cost as much as 20,000 updates of it, and weights can be
rewritten once a second. So a loop that sets new weights for every gradient step is bound by writing, not by sampling.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from glauber.checks import whole_number
from glauber.energy import Operations, device_seconds, load_seconds, modelled_energy
from glauber.errors import InvalidModelError, ModelNotSupportedError
from glauber.spec import Provenance, SpecBase


def states_write_cost(spec: SpecBase) -> bool:
    """Whether a device's description says that writing weights costs anything."""
    return spec.costs.joules_per_write is not None or spec.costs.max_reflash_hz is not None


@dataclass(frozen=True, slots=True)
class FlashPlan:
    """What a training loop asks of a device's weights.

    Attributes:
        device: its name.
        steps: weight settings, each written once.
        seconds_asked: in which they are to be done; None for no limit.
        seconds_writing: that rewriting alone takes, steps times the longer of program_seconds and 1 / max_reflash_hz;
            None where the device states neither.
        seconds_running: that the device takes in all, sweeps and reads included; None where no rate is published.
        joules_writing: of all rewrites; None where not published.
        joules_sampling: of all updates; None where not published.
        max_reflash_hz: stated limit, or None.
        limit_provenance: of that limit.
        program_seconds: stated time of one rewrite, or None.
    """

    device: str
    steps: int
    seconds_asked: float | None
    seconds_writing: float | None
    seconds_running: float | None
    joules_writing: float | None
    joules_sampling: float | None
    max_reflash_hz: float | None
    limit_provenance: Provenance | None
    program_seconds: float | None

    @property
    def least_seconds(self) -> float | None:
        """The loop cannot be faster: the whole where it is known, else the writing; None where nothing is stated."""
        return self.seconds_writing if self.seconds_running is None else self.seconds_running

    @property
    def possible(self) -> bool | None:
        """Whether the device can hold the loop; None where its description does not say enough."""
        if self.seconds_asked is None:
            return True
        return None if self.least_seconds is None else self.least_seconds <= self.seconds_asked

    def require(self) -> None:
        """Refuse a loop that the device cannot hold.

        Raises:
            ModelNotSupportedError: with the arithmetic.
        """
        if self.possible is False:
            raise ModelNotSupportedError(
                f"{self}. Keep weights for longer and take several gradients on each setting, train the fields alone"
                " (they are run fields on resident weights), clamp instead of rewriting, or train on a simulator such"
                f" as sim://{self.device} or sim://ideal, which has no such limit"
            )

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, with the verdict."""
        return {**asdict(self), "possible": self.possible}

    def __str__(self) -> str:
        asked = "" if self.seconds_asked is None else f" in {self.seconds_asked:,.6g} s"
        rate = "" if self.seconds_asked is None else f" ({self.steps / self.seconds_asked:,.6g} a second)"
        text = f"{self.steps:,} weight settings{asked}{rate} on {self.device}"
        if self.seconds_writing is None:
            text += ": how long rewriting takes is not published"
        else:
            if self.max_reflash_hz is not None:
                why = f"rewrites a second: {self.max_reflash_hz:g} at most, {self.limit_provenance}"
            else:
                why = f"{self.program_seconds:g} s a rewrite"
            text += f": rewriting alone takes {self.seconds_writing:,.6g} s ({why})"
        if self.seconds_running is not None:
            text += f", with sampling and reading {self.seconds_running:,.6g} s"
        if self.possible is False and self.seconds_asked and self.least_seconds:
            text += f", {self.least_seconds / self.seconds_asked:,.4g} times what was asked"
        if self.joules_writing is not None and self.joules_sampling:
            text += (
                f"; writing takes {self.joules_writing:.4g} J and sampling {self.joules_sampling:.4g} J, a ratio of"
                f" {self.joules_writing / self.joules_sampling:,.4g}"
            )
        return text


def flash_plan(spec: SpecBase, step: Operations, *, steps: int, seconds: float | None = None) -> FlashPlan:
    """What a loop of `steps` weight settings asks of a device.

    Args:
        spec: of the device.
        step: what the device does for one setting, its one rewrite included.
        steps: distinct weight settings.
        seconds: in which they are to be done; None for no limit.

    Raises:
        InvalidModelError: an argument is out of range.
    """
    steps = whole_number("steps", steps, 1, 2**62)
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0):
        raise InvalidModelError(f"seconds must be None or above 0, not {seconds!r}")
    one_load, whole, limit = load_seconds(spec), device_seconds(spec, step), spec.costs.max_reflash_hz
    parts = modelled_energy(spec, step).parts
    written, sampled = parts["program"].joules, parts["sample"].joules
    return FlashPlan(
        device=spec.name,
        steps=steps,
        seconds_asked=None if seconds is None else float(seconds),
        seconds_writing=None if one_load is None else steps * step.loads * one_load.best,
        seconds_running=None if whole is None else steps * whole.best,
        joules_writing=None if written is None else steps * written,
        joules_sampling=None if sampled is None else steps * sampled,
        max_reflash_hz=None if limit is None else limit.best,
        limit_provenance=None if limit is None else limit.provenance,
        program_seconds=None if spec.costs.program_seconds is None else spec.costs.program_seconds.best,
    )
