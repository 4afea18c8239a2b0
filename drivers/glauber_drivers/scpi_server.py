"""A machine of docs/scpi-annealer.md on this computer: any driver behind a TCP port of the loopback, or behind a tty.

    with ScpiServer(SimulatorFactory().open(parse_address("sim://ideal"))) as server:
        device = glauber.open_device(f"visa://TCPIP0::127.0.0.1::{server.port}::SOCKET")

One controller at a time, as with an instrument on a desk: the next one is served when the last has gone.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from glauber.driver import Driver

from glauber_drivers.scpi import Message, Splitter
from glauber_drivers.scpi_machine import ScpiMachine

Disturb = Callable[[Message, bytes | None], bytes | None]
"""What a test puts between machine and link: gets a message and its answer with the end, returns what is sent."""


class HangUpError(Exception):
    """Raised by a `Disturb` to drop the link.

    Attributes:
        data: sent before.
    """

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        super().__init__()


class _Served:
    """A thread that serves a machine until it is closed; the descriptors are closed after it has ended."""

    def __init__(self, machine: ScpiMachine | Driver, disturb: Disturb | None) -> None:
        self.machine = machine if isinstance(machine, ScpiMachine) else ScpiMachine(machine)
        self.disturb = disturb
        self._stopped, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="scpi server", daemon=True)

    def _serve(self) -> None:
        raise NotImplementedError

    def _readable(self, descriptor: int) -> bool:
        """Wait for something to read; False when the server is closed."""
        return self._stopped not in select.select([descriptor, self._stopped], [], [])[0]

    def _talk(self, descriptor: int) -> None:
        """Serve one controller to its end."""
        splitter = Splitter(self.machine.limits.block)
        while self._readable(descriptor):
            data = os.read(descriptor, 65_536)
            if not data:
                return
            for message in splitter.feed(data):
                answer = self.machine.obey(message)
                answer = None if answer is None else answer + b"\n"
                if self.disturb is not None:
                    answer = self._disturbed(descriptor, message, answer)
                if answer:
                    self._write(descriptor, answer)

    def _disturbed(self, descriptor: int, message: Message, answer: bytes | None) -> bytes | None:
        assert self.disturb is not None
        try:
            return self.disturb(message, answer)
        except HangUpError as error:
            self._write(descriptor, error.data)
            raise

    def _write(self, descriptor: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            ready, writable, _ = select.select([self._stopped], [descriptor], [])
            if ready:
                raise HangUpError
            if writable:
                view = view[os.write(descriptor, view[:4096]) :]

    def close(self) -> None:
        """Stop serving, and close the machine. May be called twice."""
        if self._stop < 0:
            return
        os.write(self._stop, b"x")
        self.machine.abort()
        self._thread.join()
        self.machine.close()
        os.close(self._stop)
        os.close(self._stopped)
        self._stop = -1
        self._let_go()

    def _let_go(self) -> None:
        """Close what the thread used."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ScpiServer(_Served):
    """A machine on a TCP port of 127.0.0.1.

    Args:
        machine: or a driver, which becomes one with the usual limits.
        port: 0 for any that is free.
        disturb: for tests.

    Attributes:
        port: where it listens.
    """

    def __init__(self, machine: ScpiMachine | Driver, port: int = 0, *, disturb: Disturb | None = None) -> None:
        super().__init__(machine, disturb)
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._thread.start()

    @property
    def address(self) -> str:
        """For open_device."""
        return f"visa://TCPIP0::127.0.0.1::{self.port}::SOCKET"

    def _serve(self) -> None:
        while self._readable(self._listener.fileno()):
            connection, _ = self._listener.accept()
            with connection, suppress(OSError, HangUpError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.setblocking(False)
                self._talk(connection.fileno())

    def _let_go(self) -> None:
        self._listener.close()


class ScpiTty(_Served):
    """A machine behind a pseudo-terminal, as behind a serial port. Once a test has dropped the line, it stays dead.

    Args:
        machine: or a driver, which becomes one with the usual limits.
        disturb: for tests.

    Attributes:
        path: of the tty.
    """

    def __init__(self, machine: ScpiMachine | Driver, *, disturb: Disturb | None = None) -> None:
        import pty  # not on Windows
        import tty

        super().__init__(machine, disturb)
        self._master, self._slave = pty.openpty()  # the slave stays open, so that controllers may come and go
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        self._thread.start()

    @property
    def address(self) -> str:
        """For open_device."""
        return f"visa://ASRL{self.path}::INSTR"

    def _serve(self) -> None:
        try:
            self._talk(self._master)
        except (OSError, HangUpError):
            pass
        finally:
            os.close(self._slave)
            os.close(self._master)  # now the controller sees that the line is dead
