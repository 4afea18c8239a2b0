"""What is wrong with a chip: the flaws of real p-bit hardware, as a description of how a wafer of chips scatters.

A `Nonidealities` and a chip's number say all about one simulated chip; `glauber_simulator` fabricates it. Everything is
zero unless it is given, and a chip without flaws is the ideal device, bit for bit. `Nonidealities.typical()` has values
from sources, which `TYPICAL` names.

A p-bit's law, with its argument a = beta (h + sum J s):

    P(+1) = (1 + tanh(gain a + offset)) / 2
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from glauber.errors import FileFormatError, InvalidModelError
from glauber.spec import Provenance, Quantity

Size = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class Nonidealities(BaseModel):
    """How p-bit chips of one kind differ from the ideal one, and which of them this is.

    "Spread" is a standard deviation over p-bits; "of the range" is in parts of the largest |J| that the chip takes (of
    the largest programmed one where it takes any).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    chip: Annotated[int, Field(ge=0, lt=2**64)] = 0
    """Number of the chip: another one has other p-bits."""
    gain_spread: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Of the gains, around 1."""
    offset_spread: Annotated[float, Field(ge=0, le=4)] = 0.0
    """Of the offsets, around 0, in the argument of tanh."""
    spatial_correlation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Part of the variance of gains and offsets that a p-bit shares with its neighbours on the chip."""
    coupling_error: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Spread of couplings, programmed or not, the same both ways, of the range."""
    asymmetry: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Spread of the difference between the two directions of a coupling, of the range."""
    n_dead: Annotated[int, Field(ge=0)] = 0
    """p-bits that answer to nothing: fair coins."""
    n_stuck: Annotated[int, Field(ge=0)] = 0
    """p-bits that always have one value, whatever is asked of them, clamps included."""
    dac_bits: Annotated[int, Field(ge=1, le=31)] | None = None
    """Bits that the coupling DACs really have; 1: all couplings are the largest programmed one, or its negative."""
    dac_inl_lsb: Annotated[float, Field(ge=0, le=64)] = 0.0
    """Spread, over the DACs of the p-bits, of the bow of their characteristic in its middle, in steps of the DAC."""
    dac_dnl_lsb: Annotated[float, Field(ge=0, le=64)] = 0.0
    """Spread of single levels around the characteristic, in steps of the DAC."""
    crosstalk: Annotated[float, Field(ge=-1, le=1)] = 0.0
    """Couplings that nobody programmed, between neighbours on the chip, of the range; they scatter by 30 % of it."""
    readout_error: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Probability that the readout's comparator or ADC errs; single p-bits scatter by 30 % of it."""
    readout_bias: Annotated[float, Field(ge=-1, le=1)] = 0.0
    """Which way it errs: -1 only reads -1 for +1, 0 both alike, +1 only reads +1 for -1."""
    readout_late: Share = 0.0
    """Probability that a reading comes at a wrong time (jitter) and gives the value from before the last sweep."""
    readout_undecided: Share = 0.0
    """Probability that a reading catches its comparator undecided (metastability): a fair coin."""
    memory_sweeps: Annotated[float, Field(ge=0, le=1e5)] = 0.0
    """Correlation time of the noise that decides, an Ornstein-Uhlenbeck process sampled once a sweep."""
    ou_noise: Annotated[float, Field(ge=0, le=8)] = 0.0
    """Size (rms) of a slow noise in the argument of tanh, an Ornstein-Uhlenbeck process for each p-bit."""
    ou_sweeps: Annotated[float, Field(gt=0, le=1e6)] = 100.0
    """Its correlation time."""
    flicker_noise: Annotated[float, Field(ge=0, le=8)] = 0.0
    """Size (rms) of 1/f noise in the argument, for frequencies from 1 / 400,000 to 1/6 of a sweep."""
    supply_noise: Annotated[float, Field(ge=0, le=8)] = 0.0
    """Size (rms) of what the supply adds to the argument of all p-bits together, anew each sweep."""
    temperature_c: Annotated[float, Field(ge=-100, le=200)] = 25.0
    """Of the chip at rest. Gains are those of 25 degrees, and go with 1 / T."""
    offset_per_kelvin: Annotated[float, Field(ge=0, le=0.05)] = 0.0
    """Spread of what a kelvin adds to the offsets."""
    self_heating_k: Annotated[float, Field(ge=0, le=100)] = 0.0
    """How much warmer the chip is in the long run while it samples."""
    heating_seconds: Annotated[float, Field(gt=0)] = 1.0
    """Time constant of that, in the chip's own time, which its sweep rate gives."""
    drift_per_hour: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Spread of what an hour adds to the offsets."""
    age_hours: Size = 0.0
    """Since its offsets were 0 on average; a job adds its own duration."""

    @classmethod
    def typical(cls, chip: int = 0) -> Self:
        """A chip with all flaws at once, in sizes from `TYPICAL`, a day old."""
        sizes: dict[str, Any] = {name: quantity.best for name, quantity in TYPICAL.items()}
        return cls(chip=chip, age_hours=24.0, **sizes)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read from a JSON file.

        Raises:
            FileFormatError: it is no description of flaws; says what is wrong.
        """
        text = Path(path).read_text(encoding="utf-8")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise FileFormatError(f"{path} holds no Nonidealities: {_first(error)}") from error

    @classmethod
    def parse(cls, settings: dict[str, str]) -> Self:
        """From an address's parameters: `flaws=typical`, `flaws=FILE.json`, and single flaws, which replace theirs.

        Raises:
            InvalidModelError: a setting that does not exist or cannot be.
            FileFormatError: the file holds none.
        """
        rest = dict(settings)
        start = rest.pop("flaws", "none")
        base: dict[str, Any] = {}
        if start == "typical":
            base = cls.typical().model_dump()
        elif start != "none":
            try:
                base = cls.load(start).model_dump()
            except OSError as error:
                raise InvalidModelError(
                    f"flaws={start}: no such file ({error.strerror}); write flaws=typical, or the path of a JSON file"
                ) from error
        try:
            return cls.model_validate({**base, **rest})
        except ValidationError as error:
            raise InvalidModelError(f"the flaws in the address cannot be: {_first(error)}") from error

    @property
    def is_ideal(self) -> bool:
        """Whether nothing is wrong."""
        parts = ("chip", "ou_sweeps", "heating_seconds", "age_hours", "spatial_correlation", "readout_bias")
        return self == type(self)(**{name: getattr(self, name) for name in parts})


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"


def _quantity(value: float, unit: str, provenance: Provenance, source: str) -> Quantity:
    return Quantity(value=value, unit=unit, provenance=provenance, source=source)


TYPICAL: dict[str, Quantity] = {
    "gain_spread": _quantity(0.05, "1", "assumed", "half the size that acceptance tests must find (10 %)"),
    "offset_spread": _quantity(
        0.1, "1", "derived", "arXiv 2608.01612 App. D: 5 % error of a p-bit's probability; dP = offset / 2 at P = 1/2"
    ),
    "spatial_correlation": _quantity(0.3, "1", "assumed", "no source known"),
    "coupling_error": _quantity(
        0.012, "range", "measured", "D-Wave docs, ICE: sigma(dJ) 0.009 to 0.015; of another technology"
    ),
    "asymmetry": _quantity(0.005, "range", "assumed", "no source known"),
    "dac_inl_lsb": _quantity(1.0, "LSB", "assumed", "usual for a 12-bit DAC without trimming"),
    "dac_dnl_lsb": _quantity(0.5, "LSB", "assumed", "usual for a 12-bit DAC without trimming"),
    "crosstalk": _quantity(
        0.015, "range", "measured", "D-Wave docs, ICE: background susceptibility 0.015 to 0.04; of another technology"
    ),
    "readout_error": _quantity(0.001, "1", "vendor", "D-Wave solver properties: readout error at most 0.001"),
    "readout_late": _quantity(0.001, "1", "assumed", "no source known"),
    "readout_undecided": _quantity(0.001, "1", "assumed", "no source known"),
    "memory_sweeps": _quantity(
        0.5, "sweep", "derived", "arXiv 2510.23972 App. J: autocorrelation about 100 ns; 200 ns a sweep assumed"
    ),
    "ou_noise": _quantity(0.02, "1", "assumed", "no source known"),
    "flicker_noise": _quantity(0.02, "1", "assumed", "no source known"),
    "supply_noise": _quantity(0.01, "1", "assumed", "no source known"),
    "offset_per_kelvin": _quantity(0.002, "1/K", "assumed", "no source known"),
    "self_heating_k": _quantity(2.0, "K", "assumed", "no source known"),
    "drift_per_hour": _quantity(0.001, "1/h", "assumed", "no source known"),
}
"""Sizes of the flaws of `Nonidealities.typical()`, and their sources; nobody has published a set for one chip."""
