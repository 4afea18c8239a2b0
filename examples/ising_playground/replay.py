"""Draw the states of an exported run again, and compare them bit for bit: python replay.py [ADDRESS]."""

import hashlib
import json
import sys
from pathlib import Path

import glauber as gl
import numpy as np

folder = Path(__file__).parent
run = json.loads((folder / "run.json").read_text())
model = gl.read_model(folder / "model.npz")
state: np.ndarray | None = np.full(model.n_sites, -1) if run["start"] == "down" else None
different = 0
try:
    with gl.open_device(sys.argv[1] if len(sys.argv) > 1 else run["address"]) as device:
        for job in run["jobs"]:
            result = device.submit(
                model,
                gl.SamplingSchedule(**job["schedule"]),
                fields=None if job["field"] == 0.0 else model.fields + job["field"],
                initial=state,
                seed=job["seed"],
            ).result()
            state = result.last[0]
            assert result.packed is not None
            different += hashlib.sha256(result.packed.tobytes()).hexdigest() != job["sha256"]
except gl.errors.GlauberError as error:
    sys.exit(f"error: {error}")
np.save(folder / "last_state.npy", np.asarray(state))
if different:
    sys.exit(f"{different} of {len(run['jobs'])} jobs drew other states; is the device a deterministic one?")
print(f"{len(run['jobs'])} jobs: the same states, bit for bit; the last one is in last_state.npy")
