"""An Ising machine that understands docs/scpi-annealer.md: the commands, on any driver of machine contract 1.

`ScpiMachine.obey` takes one message and returns its answer. Runs go on in a thread, so that the machine can be asked
and stopped meanwhile; scpi_server.py puts it behind a socket or a tty.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from glauber.compile import Program, Run, compile_program
from glauber.compile.quantise import Step
from glauber.driver import Batch, Driver
from glauber.errors import GlauberError
from glauber.model import IsingModel
from numpy.typing import NDArray

from glauber_drivers import scpi
from glauber_drivers.scpi import Message, ScpiError, block, forms
from glauber_drivers.scpi_upload import ELEMENTS, MANY, Settings, UploadedArray, whole_numbers

QUEUE = 16
"""Errors that are kept."""
BY_INTEGERS = Step(1.0, 1, 1, None, None, 1.0, False, ())


@dataclass(frozen=True, slots=True)
class Limits:
    """What a machine can hold; `CAPability` tells.

    Attributes:
        p_bits: spins.
        couplings: each counted once.
        chains: side by side.
        table: entries of the table of temperatures.
        block: bytes of one block, in either direction.
        memory: bytes of samples that may wait before a run pauses.
        array: bytes of the fields of a run, of its clamps, and of its start.
    """

    p_bits: int = 65_536
    couplings: int = 2**22
    chains: int = 65_536
    table: int = 2**20
    block: int = 2**20
    memory: int = 2**26
    array: int = 2**28


@dataclass
class _Progress:
    """Of a run: guarded by the machine's condition. What is kept begins at sample `start`, part of which is freed."""

    chains: int
    width: int
    stop: bool = False
    running: bool = True
    sweeps: int = 0
    samples: int = 0
    freed: int = 0
    start: int = 0
    state: NDArray[np.uint8] | None = None
    kept: deque[NDArray[np.uint8]] = field(default_factory=deque)


def _fixed(answer: bytes, message: Message) -> bytes:
    """An answer that is always the same."""
    return answer


class ScpiMachine:
    """An Ising machine with a driver for its engine.

    Args:
        engine: computes; closed with the machine.
        limits: what the machine can hold.
        joules: a counter of the energy used since some time; None: the machine has none.
        energy_facts: (resolution in J, largest relative error, seconds between two updates) of that counter.
    """

    def __init__(
        self,
        engine: Driver,
        *,
        limits: Limits | None = None,
        joules: Callable[[], float] | None = None,
        energy_facts: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> None:
        self._engine, self._joules, self._energy_facts = engine, joules, energy_facts
        self.limits = Limits() if limits is None else limits
        self._pairs: NDArray[np.int32] | None = None
        if not engine.spec.any_graph and engine.spec.topology is not None:
            self._pairs = engine.spec.topology.edges()
        self._condition = threading.Condition()
        self._errors: deque[ScpiError] = deque()
        self._events = scpi.POWER_ON
        self._thread: threading.Thread | None = None
        self._progress: _Progress | None = None
        self._loaded: str | None = None
        self._commands = {spelling: action for name, action in self._table() for spelling in forms(name)}
        self._reset()

    def _reset(self) -> None:
        self._parts: dict[str, UploadedArray] = {}
        self._program: Program | None = None
        self._settings = Settings()

    def _table(self) -> list[tuple[str, Callable[[Message], bytes | None]]]:
        limits, coefficients, many = self.limits, self._engine.spec.coefficients, (0, MANY)
        pairs = -1 if self._pairs is None else len(self._pairs)
        p_bits = min(limits.p_bits, self._engine.spec.n_sites or limits.p_bits)
        capabilities = {
            "PBITs": p_bits,
            "COUPlings": limits.couplings,
            "CHAins": limits.chains,
            "TABLe": limits.table,
            "BLOCk": limits.block,
            "MEMory": limits.memory,
            "ARRay": limits.array,
            "WEIGht:BITS": coefficients.weight_bits or 16,
            "FIELd:BITS": coefficients.field_bits or coefficients.weight_bits or 16,
            "CONTract": 1,
            "TOPology:COUNt": pairs,
        }
        answers: list[tuple[str, Callable[[Message], bytes | None]]] = [
            (f"CAPability:{name}?", partial(_fixed, str(value).encode())) for name, value in capabilities.items()
        ]

        def setting(name: str, *ranges: tuple[int, int], one: bool = True) -> Callable[[Message], None]:
            def take(message: Message) -> None:
                self._idle()
                values = whole_numbers(message.words, *ranges)
                setattr(self._settings, name, values[0] if one else values)

            return take

        return [
            *answers,
            ("*IDN?", lambda _: f"glauber,SCPI Ising machine,{self._engine.spec.name},{scpi.VERSION}".encode()),
            ("*RST", self._do_reset),
            ("*CLS", self._do_clear),
            ("*OPC?", self._do_wait),
            ("*ESR?", self._do_events),
            ("*STB?", lambda _: str(self._status()).encode()),
            ("SYSTem:ERRor?", self._do_error),
            ("CAPability:TOPology?", self._do_topology),
            ("PROGram:NEW", lambda message: self._do_new(message, p_bits)),
            ("PROGram:EDGes", lambda message: self._put(self._parts, "EDGES", message)),
            ("PROGram:WEIGhts", lambda message: self._put(self._parts, "WEIGHTS", message)),
            ("PROGram:FIELds", lambda message: self._put(self._parts, "FIELDS", message)),
            ("PROGram:LOAD", self._do_load),
            ("RUN:SEED", setting("seed", (0, 2**64 - 1))),
            ("RUN:LAYout", setting("layout", (0, 1))),
            ("RUN:CHAins", setting("chains", (1, limits.chains), (0, 2**31 - 1), one=False)),
            ("RUN:SWEeps", setting("sweeps", (1, MANY), many, (1, MANY), (1, MANY), one=False)),
            ("RUN:KEEP", setting("keep", (0, 1))),
            ("RUN:TABLe:SIZE", lambda message: self._size("TABLE", message, limits.table, 1)),
            ("RUN:FIELds:SIZE", lambda message: self._size("FIELDS", message, limits.chains, self._sites())),
            ("RUN:CLAMp:SIZE", lambda message: self._size("CLAMP", message, limits.chains, self._sites())),
            ("RUN:INITial:SIZE", lambda message: self._size("INITIAL", message, limits.chains, self._width())),
            ("RUN:TABLe", lambda message: self._put(self._settings.arrays, "TABLE", message)),
            ("RUN:FIELds", lambda message: self._put(self._settings.arrays, "FIELDS", message)),
            ("RUN:CLAMp", lambda message: self._put(self._settings.arrays, "CLAMP", message)),
            ("RUN:INITial", lambda message: self._put(self._settings.arrays, "INITIAL", message)),
            ("RUN:PROGress?", self._do_progress),
            ("INITiate", self._do_initiate),
            ("ABORt", lambda _: self.abort()),
            ("FETCh:SAMPles?", self._do_samples),
            ("FETCh:FREE", self._do_free),
            ("FETCh:STATe?", self._do_state),
            ("MEASure:ENERgy?", self._do_energy),
            ("MEASure:ENERgy:FACTs?", lambda _: ",".join(f"{fact:.15G}" for fact in self._energy_facts).encode()),
        ]

    # Messages

    def obey(self, message: Message) -> bytes | None:
        """Do what a message says; what is wrong with it goes into the error queue.

        Returns:
            The answer without its end, or None.
        """
        try:
            if message.error is not None:
                raise message.error
            if message.header not in self._commands:
                raise ScpiError(-113, message.header[:80])
            return self._commands[message.header](message)
        except ScpiError as error:
            self._note(error)
        except GlauberError as error:
            self._note(ScpiError(-221, str(error)))
        except Exception as error:  # whatever the engine does, the machine goes on
            self._note(ScpiError(101, f"{type(error).__name__}: {error}"))
        return None

    def _note(self, error: ScpiError) -> None:
        bits = {-1: scpi.COMMAND_ERROR, -2: scpi.EXECUTION_ERROR}
        with self._condition:
            self._events |= bits.get(math.ceil(error.number / 100), scpi.DEVICE_ERROR)
            if len(self._errors) == QUEUE:
                self._errors[-1] = ScpiError(-350)
            else:
                self._errors.append(error)

    def _idle(self) -> None:
        if self._progress is not None and self._progress.running:
            raise ScpiError(-221, "a run is in progress; ABORt it first")

    def _loaded_program(self) -> Program:
        if self._program is None:
            raise ScpiError(-221, "no program is loaded; PROGram:LOAD comes first")
        return self._program

    def _sites(self) -> int:
        return self._loaded_program().n_sites

    def _width(self) -> int:
        return (self._sites() + 7) // 8

    def _put(self, arrays: dict[str, UploadedArray], name: str, message: Message) -> None:
        self._idle()
        if message.block is None:
            raise ScpiError(-109, "a block is wanted")
        if name not in arrays:
            raise ScpiError(-221, f"{name} has no size yet")
        arrays[name].put(whole_numbers(message.words, (0, MANY))[0], message.block)

    def _size(self, name: str, message: Message, most: int, width: int) -> None:
        self._idle()
        rows = whole_numbers(message.words, (0, most))[0]
        self._settings.arrays.pop(name, None)
        needed = rows * width * np.dtype(ELEMENTS[name]).itemsize
        if needed > self.limits.array and name != "TABLE":
            raise ScpiError(-223, f"{needed} bytes of {self.limits.array}")
        if rows:
            self._settings.arrays[name] = UploadedArray(ELEMENTS[name], rows * width)

    # Common commands

    def _do_reset(self, message: Message) -> None:
        self.abort()
        self._progress = None
        self._reset()

    def _do_clear(self, message: Message) -> None:
        with self._condition:
            self._errors.clear()
            self._events = 0

    def _do_wait(self, message: Message) -> bytes:
        progress = self._progress
        if progress is not None:
            with self._condition:
                self._condition.wait_for(lambda: not progress.running or not self._has_room(progress))
        return b"1"

    def _do_events(self, message: Message) -> bytes:
        with self._condition:
            events, self._events = self._events, 0
        return str(events).encode()

    def _do_error(self, message: Message) -> bytes:
        with self._condition:
            error = self._errors.popleft() if self._errors else ScpiError(0)
        return error.line.encode()

    def _status(self) -> int:
        with self._condition:
            status = scpi.ERRORS * bool(self._errors) + scpi.EVENTS * bool(self._events)
            if self._progress is not None:
                status += scpi.RUNNING * self._progress.running
                status += scpi.SAMPLES * bool(self._progress.kept)
        return status

    # Program

    def _do_topology(self, message: Message) -> bytes:
        pairs = np.zeros((0, 2), np.int32) if self._pairs is None else self._pairs
        first, count = whole_numbers(message.words, (0, len(pairs)), (0, self.limits.block // 8))
        return block(pairs[first : first + count].astype(">i4").tobytes())

    def _do_new(self, message: Message, p_bits: int) -> None:
        self._idle()
        n, m = whole_numbers(message.words, (1, p_bits), (0, self.limits.couplings))
        self._reset()
        self._parts = {
            "EDGES": UploadedArray(">i4", 2 * m),
            "WEIGHTS": UploadedArray(">i4", m),
            "FIELDS": UploadedArray(">i4", n),
        }

    def _do_load(self, message: Message) -> None:
        self._idle()
        missing = [name for name, part in self._parts.items() if not part.whole]
        if not self._parts or missing:
            raise ScpiError(-221, f"not all of the program has come: {', '.join(missing) or 'PROGram:NEW'}")
        fields, edges, weights = (self._parts[name].values for name in ("FIELDS", "EDGES", "WEIGHTS"))
        if self._pairs is not None and self._engine.spec.topology is not None and len(edges):
            there = self._engine.spec.topology.has_edges(edges.astype(np.int64).reshape(-1, 2))
            if not there.all():
                raise ScpiError(-222, f"{int((~there).sum())} couplings do not exist on this machine")
        model = IsingModel(fields.astype(float), edges.astype(np.int32).reshape(-1, 2), weights.astype(float))
        program = compile_program(model, BY_INTEGERS)
        assert isinstance(program, Program)
        self._program, self._settings = program, Settings()

    # Runs

    def _do_initiate(self, message: Message) -> None:
        if self._progress is not None and self._progress.running:
            raise ScpiError(-213, "a run is in progress")
        program = self._loaded_program()
        run = self._settings.run(program)
        self._engine.admit(run, program)
        self.abort()  # joins the thread of a run that has ended
        done = max(0, run.first_sweep - 1 - run.n_warmup) // run.sweeps_per_sample
        progress = _Progress(run.n_chains, self._width(), sweeps=run.first_sweep - 1)
        progress.samples = progress.freed = progress.start = done
        thread = threading.Thread(target=self._work, args=(program, run, progress), name="scpi machine")
        thread.start()
        with self._condition:  # together, and only now: another thread may abort at any time
            self._thread, self._progress = thread, progress

    def _work(self, program: Program, run: Run, progress: _Progress) -> None:
        """The thread of a run."""
        try:
            if self._loaded != program.key:
                self._loaded = None
                self._engine.program(program)
                self._loaded = program.key
            batches = self._engine.run(run)
            try:
                for batch in batches:
                    if not self._take(batch, progress):
                        break
            finally:
                getattr(batches, "close", lambda: None)()
        except Exception as error:  # whatever the engine does, the machine goes on
            self._note(ScpiError(101, f"{type(error).__name__}: {error}"))
        finally:
            with self._condition:
                progress.running = False
                self._events |= scpi.OPERATION_COMPLETE
                self._condition.notify_all()

    def _take(self, batch: Batch, progress: _Progress) -> bool:
        """Keep a batch, and wait for room; False if the run shall stop."""
        with self._condition:
            progress.sweeps = batch.next_sweep - 1
            progress.state = batch.state.astype(np.uint8)
            if batch.samples is not None and batch.n_samples:
                progress.kept.append(batch.samples.astype(np.uint8))
                progress.samples += batch.n_samples
            self._condition.notify_all()
            self._condition.wait_for(lambda: progress.stop or self._has_room(progress))
            return not progress.stop

    def _has_room(self, progress: _Progress) -> bool:
        """Whether more samples can be kept."""
        return sum(part.nbytes for part in progress.kept) <= self.limits.memory

    def abort(self) -> None:
        """Stop a run, if there is one, and wait until it has."""
        with self._condition:
            thread, progress = self._thread, self._progress
            if progress is not None:
                progress.stop = True
                self._condition.notify_all()
        if thread is not None:
            thread.join()

    def _current(self) -> _Progress:
        if self._progress is None:
            raise ScpiError(-230, "there was no run yet")
        return self._progress

    def _do_progress(self, message: Message) -> bytes:
        progress = self._current()
        with self._condition:
            return f"{progress.sweeps},{progress.samples}".encode()

    def _do_samples(self, message: Message) -> bytes:
        progress = self._current()
        most = max(1, self.limits.block // (progress.chains * progress.width))
        with self._condition:
            first, count = whole_numbers(message.words, (progress.freed, progress.samples), (1, most))
            if first + count > progress.samples:
                raise ScpiError(-222, f"samples up to {progress.samples} are there")
            at, parts, have = first - progress.start, [], 0
            for part in progress.kept:
                if have >= at + count:
                    break
                parts.append(part)
                have += part.shape[1]
        return block(np.concatenate(parts, axis=1)[:, at : at + count].tobytes())

    def _do_free(self, message: Message) -> None:
        progress = self._current()
        with self._condition:
            (progress.freed,) = whole_numbers(message.words, (progress.freed, progress.samples))
            while progress.kept and progress.start + progress.kept[0].shape[1] <= progress.freed:
                progress.start += progress.kept.popleft().shape[1]
            self._condition.notify_all()

    def _do_state(self, message: Message) -> bytes:
        progress = self._current()
        with self._condition:
            if progress.state is None:
                raise ScpiError(-230, "no sweep is done yet")
            return block(progress.sweeps.to_bytes(8, "big") + progress.state.tobytes())

    def _do_energy(self, message: Message) -> bytes:
        joules = scpi.NOT_A_NUMBER if self._joules is None else self._joules()
        return f"{joules:.15G}".encode()

    def close(self) -> None:
        """Stop, and let go of the engine."""
        self.abort()
        with suppress(GlauberError):
            self._engine.close()
