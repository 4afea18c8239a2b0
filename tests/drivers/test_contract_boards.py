"""The driver contract on every kind of link: a process, a real terminal, an emulated Cortex-M3, SCPI, and Probana."""

from __future__ import annotations

from typing import ClassVar

import glauber as gl
import pytest
from firmware_lab import PtyBoard, needs_qemu
from glauber.driver import Wrap
from glauber.registry import open_driver, parse_address
from glauber.testing import DriverContract
from glauber_drivers.scpi_server import ScpiServer
from probana_emulator import ProbanaOnPty


class TestFirmware(DriverContract):
    address = "firmware://host?seed=11"
    effort = "quick"


class TestKing(DriverContract):
    """A chip with a topology that the board reports."""

    address = "firmware://host?chip=king&seed=12"
    effort = "quick"


class OnStand(DriverContract):
    """Boards that a fixture sets up."""

    effort = "quick"
    stand: ClassVar[str] = ""

    def open(self) -> gl.Device:
        return gl.open_device(self.stand, seed=13)

    def open_wrapped(self, wrap: Wrap) -> gl.Device:
        return gl.open_device(self.stand, seed=13, wrap=wrap)


class TestTerminal(OnStand):
    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def board(cls):
        board = PtyBoard()
        cls.stand = f"serial://{board.path}"
        yield
        board.close()


class TestScpi(OnStand):
    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def board(cls):
        with ScpiServer(open_driver(parse_address("sim://ideal"))) as server:
            cls.stand = server.address
            yield


@pytest.mark.slow
class TestProbana(OnStand):
    """Statistically: the board has noise of its own, so nothing can be compared bit for bit. Half a minute of laws."""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def board(cls):
        board = ProbanaOnPty()
        cls.stand = f"probana://{board.path}"
        yield
        board.close()


@pytest.mark.qemu
@needs_qemu
class TestQemu(DriverContract):
    address = "firmware://qemu?seed=14"
    effort = "quick"


class Full(DriverContract):
    effort = "full"


@pytest.mark.slow
class TestFirmwareInFull(Full):
    address = "firmware://host?seed=15"
