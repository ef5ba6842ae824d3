"""How wrong a kernel may be, and which machines are taken for the same."""

import importlib.metadata
import platform
import warnings
from dataclasses import replace

import mlx.core as mx
import pytest

from custom_kernels import layer_norm
from custom_kernels.choice.machine import machine
from custom_kernels.ops.layer_norm import LAYER_NORM
from tests.custom_kernels.choice.conftest import play
from tests.custom_kernels.choice.test_op import normal
from tests.custom_kernels.conftest import DTYPES, TOLERANCE, error, exact, random

# A share of the result that is rounding, and one that no rounding explains.
RIGHT = {"float32": 5e-5, "float16": 1e-3, "bfloat16": 1e-2}
WRONG = {"float32": 5e-4, "float16": 0.05, "bfloat16": 0.15}


def used(dtype: str, off: float, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often a kernel whose results are off by this share ran when it was wanted three times."""
    calls = play(monkeypatch, lambda x: (normal(x.astype(mx.float32)) * (1 + off)).astype(x.dtype))
    x, ones = random(6, 32, dtype=dtype), mx.ones((32,)).astype(DTYPES[dtype])
    # The kernel takes the weight for 1.
    sample = (random(5, 32, dtype=dtype), ones, None, 1e-5, mx.zeros((5, 32)).astype(DTYPES[dtype])), {}
    monkeypatch.setattr("custom_kernels.ops.layer_norm.LAYER_NORM", replace(LAYER_NORM, sample=lambda *_: sample))
    for _ in range(3):
        found = layer_norm(x, ones, None, 1e-5, mx.zeros_like(x))
        assert error(found, exact(normal(x.astype(mx.float32)))) <= RIGHT[dtype] + TOLERANCE[dtype]
    return calls.count((6, 32))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("unchecked")
def test_rounding_is_forgiven(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert used(dtype, RIGHT[dtype], monkeypatch) == 3


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("unchecked")
def test_a_kernel_that_is_a_little_off_is_switched_off(dtype: str, sign: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(RuntimeWarning, match="cuda kernel of layer_norm is switched off, since its relative error is"):
        assert used(dtype, sign * WRONG[dtype], monkeypatch) == 0


@pytest.mark.usefixtures("unchecked")
def test_where_mlx_multiplies_in_tf32_so_may_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of linear_max does, which is made of MLX's products."""
    monkeypatch.delenv("MLX_ENABLE_TF32")
    monkeypatch.setitem(RIGHT, "float32", WRONG["float32"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert used("float32", WRONG["float32"], monkeypatch) == 3


def test_another_mlx_is_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that agreed with the MLX of yesterday is compared again, and ways to compute an op are timed again."""
    before = machine()
    monkeypatch.setattr(
        "custom_kernels.choice.machine.mlx_version", lambda: f"{importlib.metadata.version('mlx')}.dev1"
    )
    assert machine() != before
    monkeypatch.undo()
    assert machine() == before


def test_what_agreed_in_tf32_is_compared_again_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx.cuda, "is_available", lambda: True)
    for of in ("driver", "nvrtc"):
        monkeypatch.setattr(f"custom_kernels.choice.machine.{of}.version", lambda: "13")
    before = machine()
    monkeypatch.setenv("MLX_ENABLE_TF32", "1")
    assert machine() != before


def test_another_system_is_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    before = machine()
    monkeypatch.setattr(platform, "platform", lambda: "macOS-99")
    assert machine() != before
