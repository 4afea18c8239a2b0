"""visa://RESOURCE, an Ising machine behind SCPI, in the dialect of docs/scpi-annealer.md.

The machine computes machine contract 1, so it returns the samples of sim://ideal for the same seed, bit for bit. What
is sent is the integer program and the integers of a run; what comes back are packed spins, in blocks.

Nothing in the dialect guards against bits that flip on a serial line: use a line that does (USB, TCP).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from glauber.compile import AnyProgram, PottsProgram, Program, Run
from glauber.driver import Address, Batch
from glauber.errors import DeviceClosedError, DeviceIOError, DeviceNotFoundError, ModelNotSupportedError, ProtocolError
from glauber.meter import EnergyMeter
from glauber.spec import AnnealerSpec, AnySpec, Capabilities, Coefficients, Quantity
from glauber.topology import EdgeList
from numpy.typing import NDArray
from pydantic import ValidationError

from glauber_drivers import scpi
from glauber_drivers.visa_link import VisaLink
from glauber_drivers.visa_meter import CounterMeter, has_counter

POLL_SECONDS = (0.001, 0.05)
"""Between two looks at a machine that has nothing new: at first, and at last."""
REPORT_SECONDS = 0.5
"""A batch without samples is reported so often."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the machine says it can hold; see CAPability."""

    p_bits: int
    couplings: int
    chains: int
    table: int
    block: int
    array: int


def read_capacity(link: VisaLink) -> Capacity:
    """Ask for it."""
    names = ("PBIT", "COUP", "CHA", "TABL", "BLOC", "ARR")
    values = [link.whole_numbers(f"CAP:{name}?")[0] for name in names]
    if min(values) < 1:
        raise ProtocolError(f"the instrument says that it holds {dict(zip(names, values, strict=True))}")
    return Capacity(*values)


def read_spec(link: VisaLink, capacity: Capacity) -> AnySpec:
    """The description that a machine gives of itself."""
    title = link.query("*IDN?")
    fields = title.split(",")
    if len(fields) != 4 or fields[3].strip() != scpi.VERSION:
        raise ProtocolError(
            f"the instrument says it is {title!r}; this driver speaks dialect {scpi.VERSION} of docs/scpi-annealer.md,"
            " the last of the four fields"
        )
    contract = link.whole_numbers("CAP:CONT?")[0]
    if contract != 1:
        raise ProtocolError(
            f"the instrument computes machine contract {contract}, this driver knows 1 (docs/machine.md)"
        )
    count = link.whole_numbers("CAP:TOP:COUN?")[0]
    pairs, at_once = [], max(1, capacity.block // 8)
    for first in range(0, count, at_once):
        part = min(at_once, count - first)
        pairs.append(np.frombuffer(link.query_block(f"CAP:TOP? {first},{part}", 8 * part), ">i4").reshape(-1, 2))
    edges = np.concatenate(pairs).tolist() if pairs else []
    try:
        topology = None if count < 0 else EdgeList(n=capacity.p_bits, edge_list=tuple(map(tuple, edges)))
        return AnnealerSpec(
            name="visa-annealer",
            title=title,
            vendor=fields[0].strip() or "unknown",
            status="prototype",
            description="an Ising machine behind SCPI, by machine contract 1",
            units=Quantity(value=capacity.p_bits, unit="p-bit", provenance="vendor", source="CAPability:PBITs?"),
            any_graph=topology is None,
            topology=topology,
            coefficients=Coefficients(
                weight_bits=link.whole_numbers("CAP:WEIG:BITS?")[0],
                field_bits=link.whole_numbers("CAP:FIEL:BITS?")[0],
                provenance="vendor",
                source="CAPability:WEIGht:BITS? and CAPability:FIELd:BITS?",
            ),
            capabilities=Capabilities(
                deterministic=True, chain_fields=True, observables=frozenset({"samples", "last"})
            ),
        )
    except ValidationError as error:
        raise ProtocolError(f"the instrument describes itself wrongly: {error.errors()[0]['msg']}") from error


class VisaDriver:
    """A driver of one instrument, which it opens at once and again after the link broke.

    Args:
        resource: VISA's name of it.

    Attributes:
        spec: what the machine says of itself.
        meter: its counter of joules, None where it has none.

    Raises:
        DeviceNotFoundError: it cannot be opened, or is no such machine.
    """

    def __init__(self, resource: str) -> None:
        self._resource = resource
        self._closed = False
        self._program: Program | None = None
        self._loaded: str | None = None
        self.contract_version = 1
        self._link: VisaLink | None = VisaLink(resource)
        try:
            self._greet(self._link)
            self._capacity = read_capacity(self._link)
            self.spec: AnySpec = read_spec(self._link, self._capacity)
            counter = has_counter(self._link)
            self.meter: EnergyMeter | None = None
            if counter:
                which = f"{self._link.query('*IDN?').strip()} at {resource}"
                self.meter = CounterMeter(self._read, self.spec.title, which)
        except DeviceIOError as error:
            self._link.close()
            raise DeviceNotFoundError(f"no Ising machine at {resource}: {error}") from error
        except BaseException:
            self._link.close()
            raise

    def _greet(self, link: VisaLink) -> None:
        """Stop and forget what an earlier controller left."""
        link.write("*RST")
        link.write("*CLS")
        link.query("*OPC?")
        self._loaded = None

    def _read(self, command: str, count: int) -> list[float]:
        """Ask for numbers beside a job; for the meter, from any thread."""
        link = self._link
        if link is None:
            raise DeviceIOError(f"the link to {self._resource} is closed; the next job opens it anew")
        return link.reals(command, count)

    @contextmanager
    def _machine(self) -> Iterator[VisaLink]:
        """The link, opened if need be; closed after an error, since nobody knows what is still on the way."""
        if self._closed:
            raise DeviceClosedError(f"{self._resource} is closed; open it again")
        try:
            if self._link is None:
                self._link = VisaLink(self._resource)
                self._greet(self._link)
            yield self._link
        except GeneratorExit:
            raise
        except BaseException as error:
            link, self._link, self._loaded = self._link, None, None
            if link is not None:
                link.close()
            if isinstance(error, DeviceNotFoundError):  # it was there before
                raise DeviceIOError(f"the instrument is gone: {error}") from error
            raise

    def program(self, program: AnyProgram) -> None:
        """See Driver.program."""
        if isinstance(program, PottsProgram):
            raise ModelNotSupportedError("the machine has p-bits, no p-dits; sim://ideal takes a PottsModel")
        self._program = program
        with self._machine() as link:
            self._load(link, program)

    def admit(self, run: Run, program: AnyProgram) -> int:
        """See Driver.admit."""
        if isinstance(program, PottsProgram):
            raise ModelNotSupportedError("the machine has p-bits, no p-dits; sim://ideal takes a PottsModel")
        if run.exchange is not None or run.resample is not None or run.clock is not None or run.dynamics != "heat bath":
            raise ModelNotSupportedError(
                "the machine samples and anneals by the heat bath; tempering, populations, Metropolis and asynchronous"
                " p-bits run on sim://ideal"
            )
        has, width = self._capacity, (program.n_sites + 7) // 8
        largest = max(0 if array is None else array.nbytes for array in (run.fields, run.clamp, run.initial))
        limits = (
            ("p-bits", program.n_sites, has.p_bits, "take a smaller model"),
            ("couplings", program.n_edges, has.couplings, "take a sparser model"),
            ("chains", run.n_chains, has.chains, "run the chains in several jobs"),
            ("temperatures", len(run.b), has.table, "anneal in fewer sweeps"),
            ("bytes of fields, clamps or starts", largest, has.array, "run the chains in several jobs"),
            ("bytes a state of all chains", run.n_chains * width + 8, has.block, "run the chains in several jobs"),
        )
        reasons = tuple(
            f"{what}: the job has {asked}, the machine {there}; {remedy}"
            for what, asked, there, remedy in limits
            if asked > there
        )
        if reasons:
            raise ModelNotSupportedError(f"the job does not fit {self.spec.title} (sim://ideal takes it):", reasons)
        return has.block + 2 * run.n_chains * width

    def _upload(self, link: VisaLink, command: str, array: NDArray[np.generic]) -> None:
        """An array in blocks, each as large as the machine takes."""
        data = array.tobytes()
        at_once = self._capacity.block // array.itemsize * array.itemsize
        for start in range(0, len(data), at_once):
            link.write(f"{command} {start // array.itemsize},", data[start : start + at_once])
        link.check(command)

    def _load(self, link: VisaLink, program: Program) -> None:
        if self._loaded == program.key:
            return
        self._loaded = None
        link.write(f"PROG:NEW {program.n_sites},{program.n_edges}")
        link.check("PROG:NEW")
        self._upload(link, "PROG:EDG", program.edges.astype(">i4").ravel())
        self._upload(link, "PROG:WEIG", program.edge_weight.astype(">i4"))
        self._upload(link, "PROG:FIEL", program.field.astype(">i4"))
        link.write("PROG:LOAD")
        link.check("PROG:LOAD")
        self._loaded = program.key

    def _set_up(self, link: VisaLink, run: Run) -> None:
        """Send the integers of a run, all of them: they are few beside the program."""
        settings = {
            "SEED": (run.seed,),
            "LAY": (run.layout,),
            "CHA": (run.n_chains, run.first_chain),
            "SWE": (run.first_sweep, run.n_warmup, run.n_samples, run.sweeps_per_sample),
            "KEEP": (int("samples" in run.observe),),
            "TABL:SIZE": (len(run.b),),
            "FIEL:SIZE": (0 if run.fields is None else len(run.fields),),
            "CLAM:SIZE": (0 if run.clamp is None else len(run.clamp),),
            "INIT:SIZE": (0 if run.initial is None else len(run.initial),),
        }
        for name, values in settings.items():
            link.write(f"RUN:{name} {','.join(map(str, values))}")
        link.check("the settings of the run")
        arrays = {
            "TABL": (run.b, ">u8"),
            "FIEL": (run.fields, ">i4"),
            "CLAM": (run.clamp, "i1"),
            "INIT": (run.initial, "u1"),
        }
        for name, (array, kind) in arrays.items():
            if array is not None:
                self._upload(link, f"RUN:{name}", array.astype(kind).ravel())

    def run(self, run: Run) -> Iterator[Batch]:
        """See Driver.run."""
        program = self._program
        if program is None:
            raise ModelNotSupportedError("nothing is programmed; call program() before run()")
        with self._machine() as link:
            self._load(link, program)
            self._set_up(link, run)
            link.write("INIT")
            link.check("INIT")
            ended = False
            try:
                for batch in self._batches(link, run, (program.n_sites + 7) // 8):
                    ended = batch.next_sweep > run.n_sweeps
                    if ended:
                        link.query("*OPC?")
                    yield batch
            except GeneratorExit:
                if not ended:
                    link.write("ABOR")
                    link.query("*OPC?")
                raise

    def _batches(self, link: VisaLink, run: Run, width: int) -> Iterator[Batch]:
        """Fetch what the machine has done, until it is done."""
        thin, keeps = run.sweeps_per_sample, "samples" in run.observe
        done, pause, reported = run.first_sweep - 1, POLL_SECONDS[0], time.monotonic()
        samples = max(0, done - run.n_warmup) // thin
        at_once = max(1, self._capacity.block // (run.n_chains * width))
        while done < run.n_sweeps:
            status = link.whole_numbers("*STB?")[0]
            if status & scpi.ERRORS:
                link.check("the run")
            sweeps, there = link.whole_numbers("RUN:PROG?", 2)
            if not (done <= sweeps <= run.n_sweeps and there <= run.n_samples):
                raise ProtocolError(f"the machine says it has done {sweeps} sweeps of {run.n_sweeps}, after {done}")
            if keeps and there > samples:
                batch = self._fetched(link, run, width, samples, min(there - samples, at_once))
                samples, done = samples + batch.n_samples, batch.next_sweep - 1
            elif sweeps > done and (not keeps or time.monotonic() - reported > REPORT_SECONDS):
                sweep, state = self._state(link, run, width)
                now = max(0, sweep - run.n_warmup) // thin
                if keeps and now > samples:
                    continue  # a sample has come meanwhile, and is fetched first
                batch = self._batch(sweep, samples, now - samples, None, state)
                samples, done = now, sweep
            elif not status & scpi.RUNNING:
                raise DeviceIOError(
                    f"the machine stopped after {sweeps} of {run.n_sweeps} sweeps without an error, as when someone"
                    " aborts it at its panel; submit the job again"
                )
            else:
                time.sleep(pause)
                pause = min(2 * pause, POLL_SECONDS[1])
                continue
            pause, reported = POLL_SECONDS[0], time.monotonic()
            yield batch

    def _fetched(self, link: VisaLink, run: Run, width: int, first: int, count: int) -> Batch:
        """A batch of samples."""
        data = link.query_block(f"FETC:SAMP? {first},{count}", run.n_chains * count * width)
        link.write(f"FETC:FREE {first + count}")
        packed = np.frombuffer(data, np.uint8).reshape(run.n_chains, count, width)
        sweep = run.n_warmup + (first + count) * run.sweeps_per_sample
        return self._batch(sweep, first, count, packed, packed[:, -1].copy())

    def _state(self, link: VisaLink, run: Run, width: int) -> tuple[int, NDArray[np.uint8]]:
        """The sweeps done, and the state after them."""
        data = link.query_block("FETC:STAT?", 8 + run.n_chains * width)
        return int.from_bytes(data[:8], "big"), np.frombuffer(data[8:], np.uint8).reshape(run.n_chains, width)

    def _batch(
        self, sweep: int, first: int, count: int, samples: NDArray[np.uint8] | None, state: NDArray[np.uint8]
    ) -> Batch:
        facts = {"kernel": "scpi, the machine's own", "body": self.spec.title}
        return Batch(sweep + 1, first, count, samples, state, None, facts)

    def close(self) -> None:
        """See Driver.close."""
        self._closed = True
        link, self._link = self._link, None
        if link is not None:
            link.close()


class VisaFactory:
    """Opens `visa://TCPIP0::HOST::PORT::SOCKET` and `visa://ASRL/dev/ttyUSB0::INSTR`."""

    def open(self, address: Address) -> VisaDriver:
        """See DriverFactory.open."""
        name = address.name
        known = (name.upper().startswith("TCPIP") and name.upper().endswith("::SOCKET")) or (
            name.upper().startswith("ASRL") and name.upper().endswith("::INSTR")
        )
        if not known or address.parameters:
            raise DeviceNotFoundError(
                f"{address.text}: an instrument is opened by its VISA name, as in visa://TCPIP0::192.168.0.7::5025::SOCKET"
                " or visa://ASRL/dev/ttyUSB0::INSTR, and takes seed=..., nothing else"
            )
        return VisaDriver(name)

    def devices(self) -> Iterable[tuple[str, AnySpec]]:
        """See DriverFactory.devices: none, since asking every instrument on a bench what it is would disturb it."""
        return ()
