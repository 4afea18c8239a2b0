"""A session with a board, recorded on the bench and played in CI: no board, no process, the same samples.

To record it again after a change of the protocol: python tests/drivers/test_recording.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import glauber as gl
import numpy as np
import pytest
from glauber.errors import ProtocolError
from glauber.testing import Recorder, Replay

RECORDING = Path(__file__).parents[1] / "recordings" / "firmware-king.jsonl"
ADDRESS = "firmware://host?chip=king"
MODEL = gl.IsingModel.from_edges([(0, 1, 1.0), (1, 9, -0.5), (9, 8, 0.75), (0, 9, 0.25)], {0: 0.5})


def session(device: gl.Device, chains: tuple[int, ...] = (1, 8)) -> list[gl.SampleSet]:
    """What is done on the bench."""
    results = []
    for n_chains in chains:
        schedule = gl.SamplingSchedule(n_samples=25, n_chains=n_chains, n_warmup=5)
        results.append(device.submit(MODEL, schedule, seed=7, observe={"samples", "moments"}).result(60))
    anneal = gl.AnnealingSchedule(table=(0.2, 0.6, 1.8), n_chains=3)
    results.append(device.submit(MODEL, anneal, seed=7, clamp={9: -1}).result(60))
    long = gl.SamplingSchedule(n_samples=1, n_chains=64, n_warmup=300_000)  # long enough to be asked how far it is
    results.append(device.submit(MODEL, long, seed=7).result(60))
    return results


def test_the_recorded_session_gives_the_simulators_samples():
    with gl.open_device(ADDRESS, wrap=Replay(RECORDING)) as device, gl.open_device("sim://ideal") as simulator:
        for played, wanted in zip(session(device), session(simulator), strict=True):
            np.testing.assert_array_equal(played.packed, wanted.packed)
            np.testing.assert_array_equal(played.last, wanted.last)


def test_another_session_is_told_where_it_differs():
    with (
        gl.open_device(ADDRESS, wrap=Replay(RECORDING)) as device,
        pytest.raises(ProtocolError, match="Record again if the change is meant"),
    ):
        session(device, chains=(1, 7))


def record() -> None:
    """Write the recording anew."""
    recorder = Recorder(RECORDING, ADDRESS)
    with gl.open_device(ADDRESS, wrap=recorder) as device:
        session(device)
    recorder.close()


if __name__ == "__main__":
    record()
    sys.stdout.write(f"written: {RECORDING}\n")
