"""docs/diagnostics.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "diagnostics.md").read_text()


def test_the_page_about_diagnostics_works(capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 5
    exec(compile("".join(blocks), "diagnostics.md", "exec"), {})
    shown = capsys.readouterr().out
    assert "! energy" in shown.partition("sweeps to drop")[0]
    assert "reliable" in shown
