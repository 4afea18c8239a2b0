"""Where JAX and THRML are not installed, glauber works, and what needs them says which extra to install."""

from __future__ import annotations

import subprocess
import sys

import glauber as gl
import pytest
from glauber.errors import DeviceNotFoundError, MissingExtraError


@pytest.fixture
def neither(monkeypatch):
    """What Python does where a package is not installed, here too."""
    for name in [*sys.modules]:
        if name.partition(".")[0] in ("jax", "thrml") or name.startswith(("glauber.jax", "glauber.adapters.thrml")):
            monkeypatch.delitem(sys.modules, name)
    for name in ("jax", "thrml"):
        monkeypatch.setitem(sys.modules, name, None)


def test_importing_glauber_and_listing_devices_load_no_framework():
    heavy = "{'jax', 'thrml', 'torch'}"
    code = f"import glauber, sys; list(glauber.available_devices()); assert not {heavy} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.usefixtures("neither")
def test_the_message_names_the_extra():
    with pytest.raises(MissingExtraError, match=r"glauber\[jax\]"):
        import glauber.jax  # noqa: F401
    with pytest.raises(MissingExtraError, match=r"glauber\[thrml\]"):
        gl.adapters.from_thrml([])
    for scheme in ("jax", "thrml"):
        with pytest.raises(DeviceNotFoundError, match=rf"glauber\[{scheme}\]"):
            gl.open_device(f"{scheme}://cpu")
        assert not any(address.startswith(f"{scheme}:") for address, _ in gl.available_devices())
