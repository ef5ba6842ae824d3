// softmax(scale Q K^T + bias) V on the tensor cores, straight from qkv [T, 3 * heads * D] to out [T, heads * D].
// A block takes QUERIES queries of one sequence and head, TILES * 16 a warp, and walks over the keys, KEYS at a time,
// with the running maximum and sum of the online softmax in registers; the next keys are on their way meanwhile.
// `bias` [heads, 2 * reach + 1] is by distance: column - row is at place column - row + reach of the head's.
// Compiled in: T of 16 bits, BFLOAT, B (the bias's type), D (a multiple of 16), WARPS, TILES, KEYS, HAS_BIAS,
// HAS_WINDOW.
#include "shared/halves.cuh"
#include "shared/sequences.cuh"

constexpr int QUERIES = WARPS * TILES * 16;
constexpr int THREADS = WARPS * 32;
constexpr int STRIDE = D + 8;  // an odd number of 16-byte units: the 8 rows of a matrix lie in different banks
constexpr int DEPTH = D / 16;
constexpr float LOG2E = 1.4426950408889634f;

extern "C" __global__ void __launch_bounds__(THREADS)
    attention(const T* qkv, const int* cu_seqlens, const B* bias, T* out, int total, int n, int heads, int reach,
              float scale, int window) {
  scale *= LOG2E;  // exp(x) is exp2(x * LOG2E)
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int head = blockIdx.x % heads;  // heads side by side, so that the blocks at work share cache lines
  const int slot = blockIdx.x / heads;
  const int slots = gridDim.x / heads;

  const Tile tile = tile_of(cu_seqlens, n, total, QUERIES, slot, slots, lane);
  const int begin = cu_seqlens[tile.sequence];
  const int length = cu_seqlens[tile.sequence + 1] - begin;
  const int first = tile.index * QUERIES;
  if (first >= length) {
    return;
  }

  const int width = heads * D;
  const T* queries = qkv + static_cast<long long>(begin) * 3 * width + head * D;
  const T* keys = queries + width;
  const T* values = keys + width;
  const B* bias_at_zero = bias + static_cast<long long>(head) * (2 * reach + 1) + reach;
  const bool aligned = reinterpret_cast<unsigned long long>(qkv) % 16 == 0;  // a slice may start anywhere

  __shared__ alignas(16) T key_tile[2][KEYS * STRIDE];
  __shared__ alignas(16) T value_tile[2][KEYS * STRIDE];

  // Rows past the sequence's end become zeros: what lies there may be NaN, and 0 * NaN is not 0.
  const auto load = [&](int stage, int from) {
    for (int unit = threadIdx.x; unit < KEYS * (D / 8); unit += THREADS) {
      const int row = unit / (D / 8);
      const int column = unit % (D / 8) * 8;
      const bool inside = from + row < length;
      const long long source = inside ? static_cast<long long>(from + row) * 3 * width + column : 0;
      T* key = &key_tile[stage][row * STRIDE + column];
      T* value = &value_tile[stage][row * STRIDE + column];
      if (aligned) {
        const int bytes = inside ? 16 : 0;
        asm volatile(
            "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(key))),
            "l"(keys + source), "r"(bytes));
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                         static_cast<unsigned>(__cvta_generic_to_shared(value))),
                     "l"(values + source), "r"(bytes));
      } else {
        for (int i = 0; i < 8; ++i) {
          key[i] = inside ? keys[source + i] : T(0.0f);
          value[i] = inside ? values[source + i] : T(0.0f);
        }
      }
    }
    asm volatile("cp.async.commit_group;");
  };

  const auto matrices = [&](unsigned (&to)[4], const T* from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(static_cast<unsigned>(__cvta_generic_to_shared(from))));
  };
  const auto transposed = [&](unsigned (&to)[4], const T* from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(static_cast<unsigned>(__cvta_generic_to_shared(from))));
  };
  const auto exp2_fast = [&](float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  };

  // The keys that any query of this tile attends to.
  int start = 0;
  int end = length;
  if constexpr (HAS_WINDOW) {
    start = max(first - window, 0) / KEYS * KEYS;
    end = min(first + QUERIES + window, length);
  }
  load(0, start);
  if (start + KEYS < end) {
    load(1, start + KEYS);
  }

  // In a 16 x 8 fragment this lane holds columns (0, 1) + 2 * (lane % 4) of rows lane / 4 and lane / 4 + 8.
  const int warp_first = first + warp * TILES * 16;
  const int fragment_row = lane / 4;
  const int fragment_column = lane % 4 * 2;
  unsigned query[TILES][DEPTH][4];
#pragma unroll
  for (int m = 0; m < TILES; ++m) {
#pragma unroll
    for (int k = 0; k < DEPTH; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = warp_first + m * 16 + fragment_row + i % 2 * 8;
        const T* from = queries + static_cast<long long>(row) * 3 * width + k * 16 + fragment_column + i / 2 * 8;
        query[m][k][i] = 0;
        if (row < length) {
          if (aligned) {
            query[m][k][i] = *reinterpret_cast<const unsigned*>(from);
          } else {
            query[m][k][i] = rounded(static_cast<float>(from[0]), static_cast<float>(from[1]));
          }
        }
      }
    }
  }

  float result[TILES][D / 8][4] = {};
  float maximum[TILES][2];
  float sum[TILES][2];
#pragma unroll
  for (int m = 0; m < TILES; ++m) {
    maximum[m][0] = maximum[m][1] = -1e30f;  // finite, so that a tile with no key for a row leaves no NaN
    sum[m][0] = sum[m][1] = 0.0f;
  }

  int stage = 0;
  for (int from = start; from < end; from += KEYS, stage ^= 1) {
    if (from + KEYS < end) {
      asm volatile("cp.async.wait_group 1;");
    } else {
      asm volatile("cp.async.wait_group 0;");
    }
    __syncthreads();
    if (warp_first < length) {
      float score[TILES][KEYS / 8][4] = {};
#pragma unroll
      for (int j = 0; j < KEYS / 16; ++j) {
#pragma unroll
        for (int k = 0; k < DEPTH; ++k) {
          unsigned b[4];
          matrices(b, &key_tile[stage][(j * 16 + lane % 8 + lane / 16 * 8) * STRIDE + k * 16 + lane / 8 % 2 * 8]);
#pragma unroll
          for (int m = 0; m < TILES; ++m) {
            multiply(score[m][2 * j], query[m][k][0], query[m][k][1], query[m][k][2], query[m][k][3], b[0], b[1]);
            multiply(score[m][2 * j + 1], query[m][k][0], query[m][k][1], query[m][k][2], query[m][k][3], b[2], b[3]);
          }
        }
      }

      if (HAS_BIAS || HAS_WINDOW || from + KEYS > length) {
#pragma unroll
        for (int m = 0; m < TILES; ++m) {
#pragma unroll
          for (int j = 0; j < KEYS / 8; ++j) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              const int row = warp_first + m * 16 + fragment_row + i / 2 * 8;
              const int column = from + j * 8 + fragment_column + i % 2;
              bool attended = column < length;
              if constexpr (HAS_WINDOW) {
                attended = attended && abs(row - column) <= window;
              }
              if constexpr (HAS_BIAS) {
                score[m][j][i] *= scale;
                if (attended && row < length) {
                  score[m][j][i] += static_cast<float>(bias_at_zero[column - row]) * LOG2E;
                }
              }
              score[m][j][i] = attended ? score[m][j][i] : -__int_as_float(0x7f800000);
            }
          }
        }
      }

      const float factor = HAS_BIAS ? 1.0f : scale;  // what is left to multiply the scores with
#pragma unroll
      for (int m = 0; m < TILES; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float highest = maximum[m][half];
#pragma unroll
          for (int j = 0; j < KEYS / 8; ++j) {
            highest = fmaxf(highest, fmaxf(score[m][j][2 * half], score[m][j][2 * half + 1]));
          }
          highest = fmaxf(highest, __shfl_xor_sync(0xffffffff, highest, 1));
          highest = fmaxf(highest, __shfl_xor_sync(0xffffffff, highest, 2));
          const float shrink = exp2_fast((maximum[m][half] - highest) * factor);
          maximum[m][half] = highest;
          const float offset = highest * factor;
          float added = 0.0f;
#pragma unroll
          for (int j = 0; j < KEYS / 8; ++j) {
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; ++i) {
              score[m][j][i] = exp2_fast(fmaf(score[m][j][i], factor, -offset));
              added += score[m][j][i];
            }
          }
          sum[m][half] = sum[m][half] * shrink + added;
#pragma unroll
          for (int d = 0; d < D / 8; ++d) {
            result[m][d][2 * half] *= shrink;
            result[m][d][2 * half + 1] *= shrink;
          }
        }
      }

#pragma unroll
      for (int j = 0; j < KEYS / 16; ++j) {
        unsigned weights[TILES][4];
#pragma unroll
        for (int m = 0; m < TILES; ++m) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const auto& pairs = score[m][2 * j + i / 2];
            weights[m][i] = rounded(pairs[i % 2 * 2], pairs[i % 2 * 2 + 1]);
          }
        }
#pragma unroll
        for (int d = 0; d < D / 16; ++d) {
          unsigned b[4];
          transposed(b, &value_tile[stage][(j * 16 + lane % 16) * STRIDE + d * 16 + lane / 16 * 8]);
#pragma unroll
          for (int m = 0; m < TILES; ++m) {
            multiply(result[m][2 * d], weights[m][0], weights[m][1], weights[m][2], weights[m][3], b[0], b[1]);
            multiply(result[m][2 * d + 1], weights[m][0], weights[m][1], weights[m][2], weights[m][3], b[2], b[3]);
          }
        }
      }
    }
    if (from + 2 * KEYS < end) {
      __syncthreads();  // every warp is done with this stage
      load(stage, from + 2 * KEYS);
    }
  }

#pragma unroll
  for (int m = 0; m < TILES; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float whole = sum[m][half];
      whole += __shfl_xor_sync(0xffffffff, whole, 1);
      whole += __shfl_xor_sync(0xffffffff, whole, 2);
      const float inverse = 1.0f / whole;
      const int row = warp_first + m * 16 + fragment_row + half * 8;
      if (row < length) {
        T* to = out + static_cast<long long>(begin + row) * width + head * D + fragment_column;
#pragma unroll
        for (int d = 0; d < D / 8; ++d) {
          *reinterpret_cast<unsigned*>(to + d * 8) =
              rounded(result[m][d][2 * half] * inverse, result[m][d][2 * half + 1] * inverse);
        }
      }
    }
  }
}
