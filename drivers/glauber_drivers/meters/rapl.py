"""Joules of this computer's CPU packages: Intel's and AMD's RAPL counters, as Linux shows them under powercap.

- Zones `intel-rapl:N` named package-N or package-N-die-M are summed. Their parts (core, uncore, dram) are not counted
  again, nor is `psys`, which holds the packages, nor `intel-rapl-mmio`, which shows the same counters another way.
  Memory that is a zone of its own is not in the figure, and the meter's name says so.
- A counter begins again at `max_energy_range_uj`; it is read far more often than that. A step back that would be half
  that range or more is no such wrap: the counter was set back, as by a suspend or a reload of its driver.
- The counters move about every millisecond (Intel SDM volume 3B, 15.10); that is measured here. Intel and AMD state no
  accuracy: +-5 % is assumed, and who has compared it with a better meter says so.
- Since Linux 5.10 only root may read them, as they tell secrets of other programs (CVE-2020-8694).

It has run on trees of files that a test wrote (`glauber.testing.RaplTree`), not on a real CPU's counters.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path

from glauber.driver import Address
from glauber.errors import (
    DeviceClosedError,
    DeviceIOError,
    DeviceNotFoundError,
    InvalidModelError,
    MeteringError,
    ProtocolError,
)
from glauber.meter import MeterSpec
from glauber.registry import only_parameters

from glauber_drivers.meters.instrument import Instrument, this_host
from glauber_drivers.meters.polling import Polled, update_period

ROOT = "/sys/class/powercap"
RELATIVE_LIMIT, ASSUMED = 0.05, "assumed; neither Intel nor AMD states it"
PERIOD_LIMIT_SECONDS = 1.0
"""How long to wait for a few updates of the counters when the meter is opened."""
MICRO = 1e-6
_PACKAGE = re.compile(r"package-\d+(-die-\d+)?")


class _Zone:
    """The counter of a package, without its wraps. One thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "energy_uj"
        self.name = _text(folder / "name")
        self._range = _number(folder / "max_energy_range_uj")
        self.restart()

    def restart(self) -> None:
        """Count anew from here: what happened since the last look is nobody's."""
        self._last, self._total = _number(self._file), 0

    def joules(self) -> float:
        """Since the last restart.

        Raises:
            ProtocolError: the counter was set back, or is beyond its range.
        """
        now = _number(self._file)
        step = now - self._last
        if step < 0:
            if not 0 <= now <= self._range or not self._last <= self._range:
                raise ProtocolError(f"{self._file} went from {self._last} to {now}, beyond its range of {self._range}")
            step += self._range
            if 2 * step >= self._range:
                raise ProtocolError(
                    f"{self._file} went backwards from {self._last} to {now} microjoules, which is no wrap at"
                    f" {self._range}: the computer was suspended or the driver loaded again; measure again"
                )
        self._last = now
        self._total += step
        return MICRO * self._total


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except PermissionError as error:
        raise DeviceIOError(
            f"{file} may be read by root only. Let this user read the counters until the next start of the computer:"
            f" sudo chmod a+r {file.parent.parent}/intel-rapl:*/energy_uj (they tell something of what other programs"
            " compute, CVE-2020-8694)"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        hint = "was its driver unloaded? sudo modprobe intel_rapl_msr"
        raise DeviceIOError(f"{file} cannot be read ({error}): {hint}") from error


def _number(file: Path) -> int:
    text = _text(file)
    if not (text.isascii() and text.isdecimal()):
        raise ProtocolError(f"{file} holds {text[:40]!r}, which is no count of microjoules")
    return int(text)


class RaplMeter(Instrument):
    """A meter of all CPU packages. Opening watches the counters for some updates, milliseconds.

    Args:
        root: of the powercap tree.
        relative_limit: largest relative error, +-.
        accuracy_source: where that figure comes from.

    Raises:
        DeviceNotFoundError: there is no tree, or no package in it.
        DeviceIOError: this user may not read it.
        MeteringError: the counters stand still.
    """

    def __init__(
        self, root: str | Path = ROOT, *, relative_limit: float = RELATIVE_LIMIT, accuracy_source: str = ASSUMED
    ) -> None:
        super().__init__()
        if not 0 <= relative_limit < 1:
            raise InvalidModelError(f"relative_limit must be from 0 to below 1, not {relative_limit!r}")
        self._lock = threading.Lock()
        self._closed = False
        self._windows: list[Polled] = []
        folders = sorted(Path(root).glob("intel-rapl:*"))
        top = [folder for folder in folders if re.fullmatch(r"intel-rapl:\d+", folder.name)]
        packages = [folder for folder in top if _PACKAGE.fullmatch(_text(folder / "name"))]
        if not packages:
            found = f"it holds {', '.join(_text(folder / 'name') for folder in top)}" if top else "there is none"
            raise DeviceNotFoundError(
                f"no RAPL counter of a CPU package under {root}: {found}. On Intel and AMD: sudo modprobe"
                " intel_rapl_msr; virtual machines and other CPUs have none"
            )
        self._zones = [_Zone(folder) for folder in packages]
        period = update_period(self._read, PERIOD_LIMIT_SECONDS)
        if period is None:
            raise MeteringError(
                f"the RAPL counters under {root} did not move twice in {PERIOD_LIMIT_SECONDS:g} s: no counters"
            )
        self._spec = MeterSpec(
            name=f"RAPL counters of {', '.join(zone.name for zone in self._zones)} (memory is not counted)",
            boundary="chip",
            reads="joules",
            period_seconds=period,
            averaging_seconds=0.0,
            seen_share=1.0,
            seen_source="",
            relative_limit=relative_limit,
            resolution=len(self._zones) * 61e-6,  # a common unit, 2^-14 J; some CPUs have finer ones
            accuracy_source=accuracy_source,
            identity=f"RAPL {', '.join(zone.name for zone in self._zones)} under {root} of {this_host()}",
        )

    @classmethod
    def from_address(cls, address: Address) -> RaplMeter:
        """rapl://, or rapl:///another/root."""
        only_parameters(address, ())
        return cls(address.name or ROOT)

    @property
    def spec(self) -> MeterSpec:
        """See EnergyMeter.spec; the period is the measured one."""
        return self._spec

    def _read(self) -> float:
        return sum(zone.joules() for zone in self._zones)

    def start(self) -> Polled:
        """See EnergyMeter.start."""
        with self._lock:
            if self._closed:
                raise DeviceClosedError(f"the meter of the {self._spec.name} is closed; open another one")
            for window in self._windows:  # zones are read by one thread at a time
                if not window.ended:
                    raise MeteringError(f"a window of the {self._spec.name} is open; stop it first")
            for zone in self._zones:
                zone.restart()
            window = Polled(self._read, self._spec.period_seconds, self._spec.name, whole=False)
            self._windows = [window]
        return window

    def close(self) -> None:
        """See EnergyMeter.close. A window that is open ends without a figure."""
        with self._lock:
            self._closed = True
            for window in self._windows:
                if not window.ended:
                    window.abandon(DeviceClosedError("the meter was closed while its window was open"))
