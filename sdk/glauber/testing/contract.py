"""What every device must do, as clauses that anybody can run on any device.

In pytest, for the tests of a driver:

    class TestMyBoard(glauber.testing.DriverContract):
        address = "myboard:///dev/ttyACM0"

In a program, or on the command line by `glauber conformance ADDRESS`:

    report = run_contract(lambda: gl.open_device("myboard:///dev/ttyACM0"))
    assert report.passed, report.failed
"""

from __future__ import annotations

import platform
import unittest
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np

from glauber.device import Device
from glauber.driver import Wrap
from glauber.errors import DeviceNotFoundError
from glauber.spec import summary_rows
from glauber.testing.contract_acceptance import AcceptanceClauses
from glauber.testing.contract_bench import BenchState, Effort
from glauber.testing.contract_jobs import JobClauses
from glauber.testing.contract_laws import LawClauses
from glauber.testing.contract_meaning import MeaningClauses
from glauber.testing.contract_report import ClauseResult, ContractReport


class DriverContract(MeaningClauses, LawClauses, AcceptanceClauses, JobClauses):
    """A class of tests: one clause a method. Derive from it, name it Test..., and say which device.

    Clauses that the device's capabilities rule out are skipped with the reason. Statistical ones fail a right device
    with probability 1e-6 each, the acceptance of the whole device with 1e-5, and state with which power they would
    notice faults of named sizes. The clauses share one open device; under pytest-xdist, say `--dist loadscope` where a
    board can be opened once only.

    Attributes:
        address: of the device; or override `open`.
        effort: "full", or "quick" with a fifth of the samples and less power.
        samples: of the larger law clauses, in place of the effort's 20,000 or 4,000.
        time_limit: seconds that one law test may sample for; slower devices draw fewer samples, with less power.
        power_runs: simulated devices for each fault, to measure the power of the acceptance; 0 states it by formula, or
            as it was measured before.
        cancel_seconds: within which a cancelled job must end, and close() return.
        patience: seconds that any one job may take.
    """


def clauses(contract: type[DriverContract]) -> list[str]:
    """The names of a contract's clauses, in the order in which they are run: meaning, laws, acceptance, jobs."""
    found: list[str] = []
    for base in (MeaningClauses, LawClauses, AcceptanceClauses, JobClauses, *reversed(contract.__mro__)):
        for name, member in vars(base).items():
            if getattr(member, "is_clause", False) and name not in found:
                found.append(name)
    return found


def run_contract(
    open_device: Callable[[], Device],
    *,
    effort: Effort = "full",
    samples: int | None = None,
    time_limit: float | None = None,
    power_runs: int = 0,
    only: Collection[str] = (),
    stop_at_first: bool = False,
    open_wrapped: Callable[[Wrap], Device] | None = None,
    on_clause: Callable[[int, int, str], None] | None = None,
    contract: type[DriverContract] = DriverContract,
) -> ContractReport:
    """Run the clauses on a device.

    Args:
        open_device: opens a fresh device; called again where a clause closes it, never while one is open.
        effort: see DriverContract.
        samples: see DriverContract.
        time_limit: see DriverContract.
        power_runs: see DriverContract.
        only: names of clauses, without "test_"; empty for all.
        stop_at_first: end with the first clause that fails.
        open_wrapped: opens it with middleware around its transport, for the clause that breaks the link.
        on_clause: called before each clause with its number from 0, how many there are, and its name.
        contract: a class with further clauses, or other limits.

    Raises:
        DeviceNotFoundError: it cannot be opened the first time.
        ValueError: `only` has a name that is no clause.
    """
    chosen = _Chosen(open_device, open_wrapped)
    limits: dict[str, Any] = {"effort": effort, "samples": samples, "power_runs": power_runs}
    if time_limit is not None:
        limits["time_limit"] = time_limit
    made: type[DriverContract] = type(contract.__name__, (contract,), {**chosen.hooks(), **limits})
    made._state = state = BenchState()
    names = clauses(made)
    unknown = set(only) - {name.removeprefix("test_") for name in names}
    if unknown:
        raise ValueError(f"no such clause: {', '.join(sorted(unknown))}")
    names = [name for name in names if not only or name.removeprefix("test_") in only]
    instance = made()
    device = instance.device
    address, spec = device.address, device.spec
    try:
        for number, name in enumerate(names):
            if on_clause is not None:
                on_clause(number, len(names), name.removeprefix("test_"))
            with suppress(unittest.SkipTest, Exception):
                getattr(instance, name)()
            if stop_at_first and state.results[-1].outcome == "failed":
                break
    finally:
        instance.let_go()
    results: list[ClauseResult] = state.results
    return ContractReport(
        address=address,
        device=spec.name,
        spec=summary_rows(spec),
        spec_hash=spec.spec_hash,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"glauber": version("glauber"), "numpy": np.__version__, "python": platform.python_version()},
        computer=f"{platform.machine()}, {platform.system()} {platform.release()}",
        effort=effort,
        results=results,
        acceptance=state.acceptance,
    )


class _Chosen:
    """The two ways of opening, as methods for a class."""

    def __init__(self, fresh: Callable[[], Device], wrapped: Callable[[Wrap], Device] | None) -> None:
        self._fresh, self._wrapped = fresh, wrapped

    def hooks(self) -> dict[str, Callable[..., Device]]:
        """Methods of a contract."""

        def through(_: object, wrap: Wrap) -> Device:
            if self._wrapped is None:
                raise DeviceNotFoundError("the contract was not told how to put middleware around a transport")
            return self._wrapped(wrap)

        return {"open": lambda _: self._fresh(), "open_wrapped": through}
