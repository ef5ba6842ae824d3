"""The emulation itself: a fault put into a kernel is found, and named."""

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels import cuda
from custom_kernels.cuda.launch import launch
from custom_kernels.ops import short_encoder
from custom_kernels.parameters import HeadNorms
from tests.cuda import emulation
from tests.cuda.emulation import EmulationError, emulated_cuda, unavailable
from tests.custom_kernels.conftest import OP, exact, random, rotation, starts

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")

BARRIER = "__syncthreads();"
WAIT = 'asm volatile("cp.async.wait_group 0;");'


def run(kernel: str) -> None:
    x, ones = random(5, 1056, dtype="float16"), mx.ones((1056,), dtype=mx.float16)
    if kernel == "layer_norm":
        cuda.layer_norm(x, ones, ones, 1e-5)
    elif kernel == "mean_pool":
        cuda.mean_pool(random(5, 96), starts([5, 0]), normalize=True)
    elif kernel == "top_k_scores":
        cuda.top_k_scores(random(2, 36), random(9, 36), 3)
    elif kernel == "max_sim":
        cuda.max_sim(random(3, 96), starts([3]), random(40, 96), starts([2, 38]))
    elif kernel == "short_encoder":
        arguments, _ = OP[kernel].sample(short_encoder.Variant(mx.float16, 64, 32, 1, 1, 1e-5, "relu", None, 16), None)
        cuda.short_encoder(*arguments)
    elif kernel == "activate":
        cuda.activate(random(3, 48, dtype="float16"), "gelu")
    else:
        lengths = [0, 70, 1]
        norms = HeadNorms(mx.ones((96,)), mx.ones((96,)), 1e-6)
        turn = rotation(lengths, 96, norms) if kernel == "attention, rotated" else None
        rows = random(71, 2 * 3 * 96, dtype="bfloat16")
        cuda.attention(rows, starts(lengths), 2, 0.2, None, turn, max_seqlen=70)


@pytest.mark.parametrize(
    ("kernel", "old", "new", "message"),
    [
        # A barrier is missing: before the read, and before the next write.
        ("layer_norm", BARRIER, "", "race: partial|nobody has written: partial"),
        ("max_sim", BARRIER, "", "race: (document|asked)"),
        ("top_k_scores", f"}}\n      {BARRIER}", "}", "race: (score|place)"),
        ("attention", f"    {BARRIER}\n    if constexpr (ROTATE)", "    if constexpr (ROTATE)", "memory"),
        ("attention", f"{BARRIER}  // every warp", "// every warp", "a copy is on its way to memory"),
        ("attention, rotated", f"angles);\n      {BARRIER}", "angles);", "race: memory"),
        ("attention, rotated", "__syncwarp();", "", "race: memory"),
        ("short_encoder", "barrier(state);\n    attend(", "attend(", "race: qkv|nobody has written: qkv"),
        (
            "short_encoder",
            f"{BARRIER}\n  if (threadIdx.x == 0) {{\n    vol",
            "if (threadIdx.x == 0) {\n    vol",
            "race: ",
        ),
        ("short_encoder", "== gridDim.x - 1)", "== gridDim.x)", "__trap"),
        # A copy is not waited for.
        ("attention, rotated", WAIT, "", "a copy is on its way to memory"),
        # Not all threads come.
        ("layer_norm", "round = 0;", "round = 0;\nif (lane < 32) return;\n", "waits for ever at __syncthreads"),
        ("layer_norm", "float sum = 0.0f;", "if (lane == 3) return;\nfloat sum = 0.0f;", "waits for ever at __shfl"),
        ("attention", "multiply(score", "if (lane != 9) multiply(score", "divergent warp"),
        # An index is one off, or two threads share a place.
        ("attention", "KEYS, length - from)", "KEYS, length - from + 1)", r"read out of bounds: qkv\[\d+\] of 40896"),
        (
            "attention",
            "_first + row) * width",
            "_first + row + 1) * width",
            r"write out of bounds: out\[\d+\] of 13632",
        ),
        ("attention", "D + 8;", "D + 16;", r"write out of bounds: memory\[2\d{4}\] of 26624"),
        ("mean_pool", "squares[CHUNKS * GROUPS]", "squares[CHUNKS * GROUPS - 1]", "index out of bounds: 14 in line"),
        ("mean_pool", "blockIdx.x) * WIDTH", "blockIdx.x / 2) * WIDTH", r"race: out\[\d+\] of 192"),
        ("layer_norm", "a + place", "a - 1 + place", r"out of bounds: a\[-\d\] of 5280"),
        ("layer_norm", "value[STEPS][VEC]", "value[STEPS][VEC - 1]", "index out of bounds: 7 in line"),
        ("layer_norm", "T* out_row = out", "T* out_row = const_cast<T*>(a)", "write to an input: a"),
        # A vector is read where it may not be.
        (
            "layer_norm",
            "const bool aligned =",
            "const bool aligned = true ||",
            "16 bytes at no multiple of 16: (a|weight)",
        ),
        ("activate", "% sizeof(Vector<X>) == 0", "% 2 == 0", "16 bytes at no multiple of 16: x"),
        ("attention", "const bool aligned =", "const bool aligned = true ||", "16 bytes at no multiple of 16: qkv"),
        # The device has less memory and fewer threads.
        (
            "mean_pool",
            "partial[GROUPS][WIDTH]",
            "partial[GROUPS][WIDTH * 999]",
            "a block declares 1918080 bytes of shared memory",
        ),
        ("mean_pool", "__launch_bounds__(THREADS)", "__launch_bounds__(THREADS / 2)", "the kernel allows fewer"),
        ("activate", "int rows)", "float rows)", "the kernel's scalars"),
        ("activate", "T* out, int", "T* out, T* more, int", "the kernel has 3 arrays"),
    ],
)
def test_faults_are_found(kernel: str, old: str, new: str, message: str) -> None:
    def edit(source: str) -> str:
        assert old in source
        return source.replace(old, new, 1)

    misplaced = "no multiple" in message
    if misplaced and emulation.CLANG and not kernel.startswith("attention"):
        pytest.skip("clang takes some vectors apart before it calls what checks them")
    seed = 1 if misplaced else 2  # arrays begin anywhere, or where MLX allocates them
    with pytest.raises(EmulationError, match=message), emulated_cuda(seed, edit):
        run(kernel)


@pytest.mark.parametrize("seed", range(4))
def test_a_missing_barrier_is_found_in_any_order(seed: int) -> None:
    unguarded = emulated_cuda(seed, lambda source: source.replace(BARRIER, ""))
    with pytest.raises(EmulationError, match=r"race: partial|nobody has written: partial"), unguarded:
        run("mean_pool")


SOURCE = """extern "C" __global__ void each(const float* x, T* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = static_cast<T>(FORMULA);
}"""


def each(x: np.ndarray, formula: str, dtype: mx.Dtype = mx.float32) -> np.ndarray:
    """The formula of x and i for every i."""

    def edit(source: str) -> str:
        return source[: source.index("// The place of each")] + SOURCE.replace("FORMULA", formula)

    with emulated_cuda(0, edit):
        grid, types = (-(-x.size // 64), 64), {"T": dtype}
        return exact(launch("position_ids", [mx.array(x)], [x.size], grid, x.shape, dtype, types))


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_numbers_round_as_on_a_device(dtype: mx.Dtype) -> None:
    halfway = np.float32(1 + 2.0 ** np.arange(-13, -1)[:, None] * np.arange(1, 16, 2))
    extreme = [0, -0.0, 65504, 65519, 65520, 1e-8, 6e-8, 3e38, 3.4e38, np.inf, -np.inf, np.nan]
    anything = np.random.default_rng().integers(0, 2**32, size=4096, dtype=np.uint32).view(np.float32)
    x = np.concatenate([halfway.ravel(), -halfway.ravel(), np.float32(extreme), anything])
    np.testing.assert_array_equal(each(x, "x[i]", dtype), exact(mx.array(x).astype(dtype)))


def test_nothing_is_contracted_and_approximations_are_close() -> None:
    x = np.full(3, 1.0002, dtype=np.float32)
    assert not each(x, "x[i] * x[i] - float(float(x[i]) * 1.0002f)").any()
    y = np.random.default_rng().uniform(0.01, 9, size=500).astype(np.float32)
    found = each(y, "rsqrtf(x[i])")
    assert (np.abs(found * np.sqrt(y.astype(np.float64)) - 1) <= 2**-22).all()
