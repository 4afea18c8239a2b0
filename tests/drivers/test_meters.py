"""PPK2, RAPL, recordings and stated powers as meters, and how a meter comes to a device; no real instrument here."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time

import glauber as gl
import pytest
from glauber.driver import JobService
from glauber.errors import (
    DeviceClosedError,
    DeviceIOError,
    DeviceNotFoundError,
    FileFormatError,
    InvalidModelError,
    MeteringError,
    ProtocolError,
)
from glauber.meter import measured_energy
from glauber.registry import open_meter
from glauber.server.config import DeviceConfig
from glauber.spec import Quantity
from glauber.testing import KnownPower, Ppk2Emulator, Rail, RaplTree
from glauber.trace_file import save_trace
from glauber_drivers.meters import instrument, ppk2, rapl
from glauber_drivers.meters.model import ModelMeter
from glauber_drivers.meters.ppk2 import Ppk2Meter
from glauber_drivers.meters.rapl import RaplMeter
from glauber_drivers.meters.replay import ReplayMeter
from glauber_simulator.driver import SimulatorDriver
from meter_lab import assert_too_short

MODEL = gl.IsingModel.from_edges([(0, 1, 1.0), (1, 2, -0.5)])
SCHEDULE = gl.SamplingSchedule(n_samples=20, n_chains=2)


def threads():
    return [each.name for each in threading.enumerate() if each.name.startswith("glauber meter")]


class Slow(SimulatorDriver):
    """The simulator, at work for a tenth of a second."""

    def __init__(self, meter=None):
        super().__init__(gl.load_spec("ideal"))
        self.meter = meter

    def run(self, run):
        time.sleep(0.1)
        yield from super().run(run)


class Held(Slow):
    """Tells when it is at work, and waits until it may go on."""

    def __init__(self):
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()

    def run(self, run):
        self.begun.set()
        assert self.go.wait(30)
        yield from super().run(run)


def measured(meter, seconds=0.05):
    window = meter.start()
    time.sleep(seconds)
    trace = window.stop()
    assert window.stop() is trace
    return trace, measured_energy(meter.spec, trace)


# PPK2


@pytest.fixture
def kit():
    with Ppk2Emulator(Rail(KnownPower(0.05, 0.02, 3.0), noise_amps=1e-5)) as found:
        yield found


def test_the_joules_of_a_kit(kit):
    with open_meter(kit.address) as meter:
        for _ in range(2):
            trace, report = measured(meter)
            true = float(kit.rail.power.joules(*trace.window))
            # this kit has no gain error; how late the window begins is in the budget
            assert abs(report.joules - true) < 0.01 * true + 3 * report.standard_uncertainty
            assert report.expanded_uncertainty() > 0.09 * true  # but who knows that
        assert "gaps" not in " ".join(line.name for line in report.budget)
        kit.rail.current_gain = 0.3
        for seconds in (0.05, 0.5, 3.0):  # on a busy machine a window begins late; the longer it is, the less that is
            trace, report = measured(meter, seconds)
            if 20 * max(trace.skews) < seconds:
                break
        assert abs(report.joules - float(kit.rail.power.joules(*trace.window))) > 2 * report.expanded_uncertainty()
    assert threads() == []


@pytest.mark.parametrize("error", [DeviceIOError("gone"), KeyboardInterrupt()], ids=["fails", "Ctrl-C"])
def test_a_start_that_breaks_stops_the_kit(kit, monkeypatch, error):
    def broken(window):
        raise error

    with open_meter(kit.address) as meter:
        with monkeypatch.context() as patched:
            patched.setattr(ppk2._Window, "_take", broken)
            with pytest.raises(type(error)):
                meter.start()
        assert silent(meter._kit)
        assert measured(meter)[1].joules > 0


def silent(kit):
    """Whether a kit has stopped sending: 50 ms in which nothing comes, within a second."""
    for _ in range(20):
        time.sleep(0.05)
        if not kit.get_data():
            return True
    return False


@pytest.mark.slow
def test_a_line_that_something_else_feeds(kit):
    with open_meter(f"{kit.address}&mode=ampere&volts_limit=0.001") as meter:
        assert "ampere mode" in meter.spec.name
        assert {limit.name: limit.relative for limit in meter.spec.limits}["voltage"] == 0.001
        assert measured(meter)[1].joules > 0


def test_readings_that_are_lost_are_noticed(kit):
    with open_meter(kit.address) as meter:
        kit.lose_at = 3000
        window = meter.start()
        deadline = time.monotonic() + 30
        while kit._sent < 3500:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        for _ in range(2):
            with pytest.raises(DeviceIOError, match=r"were lost near number \d+") as caught:
                window.stop()
            # the number of the first reading in the delivery that it is missing from
            assert int(re.search(r"near number (\d+)", str(caught.value))[1]) <= 3000
        kit.lose_at = None
        assert measured(meter)[1].joules > 0


def test_a_kit_that_is_pulled_out_under_a_job(kit):
    meter = open_meter(kit.address)
    driver = Held()
    with gl.Device(driver, seed=1, meter=meter) as device:
        job = device.submit(MODEL, SCHEDULE)
        assert driver.begun.wait(30)
        kit.unplug()
        driver.go.set()
        result = job.result(30)
    assert result.n_samples == 20
    assert "is gone" in result.energy_report.not_measured
    meter.close()
    assert threads() == []


def test_what_a_kit_cannot_say(kit):
    with open_meter(kit.address) as meter:
        assert_too_short(lambda: measured(meter, 0.0005), "readings of at least 5")
        kit.rail.power = KnownPower(0.5e-6)
        kit.rail.noise_amps = 0.0
        with pytest.raises(MeteringError, match="no figure at all"):
            measured(meter, 0.02)
        window = meter.start()
        with pytest.raises(MeteringError, match="one window at a time"):
            meter.start()
    with pytest.raises(DeviceClosedError, match="was open"):
        window.stop()
    with pytest.raises(DeviceClosedError, match="open it again"):
        meter.start()
    assert threads() == []


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("ppk2:///dev/nowhere?volts=1.8", "cannot be opened"),
        ("ppk2:///dev/ttyACM0", "give port and voltage"),
        ("ppk2:///dev/ttyACM0?volt=1", "did you mean volts?"),
        ("ppk2:///dev/ttyACM0?volts=9", "from 0.8 to 5.0 V"),
        ("ppk2:///dev/ttyACM0?volts=1.8&mode=sink", '"source" or "ampere"'),
        ("ppk2:///dev/ttyACM0?volts=1.8&volts_limit=2", "below 1"),
    ],
)
def test_addresses_of_kits_that_are_wrong(address, says):
    with pytest.raises(DeviceNotFoundError) as caught:
        open_meter(address)
    assert says in str(caught.value)


@pytest.mark.slow
def test_another_thing_at_that_port(kit):
    kit.dead = True
    with pytest.raises(DeviceNotFoundError, match="no Power Profiler Kit II answers"):
        open_meter(kit.address)


def test_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "ppk2_api.ppk2_api", None)
    with pytest.raises(ImportError, match=r"pip install 'glauber\[meters\]'"):
        Ppk2Meter("/dev/ttyACM0", 1.8)


# RAPL


@pytest.fixture
def tree(tmp_path):
    """Two packages of 30 and 20 W, whose counters begin again after 8 J."""
    with RaplTree(tmp_path, [KnownPower(30.0), KnownPower(20.0)], range_uj=8_000_000, start_uj=7_900_000) as found:
        yield found


def test_packages_are_summed_through_wraps_and_parts_not_counted_twice(tree):
    with open_meter(f"rapl://{tree.root}") as meter:
        assert meter.spec.name == "RAPL counters of package-0, package-1 (memory is not counted)"
        trace, report = measured(meter, 0.3)  # 15 J in two counters of 8 J
        true = tree.joules(trace.times[0], trace.times[-1])
        assert abs(report.joules - true) <= max(report.expanded_uncertainty(), 0.05 * true)
        assert report.joules > 12
        assert report.boundary == "chip"
    assert threads() == []


def test_a_counter_that_is_set_back_in_a_window_is_no_wrap(tmp_path):
    """20 W for a tenth of a second, and then 0: as a suspend or another load of the driver leaves it."""
    with RaplTree(tmp_path, [KnownPower(20.0)], start_uj=5_000_000_000) as tree, RaplMeter(tmp_path) as meter:
        window = meter.start()
        time.sleep(0.1)
        tree.close()
        overwrite(tmp_path / "intel-rapl:0" / "energy_uj", "0")
        with pytest.raises(ProtocolError, match="went backwards"):
            window.stop()
    assert threads() == []


def test_what_a_counter_does_between_windows_is_nobodys(tmp_path):
    with RaplTree(tmp_path, [KnownPower(20.0)]) as tree, RaplMeter(tmp_path) as meter:
        tree.close()
        overwrite(tmp_path / "intel-rapl:0" / "energy_uj", "0")  # back, and no window is open
        window = meter.start()
        overwrite(tmp_path / "intel-rapl:0" / "energy_uj", "700000")
        assert window.stop().readings[[0, -1]].tolist() == [0.0, 0.7]


def test_packages_of_several_dies(tmp_path):
    with RaplTree(tmp_path, [KnownPower(20.0), KnownPower(5.0)]) as tree:
        (tmp_path / "intel-rapl:0" / "name").write_text("package-0-die-0\n")
        (tmp_path / "intel-rapl:1" / "name").write_text("package-0-die-1\n")
        with RaplMeter(tree.root) as meter:
            assert meter.spec.name.startswith("RAPL counters of package-0-die-0, package-0-die-1 (")


def test_an_instrument_is_identified_beyond_its_name(tmp_path, kit, monkeypatch):
    """Two meters of one computer agree; that of another computer has the same name and is another one."""
    with RaplTree(tmp_path, [KnownPower(20.0)]):
        specs = []
        for number in ("a\n", "a\n", "b\n"):
            (tmp_path / "machine-id").write_text(number)
            monkeypatch.setattr(instrument, "MACHINE_ID", tmp_path / "machine-id")
            with RaplMeter(tmp_path) as meter:
                specs.append(meter.spec)
    assert len({spec.name for spec in specs}) == 1
    assert specs[0].identity == specs[1].identity != specs[2].identity
    with open_meter(kit.address) as meter:
        assert measured(meter)[1].meter_identity == meter.spec.identity
        assert meter.spec.identity.startswith("PPK2 at ")


def test_no_tree_and_no_package(tmp_path):
    with pytest.raises(DeviceNotFoundError, match=r"there is none.*sudo modprobe intel_rapl_msr"):
        RaplMeter(tmp_path / "none")
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0" / "name").write_text("psys\n")
    with pytest.raises(DeviceNotFoundError, match="it holds psys"):
        RaplMeter(tmp_path)


def test_counters_that_only_root_may_read(tree):
    for zone in tree.root.glob("intel-rapl:*"):
        os.chmod(zone / "energy_uj", 0o400)
    os.chmod(tree.root, 0o755)
    code = (
        "import encodings.ascii, os, sys\n"  # now: later, the interpreter's own files may not be readable
        "from glauber_drivers.meters.rapl import RaplMeter\n"
        "from glauber.errors import DeviceIOError\n"
        "os.chdir(sys.argv[1])\n"
        "os.setuid(65534) if os.getuid() == 0 else os.chmod('intel-rapl:0/energy_uj', 0)\n"
        "try:\n    RaplMeter('.')\nexcept DeviceIOError as error:\n    print(error)\n"
    )
    found = subprocess.run([sys.executable, "-c", code, str(tree.root)], capture_output=True, text=True, timeout=60)
    assert "sudo chmod a+r" in found.stdout, found.stderr
    assert "CVE-2020-8694" in found.stdout


def test_counters_that_stand_still(tree, monkeypatch):
    tree.close()
    monkeypatch.setattr(rapl, "PERIOD_LIMIT_SECONDS", 0.02)
    with pytest.raises(MeteringError, match="no counters"):
        RaplMeter(tree.root)


@pytest.mark.parametrize(
    ("content", "kind", "says"),
    [
        (None, DeviceIOError, "modprobe"),
        ("many", ProtocolError, "no count"),
        ("9999999", ProtocolError, "beyond its range"),
    ],
)
def test_counters_that_break_in_a_window(tree, content, kind, says):
    with RaplMeter(tree.root) as meter:
        window = meter.start()
        tree.close()
        file = tree.root / "intel-rapl:0" / "energy_uj"
        if content is None:
            file.unlink()
        else:
            overwrite(file, content)
        if content == "9999999":  # beyond the range, and then below it
            deadline = time.monotonic() + 30
            while meter._zones[0]._last != 9999999:
                assert time.monotonic() < deadline
                time.sleep(0.002)
            overwrite(file, "100")
        window._thread.join(10)  # it sees that, and gives up
        assert not window._thread.is_alive()
        with pytest.raises(kind, match=says):
            window.stop()


def overwrite(file, content):
    """At once, as the kernel does: a reader never sees an empty file."""
    with file.open("r+b", buffering=0) as opened:
        opened.write(f"{content:<20s}\n".encode())


def test_one_window_of_the_counters_at_a_time(tree):
    meter = RaplMeter(tree.root)
    window = meter.start()
    with pytest.raises(MeteringError, match="is open"):
        meter.start()
    meter.close()
    with pytest.raises(DeviceClosedError, match="was open"):
        window.stop()
    with pytest.raises(DeviceClosedError, match="open another"):
        meter.start()
    with pytest.raises(InvalidModelError, match="relative_limit"):
        RaplMeter(tree.root, relative_limit=1.0)
    assert threads() == []


@pytest.mark.slow
def test_ctrl_c_ends_a_program_that_measures(tree):
    code = (
        "import sys, threading\nfrom glauber.registry import open_meter\n"
        "try:\n"
        "    with open_meter(sys.argv[1]) as meter:\n"
        "        print('ready', flush=True)\n        meter.measure_idle(60)\n"
        "except KeyboardInterrupt:\n    print([t.name for t in threading.enumerate() if 'meter' in t.name])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, f"rapl://{tree.root}"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=20)
    assert rest == "[]\n"


# Recordings


def test_a_recording_is_evaluated_again(tree, tmp_path):
    with RaplMeter(tree.root) as meter:
        trace, report = measured(meter, 0.1)
        save_trace(tmp_path / "job.npz", meter.spec, trace)
    again = open_meter(f"replay://{tmp_path}/job.npz")
    assert again.spec.identity == meter.spec.identity != ""
    assert again.spec.name.endswith("(memory is not counted), played again from job.npz")
    found = measured_energy(again.spec, again.start().stop())
    assert (found.joules, found.expanded_uncertainty()) == (report.joules, report.expanded_uncertainty())
    with gl.open_device("sim://ideal", meter=again) as device:
        assert device.submit(MODEL, SCHEDULE).result(30).energy_report.joules == report.joules
    again.close()


def test_recordings_that_are_none(tmp_path):
    with pytest.raises(DeviceNotFoundError, match="cannot be read"):
        ReplayMeter(tmp_path / "nowhere.npz")
    (tmp_path / "bad.npz").write_bytes(b"no")
    with pytest.raises(FileFormatError, match="no recording"):
        open_meter(f"replay://{tmp_path}/bad.npz")


# Stated powers

STATED = Quantity(value=3.0, standard_uncertainty=0.3, unit="W", provenance="model", source="a circuit simulation")


def test_a_stated_power_is_never_called_measured(tmp_path):
    with gl.Device(Slow(), seed=1, meter=ModelMeter(STATED)) as device:
        report = device.submit(MODEL, SCHEDULE).result(30).energy_report
    part = report.parts["running"]
    assert (report.basis, part.provenance, report.not_measured) == ("modelled", "model", "")
    assert report.joules == pytest.approx(3.0 * part.count)
    assert part.count > 0.1
    assert report.standard_uncertainty == pytest.approx(0.1 * report.joules)
    assert report.expanded_uncertainty() == pytest.approx(1.96 * 0.1 * report.joules, rel=1e-3)
    assert "modelled" in str(report)
    with pytest.raises(InvalidModelError, match="reads nothing"):
        save_trace(tmp_path / "t.npz", ModelMeter(STATED).spec, ModelMeter(STATED).start().stop())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"provenance": "measured"}, "no measurement of this job"),
        ({"unit": "J"}, "in W"),
        ({"value": -1.0}, "must be positive"),
        ({"standard_uncertainty": None}, "says nothing"),
    ],
)
def test_stated_powers_that_are_refused(change, says):
    with pytest.raises(InvalidModelError, match=says):
        ModelMeter(STATED.model_copy(update=change))


def test_a_stated_power_as_uncertain_as_it_is_large():
    meter = ModelMeter(STATED.model_copy(update={"standard_uncertainty": 3.0}))
    with gl.Device(Slow(), seed=1, meter=meter) as device:
        report = device.submit(MODEL, SCHEDULE).result(30).energy_report
    assert "no figure at all" in report.not_measured


def test_a_stated_power_by_address():
    with gl.open_device("sim://ideal", meter="model://?watts=3.2&uncertainty=0.4&source=bench") as device:
        (part,) = device.submit(MODEL, SCHEDULE).result(30).energy_report.parts.values()
    assert (part.provenance, part.source) == ("assumed", "stated power, 3.2 W: bench")
    for address, says in (
        ("model://?watts=3", "uncertainty, source must be given"),
        ("model://?watts=3&uncertainty=0&source=b", "says nothing"),
        ("model://?watts=3&uncertainty=inf&source=b", "."),
        ("model://?watts=x&uncertainty=1&source=b", "must be numbers"),
        ("model://?watts=3&uncertainty=1&source=b&idle=1", "measures no idle power"),
    ):
        with pytest.raises(DeviceNotFoundError, match=says):
            open_meter(address)


# How a meter comes to a device


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("raple://", "did you mean rapl://?"),
        ("volts://0", "there are model://, nvml://, ppk2://, rapl://, replay://, visa://"),
        ("rapl", "not a meter's address"),
        ("rapl://?idle=long", "give seconds"),
        ("rapl://?idle=3601", "to 3600 s"),
        ("nvml://0?gpu=1", "no parameter gpu"),
    ],
)
def test_addresses_of_meters_that_are_wrong(address, says):
    with pytest.raises(DeviceNotFoundError) as caught:
        gl.open_device("sim://ideal", meter=address)
    assert says in str(caught.value)
    assert threads() == []


def test_a_meter_whose_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "glauber_drivers.meters.rapl", None)
    with pytest.raises(DeviceNotFoundError, match=r"cannot be loaded: .*pip install 'glauber\[meters\]'"):
        open_meter("rapl://")


def test_idle_power_by_address(tree):
    with open_meter(f"rapl://{tree.root}?idle=0.15") as meter:
        # on a busy machine the counters move late, which the standard error says
        assert abs(meter.idle.watts - 50) < max(4 * meter.idle.standard_error, 0.05 * 50)
    assert_too_short(lambda: open_meter(f"rapl://{tree.root}?idle=0.001").close(), "cannot be measured")


def test_the_given_meter_counts_and_the_report_says_so(kit):
    own, given = ModelMeter(STATED), open_meter(kit.address)
    with gl.Device(Slow(own), seed=1, meter=given) as device:
        report = device.submit(MODEL, SCHEDULE).result(30).energy_report
    assert report.basis == "measured"
    assert report.parts["gross"].source.startswith("PPK2 at ")
    assert report.parts["gross"].source.endswith("in place of the device's own stated power, 3 W")
    assert measured(given)[1].joules > 0  # an open one stays open
    given.close()
    with gl.Device(Slow(own), seed=1) as device:
        assert "running" in device.submit(MODEL, SCHEDULE).result(30).energy_report.parts


def test_a_service_takes_no_meter():
    service = type("Service", (), {name: lambda *_: None for name in _members(JobService)})()
    service.spec = gl.load_spec("ideal")
    assert isinstance(service, JobService)
    with pytest.raises(InvalidModelError, match=r"runs its jobs elsewhere.*devices\.toml"):
        gl.Device(service, meter="rapl://")


def _members(protocol):
    return [name for name in vars(protocol) if not name.startswith("_")] + [
        name for name in getattr(protocol, "__annotations__", {}) if not name.startswith("_")
    ]


def test_a_lab_servers_meter_is_an_address_or_the_drivers_own_name():
    by_name = DeviceConfig(address="cupy://0", meter="nvml")
    assert (by_name.full_address, by_name.meter_address) == ("cupy://0?meter=nvml", None)
    by_address = by_name.model_copy(update={"meter": "rapl://?idle=5"})
    assert (by_address.full_address, by_address.meter_address) == ("cupy://0", "rapl://?idle=5")


@pytest.mark.slow
def test_glauber_run_takes_a_meter(tmp_path, kit):
    from glauber.cli import app
    from typer.testing import CliRunner

    gl.write_model(gl.IsingModel.from_edges([(i, i + 1, 1.0) for i in range(1000)]), tmp_path / "m.json")
    command = [
        "run",
        str(tmp_path / "m.json"),
        "--device",
        "sim://ideal",
        "--samples",
        "20",
        "--chains",
        "8",
        "--thin",
        "500",
    ]
    command += ["--store", "none", "--meter"]
    found = CliRunner().invoke(app, [*command, kit.address])
    assert found.exit_code == 0, found.output
    assert "(measured, chip; largest uncertainty: gain)" in found.output
    wrong = CliRunner().invoke(app, [*command, "ppk3:///dev/ttyACM0"])
    assert wrong.exit_code == 3
    assert "did you mean ppk2://?" in wrong.output
