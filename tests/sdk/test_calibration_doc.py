"""docs/calibration.md runs as it stands, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

from glauber.cli import app
from typer.testing import CliRunner

PAGE = (Path(__file__).parents[2] / "docs" / "calibration.md").read_text()


def test_the_page_about_calibration_works(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 3
    exec(compile("".join(blocks), "calibration.md", "exec"), {})
    assert "63 of 64 good" in capsys.readouterr().out
    named = set(re.findall(r"^glauber (\w+)", PAGE, re.MULTILINE))
    assert named == {"calibrate", "run", "history", "diff", "rollback", "twin"}
    for command in named:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
    same = CliRunner().invoke(app, ["diff", "record.json", "record.json"])
    assert same.exit_code == 0, same.output
