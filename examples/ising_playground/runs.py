"""A run: jobs one after another, each from where the last one ended, kept so that they can be had again bit for bit."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import glauber as gl
import numpy as np
from glauber.compile import derive_seed
from glauber.energy import EnergyReport
from glauber.errors import InvalidModelError
from numpy.typing import NDArray

FRAMES = 20  # at most so many points of the magnetisation from one job
MAX_UPDATES = 2e9  # of one job: seconds on one core, and a page that answers
PATIENCE_S = 120.0
FIGURES = {
    "measured": "by figures that were measured on such a device",
    "derived": "by figures derived from published ones",
    "model": "by figures of a model of the device",
    "vendor": "by figures that its maker claims",
    "assumed": "some of the figures are assumed",
}  # for the weakest that a sum rests on
REPLAY = Path(__file__).with_name("replay.py")


@dataclass(frozen=True, slots=True)
class Step:
    """One job of a run.

    Attributes:
        seed: of the job.
        schedule: as JSON.
        field: added to the model's fields, on every spin.
        digest: SHA-256 of the packed states it kept.
    """

    seed: int
    schedule: dict[str, Any]
    field: float
    digest: str


@dataclass(eq=False)
class Run:
    """One chain of a model on a device.

    Attributes:
        device: that runs the jobs.
        model: without the page's field.
        seed: of the whole run; job number k has derive_seed(seed, k).
        start: "random", or all spins "down".
        steps: what was run.
        sweeps: number of sweeps at each point of the magnetisation.
        magnetisation: mean spin, one value for each of them.
        reports: joules of each job.
        last: the newest state, (n_sites,).
    """

    device: gl.Device
    model: gl.IsingModel
    seed: int
    start: Literal["random", "down"] = "random"
    steps: list[Step] = field(default_factory=list)
    sweeps: list[int] = field(default_factory=list)
    magnetisation: list[float] = field(default_factory=list)
    reports: list[EnergyReport] = field(default_factory=list)
    last: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        if self.start == "down":
            self.last = np.full(self.model.n_sites, -1, dtype=np.int32)

    def request(self, temperature: float, field_value: float, n_sweeps: int) -> gl.JobRequest:
        """The next job: n_sweeps at temperature T = 1 / beta, up to 20 states kept.

        Raises:
            InvalidModelError: a temperature that is not above 0, no sweeps, or too many for a page that answers.
        """
        if not temperature > 0:
            raise InvalidModelError(f"the temperature must be above 0, not {temperature}")
        if n_sweeps < 1 or n_sweeps * self.model.n_sites > MAX_UPDATES:
            most = max(1, int(MAX_UPDATES // self.model.n_sites))
            raise InvalidModelError(f"{n_sweeps} sweeps at once; choose 1 to {most} for {self.model.n_sites} spins")
        kept = next(n for n in range(min(FRAMES, n_sweeps), 0, -1) if n_sweeps % n == 0)
        return gl.JobRequest(
            self.model,
            gl.SamplingSchedule(n_samples=kept, sweeps_per_sample=n_sweeps // kept, beta=1.0 / temperature),
            fields=None if field_value == 0.0 else self.model.fields + field_value,
            initial=self.last,
            seed=derive_seed(self.seed, len(self.steps)),
        )

    def advance(self, temperature: float, field_value: float, n_sweeps: int) -> gl.SampleSet:
        """Run the next job and remember it; raises as `request` and `Device.submit` do."""
        request = self.request(temperature, field_value, n_sweeps)
        job = self.device.submit_request(request)
        try:
            result = job.result(PATIENCE_S)
        except BaseException:
            if not job.done():  # time is up, or the page was left: the device shall not go on for nobody
                job.ask_to_cancel()
            raise
        assert result.packed is not None
        assert request.seed is not None
        digest = hashlib.sha256(result.packed.tobytes()).hexdigest()
        self.steps.append(Step(request.seed, request.schedule.model_dump(mode="json"), field_value, digest))
        before, each = (self.sweeps[-1] if self.sweeps else 0), request.schedule.sweeps_per_sample
        self.sweeps += [before + each * (k + 1) for k in range(result.n_samples)]
        self.magnetisation += result.spins[0].mean(axis=1).tolist()
        self.reports.append(result.energy_report)
        self.last = result.last[0].astype(np.int32)
        return result

    def export(self) -> bytes:
        """A zip: the model, run.json, the newest job as a request, and a script that draws the same states again."""
        header = {
            "format": "glauber.ising-playground",
            "version": 1,
            "address": self.device.address,
            "glauber": gl.__version__,
            "start": self.start,
            "jobs": [
                {"seed": step.seed, "schedule": step.schedule, "field": step.field, "sha256": step.digest}
                for step in self.steps
            ],
        }
        content = io.BytesIO()
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            path = Path(folder) / "model.npz"
            gl.write_model(self.model, path)
            archive.write(path, "model.npz")
            archive.writestr("run.json", json.dumps(header, indent=1))
            archive.write(REPLAY, "replay.py")
        return content.getvalue()


def hysteresis(
    run: Run, temperature: float, largest: float, points: int, n_sweeps: int
) -> Iterator[tuple[float, float]]:
    """Sweep the field from -largest up to largest and back; yields (field, mean spin at the end of each step).

    Each step starts from the state that the last one left, so a magnet below its critical temperature lags behind.

    Raises:
        InvalidModelError: fewer than 2 points each way, or a field that is not above 0; and as `Run.advance`.
    """
    if points < 2 or not largest > 0:
        raise InvalidModelError("a loop needs 2 or more points each way and a largest field above 0")
    up = np.linspace(-largest, largest, points)
    for value in [*up.tolist(), *up[::-1].tolist()]:
        run.advance(temperature, value, n_sweeps)
        yield value, run.magnetisation[-1]


def loop_area(loop: list[tuple[float, float]]) -> float:
    """The area inside a hysteresis loop, the integral of m dH around it: energy lost per spin and cycle."""
    fields, means = np.array(loop).T
    return float(-np.sum((means[1:] + means[:-1]) / 2 * np.diff(fields)))


def joules_in_words(reports: list[EnergyReport]) -> str:
    """What a run cost, on whose word, and how sure that is."""
    if not reports:
        return "Nothing has run yet."
    known = [report for report in reports if report.joules is not None]
    last = reports[-1]
    if not known:
        return f"No joules: no energy figures are published for this device. Landauer's bound: {_landauer(reports)}."
    joules = sum(report.joules or 0.0 for report in known)
    # figures and meters are the same in all jobs, so their errors are too: they add up and do not cancel
    uncertainty = sum(report.standard_uncertainty or 0.0 for report in known)
    if last.basis == "measured":
        basis = f"measured by {last.meter}; includes: {last.boundary}"
    else:
        basis = f"modelled, not measured; {FIGURES[last.weakest_provenance or 'assumed']}"
    missing = f" Left out, since nobody published it: {', '.join(last.missing)}." if last.missing else ""
    unsure = ""
    if last.without_uncertainty:
        unsure = f" No uncertainty is published for: {', '.join(last.without_uncertainty)}."
    return (
        f"{joules:.3g} J, standard uncertainty {uncertainty:.2g} J, for {len(reports)} jobs ({basis}).{missing}{unsure}"
        f" Landauer's bound for as many updates at room temperature: {_landauer(reports)}."
    )


def _landauer(reports: list[EnergyReport]) -> str:
    return f"{sum(report.landauer_joules for report in reports):.2g} J"
