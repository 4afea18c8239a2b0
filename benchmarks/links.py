"""The wire protocol beside the bare link, by transport: `python -m benchmarks.links [--output benchmarks/results]`.

Bytes to the board are pieces of WRITE, bytes from it a run's stream (all spins clamped, so that the kernel has nothing
to do), both in frames of 4 KiB; the bare link moves as many bytes with no protocol at all, through the same transport
class to a program on the same port (firmware_stubs/bench/bare_link.c). QEMU is left out, with the reason, where it is
missing.
"""

from __future__ import annotations

import argparse
import os
import pty
import shutil
import struct
import subprocess
import tempfile
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from glauber import IsingModel, SamplingSchedule
from glauber.catalogue import load_spec
from glauber.compile import Program, compile_program, make_run, step_of
from glauber.driver import Transport
from glauber_drivers.firmware import INSTALL, ProcessTransport, qemu_command
from glauber_drivers.run_stream import RunStream
from glauber_drivers.serial_pbit import SerialPbitDriver
from glauber_drivers.transport import SerialTransport
from glauber_drivers.wire import Operation, Segment

from benchmarks.machine import provenance, write

ROOT = Path(__file__).parents[1]
ROUNDS = 5

Connect = Callable[[], Transport]


@contextmanager
def terminal(program: Path) -> Iterator[Connect]:
    """The program on a pseudo-terminal, which pyserial opens by its path."""
    master, slave = pty.openpty()
    tty.setraw(master)
    tty.setraw(slave)
    process = subprocess.Popen([str(program)], stdin=master, stdout=master)
    try:
        yield lambda: SerialTransport(os.ttyname(slave))
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


@contextmanager
def processes(program: Path) -> Iterator[Connect]:
    """The program on a socket pair, in QEMU if it is for a Cortex-M3."""
    emulated = program.suffix == ".elf"
    yield lambda: ProcessTransport(
        lambda descriptor: qemu_command(program, descriptor) if emulated else [str(program)],
        program.name,
        leashed=emulated,
    )


def bare(connect: Connect, n_bytes: int) -> tuple[float, float]:
    """(bytes/s to the board, bytes/s from it) with no protocol; the median of several rounds."""
    transport = connect()
    to, back = [], []
    try:
        for _ in range(ROUNDS):
            began = time.perf_counter()
            transport.write(b"S" + struct.pack("<I", n_bytes), 60)
            for at in range(0, n_bytes, 4096):
                transport.write(bytes(min(4096, n_bytes - at)), 60)
            while not transport.read(60):
                pass
            to.append(n_bytes / (time.perf_counter() - began))
            began, count = time.perf_counter(), 0
            transport.write(b"G" + struct.pack("<I", n_bytes), 60)
            while count < n_bytes:
                count += len(transport.read(60))
            back.append(n_bytes / (time.perf_counter() - began))
    finally:
        transport.close()
    return float(np.median(to)), float(np.median(back))


def clamped_run(n_bytes: int) -> tuple[Program, Any]:
    """A run that gives so many bytes and computes nothing."""
    n = 1024
    model = IsingModel(np.zeros(n), np.stack([np.arange(n - 1), np.arange(1, n)], axis=1), np.ones(n - 1))
    program = compile_program(model, step_of(model, load_spec("ideal")))
    assert isinstance(program, Program)
    schedule = SamplingSchedule(n_samples=max(1, n_bytes // (8 * n)), n_chains=64)
    return program, make_run(program, schedule, seed=1, clamp=np.ones((1, n), np.int8), observe={"samples"})


def protocol(connect: Connect, n_bytes: int, pings: int) -> tuple[float, float, float]:
    """(bytes/s to the board, bytes/s from it, seconds of a 16-byte ping) by the wire protocol."""
    driver = SerialPbitDriver(connect, "board")
    try:
        program, run = clamped_run(n_bytes)
        driver.program(program)
        data = bytes(min(n_bytes, 4 * driver.link.hello.cells))
        to, back, ping = [], [], []
        for _ in range(pings):
            began = time.perf_counter()
            driver.link.request(Operation.PING, bytes(16))
            ping.append(time.perf_counter() - began)
        for _ in range(ROUNDS):
            began, count = time.perf_counter(), 0
            while count < n_bytes:
                driver.link.write(Segment.HELD, data)
                count += len(data)
            to.append(count / (time.perf_counter() - began))
            number = driver._start(program, run, run.n_sweeps)
            stream, wanted, count = RunStream(driver.link, number), (16 + 8 * 1024) * run.n_samples, 0
            began = time.perf_counter()
            while count < wanted:
                count += len(next(stream))
            back.append(count / (time.perf_counter() - began))
            driver.link.abort()
        return float(np.median(to)), float(np.median(back)), float(np.median(ping))
    finally:
        driver.close()


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.links", description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for links.json and links.md; nothing is written without")
    options = parser.parse_args()
    qemu = shutil.which("qemu-system-arm") is not None and shutil.which("arm-none-eabi-gcc") is not None
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        make = ["make", "-s", "-C", str(ROOT / "firmware_stubs"), f"OUT={folder}"]
        subprocess.run([*make, f"{folder}/host-any", f"{folder}/bare-host"], check=True)
        out = Path(folder)
        kinds: list[tuple[str, Any, Path, Path, int]] = [
            ("process, socket pair", processes, out / "host-any", out / "bare-host", 1 << 24),
            ("process, terminal, pyserial", terminal, out / "host-any", out / "bare-host", 1 << 23),
        ]
        if qemu:
            subprocess.run([*make, f"{folder}/mps2-an385-any.elf", f"{folder}/bare-mps2-an385.elf"], check=True)
            arm = ("QEMU mps2-an385", processes, out / "mps2-an385-any.elf", out / "bare-mps2-an385.elf", 1 << 17)
            kinds.append(arm)
        else:
            print(f"QEMU is left out: {INSTALL}")
        for name, place, firmware, link, n_bytes in kinds:
            with place(link) as connect:
                bare_to, bare_back = bare(connect, n_bytes)
            with place(firmware) as connect:
                to, back, ping = protocol(connect, n_bytes, 200 if n_bytes < 1 << 20 else 2000)
            figures = {"ping": ping, "to": to, "bare to": bare_to, "back": back, "bare back": bare_back}
            rows.append({"transport": name, **figures})
            print(rows[-1], flush=True)
    lines = [
        "| transport | 16-byte ping | to the board, MB/s | bare | share | from the board, MB/s | bare | share |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [str(row["transport"]), f"{1e6 * row['ping']:.0f} us"]
        for way in ("to", "back"):
            cells += [
                f"{row[way] / 1e6:.3g}",
                f"{row['bare ' + way] / 1e6:.3g}",
                f"{row[way] / row['bare ' + way]:.0%}",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    print("\n".join(lines))
    if options.output is not None:
        found = {**provenance(("glauber", "numpy", "pyserial")), "frame_bytes": 4096, "rounds": ROUNDS, "rows": rows}
        write(options.output / "links.json", found)
        head = f"{found['cpu']}, {found['cores']} cores (shared), {found['date'][:10]}, `{found['command']}`"
        (options.output / "links.md").write_text(f"{head}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
