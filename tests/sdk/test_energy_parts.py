"""The parts of a modelled report by hand arithmetic, and reports that were stored before they had all of them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import glauber as gl
import numpy as np
import pytest
from glauber.device import Device
from glauber.energy import EnergyReport, Operations, device_seconds, load_seconds, modelled_energy
from glauber.spec import Costs
from glauber_simulator.driver import SimulatorDriver


def figure(value, unit, u=None, provenance="measured", **more):
    return gl.Quantity(
        value=value, unit=unit, standard_uncertainty=u, provenance=provenance, source=f"{value} {unit}", **more
    )


ALL_STATED = Costs(
    sweep_rate_hz=figure(1000.0, "Hz"),
    joules_per_update=figure(2.0, "J", 0.5, boundary="chip"),
    joules_per_write=figure(3.0, "J", 0.25),
    joules_per_read=figure(5.0, "J"),
    joules_per_clamp=figure(7.0, "J"),
    joules_per_byte_moved=figure(11.0, "J"),
    idle_watts=figure(13.0, "W"),
    control_watts=figure(17.0, "W", 0.125),
    program_seconds=figure(0.25, "s"),
    read_seconds=figure(0.5, "s"),
)
COUNTED = Operations(
    updates=10, sweeps=1000, nodes_written=4, nodes_read=8, reads=2, samples=2, loads=3, nodes_held=6, bytes_moved=20
)


def with_costs(costs, name="ideal"):
    return gl.load_spec(name).model_copy(update={"costs": costs})


def test_every_part_is_count_times_figure():
    report = modelled_energy(with_costs(ALL_STATED), COUNTED)
    seconds = 1000 / 1000 + 3 * 0.25 + 2 * 0.5
    expected = {
        "sample": 10 * 2.0,
        "program": 4 * 3.0,
        "read": 8 * 5.0,
        "clamp": 6 * 7.0,
        "transfer": 20 * 11.0,
        "idle": 13.0 * seconds,
        "control": 17.0 * seconds,
    }
    assert {name: part.joules for name, part in report.parts.items()} == expected
    assert report.joules == sum(expected.values())
    variance = (10 * 0.5) ** 2 + (4 * 0.25) ** 2 + (seconds * 0.125) ** 2
    assert report.standard_uncertainty == pytest.approx(variance**0.5, rel=1e-15)
    assert report.missing == ()
    assert report.without_uncertainty == ("read", "idle", "transfer", "clamp")
    assert report.seconds == seconds
    assert report.parts["sample"].boundary == "chip"
    assert report.boundaries == ("chip", None)


@pytest.mark.parametrize(
    ("cost", "part"),
    [
        ("joules_per_update", "sample"), ("joules_per_write", "program"), ("joules_per_read", "read"),
        ("joules_per_clamp", "clamp"), ("joules_per_byte_moved", "transfer"), ("idle_watts", "idle"),
        ("control_watts", "control"),
    ],
)  # fmt: skip
def test_what_is_not_stated_is_missing_and_not_borrowed(cost, part):
    whole = modelled_energy(with_costs(ALL_STATED), COUNTED)
    report = modelled_energy(with_costs(ALL_STATED.model_copy(update={cost: None})), COUNTED)
    assert report.missing == (part,)
    assert report.parts[part].joules is None
    assert report.joules == whole.joules - whole.parts[part].joules


def test_clamps_are_a_part_only_where_spins_are_held():
    assert "clamp" not in modelled_energy(with_costs(ALL_STATED), replace(COUNTED, nodes_held=0)).parts


def test_counts_of_a_job_by_hand():
    """8 chains, 5 + 3 x 4 sweeps, 64 spins of which 2 are held, 3 couplings: every count is arithmetic."""
    model = gl.IsingModel(np.zeros(64), [[0, 1], [1, 2], [8, 9]], [1.0, -0.5, 0.25])
    schedule = gl.SamplingSchedule(n_samples=4, n_chains=8, n_warmup=5, sweeps_per_sample=3)
    with gl.open_device("sim://pbit-king-64") as device:
        first = device.submit(model, schedule, clamp={0: 1, 5: -1}).result(30).energy_report.operations
        again = device.submit(model, schedule).result(30).energy_report.operations
        field = np.zeros(64)
        field[7] = 0.5
        fields = device.submit(model, schedule, fields=field).result(30).energy_report.operations
        estimate = device.estimate(model, schedule, clamp={0: 1, 5: -1})
    assert first == Operations(
        updates=62 * 17 * 8, sweeps=17 * 8, nodes_written=64, nodes_read=64 * 32, reads=32, samples=32, loads=1,
        nodes_held=2, bytes_moved=4 * (64 + 3) + 32 * 8,
    )  # fmt: skip
    assert estimate.energy.operations == first
    assert (again.loads, again.nodes_written, again.bytes_moved) == (0, 0, 32 * 8)
    assert (fields.loads, fields.nodes_written, fields.bytes_moved) == (0, 1, 4 + 32 * 8)


def test_a_limit_on_rewrites_counts_where_programming_takes_less():
    fast = ALL_STATED.model_copy(update={"max_reflash_hz": figure(2.0, "Hz", 0.5)})
    assert load_seconds(with_costs(fast)).value == 0.5
    assert load_seconds(with_costs(fast)).standard_uncertainty == 0.125
    slow = ALL_STATED.model_copy(update={"max_reflash_hz": figure(10.0, "Hz")})
    assert load_seconds(with_costs(slow)).value == 0.25
    assert load_seconds(with_costs(Costs())) is None
    seconds = device_seconds(with_costs(fast), COUNTED)
    assert seconds.value == 1 + 3 * 0.5 + 1
    assert device_seconds(with_costs(fast), replace(COUNTED, loads=0)).value == 2
    report = modelled_energy(with_costs(fast), COUNTED)
    assert report.reflash_seconds == 1.5
    assert modelled_energy(with_costs(ALL_STATED), COUNTED).reflash_seconds is None


def test_z1_waits_a_second_for_its_weights():
    """Stated: weights at most once a second, 50 MHz, 25 us a read; so a job of 10 sweeps and one read is that sum."""
    counted = Operations(updates=1000, sweeps=10, nodes_written=100, nodes_read=100, reads=1, samples=1, nodes_held=3)
    assert device_seconds(gl.load_spec("z1"), counted).value == pytest.approx(1 + 10 / 5e7 + 25e-6, rel=1e-15)
    report = modelled_energy(gl.load_spec("z1"), counted)
    assert report.parts["clamp"].joules == pytest.approx(3 * 153.6e-12, rel=1e-15)
    assert report.parts["clamp"].provenance == "derived"
    assert report.missing == ("idle", "control", "transfer")


def test_a_report_survives_json_and_files(tmp_path):
    with gl.open_device("sim://pbit-king-64") as device:
        result = device.submit(gl.IsingModel.from_edges([(0, 1, 1.0)]), gl.SamplingSchedule(n_samples=9)).result(30)
    result.save(tmp_path / "a.npz")
    assert gl.SampleSet.load(tmp_path / "a.npz").energy_report == result.energy_report
    json.dumps(result.energy_report.as_dict(), allow_nan=False)


def test_a_report_from_before_there_were_counts_is_still_read():
    fields = json.loads(json.dumps(asdict(modelled_energy(gl.load_spec("z1"), COUNTED))))
    del fields["operations"], fields["reflash_seconds"]
    for part in fields["parts"].values():
        del part["boundary"]
    report = EnergyReport.from_fields(fields)
    assert report.operations is None
    assert report.parts["sample"].boundary is None
    assert report.joules == modelled_energy(gl.load_spec("z1"), COUNTED).joules


def test_fields_of_each_chain_are_written_one_after_another():
    spec = with_costs(ALL_STATED)
    model = gl.IsingModel.from_edges([(0, 1, 1.0)])
    with Device(SimulatorDriver(spec)) as device:
        schedule = gl.SamplingSchedule(n_samples=2, n_chains=3)
        counted = device.submit(model, schedule, fields=np.zeros((3, 2))).result(30).energy_report.operations
    assert counted.nodes_written == 2 * (1 + 3)
    assert counted.bytes_moved == 4 * (3 + 3 * 2) + 6 * 1
