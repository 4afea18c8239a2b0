"""The trained grids as the same job on every device there is: states bit for bit, or at least the same law."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import glauber as gl
import numpy as np
from glauber.errors import GlauberError
from numpy.typing import NDArray

from examples.mnist_ebm.grid import GridModel
from examples.mnist_ebm.lattice import in_p_bits

if TYPE_CHECKING:
    from examples.mnist_ebm.pipeline import Study

DEVICES = {
    "sim://ideal": "C core",
    "sim://ideal?body=reference": "NumPy reference",
    "firmware://host": "board firmware as a process of this computer",
    "jax://cpu": "JAX",
    "thrml://cpu": "THRML, random numbers of its own",
    "cupy://0": "CUDA",
}
SEED = 7


def substrates(study: Study) -> Any:
    """Each trained grid on all devices; grids of two levels as p-bits, which the firmware has, others as p-dits."""
    found = {}
    for name, config in study.runs.items():
        if config.model.kind == "grid":
            with gl.open_device(config.device, seed=SEED) as device:
                model = study.model(name, device)
                assert isinstance(model, GridModel)
                potts = model.potts_model()
            found[name] = compare(
                in_p_bits(potts) if model.n_levels == 2 else potts, max(10, study.sizes.n_sweeps // 20)
            )
    return found


def compare(model: gl.IsingModel | gl.PottsModel, n_sweeps: int, n_chains: int = 128) -> dict[str, Any]:
    """One job on every device, beside the first one.

    Returns:
        By address: `same`, whether all states are those of the first device; `energy` and `standard_error`, mean over
        chains at the end of n_sweeps + 1 sweeps from random states; `z`, the difference from the first device's in
        errors, None where the states are the same; or `why_not`, where it did not run.
    """
    schedule = gl.SamplingSchedule(n_samples=2, n_chains=n_chains, n_warmup=n_sweeps - 1)
    found: dict[str, Any] = {}
    first: gl.SampleSet | None = None
    for address, what in DEVICES.items():
        try:
            with gl.open_device(address, seed=SEED) as device:
                result = device.submit(model, schedule, on_overflow="scale").result()
        except GlauberError as error:
            found[address] = {"what": what, "why_not": " ".join(str(error).split())}
            continue
        if first is None:
            first = result
        same = bool(np.array_equal(result.states, first.states))
        (mean, spread), (other_mean, other_spread) = (_mean(one.energies[:, -1]) for one in (result, first))
        found[address] = {
            "what": what,
            "energy": mean,
            "standard_error": spread,
            "same": same,
            "z": None if same else (mean - other_mean) / math.hypot(spread, other_spread),
        }
    return found


def _mean(values: NDArray[np.float64]) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
