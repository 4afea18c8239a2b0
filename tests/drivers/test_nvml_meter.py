"""NvmlMeter: the stock pynvml on a library of ours in place of NVIDIA's, whose power is known at every instant.

`fake_nvml.c` is compiled here and loaded by a process of its own, `nvml_lab.py`. No real GPU has been measured so far.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binom

HERE = Path(__file__).parent
FAST = {"PERIOD": 0.005}


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """With a libnvidia-ml.so.1 of ours on the library path."""
    folder = tmp_path_factory.mktemp("nvml")
    library = folder / "libnvidia-ml.so.1"
    command = ["cc", "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library)]
    subprocess.run([*command, str(HERE / "fake_nvml.c"), "-lm", "-lpthread"], check=True)
    return {**os.environ, "LD_LIBRARY_PATH": str(folder)}


@pytest.fixture(scope="module")
def lab(environment):
    """Runs an experiment of nvml_lab.py under settings of the fake library; gives its result, or its error."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "nvml_lab.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True,
    )  # fmt: skip

    def run(experiment: str, settings: dict[str, Any] | None = None, **arguments: Any) -> Any:
        process.stdin.write(json.dumps({"experiment": experiment, "settings": settings or {}, **arguments}) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert answer.get("error") != "unexpected", answer
        return answer["result"] if "result" in answer else (answer["error"], answer["message"])

    yield run
    process.stdin.close()
    assert process.wait(30) == 0
    process.stdout.close()


# What the meter is


@pytest.mark.parametrize("period", [0.02, 0.06])
def test_the_update_period_is_measured(lab, period):
    found = lab("describe", {"PERIOD": period})
    assert found["period_seconds"] == pytest.approx(period, rel=0.3)
    assert (found["reads"], found["boundary"]) == ("joules", "board")
    assert found["name"] == "NVML energy counter of GPU 0 (Fake GPU)"


@pytest.mark.parametrize(
    ("capability", "reads", "averaging", "share"),
    [
        (70, "joules", 0.0, 1.0), (70, "watts", 0.0, 1.0), (80, "joules", 0.0, 0.25), (80, "watts", 0.0, 0.25),
        (86, "watts", 1.0, 1.0), (86, "joules", 0.0, 1.0), (90, "joules", 0.0, 0.25), (90, "watts", 1.0, 0.25),
        (100, "joules", 0.0, 0.25), (0, "watts", 1.0, 0.25),
    ],
)  # fmt: skip
def test_what_is_known_of_each_generation_is_in_the_spec(lab, capability, reads, averaging, share):
    settings = {**FAST, "CAPABILITY": capability, "SWING": 40, "SWING_HZ": 3}
    found = lab("describe", settings, reads=reads)
    assert (found["averaging_seconds"], found["seen_share"]) == (averaging, share)
    assert bool(found["seen_source"]) == (share < 1)


@pytest.mark.parametrize("gpu", [1, "GPU-fake-1", "0000:01:00.0"])
def test_a_gpu_is_found_by_index_uuid_and_bus(lab, gpu):
    assert lab("describe", {**FAST, "GPUS": 2}, gpu=gpu)["name"].startswith(f"NVML energy counter of GPU {gpu} ")


def test_without_a_counter_power_is_integrated(lab):
    found = lab("describe", {**FAST, "COUNTER": 0, "SWING": 40, "SWING_HZ": 3})
    assert found["reads"] == "watts"
    assert found["name"].startswith("NVML power of")


def test_a_power_that_stands_still_is_taken_to_be_updated_rarely(lab):
    assert lab("describe", {**FAST, "COUNTER": 0}, limit=0.2)["period_seconds"] == 0.2


def test_the_entry_point_loads():
    (entry,) = entry_points(group="glauber.meters", name="nvml")
    assert entry.load().__name__ == "NvmlMeter"


# Joules against the truth


def covered(found, value="joules", u="u", true=None):
    """Whether |error| <= 2 u as often as 95 % of the time would have it; fewer than the 0.1 % quantile is no."""
    errors = [abs(each[value] - (each["true"] if true is None else true(each))) for each in found]
    inside = sum(error <= 2 * each[u] for error, each in zip(errors, found, strict=True))
    return inside >= binom.ppf(0.001, len(found), 0.95)


def test_the_counters_joules_are_covered_by_their_uncertainty(lab):
    """Load comes and goes with each window, the GPU's own power swings, and the gain is new within +-5 % each time."""
    found = lab("windows", {**FAST, "SWING": 30, "SWING_HZ": 40}, count=40, seconds=[0.015, 0.03], load=150)
    assert len(found) == 40
    assert covered(found)
    assert 0.0288 < min(each["u"] / each["joules"] for each in found) < 0.3  # the gain alone is 2.89 %


def test_a_gain_beyond_the_stated_limit_is_not_covered(lab):
    """So the test above can fail."""
    found = [lab("one", {**FAST, "GAIN": gain}, seconds=0.15, load=150) for gain in (1.0, 1.3)]
    assert [abs(each["joules"] - each["true"]) > 3 * each["u"] for each in found] == [False, True]


def test_net_joules_are_covered(lab):
    """The idle baseline of 50 W is measured, and subtracted from each window's 200 W."""
    found = lab("windows", FAST, count=14, seconds=[0.03, 0.05], load=150, idle=0.2)
    assert len(found) == 14
    assert covered(found, "net", "u_net", lambda each: each["true"] - 50 * each["seconds"])


def test_integrated_power_is_covered(lab):
    settings = {**FAST, "COUNTER": 0, "SWING": 40, "SWING_HZ": 11}
    found = lab("windows", settings, count=14, seconds=[0.03, 0.05], load=150)
    assert len(found) == 14
    assert all("sampling gaps" in each["lines"] for each in found)
    assert covered(found)


def test_power_averaged_over_a_second_is_covered_in_a_longer_window(lab):
    """The mean of the last second knows little of a load that has just come: edges of half a second."""
    settings = {"PERIOD": 0.02, "COUNTER": 0, "AVERAGING": 1.0, "CAPABILITY": 86, "SWING": 10, "SWING_HZ": 3}
    found = lab("one", settings, seconds=1.2, load=150)
    assert abs(found["joules"] - found["true"]) <= 2 * found["u"]
    assert found["true"] - found["joules"] > 0.1 * found["true"]  # it is late, and the budget had to say so


def test_a_sensor_that_looks_a_quarter_of_the_time_is_covered_for_random_load(lab):
    settings = {**FAST, "CAPABILITY": 90, "SEEN": 0.25, "NOISE": 45, "SLOT": 0.00125}
    found = lab("windows", settings, count=14, seconds=[0.03, 0.05], load=0, spread=0.0)
    assert len(found) == 14
    assert all(each["lines"]["unsampled time"] > 0 for each in found)
    assert covered(found)


@pytest.mark.parametrize("reads", ["joules", "watts"])
def test_idle_power_with_its_standard_error(lab, reads):
    found = lab("idle", {**FAST, "NOISE": 20, "SLOT": 0.002}, seconds=0.25, reads=reads)
    assert abs(found["watts"] - found["true"]) < max(4 * found["se"], 0.02 * 50)
    assert 0 < found["se"] < 5
    assert 0.2 < found["seconds"] <= found["took"]


# What is refused, and what breaks


def test_short_windows_are_refused(lab):
    kind, message = lab("one", {"PERIOD": 0.03}, seconds=0.01, load=150)
    assert kind == "MeteringError"
    assert "cannot be measured by NVML energy counter" in message
    assert "updated every 0." in message
    kind, message = lab("one", {"PERIOD": 0.03, "COUNTER": 0, "SWING": 40, "SWING_HZ": 3}, seconds=0.03)
    assert kind == "MeteringError"
    assert "readings of at least 5" in message
    kind, message = lab("idle", {"PERIOD": 0.03}, seconds=0.1)
    assert kind == "MeteringError"


def test_a_signal_below_its_uncertainty_is_refused(lab):
    kind, message = lab("one", FAST, seconds=0.05, load=0.2, idle=0.2)
    assert kind == "MeteringError"
    assert "above idle, with a standard uncertainty of" in message


@pytest.mark.parametrize(
    ("settings", "arguments", "kind", "says"),
    [
        ({"INIT_ERROR": 12}, {}, "DeviceNotFoundError", "libnvidia-ml.so.1 is not found"),
        ({"INIT_ERROR": 9}, {}, "DeviceNotFoundError", "not loaded"),
        ({"INIT_ERROR": 18}, {}, "DeviceNotFoundError", "different versions"),
        ({"INIT_ERROR": 4}, {}, "DeviceIOError", "this user may not"),
        ({"GPUS": 2}, {"gpu": 7}, "DeviceNotFoundError", "0: Fake GPU GPU-fake-0; 1: Fake GPU GPU-fake-1"),
        ({"GPUS": 0}, {"gpu": 0}, "DeviceNotFoundError", "it has none"),
        ({}, {"gpu": "GPU-other"}, "DeviceNotFoundError", "NVML knows no GPU 'GPU-other'"),
        ({}, {"gpu": "0000:ff:00.0"}, "DeviceNotFoundError", "NVML knows no GPU '0000:ff:00.0'"),
        ({}, {"gpu": 1.5}, "DeviceNotFoundError", "by index, UUID or PCI bus id"),
        ({}, {"reads": "volts"}, "InvalidModelError", '"joules" or "watts"'),
        ({}, {"relative_limit": 2}, "InvalidModelError", "below 1"),
        ({"READ_ERROR": 4}, {}, "DeviceIOError", "/dev/nvidia"),
        ({"READ_ERROR": 999}, {}, "DeviceIOError", "nvidia-smi"),
        ({"COUNTER": 0}, {"reads": "joules"}, "DeviceNotFoundError", "Volta"),
        ({"COUNTER": 0, "POWER": 0}, {}, "DeviceNotFoundError", "no energy counter (Volta and later have one) and no"),
        ({"STUCK": 1}, {"limit": 0.2}, "MeteringError", "counts nothing"),
    ],
)
def test_errors_say_what_is_missing(lab, settings, arguments, kind, says):
    found = lab("describe", settings, **arguments)
    assert found[0] == kind
    assert says in found[1]


def test_a_gpu_lost_in_a_window_is_an_error(lab):
    kind, message = lab("one", FAST, seconds=0.25, load=150, lost=0.12)
    assert kind == "DeviceIOError"
    assert "GPU has fallen off the bus" in message


@pytest.mark.parametrize("seconds", [0.15, 0.3])
def test_a_counter_that_goes_backwards_is_an_error(lab, seconds):
    kind, message = lab("one", FAST, seconds=seconds, load=150, back=0.12)
    assert kind == "ProtocolError"
    assert "went backwards" in message


def test_close_ends_the_thread_and_its_window(lab):
    assert lab("close_while_open", FAST)[0] == "DeviceClosedError"
    assert lab("start_when_closed", FAST)[0] == "DeviceClosedError"


def test_without_the_package_or_the_driver():
    """In this process: no fake library, and pynvml hidden."""
    code = (
        "import sys; sys.modules['pynvml'] = None\n"
        "from glauber_drivers.meters.nvml import NvmlMeter\n"
        "try:\n    NvmlMeter(0)\n"
        "except ImportError as error:\n    print(error)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'glauber[nvml]'" in found.stdout


def test_ctrl_c_ends_a_program_that_measures(environment):
    code = (
        "from glauber_drivers.meters.nvml import NvmlMeter\n"
        "with NvmlMeter(0) as meter:\n    print('ready', flush=True)\n    meter.measure_idle(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.1)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert time.monotonic() - began < 5
    assert b"KeyboardInterrupt" in errors


# Through a device


def test_jobs_are_measured_where_they_are_long_enough(lab, tmp_path):
    short, long = lab("jobs", {"PERIOD": 0.02}, seconds=[0.0, 0.2], idle=0.3, path=str(tmp_path / "s.npz"))
    assert short["basis"] == "modelled"
    assert "cannot be measured by NVML energy counter" in short["not_measured"]
    assert f"not measured: {short['not_measured']}" in short["text"]
    assert (long["basis"], long["boundary"], long["not_measured"]) == ("measured", "board", None)
    assert 200 * 0.2 - 2 * long["u"] <= long["joules"] <= long["most"] + 2 * long["u"]
    assert long["net_joules"] + long["parts"]["idle"]["joules"] == pytest.approx(long["joules"])
    assert long["parts"]["idle"]["joules"] == pytest.approx(50 * long["parts"]["idle"]["count"], rel=0.1)
    assert long["joules_per_update"] == long["joules"] / long["updates"]
    assert long["samples"] == 40
    assert "J above idle" in long["text"]
    assert short["threads"] == long["threads"] == []


def test_a_gpu_lost_under_a_job_costs_the_figure_and_not_the_samples(lab):
    (found,) = lab("jobs", FAST, seconds=[0.25], lost=0.12)
    assert found["basis"] == "modelled"
    assert "fallen off the bus" in found["not_measured"]


@pytest.mark.parametrize("where", ["program", "run", "close"])
def test_a_job_that_breaks_ends_its_window(lab, where):
    assert lab("failing_job", FAST, where=where) == {"status": "failed", "threads": []}


def test_a_driver_may_have_no_meter(lab):
    (found,) = lab("jobs", FAST, seconds=[0.0], metered=False)
    assert (found["basis"], found["not_measured"]) == ("modelled", None)


def test_u_follows_the_formula(lab):
    """The lines of a steady window: gain 5 % / sqrt(3), resolution 1 mJ / sqrt(12) twice."""
    found = lab("one", {"PERIOD": 0.02}, seconds=0.3)
    lines = found["lines"]
    assert lines["gain"] == pytest.approx(found["joules"] * 0.05 / math.sqrt(3))
    for end in ("start", "end"):
        assert lines[f"resolution, {end}"] == pytest.approx(1e-3 / math.sqrt(12))
        assert lines[f"window {end}"] < 2 * 50 * 1.5 * 0.02
    assert found["u"] == pytest.approx(math.sqrt(sum(each**2 for each in lines.values())))
