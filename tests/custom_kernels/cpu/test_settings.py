"""What the environment asks of the CPU; each case in a process of its own, since it is read once."""

import os
import subprocess
import sys

import pytest

from custom_kernels import cpu
from custom_kernels.cpu import blas, settings
from tests.conftest import ROOT

VARIABLES = ("MLX_EMBED_NUM_THREADS", "MLX_EMBED_CPU_ISA", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
CORES = cpu.usable_cores()
needs_library = pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available")


def run(code: str, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | variables
    command = [sys.executable, "-c", f"from custom_kernels import cpu\nfrom custom_kernels.cpu import blas\n{code}"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    return result.stdout.strip() or result.stderr.strip().splitlines()[-1]


@needs_library
@pytest.mark.parametrize(
    ("variables", "threads"),
    [
        ({}, CORES),
        ({"MLX_EMBED_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "5"}, 5),
        ({"OMP_NUM_THREADS": "5,2"}, 5),
        ({"OMP_NUM_THREADS": "5", "MLX_EMBED_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "many"}, CORES),
        ({"MLX_EMBED_NUM_THREADS": ""}, CORES),
    ],
)
def test_threads_of_the_kernels(variables: dict[str, str], threads: int) -> None:
    assert run("print(cpu.num_threads())", **variables) == str(threads)


@pytest.mark.skipif(not blas.active(), reason=blas.why_inactive() or "active")
@pytest.mark.parametrize(
    ("variables", "threads"),
    [
        ({}, CORES),
        ({"MLX_EMBED_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"OPENBLAS_NUM_THREADS": "1"}, 1),
        ({"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "2"}, 1),
        ({"OPENBLAS_NUM_THREADS": "1", "MLX_EMBED_NUM_THREADS": "2"}, 2),
    ],
)
def test_threads_of_openblas(variables: dict[str, str], threads: int) -> None:
    assert run("print(blas.num_threads())", **variables) == str(threads)


@pytest.mark.parametrize("wrong", ["0", "-1", "abc", "1.5", " ", "٣", "1" * 5000])
def test_a_wrong_number_of_threads(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_EMBED_NUM_THREADS", wrong)
    with pytest.raises(ValueError, match=f"MLX_EMBED_NUM_THREADS is '{wrong}'; set it to a number of at least 1"):
        settings.threads()
    assert settings.blas_threads() is None, "it is no reason for an import to fail"


@needs_library
def test_wrong_settings_are_no_missing_library() -> None:
    """`available` must not say no, since ops tens of times slower would then run instead."""
    assert run("cpu.available()", MLX_EMBED_NUM_THREADS="0").startswith("ValueError: MLX_EMBED_NUM_THREADS is '0'")
    assert run("cpu.available()", MLX_EMBED_CPU_ISA="AVX2").startswith("ValueError: MLX_EMBED_CPU_ISA is 'AVX2'; set")


@needs_library
def test_an_instruction_set_that_is_asked_for() -> None:
    assert run("print(cpu.instruction_set())", MLX_EMBED_CPU_ISA="baseline") in ("baseline", "NEON")
    found = run("print(cpu.instruction_set())", MLX_EMBED_CPU_ISA="avx2")
    assert found == "AVX2" or "which this processor does not have" in found
