"""The watch over the kernels finds what it is there for: planted races, a missing barrier, accesses out of range."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bodies import compiled, ising_program
from fake_cupy import BARRIER, FORWARD, RACE, RANDOM, RANGE, REVERSE, FakeCupy, Shim, build_shim
from glauber.compile import make_run
from glauber.model import IsingModel
from glauber.schedule import SamplingSchedule
from glauber_drivers.cuda_job import MEMBERS, choose_form, program_arrays
from glauber_drivers.cuda_session import Gpu, Session
from glauber_drivers.cupy_gpu import source_folder
from test_identity_potts import potts_program

pytestmark = pytest.mark.cuda

ORDERS = (FORWARD, REVERSE, RANDOM)


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """The kernels without their barriers."""
    return Shim(build_shim(tmp_path_factory.mktemp("broken"), "-DSHIM_WITHOUT_BARRIERS"))


def program_of(name: str) -> Any:
    """A model by name; the cubic one has colours of several words of positions."""
    if name != "cubic":
        return ising_program(name)
    at = np.arange(216).reshape(6, 6, 6)
    edges = np.concatenate([np.stack([at.ravel(), np.roll(at, 1, axis).ravel()], axis=1) for axis in range(3)])
    return compiled(IsingModel(np.zeros(216), edges, np.ones(len(edges))))


def session(shim: Shim, program: Any, *, chains: int = 40, kernel: str | None = None) -> Session:
    """A run that has begun; its job can be launched by hand."""
    run = replace(make_run(program, SamplingSchedule(n_samples=2, n_chains=chains), seed=1), kernel=kernel)
    gpu = Gpu(FakeCupy(shim), 0, source_folder())
    with gpu.in_use():
        fixed = {name: gpu.upload(array) for name, array in program_arrays(program).items()}
    return Session(gpu, program, fixed, run, choose_form(program, run), resident=False)


def launch(shim: Shim, of: Session, name: str, first: int, second: int, threads: int = 64) -> tuple[int, str]:
    return shim.launch(name, 2, threads, of._job, first, second)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("name", "chains", "kernel"), [("frustrated", 40, "bits5"), ("dense", 40, "fields2"), ("cubic", 3, "sites")]
)
def test_two_colours_in_one_launch_are_a_race(shim, name, chains, kernel, order):
    program = program_of(name)
    of = session(shim, program, chains=chains)
    shim.order = order
    begin, middle, end = program.order.colour_start[:3]
    assert launch(shim, of, f"glb_{kernel}_colour", 0, int(begin) | int(middle) << 32)[0] == 0
    error, report = launch(shim, of, f"glb_{kernel}_colour", 0, int(begin) | int(end) << 32)
    assert error == RACE, report


@pytest.mark.parametrize("order", ORDERS)
def test_two_colours_of_potts_spins_in_one_launch_are_a_race(shim, order):
    program = potts_program("weights", 4, False)
    of = session(shim, program)
    shim.order = order
    begin, middle, end = program.order.colour_start[:3]
    assert launch(shim, of, "glb_potts_colour", 0, int(begin) | int(middle) << 32)[0] == 0
    assert launch(shim, of, "glb_potts_colour", 0, int(begin) | int(end) << 32)[0] == RACE


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("name", "chains", "kernel"),
    [
        ("frustrated", 40, "glb_bits5_sweeps"),
        ("cubic", 40, "glb_fields1_sweeps"),
        ("dense", 40, "glb_dense_sweeps"),
        ("cubic", 3, "glb_sites_sweeps"),
    ],
)
def test_a_missing_barrier_is_found(shim, broken, name, chains, kernel, order):
    for which, wanted in ((shim, 0), (broken, RACE)):
        which.order = order
        dense = "dense" in kernel
        of = session(which, program_of(name), chains=chains, kernel="dense" if dense else None)
        error, report = launch(which, of, kernel, 0, 2, 512 if dense else 64)
        assert error == wanted, report


@pytest.mark.parametrize("order", ORDERS)
def test_one_position_too_many_is_found(shim, order):
    """At a colour's end it is another colour's, at the last one's it is nobody's."""
    program = ising_program("frustrated")
    of = session(shim, program)
    shim.order = order
    begin, end = (int(k) for k in program.order.colour_start[:2])
    assert launch(shim, of, "glb_bits5_colour", 0, begin | (end + 1) << 32)[0] == RACE
    last = int(program.order.colour_start[-2])
    error, report = launch(shim, of, "glb_bits5_colour", 0, last | (program.n_sites + 1) << 32)
    assert error in (RANGE, RACE), report
    assert launch(shim, of, "glb_sample", 5, 0)[0] == RANGE  # there is room for none


def test_a_barrier_that_not_all_threads_reach_is_found(tmp_path):
    planted = Shim(build_shim(tmp_path, "-DSHIM_PLANT_DIVERGENCE"))
    of = session(planted, ising_program("frustrated"))
    assert launch(planted, of, "planted_divergence", 0, 0)[0] == BARRIER


def test_the_jobs_members_are_those_of_the_header(shim):
    text = (source_folder() / "job.h").read_text()
    body = text[text.index("typedef struct {") : text.index("} glb_gpu_job")]
    declared = [
        line.split(";")[0].split()[-1].lstrip("*") for line in body.splitlines() if ";" in line and "    " in line
    ]
    declared = [name for name in declared if name.isidentifier()]
    assert declared == list(MEMBERS)
    assert shim.job_bytes == 8 * len(MEMBERS)
