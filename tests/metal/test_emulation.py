"""The emulation itself: a fault put into a kernel is found, and named."""

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import metal
from tests.custom_kernels.conftest import exact, starts
from tests.custom_kernels.metal.conftest import normal
from tests.metal import clang
from tests.metal.emulation import EmulationError, emulated_metal, generated, launch, unavailable

MATRIX = "simdgroup_matrix<float, 8, 8> m;"

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")


@pytest.mark.skipif(clang.unavailable() is not None, reason=clang.unavailable() or "")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("const device int* same = cu_seqlens;", "cannot initialize a variable of type 'device int const"),
        (f"{MATRIX} float& element = m.thread_elements()[0];", "vector element"),
        ("const float most = metal::max(1.0f, 1);", "ambiguous"),
        ("float kept[8]; for (int i = 0; i < 8; ++i) kept[i] = i * i; skipped += kept[begin % 8];", "alloca"),
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
@pytest.mark.parametrize("dim", [64, 128])
def test_a_loop_over_matrices_that_is_not_unrolled_is_found(dim: int) -> None:
    with emulated_metal(run=False) as sources:
        metal.attention(normal((9, 3 * dim), mx.float16), starts([9]), 1, 0.2, max_seqlen=99)
    assert clang.faults(sources[0]) == ""
    pragma = "#pragma clang loop unroll(full)\n"
    assert "alloca" in clang.faults("for".join(sources[0].rsplit(f"{pragma}for", 1)))


def faulty(kernel: str, old: str, new: str, seed: int) -> None:
    def edit(source: str) -> str:
        assert old in source
        return source.replace(old, new, 1)

    x, ones = normal((4, 160), mx.float32), mx.ones((160,))
    with emulated_metal(seed, edit):
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
        ("layer_norm", BARRIER, "", "race: partial_sum|partial_sum.* nobody has written"),
        ("attention", TILES_READY + "  " + BARRIER, TILES_READY, "race: .*_tile|_tile.* nobody has written"),
        ("attention", BARRIER, "", "race: (key|value)_tile"),
        ("mean_pool", "  }\n  " + BARRIER, "  }", "race: partial"),
        # Not all threads come.
        ("layer_norm", "float value[", f"if (lane == 0) {BARRIER}\nfloat value[", "divergent threadgroup"),
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
    kernel = mx.fast.metal_kernel(
        name="cast",
        input_names=["x"],
        output_names=["out"],
        source="const uint i = thread_position_in_grid.x; out[i] = T(x[i]);",
    )
    call = {"template": [("T", dtype)], "grid": (x.size, 1, 1), "threadgroup": (64, 1, 1)}
    call |= {"output_shapes": [x.shape], "output_dtypes": [dtype]}
    (found,) = launch(generated(kernel, [x], call), ["x"], ["out"], 0, inputs=[x], **call)
    np.testing.assert_array_equal(exact(found), exact(x.astype(dtype)))
