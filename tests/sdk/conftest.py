"""Lets the tests here import what they share (importlib mode does not look beside a test), and opens stores."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest
from glauber import keeping
from glauber.store import JobStore


@pytest.fixture
def path(tmp_path):
    """Of a store that is not there yet."""
    return tmp_path / "jobs.sqlite"


@pytest.fixture
def store(path):
    with JobStore(path) as opened:
        yield opened


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(keeping, "PART_SECONDS", 0.01)
