"""Two results side by side: ratios without the errors that they share, and warnings in words; `glauber energy`."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import glauber as gl
import numpy as np
import pytest
from glauber.cli import app
from glauber.energy import EnergyPart, EnergyReport, Operations, UncertaintyPart, modelled_energy
from glauber.errors import InvalidModelError
from typer.testing import CliRunner

MODEL = gl.IsingModel.from_edges([(0, 1, 0.5), (1, 2, -0.5)], {0: 0.3})
SCHEDULE = gl.SamplingSchedule(n_samples=500, n_chains=2, n_warmup=10)


def measured(joules, edges=0.1, gain=0.03, meter="meter A", boundary="wall", updates=1000, identity="no. 1"):
    budget = (
        UncertaintyPart("gain", gain * joules, gain * joules, "rectangular", "B", "this test"),
        UncertaintyPart("window edges", edges, edges, "rectangular", "B", "this test"),
    )
    u = math.hypot(gain * joules, edges)
    parts = {"gross": EnergyPart(joules, u, 2.0, "s", "measured", meter)}
    return EnergyReport("measured", parts, updates, 10, 0.0, boundary, budget, meter_identity=identity)


@pytest.fixture(scope="module")
def results():
    """A modelled chip that nobody built, a modelled reference design, and a measured run on this computer."""
    with gl.open_device("sim://z1?width=12&height=12") as device:
        edge = device.spec.topology.edges()[:2]
        z1_model = gl.IsingModel(np.full(144, 0.1), edge, [0.5, -0.5])
        z1 = device.submit(z1_model, SCHEDULE, seed=1).result(30)
    with gl.open_device("sim://pbit-king-64") as device:
        king = device.submit(MODEL, SCHEDULE, seed=1).result(30)
        other = device.submit(MODEL, SCHEDULE, seed=2).result(30)
    with gl.open_device("sim://ideal") as device:
        cpu = device.submit(MODEL, SCHEDULE, seed=1).result(30)
    return {"z1": z1, "king": king, "other": other, "unknown": cpu, "cpu": replace(cpu, energy_report=measured(50.0))}


def test_one_meters_gain_cancels_and_two_meters_do_not():
    """u(a/b)/(a/b): edges 0.1 / 50 and 0.1 / 20 alone with one meter; with two, 3 % each beside them."""
    same = gl.compare_energy(measured(50.0), measured(20.0)).ratios[0]
    assert same.ratio == 2.5
    assert same.standard_uncertainty == pytest.approx(2.5 * math.hypot(0.1 / 50, 0.1 / 20), rel=1e-12)
    expected = math.hypot(0.03, 0.03, 0.1 / 50, 0.1 / 20)
    others = [(measured(50.0), measured(20.0, identity="no. 2"))]  # two of one name
    others.append((measured(50.0, identity=""), measured(20.0, identity="")))  # not known to be one
    others.append((EnergyReport.from_fields(stored(measured(50.0))), measured(20.0)))
    for pair in others:
        other = gl.compare_energy(*pair).ratios[0]
        assert other.standard_uncertainty == pytest.approx(2.5 * expected, rel=1e-12)


def stored(report):
    """A report's fields as they were stored before instruments had identities."""
    return {name: value for name, value in asdict(report).items() if name != "meter_identity"}


def test_several_lines_of_one_name_all_count():
    """A buffer's trigger skew has up to three."""
    skew = UncertaintyPart("trigger skew", 0.3, 0.3, "rectangular", "B", "this test")
    report = replace(measured(50.0, edges=0.0), budget=(skew, replace(skew, joules=0.4)))
    ratio = gl.compare_energy(report, measured(50.0, edges=0.0, gain=0.0)).ratios[0]
    assert ratio.standard_uncertainty == pytest.approx(0.5 / 50)


def test_figures_of_one_source_but_another_value_do_not_cancel():
    """Two figures from one table, each with 10 %: their ratio has 14 %."""
    reports = []
    for each in (1e-12, 2e-12):
        part = EnergyPart(1000 * each, 100 * each, 1000, "updates", "vendor", "table 3")
        reports.append(EnergyReport("modelled", {"sample": part}, 1000, 10, 0.0))
    ratio = gl.compare_energy(*reports).ratios[0]
    assert ratio.standard_uncertainty == pytest.approx(0.5 * math.hypot(0.1, 0.1))
    assert gl.compare_energy(reports[0], reports[0]).ratios[0].standard_uncertainty == 0.0


def test_figures_that_both_use_cancel():
    """Twice the work on the same chip takes twice the joules, however uncertain the chip's figures are."""
    spec = gl.load_spec("pbit-king-64")
    once = Operations(1000, 100, 64, 640, 10, 10)
    twice = Operations(2000, 200, 128, 1280, 20, 20, loads=2)
    ratio = gl.compare_energy(modelled_energy(spec, twice), modelled_energy(spec, once)).ratios[0]
    assert ratio.ratio == pytest.approx(2, rel=1e-12)
    assert ratio.standard_uncertainty == pytest.approx(0, abs=1e-12)
    more = gl.compare_energy(modelled_energy(spec, replace(once, updates=10**8)), modelled_energy(spec, once)).ratios[0]
    assert more.standard_uncertainty > 0.1 * more.ratio


def test_like_with_like_has_no_warning():
    comparison = gl.compare_energy(measured(50.0), measured(20.0, meter="meter B"))
    assert comparison.comparable
    assert comparison.remedy == ""


def test_a_circuit_model_against_a_measurement_is_said_to_be_that(results):
    comparison = gl.compare_energy(results["z1"], results["cpu"])
    text = str(comparison)
    assert "z1: a circuit model of an unbuilt chip, figures from circuit simulation (SPICE)" in text
    assert "ideal: a measurement by meter A (wall boundary)" in text
    assert "z1 not stated; ideal wall" in text
    assert "z1 is without idle, control, transfer" in text
    assert "no uncertainty is stated for program, read" in text
    assert "different models" in text
    assert "once it exists, measure z1 with a meter at the boundary of the other (kernel, chip, board or wall)" in text
    assert not comparison.comparable
    other_way = gl.compare_energy(results["cpu"], results["z1"])
    assert other_way.ratios[0].ratio == pytest.approx(1 / comparison.ratios[0].ratio, rel=1e-12)
    json.dumps(comparison.as_dict(), allow_nan=False)


def test_one_chip_against_itself_lacks_only_what_nobody_published(results):
    warnings = gl.compare_energy(results["king"], results["other"]).warnings
    assert len(warnings) == 2
    assert all("without control, transfer" in warning for warning in warnings)


def test_a_power_that_somebody_stated_is_a_model_with_a_boundary(results):
    part = EnergyPart(80.0, 8.0, 4.0, "s", "assumed", "a laptop: 20 W by its battery's display")
    stated = EnergyReport("modelled", {"running": part}, 1000, 10, 0.0, "wall")
    assert stated.seconds == 4.0
    assert stated.boundaries == ("wall",)
    assert replace(results["cpu"], energy_report=stated).efficiency().device_seconds is None
    comparison = gl.compare_energy(stated, measured(20.0))
    assert comparison.ratios[0].ratio == 4.0
    assert len(comparison.warnings) == 1
    assert "provenances are mixed" in comparison.warnings[0]


def test_boundaries_that_differ_are_named():
    warnings = gl.compare_energy(measured(50.0), measured(20.0, boundary="board")).warnings
    assert len(warnings) == 1
    assert "wall" in warnings[0]
    assert "board" in warnings[0]


def test_what_has_no_joules_is_said_to_have_none(results):
    comparison = gl.compare_energy(results["unknown"], results["king"])
    assert comparison.ratios[0].ratio is None
    assert comparison.warnings == ("ideal: no joules at all, its figures are not published: nothing can be compared",)
    with pytest.raises(InvalidModelError, match="a str has not"):
        gl.compare_energy("joules", results["king"])


def test_joules_per_effective_sample_carry_the_uncertainty_of_both_ess(results):
    comparison = gl.compare_energy(results["king"], results["other"])
    by_name = {ratio.name: ratio for ratio in comparison.ratios}
    a, b = results["king"].efficiency(), results["other"].efficiency()
    row, joules = by_name["joules per effective sample"], by_name["joules"]
    assert row.first == a.joules_per_effective_sample
    of_ess = [each.ess_uncertainty / each.ess for each in (a, b)]
    relative = math.hypot(joules.standard_uncertainty / joules.ratio, *of_ess)
    assert row.standard_uncertainty == pytest.approx(row.ratio * relative, rel=1e-12)


# On the command line


def invoke(*arguments, code=0):
    result = CliRunner().invoke(app, ["energy", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def files(results, tmp_path):
    for name, result in results.items():
        result.save(tmp_path / f"{name}.npz")
    return tmp_path


def test_a_report_as_a_table(files):
    text = invoke(files / "king.npz").stdout
    assert "5e-14" not in text  # figures are of the job, not of one update
    for word in ("sample", "program", "read", "idle", "control", "unknown", "assumed", "share of variance", "Landauer",
                 "per flip", "per effective sample", "a joule (modelled, without control, transfer)"):  # fmt: skip
        assert word in text, word
    measured_text = invoke(files / "cpu.npz").stdout
    for word in ("gross", "window edges", "gain", "meter A"):
        assert word in measured_text
    shares = [float(line.split("%")[0].split()[-1]) for line in measured_text.splitlines() if "%" in line]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert "unknown" in invoke(files / "unknown.npz").stdout
    assert "1 s at the device's stated limit" in invoke(files / "z1.npz").stdout


def test_as_json(files, results):
    found = json.loads(invoke(files / "king.npz", "--json").stdout)
    assert found["report"]["joules"] == results["king"].energy_report.joules
    assert found["efficiency"]["ess"] == results["king"].efficiency().ess
    both = json.loads(invoke(files / "z1.npz", files / "cpu.npz", "--json").stdout)
    assert both["comparable"] is False
    assert both["ratios"][0]["ratio"] == results["z1"].energy_report.joules / 50.0


def test_two_side_by_side(files):
    text = invoke(files / "z1.npz", files / "cpu.npz").stdout
    assert "circuit model of an unbuilt chip" in text
    assert "! provenances are mixed" in text
    assert "to make them comparable" in text


def test_a_stored_job_by_the_beginning_of_its_id(store, path):
    with gl.open_device("sim://pbit-king-64", store=store) as device:
        job = device.submit(MODEL, SCHEDULE, seed=1)
        job.result(30)
    found = json.loads(invoke(job.id[:-2], "--store", path, "--json").stdout)
    assert found["device"] == "pbit-king-64"
    assert found["report"]["operations"]["loads"] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing.npz"], 2, "No such file"),
        (["a-job", "--store", "nowhere.sqlite"], 2, "there is no job store"),
        (["{store}", "--store", "{store}"], 2, "error"),
    ],
)
def test_what_is_not_there(arguments, code, message, store, path):
    result = invoke(*(argument.format(store=path) for argument in arguments), code=code)
    assert message in result.stderr


def test_an_unknown_job(store, path):
    assert "no job" in invoke("a-job", "--store", path, code=1).stderr
