"""The chain beside one machine: it trains, measures, draws, and refuses what a device cannot do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra torch: pip install -e '.[torch]'")

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments):
    command = [sys.executable, "-m", "examples.denoising_digits", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.timeout(600)
def test_a_short_run_writes_its_page_and_picture(tmp_path):
    small = ["--seeds", "0", "--hidden", "4", "--steps", "2", "--updates", "60", "--paths", "2", "--images", "20"]
    done = run(*small, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "results.json").read_text())
    row = figures["rows"][0]
    models = [name for name in row if "one machine, " in name or name == "chain"]
    assert len(models) == 4
    assert row[models[2]]["parameters"] == pytest.approx(row["chain"]["parameters"], abs=65)
    for model in models:
        assert -45 < row[model]["nats"] < -14  # fair coins would be at -44.4
        assert row[model]["standard_error"] > 0
    assert (tmp_path / "RESULTS.md").read_text().rstrip() == done.stdout.rstrip()
    assert (tmp_path / "report.png").stat().st_size > 10_000


def test_a_device_that_cannot_is_named(tmp_path):
    done = run("--device", "sim://fujitsu-da2", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "stated temperature" in done.stderr
    assert run("--updates", "0").returncode == 2
