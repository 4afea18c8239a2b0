"""A twin: a simulated chip with the flaws that were measured on a real one, as one file to send to a colleague.

`glauber twin RECORD` writes it and prints its address, `sim://NAME?twin=FILE`. It holds the device's whole
description, so it opens where the device is unknown. A twin is as good as the protocols that were run: what was not
measured is ideal.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from glauber.calibration.record import CalibrationRecord
from glauber.errors import CalibrationError, FileFormatError
from glauber.formats import write_bytes
from glauber.spec import AnySpec, device_spec_adapter


class TwinSpec(BaseModel):
    """A device's description and a calibration of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal["glauber.twin"] = "glauber.twin"
    version: Literal[1] = 1
    spec: dict[str, object]
    """As `DeviceSpec` has it."""
    record: CalibrationRecord

    @classmethod
    def of(cls, record: CalibrationRecord, spec: AnySpec) -> Self:
        """The twin of a device that was calibrated.

        Raises:
            CalibrationError: the record is of another device, or says nothing about its p-bits.
        """
        record.check_device(spec)
        if record.pbits is None:
            raise CalibrationError(f'calibration {record.id} says nothing about p-bits; run the protocol "pbits"')
        return cls(spec=spec.model_dump(mode="json"), record=record)

    @property
    def device_spec(self) -> AnySpec:
        """The description."""
        return device_spec_adapter.validate_python(self.spec)

    def check_fresh(self, now: datetime | None = None) -> None:
        """Refuse a twin whose calibration has expired.

        Raises:
            CalibrationError: it has.
        """
        moment = datetime.now(UTC) if now is None else now
        if self.record.expired(moment):
            raise CalibrationError(
                f"the twin's calibration {self.record.id} expired at {self.record.expires}: calibrate the device"
                " again, or"
                " open the twin with expired=yes to look at the past"
            )

    def save(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all."""
        write_bytes(path, (self.model_dump_json(indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            FileFormatError: it holds no twin.
        """
        try:
            twin = cls.model_validate_json(Path(path).read_text(encoding="utf-8"))
            twin.record.check_device(twin.device_spec)
        except (ValidationError, UnicodeDecodeError, CalibrationError) as error:
            first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise FileFormatError(f"{path} holds no twin: {first}") from error
        return twin
