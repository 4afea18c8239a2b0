"""A pool of processes on this computer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from glauber.errors import DeviceIOError, InvalidModelError

from glauber_drivers.pool_cluster import package


@dataclass(frozen=True, slots=True)
class LocalPool:
    """A pool that runs.

    Attributes:
        address: for `open_device`, with the ideal simulator on each worker.
        dashboard: its web page, or None.
    """

    address: str
    dashboard: str | None


@contextmanager
def local_pool(workers: int, threads: int, port: int, *, dashboard: bool) -> Iterator[LocalPool]:
    """A scheduler on 127.0.0.1 and its workers, each a process; all end with the block.

    Args:
        workers: processes.
        threads: that each computes with.
        port: of the scheduler; 0 takes any.
        dashboard: whether Dask's web page is served, on 127.0.0.1:8787 or the next free port.

    Raises:
        DeviceNotFoundError: Dask is not installed.
        InvalidModelError: a number that makes no sense.
        DeviceIOError: the port is taken, or a process does not start.
    """
    for name, value, lowest, highest in (("workers", workers, 1, 1024), ("threads", threads, 1, 256)):
        if not lowest <= value <= highest:
            raise InvalidModelError(f"--{name} must be {lowest} to {highest}, not {value}")
    if not 0 <= port <= 65535:
        raise InvalidModelError(f"--port must be 0 to 65535, not {port}")
    distributed: Any = package("distributed")
    try:
        socket.create_server(("127.0.0.1", port)).close()  # Dask leaves processes behind where it finds the port taken
        cluster = distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=threads,
            processes=True,
            host="127.0.0.1",
            scheduler_port=port,
            # there is a web server in any case, which without an address would listen to everybody
            dashboard_address="127.0.0.1:8787" if dashboard else "127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": dashboard},
        )
    except (OSError, RuntimeError, TimeoutError) as error:
        raise DeviceIOError(f"no pool could be started on 127.0.0.1:{port}: {error}; try another --port") from error
    with cluster:
        where = cluster.scheduler_address.partition("://")[2]
        yield LocalPool(f"dask://{where}?device=sim://ideal", cluster.dashboard_link if dashboard else None)
