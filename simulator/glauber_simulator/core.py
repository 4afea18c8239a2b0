"""The C core from Python: allocate, call, check the code, return numpy.

`ffi` and `lib` are used here, in chip_core.py and in lanes.py, and nowhere else.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from glauber.compile import TICKS, AnyProgram, Clock, PottsProgram, Program, Resample, Run
from glauber.driver import Events, Resamplings
from glauber.errors import InvalidModelError, ModelNotSupportedError
from glauber.samples import Moments
from numpy.typing import NDArray

from glauber_simulator._core import ffi, lib
from glauber_simulator.session import potts_dtype

CONTRACT_VERSION: int = lib.glb_contract_version()
ISA_LEVELS: tuple[str, ...] = ("portable", "sse2", "avx2", "avx512", "avx512icl", "neon")
"""Instruction sets by number. All give the same samples."""
AVAILABLE_ISA: tuple[str, ...] = tuple(name for k, name in enumerate(ISA_LEVELS) if lib.glb_isa_available(k))
BEST_ISA: str = ISA_LEVELS[lib.glb_isa_best()]
KERNELS: tuple[str, ...] = (
    *("auto", "exact", "bits", "sites", "bytes", "filter", "dense", "diagonals", "independent"),
    *("events", "incremental", "lattice", "chip"),
)
"""Ways to compute the same samples, by number."""
MAX_THREADS = 256

_MESSAGES = {
    lib.GLB_E_SIZE: "a size is out of range",
    lib.GLB_E_ORDER: "the update order is not a colouring of all sites",
    lib.GLB_E_INDEX: "an index is out of range",
    lib.GLB_E_LOOP: "a site is its own neighbour",
    lib.GLB_E_COLOUR: "two neighbours have the same colour",
    lib.GLB_E_RANGE: "a sum of coefficients reaches 2^30 steps, or a temperature is too low",
    lib.GLB_E_KERNEL: "the kernel that was asked for does not fit it",
    lib.GLB_E_ROOM: "more happened in one sweep than one run in 10^30 needs memory for",
    lib.GLB_E_ALLOWED: "a site allows no state, or is clamped to one that it does not allow",
}


def ensure(code: int) -> None:
    """Turn an error code of the core into an exception."""
    if code == lib.GLB_E_THREAD:
        raise RuntimeError("a thread could not be started; ask for fewer threads")
    if code < 0:
        raise InvalidModelError(f"the C core refused the job: {_MESSAGES.get(code, f'error {code}')}")


def isa_number(name: str | None) -> int:
    """The number of an instruction set by name; for None the one that GLAUBER_ISA names, else the best one here.

    Raises:
        ModelNotSupportedError: this machine does not have it.
    """
    wanted = os.environ.get("GLAUBER_ISA", BEST_ISA) if name is None else name
    if wanted not in AVAILABLE_ISA:
        raise ModelNotSupportedError(f"isa={wanted!r} is not available here; there is {', '.join(AVAILABLE_ISA)}")
    return ISA_LEVELS.index(wanted)


def kernel_number(name: str | None) -> int:
    """The number of a kernel by name, 0 (the fastest that fits) for None.

    Raises:
        ModelNotSupportedError: there is none of that name.
    """
    if name is not None and name not in KERNELS:
        raise ModelNotSupportedError(f"kernel={name!r} does not exist; there are {', '.join(KERNELS)}")
    return 0 if name is None else KERNELS.index(name)


def threefry(key: NDArray[np.uint32], counter: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The core's generator, for tests: four words from four key words and four counter words."""
    out = np.empty(4, dtype=np.uint32)
    lib.glb_test_threefry(
        ffi.from_buffer("uint32_t[]", key), ffi.from_buffer("uint32_t[]", counter), ffi.from_buffer("uint32_t[]", out)
    )
    return out


def threshold(field: int, b: int) -> int:
    """The core's threshold function, for tests."""
    return int(lib.glb_test_threshold(field, b))


def exp2(x: int) -> int:
    """The core's 2^62 * 2^(-x / 2^32), for tests."""
    return int(lib.glb_test_exp2(x))


def room_for_events(clock: Clock) -> tuple[int, int]:
    """Updates of a chain in a sweep, and flips in a sweep and its delay, that memory is kept for.

    Both are at most Poisson variables; one of mean m exceeds m + 12 sqrt(m) + 100 with a probability below 1e-30
    (Chernoff's bound exp(-x^2 / (2 (m + x / 3))) for x above the mean).
    """

    def bound(mean: float) -> int:
        return int(mean + 12 * mean**0.5) + 100

    return bound(clock.mean), bound(clock.mean * (1 + clock.delay / TICKS)) if clock.delay else 0


class Arrays:
    """Keeps the numpy arrays that C structures point to alive as long as itself."""

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def pointer(self, kind: str, array: NDArray[np.generic] | None) -> Any:
        """A C pointer to an array, or NULL for None."""
        if array is None:
            return ffi.NULL
        buffer = ffi.from_buffer(f"{kind}[]", np.ascontiguousarray(array))
        self._kept.append(buffer)
        return buffer


class _CoreSession(Arrays):
    """What Ising and Potts runs share: the run structure, the output structure, the moments' sample count."""

    def __init__(self, run: Run, n_threads: int) -> None:
        super().__init__()
        self._run = run
        self._isa = isa_number(run.isa)
        self._c_run = ffi.new("glb_run *")
        self._c_run.seed = run.seed
        self._c_run.stream = run.stream
        self._c_run.layout = run.layout
        self._c_run.n_chains = run.n_chains
        self._c_run.first_chain = run.first_chain
        self._c_run.b = self.pointer("uint64_t", run.b)
        self._c_run.n_b = len(run.b)
        self._c_run.n_threads = n_threads
        self._c_run.isa = self._isa
        self._c_run.dynamics = lib.GLB_BY_METROPOLIS if run.dynamics == "metropolis" else lib.GLB_BY_HEAT_BATH
        if run.exchange is not None:
            self._c_run.n_ladders = run.exchange.n_ladders
            self._c_run.moves_every = run.exchange.every
        if run.resample is not None:
            self._c_run.moves_every = run.resample.every
        self._output = ffi.new("glb_output *")
        self._wants_moments = "moments" in run.observe
        self._wants_samples = "samples" in run.observe
        self._n_moments = run.initial_moments[0] if run.initial_moments is not None else 0


def aligned(n_bytes: int) -> NDArray[np.uint8]:
    """Zeroed memory that begins at a multiple of 64 bytes, as the core's vectors want it."""
    raw = np.zeros(n_bytes + 64, dtype=np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + n_bytes]


def by_position(values: NDArray[Any], program: AnyProgram) -> NDArray[Any]:
    """Rows by site -> by position; the same array where sites are in order, as all are that have no edges."""
    return values if len(program.order.neighbour) == 0 else values[program.order.site]


class IsingNet(Arrays):
    """An Ising program in the core's form, checked and made once however often it is run."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        order = program.order
        self.program = program
        self.c = ffi.new("glb_ising *")
        self.c.n_sites = program.n_sites
        self.c.n_colours = len(order.colour_start) - 1
        self.c.colour_start = self.pointer("int32_t", order.colour_start)
        self.c.site = self.pointer("int32_t", order.site)
        self.c.position = self.pointer("int32_t", order.position)
        self.c.row_start = self.pointer("int64_t", order.row_start)
        self.c.neighbour = self.pointer("int32_t", order.neighbour)
        self.c.weight = self.pointer("int32_t", program.weight)
        self.c.field = self.pointer("int32_t", by_position(program.field, program))
        self.c.n_edges = program.n_edges
        self.c.edge = self.pointer("int32_t", order.position[program.edges])
        self.traits = ffi.new("glb_traits *")
        ensure(lib.glb_ising_check(self.c, self.traits))
        self._forms: dict[tuple[int, int, int, int], NDArray[np.uint8]] = {}
        self._planes: dict[tuple[int, int], NDArray[np.uint8]] = {}

    def form(self, plan: Any) -> NDArray[np.uint8]:
        """The program in the form of a plan's kernel."""
        key = (plan.kernel, plan.isa, plan.width, plan.words)
        if key not in self._forms:
            size = int(lib.glb_ising_net_bytes(self.c, self.traits, plan))
            ensure(size)
            made = aligned(size)
            ensure(lib.glb_ising_net(self.c, self.traits, plan, ffi.from_buffer("uint8_t[]", made)))
            self._forms[key] = made
        return self._forms[key]

    def scratch(self, plan: Any) -> NDArray[np.uint8]:
        """Working memory for a run; that of sites without edges keeps their thresholds for the next run."""
        if KERNELS[plan.kernel] != "independent":
            return aligned(plan.scratch_bytes)
        key = (plan.isa, plan.scratch_bytes)
        if key not in self._planes:
            self._planes = {key: aligned(plan.scratch_bytes)}
        return self._planes[key]


class IsingSession(_CoreSession):
    """An Ising run in progress on the C core."""

    def __init__(self, net: IsingNet, run: Run, n_threads: int) -> None:
        super().__init__(run, n_threads)
        program, order = net.program, net.program.order
        self._c_run.kernel = kernel_number(run.kernel)
        self._net = net  # keeps alive what self._c points to
        self._c = net.c
        self._n_sites = program.n_sites
        self._bytes = (program.n_sites + 7) // 8
        self._offset = run.first_chain % 32 if run.layout == 0 else 0
        length = self._offset + run.n_chains if run.layout == 0 else program.n_sites
        shape = (program.n_sites if run.layout == 0 else run.n_chains, -(-length // 32) * 32)
        self._c_run.chain_field = self.pointer("int32_t", self._by_lane(run.fields, order.site, shape))
        clamp = None if run.clamp is None else run.clamp.astype(np.int8)
        self._c_run.clamp = self.pointer("int8_t", self._by_lane(clamp, order.site, shape))
        if run.clock is not None:
            self._set_clock(run.clock, program)
        self._fit_out(shape[1])
        self._plan = ffi.new("glb_plan *")
        ensure(lib.glb_ising_plan(self._c, net.traits, self._c_run, self._plan))
        self._form = ffi.from_buffer("uint8_t[]", net.form(self._plan))
        self._state = ffi.from_buffer("uint8_t[]", aligned(self._plan.state_bytes))
        self._scratch = ffi.from_buffer("uint8_t[]", net.scratch(self._plan))
        self._prepare_moments(program)
        self._exchanges: NDArray[np.int64] | None = None
        self._resamplings: Resamplings | None = None
        self._updates: NDArray[np.int64] | None = None
        initial = None if run.initial is None else np.ascontiguousarray(run.initial, dtype=np.uint8)
        packed = ffi.NULL if initial is None else ffi.from_buffer("uint8_t[]", initial)
        ensure(lib.glb_ising_start(self._c, self._c_run, self._plan, packed, self._state))

    def _fit_out(self, lanes: int) -> None:
        """What a run of another kind needs before it is planned; rows have so many lanes."""

    def _by_lane(
        self, values: NDArray[Any] | None, site: NDArray[np.int32], shape: tuple[int, int]
    ) -> NDArray[Any] | None:
        """(n_chains or 1, n_sites) by site -> the state's shape by position; 0 in the lanes that are nobody's."""
        if values is None:
            return None
        if self._run.layout == 1 and values.shape == shape and self._net.traits.in_order:
            return values
        lanes = np.zeros(shape, dtype=values.dtype)
        if self._run.layout == 0:
            lanes[:, self._offset : self._offset + self._run.n_chains] = values[:, site].T
        else:
            lanes[:, : self._n_sites] = values if self._net.traits.in_order else values[:, site]
        return lanes

    def _prepare_moments(self, program: Program) -> None:
        self._sites: NDArray[np.int64] | None = None
        self._edges: NDArray[np.int64] | None = None
        if not self._wants_moments:
            return
        chains = self._run.n_chains
        self._sites = np.zeros((program.n_sites, chains), dtype=np.int64)
        self._edges = np.zeros((program.n_edges, chains), dtype=np.int64)
        if self._run.initial_moments is not None:
            _, sites, edges = self._run.initial_moments
            self._sites[:] = sites.T
            if edges is not None:
                self._edges[:] = edges.T
        self._output.site_sum = ffi.from_buffer("int64_t[]", self._sites)
        self._output.edge_sum = ffi.from_buffer("int64_t[]", self._edges)
        room = aligned(int(lib.glb_ising_history_bytes(self._c, self._c_run, self._plan)))
        self._output.history = self.pointer("uint8_t", room)

    @property
    def facts(self) -> dict[str, str]:
        """The kernel and the instruction set."""
        return {"kernel": f"ising, {KERNELS[self._plan.kernel]}", "isa": ISA_LEVELS[self._isa], "body": "C core"}

    def advance(self, first_sweep: int, n_sweeps: int, every: int) -> NDArray[np.uint8]:
        """See Session.advance."""
        count = n_sweeps // every if every else 0
        kept = count if self._wants_samples else 0
        samples = np.empty((self._run.n_chains, kept, self._bytes), dtype=np.uint8)
        self._output.every = every
        self._output.n_samples = kept
        self._output.samples = ffi.from_buffer("uint8_t[]", samples) if kept else ffi.NULL
        if self._run.exchange is not None:
            self._exchanges = np.zeros((len(self._run.b) - 1, 2), dtype=np.int64)
            self._output.exchanges = ffi.from_buffer("int64_t[]", self._exchanges)
        if self._run.clock is not None:
            self._updates = np.zeros(self._n_sites, dtype=np.int64)
            self._output.updates = ffi.from_buffer("int64_t[]", self._updates)
        if self._run.resample is not None:
            self._resamplings = self._room_for_resamplings(first_sweep, n_sweeps, self._run.resample)
        ensure(
            lib.glb_ising_sweep(
                self._c,
                self._c_run,
                self._plan,
                self._form,
                self._state,
                self._scratch,
                first_sweep,
                n_sweeps,
                self._output,
            )
        )
        self._n_moments += count
        return samples

    def state(self) -> NDArray[np.uint8]:
        """See Session.state."""
        packed = np.empty((self._run.n_chains, self._bytes), dtype=np.uint8)
        target = ffi.from_buffer("uint8_t[]", packed)
        ensure(lib.glb_ising_pack(self._c, self._c_run, self._plan, self._state, target))
        return packed

    def moments(self) -> Moments | None:
        """See Session.moments."""
        if self._sites is None or self._edges is None:
            return None
        # copied as they lie: transposing in memory takes far longer
        return Moments(self._n_moments, self._sites.copy().T, self._edges.copy().T)

    def exchanges(self) -> NDArray[np.int64] | None:
        """See Session.exchanges."""
        return self._exchanges

    def _room_for_resamplings(self, first_sweep: int, n_sweeps: int, resample: Resample) -> Resamplings:
        """Arrays for those of the sweeps to come, with the families so far."""
        last = min(first_sweep + n_sweeps, len(self._run.b))
        count = max(0, (last - 1) // resample.every - (first_sweep - 1) // resample.every)
        if self._resamplings is not None:
            families = self._resamplings.families.copy()
        elif resample.families is not None:
            families = resample.families.copy()
        else:
            families = np.arange(self._run.n_chains, dtype=np.int32)
        room = Resamplings(np.zeros(count, np.int64), np.zeros(count, np.uint64), families)
        self._output.lowest = ffi.from_buffer("int64_t[]", room.lowest)
        self._output.weights = ffi.from_buffer("uint64_t[]", room.weights)
        self._output.family = ffi.from_buffer("int32_t[]", room.families)
        return room

    def resamplings(self) -> Resamplings | None:
        """See Session.resamplings."""
        return self._resamplings

    def _set_clock(self, clock: Clock, program: Program) -> None:
        """Asynchronous p-bits."""
        self._clock = ffi.new("glb_clock *")
        self._clock.rate = self.pointer("int32_t", clock.rate[program.order.site])
        self._clock.counts = self.pointer("uint64_t", clock.counts)
        self._clock.n_rates, self._clock.n_counts = clock.counts.shape
        self._clock.delay = clock.delay
        self._clock.room, self._clock.room_for_flips = room_for_events(clock)
        if clock.in_flight is not None:
            rows = clock.in_flight.copy()
            rows[:, 1] = program.order.position[rows[:, 1]]
            self._clock.n_in_flight = len(rows)
            self._clock.in_flight = self.pointer("int64_t", rows)
        self._c_run.clock = self._clock

    def events(self) -> Events | None:
        """See Session.events."""
        if self._updates is None:
            return None
        n = int(lib.glb_events_in_flight(self._c_run, self._plan, self._state, ffi.NULL))
        rows = np.empty((n, 3), dtype=np.int64)
        target = ffi.from_buffer("int64_t[]", rows) if n else ffi.NULL
        lib.glb_events_in_flight(self._c_run, self._plan, self._state, target)
        rows[:, 1] = self._net.program.order.site[rows[:, 1]]
        return Events(self._updates, rows)


class PottsNet(Arrays):
    """A Potts program in the core's form, made once however often it is run."""

    def __init__(self, program: PottsProgram) -> None:
        super().__init__()
        order = program.order
        self.program = program
        self.c = ffi.new("glb_potts *")
        self.c.n_sites = program.n_sites
        self.c.n_states = program.n_states
        self.c.n_colours = len(order.colour_start) - 1
        self.c.colour_start = self.pointer("int32_t", order.colour_start)
        self.c.site = self.pointer("int32_t", order.site)
        self.c.row_start = self.pointer("int64_t", order.row_start)
        self.c.neighbour = self.pointer("int32_t", order.neighbour)
        self.c.weight = self.pointer("int32_t", program.weight)
        self.c.table_start = self.pointer("int64_t", program.table_start)
        self.c.table = self.pointer("int32_t", program.table)
        self.c.table_size = 0 if program.table is None else len(program.table)
        self.c.field = self.pointer("int32_t", by_position(program.field, program))
        allowed = None if program.allowed is None else by_position(program.allowed, program).astype(np.uint8)
        self.c.allowed = self.pointer("uint8_t", allowed)
        self.check(self.c)

    def check(self, program: Any) -> None:
        """Refuse a program in the core's form that is out of range."""
        ensure(lib.glb_potts_check(program, ffi.new("int64_t *")))


class PottsSession(_CoreSession):
    """A Potts run in progress on the C core."""

    def __init__(self, net: PottsNet, run: Run, n_threads: int) -> None:
        super().__init__(run, n_threads)
        program = net.program
        self._net = net  # keeps alive what self._c points to
        self._c = net.c
        self._program = program
        self._dtype = potts_dtype(program.n_states)
        if run.fields is not None and len(run.fields) == 1:  # one row for all chains: in place of the program's
            self._c = ffi.new("glb_potts *", net.c[0])
            self._c.field = self.pointer("int32_t", by_position(run.fields[0], program))
            net.check(self._c)
        else:
            self._c_run.chain_field = self.pointer("int32_t", self._by_position(run.fields))
        clamp = None if run.clamp is None else self._by_position(run.clamp.astype(np.int32))
        self._c_run.potts_clamp = self.pointer("int32_t", clamp)
        ensure(lib.glb_potts_check_run(self._c, self._c_run))
        self._state = np.zeros((run.n_chains, program.n_sites), dtype=np.int32)
        self._c_run.kernel = KERNELS.index("exact") if run.kernel == "exact" else 0
        self._scratch = aligned(int(lib.glb_potts_scratch(self._c, self._c_run)))
        self._counts: NDArray[np.int64] | None = None
        if self._wants_moments:
            self._counts = np.zeros((run.n_chains, program.n_sites, program.n_states), dtype=np.int64)
            if run.initial_moments is not None:
                self._counts[:] = run.initial_moments[1]
            self._output.site_sum = ffi.from_buffer("int64_t[]", self._counts)
        initial = None if run.initial is None else self._by_position(run.initial.astype(np.int32))
        start = ffi.NULL if initial is None else ffi.from_buffer("int32_t[]", initial)
        ensure(lib.glb_potts_start(self._c, self._c_run, start, ffi.from_buffer("int32_t[]", self._state)))

    def _by_position(self, values: NDArray[Any] | None) -> NDArray[Any] | None:
        """(n_chains or 1, n_sites, ...) by site -> (n_chains, n_sites, ...) by position."""
        if values is None:
            return None
        wide = np.broadcast_to(values, (self._run.n_chains, *values.shape[1:]))
        return np.ascontiguousarray(wide if self._program.n_edges == 0 else wide[:, self._program.order.site])

    @property
    def facts(self) -> dict[str, str]:
        """The kernel."""
        form = "tables" if self._program.table is not None else "equal-state weights"
        return {"kernel": f"potts, {form}", "isa": ISA_LEVELS[self._isa], "body": "C core"}

    def advance(self, first_sweep: int, n_sweeps: int, every: int) -> NDArray[np.unsignedinteger]:
        """See Session.advance."""
        count = n_sweeps // every if every else 0
        kept = count if self._wants_samples else 0
        samples = np.empty((self._run.n_chains, kept, self._program.n_sites), dtype=np.int32)
        self._output.every = every
        self._output.n_samples = kept
        ensure(
            lib.glb_potts_sweep(
                self._c,
                self._c_run,
                ffi.from_buffer("int32_t[]", self._state),
                ffi.from_buffer("uint8_t[]", self._scratch),
                first_sweep,
                n_sweeps,
                self._output,
                ffi.from_buffer("int32_t[]", samples) if kept else ffi.NULL,
            )
        )
        self._n_moments += count
        return samples.astype(self._dtype)

    def state(self) -> NDArray[np.unsignedinteger]:
        """See Session.state."""
        by_site = np.empty(self._state.shape, dtype=self._dtype)
        by_site[:, self._program.order.site] = self._state
        return by_site

    def moments(self) -> Moments | None:
        """See Session.moments."""
        return None if self._counts is None else Moments(self._n_moments, self._counts.copy(), None)

    def exchanges(self) -> None:
        """See Session.exchanges."""

    def resamplings(self) -> None:
        """See Session.resamplings."""

    def events(self) -> None:
        """See Session.events."""
