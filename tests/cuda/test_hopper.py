"""The emulation of Hopper's products: right, and a fault put into a kernel is found, and named."""

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest

from custom_kernels.cuda import wgmma
from custom_kernels.cuda.launch import kernel_source, launch
from tests.cuda.emulation import EmulationError, emulated_cuda, unavailable
from tests.custom_kernels.conftest import exact, random

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")

# By its number, a fault of the kernel below, and what is said of it.
FAULTS = {
    # Something is not waited for, or too late.
    "no fence.proxy.async": r"no fence\.proxy\.async between the write of thread \d+ and wgmma's read: memory",
    "no barrier": "race: memory",
    "no wait for the copies": "a copy is on its way to memory",
    "no wgmma.fence": r"no wgmma\.fence",
    "no second wgmma.fence": r"no wgmma\.fence",
    "a register is written behind the fence": r"no wgmma\.fence",
    "no commit": "a sum of wgmma, which is not waited for, is touched",
    "no wait": "a sum of wgmma, which is not waited for, is touched",
    "wait for all but one": "a sum of wgmma, which is not waited for, is touched",
    "a register of A is written": "a register that wgmma reads is written",
    "memory is written": "wgmma, not waited for, reads memory",
    "memory is written with no barrier": "race: memory|wgmma, not waited for, reads memory",
    "no last wait": "a thread ends, and has not waited for its wgmma",
    "more registers": "setmaxnreg waits for ever",
    # Descriptors are wrong, or not all threads'.
    "another swizzle": "no swizzle of 128 bytes",
    "an offset of the base": "a base's offset",
    "rows across pieces": "no multiple of 1024",
    "columns across rows": "across the end of 128 bytes",
    "out of bounds": r"wgmma reads out of bounds: memory\[\d+\] of",
    "another descriptor": "descriptors differ",
    "another predicate": "predicates differ",
    "a thread less": "divergent|waits for ever",
}

# out = (x y^T) z of 64 x 64 each, the first product rounded in between; or with z^T, whose rows then are the columns.
SOURCE = """
__device__ unsigned address(const void* at) { return static_cast<unsigned>(__cvta_generic_to_shared(at)); }
__device__ unsigned long long described(unsigned at) {
  return (static_cast<unsigned long long>(at & 0x3ffff) >> 4) | (1ull << 16) | (64ull << 32) | (1ull << 62);
}
__device__ void multiply(float (&sum)[32], unsigned long long rows, unsigned long long columns, int keep) { WGMMA; }
__device__ void add(float (&sum)[32], const unsigned (&a)[4], unsigned long long columns, int keep) {
  WGMMA_OF_A;
}

extern "C" __global__ void __launch_bounds__(128) products(const T* x, const T* y, const T* z, T* out, int fault) {
  extern __shared__ unsigned char memory[];
  const unsigned start = (address(memory) + 1023) / 1024 * 1024;
  T* const tiles = reinterpret_cast<T*>(memory + (start - address(memory)));
  for (int i = threadIdx.x; i < 3 * 64 * 8; i += 128) {
    const int row = i % 512 / 8, chunk = i % 8;
    const T* const from = i < 512 ? x : i < 1024 ? y : z;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(start + i / 8 * 128 +
                 ((chunk ^ row % 8) << 4)), "l"(from + i % 512 * 8), "r"(16));
  }
  asm volatile("cp.async.commit_group;");
  if (!"no wait for the copies") asm volatile("cp.async.wait_group 0;");
  if (!"no fence.proxy.async") asm volatile("fence.proxy.async;" ::: "memory");
  if (!"no barrier") __syncthreads();
  float sum[32];
  if (!"no wgmma.fence") asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  for (int k = 0; k < 4; ++k) {
    unsigned long long rows = described(start + k * ("columns across rows" ? 56 : 32));
    if ("another swizzle") rows ^= 3ull << 62;
    if ("an offset of the base") rows |= 1ull << 49;
    if ("rows across pieces") rows += 128 >> 4;
    if ("out of bounds") rows += 5 * 8192 >> 4;
    if ("another descriptor") rows += threadIdx.x / 127;
    if ("a thread less" && threadIdx.x == 9) continue;
    multiply(sum, rows, described(start + 8192 + k * 32), k > ("another predicate" ? threadIdx.x / 127 : 0));
  }
  if (!"no commit") asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  if ("memory is written") __syncthreads();
  if ("memory is written") tiles[threadIdx.x] = T(0.0f);
  if ("wait for all but one") {
    asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
  } else if (!"no wait") {
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  }
  if ("memory is written with no barrier") tiles[threadIdx.x] = T(0.0f);
  unsigned a[4][4];
  for (int i = 0; i < 16; ++i) a[i / 4][i % 4] = rounded(sum[2 * i], sum[2 * i + 1]);
  for (int i = 0; i < 32; ++i) sum[i] = 0.0f;
  if (!"no second wgmma.fence") asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  if ("a register is written behind the fence") a[2][1] = 0;
  for (int k = 0; k < 4; ++k) add(sum, a[k], described(start + 2 * 8192 + k * (BY_ROWS ? 2048 : 32)), k > 0);
  if ("a register of A is written") a[1][3] = 0;
  if ("more registers") asm volatile("setmaxnreg.inc.sync.aligned.u32 256;");
  if ("no last wait") return;
  asm volatile("wgmma.commit_group.sync.aligned;\\nwgmma.wait_group.sync.aligned 0;" ::: "memory");
  for (int i = 0; i < 32; ++i) {
    const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + i / 2 % 2 * 8;
    out[row * 64 + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2] = T(sum[i]);
  }
}
"""
for number, fault in enumerate(FAULTS):
    assert f'"{fault}"' in SOURCE
    SOURCE = SOURCE.replace(f'"{fault}"', f"(fault == {number})")


def in_place(header: str, text: str) -> Callable[[str], str]:
    """Puts another kernel in the place of `position_ids`."""
    return lambda source: source[: source.index("// The place of each")] + kernel_source(header) + text


def products(x: mx.array, y: mx.array, z: mx.array, seed: int, fault: int = -1, by_rows: bool = True) -> mx.array:
    bfloat = x.dtype == mx.bfloat16
    with emulated_cuda(seed, in_place("shared/halves.cuh", SOURCE)):
        macros = {"WGMMA": wgmma.of_memory(64, x.dtype), "WGMMA_OF_A": wgmma.of_registers(64, x.dtype, by_rows)}
        types, constants, memory = {"T": x.dtype}, {"BFLOAT": bfloat, "BY_ROWS": by_rows}, 1024 + 3 * 8192
        inputs, grid = [x, y, z], (1, 128)
        return launch("position_ids", inputs, [fault], grid, x.shape, x.dtype, types, constants, macros, memory)


@pytest.mark.parametrize(("dtype", "bound"), [("float16", 2e-3), ("bfloat16", 1.6e-2)])
def test_products_are_right(dtype: str, bound: float) -> None:
    x, y, z = (random(64, 64, dtype=dtype) for _ in range(3))
    between = mx.array((exact(x) @ exact(y).T).astype(np.float32)).astype(x.dtype)
    for by_rows, expected in ((True, exact(between) @ exact(z)), (False, exact(between) @ exact(z).T)):
        for seed in (0, 2):
            found = exact(products(x, y, z, seed, by_rows=by_rows))
            assert np.abs(found - expected).max() <= bound * np.abs(expected).max()


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(fault: str) -> None:
    x = random(64, 64, dtype="float16")
    with pytest.raises(EmulationError, match=FAULTS[fault]):
        products(x, x, x, 2, list(FAULTS).index(fault))


# The last thread says by one barrier that it begins, and by another that it has written what the first one reads.
WAITS = """
extern "C" __global__ void __launch_bounds__(64) waits(const T* x, T* out, int which) {
  extern __shared__ unsigned char memory[];
  const unsigned barriers = shared_address(memory);
  T* const written = reinterpret_cast<T*>(memory + 16);
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2; ++i) barrier_initialise(barriers + i * 8, 1);
    barriers_are_there();
  }
  __syncthreads();
  if (threadIdx.x == 63) {
    barrier_arrive(barriers);
    written[0] = x[0];
    barrier_arrive(barriers + 8);
  }
  if (threadIdx.x == 0) {
    barrier_wait(barriers + which * 8, 0);
    out[0] = written[0];
  }
}
"""


def test_a_wait_orders_what_was_before_its_phase_was_over() -> None:
    x = random(1, dtype="float16")

    def read(which: int, seed: int) -> mx.array:
        with emulated_cuda(seed, in_place("shared/hopper.cuh", WAITS)):
            return launch("position_ids", [x], [which], (1, 64), x.shape, x.dtype, {"T": x.dtype}, {}, {}, 32)

    for seed in (0, 1, 2):
        assert read(1, seed).item() == x.item()
    with pytest.raises(EmulationError, match="race: memory"):  # the writer comes first, and has been at both
        read(0, 1)
