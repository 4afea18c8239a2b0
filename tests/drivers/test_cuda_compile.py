"""Every kernel compiles for three generations of GPUs, without spilling a register. No GPU is needed, only NVRTC."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from glauber_drivers.cupy_gpu import source_folder

pytestmark = [pytest.mark.cuda, pytest.mark.timeout(300)]

GENERATIONS = ("sm_80", "sm_90", "sm_100")
MOST_REGISTERS = {"bits": 56, "fields": 64, "dense": 48, "sites": 40, "potts": 64}
"""Of a thread: 65,536 a multiprocessor, so that 64 leave room for 1,024 threads."""


def kernels() -> list[str]:
    """All that the sources declare."""
    text = "".join(path.read_text() for path in sorted(source_folder().glob("*.h")))
    names = re.findall(r"GLB_KERNEL\((glb_\w+)\) {", text)
    for macro, values in (("bits", "345"), ("fields", "124")):
        names += [f"glb_{macro}{value}_{way}" for value in values for way in ("colour", "sweeps")]
    return sorted(name for name in names if not name.endswith("_"))


@pytest.mark.slow
@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_kernel_compiles_without_spills(generation):
    cupy = pytest.importorskip(
        "cupy", reason="needs CuPy and NVRTC: pip install cupy-cuda13x nvidia-cuda-nvrtc nvidia-cuda-runtime"
    )
    nvrtc = cupy.cuda.nvrtc
    folder = source_folder()
    program = nvrtc.createProgram((folder / "glauber.cu").read_text(), "glauber.cu", [], [])
    try:
        options = [f"-I{folder}", f"-arch={generation}", "-std=c++17", "--ptxas-options=-v"]
        options += ["-ftz=true", "--device-as-default-execution-space"]  # as CuPy does
        try:
            nvrtc.compileProgram(program, options)
        except nvrtc.NVRTCError as error:
            pytest.fail(f"{error}\n{nvrtc.getProgramLog(program)}")
        log, binary = nvrtc.getProgramLog(program), nvrtc.getCUBIN(program)
    finally:
        nvrtc.destroyProgram(program)
    assert len(binary) > 10_000
    found = dict(re.findall(r"entry function '(\w+)'.*?Used (\d+) registers", log, re.DOTALL))
    assert sorted(found) == kernels()
    assert re.findall(r"(\d+) bytes spill", log).count("0") == 2 * len(found)
    for name, registers in found.items():
        limit = next((most for kind, most in MOST_REGISTERS.items() if kind in name), 48)
        assert int(registers) <= limit, (name, registers)


@pytest.mark.slow
def test_nvcc_compiles_them_too():
    if shutil.which("nvcc") is None:
        pytest.skip("needs nvcc, which the CUDA toolkit has; NVRTC compiles the same source above")
    folder = source_folder()
    command = [
        "nvcc",
        "-std=c++17",
        "-arch=sm_80",
        f"-I{folder}",
        "--cubin",
        "-o",
        "/dev/null",
        str(folder / "glauber.cu"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
