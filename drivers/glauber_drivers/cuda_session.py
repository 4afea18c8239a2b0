"""A run in progress on a GPU: memory, launches, and the way of samples to the host."""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from glauber.compile import AnyProgram, PottsProgram, Run
from glauber.driver import Batch
from glauber.errors import DeviceIOError
from glauber.samples import Moments
from numpy.typing import NDArray

from glauber_drivers.cuda_job import ARRAYS, JOB, Form, job_numbers, row_words, run_arrays, state_dtype

BLOCK = 256
"""Threads in a block, but for the dense kernel's."""
DENSE_BLOCK = 512
"""GLB_DENSE_BLOCK of csrc/cuda/dense.h."""
BLOCKS_EACH = 16
"""Blocks for each multiprocessor, at most; their threads take several items each."""
FUSED_POSITIONS = 1024
"""Colours up to this size are done by one block for each word of chains, or chain, whole sweeps in one launch: a launch
takes longer than a block takes for so few. Larger ones are spread over the GPU, a launch for each colour."""
GRAPH_SWEEPS = 32
"""Launches of so many sweeps are recorded once, and launched together from then on."""
BATCH_SECONDS = 0.1
FIRST_UPDATES, FIRST_SWEEPS = 2e8, 64
"""The first batches have at most so many updates and sweeps; later ones go by the measured rate."""
MOST_SWEEPS = 20_000
"""In one launch, at most: a display's GPU ends what takes seconds."""
SAMPLE_BYTES = 1 << 26
"""Bytes of samples in a batch, at most, unless one sample has more."""


STICKY = ("IllegalAddress", "LaunchFailure", "LaunchTimeout", "IllegalInstruction", "MisalignedAddress", "Assert")
"""Parts of the names of errors after which CUDA refuses everything."""


@contextmanager
def gpu_errors(cupy: Any) -> Iterator[None]:
    """CuPy's errors as a DeviceIOError."""
    kinds = (
        cupy.cuda.runtime.CUDARuntimeError,
        cupy.cuda.driver.CUDADriverError,
        cupy.cuda.memory.OutOfMemoryError,
        cupy.cuda.compiler.CompileException,
        RuntimeError,  # NVRTC is missing; a stream of another device
    )
    try:
        yield
    except kinds as error:
        hint = ""
        if any(name in str(error) for name in STICKY):
            hint = "; nothing more runs on this GPU in this process: start Python again"
        raise DeviceIOError(f"the GPU failed: {error}{hint}") from error


class Gpu:
    """One GPU with the kernels loaded.

    Args:
        cupy: the package.
        number: of the GPU.
        sources: folder of the kernels.

    Attributes:
        stream: for kernels; copies: for samples on their way to the host.
    """

    def __init__(self, cupy: Any, number: int, sources: Path) -> None:
        self.cupy = cupy
        self._device = cupy.cuda.Device(number)
        self.multiprocessors = int(cupy.cuda.runtime.getDeviceProperties(number)["multiProcessorCount"])
        with self._device:
            self.stream = cupy.cuda.Stream(non_blocking=True)
            self.copies = cupy.cuda.Stream(non_blocking=True)
            # CuPy keeps compiled modules by text and options, and looks into no header of ours
            options = (f"-I{sources}", "-std=c++17", f"-DGLB_SOURCES={digest_of(sources)}")
            self._module = cupy.RawModule(code=(sources / "glauber.cu").read_text(), options=options)
            self._kernels: dict[str, Any] = {}
            self.kernel("glb_tick")  # compiles all of them now, or says why not

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """What follows happens on this GPU and its stream."""
        with gpu_errors(self.cupy), self._device, self.stream:
            yield

    def wait(self) -> None:
        """Until nothing runs on the GPU, other packages' work included."""
        self._device.synchronize()

    def give_back(self) -> None:
        """Memory that CuPy keeps for later goes back to the system."""
        with self.in_use():
            self.cupy.get_default_memory_pool().free_all_blocks()
            self.cupy.get_default_pinned_memory_pool().free_all_blocks()

    def free_bytes(self) -> int:
        """Free memory, what CuPy keeps for later included."""
        with self.in_use():
            free, _ = self.cupy.cuda.runtime.memGetInfo()
            return int(free) + int(self.cupy.get_default_memory_pool().free_bytes())

    def upload(self, array: NDArray[Any]) -> Any:
        """A copy on the GPU, at least eight bytes long, so that it has an address."""
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return self.cupy.asarray(flat if flat.size else np.zeros(8, dtype=np.uint8))

    def kernel(self, name: str) -> Any:
        """A kernel by name; compiles all at the first call."""
        if name not in self._kernels:
            self._kernels[name] = self._module.get_function(name)
        return self._kernels[name]

    def pinned(self, n_bytes: int) -> NDArray[np.uint8]:
        """Host memory that a GPU can copy to while both go on."""
        return np.frombuffer(self.cupy.cuda.alloc_pinned_memory(n_bytes), dtype=np.uint8, count=n_bytes)


def digest_of(sources: Path) -> str:
    """Of all that the kernels are made of."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted((*sources.glob("*"), *sources.glob("glauber/*"))):
        if path.is_file():
            digest.update(path.read_bytes())
    return f"0x{digest.hexdigest()}"


def sample_bytes(program: AnyProgram) -> int:
    """Bytes of one chain's state in a sample."""
    if isinstance(program, PottsProgram):
        return program.n_sites * state_dtype(program.n_states).itemsize
    return -(-program.n_sites // 8)


def room_for(program: AnyProgram, run: Run) -> int:
    """Samples in a batch, at most."""
    wanted = SAMPLE_BYTES // (run.n_chains * sample_bytes(program)) if "samples" in run.observe else 1
    return max(1, min(wanted, run.n_samples))


def host_bytes(program: AnyProgram, run: Run) -> int:
    """Host memory of a run beside its results."""
    cells = run.n_chains * (program.n_sites * (program.n_states if isinstance(program, PottsProgram) else 1))
    moments = 8 * (cells + run.n_chains * program.n_edges) if "moments" in run.observe else 0
    return 2 * (run.n_chains * sample_bytes(program) * (room_for(program, run) + 1) + moments)


def device_bytes(program: AnyProgram, run: Run, form: Form, *, resident: bool) -> int:
    """GPU memory of a program and a run."""
    n, entries, order = program.n_sites, len(program.order.neighbour), program.order
    needed = 4 * (3 * n + len(order.colour_start)) + 8 * (n + 1) + 8 * entries + 8 * program.n_edges + 8 * len(run.b)
    needed += host_bytes(program, run)
    needed += run.n_chains * run.n_samples * sample_bytes(program) if resident and "samples" in run.observe else 0
    if isinstance(program, PottsProgram):
        q = program.n_states
        needed += 5 * n * q + 8 * entries + (0 if program.table is None else 4 * len(program.table))
        return needed + run.n_chains * n * (4 + (0 if run.fields is None else 4 * q) + (0 if run.clamp is None else 4))
    words = row_words(program, run) * (n if run.layout == 0 else run.n_chains)
    needed += 4 * words * (3 if run.clamp is not None else 1) + (0 if run.fields is None else 128 * words)
    if form.kernel == "dense":
        needed += form.passes * n * (n + 3) + 32 * row_words(program, run) * (n + 3)
    return needed + (4 * (2 * form.sum + 1) if form.tabulated else 0)


@dataclass(slots=True)
class _Buffer:
    """Room for what a batch brings: on the GPU, and in pinned host memory."""

    device: Any
    host: NDArray[np.uint8]
    last: Any
    host_last: NDArray[np.uint8]
    host_sums: tuple[NDArray[np.uint8], ...]


@dataclass(frozen=True, slots=True)
class _Submitted:
    """A batch that the GPU works on; what is in `buffer` is there when both events have come."""

    next_sweep: int
    first_sample: int
    n_samples: int
    sweeps: int
    kept: int
    buffer: _Buffer
    events: tuple[Any, Any]


class Session:
    """A run on a GPU.

    Args:
        gpu: where.
        program: what is loaded.
        fixed: its arrays on the GPU.
        run: the run.
        form: its kernel.
        resident: samples stay on the GPU too.
    """

    def __init__(
        self, gpu: Gpu, program: AnyProgram, fixed: Mapping[str, Any], run: Run, form: Form, *, resident: bool
    ) -> None:
        self._gpu, self._program, self._run, self._form = gpu, program, run, form
        self._potts = isinstance(program, PottsProgram)
        self._each = run.n_chains * sample_bytes(program)
        self._room = room_for(program, run)
        self._colours = [int(k) for k in program.order.colour_start]
        self._units = row_words(program, run) if form.kernel.startswith(("bits", "fields", "dense")) else run.n_chains
        largest = max(b - a for a, b in zip(self._colours[:-1], self._colours[1:], strict=True))
        busy = self._units >= gpu.multiprocessors * (2048 // BLOCK)
        self._fused = form.kernel == "dense" or largest <= FUSED_POSITIONS or busy
        self._graph: Any = None
        self._kept = 0 if run.initial_moments is None else run.initial_moments[0]
        self._job = np.zeros((), dtype=JOB)
        self._buffers: list[_Buffer] = []
        with gpu.in_use():
            if resident:  # others may still read samples of an earlier job, whose memory is free for us
                gpu.wait()
            self._arrays = {**fixed, **self._allocate()}
            self._fill_job()
            self._buffers = [self._buffer(), self._buffer()]
            keep = resident and "samples" in run.observe
            self._resident = gpu.cupy.zeros(self._each * run.n_samples, dtype=np.uint8) if keep else None
            self._start()

    def _allocate(self) -> dict[str, Any]:
        program, run, form, gpu = self._program, self._run, self._form, self._gpu
        arrays = {name: gpu.upload(array) for name, array in run_arrays(program, run, form).items()}
        words = row_words(program, run) * (program.n_sites if run.layout == 0 else run.n_chains)
        self._given = "state" in arrays
        if not self._given:
            cells = program.n_sites * run.n_chains if self._potts else words
            arrays["state"] = gpu.cupy.zeros(4 * cells, dtype=np.uint8)
        if form.kernel == "dense":
            arrays["bytes"] = gpu.cupy.zeros(128 * row_words(program, run) * (-(-program.n_sites // 4)), dtype=np.uint8)
        if form.tabulated:
            arrays["table"] = gpu.cupy.zeros(4 * (2 * form.sum + 1), dtype=np.uint8)
        if "moments" in run.observe:
            chains, n = run.n_chains, program.n_sites
            sites = (chains, n, program.n_states) if self._potts else (chains, n)
            self._shapes = (sites, (chains, 0 if self._potts else program.n_edges))
            given = (None, None) if run.initial_moments is None else run.initial_moments[1:]
            for name, shape, before in zip(("site_sum", "edge_sum"), self._shapes, given, strict=True):
                n_bytes = max(8, 8 * math.prod(shape))
                arrays[name] = gpu.cupy.zeros(n_bytes, dtype=np.uint8) if before is None else gpu.upload(before)
        return arrays

    def _fill_job(self) -> None:
        for name, number in job_numbers(self._program, self._run, self._form).items():
            self._job[name] = number
        for name in ARRAYS:
            self._job[name] = self._arrays[name].data.ptr if name in self._arrays else 0

    def _buffer(self) -> _Buffer:
        samples = self._each * (self._room if "samples" in self._run.observe else 0) + 8
        sums = [self._arrays[name].size for name in ("site_sum", "edge_sum")] if "moments" in self._run.observe else []
        gpu = self._gpu
        return _Buffer(
            gpu.cupy.empty(samples, dtype=np.uint8),
            gpu.pinned(samples),
            gpu.cupy.empty(self._each, dtype=np.uint8),
            gpu.pinned(self._each),
            tuple(gpu.pinned(size) for size in sums),
        )

    def _start(self) -> None:
        cells = self._arrays["state"].size // 4
        if not self._given:
            self._launch("glb_potts_start" if self._potts else "glb_start", cells)
        if self._form.kernel == "dense":
            self._launch("glb_dense_bytes", self._arrays["bytes"].size // 4)
        if self._form.tabulated:
            self._launch("glb_thresholds", 2 * self._form.sum + 1)

    def _launch(self, name: str, items: int, first: int = 0, second: int = 0, job: Any = None) -> None:
        """A thread for each item, or for several."""
        blocks = max(1, min(-(-items // BLOCK), BLOCKS_EACH * self._gpu.multiprocessors))
        arguments = (self._job if job is None else job, np.uint64(first), np.uint64(second))
        self._gpu.kernel(name)((blocks,), (BLOCK,), arguments)

    def _sweeps(self, count: int) -> None:
        """Enqueue so many sweeps."""
        if not self._fused:
            while count >= GRAPH_SWEEPS:
                self._recorded().launch(self._gpu.stream)
                count -= GRAPH_SWEEPS
            self._colour_by_colour(count)
            return
        name, block = f"glb_{self._form.kernel}_sweeps", DENSE_BLOCK if self._form.kernel == "dense" else BLOCK
        anew = self._form.tabulated and len(self._run.b) > 1
        each = 1 if anew else MOST_SWEEPS
        for ahead in range(0, count, each):
            if anew:
                self._launch("glb_thresholds", 2 * self._form.sum + 1, ahead)
            arguments = (self._job, np.uint64(ahead), np.uint64(min(each, count - ahead)))
            self._gpu.kernel(name)((self._units,), (block,), arguments)
        self._launch("glb_tick", 1, count)

    def _colour_by_colour(self, count: int) -> None:
        each = self._run.n_chains if self._potts else row_words(self._program, self._run)
        for ahead in range(count):
            if self._form.tabulated and len(self._run.b) > 1:
                self._launch("glb_thresholds", 2 * self._form.sum + 1, ahead)
            for begin, end in zip(self._colours[:-1], self._colours[1:], strict=True):
                items = (end - begin) * each
                if self._form.kernel == "sites":
                    items = (-(-end // 32) - begin // 32) * self._run.n_chains
                self._launch(f"glb_{self._form.kernel}_colour", items, ahead, begin | end << 32)
        if count:
            self._launch("glb_tick", 1, count)

    def _recorded(self) -> Any:
        if self._graph is None:
            for name in ("glb_thresholds", "glb_tick", f"glb_{self._form.kernel}_colour"):
                self._gpu.kernel(name)  # loading is no part of a graph
            self._gpu.stream.begin_capture()
            try:
                self._colour_by_colour(GRAPH_SWEEPS)
            except BaseException:
                with suppress(Exception):  # else the stream would go on recording
                    self._gpu.stream.end_capture()
                raise
            self._graph = self._gpu.stream.end_capture()
        return self._graph

    def _sample(self, to: int, number: int, room: int) -> None:
        """The present state as sample so and so of an array with that address and room."""
        job = self._job.copy()
        job["samples"], job["n_samples"] = to, room
        cells = self._program.n_sites * self._run.n_chains if self._potts else self._each
        self._launch("glb_potts_sample" if self._potts else "glb_sample", cells, number, job=job)

    def _submit(self, done: int, sweeps: int, every: int, buffer: _Buffer) -> _Submitted:
        run, stream, copies = self._run, self._gpu.stream, self._gpu.copies
        count = sweeps // every if every else 0
        samples = "samples" in run.observe and count > 0
        first_sample = max(0, done - run.n_warmup) // run.sweeps_per_sample
        if not count:
            self._sweeps(sweeps)
        for number in range(count):
            self._sweeps(every)
            if samples:
                self._sample(buffer.device.data.ptr, number, count)
                if self._resident is not None:
                    self._sample(self._resident.data.ptr, first_sample + number, run.n_samples)
            if "moments" in run.observe:
                cells = self._program.n_sites + (0 if self._potts else self._program.n_edges)
                self._launch("glb_potts_sums" if self._potts else "glb_sums", run.n_chains * cells)
        self._kept += count
        self._sample(buffer.last.data.ptr, 0, 1)
        computed = stream.record()
        if samples:
            copies.wait_event(computed)
            wanted = self._each * count
            buffer.device[:wanted].get(stream=copies, out=buffer.host[:wanted], blocking=False)
        buffer.last.get(stream=stream, out=buffer.host_last, blocking=False)
        for name, host in zip(("site_sum", "edge_sum"), buffer.host_sums, strict=False):
            self._arrays[name].get(stream=stream, out=host, blocking=False)
        events = (stream.record(), copies.record())
        return _Submitted(done + sweeps + 1, first_sample, count, sweeps, self._kept, buffer, events)

    def _finished(self, batch: _Submitted, facts: Mapping[str, str]) -> Batch:
        for event in batch.events:
            event.synchronize()
        run, buffer, moments = self._run, batch.buffer, None
        shape = (self._program.n_sites,) if self._potts else (self._each // run.n_chains,)
        dtype = state_dtype(self._program.n_states) if self._potts else np.dtype(np.uint8)

        def states(flat: NDArray[np.uint8], *middle: int) -> NDArray[np.unsignedinteger]:
            wanted = self._each * int(np.prod(middle, dtype=np.int64))
            return flat[:wanted].copy().view(dtype).reshape(run.n_chains, *middle, *shape)

        if "moments" in run.observe:
            sites, edges = (
                host[: 8 * int(np.prod(of))].copy().view(np.int64).reshape(of)
                for host, of in zip(buffer.host_sums, self._shapes, strict=True)
            )
            moments = Moments(batch.kept, sites, None if self._potts else edges)
        wants = "samples" in run.observe and batch.n_samples > 0
        return Batch(
            next_sweep=batch.next_sweep,
            first_sample=batch.first_sample,
            n_samples=batch.n_samples,
            samples=states(buffer.host, batch.n_samples) if wants else None,
            state=states(buffer.host_last),
            moments=moments,
            facts=facts,
            resident=self._on_gpu(batch.first_sample + batch.n_samples),
        )

    def _on_gpu(self, n_samples: int) -> Any:
        """All samples so far, where they stay."""
        if self._resident is None:
            return None
        run, potts = self._run, self._potts
        dtype = state_dtype(self._program.n_states) if potts else np.dtype(np.uint8)
        return self._resident.view(dtype).reshape(run.n_chains, run.n_samples, -1)[:, :n_samples]

    def batches(self, facts: Mapping[str, str]) -> Iterator[Batch]:
        """The run. While a batch's samples travel, the next one is computed; closing waits for what was launched."""
        run = self._run
        done, number = run.first_sweep - 1, 0
        limit = max(1, min(FIRST_SWEEPS, int(FIRST_UPDATES / (self._program.n_sites * run.n_chains))))
        pending: _Submitted | None = None
        began = time.perf_counter()
        try:
            while done < run.n_sweeps or pending is not None:
                submitted = None
                if done < run.n_sweeps:
                    keeps = done >= run.n_warmup and "samples" in run.observe
                    most = self._room * run.sweeps_per_sample if keeps else limit
                    sweeps, every = run.next_batch(done, min(limit, most))
                    with self._gpu.in_use():
                        submitted = self._submit(done, sweeps, every, self._buffers[number % 2])
                    done, number = done + sweeps, number + 1
                if pending is not None:
                    with self._gpu.in_use():
                        batch = self._finished(pending, facts)
                    seconds, began = max(1e-6, time.perf_counter() - began), time.perf_counter()
                    limit = max(1, min(4 * limit, int(pending.sweeps * BATCH_SECONDS / seconds)))
                    yield batch
                pending = submitted
        finally:
            self._end()

    def only(self, done: int, sweeps: int, every: int, facts: Mapping[str, str]) -> Batch:
        """One batch and no more."""
        try:
            with self._gpu.in_use():
                return self._finished(self._submit(done, sweeps, every, self._buffers[0]), facts)
        finally:
            self._end()

    def _end(self) -> None:
        """Wait, and let go of the memory even where a traceback keeps the session alive; never hides another error."""
        failed = sys.exc_info()[0] not in (None, GeneratorExit)
        try:
            with self._gpu.in_use():
                self._gpu.stream.synchronize()
                self._gpu.copies.synchronize()
        except DeviceIOError:
            if not failed:
                raise
        finally:
            for buffer in self._buffers:
                buffer.device = buffer.last = None
            self._arrays, self._buffers, self._graph = {}, [], None
