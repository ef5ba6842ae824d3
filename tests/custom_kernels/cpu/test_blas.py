"""OpenBLAS in place of MLX's reference BLAS: each case in a process of its own, since it holds for a whole process."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LIBRARY = ROOT / "custom_kernels/cpu/libmlx_embed_blas.so"

# The folder is put first by hand: importing the package imports mlx.core.
ALONE = "import sys; sys.path.insert(0, 'custom_kernels/cpu'); import blas\n"
PRODUCT = """
import mlx.core as mx
import numpy as np
mx.set_default_device(mx.cpu)
a, b = (np.random.default_rng(i).standard_normal((200, 200)).astype(np.float32) for i in (0, 1))
found = np.array(mx.array(a) @ mx.array(b).T)
np.testing.assert_allclose(found, a.astype(np.float64) @ b.T, rtol=1e-4, atol=1e-4)
"""


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.skipif(sys.platform != "linux" or not LIBRARY.exists(), reason="no BLAS shim here")
def test_products_go_to_openblas() -> None:
    pytest.importorskip("scipy_openblas32")
    code = "assert blas.activate() and blas.activate(), blas.why_inactive()\nassert blas.calls() == 0\n"
    run(ALONE + code + PRODUCT + "assert blas.calls() > 0 and blas.why_inactive() == ''")


@pytest.mark.skipif(sys.platform != "linux" or not LIBRARY.exists(), reason="no BLAS shim here")
def test_openblas_is_loaded_at_the_first_product() -> None:
    pytest.importorskip("scipy_openblas32")
    code = "blas.activate()\nhere = lambda: 'scipy_openblas32' in open('/proc/self/maps').read()\nassert not here()\n"
    run(ALONE + code + PRODUCT + "assert here() and blas.num_threads() > 0")


@pytest.mark.skipif(sys.platform != "linux" or not LIBRARY.exists(), reason="no BLAS shim here")
def test_an_openblas_that_does_not_load(tmp_path: Path) -> None:
    """Products are right all the same, of every layout that MLX asks for, and a line says why they are slow."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/libscipy_openblas.so").write_text("no library")
    code = f"""
import importlib.util, types
importlib.util.find_spec = lambda name: types.SimpleNamespace(submodule_search_locations=[{str(tmp_path)!r}])
assert blas.activate()
"""
    more = """
x, y = mx.array(a), mx.array(b)
for left, right in ((x, y), (x.T, y), (x.T, y.T), (x[:7], y[:, :9]), (x[:1], y), (mx.stack([x, y]), y.T)):
    exact = np.array(left).astype(np.float64) @ np.array(right)
    np.testing.assert_allclose(np.array(left @ right), exact, rtol=1e-3, atol=1e-3)
np.testing.assert_allclose(np.array(mx.addmm(y, x, y, 2.0, 3.0)), 2.0 * (a @ b) + 3.0 * b, rtol=1e-3, atol=1e-3)
"""
    result = subprocess.run(
        [sys.executable, "-c", ALONE + code + PRODUCT + more], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "products of MLX's CPU ops are slow" in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the shim")
def test_it_is_too_late_once_mlx_is_there() -> None:
    code = PRODUCT + "assert not blas.activate() and not blas.active()\nprint(blas.why_inactive())"
    assert "imported first" in run(ALONE + code)


@pytest.mark.skipif(sys.platform != "linux" or not LIBRARY.exists(), reason="no BLAS shim here")
def test_without_openblas_mlx_keeps_its_own() -> None:
    code = (
        "sys.modules['scipy_openblas32'] = None\nimport importlib.util\nimportlib.util.find_spec = lambda name: None\n"
    )
    assert "pip install" in run(ALONE + code + "assert not blas.activate()\nprint(blas.why_inactive())" + PRODUCT)
