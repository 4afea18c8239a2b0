"""Links to boards by URL: serial ports and sockets, through pyserial."""

from __future__ import annotations

import importlib
from contextlib import suppress
from typing import Any

from glauber.errors import DeviceIOError, DeviceNotFoundError

DEFAULT_BAUD = 115_200


def _serial() -> Any:
    """The package, or what to do about it."""
    try:
        return importlib.import_module("serial")
    except ImportError as error:
        raise DeviceNotFoundError(
            f"boards need the package pyserial, which is not installed ({error}); pip install 'glauber[serial]'"
        ) from error


class SerialTransport:
    """A serial port (`/dev/ttyACM0`, `COM3`) or what pyserial knows by URL (`socket://127.0.0.1:5000`).

    Args:
        url: of the port.
        baud: bits per second; a USB port does not care.

    Raises:
        DeviceNotFoundError: there is no such port, it is in use, or pyserial is missing.
    """

    def __init__(self, url: str, baud: int = DEFAULT_BAUD) -> None:
        self._package = _serial()
        self.url = url
        try:
            # the time-out of reads is set at each one; exclusive: two programs on one port would share the answers
            extra = {} if "://" in url else {"exclusive": True}
            self._port = self._package.serial_for_url(url, baudrate=baud, timeout=0, **extra)
        except (OSError, ValueError) as error:  # SerialException is an OSError
            hint = (
                "Does anything listen there?"
                if "://" in url
                else "Is the board plugged in, and may you use the port (group dialout)? `glauber devices --scan` lists"
                " the boards that answer"
            )
            raise DeviceNotFoundError(f"cannot open {url}: {error}. {hint}") from error
        self._timeout = 0.0

    def read(self, timeout: float) -> bytes:
        """See Transport.read."""
        try:
            waiting = self._port.in_waiting if "://" not in self.url else 0
            if not waiting:
                if timeout != self._timeout:
                    self._port.timeout = self._timeout = timeout
                first = self._port.read(1)
                if not first:
                    return b""
                return bytes(first) + self._rest()
            return bytes(self._port.read(waiting))
        except (
            OSError,
            TypeError,
            AttributeError,
        ) as error:  # the latter: pyserial, when the port was closed meanwhile
            raise DeviceIOError(f"the link {self.url} broke: {error}") from error

    def _rest(self) -> bytes:
        """What else is there, without waiting."""
        if "://" not in self.url:
            waiting = self._port.in_waiting
            return bytes(self._port.read(waiting)) if waiting else b""
        self._port.timeout = self._timeout = 0.0
        return bytes(self._port.read(65_536))

    def write(self, data: bytes, timeout: float) -> None:
        """See Transport.write."""
        try:
            if self._port.write_timeout != timeout:
                self._port.write_timeout = timeout
            self._port.write(data)
        except self._package.SerialTimeoutException as error:
            raise DeviceIOError(f"{self.url} took none of {len(data)} bytes for {timeout:g} s") from error
        except (OSError, TypeError, AttributeError) as error:
            raise DeviceIOError(f"the link {self.url} broke: {error}") from error

    def close(self) -> None:
        """See Transport.close."""
        with suppress(OSError):
            self._port.close()
