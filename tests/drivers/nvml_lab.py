"""The other end of test_nvml_meter.py: a process whose libnvidia-ml.so.1 is fake_nvml.c, which runs experiments.

A process of its own, because a library that is loaded once stays, and tests on a real GPU may follow. It reads one JSON
object a line, {"experiment": name, "settings": {...}, ...}, and answers with one: {"result": ...}, or {"error": class,
"message": ...} if a GlauberError was raised.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import glauber as gl
import numpy as np
from glauber.errors import DeviceIOError, GlauberError, MeteringError
from glauber.meter import measured_energy
from glauber_drivers.meters import nvml
from glauber_drivers.meters.nvml import NvmlMeter
from glauber_simulator.driver import SimulatorDriver

FAKE = ctypes.CDLL("libnvidia-ml.so.1")
FAKE.fake_joules.restype = ctypes.c_double
FAKE.fake_joules.argtypes = [ctypes.c_double, ctypes.c_double]
FAKE.fake_load.argtypes = FAKE.fake_gain.argtypes = [ctypes.c_double]
FAKE.fake_break.argtypes = [ctypes.c_double, ctypes.c_double]


def describe(gpu: int | str = 0, limit: float = 2.0, **options: Any) -> dict[str, Any]:
    nvml.PERIOD_LIMIT_SECONDS = limit
    with NvmlMeter(gpu, **options) as meter:
        spec = meter.spec
        return {name: getattr(spec, name) for name in spec.__slots__}


def _window(meter: NvmlMeter, seconds: float, load: float, lost: float = 0.0, back: float = 0.0) -> dict[str, Any]:
    """One window; the load is there from its start to its end. So long after its start the GPU breaks, 0: never."""
    window = meter.start()
    FAKE.fake_break(lost, back)
    FAKE.fake_load(load)
    time.sleep(seconds)
    trace = window.stop()
    FAKE.fake_load(0.0)
    report = measured_energy(meter.spec, trace, idle=meter.idle)
    net = report.parts.get("net")
    return {
        "joules": report.joules,
        "u": report.standard_uncertainty,
        "expanded": report.expanded_uncertainty(),
        "net": report.net_joules,
        "u_net": None if net is None else net.standard_uncertainty,
        "true": FAKE.fake_joules(trace.times[0], trace.times[-1]),
        "seconds": trace.seconds,
        "lines": {line.name: line.joules for line in report.budget},
    }


def windows(
    count: int, seconds: list[float], load: float, idle: float = 0.0, spread: float = 0.05, reads: str = "auto"
) -> list[dict[str, Any]]:
    """Windows of lengths in a range, each with a gain of its own within +-spread; `idle` s at rest come first.

    On a busy machine a window can be refused because its thread did not run; others are taken in place of such.
    """
    rng, found = np.random.default_rng(5), []
    with NvmlMeter(0, reads=reads) as meter:  # type: ignore[arg-type]
        if idle:
            meter.measure_idle(idle)
        for _ in range(3 * count):
            FAKE.fake_gain(1 + spread * rng.uniform(-1, 1))
            with suppress(MeteringError):
                found.append(_window(meter, rng.uniform(*seconds), load))
            if len(found) == count:
                break
    return found


def idle(seconds: float, **options: Any) -> dict[str, float]:
    with NvmlMeter(0, **options) as meter:
        began = time.monotonic()
        found = meter.measure_idle(seconds)
        ended = time.monotonic()
        true = FAKE.fake_joules(began, ended) / (ended - began)
        assert meter.idle is found
    took = ended - began
    return {"watts": found.watts, "se": found.standard_error, "seconds": found.seconds, "took": took, "true": true}


def one(
    seconds: float, load: float = 0.0, idle: float = 0.0, lost: float = 0.0, back: float = 0.0, **options: Any
) -> dict[str, Any]:
    """A single window."""
    with NvmlMeter(0, **options) as meter:
        if idle:
            meter.measure_idle(idle)
        return _window(meter, seconds, load, lost, back)


def close_while_open() -> None:
    """The thread is gone after close, and the window that was open has no figure."""
    meter = NvmlMeter(0)
    window = meter.start()
    during = [each.name for each in threading.enumerate() if each.name.startswith("glauber meter")]
    meter.close()
    meter.close()
    after = [each.name for each in threading.enumerate() if each.name.startswith("glauber meter")]
    assert len(during) == 1, during
    assert not after, after
    assert FAKE.fake_users() == 0
    window.stop()


def start_when_closed() -> None:
    meter = NvmlMeter(0)
    meter.close()
    meter.start()


class MeteredDriver(SimulatorDriver):
    """The simulator as a GPU whose load goes on while a job runs."""

    def __init__(self, meter: NvmlMeter | None, seconds: float, lost: float = 0.0) -> None:
        super().__init__(gl.load_spec("ideal"))
        self.meter, self.seconds, self.lost = meter, seconds, lost

    def program(self, program: Any) -> None:
        FAKE.fake_load(150.0)
        super().program(program)

    def run(self, run: Any) -> Any:
        FAKE.fake_load(150.0)
        if self.lost:  # only now: opening a meter and a window takes as long as it takes
            FAKE.fake_break(self.lost, 0.0)
        time.sleep(self.seconds)
        yield from super().run(run)
        FAKE.fake_load(0.0)

    def close(self) -> None:
        super().close()
        if self.meter is not None:
            self.meter.close()


MODEL = gl.IsingModel.from_edges([(0, 1, 1.0), (1, 2, -0.5)], {0: 0.3})
SCHEDULE = gl.SamplingSchedule(n_samples=20, n_chains=2)


def jobs(
    seconds: list[float], idle: float = 0.0, path: str = "", metered: bool = True, lost: float = 0.0
) -> list[dict[str, Any]]:
    """Jobs of these lengths on a device with this meter: their reports, and as read back from a file."""
    meter = NvmlMeter(0) if metered else None
    if meter is not None and idle:
        meter.measure_idle(idle)
    driver = MeteredDriver(meter, 0.0, lost)
    found = []
    with gl.Device(driver, seed=1) as device:
        for length in seconds:
            driver.seconds = length
            began = time.monotonic()
            result = device.submit(MODEL, SCHEDULE).result(30)
            ended = time.monotonic()
            report = result.energy_report
            if path:
                result.save(path)
                assert gl.SampleSet.load(path).energy_report == report
            threads = [each.name for each in threading.enumerate() if each.name.startswith("glauber meter")]
            found.append(
                {
                    **report.as_dict(),
                    "text": str(report),
                    "u": report.standard_uncertainty,
                    "threads": threads,
                    "most": FAKE.fake_joules(began, ended),
                }
            )
    if meter is not None:
        assert meter._closed
    return found


def failing_job(where: str) -> dict[str, Any]:
    """A job that breaks on the device ends its window's thread too."""

    class Broken(MeteredDriver):
        def program(self, program: Any) -> None:
            super().program(program)
            if where == "program":
                raise DeviceIOError("broken")

        def run(self, run: Any) -> Any:
            if where == "run":
                raise DeviceIOError("broken")
            try:
                yield from super().run(run)
            finally:
                if where == "close":
                    raise DeviceIOError("broken")

    with gl.Device(Broken(NvmlMeter(0), 0.0), seed=1) as device:
        job = device.submit(MODEL, SCHEDULE)
        job.wait(30)
        threads = [each.name for each in threading.enumerate() if each.name.startswith("glauber meter")]
        return {"status": job.status.value, "threads": threads}


EXPERIMENTS: dict[str, Callable[..., Any]] = {
    each.__name__: each
    for each in (describe, windows, idle, one, close_while_open, start_when_closed, jobs, failing_job)
}


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        for name in [name for name in os.environ if name.startswith("FAKE_NVML_")]:
            del os.environ[name]
        os.environ.update({f"FAKE_NVML_{name}": str(value) for name, value in order.pop("settings").items()})
        try:
            answer = {"result": EXPERIMENTS[order.pop("experiment")](**order)}
        except GlauberError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        except Exception as error:
            answer = {"error": "unexpected", "message": repr(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
