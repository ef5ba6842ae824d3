"""What this machine has: ops against the folders of the back ends, and advice for each thing that is amiss."""

import subprocess
import sys
from pathlib import Path

import pytest

import custom_kernels
from custom_kernels import cpu
from custom_kernels.cpu import blas
from custom_kernels.ops import OPS
from mlx_embed.measure import environment as module
from mlx_embed.measure.environment import environment

ROOT = Path(custom_kernels.__file__).parent
FILES = {path.stem for path in (ROOT / "ops").glob("*.py")} - {"__init__"}
NATIVE = pytest.mark.skipif(not cpu.available(), reason="the native CPU kernels are not built")


def test_every_op_has_a_file_and_is_named() -> None:
    assert {op.name for op in OPS} == FILES == set(environment().ops)


@pytest.mark.parametrize("op", sorted(FILES))
def test_an_op_has_the_kernels_that_are_in_the_folders(op: str) -> None:
    found = environment().ops[op]
    assert list(found) == ["cpu", "metal", "cuda"]
    for backend in ("metal", "cuda"):
        assert found[backend] == ("yes" if (ROOT / backend / f"{op}.py").exists() else "-")
    assert found["cpu"] == ("yes" if (ROOT / "cpu" / f"{op}.py").exists() else "in others")


@NATIVE
def test_nothing_to_improve(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLX_EMBED_KERNELS", "MLX_EMBED_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module.cpu, "num_threads", lambda: 4)
    monkeypatch.setattr(module.cpu, "usable_cores", lambda: 4)
    monkeypatch.setattr(module.blas, "active", lambda: True)
    monkeypatch.setattr(module, "NVIDIA", Path("/no/such/file"))
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    [sentence] = environment().advice
    assert 'some 1.5 times as fast with pip install ".[fast]"' in sentence
    monkeypatch.setattr(module, "find_spec", lambda name: name)
    found = environment()
    assert found.advice == []
    assert found.rows["native cpu kernels"] == f"{cpu.instruction_set()}, 4 of 4 cores"


@NATIVE
def test_kernels_that_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_EMBED_KERNELS", "reference")
    found = environment()
    assert any("unset MLX_EMBED_KERNELS" in sentence for sentence in found.advice)
    assert found.rows["native cpu kernels"].endswith("; off")
    monkeypatch.setattr(module, "accelerator", lambda: None)
    assert environment().rows["models run on"] == "MLX's own ops on the cpu"


def test_kernels_that_were_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    why = "The CPU kernels were not built; with a C++17 compiler installed, run: pip install -e ."
    monkeypatch.setattr(module.cpu, "available", lambda: False)
    monkeypatch.setattr(module.cpu, "why_unavailable", lambda: why)
    monkeypatch.setattr(module, "accelerator", lambda: None)
    found = environment()
    assert why in found.advice
    assert found.rows["native cpu kernels"] == f"none: {why}"
    assert found.rows["models run on"] == "MLX's own ops on the cpu"


@NATIVE
def test_what_each_dtype_is_computed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "product", {"float32": "AVX2", "bfloat16": "", "int8": "AVX-VNNI"}.get)
    said = environment().rows["dtypes on the cpu"]
    assert said == "float32 by AVX2, float16 as float32, bfloat16 as float32, int8 by AVX-VNNI"


@NATIVE
def test_too_few_threads_and_a_lesser_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_EMBED_CPU_ISA", "baseline")
    monkeypatch.setattr(module.cpu, "num_threads", lambda: 2)
    monkeypatch.setattr(module.cpu, "usable_cores", lambda: 16)
    advice = environment().advice
    assert any("use 2 of 16 cores" in sentence for sentence in advice)
    assert any("MLX_EMBED_CPU_ISA" in sentence for sentence in advice)


def test_an_nvidia_gpu_that_mlx_does_not_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    driver = tmp_path / "version"
    driver.touch()
    monkeypatch.setattr(module, "NVIDIA", driver)
    monkeypatch.setattr(module, "accelerator", lambda: None)
    assert any("mlx[cuda13]" in sentence for sentence in environment().advice)


@pytest.mark.parametrize("backend", ["metal", "cuda"])
def test_an_accelerator(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "accelerator", lambda: backend)
    monkeypatch.setattr(module, "resolve_device", lambda name: name)
    monkeypatch.setattr(module, "describe", lambda device: f"{backend if device == 'gpu' else 'cpu'}: A device")
    rows = environment().rows
    assert rows[backend] == "A device"
    assert rows[f"{backend} kernels"].startswith("on")
    assert rows[f"{'cuda' if backend == 'metal' else 'metal'} kernels"] == "no such device here"
    assert rows["models run on"].startswith(backend)


@pytest.mark.skipif(not blas.active(), reason="there is no OpenBLAS for MLX here")
@pytest.mark.parametrize("first", ["mlx.core", "mlx_embed"])
def test_mlx_imported_first_has_its_own_blas(first: str) -> None:
    script = f"import {first}\nfrom mlx_embed.measure.environment import environment\nprint(environment().advice)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert ("mlx.core was imported first; import mlx_embed before it." in run.stdout) == (first == "mlx.core")
