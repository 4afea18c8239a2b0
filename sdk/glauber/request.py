"""A job as data: everything `Device.submit` takes, checked, hashable, and in a file form."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from glauber.checks import real_numbers, whole_number
from glauber.compile.quantise import largest
from glauber.errors import FileFormatError, InvalidModelError
from glauber.formats import model_from_arrays, model_to_arrays, pack_archive, unpack_archive, write_bytes
from glauber.model import IsingModel, Model, PottsModel
from glauber.schedule import (
    SCHEDULES,
    AsynchronousSchedule,
    PopulationSchedule,
    SamplingSchedule,
    Schedule,
    TemperingSchedule,
    readable,
)

REQUEST_FORMAT = "glauber.job-request"
REQUEST_VERSION = 1

Observable = Literal["samples", "last", "moments", "energies"]
OBSERVABLES: tuple[Observable, ...] = ("samples", "last", "moments", "energies")

Clamp = ArrayLike | Mapping[Any, int] | Iterable[tuple[Any, int]]


class Budget(BaseModel):
    """When to stop a job early; what has been drawn by then is its result."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seconds: float | None = Field(default=None, gt=0)
    """Wall-clock seconds from the moment the job starts to run."""
    joules: float | None = Field(default=None, gt=0)
    """Energy, by the device's figures as in a modelled energy report; a meter, where there is one, does not count."""
    sweeps: int | None = Field(default=None, gt=0, strict=True)
    """Sweeps, warm-up included: of each chain in `submit`, over all chains in `solve`."""
    ess: float | None = Field(default=None, gt=0)
    """Effective samples, over all chains: the smaller of the energy's and the magnetisation's, as in `diagnostics`.

    The job ends as soon as it has so many, and its samples are the first ones of the job without this budget; the
    schedule's `n_samples` is the most that are drawn. Only for schedules at one temperature.
    """

    if not TYPE_CHECKING:

        def __init__(self, **data: Any) -> None:
            try:
                super().__init__(**data)
            except ValidationError as error:
                raise InvalidModelError(readable("Budget", error)) from None


@dataclass(frozen=True, slots=True, eq=False)
class JobRequest:
    """Everything a job is made of.

    Attributes:
        model: what to sample.
        schedule: how.
        clamp: spins that are held: an integer array broadcastable to (n_chains, n_sites), 0 for a free spin (Potts:
            -1), or a mapping or pairs from site to value. Kept as (1 or n_chains, n_sites), or None.
        fields: fields in place of the model's: (n_sites,), or (n_chains, n_sites) for one set a chain; Potts with a
            last axis of states. Kept with the chain axis, or None.
        initial: states to start from, (n_sites,) or (n_chains, n_sites); None starts at random.
        observe: what to keep: "samples", "last" (state of each chain), "moments", "energies".
        seed: 0 .. 2^64 - 1, or None to derive one from the device's.
        budget: when to stop early.
        priority: larger runs first; jobs of the same priority run in the order they came.
        on_overflow: coefficients out of the device's range: "error", or "scale" them down and beta up.
        embed: place the model on the device's graph by minor embedding where it does not fit as it is.
        partial: a cancelled job keeps what it has drawn.
        threads: for simulators; changes no sample.
        isa: for simulators: "portable", "sse2", "avx2", "avx512"; changes no sample.
        owner: whose job it is, for stores and servers; None for the user who runs the process.
        idempotency_key: where jobs are stored, a second request of the same owner with the same key is the first one.
        reuse: where jobs are stored, answer with the result of an earlier job of the same program, device and seed.

    Raises:
        InvalidModelError: naming the value that is wrong and what would be right.
    """

    model: Model
    schedule: Schedule = field(default_factory=SamplingSchedule)
    clamp: NDArray[np.int32] | None = None
    fields: NDArray[np.float64] | None = None
    initial: NDArray[np.int32] | None = None
    observe: frozenset[Observable] = frozenset({"samples"})
    seed: int | None = None
    budget: Budget | None = None
    priority: int = 0
    on_overflow: Literal["error", "scale"] = "error"
    embed: bool = False
    partial: bool = False
    threads: int | None = None
    isa: str | None = None
    owner: str | None = None
    idempotency_key: str | None = None
    reuse: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.model, IsingModel | PottsModel):
            raise InvalidModelError(f"the model must be an IsingModel or PottsModel, not {type(self.model).__name__}")
        if not isinstance(self.schedule, Schedule):
            raise InvalidModelError(f"the schedule must be a glauber schedule, not {type(self.schedule).__name__}")
        set_ = object.__setattr__
        set_(self, "seed", check_seed(self.seed))
        set_(self, "observe", _observe(self.observe))
        set_(self, "priority", whole_number("priority", self.priority, -(2**31), 2**31))
        if self.threads is not None:
            set_(self, "threads", whole_number("threads", self.threads, 1, 256))
        for name in ("owner", "idempotency_key"):
            _check_name(name, getattr(self, name))
        if self.reuse is True and self.seed is None:
            raise InvalidModelError(
                "reuse needs a seed: a job without one would draw new samples; submit with seed=..."
            )
        for name in ("embed", "partial", "reuse"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidModelError(f"{name} must be True or False, not {getattr(self, name)!r}")
        if self.on_overflow not in ("error", "scale"):
            raise InvalidModelError(f'on_overflow must be "error" or "scale", not {self.on_overflow!r}')
        if self.budget is not None and not isinstance(self.budget, Budget):
            raise InvalidModelError(f"budget must be a glauber.Budget, not {type(self.budget).__name__}")
        if self.clamp is not None:
            set_(self, "clamp", self._checked_clamp(self.clamp))
        if self.fields is not None:
            set_(self, "fields", self._checked_fields(self.fields))
        if self.initial is not None:
            set_(self, "initial", self._checked_initial(self.initial))
        for array in (self.clamp, self.fields, self.initial):
            if array is not None:
                array.setflags(write=False)  # the key may be asked for later
        if isinstance(self.schedule, TemperingSchedule | PopulationSchedule):
            self._check_one_model()
        rates = self.schedule.rates if isinstance(self.schedule, AsynchronousSchedule) else None
        if rates is not None and len(rates) != self.model.n_sites:
            raise InvalidModelError(f"there are {len(rates)} rates for {self.model.n_sites} sites; give one for each")
        limit = self.budget.sweeps if self.budget is not None else None
        if limit is not None and limit < self.schedule.n_warmup + self.schedule.sweeps_per_sample:
            needed = self.schedule.n_warmup + self.schedule.sweeps_per_sample
            raise InvalidModelError(f"a budget of {limit} sweeps ends before the first sample, which takes {needed}")
        if self.budget is not None and self.budget.ess is not None:
            self._check_one_law(self.budget.ess)

    def _check_one_model(self) -> None:
        """States that move between chains must mean the same in each."""
        for name, rows in (("clamp", self.clamp), ("fields", self.fields)):
            if rows is not None and len(rows) > 1:
                raise InvalidModelError(
                    f"{name} differs between chains, but a {type(self.schedule).__name__} moves states between them;"
                    " give one row for all, or submit one job for each"
                )

    def _check_one_law(self, ess: float) -> None:
        """Effective samples are of one law, and there cannot be many more of them than samples."""
        if not isinstance(self.schedule, SamplingSchedule | AsynchronousSchedule):
            raise InvalidModelError(
                f"a budget in effective samples needs one temperature, which a {type(self.schedule).__name__} has not;"
                " use a SamplingSchedule, or a budget in seconds, sweeps or joules"
            )
        for name, rows in (("clamp", self.clamp), ("fields", self.fields)):
            if rows is not None and len(rows) > 1:
                raise InvalidModelError(
                    f"{name} differs between chains, which then have no common law to have effective samples of; give"
                    " one row for all, or submit one job for each"
                )
        most = self.schedule.n_chains * self.schedule.n_samples
        if ess > most:
            raise InvalidModelError(
                f"a budget of {ess:g} effective samples cannot be reached by {self.schedule.n_chains} chains x"
                f" {self.schedule.n_samples} samples; n_samples is the most that is drawn, so make it larger"
            )

    @property
    def free_value(self) -> int:
        """What a clamp array holds for a spin that is free: 0, or -1 for Potts."""
        return 0 if isinstance(self.model, IsingModel) else -1

    def _legal(self, values: NDArray[np.int32]) -> NDArray[np.bool_]:
        if isinstance(self.model, IsingModel):
            return np.asarray(np.abs(values) == 1)
        inside = (values >= 0) & (values < self.model.n_states)
        if self.model.allowed is not None:
            safe = np.where(inside, values, 0)
            inside &= self.model.allowed[np.arange(self.model.n_sites), safe]
        return inside

    def _legal_text(self) -> str:
        return "-1 or +1" if isinstance(self.model, IsingModel) else f"an allowed state, 0 to {self.model.n_states - 1}"

    def _rows(self, name: str, values: Any) -> NDArray[np.int32]:
        """An integer array as (1 or n_chains, n_sites)."""
        try:
            given = np.asarray(values)
        except ValueError as error:
            raise InvalidModelError(f"{name} must be a regular array of integers: {error}") from error
        if not np.issubdtype(given.dtype, np.integer):
            whole = np.issubdtype(given.dtype, np.floating) and bool((np.abs(given) < 2**31).all())
            if not whole or not np.array_equal(np.trunc(given), given):
                raise InvalidModelError(f"{name} must hold integers, not {given.dtype}")
        if given.size and (given.min() < -(2**31) or given.max() >= 2**31):
            raise InvalidModelError(f"{name} holds {given.max()} or {given.min()}; values must be {self._legal_text()}")
        shapes = [(self.model.n_sites,), (1, self.model.n_sites), (self.schedule.n_chains, self.model.n_sites)]
        if given.shape not in shapes:
            raise InvalidModelError(f"{name} has shape {given.shape}; possible are {shapes[0]} and {shapes[2]}")
        return given.reshape(-1, self.model.n_sites).astype(np.int32)

    def _site(self, name: str, site: object) -> int:
        labels = self.model.labels if isinstance(self.model, IsingModel) else None
        if labels is not None and site in labels:
            return labels.index(site)
        if labels is None and isinstance(site, int | np.integer) and not isinstance(site, bool):
            if 0 <= int(site) < self.model.n_sites:
                return int(site)
            raise InvalidModelError(f"{name} has site {site}, but sites go from 0 to {self.model.n_sites - 1}")
        raise InvalidModelError(f"{name} has site {site!r}, which the model does not have")

    def _checked_clamp(self, clamp: Any) -> NDArray[np.int32]:
        pairs = _as_pairs(clamp)
        if pairs is not None:
            row = np.full(self.model.n_sites, self.free_value, dtype=np.int32)
            for name, value in pairs:
                site = self._site("clamp", name)
                if (
                    isinstance(value, bool)
                    or not isinstance(value, int | np.integer)
                    or not self._legal(_at(row, site, int(value)))[site]
                ):
                    raise InvalidModelError(f"site {name!r} is clamped to {value!r}; it must be {self._legal_text()}")
                if row[site] not in (self.free_value, value):
                    raise InvalidModelError(f"site {name!r} is clamped to {row[site]} and to {value}; keep one of them")
                row[site] = value
            return row[None]
        rows = self._rows("clamp", clamp)
        wrong = (rows != self.free_value) & ~self._legal(rows)
        if wrong.any():
            chain, site = (int(k) for k in np.argwhere(wrong)[0])
            raise InvalidModelError(
                f"clamp[{chain}, {site}] is {int(rows[chain, site])}; it must be {self._legal_text()},"
                f" or {self.free_value} for a free spin"
            )
        return rows

    def _checked_fields(self, fields: Any) -> NDArray[np.float64]:
        shape = self.model.fields.shape
        given = real_numbers("fields", fields)  # a copy: the caller may change his array while the job runs
        if given.shape == shape:
            given = given[None]
        if given.shape not in ((1, *shape), (self.schedule.n_chains, *shape)):
            possible = f"{shape} and {(self.schedule.n_chains, *shape)}"
            raise InvalidModelError(f"fields have shape {np.shape(fields)}; possible are {possible}")
        if not math.isfinite(largest(given)):
            at = np.argwhere(~np.isfinite(given))[0].tolist()
            raise InvalidModelError(f"fields{at} is {given[tuple(at)]}; every field must be finite")
        return given

    def _checked_initial(self, initial: Any) -> NDArray[np.int32]:
        rows = self._rows("initial", initial)
        wrong = ~self._legal(rows)
        if wrong.any():
            chain, site = (int(k) for k in np.argwhere(wrong)[0])
            raise InvalidModelError(f"initial[{chain}, {site}] is {rows[chain, site]}; it must be {self._legal_text()}")
        if self.clamp is not None:
            conflict = (self.clamp != self.free_value) & (self.clamp != rows)
            if conflict.any():
                chain, site = (int(k) for k in np.argwhere(conflict)[0])
                raise InvalidModelError(
                    f"site {site} of chain {chain} is clamped to one value and starts at another; leave it out of"
                    " initial, or give both the same value"
                )
        return rows

    # File form

    def to_arrays(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """The request as a JSON-ready header and arrays."""
        header, arrays = model_to_arrays(self.model)
        optional = {"clamp": self.clamp, "job_fields": self.fields, "initial": self.initial}
        arrays.update({name: array for name, array in optional.items() if array is not None})
        header["schedule"] = self.schedule.model_dump(mode="json")
        header["observe"] = sorted(self.observe)
        header["budget"] = None if self.budget is None else self.budget.model_dump(exclude_none=True)
        header |= {name: getattr(self, name) for name in _PLAIN}
        return header, arrays

    @property
    def key(self) -> str:
        """A digest of everything that decides the result: not of priority, threads or instruction set."""
        schedule, budget = vars(self.schedule), None if self.budget is None else dict(vars(self.budget))
        if budget is not None and budget["ess"] is None:
            del budget["ess"]  # it came later: jobs without it keep their keys
        text = (self.model.key, schedule, sorted(self.observe), self.seed, budget, self.on_overflow)
        digest = hashlib.blake2b(repr((*text, self.embed, self.partial)).encode(), digest_size=16)
        for name in ("clamp", "fields", "initial"):
            array = getattr(self, name)
            if array is not None:
                digest.update(f"{name}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def to_bytes(self) -> bytes:
        """The request as the bytes of one npz file without pickle."""
        return pack_archive(REQUEST_FORMAT, REQUEST_VERSION, *self.to_arrays())

    @classmethod
    def from_bytes(cls, content: bytes, *, name: str | Path = "the request", limit_bytes: int | None = None) -> Self:
        """Read what `to_bytes` made; every check runs again.

        Args:
            content: the bytes.
            name: what to call them in messages.
            limit_bytes: refuse, before unpacking, what would unpack to more than this.

        Raises:
            FileFormatError: truncated, too large, of another format or version, or no valid request.
        """
        header, arrays = unpack_archive(content, REQUEST_FORMAT, REQUEST_VERSION, name, limit_bytes=limit_bytes)
        return cls.from_arrays(header, arrays, name)

    @classmethod
    def from_arrays(cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], name: str | Path) -> Self:
        """Read what `to_arrays` made; every check runs again.

        Raises:
            FileFormatError: they do not make a request.
        """
        model = model_from_arrays(header, arrays, name)
        try:
            return cls(
                model=model,
                schedule=SCHEDULES[header["schedule"]["kind"]](**header["schedule"]),
                clamp=arrays.get("clamp"),
                fields=arrays.get("job_fields"),
                initial=arrays.get("initial"),
                observe=frozenset(header["observe"]),
                budget=None if header["budget"] is None else Budget(**header["budget"]),
                **{name: header[name] for name in _PLAIN},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FileFormatError(f"{name} does not hold a valid job request: {error!r}") from error

    def save(self, path: str | Path) -> None:
        """Write the request as one npz file without pickle."""
        write_bytes(path, self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote; raises as `from_bytes` does, or OSError."""
        return cls.from_bytes(Path(path).read_bytes(), name=path)


_PLAIN = (
    "seed", "priority", "on_overflow", "embed", "partial", "threads", "isa", "owner", "idempotency_key", "reuse"
)  # fmt: skip


def _check_name(name: str, value: object) -> None:
    """Names go into files, logs and headers: short, printable, no spaces at the ends."""
    if value is None:
        return
    if not isinstance(value, str) or not 1 <= len(value) <= 128 or not value.isprintable() or value != value.strip():
        raise InvalidModelError(f"{name} must be a printable text of 1 to 128 characters, not {value!r}")


def check_seed(seed: object) -> int | None:
    """A seed as an int, or None.

    Raises:
        InvalidModelError: not an integer from 0 to 2^64 - 1.
    """
    return None if seed is None else whole_number("seed", seed, 0, 2**64 - 1)


def _observe(observe: Any) -> frozenset[Observable]:
    try:
        wanted = {observe} if isinstance(observe, str) else set(observe)
    except TypeError as error:
        raise InvalidModelError(f"observe must be a set of {', '.join(OBSERVABLES)}, not {observe!r}") from error
    if not wanted or wanted - set(OBSERVABLES):
        raise InvalidModelError(f"observe is {sorted(map(str, wanted))}; choose among {', '.join(OBSERVABLES)}")
    return frozenset(name for name in OBSERVABLES if name in wanted)


def _as_pairs(clamp: Any) -> list[tuple[Any, Any]] | None:
    """(site, value) pairs of a mapping or a list of pairs; None for an array."""
    if isinstance(clamp, Mapping):
        return list(clamp.items())
    if isinstance(clamp, np.ndarray):
        return None
    if isinstance(clamp, Iterable) and not isinstance(clamp, list | tuple | str):
        clamp = list(clamp)
    if isinstance(clamp, list | tuple) and all(isinstance(item, tuple) and len(item) == 2 for item in clamp):
        return list(clamp)
    return None


def _at(row: NDArray[np.int32], site: int, value: int) -> NDArray[np.int32]:
    changed = row.copy()
    changed[site] = value if -(2**31) <= value < 2**31 else -(2**31)
    return changed
