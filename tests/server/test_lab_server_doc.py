"""docs/lab-server.md, followed word for word; only the port is another one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import glauber as gl
import pytest
from glauber.server.config import DeviceConfig, LabConfig, OwnerConfig, read_config
from lab_bench import Process, free_port

PAGE = Path(__file__).parents[2] / "docs" / "lab-server.md"
BLOCKS = re.findall(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
SERVE = "glauber serve devices.toml"


class Reader:
    """Somebody who types what the page says, into one shell after another."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
        (folder / "bin").mkdir()
        for name, module in (("glauber", "-m glauber.cli"), ("python", "")):
            script = folder / "bin" / name
            script.write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
            script.chmod(0o755)

    def own(self, text: str) -> str:
        return text.replace("8765", str(self.port))

    def type(self, line: str) -> str:
        exports = "env -0 > exports"
        done = subprocess.run(
            ["bash", "-c", f"set -e -o pipefail; {self.own(line)}\n{exports}"],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        pairs = (self.folder / "exports").read_text().split("\0")
        self.environment = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page uses curl")
@pytest.mark.slow
def test_the_page_works_as_it_stands(tmp_path):
    reader, server, said = Reader(tmp_path, free_port()), None, {}
    try:
        for kind, name, text in BLOCKS:
            if name:
                (tmp_path / name).write_text(reader.own(text))
            elif kind == "console":
                for line in text.splitlines():
                    line = line.removeprefix("$ ")
                    if line == SERVE:
                        server = Process(tmp_path, (tmp_path / "devices.toml").read_text(), reader.port)
                        server.start()
                    else:
                        said[line] = reader.type(line)
        answers = list(said.values())
        assert "alice" in answers[1]
        energy, address = said["python submit.py | tee said.txt"].split()
        assert address.startswith(f"http://127.0.0.1:{reader.port}/jobs/")
        again = said["python again.py $(tail -n 1 said.txt)"].split()
        assert again == ["7", energy]
        usage = next(answer for line, answer in said.items() if line.endswith("/usage"))
        assert '"owner":"alice"' in usage
        assert "none changed" in said["glauber audit verify"]
        assert "revoked" in next(answer for line, answer in said.items() if "token revoke" in line)
        assert any('"owner":"alice","starts":"2099' in answer for answer in answers)
        with gl.open_device("sim://ideal", store=tmp_path / "backup" / "jobs.sqlite") as device:
            assert len(device.store.jobs()) == 1
        server.stop()
    finally:
        if server is not None and server.process.poll() is None:
            server.stop(code=None)


def test_every_setting_is_listed():
    table = PAGE.read_text().split("All settings of")[1].split("A day is")[0]
    for kind in (LabConfig, DeviceConfig, OwnerConfig):
        for name in set(kind.model_fields) - {"devices", "owners"}:
            assert f"`{name}`" in table, name


def test_the_other_examples_are_possible(tmp_path):
    (toml,) = re.findall(r"^  ```toml\n(.*?)^  ```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    path = tmp_path / "devices.toml"
    path.write_text(toml.replace("\n  ", "\n").lstrip() + '[devices.a]\naddress = "sim://ideal"\n')
    assert read_config(path).url == "https://lab.example.org:8765"
    (unit,) = [text for kind, _, text in BLOCKS if kind == "ini"]
    assert SERVE.removeprefix("glauber ") in unit
