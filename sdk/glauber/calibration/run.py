"""All protocols of a calibration, one after another, into one record."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from glauber.calibration.bench import Bench, Submits
from glauber.calibration.couplings import calibrate_couplings, crosstalk_matrix, rescaled
from glauber.calibration.drift import compare_pbits
from glauber.calibration.history import plain_address
from glauber.calibration.memory import calibrate_memory
from glauber.calibration.record import CalibrationRecord
from glauber.calibration.sigmoid import Curves, calibrate_pbits, measure
from glauber.calibration.temperature import calibrate_temperature
from glauber.errors import BudgetExceededError, CalibrationError, InvalidModelError

Protocol = Literal["memory", "pbits", "couplings", "temperature", "drift"]
PROTOCOLS: tuple[Protocol, ...] = ("memory", "pbits", "couplings", "temperature", "drift")
"""In the order in which they are done: each uses what those before it found."""
SHOTS = 20_000
FORGOTTEN = 7
"""Correlation times after which a thousandth of the memory is left."""
MAX_SITES = 4096

Report = Callable[[float, str], None]


def run_protocols(
    device: Submits,
    protocols: Collection[Protocol] | None = None,
    *,
    shots: int = SHOTS,
    beta: float | None = None,
    seconds: float | None = None,
    n_sites: int | None = None,
    temperature_c: float | None = None,
    valid_hours: float | None = None,
    report: Report | None = None,
) -> CalibrationRecord:
    """Measure a device; see Device.calibrate, which is this."""
    chosen = PROTOCOLS if protocols is None else tuple(protocols)
    unknown = [name for name in chosen if name not in PROTOCOLS]
    if unknown or not chosen:
        raise InvalidModelError(f"protocols={unknown or list(chosen)}: there are {', '.join(PROTOCOLS)}")
    if shots < 100:
        raise InvalidModelError(f"shots must be 100 or more, not {shots!r}: intervals rest on large numbers")
    spec = device.spec
    n = spec.n_sites if n_sites is None else n_sites
    if n is None:
        raise CalibrationError(f"{spec.name} does not say how many p-bits it has; give n_sites=")
    if spec.n_sites is not None and n > spec.n_sites:
        raise CalibrationError(f"n_sites={n}, and {spec.name} has {spec.n_sites} p-bits")
    if n > MAX_SITES and n_sites is None:
        raise CalibrationError(
            f"{spec.name} has {n} p-bits; say how many to look at, n_sites={MAX_SITES} for the first"
        )
    if not spec.capabilities.sampler:
        raise CalibrationError(f"{spec.name} is an optimiser and states no temperature: there is no law to calibrate")
    highest = spec.capabilities.beta_range[1] if spec.capabilities.beta_range else 1.0
    at = min(1.0, highest) if beta is None else beta

    order = [name for name in PROTOCOLS if name in chosen]
    place = 0

    def tell(done: float, what: str) -> None:
        if report is not None:
            report((place + done) / len(order), what)

    bench = Bench(device=device, n_sites=n, beta=at, shots=shots, seconds=seconds, report=tell)
    began = time.monotonic()
    found: dict[str, Any] = {}
    notes: list[str] = []
    first_at = began
    curves: Curves | None = None
    crosstalk = None
    for place, name in enumerate(order):  # noqa: B007  # tell() reads it
        tell(0.0, name)
        try:
            if name == "memory":
                found["memory"] = calibrate_memory(bench)
                if found["memory"].sweeps:
                    bench.thin = 1 + int(FORGOTTEN * found["memory"].sweeps)
            elif name == "pbits":
                first_at = time.monotonic()
                curves = measure(bench)
                found["pbits"] = calibrate_pbits(curves, shots)
            elif name == "couplings":
                try:
                    found["couplings"] = calibrate_couplings(bench, found.get("pbits"))
                except CalibrationError as error:
                    if protocols is not None:
                        raise
                    notes.append(f"no couplings were measured: {error}")
                else:
                    crosstalk = crosstalk_matrix(found["couplings"], n, at)
                    if curves is not None and crosstalk is not None:  # it was in the p-bits' arguments
                        old = found["pbits"]
                        curves = curves.with_crosstalk(old, crosstalk)
                        found["pbits"] = calibrate_pbits(curves, shots)
                        found["couplings"] = rescaled(found["couplings"], old, found["pbits"])
            elif name == "temperature":
                found["temperatures"] = calibrate_temperature(bench, found.get("pbits"))
            elif "pbits" in found:
                second = measure(bench)
                if crosstalk is not None:
                    second = second.with_crosstalk(found["pbits"], crosstalk)
                again = calibrate_pbits(second, shots)
                notes += compare_pbits(found["pbits"], again, time.monotonic() - first_at)
            elif protocols is not None:
                raise CalibrationError('"drift" measures the p-bits again; ask for "pbits" as well')
        except (BudgetExceededError, CalibrationError) as error:
            if not found:
                raise
            notes.append(f"stopped before {name} was done: {error}")
            break
    seconds_taken = time.monotonic() - began
    now = datetime.now(UTC)
    provenance = bench.provenance
    body = "" if provenance is None else provenance.kernel.get("body", "")
    return CalibrationRecord(
        device=spec.name,
        address=plain_address(device.address),
        spec_hash=spec.spec_hash,
        created=now.isoformat(timespec="seconds"),
        seconds=seconds_taken,
        n_sites=n,
        beta=at,
        temperature_c=temperature_c,
        firmware=body if "firmware" in body else None,
        software={} if provenance is None else provenance.versions,
        expires=None if valid_hours is None else (now + timedelta(hours=valid_hours)).isoformat(timespec="seconds"),
        notes=tuple(notes),
        **found,
    )
