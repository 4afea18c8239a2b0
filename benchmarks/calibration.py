"""How far calibrations can be believed: `python -m benchmarks.calibration [--output benchmarks/results]`.

Chips are fabricated with flaws that nobody tells the calibration: gains with a spread of 10 %, offsets, 2 % wrong
readings and a dead p-bit; further ones have couplings with errors and crosstalk as well. Counted is how often the true
number lies within one and two of the reported standard uncertainties, against 68.27 % and 95.45 % and the binomial
99.9 % band around them. Then twins: that of the chip must pass its held-out test, that of the next chip must fail it.
At last the total variation from the exact law of five random models of each chip, with and without the correction.

Couplings of one p-bit share the uncertainty of its gain, so of their intervals only one of each p-bit is counted: those
are independent of each other. `all` beside it has every coupling.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import glauber as gl
import numpy as np
from glauber.calibration import CalibrationRecord, Protocol, TwinSpec, check_twin
from glauber.calibration.record import Measured
from glauber.nonidealities import Nonidealities
from glauber_simulator.flaws import Flaws, fabricate
from numpy.typing import NDArray
from rich.progress import track
from scipy.stats import binom

from benchmarks.machine import provenance, write
from examples.calibrate_a_chip.models import compare, patches

NOMINAL = {1: 0.682689492, 2: 0.954499736}
ALPHA = 1e-3
PLAIN = {"gain_spread": 0.1, "offset_spread": 0.2, "readout_error": 0.02, "n_dead": 1}
COUPLED = {**PLAIN, "coupling_error": 0.01, "crosstalk": 0.015}
SHOTS = 40_000
SAMPLES = 500_000
PROTOCOLS: tuple[Protocol, ...] = ("pbits", "couplings")

Floats = NDArray[np.float64]


def address(chip: int, flaws: dict[str, Any]) -> str:
    """Of a simulated chip."""
    return f"sim://pbit-king-64?chip={chip}&" + "&".join(f"{name}={value}" for name, value in flaws.items())


def truth(device: gl.Device, chip: int, flaws: dict[str, Any]) -> Flaws:
    """What the chip was fabricated with."""
    return fabricate(device.spec, Nonidealities(chip=chip, **flaws))


@dataclass
class Tally:
    """Intervals that were looked at, and those that hold the true number, by 1 and 2 standard uncertainties."""

    looked: int = 0
    held: dict[int, int] = field(default_factory=lambda: {1: 0, 2: 0})

    def add(self, measured: Measured, true: Floats, which: NDArray[Any]) -> None:
        """Count those numbers of `which`, a mask or indices."""
        off = np.abs(measured.array - true)[which]
        self.looked += len(off)
        for k in self.held:
            self.held[k] += int((off <= k * measured.u[which]).sum())

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: shares, bands, and whether each share is in its band."""
        found: dict[str, Any] = {"intervals": self.looked}
        for k, share in NOMINAL.items():
            low, high = binom.interval(1 - ALPHA, self.looked, share)
            found[f"{k} sigma"] = {
                "share": self.held[k] / self.looked,
                "band": [float(low) / self.looked, float(high) / self.looked],
                "inside": bool(low <= self.held[k] <= high),
            }
        return found


@dataclass
class Coverage:
    """Of many chips."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    chips: int = 0
    dead: int = 0
    dead_found: int = 0
    good: int = 0
    good_called_bad: int = 0

    def add(self, record: CalibrationRecord, flaws: Flaws, rng: np.random.Generator) -> None:
        """Compare a record with what the chip was fabricated with."""
        assert record.pbits is not None
        dead = flaws.gain == 0
        bad = np.zeros(record.n_sites, dtype=bool)
        bad[list(record.bad_sites)] = True
        self.chips += 1
        self.dead, self.dead_found = self.dead + int(dead.sum()), self.dead_found + int((dead & bad).sum())
        self.good, self.good_called_bad = (
            self.good + int((~dead).sum()),
            self.good_called_bad + int((bad & ~dead).sum()),
        )
        both = ~dead & ~bad
        for name, true in (
            ("gain", flaws.gain),
            ("offset", flaws.offset),
            ("up_as_down", flaws.readout.up_as_down),
            ("down_as_up", flaws.readout.down_as_up),
        ):
            self._tally(name).add(getattr(record.pbits, name), true, both)
        if record.couplings is None:
            return
        first, second = np.array(record.couplings.pairs).T
        one_each = np.array([rng.choice(np.flatnonzero(first == site)) for site in np.unique(first)])
        crosstalk = np.zeros((record.n_sites, record.n_sites))
        crosstalk[flaws.pairs[:, 0], flaws.pairs[:, 1]] = flaws.crosstalk[:, 0]
        crosstalk[flaws.pairs[:, 1], flaws.pairs[:, 0]] = flaws.crosstalk[:, 1]
        every = np.arange(len(first))
        for name, true in (
            ("factor", np.ones(len(first))),
            ("crosstalk", crosstalk[first, second]),
            ("bend", np.zeros(len(first))),
        ):
            self._tally(name).add(getattr(record.couplings, name), true, one_each)
            self._tally(f"{name}, all").add(getattr(record.couplings, name), true, every)

    def _tally(self, name: str) -> Tally:
        return self.tallies.setdefault(name, Tally())

    @property
    def outside(self) -> list[str]:
        """What is not in its band, and p-bits that were taken for what they are not."""
        found = []
        for name, tally in self.tallies.items():
            if not name.endswith(", all"):
                shares = tally.as_dict()
                found += [
                    f"{name}, {k} sigma: {shares[f'{k} sigma']}" for k in NOMINAL if not shares[f"{k} sigma"]["inside"]
                ]
        found += [f"{self.dead - self.dead_found} dead p-bits not found"] if self.dead_found < self.dead else []
        return found + ([f"{self.good_called_bad} good p-bits called bad"] if self.good_called_bad else [])

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        counts = ("chips", "dead", "dead_found", "good", "good_called_bad")
        shares = {name: tally.as_dict() for name, tally in self.tallies.items()}
        return {**{name: getattr(self, name) for name in counts}, "coverage": shares, "outside": self.outside}


def calibrated(
    chips: range, flaws: dict[str, Any], shots: int, protocols: tuple[Protocol, ...] = PROTOCOLS
) -> Iterator[tuple[int, gl.Device, CalibrationRecord]]:
    """Each chip, open, with its calibration."""
    for chip in track(chips, description="chips"):
        with gl.open_device(address(chip, flaws), seed=chip) as device:
            yield chip, device, device.calibrate(protocols, shots=shots)


def coverage(
    chips: range, flaws: dict[str, Any], shots: int = SHOTS, protocols: tuple[Protocol, ...] = PROTOCOLS
) -> Coverage:
    """Calibrate chips and compare with what they were fabricated with."""
    found, rng = Coverage(), np.random.default_rng(chips.start)
    for chip, device, record in calibrated(chips, flaws, shots, protocols):
        found.add(record, truth(device, chip, flaws), rng)
    return found


def improvement(chip: int, device: gl.Device, record: CalibrationRecord, samples: int = SAMPLES) -> dict[str, Any]:
    """Total variation on five models of a chip."""
    topology = device.spec.topology
    assert topology is not None
    compared = compare(device, record, patches(record, topology, seed=chip), samples, seed=chip)
    return {"chip": chip, "raw": compared.raw, "corrected": compared.corrected, "floor": compared.floor}


def twins(chips: range, n_models: int = 20) -> list[dict[str, Any]]:
    """The twin of each chip held against it, and against the next one."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for chip in track(chips, description="twins"):
            file = Path(folder) / f"{chip}.json"
            with gl.open_device(address(chip, COUPLED), seed=chip) as device:
                record = device.calibrate(("memory", "pbits", "couplings"))
                TwinSpec.of(record, device.spec).save(file)
            assert record.pbits is not None
            verdicts = {}
            for which, number in (("right chip", chip), ("wrong chip", chip + 1)):
                with gl.open_device(address(number, COUPLED), seed=chip) as device:
                    at = f"sim://pbit-king-64?twin={file}"
                    check = check_twin(
                        device,
                        lambda draw, at=at: gl.open_device(at if draw is None else f"{at}&draw={draw}"),  # type: ignore[misc]
                        record.pbits.good,
                        seed=chip,
                        n_models=n_models,
                    )
                verdicts[which] = {
                    name: check.as_dict()[name] for name in ("chi_square", "degrees", "p_value", "passed")
                }
            found.append({"chip": chip, **verdicts})
    return found


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=int, default=64, help="with plain flaws; half as many with couplings' too")
    parser.add_argument("--twins", type=int, default=4)
    parser.add_argument("--first", type=int, default=1000, help="number of the first chip")
    parser.add_argument("--output", type=Path, help="folder for calibration.json; nothing is written without")
    given = parser.parse_args()
    began = time.monotonic()
    first = given.first + given.chips
    plain, improved, rng = Coverage(), [], np.random.default_rng(given.first)
    for chip, device, record in calibrated(range(given.first, first), PLAIN, SHOTS):
        plain.add(record, truth(device, chip, PLAIN), rng)
        improved.append(improvement(chip, device, record))
    coupled = coverage(range(first, first + given.chips // 2), COUPLED)
    checked = twins(range(first, first + given.twins))
    ratios = [a / b for one in improved for a, b in zip(one["raw"], one["corrected"], strict=True)]
    wrong = [*(f"plain: {text}" for text in plain.outside), *(f"coupled: {text}" for text in coupled.outside)]
    wrong += [f"model of a chip improved {min(ratios):.1f}-fold only"] if min(ratios) < 5 else []
    for one in checked:
        wrong += [f"twin {one['chip']} fails"] if not one["right chip"]["passed"] else []
        wrong += [f"twin {one['chip']} passes for another chip"] if one["wrong chip"]["passed"] else []
    result = {
        **provenance(("glauber", "numpy", "scipy")),
        "seconds": round(time.monotonic() - began),
        "shots": SHOTS,
        "flaws": {"plain": PLAIN, "coupled": COUPLED},
        "coverage": {"plain": plain.as_dict(), "coupled": coupled.as_dict()},
        "twins": checked,
        "total_variation": {
            "samples": SAMPLES,
            "models": len(ratios),
            "improvement": {"least": min(ratios), "median": float(np.median(ratios)), "most": max(ratios)},
            "chips": improved,
        },
        "wrong": wrong,
    }
    for kind, found in (("plain", plain), ("coupled", coupled)):
        for name, shares in found.as_dict()["coverage"].items():
            print(
                f"{kind:8} {name:16}", *(f"{shares[f'{k} sigma']['share']:.4f}" for k in NOMINAL), shares["intervals"]
            )
    print(f"total variation: {min(ratios):.1f} to {max(ratios):.1f} times smaller on {len(ratios)} models")
    for one in checked:
        print(f"twin {one['chip']}: p {one['right chip']['p_value']:.3g}, next chip {one['wrong chip']['p_value']:.3g}")
    if given.output is not None:
        write(given.output / "calibration.json", result)
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
