"""What all clauses of the driver contract stand on: the device, sizes that suit it, jobs, and how a clause reports."""

from __future__ import annotations

import functools
import threading
import time
import unittest
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from glauber.device import Device, open_device
from glauber.driver import Wrap
from glauber.errors import GlauberError, InvalidModelError, JobFailedError, ModelNotSupportedError
from glauber.model import IsingModel
from glauber.samples import SampleSet
from glauber.schedule import AnnealingSchedule, SamplingSchedule, Schedule
from glauber.spec import AnySpec
from glauber.testing.acceptance.report import AcceptanceReport
from glauber.testing.contract_models import Patch, Scale, patch, programmed_model
from glauber.testing.contract_report import ClauseResult
from glauber.testing.exact import ExactLaw
from glauber.testing.power import memory

ALPHA = 1e-6
"""Of every statistical clause: a right device fails one run of the contract in about a hundred thousand."""
Effort = Literal["quick", "full"]
DEFAULT_SAMPLES: dict[Effort, int] = {"quick": 4_000, "full": 20_000}
LARGEST_WARMUP = 2**40

Contract = TypeVar("Contract", bound="ContractBench")


def require(condition: object, message: str) -> None:
    """Fail the clause unless the condition holds."""
    if not condition:
        raise AssertionError(message)


def skip(reason: str) -> NoReturn:
    """Skip the clause; unittest's exception is understood by pytest as well."""
    raise unittest.SkipTest(reason)


def explained(error: BaseException) -> str:
    """What a clause's failure says."""
    if isinstance(error, AssertionError):
        return str(error)
    cause = error.__cause__
    if isinstance(error, JobFailedError) and cause is not None and not isinstance(cause, GlauberError):
        return f"the driver raised {cause!r}; whatever goes wrong in it must be one of glauber.errors"
    return f"{type(error).__name__}: {error}"


def clause(check: Callable[[Contract], None]) -> Callable[[Contract], None]:
    """Make a method a clause: its result is kept, and a device that failed is opened anew for the next one."""

    @functools.wraps(check)
    def run(self: Contract) -> None:
        result = ClauseResult(check.__name__.removeprefix("test_"), " ".join((check.__doc__ or "").split()))
        state = self.bench_state()
        state.current = result
        state.results.append(result)
        began = time.perf_counter()
        try:
            check(self)
        except unittest.SkipTest as error:
            result.outcome, result.reason = "skipped", str(error)
            raise
        except BaseException as error:
            result.outcome, result.reason = "failed", explained(error)
            self.let_go()
            raise
        finally:
            result.seconds = time.perf_counter() - began

    run.is_clause = True  # type: ignore[attr-defined]
    return run


class BenchState:
    """What the clauses of one contract share: the open device and what was measured of it."""

    def __init__(self) -> None:
        self.device: Device | None = None
        self.results: list[ClauseResult] = []
        self.current = ClauseResult("", "")
        self.kept: dict[str, Any] = {}
        self.acceptance: AcceptanceReport | None = None


class ContractBench:
    """See DriverContract, which adds the clauses."""

    address: ClassVar[str] = ""
    effort: ClassVar[Effort] = "full"
    samples: ClassVar[int | None] = None
    time_limit: ClassVar[float] = 60.0
    power_runs: ClassVar[int] = 0
    cancel_seconds: ClassVar[float] = 5.0
    patience: ClassVar[float] = 300.0

    _state: ClassVar[BenchState | None] = None

    # Opening and closing

    def open(self) -> Device:
        """A fresh device; at most one is open at a time. Overridden by contracts without an address."""
        if not self.address:
            raise NotImplementedError(f"{type(self).__name__} needs an `address`, or an open() that returns a Device")
        return open_device(self.address)

    def open_wrapped(self, wrap: Wrap) -> Device:
        """A fresh device whose transport goes through the middleware.

        Raises:
            DeviceNotFoundError: it has no transport.
        """
        if not self.address:
            skip("the contract knows no address, so nothing can be put between driver and board")
        return open_device(self.address, wrap=wrap)

    @classmethod
    def setup_class(cls) -> None:
        """Called by pytest before the first clause."""
        cls._state = BenchState()

    @classmethod
    def teardown_class(cls) -> None:
        """Called by pytest after the last clause."""
        cls().let_go()

    @classmethod
    def bench_state(cls) -> BenchState:
        """What the clauses share."""
        if cls._state is None or "_state" not in vars(cls):
            cls._state = BenchState()
        return cls._state

    @property
    def device(self) -> Device:
        """The device, opened on first use and after a clause that failed."""
        state = self.bench_state()
        if state.device is None:
            state.device = self.open()
        return state.device

    def let_go(self) -> bool:
        """Close the device; whether it could be done in time. One that hangs is left behind."""
        state = self.bench_state()
        device, state.device = state.device, None
        return device is None or self.closed_in_time(device)

    def closed_in_time(self, device: Device, **arguments: Any) -> bool:
        """Whether close() returned within `cancel_seconds`, plus what a driver may need; raises what it raises."""
        raised: list[BaseException] = []

        def close() -> None:
            try:
                device.close(**arguments)
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=close, daemon=True)
        thread.start()
        thread.join(self.cancel_seconds)
        if raised and self.bench_state().device is device:
            raise raised[0]
        return not thread.is_alive() and not raised

    # What the device is

    @property
    def spec(self) -> AnySpec:
        """Of the device."""
        return self.device.spec

    @property
    def scale(self) -> Scale:
        """Coefficients and temperatures that suit it."""
        return Scale.of(self.spec)

    def need_sampler(self) -> None:
        """Skip unless it draws from the Boltzmann law at a temperature that it is told."""
        able = self.spec.capabilities
        self.need_graph()
        if not able.sampler:
            skip("the device is an optimiser and promises no law (capabilities.sampler is False)")
        if able.beta == "none":
            skip("the device cannot be told its temperature (capabilities.beta is none)")

    def need_graph(self) -> None:
        """Skip where nothing can be programmed."""
        if self.spec.topology is None and not self.spec.any_graph:
            skip("the device's graph is not published, so it can be given no model")

    def need_samples(self) -> None:
        """Skip where only last states can be read."""
        if "samples" not in self.spec.capabilities.observables:
            skip('the device returns last states only (capabilities.observables lacks "samples")')

    def need_start(self) -> None:
        """Skip where the device draws its start itself."""
        if not self.spec.capabilities.initial:
            self.skip_incapable("start from given states", "initial")

    def skip_incapable(self, what: str, capability: str) -> NoReturn:
        """Skip what the device's description says it cannot do."""
        skip(f"the device does not {what} (spec: {capability})")

    def keep(self, name: str, make: Callable[[], Any]) -> Any:
        """What is found out once for all clauses."""
        kept = self.bench_state().kept
        if name not in kept:
            kept[name] = make()
        return kept[name]

    @property
    def patch(self) -> Patch:
        """The small model of the law clauses."""
        self.need_graph()
        made: Patch = self.keep("patch", lambda: patch(self.spec, self.scale))
        return made

    # Jobs

    def schedule(
        self, n_samples: int, *, n_chains: int = 1, n_warmup: int = 0, thin: int = 1, beta: float | None = None
    ) -> Schedule:
        """A schedule of so many samples; for an optimiser, an anneal of about as many sweeps."""
        self.need_graph()
        beta = self.scale.beta if beta is None else beta
        if not self.spec.capabilities.sampler:
            sweeps = min(10**7, n_warmup + n_samples * thin)
            return AnnealingSchedule(n_sweeps=sweeps, n_chains=n_chains, beta_start=beta, beta_end=beta, shape="linear")
        return SamplingSchedule(
            n_samples=n_samples, n_chains=n_chains, n_warmup=n_warmup, sweeps_per_sample=thin, beta=beta
        )

    def run(self, model: Any, schedule: Schedule, **arguments: Any) -> SampleSet:
        """Submit and wait; a job that takes longer than `patience` seconds fails the clause."""
        return self.device.submit(model, schedule, **arguments).result(self.patience)

    def chains(self, most: int) -> int:
        """The largest number of chains, up to `most`, that the device takes."""

        def find() -> int:
            for n in (256, 64, 32, 16, 8, 4, 2):
                try:
                    self.device.estimate(self.patch.model, self.schedule(2, n_chains=n), observe="moments")
                    return n
                except (ModelNotSupportedError, InvalidModelError):  # too many for the device, or for this computer
                    continue
            return 1

        return min(most, int(self.keep("chains", find)))

    @property
    def idle_seconds(self) -> float:
        """What a job takes that does next to nothing: the way over a network or a slow link, and back."""

        def once() -> float:
            began = time.perf_counter()
            self.run(self.patch.model, self.schedule(1), observe="last")
            return time.perf_counter() - began

        return float(self.keep("seconds of an idle job", lambda: min(once() for _ in range(3))))

    def sweeps_for(self, seconds: float) -> int:
        """Sweeps of one chain that take about as long; never fewer, at most LARGEST_WARMUP."""

        def once(sweeps: int) -> float:
            began = time.perf_counter()
            self.run(self.patch.model, self.schedule(1, n_warmup=sweeps), observe="last")
            return time.perf_counter() - began

        def measure() -> float:
            sweeps, elapsed = 64, 0.0
            idle = self.idle_seconds
            while sweeps < 2**28:
                try:
                    elapsed = once(sweeps) - idle
                    if elapsed > 0.05:  # again: a stall of this computer must not pass for a slow device
                        elapsed = min(elapsed, once(sweeps) - idle)
                except ModelNotSupportedError:
                    break
                if elapsed > 0.05:
                    break
                sweeps *= 8
            return sweeps / max(elapsed, 1e-3)

        return max(1, min(LARGEST_WARMUP, int(seconds * self.keep("sweeps per second", measure))))

    def affordable(
        self, wanted: int, *, thin: int, model: IsingModel | None = None, share: float = 1.0, beta: float | None = None
    ) -> int:
        """Samples that a share of the time limit allows, 200 to `wanted`; measured once for each thinning."""
        model = self.patch.model if model is None else model

        def measure() -> float:
            chains, times = self.chains(16), []
            for n in (4, 24):
                began = time.perf_counter()
                schedule = self.schedule(
                    n if self._has_samples else 1, n_chains=chains, n_warmup=1, thin=thin, beta=beta
                )
                self.run(model, schedule, observe="samples" if self._has_samples else "last")
                times.append(time.perf_counter() - began)
            return max(1e-9, times[1] - times[0]) / (20 * chains) if self._has_samples else times[1] / chains

        each = float(self.keep(f"seconds per sample, thinned by {thin}, {model.n_sites} sites", measure))
        return max(200, min(wanted, int(share * self.time_limit / each)))

    @property
    def _has_samples(self) -> bool:
        return "samples" in self.spec.capabilities.observables

    @property
    def wanted_samples(self) -> int:
        """Of a law clause."""
        return DEFAULT_SAMPLES[self.effort] if self.samples is None else self.samples

    def draw(
        self, model: IsingModel, n: int, *, thin: int, beta: float | None = None, chains: int = 32, **arguments: Any
    ) -> tuple[NDArray[np.int8], SampleSet]:
        """About n nearly independent states, (chains, samples, n_sites), after a warm-up of three thinnings."""
        chains = self.chains(chains)
        if self._has_samples:
            schedule = self.schedule(-(-n // chains), n_chains=chains, n_warmup=3 * thin, thin=thin, beta=beta)
            result = self.run(model, schedule, **arguments)
            return result.spins, result
        schedule = self.schedule(1, n_chains=chains, n_warmup=3 * thin, beta=beta)
        results = [self.run(model, schedule, observe="last", **arguments) for _ in range(-(-n // chains))]
        return np.stack([result.last for result in results], axis=1), results[-1]

    def programmed(self, result: SampleSet, fields: NDArray[np.float64] | None = None) -> IsingModel:
        """The model that the device holds after quantisation, with a job's own fields where it brought some."""
        model = programmed_model(result, self.spec)
        return model if fields is None else model.replace(fields=fields)

    def thinning(self, law: ExactLaw) -> int:
        """Sweeps after which less than 1e-3 of any correlation is left, with half as many again for other orders."""
        left = memory(law)
        return max(1, int(np.ceil(1.5 * np.log(1e-3) / np.log(left)))) if left > 1e-3 else 2

    # Reporting

    def statistical(self, p_value: float, power: dict[str, float], samples: int, what: str, *, tests: int = 1) -> None:
        """Report one of `tests` tests that share ALPHA, and fail the clause if it falls below its share.

        The power is to be that at ALPHA / tests; where several tests state one for the same fault, the least counts.
        """
        p_value = min(1.0, p_value * tests)
        result = self.bench_state().current
        result.alpha = ALPHA
        result.p_value = p_value if result.p_value is None else min(result.p_value, p_value)
        result.samples = samples + (result.samples or 0)
        for fault, value in power.items():
            result.power[fault] = min(value, result.power.get(fault, 1.0))
        require(p_value > ALPHA, f"{what}: a right device would do this with probability {p_value:.2g} at most")

    def note(self, text: str) -> None:
        """Say in the report what was looked at."""
        result = self.bench_state().current
        result.reason = f"{result.reason}; {text}" if result.reason else text
