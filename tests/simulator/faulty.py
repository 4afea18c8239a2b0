"""Samplers that are wrong in one way each, and the battery of checks that has to tell them from a right one.

docs: statistics standard, "negative controls". A battery that passes a wrong sampler is worth nothing, so it is itself
tested: `test_negative_controls.py` and `python -m benchmarks.mutation_score` run it on every fault below.

Alpha is 1e-6 for each statistical check of the battery and the other checks are exact, so a right sampler fails one run
of the battery in about 200,000. Powers are computed from exact laws in `test_negative_controls.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import glauber as gl
import numpy as np
from glauber.catalogue import load_spec
from glauber.compile import AnyProgram, Program, Run, pack_spins, unpack_spins
from glauber.driver import Batch, Driver
from glauber.errors import InvalidModelError
from glauber.spec import AnySpec
from glauber.testing import ExactLaw, chi_square
from glauber_simulator import core
from glauber_simulator.driver import SimulatorDriver
from glauber_simulator.factory import with_parameters
from numpy.typing import NDArray
from scipy.stats import chi2

ALPHA = 1e-6

# The model under test: twelve frustrated spins with fields and couplings of unlike sizes, on a device of 8 bits.


def _model() -> gl.IsingModel:
    rng = np.random.default_rng(3)
    pairs = np.array(list(itertools.combinations(range(12), 2)))
    edges = pairs[np.sort(rng.choice(len(pairs), 20, replace=False))]
    couplings = rng.choice([-1.0, 1.0], 20) * rng.uniform(0.3, 1.0, 20)
    return gl.IsingModel(rng.normal(size=12) * 0.4, edges, couplings)


MODEL = _model()
BETA = 0.6
CLAMP = {3: 1, 8: -1}
N_SAMPLES = 40_000
"""Of each law check: enough for a power above 0.99 against beta + 5 %, any dead p-bit and any dropped coupling."""
WARMUP = 40
THIN = 20
"""Sweeps after which less than 1e-3 of any correlation is left; see test_negative_controls.py."""
DEAD_SITE = 5
DROPPED_EDGE = 7


def spec() -> AnySpec:
    """What every driver here claims to be: the ideal device with 8 bits."""
    ideal = load_spec("ideal")
    return with_parameters(ideal, {"weight_bits": "8"})


# The battery


@dataclass(frozen=True)
class Check:
    """One verdict of the battery.

    Attributes:
        name: of the check.
        passed: the device looks right.
        p_value: of a statistical check, to be compared with ALPHA; None for an exact one.
    """

    name: str
    passed: bool
    p_value: float | None = None


def _law_check(name: str, states: NDArray[Any], law: ExactLaw) -> Check:
    try:
        counts = law.counts(states)
    except InvalidModelError:  # a state that the clamp forbids
        return Check(name, False, 0.0)
    p_value = chi_square(counts, law.probabilities).p_value
    return Check(name, p_value > ALPHA, p_value)


def _programmed(result: gl.SampleSet) -> Any:
    """The law to hold a device to is that of the model it says it holds."""
    assert result.program is not None
    return result.program.as_model()


def _repeats(device: gl.Device) -> Check:
    """The same seed gives the same states, in another job of the same device."""
    schedule = gl.SamplingSchedule(n_samples=3, n_chains=64, beta=BETA)
    first, second = (device.submit(MODEL, schedule, seed=11).result().packed for _ in range(2))
    return Check("same seed, same samples", np.array_equal(first, second))


def _seeds_matter(device: gl.Device) -> Check:
    """Other seeds give other states, whichever half of the seed differs; so do jobs without one, and chains."""
    schedule = gl.SamplingSchedule(n_samples=3, n_chains=64, beta=BETA)
    seeds = (1, 2, 1 + 2**32, 1 + 2**63, None, None)
    seen = [device.submit(MODEL, schedule, seed=seed).result().states for seed in seeds]
    # 2,304 spins agree by chance with probability below 2^-100, and so do 64 chains' 36 spins pairwise
    jobs = all(not np.array_equal(a, b) for a, b in itertools.combinations(seen, 2))
    chains = np.unique(seen[0].reshape(64, -1), axis=0)
    return Check("other seed, other samples", jobs and len(chains) == 64)


def _last_is_last(device: gl.Device) -> Check:
    """The last state is the last sample, not the best one."""
    schedule = gl.SamplingSchedule(n_samples=20, n_chains=64, beta=BETA)
    result = device.submit(MODEL, schedule, observe={"samples", "last"}).result()
    return Check("last state is the last sample", np.array_equal(result.last, result.states[:, -1]))


def _coins(device: gl.Device, n_chains: int, n_samples: int) -> Check:
    """With all couplings zero every spin of every sweep is a fair coin: means, lags, sites and chains uncorrelated.

    Each z is a sum of products of different coins over its standard deviation; they are uncorrelated among each other
    and normal to good accuracy, so the sum of their squares is chi-square.
    """
    blank = MODEL.replace(fields=np.zeros(12), couplings=np.zeros(20))
    schedule = gl.SamplingSchedule(n_samples=n_samples, n_chains=n_chains)
    s = device.submit(blank, schedule).result().states.astype(np.float32)
    a, b = np.triu_indices(12, 1)
    z = [s.sum(axis=(0, 1)) / np.sqrt(n_chains * n_samples)]
    for lag in (1, 2, 3):
        z.append((s[:, lag:] * s[:, :-lag]).sum(axis=(0, 1)) / np.sqrt(n_chains * (n_samples - lag)))
    flat = s.reshape(-1, 12)
    z.append((flat.T @ flat)[a, b] / np.sqrt(len(flat)))
    later, sooner = s[:, 1:].reshape(-1, 12), s[:, :-1].reshape(-1, 12)
    z.append((later.T @ sooner)[~np.eye(12, dtype=bool)] / np.sqrt(len(later)))
    z.append((s[1:] * s[:-1]).sum(axis=(0, 1)) / np.sqrt((n_chains - 1) * n_samples))
    values = np.concatenate(z).astype(np.float64)
    p_value = float(chi2.sf((values**2).sum(), len(values)))
    return Check(f"fair, independent coins, {n_chains} chains", p_value > ALPHA, p_value)


def _law_of_last(device: gl.Device) -> Check:
    """One state of each of many chains: independent by construction."""
    schedule = gl.SamplingSchedule(n_samples=1, n_chains=N_SAMPLES, n_warmup=WARMUP, beta=BETA)
    result = device.submit(MODEL, schedule, observe="last").result()
    return _law_check("law of last states", result.last, ExactLaw(_programmed(result), BETA))


def _law_of_samples(device: gl.Device) -> Check:
    """Thinned samples of fewer chains."""
    schedule = gl.SamplingSchedule(
        n_samples=N_SAMPLES // 100, n_chains=100, n_warmup=WARMUP, sweeps_per_sample=THIN, beta=BETA
    )
    result = device.submit(MODEL, schedule).result()
    return _law_check("law of thinned samples", result.states, ExactLaw(_programmed(result), BETA))


def _law_under_clamp(device: gl.Device) -> Check:
    """Two spins held, the others conditioned on them."""
    schedule = gl.SamplingSchedule(n_samples=1, n_chains=N_SAMPLES, n_warmup=WARMUP, beta=BETA)
    result = device.submit(MODEL, schedule, clamp=CLAMP, observe="last").result()
    law = ExactLaw(_programmed(result), BETA, tuple(CLAMP.items()))
    return _law_check("law under a clamp", result.last, law)


BATTERY: tuple[Callable[[gl.Device], Check], ...] = (
    _repeats,
    _seeds_matter,
    _last_is_last,
    lambda device: _coins(device, 4, 4000),
    lambda device: _coins(device, 64, 250),
    _law_of_last,
    _law_under_clamp,
    _law_of_samples,
)


def examine(driver: Driver, *, stop_at_first: bool = False) -> list[Check]:
    """The battery on a device made of this driver; stop_at_first ends it with the first check that fails."""
    verdicts = []
    with gl.Device(driver, seed=2024) as device:
        for check in BATTERY:
            verdicts.append(check(device))
            if stop_at_first and not verdicts[-1].passed:
                break
    return verdicts


# Right samplers: the simulator, and one that shares no code with it


class Wrapped:
    """The simulator, passed on as it is. Faults override one method."""

    def __init__(self) -> None:
        self._inner = SimulatorDriver(spec())
        self._program: Program | None = None

    @property
    def spec(self) -> AnySpec:
        return self._inner.spec

    def program(self, program: AnyProgram) -> None:
        assert isinstance(program, Program)
        self._program = program
        self._inner.program(program)

    def run(self, run: Run) -> Iterator[Batch]:
        yield from self._inner.run(run)

    def admit(self, run: Run, program: AnyProgram) -> int:
        return self._inner.admit(run, program)

    def close(self) -> None:
        self._inner.close()


class NumpySampler(Wrapped):
    """Heat bath in floating point with numpy's Philox: right, but by other arithmetic and other random numbers.

    It carries the faults that need an update rule of their own, and it passes the battery, so that what kills them is
    the fault and not the sampler.
    """

    def groups(self, program: Program) -> list[NDArray[np.int32]]:
        """Sites that are updated together, in order: the colours."""
        starts = program.order.colour_start.tolist()
        return [program.order.site[begin:end] for begin, end in itertools.pairwise(starts)]

    def uniforms(self, rng: np.random.Generator, n_chains: int, sites: NDArray[np.int32]) -> NDArray[np.float32]:
        return rng.random((n_chains, len(sites)), dtype=np.float32)

    def run(self, run: Run) -> Iterator[Batch]:
        program = self._program
        assert program is not None
        n, rng = program.n_sites, np.random.Generator(np.random.Philox(key=run.seed))
        weights = np.zeros((n, n), dtype=np.float32)
        weights[program.edges[:, 0], program.edges[:, 1]] = program.edge_weight
        weights += weights.T
        clamp = np.zeros((1, n), np.int8) if run.clamp is None else run.clamp
        clamp = np.broadcast_to(clamp, (run.n_chains, n))
        spins = np.where(clamp != 0, clamp, rng.choice(np.array([-1, 1]), (run.n_chains, n))).astype(np.float32)
        scale = np.float32(float(run.b[0]) / 2.0**32)
        groups, samples, count = self.groups(program), [], 0
        for sweep in range(1, run.n_sweeps + 1):
            for sites in groups:
                field = spins @ weights[:, sites] + program.field[sites].astype(np.float32)
                up = self.uniforms(rng, run.n_chains, sites) * (1 + np.exp2(-field * scale)) < 1
                drawn = np.where(up, np.float32(1), np.float32(-1))
                spins[:, sites] = np.where(clamp[:, sites] == 0, drawn, spins[:, sites])
            if sweep > run.n_warmup and (sweep - run.n_warmup) % run.sweeps_per_sample == 0:
                count += 1
                if "samples" in run.observe:
                    samples.append(pack_spins(spins.astype(np.int8)))
        yield Batch(
            next_sweep=run.n_sweeps + 1,
            first_sample=0,
            n_samples=count,
            samples=np.stack(samples, axis=1) if samples else None,
            state=pack_spins(spins.astype(np.int8)),
            moments=None,
            facts={"body": "numpy, floating point"},
        )


# Faults


class AlwaysUp(Wrapped):
    """Every p-bit reads +1."""

    def run(self, run: Run) -> Iterator[Batch]:
        assert self._program is not None
        up = pack_spins(np.ones(self._program.n_sites, dtype=np.int8))
        for batch in self._inner.run(run):
            samples = None if batch.samples is None else np.broadcast_to(up, batch.samples.shape)
            yield replace(batch, samples=samples, state=np.broadcast_to(up, batch.state.shape))


class BetaOff(Wrapped):
    """The temperature is 5 % too low."""

    def run(self, run: Run) -> Iterator[Batch]:
        yield from self._inner.run(replace(run, b=np.round(run.b * 1.05).astype(np.uint64)))


class Synchronous(NumpySampler):
    """Neighbours are updated together, all from the old state."""

    def groups(self, program: Program) -> list[NDArray[np.int32]]:
        return [np.arange(program.n_sites, dtype=np.int32)]


class SeedIgnored(Wrapped):
    """The seed of the job is dropped."""

    def run(self, run: Run) -> Iterator[Batch]:
        yield from self._inner.run(replace(run, seed=1))


class HalfSeed(Wrapped):
    """Only the seed's lower 32 bits arrive."""

    def run(self, run: Run) -> Iterator[Batch]:
        yield from self._inner.run(replace(run, seed=run.seed & 0xFFFFFFFF))


class Entropy(Wrapped):
    """Every run adds to the seed, so that none can be repeated."""

    _runs = 0

    def run(self, run: Run) -> Iterator[Batch]:
        self._runs += 1
        yield from self._inner.run(replace(run, seed=(run.seed + self._runs) % 2**64))


class BestForLast(Wrapped):
    """The state of lowest energy that a chain met is returned in place of its last one."""

    def run(self, run: Run) -> Iterator[Batch]:
        program = self._program
        assert program is not None
        model, n = program.as_model(), program.n_sites
        every = replace(run, n_warmup=0, sweeps_per_sample=1, n_samples=run.n_sweeps, observe=frozenset({"samples"}))
        lowest, best = np.full(run.n_chains, np.inf), np.zeros((run.n_chains, (n + 7) // 8), dtype=np.uint8)
        for batch in self._inner.run(every):
            assert batch.samples is not None
            energies = model.energies(unpack_spins(batch.samples.astype(np.uint8), n))
            at = energies.argmin(axis=1)
            chains = np.arange(run.n_chains)
            better = energies[chains, at] < lowest
            best[better] = batch.samples[chains, at][better]
            lowest = np.minimum(lowest, energies.min(axis=1))
        for batch in self._inner.run(run):
            yield replace(batch, state=best)


class DeadPbit(Wrapped):
    """One p-bit of twelve is stuck at -1."""

    def run(self, run: Run) -> Iterator[Batch]:
        assert self._program is not None
        n = self._program.n_sites
        clamp = np.zeros((1, n), dtype=np.int8) if run.clamp is None else run.clamp.astype(np.int8)
        clamp[:, DEAD_SITE] = -1
        yield from self._inner.run(replace(run, clamp=clamp))


class Reprogrammed(Wrapped):
    """The device holds other couplings than it was given, and does not say so."""

    def changed(self, edge_weight: NDArray[np.int32]) -> NDArray[np.int32]:
        raise NotImplementedError

    def program(self, program: AnyProgram) -> None:
        assert isinstance(program, Program)
        weight = self.changed(program.edge_weight).astype(np.int32)
        super().program(replace(program, edge_weight=weight, weight=weight[program.order.row_edge]))


class OneBitDac(Reprogrammed):
    """Eight bits are claimed, but only the sign of a coupling reaches the chip; their mean size is right."""

    def changed(self, edge_weight: NDArray[np.int32]) -> NDArray[np.int32]:
        return np.sign(edge_weight) * np.round(np.abs(edge_weight).mean())


class DroppedCoupling(Reprogrammed):
    """One coupling of twenty is missing."""

    def changed(self, edge_weight: NDArray[np.int32]) -> NDArray[np.int32]:
        weight = edge_weight.copy()
        weight[DROPPED_EDGE] = 0
        return weight


class RepeatedNoise(Wrapped):
    """Each random number serves two sweeps, one after the other."""

    def run(self, run: Run) -> Iterator[Batch]:
        assert self._program is not None
        session = core.IsingSession(core.IsingNet(self._program), run, 1)
        samples, count = [], 0
        for sweep in range(1, run.n_sweeps + 1):
            take = sweep > run.n_warmup and (sweep - run.n_warmup) % run.sweeps_per_sample == 0
            samples.append(session.advance((sweep + 1) // 2, 1, int(take)))
            count += take
        wanted = "samples" in run.observe
        yield Batch(
            next_sweep=run.n_sweeps + 1,
            first_sample=0,
            n_samples=count,
            samples=np.concatenate(samples, axis=1) if wanted else None,
            state=session.state(),
            moments=session.moments(),
            facts={},
        )


class SharedNoise(NumpySampler):
    """Every second p-bit decides with its neighbour's random number."""

    def uniforms(self, rng: np.random.Generator, n_chains: int, sites: NDArray[np.int32]) -> NDArray[np.float32]:
        u = super().uniforms(rng, n_chains, sites)
        pairs = u.shape[1] // 2
        u[:, 1 : 2 * pairs : 2] = u[:, 0 : 2 * pairs : 2]
        return u


class TwinChains(Wrapped):
    """Every second chain is a copy of the one before: half as many samples as are claimed."""

    def run(self, run: Run) -> Iterator[Batch]:
        pairs = run.n_chains // 2
        for batch in self._inner.run(run):
            state, samples = batch.state.copy(), None if batch.samples is None else batch.samples.copy()
            state[1 : 2 * pairs : 2] = state[0 : 2 * pairs : 2]
            if samples is not None:
                samples[1 : 2 * pairs : 2] = samples[0 : 2 * pairs : 2]
            yield replace(batch, state=state, samples=samples)


class ClampIgnored(Wrapped):
    """Held spins move."""

    def run(self, run: Run) -> Iterator[Batch]:
        yield from self._inner.run(replace(run, clamp=None))


class NoWarmup(Wrapped):
    """The warm-up is skipped, and with it the way to equilibrium."""

    def run(self, run: Run) -> Iterator[Batch]:
        yield from self._inner.run(replace(run, n_warmup=0))


RIGHT: dict[str, Callable[[], Driver]] = {
    "ideal simulator": Wrapped,
    "floating-point sampler": NumpySampler,
}
FAULTS: dict[str, Callable[[], Driver]] = {
    "always up": AlwaysUp,
    "beta off by 5 %": BetaOff,
    "neighbours updated together": Synchronous,
    "seed ignored": SeedIgnored,
    "half of the seed ignored": HalfSeed,
    "not reproducible": Entropy,
    "best state for the last": BestForLast,
    "one dead p-bit of 12": DeadPbit,
    "1-bit DAC": OneBitDac,
    "one dropped coupling": DroppedCoupling,
    "random numbers used twice": RepeatedNoise,
    "neighbours share random numbers": SharedNoise,
    "chains in pairs": TwinChains,
    "clamp ignored": ClampIgnored,
    "no warm-up": NoWarmup,
}


@dataclass(frozen=True)
class Verdict:
    """What the battery found of one fault.

    Attributes:
        fault: its name.
        killed_by: the checks that failed, with their p-values (None for exact checks); empty if it survived.
    """

    fault: str
    killed_by: tuple[Check, ...]


def mutation_score(*, stop_at_first: bool = False) -> list[Verdict]:
    """The battery on every fault."""
    return [
        Verdict(name, tuple(check for check in examine(make(), stop_at_first=stop_at_first) if not check.passed))
        for name, make in FAULTS.items()
    ]
