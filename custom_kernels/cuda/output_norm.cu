// out [total, N] = LayerNorm(x w^T + b + residual). A warpgroup has whole rows of the result in registers, a thread a
// quarter of two rows. The residual is read while the tensor cores work: the sums of all but the first COLUMNS start
// with it.
// Compiled in: as `products.cu` says; N is a multiple of COLUMNS, and at most 384.
#include "shared/halves.cuh"
#include "shared/products.cuh"

// visit(sum, half, piece, i, column) for each of a thread's sums of a span, `half` and i saying which of its two rows
// and of its 8 neighbours in 32 columns; `left` is the first of these.
template <typename Visit>
__device__ void each(float (&sum)[SUMS], int span, int left, Visit visit) {
#pragma unroll
  for (int piece = 0; piece < COLUMNS / 32; ++piece) {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      float& s = sum[piece * 16 + i % 8 / 2 * 4 + i / 8 * 2 + i % 2];
      visit(s, i / 8, piece, i % 8, span * COLUMNS + piece * 32 + left + i % 8);
    }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    output_norm(const T* x, const T* w, const T* bias, const T* residual, const T* norm_weight, const T* norm_bias,
                T* out, int total, float eps) {
  extern __shared__ unsigned char memory[];
  unsigned char* const aligned = memory + (1024 - shared_address(memory) % 1024) % 1024;
  const unsigned rows = shared_address(aligned);
  Ring ring(rows + GROUPS * DEPTHS * BLOCK_BYTES);
  float* const offsets = reinterpret_cast<float*>(aligned + (ring.empty + STAGES * 8 - rows));
  float* const norm_weights = offsets + N;
  float* const norm_offsets = norm_weights + N;
  for (int i = threadIdx.x; i < N; i += THREADS) {
    offsets[i] = static_cast<float>(bias[i]);
    norm_weights[i] = static_cast<float>(norm_weight[i]);
    norm_offsets[i] = static_cast<float>(norm_bias[i]);
  }
  if (threadIdx.x == 0) ring.initialise();
  __syncthreads();

  const int tiles = (total + ROWS - 1) / ROWS;
  const int group = threadIdx.x / 128;
  if (group == GROUPS) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    if (threadIdx.x % 128 == 0) {
      for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        for (int span = 0; span < SPANS; ++span) {
          for (int depth = 0; depth < DEPTHS; ++depth) fetch(ring, w, span * COLUMNS, depth);
        }
      }
    }
    return;
  }
  asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const int left = lane % 4 * 8;  // of a thread's 8 columns of each 32
  const unsigned own = rows + group * DEPTHS * BLOCK_BYTES;

  const auto first_row = [&](int tile) { return tile * ROWS + group * GROUP_ROWS; };
  float sum[SPANS][SUMS];
  if (blockIdx.x < tiles) load_rows(x, own, first_row(blockIdx.x), total);
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    wait_for_rows(group);
    const int row = first_row(tile) + warp * 16 + lane / 4;
    Eight beside[SPANS][COLUMNS / 32][2];
    // Volatile, so that a load is where it is written.
    const auto read = [&](int span) {
#pragma unroll
      for (int piece = 0; piece < COLUMNS / 32; ++piece) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int from = min(row + half * 8, total - 1);
          uint4& to = *reinterpret_cast<uint4*>(&beside[span][piece][half]);
          asm volatile("ld.global.v4.b32 {%0, %1, %2, %3}, [%4];"
                       : "=r"(to.x), "=r"(to.y), "=r"(to.z), "=r"(to.w)
                       : "l"(residual + static_cast<long long>(from) * N + span * COLUMNS + piece * 32 + left));
        }
      }
    };

#pragma unroll
    for (int span = 1; span < SPANS; ++span) read(span);
    unsigned last = 0;
#pragma unroll
    for (int span = 0; span < SPANS; ++span) {
      if (span > 0) {
        each(sum[span], span, left, [&](float& s, int half, int piece, int i, int column) {
          s = static_cast<float>(beside[span][piece][half].at[i]) + offsets[column];
        });
      }
      pin(sum[span]);
#pragma unroll 1
      for (int depth = 0; depth < DEPTHS; ++depth) {
        multiply_place(sum[span], own + depth * BLOCK_BYTES, ring, span > 0 || depth > 0);
        go_on(ring, last, span == 0 && depth == 0, lane);
      }
    }
    finish(last, lane);
#pragma unroll
    for (int span = 0; span < SPANS; ++span) pin(sum[span]);
    group_sync(group);
    if (tile + gridDim.x < tiles) load_rows(x, own, first_row(tile + gridDim.x), total);

    read(0);
    each(sum[0], 0, left, [&](float& s, int half, int piece, int i, int column) {
      s += static_cast<float>(beside[0][piece][half].at[i]) + offsets[column];
    });
    // A row is four neighbouring lanes'.
    const auto row_sum = [](float s) {
      s += __shfl_xor_sync(0xffffffff, s, 1);
      return s + __shfl_xor_sync(0xffffffff, s, 2);
    };
    float whole[2][SPANS][2] = {};
#pragma unroll
    for (int span = 0; span < SPANS; ++span) {
      each(sum[span], span, left, [&](float& s, int half, int, int i, int) { whole[half][span][i % 2] += s; });
    }
    float mean[2], shift[2], scale[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float s = 0.0f;
      for (int span = 0; span < SPANS; ++span) s += whole[half][span][0] + whole[half][span][1];
      mean[half] = row_sum(s) / N;
    }
    // Second pass, over the centred values, as in layer_norm.cu.
    float rest[2][SPANS][2] = {}, square[2][SPANS][2] = {};
#pragma unroll
    for (int span = 0; span < SPANS; ++span) {
      each(sum[span], span, left, [&](float& s, int half, int, int i, int) {
        s -= mean[half];
        rest[half][span][i % 2] += s;
        square[half][span][i % 2] += s * s;
      });
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float s = 0.0f, q = 0.0f;
      for (int span = 0; span < SPANS; ++span) {
        s += rest[half][span][0] + rest[half][span][1];
        q += square[half][span][0] + square[half][span][1];
      }
      shift[half] = row_sum(s) / N;
      scale[half] = rsqrtf(fmaxf(row_sum(q) / N - shift[half] * shift[half], 0.0f) + eps);
    }
#pragma unroll
    for (int span = 0; span < SPANS; ++span) {
      each(sum[span], span, left, [&](float& s, int half, int, int, int column) {
        s = (s - shift[half]) * scale[half] * norm_weights[column] + norm_offsets[column];
      });
#pragma unroll
      for (int piece = 0; piece < COLUMNS / 32; ++piece) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float* const s = sum[span] + piece * 16 + half * 2;
          const uint4 y =
              make_uint4(rounded(s[0], s[1]), rounded(s[4], s[5]), rounded(s[8], s[9]), rounded(s[12], s[13]));
          if (row + half * 8 < total) {
            *reinterpret_cast<uint4*>(out + static_cast<long long>(row + half * 8) * N + span * COLUMNS + piece * 32 +
                                      left) = y;
          }
        }
      }
    }
  }
}
