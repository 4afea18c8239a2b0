"""cupy://N, an NVIDIA GPU by number: the kernels of csrc/cuda through CuPy, bit-identical with the C core.

Where there is no GPU everything but the GPU itself is tested: the kernels on the host under watch, and this file
against a stand-in for CuPy (tests/drivers/fake_cupy.py). tests/hardware/test_gpu.py is what a GPU must show: an
H200 did.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from glauber.catalogue import load_spec
from glauber.compile import AnyProgram, Run
from glauber.driver import Address, Batch
from glauber.errors import DeviceIOError, DeviceNotFoundError, ModelNotSupportedError
from glauber.meter import EnergyMeter
from glauber.spec import AnySpec, Capabilities, GpuSpec, Quantity

import glauber_drivers
from glauber_drivers.cuda_groups import group_of, in_turn
from glauber_drivers.cuda_job import choose_form, program_arrays
from glauber_drivers.cuda_session import Gpu, Session, device_bytes, gpu_errors, host_bytes
from glauber_drivers.meters.nvml import NvmlMeter

IDLE_SECONDS = 2.0
"""How long a metered GPU is watched at rest when it is opened."""
MEMORY_SHARE = 0.9
"""Of the free memory, at most."""
INSTALL = "pip install 'glauber[cupy]' installs CuPy for CUDA 13 (for CUDA 12: pip install 'cupy-cuda12x[ctk]')"


def _cupy() -> Any:
    """The package, or what to do about it."""
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise DeviceNotFoundError(
            f"cupy:// needs the package CuPy, which is not installed ({error}). {INSTALL}"
        ) from error


def _count(cupy: Any) -> int:
    """GPUs that the NVIDIA driver knows."""
    try:
        return int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if "NoDevice" in str(error):
            return 0
        raise DeviceNotFoundError(
            f"CuPy {cupy.__version__} is installed, but finds no NVIDIA driver that it can use ({error}). Install a"
            " driver for CUDA 13 or later (nvidia-smi shows the installed one), or the CuPy that fits the one you have:"
            " pip install 'cupy-cuda12x[ctk]'"
        ) from error


def source_folder() -> Path:
    """Where the kernels' sources are; CMake installs them there."""
    for folder in glauber_drivers.__path__:
        if (Path(folder) / "cuda" / "glauber.cu").is_file():
            return Path(folder) / "cuda"
    raise DeviceNotFoundError("the CUDA sources are missing from this installation of glauber; install it again")


def gpu_spec(cupy: Any, number: int) -> GpuSpec:
    """A GPU's description, from what it says of itself."""
    properties = cupy.cuda.runtime.getDeviceProperties(number)
    name = properties["name"]
    title = name.decode() if isinstance(name, bytes) else str(name)
    ideal = load_spec("ideal")

    def reported(value: float, unit: str) -> Quantity:
        return Quantity(value=value, unit=unit, provenance="vendor", source="reported by the GPU's driver")

    facts = {
        "multiprocessors": reported(properties["multiProcessorCount"], "1"),
        "memory": reported(properties["totalGlobalMem"], "byte"),
        "l2_cache": reported(properties["l2CacheSize"], "byte"),
        "compute_capability": reported(properties["major"] + properties["minor"] / 10, "1"),
    }
    return GpuSpec(
        name=f"cupy-{number}",
        title=title,
        vendor="NVIDIA",
        status="product",
        description=f"GPU number {number} of this computer; any graph up to its memory, the arithmetic of sim://ideal",
        any_graph=True,
        topology_note="up to memory: software decides",
        coefficients=ideal.coefficients,
        capabilities=Capabilities(deterministic=True, chain_fields=True, potts_states=ideal.capabilities.potts_states),
        facts=facts,
        notes=("it has no energy figures of its own: NVML measures them",),
    )


class CupyDriver:
    """A driver that computes on a GPU.

    Args:
        cupy: the package.
        number: of the GPU.
        resident: samples stay on the GPU too, for `SampleSet.to_dlpack`.

    Attributes:
        spec: the GPU as it describes itself.
        meter: of the GPU's joules, or None; closed with the driver.
    """

    def __init__(self, cupy: Any, number: int, *, resident: bool = False) -> None:
        self.spec: AnySpec = gpu_spec(cupy, number)
        self.contract_version = 1
        self.meter: EnergyMeter | None = None
        self._resident = resident
        self._gpu = Gpu(cupy, number, source_folder())
        self._program: AnyProgram | None = None
        self._fixed: dict[str, Any] = {}

    def program(self, program: AnyProgram) -> None:
        """See Driver.program."""
        self._program, self._fixed = None, {}
        with self._gpu.in_use():
            self._fixed = {name: self._gpu.upload(array) for name, array in program_arrays(program).items()}
        self._program = program

    def admit(self, run: Run, program: AnyProgram) -> int:
        """See Driver.admit."""
        if run.exchange is not None or run.resample is not None or run.clock is not None or run.dynamics != "heat bath":
            raise ModelNotSupportedError(
                f"{self.spec.name} samples and anneals by the heat bath; tempering, populations, Metropolis and"
                " asynchronous p-bits run on sim://ideal"
            )
        there = self.spec.facts["memory"].best
        if self._chains_at_a_time(program, run, there) is None:
            needed = device_bytes(program, run, choose_form(program, run), resident=self._resident)
            raise ModelNotSupportedError(
                f"the run needs {needed / 1e9:.3g} GB of GPU memory, {self.spec.title} has {there / 1e9:.3g} GB, and"
                f" {'results=gpu wants all chains at once' if self._resident else 'not even its fewest chains fit'}"
            )
        return host_bytes(program, run)

    def _chains_at_a_time(self, program: AnyProgram, run: Run, memory: float) -> int | None:
        """As many as fit; groups of chains take turns where it is not all of them."""
        if self._resident:
            needed = device_bytes(program, run, choose_form(program, run), resident=True)
            return run.n_chains if needed <= MEMORY_SHARE * memory else None
        return group_of(program, run, MEMORY_SHARE * memory)

    def run(self, run: Run) -> Iterator[Batch]:
        """See Driver.run. While a batch's samples travel to the host, the next one is computed."""
        program = self._program
        if program is None:
            raise ModelNotSupportedError("nothing is programmed; call program() before run()")
        form = choose_form(program, run)
        free = self._gpu.free_bytes()
        count = self._chains_at_a_time(program, run, free)
        if count is None:
            needed = device_bytes(program, run, form, resident=self._resident)
            raise DeviceIOError(
                f"the run needs {needed / 1e9:.3g} GB of GPU memory and {free / 1e9:.3g} GB are free on"
                f" {self.spec.name}: something else holds the rest (nvidia-smi says what)"
            )
        facts = {"kernel": f"cuda, {form.kernel}", "body": self.spec.title}
        if count < run.n_chains:
            yield from in_turn(self._gpu, program, self._fixed, run, count, {**facts, "chains at a time": str(count)})
            return
        session = Session(self._gpu, program, self._fixed, run, form, resident=self._resident)
        yield from session.batches(facts)

    def close(self) -> None:
        """See Driver.close."""
        self._program, self._fixed = None, {}
        with suppress(DeviceIOError):
            self._gpu.give_back()
        if self.meter is not None:
            self.meter.close()


def _nvml_meter(cupy: Any, number: int) -> EnergyMeter:
    """NVML's meter of the GPU, with what the GPU draws while it does nothing."""
    meter = NvmlMeter(str(cupy.cuda.Device(number).pci_bus_id))
    try:
        meter.measure_idle(IDLE_SECONDS)
    except BaseException:
        meter.close()
        raise
    return meter


class CupyFactory:
    """Opens `cupy://NUMBER`, 0 being the first GPU.

    `?meter=nvml` measures the joules of its jobs; `?results=gpu` keeps samples on the GPU too, for
    `SampleSet.to_dlpack`.
    """

    def open(self, address: Address) -> CupyDriver:
        """See DriverFactory.open."""
        cupy = _cupy()
        there = _count(cupy)
        meter, results = address.parameters.get("meter"), address.parameters.get("results")
        unknown = set(address.parameters) - {"meter", "results"}
        if unknown or meter not in (None, "nvml") or results not in (None, "gpu"):
            raise DeviceNotFoundError(f"{address.text}: a GPU takes seed=..., meter=nvml and results=gpu, nothing else")
        if not (address.name.isascii() and address.name.isdigit() and int(address.name) < there):
            listed = ", ".join(f"cupy://{k}" for k in range(there)) or "none: the driver sees no GPU"
            raise DeviceNotFoundError(f"there is no GPU {address.text}; there are {listed}")
        with gpu_errors(cupy):
            number = int(address.name)
            driver = CupyDriver(cupy, number, resident=results == "gpu")
            if meter is not None:  # at rest is a GPU that is ready for jobs
                driver.meter = _nvml_meter(cupy, number)
            return driver

    def devices(self) -> Iterable[tuple[str, AnySpec]]:
        """See DriverFactory.devices."""
        try:
            cupy = _cupy()
            there = _count(cupy)
        except DeviceNotFoundError:
            return
        for number in range(there):
            try:
                with gpu_errors(cupy):
                    spec = gpu_spec(cupy, number)
            except DeviceIOError:  # held by someone else alone, or broken
                continue
            yield f"cupy://{number}", spec
