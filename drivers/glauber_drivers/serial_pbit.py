"""Boards that speak glauber's wire protocol: `serial:///dev/ttyACM0`, `socket://host:port`, `firmware://host`.

The board samples by the machine contract, so a job's samples are those of `sim://ideal`, bit for bit. A link that
breaks is opened again, and the run goes on after the last state that came whole, which the contract makes exact.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np
from glauber.compile import AnyProgram, Program, Run
from glauber.driver import Address, Batch, Transport, Wrap, link
from glauber.errors import DeviceIOError, DeviceNotFoundError, GlauberError, ModelNotSupportedError, ProtocolError
from glauber.spec import AnySpec, Provenance
from numpy.typing import NDArray
from pydantic import ValidationError

from glauber_drivers import wire
from glauber_drivers.board_arrays import BoardRun, program_segments, run_segments
from glauber_drivers.board_batches import BatchCollector
from glauber_drivers.board_spec import board_spec
from glauber_drivers.run_stream import RunStream
from glauber_drivers.serial_link import BoardResetError, Link
from glauber_drivers.transport import DEFAULT_BAUD, SerialTransport
from glauber_drivers.wire import Capability, Kind, Operation, RunFlag, Segment

RECONNECT_SECONDS = 10.0
"""How long an unplugged board is waited for."""
STUCK_SECONDS = 30.0
"""A run that breaks again and again without a new sample or checkpoint is given up after so long."""
BATCH_SECONDS = 0.1
"""How often samples are handed on."""
CHECKPOINT_SECONDS = 0.45
"""How often a state is asked for where none comes by itself; between two polls, so that a recording plays the same."""
BATCH_BYTES = 1 << 24


class SerialPbitDriver:
    """A driver of one board.

    Args:
        connect: opens its transport; called again when the link broke.
        name: for messages.
        reproducible: see Link.

    Attributes:
        spec: the board as it describes itself.

    Raises:
        DeviceNotFoundError, DeviceIOError: see Link.open.
    """

    def __init__(self, connect: Callable[[], Transport], name: str, *, reproducible: bool = False) -> None:
        self.name = name
        self.link = Link(connect, name, reproducible=reproducible)
        hello = self.link.open()
        try:
            self.spec: AnySpec = board_spec(hello, self._edges(hello), name)
        except ValidationError as error:
            self.link.shut()
            raise ProtocolError(f"{name} describes a board that cannot be: {error.errors()[0]['msg']}") from error
        except BaseException:
            self.link.shut()
            raise
        self.contract_version = hello.contract
        self._hello = hello
        self._program: Program | None = None
        self._loaded_crc: int | None = None
        self._resumed = self._retries = 0
        self._closed = False
        self._energy = (0, 0, hello.boots)  # picojoules before the last reset, at the last look, and boots then

    def _edges(self, hello: wire.Hello) -> NDArray[np.int32] | None:
        if hello.edges == 0:
            return None
        parts = []
        for first in range(0, hello.edges, wire.MOST_EDGES):
            count = min(wire.MOST_EDGES, hello.edges - first)
            pair = np.array([first, count], dtype="<u4").tobytes()
            parts.append(np.frombuffer(self.link.request(Operation.TOPOLOGY, pair), dtype="<u2"))
        edges = np.sort(np.concatenate(parts).reshape(-1, 2).astype(np.int32), axis=1)
        if edges.max() >= hello.sites:
            raise ProtocolError(f"{self.name} reports a coupling of p-bit {edges.max()}, and has {hello.sites} p-bits")
        return edges

    # Programs

    def program(self, program: AnyProgram) -> None:
        """See Driver.program. What does not arrive is sent again when the program is run."""
        if not isinstance(program, Program):
            raise ModelNotSupportedError(f"{self.spec.name} has p-bits, no p-dits; sim://ideal runs Potts models")
        self._program = program
        self._retrying(lambda: self._load(program))

    def _load(self, program: Program) -> None:
        segments = program_segments(program)
        crc = zlib.crc32(b"".join(segments.values()))
        if self._loaded_crc is None:
            self._loaded_crc = self.link.hello.program_crc or None
        if self._loaded_crc == crc:
            return
        self._loaded_crc = None
        order = program.order
        sizes = wire.program_request(program.n_sites, len(order.neighbour), len(order.colour_start) - 1)
        for _ in range(3):
            self.link.request(Operation.PROGRAM, sizes)
            for segment, data in segments.items():
                self.link.write(segment, data)
            try:
                self.link.request(Operation.COMMIT, wire.CRC.pack(crc))
            except ProtocolError as error:
                if "not what was sent" in str(error):
                    continue
                raise
            self._loaded_crc = crc
            return
        raise ProtocolError(f"{self.name} holds another program than it was sent, three times: its memory is broken")

    def admit(self, run: Run, program: AnyProgram) -> int:
        """See Driver.admit."""
        hello = self._hello
        if not isinstance(program, Program):
            raise ModelNotSupportedError(f"{self.spec.name} has p-bits, no p-dits; sim://ideal runs Potts models")
        if run.exchange is not None or run.resample is not None or run.clock is not None or run.dynamics != "heat bath":
            raise ModelNotSupportedError(
                f"{self.spec.name} samples and anneals by the heat bath; tempering, populations, Metropolis and"
                " asynchronous p-bits run on sim://ideal"
            )
        if run.fields is not None and len(run.fields) > 1:
            raise ModelNotSupportedError(f"{self.spec.name} has one set of fields for all chains; submit several jobs")
        board_run = BoardRun(program, run)
        sums = board_run.n_sums if "moments" in run.observe else 0
        limits = (
            ("spins", program.n_sites, hello.sites),
            ("couplings, counted in both directions", len(program.order.neighbour), hello.entries),
            ("colours", len(program.order.colour_start) - 1, hello.colours),
            ("words of state; fewer chains take fewer", board_run.n_cells, hello.cells),
            ("moments; observe samples instead, or take fewer chains", sums, hello.sums),
        )
        reasons = tuple(f"{asked:,} {what}; it has room for {room:,}" for what, asked, room in limits if asked > room)
        if reasons:
            raise ModelNotSupportedError(f"{self.spec.name} is too small for this run", reasons)
        if "moments" in run.observe and run.n_samples >= 2**31:
            raise ModelNotSupportedError(
                f"{self.spec.name} sums moments in 32 bits: fewer than 2^31 samples in one job"
            )
        if np.abs(program.weight).max(initial=0) >= 2 ** (hello.weight_bits - 1):
            raise ModelNotSupportedError(f"{self.spec.name} has weights of {hello.weight_bits} bits")
        return 8 * board_run.n_cells * 4 + 2 * BATCH_BYTES + 8 * sums

    # Runs

    def run(self, run: Run) -> Iterator[Batch]:
        """See Driver.run. After a break the run goes on from the last state that came whole."""
        program = self._program
        if program is None:
            raise ModelNotSupportedError("nothing is programmed; call program() before run()")
        rest = run
        stuck_since: float | None = None
        self._resumed, self._retries = 0, self.link.retries
        while True:
            try:
                for batch, left in self._windows(program, rest):
                    rest, stuck_since = left, None
                    yield batch
                return
            except DeviceIOError as error:
                if isinstance(error, ProtocolError) or self._closed:
                    raise
                now = time.monotonic()
                stuck_since = now if stuck_since is None else stuck_since
                if now - stuck_since > STUCK_SECONDS:
                    raise DeviceIOError(
                        f"the run on {self.name} broke again and again for {STUCK_SECONDS:g} s without a new sample,"
                        f" after sweep {rest.first_sweep - 1} of {run.n_sweeps}{self._watchdog_note()}; the last time:"
                        f" {error}"
                    ) from error
                self._reconnect(error)
                self._resumed += 1

    def _watchdog_note(self) -> str:
        """Whether it was the board's own watchdog, as far as the board can still say so."""
        with suppress(GlauberError):
            count = self.health().watchdogs
            return f" (its watchdog has reset it {count} times)" if count else ""
        return ""

    def _retrying(self, action: Callable[[], None]) -> None:
        """Do it on a link that works; one that broke is opened again, once."""
        try:
            self._connected()
            action()
        except ProtocolError:
            raise
        except DeviceIOError as error:
            self._reconnect(error)
            action()

    def _connected(self) -> None:
        """Open the link where it is not."""
        if not self.link.is_open:
            self._greet(lambda: self.link.open(RECONNECT_SECONDS))

    def _greet(self, hello: Callable[[], wire.Hello]) -> None:
        """Begin a session; it has to be the same board as ever."""
        self._loaded_crc = None
        now = hello()
        if replace(now, boots=0, program_crc=0) != replace(self._hello, boots=0, program_crc=0):
            self.link.close()
            raise ProtocolError(f"another board answers at {self.name} now; open the device again")

    def _reconnect(self, cause: DeviceIOError) -> None:
        """Wait for the board to come back, and begin a new session."""
        until = time.monotonic() + RECONNECT_SECONDS
        last: GlauberError = cause
        while not self._closed and (left := until - time.monotonic()) > 0:
            try:
                seconds = min(left, 3.0)
                if isinstance(last, BoardResetError) and self.link.is_open:  # opening a port anew can reset a board
                    self._greet(lambda seconds=seconds: self.link.renew(seconds))  # type: ignore[misc]
                else:
                    self._greet(lambda seconds=seconds: self.link.open(seconds))  # type: ignore[misc]
                return
            except ProtocolError:
                raise
            except (DeviceIOError, DeviceNotFoundError) as error:
                last = error
                time.sleep(0.1)
        raise DeviceIOError(
            f"the link to {self.name} broke and did not come back within {RECONNECT_SECONDS:g} s. What happened:"
            f" {cause}. What opening it again said: {last}. Plug the board in; the next job connects anew"
        ) from cause

    def _windows(self, program: Program, run: Run) -> Iterator[tuple[Batch, Run]]:
        """The batches of a run, and each time what is left of it; a long table of betas goes window by window."""
        self._connected()
        self._load(program)
        while run.first_sweep <= run.n_sweeps:
            last = run.n_sweeps
            if len(run.b) > 1:
                last = min(last, run.first_sweep + self._hello.table - 1)
            for batch, left in self._attempt(program, run, last):
                run = left
                yield batch, left

    def _start(self, program: Program, run: Run, last: int) -> int:
        """Write what belongs to the run, and begin it; returns its number."""
        segments = run_segments(program, run, last)
        crc = zlib.crc32(b"".join(segments.values()))
        flags = RunFlag(0)
        flags |= RunFlag.KEEP_SAMPLES if "samples" in run.observe else RunFlag(0)
        flags |= RunFlag.KEEP_MOMENTS if "moments" in run.observe else RunFlag(0)
        flags |= RunFlag.OWN_FIELDS if Segment.OWN_FIELD in segments else RunFlag(0)
        flags |= RunFlag.CLAMPED if Segment.HELD in segments else RunFlag(0)
        flags |= RunFlag.INITIAL if run.initial is not None else RunFlag(0)
        flags |= RunFlag.INITIAL_SUMS if Segment.SUMS in segments else RunFlag(0)
        order = wire.RunOrder(
            seed=run.seed,
            first_sweep=run.first_sweep,
            n_warmup=run.n_warmup,
            n_samples=run.n_samples,
            sweeps_per_sample=run.sweeps_per_sample,
            last_sweep=last,
            beta_first=run.first_sweep if len(run.b) > 1 else 1,
            n_chains=run.n_chains,
            first_chain=run.first_chain,
            n_beta=len(segments[Segment.BETA]) // 8,
            n_counted=0 if run.initial_moments is None else run.initial_moments[0],
            crc=crc,
            stream=run.stream,
            layout=run.layout,
            flags=flags,
        )
        for _ in range(3):
            for segment, data in segments.items():
                self.link.write(segment, data)
            try:
                return self.link.begin(wire.run_request(order))
            except ProtocolError as error:
                if "not what was sent" not in str(error):
                    raise
        raise ProtocolError(f"{self.name} holds another run than it was sent, three times: its memory is broken")

    def _attempt(self, program: Program, run: Run, last: int) -> Iterator[tuple[Batch, Run]]:
        number = self._start(program, run, last)
        board_run = BoardRun(program, run)
        reader = wire.RecordReader(4 * max(board_run.n_cells, board_run.n_sums + 1))
        stream = RunStream(self.link, number)
        collected = BatchCollector(program, run)
        ended = False
        yielded = self.link.now()
        asked: float | None = None  # for a checkpoint that has not come
        seen, rested = 0, yielded + CHECKPOINT_SECONDS
        try:
            while not ended:
                for record in reader.feed(next(stream)):
                    collected.take(record)
                    ended = record.kind is Kind.END
                now = self.link.now()
                if collected.checkpoints > seen:
                    took = 0.0 if asked is None else now - asked
                    seen, asked, rested = collected.checkpoints, None, now + max(CHECKPOINT_SECONDS, 4 * took)
                if asked is None and not ended and now > rested and now - yielded > CHECKPOINT_SECONDS:
                    stream.checkpoint_wanted, asked = True, now
                if collected.whole and (ended or now - yielded > BATCH_SECONDS or collected.n_bytes > BATCH_BYTES):
                    batch = collected.batch(self._facts())
                    yielded = now
                    yield batch, collected.rest
            if collected.done != last:
                raise ProtocolError(f"{self.name} ended the run at sweep {collected.done}, not at {last}")
        except GeneratorExit:
            self.link.abort()
            raise
        except ProtocolError:
            self.link.abort()
            raise

    def _facts(self) -> dict[str, str]:
        facts = {"kernel": "firmware, plain words", "body": self.spec.title, "link": self.name}
        if self.link.retries > self._retries:
            facts["frames asked for again"] = str(self.link.retries - self._retries)
        if self._resumed:
            facts["resumed after a break"] = str(self._resumed)
        return facts

    # Readings

    def raw_bits(self, p_bit: int, code: int, count: int) -> NDArray[np.uint8]:
        """Raw readings of one p-bit at a bias code, 0 or 1, uint8 (count,); for calibration.

        Raises:
            ModelNotSupportedError: the board cannot, or there is no such p-bit or code.
            DeviceIOError: the link broke.
        """
        hello = self._hello
        if Capability.CALIBRATE not in hello.capabilities:
            raise ModelNotSupportedError(f"{self.spec.name} has no calibration reads")
        if not (0 <= p_bit < hello.sites and 0 <= code < 2**hello.code_bits and count > 0):
            raise ModelNotSupportedError(
                f"p-bit {p_bit} at code {code}, {count} readings: there are p-bits 0 to {hello.sites - 1} and codes 0"
                f" to {2**hello.code_bits - 1}, and at least one reading is taken"
            )
        parts: list[NDArray[np.uint8]] = []
        while count > 0:
            some = min(count, wire.MOST_READINGS)
            data = self.link.request(Operation.CALIBRATE, wire.calibrate_request(p_bit, code, some))
            if len(data) != -(-some // 8):
                raise ProtocolError(f"{some} readings were answered with {len(data)} bytes")
            parts.append(np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=some, bitorder="little"))
            count -= some
        return np.concatenate(parts)

    def health(self) -> wire.Health:
        """The board's own counters.

        Raises:
            DeviceIOError: the link broke.
        """
        return wire.read_health(self.link.request(Operation.HEALTH))

    @property
    def energy_counter_provenance(self) -> Provenance:
        """What the counter is: "measured" on the board, or a "model" in its firmware."""
        return "measured" if Capability.ENERGY_MEASURED in self._hello.capabilities else "model"

    def energy_counter_joules(self) -> float:
        """Joules since power-on; a reset of the board is bridged, so that it never falls while the device is open.

        Raises:
            DeviceIOError: the link broke.
        """
        data = self.link.request(Operation.ENERGY)
        if len(data) != 8:
            raise ProtocolError(f"ENERGY was answered with {len(data)} bytes, not 8")
        now, boots = int.from_bytes(data, "little"), self.link.hello.boots
        before, last, booted = self._energy
        if now < last or boots != booted:  # it began anew at a reset; what was used before does not come back
            before += last
        self._energy = (before, now, boots)
        return (before + now) * 1e-12

    def close(self) -> None:
        """See Driver.close."""
        self._closed = True
        self.link.shut()


def _baud(address: Address) -> int:
    text = address.parameters.get("baud", str(DEFAULT_BAUD))
    unknown = set(address.parameters) - {"baud"}
    if unknown or not (text.isascii() and text.isdigit() and 0 < int(text) < 10**8):
        raise DeviceNotFoundError(f"{address.text}: a serial board takes seed=... and baud=..., nothing else")
    return int(text)


class BoardFactory:
    """What the schemes have in common."""

    def open(self, address: Address) -> SerialPbitDriver:
        """See DriverFactory.open."""
        return self.open_wired(address, lambda transport: transport)

    def open_wired(self, address: Address, wrap: Wrap) -> SerialPbitDriver:
        """See WiredFactory.open_wired."""
        connect = self._connect(address)
        try:
            same = bool(getattr(wrap, "reproducible", False))
            return SerialPbitDriver(lambda: link(connect, wrap), address.text, reproducible=same)
        except BoardResetError as error:
            raise DeviceIOError(f"{address.text} answers as if two programs talked to it: {error}") from error

    def _connect(self, address: Address) -> Callable[[], Transport]:
        raise NotImplementedError

    def devices(self) -> Iterable[tuple[str, AnySpec]]:
        """See DriverFactory.devices: opening a port to look who is there may disturb whoever is."""
        return ()


class SerialFactory(BoardFactory):
    """Opens `serial:///dev/ttyACM0?baud=115200`, or `serial://COM3`."""

    def _connect(self, address: Address) -> Callable[[], Transport]:
        baud = _baud(address)
        if not address.name:
            raise DeviceNotFoundError(
                "serial:// needs a port, as in serial:///dev/ttyACM0; `glauber devices --scan` lists boards that answer"
            )
        return lambda: SerialTransport(address.name, baud)

    def scan(self) -> Iterator[tuple[str, AnySpec]]:
        """The boards that answer, on all serial ports of this computer."""
        try:
            from serial.tools import list_ports
        except ImportError as error:
            raise DeviceNotFoundError("a scan needs pyserial; pip install 'glauber[serial]'") from error
        for port in list_ports.comports():
            address = f"serial://{port.device}"
            try:
                driver = SerialPbitDriver(lambda port=port: SerialTransport(port.device), address)  # type: ignore[misc]
            except GlauberError:
                continue  # somebody else's, or in use
            try:
                yield address, driver.spec
            finally:
                driver.close()


class SocketFactory(BoardFactory):
    """Opens `socket://127.0.0.1:5000`: a board behind a serial server."""

    def _connect(self, address: Address) -> Callable[[], Transport]:
        _baud(address)
        if ":" not in address.name:
            raise DeviceNotFoundError(f"{address.text}: a socket needs host and port, as in socket://127.0.0.1:5000")
        return lambda: SerialTransport(f"socket://{address.name}")
