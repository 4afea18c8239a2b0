"""A connection to a Dask scheduler: every wait ends, and every failure of it is one of glauber's errors."""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any

from glauber.errors import DeviceIOError, DeviceNotFoundError, GlauberError

from glauber_drivers import pool_worker

OPEN_SECONDS = 5.0
"""How long to wait for the scheduler, and then for a first worker."""
WORKER_SECONDS = 30.0
"""How long to wait in a job for a worker to come back where all are gone."""
CHECK_SECONDS = 1.0
"""How often to look whether the worker of a task is still there."""
ASK_SECONDS = 15.0
"""How long a worker may take over a question, opening the inner device included."""
ANSWER_SECONDS = 60.0
"""How long a batch may take, workers that die and come back included, before the job fails."""
INSTALL = "pip install 'glauber[pool]'"


def package(name: str) -> Any:
    """A package of the extra, or what to do about it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DeviceNotFoundError(
            f"dask:// needs the package distributed, which is not installed ({error}). {INSTALL}"
        ) from error


class Cluster:
    """A connection to a scheduler, every wait of which has an end.

    Args:
        name: HOST:PORT.

    Raises:
        DeviceNotFoundError: no scheduler answers there.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._distributed = package("distributed")
        self._config = package("dask").config
        try:  # an address without a scheme takes the one of Dask's configuration, tcp:// or tls://
            self._client = self._distributed.Client(name, timeout=OPEN_SECONDS, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise DeviceNotFoundError(
                f"no Dask scheduler answers at {name} ({error}); `glauber pool` starts one on this computer, and"
                " docs/scale-out.md shows how on a cluster"
            ) from error

    @property
    def closed(self) -> bool:
        """Whether the connection is gone for good."""
        return bool(self._client.status == "closed")

    def start(self, work: Callable[[], Awaitable[Any]]) -> concurrent.futures.Future[Any]:
        """Begin a coroutine in the client's thread."""
        if self.closed:
            raise DeviceIOError(f"the connection to the pool at {self.name} is closed; open the device again")

        async def run() -> Any:
            return await work()

        return asyncio.run_coroutine_threadsafe(run(), self._client.loop.asyncio_loop)

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The answer of one worker, at once: not behind the tasks it has to do.

        Raises:
            DeviceIOError: there is no worker, or it says nothing.
            GlauberError: what the function raises.
        """

        async def answer() -> Any:
            worker = next(iter(await self.workers(OPEN_SECONDS)))
            found = await self._client.run(function, *arguments, workers=[worker])
            return found[worker]

        return self.result(self.start(answer), ASK_SECONDS)

    def task(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a worker makes of a function in one of its threads; raises as `ask` does."""

        async def answer() -> Any:
            worker = next(iter(await self.workers(OPEN_SECONDS)))
            return (await self.compute(function, [(worker, arguments)]))[0]

        return self.result(self.start(answer), ASK_SECONDS)

    def ask_all(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """The answer of each worker, or its exception."""

        async def answers() -> Any:
            await self.workers(OPEN_SECONDS)
            return await self._client.run(function, *arguments, on_error="return")

        found: dict[str, Any] = self.result(self.start(answers), ASK_SECONDS)
        return found

    def result(self, work: concurrent.futures.Future[Any], seconds: float) -> Any:
        """What a coroutine returns; what goes wrong between processes is a DeviceIOError."""
        try:
            return work.result(seconds)
        except (GlauberError, ModuleNotFoundError):
            raise
        except (OSError, TimeoutError, concurrent.futures.CancelledError, asyncio.CancelledError) as error:
            work.cancel()
            what = f"{type(error).__name__}: {error}" if str(error) else f"nothing came within {seconds:g} s"
            raise DeviceIOError(
                f"the pool at {self.name} failed ({what}); are scheduler and workers still there?"
            ) from error
        except self._distributed.KilledWorker as error:
            raise DeviceIOError(
                f"workers of the pool at {self.name} died one after another over the same part of a job: {error}."
                " Mostly it is memory; take fewer chains or samples, or workers with more of it"
            ) from error

    def has(self, work: concurrent.futures.Future[Any], seconds: float, deadline: float) -> bool:
        """Whether a coroutine has ended, waiting for it for some seconds.

        Raises:
            DeviceIOError: it has not until the deadline (by time.monotonic), or the connection is closed.
        """
        if concurrent.futures.wait([work], seconds).done:
            return True
        if self.closed:
            raise DeviceIOError(f"the connection to the pool at {self.name} was closed in the middle of a job")
        if time.monotonic() > deadline:
            raise DeviceIOError(
                f"the pool at {self.name} has not finished a batch within {ANSWER_SECONDS:g} s: its workers hang, or do"
                " other work; `dask scheduler --dashboard-address :8787` shows what"
            )
        return False

    async def workers(self, seconds: float) -> dict[str, int]:
        """Threads of each worker by its address, once there is one."""
        deadline = time.monotonic() + seconds
        while True:
            found: dict[str, int] = await self._client.nthreads()
            if found:
                return found
            if time.monotonic() > deadline:
                raise DeviceIOError(
                    f"the pool at {self.name} has no workers; `dask worker {self.name}` adds one, from an environment"
                    f" with glauber {version('glauber')}"
                )
            await asyncio.sleep(0.1)

    def keep(self, value: Any) -> Any:
        """A future of a value, for arguments of tasks: sent once to the scheduler, and once to each worker.

        A task makes it, unlike scattered data: where all workers that had it die, the scheduler makes it again.
        """
        with self._large_arguments():
            return self._client.submit(pool_worker.keep, value, pure=False)

    def _large_arguments(self) -> Any:
        """Dask warns of arguments above 10 MB; states and programs may be larger, and nothing else could be sent."""
        return self._config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"})

    async def compute(self, function: Callable[..., Any], tasks: Sequence[tuple[str, tuple[Any, ...]]]) -> list[Any]:
        """The function of each tuple of arguments, on the worker named before it, or on another if that is gone."""
        parts = [
            asyncio.ensure_future(self._part(k, worker, function, arguments))
            for k, (worker, arguments) in enumerate(tasks)
        ]
        try:
            return list(await asyncio.gather(*parts))
        finally:
            for part in parts:
                part.cancel()

    async def _part(self, number: int, worker: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Submit a task until it is done: Dask moves it when its worker dies, unless no other is there just then."""
        while True:
            with self._large_arguments():
                future = self._client.submit(
                    function, *arguments, pure=False, workers=[worker], allow_other_workers=True
                )
            waiting = asyncio.ensure_future(future.result())
            try:
                while not waiting.done():
                    await asyncio.wait([waiting], timeout=CHECK_SECONDS)
                    if not waiting.done() and await self._is_stranded(future.key, worker):
                        break
                else:
                    return waiting.result()
            finally:
                if not waiting.done():
                    waiting.cancel()
                    with suppress(Exception):
                        await self._client.cancel([future], force=True)
            alive = list(await self.workers(WORKER_SECONDS))
            worker = alive[number % len(alive)]

    async def _is_stranded(self, key: str, worker: str) -> bool:
        """Whether a task's worker is gone, and no other one has it; waits for one to come."""
        alive = await self.workers(WORKER_SECONDS)
        return worker not in alive and not any(key in keys for keys in (await self._client.processing()).values())

    def close(self) -> None:
        """Let go; never raises."""
        with suppress(Exception):
            self._client.close(timeout=OPEN_SECONDS)
