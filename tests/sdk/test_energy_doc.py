"""docs/energy.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

from glauber.cli import app
from typer.testing import CliRunner

PAGE = (Path(__file__).parents[2] / "docs" / "energy.md").read_text()


def test_the_page_about_energy_works(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    exec(compile("".join(blocks), "energy.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "a joule (modelled" in printed
    assert "rewriting alone takes 1,000 s" in printed
    assert "glauber energy king.npz" in PAGE
    assert CliRunner().invoke(app, ["energy", "king.npz"]).exit_code == 0
    assert CliRunner().invoke(app, ["energy", "king.npz", "king.npz"]).exit_code == 0
