"""The result of a job: states, energies, moments, timing, joules, and where all of it came from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from glauber.checks import whole_number
from glauber.compile import AnyProgram, Program, QuantisationReport, unpack_spins
from glauber.convergence import Convergence, convergence_of
from glauber.diagnostics import Diagnostics, diagnose, effective_samples, local_fields, mean_states
from glauber.efficiency import Efficiency, efficiency_of
from glauber.energy import EnergyReport
from glauber.errors import FileFormatError, InvalidModelError, missing_extra
from glauber.findings import Exchanges, Population
from glauber.formats import model_from_arrays, model_to_arrays, pack_archive, unpack_archive, write_bytes
from glauber.health import MARGIN, EntropyHealth, entropy_health
from glauber.importance import Importance
from glauber.model import IsingModel, Model
from glauber.provenance import Provenance

if TYPE_CHECKING:
    import dimod

SAMPLES_FORMAT = "glauber.sample-set"
SAMPLES_VERSION = 1


@dataclass(frozen=True, slots=True)
class Moments:
    """Integer sums over samples, per chain: exact, whatever was summed in which order.

    Attributes:
        n_samples: how many samples are in the sums.
        sites: Ising: sum of s_i, int64 (n_chains, n_sites). Potts: counts of states, (n_chains, n_sites, n_states).
        edges: Ising: sum of s_i s_j over the model's edges, int64 (n_chains, n_edges). Potts: None.
    """

    n_samples: int
    sites: NDArray[np.int64]
    edges: NDArray[np.int64] | None

    @property
    def site_means(self) -> NDArray[np.float64]:
        """Means over samples and chains: <s_i>, or the probability of each Potts state."""
        return np.asarray(self.sites.sum(axis=0) / (self.n_samples * len(self.sites)))

    @property
    def edge_means(self) -> NDArray[np.float64]:
        """<s_i s_j> over samples and chains, in the model's order of edges.

        Raises:
            InvalidModelError: Potts moments have no edge sums.
        """
        if self.edges is None:
            raise InvalidModelError("Potts moments count states of sites, not of edges; ask for samples instead")
        return np.asarray(self.edges.sum(axis=0) / (self.n_samples * len(self.edges)))


class Coefficients(NamedTuple):
    """Fields and couplings, in the shapes of the model's own."""

    fields: NDArray[np.float64]
    couplings: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Distinct states, lowest energy first.

    Attributes:
        states: shape (n_distinct, n_sites).
        energies: of each, in the user's model.
        counts: how often each was drawn.
    """

    states: NDArray[np.integer[Any]]
    energies: NDArray[np.float64]
    counts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.counts)


@dataclass(eq=False)
class SampleSet:
    """States drawn by a job, kept packed, and everything known about them.

    Attributes:
        model: the user's model.
        n_chains: chains.
        n_samples: samples kept per chain.
        packed: Ising: bits by site, uint8 (n_chains, n_samples, ceil(n_sites / 8)); Potts: states in the smallest
            unsigned type, (n_chains, n_samples, n_sites). None if samples were not asked for.
        last_packed: the last state of each chain in the same form.
        moments: integer sums, if asked for.
        fields: the job's own fields with a chain axis, or None where the model's were in force.
        clamped: Boolean (1 or n_chains, n_sites), or None where nothing was clamped.
        timing: seconds by phase: queue, program, sample, read, total.
        energy_report: joules, with uncertainty and provenance.
        provenance: how to have it again.
        held_steps: the job's own fields as the device rounded them, in steps; None where it brought none.
        program: what the device was loaded with; None for an embedded model and for a result read from disk.
        exchanges: of a tempered job; None for others.
        population: of population annealing; None for others.
        updates: of asynchronous p-bits, how often each was updated in all chains, int64 (n_sites,); None for others.
        resident: `packed` where it also stays on the device, such as a GPU's array; None elsewhere.
    """

    model: Model
    n_chains: int
    n_samples: int
    packed: NDArray[np.unsignedinteger] | None
    last_packed: NDArray[np.unsignedinteger]
    moments: Moments | None
    fields: NDArray[np.float64] | None
    clamped: NDArray[np.bool_] | None
    timing: Mapping[str, float]
    energy_report: EnergyReport
    provenance: Provenance
    program: AnyProgram | None = field(default=None, repr=False)
    held_steps: NDArray[np.int32] | None = field(default=None, repr=False)
    stored_energies: NDArray[np.float64] | None = field(default=None, repr=False)
    exchanges: Exchanges | None = None
    population: Population | None = None
    updates: NDArray[np.int64] | None = None
    resident: Any = field(default=None, repr=False)

    def to_dlpack(self) -> Any:
        """The packed states for another package without a copy, as in torch.from_dlpack(samples.to_dlpack()).

        An array with DLPack in the form of `packed`: on the GPU where the device keeps results there (cupy://0 with
        ?results=gpu), else in host memory.

        Raises:
            InvalidModelError: the job was not asked to keep samples.
        """
        if self.resident is not None:
            return self.resident
        if self.packed is None:
            raise InvalidModelError('the samples were not kept; submit with observe={"samples"}')
        return self.packed

    def _unpacked(self, packed: NDArray[np.unsignedinteger]) -> NDArray[Any]:
        if isinstance(self.model, IsingModel):
            return unpack_spins(packed.astype(np.uint8, copy=False), self.model.n_sites)
        return packed

    @cached_property
    def states(self) -> NDArray[Any]:
        """All states: Ising int8 -1 and +1, Potts unsigned 0 .. q - 1; shape (n_chains, n_samples, n_sites).

        Raises:
            InvalidModelError: the job was not asked to keep samples.
        """
        if self.packed is None:
            raise InvalidModelError('the samples were not kept; submit with observe={"samples"}')
        return self._unpacked(self.packed)

    @property
    def spins(self) -> NDArray[np.int8]:
        """The states of an Ising job, int8 of shape (n_chains, n_samples, n_sites)."""
        if not isinstance(self.model, IsingModel):
            raise InvalidModelError("a Potts model has states, not spins")
        return self.states

    @cached_property
    def last(self) -> NDArray[Any]:
        """The last state of each chain, shape (n_chains, n_sites)."""
        return self._unpacked(self.last_packed)

    def _energies(self, model: Model, fields: NDArray[np.float64] | None) -> NDArray[np.float64]:
        energies = model.energies(self.states)
        return energies if fields is None else energies + field_change(model, fields, self.states)

    @cached_property
    def held_fields(self) -> NDArray[np.float64] | None:
        """The job's own fields as the device rounded them, in the model's units; None where it brought none."""
        return None if self.held_steps is None else self.held_steps * np.float64(self.provenance.quantisation.step)

    @cached_property
    def energies(self) -> NDArray[np.float64]:
        """Energies in the user's model (with the job's fields where it brought some), (n_chains, n_samples)."""
        return self.stored_energies if self.stored_energies is not None else self._energies(self.model, self.fields)

    @cached_property
    def programmed_energies(self) -> NDArray[np.float64]:
        """Energies in the model that the device held after quantisation, (n_chains, n_samples)."""
        return self._energies(self._program().as_model(), self.held_fields)

    def programmed_coefficients(self) -> Coefficients:
        """Fields and couplings as the device held them, in the model's units; fields of the job have a chain axis."""
        program = self._program()
        couplings = program.edge_weight if isinstance(program, Program) else program.edge_couplings
        step = np.float64(program.quantisation.step)
        fields = np.asarray(program.field * step) if self.held_fields is None else self.held_fields
        return Coefficients(fields, np.asarray(couplings * step))

    def _program(self) -> AnyProgram:
        if self.program is None:
            raise InvalidModelError("the program is kept neither in files nor for embedded models; run the job again")
        return self.program

    def temperature(self, k: int) -> SampleSet:
        """The chains of one temperature of a tempered job, as a result at that beta.

        Timing, joules and exchanges stay those of the whole job.

        Args:
            k: which, from 0 (the hottest); negative ones count from the coldest.

        Raises:
            InvalidModelError: the job was not tempered, or has no such temperature.
        """
        if self.exchanges is None:
            raise InvalidModelError("only the result of a TemperingSchedule has temperatures to choose from")
        betas = self.exchanges.betas
        k = range(len(betas))[whole_number("temperature", k, -len(betas), len(betas) - 1)]
        ladders = self.n_chains // len(betas)
        rows = slice(k * ladders, (k + 1) * ladders)
        moments = self.moments
        if moments is not None:
            edges = None if moments.edges is None else moments.edges[rows]
            moments = Moments(moments.n_samples, moments.sites[rows], edges)
        return replace(
            self,
            n_chains=ladders,
            packed=None if self.packed is None else self.packed[rows],
            last_packed=self.last_packed[rows],
            moments=moments,
            stored_energies=None if self.stored_energies is None else self.stored_energies[rows],
            provenance=replace(self.provenance, beta=float(betas[k])),
        )

    def aggregate(self) -> Aggregate:
        """Distinct states with their counts, lowest energy first; one set of fields must hold for all chains."""
        if self.fields is not None and len(self.fields) > 1:
            raise InvalidModelError("chains with different fields have no common energies; look at them chain by chain")
        flat = self.states.reshape(-1, self.model.n_sites)
        packed = np.packbits(flat > 0, axis=1) if isinstance(self.model, IsingModel) else np.ascontiguousarray(flat)
        rows = packed.view([("", packed.dtype)] * packed.shape[1]).ravel()
        _, first, counts = np.unique(rows, return_index=True, return_counts=True)
        energies = self.energies.ravel()[first]
        order = np.argsort(energies, kind="stable")
        return Aggregate(flat[first[order]], energies[order], counts[order].astype(np.int64))

    def lowest(self, n: int = 1) -> Aggregate:
        """The n distinct states of lowest energy."""
        n, found = whole_number("n", n, 1, 2**63), self.aggregate()
        return Aggregate(found.states[:n], found.energies[:n], found.counts[:n])

    def diagnostics(self, level: float = 0.95) -> Diagnostics:
        """R-hat, effective sample size, autocorrelation time and inverse temperature; see glauber.diagnostics.

        Args:
            level: of the interval of beta.

        Raises:
            InvalidModelError: chains at different temperatures have no common law; take `temperature(k)` first.
        """
        self._check_one_law()
        fields = self.model.fields[None] if self.fields is None else self.fields
        free = np.ones((1, self.model.n_sites), dtype=bool) if self.clamped is None else ~self.clamped
        return diagnose(
            self.model,
            self.states,
            self.energies,
            fields=fields,
            free=free,
            sweeps_per_sample=self.provenance.sweeps_per_sample,
            beta_asked=self.provenance.beta,
            level=level,
        )

    def convergence(self, *, alpha: float = 0.01) -> Convergence:
        """Have the chains arrived? Geweke, Heidelberger-Welch, thermalisation of energy and magnetisation.

        See glauber.convergence. An anneal keeps one state a chain, so nothing can be said about it.

        Args:
            alpha: of a false alarm by any of its tests.

        Raises:
            InvalidModelError: fewer than 100 samples a chain; the samples were not kept; or chains at different
                temperatures have no common law.
        """
        self._check_one_law()
        observables = {"energy": self.energies, "magnetisation": mean_states(self.model, self.states)}
        return convergence_of(observables, self.provenance.sweeps_per_sample, alpha)

    def reweight(self, beta: float) -> Importance:
        """The samples as draws from the user's model at another beta; see glauber.importance.

        `.mean(samples.energies)` is then the mean energy there, `.log_ratio` is ln Z(beta) minus ln Z of what was
        sampled, and `.reliable` says whether the two betas are near enough. What the device rounded is undone too, as
        far as the program is known; flaws of a chip are not.

        Raises:
            InvalidModelError: the samples were not drawn at one beta; or not kept; or the device rounded the model and
                the program is not known any more; or all have one energy, such as the lowest, and a lower beta is
                asked for, where others matter.
        """
        if self.provenance.beta is None or self.provenance.embedding is not None:
            raise InvalidModelError("only samples at one beta, in the model's own places, can be reweighted")
        if not (isinstance(beta, int | float) and math.isfinite(beta) and beta >= 0):
            raise InvalidModelError(f"beta must be a finite number from 0 up, not {beta!r}")
        highest = float(np.abs(self.energies).max(initial=0.0))
        if beta < self.provenance.beta and highest > 0.0 and np.ptp(self.energies) <= 1e-12 * highest:
            raise InvalidModelError(
                f"all samples have the energy {float(self.energies.flat[0]):g}, so they tell nothing about beta"
                f" {beta:g}, where others are likely; sample at a lower beta, or go there in steps"
            )
        sampled = self.energies if self.provenance.quantisation.exact else self.programmed_energies
        return Importance(self.provenance.beta * sampled - beta * self.energies)

    def health(self, *, margin: float = MARGIN) -> EntropyHealth:
        """Are the p-bits still random? The health tests of SP 800-90B on those whose law is known; see glauber.health.

        Args:
            margin: of a p-bit's argument, for offsets that are no fault.

        Raises:
            InvalidModelError: no p-bits, no one temperature, or the samples were not kept.
        """
        beta = self.provenance.beta
        if beta is None or not isinstance(self.model, IsingModel) or self.provenance.embedding is not None:
            raise InvalidModelError("health is tested on p-bits at one temperature, in the model's own places")
        fields = self.model.fields[None] if self.fields is None else self.fields
        shape = (self.n_chains, self.model.n_sites)
        free = np.ones((1, self.model.n_sites), dtype=bool) if self.clamped is None else ~self.clamped
        local = local_fields(self.model, self.spins[:, 0], np.broadcast_to(fields, shape))
        return entropy_health(self.model, self.spins, beta * local, np.broadcast_to(free, shape), margin=margin)

    def efficiency(self) -> Efficiency:
        """Effective samples, and what they cost in seconds and joules, with an uncertainty; see glauber.efficiency.

        Raises:
            InvalidModelError: the samples were not kept; or chains at different temperatures have no common law.
        """
        self._check_one_law()
        ess = effective_samples(self.energies, mean_states(self.model, self.states))
        return efficiency_of(ess, self.energy_report, self.timing["total"] - self.timing["queue"])

    def _check_one_law(self) -> None:
        if self.exchanges is not None and self.provenance.beta is None:
            raise InvalidModelError(
                "chains at different temperatures have no common law; look at one of them with temperature(k)"
            )

    def to_dimod(self) -> dimod.SampleSet:
        """The samples as a dimod SampleSet of vartype SPIN: one row a sample, chains one after another."""
        if not isinstance(self.model, IsingModel):
            raise InvalidModelError("dimod's sample sets hold spins; a Potts result has none")
        try:
            import dimod
        except ImportError as error:
            raise missing_extra("dimod", "interop", "to_dimod()") from error
        labels = self.model.labels if self.model.labels is not None else range(self.model.n_sites)
        rows = self.spins.reshape(-1, self.model.n_sites)
        info = {"timing": dict(self.timing), "seed": self.provenance.seed, "device": self.provenance.device}
        return dimod.SampleSet.from_samples((rows, list(labels)), "SPIN", energy=self.energies.ravel(), info=info)

    def to_arviz(self) -> Any:
        """An ArviZ DataTree: `posterior/states` by chain, draw and site, `sample_stats/energy`."""
        try:
            from arviz_base import from_dict
        except ImportError as error:
            raise missing_extra("arviz-base", "interop", "to_arviz()") from error
        groups = {"posterior": {"states": self.states}, "sample_stats": {"energy": self.energies}}
        return from_dict(groups, dims={"states": ["site"]})

    # File form

    def to_bytes(self, *, fast: bool = False) -> bytes:
        """Everything but the program as the bytes of one npz file without pickle; spins stay packed.

        Args:
            fast: neither compressed, nor with energies that can be computed again from the states.
        """
        header, arrays = model_to_arrays(self.model)
        arrays = {f"model.{name}": array for name, array in arrays.items()}
        optional = {
            "packed": self.packed,
            "last": self.last_packed,
            "job_fields": self.fields,
            "clamped": self.clamped,
            "energies": self.energies if self.packed is not None and not fast else self.stored_energies,
            "updates": self.updates,
            "moments.sites": None if self.moments is None else self.moments.sites,
            "moments.edges": None if self.moments is None else self.moments.edges,
        }
        if self.exchanges is not None:
            optional |= {f"exchanges.{name}": array for name, array in asdict(self.exchanges).items()}
        if self.population is not None:
            optional |= {f"population.{name}": np.asarray(each) for name, each in asdict(self.population).items()}
        arrays.update({name: array for name, array in optional.items() if array is not None})
        header |= {
            "n_chains": self.n_chains,
            "n_samples": self.n_samples,
            "n_moments": None if self.moments is None else self.moments.n_samples,
            "timing": dict(self.timing),
            "provenance": asdict(self.provenance),
            "energy": asdict(self.energy_report),
        }
        return pack_archive(SAMPLES_FORMAT, SAMPLES_VERSION, header, arrays, compress=not fast)

    @classmethod
    def from_bytes(cls, content: bytes, *, name: str | Path = "the result") -> Self:
        """Read what `to_bytes` made; `name` is what messages call it.

        Raises:
            FileFormatError: truncated, or of another format or version.
        """
        header, arrays = unpack_archive(content, SAMPLES_FORMAT, SAMPLES_VERSION, name)
        try:
            return cls._from_arrays(header, arrays, name)
        except (KeyError, TypeError, AttributeError) as error:
            raise FileFormatError(f"{name} does not hold a valid sample set: {error!r}") from error

    def save(self, path: str | Path) -> None:
        """Write `to_bytes` to a file, whole or not at all."""
        write_bytes(path, self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote; raises as `from_bytes` does, or OSError."""
        return cls.from_bytes(Path(path).read_bytes(), name=path)

    @classmethod
    def _from_arrays(cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], path: str | Path) -> Self:
        parts = {name[6:]: array for name, array in arrays.items() if name.startswith("model.")}
        provenance, energy = header["provenance"], header["energy"]
        quantisation = provenance.pop("quantisation")
        quantisation["assumptions"] = tuple(quantisation["assumptions"])
        moments = None
        if header["n_moments"] is not None:
            moments = Moments(header["n_moments"], arrays["moments.sites"], arrays.get("moments.edges"))
        exchanges = None
        if "exchanges.betas" in arrays:
            exchanges = Exchanges(*(arrays[f"exchanges.{name}"] for name in ("betas", "tried", "made")))
        population = None
        if "population.betas" in arrays:
            betas, ratios, states, families = (
                arrays[f"population.{name}"] for name in ("betas", "log_ratios", "log_states", "families")
            )
            population = Population(betas, ratios, float(states), families)
        model = model_from_arrays(header, parts, path)
        chains, samples = header["n_chains"], header["n_samples"]
        row = (model.n_sites + 7) // 8 if isinstance(model, IsingModel) else model.n_sites
        packed = arrays.get("packed")
        if arrays["last"].shape != (chains, row) or (packed is not None and packed.shape != (chains, samples, row)):
            raise FileFormatError(f"{path}: the states' shape is not that of {chains} chains x {samples} samples")
        return cls(
            model=model,
            n_chains=header["n_chains"],
            n_samples=header["n_samples"],
            packed=packed,
            last_packed=arrays["last"],
            moments=moments,
            fields=arrays.get("job_fields"),
            clamped=arrays.get("clamped"),
            timing=header["timing"],
            energy_report=EnergyReport.from_fields(energy),
            provenance=Provenance(**provenance, quantisation=QuantisationReport(**quantisation)),
            stored_energies=arrays.get("energies"),
            exchanges=exchanges,
            population=population,
            updates=arrays.get("updates"),
        )

    def __repr__(self) -> str:
        return (
            f"SampleSet({self.n_chains} chains x {self.n_samples} samples x {self.model.n_sites} sites,"
            f" device {self.provenance.device}, seed {self.provenance.seed})"
        )


def field_change(model: Model, fields: NDArray[np.float64], states: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """What a job's own fields add to the energies of states (n_chains, n_samples, n_sites): sum (h - h_job) s."""
    change = model.fields - fields
    if isinstance(model, IsingModel):
        result: NDArray[np.float64] = np.einsum(
            "ci,csi->cs", np.broadcast_to(change, (len(states), model.n_sites)), states
        )
        return result
    wide = np.broadcast_to(change, (len(states), *model.fields.shape))
    picked = np.take_along_axis(wide[:, None], states[..., None].astype(np.int64), axis=3)
    return np.asarray(picked[..., 0].sum(axis=2))
