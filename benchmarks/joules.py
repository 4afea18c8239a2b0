"""Joules against a known power: `python -m benchmarks.joules [--runs 200] [--only NAME] [--output benchmarks/results]`.

Each meter measures windows of a power P(t) that is known at every instant, through its own client code, from an
instrument on this computer (`glauber.testing`; for NVML the tests' library in place of NVIDIA's). For each run the
instrument's errors are drawn anew from what the meter's budget assumes: gain, offset and voltage rectangular within the
limits that it states, noise, the start of the buffer anywhere within the trigger's round trip. A run is covered if
|measured - integral of P| <= expanded_uncertainty(0.95). An honest budget covers 95 % of the runs: fewer or more than
the binomial 99.9 % band is a failure, too wide as well as too narrow. Then a power below each meter's floor, which has
to be refused. No real instrument is in here. Writes joules.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from glauber.errors import MeteringError
from glauber.meter import EnergyMeter, measured_energy
from glauber.registry import open_meter
from glauber.testing import KnownPower, LoopbackInstrument, Ppk2Emulator, Rail, RaplTree
from scipy.stats import binom

from benchmarks.machine import provenance, write

LEVEL, BAND = 0.95, 0.999
TESTS = Path(__file__).parents[1] / "tests" / "drivers"
Run = tuple[float, float, float]
"""Measured joules, their expanded uncertainty, and true ones."""


def band(runs: int) -> tuple[int, int]:
    """How many covered runs an honest budget has, within the binomial 99.9 % band."""
    tail = (1 - BAND) / 2
    return int(binom.ppf(tail, runs, LEVEL)), int(binom.ppf(1 - tail, runs, LEVEL))


def verdict(runs: list[Run], refused: int, floor: int) -> dict[str, Any]:
    """What is written of a meter."""
    low, high = band(len(runs))
    inside = sum(abs(measured - true) <= u for measured, u, true in runs)
    errors = np.array([(measured - true) / true for measured, _, true in runs])
    stated = np.array([u / true for _, u, true in runs])
    return {
        "runs": len(runs),
        "covered": inside,
        "band": [low, high],
        "inside the band": low <= inside <= high,
        "relative error, root mean square": float(np.sqrt((errors**2).mean())),
        "relative U95, median": float(np.median(stated)),
        "below the noise floor": {"windows": floor, "refused": refused},
    }


def window(meter: EnergyMeter, seconds: float, true: Callable[[float, float], float]) -> Run:
    """One window, measured and true."""
    recording = meter.start()
    time.sleep(seconds)
    trace = recording.stop()
    report = measured_energy(meter.spec, trace)
    begin, end = trace.window or (float(trace.times[0]), float(trace.times[-1]))
    expanded = report.expanded_uncertainty(LEVEL)
    assert report.joules is not None
    assert expanded is not None
    return report.joules, expanded, true(begin, end)


def some_power(rng: np.random.Generator, watts: float) -> KnownPower:
    """A load that rises and falls some times in a window."""
    return KnownPower(
        watts * rng.uniform(0.7, 1.3), watts * rng.uniform(0.1, 0.4), rng.uniform(2, 5), rng.uniform(0, 6.28)
    )


def limits(meter: EnergyMeter, rail: int, name: str) -> tuple[float, float]:
    """(relative, watts) of a rail's limit."""
    (limit,) = (each for each in meter.spec.limits if each.rail == rail and each.name.startswith(name))
    return limit.relative, limit.watts


def refusals(meter: EnergyMeter, seconds: float, count: int) -> int:
    """How many windows have no figure."""
    refused = 0
    for _ in range(count):
        recording = meter.start()
        time.sleep(seconds)
        trace = recording.stop()
        try:
            measured_energy(meter.spec, trace)
        except MeteringError:
            refused += 1
    return refused


def scpi(
    model: Any, n_rails: int, watts: float, seconds: float, runs: int, rng: np.random.Generator, floor: int
) -> Any:
    """A bench instrument behind a socket."""
    rails = [Rail(some_power(rng, watts), volts=volts) for volts in (1.8, 1.2)[:n_rails]]
    with LoopbackInstrument(model, rails) as instrument:
        extra = "&period=0.002&channels=1,2" if n_rails > 1 else ""
        meter = open_meter(instrument.address + extra)
        found = []
        for _ in range(runs):
            delay = 0.002  # the round trip; the start is anywhere in it
            before = rng.uniform(0, delay)
            instrument.bench.delays, instrument.bench.first_share = (before, delay - before), rng.uniform()
            for k, rail in enumerate(rails):
                rail.power = some_power(rng, watts)
                rail.current_gain = rng.uniform(-1, 1) * limits(meter, k, "gain")[0]
                rail.current_offset = rng.uniform(-1, 1) * limits(meter, k, "offset")[1] / rail.volts
                rail.voltage_gain = rng.uniform(-1, 1) * limits(meter, k, "voltage")[0]
                rail.noise_amps = 2e-5
            found.append(window(meter, seconds, lambda a, b: float(sum(rail.power.joules(a, b) for rail in rails))))
        for k, rail in enumerate(rails):
            rail.power = KnownPower(0.1 * limits(meter, k, "offset")[1])
            rail.current_offset, rail.noise_amps = 0.0, 1e-6
        refused = refusals(meter, seconds / 4, floor)
        meter.close()
    return verdict(found, refused, floor)


def ppk2(runs: int, rng: np.random.Generator, floor: int, seconds: float = 0.1) -> Any:
    """A Power Profiler Kit II behind a tty."""
    rail = Rail(some_power(rng, 0.05))
    with Ppk2Emulator(rail) as kit:
        meter = open_meter(kit.address)
        found = []
        for _ in range(runs):
            kit.delay_seconds = rng.uniform(0, 0.002)
            rail.power = some_power(rng, 0.05)
            rail.current_gain = rng.uniform(-1, 1) * meter.spec.relative_limit
            rail.current_offset = rng.uniform(-1, 1) * limits(meter, 0, "offset")[1] / rail.volts
            rail.voltage_gain = rng.uniform(-1, 1) * limits(meter, 0, "voltage")[0]
            rail.noise_amps = 1e-5
            found.append(window(meter, seconds, lambda a, b: float(rail.power.joules(a, b))))
        rail.power, rail.current_offset, rail.noise_amps = KnownPower(0.5e-6), 0.0, 1e-7
        refused = refusals(meter, 0.02, floor)
        meter.close()
    return verdict(found, refused, floor)


def rapl(runs: int, rng: np.random.Generator, floor: int, seconds: float = 1.0) -> Any:
    """Two packages, whose counters begin again in about every second window."""
    with tempfile.TemporaryDirectory() as folder:
        found: list[Run] = []
        powers = [some_power(rng, 40.0), some_power(rng, 20.0)]
        with RaplTree(Path(folder), powers, range_uj=30_000_000, start_uj=29_000_000) as tree:
            meter = open_meter(f"rapl://{folder}")
            for _ in range(runs):
                tree.gain = 1 + rng.uniform(-1, 1) * meter.spec.relative_limit
                tree.packages[:] = [some_power(rng, 40.0), some_power(rng, 20.0)]
                time.sleep(0.005)  # the new power counts from the tree's next update on
                found.append(window(meter, seconds, tree.joules))
            tree.packages[:] = [KnownPower(1e-4), KnownPower(1e-4)]
            time.sleep(0.005)
            refused = refusals(meter, 0.05, floor)
            meter.close()
    return verdict(found, refused, floor)


@contextmanager
def nvml_lab() -> Iterator[Callable[..., Any]]:
    """The tests' experiments on the stock pynvml, with a library of the tests' in place of NVIDIA's."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "libnvidia-ml.so.1"
        source = str(TESTS / "fake_nvml.c")
        subprocess.run(
            ["cc", "-std=c11", "-O1", "-shared", "-fPIC", "-o", str(library), source, "-lm", "-lpthread"], check=True
        )
        process = subprocess.Popen(
            [sys.executable, str(TESTS / "nvml_lab.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "LD_LIBRARY_PATH": folder},
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def ask(experiment: str, settings: dict[str, Any], **arguments: Any) -> Any:
            stdin.write(json.dumps({"experiment": experiment, "settings": settings, **arguments}) + "\n")
            stdin.flush()
            answer = json.loads(stdout.readline())
            return answer.get("result", answer)

        try:
            yield ask
        finally:
            stdin.close()
            process.wait(30)
            stdout.close()


def nvml(runs: int, rng: np.random.Generator, floor: int, seconds: float = 1.0) -> Any:
    """A GPU's counter that moves every millisecond, with a gain of its own in each window."""
    settings = {"PERIOD": 0.001, "SWING": 30, "SWING_HZ": 4}
    with nvml_lab() as ask:
        found = ask("windows", settings, count=runs, seconds=[0.9 * seconds, 1.1 * seconds], load=150)
        refused = 0
        for _ in range(floor):
            answer = ask("one", {"PERIOD": 0.001}, seconds=0.05, load=0.02, idle=0.1)
            refused += answer.get("error") == "MeteringError"
    return verdict([(each["joules"], each["expanded"], each["true"]) for each in found], refused, floor)


def parts(runs: int, seed: int, floor: int) -> dict[str, Callable[[], Any]]:
    """What can be measured, by name."""
    rng = np.random.default_rng
    return {
        "keithley-2400": lambda: scpi("keithley-2400", 1, 0.09, 0.3, runs, rng(seed), floor),
        "keithley-2450": lambda: scpi("keithley-2450", 1, 0.09, 0.3, runs, rng(seed + 1), floor),
        "keysight-n6705, two outputs": lambda: scpi("keysight-n6705", 2, 0.08, 0.3, runs, rng(seed + 2), floor),
        "ppk2": lambda: ppk2(runs, rng(seed + 3), floor),
        "rapl, two packages, with wraps": lambda: rapl(runs, rng(seed + 4), floor),
        "nvml": lambda: nvml(runs, rng(seed + 5), floor),
    }


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--floor", type=int, default=20, help="windows below the noise floor")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="one meter, by the beginning of its name")
    parser.add_argument("--output", type=Path, help="folder for joules.json; nothing is written without")
    given = parser.parse_args()
    results: dict[str, Any] = {}
    for name, act in parts(given.runs, given.seed, given.floor).items():
        if given.only is None or name.startswith(given.only):
            began = time.monotonic()
            results[name] = {**act(), "seconds": round(time.monotonic() - began)}
            print(name, json.dumps(results[name]), flush=True)
    if given.output is not None:
        write(given.output / "joules.json", {**provenance(("glauber", "numpy", "pyvisa", "pyvisa-py", "ppk2-api")),
                                             "level": LEVEL, "band": BAND, "results": results})  # fmt: skip
    failed = [
        name
        for name, found in results.items()
        if not found["inside the band"] or found["below the noise floor"]["refused"] < given.floor
    ]
    if failed:
        raise SystemExit(f"not as stated: {', '.join(failed)}")


if __name__ == "__main__":
    main()
