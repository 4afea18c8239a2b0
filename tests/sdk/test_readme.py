"""README's example runs as it stands, and its links and claims about the repository hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from glauber.catalogue import catalogue_names
from glauber.cli import app
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_example_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    assert 18 <= len([line for line in blocks[0].splitlines() if line.strip()]) <= 24  # "twenty lines"
    exec(compile("".join(blocks), "README.md", "exec"), {})  # the second goes on from the first
    printed = capsys.readouterr().out
    assert "(8, 1000, 3)" in printed
    assert "R-hat" in printed
    assert "assumed" in printed


def test_the_page_about_jobs_works():
    page = (ROOT / "docs" / "jobs.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    exec(compile("".join(blocks), "jobs.md", "exec"), {})
    commands = re.findall(r"^glauber (jobs \w+|usage)", page, re.MULTILINE)
    assert len(commands) == 10
    for command in commands:
        assert CliRunner().invoke(app, [*command.split(), "--help"]).exit_code == 0, command


@pytest.mark.parametrize(
    "link",
    re.findall(
        r"\]\(([^)h][^)]*)\)|`((?:docs|benchmarks|examples|sdk|csrc|drivers|simulator|firmware_stubs)/[^`]*)`", README
    ),
)
def test_links_exist(link):
    assert (ROOT / (link[0] or link[1])).exists()


def test_the_catalogue_has_as_many_entries_as_it_says():
    assert f"{len(catalogue_names())} entries" in README


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert f"\n{target}:" in makefile
