// out [total, N] = act(x w^T + b); or, with GATE, out [total, N / 2] = act(a) * b, where a is the first half of such a
// row (GATE 1) or the second (GATE 2) and b the other one. As linear.cu, but for rows of any width: x streams by too.
// A cluster's two blocks take as many ROWS each and the same columns, of which each fetches a half, or a half's, for
// both. Compiled in: as `products.cuh` says; STREAMED, CLUSTER; ACTIVATION and HAS_BIAS as in linear.cu; GATE.
#include "shared/activations.cuh"
#include "shared/halves.cuh"
#include "shared/products.cuh"
#include "shared/order.cuh"

constexpr int PIECES = COLUMNS / 32 / (GATE ? 2 : 1);  // of 32 columns, of a tile's result
constexpr int WIDTH = GATE ? N / 2 : N;
constexpr int PART = COLUMNS / 2;  // columns that a block fetches

extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS, 1)
    linear_streamed(const T* x, const T* w, const T* bias, const unsigned* map, T* out, unsigned* maps, int total) {
  extern __shared__ unsigned char memory[];
  Ring ring((shared_address(memory) + 1023) / 1024 * 1024);
  if (threadIdx.x == 0) ring.initialise();
  cluster_sync();

  const Order order(total);
  const int tiles = order.tiles();
  const int rank = blockIdx.x % CLUSTER;
  const int group = threadIdx.x / 128;
  const int begin = blockIdx.x / CLUSTER, step = gridDim.x / CLUSTER;

  if (group == GROUPS) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (threadIdx.x / 32 % 4 == 0) {
      const int lane = threadIdx.x % 32;
      unsigned* const own = maps + blockIdx.x * 32;
      describe(own, map, x, total, lane);
      if (lane == 0) {
        for (int tile = begin; tile < tiles; tile += step) {
          const int first = order.first_row(tile, rank), span = order.span(tile);
          const int column = GATE ? span * PART + rank * WIDTH : span * COLUMNS + rank * PART;
          for (int depth = 0; depth < DEPTHS; ++depth) {
            barrier_wait(ring.empty + ring.stage * 8, ring.parity ^ 1);
            const unsigned barrier = ring.full + ring.stage * 8;
            expect(barrier, STAGE_BYTES);
            copy_rows(ring.place() + COLUMNS * 128, own, depth * 64, first, barrier);
            const T* const columns = w + (static_cast<long long>(depth) * N + column) * 64;
            copy_to_all(ring.place() + rank * PART * 128, columns, PART * 128, barrier);
            ring.advance();
          }
        }
      }
      __syncwarp();
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;

    // 8 columns of one of a thread's two rows of a tile's result.
    const auto store = [&](const float (&sum)[SUMS], int row, int left, int piece, int half) {
      const int column = left + piece * 32;
      Eight offsets, others;
      if constexpr (HAS_BIAS) {
        offsets = *reinterpret_cast<const Eight*>(bias + column);
        if constexpr (GATE != 0) others = *reinterpret_cast<const Eight*>(bias + WIDTH + column);
      }
      float v[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int place = piece * 16 + i / 2 * 4 + half * 2 + i % 2;
        v[i] = sum[place] + (HAS_BIAS ? static_cast<float>(offsets.at[i]) : 0.0f);
        if constexpr (GATE != 0) {
          const float z = sum[PIECES * 16 + place] + (HAS_BIAS ? static_cast<float>(others.at[i]) : 0.0f);
          v[i] = GATE == 1 ? short_activation<ACTIVATION>(v[i]) * z : short_activation<ACTIVATION>(z) * v[i];
        } else if constexpr (ACTIVATION >= 0) {
          v[i] = short_activation<ACTIVATION>(v[i]);
        }
      }
      const uint4 result =
          make_uint4(rounded(v[0], v[1]), rounded(v[2], v[3]), rounded(v[4], v[5]), rounded(v[6], v[7]));
      if (row + half * 8 < total) {
        *reinterpret_cast<uint4*>(out + static_cast<long long>(row + half * 8) * WIDTH + column) = result;
      }
    };

    float sum[SUMS], before[SUMS];
    int row = 0, left = 0;  // of the results `before`, which are there
    for (int tile = begin; tile < tiles; tile += step) {
      pin(sum);
      unsigned last = 0;
#pragma unroll
      for (int depth = 0; depth < DEPTHS; ++depth) {
        multiply_place(sum, ring.place() + COLUMNS * 128 + group * BLOCK_BYTES, ring, depth > 0);
        if (tile > begin) {
#pragma unroll
          for (int part = depth * 2 * PIECES / DEPTHS; part < (depth + 1) * 2 * PIECES / DEPTHS; ++part) {
            store(before, row, left, part / 2, part % 2);
          }
        }
        go_on(ring, last, depth == 0, lane);
      }
      finish(last, lane);
      pin(sum);
#pragma unroll
      for (int i = 0; i < SUMS; ++i) before[i] = sum[i];
      row = order.first_row(tile, rank) + group * GROUP_ROWS + warp * 16 + lane / 4;
      left = order.span(tile) * PIECES * 32 + lane % 4 * 8;
    }
    if (begin < tiles) {
#pragma unroll
      for (int part = 0; part < 2 * PIECES; ++part) store(before, row, left, part / 2, part % 2);
    }
  }
  cluster_sync();  // no block leaves while another may write into its shared memory
}
