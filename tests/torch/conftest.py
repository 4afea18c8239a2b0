from __future__ import annotations

import glauber as gl
import pytest


@pytest.fixture
def device():
    with gl.open_device("sim://ideal?seed=11") as opened:
        yield opened
