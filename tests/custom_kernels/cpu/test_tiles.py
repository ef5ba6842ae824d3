"""The kernels of AMX, compiled on a model of its tile registers, against those of AVX-512 and float64."""

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest

from custom_kernels import cpu
from custom_kernels.cpu import library, sources
from tests.custom_kernels.cpu.conftest import normal, rng
from tests.custom_kernels.cpu.test_narrow import bfloat16, near, product64
from tests.metal.emulation import COMPILER

MODEL = Path(__file__).with_name("tiles.h")
TABLES = {"bfloat16": "amx_bf16", "int8": "amx_int8"}
SHAPES = [(1, 1, 1), (16, 33, 37), (17, 32, 64), (33, 100, 770), (112, 96, 384), (45, 1, 1540)]
# What the sources are compiled for beside tiles is needed here.
NEEDS = cpu.available() and cpu.product("bfloat16") not in ("", "NEON BF16", "NEON BFMMLA") and cpu.product("int8")

pytestmark = pytest.mark.skipif(not NEEDS or COMPILER is None, reason="needs AVX512_BF16, AVX512_VNNI and a compiler")
INTEGERS = ("lda", "ldr", "ldc", "m", "n", "depth", "panel_begin", "panel_end")


class Gemm(ctypes.Structure):
    """`Gemm` of kernels.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("a", "b", "bias", "residual", "columns", "c", "c16")),
        *((name, ctypes.c_int64) for name in INTEGERS),
        ("activation", ctypes.c_int),
    )


class Product(ctypes.Structure):
    """`Product` of kernels.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("panel", ctypes.c_int64),
        ("laid_out", ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_int64, ctypes.c_int64)),
        ("lay_out", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)),
        ("scratch", ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_int64, ctypes.c_int64)),
        ("gemm", ctypes.CFUNCTYPE(None, ctypes.POINTER(Gemm), ctypes.c_void_p)),
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The two sources as they are, with the intrinsics of tiles made functions."""
    folder = tmp_path_factory.mktemp("tiles")
    objects = []
    for name in TABLES.values():
        source = sources.FOLDER / f"{name}.cpp"
        objects.append(folder / f"{name}.o")
        command = [COMPILER, "-O2", "-w", "-fPIC", "-include", MODEL, *sources.flags(source.name, "x86_64")]
        subprocess.run([*command, "-c", source, "-o", objects[-1]], check=True)
    subprocess.run([COMPILER, "-shared", *objects, "-o", folder / "tiles.so"], check=True)
    return ctypes.CDLL(str(folder / "tiles.so"))


@pytest.fixture(params=TABLES)
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(
    model: ctypes.CDLL,
    dtype: str,
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    columns: np.ndarray | None = None,
    *,
    rounded: bool = False,
) -> np.ndarray:
    """(x * columns) W^T + bias + residual; as bfloat16 where it is to be `rounded`."""
    product = Product.in_dll(model, f"mlx_embed_{TABLES[dtype]}")
    (rows, depth), n = x.shape, len(weight)
    panels = -(-n // product.panel)
    laid_out = aligned(product.laid_out(n, depth))
    product.lay_out(weight.ctypes.data, n, depth, laid_out.ctypes.data)
    padded = np.zeros(panels * product.panel, np.float32)
    padded[:n] = 0 if bias is None else bias
    out = np.full((rows, n), np.nan, np.float32)
    out16 = np.zeros((rows, n), np.uint16)
    gemm = Gemm(
        *(x.ctypes.data, laid_out.ctypes.data, None if bias is None else padded.ctypes.data),
        *(None if array is None else array.ctypes.data for array in (residual, columns)),
        *(out.ctypes.data, out16.ctypes.data if rounded else None),
        *(depth, n, n, rows, n, depth, 0, panels, 0),
    )
    scratch = aligned(product.scratch(rows, depth))
    scratch[:] = np.nan  # what is left of another product
    product.gemm(gemm, scratch.ctypes.data)
    return (out16.astype(np.uint32) << 16).view(np.float32) if rounded else out


def aligned(floats: int) -> np.ndarray:
    """Memory as the library has it, its vectors at multiples of 64."""
    memory = np.empty(floats + 16, np.float32)
    start = -memory.ctypes.data % 64 // 4
    return memory[start : start + floats]


@pytest.mark.parametrize(("rows", "n", "depth"), SHAPES)
def test_products(rows: int, n: int, depth: int, dtype: str, model: ctypes.CDLL) -> None:
    g = rng(rows, n, depth)
    x, weight, bias, residual = normal(g, rows, depth), normal(g, n, depth, scale=depth**-0.5), normal(g, n), None
    if n > 1:
        residual = normal(g, rows, n)
    found = run(model, dtype, x, weight, bias, residual)
    near(found, product64(x, weight, dtype) + bias + (0 if residual is None else residual), dtype, depth)
    assert np.array_equal(run(model, dtype, x, weight, bias, residual, rounded=True), bfloat16(found))
    assert np.array_equal(run(model, dtype, x[-1:].copy(), weight)[0], run(model, dtype, x, weight)[-1]), "of its batch"


@pytest.mark.parametrize(("rows", "n", "depth"), SHAPES)
def test_sums_of_bytes_are_those_of_avx512(rows: int, n: int, depth: int, model: ctypes.CDLL) -> None:
    """Bit for bit: they are exact, and scaled by one text."""
    g = rng(rows, n, depth, 1)
    x, weight, bias = normal(g, rows, depth), normal(g, n, depth), normal(g, n)
    choose = library.library().mlx_embed_choose
    choose(b"avx512_bf16")
    try:
        assert np.array_equal(run(model, "int8", x, weight, bias), cpu.linear(x, cpu.Linear(weight, bias, "int8")))
        columns = np.exp2(normal(g, depth))
        padded = np.full(-(-depth // 16) * 16, 3, np.float32)  # what is behind the row's end is of no matter
        padded[:depth] = 1 / columns
        found = run(model, "int8", x, weight * columns, bias, columns=padded)
        assert np.array_equal(found, cpu.linear(x, cpu.Linear(weight, bias, "int8", columns)))
    finally:
        choose(b"")


def test_sums_of_bfloat16_are_in_the_order_of_the_manual(model: ctypes.CDLL) -> None:
    """Even and odd places of 16 words apart, those two together, and then what was there: the bias at first."""
    g = rng(2)
    x, weight, bias = bfloat16(normal(g, 20, 96)), bfloat16(normal(g, 40, 96)), normal(g, 40)
    total = np.broadcast_to(bias, (20, 40)).astype(np.float32)
    for tile in range(0, 96, 32):
        sums = np.zeros((2, 20, 40), np.float32)
        for k in range(tile, tile + 32):
            sums[k % 2] += x[:, k, None] * weight[:, k]
        total = total + (sums[0] + sums[1])
    assert np.array_equal(run(model, "bfloat16", x, weight, bias), total)
