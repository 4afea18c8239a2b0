"""docs/write-a-driver.md, followed word for word."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest
from board_package import GUIDE, guide_commands, guide_files, write_board_package


def follow(command, folder):
    """One line of the guide, with this interpreter and the package on its path."""
    program, *arguments = shlex.split(command)
    start = {"glauber": [sys.executable, "-m", "glauber.cli"], "python": [sys.executable]}[program]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        start + arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_guide_works_as_it_stands(tmp_path):
    folder = write_board_package(tmp_path / "toy-board")
    install, devices, conformance, contract = guide_commands()
    assert install == "pip install -e ."  # write_board_package does what it would do, without an index
    assert "toy://board" in follow(devices, folder)
    shown = follow(conformance, folder)
    assert "0 failed" in shown
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert "links broken" in shown
    summary = follow(contract + " -p no:cacheprovider -k 'law or link or cancel'", folder)
    assert " passed" in summary


def test_the_listing_names_every_file():
    listed = GUIDE.read_text().split("```")[1]
    for name in [*guide_files(), "toy_board/__init__.py"]:
        assert f"  {name}" in listed


@pytest.mark.slow
def test_a_broken_driver_does_not_pass_the_guide(tmp_path):
    """The guide's last command fails where the driver is wrong."""
    folder = write_board_package(tmp_path / "toy-board")
    driver = folder / "toy_board" / "driver.py"
    driver.write_text(driver.read_text().replace("int(w)]", "-int(w)]"))
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "pytest", "-q", "test_contract.py", "-k", "align or law_of_samples"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "2 failed" in done.stdout
