"""Calibration: what the protocols find on chips of known flaws, what corrections do, and every way to refuse."""

from __future__ import annotations

import json
import os
import sqlite3
from datetime import UTC, datetime, timedelta

import glauber as gl
import numpy as np
import pytest
from glauber.calibration import (
    CalibrationHistory,
    CalibrationRecord,
    TwinSpec,
    compare_records,
    distribution,
    moments_without_errors,
)
from glauber.calibration.belief import believed
from glauber.calibration.history import find_calibration, plain_address
from glauber.calibration.record import Measured
from glauber.errors import (
    BudgetExceededError,
    CalibrationError,
    DeviceNotFoundError,
    FileFormatError,
    InvalidModelError,
    ModelNotSupportedError,
)
from glauber.nonidealities import Nonidealities
from glauber.prepare import ProgramCache, prepare
from glauber.testing import ExactLaw
from glauber_simulator.flaws import fabricate
from glauber_simulator.twin import flaws_of

FLAWS = {"gain_spread": 0.1, "offset_spread": 0.2, "readout_error": 0.02, "n_dead": 1}
CHIP = "sim://pbit-king-64?chip=3&" + "&".join(f"{name}={value}" for name, value in FLAWS.items())
K = 5.0
"""Standard errors: a right protocol goes beyond them once in two million."""


@pytest.fixture(scope="module")
def chip():
    with gl.open_device(CHIP, seed=1) as device:
        yield device


@pytest.fixture(scope="module")
def record(chip):
    return chip.calibrate(["pbits"])


@pytest.fixture(scope="module")
def true(chip):
    return fabricate(chip.spec, Nonidealities(chip=3, **FLAWS))


@pytest.fixture
def history(tmp_path, monkeypatch):
    monkeypatch.setenv("GLAUBER_CALIBRATIONS", str(tmp_path / "calibrations"))
    return CalibrationHistory()


def at(record, hours, **changes):
    """The same finding at another time."""
    created = (datetime.fromisoformat(record.created) + timedelta(hours=hours)).isoformat(timespec="seconds")
    fields = {name: getattr(record, name) for name in CalibrationRecord.model_fields}
    return CalibrationRecord(**{**fields, "id": "", "created": created, **changes})


# Protocols


def test_gains_offsets_readings_and_the_dead_one(record, true):
    dead = np.flatnonzero(true.gain == 0)
    assert list(record.bad_sites) == dead.tolist()
    assert record.pbits.verdicts[dead[0]] == "dead"
    good = record.pbits.good
    for name, value in (
        ("gain", true.gain),
        ("offset", true.offset),
        ("up_as_down", true.readout.up_as_down),
        ("down_as_up", true.readout.down_as_up),
    ):
        measured = getattr(record.pbits, name)
        z = (measured.array - value)[good] / measured.u[good]
        assert np.abs(z).max() < K, name
        assert 0.6 < z.std() < 1.5, name  # uncertainties that are of the right size
    assert record.pbits.p_value > 1e-4


def test_counts_are_kept_and_the_fit_is_of_them(record):
    counts = record.pbits.counts
    arguments, ups, shots = np.array(counts.arguments), np.array(counts.ups), np.array(counts.shots)
    good = record.pbits.good
    pbits = record.pbits
    sigma = 1 / (1 + np.exp(-2 * (pbits.gain.array * arguments + pbits.offset.array)))
    p = pbits.down_as_up.array + (1 - pbits.up_as_down.array - pbits.down_as_up.array) * sigma
    z = (ups - shots[:, None] * p)[:, good] / np.sqrt(shots[:, None] * p * (1 - p))[:, good]
    assert np.abs(z).max() < K


def test_stuck_and_dead_ones_by_their_names():
    address = "sim://pbit-king-64?chip=5&n_dead=2&n_stuck=3"
    with gl.open_device(address, seed=1) as device:
        found = device.calibrate(["pbits"], shots=400).pbits.verdicts
        flaws = fabricate(device.spec, Nonidealities(chip=5, n_dead=2, n_stuck=3))
    expected = np.where(flaws.stuck > 0, "stuck up", np.where(flaws.stuck < 0, "stuck down", "good"))
    expected[(flaws.gain == 0) & (flaws.stuck == 0)] = "dead"
    assert list(found) == expected.tolist()


def test_an_ideal_chip_has_nothing_to_find():
    with gl.open_device("sim://pbit-king-64", seed=4) as device:
        found = device.calibrate(["memory", "pbits", "temperature"], shots=1500)
    assert found.bad_sites == ()
    assert np.abs((found.pbits.gain.array - 1) / found.pbits.gain.u).max() < K
    assert np.abs(found.pbits.offset.array / found.pbits.offset.u).max() < K
    assert found.memory.sweeps == 0
    z = [(value - 1) / u for region in found.temperatures for value, u in region.estimates.values()]
    assert np.abs(z).max() < K
    assert len({name for region in found.temperatures for name in region.estimates}) == 3


def test_memory_is_seen_and_measured():
    with gl.open_device("sim://pbit-king-64?memory_sweeps=2", seed=4) as device:
        found = device.calibrate(["memory"], shots=2000).memory
    assert abs(found.sweeps - 2) < K * found.uncertainty
    assert found.uncertainty < 0.2


def test_a_beta_of_its_own():
    with gl.open_device("sim://pbit-king-64", seed=4) as device:
        found = device.calibrate(["pbits"], shots=2000, beta=2.0, n_sites=8, temperature_c=31.5)
    assert (found.beta, found.n_sites, found.temperature_c) == (2.0, 8, 31.5)
    assert np.abs((found.pbits.gain.array - 1) / found.pbits.gain.u).max() < K  # of beta h, whatever beta


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"protocols": ["pbit"]}, InvalidModelError, "pbits"),
        ({"protocols": []}, InvalidModelError, "there are memory"),
        ({"shots": 10}, InvalidModelError, "100 or more"),
        ({"n_sites": 65}, CalibrationError, "has 64"),
        ({"protocols": ["drift"]}, CalibrationError, "ask for"),
        ({"protocols": ["pbits"], "beta": 0.05}, CalibrationError, "larger beta"),
        ({"budget": gl.Budget(sweeps=5)}, InvalidModelError, "seconds"),
    ],
)
def test_wrong_arguments(chip, arguments, error, says):
    with pytest.raises(error, match=says):
        chip.calibrate(**arguments)


def test_devices_that_cannot_be_calibrated():
    with gl.open_device("sim://ideal") as device:
        with pytest.raises(CalibrationError, match="n_sites="):
            device.calibrate()
        with pytest.raises(CalibrationError, match="no graph"):
            device.calibrate(["couplings"], n_sites=8)
    with gl.open_device("sim://si-2024") as device, pytest.raises(CalibrationError, match="optimiser"):
        device.calibrate()
    coarse = "sim://hitachi-asic"  # couplings in steps of 1
    with gl.open_device(coarse, seed=1) as device:
        with pytest.raises(CalibrationError, match="calibrate at beta"):
            device.calibrate(["couplings"], n_sites=16, shots=200)
        found = device.calibrate(n_sites=16, shots=200)
        assert found.couplings is None
        assert "too coarse" in found.notes[0]
        found = device.calibrate(["couplings"], n_sites=16, shots=400, beta=0.3).couplings
        assert np.abs((found.factor.array - 1) / found.factor.u).max() < K


def test_a_budget_that_ends_early_keeps_what_there_is(monkeypatch):
    with gl.open_device(CHIP, seed=1) as device:
        began = 0.0

        def clock():
            return began

        monkeypatch.setattr("glauber.calibration.bench.time.monotonic", clock)

        def report(done, what):
            nonlocal began
            began = 1000.0 if what == "couplings" else 0.0

        found = device.calibrate(shots=200, budget=gl.Budget(seconds=5), report=report)
        assert found.pbits is not None
        assert found.couplings is None
        assert any("stopped before couplings" in note for note in found.notes)
        began = 0.0

        def at_once(done, what):
            nonlocal began
            began = 1000.0

        with pytest.raises(BudgetExceededError, match="5 s"):
            device.calibrate(["pbits"], shots=200, budget=gl.Budget(seconds=5), report=at_once)


def test_progress_goes_up_to_one(chip):
    told = []
    chip.calibrate(["memory", "pbits"], shots=200, report=lambda done, what: told.append((done, what)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == pytest.approx(1)
    assert {"memory", "pbits"} <= {what for _, what in told}


# Records


def test_a_record_survives_its_file(record, tmp_path):
    record.save(tmp_path / "r.json")
    assert CalibrationRecord.load(tmp_path / "r.json") == record
    assert [file.name for file in tmp_path.iterdir()] == ["r.json"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: {**d, "format": "glauber.model"}, "format"),
        (lambda d: {**d, "version": 2}, "version"),
        (lambda d: {**d, "seconds": float("nan")}, "seconds"),
        (lambda d: {**d, "colour": "red"}, "colour"),
        (lambda d: {**d, "pbits": {**d["pbits"], "gain": {"values": [1.0], "uncertainties": []}}}, "1 values"),
        (lambda d: {**d, "pbits": {**d["pbits"], "counts": {**d["pbits"]["counts"], "shots": [1]}}}, "same settings"),
        (lambda d: [d], "record"),
    ],
)
def test_files_that_hold_no_record(record, tmp_path, change, says):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(change(record.model_dump(mode="json"))))
    with pytest.raises(FileFormatError, match=says):
        CalibrationRecord.load(path)


def test_files_that_are_no_json(tmp_path):
    path = tmp_path / "r.json"
    for content in (b"", b"{", b"\xff\xfe", b"null"):
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match="holds no calibration"):
            CalibrationRecord.load(path)
    with pytest.raises(CalibrationError, match="no calibration at"):
        find_calibration(tmp_path / "none.json", "")


def test_a_record_of_another_device_is_refused(record):
    with gl.open_device("sim://pbit-rbm-512") as other, pytest.raises(CalibrationError, match="calibrate this one"):
        other.use_calibration(record)


def test_expiry(record):
    now = datetime.now(UTC)
    later = at(record, 0, expires=(now + timedelta(hours=1)).isoformat())
    assert not later.expired(now)
    assert later.expired(now + timedelta(hours=1))
    assert not record.expired(now + timedelta(days=9999))


# History


def test_history_keeps_and_rolls_back(history, record):
    first, second, third = at(record, 0), at(record, 1), at(record, 2)
    for one in (first, second, third):
        history.add(one)
    assert [(e.id, e.in_force) for e in history.entries()] == [
        (first.id, False), (second.id, False), (third.id, True)
    ]  # fmt: skip
    assert history.get(second.id) == second
    assert history.rollback(record.address).id == second.id
    assert history.in_force(record.address) == second
    assert history.rollback(record.address).id == first.id
    with pytest.raises(CalibrationError, match="no calibration before"):
        history.rollback(record.address)
    assert history.in_force(record.address) == first
    assert history.rollback(record.address, third.id).id == third.id
    assert [action for _, action, _ in history.log(record.address)].count("rollback") == 3
    assert find_calibration("latest", record.address + "&seed=5") == third
    assert find_calibration("latest", "sim://ideal") is None


def test_two_devices_do_not_meet(history, record):
    mine, other = at(record, 0), at(record, 1, address="sim://pbit-king-64?chip=4")
    history.add(mine)
    history.add(other)
    assert history.in_force(mine.address) == mine
    assert history.in_force(other.address) == other
    assert [entry.id for entry in history.entries(other.address)] == [other.id]
    with pytest.raises(CalibrationError, match="not of"):
        history.rollback(mine.address, other.id)
    with pytest.raises(CalibrationError, match="no calibration before"):
        history.rollback(mine.address)


def test_ids_that_are_wrong_or_not_enough(history, record):
    one, two = at(record, 0), at(record, 0, seconds=1.0)
    history.add(one)
    history.add(two)
    assert one.id[:15] == two.id[:15]
    with pytest.raises(CalibrationError, match="2 begin so"):
        history.get(one.id[:15])
    with pytest.raises(CalibrationError, match="none of that id"):
        history.get("nothing")
    with pytest.raises(CalibrationError):
        history.get("")
    assert find_calibration(one.id, "") == one


def test_a_damaged_history(history, record):
    history.add(record)
    file = history.folder / f"{record.id}.json"
    whole = file.read_text()
    file.write_text(whole[:-30])
    with pytest.raises(CalibrationError, match="cannot be read"):
        history.get(record.id)
    file.write_text(at(record, 1).model_dump_json())
    with pytest.raises(CalibrationError, match="somebody changed"):
        history.get(record.id)
    file.unlink()
    with pytest.raises(CalibrationError, match="cannot be read"):
        history.in_force(record.address)
    (history.folder / "index.sqlite").write_bytes(b"no database" * 400)
    with pytest.raises(CalibrationError, match="cannot be used"):
        CalibrationHistory(history.folder)


def test_a_history_of_a_newer_version_and_of_no_place(history, tmp_path):
    with sqlite3.connect(history.folder / "index.sqlite") as index:
        index.execute("PRAGMA user_version = 2")
    with pytest.raises(CalibrationError, match="newer"):
        CalibrationHistory(history.folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(CalibrationError, match="no folder"):
        CalibrationHistory(tmp_path / "file")


def test_a_full_disk_changes_nothing(history, record, monkeypatch):
    history.add(record)
    before = sorted(file.name for file in history.folder.iterdir())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CalibrationError, match="No space left"):
        history.add(at(record, 1))
    monkeypatch.undo()
    assert sorted(file.name for file in history.folder.iterdir()) == before
    assert CalibrationHistory(history.folder).in_force(record.address) == record


def test_addresses_without_what_changes_from_run_to_run():
    assert plain_address("sim://a?seed=3&chip=1") == "sim://a?chip=1"
    assert plain_address("http://lab/devices/x?token=t") == "http://lab/devices/x"
    assert plain_address("sim://a") == "sim://a"


# Drift


def test_drift_is_told_from_chance(record, chip, true):
    again = chip.calibrate(["pbits"])
    assert not compare_records(record, again).drifted
    with gl.open_device(CHIP + "&drift_per_hour=0.002&age_hours=30", seed=2) as aged:
        older = aged.calibrate(["pbits"])
    found = compare_records(record, older)
    assert found.drifted
    by_name = {change.name: change for change in found.changes}
    assert by_name["offset"].p_value < 1e-6
    assert by_name["gain"].p_value > 1e-4
    assert "offset: changed" in str(found)
    broken = at(record, 1, pbits=record.pbits.model_copy(update={"verdicts": ("dead", *record.pbits.verdicts[1:])}))
    assert compare_records(record, broken).broken == (0,)
    assert compare_records(broken, record).mended == (0,)
    with pytest.raises(CalibrationError, match='"pbits"'):
        compare_records(record, at(record, 1, pbits=None))
    with pytest.raises(CalibrationError, match="is of"):
        compare_records(record, at(record, 1, device="other"))


# Corrections

LINE = gl.IsingModel.from_edges([(0, 1, 0.5), (1, 2, -0.4), (8, 1, 0.3)], biases={0: 0.3, 8: -0.2})
MANY = gl.SamplingSchedule(n_samples=400, n_chains=64, n_warmup=20, sweeps_per_sample=3)
USED = [0, 1, 2, 8]


def exact():
    """The law of LINE on the sites that it uses, as `distribution` numbers states."""
    small = gl.IsingModel.from_edges([(0, 1, 0.5), (1, 2, -0.4), (3, 1, 0.3)], biases={0: 0.3, 3: -0.2})
    law = ExactLaw(small, 1.0)
    p = np.zeros(16)
    p[(law.states > 0) @ (1 << np.arange(4))] = law.probabilities
    return p


def test_a_corrected_chip_draws_what_was_asked(record):
    with gl.open_device(CHIP, seed=5) as device:
        raw = device.submit(LINE, MANY, seed=3).result()
        device.use_calibration(record)
        corrected = device.submit(LINE, MANY, seed=3).result()
        assert device.calibration == record
        device.use_calibration(None)
        assert np.array_equal(device.submit(LINE, MANY, seed=3).result().packed, raw.packed)
    p = exact()
    n = raw.n_chains * raw.n_samples

    def off(drawn):
        return n * float(((drawn - p) ** 2 / p).sum())  # about chi-square of 15 degrees for independent right samples

    assert off(distribution(raw, None, USED)) > 500
    assert off(distribution(corrected, record, USED)) < 60  # what the calibration does not know, too
    kernel = corrected.provenance.kernel
    assert kernel["calibration"] == record.id
    assert record.id in kernel["correction"]
    assert "calibration" not in raw.provenance.kernel


def test_models_on_p_bits_that_do_not_work_are_refused_and_embedded_around(record):
    (dead,) = record.bad_sites
    chip_wide = gl.IsingModel(np.zeros(64), [(0, 1)], [0.5])
    with gl.open_device(CHIP, seed=5, calibration=record) as device:
        for model, clamp in ((gl.IsingModel.from_edges([(dead, dead + 1, 0.5)]), None), (chip_wide, {dead: 1})):
            with pytest.raises(ModelNotSupportedError, match=f"{dead} \\(dead, by"):
                device.submit(model, clamp=clamp)
        device.submit(chip_wide, gl.SamplingSchedule(n_samples=1)).result()  # it is there, and not needed
        star = gl.IsingModel.from_edges([(0, k, 0.3) for k in range(1, 10)])
        again = gl.IsingModel.from_edges([(a, b, 0.4) for a in range(4) for b in range(a)] + [(3, 4, 0.4)])
        for model in (star, again):
            request = gl.JobRequest(model, gl.SamplingSchedule(n_samples=1), embed=True)
            prepared = prepare(request, device._machine, 0, ProgramCache(), record)
            assert dead not in {site for group in prepared.embedding.groups for site in group}


def test_what_is_out_of_range_is_listed_or_scaled(record):
    weak = int(np.where(record.pbits.good, record.pbits.gain.array, 9).argmin())
    other = weak + 1 if weak % 8 < 7 else weak - 1
    model = gl.IsingModel(np.zeros(64), [(min(weak, other), max(weak, other))], [1.0])
    short = gl.SamplingSchedule(n_samples=2, n_chains=1)
    with gl.open_device(CHIP, seed=5, calibration=record) as device:
        said = device.submit(model, short).result().provenance.kernel["correction"]
        assert f"J {weak}<-{other}" in said
        scaled = device.submit(model, short, on_overflow="scale").result()
        assert "out of range" not in scaled.provenance.kernel["correction"]


@pytest.fixture(scope="module")
def part():
    """Sixteen of a board's many p-bits, and the record as it would be of uneven ones."""
    with gl.open_device("firmware://host", seed=1) as device:
        found = device.calibrate(shots=400, n_sites=16)
    gains = Measured.of(np.linspace(0.8, 1.2, 16), np.full(16, 0.01))
    return found, at(found, 0, pbits=found.pbits.model_copy(update={"gain": gains}))


def test_a_board_is_calibrated_unchanged(part):
    found, _ = part
    assert np.abs((found.pbits.gain.array - 1) / found.pbits.gain.u).max() < K
    assert "no couplings were measured" in found.notes[0]
    assert found.firmware is not None
    assert len(found.temperatures) == 2


def test_one_coupling_for_both_directions_takes_the_mean_and_says_so(part):
    _, uneven = part
    with gl.open_device("firmware://host", seed=1, calibration=uneven) as device:
        assert not device.spec.capabilities.directed
        model = gl.IsingModel.from_edges([(0, 15, 0.5)], {3: 0.2})
        request = gl.JobRequest(model, gl.SamplingSchedule(n_samples=2))
        kernel = device.submit_request(request).result().provenance.kernel
        loaded = prepare(request, device._machine, 0, ProgramCache(), uneven).loaded
        beyond = gl.IsingModel.from_edges([(15, 16, 0.5)])  # the second one was not looked at: ideal
        assert "corrected" in device.submit(beyond, request.schedule).result().provenance.kernel["correction"]
        with pytest.raises(CalibrationError, match="looked at 16"):
            distribution(device.submit(beyond, request.schedule).result(), uneven, [15, 16])
    assert "their mean was taken" in kernel["correction"]
    held = loaded.weight * loaded.quantisation.step
    assert held == pytest.approx([(0.5 / 0.8 + 0.5 / 1.2) / 2] * 2, abs=loaded.quantisation.step)
    assert loaded.quantisation.step < 0.01 / 4  # coefficients of a free scale get finer steps than 0.5 needs


def test_fields_of_a_job_and_of_each_chain_are_corrected(record):
    pbits = record.pbits
    site = int(np.flatnonzero(pbits.good)[5])
    fields = np.zeros((64, 64))
    fields[:, site] = np.linspace(-1, 1, 64)
    model = gl.IsingModel(np.zeros(64), np.zeros((0, 2), dtype=int), [])
    schedule = gl.SamplingSchedule(n_samples=1000, n_chains=64)
    with gl.open_device(CHIP, seed=5, calibration=record) as device:
        result = device.submit(model, schedule, fields=fields, seed=2).result()
        one = device.submit(model, schedule, fields=fields[10], seed=2).result()
    shift, scale = (
        (pbits.down_as_up.array - pbits.up_as_down.array)[site],
        (1 - pbits.up_as_down.array - pbits.down_as_up.array)[site],
    )
    spread = np.hypot(np.hypot(pbits.gain.u[site] * 0.5, pbits.offset.u[site]), 2 * pbits.up_as_down.u[site])
    for found, wanted in (
        (result.spins[:, :, site].mean(axis=1), np.tanh(fields[:, site])),
        (one.spins[:, :, site].mean(), np.tanh(fields[10, site])),
    ):
        mean = (found - shift) / scale
        error = np.hypot(np.sqrt(1 / 1000) / scale, spread)
        assert np.abs(mean - wanted).max() < K * error


def test_moments_without_wrong_readings_are_the_true_ones():
    rng = np.random.default_rng(1)
    law = ExactLaw(gl.IsingModel.from_edges([(0, 1, 0.5), (1, 2, -0.4)], biases={0: 0.3}), 1.0)
    spins = law.states[rng.choice(8, 400_000, p=law.probabilities)]
    up_as_down, down_as_up = np.array([0.05, 0.1, 0.0]), np.array([0.02, 0.0, 0.2])
    read = np.where(rng.random(spins.shape) < np.where(spins > 0, up_as_down, down_as_up), -spins, spins)
    edges = np.array([(0, 1), (1, 2)])
    means, products = moments_without_errors(
        read.mean(axis=0), (read[:, [0, 1]] * read[:, [1, 2]]).mean(axis=0), edges, up_as_down, down_as_up
    )
    u = 1 / (np.sqrt(400_000) * 0.8**2)
    assert np.abs(means - law.probabilities @ law.states).max() < K * u
    true = law.probabilities @ (law.states[:, [0, 1]] * law.states[:, [1, 2]])
    assert np.abs(products - true).max() < K * u
    raw = (read[:, [0, 1]] * read[:, [1, 2]]).mean(axis=0)
    assert np.abs(raw - true).max() > 2 * K * u  # and they needed it


def test_what_scatters_no_more_than_chance_is_not_believed():
    rng = np.random.default_rng(1)
    u = np.full(400, 0.01)
    assert believed(Measured.of(1 + u * rng.normal(size=400), u), 1.0) is None
    shifted = believed(Measured.of(1.05 + u * rng.normal(size=400), u), 1.0)
    assert np.ptp(shifted) == 0
    assert abs(shifted[0] - 1.05) < K * 0.01 / 20
    true = 1 + 0.02 * rng.normal(size=400)
    found = believed(Measured.of(true + u * rng.normal(size=400), u), 1.0)
    assert ((found - true) ** 2).mean() < 0.9 * 0.01**2  # nearer than what was measured


def test_distributions_that_cannot_be(chip, record):
    result = chip.submit(gl.IsingModel(np.zeros(64), [(0, 1)], [0.5]), gl.SamplingSchedule(n_samples=5)).result()
    with pytest.raises(InvalidModelError, match="at most 16"):
        distribution(result)
    with pytest.raises(CalibrationError, match="no readout errors"):
        distribution(result, at(record, 0, pbits=None), [0, 1])
    assert distribution(result, record, [0, 1]).sum() == pytest.approx(1)


# Twins


def test_a_twin_is_its_chip(record, chip, tmp_path):
    twin = TwinSpec.of(record, chip.spec)
    twin.save(tmp_path / "twin.json")
    assert TwinSpec.load(tmp_path / "twin.json") == twin
    address = f"sim://pbit-king-64?twin={tmp_path / 'twin.json'}"
    with gl.open_device(address, seed=9) as device:
        again = device.calibrate(["pbits"])
    assert again.bad_sites == record.bad_sites
    good = record.pbits.good
    for name in ("gain", "offset", "up_as_down"):
        here, there = getattr(record.pbits, name), getattr(again.pbits, name)
        assert np.abs((here.array - there.array) / np.maximum(there.u, 1e-9))[good].max() < K


def test_a_twin_with_crosstalk_updates_in_the_order_of_its_chip(tmp_path):
    """Unequal gains make the law depend on that order; couplers of a dead p-bit, which nobody measures, count in it."""
    address = "sim://pbit-king-64?chip=3&gain_spread=0.1&n_dead=1&crosstalk=0.05"
    with gl.open_device(address, seed=1) as device:
        record = device.calibrate(["pbits", "couplings"], shots=300)
        twin = TwinSpec.of(record, device.spec)
        true = fabricate(device.spec, Nonidealities(chip=3, gain_spread=0.1, n_dead=1, crosstalk=0.05))
    assert np.array_equal(flaws_of(twin).pairs, true.pairs)
    dead = record.bad_sites[0]
    assert not any(dead in pair for pair in record.couplings.pairs)


def test_twins_that_cannot_be(record, chip, tmp_path):
    with pytest.raises(CalibrationError, match='run the protocol "pbits"'):
        TwinSpec.of(at(record, 0, pbits=None), chip.spec)
    with gl.open_device("sim://pbit-rbm-512") as other, pytest.raises(CalibrationError, match="is of pbit-king-64"):
        TwinSpec.of(record, other.spec)
    path = tmp_path / "twin.json"
    record.save(path)
    with pytest.raises(FileFormatError, match="holds no twin"):
        TwinSpec.load(path)
    past = at(record, 0, expires=(datetime.now(UTC) - timedelta(hours=1)).isoformat())
    TwinSpec.of(past, chip.spec).save(path)
    address = f"sim://pbit-king-64?twin={path}"
    with pytest.raises(CalibrationError, match="expired"):
        gl.open_device(address)
    gl.open_device(f"{address}&expired=yes").close()
    with pytest.raises(DeviceNotFoundError, match="no twin at"):
        gl.open_device("sim://pbit-king-64?twin=nowhere.json")
    with pytest.raises(DeviceNotFoundError, match="is the twin of"):
        gl.open_device(f"sim://ideal?twin={path}&expired=yes")


def test_a_jobs_own_fields_that_end_up_out_of_range_are_refused():
    """16.1 is the largest field of the chip; a gain below 1 wants more."""
    with gl.open_device("sim://pbit-king-64?chip=3&gain_spread=0.2") as device:
        device.use_calibration(device.calibrate(["pbits"], shots=400))
        free = gl.IsingModel(np.zeros(64), np.zeros((0, 2), dtype=np.int32), np.zeros(0))
        with pytest.raises(ModelNotSupportedError, match=r"largest .field. of the job"):
            device.submit(free, gl.SamplingSchedule(n_samples=2), fields=np.full(64, 16.0))
        inside = device.submit(free, gl.SamplingSchedule(n_samples=2), fields=np.full(64, 1.0)).result()
        assert "out of range" not in inside.provenance.kernel["correction"]
