"""Lets the tests here import what they share, the cases of bit identity included."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "simulator")]

import pytest  # noqa: E402
from fake_cupy import Shim, build_shim  # noqa: E402


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    """The GPU's kernels on the host."""
    return Shim(build_shim(tmp_path_factory.mktemp("shim")))
