"""What a Probana board says and understands: lines of ASCII, version 2 of its protocol.

The facts are from its public firmware (github.com/toncho11/probana, commit 3239f2dd,
calibrate_run_full_anneal_banking): every command is answered by `OK` or `ERR REASON`; `RUN` by `OK`, a line `S 0101...`
a sample, and `DONE`. The board hears nothing while it calibrates (seconds, at its start) and while it runs: what is
sent meanwhile waits in its buffer. No command breaks off a run, and nothing on the line has a check sum.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterable

import numpy as np
from glauber.driver import Transport
from glauber.errors import DeviceIOError, GlauberError, ModelNotSupportedError, ProtocolError
from numpy.typing import NDArray

VERSION = 2
MAX_LINE = 191
"""Characters of a command; the board drops a longer one."""
MAX_THIN = 65_535
"""Sweeps from one sample to the next."""
CHUNK = 8
"""Values of one line of an annealing table."""
WINDOW = 128
"""Bytes of commands that may be unanswered: half of the smallest receive buffer of the boards, 256 bytes."""
START_SECONDS = 40.0
"""How long to wait for the first answer; eight p-bits calibrate in 17 s."""
POLL_SECONDS = 0.25
SILENCE_SECONDS = 5.0
"""How long an answer may take that needs no work."""
LONGEST_ANSWER = 4096

HINTS = {
    "VCLEAR": "it has another number of p-bits than it said; open the device again",
    "UPDATE_MODE": "its firmware does not know SEQUENTIAL updates; flash calibrate_run_full_anneal_banking",
    "CAPACITY": "it holds 128 virtual p-bits, 128 banks and 4,096 directed edges; take a smaller model or fewer chains",
    "VBANK": "a line was lost or damaged on the way; run the job again, with a shorter cable or another port",
    "H": "a line was lost or damaged on the way; run the job again, with a shorter cable or another port",
    "J_ORDER_OR_COUNT": "a coupling was lost or damaged on the way; run the job again",
    "BANK_CONFLICT": "the circuit did not arrive whole, or two coupled p-bits share a bank; run the job again",
    "VCOMMIT": "the circuit did not arrive whole; run the job again",
    "ANNEAL": "the temperature did not arrive whole; run the job again",
    "ANNEAL_TABLE_SIZE": "its table has 8,192 entries; run the job again, and tell the firmware's author if it stays",
    "ANNEAL_VALUES": "a part of the annealing table was lost on the way; run the job again",
    "ANNEAL_COMMIT": "the annealing table did not arrive whole; run the job again",
    "RUN": "it has lost its circuit, as after a reset; run the job again",
    "LINE_TOO_LONG": "it joined two lines, so a byte was lost on the way; run the job again",
    "UNKNOWN_COMMAND": "a line was damaged on the way, or the board runs another sketch than"
    " calibrate_run_full_anneal_banking",
}

_GREETING = re.compile(r"OK PROBANA (\d{1,4}) (\d{1,3}) (\w+)")


def refused(reason: str, command: str) -> GlauberError:
    """The error for the board's answer `ERR reason` to a command."""
    hint = HINTS.get(reason, "this driver does not know that reason: the firmware may be newer than protocol 2")
    kind = ModelNotSupportedError if reason == "CAPACITY" else ProtocolError
    return kind(f"the board refused {command!r} with ERR {reason}: {hint}")


def number(value: float) -> str:
    """A number as text that the board reads back as the float32 nearest to it."""
    return str(np.float32(value))


def parse_greeting(line: str) -> int | None:
    """The number of physical p-bits from the answer to PING; None if the line is something else.

    Raises:
        ProtocolError: a Probana of another version, or one that is not at work.
    """
    match = _GREETING.fullmatch(line)
    if match is None:
        return None
    version, physical, state = int(match[1]), int(match[2]), match[3]
    if version != VERSION or physical < 1 or state != "WORKING":
        raise ProtocolError(
            f"the board says {line!r}; this driver speaks version {VERSION} to a board that is WORKING. Flash"
            " calibrate_run_full_anneal_banking of github.com/toncho11/probana"
        )
    return physical


def parse_sample(line: str, n: int) -> NDArray[np.bool_]:
    """The p-bits of a line `S 0101...`.

    Raises:
        ProtocolError: the line is anything else.
    """
    bits = np.frombuffer(line[2:].encode("ascii", "replace"), dtype=np.uint8) - ord("0")
    if not line.startswith("S ") or len(bits) != n or (bits > 1).any():
        if line == "CALIBRATION" or line.startswith("READY "):
            raise DeviceIOError(
                f"the board started anew in the middle of a run (it says {line!r}), as when its power drops; the"
                " samples are lost. Check cable and supply, and submit the job again"
            )
        raise ProtocolError(
            f"expected a sample of {n} p-bits, got {_short(line)}; bytes were lost or damaged on the way. Submit the"
            " job again, with a shorter cable or a lower load on the port"
        )
    return bits.astype(np.bool_)


def _short(line: str) -> str:
    return repr(line) if len(line) <= 60 else f"{line[:57]!r}... ({len(line)} characters)"


class ProbanaLink:
    """A board at the other end of a transport; used by one thread.

    Args:
        transport: closed with the link.
        where: the board's address, for messages.
    """

    def __init__(self, transport: Transport, where: str) -> None:
        self._transport = transport
        self._where = where
        self._lines: deque[str] = deque()
        self._rest = b""
        self.physical = 0

    def close(self) -> None:
        """Let go of the transport."""
        self._transport.close()

    def greet(self) -> None:
        """Wait until the board answers, and skip all that it said before.

        The banner of its start may have come before the port was open, so nothing relies on it: PING is repeated, with
        a line's end before it in case half a command is in the board's buffer. Then one command that is surely refused
        marks the end of the answers to all these.

        Raises:
            DeviceIOError: it does not answer.
            ProtocolError: it is another version.
        """
        deadline = time.monotonic() + START_SECONDS
        heard, physical = "nothing", None
        while physical is None:
            self._write("\nPING\n")
            pause = time.monotonic() + POLL_SECONDS
            while physical is None and (line := self._line_until(pause)) is not None:
                heard, physical = _short(line), parse_greeting(line)
            if physical is None and time.monotonic() > deadline:
                raise DeviceIOError(
                    f"the board at {self._where} did not answer PING for {START_SECONDS:g} s (heard: {heard}). If it is"
                    " a Probana with calibrate_run_full_anneal_banking, press its reset and try again: it may be in a"
                    " long run, which it cannot be asked to stop"
                )
        self.physical = physical
        self._write("ANNEAL\n")
        deadline = time.monotonic() + SILENCE_SECONDS
        while self.answer("ANNEAL", deadline - time.monotonic()) != "ERR ANNEAL":
            pass

    def send(self, commands: Iterable[str]) -> None:
        """Send commands and wait until each was answered by OK; a few are on the way at a time.

        Raises:
            ProtocolError: one was refused, or answered by something else.
            ModelNotSupportedError: it is too much for the board.
            DeviceIOError: the link is gone or silent.
        """
        waiting: deque[str] = deque()
        on_the_way = 0
        for command in commands:
            if len(command) > MAX_LINE:
                raise ProtocolError(f"{_short(command)} is longer than the {MAX_LINE} characters of a line")
            while waiting and on_the_way + len(command) + 1 > WINDOW:
                on_the_way -= self._accept(waiting.popleft())
            self._write(command + "\n")
            waiting.append(command)
            on_the_way += len(command) + 1
        while waiting:
            self._accept(waiting.popleft())

    def run(self, samples: int, burn: int, thin: int, n: int, seconds: float) -> NDArray[np.bool_]:
        """Run the circuit: `burn` sweeps, and then a sample after every `thin`.

        Args:
            samples: at least one.
            burn: sweeps before the first of the thin ones.
            thin: sweeps from one sample to the next.
            n: virtual p-bits.
            seconds: how long the board may be silent.

        Returns:
            True for spin up, shape (samples, n).
        """
        command = f"RUN {samples} {burn} {thin}"
        self.send([command])
        states = np.empty((samples, n), dtype=np.bool_)
        for k in range(samples):
            line = self.answer(command, seconds)
            if line == "DONE" or line.startswith("ERR "):
                raise ProtocolError(
                    f"{command!r} ended with {line!r} after {k} samples: lines were lost on the way. Submit the job"
                    " again, with a shorter cable or another port"
                )
            states[k] = parse_sample(line, n)
        line = self.answer(command, seconds)
        if line != "DONE":
            raise ProtocolError(f"expected DONE after {samples} samples, got {_short(line)}; submit the job again")
        return states

    def answer(self, command: str, seconds: float) -> str:
        """The next line, which answers a command.

        Raises:
            DeviceIOError: silence.
        """
        line = self._line_until(time.monotonic() + seconds)
        if line is None:
            raise DeviceIOError(
                f"the board at {self._where} did not answer {command!r} in time. Is it powered and plugged"
                " in? Press its reset; the next job opens the link again"
            )
        return line

    def _accept(self, command: str) -> int:
        """Take the answer to a command, which must be OK; returns the bytes that this frees."""
        line = self.answer(command, SILENCE_SECONDS)
        if line.startswith("ERR "):
            raise refused(line[4:], command)
        if line != "OK":
            raise ProtocolError(
                f"the board answered {command!r} with {_short(line)} where OK or ERR was expected; was it reset, or is"
                " another program on the port? Submit the job again"
            )
        return len(command) + 1

    def _write(self, text: str) -> None:
        self._transport.write(text.encode("ascii"), SILENCE_SECONDS)

    def _line_until(self, deadline: float) -> str | None:
        """The next line without its end; None if none came."""
        while not self._lines:
            left = deadline - time.monotonic()
            data = self._transport.read(max(0.0, left))
            if not data and left <= 0:
                return None
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._lines.extend(line.rstrip(b"\r").decode("ascii", "backslashreplace") for line in lines)
            if len(self._rest) > LONGEST_ANSWER:
                raise ProtocolError(
                    f"{len(self._rest)} bytes without a line's end came from {self._where}: no Probana, or another baud"
                    " rate than 115,200 (?baud=...)"
                )
        return self._lines.popleft()
