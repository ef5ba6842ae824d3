"""What a process on the native kernels keeps of a checkpoint in memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from custom_kernels import cpu
from tests.conftest import ROOT

CHILD = """
import sys
from mlx_embed import EmbeddingModel

def most():
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024

before = most()
EmbeddingModel.from_pretrained(sys.argv[1], device="cpu", dtype=sys.argv[2]).encode(["the wing stalls"] * 64)
print(most() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available")
@pytest.mark.parametrize(("dtype", "most"), [("float32", 0.9), ("bfloat16", 0.65)])
def test_the_weights_are_in_memory_once_at_most(dtype: str, most: float, minilm_path: Path) -> None:
    """They are laid out from the file's pages, let go one by one; a table's rows are read where they are."""
    if not cpu.product(dtype):
        pytest.skip(f"no {dtype} here")
    command = [sys.executable, "-c", CHILD, str(minilm_path), dtype]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(run.stdout) < most * (minilm_path / "model.safetensors").stat().st_size
