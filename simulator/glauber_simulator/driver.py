"""The simulated device: any catalogue entry by name, and `sim://ideal`, on the C core or on the reference.

The simulator follows the entry's graph, precision and ranges; what its maker does not publish is assumed, and every
result's provenance lists the assumptions.
"""

from __future__ import annotations

import os
import time
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from glauber.catalogue import catalogue_names, load_spec
from glauber.compile import AnyProgram, PottsProgram, Run
from glauber.driver import Address, Batch, Incumbent, OptimiseRequest
from glauber.errors import DeviceNotFoundError, ModelNotSupportedError
from glauber.spec import AnySpec, Method
from glauber.topology import OffsetGrid
from pydantic import ValidationError

from glauber_simulator import core
from glauber_simulator.events import EventsReference
from glauber_simulator.optimise import optimise
from glauber_simulator.reference import IsingReference, PottsReference
from glauber_simulator.session import Session, potts_dtype

BATCH_SECONDS = 0.05
"""How long a batch should take: often enough for progress bars and Ctrl-C, rarely enough to cost nothing."""
BATCH_READINGS = 10
"""A batch takes at least this many times as long as reading its state and moments, which may be 100 MB."""
ASSUMED_UPDATES_PER_SECOND = 2e7
"""For the first batch only; every later one goes by the measured rate."""
REFERENCE_UPDATES_PER_SECOND = 2e4
"""The same for the reference in NumPy, which could else not be cancelled for a minute."""
THREADED_UPDATES = 2_000_000
"""Updates per sweep from which all cores pay for their barrier."""

PARAMETERS = ("weight_bits", "width", "height", "body")


class SimulatorDriver:
    """A driver that computes.

    Attributes:
        spec: the description it follows.
        body: "core" or "reference".
        facts: what every result's provenance should say beside the kernel, such as an assumed graph.
    """

    def __init__(self, spec: AnySpec, body: str = "core", facts: Mapping[str, str] | None = None) -> None:
        self.spec = spec
        self.facts = dict(facts or {})
        self.body = body
        self.contract_version = core.CONTRACT_VERSION
        self._program: AnyProgram | None = None
        self._net: core.IsingNet | core.PottsNet | None = None

    def program(self, program: AnyProgram) -> None:
        """See Driver.program."""
        self._program, self._net = program, None
        if self.body == "core":
            self._net = core.PottsNet(program) if isinstance(program, PottsProgram) else core.IsingNet(program)

    def admit(self, run: Run, program: AnyProgram) -> int:
        """See Driver.admit."""
        core.isa_number(run.isa)
        if isinstance(program, PottsProgram):
            moments = 8 * program.n_states if "moments" in run.observe else 0
            fields = 0 if run.fields is None else 4 * program.n_states
            clamp = 0 if run.clamp is None else 4
            cell = 4 + potts_dtype(program.n_states)(0).itemsize + 2 * moments + fields + clamp
            return run.n_chains * program.n_sites * cell + 16 * program.n_states * self._threads(run, program)
        lanes = -(-(run.n_chains if run.layout == 0 else program.n_sites) // 32) * 32
        cells = lanes * (program.n_sites if run.layout == 0 else run.n_chains)
        held = 1 + 1 / 8 + (0 if run.clamp is None else 1) + (0 if run.fields is None else 4)
        moments = 8 * run.n_chains * (program.n_sites + program.n_edges) if "moments" in run.observe else 0
        moments += 4 * cells if "moments" in run.observe else 0  # 64 states, and counted twice below
        dense = 8 * program.n_sites**2 if self.body == "reference" else 0
        moves = 0 if run.exchange is None else 12 * lanes + 1024 * len(run.b)
        moves += 0 if run.resample is None else 16 * lanes + cells // 8
        if run.clock is not None:
            updates, flips = core.room_for_events(run.clock)
            moves += run.n_chains * (lanes + 16 * flips) + self._threads(run, program) * (32 * updates + 8 * lanes)
        net = moves + 24 * program.n_edges + 16 * program.n_sites  # the program once more, in the kernel's form
        if run.layout == 1 and 16 * program.n_edges >= program.n_sites**2:
            net += 4 * program.n_sites**2  # as a matrix
        return int(cells * held) + 2 * moments + dense + net

    def _threads(self, run: Run, program: AnyProgram) -> int:
        if run.threads is not None:
            return min(run.threads, core.MAX_THREADS)
        return min(os.cpu_count() or 1, 64) if program.n_sites * run.n_chains >= THREADED_UPDATES else 1

    def _session(self, run: Run, program: AnyProgram) -> Session:
        if self._net is None:
            if isinstance(program, PottsProgram):
                return PottsReference(program, run)
            return IsingReference(program, run) if run.clock is None else EventsReference(program, run)
        threads = self._threads(run, program)
        if isinstance(self._net, core.PottsNet):
            return core.PottsSession(self._net, run, threads)
        return core.IsingSession(self._net, run, threads)

    def run(self, run: Run) -> Iterator[Batch]:
        """See Driver.run. Batches grow or shrink to BATCH_SECONDS; where they are cut changes no sample."""
        program = self._program
        if program is None:
            raise ModelNotSupportedError("nothing is programmed; call program() before run()")
        session = self._session(run, program)
        facts = {**session.facts, **self.facts}
        thin, done = run.sweeps_per_sample, run.first_sweep - 1
        assumed = REFERENCE_UPDATES_PER_SECOND if self._net is None else ASSUMED_UPDATES_PER_SECOND
        limit = max(1, int(assumed * BATCH_SECONDS / (program.n_sites * run.n_chains)))
        while done < run.n_sweeps:
            sweeps, every = run.next_batch(done, limit)
            first_sample = max(0, done - run.n_warmup) // thin
            began = time.perf_counter()
            samples = session.advance(done + 1, sweeps, every)
            seconds = max(1e-6, time.perf_counter() - began)
            done += sweeps
            began = time.perf_counter()
            state, moments = session.state(), session.moments()
            wanted = max(BATCH_SECONDS, BATCH_READINGS * (time.perf_counter() - began))
            limit = max(1, min(4 * limit, int(sweeps * wanted / seconds)))
            yield Batch(
                next_sweep=done + 1,
                first_sample=first_sample,
                n_samples=sweeps // every if every else 0,
                samples=samples if every and "samples" in run.observe else None,
                state=state,
                moments=moments,
                facts=facts,
                exchanges=session.exchanges(),
                resamplings=session.resamplings(),
                events=session.events(),
            )

    def close(self) -> None:
        """See Driver.close."""
        self._program = self._net = None


class IdealDriver(SimulatorDriver):
    """The simulator of no chip in particular, which solves as this computer does best."""

    def optimise(self, request: OptimiseRequest) -> Iterator[Incumbent]:
        """See Optimiser."""
        return optimise(request)


def with_parameters(spec: AnySpec, parameters: dict[str, str]) -> AnySpec:
    """A spec changed by an address's parameters: weight_bits, and width and height of a grid.

    Raises:
        DeviceNotFoundError: a parameter that is unknown or does not parse.
    """
    unknown = set(parameters) - set(PARAMETERS)
    if unknown:
        raise DeviceNotFoundError(
            f"sim://{spec.name} does not know {', '.join(sorted(unknown))}; there are seed, {', '.join(PARAMETERS)}"
        )
    changes: dict[str, Any] = {}
    numbers = {name: _whole(spec.name, name, parameters[name]) for name in PARAMETERS[:3] if name in parameters}
    try:
        if "weight_bits" in numbers:
            asked = {"weight_bits": numbers["weight_bits"], "provenance": "assumed", "source": "the device's address"}
            changes["coefficients"] = type(spec.coefficients)(**{**spec.coefficients.model_dump(), **asked})
        if "width" in numbers or "height" in numbers:
            rules = spec.topology.rules if isinstance(spec.topology, OffsetGrid) else spec.grid_rules
            if rules is None:
                raise DeviceNotFoundError(f"sim://{spec.name} is no offset grid: width and height mean nothing there")
            if len(numbers.keys() & {"width", "height"}) < 2:
                raise DeviceNotFoundError(
                    f"a grid for {spec.name} needs both, as in sim://{spec.name}?width=24&height=24"
                )
            changes["topology"] = OffsetGrid(width=numbers["width"], height=numbers["height"], rules=rules)
            changes["topology_note"] = "width and height assumed, from the device's address"
    except ValidationError as error:
        raise DeviceNotFoundError(f"sim://{spec.name}: {error.errors()[0]['msg']}") from error
    return spec.model_copy(update=changes)


def _whole(device: str, name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise DeviceNotFoundError(f"sim://{device}?{name}={text}: {name} must be a whole number")
    return int(text)


class SimulatorFactory:
    """Opens `sim://NAME?weight_bits=...&width=...&height=...&body=core|reference`."""

    def open(self, address: Address) -> SimulatorDriver:
        """See DriverFactory.open."""
        if not address.name:
            raise DeviceNotFoundError(
                "sim:// needs a device's name: sim://ideal takes any model, sim://pbit-king-64 is a small chip;"
                f" there are {', '.join(catalogue_names())}"
            )
        spec = with_parameters(load_spec(address.name), dict(address.parameters))
        body = address.parameters.get("body", "core")
        if body not in ("core", "reference"):
            raise DeviceNotFoundError(f"body={body} is not known; there are core and reference")
        methods = typing.get_args(Method) if spec.capabilities.beta == "programmable" else ()
        able = spec.capabilities.model_copy(
            update={"deterministic": True, "chain_fields": True, "clamp": True, "methods": methods}
        )
        facts = {"assumed graph": spec.topology_note} if "width" in address.parameters else {}
        kind = IdealDriver if spec.any_graph and body == "core" else SimulatorDriver
        return kind(spec.model_copy(update={"capabilities": able}), body, facts)

    def devices(self) -> Iterable[tuple[str, AnySpec]]:
        """See DriverFactory.devices."""
        for name in catalogue_names():
            yield f"sim://{name}", load_spec(name)

    def about(self) -> dict[str, Any]:
        """What this computer's core is, for `glauber version`."""
        return {"machine contract": core.CONTRACT_VERSION, "instruction set": core.BEST_ISA}
