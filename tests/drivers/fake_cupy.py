"""A stand-in for CuPy: the part of it that cupy:// uses, on the host.

Arrays are NumPy's, kernels are those of csrc/cuda, compiled with the system's C compiler together with
csrc/tests/cuda_shim.c, which runs their threads one after another and watches what they touch. Streams and events do at
once what they are asked to, or record it while a graph is captured.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import types
import weakref
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
FORWARD, REVERSE, RANDOM = 0, 1, 2
RACE, RANGE, BARRIER = 1, 2, 3


class FakeCudaError(RuntimeError):
    """In place of CUDARuntimeError and its like."""


def build_shim(folder: Path, *flags: str) -> Path:
    """Compile the kernels for the host."""
    library = folder / f"shim{abs(hash(flags))}.so"
    sources = [str(ROOT / "csrc/tests/cuda_shim.c"), str(ROOT / "csrc/src/contract.c")]
    include = [f"-I{ROOT / 'csrc/include'}", f"-I{ROOT / 'csrc/cuda'}"]
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wno-clobbered"]  # getcontext returns once here
    compiler = os.environ.get("CC", "cc")
    if not flags:  # a planted fault computes with rubbish, at which sanitizers stop
        flags = tuple(os.environ.get("SHIM_FLAGS", "").split())
    command = [compiler, "-std=gnu11", "-O2", "-g", *warnings, "-shared", "-fPIC", *flags, *include, *sources]
    subprocess.run([*command, "-o", str(library)], check=True, capture_output=True, text=True)
    return library


class Shim:
    """The kernels on the host; how threads are ordered can be changed at any time."""

    def __init__(self, library: Path) -> None:
        self._lib = ctypes.CDLL(str(library))
        self._lib.shim_report.restype = ctypes.c_char_p
        self._lib.shim_job_bytes.restype = ctypes.c_uint64
        self.job_bytes = int(self._lib.shim_job_bytes())
        self.order, self.seed = FORWARD, 1
        self.launches: list[str] = []

    def announce(self, array: np.ndarray[Any, Any]) -> None:
        self._lib.shim_announce(ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(array.nbytes))

    def forget(self, array: np.ndarray[Any, Any]) -> None:
        self._lib.shim_forget(ctypes.c_void_p(array.ctypes.data))

    def launch(self, name: str, blocks: int, threads: int, job: Any, first: int, second: int) -> tuple[int, str]:
        """(error, report): 0, or what the watch found."""
        self.launches.append(name)
        data = job.tobytes()
        error = self._lib.shim_launch(
            name.encode(),
            ctypes.c_int64(blocks),
            ctypes.c_int32(threads),
            data,
            ctypes.c_uint64(first),
            ctypes.c_uint64(second),
            ctypes.c_int(self.order),
            ctypes.c_uint64(self.seed),
        )
        return error, self._lib.shim_report().decode()


class FakeArray:
    """A flat array of bytes in "device" memory."""

    def __init__(self, cupy: FakeCupy, data: np.ndarray[Any, Any], owner: FakeArray | None = None) -> None:
        self._cupy, self._data, self._owner = cupy, data, owner
        self.data = types.SimpleNamespace(ptr=data.ctypes.data)
        self.size = data.size
        if owner is None:
            cupy.shim.announce(data)
            cupy.used += data.nbytes
            weakref.finalize(self, cupy.release, data).atexit = False

    def __getitem__(self, part: slice) -> FakeArray:
        return FakeArray(self._cupy, self._data[part], self)

    def view(self, dtype: Any) -> Any:
        return self._data.view(dtype)  # NumPy from here on: it has DLPack too

    def get(self, stream: FakeStream, out: np.ndarray[Any, Any], blocking: bool = True) -> None:
        stream.do(lambda: np.copyto(out, self._data))


class FakeEvent:
    def synchronize(self) -> None:
        pass


class FakeGraph:
    def __init__(self, calls: list[Any]) -> None:
        self._calls = calls

    def launch(self, stream: FakeStream) -> None:
        for call in self._calls:
            call()


class FakeStream:
    def __init__(self, cupy: FakeCupy, non_blocking: bool = False) -> None:
        self._cupy = cupy
        self._captured: list[Any] | None = None

    def __enter__(self) -> FakeStream:
        self._cupy.streams.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._cupy.streams.pop()

    def do(self, call: Any) -> None:
        if self._captured is None:
            call()
        else:
            self._captured.append(call)

    def begin_capture(self) -> None:
        self._captured = []

    def end_capture(self) -> FakeGraph:
        self._cupy.graphs += 1
        captured, self._captured = self._captured, None
        assert captured is not None
        return FakeGraph(captured)

    def record(self) -> FakeEvent:
        return FakeEvent()

    def wait_event(self, event: FakeEvent) -> None:
        pass

    def synchronize(self) -> None:
        if self._cupy.dead:
            raise FakeCudaError("cudaErrorLaunchFailure: unspecified launch failure")


class FakeModule:
    def __init__(self, cupy: FakeCupy, code: str, options: tuple[str, ...]) -> None:
        assert "bits.h" in code
        assert all(Path(option[2:]).is_dir() for option in options if option.startswith("-I"))
        self._cupy = cupy

    def get_function(self, name: str) -> Any:
        def launch(grid: tuple[int], block: tuple[int], arguments: tuple[Any, Any, Any]) -> None:
            job, first, second = arguments
            assert job.nbytes == self._cupy.shim.job_bytes
            held = job.copy()
            self._cupy.streams[-1].do(lambda: self._run(name, grid[0], block[0], held, int(first), int(second)))

        return launch

    def _run(self, name: str, blocks: int, threads: int, job: Any, first: int, second: int) -> None:
        if self._cupy.fail_at == name or self._cupy.dead:
            self._cupy.dead = self._cupy.sticky
            raise FakeCudaError("cudaErrorLaunchFailure: unspecified launch failure")
        error, report = self._cupy.shim.launch(name, blocks, threads, job, first, second)
        assert not error, f"{name}: {report}"


class FakeCupy(types.ModuleType):
    """What `import cupy` gives in tests.

    Attributes:
        shim: the kernels.
        fail_at: a kernel at which the GPU fails.
        graphs: how many were recorded.
        sticky: a failure is for good, as CUDA's are that a kernel causes.
        memory: bytes of the "GPU".
    """

    def __init__(self, shim: Shim, n_gpus: int = 1, memory: int = 2**33) -> None:
        super().__init__("cupy")
        self.__version__ = "14.2.0"
        self.shim, self.n_gpus, self.memory, self.used = shim, n_gpus, memory, 0
        self.no_driver = False
        self.fail_at = ""
        self.graphs = 0
        self.sticky = self.dead = False
        self.streams: list[FakeStream] = []
        runtime = types.SimpleNamespace(
            CUDARuntimeError=FakeCudaError,
            getDeviceCount=self._device_count,
            getDeviceProperties=lambda number: {
                "name": b"Stand-in",
                "multiProcessorCount": 64,
                "totalGlobalMem": self.memory,
                "l2CacheSize": 2**20,
                "major": 9,
                "minor": 0,
            },
            memGetInfo=lambda: (self.memory - self.used, self.memory),
        )
        self.cuda = types.SimpleNamespace(
            runtime=runtime,
            driver=types.SimpleNamespace(CUDADriverError=FakeCudaError),
            memory=types.SimpleNamespace(OutOfMemoryError=FakeCudaError),
            compiler=types.SimpleNamespace(CompileException=FakeCudaError),
            Device=lambda number: FakeStream(self),
            Stream=lambda non_blocking: FakeStream(self, non_blocking),
            alloc_pinned_memory=lambda n_bytes: bytearray(n_bytes),
        )

    def release(self, data: np.ndarray[Any, Any]) -> None:
        self.shim.forget(data)
        self.used -= data.nbytes

    def _device_count(self) -> int:
        if self.no_driver:
            raise FakeCudaError(
                "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"
            )
        return self.n_gpus

    def RawModule(self, code: str, options: tuple[str, ...]) -> FakeModule:  # noqa: N802
        return FakeModule(self, code, options)

    def asarray(self, array: np.ndarray[Any, Any]) -> FakeArray:
        return FakeArray(self, array.copy())

    def empty(self, size: int, dtype: Any) -> FakeArray:
        return FakeArray(self, np.full(size, 0xA5, dtype=dtype))

    def zeros(self, size: int, dtype: Any) -> FakeArray:
        return FakeArray(self, np.zeros(size, dtype=dtype))

    def get_default_memory_pool(self) -> Any:
        return types.SimpleNamespace(free_bytes=lambda: 0, free_all_blocks=lambda: None)

    def get_default_pinned_memory_pool(self) -> Any:
        return types.SimpleNamespace(free_all_blocks=lambda: None)
