"""The contract's clauses about jobs: refusals, cancelling, closing, threads, order, budgets, provenance, links."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glauber.driver import EnergyCounter
from glauber.errors import (
    DeviceClosedError,
    DeviceIOError,
    DeviceNotFoundError,
    GlauberError,
    InvalidModelError,
    JobCancelledError,
    JobTimeoutError,
    ModelNotSupportedError,
)
from glauber.job import Job, JobStatus
from glauber.model import IsingModel, PottsModel
from glauber.request import Budget
from glauber.schedule import SamplingSchedule
from glauber.testing.contract_bench import ContractBench, clause, require, skip
from glauber.testing.contract_models import device_edges
from glauber.testing.link_faults import LinkFaults


class JobClauses(ContractBench):
    """Clauses about what happens around sampling."""

    def _right(self, pattern: int = 0b1011) -> None:
        """The device works: strong fields give their own signs. A wrong device passes by chance once in 10^9."""
        model, n, signs = self._signed(pattern)
        states, _ = self.draw(model, n, thin=1, beta=self.scale.strong_beta, chains=8)
        self._agrees(states, signs)

    def _signed(self, pattern: int) -> tuple[IsingModel, int, NDArray[np.int64]]:
        patch = self.patch
        signs = np.array([1 if pattern >> k & 1 else -1 for k in range(len(patch.sites))])
        h = np.zeros(patch.model.n_sites)
        h[patch.sites] = signs * self.scale.unit
        return patch.model.replace(fields=h, couplings=np.zeros(patch.model.n_edges)), 96, signs

    def _agrees(self, states: NDArray[np.int8], signs: NDArray[np.int64]) -> None:
        if not self.spec.capabilities.sampler or np.tanh(self.scale.strong_beta * self.scale.unit) < 0.5:
            return  # then that the job ran must do
        mean = (self.patch.states(states) * signs).mean(axis=0)
        require(
            (mean > 0).all(), f"spins do not point along their fields of {signs.tolist()}: {mean.round(2).tolist()}"
        )

    @contextmanager
    def _raises(self, what: str, *kinds: type[BaseException]) -> Iterator[None]:
        wanted = " or ".join(kind.__name__ for kind in kinds)
        try:
            yield
        except kinds:
            return
        except Exception as error:
            raise AssertionError(f"{what} raised {error!r}, and {wanted} is documented") from error
        raise AssertionError(f"{what} was accepted, and {wanted} is documented")

    def _long(self, seconds: float = 60.0, **arguments: Any) -> Job:
        """A job that takes about so many seconds, all of them before its first sample; it is running."""
        job = self.device.submit(
            self.patch.model, self.schedule(1, n_warmup=self.sweeps_for(seconds)), observe="last", **arguments
        )
        self._await(lambda: job.status is not JobStatus.QUEUED, "the job did not start")
        return job

    def _await(self, condition: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + self.patience
        while not condition():
            require(time.monotonic() < deadline, f"{otherwise} within {self.patience:g} s")
            time.sleep(0.001)

    # Refusals

    @clause
    def test_refuses_what_it_cannot_do(self) -> None:
        """What the description rules out is refused by a ModelNotSupportedError before anything is queued."""
        self.need_graph()
        spec, able, model = self.spec, self.spec.capabilities, self.patch.model
        short, tried = self.schedule(2, n_chains=2), []
        refused: dict[str, Callable[[], object]] = {}
        if spec.n_sites is not None and spec.n_sites < 2**20:
            large = IsingModel(np.zeros(spec.n_sites + 1), [], [])
            refused[f"a model of {spec.n_sites + 1} sites"] = lambda: self.device.submit(large, short)
        missing = self._missing_edge()
        if missing is not None:
            apart = IsingModel(np.zeros(missing[1] + 1), [missing], [self.scale.unit])
            refused[f"the coupling {missing[0]}-{missing[1]} that the graph lacks"] = lambda: self.device.submit(
                apart, short
            )
        if not able.clamp:
            refused["a clamp"] = lambda: self.device.submit(model, short, clamp={0: 1})
        if not able.chain_fields:
            rows = np.zeros((2, model.n_sites))
            refused["fields for each chain"] = lambda: self.device.submit(model, short, fields=rows)
        if able.potts_states < 3:
            potts = PottsModel(np.zeros((1, 3)), [], [])
            refused["a Potts model"] = lambda: self.device.submit(potts, short)
        if not able.sampler:
            refused["sampling"] = lambda: self.device.submit(model, SamplingSchedule(n_samples=2, n_chains=2))
        elif able.beta_range is not None and able.beta == "programmable":
            hot = SamplingSchedule(n_samples=2, n_chains=2, beta=2 * able.beta_range[1] + 1)
            refused[f"beta = {hot.beta:g}"] = lambda: self.device.submit(model, hot)
        if spec.coefficients.weight_range is not None and model.n_edges:
            over = model.replace(couplings=model.couplings * 3 * spec.coefficients.weight_range / self.scale.unit / 0.9)
            refused["a coupling out of range"] = lambda: self.device.submit(over, short)
        for what, act in refused.items():
            with self._raises(what, ModelNotSupportedError):
                act()
            tried.append(what)
        self._right()
        self.note("refused: " + "; ".join(tried) if tried else "the description rules nothing out")

    def _missing_edge(self) -> tuple[int, int] | None:
        if self.spec.topology is None:
            return None
        known = {tuple(edge) for edge in device_edges(self.spec).tolist()}
        n = min(self.spec.topology.n_sites, 256)
        return next((pair for pair in itertools.combinations(range(n), 2) if pair not in known), None)

    @clause
    def test_bad_input_is_refused(self) -> None:
        """Wrong arguments get their typed error in submit, and the device works after each."""
        self.need_graph()
        model, n = self.patch.model, self.patch.model.n_sites
        short = self.schedule(2, n_chains=2)
        cases: dict[str, dict[str, Any]] = {
            "a seed of -1": {"seed": -1},
            "a seed of 2^64": {"seed": 2**64},
            "a seed of 1.5": {"seed": 1.5},
            "a clamp of a site that does not exist": {"clamp": {n: 1}},
            "a clamp to 0": {"clamp": {0: 0}},
            "two clamps of one site": {"clamp": [(0, 1), (0, -1)]},
            "a clamp against the start": {"clamp": {0: 1}, "initial": -np.ones(n, dtype=int)},
            "a start of zeros": {"initial": np.zeros(n, dtype=int)},
            "a start of another size": {"initial": np.ones(n + 1, dtype=int)},
            "fields of NaN": {"fields": np.full(n, np.nan)},
            "fields of another size": {"fields": np.zeros(n + 1)},
            "an unknown observable": {"observe": {"spins"}},
            "nothing to observe": {"observe": set()},
            "a number as a budget": {"budget": 5},
            "a priority of 0.5": {"priority": 0.5},
        }
        for what, arguments in cases.items():
            with self._raises(what, InvalidModelError):
                self.device.submit(model, short, **arguments)
        if self.spec.capabilities.sampler:
            with self._raises("more samples than there is memory for", InvalidModelError, ModelNotSupportedError):
                self.device.submit(model, self.schedule(2**40, n_chains=2**20))
        with self._raises("a list in place of a model", InvalidModelError):
            self.device.submit([[0, 1]], short)  # type: ignore[arg-type]
        self._right()

    @clause
    def test_estimate_leaves_the_machine_alone(self) -> None:
        """Asking what another job would take changes nothing in the one that runs, and does not wait for it."""
        self.need_graph()
        model, n, signs = self._signed(0b0110)
        self.sweeps_for(1.0)
        job = self._long(1.0)
        began = time.perf_counter()
        for k in range(5):
            estimate = self.device.estimate(self.patch.model, self.schedule(10 + k, n_chains=2))
            require(estimate.updates > 0, "an estimate says that a job takes no update")
        seconds = time.perf_counter() - began
        waited = job.done() and seconds > 0.5
        job.ask_to_cancel()
        job.wait(self.patience)
        require(not waited, f"five estimates took {seconds:.2f} s, as long as the job that was running")
        running = self.device.submit(
            model, self.schedule(n, n_chains=1, beta=self.scale.strong_beta), observe="samples"
        )
        for k in range(5):
            self.device.estimate(self.patch.model, self.schedule(10 + k))
        self._agrees(running.result(self.patience).spins, signs)

    # Stopping

    @clause
    def test_cancel(self) -> None:
        """A running job that is cancelled ends soon and has no result; the next job is right."""
        self.need_graph()
        job = self._long()
        time.sleep(0.05)
        job.cancel()
        require(
            job.wait(self.cancel_seconds), f"a cancelled job was {job.status.value} {self.cancel_seconds:g} s later"
        )
        require(
            job.status is JobStatus.CANCELLED, f"a job of about 60 s that was cancelled at once is {job.status.value}"
        )
        with self._raises("the result of a cancelled job", JobCancelledError):
            job.result(0)
        self._right()
        waiting = [self._long(), self.device.submit(self.patch.model, self.schedule(1))]
        waiting[1].cancel()
        require(waiting[1].wait(self.cancel_seconds), "a queued job that was cancelled waits for the one before it")
        waiting[0].ask_to_cancel()
        require(waiting[0].wait(self.cancel_seconds), "the job before it did not end")

    @clause
    def test_cancel_keeps_what_was_drawn(self) -> None:
        """With partial=True, a job that is cancelled has the samples drawn so far, and they are whole."""
        self.need_sampler()
        self.need_samples()
        thin = max(1, self.sweeps_for(0.1))
        schedule = self.schedule(600, n_chains=1, thin=thin)
        job = self.device.submit(self.patch.model, schedule, partial=True, observe={"samples", "moments"})
        self._await(lambda: job.done() or job.progress.samples_done >= 2, "there were no two samples")
        job.ask_to_cancel()
        require(
            job.wait(self.cancel_seconds), f"the job was {job.status.value} {self.cancel_seconds:g} s after cancel()"
        )
        require(job.status is JobStatus.CANCELLED, f"the job is {job.status.value}")
        result = job.result(0)
        n = result.n_samples
        require(2 <= n < 600, f"{n} samples of 600 were kept, though at least 2 had come")
        require(result.spins.shape == (1, n, self.patch.model.n_sites), f"their shape is {result.spins.shape}")
        assert result.moments is not None
        counted = result.spins.sum(axis=1)
        require(np.array_equal(result.moments.sites, counted), "the moments are not those of the kept samples")

    @clause
    def test_result_times_out(self) -> None:
        """result(timeout) raises JobTimeoutError when the time is over, and the job goes on to its end."""
        self.need_graph()
        job = self._long(0.3)
        if not job.done():
            with self._raises("result(0)", JobTimeoutError):
                job.result(0)
        require(job.result(self.patience).n_samples == 1, "the job that went on has not its one sample")
        require(job.status is JobStatus.DONE, f"the job that went on is {job.status.value}")

    @clause
    def test_close(self) -> None:
        """Closing works twice, while a job runs, and in time; later jobs get DeviceClosedError; reopening works."""
        self.need_graph()
        device, job = self.device, self._long()
        require(self.closed_in_time(device), f"close() took longer than {self.cancel_seconds:g} s while a job ran")
        require(job.wait(self.cancel_seconds), "the job that ran is not over after close()")
        require(job.status is JobStatus.CANCELLED, f"the job that ran when the device was closed is {job.status.value}")
        require(self.closed_in_time(device), "the second close() did not return")
        with self._raises("submit after close", DeviceClosedError):
            device.submit(self.patch.model, self.schedule(1))
        self.bench_state().device = None
        self._right()

    # Queue

    @clause
    def test_jobs_from_several_threads(self) -> None:
        """Jobs submitted from several threads at once are all right, each with its own program's result."""
        self.need_sampler()
        self.need_samples()
        n_jobs = 6 if self.effort == "quick" else 16

        def one(pattern: int) -> None:
            model, n, signs = self._signed(37 * pattern + 5)
            schedule = self.schedule(n, n_chains=1, n_warmup=1, beta=self.scale.strong_beta)
            self._agrees(self.run(model, schedule, seed=pattern).spins, signs)

        self.device.estimate(self.patch.model, self.schedule(1))  # what is measured once is measured now
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(one, range(n_jobs)))

    @clause
    def test_order_of_jobs(self) -> None:
        """Jobs run by priority, and in the order of their submission within one."""
        self.need_graph()
        ended: list[str] = []
        lock = threading.Lock()

        def note(name: str) -> Callable[[Job], None]:
            def done(_: Job) -> None:
                with lock:
                    ended.append(name)

            return done

        first = self._long(max(0.3, 40 * self.idle_seconds))  # time for four submissions, whatever the way there takes
        jobs = []
        for name, priority in (("a", 0), ("b", 0), ("urgent", 5), ("c", 0)):
            jobs.append(self.device.submit(self.patch.model, self.schedule(1), observe="last", priority=priority))
            jobs[-1].add_done_callback(note(name))
        if first.done():
            skip("the device was too quick for a queue to form")
        for job in jobs:
            job.result(self.patience)
        self._await(lambda: len(ended) == 4, "not all jobs called back")
        require(ended == ["urgent", "a", "b", "c"], f"jobs a, b, urgent (priority 5), c ended as {', '.join(ended)}")

    @clause
    def test_progress(self) -> None:
        """Progress never goes back, and ends where the schedule does."""
        self.need_graph()
        schedule = self.schedule(1, n_warmup=self.sweeps_for(0.3))
        job = self.device.submit(self.patch.model, schedule, observe="last")
        seen = [progress.sweeps_done for progress in job.watch()]
        job.result(self.patience)
        require(seen == sorted(seen), "the number of sweeps done went back")
        require(seen[-1] == schedule.n_sweeps, f"{seen[-1]} of {schedule.n_sweeps} sweeps were done at the end")

    @clause
    def test_budget(self) -> None:
        """A job ends when its seconds or sweeps are spent, says so, and keeps what was drawn."""
        self.need_sampler()
        self.need_samples()
        result = self.run(self.patch.model, self.schedule(10, n_warmup=2, thin=3), budget=Budget(sweeps=12))
        got = (result.n_samples, result.provenance.stopped_by)
        require(
            got == (3, "sweeps"), f"12 sweeps pay for 2 of warm-up and 3 samples every 3; (samples, reason) is {got}"
        )
        schedule = self.schedule(3000, thin=max(1, self.sweeps_for(0.02)))
        began = time.perf_counter()
        result = self.run(self.patch.model, schedule, budget=Budget(seconds=0.5))
        seconds = time.perf_counter() - began
        require(result.provenance.stopped_by == "seconds", f"stopped_by is {result.provenance.stopped_by!r}")
        require(seconds < 0.5 + self.cancel_seconds, f"a budget of 0.5 s ended after {seconds:.2f} s")
        n = result.n_samples
        require(1 <= n < 3000, f"{n} samples of 3000 were drawn in 0.5 s of about 60 s")

    @clause
    def test_provenance(self) -> None:
        """A result says by which device, seed and description it was made, and what computed it."""
        schedule = self.schedule(3, n_chains=2, n_warmup=1)
        result = self.run(self.patch.model, schedule, seed=5, observe="last")
        about = result.provenance
        expected = {
            "address": self.device.address,
            "device": self.spec.name,
            "spec_hash": self.spec.spec_hash,
            "seed": 5,
            "n_sweeps": schedule.n_sweeps,
            "stopped_by": None,
        }
        for name, value in expected.items():
            got = getattr(about, name)
            require(got == value, f"provenance.{name} is {got!r}, and {value!r} would be right")
        require(len(about.kernel) > 0, "provenance.kernel is empty: batches should carry facts of what computed them")
        texts = all(isinstance(k, str) and isinstance(v, str) for k, v in about.kernel.items())
        require(texts, "the facts of a batch must be texts")
        require(all(value >= 0 for value in result.timing.values()), f"a phase took negative time: {result.timing}")
        require(about.job_id and about.created, "the job's id or date is missing")

    # The machine around the job

    @clause
    def test_energy_counter(self) -> None:
        """The machine's own counter of joules, where it has one, never goes back, and names its provenance."""
        self.need_graph()
        counter = self.device.energy_counter
        if counter is None:
            skip("the driver has no energy counter (glauber.driver.EnergyCounter)")
        assert isinstance(counter, EnergyCounter)
        known = ("measured", "vendor", "model", "derived", "assumed")
        source = counter.energy_counter_provenance
        require(source in known, f"energy_counter_provenance is {source!r}; it must be one of {', '.join(known)}")
        sweeps = self.sweeps_for(0.03)
        readings = [counter.energy_counter_joules()]
        for _ in range(8):
            self.run(self.patch.model, self.schedule(1, n_warmup=sweeps), observe="last")
            readings.append(counter.energy_counter_joules())
        require(all(np.isfinite(readings)), f"the counter is not finite: {readings}")
        require(readings == sorted(readings), f"the counter goes back: {readings} J between jobs")
        require(readings[-1] > readings[0], f"the counter stands still at {readings[0]:g} J while jobs run")

    @clause
    def test_a_broken_link_is_told(self) -> None:
        """A job whose link breaks is right all the same or fails by DeviceIOError; the next one is right."""
        self.need_sampler()
        self.need_samples()
        faults = LinkFaults(seed=1)
        self.let_go()
        try:
            self.bench_state().device = self.open_wrapped(faults)
        except DeviceNotFoundError as error:
            self.bench_state().device = None
            skip(f"no link to break: {error}")
        self._right()
        for after in (0, 3, 40, 400):
            model, n, signs = self._signed(0b0101 + after)
            faults.break_after(after)
            schedule = self.schedule(n, n_chains=1, n_warmup=1, beta=self.scale.strong_beta)
            try:
                self._agrees(self.run(model, schedule).spins, signs)
            except DeviceIOError:
                pass
            except GlauberError as error:
                raise AssertionError(
                    f"a link that broke after {after} bytes gave {error!r}, not DeviceIOError"
                ) from error
            faults.break_after(None)  # the job may have been shorter
            self._right()
        broken = faults.counts.disconnects
        require(broken > 0, "no byte passed, so no link was broken")
        self.let_go()
        self.note(f"{broken} links broken, {faults.counts.transports} opened")
