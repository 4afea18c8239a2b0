"""An instrument through PyVISA: text and blocks, with every failure of every transport as one of ours.

PyVISA-py reports the same event in a different way on each transport: a peer that is gone is a time-out and then a
BrokenPipeError on a socket, a SerialException on a port, an errno elsewhere. What follows a failure is never read,
since nobody knows whose answer it would be: the link is closed.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from glauber.errors import DeviceIOError, DeviceNotFoundError, GlauberError, ModelNotSupportedError, ProtocolError

from glauber_drivers.scpi import INFINITY, block, parse_error

TIMEOUT_SECONDS = 10.0
"""How long an answer, or a part of one, may take."""
HELD_BYTES = 65_536
"""Commands that wait to be sent together."""
MOST_ERRORS = 64
"""So many are read of an error queue."""


def _pyvisa() -> Any:
    """The package, or what to do about it."""
    try:
        importlib.import_module("pyvisa_py")
        return importlib.import_module("pyvisa")
    except ImportError as error:
        raise DeviceNotFoundError(
            f"instruments need the packages pyvisa and pyvisa-py, which are not installed ({error}); pip install"
            " 'glauber[visa]'"
        ) from error


def refused(number: int, text: str, command: str) -> GlauberError:
    """The error for an entry of the instrument's queue."""
    said = f'the instrument answered {command} with error {number}, "{text}"'
    if -299 <= number <= -220 and number != -230:
        return ModelNotSupportedError(f"{said}; take a smaller or a simpler job, or sim://ideal")
    if -199 <= number <= -100:
        return ProtocolError(
            f"{said}: it does not speak the dialect of docs/scpi-annealer.md, or bytes were lost on the way"
        )
    return DeviceIOError(f"{said}. Look at its front panel or log, and submit the job again")


class VisaLink:
    """An open instrument; each exchange is whole, whichever thread makes it.

    Args:
        resource: VISA's name of it.
        timeout_seconds: how long an answer, or a part of one, may take.

    Raises:
        DeviceNotFoundError: it cannot be opened, or PyVISA is missing.
    """

    def __init__(self, resource: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._name = resource
        self._lock = threading.Lock()
        self._unsent = bytearray()
        package = _pyvisa()
        try:
            self._instrument = package.ResourceManager("@py").open_resource(
                resource, read_termination="\n", write_termination="\n", open_timeout=int(1000 * TIMEOUT_SECONDS)
            )
            self._instrument.timeout = 1000 * timeout_seconds
        except Exception as error:  # PyVISA-py raises plain Exception, too
            raise DeviceNotFoundError(
                f"{resource} cannot be opened: {error}. Is the instrument on, is the name right"
                " (TCPIP0::HOST::PORT::SOCKET, ASRL/dev/ttyUSB0::INSTR), and is no other program using it?"
            ) from error

    @contextmanager
    def _exchange(self, what: str) -> Iterator[None]:
        """One exchange; its failure is a DeviceIOError that says what was asked."""
        with self._lock:
            try:
                yield
            except GlauberError:
                raise
            except Exception as error:  # VisaIOError, SerialException, OSError, and TypeError once it is closed
                late = "VI_ERROR_TMO" in str(error)
                happened = (
                    f"did not answer within {self._instrument.timeout / 1000:g} s" if late else f"is gone ({error})"
                )
                raise DeviceIOError(
                    f"{self._name} {happened}; it was asked {what}. Check power and cable; the next job opens it anew"
                ) from error

    def write(self, command: str, data: bytes | None = None) -> None:
        """Send a command, with a block for its last parameter if there is one; at the latest with the next query.

        Small pieces of their own would wait for each other: PyVISA-py 0.8 cannot switch Nagle's algorithm off.

        Raises:
            DeviceIOError: the link is gone.
        """
        text = command.encode("ascii") + (b"" if data is None else block(data)) + b"\n"
        with self._exchange(command):
            self._unsent += text
            if len(self._unsent) > HELD_BYTES:
                self._send(b"")

    def send(self, command: str) -> None:
        """Send a command now, with all that waited.

        Raises:
            DeviceIOError: the link is gone.
        """
        with self._exchange(command):
            self._send(command.encode("ascii") + b"\n")

    def _send(self, data: bytes) -> None:
        whole, self._unsent = bytes(self._unsent) + data, bytearray()
        sent = self._instrument.write_raw(whole)
        if sent != len(whole):
            raise DeviceIOError(f"{self._name} took {sent} of {len(whole)} bytes. Check power and cable")

    def query(self, command: str, timeout_seconds: float | None = None) -> str:
        """Ask, and return the answer's line; a long one may be given more time.

        Raises:
            DeviceIOError: no answer.
            ProtocolError: it is no text.
        """
        with self._exchange(command):
            usual = self._instrument.timeout
            if timeout_seconds is not None:
                self._instrument.timeout = 1000 * timeout_seconds
            try:
                self._send(command.encode("ascii") + b"\n")
                answer = bytes(self._instrument.read_raw())
            finally:
                self._instrument.timeout = usual
        try:
            return answer.decode("ascii").strip()
        except UnicodeDecodeError as error:
            raise ProtocolError(
                f"{self._name} answered {command} with {answer[:40]!r}, which is no text: another baud rate, or another"
                " instrument?"
            ) from error

    def whole_numbers(self, command: str, count: int = 1) -> list[int]:
        """Ask for whole numbers.

        Raises:
            DeviceIOError: no answer.
            ProtocolError: the answer is anything else.
        """
        answer = self.query(command)
        words = [word.strip() for word in answer.split(",")]
        if len(words) != count or not all(word.removeprefix("-").isdigit() and len(word) < 20 for word in words):
            raise ProtocolError(f"{self._name} answered {command} with {answer[:80]!r}; expected {count} whole numbers")
        return [int(word) for word in words]

    def reals(self, command: str, count: int = 1) -> list[float]:
        """Ask for numbers; SCPI's NaN, 9.91E+37, is refused.

        Raises:
            DeviceIOError: no answer.
            ProtocolError: the answer is anything else, or not finite.
        """
        answer = self.query(command)
        try:
            values = [float(word) for word in answer.split(",")]
        except ValueError:
            values = []
        if len(values) != count or not all(abs(value) < INFINITY for value in values):  # NaN compares to nothing
            raise ProtocolError(
                f"{self._name} answered {command} with {answer[:80]!r}; expected {count} finite numbers"
            )
        return values

    def query_block(self, command: str, size: int | None = None, *, indefinite: bool = False) -> bytes:
        """Ask for a block of definite length, of `size` bytes if that is known; or of `indefinite` length, "#0".

        Raises:
            DeviceIOError: no answer, or not all of it.
            ProtocolError: it is no such block.
        """
        with self._exchange(command):
            self._send(command.encode("ascii") + b"\n")
            read = self._instrument.read_bytes
            start = bytes(read(2))
            if start == b"#0" and indefinite and size is not None:
                return self._to_the_end(command, bytes(read(size)), bytes(read(1)))
            digits = bytes(read(int(start[1:]))) if start[:1] == b"#" and start[1:] in b"123456789" else b""
            if not digits.isdigit() or (size is not None and int(digits) != size):
                wanted = "a block" if size is None else f"a block of {size} bytes"
                raise ProtocolError(f"{self._name} answered {command} with {start + digits!r}; expected {wanted}")
            return self._to_the_end(command, bytes(read(int(digits))), bytes(read(1)))

    def _to_the_end(self, command: str, data: bytes, end: bytes) -> bytes:
        if end != b"\n":
            raise ProtocolError(f"{self._name} answered {command} with a block that {end!r} follows and no line's end")
        return data

    def errors(self) -> list[tuple[int, str]]:
        """Empty the error queue: numbers and texts, the oldest first.

        Raises:
            DeviceIOError: no answer.
            ProtocolError: it is no error queue's.
        """
        found: list[tuple[int, str]] = []
        while len(found) < MOST_ERRORS:
            answer = self.query("SYST:ERR?")
            error = parse_error(answer)
            if error is None:
                raise ProtocolError(f"{self._name} answered SYST:ERR? with {answer[:80]!r}")
            if error[0] == 0:
                break
            found.append(error)
        return found

    def check(self, command: str) -> None:
        """Read the error queue to its end.

        Raises:
            ModelNotSupportedError: the machine cannot do what was asked.
            ProtocolError: it did not understand it.
            DeviceIOError: something else.
        """
        for error in self.errors():
            raise refused(*error, command)

    def close(self) -> None:
        """Let go of the instrument, once no other thread waits for an answer of it: descriptors are used again."""
        held = self._lock.acquire(timeout=TIMEOUT_SECONDS)
        with suppress(Exception):
            self._instrument.close()
        if held:
            self._lock.release()
