"""README's figures are those of the committed results."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
readme = importlib.import_module("benchmarks.readme")


def test_readme_has_the_committed_figures():
    text = (ROOT / "README.md").read_text()
    assert readme.BEGIN + readme.section() + readme.END in text, "run: python -m benchmarks.readme"
