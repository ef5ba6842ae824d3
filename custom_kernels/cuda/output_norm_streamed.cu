// out [total, N] = LayerNorm(x w^T + b + residual), as output_norm.cu, but for rows of which a block has room for half:
// the two of a cluster have the same ROWS, each WIDTH of their columns, and tell each other what their halves' means
// are. x streams by, like w, each block fetching one group's rows for both. A thread has a quarter of two such half
// rows. Compiled in: as `products.cuh` says; N is 4 * COLUMNS, GROUPS and CLUSTER are 2.
#include "shared/halves.cuh"
#include "shared/products.cuh"

constexpr int WIDTH = N / CLUSTER;
constexpr int PARTS = WIDTH / COLUMNS;  // of a thread's sums, each one instruction's
constexpr int PIECES = COLUMNS / 32;
constexpr int BATCH = 2;  // pieces of the residual that are on their way at once

struct Half {
  float mean, square;  // of a half row, and the sum of what its values are away from it, squared
};

// visit(sum, half, i, column) for each of a thread's sums of 32 columns, the first of which is `first`.
template <typename Visit>
__device__ void each(float (&sum)[SUMS], int piece, int first, Visit visit) {
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    visit(sum[piece * 16 + i % 8 / 2 * 4 + i / 8 * 2 + i % 2], i / 8, i % 8, first + i % 8);
  }
}

__device__ unsigned in_the_other(unsigned place, int rank) {
  unsigned there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(place), "r"(rank ^ 1));
  return there;
}

extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS, 1)
    output_norm_streamed(const T* x, const T* w, const T* bias, const T* residual, const T* norm_weight,
                         const T* norm_bias, const unsigned* map, T* out, unsigned* maps, int total, float eps) {
  extern __shared__ unsigned char memory[];
  // For each group what the other block has found of its rows, by turns in two places, and a barrier that says so.
  __shared__ alignas(16) Half found[2][GROUPS][GROUP_ROWS];
  __shared__ alignas(8) unsigned long long told[2][GROUPS];
  unsigned char* const aligned = memory + (1024 - shared_address(memory) % 1024) % 1024;
  Ring ring(shared_address(aligned));
  float* const offsets = reinterpret_cast<float*>(aligned + (ring.empty + STAGES * 8 - ring.places));
  float* const norm_weights = offsets + WIDTH;
  float* const norm_offsets = norm_weights + WIDTH;
  const int rank = blockIdx.x % CLUSTER, begin = blockIdx.x / CLUSTER, step = gridDim.x / CLUSTER;
  for (int i = threadIdx.x; i < WIDTH; i += THREADS) {
    offsets[i] = static_cast<float>(bias[rank * WIDTH + i]);
    norm_weights[i] = static_cast<float>(norm_weight[rank * WIDTH + i]);
    norm_offsets[i] = static_cast<float>(norm_bias[rank * WIDTH + i]);
  }
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2 * GROUPS; ++i) barrier_initialise(shared_address(&told[i / GROUPS][i % GROUPS]), 1);
    ring.initialise();
  }
  cluster_sync();

  const int tiles = (total + ROWS - 1) / ROWS;
  const int group = threadIdx.x / 128;
  if (group == GROUPS) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    if (threadIdx.x / 32 % 4 == 0) {
      const int lane = threadIdx.x % 32;
      unsigned* const own = maps + blockIdx.x * 32;
      describe(own, map, x, total, lane);
      for (int tile = begin; tile < tiles; tile += step) {
        // The residual will be wanted when the tile is done.
        for (int row = tile * ROWS + lane; row < min(tile * ROWS + ROWS, total); row += 32) {
          asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(residual + static_cast<long long>(row) * N +
                                                                          rank * WIDTH),
                       "n"(WIDTH * 2)
                       : "memory");
        }
        if (lane == 0) {
          for (int depth = 0; depth < DEPTHS; ++depth) {
            barrier_wait(ring.empty + ring.stage * 8, ring.parity ^ 1);
            const unsigned barrier = ring.full + ring.stage * 8;
            expect(barrier, STAGE_BYTES);
            const T* const columns = w + (static_cast<long long>(depth) * N + rank * WIDTH) * 64;
            copy(ring.place(), columns, WIDTH * 128, barrier);
            copy_rows_to_all(ring.place() + WIDTH * 128 + rank * BLOCK_BYTES, own, depth * 64,
                             tile * ROWS + rank * GROUP_ROWS, barrier);
            ring.advance();
          }
        }
        __syncwarp();
      }
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const int left = lane % 4 * 8;  // of a thread's 8 columns of each 32
    const int own_row = warp * 16 + lane / 4;

    float sum[PARTS][SUMS];
    int turn = 0;
    for (int tile = begin; tile < tiles; tile += step, ++turn) {
      const int row = tile * ROWS + group * GROUP_ROWS + own_row;
#pragma unroll
      for (int part = 0; part < PARTS; ++part) pin(sum[part]);
      unsigned last = 0;
#pragma unroll 1
      for (int depth = 0; depth < DEPTHS; ++depth) {
        begin_place(ring);
        const unsigned rows = ring.place() + WIDTH * 128 + group * BLOCK_BYTES;
#pragma unroll
        for (int part = 0; part < PARTS; ++part) {
          multiply_block(sum[part], rows, ring.place() + part * COLUMNS * 128, depth > 0);
        }
        commit_wgmma();
        go_on(ring, last, depth == 0, lane);
      }
      finish(last, lane);
#pragma unroll
      for (int part = 0; part < PARTS; ++part) pin(sum[part]);

      const T* from[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        from[half] = residual + static_cast<long long>(min(row + half * 8, total - 1)) * N + rank * WIDTH + left;
      }
      float whole[2] = {};
#pragma unroll
      for (int part = 0; part < PARTS; ++part) {
#pragma unroll
        for (int some = 0; some < PIECES; some += BATCH) {
          Eight beside[BATCH][2];
#pragma unroll
          for (int i = 0; i < 2 * BATCH; ++i) {
            // Volatile, so that a load is where it is written.
            uint4& to = *reinterpret_cast<uint4*>(&beside[i / 2][i % 2]);
            asm volatile("ld.global.v4.b32 {%0, %1, %2, %3}, [%4];"
                         : "=r"(to.x), "=r"(to.y), "=r"(to.z), "=r"(to.w)
                         : "l"(from[i % 2] + part * COLUMNS + (some + i / 2) * 32));
          }
#pragma unroll
          for (int piece = 0; piece < BATCH; ++piece) {
            each(sum[part], some + piece, part * COLUMNS + (some + piece) * 32 + left,
                 [&](float& s, int half, int i, int column) {
                   s += static_cast<float>(beside[piece][half].at[i]) + offsets[column];
                   whole[half] += s;
                 });
          }
        }
      }
      // A half row is four neighbouring lanes'.
      const auto row_sum = [](float s) {
        s += __shfl_xor_sync(0xffffffff, s, 1);
        return s + __shfl_xor_sync(0xffffffff, s, 2);
      };
      float mean[2], rest[2] = {}, square[2] = {};
#pragma unroll
      for (int half = 0; half < 2; ++half) mean[half] = row_sum(whole[half]) / WIDTH;
#pragma unroll
      for (int part = 0; part < PARTS; ++part) {
#pragma unroll
        for (int piece = 0; piece < PIECES; ++piece) {
          each(sum[part], piece, part * COLUMNS + piece * 32 + left, [&](float& s, int half, int, int) {
            const float away = s - mean[half];
            rest[half] += away;
            square[half] += away * away;
          });
        }
      }

      // Both halves' means and squares make the row's (Chan, Golub and LeVeque, 1979).
      const unsigned barrier = shared_address(&told[turn % 2][group]);
      if (threadIdx.x % 128 == 0) expect(barrier, GROUP_ROWS * sizeof(Half));
      float scale[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float shift = row_sum(rest[half]) / WIDTH;
        mean[half] += shift;
        square[half] = row_sum(square[half]) - shift * shift * WIDTH;
        if (lane % 4 == 0) {
          const unsigned to = shared_address(&found[turn % 2][group][own_row + half * 8]);
          asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::"r"(
                           in_the_other(to, rank)),
                       "f"(mean[half]), "f"(square[half]), "r"(in_the_other(barrier, rank))
                       : "memory");
        }
      }
      barrier_wait(barrier, turn / 2 % 2);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const Half other = found[turn % 2][group][own_row + half * 8];
        const float apart = other.mean - mean[half];
        mean[half] += apart / 2;
        const float both = square[half] + other.square + apart * apart * (WIDTH / 2);
        scale[half] = rsqrtf(fmaxf(both / N, 0.0f) + eps);
      }
#pragma unroll
      for (int part = 0; part < PARTS; ++part) {
#pragma unroll
        for (int piece = 0; piece < PIECES; ++piece) {
          each(sum[part], piece, part * COLUMNS + piece * 32 + left, [&](float& s, int half, int, int column) {
            s = (s - mean[half]) * scale[half] * norm_weights[column] + norm_offsets[column];
          });
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const float* const s = sum[part] + piece * 16 + half * 2;
            const uint4 y =
                make_uint4(rounded(s[0], s[1]), rounded(s[4], s[5]), rounded(s[8], s[9]), rounded(s[12], s[13]));
            if (row + half * 8 < total) {
              *reinterpret_cast<uint4*>(out + static_cast<long long>(row + half * 8) * N + rank * WIDTH +
                                        part * COLUMNS + piece * 32 + left) = y;
            }
          }
        }
      }
    }
  }
  cluster_sync();  // no block leaves while the other may write into its shared memory
}
