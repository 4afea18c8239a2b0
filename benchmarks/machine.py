"""Where and when a benchmark ran: every result file says so."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def installed(package: str) -> str:
    """A package's version, or that it has none here."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def provenance(packages: tuple[str, ...]) -> dict[str, Any]:
    """Machine, date, command and versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    module = getattr(sys.modules["__main__"], "__spec__", None)
    given = sys.argv[1:]
    if "--output" in given:  # where it was written is nobody else's concern
        at = given.index("--output")
        given = given[:at] + given[at + 2 :]
    command = ["python", "-m", module.name if module is not None else sys.argv[0], *given]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "versions": {name: installed(name) for name in packages},
        "command": shlex.join(command),
    }


def write(path: Path, result: dict[str, Any]) -> None:
    """Write a result file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
