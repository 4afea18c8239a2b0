"""A request in parts: what is small as JSON, the model and the other arrays as objects that jobs share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from glauber.formats import MODEL_FORMAT, MODEL_VERSION, pack_archive, unpack_archive
from glauber.request import JobRequest

ARRAYS_FORMAT = "glauber.job-arrays"
ARRAYS_VERSION = 1
_OF_THE_MODEL = ("model", "offset", "labels")
_MODEL_ARRAYS = ("fields", "edges", "couplings", "allowed")


def split_request(request: JobRequest) -> tuple[dict[str, Any], Callable[[], bytes], bytes | None]:
    """(what is small, how to get the model's bytes, the other arrays' bytes or None)."""
    header, arrays = request.to_arrays()
    model = {name: arrays.pop(name) for name in _MODEL_ARRAYS if name in arrays}
    about = {name: header.pop(name) for name in _OF_THE_MODEL if name in header}
    packed = pack_archive(ARRAYS_FORMAT, ARRAYS_VERSION, {}, arrays) if arrays else None
    return header, partial(pack_archive, MODEL_FORMAT, MODEL_VERSION, about, model), packed


def join_request(header: dict[str, Any], model: bytes, arrays: bytes | None, name: str) -> JobRequest:
    """The inverse of split_request; every check runs again.

    Raises:
        FileFormatError: the parts do not make a request.
    """
    about, coefficients = unpack_archive(model, MODEL_FORMAT, MODEL_VERSION, name)
    others = {} if arrays is None else unpack_archive(arrays, ARRAYS_FORMAT, ARRAYS_VERSION, name)[1]
    return JobRequest.from_arrays({**about, **header}, {**coefficients, **others}, name)
