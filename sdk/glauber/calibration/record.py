"""What a calibration found out about a device: numbers with standard uncertainties, frozen, in one file.

A p-bit's law is that of `glauber.nonidealities`: P(+1) = (1 + tanh(gain a + offset)) / 2 with a = beta (h + sum J s).
The field that a coupling adds is (factor J + crosstalk) s, crosstalk being what is there with nothing programmed.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from glauber.errors import CalibrationError, FileFormatError
from glauber.formats import write_bytes
from glauber.spec import AnySpec

Verdict = Literal["good", "dead", "stuck up", "stuck down", "not measured"]
Estimator = Literal["pseudolikelihood", "mean energy", "log ratios"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Measured(_Frozen):
    """Numbers, one for each of something, with their standard uncertainties."""

    values: tuple[float, ...]
    uncertainties: tuple[float, ...]

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len(self.values) != len(self.uncertainties):
            raise ValueError(f"{len(self.values)} values and {len(self.uncertainties)} uncertainties")
        return self

    @classmethod
    def of(cls, values: NDArray[np.floating], uncertainties: NDArray[np.floating]) -> Self:
        """From arrays."""
        return cls(values=tuple(values.tolist()), uncertainties=tuple(uncertainties.tolist()))

    @property
    def array(self) -> NDArray[np.float64]:
        """The values."""
        return np.array(self.values)

    @property
    def u(self) -> NDArray[np.float64]:
        """The standard uncertainties."""
        return np.array(self.uncertainties)


class Counts(_Frozen):
    """What was counted of p-bits, each table by setting and then by site."""

    arguments: tuple[tuple[float, ...], ...]
    """At which the p-bits were, with what neighbours added on average."""
    ups: tuple[tuple[int, ...], ...]
    """How often they were read +1."""
    shots: tuple[int, ...]
    """Of each setting."""

    @model_validator(mode="after")
    def _same_shape(self) -> Self:
        shapes = {tuple(len(row) for row in table) for table in (self.arguments, self.ups)}
        if len(shapes) != 1 or len(self.shots) != len(self.ups) or len(set(shapes.pop())) > 1:
            raise ValueError("arguments, ups and shots are not of the same settings and p-bits")
        return self


class PbitCalibration(_Frozen):
    """Of every p-bit by its site; those that are not good have the numbers of an ideal one."""

    verdicts: tuple[Verdict, ...]
    gain: Measured
    offset: Measured
    """In the argument of tanh."""
    up_as_down: Measured
    """Probability that +1 is read as -1."""
    down_as_up: Measured
    p_value: float
    """Of the fit's chi-square over all p-bits."""
    dispersion: float
    """Chi-square over its degrees of freedom; uncertainties are widened by its root where it exceeds what chance
    gives.
    """
    levels: tuple[float, ...]
    """Arguments at which the p-bits were measured, both signs of each."""
    shots: int
    """At each of them."""
    counts: Counts | None = None
    """What the fit was made of."""

    @property
    def good(self) -> NDArray[np.bool_]:
        """Which p-bits work."""
        return np.array([verdict == "good" for verdict in self.verdicts])


class CouplingCalibration(_Frozen):
    """Of directed couplings: from the second site's spin to the first one's field."""

    pairs: tuple[tuple[int, int], ...]
    factor: Measured
    """Of the programmed value."""
    crosstalk: Measured
    """In the model's units, what is there with nothing programmed."""
    bend: Measured
    """Non-linearity: what the half value gives above half of the whole one's, in the model's units."""
    p_value: float
    """Of the fits' chi-square over all sites."""
    level: float
    """The programmed value."""
    shots: int


class MemoryCalibration(_Frozen):
    """How far the noise of the p-bits remembers."""

    sweeps: float
    """Correlation time of the decisions' noise; 0 where none was seen."""
    uncertainty: float
    lags: tuple[int, ...]
    correlation: Measured
    """Of a p-bit's values that many sweeps apart, mean over p-bits."""
    shots: int


class BetaEstimates(_Frozen):
    """The inverse temperature of one region of the device, by three estimators."""

    sites: tuple[int, ...]
    beta_asked: float
    estimates: dict[Estimator, tuple[float, float]]
    """Value and standard uncertainty."""
    low: float
    """Of the interval of the first estimator, at 95 %."""
    high: float


class CalibrationRecord(_Frozen):
    """One calibration of one device."""

    format: Literal["glauber.calibration"] = "glauber.calibration"
    version: Literal[1] = 1
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]*$")] = ""
    """From the time and the content; made when it is left empty."""
    device: str
    """Name in the description."""
    address: str
    """Without the seed."""
    spec_hash: str
    created: str
    """ISO 8601, UTC, of its end."""
    seconds: float
    """How long it took."""
    n_sites: int
    beta: float
    """The schedules' inverse temperature."""
    temperature_c: float | None = None
    """As the operator or the device said."""
    firmware: str | None = None
    """As the device said."""
    software: dict[str, str] = Field(default_factory=dict)
    pbits: PbitCalibration | None = None
    couplings: CouplingCalibration | None = None
    memory: MemoryCalibration | None = None
    temperatures: tuple[BetaEstimates, ...] = ()
    expires: str | None = None
    """ISO 8601: after this it should not be trusted."""
    notes: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _name(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("id"):
            text = json.dumps(data, sort_keys=True, default=lambda part: part.model_dump(mode="json"))
            digest = hashlib.blake2b(text.encode(), digest_size=3).hexdigest()
            stamp = "".join(c for c in str(data.get("created", ""))[:19] if c.isdigit())
            data = {**data, "id": f"{stamp[:8]}-{stamp[8:]}-{digest}"}
        return data

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for text in (self.created, self.expires):
            if text is not None and datetime.fromisoformat(text).tzinfo is None:
                raise ValueError(f"{text} has no time zone")
        if self.pbits is not None:
            parts = (self.pbits.gain, self.pbits.offset, self.pbits.up_as_down, self.pbits.down_as_up)
            lengths = {len(self.pbits.verdicts), *(len(part.values) for part in parts)}
            if lengths != {self.n_sites}:
                raise ValueError(f"{self.n_sites} p-bits, and numbers of {sorted(lengths)}")
        couplings = self.couplings
        if couplings is not None:
            counts = {len(each.values) for each in (couplings.factor, couplings.crosstalk, couplings.bend)}
            if counts != {len(couplings.pairs)}:
                raise ValueError(f"{len(couplings.pairs)} couplings, and numbers of {sorted(counts)}")
        return self

    @property
    def bad_sites(self) -> tuple[int, ...]:
        """p-bits that do not work."""
        if self.pbits is None:
            return ()
        broken = ("dead", "stuck up", "stuck down")
        return tuple(site for site, verdict in enumerate(self.pbits.verdicts) if verdict in broken)

    def device_scale(self, spec: AnySpec) -> float:
        """What a coefficient in the model's units was multiplied by on the device, in this calibration's jobs.

        Crosstalk is the device's own, so on a device that takes beta by scaling it stands for another value in the
        units of a model at another beta.
        """
        return self.beta if spec.capabilities.beta == "folded" else 1.0

    @property
    def faults(self) -> dict[int, str]:
        """Why p-bits do not work, by site."""
        if self.pbits is None:
            return {}
        return {site: f"{self.pbits.verdicts[site]}, by calibration {self.id}" for site in self.bad_sites}

    def expired(self, now: datetime) -> bool:
        """Whether its time has passed; `now` with a time zone."""
        return self.expires is not None and now >= datetime.fromisoformat(self.expires)

    def save(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all."""
        write_bytes(path, (self.model_dump_json(indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            FileFormatError: it holds no record; says what is wrong.
        """
        try:
            return cls.model_validate_json(Path(path).read_text(encoding="utf-8"))
        except (ValidationError, UnicodeDecodeError) as error:
            problem = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
            place = ".".join(str(part) for part in problem["loc"])
            raise FileFormatError(f"{path} holds no calibration record: {place} {problem['msg']}") from error

    def check_device(self, spec: AnySpec) -> None:
        """Refuse to be used on another kind of device.

        Where a part of the p-bits was looked at, the others count as ideal.

        Raises:
            CalibrationError: it is of another device.
        """
        same = spec.name == self.device
        if spec.n_sites is not None and spec.n_sites != self.n_sites:
            same = same and self.n_sites < spec.n_sites and spec.spec_hash == self.spec_hash
        if not same:
            raise CalibrationError(
                f"calibration {self.id} is of {self.device} with {self.n_sites} p-bits, and this is {spec.name} with"
                f" {spec.n_sites}; calibrate this one: device.calibrate()"
            )

    def __str__(self) -> str:
        lines = [f"calibration {self.id} of {self.device}, {self.created}, {self.seconds:.1f} s"]
        if self.pbits is not None:
            good = self.pbits.good
            gain, offset = self.pbits.gain, self.pbits.offset
            if good.any():
                lines.append(
                    f"p-bits: {good.sum()} of {len(good)} good; gain {gain.array[good].mean():.3f}, spread"
                    f" {gain.array[good].std():.3f} (u {np.median(gain.u[good]):.4f}); offset spread"
                    f" {offset.array[good].std():.3f} (u {np.median(offset.u[good]):.4f}); read wrong:"
                    f" {self.pbits.up_as_down.array[good].mean():.2%} of +1,"
                    f" {self.pbits.down_as_up.array[good].mean():.2%}"
                    " of -1"
                )
            lines += [f"site {site}: {self.pbits.verdicts[site]}" for site in self.bad_sites]
            if self.pbits.dispersion > 1 and self.pbits.p_value < 1e-3:
                lines.append(f"the p-bits' fit is poor (chi-square / dof {self.pbits.dispersion:.2f}); u is widened")
        if self.couplings is not None and self.couplings.pairs:
            factor, crosstalk = self.couplings.factor, self.couplings.crosstalk
            lines.append(
                f"couplings: {len(self.couplings.pairs)} directed; factor {factor.array.mean():.3f}, spread"
                f" {factor.array.std():.3f} (u {np.median(factor.u):.4f}); crosstalk {crosstalk.array.mean():.4f},"
                " spread"
                f" {crosstalk.array.std():.4f} (u {np.median(crosstalk.u):.4f})"
            )
        if self.memory is not None:
            lines.append(f"memory of the noise: {self.memory.sweeps:.2f} +- {self.memory.uncertainty:.2f} sweeps")
        lines += [
            f"beta of {len(region.sites)} sites at {region.sites[0]}: "
            + ", ".join(f"{name} {value:.4f} +- {u:.4f}" for name, (value, u) in region.estimates.items())
            + f" (asked {region.beta_asked:g})"
            for region in self.temperatures
        ]
        return "\n".join(lines + [f"! {note}" for note in self.notes])
