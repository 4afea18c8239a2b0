"""What a device is and can: typed, frozen, with the provenance of every physical number.

What nobody published stays None. A number is a `Quantity`: a value or an interval with unit, uncertainty, provenance
and source, so that a figure from a circuit simulation can never pass for a measurement.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_serializer, model_validator

from glauber.topology import Topology

Provenance = Literal["measured", "vendor", "model", "derived", "assumed"]
Boundary = Literal["kernel", "chip", "board", "wall"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Quantity(_Frozen):
    """A physical number with where it comes from."""

    value: float | None = None
    """The best estimate; None when only an interval is known."""
    low: float | None = None
    """Lower end, where sources give a range or disagree."""
    high: float | None = None
    """Upper end."""
    unit: str
    """SI unit or a plain word: "J", "s", "Hz", "W", "bit", "1"."""
    standard_uncertainty: Annotated[float, Field(ge=0)] | None = None
    """One standard deviation, in the same unit; None where the source states none."""
    provenance: Provenance
    """measured: somebody's instrument; vendor: the maker says so; model: circuit simulation; derived: arithmetic on
    other figures; assumed: chosen here."""
    source: str
    """Paper, page or file, and for derived figures the formula."""
    date: str | None = None
    """When the figure was published or measured, ISO 8601 as far as known."""
    boundary: Boundary | None = None
    """For joules and watts: what is inside the meter."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.value is None and (self.low is None or self.high is None):
            raise ValueError("a quantity needs a value, or low and high")
        ends = [x for x in (self.low, self.value, self.high) if x is not None]
        if ends != sorted(ends):
            raise ValueError(f"low <= value <= high does not hold for {ends}")
        return self

    @property
    def best(self) -> float:
        """The value, or the middle of the interval."""
        if self.value is not None:
            return self.value
        low, high = self.low, self.high
        return float("nan") if low is None or high is None else (low + high) / 2  # the validator lets neither be None

    @property
    def uncertainty(self) -> float:
        """The standard uncertainty used in budgets; an interval counts as uniform, width / sqrt(12) (GUM 4.3.7).

        0 where neither an uncertainty nor an interval is stated: the figure is then of unknown quality, which its
        provenance says.
        """
        if self.standard_uncertainty is not None:
            return self.standard_uncertainty
        if self.low is not None and self.high is not None:
            return float((self.high - self.low) / 12**0.5)
        return 0.0

    def __str__(self) -> str:
        if self.value is None:
            text = f"{self.low:.6g} to {self.high:.6g} {self.unit}"
        elif self.low is not None or self.high is not None:
            low, high = self.low, self.high
            if low is not None and high is not None:
                text = f"{self.value:.6g} {self.unit} ({low:.6g} to {high:.6g})"
            else:
                text = f"{self.value:.6g} {self.unit} " + ("or more" if high is None else f"(at most {high:.6g})")
        elif self.standard_uncertainty is not None:
            text = f"{self.value:.6g} +- {self.standard_uncertainty:.2g} {self.unit}"
        else:
            text = f"{self.value:.6g} {self.unit}"
        return f"{text}, {self.provenance}"


class Coefficients(_Frozen):
    """Precision and range of what can be programmed. None: not published.

    A number of B bits is signed and symmetric: the integers from -(2^(B-1) - 1) to 2^(B-1) - 1 times one step.
    """

    weight_bits: Annotated[int, Field(strict=True, ge=1, le=31)] | None = None
    """Bits of a coupling, sign included; 1 bit is -J or +J."""
    field_bits: Annotated[int, Field(strict=True, ge=1, le=31)] | None = None
    """Bits of a field, on the couplings' step unless field_range says otherwise; weight_bits where None."""
    weight_range: Annotated[float, Field(gt=0)] | None = None
    """Largest |J|; the step is weight_range / (2^(weight_bits - 1) - 1). None: any scale, chosen for each job."""
    field_range: Annotated[float, Field(gt=0)] | None = None
    """Largest |h|."""
    provenance: Provenance = "assumed"
    source: str = ""


Method = Literal["tempering", "population", "metropolis", "asynchronous"]


class Capabilities(_Frozen):
    """What a device can do; what it cannot, `Device` emulates or refuses."""

    sampler: bool = True
    """Draws from the Boltzmann law at a stated temperature. False: an optimiser, good for low energies only."""
    beta: Literal["programmable", "folded", "none"] = "programmable"
    """programmable: set per run. folded: by scaling the coefficients. none: the machine's own business."""
    beta_range: tuple[float, float] | None = None
    """Smallest and largest programmable beta; None for any."""
    clamp: bool = True
    """Spins can be held."""
    initial: bool = True
    """Chains can start from given states."""
    chain_fields: bool = False
    """Each chain of a job can have fields of its own."""
    deterministic: bool = False
    """The same seed gives the same samples."""
    directed: bool = False
    """Each coupling is programmed twice, once per direction."""
    potts_states: Annotated[int, Field(strict=True, ge=0)] = 0
    """Largest number of states of a p-dit; 0 for p-bits only."""
    observables: frozenset[Literal["samples", "last", "moments", "energies"]] = frozenset(
        {"samples", "last", "moments", "energies"}
    )
    """What the device can return."""
    methods: tuple[Method, ...] = ()
    """What it can do beside sampling and annealing with one beta for all chains."""

    @field_serializer("observables")
    def _in_order(self, observables: frozenset[str]) -> list[str]:
        """A set has no order, and a description must have one digest in every process."""
        return sorted(observables)


class Costs(_Frozen):
    """Seconds, joules and watts of the device's operations. None: not published."""

    sweep_rate_hz: Quantity | None = None
    """Sweeps of all its p-bits per second."""
    update_rate_hz: Quantity | None = None
    """p-bit updates per second, all p-bits together."""
    joules_per_update: Quantity | None = None
    """Energy of one p-bit update."""
    joules_per_write: Quantity | None = None
    """Energy to program one node with its couplings and bias."""
    joules_per_read: Quantity | None = None
    """Energy to read one p-bit's state."""
    joules_per_clamp: Quantity | None = None
    """Energy to hold one p-bit at a value, or to change the value it is held at."""
    joules_per_byte_moved: Quantity | None = None
    """Energy to move one byte between the device and its host, coefficients in and states out."""
    program_seconds: Quantity | None = None
    """Time to program a whole problem."""
    read_seconds: Quantity | None = None
    """Time to read the state of all p-bits once."""
    idle_watts: Quantity | None = None
    """Power while nothing runs."""
    power_watts: Quantity | None = None
    """Power while it runs."""
    control_watts: Quantity | None = None
    """Power of what controls the p-bits while they run (clocks, sequencer, host interface), in none of the others."""
    max_reflash_hz: Quantity | None = None
    """How often the weights may be rewritten."""


class SpecBase(_Frozen):
    """What all kinds of device have in common."""

    schema_name: Literal["glauber.device-spec"] = "glauber.device-spec"
    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    """Name in the catalogue and in addresses."""
    title: str
    """Name for people."""
    vendor: str
    status: Literal["product", "service", "prototype", "announced", "model", "design", "retired"]
    """How real it is; "design" is a reference design of this project, "model" a machine that exists on paper."""
    description: str = ""
    units: Quantity | None = None
    """Number of p-bits (or variables) of the real machine."""
    topology: Topology | None = None
    """Which sites can be coupled; None: not published, or any graph as `any_graph` says."""
    any_graph: bool = False
    """Couplings between any two sites are possible, up to the number of units."""
    grid_rules: tuple[tuple[int, int], ...] | None = None
    """The rules of an offset grid whose width and height are not published: an address can give them."""
    topology_note: str = ""
    """Why the topology is missing or only ideal."""
    coefficients: Coefficients = Coefficients()
    capabilities: Capabilities = Capabilities()
    costs: Costs = Costs()
    facts: dict[str, Quantity] = Field(default_factory=dict)
    """Further published figures that no part of the SDK computes with."""
    notes: tuple[str, ...] = ()
    """Conflicts between sources and other things a user must know."""

    @property
    def n_sites(self) -> int | None:
        """Sites that can be programmed: the topology's, or the number of units where any graph is possible."""
        if self.topology is not None:
            return self.topology.n_sites
        if self.units is None or not self.any_graph:
            return None
        return int(self.units.value if self.units.value is not None else self.units.low or 0)  # what surely exists

    @property
    def spec_hash(self) -> str:
        """A digest of the whole description."""
        return hashlib.blake2b(self.model_dump_json().encode(), digest_size=8).hexdigest()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """IPython shows the same text as `print(spec)`."""
        printer.text("..." if cycle else str(self))

    def __str__(self) -> str:
        return "\n".join(f"{label}: {text}" for label, text in summary_rows(self))


class TsuSpec(SpecBase):
    """A thermodynamic sampling unit."""

    kind: Literal["tsu"] = "tsu"


class PbitSpec(SpecBase):
    """A machine of p-bits: magnetic, CMOS, or on an FPGA."""

    kind: Literal["pbit"] = "pbit"


class AnnealerSpec(SpecBase):
    """An Ising annealer, digital, quantum or optical."""

    kind: Literal["annealer"] = "annealer"


class GpuSpec(SpecBase):
    """A GPU."""

    kind: Literal["gpu"] = "gpu"


class CpuSpec(SpecBase):
    """A general-purpose processor, simulators included."""

    kind: Literal["cpu"] = "cpu"


AnySpec = TsuSpec | PbitSpec | AnnealerSpec | GpuSpec | CpuSpec
DeviceSpec = Annotated[AnySpec, Field(discriminator="kind")]
device_spec_adapter: TypeAdapter[AnySpec] = TypeAdapter(DeviceSpec)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a device description."""
    schema = device_spec_adapter.json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "glauber.device-spec", **schema}


def summary_rows(spec: SpecBase) -> list[tuple[str, str]]:
    """(label, text) rows that describe a device to a person; what is not published says so."""
    unknown = "not published"
    coefficients, capabilities = spec.coefficients, spec.capabilities
    no_topology = "any graph" if spec.any_graph else unknown
    topology = no_topology if spec.topology is None else spec.topology.describe()
    beta_range = "" if capabilities.beta_range is None else " from {:g} to {:g}".format(*capabilities.beta_range)
    precision = unknown if coefficients.weight_bits is None else f"{coefficients.weight_bits} bits"
    weight_range = "any scale" if coefficients.weight_range is None else f"|J| <= {coefficients.weight_range:g}"
    abilities = ["samples the Boltzmann law" if capabilities.sampler else "optimiser, states no temperature"]
    abilities += [f"p-dits up to {capabilities.potts_states} states"] if capabilities.potts_states else []
    abilities += [
        text
        for text, has in (
            ("clamps", capabilities.clamp),
            ("starts from given states", capabilities.initial),
            ("fields per chain", capabilities.chain_fields),
            ("same seed, same samples", capabilities.deterministic),
        )
        if has
    ]
    rows = [
        ("name", spec.name),
        ("title", spec.title),
        ("kind", str(getattr(spec, "kind", "")) + f" ({spec.status})"),
        ("vendor", spec.vendor),
        ("about", spec.description),
        ("p-bits", unknown if spec.units is None else str(spec.units)),
        ("topology", topology + (f"; {spec.topology_note}" if spec.topology_note else "")),
        ("couplings", f"{precision}, {weight_range}"),
        ("beta", capabilities.beta + beta_range),
        ("can", ", ".join(abilities)),
    ]
    for name in Costs.model_fields:
        quantity = getattr(spec.costs, name)
        rows.append((name.replace("_", " "), unknown if quantity is None else str(quantity)))
    rows += [(name.replace("_", " "), str(quantity)) for name, quantity in spec.facts.items()]
    rows += [("note", note) for note in spec.notes]
    return [(label, text) for label, text in rows if text]
