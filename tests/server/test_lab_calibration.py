"""`calibration` in devices.toml: a device corrected for all its users, and start-up errors that say what is wrong."""

from __future__ import annotations

import glauber as gl
import pytest
from glauber.calibration import CalibrationHistory
from glauber.errors import CalibrationError, FileFormatError
from glauber.server.config import read_config
from glauber.server.lab import Lab
from lab_bench import SHORT, Bench, Process, write_config

CHIP = "sim://pbit-king-64?chip=3&gain_spread=0.1&offset_spread=0.2&n_dead=1"


def config(calibration):
    return f"""\
store = "jobs.sqlite"
[devices.ideal]
address = "sim://ideal"
[devices.king]
address = "{CHIP}"
calibration = "{calibration}"
"""


@pytest.fixture(autouse=True)
def history(tmp_path, monkeypatch):
    monkeypatch.setenv("GLAUBER_CALIBRATIONS", str(tmp_path / "calibrations"))
    return CalibrationHistory()


@pytest.fixture(scope="module")
def record():
    with gl.open_device(CHIP, seed=1) as device:
        return device.calibrate(["pbits"], shots=1000)


@pytest.mark.parametrize("name", ["record.json", "latest", "the id"])
def test_a_device_is_corrected_for_all(tmp_path, history, record, name):
    record.save(tmp_path / "record.json")
    if name != "record.json":
        history.add(record)
    with Bench(tmp_path, config(record.id if name == "the id" else name)) as bench:
        assert bench.get("/devices/king").json()["calibration"] == record.id
        assert bench.get("/devices/ideal").json()["calibration"] is None
        job = bench.submit(SHORT, device="king").json()["id"]
        assert bench.wait(job)["status"] == "done"
        kernel = bench.lab.store.result(job).provenance.kernel
        assert kernel["calibration"] == record.id


@pytest.mark.slow
def test_a_remote_client_learns_of_it(tmp_path, record, monkeypatch):
    record.save(tmp_path / "record.json")
    with Process(tmp_path, config("record.json")) as server:
        monkeypatch.setenv("GLAUBER_TOKEN", server.token("ada"))
        with gl.open_device(f"{server.url}/devices/king") as device:
            model = gl.IsingModel.from_edges([(0, 1, 0.5)])
            kernel = device.submit(model, SHORT).result(60).provenance.kernel
            assert kernel["calibration"] == record.id
            assert record.id in kernel["correction"]
            dead = record.bad_sites[0]
            with pytest.raises(gl.errors.ModelNotSupportedError, match="dead"):
                device.submit(gl.IsingModel.from_edges([(dead, dead + 1, 0.5)]), SHORT)
            with pytest.raises(CalibrationError, match=r"devices\.toml"):
                device.use_calibration(record)


@pytest.mark.parametrize(
    ("calibration", "error", "says"),
    [
        ("latest", CalibrationError, "none of sim://pbit-king-64"),
        ("nothing", CalibrationError, "none of that id"),
        ("nothing.json", CalibrationError, "no calibration at"),
        ("devices.json", FileFormatError, "holds no calibration"),
        ("other.json", CalibrationError, "is of pbit-rbm-512"),
    ],
)
def test_a_wrong_one_is_a_start_up_error(tmp_path, record, calibration, error, says):
    (tmp_path / "devices.json").write_text("{}")
    record.model_copy(update={"device": "pbit-rbm-512"}).save(tmp_path / "other.json")
    path = write_config(tmp_path, config(calibration))
    with pytest.raises(error, match=says) as raised:
        Lab(read_config(path))
    assert str(raised.value).startswith("devices.king: ")
    path = write_config(tmp_path, config(calibration).replace(f'calibration = "{calibration}"\n', ""))
    with Lab(read_config(path)):  # nothing was left open or locked
        pass
