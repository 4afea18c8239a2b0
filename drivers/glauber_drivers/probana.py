"""probana://PORT, a Probana board: 8 analog p-bits that stand in turn for up to 128, and a microcontroller.

Working hardware has not been shown: in the published firmware setDACVoltage, which would bias the p-bits, is empty.
This driver was run against an emulator of the protocol (tests/drivers/probana_emulator.py), never against a board.

The law of an update is P(+1) = 1 / (1 + exp(-2 scale (h + sum J m))), clipped to 0 and 1 where
|scale (h + sum J m)| >= 10: there it differs from the exact law by less than 3e-9. The scale is beta times the
program's step, in float32; h and J are integers in steps, which float32 holds and adds exactly.

A run cannot be broken off, so a job is a row of short ones: the board keeps its state from one to the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from glauber.catalogue import load_spec
from glauber.compile import AnyProgram, PottsProgram, Program, Run, pack_spins
from glauber.driver import Address, Batch, Transport, Wrap, link
from glauber.errors import (
    DeviceClosedError,
    DeviceIOError,
    DeviceNotFoundError,
    ModelNotSupportedError,
    ProtocolError,
)
from glauber.spec import AnySpec, Coefficients, Quantity
from numpy.typing import NDArray

from glauber_drivers.probana_link import MAX_THIN, SILENCE_SECONDS, ProbanaLink
from glauber_drivers.probana_plan import MAX_P_BITS, MAX_TABLE, Circuit, anneal_lines, check_run, copies_of
from glauber_drivers.transport import DEFAULT_BAUD, SerialTransport

BATCH_SECONDS = 0.5
"""How long one RUN should take: so long a job goes on after it was cancelled."""
PATIENCE = 20
"""A run may take so many times as long as expected before the board counts as silent."""


def probana_spec(physical: int) -> AnySpec:
    """The catalogue's description, with what this driver makes of the board."""
    spec = load_spec("probana")
    units = Quantity(
        value=MAX_P_BITS,
        unit="p-bit",
        provenance="vendor",
        source=f"virtual p-bits, in turns on {physical} physical ones; github.com/toncho11/probana, commit 3239f2dd",
    )
    coefficients = Coefficients(
        weight_bits=16,
        field_bits=24,
        provenance="derived",
        source="integers whose sums float32 holds exactly: 127 couplings of 16 bits and a field of 24 stay below 2^24",
    )
    kept = tuple(note for note in spec.notes if not note.startswith("Precision"))  # which this driver decides
    notes = (
        "The driver was run against an emulator of the protocol only.",
        "Couplings and fields travel as integers, beta times the step as float32: at most 6e-8 of it is off.",
        "Where a p-bit's field is clipped its law differs from the exact one by less than 3e-9.",
        "Chains run beside each other as copies of the graph where they fit, and else in turn.",
    )
    counted = frozenset({"samples", "last", "energies"})  # the board sums nothing: moments are counted from samples
    able = spec.capabilities.model_copy(update={"observables": counted})
    changes = {"units": units, "coefficients": coefficients, "capabilities": able, "notes": kept + notes}
    return spec.model_copy(update=changes)


class ProbanaDriver:
    """A driver of one board, which it opens at once and again after the link broke.

    Args:
        connect: opens the transport.
        where: the board's address, for messages.

    Raises:
        DeviceNotFoundError: there is no such port, or no Probana answers.
    """

    def __init__(self, connect: Callable[[], Transport], where: str) -> None:
        self._connect = connect
        self._where = where
        self._program: Program | None = None
        self._circuit: Circuit | None = None
        self._fields: NDArray[np.int32] | None = None
        self._link: ProbanaLink | None = None
        self._closed = False
        try:
            self._link = self._opened()
        except DeviceIOError as error:
            raise DeviceNotFoundError(f"no Probana at {where}: {error}") from error
        self.spec: AnySpec = probana_spec(self._link.physical)

    def _opened(self) -> ProbanaLink:
        link = ProbanaLink(self._connect(), self._where)
        try:
            link.greet()
        except BaseException:
            link.close()
            raise
        return link

    @contextmanager
    def _board(self) -> Iterator[ProbanaLink]:
        """The link, opened if need be; after any error it is closed, since nobody knows what is still on the way."""
        if self._closed:
            raise DeviceClosedError(f"{self._where} is closed; open it again")
        try:
            if self._link is None:
                self._circuit = self._fields = None
                self._link = self._opened()
            yield self._link
        except BaseException as error:
            link, self._link = self._link, None
            if link is not None:
                link.close()
            if isinstance(error, DeviceNotFoundError):  # it was there before
                raise DeviceIOError(f"the board is gone: {error}") from error
            if isinstance(error, DeviceIOError) and not isinstance(error, ProtocolError):
                raise DeviceIOError(
                    f"{error}. The job's samples are lost; check the cable, and submit it again: the next job opens"
                    f" {self._where} anew"
                ) from error
            raise

    def program(self, program: AnyProgram) -> None:
        """See Driver.program. It is sent when the first run says how many chains there are."""
        if isinstance(program, PottsProgram):
            raise ModelNotSupportedError("a Probana has p-bits, no p-dits; sim://ideal takes a PottsModel")
        self._program = program

    def admit(self, run: Run, program: AnyProgram) -> int:
        """See Driver.admit."""
        if isinstance(program, PottsProgram):
            raise ModelNotSupportedError("a Probana has p-bits, no p-dits; sim://ideal takes a PottsModel")
        copies = copies_of(program, run.n_chains)
        check_run(program, run)
        held = run.n_samples if copies < run.n_chains else 0
        return run.n_chains * (held + 2) * ((program.n_sites + 7) // 8)

    def run(self, run: Run) -> Iterator[Batch]:
        """See Driver.run.

        Every batch is one or more RUNs that have ended, so closing the iterator leaves nothing on the way. Where chains
        take turns, batches without progress come until the last ones run.
        """
        program = self._program
        if program is None:
            raise ModelNotSupportedError("nothing is programmed; call program() before run()")
        check_run(program, run)
        copies, chains, width = copies_of(program, run.n_chains), run.n_chains, (program.n_sites + 7) // 8
        in_turn = copies < chains
        held = np.zeros((chains, run.n_samples if in_turn else 0, width), dtype=np.uint8)
        state = np.zeros((chains, width), dtype=np.uint8)
        for first in range(0, chains, copies):
            count = min(copies, chains - first)
            for done, every, spins in self._chains(program, run, copies):
                packed = pack_spins(spins[:, :count].transpose(1, 0, 2))
                state[first : first + count] = packed[:, -1]
                n_samples = len(spins) if every else 0
                at = (done - run.n_warmup) // run.sweeps_per_sample - n_samples if every else 0
                if in_turn:
                    held[first : first + count, at : at + n_samples] = packed[:, :n_samples]
                    packed = held[:, at : at + n_samples]
                is_last = first + count == chains
                yield Batch(
                    next_sweep=done + 1 if is_last else 1,
                    first_sample=at if is_last else 0,
                    n_samples=n_samples if is_last else 0,
                    samples=packed.copy() if is_last and n_samples and "samples" in run.observe else None,
                    state=packed[:, -1].copy() if is_last and n_samples else state.copy(),
                    moments=None,
                    facts=self._facts(copies, chains),
                )

    def _facts(self, copies: int, chains: int) -> dict[str, str]:
        circuit = self._circuit
        banks = 0 if circuit is None else len(circuit.banks)
        return {
            "kernel": f"probana, sequential, {banks} banks",
            "body": f"Probana at {self._where}",
            "chains at a time": str(min(copies, chains)),
            "samples": "not reproducible: the noise is the board's own, and so is the start",
        }

    def _chains(self, program: Program, run: Run, copies: int) -> Iterator[tuple[int, int, NDArray[np.int8]]]:
        """(sweeps done, every, states) of a few chains from a new start to their end, RUN by RUN.

        States are shaped (kept, copies, n_sites): the samples of the last sweeps, or with every = 0 the state alone.
        """
        field = program.field if run.fields is None else run.fields[0]
        with self._board() as link:
            circuit = self._load(link, program, copies, field)
            link.send(["VCOMMIT"])  # draws the start, too
        temperature: list[str] = []
        expected, done, limit = circuit.sweep_seconds(), 0, 0
        while done < run.n_sweeps:
            limit = limit or max(1, int(BATCH_SECONDS / expected))
            sweeps, every = run.next_batch(done, min(limit, MAX_TABLE if len(run.b) > 1 else MAX_THIN))
            if len(run.b) > 1 and every:
                sweeps = every  # temperatures change with sweeps, not with samples
            lines, by_table = anneal_lines(run.b[done : done + sweeps] if len(run.b) > 1 else run.b)
            began = time.perf_counter()
            with self._board() as link:
                if lines != temperature or len(run.b) > 1:
                    link.send(lines)
                    temperature = lines
                bits = self._sweep(link, sweeps, every, by_table, circuit.n, expected)
            expected = max(1e-6, (time.perf_counter() - began) / sweeps)
            limit = max(1, min(4 * limit, int(BATCH_SECONDS / expected)))
            done += sweeps
            kept = bits.reshape(len(bits), copies, program.n_sites)
            yield done, every, np.where(kept, np.int8(1), np.int8(-1))

    def _load(self, link: ProbanaLink, program: Program, copies: int, field: NDArray[np.int32]) -> Circuit:
        """Bring the board to hold a program, in so many copies, and its fields; what it holds already is not sent."""
        circuit = self._circuit
        if circuit is None or circuit.program.key != program.key or circuit.copies != copies:
            self._circuit = self._fields = None
            circuit = Circuit.of(program, copies, link.physical)
            link.send(circuit.lines(link.physical))
            self._circuit = circuit
        if self._fields is None or not np.array_equal(self._fields, field):
            self._fields = None
            link.send(circuit.field_lines(field))
            self._fields = field.copy()
        return circuit

    def _sweep(
        self, link: ProbanaLink, sweeps: int, every: int, by_table: bool, n: int, expected: float
    ) -> NDArray[np.bool_]:
        """Do sweeps; returns the states after every `every`-th of them, or with 0 the last."""
        patience = SILENCE_SECONDS + PATIENCE * expected * sweeps
        if by_table:
            return link.run(sweeps, 0, 1, n, patience)[-1:]
        if every and sweeps > every:
            return link.run(sweeps // every, 0, every, n, patience)
        return link.run(1, sweeps - 1, 1, n, patience)

    def close(self) -> None:
        """See Driver.close."""
        self._closed = True
        link, self._link = self._link, None
        if link is not None:
            link.close()


class ProbanaFactory:
    """Opens `probana://PORT`: a serial port (`probana:///dev/ttyACM0`, `probana://COM3`), or a pyserial URL.

    `?baud=...` sets the rate, which USB ports do not care about; `probana://socket://127.0.0.1:5000` is a URL.
    """

    def open(self, address: Address) -> ProbanaDriver:
        """See DriverFactory.open."""
        return self.open_wired(address, lambda transport: transport)

    def open_wired(self, address: Address, wrap: Wrap) -> ProbanaDriver:
        """See WiredFactory.open_wired."""
        baud = address.parameters.get("baud", str(DEFAULT_BAUD))
        unknown = set(address.parameters) - {"baud"}
        if not address.name or unknown or not (baud.isascii() and baud.isdigit() and 0 < int(baud) < 10**8):
            raise DeviceNotFoundError(
                f"{address.text}: a Probana is opened by its port, as in probana:///dev/ttyACM0 or probana://COM3, or"
                " by a pyserial URL, as in probana://socket://127.0.0.1:5000; it takes seed=... and baud=115200,"
                " nothing else"
            )
        return ProbanaDriver(lambda: link(lambda: SerialTransport(address.name, int(baud)), wrap), address.name)

    def devices(self) -> Iterable[tuple[str, AnySpec]]:
        """See DriverFactory.devices: none, since a port does not say what is behind it."""
        return ()
