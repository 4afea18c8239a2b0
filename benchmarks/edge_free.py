"""Sites without edges: p-bits for noise and layers, p-dits for categorical draws; the core, a whole job, and NumPy.

A call draws one state of 100,000 p-bits, or 32 of 4,096 p-dits of 512 states. "core" is the C core from a prepared run,
p-bits as packed bits: with the model's fields a sweep of a session, with new fields the session too. "submit" is
everything that a user waits for, from float64 fields to unpacked states. NumPy has its inputs as float32 and keeps what
does not change from call to call; for p-dits it takes cumulative sums and searches each row.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import glauber as gl
import numpy as np
from glauber.compile import make_run, unpack_spins
from numpy.typing import NDArray

from benchmarks.glauber_sampler import net_of, program_of, session
from benchmarks.workloads import loose, loose_dits

Draw = Callable[[int], NDArray[Any]]
"""Call number -> states (draws, n_sites). Calls with new fields use those of the number."""

DRAWS = 32
FIELD_SETS = 4
SIGMAS = 5.0


def measure(rounds: int, seconds: float = 0.1) -> list[dict[str, Any]]:
    """Interleaved rounds of all ways; means are checked against the exact law."""
    pbits, pdits = loose(), loose_dits()
    rng = np.random.default_rng(2)
    fields = [rng.normal(size=pbits.n_sites) for _ in range(FIELD_SETS)]
    logits = [rng.normal(size=pdits.fields.shape) for _ in range(FIELD_SETS)]
    with gl.open_device("sim://ideal") as device:
        cases: list[tuple[str, int, dict[str, Draw], Callable[[NDArray[Any], int], float]]] = [
            (
                "100,000 p-bits, fixed fields",
                pbits.n_sites,
                {
                    "glauber, core": core_fixed(pbits),
                    "glauber, submit": _submit(device, pbits, None),
                    "numpy": numpy_fixed(pbits.fields),
                },
                lambda states, _: pbits_off(states, pbits.fields),
            ),
            (
                "100,000 p-bits, new fields each call",
                pbits.n_sites,
                {
                    "glauber, core": _core_new(pbits, fields, 1),
                    "glauber, submit": _submit(device, pbits, fields),
                    "numpy": _numpy_new(fields),
                },
                lambda states, k: pbits_off(states, fields[k % FIELD_SETS]),
            ),
            (
                "4,096 p-dits of 512 states, 32 draws, fixed fields",
                pdits.n_sites * DRAWS,
                {
                    "glauber, core": core_fixed(pdits, DRAWS),
                    "glauber, submit": _submit(device, pdits, None, DRAWS),
                    "numpy": numpy_dits([pdits.fields]),
                },
                lambda states, _: pdits_off(states, pdits.fields),
            ),
            (
                "4,096 p-dits of 512 states, 32 draws, new fields each call",
                pdits.n_sites * DRAWS,
                {
                    "glauber, core": _core_new(pdits, logits, DRAWS),
                    "glauber, submit": _submit(device, pdits, logits, DRAWS),
                    "numpy": numpy_dits(logits),
                },
                lambda states, k: pdits_off(states, logits[k % FIELD_SETS]),
            ),
        ]
        return [_measured(*case, rounds, seconds) for case in cases]


def _measured(
    title: str,
    updates: int,
    ways: dict[str, Draw],
    off: Callable[[NDArray[Any], int], float],
    rounds: int,
    seconds: float,
) -> dict[str, Any]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    sigmas = dict.fromkeys(ways, 0.0)
    number = 0
    for draw in ways.values():
        draw(0)
    for _ in range(rounds):
        for name, draw in ways.items():
            began, calls = time.perf_counter(), 0
            while True:
                number += 1
                calls += 1
                states = draw(number)
                if time.perf_counter() - began >= seconds:
                    break
            times[name].append((time.perf_counter() - began) / calls)
            sigmas[name] = max(sigmas[name], abs(off(states, number)))
    for name, sigma in sigmas.items():
        if sigma > SIGMAS:
            raise RuntimeError(f"{title}: {name} is {sigma:.1f} standard deviations from the exact mean energy")
    rows = [
        {
            "name": name,
            "ms": 1e3 * float(np.median(taken)),
            "updates_per_ns": updates / float(np.median(taken)) / 1e9,
            "seconds": taken,
            "sigmas_from_exact": sigmas[name],
        }
        for name, taken in times.items()
    ]
    print(f"\n{title}")
    for line in rows:
        print(f"  {line['name']:28}{line['ms']:10.4f} ms a call{line['updates_per_ns']:10.3f} updates/ns", flush=True)
    return {"title": title, "updates": updates, "ways": rows}


def pbits_off(states: NDArray[Any], fields: NDArray[np.float64]) -> float:
    """How many standard deviations the energy of drawn p-bits, packed or not, is from its exact mean, -sum h tanh h."""
    if states.shape[1] != len(fields):
        states = unpack_spins(states, len(fields))
    mean, variance = (fields * np.tanh(fields)).sum(), (fields**2 / np.cosh(fields) ** 2).sum()
    return float((states @ fields - mean).mean() / np.sqrt(variance / len(states)))


def pdits_off(states: NDArray[Any], logits: NDArray[np.float64]) -> float:
    """The same for p-dits."""
    p = np.exp(logits)
    p /= p.sum(axis=1, keepdims=True)
    mean = (p * logits).sum(axis=1)
    variance = ((p * logits**2).sum(axis=1) - mean**2).sum()
    drawn = logits[np.arange(len(logits)), states.astype(np.int64)].sum(axis=1)
    return float((drawn - mean.sum()).mean() / np.sqrt(variance / len(states)))


def core_fixed(model: Any, draws: int = 1) -> Draw:
    """Sweeps of one session, a sample each."""
    program = program_of(model, 16)
    schedule = gl.SamplingSchedule(n_samples=2**40)
    run = replace(make_run(program, schedule, seed=secrets.randbits(64)), threads=1)
    running = session(program, net_of(program), run)
    return lambda k: np.asarray(running.advance(draws * k + 1, draws, 1)[0])


def _core_new(model: Any, fields: list[NDArray[np.float64]], draws: int) -> Draw:
    """A new session for every call, whose fields are already integers."""
    program = program_of(model, 16)
    net, schedule = net_of(program), gl.SamplingSchedule(n_samples=draws)
    runs = [replace(make_run(program, schedule, seed=0, fields=one[None]), threads=1) for one in fields]

    def draw(k: int) -> NDArray[Any]:
        running = session(program, net, replace(runs[k % FIELD_SETS], seed=secrets.randbits(64)))
        return np.asarray(running.advance(1, draws, 1)[0])

    return draw


def _submit(device: gl.Device, model: Any, fields: list[NDArray[np.float64]] | None, draws: int = 1) -> Draw:
    """A whole job."""
    schedule = gl.SamplingSchedule(n_samples=draws)

    def draw(k: int) -> NDArray[Any]:
        own = None if fields is None else fields[k % FIELD_SETS]
        result = device.submit(model, schedule, fields=own, threads=1).result()
        return np.asarray(result.spins[0] if isinstance(model, gl.IsingModel) else result.states[0])

    return draw


def numpy_fixed(fields: NDArray[np.float64]) -> Draw:
    """The probabilities are computed once."""
    rng = np.random.Generator(np.random.SFC64())
    p = (1 / (1 + np.exp(-2 * fields))).astype(np.float32)

    def draw(k: int) -> NDArray[Any]:
        up = (rng.random(p.shape, dtype=np.float32) < p).view(np.int8)
        up *= 2
        up -= 1
        return up[None]

    return draw


def _numpy_new(fields: list[NDArray[np.float64]]) -> Draw:
    """The p-bit's formula, s = sign(tanh h - r)."""
    rng = np.random.Generator(np.random.SFC64())
    given = [one.astype(np.float32) for one in fields]

    def draw(k: int) -> NDArray[Any]:
        x = np.tanh(given[k % FIELD_SETS])
        r = rng.random(x.shape, dtype=np.float32)
        r *= 2
        r -= np.float32(1)
        up = (r < x).view(np.int8)
        up *= 2
        up -= 1
        return up[None]

    return draw


def numpy_dits(logits: list[NDArray[np.float64]]) -> Draw:
    """Cumulative sums of exponentials for each call: they would be the 8 MB that change when fields do."""
    rng = np.random.Generator(np.random.SFC64())
    given = [one.astype(np.float32) for one in logits]

    def draw(k: int) -> NDArray[Any]:
        x = given[k % len(given)]
        sums = np.cumsum(np.exp(x - x.max(axis=1, keepdims=True)), axis=1, dtype=np.float32)
        u = rng.random((len(x), DRAWS), dtype=np.float32) * sums[:, -1:]
        rows = zip(sums, u, strict=True)
        return np.array([row.searchsorted(wanted, side="right") for row, wanted in rows], dtype=np.int16).T

    return draw
