// softmax(scale Q K^T + bias) V of float32 on the tensor cores: attention.cu says what it computes, and
// shared/sequences.cuh how blocks find their sequence. They multiply TF32, which has 11 bits: a float32 is the sum of
// two, and a product of two float32 that of three products of theirs. What is left out is 2^-21 of it at most, and sums
// of the tensor cores, which do not round to nearest, are short: those of small products are apart, and what 32 keys
// give is added by the threads.
// A block takes QUERIES queries of one sequence and head, 16 a warp, and walks over the keys, KEYS at a time; the next
// keys are on their way meanwhile. Compiled in: B (the bias's type), D (a multiple of 8), HEADS, GROUP (so many of them
// share one of key and value), WARPS, KEYS, STRIDE (numbers from row to row in shared memory, such that what a warp
// reads at once lies in different banks), HAS_BIAS, HAS_WINDOW, CAUSAL.
#include "shared/attention.cuh"
#include "shared/sequences.cuh"

constexpr int QUERIES = WARPS * 16;
constexpr int THREADS = WARPS * 32;
constexpr int UNITS = D / 4;  // of 16 bytes, of a row

// A float32 as two of TF32. The tensor cores pass over the last bits of the second.
struct Split {
  unsigned high, low;
};

__device__ Split split(float x) {
  const unsigned high = (__float_as_uint(x) + 0x1000) & 0xffffe000;
  return {high, __float_as_uint(x - __uint_as_float(high))};
}

// c += a b on the tensor cores: a warp's tiles of 16 x 8 and 8 x 8, laid out as mma.m16n8k8 has them.
__device__ void multiply(float (&c)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// The products with a low part to `small`, and the others to `large`.
__device__ void multiply(float (&small)[4], float (&large)[4], const Split (&a)[4], const Split& b0, const Split& b1) {
  multiply(small, a[0].low, a[1].low, a[2].low, a[3].low, b0.high, b1.high);
  multiply(small, a[0].high, a[1].high, a[2].high, a[3].high, b0.low, b1.low);
  multiply(large, a[0].high, a[1].high, a[2].high, a[3].high, b0.high, b1.high);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_float(const float* qkv, const int* cu_seqlens, const B* bias, float* out, int total, int n, int reach,
                    float scale, int window) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int head = blockIdx.x % HEADS;  // side by side, so that the blocks at work share cache lines
  const Tile tile = tile_of(cu_seqlens, n, total, QUERIES, blockIdx.x / HEADS, gridDim.x / HEADS, lane);
  const int begin = cu_seqlens[tile.sequence];
  const int length = cu_seqlens[tile.sequence + 1] - begin;
  const int first = tile.index * QUERIES, last = min(first + QUERIES, length);
  if (first >= last) return;

  constexpr int width = HEADS * D;  // of the result
  constexpr int kv = HEADS / GROUP * D;
  constexpr int stride = width + 2 * kv;
  const float* const queries = qkv + static_cast<long long>(begin) * stride + head * D;
  const float* const keys = queries + width + (head / GROUP - head) * D;
  const B* const bias_at_zero = bias + static_cast<long long>(head) * (2 * reach + 1) + reach;
  const bool aligned = reinterpret_cast<unsigned long long>(qkv) % 16 == 0;  // a slice may start anywhere

  extern __shared__ uint4 memory[];
  float* const key_tile = reinterpret_cast<float*>(memory);  // of both stages
  float* const value_tile = key_tile + 2 * KEYS * STRIDE;
  float* const query_tile = value_tile + 2 * KEYS * STRIDE;
  float* const own = query_tile + warp * 16 * STRIDE;

  // `count` rows on their way to shared memory. Behind the first `left`, with which the sequence ends, come zeros: what
  // lies past its end may be NaN, and 0 * NaN is not 0.
  const auto bring = [&](float* to, const float* from, int count, int left) {
#pragma unroll 4
    for (int i = threadIdx.x; i < count * UNITS; i += THREADS) {
      const int row = i / UNITS, column = i % UNITS * 4;
      float* const place = to + row * STRIDE + column;
      const float* const source = from + static_cast<long long>(row) * stride + column;
      if (aligned) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                         static_cast<unsigned>(__cvta_generic_to_shared(place))),
                     "l"(source), "r"(row < left ? 16 : 0));
      } else {
        for (int j = 0; j < 4; ++j) place[j] = row < left ? source[j] : 0.0f;
      }
    }
  };
  const auto load = [&](int stage, int from) {
    const float* const source = keys + static_cast<long long>(from) * stride;
    bring(key_tile + stage * KEYS * STRIDE, source, KEYS, length - from);
    bring(value_tile + stage * KEYS * STRIDE, source + kv, KEYS, length - from);
    asm volatile("cp.async.commit_group;");
  };

  const auto [start, end] = keys_of(first, last, length, window, KEYS);
  bring(query_tile, queries + static_cast<long long>(first) * stride, QUERIES, last - first);
  load(0, start);  // and the queries with them
  if (start + KEYS < end) load(1, start + KEYS);

  // In a 16 x 8 fragment this lane holds columns (0, 1) + 2 * (lane % 4) of rows lane / 4 and lane / 4 + 8.
  const int warp_first = first + warp * 16;
  const int fragment_row = lane / 4, quarter = lane % 4;
  float result[D / 8][4] = {};
  float maximum[2] = {-1e30f, -1e30f};  // finite, so that a tile with no key for a row leaves no NaN
  float sum[2] = {};

  int stage = 0;
  for (int from = start; from < end; from += KEYS, stage ^= 1) {
    if (from + KEYS < end) {
      asm volatile("cp.async.wait_group 1;");
    } else {
      asm volatile("cp.async.wait_group 0;");
    }
    __syncthreads();
    if (warp_first < last && (!CAUSAL || from < warp_first + 16)) {
      float score[KEYS / 8][4] = {}, small[KEYS / 8][4] = {};
#pragma unroll
      for (int k = 0; k < D / 8; ++k) {
        Split query[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          query[i] = split(own[(fragment_row + i % 2 * 8) * STRIDE + k * 8 + quarter + i / 2 * 4]);
        }
#pragma unroll
        for (int j = 0; j < KEYS / 8; ++j) {
          const float* const key = key_tile + (stage * KEYS + j * 8 + fragment_row) * STRIDE + k * 8 + quarter;
          multiply(small[j], score[j], query, split(key[0]), split(key[4]));
        }
      }
#pragma unroll
      for (int j = 0; j < KEYS / 8; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int row = warp_first + fragment_row + i / 2 * 8;
          const int column = from + j * 8 + quarter * 2 + i % 2;
          const bool attended = attends(row, column, length, window);
          score[j][i] = (score[j][i] + small[j][i]) * scale;
          if constexpr (HAS_BIAS) {
            if (attended && row < last) score[j][i] += static_cast<float>(bias_at_zero[column - row]);
          }
          score[j][i] = attended ? score[j][i] : -__int_as_float(0x7f800000);
        }
      }

      float shrink[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float highest = maximum[half];
#pragma unroll
        for (int j = 0; j < KEYS / 8; ++j) {
          highest = fmaxf(highest, fmaxf(score[j][2 * half], score[j][2 * half + 1]));
        }
        highest = fmaxf(highest, __shfl_xor_sync(0xffffffff, highest, 1));
        highest = fmaxf(highest, __shfl_xor_sync(0xffffffff, highest, 2));
        shrink[half] = expf(maximum[half] - highest);
        maximum[half] = highest;
        float added = 0.0f;
#pragma unroll
        for (int j = 0; j < KEYS / 8; ++j) {
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; ++i) {
            score[j][i] = expf(score[j][i] - highest);
            added += score[j][i];
          }
        }
        sum[half] = sum[half] * shrink[half] + added;
      }

      // The keys of a product may come in any order: those of columns 2 t and 2 t + 1 are its t and t + 4.
      Split weight[KEYS / 8][4];
#pragma unroll
      for (int j = 0; j < KEYS / 8; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) weight[j][i] = split(score[j][i % 2 * 2 + i / 2]);
      }
#pragma unroll
      for (int d = 0; d < D / 8; ++d) {
        float product[4] = {}, small[4] = {};
#pragma unroll
        for (int j = 0; j < KEYS / 8; ++j) {
          const float* const value = value_tile + (stage * KEYS + j * 8 + quarter * 2) * STRIDE + d * 8 + fragment_row;
          multiply(small, product, weight[j], split(value[0]), split(value[STRIDE]));
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) result[d][i] = fmaf(result[d][i], shrink[i / 2], product[i] + small[i]);
      }
    }
    if (from + 2 * KEYS < end) {
      __syncthreads();  // every warp is done with this stage
      load(stage, from + 2 * KEYS);
    }
  }

  // By way of shared memory, where the warp's queries were, so that whole rows are written at a time.
  __syncwarp();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float whole = sum[half];
    whole += __shfl_xor_sync(0xffffffff, whole, 1);
    whole += __shfl_xor_sync(0xffffffff, whole, 2);
    float* const to = own + (fragment_row + half * 8) * STRIDE + quarter * 2;
#pragma unroll
    for (int d = 0; d < D / 8; ++d) {
      *reinterpret_cast<float2*>(to + d * 8) =
          make_float2(result[d][2 * half] / whole, result[d][2 * half + 1] / whole);
    }
  }
  __syncwarp();
  for (int i = lane; i < 16 * UNITS; i += 32) {
    const int row = i / UNITS, column = i % UNITS * 4;
    if (warp_first + row < last) {
      *reinterpret_cast<float4*>(out + static_cast<long long>(begin + warp_first + row) * width + head * D + column) =
          *reinterpret_cast<const float4*>(own + row * STRIDE + column);
    }
  }
}
