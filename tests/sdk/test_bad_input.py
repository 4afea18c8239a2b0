"""Everything that is refused before a job exists, by a typed error that names the value and the remedy."""

from __future__ import annotations

import math

import glauber as gl
import numpy as np
import pytest
from glauber.errors import (
    BudgetExceededError,
    DeviceClosedError,
    DeviceNotFoundError,
    InvalidModelError,
    JobCancelledError,
    JobTimeoutError,
    ModelNotSupportedError,
)

PAIR = gl.IsingModel.from_edges([(0, 1, 1.0)], {0: 0.5})
POTTS = gl.PottsModel(np.zeros((2, 3)), [(0, 1)], [1.0], [[True, True, False], [True, True, True]])
SHORT = gl.SamplingSchedule(n_samples=2, n_chains=2)


def submit(*args, address="sim://ideal?seed=1", **kwargs):
    with gl.open_device(address) as device:
        return device.submit(*args, **kwargs).result(30)


# name: (what is done, error, a piece of the message that names the value, and one that names the remedy or the range)
CASES = {
    "nan coupling": (
        lambda: gl.IsingModel.from_edges([(0, 1, math.nan)]),
        InvalidModelError,
        r"couplings\[0\] is nan",
        "finite",
    ),
    "infinite field": (
        lambda: gl.IsingModel.from_edges([], {0: math.inf}),
        InvalidModelError,
        r"fields\[0\] is inf",
        "finite",
    ),
    "infinite offset": (lambda: gl.IsingModel([0.0], [], [], -math.inf), InvalidModelError, "-inf", "finite"),
    "self-loop": (lambda: gl.IsingModel.from_edges([(1, 1, 1.0)]), InvalidModelError, "site 1 to itself", "fields"),
    "duplicate edge": (
        lambda: gl.IsingModel.from_edges([(0, 1, 1.0), (1, 0, 2.0)]),
        InvalidModelError,
        r"sites \(0, 1\) a second time",
        "add the two",
    ),
    "edge out of range": (lambda: gl.IsingModel([0, 0], [(0, 2)], [1]), InvalidModelError, r"\(0, 2\)", "0 to 1"),
    "negative index": (lambda: gl.IsingModel([0, 0], [(-1, 0)], [1]), InvalidModelError, r"\(-1, 0\)", "0 to 1"),
    "float index": (lambda: gl.IsingModel([0, 0], [(0.0, 1.0)], [1]), InvalidModelError, "float64", "integers"),
    "no sites": (lambda: gl.IsingModel([], [], []), InvalidModelError, "not 0", "from 1"),
    "wrong couplings shape": (lambda: gl.IsingModel([0, 0], [(0, 1)], [1, 2]), InvalidModelError, r"\(2,\)", r"\(1,\)"),
    "text as coupling": (lambda: gl.IsingModel([0, 0], [(0, 1)], ["x"]), InvalidModelError, "couplings", "numbers"),
    "asymmetric matrix": (lambda: gl.IsingModel.from_dense([[0, 1], [2, 0]]), InvalidModelError, "symmetric", "J.T"),
    "matrix with a diagonal": (lambda: gl.IsingModel.from_dense([[1.0]]), InvalidModelError, "diagonal", "offset"),
    "bias of no site": (lambda: gl.IsingModel.from_edges([], {5: 1}, n_sites=2), InvalidModelError, "site 5", "0 to 1"),
    "q of one": (lambda: gl.PottsModel(np.zeros((2, 1)), [], []), InvalidModelError, "not 1", "from 2"),
    "Potts table shape": (
        lambda: gl.PottsModel(np.zeros((2, 3)), [(0, 1)], np.zeros((2, 2))),
        InvalidModelError,
        r"\(2, 2\)",
        r"\(3, 3\)",
    ),
    "nothing allowed": (
        lambda: gl.PottsModel(np.zeros((1, 2)), [], [], [[False, False]]),
        InvalidModelError,
        "site 0",
        "no state",
    ),
    "spins of the wrong value": (lambda: PAIR.energies([0, 1]), InvalidModelError, "spins", r"-1 or \+1"),
    "spins of the wrong length": (lambda: PAIR.energies([1, 1, 1]), InvalidModelError, r"\(3,\)", "2 long"),
    "negative beta": (lambda: gl.SamplingSchedule(beta=-1.0), InvalidModelError, "-1.0", "greater than or equal to 0"),
    "nan beta": (lambda: gl.SamplingSchedule(beta=math.nan), InvalidModelError, "beta", "finite|greater"),
    "zero sweeps": (
        lambda: gl.AnnealingSchedule(n_sweeps=0),
        InvalidModelError,
        "n_sweeps",
        "greater than or equal to 1",
    ),
    "zero samples": (
        lambda: gl.SamplingSchedule(n_samples=0),
        InvalidModelError,
        "n_samples",
        "greater than or equal to 1",
    ),
    "fraction of a sample": (lambda: gl.SamplingSchedule(n_samples=1.5), InvalidModelError, "1.5", "integer"),
    "unknown schedule field": (
        lambda: gl.SamplingSchedule(num_steps=3),
        InvalidModelError,
        "num_steps",
        "not permitted",
    ),
    "geometric from zero": (lambda: gl.AnnealingSchedule(beta_start=0.0), InvalidModelError, "above 0", "linear"),
    "empty table": (lambda: gl.AnnealingSchedule(table=[]), InvalidModelError, "table", "leave"),
    "table and length": (lambda: gl.AnnealingSchedule(table=[1.0], n_sweeps=2), InvalidModelError, "2 sweeps", "leave"),
    "budget below zero": (lambda: gl.Budget(seconds=-1), InvalidModelError, "-1", "greater than 0"),
    "seed not an integer": (lambda: submit(PAIR, SHORT, seed="7"), InvalidModelError, "'7'", "integer from 0"),
    "seed a float": (lambda: submit(PAIR, SHORT, seed=7.0), InvalidModelError, "7.0", "integer from 0"),
    "seed too large": (lambda: submit(PAIR, SHORT, seed=2**64), InvalidModelError, str(2**64), "integer from 0"),
    "seed of the address": (lambda: gl.open_device("sim://ideal?seed=x"), InvalidModelError, "seed=x", "integer"),
    "clamp of no site": (lambda: submit(PAIR, SHORT, clamp={2: 1}), InvalidModelError, "site 2", "0 to 1"),
    "clamp to nothing": (lambda: submit(PAIR, SHORT, clamp={0: 3}), InvalidModelError, "3", r"-1 or \+1"),
    "clamp array value": (
        lambda: submit(PAIR, SHORT, clamp=np.array([2, 0])),
        InvalidModelError,
        "is 2",
        "0 for a free",
    ),
    "clamp array shape": (
        lambda: submit(PAIR, SHORT, clamp=np.zeros((3, 2), int)),
        InvalidModelError,
        r"\(3, 2\)",
        r"\(2, 2\)",
    ),
    "two clamps for one spin": (
        lambda: submit(PAIR, SHORT, clamp=[(0, 1), (0, -1)]),
        InvalidModelError,
        "site 0 is clamped to 1 and to -1",
        "keep one",
    ),
    "clamp against initial": (
        lambda: submit(PAIR, SHORT, clamp={0: 1}, initial=np.array([-1, 1])),
        InvalidModelError,
        "site 0 of chain 0",
        "same value",
    ),
    "clamp to a forbidden state": (lambda: submit(POTTS, SHORT, clamp={0: 2}), InvalidModelError, "2", "allowed state"),
    "start in a forbidden state": (
        lambda: submit(POTTS, SHORT, initial=np.array([2, 0])),
        InvalidModelError,
        "2",
        "allowed",
    ),
    "initial of zero": (lambda: submit(PAIR, SHORT, initial=np.array([0, 1])), InvalidModelError, "is 0", r"-1 or \+1"),
    "initial a fraction": (lambda: submit(PAIR, SHORT, initial=[0.5, 1]), InvalidModelError, "float64", "integers"),
    "fields shape": (lambda: submit(PAIR, SHORT, fields=[1.0]), InvalidModelError, r"\(1,\)", r"\(2, 2\)"),
    "nan in fields": (lambda: submit(PAIR, SHORT, fields=[1.0, math.nan]), InvalidModelError, "nan", "finite"),
    "unknown observable": (lambda: submit(PAIR, SHORT, observe={"spin"}), InvalidModelError, "spin", "moments"),
    "no observable": (lambda: submit(PAIR, SHORT, observe=set()), InvalidModelError, r"\[\]", "choose"),
    "priority": (lambda: submit(PAIR, SHORT, priority=1.5), InvalidModelError, "1.5", "integer"),
    "threads": (lambda: submit(PAIR, SHORT, threads=0), InvalidModelError, "0", "from 1"),
    "instruction set": (lambda: submit(PAIR, SHORT, isa="mmx"), ModelNotSupportedError, "mmx", "portable"),
    "on_overflow": (lambda: submit(PAIR, SHORT, on_overflow="clip"), InvalidModelError, "clip", "scale"),
    "not a model": (lambda: submit([[0, 1]], SHORT), InvalidModelError, "list", "IsingModel"),
    "not a schedule": (lambda: submit(PAIR, 100), InvalidModelError, "int", "schedule"),
    "not a budget": (lambda: submit(PAIR, SHORT, budget=3), InvalidModelError, "int", "Budget"),
    "budget before a sample": (
        lambda: submit(PAIR, gl.SamplingSchedule(n_warmup=50), budget=gl.Budget(sweeps=10)),
        InvalidModelError,
        "10 sweeps",
        "takes 51",
    ),
    "joules nobody published": (
        lambda: submit(PAIR, SHORT, budget=gl.Budget(joules=1.0)),
        InvalidModelError,
        "joules",
        "published for ideal",
    ),
    "joules for nothing": (
        lambda: submit(PAIR, SHORT, address="sim://pbit-king-64", budget=gl.Budget(joules=1e-18)),
        BudgetExceededError,
        "1e-18",
        "first sample takes",
    ),
    "too much memory": (
        lambda: submit(PAIR, gl.SamplingSchedule(n_samples=2**40, n_chains=2**20)),
        InvalidModelError,
        "GiB",
        "fewer chains",
    ),
    "larger than the device": (
        lambda: submit(gl.IsingModel(np.zeros(65), [], []), SHORT, address="sim://pbit-king-64"),
        ModelNotSupportedError,
        "65 sites, the device 64",
        "sim://ideal",
    ),
    "edge that the chip lacks": (
        lambda: submit(gl.IsingModel.from_edges([(0, 2, 1.0)]), SHORT, address="sim://pbit-king-64"),
        ModelNotSupportedError,
        "0-2",
        "embed=True",
    ),
    "coupling out of range": (
        lambda: submit(gl.IsingModel.from_edges([(0, 1, 3.0)]), SHORT, address="sim://pbit-king-64"),
        ModelNotSupportedError,
        r"largest \|J\| is 3",
        'on_overflow="scale"',
    ),
    "job fields out of range": (
        lambda: submit(PAIR, SHORT, address="sim://pbit-king-64", fields=[1e3, 0]),
        ModelNotSupportedError,
        "1000",
        "range ends at",
    ),
    "Potts on p-bits": (
        lambda: submit(POTTS, SHORT, address="sim://pbit-king-64"),
        ModelNotSupportedError,
        "3 states",
        "sim://ideal",
    ),
    "beta out of range": (
        lambda: submit(PAIR, gl.SamplingSchedule(beta=9.0), address="sim://pbit-king-64"),
        ModelNotSupportedError,
        "beta = 9",
        "0 to 8",
    ),
    "beta too cold for arithmetic": (
        lambda: submit(PAIR, gl.SamplingSchedule(beta=1e12)),
        ModelNotSupportedError,
        "beta = 1e\\+12",
        "Scale the model down",
    ),
    "fields beyond 2^30 steps": (
        lambda: submit(PAIR, SHORT, fields=[1e9, 0]),
        ModelNotSupportedError,
        "steps",
        "comparable scale",
    ),
    "unknown scheme": (lambda: gl.open_device("simm://ideal"), DeviceNotFoundError, "simm", "did you mean sim://"),
    "no address": (lambda: gl.open_device("pbit-king-64"), DeviceNotFoundError, "pbit-king-64", "looks like sim://"),
    "bare scheme": (lambda: gl.open_device("sim://"), DeviceNotFoundError, "needs a device's name", "sim://ideal"),
    "unknown device": (
        lambda: gl.open_device("sim://pbit-king-65"),
        DeviceNotFoundError,
        "pbit-king-65",
        "pbit-king-64",
    ),
    "unknown parameter": (lambda: gl.open_device("sim://ideal?bits=3"), DeviceNotFoundError, "bits", "weight_bits"),
    "parameter twice": (lambda: gl.open_device("sim://ideal?seed=1&seed=2"), DeviceNotFoundError, "twice", "seed"),
    "bad weight bits": (lambda: gl.open_device("sim://ideal?weight_bits=99"), DeviceNotFoundError, "sim://ideal", "31"),
    "weight bits a word": (
        lambda: gl.open_device("sim://ideal?weight_bits=few"),
        DeviceNotFoundError,
        "few",
        "whole number",
    ),
    "unknown body": (lambda: gl.open_device("sim://ideal?body=gpu"), DeviceNotFoundError, "gpu", "reference"),
    "broken address": (lambda: gl.open_device("sim://[::1"), DeviceNotFoundError, r"sim://\[::1", "Invalid IPv6"),
    "address not text": (lambda: gl.open_device(7), DeviceNotFoundError, "7", "looks like"),
    "clamp that wraps": (lambda: submit(PAIR, SHORT, clamp={0: 2**32 + 1}), InvalidModelError, "4294967297", r"-1 or"),
    "clamp array that wraps": (
        lambda: submit(PAIR, SHORT, clamp=np.array([2**32 + 1, 0])),
        InvalidModelError,
        "4294967297",
        r"-1 or \+1",
    ),
    "clamp a Boolean": (lambda: submit(PAIR, SHORT, clamp={0: True}), InvalidModelError, "True", r"-1 or \+1"),
    "initial that wraps": (
        lambda: submit(PAIR, SHORT, initial=np.array([1, 2**32 - 1])),
        InvalidModelError,
        "4294967295",
        r"-1 or \+1",
    ),
    "ragged initial": (lambda: submit(PAIR, SHORT, initial=[[1], [1, -1]]), InvalidModelError, "initial", "regular"),
    "Boolean initial": (
        lambda: submit(PAIR, SHORT, initial=np.array([True, False])),
        InvalidModelError,
        "bool",
        "integers",
    ),
    "complex fields": (lambda: submit(PAIR, SHORT, fields=[1j, 0]), InvalidModelError, "fields", "real numbers"),
    "ragged fields": (lambda: submit(PAIR, SHORT, fields=[[1.0], [1.0, 2.0]]), InvalidModelError, "fields", "numbers"),
    "fields beyond a double": (
        lambda: submit(PAIR, SHORT, fields=[10**400, 0]),
        InvalidModelError,
        "fields",
        "too large",
    ),
    "observe a number": (lambda: submit(PAIR, SHORT, observe=3), InvalidModelError, "3", "moments"),
    "embed a word": (lambda: submit(PAIR, SHORT, embed="yes"), InvalidModelError, "yes", "True or False"),
    "partial a number": (lambda: submit(PAIR, SHORT, partial=1), InvalidModelError, "1", "True or False"),
    "negative seed of the address": (
        lambda: gl.open_device("sim://ideal?seed=-1"),
        InvalidModelError,
        "-1",
        "integer from 0",
    ),
    "very long anneal": (lambda: gl.AnnealingSchedule(n_sweeps=10**8), InvalidModelError, "100000000", "10000000"),
    "Potts states past memory": (
        lambda: submit(gl.PottsModel(np.zeros((1000, 3)), [], []), gl.SamplingSchedule(n_samples=2**30, n_chains=64)),
        InvalidModelError,
        "GiB",
        "fewer chains",
    ),
    "solve what": (
        lambda: gl.solve([[0, 1]], device="sim://ideal"),
        InvalidModelError,
        "list",
        "BQM or CQM, or a file",
    ),
    "solve where": (lambda: gl.solve(PAIR, device=None), InvalidModelError, "NoneType", "Device or an address"),
    "solve for how long": (lambda: gl.solve(PAIR, device="sim://ideal", budget=5), InvalidModelError, "int", "Budget"),
    "half a grid": (lambda: gl.open_device("sim://z1?width=8"), DeviceNotFoundError, "both", "height"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused(name):
    act, error, value, remedy = CASES[name]
    with pytest.raises(error, match=f"(?s){value}") as caught:
        act()
    assert caught.type is error
    pytest.raises(error, act).match(f"(?s){remedy}")


def test_there_are_at_least_thirty_cases():
    assert len(CASES) >= 30


def test_nothing_is_queued_by_a_refused_submit():
    with gl.open_device("sim://ideal") as device:
        for _ in range(3):
            with pytest.raises(InvalidModelError):
                device.submit(PAIR, SHORT, seed=-1)
        assert device.queued == []
        assert device.submit(PAIR, SHORT).result(30).n_samples == 2  # and the device still works


def test_a_closed_device():
    device = gl.open_device("sim://ideal")
    device.close()
    device.close()
    with pytest.raises(DeviceClosedError, match="open it again"):
        device.submit(PAIR, SHORT)
    with pytest.raises(DeviceClosedError):
        device.estimate(PAIR, SHORT)


LONG = gl.SamplingSchedule(n_samples=1, n_warmup=2**40)


def test_cancelled_twice():
    with gl.open_device("sim://ideal") as device:
        job = device.submit(PAIR, LONG)
        job.cancel()
        with pytest.raises(JobCancelledError, match=r"being cancelled already|has ended"):
            job.cancel()
        with pytest.raises(JobCancelledError, match="partial=True"):
            job.result(30)
        with pytest.raises(JobCancelledError, match="nothing to cancel"):
            job.cancel()


def test_result_that_takes_too_long():
    with gl.open_device("sim://ideal") as device:
        job = device.submit(PAIR, LONG)
        with pytest.raises(JobTimeoutError, match="it goes on"):
            job.result(0.05)
        with pytest.raises(TimeoutError):  # the standard library's class catches it too
            job.result(0)
        assert not job.done()
        for wrong in (-1, "x", math.nan, True):
            with pytest.raises(InvalidModelError, match="timeout"):
                job.result(wrong)
        job.cancel()


def test_result_path_that_cannot_be_written(tmp_path):
    samples = submit(PAIR, SHORT)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        samples.save(tmp_path / "nowhere" / "s.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(OSError, match=r"folder\.npz"):
        samples.save(tmp_path / "folder.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["folder.npz"]
