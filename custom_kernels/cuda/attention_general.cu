// softmax(scale Q K^T + bias) V in float32 arithmetic, for any dtype and head size up to 256: see attention.cu for
// what it computes, shared/sequences.cuh for how blocks find their sequence. A warp takes EACH queries of one sequence
// and head; a lane scores one of 32 keys at a time against all of them, then sums its own columns of the values.
// Compiled in: T, B (the bias's type), D, HEADS, GROUP (so many of them share one of key and value), HAS_BIAS,
// HAS_WINDOW, CAUSAL.
#include "shared/attention.cuh"
#include "shared/sequences.cuh"

constexpr int WARPS = 4;
constexpr int EACH = 8;
constexpr int QUERIES = WARPS * EACH;
constexpr int PARTS = (D + 31) / 32;

extern "C" __global__ void __launch_bounds__(WARPS * 32)
    attention_general(const T* qkv, const int* cu_seqlens, const B* bias, T* out, int total, int n, int reach,
                      float scale, int window) {
  __shared__ alignas(16) float query[WARPS][D][EACH];
  __shared__ alignas(16) float weight[WARPS][32][EACH];

  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int head = blockIdx.x % HEADS;
  const int slot = blockIdx.x / HEADS;
  const int slots = gridDim.x / HEADS;
  const Tile tile = tile_of(cu_seqlens, n, total, QUERIES, slot, slots, lane);
  const int begin = cu_seqlens[tile.sequence];
  const int length = cu_seqlens[tile.sequence + 1] - begin;
  const int first = tile.index * QUERIES + warp * EACH;
  if (first >= length) {
    return;  // whole warps leave, and only __syncwarp follows
  }

  constexpr int kv = HEADS / GROUP * D;
  constexpr int width = HEADS * D + 2 * kv;
  const T* rows = qkv + static_cast<long long>(begin) * width;
  const T* queries = rows + head * D;
  const T* keys = rows + (HEADS + head / GROUP) * D;
  const B* bias_at_zero = bias + static_cast<long long>(head) * (2 * reach + 1) + reach;
  for (int d = lane; d < D; d += 32) {
    for (int q = 0; q < EACH; ++q) {
      const bool inside = first + q < length;
      query[warp][d][q] =
          inside ? static_cast<float>(queries[static_cast<long long>(first + q) * width + d]) * scale : 0.0f;
    }
  }
  __syncwarp();

  float result[EACH][PARTS] = {};
  float maximum[EACH];
  float sum[EACH] = {};
  for (int q = 0; q < EACH; ++q) {
    maximum[q] = -1e30f;
  }
  const auto [start, end] = keys_of(first, min(first + EACH, length), length, window, 1);
  for (int from = start; from < end; from += 32) {
    const int column = from + lane;
    float score[EACH] = {};
    if (column < end) {
      const T* key = keys + static_cast<long long>(column) * width;
#pragma unroll 8
      for (int d = 0; d < D; ++d) {
        const float x = static_cast<float>(key[d]);
#pragma unroll
        for (int q = 0; q < EACH; ++q) {
          score[q] += query[warp][d][q] * x;
        }
      }
    }
#pragma unroll
    for (int q = 0; q < EACH; ++q) {
      const int row = first + q;
      const bool attended = attends(row, column, end, window);
      if constexpr (HAS_BIAS) {
        if (attended && row < length) {
          score[q] += static_cast<float>(bias_at_zero[column - row]);
        }
      }
      float highest = attended ? score[q] : -__int_as_float(0x7f800000);
      score[q] = highest;
      for (int offset = 16; offset > 0; offset /= 2) {
        highest = fmaxf(highest, __shfl_xor_sync(0xffffffff, highest, offset));
      }
      highest = fmaxf(highest, maximum[q]);
      const float shrink = expf(maximum[q] - highest);
      const float share = expf(score[q] - highest);
      maximum[q] = highest;
      sum[q] = sum[q] * shrink + share;
      weight[warp][lane][q] = share;
#pragma unroll
      for (int p = 0; p < PARTS; ++p) {
        result[q][p] *= shrink;
      }
    }
    __syncwarp();
    const int count = min(32, end - from);
    for (int j = 0; j < count; ++j) {
      const T* value = keys + static_cast<long long>(from + j) * width + kv;
#pragma unroll
      for (int p = 0; p < PARTS; ++p) {
        const int d = p * 32 + lane;
        const float x = d < D ? static_cast<float>(value[d]) : 0.0f;
#pragma unroll
        for (int q = 0; q < EACH; ++q) {
          result[q][p] += weight[warp][j][q] * x;
        }
      }
    }
    __syncwarp();
  }
#pragma unroll
  for (int q = 0; q < EACH; ++q) {
    float whole = sum[q];
    for (int offset = 16; offset > 0; offset /= 2) {
      whole += __shfl_xor_sync(0xffffffff, whole, offset);
    }
    if (first + q < length) {
#pragma unroll
      for (int p = 0; p < PARTS; ++p) {
        const int d = p * 32 + lane;
        if (d < D) {
          out[(static_cast<long long>(begin + first + q) * HEADS + head) * D + d] =
              static_cast<T>(result[q][p] / whole);
        }
      }
    }
  }
}
