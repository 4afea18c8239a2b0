"""devices.toml: what a lab server serves, to whom it listens, and how much of it anybody may have."""

from __future__ import annotations

import ipaddress
import tomllib
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import parse_qs, quote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from glauber.errors import FileFormatError

OWNER_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"
DEVICE_PATTERN = r"^[a-z0-9][a-z0-9-]{0,63}$"
MEBIBYTE = 2**20

DeviceName = Annotated[str, Field(pattern=DEVICE_PATTERN)]
OwnerName = Annotated[str, Field(pattern=OWNER_PATTERN)]
Positive = Annotated[int, Field(gt=0, strict=True)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DeviceConfig(_Strict):
    """One device of the lab; its name in the file is its name in addresses."""

    address: str
    """As for `glauber.open_device`, such as sim://pbit-king-64 or serial:///dev/ttyACM0."""
    title: str = ""
    """For people."""
    meter: str | None = None
    """The meter of the device's joules: the address of one, such as rapl:// (docs/meters.md), or a name that the driver
    understands in its own address: "nvml" for cupy://."""
    calibration: str | None = None
    """What corrects the jobs: the path of a record (.json), an id in the history, or "latest" for the one that is in
    force there for this address.
    """
    max_sites: Positive | None = None
    max_chains: Positive | None = None
    max_sweeps: Positive | None = None
    """Of one job, per chain."""
    max_queue_per_owner: Positive = 1000
    """Jobs of one owner that are queued or running at a time."""

    @property
    def full_address(self) -> str:
        """The address, with a meter that the driver knows by name in its query."""
        if self.meter is None or self.meter_address is not None:
            return self.address
        return f"{self.address}{'&' if '?' in self.address else '?'}meter={quote(self.meter, safe='')}"

    @property
    def meter_address(self) -> str | None:
        """For `glauber.open_device(..., meter=)`; None where the driver brings the meter, or there is none."""
        return self.meter if self.meter is not None and "://" in self.meter else None

    def seen_from(self, folder: Path) -> DeviceConfig:
        """With a calibration's relative path as seen from a folder."""
        if self.calibration is None or not self.calibration.endswith(".json"):
            return self
        return self.model_copy(update={"calibration": str(folder / self.calibration)})


class OwnerConfig(_Strict):
    """What an owner may use in a day, midnight to midnight UTC; who is not listed is not limited."""

    seconds_per_day: float | None = Field(default=None, gt=0)
    joules_per_day: float | None = Field(default=None, gt=0)


class LabConfig(_Strict):
    """The whole file."""

    host: str = "127.0.0.1"
    port: int = Field(default=8765, ge=1, le=65535, strict=True)
    names: tuple[str, ...] = ()
    """Further names under which clients reach the server; requests for other names are refused."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    allow_plain_http: bool = False
    """Listen beyond this computer without TLS: everybody on the way can read the tokens."""
    store: Path | None = None
    """The job store's file; None for the user's own, as for `glauber.JobStore()`."""
    max_request_bytes: Positive = 64 * MEBIBYTE
    max_unpacked_bytes: Positive = 512 * MEBIBYTE
    requests_per_minute: Positive = 1200
    """Of one token."""
    failed_logins_per_minute: Positive = 20
    """From one network address."""
    devices: dict[DeviceName, DeviceConfig] = Field(min_length=1)
    owners: dict[OwnerName, OwnerConfig] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together; give both or none")
        if not self.is_loopback and self.tls_certificate is None and not self.allow_plain_http:
            raise ValueError(
                f"host = {self.host!r} is reached from other computers, and without TLS everybody on the way can read"
                " the tokens: give tls_certificate and tls_key, keep host = '127.0.0.1' and let users come by ssh -L,"
                " or write allow_plain_http = true"
            )
        if self.host in ("0.0.0.0", "::") and not self.names:
            raise ValueError(f"host = {self.host!r} has no name of its own; list the server's names, names = [...]")
        seeded = [name for name, device in self.devices.items() if "seed" in parse_qs(urlsplit(device.address).query)]
        if seeded:
            raise ValueError(f"devices.{seeded[0]}.address has a seed: jobs would repeat themselves after each start")
        addresses = [device.full_address for device in self.devices.values()]
        twice = sorted({address for address in addresses if addresses.count(address) > 1})
        if twice:
            raise ValueError(f"{twice[0]} is the address of two devices; every device is listed once")
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this computer can reach the server."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def host_names(self) -> frozenset[str]:
        """What a request's Host header may name, without the port."""
        loopback = {"127.0.0.1", "localhost", "[::1]"}
        own = f"[{self.host}]" if ":" in self.host else self.host
        return frozenset(name.lower() for name in {own, *self.names, *loopback})

    @property
    def url(self) -> str:
        """Where clients find the server."""
        host = self.names[0] if self.names else self.host
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        return f"{'http' if self.tls_certificate is None else 'https'}://{host}:{self.port}"


def read_config(path: str | Path) -> LabConfig:
    """Read devices.toml; relative paths in it are seen from its folder.

    Raises:
        FileFormatError: naming the line or the field that is wrong.
        OSError: the file cannot be read.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"there is no lab configuration {file}; write one (docs/lab-server.md begins with it), or name it"
        )
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{file} is not TOML: {error}") from error
    try:
        config = LabConfig(**table)
    except ValidationError as error:
        raise FileFormatError(f"{file}: {_readable(error)}") from None
    except TypeError as error:
        raise FileFormatError(f"{file}: {error}") from None
    folder = file.resolve().parent
    paths = {name: getattr(config, name) for name in ("store", "tls_certificate", "tls_key")}
    changes: dict[str, Any] = {name: folder / value for name, value in paths.items() if value is not None}
    return config.model_copy(update={**changes, "devices": {n: d.seen_from(folder) for n, d in config.devices.items()}})


def _readable(error: ValidationError) -> str:
    """What is wrong, each by its field; a misspelt name is both missing and unknown, so all of them are said."""
    lines = []
    for mistake in error.errors(include_url=False)[:5]:
        field = ".".join(str(part) for part in mistake["loc"] if part != "[key]")
        message = mistake["msg"].removeprefix("Value error, ")
        if mistake["type"] == "extra_forbidden":
            message = "there is no such setting; docs/lab-server.md lists them"
        lines.append(f"{field}: {message}" if field else message)
    return "; ".join(lines)
