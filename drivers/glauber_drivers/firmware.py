"""The controller firmware without a board: as a process of this computer (`firmware://host`), or emulated.

`firmware://host` is the program that is built with glauber; `firmware://qemu` compiles the same sources for a Cortex-M3
and runs them in QEMU (board mps2-an385). Both talk over a socket pair: no port, no path, nothing to clean up.
"""

from __future__ import annotations

import hashlib
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from glauber.driver import Address, Transport
from glauber.errors import DeviceIOError, DeviceNotFoundError, GlauberError
from glauber.spec import AnySpec
from platformdirs import user_cache_path

import glauber_drivers
from glauber_drivers.serial_pbit import BoardFactory

INSTALL = "apt-get install --no-install-recommends gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
KINDS = ("any", "king")
"""Chips behind the controller: any graph, or a king's graph of 8 x 8."""
ARM_FLAGS = ("-mcpu=cortex-m3", "-mthumb", "-Os", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections")


class ProcessTransport:
    """Bytes to and from a process that was given one end of a socket pair.

    Args:
        command: makes the command from the number of the child's descriptor.
        name: for messages.
        leashed: its standard input is a pipe from us, which ends with us; else it is the socket.

    Raises:
        DeviceNotFoundError: the program cannot be started.
    """

    def __init__(self, command: Callable[[int], list[str]], name: str, *, leashed: bool = False) -> None:
        self._name = name
        ours, theirs = socket.socketpair()
        try:
            number = theirs.fileno()
            self.process = subprocess.Popen(
                command(number),
                stdin=subprocess.PIPE if leashed else number,
                stdout=number,
                stderr=subprocess.DEVNULL,
                pass_fds=(number,),
                start_new_session=True,  # Ctrl-C is for us
            )
        except OSError as error:
            ours.close()
            raise DeviceNotFoundError(f"{name} cannot be started: {error}") from error
        finally:
            theirs.close()
        self._socket = ours
        ours.setblocking(False)

    def read(self, timeout: float) -> bytes:
        """See Transport.read."""
        try:
            try:
                data = self._socket.recv(1 << 18)
            except BlockingIOError:
                ready, _, _ = select.select([self._socket], [], [], timeout)
                if not ready:
                    return b""
                data = self._socket.recv(1 << 18)
        except (OSError, ValueError) as error:
            raise DeviceIOError(f"the link to {self._name} broke: {error}") from error
        if not data:
            raise DeviceIOError(f"{self._name} ended (exit code {self.process.poll()})")
        return data

    def write(self, data: bytes, timeout: float) -> None:
        """See Transport.write."""
        rest = memoryview(data)
        try:
            while rest:
                try:
                    rest = rest[self._socket.send(rest) :]
                except BlockingIOError:
                    if not select.select([], [self._socket], [], timeout)[1]:
                        raise DeviceIOError(f"{self._name} took nothing for {timeout:g} s") from None
        except (OSError, ValueError) as error:
            if isinstance(error, DeviceIOError):
                raise
            raise DeviceIOError(f"the link to {self._name} broke: {error}") from error

    def close(self) -> None:
        """See Transport.close."""
        with suppress(OSError):
            self._socket.close()
        with suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)  # what it has started too
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        if self.process.stdin is not None:
            self.process.stdin.close()


def _folder(name: str) -> Path:
    """A folder that CMake installs into this package."""
    for path in glauber_drivers.__path__:
        if (Path(path) / name).is_dir():
            return Path(path) / name
    raise DeviceNotFoundError(f"the folder {name} is missing from this installation of glauber; install it again")


def host_program(kind: str) -> Path:
    """The firmware as a program of this computer."""
    return _folder("firmware") / f"glauber-firmware-{kind}"


def sources() -> Path:
    """The firmware's sources, with the headers and contract.c of the C core beside them."""
    return _folder("firmware_sources")


def build_for_qemu(kind: str) -> Path:
    """The firmware for mps2-an385, compiled once and kept.

    Raises:
        DeviceNotFoundError: the compiler is missing, or fails; the message has the install line or what it says.
    """
    compiler = shutil.which("arm-none-eabi-gcc")
    if compiler is None:
        raise DeviceNotFoundError(f"firmware://qemu needs a compiler for Cortex-M3, which is not installed: {INSTALL}")
    folder = sources()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digest = hashlib.blake2b(f"{compiler} {kind} {ARM_FLAGS}".encode(), digest_size=8)
    for path in files:
        digest.update(path.read_bytes())
    elf = user_cache_path("glauber") / "firmware" / f"mps2-an385-{kind}-{digest.hexdigest()}.elf"
    if elf.exists():
        return elf
    try:
        elf.parent.mkdir(parents=True, exist_ok=True)
        return _compiled(compiler, folder, kind, elf)
    except OSError as error:
        raise DeviceNotFoundError(f"the firmware cannot be compiled into {elf.parent}: {error}") from error


def _compiled(compiler: str, folder: Path, kind: str, elf: Path) -> Path:
    port = folder / "ports" / "mps2-an385"
    units = [*folder.glob("*.c"), *port.glob("*.c")]
    with tempfile.TemporaryDirectory(dir=elf.parent) as scratch:
        built = Path(scratch) / "firmware.elf"
        command = [compiler, *ARM_FLAGS, "-std=c11", f"-I{folder}", f"-T{port / 'link.ld'}", "-nostartfiles"]
        command += ["--specs=nano.specs", *(["-DCHIP_KING=8"] if kind == "king" else [])]
        done = subprocess.run([*command, *map(str, sorted(units)), "-o", str(built)], capture_output=True, text=True)
        if done.returncode != 0:
            raise DeviceNotFoundError(f"the firmware does not compile for mps2-an385: {done.stderr.strip()[-2000:]}")
        os.replace(built, elf)
    return elf


def qemu_command(elf: Path, descriptor: int) -> list[str]:
    """How QEMU is started. Its clock counts instructions, so ticks repeat exactly; they are no chip's time."""
    leash = 'qemu-system-arm "$@" </dev/null & read -r end; kill -9 $!'  # QEMU would outlive us otherwise
    return [
        *("sh", "-c", leash, "qemu"),
        *("-M", "mps2-an385", "-kernel", str(elf), "-display", "none", "-monitor", "none"),
        *("-icount", "shift=3,sleep=off"),
        *("-chardev", f"socket,id=u0,fd={descriptor}", "-serial", "chardev:u0"),
    ]


class FirmwareFactory(BoardFactory):
    """Opens `firmware://host` and `firmware://qemu`, with `?chip=any` (the default) or `?chip=king`."""

    def _connect(self, address: Address) -> Callable[[], Transport]:
        kind = address.parameters.get("chip", "any")
        if set(address.parameters) - {"chip"} or kind not in KINDS:
            raise DeviceNotFoundError(f"{address.text}: firmware takes seed=... and chip={' or '.join(KINDS)}")
        if address.name == "host":
            program = host_program(kind)
            return lambda: ProcessTransport(lambda descriptor: [str(program)], address.text)
        if address.name == "qemu":
            if shutil.which("qemu-system-arm") is None:
                raise DeviceNotFoundError(f"firmware://qemu needs QEMU, which is not installed: {INSTALL}")
            elf = build_for_qemu(kind)
            return lambda: ProcessTransport(lambda number: qemu_command(elf, number), address.text, leashed=True)
        raise DeviceNotFoundError(f"{address.text}: there are firmware://host and firmware://qemu")

    def devices(self) -> Iterable[tuple[str, AnySpec]]:
        """See DriverFactory.devices."""
        try:
            driver = self.open(Address("firmware", "host", {}, "firmware://host"))
        except GlauberError:  # not on this computer
            return
        try:
            yield "firmware://host", driver.spec
        finally:
            driver.close()
