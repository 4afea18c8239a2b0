"""The package of docs/write-a-driver.md, as its reader writes it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "write-a-driver.md"


def guide_files() -> dict[str, str]:
    """Path -> text of each file that the guide shows."""
    return dict(re.findall(r"^```\w+ file=(\S+)\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE))


def guide_commands() -> list[str]:
    """What the guide says to type."""
    return [
        line.removeprefix("$ ")
        for block in re.findall(r"^```console\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
    ]


def write_board_package(folder: Path) -> Path:
    """Write the guide's files; with this folder on the path, the package is installed as `pip install -e .` would."""
    for name, text in guide_files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "toy_board" / "__init__.py").touch()
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    about = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in entries.items())]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder
