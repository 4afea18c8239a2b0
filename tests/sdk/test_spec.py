"""The schema of device descriptions: what it refuses, what it computes, and what it tells a person."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from glauber.spec import (
    AnnealerSpec,
    AnySpec,
    Capabilities,
    Coefficients,
    Costs,
    CpuSpec,
    GpuSpec,
    PbitSpec,
    Quantity,
    TsuSpec,
    device_spec_adapter,
    json_schema,
    summary_rows,
)
from glauber.topology import King
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

FINITE = st.floats(-1e9, 1e9)


def quantity(**changes: Any) -> Quantity:
    return Quantity(**{"unit": "J", "provenance": "measured", "source": "a test"} | changes)


def spec(**changes: Any) -> PbitSpec:
    return PbitSpec(**{"name": "toy", "title": "A toy", "vendor": "nobody", "status": "design"} | changes)


# Quantity


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({}, "needs a value, or low and high"),
        ({"low": 1.0}, "needs a value, or low and high"),
        ({"high": 1.0}, "needs a value, or low and high"),
        ({"low": 2.0, "high": 1.0}, "low <= value <= high does not hold"),
        ({"low": 2.0, "value": 1.0}, "low <= value <= high does not hold"),
        ({"value": 2.0, "high": 1.0}, "low <= value <= high does not hold"),
        ({"value": 1.0, "standard_uncertainty": -0.1}, "greater than or equal to 0"),
        ({"value": float("nan")}, "finite number"),
        ({"value": float("inf")}, "finite number"),
        ({"low": 0.0, "high": float("inf")}, "finite number"),
        ({"value": 1.0, "standard_uncertainty": float("nan")}, "finite number"),
        ({"value": 1.0, "provenance": "guessed"}, "Input should be"),
        ({"value": 1.0, "boundary": "planet"}, "Input should be"),
        ({"value": 1.0, "unit": None}, "valid string"),
        ({"value": 1.0, "units": "J"}, "Extra inputs are not permitted"),
    ],
)
def test_quantity_refuses(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        quantity(**numbers)


@pytest.mark.parametrize("missing", ["unit", "provenance", "source"])
def test_quantity_needs_its_origin(missing: str) -> None:
    given_fields = {"value": 1.0, "unit": "J", "provenance": "measured", "source": "a test"}
    del given_fields[missing]
    with pytest.raises(ValidationError, match="Field required"):
        Quantity.model_validate(given_fields)


@pytest.mark.parametrize(
    ("numbers", "best", "uncertainty"),
    [
        ({"value": 3.0}, 3.0, 0.0),
        ({"value": 3.0, "standard_uncertainty": 0.5}, 3.0, 0.5),
        ({"low": 1.0, "high": 3.0}, 2.0, 2.0 / 12**0.5),
        ({"low": 1.0, "value": 1.5, "high": 4.0}, 1.5, 3.0 / 12**0.5),
        ({"low": 1.0, "value": 1.5, "high": 4.0, "standard_uncertainty": 0.25}, 1.5, 0.25),
        ({"low": 1.0, "value": 1.5, "high": 4.0, "standard_uncertainty": 0.0}, 1.5, 0.0),
        ({"low": 1.0, "value": 1.5}, 1.5, 0.0),
        ({"value": 1.5, "high": 4.0}, 1.5, 0.0),
    ],
)
def test_best_estimate_and_uncertainty(numbers: dict[str, float], best: float, uncertainty: float) -> None:
    assert quantity(**numbers).best == best
    assert quantity(**numbers).uncertainty == pytest.approx(uncertainty, rel=1e-15)


@given(st.tuples(FINITE, FINITE, FINITE))
def test_best_estimate_lies_in_the_interval(numbers: tuple[float, float, float]) -> None:
    low, value, high = sorted(numbers)
    assert low <= quantity(low=low, high=high).best <= high
    assert quantity(low=low, value=value, high=high).best == value
    assert 0 <= quantity(low=low, high=high).uncertainty <= (high - low) / 2 or low == high


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ({"value": 7.09e-15}, "7.09e-15 J, measured"),
        ({"value": 10.85, "standard_uncertainty": 0.47}, "10.85 +- 0.47 J, measured"),
        ({"low": 1.0, "high": 2.5}, "1 to 2.5 J, measured"),
        ({"low": 1.2, "value": 7.09, "high": 13.0, "provenance": "model"}, "7.09 J (1.2 to 13), model"),
        ({"value": 2.0, "high": 3.0, "unit": "W"}, "2 W (at most 3), measured"),
    ],
)
def test_quantity_as_text(numbers: dict[str, Any], text: str) -> None:
    assert str(quantity(**numbers)) == text


# Frozen, closed


@pytest.mark.parametrize(
    ("thing", "field", "value"),
    [
        (quantity(value=1.0), "value", 2.0),
        (Coefficients(weight_bits=4), "weight_bits", 5),
        (Capabilities(), "clamp", False),
        (Costs(), "idle_watts", None),
        (spec(), "title", "Another"),
    ],
)
def test_everything_is_frozen(thing: Any, field: str, value: Any) -> None:
    before = thing.model_dump()
    with pytest.raises(ValidationError, match="frozen"):
        setattr(thing, field, value)
    assert thing.model_dump() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"price": 100},
        {"costs": {"joules_per_flip": {"value": 1, "unit": "J", "provenance": "vendor", "source": "x"}}},
        {"capabilities": {"quantum": True}},
        {"coefficients": {"bits": 8}},
        {"topology": {"family": "king", "rows": 2, "cols": 2, "depth": 2}},
    ],
)
def test_unknown_fields_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        spec(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Upper"},
        {"name": "has space"},
        {"name": "-dash"},
        {"name": ""},
        {"status": "rumour"},
        {"kind": "tsu"},
        {"schema_version": 2},
        {"schema_name": "something.else"},
        {"coefficients": {"weight_bits": 0}},
        {"coefficients": {"weight_bits": 32}},
        {"coefficients": {"weight_bits": 8.0}},
        {"coefficients": {"weight_range": 0.0}},
        {"coefficients": {"field_range": -1.0}},
        {"capabilities": {"beta": "sometimes"}},
        {"capabilities": {"potts_states": -1}},
        {"capabilities": {"observables": ["smell"]}},
        {"topology": {"family": "moebius", "n": 3}},
    ],
)
def test_wrong_values_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        spec(**changes)


def test_the_edges_of_what_is_allowed_are_accepted() -> None:
    assert spec(coefficients={"weight_bits": 1, "field_bits": 31}).coefficients.field_bits == 31
    assert spec(name="a.b-9").name == "a.b-9"


# Kinds and versions


@pytest.mark.parametrize(
    ("kind", "cls"),
    [("tsu", TsuSpec), ("pbit", PbitSpec), ("annealer", AnnealerSpec), ("gpu", GpuSpec), ("cpu", CpuSpec)],
)
def test_kind_decides_the_class(kind: str, cls: type[AnySpec]) -> None:
    described = {"kind": kind, "name": "toy", "title": "A toy", "vendor": "nobody", "status": "design"}
    found = device_spec_adapter.validate_python(described)
    assert type(found) is cls
    assert device_spec_adapter.validate_json(found.model_dump_json()) == found


def test_a_description_needs_a_known_kind() -> None:
    described = {"name": "toy", "title": "A toy", "vendor": "nobody", "status": "design"}
    with pytest.raises(ValidationError, match="kind"):
        device_spec_adapter.validate_python(described)
    with pytest.raises(ValidationError, match="oracle"):
        device_spec_adapter.validate_python(described | {"kind": "oracle"})


def test_dump_says_which_schema_it_follows() -> None:
    dumped = spec().model_dump()
    assert (dumped["schema_name"], dumped["schema_version"]) == ("glauber.device-spec", 1)
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == "glauber.device-spec"
    assert set(schema["discriminator"]["mapping"]) == {"tsu", "pbit", "annealer", "gpu", "cpu"}
    for name in ("TsuSpec", "PbitSpec", "AnnealerSpec", "GpuSpec", "CpuSpec"):
        properties = schema["$defs"][name]["properties"]
        assert (properties["schema_name"]["const"], properties["schema_version"]["const"]) == ("glauber.device-spec", 1)


# Sites


def test_sites_come_from_the_graph_or_from_the_units_of_any_graph() -> None:
    units = quantity(low=8, high=16, unit="p-bit")
    assert spec().n_sites is None
    assert spec(units=units).n_sites is None, "how many can be programmed needs a graph"
    assert spec(units=units, any_graph=True).n_sites == 8  # what surely exists
    assert spec(units=quantity(value=3, unit="p-bit"), topology=King(rows=4, cols=5)).n_sites == 20
    assert spec(any_graph=True).n_sites is None


# Hash

HASHED = """
from glauber.spec import PbitSpec
print(PbitSpec(name="toy", title="A toy", vendor="nobody", status="design").spec_hash)
"""


def test_hash_is_the_same_in_every_process() -> None:
    hashes = {
        subprocess.run(
            [sys.executable, "-c", HASHED],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1


def test_hash_is_the_same_for_equal_descriptions_and_survives_json() -> None:
    one = spec(topology=King(rows=4, cols=5), units=quantity(value=20, unit="p-bit"))
    other = spec(topology={"family": "king", "rows": 4, "cols": 5}, units=quantity(value=20, unit="p-bit"))
    assert one == other
    assert one.spec_hash == other.spec_hash
    assert len(one.spec_hash) == 16
    int(one.spec_hash, 16)


CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"name": "toy2"},
    {"status": "model"},
    {"notes": ("a note",)},
    {"topology": King(rows=4, cols=5)},
    {"topology": King(rows=5, cols=4)},
    {"any_graph": True},
    {"coefficients": Coefficients(weight_bits=8)},
    {"capabilities": Capabilities(clamp=False)},
    {"costs": Costs(joules_per_update=quantity(value=1.0))},
    {"costs": Costs(joules_per_update=quantity(value=1.0 + 2**-52))},
    {"costs": Costs(joules_per_update=quantity(value=1.0, provenance="assumed"))},
    {"costs": Costs(joules_per_update=quantity(value=1.0, source="another test"))},
    {"facts": {"clock": quantity(value=1.0, unit="Hz")}},
)


def test_hash_tells_descriptions_apart() -> None:
    assert len({spec(**changes).spec_hash for changes in CHANGES}) == len(CHANGES)
    assert spec().spec_hash != TsuSpec(name="toy", title="A toy", vendor="nobody", status="design").spec_hash


# Text


def test_summary_says_what_is_not_published() -> None:
    rows = dict(summary_rows(spec()))
    assert rows["p-bits"] == rows["topology"] == "not published"
    assert rows["couplings"] == "not published, any scale"
    for name in Costs.model_fields:
        assert rows[name.replace("_", " ")] == "not published"


def test_summary_says_what_is_known() -> None:
    told = spec(
        units=quantity(value=20, unit="p-bit"),
        topology=King(rows=4, cols=5),
        topology_note="a note on the graph",
        coefficients=Coefficients(weight_bits=4, weight_range=7.0),
        capabilities=Capabilities(beta_range=(0.0, 8.0), chain_fields=True, potts_states=5),
        costs=Costs(joules_per_update=quantity(value=2e-13)),
        facts={"anneal_seconds": quantity(value=1e-6, unit="s")},
        notes=("first", "second"),
    )
    rows = summary_rows(told)
    by_label = dict(rows)
    assert by_label["kind"] == "pbit (design)"
    assert by_label["p-bits"] == "20 p-bit, measured"
    assert by_label["topology"] == f"{King(rows=4, cols=5).describe()}; a note on the graph"
    assert by_label["couplings"] == "4 bits, |J| <= 7"
    assert by_label["beta"] == "programmable from 0 to 8"
    assert by_label["can"] == (
        "samples the Boltzmann law, p-dits up to 5 states, clamps, starts from given states, fields per chain"
    )
    assert by_label["joules per update"] == "2e-13 J, measured"
    assert by_label["anneal seconds"] == "1e-06 s, measured"
    assert [text for label, text in rows if label == "note"] == ["first", "second"]
    assert "about" not in by_label, "an empty description makes no row"
    assert str(told) == "\n".join(f"{label}: {text}" for label, text in rows)


def test_summary_of_an_optimiser_on_any_graph() -> None:
    rows = dict(summary_rows(spec(any_graph=True, capabilities=Capabilities(sampler=False, beta="none", clamp=False))))
    assert rows["topology"] == "any graph"
    assert rows["can"] == "optimiser, states no temperature, starts from given states"
    assert rows["beta"] == "none"
