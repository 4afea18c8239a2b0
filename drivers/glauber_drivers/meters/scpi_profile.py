"""What the profiles of bench instruments share: what each must do, and accuracy tables as limits of errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from glauber.errors import DeviceNotFoundError, ProtocolError
from glauber.meter import ErrorLimit
from numpy.typing import NDArray

from glauber_drivers.scpi import INFINITY
from glauber_drivers.visa_link import VisaLink


@dataclass(frozen=True, slots=True)
class Wiring:
    """What a profile found and set when the instrument was opened.

    Attributes:
        name: with the rails that are summed, and those that are not.
        limits: of errors, by rail.
        resolution: W, of all rails together.
        integrates: each reading is the mean since the one before.
        first_share: the first reading is so many periods late, somewhere from 0 to this; its time is 0.
        clock_step: resolution of its times, s.
        capacity: readings that the buffer holds; 0: it is emptied all along.
    """

    name: str
    limits: tuple[ErrorLimit, ...]
    resolution: float
    integrates: bool
    first_share: float
    clock_step: float
    capacity: int


@dataclass(frozen=True, slots=True)
class Readings:
    """A buffer's contents.

    Attributes:
        times: seconds since the trigger, or since the first reading where `Wiring.first_share` is above 0; (n,).
        volts: float64 (rails, n).
        amps: float64 (rails, n).
    """

    times: NDArray[np.float64]
    volts: NDArray[np.float64]
    amps: NDArray[np.float64]


class Profile(Protocol):
    """The dialogue of one model; state of one window at a time."""

    identity: str
    """Regular expression that the answer to *IDN? matches."""
    model: str
    """For people."""
    drain_seconds: float | None
    """How often `drain` must be called; None: never."""
    PARAMETERS: ClassVar[Mapping[str, Callable[[str], Any]]]
    """Names of the class's arguments, as an address gives them, and what reads their text."""

    def configure(self, link: VisaLink) -> Wiring:
        """Check that it feeds something, and set what it measures. DeviceNotFoundError says what is missing."""
        ...

    def trigger(self, link: VisaLink) -> tuple[float, float]:
        """Begin an acquisition; the earliest and the latest time of the host's monotonic clock when it began."""
        ...

    def drain(self, link: VisaLink) -> None:
        """Move to the host what has been acquired."""
        ...

    def finish(self, link: VisaLink) -> Readings:
        """End the acquisition and give all of it."""
        ...


def numbers(words: NDArray[np.float64], model: str) -> NDArray[np.float64]:
    """Readings as they came.

    Raises:
        ProtocolError: one of them is SCPI's NaN or an overflow.
    """
    bad = np.flatnonzero(~(np.abs(words) < min(INFINITY, 9.9e37)))
    if len(bad):
        raise ProtocolError(
            f"{model} holds {len(bad)} readings that are no numbers, the first is value {bad[0]} of {len(words)}"
            f" ({words[bad[0]]:g}): NaN, or a current beyond its range or its limit. Choose a larger range (amps=)"
        )
    return words


def accuracy(table: Mapping[float, tuple[float, float]], value: float, what: str) -> tuple[float, float]:
    """Relative limit and offset of the smallest range that holds a value.

    Raises:
        DeviceNotFoundError: no range does.
    """
    for limit in sorted(table):
        if abs(value) <= limit * 1.06:  # ranges reach 5 % beyond their names
            return table[limit]
    raise DeviceNotFoundError(f"{what} is beyond the largest range, {max(table):g}")


def rail_limits(
    volts: float,
    current: tuple[float, float],
    voltage: tuple[float, float],
    source: str,
    rail: int = 0,
    suffix: str = "",
) -> tuple[ErrorLimit, ...]:
    """The limits of one rail from (relative, offset) of its current and of its voltage."""
    return (
        ErrorLimit(f"gain{suffix}", f"current, {source}", relative=current[0], rail=rail),
        ErrorLimit(
            f"offset{suffix}", f"{current[1]:.3g} A at {volts:.4g} V, {source}", watts=current[1] * volts, rail=rail
        ),
        ErrorLimit(
            f"voltage{suffix}",
            f"{100 * voltage[0]:.3g} % + {voltage[1]:.3g} V of {volts:.4g} V, {source}",
            relative=voltage[0] + voltage[1] / volts,
            rail=rail,
        ),
    )
