"""What every meter here can: measure its own idle baseline, and be closed at the end of a `with` block."""

from __future__ import annotations

import hashlib
import platform
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from glauber.meter import IdlePower, MeterSpec, Recording, idle_power

MACHINE_ID = Path("/etc/machine-id")


def this_host() -> str:
    """This computer, as MeterSpec.identity names it: its host name, with a hash of its machine-id where it has one.

    A hash, since the machine-id itself is not to be shown to others (machine-id(5)), and reports travel.
    """
    try:
        number = MACHINE_ID.read_bytes().strip()
    except OSError:
        number = b""
    name = platform.node()
    return f"{name} {hashlib.sha256(b'glauber' + number).hexdigest()[:16]}" if number else name


class Instrument(ABC):
    """An EnergyMeter and a context manager; see glauber.meter."""

    def __init__(self) -> None:
        self._idle: IdlePower | None = None

    @property
    @abstractmethod
    def spec(self) -> MeterSpec:
        """See EnergyMeter.spec."""

    @property
    def idle(self) -> IdlePower | None:
        """See EnergyMeter.idle: what `measure_idle` found last."""
        return self._idle

    @abstractmethod
    def start(self) -> Recording:
        """See EnergyMeter.start."""

    @abstractmethod
    def close(self) -> None:
        """See EnergyMeter.close."""

    def measure_idle(self, seconds: float = 5.0) -> IdlePower:
        """Measure the baseline that later windows subtract; blocks for so long. What is metered must have no job.

        A chip that has just worked is warm and draws more than a cold one: measure in the state in which jobs start.

        Raises:
            MeteringError: too short for this meter.
            DeviceIOError: the instrument failed meanwhile.
        """
        window = self.start()
        try:
            time.sleep(seconds)
        finally:
            trace = window.stop()
        self._idle = idle_power(self.spec, trace)
        return self._idle

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
