"""A powercap tree in a folder, whose counters follow a known power: for tests of `RaplMeter`."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from glauber.testing.loopback import KnownPower

MICRO = 1e-6


class RaplTree:
    """Writes the files of `intel-rapl` zones, with parts of the packages and psys beside them, every period.

    Args:
        root: an empty folder.
        packages: power of each package.
        period: seconds between updates.
        range_uj: `max_energy_range_uj`: the counters begin again there.
        start_uj: where they begin.
        gain: factor of all counters.
    """

    def __init__(
        self,
        root: Path,
        packages: Sequence[KnownPower],
        *,
        period: float = 0.001,
        range_uj: int = 262_143_328_850,
        start_uj: int = 0,
        gain: float = 1.0,
    ) -> None:
        self.root, self.packages, self.gain = root, list(packages), gain
        self._period, self._range, self._begin = period, range_uj, start_uj
        self._stopped = threading.Event()
        self._counted = [0.0] * len(packages)
        self._at = time.monotonic()
        self._files: list[int] = []
        for number, _ in enumerate(packages):
            self._files.append(self._zone(f"intel-rapl:{number}", f"package-{number}"))
            os.close(self._zone(f"intel-rapl:{number}:0", "core"))
            os.close(self._zone(f"intel-rapl-mmio:{number}", f"package-{number}"))
        os.close(self._zone(f"intel-rapl:{len(packages)}", "psys"))
        self._thread = threading.Thread(target=self._work, name="rapl tree", daemon=True)
        self._thread.start()

    def _zone(self, folder: str, name: str) -> int:
        path = self.root / folder
        path.mkdir()
        (path / "name").write_text(f"{name}\n")
        (path / "max_energy_range_uj").write_text(f"{self._range}\n")
        (path / "energy_uj").write_text(f"{self._begin:<20d}\n")
        return os.open(path / "energy_uj", os.O_WRONLY)

    def _work(self) -> None:
        while not self._stopped.wait(self._period):
            now = time.monotonic()
            for k, power in enumerate(self.packages):
                self._counted[k] += self.gain * float(power.joules(self._at, now))
                count = (self._begin + int(self._counted[k] / MICRO)) % self._range
                os.pwrite(self._files[k], f"{count:<20d}\n".encode(), 0)
            self._at = now

    def joules(self, begin: float, end: float) -> float:
        """What the packages took between two times of the monotonic clock."""
        return sum(float(power.joules(begin, end)) for power in self.packages)

    def close(self) -> None:
        """Stop counting; the files stay. May be called twice."""
        self._stopped.set()
        self._thread.join()
        while self._files:
            os.close(self._files.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
