"""What the tests of the store share: models, jobs of some length, and a disk that is full."""

from __future__ import annotations

import time

import glauber as gl
from glauber.errors import StoreError


def ring(n=64):
    return gl.IsingModel.from_edges([(i, (i + 1) % n, 1.0 if i % 3 else -1.0) for i in range(n)], {0: 0.5})


SHORT = gl.SamplingSchedule(n_samples=5, n_chains=2)


def long(seconds=1.0):
    """About so many seconds on this computer; many batches."""
    return gl.SamplingSchedule(n_samples=60, n_chains=64, n_warmup=100, sweeps_per_sample=int(12_000 * seconds))


def run_alone(model, schedule, address="sim://ideal", **arguments):
    with gl.open_device(address) as device:
        return device.submit(model, schedule, **arguments).result(60)


def begun(job, samples=0):
    end = time.monotonic() + 30
    while not (job.progress.sweeps_done and job.progress.samples_done >= samples):
        assert not job.done(), job
        assert time.monotonic() < end
        time.sleep(0.002)


def eventually(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def full(*arguments, **named):
    raise StoreError("the disk is full")
