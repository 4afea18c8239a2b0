"""What is optional stays out until it is asked for, and says how to have it."""

from __future__ import annotations

import subprocess
import sys


def test_without_torch_the_message_names_the_extra():
    code = "import sys; sys.modules['torch'] = None\nimport glauber\nglauber.torch"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'glauber[torch]'" in found.stderr


def test_glauber_alone_loads_neither_torch_nor_jax():
    code = "import sys, glauber; glauber.IsingModel; print(sorted({'torch', 'jax', 'thrml'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
