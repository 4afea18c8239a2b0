from __future__ import annotations

import glauber as gl
import pytest


@pytest.fixture(autouse=True)
def _torch_is_seeded():
    """Layers and inputs come from torch's global generator; unseeded, their values depend on which tests ran before."""
    torch = pytest.importorskip("torch", reason="needs the extra torch: pip install -e '.[torch]'")
    torch.manual_seed(0)


@pytest.fixture
def device():
    with gl.open_device("sim://ideal?seed=11") as opened:
        yield opened
