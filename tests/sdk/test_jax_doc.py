"""docs/jax.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("thrml", reason="needs the extra thrml: pip install -e '.[thrml]'")

PAGE = (Path(__file__).parents[2] / "docs" / "jax.md").read_text()


def test_the_page_about_jax_works(capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, object] = {}
    exec(compile("\n".join(blocks), "jax.md", "exec"), names)
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == ["(200, 2) True", "1 2 bool"]
    assert abs(names["means"] - names["data"].mean(axis=0)).max() < 0.15  # type: ignore[attr-defined]
