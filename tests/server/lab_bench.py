"""What the lab server's tests share: a lab in this process, and a server in another."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import glauber as gl
import httpx
from glauber.server.app import create_app
from glauber.server.config import read_config
from glauber.server.lab import Lab
from glauber.server.tokens import create_token

MODEL = gl.IsingModel.from_edges([(0, 1, 1.0), (1, 2, -0.5)])
KING = gl.IsingModel.from_edges([(0, 1, 1.0)])
SHORT = gl.SamplingSchedule(n_samples=20, n_chains=2)
LONG = gl.SamplingSchedule(n_samples=20, n_chains=2, sweeps_per_sample=2**28)
"""Minutes."""
NPZ = {"Content-Type": "application/octet-stream"}

CONFIG = """\
store = "jobs.sqlite"
requests_per_minute = 1000000
[devices.ideal]
address = "sim://ideal"
title = "The ideal simulator"
[devices.king]
address = "sim://pbit-king-64"
max_chains = 64
max_queue_per_owner = 5
"""


def write_config(folder: Path, text: str = CONFIG) -> Path:
    path = folder / "devices.toml"
    path.write_text(text)
    return path


class Client:
    """Requests to an application in this process, from any thread; its event loop has a thread of its own."""

    def __init__(self, app) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("127.0.0.1", 1))
        self._client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8765", timeout=60)

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(100)

    def request(self, method, path, **arguments) -> httpx.Response:
        return self.run(self._client.request(method, path, **arguments))

    def close(self) -> None:
        self.run(self._client.aclose())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Bench:
    """A lab in this process. `get` and `post` go through the whole application, without a socket."""

    def __init__(self, folder: Path, config: str = CONFIG) -> None:
        self.lab = Lab(read_config(write_config(folder, config)))
        self.tokens = {
            scope: create_token(self.lab.file, f"{scope}er", scope, 1)[1] for scope in ("read", "submit", "admin")
        }
        self.app = create_app(self.lab)
        self.client = Client(self.app)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_) -> None:
        self.client.close()
        self.lab.close()

    def headers(self, who: str | None) -> dict[str, str]:
        return {} if who is None else {"Authorization": f"Bearer {self.tokens.get(who, who)}"}

    def ask(self, method: str, path: str, who: str | None = "submit", **more) -> httpx.Response:
        headers = {**self.headers(who), **more.pop("headers", {})}
        return self.client.request(method, path, headers=headers, **more)

    def get(self, path: str, who: str | None = "submit", **more) -> httpx.Response:
        return self.ask("GET", path, who, **more)

    def post(self, path: str, who: str | None = "submit", **more) -> httpx.Response:
        return self.ask("POST", path, who, **more)

    def submit(self, schedule=SHORT, who: str = "submit", device: str = "ideal", key: str | None = None, **request):
        content = gl.JobRequest(MODEL, schedule, **request).to_bytes()
        headers = {**NPZ, **({} if key is None else {"Idempotency-Key": key})}
        return self.post(f"/devices/{device}/jobs", who, content=content, headers=headers)

    def wait(
        self, job_id: str, who: str = "submit", until=("done", "failed", "cancelled"), seconds: float = 30
    ) -> dict:
        deadline = time.monotonic() + seconds
        while True:
            job = self.get(f"/jobs/{job_id}", who).json()
            if job["status"] in until:
                return job
            assert time.monotonic() < deadline, job
            time.sleep(0.01)


def free_port() -> int:
    """Of those that no system gives to outgoing connections: it is still free when a server binds it, a second later.

    With port 0 the system would give one that it may give to somebody else meanwhile.
    """
    for _ in range(100):
        port = random.SystemRandom().randrange(20_000, 32_768)  # not the same in each process of the tests
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port among a hundred")


class Process:
    """`glauber serve` in a process of its own."""

    def __init__(self, folder: Path, config: str = CONFIG, port: int | None = None) -> None:
        self.folder, self.port = folder, port or free_port()
        self.config = write_config(folder, config)
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[str] | None = None

    def token(self, owner: str, scope: str = "submit") -> str:
        done = self.command("token", "create", "--owner", owner, "--scope", scope, "--days", "1")
        return done.stdout.strip()

    def command(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        start = [sys.executable, "-m", "glauber.cli", *arguments, "--config", str(self.config)]
        done = subprocess.run(start, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def start(self) -> Process:
        self.log = (self.folder / "server.log").open("a+")
        arguments = ["serve", str(self.config), "--port", str(self.port)]
        self.process = subprocess.Popen([sys.executable, "-m", "glauber.cli", *arguments], stderr=self.log, text=True)
        deadline = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"{self.url}/health", trust_env=False).status_code == 200:
                    return self
            except httpx.TransportError:
                assert self.process.poll() is None, self.logged()
                assert time.monotonic() < deadline, self.logged()
                time.sleep(0.05)

    def logged(self) -> str:
        return (self.folder / "server.log").read_text()

    def events(self) -> list[dict]:
        return [json.loads(line) for line in self.logged().splitlines()]

    def stop(self, number: int = signal.SIGTERM, code: int | None = 0) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        try:
            found = self.process.wait(60)
        finally:
            self.process.kill()
            self.log.close()
        assert code is None or found == code, self.logged()

    def __enter__(self) -> Process:
        return self.start()

    def __exit__(self, *_) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop(signal.SIGKILL, code=None)
        self.log.close()
