"""From an address to its driver: entry points of the group `glauber.drivers`, the key is the address's scheme.

Meters are found in the same way, in the group `glauber.meters`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from glauber.driver import (
    Address,
    Driver,
    DriverFactory,
    JobService,
    RemoteJobFactory,
    RemoteJobs,
    ScanningFactory,
    WiredFactory,
    Wrap,
)
from glauber.errors import DeviceNotFoundError
from glauber.meter import EnergyMeter, RestingMeter
from glauber.spec import AnySpec

GROUP = "glauber.drivers"
METERS = "glauber.meters"
IDLE_SECONDS = 3600.0
"""The longest idle power that an address may ask for: nobody waits longer, and a typing error might."""


@lru_cache(maxsize=2)
def _factories(group: str = GROUP) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=group)}


def parse_address(text: str) -> Address:
    """Read scheme://name?parameter=value.

    Raises:
        DeviceNotFoundError: not an address; the message shows one.
    """
    if not isinstance(text, str) or "://" not in text:
        raise DeviceNotFoundError(f"{text!r} is not a device address; one looks like sim://ideal or sim://pbit-king-64")
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise DeviceNotFoundError(f"{text!r} is not a device address: {error}") from error
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        raise DeviceNotFoundError(f"{text} gives a parameter twice")
    if parts.fragment:
        raise DeviceNotFoundError(f"{text} has a part after '#', which means nothing in a device address")
    return Address(parts.scheme, unquote(parts.netloc + parts.path), parameters, text)


def factory(scheme: str) -> DriverFactory:
    """The driver factory of a scheme.

    Raises:
        DeviceNotFoundError: no driver for it is installed, or a package that the driver needs is missing.
    """
    known = _factories()
    if scheme not in known:
        close = difflib.get_close_matches(scheme, known, n=1)
        hint = (
            f"did you mean {close[0]}://?" if close else f"installed are {', '.join(f'{s}://' for s in sorted(known))}"
        )
        raise DeviceNotFoundError(f"no driver for {scheme}:// is installed; {hint}")
    try:
        found: DriverFactory = known[scheme].load()()
    except ImportError as error:
        raise DeviceNotFoundError(f"the driver for {scheme}:// cannot be loaded: {error}") from error
    return found


def open_driver(address: Address, *, wrap: Wrap | None = None) -> Driver | JobService:
    """Open the driver of an address; see DriverFactory.open, and WiredFactory for `wrap`."""
    found = factory(address.scheme)
    if wrap is None:
        return found.open(address)
    if not isinstance(found, WiredFactory):
        raise DeviceNotFoundError(f"{address.scheme}:// has no transport that could be recorded or disturbed")
    return found.open_wired(address, wrap)


class MeterClass(Protocol):
    """What an entry point of the group `glauber.meters` is; its key is the scheme of the meter's addresses."""

    def from_address(self, address: Address) -> EnergyMeter:
        """Open it; DeviceNotFoundError says what is missing or which names and parameters exist."""
        ...


def open_meter(text: str) -> EnergyMeter:
    """Open a meter by its address, such as `nvml://0` or `rapl://`; docs/meters.md lists them.

    `idle=SECONDS` is understood by every meter that reads something: for so long what it meters is watched at rest, and
    later windows have joules above that.

    Raises:
        DeviceNotFoundError: no such scheme, name or parameter; close ones are suggested.
        DeviceIOError: the instrument refuses or fails.
        MissingExtraError: a package is missing.
        MeteringError: the meter's readings stand still, or idle is too short for it.
    """
    try:
        address = parse_address(text)
    except DeviceNotFoundError as error:
        example = "nvml://0, rapl:// or visa://TCPIP0::HOST::5025::SOCKET?profile=keithley-2450"
        raise DeviceNotFoundError(f"{text!r} is not a meter's address; one looks like {example}") from error
    known, parameters = _factories(METERS), dict(address.parameters)
    if address.scheme not in known:
        close = difflib.get_close_matches(address.scheme, known, n=1)
        hint = f"did you mean {close[0]}://?" if close else f"there are {', '.join(f'{s}://' for s in sorted(known))}"
        raise DeviceNotFoundError(f"no meter for {address.scheme}:// is installed; {hint}")
    rest = parameters.pop("idle", None)
    try:
        seconds = None if rest is None else float(rest)
    except ValueError:
        seconds = math.nan
    if seconds is not None and not 0 < seconds <= IDLE_SECONDS:
        raise DeviceNotFoundError(
            f"{text}: idle={rest} is no time from 0 to {IDLE_SECONDS:g} s; give seconds, such as idle=5"
        )
    try:
        found: MeterClass = known[address.scheme].load()
    except ImportError as error:
        raise DeviceNotFoundError(
            f"the meter for {address.scheme}:// cannot be loaded: {error}; install what it needs, such as"
            " pip install 'glauber[meters]'"
        ) from error
    meter = found.from_address(replace(address, parameters=parameters))
    if seconds is None:
        return meter
    try:
        if not isinstance(meter, RestingMeter):
            raise DeviceNotFoundError(f"{text}: {meter.spec.name} measures no idle power; leave idle out")
        meter.measure_idle(seconds)
    except BaseException:
        meter.close()
        raise
    return meter


def only_parameters(address: Address, known: Collection[str]) -> None:
    """Refuse parameters that a meter does not know.

    Raises:
        DeviceNotFoundError: with the one that may have been meant, and all that there are.
    """
    for name in address.parameters:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            meant = f"did you mean {close[0]}? " if close else ""
            raise DeviceNotFoundError(
                f"{address.text}: {address.scheme}:// has no parameter {name}; {meant}There are"
                f" {', '.join(sorted({*known, 'idle'}))}"
            )


def open_job(address: Address) -> tuple[RemoteJobs, str]:
    """The service that has a job, by the job's address; see RemoteJobFactory.open_job."""
    found = factory(address.scheme)
    if not isinstance(found, RemoteJobFactory):
        raise DeviceNotFoundError(f"{address.text} is no job's address: {address.scheme}:// keeps no jobs")
    return found.open_job(address)


def _loadable() -> Iterator[DriverFactory]:
    """The factories whose packages are there."""
    for scheme in sorted(_factories()):
        with suppress(DeviceNotFoundError):
            yield factory(scheme)


def scanned_devices() -> Iterator[tuple[str, AnySpec]]:
    """(address, spec) of every board that answers on a port of this computer."""
    for found in _loadable():
        if isinstance(found, ScanningFactory):
            yield from found.scan()


def available_devices() -> Iterator[tuple[str, AnySpec]]:
    """(address, spec) of everything that can be opened now, scheme by scheme."""
    for found in _loadable():
        yield from found.devices()
