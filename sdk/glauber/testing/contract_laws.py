"""The contract's clauses about the law: does the device draw from the Boltzmann distribution of what it holds?

Each is tested against the *programmed* model: an honest 1-bit device passes, one that claims 8 bits and has one fails.
Samples are thinned until less than 1e-3 of any correlation is left, so tests for independent samples apply.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, norm

from glauber.errors import InvalidModelError
from glauber.model import IsingModel, PottsModel
from glauber.samples import SampleSet
from glauber.testing.contract_bench import ALPHA, ContractBench, clause, require
from glauber.testing.contract_models import matchings, pairs_model
from glauber.testing.exact import ExactLaw, chi_square
from glauber.testing.power import chi_square_power, mean_energy_power, named_faults, noncentral_power

Clamp = tuple[tuple[int, int], ...]
PAIR_STATES = np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)])


class LawClauses(ContractBench):
    """Clauses that compare samples with exact laws."""

    def _law(self, result: SampleSet, beta: float, clamp: Clamp = (), fields: Any = None) -> ExactLaw:
        """The exact law of the patch as programmed; clamp by site of the patch, fields as the device holds them."""
        return ExactLaw(self.patch.small(self.programmed(result, fields)), beta, clamp)

    def _plan(self, beta: float, fraction: float = 1.0, *, share: float = 1.0) -> tuple[int, int]:
        """(samples, thinning) for a law test of the patch: a fraction of the samples, a share of the time limit."""
        model = self.patch.model
        thin = self.thinning(ExactLaw(self.patch.small(model), beta))
        return self.affordable(max(200, int(self.wanted_samples * fraction)), thin=thin, share=share), thin

    def _check(self, states: NDArray[Any], law: ExactLaw, what: str, *, tests: int = 1) -> None:
        """Pearson's test of all states, with the power against the named faults."""
        try:
            counts = law.counts(states)
        except InvalidModelError:
            raise AssertionError(f"{what}: a clamped spin moved") from None
        n, alpha = int(counts.sum()), ALPHA / tests
        power: dict[str, float] = {}
        assert isinstance(law.model, IsingModel)
        for name, wrong in named_faults(law.model, law.beta, law.clamp):
            power[name] = min(power.get(name, 1.0), chi_square_power(wrong, law.probabilities, n, alpha))
        power.pop("beta + 5 %")  # the mean energy says more; see test_temperature
        outcome = chi_square(counts, law.probabilities)
        self.statistical(outcome.p_value, power, n, f"{what}: chi-square {outcome.statistic:.0f}", tests=tests)

    @clause
    def test_law_of_samples(self) -> None:
        """All states of a small frustrated model come as often as the Boltzmann law of the programmed model says."""
        self.need_sampler()
        beta = self.scale.beta
        n, thin = self._plan(beta)
        states, result = self.draw(self.patch.model, n, thin=thin)
        self._check(self.patch.states(states), self._law(result, beta), "the law of the samples")
        self.note(f"{self.patch.model.n_edges} couplings among {len(self.patch.sites)} sites, every {thin} sweeps")

    @clause
    def test_temperature(self) -> None:
        """The mean energy is that of the stated beta, at two temperatures of one program."""
        self.need_sampler()
        for beta in (self.scale.beta, 0.7 * self.scale.beta):
            n, thin = self._plan(self.scale.beta, 2.5, share=0.5)
            states, result = self.draw(self.patch.model, n, thin=thin, beta=beta)
            law, spins = self._law(result, beta), self.patch.states(states)
            energies = law.model.energies(spins)
            p, n = law.probabilities, len(spins)
            mean = float(p @ law.energies)
            sigma = float(np.sqrt(float(p @ (law.energies - mean) ** 2) / n)) or 1.0
            z = (float(energies.mean()) - mean) / sigma
            assert isinstance(law.model, IsingModel)
            wrong = ExactLaw(law.model, 1.05 * beta).probabilities
            power = {f"beta + 5 %, at beta {beta:.3g}": mean_energy_power(wrong, law, n, ALPHA / 2)}
            what = f"the mean energy at beta = {beta:.3g} is off by {z:.1f} standard errors"
            self.statistical(2 * float(norm.sf(abs(z))), power, n, what, tests=2)

    @clause
    def test_every_kind_of_edge(self) -> None:
        """Each edge of the graph, cut off from the others with a coupling of its own, gives the law of such a pair."""
        self.need_sampler()
        sets = matchings(self.spec, 12 if self.effort == "quick" else 24)
        if not sets:
            self.note("the device has one site only")
            return
        rng, scale = np.random.default_rng(11), self.scale
        tests = sum(len(pairs) for pairs in sets)
        thin = 14  # tanh(0.8)^2 is 0.44 a sweep, 1e-5 after as many
        for pairs in sets:
            couplings = rng.choice([-1.0, 1.0], len(pairs)) * rng.uniform(0.6, 1.0, len(pairs)) * scale.unit
            model = pairs_model(pairs, couplings, rng.uniform(-0.4, 0.4, (len(pairs), 2)) * scale.unit)
            n = self.affordable(max(800, self.wanted_samples // 10), thin=thin, model=model, share=1 / len(sets))
            states, result = self.draw(model, n, thin=thin)
            flat, held = states.reshape(-1, model.n_sites), self.programmed(result)
            self._check_pairs(flat, held, tests)
        total = self.spec.topology.n_edges if self.spec.topology is not None else tests
        self.note(f"{tests} of {total} edges in {len(sets)} programs; alpha is shared among them")

    def _check_pairs(self, states: NDArray[np.int8], held: IsingModel, tests: int) -> None:
        """A likelihood-ratio test with three degrees of freedom for each pair, the worst of which counts.

        Its far tail, which the share of so many tests in alpha needs, is closer to chi-square's than Pearson's.
        """
        a, b, n = states[:, held.edges[:, 0]], states[:, held.edges[:, 1]], len(states)
        counts = np.stack([((a == s) & (b == t)).sum(axis=0) for s, t in PAIR_STATES], axis=1)
        law, apart = _pair_laws(held, self.scale.beta)
        statistic = 2 * (counts * np.log(np.maximum(counts, 1) / (n * law))).sum(axis=1)
        worst, alpha = int(statistic.argmax()), ALPHA / tests
        near = np.flatnonzero(held.couplings != 0)
        power = {}
        if len(near):
            away = float((n * (apart - law)[near] ** 2 / law[near]).sum(axis=1).min())
            power = {"one dropped coupling": noncentral_power(away, 3, alpha)}
            power["two sites exchanged"] = power["one dropped coupling"]  # they are then no neighbours any more
        i, j = held.edges[worst].tolist()
        seen = ", ".join(f"{x:.3f}" for x in counts[worst] / n)
        expected = ", ".join(f"{x:.3f}" for x in law[worst])
        what = f"the pair {i}-{j} is found at --, -+, +-, ++ with {seen} in place of {expected}"
        self.statistical(float(chi2.sf(statistic[worst], 3)), power, n, what, tests=tests)

    @clause
    def test_law_under_a_clamp(self) -> None:
        """Held spins never move, from the first sample on, and the others follow the law given them."""
        self.need_sampler()
        if not self.spec.capabilities.clamp:
            self.skip_incapable("hold spins", "clamp")
        n_patch, beta = len(self.patch.sites), self.scale.beta
        at = (0, n_patch // 2) if n_patch > 2 else (0,)
        clamp = tuple((k, 1 if i % 2 == 0 else -1) for i, k in enumerate(at))
        by_site = {int(self.patch.sites[k]): value for k, value in clamp}
        cold = self.run(self.patch.model, self.schedule(2, n_chains=self.chains(8)), clamp=by_site)
        for site, value in by_site.items():
            seen = cold.spins[..., site] if self._has_samples else cold.last[..., site]
            require((seen == value).all(), f"site {site} is clamped to {value} and moved without a warm-up")
        n, thin = self._plan(beta, 0.5)
        states, result = self.draw(self.patch.model, n, thin=thin, clamp=by_site)
        self._check(self.patch.states(states), self._law(result, beta, clamp), "the law under a clamp")
        free, result = self.draw(self.patch.model, 200, thin=thin)
        moved = all(len(np.unique(free[..., site])) == 2 for site in by_site)
        require(moved, "a clamp of an earlier job still holds in a job without one")

    @clause
    def test_law_with_fields_of_the_job(self) -> None:
        """A job's own fields replace the model's, and the next job without any has the model's again."""
        self.need_sampler()
        beta, model = self.scale.beta, self.patch.model
        n, thin = self._plan(beta, 0.5, share=0.6)
        states, result = self.draw(model, n, thin=thin, fields=-model.fields)
        held = -model.fields if result.held_fields is None else result.held_fields[0]
        self._check(self.patch.states(states), self._law(result, beta, fields=held), "with a job's fields", tests=2)
        states, result = self.draw(model, n // 2, thin=thin)
        self._check(self.patch.states(states), self._law(result, beta), "in the job after one with fields", tests=2)

    @clause
    def test_law_with_fields_of_each_chain(self) -> None:
        """Chains with fields of their own follow each its own law."""
        self.need_sampler()
        self.need_samples()
        if not self.spec.capabilities.chain_fields:
            self.skip_incapable("give each chain fields of its own", "chain_fields")
        beta, model, chains = self.scale.beta, self.patch.model, self.chains(32)
        if chains < 2:
            self.skip_incapable("run two chains", "chain_fields")
        rows = np.where(np.arange(chains)[:, None] % 2 == 0, model.fields, -model.fields)
        n, thin = self._plan(beta, 0.5)
        states, result = self.draw(model, n, thin=thin, fields=rows)
        for kind in (0, 1):
            held = rows[kind] if result.held_fields is None else result.held_fields[kind]
            law = self._law(result, beta, fields=held)
            self._check(self.patch.states(states[kind::2]), law, f"chains of kind {kind}", tests=2)

    @clause
    def test_fair_independent_coins(self) -> None:
        """Without couplings and fields, spins of all sites, sweeps and chains are fair and independent coins."""
        self.need_sampler()
        self.need_samples()
        model = self.patch.model.replace(
            fields=np.zeros(self.patch.model.n_sites), couplings=np.zeros(self.patch.model.n_edges)
        )
        chains = self.chains(32)
        length = max(20, self.affordable(self.wanted_samples, thin=1) // chains)
        result = self.run(model, self.schedule(length, n_chains=chains, n_warmup=1))
        s = result.spins[..., self.patch.sites].astype(np.float64)
        z = coin_scores(s)
        p_value = float(chi2.sf(float((z**2).sum()), len(z)))
        power = {"two chains alike": noncentral_power(length * s.shape[2], len(z), ALPHA)} if chains > 1 else {}
        power["one sweep in ten repeats the one before"] = noncentral_power(s.size * 0.1**2, len(z), ALPHA)
        self.statistical(p_value, power, s.shape[0] * length, f"{len(z)} means and correlations of fair coins")

    @clause
    def test_law_of_potts_models(self) -> None:
        """A small Potts model of three states: all its states come as often as the law says."""
        self.need_sampler()
        self.need_samples()
        if self.spec.capabilities.potts_states < 3:
            self.skip_incapable("sample p-dits", "potts_states")
        if self.spec.topology is not None:
            self.skip_incapable("be given any graph of p-dits, so no clause has one", "topology")
        unit, rng = self.scale.unit, np.random.default_rng(5)
        couplings = np.array([1.0, -0.8, 0.9, 1.1]) * unit
        model = PottsModel(rng.uniform(-0.5, 0.5, (4, 3)) * unit, [(0, 1), (1, 2), (2, 3), (0, 3)], couplings)
        chains = self.chains(32)
        n = self.wanted_samples
        schedule = self.schedule(-(-n // chains), n_chains=chains, n_warmup=60, thin=12)
        result = self.run(model, schedule)
        held = model if result.program is None else result.program.as_model()
        law = ExactLaw(held, self.scale.beta)
        assert isinstance(held, PottsModel)
        outcome, n = chi_square(law.counts(result.states), law.probabilities), chains * result.n_samples
        powers = []
        for k in range(4):
            less = PottsModel(held.fields, held.edges, held.couplings * (np.arange(4) != k), offset=held.offset)
            without = ExactLaw(less, self.scale.beta).probabilities
            powers.append(chi_square_power(without, law.probabilities, n, ALPHA))
        power = {"one dropped coupling": min(powers)}
        self.statistical(outcome.p_value, power, n, f"the law of a Potts model: chi-square {outcome.statistic:.0f}")


def coin_scores(s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard scores of coins (chains, sweeps, sites), uncorrelated if they are fair and independent.

    Means of sites, correlations of a site with itself one to three sweeps later, of two sites in a sweep, of a site
    with another one sweep later, and of two chains.
    """
    n_chains, length, n = s.shape
    a, b = np.triu_indices(n, 1)
    z = [s.sum(axis=(0, 1)) / np.sqrt(n_chains * length)]
    z += [(s[:, k:] * s[:, :-k]).sum(axis=(0, 1)) / np.sqrt(n_chains * (length - k)) for k in (1, 2, 3)]
    flat = s.reshape(-1, n)
    z.append((flat.T @ flat)[a, b] / np.sqrt(len(flat)))
    later, sooner = s[:, 1:].reshape(-1, n), s[:, :-1].reshape(-1, n)
    z.append((later.T @ sooner)[~np.eye(n, dtype=bool)] / np.sqrt(len(later)))
    whole = s.reshape(n_chains, -1)
    z.append((whole @ whole.T)[np.triu_indices(n_chains, 1)] / np.sqrt(whole.shape[1]))
    return np.concatenate(z)


def _pair_laws(held: IsingModel, beta: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The laws of disjoint pairs over PAIR_STATES, (n_pairs, 4): as programmed, and without their couplings."""
    a, b = PAIR_STATES.T
    fields = held.fields[held.edges]
    alone = beta * (fields[:, :1] * a + fields[:, 1:] * b)
    laws = []
    for weight in (np.exp(alone + beta * held.couplings[:, None] * a * b), np.exp(alone)):
        laws.append(weight / weight.sum(axis=1, keepdims=True))
    return laws[0], laws[1]
