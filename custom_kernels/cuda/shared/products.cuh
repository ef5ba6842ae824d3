// Products on Hopper's tensor cores (wgmma), x [total, K] times the transpose of w [N, K]. A warpgroup has GROUP_ROWS
// rows of x in shared memory for as long as it needs them; w streams by, COLUMNS of its rows and 64 of its columns at a
// time, through a ring of STAGES places that one thread keeps filled for all warpgroups.
// `lay_out` of products.py has laid w out as [K / 64, N, 64], so that a place is one bulk copy: in the order of the
// tensor cores' 128-byte swizzle, and each 32 rows of w such that a thread's sums of them are 8 neighbours in the
// result.
// With STREAMED the rows of x are in the ring too, behind the columns, and CLUSTER blocks fill and empty each other's.
// Compiled in: T, BFLOAT, K (a multiple of 64), N, COLUMNS, STAGES, GROUPS, PLACE_COLUMNS (of w in
// a place, COLUMNS or a multiple), STREAMED, CLUSTER, WGMMA (the instruction).
#include "shared/tile.cuh"

constexpr int BLOCK_BYTES = 64 * 128;  // of a group's rows, 64 columns of them
constexpr int STAGE_BYTES = PLACE_COLUMNS * 128 + (STREAMED ? GROUPS * BLOCK_BYTES : 0);
constexpr int ARRIVALS = 1;

struct alignas(16) Eight {
  T at[8];
};

#include "shared/ring.cuh"

// By a warp: `map`, which tells the bulk copies of some array, in `own`, with the address and the rows of this one.
__device__ void describe(unsigned* own, const unsigned* map, const T* x, int total, int lane) {
  __shared__ alignas(128) unsigned changed[32];
  changed[lane] = map[lane];
  __syncwarp();
  if (lane == 0) {
    asm volatile(
        "tensormap.replace.tile.global_address.shared::cta.b1024.b64 [%0], %1;\n"
        "tensormap.replace.tile.global_dim.shared::cta.b1024.b32 [%0], 1, %2;" ::"r"(shared_address(changed)),
        "l"(x), "r"(total)
        : "memory");
  }
  __syncwarp();
  asm volatile(
      "tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned [%0], [%1], 128;\n"
      "fence.proxy.tensormap::generic.acquire.gpu [%0], 128;" ::"l"(own),
      "r"(shared_address(changed))
      : "memory");
}

// One bulk copy of 64 columns, from `column` on, of the rows from `row` on of the array that `map` tells of.
__device__ void copy_rows(unsigned to, const unsigned* map, int column, int row, unsigned barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
          to),
      "l"(map), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}

__device__ void copy_rows_to_all(unsigned to, const unsigned* map, int column, int row, unsigned barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1, {%2, %3}], [%4], %5;" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(barrier), "h"(static_cast<unsigned short>(3))
      : "memory");
}

// By one thread: the next place gets the rows of w from `row` on, at this depth.
__device__ void fetch(Ring& ring, const T* w, int row, int depth) {
  barrier_wait(ring.empty + ring.stage * 8, ring.parity ^ 1);
  const unsigned barrier = ring.full + ring.stage * 8;
  expect(barrier, STAGE_BYTES);
  copy(ring.place(), w + (static_cast<long long>(depth) * N + row) * 64, STAGE_BYTES, barrier);
  ring.advance();
}

__device__ void wgmma(float (&sum)[SUMS], unsigned long long rows, unsigned long long columns, int keep) { WGMMA; }

// The next place is full, and may be multiplied.
__device__ void begin_place(const Ring& ring) {
  barrier_wait(ring.full + ring.stage * 8, ring.parity);
  begin_wgmma();
}

// 64 columns of a group's rows times as many of COLUMNS of w: added to `sum`, or, if not `keep`, in its place.
__device__ void multiply_block(float (&sum)[SUMS], unsigned rows, unsigned columns, bool keep) {
  const unsigned long long a = described(rows), b = described(columns);
#pragma unroll
  for (int i = 0; i < 4; ++i) wgmma(sum, a + i * 2, b + i * 2, keep || i > 0);
}

// One place of the ring times the rows at the same depth.
__device__ void multiply_place(float (&sum)[SUMS], unsigned rows, Ring& ring, bool keep) {
  begin_place(ring);
  multiply_block(sum, rows, ring.place(), keep);
  commit_wgmma();
}

// After such a product: on to the next place. Unless this was the `first`, the place before it, whose barrier is
// `last`, is empty again once its product is done.
__device__ void go_on(Ring& ring, unsigned& last, bool first, int lane) {
  if (!first) {
    finish_wgmma<1>();
    hand_back(last, lane);
  }
  last = ring.empty + ring.stage * 8;
  ring.advance();
}

// After the last of a sum's products.
__device__ void finish(unsigned last, int lane) {
  finish_wgmma<0>();
  hand_back(last, lane);
}

// Begin to copy the group's rows from `first` on into shared memory; those beyond `total` are zero.
__device__ void load_rows(const T* x, unsigned to, int first, int total) {
#pragma unroll 4
  for (int i = 0; i < K / 16; ++i) {
    const int place = i * 128 + threadIdx.x % 128, r = place / (K / 8), chunk = place % (K / 8), row = first + r;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to + chunk / 8 * BLOCK_BYTES + r * 128 +
                                                                       ((chunk % 8 ^ r % 8) << 4)),
                 "l"(x + static_cast<long long>(min(row, total - 1)) * K + chunk * 8), "r"(row < total ? 16 : 0)
                 : "memory");
  }
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Wait for these rows, until all of the group's threads have theirs and the tensor cores may read them.
__device__ void wait_for_rows(int group) {
  asm volatile("cp.async.wait_group 0;\nfence.proxy.async;" ::: "memory");
  group_sync(group);
}
