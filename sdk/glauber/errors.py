"""Every error that glauber raises on purpose.

    GlauberError
    |-- InvalidModelError(ValueError)        the input is wrong whatever the device: NaN, a self-loop, a bad clamp
    |-- ModelNotSupportedError(ValueError)   the input is fine, but not on this device: missing edge, coefficient range
    |-- DeviceNotFoundError(LookupError)     no such address, scheme or catalogue entry, or a part is not installed
    |-- DeviceClosedError(RuntimeError)      the device was closed, or its worker died
    |-- DeviceIOError(OSError)               the link to the device failed
    |   `-- ProtocolError                    the device answered, but not what its protocol says
    |-- FileFormatError(ValueError)          a file that is truncated, malformed or of another version
    |-- StoreError(OSError)                  jobs cannot be stored or read: disk full, read-only, locked, newer version
    |   `-- StoreCorruptError                stored bytes are not those that were written
    |-- JobNotFoundError(LookupError)        no job has this id
    |-- AccessError(PermissionError)         a lab server does not let this token do that
    |-- MeteringError                        a meter cannot say: window too short, uncertainty above the signal
    |-- CalibrationError                     a calibration that cannot be made or applied
    |-- JobFailedError(RuntimeError)         the job broke on the device; `__cause__` has the reason
    |-- SafetyError                          a SafeModel refuses: such as for a draw in a critical task
    |   |-- InputRefusedError(ValueError)    what a SafeModel was given is not what its rule allows
    |   `-- OutputRefusedError(ValueError)   what its model returned is no probabilities
    |-- JobCancelledError                    the result of a cancelled job was asked for, or it was cancelled twice
    |-- JobTimeoutError(TimeoutError)        `result(timeout=...)` expired; the job itself goes on
    |-- BudgetExceededError                  the budget was spent before there was anything to return
    `-- MissingExtraError(ImportError)       an optional package is needed; the message has the install line

Each message says what was asked, what is possible and what to try. Where the standard library has a class for the
situation, ours derives from it too, so code that knows nothing of glauber can still catch it.
"""

from __future__ import annotations


class GlauberError(Exception):
    """Base of every error that glauber raises on purpose."""


class InvalidModelError(GlauberError, ValueError):
    """A model, schedule or argument that no device could run, such as NaN in a coupling."""


class ModelNotSupportedError(GlauberError, ValueError):
    """A valid request that this device cannot run.

    Attributes:
        reasons: one sentence per thing that does not fit.
    """

    def __init__(self, message: str, reasons: tuple[str, ...] = ()) -> None:
        self.reasons = reasons
        super().__init__("\n  - ".join((message, *reasons)))


class DeviceNotFoundError(GlauberError, LookupError):
    """No device answers to this address, or something it needs is not installed."""

    def __str__(self) -> str:  # LookupError's subclasses may print the repr of their argument; a sentence is wanted
        return str(self.args[0]) if self.args else ""


class DeviceClosedError(GlauberError, RuntimeError):
    """The device was closed, or its worker thread died; it takes no more jobs."""


class DeviceIOError(GlauberError, OSError):
    """The link to a device failed: unplugged, timed out, refused."""


class ProtocolError(DeviceIOError):
    """The device answered, but not what its protocol allows."""


class FileFormatError(GlauberError, ValueError):
    """A file is truncated, malformed or of a version that is not understood."""


class StoreError(GlauberError, OSError):
    """The job store cannot do what was asked: disk full, read-only, locked for too long, of a newer version."""


class StoreCorruptError(StoreError):
    """Something in the job store is not what was written there; what is not named is intact."""


class JobNotFoundError(GlauberError, LookupError):
    """No job has this id, or it was removed."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class AccessError(GlauberError, PermissionError):
    """A lab server refuses: no token, a wrong, expired or revoked one, or one without the scope or the right."""


class MeteringError(GlauberError):
    """A meter works but cannot say how many joules: the window is too short, or its uncertainty exceeds the signal."""


class CalibrationError(GlauberError):
    """A calibration could not be made or applied."""


class SafetyError(GlauberError):
    """A SafeModel gives no answer."""


class InputRefusedError(SafetyError, ValueError):
    """The input of a SafeModel is not what its rule allows; the model did not see it."""


class OutputRefusedError(SafetyError, ValueError):
    """The output of a SafeModel's model is no probabilities; it is not passed on."""


class JobFailedError(GlauberError, RuntimeError):
    """The job broke while it ran; `__cause__` holds what happened."""


class JobCancelledError(GlauberError):
    """The job was cancelled, so there is no result (ask for `partial=True` to keep what was drawn)."""


class JobTimeoutError(GlauberError, TimeoutError):
    """Waiting for a result took longer than the timeout; the job goes on."""


class BudgetExceededError(GlauberError):
    """The budget was spent before a single sample could be returned."""


class MissingExtraError(GlauberError, ImportError):
    """An optional package is missing; the message names the extra and the install line."""


def missing_extra(package: str, extra: str, what: str) -> MissingExtraError:
    """The error to raise when `what` needs `package`, which the extra `extra` installs."""
    return MissingExtraError(f"{what} needs the package {package!r}; install it with: pip install 'glauber[{extra}]'")


def error_named(name: str, message: str, reasons: tuple[str, ...] = ()) -> GlauberError | None:
    """An error of this module by the name of its class, as servers and stores write it; None if there is none."""
    kind = globals().get(name)
    if not (isinstance(kind, type) and issubclass(kind, GlauberError)):
        return None
    if kind is ModelNotSupportedError:  # its text is a heading and the reasons
        return ModelNotSupportedError(message.partition("\n")[0] if reasons else message, reasons)
    return kind(message)
