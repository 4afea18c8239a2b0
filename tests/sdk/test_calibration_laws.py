"""Corrections judged by the law that a chip then has, and jobs in a store under the calibration they were given."""

from __future__ import annotations

import glauber as gl
import numpy as np
import pytest
from glauber.errors import CalibrationError, ModelNotSupportedError
from glauber.nonidealities import Nonidealities
from glauber_simulator.flaws import fabricate

KING = gl.load_spec("pbit-king-64")
FREE = gl.IsingModel(np.zeros(64), np.zeros((0, 2), dtype=np.int32), np.zeros(0))


def products(device, model, pairs, beta, **arguments):
    schedule = gl.SamplingSchedule(n_samples=40, n_chains=1000, beta=beta, n_warmup=20, sweeps_per_sample=3)
    spins = device.submit(model, schedule, seed=3, **arguments).result().spins.astype(float)
    return np.array([(spins[..., i] * spins[..., j]).mean() for i, j in pairs])


@pytest.mark.parametrize("beta", [0.4, 1.0, 2.5])
def test_crosstalk_of_a_device_that_folds_beta_is_its_own_whatever_beta_is(beta):
    """The chip adds 0.02 of its range of 6 to every pair: more than the model's own coupling at a small beta."""
    with gl.open_device("sim://z1?weight_bits=10&width=6&height=6&crosstalk=0.02", seed=1) as device:
        device.use_calibration(device.calibrate(["pbits", "couplings"], shots=4000))
        edges = device.spec.topology.edges()
        model = gl.IsingModel.from_edges([(*edges[0].tolist(), 0.2)], n_sites=36)
        found = products(device, model, edges[:30].tolist(), beta)
        expected = np.zeros(30)
        expected[0] = np.tanh(0.2 * beta)
        assert np.abs(found - expected).max() < 0.04  # 1/200 by chance, the rest by codes of 6/511 in the argument


def test_crosstalk_is_corrected_where_coefficients_are_scaled_down():
    with gl.open_device("sim://pbit-king-64?chip=1&crosstalk=0.1", seed=1) as device:
        device.use_calibration(device.calibrate(["pbits", "couplings"], shots=4000))
        model = gl.IsingModel.from_edges([(0, 1, 0.3), (62, 63, 4.0)], n_sites=64)
        found = products(device, model, [(0, 1), (20, 21), (20, 28), (62, 63)], 1.0, on_overflow="scale")
        assert np.abs(found - [np.tanh(0.3), 0.0, 0.0, np.tanh(4.0)]).max() < 0.06  # codes are 4 / 127 here


def test_what_is_not_corrected_is_said():
    with gl.open_device("sim://pbit-king-64?chip=1&offset_spread=0.3", seed=1) as device:
        device.use_calibration(device.calibrate(["pbits"], shots=1000))
        cold = device.submit(FREE, gl.SamplingSchedule(n_samples=2, beta=0.0)).result()
        assert "at beta 0" in cold.provenance.kernel["correction"]
        anneal = device.submit(FREE, gl.AnnealingSchedule(beta_start=0.1, beta_end=2.0, n_sweeps=10)).result()
        assert "at beta 2 only" in anneal.provenance.kernel["correction"]


def test_p_bits_stick_at_both_values():
    found = [fabricate(KING, Nonidealities(chip=chip, n_stuck=4)).stuck for chip in range(30)]
    values = np.concatenate([each[each != 0] for each in found])
    assert len(values) == 120
    assert 30 < (values > 0).sum() < 90
    with gl.open_device("sim://pbit-king-64?chip=1&n_stuck=6", seed=1) as device:
        record = device.calibrate(["pbits"], shots=400)
    made = fabricate(KING, Nonidealities(chip=1, n_stuck=6)).stuck
    names = {1: "stuck up", -1: "stuck down", 0: "good"}
    assert record.pbits.verdicts == tuple(names[int(value)] for value in made)


def test_bad_p_bits_are_not_used_in_any_way():
    with gl.open_device("sim://pbit-king-64") as device:
        device.mask([0])
        pair = gl.IsingModel.from_edges([(0, 1, 1.0)])
        with pytest.raises(ModelNotSupportedError, match="masked by hand"):
            device.submit(pair)
        assert device.submit(pair, embed=True).result().provenance.embedding is not None
        fields = np.zeros(64)
        fields[0] = 1.0
        with pytest.raises(ModelNotSupportedError, match="masked by hand"):
            device.submit(FREE, fields=fields)


@pytest.mark.parametrize("submitted", ["raw", "A"])
def test_a_stored_job_goes_on_under_the_calibration_it_was_given(tmp_path, monkeypatch, submitted):
    """Half of it is drawn; then the device is opened again with another calibration in use."""
    monkeypatch.setenv("GLAUBER_CALIBRATIONS", str(tmp_path / "calibrations"))
    from glauber.calibration import CalibrationHistory

    address, store = "sim://pbit-king-64?chip=1&offset_spread=0.5", tmp_path / "jobs.sqlite"
    schedule = gl.SamplingSchedule(n_samples=600, n_chains=64, sweeps_per_sample=40)
    with gl.open_device(address, seed=1) as device:
        a, b = (device.calibrate(["pbits"], shots=shots) for shots in (1000, 4000))
        device.use_calibration(None if submitted == "raw" else a)
        expected = device.submit(FREE, schedule, seed=5).result()
    CalibrationHistory().add(a)
    device = gl.open_device(address, seed=1, store=store, calibration=None if submitted == "raw" else a)
    job = device.submit(FREE, schedule, seed=5)
    for progress in job.watch():
        if progress.samples_done > 20:
            break
    device.close(requeue=True)
    with gl.open_device(address, seed=1, store=store, calibration=b):
        result = gl.get_job(job.id, store=store).result(60)
        assert np.array_equal(result.packed, expected.packed)
        assert result.provenance.kernel.get("calibration") == (None if submitted == "raw" else a.id)


def test_records_that_contradict_themselves_are_refused(tmp_path):
    with gl.open_device("sim://pbit-king-64") as device:
        record = device.calibrate(["pbits"], shots=200)
    for change in ({"n_sites": 3}, {"expires": "tomorrow"}, {"expires": "2030-01-01T00:00:00"}, {"id": "../x"}):
        with pytest.raises(ValueError, match=r"p-bits|isoformat|time zone|pattern"):
            type(record).model_validate({**record.model_dump(), **change})
    with gl.open_device("sim://pbit-rbm-512") as device, pytest.raises(CalibrationError, match="is of pbit-king-64"):
        device.use_calibration(record)
