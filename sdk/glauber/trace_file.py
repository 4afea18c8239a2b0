"""Recordings of a meter in files, so that they can be evaluated again: by a better budget, or by somebody else.

An npz file: `header` is JSON text with the format's version, the MeterSpec, the idle power and the window; `times` and
`readings` are the arrays of the Trace.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

import numpy as np

from glauber.errors import FileFormatError, InvalidModelError
from glauber.meter import ErrorLimit, IdlePower, MeterSpec, Trace

VERSION = 1


def save_trace(path: str | Path, spec: MeterSpec, trace: Trace, *, idle: IdlePower | None = None) -> None:
    """Write a recording, with all that `measured_energy` needs; the name should end in .npz.

    Raises:
        InvalidModelError: the spec is a power that somebody stated: nothing was recorded.
        OSError: it cannot be written.
    """
    if spec.model is not None:
        raise InvalidModelError(f"{spec.name} reads nothing, so there is no recording to save")
    header = {
        "glauber_trace": VERSION,
        "spec": {name: value for name, value in asdict(spec).items() if name != "model"},
        "idle": None if idle is None else asdict(idle),
        "window": trace.window,
        "skews": trace.skews,
    }
    with Path(path).open("wb") as file:
        np.savez_compressed(file, header=np.array(json.dumps(header)), times=trace.times, readings=trace.readings)


def load_trace(path: str | Path) -> tuple[MeterSpec, Trace, IdlePower | None]:
    """Read a recording.

    Raises:
        FileFormatError: it is no such file, damaged, or of a newer version.
        OSError: it cannot be read.
    """
    content = Path(path).read_bytes()
    try:
        with np.load(BytesIO(content), allow_pickle=False) as arrays:
            header = json.loads(str(arrays["header"]))
            times = np.asarray(arrays["times"], dtype=np.float64)
            readings = np.asarray(arrays["readings"], dtype=np.float64)
        if header["glauber_trace"] != VERSION:
            raise FileFormatError(
                f"{path} is a recording of version {header['glauber_trace']}, and this glauber reads version {VERSION};"
                " a newer glauber may read it"
            )
        fields = header["spec"]
        spec = MeterSpec(**{**fields, "limits": tuple(ErrorLimit(**limit) for limit in fields["limits"])})
        window = header["window"]
        trace = Trace(times, readings, None if window is None else (window[0], window[1]), tuple(header["skews"]))
        idle = None if header["idle"] is None else IdlePower(**header["idle"])
    except FileFormatError:
        raise
    except Exception as error:  # damage shows as errors of zipfile, zlib, tokenize, json and NumPy alike, OSError too
        raise FileFormatError(
            f"{path} is no recording of a meter, or damaged ({error}); glauber.trace_file.save_trace writes them"
        ) from error
    if times.ndim != 1 or len(times) < 2 or readings.shape[-1:] != times.shape:
        raise FileFormatError(f"{path}: readings of shape {readings.shape} at {times.shape} times")
    return spec, trace, idle
