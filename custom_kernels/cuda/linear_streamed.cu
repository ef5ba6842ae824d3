// out [total, N] = act(x w^T + b); or, with GATE, out [total, N / 2] = act(a) * b, where a is the first half of such a
// row (GATE 1) or the second (GATE 2) and b the other one. As linear.cu, but for rows of any width: x streams by too.
// CLUSTER blocks beside each other take as many ROWS, and the same columns, of which each fetches a part for all.
// Compiled in: as `products.cuh` says; STREAMED, CLUSTER; ACTIVATION and HAS_BIAS as in linear.cu; GATE.
#include "shared/activations.cuh"
#include "shared/halves.cuh"
#include "shared/products.cuh"

constexpr int PIECES = COLUMNS / 32 / (GATE ? 2 : 1);  // of 32 columns, of a tile's result
constexpr int WIDTH = GATE ? N / 2 : N;
constexpr int PART = COLUMNS / 2;  // columns that are fetched at once
static_assert(PIECES <= DEPTHS);
constexpr int NEAR = 4096 / ROWS / CLUSTER;  // rows of clusters that take turns, so that the cache has their x

extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS, 1)
    linear_streamed(const T* x, const T* w, const T* bias, T* out, int total) {
  extern __shared__ unsigned char memory[];
  Ring ring((shared_address(memory) + 1023) / 1024 * 1024);
  if (threadIdx.x == 0) ring.initialise();
  cluster_sync();

  const int heights = (total + ROWS * CLUSTER - 1) / (ROWS * CLUSTER);
  const int tiles = heights * SPANS;
  const int rank = blockIdx.x % CLUSTER;
  const int group = threadIdx.x / 128;
  // Of a tile: its first row, which is this block's, and which COLUMNS.
  const auto first_row = [&](int tile) {
    const int begin = tile / (NEAR * SPANS) * NEAR, high = min(heights - begin, NEAR);
    return ((begin + tile % (NEAR * SPANS) % high) * CLUSTER + rank) * ROWS;
  };
  const auto span = [&](int tile) { return tile % (NEAR * SPANS) / min(heights - tile / (NEAR * SPANS) * NEAR, NEAR); };
  const int begin = blockIdx.x / CLUSTER, step = gridDim.x / CLUSTER;

  if (group == GROUPS) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    // The places go round the warps, each of which copies all of a place's rows and waits until they are there, since
    // the tensor cores may read them only then. What it waits for, three others have begun meanwhile or after.
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, r = lane / 8, chunk = lane % 8;
    int turn = 0;
    for (int tile = begin; tile < tiles; tile += step) {
      const int first = first_row(tile), column = span(tile) * (GATE ? PART : COLUMNS);
      const int left = total - first - r;  // rows of this lane's that there are, and three of four others'
      const T* const from = x + static_cast<long long>(first + r) * K + chunk * 8;
      for (int depth = 0; depth < DEPTHS; ++depth, ring.advance(), turn = (turn + 1) % 4) {
        if (turn != warp) continue;
        barrier_wait(ring.empty + ring.stage * 8, ring.parity ^ 1);
        const unsigned barrier = ring.full + ring.stage * 8;
        if (lane == 0) {
          asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "n"(COLUMNS * 128)
                       : "memory");
#pragma unroll
          for (int part = 0; part < 2; ++part) {
            const int row = column + part * (GATE ? N / 2 : PART);
            const T* const columns = w + (static_cast<long long>(depth) * N + row) * 64;
            if constexpr (CLUSTER == 2) {
              if (part == rank) copy_to_all(ring.place() + part * PART * 128, columns, PART * 128, barrier);
            } else {
              copy(ring.place() + part * PART * 128, columns, PART * 128, barrier);
            }
          }
        }
        const unsigned to = ring.place() + COLUMNS * 128 + r * 128;
#pragma unroll
        for (int i = 0; i < ROWS / 4; ++i) {
          asm volatile(
              "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to + ((chunk ^ (i % 2 * 4 + r)) << 4) + i * 512),
              "l"(from + depth * 64 + i * 4 * K), "r"(i * 4 < left ? 16 : 0)
              : "memory");
        }
        asm volatile("cp.async.commit_group;\ncp.async.wait_group 0;\nfence.proxy.async;" ::: "memory");
        __syncwarp();
        if (lane == 0) barrier_arrive(barrier);
      }
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;

    // 32 columns of a tile's result, 8 of them this thread's.
    const auto store = [&](const float (&sum)[SUMS], int row, int left, int piece) {
      const int column = left + piece * 32;
      Eight offsets, others;
      if constexpr (HAS_BIAS) {
        offsets = *reinterpret_cast<const Eight*>(bias + column);
        if constexpr (GATE != 0) others = *reinterpret_cast<const Eight*>(bias + WIDTH + column);
      }
      float value[2][8];
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        const int place = i % 8 / 2 * 4 + i / 8 * 2 + i % 2;
        float y = sum[piece * 16 + place] + (HAS_BIAS ? static_cast<float>(offsets.at[i % 8]) : 0.0f);
        if constexpr (GATE != 0) {
          const float z = sum[(PIECES + piece) * 16 + place] + (HAS_BIAS ? static_cast<float>(others.at[i % 8]) : 0.0f);
          y = GATE == 1 ? short_activation<ACTIVATION>(y) * z : short_activation<ACTIVATION>(z) * y;
        } else if constexpr (ACTIVATION >= 0) {
          y = short_activation<ACTIVATION>(y);
        }
        value[i / 8][i % 8] = y;
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float* const v = value[half];
        const uint4 result =
            make_uint4(rounded(v[0], v[1]), rounded(v[2], v[3]), rounded(v[4], v[5]), rounded(v[6], v[7]));
        if (row + half * 8 < total) {
          *reinterpret_cast<uint4*>(out + static_cast<long long>(row + half * 8) * WIDTH + column) = result;
        }
      }
    };

    const auto multiply = [&](float (&sum)[SUMS], bool keep) {
      multiply_place(sum, ring.place() + COLUMNS * 128 + group * BLOCK_BYTES, ring, keep);
    };
    float sum[SUMS], before[SUMS];
    int row = 0, left = 0;  // of the results `before`, which are there
    for (int tile = begin; tile < tiles; tile += step) {
      pin(sum);
      unsigned last = 0;
#pragma unroll
      for (int piece = 0; piece < PIECES; ++piece) {
#pragma unroll 1
        for (int depth = piece * DEPTHS / PIECES; depth < (piece + 1) * DEPTHS / PIECES; ++depth) {
          multiply(sum, depth > 0);
          go_on(ring, last, depth == 0, lane);
        }
        if (tile > begin) store(before, row, left, piece);
      }
      finish(last, lane);
      pin(sum);
#pragma unroll
      for (int i = 0; i < SUMS; ++i) before[i] = sum[i];
      row = first_row(tile) + group * GROUP_ROWS + warp * 16 + lane / 4;
      left = span(tile) * PIECES * 32 + lane % 4 * 8;
    }
    if (begin < tiles) {
#pragma unroll
      for (int piece = 0; piece < PIECES; ++piece) store(before, row, left, piece);
    }
  }
  cluster_sync();  // no block leaves while another may write into its shared memory
}
