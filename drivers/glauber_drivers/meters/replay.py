"""A recording that is played again, so that its joules can be computed anew; see glauber.trace_file."""

from __future__ import annotations

from pathlib import Path

from glauber.driver import Address
from glauber.errors import DeviceNotFoundError
from glauber.meter import IdlePower, MeterSpec, Trace
from glauber.registry import only_parameters
from glauber.trace_file import load_trace


class _Played:
    """A window whose readings were taken before; see glauber.meter.Recording."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def stop(self) -> Trace:
        """See Recording.stop."""
        return self._trace


class ReplayMeter:
    """An EnergyMeter whose every window is the recorded one, whatever happens meanwhile; its name says so.

    Args:
        path: of a file that `glauber.trace_file.save_trace` wrote.

    Raises:
        DeviceNotFoundError: there is no such file.
        FileFormatError: it is no recording, or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            spec, self._trace, idle = load_trace(path)
        except OSError as error:
            raise DeviceNotFoundError(f"the recording {path} cannot be read: {error}") from error
        self.idle: IdlePower | None = idle
        fields = {name: getattr(spec, name) for name in MeterSpec.__slots__}
        self.spec = MeterSpec(**{**fields, "name": f"{spec.name}, played again from {Path(path).name}"})

    @classmethod
    def from_address(cls, address: Address) -> ReplayMeter:
        """replay:///path/to/recording.npz."""
        only_parameters(address, ())
        return cls(address.name)

    def start(self) -> _Played:
        """See EnergyMeter.start."""
        return _Played(self._trace)

    def close(self) -> None:
        """See EnergyMeter.close: nothing is held."""
