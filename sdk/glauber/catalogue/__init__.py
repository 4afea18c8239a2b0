"""The device catalogue: one TOML file per device, every number with its provenance and source.

What is not published is absent. The files are the data; this module reads them.
"""

from __future__ import annotations

import difflib
import tomllib
from functools import lru_cache
from importlib.resources import files

from pydantic import ValidationError

from glauber.errors import DeviceNotFoundError, FileFormatError
from glauber.spec import AnySpec, device_spec_adapter


@lru_cache(maxsize=1)
def catalogue_names() -> tuple[str, ...]:
    """Names of all devices in the catalogue, in alphabetical order."""
    entries = files(__name__).iterdir()
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in entries if entry.name.endswith(".toml")))


@lru_cache(maxsize=256)
def load_spec(name: str) -> AnySpec:
    """The description of a device of the catalogue.

    Raises:
        DeviceNotFoundError: no such name; close ones are suggested.
        FileFormatError: the file does not hold a valid description.
    """
    if name not in catalogue_names():
        close = difflib.get_close_matches(name, catalogue_names(), n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(catalogue_names())}"
        raise DeviceNotFoundError(f"the catalogue has no device {name!r}; {hint}")
    text = files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    try:
        spec = device_spec_adapter.validate_python(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise FileFormatError(f"catalogue file {name}.toml: {error}") from error
    if spec.name != name:
        raise FileFormatError(f"catalogue file {name}.toml describes {spec.name!r}")
    return spec
