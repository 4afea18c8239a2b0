"""The contract's clauses about meaning: signs, energies, schedules, starts, shapes, seeds and moments."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm

from glauber.compile import AnyProgram, Run
from glauber.device import Device
from glauber.driver import Batch, Driver
from glauber.model import IsingModel
from glauber.registry import open_driver, parse_address
from glauber.request import Observable
from glauber.samples import SampleSet
from glauber.spec import AnySpec
from glauber.testing.contract_bench import ALPHA, ContractBench, clause, require, skip
from glauber.testing.contract_models import matchings, pairs_model
from glauber.testing.power import noncentral_power


class MeaningClauses(ContractBench):
    """Clauses about what results mean."""

    def _pairs(self) -> NDArray[np.int64]:
        """A few disjoint pairs of coupled sites."""
        self.need_graph()
        sets = matchings(self.spec, 1)
        if not sets:
            skip("the device has no couplings")
        return sets[0][:16]

    @clause
    def test_energies_are_those_of_the_model(self) -> None:
        """Energies, recounted term by term with offset and minus signs, agree; so do those of a job's own fields."""
        self.need_samples()
        model = self.patch.model
        schedule = self.schedule(5, n_chains=2)
        for fields in (None, -2 * model.fields):
            result = self.run(model, schedule, fields=fields, observe={"samples", "energies"})
            h = model.fields if fields is None else fields
            for chain, k in itertools.product(range(2), range(result.n_samples)):
                s = result.spins[chain, k].tolist()
                energy = model.offset - sum(x * y for x, y in zip(h.tolist(), s, strict=True))
                for (i, j), coupling in zip(model.edges.tolist(), model.couplings.tolist(), strict=True):
                    energy -= coupling * s[i] * s[j]
                got = float(result.energies[chain, k])
                off = abs(got - energy)
                require(
                    off <= 1e-9 * max(1.0, abs(energy)), f"a state of energy {energy:.12g} is reported as {got:.12g}"
                )

    def _majority(self, agree: NDArray[np.bool_], what: str) -> None:
        """Most of the independent trials must agree with the sign; a coin would do so half of the time."""
        n, right = agree.size, int(agree.sum())
        p_value = float(binom.cdf(right, n, 0.75))
        power = {"wrong sign": float(binom.cdf(binom.ppf(ALPHA / 2, n, 0.75), n, 0.25))}
        self.statistical(p_value, power, n, f"{what} in {right} of {n} cases", tests=2)

    def _strong(self, beta: float, unit: float, what: str) -> None:
        if np.tanh(beta * unit) < 0.5:
            skip(f"beta times the largest {what} is {beta * unit:.2g} on this device, too little for clear signs")

    @clause
    def test_positive_couplings_align(self) -> None:
        """J > 0 makes two spins equal, J < 0 opposite."""
        self.need_sampler()
        pairs, beta, unit = self._pairs(), self.scale.strong_beta, self.scale.unit
        self._strong(beta, unit, "coupling")
        n = max(100, 1600 // len(pairs))
        for sign in (1.0, -1.0):
            model = pairs_model(pairs, np.full(len(pairs), sign * unit), np.zeros((len(pairs), 2)))
            states, _ = self.draw(model, n, thin=100, beta=beta)
            agree = states[..., pairs[:, 0]] * states[..., pairs[:, 1]] * sign > 0
            self._majority(agree, f"J = {sign * unit:g} makes spins {'equal' if sign > 0 else 'opposite'}")

    @clause
    def test_positive_fields_point_up(self) -> None:
        """A field h > 0 makes +1 the likelier value, h < 0 makes it -1."""
        self.need_sampler()
        beta, unit, sites = self.scale.strong_beta, self.scale.unit, self.patch.sites
        self._strong(beta, unit, "field")
        for sign in (1.0, -1.0):
            h = np.zeros(self.patch.model.n_sites)
            h[sites] = sign * unit * (-1.0) ** np.arange(len(sites))
            model = self.patch.model.replace(fields=h, couplings=np.zeros(self.patch.model.n_edges))
            states, _ = self.draw(model, max(100, 1600 // len(sites)), thin=1, beta=beta)
            self._majority(states[..., sites] * h[sites] > 0, "a spin points along its field")

    @clause
    def test_schedule_is_kept(self) -> None:
        """Warm-up, thinning and start are those asked for: from all down, pairs relax as an exact law says.

        A pair without fields that starts down has, after k sweeps in whatever order, a mean spin of
        -(t^(2k-1) + t^(2k)) / 2 with t = tanh(beta J).
        """
        self.need_sampler()
        self.need_samples()
        self.need_start()
        beta = 0.7 * self.scale.strong_beta
        model, chains = self._free_pairs(), self.chains(256)
        warmup, thin, kept = 1, 2, 2
        wanted = (8_000 if self.effort == "quick" else 20_000) // (chains * model.n_edges)
        most = self.affordable(20_000, thin=thin, model=model) // (chains * kept)
        jobs = int(np.clip(min(wanted, most), 1, 16))
        schedule = self.schedule(kept, n_chains=chains, n_warmup=warmup, thin=thin, beta=beta)
        down = -np.ones(model.n_sites, dtype=np.int32)
        results = [self.run(model, schedule, initial=down) for _ in range(jobs)]
        t = np.tanh(beta * self.programmed(results[0]).couplings)
        n = jobs * chains
        for j in range(kept):
            k = warmup + (j + 1) * thin
            sums = np.concatenate([each.spins[:, j][:, model.edges].sum(axis=-1) for each in results])
            expected = relaxed(t, k)
            sigma = np.sqrt(float((2 + 2 * t - expected**2).sum()) / n)
            z = (float(sums.sum(axis=1).mean()) - float(expected.sum())) / sigma
            power = {}
            for fault, wrong in (("one sweep too few", k - 1), ("one sweep too many", k + 1)):
                shift = float((relaxed(t, wrong) - expected).sum()) / sigma
                power[fault] = noncentral_power(shift**2, 1, ALPHA / kept)
            what = f"sample {j}, which is due after sweep {k}, has a mean that is off by {z:.1f} standard errors"
            self.statistical(2 * float(norm.sf(abs(z))), power, n * model.n_edges, what, tests=kept)
        ran = results[0].provenance.n_sweeps
        require(ran == schedule.n_sweeps, f"{schedule.n_sweeps} sweeps were asked for and {ran} reported")

    def _free_pairs(self) -> IsingModel:
        pairs = self._pairs()
        return pairs_model(pairs, np.full(len(pairs), self.scale.unit), np.zeros((len(pairs), 2)))

    @clause
    def test_start_states_are_used(self) -> None:
        """Chains start from the states given for each: one sweep later pairs remember them, as an exact law says."""
        self.need_sampler()
        self.need_start()
        model, chains, beta = self._free_pairs(), self.chains(256), self.scale.beta
        if chains < 2:
            self.skip_incapable("run two chains", "chains")
        sign = np.where(np.arange(chains) % 2 == 0, 1, -1).astype(np.int32)
        jobs = int(np.clip(2000 // (chains * model.n_edges), 1, 8))
        start = np.repeat(sign[:, None], model.n_sites, axis=1)
        results = [
            self.run(model, self.schedule(1, n_chains=chains), initial=start, observe="last") for _ in range(jobs)
        ]
        t = np.tanh(beta * self.programmed(results[0]).couplings)
        sums = np.concatenate(
            [(each.last[:, model.edges].sum(axis=-1) * sign[:, None]).sum(axis=1) for each in results]
        )
        expected, n = -relaxed(t, 1), jobs * chains
        sigma = np.sqrt(float((2 + 2 * t - expected**2).sum()) / n)
        z = (float(sums.mean()) - float(expected.sum())) / sigma
        power = {"random start": noncentral_power((float(expected.sum()) / sigma) ** 2, 1, ALPHA)}
        what = f"the memory of the start is off by {z:.1f} standard errors"
        self.statistical(2 * float(norm.sf(abs(z))), power, n * model.n_edges, what)

    # Shapes

    @clause
    def test_shapes_and_types(self) -> None:
        """Samples, last states, energies and moments have the documented shapes and types; nothing unasked comes."""
        model, chains, n = self.patch.model, self.chains(3), 5
        chains = min(chains, 3)
        schedule = self.schedule(n, n_chains=chains, n_warmup=2, thin=2)
        n, packed = schedule.n_samples, (model.n_sites + 7) // 8
        result = self.run(model, schedule, observe="last")
        _shaped("last states, packed", result.last_packed, (chains, packed), np.uint8)
        _shaped("last states", result.last, (chains, model.n_sites), np.int8)
        require((np.abs(result.last) == 1).all(), "a last state holds something else than -1 and +1")
        require(result.packed is None and result.moments is None, "what was not asked for was returned")
        self.need_samples()
        result = self.run(model, schedule, observe={"samples", "last", "moments", "energies"})
        require(result.n_samples == n, f"{n} samples a chain were asked for and {result.n_samples} came")
        assert result.packed is not None
        assert result.moments is not None
        _shaped("samples, packed", result.packed, (chains, n, packed), np.uint8)
        _shaped("samples", result.spins, (chains, n, model.n_sites), np.int8)
        _shaped("energies", result.energies, (chains, n), np.float64)
        _shaped("moments of sites", result.moments.sites, (chains, model.n_sites), np.int64)
        require(result.moments.edges is not None, "an Ising job's moments lack the edges")
        assert result.moments.edges is not None
        _shaped("moments of edges", result.moments.edges, (chains, model.n_edges), np.int64)

    @clause
    def test_last_is_the_last_sample(self) -> None:
        """The last state is that of the last sample, not the best one met."""
        self.need_samples()
        chains = self.chains(32)
        result = self.run(self.patch.model, self.schedule(20, n_chains=chains), observe={"samples", "last"})
        same = (result.last == result.spins[:, -1]).all(axis=1)
        require(same.all(), f"in {int((~same).sum())} of {chains} chains the last state is not the last sample")

    @clause
    def test_moments_are_those_of_the_samples(self) -> None:
        """Moments, asked for with the samples, are the sums over exactly these samples."""
        self.need_samples()
        model, chains = self.patch.model, self.chains(4)
        schedule = self.schedule(37, n_chains=chains, n_warmup=3, thin=2)
        result = self.run(model, schedule, observe={"samples", "moments"})
        spins, moments = result.spins.astype(np.int64), result.moments
        assert moments is not None
        require(moments.n_samples == result.n_samples, f"moments of {moments.n_samples}, {result.n_samples} samples")
        require(np.array_equal(moments.sites, spins.sum(axis=1)), "the sums of spins are not those of the samples")
        a, b = model.edges.T
        counted = (spins[..., a] * spins[..., b]).sum(axis=1)
        assert moments.edges is not None
        require(np.array_equal(moments.edges, counted), "the sums of products are not those of the samples")

    # Seeds

    @clause
    def test_same_seed_same_samples(self) -> None:
        """A deterministic device gives the same samples for the same seed, whatever ran in between."""
        if not self.spec.capabilities.deterministic:
            self.skip_incapable("promise the same samples for the same seed", "deterministic")
        first = self._seeded(11)
        self._seeded(12)
        require(np.array_equal(first.last_packed, self._seeded(11).last_packed), "two jobs of seed 11 differ")
        self.let_go()
        require(np.array_equal(first.last_packed, self._seeded(11).last_packed), "opened anew, seed 11 differs")

    def _seeded(self, seed: int | None) -> SampleSet:
        """A job of some hundred spins without correlations."""
        model = self.patch.model.replace(
            fields=np.zeros(self.patch.model.n_sites), couplings=np.zeros(self.patch.model.n_edges)
        )
        schedule = self.schedule(1, n_chains=self.chains(64), n_warmup=2)
        return self.run(model, schedule, seed=seed, observe="last")

    @clause
    def test_other_seeds_other_samples(self) -> None:
        """Other seeds give other samples, whichever half differs, and so do jobs without one: two runs never agree."""
        seeds: tuple[int | None, ...] = (1, 2, 1 + 2**32, 1 + 2**63, None, None)
        if not self.spec.capabilities.sampler:
            skip("an optimiser may give one answer to all seeds")
        seen = [(seed, self._seeded(seed).last_packed) for seed in seeds]
        bits = seen[0][1].shape[0] * len(self.patch.sites)
        if bits < 32:
            skip(f"the device's jobs have {bits} spins, which may agree by chance")
        for (a, first), (b, second) in itertools.combinations(seen, 2):
            require(not np.array_equal(first, second), f"jobs of seeds {a} and {b} gave the same {bits} spins")

    @clause
    def test_chains_differ(self) -> None:
        """Chains of one job are independent: no two of them draw the same spins."""
        self.need_sampler()
        self.need_samples()
        chains = self.chains(16)
        if chains < 2:
            self.skip_incapable("run two chains", "chains")
        model = self.patch.model.replace(
            fields=np.zeros(self.patch.model.n_sites), couplings=np.zeros(self.patch.model.n_edges)
        )
        length = -(-96 // len(self.patch.sites))  # 96 coins agree by chance with probability 1e-29
        rows = self.run(model, self.schedule(length, n_chains=chains)).spins[..., self.patch.sites]
        distinct = len(np.unique(rows.reshape(chains, -1), axis=0))
        require(distinct == chains, f"{chains} chains drew {distinct} different sequences")

    @clause
    def test_bit_identical_to_the_simulator(self) -> None:
        """A device that follows docs/machine.md draws the simulator's samples for the same program, seed and schedule.

        The program compiled for this device is run by the simulator.
        """
        if not self.spec.capabilities.deterministic:
            self.skip_incapable("promise the same samples for the same seed", "deterministic")
        model, chains = self.patch.model, self.chains(40)
        for n_chains in sorted({1, chains}):
            schedule = self.schedule(9, n_chains=n_chains, n_warmup=3, thin=2)
            observe: set[Observable] = {"samples", "moments"} if self._has_samples else {"last"}
            mine = self.run(model, schedule, seed=2**40 + 7, observe=observe)
            if mine.provenance.contract_version == 0:
                skip("the driver does not say that it follows docs/machine.md (contract_version is 0)")
            simulator = open_driver(parse_address("sim://ideal"))
            with Device(_Impersonator(self.spec, simulator)) as other:  # type: ignore[arg-type]
                theirs = other.submit(model, schedule, seed=2**40 + 7, observe=observe).result(self.patience)
            require(np.array_equal(mine.last, theirs.last), f"{n_chains} chains end otherwise than the simulator's")
            if mine.packed is not None and theirs.packed is not None:
                where = np.argwhere(mine.spins != theirs.spins)
                at = f", first at (chain, sample, site) {tuple(where[0].tolist())}" if len(where) else ""
                require(not len(where), f"{len(where)} spins differ from the simulator's{at}")
            if mine.moments is not None and theirs.moments is not None:
                same = np.array_equal(mine.moments.sites, theirs.moments.sites)
                if mine.moments.edges is not None and theirs.moments.edges is not None:
                    same = same and np.array_equal(mine.moments.edges, theirs.moments.edges)
                require(same, "moments differ from the simulator's")


class _Impersonator:
    """The simulator under another device's description, so that it gets that device's programs."""

    def __init__(self, spec: AnySpec, simulator: Driver) -> None:
        self.spec, self._simulator = spec, simulator

    def program(self, program: AnyProgram) -> None:
        self._simulator.program(program)

    def run(self, run: Run) -> Iterator[Batch]:
        return self._simulator.run(run)

    def admit(self, run: Run, program: AnyProgram) -> int:
        return self._simulator.admit(run, program)

    def close(self) -> None:
        self._simulator.close()


def relaxed(t: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """The expected sum of the two spins of pairs that started down, k sweeps later; t = tanh(beta J)."""
    return np.asarray(-2.0 * np.ones_like(t) if k == 0 else -(t ** (2 * k - 1) + t ** (2 * k)))


def _shaped(what: str, array: NDArray[np.generic], shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    require(array.shape == shape, f"{what} have shape {array.shape}, and {shape} is documented")
    require(array.dtype == dtype, f"{what} are of type {array.dtype}, and {np.dtype(dtype)} is documented")
