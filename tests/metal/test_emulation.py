"""The emulation itself: a fault put into a kernel is found, and named."""

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import metal
from tests.custom_kernels.conftest import exact, starts
from tests.custom_kernels.metal.conftest import normal
from tests.metal import clang
from tests.metal.emulation import EmulationError, emulated_metal, generated, launch, unavailable

PRAGMA = "#pragma clang loop unroll(full)\n"
MATRIX = "simdgroup_matrix<float, 8, 8> m;"

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")


@pytest.mark.skipif(clang.unavailable() is not None, reason=clang.unavailable() or "")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("const device int* same = cu_seqlens;", "cannot initialize a variable of type 'device int const"),
        (f"{MATRIX} float& element = m.thread_elements()[0];", "vector element"),
        ("const float most = metal::max(1.0f, 1);", "ambiguous"),
        ("if (skipped > 1) { int end = int(skipped); skipped += float(end % 7); }", "shadows"),
        ("half less = skipped; skipped += float(less);", "loses floating-point precision"),
        ("float none; skipped += none;", "uninitialized"),
        ("skipped += begin < thread_position_in_grid.x ? 1 : 2;", "different signs"),
        ("int none = 3;", "unused"),
        ("skipped += float(begin * 0.5);", "double"),
        ('_Pragma("clang loop unroll(full)") for (int i = 0; i < end; ++i) skipped += skip[i] > 0;', "not unrolled"),
        ("float kept[8]; for (int i = 0; i < 8; ++i) kept[i] = float(i * i); skipped += kept[begin % 8];", "alloca"),
        (f"{MATRIX} simdgroup_multiply_accumulate(m, m, m, m); skipped += m.thread_elements()[begin];", "element"),
    ],
)
def test_clang_refuses_what_metal_would(line: str, message: str) -> None:
    with emulated_metal(run=False) as sources:
        metal.mean_pool(normal((5, 32), mx.float16), starts([5]))
    source = sources[0].replace("const float count =", "float skipped = 0;\nconst float count = skipped +")
    assert clang.faults(source) == ""
    assert message in clang.faults(source.replace("const float count", f"{line}\nconst float count"))


@pytest.mark.skipif(clang.unavailable() is not None, reason=clang.unavailable() or "")
@pytest.mark.parametrize(
    ("loop", "message"),
    [
        ("for (int r = 0; r < ROWS;", "alloca"),
        ("    for (int i = 0; i < 2;", "element"),
        ("  for (int part", "alloca"),
    ],
)
@pytest.mark.parametrize("dim", [64, 96])
def test_a_loop_over_matrices_that_is_not_unrolled_is_found(dim: int, loop: str, message: str) -> None:
    """The last one of its kind, however short it is: clang would unroll one of two rounds by itself."""
    with emulated_metal(run=False) as sources:
        metal.attention(normal((9, 3 * dim), mx.float16), starts([9]), 1, 0.2, max_seqlen=99)
    assert clang.faults(sources[0]) == ""
    before, _, after = sources[0].rpartition(f"{PRAGMA}{loop}")
    assert before
    assert message in clang.faults(f"{before}{loop}{after}")


def faulty(kernel: str, old: str, new: str, seed: int) -> None:
    def edit(source: str) -> str:
        assert old in source
        return source.replace(old, new, 1)

    x, ones = normal((4, 160), mx.float32), mx.ones((160,))
    with emulated_metal(seed, edit, loose=False):
        if kernel == "layer_norm":
            metal.layer_norm(x, ones, ones, 1e-5)
        elif kernel == "attention":
            metal.attention(normal((70, 96), mx.float16), starts([0, 70]), 1, 0.2, max_seqlen=70)
        else:
            metal.mean_pool(x, starts([4]))


BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);"
TILES_READY = "(value_tile + (key * STRIDE + d)) = v;\n  }\n"
STORE = "if (query < length && d < DIM) {\n        out"


@pytest.mark.parametrize(
    ("kernel", "old", "new", "message"),
    [
        # A barrier is missing: before the read, and before the next write.
        ("layer_norm", BARRIER, "", "race: partial|partial.* nobody has written"),
        ("attention", TILES_READY + "  " + BARRIER, TILES_READY, "race: .*_tile|_tile.* nobody has written"),
        ("attention", BARRIER, "", "race: (key|value)_tile"),
        ("mean_pool", "  }\n  " + BARRIER, "  }", "race: partial"),
        # Not all threads come.
        (
            "layer_norm",
            "float value[",
            f"if (thread_index_in_simdgroup == 0) {BARRIER}\nfloat value[",
            "divergent threadgroup",
        ),
        ("layer_norm", BARRIER, f"if (lane == 0) {{ {BARRIER} }} else {{\n{BARRIER} }}", "divergent threadgroup"),
        ("layer_norm", "sum = simd_sum(sum);", "if (lane != 3) sum = simd_sum(sum);", "divergent"),
        ("attention", "8 <= from ||", "8 <= from || lane == 9 ||", "divergent"),
        # An index is one off, or two threads share a place.
        ("attention", STORE, STORE.replace("<", "<=", 1), r"write out of bounds: out\[22\d\d\] of 2240"),
        ("attention", "base + key < end", "base + key <= end", r"read out of bounds: qkv\[67\d\d\] of 6720"),
        ("attention", "const int middle = (sequence + above) / 2;", "const int middle = above + 1;", "cu_seqlens"),
        ("mean_pool", "partial[ACROSS * DOWN]", "partial[ACROSS * DOWN - 1]", r"write out of bounds: partial\[511\]"),
        ("layer_norm", "start = size_t(row) * WIDTH", "start = size_t(row / 2) * WIDTH", r"race: out\["),
        # The device has less memory, and keeps its address spaces apart.
        ("mean_pool", "partial[ACROSS * DOWN]", "partial[8192]", "a threadgroup has 32768"),
        ("mean_pool", "const int end", "const device int* same = cu_seqlens;\nconst int end", "does not compile"),
        # Arrays of more elements than an int counts.
        ("mean_pool", "size_t(token) * WIDTH", "token * WIDTH", "an index of 32 bits into hidden"),
        (
            "attention",
            "size_t from = size_t(start + query)",
            "int from = (start + query)",
            "an index of 32 bits into qkv",
        ),
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_faults_are_found(kernel: str, old: str, new: str, message: str, seed: int) -> None:
    with pytest.raises(EmulationError, match=message):
        faulty(kernel, old, new, seed)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_numbers_round_as_on_a_device(dtype: mx.Dtype) -> None:
    halfway = np.float32(1 + 2.0 ** np.arange(-13, -1)[:, None] * np.arange(1, 16, 2))
    extreme = [0, -0.0, 65504, 65519, 65520, 1e-8, 6e-8, 3e38, 3.4e38, np.inf, -np.inf, np.nan]
    random = np.random.default_rng().integers(0, 2**32, size=4096, dtype=np.uint32).view(np.float32)
    x = mx.array(np.concatenate([halfway.ravel(), -halfway.ravel(), np.float32(extreme), random]))
    found = each(x, "T(x[i])", dtype)
    np.testing.assert_array_equal(exact(found), exact(x.astype(dtype)))


def each(x: mx.array, formula: str, dtype: mx.Dtype = mx.float32, loose: bool = False, header: str = "") -> mx.array:
    """The formula of x and i for every i, in the emulation."""
    kernel = mx.fast.metal_kernel(
        name="each",
        input_names=["x"],
        output_names=["out"],
        source=f"const uint i = thread_position_in_grid.x; out[i] = {formula};",
        header=header,
    )
    call = {"template": [("T", dtype)], "grid": (x.size, 1, 1), "threadgroup": (min(x.size, 64), 1, 1)}
    call |= {"output_shapes": [x.shape], "output_dtypes": [dtype]}
    (found,) = launch(generated(kernel, [x], call), ["x"], ["out"], 0, loose, inputs=[x], **call)
    return found


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_operations_of_short_numbers_round_each(dtype: mx.Dtype) -> None:
    """Nothing is kept in float between two of them."""
    x = normal((500,), dtype)
    product = rounded(exact(x) * exact(x), dtype)
    expected = exact(rounded(exact(product) / 7, dtype))
    np.testing.assert_array_equal(exact(each(x, "x[i] * x[i] / T(7.0f)", dtype)), expected)
    total = rounded(exact(x) + 3, dtype)
    expected = exact(rounded(exact(total) - 3, dtype))
    np.testing.assert_array_equal(exact(each(x, "x[i] + T(3.0f) - T(3.0f)", dtype)), expected)


def rounded(values: np.ndarray, dtype: mx.Dtype) -> mx.array:
    """Rounded once."""
    return mx.array(values.astype(np.float32)).astype(dtype)


def test_an_array_begins_at_any_element() -> None:
    """So a type that must lie at a multiple of its size is found out, sooner or later."""
    header = "struct alignas(16) Four {\n  float at[4];\n};\n"
    x = normal((64,), mx.float32)
    said = set()
    for _ in range(60):
        try:
            each(x, "(*(const device Four*)(x + i / 4 * 4)).at[i % 4]", header=header)
        except EmulationError as error:
            said.add(str(error).partition(":")[0])
    assert said == {"a value is read from x where its type may not be"}


def test_a_loose_device_takes_its_freedoms() -> None:
    x = mx.array(np.float32([0, 0.3, -0.7, 5.5, -20, 1e-3, -3, 2]))
    strict, loose = (exact(each(x, "metal::fast::exp2(x[i])", loose=loose)) for loose in (False, True))
    off = np.abs(loose - strict) / np.spacing(strict.astype(np.float32))
    assert (off >= 1).all()
    assert (off <= 4).all()
    tiny = mx.array(np.full(8, 1e-39, dtype=np.float32))
    assert [exact(each(tiny, "x[i] * 0.5f", loose=loose)).any() for loose in (False, True)] == [True, False]
    # 1 + 2e-4 squared, less its rounded value, is what rounding took, where the two are one operation.
    y = mx.array(np.full(8, 1.0002, dtype=np.float32))
    square = "x[i] * x[i] - float(float(x[i]) * 1.0002f)"
    assert [exact(each(y, square, loose=loose)).any() for loose in (False, True)] == [False, True]
    z = normal((32,), mx.float32)
    assert len({float(each(z, "simd_sum(x[i])", loose=True)[0]) for _ in range(20)}) > 1
    assert len({float(each(z, "simd_sum(x[i])")[0]) for _ in range(5)}) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threadgroup": (1025, 1, 1)}, "a threadgroup of 1025 threads"),
        ({"grid": (0, 1, 1)}, "a grid of"),
        ({"grid": (2**31, 1, 1)}, "a grid of"),
    ],
)
def test_limits_of_a_launch(change: dict[str, tuple[int, int, int]], message: str) -> None:
    kernel = mx.fast.metal_kernel(name="one", input_names=["x"], output_names=["out"], source="out[0] = x[0];")
    call = {"grid": (1, 1, 1), "threadgroup": (1, 1, 1), "output_shapes": [(1,)], "output_dtypes": [mx.float32]}
    source = generated(kernel, [mx.zeros((9,))], call)
    launch(source, ["x"], ["out"], 0, inputs=[mx.zeros((9,))], **call)
    with pytest.raises(EmulationError, match=message):
        launch(source, ["x"], ["out"], 0, inputs=[mx.zeros((9,))], **(call | change))


def test_a_kernel_has_at_most_31_buffers() -> None:
    names = [f"x{i}" for i in range(31)]
    kernel = mx.fast.metal_kernel(name="all", input_names=names, output_names=["out"], source="out[0] = x0[0];")
    call = {"grid": (1, 1, 1), "threadgroup": (1, 1, 1), "output_shapes": [(1,)], "output_dtypes": [mx.float32]}
    inputs = [mx.zeros((9,))] * 31
    with pytest.raises(EmulationError, match="a kernel of 32 buffers"):
        launch(generated(kernel, inputs, call), names, ["out"], 0, inputs=inputs, **call)
