"""The firmware for tests: built with its test operation, on a pseudo-terminal, and asked byte by byte."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bodies import joined
from glauber.driver import Transport
from glauber_drivers import wire
from glauber_drivers.firmware import INSTALL, ProcessTransport, host_program, qemu_command
from glauber_drivers.wire import Answer, Frame, FrameReader, Operation

ROOT = Path(__file__).parents[2]

qemu_missing = shutil.which("qemu-system-arm") is None or shutil.which("arm-none-eabi-gcc") is None
needs_qemu = pytest.mark.skipif(qemu_missing, reason=f"needs QEMU and a compiler for Cortex-M3: {INSTALL}")


def build(folder: Path, target: str) -> Path:
    """A target of firmware_stubs/Makefile."""
    made = folder / target
    subprocess.run(["make", "-s", "-C", str(ROOT / "firmware_stubs"), f"OUT={folder}", str(made)], check=True)
    return made


def process(program: Path) -> ProcessTransport:
    if program.suffix == ".elf":
        return ProcessTransport(lambda descriptor: qemu_command(program, descriptor), "qemu", leashed=True)
    return ProcessTransport(lambda descriptor: [str(program)], "host")


class Talk:
    """Requests one by one, with no retries: what a board answers to exactly these bytes."""

    def __init__(self, transport: Transport, session: int = 0x1234) -> None:
        self.transport, self.session, self.sequence = transport, session, 0
        self._reader = FrameReader()
        self.frames: list[Frame] = []

    def send(self, operation: int, payload: bytes = b"", *, sequence: int | None = None, **other: int) -> None:
        self.sequence = self.sequence + 1 if sequence is None else sequence
        frame = Frame(operation, other.get("session", self.session), self.sequence, payload, other.get("version", 1))
        self.transport.write(wire.encode(frame), 5)

    def hear(self, seconds: float = 5.0) -> list[Frame]:
        """The next frames; empty if none comes in time."""
        frames = list(self._reader.feed(self.transport.read(seconds)))
        while not frames:
            data = self.transport.read(seconds)
            if not data:
                return []
            frames = list(self._reader.feed(data))
        self.frames += frames
        return frames

    def ask(self, operation: int, payload: bytes = b"", **how: int) -> Answer:
        self.send(operation, payload, **how)
        for _ in range(100):
            for frame in self.hear():
                if frame.operation == operation | wire.REPLY and frame.sequence == self.sequence:
                    return wire.read_answer(frame.payload)
        raise AssertionError("no answer")

    def hello(self) -> wire.Hello:
        answer = self.ask(Operation.HELLO, wire.hello_request(self.session, 4096))
        assert answer.status is wire.Status.OK
        return wire.read_hello(answer.rest)


@contextmanager
def talking(program: Path | None = None) -> Iterator[Talk]:
    """The firmware after HELLO."""
    transport = process(host_program("any") if program is None else program)
    try:
        talk = Talk(transport)
        talk.hello()
        yield talk
    finally:
        transport.close()


def boot_again(talk: Talk, seconds: float) -> None:
    """HELLO until it is answered: what had come with the request that hung is lost."""
    deadline = time.monotonic() + seconds
    while True:
        talk.send(Operation.HELLO, wire.hello_request(talk.session, 4096))
        if any(frame.operation == Operation.HELLO | wire.REPLY for frame in talk.hear(0.5)):
            return
        assert time.monotonic() < deadline, "the watchdog did not bite"


def boardable(run: Any) -> bool:
    """Whether a board runs it: one set of fields, the heat bath."""
    plain = run.exchange is None and run.resample is None and run.clock is None and run.dynamics == "heat bath"
    return plain and (run.fields is None or len(run.fields) == 1)


def on_board(driver: Any, program: Any, run: Any) -> Any:
    driver.program(program)
    driver.admit(run, program)
    return joined(list(driver.run(run)))


class PtyBoard:
    """The firmware on a real terminal: a path that pyserial opens, and a plug that can be pulled.

    Attributes:
        path: of the terminal.
        process: the firmware.
    """

    def __init__(self, program: Path | None = None) -> None:
        self._program = host_program("any") if program is None else program
        self._master, slave = pty.openpty()
        tty.setraw(self._master)
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        self._slave = slave  # held open: a terminal without any user hangs up
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([str(self._program)], stdin=self._master, stdout=self._master)

    def unplug(self) -> None:
        """Both ends go: the terminal hangs up."""
        self.process.kill()
        self.process.wait()
        if self._master >= 0:
            os.close(self._master)
            os.close(self._slave)
            self._master = self._slave = -1

    def kill(self) -> None:
        """The controller dies; the terminal stays."""
        self.process.kill()
        self.process.wait()

    def revive(self) -> None:
        """After kill: the controller boots again on the same terminal."""
        self.process = self._start()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.thaw()
        self.unplug()
