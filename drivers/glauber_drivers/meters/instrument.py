"""What every meter here can: measure its own idle baseline, and be closed at the end of a `with` block."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from glauber.meter import IdlePower, MeterSpec, Recording, idle_power


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
