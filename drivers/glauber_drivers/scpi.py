"""The syntax that both ends of docs/scpi-annealer.md share: headers, definite-length blocks, errors, status bits."""

from __future__ import annotations

import re
from dataclasses import dataclass

VERSION = "1"
"""Of the dialect; the last field of the answer to *IDN?."""
NOT_A_NUMBER, INFINITY = 9.91e37, 9.9e37
"""How SCPI writes NaN and infinity (SCPI-99, volume 1, 7.2.1.4 and 5)."""

RUNNING, SAMPLES, ERRORS, EVENTS = 1, 2, 4, 32
"""Bits of the status byte."""
OPERATION_COMPLETE, DEVICE_ERROR, EXECUTION_ERROR, COMMAND_ERROR, POWER_ON = 1, 8, 16, 32, 128
"""Bits of the event status register (IEEE 488.2)."""

ERROR_TEXTS = {
    0: "No error",
    -104: "Data type error",
    -108: "Parameter not allowed",
    -109: "Missing parameter",
    -113: "Undefined header",
    -161: "Invalid block data",
    -213: "Init ignored",
    -221: "Settings conflict",
    -222: "Data out of range",
    -223: "Too much data",
    -230: "Data corrupt or stale",
    -350: "Queue overflow",
    101: "Machine fault",
}
MAX_DETAIL = 255
MAX_LINE = 1024
"""Characters of a command beside its block."""


class ScpiError(Exception):
    """What goes into the error queue.

    Attributes:
        number: one of ERROR_TEXTS.
        detail: what the machine says beside the number's text.
    """

    def __init__(self, number: int, detail: str = "") -> None:
        self.number = number
        self.detail = " ".join(detail.encode("ascii", "replace").decode().replace('"', "'").split())[:MAX_DETAIL]
        super().__init__(self.line)

    @property
    def line(self) -> str:
        """As SYSTem:ERRor? answers it."""
        text = ERROR_TEXTS[self.number]
        return f'{self.number},"{text};{self.detail}"' if self.detail else f'{self.number},"{text}"'


_ERROR_LINE = re.compile(r'([+-]?\d{1,6}),"(.*)"')


def parse_error(line: str) -> tuple[int, str] | None:
    """Number and text of an answer to SYSTem:ERRor?; None if it is no such answer."""
    match = _ERROR_LINE.fullmatch(line.strip())
    return None if match is None else (int(match[1]), match[2])


def block(data: bytes) -> bytes:
    """Data as a definite-length arbitrary block (IEEE 488.2, 8.7.9)."""
    length = str(len(data))
    return f"#{len(length)}{length}".encode() + data


def forms(pattern: str) -> tuple[str, ...]:
    """All upper-case spellings of a header given as "SYSTem:ERRor?": each node short or long."""
    spellings = [""]
    for node in pattern.removesuffix("?").split(":"):
        short = "".join(letter for letter in node if not letter.islower())
        spellings = [
            f"{head}:{tail}".lstrip(":") for head in spellings for tail in dict.fromkeys((short, node.upper()))
        ]
    return tuple(spelling + "?" * pattern.endswith("?") for spelling in spellings)


@dataclass(frozen=True, slots=True)
class Message:
    """One command.

    Attributes:
        header: upper case, without a leading colon.
        words: parameters.
        block: the last parameter, if it is a block.
        error: why it cannot be understood; the rest is empty then.
    """

    header: str
    words: tuple[str, ...] = ()
    block: bytes | None = None
    error: ScpiError | None = None


class Splitter:
    """Cuts a stream of bytes into messages.

    Args:
        largest: bytes that a block may have; a larger one is skipped.
    """

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._buffer = bytearray()
        self._skip = 0
        self._flood = False

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are whole now."""
        self._buffer += data
        found = []
        while (message := self._next()) is not None:
            if message.header or message.error:
                found.append(message)
        return found

    def _next(self) -> Message | None:
        if self._skip:
            gone = min(self._skip, len(self._buffer))
            del self._buffer[:gone]
            self._skip -= gone
            if self._skip:
                return None
        end, mark = self._buffer.find(b"\n"), self._buffer.find(b"#")
        if self._flood or mark < 0 or -1 < end < mark:
            return self._line(end)
        digits = self._buffer[mark + 1 : mark + 2]
        if not digits:
            return None
        if not digits.isdigit() or digits == b"0":
            self._flood = True
            return self._line(end)
        start = mark + 2 + int(digits)
        if len(self._buffer) < start:
            return None
        count = bytes(self._buffer[mark + 2 : start])
        if not count.isdigit():
            self._flood = True
            return self._line(end)
        if int(count) > self._largest:
            header = self._text(self._buffer[:mark])
            del self._buffer[:start]
            self._skip = int(count)
            return Message("", error=ScpiError(-223, f"{header}: a block of {int(count)} bytes, {self._largest} fit"))
        after = start + int(count)
        end = self._buffer.find(b"\n", after)
        if end < 0:
            return None
        head, data = self._text(self._buffer[:mark]), bytes(self._buffer[start:after])
        rest = self._text(self._buffer[after:end])
        del self._buffer[: end + 1]
        if rest:
            return Message("", error=ScpiError(-161, f"{head}: {len(rest)} characters after the block's end"))
        return self._message(head.rstrip(","), data)

    def _line(self, end: int) -> Message | None:
        if end < 0:
            if len(self._buffer) > MAX_LINE:  # keep nothing of it, and wait for its end
                self._buffer.clear()
                self._flood = True
            return None
        text = self._text(self._buffer[:end])
        del self._buffer[: end + 1]
        if self._flood or len(text) > MAX_LINE:
            self._flood = False
            return Message("", error=ScpiError(-161, "no line or block that could be read"))
        return self._message(text, None)

    @staticmethod
    def _text(data: bytearray) -> str:
        return data.decode("ascii", "replace").strip()

    @staticmethod
    def _message(text: str, data: bytes | None) -> Message:
        header, _, rest = text.partition(" ")
        words = tuple(word.strip() for word in rest.split(",")) if rest.strip() else ()
        return Message(header.upper().removeprefix(":"), words, data)
