"""A GPU beside one core of this computer, and joules where NVML has them: `python -m benchmarks.gpu [--device cupy://0]`.

    python -m benchmarks.gpu [--device cupy://0] [--seconds 5] [--output benchmarks/results]

Each workload runs as a job whose states stay on the device but the last; the rate is updates over the job's wall-clock
time, after one job that compiles. The last states must be those of the simulator for the same seed. Writes
gpu.json; docs/gpu.md has its figures beside those that arithmetic expects.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import glauber as gl
import numpy as np

from benchmarks.machine import provenance, write
from benchmarks.workloads import WORKLOADS, Workload

CHECKED_SWEEPS = 20
CHAINS = (1, 64, 1024, 8192)
"""Each workload runs with its own number of chains and with these, where a CPU has time for them."""


def rate(device: gl.Device, workload: Workload, chains: int, seconds: float) -> tuple[float, Any]:
    """(updates/ns, energy report) of jobs of about so many seconds."""
    sweeps = 50
    while True:
        schedule = gl.SamplingSchedule(n_samples=1, n_chains=chains, n_warmup=sweeps, beta=workload.beta)
        began = time.perf_counter()
        result = device.submit(workload.model, schedule, observe="last", threads=1).result()
        taken = time.perf_counter() - began
        if taken >= seconds / 2:
            return workload.model.n_sites * chains * (sweeps + 1) / taken / 1e9, result.energy_report
        sweeps = max(2 * sweeps, int(sweeps * seconds / max(taken, 1e-3)))


def same(gpu: gl.Device, simulator: gl.Device, workload: Workload, chains: int) -> bool:
    """Whether both give the same last states."""
    schedule = gl.SamplingSchedule(n_samples=1, n_chains=chains, n_warmup=CHECKED_SWEEPS, beta=workload.beta)
    ours, wanted = (
        device.submit(workload.model, schedule, seed=1, observe="last").result().last_packed
        for device in (gpu, simulator)
    )
    return bool(np.array_equal(ours, wanted))


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cupy://0", help="address of the GPU; ?meter=nvml adds joules")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each figure")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    rows = []
    try:
        gpu = gl.open_device(options.device)
    except gl.errors.DeviceNotFoundError as error:
        raise SystemExit(str(error)) from None
    with gpu, gl.open_device("sim://ideal") as simulator:
        for workload in (work for work in WORKLOADS if "," not in work.key):  # those with one chain are here anyway
            for chains in sorted({workload.chains, *CHAINS}):
                if not same(gpu, simulator, workload, chains):
                    raise SystemExit(f"{workload.key} with {chains} chains: the GPU's states are not the simulator's")
                ours, report = rate(gpu, workload, chains, options.seconds)
                core, _ = rate(simulator, workload, chains, options.seconds)
                row = {"key": workload.key, "title": workload.title, "chains": chains, "gpu": ours, "one core": core}
                rows.append({**row, "energy": report.as_dict()})
                print(f"{workload.key:5}{chains:6} chains  {ours:9.3f} updates/ns, one core {core:7.3f}", flush=True)
        found = {**provenance(("glauber", "numpy", "cupy-cuda13x")), "gpu": gpu.spec.title, "rows": rows}
    write(options.output / "gpu.json", found)
    print(f"written: gpu.json in {options.output}")


if __name__ == "__main__":
    main()
