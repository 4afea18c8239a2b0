"""Lets the tests here import what they share (importlib mode does not look beside a test), and opens labs."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from lab_bench import Bench


@pytest.fixture
def bench(tmp_path):
    """A lab with two devices, in this process, with tokens; reachable without a socket."""
    with Bench(tmp_path) as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_token_of_ours(monkeypatch):
    monkeypatch.delenv("GLAUBER_TOKEN", raising=False)
