"""Joules of NVIDIA GPUs, by NVML: the driver's own energy counter, or its power readings integrated.

What is known of the sensor, and what of it enters the uncertainty:

- `nvmlDeviceGetTotalEnergyConsumption` counts millijoules since the driver was loaded, on Volta and later. NVIDIA
  states no accuracy for it (NVML API reference, Device Queries).
- `nvmlDeviceGetPowerUsage` gives milliwatts of the GPU with its memory and other circuits, so the boundary is the
  board. It is accurate to +-5 % on Fermi and Kepler, and nothing is stated for later ones; on Ampere and later, except
  GA100, it is the mean over the last second (same reference). Here +-5 % is assumed for all, counter included.
- On A100 and H100 the sensor looks during 25 % of the time only (Yang, Adamek, Armour: Part-time Power Measurements,
  arXiv 2312.02741; over 70 GPUs against an external meter). Later ones are taken to do the same until somebody shows
  otherwise. The report's budget has a line for it, which holds for load that does not keep step with the sensor.
- The counter moves about every 100 ms on recent GPUs (ml.energy, "Thermally Stable Profiling for Accurate GPU Energy
  Measurement"), and every 10 ms on some older ones (gpuopenanalytics/pynvml, pull request 18). It is measured here.
- On superchips (GH200) the counter holds the whole module with its CPU (ml-energy/zeus, pull request 172).
- The two ways can disagree: 187 J against 327 J of one idle GPU in 5 s (ml-energy/zeus, issue 181). A report's parts
  say which one was used.

None of this has been run on a real GPU yet: the tests use a library that stands in for NVIDIA's.
"""

from __future__ import annotations

import importlib
import re
import threading
from contextlib import suppress
from typing import Any, Literal

from glauber.driver import Address
from glauber.errors import (
    DeviceClosedError,
    DeviceIOError,
    DeviceNotFoundError,
    GlauberError,
    InvalidModelError,
    MeteringError,
    missing_extra,
)
from glauber.meter import MeterSpec
from glauber.registry import only_parameters

from glauber_drivers.meters.instrument import Instrument
from glauber_drivers.meters.polling import Polled, update_period

RELATIVE_LIMIT = 0.05
ACCURACY_SOURCE = "assumed; NVML's reference states it for power on Fermi and Kepler only"
AVERAGING_SECONDS = 1.0
"""Of power readings on Ampere and later, except GA100."""
SEEN_SHARE = 0.25
"""Of the time, on A100, H100 and, as assumed, later."""
PERIOD_LIMIT_SECONDS = 2.0
"""How long to wait for a few updates of the reading when the meter is opened."""
READINGS_PER_PERIOD = 10
MILLI = 1e-3
"""The unit and the resolution of NVML's readings: mJ and mW."""

_BUS_ID = re.compile(r"^([0-9A-Fa-f]{4,8}:)?[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}(\.[0-9A-Fa-f])?$")
_MISSING = {  # NVMLError class -> what is missing and how to get it
    "NVMLError_LibraryNotFound": "libnvidia-ml.so.1 is not found. It comes with NVIDIA's driver and not with a Python"
    " package: install the driver until nvidia-smi works; start a container with the GPU passed in (--gpus all)",
    "NVMLError_DriverNotLoaded": "NVIDIA's driver is installed but not loaded: try nvidia-smi as root, or reboot",
    "NVMLError_LibRmVersionMismatch": "NVIDIA's library and the loaded driver are of different versions, as after an"
    " update: reboot, or load the driver again",
}
_FAILED = {
    "NVMLError_NoPermission": "this user may not read it: it needs access to /dev/nvidia*, which the group video or the"
    " container's device list gives",
    "NVMLError_GpuIsLost": "the GPU has fallen off the bus: look for Xid in the kernel's log, reset the GPU or reboot",
    "NVMLError_ResetRequired": "the GPU must be reset first (nvidia-smi --gpu-reset)",
    "NVMLError_Uninitialized": "the driver was unloaded meanwhile: open the meter again",
}


def _translated(error: Exception, what: str) -> GlauberError:
    kind = type(error).__name__
    if kind in _MISSING:
        return DeviceNotFoundError(f"NVIDIA GPUs cannot be metered: {_MISSING[kind]}")
    return DeviceIOError(f"{what} failed ({error}): {_FAILED.get(kind, 'NVML says no more; nvidia-smi may')}")


class NvmlMeter(Instrument):
    """A meter of one NVIDIA GPU. Opening takes about six updates of the reading.

    Args:
        gpu: NVML's index, a UUID ("GPU-..."), or a PCI bus id ("0000:01:00.0"). NVML's index follows the bus and not
            CUDA_VISIBLE_DEVICES: what comes from CUDA is better named by bus id or UUID.
        reads: "joules" the counter, "watts" power integrated, "auto" the counter where the GPU has one.
        relative_limit: largest relative error of a reading, +-; give what your own comparison with a better meter says.
        accuracy_source: where that figure comes from.

    Raises:
        MissingExtraError: the package nvidia-ml-py is not installed.
        DeviceNotFoundError: no driver, no such GPU, or a GPU without the reading; says what is missing.
        DeviceIOError: NVML refuses, for want of permission or because the GPU is lost.
        MeteringError: the counter does not move.
    """

    def __init__(
        self,
        gpu: int | str = 0,
        *,
        reads: Literal["auto", "joules", "watts"] = "auto",
        relative_limit: float = RELATIVE_LIMIT,
        accuracy_source: str = ACCURACY_SOURCE,
    ) -> None:
        if reads not in ("auto", "joules", "watts"):
            raise InvalidModelError(f'reads must be "auto", "joules" or "watts", not {reads!r}')
        if not 0 <= relative_limit < 1:
            raise InvalidModelError(f"relative_limit must be from 0 to below 1, not {relative_limit!r}")
        try:
            self._nvml: Any = importlib.import_module("pynvml")
        except ImportError as error:
            raise missing_extra("nvidia-ml-py", "nvml", "NvmlMeter") from error
        super().__init__()
        self._lock = threading.Lock()
        self._windows: list[Polled] = []
        self._closed = False
        self._call("opening NVML", self._nvml.nvmlInit)
        try:
            self._handle = self._find(gpu)
            self._name = f"GPU {gpu} ({self._call('asking for its name', self._nvml.nvmlDeviceGetName, self._handle)})"
            self._reads: Literal["joules", "watts"] = self._choose(reads)
            self._spec = self._described(relative_limit, accuracy_source)
        except BaseException:
            self.close()
            raise

    @property
    def spec(self) -> MeterSpec:
        """See EnergyMeter.spec; the period is the measured one."""
        return self._spec

    def start(self) -> Polled:
        """See EnergyMeter.start."""
        with self._lock:
            if self._closed:
                raise DeviceClosedError(f"the meter of {self._name} is closed; open another one")
            interval = min(0.05, max(0.0005, self._spec.period_seconds / READINGS_PER_PERIOD))
            window = Polled(self._read, interval, self._spec.name, whole=self._reads == "watts")
            self._windows = [each for each in self._windows if not each.ended] + [window]
        return window

    def close(self) -> None:
        """See EnergyMeter.close. Windows that are open end without a figure."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for window in self._windows:
                window.abandon(DeviceClosedError("the meter was closed while its window was open"))
        with suppress(self._nvml.NVMLError):  # nobody can do anything about it
            self._nvml.nvmlShutdown()

    @classmethod
    def from_address(cls, address: Address) -> NvmlMeter:
        """nvml://GPU: an index, a UUID or a PCI bus id; see glauber.registry.MeterClass."""
        only_parameters(address, ())
        name = address.name or "0"
        return cls(int(name) if name.isdecimal() else name)

    # NVML

    def _call(self, what: str, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._nvml.NVMLError as error:
            raise _translated(error, what) from error

    def _find(self, gpu: int | str) -> Any:
        nvml = self._nvml
        if isinstance(gpu, bool) or not isinstance(gpu, int | str):
            raise DeviceNotFoundError(f"a GPU is named by index, UUID or PCI bus id, not by {gpu!r}")
        if isinstance(gpu, int):
            find = nvml.nvmlDeviceGetHandleByIndex
        else:
            find = nvml.nvmlDeviceGetHandleByPciBusId if _BUS_ID.match(gpu) else nvml.nvmlDeviceGetHandleByUUID
        try:
            return find(gpu)
        except (nvml.NVMLError_InvalidArgument, nvml.NVMLError_NotFound, nvml.NVMLError_NotSupported) as error:
            raise DeviceNotFoundError(f"NVML knows no GPU {gpu!r}; it has {self._listed()}") from error
        except nvml.NVMLError as error:
            raise _translated(error, f"opening GPU {gpu}") from error

    def _listed(self) -> str:
        nvml, found = self._nvml, []
        for index in range(self._call("counting GPUs", nvml.nvmlDeviceGetCount)):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                found.append(f"{index}: {nvml.nvmlDeviceGetName(handle)} {nvml.nvmlDeviceGetUUID(handle)}")
            except nvml.NVMLError as error:  # one that is lost or forbidden does not hide the others
                found.append(f"{index}: {error}")
        return "; ".join(found) or "none"

    def _choose(self, reads: Literal["auto", "joules", "watts"]) -> Literal["joules", "watts"]:
        """The counter if asked for or there, else power."""
        nvml, tried = self._nvml, []
        kinds: tuple[Literal["joules", "watts"], ...] = ("joules", "watts") if reads == "auto" else (reads,)
        for kind in kinds:
            try:
                self._get(kind)
                return kind
            except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
                tried.append({"joules": "no energy counter (Volta and later have one)", "watts": "no power"}[kind])
            except nvml.NVMLError as error:
                raise _translated(error, f"reading {kind} of {self._name}") from error
        raise DeviceNotFoundError(
            f"{self._name} has {' and '.join(tried)} to read. Parts of a GPU (MIG) and some virtual ones have none:"
            ' meter the whole GPU, or choose reads="auto"'
        )

    def _get(self, kind: Literal["joules", "watts"]) -> int:
        """Millijoules or milliwatts."""
        nvml = self._nvml
        get = nvml.nvmlDeviceGetTotalEnergyConsumption if kind == "joules" else nvml.nvmlDeviceGetPowerUsage
        value: int = get(self._handle)
        return value

    def _read(self) -> float:
        return MILLI * float(self._call(f"reading {self._reads} of {self._name}", self._get, self._reads))

    def _described(self, relative_limit: float, accuracy_source: str) -> MeterSpec:
        period = update_period(self._read, PERIOD_LIMIT_SECONDS)
        if period is None and self._reads == "joules":
            raise MeteringError(
                f"the energy counter of {self._name} did not move twice in {PERIOD_LIMIT_SECONDS:g} s, so it counts"
                ' nothing; try reads="watts"'
            )
        try:
            generation: tuple[int, int] | None = tuple(self._nvml.nvmlDeviceGetCudaComputeCapability(self._handle))
        except self._nvml.NVMLError:
            generation = None  # then the worse is taken
        uuid: str = self._call(f"asking for the UUID of {self._name}", self._nvml.nvmlDeviceGetUUID, self._handle)
        ga100 = generation == (8, 0)
        part_time = generation is None or ga100 or generation >= (9, 0)
        averaged = self._reads == "watts" and not ga100 and (generation is None or generation >= (8, 0))
        return MeterSpec(
            name=f"NVML {'energy counter' if self._reads == 'joules' else 'power'} of {self._name}",
            boundary="board",
            reads=self._reads,
            # a power that stands still for all that time may be steady, or updated as rarely as that
            period_seconds=PERIOD_LIMIT_SECONDS if period is None else period,
            averaging_seconds=AVERAGING_SECONDS if averaged else 0.0,
            seen_share=SEEN_SHARE if part_time else 1.0,
            seen_source="arXiv 2312.02741, which found it on A100 and H100" if part_time else "",
            relative_limit=relative_limit,
            resolution=MILLI,
            accuracy_source=accuracy_source,
            identity=uuid,
        )
