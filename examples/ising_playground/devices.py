"""Devices that the page has opened: one for each address, shared by all who look at it, closed at the end."""

from __future__ import annotations

import threading
from contextlib import suppress

import glauber as gl
from glauber.errors import GlauberError


class Devices:
    """Opens devices by address and keeps them open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: dict[str, gl.Device] = {}

    def get(self, address: str) -> gl.Device:
        """The device of an address; one that takes no more jobs is opened again.

        Raises:
            GlauberError: as `glauber.open_device` does.
        """
        with self._lock:
            device = self._opened.get(address)
            if device is not None and device.trouble is None:
                return device
            if device is not None:
                self._drop(address)
            self._opened[address] = gl.open_device(address)
            return self._opened[address]

    def close(self) -> None:
        """Cancel what runs and let go of all devices."""
        with self._lock:
            for address in list(self._opened):
                self._drop(address)

    def _drop(self, address: str) -> None:
        with suppress(GlauberError):  # it is gone already
            self._opened.pop(address).close(timeout=5.0)


def known_addresses() -> list[str]:
    """What can be opened here and now, the exact simulator first; entries without a size or graph cannot be chosen."""
    found = {address for address, _ in gl.available_devices()}
    return sorted(found, key=lambda address: (address != "sim://ideal", address))
