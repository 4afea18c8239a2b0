"""Two calibrations of one device beside each other: what has changed, and whether that is more than chance."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from glauber.calibration.record import CalibrationRecord, PbitCalibration
from glauber.errors import CalibrationError

ALPHA = 1e-3


@dataclass(frozen=True, slots=True)
class Change:
    """How one quantity of all p-bits has changed.

    Attributes:
        name: "gain" or "offset".
        mean: of the change.
        rms: of the change.
        expected_rms: what the uncertainties alone would give.
        p_value: of the chi-square over all p-bits.
        worst_site: with the largest change in standard uncertainties.
        worst: that change.
        worst_z: in standard uncertainties.
    """

    name: str
    mean: float
    rms: float
    expected_rms: float
    p_value: float
    worst_site: int
    worst: float
    worst_z: float

    def __str__(self) -> str:
        verdict = "changed" if self.p_value < ALPHA else "no change beyond chance"
        return (
            f"{self.name}: {verdict} (p {self.p_value:.2g}); rms {self.rms:.4f}, by chance {self.expected_rms:.4f};"
            f" mean {self.mean:+.4f}; most at site {self.worst_site}: {self.worst:+.4f}, {abs(self.worst_z):.1f} u"
        )


@dataclass(frozen=True, slots=True)
class CalibrationDiff:
    """From one record to another.

    Attributes:
        older: id.
        newer: id.
        hours: between them.
        changes: of gains and offsets.
        broken: p-bits that worked and do not.
        mended: the other way.
    """

    older: str
    newer: str
    hours: float
    changes: tuple[Change, ...]
    broken: tuple[int, ...]
    mended: tuple[int, ...]

    @property
    def drifted(self) -> bool:
        """Whether anything has changed beyond chance (each quantity at 1e-3)."""
        return bool(self.broken or self.mended) or any(change.p_value < ALPHA for change in self.changes)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        changes = [{name: getattr(change, name) for name in change.__slots__} for change in self.changes]
        parts = {"older": self.older, "newer": self.newer, "hours": self.hours, "drifted": self.drifted}
        return {**parts, "changes": changes, "broken": list(self.broken), "mended": list(self.mended)}

    def __str__(self) -> str:
        lines = [f"from {self.older} to {self.newer}, {self.hours:.2f} h", *(str(change) for change in self.changes)]
        lines += [f"p-bits that broke: {', '.join(map(str, self.broken))}"] if self.broken else []
        lines += [f"p-bits that work again: {', '.join(map(str, self.mended))}"] if self.mended else []
        return "\n".join(lines)


def _change(name: str, old: PbitCalibration, new: PbitCalibration, both: NDArray[np.bool_]) -> Change:
    before, after = getattr(old, name), getattr(new, name)
    step = (after.array - before.array)[both]
    u = np.maximum(np.hypot(before.u, after.u)[both], 1e-12)
    z = step / u
    worst = int(np.abs(z).argmax())
    return Change(
        name=name,
        mean=float(step.mean()),
        rms=float(np.sqrt((step**2).mean())),
        expected_rms=float(np.sqrt((u**2).mean())),
        p_value=float(chi2.sf(float((z**2).sum()), len(z))),
        worst_site=int(np.flatnonzero(both)[worst]),
        worst=float(step[worst]),
        worst_z=float(z[worst]),
    )


def compare_records(older: CalibrationRecord, newer: CalibrationRecord) -> CalibrationDiff:
    """What has changed between two calibrations of one device.

    Raises:
        CalibrationError: they are of different devices, or one has no p-bits.
    """
    if (older.device, older.n_sites) != (newer.device, newer.n_sites):
        raise CalibrationError(
            f"{older.id} is of {older.device} ({older.n_sites} p-bits), {newer.id} of {newer.device} ({newer.n_sites})"
        )
    if older.pbits is None or newer.pbits is None:
        raise CalibrationError('both calibrations need the protocol "pbits" to be compared')
    hours = (datetime.fromisoformat(newer.created) - datetime.fromisoformat(older.created)).total_seconds() / 3600
    good, still = older.pbits.good, newer.pbits.good
    both = good & still
    changes: tuple[Change, ...] = ()
    if both.any():
        changes = (_change("gain", older.pbits, newer.pbits, both), _change("offset", older.pbits, newer.pbits, both))
    return CalibrationDiff(
        older=older.id,
        newer=newer.id,
        hours=hours,
        changes=changes,
        broken=tuple(np.flatnonzero(good & ~still).tolist()),
        mended=tuple(np.flatnonzero(~good & still).tolist()),
    )


def compare_pbits(first: PbitCalibration, again: PbitCalibration, seconds: float) -> list[str]:
    """What to note of p-bits that were measured twice in one calibration."""
    both = first.good & again.good
    if not both.any():
        return []
    changes = [_change(name, first, again, both) for name in ("gain", "offset")]
    return [f"within {seconds:.1f} s {change}" for change in changes if change.p_value < ALPHA]
