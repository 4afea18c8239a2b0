"""The catalogue: every file loads, every number says where it comes from, and the figures are those of devices.md."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import glauber as gl
import numpy as np
import pytest
from glauber.catalogue import catalogue_names, load_spec
from glauber.energy import Operations, modelled_energy
from glauber.errors import DeviceNotFoundError, ModelNotSupportedError
from glauber.spec import AnySpec, Costs, Quantity, device_spec_adapter, json_schema
from jsonschema import Draft202012Validator

NAMES = catalogue_names()
DESIGNS = ("pbit-king-64", "pbit-rbm-512")
DWAVE = tuple(name for name in NAMES if name.startswith("dwave-"))
REQUIRED = {
    *("x0", "xtr-0", "z1", "z1-stick", "z1-card", "cn101", "dtm-l70", "probana", "borders-2019", "si-2024"),
    *("sim-aadit-2022", "niazi-2024", "dsim-1", "dsim-2", "kv260", "hitachi-asic", "hitachi-gpu-type3"),
    *("hitachi-gpu-type4", "hitachi-40nm", "dwave-advantage2-system1", "dwave-advantage2-system2"),
    *("dwave-advantage2-system4", "dwave-advantage-system4", "dwave-advantage-system6", "fujitsu-da1", "fujitsu-da2"),
    *("fujitsu-da3", "toshiba-sbm", "cim-2016", "cim-2021", "h100-sxm5", "h200-sxm", "b200", "rtx-4060-laptop"),
    *("epyc-9654", "pbit-king-64", "pbit-rbm-512", "ideal"),
}
SCHEMA = Draft202012Validator(json_schema())
UNITS = {
    *("J", "s", "Hz", "W", "K", "H", "m", "1", "1/J"),
    *("bit", "bit/s", "byte/s", "MB", "GB"),
    *("p-bit", "spin", "qubit", "coupler", "variable", "core"),
}
COST_UNITS = {
    "sweep_rate_hz": "Hz",
    "update_rate_hz": "Hz",
    "joules_per_update": "J",
    "joules_per_write": "J",
    "joules_per_read": "J",
    "program_seconds": "s",
    "read_seconds": "s",
    "idle_watts": "W",
    "power_watts": "W",
    "control_watts": "W",
    "joules_per_clamp": "J",
    "joules_per_byte_moved": "J",
    "max_reflash_hz": "Hz",
}


def quantities(spec: AnySpec) -> Iterator[tuple[str, Quantity]]:
    """Every number of a description with its path."""
    if spec.units is not None:
        yield "units", spec.units
    for name in Costs.model_fields:
        quantity = getattr(spec.costs, name)
        if quantity is not None:
            yield f"costs.{name}", quantity
    for name, quantity in spec.facts.items():
        yield f"facts.{name}", quantity


def at(name: str, path: str) -> Any:
    """What a description has at a path such as `costs.joules_per_update`; None where it has nothing."""
    found: Any = load_spec(name)
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else getattr(found, part)
    return found


def sites_joined(spec: AnySpec) -> tuple[int, int] | None:
    """Two sites that the device couples, the lowest-numbered, or None where nobody says which."""
    if spec.topology is None:
        return (0, 1) if spec.any_graph else None
    edges = spec.topology.edges()
    i, j = edges[edges[:, 1].argmin()].tolist()
    return i, j


def pair_model(edge: tuple[int, int]) -> gl.IsingModel:
    """A ferromagnetic bond on one edge, and no fields."""
    return gl.IsingModel(np.zeros(max(edge) + 1), np.array([edge]), np.array([1.0]))


# What is there


def test_the_agreed_devices_are_there_in_all_kinds() -> None:
    assert set(NAMES) >= REQUIRED
    kinds = [load_spec(name).kind for name in NAMES]
    assert len(NAMES) >= 12
    assert {kind: kinds.count(kind) for kind in ("tsu", "pbit", "annealer", "gpu", "cpu")} == {
        "tsu": 7,
        "pbit": 12,
        "annealer": 15,
        "gpu": 4,
        "cpu": 2,
    }


def test_names_are_sorted_and_the_loader_helps_with_a_wrong_one() -> None:
    assert list(NAMES) == sorted(NAMES)
    with pytest.raises(DeviceNotFoundError, match="did you mean hitachi-asic"):
        load_spec("hitachi-asik")


@pytest.mark.parametrize("name", NAMES)
def test_file_has_a_title_a_maker_and_says_why_a_graph_is_missing(name: str) -> None:
    spec = load_spec(name)
    assert spec.name == name
    assert spec.title.strip()
    assert spec.vendor.strip()
    assert spec.description.strip()
    assert all(note.strip() for note in spec.notes)
    assert spec.topology is None or not spec.any_graph, "a graph of its own and any graph exclude each other"
    if spec.topology is None and name != "ideal":
        assert spec.topology_note, "the user must be told why there is no graph"


@pytest.mark.parametrize("name", NAMES)
def test_every_number_has_a_source_a_unit_and_a_sane_value(name: str) -> None:
    for path, quantity in quantities(load_spec(name)):
        assert len(quantity.source.strip()) > 5, path
        assert quantity.source == quantity.source.strip(), path
        assert quantity.unit in UNITS, f"{path} is in {quantity.unit!r}"
        assert math.isfinite(quantity.best), path
        assert quantity.best > 0, path
        ends = [end for end in (quantity.low, quantity.high) if end is not None]
        assert all(math.isfinite(end) and end >= 0 for end in ends), path
        assert quantity.standard_uncertainty is None or 0 < quantity.standard_uncertainty < quantity.best, path
        assert quantity.date is None or quantity.date[:2] == "20", path
        if quantity.boundary is not None:
            assert quantity.unit in {"J", "W"}, f"{path}: only joules and watts have a boundary"


@pytest.mark.parametrize("name", NAMES)
def test_costs_are_in_the_units_that_the_energy_model_takes(name: str) -> None:
    assert set(COST_UNITS) == set(Costs.model_fields)
    for field, unit in COST_UNITS.items():
        quantity = getattr(load_spec(name).costs, field)
        assert quantity is None or quantity.unit == unit, field


@pytest.mark.parametrize("name", NAMES)
def test_precision_has_a_source_where_there_is_one(name: str) -> None:
    coefficients = load_spec(name).coefficients
    assert coefficients.source.strip()
    numbers = (coefficients.weight_bits, coefficients.field_bits, coefficients.weight_range, coefficients.field_range)
    if numbers == (None,) * 4:
        assert coefficients.provenance == "assumed", "nothing is stated, so nothing can have been measured"


# The figures, against devices.md

FIGURES = (
    # device, path, low, value, high, provenance
    ("z1", "units", 250_000, None, 269_568, "vendor"),
    ("z1", "costs.joules_per_update", 1.2e-15, 7.09e-15, 1.3e-14, "model"),
    ("z1", "facts.joules_per_update_older", None, 1.2e-15, None, "derived"),
    ("z1", "facts.joules_per_update_later", None, 1.3e-14, None, "vendor"),
    ("z1", "costs.joules_per_write", None, 153.6e-12, None, "model"),
    ("z1", "costs.joules_per_read", None, 1.692e-12, None, "model"),
    ("z1", "costs.read_seconds", None, 25e-6, None, "model"),
    ("z1", "costs.sweep_rate_hz", None, 5e7, None, "model"),
    ("z1", "costs.max_reflash_hz", None, 1, None, "vendor"),
    ("z1", "costs.power_watts", 0, None, 1, "vendor"),
    ("z1-stick", "units", 500_000, 500_000, None, "vendor"),
    ("z1-card", "units", 4_000_000, 4_000_000, None, "vendor"),
    ("dtm-l70", "costs.joules_per_update", 1.3e-15, 2e-15, None, "model"),
    ("x0", "facts.calibration_error", None, 0.05, None, "measured"),
    ("x0", "facts.joules_per_random_bit", None, 350e-18, None, "measured"),
    ("xtr-0", "facts.demonstrated_samples", None, 20_000, None, "measured"),
    ("probana", "units", None, 8, 16, "vendor"),
    ("probana", "costs.update_rate_hz", 0, None, 80_000, "derived"),
    ("borders-2019", "units", None, 8, None, "measured"),
    ("borders-2019", "facts.largest_factorised", None, 945, None, "measured"),
    ("si-2024", "units", None, 80, None, "measured"),
    ("si-2024", "costs.sweep_rate_hz", None, 10e3, None, "measured"),
    ("si-2024", "costs.power_watts", None, 0.64e-3, None, "measured"),
    ("si-2024", "costs.joules_per_update", None, 0.8e-9, None, "derived"),
    ("si-2024", "facts.solutions_per_joule", None, 39, None, "measured"),
    ("sim-aadit-2022", "units", 5_000, None, 10_000, "measured"),
    ("niazi-2024", "units", None, 4_264, None, "measured"),
    ("niazi-2024", "costs.update_rate_hz", 50e9, None, 64e9, "measured"),
    ("dsim-1", "units", 50_000, None, 100_000, "vendor"),
    ("dsim-1", "costs.update_rate_hz", 0.9e12, 2.53e12, 3.0e12, "measured"),
    ("dsim-1", "costs.power_watts", 150, None, 180, "measured"),
    ("dsim-1", "costs.joules_per_update", 59e-12, None, 71e-12, "derived"),
    ("dsim-2", "units", None, 1_000_000, None, "measured"),
    ("dsim-2", "costs.update_rate_hz", 1e12, None, 3e12, "measured"),
    ("dsim-2", "costs.power_watts", 1_400, None, 1_600, "measured"),
    ("dsim-2", "costs.joules_per_update", 0.47e-9, None, 1.6e-9, "derived"),
    ("kv260", "costs.update_rate_hz", None, 51.2e9, None, "measured"),
    ("kv260", "costs.joules_per_update", None, 10.85e-12, None, "measured"),
    ("kv260", "costs.joules_per_read", None, 581e-12, None, "measured"),
    ("kv260", "costs.joules_per_write", None, 44.07e-9, None, "measured"),
    ("kv260", "costs.idle_watts", None, 3.1362, None, "measured"),
    ("kv260", "costs.power_watts", None, 3.6917, None, "measured"),
    ("pegasus-asic-28nm", "costs.joules_per_update", None, 1.2e-12, None, "measured"),
    ("aia-16nm", "costs.joules_per_update", None, 50e-12, None, "derived"),
    ("hitachi-asic", "units", None, 147_456, None, "vendor"),
    ("hitachi-gpu-type3", "units", None, 262_144, None, "vendor"),
    ("hitachi-gpu-type4", "units", None, 262_144, None, "vendor"),
    ("hitachi-40nm", "facts.anneal_seconds", None, 22e-6, None, "measured"),
    ("dwave-advantage2-system1", "units", None, 4_577, None, "measured"),
    ("dwave-advantage2-system2", "units", None, 4_514, None, "measured"),
    ("dwave-advantage2-system4", "units", None, 1_202, None, "measured"),
    ("dwave-advantage-system6", "units", None, 5_612, None, "measured"),
    ("dwave-advantage-system4", "units", None, 5_627, None, "measured"),
    ("dwave-advantage2-system1", "facts.working_couplers", None, 41_515, None, "measured"),
    ("dwave-advantage2-system2", "facts.working_couplers", None, 40_409, None, "measured"),
    ("dwave-advantage2-system4", "facts.working_couplers", None, 10_537, None, "measured"),
    ("dwave-advantage-system6", "facts.working_couplers", None, 40_088, None, "measured"),
    ("dwave-advantage-system4", "facts.working_couplers", None, 40_279, None, "measured"),
    ("dwave-advantage2-system1", "facts.beta_eff", None, 7.219, None, "measured"),
    ("dwave-advantage2-system1", "facts.temperature", None, 0.020, None, "measured"),
    ("dwave-advantage2-system1", "costs.program_seconds", None, 33_600e-6, None, "measured"),
    ("dwave-advantage2-system1", "costs.read_seconds", 17e-6, None, 101e-6, "measured"),
    ("dwave-advantage-system4", "costs.read_seconds", 17e-6, None, 235e-6, "measured"),
    ("dwave-advantage-system6", "facts.mutual_inductance", None, 1.554e-12, None, "measured"),
    ("fujitsu-da1", "units", None, 1_024, None, "vendor"),
    ("fujitsu-da2", "units", None, 8_192, None, "vendor"),
    ("fujitsu-da3", "units", None, 100_000, None, "vendor"),
    ("toshiba-sbm", "units", None, 10_000_000, None, "vendor"),
    ("toshiba-sbm", "facts.fpga_seconds_2021", None, 1.2e-3, None, "measured"),
    ("toshiba-sbm", "facts.fpga_nodes_projected", None, 100_000, None, "model"),
    ("cim-2016", "units", None, 2_000, None, "measured"),
    ("cim-2021", "units", None, 100_512, None, "measured"),
    ("h100-sxm5", "facts.memory_bandwidth", 3.0e12, 3.35e12, None, "vendor"),
    ("h100-sxm5", "facts.power_limit", None, 700, None, "vendor"),
    ("h200-sxm", "facts.memory", None, 141, None, "vendor"),
    ("b200", "facts.memory", 180, None, 192, "vendor"),
    ("b200", "facts.power_limit", None, 1_000, None, "vendor"),
    ("rtx-4060-laptop", "facts.power_limit", 35, None, 115, "vendor"),
    ("rtx-4060-laptop", "facts.memory_bandwidth", None, 256e9, None, "derived"),
    ("epyc-9654", "facts.cores", None, 96, None, "vendor"),
    ("epyc-9654", "facts.memory_bandwidth", None, 460.8e9, None, "derived"),
    ("epyc-9654", "facts.power_limit", None, 360, None, "vendor"),
)


@pytest.mark.parametrize(("name", "path", "low", "value", "high", "provenance"), FIGURES)
def test_figure(
    name: str, path: str, low: float | None, value: float | None, high: float | None, provenance: str
) -> None:
    quantity = at(name, path)
    assert (quantity.low, quantity.value, quantity.high) == (low, value, high)
    assert quantity.provenance == provenance


@pytest.mark.parametrize(
    ("name", "path", "uncertainty"),
    [
        ("kv260", "costs.joules_per_update", 0.47e-12),
        ("kv260", "costs.joules_per_read", 56e-12),
        ("kv260", "costs.joules_per_write", 3.04e-9),
        ("kv260", "facts.power_increment", 0.0240),
        ("dwave-advantage2-system1", "facts.beta_eff", 0.063),
        ("dwave-advantage2-system1", "facts.temperature", 1e-3),
        ("dwave-advantage-system4", "facts.temperature", 1e-4),
    ],
)
def test_stated_uncertainty(name: str, path: str, uncertainty: float) -> None:
    assert at(name, path).standard_uncertainty == uncertainty


def test_derived_figures_follow_from_the_others() -> None:
    z1 = load_spec("z1")
    assert z1.units is not None
    assert z1.units.high is not None
    update, write, read = (at("z1", f"costs.joules_per_{what}").value for what in ("update", "write", "read"))
    assert at("z1", "costs.update_rate_hz").value == pytest.approx(z1.units.high * 5e7)
    assert at("z1", "facts.joules_to_write_all").value == pytest.approx(z1.units.high * write, rel=1e-3)
    assert at("z1", "facts.joules_to_read_all").value == pytest.approx(z1.units.high * read, rel=1e-3)
    assert at("z1", "facts.updates_per_write").value == pytest.approx(write / update, rel=1e-4)
    assert at("z1", "facts.updates_per_read").value == pytest.approx(read / update, rel=2e-3)
    assert at("z1", "facts.power_check").value == pytest.approx(z1.units.high * 5e7 * update, rel=1e-3)
    assert at("z1", "facts.joules_per_update_older").value == pytest.approx(
        at("z1", "facts.joules_per_iteration_older").value / 250_000
    )
    assert at("si-2024", "costs.joules_per_update").value == pytest.approx(0.64e-3 / (80 * 10e3))
    rate = at("dsim-1", "costs.update_rate_hz").value
    dsim_1, power = at("dsim-1", "costs.joules_per_update"), at("dsim-1", "costs.power_watts")
    assert (dsim_1.low, dsim_1.high) == pytest.approx((power.low / rate, power.high / rate), rel=0.01)
    dsim_2, power = at("dsim-2", "costs.joules_per_update"), at("dsim-2", "costs.power_watts")
    rate = at("dsim-2", "costs.update_rate_hz")
    assert (dsim_2.low, dsim_2.high) == pytest.approx((power.low / rate.high, power.high / rate.low), rel=0.01)
    rate = at("kv260", "costs.update_rate_hz").value
    whole_board = at("kv260", "facts.joules_per_update_whole_board").value
    assert at("kv260", "facts.power_increment").value / rate == pytest.approx(10.85e-12, rel=1e-3)
    assert at("kv260", "costs.power_watts").value / rate == pytest.approx(whole_board, rel=1e-3)


def test_reading_and_writing_dominate_a_short_run_on_z1() -> None:
    one_sweep = Operations(updates=1000, sweeps=1, nodes_written=1000, nodes_read=1000, reads=1, samples=1)
    report = modelled_energy(load_spec("z1"), one_sweep)
    joules = {name: part.joules for name, part in report.parts.items()}
    assert joules["program"] == pytest.approx(21_664 * 1000 * 7.09e-15, rel=1e-4)
    assert joules["read"] == pytest.approx(239 * 1000 * 7.09e-15, rel=2e-3)
    assert report.missing == ("idle", "control", "transfer")
    assert report.weakest_provenance == "model"


BOUNDARIES = (
    ("si-2024", "costs.joules_per_update", "kernel"),
    ("si-2024", "costs.power_watts", "kernel"),
    ("pegasus-asic-28nm", "costs.joules_per_update", "chip"),
    ("dsim-1", "costs.joules_per_update", "wall"),
    ("dsim-1", "costs.power_watts", "wall"),
    ("dsim-2", "costs.joules_per_update", "wall"),
    ("dsim-2", "costs.power_watts", "wall"),
    ("kv260", "costs.joules_per_update", "board"),
    ("kv260", "costs.joules_per_write", "board"),
    ("kv260", "costs.joules_per_read", "board"),
    ("kv260", "costs.idle_watts", "board"),
    ("kv260", "costs.power_watts", "board"),
    ("kv260", "facts.power_increment", "board"),
    ("kv260", "facts.joules_per_update_whole_board", "board"),
    ("h100-sxm5", "costs.power_watts", "board"),
    ("epyc-9654", "facts.power_limit", "chip"),
    ("z1", "costs.joules_per_update", None),
    ("aia-16nm", "costs.joules_per_update", None),
)


@pytest.mark.parametrize(("name", "path", "boundary"), BOUNDARIES)
def test_boundary_is_the_stated_one(name: str, path: str, boundary: str | None) -> None:
    assert at(name, path).boundary == boundary


@pytest.mark.parametrize(
    ("name", "sites", "edges"),
    [
        ("hitachi-asic", 147_456, 587_522),
        ("hitachi-gpu-type3", 262_144, 1_045_506),
        ("hitachi-gpu-type4", 262_144, 1_045_506),
        ("niazi-2024", 4_264, 30_404),
        ("dwave-advantage2-system1", 4_800, 45_864),
        ("dwave-advantage2-system2", 4_800, 45_864),
        ("dwave-advantage2-system4", 1_248, 11_400),
        ("dwave-advantage-system6", 5_640, 40_484),
        ("dwave-advantage-system4", 5_640, 40_484),
        ("dtm-l70", 4_900, 26_088),
        ("dsim-2", 1_000_000, 2_970_000),
        ("kv260", 1_024, 1_984),
        ("pbit-king-64", 64, 210),
        ("pbit-rbm-512", 512, 49_152),
    ],
)
def test_graph_has_the_published_counts(name: str, sites: int, edges: int) -> None:
    topology = load_spec(name).topology
    assert topology is not None
    assert (topology.n_sites, topology.n_edges) == (sites, edges)


@pytest.mark.parametrize("name", DWAVE)
def test_working_graph_is_smaller_than_the_ideal_one(name: str) -> None:
    spec = load_spec(name)
    assert spec.topology is not None
    qubits, couplers = spec.facts["working_qubits"].best, spec.facts["working_couplers"].best
    assert spec.units is not None
    assert spec.units.best == qubits < spec.topology.n_sites
    assert couplers < spec.topology.n_edges
    assert spec.facts["qubit_yield"].value == pytest.approx(qubits / spec.topology.n_sites, abs=5.1e-4)
    assert spec.facts["coupler_yield"].value == pytest.approx(couplers / spec.topology.n_edges, abs=5.1e-4)
    assert f"{spec.topology.n_sites - int(qubits)} of its qubits" in spec.topology_note
    assert f"{spec.topology.n_edges - int(couplers)} of its couplers" in spec.topology_note


def test_what_devices_can() -> None:
    z1 = load_spec("z1")
    assert (z1.capabilities.beta, z1.capabilities.directed, z1.capabilities.clamp) == ("folded", True, True)
    assert (z1.coefficients.weight_range, z1.coefficients.provenance) == (6.0, "assumed")
    assert "figure" in z1.coefficients.source
    asic = load_spec("hitachi-asic")
    assert (asic.coefficients.weight_bits, asic.coefficients.weight_range, asic.coefficients.field_range) == (4, 7, 7)
    assert (asic.capabilities.sampler, asic.capabilities.beta) == (True, "programmable")
    da1 = load_spec("fujitsu-da1").coefficients
    assert (da1.weight_bits, da1.field_bits) == (16, 26)
    assert load_spec("kv260").coefficients.weight_range == 2047 / 256
    assert load_spec("dsim-2").coefficients.weight_range == 31 / 2
    for name in DWAVE:
        assert load_spec(name).coefficients.weight_range == 1.0
        assert load_spec(name).coefficients.field_range == 4.0


@pytest.mark.parametrize(
    "name", ["toshiba-sbm", "cim-2016", "cim-2021", "fujitsu-da1", "fujitsu-da2", "fujitsu-da3", "cn101", *DWAVE]
)
def test_who_states_no_temperature_is_no_sampler(name: str) -> None:
    capabilities = load_spec(name).capabilities
    assert (capabilities.sampler, capabilities.beta) == (False, "none")


@pytest.mark.parametrize("name", [name for name in NAMES if load_spec(name).kind in ("gpu", "cpu")])
def test_software_decides_on_general_processors(name: str) -> None:
    spec = load_spec(name)
    assert spec.any_graph
    assert spec.units is None
    assert spec.capabilities.chain_fields
    assert spec.capabilities.potts_states == 65_536


# What is not published

COSTS = tuple(f"costs.{name}" for name in Costs.model_fields)
NOT_PUBLISHED = {
    "x0": ("units", "topology", "coefficients.weight_bits", "coefficients.weight_range", *COSTS),
    "xtr-0": ("units", "topology", "coefficients.weight_bits", "coefficients.weight_range", *COSTS),
    "z1": (
        *("topology", "n_sites", "coefficients.weight_bits", "coefficients.field_bits", "coefficients.field_range"),
        *("costs.program_seconds", "costs.idle_watts"),
    ),
    "z1-stick": ("topology", "n_sites", "coefficients.weight_bits", "coefficients.weight_range", *COSTS),
    "z1-card": ("topology", "n_sites", "coefficients.weight_bits", "coefficients.weight_range", *COSTS),
    "cn101": (
        *("units", "topology", "n_sites", "coefficients.weight_bits", "coefficients.field_bits"),
        *("coefficients.weight_range", "coefficients.field_range", *COSTS),
    ),
    "dtm-l70": ("coefficients.weight_bits", "costs.sweep_rate_hz", "costs.update_rate_hz", "costs.power_watts"),
    "probana": ("coefficients.weight_bits", "costs.joules_per_update", "costs.power_watts", "costs.idle_watts"),
    "borders-2019": ("coefficients.weight_bits", *COSTS),
    "si-2024": ("coefficients.weight_bits", "costs.program_seconds", "costs.read_seconds", "costs.joules_per_write"),
    "sim-aadit-2022": ("coefficients.weight_bits", *COSTS),
    "niazi-2024": ("coefficients.weight_bits", "costs.joules_per_update", "costs.power_watts"),
    "dsim-1": ("coefficients.weight_bits", "costs.joules_per_write", "costs.idle_watts"),
    "hitachi-asic": COSTS,
    "hitachi-gpu-type3": ("coefficients.weight_bits", "coefficients.weight_range", *COSTS),
    "hitachi-gpu-type4": ("coefficients.weight_bits", "coefficients.weight_range", *COSTS),
    "hitachi-40nm": ("topology", "coefficients.weight_bits", *COSTS),
    "fujitsu-da1": COSTS,
    "fujitsu-da2": ("coefficients.weight_bits", "coefficients.field_bits", *COSTS),
    "fujitsu-da3": ("coefficients.weight_bits", *COSTS),
    "toshiba-sbm": ("coefficients.weight_bits", *COSTS),
    "cim-2016": ("coefficients.weight_bits", *COSTS),
    "cim-2021": ("coefficients.weight_bits", *COSTS),
    "h200-sxm": ("facts.l2_cache", "facts.fp32_cores", "costs.idle_watts", "costs.update_rate_hz"),
    "b200": ("facts.l2_cache", "costs.idle_watts", "costs.update_rate_hz"),
    "h100-sxm5": ("costs.idle_watts", "costs.update_rate_hz"),
    "rtx-4060-laptop": ("costs.idle_watts", "costs.update_rate_hz"),
    "epyc-9654": ("costs.idle_watts", "costs.update_rate_hz"),
    "aia-16nm": ("units", "topology", "coefficients.weight_bits"),
} | dict.fromkeys(
    DWAVE, ("coefficients.weight_bits", "costs.idle_watts", "costs.power_watts", "costs.joules_per_update")
)


@pytest.mark.parametrize(("name", "path"), [(name, path) for name, paths in NOT_PUBLISHED.items() for path in paths])
def test_what_is_not_published_is_absent(name: str, path: str) -> None:
    assert at(name, path) is None


def test_no_other_dwave_has_the_beta_of_one() -> None:
    assert [name for name in NAMES if "beta_eff" in load_spec(name).facts] == ["dwave-advantage2-system1"]


# The reference designs


def test_designs_are_assumed_throughout_and_nothing_else_is() -> None:
    assert tuple(name for name in NAMES if load_spec(name).status == "design") == DESIGNS
    for name in NAMES:
        for path, quantity in quantities(load_spec(name)):
            assert (quantity.provenance == "assumed") == (name in DESIGNS), f"{name} {path}"


@pytest.mark.parametrize("name", DESIGNS)
def test_design_is_complete_and_names_itself(name: str) -> None:
    spec = load_spec(name)
    source = "a reference design of the glauber project, not a product"
    assert spec.coefficients.source == source
    assert spec.coefficients.provenance == "assumed"
    assert all(quantity.source == source for _, quantity in quantities(spec))
    assert (spec.coefficients.weight_bits, spec.coefficients.weight_range) == (8, 1.0)
    assert (spec.coefficients.field_bits, spec.coefficients.field_range) == (12, None)
    assert spec.capabilities.beta_range == (0.0, 8.0)
    assert spec.capabilities.clamp
    assert not spec.capabilities.chain_fields
    for cost in ("sweep_rate_hz", "joules_per_update", "joules_per_write", "joules_per_read", "idle_watts"):
        quantity = getattr(spec.costs, cost)
        assert 0.2 <= quantity.uncertainty / quantity.best <= 0.3, cost
        assert quantity.boundary == (None if cost == "sweep_rate_hz" else "chip"), cost
    assert spec.topology is not None
    assert spec.units is not None
    assert spec.units.value == spec.topology.n_sites


def test_designs_differ_in_graph_size_and_programming() -> None:
    king, rbm = (load_spec(name).costs for name in DESIGNS)
    assert king.program_seconds is not None
    assert rbm.program_seconds is not None
    assert king.idle_watts is not None
    assert rbm.idle_watts is not None
    assert (king.program_seconds.value, rbm.program_seconds.value) == (1e-4, 1e-3)
    assert (king.idle_watts.value, rbm.idle_watts.value) == (2e-4, 1e-3)


# Files


@pytest.mark.parametrize("name", NAMES)
def test_description_fits_the_json_schema_and_comes_back_from_json(name: str) -> None:
    spec = load_spec(name)
    SCHEMA.validate(spec.model_dump(mode="json"))
    again = device_spec_adapter.validate_json(spec.model_dump_json())
    assert again == spec
    assert type(again) is type(spec)


def test_json_schema_refuses_what_the_loader_would() -> None:
    SCHEMA.check_schema(json_schema())
    good = load_spec("z1").model_dump(mode="json")
    assert SCHEMA.is_valid(good)
    for path, wrong in (("kind", "oracle"), ("status", "rumour"), ("price", 1), ("schema_version", 2)):
        assert not SCHEMA.is_valid(good | {path: wrong}), path
    bad = json.loads(json.dumps(good))
    bad["costs"]["joules_per_update"]["provenance"] = "guessed"
    assert not SCHEMA.is_valid(bad)


# Simulated


@pytest.mark.parametrize("name", NAMES)
def test_every_device_opens_and_what_samples_draws_the_boltzmann_law_of_an_edge(name: str) -> None:
    with gl.open_device(f"sim://{name}?seed=11") as device:
        assert device.spec.name == name
        edge = sites_joined(device.spec)
        if edge is None:
            schedule = gl.SamplingSchedule() if device.spec.capabilities.sampler else gl.AnnealingSchedule()
            with pytest.raises(ModelNotSupportedError, match="graph is not known") as caught:
                device.submit(pair_model((0, 1)), schedule)
            assert device.spec.topology_note in str(caught.value)
            return
        model = pair_model(edge)
        if not device.spec.capabilities.sampler:
            with pytest.raises(ModelNotSupportedError, match="states no temperature"):
                device.submit(model, gl.SamplingSchedule(beta=0.5))
            samples = device.submit(model, gl.AnnealingSchedule(n_sweeps=100, n_chains=64)).result()
            spins = samples.spins[:, :, edge]
            assert (spins[..., 0] == spins[..., 1]).all(), "a cold pair is aligned"
        else:
            samples = device.submit(
                model, gl.SamplingSchedule(n_samples=64, n_chains=64, n_warmup=8, beta=0.5)
            ).result()
            spins = samples.spins[:, :, edge].astype(float)
            correlation = (spins[..., 0] * spins[..., 1]).mean()
            assert correlation == pytest.approx(math.tanh(0.5), abs=0.06), "within 4 standard errors"
        assumed = samples.provenance.quantisation.assumptions
        bits = device.spec.coefficients.weight_bits
        assert any("precision of couplings" in text for text in assumed) == (bits is None)


@pytest.mark.parametrize("name", ["z1", "z1-stick", "z1-card"])
def test_z1_is_refused_without_a_grid_and_runs_with_one(name: str) -> None:
    schedule = gl.SamplingSchedule(n_samples=50, n_chains=64, beta=2.0)
    with gl.open_device(f"sim://{name}?seed=1") as device, pytest.raises(ModelNotSupportedError) as caught:
        device.submit(pair_model((0, 1)), schedule)
    assert len(caught.value.reasons) == 1
    assert load_spec(name).topology_note in caught.value.reasons[0]
    assert f"sim://{name}?width=...&height=..." in caught.value.reasons[0]

    with gl.open_device(f"sim://{name}?width=24&height=24&seed=1") as device:
        assert device.spec.topology is not None
        assert (device.spec.topology.n_sites, device.spec.topology.n_edges) == (576, 3_960)
        edges = device.spec.topology.edges()[:200]
        model = gl.IsingModel(np.zeros(576), edges, np.full(len(edges), 0.5))
        samples = device.submit(model, schedule).result()
        assert samples.spins.shape == (64, 50, 576)
        assert samples.energies.mean() < -0.5 * 100, "folded beta cools it"
        assert samples.provenance.quantisation.assumptions
        with pytest.raises(ModelNotSupportedError, match="missing edges: 1 of 1"):
            device.submit(pair_model((0, 2)), schedule)


def test_folded_beta_meets_the_range_of_z1_couplings() -> None:
    with gl.open_device("sim://z1?width=24&height=24&seed=1") as device:
        device.submit(pair_model((0, 1)), gl.SamplingSchedule(n_samples=1, beta=6.0)).result()
        with pytest.raises(ModelNotSupportedError, match="range ends at 6"):
            device.submit(pair_model((0, 1)), gl.SamplingSchedule(n_samples=1, beta=6.1))
        with pytest.raises(ModelNotSupportedError, match="scaling its coefficients"):
            device.submit(pair_model((0, 1)), gl.AnnealingSchedule())


def test_a_smaller_dtm_grid_keeps_its_rules() -> None:
    with gl.open_device("sim://dtm-l70?width=24&height=24") as device:
        small, large = device.spec.topology, load_spec("dtm-l70").topology
        assert small is not None
        assert large is not None
        assert small.model_dump()["rules"] == large.model_dump()["rules"]
