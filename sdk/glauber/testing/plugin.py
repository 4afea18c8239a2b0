"""The pytest plug-in: run any test on any device with `--glauber-device ADDRESS`.

def test_ferromagnet_aligns(glauber_device):
    ...

The default is `sim://ideal`, and the header of the run says so. Nothing of glauber is imported until a test asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from glauber.device import Device

DEFAULT = "sim://ideal"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    group = parser.getgroup("glauber")
    group.addoption(
        "--glauber-device", default=DEFAULT, metavar="ADDRESS", help=f"device for tests (default {DEFAULT})"
    )


def pytest_report_header(config: pytest.Config) -> str:
    """Say on which device the tests run."""
    return f"glauber device: {config.getoption('--glauber-device')}"


@pytest.fixture(scope="session")
def glauber_device(request: pytest.FixtureRequest) -> Iterator[Device]:
    """The device of the run, opened once."""
    from glauber.device import open_device

    with open_device(str(request.config.getoption("--glauber-device"))) as device:
        yield device
